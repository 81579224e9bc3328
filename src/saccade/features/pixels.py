"""Images of any kind as plain arrays, as features take them; what is imported here loads neither torch nor Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from saccade.image.base import WHITE, from_float, is_tensor, to_float
from saccade.types.errors import UsageError
from saccade.types.machine import usable_cores

_TO_GREY, _TO_RGB = ("1", "LA", "La"), ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of Pillow whose stored values are not yet grey levels or RGB."""

_ACCEPTED = (
    "features take an image: a NumPy array HW or HWC, or a tensor HW or CHW, with 1 to 4 channels, of uint8, uint16 or floats in 0..1, "
    "or a Pillow image"
)


def plain_array(values: Any, accepted: str) -> np.ndarray:
    """The values of anything like an array, of a tensor on any device, or of a Pillow image, as grey or RGB where it has 8 bits.

    Raises:
        UsageError: there are none; ``accepted`` begins the message.
    """
    try:
        if is_tensor(values):
            held = values.detach().cpu().resolve_neg()
            return np.asarray(held.float() if held.is_floating_point() and held.element_size() < 4 else held)
        mode = getattr(values, "mode", None)
        if mode in _TO_GREY or mode in _TO_RGB:
            values = values.convert("L" if mode in _TO_GREY else "RGB")
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, a sparse tensor
        raise UsageError(f"{accepted}; not this {type(values).__name__}: {error}") from None


def as_pixels(image: Any) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of one image of any kind.

    Args:
        image: a NumPy array (H, W) or (H, W, C), a tensor (H, W) or (C, H, W), C 1 to 4 (the last of 2 and 4 is alpha, which is dropped),
            of uint8, uint16 or floats in 0..1, which are rounded to 8 bits; or a Pillow image, whose palette becomes colours.

    Raises:
        UsageError: not such an image, none of its pixels, or several images.
    """
    if isinstance(image, (list, tuple)):
        raise UsageError(f"{_ACCEPTED}; not a {type(image).__name__}: give the images one by one")
    array, tensor = plain_array(image, _ACCEPTED), is_tensor(image)
    shape = array.shape
    channels = 1 if array.ndim == 2 else shape[0 if tensor else -1] if array.ndim == 3 else 0
    if channels not in (1, 2, 3, 4) or not array.size or not (array.dtype.name in WHITE or array.dtype.kind == "f"):
        given = f"{array.dtype} of shape {shape}" if shape else type(image).__name__
        raise UsageError(f"{_ACCEPTED}; not {given}{_hint(shape, tensor)}")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also where they are NaN
            raise UsageError(f"{_ACCEPTED}; not floats in {low:.9g}..{high:.9g}")
    if array.ndim == 3:
        array = np.moveaxis(array, 0, -1) if tensor else array
        array = array[..., :3] if channels > 2 else array[..., 0]
    if array.dtype != np.uint8:
        array = from_float(to_float(array.astype(np.float32) if array.dtype == np.float16 else array), np.uint8)
    return np.ascontiguousarray(array)


def _hint(shape: tuple[int, ...], tensor: bool) -> str:
    """What a wrong shape may come from."""
    if len(shape) == 4:
        return ": give the images one by one"
    if len(shape) == 3 and shape[-1 if tensor else 0] in (1, 2, 3, 4) and shape[0 if tensor else -1] not in (1, 2, 3, 4):
        return ": channels first, image.permute(2, 0, 1)" if tensor else ": channels last, image.transpose(1, 2, 0)"
    return ""


def as_images(images: Any, *, empty: bool = False) -> list[Any]:
    """Several images, each as :func:`as_pixels` takes it, of a list or of an array or tensor of four dimensions.

    Raises:
        UsageError: one image alone, something else, or none unless ``empty``.
    """
    array = is_tensor(images) or isinstance(images, np.ndarray)
    good = images.ndim == 4 if array else isinstance(images, Sequence) and not isinstance(images, (str, bytes))
    if not good:
        given = f"an array of shape {tuple(images.shape)}" if array else type(images).__name__
        raise UsageError(f"features take a list of images, not {given}; of one image: [image]")
    if not len(images) and not empty:
        raise UsageError("features take a list of at least one image")
    return list(images)


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 by BT.601."""
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels


def rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8; where it is grey, three times the same."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


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
