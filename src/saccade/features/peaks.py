"""Maxima of a stack of response maps, and their places between the samples."""

from __future__ import annotations

import numpy as np

_EARLIER = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], np.uint8)
_ALL = np.ones((3, 3), np.uint8)


def peaks(stack: np.ndarray, threshold: float) -> np.ndarray:
    """(N, 3) int64 layer, row and column of the samples above the threshold that are the greatest among their 26 neighbours.

    Of equal neighbours the first (by layer, row, column) counts. First and last layer, row and column have no 26 neighbours. A sample
    beside an infinite one is no peak: infinity marks where there is no response.

    Args:
        stack: (L, H, W) float32 or float64.
    """
    import cv2

    found = []
    for layer in range(1, len(stack) - 1):
        below, here, above = stack[layer - 1], stack[layer], stack[layer + 1]
        good = np.isfinite(here) & (here > threshold)
        good[[0, -1]] = False
        good[:, [0, -1]] = False
        if not good.any():
            continue
        good &= (here > cv2.dilate(below, _ALL)) & (here > cv2.dilate(here, _EARLIER))
        good &= (here >= cv2.dilate(above, _ALL)) & (here >= cv2.dilate(here, _EARLIER[::-1, ::-1].copy()))
        rows, columns = np.nonzero(good)
        found.append(np.stack([np.full_like(rows, layer), rows, columns], 1))
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def refine(stack: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (N, 3) of the maxima from their samples in layers, rows and columns, and the values (N,) there, both float64.

    The parabola through the sample and its neighbours, ``D + g x + x H x / 2`` with central differences, is greatest at
    ``x = -H^-1 g`` with ``D + g x / 2`` (Brown, Lowe: Invariant Features from Interest Point Groups, BMVC 2002). Where it has no
    maximum the offsets are infinite.
    """
    index = found.T

    def at(*shift: int) -> np.ndarray:
        layer, row, column = (axis + step for axis, step in zip(index, shift, strict=True))
        return stack[layer, row, column].astype(np.float64)

    axes = np.eye(3, dtype=int)
    value = at(0, 0, 0)
    gradient = np.stack([(at(*e) - at(*-e)) / 2 for e in axes], 1)
    hessian = np.empty((len(found), 3, 3))
    for i, a in enumerate(axes):
        hessian[:, i, i] = at(*a) - 2 * value + at(*-a)
        for j in range(i):
            b = axes[j]
            hessian[:, i, j] = hessian[:, j, i] = (at(*(a + b)) - at(*(a - b)) - at(*(b - a)) + at(*(-a - b))) / 4
    # A maximum needs a negative definite H: leading minors of alternating signs.
    minor = hessian[:, 0, 0] * hessian[:, 1, 1] - hessian[:, 0, 1] ** 2
    good = (hessian[:, 0, 0] < 0) & (minor > 0) & (np.linalg.det(hessian) < 0)
    offsets = np.full((len(found), 3), np.inf)
    offsets[good] = -np.linalg.solve(hessian[good], gradient[good][..., None])[..., 0]
    value[good] += (gradient[good] * offsets[good]).sum(1) / 2
    return offsets, value
