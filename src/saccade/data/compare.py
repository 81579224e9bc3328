"""What differs between two data sets beyond what a format cannot hold: the check of ``saccade data convert --check``.

**Images** are matched, each pass taking what the one before left: by content and file stem; by content (the files' bytes; decoded pixels
where they are no files of their own or were encoded again; their grey values); by the stem that a writer gives
(:func:`.formats.files.file_names`); by order, when as many are left on both sides.

**What is compared**: pixels, sizes, splits, classes (by name, their order apart), labels of images, objects (matched by order, else by
class and box), their boxes, crowd flags, outlines and key points, class masks pixel by pixel, captions.

**Tolerances**: coordinates 0.001 pixels, or what is said. Outlines are compared as masks, of which 2 pixels or one in a thousand of the
union may differ: polygons written with a few decimals less may round one pixel to the other side.

**Stated losses**: a writer's line such as "8 run-length coded outlines are lost" excuses up to 8 differences of the kinds that it
names; a line without a number ("the splits fold1, fold2 are lost") excuses all of them.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats.files import file_names, image_hw, split_name, splits_of, unique_records
from saccade.data.images import file_bytes
from saccade.data.polygons import rasterize
from saccade.data.records import Record
from saccade.types.errors import DataError
from saccade.types.sample import IGNORE

TOLERANCE = 1e-3
"""Pixels that a coordinate may move."""

SHOWN = 5
"""Differences of one kind that are told one by one."""

_NAMED_BY = {
    "images": r"^\d+ images?\b.*\b(?:left out|lost)\b",
    "pixels": r"colours|\bRGB\b|\bgrey\b|drawn|drawing|encoded again",
    "sizes": r"drawn|drawing",
    "splits": r"\bsplits?\b",
    "classes": r"\bclass(?:es)?\b(?! masks)",
    "labels": r"\blabels?\b",
    "objects": r"\bbox(?:es)?\b|\bobjects?\b",
    "crowd": r"\bcrowd",
    "outlines": r"\boutlines?\b|\bpolygons?\b|\bholes?\b",
    "key points": r"\bkey points?\b",
    "masks": r"\bmasks?\b",
    "captions": r"\bcaptions?\b",
}
"""Kinds of difference, and the words by which a stated loss names them."""


def differences(
    before: Dataset, after: Dataset, holds: frozenset[str], losses: Iterable[str] = (), *, tolerance: float = TOLERANCE
) -> list[str]:
    """What differs, a line each; at most :data:`SHOWN` of a kind and a line with the number of the others. Empty: nothing.

    Args:
        before: the data as they were.
        after: the data read back.
        holds: what the format between them keeps (``HOLDS`` of its module).
        losses: what its writer said was lost.
        tolerance: pixels that a coordinate may move.
    """
    return _Comparison(before, after, holds, list(losses), tolerance).lines()


class Matches(NamedTuple):
    """Pairs of numbers in the two indexes, images without a partner, and those pairs whose pixels are known to be equal."""

    pairs: list[tuple[int, int]]
    missing: list[int]
    extra: list[int]
    equal: set[tuple[int, int]]


def match_images(before: Dataset, after: Dataset) -> Matches:
    """Which image became which, as the module says."""
    left, right = dict(unique_records(before)), dict(unique_records(after))
    names = file_names(before, flat=True)
    stems = (
        {i: PurePosixPath(names[i]).stem.lower() if i in names else "" for i in left},
        {i: PurePosixPath(r.path if after.index.reader is None else r.image_id).stem.lower() for i, r in right.items()},
    )
    files = before.index.reader is None and after.index.reader is None
    pairs: list[tuple[int, int]] = []
    equal: set[tuple[int, int]] = set()

    def take(key: Callable[[int, int, Record], Hashable | None], same: bool = False) -> None:
        """Pair what has the same key, in order."""
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for j, record in right.items():
            if (value := key(1, j, record)) is not None:
                waiting[value].append(j)
        for places in waiting.values():
            places.reverse()
        for i, record in list(left.items()):
            if waiting.get(value := key(0, i, record)):
                j = waiting[value].pop()
                pairs.append((i, j))
                equal.update([(i, j)] if same else ())
                del left[i], right[j]

    def content(side: int, number: int, record: Record, channels: int | None = None, decoded: bool = False) -> bytes | None:
        data = (before, after)[side]
        known = cache.get((side, number, channels, decoded))
        if known is None:
            known = cache[side, number, channels, decoded] = _digest(data, record, channels, decoded)
        return known or None

    def both(stem: str, digest: bytes | None) -> tuple[str, bytes] | None:
        return None if digest is None else (stem, digest)

    cache: dict[Any, bytes] = {}
    if files:
        take(lambda side, i, r: both(stems[side][i], content(side, i, r)), same=True)
        take(lambda side, i, r: content(side, i, r), same=True)
    take(lambda side, i, r: both(stems[side][i], content(side, i, r, decoded=True)), same=True)
    take(lambda side, i, r: content(side, i, r, decoded=True), same=True)
    take(lambda side, i, r: content(side, i, r, channels=1, decoded=True))
    take(lambda side, i, r: stems[side][i])
    if len(left) == len(right):
        pairs += zip(list(left), list(right), strict=True)
        left, right = {}, {}
    return Matches(sorted(pairs), list(left), list(right), equal)


def _digest(data: Dataset, record: Record, channels: int | None, decoded: bool) -> bytes:
    """A hash of an image's file, or of its pixels; empty when it cannot be read."""
    try:
        if not decoded:
            return hashlib.sha256(file_bytes(data.path(record))).digest()
        image = data.with_channels(channels).image(record).numpy()
    except (DataError, OSError):
        return b""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()


class _Comparison:
    """Collects the differences by kind."""

    def __init__(self, before: Dataset, after: Dataset, holds: frozenset[str], losses: list[str], tolerance: float) -> None:
        self.before, self.after, self.holds, self.losses, self.tolerance = before, after, holds, losses, tolerance
        self.found: dict[str, list[str]] = {kind: [] for kind in _NAMED_BY}
        self.excused = excused(losses)
        self.renamed = _renamed(losses)

    def lines(self) -> list[str]:
        """All that differs and is not excused."""
        pairs, missing, extra, equal = match_images(self.before, self.after)
        self._classes()
        self.found["images"] += [f"{self._name(self.before, i)}: is missing" for i in missing]
        self.found["images"] += [f"{self._name(self.after, j)}: is there and was not before" for j in extra]
        self._splits(pairs)
        for i, j in pairs:
            before, after = self.before.index.records[i], self.after.index.records[j]
            try:
                self._image(before, after, (i, j) in equal)
            except DataError as error:
                self.found["images"].append(f"{before.path}: cannot be compared: {error}")
        out = []
        for kind, texts in self.found.items():
            allowed = self.excused.get(kind, 0)
            if len(texts) > allowed:
                out += texts[:SHOWN]
                if len(texts) > SHOWN:
                    out.append(f"{len(texts) - SHOWN} more differences of {kind}" + (f"; {allowed:.0f} were stated" if allowed else ""))
        return out

    @staticmethod
    def _name(data: Dataset, number: int) -> str:
        return data.index.records[number].path

    def _same_class(self, before: int, after: int) -> bool:
        name, other = self._class_name(before), _plain(self.after.classes[after])
        return name == other or ("classes" in self.excused and name not in map(_plain, self.after.classes))

    def _class_name(self, label: int) -> str:
        name = self.before.classes[label]
        return _plain(self.renamed.get(name, name))

    def _classes(self) -> None:
        if not self.holds & {"label", "boxes", "segments", "mask"} or set(self.before.tasks) <= {"caption"}:
            return
        before = [self._class_name(k) for k in range(len(self.before.classes))]
        after = [_plain(name) for name in self.after.classes]
        self.found["classes"] += [f"the class {name!r} is missing" for name in before if name not in after]
        if "classes" not in self.excused:  # where classes are merged, the new one is part of what was said
            self.found["classes"] += [f"the class {name!r} is there and was not before" for name in after if name not in before]

    def _splits(self, pairs: Sequence[tuple[int, int]]) -> None:
        tables = []
        for data in (self.before, self.after):
            table: dict[int, set[str]] = defaultdict(set)
            for name, members in splits_of(data).items():
                for i in members if name else ():
                    table[i].add(split_name(name))
            tables.append(table)
        for i, j in pairs:
            before, after = tables[0].get(i, set()), tables[1].get(j, set())
            if before != after:
                said = [", ".join(sorted(s)) or "no split" for s in (before, after)]
                self.found["splits"].append(f"{self._name(self.before, i)}: was in {said[0]} and is in {said[1]}")

    def _image(self, before: Record, after: Record, equal: bool) -> None:
        def differ(kind: str, text: str) -> None:
            self.found[kind].append(f"{before.path}: {text}")

        size, other = image_hw(self.before, before), image_hw(self.after, after)
        if size != other:
            differ("sizes", f"was {size[1]}x{size[0]} and is {other[1]}x{other[0]}")
        if not equal and _digest(self.before, before, None, True) != _digest(self.after, after, None, True):
            differ("pixels", "its pixels changed")
        if "label" in self.holds and (before.label is None) != (after.label is None):
            differ("labels", "has a label and had none" if before.label is None else "has lost its label")
        elif "label" in self.holds and before.label is not None and not self._same_class(before.label, after.label):  # type: ignore[arg-type]
            differ("labels", f"was {self.before.classes[before.label]!r} and is {self.after.classes[after.label]!r}")  # type: ignore[index]
        if self.holds & {"boxes", "segments"} and (before.boxes is not None or (after.boxes is not None and len(after.boxes))):
            self._objects(before, after, size, differ)
        if "mask" in self.holds and before.mask is not None:
            self._mask(before, after, size, differ)
        if "captions" in self.holds and (before.captions or []) != (after.captions or []):
            texts, others = before.captions or [], after.captions or []
            for text in [t for t in texts if t not in others] or (["their order"] if sorted(texts) == sorted(others) else []):
                differ("captions", f"has lost the caption {text[:60]!r}")
            for text in [t for t in others if t not in texts]:
                differ("captions", f"has a caption that it had not: {text[:60]!r}")

    def _objects(self, before: Record, after: Record, size: tuple[int, int], differ: Callable[[str, str], None]) -> None:
        boxes = [np.asarray(r.boxes if r.boxes is not None else np.zeros((0, 4)), np.float64).reshape(-1, 4) for r in (before, after)]
        labels = [np.asarray(r.labels if r.labels is not None else (), np.int64).reshape(-1).tolist() for r in (before, after)]
        same = np.array([[self._same_class(a, b) for b in labels[1]] for a in labels[0]], dtype=bool).reshape(
            len(labels[0]), len(labels[1])
        )
        pairs = match_objects(boxes[0], boxes[1], same, self.tolerance)
        for k in sorted(set(range(len(boxes[0]))) - {i for i, _ in pairs}):
            differ("objects", f"object {k + 1} ({self.before.classes[labels[0][k]]}) is missing")
        for k in sorted(set(range(len(boxes[1]))) - {j for _, j in pairs}):
            differ("objects", f"has a new object, {k + 1} ({self.after.classes[labels[1][k]]})")
        for i, j in pairs:
            if np.abs(boxes[0][i] - boxes[1][j]).max() > self.tolerance:
                said = [" ".join(f"{v:.6g}" for v in b) for b in (boxes[0][i], boxes[1][j])]
                differ("objects", f"object {i + 1}: its box was {said[0]} and is {said[1]}")
            if "crowd" in self.holds and _flag(before, i) != _flag(after, j):
                differ("crowd", f"object {i + 1}: its crowd flag was {_flag(before, i)}")
            if "segments" in self.holds and (text := outline_difference(_segment(before, i), _segment(after, j), size)):
                differ("outlines", f"object {i + 1}: {text}")
            if "keypoints" in self.holds and (text := self._points(before.keypoints, i, after.keypoints, j)):
                differ("key points", f"object {i + 1}: {text}")

    def _points(self, before: np.ndarray | None, i: int, after: np.ndarray | None, j: int) -> str:
        a, b = (np.asarray(p[k], np.float64) if p is not None else np.zeros((0, 3)) for p, k in ((before, i), (after, j)))
        marked = [p[:, 2] > 0 for p in (a, b)]
        if not marked[0].any() and not marked[1].any():
            return ""
        if len(a) != len(b) or (a[:, 2] != b[:, 2]).any():
            return (
                f"{marked[0].sum()} of its {len(a)} key points were marked; now {marked[1].sum()} of {len(b)}, or with another visibility"
            )
        moved = np.abs(a - b)[marked[0]].max()
        return f"a key point moves by {moved:.3g} pixels" if moved > self.tolerance else ""

    def _mask(self, before: Record, after: Record, size: tuple[int, int], differ: Callable[[str, str], None]) -> None:
        if after.mask is None:
            differ("masks", "has lost its mask")
            return
        masks = self.before.mask(before, size), self.after.mask(after, size)
        names = {_plain(name): k for k, name in enumerate(self.after.classes)}
        table = np.array([*(names.get(self._class_name(k), -1) for k in range(len(self.before.classes))), IGNORE])
        wrong = int((table[np.where(masks[0] == IGNORE, len(table) - 1, masks[0])] != masks[1]).sum())
        if wrong:
            differ("masks", f"{wrong} of {masks[0].size} pixels of its mask are of another class")


def match_objects(before: np.ndarray, after: np.ndarray, same: np.ndarray, tolerance: float) -> list[tuple[int, int]]:
    """Pairs of objects: in order when classes and boxes agree so, else of one class with the least total move of their boxes.

    Args:
        before: (N, 4) boxes.
        after: (M, 4) boxes.
        same: (N, M) whether two objects have one class.
    """
    if len(before) == len(after) and same.diagonal().all() and (np.abs(before - after) <= tolerance).all():
        return [(k, k) for k in range(len(before))]
    if not before.size or not after.size:
        return []
    from scipy.optimize import linear_sum_assignment

    cost = np.abs(before[:, None] - after[None]).max(-1)
    order = (np.arange(len(before))[:, None] - np.arange(len(after))) ** 2  # of equal ones those in order
    never = 1e12
    rows, columns = linear_sum_assignment(np.where(same, cost + 1e-12 * order, never))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if same[i, j]]


def outline_difference(before: Any, after: Any, size: tuple[int, int]) -> str:
    """What differs between two outlines of an object, in words; "" within the tolerance."""
    if before is None or after is None:
        return "" if before is after else "has an outline and had none" if before is None else "has lost its outline"
    try:
        a, b = rasterize(before, size), rasterize(after, size)
    except ValueError as error:
        return str(error)
    wrong, union = int((a ^ b).sum()), int((a | b).sum())
    return f"its outline differs in {wrong} of {union} pixels" if wrong > max(2, union / 1000) else ""


def excused(losses: Iterable[str]) -> dict[str, float]:
    """How many differences of each kind the lines of a writer explain; infinity for a line without a number.

    >>> excused(["8 run-length coded outlines are lost: their boxes are written", "the splits a, b are lost"])
    {'outlines': 8.0, 'objects': 8.0, 'splits': inf}
    """
    out: dict[str, float] = {}
    for line in losses:
        number = re.search(r"(?<!\w)\d+(?!\w)", line)
        for kind, words in _NAMED_BY.items():
            if re.search(words, line):
                out[kind] = out.get(kind, 0) + (float(number[0]) if number else float("inf"))
    return out


def _renamed(losses: Iterable[str]) -> dict[str, str]:
    """New name by old one, from lines such as ``the class 'a/b' becomes the folder 'a_b'``."""
    out = {}
    quoted = r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    for line in losses:
        if match := re.match(rf"the class {quoted} becomes (?:[a-z ]*){quoted}", line):
            out[ast.literal_eval(match[1])] = ast.literal_eval(match[2])
    return out


def _plain(name: str) -> str:
    """A class name with single blanks, as formats of lines keep it."""
    return " ".join(name.split())


def _segment(record: Record, k: int) -> Any:
    segment = record.segments[k] if record.segments is not None else None
    return segment if segment is None or isinstance(segment, dict) or len(segment) else None


def _flag(record: Record, k: int) -> bool:
    return record.iscrowd is not None and bool(record.iscrowd[k])
