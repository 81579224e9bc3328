"""Corners of the structure tensor, and blobs of a scale space.

Papers: Harris, Stephens: A Combined Corner and Edge Detector (Alvey 1988): ``det M - k (trace M)^2`` of M, the products of the image's
derivatives averaged by a Gaussian. Shi, Tomasi: Good Features to Track (CVPR 1994): the smaller eigenvalue of M. Lindeberg: Feature
Detection with Automatic Scale Selection (IJCV 1998): blobs are maxima of ``sigma^2 |Laplacian|`` over place and scale; a disc of radius
r answers most at sigma = r / sqrt 2. Lowe (IJCV 2004): differences of Gaussians approximate it.

Filters are OpenCV's in float32, of grey values in 0..1; borders are mirrored.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np

from saccade.features.keypoints import Keypoints, no_keypoints
from saccade.features.names import check_choice, check_range, check_whole
from saccade.features.peaks import peaks, refine
from saccade.features.pixels import as_pixels, grey
from saccade.types.errors import UsageError

Polarity = Literal["both", "bright", "dark"]


def harris(
    image: Any, *, k: float = 0.05, sigma: float = 1.0, quality: float = 0.01, distance: int = 3, limit: int | None = None
) -> Keypoints:
    """Harris corners at fractions of a pixel, without angle and descriptor.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        k: of the response; 0.04 to 0.06.
        sigma: of the averaging Gaussian, in pixels.
        quality: least response, as a share of the image's greatest.
        distance: no stronger corner lies so many rows and columns away, or fewer.
        limit: keep the strongest.
    """
    check_range(0, 0.25, k=k)
    return _corners(image, "harris", k, sigma, quality, distance).strongest(limit)


def shi_tomasi(image: Any, *, sigma: float = 1.0, quality: float = 0.01, distance: int = 3, limit: int | None = None) -> Keypoints:
    """Shi-Tomasi corners; arguments and result as of :func:`harris`."""
    return _corners(image, "shi_tomasi", None, sigma, quality, distance).strongest(limit)


def structure_tensor(image: Any, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averages of ``Ix^2``, ``Ix Iy`` and ``Iy^2``, each (H, W) float32; derivatives are Sobel's / 8: grey values a pixel."""
    import cv2

    check_range(0.1, 100, sigma=sigma)
    values = _unit(image)
    dx, dy = (cv2.Sobel(values, cv2.CV_32F, *order, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1)))
    xx, xy, yy = (_blurred(product, sigma) for product in (dx * dx, dx * dy, dy * dy))
    return xx, xy, yy


def corner_response(image: Any, k: float | None = 0.05, sigma: float = 1.0) -> np.ndarray:
    """(H, W) float32: Harris' response, or Shi and Tomasi's smaller eigenvalue when ``k`` is None."""
    xx, xy, yy = structure_tensor(image, sigma)
    if k is None:
        return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return xx * yy - xy**2 - np.float32(k) * (xx + yy) ** 2


def _corners(image: Any, kind: str, k: float | None, sigma: float, quality: float, distance: int) -> Keypoints:
    import cv2

    check_range(0, 1, quality=quality)
    check_whole(1, 100, distance=distance)
    response = corner_response(image, k, sigma)
    height, width = response.shape
    greatest = float(response.max())
    # Grey values differ by at least 1/255: what is below comes from rounding.
    if greatest < 1e-10 or min(height, width) < 3:
        return no_keypoints(kind, (height, width))
    window = np.ones((2 * distance + 1,) * 2, np.uint8)
    good = (response >= cv2.dilate(response, window)) & (response > quality * greatest)
    good[[0, -1]] = False
    good[:, [0, -1]] = False
    found = np.argwhere(good)
    found = found[_apart(found, distance)]
    offsets = _parabola(response, found)
    points = found[:, ::-1] + 0.5 + offsets
    count = len(found)
    return Keypoints(
        points.astype(np.float32), np.full(count, 4 * sigma + 3, np.float32), np.full(count, np.nan, np.float32),
        response[found[:, 0], found[:, 1]], np.zeros((count, 0), np.float32), kind, (height, width),
    )  # fmt: skip


def _apart(found: np.ndarray, distance: int) -> np.ndarray:
    """Which of the sorted (N, 2) rows and columns have no earlier one within the distance: of a plateau the first stays."""
    taken: set[tuple[int, int]] = set()
    kept = np.zeros(len(found), bool)
    for i, (row, column) in enumerate(found.tolist()):
        if not any((row - dy, column + dx) in taken for dy in range(distance + 1) for dx in range(-distance, distance + 1)):
            taken.add((row, column))
            kept[i] = True
    return kept


def _parabola(response: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(N, 2) offsets in x and y, at most half a pixel: of the parabola through the neighbours, each axis by itself."""
    row, column = found.T
    middle = response[row, column]
    out = []
    for dy, dx in ((0, 1), (1, 0)):
        before, after = response[row - dy, column - dx], response[row + dy, column + dx]
        bend = before - 2 * middle + after
        out.append(np.where(bend < 0, (before - after) / (2 * np.minimum(bend, -1e-20)), 0).clip(-0.5, 0.5))
    return np.stack(out, 1)


def log(
    image: Any,
    *,
    smallest: float = 1.5,
    largest: float = 24.0,
    layers: int = 3,
    threshold: float = 0.1,
    polarity: Polarity = "both",
    limit: int | None = None,
) -> Keypoints:
    """Blobs: maxima of ``-sigma^2 Laplacian`` of the image blurred by sigma, over place and scale.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        smallest, largest: sigma of the scales in pixels.
        layers: scales an octave.
        threshold: least response, of grey values in 0..1.
        polarity: blobs brighter or darker than what is around them.
        limit: keep the strongest.

    Returns:
        Sizes are diameters, ``2 sqrt(2) sigma``; no angle, no descriptor.
    """
    sigmas = _sigmas(smallest, largest, layers)
    values = _unit(image)
    return _blobs(np.stack([laplacian(values, sigma) for sigma in sigmas]), sigmas, "log", threshold, polarity).strongest(limit)


def dog(
    image: Any,
    *,
    smallest: float = 1.5,
    largest: float = 24.0,
    layers: int = 3,
    threshold: float = 0.1,
    polarity: Polarity = "both",
    limit: int | None = None,
) -> Keypoints:
    """Blobs by differences of Gaussians, ``(G(sigma) - G(r sigma)) / (r - 1)`` with ``r = 2^(1 / layers)``; the rest as :func:`log`."""
    sigmas = _sigmas(smallest, largest, layers)
    values, ratio = _unit(image), 2 ** (1 / layers)
    blurred = [_blurred(values, sigma) for sigma in (*sigmas, sigmas[-1] * ratio)]
    stack = np.stack([(fine - coarse) / (ratio - 1) for fine, coarse in itertools.pairwise(blurred)])
    # The difference answers for a scale between its two; to first order in r - 1 the geometric mean.
    return _blobs(stack, sigmas * math.sqrt(ratio), "dog", threshold, polarity).strongest(limit)


def laplacian(values: np.ndarray, sigma: float) -> np.ndarray:
    """``-sigma^2 (Gxx + Gyy)`` of an (H, W) float32 image: positive in bright blobs; the Gaussian is cut at 4 sigma."""
    import cv2

    reach = int(4 * sigma + 0.5)
    x = np.arange(-reach, reach + 1)
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    gauss /= gauss.sum()
    second = gauss * (x**2 / sigma**4 - 1 / sigma**2)
    horizontal, vertical = (
        cv2.sepFilter2D(values, cv2.CV_32F, a, b, borderType=cv2.BORDER_REFLECT) for a, b in ((second, gauss), (gauss, second))
    )
    return -np.float32(sigma**2) * (horizontal + vertical)


def _blobs(stack: np.ndarray, sigmas: np.ndarray, kind: str, threshold: float, polarity: Polarity) -> Keypoints:
    check_range(0, 10, threshold=threshold)
    check_choice(Polarity, polarity=polarity)
    stack = np.ascontiguousarray(stack, np.float32)
    sides = {"bright": (1,), "dark": (-1,), "both": (1, -1)}[polarity]
    # Plain rounding errors are no blobs.
    found = [(sign * stack, peaks(sign * stack, max(threshold, 1e-5))) for sign in sides]
    refined = [(samples, *refine(signed, samples)) for signed, samples in found]
    samples, offsets, values = (np.concatenate(parts) for parts in zip(*refined, strict=True))
    good = (np.abs(offsets) <= 1).all(1)
    layers, rows, columns = (samples[good] + offsets[good]).T
    size = (stack.shape[1], stack.shape[2])
    if not good.any():
        return no_keypoints(kind, size)
    scales = sigmas[0] * (sigmas[1] / sigmas[0]) ** layers
    count = len(scales)
    return Keypoints(
        np.stack([columns, rows], 1).astype(np.float32) + np.float32(0.5), (2 * math.sqrt(2) * scales).astype(np.float32),
        np.full(count, np.nan, np.float32), values[good].astype(np.float32), np.zeros((count, 0), np.float32), kind, size,
    )  # fmt: skip


def _sigmas(smallest: float, largest: float, layers: int) -> np.ndarray:
    """Scales from below the smallest to above the largest, so that both ends can be maxima."""
    check_range(0.3, 1000, smallest=smallest, largest=largest)
    check_whole(1, 32, layers=layers)
    if largest < smallest:
        raise UsageError(f"the features' options smallest={smallest} and largest={largest}: the largest scale is not below the smallest")
    count = math.ceil(layers * math.log2(largest / smallest) - 1e-9)
    return smallest * 2.0 ** (np.arange(-1, count + 2) / layers)


def _unit(image: Any) -> np.ndarray:
    return grey(as_pixels(image)).astype(np.float32) / 255


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """By a Gaussian that is cut at 4 sigma."""
    import cv2

    side = 2 * int(4 * sigma + 0.5) + 1
    return cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
