"""Folding of batch normalisation: equal outputs, nothing else touched."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.models import mobilenet_v3_small
from torchvision.ops import Conv2dNormActivation

from saccade.layers.conv_bn import ConvBN
from saccade.layers.fuse import fuse_conv_bn


def worn(model: nn.Module) -> nn.Module:
    """The model in eval mode with statistics and weights of normalisation that are not the neutral ones."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


@torch.no_grad()
def same(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """The fused copy, after its outputs were found equal."""
    fused = fuse_conv_bn(copy.deepcopy(model))
    torch.testing.assert_close(fused(image), model(image), atol=1e-5, rtol=1e-5)
    return fused


NETWORKS = {
    "ConvBN": lambda: nn.Sequential(ConvBN(3, 8, 3, 2, activation="silu", eps=1e-3), ConvBN(8, 8, 3, groups=4, activation="leaky")),
    "Conv2dNormActivation": lambda: Conv2dNormActivation(3, 8, 5, 2, activation_layer=nn.Hardswish),
    "Sequential with a bias": lambda: nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    ),
    "not affine": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)),
    "mobilenet_v3_small": lambda: mobilenet_v3_small(num_classes=5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_N3_fused_network_gives_the_same_numbers_without_a_norm(name):
    fused = same(worn(NETWORKS[name]()), torch.rand(2, 3, 40, 33))
    assert norms(fused) == 0


def test_N3_timm_pairs_in_a_sequential_are_fused_and_its_other_norms_left():
    """In timm's ResNet the stem and the projections stand in a Sequential: their layers have numbers for names."""
    model = worn(timm.create_model("test_resnet", num_classes=4))
    pairs = sum(name[-1:].isdigit() and type(layer) is nn.BatchNorm2d for name, layer in model.named_modules() if "bn" not in name)
    fused = same(model, torch.rand(1, 3, 64, 64))
    assert pairs > 0
    assert norms(fused) == norms(model) - pairs
    active = worn(timm.create_model("efficientnet_lite0", num_classes=4))  # its norms hold the activation
    assert norms(same(active, torch.rand(1, 3, 64, 64))) == norms(active)


def test_N3_fusing_is_in_place_and_once():
    model = worn(nn.Sequential(ConvBN(3, 8, 3)))
    image = torch.rand(1, 3, 9, 9)
    expected = model(image)
    assert fuse_conv_bn(fuse_conv_bn(model)) is model
    torch.testing.assert_close(model(image), expected, atol=1e-5, rtol=1e-5)
    assert [name for name, _ in model.named_parameters()] == ["0.conv.weight", "0.conv.bias"]


def test_N3_what_cannot_be_folded_is_left():
    """A convolution used twice, one with a hook, one that is parametrised, a norm without statistics, a subclass."""

    class Standardised(nn.Conv2d):
        def forward(self, x):
            return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias)

    shared = nn.Conv2d(3, 3, 1)
    heard = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    seen = []
    heard[0].register_forward_hook(lambda *_: seen.append(1))
    model = worn(
        nn.Sequential(
            nn.Sequential(shared, nn.BatchNorm2d(3)),
            nn.Sequential(shared, nn.BatchNorm2d(3)),
            heard,
            nn.Sequential(weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)),
            nn.Sequential(Standardised(3, 3, 1), nn.BatchNorm2d(3)),
        )
    )
    unsteady = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    image = torch.rand(2, 3, 5, 5)
    expected, count = model(image), norms(model)
    fuse_conv_bn(model)
    assert norms(model) == count
    torch.testing.assert_close(model(image), expected, atol=1e-6, rtol=1e-6)
    assert len(seen) == 2
    assert norms(same(unsteady, image)) == 1


def test_N3_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"eval\(\) first"):
        fuse_conv_bn(nn.Sequential(ConvBN(3, 4, 1)))
