"""Edge detectors against scikit-image, SciPy, OpenCV and literal loops."""

import cv2
import numpy as np
import pytest
import skimage.filters
import torch
from scipy import ndimage

from saccade import image as ops
from saccade.image import edges
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))
NAMES = ("prewitt_edges", "sobel_edges", "scharr_edges", "roberts_edges", "laplacian_edges", "marr_hildreth", "canny")


def blobs(dtype="float64", shape=(40, 50), seed=0):
    """Soft shapes with edges of all directions."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (3, 3, 0)[: len(shape)])
    values = (values - values.min()) / (values.max() - values.min())
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * TOP[dtype]).astype(dtype)


def grey(image):
    """BT.601, in 0..1."""
    values = image / TOP[str(image.dtype)]
    return values if values.ndim == 2 else values @ [0.299, 0.587, 0.114]


@every_dtype
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
@pytest.mark.parametrize("name", ["prewitt", "sobel", "scharr"])
def test_I9_gradient_edges_are_scikit_images(dtype, shape, name):
    image = blobs(dtype, shape)
    expected = getattr(skimage.filters, name)(grey(image), mode="reflect")  # its word for symmetric
    function = getattr(ops, f"{name}_edges")
    result = function(image, border="symmetric")
    assert result.dtype == dtype
    assert result.shape == shape[:2]
    atol = {"uint8": 1.5 / 255, "uint16": 2 / 65535}.get(dtype, 1e-6)  # the grey value is rounded too
    np.testing.assert_allclose(result / TOP[dtype], expected, atol=atol)
    threshold = float(np.median(expected))
    binary = function(image, threshold=threshold, border="symmetric")
    sure = np.abs(expected - threshold) > atol
    assert ((binary == TOP[dtype]) == (expected > threshold))[sure].all()
    assert set(np.unique(binary)) == {0, TOP[dtype]}


def test_I9_roberts_and_laplacian_edges_by_hand():
    image = np.array([[0.1, 0.2], [0.4, 0.8]])
    assert ops.roberts_edges(image)[0, 0] == pytest.approx(np.sqrt((0.7**2 + 0.2**2) / 2))
    point = np.zeros((5, 5), np.uint8)
    point[2, 2] = 80
    assert ops.laplacian_edges(point)[1:4, 1:4].tolist() == [[10, 10, 10], [10, 80, 10], [10, 10, 10]]
    assert ops.laplacian_edges(point, neighbours=4)[1:4, 1:4].tolist() == [[0, 20, 0], [20, 80, 20], [0, 20, 0]]
    assert ops.laplacian_edges(point, threshold=0.2).sum() == 255


def test_I9_the_greatest_strength_is_white_and_not_clipped():
    step = np.zeros((6, 6))
    step[:, 3:] = 1
    assert ops.sobel_edges(step).max() == pytest.approx(0.5**0.5)
    corner = np.zeros((3, 3))
    corner[1:, 1:] = corner[0, 2] = corner[2, 0] = 1  # only the corner's half is dark
    assert ops.prewitt_edges(corner)[1, 1] <= 1


# ------------------------------------------------------------------------------------------------------------------ Canny


def suppressed(dx, dy):
    """Non-maximum suppression with four directions, pixel by pixel."""
    magnitude = np.pad(np.hypot(dx, dy), 1)
    out = np.zeros(dx.shape, bool)
    for y, x in np.ndindex(*dx.shape):
        angle = np.degrees(np.arctan2(dy[y, x], dx[y, x])) % 180
        sy, sx = (0, 1) if angle < 22.5 or angle > 157.5 else (1, 1) if angle < 67.5 else (1, 0) if angle < 112.5 else (1, -1)
        here, before, after = (magnitude[y + 1 + k * sy, x + 1 + k * sx] for k in (0, -1, 1))
        out[y, x] = here > before and here > after
    return out


def literal_canny(values, sigma, low, high):
    smoothed = ndimage.gaussian_filter(values, sigma, mode="nearest") if sigma else values
    dx, dy = (ndimage.sobel(smoothed, axis, mode="nearest") for axis in (1, 0))
    magnitude, thin = np.hypot(dx, dy), suppressed(dx, dy)
    labels, _ = ndimage.label(thin & (magnitude > low), np.ones((3, 3)))
    strong = np.unique(labels[thin & (magnitude > high)])
    return np.isin(labels, strong[strong > 0]), magnitude, thin, smoothed, np.degrees(np.arctan2(dy, dx)) % 360


@pytest.mark.parametrize(("dtype", "sigma"), [*((d, 1.5) for d in TOP), ("uint16", 0.0), ("float32", 0.0), ("float64", 0.0)])
def test_I9_canny_is_the_literal_one(dtype, sigma):
    image = blobs(dtype)
    rng = np.random.default_rng(1)
    image = np.clip(image + rng.random(image.shape) * TOP[dtype] / 5, 0, TOP[dtype]).astype(dtype)  # no ties
    expected = literal_canny(image / TOP[dtype], sigma, 0.2, 0.5)[0]
    result = ops.canny(image, sigma=sigma, low=0.2, high=0.5)
    assert result.dtype == dtype
    assert set(np.unique(result)) == {0, TOP[dtype]}
    assert 0.01 < expected.mean() < 0.5
    assert ((result > 0) != expected).mean() < 0.003  # a magnitude at a threshold, or a direction at 22.5 degrees


def test_I9_canny_without_smoothing_is_opencvs_with_its_thresholds_over_255():
    for seed in range(3):
        image = blobs("uint8", seed=seed)
        for low, high in ((10, 30), (50, 100)):
            expected = cv2.Canny(image, low, high, L2gradient=True)
            assert (ops.canny(image, sigma=0.0, low=low / 255, high=high / 255) == expected).all()


@every_dtype
def test_I9_canny_stages(dtype):
    image = blobs(dtype)
    stages = dict(zip(edges.CANNY_STAGES, ops.canny_stages(image, sigma=1.0, low=0.1, high=0.2), strict=True))
    _, magnitude, thin, smoothed, angle = literal_canny(image / TOP[dtype], 1.0, 0.1, 0.2)
    assert all(s.dtype == dtype and s.shape == image.shape for s in stages.values())
    atol = 1.5 / 255 if dtype == "uint8" else 2e-5
    values = {k: s / TOP[dtype] for k, s in stages.items()}
    np.testing.assert_allclose(values["smoothed"], smoothed, atol=atol)
    np.testing.assert_allclose(values["magnitude"], magnitude / 32**0.5, atol=atol)
    turned = (values["direction"] * 360 - angle + 180) % 360 - 180
    # 8 bits: the steps of 360 degrees / 255, and of a sixteenth of a level on the weakest of these gradients
    assert np.abs(turned[magnitude > 0.05]).max() < (1.3 if dtype == "uint8" else 0.1)
    if dtype != "uint8":
        assert ((values["thin"] > 0) != thin).mean() < 0.01
    assert (stages["edges"] == ops.canny(image, sigma=1.0, low=0.1, high=0.2)).all()
    assert (values["thin"][stages["edges"] > 0] > 0).all()


def test_I9_thin_keeps_a_line_of_one_pixel():
    image = np.zeros((20, 20))
    image[:, 10:] = 1
    image = ops.gaussian(image, sigma=1.5)
    wide, thin = ops.sobel_edges(image), ops.sobel_edges(image, thin=True)
    assert ((thin > 0).sum(1) == 1).all()
    assert ((wide > 0).sum(1) > 4).all()
    assert (thin[thin > 0] == wide.max()).all()


def test_I9_canny_draws_a_disc_once_and_links_weak_to_strong():
    y, x = np.mgrid[:64, :64] - 31.5
    disc = (np.hypot(x, y) < 20).astype(np.uint8) * 200
    found = ops.canny(disc, sigma=1.0) > 0
    assert np.abs(np.hypot(x, y)[found] - 20).max() < 1.6
    assert ndimage.label(found, np.ones((3, 3)))[1] == 1
    ramp = np.zeros((20, 60))
    ramp[10:] = np.linspace(0.05, 0.4, 60)  # an edge that fades: its weak end hangs on the strong one
    both, strong, weak = (ops.canny(ramp, sigma=1.0, low=a, high=b) > 0 for a, b in ((0.1, 0.5), (0.5, 0.5), (0.1, 0.1)))
    assert strong.sum() < both.sum() == weak.sum()
    assert not ops.canny(ramp[:, :20], sigma=1.0, low=0.1, high=1.0).any()


# ----------------------------------------------------------------------------------------------------------- Marr-Hildreth


def test_I9_laplacian_of_gaussian_by_its_formula_and_scipy():
    image, sigma = blobs(), 1.6
    y, x = np.mgrid[-6:7, -6:7].astype(float)
    bell = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    bell /= bell.sum()
    weights = (x**2 + y**2 - 2 * (x**2 * bell).sum()) / sigma**4 * bell
    assert weights.sum() == pytest.approx(0, abs=1e-12)
    expected = ndimage.correlate(image, weights, mode="mirror")
    np.testing.assert_allclose(ops.laplacian_of_gaussian(image, sigma=sigma, output="float"), expected, atol=1e-10)
    np.testing.assert_allclose(ops.laplacian_of_gaussian(image, sigma=sigma), np.abs(expected), atol=1e-10)
    np.testing.assert_allclose(expected, ndimage.gaussian_laplace(image, sigma, mode="mirror"), atol=2e-3)
    even = np.full((9, 9, 3), 0.7, np.float32)
    assert np.abs(ops.laplacian_of_gaussian(even, output="float")).max() < 1e-6


def test_I9_zero_crossings_are_the_literal_rule():
    response = np.random.default_rng(0).integers(-3, 4, (12, 14)).astype(float)
    expected = np.zeros_like(response)
    for y, x in np.ndindex(*response.shape):
        for b, c in ((y, x + 1), (y + 1, x)):
            if b < 12 and c < 14 and (response[y, x] < 0) != (response[b, c] < 0):
                place = (y, x) if abs(response[y, x]) <= abs(response[b, c]) else (b, c)
                expected[place] = max(expected[place], abs(response[y, x] - response[b, c]))
    assert (edges.zero_crossings(response) == expected).all()


@every_dtype
@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_I9_marr_hildreth_draws_a_disc(dtype, sigma):
    y, x = np.mgrid[:64, :64] - 31.5
    disc = ((np.hypot(x, y) < 20) * np.array(TOP[dtype])).astype(dtype)
    found = ops.marr_hildreth(disc, sigma=sigma)
    assert found.dtype == dtype
    assert np.abs(np.hypot(x, y)[found > 0] - 20).max() < 1.5
    around = np.degrees(np.arctan2(y, x)[found > 0])
    assert np.diff(np.sort(around)).max() < 6  # closed
    strength = ops.marr_hildreth(disc, sigma=sigma, threshold=None) / TOP[dtype]
    assert strength.max() == pytest.approx(0.4 / sigma, rel=0.15)
    assert ((strength > 0.016) == (found > 0)).all()


# ------------------------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize("name", NAMES)
@every_dtype
def test_I9_even_images_one_pixel_and_tensors(name, dtype):
    function = getattr(ops, name)
    for shape in ((1, 1), (1, 9), (7, 8, 3)):
        assert function(np.full(shape, TOP[dtype] * 0.5, dtype)).max() < 1e-6
    image = blobs(dtype, (20, 24, 3))
    result = function(torch.from_numpy(image.transpose(2, 0, 1).copy()))
    assert result.shape == (1, 20, 24)
    assert (result[0].numpy() == function(image)).all()
    assert function(torch.from_numpy(image.transpose(2, 0, 1).copy())[None]).shape == (1, 1, 20, 24)


def test_I9_bad_options_are_told():
    image = blobs()
    for call, words in [
        (lambda: ops.canny(image, low=0.5, high=0.2), "low=0.5 is above high=0.2"),
        (lambda: ops.canny(image, sigma=-1.0), "sigma"),
        (lambda: ops.canny(image, hihg=0.2), "did you mean 'high'"),
        (lambda: ops.sobel_edges(image, threshold=2.0), "threshold"),
        (lambda: ops.marr_hildreth(image, sigma=0.0), "sigma"),
        (lambda: ops.canny(np.where(image > 0.9, np.nan, image)), "NaN"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()


@every_dtype
def test_I9_canny_around_a_wrapped_image_is_that_of_its_tiling(dtype):
    image = blobs(dtype, (60, 70))
    tiled = ops.canny(np.tile(image, (3, 3)), sigma=1.5, low=0.05, high=0.1)[60:120, 70:140]
    wrapped = ops.canny(image, sigma=1.5, low=0.05, high=0.1, border="wrap")
    inner = slice(2, -2)  # OpenCV links and thins as if 0 lay outside
    assert (tiled[inner, inner] == wrapped[inner, inner]).mean() > 0.99
    assert (wrapped > 0).sum() > 100
    stages = ops.canny_stages(image, sigma=1.5, low=0.05, high=0.1, border="wrap")
    smooth = ndimage.gaussian_filter(image / TOP[dtype], 1.5, mode="wrap")
    np.testing.assert_allclose(stages[0] / TOP[dtype], smooth, atol=0.003 if dtype == "uint8" else 1e-4)
    assert np.array_equal(stages[-1], wrapped)
