"""``synthetic:shapes``: flat coloured shapes before textured backgrounds, the nearer hiding the farther."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.data.synthetic.scene import Dice, Layer, Scene, count_phrase, direction, grain, to_uint8, window

CLASSES = ["circle", "square", "triangle", "star", "ring"]

COLORS = {
    "red": (215, 45, 40), "green": (50, 165, 70), "blue": (45, 85, 215), "yellow": (240, 205, 50), "orange": (240, 130, 30),
    "purple": (130, 60, 175), "pink": (240, 130, 180), "white": (242, 242, 238), "black": (28, 28, 32),
}  # fmt: skip

FAR = 10.0
"""Depth of the background's far end; shapes stand at 1 to 6."""

RING_HOLE = 0.55
STAR_NOTCH = 0.45


@dataclass(frozen=True, slots=True)
class Style:
    """Colour, by name and by value, and the direction that its light comes from."""

    name: str
    rgb: tuple[float, float, float]
    light: tuple[float, float]
    radius: float


def corners(kind: str) -> list[tuple[float, float]]:
    """Outline of a polygon in its own frame, on the unit circle, y down; the top first, clockwise."""
    if kind == "square":
        return [direction(turn) for turn in (-0.125, 0.125, 0.375, 0.625)]
    if kind == "triangle":
        return [direction(turn) for turn in (-0.25, -0.25 + 1 / 3, -0.25 + 2 / 3)]
    points = []
    for k in range(10):
        c, s = direction(-0.25 + k / 10)
        reach = 1.0 if k % 2 == 0 else STAR_NOTCH
        points.append((c * reach, s * reach))
    return points


_OUTLINES = {kind: corners(kind) for kind in ("square", "triangle", "star")}

_POINTS = {  # centre, top, right, bottom, left in the shape's own frame
    "circle": [(0, 0), (0, -0.9), (0.9, 0), (0, 0.9), (-0.9, 0)],
    "ring": [(0, 0), (0, -0.8), (0.8, 0), (0, 0.8), (-0.8, 0)],
    "square": [(0, 0), (0, -0.6), (0.6, 0), (0, 0.6), (-0.6, 0)],
    "triangle": [(0, 0), (0, -0.75), (0.65, 0.38), (0, 0.42), (-0.65, 0.38)],
    "star": [(0, 0), (0, -0.75), (0.713, -0.232), (0, 0.36), (-0.713, -0.232)],
}


def distance(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of a shape of radius 1 at own coordinates (u, v), in units of the radius."""
    if kind == "circle":
        return np.sqrt(u * u + v * v) - np.float32(1)
    if kind == "ring":
        middle, half = np.float32((1 + RING_HOLE) / 2), np.float32((1 - RING_HOLE) / 2)
        return np.abs(np.sqrt(u * u + v * v) - middle) - half
    outline = _OUTLINES[kind]
    nearest = np.full(u.shape, np.float32(1e9))
    inside = np.zeros(u.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True):
        ex, ey = np.float32(bx - ax), np.float32(by - ay)
        px, py = u - np.float32(ax), v - np.float32(ay)
        t = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        qx, qy = px - t * ex, py - t * ey
        nearest = np.minimum(nearest, qx * qx + qy * qy)
        if ay != by:  # even-odd rule: does a ray to the right cross this edge?
            inside ^= ((v < ay) != (v < by)) & (px * ey < py * ex if ey > 0 else px * ey > py * ex)
    out = np.sqrt(nearest)
    return np.where(inside, -out, out)


def _layer(dice: Dice, size: tuple[int, int], kind: str, x: float, y: float, radius: float, depth: float) -> Layer | None:
    cos, sin = direction(dice.uniform(-0.08, 0.08))
    name = dice.choice(list(COLORS))
    tint = [dice.uniform(-14, 14) for _ in range(3)]
    light = direction(dice.uniform())
    place = window(size, x, y, radius + 2)
    if place is None:
        return None
    top, left, dx, dy = place
    scale = np.float32(1 / radius)
    u, v = (dx * np.float32(cos) + dy * np.float32(sin)) * scale, (dy * np.float32(cos) - dx * np.float32(sin)) * scale
    own = np.array(_POINTS[kind], dtype=np.float64) * radius
    points = np.stack([own[:, 0] * cos - own[:, 1] * sin + x, own[:, 0] * sin + own[:, 1] * cos + y], axis=1)
    style = Style(name, tuple(c + t for c, t in zip(COLORS[name], tint, strict=True)), light, radius)  # type: ignore[arg-type]
    return Layer(CLASSES.index(kind), top, left, distance(kind, u, v) * np.float32(radius), depth, points, True, style)


def plan(seed: int, index: int, size: tuple[int, int], task: str) -> Scene:
    """What stands where. ``task="classify"`` puts one large shape, of class ``index mod 5``, before small ones far away."""
    dice = Dice(seed, index, 0)
    height, width = size
    side = min(size)
    placed: list[tuple[float, Layer]] = []
    for _ in range(dice.integer(0, 2) if task == "classify" else dice.integer(2, 8)):
        depth = dice.uniform(4, 6) if task == "classify" else dice.uniform(1.5, 6)
        radius = side * dice.uniform(0.85, 1.15) * 0.4 / (depth + 0.7)  # farther is smaller
        layer = _layer(dice, size, dice.choice(CLASSES), dice.uniform(0.02, 0.98) * width, dice.uniform(0.02, 0.98) * height, radius, depth)
        if layer is not None:
            placed.append((depth, layer))
    if task == "classify":
        radius = side * dice.uniform(0.24, 0.4)
        x, y = dice.uniform(0.4, 0.6) * width, dice.uniform(0.4, 0.6) * height
        layer = _layer(dice, size, CLASSES[index % len(CLASSES)], x, y, radius, 1.0)
        assert layer is not None  # its centre lies inside the image
        placed.append((1.0, layer))
    placed.sort(key=lambda item: -item[0])
    return Scene.arrange(size, [layer for _, layer in placed], (seed, index))


def caption(scene: Scene) -> str:
    """``"two red circles and a blue star"``: the nearest first."""
    names = [f"{layer.style.name} {CLASSES[layer.label]}" for layer in reversed(scene.layers)]
    return count_phrase(names, "nothing but the background")


def depth(scene: Scene) -> np.ndarray:
    """(H, W) float32 distance from the viewer: shapes at 1 to 6, before a floor that recedes from 7 (below) to 10 (above)."""
    height = scene.size[0]
    rows = FAR - 3 * (np.arange(height) + 0.5) / height
    return scene.depth(rows[:, None])


def background(dice: Dice, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32: a gradient between two muted colours, under clouds, stripes, a checker board or nothing."""
    height, width = size
    grey, spread = dice.uniform(70, 185), dice.uniform(8, 40)
    first = [grey + dice.uniform(-spread, spread) for _ in range(3)]
    last = [value + dice.uniform(-35, 35) for value in first]
    kind, strength = dice.choice(["clouds", "stripes", "checker", "plain"]), np.float32(dice.uniform(8, 28))
    cos, sin = direction(dice.uniform())
    x, y = ((np.arange(width) + 0.5) / width).astype(np.float32)[None, :], ((np.arange(height) + 0.5) / height).astype(np.float32)[:, None]
    along = (x - np.float32(0.5)) * np.float32(cos) + (y - np.float32(0.5)) * np.float32(sin) + np.float32(0.5)
    if kind == "clouds":
        texture = dice.clouds(height, width, min(size) / dice.uniform(4, 16)) - np.float32(0.5)
    elif kind == "plain":
        texture = np.zeros((1, 1), dtype=np.float32)
    else:
        turn, period = direction(dice.uniform()), dice.uniform(4, 14)
        first_wave = _triangle_wave((x * np.float32(turn[0]) + y * np.float32(turn[1])) * np.float32(period))
        texture = first_wave
        if kind == "checker":
            texture = first_wave * _triangle_wave((y * np.float32(turn[0]) - x * np.float32(turn[1])) * np.float32(period))
        texture = np.clip(texture * np.float32(4), np.float32(-0.5), np.float32(0.5))
    texture = texture * strength
    out = np.empty((height, width, 3), dtype=np.float32)
    for c in range(3):
        out[..., c] = along * np.float32(last[c] - first[c]) + np.float32(first[c]) + texture
    return out


def _triangle_wave(t: np.ndarray) -> np.ndarray:
    return np.abs(t - np.floor(t) - np.float32(0.5)) * np.float32(2) - np.float32(0.5)


def paint(scene: Scene) -> np.ndarray:
    """(H, W, 3) uint8: the layers over the background, edges one pixel soft, a little sensor noise."""
    dice = Dice(*scene.key, 1)
    pixels = background(dice, scene.size)
    for layer in scene.layers:
        style: Style = layer.style
        region = pixels[layer.window]
        cover = np.clip(np.float32(0.5) - layer.distance, 0, 1)[..., None]
        height, width = layer.distance.shape
        (lx, ly), reach = style.light, np.float32(1 / style.radius)
        shade = (np.arange(width, dtype=np.float32) * np.float32(lx))[None, :] + (np.arange(height, dtype=np.float32) * np.float32(ly))[
            :, None
        ]
        centre = np.float32(width * lx / 2 + height * ly / 2)
        shade = np.float32(1) + (shade - centre) * reach * np.float32(0.12)
        color = np.array(style.rgb, dtype=np.float32) * shade[..., None]
        region += (color - region) * cover
    grain(pixels, dice, dice.uniform(0.5, 3.5))
    return to_uint8(pixels)
