"""Fourier transforms and filters, Hough, histogram matching: against NumPy, scikit-image, closed forms and drawn figures."""

import cv2
import numpy as np
import pytest
import skimage.exposure
import skimage.filters
import torch

from saccade import image as ops
from saccade.image import frequency
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))
SIZES = [(16, 20), (15, 21), (16, 21), (1, 1), (1, 7), (9, 9, 3)]


def picture(dtype="float64", shape=(16, 20), seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * TOP[dtype]).astype(dtype)


# ---------------------------------------------------------------------------------------------------------------- Fourier


@every_dtype
@pytest.mark.parametrize("shape", SIZES)
def test_I12_fft_is_the_sum_of_its_definition(dtype, shape):
    image = picture(dtype, shape)
    height, width = shape[:2]
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height) - height // 2, np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width) - width // 2, np.arange(width)) / width)
    expected = np.einsum("uy,yx...,vx->uv...", rows, image / TOP[dtype], columns)
    magnitude, phase = ops.fft_magnitude(image, output="float"), ops.fft_phase(image, output="float")
    np.testing.assert_allclose(magnitude, np.abs(expected), atol=1e-4 if dtype != "float64" else 1e-10)
    np.testing.assert_allclose(magnitude * np.exp(1j * phase), expected, atol=1e-4 if dtype != "float64" else 1e-10)
    assert magnitude[height // 2, width // 2].mean() == pytest.approx(image.sum() / TOP[dtype] / (3 if image.ndim == 3 else 1), rel=1e-5)
    np.testing.assert_allclose(frequency.from_spectrum(magnitude, phase), image / TOP[dtype], atol=1e-5)


@pytest.mark.parametrize("shape", [(900, 401), (901, 400)])
def test_I12_transforms_of_large_images_are_numpys(shape):
    """Rows are transformed a strip at a time."""
    image = picture("float64", shape)
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    magnitude, phase = ops.fft_magnitude(image, output="float"), ops.fft_phase(image, output="float")
    np.testing.assert_allclose(magnitude * np.exp(1j * phase), spectrum, atol=1e-8)
    expected = np.fft.ifft2(np.fft.fft2(image) * full_response(shape, 0.1, "butterworth", 2)).real
    np.testing.assert_allclose(ops.low_pass(image, 0.1), expected.clip(0, 1), atol=1e-12)


@every_dtype
def test_I12_fft_as_images(dtype):
    image = picture(dtype)
    magnitude, phase = ops.fft_magnitude(image), ops.fft_phase(image)
    assert magnitude.dtype == phase.dtype == dtype
    assert magnitude[8, 10] == magnitude.max() == TOP[dtype]  # frequency 0
    logarithm = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(image / TOP[dtype]))))
    np.testing.assert_allclose(magnitude / TOP[dtype], logarithm / logarithm.max(), atol=0.51 / 255)
    assert phase[8, 10] / TOP[dtype] == pytest.approx(0.5, abs=0.003)
    assert not ops.fft_magnitude(np.zeros((5, 5), dtype)).any()


def test_I12_a_wave_is_two_points():
    x = np.arange(32)
    wave = np.tile(0.5 + 0.4 * np.cos(2 * np.pi * 5 * x / 32), (24, 1))
    magnitude = ops.fft_magnitude(wave, output="float")
    points = np.argwhere(magnitude > 1e-6)
    assert points.tolist() == [[12, 11], [12, 16], [12, 21]]
    assert magnitude[12, 21] == pytest.approx(0.2 * 24 * 32)


def full_response(shape, cutoff, kind, order):
    fy, fx = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij")
    f = np.sqrt(fy**2 + fx**2)
    if kind == "ideal":
        return (f <= cutoff) * 1.0
    return 1 / (1 + (f / cutoff) ** (2 * order)) if kind == "butterworth" else np.exp(-(f**2) / (2 * cutoff**2))


@every_dtype
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("kind", ["ideal", "butterworth", "gaussian"])
def test_I12_pass_filters_are_the_literal_product(dtype, shape, kind):
    image = picture(dtype, shape)
    low, high = (full_response(shape[:2], c, kind, 3) for c in (0.12, 0.3))
    spectrum = np.fft.fft2(image / TOP[dtype], axes=(0, 1))

    def back(response):
        return np.fft.ifft2(spectrum * (response if image.ndim == 2 else response[..., None]), axes=(0, 1)).real

    atol = 0.5001 / 255 if dtype == "uint8" else 1e-5
    result = ops.low_pass(image, cutoff=0.12, kind=kind, order=3)
    assert result.dtype == dtype
    np.testing.assert_allclose(result / TOP[dtype], np.clip(back(low), 0, 1), atol=atol)
    for function, options, response in (
        (ops.high_pass, {"cutoff": 0.3}, 1 - high),
        (ops.band_pass, {"low": 0.12, "high": 0.3}, high * (1 - low)),
    ):
        signed = function(image, kind=kind, order=3, output="float", **options)
        np.testing.assert_allclose(signed, back(response), atol=2e-6)
        same = function(image, kind=kind, order=3, **options)
        np.testing.assert_allclose(same / TOP[dtype], np.minimum(np.abs(back(response)), 1), atol=atol)


def test_I12_butterworth_is_scikit_images():
    image = picture(shape=(32, 32))
    theirs = skimage.filters.butterworth(image, 0.15, high_pass=False, order=2)
    np.testing.assert_allclose(ops.low_pass(image, cutoff=0.15), np.clip(theirs, 0, 1), atol=1e-9)
    theirs = skimage.filters.butterworth(image, 0.15, high_pass=True, order=2)
    ours = ops.high_pass(image, cutoff=0.15, output="float")
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_I12_cutoffs_values_and_what_passes():
    for kind, share in (("butterworth", 0.5), ("gaussian", np.exp(-0.5)), ("ideal", 1.0)):
        response = frequency.transfer((40, 40), 0.1, kind, 4)
        assert response.shape == (40, 21)
        assert response[4, 0] == pytest.approx(share)
        assert response[0, 0] == 1
    x = np.arange(64)
    waves = {f: np.tile(0.5 + 0.2 * np.cos(2 * np.pi * f * x / 64), (64, 1)) for f in (2, 8, 24)}
    mixed = sum(w - 0.5 for w in waves.values()) + 0.5 * 1.0
    mixed = mixed.clip(0, 1)
    np.testing.assert_allclose(ops.low_pass(waves[2], cutoff=0.06, kind="ideal"), waves[2], atol=1e-9)
    np.testing.assert_allclose(ops.low_pass(waves[8], cutoff=0.06, kind="ideal"), 0.5, atol=1e-9)
    band = ops.band_pass(waves[8], low=0.06, high=0.2, kind="ideal", output="float")
    np.testing.assert_allclose(band, waves[8] - 0.5, atol=1e-9)
    np.testing.assert_allclose(ops.high_pass(np.full((8, 9), 0.7), output="float"), 0, atol=1e-12)


def test_I12_a_frame_takes_the_seam_away():
    ramp = np.tile(np.linspace(0, 1, 40), (40, 1))
    periodic, framed = (ops.low_pass(ramp, cutoff=0.05, kind="gaussian", border=b) for b in ("wrap", "symmetric"))
    assert abs(periodic[20, 0] - ramp[20, 0]) > 0.3  # mixed with the other side
    assert abs(framed[20, 0] - ramp[20, 0]) < 0.1
    assert framed.shape == ramp.shape


# ------------------------------------------------------------------------------------------------------------------ Hough


def test_I12_hough_lines_of_a_drawn_line():
    for theta, rho in ((30.0, 60.0), (90.0, 40.0), (0.0, 25.0), (135.0, -10.0)):
        canvas = np.zeros((100, 120), np.uint8)
        c, s = np.cos(np.radians(theta)), np.sin(np.radians(theta))
        start, end = ((round(c * rho + k * s * 300), round(s * rho - k * c * 300)) for k in (-1, 1))
        cv2.line(canvas, start, end, 255)
        found = ops.find_lines(canvas, votes=30, count=1, edges=True)
        assert found.shape == (1, 3)
        assert found[0, 0] == pytest.approx(rho, abs=1.5)
        assert found[0, 1] == pytest.approx(theta, abs=1.01)
        assert 30 <= found[0, 2] <= (canvas > 0).sum()
        assert (ops.find_lines(canvas > 0, votes=30, count=1, edges=True) == found).all()  # a mask


def test_I12_hough_votes_are_counted_literally():
    canvas = np.zeros((40, 50), np.uint8)
    canvas[7, 5:36] = 255
    found = ops.find_lines(canvas, votes=31, edges=True)
    assert found[:1].round(4).tolist() == [[7.5, 90, 31]]  # the row's pixel centres
    assert len(ops.find_lines(canvas, votes=32, edges=True)) == 0
    assert ops.find_lines(np.zeros((1, 1), np.uint8)).shape == (0, 3)


def test_I12_hough_places_are_those_of_features():
    """The centre of the first pixel is (0.5, 0.5): mirrored pictures give mirrored places."""
    random, errors = np.random.default_rng(0), []
    for _ in range(20):
        y, x = np.mgrid[:120, :130] + 0.5
        cx, cy, r = random.uniform(45, 75, 2).tolist() + [30]
        disc = (255 / (1 + np.exp(2 * (np.hypot(x - cx, y - cy) - r)))).astype(np.uint8)
        errors.append(ops.find_circles(disc, least=20, most=40)[0, :2] - (cx, cy))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.2
    canvas = np.zeros((60, 80), np.uint8)
    canvas[:, 20] = 255
    assert ops.find_lines(canvas, votes=50, count=1, edges=True)[0, 0] == pytest.approx(20.5)
    assert ops.find_lines(canvas[:, ::-1].copy(), votes=50, count=1, edges=True)[0, 0] == pytest.approx(59.5)


@every_dtype
def test_I12_hough_lines_drawn_on_a_square(dtype):
    image = np.zeros((80, 90, 3), dtype)
    image[20:60, 25:70] = TOP[dtype]
    lines = ops.find_lines(image, votes=25, count=4)
    np.testing.assert_allclose(sorted((lines[:, 1] + 45) % 180 - 45), [0, 0, 90, 90], atol=1.01)  # Canny rounds the corners
    np.testing.assert_allclose(sorted(np.abs(lines[:, 0])), [20, 25, 60, 70], atol=2)
    near = ops.find_lines(image, votes=25, count=4, apart=(0.0, 0.0))
    assert {round(float(t)) for t in near[:, 1]} != {0, 90}  # the strongest line's neighbours in the table
    drawn = ops.hough_lines(image, votes=25, count=4)
    assert drawn.dtype == dtype
    red = (drawn == np.array([TOP[dtype], 0, 0])).all(-1)
    assert 2 <= red[:, 2].sum() <= 4
    assert ops.hough_lines(torch.zeros(2, 3, 9, 8)).shape == (2, 3, 9, 8)


@every_dtype
def test_I12_hough_circles_of_drawn_discs(dtype):
    y, x = np.mgrid[:120, :140]
    image = np.zeros((120, 140))
    truth = [(40, 45, 20), (95, 70, 30)]
    for cx, cy, r in truth:
        image = np.maximum(image, 1 / (1 + np.exp(2 * (np.hypot(x + 0.5 - cx, y + 0.5 - cy) - r))))
    image = (image * TOP[dtype]).astype(dtype)
    found = ops.find_circles(image, least=10, most=50)
    assert len(found) == 2
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], truth, atol=1.2)
    drawn = ops.hough_circles(np.stack([image // 2 if TOP[dtype] > 1 else image / 2] * 3, -1).astype(dtype), least=10, most=50)
    assert (drawn[..., 0] > drawn[..., 1]).sum() > 100
    assert ops.find_circles(np.zeros((1, 1), dtype)).shape == (0, 3)


# -------------------------------------------------------------------------------------------------------------- histogram


@every_dtype
@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_I12_match_histogram_is_scikit_images(dtype, shape):
    image = picture(dtype, shape)
    reference = ((picture("float64", (25, 33, *shape[2:]), 1) ** 2 * 0.6 + 0.2) * TOP[dtype]).astype(dtype)
    result = ops.match_histogram(image, reference)
    theirs = skimage.exposure.match_histograms(image, reference, channel_axis=-1 if image.ndim == 3 else None)
    assert result.dtype == dtype
    np.testing.assert_allclose(result.astype(float), theirs.astype(float), atol=1 if TOP[dtype] > 1 else 1e-6)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(result, share) == pytest.approx(np.quantile(reference, share), abs=0.02 * TOP[dtype])


def test_I12_match_histogram_by_hand():
    image, reference = np.array([[0, 0, 1, 2]], np.uint8), np.array([[10, 10, 20, 30]], np.uint8)
    assert ops.match_histogram(image, reference).tolist() == [[10, 10, 20, 30]]
    assert (ops.match_histogram(reference, reference) == reference).all()
    assert ops.match_histogram(np.zeros((1, 1), np.uint8), reference).tolist() == [[30]]


def test_I12_bad_options_are_told():
    image = picture()
    for call, words in [
        (lambda: ops.low_pass(image, cutoff=0.0), "cutoff"),
        (lambda: ops.low_pass(image, kind="box"), "ideal|butterworth|gaussian"),
        (lambda: ops.band_pass(image, low=0.3, high=0.2), "low=0.3 is not below high=0.2"),
        (lambda: ops.find_circles(image, least=9, most=4), "least=9..most=4"),
        (lambda: ops.find_circles(image, roundness=1.0), "roundness lies between 0 and 1"),
        (lambda: ops.find_lines(image, votes=0), "votes"),
        (lambda: ops.match_histogram(image, picture(shape=(4, 4, 3))), "channels"),
        (lambda: ops.low_pass(image, border="mirror"), "border"),
        (lambda: ops.fft_magnitude(np.full((3, 3), np.nan)), "NaN"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()
