"""Google's "Quick, Draw!": drawings of one word each, as ndjson or in the binary form, drawn to images.

Read: files ``*.ndjson`` (an object a line: word, countrycode, timestamp, recognized, key_id, drawing) and ``*.bin`` (little-endian:
key_id uint64, country 2 letters, recognized int8, timestamp uint32, number of strokes uint16; a stroke is its number of points uint16,
then all x, then all y, a byte each). A stroke of ndjson is ``[[x, ...], [y, ...]]`` (simplified, 0..255) or
``[[x, ...], [y, ...], [t, ...]]`` (raw, with times in ms).

Conventions:

* **Class**: the word; of a binary file the file's name (``cat.bin``, ``full_binary_cat.bin``). Sorted, or in the order of ``classes.json``.
* **Splits**: folders ``train/``, ``val/``, ``test/``; else none.
* **Pictures**: black on white, ``size`` x ``size``, see :mod:`saccade.data.strokes`. They are drawn when they are asked for.
* ``image_id`` is the key_id, or file and line where there is none or it stands twice. The strokes are in
  ``record.extra["strokes"]``; beside them ``countrycode``, ``timestamp`` (text, or seconds in the binary form) and ``recognized``, as far
  as the file states them.
* A line or record that is broken is skipped and reported; a binary file that breaks off is read up to there.

Written: simplified ndjson, a file a word, from any data with strokes. Drawings with times are written in the raw form, as they are;
others whose coordinates are not whole numbers 0..255 are moved to 0, scaled to 255 and rounded, as Google's simplified ones are.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import TABLE_NAMES, Problems, check_classes, find_class_table, head, look, walk, write_class_names
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.strokes import StrokeReader, Strokes, check_options, pack, strokes_of, unpack
from saccade.types.errors import DataError, UsageError

NAME = "quickdraw"
TITLE = "Quick, Draw!"
TASKS = ("classify",)
HOLDS = frozenset({"label"})

_HEAD = struct.Struct("<Q2sbIH")
_FACTS = ("countrycode", "timestamp", "recognized")
_MAX_LINE = 16 * 2**20
_MAX_BINARY = 256 * 2**20
_LIMIT = 1e6


def sniff(root: Path) -> str | None:
    """Files of which the first few are drawings, here or in folders of splits."""
    root = Path(root)
    if root.is_file():
        kind = _kind(root.parent, root.name)
        return f"a Quick, Draw! {kind} file" if kind else None
    found = look(root)
    names = found.files + [f"{f}/{n}" for f in found.folders if fs.is_split(f) for n in look(root / f).files]
    names = [n for n in names if n.lower().endswith((".ndjson", ".bin"))]
    kinds = [kind for name in names[:10] if (kind := _kind(root, name))]
    return f"{len(names)} file{'s' * (len(names) != 1)} of Quick, Draw! ({kinds[0]})" if kinds else None


def _kind(root: Path, name: str) -> str:
    """By the first bytes "ndjson", "binary" or ""."""
    start = head(root, name, 1 << 16)
    if name.lower().endswith(".ndjson"):
        line = start.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n")[0]
        return "ndjson" if line.startswith(b"{") and re.search(rb'"drawing"\s*:\s*\[', line) else ""
    return "binary" if name.lower().endswith(".bin") and _like_binary(start) else ""


def _like_binary(start: bytes) -> bool:
    """Whether records follow one another as they must: letters of a country, a flag, strokes whose lengths fit."""
    at = drawn = 0
    while at + _HEAD.size <= len(start):
        _, country, recognized, _, strokes = _HEAD.unpack_from(start, at)
        if not re.fullmatch(rb"[A-Z0-9]{2}", country) or recognized not in (0, 1):
            return False
        at += _HEAD.size
        for _ in range(strokes):
            if at + 2 > len(start):
                return bool(drawn or strokes)
            points = int.from_bytes(start[at : at + 2], "little")
            at += 2 + 2 * points
        drawn += strokes > 0 and at <= len(start)
    return drawn > 0


def read(root: Path, size: int = 64, stroke: float | None = None, limit: int | None = None) -> DataIndex:
    """The drawings of a folder or of one file.

    Args:
        root: the folder, or a file.
        size: side of the pictures in pixels.
        stroke: width of the lines in pixels; None is a twentieth of the side.
        limit: most drawings that are taken from each file, from its beginning; None takes all.

    Raises:
        UsageError: unusable options.
        DataError: no file of drawings, or not one usable drawing.
    """
    root = Path(root)
    side, width = check_options(size, stroke)
    folder = root if root.is_dir() else root.parent
    problems = Problems(folder)
    files = [root.name] if root.is_file() else walk(folder, problems).others
    if limit is not None and not (str(limit).isdecimal() and int(limit) > 0):
        raise UsageError(f"limit is the number of drawings to take from each file, not {limit!r}")
    most = None if limit is None else int(limit)
    found: list[tuple[str, Record]] = []
    splits: dict[str, list[int]] = {}
    ids: set[str] = set()
    for file in files:
        kind = _kind(folder, file)
        if not kind:
            if file not in TABLE_NAMES:
                problems.add("files without drawings", folder / file, "holds no drawings; skipped")
            continue
        split = fs.split_name(file.split("/")[0]) if "/" in file and fs.is_split(file.split("/")[0]) else ""
        drawings = (_ndjson if kind == "ndjson" else _binary)(folder / file, problems)
        for count, (number, word, key, strokes, facts) in enumerate(drawings):
            if most is not None and count >= most:
                break
            name = key if key and key not in ids else f"{file}#{number}"
            ids.add(name)
            if split:
                splits.setdefault(split, []).append(len(found))
            found.append((word, Record(f"{file}#{number}", name, (side, side), extra={"strokes": strokes, **facts})))
    if not found:
        said = problems.list()
        raise DataError(root, "holds no usable drawing", hint=str(said[0]) if said else "expected .ndjson or .bin files of Quick, Draw!")
    table = find_class_table(folder) if root.is_dir() else None
    classes = check_classes(table.names if table else None, {word for word, _ in found}, table.path if table else folder)
    label = {name: k for k, name in enumerate(classes)}
    for word, record in found:
        record.label = label[word]
    return DataIndex(
        NAME, folder, classes, PackedRecords(r for _, r in found),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=fs.split_rank)}, tasks=TASKS, problems=problems.list(),
        reason=f"drawings of {len(classes)} words", reader=StrokeReader(side, width),
    )  # fmt: skip


Drawing = tuple[int, str, str, Strokes, dict[str, Any]]
"""Number in the file, word, key_id, strokes, and the other facts."""


def _ndjson(path: Path, problems: Problems) -> Iterator[Drawing]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
                if len(line) == _MAX_LINE:
                    problems.add(
                        "files with endless lines", path, "is longer than 16 MB; the file is read up to here", where=f"line {number}"
                    )
                    return
                if not line.strip():
                    continue
                try:
                    yield number, *_from_json(line)
                except (ValueError, RecursionError, MemoryError) as error:
                    what = "is no JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError) else str(error)
                    problems.add("lines without a usable drawing", path, f"{what}; skipped", where=f"line {number}")
    except OSError as error:
        problems.add("files that cannot be read", path, f"cannot be read: {error.strerror or error}")


def _from_json(line: bytes) -> tuple[str, str, Strokes, dict[str, Any]]:
    """Word, key_id, strokes and facts of a line; ValueError says what is wrong."""
    content = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    if not isinstance(content, dict):
        raise ValueError("is no JSON object")
    word, drawing, key = (content.get(k) for k in ("word", "drawing", "key_id"))
    if not isinstance(word, str) or not word.strip() or re.search("[\ud800-\udfff]", word):
        raise ValueError("has no word")
    if not isinstance(drawing, list):
        raise ValueError("has no list of strokes")
    strokes = []
    for k, item in enumerate(drawing, 1):
        try:
            rows = np.asarray(item)
        except ValueError:  # rows of different lengths
            rows = np.zeros(0, dtype=object)
        if rows.dtype.kind not in "iuf" or rows.ndim != 2 or len(rows) not in (2, 3):
            if item in ([], [[], []], [[], [], []]):
                continue
            raise ValueError(f"stroke {k} is not two or three lists of as many numbers")
        if not (np.abs(rows[:2].astype(np.float64)) < _LIMIT).all() or not (np.abs(rows[2:].astype(np.float64)) < 1e15).all():
            raise ValueError(f"stroke {k} has a coordinate that is no number below {_LIMIT:g}")
        if rows.shape[1]:
            strokes.append(rows.T.astype(np.float64))
    if not strokes:
        raise ValueError("has no point")
    if {s.shape[1] for s in strokes} == {2, 3}:
        strokes = [s[:, :2] for s in strokes]
    facts = {k: content[k] for k in _FACTS if isinstance(content.get(k), (str, bool, int))}
    return word.strip(), key if isinstance(key, str) else str(key) if isinstance(key, int) else "", pack(strokes), facts


def _binary(path: Path, problems: Problems) -> Iterator[Drawing]:
    word = re.sub(r"^full[_/]?(binary|simplified|raw)_", "", path.stem)
    try:
        if path.stat().st_size > _MAX_BINARY:
            problems.add("files that are too large", path, f"is larger than {_MAX_BINARY >> 20} MB: not one word's drawings; skipped")
            return
        data = path.read_bytes()
    except OSError as error:
        problems.add("files that cannot be read", path, f"cannot be read: {error.strerror or error}")
        return
    at = number = 0
    while at < len(data):
        number += 1
        start, xs, ys, ends, total = at, [], [], [], 0
        whole = at + _HEAD.size <= len(data)
        if whole:
            key, country, recognized, stamp, strokes = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            for _ in range(strokes):
                count = int.from_bytes(data[at : at + 2], "little")
                middle, end = at + 2 + count, at + 2 + 2 * count
                if at + 2 > len(data) or end > len(data):
                    whole = False
                    break
                xs.append(data[at + 2 : middle])
                ys.append(data[middle:end])
                at, total = end, total + count
                if count:
                    ends.append(total)
        if not whole:
            problems.add("truncated files", path, "ends inside a drawing; it is read up to there", where=f"record {number}, byte {start}")
            return
        if not ends:
            problems.add("records without a usable drawing", path, "has no point; skipped", where=f"record {number}")
            continue
        points = np.stack([np.frombuffer(b"".join(v), dtype=np.uint8) for v in (xs, ys)], axis=1)
        facts = {"countrycode": country.decode("latin-1"), "timestamp": stamp, "recognized": bool(recognized)}
        yield number, word, str(key), {"points": points, "ends": np.array(ends, dtype=np.int32)}, facts


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``[split/]WORD.ndjson`` and ``classes.json``; returns what was lost, in words.

    Raises:
        UsageError: an image has no strokes.
    """
    strokes_of([r for _, r in fs.unique_records(dataset)], TITLE)
    losses = fs.count_losses(dataset, TITLE, set(HOLDS))
    by_split = fs.splits_of(dataset)
    names = _file_names(dataset.classes)
    seen: set[int] = set()
    unlabelled = twice = scaled = 0
    for split, members in by_split.items():
        folder = out / split if fs.is_split(split) else out
        folder.mkdir(exist_ok=True)
        lines: dict[int, list[str]] = {}
        for number in members:
            record = dataset.index.records[number]
            if number in seen:
                twice += 1
            elif record.label is None:
                unlabelled += 1
            else:
                drawing, changed = _drawing(record.extra["strokes"])  # type: ignore[index]
                scaled += changed
                facts = {k: record.extra[k] for k in _FACTS if k in record.extra}  # type: ignore[index, operator]
                content = {"word": dataset.classes[record.label], **facts, "key_id": record.image_id, "drawing": drawing}
                lines.setdefault(record.label, []).append(json.dumps(content, separators=(",", ":")) + "\n")
            seen.add(number)
        for label, texts in lines.items():
            with open(folder / f"{names[label]}.ndjson", "a", encoding="utf-8") as file:
                file.writelines(texts)
    write_class_names(out, dataset.classes)
    if scaled:
        losses.append(f"the coordinates of {scaled} drawings are scaled to 0..255 and rounded")
    if unlabelled:
        losses.append(f"{unlabelled} images without a label are left out")
    losses += fs.split_losses(by_split, twice)
    return losses


def _drawing(strokes: Strokes) -> tuple[list[list[list[float]]], bool]:
    """The lists of a drawing, and whether its coordinates had to change."""
    points = strokes["points"]
    changed = False
    if points.shape[1] == 2 and points.dtype != np.uint8:
        low = points.min(0).astype(np.float64)
        extent = float((points.max(0) - low).max())
        points, changed = np.rint((points - low) * (255 / extent if extent > 0 else 1)).astype(np.uint8), True
    exact = points if points.dtype == np.uint8 else fs.shorten(points)
    lists = unpack({"points": exact, "ends": strokes["ends"]})
    return [[[int(v) if v == int(v) else v for v in row] for row in s.T.tolist()] for s in lists], changed


def _file_names(classes: list[str]) -> list[str]:
    """A file name for each word, different without regard to case."""
    names: list[str] = []
    for k, word in enumerate(classes):
        name = re.sub(r'[\x00-\x1f/\\:*?"<>|.]', "_", word).strip()[:60] or "_"
        names.append(f"{name}_{k}" if name.lower() in {n.lower() for n in names} else name)
    return names
