"""What is in a data set, and what is wrong with it, before a night of training.

:func:`inspect_data` opens every image and mask once, in parallel, and looks at all annotations; :func:`quick_findings` looks at the
annotations and the files' bytes only and is what runs before each training. What is wrong is a :class:`Finding`; its level:

* ``error``: training or the measured numbers would be wrong: broken images, masks of another size, images shared by train and test;
* ``warning``: probably a mistake of labelling or export: boxes on one place, a class with a handful of examples;
* ``note``: good to know: turned photos, mixed sizes, objects of a few pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from saccade.data.dataset import Dataset
from saccade.data.duplicates import Duplicates, find_duplicates, leaks, quick_leaks
from saccade.data.images import IMAGE_SUFFIXES, ImageFacts, image_facts
from saccade.data.landmarks import TASK as LANDMARKS
from saccade.data.landmarks import point_counts
from saccade.data.records import Record
from saccade.types.errors import SaccadeError
from saccade.types.machine import usable_cores
from saccade.types.sample import IGNORE

LEVELS = ("error", "warning", "note")
EXAMPLES = 20
"""Places that a finding names; the others are only counted."""

DOUBLE, CLASH = 0.8, 0.9
"""IoU from which two boxes of one class are taken for a double label, and two of different classes for a clash."""

FEW, SKEW = 10, 50
"""Examples below which a class is rare, and the ratio of the largest class to the smallest that is called imbalance."""

TINY_OBJECT, TINY_IMAGE = 2.0, 16
"""Shorter sides in pixels below which an object, an image is called tiny."""

_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "MPO": {".jpg", ".jpeg", ".mpo"}, "PNG": {".png"}, "GIF": {".gif"},
    "BMP": {".bmp", ".dib"}, "DIB": {".dib", ".bmp"}, "TIFF": {".tif", ".tiff"}, "WEBP": {".webp"}, "AVIF": {".avif"},
    "PPM": {".pgm", ".ppm", ".pbm", ".pnm"}, "JPEG2000": {".jp2", ".j2k"},
}  # fmt: skip


@dataclass
class Finding:
    """Something wrong or worth knowing.

    Attributes:
        kind: short name, the same in every run ("broken image").
        level: "error", "warning" or "note".
        count: how often.
        text: what these are and what to do, in a line.
        examples: the first places, as text.
        images: positions in the data set of the first images concerned.
    """

    kind: str
    level: str
    count: int
    text: str
    examples: list[str] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.level}: {self.kind} ({self.count}): {self.text}"


@dataclass
class Inspection:
    """What :func:`inspect_data` found: ``facts`` are plain values for JSON, ``findings`` the worst first."""

    facts: dict[str, Any]
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        findings = [{"kind": f.kind, "level": f.level, "count": f.count, "text": f.text, "examples": f.examples} for f in self.findings]
        return self.facts | {"findings": findings}


class Scanned(NamedTuple):
    """What the pixels of one image say."""

    image: ImageFacts | None
    bytes: int
    problem: str = ""
    mask: tuple[tuple[int, int], ...] = ()  # (label, pixels)
    mask_problem: str = ""


def inspect_data(
    data: Dataset,
    *,
    duplicates: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look at every image and annotation of a data set.

    Args:
        data: the images to look at; of all splits when it is of none.
        duplicates: look for exact and near duplicates too, and with them for leaks between splits.
        workers: processes that decode; None: one a core, none for small sets.
        progress: is told (images done, all images).

    >>> from saccade.data.load import load_data
    >>> found = inspect_data(load_data("synthetic:shapes?count=4&size=48"), duplicates=False)
    >>> found.facts["images"], found.facts["sizes"]["largest"]
    (4, [48, 48])
    """
    records = data.map_records(lambda r: r)
    names = [_shown(data, r) for r in records]
    scanned = scan(data, workers=workers, progress=progress)
    findings = [*_problem_findings(data), *_image_findings(names, records, scanned), *_object_findings(data, names, records, scanned)]
    findings += _class_findings(data, records, scanned)
    facts = _facts(data, records, scanned)
    found = None
    if duplicates:
        found = find_duplicates(data, workers=workers)
        facts["duplicates"] = {"groups": len(found.groups), "images": sum(len(g) for g in found.groups)}
    findings += duplicate_findings(data, found)
    findings.sort(key=lambda f: (LEVELS.index(f.level), -f.count))
    return Inspection(facts, findings)


def quick_findings(data: Dataset) -> list[Finding]:
    """What can be said before a training without decoding a picture: the reader's problems, classes, boxes, exact leaks."""
    records = data.map_records(lambda r: r)
    names = [_shown(data, r) for r in records]
    findings = [*_problem_findings(data), *_object_findings(data, names, records, None), *_class_findings(data, records, None)]
    findings += duplicate_findings(data, None)
    return sorted(findings, key=lambda f: (LEVELS.index(f.level), -f.count))


# ----------------------------------------------------------------------------------------------------------------- pixels


class _Scan(torch.utils.data.Dataset[Scanned]):
    """Opens one image; a DataLoader runs many of them in processes."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Scanned:
        record = self.data.record(i)
        try:
            if self.data.index.reader is not None:
                pixels = np.asarray(self.data.index.reader.image(record))
                mode = "L" if pixels.ndim == 2 else "RGB"
                facts = ImageFacts("", mode, pixels.shape[0], pixels.shape[1], 1, 1, int(pixels.min()), int(pixels.max()))
                size = pixels.nbytes
            else:
                path = self.data.path(record)
                facts, size = image_facts(path), os.stat(path).st_size
        except SaccadeError as error:
            return Scanned(None, 0, str(error))
        if record.mask is None:
            return Scanned(facts, size)
        try:
            labels, counts = np.unique(self.data.mask(record, (facts.height, facts.width)), return_counts=True)
        except SaccadeError as error:
            return Scanned(facts, size, mask_problem=str(error))
        return Scanned(facts, size, mask=tuple(zip(labels.tolist(), counts.tolist(), strict=True)))


def scan(data: Dataset, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> list[Scanned]:
    """Every image and mask decoded once, in order."""
    if workers is None:
        workers = min(usable_cores(), 8) if len(data) >= 200 else 0
    loader = torch.utils.data.DataLoader(_Scan(data), batch_size=32, collate_fn=list, num_workers=workers)
    out: list[Scanned] = []
    for batch in loader:
        out += batch
        if progress is not None:
            progress(len(out), len(data))
    return out


def _shown(data: Dataset, record: Record) -> str:
    return record.path if data.index.reader is None else record.image_id


def _finding(kind: str, level: str, hits: Sequence[tuple[int, str]], text: str) -> list[Finding]:
    """A finding of (image position, place) hits, or nothing."""
    if not hits:
        return []
    images = list(dict.fromkeys(i for i, _ in hits if i >= 0))[:EXAMPLES]
    return [Finding(kind, level, len(hits), text, [place for _, place in hits[:EXAMPLES]], images)]


def _problem_findings(data: Dataset) -> list[Finding]:
    """What the reader skipped or repaired."""
    hits = [(-1, str(p)) for p in data.index.problems]
    return _finding("reader", "warning", hits, "lines, objects or files that were skipped or repaired in reading")


def _image_findings(names: list[str], records: list[Record], scanned: list[Scanned]) -> list[Finding]:
    broken = [(i, s.problem) for i, s in enumerate(scanned) if s.problem]
    seen = [(i, s.image, names[i]) for i, s in enumerate(scanned) if s.image is not None]
    out = _finding("broken image", "error", broken, "images that cannot be decoded; training skips them: mend or remove them")
    masks = [(i, s.mask_problem) for i, s in enumerate(scanned) if s.mask_problem]
    out += _finding("broken mask", "error", masks, "masks that cannot be used: another size than the image, or values of no class")
    wrong = [(i, f"{n}: is {f.format}") for i, f, n in seen if f.format and not _suits(n, f.format)]
    out += _finding("suffix", "note", wrong, "files of another kind than their suffix says; saccade reads the content, other tools may not")
    turned = [(i, f"{n}: orientation {f.turn}") for i, f, n in seen if f.turn != 1]
    out += _finding(
        "EXIF turn", "note", turned, "photos that are stored turned; they are shown upright, and annotations must be of the upright photo"
    )
    blank = [(i, n) for i, f, n in seen if f.high - f.low <= 2]
    out += _finding("blank image", "warning", blank, "images of a single colour")
    tiny = [(i, f"{n}: {f.width}x{f.height}") for i, f, n in seen if min(f.width, f.height) < TINY_IMAGE]
    out += _finding("tiny image", "warning", tiny, f"images with a side below {TINY_IMAGE} pixels")
    pages = [(i, f"{n}: {f.frames}") for i, f, n in seen if f.frames > 1]
    out += _finding("several frames", "note", pages, "files of several frames or pages; the first is read")
    alpha = [(i, f"{n}: {f.mode}") for i, f, n in seen if f.mode in ("LA", "La", "PA", "RGBA", "RGBa")]
    out += _finding("transparency", "note", alpha, "images with an alpha channel, which is dropped")
    deep = [(i, f"{n}: {f.mode}") for i, f, n in seen if f.mode in ("I", "F") or f.mode.startswith("I;16")]
    out += _finding("more than 8 bits", "note", deep, "images of more than 8 bits a channel; they are scaled to 8")
    grey = [(i, n) for i, f, n in seen if f.mode in ("1", "L", "LA", "La", "I", "F") or f.mode.startswith("I;16")]
    if 0 < len(grey) < len(seen):
        few = grey if 2 * len(grey) <= len(seen) else [(i, n) for i, _, n in seen if i not in {k for k, _ in grey}]
        word = "grey, the others are in colour" if few is grey else "in colour, the others are grey"
        out += _finding("mixed colour", "note", few, f"images that are {word}; models convert them alike")
    stated = [
        (i, f"{n}: states {records[i].size[1]}x{records[i].size[0]}, is {f.width}x{f.height}")  # type: ignore[index]
        for i, f, n in seen
        if records[i].size not in (None, (f.height, f.width))
    ]
    text = "annotations that state another size than their image has: boxes may belong to a resized or turned copy"
    return out + _finding("size mismatch", "error", stated, text)


def _suits(name: str, form: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return suffix in _SUFFIXES.get(form, {suffix}) or suffix not in IMAGE_SUFFIXES


# ---------------------------------------------------------------------------------------------------------------- objects


def _object_findings(data: Dataset, names: list[str], records: list[Record], scanned: list[Scanned] | None) -> list[Finding]:
    """Boxes and key points that are probably mistakes."""
    from torchvision.ops import box_iou

    outside: list[tuple[int, str]] = []
    tiny: list[tuple[int, str]] = []
    double: list[tuple[int, str]] = []
    clash: list[tuple[int, str]] = []
    points_out: list[tuple[int, str]] = []
    for i, record in enumerate(records):
        if record.boxes is None or not len(record.boxes):
            continue
        boxes = np.asarray(record.boxes, dtype=np.float64).reshape(-1, 4)
        labels = np.asarray(record.labels)
        crowd = np.zeros(len(boxes), bool) if record.iscrowd is None else np.asarray(record.iscrowd, bool)
        size = record.size
        if scanned is not None and (facts := scanned[i].image) is not None:
            size = (facts.height, facts.width)

        def place(k: int, more: str = "", i: int = i, boxes: np.ndarray = boxes, labels: np.ndarray = labels) -> tuple[int, str]:
            box = " ".join(f"{v:g}" for v in boxes[k].round(1))
            return i, f"{names[i]}: object {k + 1} {data.classes[int(labels[k])]} at {box}{more}"

        if size is not None:
            limit = np.array([size[1], size[0]] * 2) + 1.0
            wrong = ((boxes < -1) | (boxes > limit)).any(1)
            outside += [place(int(k), f" of {size[1]}x{size[0]}") for k in np.flatnonzero(wrong)]
            if record.keypoints is not None and record.keypoints.size:
                at = np.asarray(record.keypoints)
                far = (at[..., 2] > 0) & ((at[..., :2] < -1).any(-1) | (at[..., :2] > limit[:2]).any(-1))
                points_out += [place(int(k), f": {int(far[k].sum())} points") for k in np.flatnonzero(far.any(1))]
        sides = (boxes[:, 2:] - boxes[:, :2]).min(1)
        tiny += [place(int(k)) for k in np.flatnonzero(sides < TINY_OBJECT)]
        if 1 < len(boxes) <= 5000:
            overlap = np.triu(box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy(), 1)
            overlap[crowd] = overlap[:, crowd] = 0
            for a, b in np.argwhere(overlap >= DOUBLE):
                more = f" and {b + 1} {data.classes[int(labels[b])]}: IoU {overlap[a, b]:.2f}"
                if labels[a] == labels[b]:
                    double.append(place(int(a), more))
                elif overlap[a, b] >= CLASH:
                    clash.append(place(int(a), more))
    out = _finding(
        "box outside",
        "error",
        outside,
        "boxes that leave their image by more than a pixel: another image size, or another order of numbers?",
    )
    out += _finding("double box", "warning", double, f"pairs of boxes of one class with an IoU of {DOUBLE:g} or more: labelled twice?")
    out += _finding("two classes", "warning", clash, f"pairs of boxes of different classes on one place (IoU {CLASH:g} or more)")
    out += _finding("tiny object", "note", tiny, f"boxes with a side below {TINY_OBJECT:g} pixels")
    return out + _finding("point outside", "warning", points_out, "objects with visible key points outside their image")


def _class_findings(data: Dataset, records: list[Record], scanned: list[Scanned] | None) -> list[Finding]:
    """Classes that are absent, rare, or far larger than the others; by split where there are splits."""
    counts, what = class_counts(data, records, scanned)
    if counts is None or not len(counts):
        return []
    absent = [(-1, name) for name, n in zip(data.classes, counts, strict=True) if n == 0]
    rare = [(-1, f"{name}: {n}") for name, n in zip(data.classes, counts, strict=True) if 0 < n < FEW]
    out = _finding("absent class", "warning", absent, "classes without an example: a name that is misspelt, or data left out?")
    if what != "pixels":
        out += _finding(
            "rare class", "warning", rare, f"classes of fewer than {FEW} {what}: no model learns them, no number on them is certain"
        )
    present = counts[counts > 0]
    if len(present) > 1 and present.max() >= SKEW * present.min():
        low, high = (data.classes[int(k)] for k in (np.where(counts > 0, counts, counts.max()).argmin(), counts.argmax()))
        ratio = present.max() / present.min()
        text = f"{high} has {ratio:.0f} times the {what} of {low}: look at the numbers by class, and at recipe.class_weights"
        out.append(Finding("imbalance", "note", 1, text))
    missing = []
    positions = {int(n): i for i, n in enumerate(data.indices)}
    for split, members in data.index.splits.items():
        inside = [records[positions[int(m)]] for m in members if int(m) in positions]
        here = class_counts(data, inside, None)[0] if inside else None
        if here is not None and what != "pixels":
            lacking = [data.classes[int(k)] for k in np.flatnonzero((here == 0) & (counts > 0))]
            missing += [(-1, f"{split}: {name}") for name in lacking]
    return out + _finding("class missing in a split", "warning", missing, "classes without an example in a split")


def class_counts(data: Dataset, records: Iterable[Record], scanned: list[Scanned] | None) -> tuple[np.ndarray | None, str]:
    """(K,) examples by class, and what they are: "images", "objects", "points" or (masks, when they were opened) "pixels"."""
    if data.tasks[:1] == (LANDMARKS,):
        return point_counts(records, len(data.classes)), "points"
    counts, what = np.zeros(len(data.classes), dtype=np.int64), ""
    for record in records:
        if record.label is not None:
            counts[record.label] += 1
            what = what or "images"
        elif record.labels is not None:
            counts += np.bincount(np.asarray(record.labels, dtype=np.int64), minlength=len(counts))
            what = what or "objects"
    if not what and scanned is not None:
        for one in scanned:
            for label, pixels in one.mask:
                if label != IGNORE:
                    counts[label] += pixels
                    what = "pixels"
    return (counts, what) if what else (None, "")


# ------------------------------------------------------------------------------------------------------------- duplicates


def duplicate_findings(data: Dataset, found: Duplicates | None) -> list[Finding]:
    """Images that are there twice, and those that leak between splits; without ``found`` only exact leaks, of files."""
    index = data.index
    positions = {int(n): i for i, n in enumerate(data.indices)}
    lost = quick_leaks(index) if found is None else leaks(index, found=found)
    hits = [(positions.get(leak.first, -1), str(leak)) for leak in lost]
    text = "images of one split that stand in another split too"
    out = _finding("leak", "error", hits, text + (", as they are" if found is None else ", as they are or edited"))
    if found is None:
        return out
    groups = found.groups
    places = [(int(g[0]), " = ".join(_name(data, found, p) for p in g[:4]) + (" ..." if len(g) > 4 else "")) for g in groups]
    more = f" ({len(found.surplus())} images can go): saccade data dedupe lists them"
    return out + _finding("duplicates", "warning", places, "groups of images that are the same or edited copies" + more)


def _name(data: Dataset, found: Duplicates, position: int) -> str:
    return _shown(data, data.index.records[int(found.records[position])])


# ------------------------------------------------------------------------------------------------------------------ facts


def _facts(data: Dataset, records: list[Record], scanned: list[Scanned]) -> dict[str, Any]:
    """Counts and distributions, plain values."""
    index = data.index
    seen = [s.image for s in scanned if s.image is not None]
    sizes = Counter((f.width, f.height) for f in seen)
    counts, what = class_counts(data, records, scanned)
    facts: dict[str, Any] = {
        "root": str(index.root),
        "format": index.format,
        "reason": index.reason,
        "tasks": list(index.tasks),
        "images": len(data),
        "readable": len(seen),
        "bytes": sum(s.bytes for s in scanned),
        "splits": {name: len(members) for name, members in index.splits.items()},
        "classes": {} if counts is None else dict(zip(data.classes, counts.tolist(), strict=True)),
        "counted": what,
        "sizes": {
            "different": len(sizes),
            "common": [[w, h, n] for (w, h), n in sizes.most_common(5)],
            "smallest": list(min(sizes, key=lambda s: s[0] * s[1], default=(0, 0))),
            "largest": list(max(sizes, key=lambda s: s[0] * s[1], default=(0, 0))),
            "values": [[w, h, n] for (w, h), n in sorted(sizes.items())] if len(sizes) <= 2000 else [],
        },
        "modes": dict(Counter(f.mode for f in seen).most_common()),
        "kinds": dict(Counter(f.format for f in seen if f.format).most_common()),
        "turned": sum(f.turn != 1 for f in seen),
    }
    if any(r.boxes is not None for r in records):
        facts["objects"] = _object_facts(data, records, scanned)
    if any(s.mask for s in scanned):
        total = Counter[int]()
        images = Counter[int]()
        for one in scanned:
            total.update(dict(one.mask))
            images.update(label for label, _ in one.mask)
        pixels = sum(total.values())
        names = {k: "ignored" if k == IGNORE else data.classes[k] for k in sorted(total)}
        facts["masks"] = {name: {"share": round(total[k] / pixels, 6), "images": images[k]} for k, name in names.items()}
    texts = [t for r in records for t in r.captions or ()]
    if texts:
        words = np.array([len(t.split()) for t in texts])
        facts["captions"] = {
            "texts": len(texts),
            "words": {"least": int(words.min()), "mean": round(float(words.mean()), 2), "most": int(words.max())},
        }
    return facts


def _object_facts(data: Dataset, records: list[Record], scanned: list[Scanned]) -> dict[str, Any]:
    """Objects an image, sides, COCO's three sizes, and key points."""
    per_image = np.array([0 if r.boxes is None else len(r.boxes) for r in records])
    boxes = np.concatenate([np.asarray(r.boxes, dtype=np.float64).reshape(-1, 4) for r in records if r.boxes is not None])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if len(boxes) else np.zeros(0)
    shares, border = [], 0
    for record, one in zip(records, scanned, strict=True):
        if record.boxes is not None and one.image is not None and len(record.boxes):
            here = np.asarray(record.boxes, dtype=np.float64)
            shares.append(np.sqrt((here[:, 2:] - here[:, :2]).prod(1) / (one.image.width * one.image.height)))
            border += int(((here[:, :2] <= 1).any(1) | (here[:, 2] >= one.image.width - 1) | (here[:, 3] >= one.image.height - 1)).sum())
    share = np.concatenate(shares) if shares else np.zeros(0)
    out: dict[str, Any] = {
        "count": len(boxes),
        "images_without": int((per_image == 0).sum()),
        "per_image": {"least": int(per_image.min()), "mean": round(float(per_image.mean()), 2), "most": int(per_image.max())},
        "coco_sizes": {
            "small": int((areas < 32**2).sum()),
            "medium": int(((areas >= 32**2) & (areas < 96**2)).sum()),
            "large": int((areas >= 96**2).sum()),
        },
        "side_share": {str(q): round(float(np.quantile(share, q / 100)), 4) for q in (1, 10, 50, 90, 99)} if len(share) else {},
        "side_histogram": np.histogram(share, bins=20, range=(0, 1))[0].tolist(),
        "per_image_histogram": np.bincount(np.minimum(per_image, 50)).tolist(),
        "touch_border": border,
        "crowd": sum(int(np.sum(r.iscrowd)) for r in records if r.iscrowd is not None),
        "outlines": sum(s is not None for r in records for s in r.segments or ()),
    }
    points = [np.asarray(r.keypoints) for r in records if r.keypoints is not None and r.keypoints.size]
    if points:
        flags = np.concatenate([p[..., 2] for p in points])
        names = data.index.keypoint_names or [str(k + 1) for k in range(flags.shape[1])]
        out["keypoints"] = {
            "objects": int((flags > 0).any(1).sum()),
            "points": {n: {"hidden": int((flags[:, k] == 1).sum()), "visible": int((flags[:, k] == 2).sum())} for k, n in enumerate(names)},
        }
    return out
