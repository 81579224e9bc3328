"""MNIST's idx files: one file of images (idx3), one of labels (idx1), plain or gzipped; also Fashion-MNIST, KMNIST, EMNIST.

The format (LeCun, Cortes, Burges, "The MNIST database"): two zero bytes, the type of the values (8: unsigned byte), the number of
dimensions, each dimension as a big-endian 32-bit number, then the values. Names are ``train-images-idx3-ubyte`` and
``train-labels-idx1-ubyte``; the prefix is the split (``t10k`` is test). All images of a file have one size.

Headers are checked against the file's size before anything is allocated; a gzip that inflates to more or less than its header
says is refused. Images are decoded lazily: a plain file is read in place, a gzipped one is inflated on first use in each process.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import count_losses, split_name, split_rank, splits_of
from saccade.data.formats.scan import Problems, check_classes, find_class_table, walk, write_class_names
from saccade.data.images import MAX_PIXELS
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "idx"
TITLE = "MNIST idx"
TASKS = ("classify",)
HOLDS = frozenset({"label"})

_FILE = re.compile(r"(?P<prefix>.*?)[-_.]?(?P<what>images|labels)[-_.]idx(?P<dims>\d)[-_.]ubyte(?:\.gz)?", re.IGNORECASE)
_GZIP_RATIO = 1100  # deflate reaches 1032 : 1
_CHUNK = 2**20


def sniff(root: Path) -> str | None:
    """Files named like MNIST's, at the top or one folder below."""
    names = [root.name] if root.is_file() else [n for folder in (root, root / "raw") if folder.is_dir() for n in os.listdir(folder)]
    count = sum(_FILE.fullmatch(n) is not None for n in names)
    return f"{count} files named like MNIST's idx" if count else None


def read(root: Path, classes: Sequence[str] | None = None) -> DataIndex:
    """Read headers and labels; the images stay in their files.

    Args:
        root: folder of the files (or of ``raw/``), or one file, which is read with its images or labels.
        classes: names by label; None takes ``classes.json`` (.csv, .txt), or the label values.

    Raises:
        DataError: no file of images, a broken header, sizes or counts that do not agree.
    """
    problems = Problems(root)
    folder = root.parent if root.is_file() else root if any(map(_FILE.fullmatch, os.listdir(root))) else root / "raw"
    pairs = _pairs(root, folder, problems)
    if not pairs:
        raise DataError(
            root, "holds no idx file of images", hint="expected names: train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz]"
        )
    files: dict[str, tuple[int, int, int]] = {}
    labels: dict[str, np.ndarray | None] = {}
    for prefix, (image_file, label_file) in pairs.items():
        count, height, width = files[image_file] = _shape(folder / image_file, 3, problems)
        if height * width > MAX_PIXELS:
            raise DataError(folder / image_file, f"says its images are {width}x{height}", hint="the header is broken")
        _verify(folder / image_file, files[image_file])
        labels[prefix] = None
        if label_file is not None:
            (stated,) = _shape(folder / label_file, 1, problems)
            if stated != count:
                raise DataError(folder / label_file, f"holds {stated} labels for {count} images", hint=f"they belong to {image_file}")
            labels[prefix] = np.frombuffer(_values(folder / label_file, (stated,)), dtype=np.uint8)

    seen = np.unique(np.concatenate([v for v in labels.values() if v is not None] or [np.zeros(0, np.uint8)]))
    table = find_class_table(folder) if classes is None else None
    names = table.names if table else list(classes) if classes is not None else None
    if names is None:
        lookup = {int(v): k for k, v in enumerate(seen)}
        names = check_classes(None, map(str, lookup), folder)
    else:
        if len(seen) and seen[-1] >= len(names):
            raise DataError(table.path if table else folder, f"names {len(names)} classes, but a label is {seen[-1]}")
        lookup = {k: k for k in range(len(names))}

    records: list[Record] = []
    splits: dict[str, np.ndarray] = {}
    for prefix, (image_file, _) in pairs.items():
        split, values, start = _split(prefix), labels[prefix], len(records)
        for i in range(files[image_file][0]):
            name = f"{split or 'all'}/{i}"
            records.append(Record(path=f"{image_file}#{i}", image_id=name, label=None if values is None else lookup[int(values[i])]))
        if split:
            splits[split] = np.arange(start, len(records))
    return DataIndex(
        format=NAME,
        root=folder,
        classes=names,
        records=PackedRecords(records),
        splits={s: splits[s] for s in sorted(splits, key=split_rank)},
        tasks=TASKS if len(seen) else (),
        problems=problems.list(),
        reason=f"idx files: {', '.join(files)}",
        reader=IdxReader(folder, files),
    )


class IdxReader:
    """Pixels of idx files by the key ``file#number``; picklable, and open files or inflated bytes do not travel with it."""

    def __init__(self, folder: Path, files: dict[str, tuple[int, int, int]]) -> None:
        self.folder, self.files = folder, files
        self._values: dict[str, np.ndarray] = {}

    def image(self, record: Record) -> np.ndarray:
        """(H, W) uint8."""
        file, _, number = record.path.rpartition("#")
        if file not in self._values:
            path, shape = self.folder / file, self.files[file]
            if math.prod(shape) == 0:
                raise DataError(path, "holds no pixels")
            if _zipped(path):
                self._values[file] = np.frombuffer(_values(path, shape), dtype=np.uint8).reshape(shape)
            else:
                with _reporting(path):
                    self._values[file] = np.memmap(path, dtype=np.uint8, mode="r", offset=_header(3), shape=shape)
        return np.array(self._values[file][int(number)])

    def mask(self, record: Record) -> np.ndarray:
        """Idx files hold no masks."""
        raise DataError(self.folder, "idx files hold no masks")

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "files": self.files, "_values": {}}


def write(dataset: Dataset, out: Path) -> list[str]:
    """``train-images-idx3-ubyte.gz`` and so on, a pair for each split, with ``classes.json``.

    Raises:
        DataError: the images differ in size, or there are over 256 classes.
    """
    losses = count_losses(dataset, TITLE, set(HOLDS))
    if len(dataset.classes) > 256:
        raise DataError(dataset.index.root, f"has {len(dataset.classes)} classes; idx labels are bytes: 256 at most")
    coloured = unlabelled = 0
    shape: tuple[int, ...] | None = None
    written: set[int] = set()
    for split, members in splits_of(dataset).items():
        chosen = [i for i in members if i not in written and dataset.index.records[i].label is not None]
        written.update(chosen)
        unlabelled += sum(dataset.index.records[i].label is None for i in members)
        if not chosen:
            continue
        prefix = {"test": "t10k", "": "all"}.get(split, re.sub(r"[^\w]+", "_", split))
        labels = bytes(int(dataset.index.records[i].label) for i in chosen)  # type: ignore[arg-type]
        with _gzip_out(out / f"{prefix}-labels-idx1-ubyte.gz") as file:
            file.write(_pack(1, len(chosen)) + labels)
        with _gzip_out(out / f"{prefix}-images-idx3-ubyte.gz") as file:
            for k, i in enumerate(chosen):
                record = dataset.index.records[i]
                colour = dataset.with_channels(None).image(record)
                grey = dataset.with_channels(1).image(record)[0].numpy() if len(colour) == 3 else colour[0].numpy()
                coloured += len(colour) == 3
                if shape is None:
                    shape = grey.shape
                if grey.shape != shape:
                    raise DataError(
                        record.path, f"is {grey.shape[1]}x{grey.shape[0]}, others {shape[1]}x{shape[0]}", hint="idx has one size"
                    )
                if k == 0:
                    file.write(_pack(3, len(chosen), *shape))
                file.write(np.ascontiguousarray(grey).tobytes())
    write_class_names(out, dataset.classes)
    losses.append(f"{len(written)} file names are lost")
    if coloured:
        losses.append(f"the colours of {coloured} images are lost: idx holds grey images")
    if unlabelled:
        losses.append(f"{unlabelled} images without a label are left out")
    return losses


def _pairs(root: Path, folder: Path, problems: Problems) -> dict[str, tuple[str, str | None]]:
    """Image file and label file by prefix; a plain file goes before its gzipped copy."""
    if not folder.is_dir():
        return {}
    found: dict[tuple[str, str], str] = {}
    for path in walk(folder, problems, deep=False).others:
        match = _FILE.fullmatch(path)
        if match:
            key = (match["prefix"].lower(), match["what"].lower())
            if key in found:
                problems.add("second copies", folder / path, f"is a second copy of {found[key]}; not read")
            else:
                found[key] = path
    chosen = _FILE.fullmatch(root.name) if root.is_file() else None
    pairs: dict[str, tuple[str, str | None]] = {}
    for (prefix, what), path in found.items():
        if chosen is not None and prefix != chosen["prefix"].lower():
            continue
        if what == "images":
            label_file = found.get((prefix, "labels"))
            if label_file is None:
                problems.add("images without labels", folder / path, "has no file of labels beside it; read without labels")
            pairs[prefix] = (path, label_file)
        elif (prefix, "images") not in found:
            problems.add("labels without images", folder / path, "has no file of images beside it; not read")
    by_split: dict[str, str] = {}
    for prefix in list(pairs):
        split = _split(prefix)
        if split in by_split:
            problems.add("second files of a split", folder / pairs.pop(prefix)[0], f"is a second file of the split {split!r}; not read")
        else:
            by_split[split] = prefix
    return {prefix: pairs[prefix] for prefix in sorted(pairs, key=lambda p: split_rank(_split(p)))}


def _split(prefix: str) -> str:
    """``t10k`` is test; ``emnist-letters-train`` is train; ``all`` or nothing is no split."""
    last = re.split(r"[-_.]", prefix)[-1]
    name = "test" if last == "t10k" else split_name(last)
    return "" if name == "all" else name


def _shape(path: Path, dims: int, problems: Problems) -> tuple[int, ...]:
    """The dimensions that the header states, checked against the size of the file."""
    with _reporting(path), _opened(path) as file:
        head = file.read(_header(dims))
    if len(head) < 4:
        raise DataError(path, f"holds {len(head)} bytes: too short for an idx header")
    if head[:2] != b"\0\0" or head[2] != 8 or head[3] != dims:
        what = "images (0x00000803)" if dims == 3 else "labels (0x00000801)"
        raise DataError(path, f"begins with 0x{head[:4].hex()}, not with the magic number of idx {what}")
    if len(head) < _header(dims):
        raise DataError(path, "ends inside its header")
    shape = tuple(int.from_bytes(head[4 * k : 4 * k + 4], "big") for k in range(1, dims + 1))
    if math.prod(shape) == 0:
        raise DataError(path, f"states the size {'x'.join(map(str, shape))}: it is empty")
    size, expected = path.stat().st_size, _header(dims) + math.prod(shape)
    if _zipped(path):
        if expected > size * _GZIP_RATIO:
            raise DataError(path, f"states {expected} bytes, more than {size} zipped bytes can hold: truncated or not what it says")
    elif size < expected:
        raise DataError(path, f"is truncated: it holds {size} bytes, its header states {expected}")
    elif size > expected:
        problems.add("files with bytes after their end", path, f"holds {size - expected} bytes after its end; ignored")
    return shape


def _verify(path: Path, shape: tuple[int, ...]) -> None:
    """Inflate a gzipped file once, a piece at a time, so that a broken one is an error now and not in the middle of a training."""
    if _zipped(path):
        for _ in _pieces(path, shape):
            pass


def _values(path: Path, shape: tuple[int, ...]) -> bytearray:
    """The bytes after the header, exactly as many as the shape has."""
    out = bytearray()
    for piece in _pieces(path, shape):
        out += piece
    return out


def _pieces(path: Path, shape: tuple[int, ...]) -> Iterator[bytes]:
    rest = math.prod(shape)
    with _reporting(path), _opened(path) as file:
        file.read(_header(len(shape)))
        while rest:
            piece = file.read(min(rest, _CHUNK))
            if not piece:
                raise DataError(path, f"is truncated: {rest} of {math.prod(shape)} values are missing")
            rest -= len(piece)
            yield piece
        if _zipped(path) and file.read(1):  # reading to the end also checks the checksum
            raise DataError(path, "inflates to more than its header states")


def _header(dims: int) -> int:
    return 4 + 4 * dims


def _pack(dims: int, *shape: int) -> bytes:
    return bytes([0, 0, 8, dims]) + b"".join(n.to_bytes(4, "big") for n in shape)


def _zipped(path: Path) -> bool:
    with _reporting(path), open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if _zipped(path) else open(path, "rb")  # type: ignore[return-value]


@contextmanager
def _gzip_out(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip without time stamp and name: the same data give the same bytes."""
    with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as file:
        yield file


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except EOFError:
        raise DataError(path, "is truncated: the gzip ends too early") from None
    except (OSError, zlib.error, ValueError) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
