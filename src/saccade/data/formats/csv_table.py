"""CSV tables: a row an image with its class, or a row a box.

The delimiter is a comma, semicolon, tab or bar, whichever gives columns that are known. Names of columns, in any case, blanks and
underscores alike (``image ID`` is ``image_id``):

==============  ========================================================================================================
image           filepath, file_path, path, filepaths, filename, file_name, file, image, image_path, image_name, image_file,
                image_id, img, img_path, id
class           label, labels, class, class_name, class_label, category, target, species
corners         xmin, ymin, xmax, ymax; x_min ...; x1, y1, x2, y2; left, top, right, bottom
corner + size   x, y, w, h; x, y, width, height; bbox_x, bbox_y, bbox_width, bbox_height
image size      width, height; image_width, image_height; img_width, img_height
split           split, set, subset, partition
==============  ========================================================================================================

Paths are relative to the table's folder. One that is not there is looked up by its last two parts, its last part, or its stem (an
id such as ``7`` finds ``007.bmp``) among the images below; a table whose name holds the name of a folder of
images means that folder ("Class Labels of Dataset 1.csv"); of several that fit, a mask (in a folder of masks, or the .png beside an image
of another suffix) is not meant.
Splits come from a column, or from the tables' names (``train_labels.csv``, ``test.csv``); tables of no split are not read beside those.
An image listed with an empty class and no box is one without objects.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import (
    copy_image,
    count_losses,
    file_names,
    image_hw,
    is_split,
    split_losses,
    split_name,
    split_rank,
    splits_of,
    stays_inside,
)
from saccade.data.formats.scan import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    TABLE_NAMES,
    Problems,
    check_classes,
    find_class_table,
    look,
    plain_path,
    walk,
    write_class_names,
)
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "csv"
TITLE = "CSV tables"
TASKS = ("detect", "classify")
HOLDS = frozenset({"boxes", "label"})

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
_MAX_LINE = 2**20

_COLUMNS = {
    "image": "filepath file_path path filepaths filename file_name file image image_path image_name image_file image_id img img_path id",
    "label": "label labels class class_name class_label category target species",
    "xmin": "xmin x_min x1 left",
    "ymin": "ymin y_min y1 top",
    "xmax": "xmax x_max x2 right",
    "ymax": "ymax y_max y2 bottom",
    "x": "x bbox_x",
    "y": "y bbox_y",
    "w": "w bbox_width bbox_w",
    "h": "h bbox_height bbox_h",
    "width": "width image_width img_width",
    "height": "height image_height img_height",
    "split": "split set subset partition",
}
_BY_NAME = {name: column for column, names in _COLUMNS.items() for name in names.split()}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def sniff(root: Path) -> str | None:
    """A table whose header names an image column and a class."""
    for path in glance(root):
        try:
            with _text(path) as file:
                columns, _ = _header(path, file)
        except DataError:
            continue
        if "label" in columns:
            return f"{path.name} has the columns {', '.join(columns)}"
    return None


def read(root: Path, classes: Sequence[str] | None = None) -> DataIndex:
    """Read the tables of a folder (its top level), or one table.

    Args:
        root: folder or table.
        classes: class names in order of their labels; None takes ``classes.json`` (.csv, .txt) or the names found: by value when
            all are whole numbers, else sorted.

    Raises:
        DataError: no usable table, or no row that names an image.
    """
    folder = root.parent if root.is_file() else root
    problems = Problems(root)
    tables, chosen = tables_of(root), []
    by_split = [t for t in tables if table_split(t)]
    for path in tables:
        if by_split and path not in by_split:
            problems.add("tables beside those of the splits", path, "is of no split, beside tables of splits; not read")
        else:
            chosen.append(path)
    chosen.sort(key=lambda path: split_rank(table_split(path)))
    if not chosen:
        raise DataError(root, "holds no table", hint=f"expected a {' or '.join(SUFFIXES)} file with the columns image and label")
    finder = TableImages(folder, problems)
    images: dict[str, _Image] = {}
    detect = False
    failures: list[DataError] = []
    for path in chosen:
        try:
            detect |= _read_table(path, finder, images, problems)
        except DataError as error:
            if len(chosen) == 1:
                raise
            failures.append(error)
    if not images:
        first = (failures + problems.list())[:1]
        raise DataError(root, "names no image that is there" + (f"; {first[0]}" if first else ""))

    table = find_class_table(folder) if classes is None else None
    found = {name for image in images.values() for name in image.names if name}
    names = check_classes(table.names if table else classes, found, table.path if table else root)
    label = {name: k for k, name in enumerate(names)}
    splits: dict[str, list[int]] = {}
    records = []
    for number, (place, image) in enumerate(images.items()):
        record = Record(path=place, image_id=place, size=image.size)
        if detect:
            keep = [k for k, name in enumerate(image.names) if name]
            record.boxes = np.array([image.boxes[k] for k in keep], dtype=np.float32).reshape(-1, 4)
            record.labels = np.array([label[image.names[k]] for k in keep], dtype=np.int64)
        else:
            record.label = label[image.names[0]]
        records.append(record)
        for split in image.splits:
            splits.setdefault(split, []).append(number)
    return DataIndex(
        format=NAME,
        root=folder,
        classes=names,
        records=PackedRecords(records),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=split_rank)},
        tasks=("detect",) if detect else ("classify",),
        problems=failures + problems.list(),
        reason=f"{len(chosen)} tables: {', '.join(t.name for t in chosen)}",
    )


def write(dataset: Dataset, out: Path) -> list[str]:
    """``labels.csv`` (filepath, label) or (filename, width, height, class, xmin ...), with a column split, beside ``images/``."""
    detect = "detect" in dataset.tasks and (dataset.tasks[0] == "detect" or "classify" not in dataset.tasks)
    losses = count_losses(dataset, TITLE, {"boxes"} if detect else {"label"})
    by_split = splits_of(dataset)
    names = file_names(dataset, flat=True)
    seen: set[int] = set()
    twice = unlabelled = 0
    with open(out / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        with_split = set(by_split) != {""}
        head = ["filename", "width", "height", "class", *_CORNERS] if detect else ["filepath", "label"]
        writer.writerow(head + ["split"] * with_split)
        for split, members in by_split.items():
            tail = [split] * with_split
            for number in members:
                record = dataset.index.records[number]
                twice += number in seen
                if number in seen or (not detect and record.label is None):
                    unlabelled += not detect and record.label is None
                    continue
                seen.add(number)
                path = f"images/{names[number]}"
                copy_image(dataset, record, out / path)
                if not detect:
                    writer.writerow([path, dataset.classes[record.label], *tail])  # type: ignore[index]
                    continue
                height, width = image_hw(dataset, record)
                count = 0 if record.boxes is None else len(record.boxes)
                for k in range(count):
                    corners = [str(v) for v in np.asarray(record.boxes[k], dtype=np.float32)]  # type: ignore[index]
                    writer.writerow([path, width, height, dataset.classes[record.labels[k]], *corners, *tail])  # type: ignore[index]
                if not count:
                    writer.writerow([path, width, height, "", "", "", "", "", *tail])
    write_class_names(out, dataset.classes)
    losses += split_losses((), twice)
    if unlabelled:
        losses.append(f"{unlabelled} images without a label are left out")
    return losses


@dataclass(slots=True)
class _Image:
    """Rows of one image; a name "" is a row without an object."""

    table: str
    size: tuple[int, int] | None = None
    names: list[str] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)


class TableImages:
    """Finds the images that rows name."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self.folder, self.problems = folder, problems
        self._found: dict[tuple[str, str], str | None] = {}
        self._tails: dict[str, list[str]] | None = None
        self._all: set[str] = set()
        self._named_by: dict[str, set[str]] = {}

    def find(self, name: str, table: Path) -> str | None:
        """Path relative to the folder, or None."""
        key = (name, table.name)
        if key not in self._found:
            self._found[key] = self._search(name, table)
        return self._found[key]

    def _search(self, name: str, table: Path) -> str | None:
        tails = self._index()
        plain = plain_path(name)
        if plain in self._all:
            return plain
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
        if not parts:
            return None
        stem = os.path.splitext(parts[-1])[0]
        for tail in ("/".join(parts[-2:]), parts[-1], "stem:" + stem, "stem:" + (stem.lstrip("0") or stem)):
            paths = _best(tails.get(tail, []), self._named(table))
            if len(paths) == 1:
                return paths[0]
        return None

    def _named(self, table: Path) -> set[str]:
        """Names of the image folders that occur as words in the table's name, in lower case."""
        if table.stem not in self._named_by:
            names = {path.split("/")[-2].lower() for path in self._all if "/" in path} - {*IMAGE_FOLDERS, *MASK_FOLDERS}
            stem = table.stem.lower()
            self._named_by[table.stem] = {n for n in names if re.search(rf"(?<![a-z0-9]){re.escape(n)}(?![a-z0-9])", stem)}
        return self._named_by[table.stem]

    def _index(self) -> dict[str, list[str]]:
        """Images by the last one and two parts of their path and by their stem, with and without leading zeros."""
        if self._tails is None:
            self._tails = {}
            images = walk(self.folder, self.problems).images
            self._all = set(images)
            for path in images:
                parts = path.split("/")
                stem = os.path.splitext(parts[-1])[0]
                for tail in {"/".join(parts[-2:]), parts[-1], "stem:" + stem, "stem:" + (stem.lstrip("0") or stem)}:
                    self._tails.setdefault(tail, []).append(path)
        return self._tails


def _best(paths: list[str], folders: set[str]) -> list[str]:
    """Of images that fit, those in the folders that the table's name holds; of several, those that do not look like masks."""
    if folders:
        paths = [p for p in paths if "/" in p and p.split("/")[-2].lower() in folders]
    if len(paths) > 1:
        paths = [p for p in paths if not any(part in MASK_FOLDERS for part in p.lower().split("/")[:-1])]
        stems = Counter(os.path.splitext(p)[0] for p in paths)
        paths = [p for p in paths if not (stems[os.path.splitext(p)[0]] > 1 and p.lower().endswith(".png"))]
    return paths


def _read_table(path: Path, finder: TableImages, images: dict[str, _Image], problems: Problems) -> bool:
    """Add the rows of one table; True when it holds boxes."""
    with _text(path) as file:
        columns, rows = _header(path, file)
        detect = all(c in columns for c in _CORNERS) or all(c in columns for c in "xywh")
        if "label" not in columns:
            raise DataError(path, "has no column of classes", where="line 1", hint="name it label or class")
        own_split = table_split(path)
        for line, row in rows:
            where = f"line {line}"
            if len(row) < max(columns.values()) + 1:
                problems.add("rows that are too short", path, f"has {len(row)} fields, the header more; row skipped", where=where)
                continue
            name = row[columns["image"]].strip()
            if plain_path(name) is None and ".." in name.replace("\\", "/").split("/"):
                problems.add("paths that leave the data root", path, f"names {name!r}, which lies outside; row skipped", where=where)
                continue
            found = finder.find(name, path)
            if found is None:
                problems.add("rows without their image", path, f"no image {name!r}, or several; row skipped", where=where)
                continue
            split = split_name(row[columns["split"]]) if "split" in columns else own_split
            if found not in images:
                images[found] = _Image(path.name, _size(row, columns))
            image = images[found]
            if split and split not in image.splits:
                if image.splits:
                    problems.add("images of several splits", path, f"{name!r} is also in {', '.join(image.splits)}", where=where)
                image.splits.append(split)
            if image.table != path.name:
                continue  # its boxes were read from another table
            text = row[columns["label"]].strip()
            if detect:
                _add_box(image, row, columns, text, path, where, problems)
            elif not text:
                problems.add("rows without a label", path, "has no label; row skipped", where=where)
            elif image.names and text not in image.names:
                problems.add(
                    "images of two classes", path, f"{name!r} is {image.names[0]!r} above, {text!r} here; row skipped", where=where
                )
            elif not image.names:
                image.names.append(text)
        if not detect:
            for key in [k for k, image in images.items() if not image.names]:
                del images[key]
    return detect


def _add_box(image: _Image, row: list[str], columns: dict[str, int], text: str, path: Path, where: str, problems: Problems) -> None:
    keys = _CORNERS if "xmin" in columns else "xywh"
    fields = [row[columns[c]].strip() for c in keys]
    if not text and not any(fields):
        return  # an image without objects
    shown = " ".join(f[:20] for f in fields)
    try:
        values = [float(v) for v in fields]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)) or max(map(abs, values)) > 1e9:
        problems.add("boxes that are no numbers", path, f"box {shown!r} is not four numbers; row skipped", where=where)
        return
    x1, y1, x2, y2 = values if keys is _CORNERS else (values[0], values[1], values[0] + values[2], values[1] + values[3])
    if not text:
        problems.add("rows without a label", path, "has no label; row skipped", where=where)
        return
    if image.size is not None:
        height, width = image.size
        clipped = (min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height))
        if clipped != (x1, y1, x2, y2):
            problems.add("boxes that leave their image", path, f"box {shown} leaves the {width}x{height} image; cut", where=where)
            x1, y1, x2, y2 = clipped
    if not (np.float32(x2) > np.float32(x1) and np.float32(y2) > np.float32(y1)):
        problems.add("boxes without area", path, f"box {shown} has no area; row skipped", where=where)
        return
    image.names.append(text)
    image.boxes.append((x1, y1, x2, y2))


def _size(row: list[str], columns: dict[str, int]) -> tuple[int, int] | None:
    """(H, W) when the row states it."""
    if "width" not in columns or "height" not in columns:
        return None
    texts = [row[columns[c]].strip() for c in ("height", "width")]
    if not all(re.fullmatch(r"[0-9]{1,6}", t) for t in texts):
        return None
    height, width = map(int, texts)
    return (height, width) if height and width else None


def tables_of(root: Path) -> list[Path]:
    """The table, or those of the folder's top level; tables of class names are others."""
    if root.is_file():
        return [root] if root.suffix.lower() in SUFFIXES else []
    names = walk(root, Problems(root), deep=False).others
    return [root / n for n in names if n.lower().endswith(SUFFIXES) and n not in TABLE_NAMES]


def glance(root: Path) -> list[Path]:
    """As :func:`tables_of`, the first fifty, for recognition."""
    if root.is_file():
        return tables_of(root)
    names = [n for n in look(root).files if n.lower().endswith(SUFFIXES) and n not in TABLE_NAMES][:50]
    return [root / n for n in names if stays_inside(root / n, root)]


def table_split(path: Path) -> str:
    """The split that a table's name says: train for ``train.csv`` and ``train_labels.csv``; else ""."""
    words = [w for w in re.split(r"[^A-Za-z0-9]+", path.stem) if is_split(w)]
    return split_name(words[0]) if len(words) == 1 else ""


def _header(path: Path, file: TextIO) -> tuple[dict[str, int], Iterator[tuple[int, list[str]]]]:
    """Position of each known column, and the rows with their line numbers."""
    line = file.readline(_MAX_LINE)
    if not line.strip():
        raise DataError(path, "is empty" if not line else "has an empty first line", hint="the first line names the columns")
    best: dict[str, int] = {}
    delimiter = ","
    for candidate in DELIMITERS:
        try:
            names = next(csv.reader([line], delimiter=candidate), [])
        except csv.Error:
            continue
        columns = _known_columns(names)
        if len(columns) > len(best):
            best, delimiter = columns, candidate
    if "image" not in best:
        shown = line.strip()[:80]
        raise DataError(path, f"names no column of images: {shown!r}", where="line 1", hint="name it filename, path or image_id")
    return best, _rows(path, file, delimiter)


def known_column(name: str) -> str | None:
    """What a column of this name holds ("image", "label", "xmin" ...), None when the name says nothing."""
    return _BY_NAME.get(re.sub(r"[\s_-]+", "_", name.strip().lower()))


def _known_columns(names: list[str]) -> dict[str, int]:
    columns: dict[str, int] = {}
    for position, name in enumerate(names):
        key = known_column(name)
        if key is not None and key not in columns:
            columns[key] = position
    if {"x", "y", "width", "height"} <= columns.keys() and "w" not in columns and "xmin" not in columns:
        columns["w"], columns["h"] = columns.pop("width"), columns.pop("height")  # beside x and y they are the box's
    return columns


def _rows(path: Path, file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, delimiter=delimiter)
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row):
                yield reader.line_num + 1, row
    except csv.Error as error:
        raise DataError(path, f"is no CSV: {error}", where=f"line {reader.line_num + 1}") from None


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The table as UTF-8 text."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8 text", hint="save the table as UTF-8") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
