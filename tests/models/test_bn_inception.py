"""BN-Inception against figure 5 of the paper."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from saccade import UsageError, create_model, testing
from saccade.layers.backbones import register_own

FIGURE_5 = """
3a 1 64 64 64 64 96 avg 32 28 256
3b 1 64 64 96 64 96 avg 64 28 320
3c 2 0 128 160 64 96 max 0 14 576
4a 1 224 64 96 96 128 avg 128 14 576
4b 1 192 96 128 96 128 avg 128 14 576
4c 1 160 128 160 128 160 avg 96 14 576
4d 1 96 128 192 160 192 avg 96 14 576
4e 2 0 128 192 192 256 max 0 7 1024
5a 1 352 192 320 160 224 avg 128 7 1024
5b 1 352 192 320 192 224 max 128 7 1024
"""
ROWS = [row.split() for row in FIGURE_5.strip().splitlines()]


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return create_model("bn_inception").network


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def unit(maps_in: int, maps_out: int, side: int) -> int:
    """Weights, and gamma and beta."""
    return side * side * maps_in * maps_out + 2 * maps_out


def test_C7_bn_inception_has_the_sizes_of_figure_5(network):
    maps = torch.empty(1, 3, 224, 224, device="meta")
    got = {}
    for name, layer in network.features.named_children():
        maps = layer(maps)
        got[name] = tuple(maps.shape[1:])
    expected = {"conv1": (64, 112, 112), "pool1": (64, 56, 56), "conv2": (192, 56, 56), "pool2": (192, 28, 28)}
    expected |= {f"inception_{row[0]}": (int(row[-1]), int(row[-2]), int(row[-2])) for row in ROWS}
    assert {name: got[name] for name in expected} == expected


def test_C7_bn_inception_has_the_parameters_of_figure_5(network):
    stem = 7 * 7 * 24 + unit(24, 64, 1)  # separable: each colour by itself to 8 maps, then 1x1
    total, before = stem + unit(64, 64, 1) + unit(64, 192, 3), 192
    for name, _, *numbers in ROWS:
        one, reduce3, three, reduce_double, double, kind, projection, _, depth = numbers
        one, reduce3, three, reduce_double, double, projection = map(int, (one, reduce3, three, reduce_double, double, projection))
        here = (unit(before, one, 1) if one else 0) + unit(before, reduce3, 1) + unit(reduce3, three, 3)
        here += unit(before, reduce_double, 1) + unit(reduce_double, double, 3) + unit(double, double, 3)
        here += unit(before, projection, 1) if projection else 0
        module = network.features.get_submodule(f"inception_{name}")
        assert count(module) == here, name
        assert isinstance(module.pool.pool, {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[kind])
        total, before = total + here, int(depth)
    assert count(network) == total + 1024 * 1000 + 1000


def test_C7_two_3x3_windows_see_a_5x5_at_18_25ths_of_its_cost(network):
    branch = network.features.inception_4c.double3x3  # 128 -> 160 -> 160
    five = nn.Conv2d(160, 160, 5, bias=False)
    assert five.weight.numel() / branch.conv2.conv.weight.numel() == pytest.approx(25 / 9)
    assert five.weight.numel() / (2 * branch.conv2.conv.weight.numel()) == pytest.approx(25 / 18)
    probe = nn.Sequential(*(nn.Conv2d(1, 1, m.conv.kernel_size, padding=m.conv.padding, bias=False) for m in (branch.conv1, branch.conv2)))
    for layer in probe:
        nn.init.ones_(layer.weight)
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1
    assert (probe(point)[0, 0] > 0).sum() == 25


def test_C7_every_convolution_is_normalised_and_nothing_is_dropped(network):
    convolutions = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    norms = [name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(convolutions) - 1  # the depthwise half of the first has none of its own
    assert not [m for m in network.modules() if isinstance(m, (nn.Dropout, nn.LocalResponseNorm))]


def test_C7_bn_inception_options():
    assert create_model("bn_inception", 3, stem="plain", width=0.0625).network.features.conv1.conv.weight.shape == (4, 3, 7, 7)
    assert testing.build("bn_inception", in_chans=1).network.features.conv1.depthwise.weight.shape == (8, 1, 7, 7)
    with pytest.raises(UsageError, match="no weights are published"):
        create_model("bn_inception", pretrained=True)


def test_C7_bn_inception_is_a_backbone_of_timm():
    register_own()
    network = timm.create_model("saccade_bn_inception", features_only=True, width=0.0625)
    maps = network(torch.rand(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [64 // m.shape[2] for m in maps] == network.feature_info.reduction() == [2, 4, 8, 16, 32]
