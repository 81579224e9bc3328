"""Mistakes of annotation and of preprocessing that numbers give away. Pure functions on arrays: each measures what speaks for one mistake.

They look for what a correct set does not show, and stay silent where nothing can be told (square objects, grey images, a handful of boxes).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 12
"""Boxes from which on a statistic over boxes is trusted."""

UNIT = 1.5
"""Boxes whose corners all lie below this many pixels are fractions that were divided by the image's sides once more."""

SEEN_BORDER = 1.4
"""The surroundings that :func:`contrast` compares an object with: its box enlarged by this factor."""


# -- boxes ----------------------------------------------------------------------------------------


def contrast(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) how much each box differs from its surroundings: mean over channels of |mean inside - mean of the ring around|.

    A box on an object differs from what is around it, a box at an arbitrary place much less.

    Args:
        image: (C, H, W), any scale.
        boxes: (N, 4) XYXY in pixels.
    """
    _, height, width = image.shape
    sums = np.pad(np.asarray(image, dtype=np.float64).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2

    def inside(factor: float) -> tuple[np.ndarray, np.ndarray]:
        corners = np.concatenate([centre - half * factor, centre + half * factor], axis=1)
        x1, y1, x2, y2 = np.minimum(corners.clip(0), [width, height, width, height]).round().astype(int).T
        return sums[:, y2, x2] - sums[:, y1, x2] - sums[:, y2, x1] + sums[:, y1, x1], (x2 - x1) * (y2 - y1)

    (inner, pixels), (outer, all_pixels) = inside(1.0), inside(SEEN_BORDER)
    ring = (outer - inner) / np.maximum(all_pixels - pixels, 1)
    return np.abs(inner / np.maximum(pixels, 1) - ring).mean(0)


def transposed(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) boxes with x and y exchanged."""
    return boxes[:, [1, 0, 3, 2]]


def compare_transposed(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M, 2) :func:`contrast` of boxes as they are and with x and y exchanged, of those where both lie in the image and overlap little."""
    _, height, width = image.shape
    swapped = transposed(boxes)
    low, high = np.maximum(boxes[:, :2], swapped[:, :2]), np.minimum(boxes[:, 2:], swapped[:, 2:])
    inter, area = (high - low).clip(0).prod(1), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    keep = ~leaves(boxes, (height, width)) & ~leaves(swapped, (height, width)) & (area > 0) & (inter < area / 2)
    return np.stack([contrast(image, boxes[keep]), contrast(image, swapped[keep])], axis=1)


def leaves(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) bool: boxes that leave an image of ``size`` (H, W) by more than a pixel."""
    return (boxes[:, :2] < -1).any(1) | (boxes[:, 2] > size[1] + 1) | (boxes[:, 3] > size[0] + 1)


@dataclass(frozen=True)
class Swapped:
    """What speaks for x and y exchanged. Shares of all boxes; contrasts are means over ``compared`` boxes, in grey levels."""

    outside: float
    outside_transposed: float
    compared: int
    contrast: float
    contrast_transposed: float
    better: float

    def __bool__(self) -> bool:
        """Exchanged boxes fit inside where these leave the image; or they mark objects clearly better."""
        fits = self.outside >= 0.1 and self.outside_transposed <= 0.02
        marks = self.compared >= ENOUGH and self.contrast_transposed > 1.25 * self.contrast and self.better >= 0.65
        return fits or marks


def swapped_xy(images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> Swapped:
    """Whether the boxes (N, 4) of images (C, H, W) look as if x and y had been exchanged."""
    pairs = np.concatenate([np.zeros((0, 2)), *(compare_transposed(i, b) for i, b in zip(images, boxes, strict=True) if len(b))])
    out = [leaves(b, i.shape[1:]) for i, b in zip(images, boxes, strict=True)]  # type: ignore[arg-type]
    out_swapped = [leaves(transposed(b), i.shape[1:]) for i, b in zip(images, boxes, strict=True)]  # type: ignore[arg-type]
    count = max(sum(map(len, boxes)), 1)
    own, other = pairs.mean(0) if len(pairs) else (0.0, 0.0)
    better = float((pairs[:, 1] > pairs[:, 0]).mean()) if len(pairs) else 0.0
    outside, outside_swapped = (float(sum(o.sum() for o in kind)) / count for kind in (out, out_swapped))
    return Swapped(outside, outside_swapped, len(pairs), float(own), float(other), better)


def in_unit_square(boxes: np.ndarray) -> bool:
    """Whether all boxes (N, 4), at least three, lie in the image's first pixel: fractions taken for pixels, or divided twice."""
    return len(boxes) >= 3 and bool((boxes < UNIT).all())


def moved(boxes: np.ndarray, expected: np.ndarray) -> str:
    """How boxes (N, 4) after preprocessing differ from where they should be: "", "swapped", "normalised" or "moved" (above 2 pixels)."""
    if len(boxes) != len(expected):
        return "moved"
    if not len(boxes) or np.abs(boxes - expected).max() <= 2:
        return ""
    if np.abs(transposed(boxes) - expected).max() <= 2:
        return "swapped"
    return "normalised" if (boxes < UNIT).all() else "moved"


# -- labels ---------------------------------------------------------------------------------------

BACKGROUND_NAMES = ("background", "__background__", "bg", "none", "_background_", "__ignore__", "unlabeled", "unlabelled", "void")


def shifted_labels(counts: np.ndarray, classes: Sequence[str], task: str) -> str:
    """What speaks for labels that are off by one, in words, or "".

    Args:
        counts: (K,) examples by label: objects, images, or pixels.
        classes: names by label.
        task: a segmenter's label 0 is the background where it is called so; detectors have no background class here.
    """
    if not counts.sum() or len(counts) < 2:
        return ""
    first = classes[0]
    names_nothing = first.strip().lower() in BACKGROUND_NAMES
    if task == "segment":
        return f"no pixel is {first!r}" if names_nothing and counts[0] == 0 else ""
    if task == "detect" and names_nothing:
        what = f"{counts[0]} objects are called {first!r}" if counts[0] else f"class 0 is called {first!r} and has no object"
        return f"{what}: here labels count from 0, and there is no background class"
    if counts[0] == 0 and (counts[1:] > 0).all() and len(counts) > 2:
        return f"class 0, {first!r}, has no example and every other class has: labels that count from 1?"
    return ""


# -- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rendering:
    """How a network's input, brought back to pixels, relates to the image it was made of.

    Attributes:
        order: channels of the image in the order the input has them: "RGB" as it should be; "" where colour cannot tell.
        gain, offset: of the straight line input = gain * image + offset that fits best; 1 and 0 as it should be.
        correlation: of the two within images; low: another picture, or another place.
    """

    order: str
    gain: float
    offset: float
    correlation: float


def rendering(inputs: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> Rendering:
    """Compare inputs (C, h, w) brought back to 0..255 with the images that they show, resized alike.

    The order of channels is found from colour alone (each pixel's mean over the channels taken off), so it stays open for grey images.
    """
    x, dx = _flat(inputs)
    y, dy = _flat(images)
    order = _order(x, y) if len(x) == 3 else ""
    if order:
        y, dy = (v[["RGB".index(c) for c in order]] for v in (y, dy))
    spread = float((dy * dy).sum())
    if spread < 1e-9 or not np.isfinite(x).all():
        return Rendering(order, 1.0 if np.isfinite(x).all() else float("nan"), 0.0, 1.0)
    gain = float((dx * dy).sum()) / spread
    correlation = float((dx * dy).sum()) / max((float((dx * dx).sum()) * spread) ** 0.5, 1e-12)
    return Rendering(order, gain, float(x.mean() - gain * y.mean()), correlation)


def _flat(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(C, n) all pixels of images (C, h, w), and the same with each image's mean of a channel taken off."""
    flat = [np.asarray(image, dtype=np.float64).reshape(len(image), -1) for image in images]
    return np.concatenate(flat, axis=1), np.concatenate([one - one.mean(1, keepdims=True) for one in flat], axis=1)


def _order(x: np.ndarray, y: np.ndarray) -> str:
    """Order of the channels of ``y`` (3, n) that the colours of ``x`` (3, n) follow, or ""."""
    a, b = x - x.mean(0), y - y.mean(0)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    if b.std() < 2:  # grey levels: no colour to go by
        return ""
    scale = max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-12)
    fits = {order: float((a * b[list(order)]).sum() / scale) for order in itertools.permutations(range(3))}
    best = max(fits, key=lambda order: fits[order])
    clear = fits[best] > 0.8 and fits[best] - fits[0, 1, 2] > 0.1
    return "".join("RGB"[k] for k in best) if clear else "RGB"
