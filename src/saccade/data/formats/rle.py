"""COCO's run-length codes: a mask as the lengths of its runs down the columns, background first; a list, or compressed text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from saccade.data.formats.files import shown

MAX_SIDE = 1e7


def rle_problem(code: dict[str, Any]) -> str:
    """What is wrong with a run-length code, or "". A code must be sound before compiled code sees it."""
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and 0 < v < MAX_SIDE for v in size):
        return f"the run-length code's size is {shown(size)}"
    if isinstance(counts, str):
        try:
            runs = rle_counts(counts)
        except ValueError as error:
            return f"the run-length code is broken: {error}"
    elif isinstance(counts, list) and not set(map(type, counts)) - {int} and all(0 <= c < 2**40 for c in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        return "the run-length code has no usable counts"
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        return f"the run-length code covers {int(runs.sum())} pixels, the image has {size[0] * size[1]}"
    return ""


def rle_counts(text: str) -> np.ndarray:
    """(R,) int64 run lengths of COCO's compressed text: groups of 5 bits, and from the third run on differences to the run before last.

    >>> rle_counts("06")
    array([0, 6])
    """
    try:
        data = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("it is not ASCII") from None
    if not data.size:
        return np.zeros(0, np.int64)
    if data.min() < 0 or data.max() > 63 or data[-1] & 32:
        raise ValueError("it holds a character out of range, or ends in mid-number")
    ends = np.flatnonzero((data & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = np.arange(len(data)) - np.repeat(starts, ends - starts + 1)
    if digits.max() > 7:
        raise ValueError("a number is too long")
    values = np.add.reduceat((data & 31) << (5 * digits), starts)
    values -= np.where(data[ends] & 16, np.int64(1) << (5 * (digits[ends] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def rle_area(code: dict[str, Any]) -> float:
    """Pixels of a code."""
    counts = code["counts"]
    counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
    runs = rle_counts(counts) if isinstance(counts, str) else np.asarray(counts)
    return float(runs[1::2].sum())


def id_runs(ids: np.ndarray, most: int = 4_000_000) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """First and last + 1 position of every run, down the columns, by id of a (H, W) map of whole numbers.

    Raises:
        ValueError: more than ``most`` runs: noise, not a map.
    """
    flat = ids.T.reshape(-1)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if len(starts) >= most:
        raise ValueError(f"it has more than {most} runs of equal pixels")
    starts = np.concatenate([np.zeros(min(flat.size, 1), np.int64), starts])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    bounds = np.flatnonzero(np.diff(values[order])) + 1
    return {int(values[mine[0]]): (starts[mine], ends[mine]) for mine in np.split(order, bounds) if len(mine)}


def runs_box(starts: np.ndarray, ends: np.ndarray, height: int) -> list[int]:
    """x1, y1, x2, y2 edges of runs down the columns of an image."""
    first, last = starts // height, (ends - 1) // height
    whole = last > first  # a run over the end of a column touches top and bottom
    top = 0 if whole.any() else int((starts % height).min())
    bottom = height if whole.any() else int(((ends - 1) % height).max()) + 1
    return [int(first.min()), top, int(last.max()) + 1, bottom]


def runs_code(starts: np.ndarray, ends: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed code of runs down the columns."""
    from faster_coco_eval.core import mask as coco_mask

    height, width = size
    counts = np.diff(np.stack([starts, ends], axis=1).reshape(-1), prepend=0).tolist()
    if ends[-1] < height * width:
        counts.append(height * width - int(ends[-1]))
    return code_text(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def code_text(code: dict[str, Any]) -> dict[str, Any]:
    """A code as JSON can hold it: plain whole numbers, text instead of bytes."""
    counts: Any = code["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    elif not isinstance(counts, str):
        counts = [int(c) for c in _plain(counts)]
    return {"size": [int(v) for v in _plain(code["size"])], "counts": counts}


def _plain(values: Any) -> Iterable[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values
