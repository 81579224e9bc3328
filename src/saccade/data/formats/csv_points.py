"""CSV tables of landmarks: a row an object with the coordinates of its points in pixels. Read and written.

A table is recognised by its header, in any order and beside other columns:

* ``NAME_x, NAME_y`` pairs (``left_eye_x, left_eye_y``), with ``NAME_v`` (visibility 0, 1, 2) or without;
* ``x0, y0, x1, y1, ...`` (also ``x_0``, or from 1): at least three points, as two are the corners of a box;
* ``0, 1, 2, ...``: x and y of point 0, of point 1, and so on.

The image stands in a column called ``image``, ``filename``, ``path`` ... (see :mod:`~.csv_table`), or in the first one when it has no name;
it is found as there. Columns ``class``, ``split``, and ``xmin, ymin, xmax, ymax`` are read; without a class all objects are of the class
``object``.

Conventions:

* **Points** are as the table has them, also outside the image (reported). An empty or NaN cell is a point that is not labelled
  (visibility 0, at 0, 0); the others have visibility 2, when no column says it.
* **Boxes**, where no column says them, are the extent of the labelled points, cut to the image; a side without length (one point)
  gets a pixel. An object without a point or box inside the image is skipped and reported.
* Several rows of an image are several objects. Splits are those of a column, else of the tables' names (``test_frames.csv``).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.csv_table import DELIMITERS, SUFFIXES, TableImages, glance, known_column, table_split, tables_of
from saccade.data.formats.scan import Problems, check_classes, csv_rows, find_class_table, head, plain_path, write_class_names
from saccade.data.images import image_size
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

NAME = "csvpoints"
TITLE = "CSV tables of landmarks"
TASKS = ("pose", "detect")
HOLDS = frozenset(["boxes", "keypoints"])

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NO_POINTS = frozenset(["min", "max", "bbox", "box", "tl", "br", "top_left", "bottom_right", "topleft", "bottomright", ""])
_LIMIT = 1e7
_MAX_POINTS = 10_000


class _Columns(NamedTuple):
    """Where a table has what."""

    image: int
    names: list[str]
    xy: list[tuple[int, int]]
    visibility: list[int]  # -1: no column
    other: dict[str, int]  # label, split, xmin ...


def sniff(root: Path) -> str | None:
    """A table whose header names an image column and points."""
    for path in glance(Path(root)):
        columns = _header(path)[0]
        if columns is not None:
            return f"{path.name} has columns of {len(columns.xy)} points"
    return None


def _header(path: Path) -> tuple[_Columns | None, str]:
    """The columns, None when they are no points; and the delimiter."""
    text = head(path.parent, path.name, 1 << 18).decode("utf-8-sig", "replace")
    line = text.partition("\n")[0].rstrip("\r")
    for delimiter in DELIMITERS:
        try:
            names = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            continue
        columns = _columns(names) if len(names) > 2 else None
        if columns is not None:
            return columns, delimiter
    return None, ","


def _columns(header: Sequence[str]) -> _Columns | None:
    known = [known_column(name) for name in header]
    images = [k for k, column in enumerate(known) if column == "image"]
    images.sort(key=lambda k: header[k].strip().lower() in ("id", "image_id"))  # a running number beside the file's name
    image = images[0] if images else 0 if header[0].strip() in ("", "Unnamed: 0") else -1
    if image < 0:
        return None
    place = {name: k for k, name in reversed(list(enumerate(header))) if k != image}
    for found in (_numbered(place), _lettered(place), _named(place)):
        if found:
            break
    else:
        return None
    if len(found) > _MAX_POINTS:
        return None
    used = {k for x, y, v in found.values() for k in (x, y, v)}
    other = {name: k for k, name in reversed(list(enumerate(known))) if name is not None and k not in used and k != image}
    pairs = list(found.values())
    return _Columns(image, list(found), [(x, y) for x, y, _ in pairs], [v for _, _, v in pairs], other)


Points = dict[str, tuple[int, int, int]]


def _numbered(place: dict[str, int]) -> Points:
    """Columns 0, 1, 2, ...: x and y in turn."""
    numbers = sorted(int(n) for n in place if re.fullmatch(r"[0-9]{1,5}", n) and n == str(int(n)))
    if len(numbers) < 2 or len(numbers) % 2 or numbers != list(range(len(numbers))):
        return {}
    return {str(k): (place[str(2 * k)], place[str(2 * k + 1)], -1) for k in range(len(numbers) // 2)}


def _lettered(place: dict[str, int]) -> Points:
    """Columns x0, y0, x1, y1, ..."""
    for mark in ("", "_"):
        for first in (0, 1):
            points: Points = {}
            k = first
            while f"x{mark}{k}" in place and f"y{mark}{k}" in place:
                points[str(k)] = (place[f"x{mark}{k}"], place[f"y{mark}{k}"], place.get(f"v{mark}{k}", -1))
                k += 1
            if len(points) > 2:
                return points
    return {}


def _named(place: dict[str, int]) -> Points:
    """Columns NAME_x, NAME_y."""
    points: Points = {}
    for column in place:
        name, mark = column[:-2], column[-2:]
        if mark in ("_x", "_X") and name.lower() not in _NO_POINTS and f"{name}_{'y' if mark == '_x' else 'Y'}" in place:
            points[name] = (place[column], place[f"{name}_{'y' if mark == '_x' else 'Y'}"], place.get(f"{name}_v", -1))
    if set(points) == {"center"} and place.keys() & {"width", "height", "w", "h"}:
        return {}  # the centre of a box
    return dict(sorted(points.items(), key=lambda item: item[1][0]))


@dataclass(slots=True)
class _Image:
    """Objects of one image."""

    size: tuple[int, int]
    table: Path
    points: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)


def read(root: Path, classes: Sequence[str] | None = None) -> DataIndex:
    """Read the tables of a folder (its top level), or one table.

    Args:
        root: folder or table.
        classes: class names in order of their labels; None takes ``classes.json`` (.csv, .txt) or those found.

    Raises:
        DataError: no table of points, tables of different points, or no row whose image is there.
    """
    root = Path(root)
    folder = root.parent if root.is_file() else root
    problems = Problems(folder)
    tables: list[tuple[Path, _Columns, str]] = []
    for path in tables_of(root):
        columns, delimiter = _header(path)
        if columns is None:
            problems.add("tables without points", path, "has no columns of points; not read")
        elif tables and columns.names != tables[0][1].names:
            problems.add("tables of other points", path, f"has other points than {tables[0][0].name}; not read")
        else:
            tables.append((path, columns, delimiter))
    if not tables:
        hint = f"expected a {' or '.join(SUFFIXES)} file with an image column and NAME_x, NAME_y or x0, y0, x1, y1 ..."
        raise DataError(root, "holds no table of points", hint=hint)
    if any(table_split(t[0]) for t in tables):
        for path, _, _ in tables:
            if not table_split(path):
                problems.add("tables beside those of the splits", path, "is of no split, beside tables of splits; not read")
        tables = [t for t in tables if table_split(t[0])]
    images: dict[str, _Image] = {}
    finder = TableImages(folder, problems)
    broken: dict[str, str] = {}
    for path, columns, delimiter in sorted(tables, key=lambda t: fs.split_rank(table_split(t[0]))):
        try:
            _read_table(path, columns, delimiter, finder, images, broken, problems)
        except DataError as error:
            problems.add("broken tables", error.path, error.problem, where=error.where, hint=error.hint)
    if not images:
        first = problems.list()[:1]
        raise DataError(root, "names no image that is there" + (f"; {first[0]}" if first else ""))
    table = find_class_table(folder) if classes is None else None
    found = {name for image in images.values() for name in image.names}
    names = check_classes(table.names if table else classes, found, table.path if table else root) or ["object"]
    label = {name: k for k, name in enumerate(names)}
    count = len(tables[0][1].names)
    splits: dict[str, list[int]] = {}
    records = []
    for number, (path_name, image) in enumerate(images.items()):
        records.append(Record(
            path_name, path_name, image.size,
            boxes=np.array(image.boxes, dtype=np.float32).reshape(-1, 4),
            labels=np.array([label[n] for n in image.names], dtype=np.int64),
            keypoints=np.array(image.points, dtype=np.float32).reshape(-1, count, 3),
        ))  # fmt: skip
        for split in image.splits:
            splits.setdefault(split, []).append(number)
    return DataIndex(
        NAME, folder, names, PackedRecords(records),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS, problems=problems.list(), keypoint_names=tables[0][1].names,
        reason=f"{', '.join(t[0].name for t in tables)}: columns of {count} points",
    )  # fmt: skip


def _read_table(
    path: Path,
    columns: _Columns,
    delimiter: str,
    finder: TableImages,
    images: dict[str, _Image],
    broken: dict[str, str],
    problems: Problems,
) -> None:
    rows = csv_rows(path, delimiter)
    used = [columns.image, *columns.visibility, *columns.other.values(), *(k for pair in columns.xy for k in pair)]
    width = max(len(next(rows, (0, []))[1]), max(used) + 1)  # a carriage return may end the first line early
    other, own_split = columns.other, table_split(path)
    for line, row in rows:
        where = f"line {line}"
        if len(row) < width:
            problems.add("rows that are too short", path, f"has {len(row)} fields, the header {width}; row skipped", where=where)
            continue
        name = row[columns.image].strip()
        if plain_path(name) is None and ".." in name.replace("\\", "/").split("/"):
            problems.add("paths that leave the data root", path, f"names {name[:200]!r}, which lies outside; row skipped", where=where)
            continue
        found = finder.find(name, path)
        if found is None:
            problems.add("rows without their image", path, f"no image {name[:200]!r}, or several; row skipped", where=where)
            continue
        if found not in images and found not in broken:
            try:
                images[found] = _Image(image_size(finder.folder / found), path)
            except DataError as error:
                broken[found] = error.problem
                problems.add("images that cannot be read", error.path, f"{error.problem}; it is dropped", hint=error.hint)
        if found in broken:
            continue
        image = images[found]
        split = fs.split_name(row[other["split"]]) if "split" in other else own_split
        if split and split not in image.splits:
            image.splits.append(split)
        if image.table == path:
            _add_object(image, row, columns, path, where, problems)


def _add_object(image: _Image, row: list[str], columns: _Columns, path: Path, where: str, problems: Problems) -> None:
    other = columns.other
    text = row[other["label"]].strip() if "label" in other else ""
    cells = [row[k].strip() for pair in columns.xy for k in pair]
    corners = [row[other[c]].strip() for c in _CORNERS] if all(c in other for c in _CORNERS) else []
    if not text and not any(cells) and not any(corners):
        return  # an image without objects
    values = np.array([_number(c) for c in cells], dtype=np.float32).astype(np.float64).reshape(-1, 2)  # as they are kept
    wrong = [c for c, v in zip(cells, values.reshape(-1), strict=True) if math.isinf(v)]
    if wrong:
        problems.add("points that are no numbers", path, f"{wrong[0][:40]!r} is no coordinate; the point is not labelled", where=where)
    missing = np.asarray(~np.isfinite(values).all(axis=1))
    points = np.concatenate([np.where(missing[:, None], 0, values), np.where(missing, 0, 2)[:, None]], axis=1)
    for k, column in enumerate(columns.visibility):
        if column >= 0 and not missing[k] and row[column].strip() in ("0", "1", "2"):
            points[k, 2] = int(row[column].strip())
            missing[k] = points[k, 2] == 0
    height, width = image.size
    limit = np.array([width, height, width, height])
    box = np.array([_number(c) for c in corners]) if any(corners) else extent(points[~missing], image.size)
    if box is None or not np.isfinite(box).all():
        problems.add("objects without a box", path, "has no box and no point; row skipped", where=where)
        return
    clipped = box.clip(0, limit).astype(np.float32)
    if not (clipped[2:] > clipped[:2]).all():
        problems.add(
            "objects outside their image", path, f"its object has no area inside the {width} x {height} image; row skipped", where=where
        )
        return
    seen = points[points[:, 2] > 0, :2]
    outside = int(((seen < 0) | (seen > [width, height])).any(1).sum())
    if outside:
        text_outside = f"{outside} point{'s lie' if outside > 1 else ' lies'} outside the {width} x {height} image; kept"
        problems.add("points outside their image", path, text_outside, where=where)
    if any(corners) and (clipped != box.astype(np.float32)).any():
        problems.add("boxes that leave their image", path, "its box leaves the image; it is cut", where=where)
    image.points.append(points.astype(np.float32))
    image.boxes.append(clipped)
    image.names.append(text or "object")


def _number(text: str) -> float:
    """NaN for an empty cell, infinity for one that is no usable number."""
    try:
        value = float(text or "nan")
    except ValueError:
        return math.inf
    return math.inf if abs(value) > _LIMIT else value


def extent(points: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """XYXY of points (P, 2+) in an image (H, W): their extent, cut to it; a side without length gets a pixel. None without points."""
    if not len(points):
        return None
    limit = np.array([size[1], size[0]], dtype=np.float64)
    low, high = points[:, :2].min(0).clip(0, limit), points[:, :2].max(0).clip(0, limit)
    flat = high <= low
    low = np.where(flat, (low - 0.5).clip(0, None), low)
    high = np.where(flat, (high + 0.5).clip(None, limit), high)
    return np.concatenate([low, high])


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``labels.csv`` (image, class, NAME_x, NAME_y ...) beside ``images/`` and ``classes.json``.

    Columns of boxes are written when one is not the extent of its points, of visibility when one is 1 or hides a position, and a
    column split when there are splits. Objects of another number of points than the names, or of none, have no points.
    """
    index = dataset.index
    losses = fs.count_losses(dataset, TITLE, set(HOLDS))
    paths = fs.file_names(dataset, flat=True)
    by_split = fs.splits_of(dataset)
    records = dict(fs.unique_records(dataset))
    count = max([len(index.keypoint_names), *(r.keypoints.shape[1] for r in records.values() if r.keypoints is not None)])
    if not count:
        raise UsageError(f"{TITLE} hold objects with key points; these data have none")
    names = list(index.keypoint_names) if len(set(index.keypoint_names)) == count else [str(k) for k in range(count)]
    if any(not _named({f"{n}_x": 0, f"{n}_y": 1}) or not n.isprintable() for n in names):
        names = [f"point {k}" for k in range(count)]
        losses.append("the names of the points change: they would be read as columns of boxes")
    objects = {number: _objects(record, count, fs.image_hw(dataset, record)) for number, record in records.items()}
    every = [o for found in objects.values() for o in found]
    with_boxes, with_visibility, with_split = any(o.own_box for o in every), any(o.own_visibility for o in every), set(by_split) != {""}
    header = ["image", "class", *(_CORNERS if with_boxes else ())]
    header += [f"{name}_{c}" for name in names for c in ("xyv" if with_visibility else "xy")] + ["split"] * with_split
    seen: set[int] = set()
    twice = renamed = 0
    with open(out / "labels.csv", "w", encoding="utf-8", newline="", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for split, members in by_split.items():
            for number in members:
                twice += number in seen
                if number in seen:
                    continue
                seen.add(number)
                path = f"images/{paths[number]}"
                renamed += path != records[number].image_id
                fs.copy_image(dataset, records[number], out / path)
                for item in objects[number]:
                    cells = [str(v) for v in item.box] if with_boxes else []
                    for x, y, v in item.points:
                        cells += ["" if v == 0 and not (x or y) else str(x), "" if v == 0 and not (x or y) else str(y)]
                        cells += [str(int(v))] * with_visibility
                    writer.writerow([path, dataset.classes[item.label], *cells, *[split] * with_split])
                if not objects[number]:
                    writer.writerow([path, *[""] * (len(header) - 1 - with_split), *[split] * with_split])
    write_class_names(out, dataset.classes)
    losses += fs.split_losses((), twice)
    if renamed:
        losses.append(f"{renamed} image ids change to the paths of their files")
    return losses


class _Object(NamedTuple):
    label: int
    box: np.ndarray
    points: np.ndarray
    own_box: bool
    own_visibility: bool


def _objects(record: Record, count: int, size: tuple[int, int]) -> list[_Object]:
    out = []
    for k in range(0 if record.boxes is None else len(record.boxes)):
        points = np.zeros((count, 3), dtype=np.float32)
        if record.keypoints is not None:
            points[: record.keypoints.shape[1]] = record.keypoints[k]
        box: Any = np.asarray(record.boxes[k], dtype=np.float32)  # type: ignore[index]
        derived = extent(points[points[:, 2] > 0].astype(np.float64), size)
        own_box = derived is None or not np.array_equal(derived.astype(np.float32), box)
        hidden = points[:, 2] != 2
        own_visibility = bool((hidden & ((points[:, 2] == 1) | points[:, :2].any(1))).any())
        out.append(_Object(int(record.labels[k]), box, points, own_box, own_visibility))  # type: ignore[index]
    return out
