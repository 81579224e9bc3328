"""I1 sampling and I2 quantisation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize as skimage_resize

import saccade.image as i
from saccade.image.sampling import alias, zone_plate
from saccade.types.errors import UsageError


def noise(shape=(13, 19, 3), dtype="float64", seed=0):
    values = np.random.default_rng(seed).random(shape)
    top = {"uint8": 255, "uint16": 65535}.get(dtype)
    return (values * top).round().astype(dtype) if top else values.astype(dtype)


def test_I1_bilinear_worked_example():
    small = np.array([[5, 11], [10, 15]])
    large = i.resize(small / 255, (4, 4)) * 255
    assert large[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx([5, 11, 10, 15])
    assert large[0] == pytest.approx([5, 6.5, 9.5, 11])
    # the middle by hand: weights 9, 3, 3, 1 of 16
    assert large[1, 1] == pytest.approx((9 * 5 + 3 * 11 + 3 * 10 + 15) / 16)
    assert np.abs(i.resize(small.astype(np.uint8), (4, 4)) - large).max() < 1  # 6.5 and 9.5 are no levels
    assert np.array_equal(i.upsample(small / 255, 2), i.resize(small / 255, (4, 4)))


@pytest.mark.parametrize("size", [(13, 19), (5, 7), (26, 38), (30, 11), (1, 1), (1, 40)])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_I1_resizing_equals_torch(size, method):
    image = noise()
    got = i.resize(image, size, method)
    theirs = functional.interpolate(torch.from_numpy(image.transpose(2, 0, 1))[None], size, mode=method, align_corners=False)[0]
    assert np.allclose(got, theirs.numpy().transpose(1, 2, 0).clip(0, 1), atol=2e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_I1_nearest_takes_the_pixel_whose_centre_is_nearest(dtype):
    image = noise(dtype=dtype)
    for height, width in [(5, 7), (39, 38), (13, 19), (1, 3)]:
        rows = ((np.arange(height) + 0.5) * 13 / height).astype(int)
        columns = ((np.arange(width) + 0.5) * 19 / width).astype(int)
        assert np.array_equal(i.resize(image, (height, width), "nearest"), image[np.ix_(rows, columns)])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_I1_area_is_the_mean_of_the_pixels_covered(dtype):
    image = noise((12, 18, 3), dtype)
    means = image.reshape(4, 3, 9, 2, 3).astype(float).mean((1, 3))
    assert np.abs(i.resize(image, (4, 9), "area") - means).max() <= (0.5 + 1e-6 if dtype.startswith("u") else 1e-6)
    ramp = np.arange(5.0)[None] / 255  # 5 pixels into 2: 2.5 each
    assert i.resize(ramp, (1, 2), "area")[0] * 255 == pytest.approx([(0 + 1 + 0.5 * 2) / 2.5, (0.5 * 2 + 3 + 4) / 2.5])


def test_I1_antialiasing_equals_scikit_image():
    image = noise((40, 60))
    got = i.resize(image, (13, 20), antialias=True)
    theirs = skimage_resize(image, (13, 20), order=1, mode="edge", anti_aliasing=True)
    assert np.allclose(got, theirs, atol=1e-12)
    assert np.array_equal(i.resize(image, (80, 90), antialias=True), i.resize(image, (80, 90)))  # nothing to blur going up


def test_I1_a_pattern_above_nyquist_comes_back_as_a_slower_one_unless_blurred_first():
    x = np.arange(240)
    for frequency in (0.3, 0.35, 0.4):
        wave = np.tile((1 + np.cos(2 * np.pi * frequency * x)) / 2, (8, 1))
        spectrum = {}
        for prefilter in (False, True):
            small = i.downsample(wave, 2, prefilter=prefilter)[2]
            spectrum[prefilter] = np.abs(np.fft.rfft(small - small.mean())) / 120
        peak = int(spectrum[False].argmax())
        assert peak / 120 == pytest.approx(alias(frequency, 2))
        assert spectrum[False][peak] == pytest.approx(0.25)  # as strong as the wave itself
        # sigma 1: exp(-(2 pi f)^2 / 2) of it is left
        assert spectrum[True][peak] == pytest.approx(0.25 * np.exp(-0.5 * (2 * np.pi * frequency) ** 2), abs=0.006)
    slow = np.tile((1 + np.cos(2 * np.pi * 0.05 * x)) / 2, (8, 1))
    small = i.downsample(slow, 2)[2, 10:-10]
    assert np.ptp(small) > 0.9  # a pattern below Nyquist stays


def test_I1_the_zone_plate_has_false_rings_without_a_blur():
    plate = zone_plate(128)
    assert plate.shape == (128, 128)
    assert plate[63:65, 63:65] == pytest.approx(1, abs=1e-3)
    truth = i.resize(plate, (64, 64), "area")
    corner = (slice(0, 16), slice(24, 40))  # frequencies of over 0.375 cycles a pixel
    assert i.downsample(plate, 2, prefilter=False)[corner].std() > 5 * i.downsample(plate, 2)[corner].std()
    assert truth[corner].std() < 0.2
    with pytest.raises(UsageError):
        zone_plate(0)


def test_I1_keeping_every_kth_pixel_and_pixelating():
    image = noise(dtype="uint8")
    assert np.array_equal(i.downsample(image, 3, prefilter=False), image[::3, ::3])
    assert np.array_equal(i.downsample(image, 1), image)
    assert np.array_equal(i.downsample(image, 50), i.downsample(image, 50)[:1, :1])
    blocks = i.pixelate(image, 4)
    assert blocks.shape == image.shape
    for y in range(13):
        for x in range(19):
            assert np.array_equal(blocks[y, x], image[min(y // 4 * 4 + 2, 12), min(x // 4 * 4 + 2, 18)])
    means = i.pixelate(image, 4, mean=True)
    assert means[12, 18].tolist() == np.rint(image[12:, 16:].reshape(-1, 3).mean(0)).tolist()
    assert means[5, 9].tolist() == np.rint(image[4:8, 8:12].reshape(-1, 3).mean(0)).tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: i.resize(x, (0, 3)),
        lambda x: i.resize(x, (3, 40000)),
        lambda x: i.resize(x, (3, 3), "lanczos"),
        lambda x: i.downsample(x, 0),
        lambda x: i.downsample(x, 2, sigma=0.0),
        lambda x: i.upsample(x, 0),
        lambda x: i.pixelate(x, 0),
        lambda x: i.quantize(x, 1),
        lambda x: i.quantize(x, 257),
        lambda x: i.quantization_error(x, 0),
    ],
)
def test_I1_I2_wrong_arguments_are_usage_errors(call):
    with pytest.raises(UsageError):
        call(noise(dtype="uint8"))


# ------------------------------------------------------------------------------------------------------------ quantisation


def test_I2_worked_example():
    value = np.array([[78.93 / 255]])
    assert i.quantize(value, 256, "truncate")[0, 0] * 255 == pytest.approx(78)
    assert i.quantize(value, 256, "round")[0, 0] * 255 == pytest.approx(79)
    eight = i.quantize(np.arange(256, dtype=np.uint8)[None], 8, "truncate")
    assert np.array_equal(eight, np.arange(256)[None] // 32 * 32)
    assert sorted(set(i.quantize(np.arange(256, dtype=np.uint8)[None], 4).ravel().tolist())) == [0, 85, 170, 255]


@settings(deadline=None, max_examples=60)
@given(levels=st.integers(2, 256), dtype=st.sampled_from(["uint8", "uint16", "float32", "float64"]))
def test_I2_errors_stay_within_half_a_step_or_a_step(levels, dtype):
    image = noise((31, 33), dtype)
    image.flat[:2] = 0, {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    top = float(image.flat[1])
    whole = 0.5 if dtype.startswith("u") else 1e-6  # a level that is no whole number is rounded
    rounded = i.quantize(image, levels)
    assert np.abs(rounded - image.astype(float)).max() <= top / (levels - 1) / 2 + whole
    assert rounded.flat[0] == 0
    assert rounded.flat[1] == top
    cut = i.quantize(image, levels, "truncate")
    step = (top + 1) / levels if dtype.startswith("u") else 256 / 255 / levels
    error = image.astype(float) - cut
    assert error.min() >= -1e-6
    assert error.max() < step + 1e-6
    for result in (rounded, cut):
        assert len(np.unique(result)) <= levels
        assert np.array_equal(np.argsort(result.ravel()[np.argsort(image.ravel())], kind="stable"), np.arange(image.size))  # monotone


@pytest.mark.parametrize("rule", ["round", "truncate"])
def test_I2_the_error_is_reported_and_a_second_time_there_is_none(rule):
    image = noise((200, 200))
    report = i.quantization_error(image, 16, rule)
    error = image * 255 - i.quantize(image, 16, rule) * 255
    assert report["rms"] == pytest.approx(np.sqrt((error**2).mean()))
    assert report["max"] == pytest.approx(np.abs(error).max())
    assert report["mean"] == pytest.approx(error.mean(), abs=1e-12)
    assert report["rms"] == pytest.approx(report["step"] / (12**0.5 if rule == "round" else 3**0.5), rel=0.02)  # evenly spread values
    for levels in (2, 3, 7, 16, 255, 256):
        eight = i.quantize(noise(dtype="uint8"), levels, rule)
        assert np.array_equal(i.quantize(eight, levels, rule), eight)
    assert i.quantization_error(noise(dtype="uint8"), 256, rule)["max"] == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_I2_a_level_of_a_float_image_stays_what_it_is(dtype):
    """floor(78 / 255 * 255) may be 77: then quantising twice loses whole steps."""
    grey = (np.arange(256) / 255).astype(dtype)[None]
    assert np.abs(i.quantize(grey, 256, "truncate") - grey).max() < 1e-6
    for levels in (3, 5, 7, 11, 100, 253, 256):
        once = i.quantize(noise(dtype=dtype), levels, "truncate")
        assert np.array_equal(i.quantize(once, levels, "truncate"), once)


@pytest.mark.parametrize("rule", ["round", "truncate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_I2_the_error_of_integers_is_that_of_every_pixel(dtype, rule):
    for shape in ((31, 33), (31, 33, 3)):
        image = noise(shape, dtype)
        error = image.astype(float) - i.quantize(image, 7, rule)
        report = i.quantization_error(image, 7, rule)
        assert report["max"] == np.abs(error).max()
        assert report["mean"] == pytest.approx(error.mean(), abs=1e-9)
        assert report["rms"] == pytest.approx(np.sqrt((error**2).mean()))
