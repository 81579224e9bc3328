"""I5 point operations and histograms."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data, exposure

import saccade.image as i
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}


def noise(dtype="uint8", shape=(31, 37), seed=0, low=0.2, high=0.7):
    values = low + (high - low) * np.random.default_rng(seed).beta(2, 5, shape)
    return (values * TOP[dtype]).round().astype(dtype) if TOP[dtype] > 1 else values.astype(dtype)


def close(got, truth, dtype):
    """Equal to the rounded truth (given in 0..1): half a level and a hair."""
    return np.abs(got / TOP[dtype] - truth).max() <= (0.5001 / TOP[dtype] if TOP[dtype] > 1 else 1e-6)


@pytest.mark.parametrize("dtype", TOP)
def test_I5_inversion_is_white_minus_the_level_and_its_own_inverse(dtype):
    image = noise(dtype, (9, 11, 3))
    assert np.array_equal(i.invert(image), (TOP[dtype] - image).astype(dtype))
    assert np.allclose(i.invert(i.invert(image)), image, rtol=0, atol=0 if TOP[dtype] > 1 else 1e-7)


@pytest.mark.parametrize("dtype", TOP)
def test_I5_min_max_stretch(dtype):
    image = noise(dtype, (9, 11, 3))
    x = image.astype(float)
    assert close(i.stretch(image), (x - x.min()) / (x.max() - x.min()), dtype)
    low, high = x.min((0, 1)), x.max((0, 1))
    assert close(i.stretch(image, per_channel=True), (x - low) / (high - low), dtype)
    theirs = exposure.rescale_intensity(x / TOP[dtype], out_range=(0, 1))
    assert close(i.stretch(image), theirs, dtype)
    flat = np.full((3, 3), image[0, 0, 0])
    assert np.array_equal(i.stretch(flat), flat)
    full = i.stretch(image)
    assert np.array_equal(i.stretch(full), full)  # twice is once


@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize(("low", "high"), [(2.0, 98.0), (0.0, 100.0), (12.5, 60.0)])
def test_I5_percentile_stretch(dtype, low, high):
    image = noise(dtype, (21, 23, 3))
    p, q = np.percentile(image.astype(float), (low, high))
    assert close(i.percentile_stretch(image, low, high), ((image - p) / (q - p)).clip(0, 1), dtype)
    p, q = np.percentile(image[..., 1].astype(float), (low, high))
    assert close(i.percentile_stretch(image, low, high, per_channel=True)[..., 1], ((image[..., 1] - p) / (q - p)).clip(0, 1), dtype)


def test_I5_grey_level_slicing_keeps_the_rest_or_not():
    image = np.arange(256, dtype=np.uint8)[None]
    kept = i.slice_levels(image, 100 / 255, 150 / 255, 200 / 255)
    assert np.array_equal(kept, np.where((image >= 100) & (image <= 150), 200, image))
    binary = i.slice_levels(image, 100 / 255, 150 / 255, keep=False)
    assert np.array_equal(binary, np.where((image >= 100) & (image <= 150), 255, 0))
    floats = np.array([[0.1, 0.5, 0.9]])
    assert i.slice_levels(floats, 0.4, 0.6).tolist() == [[0.1, 1.0, 0.9]]


@pytest.mark.parametrize("dtype", TOP)
def test_I5_logarithm_and_power_law(dtype):
    image = noise(dtype, low=0, high=1)
    x = image.astype(float) / TOP[dtype]
    assert close(i.log_transform(image), np.log(1 + 255 * x) / math.log(256), dtype)
    assert close(i.log_transform(image, 20.0), 20 * np.log(1 + 255 * x) / 255, dtype)
    for g in (0.4, 1.0, 2.2):
        assert close(i.gamma(image, g), x**g, dtype)
        assert close(i.gamma(image, g), exposure.adjust_gamma(x, g), dtype)
    assert close(i.gamma(image, 0.5, 0.8, 0.1), (0.8 * (x + 0.1) ** 0.5).clip(0, 1), dtype)


def test_I5_gamma_and_its_inverse_are_the_image():
    image = noise("float64")
    assert np.allclose(i.gamma(i.gamma(image, 2.2), 1 / 2.2), image, atol=1e-14)


@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize("bins", [1, 7, 64, 256, 1000])
def test_I5_histogram_equals_numpy(dtype, bins):
    image = noise(dtype, (15, 16, 3), low=0, high=1)
    image.flat[:2] = 0, TOP[dtype]
    got = i.histogram(image, bins)
    assert got.shape == (3, bins)
    assert got.dtype == np.int64
    assert (got.sum(1) == 240).all()
    span = (0, TOP[dtype] + 1) if TOP[dtype] > 1 else (0, 1)
    for c in range(3):
        assert np.array_equal(got[c], np.histogram(image[..., c].astype(float), bins, span)[0])
    assert np.array_equal(i.histogram(image[..., 0], bins), got[0])
    assert np.array_equal(i.histogram(torch.from_numpy(image[..., 0].astype("float32") / TOP[dtype]), 4).sum(), 240)


def test_I5_equalisation_worked_example():
    # 8 pixels, levels 10 10 10 50 50 90 200 200: cdf 3 5 6 8
    image = np.array([[10, 10, 10, 50, 50, 90, 200, 200]], np.uint8)
    assert i.equalize(image).tolist() == [[0, 0, 0, 102, 102, 153, 255, 255]]
    assert i.equalize(image.astype(np.uint16) * 257).tolist() == [[0, 0, 0, 26214, 26214, 39321, 65535, 65535]]
    assert i.equalize(image / 255).tolist() == [[0, 0, 0, 0.4, 0.4, 0.6, 1, 1]]


def test_I5_equalisation_equals_the_formula_for_every_dtype():
    for dtype in TOP:
        image = noise(dtype)
        values, inverse, counts = np.unique(image if TOP[dtype] > 1 else np.rint(image * 65535), return_inverse=True, return_counts=True)
        upto = np.cumsum(counts)
        truth = ((upto - upto[0]) / (image.size - upto[0]))[inverse].reshape(image.shape)
        assert close(i.equalize(image), truth, dtype)
        assert len(values) > 10


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(list(TOP)), high=st.floats(0.01, 1))
def test_I5_equalisation_is_monotone(seed, dtype, high):
    image = noise(dtype, (8, 9), seed, 0, high)
    result = i.equalize(image)
    order = np.argsort(image.ravel(), kind="stable")
    assert (np.diff(result.ravel()[order].astype(float)) >= 0).all()
    assert result.max() == TOP[dtype] or len(np.unique(image)) == 1


def test_I5_equalising_a_colour_image_changes_its_luma_only():
    image = noise("uint8", (31, 37, 3), low=0.3, high=0.6)
    result = i.equalize(image).astype(int)
    shift = result - image
    inside = ((result > 0) & (result < 255)).all(-1)
    assert inside.any()
    assert (np.ptp(shift[inside], axis=-1) == 0).all()  # the same for R, G and B
    grey = i.rgb_to_gray(image)
    wanted = i.equalize(grey).astype(int) - grey
    assert (shift[inside][:, 0] == wanted[inside]).all()
    flat = np.full((5, 5, 3), 90, np.uint8)
    assert np.array_equal(i.equalize(flat), flat)


def literal_clahe(image, clip, rows, columns):
    """CLAHE of a uint8 image whose size the tiles divide, as OpenCV documents it, slowly."""
    height, width = image.shape[0] // rows, image.shape[1] // columns
    limit = max(int(clip * height * width / 256), 1)
    tables = np.empty((rows, columns, 256))
    for r in range(rows):
        for c in range(columns):
            tile = image[r * height : (r + 1) * height, c * width : (c + 1) * width]
            counts = np.bincount(tile.ravel(), minlength=256)
            over = int(np.maximum(counts - limit, 0).sum())
            counts = np.minimum(counts, limit) + over // 256
            rest = over % 256
            if rest:
                counts[:: max(256 // rest, 1)][:rest] += 1
            tables[r, c] = np.rint(np.cumsum(counts) * 255 / (height * width)).clip(0, 255)
    out = np.empty(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            fy, fx = (y / height - 0.5), (x / width - 0.5)
            y0, x0 = math.floor(fy), math.floor(fx)
            ay, ax = fy - y0, fx - x0
            ys = [min(max(k, 0), rows - 1) for k in (y0, y0 + 1)]
            xs = [min(max(k, 0), columns - 1) for k in (x0, x0 + 1)]
            v = image[y, x]
            top = tables[ys[0], xs[0], v] * (1 - ax) + tables[ys[0], xs[1], v] * ax
            bottom = tables[ys[1], xs[0], v] * (1 - ax) + tables[ys[1], xs[1], v] * ax
            out[y, x] = top * (1 - ay) + bottom * ay
    return out


@pytest.mark.parametrize(("clip", "tiles"), [(2.0, (2, 3)), (40.0, (2, 2)), (1.0, (1, 1))])
def test_I5_clahe_equals_a_literal_version(clip, tiles):
    image = noise("uint8", (48, 60))
    assert np.abs(i.clahe(image, clip, tiles) - literal_clahe(image, clip, *tiles)).max() <= 0.51


@pytest.mark.parametrize("size", [(96, 120), (95, 64), (63, 50), (17, 5), (1, 1)])
@pytest.mark.parametrize(("clip", "tiles"), [(2.0, (8, 8)), (0.5, (3, 5)), (40.0, (1, 1))])
def test_I5_clahe_means_the_same_for_every_dtype(size, clip, tiles):
    """OpenCV's of 8 bits, which rounds each table, within a level; tiles that do not divide the image too."""
    image = data.camera()[200 : 200 + size[0], 150 : 150 + size[1]]
    theirs = cv2.createCLAHE(clip, tiles[::-1] if min(size) > 8 else (min(tiles[1], size[1]), min(tiles[0], size[0]))).apply(image)
    for dtype, top in TOP.items():
        scaled = (image / 255 * top).astype(dtype)
        assert np.abs(i.clahe(scaled, clip, tiles) * (255 / top) - theirs).max() <= 1


def test_I5_clahe_of_floats_and_sixteen_bits_agree():
    image = noise("uint16", (40, 40))
    sixteen = i.clahe(image)
    assert np.allclose(i.clahe(image / 65535.0), sixteen / 65535, atol=1 / 65535)
    assert sixteen.std() > image.std()
    assert i.clahe(np.full((1, 1), 7, np.uint8)).shape == (1, 1)
    assert i.clahe(image[:3, :2]).shape == (3, 2)  # fewer tiles than asked for


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_I5_clahe_without_a_limit_is_adaptive_equalisation(dtype):
    """A bin of 256 times the mean holds all pixels: a greater limit changes nothing."""
    image = noise(dtype, (60, 70))
    free = i.clahe(image, 256.0)
    assert (free != i.clahe(image, 2.0)).any()
    for clip in (1e6, 1e9, 1e300):
        assert np.array_equal(i.clahe(image, clip), free)


def test_I5_counts_of_sixteen_bits_in_parts_are_those_of_the_whole():
    image = np.random.default_rng(0).integers(0, 65536, (3, 700_000), dtype=np.uint16)
    assert np.array_equal(i.histogram(image, 65536), np.bincount(image.ravel(), minlength=65536))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: i.percentile_stretch(x, 50, 50),
        lambda x: i.percentile_stretch(x, -1, 50),
        lambda x: i.slice_levels(x, 0.6, 0.4),
        lambda x: i.slice_levels(x, 100, 150),
        lambda x: i.log_transform(x, 0),
        lambda x: i.gamma(x, 0),
        lambda x: i.gamma(x, 1, -1),
        lambda x: i.gamma(x, 1, 1, -0.1),
        lambda x: i.histogram(x, 0),
        lambda x: i.clahe(x, 0),
        lambda x: i.clahe(x, 2, (0, 8)),
        lambda x: i.slice_levels(x),
    ],
)
def test_I5_wrong_arguments_are_usage_errors(call):
    with pytest.raises(UsageError):
        call(noise())
