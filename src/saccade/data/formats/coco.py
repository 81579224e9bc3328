"""COCO JSON: boxes, polygons, run-length codes, key points and captions, read and written.

Read: a JSON file, or a folder with ``annotations/*.json`` (``instances_SPLIT``, ``person_keypoints_SPLIT``,
``captions_SPLIT``; others by their content) and image folders (``train2017``, ``images/train``, ...), or JSON beside
images, or ``SPLIT/_annotations.coco.json``. The files of a split are merged: an object that two of them state (same
category and box) is one.

Conventions:

* Category ids keep their gaps in ``index.category_ids``; labels are 0..K-1 by ascending id.
* ``bbox`` x, y, width, height becomes x, y, x + width, y + height: numbers are edges, nothing is added.
* A box that hangs over the image by up to one pixel (rounding of the annotation tool) stays as it is; by more, it is
  clipped and reported; one without area inside is skipped and reported.
* ``record.extra["area"]`` keeps the annotated areas, by which COCO's metrics divide small, medium and large.
* Segments stay as they are in the file: polygons as (P, 2) float32, run-length codes as ``{"size", "counts"}``.
* Whatever is wrong with one image or annotation is skipped or repaired and listed in ``index.problems``;
  only a file that is no COCO JSON at all raises.
"""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.polygons import polygon_area
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "coco"
TITLE = "COCO JSON"
TASKS = ("detect", "pose", "caption")

_KEY = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_FILE = re.compile(r"(instances|person_keypoints|keypoints|captions)(?:_(.*))?$", re.IGNORECASE)
_OTHER = re.compile(r"(panoptic|stuff|image_info)(_|$)", re.IGNORECASE)
_LIMIT = 1e7  # pixels; a coordinate beyond is a mistake, and float32 would round it


class _File(NamedTuple):
    path: Path
    raw_split: str
    split: str


# ----------------------------------------------------------------------------------------------------------------- find


def sniff(root: Path) -> str | None:
    """Why this looks like COCO, or None."""
    root = Path(root)
    if root.is_file():
        return "a JSON file with images and annotations" if root.suffix.lower() == ".json" and _looks_like_coco(root) else None
    found = _discover(root)
    return f"{len(found)} COCO JSON file{'s' * (len(found) != 1)}: {', '.join(f.path.name for f in found[:3])}" if found else None


def _looks_like_coco(path: Path) -> bool:
    """Two of COCO's lists (or annotations alone) in the first or last part of the file."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 18)
            file.seek(max(file.tell(), path.stat().st_size - (1 << 18)))
            keys = set(_KEY.findall(head + b"\n" + file.read()))
    except OSError:
        return False
    return b"images" in keys or {b"annotations", b"categories"} <= keys


def _discover(root: Path) -> list[_File]:
    if not root.is_dir():
        return []
    for pattern in ("annotations/*.json", "Annotations/*.json", "*.json", "*/_annotations.coco.json"):
        paths = [p for p in sorted(root.glob(pattern)) if p.is_file() and not _OTHER.match(p.stem) and _looks_like_coco(p)]
        if paths:
            return sorted((_named(p, len(paths)) for p in paths), key=lambda f: (fs.split_rank(f.split), _kind_rank(f.path), f.path.name))
    return []


def _kind_rank(path: Path) -> int:
    match = _FILE.match(path.stem)
    return 0 if match is None else ("instances", "person_keypoints", "keypoints", "captions").index(match[1].lower())


def _named(path: Path, count: int) -> _File:
    """Split by name: instances_train2017, train, train/_annotations.coco.json; a single file of another name has none."""
    if path.name == "_annotations.coco.json":
        raw = path.parent.name
    elif match := _FILE.match(path.stem):
        raw = match[2] or ""
    else:
        raw = path.stem if count > 1 or fs.is_split(path.stem) else ""
    return _File(path, raw, fs.split_name(raw))


# ----------------------------------------------------------------------------------------------------------------- read


def read(root: Path, *, images: str = "", check_files: bool = True) -> DataIndex:
    """The data set of a COCO JSON file or folder.

    Args:
        root: the JSON file or the folder.
        images: folder of the images, relative to the data root, when it is not found by itself.
        check_files: drop (and report) images whose file is missing; False to read annotations alone.

    Raises:
        DataError: no COCO JSON, broken JSON, or not one usable image.
    """
    root = Path(root)
    if root.is_file():
        found = [_named(root, 1)]
        base = root.parent.parent if root.parent.name.lower() == "annotations" else root.parent
        reason = f"{root.name} holds images and annotations"
    else:
        found, base = _discover(root), root
        reason = sniff(root) or ""
        if not found:
            raise DataError(root, "holds no COCO JSON", hint="expected annotations/*.json with images, annotations and categories")
    reader = _Reader(base, images, check_files)
    with _paused_gc():
        for file in found:
            reader.add(file)
        return reader.finish(root, reason)


@contextmanager
def _paused_gc() -> Iterator[None]:
    """No garbage collection meanwhile: it would walk the millions of objects that JSON makes, again and again (a third of the time)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Image:
    __slots__ = ("captions", "image_id", "parts", "path", "size", "splits")

    def __init__(self, path: str, image_id: Any, size: tuple[int, int] | None) -> None:
        self.path, self.image_id, self.size = path, image_id, size
        self.splits: dict[str, None] = {}
        self.parts: list[_Part] | None = None
        self.captions: list[str] | None = None


class _Part(NamedTuple):
    """Objects of one image from one file, or of a whole file: one entry an object in every column."""

    ids: list[Any]
    categories: np.ndarray  # (N,) int64, the file's ids
    boxes: np.ndarray  # (N, 4) float64 XYXY
    crowd: np.ndarray  # (N,) bool
    area: np.ndarray  # (N,) float64
    segments: list[Any] | None
    points: np.ndarray | None  # (N, K, 3) float32


class _Reader:
    """Collects the files of a data set; every method reports into ``problems`` what it skips."""

    def __init__(self, base: Path, images: str, check_files: bool) -> None:
        self.base, self.images_folder, self.check_files = base, images, check_files
        self.images: dict[str, _Image] = {}  # by path
        self.names: dict[int, str] = {}  # category id -> name
        self.points: list[str] = []
        self.num_points = 0
        self.has_segments = self.has_captions = self.has_objects = False
        self.problems: list[DataError] = []

    def add(self, file: _File) -> None:
        data = fs.read_json(file.path)
        if not isinstance(data, dict) or not isinstance(data.get("images"), list):
            raise DataError(file.path, "is not COCO: it has no list of images", hint='expected {"images": [...], "annotations": [...]}')
        annotations = data.get("annotations", [])
        if not isinstance(annotations, list):
            raise DataError(file.path, "is not COCO: annotations is not a list")
        known = self._categories(file, data.get("categories"))
        place, dropped = self._images(file, data["images"])
        captions = [a for a in annotations if isinstance(a, dict) and "caption" in a]
        if captions or file.path.stem.lower().startswith("captions"):
            self._captions(file, captions, place, dropped)
        objects = annotations if not captions else [a for a in annotations if not (isinstance(a, dict) and "caption" in a)]
        if objects and not known:
            raise DataError(file.path, "has objects but no categories", hint='expected {"categories": [{"id": 1, "name": "cell"}, ...]}')
        if known:
            self.has_objects = True
            for image in place.values():
                image.parts = image.parts or []
            if objects:
                self._objects(file, objects, place, dropped, known)

    def report(self, file: _File, where: str, problem: str) -> None:
        self.problems.append(DataError(file.path, problem, where=where))

    # categories and images

    def _categories(self, file: _File, items: Any) -> set[int]:
        if items is None:
            return set()
        if not isinstance(items, list):
            raise DataError(file.path, "is not COCO: categories is not a list")
        known: set[int] = set()
        for k, item in enumerate(items):
            where = f"categories[{k}]"
            number = item.get("id") if isinstance(item, dict) else None
            if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 2**62:
                self.report(file, where, "a category without a whole number as id is skipped")
                continue
            if number in known:
                self.report(file, where, f"category id {number} stands twice; the first is kept")
                continue
            name = item.get("name")
            if not isinstance(name, str) or not name.strip():
                self.report(file, where, f"category {number} has no name; it is called {str(number)!r}")
                name = str(number)
            if self.names.setdefault(number, name) != name:
                raise DataError(
                    file.path, f"category {number} is {fs.shown(name)}, but {fs.shown(self.names[number])} in another file", where=where
                )
            known.add(number)
            points = item.get("keypoints")
            if isinstance(points, list) and points and all(isinstance(p, str) for p in points):
                if self.points and self.points != points:
                    self.report(
                        file, where, f"category {fs.shown(name)} has other key points than the first that has some; they are skipped"
                    )
                else:
                    self.points, self.num_points = list(points), len(points)
        return known

    def _images(self, file: _File, items: list[Any]) -> tuple[dict[Any, _Image], set[Any]]:
        beside = file.path.parent.relative_to(self.base).as_posix() if file.path.parent.is_relative_to(self.base) else ""
        folders = [file.raw_split, f"images/{file.raw_split}", file.split, f"images/{file.split}", f"{file.raw_split}/images"]
        folders = [*(f.strip("/") for f in folders if file.raw_split), "images", "", beside, f"{beside}/images", "JPEGImages", "data"]
        if self.images_folder:
            folders = [self.images_folder]
        finder = fs.ImageFinder(self.base, folders)
        place: dict[Any, _Image] = {}
        dropped: set[Any] = set()
        here: set[str] = set()
        for k, item in enumerate(items):
            where = f"images[{k}]"
            number = item.get("id") if isinstance(item, dict) else None
            if type(number) is not int and not isinstance(number, str):
                self.report(file, where, "an image without an id is skipped")
                continue
            if number in place or number in dropped:
                self.report(file, where, f"image id {number} stands twice; the first is kept")
                continue
            try:
                path = finder.find(item.get("file_name"), source=file.path, where=where)
            except DataError as error:
                self.problems.append(error)
                dropped.add(number)
                continue
            if path is None and not self.check_files:
                path = item["file_name"].replace("\\", "/")
            if path is None:
                self.report(file, where, f"image {fs.shown(item['file_name'])} is missing; it is dropped")
                dropped.add(number)
                continue
            if path in here:
                self.report(file, where, f"image {fs.shown(path)} is listed twice; its objects are joined")
            here.add(path)
            image = self.images.get(path)
            if image is None:
                image = self.images[path] = _Image(path, number, self._size(file, where, item))
            if file.split:
                image.splits[file.split] = None
            place[number] = image
        return place, dropped

    def _size(self, file: _File, where: str, item: dict[str, Any]) -> tuple[int, int] | None:
        height, width = item.get("height"), item.get("width")
        if type(height) is int and type(width) is int and 0 < height < _LIMIT and 0 < width < _LIMIT:
            return height, width
        if height is not None or width is not None:
            self.report(file, where, f"width {fs.shown(width)} and height {fs.shown(height)} are no size; they are ignored")
        return None

    # annotations

    def _captions(self, file: _File, items: list[dict[str, Any]], place: dict[Any, _Image], dropped: set[Any]) -> None:
        self.has_captions = True
        for image in place.values():
            image.captions = image.captions or []
        for k, item in enumerate(items):
            where = f"annotation {item.get('id', k)}"
            image = _lookup(place, item.get("image_id"))
            if image is None:
                if _lookup(dropped, item.get("image_id")) is None:
                    self.report(file, where, f"a caption of the unknown image {fs.shown(item.get('image_id'))} is skipped")
            elif not isinstance(item["caption"], str):
                self.report(file, where, "a caption that is no text is skipped")
            else:
                image.captions.append(item["caption"])

    def _objects(self, file: _File, items: list[Any], place: dict[Any, _Image], dropped: set[Any], known: set[int]) -> None:
        """Columns over all objects at once; only what looks wrong is looked at one by one."""
        number = {image_id: k for k, image_id in enumerate(place)}
        images = list(place.values())
        sizes = np.array([i.size or (np.inf, np.inf) for i in images], dtype=np.float64).reshape(-1, 2)
        if not self.num_points:  # key points without names: as many as the first object has
            rows = (a.get("keypoints") for a in items if isinstance(a, dict))
            self.num_points = next((len(r) // 3 for r in rows if isinstance(r, list) and r and len(r) % 3 == 0), 0)
        twice = _repeated(items)
        try:
            where, columns, suspects = self._columns(items, number, sizes, known)
            suspects = sorted({*suspects.tolist(), *twice})
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            suspects = list(range(len(items)))
        if suspects:
            items = list(items)
            for k in suspects:
                items[k] = self._checked(file, items[k], k, k in twice, place, dropped, known)
            items = [a for a in items if a is not None]
            where, columns, _ = self._columns(items, number, sizes, known)
        self.has_segments = self.has_segments or columns.segments is not None

        order = np.argsort(where, kind="stable")
        boxes, categories, crowd, area = (c[order] for c in (columns.boxes, columns.categories, columns.crowd, columns.area))
        points = None if columns.points is None else columns.points[order]
        listed = order.tolist()
        starts = np.searchsorted(where[order], np.arange(len(images) + 1)).tolist()
        for k, image in enumerate(images):
            a, b = starts[k], starts[k + 1]
            if a == b:
                continue
            mine = listed[a:b]
            segments = None if columns.segments is None else [columns.segments[i] for i in mine]
            part = _Part(
                [columns.ids[i] for i in mine], categories[a:b], boxes[a:b], crowd[a:b], area[a:b], segments,
                None if points is None else points[a:b],
            )  # fmt: skip
            image.parts.append(part)

    def _columns(
        self, items: list[dict[str, Any]], number: dict[Any, int], sizes: np.ndarray, known: set[int]
    ) -> tuple[np.ndarray, _Part, np.ndarray]:
        """Image number by object (-1 unknown), the columns, and the numbers of objects to be looked at."""
        n = len(items)
        ids = [a.get("id") for a in items]
        where = np.fromiter((number.get(a["image_id"], -1) for a in items), np.int64, n)
        categories = [a["category_id"] for a in items]
        if set(map(type, categories)) - {int}:
            raise TypeError("category ids must be whole numbers")
        category = np.array(categories, dtype=np.int64)
        bad = (where < 0) | ~np.isin(category, np.fromiter(known, np.int64, len(known)))
        if set(map(type, chain.from_iterable(a["bbox"] for a in items))) - {int, float}:
            raise TypeError("boxes must be numbers")
        boxes = np.array([a["bbox"] for a in items], dtype=np.float64).reshape(n, 4)
        with np.errstate(invalid="ignore", over="ignore"):
            boxes[:, 2:] += boxes[:, :2]
            small = boxes.astype(np.float32)
            good = (np.abs(boxes) < _LIMIT).all(1) & (small[:, 2] > small[:, 0]) & (small[:, 3] > small[:, 1])
            limit = sizes[where] if len(sizes) else np.full((n, 2), np.inf)
            good &= (boxes[:, :2] >= -1).all(1) & (boxes[:, 2] <= limit[:, 1] + 1) & (boxes[:, 3] <= limit[:, 0] + 1)
            good &= (boxes[:, 0] < limit[:, 1]) & (boxes[:, 1] < limit[:, 0]) & (boxes[:, 2:] > 0).all(1)
        crowds = [a.get("iscrowd", 0) for a in items]
        if not set(crowds) <= {0, 1}:
            raise ValueError("iscrowd must be 0 or 1")
        areas = [a.get("area") for a in items]
        if set(map(type, areas)) - {int, float, type(None)}:
            raise TypeError("areas must be numbers")
        area = np.array([np.nan if v is None else v for v in areas], dtype=np.float64)
        given = np.fromiter((v is not None for v in areas), bool, n)
        with np.errstate(invalid="ignore"):
            bad |= ~good | (given & ~((area >= 0) & (area < _LIMIT**2)))
            area = np.where(given, area, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        segments, wrong = _segments(items)
        bad |= wrong
        points = self._points(items, bad)
        return where, _Part(ids, category, boxes, np.array(crowds, dtype=bool), area, segments, points), np.flatnonzero(bad)

    def _points(self, items: list[dict[str, Any]], bad: np.ndarray) -> np.ndarray | None:
        rows = [a.get("keypoints") for a in items]
        have = [k for k, row in enumerate(rows) if row is not None]
        if not have or not self.num_points:
            if have:
                raise ValueError("key points of no known number")
            return None
        points = np.zeros((len(items), self.num_points, 3), dtype=np.float32)
        flat = np.array([rows[k] for k in have], dtype=np.float64).reshape(len(have), self.num_points, 3)  # raises when they differ
        with np.errstate(invalid="ignore", over="ignore"):
            fine = (np.abs(flat) < _LIMIT).all((1, 2)) & np.isin(flat[..., 2], (0, 1, 2)).all(1)
            points[have] = flat
        bad[have] |= ~fine
        return points

    def _checked(
        self, file: _File, item: Any, k: int, twice: bool, place: dict[Any, _Image], dropped: set[Any], known: set[int]
    ) -> dict[str, Any] | None:
        """One object, repaired, or None when it must be skipped; what was done is reported."""
        if not isinstance(item, dict):
            self.report(file, f"annotations[{k}]", "is not an object; it is skipped")
            return None
        where = f"annotation {item['id']}" if type(item.get("id")) in (int, str) else f"annotations[{k}]"

        def skip(why: str) -> None:
            self.report(file, where, f"{why}; the object is skipped")

        image = _lookup(place, item.get("image_id"))
        if image is None:
            if _lookup(dropped, item.get("image_id")) is None:
                skip(f"names the unknown image {fs.shown(item.get('image_id'))}")
            return None
        if twice:
            return skip("has an id that stands twice")
        if type(item.get("category_id")) is not int or item["category_id"] not in known:
            return skip(f"names the unknown category {fs.shown(item.get('category_id'))}")
        fixed: dict[str, Any] = {"id": item.get("id"), "image_id": item["image_id"], "category_id": item["category_id"]}
        if type(fixed["id"]) not in (int, str):
            fixed["id"] = None
        if "segmentation" in item:
            fixed["segmentation"], lost = _checked_segment(item["segmentation"])
            if lost:
                self.report(file, where, f"{lost}; it is left out")
        box = item.get("bbox")
        if box is None and isinstance(fixed.get("segmentation"), list):
            xy = np.concatenate([np.reshape(p, (-1, 2)) for p in fixed["segmentation"]])
            (x1, y1), (x2, y2) = xy.min(0).tolist(), xy.max(0).tolist()
            self.report(file, where, "has no bbox; the polygon's is taken")
        elif not isinstance(box, list) or len(box) != 4 or not all(_number(v) for v in box):
            return skip(f"has no box of four numbers but {fs.shown(box)}")
        else:
            x1, y1, x2, y2 = box[0], box[1], box[0] + box[2], box[1] + box[3]
        height, width = image.size or (np.inf, np.inf)
        a, b, c, d = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
        x1f, y1f, x2f, y2f = np.float32([x1, y1, x2, y2])
        if x2f <= x1f or y2f <= y1f:
            return skip(f"has a box without area {fs.shown(box)}")
        if np.float32(c) <= np.float32(a) or np.float32(d) <= np.float32(b):
            return skip(f"has a box outside the image {fs.shown(box)}")
        if x1 < -1 or y1 < -1 or x2 > width + 1 or y2 > height + 1:
            self.report(file, where, f"the box {fs.shown(box)} leaves the image of {width} x {height}; it is clipped")
            x1, y1, x2, y2 = a, b, c, d
        fixed["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        crowd = item.get("iscrowd", 0)
        fixed["iscrowd"] = 1 if crowd in (1, True) else 0
        if crowd not in (0, 1):
            self.report(file, where, f"iscrowd is {fs.shown(crowd)}; 0 is taken")
        if _number(item.get("area")) and item["area"] >= 0:
            fixed["area"] = item["area"]
        elif item.get("area") is not None:
            self.report(file, where, f"the area {fs.shown(item['area'])} is replaced by the box's")
        points = item.get("keypoints")
        if points:
            fine = isinstance(points, list) and len(points) == 3 * self.num_points and all(_number(v) for v in points)
            if fine and set(points[2::3]) <= {0, 1, 2}:
                fixed["keypoints"] = points
            else:
                self.report(file, where, f"its key points are not {self.num_points} times x, y, visibility; they are left out")
        return fixed

    # the index

    def finish(self, root: Path, reason: str) -> DataIndex:
        if not self.images:
            hint = self.problems[0] if self.problems else ""
            raise DataError(root, "not one usable image is found", hint=str(hint) or "the list of images is empty")
        if not self.has_objects and not self.has_captions:
            raise DataError(root, "holds neither categories nor captions", hint='expected "categories" and "annotations"')
        ids = np.array(sorted(self.names), dtype=np.int64)
        counts = Counter(i.image_id for i in self.images.values())
        texts = Counter(str(i) for i in counts)
        used: set[str] = set()
        splits: dict[str, list[int]] = {}
        images = list(self.images.values())
        final = []
        for k, image in enumerate(images):
            name = str(image.image_id)
            if counts[image.image_id] > 1 or texts[name] > 1:  # ids are unique only within a file
                name = f"{next(iter(image.splits), '')}/{name}"
                name = name if name not in used else image.path
            used.add(name)
            final.append(name)
            for split in image.splits:
                splits.setdefault(split, []).append(k)
        records = PackedRecords(self._record(i, name, ids) for i, name in zip(images, final, strict=True))
        tasks = [("detect", self.has_objects), ("pose", self.num_points > 0), ("caption", self.has_captions)]
        return DataIndex(
            NAME, self.base, fs.unique_names(self.names), records,
            splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
            tasks=tuple(t for t, have in tasks if have), problems=self.problems, reason=reason,
            keypoint_names=self.points or [str(k) for k in range(self.num_points)],
            keypoint_swap=mirror_permutation(self.points) or list(range(self.num_points)), category_ids=ids.tolist(),
        )  # fmt: skip

    def _record(self, image: _Image, name: str, ids: np.ndarray) -> Record:
        record = Record(image.path, name, image.size, captions=image.captions)
        if image.parts is None:
            return record
        if image.parts:
            part = image.parts[0] if len(image.parts) == 1 else _merged(image.parts)
        else:
            part = _Part([], np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, bool), np.zeros(0), None, None)
        count = len(part.boxes)
        record.boxes = part.boxes.astype(np.float32)
        record.labels = np.searchsorted(ids, part.categories)
        record.iscrowd = part.crowd if part.crowd.any() else None
        record.extra = {"area": part.area}
        if self.has_segments:
            record.segments = part.segments if part.segments is not None else [None] * count
        if self.num_points:
            record.keypoints = part.points if part.points is not None else np.zeros((count, self.num_points, 3), np.float32)
        return record


def _lookup(table: Any, key: Any) -> Any:
    """``table[key]`` of a dict, or the key itself of a set; None when absent or not hashable."""
    try:
        return (table.get(key) if isinstance(table, dict) else key if key in table else None) if key is not None else None
    except TypeError:
        return None


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LIMIT**2  # false for NaN


def _repeated(items: list[Any]) -> set[int]:
    """Positions of annotations whose id an earlier one has."""
    ids = [a.get("id") if isinstance(a, dict) else None for a in items]
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


def _merged(parts: list[_Part]) -> _Part:
    """Objects of several files. One that an earlier file has (category and box are equal) adds only what is missing there.

    Ids decide only between equal boxes: files of other tools number their annotations independently.
    """
    rows: list[list[Any]] = []
    earlier: dict[tuple[int, bytes], list[int]] = {}
    for part in parts:
        fresh: dict[tuple[int, bytes], list[int]] = {}
        for k, number in enumerate(part.ids):
            key = (int(part.categories[k]), part.boxes[k].tobytes())
            segment = None if part.segments is None else part.segments[k]
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
        for key, found in fresh.items():
            earlier.setdefault(key, []).extend(found)
    ids, categories, boxes, crowd, area, segments, points = ([r[c] for r in rows] for c in range(7))
    shape = next((p.shape for p in points if p is not None), None)
    return _Part(
        ids, np.array(categories, np.int64), np.array(boxes).reshape(-1, 4), np.array(crowd, bool), np.array(area, np.float64),
        segments if any(s is not None for s in segments) else None,
        None if shape is None else np.stack([np.zeros(shape, np.float32) if p is None else p for p in points]),
    )  # fmt: skip


def mirror_permutation(names: list[str]) -> list[int]:
    """Index of every point's partner under a mirror: ``left`` and ``right`` in the names are swapped.

    >>> mirror_permutation(["nose", "left_eye", "right_eye"])
    [0, 2, 1]
    """
    swap = {"left": "right", "right": "left", "l": "r", "r": "l"}
    lower = [n.lower() for n in names]

    def partner(name: str) -> str:
        whole = re.sub(r"left|right", lambda m: swap[m[0]], name)
        return whole if whole != name else re.sub(r"(?<![a-z])[lr](?![a-z])", lambda m: swap[m[0]], name)

    return [lower.index(partner(n)) if partner(n) in lower else k for k, n in enumerate(lower)]


# ------------------------------------------------------------------------------------------------------------- segments


def _segments(items: list[dict[str, Any]]) -> tuple[list[Any] | None, np.ndarray]:
    """Segments by object (None when no object has one), and which objects' must be looked at.

    All polygons are converted as one array and cut into views.
    """
    wrong = np.zeros(len(items), dtype=bool)
    raw = [a.get("segmentation") for a in items]
    polygons = [p for s in raw if type(s) is list for p in s]
    codes = [k for k, s in enumerate(raw) if type(s) is dict]
    if not polygons and not codes:
        if any(s is not None and s != [] for s in raw):
            raise TypeError("a segmentation is neither polygons nor a run-length code")
        return None, wrong
    if set(map(type, polygons)) - {list}:
        raise TypeError("polygons must be lists")
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    flat = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
    ends = np.cumsum(lengths)
    with np.errstate(invalid="ignore"):
        far = np.flatnonzero(~(np.abs(flat) < _LIMIT))
    bad = (lengths % 2 == 1) | (lengths < 6)
    bad[np.searchsorted(ends, far, side="right")] = True
    any_bad = bool(bad.any())
    pairs = np.zeros((0, 2), np.float32) if any_bad else flat.astype(np.float32).reshape(-1, 2)
    bounds = [0, *(ends // 2).tolist()]
    out: list[Any] = []
    cursor = 0
    for k, s in enumerate(raw):
        if type(s) is list:
            after = cursor + len(s)
            if any_bad:
                wrong[k] = bad[cursor:after].any()
            else:
                out.append([pairs[bounds[i] : bounds[i + 1]] for i in range(cursor, after)] or None)
            cursor = after
            continue
        if type(s) is dict:
            wrong[k] = rle_problem(s) != ""
        elif s is not None:
            raise TypeError("a segmentation is neither polygons nor a run-length code")
        out.append(s)
    return out, wrong


def _checked_segment(segment: Any) -> tuple[Any, str]:
    """The segment or what is usable of it (None: nothing), and what is wrong with it ("": nothing)."""
    if segment is None or segment == []:
        return None, ""
    if isinstance(segment, dict):
        problem = rle_problem(segment)
        return (None, problem) if problem else (segment, "")
    if not isinstance(segment, list):
        return None, f"the segmentation is {type(segment).__name__}, not polygons or a run-length code"
    if all(_number(v) for v in segment):  # one polygon without its list
        segment = [segment]

    def usable(p: Any) -> bool:
        return isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(_number(v) and abs(v) < _LIMIT for v in p)

    good = [p for p in segment if usable(p)]
    lost = len(segment) - len(good)
    return good or None, f"{lost} of {len(segment)} polygons are not three or more points of finite numbers" if lost else ""


def rle_problem(code: dict[str, Any]) -> str:
    """What is wrong with a run-length code, or "". A code must be sound before compiled code sees it."""
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and 0 < v < _LIMIT for v in size):
        return f"the run-length code's size is {fs.shown(size)}"
    if isinstance(counts, str):
        try:
            runs = rle_counts(counts)
        except ValueError as error:
            return f"the run-length code is broken: {error}"
    elif isinstance(counts, list) and not set(map(type, counts)) - {int} and all(0 <= c < 2**40 for c in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        return "the run-length code has no usable counts"
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        return f"the run-length code covers {int(runs.sum())} pixels, the image has {size[0] * size[1]}"
    return ""


def rle_counts(text: str) -> np.ndarray:
    """(R,) int64 run lengths of COCO's compressed text: groups of 5 bits, and from the third run on differences to the run before last.

    >>> rle_counts("06")
    array([0, 6])
    """
    try:
        data = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("it is not ASCII") from None
    if not data.size:
        return np.zeros(0, np.int64)
    if data.min() < 0 or data.max() > 63 or data[-1] & 32:
        raise ValueError("it holds a character out of range, or ends in mid-number")
    ends = np.flatnonzero((data & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = np.arange(len(data)) - np.repeat(starts, ends - starts + 1)
    if digits.max() > 7:
        raise ValueError("a number is too long")
    values = np.add.reduceat((data & 31) << (5 * digits), starts)
    values -= np.where(data[ends] & 16, np.int64(1) << (5 * (digits[ends] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``annotations/*.json`` and ``images/``; returns what was lost, in words.

    ``instances_SPLIT.json`` (or ``instances.json``) always, ``person_keypoints_SPLIT.json`` and ``captions_SPLIT.json``
    when there are key points or captions. Reading it back gives the same records.
    """
    index = dataset.index
    names = fs.file_names(dataset, flat=False)
    records = dict(fs.unique_records(dataset))
    numeric = all(re.fullmatch(r"0|[1-9]\d{0,17}", r.image_id) for r in records.values())
    image_ids = {i: int(r.image_id) if numeric else n for n, (i, r) in enumerate(records.items(), 1)}
    category_ids = index.category_ids or list(range(1, len(index.classes) + 1))
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in zip(category_ids, index.classes, strict=True)]
    lost = fs.count_losses(dataset, TITLE, {"boxes", "crowd", "segments", "keypoints", "captions"})
    if not numeric:
        lost.append(f"{len(records)} image ids are not numbers: they become 1 to {len(records)}")
    counter = {"object": 0, "caption": 0}
    captioned = any(r.captions is not None for r in records.values())
    boxed = any(r.boxes is not None for r in records.values()) or not captioned
    (out / "annotations").mkdir(parents=True)
    entries = {}
    for i, record in records.items():
        fs.copy_image(dataset, record, out / "images" / names[i])
        height, width = fs.image_hw(dataset, record)
        entries[i] = {"id": image_ids[i], "file_name": names[i], "height": height, "width": width}
    objects = {i: _objects_out(r, image_ids[i], category_ids, counter) for i, r in records.items()}
    pointed = sorted({o["category_id"] for many in objects.values() for o in many if "keypoints" in o})
    skeleton = [c | {"keypoints": list(index.keypoint_names), "skeleton": []} for c in categories if c["id"] in pointed]
    for split, members in fs.splits_of(dataset).items():
        images = [entries[i] for i in members]
        here = [o for i in members for o in objects[i]]
        plain = [{k: v for k, v in o.items() if k not in ("keypoints", "num_keypoints")} for o in here]
        if boxed:
            _dump(out, "instances", split, {"images": images, "annotations": plain, "categories": categories})
        if skeleton:
            posed = [o for o in here if "keypoints" in o]
            _dump(out, "person_keypoints", split, {"images": images, "annotations": posed, "categories": skeleton})
        if captioned:
            texts = []
            for i in members:
                for text in records[i].captions or ():
                    counter["caption"] += 1
                    texts.append({"id": counter["caption"], "image_id": image_ids[i], "caption": text})
            _dump(out, "captions", split, {"images": images, "annotations": texts})
    return lost


def _dump(out: Path, kind: str, split: str, data: dict[str, Any]) -> None:
    name = f"{kind}_{split}.json" if split else f"{kind}.json"
    with (out / "annotations" / name).open("w", encoding="utf-8") as file:
        file.write(json.dumps({"info": {"description": "written by saccade"}, "licenses": [], **data}, allow_nan=False))


def _objects_out(record: Record, image_id: int, category_ids: list[int], counter: dict[str, int]) -> list[dict[str, Any]]:
    if record.boxes is None:
        return []
    boxes = np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4)
    sides = _sides(boxes)
    area = (record.extra or {}).get("area")
    out = []
    for k, (box, label) in enumerate(zip(sides.tolist(), np.asarray(record.labels).tolist(), strict=True)):
        counter["object"] += 1
        segment = record.segments[k] if record.segments is not None else None
        entry: dict[str, Any] = {"id": counter["object"], "image_id": image_id, "category_id": category_ids[label], "bbox": box}
        entry["area"] = float(area[k]) if area is not None else _area(box, segment)
        entry["iscrowd"] = int(record.iscrowd[k]) if record.iscrowd is not None else 0
        if isinstance(segment, dict):
            counts = segment["counts"]
            counts = (
                counts.decode("ascii") if isinstance(counts, bytes) else counts if isinstance(counts, str) else [int(c) for c in counts]
            )
            entry["segmentation"] = {"size": [int(v) for v in segment["size"]], "counts": counts}
        elif segment is not None:
            entry["segmentation"] = [fs.shorten(np.asarray(p).reshape(-1)).tolist() for p in segment]
        if record.keypoints is not None and np.any(record.keypoints[k]):
            points = fs.shorten(record.keypoints[k].reshape(-1))
            entry["keypoints"] = [int(v) if v == int(v) else v for v in points.tolist()]
            entry["num_keypoints"] = int((record.keypoints[k, :, 2] > 0).sum())
        out.append(entry)
    return out


def _sides(boxes: np.ndarray) -> np.ndarray:
    """x, y, width, height of (N, 4) float32 edges, with few digits where they read back as the same edges."""
    start, exact = fs.shorten(boxes[:, :2]), boxes[:, 2:] - boxes[:, :2]
    short = np.round(boxes[:, 2:] - start, 4)
    same = ((start + short).astype(np.float32) == boxes[:, 2:].astype(np.float32)).all(1, keepdims=True)
    return np.hstack([np.where(same, start, boxes[:, :2]), np.where(same, short, exact)])


def _area(box: list[float], segment: Any) -> float:
    """Of the polygons, of the code by its runs, else of the box."""
    if isinstance(segment, dict):
        counts = segment["counts"]
        counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
        runs = rle_counts(counts) if isinstance(counts, str) else np.asarray(counts)
        return float(runs[1::2].sum())
    if segment is None:
        return box[2] * box[3]
    return polygon_area(segment)
