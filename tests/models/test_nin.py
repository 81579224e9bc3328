"""Network in Network: equation 2 as loops, sizes and parameters by hand."""

from __future__ import annotations

import pytest
import timm
import torch

from saccade import UsageError, create_model
from saccade.layers.backbones import register_own
from saccade.models.classify.nin import mlpconv


def conv(before: int, after: int, kernel: int = 1) -> int:
    return (before * kernel * kernel + 1) * after


def shapes(network, image):
    got = {}
    for name, module in (*network.features.named_children(), *network.head.named_children()):
        image = module(image)
        got[name] = tuple(image.shape[1:])
    return got


def test_C4_nin_has_the_sizes_and_966986_parameters():
    network = create_model("nin").network.eval()
    got = shapes(network, torch.zeros(1, 3, 32, 32))
    expected = {
        "mlpconv1": (96, 32, 32), "pool1": (96, 16, 16), "mlpconv2": (192, 16, 16), "pool2": (192, 8, 8), "mlpconv3": (192, 8, 8),
        "mlp2": (10, 8, 8), "pool": (10, 1, 1), "flatten": (10,),
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected
    count = conv(3, 192, 5) + conv(192, 160) + conv(160, 96)
    count += conv(96, 192, 5) + 2 * conv(192, 192)
    count += conv(192, 192, 3) + conv(192, 192) + conv(192, 10)
    assert count == 966_986
    assert sum(p.numel() for p in network.parameters()) == count


def test_C4_nin_for_photos_has_the_sizes_and_7595176_parameters():
    with torch.device("meta"):
        network = create_model("nin_imagenet").network
    got = shapes(network, torch.empty(1, 3, 224, 224, device="meta"))
    expected = {
        "mlpconv1": (96, 54, 54), "pool1": (96, 27, 27), "mlpconv2": (256, 27, 27), "pool2": (256, 13, 13), "mlpconv3": (384, 13, 13),
        "pool3": (384, 6, 6), "mlpconv4": (1024, 6, 6), "mlp2": (1000, 6, 6), "flatten": (1000,),
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected
    count = conv(3, 96, 11) + 2 * conv(96, 96) + conv(96, 256, 5) + 2 * conv(256, 256) + conv(256, 384, 3) + 2 * conv(384, 384)
    count += conv(384, 1024, 3) + conv(1024, 1024) + conv(1024, 1000)
    assert count == 7_595_176
    assert sum(p.numel() for p in network.parameters()) == count


def test_C4_mlpconv_is_a_small_network_at_every_position():
    """Equation 2: the patch under each position through the same three layers."""
    torch.manual_seed(0)
    block = mlpconv(2, (4, 3, 5), 3)
    image = torch.randn(1, 2, 6, 5)
    got = block(image)
    for i in range(4):
        for j in range(3):
            x = image[0, :, i : i + 3, j : j + 3].flatten()
            for layer in (block.conv, block.mlp1, block.mlp2):
                x = (layer.weight.flatten(1) @ x + layer.bias).clamp_min(0)
            torch.testing.assert_close(got[0, :, i, j], x)


def test_C4_nins_logits_are_the_means_of_one_map_a_class():
    torch.manual_seed(0)
    model = create_model("nin", 4, width=0.0625).eval()
    images = torch.randn(2, 3, 32, 32)
    maps = model.network.head.mlp2(model.network.features(images))
    torch.testing.assert_close(model.raw(images), maps.flatten(2).mean(2))
    before = model.network.forward_head(model.network.features(images), pre_logits=True)
    torch.testing.assert_close(before @ model.network.head.mlp2.weight.flatten(1).T + model.network.head.mlp2.bias, model.raw(images))
    rectified = create_model("nin", 4, width=0.0625, last_relu=True).eval()
    rectified.load_state_dict(model.state_dict())
    torch.testing.assert_close(rectified.raw(images), maps.clamp_min(0).flatten(2).mean(2))


def test_C4_nin_takes_any_size_and_says_what_is_too_small():
    model = create_model("nin", 4, width=0.0625)
    assert model.raw(torch.zeros(1, 3, 45, 70)).shape == (1, 4)
    with pytest.raises(UsageError, match=r"nin_imagenet cannot work on 32x32; the least model.size is"):
        create_model("nin_imagenet", size=32)


def test_C4_nin_is_a_backbone_of_timm():
    register_own()
    network = timm.create_model("saccade_nin_imagenet", features_only=True, width=0.0625)
    assert network.feature_info.reduction() == [4, 8, 16, 32]
    assert [tuple(m.shape[1:]) for m in network(torch.rand(1, 3, 224, 224))] == [(8, 54, 54), (16, 27, 27), (24, 13, 13), (64, 6, 6)]
    head = timm.create_model("saccade_nin", num_classes=5, width=0.0625)
    head.reset_classifier(7)
    assert head(torch.rand(2, 3, 32, 32)).shape == (2, 7)
