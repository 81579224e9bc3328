"""COCO JSON written: what :mod:`saccade.data.formats.coco` reads, and what its relatives share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.rle import code_text, rle_area
from saccade.data.polygons import polygon_area
from saccade.data.records import Record

HOLDS = frozenset({"boxes", "crowd", "segments", "keypoints", "captions"})


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``annotations/*.json`` and ``images/``; returns what was lost, in words.

    ``instances_SPLIT.json`` (or ``instances.json``) always, ``person_keypoints_SPLIT.json`` and ``captions_SPLIT.json``
    when there are key points or captions. Reading it back gives the same records.
    """
    index = dataset.index
    lost = fs.count_losses(dataset, "COCO JSON", set(HOLDS))
    records = dict(fs.unique_records(dataset))
    entries = image_entries(dataset, out, lost)
    categories = category_entries(dataset)
    counter = {"object": 0, "caption": 0}
    captioned = any(r.captions is not None for r in records.values())
    boxed = any(r.boxes is not None for r in records.values()) or not captioned
    category_ids = [c["id"] for c in categories]
    objects = {i: object_entries(r, entries[i]["id"], category_ids, counter) for i, r in records.items()}
    pointed = {o["category_id"] for many in objects.values() for o in many if "keypoints" in o}
    skeleton = [{"skeleton": [], **c, "keypoints": list(index.keypoint_names)} for c in categories if c["id"] in pointed]
    for split, members in fs.splits_of(dataset).items():
        images = [entries[i] for i in members]
        here = [o for i in members for o in objects[i]]
        plain = [{k: v for k, v in o.items() if k not in ("keypoints", "num_keypoints")} for o in here]
        if boxed:
            dump(out, "instances", split, {"images": images, "annotations": plain, "categories": categories})
        if skeleton:
            posed = [o for o in here if "keypoints" in o]
            dump(out, "person_keypoints", split, {"images": images, "annotations": posed, "categories": skeleton})
        if captioned:
            texts = []
            for i in members:
                for text in records[i].captions or ():
                    counter["caption"] += 1
                    texts.append({"id": counter["caption"], "image_id": entries[i]["id"], "caption": text})
            dump(out, "captions", split, {"images": images, "annotations": texts})
    return lost


def image_entries(dataset: Dataset, out: Path, lost: list[str], folder: str = "images") -> dict[int, dict[str, Any]]:
    """Copy the images and give their entries ``{"id", "file_name", "height", "width"}`` by number in the index.

    Ids stay when all are numbers; else they are 1, 2, ..., and ``lost`` says so.
    """
    names = fs.file_names(dataset, flat=False)
    records = dict(fs.unique_records(dataset))
    numeric = all(re.fullmatch(r"0|[1-9]\d{0,17}", r.image_id) for r in records.values())
    if not numeric:
        lost.append(f"{len(records)} image ids are not numbers: they become 1 to {len(records)}")
    entries = {}
    for n, (i, record) in enumerate(records.items(), 1):
        fs.copy_image(dataset, record, out / folder / names[i])
        height, width = fs.image_hw(dataset, record)
        entries[i] = {"id": int(record.image_id) if numeric else n, "file_name": names[i], "height": height, "width": width}
    return entries


def category_entries(dataset: Dataset, defaults: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Categories with what the index knows of them beside id and name, and the defaults for what it does not."""
    index = dataset.index
    info = index.extra.get("categories", {})
    ids = index.category_ids or list(range(1, len(index.classes) + 1))
    base = {"supercategory": ""} if defaults is None else dict(defaults)
    return [{"id": i, "name": n, **base, **info.get(n, {})} for i, n in zip(ids, index.classes, strict=True)]


def dump(out: Path, kind: str, split: str, data: dict[str, Any]) -> None:
    """``annotations/KIND_SPLIT.json``."""
    name = f"{kind}_{split}.json" if split else f"{kind}.json"
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    with (out / "annotations" / name).open("w", encoding="utf-8") as file:
        file.write(json.dumps({"info": {"description": "written by saccade"}, "licenses": [], **data}, allow_nan=False))


def object_entries(record: Record, image_id: int, category_ids: list[int], counter: dict[str, int]) -> list[dict[str, Any]]:
    """The annotations of a record; ``counter["object"]`` numbers them."""
    if record.boxes is None:
        return []
    sides = box_sides(np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4))
    area = (record.extra or {}).get("area")
    out = []
    for k, (box, label) in enumerate(zip(sides.tolist(), np.asarray(record.labels).tolist(), strict=True)):
        counter["object"] += 1
        segment = record.segments[k] if record.segments is not None else None
        entry: dict[str, Any] = {"id": counter["object"], "image_id": image_id, "category_id": category_ids[label], "bbox": box}
        entry["area"] = float(area[k]) if area is not None else _area(box, segment)
        entry["iscrowd"] = int(record.iscrowd[k]) if record.iscrowd is not None else 0
        if segment is not None:
            entry["segmentation"] = segment_entry(segment)
        if record.keypoints is not None and np.any(record.keypoints[k]):
            entry["keypoints"] = plain_numbers(record.keypoints[k])
            entry["num_keypoints"] = int((record.keypoints[k, :, 2] > 0).sum())
        out.append(entry)
    return out


def segment_entry(segment: Any) -> Any:
    """Polygons as lists of numbers, or a run-length code, for JSON."""
    if isinstance(segment, dict):
        return code_text(segment)
    return [fs.shorten(np.asarray(p).reshape(-1)).tolist() for p in segment]


def plain_numbers(values: np.ndarray) -> list[float]:
    """A flat list with few digits, whole numbers without a point."""
    return [int(v) if v == int(v) else v for v in fs.shorten(np.asarray(values).reshape(-1)).tolist()]


def box_sides(boxes: np.ndarray) -> np.ndarray:
    """x, y, width, height of (N, 4) float32 edges, with few digits where they read back as the same edges."""
    start, exact = fs.shorten(boxes[:, :2]), boxes[:, 2:] - boxes[:, :2]
    short = np.round(boxes[:, 2:] - start, 4)
    same = ((start + short).astype(np.float32) == boxes[:, 2:].astype(np.float32)).all(1, keepdims=True)
    return np.hstack([np.where(same, start, boxes[:, :2]), np.where(same, short, exact)])


def _area(box: list[float], segment: Any) -> float:
    """Of the polygons, of the code by its runs, else of the box."""
    if isinstance(segment, dict):
        return rle_area(segment)
    return box[2] * box[3] if segment is None else polygon_area(segment)
