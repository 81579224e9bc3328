"""I3 channels and colour spaces."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import color as skimage_color

import saccade.image as i
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
PAIRS = [("rgb_to_hsv", "hsv_to_rgb"), ("rgb_to_lab", "lab_to_rgb"), ("rgb_to_ycbcr", "ycbcr_to_rgb"), ("rgb_to_bgr", "rgb_to_bgr")]


def colours(dtype="float64", seed=0, shape=(21, 25)):
    """Random colours, the corners of the cube and greys among them."""
    values = np.random.default_rng(seed).random((*shape, 3))
    values[0, :8] = [[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    values[1, :5] = np.linspace(0, 1, 5)[:, None]
    return (values * TOP[dtype]).round().astype(dtype) if TOP[dtype] > 1 else values.astype(dtype)


@pytest.mark.parametrize("dtype", TOP)
def test_I3_split_and_merge_undo_each_other(dtype):
    image = colours(dtype)
    parts = i.split(image)
    assert [p.shape for p in parts] == [(21, 25)] * 3
    assert np.array_equal(parts[2], image[..., 2])
    assert np.array_equal(i.merge(parts), image)
    tensor = torch.from_numpy(colours("float32").transpose(2, 0, 1).copy())
    assert [tuple(p.shape) for p in i.split(tensor)] == [(1, 21, 25)] * 3
    assert torch.equal(i.merge(i.split(tensor)), tensor)
    assert torch.equal(i.merge(i.split(tensor[None])), tensor[None])
    rgba = np.dstack([image, image[..., :1]])
    assert np.array_equal(i.merge(i.split(rgba)), rgba)
    assert np.array_equal(i.merge(i.split(image[..., 0])), image[..., 0])


def test_I3_merge_refuses_what_is_not_grey_or_not_of_one_size():
    grey = colours("uint8")[..., 0]
    for wrong in ([colours("uint8")], [grey] * 5, [grey, grey[1:]], [], grey):
        with pytest.raises(UsageError):
            i.merge(wrong)


@pytest.mark.parametrize(("dtype", "tolerance"), [("uint8", 1), ("uint16", 2), ("float32", 1e-6), ("float64", 1e-12)])
def test_I3_grey_is_bt601(dtype, tolerance):
    image = colours(dtype)
    assert np.abs(i.rgb_to_gray(image) - image.astype(float) @ [0.299, 0.587, 0.114]).max() <= tolerance
    if dtype == "uint8":
        assert np.abs(i.rgb_to_gray(image).astype(int) - np.asarray(Image.fromarray(image).convert("L"))).max() <= 1
    grey = image[..., 1]
    assert np.allclose(i.rgb_to_gray(i.gray_to_rgb(grey)), grey, rtol=0, atol=0 if TOP[dtype] > 1 else 1e-6)
    assert np.array_equal(i.rgb_to_gray(grey), grey)


@pytest.mark.parametrize("dtype", TOP)
def test_I3_hsv_equals_the_standard_library(dtype):
    image = colours(dtype)
    truth = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3).astype(float) / TOP[dtype]]).reshape(image.shape)
    difference = np.abs(i.rgb_to_hsv(image) / TOP[dtype] - truth)
    difference[..., 0] = np.minimum(difference[..., 0], 1 - difference[..., 0])  # a hue is an angle
    assert difference.max() <= {"uint8": 0.501 / 255, "uint16": 1 / 65535, "float32": 2e-6, "float64": 1e-12}[dtype]


@pytest.mark.parametrize(("dtype", "tolerance"), [("uint8", 1.9 / 255), ("uint16", 1 / 65535), ("float32", 2e-5), ("float64", 1e-12)])
def test_I3_lab_equals_scikit_image(dtype, tolerance):
    image = colours(dtype)
    truth = (skimage_color.rgb2lab(image.astype(float) / TOP[dtype]) + [0, 128, 128]) / [100, 255, 255]
    assert np.abs(i.rgb_to_lab(image) / TOP[dtype] - truth).max() <= tolerance


def test_I3_lab_of_known_colours():
    # white, mid grey, and the primaries of sRGB under D65 (L, a, b to two decimals: CIE formulas)
    image = np.array([[[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]], np.float64)
    lab = i.rgb_to_lab(image) * [100, 255, 255] - [0, 128, 128]
    assert lab[0] == pytest.approx(
        np.array([[100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]), abs=0.02
    )


@pytest.mark.parametrize("dtype", TOP)
def test_I3_ycbcr_is_jpegs(dtype):
    image = colours(dtype)
    r, g, b = np.moveaxis(image.astype(float) / TOP[dtype], -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    half = 0.5 if TOP[dtype] == 1 else (TOP[dtype] + 1) / 2 / TOP[dtype]
    truth = np.stack([y, (b - y) / 1.772 + half, (r - y) / 1.402 + half], -1).clip(0, 1)
    tolerance = {"uint8": 0.9 / 255, "uint16": 0.51 / 65535, "float32": 1e-6, "float64": 1e-12}[dtype]
    assert np.abs(i.rgb_to_ycbcr(image) / TOP[dtype] - truth).max() <= tolerance
    if dtype == "uint8":
        theirs = np.asarray(Image.fromarray(image).convert("YCbCr")).astype(int)
        assert np.abs(i.rgb_to_ycbcr(image) - theirs).max() <= 1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(list(TOP)), pair=st.sampled_from(PAIRS))
def test_I3_there_and_back_is_the_image(seed, dtype, pair):
    image = colours(dtype, seed, (9, 11))
    there, back = (getattr(i, name) for name in pair)
    # 8 bits of Lab or hue do not hold every colour: so many levels are lost
    lost = {"rgb_to_hsv": 3, "rgb_to_lab": 25, "rgb_to_ycbcr": 2, "rgb_to_bgr": 0}[pair[0]]
    tolerance = {"uint8": lost, "uint16": lost * 8, "float32": 2e-4, "float64": 1e-6}[dtype]
    error = np.abs(back(there(image)).astype(float) - image)
    assert error.max() <= tolerance
    assert error.mean() <= tolerance / 4


def test_I3_strips_change_nothing():
    image = colours("uint16", shape=(7, 60000))
    assert np.array_equal(i.rgb_to_hsv(image)[:, 59000:], i.rgb_to_hsv(image[:, 59000:]))


@pytest.mark.parametrize("name", ["rgb_to_bgr", "rgb_to_hsv", "hsv_to_rgb", "rgb_to_lab", "lab_to_rgb", "rgb_to_ycbcr", "ycbcr_to_rgb"])
def test_I3_grey_images_have_no_colour_space(name):
    with pytest.raises(UsageError, match=f"{name} takes an image of three channels, this one has 1"):
        getattr(i, name)(np.zeros((3, 3), np.uint8))


def test_I3_bits_per_pixel():
    assert i.bits_per_pixel(np.zeros((2, 2), np.uint8)) == 8
    assert i.bits_per_pixel(np.zeros((2, 2, 3), np.uint8)) == 24
    assert i.bits_per_pixel(np.zeros((2, 2, 4), np.uint8)) == 32
    assert i.bits_per_pixel(torch.zeros(3, 2, 2)) == 96
    assert i.bits_per_pixel(np.zeros((2, 2), np.uint16)) == 16
