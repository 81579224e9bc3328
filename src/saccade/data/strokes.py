"""Drawings made of strokes: kept as two compact arrays, drawn to grey images when they are asked for.

``record.extra["strokes"]`` is ``{"points": (P, 2) array, "ends": (S,) int32}``: the points of all strokes one after the other, x and y,
y down; and for each stroke the number of points up to its end. A third column of ``points`` holds times.

The picture: black ink (0) on white (255), ``size`` x ``size``. The bounding box of the points is scaled, its aspect kept, until the ink is
a pixel from the nearer borders, and centred; so neither the place nor the scale of the original coordinates matters. Lines have
round ends and joints, a stroke of one point is a dot. Anti-aliased: the mean of 4 x 4 samples a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from saccade.data.records import Record
from saccade.types.errors import DataError, UsageError

Strokes = dict[str, np.ndarray]

SIZE = 64
"""Side of the pictures in pixels, when nothing is said."""

_SAMPLES, _FRACTION = 4, 4  # samples along a pixel's side; bits behind the point of OpenCV's coordinates


def pack(strokes: Sequence[np.ndarray]) -> Strokes:
    """The arrays of strokes, each (P, 2) or all (P, 3). Whole numbers 0..255 take a byte each."""
    points = np.concatenate(strokes)
    small = points.shape[1] == 2 and bool(((points >= 0) & (points <= 255) & (points == np.floor(points))).all())
    ends = np.cumsum([len(s) for s in strokes], dtype=np.int32)
    return {"points": points.astype(np.uint8 if small else np.float32), "ends": ends}


def unpack(strokes: Strokes) -> list[np.ndarray]:
    """The strokes, each (P, 2) or (P, 3)."""
    return np.split(strokes["points"], strokes["ends"][:-1])


def check_options(size: Any, stroke: Any) -> tuple[int, float]:
    """Side of the pictures and width of the lines, in pixels; a width of None is a twentieth of the side.

    Raises:
        UsageError: not a whole number 8..1024, or not a width from 0.25 to a quarter of the side.
    """
    try:
        side = int(size)
        width = side / 20 if stroke is None else float(stroke)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"size and stroke are numbers of pixels, not {size!r} and {stroke!r}") from None
    if side != float(size) or not 8 <= side <= 1024:
        raise UsageError(f"the size of drawn images is a whole number from 8 to 1024, not {size!r}")
    if not 0.25 <= width <= side / 4:  # false for NaN
        raise UsageError(f"the width of strokes is from 0.25 to {side / 4:g} pixels (a quarter of the size), not {stroke!r}")
    return side, width


def placement(points: np.ndarray, size: int, stroke: float) -> tuple[float, np.ndarray]:
    """Scale and shift (2,) that take the points' xy to pixels of the picture: ``points * scale + shift``."""
    xy = points[:, :2].astype(np.float64)
    low, high = xy.min(0), xy.max(0)
    extent = float((high - low).max())
    room = max(size - stroke - 2, 1.0)
    scale = room / extent if extent > 0 else 1.0
    return (scale, size / 2 - scale * (low + high) / 2) if math.isfinite(scale) else (1.0, size / 2 - (low + high) / 2)


def draw(strokes: Strokes, size: int = SIZE, stroke: float | None = None) -> np.ndarray:
    """(size, size) uint8 picture of a drawing, as the module says; lines ``stroke`` pixels wide."""
    import cv2

    width = size / 20 if stroke is None else stroke
    scale, shift = placement(strokes["points"], size, width)
    canvas = np.full((size * _SAMPLES, size * _SAMPLES), 255, dtype=np.uint8)
    lines = []
    for line in unpack(strokes):
        # OpenCV's whole numbers are the centres of pixels, ours their edges
        points = np.rint(((line[:, :2] * scale + shift) * _SAMPLES - 0.5) * (1 << _FRACTION)).astype(np.int32)
        lines.append(points if len(points) > 1 else points.repeat(2, axis=0))
    thickness = 2 * math.ceil(width * _SAMPLES / 2 - 1)  # OpenCV draws 2 n as 2 n + 1 samples, the nearest odd number; 1 as 1
    cv2.polylines(canvas, lines, False, 0, max(1, thickness), cv2.LINE_8, _FRACTION)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


class StrokeReader:
    """Pictures of records with ``extra["strokes"]``; picklable, opens no file."""

    def __init__(self, size: int, stroke: float) -> None:
        self.size, self.stroke = size, stroke

    def image(self, record: Record) -> np.ndarray:
        """(size, size) uint8."""
        assert record.extra is not None
        return draw(record.extra["strokes"], self.size, self.stroke)

    def mask(self, record: Record) -> np.ndarray:
        """Drawings have no masks."""
        raise DataError(record.path, "is a drawing, which has no mask")


def strokes_of(records: Sequence[Record], title: str) -> list[Strokes]:
    """The strokes of all records.

    Raises:
        UsageError: some have none; the message counts them and says what would be needed.
    """
    found = [(r.extra or {}).get("strokes") for r in records]
    lacking = [r.image_id for r, strokes in zip(records, found, strict=True) if strokes is None]
    if lacking:
        raise UsageError(
            f"{title} holds strokes; {len(lacking)} of {len(found)} images have none (the first is {lacking[0]!r}): "
            "pixels cannot be turned into strokes, only data read from strokes (quickdraw, inkml) can be written"
        )
    return found  # type: ignore[return-value]
