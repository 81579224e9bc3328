"""Noise: moments against the models' formulas at a fixed seed; the same seed gives the same noise."""

import cv2
import numpy as np
import pytest
import torch
from scipy import stats

from saccade import image as ops
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
NAMES = ("gaussian_noise", "multiplicative_noise", "speckle", "salt_and_pepper", "poisson_noise")
every_dtype = pytest.mark.parametrize("dtype", list(TOP))


def even(dtype="float64", level=0.5, shape=(120, 130)):
    value = level * TOP[dtype]
    return np.full(shape, value if TOP[dtype] == 1 else round(value), dtype)


def moments(noisy):
    values = noisy / TOP[str(noisy.dtype)]
    return values.mean(), values.std()


@every_dtype
def test_I10_additive_gaussian_noise_has_its_mean_and_deviation(dtype):
    for level in (0.4, 0.6):
        mean, deviation = moments(ops.gaussian_noise(even(dtype, level), sigma=0.08, mean=0.05, seed=3))
        assert mean == pytest.approx(level + 0.05, abs=0.003)
        assert deviation == pytest.approx(0.08, rel=0.02)


@pytest.mark.parametrize(("dtype", "off"), [("uint16", 1), ("float32", 1e-6), ("float64", 1e-12)])
def test_I10_additive_noise_is_the_image_plus_the_streams_numbers(dtype, off):
    """NumPy's numbers of the seed, added in float64, rounded to the nearest and clipped."""
    image = (np.random.default_rng(1).random((60, 70, 3)) * TOP[dtype]).astype(dtype)
    normal = np.random.default_rng(3).standard_normal(image.shape, dtype="float64" if dtype == "float64" else "float32")
    expected = (image + (normal.astype(float) * 0.3 + 0.05) * TOP[dtype]).clip(0, TOP[dtype])
    noisy = ops.gaussian_noise(image, sigma=0.3, mean=0.05, seed=3)
    np.testing.assert_allclose(noisy, expected if image.dtype.kind == "f" else np.rint(expected), rtol=0, atol=off)


def test_I10_additive_noise_of_8_bits_has_the_normal_share_of_each_level():
    """Chi-squared of 9 million; a table of 65 536 normal numbers alone has 1 575 for 178 degrees of freedom, by its gaps far out."""
    noisy = ops.gaussian_noise(even("uint8", shape=(3000, 3000)), sigma=21 / 255, seed=1)
    edges = np.arange(257) - 0.5
    expected = np.diff(stats.norm.cdf((edges - 128) / 21)) * noisy.size
    counts = np.bincount(noisy.ravel(), minlength=256)
    often = expected > 20
    squared = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert stats.chi2.sf(squared, often.sum() - 1) > 0.01
    assert counts[~often].sum() == pytest.approx(expected[~often].sum(), rel=0.2)


def test_I10_additive_noise_of_8_bits_is_the_same_on_every_ground_rounded_and_clipped():
    image = np.random.default_rng(1).integers(0, 256, (60, 70, 3), np.uint8)
    noise = ops.gaussian_noise(even("uint8", shape=image.shape), sigma=0.1, seed=3).astype(int) - 128  # five sigma are 127.5
    noisy = ops.gaussian_noise(image, sigma=0.1, seed=3)
    tie = 1  # a half goes to the even of two levels
    np.testing.assert_allclose(noisy.astype(int), (image + noise).clip(0, 255), atol=tie)
    assert (noisy == (image + noise).clip(0, 255)).mean() > 0.999
    brighter = ops.gaussian_noise(image, sigma=0.1, mean=20 / 255, seed=3)
    np.testing.assert_allclose(brighter.astype(int), (image + noise + 20).clip(0, 255), atol=tie)


def test_I10_additive_noise_is_normal_and_white():
    noise = ops.gaussian_noise(even(), sigma=0.05, seed=1) - 0.5
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 0.01
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.03
    colour = ops.gaussian_noise(even(shape=(80, 80, 3)), sigma=0.05) - 0.5
    assert np.abs(np.corrcoef(colour.reshape(-1, 3).T) - np.eye(3)).max() < 0.05


@every_dtype
def test_I10_multiplicative_noise_grows_with_the_brightness(dtype):
    for level in (0.2, 0.4, 0.8):
        mean, deviation = moments(ops.multiplicative_noise(even(dtype, level), sigma=0.06, seed=2))
        assert mean == pytest.approx(level, abs=0.003)
        assert deviation == pytest.approx(0.06 * level, rel=0.03)
    assert not ops.multiplicative_noise(even(dtype, 0.0)).any()
    assert moments(ops.multiplicative_noise(even(dtype, 0.4), mean=0.5))[0] == pytest.approx(0.2, abs=0.003)


@every_dtype
@pytest.mark.parametrize("distribution", ["gamma", "gaussian", "uniform"])
def test_I10_speckle_has_mean_1_and_its_variance(dtype, distribution):
    mean, deviation = moments(ops.speckle(even(dtype, 0.3), variance=0.04, distribution=distribution, seed=5))
    assert mean == pytest.approx(moments(even(dtype, 0.3))[0], abs=0.002)
    assert deviation == pytest.approx(0.2 * 0.3, rel=0.03)


def test_I10_speckles_distributions():
    factor = {d: ops.speckle(even(level=0.25), variance=0.04, distribution=d, seed=1) / 0.25 for d in ("gamma", "uniform")}
    assert stats.kstest(factor["gamma"].ravel(), stats.gamma(25, scale=1 / 25).cdf).pvalue > 0.01
    assert stats.kstest(factor["uniform"].ravel(), stats.uniform(1 - 0.12**0.5, 2 * 0.12**0.5).cdf).pvalue > 0.01
    assert (ops.speckle(even(), variance=0.0) == even()).all()


@every_dtype
def test_I10_salt_and_pepper_shares(dtype):
    image = even(dtype, 0.5, (100, 100, 3))
    noisy = ops.salt_and_pepper(image, amount=0.2, salt=0.25, seed=4)
    white, black, kept = (noisy == TOP[dtype]).mean(), (noisy == 0).mean(), (noisy == image).mean()
    assert white == pytest.approx(0.05, abs=0.004)
    assert black == pytest.approx(0.15, abs=0.006)
    assert white + black + kept == pytest.approx(1)
    assert (ops.salt_and_pepper(image, amount=0.0) == image).all()
    assert (ops.salt_and_pepper(image, amount=1.0, salt=1.0) == TOP[dtype]).all()


@every_dtype
def test_I10_poisson_noise_has_a_variance_of_the_brightness_over_the_photons(dtype):
    for level in (0.1, 0.3, 0.6):
        mean, deviation = moments(ops.poisson_noise(even(dtype, level), photons=100.0, seed=6))
        assert mean == pytest.approx(level, abs=0.004)
        assert deviation == pytest.approx((level / 100) ** 0.5, rel=0.03)
    counts = ops.poisson_noise(even(), photons=20.0, seed=1) * 20
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert stats.kstest(np.rint(counts).ravel(), stats.poisson(10).cdf).statistic < 0.14  # of a discrete law


@pytest.mark.parametrize("name", NAMES)
@every_dtype
def test_I10_seeds_dtypes_ranges_and_batches(name, dtype):
    function, image = getattr(ops, name), even(dtype, 0.7, (9, 8, 3))
    before = image.copy()
    first = function(image, seed=1)
    assert first.dtype == dtype
    assert first.shape == image.shape
    assert (function(image, seed=1) == first).all()
    assert (function(image, seed=2) != first).any()
    assert (image == before).all()
    assert first.min() >= 0
    assert first.max() <= TOP[dtype]
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    batch = function(torch.stack([tensor, tensor]), seed=1)
    assert (batch[0].numpy().transpose(1, 2, 0) == first).all()
    assert (batch[1].numpy().transpose(1, 2, 0) == function(image, seed=2)).all()  # image k has seed + k
    assert function(np.full((1, 1), TOP[dtype], dtype)).shape == (1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_I10_noise_does_not_repeat_down_a_large_image(name):
    image = even("uint8", 0.5, (1400, 400))
    change = getattr(ops, name)(image, seed=1).astype(float) - image
    parts = change.reshape(14, -1)
    assert np.abs(np.corrcoef(parts) - np.eye(14)).max() < 0.03
    np.testing.assert_allclose(parts.std(1), parts.std(), rtol=0.05)


def test_I10_bad_options_are_told():
    image = even()
    for call, words in [
        (lambda: ops.gaussian_noise(image, sigma=-1.0), "sigma"),
        (lambda: ops.gaussian_noise(image, sigma=float("nan")), "sigma"),
        (lambda: ops.speckle(image, variance=-0.1), "variance"),
        (lambda: ops.speckle(image, distribution="gama"), "gamma"),
        (lambda: ops.salt_and_pepper(image, amount=1.5), "amount"),
        (lambda: ops.salt_and_pepper(image, salt=-0.5), "salt"),
        (lambda: ops.poisson_noise(image, photons=0.0), "photons"),
        (lambda: ops.gaussian_noise(np.full((3, 3), np.nan)), "NaN"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()


@pytest.mark.parametrize("name", ["gaussian_noise", "multiplicative_noise", "speckle", "salt_and_pepper", "poisson_noise"])
def test_I10_threads_do_not_change_the_noise_of_a_large_image(name):
    image = np.full((900, 1000), 128, np.uint8)  # four strips
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            results.append(getattr(ops, name)(image, seed=3))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(*results)
    noise = results[0].astype(float) - results[0].mean()
    rows = 2**18 // 1000
    for k in (1, 2):  # the strips' noise differs: no two have the same numbers
        assert abs(np.corrcoef(noise[:rows].ravel(), noise[k * rows : (k + 1) * rows].ravel())[0, 1]) < 0.01
    assert not np.array_equal(results[0], getattr(ops, name)(image, seed=4))
