"""A planned scene and the truth that follows from it; the arithmetic that is the same on every machine.

A scene is planned first (what stands where, as signed distances) and painted later, so that an index of truth costs no pixels.
All numbers come from PCG64's 53-bit doubles and bytes, and all arrays from ``+ - * /``, ``sqrt`` and comparisons, which IEEE 754
rounds in one way only. Sines, exponentials, sums of floats and matrix products differ in the last bit between processors: none is
used on pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from saccade.data.records import Record

KEYPOINT_NAMES = ["centre", "top", "right", "bottom", "left"]
KEYPOINT_SWAP = [0, 1, 4, 3, 2]
"""The points that a mirror exchanges. "Top" and the others are of the object's own frame, as the nose of a face is."""

LEAST_PIXELS = 9
LEAST_VISIBLE = 0.25
"""An object with fewer pixels, or a smaller visible part of what lies inside the image, is taken out of the scene."""

T = TypeVar("T")


class Dice:
    """Random numbers of one stream of one scene."""

    def __init__(self, seed: int, index: int, stream: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64([seed, index, stream]))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self.generator.random())

    def integer(self, low: int, high: int) -> int:
        """An integer of low..high, both included."""
        return low + int(self.generator.random() * (high - low + 1))

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.integer(0, len(items) - 1)]

    def flip(self, probability: float) -> bool:
        """True with the probability."""
        return float(self.generator.random()) < probability

    def bytes(self, *shape: int) -> np.ndarray:
        """uint8 noise of a shape."""
        return np.frombuffer(self.generator.bytes(math.prod(shape)), dtype=np.uint8).reshape(shape)

    def bell(self, *shape: int) -> np.ndarray:
        """float32 noise with mean 0 and deviation 1: the sum of three bytes, near enough to a Gaussian."""
        total = self.bytes(3, *shape).astype(np.int16)
        return ((total[0] + total[1] + total[2]).astype(np.float32) - np.float32(382.5)) * np.float32(1 / 127.99)

    def clouds(self, height: int, width: int, cell: float) -> np.ndarray:
        """(H, W) float32 value noise in [0, 1): random values on a lattice of ``cell`` pixels, bilinear between."""
        cell = max(cell, 1.0)
        values = self.bytes(int(height / cell) + 2, int(width / cell) + 2).astype(np.float32) * np.float32(1 / 256)
        y, x = np.arange(height) / cell, np.arange(width) / cell
        top, left = y.astype(np.int64), x.astype(np.int64)
        fy, fx = (y - top).astype(np.float32)[:, None], (x - left).astype(np.float32)
        rows = values[top] * (1 - fy) + values[top + 1] * fy
        return rows[:, left] * (1 - fx) + rows[:, left + 1] * fx


def direction(turn: float) -> tuple[float, float]:
    """(cos, sin) of a fraction of a full turn, rounded to 2^-20: the C library's last bit cannot show."""
    angle = 2 * math.pi * turn
    return round(math.cos(angle) * 2**20) / 2**20, round(math.sin(angle) * 2**20) / 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One object: a window of signed distances to its outline.

    Attributes:
        label: class.
        top, left: of the window, which lies inside the image.
        distance: (h, w) float32 pixels from each pixel's centre to the outline, negative inside.
        depth: distance from the viewer.
        points: (5, 2) xy of :data:`KEYPOINT_NAMES`, inside the image or not.
        opaque: whether it hides what lies behind.
        style: what its painter needs.
    """

    label: int
    top: int
    left: int
    distance: np.ndarray
    depth: float
    points: np.ndarray
    opaque: bool
    style: Any

    @property
    def window(self) -> tuple[slice, slice]:
        """Its place in an (H, W) array."""
        height, width = self.distance.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def window(size: tuple[int, int], x: float, y: float, reach: float) -> tuple[int, int, np.ndarray, np.ndarray] | None:
    """Top, left, and the pixel centres relative to (x, y), as (1, w) and (h, 1) float32, of a square window cut by the image."""
    height, width = size
    top, bottom = max(math.floor(y - reach), 0), min(math.ceil(y + reach), height)
    left, right = max(math.floor(x - reach), 0), min(math.ceil(x + reach), width)
    if top >= bottom or left >= right:
        return None
    dx = (np.arange(left, right) + (0.5 - x)).astype(np.float32)[None, :]
    dy = (np.arange(top, bottom) + (0.5 - y)).astype(np.float32)[:, None]
    return top, left, dx, dy


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Layers from back to front, the visible part of each as a mask of its window, and ``key`` (seed, index)."""

    size: tuple[int, int]
    layers: list[Layer]
    visible: list[np.ndarray]
    key: tuple[int, int]
    style: Any

    @classmethod
    def arrange(cls, size: tuple[int, int], layers: Sequence[Layer], key: tuple[int, int], style: Any = None) -> Scene:
        """Find what is visible, front to back; take out what is not (the objects behind it come to light)."""
        hidden = np.zeros(size, dtype=bool)
        kept: list[tuple[Layer, np.ndarray]] = []
        for layer in reversed(layers):
            inside = layer.distance < 0
            seen = inside & ~hidden[layer.window]
            count = np.count_nonzero(seen)
            if count < LEAST_PIXELS or count < LEAST_VISIBLE * np.count_nonzero(inside):
                continue
            kept.append((layer, seen))
            if layer.opaque:
                hidden[layer.window] |= inside
        kept.reverse()
        return cls(size, [k[0] for k in kept], [k[1] for k in kept], key, style)

    def boxes(self) -> np.ndarray:
        """(N, 4) float32 XYXY, tight on the visible parts."""
        out = np.zeros((len(self.layers), 4), dtype=np.float32)
        for i, (layer, seen) in enumerate(zip(self.layers, self.visible, strict=True)):
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            out[i] = columns[0] + layer.left, rows[0] + layer.top, columns[-1] + layer.left + 1, rows[-1] + layer.top + 1
        return out

    def labels(self) -> np.ndarray:
        """(N,) int64."""
        return np.array([layer.label for layer in self.layers], dtype=np.int64)

    def segments(self) -> list[dict[str, Any]]:
        """The visible parts as COCO's uncompressed run lengths."""
        return [run_lengths(seen, layer.top, layer.left, self.size) for layer, seen in zip(self.layers, self.visible, strict=True)]

    def keypoints(self) -> np.ndarray:
        """(N, 5, 3) float32: x, y, and 2 visible, 1 behind another object, 0 outside the image (then x = y = 0)."""
        height, width = self.size
        out = np.zeros((len(self.layers), len(KEYPOINT_NAMES), 3), dtype=np.float32)
        hidden = np.zeros(self.size, dtype=bool)
        for i in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[i]
            for k, (x, y) in enumerate(layer.points):
                if 0 <= x < width and 0 <= y < height:
                    out[i, k] = x, y, 1 if hidden[int(y), int(x)] else 2
            if layer.opaque:
                hidden[layer.window] |= layer.distance < 0
        return out

    def semantic(self) -> np.ndarray:
        """(H, W) uint8: 0 background, label + 1 on objects."""
        out = np.zeros(self.size, dtype=np.uint8)
        for layer, seen in zip(self.layers, self.visible, strict=True):
            out[layer.window][seen] = layer.label + 1
        return out

    def depth(self, background: np.ndarray) -> np.ndarray:
        """(H, W) float32: the depth of the nearest object over that of the background."""
        out = np.broadcast_to(background, self.size).astype(np.float32)
        for layer, seen in zip(self.layers, self.visible, strict=True):
            out[layer.window][seen] = layer.depth
        return out

    def record(self, path: str, caption: str) -> Record:
        """The truth of detection, instances, key points and captions."""
        return Record(
            path=path, image_id=path, size=self.size, boxes=self.boxes(), labels=self.labels(),
            segments=self.segments(), keypoints=self.keypoints(), captions=[caption],
        )  # fmt: skip


def run_lengths(seen: np.ndarray, top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's ``{"size": [H, W], "counts": [...]}``: runs down the columns, background first, of a mask in a window."""
    height, width = size
    edges = np.zeros((seen.shape[1], seen.shape[0] + 2), dtype=np.int8)
    edges[:, 1:-1] = seen.T
    steps = np.diff(edges, axis=1)
    (starts_x, starts_y), (ends_x, ends_y) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    starts = (starts_x + left) * height + starts_y + top
    ends = (ends_x + left) * height + ends_y + top
    broken = starts[1:] != ends[:-1]  # a run that goes on in the next column is one run
    starts, ends = np.r_[starts[:1], starts[1:][broken]], np.r_[ends[:-1][broken], ends[-1:]]
    marks = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(np.r_[0, marks, height * width]).tolist()
    return {"size": [height, width], "counts": counts if counts[-1] else counts[:-1]}


NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count_phrase(names: Sequence[str], nothing: str) -> str:
    """Plain English for a bag of things, in the order of first appearance.

    >>> count_phrase(["red circle", "blue star", "red circle"], "nothing")
    'two red circles and a blue star'
    """
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    parts = []
    for name, count in counts.items():
        number = NUMBERS[count] if count < len(NUMBERS) else str(count)
        if count == 1:
            parts.append(("an " if name[0] in "aeiou" else "a ") + name)
        else:
            parts.append(f"{number} {name}s")
    if not parts:
        return nothing
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """0..255 floats to bytes, rounded half up, clipped."""
    return np.clip(pixels + np.float32(0.5), 0, 255).astype(np.uint8)


def grain(pixels: np.ndarray, dice: Dice, deviation: float) -> None:
    """Add sensor noise in place: one draw for the three channels and a weaker one for each."""
    height, width, _ = pixels.shape
    pixels += dice.bell(height, width)[..., None] * np.float32(deviation)
    pixels += dice.bell(height, width, 3) * np.float32(deviation * 0.5)


def soften(pixels: np.ndarray) -> np.ndarray:
    """One pass of the binomial filter [1 2 1] / 4 both ways, edges repeated."""
    for axis in (0, 1):
        padded = np.concatenate([pixels.take([0], axis), pixels, pixels.take([-1], axis)], axis)
        middle = pixels.shape[axis]
        a, b, c = (padded[k : k + middle] if axis == 0 else padded[:, k : k + middle] for k in range(3))
        pixels = (a + c) * np.float32(0.25) + b * np.float32(0.5)
    return pixels
