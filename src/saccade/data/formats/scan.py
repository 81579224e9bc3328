"""What the formats of folders and tables share: the walk through a folder, problems counted, tables of class names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
_MAX_LINE = 2**20


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


class Look(NamedTuple):
    """Names in a folder, sorted: for recognition, not for reading."""

    folders: list[str]
    files: list[str]


_looks: ContextVar[dict[str, Look] | None] = ContextVar("looks", default=None)


@contextmanager
def shared_looks() -> Iterator[None]:
    """Within it :func:`look` lists a folder once, however many formats look at it."""
    token = _looks.set({})
    try:
        yield
    finally:
        _looks.reset(token)


def look(folder: str | Path) -> Look:
    """What lies directly in a folder (nothing when it is none); hidden names, links to folders and names that are not UTF-8 left out."""
    cache = _looks.get()
    key = os.fspath(folder)
    if cache is not None and key in cache:
        return cache[key]
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(key) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name.lower() in _JUNK or not (name.isascii() or _speakable(name)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif not (entry.is_symlink() and entry.is_dir()):
                    files.append(name)
    except OSError:  # no folder, no permission: nothing to recognise
        pass
    found = Look(sorted(folders), sorted(files))
    if cache is not None:
        cache[key] = found
    return found


def glimpse(root: Path, most: int = 1000) -> Files:
    """As :func:`walk`, for recognition: of each folder the first ``most`` files, and about 20 times as many in all."""
    files, todo = Files([], []), [""]
    while todo and len(files.images) + len(files.others) < 20 * most:
        folder = todo.pop()
        found = look(root / folder)
        for name in found.files[:most]:
            (files.images if is_image_name(name) else files.others).append(folder + name)
        todo += [f"{folder}{name}/" for name in reversed(found.folders) if not is_image_name(name)]
    files.images.sort()
    files.others.sort()
    return files


def head(root: Path, name: str, size: int = 1 << 14) -> bytes:
    """The first bytes of a file below the root; nothing when it cannot be read or leaves the root."""
    path = root / name
    try:
        if not path.is_file() or (path.is_symlink() and not _inside(path, root.resolve())):
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text with their ends, one at a time: a list of a gigabyte takes no memory.

    Raises:
        DataError: it is no UTF-8 text, cannot be read, or a line has no end.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise DataError(path, f"has a line of more than {_MAX_LINE >> 20} million characters: no list", where=f"line {number}")
                yield line
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8 text", where=f"after line {number}", hint="save it as UTF-8") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file that are not empty, with the number of their last line, one at a time.

    Raises:
        DataError: as :func:`text_lines`, or it is no CSV.
    """
    reader = csv.reader(text_lines(path), delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(path, f"is no CSV: {error}", where=f"line {reader.line_num}") from None


def holds_image(folder: Path) -> bool:
    """Whether a file named like an image lies anywhere below; stops at the first. Links to folders are not followed."""
    todo = [os.fspath(folder)]
    while todo:
        place = todo.pop()
        found = look(place)
        if any(map(is_image_name, found.files)):
            return True
        todo += [os.path.join(place, f) for f in reversed(found.folders) if not is_image_name(f)]
    return False


def folders_of(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones, links and names that are not UTF-8 left out."""
    return look(root).folders


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
            except (TypeError, ValueError, OverflowError):  # 1e400 is infinite
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
        if not _is_number(text_value) or not 0 <= int(text_value.strip()) <= 65535:
            raise DataError(path, f"{text_value!r} is no mask value (0..65535)", where=where)
        value = int(text_value.strip())
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
