"""Outlines of many objects as four arrays, from which the lists of a record are cut when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np


class Segments(NamedTuple):
    """Outlines of N objects. A list of small arrays takes many times the memory and time of its numbers; this does not.

    Attributes:
        points: (P, 2) float32 xy of all polygons, one after the other.
        lengths: (Q,) whole numbers: points of each polygon.
        counts: (N,) whole numbers: polygons of each object; 0 for none, or a code.
        codes: run-length codes by object.
    """

    points: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    codes: dict[int, Any]

    @classmethod
    def of(cls, items: list[Any]) -> Segments | None:
        """Those of a list as ``Record.segments`` has it; None when it holds no polygons, or others than (P, 2) float32."""
        polygons = [p for s in items if type(s) is list for p in s]
        if not polygons or any(type(s) is list and not s for s in items):
            return None
        if any(type(p) is not np.ndarray or p.dtype != np.float32 or p.ndim != 2 or p.shape[1] != 2 for p in polygons):
            return None
        counts = np.array([len(s) if type(s) is list else 0 for s in items], dtype=np.int32)
        codes = {k: s for k, s in enumerate(items) if s is not None and type(s) is not list}
        return cls(np.concatenate(polygons), np.array([len(p) for p in polygons], dtype=np.int32), counts, codes)

    @classmethod
    def none(cls, count: int) -> Segments:
        """Of objects without any."""
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), np.zeros(count, np.int32), {})

    def tolist(self) -> list[Any]:
        """As ``Record.segments``: a list of polygons, a code, or None by object. The polygons are views of one array."""
        cuts = [self.points[a:b] for a, b in pairwise(accumulate(self.lengths.tolist(), initial=0))]
        bounds = pairwise(accumulate(self.counts.tolist(), initial=0))
        out: list[Any] = [cuts[a:b] or None for a, b in bounds]
        for k, code in self.codes.items():
            out[k] = code
        return out

    def take(self, order: np.ndarray) -> Segments:
        """The objects at these places, in this order."""
        polygons = _ranges(np.cumsum(self.counts) - self.counts, self.counts, order)
        points = _ranges(np.cumsum(self.lengths) - self.lengths, self.lengths, polygons)
        codes = {new: self.codes[old] for new, old in enumerate(order.tolist()) if old in self.codes} if self.codes else {}
        return Segments(self.points[points], self.lengths[polygons], self.counts[order], codes)

    def split(self, bounds: np.ndarray) -> Iterator[Segments]:
        """The objects from each bound to the next; nothing is copied."""
        polygons = np.concatenate([[0], np.cumsum(self.counts)])[bounds].tolist()
        points = np.concatenate([[0], np.cumsum(self.lengths)])[polygons].tolist()
        owners = dict(sorted(self.codes.items()))
        numbers = np.array(list(owners), dtype=np.int64)
        for k, (a, b) in enumerate(pairwise(bounds.tolist())):
            low, high = (np.searchsorted(numbers, (a, b)).tolist()) if len(numbers) else (0, 0)
            codes = {int(n) - a: owners[int(n)] for n in numbers[low:high]}
            yield Segments(self.points[points[k] : points[k + 1]], self.lengths[polygons[k] : polygons[k + 1]], self.counts[a:b], codes)


def joined(parts: list[Segments]) -> Segments:
    """The objects of all parts."""
    codes: dict[int, Any] = {}
    start = 0
    for part in parts:
        codes |= {start + k: code for k, code in part.codes.items()}
        start += len(part.counts)
    points, lengths, counts = (np.concatenate([part[c] for part in parts]) for c in range(3))
    return Segments(points, lengths, counts, codes)


def _ranges(starts: np.ndarray, lengths: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """start, start + 1, ..., start + length - 1 of every chosen row, one after the other."""
    lengths = lengths[chosen].astype(np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts[chosen] - before, lengths) + np.arange(int(lengths.sum()))
