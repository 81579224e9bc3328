"""Truth and predictions made elsewhere, read into one form: what :mod:`saccade.workflows.score` scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import image_hw, read_json, read_text
from saccade.data.images import is_image_name
from saccade.data.polygons import polygon_area
from saccade.data.records import Record
from saccade.types.errors import DataError, UsageError, suggest


class Objects(NamedTuple):
    """Objects of one image: (N, 4) float64 x, y, width, height; labels; more of the truth or the score of detections."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    segments: list[Any] | None = None


class Frame(NamedTuple):
    """One image of the truth. ``objects`` is None where the data hold no boxes; ``record`` where they are a Dataset."""

    image_id: Any
    path: str
    size: tuple[int, int] | None
    objects: Objects | None
    record: Record | None = None


@dataclass
class Truth:
    """What predictions are scored against.

    Attributes:
        source: file or folder, for messages.
        classes: names by label.
        frames: the images.
        category_ids: COCO's own number of each label, where the data state it.
        dataset: None when the truth is a COCO file.
        elsewhere: id and path of the data's images in other splits.
        unused: predictions found for those.
        skipped: annotations of an image or category that the file does not list.
    """

    source: Path
    classes: list[str]
    frames: list[Frame]
    category_ids: list[int] | None = None
    dataset: Dataset | None = None
    elsewhere: list[tuple[str, str]] = field(default_factory=list)
    unused: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        self.by_id = {_key(frame.image_id): i for i, frame in enumerate(self.frames)}
        self.by_name: dict[str, list[int]] = {}
        paths = [frame.path for frame in self.frames]
        for i, path in enumerate([*paths, *(path for _, path in self.elsewhere)]):
            parts = _parts(path)
            for k in range(len(parts)):
                self.by_name.setdefault("/".join(parts[k:]), []).append(i if i < len(paths) else -1)
        self.ids_elsewhere = {_key(image_id) for image_id, _ in self.elsewhere}

    def find(self, path: str, source: Path, where: str = "") -> int:
        """Number of the frame that a file name means; -1 when it is in another split."""
        parts = _parts(path)
        for k in range(len(parts)):
            found = self.by_name.get("/".join(parts[k:]))
            if found is not None:
                if len(found) > 1:
                    raise DataError(source, f"{path!r} fits {len(found)} images of the data", where=where, hint="keep their folders")
                self.unused += found[0] < 0
                return found[0]
        raise DataError(source, f"{path!r} is no image of {self.source}", where=where, hint="predictions need their image's file name")


def dataset_truth(data: str | Path | Dataset) -> Truth:
    """Truth of a Dataset, or of what :func:`saccade.load_data` takes; no image is decoded."""
    if not isinstance(data, Dataset):
        from saccade.data.load import load_data

        data = load_data(data)
    chosen = set(data.indices.tolist())
    frames = []
    for i in range(len(data)):
        record = data.record(i)
        frames.append(Frame(record.image_id, record.path, record.size, _record_objects(record), record))
    others = [r for i, r in enumerate(data.index.records) if i not in chosen] if len(chosen) < len(data.index) else []
    elsewhere = [(record.image_id, record.path) for record in others]
    return Truth(data.index.root, list(data.classes), frames, data.index.category_ids, data, elsewhere)


def _record_objects(record: Record) -> Objects | None:
    if record.boxes is None:
        return None
    boxes = np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    count, extra = len(boxes), record.extra or {}
    areas = boxes[:, 2] * boxes[:, 3]
    if extra.get("area") is not None:
        areas = np.asarray(extra["area"], dtype=np.float64)
    elif record.segments is not None:
        areas = np.array([_area(s, box) for s, box in zip(record.segments, areas, strict=True)])
    crowd = np.zeros(count, dtype=bool) if record.iscrowd is None else np.asarray(record.iscrowd, dtype=bool)
    difficult = np.asarray(extra.get("difficult", np.zeros(count)), dtype=bool)
    labels = np.asarray(record.labels, dtype=np.int64).reshape(-1)
    return Objects(boxes, labels, np.ones(count), areas, crowd, difficult, record.segments)


def _area(segment: Any, box: float) -> float:
    if segment is None or isinstance(segment, dict) or not len(segment):
        return box
    return polygon_area(segment)


def coco_truth(path: Path) -> Truth:
    """COCO's truth with float64 boxes as they are written: to 1e-6 the numbers hang on that."""
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "annotations", "categories")):
        raise DataError(path, "is no COCO truth", hint='expected {"images": [...], "annotations": [...], "categories": [...]}')
    categories = {}
    for k, item in enumerate(data["categories"]):
        if not isinstance(item, dict) or not _whole(item.get("id")):
            raise DataError(path, "a category needs a whole number as id", where=f"categories[{k}]")
        categories[int(item["id"])] = str(item.get("name") or item["id"])
    ids = sorted(categories)
    plain = [categories[i] for i in ids]
    names = [name if plain.count(name) == 1 else f"{name} ({i})" for i, name in zip(ids, plain, strict=True)]
    images: dict[str, dict[str, Any]] = {}
    for k, item in enumerate(data["images"]):
        if not isinstance(item, dict) or not isinstance(item.get("id"), (int, str)):
            raise DataError(path, "an image needs an id", where=f"images[{k}]")
        images.setdefault(_key(item["id"]), item)
    numbers = [
        k for k, item in enumerate(data["annotations"])
        if isinstance(item, dict) and "caption" not in item and _key(item.get("image_id")) in images and _whole(item.get("category_id"))
        and int(item["category_id"]) in categories
    ]  # fmt: skip
    objects = [data["annotations"][k] for k in numbers]
    boxes = column(path, "annotations", objects, "bbox", 4, numbers=numbers)
    sized = [item if "area" in item else {"area": box[2] * box[3]} for item, box in zip(objects, boxes, strict=True)]
    found = Objects(
        boxes,
        np.array([ids.index(int(item["category_id"])) for item in objects], dtype=np.int64),
        np.ones(len(objects)),
        column(path, "annotations", sized, "area", numbers=numbers),
        np.array([bool(item.get("iscrowd", 0)) for item in objects], dtype=bool),
        np.zeros(len(objects), dtype=bool),
        [item.get("segmentation") for item in objects],
    )
    rows = _grouped([_key(item["image_id"]) for item in objects])
    frames = []
    for key, item in images.items():
        height, width = item.get("height"), item.get("width")
        size = (int(height), int(width)) if _whole(height) and _whole(width) else None
        frames.append(Frame(item["id"], str(item.get("file_name", key)), size, _rows(found, rows.get(key, np.zeros(0, dtype=np.int64)))))
    captions = sum(isinstance(item, dict) and "caption" in item for item in data["annotations"])
    return Truth(path, names, frames, ids, skipped=len(data["annotations"]) - captions - len(objects))


def coco_results(path: Path, entries: Any, truth: Truth) -> tuple[dict[int, Objects], bool]:
    """Detections of a parsed COCO results file by number of the frame, and whether they have boxes; the first bad entry raises."""
    if not isinstance(entries, list):
        raise DataError(
            path, "is no list of COCO results", hint='expected [{"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9}]'
        )
    if truth.category_ids is None:
        raise UsageError(f"COCO results name categories by number, which {truth.source} does not state: score against a COCO file")
    labels: dict[Any, int] = {i: k for k, i in enumerate(truth.category_ids)}
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(path, "is no COCO result but " + type(entry).__name__, where=f"entry {k}")
    keys = [_key(entry.get("image_id")) for entry in entries]
    known = truth.by_id.keys() | truth.ids_elsewhere
    for k, key in enumerate(keys):
        if key not in known:
            count = sum(other not in known for other in keys)
            raise DataError(
                path, f"image_id {entries[k].get('image_id')!r} is not in {truth.source}", where=f"entry {k}", hint=f"{count} entries"
            )
    for k, entry in enumerate(entries):
        if not _whole(entry.get("category_id")) or int(entry["category_id"]) not in labels:
            hint = f"known: {', '.join(map(str, truth.category_ids[:12]))}"
            raise DataError(path, f"category_id {entry.get('category_id')!r} is not in {truth.source}", where=f"entry {k}", hint=hint)
    has_boxes = all("bbox" in entry for entry in entries)
    if has_boxes:
        boxes = column(path, "entry", entries, "bbox", 4)
    else:
        boxes = np.zeros((len(entries), 4))
        for k, entry in enumerate(entries):
            if "segmentation" not in entry:
                raise DataError(path, "has neither bbox nor segmentation", where=f"entry {k}")
    unset = np.zeros(len(entries), dtype=bool)
    found = Objects(
        boxes, np.array([labels[int(entry["category_id"])] for entry in entries], dtype=np.int64), column(path, "entry", entries, "score"),
        boxes[:, 2] * boxes[:, 3], unset, unset, [entry.get("segmentation") for entry in entries],
    )  # fmt: skip
    truth.unused = sum(key in truth.ids_elsewhere for key in keys)
    return {truth.by_id[key]: _rows(found, rows) for key, rows in _grouped(keys).items() if key in truth.by_id}, has_boxes


def own_rows(path: Path, data: Any) -> list[dict[str, Any]]:
    """Entries of a parsed ``predictions.json``, which may be a single one."""
    data = [data] if isinstance(data, dict) else data
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(path, "is no list of predictions", hint="expected what saccade predict writes, or COCO results")
    return data


def own_frame(source: Path, number: int, row: dict[str, Any], truth: Truth, taken: set[int]) -> int:
    """Number of the frame of an entry, by ``image_id`` or ``path``; -1 in another split; added to ``taken``."""
    where = f"entry {number}"
    key = _key(row.get("image_id")) if row.get("image_id") is not None else None
    if key in truth.by_id:
        i = truth.by_id[key]
    elif key is not None and key in truth.ids_elsewhere:
        truth.unused += 1
        return -1
    elif isinstance(row.get("path"), str) and row["path"]:
        i = truth.find(row["path"], source, where)
    else:
        raise DataError(source, "names no image of the data", where=where, hint="a prediction needs its image_id or path")
    if i >= 0 and i in taken:
        raise DataError(source, f"predicts the image {truth.frames[i].path!r} twice", where=where)
    taken.add(i)
    return i


def own_label(source: Path, where: str, item: dict[str, Any], truth: Truth) -> int:
    """By name, so that another order of classes does no harm; by number where a model never learnt names."""
    name, label = item.get("name"), item.get("label")
    if name in truth.classes:
        return truth.classes.index(str(name))
    if _whole(label) and 0 <= int(label) < len(truth.classes) and name in (None, str(label)):
        return int(label)
    raise DataError(
        source, f"class {name if name is not None else label!r} is not in the data{suggest(str(name), truth.classes)}", where=where
    )


def own_detections(source: Path, rows: list[dict[str, Any]], truth: Truth) -> dict[int, Objects]:
    """Detections of our own entries by number of the frame."""
    found: dict[int, Objects] = {}
    taken: set[int] = set()
    for n, row in enumerate(rows):
        i = own_frame(source, n, row, truth, taken)
        objects = row.get("objects")
        if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
            raise DataError(source, "has no list of objects", where=f"entry {n}")
        corners = column(source, f"entry {n} object", objects, "box", 4, xyxy=True)
        labels = np.array([own_label(source, f"entry {n} object {k}", item, truth) for k, item in enumerate(objects)], dtype=np.int64)
        if i >= 0:
            found[i] = _detections(corners, labels, column(source, f"entry {n} object", objects, "score"))
    return found


def read_folder(source: Path, truth: Truth, suffix: str, read: Callable[[Path, tuple[int, int], list[str]], Objects]) -> dict[int, Objects]:
    """Detections of a folder by number of the frame; ``read(path, (H, W), classes)`` reads a file."""
    found: dict[int, Objects] = {}
    for path in list_files(source, suffix):
        i = truth.find(path.relative_to(source).as_posix(), path)
        if i < 0:
            continue
        if i in found:
            raise DataError(path, f"is a second file for the image {truth.frames[i].path!r}")
        frame = truth.frames[i]
        size = frame.size
        if size is None and truth.dataset is not None and frame.record is not None:
            size = image_hw(truth.dataset, frame.record)
        if size is None:
            raise DataError(truth.source, "states no height and width, which these predictions need", where=f"image {frame.image_id}")
        found[i] = read(path, size, truth.classes)
    return found


def yolo_reader(names: list[str] | None, truth: Truth) -> Callable[[Path, tuple[int, int], list[str]], Objects]:
    """Reads lines ``class cx cy w h score``; ``names``: the classes in the files' own order."""
    table = renumbering(names, truth)

    def read(path: Path, size: tuple[int, int], classes: list[str]) -> Objects:
        rows, labels = [], []
        for n, line in enumerate(read_text(path).splitlines(), 1):
            words = line.split()
            if not words:
                continue
            where = f"line {n}"
            if len(words) != 6:
                raise DataError(path, f"a prediction is 'class cx cy w h score', this line has {len(words)} words", where=where)
            try:
                number, values = float(words[0]), [float(word) for word in words[1:]]
            except ValueError:
                raise DataError(path, "holds a word that is no number", where=where) from None
            if not number.is_integer() or not 0 <= number < len(table):
                raise DataError(path, f"class {words[0]} is outside 0..{len(table) - 1}", where=where)
            if not all(map(math.isfinite, values)) or min(values[2:4]) < 0:
                raise DataError(path, "holds a number that is not finite, or a negative side", where=where)
            labels.append(table[int(number)])
            rows.append(values)
        array = np.array(rows, dtype=np.float64).reshape(-1, 5)
        centre, sides = array[:, :2] * (size[1], size[0]), array[:, 2:4] * (size[1], size[0])
        return _detections(np.concatenate([centre - sides / 2, centre + sides / 2], 1), np.array(labels, dtype=np.int64), array[:, 4])

    return read


def read_voc(path: Path, size: tuple[int, int], classes: list[str]) -> Objects:
    """Objects of an XML file, each with a ``<score>`` or ``<confidence>``; coordinates are edges, as in the data's VOC files."""
    import defusedxml.ElementTree as ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        root = ElementTree.fromstring(read_text(path))
    except (ElementTree.ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise DataError(path, f"is no usable XML: {error}") from None
    corners, labels, scores = [], [], []
    for k, item in enumerate(root.iter("object"), 1):
        where, name = f"object {k}", (item.findtext("name") or "").strip()
        if name not in classes:
            raise DataError(path, f"class {name!r} is not in the data{suggest(name, classes)}", where=where)
        score = item.findtext("score") or item.findtext("confidence")
        if score is None:
            raise DataError(path, "a predicted object needs a <score>", where=where)
        try:
            values = [float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")] + [float(score)]
        except ValueError:
            raise DataError(path, "bndbox or score holds no number", where=where) from None
        if not all(map(math.isfinite, values)) or values[2] < values[0] or values[3] < values[1]:
            raise DataError(path, "holds a number that is not finite, or a box turned over", where=where)
        corners.append(values[:4])
        labels.append(classes.index(name))
        scores.append(values[4])
    return _detections(np.array(corners, dtype=np.float64).reshape(-1, 4), np.array(labels, dtype=np.int64), np.array(scores))


def _detections(corners: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Objects:
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    unset = np.zeros(len(boxes), dtype=bool)
    return Objects(boxes, labels, scores, boxes[:, 2] * boxes[:, 3], unset, unset)


def read_any(path: Path) -> Any:
    """The content of a JSON or JSON lines file; None for a folder."""
    if path.is_dir():
        return None
    if path.suffix.lower() == ".jsonl":
        try:
            return [json.loads(line) for line in read_text(path, limit=1 << 34).splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"is not JSON lines: {error}") from None
    if not path.exists():
        raise DataError(path, "does not exist")
    if path.suffix.lower() != ".json":
        raise DataError(path, "is no file of predictions", hint="expected COCO results or saccade's predictions.json, or a folder")
    return read_json(path)


def recognise(path: Path, data: Any) -> str:
    """Format of the predictions, by the content of a file or the files of a folder."""
    if data is not None or path.is_file():
        first = data[0] if isinstance(data, list) and data else data
        return "saccade" if isinstance(first, dict) and "task" in first else "coco"
    kinds = {"yolo": ".txt", "voc": ".xml", "masks": None}
    found = [kind for kind, suffix in kinds.items() if _walk(path, suffix)]
    if len(found) != 1:
        what = f"holds files of several formats: {', '.join(found)}" if found else "holds no predictions"
        raise DataError(path, what, hint="expected YOLO .txt, VOC .xml, or mask images; choose with format")
    return found[0]


def _walk(folder: Path, suffix: str | None) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if suffix is None:
        return [p for p in files if is_image_name(p)]
    return [p for p in files if p.suffix.lower() == suffix and p.name.lower() not in ("classes.txt", "obj.names")]


def list_files(folder: Path, suffix: str | None) -> list[Path]:
    """Files below a folder with this suffix (None: images), sorted; DataError when there is none."""
    found = _walk(folder, suffix) if folder.is_dir() else []
    if not found:
        raise DataError(folder, f"holds no {suffix or 'mask image'} file")
    return found


def renumbering(names: list[str] | None, truth: Truth) -> list[int]:
    """The data's label of each of the predictions' class numbers."""
    if names is None:
        return list(range(len(truth.classes)))
    for name in names:
        if name not in truth.classes:
            raise UsageError(f"the class {name!r} is not in {truth.source}{suggest(name, truth.classes)}")
    return [truth.classes.index(name) for name in names]


def column(
    path: Path,
    place: str,
    items: Sequence[dict[str, Any]],
    key: str,
    width: int = 0,
    *,
    xyxy: bool = False,
    numbers: Sequence[int] | None = None,
) -> np.ndarray:
    """(N,) or (N, width) float64 of one field of all entries; the first bad one is named, by ``numbers`` or its position."""
    shape = (len(items), width) if width else (len(items),)
    try:
        out = np.array([item[key] for item in items] if items else np.zeros(shape), dtype=np.float64)
        if out.shape != shape:
            raise ValueError
        good = np.all(np.isfinite(out.reshape(len(items), max(width, 1))), axis=1)
        if width:
            good &= np.all((out[:, 2:] - out[:, :2] if xyxy else out[:, 2:]) >= 0, axis=1)
        if good.all():
            return out
        k = int(np.flatnonzero(~good)[0])
    except (KeyError, TypeError, ValueError, OverflowError):
        k = next(n for n, item in enumerate(items) if not _numbers(item.get(key), width))
    what = f"{width} finite numbers with sides of at least 0" if width else "a finite number"
    number = k if numbers is None else numbers[k]
    where = f"{place}[{number}]" if place == "annotations" else f"{place} {number}"
    raise DataError(path, f"{key} is {items[k].get(key)!r}, not {what}", where=where)


def _numbers(value: Any, width: int) -> bool:
    try:
        return np.asarray(value, dtype=np.float64).shape == ((width,) if width else ()) and value is not None
    except (TypeError, ValueError, OverflowError):
        return False


def _grouped(keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Positions of each key, in order."""
    if not keys:
        return {}
    values, inverse = np.unique(np.array(keys, dtype=object), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(values)))[:-1])
    return dict(zip(values.tolist(), parts, strict=True))


def _rows(objects: Objects, rows: np.ndarray) -> Objects:
    segments = None if objects.segments is None else [objects.segments[i] for i in rows.tolist()]
    return Objects._make([*(column[rows] for column in objects[:6]), segments])


def _key(image_id: Any) -> str:
    """Ids as text: some tools write 42 as "42" or 42.0."""
    return str(int(image_id)) if isinstance(image_id, float) and image_id.is_integer() else str(image_id)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return [*parts[:-1], parts[-1].rpartition(".")[0] or parts[-1]] if parts else []


def _whole(value: Any) -> TypeGuard[int | float]:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def is_json(path: str | Path) -> bool:
    """Whether this is a single JSON file."""
    return Path(path).suffix.lower() == ".json" and Path(path).is_file()
