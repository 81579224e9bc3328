"""Data for landmarks: one set of points an image, and the points as the classes.

``load_data(..., task="landmarks")`` gives such data, so that whatever goes by class (outputs of a network, names in a bundle, numbers of a
metric, the order of names in other data) goes by point.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

TASK = "landmarks"


def as_landmarks(index: DataIndex) -> DataIndex:
    """The index with the labelled object of each image, its names of points as ``classes``, and which points a mirror exchanges.

    Objects without a labelled point are left out; an image of which none is left teaches and measures nothing.

    Raises:
        DataError: an image with several sets of points, or no image with one.
        UsageError: sets of different numbers of points.
    """
    if index.tasks[:1] == (TASK,):
        return index
    count = next((r.keypoints.shape[1] for r in index.records if r.keypoints is not None and r.keypoints.ndim == 3), 0)
    if not count:
        raise DataError(index.root, "holds no set of points")
    names = list(index.keypoint_names) or [str(k + 1) for k in range(count)]
    if len(names) != count:
        raise UsageError(f"{index.root}: {len(names)} names for {count} points")
    records = PackedRecords(_only(index, count))
    if not point_counts(records, count).any():
        raise DataError(index.root, "holds no labelled point")
    swap = list(index.keypoint_swap) or swap_by_name(names)
    return dataclasses.replace(
        index, records=records, classes=names, keypoint_names=names, keypoint_swap=swap, tasks=(TASK, "pose"), category_ids=None
    )


def _only(index: DataIndex, count: int) -> Iterator[Record]:
    """Each record with its one labelled object; label 0."""
    several: list[tuple[str, int]] = []
    for record in index.records:
        points = np.zeros((0, count, 3), np.float32) if record.keypoints is None else np.asarray(record.keypoints, np.float32)
        if points.size and points.shape[1] != count:
            raise UsageError(f"{index.root}: {record.path} has {points.shape[1]} points, other images {count}")
        points = points.reshape(-1, count, 3)
        keep = (points[..., 2] > 0).any(1)
        if record.iscrowd is not None:
            keep &= ~np.asarray(record.iscrowd, dtype=bool)
        if keep.sum() > 1:
            several.append((record.path, int(keep.sum())))
        boxes = np.zeros((0, 4), np.float32) if record.boxes is None else np.asarray(record.boxes, np.float32)[keep]
        yield Record(
            record.path, record.image_id, record.size,
            boxes=boxes, labels=np.zeros(len(boxes), dtype=np.int64), keypoints=points[keep],
        )  # fmt: skip
    if several:
        path, found = several[0]
        more = f", and {len(several) - 1} more images several" if len(several) > 1 else ""
        raise DataError(
            index.root, f"{path} has {found} sets of points{more}; landmarks are one set an image", hint="cut out each object as an image"
        )


def swap_by_name(names: Sequence[str]) -> list[int]:
    """The point that a mirror puts in each one's place, by "left" and "right" (or l, r) in the names; [] where no two are such a pair.

    >>> swap_by_name(["nose", "left_eye", "right_eye"])
    [0, 2, 1]
    """
    other = {"left": "right", "right": "left", "l": "r", "r": "l"}
    place = {name.lower(): k for k, name in enumerate(names)}
    exchanged = [re.sub(r"left|right|(?<![a-z])[lr](?![a-z])", lambda found: other[found.group()], name.lower()) for name in names]
    swap = [place.get(name, k) for k, name in enumerate(exchanged)]
    paired = sorted(swap) == list(range(len(names))) and swap != list(range(len(names)))
    return swap if paired else []


def reorder(index: DataIndex, mapping: Sequence[int], names: Sequence[str]) -> DataIndex:
    """The index with point k at place ``mapping[k]`` of ``names``; points of other places are not labelled."""

    def moved() -> Iterator[Record]:
        for record in index.records:
            assert record.keypoints is not None
            points = np.zeros((len(record.keypoints), len(names), 3), dtype=np.float32)
            points[:, list(mapping)] = record.keypoints
            record.keypoints = points
            yield record

    swap = index.keypoint_swap
    if swap:
        whole = list(range(len(names)))
        for k, partner in enumerate(swap):
            whole[mapping[k]] = mapping[partner]
        swap = whole
    return dataclasses.replace(index, records=PackedRecords(moved()), classes=list(names), keypoint_names=list(names), keypoint_swap=swap)


def point_counts(records: Iterable[Record], count: int) -> np.ndarray:
    """(K,) int64: images in which each point is labelled."""
    counts = np.zeros(count, dtype=np.int64)
    for record in records:
        if record.keypoints is not None and len(record.keypoints):
            counts += (np.asarray(record.keypoints)[..., 2] > 0).sum(0)
    return counts
