"""Pixels from files: by content, never by name; limits before decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision import tv_tensors

from saccade.types.errors import DataError

MAX_PIXELS = 200_000_000


def read_image(path: Path, channels: int | None = None) -> tv_tensors.Image:
    """(C, H, W) uint8, RGB or grey."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            grey = image.mode in ("L", "1", "I;16", "I", "F")
            array = np.asarray(image.convert("L" if (channels == 1 or (channels is None and grey)) else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(path, f"cannot be decoded: {error}") from None
    array = array[..., None] if array.ndim == 2 else array
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0))))


def read_mask(path: Path) -> np.ndarray:
    """(H, W) raw values of an indexed or grey mask."""
    with Image.open(path) as opened:
        return np.asarray(opened)
