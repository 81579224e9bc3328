"""The files of COCO and its relatives: found in a folder, looked into at both ends, their splits by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from saccade.data.formats import files as fs
from saccade.data.formats.scan import look
from saccade.types.errors import DataError

USUAL = re.compile(r"(instances|person_keypoints|keypoints|captions)(?:_(.*))?$", re.IGNORECASE)
"""Stems of COCO's own files; the last group is the split."""

MOST_FILES = 100
"""Files of a folder that are looked into, beside those with a usual name."""


class JsonFile(NamedTuple):
    """A file of annotations, its split as its name states it, and as it is called here."""

    path: Path
    raw_split: str
    split: str


def reason_of(files: list[JsonFile], what: str) -> str | None:
    """In words, as "2 COCO JSON files: a.json, b.json"; None when there are none."""
    return f"{len(files)} {what} file{'s' * (len(files) != 1)}: {', '.join(f.path.name for f in files[:3])}" if files else None


def head_and_tail(path: Path, size: int = 1 << 18) -> bytes:
    """The first and last part of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(size)
            file.seek(max(file.tell(), path.stat().st_size - size))
            return head + b"\n" + file.read()
    except OSError:
        return b""


def json_files(folder: Path, usual: re.Pattern[str]) -> list[Path]:
    """The JSON files of a folder that are worth a look, sorted: all with a usual name, of the others the first hundred."""
    names = [name for name in look(folder).files if name.lower().endswith(".json")]
    known = {name for name in names if usual.match(name[:-5])}
    chosen = known.union(islice((name for name in names if name not in known), MOST_FILES))
    return [path for name in sorted(chosen) if (path := folder / name).is_file()]


def named(path: Path, count: int, pattern: re.Pattern[str] = USUAL) -> JsonFile:
    """Split by name: instances_train2017, train, train/_annotations.coco.json; a single file of another name has none.

    Args:
        path: the file.
        count: files of the set.
        pattern: of the stem; its last group is the split.
    """
    if path.name == "_annotations.coco.json":
        raw = path.parent.name
    elif match := pattern.match(path.stem):
        raw = match[match.lastindex or 0] or "" if (match.lastindex or 0) == pattern.groups else ""
    else:
        raw = path.stem if count > 1 or fs.is_split(path.stem) else ""
    return JsonFile(path, raw, fs.split_name(raw))


def find_files(folders: Iterable[Path], pattern: re.Pattern[str], fits: Callable[[Path], bool]) -> list[JsonFile]:
    """The files that fit in the first of the folders that has some, by split."""
    for folder in folders:
        paths = [p for p in json_files(folder, pattern) if fits(p)]
        if paths:
            return sorted((named(p, len(paths), pattern) for p in paths), key=lambda f: (fs.split_rank(f.split), f.path.name))
    return []


def to_read(
    root: Path, discover: Callable[[Path], list[JsonFile]], pattern: re.Pattern[str], what: str, alone: str, hint: str
) -> tuple[list[JsonFile], Path, str]:
    """What to read of a file or folder: the files, the data root, and why.

    Args:
        root: the file or folder.
        discover: finds the files of a folder.
        pattern: of their stems.
        what: the format in words: "LVIS JSON".
        alone: why a single file is this: "is LVIS JSON".
        hint: what a folder without one should hold.

    Raises:
        DataError: a folder without such a file.
    """
    if root.is_file():
        return [named(root, 1, pattern)], base_of(root), f"{root.name} {alone}"
    found = discover(root)
    if not found:
        raise DataError(root, f"holds no {what}", hint=hint)
    return found, root, reason_of(found, what) or ""


def base_of(path: Path) -> Path:
    """The data root of a single file: the folder above ``annotations``, else its own."""
    above = [p for p in list(path.parents)[:2] if p.name.lower() in ("annotations", "annot")]
    return above[0].parent if above else path.parent
