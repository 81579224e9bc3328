"""A network as a picture: layers in boxes with their norm and activation, blocks in frames, repeated blocks once, shapes on the edges.

SVG without script or font files, in light and dark, with a name for screen readers; each box tells its numbers when pointed at.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import nn

from saccade.explain.blocks import BOX, JOIN, PLAIN, TALL, Box, condense, group
from saccade.explain.layout import Layout, lay_out
from saccade.explain.shape import Table, trace

THIN, GAP, ROW = 20.0, 26.0, 38.0
"""Width of a passing edge; space between neighbours and between ranks."""
COLUMN = 1500.0
"""Height from which a picture is folded into columns."""

LEGEND = {
    "conv": "convolution", "depth": "depthwise or grouped", "dense": "dense", "pool": "pooling", "up": "enlarging", "join": "joining",
    "attend": "attention", "block": "block", "other": "other",
}  # fmt: skip


def draw(model: nn.Module, size: int | tuple[int, int], channels: int = 3, title: str = "") -> str:
    """SVG text of a network for images of one size (a side or (H, W)).

    Raises:
        UsageError: the network does not take this size.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return draw_tables(title or type(model).__name__, {"": trace(model, (1, channels, *sides))})


def draw_tables(title: str, tables: Mapping[str, Table]) -> str:
    """SVG text of one or several networks, side by side."""
    pieces, x, tall, kinds = [], 24.0, 0.0, set()
    for part, table in tables.items():
        boxes, repeats = condense(table)
        picture = Picture(boxes, repeats, table)
        heading = f'<text x="0" y="-8" class="part">{html.escape(part)}</text>' if part else ""
        pieces.append(f'<g transform="translate({x:.0f},{84 if part else 66})">{heading}{picture.body}</g>')
        x += picture.width + 60
        tall = max(tall, picture.height + (18 if part else 0))
        kinds |= {box.kind for box in boxes}
    parameters, macs = sum(t.parameters for t in tables.values()), sum(t.macs for t in tables.values())
    facts = f"{count(parameters)} parameters · {count(macs)} multiply-adds · input {shape_text(next(iter(tables.values())).input)}"
    keys = [(kind, word) for kind, word in LEGEND.items() if kind in kinds]
    width, height = max(x - 36, 48 + 12 * len(title), 48 + 6.4 * len(facts)), tall + 84
    legend = []
    per_line = max(1, int((width - 24) // 160))
    for i, (kind, word) in enumerate(keys):
        at_x, at_y = 24 + i % per_line * 160, height + i // per_line * 22
        legend += [rectangle(at_x, at_y - 10, 14, 14, 3, kind), words_at(at_x + 20, at_y + 1, "small", word)]
    height += 22 * math.ceil(len(keys) / per_line)
    safe = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        f'aria-labelledby="title facts"><title id="title">{safe}</title><desc id="facts">{html.escape(facts)}</desc>{STYLE}'
        f'<rect width="100%" height="100%" class="page"/><text x="24" y="32" class="title">{safe}</text>'
        f'<text x="24" y="50" class="small">{html.escape(facts)}</text>{"".join(pieces)}{"".join(legend)}</svg>\n'
    )


# -- from boxes to SVG ----------------------------------------------------------------------------


class Picture:
    """The drawing of one network: ``body`` is SVG from (0, 0) to (``width``, ``height``)."""

    def __init__(self, boxes: Sequence[Box], repeats: Mapping[str, int], table: Table) -> None:
        self.boxes, self.repeats, self.table = boxes, repeats, table
        edges = [(source + 1, i + 1) for i, box in enumerate(boxes) for source in box.inputs]
        self.edges = edges
        self.layout: Layout = lay_out([BOX * 0.8, *(box.width for box in boxes)], edges, GAP, THIN)
        read = {source for source, _ in edges}
        self.ends = {i + 1 for i in range(len(boxes)) if i + 1 not in read}
        self.frames = self.frame_ranks()
        self.column = self.fold()
        self.stack()
        self.labels: list[str] = []  # of frames, above the edges
        self.body = self.drawn_frames() + self.drawn_edges() + "".join(self.labels) + self.drawn_boxes()

    def frame_ranks(self) -> dict[str, tuple[int, int, str, list[int]]]:
        """Blocks worth a frame: path -> first rank, last rank, class, nodes."""
        nodes = self.layout.nodes
        kinds = {path: kind for box in self.boxes for path, kind in box.blocks}
        found = {}
        for path, members in group(self.boxes).items():
            inside = {i + 1 for i in members}
            passing = [
                n for route, (a, b) in zip(self.layout.routes, self.edges, strict=True) if a in inside and b in inside for n in route[1:-1]
            ]
            every = [*inside, *passing]
            ranks = [nodes[n].rank for n in every]
            if 1 < len(members) < 0.75 * len(self.boxes) and ("." not in path or kinds[path] not in PLAIN or path in self.repeats):
                found[path] = (min(ranks), max(ranks), kinds[path], every)
        boxes = {path: self.extent(found[path][3]) for path in found}
        clean: dict[str, tuple[int, int, str, list[int]]] = {}
        for path in found:  # outer first: a frame that would cross another one is left out
            others = [p for p in clean if not path.startswith(f"{p}.")]
            first, last, _, members = found[path]
            low, high = boxes[path]
            strangers = any(
                node.item is not None
                and n not in members
                and first <= node.rank <= last
                and low - 12 < node.x + node.width / 2
                and node.x - node.width / 2 < high + 12
                for n, node in enumerate(nodes)
            )
            if not strangers and not any(cross(found[path], boxes[path], found[p], boxes[p]) for p in others):
                clean[path] = found[path]
        return clean

    def extent(self, members: Sequence[int]) -> tuple[float, float]:
        """Left and right edge of some nodes."""
        nodes = self.layout.nodes
        return min(nodes[n].x - nodes[n].width / 2 for n in members), max(nodes[n].x + nodes[n].width / 2 for n in members)

    def heights(self) -> list[float]:
        """Of each rank, with the room for the frames that begin and end there."""
        out = []
        for r, level in enumerate(self.layout.ranks):
            own = max((self.tall(n) for n in level), default=TALL)
            begins = sum(first == r for first, *_ in self.frames.values())
            ends = sum(last == r for _, last, *_ in self.frames.values())
            out.append(own + ROW + 22 * begins + 10 * ends)
        return out

    def fold(self) -> list[int]:
        """Column of each rank: folded only where all goes on from one box of the rank before, best between blocks."""
        heights = self.heights()
        total = sum(heights)
        left, right = self.extent(range(len(self.layout.nodes)))
        columns = max(1, min(6, round(math.sqrt(total / (right - left + 80) / 1.1)))) if total > COLUMN else 1
        spans = [(self.layout.nodes[a].rank, self.layout.nodes[b].rank) for a, b in self.edges]
        before = [sum(heights[:r]) for r in range(len(heights) + 1)]
        cuts: list[tuple[int, int]] = []  # rank that may begin a column, frames that it would cut
        for r in range(2, len(heights)):
            passing = {(a, low) for (a, _), (low, high) in zip(self.edges, spans, strict=True) if low < r <= high}
            inside = sum(first < r <= last for first, last, *_ in self.frames.values())
            if len(passing) == 1 and next(iter(passing))[1] == r - 1 and inside < 2:
                cuts.append((r, inside))
        begins: list[int] = []
        for k in range(1, columns):
            goal = total * k / columns
            best = min(cuts, key=lambda cut: abs(before[cut[0]] - goal) + 150 * cut[1], default=None)
            if best and abs(before[best[0]] - goal) < total / columns / 2 and best[0] not in begins:
                begins.append(best[0])
        return [sum(b <= r for b in begins) for r in range(len(heights))]

    def stack(self) -> None:
        """Give every rank its y, and every column its x."""
        heights = self.heights()
        self.y: list[float] = []
        bottoms: dict[int, float] = {}
        for r, height in enumerate(heights):
            begins = 22 * sum(first == r for first, *_ in self.frames.values())
            begun = bottoms.get(self.column[r], 44.0 if self.column[r] else 0.0)
            self.y.append(begun + begins)
            bottoms[self.column[r]] = begun + height
        self.height = max(bottoms.values()) - ROW / 2
        edges: dict[int, tuple[float, float]] = {}
        depth = 8 + 8 * max((path.count(".") + 1 for path in self.frames), default=0)
        for r, level in enumerate(self.layout.ranks):
            low, high = self.extent(level)
            room = edges.get(self.column[r], (low, high))
            edges[self.column[r]] = (min(low, room[0]), max(high, room[1] + 0.0))
        self.shift, self.gutter, x = {}, {}, 0.0
        for c, (low, high) in sorted(edges.items()):
            self.shift[c], self.gutter[c] = x - low + depth, x - 24
            x += high - low + 2 * depth + 70
        self.width = x - 70 + 40

    def tall(self, n: int) -> float:
        """Height of a node."""
        item = self.layout.nodes[n].item
        return 0.0 if item is None else 28.0 if item == 0 else self.boxes[item - 1].height

    def at(self, n: int) -> tuple[float, float, float]:
        """Centre x, top and bottom of a node; an edge passes along the whole height of a rank."""
        node = self.layout.nodes[n]
        row = max(self.tall(m) for m in self.layout.ranks[node.rank])
        tall = row if node.item is None else self.tall(n)
        middle = self.y[node.rank] + row / 2
        return node.x + self.shift[self.column[node.rank]], middle - tall / 2, middle + tall / 2

    def drawn_frames(self) -> str:
        out = []
        for path, (first, last, kind, members) in self.frames.items():
            depth = sum(path.startswith(f"{other}.") for other in self.frames)
            inner = max((other[len(path) :].count(".") for other in self.frames if other.startswith(f"{path}.")), default=0)
            for c in sorted({self.column[r] for r in range(first, last + 1)}):
                here = [n for n in members if self.column[self.layout.nodes[n].rank] == c]
                low, high = (x + self.shift[c] for x in self.extent(here))
                pad = 12 + 8 * inner
                top = (
                    min(self.y[self.layout.nodes[n].rank] for n in here)
                    - 24
                    - 22 * inner * (any(first == self.layout.nodes[n].rank for n in here) and self.begins_with_inner(path, first))
                )
                bottom = max(self.at(n)[2] + 12 * (n in self.ends) for n in here) + 10 + 8 * inner
                times = f" × {self.repeats[path]}" if path in self.repeats else ""
                name = path if depth == 0 else path.rpartition(".")[2]
                called = kind if name.isdigit() and kind not in PLAIN else name
                label = f'<tspan class="bold">{html.escape(called)}</tspan>' + (
                    f" {html.escape(kind)}" if kind not in (*PLAIN, called) else ""
                )
                more = " (continued)" if c != self.column[first] else f'<tspan class="times">{times}</tspan>'
                wide = max(high - low + 2 * pad, 7.2 * len(f"{called} {kind if kind not in (*PLAIN, called) else ''}{times}") + 14)
                out.append(rectangle(low - pad, top, wide, bottom - top, 8, "frame again" if times else "frame"))
                self.labels.append(words_at(low - pad + 8, top + 15, "small halo", label + more))
        return "".join(out)

    def begins_with_inner(self, path: str, rank: int) -> bool:
        """Whether an inner frame begins at the same rank."""
        return any(other.startswith(f"{path}.") and self.frames[other][0] == rank for other in self.frames)

    def drawn_edges(self) -> str:
        out: list[str] = []
        labels: dict[int, tuple[int, ...]] = {}
        for route, (a, b) in zip(self.layout.routes, self.edges, strict=True):
            places = [self.at(n) for n in route]
            points = [(x, y) for x, top, bottom in places for y in (top, bottom)][1:-1]
            target = self.boxes[b - 1]
            skip = len(route) > 2 and target.kind == "join" and len(self.layout.nodes[a].after) > 1
            columns = [self.column[self.layout.nodes[n].rank] for n in route[:2]]
            way = smooth(points) if columns[0] == columns[1] else self.folded(a, points, columns[1])
            out.append(f'<path d="{way}" class="{"skip" if skip else "edge"}"/><path d="{head(points[-1])}" class="tip"/>')
            shape = self.boxes[b - 1].inputs[a - 1]
            before = {tuple(s) for s in self.boxes[a - 1].inputs.values()} if a else set()
            if a and before != {shape}:
                labels[a] = shape
        for a, shape in labels.items():
            x, _, bottom = self.at(a)
            out.append(words_at(x + 7, bottom + 14, "shape", shape_text(shape)))
        return "".join(out)

    def folded(self, source: int, points: Sequence[tuple[float, float]], column: int) -> str:
        """Down, up through the gutter, into the next column from above, where all edges of the source part."""
        (x, y), rest = points[0], points[1:]
        across = [n for n in self.layout.nodes[source].after if self.column[self.layout.nodes[n].rank] == column]
        middle = sum(self.at(n)[0] for n in across) / len(across)
        gutter, down = self.gutter[column], y + 26
        high = min(self.y[r] for r, c in enumerate(self.column) if c == column) - 22.0 * self.depth_at(across[0]) - 20
        corners = [(x, down), (gutter, down), (gutter, high), (middle, high)]
        return bent([(x, y), *corners, (middle, high + 8)], 8) + smooth([(middle, high + 8), *rest]).replace("M", "L", 1)

    def depth_at(self, n: int) -> int:
        """Frames that begin at a node's rank."""
        return sum(first == self.layout.nodes[n].rank for first, *_ in self.frames.values())

    def drawn_boxes(self) -> str:
        x, top, bottom = self.at(0)
        out = [rectangle(x - 66, top, 132, bottom - top, 14, "input")]
        out.append(words_at(x, top + 18, "label middle", f"input {shape_text(self.table.input)}"))
        for i, box in enumerate(self.boxes):
            x, top, bottom = self.at(i + 1)
            out.append(f"<g><title>{html.escape(self.facts(box))}</title>")
            if box.height == JOIN:
                after = f' <tspan class="small">{html.escape(" ".join(box.extra))}</tspan>' if box.extra else ""
                out.append(rectangle(x - box.width / 2, top + 2, box.width, JOIN - 4, 13, "join"))
                out.append(words_at(x, (top + bottom) / 2 + 5, "sign middle", box.title + after))
            else:
                second = " · ".join(box.extra if box.kind == "block" else dict.fromkeys(box.extra))
                out.append(rectangle(x - BOX / 2, top, BOX, TALL, 6, box.kind))
                out.append(words_at(x, top + (17 if second else 25), "label middle", html.escape(cut(box.title, 26))))
                out.append(words_at(x, top + 32, "small middle", html.escape(cut(second, 30))) if second else "")
            if i + 1 in self.ends:
                out.append(words_at(x, bottom + 15, "shape middle", shape_text(box.output)))
            out.append("</g>")
        return "".join(out)

    def facts(self, box: Box) -> str:
        """What pointing at a box tells."""
        parts = [box.row.name, f"output {shape_text(box.output)}"]
        parts += [f"{box.parameters:,} parameters"] if box.parameters else []
        parts += [f"{count(box.macs)} multiply-adds"] if box.macs else []
        last = self.table.rows[box.rows[-1]]
        if last.field and None not in last.field:
            parts.append("sees the whole image" if last.whole else f"sees {'×'.join(map(str, last.field))} pixels")
        return ", ".join(parts)


def cross(a: tuple[int, int, str, list[int]], x: tuple[float, float], b: tuple[int, int, str, list[int]], y: tuple[float, float]) -> bool:
    """Whether two frames would overlap."""
    return a[0] <= b[1] and b[0] <= a[1] and x[0] < y[1] + 24 and y[0] < x[1] + 24


def smooth(points: Sequence[tuple[float, float]]) -> str:
    """A path that leaves and arrives vertically."""
    way = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x, y), (u, v) in pairwise(points):
        if abs(x - u) < 0.6:
            way.append(f"L{u:.1f},{v:.1f}")
        else:
            way.append(f"C{x:.1f},{(y + v) / 2:.1f} {u:.1f},{(y + v) / 2:.1f} {u:.1f},{v:.1f}")
    return "".join(way)


def bent(points: Sequence[tuple[float, float]], radius: float) -> str:
    """A path of straight pieces with round corners."""
    way = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x, y), (u, v), (s, t) in zip(points, points[1:], points[2:], strict=False):
        before, after = math.hypot(u - x, v - y) or 1.0, math.hypot(s - u, t - v) or 1.0
        a, b = min(radius, before) / before, min(radius, after) / after
        way.append(f"L{u - (u - x) * a:.1f},{v - (v - y) * a:.1f}Q{u:.1f},{v:.1f} {u + (s - u) * b:.1f},{v + (t - v) * b:.1f}")
    return "".join(way) + f"L{points[-1][0]:.1f},{points[-1][1]:.1f}"


def rectangle(x: float, y: float, width: float, height: float, radius: float, kind: str) -> str:
    """A rounded rectangle of a class."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" class="{kind}"/>'


def words_at(x: float, y: float, kind: str, words: str) -> str:
    """Text of a class; ``words`` are markup."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{words}</text>'


def head(point: tuple[float, float]) -> str:
    """An arrow head that ends at a point from above."""
    x, y = point
    return f"M{x - 4:.1f},{y - 7:.1f}L{x:.1f},{y:.1f}L{x + 4:.1f},{y - 7:.1f}Z"


def cut(text: str, most: int) -> str:
    """So that it fits."""
    return text if len(text) <= most else text[: most - 1] + "…"


def shape_text(shape: Sequence[int]) -> str:
    """64×56×56, without the batch."""
    return "×".join(map(str, shape[1:] if len(shape) > 1 else shape))


def count(number: int) -> str:
    """11.7 M."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return str(number)


def style() -> str:
    """Colours by kind: fill and line in light, then in dark."""
    colours = {
        "conv": ("#dbe9fe", "#3b78d8", "#1b2f4d", "#6ea8ff"), "depth": ("#d7f3f5", "#1f8f9a", "#12363b", "#54c5d0"),
        "dense": ("#eadffb", "#7b4fc9", "#2e2148", "#b594f5"), "pool": ("#fdebd0", "#c77d14", "#41300f", "#eab15a"),
        "up": ("#dcf3de", "#3b9150", "#173620", "#6fcf86"), "join": ("#eceff3", "#6b7480", "#2b3139", "#a7b0bb"),
        "attend": ("#fde0ea", "#c2407a", "#441a2c", "#f08ab4"), "block": ("#e3e8f7", "#4a5ea8", "#222a45", "#93a4e8"),
        "other": ("#f1f3f5", "#868e96", "#262a2f", "#9aa3ad"), "input": ("#ffffff", "#6b7480", "#1d2126", "#a7b0bb"),
        "frame": ("#f7f8fa", "#d4d9e0", "#1a1d22", "#3a414b"), "page": ("#ffffff", "none", "#14171b", "none"),
    }  # fmt: skip
    light = "".join(f".{kind}{{fill:{c[0]};stroke:{c[1]}}}" for kind, c in colours.items())
    dark = "".join(f".{kind}{{fill:{c[2]};stroke:{c[3]}}}" for kind, c in colours.items())
    return (
        "<style>text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px;fill:#1f2328}"
        ".title{font-size:20px;font-weight:600}.part{font-size:15px;font-weight:600}.label{font-weight:500}.small,.shape{font-size:11px;fill:#59636e}"
        ".shape,.halo{paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}.halo{stroke:#f7f8fa}.shape{font-variant-numeric:tabular-nums}.bold,.times{font-weight:600;fill:#1f2328}.times{fill:#b3261e}.sign{font-size:16px}"
        ".middle{text-anchor:middle}.edge,.skip{fill:none;stroke:#8c959f;stroke-width:1.4}.skip{stroke:#d1495b;stroke-width:1.8}"
        f".tip{{fill:#8c959f;stroke:none}}{light}.again{{stroke:#b3261e;stroke-dasharray:5 3}}"
        f"@media (prefers-color-scheme:dark){{text,.bold{{fill:#e6edf3}}.small,.shape{{fill:#9aa4af}}.times{{fill:#ff8f87}}{dark}"
        ".again{stroke:#ff8f87}.edge{stroke:#7d8590}.tip{fill:#7d8590}.skip{stroke:#ff7b8a}.shape{stroke:#14171b}.halo{stroke:#1a1d22}}</style>"
    )


STYLE = style()
