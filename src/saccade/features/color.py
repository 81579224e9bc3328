"""Colour histograms.

Paper: Swain, Ballard: Color Indexing (IJCV 1991). New was that the joint histogram of an object's colours, without any shape,
tells objects apart under turns and partial occlusion.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from saccade.features.base import FeatureExtractor
from saccade.features.names import check_choice, check_whole
from saccade.features.pixels import as_pixels, cells

Space = Literal["hsv", "rgb"]


def color_histogram(image: Any, *, space: Space = "hsv", bins: int = 8, joint: bool = True, grid: int = 1) -> np.ndarray:
    """Shares of the colours in each cell of a grid.

    Args:
        image: as :func:`saccade.features.pixels.as_pixels` takes it.
        space: "hsv" (OpenCV's 8-bit one: hue in 0..180) or "rgb"; a grey image has its one channel in both.
        bins: equal ranges a channel, 1 to 16, or to 256 where each channel is counted by itself.
        joint: count combinations of the channels (bins^3, the first channel slowest) rather than each by itself (3 bins).
        grid: cells along each side, 1 to 32.

    Returns:
        (grid^2 bins^C,) or (grid^2 C bins,) float32, cell by cell; each histogram sums to 1, and is zero where a cell has no pixel.

    Raises:
        UsageError: no such image, or an option that cannot be.
    """
    import cv2

    _check(space, bins, joint, grid)
    pixels = as_pixels(image)
    tops = [256, 256, 256]
    if pixels.ndim == 3 and space == "hsv":
        pixels, tops = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), [180, 256, 256]
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0).astype(np.int64)
    levels = [plane * bins // top for plane, top in zip(planes, tops, strict=False)]
    where = cells(pixels.shape[:2], grid)
    if joint:
        index = levels[0]
        for level in levels[1:]:
            index = index * bins + level
        return _shares(where, index, grid**2, bins ** len(levels)).reshape(-1)
    return np.stack([_shares(where, level, grid**2, bins) for level in levels], 1).reshape(-1)


def _shares(where: np.ndarray, index: np.ndarray, parts: int, bins: int) -> np.ndarray:
    """(parts, bins) float32: the histogram of ``index`` in each part, divided by its sum."""
    counts = np.bincount((where * bins + index).ravel(), minlength=parts * bins).reshape(parts, bins)
    return (counts / np.maximum(counts.sum(1, keepdims=True), 1)).astype(np.float32)


def _check(space: Space, bins: int, joint: bool, grid: int) -> None:
    check_choice(Space, space=space)
    check_whole(1, 16 if joint else 256, bins=bins)
    check_whole(1, 32, grid=grid)


class ColorVector(FeatureExtractor):
    """:func:`color_histogram` of an image whose short side is shrunk to at most ``size`` pixels; other options as there."""

    standardize = False  # most colours are rare: their deviations are near zero, and they would count the most

    def __init__(
        self, *, in_chans: int = 3, space: Space = "hsv", bins: int = 8, joint: bool = True, grid: int = 1, size: int = 128
    ) -> None:
        _check(space, bins, joint, grid)
        check_whole(8, 4096, size=size)
        super().__init__(mode="shortest", size=(size, 4 * size), upscale=False)
        self.space: Space = space
        self.bins, self.joint, self.grid = bins, joint, grid

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """(D,) float32."""
        return color_histogram(pixels, space=self.space, bins=self.bins, joint=self.joint, grid=self.grid)
