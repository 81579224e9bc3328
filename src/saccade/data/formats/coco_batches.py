"""Annotations of large COCO files, taken out of the JSON while it is read: a batch at a time becomes columns, and its dicts are freed.

``json.loads`` calls :class:`Taker` on every object as soon as it is complete. Plain annotations (a box, no key points) are replaced by
:data:`TAKEN` in the parsed JSON; whoever reads it checks that their list holds nothing else, for objects deeper in the file look alike.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np

from saccade.data.formats.coco_objects import (
    Columns,
    Known,
    Objects,
    Report,
    by_image,
    checked,
    columns_of,
    judged,
    objects_by_image,
    objects_of,
    pack_numbers,
    repeated,
)
from saccade.data.segments import Segments, joined

BATCH = 8192
"""Annotations that are held as dicts at a time."""

TAKEN = object()
"""Stands in the parsed JSON for an annotation that was taken out."""


class _Batch(NamedTuple):
    numbers: np.ndarray  # (N,) int64: places in the file
    ids: np.ndarray  # (N,) int64
    images: np.ndarray  # (N,) int64
    columns: Columns


class Taker:
    """Hook for ``json.loads``. ``count`` annotations were taken."""

    def __init__(self) -> None:
        self.count = 0
        self._pending: list[dict[str, Any]] = []
        self._batches: list[_Batch] = []
        self._odd: dict[int, dict[str, Any]] = {}  # by place in the file: to be looked at one by one

    def __call__(self, item: dict[str, Any]) -> Any:
        pack_numbers(item)
        if "image_id" not in item or "bbox" not in item or "keypoints" in item or "caption" in item:
            return item
        self._pending.append(item)
        self.count += 1
        if len(self._pending) == BATCH:
            self._flush()
        return TAKEN

    def _flush(self) -> None:
        items, self._pending = self._pending, []
        numbers = np.arange(self.count - len(items), self.count)
        try:
            columns = columns_of(items)
            if set(map(type, columns.ids)) | set(map(type, columns.images)) != {int}:
                raise TypeError("ids must be whole numbers")
            ids, images = (np.array(values, dtype=np.int64) for values in (columns.ids, columns.images))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            self._odd |= dict(zip(numbers.tolist(), items, strict=True))
            return
        self._odd |= {int(numbers[k]): items[k] for k in np.flatnonzero(columns.wrong).tolist()}
        self._batches.append(_Batch(numbers, ids, images, columns._replace(ids=[], images=[])))

    def objects_by_image(self, known: Known, report: Report) -> dict[Any, Objects]:
        """Objects of every image that has some, by the image's id; what was taken is given up."""
        if self._pending:
            self._flush()
        batches, self._batches = self._batches, []
        if not batches:
            return objects_by_image(list(self._odd.values()), known, report)
        numbers, ids, images = (np.concatenate([batch[c] for batch in batches]) for c in range(3))
        columns = _joined([batch.columns for batch in batches])
        batches.clear()
        where = _places(images, known)
        boxes, area, bad = judged(columns, where, known)
        twice = self._twice(numbers, ids)
        bad |= np.isin(numbers, list(twice))
        if bad.any() or self._odd:
            odd = self._odd | _as_stated(numbers, ids, images, columns, np.flatnonzero(bad), self._odd)
            texts = {str(image_id): image_id for image_id in known.images}
            fixed = {n: checked(odd[n], n, n in twice, texts, known, report) for n in sorted(odd)}
            mended = {n: item for n, item in fixed.items() if item is not None}
            keep = np.flatnonzero(~bad)
            good = _taken(columns, ids, boxes, area, keep)
            where, numbers = where[keep], numbers[keep]
            if mended:
                place = {image_id: k for k, image_id in enumerate(known.images)}
                also, others, _ = objects_of(list(mended.values()), place, known)
                where = np.concatenate([where, also])
                order = np.argsort(np.concatenate([numbers, list(mended)]), kind="stable")
                good, where = good.followed_by(others).take(order), where[order]
        else:
            good = Objects(ids.tolist(), columns.categories, boxes, columns.crowd, area, columns.segments, None)
        return by_image(where, good, list(known.images))

    def _twice(self, numbers: np.ndarray, ids: np.ndarray) -> set[int]:
        """Places of annotations whose id an earlier one has."""
        if not self._odd and len(np.unique(ids)) == len(ids):
            return set()
        every: list[Any] = [None] * self.count
        for n, number in zip(numbers.tolist(), ids.tolist(), strict=True):
            every[n] = number
        for n, item in self._odd.items():
            every[n] = item.get("id")
        return repeated(every)


def _joined(parts: list[Columns]) -> Columns:
    arrays = (np.concatenate([part[c] for part in parts]) for c in (2, 3, 4, 5))
    segments = None
    if any(part.segments is not None for part in parts):
        segments = joined([part.segments or Segments.none(len(part.categories)) for part in parts])
    return Columns([], [], *arrays, segments, np.concatenate([part.wrong for part in parts]))


def _taken(columns: Columns, ids: np.ndarray, boxes: np.ndarray, area: np.ndarray, keep: np.ndarray) -> Objects:
    segments = None if columns.segments is None else columns.segments.take(keep)
    return Objects(ids[keep].tolist(), columns.categories[keep], boxes[keep], columns.crowd[keep], area[keep], segments, None)


def _places(images: np.ndarray, known: Known) -> np.ndarray:
    """Number of each object's image, -1 for an unknown one."""
    pairs = [(image_id, k) for k, image_id in enumerate(known.images) if type(image_id) is int and abs(image_id) < 2**62]
    if not pairs:
        return np.full(len(images), -1, dtype=np.int64)
    table = np.array(pairs, dtype=np.int64)
    table = table[np.argsort(table[:, 0])]
    found = np.searchsorted(table[:, 0], images).clip(max=len(table) - 1)
    return np.where(table[found, 0] == images, table[found, 1], -1)


def _as_stated(
    numbers: np.ndarray, ids: np.ndarray, images: np.ndarray, columns: Columns, rows: np.ndarray, have: dict[int, Any]
) -> dict[int, dict[str, Any]]:
    """The annotations of these rows as the file states them, by their place in the file, but for those that are there."""
    rows = np.array([k for k in rows.tolist() if int(numbers[k]) not in have], dtype=np.int64)
    segments = [None] * len(rows) if columns.segments is None else columns.segments.take(rows).tolist()
    out = {}
    for k, segment in zip(rows.tolist(), segments, strict=True):
        item = {"id": int(ids[k]), "image_id": int(images[k]), "category_id": int(columns.categories[k]), "bbox": columns.sides[k].tolist()}
        item |= {"iscrowd": int(columns.crowd[k])} | ({} if np.isnan(columns.area[k]) else {"area": float(columns.area[k])})
        polygons = isinstance(segment, list)
        out[int(numbers[k])] = item | {"segmentation": [array("f", p.tobytes()) for p in segment] if polygons else segment}
    return out
