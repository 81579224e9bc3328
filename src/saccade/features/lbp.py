"""Local binary patterns: what of a pixel's neighbours on a circle is brighter than it, counted over the image.

Papers: Ojala, Pietikainen, Maenpaa: Multiresolution Gray-Scale and Rotation Invariant Texture Classification with Local Binary
Patterns (PAMI 2002): a pattern is uniform when its circle of bits changes at most twice; P points have P (P - 1) + 2 uniform
patterns, and all others share one label: 59 labels for P = 8. Ahonen, Hadid, Pietikainen: Face Recognition with Local Binary
Patterns (ECCV 2004): the histograms of the cells of a grid, one after the other.

The patterns are computed by scikit-image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.features.base import FeatureExtractor
from saccade.features.names import check_range, check_whole
from saccade.features.pixels import as_pixels, cells, grey


def lbp_labels(points: int = 8, *, rotation_invariant: bool = False) -> int:
    """How many labels the patterns of so many points have.

    >>> lbp_labels(8), lbp_labels(8, rotation_invariant=True), lbp_labels(16)
    (59, 10, 243)
    """
    check_whole(2, 24, points=points)
    return points + 2 if rotation_invariant else points * (points - 1) + 3


def lbp_histogram(image: Any, *, points: int = 8, radius: float = 1.0, grid: int = 1, rotation_invariant: bool = False) -> np.ndarray:
    """Shares of the uniform patterns in each cell of a grid.

    Args:
        image: as :func:`saccade.features.pixels.as_pixels` takes it; colour is turned to grey.
        points: neighbours P, 2 to 24, at equal angles. radius: of their circle in pixels, 0.5 to 32, read with bilinear interpolation; 0
            outside.
        grid: cells along each side, 1 to 32.
        rotation_invariant: uniform patterns with equal numbers of ones share a label (P + 2 labels in place of P (P - 1) + 3).

    Returns:
        (grid^2 labels,) float32, cell by cell, each summing to 1; a cell without a pixel (a tiny image) is zero.

    Raises:
        UsageError: no such image, or an option that cannot be.
    """
    from skimage.feature import local_binary_pattern

    _check(radius, grid)
    pixels = grey(as_pixels(image))
    bins = lbp_labels(points, rotation_invariant=rotation_invariant)
    labels = local_binary_pattern(pixels, points, radius, "uniform" if rotation_invariant else "nri_uniform").astype(np.int64)
    counts = np.bincount((cells(pixels.shape, grid) * bins + labels).ravel(), minlength=grid**2 * bins).reshape(grid**2, bins)
    return (counts / np.maximum(counts.sum(1, keepdims=True), 1)).astype(np.float32).reshape(-1)


def _check(radius: float, grid: int) -> None:
    check_range(0.5, 32, radius=radius)
    check_whole(1, 32, grid=grid)


class LbpVector(FeatureExtractor):
    """:func:`lbp_histogram` of an image whose short side is shrunk to at most ``size`` pixels; other options as there."""

    def __init__(
        self, *, in_chans: int = 3, points: int = 8, radius: float = 1.0, grid: int = 4, rotation_invariant: bool = False, size: int = 128
    ) -> None:
        lbp_labels(points)  # checks them
        _check(radius, grid)
        check_whole(8, 4096, size=size)
        super().__init__(mode="shortest", size=(size, 4 * size), upscale=False)
        self.points, self.radius, self.grid, self.rotation_invariant = points, radius, grid, rotation_invariant

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """(grid^2 labels,) float32."""
        return lbp_histogram(pixels, points=self.points, radius=self.radius, grid=self.grid, rotation_invariant=self.rotation_invariant)
