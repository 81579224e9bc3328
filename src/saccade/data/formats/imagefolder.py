"""Image folders: the folder is the class, as torchvision's ``ImageFolder`` reads them; a level of train/val/test above is the split.

``flowers/rose/1.jpg`` or ``flowers/train/rose/1.jpg``. Folders deeper inside a class belong to it. Classes are sorted as text
(torchvision's order, so labels agree with networks trained there) unless all are whole numbers; or as ``classes.json`` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import copy_image, count_losses, is_split, split_losses, split_name, split_rank, splits_of
from saccade.data.formats.scan import (
    TABLE_NAMES,
    Problems,
    check_classes,
    find_class_table,
    folders_of,
    holds_image,
    walk,
    write_class_names,
)
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "imagefolder"
TITLE = "a folder for each class"
TASKS = ("classify",)
HOLDS = frozenset({"label"})


def sniff(root: Path) -> str | None:
    """At least two class folders with images, or split folders with class folders."""
    folders, split_level = _top(root)
    folders = [f for f in folders if holds_image(root / f)]
    if split_level:
        return f"class folders in {', '.join(folders)}"
    if len(folders) >= 2 and not all(map(is_split, folders)):
        return f"{len(folders)} folders with images, each a class"
    return None


def read(root: Path, classes: Sequence[str] | None = None) -> DataIndex:
    """Read the images; nothing is decoded.

    Args:
        root: the folder above the classes or splits.
        classes: class names in order of their labels; None takes ``classes.json`` (.csv, .txt) or the folders.

    Raises:
        DataError: no image lies in a class folder, or a folder is not among ``classes``.
    """
    if not root.is_dir():
        raise DataError(root, "is a file", hint="an image folder is a folder of class folders")
    problems = Problems(root)
    folders, split_level = _top(root)
    files = walk(root, problems)
    depth = 2 if split_level else 1
    rows: list[tuple[str, str, str]] = []  # path, class, split
    for path in files.images:
        parts = path.split("/")
        if len(parts) <= depth:
            problems.add("images in no class folder", root / path, "lies in no class folder; skipped")
        else:
            rows.append((path, parts[depth - 1], split_name(parts[0]) if split_level else ""))
    for path in files.others:
        if path not in TABLE_NAMES:
            problems.add("files that are no images", root / path, "is not named like an image; skipped")
    if not rows:
        hint = "put the images of each class into a folder of its name"
        if len(folders) == 1 and folders_of(root / folders[0]):
            hint = f"did you mean {root / folders[0]}?"
        raise DataError(root, "holds no image in a class folder", hint=hint)

    table = find_class_table(root) if classes is None else None
    names = check_classes(table.names if table else classes, {name for _, name, _ in rows}, table.path if table else root)
    for folder in folders:
        for name in folders_of(root / folder) if split_level else [folder]:
            where = root / folder / name if split_level else root / name
            if not holds_image(where):
                problems.add("class folders without images", where, "is a class folder without images")
    splits: dict[str, list[int]] = {}
    for i, (_, _, split) in enumerate(rows):
        splits.setdefault(split, []).append(i)
    if split_level:
        for name in names:
            missing = [s for s, members in splits.items() if s != "test" and not any(rows[i][1] == name for i in members)]
            if missing:
                problems.add("classes that a split lacks", root, f"the class {name!r} has no image in {', '.join(missing)}")
    label = {name: k for k, name in enumerate(names)}
    return DataIndex(
        format=NAME,
        root=root,
        classes=names,
        records=PackedRecords(Record(path=path, image_id=path, label=label[name]) for path, name, _ in rows),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=split_rank)} if split_level else {},
        tasks=TASKS,
        problems=problems.list(),
        reason=f"{len(names)} class folders" + (f" in {', '.join(folders)}" if split_level else ""),
    )


def write(dataset: Dataset, out: Path) -> list[str]:
    """``[split/]class/image``; images without a label or, where there are splits, without one, are left out."""
    losses = count_losses(dataset, TITLE, set(HOLDS))
    by_split = splits_of(dataset)
    if any(name and not is_split(name) for name in by_split):  # one without a folder costs all of them
        losses.append(f"the splits {', '.join(n for n in by_split if n)} are lost: only train, val, trainval, test have folders")
        by_split = {"": list(dict.fromkeys(i for members in by_split.values() for i in members))}
    if set(by_split) != {""} and by_split.get(""):
        losses.append(f"{len(by_split.pop(''))} images of no split are left out")
    folders = _folder_names(dataset.classes)
    losses += [f"the class {a!r} becomes the folder {b!r}" for a, b in zip(dataset.classes, folders, strict=True) if a != b]
    seen: set[int] = set()
    unlabelled = twice = 0
    for split, members in by_split.items():
        for number, record in ((i, dataset.index.records[i]) for i in members):
            if number in seen:
                twice += 1
            elif record.label is None:
                unlabelled += 1
            else:
                folder = out / split / folders[record.label]
                folder.mkdir(parents=True, exist_ok=True)
                own = Path(record.path if dataset.index.reader is None else re.sub(r"[^\w.-]+", "_", record.image_id) + ".png").name
                copy_image(dataset, record, _free(folder, own))
            seen.add(number)
    if unlabelled:
        losses.append(f"{unlabelled} images without a label are left out")
    losses += split_losses((), twice)
    write_class_names(out, folders)
    return losses


def _top(root: Path) -> tuple[list[str], bool]:
    """The folders of the top level, and whether they are splits with class folders inside."""
    folders = folders_of(root)
    full = [f for f in folders if holds_image(root / f)]
    splits = [f for f in full if is_split(f)]
    level = bool(splits) and len(splits) == len(full) and any(holds_image(root / f / c) for f in splits for c in folders_of(root / f))
    return (splits if level else folders), level


def _folder_names(classes: Sequence[str]) -> list[str]:
    """A usable folder name for each class, different without regard to case."""
    names: list[str] = []
    taken: set[str] = set()
    for name in classes:
        plain = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).strip().strip(".") or "_"
        for choice in _numbered(plain):
            if choice.lower() not in taken:
                taken.add(choice.lower())
                names.append(choice)
                break
    return names


def _free(folder: Path, name: str) -> Path:
    """A path in the folder that is not taken yet."""
    path = Path(name)
    return next(p for p in (folder / f"{stem}{path.suffix}" for stem in _numbered(path.stem)) if not p.exists())


def _numbered(name: str) -> Iterator[str]:
    yield name
    k = 2
    while True:
        yield f"{name}_{k}"
        k += 1
