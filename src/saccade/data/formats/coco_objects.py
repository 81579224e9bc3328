"""The annotations of COCO files as columns: all objects of a file at once, and only what looks wrong one by one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Container, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np

from saccade.data.formats.files import shown
from saccade.data.formats.rle import rle_problem
from saccade.data.segments import Segments, joined

LIMIT = 1e7
"""Largest coordinate in pixels; one beyond is a mistake, and float32 would round it."""

Size = tuple[int, int] | None
Report = Callable[..., None]
"""``report(where, message, *values)``: the values fill the ``{}`` of the message, which counts as one kind of problem."""


class Objects(NamedTuple):
    """Objects of one image from one file, or of a whole file: one entry an object in every column."""

    ids: list[Any]
    categories: np.ndarray  # (N,) int64, the file's ids
    boxes: np.ndarray  # (N, 4) float64 XYXY
    crowd: np.ndarray  # (N,) bool
    area: np.ndarray  # (N,) float64
    segments: Segments | list[Any] | None
    points: np.ndarray | None  # (N, K, 3) float32

    def take(self, order: np.ndarray) -> Objects:
        """The objects at these places, in this order."""
        listed = order.tolist()
        segments = (
            self.segments.take(order) if isinstance(self.segments, Segments) else self.segments and [self.segments[i] for i in listed]
        )
        return Objects(
            [self.ids[i] for i in listed], self.categories[order], self.boxes[order], self.crowd[order], self.area[order], segments,
            None if self.points is None else self.points[order],
        )  # fmt: skip

    def followed_by(self, other: Objects) -> Objects:
        """These objects, then the others; neither has key points, and their segments are tables or None."""
        mine, theirs = (o.segments if isinstance(o.segments, Segments) else None for o in (self, other))
        segments = None
        if mine is not None or theirs is not None:
            segments = joined([mine or Segments.none(len(self.ids)), theirs or Segments.none(len(other.ids))])
        columns = (np.concatenate([a, b]) for a, b in zip(self[1:5], other[1:5], strict=True))
        return Objects([*self.ids, *other.ids], *columns, segments, None)


class Known(NamedTuple):
    """What annotations may refer to."""

    images: dict[Any, Size]  # by the file's id, in order
    dropped: Container[Any]  # ids of images that were reported already
    categories: set[int]
    num_points: int


def pack_numbers(item: dict[str, Any]) -> dict[str, Any]:
    """Polygons of an annotation as arrays of floats: a tenth of the memory of lists. ``json.loads`` calls it on every object."""
    polygons = item.get("segmentation")
    if type(polygons) is list:
        try:
            item["segmentation"] = [array("f", p) for p in polygons]
        except (TypeError, ValueError, OverflowError):
            return item  # to be looked at
    return item


class Columns(NamedTuple):
    """What annotations state, before it is known which images and categories there are."""

    ids: list[Any]
    images: list[Any]
    categories: np.ndarray  # (N,) int64
    sides: np.ndarray  # (N, 4) float64 x, y, width, height
    crowd: np.ndarray  # (N,) bool
    area: np.ndarray  # (N,) float64, NaN where none is stated
    segments: Segments | None
    wrong: np.ndarray  # (N,) bool: objects to be looked at; their segments are left out


def columns_of(items: list[dict[str, Any]]) -> Columns:
    """The columns of annotations of the usual types.

    Raises:
        KeyError, TypeError, ValueError, OverflowError, AttributeError: some annotation is not.
    """
    n = len(items)
    categories = [a["category_id"] for a in items]
    if set(map(type, categories)) - {int}:
        raise TypeError("category ids must be whole numbers")
    boxes = [a["bbox"] for a in items]
    if set(map(type, chain.from_iterable(boxes))) - {int, float} or set(map(len, boxes)) - {4}:
        raise TypeError("boxes must be four numbers")
    sides = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * n).reshape(n, 4)
    crowds = [a.get("iscrowd", 0) for a in items]
    if not set(crowds) <= {0, 1}:
        raise ValueError("iscrowd must be 0 or 1")
    areas = [a.get("area") for a in items]
    if set(map(type, areas)) - {int, float, type(None)}:
        raise TypeError("areas must be numbers")
    area = np.array(areas, dtype=np.float64)  # None becomes NaN
    stated = ~np.isnan(area) | np.fromiter((v is not None for v in areas), bool, n)
    with np.errstate(invalid="ignore"):
        wrong = stated & ~((area >= 0) & (area < LIMIT**2))
    segments, broken = _segments(items)
    return Columns(
        [a.get("id") for a in items], [a["image_id"] for a in items], np.array(categories, dtype=np.int64), sides,
        np.array(crowds, dtype=bool), area, segments, wrong | broken,
    )  # fmt: skip


def judged(columns: Columns, where: np.ndarray, known: Known) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """XYXY boxes, areas, and which objects do not fit their image (``where`` its number, -1 unknown) or the categories."""
    sizes = np.array([size or (np.inf, np.inf) for size in known.images.values()], dtype=np.float64).reshape(-1, 2)
    bad = columns.wrong | (where < 0) | ~np.isin(columns.categories, np.fromiter(known.categories, np.int64, len(known.categories)))
    boxes = columns.sides.copy()
    with np.errstate(invalid="ignore", over="ignore"):
        boxes[:, 2:] += boxes[:, :2]
        small = boxes.astype(np.float32)
        good = (np.abs(boxes) < LIMIT).all(1) & (small[:, 2] > small[:, 0]) & (small[:, 3] > small[:, 1])
        height, width = sizes[where].T if len(sizes) else np.full((2, len(boxes)), np.inf)
        good &= (boxes[:, :2] >= -1).all(1) & (boxes[:, 2] <= width + 1) & (boxes[:, 3] <= height + 1)
        good &= (boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2:] > 0).all(1)
        area = np.where(np.isnan(columns.area), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), columns.area)
    return boxes, area, bad | ~good


def by_image(where: np.ndarray, objects: Objects, images: list[Any]) -> dict[Any, Objects]:
    """The objects of every image that has some, by the image's id."""
    order = np.argsort(where, kind="stable")
    if (order[1:] < order[:-1]).any():
        where, objects = where[order], objects.take(order)
    ids, categories, boxes, crowd, area, segments, points = objects
    counts = np.bincount(where, minlength=len(images))
    chosen = np.flatnonzero(counts).tolist()
    bounds = np.concatenate([[0], np.cumsum(counts[chosen])])
    outlines = segments.split(bounds) if isinstance(segments, Segments) else None
    out = {}
    for k, (a, b) in zip(chosen, pairwise(bounds.tolist()), strict=True):
        mine = next(outlines) if outlines is not None else None if segments is None else segments[a:b]
        out[images[k]] = Objects(
            ids[a:b], categories[a:b], boxes[a:b], crowd[a:b], area[a:b], mine, None if points is None else points[a:b]
        )
    return out


def objects_by_image(items: list[Any], known: Known, report: Report) -> dict[Any, Objects]:
    """Objects of every image that has some, by the image's id."""
    return by_image(*_all_objects(items, known, report), list(known.images))


def _all_objects(items: list[Any], known: Known, report: Report) -> tuple[np.ndarray, Objects]:
    """Number of the image by object, and the columns of all usable objects."""
    number = {image_id: k for k, image_id in enumerate(known.images)}
    twice = repeated([a.get("id") if isinstance(a, dict) else None for a in items])
    try:
        where, objects, suspects = objects_of(items, number, known)
        suspects = sorted({*suspects.tolist(), *twice})
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        suspects = list(range(len(items)))
    if suspects:
        items = list(items)
        texts = {str(image_id): image_id for image_id in known.images}
        for k in suspects:
            items[k] = checked(items[k], k, k in twice, texts, known, report)
        where, objects, _ = objects_of([a for a in items if a is not None], number, known)
    return where, objects


def objects_of(items: list[dict[str, Any]], number: dict[Any, int], known: Known) -> tuple[np.ndarray, Objects, np.ndarray]:
    """Image number by object (-1 unknown), the columns, and the numbers of objects to be looked at."""
    columns = columns_of(items)
    where = np.fromiter((number.get(image_id, -1) for image_id in columns.images), np.int64, len(items))
    boxes, area, bad = judged(columns, where, known)
    points = _points(items, bad, known.num_points)
    objects = Objects(columns.ids, columns.categories, boxes, columns.crowd, area, columns.segments, points)
    return where, objects, np.flatnonzero(bad)


def _points(items: list[dict[str, Any]], bad: np.ndarray, count: int) -> np.ndarray | None:
    rows = [a.get("keypoints") for a in items]
    have = [k for k, row in enumerate(rows) if row is not None]
    if not have or not count:
        if have:
            raise ValueError("key points of no known number")
        return None
    points = np.zeros((len(items), count, 3), dtype=np.float32)
    flat = np.array([rows[k] for k in have], dtype=np.float64).reshape(len(have), count, 3)  # raises when they differ
    with np.errstate(invalid="ignore", over="ignore"):
        fine = (np.abs(flat) < LIMIT).all((1, 2)) & np.isin(flat[..., 2], (0, 1, 2)).all(1)
        points[have] = flat
    bad[have] |= ~fine
    return points


def _segments(items: list[dict[str, Any]]) -> tuple[Segments | None, np.ndarray]:
    """Segments by object (None when no object has one), and which objects' must be looked at: theirs are left out."""
    raw = [a.get("segmentation") for a in items]
    kinds = [type(s) for s in raw]
    if set(kinds) - {list, dict, type(None)}:
        raise TypeError("a segmentation is neither polygons nor a run-length code")
    codes = {k: raw[k] for k, kind in enumerate(kinds) if kind is dict}
    polygons = [p for s, kind in zip(raw, kinds, strict=True) if kind is list for p in s]
    if set(map(type, polygons)) - {array}:
        raise TypeError("polygons must be lists of numbers")
    wrong = np.zeros(len(items), dtype=bool)
    wrong[[k for k, code in codes.items() if rle_problem(code)]] = True
    if not polygons and not codes:
        return None, wrong
    counts = np.fromiter((len(s) if kind is list else 0 for s, kind in zip(raw, kinds, strict=True)), np.int32, len(items))
    lengths = np.fromiter(map(len, polygons), np.int32, len(polygons))
    flat = np.frombuffer(bytearray().join(polygons), np.float32)
    with np.errstate(invalid="ignore"):
        far = np.flatnonzero(~(np.abs(flat) < LIMIT))
    bad = (lengths % 2 == 1) | (lengths < 6)
    bad[np.searchsorted(np.cumsum(lengths), far, side="right")] = True
    if bad.any():
        owner = np.repeat(np.arange(len(items)), counts)
        wrong[owner[bad]] = True
        keep = ~wrong[owner]
        flat, lengths, counts = flat[np.repeat(keep, lengths)], lengths[keep], np.where(wrong, 0, counts).astype(np.int32)
    return Segments(flat.reshape(-1, 2), lengths // 2, counts, {k: c for k, c in codes.items() if not wrong[k]}), wrong


# ------------------------------------------------------------------------------------------------------------ one by one


def checked(item: Any, k: int, twice: bool, texts: dict[str, Any], known: Known, report: Report) -> dict[str, Any] | None:
    """One object, repaired, or None when it must be skipped; what was done is reported."""
    if not isinstance(item, dict):
        report(f"annotations[{k}]", "is not an object; it is skipped")
        return None
    where = f"annotation {item['id']}" if type(item.get("id")) in (int, str) else f"annotations[{k}]"

    def skip(why: str, *values: Any) -> None:
        report(where, f"{why}; the object is skipped", *values)

    image_id, category = item.get("image_id"), whole_number(item.get("category_id"))
    image_id = image_id if found(known.images, image_id) else texts.get(str(image_id)) if type(image_id) in (int, str) else None
    if image_id is None:
        return None if found(known.dropped, item.get("image_id")) else skip("names the unknown image {}", item.get("image_id"))
    if twice:
        return skip("has an id that stands twice")
    if category not in known.categories:
        return skip("names the unknown category {}", item.get("category_id"))
    fixed: dict[str, Any] = {"id": item.get("id"), "image_id": image_id, "category_id": category}
    if type(fixed["id"]) not in (int, str):
        fixed["id"] = None
    if "segmentation" in item:
        fixed["segmentation"], lost = _checked_segment(item["segmentation"])
        if lost:
            report(where, "{}; it is left out", Words(lost))
    if points := item.get("keypoints"):
        fixed["keypoints"], guessed = _checked_points(points, known.num_points)
        if fixed["keypoints"] is None:
            report(where, f"its key points are not {known.num_points} times x, y, visibility; they are left out")
        elif guessed:
            report(where, "{} of its key points have a confidence, not a visibility; they count as not labelled", guessed)
    edges = _checked_box(item.get("bbox"), fixed, known.images[image_id], lambda message, *v: report(where, message, *v), skip)
    if edges is None:
        return None
    x1, y1, x2, y2 = edges
    fixed["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    crowd = item.get("iscrowd", 0)
    fixed["iscrowd"] = 1 if crowd in (1, True) else 0
    if crowd not in (0, 1):
        report(where, "iscrowd is {}; 0 is taken", crowd)
    if is_number(item.get("area")) and item["area"] >= 0:
        fixed["area"] = item["area"]
    elif item.get("area") is not None:
        report(where, "the area {} is replaced by the box's", item["area"])
    return fixed


def _checked_box(box: Any, item: dict[str, Any], size: Size, report: Report, skip: Callable[..., None]) -> Sequence[float] | None:
    """x1, y1, x2, y2; of the polygon or the key points when none is given; clipped when it leaves the image; None: unusable."""
    if box is None and isinstance(item.get("segmentation"), list):
        edges = _extent(np.concatenate([np.reshape(p, (-1, 2)) for p in item["segmentation"]]))
        report("has no bbox; the polygon's is taken")
    elif box is None and (seen := np.reshape(item.get("keypoints") or (), (-1, 3)))[:, 2].any():
        edges = _extent(seen[seen[:, 2] > 0, :2])
        report("has no bbox; that around its key points is taken")
    elif not isinstance(box, list) or len(box) != 4 or not all(is_number(v) for v in box):
        return skip("has no box of four numbers but {}", box)
    else:
        edges = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    height, width = size or (np.inf, np.inf)
    x1, y1, x2, y2 = edges
    a, b, c, d = clipped = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    stated = edges if box is None else box
    x1f, y1f, x2f, y2f = np.float32(edges)
    if x2f <= x1f or y2f <= y1f:
        return skip("has a box without area {}", stated)
    if np.float32(c) <= np.float32(a) or np.float32(d) <= np.float32(b):
        return skip("has a box outside the image {}", stated)
    if x1 < -1 or y1 < -1 or x2 > width + 1 or y2 > height + 1:
        report("the box {} leaves the image of {} x {}; it is clipped", stated, width, height)
        return clipped
    return edges


def _extent(xy: np.ndarray) -> tuple[float, ...]:
    return (*xy.min(0).tolist(), *xy.max(0).tolist())


def _checked_points(points: Any, count: int) -> tuple[list[Any] | None, int]:
    """The key points (None: unusable), those with a fraction as visibility cleared, and their number: a machine's guess is no label."""
    sound = isinstance(points, list) and len(points) == 3 * count and all(is_number(v) and abs(v) < LIMIT for v in points)
    if not sound or any(not 0 <= v <= 2 for v in points[2::3]):
        return None, 0
    guessed = [k for k, v in enumerate(points[2::3]) if v not in (0, 1, 2)]
    points = list(points)
    for k in guessed:
        points[3 * k : 3 * k + 3] = 0, 0, 0
    return points, len(guessed)


def _checked_segment(segment: Any) -> tuple[Any, str]:
    """The segment or what is usable of it (None: nothing), and what is wrong with it ("": nothing)."""
    if segment is None or segment == []:
        return None, ""
    if isinstance(segment, dict):
        problem = rle_problem(segment)
        return (None, problem) if problem else (segment, "")
    if not isinstance(segment, list):
        return None, f"the segmentation is {type(segment).__name__}, not polygons or a run-length code"
    if all(is_number(v) for v in segment):  # one polygon without its list
        segment = [segment]

    def usable(p: Any) -> bool:
        sound = isinstance(p, (list, array)) and len(p) >= 6 and len(p) % 2 == 0
        return sound and all(is_number(v) and abs(v) < LIMIT for v in p)

    good = [array("f", p) for p in segment if usable(p)]
    lost = len(segment) - len(good)
    return good or None, f"{lost} of {len(segment)} polygons are not three or more points of finite numbers" if lost else ""


class Words(str):
    """A phrase that stands in a message as it is, where other values are shown as their repr."""

    __slots__ = ()


def fill(message: str, values: Sequence[Any]) -> str:
    """The message with its ``{}`` replaced by the values, each cut."""
    return message.format(*(v if isinstance(v, Words) else shown(v) for v in values)) if values else message


def found(table: Container[Any], key: Any) -> bool:
    """Whether a key of a file is in a dict or set; a list, which cannot be hashed, is not."""
    try:
        return key is not None and key in table
    except TypeError:
        return False


def is_number(value: Any) -> bool:
    """Whether it is a finite number of a usable size, not a truth value."""
    return type(value) in (int, float) and abs(value) < LIMIT**2  # false for NaN


def whole_number(value: Any) -> int | None:
    """An id: a whole number, or its digits as text; else None."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    return value if type(value) is int and abs(value) < 2**62 else None


def repeated(ids: list[Any]) -> set[int]:
    """Positions of ids that stand earlier already."""
    try:
        if len(set(ids)) == len(ids):
            return set()
    except TypeError:
        ids = [i if isinstance(i, (int, str)) else None for i in ids]
    seen: set[Any] = set()
    out = set()
    for k, i in enumerate(ids):
        if i is not None and i in seen:
            out.add(k)
        seen.add(i)
    return out


def merged(parts: list[Objects]) -> Objects:
    """Objects of several files. One that an earlier file has (category and box are equal) adds only what is missing there.

    Ids decide only between equal boxes: files of other tools number their annotations independently.
    """
    rows: list[list[Any]] = []
    earlier: dict[tuple[int, bytes], list[int]] = {}
    for part in parts:
        fresh: dict[tuple[int, bytes], list[int]] = {}
        segments = part.segments.tolist() if isinstance(part.segments, Segments) else part.segments
        for k, number in enumerate(part.ids):
            key = (int(part.categories[k]), part.boxes[k].tobytes())
            segment = None if segments is None else segments[k]
            points = None if part.points is None else part.points[k]
            twins = earlier.get(key)
            if twins:
                row = twins.pop(next((i for i, t in enumerate(twins) if rows[t][0] == number), 0))
                fresh.setdefault(key, []).append(row)
                rows[row][5] = segment if rows[row][5] is None else rows[row][5]
                rows[row][6] = points if rows[row][6] is None else rows[row][6]
            else:
                fresh.setdefault(key, []).append(len(rows))
                rows.append([number, part.categories[k], part.boxes[k], part.crowd[k], part.area[k], segment, points])
        for key, same in fresh.items():
            earlier.setdefault(key, []).extend(same)
    ids, categories, boxes, crowd, area, segments, points = ([r[c] for r in rows] for c in range(7))
    shape = next((p.shape for p in points if p is not None), None)
    return Objects(
        ids, np.array(categories, np.int64), np.array(boxes).reshape(-1, 4), np.array(crowd, bool), np.array(area, np.float64),
        segments if any(s is not None for s in segments) else None,
        None if shape is None else np.stack([np.zeros(shape, np.float32) if p is None else p for p in points]),
    )  # fmt: skip
