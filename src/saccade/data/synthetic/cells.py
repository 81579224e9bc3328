"""``synthetic:cells``: a stained blood smear under the microscope (Giemsa): red cells, white cells, platelets.

Light that passes a cell is absorbed by its thickness (Beer-Lambert), so overlapping red cells grow darker and both outlines show.
The red cell's profile is the biconcave disc of Evans and Fung (1972, Microvasc. Res. 4:335):
thickness(t) = sqrt(1 - t^2) (C0 + C1 t^2 + C2 t^4), t = radius / rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.data.synthetic.scene import Dice, Layer, Scene, count_phrase, direction, grain, soften, to_uint8, window

CLASSES = ["red cell", "white cell", "platelet"]
RED, WHITE, PLATELET = range(3)

C0, C1, C2 = 0.207161, 2.002558, -1.122762

RED_INK = (0.30, 0.66, 0.74)  # how much red, green and blue a cell takes away
CYTOPLASM_INK = (0.30, 0.46, 0.12)
EOSIN_INK = (0.16, 0.55, 0.50)
NUCLEUS_INK = (0.80, 1.05, 0.20)
PLATELET_INK = (0.62, 0.55, 0.16)

WHITE_KINDS = ("neutrophil", "neutrophil", "lymphocyte", "monocyte", "eosinophil")

SLIDE = 10.0
"""Depth of the slide; cells lie up to 1 above it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """An outline near a circle: ``R(angle) = radius (1 + oval cos 2(a - a2) + dent cos 3(a - a3))``; angles as (cos, sin)."""

    x: float
    y: float
    radius: float
    oval: float
    dent: float
    oval_axis: tuple[float, float]  # of the doubled angle
    dent_axis: tuple[float, float]  # of the tripled angle

    def rim(self, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance from the centre, and the outline's radius in that direction, both in pixels."""
        r = np.sqrt(dx * dx + dy * dy)
        safe = np.maximum(r, np.float32(1e-3))
        c, s = dx / safe, dy / safe
        c2, s2 = c * c - s * s, c * s * 2
        c3, s3 = c2 * c - s2 * s, s2 * c + c2 * s
        wave = (c2 * np.float32(self.oval_axis[0]) + s2 * np.float32(self.oval_axis[1])) * np.float32(self.oval)
        wave = wave + (c3 * np.float32(self.dent_axis[0]) + s3 * np.float32(self.dent_axis[1])) * np.float32(self.dent)
        return r, (wave + 1) * np.float32(self.radius)

    def at(self, cos: float, sin: float, share: float) -> tuple[float, float]:
        """The point at a share of the way from the centre to the outline, in a direction."""
        _, rim = self.rim(np.float32([[cos]]), np.float32([[sin]]))
        reach = float(rim[0, 0]) * share
        return self.x + cos * reach, self.y + sin * reach


@dataclass(frozen=True, slots=True)
class Style:
    """How a cell looks.

    ``stain``: how strongly; ``pallor``: how much of a red cell's dent shows; ``blur``: half width of the edge in pixels (focus);
    ``lobes``: a nucleus as (dx, dy, radius) in pixels; ``kind``: of a white cell.
    """

    blob: Blob
    stain: float
    pallor: float
    blur: float
    lobes: tuple[tuple[float, float, float], ...] = ()
    kind: str = ""


def _blob(dice: Dice, x: float, y: float, radius: float, oval: float, dent: float) -> Blob:
    return Blob(x, y, radius, dice.uniform(0, oval), dice.uniform(0, dent), direction(dice.uniform()), direction(dice.uniform()))


def _layer(size: tuple[int, int], label: int, style: Style, depth: float) -> Layer | None:
    blob = style.blob
    place = window(size, blob.x, blob.y, blob.radius * (1 + blob.oval + blob.dent) + 2 * style.blur + 3)
    if place is None:
        return None
    top, left, dx, dy = place
    r, rim = blob.rim(dx, dy)
    points = [(blob.x, blob.y), *(blob.at(c, s, 0.85) for c, s in ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)))]
    return Layer(label, top, left, r - rim, depth, np.array(points), label != RED, style)


def _nucleus(dice: Dice, kind: str, radius: float) -> tuple[tuple[float, float, float], ...]:
    """Lobes of a white cell's nucleus."""
    turn = dice.uniform()
    if kind == "lymphocyte":
        c, s = direction(turn)
        return ((c * 0.06 * radius, s * 0.06 * radius, radius * dice.uniform(0.78, 0.86)),)
    count, arc, away, lobe = {
        "neutrophil": (dice.integer(3, 5), dice.uniform(0.5, 0.85), 0.48, 0.30),
        "eosinophil": (2, 0.42, 0.42, 0.38),
        "monocyte": (4, 0.38, 0.36, 0.40),
    }[kind]
    lobes = []
    for k in range(count):
        c, s = direction(turn + arc * k / (count - 1))
        reach = radius * away * dice.uniform(0.85, 1.1)
        lobes.append((c * reach, s * reach, radius * lobe * dice.uniform(0.85, 1.15)))
    return tuple(lobes)


def _clear(x: float, y: float, radius: float, others: list[Blob], share: float) -> bool:
    """Whether the centre keeps ``share`` of the sum of radii from all others."""
    for other in others:
        gap = (radius + other.radius) * share
        if (x - other.x) * (x - other.x) + (y - other.y) * (y - other.y) < gap * gap:
            return False
    return True


def plan(seed: int, index: int, size: tuple[int, int], task: str) -> Scene:
    """What lies where. ``task="classify"`` zooms on one cell in the middle, of class ``index mod 3``, with neighbours."""
    dice = Dice(seed, index, 0)
    height, width = size
    red = min(size) * dice.uniform(0.088, 0.118)  # radius of a red cell; a field of view as in BCCD
    subject = index % len(CLASSES) if task == "classify" else None
    if subject is not None:
        red = min(size) * (0.3, 0.24, 0.5)[subject] * dice.uniform(0.9, 1.1)
    whites, platelets, reds = [], [], []
    if subject is None:
        for _ in range(dice.choice([0, 1, 1, 1, 2])):
            radius = red * dice.uniform(1.15, 1.75)
            x, y = dice.uniform(0.05, 0.95) * width, dice.uniform(0.05, 0.95) * height
            if _clear(x, y, radius, whites, 1.02):
                whites.append(_blob(dice, x, y, radius, 0.1, 0.05))
    else:
        radius = red * (1.0, dice.uniform(1.2, 1.6), 0.3)[subject]
        middle = _blob(dice, width * dice.uniform(0.45, 0.55), height * dice.uniform(0.45, 0.55), radius, 0.1, 0.05)
        (reds, whites, platelets)[subject].append(middle)

    wanted = width * height * dice.uniform(0.18, 0.62) / (np.pi * red * red)
    loose = dice.uniform(0.05, 0.6)  # share of cells that do not cling to another
    for _ in range(int(wanted * 3)):
        radius = red * dice.uniform(0.82, 1.14)
        if reds and not dice.flip(loose):
            near = dice.choice(reds)
            (c, s), gap = direction(dice.uniform()), (near.radius + radius) * dice.uniform(0.72, 1.02)
            x, y = near.x + c * gap, near.y + s * gap
        else:
            x, y = dice.uniform(-0.03, 1.03) * width, dice.uniform(-0.03, 1.03) * height
        inside = -radius < x < width + radius and -radius < y < height + radius
        if len(reds) < wanted and inside and _clear(x, y, radius, reds, 0.7) and _clear(x, y, radius, whites + platelets, 0.93):
            reds.append(_blob(dice, x, y, radius, 0.16, 0.06))
    for _ in range(0 if subject is not None else max(dice.integer(-1, 4), 0)):
        radius = red * dice.uniform(0.2, 0.36)
        x, y = dice.uniform(0.03, 0.97) * width, dice.uniform(0.03, 0.97) * height
        if _clear(x, y, radius, whites + platelets, 1.1) and (dice.flip(0.15) or _clear(x, y, radius, reds, 0.9)):
            platelets.append(_blob(dice, x, y, radius, 0.28, 0.15))

    sharp = max(0.5, min(size) / 480)
    stain, pallor = dice.uniform(0.75, 1.15), dice.uniform(0.7, 1.3)
    layers: list[Layer | None] = []

    def focus() -> float:
        return sharp * (dice.uniform(0.8, 1.6) if dice.flip(0.75) else dice.uniform(1.6, 5.0))

    for blob in reds:
        strength = stain * (dice.uniform(0.75, 1.15) if dice.flip(0.85) else dice.uniform(0.35, 0.6))
        look = min(max(pallor + dice.uniform(-0.55, 0.1), 0.0), 1.0)
        layers.append(_layer(size, RED, Style(blob, strength, look, focus()), SLIDE - dice.uniform(0.1, 0.4)))
    for blob in whites:
        kind = dice.choice(WHITE_KINDS)
        style = Style(blob, dice.uniform(0.8, 1.1), 0.0, focus(), _nucleus(dice, kind, blob.radius), kind)
        layers.append(_layer(size, WHITE, style, SLIDE - dice.uniform(0.5, 0.8)))
    for blob in platelets:
        style = Style(blob, dice.uniform(0.55, 1.0), 0.0, focus(), (), "")
        layers.append(_layer(size, PLATELET, style, SLIDE - dice.uniform(0.8, 1.0)))
    return Scene.arrange(size, [layer for layer in layers if layer is not None], (seed, index), red)


def caption(scene: Scene) -> str:
    """``"twelve red cells, a white cell and two platelets"``."""
    return count_phrase([CLASSES[label] for label in sorted(layer.label for layer in scene.layers)], "an empty field of a smear")


def depth(scene: Scene) -> np.ndarray:
    """(H, W) float32 distance from the objective: the slide at 10, cells up to 1 nearer."""
    return scene.depth(np.full((1, 1), SLIDE, dtype=np.float32))


def paint(scene: Scene) -> np.ndarray:
    """(H, W, 3) uint8."""
    dice = Dice(*scene.key, 1)
    pixels = _light(dice, scene.size)
    _debris(pixels, dice, scene.style)
    for layer in scene.layers:
        (_paint_red, _paint_white, _paint_platelet)[layer.label](pixels[layer.window], layer, dice)
    _dust(pixels, dice, scene.style)
    for _ in range(dice.choice([0, 0, 0, 1, 2])):
        pixels = soften(pixels)
    grain(pixels, dice, dice.uniform(0.8, 3.2))
    return to_uint8(pixels)


def _light(dice: Dice, size: tuple[int, int]) -> np.ndarray:
    """The lit slide: a tint, falling off to one side and to the corners, with faint stained plasma."""
    height, width = size
    level = dice.uniform(188, 228)
    tint = [level + dice.uniform(-12, 10), level + dice.uniform(-2, 7), level + dice.uniform(-12, 12)]
    cos, sin = direction(dice.uniform())
    x = ((np.arange(width) + 0.5) / width - 0.5).astype(np.float32)[None, :]
    y = ((np.arange(height) + 0.5) / height - 0.5).astype(np.float32)[:, None]
    fall = np.float32(1) + (x * np.float32(cos) + y * np.float32(sin)) * np.float32(dice.uniform(0, 0.16))
    fall = fall - (x * x + y * y) * np.float32(dice.uniform(0, 0.22))
    fall = fall - (dice.clouds(height, width, min(size) / 5) - np.float32(0.5)) * np.float32(dice.uniform(0, 0.06))
    return fall[..., None] * np.array(tint, dtype=np.float32)


def _absorb(region: np.ndarray, amount: np.ndarray, ink: tuple[float, float, float]) -> None:
    """Take light away: 1 / (1 + a + a^2 / 2), the exponential's first terms, keeps the arithmetic exact."""
    for c in range(3):
        a = amount * np.float32(ink[c])
        region[..., c] /= a * a * np.float32(0.5) + a + 1


def _cover(distance: np.ndarray, blur: float) -> np.ndarray:
    """1 inside, 0 outside, a smooth step of half width ``blur`` between."""
    t = np.clip(np.float32(0.5) - distance * np.float32(0.5 / blur), 0, 1)
    return t * t * (3 - 2 * t)


def _halo(region: np.ndarray, distance: np.ndarray, style: Style) -> None:
    """The bright seam that refraction draws around an outline; focus takes it away."""
    width = style.blob.radius * 0.06 + style.blur
    seam = np.maximum(1 - np.abs(distance - np.float32(width)) * np.float32(1 / width), 0)
    region *= (seam * np.float32(0.05 / (0.6 + style.blur * 0.4)) + 1)[..., None]


def _paint_red(region: np.ndarray, layer: Layer, dice: Dice) -> None:
    style: Style = layer.style
    _halo(region, layer.distance, style)
    rim = np.float32(style.blob.radius)
    t2 = np.clip(1 + layer.distance / rim, 0, 1)
    t2 = t2 * t2
    disc = np.sqrt(np.maximum(1 - t2 * np.float32(0.9), 0)) * (np.float32(C0) + np.float32(C1) * t2 + np.float32(C2) * t2 * t2)
    lens = np.float32(0.55) * np.sqrt(np.maximum(1 - t2 * np.float32(0.55), 0))  # swollen cell without a pale centre
    thick = np.maximum(disc - np.float32(0.14), 0) * np.float32(1.35 * style.pallor) + lens * np.float32(1 - style.pallor)
    edge = np.maximum(1 - np.abs(layer.distance + np.float32(1.2 * style.blur)) * np.float32(0.7 / style.blur), 0)
    thick = thick * np.float32(1.1) + edge * np.float32(0.10)
    mottle = dice.clouds(*layer.distance.shape, style.blob.radius * 0.3) * np.float32(0.16) + np.float32(0.92)
    _absorb(region, thick * mottle * _cover(layer.distance, style.blur) * np.float32(style.stain), RED_INK)


def _paint_white(region: np.ndarray, layer: Layer, dice: Dice) -> None:
    style: Style = layer.style
    height, width = layer.distance.shape
    body = _cover(layer.distance, style.blur)
    # What lies below shows faintly: white cells are thick.
    region += (np.float32(215) - region) * (body * np.float32(0.75))[..., None]
    grains = dice.clouds(height, width, style.blob.radius * 0.07) + dice.clouds(height, width, style.blob.radius * 0.25)
    eosin = style.kind == "eosinophil"
    granular = {"neutrophil": 0.8, "eosinophil": 0.9, "monocyte": 0.6, "lymphocyte": 0.25}[style.kind]
    amount = body * np.float32(0.5 * style.stain) * (grains * np.float32(granular) + np.float32(1 - granular))
    _absorb(region, amount, EOSIN_INK if eosin else CYTOPLASM_INK)
    blob = style.blob
    dx = (np.arange(width) + (layer.left + 0.5 - blob.x)).astype(np.float32)[None, :]
    dy = (np.arange(height) + (layer.top + 0.5 - blob.y)).astype(np.float32)[:, None]
    field = np.zeros((height, width), dtype=np.float32)
    for x, y, radius in style.lobes:  # lobes flow together where they meet (a sum of r^4 / d^4)
        d2 = (dx - np.float32(x)) * (dx - np.float32(x)) + (dy - np.float32(y)) * (dy - np.float32(y)) + np.float32(0.25)
        near = np.float32(radius * radius) / d2
        field += near * near
    wobble = dice.clouds(height, width, blob.radius * 0.3) * np.float32(0.5) + np.float32(0.75)
    inner = np.clip((field * wobble - 1) * np.float32(0.5 + blob.radius * 0.12 / style.blur) + np.float32(0.5), 0, 1)
    inner = np.minimum(inner, body)
    chromatin = dice.clouds(height, width, blob.radius * 0.14) * np.float32(0.55) + np.float32(0.72)
    _absorb(region, inner * chromatin * np.float32(1.3 * style.stain), NUCLEUS_INK)


def _paint_platelet(region: np.ndarray, layer: Layer, dice: Dice) -> None:
    style: Style = layer.style
    height, width = layer.distance.shape
    body = _cover(layer.distance + np.float32(0.3 * style.blur), style.blur * 1.4)
    grains = dice.clouds(height, width, style.blob.radius * 0.35)
    core = np.clip(-layer.distance * np.float32(1.2 / style.blob.radius), 0, 1)
    _absorb(region, body * (grains * np.float32(0.7) + core * np.float32(0.6) + np.float32(0.25)) * np.float32(style.stain), PLATELET_INK)


def _spot(pixels: np.ndarray, x: float, y: float, reach: float) -> tuple[np.ndarray, np.ndarray] | None:
    place = window((pixels.shape[0], pixels.shape[1]), x, y, reach)
    if place is None:
        return None
    top, left, dx, dy = place
    r = np.sqrt(dx * dx + dy * dy)
    return pixels[top : top + r.shape[0], left : left + r.shape[1]], r


def _debris(pixels: np.ndarray, dice: Dice, red: float) -> None:
    """What is no cell: grains of precipitated stain and pale smudges of plasma, below the cells."""
    height, width, _ = pixels.shape
    for _ in range(dice.choice([0, 0, 1, 2, 6])):
        x, y, radius = dice.uniform(0, width), dice.uniform(0, height), red * dice.uniform(0.03, 0.11)
        spot = _spot(pixels, x, y, radius + 3)
        if spot is not None:
            _absorb(spot[0], _cover(spot[1] - np.float32(radius), 0.9) * np.float32(dice.uniform(0.4, 1.2)), NUCLEUS_INK)
    for _ in range(dice.choice([0, 1, 2])):
        x, y, radius = dice.uniform(0, width), dice.uniform(0, height), red * dice.uniform(0.4, 1.3)
        spot = _spot(pixels, x, y, radius * 2)
        if spot is not None:
            _absorb(spot[0], _cover(spot[1] - np.float32(radius), radius) * np.float32(dice.uniform(0.04, 0.14)), CYTOPLASM_INK)


def _dust(pixels: np.ndarray, dice: Dice, red: float) -> None:
    """Dust above the slide, far out of focus: a bright disc with a dark ring."""
    height, width, _ = pixels.shape
    for _ in range(dice.choice([0, 0, 1, 2, 3])):
        x, y, radius = dice.uniform(0, width), dice.uniform(0, height), red * dice.uniform(0.06, 0.16)
        spot = _spot(pixels, x, y, radius + 4)
        if spot is not None:
            region, r = spot
            ring = np.maximum(1 - np.abs(r - np.float32(radius)) * np.float32(0.6), 0) * np.float32(-0.35)
            ring = ring + _cover(r - np.float32(radius * 0.5), 0.8) * np.float32(dice.uniform(0.1, 0.4))
            region *= (ring + 1)[..., None]
