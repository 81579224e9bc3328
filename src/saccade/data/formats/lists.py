"""Lists of files with labels, as Caffe's, TensorFlow's and ImageNet's users have them. Read and written.

Read: text files in the folder (or in ``meta``) with a line an image:

* ``path label``: the label a whole number or a name; the path may hold blanks, its suffix ends it;
* ``path`` alone in ``train.txt``, ``val.txt`` ...: the image's folder is its class (``n01440764/x.JPEG``). Beside lists that have
  labels, it is an image without a label;
* ``imagenet_2012_validation_synset_labels.txt``: a label a line, in the order of the sorted validation images (by the number in
  their names, when all have one: a part of the images will do). The images of ``train/`` then have their folders' classes.

Conventions:

* **Paths.** A path that is not there as it stands is looked up by its last four, three, two parts and its name, then by its stem; of
  several that fit, one in a folder called like the list's split. Foreign beginnings (``/data/imagenet/``) do not matter.
* **Names.** ``labels.txt``, ``classes.txt``, ``synset_words.txt`` and others: a name a line for the labels 0, 1, ...; or ``n01440764
  tench, Tinca tinca``, of which the first word is the class's name; a name of two synsets gets the synset behind it. Labels that
  count from 1 (none is 0, and the largest is the number of names) are shifted and reported.
* **Splits** come from the lists' names: ``train.txt``, ``val_list.txt``, ``ILSVRC2012_test.txt``; ``list.txt`` states none.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import Problems, head, look, ordered, text_lines, walk
from saccade.data.images import IMAGE_SUFFIXES, is_image_name
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, suggest

NAME = "list"
TITLE = "lists of files and labels"
TASKS = ("classify",)
HOLDS = frozenset(["label"])

NAME_FILES = (
    "labels.txt", "classes.txt", "class_names.txt", "names.txt", "synset_words.txt", "LOC_synset_mapping.txt", "synsets.txt",
    "imagenet_synsets.txt", "imagenet_lsvrc_2015_synsets.txt", "imagenet_metadata.txt", "words.txt",
)  # fmt: skip
"""Files of class names, the best first."""

VALIDATION = "imagenet_2012_validation_synset_labels.txt"
_NO_LISTS = frozenset([*(n.lower() for n in NAME_FILES), VALIDATION, "readme.txt", "license.txt", "requirements.txt", "notes.txt"])
_SUFFIX = "|".join(s[1:] for s in sorted(IMAGE_SUFFIXES, key=len, reverse=True))
_SHORT = re.compile(rf"(.+?\.(?:{_SUFFIX}))[\s,;]+(.+)", re.IGNORECASE)
_LONG = re.compile(rf"(.+\.(?:{_SUFFIX}))[\s,;]+(.+)", re.IGNORECASE)
_NUMBERS = re.compile(r"(?=.*\d)[-+\d.,:;e\s]+", re.IGNORECASE)  # boxes, scores, several labels: no name of a class
_SYNSET = re.compile(r"(n\d{8})(?:[\s:]+(.*))?")
_FILLERS = re.compile(
    r"lists?|labels?|files?|filelist|images?|imgs?|paths?|set|split|data|dataset|all|annotations?|gt|index|meta|ilsvrc2012|imagenet",
    re.IGNORECASE,
)
_VALIDATION_FOLDERS = ("validation", "val", "ILSVRC2012_img_val", "images/val", "images/validation", "")
_WHOLE_TABLE = 1000
_HEAD = 1 << 14


def sniff(root: Path) -> str | None:
    """A text file whose first lines are an image's name and a class, or lists of splits with images of several folders."""
    root = Path(root)
    if root.is_file():
        return "lines of an image's name and a class" if root.suffix.lower() == ".txt" and _kind(root.parent, root.name) else None
    for name in _candidates(root):
        kind = _kind(root, name)
        if kind:
            return f"{name} has lines of {'an image name and a class' if kind == 'labels' else 'image names in folders of classes'}"
    if VALIDATION in look(root).files and _SYNSET.match(head(root, VALIDATION).decode("utf-8", "replace")):
        return f"{VALIDATION} has a class a line"
    return None


def _candidates(root: Path) -> list[str]:
    """Text files that may be lists, relative to the root; the first thirty of a folder."""
    names = []
    for folder in ("", "meta/"):
        texts = [n for n in look(root / folder).files if n.lower().endswith(".txt") and n.lower() not in _NO_LISTS]
        splits = [n for n in texts if re.search("train|val|test|dev", n, re.IGNORECASE)][:1000]
        texts = list(dict.fromkeys([*filter(_is_split_list, splits), *texts[:30]]))
        names += [folder + n for n in texts[:30]]
    return names


def _kind(root: Path, name: str) -> str:
    """What the first lines are: "labels", "folders" (paths alone, in several folders), or "" for no list."""
    lines = head(root, name, _HEAD).decode("utf-8-sig", "replace").split("\n")
    lines = [t.strip() for t in (lines[:-1] if len(lines) > 1 else lines)[:100] if t.strip() and not t.startswith("#")]
    pairs = [_pair(t) for t in lines]
    if lines and all(p is not None and _is_label(p[1]) for p in pairs[:20]):
        return "labels"
    parents = {t.replace("\\", "/").split("/")[-2] for t in lines if is_image_name(t) and "/" in t.replace("\\", "/")}
    if _is_split_list(name) and lines and all(is_image_name(t) and _pair(t) is None for t in lines) and len(parents) > 1:
        return "folders"
    return ""


def _pair(text: str) -> tuple[str, str] | None:
    match = _SHORT.fullmatch(text)
    return (match[1], match[2].strip()) if match else None


def _is_label(text: str) -> bool:
    if re.fullmatch(r"\d{1,9}", text):
        return True
    return not _NUMBERS.fullmatch(text) and not is_image_name(text) and len(text) < 200


def _words(name: str) -> list[str]:
    stem = os.path.splitext(name.rpartition("/")[2])[0]
    return [w for w in re.split(r"[\W_]+", stem) if w and not _FILLERS.fullmatch(w)]


def _is_split_list(name: str) -> bool:
    words = _words(name)
    return len(words) == 1 and fs.is_split(words[0])


def _split(name: str) -> str:
    """The split that a list's name says, "" for ``list.txt`` or ``images.txt``."""
    words = _words(name)
    return fs.split_name(words[0]) if _is_split_list(name) else os.path.splitext(name.rpartition("/")[2])[0] if words else ""


def read(root: Path, classes: Sequence[str] | None = None) -> DataIndex:
    """The data set of a folder of lists, or of one list.

    Args:
        root: folder or list.
        classes: names by label; None takes the file of names, else the labels themselves.

    Raises:
        DataError: no list, labels that do not fit the names or the images, or no image that is there.
    """
    root = Path(root)
    base = root if root.is_dir() else root.parent
    names = [root.name] if root.is_file() else [n for n in _candidates(root) if _kind(root, n) or _is_split_list(n)]
    names = [n for n in names if root.is_file() or fs.stays_inside(root / n, root)]
    problems = Problems(base)
    finder = _Finder(base, problems)
    entries: dict[str, _Entry] = {}
    labelled = False
    for name in sorted(names, key=lambda n: (fs.split_rank(_split(n)), n)):
        try:
            labelled |= _read_list(base, name, finder, entries, problems)
        except DataError as error:
            problems.add("broken lists", error.path, error.problem, where=error.where, hint=error.hint)
    if root.is_dir() and VALIDATION in look(root).files and fs.stays_inside(root / VALIDATION, root):
        labelled |= _read_validation(root, finder, entries, problems)
    if not entries:
        first = problems.list()[:1]
        hint = "expected train.txt with lines 'path label'"
        raise DataError(root, "no list names an image that is there", hint=str(first[0]) if first else hint)
    if not labelled:
        for path, entry in entries.items():
            entry.label = path.split("/")[-2] if "/" in path else ""
    found = ordered(e.label for e in entries.values() if e.label)
    if not found:
        raise DataError(root, "its lists hold no label", hint="write 'path label' lines, or images in folders of their classes")
    label, shown = _classes(base, found, classes, problems)
    unlisted = len(finder.images()) - len(entries)
    if unlisted:
        problems.add("images in no list", base, f"{unlisted} images are in no list, or their lines were skipped")
    without = sum(not e.label for e in entries.values())
    if without:
        problems.add("images without a label", base, f"{without} images of the lists have no label")
    splits: dict[str, list[int]] = {}
    records = []
    for number, (path, entry) in enumerate(entries.items()):
        records.append(Record(path, path, label=label[entry.label] if entry.label else None))
        for split in entry.splits:
            splits.setdefault(split, []).append(number)
    return DataIndex(
        NAME, base, shown, PackedRecords(records),
        splits={s: np.array(splits[s]) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS, problems=problems.list(), reason=sniff(root) or f"lists {', '.join(names)}",
    )  # fmt: skip


class _Entry:
    __slots__ = ("label", "splits")

    def __init__(self) -> None:
        self.label = ""
        self.splits: list[str] = []


def _read_list(base: Path, name: str, finder: _Finder, entries: dict[str, _Entry], problems: Problems) -> bool:
    """Add the images of one list; True when it has labels."""
    source, split = base / name, _split(name)
    labelled = False
    for number, raw in enumerate(text_lines(source), 1):
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        where = f"line {number}"
        path, label = finder.line(text, split)
        if path is None:
            problems.add("lines without their image", source, f"no image {text[:100]!r}, or several; line skipped", where=where)
            continue
        labelled |= bool(label)
        entry = entries.setdefault(path, _Entry())
        if label and entry.label and label != entry.label:
            text = f"{path!r} is {entry.label!r} above, {label[:80]!r} here; the first stands"
            problems.add("images of two classes", source, text, where=where)
        entry.label = entry.label or label
        if split and split in entry.splits:
            problems.add("images listed twice", source, f"lists {path!r} twice", where=where)
        elif split:
            entry.splits.append(split)
    return labelled


def _read_validation(root: Path, finder: _Finder, entries: dict[str, _Entry], problems: Problems) -> bool:
    """ImageNet's labels of the validation images, and the folders of the training images; True when any label was read."""
    source = root / VALIDATION
    labels = [t.strip() for t in text_lines(source) if t.strip()]
    images: list[str] = []
    for folder in _VALIDATION_FOLDERS:
        prefix = f"{folder}/" if folder else ""
        images = [p for p in finder.images() if p.startswith(prefix) and "/" not in p[len(prefix) :]]
        if images:
            break
    numbers = [re.search(r"_val_(\d{8})\.", p) for p in images]
    if images and all(numbers):
        places = [int(m[1]) - 1 for m in numbers if m]
    else:
        places = list(range(len(images)))
        if len(images) != len(labels):
            hint = "keep ImageNet's names (ILSVRC2012_val_00000001.JPEG), or as many labels as images"
            raise DataError(source, f"has {len(labels)} labels for {len(images)} validation images", hint=hint)
    for path, place in zip(images, places, strict=True):
        if not 0 <= place < len(labels):
            problems.add("validation images without a label", root / path, f"has no line in {VALIDATION}; skipped")
            continue
        entry = entries.setdefault(path, _Entry())
        entry.label, entry.splits = labels[place], ["val"]
    for path in finder.images():
        parts = path.split("/")
        if len(parts) == 3 and parts[0] in ("train", "ILSVRC2012_img_train") and path not in entries:
            entry = entries.setdefault(path, _Entry())
            entry.label, entry.splits = parts[1], ["train"]
    return bool(images)


class _Finder:
    """Finds the images that lines name; a table of paths by their last parts is made when it is first needed."""

    def __init__(self, base: Path, problems: Problems) -> None:
        self.base, self.problems = base, problems
        self._images: list[str] | None = None
        self._known: set[str] = set()
        self._tails: dict[int, dict[str, str | list[str]]] = {}

    def images(self) -> list[str]:
        """All images below the folder."""
        if self._images is None:
            self._images = walk(self.base, self.problems).images
            self._known = set(self._images)
        return self._images

    def line(self, text: str, split: str) -> tuple[str | None, str]:
        """Path and label ("" where the line is a path alone) of a line; (None, "") when no image fits."""
        self.images()
        matches = [m for m in (_LONG.fullmatch(text), _SHORT.fullmatch(text)) if m is not None]
        if text in self._known or (is_image_name(text) and not matches):
            return self._find(text, split), ""
        for match in matches:
            path = self._find(match[1], split)
            if path is not None:
                return path, match[2].strip()
        path = self._find(text, split, stem=True) if not matches else None
        if path is None and not matches and " " in text:  # a path without its suffix, and a label
            first, _, label = text.rpartition(" ")
            path = self._find(first, split, stem=True)
            return path, label if path is not None else ""
        return path, ""

    def _find(self, name: str, split: str, stem: bool = False) -> str | None:
        name = name.strip().strip("\"'").replace("\\", "/")
        if name in self._known and not stem:
            return name
        parts = [p for p in name.split("/") if p not in ("", ".", "..")]
        for count in range(min(len(parts), 4), 0, -1):
            found = self._table(-count if stem else count).get("/".join(parts[-count:]))
            if isinstance(found, str):
                return found
            if found is not None:
                fitting = [p for p in found if any(fs.split_name(part) == split for part in p.split("/")[:-1])]
                return fitting[0] if len(fitting) == 1 else None
        return None

    def _table(self, count: int) -> dict[str, str | list[str]]:
        """Path, or paths, by the last ``count`` parts; a negative count: without the suffix."""
        if count not in self._tails:
            table: dict[str, str | list[str]] = {}
            for path in self.images():
                parts = path.split("/")
                if len(parts) < abs(count):
                    continue
                key = "/".join(parts[-abs(count) :])
                key = key if count > 0 else os.path.splitext(key)[0]
                known = table.get(key)
                if known is None:
                    table[key] = path
                elif isinstance(known, str):
                    table[key] = [known, path]
                elif len(known) < 20:
                    known.append(path)
            self._tails[count] = table
        return self._tails[count]


# ---------------------------------------------------------------------------------------------------------------- names


def _classes(base: Path, found: list[str], given: Sequence[str] | None, problems: Problems) -> tuple[dict[str, int], list[str]]:
    """Label by the lists' word for it, and the classes' names."""
    source, table = (base, [("", n) for n in given]) if given is not None else _name_table(base, problems)
    numbers = [int(t) for t in found] if all(re.fullmatch(r"\d{1,9}", t) for t in found) else []
    names = [name for _, name in table]
    if not table:
        return {text: k for k, text in enumerate(found)}, found
    if numbers:
        first = int(min(numbers) > 0 and max(numbers) == len(names))
        if first:
            problems.add("labels from 1", base, f"the labels count from 1: {len(names)} names, none is 0; 1 is taken off")
        if max(numbers) - first >= len(names):
            raise DataError(
                source, f"names {len(names)} classes, but the lists hold the label {max(numbers)}", hint="these names belong to other data"
            )
        return {text: int(text) - first for text in found}, names
    place = {name: k for k, name in reversed(list(enumerate(names)))}
    place |= {key: k for k, (key, _) in enumerate(table) if key}
    missing = [text for text in found if text not in place]
    if missing and given is not None:
        raise DataError(base, f"holds the class {missing[0]!r}, which the given class names lack{suggest(missing[0], names)}")
    if len(missing) == len(found):  # names of something else
        return {text: k for k, text in enumerate(found)}, found
    if missing:
        shown = ", ".join(missing[:8])
        problems.add("classes without a name", source, f"lacks {shown}, which the lists use; they are added at the end")
    if len(table) > _WHOLE_TABLE:  # a table of 21 000 synsets for a few of them
        used = {k: rank for rank, k in enumerate(sorted({place[text] for text in found if text in place}))}
        names = [names[k] for k in used]
        place = {text: used[place[text]] for text in found if text in place}
    names = names + missing
    place |= {text: len(names) - len(missing) + k for k, text in enumerate(missing)}
    return place, names


def _name_table(base: Path, problems: Problems) -> tuple[Path, list[tuple[str, str]]]:
    """(synset or "", name) of each class in the order of the labels, and the file that says so."""
    best: tuple[Path, list[tuple[str, str]]] | None = None
    words: dict[str, str] = {}
    for name in NAME_FILES:
        for folder in ("", "meta/"):
            path = base / folder / name
            if not path.is_file() or not fs.stays_inside(path, base):
                continue
            try:
                rows = _name_rows(fs.read_text(path))
            except DataError as error:
                problems.add("broken tables", error.path, error.problem, where=error.where, hint=error.hint)
                continue
            words |= {key: text for key, text in rows if key and text}
            if rows and best is None:
                best = path, rows
    if best is None:
        return base, []
    rows = [(key, words.get(key, text) or key) for key, text in best[1]]
    counts = Counter(text for _, text in rows)
    rows = [(key, f"{text} ({key})" if key and counts[text] > 1 else text) for key, text in rows]
    return best[0], rows


def _name_rows(text: str) -> list[tuple[str, str]]:
    """(synset, name) a line; the synset is "" where there is none. "3:daisy" and "3 daisy" are the third class where all lines are so."""
    lines = [line.strip() for line in text.rstrip().split("\n")]
    numbered = [re.fullmatch(r"(\d+)[:\s]\s*(.+)", line) for line in lines]
    if lines and all(m is not None and int(m[1][:9]) == k for k, m in enumerate(numbered)):
        lines = [m[2] for m in numbered if m]
    rows = []
    for k, line in enumerate(lines):
        match = _SYNSET.fullmatch(line)
        rows.append((match[1], (match[2] or "").partition(",")[0].strip()) if match else ("", line or str(k)))
    return rows if any(lines) else []


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``SPLIT.txt`` with lines ``images/x.jpg 3`` (``list.txt`` for images of no split), ``labels.txt``, ``images/``."""
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    names = fs.file_names(dataset, flat=False)
    copied: dict[int, str] = {}
    renamed: list[str] = []
    for number, record in fs.unique_records(dataset):
        path = _listed_name(names[number])
        copied[number] = path
        renamed += [record.image_id] * (path != record.image_id)
        fs.copy_image(dataset, record, out / path)
    lost_splits = []
    for split, members in fs.splits_of(dataset).items():
        lines = []
        for number in members:
            label = dataset.index.records[number].label
            lines.append(f"{copied[number]}\n" if label is None else f"{copied[number]} {label}\n")
        file = f"{split or 'list'}.txt"
        if file.lower() in _NO_LISTS or (split and _split(file) != split):
            lost_splits.append(split)
            file = f"fold_{split}.txt"
        (out / file).write_text("".join(lines), encoding="utf-8", newline="\n")
    if lost_splits:
        lost.append(f"the splits {', '.join(lost_splits)} get other names")
    lost += _write_names(out / "labels.txt", dataset.classes)
    if renamed:
        lost.append(f"{len(renamed)} image ids change to the paths of their files")
    return lost


def _write_names(path: Path, names: Sequence[str]) -> list[str]:
    """A name a line; with its number before it where the name alone would be read as something else. What is lost, in words."""
    plain = [" ".join(name.split()) or str(k) for k, name in enumerate(names)]
    for lines in (plain, [f"{k}:{name}" for k, name in enumerate(plain)]):
        text = "".join(f"{line}\n" for line in lines)
        path.write_text(text, encoding="utf-8", newline="\n", errors="replace")
        changed = sum((name or key) != own for (key, name), own in zip(_name_rows(text), names, strict=False))
        if not changed:
            return []
    return [f"{changed} class names change: they have to be one line, and no synset with words"]


def _listed_name(name: str) -> str:
    """The path in a list: on one line, ended by an image suffix, in ``images/``."""
    name = re.sub(r"\s", " ", name.replace("\\", "_"))
    name = name if is_image_name(name) else f"{name}.png"
    return name if name.startswith("images/") else f"images/{name}"
