"""A rewritten classifier against the classifier itself on every crop."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from saccade import UsageError, create_model
from saccade.layers.dense_to_conv import to_convolutional


def small_vgg(padding: int) -> torchvision.models.VGG:
    """torchvision's VGG with fewer maps; without padding a window of the maps is the maps of a crop."""
    torch.manual_seed(0)
    with torch.device("meta"):  # its own dense layers have a hundred million weights
        net = torchvision.models.VGG(nn.Sequential(), num_classes=5, init_weights=False)
    net.features = torchvision.models.vgg.make_layers([8, "M", 8, "M", 16, "M"], batch_norm=True)
    net.classifier = nn.Sequential(nn.Linear(16 * 49, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding = (padding, padding)
    return net.eval()


@torch.no_grad()
def check_crops(net, dense, size: tuple[int, int], stride: int, channels: int = 3) -> None:
    """At every position of a larger image: the classifier's own output on the crop."""
    height, width = size[0] + 2 * stride, size[1] + 3 * stride
    image = torch.randn(1, channels, height, width)
    maps = dense(image)
    assert maps.shape[2:] == (3, 4)
    for i in range(3):
        for j in range(4):
            crop = image[..., i * stride : i * stride + size[0], j * stride : j * stride + size[1]]
            torch.testing.assert_close(maps[..., i, j], net(crop), rtol=1e-4, atol=1e-5)


def test_N7_torchvisions_vgg_at_every_position_is_its_output_on_the_crop():
    net = small_vgg(padding=0)
    # 70 - 2 = 68, 34 - 2 = 32, 16 - 2 = 14, pooled to 7x7
    check_crops(net, to_convolutional(net, (70, 70)), (70, 70), 8)


@torch.no_grad()
def test_N7_with_padding_a_position_is_the_classifier_on_its_window_of_the_maps():
    net = small_vgg(padding=1)
    dense = to_convolutional(net, (56, 56))
    image = torch.randn(2, 3, 72, 88)
    features, maps = net.features(image), dense(image)
    assert maps.shape == (2, 5, 3, 5)
    for i in range(3):
        for j in range(5):
            expected = net.classifier(features[..., i : i + 7, j : j + 7].flatten(1))
            torch.testing.assert_close(maps[..., i, j], expected, rtol=1e-4, atol=1e-5)
    at_size = image[..., :56, :56]
    torch.testing.assert_close(dense(at_size)[..., 0, 0], net(at_size), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_N7_the_given_network_is_left_alone():
    net = small_vgg(padding=1)
    image = torch.randn(1, 3, 56, 56)
    before = net(image)
    dense = to_convolutional(net, (56, 56))
    dense.get_parameter("classifier.0.weight").zero_()
    assert isinstance(net.classifier[0], nn.Linear)
    assert net(image).equal(before)


def test_N7_lenet5_slides_in_steps_of_four():
    torch.manual_seed(0)
    net = create_model("lenet5").eval()
    check_crops(net, to_convolutional(net, (32, 32), 1), (32, 32), 4, channels=1)


def test_N7_course_cnn_slides_in_steps_of_four():
    torch.manual_seed(0)
    net = create_model("course_cnn", 4, in_chans=3).network.eval()
    check_crops(net, to_convolutional(net, (28, 28)), (28, 28), 4)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 99), ("zfnet", 96)])
@torch.no_grad()
def test_N7_our_networks_of_two_dense_layers(name, size):
    torch.manual_seed(0)
    net = create_model(name, 4, size=size, width=0.0625).network.eval()
    dense = to_convolutional(net, (size, size))
    image = torch.randn(1, 3, size + 32, size + 64)
    features = net.features(image)
    height, width = net.features(image[..., :size, :size]).shape[2:]
    maps = dense(image)
    for i in range(maps.shape[2]):
        for j in range(maps.shape[3]):
            expected = net.head(features[..., i : i + height, j : j + width])
            torch.testing.assert_close(maps[..., i, j], expected, rtol=1e-4, atol=1e-5)
    assert maps.shape[2] > 1


@torch.no_grad()
def test_N7_timms_networks_with_global_pooling():
    """The mean over all maps becomes the mean over a window of the size that it was built for."""
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=5).eval()
    dense = to_convolutional(net, (64, 64))
    image = torch.randn(1, 3, 96, 64)
    maps = dense(image)
    features = net.forward_features(image)
    side = net.forward_features(image[..., :64, :]).shape[-1]
    assert maps.shape == (1, 5, features.shape[2] - side + 1, 1)
    for i in range(maps.shape[2]):
        torch.testing.assert_close(maps[..., i, 0], net.forward_head(features[..., i : i + side, :]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "size", "stride"), [("overfeat_fast", 75, 32), ("nin", 32, 4), ("nin_imagenet", 99, 32)])
@torch.no_grad()
def test_N7_networks_that_are_convolutions_already_keep_their_outputs(name, size, stride):
    torch.manual_seed(0)
    net = create_model(name, 4, size=size, width=0.0625).network.eval()
    dense = to_convolutional(net, (size, size))
    image = torch.randn(2, 3, size + stride, size)
    maps = dense(image)
    assert maps.shape == (2, 4, 2, 1)
    torch.testing.assert_close(dense(image[..., :size, :])[..., 0, 0], net(image[..., :size, :]), rtol=1e-4, atol=1e-5)


class Odd(nn.Module):
    """Flattening by view, batch normalisation of vectors, functional pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.norm, self.fc2 = nn.Conv2d(3, 4, 3), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, 2, bias=False)

    def forward(self, x):
        x = torch.nn.functional.adaptive_max_pool2d(self.conv(x).relu(), (2, 2))
        x = torch.relu(self.norm(self.fc1(x.view(x.size(0), -1))))
        return self.fc2(x)


def test_N7_views_functions_and_batch_normalisation():
    torch.manual_seed(0)
    net = Odd()
    net(torch.randn(8, 3, 10, 10))  # statistics
    net.eval()
    dense = to_convolutional(net, (10, 10))
    check_crops(net, dense, (10, 10), 4)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.norm(x))


def test_N7_says_what_has_no_convolutional_form():
    with pytest.raises(UsageError, match=r"2\.norm \(LayerNorm\) has no convolutional form"):
        to_convolutional(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), Normed()), (4, 4))
    with pytest.raises(UsageError, match="Sequential at 8x8 cannot be rewritten"):
        to_convolutional(nn.Sequential(nn.Flatten(), nn.Linear(27, 2)), (8, 8))
    with pytest.raises(UsageError, match="has no convolutional form"):  # its pyramid has no window that slides
        to_convolutional(create_model("sppnet", 3, size=64, width=0.0625).network, (64, 64))
    with pytest.raises(UsageError, match="no even windows"):
        to_convolutional(nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(27, 2)), (8, 8))
