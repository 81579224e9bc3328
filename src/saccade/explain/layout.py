"""Where the nodes of a directed acyclic graph stand: rank by longest path, order by barycentre, straight lines where it goes.

Sugiyama, Tagawa, Toda: Methods for Visual Understanding of Hierarchical System Structures, 1981. An edge over several ranks passes through
a thin node of its own in each; positions along a rank are the least squares fit to the neighbours' (isotonic regression), in which
thick nodes weigh more, so that main paths stay straight and skips go around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 8
LIGHT, HEAVY = 0.02, 1.0
"""Pull of an edge beside the main paths, and on them."""


@dataclass
class Node:
    """A box, or (``item`` None) the passage of a long edge through a rank."""

    item: int | None
    width: float
    rank: int
    x: float = 0.0  # of its centre
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


@dataclass
class Layout:
    """Nodes (those of the items first, in their order), ranks of node numbers from left to right, and of each edge its nodes on the way."""

    nodes: list[Node]
    ranks: list[list[int]]
    routes: list[list[int]]


def lay_out(widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float, thin: float) -> Layout:
    """Place items of some widths; edges go from lower to higher numbers.

    Args:
        gap: least space between neighbours. thin: width that a passing edge takes.
    """
    rank = [0] * len(widths)
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        rank[b] = max(rank[b], rank[a] + 1)
    nodes = [Node(i, width, rank[i]) for i, width in enumerate(widths)]
    routes = []
    for a, b in edges:
        route = [a]
        for level in range(rank[a] + 1, rank[b]):
            nodes.append(Node(None, thin, level))
            route.append(len(nodes) - 1)
        route.append(b)
        for x, y in pairwise(route):
            nodes[x].after.append(y)
            nodes[y].before.append(x)
        routes.append(route)
    ranks: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    for number, node in enumerate(nodes):
        ranks[node.rank].append(number)
    order(nodes, ranks)
    place(nodes, ranks, routes, gap)
    return Layout(nodes, ranks, routes)


def order(nodes: list[Node], ranks: list[list[int]]) -> None:
    """Sort each rank by the mean place of its neighbours, a few times in both directions; keep the order with the fewest crossings."""
    best, fewest = [list(r) for r in ranks], crossings(nodes, ranks)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for level in ranks if down else reversed(ranks):
            places = {n: i for r in ranks for i, n in enumerate(r)}
            sizes = {n: len(r) for r in ranks for n in r}

            def mean(n: int) -> tuple[float, bool]:
                near = nodes[n].before if down else nodes[n].after  # noqa: B023
                value = sum((places[m] + 0.5) / sizes[m] for m in near) / len(near) if near else (places[n] + 0.5) / sizes[n]  # noqa: B023
                return round(value, 6), nodes[n].item is None  # passing edges to the right

            level.sort(key=mean)
        count = crossings(nodes, ranks)
        if count < fewest:
            best, fewest = [list(r) for r in ranks], count
        if fewest == 0:
            break
    for level, kept in zip(ranks, best, strict=True):
        level[:] = kept


def crossings(nodes: list[Node], ranks: list[list[int]]) -> int:
    """Pairs of edges between neighbouring ranks that cross."""
    total = 0
    for upper, lower in pairwise(ranks):
        places = {n: i for i, n in enumerate(lower)}
        ends = [places[m] for n in upper for m in sorted(nodes[n].after, key=lambda m: places[m])]
        total += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return total


def place(nodes: list[Node], ranks: list[list[int]], routes: list[list[int]], gap: float) -> None:
    """Centres along each rank."""
    side = bypassing(nodes)
    chain = {n: route[1:-1] for route in routes for n in route[1:-1]}
    for sweep in range(4 * SWEEPS):
        for level in ranks if sweep % 2 == 0 else list(reversed(ranks)):
            wanted = []
            for n in level:
                node = nodes[n]
                if node.item is None:  # one line for the whole passage
                    wanted.append(sum(nodes[m].x for m in chain[n]) / len(chain[n]))
                    continue
                pulls = [(nodes[m].x, LIGHT if m in side or n in side else HEAVY) for m in (*node.before, *node.after)]
                weight = sum(w for _, w in pulls)
                wanted.append(sum(x * w for x, w in pulls) / weight if weight else node.x)
            spread(nodes, level, wanted, gap, side)
    straighten(nodes, ranks, side, gap / 2)
    left = min((node.x - node.width / 2 for node in nodes), default=0.0)
    for node in nodes:
        node.x -= left


def straighten(nodes: list[Node], ranks: list[list[int]], side: set[int], tolerance: float) -> None:
    """Put nearly vertical lines upright: main paths, and passages."""
    line: dict[int, list[int]] = {}
    for level in ranks:
        for n in level:
            line[n] = [n]
            near = [m for m in nodes[n].before if (m in side) == (n in side) and line[m][-1] == m]
            offsets = {m: abs(sum(nodes[k].x for k in line[m]) / len(line[m]) - nodes[n].x) for m in near}
            best = min(offsets, key=offsets.__getitem__, default=None)
            if best is not None and offsets[best] < tolerance:
                line[best].append(n)
                line[n] = line[best]
    for members in line.values():
        mean = sum(nodes[n].x for n in members) / len(members)
        for n in members:
            nodes[n].x = mean


def bypassing(nodes: list[Node]) -> set[int]:
    """Nodes beside the main paths: passages, and what leads only to passages or comes only from them."""
    side = {n for n, node in enumerate(nodes) if node.item is None}
    order = sorted(range(len(nodes)), key=lambda n: nodes[n].rank)
    for numbers, ends in ((order[::-1], "after"), (order, "before")):
        for n in numbers:
            near = getattr(nodes[n], ends)
            if near and all(m in side for m in near):
                side.add(n)
    return side


def spread(nodes: list[Node], level: list[int], wanted: list[float], gap: float, side: set[int]) -> None:
    """The positions nearest to the wanted ones that keep order and distance (pool adjacent violators)."""
    offsets = [0.0]
    for a, b in pairwise(level):
        offsets.append(offsets[-1] + (nodes[a].width + nodes[b].width) / 2 + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for n, want, offset in zip(level, wanted, offsets, strict=True):
        mean, weight, count = want - offset, LIGHT if n in side else HEAVY, 1
        while blocks and blocks[-1][0] > mean:
            m, w, c = blocks.pop()
            mean, weight, count = (mean * weight + m * w) / (weight + w), weight + w, count + c
        blocks.append((mean, weight, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for n, mean, offset in zip(level, means, offsets, strict=True):
        nodes[n].x = mean + offset
