"""CIFAR's binary files: 32 x 32 RGB images with a byte of label, or two.

The format (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009). CIFAR-10: ``data_batch_1.bin`` ...
``data_batch_5.bin`` (train), ``test_batch.bin``, names in ``batches.meta.txt``; a record is the label and 3072 pixel bytes: the red, the
green and the blue plane, each row by row. CIFAR-100: ``train.bin``, ``test.bin``, names in ``coarse_label_names.txt`` and
``fine_label_names.txt``; a record is the coarse label, the fine label and the pixels.
The files lie in the folder or in its ``cifar-10-batches-bin`` / ``cifar-100-binary``.

Conventions:

* **Classes** in the order of the names' files. Without ``batches.meta.txt`` they are CIFAR-10's own names, without CIFAR-100's files
  the label values. ``labels="coarse"`` takes CIFAR-100's coarse labels as the classes; the name of the other label is
  ``record.extra["coarse"]`` or ``record.extra["fine"]``, when its names' file is there.
* **Splits** are train and test. ``image_id`` is ``train/0`` and so on, through all batches.
* A file that ends inside a record is read up to there, and a record whose label has no name is skipped; both are reported.
* The pixels stay in the files and are mapped into memory.

Written from any 32 x 32 images with at most 10 classes as CIFAR-10, else (up to 100, or where a coarse or fine label is known) as
CIFAR-100. Grey becomes RGB. There is no place for other splits than train and test.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import count_losses, read_text, splits_of
from saccade.data.formats.scan import Problems, look
from saccade.data.records import DataIndex, PackedRecords, Record, inside
from saccade.types.errors import DataError, UsageError

NAME = "cifar"
TITLE = "CIFAR binary"
TASKS = ("classify",)
HOLDS = frozenset({"label"})

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_BATCH = 10_000
_TEN = re.compile(r"(?P<train>data_batch_\d{1,4})\.bin|test_batch\.bin", re.IGNORECASE)
_HUNDRED = ("train.bin", "test.bin")
_NAMES = {"ten": "batches.meta.txt", "coarse": "coarse_label_names.txt", "fine": "fine_label_names.txt"}


def sniff(root: Path) -> str | None:
    """Files named like CIFAR's; CIFAR-100's ``train.bin`` only beside its names or with bytes that can be its labels."""
    root = Path(root)
    folder, ten, files = _files(root)
    if ten and files:
        return f"{len(files)} files named like CIFAR-10's batches"
    if files and ((folder / _NAMES["fine"]).is_file() or all(_like_hundred(folder / f) for f in files)):
        return f"{' and '.join(files)} of CIFAR-100"
    return None


def _files(root: Path) -> tuple[Path, bool, list[str]]:
    """The folder of the files, whether it is CIFAR-10, and their names, train before test."""
    if root.is_file():
        ten = _TEN.fullmatch(root.name) is not None
        return root.parent, ten, [root.name] if ten or root.name in _HUNDRED else []
    for folder in (root, root / "cifar-10-batches-bin", root / "cifar-100-binary"):
        names = look(folder).files
        batches = sorted((n for n in names if _TEN.fullmatch(n)), key=lambda n: (not _TEN.fullmatch(n)["train"], len(n), n))  # type: ignore[index]
        if batches:
            return folder, True, batches
        if found := [n for n in _HUNDRED if n in names]:
            return folder, False, found
    return root, False, []


def _like_hundred(path: Path) -> bool:
    row = _PIXELS + 2
    try:
        if path.stat().st_size % row:
            return False
        with path.open("rb") as file:
            heads = [file.read(row)[:2] for _ in range(20)]
    except OSError:
        return False
    return bool(heads[0]) and all(h[0] < 20 and h[1] < 100 for h in heads if h)


def read(root: Path, labels: str = "fine") -> DataIndex:
    """Read the labels; the images stay in their files.

    Args:
        root: the folder, or one of the files.
        labels: "fine" (100 classes) or "coarse" (20), of CIFAR-100.

    Raises:
        UsageError: no such labels.
        DataError: no file of CIFAR, or not one whole record.
    """
    root = Path(root)
    folder, ten, files = _files(root)
    if not files:
        raise DataError(
            root, "holds no binary file of CIFAR", hint="expected data_batch_1.bin and test_batch.bin, or train.bin and test.bin"
        )
    if labels not in ("fine", "coarse") or (ten and labels != "fine"):
        raise UsageError(f"labels of {'CIFAR-10 are of one kind' if ten else 'CIFAR-100 are fine or coarse'}, not {labels!r}")
    problems = Problems(folder)
    reader = CifarReader(folder, 1 if ten else 2)
    heads: dict[str, np.ndarray] = {}
    for file in files:
        inside(folder, file, source=folder)
        try:
            heads[file] = np.array(reader.rows(file)[:, : reader.heads])
        except DataError as error:
            problems.add("files that cannot be read", error.path, error.problem)
            continue
        rest = (folder / file).stat().st_size % reader.row
        if rest:
            problems.add("truncated files", folder / file, f"is truncated: {rest} bytes after its last whole record; ignored")
    if not heads:
        raise DataError(folder, "holds no whole record of CIFAR", hint=str(problems.list()[0]))
    column = 0 if ten or labels == "coarse" else 1
    other = "coarse" if labels == "fine" else "fine"
    names = _names(folder, "ten" if ten else labels, problems)
    if names is None:
        values = np.unique(np.concatenate([h[:, column] for h in heads.values()]))
        names = list(CIFAR10) if ten else [str(v) for v in range(int(values[-1]) + 1)]
    other_names = None if ten else _names(folder, other, problems)
    records: list[Record] = []
    splits: dict[str, list[int]] = {}
    counts = {"train": 0, "test": 0}
    for file, head in heads.items():
        split = "test" if file.lower().startswith("test") else "train"
        for k, row in enumerate(head.tolist()):
            number, counts[split] = counts[split], counts[split] + 1
            if row[column] >= len(names):
                known = f"holds the label {row[column]}, known are 0 to {len(names) - 1}; skipped"
                problems.add("records whose label has no name", folder / file, known, where=f"record {k}")
                continue
            extra = {other: other_names[row[1 - column]]} if other_names and row[1 - column] < len(other_names) else None
            splits.setdefault(split, []).append(len(records))
            records.append(Record(f"{file}#{k}", f"{split}/{number}", (_SIDE, _SIDE), row[column], extra=extra))
    if not records:
        raise DataError(folder, "holds no record whose label has a name", hint=str(problems.list()[0]))
    return DataIndex(
        NAME, folder, names, PackedRecords(records), splits={s: np.array(v) for s, v in splits.items()}, tasks=TASKS,
        problems=problems.list(), reason=f"CIFAR-{'10' if ten else '100'}'s binary files: {', '.join(heads)}", reader=reader,
    )  # fmt: skip


def _names(folder: Path, kind: str, problems: Problems) -> list[str] | None:
    """Names of the labels, one a line; None without the file."""
    path = folder / _NAMES[kind]
    if not path.is_file():
        return None
    try:
        inside(folder, path.name, source=folder)
        names = [line.strip() for line in read_text(path, limit=2**20).splitlines() if line.strip()]
    except DataError as error:
        problems.add("files of names that cannot be read", error.path, error.problem, where=error.where)
        return None
    if names and len(names) <= 256 and len(set(names)) == len(names):
        return names
    problems.add("unusable files of names", path, f"holds {len(names)} names, {len(set(names))} of them different; it is not used")
    return None


class CifarReader:
    """Pixels by the key ``file#number``, mapped from the files; picklable, and the maps do not travel with it."""

    def __init__(self, folder: Path, heads: int) -> None:
        self.folder, self.heads = folder, heads
        self._files: dict[str, np.ndarray] = {}

    @property
    def row(self) -> int:
        """Bytes of a record."""
        return self.heads + _PIXELS

    def rows(self, file: str) -> np.ndarray:
        """(N, row) uint8: the labels, then red, green and blue of each record."""
        if file not in self._files:
            path = self.folder / file
            try:
                count = path.stat().st_size // self.row
                if not count:
                    raise DataError(path, f"is truncated: {path.stat().st_size} bytes, a record has {self.row}")
                self._files[file] = np.memmap(path, dtype=np.uint8, mode="r", shape=(count, self.row))
            except (OSError, ValueError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return self._files[file]

    def image(self, record: Record) -> np.ndarray:
        """(32, 32, 3) uint8."""
        file, _, number = record.path.rpartition("#")
        rows = self.rows(file)
        if int(number) >= len(rows):
            raise DataError(self.folder / file, f"holds {len(rows)} records; it has become shorter", where=f"record {number}")
        return np.ascontiguousarray(rows[int(number), self.heads :].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))

    def mask(self, record: Record) -> np.ndarray:
        """CIFAR holds no masks."""
        raise DataError(self.folder, "CIFAR holds no masks")

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "heads": self.heads, "_files": {}}


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Batches of 10 000 (or ``train.bin``), the test file and the names; returns what was lost.

    Raises:
        UsageError: over 100 classes, or an image that is not 32 x 32.
    """
    classes = [" ".join(c.split()) or "_" for c in dataset.classes]
    losses = count_losses(dataset, TITLE, set(HOLDS))
    if renamed := sum(a != b for a, b in zip(classes, dataset.classes, strict=True)):
        losses.append(f"the blanks of {renamed} class names change")
    order, more = _members(dataset)
    losses += more
    chosen = [dataset.index.records[i] for members in order.values() for i in members]
    kinds = {key for r in chosen for key in ("coarse", "fine") if isinstance((r.extra or {}).get(key), str)}
    if len(classes) > 100:
        raise UsageError(f"CIFAR has at most 100 classes; these data have {len(classes)}")
    ten = len(classes) <= 10 and not kinds
    own = "coarse" if kinds == {"fine"} else "fine"  # which of the two labels the classes are
    other = "fine" if own == "coarse" else "coarse"
    words = sorted({str((r.extra or {}).get(other, "unknown")) for r in chosen}) if kinds else []
    if len(words) > 256:
        raise UsageError(f"CIFAR's labels are bytes: at most 256 {other} labels; these data have {len(words)}")
    greys = 0
    for split, members in order.items():
        for start in range(0, len(members), _BATCH if ten and split == "train" else len(members)):
            part = members[start : start + _BATCH] if ten and split == "train" else members
            name = (f"data_batch_{start // _BATCH + 1}.bin" if split == "train" else "test_batch.bin") if ten else f"{split}.bin"
            with open(out / name, "wb") as file:
                for i in part:
                    record = dataset.index.records[i]
                    colour = dataset.with_channels(None).image(record)
                    if tuple(colour.shape[-2:]) != (_SIDE, _SIDE):
                        size = f"{colour.shape[-1]}x{colour.shape[-2]}"
                        raise UsageError(f"CIFAR holds images of 32x32 pixels; {record.image_id!r} is {size}: resize the images first")
                    greys += colour.shape[0] == 1
                    assert record.label is not None
                    word = words.index(str((record.extra or {}).get(other, "unknown"))) if words else 0
                    head = [record.label] if ten else [record.label, word] if own == "coarse" else [word, record.label]
                    file.write(bytes(head) + colour.expand(3, -1, -1).numpy().tobytes())
    names = {"ten": classes} if ten else {own: classes, **({other: words} if words else {})}
    for kind, lines in names.items():
        (out / _NAMES[kind]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if greys:
        losses.append(f"{greys} grey images become RGB")
    return [*losses, f"{len(chosen)} file names and image ids are lost"]


def _members(dataset: Dataset) -> tuple[dict[str, list[int]], list[str]]:
    """Numbers of the labelled images to write by train and test, each once, and what that loses."""
    order: dict[str, list[int]] = {"train": [], "test": []}
    losses: list[str] = []
    seen: set[int] = set()
    unlabelled = 0
    by_split = splits_of(dataset)
    for split in sorted(by_split, key=lambda s: s not in order):  # stated train and test first
        fresh = [i for i in by_split[split] if i not in seen]
        seen.update(fresh)
        labelled = [i for i in fresh if dataset.index.records[i].label is not None]
        unlabelled += len(fresh) - len(labelled)
        order[split if split in order else "train"] += labelled
        if split not in order and labelled:
            losses.append(
                f"{len(labelled)} images of {f'the split {split}' if split else 'no split'} stand in train: CIFAR has train and test"
            )
    if unlabelled:
        losses.append(f"{unlabelled} images without a label are left out")
    return {s: members for s, members in order.items() if members}, losses
