"""HOG and grey values of a whole image as vectors for a classifier."""

from __future__ import annotations

import numpy as np

from saccade.features.base import FeatureExtractor
from saccade.features.hog import Convention, check_hog, hog
from saccade.features.names import check_whole
from saccade.features.pixels import grey, resized
from saccade.types.errors import UsageError


class HogVector(FeatureExtractor):
    """The descriptor of :func:`saccade.features.hog.hog` of the image stretched to a square.

    Args:
        in_chans: 3 takes the strongest colour channel's gradient, 1 grey.
        size: side of the square in pixels; D = (size / cell - block + 1)^2 block^2 bins: 1764 by default.
        cell, block, bins, convention: as in :func:`saccade.features.hog.hog_blocks`.
    """

    def __init__(
        self, *, in_chans: int = 3, size: int = 64, cell: int = 8, block: int = 2, bins: int = 9, convention: Convention = "dalal"
    ) -> None:
        check_hog(convention=convention, cell=cell, block=block, bins=bins)
        check_whole(cell * block, 1024, size=size)
        if size % cell:
            raise UsageError(f"the features' option size={size} is in whole cells of {cell} pixels")
        super().__init__(mode="stretch", size=(size, size))
        self.size, self.cell, self.block, self.bins = size, cell, block, bins
        self.convention: Convention = convention

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """(D,) float32."""
        square = resized(pixels, (self.size, self.size))
        return hog(square, convention=self.convention, cell=self.cell, block=self.block, bins=self.bins)


class PixelVector(FeatureExtractor):
    """Grey values in 0..1 of the image stretched to a square of ``size`` pixels; D = size^2."""

    def __init__(self, *, in_chans: int = 3, size: int = 32) -> None:
        check_whole(1, 1024, size=size)
        super().__init__(mode="stretch", size=(size, size))
        self.size = size

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """(D,) float32, row by row."""
        return resized(grey(pixels), (self.size, self.size)).reshape(-1).astype(np.float32) / 255
