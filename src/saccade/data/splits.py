"""Splits of a data set: made (seeded, stratified) or read from a file of names."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import read_json, read_text, split_name
from saccade.data.records import DataIndex, Record
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.files import atomic

NAMES = ("train", "val", "test")


def make_splits(
    data: DataIndex | Dataset,
    fractions: Sequence[float] | Mapping[str, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Divide the images into train, val and test (or other names), stratified, the same on every machine.

    Images are ordered by a hash of (seed, image_id), so neither the order of files nor a library's random generator matters. The
    stratum of an image is its label; for detection the rarest class in it (by images that show it), or "no object";
    for masks there is one stratum. Strata are dealt out from the rarest on, each image to the split that lags furthest
    behind its fraction; so a split's size is within one image of its fraction, and a stratum's share within two images.

    Rules for small sets: a class of one image goes to the first split (train); every split of a fraction
    above 0 gets at least one image when there are enough; with fewer images than splits the first splits get one each.

    Args:
        data: an index, or a data set to divide further.
        fractions: for train, val, test (two: train, val), or by name; at least 0, sum 1.
        seed: another seed gives another division.
        groups: (N,) a number for every image of ``data`` (patients, films, near duplicates): images of one number stay together.
            Classes are dealt out as evenly as the groups allow.

    Returns:
        Numbers of records in the index (as ``DataIndex.splits``), ascending, by split.

    Raises:
        UsageError: fractions that are none.
    """
    shares = dict(fractions) if isinstance(fractions, Mapping) else dict(zip(NAMES, fractions, strict=False))
    values = np.array(list(shares.values()), dtype=np.float64)
    if len(shares) != len(fractions) or not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > 1e-6:
        raise UsageError(f"fractions of splits are numbers from 0 that add up to 1, at most {', '.join(NAMES)}; got {fractions}")
    index = data.index if isinstance(data, Dataset) else data
    numbers = np.unique(data.indices) if isinstance(data, Dataset) else np.arange(len(index))
    records = [index.records[int(i)] for i in numbers]
    if groups is not None:
        given = np.asarray(groups)
        if given.shape != (len(data),):
            raise UsageError(f"{len(data)} images need {len(data)} group numbers, not {given.shape}")
        if isinstance(data, Dataset):
            given = given[np.unique(data.indices, return_index=True)[1]]
        owner = _deal_groups(records, len(index.classes), given, values, seed)
        return {name: numbers[owner == s] for s, name in enumerate(shares)}
    strata = _strata(records, len(index.classes))
    order = sorted(range(len(records)), key=lambda k: _hash(seed, records[k].image_id))
    sizes = np.bincount(strata, minlength=1)
    order.sort(key=lambda k: (sizes[strata[k]], strata[k]))  # stable: by hash within a stratum

    owner = np.zeros(len(records), dtype=np.int64)
    dealt = np.zeros(len(shares))
    open_splits = np.flatnonzero(values > 0)
    for count, k in enumerate(order, 1):
        single = sizes[strata[k]] == 1 and len(sizes) > 1
        lag = values[open_splits] * count - dealt[open_splits]
        owner[k] = open_splits[0] if single else open_splits[int(lag.argmax())]
        dealt[owner[k]] += 1
    for split in open_splits:  # an empty split takes the last image of the largest one
        if dealt[split] == 0 and dealt.max() > 1:
            largest = int(dealt.argmax())
            last = next(k for k in reversed(order) if owner[k] == largest)
            owner[last] = split
            dealt[largest] -= 1
            dealt[split] += 1
    return {name: numbers[owner == s] for s, name in enumerate(shares)}


def make_folds(data: DataIndex | Dataset, k: int, seed: int = 0, *, groups: Sequence[int] | np.ndarray | None = None) -> list[np.ndarray]:
    """Divide the images into k folds of equal size, stratified as :func:`make_splits` does.

    Returns:
        k ascending arrays of numbers of records, which together are all images.

    Raises:
        UsageError: fewer than two folds, or more than images (or groups).
    """
    units = len(data) if groups is None else len(set(np.asarray(groups).tolist()))
    if not 2 <= k <= units:
        raise UsageError(f"{k} folds cannot be made of {units} {'images' if groups is None else 'groups'}: choose 2 to {units}")
    return list(make_splits(data, {f"fold{i + 1}": 1 / k for i in range(k)}, seed, groups=groups).values())


def group_numbers(data: Dataset, pattern: str) -> np.ndarray:
    """(N,) int64 group of every image by its path: ``"folder"`` takes the folder, else a regular expression (its first group, or all).

    An image that the expression does not match is a group of its own.

    Raises:
        UsageError: a broken expression, or one that matches no image.
    """
    try:
        expression = None if pattern == "folder" else re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
    keys: list[str] = []
    for i, record in enumerate(data.map_records(lambda r: r)):
        if expression is None:
            keys.append(record.path.rpartition("/")[0])
        else:
            match = expression.search(record.path)
            keys.append(f"\x00{i}" if match is None else match[1 if expression.groups else 0] or "")
    if expression is not None and all(key.startswith("\x00") for key in keys):
        raise UsageError(f"{pattern!r} matches no path such as {data.record(0).path!r}")
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def write_split_file(path: str | Path, splits: Mapping[str, np.ndarray], index: DataIndex) -> Path:
    """A JSON file of image ids by split, which ``--split-file`` and :func:`read_split_file` take."""
    path = Path(path)
    content = {name: [index.records[int(i)].image_id for i in members] for name, members in splits.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    return path


def _deal_groups(records: list[Record], classes: int, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """(N,) split of every image; images of a group together.

    Greedy least squares: a split shall get its share of the images that show each class, and of all images. Groups are dealt out
    from those that hold the largest part of some class on, each to the split where it lowers the sum over the classes of the squared
    relative error most. (Iterative stratification, Sechidis et al. 2011, deals by one class at a time, which mixed groups defeat.)
    """
    numbers, unit = np.unique(groups, return_inverse=True)
    table = np.zeros((len(numbers), classes + 1))  # images that show a class, by group; last: all images
    for k, record in enumerate(records):
        shown = np.unique(record.labels) if record.label is None and record.labels is not None else record.label
        if shown is not None:
            table[unit[k], shown] += 1
        table[unit[k], -1] += 1
    table /= np.maximum(table.sum(0), 1)  # parts of each class
    first = {int(u): records[k].image_id for k, u in reversed(list(enumerate(unit)))}
    order = sorted(range(len(numbers)), key=lambda g: (-table[g].max(), -table[g, -1], _hash(seed, first[g])))
    lacks = np.repeat(shares[:, None], classes + 1, axis=1)
    owner = np.zeros(len(numbers), dtype=np.int64)
    for g in order:
        gain = lacks @ table[g]  # (lacks - part)^2 falls by 2 lacks part - part^2
        gain[shares == 0] = -np.inf
        owner[g] = gain.argmax()
        lacks[owner[g]] -= table[g]
    for split in np.flatnonzero(shares > 0):  # an empty split takes the smallest group of a split that has several
        if not (owner == split).any():
            held = np.bincount(owner, minlength=len(shares))
            spare = [g for g in order[::-1] if held[owner[g]] > 1]
            if spare:
                owner[spare[0]] = split
    return owner[unit]


def _hash(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\x00{image_id}".encode("utf-8", "surrogatepass")).digest()


def _strata(records: list[Record], classes: int) -> np.ndarray:
    """(N,) int64 stratum of every image, from 0."""
    if any(r.label is not None for r in records):
        return np.array([-1 if r.label is None else r.label for r in records], dtype=np.int64) + 1
    present = [np.unique(r.labels) if r.labels is not None else np.zeros(0, np.int64) for r in records]
    images = np.bincount(np.concatenate(present) if present else np.zeros(0, np.int64), minlength=classes)
    return np.array([1 + int(p[images[p].argmin()]) if len(p) else 0 for p in present], dtype=np.int64)


# ------------------------------------------------------------------------------------------------------- from a file


def read_split_file(path: str | Path, index: DataIndex) -> dict[str, np.ndarray]:
    """Splits from a file of image names.

    A text file holds a name a line (``#`` starts a comment line) and is one split, called by the file's stem;
    a JSON file holds ``{"train": [names], ...}``; a CSV file the columns name and split (a header is optional). A name matches
    an image by its id, path, file name or stem, in this order; a path with a foreign beginning by its last parts.
    A name that stands twice counts once; that, and an image in several splits, is reported in ``index.problems``.

    Returns:
        Numbers of records, in the order of the file, by split.

    Raises:
        DataError: an unreadable file, a name that is no image of the data or fits several; it names the line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(path, "is not a file", hint="a split file is .txt (a name a line), .json or .csv")
    if suffix == ".json":
        rows = _json_rows(path)
    elif suffix == ".csv":
        rows = _csv_rows(path)
    else:
        lines = enumerate(read_text(path).splitlines(), 1)
        rows = [(split_name(path.stem), t.strip(), f"line {n}") for n, t in lines if t.strip() and not t.lstrip().startswith("#")]
    if not rows:
        raise DataError(path, "names no image", hint="a split file is .txt (a name a line), .json or .csv")
    names = _Names(index)
    splits: dict[str, dict[int, None]] = {}
    first: dict[int, str] = {}
    shared: dict[int, str] = {}
    for split, name, where in rows:
        number = names.find(name, path, where)
        members = splits.setdefault(split, {})
        if number in members:
            index.problems.append(DataError(path, f"{name!r} stands twice in {split}; it counts once", where=where))
        elif first.setdefault(number, split) != split:
            shared.setdefault(number, where)
        members[number] = None
    if shared:
        where = next(iter(shared.values()))
        index.problems.append(DataError(path, f"{len(shared)} images stand in more than one split", where=where))
    return {split: np.array(list(members), dtype=np.int64) for split, members in splits.items()}


def _json_rows(path: Path) -> list[tuple[str, str, str]]:
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(v, list) for v in data.values()):
        raise DataError(path, "is not an object of lists", hint='expected {"train": ["name", ...], "val": [...]}')
    rows = []
    for split, names in data.items():
        for k, name in enumerate(names):
            if isinstance(name, bool) or not isinstance(name, (str, int)):
                raise DataError(path, f"holds {name!r}, not a name", where=f"{split}[{k}]")
            rows.append((split, str(name), f"{split}[{k}]"))
    return rows


def _csv_rows(path: Path) -> list[tuple[str, str, str]]:
    reader = csv.reader(read_text(path).splitlines())
    try:
        table = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise DataError(path, f"is not CSV: {error}", where=f"line {reader.line_num}") from None
    if not table:
        return []
    head = [c.lower() for c in table[0][1]]
    name_at, split_at = 0, 1
    if header := next((c for c in ("split", "set", "subset", "fold", "partition") if c in head), None):
        split_at = head.index(header)
        known = ("name", "image", "image_id", "filename", "file", "file_name", "filepath", "path", "id")
        name_at = next((head.index(c) for c in known if c in head), 1 if split_at == 0 else 0)
        table = table[1:]
    rows = []
    for number, row in table:
        if len(row) <= max(name_at, split_at) or not row[name_at] or not row[split_at]:
            raise DataError(path, "has no name and split", where=f"line {number}", hint="expected the columns name,split")
        rows.append((split_name(row[split_at]), row[name_at], f"line {number}"))
    return rows


class _Names:
    """Finds records by name. A key that several records have is kept as such, to say so."""

    def __init__(self, index: DataIndex) -> None:
        self.paths = [r.path for r in index.records]
        ids = [r.image_id for r in index.records]
        bases = [p.rpartition("/")[2] for p in self.paths]
        self.tables: list[dict[str, list[int]]] = []
        for keys in (ids, self.paths, bases, [os.path.splitext(b)[0] for b in bases]):
            table: dict[str, list[int]] = {}
            for k, key in enumerate(keys):
                table.setdefault(key, []).append(k)
            self.tables.append(table)

    def find(self, name: str, source: Path, where: str) -> int:
        text = name.replace("\\", "/").removeprefix("./")
        base = text.rpartition("/")[2]
        several: list[int] = []
        for key, table in zip((name, text, base, base), self.tables, strict=True):
            found = table.get(key, [])
            if len(found) > 1 and "/" in text:  # a path says more than its last part
                found = self._longest(text, found)
            if len(found) == 1:
                return found[0]
            several = several or found
        if several:
            shown = ", ".join(self.paths[k] for k in several[:3])
            raise DataError(source, f"{name!r} fits {len(several)} images: {shown}", where=where, hint="name them by their path")
        known = {**self.tables[2], **self.tables[3]}
        raise DataError(source, f"{name!r} is no image of the data{suggest(base, list(known)[:20000])}", where=where)

    def _longest(self, text: str, found: list[int]) -> list[int]:
        """Of records with the same last part, those that share most parts with the path from the end on."""
        parts = os.path.splitext(text)[0].split("/")[::-1]

        def shared(k: int) -> int:
            other = os.path.splitext(self.paths[k])[0].split("/")[::-1]
            return next((i for i, (a, b) in enumerate(zip(parts, other, strict=False)) if a != b), min(len(parts), len(other)))

        best = max(map(shared, found))
        return [k for k in found if shared(k) == best]
