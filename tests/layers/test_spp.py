"""Spatial pyramid pooling against the paper's numbers, loops over its formula, and torch's adaptive pooling."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from saccade.layers.spp import SpatialPyramidPooling, pyramid_level, pyramid_window


@pytest.mark.parametrize("size", [(13, 13), (10, 10), (7, 23), (4, 4), (40, 3), (1, 1)])
def test_N3_levels_4_2_1_on_256_maps_give_21_times_256_values_at_any_size(size):
    layer = SpatialPyramidPooling((4, 2, 1))
    assert layer(torch.rand(2, 256, *size)).shape == (2, 21 * 256)
    assert layer.bins == 21


def test_N3_the_papers_windows_and_strides_at_13():
    """Figure 4 of the paper: 3x3, 2x2, 1x1 bins over conv5 of 13x13 are windows 5, 7, 13 at strides 4, 6, 13."""
    assert [pyramid_window(13, n) for n in (3, 2, 1)] == [(5, 4), (7, 6), (13, 13)]


def test_N3_where_the_window_rule_misses_the_bins_are_adaptive():
    assert pyramid_window(10, 6) is None
    assert (10 - math.ceil(10 / 6)) // (10 // 6) + 1 == 9  # what the rule would give
    maps = torch.rand(1, 2, 10, 10)
    got = pyramid_level(maps, 6)
    assert got.equal(F.adaptive_max_pool2d(maps, (6, 6)))
    for i in range(6):
        for j in range(6):
            rows, columns = (slice(math.floor(k * 10 / 6), math.ceil((k + 1) * 10 / 6)) for k in (i, j))
            assert got[0, :, i, j].equal(maps[0, :, rows, columns].amax((1, 2)))


@pytest.mark.parametrize(("size", "bins"), [((13, 13), 3), ((13, 12), 6), ((13, 10), 6), ((10, 13), 6), ((3, 13), 6)])
def test_N3_a_level_is_the_maximum_of_each_bin(size, bins):
    """Spans of each side by the paper's rule where it gives enough bins, else the adaptive ones; the two sides are independent."""

    def spans(side):
        window, stride = math.ceil(side / bins), math.floor(side / bins)
        if stride and (side - window) // stride + 1 == bins:
            return [slice(k * stride, k * stride + window) for k in range(bins)]
        return [slice(math.floor(k * side / bins), math.ceil((k + 1) * side / bins)) for k in range(bins)]

    maps = torch.randn(2, 3, *size)
    got = pyramid_level(maps, bins)
    expected = torch.stack([torch.stack([maps[..., r, c].amax((2, 3)) for c in spans(size[1])], -1) for r in spans(size[0])], -2)
    assert got.equal(expected)


def test_N3_the_vector_holds_level_after_level():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    assert SpatialPyramidPooling((2, 1))(maps).tolist() == [[5, 7, 13, 15, 15]]


def test_N3_levels_must_be_bins():
    with pytest.raises(ValueError, match="levels"):
        SpatialPyramidPooling(())
    with pytest.raises(ValueError, match="levels"):
        SpatialPyramidPooling((2, 0))


def test_N3_it_exports():
    layer, maps = SpatialPyramidPooling((6, 3, 2, 1)), torch.rand(1, 4, 10, 13)
    assert torch.export.export(layer, (maps,)).module()(maps).equal(layer(maps))
