"""BSDS500: photographs and the segmentations that several people drew of each. Read only.

``images/SPLIT/NAME.jpg`` with ``groundTruth/SPLIT/NAME.mat`` (Arbelaez, Maire, Fowlkes, Malik, "Contour Detection and Hierarchical Image
Segmentation", PAMI 2011), here or in ``data/`` or ``BSDS500/data/``. A ``.mat`` is MATLAB 5 and holds a cell ``groundTruth``, an entry a
person, each a struct with ``Segmentation`` (region numbers from 1) and ``Boundaries`` (0 and 1).

Conventions:

* The numbers of a segmentation name regions, not classes: region 7 of one image has nothing to do with region 7 of another. So the regions
  are objects of the one class ``region``, with box and run-length mask; together they cover the image. 0 is no region.
* ``annotator=0`` takes the first person's segmentation; images with fewer people are skipped and reported. How many there are stands in
  ``record.extra["annotators"]``. ``Boundaries`` follow from the regions and are not read.
* **Splits** are the folders. An image without a ``.mat``, or whose ``.mat`` has another size, is skipped and reported.

The ``.mat`` files are read by a parser of numbers, cells and structs only, with limits on size and depth: MATLAB functions and objects and
version 7.3 (HDF5) are refused. Nothing is written in this format: it holds several opinions on an image, a data set has one.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import Problems, head, look
from saccade.data.images import image_size, is_image_name
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

NAME = "bsds"
TITLE = "BSDS500"
TASKS = ("detect",)
HOLDS: frozenset[str] = frozenset()

_PLACES = ("", "data/", "BSDS500/data/")
_MAX_FILE, _MAX_INFLATED = 32 * 2**20, 128 * 2**20
_MAX_REGIONS = 10_000


def sniff(root: Path) -> str | None:
    """``groundTruth/SPLIT/*.mat`` of MATLAB 5 beside ``images/``."""
    prefix, splits = _top(Path(root))
    count = sum(len(_mats(Path(root) / prefix, s)) for s in splits)
    return f"{count} .mat file{'s' * (count != 1)} in {prefix}groundTruth" if count else None


def _top(root: Path) -> tuple[str, list[str]]:
    """The folder that holds images/ and groundTruth/, relative to the root, and the folders of groundTruth with .mat files."""
    for prefix in _PLACES:
        if {"images", "groundTruth"} <= set(look(root / prefix).folders):
            base = root / prefix
            splits = [s for s in look(base / "groundTruth").folders if any(_is_mat(base, s, n) for n in _mats(base, s)[:5])]
            if splits:
                return prefix, splits
    return "", []


def _mats(base: Path, split: str) -> list[str]:
    return [n for n in look(base / "groundTruth" / split).files if n.lower().endswith(".mat")]


def _is_mat(base: Path, split: str, name: str) -> bool:
    return head(base, f"groundTruth/{split}/{name}", 128).startswith(b"MATLAB ")


def read(root: Path, annotator: int = 0) -> DataIndex:
    """The images with the regions of one person.

    Args:
        root: the folder of images/ and groundTruth/, or one above.
        annotator: number of the person, from 0.

    Raises:
        UsageError: no such number.
        DataError: no BSDS, or not one usable image.
    """
    root = Path(root)
    if not str(annotator).isdecimal() or len(str(annotator)) > 6:
        raise UsageError(f"annotator is the number of a person from 0 on, not {annotator!r}")
    prefix, splits = _top(root)
    if not splits:
        raise DataError(root, "holds no BSDS", hint="expected images/SPLIT/*.jpg and groundTruth/SPLIT/*.mat of MATLAB 5")
    base = root / prefix
    problems = Problems(base)
    records: list[Record] = []
    members: dict[str, list[int]] = {}
    ids: set[str] = set()
    for split in splits:
        finder = fs.ImageFinder(base, [f"images/{split}"])
        for name in _mats(base, split):
            path = base / "groundTruth" / split / name
            try:
                record = _record(path, finder, int(annotator))
            except DataError as error:
                problems.add("files without a usable segmentation", error.path, error.problem, where=error.where, hint="skipped")
                continue
            record.image_id = f"{split}/{path.stem}" if path.stem in ids else path.stem
            ids.add(path.stem)
            members.setdefault(fs.split_name(split), []).append(len(records))
            records.append(record)
        known = {Path(name).stem for name in _mats(base, split)}
        for name in look(base / "images" / split).files:
            if Path(name).stem not in known and is_image_name(name):
                problems.add("images without a .mat", base / "images" / split / name, "has no .mat in groundTruth; skipped")
    if not records:
        raise DataError(root, "holds no usable image", hint=str(problems.list()[0]))
    return DataIndex(
        NAME, base, ["region"], PackedRecords(records), splits={s: np.array(members[s]) for s in sorted(members, key=fs.split_rank)},
        tasks=TASKS, problems=problems.list(), reason=f"{len(records)} images with segmentations",
    )  # fmt: skip


def _record(path: Path, finder: fs.ImageFinder, annotator: int) -> Record:
    image = finder.by_stem(path.stem)
    if image is None:
        raise DataError(path, f"its image {path.stem}.* is missing in {', '.join(finder.folders) or 'images/'}")
    if not fs.stays_inside(path, finder.root):
        raise DataError(path, "is a link out of the data root")
    regions, annotators = read_segmentation(path, annotator)
    size = image_size(finder.root / image)
    if regions.shape != size:
        raise DataError(path, f"its segmentation is {regions.shape[1]}x{regions.shape[0]}, the image {size[1]}x{size[0]}")
    boxes, segments = _objects(regions, path)
    labels = np.zeros(len(boxes), dtype=np.int64)
    return Record(image, path.stem, size, boxes=boxes, labels=labels, segments=segments, extra={"annotators": annotators})


def _objects(regions: np.ndarray, path: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Boxes (N, 4) and run-length codes of the regions by ascending number, from the runs of the columns."""
    from faster_coco_eval.core import mask as coco_mask

    height, width = regions.shape
    flat = regions.T.reshape(-1)
    numbers, where = np.unique(flat, return_inverse=True)
    if len(numbers) > _MAX_REGIONS:
        raise DataError(path, f"has {len(numbers)} regions: no segmentation")
    starts = np.flatnonzero(np.diff(where.reshape(-1), prepend=-1))
    ends, owner = np.append(starts[1:], flat.size), where.reshape(-1)[starts]
    order = np.argsort(owner, kind="stable")
    boxes, codes = [], []
    for k, part in enumerate(np.split(order, np.cumsum(np.bincount(owner, minlength=len(numbers)))[:-1])):
        if numbers[k] == 0:
            continue
        first, last = starts[part], ends[part]
        counts = np.diff(np.stack([first, last], axis=1).reshape(-1), prepend=0, append=flat.size).tolist()
        codes.append({"size": [height, width], "counts": counts if counts[-1] else counts[:-1]})
        # a run that crosses into the next column covers both the top and the bottom row
        whole = first // height != (last - 1) // height
        top = 0 if whole.any() else (first % height).min()
        bottom = height if whole.any() else ((last - 1) % height).max() + 1
        boxes.append([first.min() // height, top, (last.max() - 1) // height + 1, bottom])
    packed = coco_mask.frPyObjects(codes, height, width) if codes else []
    texts = [c["counts"].decode("ascii") if isinstance(c["counts"], bytes) else c["counts"] for c in packed]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4), [{"size": [height, width], "counts": t} for t in texts]


def write(dataset: Dataset, out: Path) -> list[str]:
    """BSDS is not written.

    Raises:
        UsageError: always, with the reason.
    """
    raise UsageError("BSDS500 is only read: it holds segmentations by several people in MATLAB files; write coco, which keeps the regions")


# --------------------------------------------------------------------------------------------------------------- MATLAB 5

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _NUMERIC = 1, 2, range(6, 16)


def read_segmentation(path: Path, annotator: int) -> tuple[np.ndarray, int]:
    """(H, W) region numbers by one person, and the number of people.

    Raises:
        DataError: no MATLAB 5 file of BSDS's kind, or fewer people.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise DataError(path, f"is larger than {_MAX_FILE >> 20} MB: no segmentation")
        data = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(data[126:128], "")
        version = struct.unpack(f"{order}H", data[124:126])[0] if order else 0
        if not data.startswith(b"MATLAB ") or version >> 8 != 1:
            hdf = version >> 8 == 2 or b"\x89HDF" in data[:1024]
            raise DataError(path, "is a MATLAB 7.3 file (HDF5)" if hdf else "is no MATLAB 5 file", hint="save it with -v7" if hdf else "")
        for kind, body in _elements(data[128:], order):
            if kind == _COMPRESSED:
                kind, body = next(_elements(_inflate(body), order))
            if kind == _MATRIX:
                matrix = _Matrix(body, order)
                if matrix.name == "groundTruth":
                    return _segmentation(matrix, annotator)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    except DataError as error:
        raise DataError(path, error.problem, where=error.where, hint=error.hint) from None
    except (ValueError, zlib.error, struct.error, StopIteration, MemoryError, OverflowError) as error:
        raise DataError(path, f"is broken: {error or 'it ends too early'}") from None
    raise DataError(path, "holds no variable groundTruth")


def _segmentation(cell: _Matrix, annotator: int) -> tuple[np.ndarray, int]:
    if cell.kind != _CELL:
        raise ValueError("groundTruth is no cell")
    people = list(cell.children(10_000))
    if annotator >= len(people):
        raise ValueError(f"holds {len(people)} segmentations; number {annotator} (from 0) is not there")
    fields = people[annotator].fields()
    if "Segmentation" not in fields:
        raise ValueError(f"groundTruth {annotator + 1} has no Segmentation")
    values = fields["Segmentation"].array()
    if values.ndim != 2 or not values.size or not ((values >= 0) & (values <= 65535) & (values == np.floor(values))).all():
        raise ValueError(f"the Segmentation of groundTruth {annotator + 1} is no matrix of region numbers 0..65535")
    return values.astype(np.uint16), len(people)


class _Matrix:
    """A miMATRIX element: its header parsed, its content where it is."""

    def __init__(self, body: memoryview, order: str) -> None:
        self.order, self.kind, self.shape, self.name = order, 0, (0, 0), ""
        self._rest: Iterator[tuple[int, memoryview]] = iter(())
        if not len(body):  # MATLAB's way to write an empty one
            return
        self._rest = _elements(body, order)
        flags, dims, name = (self._next()[1] for _ in range(3))
        word = struct.unpack(f"{order}I", flags[:4])[0]
        self.kind, self.complex = word & 0xFF, bool(word & 0x800)
        if len(dims) > 128:
            raise ValueError("a matrix has too many dimensions")
        self.shape = struct.unpack(f"{order}{len(dims) // 4}i", dims[: len(dims) // 4 * 4])
        self.name = bytes(name).decode("latin-1")
        if len(self.shape) < 2 or min(self.shape) < 0:
            raise ValueError(f"a matrix has the size {self.shape}")

    def _next(self) -> tuple[int, memoryview]:
        for item in self._rest:
            return item
        raise ValueError("it ends too early")

    def children(self, most: int) -> Iterator[_Matrix]:
        """The entries of a cell, or the values of a struct's fields."""
        for kind, body in self._rest:
            if kind != _MATRIX or most == 0:
                raise ValueError("a cell or struct is malformed")
            most -= 1
            yield _Matrix(body, self.order)

    def fields(self) -> dict[str, _Matrix]:
        """A struct's values by name."""
        if self.kind != _STRUCT or math.prod(self.shape) != 1:
            raise ValueError("an entry of groundTruth is no struct")
        (_, length), (_, names) = self._next(), self._next()
        step = int.from_bytes(length[:4], "little" if self.order == "<" else "big")
        if not 0 < step <= 64 or len(names) > 64 * step:
            raise ValueError("a struct's names are malformed")
        words = [bytes(names[k : k + step]).split(b"\0")[0].decode("latin-1") for k in range(0, len(names), step)]
        return dict(zip(words, self.children(len(words)), strict=False))

    def array(self) -> np.ndarray:
        """A numeric matrix; stored column by column, and possibly in a smaller type than its own."""
        kind, body = self._next()
        if self.kind not in _NUMERIC or self.complex or kind not in _NUMBERS:
            raise ValueError("a matrix is not numeric")
        values = np.frombuffer(body, dtype=self.order + _NUMBERS[kind])
        if math.prod(self.shape) != values.size:
            raise ValueError(f"a matrix of size {self.shape} has {values.size} values")
        return values.reshape(self.shape, order="F")


def _elements(data: bytes | memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of the elements that follow one another; up to 4 bytes may stand inside the tag."""
    view, at = memoryview(data), 0
    while at + 8 <= len(view):
        kind, size = struct.unpack(f"{order}2I", view[at : at + 8])
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            at += 8
            if size > 4:
                raise ValueError("a small element states more than 4 bytes")
        else:
            start = at + 8
            at = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(view):
            raise ValueError("it ends inside an element")
        yield kind, view[start : start + size]


def _inflate(body: memoryview) -> bytes:
    """Inflated bytes; ValueError when there are too many, or the stream breaks off."""
    inflate = zlib.decompressobj()
    out = inflate.decompress(body, _MAX_INFLATED)
    if not inflate.eof:
        raise ValueError(
            f"it inflates to more than {_MAX_INFLATED >> 20} MB" if len(out) == _MAX_INFLATED else "its compressed part breaks off"
        )
    return out
