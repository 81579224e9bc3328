"""The formats: one module each, found by name, recognised by looking at the files, read and written.

A format module holds:

* ``NAME`` (what ``--format`` takes), ``TITLE`` (for people), ``TASKS`` (what its files can hold, the main one first);
* ``HOLDS``: what it keeps of label, boxes, crowd, segments, keypoints, mask, captions (the words of :func:`.files.count_losses`);
* ``sniff(root) -> str | None``: why the folder or file looks like this format ("364 XML files with <annotation>"), or None;
* ``read(root, **options) -> DataIndex``: the whole set; what had to be skipped or repaired is in ``DataIndex.problems``;
* ``write(dataset, out) -> list[str]``: into an empty folder; gives what the format could not hold, with counts.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from saccade.data import archive
from saccade.data.dataset import Dataset
from saccade.data.formats.files import fresh_folder
from saccade.data.formats.scan import look, shared_looks
from saccade.data.images import is_image_name
from saccade.data.records import DataIndex
from saccade.types.errors import DataError, UsageError, suggest

FORMATS: dict[str, str] = {
    "coco": "coco",
    "lvis": "lvis",
    "panoptic": "coco_panoptic",
    "detectron2": "detectron2",
    "mpii": "mpii",
    "voc": "voc",
    "labelme": "labelme",
    "via": "via",
    "imglab": "imglab",
    "yolo": "yolo",
    "openimages": "open_images",
    "widerface": "wider_face",
    "csvpoints": "csv_points",
    "csv": "csv_table",
    "list": "lists",
    "masks": "mask_png",
    "colormasks": "mask_color",
    "instances": "instance_png",
    "idx": "mnist_idx",
    "cifar": "cifar_bin",
    "quickdraw": "quickdraw",
    "inkml": "inkml",
    "bsds": "bsds",
    "imagefolder": "imagefolder",
    "images": "images",
}
"""Module of each format by its name."""

FALLBACKS = ("imagefolder", "images")
"""Formats without a file of annotations: folders alone are weak evidence, which counts only when no other format is seen."""

REPEATS = ("list", "csv")
"""Tables mostly repeat what the annotations beside them say (raccoon), or belong to another task (WBC): they yield, in this order."""

_MOST_PARTS = 24


def format_module(name: str) -> ModuleType:
    """The module of a format.

    Raises:
        UsageError: no such format.
    """
    if name not in FORMATS:
        raise UsageError(f"no data format {name!r}{suggest(name, FORMATS)}")
    return import_module(f"saccade.data.formats.{FORMATS[name]}")


def detect_format(root: str | Path, tasks: Sequence[str] = ()) -> tuple[str, str]:
    """(name, reason) of the format of a folder or file.

    Args:
        root: folder, file, or an archive of the folder.
        tasks: of several formats that fit, only those count that hold truth for all these tasks (if any does).

    Raises:
        UsageError: several formats fit; the message names them.
        DataError: none fits, or the path does not exist.
    """
    root = existing(root)
    if archive.is_archive(root):
        with archive.shadow_of(root) as shadow:
            return detect_format(shadow.root, tasks)
    with shared_looks():
        found = _sniffed(root, [name for name in FORMATS if name not in FALLBACKS])
        if not found:
            found = _sniffed(root, FALLBACKS)
            parts = _parts(root)
            if parts:
                shown = "; ".join(f"{folder} ({', '.join(names)})" for folder, names in parts.items())
                raise UsageError(f"{root} holds several data sets, each in its folder: {shown}; name one of the folders")
    if not found:
        known = ", ".join(FORMATS)
        raise DataError(root, f"is in no known data format: it holds {_contents(root)}", hint=f"formats: {known}; say which with --format")
    fitting = {name: reason for name, reason in found.items() if set(tasks) <= set(format_module(name).TASKS)}
    found = fitting or found
    for name in REPEATS:
        if len(found) > 1:
            found.pop(name, None)
    if len(found) > 1:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in found.items())
        raise UsageError(f"{root} fits several formats: {reasons}; choose with --format {'|'.join(found)}")
    return next(iter(found.items()))


def _sniffed(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Reason by name of the formats that a folder or file looks like."""
    reasons = ((name, format_module(name).sniff(root)) for name in names)
    return {name: reason for name, reason in reasons if reason}


def _parts(root: Path) -> dict[str, list[str]]:
    """Formats by folder, where at least half of the folders (the first two dozen) are annotated sets of their own."""
    parts: dict[str, list[str]] = {}
    folders = look(root).folders[:_MOST_PARTS]
    for folder in folders:
        inside = look(root / folder)
        if inside.folders or not all(map(is_image_name, inside.files)):  # a folder of pictures alone is none
            names = list(_sniffed(root / folder, [name for name in FORMATS if name not in FALLBACKS]))
            if names:
                parts[folder] = names
    return parts if len(parts) > 1 and 2 * len(parts) >= len(folders) else {}


def read_data(root: str | Path, format: str | None = None, **options: Any) -> DataIndex:
    """Read a data set; the format is recognised when it is not said.

    Args:
        root: folder, a single file of annotations, or a zip or tar of the folder (:mod:`saccade.data.archive`).
        format: a name of :data:`FORMATS`.
        options: options of the format's ``read``.

    Raises:
        UsageError: an unknown format or option, or an ambiguous folder.
        DataError: the files are unusable.
    """
    root = existing(root)
    if archive.is_archive(root):
        with archive.shadow_of(root) as shadow:
            index = read_data(shadow.root, format, **options)
        index.problems = [*shadow.problems, *map(shadow.named, index.problems)]
        return index
    name, reason = (format, "") if format is not None else detect_format(root)
    module = format_module(name)
    known = [p for p in inspect.signature(module.read).parameters if p != "root"]
    for option in options:
        if option not in known:
            raise UsageError(f"the format {name} has no option {option!r}{suggest(option, known)}")
    try:
        index = module.read(root, **options)
    except OSError as error:  # no permission, a folder that vanished
        raise DataError(error.filename or root, f"cannot be read: {error.strerror or error}") from None
    index.reason = index.reason or reason or f"format {name} was asked for"
    return index


def write_data(dataset: Dataset, out: str | Path, format: str) -> list[str]:
    """Write a data set into a new folder; nothing is left there when it fails.

    Returns:
        What the format could not hold, with counts; empty when nothing was lost.

    Raises:
        UsageError: an unknown format, one that cannot hold any of the data's tasks, or ``out`` is not empty.
        DataError: an image cannot be copied.
    """
    module = format_module(format)
    if dataset.tasks and module.TASKS and not set(dataset.tasks) & set(module.TASKS):
        raise UsageError(f"{module.TITLE} holds {' or '.join(module.TASKS)}; these data are for {' and '.join(dataset.tasks)}")
    with fresh_folder(Path(out)) as work:
        return list(module.write(dataset, work))


def existing(root: str | Path) -> Path:
    """The path, or a DataError when there is nothing."""
    root = Path(root)
    try:
        if root.exists():
            return root
    except (OSError, ValueError) as error:  # a name that is too long, a NUL
        raise DataError(root, f"is no usable path: {error}") from None
    raise DataError(root, "does not exist")


def _contents(root: Path, most: int = 1000) -> str:
    """What a folder holds, in a phrase: "3 folders, 12 .txt, 1 .zip"."""
    if not root.is_dir():
        return f"one {root.suffix or 'nameless'} file"
    counts: Counter[str] = Counter()
    for _, folders, files in os.walk(root):
        counts["folders"] += len(folders)
        counts.update(os.path.splitext(name)[1].lower() or "files without a suffix" for name in files)
        if counts.total() > most:
            break
    shown = ", ".join(f"{count} {what}" for what, count in counts.most_common(6) if count)
    return shown or "nothing"
