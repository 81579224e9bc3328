"""Images that are there twice: as the same file, bytes or pixels, or as an edited copy; and those that leak from one split to another.

Exact copies are found by their bytes, or by their decoded pixels where the files differ (another format, other metadata).

Near copies are found in three steps. Perceptual hashes (:mod:`saccade.features.hashes`) of all images, laid down in up to eight ways and
cropped a little, give the pairs within :data:`RADIUS` bits. Of these the 16x16 means must correlate by 0.9. Then the pictures are laid
over each other, and their fine structure must agree by :data:`LIKENESS` (:func:`likeness`); by :data:`STRICT` where many pictures look
alike or are simple. Colour is not looked at: a grey copy is found, and so are two chequered boards of different colours.

Measured with these values, which were chosen on these sets (2026). Of copies of 61 BCCD, 94 hymenoptera, 76 COCO pictures (JPEG
quality 50, resized by 0.7, cropped by 3 % at a corner or all round, brighter by 20, contrast 0.7, mirrored, turned) the least likeness is
0.977; of 100 ORL faces 0.973. 32x32 pictures (CIFAR-10) lose a part of the copies as JPEG of quality 50 (likeness from 0.93 on), 28x28
digits those resized by 0.7 (0.87). Pairs found in the sets as they are, all looked at:

=====================  ======  =====  ==========================================================================
BCCD                      364      1  one field, photographed twice
hymenoptera                96      0
dtd10                     200      1  two chequered boards of different colours
camvid                     60      0  its frames lie seconds apart
coco128 + coco_mini       272      2  the two that are in both (same bytes)
cifar10_jpg              6000     10  copies, slightly moved or with another light
orl_faces                 400     47  photos of one person in one pose (all of the same person)
mnist png               20000      3  digits that look alike
=====================  ======  =====  ==========================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from saccade.data.archive import member_size
from saccade.data.dataset import Dataset
from saccade.data.formats.files import split_rank
from saccade.data.images import file_bytes, read_image, read_thumbnail
from saccade.data.records import DataIndex, Record
from saccade.features.hashes import MOST_PAIRS, TURNS, detail, hamming, pair_blocks, perceptual_hash, shrink, turned, turned_hashes
from saccade.types.errors import DataError, UsageError
from saccade.types.machine import usable_cores

RADIUS = 10
"""Bits of 64 by which the hashes of near copies may differ."""

LIKENESS = 0.95
"""Least likeness (:func:`likeness`) of near copies: at 0.9, 13 of CIFAR-10 (all copies), 133 of ORL and 284 of MNIST (digits) are found."""

STRICT = 0.99
"""Least likeness of pictures in a crowd, and of simple ones."""

CROWD = 30
"""Images with more look-alikes than this are a crowd."""

SIMPLE = 500.0
"""Pixels of 64x64 over which the fine structure of a picture is spread; with fewer (a stroke, a ball on a table) it is simple."""

COSINE = 0.95
"""Least cosine of the features of near copies."""

DETAIL = 2.0
"""Standard deviation in grey levels below which a picture counts as flat: flat ones are compared by their pixels only."""

MOST_CANDIDATES = 50_000_000
"""Pairs of hashes that get a second look; then the search for near copies stops and says so."""

LOOK = 64
"""Side of the grey pictures that are compared."""

_CROPS = ((2, 2, 0, 0), (0, 2, 2, 0), (2, 0, 0, 2), (0, 0, 2, 2), (2, 2, 2, 2))  # left, top, right, bottom: 3 % of a side
_ROUGH, _ROUGH_STRICT = 0.9, 0.98  # least correlation of 16x16 means for a closer look
_WARP = 0.1  # most shift and scale when pictures are laid over each other, as parts of half a side
_RINGS, _ANGLES, _TURNED = 20, 180, 0.55  # rings of a disc, places along each, least correlation of turned copies
_TAIL = 4096  # bytes at the end of a file that are compared first: cameras write equal heads, never equal ends


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that show the same.

    Attributes:
        first, second: positions in :attr:`Duplicates.names`, first < second.
        kind: "same file", "same bytes", "same pixels", "near"; "near: mirrored" and so on, where the second is to be laid down in
            this way to give the first; or "near: features".
        distance: differing bits of the hashes; 0 for exact copies.
        likeness: correlation of the pictures laid over each other, or cosine of the features; 1 for exact copies.
    """

    first: int
    second: int
    kind: str
    distance: int = 0
    likeness: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether the pixels are equal."""
        return self.kind.startswith("same")


@dataclass
class Duplicates:
    """What :func:`find_duplicates` found among N images (of several data sets: one after the other).

    Attributes:
        names: what to call the images: file, or id where a reader makes them.
        sets: (N,) number of the data set; records: (N,) number of the record in its index.
        sizes: (N, 2) height and width, 0 for images that cannot be decoded.
        originals: (N,) position of the first image with the same pixels; its own when there is none before.
        pairs: each exact copy with its original, and near copies among originals; sorted.
        problems: a DataError an image that cannot be decoded, and what else was left out.
    """

    names: list[str]
    sets: np.ndarray
    records: np.ndarray
    sizes: np.ndarray
    originals: np.ndarray
    pairs: list[Pair]
    problems: list[DataError] = field(default_factory=list)

    def clusters(self) -> np.ndarray:
        """(N,) int64 group number of every image, for splits by group: linked images, also through others, share one."""
        return _components(len(self.names), [*((p.first, p.second) for p in self.pairs), *enumerate(self.originals.tolist())])

    @property
    def groups(self) -> list[list[int]]:
        """Positions of the images of each cluster of two or more, in order."""
        clusters = self.clusters()
        members: dict[int, list[int]] = defaultdict(list)
        for position in sorted({p for pair in self.pairs for p in (pair.first, pair.second)}):
            members[int(clusters[position])].append(position)
        return list(members.values())

    def copies(self) -> dict[int, list[int]]:
        """The exact copies of each original that has any."""
        out: dict[int, list[int]] = defaultdict(list)
        for pair in self.pairs:
            if pair.exact:
                out[pair.first].append(pair.second)
        return dict(out)

    def surplus(self) -> list[int]:
        """Positions of images that can go: each has a copy, exact or near, that stays.

        The largest picture stays, of equal ones the first by name. Of a chain (frames of a film) as many stay as are not alike.
        """
        copies = self.copies()
        near: dict[int, set[int]] = defaultdict(set)
        for pair in self.pairs:
            if not pair.exact:
                near[pair.first].add(pair.second)
                near[pair.second].add(pair.first)
        groups = {original: [original, *copies.get(original, [])] for original in {*near, *copies}}

        def rank(i: int) -> tuple[int, str, int]:
            return -int(self.sizes[i].prod()), self.names[i], i

        best = {original: min(group, key=rank) for original, group in groups.items()}
        kept: set[int] = set()
        gone: list[int] = []
        for original in sorted(groups, key=lambda o: rank(best[o])):
            if near[original] & kept:
                gone += groups[original]
            else:
                kept.add(original)
                gone += [i for i in groups[original] if i != best[original]]
        return sorted(gone)


def find_duplicates(
    data: Dataset | Sequence[Dataset],
    *,
    exact: bool = True,
    near: bool = True,
    radius: int = RADIUS,
    least: float = LIKENESS,
    flips: bool = True,
    rotations: bool = True,
    any_angle: bool = False,
    features: np.ndarray | None = None,
    cosine: float = COSINE,
    workers: int | None = None,
) -> Duplicates:
    """Find images that are there twice, in a data set or across several.

    Args:
        data: one or more data sets.
        exact: look for equal bytes and pixels. near: look for edited copies.
        radius: bits by which the 64-bit hashes of near copies may differ.
        least: least likeness of near copies.
        flips: also find mirrored copies (left-right and top-bottom).
        rotations: also find copies turned by 90, 180 and 270 degrees; with ``flips`` all eight ways.
        any_angle: also find copies turned about the centre by any angle from 10 degrees on, whatever fills the corners.
            The time grows with the square of the number of images, and strokes and other simple shapes are alike when turned.
        features: (N, D) of a network, a row an image in the order of the data, NaN where there is none: near copies are also the pairs
            whose features have a cosine of at least ``cosine``.
        workers: processes that decode; None takes one a core for more than a few hundred images.

    Returns:
        Pairs, groups and clusters; broken images are listed in its ``problems``.
    """
    images = _Images([data] if isinstance(data, Dataset) else list(data))
    if features is not None and (features.ndim != 2 or len(features) != len(images)):
        raise UsageError(f"features are (N, D) for {len(images)} images, not {features.shape}")
    problems: list[DataError] = []
    files = content = originals = images.first
    if exact:
        groups = list(identical_files(images.paths))
        files = _firsts(files, [group for kind, group in groups if kind == "same file"])
        content = originals = _firsts(files, [group for _, group in groups])
    chosen = np.unique(content)
    looks = _look(images, chosen, workers, problems)
    sizes = np.zeros((len(images), 2), dtype=np.int64)
    sizes[looks.numbers] = looks.sizes
    if exact:
        originals = _firsts(content, _same_pixels(images, looks, problems))
    alike: list[Pair] = []
    if near:
        ways = [0, *[1, 2] * flips, *[3, 5, 6] * rotations, *[4, 7] * (flips and rotations)]
        alike = _near(looks, radius, least, ways, problems)
        if any_angle:
            known = {(pair.first, pair.second) for pair in alike}
            alike += [pair for pair in _turned_pairs(looks) if (pair.first, pair.second) not in known]
    if features is not None:
        usable = chosen[np.isfinite(features[chosen]).all(1)]
        for (i, j), value in zip(*embedding_pairs(features[usable], cosine), strict=True):
            alike.append(Pair(int(usable[i]), int(usable[j]), "near: features", 0, float(value)))
    pairs = []
    for i in np.flatnonzero((originals != np.arange(len(images))) & (images.first == np.arange(len(images)))).tolist():
        first = int(originals[i])
        kind = "same file" if files[i] == files[first] else "same bytes" if content[i] == content[first] else "same pixels"
        pairs.append(Pair(first, i, kind))
    return Duplicates(
        names=images.names,
        sets=np.repeat(np.arange(len(images.sets)), [len(s) for s in images.sets]),
        records=np.concatenate([np.zeros(0, np.int64), *(s.indices for s in images.sets)]),
        sizes=sizes[content],
        originals=originals,
        pairs=sorted([*pairs, *_likest(alike, originals)], key=lambda p: (p.first, p.second)),
        problems=problems,
    )


def _firsts(first: np.ndarray, groups: Iterable[Sequence[int]]) -> np.ndarray:
    """(N,) position of the first image of each one's group, where the groups given are joined to those that ``first`` says."""
    part = _components(len(first), [*enumerate(first.tolist()), *((group[0], i) for group in groups for i in group[1:])])
    return np.unique(part, return_index=True)[1][part]  # parts are numbered 0, 1, ...


def _likest(alike: Iterable[Pair], originals: np.ndarray) -> Iterable[Pair]:
    """Near pairs between originals: of each two images the likest, or the first found of equal ones."""
    best: dict[tuple[int, int], Pair] = {}
    for pair in alike:
        a, b = sorted((int(originals[pair.first]), int(originals[pair.second])))
        if a != b and ((a, b) not in best or pair.likeness > best[a, b].likeness + 1e-3):  # a symmetric picture is not "mirrored"
            best[a, b] = Pair(a, b, pair.kind, pair.distance, pair.likeness)
    return best.values()


def _components(count: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    """(count,) int64: numbers of the connected parts of a graph."""
    ends = np.array(list(links), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


# -------------------------------------------------------------------------------------------------------------- images


class _Images(torch.utils.data.Dataset[Any]):
    """All images of the data sets in a row; ``images[i]`` is a small grey look at one and its size, or its error."""

    def __init__(self, sets: list[Dataset]) -> None:
        self.sets = sets
        self.starts = np.cumsum([0, *(len(s) for s in sets)])
        self.names: list[str] = []
        self.paths: list[Path | None] = []
        first: dict[tuple[int, int], int] = {}  # a record that a data set names twice counts once
        self.first = np.zeros(int(self.starts[-1]), dtype=np.int64)
        for which, data in enumerate(sets):
            for i in range(len(data)):
                record = data.record(i)
                position = len(self.names)
                self.first[position] = first.setdefault((which, int(data.indices[i])), position)
                path = None if data.index.reader is not None else data.index.root / record.path
                self.names.append(record.image_id if path is None else str(path))
                self.paths.append(None if path is None else _file(data, record))

    def __len__(self) -> int:
        return len(self.names)

    def _at(self, i: int) -> tuple[Dataset, Record]:
        which = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.sets[which], self.sets[which].record(i - int(self.starts[which]))

    def __getitem__(self, i: int) -> tuple[np.ndarray, tuple[int, int]] | DataError:
        data, record = self._at(i)
        try:
            if data.index.reader is None:
                return read_thumbnail(data.path(record), LOOK)
            grey = data.with_channels(1).image(record).numpy()[0]
        except DataError as error:
            return error
        return np.asarray(Image.fromarray(grey).resize((LOOK, LOOK), Image.Resampling.BOX)), grey.shape

    def digest(self, i: int) -> bytes:
        """A hash of the decoded pixels; grey is the same as RGB of equal channels."""
        data, record = self._at(i)
        pixels = data.with_channels(3).image(record) if data.index.reader is not None else read_image(data.path(record), 3)
        return hashlib.blake2b(np.ascontiguousarray(pixels.numpy()), digest_size=16).digest()


@dataclass
class _Looks:
    """Of M images that were decoded: positions; (M, 2) sizes; (M, 64, 64) uint8 grey, its contrast, (M, 8) hashes of all ways to lay
    it down, (M, 5) of all ways to crop it.
    """

    numbers: np.ndarray
    sizes: np.ndarray
    thumbs: np.ndarray
    contrast: np.ndarray
    hashes: np.ndarray
    crops: np.ndarray


def _look(images: _Images, chosen: np.ndarray, workers: int | None, problems: list[DataError]) -> _Looks:
    """Decode the chosen images small, in order; broken ones go to the problems."""
    if workers is None:
        workers = min(usable_cores(), 8) if len(chosen) >= 300 else 0
    subset = torch.utils.data.Subset(images, chosen.tolist())
    good: list[np.ndarray] = []
    parts = [_stack([])[0]]
    for arrays, fine, errors in torch.utils.data.DataLoader(subset, batch_size=64, collate_fn=_stack, num_workers=workers):
        parts.append(arrays)
        good.append(fine)
        problems += errors
    return _Looks(chosen[np.concatenate([np.zeros(0, bool), *good])], *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _stack(items: list[tuple[np.ndarray, tuple[int, int]] | DataError]) -> tuple[tuple[np.ndarray, ...], np.ndarray, list[DataError]]:
    """A batch: sizes, pictures, contrasts and hashes of the good ones; which are good; the errors of the others."""
    good = [item for item in items if not isinstance(item, DataError)]
    thumbs = np.stack([thumb for thumb, _ in good]) if good else np.zeros((0, LOOK, LOOK), np.uint8)
    sizes = np.array([size for _, size in good], dtype=np.int64).reshape(-1, 2)
    cropped = np.stack([perceptual_hash(_cropped(thumbs, crop)) for crop in _CROPS], axis=1)
    arrays = (sizes, thumbs, detail(thumbs), turned_hashes(thumbs).T, cropped)
    return arrays, np.array([not isinstance(item, DataError) for item in items]), [item for item in items if isinstance(item, DataError)]


# --------------------------------------------------------------------------------------------------------------- exact


def identical_files(
    paths: Sequence[str | Path | None], worth: Callable[[list[int]], bool] = lambda group: True
) -> Iterator[tuple[str, list[int]]]:
    """Groups of files of the same content: ("same file" or "same bytes", positions). Only files of equal size are opened.

    Args:
        paths: None, missing and empty files are in no group.
        worth: whether a group of positions is looked at further.
    """
    by_file: dict[tuple[int, int], list[int]] = defaultdict(list)
    by_size: dict[int, list[int]] = defaultdict(list)
    inside: set[int] = set()  # of archives, where no end can be read by itself
    for i, path in enumerate(paths):
        try:
            status = os.stat(path)  # type: ignore[arg-type]
        except (OSError, ValueError, TypeError):
            continue
        members = by_file[status.st_dev, status.st_ino]
        members.append(i)
        packed = member_size(path)  # type: ignore[arg-type]
        inside |= {i} if packed is not None else set()
        if len(members) == 1 and status.st_size:
            by_size[status.st_size if packed is None else packed].append(i)
    for members in by_file.values():
        if len(members) > 1 and worth(members):
            yield "same file", members
    everyone = {members[0]: members for members in by_file.values()}

    def worthy(group: list[int]) -> bool:
        return len(group) > 1 and worth([i for first in group for i in everyone[first]])

    for size, group in by_size.items():
        if worthy(group):
            packed_too = not inside.isdisjoint(group)
            # Cameras write equal heads, never equal ends.
            for part in [group] if packed_too else _split_by(group, lambda i: _tail(paths[i])):
                if worthy(part):
                    for same in [part] if size <= _TAIL and not packed_too else _split_by(part, lambda i: _digest(paths[i])):
                        if worthy(same):
                            yield "same bytes", same


def _split_by(group: list[int], key: Callable[[int], bytes | None]) -> list[list[int]]:
    """Parts of a group with the same key; None belongs to none."""
    parts: dict[bytes, list[int]] = defaultdict(list)
    for i in group:
        if (value := key(i)) is not None:
            parts[value].append(i)
    return list(parts.values())


def _tail(path: str | Path | None) -> bytes | None:
    """The last bytes of a file; None when it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # type: ignore[arg-type]
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
            return file.read(_TAIL)
    except OSError:
        return None


def _digest(path: str | Path | None) -> bytes | None:
    try:
        if member_size(path) is not None:  # type: ignore[arg-type]
            return hashlib.blake2b(file_bytes(path), digest_size=16).digest()  # type: ignore[arg-type]
        with open(path, "rb") as file:  # type: ignore[arg-type]
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (OSError, DataError):
        return None


def _same_pixels(images: _Images, looks: _Looks, problems: list[DataError]) -> list[list[int]]:
    """Groups of images whose decoded pixels are equal; only those that look the same, and flat ones, are decoded whole."""
    suspect = looks.contrast < DETAIL
    rich = np.flatnonzero(~suspect)
    for i, j in _pairs_within(looks.hashes[rich, 0], 4, problems):
        i, j = rich[i], rich[j]
        chosen = (looks.sizes[i] == looks.sizes[j]).all(1) & ~(suspect[i] & suspect[j])
        for a, b in _chunks(i[chosen], j[chosen], 1024):
            close = np.abs(looks.thumbs[a].astype(np.int16) - looks.thumbs[b]).mean((1, 2)) <= 3  # a JPEG is not decoded in full
            suspect[a[close]] = suspect[b[close]] = True
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    counts = Counter(map(tuple, looks.sizes[suspect].tolist()))
    for i, size in zip(looks.numbers[suspect].tolist(), map(tuple, looks.sizes[suspect].tolist()), strict=True):
        if counts[size] > 1:
            try:
                alike[size, images.digest(i)].append(i)
            except DataError:  # it changed since it was looked at
                continue
    return [group for group in alike.values() if len(group) > 1]


def _pairs_within(
    hashes: np.ndarray, radius: int, problems: list[DataError], others: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of near hashes in blocks, as many as :data:`MOST_CANDIDATES`; a problem says when there are more."""
    seen = 0
    for block in pair_blocks(hashes, radius, others):
        seen += len(block)
        if seen > MOST_CANDIDATES:
            text = f"more than {MOST_CANDIDATES} pairs of images look alike at first sight; the search stopped there"
            problems.append(DataError("duplicates", text, hint="choose a smaller radius"))
            return
        yield block[:, 0], block[:, 1]


def _chunks(i: np.ndarray, j: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for k in range(0, len(i), size):
        yield i[k : k + size], j[k : k + size]


# ---------------------------------------------------------------------------------------------------------------- near


def _near(looks: _Looks, radius: int, least: float, ways: Sequence[int], problems: list[DataError]) -> list[Pair]:
    """Near copies among the images that are not flat."""
    rich = np.flatnonzero(looks.contrast >= DETAIL)
    thumbs, numbers, hashes = looks.thumbs[rich], looks.numbers[rich], looks.hashes[rich].T
    i, j, way, bits, rough = _candidates(thumbs, hashes, looks.crops[rich].T, radius, ways, problems)
    crowd = np.bincount(np.concatenate([i, j]), minlength=len(rich)) > CROWD
    strict = crowd[i] & crowd[j]
    chosen = np.flatnonzero(~strict | (rough >= _ROUGH_STRICT))
    i, j, way, bits, strict = (x[chosen] for x in (i, j, way, bits, strict))
    simple = np.zeros(len(rich), dtype=bool)
    ends = np.unique([i, j])
    simple[ends] = np.concatenate([np.zeros(0), *(_spread(thumbs[ends[k : k + 256]]) for k in range(0, len(ends), 256))]) < SIMPLE
    strict |= simple[i] | simple[j]
    out: list[Pair] = []

    def look_again(k: int) -> np.ndarray:
        part = slice(k, k + 256)
        laid = np.stack([turned(thumbs[b], w) for b, w in zip(j[part], way[part], strict=True)])
        return likeness(thumbs[i[part]], laid)

    starts = range(0, len(i), 256)
    with ThreadPoolExecutor(usable_cores()) as pool:  # NumPy lets go of the interpreter in all that is slow here
        for k, score in zip(starts, pool.map(look_again, starts), strict=True):
            part = slice(k, k + 256)
            for n in np.flatnonzero(score >= np.where(strict[part], max(STRICT, least), least)):
                w, distance = int(way[k + n]), int(bits[k + n])
                kind = f"near: {TURNS[w]}" if w else "near"
                out.append(Pair(int(numbers[i[k + n]]), int(numbers[j[k + n]]), kind, distance, float(score[n])))
    return out


def _candidates(
    thumbs: np.ndarray, hashes: np.ndarray, crops: np.ndarray, radius: int, ways: Sequence[int], problems: list[DataError]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs i < j that pass the first look, each way to lay j down once: i, j, way, bits between hashes, correlation of 16x16 means.

    Hashes of the whole pictures are compared, and those of the slightly cropped ones with the whole, mirrored or not, in both directions.
    """
    whole = _rough(thumbs)
    rows: list[np.ndarray] = [np.zeros((0, 4))]
    for n, crop in enumerate([None, *_CROPS]):
        mine, means = (hashes[0], whole) if crop is None else (crops[n - 1], _rough(_cropped(thumbs, crop)))
        for way in ways if crop is None else [w for w in ways if w < 2]:
            others = turned(whole, way)
            for i, j in _pairs_within(mine, radius, problems, None if crop is None and not way else hashes[way]):
                # Mirroring is its own way back, so a cropped pair may be turned round.
                once = i < j if crop is None else i != j
                for a, b in _chunks(i[once], j[once], 8192):
                    score = np.einsum("nhw,nhw->n", means[a], others[b])
                    good = score >= _ROUGH
                    a, b = a[good], b[good]
                    rows.append(np.stack([np.minimum(a, b), np.maximum(a, b), np.full(len(a), way), score[good]], axis=1))
    table = np.concatenate(rows)
    table = table[np.lexsort((-table[:, 3], table[:, 2], table[:, 1], table[:, 0]))]
    first = np.ones(len(table), dtype=bool)
    first[1:] = (table[1:, :3] != table[:-1, :3]).any(1)
    i, j, way = table[first, :3].astype(np.int64).T
    return i, j, way, hamming(hashes[0, i], hashes[way, j]), table[first, 3]


def _rough(pictures: np.ndarray) -> np.ndarray:
    """(M, 16, 16) float32 means with mean 0 and norm 1."""
    blocks = [shrink(pictures[k : k + 4096], (16, 16)).astype(np.float32) for k in range(0, len(pictures), 4096)]
    return _normal(np.concatenate([np.zeros((0, 16, 16), np.float32), *blocks]))


def _cropped(pictures: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = crop
    return pictures[:, top : LOOK - bottom, left : LOOK - right]


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much two pictures are one: the correlation of their fine structure when laid over each other as well as possible.

    ``a`` is moved and scaled along both axes until it fits (Lucas and Kanade 1981, from coarse to fine). Then both are cut to a band
    of frequencies, the difference of Gaussians of 1 and 3 pixels: brightness and light do not count, and what only looks alike
    differs in there. A margin of 1/16 is left out, so that a copy cropped by that much fits.

    Args:
        a, b: (P, 64, 64) uint8 grey.

    Returns:
        (P,) float32 correlation, at most 1.
    """
    if not len(a):
        return np.zeros(0, dtype=np.float32)
    soft_a, soft_b = _blurred(a, _SOFT), _blurred(b, _SOFT)
    warp = np.zeros((len(a), 4), dtype=np.float32)
    warp = _align(*(x.reshape(-1, LOOK // 2, 2, LOOK // 2, 2).mean((2, 4)) for x in (soft_a, soft_b)), warp, 4)
    warp = _align(soft_a, soft_b, warp, 2)
    fine_a, fine_b = soft_a - _blurred(a, _SOFTER), soft_b - _blurred(b, _SOFTER)
    target = _normal(_inner(fine_b))
    return np.maximum(*((_normal(_inner(x)) * target).sum((1, 2)) for x in (fine_a, _warped(fine_a, warp))))


def _align(moving: np.ndarray, fixed: np.ndarray, warp: np.ndarray, steps: int) -> np.ndarray:
    """(P, 4) shift and scale along x, then y, that lay ``moving`` over ``fixed``, in units of half a side; from ``warp`` on."""
    side = fixed.shape[-1]
    inner = _inner(fixed)
    fixed = (fixed - inner.mean((1, 2), keepdims=True)) / np.maximum(inner.std((1, 2), keepdims=True), 1e-3)
    target = _inner(fixed).reshape(len(fixed), -1)
    grid = _grid(side)
    down, right = np.gradient(fixed, 2 / side, axis=(1, 2))
    slopes = _inner(np.stack([right, right * grid, down, down * grid[:, None]], axis=1)).reshape(len(fixed), 4, -1)
    slopes = slopes - slopes.mean(-1, keepdims=True)
    normal = slopes @ slopes.swapaxes(1, 2)
    normal += np.eye(4, dtype=np.float32) * (1e-3 * np.trace(normal, axis1=1, axis2=2) + 1e-6)[:, None, None]  # stripes fix one axis only
    for _ in range(steps):
        laid = _normal(_inner(_warped(moving, warp))).reshape(len(moving), -1) * np.float32(target.shape[1] ** 0.5)
        move = np.linalg.solve(normal, slopes @ (target - laid)[..., None])[..., 0]
        warp = np.clip(warp + move, -_WARP, _WARP)
    return warp


def _warped(pictures: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """Pictures read at ``x * (1 + scale) + shift`` along both axes, linearly."""
    side = pictures.shape[-1]
    grid = _grid(side)

    def rows(shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """(P, S, S): row i weighs the pixels at its place."""
        places = (grid * (1 + scale[:, None]) + shift[:, None]) * (side / 2) + (side - 1) / 2
        return np.maximum(1 - np.abs(np.clip(places, 0, side - 1)[..., None] - np.arange(side, dtype=np.float32)), 0)

    return rows(warp[:, 2], warp[:, 3]) @ pictures @ rows(warp[:, 0], warp[:, 1]).swapaxes(1, 2)


def _grid(side: int) -> np.ndarray:
    """Centres of pixels from -1 to 1."""
    return (np.arange(side, dtype=np.float32) - (side - 1) / 2) * np.float32(2 / side)


def _inner(pictures: np.ndarray) -> np.ndarray:
    """Without the margin."""
    margin = pictures.shape[-1] // 16
    return pictures[..., margin:-margin, margin:-margin]


def _spread(pictures: np.ndarray) -> np.ndarray:
    """(P,) over how many pixels the fine structure is spread: its squared sum of squares by its sum of fourth powers."""
    squares = (_inner(_blurred(pictures, _SOFT) - _blurred(pictures, _SOFTER))) ** 2
    return squares.sum((1, 2)) ** 2 / np.maximum((squares**2).sum((1, 2)), 1e-6)


def _blurred(pictures: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return kernel @ pictures.astype(np.float32) @ kernel.T


def _gaussian(sigma: float) -> np.ndarray:
    """(64, 64) float32: a blur along one axis; rows sum to 1, also at the border."""
    places = np.arange(LOOK)
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


_SOFT, _SOFTER = _gaussian(1.0), _gaussian(3.0)


def _normal(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W) with mean 0 and norm 1; flat ones all 0."""
    centred = pictures - pictures.mean((-2, -1), keepdims=True)
    return centred / np.maximum(np.sqrt((centred**2).sum((-2, -1), keepdims=True)), 1e-6)


def _turned_pairs(looks: _Looks) -> list[Pair]:
    """Copies turned by any angle about the centre, among the images that are not flat.

    The largest disc is read along 20 rings. How strong the first 8 frequencies along each ring are does not depend on the angle: pairs
    of a cosine of 0.9 there (less what all pictures have) are turned against each other, and their fine structure is compared.
    """
    rich = np.flatnonzero(looks.contrast >= DETAIL)
    numbers = looks.numbers[rich]
    profile = -1.2 - 0.62 * np.log(np.arange(1, 9))  # of natural pictures, measured
    spectra, fine = [np.zeros((0, _RINGS, 8), np.float32)], [np.zeros((0, _RINGS, _ANGLES), np.float32)]
    for k in range(0, len(rich), 256):
        thumbs, sizes = looks.thumbs[rich[k : k + 256]], looks.sizes[rich[k : k + 256]]
        soft = _blurred(thumbs, _SOFT)
        rings = _normal(_rings(soft, sizes)) * (_RINGS * _ANGLES) ** 0.5
        spectra.append(np.log(np.abs(np.fft.rfft(rings)[..., 1:9]) / _ANGLES + 0.02) - profile)
        fine.append(_normal(_rings(soft - _blurred(thumbs, _SOFTER), sizes)).astype(np.float32))
    pairs, _ = embedding_pairs(_normal(np.concatenate(spectra)).reshape(len(rich), -1), 0.9)
    waves = np.fft.rfft(np.concatenate(fine)).astype(np.complex64)
    out = []
    for i, j in pairs.tolist():
        match = np.fft.irfft((waves[i] * waves[j].conj()).sum(0), n=_ANGLES)
        step = int(match.argmax())
        angle = step * 360 // _ANGLES
        if match[step] >= _TURNED and 10 <= angle <= 350:  # the others, the search above has judged more closely
            bits = int(hamming(looks.hashes[rich[i], 0], looks.hashes[rich[j], 0]))
            kind = f"near: turned by {angle}°"
            out.append(Pair(int(numbers[i]), int(numbers[j]), kind, bits, float(match[step])))
    return out


def _rings(pictures: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(P, 20, 180): the largest disc of each image of (H, W) ``sizes``, read clockwise along its outer rings."""
    from scipy.ndimage import map_coordinates

    radii = ((np.arange(_RINGS) + 4.5) / (_RINGS + 4.5))[:, None]
    angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    out = np.zeros((len(pictures), _RINGS, _ANGLES), dtype=np.float32)
    for k, (picture, (height, width)) in enumerate(zip(pictures, sizes, strict=True)):
        reach = 0.49 * min(height, width) * LOOK
        places = [(LOOK - 1) / 2 + reach / height * radii * np.sin(angles), (LOOK - 1) / 2 + reach / width * radii * np.cos(angles)]
        out[k] = map_coordinates(picture, places, order=1, mode="nearest")
    return out * np.sqrt(radii)  # a ring counts by its length


def embedding_pairs(features: np.ndarray, cosine: float = COSINE) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows whose cosine is at least ``cosine``, by blocks of one matrix product.

    Args:
        features: (N, D) finite; rows of zeros are in no pair.
        cosine: from -1 to 1.

    Returns:
        (P, 2) int64 pairs, the first less than the second, sorted; and their (P,) float32 cosines.

    Raises:
        UsageError: more than :data:`MOST_PAIRS` pairs: the threshold says nothing about these features.
    """
    rows = np.asarray(features, dtype=np.float32)
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1, keepdims=True))
    unit = np.where(norms > 0, rows / np.where(norms > 0, norms, 1), np.nan).astype(np.float32)  # no comparison with NaN is true
    pairs, cosines, total = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], 0
    step = max(1, 4_000_000 // max(len(unit), 1))
    for start in range(0, len(unit), step):
        products = unit[start : start + step] @ unit[start:].T
        i, j = divmod(np.flatnonzero(products >= cosine), products.shape[1])
        i, j = i[i < j], j[i < j]
        total += len(i)
        if total > MOST_PAIRS:
            raise UsageError(f"more than {MOST_PAIRS} pairs of features have a cosine of {cosine} or more: choose a higher one")
        pairs.append(np.stack([i, j], axis=1) + start)
        cosines.append(products[i, j])
    return np.concatenate(pairs), np.concatenate(cosines)


# --------------------------------------------------------------------------------------------------------------- leaks


@dataclass(frozen=True, slots=True)
class Leak:
    """An image of one split that another split holds too.

    Attributes:
        first, second: numbers of the records in the index; first_split, second_split: train comes before val, val before test.
        first_name, second_name: files, or ids where a reader makes the images.
        kind: "same image" for a record in two splits, else the kind of the :class:`Pair`.
    """

    first: int
    second: int
    first_split: str
    second_split: str
    first_name: str
    second_name: str
    kind: str

    def __str__(self) -> str:
        if self.first == self.second:
            return f"{self.first_name} is in {self.first_split} and in {self.second_split}"
        return f"{self.second_name} ({self.second_split}) is also in {self.first_split}: {self.first_name} ({self.kind})"


def leaks(index: DataIndex, *, found: Duplicates | None = None, **options: Any) -> list[Leak]:
    """Images of one split of which another split holds a copy, exact or near, as far as the index states splits.

    ``trainval`` counts as train. A split of another name whose images all stand in train, val or test too (a part of them) is left out.
    Of several copies in a split the first is named, so an image of test that train holds three times is one leak.

    Args:
        index: with its splits.
        found: what :func:`find_duplicates` found in these data; None looks for it.
        options: of :func:`find_duplicates`.
    """
    roles = _roles(index)
    if len({split for names in roles.values() for split in names}) < 2:
        return []
    if found is None:
        found = find_duplicates(Dataset(index), **options)
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in found.pairs:
        if pair.exact:
            copies[pair.first].append(pair.second)
    numbers = found.records

    def by_split(original: int) -> dict[str, list[int]]:
        return _by_split([int(numbers[p]) for p in (original, *copies[original])], roles)

    out = _shared(index, roles)
    kinds = {pair.second: pair.kind for pair in found.pairs if pair.exact}
    for original in sorted(copies):
        at = {int(numbers[p]): kinds.get(p, "") for p in (original, *copies[original])}
        held = by_split(original)
        out += _across(index, held, held, lambda a, b, at=at: at[b] or at[a])
    for pair in found.pairs:
        if not pair.exact:
            out += _across(index, by_split(pair.first), by_split(pair.second), lambda a, b, kind=pair.kind: kind)
    return _once(out)


def quick_leaks(index: DataIndex) -> list[Leak]:
    """Records in two splits, and files of one content in two splits: no image is decoded, so it may run before each training.

    Images that a reader makes (idx, synthetic) are compared by record only.
    """
    roles = _roles(index)
    out = _shared(index, roles)
    if index.reader is not None or len({split for names in roles.values() for split in names}) < 2:
        return out
    members = sorted(roles)
    data = Dataset(index)
    paths = [_file(data, index.records[n]) for n in members]
    for kind, group in identical_files(paths, worth=lambda g: len({s for i in g for s in roles[members[i]]}) > 1):
        held = _by_split([members[i] for i in group], roles)
        out += _across(index, held, held, lambda a, b, kind=kind: kind)
    return _once(out)


def _file(data: Dataset, record: Record) -> Path | None:
    try:
        return data.path(record)
    except DataError:
        return None


def _roles(index: DataIndex) -> dict[int, list[str]]:
    """The splits of each record, train first."""
    splits = {name: set(members.tolist()) for name, members in index.splits.items()}
    whole = splits.pop("trainval", set())
    splits["train"] = splits.get("train", set()) | (whole - splits.get("val", set()))
    usual = set().union(*(splits.get(name, set()) for name in ("train", "val", "test")))
    roles: dict[int, list[str]] = defaultdict(list)
    for name in sorted(splits, key=split_rank):
        if name in ("train", "val", "test") or not splits[name] <= usual:
            for number in splits[name]:
                roles[number].append(name)
    return dict(roles)


def _by_split(numbers: Sequence[int], roles: dict[int, list[str]]) -> dict[str, list[int]]:
    """The records of each split among these."""
    out: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        for split in roles.get(number, ()):
            out[split].append(number)
    return out


def _shared(index: DataIndex, roles: dict[int, list[str]]) -> list[Leak]:
    """Records that stand in several splits."""
    out = []
    for number, splits in sorted(roles.items()):
        out += [_leak(index, number, number, splits[0], other, "same image") for other in splits[1:]]
    return out


def _across(index: DataIndex, some: dict[str, list[int]], others: dict[str, list[int]], kind: Callable[[int, int], str]) -> list[Leak]:
    """Leaks between two groups of equal images (or within one), each given by split."""
    out = []
    for a in some:
        for b in others:
            low, high = sorted([(split_rank(a), a, some[a]), (split_rank(b), b, others[b])], key=lambda x: x[0])
            if low[1] != high[1]:
                first = low[2][0]
                out += [_leak(index, first, n, low[1], high[1], kind(first, n)) for n in high[2] if n not in low[2]]
    return out


def _once(found: list[Leak]) -> list[Leak]:
    """Without repeats: one leak for each image of the later split and each earlier split, exact ones before near ones."""
    best: dict[tuple[int, str, str], Leak] = {}
    for leak in found:
        best.setdefault((leak.second, leak.first_split, leak.second_split), leak)
    return list(best.values())


def _leak(index: DataIndex, first: int, second: int, first_split: str, second_split: str, kind: str) -> Leak:
    return Leak(first, second, first_split, second_split, _name(index, first), _name(index, second), kind)


def _name(index: DataIndex, number: int) -> str:
    record = index.records[number]
    return record.image_id if index.reader is not None else record.path


def clean_splits(index: DataIndex, found: Duplicates, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Splits without leaks: no two of them share a cluster of copies.

    Stated splits: test stays as it is, so numbers measured on it can still be compared; images of train and val with a copy in
    test are in no split any more, nor those of train with a copy in val. ``trainval`` without train becomes train. No splits stated:
    new ones are made (:func:`saccade.data.splits.make_splits`) in which copies stay together.

    Args:
        index: with its splits.
        found: what :func:`find_duplicates` found in these data.
        seed: of splits that are made.

    Returns:
        Numbers of records by split, ascending.
    """
    clusters = np.arange(len(index)) + len(found.names)  # an image that was not looked at is on its own
    clusters[found.records] = found.clusters()
    roles = _roles(index)
    if not roles:
        from saccade.data.splits import make_splits

        return make_splits(index, seed=seed, groups=clusters)
    held_out = ("train", "val", "test")  # the last takes all
    order = sorted({split for names in roles.values() for split in names}, key=lambda s: held_out.index(s) if s in held_out else -1)
    owner: dict[int, int] = defaultdict(lambda: -1)
    for number, names in roles.items():
        owner[int(clusters[number])] = max(owner[int(clusters[number])], *(order.index(name) for name in names))
    out: dict[str, list[int]] = {name: [] for name in sorted(order, key=split_rank)}
    for number, names in sorted(roles.items()):
        keeper = order[owner[int(clusters[number])]]
        if keeper in names:
            out[keeper].append(number)
    return {name: np.array(members, dtype=np.int64) for name, members in out.items() if members}
