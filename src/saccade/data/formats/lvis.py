"""LVIS v1 JSON: COCO's boxes and polygons with 1203 classes, of which an image states only some. Read and written.

Read: a JSON file, or a folder with ``lvis_v1_SPLIT.json`` (in ``annotations/`` or beside the images; others by their content). An image
has no ``file_name`` but ``coco_url``, whose last two parts are its file: ``train2017/000000391895.jpg`` (also below ``images/``, and
in whatever split folder of COCO it stands: LVIS's val takes images of train2017). Everything else is as in
:mod:`saccade.data.formats.coco`.

Beyond COCO:

* ``record.extra["neg_category_ids"]``: categories (the file's ids) that are certainly not in the image;
  ``record.extra["not_exhaustive_category_ids"]``: those of which some objects have no annotation. About all others nothing is known.
* ``index.extra["categories"]`` by class name: ``synset``, ``synonyms``, ``def``, ``frequency`` (r, c, f), ``image_count``,
  ``instance_count``. They are written as they were; a category without them gets counts and frequency of what is written.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.coco_files import JsonFile, find_files, head_and_tail, reason_of, to_read
from saccade.data.formats.coco_objects import whole_number
from saccade.data.formats.coco_reader import CocoReader
from saccade.data.formats.coco_write import category_entries, dump, image_entries, object_entries
from saccade.data.records import DataIndex

NAME = "lvis"
TITLE = "LVIS JSON"
TASKS = ("detect",)
HOLDS = frozenset({"boxes", "segments"})

_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")
_MARK = re.compile(rb'"(neg_category_ids|not_exhaustive_category_ids)"\s*:\s*\[|"synset"\s*:')
_LISTS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_FILE = re.compile(r"lvis(?:_v\d+(?:\.\d+)?)?(?:_(.*))?$", re.IGNORECASE)
_RARE, _COMMON = 10, 100  # images of a category: r to 10, c to 100, f beyond


def sniff(root: Path) -> str | None:
    """Why this looks like LVIS, or None."""
    root = Path(root)
    if root.is_file():
        return "a JSON file with neg_category_ids or synsets" if root.suffix.lower() == ".json" and _looks_like_lvis(root) else None
    return reason_of(_discover(root), "LVIS JSON")


def _looks_like_lvis(path: Path) -> bool:
    text = head_and_tail(path)
    return _MARK.search(text) is not None and _LISTS.search(text) is not None


def _discover(root: Path) -> list[JsonFile]:
    return find_files((root / "annotations", root), _FILE, _looks_like_lvis)


def read(root: Path, *, images: str = "", check_files: bool = True) -> DataIndex:
    """The data set of an LVIS JSON file or folder.

    Args:
        root: the JSON file or the folder.
        images: folder of the images, relative to the data root, when it is not found by itself.
        check_files: drop (and report) images whose file is missing; False to read annotations alone.

    Raises:
        DataError: no LVIS JSON, broken JSON, or not one usable image.
    """
    root = Path(root)
    hint = "expected lvis_v1_SPLIT.json with neg_category_ids in its images"
    found, base, reason = to_read(root, _discover, _FILE, "LVIS JSON", "is LVIS JSON", hint)
    return _Reader(base, images, check_files).read(found, root, reason)


class _Reader(CocoReader):
    format = NAME
    title = "LVIS"

    def file_name(self, item: dict[str, Any]) -> Any:
        name, url = item.get("file_name"), item.get("coco_url")
        if name is None and isinstance(url, str):
            return "/".join(url.split("?")[0].rstrip("/").split("/")[-2:])
        return name

    def image_extra(self, item: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for key in _KEYS:
            if isinstance(values := item.get(key), list):
                out[key] = [v for v in values if type(v) is int and whole_number(v) is not None]
        return out


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``annotations/lvis_v1_SPLIT.json`` and ``images/``; returns what was lost, in words.

    ``file_name`` stands in every image, as ``coco_url`` would have to be a web address. Reading it back gives the same records.
    """
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    records = dict(fs.unique_records(dataset))
    entries = image_entries(dataset, out, lost)
    for i, record in records.items():
        extra = record.extra or {}
        entries[i] |= {key: [int(v) for v in extra.get(key, ())] for key in _KEYS}
    categories = _counted(category_entries(dataset, {}), list(records.values()))
    ids = [c["id"] for c in categories]
    counter = {"object": 0}
    objects = {i: object_entries(r, entries[i]["id"], ids, counter) for i, r in records.items()}
    for split, members in fs.splits_of(dataset).items():
        here = [{k: v for k, v in o.items() if k not in ("iscrowd", "keypoints", "num_keypoints")} for i in members for o in objects[i]]
        dump(out, "lvis_v1", split, {"images": [entries[i] for i in members], "annotations": here, "categories": categories})
    return lost


def _counted(categories: list[dict[str, Any]], records: list[Any]) -> list[dict[str, Any]]:
    """Every category with all of LVIS's entries."""
    instances: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for record in records:
        labels = [] if record.labels is None else record.labels.tolist()
        instances.update(labels)
        images.update(set(labels))
    out = []
    for label, entry in enumerate(categories):
        count = images[label]
        words = {"synset": "", "synonyms": [entry["name"]], "def": ""}
        numbers = {"image_count": count, "instance_count": instances[label]}
        frequency = {"frequency": "r" if count <= _RARE else "c" if count <= _COMMON else "f"}
        out.append({**words, **numbers, **frequency, **entry})
    return out
