"""The formats: one module each, found by name, recognised by looking at the files, read and written.

A format module holds:

* ``NAME`` (what ``--format`` takes), ``TITLE`` (for people), ``TASKS`` (what its files can hold, the main one first);
* ``sniff(root) -> str | None``: why the folder or file looks like this format ("364 XML files with <annotation>"), or None;
* ``read(root, **options) -> DataIndex``: the whole set; what had to be skipped or repaired is in ``DataIndex.problems``;
* ``write(dataset, out) -> list[str]``: into an empty folder; gives what the format could not hold, with counts.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.formats.files import fresh_folder
from saccade.data.records import DataIndex
from saccade.types.errors import DataError, UsageError, suggest

FORMATS: dict[str, str] = {
    "coco": "coco",
    "voc": "voc",
    "yolo": "yolo",
    "csv": "csv_table",
    "masks": "mask_png",
    "idx": "mnist_idx",
    "imagefolder": "imagefolder",
}
"""Module of each format by its name."""

FALLBACKS = ("imagefolder",)
"""Formats without a file of annotations: folders alone are weak evidence, which counts only when no other format is seen."""


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
        root: folder or file.
        tasks: of several formats that fit, only those count that hold truth for all these tasks (if any does).

    Raises:
        UsageError: several formats fit; the message names them.
        DataError: none fits, or the path does not exist.
    """
    root = existing(root)
    found: dict[str, str] = {}
    for name in FORMATS:
        if not (name in FALLBACKS and found):
            reason = format_module(name).sniff(root)
            if reason:
                found[name] = reason
    if not found:
        known = ", ".join(FORMATS)
        raise DataError(root, f"is in no known data format: it holds {_contents(root)}", hint=f"formats: {known}; say which with --format")
    fitting = {name: reason for name, reason in found.items() if set(tasks) <= set(format_module(name).TASKS)}
    found = fitting or found
    if len(found) > 1:
        found.pop("csv", None)  # the table repeats what the annotations say (raccoon), or belongs to another task (WBC)
    if len(found) > 1:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in found.items())
        raise UsageError(f"{root} fits several formats: {reasons}; choose with --format {'|'.join(found)}")
    return next(iter(found.items()))


def read_data(root: str | Path, format: str | None = None, **options: Any) -> DataIndex:
    """Read a data set; the format is recognised when it is not said.

    Args:
        root: folder, or a single file of annotations.
        format: a name of :data:`FORMATS`.
        options: options of the format's ``read``.

    Raises:
        UsageError: an unknown format or option, or an ambiguous folder.
        DataError: the files are unusable.
    """
    root = existing(root)
    name, reason = (format, "") if format is not None else detect_format(root)
    module = format_module(name)
    known = [p for p in inspect.signature(module.read).parameters if p != "root"]
    for option in options:
        if option not in known:
            raise UsageError(f"the format {name} has no option {option!r}{suggest(option, known)}")
    try:
        index: DataIndex = module.read(root, **options)
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
    if dataset.tasks and not set(dataset.tasks) & set(module.TASKS):
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
