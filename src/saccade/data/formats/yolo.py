"""YOLO text labels: a file an image, a line an object, numbers in fractions of the image. Read and written.

Read: ``images/[SPLIT/]`` with ``labels/[SPLIT/]`` (``labels`` may also stand in a folder of its own, ``detection/labels``);
``SPLIT/images`` with ``SPLIT/labels``; or labels beside the images (Darknet). Names come from ``data.yaml``, ``config.yaml``
or another YAML with ``names``, from ``classes.txt``, ``obj.names`` or another ``*.names``.

Conventions:

* ``class cx cy w h``: five numbers are a box; ``class x1 y1 x2 y2 x3 y3 ...``: an even number of six or more is a polygon,
  whose box is its extent. Fractions are of the image's width and height as its header states them.
* **Key points.** With ``kpt_shape: [K, 3]`` or ``[K, 2]`` in the YAML a line is ``class cx cy w h x1 y1 [v1] ...``; five numbers are a
  box without points. Visibility is 0, 1 or 2; without it a point at 0 0 is not marked, others are visible. A point farther from
  the image than its own size is unmarked and reported. ``flip_idx`` is the permutation under a mirror, ``kpt_names`` the names (a list, or
  a list for each class id).
* **Classes.** Ids of ``names`` may have gaps (a mapping): labels are 0..K-1 in their order, ``category_ids`` keeps the ids.
  Without names every id up to the largest is a class, called by its number. A line whose id has no name is skipped and reported;
  when these are more than the others, the names belong to other data, and that is a DataError. So is an ``nc`` that contradicts ``names``.
* **Range.** An edge over the border by up to a thousandth is rounding and clipped without a word; a centre, side or corner out of
  0..1 by up to a tenth is clipped and reported; beyond (pixels instead of fractions, mostly) the object is skipped and reported.
* An image without a label file has no objects (``skip_if_label_file_missing: true`` in the YAML leaves it out). A label file
  without an image is reported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.yolo_layout import (
    KeyPoints,
    find_layout,
    image_files,
    key_points,
    label_files,
    label_names,
    list_splits,
    read_names,
    split_of,
)
from saccade.data.images import image_size
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "yolo"
TITLE = "YOLO text labels"
TASKS = ("detect", "pose")
HOLDS = frozenset({"boxes", "segments", "keypoints"})

_ROUNDING, _SLIP = 1e-3, 0.1


def sniff(root: Path) -> str | None:
    """Why this looks like YOLO, or None."""
    root = Path(root)
    layout = find_layout(root, "") if root.is_dir() else None
    if layout is None:
        return None
    count = sum(1 for _, labels in layout.pairs for _ in label_names(root / labels))
    return f"{count} label file{'s' * (count != 1)} of lines 'class x y w h' in {layout.pairs[0][1] or '.'}"


def read(root: Path, *, labels: str = "") -> DataIndex:
    """The data set of a YOLO folder.

    Args:
        root: the folder.
        labels: folder of the labels relative to the root, when there are several beside one ``images``.

    Raises:
        DataError: no YOLO labels, names that do not fit, or not one usable image.
    """
    root = Path(root)
    layout = (find_layout(root, labels) or find_layout(root, labels, strict=False)) if root.is_dir() else None
    if layout is None:
        known = sorted(p.parent.name for p in root.glob("*/labels")) if root.is_dir() else []
        hint = f"labels= takes one of {', '.join(known)}" if known else "expected images/ and labels/ with 'class x y w h' lines"
        raise DataError(root, "holds no YOLO labels", hint=hint)
    problems: list[DataError] = []
    names, config, names_file = read_names(root, layout.name_folders)
    drop_unlabelled = config.get("skip_if_label_file_missing") is True
    points = key_points(config, names_file, problems)
    found: list[tuple[Record, np.ndarray]] = []
    splits: dict[str, list[int]] = {}
    reader = _Lines(set(names) if names else None, points, problems)
    for images, label_folder in layout.pairs:
        used = set()
        for path in image_files(root, images):
            relative = os.path.relpath(path, root / images) if images else os.path.relpath(path, root)
            stem = os.path.splitext(relative)[0].replace(os.sep, "/")
            file = root / label_folder / f"{stem}.txt"
            if not file.is_file():
                if drop_unlabelled:
                    continue
                file = None
            else:
                used.add(file)
            try:
                record, ids = reader.image(root, path, file)
            except DataError as error:
                problems.append(error)
                continue
            split = split_of(images, stem)
            if split:
                splits.setdefault(split, []).append(len(found))
            found.append((record, ids))
        orphans = [f for f in label_files(root / label_folder) if f not in used and images != label_folder]
        problems += [DataError(f, "has no image; its lines are skipped") for f in orphans]
    if not found:
        raise DataError(root, "not one usable image is found", hint=str(problems[0]) if problems else f"looked in {layout.pairs[0][0]}")
    if reader.unnamed > reader.named:
        total = reader.named + reader.unnamed
        problem = f"names {len(names)} classes, but {reader.unnamed} of {total} objects have other ids (the first: {reader.first_unnamed})"
        raise DataError(names_file or root, problem, hint="these names belong to other data")
    category_ids = sorted(names) if names else list(range(max((int(ids.max(initial=-1)) for _, ids in found), default=-1) + 1))
    table = np.array(category_ids, dtype=np.int64)
    any_polygon = any(s is not None for r, _ in found for s in r.segments or ())
    for record, ids in found:
        record.labels = np.searchsorted(table, ids)
        if not any_polygon:
            record.segments = None
    _unique_ids([r for r, _ in found])
    classes = fs.unique_names(names) if names else [str(i) for i in category_ids]
    if len(set(names.values())) < len(names):
        problems.append(DataError(names_file or root, "gives several classes one name; their ids are put behind it"))
    splits = splits or list_splits(root, config, [r for r, _ in found], problems)
    posed = points is not None and points.count > 0
    return DataIndex(
        NAME, root, classes, PackedRecords(r for r, _ in found),
        splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS if posed else TASKS[:1], problems=problems, reason=sniff(root) if not labels else f"labels in {layout.pairs[0][1]}",
        category_ids=category_ids, keypoint_names=points.names if points else [], keypoint_swap=points.swap if points else [],
    )  # fmt: skip


def _unique_ids(records: list[Record]) -> None:
    """The stem where it is unique, else the path."""
    counts: dict[str, int] = {}
    for r in records:
        counts[r.image_id] = counts.get(r.image_id, 0) + 1
    for r in records:
        if counts[r.image_id] > 1:
            r.image_id = r.path


# ---------------------------------------------------------------------------------------------------------------- lines


class _Object(NamedTuple):
    """One line: class id, XYXY, polygon (P, 2) and key points (K, 3), in fractions of the image."""

    number: int
    box: np.ndarray
    polygon: np.ndarray | None
    points: np.ndarray | None


class _Lines:
    """Reads label files; counts the objects with and without a name."""

    def __init__(self, known: set[int] | None, points: KeyPoints | None, problems: list[DataError]) -> None:
        self.known, self.points, self.problems = known, points, problems
        self.named = self.unnamed = 0
        self.first_unnamed: int | None = None

    def image(self, root: Path, path: Path, file: Path | None) -> tuple[Record, np.ndarray]:
        """Record (labels still empty) and (N,) class ids."""
        size = image_size(path)
        scale = np.array([size[1], size[0]], dtype=np.float64)
        count = self.points.count if self.points else 0
        ids: list[int] = []
        boxes: list[np.ndarray] = []
        segments: list[Any] = []
        points: list[np.ndarray] = []
        for number, line in enumerate(fs.read_text(file).splitlines() if file is not None else (), 1):
            row = line.split()
            got = self._line(row, file, f"line {number}") if row else None
            if got is not None:
                ids.append(got.number)
                boxes.append((got.box.reshape(2, 2) * scale).reshape(4))
                segments.append(None if got.polygon is None else [(got.polygon * scale).astype(np.float32)])
                points.append(np.zeros((count, 3)) if got.points is None else got.points * [*scale, 1])
        relative = os.path.relpath(path, root).replace(os.sep, "/")
        array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        keep = (array[:, 2:] > array[:, :2]).all(1)  # float32 may close a box that float64 keeps open
        if not keep.all():
            self.problems.append(DataError(file or path, f"{int((~keep).sum())} boxes are too small for a pixel grid; they are skipped"))
            segments = [s for s, k in zip(segments, keep, strict=True) if k]
        record = Record(relative, path.stem, size, boxes=array[keep], segments=segments)
        if count:
            record.keypoints = np.array(points, dtype=np.float32).reshape(-1, count, 3)[keep]
        return record, np.array(ids, dtype=np.int64)[keep]

    def _line(self, row: list[str], file: Path | None, where: str) -> _Object | None:
        """The object of a line; None when skipped (reported)."""
        assert file is not None

        def skip(why: str) -> None:
            self.problems.append(DataError(file, f"{why}; it is skipped", where=where))

        try:
            number = float(row[0])
            values = np.array(row[1:], dtype=np.float64)
        except (ValueError, OverflowError):
            return skip(f"is not numbers: {' '.join(row)[:60]!r}")
        points = None
        if self.points is not None:
            values, points = values[:4], values[4:]
        if not (number == number // 1 and 0 <= number < 2**31):
            return skip(f"the class id {fs.shown(row[0])} is not a whole number from 0")
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            return skip(f"has {len(row)} numbers: five make a box, an odd seven or more a polygon")
        if not np.isfinite(values).all():
            return skip("holds NaN or infinity")
        if values.min() < -_SLIP or values.max() > 1 + _SLIP:
            return skip(f"holds {values[np.abs(values - 0.5).argmax()]:g}, out of 0..1 (pixels instead of fractions?)")
        polygon = None
        if len(values) == 4:
            if not (values[2:] > 0).all():
                return skip("the box has no area")
            box = np.concatenate([values[:2] - values[2:] / 2, values[:2] + values[2:] / 2])
        else:
            polygon = values.reshape(-1, 2)
            box = np.concatenate([polygon.min(0), polygon.max(0)])
            polygon = polygon.clip(0, 1)
        clipped = box.clip(0, 1)
        if not (clipped[2:] > clipped[:2]).all():
            return skip("the object has no area inside the image")
        if self.known is not None and int(number) not in self.known:
            self.unnamed += 1
            self.first_unnamed = int(number) if self.first_unnamed is None else self.first_unnamed
            return skip(f"the class id {int(number)} has no name")
        self.named += 1
        if np.abs(clipped - box).max() > _ROUNDING:
            self.problems.append(DataError(file, "the object leaves the image; it is clipped", where=where))
        return _Object(int(number), clipped, polygon, None if points is None else self._points(points, file, where))

    def _points(self, values: np.ndarray, file: Path, where: str) -> np.ndarray | None:
        """(K, 3) x, y and visibility of the numbers behind a box; None when there are none, or a wrong number of them (reported)."""
        assert self.points is not None
        count, numbers = self.points.count, self.points.numbers
        if not count or not len(values):
            return None
        if len(values) != count * numbers:
            problem = f"has {len(values)} numbers behind the box, {count} key points of {numbers} make {count * numbers}"
            self.problems.append(DataError(file, f"{problem}; they are left out", where=where))
            return None
        points = np.full((count, 3), 2.0)
        points[:, :numbers] = values.reshape(count, numbers)
        if numbers == 2:
            points[(points[:, :2] == 0).all(1), 2] = 0
        with np.errstate(invalid="ignore"):
            usable = (np.abs(points[:, :2] - 0.5) <= 1.5).all(1) & np.isin(points[:, 2], (0, 1, 2))
        if not usable.all():
            k = int(np.flatnonzero(~usable)[0])
            shown = " ".join(f"{v:g}" for v in points[k])
            problem = (
                f"{int((~usable).sum())} key points are no fractions with visibility 0, 1 or 2 (point {k + 1}: {shown}); they are unmarked"
            )
            self.problems.append(DataError(file, problem, where=where))
            points[~usable] = 0
        return points


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``images/[SPLIT/]``, ``labels/[SPLIT/]`` and ``data.yaml``; returns what was lost, in words.

    An object with an outline becomes a polygon line (its largest polygon), else a box line. Lines hold key points instead of
    outlines when the data's main task is pose, or when there are key points and no outlines. An image of several splits
    stands in the first of them. Numbers have 10 digits, so that boxes read back to a hundred-thousandth of a pixel.
    """
    import yaml

    index = dataset.index
    ids = list(range(len(index.classes)))
    names = fs.file_names(dataset, flat=True)
    records = dict(fs.unique_records(dataset))
    count = max((r.keypoints.shape[1] for r in records.values() if r.keypoints is not None), default=0)
    outlined = any(s is not None for r in records.values() for s in r.segments or ())
    posed = count > 0 and (not outlined or index.tasks[:1] == ("pose",))
    lost = fs.count_losses(dataset, "a YOLO text label", {"boxes", "keypoints" if posed else "segments"})
    place: dict[int, str] = {}
    for split, members in sorted(fs.splits_of(dataset).items(), key=lambda s: fs.split_rank(s[0])):
        again = sum(i in place for i in members)
        if again:
            lost.append(f"{again} images of the split {split or '(none)'} are written in another split only: an image stands once")
        for i in members:
            place.setdefault(i, split)
    if any(not s for s in place.values()) and any(place.values()):
        lost.append(f"{sum(not s for s in place.values())} images of no split are written as split 'rest'")
        place = {i: s or "rest" for i, s in place.items()}
    counts = {"pieces": 0, "codes": 0, "moved": 0, "pointed": 0}
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True)
    for i, record in records.items():
        name = f"{place[i]}/{names[i]}" if place[i] else names[i]
        fs.copy_image(dataset, record, out / "images" / name)
        lines = _lines_out(record, fs.image_hw(dataset, record), posed, counts)
        target = out / "labels" / f"{os.path.splitext(name)[0]}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    config: dict[str, Any] = {"path": "."}
    config |= {s: f"images/{s}" for s in dict.fromkeys(place.values()) if s}
    config |= {"nc": len(ids), "names": dict(zip(ids, index.classes, strict=True))}
    if posed:
        config["kpt_shape"] = [count, 3]
        if len(index.keypoint_swap) == count:
            config["flip_idx"] = [int(v) for v in index.keypoint_swap]
        if len(index.keypoint_names) == count:
            config["kpt_names"] = {i: list(index.keypoint_names) for i in _pointed(records.values()) or [0]}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (out / "data.yaml").write_text(text, encoding="utf-8")
    if counts["pieces"]:
        lost.append(f"{counts['pieces']} further polygons of objects in several pieces are lost: a line holds one")
    if counts["codes"]:
        lost.append(f"{counts['codes']} run-length coded outlines are lost: their boxes are written")
    if counts["moved"]:
        lost.append(f"{counts['moved']} boxes become the extent of their polygon")
    if counts["pointed"]:
        lost.append(f"{counts['pointed']} key points farther from their image than its size are lost")
    return lost


def _pointed(records: Any) -> list[int]:
    """Labels of the objects that have key points."""
    used = [np.asarray(r.labels)[(r.keypoints[..., 2] > 0).any(1)] for r in records if r.keypoints is not None and len(r.keypoints)]
    return np.unique(np.concatenate(used)).tolist() if used else []


def _lines_out(record: Record, size: tuple[int, int], posed: bool, counts: dict[str, int]) -> list[str]:
    """Lines of an image; what they lose is added to ``counts``."""
    scale = np.array([size[1], size[0]], dtype=np.float64)
    lines = []
    for k in range(0 if record.boxes is None else len(record.boxes)):
        segment = record.segments[k] if record.segments is not None and not posed else None
        box = np.asarray(record.boxes[k], dtype=np.float64)  # type: ignore[index]
        if isinstance(segment, dict):
            counts["codes"] += 1
            segment = None
        if segment:
            counts["pieces"] += len(segment) - 1
            polygon = max((np.asarray(p, dtype=np.float64) for p in segment), key=lambda p: float(np.ptp(p, axis=0).prod()))
            polygon = polygon.clip(0, scale)
            counts["moved"] += bool(np.abs(np.concatenate([polygon.min(0), polygon.max(0)]) - box).max() > 1e-3)
            values = (polygon / scale).reshape(-1)
        else:
            corners = box.reshape(2, 2) / scale
            values = np.concatenate([corners.mean(0), corners[1] - corners[0]])
        numbers = [f"{v:.10g}" for v in values]
        if posed and record.keypoints is not None:
            points = np.asarray(record.keypoints[k], dtype=np.float64)
            marked = (np.abs(points[:, :2] / scale - 0.5) <= 1.5).all(1)
            counts["pointed"] += int((~marked & (points[:, 2] > 0)).sum())
            for x, y, v in np.where(marked[:, None], points / [*scale, 1], 0).tolist():
                numbers += [f"{x:.10g}", f"{y:.10g}", f"{v:g}"]
        lines.append(f"{int(record.labels[k])} {' '.join(numbers)}")  # type: ignore[index]
    return lines
