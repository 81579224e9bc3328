"""Linear, rank and derivative filters against SciPy, plain loops and hand-computed numbers."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from saccade import image as ops
from saccade.image import filters
from saccade.types.errors import UsageError

NUMPY = {"reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "constant": "constant", "wrap": "wrap"}
SCIPY = {"reflect": "mirror", "symmetric": "reflect", "replicate": "nearest", "constant": "constant", "wrap": "wrap"}
TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
DTYPES = list(TOP)
SHAPES = [(13, 17), (13, 17, 3)]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_border = pytest.mark.parametrize("border", list(NUMPY))


def picture(dtype="uint8", shape=(13, 17), seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * TOP[dtype]).astype(dtype)


def literal(image, weights, border, mode="same"):
    """The sum of the formula, pixel by pixel, in float64."""
    weights = np.asarray(weights, float)
    rows, columns = (s // 2 for s in weights.shape)
    padding = [(rows, rows), (columns, columns)] + [(0, 0)] * (image.ndim - 2)
    wide = np.pad(image.astype(float), padding, mode=NUMPY[border])
    out = np.zeros(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            window = wide[y : y + weights.shape[0], x : x + weights.shape[1]]
            out[y, x] = np.tensordot(weights, window, axes=([0, 1], [0, 1]))
    return out[rows : -rows or None, columns : -columns or None] if mode == "valid" else out


def as_image(values, dtype):
    values = np.clip(values, 0, TOP[dtype])
    return values if dtype.startswith("float") else np.rint(values)


def close(result, expected, dtype, levels=0):
    """Integers differ by at most so many levels, floats in the last digits."""
    assert result.dtype == dtype
    assert result.shape == expected.shape
    atol = {"float32": 2e-6, "float64": 1e-12}.get(dtype, levels)
    np.testing.assert_allclose(result.astype(float), expected, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------------------------ linear, I6


@every_dtype
@every_shape
@every_border
def test_I6_correlate_is_the_literal_sum(dtype, shape, border):
    image = picture(dtype, shape)
    weights = np.array([[1, 0, -2, 0, 1], [0, 1, 1, 0, 3], [-1, 0, 0, -1, 0]])
    expected = literal(image, weights, border)
    close(ops.correlate(image, weights, border=border), as_image(expected, dtype), dtype)
    signed = ops.correlate(image, weights, border=border, output="float")
    assert signed.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_allclose(signed, expected / TOP[dtype], atol=3e-6)
    assert signed.min() < 0


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_I6_correlate_stride_and_padding(stride, padding):
    image, weights = picture("float64"), np.arange(15).reshape(5, 3) / 200
    expected = literal(image, weights, "reflect", padding)[::stride, ::stride]
    close(ops.correlate(image, weights, stride=stride, padding=padding), expected, "float64")
    assert ops.correlate(image, weights, padding="valid").shape == (13 - 4, 17 - 2)


def test_I6_correlate_lays_the_kernel_on_as_it_is_written():
    image = np.zeros((5, 5), np.uint8)
    image[2, 2] = 10
    weights = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert ops.correlate(image, weights)[1:4, 1:4].tolist() == [[90, 80, 70], [60, 50, 40], [30, 20, 10]]  # a convolution would not turn


def test_I6_large_kernels_too_are_the_literal_sum():
    image, weights = picture("float32"), np.random.default_rng(1).random((15, 13)) / 195  # OpenCV goes through its DFT
    close(ops.correlate(image, weights), literal(image, weights, "reflect"), "float32")


@every_border
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (2, 3, 3)])
def test_I6_kernels_larger_than_the_image_and_one_pixel(shape, border):
    image, weights = picture("float64", shape), np.random.default_rng(1).random((7, 9)) / 63
    close(ops.correlate(image, weights, border=border), literal(image, weights, border), "float64")
    close(ops.mean(image, size=9, border=border), literal(image, np.full((9, 9), 1 / 81), border), "float64")


def test_I6_kernels_by_name():
    assert (filters.kernel("mean:5") == 1 / 25).all()
    assert filters.kernel("mean:5").shape == (5, 5)
    assert filters.kernel("sharpen:2").tolist() == [[0, -2, 0], [-2, 9, -2], [0, -2, 0]]
    assert filters.kernel("ridge:8").tolist() == [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]
    assert filters.kernel("ridge:4").tolist() == [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]
    assert filters.kernel("derivative:scharr:y").tolist() == [[-3, -10, -3], [0, 0, 0], [3, 10, 3]]
    assert filters.kernel("identity").tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(filters.kernel("motion:3")[2], [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=1e-12)
    np.testing.assert_allclose(filters.kernel("motion:3:90"), filters.kernel("motion:3:0").T, atol=1e-9)
    assert filters.kernel("motion:9:45").sum() == pytest.approx(1)
    image = picture()
    assert (ops.correlate(image, "identity") == image).all()
    assert (ops.correlate(image, "ridge:4") == ops.ridge(image, neighbours=4)).all()


def test_I6_a_motion_kernel_lies_along_its_direction():
    weights = filters.kernel("motion:9:30")
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]] - (weights.shape[0] // 2)
    xx, yy, xy = ((weights * v).sum() for v in (x * x, y * y, x * y))
    assert np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) == pytest.approx(30, abs=1)
    assert 12 * (xx + yy) == pytest.approx(9**2 - 1, rel=0.06)  # nine points a pixel apart; sharing a point widens it
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([[1, 2], [3, 4]], "odd, not 2x2"),
        ([[1, 2, 3], [3, 4, 5]], "odd, not 2x3"),
        ([[1.0, float("nan"), 1]], "NaN"),
        ([[1, 2, 3], [1, 2]], "rows"),
        ([], "rows"),
        ("gausian:1", "did you mean 'gaussian'"),
        ("mean:4", "odd"),
        ("mean:x", "size=3"),
        ("sharpen:nan", "amount is float, not 'nan'"),
        ("sharpen:inf", "amount is float"),
        ("sharpen:1e30", "amount lies in"),
        ("gaussian:1:3.5", "size is int or none"),
        ("motion:9:nan", "angle is float"),
        ("weighted:3.5", "size is int, not '3.5'"),
        ("0,1,0;1,nan,1;0,1,0", "the weights are numbers"),
        ([[1e39] * 3] * 3, "too large"),
        ("mean:3:3:3", "size=3"),
        ("laplacian:5", "4 or 8"),
        ("derivative:sobel:z", "along x or y"),
    ],
)
def test_I6_bad_kernels_are_told(bad, words):
    with pytest.raises(UsageError, match=words):
        filters.kernel(bad)


def test_I6_bad_input_is_told():
    image = picture("float32")
    for call, words in [
        (lambda: ops.mean(image, size=4), "odd number"),
        (lambda: ops.median(image, size=2), "odd number"),
        (lambda: ops.minimum(image, size=0), "odd number"),
        (lambda: ops.gaussian(image, size=4), "odd number"),
        (lambda: ops.gaussian(image, sigma=0.0), r"sigma lies in 0\.001"),
        (lambda: ops.weighted_mean(image, size=4), "odd number"),
        (lambda: ops.weighted_mean(image, weights=[[1, -1, 1]]), "not negative"),
        (lambda: ops.weighted_mean(image, weights=[[0.0, 0, 0]]), "not all 0"),
        (lambda: ops.correlate(image, "mean:19", padding="valid"), "19x19 kernel lies nowhere inside the 13x17 image"),
        (lambda: ops.mean(image, border="mirror"), "border"),
        (lambda: ops.laplacian(image, neighbours=6), "4|8"),
        (lambda: ops.mean(np.where(image > 0.5, np.nan, image)), "NaN"),
        (lambda: ops.correlate(image, "mean:3", stride=0), "stride"),
        (lambda: ops.mean(image[:0]), "no pixels"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()


@every_dtype
@every_shape
@every_border
def test_I6_mean_is_scipys(dtype, shape, border):
    image = picture(dtype, shape)
    expected = ndimage.uniform_filter(image.astype(float), (5, 5, 1)[: image.ndim], mode=SCIPY[border])
    close(ops.mean(image, size=5, border=border), as_image(expected, dtype), dtype)


def test_I6_weighted_mean_is_1_2_1_over_16():
    image = np.zeros((5, 5), np.uint8)
    image[2, 2] = 160
    assert ops.weighted_mean(image)[1:4, 1:4].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    own = ops.weighted_mean(image, weights=[[0, 1, 0], [1, 4, 1], [0, 1, 0]])
    assert own[1:4, 1:4].tolist() == [[0, 20, 0], [20, 80, 20], [0, 20, 0]]
    assert filters.weighted_kernel(5)[2].tolist() == [6 * k / 256 for k in (1, 4, 6, 4, 1)]


@every_dtype
@every_shape
@every_border
def test_I6_gaussian_is_scipys(dtype, shape, border):
    image = picture(dtype, shape)
    expected = ndimage.gaussian_filter(image.astype(float), (1.7, 1.7, 0)[: image.ndim], mode=SCIPY[border])
    close(ops.gaussian(image, sigma=1.7, border=border), as_image(expected, dtype), dtype, levels=2)


def test_I6_gaussian_kernel_by_its_formula_with_size_and_mean():
    y, x = np.mgrid[-3:4, -3:4]
    bell = np.exp(-((x - 1) ** 2 + (y + 0.5) ** 2) / (2 * 1.2**2))
    np.testing.assert_allclose(filters.gaussian_kernel(1.2, 7, (1.0, -0.5)), bell / bell.sum(), atol=1e-15)
    assert filters.gaussian_kernel(2.0).shape == (17, 17)
    image = picture("float64")
    close(ops.gaussian(image, sigma=1.2, size=7, mean=(1.0, -0.5)), literal(image, bell / bell.sum(), "reflect"), "float64")
    far = ops.gaussian(image, sigma=0.3, mean=(3.0, 0.0))  # the top lies 3 pixels to the right: the image moves to the left
    np.testing.assert_allclose(far[:, :-3], image[:, 3:], atol=0.02)


@every_dtype
def test_I6_smoothing_keeps_an_even_image(dtype):
    for level in (0, TOP[dtype] // 3 if TOP[dtype] > 1 else 0.3, TOP[dtype]):
        image = np.full((6, 7, 3), level, dtype)
        for result in (ops.mean(image), ops.gaussian(image, sigma=2.0), ops.weighted_mean(image), ops.median(image), ops.sharpen(image)):
            np.testing.assert_allclose(result.astype(float), image.astype(float), atol=1e-6 if TOP[dtype] == 1 else 0)
            assert result.max() <= TOP[dtype]


def test_I6_sharpen_ridge_identity_by_hand():
    image = np.full((5, 5), 100, np.uint8)
    image[2, 2] = 120
    assert ops.sharpen(image)[1:4, 1:4].tolist() == [[100, 80, 100], [80, 200, 80], [100, 80, 100]]
    assert ops.sharpen(image, neighbours=8)[1:4, 1:4].tolist() == [[80, 80, 80], [80, 255, 80], [80, 80, 80]]  # 280 is clipped
    assert (ops.sharpen(image, amount=0.0) == image).all()
    assert ops.ridge(image)[1:4, 1:4].tolist() == [[0, 0, 0], [0, 160, 0], [0, 0, 0]]
    np.testing.assert_allclose(
        ops.ridge(image, output="float")[1:4, 1:4] * 255, [[-20, -20, -20], [-20, 160, -20], [-20, -20, -20]], atol=1e-4
    )
    same = ops.identity(image)
    assert (same == image).all()
    assert not np.may_share_memory(same, image)


# -------------------------------------------------------------------------------------------------------------- ranks, I7


@every_dtype
@every_shape
@every_border
def test_I7_ranks_are_scipys(dtype, shape, border):
    image = picture(dtype, shape)
    for size in (3, 5, 7):
        window = (size, size, 1)[: image.ndim]
        for ours, theirs in (
            (ops.minimum, ndimage.minimum_filter),
            (ops.maximum, ndimage.maximum_filter),
            (ops.median, ndimage.median_filter),
        ):
            close(ours(image, size=size, border=border), theirs(image, window, mode=SCIPY[border]).astype(float), dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_I7_ranks_of_tiny_images_with_large_windows(dtype):
    for shape in ((1, 1), (1, 4), (3, 2)):
        image = picture(dtype, shape)
        wide = np.pad(image, 4, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(wide, (9, 9))
        for function, rank in ((ops.minimum, np.min), (ops.maximum, np.max), (ops.median, np.median)):
            assert (function(image, size=9, border="reflect") == rank(windows, axis=(2, 3))).all()
        assert (ops.median(image, size=1) == image).all()


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
@pytest.mark.parametrize("size", [7, 21, 33])
def test_I7_a_large_median_of_many_levels_is_scipys(dtype, size):
    """By the two bytes of the ranks; with 40 000 different values and with few."""
    random = np.random.default_rng(size)
    top = 65535 if dtype == "uint16" else 1
    smooth = ndimage.gaussian_filter(random.random((190, 210)), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    for values in (smooth, np.round(smooth * 9) / 9, random.random((50, 40))):
        image = (np.rint(values * top) if top > 1 else values).astype(dtype)
        expected = ndimage.median_filter(image, size, mode="nearest")
        assert np.array_equal(ops.median(image, size=size), expected)


def test_I7_the_largest_median_takes_no_more_than_its_image():
    image = np.random.default_rng(0).random((90, 100)).astype(np.float32)
    low, high = np.quantile(image, [0.49, 0.51])
    assert low < ops.median(image, size=255, border="reflect")[45, 50] < high
    assert (ops.median(np.full((1, 1), 0.25, np.float32), size=255, border="wrap") == 0.25).all()
    many = np.random.default_rng(1).random((300, 300))
    with pytest.raises(UsageError, match="at most 63 pixels, not 65"):
        ops.median(many, size=65)


def test_I6_sums_beyond_32_bits_are_cut_not_wrapped():
    image = np.full((5, 5), 200, np.uint8)
    for weight, result in ((1e9, 255), (1e25, 255), (-1e9, 0)):
        assert (ops.correlate(image, [[weight]]) == result).all()
        assert (ops.correlate(image.astype(np.uint16), [[weight]]) == (65535 if result else 0)).all()


def test_I6_large_gaussians_of_8_bits_are_exact():
    stripes = np.zeros((120, 120), np.uint8)
    stripes[:, ::5] = 255
    for sigma in (9.0, 40.0):
        exact = ndimage.gaussian_filter(stripes.astype(float), sigma, mode="mirror", radius=int(4 * sigma + 0.5))
        assert np.abs(ops.gaussian(stripes, sigma=sigma) - exact).max() <= 0.501
        assert np.abs(ops.gaussian(stripes, sigma=sigma, border="wrap") - 51).max() <= 2


def test_I6_windows_beyond_reason_are_wrong_use():
    image = np.zeros((64, 48), np.uint8)
    for call in (
        lambda: ops.gaussian(image, sigma=1e4),
        lambda: ops.laplacian_of_gaussian(image, sigma=1e3),
        lambda: ops.canny(image, sigma=600),
    ):
        with pytest.raises(UsageError, match=r"sigma"):
            call()
    with pytest.raises(UsageError, match="wraps the 1x1 image too often"):
        ops.canny(np.zeros((1, 1), np.float32), sigma=360, border="wrap")


def test_I7_median_removes_salt_and_pepper_and_keeps_a_step():
    image = np.zeros((9, 10), np.uint8)
    image[:, 5:] = 200
    noisy = image.copy()
    noisy[2, 2], noisy[6, 7] = 255, 0
    assert (ops.median(noisy) == image).all()


# -------------------------------------------------------------------------------------------------------- derivatives, I8

LITERAL = {
    "sobel": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "prewitt": [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],
    "scharr": [[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]],
}


@every_dtype
@every_shape
@every_border
def test_I8_derivatives_are_scipys_or_the_literal_kernel(dtype, shape, border):
    image = picture(dtype, shape)
    exact = image.astype(float)
    cases = [
        (getattr(ops, n), {"axis": a}, literal(image, np.array(w) if a == "x" else np.array(w).T, border))
        for n, w in LITERAL.items()
        for a in "xy"
    ]
    cases += [
        (ops.laplacian, {"neighbours": 4}, literal(image, [[0, 1, 0], [1, -4, 1], [0, 1, 0]], border)),
        (ops.laplacian, {"neighbours": 8}, literal(image, [[1, 1, 1], [1, -8, 1], [1, 1, 1]], border)),
    ]
    if image.ndim == 2:
        cases.append((ops.laplacian, {"neighbours": 4}, ndimage.laplace(exact, mode=SCIPY[border])))
        cases.append((ops.sobel, {"axis": "x"}, ndimage.sobel(exact, 1, mode=SCIPY[border])))
        cases.append((ops.prewitt, {"axis": "y"}, ndimage.prewitt(exact, 0, mode=SCIPY[border])))
    for function, options, expected in cases:
        signed = function(image, border=border, output="float", **options)
        assert signed.dtype == (np.float64 if dtype == "float64" else np.float32)
        np.testing.assert_allclose(signed, expected / TOP[dtype], atol=5e-6)
        close(function(image, border=border, **options), as_image(np.abs(expected), dtype), dtype)


def test_I8_roberts_by_hand():
    image = np.array([[10, 20], [40, 80]], np.uint8)
    assert ops.roberts(image, output="float")[0, 0] * 255 == pytest.approx(10 - 80)
    assert ops.roberts(image, axis="y", output="float")[0, 0] * 255 == pytest.approx(20 - 40)
    assert ops.roberts(image)[0, 0] == 70
    assert ops.roberts(image, axis="y")[0, 0] == 20


def test_I8_signs_x_to_the_right_y_down():
    right = np.tile(np.arange(8) * 10, (8, 1)).astype(np.uint8)
    for function, weight in ((ops.sobel, 8), (ops.prewitt, 6), (ops.scharr, 32)):
        assert function(right, output="float")[4, 4] * 255 == pytest.approx(10 * weight)
        assert function(right, axis="y", output="float")[4, 4] == 0
        assert function(np.ascontiguousarray(right.T), axis="y", output="float")[4, 4] > 0
        assert function(np.ascontiguousarray(right[:, ::-1]), output="float")[4, 3] < 0


@every_dtype
def test_I8_magnitude_and_direction(dtype):
    image = picture(dtype, (9, 11, 3))
    for operator, weights in LITERAL.items():
        dx, dy = (literal(image, w, "reflect") / TOP[dtype] for w in (np.array(weights), np.array(weights).T))
        expected = np.hypot(dx, dy)
        np.testing.assert_allclose(ops.gradient_magnitude(image, operator=operator, output="float"), expected, atol=1e-5)
        same = ops.gradient_magnitude(image, operator=operator)
        assert same.dtype == dtype
        np.testing.assert_allclose(same / TOP[dtype], np.minimum(expected, 1), atol=0.6 / 255 if dtype == "uint8" else 1e-5)
        angle = ops.gradient_direction(image, operator=operator, output="float")
        away = (angle - np.degrees(np.arctan2(dy, dx)) + 180) % 360 - 180
        assert np.abs(away[expected > 0.01]).max() < 0.05
        assert angle.min() >= 0
        assert angle.max() < 360


@every_border
def test_I8_magnitude_of_a_large_image(border):
    image = picture("uint8", (1301, 700))  # taken in strips
    exact = image.astype(float)
    expected = np.hypot(*(ndimage.sobel(exact, axis, mode=SCIPY[border]) for axis in (0, 1)))
    np.testing.assert_allclose(ops.gradient_magnitude(image, border=border, output="float") * 255, expected, atol=1e-3)
    assert (ops.gradient_magnitude(image, border=border) == np.rint(np.minimum(expected, 255))).mean() > 0.9999


def test_I8_direction_of_ramps():
    y, x = np.mgrid[:9, :9] / 20
    for angle, ramp in ((0, x), (90, y), (180, 0.5 - x), (270, 0.5 - y), (45, (x + y) / 2), (135, (0.5 - x + y) / 2)):
        assert ops.gradient_direction(ramp, output="float")[4, 4] == pytest.approx(angle, abs=1e-9)
        assert ops.gradient_direction(ramp)[4, 4] == pytest.approx(angle / 360)
    assert (ops.gradient_direction(np.full((4, 4), 0.5), output="float") == 0).all()


# -------------------------------------------------------------------------------------------------------------- the room's


@pytest.mark.parametrize("name", ["mean", "gaussian", "median", "sobel", "laplacian", "sharpen", "gradient_magnitude"])
def test_I6_tensors_batches_and_alpha(name):
    function, image = getattr(ops, name), picture("uint8", (9, 8, 3))
    expected = function(image)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    assert (function(tensor).numpy().transpose(1, 2, 0) == expected).all()
    batch = function(torch.stack([tensor, tensor.flip(-1)]))
    assert batch.shape == (2, 3, 9, 8)
    assert (batch[0].numpy().transpose(1, 2, 0) == expected).all()
    alpha = np.concatenate([image, picture("uint8", (9, 8, 1), 5)], axis=2)
    assert (function(alpha)[..., :3] == expected).all()
    assert (function(alpha)[..., 3] == alpha[..., 3]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5]), st.integers(0, 99))
def test_I7_minimum_below_median_below_maximum(height, width, size, seed):
    image = picture("uint8", (height, width), seed)
    low, middle, high = (f(image, size=size) for f in (ops.minimum, ops.median, ops.maximum))
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert (255 - ops.maximum(255 - image, size=size) == low).all()


STRIPPED = {
    "gradient_direction": {}, "gradient_magnitude": {}, "prewitt_edges": {}, "roberts_edges": {"threshold": 0.1}, "laplacian_edges": {},
    "laplacian_of_gaussian": {"sigma": 3.0}, "marr_hildreth": {"sigma": 3.0, "threshold": None}, "adaptive_wiener": {},
    "adaptive_threshold": {},
}  # fmt: skip


@pytest.mark.parametrize("border", ["reflect", "constant"])
@pytest.mark.parametrize("name", STRIPPED)
def test_I8_I9_I11_strips_change_nothing(name, border, monkeypatch):
    """Large images are worked on a strip of rows at a time."""
    image = picture("uint8", (700, 301, 3))
    parts = getattr(ops, name)(image, border=border, **STRIPPED[name])
    monkeypatch.setattr(filters, "in_strips", lambda image, change, halo=0: change(image))
    whole = getattr(ops, name)(image, border=border, **STRIPPED[name])
    assert np.array_equal(parts, whole)
    assert len(np.unique(whole)) > 1


WHOLE = [
    "ssim", "quantization_error", "gaussian_noise", "rgb_to_hsv", "gaussian", "sobel", "stretch", "canny", "estimate_sigma", "rgb_to_ycbcr",
]  # fmt: skip
TRANSFORMED = ["fft_magnitude", "fft_phase", "high_pass", "low_pass"]
"""Their half spectrum alone is 4/3 of an RGB image."""


@pytest.mark.parametrize("name", [*STRIPPED, *WHOLE, *TRANSFORMED])
def test_I_memory_is_within_four_times_the_image(name):
    """What the operation takes at most beside the image: three times it, so four together; the Fourier transform's four."""
    image = picture("uint8", (1500, 2000, 3))
    arguments = [image, image[::-1].copy()] if name == "ssim" else [image]
    getattr(ops, name)(*(x[:20, :20] for x in arguments))  # loads the libraries
    tracemalloc.start()
    getattr(ops, name)(*arguments, **STRIPPED.get(name, {}))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= (4 if name in TRANSFORMED else 3.01) * image.nbytes
