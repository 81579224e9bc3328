"""Class masks as images: each picture has a mask of its size whose values (palette indices or grey levels) are classes.

How picture and mask find each other, by the stem of their names:

* folders: ``images/a.jpg`` + ``masks/a.png`` (also annotations, labels, SegmentationClass, gtFine ... for masks), below or above
  folders of splits; or ``train/a.png`` + ``trainannot/a.png`` (CamVid);
* side by side: ``001.bmp`` + ``001.png``, or ``a.png`` + ``a_mask.png`` (also _seg, _label, _labels, _gt, _annot, _L).

Splits come from list files (``train.txt``: picture and mask, or a stem, on each line; of a foreign path the last two parts count) or
from folders. Class names and values come from ``classes.json`` / ``.csv`` / ``.txt`` (see :func:`~.scan.read_class_table`), or
the values are read off the masks (up to 40 million pixels of them, evenly picked): each is a class named by its value. Where classes
are grey levels at least 8 apart and a few pixels have other values (smoothed edges), those go to the nearest class, which is
reported. No value means "ignore" by itself. Masks in colours are :mod:`.mask_color`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats.files import (
    copy_file,
    copy_image,
    count_losses,
    file_names,
    image_hw,
    is_split,
    read_text,
    split_losses,
    split_name,
    split_rank,
    splits_of,
)
from saccade.data.formats.scan import IMAGE_FOLDERS, MASK_FOLDERS, TABLE_NAMES, Files, Problems, find_class_table, glimpse, plain_path, walk
from saccade.data.images import IMAGE_SUFFIXES, is_colored, is_image_name, read_mask
from saccade.data.records import DataIndex, PackedRecords, Record, inside
from saccade.types.errors import DataError
from saccade.types.sample import IGNORE

NAME = "masks"
TITLE = "images with class masks"
TASKS = ("segment",)
HOLDS = frozenset({"mask"})

SAMPLE_PIXELS = 40_000_000
"""Pixels of masks that are read to find the class values."""

RARE_SHARE, RARE_MASKS = 0.001, 0.25
"""A value with less than this share of the sampled pixels, in less than this share of the masks, may be a stray one."""

_SUFFIXES = ("_mask", "_masks", "_seg", "_label", "_labels", "_gt", "_annot", "_L", "-mask", "annot", "mask", "masks")
_GREY_STEP = 8


class Pairs(NamedTuple):
    """Images with their masks: records by path, their splits, and the paths of the masks."""

    records: list[Record]
    splits: dict[str, np.ndarray]
    masks: list[str]


def sniff(root: Path) -> str | None:
    """Pairs of picture and mask that make up at least half of the images; the masks hold values, not colours."""
    pairs = sniff_pairs(root)
    return f"{len(pairs)} pairs of image and mask" if pairs and not any(colored_masks(root, pairs)) else None


def sniff_pairs(root: Path) -> dict[str, str]:
    """Mask by image of the first files of each folder, when they make up at least half of the images; else none."""
    if not root.is_dir():
        return {}
    files = glimpse(root)
    pairs = find_pairs(files)
    return pairs if 4 * len(pairs) >= len(files.images) else {}


def colored_masks(root: Path, pairs: Mapping[str, str], most: int = 5) -> Iterator[Path]:
    """Those of a few masks, evenly picked, that are in colours; broken ones are passed over."""
    masks = [pairs[image] for image in sorted(pairs)]
    for mask in masks[:: max(1, -(-len(masks) // most))]:
        try:
            path = inside(root, mask, source=root)
            if is_colored(path):
                yield path
        except DataError:
            continue


def read(
    root: Path,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    ignore: Iterable[int] = (),
    nearest: bool | None = None,
) -> DataIndex:
    """Pair the files; a sample of the masks is decoded when no table says the classes.

    Args:
        root: the folder.
        classes: names by mask value, or names of the values 0, 1, ...; None takes the table file, else the values.
        ignore: mask values without a class.
        nearest: whether values of no class go to the nearest class; None: as the table says, else found as the module says.

    Raises:
        DataError: no pair, a broken table, or masks that hold too many values to be classes.
    """
    problems = Problems(root)
    pairs = read_pairs(root, problems, TABLE_NAMES)
    table, ignored, near = _class_table(root, classes, tuple(ignore), nearest, pairs.masks, problems)
    return DataIndex(
        format=NAME,
        root=root,
        classes=list(table.values()),
        records=PackedRecords(pairs.records),
        splits=pairs.splits,
        tasks=TASKS,
        problems=problems.list(),
        reason=f"{len(pairs.records)} pairs of image and mask",
        mask_values={value: label for label, value in enumerate(table)},
        mask_nearest=near,
        ignore=ignored,
    )


def read_pairs(root: Path, problems: Problems, tables: Sequence[str]) -> Pairs:
    """The images with their masks and splits; ``tables`` are file names at the top that hold no images.

    Raises:
        DataError: not one pair.
    """
    if not root.is_dir():
        raise DataError(root, "is a file", hint="masks are read from a folder")
    files = walk(root, problems)
    pairs, splits_by_image = find_pairs(files), {}
    lists = [path for path in files.others if "/" not in path and path.endswith(".txt") and is_split(path[:-4])]
    for path in lists:
        _read_list(root / path, files, pairs, splits_by_image, problems)
    if not pairs:
        raise DataError(root, "holds no image with a mask", hint="put images into images/ and masks of the same names into masks/")
    masks = set(pairs.values())
    for path in files.images:
        if path not in pairs and path not in masks:
            problems.add("images or masks without their other half", root / path, "has no mask, or is a mask without image; skipped")
    for path in files.others:
        if path not in lists and path not in tables:
            problems.add("files that are no images", root / path, "is not named like an image; skipped")

    records, splits = [], {}
    for number, image in enumerate(sorted(pairs)):
        records.append(Record(path=image, image_id=image, mask=pairs[image]))
        names = splits_by_image.get(image, []) if lists else [split_name(p) for p in image.split("/")[:-1] if is_split(p)][:1]
        if lists and not names:
            problems.add("images in no list", root / image, "is in no list of a split")
        for name in names:
            splits.setdefault(name, []).append(number)
    return Pairs(records, {s: np.array(splits[s]) for s in sorted(splits, key=split_rank)}, sorted(masks))


def write(dataset: Dataset, out: Path) -> list[str]:
    """``images/[split/]``, ``masks/[split/]`` with the raw values, and ``classes.json``."""
    index = dataset.index
    losses = count_losses(dataset, TITLE, set(HOLDS))
    table = index.mask_values if index.mask_values is not None else {k: k for k in range(len(index.classes))}
    plain = sorted(table.values()) == list(range(len(index.classes)))  # each class has one value
    void = 255 if len(index.classes) < 255 else 65535

    def save(record: Record, target: Path) -> None:
        assert record.mask is not None
        if plain and index.reader is None and index.mask_colors is None:
            source = inside(index.root, record.mask, source=record.image_id)
            copy_file(source, target.with_suffix(source.suffix))
        elif plain:
            save_values(dataset.raw_mask(record)[0], target.with_suffix(".png"))
        else:
            labels = dataset.mask(record, image_hw(dataset, record))
            save_values(np.where(labels == IGNORE, void, labels), target.with_suffix(".png"))

    losses += write_pairs(dataset, out, save)
    named = {v: index.classes[k] for v, k in sorted(table.items(), key=lambda item: item[1])} if plain else dict(enumerate(index.classes))
    content: dict[str, Any] = {"classes": {str(v): n for v, n in named.items()}, "ignore": list(index.ignore) if plain else [void]}
    if plain and index.mask_nearest and index.mask_colors is None:
        content["nearest"] = True
    (out / TABLE_NAMES[0]).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return losses


def write_pairs(dataset: Dataset, out: Path, save: Callable[[Record, Path], None]) -> list[str]:
    """Copy the images that have a mask to ``images/[split/]`` and call ``save(record, masks/[split/]name)``; gives what is lost."""
    names = file_names(dataset, flat=True)
    by_split = splits_of(dataset)
    seen: set[int] = set()
    without = twice = 0
    for split, members in by_split.items():
        for number in members:
            record = dataset.index.records[number]
            if record.mask is None:
                without += 1
                continue
            if number in seen:
                twice += 1
                continue
            seen.add(number)
            place = Path(split if is_split(split) else "") / names[number]
            copy_image(dataset, record, out / "images" / place)
            target = out / "masks" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            save(record, target)
    losses = split_losses(by_split, twice)
    if without:
        losses.append(f"{without} images without a mask are left out")
    return losses


def save_values(raw: np.ndarray, path: Path) -> None:
    """A grey PNG of 8 bits, or of 16 where the values need it."""
    Image.fromarray(raw.astype(np.uint8 if raw.max(initial=0) < 256 else np.uint16)).save(path, format="PNG")


def find_pairs(files: Files) -> dict[str, str]:
    """Mask of each image, by their names."""
    by_place: dict[tuple[str, str], list[str]] = {}
    for path in files.images:
        folder, _, name = path.rpartition("/")
        by_place.setdefault((folder.lower(), os.path.splitext(name)[0]), []).append(path)
    pairs: dict[str, str] = {}
    mates: dict[str, list[str]] = {}
    masks: set[str] = set()
    for path in files.images:
        folder, _, name = path.rpartition("/")
        folder, stem = folder.lower(), os.path.splitext(name)[0]
        if folder not in mates:
            mates[folder] = _mask_folders(folder)
        found = [m for f in mates[folder] for s in ("", *_SUFFIXES) for m in by_place.get((f, stem + s), ())]
        found += [m for s in _SUFFIXES if s[0] in "_-" for m in by_place.get((folder, stem + s), ())]
        if not path.lower().endswith(".png"):
            found += [m for m in by_place[folder, stem] if m.lower().endswith(".png")]
        if found:
            pairs[path] = found[0]
            masks.add(found[0])
    return {image: mask for image, mask in pairs.items() if image not in masks}


def _mask_folders(folder: str) -> list[str]:
    """Where the masks of the images of a folder may lie (all in lower case)."""
    parts = folder.split("/")
    out = []
    for k, part in enumerate(parts):
        if part in IMAGE_FOLDERS:
            out += ["/".join([*parts[:k], word, *parts[k + 1 :]]) for word in MASK_FOLDERS]
    if folder:
        out += [folder + suffix for suffix in _SUFFIXES]
    if parts[-1] not in MASK_FOLDERS:  # a.jpg + masks/a.png
        out += [f"{folder}/{word}".lstrip("/") for word in MASK_FOLDERS]
    return out


_LINE = re.compile(rf"(.+?\.(?:{'|'.join(s[1:] for s in sorted(IMAGE_SUFFIXES))}))(?:[\s,;]+(.+))?", re.IGNORECASE)


def _read_list(path: Path, files: Files, pairs: dict[str, str], splits: dict[str, list[str]], problems: Problems) -> None:
    """Add the images of one list to its split; a line that names a mask too sets the pair."""
    tails: dict[str, list[str]] = {}
    for image in files.images:
        parts = image.split("/")
        keys = {image, "/".join(parts[-2:]), parts[-1]} | ({os.path.splitext(parts[-1])[0]} if image in pairs else set())
        for key in keys:
            tails.setdefault(key, []).append(image)

    def find(name: str, wanted: Iterable[str] = ()) -> str | None:
        plain = plain_path(name)
        tail = "/".join([p for p in name.replace("\\", "/").split("/") if p][-2:])
        for key in (plain or tail, tail, tail.rpartition("/")[2]):
            found = tails.get(key, [])
            found = [f for f in found if f in wanted] or found if len(found) > 1 else found
            if len(found) == 1:
                return found[0]
        return None

    split = split_name(path.stem)
    for line, text in enumerate(read_text(path).splitlines(), 1):
        text = text.strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        first, second = (match[1], match[2]) if match else (text, None)
        image = find(first, pairs)
        mask = find(second) if second and is_image_name(second) else None
        if image is None or (mask is None and image not in pairs):
            problems.add("lines without their files", path, f"{text[:120]!r} names no image and mask below; skipped", where=f"line {line}")
            continue
        if mask is not None and mask != image:
            pairs[image] = mask
        names = splits.setdefault(image, [])
        if split not in names:
            names.append(split)


def _class_table(
    root: Path,
    classes: Mapping[int, str] | Sequence[str] | None,
    ignore: tuple[int, ...],
    nearest: bool | None,
    masks: Sequence[str],
    problems: Problems,
) -> tuple[dict[int, str], tuple[int, ...], bool]:
    """Name by value in order of the labels, values to ignore, whether others go to the nearest."""
    if classes is not None:
        pairs = list(classes.items()) if isinstance(classes, Mapping) else list(enumerate(classes))
        table = {int(value): str(name) for value, name in pairs if int(value) not in ignore}
        if not table or len(set(table.values())) != len(table) or not all(0 <= v <= 65535 for v in table):
            raise DataError(root, "the given classes are none, hold a name twice, or a value outside 0..65535")
        return table, ignore, bool(nearest)
    found = find_class_table(root, of_masks=True)
    if found is not None:
        entries = {v: n for v, n in found.entries if v not in ignore}
        return entries, tuple(sorted({*found.ignore, *ignore})), found.nearest if nearest is None else nearest
    values, strays = _sample_values(root, masks, problems)
    values = [v for v in values if v not in ignore]
    strays = [v for v in strays if v not in ignore]
    if strays and nearest is None:
        shown = ", ".join(map(str, strays[:10])) + (" ..." if len(strays) > 10 else "")
        problems.add("stray values", root, f"a few pixels of the masks have the values {shown}; each goes to the nearest of {values}")
    if not values:
        raise DataError(root, "all mask values are ignored: no class is left")
    if 255 in values and values[-2:-1] and values[-2] == len(values) - 2:
        hint = "if it means 'no class', say ignore 255 in classes.json"
        problems.add("a value 255", root, "the mask value 255 beside 0, 1, ... is taken as a class", hint=hint)
    return {v: str(v) for v in values}, ignore, bool(strays) if nearest is None else nearest


def _sample_values(root: Path, masks: Sequence[str], problems: Problems) -> tuple[list[int], list[int]]:
    """Class values and stray values of masks picked evenly."""
    totals, kept = sample_masks(root, masks, problems, read_mask)
    strays = sorted(totals.keys() - set(kept))
    if len(strays) < 4 or len(kept) < 2 or min(np.diff(kept)) < _GREY_STEP:
        kept, strays = sorted(totals), []
    if len(kept) > 256 or kept[-1] > 65535 or kept[0] < 0:
        hint = "name the classes and their values in classes.json"
        raise DataError(root, f"the masks hold {len(kept)} values from {kept[0]} to {kept[-1]}: no classes", hint=hint)
    return kept, strays


def sample_masks(
    root: Path, masks: Sequence[str], problems: Problems, read: Callable[[Path], np.ndarray]
) -> tuple[dict[int, int], list[int]]:
    """Pixels of each value in masks picked evenly, and the values, sorted, that are not rare (:data:`RARE_SHARE`).

    Args:
        read: gives the values of a mask; only its 4096 most frequent ones count.

    Raises:
        DataError: no mask can be read.
    """
    totals: dict[int, int] = {}
    images: dict[int, int] = {}
    first: DataError | None = None
    pixels = count = 0
    step = 1
    for k, path in enumerate(masks):
        if k % step:
            continue
        try:
            raw = read(inside(root, path, source=root))
        except DataError as error:
            first = first or error
            problems.add("masks that cannot be read", root / path, error.problem, hint=error.hint)
            continue
        if not count:
            step = max(1, -(-len(masks) * raw.size // SAMPLE_PIXELS))
        values, counts = np.unique(raw, return_counts=True)
        if len(values) > 4096:
            most = np.sort(np.argpartition(counts, -4096)[-4096:])
            values, counts = values[most], counts[most]
        for value, number in zip(values.tolist(), counts.tolist(), strict=True):
            totals[value] = totals.get(value, 0) + number
            images[value] = images.get(value, 0) + 1
        pixels, count = pixels + raw.size, count + 1
        if pixels > 2 * SAMPLE_PIXELS:
            break
    if not count:
        raise first or DataError(root, "holds no mask that can be read")
    return totals, sorted(v for v in totals if totals[v] >= RARE_SHARE * pixels or images[v] >= RARE_MASKS * count)
