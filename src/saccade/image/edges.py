"""Edge detectors (canon I9): maps of one channel, of the image's dtype. Colour is turned to grey (BT.601) first.

``threshold=None`` gives the **strength** of each pixel's edge in 0..1 of the range, a number a binary map: white where the strength
is greater. ``thin=True`` keeps only the pixels whose gradient is greatest across the edge (Canny's non-maximum suppression).

Strengths of the gradient operators are ``sqrt((gx^2 + gy^2) / 2)`` with weights across that sum to 1, as scikit-image has them: at most 1.
Canny's thresholds and Marr-Hildreth's are on scales of their own, which their functions state.

Papers: Roberts: Machine Perception of Three-Dimensional Solids (1963). Prewitt: Object Enhancement and Extraction (1970). Sobel,
Feldman (1968). Marr, Hildreth: Theory of Edge Detection (1980). Canny: A Computational Approach to Edge Detection (PAMI 1986).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from saccade.image.base import LARGEST_WINDOW, Border, from_float, luma, operation, white, within
from saccade.image.filters import (
    DERIVATIVES,
    Output,
    depth,
    derivative,
    framed,
    gaussian_weights,
    laplacian_kernel,
    length,
    signed,
    smooth,
    strips_within,
)
from saccade.types.errors import UsageError

CANNY_STAGES = ("smoothed", "magnitude", "direction", "thin", "edges")
"""What :func:`canny_stages` gives, in order."""


@operation(row="I9", formula="sqrt((gx^2 + gy^2) / 2), Prewitt's gx, gy")
def prewitt_edges(image: np.ndarray, threshold: float | None = None, thin: bool = False, border: Border = "reflect") -> np.ndarray:
    """Edges by Prewitt's operator. OpenCV's filters.

    Args:
        image: any image.
        threshold: of the strength in 0..1; none gives the strength.
        thin: suppress what is no maximum across the edge.
        border: what lies outside.
    """
    return _gradient_edges(image, "prewitt", threshold, thin, border)


@operation(row="I9", formula="sqrt((gx^2 + gy^2) / 2), Sobel's gx, gy")
def sobel_edges(image: np.ndarray, threshold: float | None = None, thin: bool = False, border: Border = "reflect") -> np.ndarray:
    """Edges by Sobel's operator. OpenCV's filters.

    Args:
        image: any image.
        threshold: of the strength in 0..1; none gives the strength.
        thin: suppress what is no maximum across the edge.
        border: what lies outside.
    """
    return _gradient_edges(image, "sobel", threshold, thin, border)


@operation(row="I9", formula="sqrt((gx^2 + gy^2) / 2), Scharr's gx, gy")
def scharr_edges(image: np.ndarray, threshold: float | None = None, thin: bool = False, border: Border = "reflect") -> np.ndarray:
    """Edges by Scharr's operator. OpenCV's filters.

    Args:
        image: any image.
        threshold: of the strength in 0..1; none gives the strength.
        thin: suppress what is no maximum across the edge.
        border: what lies outside.
    """
    return _gradient_edges(image, "scharr", threshold, thin, border)


@operation(row="I9", formula="sqrt((gx^2 + gy^2) / 2), Roberts' diagonal differences")
def roberts_edges(image: np.ndarray, threshold: float | None = None, border: Border = "reflect") -> np.ndarray:
    """Edges by Roberts' cross. OpenCV's filters.

    Args:
        image: any image.
        threshold: of the strength in 0..1; none gives the strength.
        border: what lies outside.
    """
    return _gradient_edges(image, "roberts", threshold, False, border)


@operation(row="I9", formula="|Laplacian| / N")
def laplacian_edges(
    image: np.ndarray, neighbours: Literal[4, 8] = 8, threshold: float | None = None, border: Border = "reflect"
) -> np.ndarray:
    """Edges where the Laplacian is large: lines and points, and both sides of a step. OpenCV's filter2D.

    Args:
        image: any image.
        neighbours: 4 or 8.
        threshold: of the strength in 0..1; none gives the strength.
        border: what lies outside.
    """
    import cv2

    weights = laplacian_kernel(neighbours)

    def change(grey: np.ndarray) -> np.ndarray:
        response = framed(grey, (1, 1), border, lambda x, b: cv2.filter2D(x, depth(x), weights, borderType=b))
        return _map(np.abs(response) / np.float32(neighbours * white(grey)), threshold, grey)

    return strips_within(luma(image), change, 1, border)


@operation(row="I9", formula="((x^2 + y^2 - 2 v) / sigma^4) G(x, y; sigma) * f")
def laplacian_of_gaussian(image: np.ndarray, sigma: float = 2.0, border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """The Laplacian of the smoothed image (LoG), in one step. OpenCV's separable filters.

    v is sigma^2 up to the sampling: the variance of the sampled kernel, so that even ground gives exactly 0.

    Args:
        image: any image; each channel by itself.
        sigma: of the Gaussian, in pixels.
        border: what lies outside.
        output: "same" (absolute) or "float" (signed).
    """
    return strips_within(image, lambda x: signed(_log(x, sigma, border), x, output), _reach(sigma), border)


@operation(row="I9", formula="zero crossings of LoG(f) whose jump sigma^2 |LoG(p) - LoG(q)| is above the threshold")
def marr_hildreth(image: np.ndarray, sigma: float = 4.0, threshold: float | None = 0.016, border: Border = "reflect") -> np.ndarray:
    """Marr and Hildreth's edges: where the Laplacian of the Gaussian changes its sign. Ours on OpenCV's separable filters.

    Of two neighbours (left and right, above and below) of different sign, the one nearer to 0 is the edge; its strength is the jump
    between them times sigma^2, a scale on which steps of the same height have about the same strength for every sigma. A step from
    black to white has about 0.4 / sigma. The defaults are chosen as :func:`canny`'s are.

    Args:
        image: any image.
        sigma: of the Gaussian, in pixels.
        threshold: least strength; none gives the strength (cut at 1).
        border: what lies outside.
    """

    def change(grey: np.ndarray) -> np.ndarray:
        return _map(zero_crossings(_log(grey, sigma, border) * np.float32(sigma**2 / white(grey))), threshold, grey)

    return strips_within(luma(image), change, _reach(sigma) + 1, border)


@operation(row="I9", formula="hysteresis(non-maximum suppression(|Sobel(G(sigma) * f)|))")
def canny(image: np.ndarray, sigma: float = 3.0, low: float = 0.08, high: float = 0.2, border: Border = "replicate") -> np.ndarray:
    """Canny's edges: Gaussian, gradient, non-maximum suppression, hysteresis. OpenCV's, but the smoothed image is not rounded to 8 bits.

    The defaults agree best with what people draw on eight images of BSDS500 (``benchmarks/edges.py``); fine texture wants a smaller sigma.

    Args:
        image: any image.
        sigma: of the Gaussian, in pixels; 0 for none.
        low: least magnitude of an edge's pixel that is connected to a strong one.
        high: least magnitude of a strong pixel. Both are in units of Sobel's 3x3 kernel and the image's range: OpenCV's thresholds
            divided by 255.
        border: what lies outside.
    """
    grey = luma(image)
    dx, dy, unit = _smoothed_gradient(grey, sigma, border)[1:]
    return _linked(dx, dy, *_thresholds(low, high, grey, unit), grey)


@operation(row="I9", formula="Canny's Gaussian, magnitude, direction, thinned magnitude, edges", gives="images")
def canny_stages(
    image: np.ndarray, sigma: float = 3.0, low: float = 0.08, high: float = 0.2, border: Border = "replicate"
) -> list[np.ndarray]:
    """The stages of :func:`canny` as five images: smoothed, magnitude, direction, thin and edges (``CANNY_STAGES``).

    Args:
        image: any image.
        sigma: of the Gaussian, in pixels; 0 for none.
        low: least magnitude of a weak pixel.
        high: least magnitude of a strong pixel.
        border: what lies outside.

    Returns:
        The image's dtype: magnitudes are divided by the greatest possible, sqrt(32); directions 0..360 degrees (y down) by 360.
    """
    grey = luma(image)
    smoothed, dx, dy, unit = _smoothed_gradient(grey, sigma, border)
    edges = _linked(dx, dy, *_thresholds(low, high, grey, unit), grey)
    thin = maxima(dx, dy)
    dx, dy = (d.astype(np.promote_types(d.dtype, np.float32), copy=False) for d in (dx, dy))
    magnitude = from_float(length(dx, dy) / (32**0.5 * white(grey) * unit), grey.dtype)
    direction = from_float(np.degrees(np.arctan2(dy, dx)) % 360 / 360, grey.dtype)
    return [
        from_float(smoothed / np.float32(white(grey) * unit), grey.dtype),
        magnitude,
        direction,
        np.where(thin, magnitude, grey.dtype.type(0)),
        edges,
    ]


def maxima(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """(H, W) bool: the gradient's magnitude is greatest across the edge, among the two neighbours nearest to its direction.

    The rule is Canny's with four directions, as OpenCV computes it; of two equal neighbours the first (left, above) stays.
    """
    return _linked(dx, dy, 0.0, 0.0, np.empty(0, np.uint8)) > 0


def zero_crossings(response: np.ndarray) -> np.ndarray:
    """(H, W): the jump at the pixels where a response changes its sign, 0 elsewhere; 0 counts as positive.

    Of two neighbours of different sign, the one nearer to 0 has the crossing (the first of two that are equally near).

    >>> zero_crossings(np.array([[3.0, 2.0, -1.0, -4.0]])).tolist()
    [[0.0, 0.0, 3.0, 0.0]]
    """
    out = np.zeros_like(response)
    for a, b, first, second in (
        (response[:, :-1], response[:, 1:], out[:, :-1], out[:, 1:]),
        (response[:-1], response[1:], out[:-1], out[1:]),
    ):
        jump = np.where((a < 0) != (b < 0), np.abs(a - b), 0)
        nearer = np.abs(a) <= np.abs(b)
        np.maximum(first, np.where(nearer, jump, 0), out=first)
        np.maximum(second, np.where(nearer, 0, jump), out=second)
    return out


def _gradient_edges(image: np.ndarray, operator: str, threshold: float | None, thin: bool, border: str) -> np.ndarray:
    across = float(sum(DERIVATIVES.get(operator, (1.0,))))

    def change(grey: np.ndarray) -> np.ndarray:
        dx, dy = (derivative(grey, operator, axis, border) for axis in "xy")
        strength = length(dx, dy, spend=not thin)
        strength *= strength.dtype.type(1 / (2**0.5 * across * white(grey)))
        if thin:
            strength[~maxima(dx, dy)] = 0
        return _map(strength, threshold, grey)

    grey = luma(image)
    return change(grey) if thin else strips_within(grey, change, 1, border)  # maxima are found in the gradient of the whole image


def _map(strength: np.ndarray, threshold: float | None, grey: np.ndarray) -> np.ndarray:
    """Strengths in 0..1, or white where they are above a threshold."""
    if threshold is None:
        return from_float(strength, grey.dtype)
    within(threshold, 0, 1, "threshold")
    return (strength > threshold).astype(grey.dtype) * grey.dtype.type(white(grey))


def _reach(sigma: float) -> int:
    """Pixels to each side that the Laplacian of a Gaussian looks at."""
    return max(1, int(4 * within(sigma, 1e-3, (LARGEST_WINDOW - 1) / 8, "sigma") + 0.5))


def _log(image: np.ndarray, sigma: float, border: str) -> np.ndarray:
    """The Laplacian of the Gaussian on the image's own scale."""
    import cv2

    reach = _reach(sigma)
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    bell /= bell.sum()
    second = (x**2 - (x**2 * bell).sum()) / sigma**4 * bell

    def run(array: np.ndarray, rule: int) -> np.ndarray:
        along = cv2.sepFilter2D(array, depth(image), second, bell, borderType=rule)
        return along + cv2.sepFilter2D(array, depth(image), bell, second, borderType=rule)

    return framed(image, (reach, reach), border, run)


def _smoothed_gradient(grey: np.ndarray, sigma: float, border: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The smoothed image, Sobel's gradient of it, and what a level of the image counts there.

    uint8: 16-bit integers in sixteenths of a level, which OpenCV filters twice as fast as floats; else floats in levels.
    """
    import cv2

    within(sigma, 0, 1e3, "sigma")
    if grey.dtype == np.uint8:
        row = gaussian_weights(sigma) if sigma else np.ones(1)
        reach = (len(row) // 2,) * 2
        smoothed = framed(grey, reach, border, lambda x, b: cv2.sepFilter2D(x, cv2.CV_16S, 16 * row, row, borderType=b))
        return smoothed, *(derivative(smoothed, "sobel", axis, border, cv2.CV_16S) for axis in "xy"), 16.0
    smoothed = smooth(grey, sigma, border, floats=True) if sigma else grey.astype(np.float32)
    return smoothed, *(derivative(smoothed, "sobel", axis, border) for axis in "xy"), 1.0


def _thresholds(low: float, high: float, grey: np.ndarray, unit: float) -> tuple[float, float]:
    within(low, 0, 6, "low")
    within(high, 0, 6, "high")
    if low > high:
        raise UsageError(f"low={low:g} is above high={high:g}")
    return low * white(grey) * unit, high * white(grey) * unit


def _linked(dx: np.ndarray, dy: np.ndarray, low: float, high: float, like: np.ndarray) -> np.ndarray:
    """OpenCV's non-maximum suppression and hysteresis on a gradient of 16-bit integers, which floats are stretched to."""
    import cv2

    if dx.dtype == np.int16:
        return _linked_whole(dx, dy, low, high, like)
    top = max(cv2.norm(dx, cv2.NORM_INF), cv2.norm(dy, cv2.NORM_INF))
    if top == 0:
        return np.zeros(dx.shape, like.dtype)
    stretch = 23_000 / top  # its 32-bit products with tan(67.5 degrees) overflow above 27 000
    stretch = math.floor(stretch) if stretch >= 1 else stretch  # whole gradients stay exact
    whole = [cv2.addWeighted(d, stretch, d, 0, 0, dtype=cv2.CV_16S) for d in (dx, dy)]
    return _linked_whole(*whole, low * stretch, high * stretch, like)


def _linked_whole(dx: np.ndarray, dy: np.ndarray, low: float, high: float, like: np.ndarray) -> np.ndarray:
    import cv2

    edges = cv2.Canny(dx, dy, low, high, L2gradient=True)
    return edges if like.dtype == np.uint8 else edges.astype(like.dtype) * like.dtype.type(white(like) / 255)
