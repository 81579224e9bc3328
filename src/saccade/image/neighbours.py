"""Neighbours of a pixel (CANON row I4): N4 are those that share a side, N8 also those that share a corner."""

from __future__ import annotations

from typing import Literal

import numpy as np

from saccade.image.base import Border, operation, pad
from saccade.types.errors import UsageError

N4 = ((-1, 0), (0, -1), (0, 1), (1, 0))
"""(row, column) steps to the four neighbours, in reading order."""

N8 = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(row, column) steps to the eight neighbours, in reading order."""


def _around(image: np.ndarray, row: int, column: int, steps: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    height, width = image.shape[:2]
    if not (0 <= row < height and 0 <= column < width):
        raise UsageError(f"no pixel {row},{column} in an image of {height}x{width}")
    return [(row + y, column + x) for y, x in steps if 0 <= row + y < height and 0 <= column + x < width]


@operation(row="I4", formula="N4(y, x) = {(y-1, x), (y, x-1), (y, x+1), (y+1, x)} inside the image", gives="value")
def n4(image: np.ndarray, row: int, column: int) -> list[tuple[int, int]]:
    """The (row, column) of the neighbours that share a side, in reading order; at the border there are fewer.

    >>> n4(np.zeros((3, 3), np.uint8), 0, 0)
    [(0, 1), (1, 0)]
    """
    return _around(image, row, column, N4)


@operation(row="I4", formula="N8 = N4 and the four diagonal pixels, inside the image", gives="value")
def n8(image: np.ndarray, row: int, column: int) -> list[tuple[int, int]]:
    """The (row, column) of the neighbours that share a side or a corner, in reading order; at the border there are fewer.

    >>> len(n8(np.zeros((3, 3), np.uint8), 1, 1)), n8(np.zeros((3, 3), np.uint8), 2, 2)
    (8, [(1, 1), (1, 2), (2, 1)])
    """
    return _around(image, row, column, N8)


@operation(row="I4", formula="g_k(y, x) = f((y, x) + step_k)", alpha="apply", gives="images")
def neighbour_planes(image: np.ndarray, connectivity: Literal[4, 8] = 8, border: Border = "reflect") -> list[np.ndarray]:
    """An image for each neighbour: where the pixel was, its neighbour's value; in reading order. OpenCV pads, NumPy cuts.

    Args:
        image: any.
        connectivity: 4 (up, left, right, down) or 8.
        border: what lies outside.

    >>> up, left, right, down = neighbour_planes(np.array([[1, 2, 3]], np.uint8), 4, "replicate")
    >>> left.tolist(), right.tolist()
    ([[1, 1, 2]], [[2, 3, 3]])
    """
    height, width = image.shape[:2]
    framed = pad(image, (1, 1), (1, 1), border)
    return [framed[1 + y : 1 + y + height, 1 + x : 1 + x + width].copy() for y, x in (N4 if connectivity == 4 else N8)]
