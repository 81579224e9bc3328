"""W3C InkML: handwriting as strokes, a file an image; with CROHME's groups of strokes, which are its symbols.

Read: ``*.inkml`` in any folders. A ``<trace>`` is a stroke: points parted by commas, values by blanks; ``<traceFormat>`` says which of
the values are X and Y (the first two when it says nothing), other channels are left out. The prefixes ``!`` (plain value), ``'``
(difference to the last point) and ``"`` (difference of the difference) are understood and hold until the next one; ``*``, ``?``,
hexadecimal and boolean values are refused.

Conventions:

* **Class**: the text of ``<annotation type="truth">`` of the ink, else the folder that the file lies in.
* **Symbols**: where files have ``<traceGroup>`` with an ``<annotation type="truth">`` and ``<traceView traceDataRef>`` (CROHME), each is an
  object: a class and the box of its ink in the picture; the truth of the whole ink is then a caption. ``symbols=False`` classifies whole
  inks all the same. Groups of groups are passed through; a group without a truth or without a stroke is no object.
* **Pictures**: black on white, ``size`` x ``size``, see :mod:`saccade.data.strokes`; y goes down. The strokes in the coordinates of the
  file are in ``record.extra["strokes"]``, the strokes of each object in ``record.extra["groups"]``.
* **Splits**: folders ``train/``, ``val/``, ``test/`` at the top; else none. Classes are sorted by name, or as ``classes.json`` says.
* XML is read without entities or external files. A trace that cannot be read is skipped and reported, and so is a file without a trace.

Written from data with strokes; objects from their ``groups``. Coordinates keep as many digits as float32 has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import TABLE_NAMES, Problems, check_classes, find_class_table, head, look, walk, write_class_names
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.strokes import StrokeReader, Strokes, check_options, pack, placement, strokes_of, unpack
from saccade.types.errors import DataError

NAME = "inkml"
TITLE = "InkML"
TASKS = ("classify", "detect", "caption")
HOLDS = frozenset({"label", "boxes", "captions"})

_LIMIT = 1e7
_MAX_FILE = 16 * 2**20
_NAMESPACE = "http://www.w3.org/2003/InkML"
_ID = "{http://www.w3.org/XML/1998/namespace}id"
_VALUE = re.compile(r"""\s*(?P<mode>['"!])?\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*""", re.ASCII)


def sniff(root: Path) -> str | None:
    """Files named ``.inkml`` of which one of the first has <ink>: here, or one or two folders below."""
    root = Path(root)
    if root.is_file():
        return "an InkML file" if _has_ink(root.parent, root.name) else None
    places = ["", *(f"{f}/" for f in look(root).folders[:50])]
    places += [f"{p}{f}/" for p in places[1:11] for f in look(root / p).folders[:50]]
    names = [p + n for p in places for n in look(root / p).files if n.lower().endswith(".inkml")]
    return f"{len(names)} InkML file{'s' * (len(names) != 1)}" if any(_has_ink(root, n) for n in names[:5]) else None


def _has_ink(root: Path, name: str) -> bool:
    return name.lower().endswith(".inkml") and re.search(rb"<(?:\w+:)?ink[\s>/]", head(root, name, 4096)) is not None


class _Ink:
    """What a file holds: strokes, the truth of the whole, and (truth, numbers of the strokes) of its symbols."""

    def __init__(self, strokes: Strokes, truth: str, symbols: list[tuple[str, np.ndarray]]) -> None:
        self.strokes, self.truth, self.symbols = strokes, truth, symbols


def read(root: Path, size: int = 64, stroke: float | None = None, symbols: bool | None = None) -> DataIndex:
    """The inks of a folder, or of one file.

    Args:
        root: the folder, or a file.
        size: side of the pictures in pixels.
        stroke: width of the lines in pixels; None is a twentieth of the side.
        symbols: True reads labelled groups of strokes as objects, False takes a class for the whole ink; None: objects when there are any.

    Raises:
        UsageError: unusable options.
        DataError: no InkML, or not one usable file.
    """
    root = Path(root)
    side, width = check_options(size, stroke)
    folder = root if root.is_dir() else root.parent
    problems = Problems(folder)
    files = [root.name] if root.is_file() else walk(folder, problems).others
    inks: dict[str, _Ink] = {}
    for file in files:
        if not file.lower().endswith(".inkml"):
            if file not in TABLE_NAMES:
                problems.add("files that are no InkML", folder / file, "is not named .inkml; skipped")
            continue
        try:
            inks[file] = _ink(folder / file, problems)
        except DataError as error:
            problems.add("files without a usable ink", error.path, error.problem, where=error.where, hint="skipped")
    objects = any(ink.symbols for ink in inks.values()) if symbols is None else symbols
    rows: list[tuple[Record, list[str]]] = []
    splits: dict[str, list[int]] = {}
    for file, ink in inks.items():
        parts = file.split("/")
        split = fs.split_name(parts[0]) if len(parts) > 1 and fs.is_split(parts[0]) else ""
        record = Record(file, file.removesuffix(".inkml"), (side, side), extra={"strokes": ink.strokes})
        if objects:
            names = [name for name, _ in ink.symbols]
            groups = [group for _, group in ink.symbols]
            record.boxes = _boxes(ink.strokes, groups, side, width)
            record.captions = [ink.truth] if ink.truth else None
            record.extra["groups"] = groups  # type: ignore[index]
            if not names:
                problems.add("inks without symbols", folder / file, "has no group of strokes with a truth: an image without objects")
        else:
            name = ink.truth or (parts[-2] if len(parts) > (2 if split else 1) else "")
            if not name:
                problems.add(
                    "inks without a class", folder / file, 'has no <annotation type="truth"> and lies in no folder of a class; skipped'
                )
                continue
            names = [name]
        if split:
            splits.setdefault(split, []).append(len(rows))
        rows.append((record, names))
    if not rows:
        said = problems.list()
        raise DataError(root, "holds no usable InkML", hint=str(said[0]) if said else "expected files .inkml with <ink>")
    table = find_class_table(folder) if root.is_dir() else None
    classes = check_classes(table.names if table else None, {n for _, names in rows for n in names}, table.path if table else folder)
    label = {name: k for k, name in enumerate(classes)}
    for record, names in rows:
        if objects:
            record.labels = np.array([label[n] for n in names], dtype=np.int64)
        else:
            record.label = label[names[0]]
    captions = ("caption",) if any(r.captions for r, _ in rows) else ()
    return DataIndex(
        NAME, folder, classes, PackedRecords(r for r, _ in rows),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=fs.split_rank)},
        tasks=("detect", *captions) if objects else ("classify",), problems=problems.list(),
        reason=f"{len(rows)} InkML files", reader=StrokeReader(side, width),
    )  # fmt: skip


def _ink(path: Path, problems: Problems) -> _Ink:
    tree = fs.read_xml(path, limit=_MAX_FILE)
    for item in tree.iter():  # names with and without the namespace
        item.tag = item.tag.rpartition("}")[2] if isinstance(item.tag, str) else ""
    if tree.tag != "ink":
        raise DataError(path, f"is no InkML: its root is <{fs.shown(tree.tag)[1:-1]}>, not <ink>")
    x, y, channels = _channels(tree, path)
    strokes: list[np.ndarray] = []
    numbers: dict[str, int] = {}
    for k, trace in enumerate(tree.iter("trace"), 1):
        try:
            points = _points(trace.text or "", x, y, channels)
        except ValueError as error:
            problems.add("traces that cannot be read", path, f"{error}; skipped", where=f"trace {trace.get('id') or k}")
            continue
        for key in (trace.get("id"), trace.get(_ID)):
            if key:
                numbers.setdefault(key, len(strokes))
        strokes.append(points)
    if not strokes:
        raise DataError(path, "has no <trace> with points")
    return _Ink(pack(strokes), _truth(tree), _symbols(tree, numbers, path, problems))


def _truth(item: Element) -> str:
    """The truth stated directly below an element, as one line."""
    texts = (" ".join((a.text or "").split()) for a in item.findall("annotation") if a.get("type") == "truth")
    return next((text for text in texts if text), "")


def _symbols(tree: Element, numbers: dict[str, int], path: Path, problems: Problems) -> list[tuple[str, np.ndarray]]:
    out = []
    for k, group in enumerate(tree.iter("traceGroup"), 1):
        views = group.findall("traceView")
        truth = _truth(group)
        if not views:  # a group of groups, or one that holds its traces itself
            continue
        where = f"traceGroup {group.get(_ID) or k}"
        found = dict.fromkeys(numbers.get((v.get("traceDataRef") or "").lstrip("#"), -1) for v in views)
        if -1 in found:
            problems.add(
                "references to no trace", path, "names a trace that is not there or could not be read; it is left out", where=where
            )
            del found[-1]
        if truth and found:
            out.append((truth, np.array(list(found), dtype=np.int32)))
        else:
            problems.add("groups that are no objects", path, f"has no {'stroke' if truth else 'truth'}; skipped", where=where)
    return out


def _channels(tree: Element, path: Path) -> tuple[int, int, int | None]:
    """Places of X and Y in a point, and the number of values a point has when the file states it."""
    form = next(tree.iter("traceFormat"), None)
    names = [c.get("name", "") for c in form.iter("channel")] if form is not None else []
    if not names:
        return 0, 1, None
    if "X" not in names or "Y" not in names:
        raise DataError(path, "has a <traceFormat> without the channels X and Y")
    return names.index("X"), names.index("Y"), len(names)


def _points(text: str, x: int, y: int, channels: int | None) -> np.ndarray:
    """(P, 2) float64 of a trace's text; ValueError says what is wrong."""
    rows = [part for part in text.strip().split(",") if part.strip()]
    if not rows:
        raise ValueError("has no point")
    try:
        values = np.array([row.split() for row in rows], dtype=np.float64)
    except ValueError:
        values = _prefixed(rows)
    if values.shape[1] <= max(x, y) or (channels is not None and values.shape[1] < channels and values.shape[1] < 2):
        raise ValueError(f"has points of {values.shape[1]} values, too few for X and Y")
    points = values[:, [x, y]]
    if not (np.abs(points) < _LIMIT).all():
        raise ValueError(f"has a coordinate that is no number below {_LIMIT:g}")
    return points


def _prefixed(rows: list[str]) -> np.ndarray:
    """Values of points with prefixes, or without blanks between them ("3-5"); each channel's mode holds until the next prefix."""
    out: list[list[float]] = []
    modes: list[str] = []
    speeds: list[float] = []
    for number, row in enumerate(rows, 1):
        at = 0
        point: list[float] = []
        while at < len(row):
            match = _VALUE.match(row, at)
            if match is None:
                raise ValueError(f"point {number} holds {fs.shown(row[at:], 20)}: only numbers and the prefixes ! ' \" are understood")
            at, k, value = match.end(), len(point), float(match["number"])
            if k == len(modes):
                if out:
                    raise ValueError(f"point {number} has more values than the first")
                modes.append("!")
                speeds.append(0.0)
            modes[k] = match["mode"] or modes[k]
            if modes[k] != "!":
                if not out:
                    raise ValueError("the first point is a difference")
                speeds[k] = value if modes[k] == "'" else speeds[k] + value
                value = out[-1][k] + speeds[k]
            elif out:
                speeds[k] = value - out[-1][k]
            point.append(value)
        if len(point) != len(modes):
            raise ValueError(f"point {number} has {len(point)} values, the first {len(modes)}")
        out.append(point)
    return np.array(out)


def _boxes(strokes: Strokes, groups: list[np.ndarray], size: int, stroke: float) -> np.ndarray:
    """(N, 4) boxes of the ink of each group in the picture, half a stroke wider than its points."""
    scale, shift = placement(strokes["points"], size, stroke)
    lines = unpack(strokes)
    boxes = []
    for group in groups:
        points = np.concatenate([lines[k] for k in group])[:, :2] * scale + shift
        boxes.append([*(points.min(0) - stroke / 2), *(points.max(0) + stroke / 2)])
    return np.array(boxes, dtype=np.float32).reshape(-1, 4).clip(0, size)


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``[split/]NAME.inkml`` and ``classes.json``; returns what was lost, in words.

    Raises:
        UsageError: an image has no strokes.
    """
    records = dict(fs.unique_records(dataset))
    strokes_of(list(records.values()), TITLE)
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    ungrouped = sum(len(r.boxes) for r in records.values() if r.boxes is not None and _groups(r) is None)
    if ungrouped:
        lost.append(f"{ungrouped} boxes are lost: InkML's objects are strokes, and these have none of their own")
    more = sum(len(r.captions) - 1 for r in records.values() if r.captions)
    if more:
        lost.append(f"{more} captions are lost: an ink has one truth")
    both = sum(r.label is not None and bool(r.captions) for r in records.values())
    if both:
        lost.append(f"{both} captions are lost: the truth of an ink is its class")
    by_split = fs.splits_of(dataset)
    names = _paths(records, by_split)
    twice = sum(len(members) for members in by_split.values()) - len(names)
    lost += fs.split_losses(by_split, twice)
    if renamed := sum(name != records[i].image_id for i, name in names.items()):
        lost.append(f"{renamed} image ids change to the names of their files")
    for i, name in names.items():
        target = out / f"{name}.inkml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(tostring(_tree(records[i], dataset.classes), encoding="utf-8", xml_declaration=True))
    write_class_names(out, dataset.classes)
    return lost


def _groups(record: Record) -> list[np.ndarray] | None:
    groups = (record.extra or {}).get("groups")
    return groups if groups is not None and record.boxes is not None and len(groups) == len(record.boxes) else None


def _paths(records: dict[int, Record], by_split: dict[str, list[int]]) -> dict[int, str]:
    """A path without suffix for each image, its first split's folder at the top, different without regard to case."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for split, members in by_split.items():
        for i in members:
            if i in names:
                continue
            parts = [
                re.sub(r"[^\w.-]+", "_", p).lstrip(".")[:100] or "_" for p in records[i].image_id.split("/") if p not in ("", ".", "..")
            ]
            if fs.is_split(split) and (not parts[:-1] or fs.split_name(parts[0]) != split):
                parts = [split, *parts]
            name = "/".join(parts) or "_"
            k = 1
            while name.lower() in taken:
                k += 1
                name = f"{'/'.join(parts) or '_'}_{k}"
            taken.add(name.lower())
            names[i] = name
    return names


def _tree(record: Record, classes: list[str]) -> Element:
    ink = Element("ink", xmlns=_NAMESPACE)
    truth = classes[record.label] if record.label is not None else (record.captions or [""])[0]
    if truth:
        _annotate(ink, truth)
    for k, line in enumerate(unpack(record.extra["strokes"])):  # type: ignore[index]
        points = (" ".join(map(_number, point)) for point in fs.shorten(line[:, :2]).tolist())
        SubElement(ink, "trace", id=str(k)).text = ", ".join(points)
    groups = _groups(record)
    if groups is not None:
        whole = SubElement(ink, "traceGroup")
        for k, (group, label) in enumerate(zip(groups, np.asarray(record.labels).tolist(), strict=True)):
            item = SubElement(whole, "traceGroup", {_ID: f"s{k}"})
            _annotate(item, classes[label])
            for number in group.tolist():
                SubElement(item, "traceView", traceDataRef=str(number))
    indent(ink)
    return ink


def _annotate(parent: Element, text: str) -> None:
    # XML 1.0 has no control characters at all, not even escaped
    SubElement(parent, "annotation", type="truth").text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "?", text)


def _number(value: Any) -> str:
    return str(int(value)) if value == int(value) else repr(value)
