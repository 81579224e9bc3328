"""What a format reader gives: a Record an image, packed into an index of a few hundred bytes an image."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from saccade.types.errors import DataError


@dataclass(slots=True)
class Record:
    """One image and its annotations, nothing decoded. All coordinates are original pixels, XYXY, labels 0..K-1.

    Attributes:
        path: file relative to the index's root, with ``/``; or a key of the index's reader.
        image_id: unique in the index.
        size: (H, W) when the annotation states it, else None.
        label: class of the whole image.
        boxes: (N, 4) float32; labels (N,) int64; iscrowd (N,) bool or None when no object is a crowd.
        segments: one item an object: a list of polygons, each (P, 2) float32 xy; or COCO's RLE ``{"size", "counts"}``; or None.
        keypoints: (N, K, 3) float32: x, y, visibility 0, 1, 2.
        mask: file of the class mask relative to the root, or a key of the reader.
        captions: texts of the image.
        extra: whatever else a format must keep for writing it back.
    """

    path: str
    image_id: str
    size: tuple[int, int] | None = None
    label: int | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    iscrowd: np.ndarray | None = None
    segments: list[Any] | None = None
    keypoints: np.ndarray | None = None
    mask: str | None = None
    captions: list[str] | None = None
    extra: dict[str, Any] | None = None


class PackedRecords(Sequence[Record]):
    """Records as one byte buffer and offsets: small, and loader workers share it without copies.

    (A list of a million Python objects is copied page by page into every forked worker as reference counts change.)
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        buffer, offsets = bytearray(), [0]
        for record in records:
            fields = tuple(getattr(record, name) for name in _FIELDS)
            buffer += pickle.dumps(fields, protocol=5)  # our own memory, never read from a file
            offsets.append(len(buffer))
        self._buffer = np.frombuffer(bytes(buffer), dtype=np.uint8)
        self._offsets = np.asarray(offsets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i = i % len(self)
        return Record(*pickle.loads(self._buffer[self._offsets[i] : self._offsets[i + 1]].data))

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Memory held, annotations included."""
        return self._buffer.nbytes + self._offsets.nbytes

    def digest(self) -> str:
        """A hash of all records, for fingerprints."""
        import hashlib

        return hashlib.sha256(self._buffer.data).hexdigest()


_FIELDS = tuple(Record.__slots__)  # type: ignore[attr-defined]


class ImageReader(Protocol):
    """For data that are not one file an image (idx, synthetic): gives pixels by the record's path."""

    def image(self, record: Record) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8."""
        ...

    def mask(self, record: Record) -> np.ndarray:
        """(H, W) integer class mask with the data set's raw values."""
        ...


@dataclass
class DataIndex:
    """A whole data set as read from its files.

    Attributes:
        format: name of the format ("coco", "voc", ...).
        root: folder that all paths are relative to; nothing outside it is read.
        classes: names by label.
        records: all images of all splits.
        splits: record indices by split name; empty when the files state none.
        tasks: what the annotations can train: "classify", "detect", "segment", "caption", "pose"; the main one first.
        problems: what was skipped or repaired, a DataError each (never raised).
        reason: why the format was recognised.
        mask_values: raw mask value -> label; None: raw values are the labels. Values in neither are "unseen":
            they go to the nearest known value when ``mask_nearest``, else to an error that names the file.
        ignore: raw mask values without a class.
        keypoint_names: names of the K points; keypoint_swap: their permutation under a mirror.
        reader: gives pixels when the images are not files of their own.
        category_ids: the format's own id of each label (COCO), for writing back.
    """

    format: str
    root: Path
    classes: list[str]
    records: PackedRecords
    splits: dict[str, np.ndarray] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    problems: list[DataError] = field(default_factory=list)
    reason: str = ""
    mask_values: dict[int, int] | None = None
    mask_nearest: bool = False
    ignore: tuple[int, ...] = ()
    keypoint_names: list[str] = field(default_factory=list)
    keypoint_swap: list[int] = field(default_factory=list)
    reader: ImageReader | None = None
    category_ids: list[int] | None = None

    def __len__(self) -> int:
        return len(self.records)


_real = lru_cache(maxsize=4096)(os.path.realpath)


def inside(root: Path, relative: str, *, source: str | Path, where: str = "") -> Path:
    """``root / relative``, or a DataError when it leaves the root: by ``..``, an absolute path, or a link.

    ``source`` and ``where`` name the annotation that holds the path.
    """
    text = str(relative)
    if "\x00" in text or not text.strip():
        raise DataError(source, f"holds an unusable file name {text!r}", where=where)
    path = root / text.replace("\\", "/")
    try:
        folder, name = os.path.split(path)
        # Folders are resolved once; a file on its own only when it is a link (a look-up an image would be half the time of a small one).
        real = os.path.realpath(path) if name == ".." or os.path.islink(path) else os.path.join(_real(folder), name)
        top = _real(str(root))
        leaves = real != top and not real.startswith(top.rstrip(os.sep) + os.sep)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(source, f"holds an unusable file name {text!r}", where=where) from error
    if leaves:
        raise DataError(source, f"names {text!r}, which lies outside {root}", where=where, hint="move the file under the data root")
    return path
