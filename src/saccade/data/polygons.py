"""Polygons and COCO's run-length codes to masks and back, by the compiled routines of faster-coco-eval and OpenCV.

Polygon points are xy in pixels with pixel (0, 0) covering (0..1, 0..1). ``faster_coco_eval.core.mask`` draws them exactly as
pycocotools does, so areas and masks agree with the published COCO tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_PERIMETER = 10_000_000
"""Longest outline of one object in pixels: drawing takes memory by length, so coordinates of 1e9 must not pass."""


def rasterize(segment: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of one object.

    Args:
        segment: a list of polygons, each (P, 2) xy or flat x0 y0 x1 y1 ..., P >= 3, which are united; or COCO's RLE
            ``{"size": [H, W], "counts": str | bytes | list of run lengths}``; or None for an empty mask.
        size: (H, W) of the image.

    Raises:
        ValueError: the segment is malformed; the message says how.
    """
    height, width = size
    if segment is None or (not isinstance(segment, dict) and len(segment) == 0):
        return np.zeros(size, dtype=bool)
    from faster_coco_eval.core import mask as coco_mask

    if isinstance(segment, dict):
        codes = [_rle(segment, size)]
    else:
        flat = [_flat(polygon) for polygon in segment]
        codes = coco_mask.frPyObjects(flat, height, width)
    try:
        code = codes[0] if len(codes) == 1 else coco_mask.merge(codes, 0)
        return np.ascontiguousarray(coco_mask.decode(code), dtype=bool)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"the run-length code is malformed: {error}") from None


def polygon_area(polygons: Sequence[Any]) -> float:
    """Sum of the areas of polygons, each (P, 2) xy, in square pixels (shoelace formula); overlaps count twice."""
    total = 0.0
    for polygon in polygons:
        x, y = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
        total += abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    return total


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed RLE ``{"size": [H, W], "counts": str}`` of a (H, W) mask; fits into JSON."""
    from faster_coco_eval.core import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = code["counts"]
    return {"size": [int(v) for v in code["size"]], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Outer outlines of a (H, W) mask, one (P, 2) float32 xy polygon for each connected part (8 neighbours); holes are filled.

    The outlines run a quarter pixel inside the edges of the mask, so :func:`rasterize` gives the same pixels again.
    """
    import cv2

    # OpenCV traces pixel centres; on a doubled mask they lie a quarter pixel from the edges instead of half a pixel.
    double = np.asarray(mask, dtype=np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(outline.reshape(-1, 2).astype(np.float32) + 0.5) / 2 for outline in outlines]


def _flat(polygon: Any) -> list[float]:
    """x0 y0 x1 y1 ... of one polygon, checked."""
    try:
        values = np.asarray(polygon, dtype=np.float64).reshape(-1)
        if getattr(polygon, "dtype", None) == np.float32:
            # the decimals of the annotation again: 409.24 must not become 409.239990, for the drawing rounds, and ties are common
            values = values.round(3)
    except (TypeError, ValueError):
        raise ValueError("a polygon is a list of numbers x0 y0 x1 y1 ...") from None
    if values.size < 6 or values.size % 2:
        raise ValueError(f"a polygon has at least 3 points x y, this one {values.size} numbers")
    if not np.isfinite(values).all():
        raise ValueError("a polygon has a coordinate that is no finite number")
    steps = np.diff(values.reshape(-1, 2), axis=0, append=values[None, :2])
    if np.abs(values).max() > MAX_PERIMETER or np.abs(steps).max(axis=1).sum() > MAX_PERIMETER:
        raise ValueError(f"a polygon's outline is longer than {MAX_PERIMETER} pixels")
    return values.tolist()


def _rle(segment: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The compressed code for the compiled decoder, checked."""
    from faster_coco_eval.core import mask as coco_mask

    height, width = size
    counts, stated = segment.get("counts"), segment.get("size")
    try:
        same = stated is not None and [int(v) for v in stated] == [height, width]
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(f"the run-length code states the size {stated!r}, the image is [{height}, {width}]")
    if isinstance(counts, (str, bytes)):
        try:
            return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
        except UnicodeEncodeError:
            raise ValueError("the run-length code is malformed: it holds characters outside ASCII") from None
    try:
        runs = np.asarray(counts)
        if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any():
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError("the run-length code is neither a string nor a list of run lengths") from None
    if runs.sum() != height * width:
        raise ValueError(f"the run lengths add up to {int(runs.sum())}, the image has {height * width} pixels")
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
