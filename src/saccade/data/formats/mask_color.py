"""Class masks in colours: each picture has an RGB mask of its size, and a table says which colour is which class.

Pictures, masks and splits find each other as in :mod:`.mask_png`. Tables, at the top of the folder, the first found of:

* ``class_dict.csv`` (Kaggle's CamVid): ``name,r,g,b``, the header may be missing;
* ``label_colors.txt`` (CamVid): ``64 128 64<tab>Animal``;
* ``labelmap.txt`` (CVAT): ``name:r,g,b:parts:actions``; lines that begin with ``#`` are comments;
* ``classes.json``: ``{"Animal": [64, 128, 64]}``.

Labels follow the table's order. A name may have several colours, a colour only one name. Names such as void, ignore and unlabelled
(:data:`.scan.VOID_NAMES`) are no classes: their colours are ignored.

Without a table the colours are read off the masks (up to 40 million pixels, evenly picked), each a class called ``#RRGGBB``, in
order of its number. Rare colours (under 0.1 % of the pixels, in under a quarter of the masks) that lie near a frequent one, or between two
of them as smoothed edges do, are strays: each goes to the nearest class, which is reported. With a table a colour that it lacks is an error
that names the mask, unless ``nearest``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats.files import count_losses, image_hw, read_json, read_text
from saccade.data.formats.mask_png import colored_masks, read_pairs, sample_masks, sniff_pairs, write_pairs
from saccade.data.formats.scan import VOID_NAMES, Problems
from saccade.data.images import nearest_colors, read_colors
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError
from saccade.types.sample import IGNORE

NAME = "colormasks"
TITLE = "images with class masks in colours"
TASKS = ("segment",)
HOLDS = frozenset({"mask"})

TABLES = ("class_dict.csv", "label_colors.txt", "labelmap.txt", "classes.json")
"""Files of colours and names, the best first."""

MOST_CLASSES = 4096

_NEAR = 16.0  # a stray colour lies at most so far (Euclidean, 0..255) from a class or from the line between two


def sniff(root: Path) -> str | None:
    """Pairs of picture and mask, of which some mask has colours, and few of them."""
    pairs = sniff_pairs(root)
    if not any(_few_colors(path) for path in (colored_masks(root, pairs) if pairs else ())):
        return None
    table = next((f", {name}" for name in TABLES if (root / name).is_file()), "")
    return f"{len(pairs)} pairs of image and mask in colours{table}"


def _few_colors(path: Path) -> bool:
    """Whether 256 colours make up nearly all of a picture: no photograph."""
    try:
        counts = np.unique(read_colors(path), return_counts=True)[1]
    except DataError:
        return False
    return bool(np.sort(counts)[-256:].sum() >= 0.95 * counts.sum())


def read(root: Path, colors: str | Path | None = None, ignore: Iterable[str] = (), nearest: bool | None = None) -> DataIndex:
    """Pair the files and read the table of colours; a sample of the masks is decoded when there is none.

    Args:
        root: the folder.
        colors: the table; None takes the one in the folder.
        ignore: names of classes whose pixels are ignored, beside void and the like.
        nearest: whether unknown colours go to the nearest known one; None: only where colours were read off the masks.

    Raises:
        DataError: no pair, a broken table, or masks that hold too many colours to be classes.
    """
    problems = Problems(root)
    pairs = read_pairs(root, problems, TABLES)
    file = Path(colors) if colors is not None else next((root / name for name in TABLES if (root / name).is_file()), None)
    if file is not None:
        rows, strays = read_color_table(file), False
    else:
        rows, strays = _sampled_colors(root, pairs.masks, problems)
    ignored = {*VOID_NAMES, *(name.lower() for name in ignore)}
    names = list(dict.fromkeys(name for name, _ in rows if name.lower() not in ignored))
    if not names:
        raise DataError(file or root, "all colours are ignored: no class is left")
    label = {name: k for k, name in enumerate(names)}
    return DataIndex(
        format=NAME,
        root=root,
        classes=names,
        records=PackedRecords(pairs.records),
        splits=pairs.splits,
        tasks=TASKS,
        problems=problems.list(),
        reason=f"{len(pairs.records)} pairs of image and mask in colours",
        mask_nearest=strays if nearest is None else nearest,
        ignore=(len(names),),
        mask_colors={color: label.get(name, len(names)) for name, color in rows},
    )


def read_color_table(path: Path) -> list[tuple[str, int]]:
    """(name, colour 0xRRGGBB) in the order of a table, whatever of the four kinds it is by its suffix.

    Raises:
        DataError: the table is broken, empty, too long, or gives a colour two names.
    """
    out: dict[int, str] = {}
    for where, name, values in _rows(path):
        name = name.strip()
        numbers = [v if isinstance(v, int) and not isinstance(v, bool) else _number(v) for v in values]
        if len(numbers) != 3 or not all(0 <= v <= 255 for v in numbers):
            raise DataError(path, "has no colour of three whole numbers 0..255", where=where)
        if not name:
            raise DataError(path, "has a colour without a name", where=where)
        red, green, blue = numbers
        color = red << 16 | green << 8 | blue
        if out.setdefault(color, name) != name:
            raise DataError(path, f"gives the colour {red} {green} {blue} to {out[color]!r} and {name!r}", where=where)
        if len(out) > MOST_CLASSES:
            raise DataError(path, f"holds more than {MOST_CLASSES} colours: no table of classes")
    if not out:
        raise DataError(path, "holds no colour")
    return [(name, color) for color, name in out.items()]


def _rows(path: Path) -> Iterable[tuple[str, str, Sequence[object]]]:
    """Place, name and the values of each row."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
            raise DataError(path, "is no table of colours", hint='write {"road": [128, 64, 128]}')
        return [(repr(name)[:60], name, values) for name, values in content.items()]
    text = read_text(path)
    if suffix == ".csv":
        try:
            rows = [(n, row) for n, row in enumerate(csv.reader(io.StringIO(text)), 1) if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise DataError(path, f"is no CSV: {error}") from None
        if rows and not any(_number(cell) >= 0 for cell in rows[0][1][1:]):
            rows = rows[1:]  # the header
        return [(f"row {n}", row[0], row[1:]) for n, row in rows]
    lines = [(f"line {n}", line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    out = []
    for where, line in lines:
        cvat = re.fullmatch(r"(.*?):\s*(\d+\s*,\s*\d+\s*,\s*\d+)\s*(?::.*)?", line)
        camvid = re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(.+)", line)
        if cvat:
            out.append((where, cvat[1], cvat[2].split(",")))
        elif camvid:
            out.append((where, camvid[4], camvid.groups()[:3]))
        else:
            raise DataError(path, f"is neither 'r g b name' nor 'name:r,g,b': {line[:60]!r}", where=where)
    return out


def _number(value: object) -> int:
    """A whole number of at most three digits, else -1."""
    text = value.strip() if isinstance(value, str) else ""  # strip() knows more blanks than int() does
    return int(text) if re.fullmatch(r"[0-9]{1,3}", text) else -1


def _sampled_colors(root: Path, masks: Sequence[str], problems: Problems) -> tuple[list[tuple[str, int]], bool]:
    """(name, colour) of the classes in a sample of the masks, and whether there are stray colours."""
    totals, kept = sample_masks(root, masks, problems, read_colors)
    if len(kept) <= 256:
        rare = np.array(sorted(totals.keys() - set(kept)), dtype=np.uint32)
        strays = _strays(rare, np.array(kept, dtype=np.uint32))
        kept = sorted([*kept, *rare[~strays].tolist()])
        if strays.any():
            shown = ", ".join(f"#{c:06x}" for c in rare[strays][:8].tolist()) + (" ..." if strays.sum() > 8 else "")
            problems.add("stray colours", root, f"a few pixels of the masks have other colours, {shown}: each goes to the nearest class")
    if len(kept) > 256:
        raise DataError(
            root, f"the masks hold {len(kept)} colours: no classes", hint="name the classes and their colours in class_dict.csv"
        )
    return [(f"#{c:06X}", c) for c in kept], len(kept) < len(totals)


def _strays(rare: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(N,) whether a rare colour lies near one of the others, or between two of them. Of very many all do."""
    if len(rare) > 4096 or not len(kept):
        return np.full(len(rare), bool(len(kept)))
    points, ends = (_rgb(c).astype(np.float64) for c in (rare, kept))
    stray = np.linalg.norm(points - ends[nearest_colors(rare, kept)], axis=1) <= _NEAR if len(rare) else np.zeros(0, dtype=bool)
    for a, b in combinations(ends, 2) if len(ends) <= 64 else ():
        share = ((points - a) @ (b - a) / ((b - a) @ (b - a))).clip(0, 1)
        stray |= np.linalg.norm(points - (a + share[:, None] * (b - a)), axis=1) <= _NEAR
    return stray


def _rgb(colors: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 of colours 0xRRGGBB."""
    return (np.asarray(colors, dtype=np.uint32)[:, None] >> np.array([16, 8, 0], dtype=np.uint32) & 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``images/[split/]``, ``masks/[split/]`` as RGB PNG, ``class_dict.csv`` and ``label_colors.txt``.

    The colours are those that the data came with, else Pascal VOC's palette. Pixels to be ignored are written as a row "void".
    """
    index = dataset.index
    losses = count_losses(dataset, TITLE, set(HOLDS))
    colors = _class_colors(index)
    table = _rgb(np.array(colors))

    def save(record: Record, target: Path) -> None:
        labels = dataset.mask(record, image_hw(dataset, record))
        painted = table[np.where(labels == IGNORE, len(colors) - 1, labels)]
        Image.fromarray(painted).save(target.with_suffix(".png"), format="PNG")

    losses += write_pairs(dataset, out, save)
    names = [" ".join(name.split()) for name in index.classes]
    taken = set(names)
    for k, name in enumerate(names):
        if name.lower() in VOID_NAMES or not name:
            names[k] = next(
                n for n in (f"{name} class".strip(), *(f"{name} class {i}" for i in range(2, len(names) + 3))) if n not in taken
            )
            taken.add(names[k])
            losses.append(f"the class {name!r} becomes {names[k]!r}: that name means 'no class' here")
    rows = list(zip([*names, "void"], table.tolist(), strict=True))
    with (out / TABLES[0]).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "r", "g", "b"])
        writer.writerows([name, *rgb] for name, rgb in rows)
    text = "".join(f"{red} {green} {blue}\t{name}\n" for name, (red, green, blue) in rows)
    (out / TABLES[1]).write_text(text, encoding="utf-8")
    return losses


def _class_colors(index: DataIndex) -> list[int]:
    """A colour for each label, and at the end one for pixels without a class."""
    own: dict[int, int] = {}
    for color, value in (index.mask_colors or {}).items():
        label = IGNORE if value in index.ignore else (index.mask_values or {}).get(value, value)
        own.setdefault(label, color)
    taken = set(own.values())
    out = []
    for label in [*range(len(index.classes)), IGNORE]:
        numbers = [255, *range(len(index.classes), 2**24)] if label == IGNORE else range(label + (label >= 255), 2**24)
        color = own[label] if label in own else next(c for c in map(voc_color, numbers) if c not in taken)
        taken.add(color)
        out.append(color)
    return out


def voc_color(number: int) -> int:
    """0xRRGGBB of an entry of Pascal VOC's palette: the number's bits dealt in turn to red, green and blue, the highest first.

    >>> [f"{voc_color(k):06x}" for k in (0, 1, 2, 15, 255)]
    ['000000', '800000', '008000', 'c08080', 'e0e0c0']
    """
    red = green = blue = 0
    for k in range(8):
        bits = number >> 3 * k
        red |= (bits & 1) << 7 - k
        green |= (bits >> 1 & 1) << 7 - k
        blue |= (bits >> 2 & 1) << 7 - k
    return red << 16 | green << 8 | blue
