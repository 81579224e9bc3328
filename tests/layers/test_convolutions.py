"""Convolutions by loops over their definition, and the course's worked examples (CANON N2)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import signal
from timm.layers import SeparableConv2d
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.layers.convolutions import CausalConv1d, dilated_extent, multiplications, separable_multiplications


def by_loops(x, weight, bias, *, stride=1, padding=0, dilation=1, groups=1):
    """The definition, one product after the other; any number of sides."""
    sides = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(padding, padding)] * sides)
    kernel = weight.shape[2:]
    size = [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    out = np.zeros((len(x), len(weight), *size))
    per_out, per_in = len(weight) // groups, weight.shape[1]
    for n, o, *at in itertools.product(*map(range, out.shape)):
        total = bias[o]
        for c, *tap in itertools.product(range(per_in), *map(range, kernel)):
            place = tuple(a * stride + t * dilation for a, t in zip(at, tap, strict=True))
            total += weight[(o, c, *tap)] * x[(n, o // per_out * per_in + c, *place)]
        out[(n, o, *at)] = total
    return out


@pytest.mark.parametrize(
    ("sides", "options"),
    [
        (2, {}),
        (2, {"stride": 2, "padding": 1}),
        (2, {"dilation": 2}),
        (2, {"dilation": 3, "padding": 3}),
        (2, {"groups": 2}),
        (2, {"groups": 4}),
        (1, {"stride": 2}),
        (3, {"padding": 1}),
    ],
    ids=["standard", "strided", "dilated_2", "dilated_3", "grouped", "depthwise", "1d", "3d"],
)
def test_N2_convolutions_are_sums_of_products(sides, options):
    torch.manual_seed(0)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[sides - 1]
    layer, x = kind(4, 4, 3, **options).double(), torch.randn(1, 4, *(4,) * sides if sides == 3 else (7,) * sides, dtype=torch.float64)
    expected = by_loops(x.numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy(), **options)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


def test_N2_a_pointwise_convolution_is_a_dense_layer_at_every_pixel():
    layer, x = nn.Conv2d(5, 3, 1), torch.randn(2, 5, 4, 6)
    dense = nn.functional.linear(x.permute(0, 2, 3, 1), layer.weight[:, :, 0, 0], layer.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), dense)


def test_N2_a_separable_convolution_is_a_plain_one_whose_weights_are_products():
    """Kernel of maps c and o: the pointwise weight times the depthwise kernel of c."""
    layer, x = SeparableConv2d(4, 6, 3).double(), torch.randn(2, 4, 7, 5, dtype=torch.float64)
    weight = layer.conv_pw.weight * layer.conv_dw.weight.transpose(0, 1)  # (6, 4, 1, 1) * (1, 4, 3, 3)
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, weight, padding=1))


def test_N2_the_transposed_convolution_of_the_course():
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]]))
    out = layer(torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]]))
    assert out[0, 0].tolist() == [[1, 3, 2, 5, 3], [0] * 5, [4, 9, 5, 11, 6], [0] * 5, [7, 15, 8, 17, 9]]


def test_N2_a_transposed_convolution_adds_copies_of_its_kernel():
    """SciPy's full convolution of the input with zeros in between, cut by the padding."""
    layer, x = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, bias=False).double(), torch.randn(1, 1, 4, 3, dtype=torch.float64)
    spread = np.zeros((7, 5))
    spread[::2, ::2] = x[0, 0]
    expected = signal.convolve2d(spread, layer.weight[0, 0].detach().numpy())[1:-1, 1:-1]
    np.testing.assert_allclose(layer(x)[0, 0].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("rate", "side"), [(1, 3), (2, 5), (3, 7)])
def test_N2_a_dilated_3x3_covers(rate, side):
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    layer = nn.Conv2d(1, 1, 3, dilation=rate, padding=rate, bias=False)
    layer(x)[0, 0, 7, 7].backward()
    rows, columns = x.grad[0, 0].nonzero().T
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side == dilated_extent(3, rate)
    assert len(rows) == 9


@pytest.mark.parametrize(("kernel", "stride", "dilation", "groups"), [(3, 1, 1, 1), (2, 1, 4, 2), (4, 2, 1, 1), (3, 3, 2, 1), (1, 1, 1, 1)])
def test_N2_a_causal_convolution_sees_the_past_only(kernel, stride, dilation, groups):
    torch.manual_seed(0)
    layer = CausalConv1d(2, 4, kernel, stride, dilation=dilation, groups=groups).double()
    x = torch.randn(1, 2, 13, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    assert out.shape == (1, 4, -(-13 // stride))
    for t in range(out.shape[2]):
        (grad,) = torch.autograd.grad(out[0, :, t].sum(), x, retain_graph=True)
        taps = [t * stride - k * dilation for k in range(kernel) if t * stride >= k * dilation]
        assert sorted(taps) == grad[0].abs().sum(0).nonzero().flatten().tolist()
    padded = np.pad(x.detach().numpy(), [(0, 0), (0, 0), (dilation * (kernel - 1), 0)])
    expected = by_loops(padded, layer.weight.detach().numpy(), layer.bias.detach().numpy(), stride=stride, dilation=dilation, groups=groups)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-12)


def test_N2_a_causal_convolution_exports_and_keeps_its_weights():
    layer, x = CausalConv1d(2, 4, 3, dilation=2), torch.randn(1, 2, 9)
    plain = nn.Conv1d(2, 4, 3, dilation=2)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x)[..., 4:], plain(x))
    assert torch.export.export(layer, (x,)).module()(x).equal(layer(x))


def test_N2_costs_of_the_course():
    assert multiplications(3, 256, 5, (8, 8)) == 1_228_800
    assert separable_multiplications(3, 256, 5, (8, 8)) == 53_952 == 4_800 + 49_152
    assert round(multiplications(512, 64, 3, (14, 14)) / 1e6, 1) == 57.8
    assert round((multiplications(512, 32, 1, (14, 14)) + multiplications(32, 64, 3, (14, 14))) / 1e6, 1) == 6.8


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 256, 5), (1, 3, 12, 12)),
        (nn.Conv2d(6, 4, (3, 5), stride=2, groups=2), (1, 6, 11, 12)),
        (nn.Conv2d(6, 6, 3, dilation=2, groups=6), (1, 6, 9, 9)),
        (nn.Conv1d(4, 8, 3), (1, 4, 10)),
        (nn.Conv3d(2, 4, 3), (1, 2, 5, 6, 7)),
    ],
)
def test_N2_costs_are_those_that_torch_counts(layer, shape):
    with FlopCounterMode(display=False) as counter:
        out = layer(torch.rand(shape))
    cost = multiplications(layer.in_channels, layer.out_channels, layer.kernel_size, out.shape[2:], groups=layer.groups)
    assert 2 * cost == counter.get_total_flops()


def test_N2_the_separable_share_is_one_over_maps_and_window():
    share = separable_multiplications(64, 128, 3, (14, 14)) / multiplications(64, 128, 3, (14, 14))
    assert share == pytest.approx(1 / 128 + 1 / 9)


def test_N2_groups_must_divide():
    with pytest.raises(ValueError, match="4 groups must divide 6 and 8 maps"):
        multiplications(6, 8, 3, (4, 4), groups=4)
