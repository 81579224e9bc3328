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

from saccade.data.segments import Segments
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
            buffer += _packed(record)
            offsets.append(len(buffer))
        self._buffer = np.frombuffer(buffer, dtype=np.uint8)  # no copy: it can be a gigabyte
        self._buffer.flags.writeable = False
        self._offsets = np.asarray(offsets, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i = i % len(self)
        return _unpacked(self._buffer[self._offsets[i] : self._offsets[i + 1]].data)

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
_ARRAYS = [_FIELDS.index(name) for name in ("boxes", "labels", "iscrowd", "keypoints")]
_SEGMENTS, _EXTRA = _FIELDS.index("segments"), _FIELDS.index("extra")


def _packed(record: Record) -> bytes:
    """A record's bytes. Arrays go as their raw bytes, which is twenty times faster than pickling them, and the polygons as one array."""
    fields = [getattr(record, name) for name in _FIELDS]
    arrays: list[tuple[int | str, str, tuple[int, ...], bytearray]] = []
    for k in _ARRAYS:
        if _is_plain(fields[k]):
            arrays.append(_raw(k, fields[k]))
            fields[k] = None
    if extra := fields[_EXTRA]:
        plain = {key: value for key, value in extra.items() if type(key) is str and _is_plain(value)}
        arrays += [_raw(key, value) for key, value in plain.items()]
        fields[_EXTRA] = {key: None if key in plain else value for key, value in extra.items()}
    outlines = None
    segments = fields[_SEGMENTS]
    if segments is not None and (flat := segments if isinstance(segments, Segments) else Segments.of(list(segments))) is not None:
        arrays.append(_raw(_SEGMENTS, flat.points))
        outlines, fields[_SEGMENTS] = (flat.lengths.tolist(), flat.counts.tolist(), flat.codes), None
    return pickle.dumps((fields, arrays, outlines), protocol=5)  # our own memory, never read from a file


def _unpacked(data: Any) -> Record:
    fields, arrays, outlines = pickle.loads(data)
    for key, dtype, shape, raw in arrays:
        (fields if type(key) is int else fields[_EXTRA])[key] = np.frombuffer(raw, dtype).reshape(shape)
    if outlines is not None:
        lengths, counts, codes = outlines
        fields[_SEGMENTS] = Segments(fields[_SEGMENTS], np.array(lengths), np.array(counts), codes).tolist()
    return Record(*fields)


def _is_plain(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype.kind in "biuf"


def _raw(key: int | str, array: np.ndarray) -> tuple[int | str, str, tuple[int, ...], bytearray]:
    return key, array.dtype.str, array.shape, bytearray(array.tobytes())  # a bytearray: what is read back can be written to


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
        mask_colors: raw mask value of each colour 0xRRGGBB, when the mask files are in colours; None: they hold the values.
        keypoint_names: names of the K points; keypoint_swap: their permutation under a mirror.
        reader: gives pixels when the images are not files of their own.
        category_ids: the format's own id of each label (COCO), for writing back.
        extra: whatever else of the whole set a format must keep for writing it back.
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
    mask_colors: dict[int, int] | None = None
    keypoint_names: list[str] = field(default_factory=list)
    keypoint_swap: list[int] = field(default_factory=list)
    reader: ImageReader | None = None
    category_ids: list[int] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)


_real_of = lru_cache(maxsize=4096)(os.path.realpath)


def _real(folder: str) -> str:
    """The folder without links; a relative one is of the folder that the process is in now."""
    return _real_of(folder if os.path.isabs(folder) else os.path.join(os.getcwd(), folder))


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
