"""The reader of COCO files: images, categories, captions and key point names, and the index of them all.

Relatives of COCO (LVIS, panoptic, detectron2) are read by subclasses.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.formats import files as fs
from saccade.data.formats.coco_batches import TAKEN, Taker
from saccade.data.formats.coco_files import JsonFile
from saccade.data.formats.coco_objects import (
    LIMIT,
    Known,
    Objects,
    fill,
    found,
    merged,
    objects_by_image,
    pack_numbers,
    whole_number,
)
from saccade.data.formats.coco_points import BODY, MOST_POINTS, join_whole_body, mirror_permutation, usual_number, whole_body_names
from saccade.data.formats.scan import Problems
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

LARGE = 2**22
"""Bytes of a file from which on its annotations are taken out while the JSON is read."""


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


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size >= LARGE
    except OSError:
        return False


def _can_be_written(value: Any) -> bool:
    """Whether strict JSON can hold it: no NaN, not nested without end, no list of numbers that the reader has packed."""
    try:
        return bool(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False


class _Image:
    __slots__ = ("captions", "extra", "image_id", "parts", "path", "size", "splits")

    def __init__(self, path: str, image_id: Any, size: tuple[int, int] | None) -> None:
        self.path, self.image_id, self.size = path, image_id, size
        self.splits: dict[str, None] = {}
        self.parts: list[Objects] | None = None
        self.captions: list[str] | None = None
        self.extra: dict[str, Any] = {}


class CocoReader:
    """Collects the files of a data set; every method reports into ``problems`` what it skips.

    Relatives of COCO override :meth:`add` (what a file holds), :meth:`file_name` and :meth:`image_extra`.
    """

    format = "coco"
    title = "COCO"
    main_task = "detect"

    def __init__(self, base: Path, images: str, check_files: bool) -> None:
        self.base, self.images_folder, self.check_files = base, images, check_files
        self.images: dict[str, _Image] = {}  # by path
        self.names: dict[int, str] = {}  # category id -> name
        self.category_info: dict[int, dict[str, Any]] = {}
        self.points: list[str] = []
        self.num_points = 0
        self.points_settled = False
        self.has_segments = self.has_captions = self.has_objects = False
        self.problems = Problems(base)

    def read(self, files: list[JsonFile], root: Path, reason: str) -> DataIndex:
        """The index of all files."""
        with _paused_gc():
            for file in files:
                self.add(file)
            return self.finish(root, reason)

    def add(self, file: JsonFile) -> None:
        """Read one file of annotations."""
        self.add_lists(file, self.load(file))

    def load(self, file: JsonFile) -> dict[str, Any]:
        """The file's JSON, its lists checked."""
        taker = Taker() if _is_large(file.path) else None
        data = fs.read_json(file.path, hook=taker or pack_numbers)
        if taker is not None and taker.count:
            annotations = data.get("annotations") if isinstance(data, dict) else None
            if isinstance(annotations, list) and len(annotations) == taker.count and all(a is TAKEN for a in annotations):
                data["annotations"] = taker
            else:  # of several kinds, or objects elsewhere in the file look like annotations
                taker = None
                data = fs.read_json(file.path, hook=pack_numbers)
        if not isinstance(data, dict) or not isinstance(data.get("images"), list):
            first = data[0] if isinstance(data, list) and data else None
            detections = isinstance(first, dict) and "score" in first
            hint = 'expected {"images": [...], "annotations": [...]}'
            hint = "this is a list of detections, not of truth" if detections else hint
            raise DataError(file.path, f"is not {self.title}: it has no list of images", hint=hint)
        if not isinstance(data.setdefault("annotations", []), list | Taker):
            raise DataError(file.path, f"is not {self.title}: annotations is not a list")
        return data

    def add_lists(self, file: JsonFile, data: dict[str, Any]) -> None:
        """Take images, categories and annotations; ``data`` is emptied, so that its memory can serve the index."""
        annotations = data.pop("annotations")
        known = self.add_categories(file, data.pop("categories", None))
        place, dropped = self.add_images(file, data.pop("images"))
        captions = [] if isinstance(annotations, Taker) else [a for a in annotations if isinstance(a, dict) and "caption" in a]
        if captions or file.path.stem.lower().startswith("captions"):
            self._captions(file, captions, place, dropped)
        objects = annotations if not captions else [a for a in annotations if not (isinstance(a, dict) and "caption" in a)]
        del annotations
        if objects and not known:
            raise DataError(file.path, "has objects but no categories", hint='expected {"categories": [{"id": 1, "name": "cell"}, ...]}')
        if known:
            self.has_objects = True
            for image in place.values():
                image.parts = image.parts or []
            if objects if isinstance(objects, list) else objects.count:
                self._objects(file, objects, place, dropped, known)

    def report(self, file: JsonFile, where: str, message: str, *values: Any) -> None:
        """Note a problem; the values fill the ``{}`` of the message, which without them is the kind of problem."""
        self.problems.add(message.replace("{}", "..."), file.path, fill(message, values), where=where)

    # categories and images

    def add_categories(self, file: JsonFile, items: Any) -> set[int]:
        """Take the categories; gives their ids."""
        if items is None:
            return set()
        if not isinstance(items, list):
            raise DataError(file.path, f"is not {self.title}: categories is not a list")
        known: set[int] = set()
        for k, item in enumerate(items):
            where = f"categories[{k}]"
            number = whole_number(item.get("id")) if isinstance(item, dict) else None
            if number is None:
                self.report(file, where, "a category without a whole number as id is skipped")
                continue
            if number in known:
                self.report(file, where, "category id {} stands twice; the first is kept", number)
                continue
            name = item.get("name")
            if not isinstance(name, str) or not name.strip():
                self.report(file, where, "category {} has no name; it is called by its id", number)
                name = str(number)
            if self.names.setdefault(number, name) != name:
                raise DataError(
                    file.path, f"category {number} is {fs.shown(name)}, but {fs.shown(self.names[number])} in another file", where=where
                )
            known.add(number)
            other = {key: value for key, value in item.items() if key not in ("id", "name", "keypoints") and _can_be_written(value)}
            self.category_info.setdefault(number, {}).update(other)
            points = item.get("keypoints")
            if isinstance(points, list) and 0 < len(points) <= MOST_POINTS and all(isinstance(p, str) for p in points):
                if (self.points and self.points != points) or (self.points_settled and len(points) != self.num_points):
                    self.report(file, where, "category {} has other key points than the first that has some; they are skipped", name)
                else:
                    self.points, self.num_points = list(points), len(points)
        return known

    def file_name(self, item: dict[str, Any]) -> Any:
        """Where an entry of ``images`` says that its file is."""
        return item.get("file_name")

    def image_extra(self, item: dict[str, Any]) -> dict[str, Any]:
        """What else of an entry of ``images`` the record must keep."""
        return {}

    def add_images(self, file: JsonFile, items: list[Any]) -> tuple[dict[Any, _Image], set[Any]]:
        """Take the images; gives them by the file's ids, and the ids of those that were dropped and reported."""
        finder = fs.ImageFinder(self.base, self._image_folders(file))
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
                self.report(file, where, "image id {} stands twice; the first is kept", number)
                continue
            name = self.file_name(item)
            try:
                path = finder.find(name, source=file.path, where=where)
            except DataError as error:
                self.problems.add("images with an unusable file name", error.path, error.problem, where=error.where, hint=error.hint)
                dropped.add(number)
                continue
            if path is None and not self.check_files:
                path = name.replace("\\", "/")
            if path is None:
                self.report(file, where, "image {} is missing; it is dropped", name)
                dropped.add(number)
                continue
            if path in here:
                self.report(file, where, "image {} is listed twice; its objects are joined", path)
            here.add(path)
            image = self.images.get(path)
            if image is None:
                image = self.images[path] = _Image(path, number, self._size(file, where, item))
            image.extra.update(self.image_extra(item))
            if file.split:
                image.splits[file.split] = None
            place[number] = image
        return place, dropped

    def _image_folders(self, file: JsonFile) -> list[str]:
        """Where images may be, relative to the base, the likeliest first."""
        if self.images_folder:
            return [self.images_folder]
        beside = file.path.parent.relative_to(self.base).as_posix() if file.path.parent.is_relative_to(self.base) else ""
        of_split = [file.raw_split, f"images/{file.raw_split}", file.split, f"images/{file.split}", f"{file.raw_split}/images"]
        return [*(f.strip("/") for f in of_split if file.raw_split), "images", "", beside, f"{beside}/images", "JPEGImages", "data"]

    def _size(self, file: JsonFile, where: str, item: dict[str, Any]) -> tuple[int, int] | None:
        height, width = item.get("height"), item.get("width")
        if type(height) is int and type(width) is int and 0 < height < LIMIT and 0 < width < LIMIT:
            return height, width
        if height is not None or width is not None:
            self.report(file, where, "width {} and height {} are no size; they are ignored", width, height)
        return None

    # annotations

    def _captions(self, file: JsonFile, items: list[dict[str, Any]], place: dict[Any, _Image], dropped: set[Any]) -> None:
        self.has_captions = True
        for image in place.values():
            image.captions = image.captions or []
        for k, item in enumerate(items):
            where, image_id = f"annotation {item.get('id', k)}", item.get("image_id")
            if not found(place, image_id):
                if not found(dropped, image_id):
                    self.report(file, where, "a caption of the unknown image {} is skipped", image_id)
            elif not isinstance(item["caption"], str):
                self.report(file, where, "a caption that is no text is skipped")
            else:
                place[image_id].captions.append(item["caption"])

    def _objects(self, file: JsonFile, items: list[Any] | Taker, place: dict[Any, _Image], dropped: set[Any], known: set[int]) -> None:
        if not self.points_settled and not isinstance(items, Taker):
            self._settle_points(file, items)
        all_known = Known({image_id: image.size for image_id, image in place.items()}, dropped, known, self.num_points)
        report = partial(self.report, file)
        parts = items.objects_by_image(all_known, report) if isinstance(items, Taker) else objects_by_image(items, all_known, report)
        for image_id, part in parts.items():
            self.add_part(place[image_id], part)
            self.points_settled = self.points_settled or part.points is not None

    def add_part(self, image: _Image, part: Objects) -> None:
        """Objects of one image from one file."""
        image.parts = [*(image.parts or []), part]
        self.has_segments = self.has_segments or part.segments is not None

    def _settle_points(self, file: JsonFile, items: list[Any]) -> None:
        """The number and names of key points, as categories and objects state them."""
        whole = self.points in ([], list(BODY)) and join_whole_body(items)
        number = usual_number(items, self.num_points)
        if number == self.num_points:
            return
        names = whole_body_names()
        if number == len(names) and self.points in ([], list(BODY)):
            self.points = names
        elif self.points:
            self.report(
                file, "categories", "name {} key points, but the objects have {}: they are called by number", self.num_points, number
            )
            self.points = []
        if whole and number != len(names):
            self.report(file, "annotations", "have parts of a whole body, but not 133 points")
        self.num_points = number

    # the index

    def finish(self, root: Path, reason: str) -> DataIndex:
        """The index of all that was added."""
        if not self.images:
            hint = next(iter(self.problems.list()), "")
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
        tasks = [
            (self.main_task, self.has_objects),
            ("detect", self.has_objects),
            ("pose", self.num_points > 0),
            ("caption", self.has_captions),
        ]
        classes = fs.unique_names(self.names)
        info = {name: self.category_info[int(i)] for name, i in zip(classes, ids, strict=True) if self.category_info.get(int(i))}
        return DataIndex(
            self.format, self.base, classes, records,
            splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
            tasks=tuple(dict.fromkeys(t for t, have in tasks if have)), problems=self.problems.list(), reason=reason,
            keypoint_names=self.points or [str(k) for k in range(self.num_points)],
            keypoint_swap=mirror_permutation(self.points) or list(range(self.num_points)), category_ids=ids.tolist(),
            extra={"categories": info} if info else {},
        )  # fmt: skip

    def _record(self, image: _Image, name: str, ids: np.ndarray) -> Record:
        record = Record(image.path, name, image.size, captions=image.captions, extra=image.extra or None)
        if image.parts is None:
            return record
        if image.parts:
            part = image.parts[0] if len(image.parts) == 1 else merged(image.parts)
        else:
            part = Objects([], np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, bool), np.zeros(0), None, None)
        count = len(part.boxes)
        record.boxes = part.boxes.astype(np.float32)
        record.labels = np.searchsorted(ids, part.categories)
        record.iscrowd = part.crowd if part.crowd.any() else None
        record.extra = {"area": part.area, **image.extra}
        if self.has_segments:
            record.segments = part.segments if part.segments is not None else [None] * count
        if self.num_points:
            record.keypoints = part.points if part.points is not None else np.zeros((count, self.num_points, 3), np.float32)
        return record
