"""What the formats of folders and tables share: the walk through a folder, problems counted, tables of class names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.data.formats.files import read_json, read_text
from saccade.data.images import is_image_name
from saccade.types.errors import DataError, suggest

MOST = 20
"""Problems of one kind that are kept one by one; of the others only their number."""

VOID_NAMES = frozenset(["void", "ignore", "ignored", "unlabelled", "unlabeled"])
"""Class names in a table that mean "no class": such a value is ignored. No value means it by itself (255 is a class in some sets)."""

TABLE_NAMES = ("classes.json", "classes.csv", "classes.txt")
"""Files of class names beside the data, the best first."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "inputs")
MASK_FOLDERS = ("masks", "mask", "annotations", "annotation", "annot", "labels", "segmentationclass", "gtfine", "groundtruth", "gt")
"""Folders, in lower case, that hold the pictures and the class masks of one set."""

_JUNK = frozenset(["thumbs.db", "desktop.ini", "__macosx"])


class Problems:
    """DataErrors to report; of one kind the first :data:`MOST`, then a line with the number of the rest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: list[DataError] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, path: str | Path, problem: str, *, where: str = "", hint: str = "") -> None:
        """Note a problem. ``kind`` is a phrase for the summary: "rows without a label"."""
        self._counts[kind] += 1
        if self._counts[kind] <= MOST:
            self._kept.append(DataError(path, problem, where=where, hint=hint))

    def list(self) -> list[DataError]:
        """All that was kept, and a summary of what was only counted."""
        rest = [DataError(self.root, f"{n - MOST} more {kind}") for kind, n in self._counts.items() if n > MOST]
        return [*self._kept, *rest]


@dataclass
class Files:
    """A folder's files, relative to it with ``/``, sorted."""

    images: list[str]
    others: list[str]


def walk(root: Path, problems: Problems, *, deep: bool = True) -> Files:
    """All files below a folder, or without ``deep`` those directly in it.

    Hidden ones are skipped; links that leave the root, and links to folders, are skipped and reported.
    """
    real = root.resolve()
    files, todo = Files([], []), [""]
    while todo:
        folder = todo.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda e: e.name)
        except OSError as error:
            problems.add("folders that cannot be read", root / folder, f"cannot be read: {error.strerror or error}")
            continue
        for entry in entries:
            name, path = entry.name, folder + entry.name
            if name.startswith(".") or name.lower() in _JUNK:
                continue
            if not _speakable(name):
                problems.add("names that are not UTF-8", root / folder, f"holds {os.fsencode(name)!r}, a name that is not UTF-8; skipped")
            elif entry.is_symlink() and (entry.is_dir() or not _inside(root / path, real)):
                problems.add("links that are not followed", root / path, "is a link to a folder or out of the data root; not followed")
            elif entry.is_dir():
                if not deep:
                    continue
                if is_image_name(name):
                    problems.add("folders named like images", root / path, "is a folder named like an image; skipped")
                else:
                    todo.append(path + "/")
            elif entry.is_file():
                (files.images if is_image_name(name) else files.others).append(path)
            else:
                problems.add("files that are not regular", root / path, "is not a regular file; skipped")
    files.images.sort()
    files.others.sort()
    return files


def holds_image(folder: Path) -> bool:
    """Whether a file named like an image lies anywhere below; stops at the first. Links to folders are not followed."""
    for _, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and not is_image_name(f)]
        if any(is_image_name(n) and not n.startswith(".") for n in names):
            return True
    return False


def folders_of(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones, links and names that are not UTF-8 left out."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(
            e.name
            for e in entries
            if e.is_dir(follow_symlinks=False) and not e.name.startswith(".") and e.name.lower() not in _JUNK and _speakable(e.name)
        )


def plain_path(text: str) -> str | None:
    r"""A path of an annotation as ``a/b.png``; None when it is absolute, leaves its folder, or is no path.

    >>> plain_path(".\\train\\a.png"), plain_path("../a.png"), plain_path("/etc/passwd"), plain_path("C:/a.png")
    ('train/a.png', None, None, None)
    """
    text = text.strip().replace("\\", "/")
    if not text or "\x00" in text or text.startswith("/") or re.match(r"[A-Za-z]:", text):
        return None
    path = os.path.normpath(text).replace(os.sep, "/")
    return None if path == "." or path == ".." or path.startswith("../") else path


def ordered(names: Iterable[str]) -> list[str]:
    """Class names in order: by value when all are whole numbers, else as text.

    >>> ordered(["10", "9", "1"]), ordered(["s2", "s10", "s1"])
    (['1', '9', '10'], ['s1', 's10', 's2'])
    """
    names = sorted(set(names))
    if all(re.fullmatch(r"-?\d{1,18}", n) for n in names):
        names.sort(key=int)
    return names


def check_classes(classes: Sequence[str] | None, found: Iterable[str], source: Path) -> list[str]:
    """The class names to use: those asked for, in their order, or those found.

    Raises:
        DataError: the data hold a class that was not asked for.
    """
    found = ordered(found)
    if classes is None:
        return found
    for name in found:
        if name not in classes:
            raise DataError(source, f"holds the class {name!r}, which the given class names lack{suggest(name, classes)}")
    if len(set(classes)) != len(classes):
        raise DataError(source, "the given class names hold a name twice")
    return list(classes)


@dataclass
class ClassTable:
    """A table of classes: (value, name) in order of the labels, values to ignore, and whether stray values go to the nearest."""

    path: Path
    entries: list[tuple[int, str]]
    ignore: tuple[int, ...] = ()
    nearest: bool = False

    @property
    def names(self) -> list[str]:
        """Names by label."""
        return [name for _, name in self.entries]


def find_class_table(root: Path, *, of_masks: bool = False) -> ClassTable | None:
    """The table in ``classes.json``, ``classes.csv`` or ``classes.txt`` of a folder, or None."""
    for name in TABLE_NAMES:
        if (root / name).is_file():
            return read_class_table(root / name, of_masks=of_masks)
    return None


def write_class_names(folder: Path, names: Sequence[str]) -> None:
    """``classes.json``: the names in order of their labels."""
    (folder / TABLE_NAMES[0]).write_text(json.dumps(list(names), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_class_table(path: Path, *, of_masks: bool = False) -> ClassTable:
    """Read a table of class names.

    * JSON: ``["sky", "road"]`` (values 0, 1, ...), ``{"0": "sky", "128": "road"}``, or ``{"classes": one of these,
      "ignore": [255], "nearest": true}``.
    * CSV: columns value and name, with or without a header.
    * TXT: a name on each line (values 0, 1, ...); for masks also ``value name``. Lines that begin with ``#`` are comments.

    For masks, a class called void, ignore or unlabelled is no class: its value is ignored.

    Raises:
        DataError: the file is broken, holds a name or value twice, or no class.
    """
    ignore: tuple[int, ...] = ()
    nearest = False
    if path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, dict) and "classes" in content:
            try:
                ignore = tuple(int(v) for v in content.get("ignore", ()))
            except (TypeError, ValueError):
                raise DataError(path, "'ignore' is not a list of mask values") from None
            nearest = content.get("nearest") is True
            content = content["classes"]
        if isinstance(content, list):
            content = dict(enumerate(content))
        if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
            raise DataError(path, "is no table of classes", hint='write ["sky", "road"] or {"0": "sky", "128": "road"}')
        pairs = [(str(value), name, "") for value, name in content.items()]
    else:
        text = read_text(path)
        if path.suffix == ".csv":
            try:
                rows = [(n, [c.strip() for c in row]) for n, row in enumerate(csv.reader(io.StringIO(text)), 1) if any(row)]
            except csv.Error as error:
                raise DataError(path, f"is no CSV: {error}") from None
            if rows and not _is_number(rows[0][1][0]):
                rows = rows[1:]
            for n, row in rows:
                if len(row) < 2:
                    raise DataError(path, "a row needs a value and a name", where=f"line {n}")
            pairs = [(row[0], row[1], f"line {n}") for n, row in rows]
        else:
            lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
            split = [(n, line.split(None, 1)) for n, line in lines]
            if of_masks and lines and all(len(p) == 2 and _is_number(p[0]) for _, p in split):
                pairs = [(p[0], p[1], f"line {n}") for n, p in split]
            else:
                pairs = [(str(k), line, f"line {n}") for k, (n, line) in enumerate(lines)]
    entries: list[tuple[int, str]] = []
    seen: set[object] = set()
    for text_value, raw_name, where in pairs:
        name = raw_name.strip()
        if not _is_number(text_value) or not 0 <= int(text_value) <= 65535:
            raise DataError(path, f"{text_value!r} is no mask value (0..65535)", where=where)
        value = int(text_value)
        if not name:
            raise DataError(path, f"value {value} has no name", where=where)
        if value in seen or name in seen:
            raise DataError(path, f"value {value} or name {name!r} stands twice", where=where)
        seen |= {value, name}
        if of_masks and name.lower() in VOID_NAMES:
            ignore = (*ignore, value)
        elif value not in ignore:
            entries.append((value, name))
    if not entries:
        raise DataError(path, "holds no class")
    return ClassTable(path, entries, tuple(sorted(set(ignore))), nearest)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,9}", text.strip()) is not None


def _speakable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _inside(path: Path, real_root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(real_root)
    except (OSError, RuntimeError):
        return False
