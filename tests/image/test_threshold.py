"""Thresholds against scikit-image, a literal search and hand-computed cases."""

import numpy as np
import pytest
import skimage.filters
import torch
from scipy import ndimage

from saccade import image as ops
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))


def two_hills(dtype="uint8", shape=(40, 45), seed=0):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < 0.35, rng.normal(0.75, 0.06, shape), rng.normal(0.3, 0.1, shape)).clip(0, 1)
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * TOP[dtype]).astype(dtype)


@every_dtype
def test_S1_fixed_threshold(dtype):
    image = two_hills(dtype, (12, 13, 3))
    for level in (0.0, 0.25, 0.5, 1.0):
        result = ops.fixed_threshold(image, level=level)
        assert result.dtype == dtype
        assert (result == np.where(image.astype(float) > level * TOP[dtype], TOP[dtype], 0)).all()
        assert (ops.fixed_threshold(image, level=level, inverse=True) == TOP[dtype] - result).all()


def literal_otsu(values):
    """The level with the greatest variance between the two classes, by trying all."""
    best, found = -1.0, 0
    for level in range(256):
        low, high = values[values <= level], values[values > level]
        if low.size and high.size:
            between = low.size * high.size * (low.mean() - high.mean()) ** 2
            if between > best * (1 + 1e-12):
                best, found = between, level
    return found


def test_S1_otsu_is_the_literal_search_and_scikit_images():
    for seed in range(4):
        image = two_hills(seed=seed)
        level = ops.otsu_level(image)
        assert level * 255 == pytest.approx(literal_otsu(image.astype(float)))
        assert level * 255 == pytest.approx(skimage.filters.threshold_otsu(image))
        assert (ops.otsu(image) == np.where(image > level * 255 + 1e-9, 255, 0)).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_S1_otsu_of_other_dtypes(dtype):
    image = two_hills(dtype)
    level = ops.otsu_level(image)
    fine = np.rint(image / TOP[dtype] * 65535).astype(np.uint16)
    assert level * 65535 == pytest.approx(skimage.filters.threshold_otsu(fine), abs=0.5)
    result = ops.otsu(image)
    assert result.dtype == dtype
    assert ((result > 0) != (image > level * TOP[dtype])).mean() < 1e-3
    assert 0.3 < (result > 0).mean() < 0.4
    assert (ops.otsu(image, inverse=True) == TOP[dtype] - result).all()


@pytest.mark.parametrize("dtype", list(TOP))
def test_S1_otsu_parts_two_values(dtype):
    for dark, bright in ((0.3, 0.7), (0.5, 0.9), (0.1, 0.5), (0.0, 1.0), (0.2, 0.21)):
        image = (np.array([[dark, bright, dark]]) * TOP[dtype]).astype(dtype)
        assert ops.otsu(image).tolist() == [[0, TOP[dtype], 0]]
        assert (image > ops.otsu_level(image) * TOP[dtype]).tolist() == [[False, True, False]]


def test_S1_otsu_of_each_channel_and_of_one_value():
    image = np.stack([two_hills(), two_hills(seed=1) // 2], axis=-1)[..., [0, 1, 1]]
    levels = ops.otsu_level(image)
    assert len(levels) == 3
    assert levels[0] > 1.5 * levels[1] == 1.5 * levels[2]
    assert (ops.otsu(image)[..., 1] == ops.otsu(np.ascontiguousarray(image[..., 1]))).all()
    for dtype, top in TOP.items():
        assert ops.otsu(np.full((1, 1), top, dtype)).shape == (1, 1)


@every_dtype
@pytest.mark.parametrize("method", ["mean", "gaussian"])
@pytest.mark.parametrize("shape", [(30, 31), (30, 31, 3)])
def test_S1_adaptive_threshold_is_scikit_images(dtype, method, shape):
    image = two_hills(dtype, shape)
    sigma = 0.3 * ((11 - 1) / 2 - 1) + 0.8
    mean = np.stack(
        [
            skimage.filters.threshold_local(c, 11, method, offset=0.03, mode="nearest", param=sigma if method == "gaussian" else None)
            for c in np.moveaxis(np.atleast_3d(image / TOP[dtype]), -1, 0)
        ],
        axis=-1,
    ).reshape(shape)
    result = ops.adaptive_threshold(image, size=11, offset=0.03, method=method)
    assert result.dtype == dtype
    # scikit-image's Gaussian goes out to 4 sigma instead of the window's side
    near = 0.01 if method == "gaussian" else 2e-5
    sure = np.abs(image / TOP[dtype] - mean) > near
    assert sure.mean() > 0.9
    assert ((result == TOP[dtype]) == (image / TOP[dtype] > mean))[sure].all()
    assert (ops.adaptive_threshold(image, size=11, offset=0.03, method=method, inverse=True) == TOP[dtype] - result).all()


def test_S1_adaptive_finds_writing_on_uneven_ground_where_one_level_fails():
    ground = np.tile(np.linspace(40, 220, 80), (60, 1))
    writing = np.zeros((60, 80), bool)
    writing[10:50:6, 5:75] = True
    image = np.where(writing, ground * 0.7, ground).astype(np.uint8)

    def iou(found):
        return (found & writing).sum() / (found | writing).sum()

    assert iou(ops.adaptive_threshold(image, size=15, offset=0.05, inverse=True) > 0) > 0.9
    assert iou(ops.otsu(image, inverse=True) > 0) < 0.5


@pytest.mark.parametrize("border", ["replicate", "reflect", "wrap"])
def test_S1_adaptive_threshold_of_a_large_image(border):
    image = two_hills("uint8", (1200, 500))  # taken in strips
    mode = {"replicate": "nearest", "reflect": "mirror", "wrap": "wrap"}[border]
    mean = ndimage.uniform_filter(image.astype(float), 31, mode=mode)
    result = ops.adaptive_threshold(image, size=31, offset=0.05, border=border)
    sure = np.abs(image - mean + 0.05 * 255) > 0.02
    assert sure.mean() > 0.99
    assert ((result > 0) == (image > mean - 0.05 * 255))[sure].all()


@every_dtype
def test_S1_even_ground_is_not_brighter_than_its_mean(dtype):
    image = np.full((9, 9), 0.3 * TOP[dtype], dtype)
    for method in ("mean", "gaussian"):
        assert not ops.adaptive_threshold(image, size=5, offset=0.0, method=method).any()
        assert (ops.adaptive_threshold(image, size=25, offset=0.1, method=method) == TOP[dtype]).all()  # larger than the image
    assert ops.adaptive_threshold(image[:1, :1]).shape == (1, 1)


def test_S1_tensors_and_bad_options():
    image = two_hills("float32", (9, 8, 3))
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    for function in (ops.fixed_threshold, ops.otsu, ops.adaptive_threshold):
        assert (function(tensor).numpy().transpose(1, 2, 0) == function(image)).all()
    for call, words in [
        (lambda: ops.adaptive_threshold(image, size=4), "odd"),
        (lambda: ops.fixed_threshold(image, level=2.0), "level"),
        (lambda: ops.adaptive_threshold(image, method="median"), "mean|gaussian"),
        (lambda: ops.otsu(np.full((3, 3), np.nan)), "NaN"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()
