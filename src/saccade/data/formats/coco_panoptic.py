"""COCO panoptic: a JSON file a split and a PNG of segment ids an image. Read and written.

Read: a folder with ``annotations/panoptic_SPLIT.json`` (or in the folder itself, or one folder deeper, as ``panoptic/annotations/``),
or such a file; the PNGs stand in the folder of the JSON's name beside it; images as for COCO. A folder that also holds COCO's
``instances_*.json`` is taken for COCO: ``--format panoptic`` asks for this one.

Conventions:

* A pixel's segment is R + 256 G + 65536 B, 0 no segment; a grey PNG holds the ids as they are. Segments do not overlap.
* ``segments_info`` gives each id its ``category_id``, ``iscrowd``, ``bbox`` (x, y, width, height, as edges) and ``area``. Boxes and
  areas are taken from it, and from the pixels when they are missing; outlines are run-length codes of the pixels.
* Things only become objects (``isthing``, a category without it is one); with ``stuff=True`` all segments do, and
  ``index.extra["categories"]`` tells which classes are things. A class mask is the segments painted with their labels; it is no
  ``Record.mask``, as no file holds it.
* An id of the JSON without a pixel, an id of the PNG that the JSON lacks: reported an image, the segment skipped or left unlabelled.
  An image without annotation or without its PNG is dropped and reported.
* The PNGs are decoded while reading (some 10 ms an image of 640 x 480); ``outlines=False`` leaves them closed and gives boxes alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import coco
from saccade.data.formats import files as fs
from saccade.data.formats.coco_files import JsonFile, find_files, head_and_tail, reason_of, to_read
from saccade.data.formats.coco_objects import LIMIT, Objects, found, is_number, whole_number
from saccade.data.formats.coco_reader import CocoReader
from saccade.data.formats.coco_write import box_sides, category_entries, dump, image_entries
from saccade.data.formats.rle import id_runs, runs_box, runs_code
from saccade.data.formats.scan import look
from saccade.data.images import image_size, read_image
from saccade.data.records import DataIndex, Record
from saccade.types.errors import DataError

NAME = "panoptic"
TITLE = "COCO panoptic"
TASKS = ("detect",)
HOLDS = frozenset({"boxes", "crowd", "segments"})

MAX_PIXELS = 2**24
"""Most pixels of a PNG of ids."""

_FILE = re.compile(r"panoptic(?:_(.*))?$", re.IGNORECASE)
_MARK = re.compile(rb'"segments_info"\s*:\s*\[')


def sniff(root: Path) -> str | None:
    """Why this looks like COCO panoptic, or None."""
    root = Path(root)
    if root.is_file():
        return "a JSON file with segments_info" if root.suffix.lower() == ".json" and _MARK.search(head_and_tail(root)) else None
    found = _discover(root, deep=False)
    return reason_of(found, "panoptic JSON") if found and coco.sniff(root) is None else None


def _discover(root: Path, deep: bool = True) -> list[JsonFile]:
    folders = [root / "annotations", root]
    if deep:
        folders += [root / name / "annotations" for name in look(root).folders]
    return find_files(folders, _FILE, lambda p: _MARK.search(head_and_tail(p)) is not None)


def read(root: Path, *, stuff: bool = False, outlines: bool = True, images: str = "", check_files: bool = True) -> DataIndex:
    """The data set of a COCO panoptic folder or file.

    Args:
        root: the JSON file or the folder.
        stuff: stuff segments become objects too.
        outlines: read the PNGs; False for boxes alone, as the JSON states them.
        images: folder of the images, relative to the data root, when it is not found by itself.
        check_files: drop (and report) images whose file is missing; False to read annotations alone.

    Raises:
        DataError: no panoptic JSON, broken JSON, or not one usable image.
    """
    root = Path(root)
    hint = "expected annotations/panoptic_SPLIT.json with segments_info, and its PNGs"
    found, base, reason = to_read(root, _discover, _FILE, "panoptic JSON", "holds segments_info", hint)
    return _Reader(base, images, check_files, stuff, outlines).read(found, root, reason)


class _Reader(CocoReader):
    format = NAME
    title = "COCO panoptic"

    def __init__(self, base: Path, images: str, check_files: bool, stuff: bool, outlines: bool) -> None:
        super().__init__(base, images, check_files)
        self.stuff, self.outlines = stuff, outlines
        self._finders: dict[Path, fs.ImageFinder] = {}  # of PNGs, by JSON file

    def add(self, file: JsonFile) -> None:
        data = self.load(file)
        known = self.add_categories(file, data.get("categories"))
        if not known:
            raise DataError(file.path, "has no categories", hint='expected {"categories": [{"id": 1, "name": "cat", "isthing": 1}, ...]}')
        things = {n for n in known if self.stuff or self.category_info.get(n, {}).get("isthing", 1)}
        self.names = {n: name for n, name in self.names.items() if n in things or n not in known}
        self.has_objects = True
        parts: dict[Any, tuple[str, dict[str, Any]]] = {}
        for k, item in enumerate(data["annotations"]):
            where = f"annotations[{k}]"
            image_id = item.get("image_id") if isinstance(item, dict) else None
            if type(image_id) not in (int, str) or not isinstance(item.get("segments_info"), list):
                self.report(file, where, "has no image_id or no segments_info; it is skipped")
            elif image_id in parts:
                self.report(file, where, "states image {} again; the first is kept", image_id)
            else:
                parts[image_id] = (where, item)
        listed = []
        for item in data["images"]:
            image_id = item.get("id") if isinstance(item, dict) else None
            if type(image_id) in (int, str) and image_id not in parts:
                self.report(file, "images", "image {} has no annotation; it is dropped", image_id)
            else:
                listed.append(item)
        place, dropped = self.add_images(file, listed)
        for image_id, (where, item) in parts.items():
            if image_id in place:
                image = place[image_id]
                image.parts = image.parts or []
                try:
                    image.parts.append(self._segments(file, where, item, image.size, known, things))
                except DataError as error:
                    self.problems.add(
                        "images without a usable PNG", error.path, error.problem, where=error.where, hint="the image is dropped"
                    )
                    self.images.pop(image.path, None)
            elif not found(dropped, image_id):
                self.report(file, where, "names the unknown image {}; it is skipped", image_id)
        self.has_segments = self.outlines

    def _segments(
        self, file: JsonFile, where: str, item: dict[str, Any], size: tuple[int, int] | None, known: set[int], things: set[int]
    ) -> Objects:
        """The objects of one image."""
        runs = None
        if self.outlines:
            ids = self._ids(file, where, item.get("file_name"), size)
            size = (int(ids.shape[0]), int(ids.shape[1]))
            try:
                runs = id_runs(ids)
            except ValueError as error:
                raise DataError(
                    file.path, f"its PNG {fs.shown(item.get('file_name'))} is no map of segments: {error}", where=where
                ) from None
        rows: list[tuple[int, int, list[float], bool, float, Any]] = []
        seen: set[int] = set()
        absent: list[int] = []
        for k, info in enumerate(item["segments_info"]):
            place = f"{where}.segments_info[{k}]"
            number = whole_number(info.get("id")) if isinstance(info, dict) else None
            if number is None or number <= 0 or number in seen:
                self.report(file, place, "a segment without a positive id of its own is skipped")
                continue
            seen.add(number)
            category = whole_number(info.get("category_id"))
            if category not in known:
                self.report(file, place, "names the unknown category {}; the segment is skipped", info.get("category_id"))
                continue
            if runs is not None and number not in runs:
                absent.append(number)
                continue
            if category not in things:
                continue
            box = self._box(file, place, info.get("bbox"), size, None if runs is None else runs[number])
            if box is None:
                continue
            pixels = 0 if runs is None else int((runs[number][1] - runs[number][0]).sum())
            area = info.get("area")
            area = float(area) if is_number(area) and area >= 0 else float(pixels or (box[2] - box[0]) * (box[3] - box[1]))
            code = None if runs is None or size is None else runs_code(*runs[number], size)
            rows.append((number, category, box, info.get("iscrowd") in (1, True), area, code))
        if absent:
            self.report(file, where, "the JSON states segments without a pixel in the PNG: {}; they are skipped", absent)
        if runs is not None and (extra := sorted(runs.keys() - seen - {0})):
            self.report(file, where, "the PNG has segments that the JSON lacks: {}; their pixels have no class", extra[:8])
        numbers, categories, boxes, crowd, area, codes = ([r[c] for r in rows] for c in range(6))
        return Objects(
            numbers, np.array(categories, np.int64), np.array(boxes, np.float64).reshape(-1, 4), np.array(crowd, bool),
            np.array(area, np.float64), codes if self.outlines else None, None,
        )  # fmt: skip

    def _ids(self, file: JsonFile, where: str, name: Any, size: tuple[int, int] | None) -> np.ndarray:
        """(H, W) ids of a PNG beside the JSON."""
        folder = file.path.parent.relative_to(self.base).as_posix() if file.path.parent.is_relative_to(self.base) else ""
        beside = [f"{folder}/{file.path.stem}".strip("/"), file.path.stem, folder]
        finder = self._finders.setdefault(file.path, fs.ImageFinder(self.base, beside))
        path = finder.find(name, source=file.path, where=where)
        if path is None:
            raise DataError(file.path, f"its PNG {fs.shown(name)} is missing in {file.path.stem}", where=where)
        full = self.base / path
        height, width = image_size(full)
        if height * width > MAX_PIXELS:
            raise DataError(full, f"is {width} x {height} pixels: more than {MAX_PIXELS >> 20} million are not read as segments")
        if size is not None and size != (height, width):
            raise DataError(full, f"is {width} x {height} pixels, its image {size[1]} x {size[0]}")
        planes = read_image(full).numpy()
        if len(planes) == 1:
            return planes[0]
        ids = planes[2].astype(np.int32)
        for plane in (planes[1], planes[0]):
            ids <<= 8
            ids |= plane
        return ids

    def _box(self, file: JsonFile, where: str, box: Any, size: tuple[int, int] | None, runs: Any) -> list[float] | None:
        """x1, y1, x2, y2 as stated, inside the image; else of the pixels; None: neither is usable."""
        sound = isinstance(box, list) and len(box) == 4 and all(is_number(v) and abs(v) < LIMIT for v in box)
        if sound and np.float32(box[0] + box[2]) > np.float32(box[0]) and np.float32(box[1] + box[3]) > np.float32(box[1]):
            x1, y1, x2, y2 = edges = [float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3])]
            height, width = size or (np.inf, np.inf)
            if x1 >= -1 and y1 >= -1 and x2 <= width + 1 and y2 <= height + 1 and x1 < width and y1 < height and x2 > 0 and y2 > 0:
                return edges
        if runs is None or size is None:
            return self.report(file, where, "has no usable bbox but {}; the segment is skipped", box)
        self.report(file, where, "has no usable bbox but {}; that of its pixels is taken", box)
        return [float(v) for v in runs_box(*runs, size[0])]


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``annotations/panoptic_SPLIT.json`` with its PNGs, and ``images/``; returns what was lost, in words.

    Where objects overlap, the later one has the pixel; polygons become pixels. What was read from panoptic files reads back equal.
    """
    from PIL import Image

    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    records = dict(fs.unique_records(dataset))
    entries = image_entries(dataset, out, lost)
    categories = category_entries(dataset, {"supercategory": "", "isthing": 1})
    category_ids = [c["id"] for c in categories]
    counts = {"bare": 0, "covered": 0, "polygons": 0}
    painted: dict[int, list[dict[str, Any]]] = {}
    for split, members in fs.splits_of(dataset).items():
        stem = f"panoptic_{split}" if split else "panoptic"
        annotations = []
        for i in members:
            name = f"{os.path.splitext(entries[i]['file_name'])[0]}.png"
            target = out / "annotations" / stem / name
            target.parent.mkdir(parents=True, exist_ok=True)
            first = i not in painted
            ids, infos = _painted(dataset, records[i], category_ids, counts if first else dict(counts))
            painted[i] = infos
            planes = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
            Image.fromarray(planes).save(target, format="PNG")
            annotations.append({"image_id": entries[i]["id"], "file_name": name, "segments_info": infos})
        dump(out, "panoptic", split, {"images": [entries[i] for i in members], "annotations": annotations, "categories": categories})
    if counts["bare"]:
        lost.append(f"{counts['bare']} objects without a usable outline are lost: {TITLE} holds pixels")
    if counts["covered"]:
        lost.append(
            f"{counts['covered']} objects lose pixels (or all of themselves) to a later one that overlaps: {TITLE} has one segment a pixel"
        )
    if counts["polygons"]:
        lost.append(f"{counts['polygons']} polygons become pixels")
    return lost


def _painted(dataset: Dataset, record: Record, category_ids: list[int], counts: dict[str, int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """(H, W) ids 1, 2, ... and the entries of the segments that have a pixel."""
    from saccade.data.polygons import rasterize

    size = fs.image_hw(dataset, record)
    ids = np.zeros(size, dtype=np.int32)
    if record.boxes is None:
        return ids, []
    sizes = []
    for k in range(len(record.boxes)):
        segment = record.segments[k] if record.segments is not None else None
        try:
            mask = rasterize(segment, size)
        except ValueError:
            mask = np.zeros(size, dtype=bool)
        counts["polygons"] += isinstance(segment, list)
        ids[mask] = k + 1
        sizes.append(int(mask.sum()))
    left = np.bincount(ids.reshape(-1), minlength=len(sizes) + 1)[1:]
    boxes = box_sides(np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4)).tolist()
    areas = (record.extra or {}).get("area")
    infos = []
    for k, (before, now) in enumerate(zip(sizes, left.tolist(), strict=True)):
        counts["bare"] += before == 0
        counts["covered"] += now < before
        if now:
            entry = {"id": k + 1, "category_id": category_ids[int(record.labels[k])], "bbox": boxes[k]}  # type: ignore[index]
            entry["iscrowd"] = int(record.iscrowd[k]) if record.iscrowd is not None else 0
            infos.append(entry | {"area": now if areas is None else float(areas[k])})
    return ids, infos
