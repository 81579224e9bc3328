"""The word tree of YOLO9000 (CANON C22): classes as nodes, a soft-max over each set of siblings, products along the path.

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (arXiv 1612.08242), section 4: Pr(node) = Pr(node | parent) Pr(parent | grandparent) ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saccade.models.darknet.cfg import check_regular
from saccade.types.errors import DataError

MOST_NODES, MOST_LEVELS = 1 << 20, 256


class WordTree:
    """A tree over classes.

    Attributes:
        names: of the nodes. parent: (K,) int64, -1 at a root; a parent comes before its children.
        group: (K,) int64, which set of siblings a node is in; siblings stand together. sizes: of the sets.
        depth: (K,) int64, 0 at a root. leaf: (K,) bool.
    """

    def __init__(self, names: Sequence[str], parent: Sequence[int], path: str | Path = "tree") -> None:
        self.names, self.parent = list(names), np.asarray(parent, dtype=np.int64)
        if not len(self.parent):
            raise DataError(path, "has no nodes: a word tree has a name and the number of its parent on each line")
        for k, p in enumerate(self.parent.tolist()):
            if not -1 <= p < k:
                raise DataError(path, f"the parent {p} of {self.names[k]!r} is not an earlier node", where=f"line {k + 1}")
        starts = np.flatnonzero(np.diff(self.parent, prepend=-2))
        if len(np.unique(self.parent[starts])) < len(starts):
            seen, again = np.unique(self.parent[starts], return_counts=True)
            raise DataError(path, f"the children of node {seen[again > 1][0]} do not stand together")
        self.sizes = np.diff(starts, append=len(self.parent)).tolist()
        self.group = np.repeat(np.arange(len(starts)), self.sizes)
        self.leaf = ~np.isin(np.arange(len(self.parent)), self.parent)
        self.depth = np.zeros(len(self.parent), dtype=np.int64)
        for k, p in enumerate(self.parent.tolist()):
            self.depth[k] = 0 if p < 0 else self.depth[p] + 1
        if self.depth.max() >= MOST_LEVELS:
            raise DataError(path, f"is more than {MOST_LEVELS} nodes deep", where=f"line {self.depth.argmax() + 1}")
        self._group = torch.from_numpy(self.group)
        self._levels = [torch.from_numpy(np.flatnonzero(self.depth == d)) for d in range(1, int(self.depth.max()) + 1)]
        self._parent = torch.from_numpy(self.parent)
        self._child_group = np.full(len(self.parent), -1)  # the set of a node's children
        self._child_group[self.parent[starts[self.parent[starts] >= 0]]] = np.flatnonzero(self.parent[starts] >= 0)
        self._starts = starts

    def __len__(self) -> int:
        return len(self.names)

    def softmax(self, logits: Tensor) -> Tensor:
        """(..., K) logits to conditional probabilities: a soft-max over each set of siblings."""
        return self.log_softmax(logits).exp()

    def log_softmax(self, logits: Tensor) -> Tensor:
        """The logarithm of :meth:`softmax`, finite for any logits, with their gradient."""
        group = self._group.to(logits.device).expand(logits.shape)
        shape = (*logits.shape[:-1], len(self.sizes))
        most = logits.new_full(shape, -torch.inf).scatter_reduce(-1, group, logits.detach(), "amax")
        shifted = logits - most.gather(-1, group)
        return shifted - logits.new_zeros(shape).scatter_add(-1, group, shifted.exp()).log().gather(-1, group)

    def absolute(self, conditional: Tensor) -> Tensor:
        """(..., K) conditional probabilities to those of the nodes: the product along the path from the root."""
        out = conditional.clone()
        for level in self._levels:
            level = level.to(out.device)
            out[..., level] = out[..., level] * out[..., self._parent.to(out.device)[level]]
        return out

    def descend(self, absolute: Tensor, threshold: float) -> Tensor:
        """(..., K) absolute probabilities to (...) int64 nodes: from the root to the most probable child while above ``threshold``.

        As Darknet does it: the threshold is held against the product of the absolute probabilities met so far, which is stricter than
        the paper's own absolute probability; at the top level the best root is taken whatever its probability.
        """
        flat = absolute.detach().reshape(-1, len(self)).cpu().numpy()
        rows = np.arange(len(flat))
        chosen = np.zeros(len(flat), dtype=np.int64)
        group = np.zeros(len(flat), dtype=np.int64)
        reached = np.ones(len(flat))
        going = np.ones(len(flat), dtype=bool)
        while going.any():
            for g in np.unique(group[going]):
                mine = rows[going & (group == g)]
                start, size = self._starts[g], self.sizes[g]
                best = flat[mine, start : start + size].argmax(1) + start
                product = reached[mine] * flat[mine, best]
                enough = product > threshold
                first = g == 0
                chosen[mine] = np.where(enough | first, best, self.parent[start])
                reached[mine] = product
                group[mine] = self._child_group[best]
                going[mine] = enough & (group[mine] >= 0)
        return torch.from_numpy(chosen.reshape(absolute.shape[:-1])).to(absolute.device)

    def ancestors(self, node: int) -> list[int]:
        """The path from a node to its root, the node first."""
        path = [node]
        while self.parent[path[-1]] >= 0:
            path.append(int(self.parent[path[-1]]))
        return path


def read_tree(path: str | Path) -> WordTree:
    """Darknet's ``.tree``: a name and its parent's number (from 0; -1 for a root) a line.

    Raises:
        DataError: a line that is not that, a parent that comes later, siblings apart.
    """
    return parse_tree(_text(Path(path)), path)


def parse_tree(text: str, path: str | Path = "tree") -> WordTree:
    """The tree of such a file's text; ``path`` names it in errors."""
    names, parent = [], []
    for number, line in enumerate(text.splitlines()[:MOST_NODES], 1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 2 or not re.fullmatch(r"-?\d{1,8}", parts[1]):
            raise DataError(path, f"{line[:60]!r} is no name and number of the parent", where=f"line {number}")
        names.append(parts[0])
        parent.append(int(parts[1]))
    return WordTree(names, parent, path)


def read_names(path: str | Path) -> list[str]:
    """Class names, one a line, as ``coco.names``."""
    return [line.strip() for line in _text(Path(path)).splitlines() if line.strip()]


def _text(path: Path) -> str:
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
