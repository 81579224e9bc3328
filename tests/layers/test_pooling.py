"""Poolings by loops over their definitions and by hand (CANON N3); spatial pyramid pooling has a file of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import ops

from saccade.layers.pooling import PyramidPooling, SumPool2d


def windows(maps, kernel, stride, padding, fill, reduce):
    """``reduce`` of every window, one after the other."""
    padded = np.pad(maps, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=fill)
    height, width = ((side - kernel) // stride + 1 for side in padded.shape[2:])
    out = np.zeros((*maps.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            out[:, :, i, j] = reduce(padded[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel], axis=(2, 3))
    return out


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 0)])
@pytest.mark.parametrize(
    ("layer", "fill", "reduce"),
    [(nn.MaxPool2d, -np.inf, np.max), (nn.AvgPool2d, 0, np.mean), (SumPool2d, 0, np.sum)],
    ids=["max", "average", "sum"],
)
def test_N3_pooling_reduces_every_window(layer, fill, reduce, kernel, stride, padding):
    maps = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    expected = windows(maps.numpy(), kernel, stride, padding, fill, reduce)
    np.testing.assert_allclose(layer(kernel, stride, padding)(maps).numpy(), expected, atol=1e-12)


def test_N3_the_sum_is_the_mean_times_the_window_and_passes_the_gradient_on():
    maps = torch.randn(1, 2, 6, 9, requires_grad=True)
    torch.testing.assert_close(SumPool2d((2, 3))(maps), 6 * F.avg_pool2d(maps, (2, 3)))
    SumPool2d((2, 3))(maps).sum().backward()
    assert maps.grad.eq(1).all()


def test_N3_global_pooling_is_one_value_a_map():
    maps = torch.randn(2, 3, 5, 7)
    assert nn.AdaptiveAvgPool2d(1)(maps).flatten(1).allclose(maps.mean((2, 3)))
    assert nn.AdaptiveMaxPool2d(1)(maps).flatten(1).equal(maps.amax((2, 3)))


def test_N3_max_with_indices_and_back():
    maps = torch.tensor([[[[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]]])
    maxima, where = nn.MaxPool2d(2, return_indices=True)(maps)
    assert maxima[0, 0].tolist() == [[5, 6], [7, 8]]
    assert where[0, 0].tolist() == [[5, 2], [12, 15]]  # row * width + column
    back = nn.MaxUnpool2d(2)(maxima, where)
    assert back[0, 0].tolist() == [[0, 0, 6, 0], [0, 5, 0, 0], [0, 0, 0, 0], [7, 0, 0, 8]]
    assert nn.MaxPool2d(2)(back).equal(maxima)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_N3_unpooling_then_pooling_is_the_identity_at_any_size(size):
    maps = torch.rand(2, 3, *size)
    maxima, where = F.max_pool2d(maps, 2, return_indices=True)
    back = F.max_unpool2d(maxima, where, 2, output_size=size)
    assert back.shape == maps.shape
    assert F.max_pool2d(back, 2).equal(maxima)
    assert (back != 0).sum() == maxima.numel()
    assert back[back != 0].equal(maps[back != 0])


# -- regions ----------------------------------------------------------------------------------------


def test_N3_roi_pool_by_hand():
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    got = ops.RoIPool((2, 2), 1 / 16)(maps, [torch.tensor([[0.0, 0, 112, 112]])])  # cells 0..7, both ends in
    assert got[0, 0].tolist() == [[27, 31], [59, 63]]


def quantised_bins(low, high, bins):
    """Fast R-CNN: ends rounded to cells, both in; bin i from floor(i side / bins) to ceil((i + 1) side / bins)."""
    first, last = (math.floor(v + 0.5) for v in (low, high))
    side = max(last - first + 1, 1)
    return [(first + math.floor(i * side / bins), first + math.ceil((i + 1) * side / bins)) for i in range(bins)]


def some_boxes():
    generator = torch.Generator().manual_seed(1)
    corner, side = torch.rand(6, 2, generator=generator) * 80, torch.rand(6, 2, generator=generator) * 60 + 8
    return torch.cat([corner, corner + side], 1)


def test_N3_roi_pool_is_the_maximum_of_quantised_bins():
    maps, boxes = torch.randn(1, 3, 10, 12), some_boxes()
    got = ops.RoIPool((3, 2), 1 / 16)(maps, [boxes])
    for box, result in zip((boxes / 16).tolist(), got, strict=True):
        for i, (top, bottom) in enumerate(quantised_bins(box[1], box[3], 3)):
            for j, (left, right) in enumerate(quantised_bins(box[0], box[2], 2)):
                cells = maps[0, :, top : min(bottom, 10), left : min(right, 12)].flatten(1)
                assert result[:, i, j].equal(cells.amax(1) if cells.numel() else torch.zeros(3))


def test_N3_roi_align_reads_a_ramp_at_the_middle_of_each_bin():
    """Bilinear samples of a linear map are exact: x - 0.5 at a place x in cells, half a cell less than without ``aligned``."""
    ramp = torch.arange(12.0).expand(1, 1, 10, 12)
    box = torch.tensor([[20.0, 30, 116, 110]])
    middles = 20 / 16 + (torch.arange(3) + 0.5) * (96 / 16) / 3
    aligned = ops.RoIAlign((2, 3), 1 / 16, 2, aligned=True)(ramp, [box])[0, 0]
    torch.testing.assert_close(aligned, (middles - 0.5).expand(2, 3))
    torch.testing.assert_close(ops.RoIAlign((2, 3), 1 / 16, 2)(ramp, [box])[0, 0], middles.expand(2, 3))


def test_N3_roi_align_is_the_mean_of_bilinear_samples():
    maps, box = torch.randn(1, 2, 9, 9, dtype=torch.float64), [1.7, 2.1, 6.4, 7.3]
    got = ops.RoIAlign((2, 2), 1.0, 2, aligned=True)(maps, [torch.tensor([box], dtype=torch.float64)])[0]

    def at(y, x):  # cell centres at whole numbers
        top, left = math.floor(y), math.floor(x)
        ly, lx = y - top, x - left
        block = maps[0, :, top : top + 2, left : left + 2]
        weights = torch.tensor([[(1 - ly) * (1 - lx), (1 - ly) * lx], [ly * (1 - lx), ly * lx]], dtype=torch.float64)
        return (block * weights).sum((1, 2))

    step_y, step_x = (box[3] - box[1]) / 4, (box[2] - box[0]) / 4
    for i in range(2):
        for j in range(2):
            samples = [
                at(box[1] - 0.5 + (2 * i + a + 0.5) * step_y, box[0] - 0.5 + (2 * j + b + 0.5) * step_x) for a in (0, 1) for b in (0, 1)
            ]
            torch.testing.assert_close(got[:, i, j], torch.stack(samples).mean(0))


def test_N3_position_sensitive_roi_pool_takes_each_bin_from_its_own_map():
    """R-FCN: maps in the order class, bin row, bin column; a map that is constant gives its constant in its one place."""
    maps = torch.arange(18.0).view(1, 18, 1, 1).expand(1, 18, 12, 12).contiguous()
    got = ops.PSRoIPool((3, 3), 1 / 16)(maps, [torch.tensor([[0.0, 0, 143, 143]])])
    assert got.shape == (1, 2, 3, 3)
    assert got[0].flatten().tolist() == list(range(18))


def test_N3_position_sensitive_roi_pool_is_the_mean_of_its_bin():
    maps = torch.randn(1, 8, 10, 12, dtype=torch.float64)
    box = torch.tensor([[16.0, 32, 128, 112]], dtype=torch.float64)  # from cell 1 to before 8, from 2 to before 7
    got = ops.PSRoIPool((2, 2), 1 / 16)(maps, [box])[0]
    rows, columns = (
        [(2, 5), (4, 7)],
        [(1, 5), (4, 8)],
    )  # 2 + 5 i / 2 and 1 + 7 j / 2, rounded outward; torchvision leaves the end out, unlike RoIPool
    for c in range(2):
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                torch.testing.assert_close(got[c, i, j], maps[0, c * 4 + i * 2 + j, top:bottom, left:right].mean())


# -- PSPNet's pyramid -------------------------------------------------------------------------------


def bilinear(maps, size):
    """Corners on corners: position i of n reads at i (m - 1) / (n - 1)."""
    out = maps
    for axis, length in zip((1, 2), size, strict=True):
        have = out.shape[axis]
        at = np.arange(length) * (have - 1) / (length - 1)
        low = np.minimum(np.floor(at).astype(int), max(have - 2, 0))
        high = np.minimum(low + 1, have - 1)
        share = (at - low).reshape((-1,) + (1,) * (2 - axis))
        out = np.take(out, low, axis) * (1 - share) + np.take(out, high, axis) * share
    return out


@pytest.mark.parametrize("size", [(12, 18), (7, 9)])
def test_N3_psp_is_the_means_of_the_bins_reduced_and_enlarged(size):
    torch.manual_seed(0)
    layer = PyramidPooling(8).double().eval()
    maps = torch.randn(1, 8, *size, dtype=torch.float64)
    got = layer(maps)[0].detach().numpy()
    x = maps[0].numpy()
    np.testing.assert_array_equal(got[:8], x)
    for number, bins in enumerate((1, 2, 3, 6)):
        spans = [[slice(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)] for side in size]
        means = np.array([[x[:, rows, columns].mean((1, 2)) for columns in spans[1]] for rows in spans[0]])  # (bins, bins, C)
        weight = layer.levels[number][1].weight[:, :, 0, 0].detach().numpy()
        reduced = np.maximum(np.einsum("oc,ijc->oij", weight, means) / np.sqrt(1 + 1e-5), 0)
        np.testing.assert_allclose(got[8 + 2 * number : 10 + 2 * number], bilinear(reduced, size), atol=1e-12)


def test_N3_psp_keeps_the_size_and_doubles_the_maps():
    layer = PyramidPooling(2048)
    assert layer.out_channels == 4096
    assert sum(p.numel() for p in layer.parameters()) == 4 * (2048 * 512 + 2 * 512)
    with torch.device("meta"):
        assert PyramidPooling(2048)(torch.empty(2, 2048, 60, 60)).shape == (2, 4096, 60, 60)


def test_N3_psp_of_any_levels_and_one_image():
    layer = PyramidPooling(7, (1, 4), norm=lambda maps: nn.GroupNorm(1, maps))
    maps = torch.randn(1, 7, 3, 5, requires_grad=True)
    out = layer(maps)
    assert out.shape == (1, layer.out_channels, 3, 5) == (1, 13, 3, 5)
    out.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    with pytest.raises(ValueError, match="levels"):
        PyramidPooling(2)
    with pytest.raises(ValueError, match="levels"):
        PyramidPooling(8, ())


def test_N3_psp_exports():
    layer, maps = PyramidPooling(8).eval(), torch.rand(1, 8, 12, 12)
    torch.testing.assert_close(torch.export.export(layer, (maps,)).module()(maps), layer(maps))
