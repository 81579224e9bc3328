"""imglab XML (dlib): one file a set, boxes with parts. Read and written.

``<dataset><images><image file="a.jpg"><box top left width height><label>..</label><part name x y/></box></image></images></dataset>``

Read: XML files in the root or up to two folders below; a file names its images relative to itself.

Conventions:

* **Boxes** are left, top, left + width, top + height: edges in pixels. A box without area is skipped; one that leaves the image by more
  than a pixel is clipped; both are reported. ``ignore="1"`` is ``iscrowd``: such a box is not to be found, and finding it is no mistake.
* ``difficult``, ``truncated`` and ``occluded`` stand in ``record.extra`` as (N,) bool where a box has them.
* **Classes** are sorted by name; ``classes.txt`` in the root sets another order. A box without a label is of the class "object", an
  ignored one of the only class where there is one.
* **Parts** are key points: the union of all names, numbers in their order and before other names, else as ``keypoints.txt`` in the root
  says. A part that a box lacks has visibility 0, the others 2. x and y are taken as they are. 68 numbered parts are known to be
  iBUG's faces, whose mirror is ``keypoint_swap``.
* **Splits** by the words of the file's name: ``training.xml`` is train, ``testing_with_face_landmarks.xml`` is test.
* **The richer file wins.** Of an image that several files state, the objects of the file that has most parts, then most boxes,
  are taken (``training_with_face_landmarks.xml`` repeats ``training.xml``); what is left aside is reported.
* XML is read without entities or external files.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats import shapes
from saccade.data.formats.scan import Problems, head, ordered
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "imglab"
TITLE = "imglab XML (dlib)"
TASKS = ("detect", "pose")
HOLDS = frozenset(["boxes", "crowd", "keypoints"])

_DEFAULT_CLASS = "object"
_NO_XML = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class _Image:
    """An image as one file states it."""

    __slots__ = ("boxes", "file", "flags", "ignored", "labels", "parts", "size")

    def __init__(self, file: Path, size: tuple[int, int] | None) -> None:
        self.file, self.size = file, size
        self.boxes: list[np.ndarray] = []
        self.labels: list[str] = []
        self.ignored: list[bool] = []
        self.flags: list[list[bool]] = []
        self.parts: list[dict[str, tuple[float, float]]] = []

    @property
    def richness(self) -> tuple[int, int]:
        """By which the richer of two files wins: parts, boxes."""
        return sum(map(len, self.parts)), len(self.boxes)

    def content(self) -> tuple[Any, ...]:
        """All that is stated, to compare."""
        return [b.tolist() for b in self.boxes], self.labels, self.ignored, self.flags, self.parts


def sniff(root: Path) -> str | None:
    """Why this looks like imglab, or None."""
    root = Path(root)
    if root.is_file():
        return "an imglab XML file" if root.suffix.lower() == ".xml" and _fits(head(root.parent, root.name, shapes.HEAD)) else None
    groups = shapes.find_groups(root, (".xml",), _fits, most=200_000)
    names = [n for folder, files in groups for n in files[:1000] if _fits(head(root, os.path.join(folder, n), shapes.HEAD))]
    return f"{len(names)} imglab XML file{'s' * (len(names) != 1)}: {', '.join(names[:3])}" if names else None


def _fits(start: bytes) -> bool:
    return re.search(rb"<dataset[\s>]", start) is not None and re.search(rb"<image\s[^<>]*\bfile\s*=", start) is not None


# ----------------------------------------------------------------------------------------------------------------- read


def read(root: Path) -> DataIndex:
    """The data set of a folder of imglab XML, or of one file.

    Raises:
        DataError: no imglab XML, or not one usable image.
    """
    root = Path(root)
    base = root.parent if root.is_file() else root
    groups = [("", [root.name])] if root.is_file() else shapes.find_groups(root, (".xml",), _fits)
    if not groups:
        raise DataError(root, "holds no imglab XML", hint='expected <dataset><images><image file="...">')
    problems = Problems(base)
    images: dict[str, _Image] = {}
    splits: dict[str, dict[str, None]] = {}
    single = sum(len(names) for _, names in groups) == 1
    for folder, names in groups:
        finder = fs.ImageFinder(base, shapes.image_folders(folder))
        for name in names:
            file = base / folder / name
            try:
                found = _read_one(file, base, finder, problems)
            except DataError as error:
                if single:
                    raise
                problems.add("files that cannot be used", error.path, error.problem, where=error.where, hint=error.hint)
                continue
            split = shapes.split_of(os.path.join(folder, os.path.splitext(name)[0]))
            if split:
                splits.setdefault(split, {}).update(dict.fromkeys(found))
            _merge(images, found, problems)
    if not images:
        first = problems.list()
        raise DataError(root, "not one usable image is found", hint=str(first[0]) if first else "")
    classes, points = _names(base, images, problems)
    records = _records(images, classes, points)
    number = {path: k for k, path in enumerate(images)}
    return DataIndex(
        NAME, base, classes, PackedRecords(records),
        splits={s: np.array([number[p] for p in splits[s]], dtype=np.int64) for s in sorted(splits, key=fs.split_rank) if splits[s]},
        tasks=TASKS if points else TASKS[:1], problems=problems.list(), reason=sniff(root) or "",
        keypoint_names=points, keypoint_swap=shapes.point_swap(points),
    )  # fmt: skip


def _read_one(path: Path, base: Path, finder: fs.ImageFinder, problems: Problems) -> dict[str, _Image]:
    """The file's images by path."""
    tree = fs.read_xml(path)
    if tree.tag != "dataset":
        raise DataError(path, f"is not imglab: its root is <{tree.tag}>, not <dataset>")
    found: dict[str, _Image] = {}
    for k, item in enumerate(tree.iterfind("images/image"), 1):
        where = f"image {k}"
        name = item.get("file", "")
        try:
            image = finder.find(name, source=path, where=where)
        except DataError as error:
            problems.add("names of images that cannot be used", error.path, error.problem, where=error.where, hint=error.hint)
            continue
        if image is None:
            problems.add("images that are missing", path, f"image {fs.shown(name)} is missing; it is dropped", where=where)
        elif image in found:
            problems.add("images that stand twice", path, f"image {fs.shown(name)} stands twice; the first is kept", where=where)
        else:
            found[image] = _boxes(item, path, where, base / image, problems)
    return found


def _boxes(item: Element, path: Path, place: str, file: Path, problems: Problems) -> _Image:
    width, height = (_number(item.get(key)) for key in ("width", "height"))
    stated = None not in (width, height) and 1 <= width < shapes.LIMIT and 1 <= height < shapes.LIMIT  # type: ignore[operator]
    true_size = cache(partial(shapes.true_size_of, file))
    size = (int(height), int(width)) if stated else true_size()  # type: ignore[arg-type]
    image = _Image(path, size)
    for k, element in enumerate(item.iterfind("box"), 1):
        where = f"{place} ({item.get('file')}) box {k}"
        values = [_number(element.get(key)) for key in ("left", "top", "width", "height")]
        if None in values:
            problems.add("boxes without numbers", path, "has no left, top, width and height as numbers; it is skipped", where=where)
            continue
        left, top, wide, high = values
        edges = np.array([left, top, left + wide, top + high])  # type: ignore[operator]
        box, problem = shapes.settle_box(edges, size)
        if problem and (known := true_size()) is not None and known != size:
            size = image.size = known
            box, problem = shapes.settle_box(edges, size)
        if problem:
            problems.add("boxes that do not fit", path, problem, where=where)
        if box is None:
            continue
        parts: dict[str, tuple[float, float]] = {}
        for part in element.iterfind("part"):
            name, x, y = shapes.word(part.get("name", "")), _number(part.get("x")), _number(part.get("y"))
            if not name or x is None or y is None or name in parts:
                problems.add(
                    "parts that cannot be used",
                    path,
                    f"the part {fs.shown(name)} has no name or number, or stands twice; it is skipped",
                    where=where,
                )
            else:
                parts[name] = (x, y)
        image.boxes.append(box)
        image.labels.append(shapes.word(element.findtext("label") or ""))
        image.ignored.append(_flag(element, "ignore"))
        image.flags.append([_flag(element, key) for key in shapes.TRAITS])
        image.parts.append(parts)
    return image


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if abs(value) < shapes.LIMIT else None


def _flag(element: Element, key: str) -> bool:
    return element.get(key, "0").strip().lower() in ("1", "true", "yes")


def _merge(images: dict[str, _Image], found: dict[str, _Image], problems: Problems) -> None:
    """Takes a file's images in; of one that is known the richer statement wins, which is reported unless both say the same."""
    beaten: Counter[tuple[Path, Path]] = Counter()
    for path, image in found.items():
        known = images.setdefault(path, image)
        if known is image:
            continue
        winner, loser = (image, known) if image.richness > known.richness else (known, image)
        images[path] = winner
        if winner.content() != loser.content():
            beaten[winner.file, loser.file] += 1
    for (winner_file, loser_file), count in beaten.items():
        text = f"{count} of its images stand in {winner_file.name} too, with as many parts and boxes or more: those are taken"
        problems.add("files that others repeat", loser_file, text)


def _names(base: Path, images: dict[str, _Image], problems: Problems) -> tuple[list[str], list[str]]:
    """Classes and names of the key points. Gives every box a label."""
    named = {name for image in images.values() for name in image.labels if name}
    default = next(iter(named)) if len(named) == 1 else _DEFAULT_CLASS
    for image in images.values():
        image.labels = [n or (default if crowd else _DEFAULT_CLASS) for n, crowd in zip(image.labels, image.ignored, strict=True)]
    used = {name for image in images.values() for name in image.labels}
    source, stated = shapes.names_in(base, ("classes.txt",), problems)
    classes = shapes.in_order(stated, used, source, problems)
    parts = {name for image in images.values() for box in image.parts for name in box}
    source, stated = shapes.names_in(base, ("keypoints.txt",), problems)
    if not stated and parts:  # dlib's own order: numbers by value
        digits = ordered(n for n in parts if n.isdecimal())
        stated = [*digits, *ordered(parts.difference(digits))]
    points = shapes.in_order(stated, parts, source, problems)
    count = sum(len(box) for image in images.values() for box in image.parts)
    cells = len(points) * sum(len(image.boxes) for image in images.values())
    if len(points) > shapes.MAX_POINT_NAMES or cells > max(10**6, 100 * count):
        problems.add("names of parts", base, f"its {count} parts have {len(points)} names: too many for key points; they are left out")
        return classes, []
    return classes, points


def _records(images: dict[str, _Image], classes: list[str], points: list[str]) -> list[Record]:
    label = {name: k for k, name in enumerate(classes)}
    column = {name: k for k, name in enumerate(points)}
    records = []
    used: set[str] = set()
    for path, image in images.items():
        stem = os.path.splitext(path)[0]
        record = Record(path, shapes.unique_id(used, os.path.basename(stem), stem, path), image.size)
        record.boxes = np.array(image.boxes, dtype=np.float32).reshape(-1, 4)
        record.labels = np.array([label[n] for n in image.labels], dtype=np.int64)
        record.iscrowd = np.array(image.ignored, dtype=bool) if any(image.ignored) else None
        if points:
            record.keypoints = np.zeros((len(image.boxes), len(points), 3), dtype=np.float32)
            for k, box in enumerate(image.parts):
                for name, (x, y) in box.items():
                    record.keypoints[k, column[name]] = x, y, 2
        flags = np.array(image.flags, dtype=bool).reshape(-1, len(shapes.TRAITS))
        record.extra = {key: flags[:, k] for k, key in enumerate(shapes.TRAITS) if flags[:, k].any()} or None
        records.append(record)
    return records


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``images/``, ``SPLIT.xml`` (``images.xml`` for images of no split) and ``classes.txt``; returns what was lost, in words.

    dlib reads whole numbers only: boxes and parts are rounded, and how many that changes is said.
    """
    records = dict(fs.unique_records(dataset))
    names = {i: n if not _NO_XML.search(n) else f"{i}_{_NO_XML.sub('_', n)}" for i, n in fs.file_names(dataset, flat=True).items()}
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    renamed = sum(Path(names[i]).stem != r.image_id for i, r in records.items())
    if renamed:
        lost.append(f"{renamed} image ids change to the stems of their files")
    classes = [_NO_XML.sub("?", c) for c in shapes.written_names(dataset.classes, "class")]
    points = [_NO_XML.sub("?", p) for p in shapes.point_names_of(dataset)]
    counts = {"boxes": 0, "parts": 0, "occluded": 0}
    elements: dict[int, Element] = {}
    for i, record in records.items():
        fs.copy_image(dataset, record, out / "images" / names[i])
        height, width = fs.image_hw(dataset, record)
        elements[i] = Element("image", file=f"images/{names[i]}", width=str(width), height=str(height))
        _boxes_out(elements[i], record, classes, points, counts)
    pages: dict[str, dict[int, None]] = {}
    for split, members in fs.splits_of(dataset).items():
        if split and not fs.is_split(split):
            lost.append(f"the split {split} is lost: only train, val, trainval and test are told from a file's name")
        pages.setdefault(split if fs.is_split(split) else "images", {}).update(dict.fromkeys(members))
    for split, chosen in pages.items():
        root = Element("dataset")
        SubElement(root, "name").text = split
        SubElement(root, "comment").text = "written by saccade"
        SubElement(root, "images").extend([elements[i] for i in chosen])
        indent(root)
        (out / f"{split}.xml").write_bytes(tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
    for name, lines in {"classes.txt": classes, "keypoints.txt": points}.items():
        if lines:
            (out / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = {
        "boxes": "boxes are rounded to whole pixels: dlib reads no others",
        "parts": "key points are rounded to whole pixels: dlib reads no others",
        "occluded": "key points are no longer marked as occluded: a part has no such mark",
    }
    return lost + [f"{counts[key]} {text}" for key, text in words.items() if counts[key]]


def _boxes_out(parent: Element, record: Record, classes: list[str], points: list[str], counts: dict[str, int]) -> None:
    extra: dict[str, Any] = record.extra or {}
    for k in range(0 if record.boxes is None else len(record.boxes)):
        box = np.asarray(record.boxes[k], dtype=np.float64)  # type: ignore[index]
        left, top, right, bottom = (int(v) for v in np.round(box))
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        counts["boxes"] += [left, top, right, bottom] != box.tolist()
        element = SubElement(parent, "box", top=str(top), left=str(left), width=str(right - left), height=str(bottom - top))
        for key in shapes.TRAITS:
            if key in extra and extra[key][k]:
                element.set(key, "1")
        if record.iscrowd is not None and record.iscrowd[k]:
            element.set("ignore", "1")
        SubElement(element, "label").text = classes[int(record.labels[k])]  # type: ignore[index]
        for name, (x, y, visibility) in zip(points, [] if record.keypoints is None else record.keypoints[k].tolist(), strict=False):
            if visibility > 0:
                counts["parts"] += x != round(x) or y != round(y)
                counts["occluded"] += visibility == 1
                SubElement(element, "part", name=name, x=str(round(x)), y=str(round(y)))
