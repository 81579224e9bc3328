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

import glob
import io
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from saccade.types.errors import DataError

if TYPE_CHECKING:  # torch and torchvision take seconds to load, and arrays need neither
    import torch
    from torchvision import tv_tensors

MAX_PIXELS = 89_478_485
"""Most pixels of an image: Pillow's own limit (a quarter of a gigabyte as RGB)."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "DIB", "JPEG2000", "AVIF")
"""Pillow's names of the formats that are opened (AVIF where Pillow was built with it)."""

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp .pgm .ppm .pbm .pnm .jp2 .j2k .mpo .avif".split()  # noqa: SIM905
)
"""Lower-case suffixes by which images are picked out of a folder; what a file is, its content decides."""

STUB = b"saccade: an image in an archive\n"
"""First bytes of a file that stands for an image in an archive (:mod:`saccade.data.archive`)."""

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


def find_images(inputs: Iterable[str | Path]) -> Iterator[str]:
    """Image files of files, folders (all levels, sorted) and globs.

    Raises:
        DataError: a name that is nothing, or a folder without images.
    """
    for item in inputs:
        text = str(item)
        if os.path.isdir(text):
            count = 0
            for folder, folders, files in os.walk(text):
                folders.sort()
                for name in sorted(files):
                    if is_image_name(name):
                        count += 1
                        yield os.path.join(folder, name)
            if not count:
                raise DataError(text, "holds no images")
        elif os.path.exists(text):
            yield text
        else:
            found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []
            if not found:
                raise DataError(text, "does not exist" if not glob.has_magic(text) else "matches no file")
            yield from (name for name in found if os.path.isfile(name))


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
    import torch
    from torchvision import tv_tensors

    with _opened(path) as image:
        return tv_tensors.Image(torch.from_numpy(_planes(image, path, channels)))


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image to (H, W, 3) uint8 RGB: the pixels of :func:`read_image` with 3 channels. Loads no torch.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(path) as image:
        return np.ascontiguousarray(_planes(image, path, 3).transpose(1, 2, 0))


def read_array(path: str | Path) -> np.ndarray:
    """Decode an image with all that it holds: (H, W) grey, or (H, W, C) with C 2 (grey and alpha), 3 (RGB) or 4; 8 or 16 bits.

    For work on pixels (uint8, or uint16 of 16-bit files), where :func:`read_image` is for models. Palettes become
    colours, CMYK and the like RGB; EXIF orientation is applied. OpenCV decodes colours of 16 bits, which Pillow cuts to 8.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(path) as image:
        turn, deep = _orientation(image), _is_deep_color(image)
        if deep and image.format == "TIFF":
            turn = Image.Image.getexif(image).get(_ORIENTATION, 1)
        if deep:
            mode = image.mode
            image.load()  # a truncated file is found here
            return np.array(_turned(_deep_color(file_bytes(path), mode), turn), order="C")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            values = np.asarray(image)
            if values.dtype.kind == "f" or (values.itemsize > 2 and (values.min() < 0 or values.max() > 65535)):
                raise DataError(path, f"holds pixels of mode {image.mode}", hint="save it with 8 or 16 bits")
            return np.array(_turned(values.astype(np.uint16), turn), order="C")
        clear = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        grey = image.mode in ("1", "L", "LA", "La")
        return np.array(_turned(np.asarray(image.convert(("L" if grey else "RGB") + ("A" if clear else ""))), turn), order="C")


def _is_deep_color(image: Image.Image) -> bool:
    """Whether a file holds 16 bits a channel of colours or of grey and alpha, as its decoder's raw mode says ("RGB;16B")."""
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    return image.mode in ("RGB", "RGBA", "RGBX", "LA") and isinstance(raw, str) and ";16" in raw


def _deep_color(content: bytes, mode: str) -> np.ndarray:
    """(H, W, C) uint16 of a file's bytes, as stored (not turned)."""
    import cv2

    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.ndim != 3:
        raise ValueError("16-bit colours of an unknown layout")
    if mode == "LA":
        return array[..., [0, 3]] if array.shape[2] == 4 else array
    return array[..., [2, 1, 0, 3] if array.shape[2] == 4 else [2, 1, 0]]


def pillow_tensor(image: Image.Image) -> torch.Tensor:
    """(C, H, W) uint8 of a Pillow image, as :func:`read_image` gives for its file; the image is not changed.

    Raises:
        DataError: it cannot be decoded, or holds no or too many pixels.
    """
    import torch

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


def read_colors(path: str | Path) -> np.ndarray:
    """(H, W) uint32, the colour 0xRRGGBB of every pixel: palettes by their colours, grey as r = g = b, alpha dropped, EXIF applied.

    Raises:
        DataError: as :func:`read_image`, and for more than 8 bits a channel.
    """
    with _opened(path) as image:
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise DataError(path, f"is a mask of mode {image.mode}", hint="a mask in colours has 8 bits a channel")
        turn = _orientation(image)
        image.info.pop("transparency", None)
        rgb = _turned(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), turn)
    packed = np.zeros((*rgb.shape[:2], 4), dtype=np.uint8)
    packed[..., :3] = rgb[..., ::-1]
    return packed.view("<u4")[..., 0]


def read_color_mask(path: str | Path, colors: Mapping[int, int], *, nearest: bool = False) -> np.ndarray:
    """(H, W) uint16 values of a class mask in colours.

    Args:
        path: the file.
        colors: value 0..65534 of each colour 0xRRGGBB.
        nearest: a colour that is not among them counts as the nearest one (Euclidean in RGB); else it is an error.

    Raises:
        DataError: as :func:`read_colors`, or a pixel has another colour.
    """
    packed = read_colors(path)
    values = _color_table(tuple(sorted(colors.items())))[packed]
    unknown = values == 0
    if unknown.any():
        strange, where = np.unique(packed[unknown], return_inverse=True)
        known = np.array(sorted(colors), dtype=np.uint32)
        if not nearest:
            shown = ", ".join(f"#{c:06x}" for c in known[:12])
            hint = f"known colours: {shown}; name it in the table of colours"
            raise DataError(path, f"the mask's colour #{strange[0]:06x} is no class", hint=hint)
        near = np.array([colors[c] for c in known[nearest_colors(strange, known)].tolist()], dtype=np.uint16)
        values[unknown] = near[where.reshape(-1)] + 1
    return values - np.uint16(1)


def nearest_colors(colors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) index of the nearest of ``known`` for each of N colours 0xRRGGBB; of several equally near the first."""
    shifts = np.array([16, 8, 0], dtype=np.uint32)
    a, b = ((c[:, None] >> shifts & 255).astype(np.int32) for c in (colors, known))
    out = np.empty(len(a), dtype=np.int64)
    step = max(1, 2**20 // len(b))  # bounds the memory
    for start in range(0, len(a), step):
        out[start : start + step] = ((a[start : start + step, None] - b) ** 2).sum(-1).argmin(1)
    return out


@lru_cache(maxsize=4)
def _color_table(colors: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Value + 1 of every 24-bit colour, 0 where it is unknown; pages of colours that never occur take no memory."""
    table = np.zeros(1 << 24, dtype=np.uint16)
    for color, value in colors:
        table[color] = value + 1
    return table


def is_colored(path: str | Path) -> bool:
    """Whether a file holds colours: an image of three channels or more, which are not equal. Palette images hold values.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(path) as image:
        if image.mode not in ("RGB", "RGBA", "RGBX", "YCbCr", "CMYK", "LAB", "HSV"):
            return False
        rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return not (np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2]))


def is_indexed(path: str | Path) -> bool:
    """Whether a file is a palette image; only its header is read.

    Raises:
        DataError: as :func:`read_image`, for what the header shows.
    """
    with _opened(path) as image:
        return image.mode in ("P", "PA")


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) from the file's header, turned as EXIF says; no pixel is decoded.

    Raises:
        DataError: as :func:`read_image`, for what the header shows.
    """
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_thumbnail(path: str | Path, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """(side, side) uint8 grey area means of the whole picture, aspect ratio not kept; and its (H, W) as shown.

    A JPEG is decoded at half, a quarter or an eighth of its size where that is at least ``side``, which saves most of the time.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(path) as image:
        width, height = image.size
        turn = _orientation(image)
        image.draft("L", (side, side))  # does nothing to other formats
        grey = Image.fromarray(_planes(image, path, 1, turn)[0])
        size = (width, height) if turn >= 5 else (height, width)
        return np.asarray(grey.resize((side, side), Image.Resampling.BOX)), size


class ImageFacts(NamedTuple):
    """What an image file is, decoded whole: ``format`` and ``mode`` in Pillow's words, size in pixels as shown (turned), EXIF
    orientation 1..8, frames or pages, and the least and greatest 8-bit value of any channel.
    """

    format: str
    mode: str
    height: int
    width: int
    turn: int
    frames: int
    low: int
    high: int


def image_facts(path: str | Path) -> ImageFacts:
    """What an image file is; all its pixels are decoded, so a truncated file does not pass.

    Raises:
        DataError: as :func:`read_image`.
    """
    with _opened(path) as image:
        mode, form, turn, frames = image.mode, image.format or "", _orientation(image), int(getattr(image, "n_frames", 1))
        planes = _planes(image, path, None, turn)
        return ImageFacts(form, mode, planes.shape[1], planes.shape[2], turn, frames, int(planes.min()), int(planes.max()))


@lru_cache(1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def file_bytes(path: str | Path) -> bytes:
    """The bytes of an image file as they are; of an image in an archive that is read in place, those in the archive.

    Raises:
        DataError: the archive is gone, has changed or is broken.
        OSError: the file cannot be read.
    """
    return _member(path, Path(path).read_bytes())[0]


def _member(path: str | Path, content: bytes) -> tuple[bytes, str | Path]:
    """The content, or what it stands for in an archive; and the name for messages."""
    if content.startswith(STUB):
        from saccade.data.archive import member_bytes

        return member_bytes(path, content) or (content, path)
    return content, path


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
            if status.st_size > _WHOLE:
                content, name = None, path
            else:
                content, name = _member(path, file.read())
            source = file if content is None else io.BytesIO(content)
            with _decoding(name), Image.open(source, formats=_formats()) as image:
                _check_size(image, name)
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
