"""``load_data``: from a folder, a file or a name to a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, existing, read_data
from saccade.data.formats.files import split_name
from saccade.data.landmarks import TASK as LANDMARKS
from saccade.data.landmarks import as_landmarks
from saccade.data.records import DataIndex
from saccade.data.splits import make_splits, read_split_file
from saccade.types.errors import DataError, UsageError

HELD_OUT = 0.15
"""Share of the training images that become the validation split when the files state none."""

_TRUTH = {"generate": (), "stylize": (), "embed": ("classify",), LANDMARKS: ("pose",)}  # other tasks need the truth of their own name


def load_data(
    source: str | Path | DataIndex | Dataset,
    split: str | None = None,
    *,
    format: str | None = None,
    split_file: str | Path | None = None,
    task: str | None = None,
    channels: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load images and their truth; pictures are decoded when they are asked for.

    Splits. Those that the files (or ``split_file``) state are used. When they state none, train, val and test are made: 70, 15 and
    15 %, stratified, a function of ``seed`` and the images' ids. When they state train but no val, 15 % of train are held out
    as val, in the same way; ``"train"`` is then the rest, whether val is asked for or not, and ``"trainval"`` all of it. A test
    split is never invented beside stated ones. ``data.index.problems`` says which of this was done.

    Args:
        source: a folder; a file of annotations; ``set:NAME``; ``synthetic:shapes`` or ``synthetic:cells``, with options as in
            ``synthetic:cells?count=400&size=320&seed=1``; ``mix:BOXES,LABELS``, two of these as one (:func:`saccade.mix`); or a data
            set or index that is loaded already.
        split: "train", "val", "test", "trainval", or a name that the files state; None takes all images.
        format: name of the format; None recognises it.
        split_file: a file of image names by split (:func:`saccade.data.splits.read_split_file`).
        task: what the data are for, when they can serve several tasks; also settles which of several formats is meant.
        channels: 1 or 3 to decode every image as grey or RGB; None keeps grey images grey.
        seed: of the splits that are made.

    Raises:
        UsageError: an unknown name, format, split or task, or a folder that fits several formats.
        DataError: missing or unusable files, or no image.

    >>> load_data("synthetic:shapes?count=20&size=64", "train")
    <Dataset synthetic train: 14 images, 5 classes, root synthetic:shapes?count=20&size=64>
    """
    if isinstance(source, Dataset):
        index, indices = source.index, source.indices
        channels = source.channels if channels is None else channels
    else:
        index = source if isinstance(source, DataIndex) else _read(source, format, task)
        indices = None
    if not len(index):
        raise DataError(index.root, "holds no images")
    if task is not None:
        index = _for_task(index, task)
    if split_file is not None:
        index = dataclasses.replace(index, splits=read_split_file(split_file, index))
    if split is None:
        return Dataset(index, indices, channels=channels, split=source.split if isinstance(source, Dataset) else "")
    if indices is not None:
        kept = {name: np.intersect1d(members, indices) for name, members in index.splits.items()}
        index = dataclasses.replace(index, splits={name: members for name, members in kept.items() if len(members)})
    index = _with_split(index, indices, split_name(split) if split not in index.splits else split, seed)
    data = Dataset(index, channels=channels).take(split if split in index.splits else split_name(split))
    if not len(data):
        raise DataError(index.root, f"the split {split!r} holds no images")
    return data


def _read(source: str | Path, format: str | None, task: str | None) -> DataIndex:
    if not isinstance(source, (str, Path)):
        raise UsageError(f"data are a folder, a file, set:NAME, synthetic:NAME or a loaded data set, not {type(source).__name__}")
    text = str(source)
    if source == "":
        raise DataError(source, "does not exist", hint="'.' is the current folder")
    kind, _, name = text.partition(":")
    if kind in ("set", "synthetic", "mix"):
        if format is not None:
            raise UsageError(f"{text} has no files of another format: leave --format {format} out")
        if kind == "mix":
            from saccade.data.mixed import load_mixed

            return load_mixed(name)
        if kind == "set":
            from saccade.data.sets import load_set

            return load_set(name)
        from saccade.data.synthetic import TASKS, load_synthetic

        if task in TASKS and task != "detect" and "task=" not in name:  # the generator draws detect when nothing is said
            name += f"{'&' if '?' in name else '?'}task={task}"
        return load_synthetic(name)
    root = existing(Path(source).expanduser())
    if format is None and task is not None:
        format, reason = detect_format(root, tasks=_TRUTH.get(task, (task,)))
        index = read_data(root, format)
        index.reason = index.reason or reason
        return index
    return read_data(root, format)


def _for_task(index: DataIndex, task: str) -> DataIndex:
    """The index with the task's truth as its main one."""
    if index.tasks[:1] == (task,):
        return index
    needed = _TRUTH.get(task, (task,))
    for name in needed:
        if name not in index.tasks:
            have = f"hold truth for {', '.join(index.tasks)}" if index.tasks else "hold no truth"
            lack = f"not for {task}" if name == task else f"{task} needs {'points' if task == LANDMARKS else name}"
            raise UsageError(f"{index.root}: these data {have}, {lack}")
    if task == LANDMARKS:
        return as_landmarks(index)
    return dataclasses.replace(index, tasks=tuple(dict.fromkeys([*needed, *index.tasks])))


def _with_split(index: DataIndex, indices: np.ndarray | None, split: str, seed: int) -> DataIndex:
    """The index with the split asked for, made where the rules of :func:`load_data` say so."""
    stated = dict(index.splits)
    if not stated:
        made = make_splits(Dataset(index, indices), seed=seed)
        note = f"states no splits: {_counts(made)} made (stratified, seed {seed})"
        made["trainval"] = np.sort(np.concatenate([made["train"], made["val"]]))
    elif split in ("train", "val", "trainval") and not {"train", "val"} <= stated.keys():
        whole = stated.get("trainval", stated.get("train"))
        if whole is None or ("val" in stated and "trainval" not in stated):
            return index  # val or test alone: nothing to make a train of
        if "trainval" in stated and {"train", "val"} & stated.keys():
            other = "val" if "train" in stated else "train"
            made = {other: np.setdiff1d(whole, stated["train" if other == "val" else "val"])}
            note = f"states no split {other}: it is the rest of trainval, {len(made[other])} images"
        else:
            made = make_splits(Dataset(index, whole), {"train": 1 - HELD_OUT, "val": HELD_OUT}, seed=seed)
            note = f"states no split val: {len(made['val'])} of {len(whole)} training images are held out (stratified, seed {seed})"
            made["trainval"] = whole
    elif split == "trainval" and "trainval" not in stated:
        return dataclasses.replace(index, splits={**stated, "trainval": np.union1d(stated["train"], stated["val"])})
    else:
        return index
    # Nothing is held out of trainval: the note would mislead.
    problems = index.problems if stated and split == "trainval" else [*index.problems, DataError(index.root, note)]
    return dataclasses.replace(index, splits={**stated, **made}, problems=problems)


def _counts(splits: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {len(members)}" for name, members in splits.items())
