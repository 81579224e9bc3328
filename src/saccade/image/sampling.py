"""Sampling and quantisation: how many pixels, how many grey levels (CANON rows I1, I2).

Pixel k of a row of n covers [k, k + 1); its centre is at k + 0.5. Resizing maps centres on centres of the same picture ("half-pixel
centres"), so a picture's borders stay where they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from saccade.image.base import clipped, in_range, look_up, operation, white, within
from saccade.image.point import level_counts
from saccade.types.errors import UsageError

Method = Literal["nearest", "bilinear", "bicubic", "area"]
Rule = Literal["round", "truncate"]

MAX_SIDE = 32_766
"""Longest side that OpenCV's resampling takes."""


def new_size(size: tuple[int, int]) -> tuple[int, int]:
    """A (height, width) that can be made.

    Raises:
        UsageError: a side is below 1 or too long.
    """
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise UsageError(f"a size is height,width of 1 to {MAX_SIDE} pixels, not {size[0]},{size[1]}")
    return size


@operation(row="I1", formula="g(y, x) = f((y + 1/2) H/H' - 1/2, (x + 1/2) W/W' - 1/2), interpolated", alpha="apply")
def resize(image: np.ndarray, size: tuple[int, int], method: Method = "bilinear", antialias: bool = False) -> np.ndarray:
    """Resample to (height, width), half-pixel centres.

    OpenCV: INTER_NEAREST_EXACT, INTER_LINEAR, INTER_CUBIC (Keys' kernel, a = -0.75; overshoot is clipped), INTER_AREA (means of the pixels
    covered; going up it is bilinear between blocks). Its 8-bit weights are fixed-point: within one level of the exact value.

    Args:
        image: any.
        size: (height, width) of the result.
        method: how values between pixels are made.
        antialias: going down, blur first with a Gaussian of sigma (H/H' - 1) / 2 an axis, as scikit-image does (not for "area", which
            averages anyway).

    >>> resize(np.array([[5, 11], [10, 15]]) / 255.0, (4, 4))[0] * 255
    array([ 5. ,  6.5,  9.5, 11. ])
    """
    import cv2

    height, width = new_size(size)
    if max(image.shape[:2]) > MAX_SIDE:
        raise UsageError(f"resize takes images with sides up to {MAX_SIDE} pixels")
    if antialias and method != "area":
        sigma = [max(0.0, (old / new - 1) / 2) for old, new in zip(image.shape[:2], (height, width), strict=True)]
        image = _blurred(image, sigma[0], sigma[1])
    code = {"nearest": cv2.INTER_NEAREST_EXACT, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}[method]
    out = cv2.resize(image, (width, height), interpolation=code)
    return clipped(out)


def _blurred(image: np.ndarray, sigma_y: float, sigma_x: float) -> np.ndarray:
    """Gaussian, cut at 4 sigma; sigma 0 leaves an axis alone."""
    import cv2

    def taps(sigma: float) -> np.ndarray:
        radius = int(4 * sigma + 0.5)
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if sigma > 0 else np.ones(1)
        return weights / weights.sum()

    return cv2.sepFilter2D(image, -1, taps(sigma_x), taps(sigma_y), borderType=cv2.BORDER_REPLICATE)


@operation(row="I1", formula="g(y, x) = (G_sigma * f)(k y, k x)", alpha="apply")
def downsample(image: np.ndarray, factor: int = 2, prefilter: bool = True, sigma: float | None = None) -> np.ndarray:
    """Keep every ``factor``-th pixel of every ``factor``-th row, after a Gaussian blur or, to show aliasing, without.

    A pattern of more than 1 / (2 factor) cycles a pixel (Nyquist) cannot be told from a slower one afterwards; the blur takes it away
    first. NumPy's slicing; OpenCV blurs.

    Args:
        image: any.
        factor: at least 1.
        prefilter: blur first.
        sigma: of the blur in pixels; None: factor / 2.

    >>> stripes = np.tile(np.array([0, 255], np.uint8), (1, 8))
    >>> downsample(stripes, 2, prefilter=False)[0, 2:6].tolist(), downsample(stripes, 2)[0, 2:6].tolist()
    ([0, 0, 0, 0], [126, 126, 126, 126])
    """
    within(factor, 1, MAX_SIDE, "factor")
    if sigma is not None:
        within(sigma, 0, MAX_SIDE, "sigma", open_low=True)
    if prefilter and factor > 1:
        spread = factor / 2 if sigma is None else sigma
        image = clipped(_blurred(image, spread, spread))
    return image[::factor, ::factor]


@operation(row="I1", formula="g(y, x) = f((y + 1/2)/k - 1/2, (x + 1/2)/k - 1/2), interpolated", alpha="apply")
def upsample(image: np.ndarray, factor: int = 2, method: Method = "bilinear") -> np.ndarray:
    """``factor`` times as many rows and columns, half-pixel centres. OpenCV, as :func:`resize`.

    >>> upsample(np.array([[5, 11], [10, 15]], np.uint8), 2, "nearest").tolist()
    [[5, 5, 11, 11], [5, 5, 11, 11], [10, 10, 15, 15], [10, 10, 15, 15]]
    """
    if factor < 1:
        raise UsageError(f"factor is a whole number from 1, not {factor}")
    size = (image.shape[0] * factor, image.shape[1] * factor)
    return np.asarray(resize.__wrapped__(image, size, method))  # type: ignore[attr-defined]


@operation(row="I1", formula="g(y, x) = f(k floor(y/k) + floor(k/2), k floor(x/k) + floor(k/2)), or the block's mean", alpha="apply")
def pixelate(image: np.ndarray, factor: int = 8, mean: bool = False) -> np.ndarray:
    """The picture at 1 / ``factor`` of its resolution, shown at its own size: blocks of one value. NumPy.

    Args:
        image: any.
        factor: side of a block in pixels, at least 1; blocks at the right and lower border may be smaller.
        mean: blocks show their mean; else the pixel in their middle.

    >>> pixelate(np.array([[0, 10, 20, 30, 40]], np.uint8), 3).tolist()
    [[10, 10, 10, 40, 40]]
    """
    within(factor, 1, MAX_SIDE, "factor")
    height, width = image.shape[:2]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    if mean:
        sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0, dtype=np.float64), columns, axis=1)
        counts = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
        small = in_range(sums / (counts if image.ndim == 2 else counts[..., None]), image.dtype)
    else:
        middle = [np.minimum(at + factor // 2, side - 1) for at, side in ((rows, height), (columns, width))]
        small = image[np.ix_(*middle)]
    return small.repeat(factor, axis=0)[:height].repeat(factor, axis=1)[:, :width]


def alias(frequency: float, factor: int = 1) -> float:
    """The frequency, in cycles a pixel, at which a pattern appears after every ``factor``-th pixel was kept: 0..0.5 (Nyquist).

    >>> alias(0.1, 2), round(alias(0.4, 2), 6), alias(0.5, 2)
    (0.2, 0.2, 0.0)
    """
    turns = abs(frequency) * factor % 1.0
    return min(turns, 1.0 - turns)


def zone_plate(size: int = 256) -> np.ndarray:
    """(size, size) float64 test picture: rings whose frequency grows from 0 in the middle to Nyquist at the middle of each side.

    ``(1 + cos(pi r^2 / size)) / 2`` with r the distance from the centre. Sub-sampled without a blur it shows false rings.

    Raises:
        UsageError: ``size`` is less than 1.
    """
    if size < 1:
        raise UsageError(f"size is at least 1, not {size}")
    at = np.arange(size) - (size - 1) / 2
    return np.asarray((1 + np.cos(np.pi * (at[:, None] ** 2 + at**2) / size)) / 2)


def _checked_levels(levels: int) -> int:
    if not 2 <= levels <= 256:
        raise UsageError(f"levels is a whole number in 2..256, not {levels}")
    return levels


def _quantized(image: np.ndarray, levels: int, rule: Rule) -> np.ndarray:
    top = white(image) if image.dtype.kind == "u" else 255.0
    step = top / (levels - 1) if rule == "round" else (top + 1) / levels
    if image.dtype.kind == "f":
        if rule == "round":
            return np.rint(image * (levels - 1)) / (levels - 1)
        digits = 4 * levels * np.finfo(image.dtype).eps  # a level itself stays, though its product falls short of the whole number
        return np.floor(image * image.dtype.type(top / step) + image.dtype.type(digits)) * image.dtype.type(step / top)
    place = np.arange(top + 1) / step
    table = np.rint(np.rint(place) * step) if rule == "round" else np.ceil(np.floor(place) * step)
    return look_up(image, table.astype(image.dtype))


@operation(row="I2", formula="round: q = s rint(x/s), s = (L-1)/(n-1); truncate: q = s floor(x/s), s = L/n")
def quantize(image: np.ndarray, levels: int = 8, rule: Rule = "round") -> np.ndarray:
    """Only ``levels`` equally spaced values. A table of levels (OpenCV's LUT), NumPy for floats.

    "round" (mid-tread; black and white are among the levels) errs by at most half a step, "truncate" always downwards and by less than a
    step. L is 256, or 65536 for uint16; floats count as 0..255 in fractions. In integer images a level that is no whole number is
    rounded ("round") or the next whole number ("truncate": the least value of its bin).

    >>> float(quantize(np.array([[78.93 / 255]]), 256, "truncate")[0, 0] * 255)
    78.0
    >>> quantize(np.array([[0, 63, 64, 255]], np.uint8), 2, "truncate").tolist(), quantize(np.array([[127, 128]], np.uint8), 2).tolist()
    ([[0, 0, 0, 128]], [[0, 255]])
    """
    return _quantized(image, _checked_levels(levels), rule)


@operation(row="I2", formula="e = x - q(x)", gives="value")
def quantization_error(image: np.ndarray, levels: int = 8, rule: Rule = "round") -> dict[str, float]:
    """What :func:`quantize` loses, in grey levels of the image's dtype (0..255 for floats): step, greatest, mean and RMS error.

    For values spread evenly, the RMS error is step / sqrt(12) by rounding and step / sqrt(3) by truncation. NumPy.

    >>> quantization_error(np.arange(256, dtype=np.uint8)[None], 256, "truncate")
    {'step': 1.0, 'max': 0.0, 'mean': 0.0, 'rms': 0.0}
    """
    _checked_levels(levels)
    top = white(image) if image.dtype.kind == "u" else 255.0
    step = top / (levels - 1) if rule == "round" else (top + 1) / levels
    if image.dtype.kind == "u":  # each level once, as often as it occurs
        values = np.arange(top + 1, dtype=image.dtype)
        counts = level_counts(image)
        values, counts = values[counts > 0], counts[counts > 0]
    else:
        values, counts = image.reshape(-1), None
    error = values.astype(np.float64) - _quantized(values, levels, rule)
    error *= top / white(image)
    return {
        "step": step,
        "max": float(np.abs(error).max()),
        "mean": float(np.average(error, weights=counts)),
        "rms": float(np.sqrt(np.average(np.square(error), weights=counts))),
    }
