"""What a successor changed: two networks' layers aligned, the totals beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saccade.explain.shape import LayerRow, Table

GAP = 1.0
"""Cost of a layer that only one network has."""
COMPARED = ("channels", "kernel", "stride", "padding", "dilation", "groups")


@dataclass(frozen=True)
class Change:
    """A layer that differs: ``before`` is None where it was added, ``after`` where it was removed; ``what`` says how it changed."""

    kind: Literal["added", "removed", "changed"]
    before: LayerRow | None
    after: LayerRow | None
    what: dict[str, tuple[Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "before": self.before.to_dict() if self.before else None,
            "after": self.after.to_dict() if self.after else None,
            "what": {key: list(pair) for key, pair in self.what.items()},
        }


def features(row: LayerRow) -> dict[str, Any]:
    """What makes a layer this layer, apart from the size of the image."""
    channels = row.output[1] if len(row.output) > 1 else None
    return {"type": row.type, "channels": channels} | {name: getattr(row, name) for name in COMPARED[1:]}


def diff(a: Sequence[LayerRow], b: Sequence[LayerRow]) -> list[Change]:
    """Layers added, removed and changed from network a to network b, in order.

    The alignment of least cost (Needleman, Wunsch 1970): a layer of one side costs 1, a pair of the same type a part of that for each
    property in which they differ; layers of unlike types are never paired.
    """
    left, right = [features(row) for row in a], [features(row) for row in b]
    keys: dict[tuple[Any, ...], int] = {}
    codes = [[keys.setdefault(tuple(f.values()), len(keys)) for f in side] for side in (left, right)]
    ends = [[row.name.rpartition(".")[2] for row in side] for side in (a, b)]
    prices: dict[tuple[int, int], float] = {}

    def price(i: int, j: int) -> float:
        pair = (codes[0][i], codes[1][j])
        if pair not in prices:
            x, y = left[i], right[j]
            # two gaps cost 2: a pair of one type is at most 1.8, however little it has in common
            prices[pair] = 3.0 if x["type"] != y["type"] else 1.8 * (sum(x[k] != y[k] for k in COMPARED) / len(COMPARED)) ** 0.5
        # of alignments that cost the same, the one that keeps blocks together
        return prices[pair] + 0.002 * (a[i].name != b[j].name) + 0.002 * (ends[0][i] != ends[1][j])

    n, m = len(left), len(right)
    cost = [[0.0] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        for j in range(m + 1):
            if i and j:
                cost[i][j] = min(cost[i - 1][j - 1] + price(i - 1, j - 1), cost[i - 1][j] + GAP, cost[i][j - 1] + GAP)
            else:
                cost[i][j] = (i + j) * GAP
    changes: list[Change] = []
    i, j = n, m
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + price(i - 1, j - 1):
            i, j = i - 1, j - 1
            what = {k: (left[i][k], right[j][k]) for k in COMPARED if left[i][k] != right[j][k]}
            if set(what) - {"channels"} or (what and a[i].parameters + b[j].parameters):  # what only passes channels on did not change
                changes.append(Change("changed", a[i], b[j], what))
        elif j and cost[i][j] == cost[i][j - 1] + GAP:
            j -= 1
            changes.append(Change("added", None, b[j], {}))
        else:
            i -= 1
            changes.append(Change("removed", a[i], None, {}))
    return changes[::-1]


def totals(table: Table) -> dict[str, Any]:
    """The numbers of a network that are compared: parameters, multiply-adds, layers with weights, field and jump of the last map."""
    maps = [row for row in table.rows if row.jump and None not in row.jump and not row.whole]
    last = maps[-1] if maps else None
    return {
        "input": "x".join(map(str, table.input[1:])),
        "parameters": table.parameters,
        "macs": table.macs,
        "layers with weights": sum(row.macs > 0 for row in table.rows),
        "field of the last map": last.field[0] if last else None,
        "jump of the last map": last.jump[0] if last else None,
    }
