"""Thresholds (canon S1, I5): white where a pixel is brighter than a level, black elsewhere; each channel by itself.

Paper: Otsu: A Threshold Selection Method from Gray-Level Histograms (IEEE Trans. SMC 1979).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from saccade.image.base import Border, each_channel, from_float, odd, operation, white, within
from saccade.image.filters import depth, framed, smooth, strips_within


@operation(row="S1", formula="g = white where f > level, else 0")
def fixed_threshold(image: np.ndarray, level: float = 0.5, inverse: bool = False) -> np.ndarray:
    """A level for the whole image. OpenCV's threshold.

    Args:
        image: any image.
        level: in 0..1 of the range.
        inverse: white where the pixel is not brighter.

    >>> from saccade import image
    >>> image.fixed_threshold(np.array([[0, 127, 128, 255]], np.uint8)).tolist()
    [[0, 0, 255, 255]]
    """
    return _split(image, within(level, 0, 1, "level") * white(image), inverse)


@operation(row="S1", formula="g = white where f > the level of the greatest variance between the two classes")
def otsu(image: np.ndarray, inverse: bool = False) -> np.ndarray:
    """Otsu's level, which parts the histogram best in two; a channel has its own. OpenCV's threshold (see :func:`otsu_level`).

    Args:
        image: any image.
        inverse: white where the pixel is not brighter.
    """
    return each_channel(image, lambda x: _split(x, _otsu(x), inverse))


@operation(row="S1", formula="level = argmax_t w0(t) w1(t) (m0(t) - m1(t))^2", gives="value")
def otsu_level(image: np.ndarray) -> float | list[float]:
    """Otsu's level in 0..1 of the range, of each channel: a pixel above it belongs to the brighter class. OpenCV's.

    Floats are counted on 65536 levels.

    Args:
        image: any image.
    """
    levels = [_otsu(np.ascontiguousarray(x)) / white(image) for x in np.moveaxis(np.atleast_3d(image), -1, 0)]
    return levels if image.ndim == 3 else levels[0]


@operation(row="S1", formula="g = white where f > mean of the window - offset")
def adaptive_threshold(
    image: np.ndarray,
    size: int = 51,
    offset: float = 0.02,
    method: Literal["mean", "gaussian"] = "mean",
    inverse: bool = False,
    border: Border = "replicate",
) -> np.ndarray:
    """A level for each pixel: the mean around it, less an offset. OpenCV's filters; the mean is not rounded.

    Args:
        image: any image.
        size: side of the window, odd.
        offset: taken from the mean, in 0..1 of the range; negative values add.
        method: "mean": all pixels of the window weigh the same; "gaussian": sigma = 0.3 ((size - 1) / 2 - 1) + 0.8, OpenCV's choice.
        inverse: white where the pixel is not brighter.
        border: what lies outside.
    """
    import cv2

    within(offset, -1, 1, "offset")
    reach, kind = odd(size) // 2, depth(image)
    # the mean of equal values may differ from them in the last digits; they are not brighter than it
    limit = (1e-5 - offset) * white(image)

    def change(strip: np.ndarray) -> np.ndarray:
        if method == "gaussian":
            level = smooth(strip, 0.3 * ((size - 1) / 2 - 1) + 0.8, border, size=size, floats=True)
        else:
            level = framed(strip, (reach, reach), border, lambda x, b: cv2.boxFilter(x, kind, (size, size), normalize=True, borderType=b))
        excess = np.subtract(strip, level, out=np.empty(strip.shape, level.dtype))
        bright = excess <= limit if inverse else excess > limit
        return bright.astype(image.dtype) * image.dtype.type(white(image))

    return strips_within(image, change, reach, border)


def _otsu(channel: np.ndarray) -> float:
    """Otsu's level of HW on its own scale."""
    import cv2

    if channel.dtype.kind == "f":  # between two of the levels, or rounding would put the darker one's pixels above it
        return min((_otsu(from_float(channel, np.uint16)) + 0.5) / 65535, 1.0)
    return float(cv2.threshold(channel, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0])


def _split(image: np.ndarray, level: float, inverse: bool) -> np.ndarray:
    import cv2

    kind = cv2.THRESH_BINARY_INV if inverse else cv2.THRESH_BINARY
    level = float(np.floor(level)) if image.dtype.kind == "u" else level
    out: np.ndarray = cv2.threshold(image, level, white(image), kind)[1]
    return out
