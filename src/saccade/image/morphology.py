"""Morphology (canon I12): least and greatest values under a structuring element, each channel by itself; binary images and grey ones.

What lies outside the image does not count (:func:`minimum` and :func:`maximum` of the filters offer borders). The element is symmetric, so
opening and closing need no reflected one. bool masks stay bool. All in OpenCV, which takes squares apart into rows and columns.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from saccade.image.base import odd, operation, within

Shape = Literal["square", "cross", "disk"]


def element(shape: str = "square", size: int = 3) -> np.ndarray:
    """(size, size) uint8, 1 inside: a square, a cross of one row and column, or the pixels within size / 2 of the centre.

    >>> element("disk", 5).tolist()
    [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]
    """
    reach = odd(size) // 2
    x = np.arange(-reach, reach + 1)
    if shape == "square":
        inside = np.ones((size, size), bool)
    elif shape == "cross":
        inside = (x == 0) | (x[:, None] == 0)
    else:
        inside = 4 * (x**2 + x[:, None] ** 2) <= size**2
    return inside.astype(np.uint8)


@operation(row="I12", formula="g = least value under the element", masks=True)
def erode(image: np.ndarray, shape: Shape = "square", size: int = 3, times: int = 1) -> np.ndarray:
    """Erosion: bright things shrink.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
        times: how often.
    """
    import cv2

    return cv2.erode(image, element(shape, size), iterations=_times(image, shape, size, times))


@operation(row="I12", formula="g = greatest value under the element", masks=True)
def dilate(image: np.ndarray, shape: Shape = "square", size: int = 3, times: int = 1) -> np.ndarray:
    """Dilation: bright things grow.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
        times: how often.
    """
    import cv2

    return cv2.dilate(image, element(shape, size), iterations=_times(image, shape, size, times))


@operation(row="I12", formula="g = dilate(erode(f))", masks=True)
def opening(image: np.ndarray, shape: Shape = "square", size: int = 3, times: int = 1) -> np.ndarray:
    """Opening: bright things smaller than the element vanish, others keep their size.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
        times: how often it is eroded, and then as often dilated.
    """
    return _open(image, shape, size, times)


@operation(row="I12", formula="g = erode(dilate(f))", masks=True)
def closing(image: np.ndarray, shape: Shape = "square", size: int = 3, times: int = 1) -> np.ndarray:
    """Closing: dark things smaller than the element are filled.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
        times: how often it is dilated, and then as often eroded.
    """
    return _close(image, shape, size, times)


@operation(row="I12", formula="g = dilate(f) - erode(f)", masks=True)
def morphological_gradient(image: np.ndarray, shape: Shape = "square", size: int = 3) -> np.ndarray:
    """The range of values under the element: outlines.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
    """
    import cv2

    return cv2.morphologyEx(image, cv2.MORPH_GRADIENT, element(shape, size))


@operation(row="I12", formula="g = f - open(f)", masks=True)
def top_hat(image: np.ndarray, shape: Shape = "square", size: int = 9) -> np.ndarray:
    """White top-hat: bright things smaller than the element, on whatever ground.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
    """
    opened = _open(image, shape, size, 1)
    return np.subtract(image, opened, out=opened)


@operation(row="I12", formula="g = close(f) - f", masks=True)
def black_hat(image: np.ndarray, shape: Shape = "square", size: int = 9) -> np.ndarray:
    """Black top-hat: dark things smaller than the element.

    Args:
        image: any image or mask.
        shape: of the element.
        size: its side, odd.
    """
    closed = _close(image, shape, size, 1)
    return np.subtract(closed, image, out=closed)


def _times(image: np.ndarray, shape: str, size: int, times: int) -> int:
    """How often; no more than until every pixel has seen all others, as OpenCV makes one large element of many squares."""
    within(times, 1, 10_000, "times")
    steps = max(image.shape[:2]) if shape == "square" else sum(image.shape[:2])
    return min(times, math.ceil(steps / (odd(size) // 2))) if size > 1 else 1


def _open(image: np.ndarray, shape: str, size: int, times: int) -> np.ndarray:
    import cv2

    out: np.ndarray = cv2.morphologyEx(image, cv2.MORPH_OPEN, element(shape, size), iterations=_times(image, shape, size, times))
    return out


def _close(image: np.ndarray, shape: str, size: int, times: int) -> np.ndarray:
    import cv2

    out: np.ndarray = cv2.morphologyEx(image, cv2.MORPH_CLOSE, element(shape, size), iterations=_times(image, shape, size, times))
    return out
