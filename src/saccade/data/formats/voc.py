"""Pascal VOC XML: one file an image, boxes with names. Read and written.

Read: ``Annotations/*.xml`` with ``JPEGImages/`` and ``ImageSets/Main/SPLIT.txt``; ``annotations/`` with ``images/``;
XML beside the images; or a folder a split with XML and images. An XML belongs to the image of its own stem,
else to the one that its ``<filename>`` names.

Conventions:

* **Boxes.** The numbers are taken as edges in pixels, as they are: ``xmin 453, xmax 555`` is the box 453..555. The original
  VOC counts pixels from 1 and includes the last one, so there the exact edges are xmin - 1 and xmax; most files of today (labelImg,
  CVAT, Roboflow, BCCD) state edges. ``one_based=True`` subtracts 1 from xmin and ymin. A 1-based box read as edges is a pixel
  smaller at the left and top.
* **Classes** are sorted by name, as an XML knows no order; a ``classes.txt`` (one name a line) in the root sets another.
* **Splits** are the lists as they stand: trainval is kept beside train and val, a union of both. Lists of one class
  (``cat_train.txt``, with a second column) are not splits. An image in no list is in no split.
* A box without area is skipped; one that leaves the image is clipped; both are reported. ``difficult``, ``truncated`` (N,)
  bool and ``pose`` stand in ``record.extra`` where they say anything.
* XML is read without entities or external files, whatever the document asks for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import look
from saccade.data.images import image_size
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "voc"
TITLE = "Pascal VOC XML"
TASKS = ("detect",)
HOLDS = frozenset({"boxes"})

_LIMIT = 1e7


def sniff(root: Path) -> str | None:
    """Why this looks like VOC, or None: XML files of which the first ones have <annotation>."""
    groups = _discover(Path(root))
    count = sum(len(files) for _, files in groups)
    return f"{count} XML file{'s' * (count != 1)} with <annotation>" if count else None


def _discover(root: Path) -> list[tuple[str, list[Path]]]:
    """Folders with VOC XML, relative to the root, and their files."""
    if not root.is_dir():
        return []
    for name in ("Annotations", "annotations", "xml", "labels", "."):
        if files := _xml_files(root / name):
            return [(name, files)]
    groups = [(name, _xml_files(root / name)) for name in look(root).folders]
    return [g for g in groups if g[1]]


def _xml_files(folder: Path) -> list[Path]:
    """The XML files, if one of the first few has <annotation> as its root."""
    files = [folder / name for name in look(folder).files if name.lower().endswith(".xml")]
    return files if any(_is_annotation(p) for p in files[:10]) else []


def _is_annotation(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return re.search(rb"<annotation[\s>/]", head) is not None


def read(root: Path, *, one_based: bool = False) -> DataIndex:
    """The data set of a folder of VOC XML.

    Args:
        root: the folder.
        one_based: xmin and ymin count pixels from 1: subtract 1 (the original VOC 2007 and 2012).

    Raises:
        DataError: no VOC XML, or not one usable image.
    """
    root = Path(root)
    groups = _discover(root)
    if not groups:
        raise DataError(root, "holds no Pascal VOC XML", hint="expected Annotations/*.xml with <annotation>, and JPEGImages/")
    problems: list[DataError] = []
    found: list[tuple[Record, list[str]]] = []
    folder_splits: dict[str, list[int]] = {}
    stems: dict[str, int] = {}
    taken: dict[str, Path] = {}
    for folder, files in groups:
        prefix = "" if folder == "." else folder
        beside = [prefix] if len(groups) > 1 else ["JPEGImages", "images", "Images", "jpegimages", "", prefix]
        finder = fs.ImageFinder(root, beside)
        split = fs.split_name(folder) if len(groups) > 1 else ""
        for file in files:
            try:
                record, names = _read_one(file, finder, one_based, problems)
            except DataError as error:
                problems.append(error)
                continue
            if record.path in taken:
                problems.append(
                    DataError(file, f"names the image {fs.shown(record.path)}, which {taken[record.path].name} has; it is skipped")
                )
                continue
            taken[record.path] = file
            record.image_id = f"{split}/{file.stem}" if file.stem in stems else file.stem
            stems.setdefault(file.stem, len(found))
            if split:
                folder_splits.setdefault(split, []).append(len(found))
            found.append((record, names))
    if not found:
        raise DataError(root, "not one usable image is found", hint=str(problems[0]) if problems else "")
    classes = _classes(root, {n for _, names in found for n in names}, problems)
    label = {name: k for k, name in enumerate(classes)}
    for record, names in found:
        record.labels = np.array([label[n] for n in names], dtype=np.int64)
    splits = _list_splits(root, stems, problems) or folder_splits
    return DataIndex(
        NAME, root, classes, PackedRecords(r for r, _ in found),
        splits={s: np.array(splits[s], dtype=np.int64) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS, problems=problems, reason=sniff(root) or "",
    )  # fmt: skip


def _parse(path: Path) -> Element:
    tree = fs.read_xml(path)
    if tree.tag != "annotation":
        raise DataError(path, f"is not VOC: its root is <{tree.tag}>, not <annotation>")
    return tree


def _read_one(path: Path, finder: fs.ImageFinder, one_based: bool, problems: list[DataError]) -> tuple[Record, list[str]]:
    tree = _parse(path)
    image = finder.by_stem(path.stem)
    if image is None:
        name = (tree.findtext("filename") or "").strip()
        image = finder.find(name, source=path, where="<filename>") if name else None
        image = image or (finder.by_stem(Path(name).stem) if name else None)
        if image is None:
            raise DataError(path, f"its image is missing: neither {path.stem}.* nor {fs.shown(name)} is found", hint="the image is dropped")
    size = _size(tree)
    boxes, names, flags = [], [], []
    for k, item in enumerate(tree.findall("object"), 1):
        where = f"object {k}"
        name = (item.findtext("name") or "").strip()
        if not name:
            problems.append(DataError(path, "has no <name>; it is skipped", where=where))
            continue
        box = _box(item)
        if box is None:
            problems.append(DataError(path, "has no <bndbox> of four finite numbers; it is skipped", where=where))
            continue
        if one_based:
            box[:2] -= 1
        text = " ".join(f"{v:g}" for v in box)
        if not (box[2:] > box[:2]).all():
            problems.append(DataError(path, f"the box {text} of {fs.shown(name)} has no area; it is skipped", where=where))
            continue
        if (box < 0).any() or size is None or box[2] > size[1] or box[3] > size[0]:
            size = _true_size(finder.root / image) or size
            clipped = box.clip(0, None if size is None else [size[1], size[0], size[1], size[0]])
            if not (clipped[2:] > clipped[:2]).all():
                problems.append(DataError(path, f"the box {text} of {fs.shown(name)} lies outside the image; it is skipped", where=where))
                continue
            if (clipped != box).any():
                shown = "" if size is None else f" of {size[1]} x {size[0]}"
                problems.append(DataError(path, f"the box {text} of {fs.shown(name)} leaves the image{shown}; it is clipped", where=where))
            box = clipped
        boxes.append(box)
        names.append(name)
        flags.append([_flag(item, "difficult"), _flag(item, "truncated"), (item.findtext("pose") or "Unspecified").strip()])
    record = Record(image, path.stem, size, boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4), extra=_extra(flags))
    return record, names


def _extra(flags: list[list[Any]]) -> dict[str, Any] | None:
    extra: dict[str, Any] = {}
    for k, key in enumerate(("difficult", "truncated")):
        if any(f[k] for f in flags):
            extra[key] = np.array([f[k] for f in flags], dtype=bool)
    if any(f[2] != "Unspecified" for f in flags):
        extra["pose"] = [f[2] for f in flags]
    return extra or None


def _flag(item: Element, tag: str) -> bool:
    return (item.findtext(tag) or "0").strip().lower() in ("1", "true", "yes")


def _box(item: Element) -> np.ndarray | None:
    box = item.find("bndbox")
    if box is None:
        return None
    try:
        values = np.array([float(box.findtext(k) or "nan") for k in ("xmin", "ymin", "xmax", "ymax")])
    except ValueError:
        return None
    return values if (np.abs(values) < _LIMIT).all() else None


def _size(tree: Element) -> tuple[int, int] | None:
    try:
        height, width = (int(float(tree.findtext(f"size/{k}") or 0)) for k in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if 0 < height < _LIMIT and 0 < width < _LIMIT else None


def _true_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of the file itself: asked only where a box contradicts the XML's size."""
    try:
        return image_size(path)
    except DataError:
        return None


def _classes(root: Path, used: set[str], problems: list[DataError]) -> list[str]:
    file = root / "classes.txt"
    if not file.is_file():
        return sorted(used)
    try:
        names = list(dict.fromkeys(line.strip() for line in fs.read_text(file).splitlines() if line.strip()))
    except DataError as error:
        problems.append(error)
        return sorted(used)
    missing = sorted(used - set(names))
    if missing:
        problems.append(DataError(file, f"lacks the classes {', '.join(missing)}, which the XML files use; they are added at the end"))
    return names + missing


def _list_splits(root: Path, stems: dict[str, int], problems: list[DataError]) -> dict[str, list[int]]:
    splits: dict[str, list[int]] = {}
    for file in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        try:
            rows = [line.split() for line in fs.read_text(file).splitlines()]
        except DataError as error:
            problems.append(error)
            continue
        if any(len(r) > 1 and r[-1] in ("1", "-1", "0") for r in rows):  # a list of one class
            continue
        members: dict[int, None] = {}
        for number, row in enumerate(rows, 1):
            if not row:
                continue
            name = " ".join(row)
            k = stems.get(name, stems.get(Path(name).stem if "\x00" not in name else "", -1))
            if k < 0:
                problems.append(DataError(file, f"names {fs.shown(name)}, which has no usable XML and image", where=f"line {number}"))
            elif k in members:
                problems.append(DataError(file, f"names {fs.shown(name)} twice", where=f"line {number}"))
            else:
                members[k] = None
        if members:
            splits[fs.split_name(file.stem)] = list(members)
    return splits


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """Write ``Annotations/``, ``JPEGImages/``, ``ImageSets/Main/`` and ``classes.txt``; returns what was lost, in words.

    Numbers are written as edges (see the module), whole ones without a point. Reading it back gives the same boxes.
    """
    names = fs.file_names(dataset, flat=True)
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    records = dict(fs.unique_records(dataset))
    renamed = sum(Path(names[i]).stem != r.image_id for i, r in records.items())
    if renamed:
        lost.append(f"{renamed} image ids change to the stems of their files")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / folder).mkdir(parents=True)
    for i, record in records.items():
        fs.copy_image(dataset, record, out / "JPEGImages" / names[i])
        tree = _tree(record, names[i], fs.image_hw(dataset, record), dataset)
        (out / "Annotations" / f"{Path(names[i]).stem}.xml").write_bytes(tostring(tree, encoding="utf-8"))
    for split, members in fs.splits_of(dataset).items():
        if split:
            text = "".join(f"{Path(names[i]).stem}\n" for i in members)
            (out / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")
    (out / "classes.txt").write_text("".join(f"{' '.join(c.split())}\n" for c in dataset.classes), encoding="utf-8")
    return lost


def _tree(record: Record, name: str, size: tuple[int, int], dataset: Dataset) -> Element:
    root = Element("annotation")
    _texts(root, {"folder": "JPEGImages", "filename": name})
    _texts(SubElement(root, "size"), {"width": size[1], "height": size[0], "depth": dataset.channels or 3})
    _texts(root, {"segmented": 0})
    extra = record.extra or {}
    boxes = fs.shorten(np.asarray(record.boxes if record.boxes is not None else np.zeros((0, 4)))).reshape(-1, 4)
    for k, box in enumerate(boxes.tolist()):
        item = SubElement(root, "object")
        flags = {key: int(extra[key][k]) if key in extra else 0 for key in ("truncated", "difficult")}
        pose = extra["pose"][k] if "pose" in extra else "Unspecified"
        _texts(item, {"name": " ".join(dataset.classes[int(record.labels[k])].split()), "pose": pose, **flags})  # type: ignore[index]
        values = [int(v) if v == int(v) else v for v in box]
        _texts(SubElement(item, "bndbox"), dict(zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True)))
    indent(root, "\t")
    return root


def _texts(parent: Element, values: dict[str, Any]) -> None:
    for key, value in values.items():
        # XML 1.0 has no control characters at all, not even escaped
        SubElement(parent, key).text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "?", str(value))
