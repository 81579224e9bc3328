"""Inception v2 against table 1 and the figures of the paper."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from saccade import UsageError, create_model
from saccade.layers.backbones import register_own
from saccade.models.classify.inception_v2 import MIDDLE, Inception6, Inception7


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return create_model("inception_v2").network


def macs(module: nn.Module, maps: torch.Tensor) -> int:
    """Multiply-adds of all convolutions, by hooks."""
    total = 0

    def count(layer, given, out):
        nonlocal total
        total += out[0].numel() * layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.Conv2d)]
    module(maps)
    for hook in hooks:
        hook.remove()
    return total


def test_C7_inception_v2_has_the_input_sizes_of_table_1(network):
    got, maps = {}, torch.empty(1, 3, 299, 299, device="meta")
    for name, layer in network.features.named_children():
        got[name] = tuple(maps.shape[1:])
        maps = layer(maps)
    table = {
        "conv1": (3, 299, 299), "conv2": (32, 149, 149), "conv3": (32, 147, 147), "pool": (64, 147, 147), "conv4": (64, 73, 73),
        "conv5": (80, 71, 71), "conv6": (192, 35, 35), "inception_3a": (288, 35, 35), "inception_3b": (288, 35, 35),
        "reduction_3c": (288, 35, 35), "inception_4a": (768, 17, 17), "inception_4d": (768, 17, 17), "reduction_4e": (768, 17, 17),
        "inception_5a": (1280, 8, 8),
    }  # fmt: skip
    assert {name: got[name] for name in table} == table
    assert maps.shape[1:] == (2048, 8, 8)
    groups = ["".join(c for c in name if c.isdigit()) for name in got if name[-1] in "abcde" and "_" in name]
    assert [groups.count(k) for k in "345"] == [3, 5, 2]


def test_C7_a_5x5_window_costs_25_9_and_two_3x3_save_25_18(network):
    """Section 3.1, on the convolutions of the network's own branch with equal maps: 96 to 96 on 35x35."""
    _, first, second = network.features.inception_3a.double3x3
    maps = torch.empty(1, 96, 35, 35, device="meta")
    one = macs(second, maps)
    five = macs(nn.Conv2d(96, 96, 5, padding=2, device="meta"), maps)
    assert five / one == pytest.approx(25 / 9)
    assert five / (2 * one) == pytest.approx(25 / 18)
    assert (first.conv.kernel_size, second.conv.kernel_size) == ((3, 3), (3, 3))
    assert not [m for m in network.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) in (5, 11)]


def test_C7_1xn_and_nx1_cost_2_nths_of_nxn(network):
    """Section 3.2: 33% cheaper than 3x3 at n = 3; n = 7 in the 17x17 modules."""
    branch = network.features.inception_4d.conv7x7
    maps = torch.empty(1, 192, 17, 17, device="meta")
    pair = macs(branch[1], maps) + macs(branch[2], maps)
    assert pair / macs(nn.Conv2d(192, 192, 7, padding=3, device="meta"), maps) == pytest.approx(2 / 7)
    assert [m.conv.kernel_size for m in network.features.inception_4a.double7x7] == [(1, 1), (1, 7), (7, 1), (1, 7), (7, 1)]
    assert tuple(network.features.get_submodule(f"inception_4{k}").conv7x7[1].conv.out_channels for k in "abcd") == MIDDLE


def test_C7_the_modules_of_figures_6_and_7():
    torch.manual_seed(0)
    maps = torch.randn(2, 20, 9, 9)
    six, seven = Inception6(20, 8, 1 / 16).eval(), Inception7(20, 1 / 16).eval()
    out = six(maps)
    assert out.shape == (2, 4 * 12, 9, 9)
    torch.testing.assert_close(out[:, :12], six.conv1x1(maps))
    torch.testing.assert_close(out[:, -12:], six.pool.project(nn.functional.avg_pool2d(maps, 3, 1, 1)))
    out = seven(maps)
    entered = seven.conv3x3[0](maps)
    sides = seven.conv3x3[1]
    assert (sides.across.conv.kernel_size, sides.down.conv.kernel_size) == ((1, 3), (3, 1))
    torch.testing.assert_close(out[:, 20 : 20 + 48], torch.cat([sides.across(entered), sides.down(entered)], 1))


def test_C7_inception_v2_says_the_least_size():
    with pytest.raises(UsageError, match=r"model\.size=74: it lies in 75"):
        create_model("inception_v2", 3, size=74, width=0.0625)
    assert create_model("inception_v2", 3, size=75, width=0.0625).eval().raw(torch.zeros(1, 3, 75, 75)).shape == (1, 3)
    with pytest.raises(UsageError, match="no weights are published"):
        create_model("inception_v2", pretrained=True)


def test_C7_inception_v2_smooths_labels():
    from saccade.models.registry import default_recipe, find

    assert default_recipe(find("inception_v2")).label_smoothing == 0.1


def test_C7_inception_v2_is_a_backbone_of_timm():
    register_own()
    network = timm.create_model("saccade_inception_v2", features_only=True, width=0.0625)
    maps = network(torch.rand(1, 3, 107, 107))
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert network.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [m.shape[2] for m in maps] == [51, 23, 11, 5, 2]
