"""Channels and colour spaces (CANON row I3). RGB is sRGB, channels last, red first.

A colour space's values are spread over the range of the dtype, so that every result is an image again:

=========  ==================================================================================================================
HSV        hue: 0..360 degrees over the range (white is 360, the same as 0), saturation and value: 0..1
Lab        CIE 1976, D65: L 0..100 over the range, a and b as (a + 128) / 255 of it (OpenCV's 8-bit convention for every dtype)
YCbCr      ITU-R BT.601, full range (JPEG's): Y, then Cb and Cr around the middle (128 of 255)
=========  ==================================================================================================================

An alpha channel stays as it is, except where said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from saccade.image.base import from_float, in_range, in_strips, luma, operation, same_shape, to_float, white
from saccade.types.errors import UsageError

_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.5], [0.5, -0.587 / 1.402, -0.114 / 1.402]])
_RGB = np.linalg.inv(_YCBCR)
_VALUES = 3 * 2**18  # of a strip: what is computed of a pixel is little, and smaller ones cost more to hand out


def _rgb(name: str, image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"{name} takes an image of three channels, this one has {1 if image.ndim == 2 else image.shape[2]}")
    return image


def _by_strips(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A pixelwise function of float HW3 in 0..1, strip by strip of rows, in the dtype of the image."""
    return in_strips(image, lambda x: from_float(change(to_float(x)), image.dtype))


@operation(row="I3", formula="f -> f_1, ..., f_C", alpha="apply", gives="images")
def split(image: np.ndarray) -> list[np.ndarray]:
    """The channels as grey images; alpha is one of them. NumPy.

    >>> [c.tolist() for c in split(np.array([[[1, 2, 3]]], np.uint8))]
    [[[1]], [[2]], [[3]]]
    """
    return [image] if image.ndim == 2 else [image[..., c] for c in range(image.shape[2])]


@operation(row="I3", formula="f_1, ..., f_C -> f", alpha="refuse", inputs=0)
def merge(images: Sequence[np.ndarray]) -> np.ndarray:
    """1 to 4 grey images as the channels of one: undoes :func:`split`. OpenCV.

    >>> merge([np.full((1, 1), v, np.uint8) for v in (1, 2, 3)]).tolist()
    [[[1, 2, 3]]]
    """
    if len(images) > 4 or any(x.ndim != 2 for x in images):
        raise UsageError("merge takes 1 to 4 grey images")
    same_shape("merge", images)
    import cv2

    return cv2.merge(list(images))


@operation(row="I3", formula="(R, G, B) -> (B, G, R)")
def rgb_to_bgr(image: np.ndarray) -> np.ndarray:
    """The channels the other way round, as OpenCV stores them; its own inverse. OpenCV, NumPy for float64.

    >>> rgb_to_bgr(np.array([[[1, 2, 3]]], np.uint8)).tolist()
    [[[3, 2, 1]]]
    """
    _rgb("rgb_to_bgr", image)
    if image.dtype == np.float64:
        return image[..., ::-1]
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


@operation(row="I3", formula="Y = 0.299 R + 0.587 G + 0.114 B")
def rgb_to_gray(image: np.ndarray) -> np.ndarray:
    """Grey by ITU-R BT.601; a grey image stays as it is. OpenCV, NumPy for float64.

    >>> rgb_to_gray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist()
    [[76, 150, 29]]
    """
    return luma(image if image.ndim == 2 else _rgb("rgb_to_gray", image))


@operation(row="I3", formula="R = G = B = Y")
def gray_to_rgb(image: np.ndarray) -> np.ndarray:
    """Three equal channels; a colour image stays as it is. OpenCV."""
    if image.ndim == 3:
        return _rgb("gray_to_rgb", image)
    import cv2

    return cv2.merge([image] * 3) if image.dtype == np.float64 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


@operation(row="I3", formula="V = max, S = (max - min)/max, H = angle of the greatest channel (Smith 1978)")
def rgb_to_hsv(image: np.ndarray) -> np.ndarray:
    """Hue, saturation, value (Smith 1978), each over the range of the dtype. OpenCV in float32, scikit-image for float64.

    >>> rgb_to_hsv(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)).tolist()
    [[[0, 255, 255], [85, 255, 255], [170, 255, 255], [0, 0, 9]]]
    """
    _rgb("rgb_to_hsv", image)
    if image.dtype == np.float64:
        from skimage.color import rgb2hsv

        return np.asarray(rgb2hsv(image))
    import cv2

    if image.dtype != np.uint8:
        return _by_strips(image, lambda x: cv2.transform(cv2.cvtColor(x, cv2.COLOR_RGB2HSV), np.diag([1 / 360, 1, 1])))

    def change(strip: np.ndarray) -> np.ndarray:  # of values in 0..255, hue and saturation are the same
        hsv = cv2.cvtColor(strip.astype(np.float32), cv2.COLOR_RGB2HSV)
        return np.asarray(cv2.convertScaleAbs(cv2.transform(hsv, np.diag([255 / 360, 255, 1]))))

    return in_strips(image, change, values=_VALUES)


@operation(row="I3", formula="the inverse of rgb_to_hsv")
def hsv_to_rgb(image: np.ndarray) -> np.ndarray:
    """RGB of hue, saturation, value as :func:`rgb_to_hsv` gives them. OpenCV in float32, scikit-image for float64."""
    _rgb("hsv_to_rgb", image)
    if image.dtype == np.float64:
        from skimage.color import hsv2rgb

        return in_range(np.asarray(hsv2rgb(image)), image.dtype)
    import cv2

    if image.dtype != np.uint8:
        return _by_strips(image, lambda x: cv2.cvtColor(cv2.transform(x, np.diag([360.0, 1, 1])), cv2.COLOR_HSV2RGB))

    def change(strip: np.ndarray) -> np.ndarray:
        hsv = cv2.transform(strip.astype(np.float32), np.diag([360 / 255, 1 / 255, 1]))
        return np.asarray(cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)))

    return in_strips(image, change, values=_VALUES)


@operation(row="I3", formula="L = 116 h(Y/Yn) - 16, a = 500 (h(X/Xn) - h(Y/Yn)), b = 200 (h(Y/Yn) - h(Z/Zn))")
def rgb_to_lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* 1976 of sRGB, D65: L / 100, (a + 128) / 255 and (b + 128) / 255 of the range. OpenCV for uint8, else scikit-image.

    >>> rgb_to_lab(np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)).tolist()
    [[[255, 128, 128], [0, 128, 128], [136, 208, 195]]]
    """
    _rgb("rgb_to_lab", image)
    if image.dtype == np.uint8:
        import cv2

        return cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    from skimage.color import rgb2lab

    return _by_strips(image, lambda x: (rgb2lab(x) + np.array([0, 128, 128], x.dtype)) / np.array([100, 255, 255], x.dtype))


@operation(row="I3", formula="the inverse of rgb_to_lab")
def lab_to_rgb(image: np.ndarray) -> np.ndarray:
    """Back from L*a*b* as :func:`rgb_to_lab` gives it; colours outside sRGB are clipped. OpenCV for uint8, else scikit-image."""
    _rgb("lab_to_rgb", image)
    if image.dtype == np.uint8:
        import cv2

        return cv2.cvtColor(image, cv2.COLOR_Lab2RGB)
    import warnings

    from skimage.color import lab2rgb

    def change(x: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about clipped colours
            return np.asarray(lab2rgb(x * np.array([100, 255, 255], x.dtype) - np.array([0, 128, 128], x.dtype)))

    return _by_strips(image, change)


def _middle(image: np.ndarray) -> float:
    """Where Cb and Cr are zero: 128 and 32768 of 8 and 16 bits, half a level above the half of the range."""
    return 0.5 if image.dtype.kind == "f" else (white(image) + 1) / 2 / white(image)


@operation(row="I3", formula="Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y)/1.772 + 1/2, Cr = (R - Y)/1.402 + 1/2")
def rgb_to_ycbcr(image: np.ndarray) -> np.ndarray:
    """Luma and colour differences of ITU-R BT.601, full range as in JPEG. OpenCV for uint8, else NumPy.

    >>> rgb_to_ycbcr(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)).tolist()
    [[[255, 128, 128], [76, 85, 255]]]
    """
    _rgb("rgb_to_ycbcr", image)
    if image.dtype == np.uint8:
        import cv2

        return np.asarray(cv2.transform(image, np.column_stack([_YCBCR, [0, 128, 128]])))
    middle = _middle(image)
    return _by_strips(image, lambda x: x @ _YCBCR.T.astype(x.dtype) + np.array([0, middle, middle], x.dtype))


@operation(row="I3", formula="R = Y + 1.402 (Cr - 1/2), B = Y + 1.772 (Cb - 1/2), G = (Y - 0.299 R - 0.114 B)/0.587")
def ycbcr_to_rgb(image: np.ndarray) -> np.ndarray:
    """RGB of Y, Cb, Cr as :func:`rgb_to_ycbcr` gives them; what leaves the range is clipped. OpenCV for uint8, else NumPy."""
    _rgb("ycbcr_to_rgb", image)
    if image.dtype == np.uint8:
        import cv2

        return np.asarray(cv2.transform(image, np.column_stack([_RGB, _RGB @ [0, -128, -128]])))
    inverse = _RGB.T
    middle = _middle(image)
    return _by_strips(image, lambda x: (x - np.array([0, middle, middle], x.dtype)) @ inverse.astype(x.dtype))


@operation(row="I3", formula="bits a channel times channels", alpha="apply", gives="value")
def bits_per_pixel(image: np.ndarray) -> int:
    """Bits that a pixel takes, alpha counted.

    >>> bits_per_pixel(np.zeros((2, 2), np.uint8)), bits_per_pixel(np.zeros((2, 2, 3), np.uint8))
    (8, 24)
    """
    return int(image.itemsize * 8 * (1 if image.ndim == 2 else image.shape[2]))
