"""How a YOLO folder is laid out: where images, labels, lists of splits and names stand. The lines themselves are :mod:`.yolo`'s."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from saccade.data.formats import files as fs
from saccade.data.formats.scan import look
from saccade.data.images import IMAGE_SUFFIXES, is_image_name
from saccade.data.records import Record
from saccade.types.errors import DataError

_LISTS = frozenset(["classes.txt", "labels.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", "license.txt", "notes.txt"])

MOST_POINTS = 1000
"""Most key points of an object."""


class Layout(NamedTuple):
    """Pairs of (image folder, label folder), relative to the root, and where the names may stand."""

    pairs: list[tuple[str, str]]
    name_folders: list[str]


class KeyPoints(NamedTuple):
    """What the YAML says of key points: how many, 2 or 3 numbers each, their names and their permutation under a mirror."""

    count: int
    numbers: int
    names: list[str]
    swap: list[int]


def find_layout(root: Path, labels: str, strict: bool = True) -> Layout | None:
    """Where images and labels stand below a root; None when there are no labels. ``labels``: the folder that was asked for."""
    inner = look(root).folders
    if labels:
        given = labels if (root / labels).name == "labels" or not (root / labels / "labels").is_dir() else f"{labels}/labels"
        return Layout([("images", given)], [os.path.dirname(given), labels, ""]) if (root / given).is_dir() else None
    if (root / "images").is_dir():
        if _holds_labels(root / "labels", strict):
            return Layout([("images", "labels")], ["", "labels"])
        # several tasks beside each other (coco128): boxes before outlines
        order = sorted(inner, key=lambda n: ("detect" not in n.lower() and "box" not in n.lower(), n))
        for name in order:
            if name != "images" and _holds_labels(root / name / "labels", strict):
                return Layout([("images", f"{name}/labels")], [name, ""])
    pairs = [(f"{n}/images", f"{n}/labels") for n in inner if (root / n / "images").is_dir() and _holds_labels(root / n / "labels", strict)]
    if pairs:
        return Layout(pairs, ["", *(n for n in inner)])
    for name in ("", "obj_train_data", "data"):
        folder = root / name
        if folder.is_dir() and _beside(folder):
            return Layout([(name, name)], ["", name])
    return None


def _beside(folder: Path) -> bool:
    """Images and labels of the same stems in one folder."""
    names = look(folder).files
    labels = {n[:-4] for n in names if _is_label_name(n)}
    return bool(labels) and any(os.path.splitext(n)[0] in labels for n in names if is_image_name(n)) and _holds_labels(folder, True)


def _is_label_name(name: str) -> bool:
    return name.lower().endswith(".txt") and name.lower() not in _LISTS


def label_names(folder: Path) -> Iterator[str]:
    """Paths of the label files below a folder in order, list files aside; of a large folder only as many as are asked for."""
    todo = [os.fspath(folder)]
    while todo:
        place = todo.pop()
        found = look(place)
        yield from (os.path.join(place, n) for n in found.files if _is_label_name(n))
        todo += [os.path.join(place, f) for f in reversed(found.folders)]


def label_files(folder: Path) -> list[Path]:
    """Label files below a folder, list files aside."""
    return list(map(Path, label_names(folder)))


def _holds_labels(folder: Path, strict: bool) -> bool:
    """Some line at the start of the first label files is a class id and four numbers or more; or all are empty; not ``strict``: any."""
    files = [Path(name) for name in islice(label_names(folder), 100)]
    empty = True
    for path in files:
        try:
            with path.open("rb") as file:
                rows = [row for row in (file.readline(1 << 14).split() for _ in range(5)) if row]
        except OSError:
            continue
        empty = empty and not rows
        if any(_is_label(row) for row in rows):
            return True
    return bool(files) and (empty or not strict)


def _is_label(row: list[bytes]) -> bool:
    try:
        return len(row) >= 5 and int(float(row[0])) == float(row[0]) and all(float(v) == float(v) for v in row)
    except (ValueError, OverflowError):
        return False


def split_of(images: str, stem: str) -> str:
    """images/train/x is of train; train/images/x too; images/x of none."""
    head = images.partition("/")[0] if "/" in images else stem.partition("/")[0] if "/" in stem else ""
    return fs.split_name(head) if head else ""


def image_files(root: Path, folder: str) -> list[Path]:
    """Image files below a folder, sorted; a link that leaves the root is not followed."""
    out = []
    top = root.resolve()
    flat = folder == "" or not (root / folder).name.startswith("images")
    for place, folders, names in os.walk(root / folder):
        folders[:] = [] if flat else sorted(folders)
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and (not path.is_symlink() or path.resolve().is_relative_to(top)):
                out.append(path)
    return out


def list_splits(root: Path, config: dict[str, Any], records: list[Record], problems: list[DataError]) -> dict[str, list[int]]:
    """Darknet's lists: train.txt and so on, a path a line; the last part of the path counts when it is unique."""
    by_name: dict[str, int] = {}
    for k, r in enumerate(records):
        name = r.path.rpartition("/")[2]
        by_name[name] = -1 if name in by_name else k
        by_name[r.path] = k
    splits: dict[str, list[int]] = {}
    for split in ("train", "val", "valid", "test"):
        given = config.get(split)
        file = root / (given if isinstance(given, str) and given.endswith(".txt") and "\x00" not in given else f"{split}.txt")
        if not fs.stays_inside(file, root) or not file.is_file():
            continue
        members: dict[int, None] = {}
        try:
            lines = fs.read_text(file).splitlines()
        except DataError as error:
            problems.append(error)
            continue
        for number, line in enumerate(lines, 1):
            text = line.strip().replace("\\", "/").removeprefix("./")
            if not text:
                continue
            k = by_name.get(text, by_name.get(text.rpartition("/")[2], -1))
            if k < 0:
                problems.append(DataError(file, f"names {fs.shown(text)}, which is not an image of this set", where=f"line {number}"))
            else:
                members[k] = None
        if members:
            splits[fs.split_name(split)] = list(members)
    return splits


# ---------------------------------------------------------------------------------------------------------------- names


def read_names(root: Path, folders: list[str]) -> tuple[dict[int, str], dict[str, Any], Path | None]:
    """Names by id (empty: none stated), the YAML's other keys, and the file."""
    for folder in dict.fromkeys(folders):
        place = root / folder
        for file in (place / "data.yaml", place / "config.yaml", *sorted(place.glob("*.yaml")), *sorted(place.glob("*.yml"))):
            if file.is_file() and (found := _yaml_names(file)) is not None:
                return *found, file
        for file in (place / "classes.txt", place / "obj.names", *sorted(place.glob("*.names")), place / "labels.txt"):
            if file.is_file():
                lines = fs.read_text(file).rstrip().splitlines()
                names = {k: line.strip() or str(k) for k, line in enumerate(lines)}
                if not names:
                    raise DataError(file, "holds no class names")
                return names, {}, file
    return {}, {}, None


def _yaml_names(file: Path) -> tuple[dict[int, str], dict[str, Any]] | None:
    import yaml

    try:
        data = yaml.load(fs.read_text(file, limit=1 << 20), Loader=_plain_loader())
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else ""
        raise DataError(file, f"is not YAML: {getattr(error, 'problem', None) or error}", where=where) from None
    if not isinstance(data, dict) or "names" not in data:
        return None
    names = data["names"]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(file, "its names are neither a list nor a mapping of id to name")
    out = {}
    for key, value in names.items():
        try:
            number = int(key)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if not 0 <= number < 2**31 or isinstance(value, (dict, list)) or value is None:
            raise DataError(file, f"its names hold {fs.shown(key)}: {fs.shown(value)}, not an id and a name")
        out[number] = str(value)
    nc = data.get("nc")
    if isinstance(nc, int) and nc != len(out):
        raise DataError(file, f"nc is {nc}, but there are {len(out)} names", hint="correct one of them")
    return out, {str(k): v for k, v in data.items() if k != "names"}


DEEPEST = 16
"""Brackets within brackets in a data.yaml."""


def _plain_loader() -> type:
    """A safe loader without aliases (a "billion laughs" would grow on use) and deep nesting, and with names such as yes and no as text."""
    import yaml

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= DEEPEST:  # every level makes every later character slower
                raise yaml.YAMLError(f"brackets are nested deeper than {DEEPEST}")
            super().fetch_flow_collection_start(token)

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not allowed")
            return super().compose_node(parent, index)

    tag = "tag:yaml.org,2002:"

    def keeps(first: str, kind: str) -> bool:
        return kind not in (f"{tag}timestamp", f"{tag}float") and not (kind == f"{tag}bool" and first in "yYnNoO")

    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Loader.yaml_implicit_resolvers = {first: [r for r in rules if keeps(first, r[0])] for first, rules in resolvers.items()}
    return Loader


def key_points(config: dict[str, Any], file: Path | None, problems: list[DataError]) -> KeyPoints | None:
    """The YAML's ``kpt_shape``, ``flip_idx`` and ``kpt_names``; None when it states no key points, or nonsense (reported)."""
    if "kpt_shape" not in config:
        return None
    source = file or "data.yaml"
    shape, flip, names = config["kpt_shape"], config.get("flip_idx"), config.get("kpt_names")
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(v) is int for v in shape)
    if not (whole and 0 < shape[0] <= MOST_POINTS and shape[1] in (2, 3)):
        problem = f"kpt_shape is {fs.shown(shape)}, not [number of points, 2 or 3]: boxes are read, key points are not"
        problems.append(DataError(source, problem))
        return KeyPoints(0, 0, [], [])
    count, numbers = shape
    if isinstance(names, dict):  # a list for each class: all of them have the same points
        names = next((v for v in names.values() if isinstance(v, list)), names)
    if not (isinstance(names, list) and len(names) == count and all(isinstance(v, (str, int)) for v in names)):
        if names is not None:
            problems.append(DataError(source, f"kpt_names are not {count} names: points are called by their numbers"))
        names = list(range(count))
    if flip is not None and not (isinstance(flip, list) and all(type(v) is int for v in flip) and sorted(flip) == list(range(count))):
        problems.append(DataError(source, f"flip_idx is no permutation of 0..{count - 1}: a mirror leaves the points where they are"))
        flip = None
    return KeyPoints(count, numbers, [str(v) for v in names], flip if flip is not None else list(range(count)))
