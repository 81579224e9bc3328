"""I13 geometry and pyramids."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import pyramid_gaussian

import saccade.image as i
from saccade.image.geometry import collapse, homography
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
SCIPY = {"reflect": "mirror", "symmetric": "reflect", "replicate": "nearest", "constant": "grid-constant", "wrap": "grid-wrap"}


def smooth(dtype="float64", shape=(31, 43), seed=0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2.5, mode="wrap")
    values = (values - values.min()) / np.ptp(values)
    return (values * TOP[dtype]).round().astype(dtype) if TOP[dtype] > 1 else values.astype(dtype)


def warped(image, matrix, size, order=1, mode="grid-constant", value=0.0):
    """SciPy's map by the 3x3 matrix from input (x, y) to result."""
    y, x = np.mgrid[: size[0], : size[1]]
    source = np.linalg.inv(matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    places = (source[1] / source[2], source[0] / source[2])
    return ndimage.map_coordinates(image.astype(float), places, order=order, mode=mode, cval=value).reshape(size)


def about_middle(image, linear):
    m = np.array([(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2])
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = m - linear @ m
    return out


def near(got, truth, image, fill=None):
    """OpenCV rounds places to 1/32 pixel: at most the change over 1/64 pixel in x and y (to the border's value too), and rounding."""
    top = TOP[image.dtype.name]
    image = image if fill is None else np.pad(image, 1, constant_values=fill)
    slope = sum(np.abs(np.diff(image.astype(float), axis=a)).max() for a in (0, 1))
    return np.abs(got - truth).max() <= slope / 64 + (1.0 if top > 1 else 1e-5)


# ------------------------------------------------------------------------------------------------------ no value changes


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 9), width=st.integers(1, 9), dtype=st.sampled_from(list(TOP)), channels=st.sampled_from([None, 1, 2, 3, 4]))
def test_I13_mirror_twice_and_four_quarter_turns_are_the_identity(height, width, dtype, channels):
    image = smooth(dtype, (height, width)) if height * width > 1 else np.ones((1, 1), dtype)
    image = image if channels is None else np.stack([image] * channels, -1)
    for axis in ("horizontal", "vertical", "both"):
        assert np.array_equal(i.mirror(i.mirror(image, axis), axis), image)
    assert np.array_equal(i.mirror(image), image[:, ::-1])
    assert np.array_equal(i.mirror(image, "vertical"), image[::-1])
    turned = image
    for _ in range(4):
        turned = i.quarter_turn(turned)
    assert np.array_equal(turned, image)
    for turns in (-1, 0, 1, 2, 3, 6):
        assert np.array_equal(i.quarter_turn(image, turns), np.rot90(image, turns))


def test_I13_crop_shift_and_frame():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    assert np.array_equal(i.crop(image, 2, 3, 4, 5), image[2:6, 3:8])
    moved = i.shift(image, 2, -3)
    assert np.array_equal(moved[2:, :5], image[:4, 3:])
    assert moved[:2].max() == 0
    assert np.array_equal(i.shift(image, 2, 5, border="wrap"), np.roll(image, (2, 5), (0, 1)))
    framed = i.frame(image, 1, 2, 3, 0, border="replicate")
    assert np.array_equal(framed, np.pad(image, ((1, 2), (3, 0), (0, 0)), mode="edge"))
    assert np.array_equal(i.crop(framed, 1, 3, 6, 8), image)
    assert i.shift(image, 100, 0, value=1.0).min() == 255
    rgba = np.dstack([image, np.full((6, 8), 255, np.uint8)])
    assert i.shift(rgba, 2, value=1.0)[0, 0].tolist() == [255, 255, 255, 0]  # what comes from outside is transparent
    assert i.frame(rgba, above=1, border="constant")[0, 0].tolist() == [0, 0, 0, 0]


@settings(deadline=None, max_examples=20)
@given(dy=st.integers(-4, 4), dx=st.integers(-4, 4), dtype=st.sampled_from(list(TOP)))
def test_I13_shifting_around_and_back_is_the_identity(dy, dx, dtype):
    image = smooth(dtype, (7, 9))
    assert np.array_equal(i.shift(i.shift(image, dy, dx, border="wrap"), -dy, -dx, border="wrap"), image)


# --------------------------------------------------------------------------------------------------------------- warps


def test_I13_rotation_is_counter_clockwise_about_the_middle():
    image = np.zeros((5, 5), np.uint8)
    image[2, 4] = 255  # right of the middle
    assert np.argwhere(i.rotate(image, 90)).tolist() == [[0, 2]]  # above it
    for angle, turns in ((90, 1), (180, 2), (-90, 3), (360, 0)):
        square = smooth("uint8", (9, 9))
        assert np.array_equal(i.rotate(square, angle), np.rot90(square, turns))
        wide = smooth("float32", (6, 9))
        assert np.array_equal(i.rotate(wide, angle, expand=True), np.rot90(wide, turns))
    assert i.rotate(np.zeros((100, 200), np.uint8), 45, expand=True).shape == (213, 213)  # 300 / sqrt 2 = 212.1
    whole = i.rotate(np.full((40, 60), 255, np.uint8), 33, expand=True)
    assert (whole > 127).sum() == pytest.approx(2400, rel=0.01)


@pytest.mark.parametrize("dtype", TOP)
@pytest.mark.parametrize("border", SCIPY)
def test_I13_warps_equal_scipy(dtype, border):
    image = smooth(dtype)
    size = image.shape
    turn = np.radians(17.3)
    c, s = np.cos(turn), np.sin(turn)
    tangent = np.tan(np.radians(12))
    cases = {
        "rotate": (i.rotate(image, 17.3, border=border), about_middle(image, np.array([[c, s], [-s, c]]))),
        "shear": (i.shear(image, 12, border=border), about_middle(image, np.array([[1, tangent], [0, 1]]))),
        "zoom": (i.zoom(image, 1.7, border=border), about_middle(image, np.eye(2) * 1.7)),
        "zoom out": (i.zoom(image, 0.6, border=border), about_middle(image, np.eye(2) * 0.6)),
        "shift": (i.shift(image, 2.25, -3.5, border=border), np.array([[1, 0, -3.5], [0, 1, 2.25], [0, 0, 1]])),
    }
    for name, (got, matrix) in cases.items():
        assert near(got, warped(image, matrix, size, mode=SCIPY[border]), image, 0 if border == "constant" else None), name


def test_I13_affine_and_perspective_equal_scipy_and_take_a_size():
    image = smooth()
    matrix = np.array([[1.1, 0.2, -3.0], [-0.1, 0.9, 2.0], [0, 0, 1]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # SciPy's pixel centres are whole numbers
    got = i.affine(image, matrix[:2], (20, 50), border="replicate")
    assert got.shape == (20, 50)
    assert near(got, warped(image, np.linalg.inv(half) @ matrix @ half, (20, 50), mode="nearest"), image)
    corners = [(0, 0), (42, 0), (42, 30), (0, 30)]
    h = homography(corners, [(3, 2), (40, 5), (38, 29), (1, 25)])
    got = i.perspective(image, h, value=0.5)
    assert near(got, warped(image, np.linalg.inv(half) @ h @ half, image.shape, value=0.5), image, 0.5)
    nearest = i.affine(image, matrix[:2], method="nearest", border="replicate")
    assert np.isin(nearest, image).all()
    assert i.affine(image, matrix[:2], method="bicubic").max() <= 1


def test_I13_pixels_cover_a_unit_so_that_twice_as_large_is_resize():
    image = smooth("float64", (20, 30))
    twice = i.affine(image, [[2, 0, 0], [0, 2, 0]], (40, 60), border="replicate")
    assert np.allclose(twice, i.resize(image, (40, 60)), atol=1e-6)
    assert np.array_equal(i.affine(image, [[-1, 0, 30], [0, 1, 0]]), image[:, ::-1])  # mirrored about x = 15


def test_I13_a_shift_wraps_however_far():
    image = smooth("uint8", (64, 48))
    for far in (47, -1000, 40_000, 10**9):
        assert np.array_equal(i.shift(image, dx=far, dy=-far, border="wrap"), np.roll(image, (-far, far), (0, 1)))
    with pytest.raises(UsageError, match="32767"):
        i.zoom(image, 1e-4, border="reflect")
    assert (i.shift(image, dx=1e6, value=0.2) == 51).all()


def test_I13_a_homography_takes_its_points_there_and_back():
    random = np.random.default_rng(0)
    for _ in range(20):
        source = np.array([(0, 0), (100, 0), (100, 80), (0, 80)]) + random.uniform(-15, 15, (4, 2))
        target = np.array([(0, 0), (50, 0), (50, 60), (0, 60)]) + random.uniform(-8, 8, (4, 2))
        h = homography(source, target)
        there = np.c_[source, np.ones(4)] @ h.T
        assert np.allclose(there[:, :2] / there[:, 2:], target, atol=1e-9)
        theirs = cv2.getPerspectiveTransform(source.astype(np.float32), target.astype(np.float32))
        assert np.allclose(h, theirs, rtol=1e-3, atol=1e-4)
    for wrong in ([(0, 0), (1, 1), (2, 2), (0, 3)], [(0, 0), (1, 0), (1, 1)], "abcd"):
        with pytest.raises(UsageError):
            homography(wrong, [(0, 0), (1, 0), (1, 1), (0, 1)])


@pytest.mark.parametrize("name", ["rotate", "shear", "zoom"])
def test_I13_nothing_to_do_gives_the_image(name):
    for dtype in TOP:
        image = smooth(dtype)
        nothing = {"rotate": {"angle": 0}, "shear": {"x_angle": 0}, "zoom": {"factor": 1}}[name]
        for method in ("nearest", "bilinear", "bicubic"):
            assert np.allclose(getattr(i, name)(image, **nothing, method=method), image, rtol=0, atol=0 if TOP[dtype] > 1 else 1e-7)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: i.crop(x, 0, 0, 40, 3),
        lambda x: i.crop(x, -1, 0, 3, 3),
        lambda x: i.crop(x, 0, 0, 0, 3),
        lambda x: i.frame(x, above=-1),
        lambda x: i.shear(x, 90),
        lambda x: i.shear(x, 45, 45),
        lambda x: i.zoom(x, 0),
        lambda x: i.rotate(x, value=200.0),
        lambda x: i.rotate(x, border="mirror"),
        lambda x: i.affine(x, [[1, 0, 0]]),
        lambda x: i.affine(x, [[1, 0, 0], [2, 0, 0]]),
        lambda x: i.affine(x, [[1, 0, 0], [0, 1, 0]], (0, 5)),
        lambda x: i.perspective(x, np.zeros((3, 3))),
        lambda x: i.perspective(x, [[1, 0], [0, 1]]),
        lambda x: i.gaussian_pyramid(x, 0),
        lambda x: i.gaussian_pyramid(x, 99),
    ],
)
def test_I13_wrong_arguments_are_usage_errors(call):
    with pytest.raises(UsageError):
        call(smooth("uint8"))


# ------------------------------------------------------------------------------------------------------------- pyramids


def burt(image):
    """Burt and Adelson's REDUCE, literally: blur by [1 4 6 4 1]/16 in each direction, keep every second pixel."""
    w = np.array([1, 4, 6, 4, 1]) / 16
    for axis in (0, 1):
        image = ndimage.correlate1d(image.astype(float), w, axis=axis, mode="mirror")
    return image[::2, ::2]


@pytest.mark.parametrize("dtype", TOP)
def test_I13_gaussian_pyramid_is_burt_and_adelsons(dtype):
    image = smooth(dtype, (33, 46))
    pyramid = i.gaussian_pyramid(image, 4)
    assert [p.shape for p in pyramid] == [(33, 46), (17, 23), (9, 12), (5, 6)]
    assert np.array_equal(pyramid[0], image)
    for a, b in itertools.pairwise(pyramid):
        assert b.dtype == image.dtype
        assert np.abs(b - burt(a)).max() <= (0.5001 if TOP[dtype] > 1 else 1e-6)
    deepest = i.gaussian_pyramid(image, 7)[-1]
    assert deepest.shape == (1, 1)


def test_I13_the_pyramid_is_close_to_scikit_images():
    image = smooth("float64", (64, 64))
    theirs = list(pyramid_gaussian(image, max_layer=2, sigma=1.0, mode="reflect"))
    ours = i.gaussian_pyramid(image, 3)
    assert [t.shape for t in theirs] == [p.shape for p in ours]
    # other sampling places (theirs half-pixel centres), the same mean brightness
    assert [p.mean() for p in ours] == pytest.approx([t.mean() for t in theirs], abs=0.02)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 20), width=st.integers(1, 20), dtype=st.sampled_from(list(TOP)), channels=st.sampled_from([None, 3, 4]))
def test_I13_a_laplacian_pyramid_gives_the_image_back(height, width, dtype, channels):
    shape = (height, width) if channels is None else (height, width, channels)
    image = (np.random.default_rng(0).random(shape) * TOP[dtype]).astype(dtype)
    levels = (max(height, width) - 1).bit_length() + 1
    pyramid = i.laplacian_pyramid(image, levels)
    assert len(pyramid) == levels
    assert all(p.dtype == (np.float64 if dtype == "float64" else np.float32) for p in pyramid)
    assert np.allclose(collapse(pyramid), image / TOP[dtype], atol=1e-5)


def test_I13_laplacian_pyramids_of_tensors_and_what_they_hold():
    image = torch.rand(2, 3, 21, 30)
    pyramid = i.laplacian_pyramid(image, 3)
    assert [tuple(p.shape) for p in pyramid] == [(2, 3, 21, 30), (2, 3, 11, 15), (2, 3, 6, 8)]
    assert torch.allclose(collapse(pyramid), image, atol=1e-5)
    assert torch.allclose(collapse([p[0] for p in pyramid]), image[0], atol=1e-5)
    assert float(pyramid[0].mean().abs()) < 0.05  # a band-pass
    flat = i.laplacian_pyramid(np.full((16, 16), 0.25), 3)
    assert np.abs(flat[0]).max() < 1e-7
    assert flat[2] == pytest.approx(0.25)
    with pytest.raises(UsageError, match="half"):
        collapse([flat[0], flat[2]])
    with pytest.raises(UsageError):
        collapse([])
