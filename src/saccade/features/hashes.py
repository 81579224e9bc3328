"""Perceptual hashes of grey pictures, and the search for all pairs of them within a Hamming radius.

=====================  ============================================================================================
average_hash           aHash: each of 8x8 area means against the mean of all.
                       Krawetz: Looks Like It (hackerfactor.com, 2011).
difference_hash        dHash: each of 8x8 against its right neighbour (9x8 means), and against the one below (8x9 means).
                       Krawetz: Kind of Like That (hackerfactor.com, 2013), rows only.
perceptual_hash        pHash: the 8x8 lowest frequencies of the DCT of 32x32 means against their median.
                       Zauner: Implementation and Benchmarking of Perceptual Image Hash Functions (2010). As in most libraries
                       the block begins at frequency 0 (Zauner's at 1); the constant term is left out of the median and
                       its bit is 0, so brightness does not matter.
=====================  ============================================================================================

The same picture gives the same bits on every machine: means are exact sums of integers, and the cosines of the DCT are rounded to
multiples of 2^-14, so that every product and sum is an integer that float64 holds exactly, in whatever order a library adds.
The first bit is the highest of the uint64.

A hash says where a picture is brighter and not by how much: that of a flat picture is noise. See :func:`detail`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from saccade.features.pixels import plain_array
from saccade.types.errors import UsageError

SIDE = 32
"""Side of the means that :func:`perceptual_hash` and :func:`detail` look at."""

MOST_PAIRS = 50_000_000
"""Most pairs that :func:`near_pairs` returns: 800 MB."""

TURNS = (
    "", "mirrored", "upside down", "turned by 180°", "mirrored and turned by 270°", "turned by 90°", "turned by 270°",
    "mirrored and turned by 90°",
)  # fmt: skip
"""The eight ways to lay a picture down, by the numbers of :func:`turned`; angles are clockwise."""

_EXACT = 16  # means are rounded to sixteenths of a grey level before the DCT
_COSINES = np.round(2.0**14 * np.cos(np.pi / (2 * SIDE) * np.outer(np.arange(8), 2 * np.arange(SIDE) + 1)))
_BLOCK = 1_000_000  # candidates in memory at once


def shrink(images: Any, size: tuple[int, int]) -> np.ndarray:
    """Area means: each output cell is the mean of the part of the picture that it covers, pixels at its border in proportion.

    Args:
        images: (..., H, W) uint8 grey.
        size: (h, w) of the output, smaller or larger than the picture.

    Returns:
        (..., h, w) float64, the same on every machine.

    >>> shrink(np.arange(6, dtype=np.uint8).reshape(2, 3), (1, 2))
    array([[1.83333333, 3.16666667]])
    """
    pixels = _grey(images)
    height, width = pixels.shape[-2:]
    sums = _overlap(height, size[0]) @ pixels.astype(np.float64) @ _overlap(width, size[1]).T
    return sums / (height * width)  # the sums are whole numbers, so one rounding in all


def _overlap(pixels: int, cells: int) -> np.ndarray:
    """(cells, pixels): how far a pixel reaches into a cell, in units of 1 / (pixels * cells) of the side; a row sums to ``pixels``."""
    cell, pixel = np.arange(cells)[:, None], np.arange(pixels)[None]
    low = np.maximum(cell * pixels, pixel * cells)
    high = np.minimum((cell + 1) * pixels, (pixel + 1) * cells)
    return np.maximum(high - low, 0).astype(np.float64)


def average_hash(images: Any) -> np.ndarray:
    """aHash: a bit is set where one of 8x8 means is above the mean of all.

    Args:
        images: (..., H, W) uint8 grey.

    Returns:
        (...) uint64.
    """
    means = np.round(shrink(images, (8, 8)) * _EXACT)
    return _pack(means * 64 > means.sum((-2, -1), keepdims=True))


def difference_hash(images: Any, direction: Literal["both", "rows", "columns"] = "both") -> np.ndarray:
    """dHash: a bit is set where a mean is below its neighbour's.

    Args:
        images: (..., H, W) uint8 grey.
        direction: "rows" compares with the right neighbour (Krawetz), "columns" with the one below.

    Returns:
        (...) uint64; for "both" (..., 2), rows first.
    """
    if direction not in ("both", "rows", "columns"):
        raise UsageError(f"direction is both, rows or columns, not {direction!r}")
    hashes = []
    if direction != "columns":
        rows = shrink(images, (8, 9))
        hashes.append(_pack(rows[..., :-1] < rows[..., 1:]))
    if direction != "rows":
        columns = shrink(images, (9, 8))
        hashes.append(_pack(columns[..., :-1, :] < columns[..., 1:, :]))
    return np.stack(hashes, axis=-1) if direction == "both" else hashes[0]


def perceptual_hash(images: Any) -> np.ndarray:
    """pHash: a bit is set where one of the 8x8 lowest frequencies lies above their median; that of the constant term is 0.

    Args:
        images: (..., H, W) uint8 grey.

    Returns:
        (...) uint64.
    """
    return _above_median(_low_frequencies(images))


def turned_hashes(images: Any) -> np.ndarray:
    """:func:`perceptual_hash` of the picture laid down in all eight ways, by one DCT.

    Args:
        images: (..., H, W) uint8 grey.

    Returns:
        (8, ...) uint64; ``[k]`` is ``perceptual_hash(turned(images, k))``.
    """
    low = _low_frequencies(images)
    return np.stack([_above_median(_turned_frequencies(low, k)) for k in range(len(TURNS))])


def _turned_frequencies(low: np.ndarray, k: int) -> np.ndarray:
    """Transposing a picture transposes its frequencies; mirroring it changes the sign of the odd ones."""
    signs = (-1.0) ** np.arange(8)
    out = low.swapaxes(-1, -2) if k & 4 else low
    return out * (signs if k & 1 else 1.0) * (signs[:, None] if k & 2 else 1.0)


def turned(images: np.ndarray, k: int) -> np.ndarray:
    """(..., H, W) laid down in the way ``TURNS[k]``: for k from 4 on transposed, then mirrored if k is odd, then upside down if k & 2."""
    if k & 4:
        images = images.swapaxes(-1, -2)
    if k & 1:
        images = images[..., ::-1]
    if k & 2:
        images = images[..., ::-1, :]
    return images


def detail(images: Any) -> np.ndarray:
    """How much there is to hash: the standard deviation of 32x32 means, in grey levels; (...) float64.

    Below about 2 what a hash sees is noise and compression: two such pictures are not alike because their hashes are.
    """
    return shrink(images, (SIDE, SIDE)).std((-2, -1))


def _low_frequencies(images: Any) -> np.ndarray:
    """(..., 8, 8) float64: whole numbers, 2^32 times the DCT-II sums of 32x32 means."""
    means = np.round(shrink(images, (SIDE, SIDE)) * _EXACT)  # 12 bits; with cosines of 15 and 5 for each sum of 32, below 2^53
    return _COSINES @ means @ _COSINES.T


def _above_median(low: np.ndarray) -> np.ndarray:
    values = low.reshape(*low.shape[:-2], 64)
    median = np.median(values[..., 1:], axis=-1, keepdims=True)  # of 63: one of them
    bits = values > median
    bits[..., 0] = False
    return _pack(bits)


def _pack(bits: np.ndarray) -> np.ndarray:
    """(..., 8, 8) or (..., 64) bool to (...) uint64, the first bit highest."""
    flat = bits.reshape(-1, 64)
    packed = np.packbits(flat, axis=1).view(">u8").astype(np.uint64)
    return packed.reshape(bits.shape[: -1 if bits.shape[-1] == 64 else -2])


def _grey(images: Any) -> np.ndarray:
    accepted = "hashes are of grey pictures (..., H, W) uint8"
    pixels = plain_array(images, accepted)
    if pixels.ndim < 2 or pixels.dtype != np.uint8 or not all(pixels.shape[-2:]):
        raise UsageError(f"{accepted}, not {pixels.shape} {pixels.dtype}")
    return pixels


# -------------------------------------------------------------------------------------------------------------- search


def hamming(a: Any, b: Any) -> np.ndarray:
    """Number of bits in which uint64 hashes differ; shapes broadcast.

    >>> int(hamming(np.uint64(0b1011), np.uint64(0b0001)))
    2
    """
    return np.bitwise_count(np.asarray(a, dtype=np.uint64) ^ np.asarray(b, dtype=np.uint64))


def near_pairs(hashes: Any, radius: int, others: Any = None) -> np.ndarray:
    """All pairs of hashes that differ in at most ``radius`` bits; none is missed.

    Args:
        hashes: (N,) uint64, or (N, W) for hashes of W words.
        radius: in bits.
        others: (M,) or (M, W): pairs of one of ``hashes`` with one of these instead of pairs within ``hashes``.

    Returns:
        (P, 2) int64, sorted; within ``hashes`` the first is less than the second.

    Raises:
        UsageError: more than :data:`MOST_PAIRS` pairs: the radius says nothing about these hashes.

    >>> near_pairs(np.array([0b0000, 0b1111, 0b0111], np.uint64), 1)
    array([[1, 2]])
    """
    blocks, total = [np.zeros((0, 2), np.int64)], 0
    for block in pair_blocks(hashes, radius, others):
        total += len(block)
        if total > MOST_PAIRS:
            raise UsageError(f"more than {MOST_PAIRS} pairs of hashes lie within {radius} bits: choose a smaller radius")
        blocks.append(block)
    pairs = np.concatenate(blocks)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def pair_blocks(hashes: Any, radius: int, others: Any = None) -> Iterator[np.ndarray]:
    """The pairs of :func:`near_pairs` in blocks and unsorted, each once: memory does not grow with their number.

    Words are cut into bands of 16 bits. Of m bands, two hashes within m s + a bits agree up to s bits in one of the first a + 1, or
    up to s - 1 in one of the others (Norouzi, Punjani, Fleet: Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012):
    only such pairs are compared. Where that would be slower (a wide radius, few or crowded hashes) all pairs are.
    """
    a, groups_a = _grouped(hashes)
    b, groups_b = (a, groups_a) if others is None else _grouped(others)
    if a.shape[1] != b.shape[1]:
        raise UsageError(f"hashes of {a.shape[1]} and {b.shape[1]} words cannot be compared")
    if radius < 0 or not len(a) or not len(b):
        return
    if others is None:  # equal hashes are pairs by themselves
        several = np.flatnonzero(groups_a.counts > 1)
        for i, j in groups_a.products(several, groups_a, several):
            yield np.stack([i, j], axis=1)[i < j]
    for p, q in _near_different(a, b, radius, others is None):
        for i, j in groups_a.products(p, groups_b, q):
            yield np.stack([np.minimum(i, j), np.maximum(i, j)] if others is None else [i, j], axis=1)


def _near_different(a: np.ndarray, b: np.ndarray, radius: int, same: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(i, j) with a[i] near b[j], each pair once, for (N, W) hashes without repeats; if ``same``, b is a and i != j."""
    words = a.shape[1]
    # Costs in nanoseconds, measured: comparing all pairs 0.7 a word; a scattered candidate 13, a look-up 4.
    everything = 0.7 * len(a) * len(b) * words * (0.5 if same else 1.0)
    bands = [_Band(a, b, t, bits) for t, bits in enumerate(_band_radii(4 * words, radius))] if everything > 2e6 else []
    if not bands or sum(band.cost(everything) for band in bands) > everything:
        yield from _all_pairs(a, b, radius, same)
        return
    for t, band in enumerate(bands):
        for i, j in band.candidates(same):
            if words == 1:
                near = np.bitwise_count(a[i, 0] ^ b[j, 0]) <= radius
            else:
                near = np.bitwise_count(a[i] ^ b[j]).sum(-1, dtype=np.uint16) <= radius
            i, j = i[near], j[near]
            for earlier in bands[:t]:  # where a pair is met first
                new = ~earlier.meets(i, j)
                i, j = i[new], j[new]
            yield i, j


def _band_radii(bands: int, radius: int) -> list[int]:
    """Bits by which hashes may differ in each band that has to be looked at."""
    each, more = divmod(radius, bands)
    radii = [each if t <= more else each - 1 for t in range(bands)]
    return [r for r in radii if r >= 0]


class _Band:
    """One band of 16 bits: both sides' hashes sorted by it."""

    def __init__(self, a: np.ndarray, b: np.ndarray, place: int, radius: int) -> None:
        self.a, self.b = (np.ascontiguousarray(x.view(np.uint16).reshape(len(x), -1)[:, place]) for x in (a, b))
        self.radius = radius
        self.masks = np.flatnonzero(np.bitwise_count(np.arange(65536, dtype=np.uint16)) <= radius).astype(np.uint16)
        self.order_a, self.order_b = np.argsort(self.a, kind="stable"), np.argsort(self.b, kind="stable")
        self.sorted_a = self.a[self.order_a]
        self.counts = np.bincount(self.b, minlength=65536)
        self.starts = np.cumsum(self.counts) - self.counts

    def cost(self, limit: float) -> float:
        """Nanoseconds of the search in this band, summed until they exceed the limit."""
        keys, counts = np.unique(self.a, return_counts=True)
        total = 0.0
        for mask in self.masks:
            total += 13.0 * float(counts @ self.counts[keys ^ mask]) + 4.0 * len(self.a)
            if total > limit:
                break
        return total

    def meets(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Whether hashes agree in this band up to its radius."""
        return np.bitwise_count(self.a[i] ^ self.b[j]) <= self.radius

    def candidates(self, same: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All (i, j) that agree in this band up to its radius, in blocks; if ``same``, each pair in one order only."""
        for mask in self.masks:
            partner = self.sorted_a ^ mask
            counts = self.counts[partner]
            if same and mask:
                counts = np.where(self.sorted_a < partner, counts, 0)
            for rows, places in _runs(self.starts[partner], counts):
                i, j = self.order_a[rows], self.order_b[places]
                if same and not mask:
                    i, j = i[i < j], j[i < j]
                yield i, j


def _runs(starts: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row k beside each of the places ``starts[k]``, ..., ``starts[k] + counts[k] - 1``, in blocks of about a million."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + _BLOCK, side="right")), first + 1)
        chosen = counts[first:last]
        shift = starts[first:last] - (ends[first:last] - chosen - done)
        rows = np.repeat(np.arange(first, last), chosen)
        if len(rows):
            yield rows, np.repeat(shift, chosen) + np.arange(len(rows))
        first = last


def _all_pairs(a: np.ndarray, b: np.ndarray, radius: int, same: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair compared, a few rows at a time."""
    step = max(1, _BLOCK // len(b))
    for start in range(0, len(a), step):
        rows, columns = a[start : start + step], b[start:] if same else b
        distance = np.bitwise_count(rows[:, None, 0] ^ columns[None, :, 0])
        if a.shape[1] > 1:
            distance = distance.astype(np.uint16)
            for word in range(1, a.shape[1]):
                distance += np.bitwise_count(rows[:, None, word] ^ columns[None, :, word])
        i, j = divmod(np.flatnonzero(distance <= radius), len(columns))  # several times faster than nonzero of rows
        if same:
            i, j = i[i < j] + start, j[i < j] + start
            yield i, j
        else:
            yield i + start, j


class _Groups:
    """Which hashes are equal: the numbers of each group's members, one group after the other."""

    def __init__(self, inverse: np.ndarray, groups: int) -> None:
        self.members = np.argsort(inverse, kind="stable")
        self.counts = np.bincount(inverse, minlength=groups)
        self.starts = np.cumsum(self.counts) - self.counts

    def products(self, mine: np.ndarray, other: _Groups, theirs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every member of each of my groups with every member of the other's group beside it, in blocks."""
        for rows, places in _runs(self.starts[mine], self.counts[mine]):
            group = theirs[rows]
            for more, partners in _runs(other.starts[group], other.counts[group]):
                yield self.members[places[more]], other.members[partners]


def _grouped(hashes: Any) -> tuple[np.ndarray, _Groups]:
    """The different hashes (M, W), and who has each."""
    words = np.asarray(hashes)
    if words.dtype != np.uint64 or words.ndim not in (1, 2):
        raise UsageError(f"hashes are (N,) or (N, W) uint64, not {words.shape} {words.dtype}")
    if words.ndim == 1 or words.shape[1] == 1:
        different, inverse = np.unique(words.reshape(-1), return_inverse=True)
        return different[:, None], _Groups(inverse, len(different))
    different, inverse = np.unique(words, axis=0, return_inverse=True)
    return np.ascontiguousarray(different), _Groups(inverse.reshape(-1), len(different))
