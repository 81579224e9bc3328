"""Denoising (canon I11). The mean, weighted mean, median and Gaussian are the filters of :mod:`saccade.image.filters`.

Strengths are in units of the image's range: ``sigma=25 / 255`` is what papers call sigma 25. Bilateral filter, non-local means and total
variation compare colours; the others work on each channel by itself.

Papers: Wiener: Extrapolation, Interpolation, and Smoothing of Stationary Time Series (1949). Lee: Digital Image Enhancement and Noise
Filtering by Use of Local Statistics (PAMI 1980). Tomasi, Manduchi: Bilateral Filtering for Gray and Color Images (ICCV 1998). Buades,
Coll, Morel: A Non-Local Algorithm for Image Denoising (CVPR 2005). Coifman, Donoho: Translation-Invariant De-Noising (1995). Donoho,
Johnstone: Ideal Spatial Adaptation by Wavelet Shrinkage (1994). Chang, Yu, Vetterli: Adaptive Wavelet Thresholding for Image Denoising
and Compression (TIP 2000). Rudin, Osher, Fatemi: Nonlinear Total Variation Based Noise Removal Algorithms (1992). Chambolle: An Algorithm
for Total Variation Minimization and Applications (2004).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from saccade.image.base import (
    BORDERS,
    Border,
    border_names,
    channels,
    each_channel,
    from_float,
    in_strips,
    in_threads,
    odd,
    operation,
    pad,
    stacked,
    strips,
    to_float,
    white,
    within,
)
from saccade.image.filters import Kernel, depth, framed, kernel, strips_within
from saccade.image.frequency import filtered, frequencies
from saccade.types.errors import UsageError

Wavelet = Literal["haar", "db2"]

DENOISERS = (
    "mean",
    "weighted_mean",
    "median",
    "gaussian",
    "wiener",
    "adaptive_wiener",
    "bilateral",
    "non_local_means",
    "wavelet_shrinkage",
    "total_variation",
)
"""The operations that denoise, by name."""

_WAVELETS = {
    "haar": np.array([1, 1]) / 2**0.5,
    "db2": np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5),
}
"""Orthonormal low-pass filters: Haar's, and Daubechies' with two vanishing moments."""


# ----------------------------------------------------------------------------------------------------------------- Wiener


@operation(row="I11", formula="F = conj(H) G / (|H|^2 + K), K = noise power / signal power")
def wiener(
    image: np.ndarray,
    degradation: Kernel = "identity",
    noise_to_signal: float | None = None,
    sigma: float | None = None,
    border: Border = "replicate",
) -> np.ndarray:
    """Wiener's filter: undoes a known blur as far as the noise allows. Ours, on SciPy's transforms.

    Args:
        image: any image.
        degradation: the kernel that blurred it, as :func:`saccade.image.filters.kernel` takes it ("motion:9:45", rows of numbers);
            "identity": only noise is removed.
        noise_to_signal: K, the same for all frequencies: 0.01 unless sigma is given. Without a blur a K alone would only darken: there,
            by default, sigma is estimated (:func:`estimate_sigma`).
        sigma: deviation of the noise. When given, K differs by frequency: the signal's power is taken to fall with the frequency
            squared, as that of natural images does (Field 1987), and to explain the image's variance beyond the noise's.
        border: a transform sees the image as periodic: other borders than "wrap" are laid around it first, blurred more and more
            towards their ends so that these meet, and cut off afterwards. "replicate" rings least.

    For any transfer function and powers at all frequencies use :func:`wiener_filter`.
    """
    weights = kernel(degradation)
    blurs = np.count_nonzero(weights) > 1
    if noise_to_signal is not None:
        within(noise_to_signal, 0, 1e9, "noise_to_signal")
    elif sigma is None and not blurs:
        estimated = float(np.mean(estimate_sigma.__wrapped__(image)))  # type: ignore[attr-defined]
        sigma, noise_to_signal = (estimated, None) if estimated > 1e-6 else (None, 0.0)
    reach = tuple(4 * side if blurs else 16 for side in weights.shape) if border_names(border) != BORDERS["wrap"] else (0, 0)
    height, width = image.shape[:2]
    shape = (height + 2 * reach[0], width + 2 * reach[1])
    transfer = _transfer_rows(weights, shape)
    inside = [_ramp(side, edge) for side, edge in zip(shape, reach, strict=True)]

    def restore(channel: np.ndarray) -> np.ndarray:
        wide = pad(channel, (reach[0],) * 2, (reach[1],) * 2, border) if any(reach) else channel
        curve = 0.0 if sigma is None else _natural_power(wide, sigma, transfer)

        def taper(blurred: np.ndarray, rows: slice) -> np.ndarray:
            share = np.outer(inside[0][rows], inside[1]).astype(blurred.dtype)
            return share * to_float(wide[rows]) + (1 - share) * blurred

        def inverse(rows: slice) -> np.ndarray:
            k = (0.01 if noise_to_signal is None else noise_to_signal) if sigma is None else curve * frequencies(shape, rows) ** 2
            return _wiener_gain(transfer(rows), k)

        tapered = filtered(wide, lambda rows: transfer(rows) ** 4, taper) if blurs and reach[0] else wide
        middle = slice(reach[1], reach[1] + width)
        return filtered(tapered, inverse, lambda x, _: from_float(x[:, middle], image.dtype))[reach[0] : reach[0] + height]

    return each_channel(image, restore)


def _ramp(size: int, edge: int) -> np.ndarray:
    """Rises smoothly from 0 to 1 over ``edge`` values from both ends."""
    place = np.arange(size)
    share = np.minimum(np.minimum(place, place[::-1]) / max(edge, 1), 1) if edge else np.ones(size)
    return share**2 * (3 - 2 * share)


def wiener_filter(image: np.ndarray, transfer: np.ndarray, noise_to_signal: np.ndarray | float) -> np.ndarray:
    """``conj(H) / (|H|^2 + K)`` applied to the spectrum of a float image; periodic, not clipped.

    Args:
        image: (H, W) float.
        transfer: H, (H, W // 2 + 1) complex, of the half spectrum as ``rfft2`` orders it (see :func:`transfer_function`).
        noise_to_signal: K of every frequency, or one for all. Where H and K are 0, nothing is restored.
    """
    if np.shape(transfer) != (image.shape[0], image.shape[1] // 2 + 1):
        raise UsageError(
            f"the transfer function of a {image.shape} image is {(image.shape[0], image.shape[1] // 2 + 1)}, not {np.shape(transfer)}"
        )
    gain = _wiener_gain(transfer, noise_to_signal)
    return filtered(image, lambda rows: gain[rows])


def _wiener_gain(transfer: np.ndarray, noise_to_signal: np.ndarray | float) -> np.ndarray:
    below = np.square(transfer.real) + np.square(transfer.imag) + noise_to_signal
    if not (below >= 0).all():
        raise UsageError("noise_to_signal is at least 0 at every frequency")
    return np.conj(transfer) / np.where(below > 0, below, np.inf)


def transfer_function(weights: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W // 2 + 1) complex: what correlation with a kernel does to each frequency of a periodic image of a size.

    >>> transfer_function(np.array([[0.25, 0.5, 0.25]]), (1, 4)).real.round(6).tolist()
    [[1.0, 0.5, 0.0]]
    """
    return _transfer_rows(weights, shape)(slice(None))


def _transfer_rows(weights: np.ndarray, shape: tuple[int, int]) -> Callable[[slice], np.ndarray]:
    """Rows of :func:`transfer_function`, each weight at (y, x) times exp(2 pi i (u y + v x))."""
    y, x = (np.arange(n) - n // 2 for n in weights.shape)
    down = np.exp(2j * np.pi * np.fft.fftfreq(shape[0])[:, None] * y) @ weights
    right = np.exp(2j * np.pi * np.fft.rfftfreq(shape[1]) * x[:, None])
    return lambda rows: down[rows] @ right


def natural_noise_to_signal(image: np.ndarray, sigma: float, transfer: np.ndarray | None = None) -> np.ndarray:
    """(H, W // 2 + 1): K at every frequency for noise of deviation sigma, if the signal's power falls with the frequency squared.

    Args:
        image: (H, W) float, degraded.
        sigma: deviation of its noise.
        transfer: what degraded it, as of :func:`transfer_function`.
    """
    given = np.ones((1, 1)) if transfer is None else np.asarray(transfer)
    curve = _natural_power(image, sigma, lambda rows: given if transfer is None else given[rows])
    return curve * frequencies(image.shape[:2]) ** 2


def _natural_power(image: np.ndarray, sigma: float, transfer: Callable[[slice], np.ndarray]) -> float:
    """What the squared frequency is multiplied by in :func:`natural_noise_to_signal`."""
    import cv2

    within(sigma, 1e-6, 100, "sigma")
    height, width = image.shape
    twice = np.full(width // 2 + 1, 2.0)  # a half spectrum has most frequencies once that the whole has twice
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    power, rows = 0.0, max(1, 2**18 // width)
    for top in range(0, height, rows):
        strip = slice(top, top + rows)
        f = frequencies((height, width), strip)
        with np.errstate(divide="ignore"):
            power += float((np.where(f > 0, f**-2.0, 0) * np.abs(transfer(strip)) ** 2 * twice).sum())
    deviation = float(cv2.meanStdDev(image)[1][0, 0]) / white(image)
    variance = max(deviation**2 - sigma**2, 1e-8)
    return sigma**2 * power / image.size / variance


@operation(row="I11", formula="g = m + max(v - n, 0) / max(v, n) (f - m), m and v of the window, n of the noise")
def adaptive_wiener(image: np.ndarray, size: int = 5, sigma: float | None = None, border: Border = "reflect") -> np.ndarray:
    """Wiener's filter with local statistics: smooths even ground, leaves edges. OpenCV's window sums; the same as SciPy's ``wiener``.

    Args:
        image: any image.
        size: side of the window, odd.
        sigma: deviation of the noise; by default the mean of the local variances is taken for the noise's.
        border: what lies outside.
    """
    import cv2

    odd(size)
    if sigma is not None:
        within(sigma, 0, 100, "sigma")
    reach, kind = size // 2, to_float(image[:1, :1]).dtype.type

    def moments(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        average = framed(f, (reach, reach), border, lambda x, b: cv2.blur(x, (size, size), borderType=b))
        square = framed(f, (reach, reach), border, lambda x, b: cv2.sqrBoxFilter(x, depth(f), (size, size), normalize=True, borderType=b))
        return average, np.maximum(square - average**2, 0)

    if sigma is None:  # a first pass, so that no floats of the whole image are kept
        rows = strips_within(image, lambda x: moments(to_float(x))[1].mean(1, dtype=np.float64), reach, border)
        noise = rows.mean(0).astype(kind)
    else:
        noise = kind(sigma**2)

    def change(strip: np.ndarray) -> np.ndarray:
        f = to_float(strip)
        average, variance = moments(f)
        gain = np.maximum(variance - noise, 0) / np.maximum(np.maximum(variance, noise), kind(1e-12))
        return from_float(average + gain * (f - average), image.dtype)

    return strips_within(image, change, reach, border)


# ------------------------------------------------------------------------------------------------- edge-keeping means


@operation(row="I11", formula="g = sum(w f) / sum(w), w = exp(-d_space^2 / (2 s^2) - d_colour^2 / (2 c^2))")
def bilateral(
    image: np.ndarray, sigma_color: float = 0.1, sigma_space: float = 3.0, size: int | None = None, border: Border = "reflect"
) -> np.ndarray:
    """The mean of what is near and alike: edges stay. OpenCV's bilateralFilter (a round window; 16 bits and floats as float32).

    Args:
        image: any image.
        sigma_color: deviation of the colour, in units of the range; of RGB the sum of the channels' differences.
        sigma_space: deviation of the distance, in pixels.
        size: diameter of the window, odd; 1.5 sigma_space to each side by default.
        border: what lies outside.
    """
    import cv2

    within(sigma_color, 0, 100, "sigma_color", open_low=True)
    within(sigma_space, 0, 1e3, "sigma_space", open_low=True)
    size = 2 * max(1, int(1.5 * sigma_space + 0.5)) + 1 if size is None else odd(size)
    if size == 1:
        return image.copy()
    f, scale = (image, 255.0) if image.dtype == np.uint8 else (to_float(image).astype(np.float32), 1.0)
    out = framed(f, (size // 2,) * 2, border, lambda x, b: cv2.bilateralFilter(x, size, sigma_color * scale, sigma_space, borderType=b))
    return out if image.dtype == np.uint8 else from_float(out, image.dtype)


@operation(row="I11", formula="g(p) = sum_q w f(q) / sum w, w = exp(-|patch(p) - patch(q)|^2 / h^2)")
def non_local_means(image: np.ndarray, h: float = 0.08, patch: int = 7, search: int = 21) -> np.ndarray:
    """The mean of the pixels whose surroundings look alike. uint8: OpenCV; else ours on OpenCV's window means.

    The distance of two patches is the mean squared difference over pixels and channels. Outside the image lies its mirror image.
    (scikit-image's fast mode compares patches that are a row and a column short.)

    Args:
        image: any image.
        h: strength, in units of the range: about the noise's sigma.
        patch: side of the patches, odd.
        search: side of the window in which they are looked for, odd.
    """
    within(h, 1e-4, 100, "h")
    odd(int(within(patch, 1, 63, "patch")), "patch")
    odd(int(within(search, 1, 255, "search")), "search")
    if image.dtype != np.uint8:
        return from_float(_non_local(to_float(image), h, patch // 2, search // 2), image.dtype)
    import cv2

    out: np.ndarray = cv2.fastNlMeansDenoising(image, None, h * 255, patch, search)
    return out


def _non_local(image: np.ndarray, h: float, reach: int, far: int) -> np.ndarray:
    """Non-local means of a float image: for each displacement the distances of all patches at once, as a window's mean."""
    import cv2

    height, width = image.shape[:2]
    side, edge = 2 * reach + 1, reach + far
    wide = pad(image, (edge, edge), (edge, edge), "reflect")
    middle = wide[far : far + height + 2 * reach, far : far + width + 2 * reach]
    total, weights = np.zeros_like(image), np.zeros((height, width), image.dtype)
    for dy in range(2 * far + 1):
        for dx in range(2 * far + 1):
            other = wide[dy : dy + height + 2 * reach, dx : dx + width + 2 * reach]
            squares = np.square(middle - other)
            distance = cv2.blur(squares if image.ndim == 2 else squares.mean(-1), (side, side))
            weight = cv2.exp(distance[reach : reach + height, reach : reach + width] * (-1 / h**2))
            weights += weight
            total += (weight if image.ndim == 2 else weight[..., None]) * other[reach : reach + height, reach : reach + width]
    return total / (weights if image.ndim == 2 else weights[..., None])


# ---------------------------------------------------------------------------------------------------------------- wavelet


@operation(row="I11", formula="coefficients c of each band: sign(c) max(|c| - t, 0), t = s_noise^2 / s_signal")
def wavelet_shrinkage(image: np.ndarray, sigma: float | None = None, levels: int = 4, wavelet: Wavelet = "haar") -> np.ndarray:
    """Soft thresholds on a translation-invariant wavelet transform, chosen for each band (BayesShrink). Ours, on NumPy.

    All shifts of the orthonormal transform are denoised and averaged (cycle spinning), in one undecimated transform.

    Args:
        image: any image.
        sigma: deviation of the noise; estimated by :func:`estimate_sigma`, for each channel, if not given.
        levels: of the transform, 1 to 8; no more than halve the longer side to a pixel.
        wavelet: "haar" or "db2" (Daubechies, two vanishing moments).
    """
    levels = min(int(within(levels, 1, 8, "levels")), max(1, math.ceil(math.log2(max(image.shape[:2])))))
    if sigma is not None:
        within(sigma, 0, 100, "sigma")
    low = _WAVELETS[wavelet]
    steps = [2**level for level in range(levels)]
    reach, far = (len(low) - 1) * steps[-1], (len(low) - 1) * sum(steps)
    noises = [_sigma(c) for c in channels(image)] if sigma is None else [sigma] * (image.shape[2] if image.ndim == 3 else 1)

    def shrink(channel: np.ndarray, noise: float) -> np.ndarray:
        wide = pad(channel, (reach, reach), (reach, reach), "symmetric")
        height, width = wide.shape
        around = np.arange(-far, width + far) % width  # periodic

        def analysed(top: int, bottom: int, before: int = 0) -> tuple[np.ndarray, list[list[np.ndarray]]]:
            """The coarsest means and each level's details of rows top - before to bottom, and of columns from -before on."""
            rows = np.arange(top - before, bottom + far) % height
            smooth, bands = to_float(np.ascontiguousarray(wide[rows][:, around[far - before :]])), []
            for step in steps:
                smooth, *details = _analysed(smooth, low, step)
                bands.append(details)
            return smooth, bands

        # Twice in strips, first for the bands' energy: the coefficients of a whole image would take 12 floats a pixel.
        parts = strips(height, max(4 * far if far < 64 else far, 2**17 // width))
        run = in_threads if far < 64 else lambda function, parts: [function(part) for part in parts]

        def squares(rows: slice) -> list[list[float]]:
            _, bands = analysed(rows.start, rows.stop)
            size = (slice(rows.stop - rows.start), slice(width))
            return [[float(np.square(d[size]).sum(dtype=np.float64)) for d in details] for details in bands]

        energy = np.sum(run(squares, parts), axis=0) / wide.size
        out = np.empty(channel.shape, image.dtype)

        def rebuild(rows: slice) -> None:
            top, bottom = rows.start, rows.stop
            smooth, bands = analysed(top, bottom, far)
            kept = 0  # rows and columns of the bands that the synthesis so far has used up
            for level in reversed(range(levels)):
                details = [d[kept : kept + smooth.shape[0], kept : kept + smooth.shape[1]] for d in bands.pop()]
                details = [_shrunk(d, noise / 2 ** (level + 1), e) for d, e in zip(details, energy[level], strict=True)]
                smooth = _synthesised([smooth, *details], low, steps[level])
                kept += (len(low) - 1) * steps[level]
            first, last = max(top, reach), min(bottom, reach + len(out))
            if first < last:
                part = smooth[first - top : last - top, reach : reach + out.shape[1]]
                out[first - reach : last - reach] = from_float(part, image.dtype)

        run(rebuild, parts)
        return out

    return stacked([shrink(c, noise) for c, noise in zip(channels(image), noises, strict=True)], image)


@operation(row="I11", formula="sigma = median |diagonal coefficients of the finest level| / 0.6745", gives="value")
def estimate_sigma(image: np.ndarray) -> float | list[float]:
    """The deviation of Gaussian noise in an image, of each channel (Donoho, Johnstone 1994). Ours, on OpenCV's filter.

    Args:
        image: any image. Fine texture counts as noise.
    """
    return [_sigma(c) for c in channels(image)] if image.ndim == 3 else _sigma(image)


def _sigma(channel: np.ndarray) -> float:
    import cv2

    high = _high(_WAVELETS["db2"]) / 2**0.5

    def diagonal(strip: np.ndarray) -> np.ndarray:
        f = to_float(strip)
        return np.abs(cv2.sepFilter2D(f, depth(f), high, high, anchor=(2, 2), borderType=BORDERS["symmetric"].opencv))

    return float(np.median(in_strips(channel, diagonal, 3), overwrite_input=True)) * 2 / 0.6745


def _shrunk(band: np.ndarray, noise: float, energy: float) -> np.ndarray:
    """Soft threshold of a band whose noise has the given deviation, and whose mean square is ``energy``."""
    signal = math.sqrt(max(energy - noise**2, 0))
    if not signal:
        return np.zeros_like(band)
    threshold = band.dtype.type(noise**2 / signal)
    return band - np.clip(band, -threshold, threshold)


def _high(low: np.ndarray) -> np.ndarray:
    """The wavelet's filter of an orthonormal low-pass: turned, every other sign changed."""
    return low[::-1] * (-1.0) ** np.arange(len(low))


def _taps(values: np.ndarray, taps: np.ndarray, step: int, axis: int) -> np.ndarray:
    """``sum_k taps[k] values[n + k step]`` where all of them are within."""
    import cv2

    size = values.shape[axis] - (len(taps) - 1) * step
    parts = [values[k * step : k * step + size] if axis == 0 else values[:, k * step : k * step + size] for k in range(len(taps))]
    out = cv2.addWeighted(parts[0], taps[0], parts[1], taps[1], 0)
    for part, tap in zip(parts[2:], taps[2:], strict=True):
        out = cv2.scaleAdd(part, tap, out)
    return out.reshape(parts[0].shape)


def _analysed(values: np.ndarray, low: np.ndarray, step: int) -> list[np.ndarray]:
    """Four bands (low-low, low-high, high-low, high-high) of all shifts; a coefficient is half the orthonormal one."""
    filters = [low / 2**0.5, _high(low) / 2**0.5]
    rows = [_taps(values, f, step, 0) for f in filters]
    return [_taps(r, f, step, 1) for r in rows for f in filters]


def _synthesised(bands: list[np.ndarray], low: np.ndarray, step: int) -> np.ndarray:
    """The mean over all shifts of what the bands rebuild: the transpose of :func:`_analysed`, which inverts it."""
    filters = [f[::-1] / 2**0.5 for f in (low, _high(low))]
    rows = [_taps(bands[2 * k], filters[0], step, 1) + _taps(bands[2 * k + 1], filters[1], step, 1) for k in (0, 1)]
    return _taps(rows[0], filters[0], step, 0) + _taps(rows[1], filters[1], step, 0)


# -------------------------------------------------------------------------------------------------------- total variation


@operation(row="I11", formula="g = argmin_u sum |grad u| + |u - f|^2 / (2 weight)")
def total_variation(image: np.ndarray, weight: float = 0.1, iterations: int = 200) -> np.ndarray:
    """The nearest image of little total variation: even pieces with sharp edges. scikit-image's denoise_tv_chambolle.

    Args:
        image: any image.
        weight: the greater, the smoother; in units of the range.
        iterations: at most so many; it stops earlier where the energy hardly changes.
    """
    from skimage.restoration import denoise_tv_chambolle

    within(weight, 1e-6, 1e3, "weight")
    within(iterations, 1, 100_000, "iterations")
    # its own limit (2e-4) stops strong smoothing far from the minimum
    axis = -1 if image.ndim == 3 else None
    out = denoise_tv_chambolle(to_float(image), weight, eps=2e-5, max_num_iter=iterations, channel_axis=axis)
    return from_float(out, image.dtype)
