"""Key points of an image and their descriptors: one dataclass, one function for all detectors, files.

==============  =====================================================================================================
sift            extrema of differences of Gaussians, 128 floats (:mod:`saccade.features.sift`)
surf            maxima of a box-filter Hessian, 64 floats (:mod:`saccade.features.surf`)
orb             oriented FAST corners over scales, 256 bits (:mod:`saccade.features.orb`)
brief           corners of another detector, 256 bits, upright (:mod:`saccade.features.brief`)
fast            corners by the segment test, no descriptor (:mod:`saccade.features.fast`)
harris          corners of the structure tensor, no descriptor (:mod:`saccade.features.corners`)
shi_tomasi      the same by the smaller eigenvalue, no descriptor
log, dog        blobs of Laplacians or differences of Gaussians, no descriptor
==============  =====================================================================================================

>>> import numpy as np
>>> len(detect(np.zeros((64, 64), np.uint8), "surf"))
0
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.features.names import check_whole, read_options, split_kind
from saccade.features.pixels import as_pixels, rgb
from saccade.types.errors import DataError, MissingExtra, UsageError, suggest
from saccade.types.files import atomic

KINDS = {
    "sift": "saccade.features.sift:sift",
    "surf": "saccade.features.surf:surf",
    "orb": "saccade.features.orb:orb",
    "brief": "saccade.features.brief:brief",
    "fast": "saccade.features.fast:fast",
    "harris": "saccade.features.corners:harris",
    "shi_tomasi": "saccade.features.corners:shi_tomasi",
    "log": "saccade.features.corners:log",
    "dog": "saccade.features.corners:dog",
}
DESCRIBED = ("sift", "surf", "orb", "brief")
"""The kinds with descriptors, which can be matched."""

COLUMNS = ("points", "sizes", "angles", "responses", "descriptors")


@dataclass(frozen=True, eq=False)
class Keypoints:
    """N key points of one image, strongest first.

    Attributes:
        points: (N, 2) float32 x and y in pixels; the centre of the top left pixel is (0.5, 0.5).
        sizes: (N,) float32 diameter of what a point stands for, in pixels.
        angles: (N,) float32 degrees, 0 <= a < 360, from the x axis towards the y axis (clockwise on the screen); NaN for points without.
        responses: (N,) float32 strength, comparable within one kind only.
        descriptors: (N, D) float32, or uint8 for bits (eight a byte, compared by Hamming's distance); D = 0 for points without.
        kind: what found them: a name of :data:`KINDS`.
        image_size: (H, W) of the image.
    """

    points: np.ndarray
    sizes: np.ndarray
    angles: np.ndarray
    responses: np.ndarray
    descriptors: np.ndarray
    kind: str
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        count = len(self.points)
        if self.points.shape != (count, 2) or self.descriptors.ndim != 2 or len(self.descriptors) != count:
            raise UsageError(f"key points are (N, 2) with descriptors (N, D), not {self.points.shape} and {self.descriptors.shape}")
        for name in ("sizes", "angles", "responses"):
            if getattr(self, name).shape != (count,):
                raise UsageError(f"{count} key points have {count} {name}, not {getattr(self, name).shape}")
        if self.descriptors.dtype not in (np.float32, np.uint8):
            raise UsageError(f"descriptors are float32 or uint8, not {self.descriptors.dtype}")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def binary(self) -> bool:
        """Whether the descriptors are bits."""
        return bool(self.descriptors.dtype == np.uint8)

    def take(self, which: np.ndarray) -> Keypoints:
        """Those of an index or mask, in its order."""
        return replace(self, **{name: getattr(self, name)[which] for name in COLUMNS})

    def strongest(self, count: int | None = None) -> Keypoints:
        """Sorted by response, of equals the first; at most ``count``."""
        if count is not None:
            check_whole(1, None, limit=count)
        return self.take(np.argsort(-self.responses, kind="stable")[:count])

    def draw(self, image: Any) -> np.ndarray:
        """(H, W, 3) uint8: the image with a circle of its size around each point, and a line from its centre where it has an angle.

        Raises:
            UsageError: not an image as :func:`detect` takes it.
        """
        import cv2

        picture = rgb(as_pixels(image)).copy()
        # OpenCV's pixel centres are whole numbers; four bits of fraction.
        places = np.rint((self.points - 0.5) * 16).astype(int)
        radii = np.maximum(np.rint(self.sizes * 8).astype(int), 24)
        for (x, y), radius, angle in zip(places.tolist(), radii.tolist(), np.radians(self.angles).tolist(), strict=True):
            for shade, width in (((0, 0, 0), 3), ((90, 255, 90), 1)):
                cv2.circle(picture, (x, y), radius, shade, width, cv2.LINE_AA, 4)
                if angle == angle:
                    end = (round(x + radius * np.cos(angle)), round(y + radius * np.sin(angle)))
                    cv2.line(picture, (x, y), end, shade, width, cv2.LINE_AA, 4)
        return picture

    def columns(self) -> dict[str, np.ndarray]:
        """A column a property: ``x``, ``y``, ``size``, ``angle``, ``response`` and (N, D) ``descriptor``."""
        x, y = self.points.T
        return {"x": x, "y": y, "size": self.sizes, "angle": self.angles, "response": self.responses, "descriptor": self.descriptors}

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` (arrays named as the attributes, no pickle) or a ``.parquet`` (:meth:`columns`; kind and size as metadata).

        Raises:
            UsageError: another suffix.
            MissingExtra: Parquet without pyarrow.
        """
        target = Path(path)
        facts = {"kind": self.kind, "image_size": f"{self.image_size[0]}x{self.image_size[1]}"}
        if target.suffix.lower() == ".npz":
            arrays = {name: getattr(self, name) for name in COLUMNS}
            with atomic(target) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays, kind=np.array(self.kind), image_size=np.array(self.image_size, np.int64))
        elif target.suffix.lower() == ".parquet":
            write_parquet(target, self.columns(), facts)
        else:
            raise UsageError(f"key points are written as .npz or .parquet, not {target.name!r}")

    @classmethod
    def load(cls, path: str | Path) -> Keypoints:
        """What :meth:`save` wrote.

        Raises:
            DataError: the file is missing, broken or holds something else.
            MissingExtra: Parquet without pyarrow.
        """
        source = Path(path)
        if not source.is_file():
            raise DataError(source, "does not exist")
        if source.suffix.lower() == ".parquet":
            return cls._from_parquet(source)
        try:
            with np.load(source, allow_pickle=False) as file:
                arrays = {name: file[name] for name in (*COLUMNS, "kind", "image_size")}
            height, width = (int(side) for side in arrays["image_size"])
            found = {name: np.asarray(arrays[name], np.float32) for name in COLUMNS[:-1]}
            return cls(**found, descriptors=arrays["descriptors"], kind=str(arrays["kind"]), image_size=(height, width))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, MemoryError, zipfile.BadZipFile) as error:
            raise DataError(source, f"holds no key points: {error}") from None
        except UsageError as error:
            raise DataError(source, str(error)) from None

    @classmethod
    def _from_parquet(cls, path: Path) -> Keypoints:
        arrow, parquet = _arrow()
        try:
            table = parquet.read_table(path)
            x, y, size, angle, response = (table[name].to_numpy().astype(np.float32) for name in ("x", "y", "size", "angle", "response"))
            descriptors = np.zeros((len(x), 0), np.float32)
            if "descriptor" in table.column_names:
                lists = table["descriptor"].combine_chunks()
                descriptors = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(x), lists.type.list_size)
            facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            height, across = (int(side) for side in facts["image_size"].split("x"))
            return cls(np.stack([x, y], 1), size, angle, response, descriptors, facts["kind"], (height, across))
        except (OSError, ValueError, KeyError, AttributeError, UsageError, arrow.ArrowException) as error:
            raise DataError(path, f"holds no key points: {error}") from None


def detect(image: Any, kind: str = "sift", **options: Any) -> Keypoints:
    """Key points of an image, with descriptors where the kind has them.

    Args:
        image: array (H, W) or (H, W, C), tensor (H, W) or (C, H, W), C 1 to 4, of uint8, uint16 or floats in 0..1, or Pillow image
            (:func:`saccade.features.pixels.as_pixels`); alpha is dropped, RGB turned to grey (BT.601) of 8 bits.
        kind: a name of :data:`KINDS`, options after it as in a web address: ``"surf?upright=true&limit=500"``.
        options: the same as keyword arguments, as the kind's function takes them; ``limit`` keeps the strongest.

    Returns:
        Strongest first; none for a flat image.

    Raises:
        UsageError: unknown kind or option (with a suggestion), a value that cannot be, or no such image.
    """
    name, query = split_kind(kind)
    if name not in KINDS:
        raise UsageError(f"there are no key points {name!r}{suggest(name, KINDS)}")
    module, _, function_name = KINDS[name].partition(":")
    function = getattr(importlib.import_module(module), function_name)
    found: Keypoints = function(image, **read_options(query, function, text=kind, given=options))
    return found


def no_keypoints(kind: str, image_size: tuple[int, int], width: int = 0, *, binary: bool = False) -> Keypoints:
    """None at all, with the arrays' shapes right."""
    none = np.zeros(0, np.float32)
    return Keypoints(
        np.zeros((0, 2), np.float32), none, none, none, np.zeros((0, width), np.uint8 if binary else np.float32), kind, image_size
    )


def to_opencv(keypoints: Keypoints) -> list[Any]:
    """OpenCV's key points, whose pixel centres are whole numbers; ``class_id`` is the number of the point."""
    import cv2

    angles = np.where(np.isnan(keypoints.angles), -1, keypoints.angles).tolist()
    places = (keypoints.points - 0.5).tolist()
    rows = zip(places, keypoints.sizes.tolist(), angles, keypoints.responses.tolist(), strict=True)
    return [cv2.KeyPoint(x, y, size, angle, response, 0, i) for i, ((x, y), size, angle, response) in enumerate(rows)]


def from_opencv(
    points: Sequence[Any], descriptors: np.ndarray | None, kind: str, image_size: tuple[int, int], width: int, *, binary: bool = False
) -> Keypoints:
    """OpenCV's key points and (N, ``width``) descriptors, None for none."""
    if not points:
        return no_keypoints(kind, image_size, width, binary=binary)
    rows = np.array([(*p.pt, p.size, p.angle, p.response) for p in points], np.float32)
    angles = np.where(rows[:, 3] < 0, np.float32(np.nan), rows[:, 3] % np.float32(360))
    values = np.zeros((len(points), 0), np.float32) if descriptors is None else descriptors
    return Keypoints(rows[:, :2] + np.float32(0.5), rows[:, 2], angles, rows[:, 4], values, kind, image_size)


def write_parquet(path: Path, columns: dict[str, Any], facts: dict[str, str]) -> None:
    """A table of equally long columns; ``facts`` are its metadata.

    An (N, D) array is a column of lists of D values, left out when D is 0.

    Raises:
        MissingExtra: no pyarrow.
    """
    arrow, parquet = _arrow()
    made = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.ndim == 1:
            made[name] = arrow.array(array)
        elif array.shape[1]:
            made[name] = arrow.FixedSizeListArray.from_arrays(arrow.array(array.reshape(-1)), array.shape[1])
    table = arrow.table(made, metadata=facts)
    with atomic(path) as temporary:
        parquet.write_table(table, str(temporary))


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet") from None
    return pyarrow, pyarrow.parquet
