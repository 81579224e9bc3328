"""What the formats of drawn shapes share (labelme, VIA): files found, shapes joined to objects, points given to objects, names.

How shapes become objects:

* A rectangle, polygon, circle, ellipse or mask is an object. Those of one image that share a group **and** a label are one object.
* Outlines give the object's segment (polygons as they are; with a mask among them, all together one run-length code) and, by
  their extent, its box. A rectangle is a box without a segment; grouped with outlines it gives the object's box alone.
* A circle or an ellipse becomes a polygon of 64 corners; when it is the whole object, ``record.extra["shapes"]`` (an entry an
  object, None for plain ones) keeps it, so that it is written as what it was.
* A box that hangs over the image by up to a pixel stays as it is; by more, it is clipped and reported; one without area inside is
  skipped and reported. Outlines are never cut.
* Points that share a group with exactly one object are its key points, by their names, which must be unique in the object. Other
  points, and lines, are no objects: ``record.extra["marks"]`` keeps them (type, label, points) for writing; their number is reported.
* What a shape says of itself stands in ``record.extra``: ``difficult``, ``truncated`` and ``occluded`` as (N,) bool, the rest (flags,
  attributes) as a list with an entry an object.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.coco_points import mirror_permutation
from saccade.data.formats.rle import runs_code
from saccade.data.formats.scan import Problems, folders_of, head, look, ordered
from saccade.data.images import image_size
from saccade.data.polygons import mask_to_rle, rasterize
from saccade.data.records import Record
from saccade.types.errors import DataError

LIMIT = 1e7
"""Pixels; a coordinate beyond is a mistake, and float32 would round it."""

SIDES = 64
"""Corners of the polygon that stands for a circle or an ellipse."""

MAX_POINT_NAMES = 500
"""Most key points of an object; more names mean that they name something else."""

HEAD = 1 << 16
"""Bytes of a file by which it is recognised."""

TRAITS = ("difficult", "truncated", "occluded")
"""What may be said of an object: (N,) bool of that name in ``record.extra``, where any object has it."""

IMAGES = ("images", "imgs", "img", "JPEGImages")


# ---------------------------------------------------------------------------------------------------------------- files


def find_groups(
    root: Path, suffixes: tuple[str, ...], fits: Callable[[bytes], bool], *, first: str = "", most: int | None = None
) -> list[tuple[str, list[str]]]:
    """(folder, file names) of the root and the folders up to two levels below of which one of the first eight such files fits.

    Args:
        root: the data root; folders are relative to it.
        suffixes: of the files, in lower case.
        fits: whether a file's first 64 KB are of the format.
        first: files whose name begins so are looked into first.
        most: to recognise a format: stop after this many names. None is for reading: all folders, only plain files inside the root.
    """
    near = folders_of(root)
    far = (os.path.join(a, b) for a in near for b in folders_of(root / a))
    groups, seen = [], 0
    for folder in ("", *near, *far):
        files = look(root / folder).files
        seen += len(files)
        names = [n for n in files if n.lower().endswith(suffixes)]
        probes = sorted(names, key=lambda n: not n.startswith(first))[:8] if first else names[:8]
        if any(fits(head(root, os.path.join(folder, n), HEAD)) for n in probes):
            groups.append((folder, names if most is not None else [n for n in names if _readable(root / folder / n, root)]))
        if most is not None and seen > most:
            break
    return groups


def _readable(path: Path, root: Path) -> bool:
    """A plain file (a pipe would block), which is no link out of the root."""
    return path.is_file() and (not path.is_symlink() or fs.stays_inside(path, root))


def image_folders(folder: str) -> list[str]:
    """Where the images of annotations in a folder may lie, the best first."""
    parent, name = os.path.split(folder)
    near = [folder, *(os.path.join(folder, n) for n in IMAGES), *(os.path.join(parent, n) for n in IMAGES)]
    return [*near, *(os.path.join(parent, n, name) for n in IMAGES), *(os.path.join(n, name) for n in IMAGES), parent, *IMAGES, ""]


def split_of(text: str) -> str:
    """The split that a word of a folder's or file's name states, or "": the last one counts.

    >>> split_of("via_project_train"), split_of("training_with_parts"), split_of("annotations/val2017"), split_of("faces")
    ('train', 'train', 'val', '')
    """
    words = [w for w in re.split(r"[-_./\\\s]+", text) if fs.is_split(w)]
    return fs.split_name(words[-1]) if words else ""


def plain(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def word(value: object) -> str:
    r"""A name of an annotation: one line, single blanks.

    >>> word(" red \n cell "), word(7)
    ('red cell', '7')
    """
    return " ".join(plain(str(value)).split())


def unique_id(used: set[str], *choices: str) -> str:
    """The first choice that is not used yet, else the last with a number; it counts as used."""
    name = next((c for c in choices if c not in used), "")
    number = 2
    while not name or name in used:
        name = f"{choices[-1]} ({number})"
        number += 1
    used.add(name)
    return name


def names_in(folder: Path, files: Sequence[str], problems: Problems) -> tuple[Path | None, list[str]]:
    """The first of these files that is there, and its lines (each once, blank ones left out)."""
    for file in files:
        path = folder / file
        if path.is_file() and fs.stays_inside(path, folder):
            try:
                return path, list(dict.fromkeys(word(line) for line in fs.read_text(path).splitlines() if line.strip()))
            except DataError as error:
                problems.add("lists of names that cannot be read", error.path, error.problem, where=error.where)
    return None, []


def in_order(stated: Sequence[str], used: Iterable[str], source: Path | None, problems: Problems) -> list[str]:
    """The stated names, then the others by value or name; these are reported when a file states names."""
    missing = ordered(set(used) - set(stated))
    if missing and source is not None:
        shown = ", ".join(map(fs.shown, missing[:12]))
        problems.add("lists that lack names", source, f"lacks {shown}, which the annotations use; they are added at the end")
    return [*stated, *missing]


def point_swap(names: Sequence[str]) -> list[int]:
    """The key points' permutation under a mirror: by left and right in the names; of 68 numbered points, the one of iBUG's 300-W faces."""
    if [n.lstrip("0") or "0" for n in names] == [str(k) for k in range(68)]:
        return [int(k) for a, b in _FACE_68 for k in range(a, b, 1 if b > a else -1)]
    return mirror_permutation(list(names))


_FACE_68 = (
    (16, -1),  # jaw
    (26, 16), (27, 31), (35, 30),  # brows, bridge, nostrils
    (45, 41), (47, 45), (39, 35), (41, 39),  # eyes, lids
    (54, 47), (59, 54), (64, 59), (67, 64),  # lips: upper and lower, outer and inner
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- shapes


@dataclass(slots=True)
class Part:
    """One drawn shape with an area: a rectangle's ``box``, a ``polygon`` or a mask's run-length ``code``."""

    label: str
    where: str
    group: int | str | None = None
    box: np.ndarray | None = None
    polygon: np.ndarray | None = None
    code: dict[str, Any] | None = None
    shape: dict[str, Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Point:
    """One drawn point: a key point when its group has an object, else a mark."""

    name: str
    group: int | str | None
    xy: tuple[float, float]
    visibility: int
    mark: dict[str, Any]


@dataclass(slots=True)
class Object:
    """Parts joined: box (4,) float32, segment as in :class:`~saccade.data.records.Record`."""

    label: str
    box: np.ndarray
    segment: Any
    shape: dict[str, Any] | None
    notes: dict[str, Any]
    group: int | str | None
    points: dict[str, Point] = field(default_factory=dict)


@dataclass(slots=True)
class Drawn:
    """An image and what is drawn on it; the record's objects are still empty."""

    record: Record
    objects: list[Object]
    points: list[Point]
    marks: list[dict[str, Any]]


def points_array(points: Any) -> np.ndarray:
    """(P, 2) float64 of a list of pairs; ValueError in words."""
    try:
        xy = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its points are not pairs of numbers") from None
    if xy.ndim != 2 or xy.shape[1] != 2 or not len(xy):
        raise ValueError("its points are not pairs of numbers")
    if not (np.abs(xy) < LIMIT).all():
        raise ValueError("a coordinate is no usable number")
    return xy


def ellipse_polygon(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> np.ndarray:
    """(64, 2) float32 outline of an ellipse whose first axis is turned by ``theta`` radians, clockwise as seen (y runs down)."""
    t = np.arange(SIDES) * (2 * np.pi / SIDES)
    x, y = rx * np.cos(t), ry * np.sin(t)
    cos, sin = np.cos(theta), np.sin(theta)
    return np.stack([cx + x * cos - y * sin, cy + x * sin + y * cos], axis=1).astype(np.float32)


def crop_code(crop: np.ndarray, left: int, top: int, size: tuple[int, int]) -> dict[str, Any] | None:
    """COCO's run-length code of a bool crop placed in an image of ``size``; None when no pixel is inside. Costs the crop, not the image."""
    height, width = size
    crop = crop[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    left, top = max(left, 0), max(top, 0)
    if not crop.any():
        return None
    columns = np.zeros((crop.shape[1], crop.shape[0] + 2), dtype=np.int8)
    columns[:, 1:-1] = crop.T
    steps = np.diff(columns, axis=1)
    (column, row), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    starts, ends = (left + column) * height + top + row, (left + column) * height + top + end
    joined = np.flatnonzero(starts[1:] == ends[:-1])  # a run goes on at the top of the next column
    starts, ends = np.delete(starts, joined + 1), np.delete(ends, joined)
    return runs_code(starts, ends, size)


def outline_extent(segment: Any) -> np.ndarray:
    """(4,) float64 XYXY of polygons or of a run-length code's pixels; zeros when there are none. ValueError when malformed."""
    if isinstance(segment, dict):
        mask = rasterize(segment, tuple(segment["size"]))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0], dtype=np.float64)
    xy = np.concatenate([np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in segment])
    return np.concatenate([xy.min(0), xy.max(0)])


def settle_box(box: np.ndarray, size: tuple[int, int] | None) -> tuple[np.ndarray | None, str]:
    """The box as (4,) float32, or None when nothing of it lies in the image, and what was wrong with it ("": nothing)."""
    height, width = size or (np.inf, np.inf)
    text = " ".join(f"{v:g}" for v in box)
    small = box.astype(np.float32)
    inner = box.clip(0, [width, height, width, height]).astype(np.float32)
    if not (small[2:] > small[:2]).all():
        return None, f"the box {text} has no area; it is skipped"
    if not (inner[2:] > inner[:2]).all():
        return None, f"the box {text} lies outside the image; it is skipped"
    if (box < -1).any() or (box[2:] > np.array([width, height]) + 1).any():
        return inner, f"the box {text} leaves the image of {width:g} x {height:g}; it is clipped"
    return small, ""


def join(
    parts: list[Part], size: tuple[int, int] | None, file: Path, true_size: Callable[[], tuple[int, int] | None], problems: Problems
) -> list[Object]:
    """Parts to objects, as the module says. ``true_size`` gives the size of the image itself, asked when a box contradicts ``size``."""
    groups: dict[Any, list[Part]] = {}
    for k, part in enumerate(parts):
        groups.setdefault(k if part.group is None else (part.group, part.label), []).append(part)
    objects = []
    for members in groups.values():
        where = members[0].where
        frames = [p.box for p in members if p.box is not None]
        outlines = [p for p in members if p.box is None]
        try:
            segment = _segment(outlines, size) if outlines else None
            extent = np.stack(frames) if frames else outline_extent(segment)[None]
        except ValueError as error:
            problems.add("outlines that cannot be used", file, f"{error}; it is skipped", where=where)
            continue
        extent = np.concatenate([extent[:, :2].min(0), extent[:, 2:].max(0)])
        box, problem = settle_box(extent, size)
        if problem and (known := true_size()) is not None and known != size:
            size = known
            box, problem = settle_box(extent, size)
        if problem:
            problems.add("boxes that do not fit", file, problem, where=where)
        if box is not None:
            shape = members[0].shape if len(members) == 1 else None
            objects.append(Object(members[0].label, box, segment, shape, members[0].notes, members[0].group))
    return objects


def _segment(outlines: list[Part], size: tuple[int, int] | None) -> Any:
    """Polygons as they are; with a mask among them one run-length code."""
    if all(p.polygon is not None for p in outlines):
        return [p.polygon for p in outlines]
    if len(outlines) == 1:
        return outlines[0].code
    whole = tuple(next(p.code for p in outlines if p.code is not None)["size"])
    union = np.zeros(whole, dtype=bool)
    for part in outlines:
        union |= rasterize(part.code if part.polygon is None else [part.polygon], whole)
    return mask_to_rle(union)


def true_size_of(path: Path) -> tuple[int, int] | None:
    """(H, W) of an image file, or None when it cannot be read."""
    try:
        return image_size(path)
    except DataError:
        return None


def give_points(drawn: list[Drawn], stated: Sequence[str], source: Path | None, root: Path, problems: Problems) -> list[str]:
    """Points to the objects of their groups, the others to the marks; gives the names of the key points in order."""
    count = 0
    for d in drawn:
        owners: dict[Any, list[Object]] = {}
        for item in d.objects:
            if item.group is not None:
                owners.setdefault(item.group, []).append(item)
        for point in d.points:
            mine = owners.get(point.group, []) if point.group is not None else []
            if len(mine) != 1:
                d.marks.append(point.mark)
            elif point.name in mine[0].points:
                d.marks.append(point.mark)
                problems.add(
                    "points of the same name", d.record.path, f"an object has two points {fs.shown(point.name)}; the second is a mark"
                )
            else:
                mine[0].points[point.name] = point
                count += 1
    used = {name for d in drawn for item in d.objects for name in item.points}
    names = in_order(stated, used, source, problems)
    cells = len(names) * sum(len(d.objects) for d in drawn)
    if len(names) > MAX_POINT_NAMES or cells > max(10**6, 100 * count):
        problems.add(
            "names of points", root, f"its {count} grouped points have {len(names)} names: too many for key points; they are marks"
        )
        for d in drawn:
            for item in d.objects:
                d.marks += [p.mark for p in item.points.values()]
                item.points = {}
        names = []
    marks = sum(len(d.marks) for d in drawn)
    if marks:
        problems.add("marks", root, f"{marks} points and lines belong to no object: they are kept for writing, and not used")
    return names


def fill(drawn: list[Drawn], classes: Sequence[str], point_names: Sequence[str]) -> None:
    """Puts objects and marks into the records."""
    label = {name: k for k, name in enumerate(classes)}
    column = {name: k for k, name in enumerate(point_names)}
    outlined = any(item.segment is not None for d in drawn for item in d.objects)
    for d in drawn:
        record, items = d.record, d.objects
        record.boxes = np.array([i.box for i in items], dtype=np.float32).reshape(-1, 4)
        record.labels = np.array([label[i.label] for i in items], dtype=np.int64)
        record.segments = [i.segment for i in items] if outlined else None
        if column:
            record.keypoints = np.zeros((len(items), len(column), 3), dtype=np.float32)
            for k, item in enumerate(items):
                for name, point in item.points.items():
                    record.keypoints[k, column[name]] = (*point.xy, point.visibility)
        extra = dict(record.extra or {})
        if any(i.shape for i in items):
            extra["shapes"] = [i.shape for i in items]
        for key in dict.fromkeys(key for i in items for key in i.notes):
            values = [i.notes.get(key) for i in items]
            extra[key] = np.array([v is True for v in values]) if key in TRAITS else values
        if d.marks:
            extra["marks"] = d.marks
        record.extra = extra or None


# ---------------------------------------------------------------------------------------------------------------- write


def numbers(values: Any) -> list[Any]:
    """Coordinates for JSON, nested as they are: few digits that read back as the same float32, whole ones without a point."""
    array = np.asarray(values)
    array = fs.shorten(array) if array.dtype == np.float32 else array.astype(np.float64)
    flat = [int(v) if v == int(v) else v for v in array.reshape(-1).tolist()]
    return flat if array.ndim == 1 else [flat[k : k + 2] for k in range(0, len(flat), 2)]


def written_names(names: Sequence[str], fallback: str) -> list[str]:
    """Names fit for a line of a list: blanks single, none empty, none twice."""
    return fs.unique_names({k: word(n) or f"{fallback} {k}" for k, n in enumerate(names)})


def point_names_of(dataset: Dataset) -> list[str]:
    """Names of the key points, numbers where the data set has none."""
    count = max((r.keypoints.shape[1] for _, r in fs.unique_records(dataset) if r.keypoints is not None), default=0)
    names = dataset.index.keypoint_names
    return written_names(names if len(names) == count else [str(k) for k in range(count)], "point")


class Losses:
    """Counts what a writer of shapes changes, and says it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.farthest = 0.0

    def frame(self, box: np.ndarray, segment: Any, size: tuple[int, int]) -> bool:
        """Whether a box must be written beside its outline: it is off the outline's extent by more than a pixel. Less is a loss."""
        settled, _ = settle_box(outline_extent(segment), size)
        off = np.inf if settled is None else float(np.abs(settled.astype(np.float64) - box).max())
        if 0 < off <= 1:
            self.counts["boxes"] += 1
            self.farthest = max(self.farthest, off)
        return off > 1

    def say(self) -> list[str]:
        """What was lost, in words."""
        words = {
            "boxes": f"boxes move onto their outlines, by at most {max(self.farthest, 0.001):.3f} pixels",
            "codes": "run-length coded outlines become polygons without holes",
            "empty": "run-length codes without a usable pixel become boxes",
        }
        return [f"{self.counts[key]} {text}" for key, text in words.items() if self.counts[key]]


def labels_beside_boxes(records: Iterable[Record], title: str) -> list[str]:
    """The labels of whole images that a format has no place for because there are boxes too, in words."""
    records = list(records)
    count = sum(r.label is not None for r in records) if any(r.boxes is not None for r in records) else 0
    return [f"{count} labels of whole images are lost: {title} has a place for them only where nothing is drawn"] if count else []


def traits_of(record: Record, k: int) -> list[str]:
    """Which of :data:`TRAITS` object k has."""
    return [key for key in TRAITS if key in (record.extra or {}) and bool(record.extra[key][k])]  # type: ignore[index]


def traits_of_mark(mark: dict[str, Any]) -> list[str]:
    """Which of :data:`TRAITS` a mark has."""
    return [key for key in TRAITS if mark.get(key) is True]


def visible_points(record: Record, k: int, names: Sequence[str]) -> list[tuple[str, list[Any], bool]]:
    """(name, [x, y], whether it is occluded) of object k's labelled key points."""
    if record.keypoints is None:
        return []
    return [(name, numbers(p[:2]), bool(p[2] == 1)) for name, p in zip(names, record.keypoints[k], strict=True) if p[2] > 0]
