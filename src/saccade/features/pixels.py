"""Images of any kind as plain arrays, as features take them; what is imported here loads neither torch nor Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from saccade.image.base import is_tensor
from saccade.types.errors import UsageError
from saccade.types.machine import usable_cores

_TO_GREY, _TO_RGB = ("1", "LA", "La"), ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of Pillow whose stored values are not yet grey levels or RGB."""


def plain_array(image: Any) -> np.ndarray:
    """The values of an array, of a tensor on any device, or of a Pillow image, as grey or RGB where it has 8 bits; alpha is dropped."""
    if is_tensor(image):
        values = image.detach().cpu()
        return np.asarray(values.float() if values.is_floating_point() else values)
    mode = getattr(image, "mode", None)
    if mode in _TO_GREY or mode in _TO_RGB:
        image = image.convert("L" if mode in _TO_GREY else "RGB")
    return np.asarray(image)


def as_pixels(image: Any) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of such an array, a (1 or 3, H, W) uint8 tensor or a Pillow image of 8 bits a channel.

    Palettes become colours; alpha is dropped.

    Raises:
        UsageError: not such an image.
    """
    array = plain_array(image)
    if is_tensor(image) and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3) or not array.size:
        raise UsageError(f"features take a uint8 image (H, W) or (H, W, 3), not {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 by BT.601."""
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image at (H, W) ``size``, low-passed before it shrinks; as it is where it has that size."""
    if pixels.shape[:2] == size:
        return pixels
    import torch
    from torchvision.transforms.v2 import functional as F

    planes = torch.from_numpy(np.moveaxis(np.atleast_3d(pixels), -1, 0).copy())
    out = np.moveaxis(F.resize(planes, list(size), antialias=True).numpy(), 0, -1)
    return np.ascontiguousarray(out if pixels.ndim == 3 else out[..., 0])


def cells(size: tuple[int, int], grid: int) -> np.ndarray:
    """(H, W) int64: which of ``grid * grid`` equal parts of the image, row by row, a pixel lies in."""
    rows, columns = (np.arange(side) * grid // side for side in size)
    return rows[:, None] * grid + columns[None]


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """``function`` of every item, in order, on all cores: what is heavy in it (OpenCV, NumPy, Pillow) runs without Python's lock."""
    if len(items) < 2 or usable_cores() < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, items))
