"""detectron2's dataset dicts as JSON: a list with a dict an image, its annotations inside. Read and written.

Read: a JSON file, or a folder with one a split (``train.json``, ``val.json``; in ``annotations/`` or in the folder itself). Names of
classes and key points come from ``metadata.json`` (``thing_classes``, ``keypoint_names``) or ``classes.txt`` beside the list or in the
root; without them classes are called by their number.

Conventions:

* ``file_name`` is relative to the root, to the list's folder or to an image folder; of an absolute one, as detectron2 makes them, the
  last parts count, as many as lead to a file below the root.
* ``bbox_mode`` 0 ``XYXY_ABS`` and 1 ``XYWH_ABS``, as numbers or names (also ``BoxMode.XYXY_ABS``); numbers are edges in pixels.
  Other modes are skipped and reported.
* ``category_id`` is the label itself, 0..K-1. ``segmentation`` is COCO's, and so are ``keypoints`` and everything that is repaired or
  skipped (:mod:`saccade.data.formats.coco`).
* ``sem_seg_file_name`` is not read (a folder of masks is ``--format masks``); that is reported.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.coco_files import JsonFile, find_files, reason_of, to_read
from saccade.data.formats.coco_objects import is_number, pack_numbers
from saccade.data.formats.coco_points import MOST_POINTS
from saccade.data.formats.coco_reader import CocoReader
from saccade.data.formats.coco_write import image_entries, object_entries
from saccade.data.formats.scan import find_class_table
from saccade.data.records import DataIndex
from saccade.types.errors import DataError

NAME = "detectron2"
TITLE = "detectron2 dicts"
TASKS = ("detect", "pose")
HOLDS = frozenset({"boxes", "crowd", "segments", "keypoints"})

_FILE = re.compile(r"(?:dataset_dicts|instances)(?:_(.*))?$", re.IGNORECASE)
_NOT_LISTS = frozenset({"metadata.json", "classes.json"})
_START = re.compile(rb"\s*\[\s*\{")
_MODES = {"XYXY_ABS": 0, "XYWH_ABS": 1}
_EXPECTED = 'expected [{"file_name": ..., "annotations": [{"bbox": ..., "bbox_mode": 0, "category_id": 0}]}]'


def sniff(root: Path) -> str | None:
    """Why this looks like detectron2's dicts, or None."""
    root = Path(root)
    if root.is_file():
        return "a JSON list of dicts with file_name and annotations" if root.suffix.lower() == ".json" and _looks_like_dicts(root) else None
    return reason_of(_discover(root), "detectron2 JSON")


def _looks_like_dicts(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            text = file.read(1 << 16)
    except OSError:
        return False
    return _START.match(text) is not None and b'"file_name"' in text and re.search(rb'"annotations"\s*:\s*\[', text) is not None


def _discover(root: Path) -> list[JsonFile]:
    return find_files((root / "annotations", root), _FILE, lambda p: p.name not in _NOT_LISTS and _looks_like_dicts(p))


def read(root: Path, *, images: str = "", check_files: bool = True) -> DataIndex:
    """The data set of a list of dataset dicts, or of a folder with one a split.

    Args:
        root: the JSON file or the folder.
        images: folder of the images, relative to the data root, when it is not found by itself.
        check_files: drop (and report) images whose file is missing; False to read annotations alone.

    Raises:
        DataError: no such list, broken JSON, or not one usable image.
    """
    root = Path(root)
    found, base, reason = to_read(root, _discover, _FILE, "detectron2 JSON", "is a list of dicts", _EXPECTED)
    return _Reader(base, images, check_files).read(found, root, reason)


class _Reader(CocoReader):
    format = NAME
    title = "a list of detectron2's dicts"

    def add(self, file: JsonFile) -> None:
        data = fs.read_json(file.path, hook=pack_numbers)
        if not isinstance(data, list):
            raise DataError(file.path, f"is not {self.title}", hint=_EXPECTED)
        images: list[Any] = []
        objects: list[dict[str, Any]] = []
        masks = 0
        for k, item in enumerate(data):
            where = f"[{k}]"
            if not isinstance(item, dict):
                self.report(file, where, "is no dict of an image; it is skipped")
                continue
            known = item.get("image_id")
            number = f"{k}" if type(known) not in (int, str) else known
            images.append({**{key: item[key] for key in ("file_name", "height", "width") if key in item}, "id": number})
            masks += "sem_seg_file_name" in item
            annotations = item.get("annotations", [])
            if not isinstance(annotations, list):
                self.report(file, where, "its annotations are no list; they are skipped")
                continue
            for j, annotation in enumerate(annotations):
                if (converted := self._annotation(file, f"{where}.annotations[{j}]", annotation)) is not None:
                    objects.append({**converted, "image_id": number, "id": f"{where}.annotations[{j}]"})
        if masks:
            self.report(file, "", f"{masks} semantic masks (sem_seg_file_name) are not read")
        categories = self._categories(file, objects)
        if not categories:
            raise DataError(file.path, "has neither objects nor names of classes", hint="name them in metadata.json: thing_classes")
        self.add_lists(file, {"images": images, "annotations": objects, "categories": categories})

    def _annotation(self, file: JsonFile, where: str, item: Any) -> dict[str, Any] | None:
        """The annotation with its box as COCO has it."""
        if not isinstance(item, dict):
            self.report(file, where, "is not an object; it is skipped")
            return None
        out = {key: item[key] for key in ("category_id", "segmentation", "keypoints", "iscrowd", "area") if item.get(key) is not None}
        mode, box = item.get("bbox_mode", 0), item.get("bbox")
        if isinstance(mode, str):
            mode = _MODES.get(mode.rpartition(".")[2], int(mode) if mode in ("0", "1") else mode)
        if type(mode) is not int or mode not in (0, 1):
            self.report(file, where, "has the bbox_mode {}, not XYXY_ABS or XYWH_ABS; the object is skipped", item.get("bbox_mode"))
            return None
        if mode == 0 and isinstance(box, list) and len(box) == 4 and all(is_number(v) for v in box):
            box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        return {**out, "bbox": box}

    def _categories(self, file: JsonFile, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of metadata.json or classes.txt; else of the numbers in use."""
        for folder in dict.fromkeys([file.path.parent, self.base]):
            try:
                if (folder / "metadata.json").is_file():
                    return self._metadata(folder / "metadata.json")
                if table := find_class_table(folder):
                    return [{"id": k, "name": name} for k, name in table.entries]
            except DataError as error:
                self.problems.add("tables of classes", error.path, error.problem, where=error.where, hint="it is not used")
        used = {a["category_id"] for a in objects if type(a.get("category_id")) is int and 0 <= a["category_id"] < 2**31}
        return [{"id": k, "name": str(k)} for k in sorted(used)]

    def _metadata(self, path: Path) -> list[dict[str, Any]]:
        data = fs.read_json(path)
        names = data.get("thing_classes") if isinstance(data, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
            raise DataError(path, "has no list of names thing_classes", hint='write {"thing_classes": ["cat", "dog"]}')
        points = data.get("keypoint_names")
        posed = {"keypoints": points} if isinstance(points, list) and 0 < len(points) <= MOST_POINTS else {}
        return [{"id": k, "name": name, **posed} for k, name in enumerate(names)]

    def file_name(self, item: dict[str, Any]) -> Any:
        name = item.get("file_name")
        if isinstance(name, str) and (name.startswith("/") or re.match(r"[A-Za-z]:[\\/]", name)):
            parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
            for k in range(max(0, len(parts) - 8), len(parts)):
                tail = "/".join(parts[k:])
                if "\x00" not in tail and len(tail) < 4096 and (self.base / self.images_folder / tail).is_file():
                    return tail
            return parts[-1] if parts else name
        return name


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``SPLIT.json`` (``dataset_dicts.json`` without splits), ``metadata.json`` and ``images/``; returns what was lost, in words.

    Boxes are XYXY_ABS; ``area`` stands beside them, which detectron2 does not ask for. Reading it back gives the same records.
    """
    index = dataset.index
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    records = dict(fs.unique_records(dataset))
    entries = image_entries(dataset, out, lost)
    counter = {"object": 0}
    dicts = {}
    for i, record in records.items():
        entry = entries[i]
        boxes = fs.shorten(np.asarray(record.boxes if record.boxes is not None else np.zeros((0, 4)))).reshape(-1, 4).tolist()
        annotations = object_entries(record, entry["id"], list(range(len(index.classes))), counter)
        for box, annotation in zip(boxes, annotations, strict=True):
            annotation |= {"bbox": box, "bbox_mode": 0}
            for key in ("id", "image_id", "num_keypoints"):
                annotation.pop(key, None)
        head = {"file_name": f"images/{entry['file_name']}", "image_id": entry["id"], "height": entry["height"], "width": entry["width"]}
        dicts[i] = {**head, "annotations": annotations}
    for split, members in fs.splits_of(dataset).items():
        text = json.dumps([dicts[i] for i in members], allow_nan=False)
        (out / f"{split or 'dataset_dicts'}.json").write_text(text, encoding="utf-8")
    metadata = {"thing_classes": index.classes, **({"keypoint_names": index.keypoint_names} if index.keypoint_names else {})}
    (out / "metadata.json").write_text(json.dumps(metadata, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return lost
