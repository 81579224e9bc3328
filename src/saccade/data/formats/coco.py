"""COCO JSON: boxes, polygons, run-length codes, key points and captions, read and written.

Read: a JSON file, or a folder with ``annotations/*.json`` (``instances_SPLIT``, ``person_keypoints_SPLIT``,
``captions_SPLIT``; others by their content) and image folders (``train2017``, ``images/train``, ...), or JSON beside
images, or ``SPLIT/_annotations.coco.json``. The files of a split are merged: an object that two of them state (same
category and box) is one.

Conventions:

* Category ids keep their gaps in ``index.category_ids``; labels are 0..K-1 by ascending id. What else a category says
  (``supercategory``, ``skeleton``) stands in ``index.extra["categories"]`` by class name.
* ``bbox`` x, y, width, height becomes x, y, x + width, y + height: numbers are edges, nothing is added. Without ``bbox`` it is
  that of the polygons, else that around the labelled key points.
* A box that hangs over the image by up to one pixel (rounding of the annotation tool) stays as it is; by more, it is
  clipped and reported; one without area inside is skipped and reported.
* ``record.extra["area"]`` keeps the annotated areas, by which COCO's metrics divide small, medium and large.
* Segments stay as they are in the file: polygons as (P, 2) float32, run-length codes as ``{"size", "counts"}``.
* **Key points** are as many as the category names; when no object has that number, as many as most objects have, named by number.
  COCO-WholeBody's feet, face and hands are joined to the body's 17: 133. A fraction as visibility is a machine's confidence: not labelled.
* Ids may be text; an annotation may say ``"7"`` for image 7.
* Whatever is wrong with one image or annotation is skipped or repaired and listed in ``index.problems``;
  only a file that is no COCO JSON at all raises.

The parts: :mod:`coco_files` (what to read), :mod:`coco_reader` (images, categories, the index), :mod:`coco_objects` (annotations as
columns), :mod:`coco_batches` (the same for large files), :mod:`coco_points`, :mod:`rle`, :mod:`coco_write`.
"""

from __future__ import annotations

import re
from pathlib import Path

from saccade.data.formats import files as fs
from saccade.data.formats.coco_files import MOST_FILES, USUAL, JsonFile, head_and_tail, json_files, named, reason_of, to_read
from saccade.data.formats.coco_reader import CocoReader
from saccade.data.formats.coco_write import HOLDS as HOLDS
from saccade.data.formats.coco_write import write as write
from saccade.data.formats.scan import look
from saccade.data.records import DataIndex

NAME = "coco"
TITLE = "COCO JSON"
TASKS = ("detect", "pose", "caption")

_KEY = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_OTHERS = re.compile(rb'"(segments_info|neg_category_ids|not_exhaustive_category_ids|synset)"\s*:')
_OTHER_NAMES = re.compile(r"(panoptic|stuff|image_info)(_|$)", re.IGNORECASE)


def sniff(root: Path) -> str | None:
    """Why this looks like COCO, or None."""
    root = Path(root)
    if root.is_file():
        return "a JSON file with images and annotations" if root.suffix.lower() == ".json" and _looks_like_coco(root) else None
    files = _discover(root)
    return reason_of(files, "COCO JSON")


def _looks_like_coco(path: Path) -> bool:
    """Two of COCO's lists (or annotations alone) in the first or last part of the file, and nothing of its relatives."""
    text = head_and_tail(path)
    keys = set(_KEY.findall(text))
    return (b"images" in keys or {b"annotations", b"categories"} <= keys) and not _OTHERS.search(text)


def _discover(root: Path) -> list[JsonFile]:
    if not root.is_dir():
        return []
    for folder in (root / "annotations", root / "Annotations", root, None):
        if folder is None:  # a folder a split, as Roboflow exports them
            paths = [p for n in look(root).folders[:MOST_FILES] if (p := root / n / "_annotations.coco.json").is_file()]
        else:
            paths = [p for p in json_files(folder, USUAL) if not _OTHER_NAMES.match(p.stem)]
        paths = [p for p in paths if _looks_like_coco(p)]
        if paths:
            return sorted((named(p, len(paths)) for p in paths), key=lambda f: (fs.split_rank(f.split), _kind_rank(f.path), f.path.name))
    return []


def _kind_rank(path: Path) -> int:
    match = USUAL.match(path.stem)
    return 0 if match is None else ("instances", "person_keypoints", "keypoints", "captions").index(match[1].lower())


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
    hint = "expected annotations/*.json with images, annotations and categories"
    found, base, reason = to_read(root, _discover, USUAL, "COCO JSON", "holds images and annotations", hint)
    return CocoReader(base, images, check_files).read(found, root, reason)
