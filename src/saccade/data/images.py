"""Pixels from files: decoded by content, never by name, with the limit on pixels checked before anything is decoded.

What an image file becomes (:func:`read_image`), C 1 or 3, always uint8:

=====================  =========================================================================================
grey, 1 bit            as it is; 1 bit becomes 0 and 255
16-bit grey            ``round(v / 257)``, so 0 and 65535 become 0 and 255 (12-bit data in 16 bits stay dark)
16-bit colour          the high byte
32-bit grey            as 16-bit when all values are in 0..65535, else an error; floats are an error: they have no range
palette                RGB by its palette
alpha (LA, RGBA, ...)  dropped, the colours below it are kept: what ``cv2.imread`` and torchvision's RGB mode do
CMYK, YCbCr, Lab       RGB by Pillow
animation, pages       the first
EXIF orientation       applied, so that an upright photo is upright; also in :func:`image_size`
=====================  =========================================================================================

A truncated file is an error, never a picture that is half grey. Only raster formats are opened (no EPS, which runs Ghostscript).
Importing this module turns Pillow's warning about very large images into an error, as Pillow's documentation advises.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from saccade.types.errors import DataError

MAX_PIXELS = 89_478_485
"""Most pixels of an image: Pillow's own limit (a quarter of a gigabyte as RGB)."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "DIB", "JPEG2000", "AVIF")
"""Pillow's names of the formats that are opened (AVIF where Pillow was built with it)."""

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .pgm .ppm .pbm .pnm .jp2 .j2k .mpo .avif".split()  # noqa: SIM905
)
"""Lower-case suffixes by which images are picked out of a folder; what a file is, its content decides."""

_WHOLE = 64 * 2**20  # files up to this size are read at once, which is faster than many small reads
_GREY = ("1", "L", "LA", "La", "I", "F")
_ORIENTATION = 0x0112

warnings.simplefilter("error", Image.DecompressionBombWarning)


def is_image_name(path: str | Path) -> bool:
    """Whether a folder scan takes the file for an image.

    >>> is_image_name("a/B.JPEG"), is_image_name("notes.txt"), is_image_name(".png")
    (True, False, False)
    """
    return os.path.splitext(os.path.basename(path))[1].lower() in IMAGE_SUFFIXES


def read_image(path: str | Path, channels: int | None = None) -> tv_tensors.Image:
    """Decode an image to (C, H, W) uint8; C is 3 (RGB) or 1 (grey).

    Args:
        path: the file.
        channels: 1 or 3 to convert (BT.601 grey, or grey repeated); None keeps grey images grey.

    Raises:
        DataError: the file is missing, no image, truncated, or larger than :data:`MAX_PIXELS`.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is 1, 3 or None, not {channels!r}")
    with _opened(path) as image:
        return tv_tensors.Image(torch.from_numpy(_planes(image, path, channels)))


def pillow_tensor(image: Image.Image) -> torch.Tensor:
    """(C, H, W) uint8 of a Pillow image, as :func:`read_image` gives for its file; the image is not changed.

    Raises:
        DataError: it cannot be decoded, or holds no or too many pixels.
    """
    name = getattr(image, "filename", "") or "Pillow image"
    with _decoding(name):
        _check_size(image, name)
        turn = _orientation(image)  # a copy forgets its format
        if "transparency" in image.info:
            image = image.copy()
        return torch.from_numpy(_planes(image, name, None, turn))


def _planes(image: Image.Image, path: str | Path, channels: int | None, turn: int | None = None) -> np.ndarray:
    """(C, H, W) uint8 of an opened image, as the module says."""
    turn = _orientation(image) if turn is None else turn
    if image.mode in _GREY or image.mode.startswith("I;16"):
        grey = _turned(_grey8(image, path), turn)
        return np.array(np.broadcast_to(grey, (channels or 1, *grey.shape)))
    image.info.pop("transparency", None)  # Pillow warns about some of them, and alpha is dropped anyway
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if channels == 1:
        return np.array(_turned(np.asarray(rgb.convert("L")), turn)[None])
    return np.array(_turned(np.asarray(rgb), turn).transpose(2, 0, 1), order="C")


def read_mask(path: str | Path) -> np.ndarray:
    """(H, W) raw values of a class mask: palette indices, grey levels or 16-bit values as stored (uint8, uint16 or int32).

    An RGB mask is taken when its three channels are equal. EXIF orientation is applied, as for images.

    Raises:
        DataError: as :func:`read_image`, and for a mask in colours.
    """
    with _opened(path) as image:
        turn = _orientation(image)
        mode, scale = image.mode, _grey_scale(image)
        if mode in ("LA", "PA"):
            image = image.getchannel(0)
        elif mode in ("RGB", "RGBA", "RGBX"):
            red, green, blue = (np.asarray(image.getchannel(k)) for k in range(3))
            if not (np.array_equal(red, green) and np.array_equal(red, blue)):
                raise DataError(path, "is a mask in colours", hint="a mask is an indexed (palette) or grey image whose values are classes")
            return np.array(_turned(red, turn))
        elif mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
            raise DataError(path, f"is a mask of mode {mode}", hint="a mask is an indexed (palette) or grey image of 1 to 16 bits")
        values = np.array(_turned(np.asarray(image), turn))
    if values.dtype == bool:
        return values.astype(np.uint8)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values // scale if scale > 1 else values


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) from the file's header, turned as EXIF says; no pixel is decoded.

    Raises:
        DataError: as :func:`read_image`, for what the header shows.
    """
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


@lru_cache(1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The image with its header read and checked; what Pillow raises on broken bytes becomes a DataError."""
    with _decoding(path):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(path, "is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(path, "is not a regular file")
        if status.st_size == 0:
            raise DataError(path, "is empty (0 bytes)")
        with open(path, "rb") as file:
            source = io.BytesIO(file.read()) if status.st_size <= _WHOLE else file
            with Image.open(source, formats=_formats()) as image:
                _check_size(image, path)
                yield image


def _check_size(image: Image.Image, path: str | Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(path, f"is {width}x{height} pixels, more than {MAX_PIXELS / 1e6:.0f} million", hint="cut it into tiles")
    if width < 1 or height < 1:
        raise DataError(path, "has no pixels")


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    """Whatever Pillow raises becomes a DataError."""
    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(path, f"has more than {MAX_PIXELS / 1e6:.0f} million pixels", hint="cut it into tiles") from None
    except Image.UnidentifiedImageError:
        raise DataError(path, "is no image of a known format") from None
    except FileNotFoundError:
        raise DataError(path, "does not exist") from None
    except Exception as error:  # parsers of hostile bytes raise struct.error, KeyError, zlib.error ...
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
        raise DataError(path, f"cannot be decoded: {reason}") from None


def _grey8(image: Image.Image, path: str | Path) -> np.ndarray:
    """(H, W) uint8 of an image without colour, as the module says."""
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    elif image.mode == "1":
        image = image.convert("L")
    values = np.asarray(image)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        raise DataError(path, "holds floating-point pixels, which have no range", hint="save it with 8 or 16 bits")
    if values.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
        raise DataError(path, "holds 32-bit pixels outside 0..65535", hint="save it with 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey_scale(image: Image.Image) -> int:
    """The factor by which Pillow spreads a grey PNG of 2 or 4 bits over 0..255."""
    tile = getattr(image, "tile", None)
    rawmode = tile[0].args if tile and image.format == "PNG" else None
    return {"L;2": 85, "L;4": 17}.get(rawmode if isinstance(rawmode, str) else "", 1)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 as the header states it; Pillow turns TIFF by itself. Broken EXIF counts as none."""
    if image.format == "TIFF":
        return 1
    try:
        # PNG: the base class's method; the plugin's own would decode the image to look for a late chunk.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W[, C]) as EXIF orientation 1..8 wants it shown."""
    if orientation in (5, 6, 7, 8):  # stored sideways: along the diagonal first
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array
