"""Morphology against SciPy, scikit-image and the laws that it obeys."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from saccade import image as ops
from saccade.image.morphology import element
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))
NAMES = ("erode", "dilate", "opening", "closing", "morphological_gradient", "top_hat", "black_hat")


def picture(dtype="uint8", shape=(14, 15), seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * TOP[dtype]).astype(dtype)


def each(function, image):
    return function(image) if image.ndim == 2 else np.stack([function(image[..., c]) for c in range(image.shape[2])], axis=-1)


def test_I12_elements():
    assert element("square", 3).tolist() == [[1, 1, 1]] * 3
    assert element("cross", 3).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert element("disk", 7).sum() == 37
    assert element("disk", 9).sum() == 69  # points with x^2 + y^2 <= 20.25
    assert element("disk", 1).tolist() == [[1]]


@every_dtype
@pytest.mark.parametrize("shape", [(14, 15), (14, 15, 3)])
@pytest.mark.parametrize(("form", "size"), [("square", 3), ("square", 7), ("cross", 5), ("disk", 5)])
def test_I12_morphology_is_scipys(dtype, shape, form, size):
    image, footprint = picture(dtype, shape), element(form, size)
    low, high = -np.inf, np.inf

    def erode(x):
        return ndimage.grey_erosion(x.astype(float), footprint=footprint, mode="constant", cval=high)

    def dilate(x):
        return ndimage.grey_dilation(x.astype(float), footprint=footprint, mode="constant", cval=low)

    expected = {
        "erode": erode,
        "dilate": dilate,
        "opening": lambda x: dilate(erode(x)),
        "closing": lambda x: erode(dilate(x)),
        "morphological_gradient": lambda x: dilate(x) - erode(x),
        "top_hat": lambda x: x - dilate(erode(x)),
        "black_hat": lambda x: erode(dilate(x)) - x,
    }
    for name, literal in expected.items():
        result = getattr(ops, name)(image, shape=form, size=size)
        assert result.dtype == dtype
        np.testing.assert_allclose(result.astype(float), each(literal, image.astype(float)), atol=1e-7, err_msg=name)


def test_I12_times_repeat_before_the_way_back():
    image = picture()
    assert (ops.erode(image, times=3) == ops.erode(image, size=7)).all()
    assert (ops.opening(image, times=2) == ops.opening(image, size=5)).all()
    assert (ops.closing(image, times=2) == ops.closing(image, size=5)).all()


def test_I12_a_binary_image_by_hand():
    image = np.zeros((7, 9), np.uint8)
    image[2:5, 2:7] = 255  # a bar, with a hole and a stray pixel
    image[3, 4] = 0
    image[0, 8] = 255
    assert (ops.erode(image) > 0).sum() == 0
    assert (ops.dilate(image) > 0).sum() == 5 * 7 + 4 - 1
    closed = ops.closing(image)
    assert closed[3, 4] == 255
    opened = ops.opening(closed)
    assert opened[0, 8] == 0
    assert (opened > 0).sum() == 15
    assert (ops.top_hat(closed, size=3) > 0).sum() == 1


@pytest.mark.parametrize("name", NAMES)
@every_dtype
def test_I12_one_pixel_large_elements_masks_and_tensors(name, dtype):
    function = getattr(ops, name)
    assert function(picture(dtype, (1, 1)), size=5).shape == (1, 1)
    image = picture(dtype, (4, 5))
    if name in ("erode", "dilate"):
        assert (function(image, size=21) == (image.min() if name == "erode" else image.max())).all()
    assert (function(torch.from_numpy(image)[None]).numpy()[0] == function(image)).all()
    mask = picture("float64") > 0.5
    result = function(mask, size=3)
    assert result.dtype == bool
    assert (result == (function(mask.astype(np.uint8) * np.uint8(255), size=3) > 0)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(["square", "cross", "disk"]), st.sampled_from([1, 3, 5]), st.integers(0, 99))
def test_I12_laws(height, width, form, size, seed):
    image, options = picture("uint8", (height, width), seed), {"shape": form, "size": size}
    opened, closed = ops.opening(image, **options), ops.closing(image, **options)
    assert (ops.erode(image, **options) <= opened).all()
    assert (opened <= image).all()
    assert (image <= closed).all()
    assert (ops.opening(opened, **options) == opened).all()  # twice is once
    assert (ops.closing(closed, **options) == closed).all()
    assert (255 - ops.dilate(255 - image, **options) == ops.erode(image, **options)).all()  # duality


def test_I12_bad_options_are_told():
    for options, words in [({"size": 4}, "odd"), ({"shape": "disc"}, "did you mean 'disk'"), ({"times": 0}, "times")]:
        with pytest.raises(UsageError, match=words):
            ops.erode(picture(), **options)
