"""Two data sets as one: images with boxes, and images with a label of the whole and no boxes (YOLO9000, arXiv 1612.08242, section 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import UsageError

BOXES, LABELS = "boxes", "labels"


class MixedReader:
    """Gives pixels: the path of a record is that of one of the two data sets with "boxes/" or "labels/" before it."""

    def __init__(self, boxes: Dataset, labels: Dataset) -> None:
        # without their records, which would travel to every loader worker
        self.parts = {
            name: Dataset(dataclasses.replace(data.index, records=PackedRecords()), [], channels=data.channels)
            for name, data in ((BOXES, boxes), (LABELS, labels))
        }

    def image(self, record: Record) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8."""
        name, _, path = record.path.partition("/")
        array = self.parts[name].image(dataclasses.replace(record, path=path)).permute(1, 2, 0).numpy()
        return array[..., 0] if array.shape[2] == 1 else array

    def mask(self, record: Record) -> np.ndarray:
        """No record has one."""
        raise ValueError(f"{record.path} has no mask")


def mix(boxes: Dataset, labels: Dataset) -> Dataset:
    """A data set with the images of both, to train ``yolo9000`` on: those of ``labels`` teach classes only.

    Args:
        boxes: images with boxes; their classes come first, so that labels stay what they are.
        labels: images with a label each. A class of the same name is the same class.

    Raises:
        UsageError: images without boxes in the first, or without a label in the second.

    Example:
        >>> data = mix(load_data("photos", "train"), load_data("folders"))  # doctest: +SKIP
        >>> saccade.train("yolo9000", data, validation=load_data("photos", "val"))  # doctest: +SKIP

    On the command line ``saccade train yolo9000 mix:photos,folders`` does the same.
    """
    classes = [*boxes.classes, *(name for name in labels.classes if name not in boxes.classes)]
    number = [classes.index(name) for name in labels.classes]

    def records() -> Iterator[Record]:
        for i in range(len(boxes)):
            one = boxes.record(i)
            if one.boxes is None:
                raise UsageError(f"{boxes.index.root}: {one.path} has no boxes: the first data set of mix() is for detection")
            where = f"{BOXES}/{one.path}"
            yield Record(where, where, one.size, boxes=one.boxes, labels=one.labels, iscrowd=one.iscrowd, extra=one.extra)
        for i in range(len(labels)):
            one = labels.record(i)
            if one.label is None:
                raise UsageError(f"{labels.index.root}: {one.path} has no label: the second data set of mix() is for classification")
            where = f"{LABELS}/{one.path}"
            yield Record(where, where, one.size, label=number[one.label])

    index = DataIndex(
        "mixed", Path(f"{boxes.index.root} + {labels.index.root}"), classes, PackedRecords(records()), tasks=("detect",),
        reader=MixedReader(boxes, labels),
    )  # fmt: skip
    return Dataset(index, split=boxes.split)


def load_mixed(text: str) -> DataIndex:
    """The index of ``mix:BOXES,LABELS``: two sources as :func:`saccade.load_data` takes them.

    The splits are those of the first; the images of the second (of its split train, where it has one) join the training images.

    Raises:
        UsageError: not two sources.
    """
    from saccade.data.load import load_data

    sources = text.split(",")
    if len(sources) != 2 or not all(sources):
        raise UsageError(f"mix:{text}: two sources with a comma between, mix:BOXES,LABELS")
    first = load_data(sources[0], "train", task="detect")
    second = load_data(sources[1], task="classify")
    if "train" in second.index.splits:
        second = second.take("train")
    every = Dataset(first.index, channels=first.channels)
    index = mix(every, second).index
    more = np.arange(len(every), len(every) + len(second))
    splits = {name: np.concatenate([of, more]) if name in ("train", "trainval") else of for name, of in first.index.splits.items()}
    return dataclasses.replace(index, splits=splits, problems=[*first.index.problems, *second.index.problems])
