"""WIDER FACE: face boxes with attributes, one text file a split. Read and written.

Read: ``wider_face_split/wider_face_SPLIT_bbx_gt.txt`` (or the text files in the folder itself), images in
``WIDER_SPLIT/images/EVENT/x.jpg``. An entry is the image's name below ``images``, the number of faces, and a line a face:
``x1 y1 w h blur expression illumination invalid occlusion pose``; lines of ``x y w h`` alone are read too. Where the number is 0,
one line of zeros follows (or none).

Conventions:

* **Boxes.** ``x y w h`` becomes the edges x, y, x + w, y + h in pixels, nothing is added. One without area is skipped, one that
  leaves the image is clipped; both are reported. The number of lines counts, not the number stated; a difference is reported.
* **One class**, ``face``. A face that is marked ``invalid`` (too small or too blurred to tell) is a crowd: neither found nor missed.
* **Attributes** stand in ``record.extra["face_attributes"]``, (N, 5): blur, expression, illumination, occlusion, pose, where any is set.
* ``wider_face_SPLIT_filelist.txt`` lists images without truth (the test split): their records have no boxes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import files as fs
from saccade.data.formats.scan import Problems, head, look, text_lines
from saccade.data.images import image_size, is_image_name
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

NAME = "widerface"
TITLE = "WIDER FACE"
TASKS = ("detect",)
HOLDS = frozenset(["boxes", "crowd"])

_FILE = re.compile(r"wider_?face_(?:(.+?)_)?(bbx_gt|filelist)(?:_.*)?\.txt", re.IGNORECASE)
_ATTRIBUTES = (4, 5, 6, 8, 9)  # of the ten numbers; the eighth is "invalid"
_LIMIT = 1e7
_MOST_FACES = 100_000  # of one image; the largest crowd of the set has 1968


def sniff(root: Path) -> str | None:
    """Text files named like WIDER FACE's, with an image's name in the first line."""
    found = [name for name, kind, _ in _lists(Path(root)) if kind == "bbx_gt"]
    return f"{', '.join(found[:3])}: image names and face boxes" if found else None


def _lists(root: Path) -> list[tuple[str, str, str]]:
    """(path relative to the base, bbx_gt or filelist, split as it is written) of the text files, train first."""
    base = _base(root)
    names = [root.relative_to(base).as_posix()] if root.is_file() else []
    if root.is_dir():
        names = [f"{folder}{name}" for folder in ("wider_face_split/", "") for name in look(root / folder).files]
    found = []
    for name in names:
        match = _FILE.fullmatch(name.rpartition("/")[2])
        if match and is_image_name(head(base, name).decode("utf-8-sig", "replace").partition("\n")[0].strip()):
            found.append((name, match[2].lower(), match[1] or ""))
    return sorted(found, key=lambda f: (fs.split_rank(fs.split_name(f[2])), f[1], f[0]))


def _base(root: Path) -> Path:
    if not root.is_file():
        return root
    return root.parent.parent if root.parent.name == "wider_face_split" else root.parent


def read(root: Path) -> DataIndex:
    """The data set of a folder with ``wider_face_split/``, or of one text file.

    Raises:
        DataError: no such text file, or not one usable image.
    """
    root = Path(root)
    lists, base = _lists(root), _base(root)
    if not lists:
        hint = "expected wider_face_split/wider_face_train_bbx_gt.txt and WIDER_train/images/"
        raise DataError(root, "holds no WIDER FACE text", hint=hint)
    problems = Problems(base)
    records: dict[str, Record] = {}
    splits: dict[str, dict[str, None]] = {}
    for name, kind, raw in lists:
        try:
            _read_list(base, name, kind, raw, records, splits, problems)
        except DataError as error:  # not text: what stood before the place is kept
            problems.add("broken lists", error.path, error.problem, where=error.where, hint=error.hint)
    if not records:
        first = problems.list()[:1]
        raise DataError(root, "not one usable image is found", hint=str(first[0]) if first else "expected WIDER_train/images/")
    number = {path: k for k, path in enumerate(records)}
    return DataIndex(
        NAME, base, ["face"], PackedRecords(records.values()),
        splits={s: np.array([number[p] for p in splits[s]]) for s in sorted(splits, key=fs.split_rank)},
        tasks=TASKS, problems=problems.list(), reason=f"{', '.join(name for name, _, _ in lists)}: image names and face boxes",
    )  # fmt: skip


def _read_list(
    base: Path, name: str, kind: str, raw: str, records: dict[str, Record], splits: dict[str, dict[str, None]], problems: Problems
) -> None:
    """Add the images of one text file."""
    source = base / name
    finder = fs.ImageFinder(base, _folders(raw))
    entries = _entries(source, problems) if kind == "bbx_gt" else ((k, t, None) for k, t in enumerate(text_lines(source), 1))
    for line, text, rows in entries:
        path = _find(finder, text.rstrip("\r\n"), source, f"line {line}", problems) if text.strip() else None
        if path is None:
            continue
        if path in records:
            if rows is not None:
                problems.add("images listed twice", source, f"lists {text.strip()[:80]!r} again; skipped", where=f"line {line}")
        else:
            try:
                records[path] = _record(base, path, rows, source, problems)
            except DataError as error:
                problems.add("images that cannot be read", error.path, f"{error.problem}; it is dropped", hint=error.hint)
                continue
        if raw:
            splits.setdefault(fs.split_name(raw), {})[path] = None


def _folders(split: str) -> list[str]:
    own = [f"WIDER_{split}/images", f"WIDER_{split}", f"{split}/images", f"images/{split}", split] if split else []
    return [*own, "images", ""]


def _find(finder: fs.ImageFinder, text: str, source: Path, where: str, problems: Problems) -> str | None:
    try:
        path = finder.find(text, source=source, where=where) or finder.find(text.strip(), source=source, where=where)
    except DataError as error:
        problems.add("unusable file names", error.path, error.problem, where=error.where, hint=error.hint)
        return None
    if path is None:
        problems.add("missing images", source, f"image {fs.shown(text.strip())} is missing; it is dropped", where=where)
    return path


Row = tuple[int, list[float]]


def _entries(source: Path, problems: Problems) -> Iterator[tuple[int, str, list[Row]]]:
    """(line, image name, faces) of every entry; a face is its line and its four or ten numbers."""
    entry: tuple[int, str, list[Row]] | None = None
    stated: int | None = None  # faces that the entry says it has

    def checked(entry: tuple[int, str, list[Row]], stated: int | None) -> tuple[int, str, list[Row]]:
        line, name, rows = entry
        if stated != len(rows):
            text = f"{name.strip()[:80]!r} states {'no number of' if stated is None else stated} faces and lists {len(rows)}"
            problems.add("wrong numbers of faces", source, f"{text}; those listed are taken", where=f"line {line}")
        return entry

    for number, raw in enumerate(text_lines(source), 1):
        text = raw.rstrip("\r\n")
        if not text.strip():
            continue
        where = f"line {number}"
        if is_image_name(text.strip()):
            if entry is not None:
                yield checked(entry, stated)
            entry, stated = (number, text, []), None
            continue
        values = _numbers(text)
        if entry is None:
            problems.add("lines before the first image", source, f"{text[:60]!r} stands before the first image; skipped", where=where)
        elif stated is None and not entry[2] and values is not None and len(values) == 1 and 0 <= values[0] == int(values[0]):
            stated = int(values[0])
        elif values is None or len(values) < 4 or len(entry[2]) >= _MOST_FACES:
            problems.add("lines that are no faces", source, f"{text[:60]!r} is no image and no face; skipped", where=where)
        elif stated != 0 or entry[2] or any(values):  # else the line of zeros of an image without faces
            entry[2].append((number, values))
    if entry is not None:
        yield checked(entry, stated)


def _numbers(text: str) -> list[float] | None:
    """Finite numbers below ten million, or None."""
    try:
        values = [float(v) for v in text.split()[:11]]
    except ValueError:
        return None
    return values if all(math.isfinite(v) and abs(v) < _LIMIT for v in values) else None


def _record(base: Path, path: str, rows: list[Row] | None, source: Path, problems: Problems) -> Record:
    height, width = image_size(base / path)
    if rows is None:
        return Record(path, path, (height, width))
    boxes, crowd, attributes = [], [], []
    for line, values in rows:
        where = f"line {line}"
        x, y, w, h = values[:4]
        shown = " ".join(f"{v:g}" for v in values[:4])
        box = np.array([x, y, x + w, y + h])
        if w <= 0 or h <= 0:
            problems.add("faces without area", source, f"the face {shown} has no area; it is skipped", where=where)
            continue
        clipped = box.clip(0, [width, height, width, height]).astype(np.float32)
        if not (clipped[2:] > clipped[:2]).all():
            problems.add("faces outside their image", source, f"the face {shown} lies outside {path!r}; it is skipped", where=where)
            continue
        if (clipped != box.astype(np.float32)).any():
            problems.add("faces that leave their image", source, f"the face {shown} leaves {path!r}; it is clipped", where=where)
        more = values[4:10] if len(values) >= 10 else [0] * 6
        if len(values) not in (4, 10):
            text = f"a face has {len(values)} numbers, not 4 or 10; its attributes are skipped"
            problems.add("faces with other attributes", source, text, where=where)
            more = [0] * 6
        boxes.append(clipped)
        crowd.append(more[3] == 1)
        attributes.append([int(min(max(more[k - 4], -128), 127)) for k in _ATTRIBUTES])
    extra = np.array(attributes, dtype=np.int8).reshape(-1, len(_ATTRIBUTES))
    return Record(
        path, path, (height, width), boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4), labels=np.zeros(len(boxes), np.int64),
        iscrowd=np.array(crowd) if any(crowd) else None, extra={"face_attributes": extra} if extra.any() else None,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- write


def write(dataset: Dataset, out: Path) -> list[str]:
    """``wider_face_split/wider_face_SPLIT_bbx_gt.txt`` and ``WIDER_SPLIT/images/``; images without truth go into a file list.

    An image of several splits is written with the first of them.
    """
    lost = fs.count_losses(dataset, TITLE, set(HOLDS))
    others = [name for name in dataset.classes if name != "face"]
    if others:
        lost.append(f"the classes {', '.join(others[:8])}{' ...' if len(others) > 8 else ''} become the one class face")
    names = fs.file_names(dataset, flat=False)
    (out / "wider_face_split").mkdir()
    seen: set[int] = set()
    taken: set[str] = set()
    twice = renamed = 0
    for split, members in fs.splits_of(dataset).items():
        word = f"_{split}" if split else ""
        folder = f"WIDER{word}/images" if split else "images"
        truth: list[str] = []
        listed: list[str] = []
        for number in members:
            twice += number in seen
            if number in seen:
                continue
            seen.add(number)
            record = dataset.index.records[number]
            name = _name(names[number], f"{folder}/", taken)
            renamed += f"{folder}/{name}" != record.image_id
            fs.copy_image(dataset, record, out / folder / name)
            if record.boxes is None:
                listed.append(f"{name}\n")
            else:
                truth.append(_entry(name, record))
        if truth:
            (out / f"wider_face_split/wider_face{word}_bbx_gt.txt").write_text("".join(truth), encoding="utf-8", newline="\n")
        if listed:
            (out / f"wider_face_split/wider_face{word}_filelist.txt").write_text("".join(listed), encoding="utf-8", newline="\n")
    lost += fs.split_losses((), twice)
    if renamed:
        lost.append(f"{renamed} image ids change to the paths of their files")
    return lost


def _name(path: str, folder: str, taken: set[str]) -> str:
    """The name of an image below its folder: EVENT/x.jpg, on one line, recognised as an image, not taken."""
    name = re.sub(r"[\r\n]", "_", re.sub(r"^(?:WIDER[^/]*/)?images/", "", path))
    name = name if is_image_name(name) else f"{name}.png"
    stem, dot, suffix = name.rpartition(".")
    k = 1
    while (folder + name).lower() in taken:
        k += 1
        name = f"{stem}_{k}{dot}{suffix}"
    taken.add((folder + name).lower())
    return name


def _entry(name: str, record: Record) -> str:
    boxes = np.array(record.boxes, dtype=np.float64).reshape(-1, 4)
    count = len(boxes)
    attributes = np.zeros((count, 6), dtype=np.int64)
    extra = (record.extra or {}).get("face_attributes")
    if extra is not None and len(extra) == count:
        attributes[:, [k - 4 for k in _ATTRIBUTES]] = extra
    if record.iscrowd is not None:
        attributes[:, 3] = record.iscrowd
    boxes[:, 2:] -= boxes[:, :2]
    lines = [" ".join([*(_short(v) for v in box), *map(str, row)]) for box, row in zip(boxes.tolist(), attributes.tolist(), strict=True)]
    return "\n".join([name, str(count), *(lines or ["0 " * 9 + "0"])]) + "\n"


def _short(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
