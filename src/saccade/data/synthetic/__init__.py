"""Scenes that we draw: ``synthetic:shapes`` and ``synthetic:cells``, with every kind of truth, the same on every machine.

``synthetic:cells?count=400&size=320x240&seed=3&task=segment`` sets what is drawn. By task:

=========  ====================================================================================================
detect     (default) boxes, labels, instance masks, key points, captions, ``depth``; and ``mask``, whose values are
           the labels + 1, 0 being the background (``classes`` has no background)
classify   ``label`` of the one large object, captions
segment    ``mask`` only; ``classes`` begins with "background"
landmarks  box, label and key points of the largest object of a scene as for classify
=========  ====================================================================================================

A scene is a function of (kind, task, seed, index, size) alone: image 7 of 10 is image 7 of 1000.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from torchvision import tv_tensors

from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.synthetic import cells, shapes
from saccade.data.synthetic.scene import KEYPOINT_NAMES, KEYPOINT_SWAP, Scene
from saccade.types.errors import UsageError, suggest

KINDS: dict[str, ModuleType] = {"shapes": shapes, "cells": cells}
TASKS = {
    "detect": ("detect", "pose", "caption"), "classify": ("classify", "caption"), "segment": ("segment",), "landmarks": ("pose", "detect"),
}  # fmt: skip
SPLITS = {"train": 0.70, "val": 0.15, "test": 0.15}
SMALLEST, LARGEST, MOST = 16, 8192, 10_000_000


class SyntheticReader:
    """Draws scenes by record; remembers the last plan, since a sample asks for its image and its truth in turn."""

    def __init__(self, kind: str, task: str, seed: int, size: tuple[int, int]) -> None:
        self.kind, self.task, self.seed, self.size = kind, task, seed, size
        self._last: tuple[int, Scene] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def scene(self, index: int) -> Scene:
        """The plan of one image."""
        last = self._last
        if last is None or last[0] != index:
            task = "classify" if self.task == "landmarks" else self.task
            last = self._last = (index, KINDS[self.kind].plan(self.seed, index, self.size, task))
        return last[1]

    def record(self, index: int) -> Record:
        """The truth of one image, nothing painted."""
        module, path = KINDS[self.kind], f"{self.kind}/{index:06d}"
        if self.task == "segment":
            return Record(path=path, image_id=path, size=self.size, mask=path)
        if self.task == "classify":
            label = index % len(module.CLASSES)
            return Record(path=path, image_id=path, size=self.size, label=label, captions=[module.caption(self.scene(index))])
        scene = self.scene(index)
        record = scene.record(path, module.caption(scene))
        return largest_only(record) if self.task == "landmarks" else record

    def image(self, record: Record) -> np.ndarray:
        """(H, W, 3) uint8."""
        return KINDS[self.kind].paint(self.scene(_index(record)))

    def mask(self, record: Record) -> np.ndarray:
        """(H, W) uint8: 0 background, label + 1 elsewhere."""
        return self.scene(_index(record)).semantic()

    def extras(self, record: Record) -> dict[str, Any]:
        """``depth`` (H, W) float32 and ``mask`` (H, W) int64 of a detection scene; {} for other tasks."""
        if self.task != "detect":
            return {}
        scene = self.scene(_index(record))
        return {
            "depth": torch.from_numpy(KINDS[self.kind].depth(scene)),
            "mask": tv_tensors.Mask(torch.from_numpy(scene.semantic().astype(np.int64))),
        }


def largest_only(record: Record) -> Record:
    """The record with the box, label and key points of its largest object."""
    assert record.boxes is not None
    assert record.labels is not None
    assert record.keypoints is not None
    keep = np.argsort(-(record.boxes[:, 2:] - record.boxes[:, :2]).prod(1), kind="stable")[:1]
    boxes, labels, points = record.boxes[keep], record.labels[keep], record.keypoints[keep]
    return Record(record.path, record.image_id, record.size, boxes=boxes, labels=labels, keypoints=points)


def _index(record: Record) -> int:
    return int(record.path.rsplit("/", 1)[1])


def load_synthetic(spec: str) -> DataIndex:
    """The index of ``NAME?count=240&size=160&seed=0&task=detect``; size is S or WIDTHxHEIGHT; splits 70, 15 and 15 % in order.

    Raises:
        UsageError: unknown name, key or value.
    """
    kind, _, query = spec.partition("?")
    if kind not in KINDS:
        raise UsageError(f"synthetic:{kind} is unknown{suggest(kind, KINDS)}")
    options = {"count": "240", "size": "160", "seed": "0", "task": "detect"}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in options:
            raise UsageError(f"synthetic:{spec} has no option {key!r}{suggest(key, options)}")
        options[key] = value
    count = _number(spec, "count", options["count"], 1, MOST)
    seed = _number(spec, "seed", options["seed"], 0, 2**32 - 1)
    width, cross, height = options["size"].lower().partition("x")
    size = tuple(_number(spec, "size", side, SMALLEST, LARGEST) for side in (height if cross else width, width))
    task = options["task"]
    if task not in TASKS:
        raise UsageError(f"synthetic:{spec} has no task {task!r}{suggest(task, TASKS)}")

    reader = SyntheticReader(kind, task, seed, size)  # type: ignore[arg-type]
    classes: list[str] = list(KINDS[kind].CLASSES)
    bounds = [round(count * share) for share in itertools.accumulate(SPLITS.values(), initial=0.0)]
    splits = {name: np.arange(a, b) for name, a, b in zip(SPLITS, bounds, bounds[1:], strict=False) if b > a}
    return DataIndex(
        format="synthetic",
        root=Path(f"synthetic:{spec}"),
        classes=["background", *classes] if task == "segment" else classes,
        records=PackedRecords(reader.record(i) for i in range(count)),
        splits=splits,
        tasks=TASKS[task],
        reason=f"drawn by saccade: {kind}",
        keypoint_names=list(KEYPOINT_NAMES) if "pose" in TASKS[task] else [],
        keypoint_swap=list(KEYPOINT_SWAP) if "pose" in TASKS[task] else [],
        reader=reader,
    )


def _number(spec: str, key: str, text: str, low: int, high: int) -> int:
    # Few digits first: int() of a long text is slow, and Python refuses it with an error of its own.
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not low <= int(text) <= high:
        raise UsageError(f"synthetic:{spec}: {key}={text!r} is not a whole number from {low} to {high}")
    return int(text)
