"""The files of COCO and its relatives: found in a folder, looked into at both ends, their splits by name."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from saccade.data.formats import files as fs
from saccade.data.formats.scan import look

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


def base_of(path: Path) -> Path:
    """The data root of a single file: the folder above ``annotations``, else its own."""
    above = [p for p in list(path.parents)[:2] if p.name.lower() in ("annotations", "annot")]
    return above[0].parent if above else path.parent
