r"""A folder of pictures without truth, flat or nested; the class may stand in the files' names. Read and written.

For tasks that need no truth (generate, stylize), for prediction, and for inspection. Every file named like an image, in the folder and
below, is a record; nothing is decoded. Other files are reported. Folders called train, val or test at the top are splits.

**Classes from names.** Pictures named as ImageNet's (``n01440764_tench.JPEG``), all of them, are labelled by themselves; a name that
two synsets have gets the synset behind it. ``label="name"`` asks for the label in the name: the words before a number at the end
(``cat.12.jpg`` is cat), or the group ``label`` of a ``pattern``, a regular expression for the whole name without its suffix, such
as ``"(?P<label>[a-z]+)_\d+"``. Pictures whose names do not match are reported and left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats import imagefolder
from saccade.data.formats.scan import Problems, check_classes, holds_image, look, walk
from saccade.data.images import is_image_name
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

NAME = "images"
TITLE = "a folder of pictures"
TASKS: tuple[str, ...] = ()
HOLDS: frozenset[str] = frozenset()

_SYNSET = re.compile(r"(n\d{8})_(.+)")
_WORDS = r"(?P<label>.*[^\W\d_])[\W\d_]*"
_LONGEST = 255
"""Names beyond are not matched: what a file system allows, and what keeps a careless pattern from running for ever."""


def sniff(root: Path) -> str | None:
    """Images in the folder itself; or below it, where they are in no folders of classes."""
    root = Path(root)
    here = look(root)
    count = sum(map(is_image_name, here.files))
    if count:
        return f"{count} image{'s' * (count != 1)} and no annotation"
    if not any(holds_image(root / f) for f in here.folders):
        return None
    if imagefolder.sniff(root) or any(imagefolder.sniff(root / f) for f in here.folders[:50]):
        return None
    return "images in folders and no annotation"


def read(root: Path, label: str = "auto", pattern: str = "", classes: Sequence[str] | None = None) -> DataIndex:
    """List the images.

    Args:
        root: the folder.
        label: "name": the class is in the file's name; "none": there is none; "auto": it is where all are named as ImageNet's.
        pattern: regular expression with a group ``label``, matched against the whole name without suffix; implies ``label="name"``.
        classes: class names in order of their labels; None sorts those found.

    Raises:
        UsageError: another value of ``label``, or a pattern that is none.
        DataError: no image, or none whose name holds a class.
    """
    if label not in ("auto", "name", "none"):
        raise UsageError(f"label is 'auto', 'name' or 'none', not {label!r}")
    compiled = _compiled(pattern) if pattern else None
    if not root.is_dir():
        raise DataError(root, "is a file", hint="give the folder that holds it")
    problems = Problems(root)
    files = walk(root, problems)
    for path in files.others:
        problems.add("files that are no images", root / path, "is not named like an image; not read")
    if not files.images:
        raise DataError(root, "holds no image")
    names = _labels(files.images, label, compiled)
    if names is not None:
        for path in (p for p, name in zip(files.images, names, strict=True) if not name):
            problems.add("names without a class", root / path, "its name holds no class; left out")
    rows = [(p, "") for p in files.images] if names is None else [(p, n) for p, n in zip(files.images, names, strict=True) if n]
    if not rows:
        hint = f"the pattern {pattern!r} fits none" if pattern else "say how with a pattern"
        raise DataError(root, "no image's name holds a class", hint=hint)
    found = check_classes(classes, {name for _, name in rows}, root) if names is not None else []
    number = {name: k for k, name in enumerate(found)}
    splits: dict[str, list[int]] = {}
    for k, (path, _) in enumerate(rows):
        first = path.split("/")[0]
        if "/" in path and fs.is_split(first):
            splits.setdefault(fs.split_name(first), []).append(k)
    return DataIndex(
        NAME, root, found, PackedRecords(Record(path, path, label=number.get(name)) for path, name in rows),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=fs.split_rank)},
        tasks=("classify",) if found else (), problems=problems.list(),
        reason=f"{len(rows)} images" + (f", {len(found)} classes in their names" if found else " and no annotation"),
    )  # fmt: skip


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"the pattern {pattern!r} is no regular expression: {error}") from None
    if "label" not in compiled.groupindex:
        raise UsageError(f"the pattern {pattern!r} has no group 'label': write (?P<label>...) around the class")
    return compiled


def _labels(paths: Sequence[str], label: str, pattern: re.Pattern[str] | None) -> list[str] | None:
    """The class in each name, "" where there is none; None when names are not asked for classes."""
    stems = [os.path.splitext(p.rpartition("/")[2])[0] for p in paths]
    if pattern is None:
        if label == "none":
            return None
        synsets = [_SYNSET.fullmatch(s) for s in stems]
        if len(stems) > 1 and all(synsets):
            pairs = [(m[1], m[2]) for m in synsets if m]
            ids: dict[str, set[str]] = {}
            for key, name in pairs:
                ids.setdefault(name, set()).add(key)
            return [f"{name} ({key})" if len(ids[name]) > 1 else name for key, name in pairs]
        if label == "auto":
            return None
        pattern = re.compile(_WORDS)
    matches = [pattern.fullmatch(s) if len(s) <= _LONGEST else None for s in stems]
    return [(m["label"] or "").strip() if m else "" for m in matches]


def write(dataset: Dataset, out: Path) -> list[str]:
    """The pictures as they are, in the folders that they have; those of train, val, test below a folder of that name."""
    lost: list[str] = []
    names = fs.file_names(dataset, flat=False)
    by_split = fs.splits_of(dataset)
    places: dict[int, str] = {}
    taken: set[str] = set()
    twice = renamed = 0
    for split, members in by_split.items():
        for number in members:
            twice += number in places
            if number in places:
                continue
            record = dataset.index.records[number]
            path = places[number] = _place(names[number], split if fs.is_split(split) else "", taken)
            renamed += path != record.image_id
            fs.copy_image(dataset, record, out / path)
    lost += fs.split_losses(by_split, twice)
    if renamed:
        lost.append(f"{renamed} image ids change to the paths of their files")
    by_name = _labels(list(places.values()), "auto", None)
    labels = [dataset.index.records[number].label for number in places]
    kept = by_name is not None and by_name == [None if k is None else dataset.classes[k] for k in labels]
    return [*lost, *fs.count_losses(dataset, TITLE, {"label"} if kept else set(HOLDS))]


def _place(name: str, split: str, taken: set[str]) -> str:
    """Where an image goes: below the folder of its split and of no other, recognised as an image, not taken."""
    first, _, rest = name.partition("/")
    if rest and fs.is_split(first):
        name = f"{split or first + '_'}/{rest}"
    elif split:
        name = f"{split}/{name}"
    name = name if is_image_name(name) else f"{name}.png"
    stem, suffix = os.path.splitext(name)
    k = 1
    while name.lower() in taken:
        k += 1
        name = f"{stem}_{k}{suffix}"
    taken.add(name.lower())
    return name
