"""Polygons and run-length codes to masks."""

from __future__ import annotations

from typing import Any

import numpy as np


def rasterize(segment: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of one object."""
    raise NotImplementedError
