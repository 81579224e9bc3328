"""Open Images CSV: boxes or labels of whole images, one table a split. Read and written.

Read: ``[oidvN-]SPLIT-annotations-bbox.csv`` (ImageID, Source, LabelName, Confidence, XMin, XMax, YMin, YMax, IsOccluded, IsTruncated,
IsGroupOf, IsDepiction, IsInside) in the folder or in ``annotations``, ``labels``, ``csv`` or ``csv_folder``; without one, the labels of
``SPLIT-annotations-...-imagelabels....csv``. Images lie by their id in ``SPLIT/``, ``SPLIT/data``, ``images/SPLIT``, ``images`` or beside.

Conventions:

* **Boxes.** The columns' order is XMin, **XMax, YMin**, YMax; they are found by name. Numbers are fractions of the image's
  width and height as its header states them. Over the border by up to a tenth is clipped and reported; more, or no area, is skipped.
* **IsGroupOf** is ``iscrowd``. Source and the other flags (1, 0, or -1: unknown) stand in ``record.extra`` under their column's name.
* **Classes.** ``class-descriptions*.csv`` (LabelName, DisplayName; a header or none) gives names and order; a table of more
  than 1000 classes gives only those that occur. Without a table a class is called by its LabelName.
* **Labels of whole images.** Confidence 0.5 and more is positive (human checks say 1 or 0). An image is of its one positive
  class; of several the first stands and the others are reported.
* **Images.** Rows of images that are not here are skipped and counted: the tables mostly list the whole set. A table of images
  (``SPLIT-images*.csv``, ``image_ids*.csv``: ImageID, Subset) adds those without a box; others are unannotated, and left out.
* Segmentation masks, relations, points and narratives are reported and not read.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import Problems, csv_rows, head, look
from saccade.data.images import image_size
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "openimages"
TITLE = "Open Images CSV"
TASKS = ("detect", "classify")
HOLDS = frozenset(["boxes", "crowd", "label"])

_FOLDERS = ("", "annotations", "labels", "csv", "csv_folder", "metadata")
_EDGES = ("XMin", "YMin", "XMax", "YMax")
_FLAGS = ("IsOccluded", "IsTruncated", "IsDepiction", "IsInside")
_BOX_HEAD = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsOccluded", "IsTruncated", "IsGroupOf"]
_BOX_HEAD += ["IsDepiction", "IsInside"]
_SOURCE = "xclick"
_SPLIT = re.compile(r"(?:oidv\d+-)?(?:(.+?)-)?(?:annotations|images|image_ids)\b", re.IGNORECASE)
_WHOLE_TABLE = 1000
_SLIP = 0.1


def sniff(root: Path) -> str | None:
    """A table with the columns ImageID and LabelName."""
    found = _tables(Path(root))
    for kind, columns in (("boxes", "XMin, XMax, YMin, YMax"), ("labels", "Confidence")):
        if found.get(kind):
            return f"{found[kind][0].name} has the columns ImageID, LabelName, {columns}"
    return None


def _tables(root: Path) -> dict[str, list[Path]]:
    """Tables by what their first line says they hold: boxes, labels, images, classes, other."""
    if root.is_file():
        return {_kind(root.parent, root.name): [root]} if root.suffix.lower() == ".csv" else {}
    found: dict[str, list[Path]] = {}
    for folder in _FOLDERS:
        for name in [n for n in look(root / folder).files if n.lower().endswith(".csv")][:50]:
            if name.lower().endswith(".csv"):
                found.setdefault(_kind(root, f"{folder}/{name}".lstrip("/")), []).append(root / folder / name)
    for paths in found.values():
        paths.sort(key=lambda p: (fs.split_rank(_split(p)), str(p)))
    return found


def _kind(root: Path, name: str) -> str:
    first = head(root, name).decode("utf-8-sig", "replace").partition("\n")[0].strip()
    columns = {c.strip() for c in first.split(",")}
    if "class-descriptions" in name.lower():
        return "classes"
    if "ImageID" not in columns:
        return ""
    if {"LabelName", *_EDGES} <= columns:
        return "boxes"
    if {"LabelName", "Confidence"} <= columns:
        return "labels"
    if columns & {"MaskPath", "LabelName1", "LabelName", "X", "Label"}:
        return "other"
    return "images"


def _split(path: Path) -> str:
    match = _SPLIT.match(path.stem)
    return fs.split_name(match[1]) if match and match[1] else ""


@dataclass(slots=True)
class _Image:
    """Rows of one image; ``table`` owns its objects."""

    path: str
    table: Path
    size: tuple[int, int] | None = None
    names: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    flags: list[list[int]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    splits: dict[str, None] = field(default_factory=dict)


def read(root: Path) -> DataIndex:
    """The data set of a folder of Open Images tables, or of one table of boxes or labels.

    Raises:
        DataError: no such table, or not one usable image.
    """
    root = Path(root)
    tables = _tables(root)
    kind = "boxes" if tables.get("boxes") else "labels"
    if not tables.get(kind):
        raise DataError(root, "holds no Open Images table", hint="expected SPLIT-annotations-bbox.csv with ImageID, LabelName, XMin ...")
    base = root
    if root.is_file():
        base = root.parent.parent if root.parent.name in _FOLDERS else root.parent
        tables = {**_tables(base), kind: [root], "images": []}
    problems = Problems(root)
    reader = _Reader(base, problems)
    for path in tables.get("other", []) + (tables.get("labels", []) if kind == "boxes" else []):
        problems.add("tables that are not read", path, "holds no boxes; not read")
    if kind == "boxes":
        for path in tables.get("images", []):
            reader.guarded(reader.list_images, path)
    for path in tables[kind]:
        reader.guarded(reader.boxes if kind == "boxes" else reader.labels, path)
    reader.end()
    images = [i for i in reader.images.values() if kind == "boxes" or i.names]
    if not images:
        first = problems.list()[:1]
        raise DataError(root, "not one of its images is here" + (f"; {first[0]}" if first else ""))
    ids, names = _classes(tables.get("classes", []), {n for i in images for n in i.names}, problems)
    return _index(root, base, kind, images, ids, names, tables[kind], problems)


def _index(
    root: Path, base: Path, kind: str, images: list[_Image], ids: list[str], names: list[str], tables: list[Path], problems: Problems
) -> DataIndex:
    label = {number: k for k, number in enumerate(ids)}
    splits: dict[str, list[int]] = {}
    records = []
    for number, image in enumerate(images):
        record = Record(image.path, Path(image.path).stem, image.size)
        if kind == "labels":
            record.label = label[image.names[0]]
        else:
            record.boxes = np.array(image.boxes, dtype=np.float32).reshape(-1, 4)
            record.labels = np.array([label[n] for n in image.names], dtype=np.int64)
            record.iscrowd = np.array(image.crowd) if any(image.crowd) else None
            record.extra = _extra(image)
        records.append(record)
        for split in image.splits:
            splits.setdefault(split, []).append(number)
    seen: set[str] = set()
    for record in records:  # ids are unique by folder only when people copied the splits by hand
        if record.image_id in seen:
            record.image_id = record.path
        seen.add(record.image_id)
    return DataIndex(
        NAME, base, names, PackedRecords(records),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=fs.split_rank)},
        tasks=("detect",) if kind == "boxes" else ("classify",), problems=problems.list(),
        reason=sniff(root) or f"tables {', '.join(t.name for t in tables)}",
    )  # fmt: skip


def _extra(image: _Image) -> dict[str, Any] | None:
    extra: dict[str, Any] = {}
    flags = np.array(image.flags, dtype=np.int8).reshape(-1, len(_FLAGS))
    for k, name in enumerate(_FLAGS):
        if flags[:, k].any():
            extra[name] = flags[:, k]
    if any(s != _SOURCE for s in image.sources):
        extra["Source"] = image.sources
    return extra or None


class _Reader:
    """Collects the images of all tables."""

    def __init__(self, base: Path, problems: Problems) -> None:
        self.base, self.problems = base, problems
        self.images: dict[str, _Image] = {}  # by path
        self._finders: dict[str, fs.ImageFinder] = {}
        self._failed: set[str] = set()
        self._last: tuple[str, str, _Image | None] = ("", "", None)  # tables stand by image: the last look-up mostly holds
        self._missing = 0
        self._first_missing: tuple[Path, str, str] | None = None

    def guarded(self, add: Any, path: Path) -> None:
        """One table; what breaks in its middle is reported, the rows before it stand."""
        try:
            add(path)
        except DataError as error:
            self.problems.add("broken tables", error.path, error.problem, where=error.where, hint=error.hint)

    def end(self) -> None:
        """Report the images that are not here, in one line."""
        if self._first_missing is not None:
            path, where, name = self._first_missing
            more = f" and {self._missing - 1} others" if self._missing > 1 else ""
            self.problems.add("missing images", path, f"image {fs.shown(name)}{more} are not here; rows skipped", where=where)

    def _image(self, name: str, table: Path, where: str, subset: str = "") -> _Image | None:
        """The image of an id, None when it is not here or no image (reported)."""
        split = _split(table) or subset
        if self._last[:2] == (name, f"{table}/{split}"):
            return self._last[2]
        found = self._found(name, table, where, split)
        self._last = (name, f"{table}/{split}", found)
        return found

    def _found(self, name: str, table: Path, where: str, split: str) -> _Image | None:
        if split not in self._finders:
            raw = {"val": ("validation", "val", "valid")}.get(split, (split,)) if split else ()
            own = [f for s in raw for f in (s, f"{s}/data", f"{s}/images", f"images/{s}", f"data/{s}")]
            others = [f for s in ("train", "validation", "val", "test") for f in (s, f"{s}/data", f"images/{s}")]
            self._finders[split] = fs.ImageFinder(self.base, [*own, "images", "data", "", *others])
        path = None if not name or "/" in name or "\\" in name or "\x00" in name else self._finders[split].by_stem(name)
        if path is None:
            self._missing += 1
            self._first_missing = self._first_missing or (table, where, name)
            return None
        if path in self._failed:
            return None
        if path not in self.images:
            try:
                self.images[path] = _Image(path, table, image_size(self.base / path))
            except DataError as error:
                self._failed.add(path)
                self.problems.add("images that cannot be read", error.path, f"{error.problem}; it is dropped", hint=error.hint)
                return None
        image = self.images[path]
        if split:
            image.splits[split] = None
        return image

    def _rows(self, path: Path, needed: Sequence[str]) -> Iterator[tuple[str, list[str], dict[str, int]]]:
        rows = csv_rows(path)
        header = next(rows, (0, []))[1]
        columns = {name.strip(): k for k, name in enumerate(header)}
        lacking = [name for name in needed if name not in columns]
        if lacking:
            raise DataError(path, f"lacks the column {lacking[0]}", where="line 1")
        for line, row in rows:
            if len(row) < len(header):
                problem = f"has {len(row)} fields, the header {len(header)}; row skipped"
                self.problems.add("rows that are too short", path, problem, where=f"line {line}")
            else:
                yield f"line {line}", row, columns

    def list_images(self, path: Path) -> None:
        """Images without a row in the other tables have no object."""
        for where, row, at in self._rows(path, ["ImageID"]):
            subset = row[at["Subset"]] if "Subset" in at else ""
            image = self._image(row[at["ImageID"]], path, where, fs.split_name(subset))
            if image is not None:
                image.table = Path()

    def labels(self, path: Path) -> None:
        """The positive label of each image."""
        for where, row, at in self._rows(path, ["ImageID", "LabelName", "Confidence"]):
            try:
                positive = float(row[at["Confidence"]]) >= 0.5
            except ValueError:
                shown = fs.shown(row[at["Confidence"]])
                self.problems.add("confidences that are no numbers", path, f"{shown} is no confidence; row skipped", where=where)
                continue
            name = row[at["LabelName"]].strip()
            image = self._image(row[at["ImageID"]], path, where) if positive and name else None
            if image is None or name in image.names:
                continue
            if image.names:
                text = f"{fs.shown(row[at['ImageID']])} has the class {image.names[0]!r} already; {name[:80]!r} is skipped"
                self.problems.add("second labels of images", path, text, where=where)
            else:
                image.names.append(name)

    def boxes(self, path: Path) -> None:
        """Boxes; an image's rows in a second table are the same, and are not read again."""
        for where, row, at in self._rows(path, ["ImageID", "LabelName", *_EDGES]):
            image = self._image(row[at["ImageID"]], path, where)
            if image is None:
                continue
            if image.table == Path():
                image.table = path
            name = row[at["LabelName"]].strip()
            box = self._box([row[at[k]] for k in _EDGES], path, where) if image.table == path else None
            if box is None or image.size is None:
                continue
            if not name:
                self.problems.add("boxes without a class", path, "has no LabelName; row skipped", where=where)
                continue
            height, width = image.size
            edges = np.array([box[0] * width, box[1] * height, box[2] * width, box[3] * height], dtype=np.float32)
            if not (edges[2:] > edges[:2]).all():
                self.problems.add(
                    "boxes without area", path, f"box {' '.join(f'{v:g}' for v in box)} has no area; row skipped", where=where
                )
                continue
            image.names.append(name)
            image.boxes.append(edges.tolist())
            image.crowd.append(_flag(row, at, "IsGroupOf") == 1)
            image.flags.append([_flag(row, at, k) for k in _FLAGS])
            image.sources.append(row[at["Source"]] if "Source" in at else _SOURCE)

    def _box(self, fields: list[str], path: Path, where: str) -> list[float] | None:
        """XYXY in 0..1; None when unusable (reported)."""
        shown = " ".join(f.strip()[:20] for f in fields)
        try:
            box = [float(f) for f in fields]
        except ValueError:
            box = [math.nan]
        if not all(map(math.isfinite, box)):
            self.problems.add("boxes that are no numbers", path, f"box {shown!r} is not four numbers; row skipped", where=where)
            return None
        if min(box) < -_SLIP or max(box) > 1 + _SLIP:
            text = f"box {shown} is out of 0..1 (pixels instead of fractions?); row skipped"
            self.problems.add("boxes out of 0..1", path, text, where=where)
            return None
        clipped = [min(max(v, 0.0), 1.0) for v in box]
        if clipped != box:
            self.problems.add("boxes that leave their image", path, f"box {shown} leaves the image; it is clipped", where=where)
        return clipped


def _flag(row: list[str], at: dict[str, int], name: str) -> int:
    """1, 0 or -1 (unknown, or no such value)."""
    text = row[at[name]].strip() if name in at else "0"
    return {"1": 1, "0": 0, "": 0, "true": 1, "false": 0}.get(text.lower(), -1)


def _classes(tables: list[Path], used: set[str], problems: Problems) -> tuple[list[str], list[str]]:
    """LabelName of each class, and its name."""
    table = _descriptions(tables, problems)
    if len(table) > _WHOLE_TABLE:
        table = {number: name for number, name in table.items() if number in used}
    missing = sorted(used - table.keys())
    if missing and table:
        shown = ", ".join(missing[:10])
        problems.add("classes without a name", tables[0], f"lacks {shown}, which the tables use; they are called by their LabelName")
    table |= {number: number for number in missing}
    names = list(table.values())
    counts = Counter(names)
    return list(table), [f"{name} ({number})" if counts[name] > 1 else name for number, name in table.items()]


def _descriptions(tables: list[Path], problems: Problems) -> dict[str, str]:
    """Name by LabelName, of the table of boxable classes before others."""
    found: dict[str, str] = {}
    for path in sorted(tables, key=lambda p: ("boxable" not in p.name, p.name))[:1]:
        try:
            for line, row in csv_rows(path):
                number = row[0].strip()
                name = row[1].strip() if len(row) > 1 else ""
                if (line, number, name) == (1, "LabelName", "DisplayName"):
                    continue
                if not number or not name or number in found:
                    problems.add("rows of classes", path, f"{','.join(row)[:80]!r} is no new class; row skipped", where=f"line {line}")
                else:
                    found[number] = name
        except DataError as error:
            problems.add("broken tables", error.path, error.problem, where=error.where, hint=error.hint)
    return found


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``SPLIT-annotations-bbox.csv`` and ``SPLIT-images.csv``, or ``SPLIT-annotations-human-imagelabels.csv``; classes; ``images/``.

    LabelNames (``/m/...``) are those that the data were read with, else the classes' names.
    """
    detect = "detect" in dataset.tasks and (dataset.tasks[0] == "detect" or "classify" not in dataset.tasks)
    lost = fs.count_losses(dataset, TITLE, {"boxes", "crowd"} if detect else {"label"})
    names = fs.file_names(dataset, flat=True)
    renamed = sum(Path(names[i]).stem != r.image_id for i, r in fs.unique_records(dataset))
    if renamed:
        lost.append(f"{renamed} image ids change to the stems of their files")
    ids = _label_names(dataset)
    if len(ids) > _WHOLE_TABLE:
        lost.append(f"of {len(ids)} classes those without an object are lost when it is read again")
    _save(
        out / "class-descriptions-boxable.csv",
        ["LabelName", "DisplayName"],
        [list(pair) for pair in zip(ids, dataset.classes, strict=True)],
    )
    copied: set[int] = set()
    unlabelled: set[int] = set()
    for split, members in fs.splits_of(dataset).items():
        prefix = f"{'validation' if split == 'val' else split}-" if split else ""
        rows: list[list[Any]] = []
        listed: list[list[Any]] = []
        for number in members:
            record = dataset.index.records[number]
            stem = Path(names[number]).stem
            if not detect and record.label is None:
                unlabelled.add(number)
                continue
            if number not in copied:
                copied.add(number)
                fs.copy_image(dataset, record, out / "images" / names[number])
            listed.append([stem, prefix.rstrip("-")])
            if detect:
                rows += _box_rows(stem, record, ids, fs.image_hw(dataset, record))
            else:
                rows.append([stem, "verification", ids[record.label], 1])  # type: ignore[index]
        if detect:
            _save(out / f"{prefix}annotations-bbox.csv", _BOX_HEAD, rows)
            _save(out / f"{prefix}images.csv", ["ImageID", "Subset"], listed)
        else:
            _save(out / f"{prefix}annotations-human-imagelabels.csv", _BOX_HEAD[:4], rows)
    if unlabelled:
        lost.append(f"{len(unlabelled)} images without a label are left out")
    return lost


def _label_names(dataset: Dataset) -> list[str]:
    """LabelName by label: of the tables that the data came from, where they have one for every class."""
    if dataset.index.format == NAME:
        tables = _tables(dataset.index.root).get("classes", [])
        table = _descriptions(tables, Problems(dataset.index.root))
        by_name = {f"{name} ({number})": number for number, name in table.items()} | {name: number for number, name in table.items()}
        found = [by_name.get(name, name) for name in dataset.classes]
        if len(set(found)) == len(found):
            return found
    return list(dataset.classes)


def _box_rows(stem: str, record: Record, ids: list[str], size: tuple[int, int]) -> list[list[Any]]:
    extra = record.extra or {}
    rows = []
    boxes = np.asarray(record.boxes if record.boxes is not None else np.zeros((0, 4)), dtype=np.float64).reshape(-1, 4)
    fractions = boxes / np.array([size[1], size[0], size[1], size[0]])
    for k, (x1, y1, x2, y2) in enumerate(fractions.tolist()):
        flags = {name: int(extra[name][k]) if name in extra else 0 for name in _FLAGS}
        group = int(record.iscrowd is not None and bool(record.iscrowd[k]))
        source = extra["Source"][k] if "Source" in extra else _SOURCE
        row = [stem, source, ids[int(record.labels[k])], 1, x1, x2, y1, y2]  # type: ignore[index]
        rows.append([*row, flags["IsOccluded"], flags["IsTruncated"], group, flags["IsDepiction"], flags["IsInside"]])
    return rows


def _save(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
