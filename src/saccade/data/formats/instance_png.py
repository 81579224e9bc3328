"""Instance PNGs: each picture has a PNG of its size that holds the number of the object at every pixel, 0 where there is none.

Where they lie, found by the stem of the picture:

* folders: ``images/a.jpg`` + ``instances/a.png`` (also SegmentationObject, instance_ids ... for the numbers; JPEGImages, leftImg8bit ...
  for the pictures), below or above folders of splits;
* suffixes: ``a.png`` + ``a_instances.png`` (also _instance, _instanceIds) beside it or in such a folder; Cityscapes'
  ``leftImg8bit/train/bonn/x_leftImg8bit.png`` + ``gtFine/train/bonn/x_gtFine_instanceIds.png``.

Conventions:

* **Numbers** are grey levels of 8 or 16 bits, or palette indices. In a palette file 255 is the border between objects, which belongs to
  none (VOC). Each other number is one object, whether its pixels touch or not; objects stand in order of their numbers.
* **Classes**, the first that applies: ``number // 1000`` in files named ``..._instanceIds`` (Cityscapes; numbers below 1000 are areas
  without objects), or with ``thousands=True``; the value that most of the object's pixels have in a class PNG of the same name
  in ``classes``, ``SegmentationClass`` or ``semantic`` (0 and, in a palette, 255 count as none; an object of several classes is
  reported); else all are ``object``. Names come from ``classes.json`` / ``.csv`` / ``.txt`` by value (value 0 is the background),
  for SegmentationClass and Cityscapes from those sets, else they are the values.
* **Boxes** are the pixels' extent as edges (largest column + 1); outlines are run-length codes.
* **Splits** are folders (train, val, test), or the lists in ``ImageSets/Segmentation``.

Every PNG is decoded when the set is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats.files import (
    copy_image,
    count_losses,
    file_names,
    image_hw,
    is_split,
    read_text,
    split_losses,
    split_name,
    split_rank,
    splits_of,
    unique_records,
)
from saccade.data.formats.scan import IMAGE_FOLDERS, TABLE_NAMES, Files, Problems, find_class_table, glimpse, walk
from saccade.data.images import image_size, is_colored, is_indexed, read_mask
from saccade.data.polygons import rasterize
from saccade.data.records import DataIndex, PackedRecords, Record, inside
from saccade.types.errors import DataError, UsageError

NAME = "instances"
TITLE = "a PNG of instance numbers"
TASKS = ("detect",)
HOLDS = frozenset({"boxes", "segments"})

INSTANCE_FOLDERS = ("instances", "instance", "segmentationobject", "instance_masks", "instance_ids", "instanceids")
CLASS_FOLDERS = ("classes", "segmentationclass", "semantic")

MOST_OBJECTS, MOST_RUNS, MOST_PIXELS = 10_000, 4_000_000, 25_000_000
"""Most objects and runs of equal pixels in an image (beyond, it is a photograph), and most pixels, which bounds the memory."""

_SUFFIXES = ("_instances", "_instance", "_instanceids", "_gtfine_instanceids")
_THOUSANDS = "_instanceids"
_OTHERS = frozenset({*INSTANCE_FOLDERS, *CLASS_FOLDERS, "gtfine"})
_BORDER = 255
_VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_CITYSCAPES = ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle")


class _Pair(NamedTuple):
    """Paths of an image, of its numbers and, where there is one, of its classes."""

    image: str
    numbers: str
    classes: str | None


class _Objects(NamedTuple):
    """The objects of one image: class values, boxes (N, 4), run-length codes."""

    values: np.ndarray
    boxes: np.ndarray
    codes: list[dict[str, object]]


def sniff(root: Path) -> str | None:
    """Pairs of picture and instance PNG; not where VOC's XML states the boxes."""
    root = Path(root)
    if not root.is_dir() or (root / "Annotations").is_dir():
        return None
    pairs = _pairs(glimpse(root))
    try:
        colored = bool(pairs) and is_colored(inside(root, pairs[0].numbers, source=root))
    except DataError:
        colored = False
    return f"{len(pairs)} images with a PNG of instance numbers" if pairs and not colored else None


def read(root: Path, thousands: bool | None = None) -> DataIndex:
    """Decode the instance PNGs.

    Args:
        root: the folder.
        thousands: an object's class is its number // 1000; None: where the files are named ``_instanceIds``.

    Raises:
        DataError: no instance PNG, a broken table of classes, or not one usable image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(root, "is a file", hint="instance PNGs are read from a folder")
    problems = Problems(root)
    pairs = _pairs(walk(root, problems))
    if not pairs:
        hint = "put pictures into images/ and PNGs of the same names into instances/"
        raise DataError(root, "holds no image with a PNG of instance numbers", hint=hint)
    if thousands is None:
        thousands = all(os.path.splitext(p.numbers)[0].lower().endswith(_THOUSANDS) for p in pairs)
    found: list[tuple[Record, _Objects]] = []
    for pair in pairs:
        try:
            objects, size = _read_one(root, pair, thousands, problems)
        except DataError as error:
            problems.add("images that are skipped", error.path, error.problem, where=error.where, hint=error.hint)
            continue
        found.append((Record(pair.image, pair.image, size), objects))
    if not found:
        raise DataError(root, "not one usable image is found", hint=str((problems.list() or [""])[0]))

    names = _class_names(root, pairs, thousands, sorted({int(v) for _, o in found for v in o.values}))
    labels = {value: k for k, value in enumerate(names)}
    for record, objects in found:
        known = np.array([int(v) in labels for v in objects.values], dtype=bool)
        if not known.all():
            value = int(objects.values[~known][0])
            problems.add(
                "objects of unknown classes", root / record.path, f"holds an object of the class {value}, which has no name; skipped"
            )
        record.boxes = objects.boxes[known]
        record.labels = np.array([labels[int(v)] for v in objects.values[known]], dtype=np.int64)
        record.segments = [code for code, keep in zip(objects.codes, known, strict=True) if keep]
    return DataIndex(
        format=NAME,
        root=root,
        classes=list(names.values()),
        records=PackedRecords(r for r, _ in found),
        splits=_splits(root, [r.path for r, _ in found], problems),
        tasks=TASKS,
        problems=problems.list(),
        reason=f"{len(found)} images with a PNG of instance numbers",
    )


def _pairs(files: Files) -> list[_Pair]:
    """The pictures that have a PNG of numbers, sorted."""
    places: dict[tuple[str, str], str] = {}
    for path in files.images:
        folder, _, name = path.lower().rpartition("/")
        places.setdefault((folder, os.path.splitext(name)[0]), path)
    out = []
    for path in files.images:
        folder, _, name = path.lower().rpartition("/")
        stem = os.path.splitext(name)[0]
        parts = folder.split("/") if folder else []
        if not _OTHERS.isdisjoint(parts) or stem.endswith(_SUFFIXES):
            continue
        named = [s + x for s in (stem, stem.removesuffix("_leftimg8bit")) for x in _SUFFIXES]
        numbers = _mate(parts, INSTANCE_FOLDERS, [stem, *named], places) or _mate(parts, ("gtfine",), named, places)
        if numbers is None:
            numbers = next((places[folder, stem + x] for x in _SUFFIXES if (folder, stem + x) in places), None)
        if numbers is not None and numbers != path:
            out.append(_Pair(path, numbers, _mate(parts, CLASS_FOLDERS, [stem], places)))
    return out


def _mate(parts: list[str], folders: Sequence[str], stems: list[str], places: dict[tuple[str, str], str]) -> str | None:
    """The file of one of the stems in a folder beside that of the images, or below a plain folder."""
    places_to_look = [[*parts[:k], word, *parts[k + 1 :]] for k, part in enumerate(parts) if part in IMAGE_FOLDERS for word in folders]
    places_to_look += [[*parts, word] for word in folders]
    for place in places_to_look:
        for stem in stems:
            if ("/".join(place), stem) in places:
                return places["/".join(place), stem]
    return None


def _read_one(root: Path, pair: _Pair, thousands: bool, problems: Problems) -> tuple[_Objects, tuple[int, int]]:
    size = image_size(inside(root, pair.image, source=root))
    if size[0] * size[1] > MOST_PIXELS:
        raise DataError(root / pair.image, f"has more than {MOST_PIXELS // 10**6} million pixels", hint="cut it into tiles")
    numbers = _read_values(root, pair.numbers, size)
    classes = _read_values(root, pair.classes, size) if pair.classes is not None and not thousands else None
    ids, boxes, codes, pixels = _objects(numbers, root / pair.numbers)
    if thousands:
        keep = ids >= 1000
        return _Objects(ids[keep] // 1000, boxes[keep], [c for c, k in zip(codes, keep, strict=True) if k]), size
    if classes is None:
        return _Objects(np.ones(len(ids), dtype=np.int64), boxes, codes), size
    values = np.zeros(len(ids), dtype=np.int64)
    # one bincount over (object, class): the values are few, so they are numbered first
    seen = np.flatnonzero(np.bincount(classes.reshape(-1)))
    order = np.zeros(int(seen[-1]) + 1, dtype=np.int64)
    order[seen] = np.arange(len(seen))
    for first in range(0, len(ids), max(1, 2**22 // len(seen))):  # bounds the memory
        last = min(len(ids), first + max(1, 2**22 // len(seen)))
        chosen = (pixels > first) & (pixels <= last)
        cells = (pixels[chosen].astype(np.int64) - 1 - first) * len(seen) + order[classes[chosen]]
        counts = np.bincount(cells, minlength=(last - first) * len(seen)).reshape(-1, len(seen))
        counts[:, seen == 0] = 0
        values[first:last] = np.where(counts.any(1), seen[counts.argmax(1)], 0)
        mixed = (counts > 0).sum(1) > 1
        if mixed.any():
            problem = f"the objects {', '.join(map(str, ids[first:last][mixed][:6]))} have several classes; most of their pixels decide"
            problems.add("objects of several classes", root / pair.numbers, problem)
    if (values == 0).any():
        shown = ", ".join(map(str, ids[values == 0][:6]))
        problems.add("objects without a class", root / pair.numbers, f"the objects {shown} have no class in {pair.classes}; skipped")
    keep = values > 0
    return _Objects(values[keep], boxes[keep], [c for c, k in zip(codes, keep, strict=True) if k]), size


def _read_values(root: Path, path: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint16; the border of a palette file is 0."""
    file = inside(root, path, source=root)
    values = read_mask(file)
    if values.shape != size:
        raise DataError(file, f"is {values.shape[1]}x{values.shape[0]}, its image {size[1]}x{size[0]}", hint="the image is skipped")
    if values.min() < 0 or values.max() > 65535:
        raise DataError(file, "holds numbers outside 0..65535", hint="the image is skipped")
    values = values.astype(np.uint16)
    if is_indexed(file):
        values[values == _BORDER] = 0
    return values


def _objects(numbers: np.ndarray, file: Path) -> tuple[np.ndarray, np.ndarray, list[dict[str, object]], np.ndarray]:
    """Numbers, boxes, codes of the objects, and (H, W) int32 1 + position of the object at each pixel."""
    height, width = numbers.shape
    flat = np.ascontiguousarray(numbers.T).reshape(-1)  # columns, the order of run-length codes
    change = flat[1:] != flat[:-1]
    ids = np.flatnonzero(np.bincount(flat, minlength=1))
    ids = ids[ids > 0]
    if len(ids) > MOST_OBJECTS or np.count_nonzero(change) > MOST_RUNS:
        raise DataError(file, f"holds {len(ids)} numbers: not one for each object", hint="the image is skipped")
    place = np.zeros(65536, dtype=np.int32)
    place[ids] = np.arange(1, len(ids) + 1)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    ends = np.append(starts[1:], len(flat))
    owner = place[flat[starts]]
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner == 0) :]
    starts, ends, owner = starts[order], ends[order], owner[order]
    if not len(ids):
        return ids, np.zeros((0, 4), dtype=np.float32), [], np.zeros(numbers.shape, dtype=np.int32)
    first = np.searchsorted(owner, np.arange(1, len(ids) + 1))
    left, right, top, bottom = starts // height, (ends - 1) // height, starts % height, (ends - 1) % height
    over = left != right  # a run that goes on in the next column touches both the lower and the upper border
    top, bottom = np.where(over, 0, top), np.where(over, height - 1, bottom)
    least, most = np.minimum.reduceat, np.maximum.reduceat
    boxes = np.stack([least(left, first), least(top, first), most(right, first) + 1, most(bottom, first) + 1], axis=1).astype(np.float32)
    codes = []
    for a, b in zip(first, np.append(first[1:], len(owner)), strict=True):
        edges = np.stack([starts[a:b], ends[a:b]], axis=1).reshape(-1)
        codes.append(_code(np.diff(edges, prepend=0, append=len(flat)), height, width))
    return ids, boxes, codes, place[numbers]


def _code(runs: np.ndarray, height: int, width: int) -> dict[str, object]:
    """COCO's compressed run-length code."""
    from faster_coco_eval.core import mask as coco_mask

    runs = runs[:-1] if runs[-1] == 0 else runs
    counts = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)["counts"]
    return {"size": [height, width], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _class_names(root: Path, pairs: Sequence[_Pair], thousands: bool, used: list[int]) -> dict[int, str]:
    """Name by class value, in order of the labels."""
    table = find_class_table(root)
    classed = thousands or any(p.classes for p in pairs)
    if table is not None and (classed or len(table.entries) == 1):
        return {v: n for v, n in table.entries if v > 0} if classed else {1: table.names[0]}
    if thousands:
        known = dict(enumerate(_CITYSCAPES, 24)) if all("_gtfine" in p.numbers.lower() for p in pairs) else {}
    elif not classed:
        known = {1: "object"}
    else:
        known = dict(enumerate(_VOC, 1)) if any(p.classes and "segmentationclass" in p.classes.lower().split("/") for p in pairs) else {}
    return known if known and set(used) <= known.keys() else {v: known.get(v, str(v)) for v in used}


def _splits(root: Path, images: list[str], problems: Problems) -> dict[str, np.ndarray]:
    """By VOC's lists, else by folders."""
    splits: dict[str, list[int]] = {}
    stems = {os.path.splitext(path.rpartition("/")[2])[0]: k for k, path in enumerate(images)}
    for file in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        try:
            lines = read_text(file).split("\n")
        except DataError as error:
            problems.add("lists that cannot be read", error.path, error.problem, where=error.where)
            continue
        members: dict[int, None] = {}
        for number, line in enumerate(lines, 1):
            name = line.strip()
            if name in stems:
                members[stems[name]] = None
            elif name:
                problems.add("lines without their image", file, f"names {name[:80]!r}, which has no image here", where=f"line {number}")
        if members:
            splits[split_name(file.stem)] = list(members)
    if not splits:
        for k, path in enumerate(images):
            for part in path.split("/")[:-1]:
                if is_split(part):
                    splits.setdefault(split_name(part), []).append(k)
                    break
    return {s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=split_rank)}


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``images/``, ``instances/`` (16-bit PNG, object k has the number k + 1), ``classes/`` (label + 1) and ``classes.json``.

    Each with folders of splits. Where objects overlap, the smaller one has the pixel.

    Raises:
        UsageError: there are boxes, and none has an outline.
    """
    index = dataset.index
    records = [r for _, r in unique_records(dataset)]
    if any(r.boxes is not None and len(r.boxes) for r in records) and not any(s is not None for r in records for s in r.segments or ()):
        raise UsageError(f"{TITLE} holds outlines of objects; these data have boxes only")
    losses = count_losses(dataset, TITLE, set(HOLDS))
    names = file_names(dataset, flat=True)
    by_split = splits_of(dataset)
    seen: set[int] = set()
    twice = bare = cut = hidden = moved = 0
    for split, members in by_split.items():
        for number in members:
            if number in seen:
                twice += 1
                continue
            seen.add(number)
            record = index.records[number]
            place = Path(split if is_split(split) else "") / names[number]
            copy_image(dataset, record, out / "images" / place)
            numbers, counts = _paint(record, image_hw(dataset, record))
            bare, cut, hidden, moved = (a + b for a, b in zip((bare, cut, hidden, moved), counts, strict=True))
            values = np.zeros(int(numbers.max(initial=0)) + 1, dtype=np.uint16)
            values[1:] = np.asarray(record.labels if record.labels is not None else (), dtype=np.int64)[: len(values) - 1] + 1
            for folder, array in (("instances", numbers), ("classes", values[numbers])):
                target = (out / folder / place).with_suffix(".png")
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(target, format="PNG")
    table = {"classes": {str(k + 1): name for k, name in enumerate(index.classes)}}
    (out / TABLE_NAMES[0]).write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    losses += split_losses(by_split, twice)
    if bare:
        losses.append(f"{bare} boxes of objects without an outline are left out")
    if hidden:
        losses.append(f"{hidden} boxes and outlines of objects that others cover wholly are left out")
    if cut:
        losses.append(f"{cut} outlines lose the pixels that smaller objects cover: a PNG holds one object a pixel")
    if moved:
        losses.append(f"{moved} boxes become the extent of their outlines' pixels")
    return losses


def _paint(record: Record, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """(H, W) uint16 numbers; objects without an outline, cut, hidden, and boxes that change."""
    segments = record.segments or []
    count = 0 if record.boxes is None else len(record.boxes)
    if count > 65535:
        raise DataError(record.path, f"holds {count} objects; 16 bits number 65535")
    numbers = np.zeros(size, dtype=np.uint16)
    areas = np.zeros(count, dtype=np.int64)
    masks: dict[int, np.ndarray] = {}
    for k, segment in enumerate(segments):
        try:
            mask = rasterize(segment, size) if segment is not None else np.zeros(size, dtype=bool)
        except ValueError as error:
            raise DataError(record.path, str(error), where=f"object {k + 1}") from None
        areas[k] = mask.sum()
        masks[k] = np.packbits(mask)
    for k in np.argsort(-areas, kind="stable").tolist():
        if areas[k]:
            numbers[np.unpackbits(masks[k], count=numbers.size).astype(bool).reshape(size)] = k + 1
    kept = np.bincount(numbers.reshape(-1), minlength=count + 1)[1:]
    bare = int((areas == 0).sum())
    hidden = int(((kept == 0) & (areas > 0)).sum())
    cut = int(((kept < areas) & (kept > 0)).sum())
    ids, boxes, _, _ = _objects(numbers, Path(record.path)) if numbers.any() else (np.zeros(0, int), np.zeros((0, 4)), [], None)
    stated = np.asarray(record.boxes if record.boxes is not None else np.zeros((0, 4)), dtype=np.float64).reshape(-1, 4)
    moved = int((np.abs(stated[ids - 1] - boxes) > 1e-3).any(1).sum())
    return numbers, (bare, cut, hidden, moved)
