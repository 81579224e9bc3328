"""Images of any kind as plain arrays; loads neither torch nor Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.image.base import is_tensor

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
