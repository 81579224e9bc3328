"""A data set with some of its labels corrected: read back what was edited in a tool, write the whole anew."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import read_data, write_data
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError


@dataclass
class Corrections:
    """What :func:`apply_corrections` did.

    Attributes:
        folder: the new data set.
        images: images of it; read: corrected ones found; changed: those whose labels differ.
        problems: corrected images that fit no image of the data, and what else was left out.
        losses: what the format could not hold.
    """

    folder: Path
    images: int
    read: int
    changed: int
    problems: list[str]
    losses: list[str]


def apply_corrections(
    data: str | Path | Dataset,
    corrected: str | Path,
    out: str | Path,
    format: str | None = None,
    *,
    corrected_format: str | None = None,
    data_format: str | None = None,
) -> Corrections:
    """Write a whole data set anew with the labels of some images replaced by corrected ones.

    A corrected image belongs to the image of the data whose file has the same bytes; of several, or where none has, to the one with
    its path, its id, its file name or its stem (in this order; with blanks and folders as :func:`saccade.data.formats.write_data` turns
    them). One that fits no image, or several, is left out and named. Images that the corrected folder lacks stay as they are.

    What a corrected image holds replaces what it had: label, boxes with all that belongs to them, mask, captions. A box that was
    not touched keeps its outline, key points and flags, where the corrected files cannot hold those. Classes are matched by name;
    new names come after the old ones.

    Args:
        data: the data set that was searched.
        corrected: folder of corrected files.
        out: new folder.
        format: to write; None takes the data's own.
        corrected_format, data_format: of the two inputs; None recognises them.

    Raises:
        UsageError: an unknown format, or one that cannot hold the data; ``out`` is not empty.
        DataError: unreadable files, or no corrected image fits.
    """
    loaded = load_data(data, format=data_format)
    index = loaded.index
    fixed = Dataset(read_data(corrected, corrected_format))
    classes, mapping = _merge_classes(index.classes, fixed.classes)
    matched, problems = _match(loaded, fixed)
    if not matched:
        raise DataError(corrected, "none of its images is one of the data", hint=problems[0] if problems else "it holds no image")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-masks-", dir=out.parent) as scratch:
        index, masks = _corrected_masks(index, fixed, matched, mapping, len(classes), Path(scratch))
        prefix = ""
        if masks:  # the index is now seen from a root that holds the new masks too
            prefix = os.path.relpath(os.path.realpath(loaded.index.root), index.root).replace(os.sep, "/") + "/"
        changed = 0
        records = []
        for number, record in enumerate(index.records):
            old = _digest(record)
            if number in matched:
                record = _corrected(record, fixed.index.records[matched[number]], mapping)
            changed += old != _digest(record) or number in masks
            if prefix:
                record.path = prefix + record.path
                record.mask = None if record.mask is None else prefix + record.mask
            if number in masks:
                record.mask = os.path.relpath(masks[number], index.root).replace(os.sep, "/")
            records.append(record)
        new = dataclasses.replace(index, classes=classes, records=PackedRecords(records), category_ids=None)
        whole = Dataset(new, loaded.indices, channels=loaded.channels, split=loaded.split)
        losses = write_data(whole, out, format or index.format)
    problems += [str(problem) for problem in fixed.index.problems]
    return Corrections(out, len(whole), len(matched), changed, problems, losses)


def _merge_classes(known: Sequence[str], fixed: Sequence[str]) -> tuple[list[str], list[int]]:
    """All names, and the place of each corrected class among them; blanks count alike, since some formats change them."""
    classes = list(known)
    place = {" ".join(name.split()): k for k, name in reversed(list(enumerate(classes)))}
    mapping = []
    for name in fixed:
        plain_name = " ".join(name.split())
        if plain_name not in place:
            place[plain_name] = len(classes)
            classes.append(name)
        mapping.append(place[plain_name])
    return classes, mapping


def _match(data: Dataset, fixed: Dataset) -> tuple[dict[int, int], list[str]]:
    """Number of the corrected record by number of the data's record, and what fits none."""
    tables: list[dict[str, list[int]]] = [{} for _ in range(5)]
    by_size: dict[int, list[int]] = {}
    for number in dict.fromkeys(data.indices.tolist()):
        record = data.index.records[number]
        base = record.path.rpartition("/")[2]
        flat = record.path.replace("/", "_") if data.index.reader is None else re.sub(r"[^\w.-]+", "_", record.image_id) + ".png"
        for table, key in zip(tables, (record.path, record.image_id, flat, base, os.path.splitext(base)[0]), strict=True):
            table.setdefault(key, []).append(number)
        if data.index.reader is None:
            with suppress(DataError, OSError):
                by_size.setdefault(data.path(record).stat().st_size, []).append(number)

    def digest(path: Path) -> bytes:
        return sha256(path.read_bytes()).digest()

    matched: dict[int, int] = {}
    problems = []
    for k, record in enumerate(fixed.index.records):
        candidates: list[int] | None = None
        if fixed.index.reader is None:
            with suppress(DataError, OSError):
                file = fixed.path(record)
                own = digest(file)
                candidates = [n for n in by_size.get(file.stat().st_size, []) if digest(data.path(data.index.records[n])) == own]
        base = record.path.rpartition("/")[2]
        inner = record.path.partition("/")[2]
        names = (record.path, record.image_id, inner, base, os.path.splitext(base)[0], os.path.splitext(record.image_id)[0])
        found = candidates if candidates and len(candidates) == 1 else []
        for table in tables if not found else []:
            for name in names:
                hits = [n for n in table.get(name, []) if not candidates or n in candidates]
                if len(hits) == 1:
                    found = hits
                    break
            if found:
                break
        if not found:
            why = (
                "has the name of several images of the data"
                if any(name in t for t in tables for name in names)
                else "is no image of the data"
            )
            problems.append(str(DataError(record.path, f"{why}; it is left out")))
        elif found[0] in matched:
            other = fixed.index.records[matched[found[0]]].path
            problems.append(str(DataError(record.path, f"is the image that {other} is; it is left out")))
        else:
            matched[found[0]] = k
    return matched, problems


def _corrected(record: Record, fixed: Record, mapping: Sequence[int]) -> Record:
    """The record with the corrected labels."""
    if fixed.label is not None:
        record.label = mapping[fixed.label]
    if fixed.captions is not None:
        record.captions = fixed.captions
    if fixed.boxes is None:
        return record
    labels = np.array([mapping[int(k)] for k in np.asarray(fixed.labels).reshape(-1)], dtype=np.int64)
    source = _same_objects(record, np.asarray(fixed.boxes), labels)
    segments, points, crowd = fixed.segments, fixed.keypoints, fixed.iscrowd
    if record.segments is not None and segments is None:
        segments = [None if s < 0 else record.segments[s] for s in source.tolist()]
    if record.keypoints is not None and points is None:
        points = np.zeros((len(source), *record.keypoints.shape[1:]), dtype=np.float32)
        points[source >= 0] = record.keypoints[source[source >= 0]]
    if record.iscrowd is not None and crowd is None:
        crowd = np.where(source >= 0, np.append(record.iscrowd, False)[source], False)
    extra = dict(fixed.extra or {})
    for key, values in (record.extra or {}).items():
        per_object = hasattr(values, "__len__") and not isinstance(values, (str, bytes, dict)) and len(values) == len(record.boxes)  # type: ignore[arg-type]
        if key in extra:
            continue
        if not per_object:
            extra[key] = values
        elif (source >= 0).all():  # a new object has no such value
            extra[key] = values[source] if isinstance(values, np.ndarray) else [values[s] for s in source.tolist()]
    record.boxes, record.labels, record.iscrowd, record.segments, record.keypoints = fixed.boxes, labels, crowd, segments, points
    record.extra = extra or None
    return record


def _same_objects(record: Record, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) number of the object that each corrected one was, -1 for a new, moved or renamed one."""
    source = np.full(len(boxes), -1, dtype=np.int64)
    if record.boxes is None or not len(record.boxes) or not len(boxes):
        return source
    far = np.abs(boxes[:, None] - record.boxes[None]).max(2)
    far[labels[:, None] != np.asarray(record.labels)[None]] = np.inf
    taken: set[int] = set()
    for k in np.argsort(far.min(1), kind="stable").tolist():
        for s in np.argsort(far[k], kind="stable").tolist():
            if far[k, s] > 0.5:
                break
            if s not in taken:
                taken.add(s)
                source[k] = s
                break
    return source


def _digest(record: Record) -> tuple[Any, ...]:
    """What of a record a correction may change, comparable; boxes to a hundredth of a pixel, since formats round."""
    boxes = () if record.boxes is None else tuple(map(tuple, np.round(np.asarray(record.boxes, dtype=np.float64), 2).tolist()))
    labels = () if record.labels is None else tuple(np.asarray(record.labels).tolist())
    return record.label, tuple(sorted(zip(boxes, labels, strict=True))), tuple(record.captions or ())


def _corrected_masks(
    index: DataIndex, fixed: Dataset, matched: Mapping[int, int], mapping: Sequence[int], num_classes: int, scratch: Path
) -> tuple[DataIndex, dict[int, Path]]:
    """Files of the masks that differ, in the data's own values (or colours), and the index seen from a root that holds them too."""
    masks: dict[int, Path] = {}
    chosen = {n: k for n, k in matched.items() if fixed.index.records[k].mask is not None}
    if not chosen:
        return index, masks
    if index.reader is not None:
        raise UsageError(f"the masks of {index.root} are no files: write them first (saccade data convert), and correct those")
    values = {k: raw for raw, k in sorted((index.mask_values or {k: k for k in range(len(index.classes))}).items(), reverse=True)}
    for k in range(len(index.classes), num_classes):
        values[k] = max([*values.values(), *index.ignore], default=-1) + 1
    void = index.ignore[0] if index.ignore else max([*values.values(), 254]) + 1
    table = np.full(num_classes + 1, void, dtype=np.int64)  # last: no class
    for k, raw in values.items():
        table[k] = raw
    colors, colour = index.mask_colors, np.zeros(int(table.max()) + 1, dtype=np.int64)
    if colors is not None:
        unused = (c for c in range(0x010101, 1 << 24, 0x010203) if c not in (index.mask_colors or {}))
        colors = colors | {next(unused): int(value) for value in table.tolist() if value not in colors.values()}
        for packed, value in colors.items():
            if value < len(colour):
                colour[value] = packed
    whole = Dataset(index)
    for number, k in chosen.items():
        record, other = index.records[number], fixed.index.records[k]
        size = np.asarray(fixed.image(other)).shape[-2:]
        new = fixed.mask(other, size)  # type: ignore[arg-type]
        new = np.append(np.asarray(mapping), -1)[np.where(new >= 0, new, -1)]
        if record.mask is not None and np.array_equal(new, np.maximum(whole.mask(record, size), -1)):  # type: ignore[arg-type]
            continue
        raw = table[new]
        masks[number] = scratch / f"{number}.png"
        if index.mask_colors is not None:
            picture = np.stack([(colour[raw] >> shift) & 255 for shift in (16, 8, 0)], -1).astype(np.uint8)
        else:
            picture = raw.astype(np.uint8 if raw.max(initial=0) < 256 else np.uint16)
        Image.fromarray(picture).save(masks[number])
    if not masks:
        return index, masks
    root = Path(os.path.commonpath([os.path.realpath(index.root), os.path.realpath(scratch)]))
    ignore = index.ignore if void in index.ignore else (*index.ignore, int(void))
    table_of = {raw: k for k, raw in values.items()} | dict(index.mask_values or {})
    masks = {number: Path(os.path.realpath(path)) for number, path in masks.items()}
    return dataclasses.replace(index, root=root, mask_values=table_of, ignore=ignore, mask_colors=colors), masks
