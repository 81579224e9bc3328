"""MPII human pose as a JSON list: a dict a person with joints, a centre and a scale. Read and written.

Read: a JSON file, or a folder with one a split (``train.json``, ``valid.json``, ...; in ``annot/``, ``annotations/`` or in the folder
itself) and images in ``images/`` or beside it.

Conventions:

* ``joints`` x, y are taken as they are (MPII itself counts pixels from 1); ``joints_vis`` 1 becomes visibility 2, 0 an unlabelled
  point (0, 0, 0). 16 joints have MPII's names and mirror partners, any other number is called by number.
* **Boxes.** MPII states none: a person's box is the square of ``scale`` times 200 pixels around ``center``, cut off at the image's edge.
  It is near the person's height, so that a foot may stand out of it (pose networks enlarge it by a quarter).
  ``record.extra["center"]`` (N, 2) and ``["scale"]`` (N,) keep the numbers for writing back.
* The persons of an image are its objects, in order; one class, ``person``; the image's id is its name without suffix.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.coco_files import JsonFile, find_files, named, reason_of
from saccade.data.formats.coco_objects import LIMIT, is_number
from saccade.data.formats.coco_points import MOST_POINTS, mirror_permutation
from saccade.data.formats.coco_write import plain_numbers
from saccade.data.formats.scan import Problems
from saccade.data.images import image_size
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "mpii"
TITLE = "MPII JSON"
TASKS = ("pose", "detect")
HOLDS = frozenset({"boxes", "keypoints"})

JOINTS = [
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck", "head_top",
    "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
]  # fmt: skip
"""MPII's 16 joints."""

SIDE = 200.0
"""Pixels of a box of scale 1."""

_FILE = re.compile(r"(?:test_)?mpii(?:_(.*))?$", re.IGNORECASE)
_START = re.compile(rb"\s*\[\s*\{")


class _Person(NamedTuple):
    points: np.ndarray  # (K, 3) float32
    center: tuple[float, float]
    scale: float


def sniff(root: Path) -> str | None:
    """Why this looks like MPII, or None."""
    root = Path(root)
    if root.is_file():
        return "a JSON list with joints_vis, center and scale" if root.suffix.lower() == ".json" and _looks_like_mpii(root) else None
    return reason_of(_discover(root), "MPII JSON")


def _looks_like_mpii(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            text = file.read(1 << 14)
    except OSError:
        return False
    return _START.match(text) is not None and all(key in text for key in (b'"joints"', b'"joints_vis"', b'"image"'))


def _discover(root: Path) -> list[JsonFile]:
    return find_files((root / "annot", root / "annotations", root), _FILE, _looks_like_mpii)


def read(root: Path, *, images: str = "") -> DataIndex:
    """The data set of an MPII JSON file or folder.

    Args:
        root: the JSON file or the folder.
        images: folder of the images, relative to the data root, when it is not found by itself.

    Raises:
        DataError: no MPII JSON, broken JSON, or not one usable image.
    """
    root = Path(root)
    if root.is_file():
        found, base = [named(root, 1, _FILE)], root.parent.parent if root.parent.name in ("annot", "annotations") else root.parent
    else:
        found, base = _discover(root), root
        if not found:
            raise DataError(root, "holds no MPII JSON", hint='expected a list of {"image", "joints", "joints_vis", "center", "scale"}')
    problems = Problems(base)
    people: dict[str, list[_Person]] = {}
    source: dict[str, Path] = {}
    splits: dict[str, dict[str, None]] = {}
    joints = -1
    for file in found:
        beside = file.path.parent.relative_to(base).as_posix() if file.path.parent.is_relative_to(base) else ""
        finder = fs.ImageFinder(base, [images] if images else ["images", "", beside, f"images/{file.raw_split}"])
        data = fs.read_json(file.path)
        if not isinstance(data, list):
            raise DataError(file.path, "is not MPII: it is no list of persons")
        for k, item in enumerate(data):
            where = f"[{k}]"
            try:
                person, name = _person(file.path, where, item), item["image"]
                path = finder.find(name, source=file.path, where=where)
                if path is None:
                    raise DataError(file.path, f"image {fs.shown(name)} is missing; the person is dropped", where=where)
                joints = len(person.points) if joints < 0 else joints
                if len(person.points) != joints:
                    problem = f"has {len(person.points)} joints, the first person {joints}; the person is skipped"
                    raise DataError(file.path, problem, where=where)
            except DataError as error:
                problems.add("persons that are skipped", error.path, error.problem, where=error.where, hint=error.hint)
                continue
            if source.setdefault(path, file.path) == file.path:  # trainval.json repeats train.json and valid.json
                people.setdefault(path, []).append(person)
            if file.split:
                splits.setdefault(file.split, {})[path] = None
    records = [r for path, many in people.items() if (r := _record(base, path, many, problems)) is not None]
    if not records:
        raise DataError(root, "not one usable image is found", hint=str(next(iter(problems.list()), "the list is empty")))
    place = {r.path: k for k, r in enumerate(records)}
    stems = Counter(r.image_id for r in records)
    for record in records:
        if stems[record.image_id] > 1:
            record.image_id = record.path
    names = JOINTS if joints == len(JOINTS) else [str(k) for k in range(joints)]
    return DataIndex(
        NAME, base, ["person"], PackedRecords(records),
        splits={s: np.array([place[p] for p in splits[s] if p in place], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS if joints else ("detect",), problems=problems.list(), reason=reason_of(found, "MPII JSON") or "",
        keypoint_names=list(names), keypoint_swap=mirror_permutation(names),
    )  # fmt: skip


def _person(file: Path, where: str, item: Any) -> _Person:
    """One person, or a DataError."""
    if not isinstance(item, dict) or not isinstance(item.get("image"), str):
        raise DataError(file, "is no person with an image; it is skipped", where=where)
    center, scale = item.get("center"), item.get("scale")
    if not isinstance(center, list) or len(center) != 2 or not all(is_number(v) and abs(v) < LIMIT for v in center):
        raise DataError(file, f"has no center x, y but {fs.shown(center)}; the person is skipped", where=where)
    if not is_number(scale) or not 0 < scale * SIDE < LIMIT:
        raise DataError(file, f"has no positive scale but {fs.shown(scale)}; the person is skipped", where=where)
    joints, seen = item.get("joints"), item.get("joints_vis")
    if not isinstance(joints, list) or not isinstance(seen, list) or len(joints) != len(seen) or len(seen) > MOST_POINTS:
        raise DataError(file, "has no joints with a joints_vis each; the person is skipped", where=where)
    for joint, flag in zip(joints, seen, strict=True):
        sound = isinstance(joint, list) and len(joint) == 2 and all(is_number(v) and abs(v) < LIMIT for v in joint)
        if not sound or not is_number(flag) or flag not in (0, 1):
            raise DataError(file, f"has the joint {fs.shown(joint)} of visibility {fs.shown(flag)}; the person is skipped", where=where)
    points = np.zeros((len(joints), 3), dtype=np.float32)
    for row, joint, flag in zip(points, joints, seen, strict=True):
        if flag:
            row[:] = *joint, 2
    return _Person(points, (float(center[0]), float(center[1])), float(scale))


def _record(base: Path, path: str, people: list[_Person], problems: Problems) -> Record | None:
    """The image with those persons whose square meets it."""
    try:
        size = image_size(base / path)
    except DataError as error:
        problems.add("images that cannot be read", error.path, error.problem, hint="the image is dropped")
        return None
    center = np.array([p.center for p in people])
    scale = np.array([p.scale for p in people])
    boxes = _squares(center, scale, size)
    good = (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not good.all():
        problems.add("images with persons outside", base / path, f"{int((~good).sum())} persons lie outside the image; they are skipped")
        if not good.any():
            return None
    points = np.stack([p.points for p in people])[good]
    return Record(
        path, os.path.splitext(os.path.basename(path))[0], size, boxes=boxes[good], labels=np.zeros(int(good.sum()), np.int64),
        keypoints=points if points.shape[1] else None, extra={"center": center[good], "scale": scale[good]},
    )  # fmt: skip


def _squares(center: np.ndarray, scale: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, 4) float32 boxes inside the image."""
    half = scale[:, None] * (SIDE / 2)
    height, width = size
    return np.hstack([center - half, center + half]).clip(0, [width, height, width, height]).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``annot/SPLIT.json`` (``annot/mpii.json`` without splits) and ``images/``; returns what was lost, in words.

    Boxes that were not read from MPII become the squares around them.
    """
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    names = fs.file_names(dataset, flat=False)
    records = dict(fs.unique_records(dataset))
    empty = {i for i, r in records.items() if r.boxes is None or not len(r.boxes)}
    if empty:
        lost.append(f"{len(empty)} images without a person are lost: {TITLE} has an entry a person")
    if dataset.classes != ["person"]:
        lost.append(f"{len(dataset.classes)} classes become one, person: {TITLE} has no classes")
    renamed = sum(Path(names[i]).stem != r.image_id for i, r in records.items() if i not in empty)
    if renamed:
        lost.append(f"{renamed} image ids change to the stems of their files")
    counts = {"squared": 0, "hidden": 0}
    rows = {i: _rows(dataset, r, names[i], counts) for i, r in records.items() if i not in empty}
    for i in rows:
        fs.copy_image(dataset, records[i], out / "images" / names[i])
    (out / "annot").mkdir(parents=True, exist_ok=True)
    for split, members in fs.splits_of(dataset).items():
        text = json.dumps([row for i in members if i in rows for row in rows[i]], allow_nan=False)
        (out / "annot" / f"{split or 'mpii'}.json").write_text(text, encoding="utf-8")
    if counts["squared"]:
        lost.append(f"{counts['squared']} boxes become squares: {TITLE} has a centre and a scale")
    if counts["hidden"]:
        lost.append(f"{counts['hidden']} hidden key points become visible ones: {TITLE} tells labelled points only")
    return lost


def _rows(dataset: Dataset, record: Record, name: str, counts: dict[str, int]) -> list[dict[str, Any]]:
    boxes = np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4)
    size = fs.image_hw(dataset, record)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    center, scale = (boxes[:, :2] + boxes[:, 2:]) / 2, sides / SIDE
    extra = record.extra or {}
    if len(extra.get("center", ())) == len(extra.get("scale", ())) == len(boxes):
        # still those of the boxes, which may have been moved since
        same = np.abs(_squares(extra["center"], extra["scale"], size) - boxes).max(1, keepdims=True) < 1e-3
        center, scale = np.where(same, extra["center"], center), np.where(same[:, 0], extra["scale"], scale)
    counts["squared"] += int((np.abs(_squares(center, scale, size) - boxes).max(1) >= 1e-3).sum())
    points = record.keypoints if record.keypoints is not None else np.zeros((len(boxes), 0, 3), np.float32)
    counts["hidden"] += int((points[..., 2] == 1).sum())
    rows = []
    for k, person in enumerate(points):
        seen = (person[:, 2] > 0).astype(int).tolist()
        joints = [plain_numbers(xy) if flag else [-1, -1] for xy, flag in zip(person[:, :2], seen, strict=True)]
        rows.append({"image": name, "joints": joints, "joints_vis": seen, "center": center[k].tolist(), "scale": float(scale[k])})
    return rows
