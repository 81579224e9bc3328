"""VIA, the VGG Image Annotator 1 and 2: regions of all kinds in one JSON or CSV. Read and written.

Read: ``via_project*.json``, the JSON export (``via_region_data.json``) and the CSV export, in the root or up to two folders
below. Images lie where the file's names, the project's ``default_filepath`` or a folder ``images`` say. What a later file says of
an image that an earlier one has (projects first, then JSON, then CSV) counts only as a further split.

Conventions (:mod:`saccade.data.formats.shapes` says how regions become objects and key points):

* **Regions.** Numbers are edges in pixels, as they are: ``rect``, ``circle``, ``ellipse`` (``theta`` in radians, clockwise as seen),
  ``polygon``; ``point``, ``polyline`` and ``line`` have no area. VIA 1's regions are a mapping, VIA 2's a list: both are read.
* **Class.** One region attribute: the one that ``attribute=`` names; the only one; class, label, name, type or category; else the
  one most often filled, which is reported. Of a checkbox the one that is checked. Without any attribute the class is "object". The
  other attributes stand in ``record.extra["attributes"]``.
* **Order of classes**: that of the attribute's options in the project; others behind, sorted by name.
* **Groups.** VIA knows none. saccade writes the region attributes ``object_id`` (regions of one object), ``keypoint`` (the name of a
  point of that object) and ``visibility`` ("1": occluded), and reads them; so it does ``difficult``, ``truncated`` and ``occluded``.
* **Whole images.** Where no file draws a region or declares classes of regions, a file attribute is the class of the image, chosen in
  the same way (VIA's own caption, public_domain and image_url aside). Else they stand in ``record.extra["file_attributes"]``.
* **Splits** by the names of folders and files (``train/via_region_data.json``, ``via_project_val.json``).
* VIA states no sizes: they are read from the images, of which a broken one is dropped and reported.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats import shapes
from saccade.data.formats.scan import Problems, head
from saccade.data.images import image_size
from saccade.data.polygons import mask_to_polygons, rasterize
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError, suggest

NAME = "via"
TITLE = "VIA (VGG Image Annotator)"
TASKS = ("detect", "pose", "classify")
HOLDS = frozenset(["label", "boxes", "segments", "keypoints"])

_SUFFIXES = (".json", ".csv")
_CLASS_NAMES = ("class", "label", "name", "type", "category")
_OWN = ("object_id", "keypoint", "visibility")
_FILE_DEFAULTS = ("caption", "public_domain", "image_url")
_CSV_COLUMNS = ("filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes", "region_attributes")
_DEFAULT_CLASS = "object"


@dataclass(slots=True)
class _Entry:
    """One image as a file states it: regions are (place, shape attributes, region attributes)."""

    file: Path
    where: str
    path: str
    attributes: dict[str, Any]
    regions: list[tuple[str, Any, Any]]
    splits: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Page:
    """A file's images as (place, name, file attributes, regions), the project's declared options, and where its images lie."""

    entries: list[tuple[str, Any, Any, list[tuple[str, Any, Any]]]]
    options: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    folder: str = ""


def sniff(root: Path) -> str | None:
    """Why this looks like VIA, or None."""
    root = Path(root)
    names = [name for _, name in _files(root, most=200_000)]
    return f"{len(names)} VIA file{'s' * (len(names) != 1)}: {', '.join(names[:3])}" if names else None


def _files(root: Path, most: int | None = None) -> list[tuple[str, str]]:
    """(folder, name) of the VIA files, the fullest first: projects, JSON, CSV."""
    if root.is_file():
        fits = root.suffix.lower() in _SUFFIXES and _fits(head(root.parent, root.name, shapes.HEAD))
        return [("", root.name)] if fits or most is None else []
    groups = shapes.find_groups(root, _SUFFIXES, _fits, first="via", most=most)
    chosen = [(f, n) for f, names in groups for n in names[:1000] if _fits(head(root, os.path.join(f, n), shapes.HEAD))]
    return sorted(chosen, key=lambda c: (c[0], c[1].lower().endswith(".csv"), not c[1].startswith("via_project"), c[1]))


def _fits(start: bytes) -> bool:
    if b"region_shape_attributes" in start.partition(b"\n")[0] or b'"_via_img_metadata"' in start:
        return True
    return all(re.search(rb'"%s"\s*:' % key, start) for key in (b"filename", b"size", b"regions"))


# ----------------------------------------------------------------------------------------------------------------- read


def read(root: Path, *, attribute: str = "") -> DataIndex:
    """The data set of a folder of VIA files, or of one file.

    Args:
        root: folder or file.
        attribute: the region attribute (without regions, the file attribute) that holds the class.

    Raises:
        UsageError: no such attribute.
        DataError: no VIA file, a broken one, or not one usable image.
    """
    root = Path(root)
    base = root.parent if root.is_file() else root
    files = _files(root)
    if not files:
        raise DataError(root, "holds no VIA file", hint="expected via_project.json, via_region_data.json or the CSV export")
    problems = Problems(base)
    entries: dict[str, _Entry] = {}
    options: dict[str, dict[str, list[str]]] = {"region": {}, "file": {}}
    for folder, name in files:
        path = base / folder / name
        try:
            page = _load_csv(path, problems) if name.lower().endswith(".csv") else _load_json(path, problems)
        except DataError as error:
            if len(files) == 1:
                raise
            problems.add("files that cannot be used", error.path, error.problem, where=error.where, hint=error.hint)
            continue
        for kind, stated in page.options.items():
            for key, values in stated.items():
                options[kind][key] = list(dict.fromkeys([*options[kind].get(key, []), *values]))
        _add(entries, page, path, base, folder, shapes.split_of(os.path.join(folder, os.path.splitext(name)[0])), problems)
    found = _drawn(list(entries.values()), base, problems)
    if not found:
        first = problems.list()
        raise DataError(root, "not one usable image is found", hint=str(first[0]) if first else "")
    points: list[str] = []
    tasks: tuple[str, ...] = ("classify",)
    regional = any(e.regions for e, _ in found) or (any(options["region"].values()) and not attribute)
    classes = [] if regional else _labels(found, attribute, options["file"], base, problems)
    if not classes:
        classes, points = _objects(found, attribute, options["region"], base, problems)
        tasks = ("detect", "pose") if points else ("detect",)
    splits: dict[str, list[int]] = {}
    for k, (entry, _) in enumerate(found):
        for split in entry.splits:
            splits.setdefault(split, []).append(k)
    return DataIndex(
        NAME, base, classes, PackedRecords(d.record for _, d in found),
        splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
        tasks=tasks, problems=problems.list(), reason=sniff(root) or "", keypoint_names=points, keypoint_swap=shapes.point_swap(points),
    )  # fmt: skip


def _load_json(path: Path, problems: Problems) -> _Page:
    try:
        if path.stat().st_size > fs.MAX_TEXT:
            raise DataError(path, f"is larger than {fs.MAX_TEXT >> 20} MB", hint="export the annotations in parts")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    data = fs.read_json(path)
    page = _Page([])
    images = data
    if isinstance(data, dict) and "_via_img_metadata" in data:
        images = data["_via_img_metadata"]
        declared = data.get("_via_attributes")
        for kind in ("region", "file"):
            stated = declared.get(kind) if isinstance(declared, dict) else None
            page.options[kind] = _options(stated) if isinstance(stated, dict) else {}
        page.folder = _default_folder(data.get("_via_settings"))
    if not isinstance(images, dict):
        raise DataError(
            path, "is not VIA: its images are no mapping", hint='expected {"a.jpg12345": {"filename": "a.jpg", "regions": ...}}'
        )
    for key, item in images.items():
        where = f"image {fs.shown(key)}"
        if not isinstance(item, dict):
            problems.add("images that are no entry", path, "is no entry of an image; it is skipped", where=where)
            continue
        regions = item.get("regions") or []
        if isinstance(regions, dict):
            regions = list(regions.values())
        if not isinstance(regions, list):
            problems.add("regions that are no list", path, f"its regions are {fs.shown(regions)}; they are skipped", where=where)
            regions = []
        listed = [
            (f"{where} region {k}", r.get("shape_attributes"), r.get("region_attributes"))
            if isinstance(r, dict)
            else (f"{where} region {k}", None, None)
            for k, r in enumerate(regions, 1)
        ]
        name = item["filename"] if "filename" in item else re.sub(r"-?\d+$", "", key)
        page.entries.append((where, name, item.get("file_attributes"), listed))
    return page


def _options(stated: dict[str, Any]) -> dict[str, list[str]]:
    """Option names of each attribute in their order; none of a text field."""
    out = {}
    for key, value in stated.items():
        options = value.get("options") if isinstance(value, dict) else None
        out[key] = [shapes.word(o) for o in options if shapes.word(o)] if isinstance(options, dict) else []
    return out


def _default_folder(settings: Any) -> str:
    core = settings.get("core") if isinstance(settings, dict) else None
    folder = core.get("default_filepath") if isinstance(core, dict) else None
    folder = folder.replace("\\", "/").strip() if isinstance(folder, str) else ""
    return "" if "\x00" in folder or folder.startswith("/") or len(folder) > 1000 else folder


def _load_csv(path: Path, problems: Problems) -> _Page:
    text = fs.read_text(path)
    before = csv.field_size_limit(fs.MAX_TEXT)  # polygons are longer than the usual 128 KB
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DataError(path, f"is no CSV: {error}") from None
    finally:
        csv.field_size_limit(before)
    header = [c.strip().lstrip("#") for c in rows[0]] if rows else []
    missing = [c for c in ("filename", "region_shape_attributes") if c not in header]
    if missing:
        raise DataError(path, f"is no VIA table: it lacks the column {missing[0]}")
    column = {name: header.index(name) for name in _CSV_COLUMNS if name in header}
    images: dict[tuple[str, str], tuple[str, str, Any, list[tuple[str, Any, Any]]]] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        where = f"row {number}"
        if len(row) != len(header):
            problems.add("rows of another length", path, f"has {len(row)} of {len(header)} columns; it is skipped", where=where)
            continue
        cell = {name: row[k] for name, k in column.items()}
        shape, own, whole = (
            _cell(cell.get(n, ""), path, where, problems) for n in ("region_shape_attributes", "region_attributes", "file_attributes")
        )
        if shape is None or own is None or whole is None:
            continue
        image = images.setdefault((cell["filename"], cell.get("file_size", "")), (where, cell["filename"], whole, []))
        if shape:
            image[3].append((where, shape, own))
    return _Page(list(images.values()))


def _cell(text: str, path: Path, where: str, problems: Problems) -> dict[str, Any] | None:
    """The JSON of a cell; None, and reported, when it is none."""
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problems.add("cells without JSON", path, f"holds {fs.shown(text)}, which is no JSON of attributes; the row is skipped", where=where)
        return None
    return value


def _add(entries: dict[str, _Entry], page: _Page, file: Path, base: Path, folder: str, split: str, problems: Problems) -> None:
    """The page's images that are there, each once; what an earlier file says of an image stands."""
    near = [os.path.normpath(os.path.join(folder, page.folder))] if page.folder else []
    near = [n for n in near if not n.startswith("..")]
    finder = fs.ImageFinder(base, [*near, *shapes.image_folders(folder)])
    for where, name, attributes, regions in page.entries:
        try:
            path = finder.find(name, source=file, where=where)
        except DataError as error:
            problems.add("names of images that cannot be used", error.path, error.problem, where=error.where, hint=error.hint)
            continue
        if path is None:
            problems.add("images that are missing", file, f"image {fs.shown(name)} is missing; it is dropped", where=where)
            continue
        attributes = attributes if isinstance(attributes, dict) else {}
        entry = entries.get(path)
        if entry is None:
            entry = entries[path] = _Entry(file, where, path, attributes, regions)
        elif [r[1:] for r in entry.regions] != [r[1:] for r in regions]:
            text = f"states other regions of {fs.shown(path)} than {entry.file.name}, {entry.where}; they are skipped"
            problems.add("images that stand twice", file, text, where=where)
        if split:
            entry.splits[split] = None


def _drawn(entries: list[_Entry], base: Path, problems: Problems) -> list[tuple[_Entry, shapes.Drawn]]:
    """An empty drawing an image, with its size from the file's header; images that cannot be read are dropped."""
    out = []
    used: set[str] = set()
    for entry in entries:
        try:
            size = image_size(base / entry.path)
        except DataError as error:
            problems.add("images that cannot be read", error.path, f"{error.problem}; it is dropped")
            continue
        stem = os.path.splitext(entry.path)[0]
        record = Record(entry.path, shapes.unique_id(used, os.path.basename(stem), stem, entry.path), size)
        out.append((entry, shapes.Drawn(record, [], [], [])))
    return out


# classes


def _choose(
    found: Iterable[dict[str, Any]],
    attribute: str,
    declared: dict[str, list[str]],
    aside: tuple[str, ...],
    base: Path,
    what: str,
    problems: Problems,
) -> str:
    """The attribute that holds the class; "" when there is none."""
    filled = Counter(key for attributes in found for key, value in attributes.items() if _value(value)[0])
    known = list(dict.fromkeys([*filled, *declared]))
    if attribute:
        if attribute not in known:
            raise UsageError(f"no {what} attribute {attribute!r}{suggest(attribute, known)}")
        return attribute
    usual = [key for key in filled if key not in aside]
    candidates = usual or [key for key in declared if key not in aside and declared[key]]
    for name in _CLASS_NAMES if len(candidates) > 1 else ():
        if match := [key for key in candidates if key.lower() == name]:
            return match[0]
    if len(candidates) > 1:
        best = max(candidates, key=lambda key: filled[key])
        others = ", ".join(fs.shown(key) for key in candidates if key != best)
        text = f"the {what} attribute {fs.shown(best)} is taken for the class, not {others}"
        problems.add("attributes", base, text, hint="attribute= chooses another")
        return best
    return candidates[0] if candidates else ""


def _value(value: Any) -> tuple[str, int]:
    """An attribute's value as a name, "" when it has none, and how many are checked."""
    if isinstance(value, dict):
        checked = [shapes.word(key) for key, on in value.items() if on is True or on == "true"]
        return (checked[0] if checked else ""), len(checked)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return shapes.word(value), 1
    return "", 0


def _objects(
    found: list[tuple[_Entry, shapes.Drawn]], attribute: str, declared: dict[str, list[str]], base: Path, problems: Problems
) -> tuple[list[str], list[str]]:
    """Regions into the records; classes and names of key points."""
    attributes = [a for e, _ in found for _, _, a in e.regions if isinstance(a, dict)]
    key = _choose(attributes, attribute, declared, (*_OWN, *shapes.TRAITS), base, "region", problems)
    if attributes and not attribute and not any(_value(a.get(key))[0] for a in attributes):
        key = ""  # declared, and used nowhere
    for entry, d in found:
        parts: list[shapes.Part] = []
        for where, shape, own in entry.regions:
            try:
                _region(where, shape, own if isinstance(own, dict) else {}, key, parts, d)
            except ValueError as error:
                problems.add("regions that cannot be used", entry.file, f"{error}; it is skipped", where=where)
                continue
            checked = _value(own.get(key))[1] if isinstance(own, dict) else 0
            if checked > 1:
                problems.add("regions of several classes", entry.file, f"has {checked} classes checked; the first is taken", where=where)
        d.objects = shapes.join(parts, d.record.size, entry.file, lambda: None, problems)
        if entry.attributes:
            d.record.extra = {"file_attributes": entry.attributes}
    drawn = [d for _, d in found]
    classes = shapes.in_order(declared.get(key, []), {item.label for d in drawn for item in d.objects}, None, problems)
    points = shapes.give_points(drawn, declared.get("keypoint", []), None, base, problems)
    shapes.fill(drawn, classes, points)
    return classes, points


def _region(where: str, shape: Any, own: dict[str, Any], key: str, parts: list[shapes.Part], drawn: shapes.Drawn) -> None:
    """One region as a part, a point or a mark; ValueError says why not."""
    if not isinstance(shape, dict):
        raise ValueError("is no region")
    kind = shape.get("name")
    label = _value(own.get(key))[0] if key else _DEFAULT_CLASS
    group = _value(own.get("object_id"))[0] or None
    notes: dict[str, Any] = {}
    rest = {k: v for k, v in own.items() if k not in (key, *_OWN) and _value(v)[0]}
    notes.update({k: True for k in shapes.TRAITS if rest.get(k) == "1"})
    if rest := {k: v for k, v in rest.items() if k not in notes}:
        notes["attributes"] = rest
    if kind in ("point", "polyline", "line"):
        mark = {"type": "point" if kind == "point" else "linestrip", "label": label if key else "", **notes}
        if kind == "point":
            x, y = _floats(shape, "cx", "cy")
            mark["points"] = [[x, y]]
            name = _value(own.get("keypoint"))[0]
            if name:
                occluded = _value(own.get("visibility"))[0] == "1"
                drawn.points.append(shapes.Point(name, group, (x, y), 1 if occluded else 2, mark))
                return
        else:
            mark["points"] = _outline(shape, 2).tolist()
        drawn.marks.append(mark)
        return
    if not label:
        raise ValueError(f"has no {fs.shown(key)}")
    part = shapes.Part(label, where, group, notes=notes)
    if kind == "rect":
        x, y, width, height = _floats(shape, "x", "y", "width", "height")
        part.box = np.array([x, y, x + width, y + height])
    elif kind == "polygon":
        part.polygon = _outline(shape, 3).astype(np.float32)
    elif kind in ("circle", "ellipse"):
        cx, cy = _floats(shape, "cx", "cy")
        rx, ry = _floats(shape, "rx", "ry") if kind == "ellipse" else _floats(shape, "r", "r")
        theta = _floats({"theta": shape.get("theta") or 0}, "theta")[0] if kind == "ellipse" else 0.0
        if rx <= 0 or ry <= 0:
            raise ValueError(f"the {kind} has no area")
        part.polygon = shapes.ellipse_polygon(cx, cy, rx, ry, theta)
        part.shape = {"type": kind, "cx": cx, "cy": cy} | ({"r": rx} if kind == "circle" else {"rx": rx, "ry": ry, "theta": theta})
    else:
        raise ValueError(f"the region {fs.shown(kind)} is unknown")
    parts.append(part)


def _floats(shape: dict[str, Any], *keys: str) -> list[float]:
    values = [shape.get(key) for key in keys]
    if not all(type(v) in (int, float) and abs(v) < shapes.LIMIT for v in values):
        raise ValueError(f"{', '.join(keys)} are {fs.shown(values)}, not numbers")
    return [float(v) for v in values]


def _outline(shape: dict[str, Any], least: int) -> np.ndarray:
    """(P, 2) float64 of all_points_x and all_points_y."""
    x, y = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
        raise ValueError("all_points_x and all_points_y are no lists of one length")
    xy = shapes.points_array([list(p) for p in zip(x, y, strict=True)])
    if len(xy) < least:
        raise ValueError(f"it needs {least} points, there {'is' if len(xy) == 1 else 'are'} {len(xy)}")
    return xy


def _labels(
    found: list[tuple[_Entry, shapes.Drawn]], attribute: str, declared: dict[str, list[str]], base: Path, problems: Problems
) -> list[str]:
    """File attributes as labels of the images; the classes, none when no image has one."""
    known = {key for e, _ in found for key in e.attributes} | declared.keys()
    if attribute and attribute not in known:
        return []  # it may be one of the regions
    key = _choose([e.attributes for e, _ in found], attribute, declared, _FILE_DEFAULTS, base, "file", problems)
    values = [_value(e.attributes.get(key))[0] for e, _ in found]
    if not any(values):
        return []
    classes = shapes.in_order(declared.get(key, []), {v for v in values if v}, None, problems)
    label = {name: k for k, name in enumerate(classes)}
    for (entry, d), value in zip(found, values, strict=True):
        d.record.label = label.get(value)
        if not value:
            problems.add("images without a class", entry.file, f"has no {fs.shown(key)}: it gets no class", where=entry.where)
        if rest := {k: v for k, v in entry.attributes.items() if k != key and _value(v)[0]}:
            d.record.extra = {"file_attributes": rest}
    return classes


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``images/`` and a project ``via_project_SPLIT.json`` a split, for VIA 2; returns what was lost, in words.

    The class is the region attribute ``class``, a list of options in order. Outlines become polygons, run-length codes too; regions
    of one object share an ``object_id``. A box that is off its outline by more than a pixel is a ``rect`` of that object; by
    less, it becomes the outline's extent.
    """
    records = dict(fs.unique_records(dataset))
    names = fs.file_names(dataset, flat=True)
    lost = fs.count_losses(dataset, TITLE, set(HOLDS)) + shapes.labels_beside_boxes(records.values(), TITLE)
    renamed = sum(Path(names[i]).stem != r.image_id for i, r in records.items())
    if renamed:
        lost.append(f"{renamed} image ids change to the stems of their files")
    classes = shapes.written_names(dataset.classes, "class")
    points = shapes.point_names_of(dataset)
    drawn = any(r.boxes is not None for r in records.values())
    losses = shapes.Losses()
    entries = {}
    for i, record in records.items():
        target = out / "images" / names[i]
        fs.copy_image(dataset, record, target)
        size = target.stat().st_size
        attributes = dict((record.extra or {}).get("file_attributes", {}))
        if not drawn and record.label is not None:
            attributes = {"class": classes[record.label], **{k: v for k, v in attributes.items() if k != "class"}}
        regions = _regions_out(record, classes, points, fs.image_hw(dataset, record), losses)
        entries[i] = (f"{names[i]}{size}", {"filename": names[i], "size": size, "regions": regions, "file_attributes": attributes})
    declared = _declared(classes, points, [e for _, e in entries.values()], drawn)
    pages: dict[str, dict[int, None]] = {}
    for split, members in fs.splits_of(dataset).items():
        if split and not fs.is_split(split):
            lost.append(f"the split {split} is lost: only train, val, trainval and test are told from a file's name")
        pages.setdefault(split if fs.is_split(split) else "", {}).update(dict.fromkeys(members))
    for split, chosen in pages.items():
        images = dict(entries[i] for i in chosen)
        name = f"via_project_{split}" if split else "via_project"
        project = {
            "_via_settings": {"core": {"default_filepath": "images/"}, "project": {"name": name}},
            "_via_img_metadata": images, "_via_attributes": declared,
            "_via_data_format_version": "2.0.10", "_via_image_id_list": list(images),
        }  # fmt: skip
        (out / f"{name}.json").write_text(json.dumps(project, allow_nan=False), encoding="utf-8")
    return lost + losses.say()


def _declared(classes: list[str], points: list[str], entries: list[dict[str, Any]], drawn: bool) -> dict[str, Any]:
    """The project's attributes: ``class`` with its options, and whatever else regions and files have."""

    def listed(values: Iterable[str]) -> dict[str, Any]:
        return {"type": "dropdown", "description": "", "options": dict.fromkeys(values, ""), "default_options": {}}

    text = {"type": "text", "description": "", "default_value": ""}
    region_keys = dict.fromkeys(k for e in entries for r in e["regions"] for k in r["region_attributes"])
    file_keys = dict.fromkeys(k for e in entries for k in e["file_attributes"])
    region: dict[str, Any] = dict.fromkeys(region_keys, text)
    file: dict[str, Any] = dict.fromkeys(file_keys, text)
    (region if drawn else file)["class"] = listed(classes)
    if points:
        region["keypoint"] = listed(points)
    return {"region": region, "file": file}


def _regions_out(
    record: Record, classes: list[str], point_names: list[str], size: tuple[int, int], losses: shapes.Losses
) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    extra = record.extra or {}
    group = 0
    for k in range(0 if record.boxes is None else len(record.boxes)):
        box, segment = record.boxes[k], record.segments[k] if record.segments is not None else None  # type: ignore[index]
        shape = extra["shapes"][k] if "shapes" in extra else None
        segment = _polygons(segment, size, losses)
        drawn = _outlines_out(segment, shape)
        if not drawn or losses.frame(box, segment, size):
            drawn.insert(0, _rect(box))
        points = shapes.visible_points(record, k, point_names)
        attributes = {"class": classes[int(record.labels[k])]}  # type: ignore[index]
        rest = extra["attributes"][k] if "attributes" in extra else None
        attributes |= {a: v for a, v in (rest or {}).items() if a not in ("class", *_OWN)}
        attributes |= dict.fromkeys(shapes.traits_of(record, k), "1")
        group += len(drawn) + len(points) > 1
        own = {"object_id": str(group)} if len(drawn) + len(points) > 1 else {}
        out += [{"shape_attributes": s, "region_attributes": {**attributes, **own}} for s in drawn]
        for name, (x, y), occluded in points:
            more = {"keypoint": name, **own, **({"visibility": "1"} if occluded else {})}
            out.append({"shape_attributes": {"name": "point", "cx": x, "cy": y}, "region_attributes": more})
    for mark in extra.get("marks", ()):
        attributes = {**({"class": mark["label"]} if mark["label"] else {}), **mark.get("attributes", {})}
        attributes |= dict.fromkeys(shapes.traits_of_mark(mark), "1")
        xy = shapes.numbers(mark["points"])
        if mark["type"] in ("point", "points"):
            regions = [{"name": "point", "cx": x, "cy": y} for x, y in xy]
        else:
            regions = [{"name": "polyline", "all_points_x": [p[0] for p in xy], "all_points_y": [p[1] for p in xy]}]
        out += [{"shape_attributes": s, "region_attributes": attributes} for s in regions]
    return out


def _polygons(segment: Any, size: tuple[int, int], losses: shapes.Losses) -> list[Any] | None:
    """Polygons of an outline; None when it has none."""
    if not isinstance(segment, dict):
        return segment
    try:
        polygons = [p for p in mask_to_polygons(rasterize(segment, size)) if len(p) >= 3]
    except ValueError:
        polygons = []
    losses.counts["codes" if polygons else "empty"] += 1
    return polygons or None


def _outlines_out(segment: list[Any] | None, shape: Any) -> list[dict[str, Any]]:
    """Shape attributes of each piece of an object's outline."""
    if segment is None:
        return []
    if shape:
        keys = [k for k in ("cx", "cy", "r", "rx", "ry", "theta") if k in shape]
        return [{"name": shape["type"], **dict(zip(keys, shapes.numbers([shape[k] for k in keys]), strict=True))}]
    lists = [shapes.numbers(polygon) for polygon in segment]
    return [{"name": "polygon", "all_points_x": [p[0] for p in xy], "all_points_y": [p[1] for p in xy]} for xy in lists]


def _rect(box: np.ndarray) -> dict[str, Any]:
    """x, y, width, height that read back as the same float32 edges."""
    start, exact = fs.shorten(box[:2]), box[2:].astype(np.float64) - box[:2].astype(np.float64)
    short = np.round(box[2:] - start, 4)
    same = bool(((start + short).astype(np.float32) == box[2:]).all())
    x, y, width, height = shapes.numbers(np.concatenate([start, short] if same else [box[:2].astype(np.float64), exact]))
    return {"name": "rect", "x": x, "y": y, "width": width, "height": height}
