"""I4 neighbours of a pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import saccade.image as i
from saccade.image.neighbours import N4, N8
from saccade.types.errors import UsageError


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 6), width=st.integers(1, 6), data=st.data())
def test_I4_neighbours_are_the_pixels_at_distance_one(height, width, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    image = np.zeros((height, width), np.uint8)
    every = [(y, x) for y in range(height) for x in range(width)]
    assert i.n4(image, row, column) == [p for p in every if abs(p[0] - row) + abs(p[1] - column) == 1]
    assert i.n8(image, row, column) == [p for p in every if max(abs(p[0] - row), abs(p[1] - column)) == 1]


def test_I4_corners_edges_and_the_middle():
    image = np.zeros((3, 3, 3), np.uint8)
    assert i.n4(image, 1, 1) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert [len(i.n4(image, *p)) for p in ((0, 0), (0, 1), (1, 1))] == [2, 3, 4]
    assert [len(i.n8(image, *p)) for p in ((0, 0), (0, 1), (1, 1))] == [3, 5, 8]
    assert i.n8(np.zeros((1, 1), np.uint8), 0, 0) == []


@pytest.mark.parametrize("place", [(3, 0), (-1, 0), (0, 3)])
def test_I4_a_pixel_outside_is_a_usage_error(place):
    with pytest.raises(UsageError, match=f"no pixel {place[0]},{place[1]} in an image of 3x3"):
        i.n4(np.zeros((3, 3), np.uint8), *place)


@pytest.mark.parametrize("border", ["reflect", "symmetric", "replicate", "constant", "wrap"])
@pytest.mark.parametrize(("connectivity", "steps"), [(4, N4), (8, N8)])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (1, 4)])
def test_I4_planes_hold_each_neighbours_value(border, connectivity, steps, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mode = {"reflect": "mirror", "symmetric": "reflect", "replicate": "nearest", "constant": "constant", "wrap": "wrap"}[border]
    planes = i.neighbour_planes(image, connectivity, border)
    assert len(planes) == connectivity
    for (y, x), plane in zip(steps, planes, strict=True):
        kernel = np.zeros((3, 3))
        kernel[1 + y, 1 + x] = 1
        assert np.array_equal(plane, ndimage.correlate(image, kernel, mode=mode))


def test_I4_connectivity_is_four_or_eight():
    with pytest.raises(UsageError, match=r"connectivity is 4\|8, not 6"):
        i.neighbour_planes(np.zeros((3, 3), np.uint8), 6)
