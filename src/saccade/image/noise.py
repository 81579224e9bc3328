"""Noise models (canon I10), for every value by itself; the same ``seed`` gives the same noise (NumPy's PCG64; of an
image of more than 2**18 values every strip of rows has a stream of its own, so that threads do not change it).

Strengths are in units of the image's range: ``sigma=25 / 255`` is what papers call sigma 25. Noisy values are clipped to the range and
rounded to the dtype, as a camera does it: on very dark or bright ground the noise is therefore not symmetric.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

import numpy as np

from saccade.image.base import from_float, in_threads, operation, strips, to_float, white, within


@operation(row="I10", formula="g = f + n, n ~ N(mean, sigma^2)")
def gaussian_noise(image: np.ndarray, sigma: float = 0.1, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    """Additive Gaussian noise, as of a sensor's electronics. NumPy's numbers, added by OpenCV.

    That of 8-bit images is looked up: a random one of 65 536 equally likely values plus a small one of 256, as their levels are
    too coarse to tell it from all numbers (chi-squared of 36 million: 184 for 180 degrees of freedom). To draw takes twice as long.

    Args:
        image: any image.
        sigma: deviation of the noise.
        mean: of the noise.
        seed: of the noise.
    """
    import cv2

    normal, kind, top = _normal(image, sigma, mean), _float_type(image), white(image)
    depth = {np.dtype(np.uint8): cv2.CV_8U, np.dtype(np.uint16): cv2.CV_16U}.get(image.dtype)

    def change(strip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if depth is None:
            return from_float(strip + normal(strip.shape, rng), image.dtype)
        if image.dtype == np.uint8:
            large, small = _normal_quantiles()
            noise = np.take(large, rng.integers(0, 2**16, strip.shape, np.uint16), mode="clip")
            noise += cv2.LUT(rng.integers(0, 2**8, strip.shape, np.uint8), small)
        else:
            noise = rng.standard_normal(strip.shape, dtype=kind)
        return cv2.addWeighted(noise, sigma * top, strip, 1.0, mean * top, dtype=depth).reshape(strip.shape)  # rounds and clips

    return _noisy(image, change, seed)


@operation(row="I10", formula="g = f n, n ~ N(mean, sigma^2)")
def multiplicative_noise(image: np.ndarray, sigma: float = 0.1, mean: float = 1.0, seed: int = 0) -> np.ndarray:
    """Multiplicative Gaussian noise: the brighter, the noisier. NumPy.

    Args:
        image: any image.
        sigma: deviation of the factor.
        mean: of the factor.
        seed: of the noise.
    """
    return _factored(image, _normal(image, sigma, mean), seed)


@operation(row="I10", formula="g = f n, n of mean 1 and the given variance")
def speckle(
    image: np.ndarray, variance: float = 0.04, distribution: Literal["gamma", "gaussian", "uniform"] = "gamma", seed: int = 0
) -> np.ndarray:
    """Speckle of coherent light or radar: a factor of mean 1. NumPy.

    Args:
        image: any image.
        variance: of the factor; that of radar is 1 over the number of looks.
        distribution: "gamma": intensity of fully developed speckle (Goodman 1976), never negative; "gaussian" as scikit-image has it,
            "uniform" as MATLAB has it.
        seed: of the noise.
    """
    kind = _float_type(image)
    if within(variance, 0, 100, "variance") < 1e-12:
        return image.copy()
    if distribution == "gaussian":
        return _factored(image, _normal(image, variance**0.5, 1.0), seed)

    def gamma(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        factor: np.ndarray = rng.standard_gamma(1 / variance, shape, dtype=kind)
        factor *= kind(variance)
        return factor

    def uniform(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        factor = rng.random(shape, dtype=kind)
        factor -= kind(0.5)
        factor *= kind((12 * variance) ** 0.5)
        factor += 1
        return factor

    return _factored(image, gamma if distribution == "gamma" else uniform, seed)


@operation(row="I10", formula="g = white with probability amount * salt, 0 with amount * (1 - salt), else f")
def salt_and_pepper(image: np.ndarray, amount: float = 0.05, salt: float = 0.5, seed: int = 0) -> np.ndarray:
    """Salt and pepper: some values become white or black, as of dead pixels and lost bits. NumPy.

    Args:
        image: any image; each channel has its own grains.
        amount: share of the values that are lost.
        salt: share of white ones among them.
        seed: of the noise.
    """
    within(amount, 0, 1, "amount")
    within(salt, 0, 1, "salt")

    def change(strip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draw = rng.random(strip.shape, dtype=np.float32)
        out = np.where(draw < amount, image.dtype.type(0), strip)
        out[draw < amount * salt] = image.dtype.type(white(image))
        return out

    return _noisy(image, change, seed)


@operation(row="I10", formula="g = Poisson(photons f) / photons")
def poisson_noise(image: np.ndarray, photons: float = 255.0, seed: int = 0) -> np.ndarray:
    """Poisson (shot) noise of counted photons: the variance is the brightness over ``photons``. NumPy.

    Args:
        image: any image.
        photons: counted at white, on average.
        seed: of the noise.
    """
    within(photons, 0, 1e9, "photons", open_low=True)
    return _noisy(image, lambda strip, rng: from_float(rng.poisson(to_float(strip) * photons) / photons, image.dtype), seed)


def _float_type(image: np.ndarray) -> type[np.float32] | type[np.float64]:
    return np.float64 if image.dtype == np.float64 else np.float32


def _noisy(image: np.ndarray, change: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int) -> np.ndarray:
    """``change`` of strips of rows, each with its own numbers: the first those of the seed, number k those of (seed, k)."""
    out, parts = np.empty_like(image), strips(len(image), max(1, 2**18 // math.prod(image.shape[1:])))

    def run(k: int) -> None:
        out[parts[k]] = change(image[parts[k]], np.random.default_rng([seed, k] if k else seed))

    in_threads(run, range(len(parts)))
    return out


@functools.cache
def _normal_quantiles() -> tuple[np.ndarray, np.ndarray]:
    """(65536,) and (256,) float32, the middles of equally likely parts of N(0, 15/16) and N(0, 1/16); a sum of both has N(0, 1).

    One table alone has gaps where the numbers are large; the small ones fill them.
    """

    def table(size: int, variance: float) -> np.ndarray:
        values = np.array([NormalDist().inv_cdf((k + 0.5) / size) for k in range(size)])
        return (values * (variance**0.5 / values.std())).astype(np.float32)

    return table(2**16, 15 / 16), table(2**8, 1 / 16)


Draw = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


def _normal(image: np.ndarray, sigma: float, mean: float) -> Draw:
    """What draws normal numbers in an image's float type."""
    kind = _float_type(image)
    within(sigma, 0, 100, "sigma")
    within(mean, -100, 100, "mean")

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        noise: np.ndarray = rng.standard_normal(shape, dtype=kind)
        noise *= kind(sigma)
        noise += kind(mean)
        return noise

    return draw


def _factored(image: np.ndarray, draw: Draw, seed: int) -> np.ndarray:
    """The image times drawn factors."""

    def change(strip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = draw(strip.shape, rng)
        factor *= to_float(strip)
        return from_float(factor, image.dtype)

    return _noisy(image, change, seed)
