"""YOLO text labels: a file an image, a line an object, numbers in fractions of the image. Read and written.

Read: ``images/[SPLIT/]`` with ``labels/[SPLIT/]`` (``labels`` may also stand in a folder of its own, ``detection/labels``);
``SPLIT/images`` with ``SPLIT/labels``; or labels beside the images (Darknet). Names come from ``data.yaml``, ``config.yaml``
or another YAML with ``names``, from ``classes.txt``, ``obj.names`` or another ``*.names``.

Conventions:

* ``class cx cy w h``: five numbers are a box; ``class x1 y1 x2 y2 x3 y3 ...``: an even number of six or more is a polygon,
  whose box is its extent. Fractions are of the image's width and height as its header states them.
* **Classes.** Ids of ``names`` may have gaps (a mapping): labels are 0..K-1 in their order, ``category_ids`` keeps the ids.
  Without names every id up to the largest is a class, called by its number. A line whose id has no name is skipped and reported;
  when these are more than the others, the names belong to other data, and that is a DataError. So is an ``nc`` that contradicts ``names``.
* **Range.** An edge over the border by up to a thousandth is rounding and clipped without a word; a centre, side or corner out of
  0..1 by up to a tenth is clipped and reported; beyond (pixels instead of fractions, mostly) the object is skipped and reported.
* An image without a label file has no objects (``skip_if_label_file_missing: true`` in the YAML leaves it out). A label file
  without an image is reported.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.images import IMAGE_SUFFIXES, image_size
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "yolo"
TITLE = "YOLO text labels"
TASKS = ("detect",)

_ROUNDING, _SLIP = 1e-3, 0.1
_LISTS = frozenset(["classes.txt", "labels.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", "license.txt", "notes.txt"])


class _Layout(NamedTuple):
    """Pairs of (image folder, label folder), relative to the root, and where the names may stand."""

    pairs: list[tuple[str, str]]
    name_folders: list[str]


def sniff(root: Path) -> str | None:
    """Why this looks like YOLO, or None."""
    root = Path(root)
    layout = _layout(root, "") if root.is_dir() else None
    if layout is None:
        return None
    count = sum(len(_label_files(root / labels)) for _, labels in layout.pairs)
    return f"{count} label file{'s' * (count != 1)} of lines 'class x y w h' in {layout.pairs[0][1] or '.'}"


def _label_files(folder: Path) -> list[Path]:
    """Label files below a folder, list files aside."""
    out = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        out += [Path(place, n) for n in sorted(names) if n.lower().endswith(".txt") and n.lower() not in _LISTS]
    return out


def _holds_labels(folder: Path, strict: bool) -> bool:
    """Some line at the start of the first label files is a class id and four numbers or more; or all are empty; not ``strict``: any."""
    files = list(islice(_label_files(folder), 100)) if folder.is_dir() else []
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


def _layout(root: Path, labels: str, strict: bool = True) -> _Layout | None:
    inner = sorted(p.name for p in root.iterdir() if p.is_dir())
    if labels:
        given = labels if (root / labels).name == "labels" or not (root / labels / "labels").is_dir() else f"{labels}/labels"
        return _Layout([("images", given)], [os.path.dirname(given), labels, ""]) if (root / given).is_dir() else None
    if (root / "images").is_dir():
        if _holds_labels(root / "labels", strict):
            return _Layout([("images", "labels")], ["", "labels"])
        # several tasks beside each other (coco128): boxes before outlines
        order = sorted(inner, key=lambda n: ("detect" not in n.lower() and "box" not in n.lower(), n))
        for name in order:
            if name != "images" and _holds_labels(root / name / "labels", strict):
                return _Layout([("images", f"{name}/labels")], [name, ""])
    pairs = [(f"{n}/images", f"{n}/labels") for n in inner if (root / n / "images").is_dir() and _holds_labels(root / n / "labels", strict)]
    if pairs:
        return _Layout(pairs, ["", *(n for n in inner)])
    for name in ("", "obj_train_data", "data"):
        folder = root / name
        if folder.is_dir() and _beside(folder):
            return _Layout([(name, name)], ["", name])
    return None


def _beside(folder: Path) -> bool:
    """Images and labels of the same stems in one folder."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file()]
    images = {p.stem for p in files if p.suffix.lower() in IMAGE_SUFFIXES}
    labels = [p for p in files if p.suffix.lower() == ".txt" and p.stem in images and p.name.lower() not in _LISTS]
    return bool(labels) and _holds_labels(folder, True)


def read(root: Path, *, labels: str = "") -> DataIndex:
    """The data set of a YOLO folder.

    Args:
        root: the folder.
        labels: folder of the labels relative to the root, when there are several beside one ``images``.

    Raises:
        DataError: no YOLO labels, names that do not fit, or not one usable image.
    """
    root = Path(root)
    layout = (_layout(root, labels) or _layout(root, labels, strict=False)) if root.is_dir() else None
    if layout is None:
        known = sorted(p.parent.name for p in root.glob("*/labels")) if root.is_dir() else []
        hint = f"labels= takes one of {', '.join(known)}" if known else "expected images/ and labels/ with 'class x y w h' lines"
        raise DataError(root, "holds no YOLO labels", hint=hint)
    problems: list[DataError] = []
    names, config, names_file = _names(root, layout.name_folders)
    drop_unlabelled = config.get("skip_if_label_file_missing") is True
    if "kpt_shape" in config:
        problems.append(DataError(names_file, "has key points (kpt_shape): their boxes are read, the points are not"))
    found: list[tuple[Record, np.ndarray]] = []
    splits: dict[str, list[int]] = {}
    reader = _Lines(set(names) if names else None, "kpt_shape" in config, problems)
    for images, label_folder in layout.pairs:
        used = set()
        for path in _images(root, images):
            relative = os.path.relpath(path, root / images) if images else os.path.relpath(path, root)
            stem = os.path.splitext(relative)[0].replace(os.sep, "/")
            file = root / label_folder / f"{stem}.txt"
            if not file.is_file():
                if drop_unlabelled:
                    continue
                file = None
            else:
                used.add(file)
            try:
                record, ids = reader.image(root, path, file)
            except DataError as error:
                problems.append(error)
                continue
            split = _split(images, stem)
            if split:
                splits.setdefault(split, []).append(len(found))
            found.append((record, ids))
        orphans = [f for f in _label_files(root / label_folder) if f not in used and images != label_folder]
        problems += [DataError(f, "has no image; its lines are skipped") for f in orphans]
    if not found:
        raise DataError(root, "not one usable image is found", hint=str(problems[0]) if problems else f"looked in {layout.pairs[0][0]}")
    if reader.unnamed > reader.named:
        total = reader.named + reader.unnamed
        problem = f"names {len(names)} classes, but {reader.unnamed} of {total} objects have other ids (the first: {reader.first_unnamed})"
        raise DataError(names_file or root, problem, hint="these names belong to other data")
    category_ids = sorted(names) if names else list(range(max((int(ids.max(initial=-1)) for _, ids in found), default=-1) + 1))
    table = np.array(category_ids, dtype=np.int64)
    any_polygon = any(s is not None for r, _ in found for s in r.segments or ())
    for record, ids in found:
        record.labels = np.searchsorted(table, ids)
        if not any_polygon:
            record.segments = None
    _unique_ids([r for r, _ in found])
    classes = fs.unique_names(names) if names else [str(i) for i in category_ids]
    if len(set(names.values())) < len(names):
        problems.append(DataError(names_file or root, "gives several classes one name; their ids are put behind it"))
    splits = splits or _list_splits(root, config, [r for r, _ in found], problems)
    return DataIndex(
        NAME, root, classes, PackedRecords(r for r, _ in found),
        splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS, problems=problems, reason=sniff(root) if not labels else f"labels in {layout.pairs[0][1]}",
        category_ids=category_ids,
    )  # fmt: skip


def _split(images: str, stem: str) -> str:
    """images/train/x is of train; train/images/x too; images/x of none."""
    head = images.partition("/")[0] if "/" in images else stem.partition("/")[0] if "/" in stem else ""
    return fs.split_name(head) if head else ""


def _images(root: Path, folder: str) -> list[Path]:
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


def _unique_ids(records: list[Record]) -> None:
    """The stem where it is unique, else the path."""
    counts: dict[str, int] = {}
    for r in records:
        counts[r.image_id] = counts.get(r.image_id, 0) + 1
    for r in records:
        if counts[r.image_id] > 1:
            r.image_id = r.path


def _list_splits(root: Path, config: dict[str, Any], records: list[Record], problems: list[DataError]) -> dict[str, list[int]]:
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


def _names(root: Path, folders: list[str]) -> tuple[dict[int, str], dict[str, Any], Path | None]:
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


def _plain_loader() -> type:
    """A safe loader without aliases (a "billion laughs" would grow on use) and with names such as yes and no as text."""
    import yaml

    class Loader(yaml.SafeLoader):
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


# ---------------------------------------------------------------------------------------------------------------- lines


class _Lines:
    """Reads label files; counts the objects with and without a name."""

    def __init__(self, known: set[int] | None, points: bool, problems: list[DataError]) -> None:
        self.known, self.points, self.problems = known, points, problems
        self.named = self.unnamed = 0
        self.first_unnamed: int | None = None

    def image(self, root: Path, path: Path, file: Path | None) -> tuple[Record, np.ndarray]:
        """Record (labels still empty) and (N,) class ids."""
        size = image_size(path)
        scale = np.array([size[1], size[0]], dtype=np.float64)
        ids: list[int] = []
        boxes: list[np.ndarray] = []
        segments: list[Any] = []
        for number, line in enumerate(fs.read_text(file).splitlines() if file is not None else (), 1):
            row = line.split()
            if not row:
                continue
            got = self._line(row, file, f"line {number}")
            if got is not None:
                ids.append(got[0])
                boxes.append((got[1].reshape(2, 2) * scale).reshape(4))
                segments.append(None if got[2] is None else [(got[2] * scale).astype(np.float32)])
        relative = os.path.relpath(path, root).replace(os.sep, "/")
        array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        keep = (array[:, 2:] > array[:, :2]).all(1)  # float32 may close a box that float64 keeps open
        if not keep.all():
            self.problems.append(DataError(file or path, f"{int((~keep).sum())} boxes are too small for a pixel grid; they are skipped"))
            segments = [s for s, k in zip(segments, keep, strict=True) if k]
        return Record(relative, path.stem, size, boxes=array[keep], segments=segments), np.array(ids, dtype=np.int64)[keep]

    def _line(self, row: list[str], file: Path | None, where: str) -> tuple[int, np.ndarray, np.ndarray | None] | None:
        """Class id, XYXY and polygon (P, 2), as fractions within 0..1; None when skipped (reported)."""
        assert file is not None

        def skip(why: str) -> None:
            self.problems.append(DataError(file, f"{why}; it is skipped", where=where))

        try:
            number = float(row[0])
            values = np.array(row[1:], dtype=np.float64)
        except (ValueError, OverflowError):
            return skip(f"is not numbers: {' '.join(row)[:60]!r}")
        if self.points:
            values = values[:4]
        if not (number == number // 1 and 0 <= number < 2**31):
            return skip(f"the class id {fs.shown(row[0])} is not a whole number from 0")
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            return skip(f"has {len(row)} numbers: five make a box, an odd seven or more a polygon")
        if not np.isfinite(values).all():
            return skip("holds NaN or infinity")
        if values.min() < -_SLIP or values.max() > 1 + _SLIP:
            return skip(f"holds {values[np.abs(values - 0.5).argmax()]:g}, out of 0..1 (pixels instead of fractions?)")
        polygon = None
        if len(values) == 4:
            if not (values[2:] > 0).all():
                return skip("the box has no area")
            box = np.concatenate([values[:2] - values[2:] / 2, values[:2] + values[2:] / 2])
        else:
            polygon = values.reshape(-1, 2)
            box = np.concatenate([polygon.min(0), polygon.max(0)])
            polygon = polygon.clip(0, 1)
        clipped = box.clip(0, 1)
        if not (clipped[2:] > clipped[:2]).all():
            return skip("the object has no area inside the image")
        if self.known is not None and int(number) not in self.known:
            self.unnamed += 1
            self.first_unnamed = int(number) if self.first_unnamed is None else self.first_unnamed
            return skip(f"the class id {int(number)} has no name")
        self.named += 1
        if np.abs(clipped - box).max() > _ROUNDING:
            self.problems.append(DataError(file, "the object leaves the image; it is clipped", where=where))
        return int(number), clipped, polygon


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``images/[SPLIT/]``, ``labels/[SPLIT/]`` and ``data.yaml``; returns what was lost, in words.

    An object with an outline becomes a polygon line (its largest polygon), else a box line. An image of several splits
    stands in the first of them. Numbers have 10 digits, so that boxes read back to a hundred-thousandth of a pixel.
    """
    import yaml

    index = dataset.index
    ids = list(range(len(index.classes)))
    names = fs.file_names(dataset, flat=True)
    lost = fs.count_losses(dataset, "a YOLO text label", {"boxes", "segments"})
    records = dict(fs.unique_records(dataset))
    place: dict[int, str] = {}
    for split, members in sorted(fs.splits_of(dataset).items(), key=lambda s: fs.split_rank(s[0])):
        again = sum(i in place for i in members)
        if again:
            lost.append(f"{again} images of the split {split or '(none)'} are written in another split only: an image stands once")
        for i in members:
            place.setdefault(i, split)
    if any(not s for s in place.values()) and any(place.values()):
        lost.append(f"{sum(not s for s in place.values())} images of no split are written as split 'rest'")
        place = {i: s or "rest" for i, s in place.items()}
    pieces = codes = 0
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True)
    for i, record in records.items():
        name = f"{place[i]}/{names[i]}" if place[i] else names[i]
        fs.copy_image(dataset, record, out / "images" / name)
        lines, more, rle = _lines_out(record, fs.image_hw(dataset, record), ids)
        pieces, codes = pieces + more, codes + rle
        target = out / "labels" / f"{os.path.splitext(name)[0]}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    config: dict[str, Any] = {"path": "."}
    config |= {s: f"images/{s}" for s in dict.fromkeys(place.values()) if s}
    config |= {"nc": len(ids), "names": dict(zip(ids, index.classes, strict=True))}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (out / "data.yaml").write_text(text, encoding="utf-8")
    if pieces:
        lost.append(f"{pieces} further polygons of objects in several pieces are lost: a line holds one")
    if codes:
        lost.append(f"{codes} run-length coded outlines are lost: their boxes are written")
    return lost


def _lines_out(record: Record, size: tuple[int, int], ids: list[int]) -> tuple[list[str], int, int]:
    """Lines of an image, polygons left out, run-length codes left out."""
    scale = np.array([size[1], size[0]], dtype=np.float64)
    lines, pieces, codes = [], 0, 0
    for k in range(0 if record.boxes is None else len(record.boxes)):
        segment = record.segments[k] if record.segments is not None else None
        if isinstance(segment, dict):
            codes, segment = codes + 1, None
        if segment:
            pieces += len(segment) - 1
            polygon = max((np.asarray(p, dtype=np.float64) for p in segment), key=lambda p: float(np.ptp(p, axis=0).prod()))
            values = (polygon / scale).clip(0, 1).reshape(-1)
        else:
            corners = np.asarray(record.boxes[k], dtype=np.float64).reshape(2, 2) / scale  # type: ignore[index]
            values = np.concatenate([corners.mean(0), corners[1] - corners[0]])
        numbers = " ".join(f"{v:.10g}" for v in values)
        lines.append(f"{ids[int(record.labels[k])]} {numbers}")  # type: ignore[index]
    return lines, pieces, codes
