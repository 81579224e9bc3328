"""SURF: key points by box filters on the integral image, with 64 sums of Haar responses. OpenCV's wheels do not carry it; this is ours.

Paper: Bay, Ess, Tuytelaars, Van Gool: Speeded-Up Robust Features (SURF), Computer Vision and Image Understanding 110 (2008).

* Second derivatives of a Gaussian become boxes; a filter of side L stands for sigma = 1.2 L / 9. Divided by L^2, their determinant
  is ``Dxx Dyy - (0.9 Dxy)^2`` (equation 3).
* Octave o has sides 9, 15, 21, 27; 15, 27, 39, 51; 27, 51, 75, 99; ...: ``3 (2^o i + 1)``. The maxima among 26 neighbours are refined
  by a parabola.
* Orientation: Haar responses of side 4 s at 109 places within 6 s, Gaussian of 2 s, summed in a window of 60 degrees that turns.
* Descriptor: 20 s x 20 s in 4 x 4 parts of 5 x 5 Haar responses of side 2 s, Gaussian of 3.3 s; each part gives the sums of
  dx, dy, |dx| and |dy|; unit length.

All is computed for many points at once; sums of pixels are exact, as whole numbers in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.features.keypoints import Keypoints, no_keypoints
from saccade.features.names import check_range, check_whole
from saccade.features.peaks import peaks, refine
from saccade.features.pixels import as_pixels, grey

CHUNK = 512
"""Points that are described at once: bounds the memory."""

STEP = 5
"""Degrees by which the orientation window turns."""

WINDOW = 60
"""Its width in degrees."""


def surf(
    image: Any,
    *,
    threshold: float = 0.0005,
    octaves: int = 4,
    intervals: int = 4,
    step: int = 1,
    upright: bool = False,
    limit: int | None = None,
) -> Keypoints:
    """SURF key points.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        threshold: least determinant, of grey values in 0..1.
        octaves: each twice as coarse as the one before.
        intervals: filters of an octave; the first and last only bound the maxima of the others.
        step: pixels between samples of the first octave; it doubles with every octave.
        upright: no orientation ("U-SURF"): all angles are 0.
        limit: keep the strongest.

    Returns:
        Descriptors (N, 64) float32; sizes are the sides L of the filters.
    """
    check_range(0, 1, threshold=threshold)
    check_whole(1, 8, octaves=octaves, step=step)
    check_whole(3, 16, intervals=intervals)
    if limit is not None:
        check_whole(1, None, limit=limit)
    pixels = grey(as_pixels(image))
    total = integral(pixels)
    found = [_octave(total, octave, intervals, step * 2 ** (octave - 1), threshold) for octave in range(1, octaves + 1)]
    points, sizes, responses = (np.concatenate(parts) for parts in zip(*found, strict=True))
    size = (pixels.shape[0], pixels.shape[1])
    if not len(points):
        return no_keypoints("surf", size, 64)
    kept = np.argsort(-responses, kind="stable")[:limit]
    points, sizes, responses = points[kept], sizes[kept], responses[kept]
    scales = sizes * (1.2 / 9)
    angles, descriptors = np.zeros(len(points)), np.empty((len(points), 64), np.float32)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        if not upright:
            angles[part] = orientations(total, points[part], scales[part])
        descriptors[part] = describe_surf(total, points[part], scales[part], angles[part])
    places, sides, turns, strengths = (column.astype(np.float32) for column in (points, sizes, angles, responses))
    return Keypoints(places, sides, turns % np.float32(360), strengths, descriptors, "surf", size)


def integral(pixels: np.ndarray) -> np.ndarray:
    """(H + 1, W + 1) float64: ``[y, x]`` is the sum of the pixels above row y and left of column x."""
    import cv2

    return cv2.integral(pixels, sdepth=cv2.CV_64F)


def filter_sizes(octave: int, intervals: int = 4) -> list[int]:
    """Sides of the filters of an octave, from 1 on.

    >>> [filter_sizes(octave) for octave in (1, 2, 3)]
    [[9, 15, 21, 27], [15, 27, 39, 51], [27, 51, 75, 99]]
    """
    return [3 * (2**octave * i + 1) for i in range(1, intervals + 1)]


def box_hessian(total: np.ndarray, size: int, step: int = 1) -> np.ndarray:
    """``Dxx Dyy - (0.9 Dxy)^2`` of a filter of side ``size`` (an odd multiple of 3), of grey values in 0..1.

    Args:
        total: :func:`integral` of the image.
        step: pixels between samples; the first is the top left pixel.

    Returns:
        (ceil(H / step), ceil(W / step)) float64; infinite where the filter does not lie inside the image.
    """
    height, width = total.shape[0] - 1, total.shape[1] - 1
    lobe, reach = size // 3, size // 2
    out = np.full((-(-height // step), -(-width // step)), np.inf)
    first = -(-reach // step)
    rows, columns = ((side - 1 - reach) // step - first + 1 for side in (height, width))
    if rows < 1 or columns < 1:
        return out

    def corner(dy: int, dx: int) -> np.ndarray:
        y, x = first * step + dy, first * step + dx
        return total[y : y + (rows - 1) * step + 1 : step, x : x + (columns - 1) * step + 1 : step]

    def box(dy: int, dx: int, high: int, wide: int) -> np.ndarray:
        return corner(dy + high, dx + wide) - corner(dy, dx + wide) - corner(dy + high, dx) + corner(dy, dx)

    long, half = 2 * lobe - 1, lobe // 2
    dxx = box(1 - lobe, -reach, long, size) - 3 * box(1 - lobe, -half, long, lobe)
    dyy = box(-reach, 1 - lobe, size, long) - 3 * box(-half, 1 - lobe, lobe, long)
    dxy = box(-lobe, 1, lobe, lobe) + box(1, -lobe, lobe, lobe) - box(-lobe, -lobe, lobe, lobe) - box(1, 1, lobe, lobe)
    out[first : first + rows, first : first + columns] = (dxx * dyy - 0.81 * dxy**2) / (255.0 * size**2) ** 2
    return out


def _octave(total: np.ndarray, octave: int, intervals: int, step: int, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (n, 2) in pixels, filter sides (n,) and determinants (n,) of one octave, float64."""
    sizes = filter_sizes(octave, intervals)
    stack = np.stack([box_hessian(total, size, step) for size in sizes])
    samples = peaks(stack, threshold)
    offsets, values = refine(stack, samples)
    good = (np.abs(offsets) <= 1).all(1)
    layers, rows, columns = (samples + np.where(good[:, None], offsets, 0))[good].T
    points = np.stack([columns, rows], 1) * step + 0.5
    return points, sizes[0] + (sizes[1] - sizes[0]) * layers, values[good]


def haar(total: np.ndarray, x: np.ndarray, y: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right minus left and lower minus upper half of squares of side ``2 half`` about the corners (x, y) of pixels, all int64.

    What lies outside of the image counts as 0.
    """
    height, width = total.shape[0] - 1, total.shape[1] - 1
    left, middle, right = (np.clip(x + shift, 0, width) for shift in (-half, 0, half))
    top, centre, bottom = (np.clip(y + shift, 0, height) * (width + 1) for shift in (-half, 0, half))
    flat = total.reshape(-1)
    nw, n, ne = (flat.take(top + column) for column in (left, middle, right))
    w, e = (flat.take(centre + column) for column in (left, right))
    sw, s, se = (flat.take(bottom + column) for column in (left, middle, right))
    return se - ne - 2 * (s - n) + sw - nw, se - sw - 2 * (e - w) + ne - nw


def orientations(total: np.ndarray, points: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """(N,) degrees, 0 <= a < 360, of points (N, 2) with scales s (N,).

    Responses are sorted into bins of :data:`STEP` degrees by their own direction, and the window holds whole bins: of all its places, the
    sum of the longest vector is the orientation.
    """
    j, i = np.mgrid[-6:7, -6:7]
    inside = i**2 + j**2 < 36
    i, j = i[inside], j[inside]
    weights = np.exp(-(i**2 + j**2) / (2 * 2.0**2))
    s = scales[:, None]
    x, y = np.rint(points[:, :1] + s * i).astype(np.int64), np.rint(points[:, 1:] + s * j).astype(np.int64)
    half = np.maximum(np.rint(2 * s).astype(np.int64), 1)
    dx, dy = (values * weights for values in haar(total, x, y, half))
    bins, wide = 360 // STEP, WINDOW // STEP
    which = (np.degrees(np.arctan2(dy, dx)) % 360 // STEP).astype(np.int64) % bins
    cell = (np.arange(len(points))[:, None] * bins + which).ravel()
    sums = []
    for values in (dx, dy):
        summed = np.bincount(cell, values.ravel(), len(points) * bins).reshape(-1, bins)
        around = np.concatenate([summed, summed[:, : wide - 1]], 1)
        sums.append(np.lib.stride_tricks.sliding_window_view(around, wide, axis=1).sum(-1))
    best = (sums[0] ** 2 + sums[1] ** 2).argmax(1)[:, None]
    across, down = (np.take_along_axis(values, best, 1)[:, 0] for values in sums)
    return np.degrees(np.arctan2(down, across)) % 360


def describe_surf(total: np.ndarray, points: np.ndarray, scales: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(N, 64) float32 of unit length: parts row by row in the point's own frame, (sum dx, sum dy, sum |dx|, sum |dy|) of each.

    Args:
        total: :func:`integral` of the image.
        points: (N, 2) pixels. scales: (N,) s. angles: (N,) degrees.
    """
    v, u = (axis.ravel() - 9.5 for axis in np.mgrid[0:20, 0:20])
    weights = np.exp(-(u**2 + v**2) / (2 * 3.3**2))
    s = scales[:, None]
    cos, sin = (function(np.radians(angles))[:, None] for function in (np.cos, np.sin))
    x = np.rint(points[:, :1] + s * (u * cos - v * sin)).astype(np.int64)
    y = np.rint(points[:, 1:] + s * (u * sin + v * cos)).astype(np.int64)
    dx, dy = haar(total, x, y, np.maximum(np.rint(s).astype(np.int64), 1))
    along, across = (cos * dx + sin * dy) * weights, (cos * dy - sin * dx) * weights
    parts = np.stack([along, across, np.abs(along), np.abs(across)], -1).reshape(-1, 4, 5, 4, 5, 4).sum((2, 4))
    vectors = parts.reshape(len(points), 64)
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)
