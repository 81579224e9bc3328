"""labelme JSON: one file an image, drawn shapes with labels. Read and written.

Read: JSON files with ``shapes``, in the root or up to two folders below, beside their images or not. The image is the one that
``imagePath`` names (relative to the JSON), else the one of the JSON's stem; when neither is there, the picture embedded as
``imageData``, which an :class:`EmbeddedImages` reader then serves. A file of one image that an earlier file has is skipped.

Conventions (:mod:`saccade.data.formats.shapes` says how shapes, groups and points become objects and key points):

* **Shapes.** Numbers are edges in pixels, as they are. ``polygon`` (also when no type is said); ``rectangle`` by any opposite
  corners; ``circle`` by its centre and a point on the rim; ``mask``, a PNG whose first corner is the smaller of its two points and
  whose size is its own; ``point``, ``points``, ``line`` and ``linestrip`` have no area. X-AnyLabeling's ``rotation`` and
  ``oriented_rectangle`` are polygons of four corners.
* **Groups.** Shapes of one ``group_id`` and label are one object; points of that group are its key points. A point's flag
  ``occluded`` is visibility 1.
* **Classes** are those of ``labels.txt`` or ``classes.txt`` in the root (labelme's ``__ignore__`` and ``_background_`` left out), the
  others sorted by name. ``keypoints.txt`` gives the order of the key points.
* **Flags.** Where no file draws a shape, the flag that is true is the class of the image (``flags.txt`` gives the order). Else the
  flags stand in ``record.extra["flags"]``; those of a shape, if they are not difficult, truncated or occluded, in
  ``extra["shape_flags"]``, its description in ``extra["descriptions"]``.
* **Splits** are folders called train, val, test (or the like).
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats import shapes
from saccade.data.formats.scan import Problems, head
from saccade.data.images import FORMATS, MAX_PIXELS, pillow_tensor, read_image
from saccade.data.polygons import rasterize
from saccade.data.records import DataIndex, PackedRecords, Record, inside
from saccade.types.errors import DataError

NAME = "labelme"
TITLE = "labelme JSON"
TASKS = ("detect", "pose", "classify")
HOLDS = frozenset(["label", "boxes", "segments", "keypoints"])

MAX_FILE = 256 * 2**20
"""Largest JSON that is read: a picture is embedded in it."""

MAX_SHAPES = 16 * 2**20
"""Largest JSON without its picture; parsed, it takes up to twenty times as much."""

_POLYGONS = ("polygon", "rotation", "oriented_rectangle")
_IMAGE_DATA = re.compile(rb'"imageData"\s*:\s*"')
_UNUSED = ("__ignore__", "_background_")


def sniff(root: Path) -> str | None:
    """Why this looks like labelme, or None."""
    root = Path(root)
    if root.is_file():
        return "a labelme JSON file" if root.suffix.lower() == ".json" and _fits(head(root.parent, root.name, shapes.HEAD)) else None
    count = sum(len(names) for _, names in shapes.find_groups(root, (".json",), _fits, most=200_000))
    return f"{count} labelme JSON file{'s' * (count != 1)}" if count else None


def _fits(start: bytes) -> bool:
    if not re.search(rb'"shapes"\s*:\s*\[', start):
        return False
    return re.search(rb'"(imagePath|imageData|imageHeight|flags|label|points)"\s*:', start) is not None


# ----------------------------------------------------------------------------------------------------------------- read


def read(root: Path) -> DataIndex:
    """The data set of a folder of labelme JSON, or of one file.

    Raises:
        DataError: no labelme JSON, or not one usable image.
    """
    root = Path(root)
    base = root.parent if root.is_file() else root
    groups = [("", [root.name])] if root.is_file() else shapes.find_groups(root, (".json",), _fits)
    if not groups:
        raise DataError(root, "holds no labelme JSON", hint='expected files with {"shapes": [...], "imagePath": ...}')
    problems = Problems(base)
    found: list[tuple[shapes.Drawn, dict[str, bool], str]] = []
    taken: dict[str, str] = {}
    ids: set[str] = set()
    for folder, names in groups:
        finder = fs.ImageFinder(base, shapes.image_folders(folder))
        for name in names:
            file = base / folder / name
            try:
                drawn, flags = _read_one(file, base, folder, finder, problems)
            except DataError as error:
                problems.add("files that cannot be used", error.path, error.problem, where=error.where, hint=error.hint)
                continue
            record = drawn.record
            if record.path in taken:
                text = f"names the image {fs.shown(record.path)}, which {taken[record.path]} has; it is skipped"
                problems.add("files of the same image", file, text)
                continue
            taken[record.path] = name
            stem = os.path.splitext(name)[0]
            record.image_id = shapes.unique_id(ids, stem, os.path.join(folder, stem).replace(os.sep, "/"), name)
            found.append((drawn, flags, shapes.split_of(folder)))
    if not found:
        first = problems.list()
        raise DataError(root, "not one usable image is found", hint=str(first[0]) if first else "")
    drawings = [d for d, _, _ in found]
    tasks: tuple[str, ...] = ("classify",)
    points: list[str] = []
    if not any(d.objects or d.points or d.marks for d in drawings) and any(any(flags.values()) for _, flags, _ in found):
        classes = _flag_labels(base, [(d.record, flags) for d, flags, _ in found], problems)
    else:
        for d, flags, _ in found:
            if flags:
                d.record.extra = {"flags": flags}
        classes, points = _names(base, drawings, problems)
        shapes.fill(drawings, classes, points)
        tasks = ("detect", "pose") if points else ("detect",)
    splits: dict[str, list[int]] = {}
    for k, (_, _, split) in enumerate(found):
        if split:
            splits.setdefault(split, []).append(k)
    embedded = sum(d.record.path.lower().endswith(".json") for d in drawings)
    if embedded:
        problems.add("embedded images", base, f"{embedded} images have no file of their own: the pictures embedded in the JSON are used")
    return DataIndex(
        NAME, base, classes, PackedRecords(d.record for d in drawings),
        splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
        tasks=tasks, problems=problems.list(), reason=sniff(root) or "", keypoint_names=points,
        keypoint_swap=shapes.point_swap(points), reader=EmbeddedImages(base) if embedded else None,
    )  # fmt: skip


def _names(base: Path, drawn: list[shapes.Drawn], problems: Problems) -> tuple[list[str], list[str]]:
    """Classes and names of the key points."""
    source, stated = shapes.names_in(base, ("labels.txt", "classes.txt"), problems)
    used = {item.label for d in drawn for item in d.objects}
    stated = [n for n in stated if n in used or n not in _UNUSED]
    classes = shapes.in_order(stated, used, source, problems)
    source, stated = shapes.names_in(base, ("keypoints.txt",), problems)
    return classes, shapes.give_points(drawn, stated, source, base, problems)


def _flag_labels(base: Path, records: list[tuple[Record, dict[str, bool]]], problems: Problems) -> list[str]:
    """Sets the images' labels by their flags; gives the classes."""
    source, stated = shapes.names_in(base, ("flags.txt", "labels.txt", "classes.txt"), problems)
    stated = [n for n in stated if n not in _UNUSED]
    classes = shapes.in_order(stated, {name for _, flags in records for name in flags}, source, problems)
    label = {name: k for k, name in enumerate(classes)}
    for record, flags in records:
        true = [name for name, value in flags.items() if value]
        if len(true) == 1:
            record.label = label[true[0]]
        elif true:
            text = f"has {len(true)} true flags ({', '.join(map(fs.shown, true[:4]))}): it gets no class"
            problems.add("images of several flags", base / record.path, text)
    return classes


def _load(path: Path) -> dict[str, Any]:
    """The JSON without the embedded picture."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise DataError(path, f"is larger than {MAX_FILE >> 20} MB: not one image's annotation")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    if match := _IMAGE_DATA.search(raw):
        end = raw.find(b'"', match.end())
        raw = raw[: match.end()] + raw[end:] if end >= 0 else raw
    if len(raw) > MAX_SHAPES:
        raise DataError(path, f"holds more than {MAX_SHAPES >> 20} MB of shapes: not one image's annotation")
    try:
        data = json.loads(raw)
    except json.JSONDecodeError as error:
        raise DataError(path, f"is not JSON: {error.msg}", where=f"line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise DataError(path, "is nested too deeply to be annotations") from None
    except ValueError as error:  # bad encoding, a number of thousands of digits
        raise DataError(path, f"is not usable JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise DataError(path, "is not labelme: it has no list of shapes")
    return data


def _read_one(path: Path, base: Path, folder: str, finder: fs.ImageFinder, problems: Problems) -> tuple[shapes.Drawn, dict[str, bool]]:
    data = _load(path)
    image = _find_image(path, base, data.get("imagePath"), finder)
    stated = data.get("imageHeight"), data.get("imageWidth")
    size = stated if all(type(v) is int and 0 < v < shapes.LIMIT for v in stated) else None
    true_size = cache(partial(_true_size, base / image))
    masked = any(isinstance(s, dict) and s.get("shape_type") == "mask" for s in data["shapes"])  # its code holds the size
    if size is None or size[0] * size[1] > MAX_PIXELS or masked:
        size = true_size() or (size if not masked else None)
    parts: list[shapes.Part] = []
    points: list[shapes.Point] = []
    marks: list[dict[str, Any]] = []
    for k, item in enumerate(data["shapes"], 1):
        where = f"shape {k}"
        try:
            _shape(item, where, size, parts, points, marks)
        except ValueError as error:
            problems.add("shapes that cannot be used", path, f"{error}; it is skipped", where=where)
    objects = shapes.join(parts, size, path, true_size, problems)
    flags = data.get("flags")
    flags = {shapes.word(k): v for k, v in flags.items() if k.strip() and isinstance(v, bool)} if isinstance(flags, dict) else {}
    return shapes.Drawn(Record(image, "", size), objects, points, marks), flags


def _find_image(path: Path, base: Path, name: Any, finder: fs.ImageFinder) -> str:
    """The image's file, or the JSON itself when only its embedded picture is there."""
    image, refused = None, None
    if isinstance(name, str) and name.strip():
        try:
            image = finder.find(name, source=path, where="imagePath")
        except DataError as error:
            refused = error
    image = image or finder.by_stem(path.stem)
    if image is not None:
        return image
    try:
        _embedded_header(path)
    except DataError as error:
        if refused is not None:
            raise refused from None
        missing = f"its image is missing: neither {fs.shown(name)} nor {path.stem}.* is found, and {error.problem}"
        raise DataError(path, missing, hint="the image is dropped") from None
    return os.path.relpath(path, base).replace(os.sep, "/")


def _true_size(path: Path) -> tuple[int, int] | None:
    if path.suffix.lower() != ".json":
        return shapes.true_size_of(path)
    try:
        return _embedded_image(path).shape[:2]  # type: ignore[return-value]
    except DataError:
        return None


def _shape(
    item: Any,
    where: str,
    size: tuple[int, int] | None,
    parts: list[shapes.Part],
    points: list[shapes.Point],
    marks: list[dict[str, Any]],
) -> None:
    """One shape into the list where it belongs; ValueError says why not."""
    if not isinstance(item, dict):
        raise ValueError("is no shape")
    label = item.get("label")
    label = shapes.word(label) if type(label) in (str, int) else ""
    if not label:
        raise ValueError("has no label")
    kind = item.get("shape_type") or "polygon"
    group = item.get("group_id")
    group = group if type(group) in (int, str) else None
    xy = shapes.points_array(item.get("points"))
    notes: dict[str, Any] = {}
    flags = item.get("flags")
    true = {shapes.word(k): True for k, v in flags.items() if v is True} if isinstance(flags, dict) else {}
    notes.update({k: true.pop(k) for k in shapes.TRAITS if k in true})
    if true:
        notes["shape_flags"] = true
    if isinstance(item.get("description"), str) and item["description"]:
        notes["descriptions"] = shapes.plain(item["description"])
    if kind in ("point", "points", "line", "linestrip"):
        mark = {"type": kind, "label": label, "points": xy.tolist(), **notes}
        if kind == "point":
            points.append(shapes.Point(label, group, tuple(xy[0]), 1 if "occluded" in notes else 2, mark))
        else:
            marks.append(mark)
        return
    part = shapes.Part(label, where, group, notes=notes)
    if kind == "rectangle":
        part.box = np.concatenate([xy.min(0), xy.max(0)])
    elif kind == "circle":
        if len(xy) < 2 or not (radius := float(np.hypot(*(xy[1] - xy[0])))) > 0:
            raise ValueError("a circle needs a centre and another point on its rim")
        part.polygon = shapes.ellipse_polygon(*xy[0], radius, radius)
        part.shape = {"type": "circle", "cx": float(xy[0, 0]), "cy": float(xy[0, 1]), "r": radius, "rim": xy[1].tolist()}
    elif kind == "mask":
        if size is None:
            raise ValueError("a mask needs the size of the image, which is unknown")
        left, top = np.floor(xy.min(0)).astype(int).tolist()
        part.code = shapes.crop_code(_mask_crop(item.get("mask"), size), left, top, size)
        if part.code is None:
            raise ValueError("the mask has no pixel inside the image")
    elif kind in _POLYGONS:
        if len(xy) < 3:
            raise ValueError(f"a polygon needs three points, this one has {len(xy)}")
        part.polygon = xy.astype(np.float32)
    else:
        raise ValueError(f"the shape type {fs.shown(kind)} is unknown")
    parts.append(part)


def _mask_crop(text: Any, size: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of a base64 PNG that is no larger than the image."""
    if not isinstance(text, str):
        raise ValueError("the mask has no picture")
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError(f"the mask of {image.width} x {image.height} is larger than the image of {size[1]} x {size[0]}")
            values = np.asarray(image) != 0
    except ValueError as error:
        raise ValueError(f"the mask is not base64: {error}" if isinstance(error, binascii.Error) else str(error)) from None
    except Exception as error:  # Pillow on hostile bytes: OSError, SyntaxError, struct.error, zlib.error, decompression bombs ...
        raise ValueError(f"the mask is no readable PNG ({type(error).__name__})") from None
    return values if values.ndim == 2 else values.any(axis=2)


class EmbeddedImages:
    """Pixels of the pictures that are embedded in JSON files (``imageData``); the other images come from their files. Picklable."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, record: Record) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8."""
        path = inside(self.root, record.path, source=record.image_id)
        if record.path.lower().endswith(".json"):
            return _embedded_image(path)
        return _channels_last(read_image(path).numpy())

    def mask(self, record: Record) -> np.ndarray:
        """There are no class masks."""
        raise DataError(record.path, "has no class mask")


def _channels_last(planes: np.ndarray) -> np.ndarray:
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)


def _embedded_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise DataError(path, f"is larger than {MAX_FILE >> 20} MB")
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    match = _IMAGE_DATA.search(raw)
    if match is None:
        raise DataError(path, "no picture is embedded")
    try:
        return base64.b64decode(raw[match.end() : raw.find(b'"', match.end())].replace(b"\\n", b""))
    except ValueError:
        raise DataError(path, "the embedded picture is not base64") from None


def _open_embedded(path: Path) -> Image.Image:
    Image.init()
    try:
        return Image.open(io.BytesIO(_embedded_bytes(path)), formats=[f for f in FORMATS if f in Image.OPEN])
    except DataError:
        raise
    except Exception as error:  # Pillow on hostile bytes raises nearly everything
        raise DataError(path, f"the embedded picture cannot be read ({type(error).__name__})") from None


def _embedded_header(path: Path) -> None:
    """DataError unless a picture is embedded, by its header."""
    _open_embedded(path).close()


def _embedded_image(path: Path) -> np.ndarray:
    """(H, W[, 3]) uint8 of the embedded picture, as :func:`~saccade.data.images.read_image` gives for a file."""
    with _open_embedded(path) as image:
        try:
            return _channels_last(pillow_tensor(image).numpy())
        except DataError as error:
            raise DataError(path, f"the embedded picture {error.problem}") from None


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write images with a JSON beside each, in a folder a split, and ``labels.txt``; returns what was lost, in words.

    A run-length code becomes a ``mask`` shape; polygons of one object share a ``group_id``, and so do its key points. A box
    that is off its outline by more than a pixel is written as a rectangle of that group; by less, it becomes the outline's
    extent. An image of several splits stands in the first of them. Labels of images become flags where there are no boxes.
    """
    records = dict(fs.unique_records(dataset))
    names = fs.file_names(dataset, flat=True)
    lost = fs.count_losses(dataset, TITLE, set(HOLDS)) + shapes.labels_beside_boxes(records.values(), TITLE)
    renamed = sum(Path(names[i]).stem != r.image_id for i, r in records.items())
    if renamed:
        lost.append(f"{renamed} image ids change to the stems of their files")
    place: dict[int, str] = {}
    for split, members in sorted(fs.splits_of(dataset).items(), key=lambda s: fs.split_rank(s[0])):
        again = sum(i in place for i in members)
        if again:
            lost.append(f"{again} images of the split {split or '(none)'} are written in another split only: an image stands once")
        if split and not fs.is_split(split):
            lost.append(f"the split {split} is lost: only train, val, trainval and test have folders")
        for i in members:
            place.setdefault(i, split if fs.is_split(split) else "")
    classes = shapes.written_names(dataset.classes, "class")
    points = shapes.point_names_of(dataset)
    drawn = any(r.boxes is not None for r in records.values())
    losses = shapes.Losses()
    for i, record in records.items():
        target = out / place[i] / names[i]
        fs.copy_image(dataset, record, target)
        height, width = fs.image_hw(dataset, record)
        flags = dict((record.extra or {}).get("flags", {})) if drawn else {c: k == record.label for k, c in enumerate(classes)}
        page = {
            "version": "5.5.0", "flags": flags, "shapes": _shapes_out(record, classes, points, (height, width), losses),
            "imagePath": names[i], "imageData": None, "imageHeight": int(height), "imageWidth": int(width),
        }  # fmt: skip
        target.with_suffix(".json").write_text(json.dumps(page, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    lists = {"labels.txt" if drawn else "flags.txt": classes, "keypoints.txt": points}
    for name, lines in lists.items():
        if lines:
            (out / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return lost + losses.say()


def _shapes_out(
    record: Record, classes: list[str], point_names: list[str], size: tuple[int, int], losses: shapes.Losses
) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    extra = record.extra or {}
    group = 0
    for k in range(0 if record.boxes is None else len(record.boxes)):
        box, segment = record.boxes[k], record.segments[k] if record.segments is not None else None  # type: ignore[index]
        shape = extra["shapes"][k] if "shapes" in extra else None
        flags = dict.fromkeys(shapes.traits_of(record, k), True) | ((extra.get("shape_flags") or {k: None})[k] or {})
        text = extra["descriptions"][k] if "descriptions" in extra else None
        drawn = _outlines_out(segment, shape, size, losses)
        if not drawn or losses.frame(box, segment, size):
            drawn.insert(0, ("rectangle", shapes.numbers(box.reshape(2, 2)), None))
        points = shapes.visible_points(record, k, point_names)
        group += len(drawn) + len(points) > 1
        number = group if len(drawn) + len(points) > 1 else None
        label = classes[int(record.labels[k])]  # type: ignore[index]
        out += [_shape_out(label, kind, xy, number, flags, text, mask) for kind, xy, mask in drawn]
        out += [_shape_out(name, "point", [xy], number, {"occluded": True} if occluded else None) for name, xy, occluded in points]
    for mark in extra.get("marks", ()):
        label = mark["label"] or mark["type"]
        flags = dict.fromkeys(shapes.traits_of_mark(mark), True) | mark.get("shape_flags", {})
        out.append(_shape_out(label, mark["type"], shapes.numbers(mark["points"]), None, flags, mark.get("descriptions")))
    return out


def _outlines_out(segment: Any, shape: Any, size: tuple[int, int], losses: shapes.Losses) -> list[tuple[str, Any, str | None]]:
    """(type, points, mask) of each piece of an object's outline."""
    if segment is None:
        return []
    if not isinstance(segment, dict):
        if shape and shape["type"] == "circle":
            rim = shape.get("rim") or [shape["cx"] + shape["r"], shape["cy"]]
            return [("circle", shapes.numbers([[shape["cx"], shape["cy"]], rim]), None)]
        return [("polygon", shapes.numbers(polygon), None) for polygon in segment]
    try:
        mask = rasterize(segment, size)
    except ValueError:
        mask = np.zeros((0, 0), dtype=bool)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        losses.counts["empty"] += 1
        return []
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    file = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1].astype(np.uint8) * 255).save(file, format="PNG")
    return [("mask", [[left, top], [right, bottom]], base64.b64encode(file.getvalue()).decode("ascii"))]


def _shape_out(
    label: str, kind: str, xy: Any, group: int | None, flags: Any = None, text: Any = None, mask: str | None = None
) -> dict[str, Any]:
    return {
        "label": label, "points": xy, "group_id": group, "description": text or "", "shape_type": kind,
        "flags": dict(flags or {}), "mask": mask,
    }  # fmt: skip
