"""Decision trees as plain arrays: what forests and boosting of scikit-learn learn, without scikit-learn to read it back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

ROWS = 256
"""Images that walk through the trees at once: bounds the memory."""


class Trees(nn.Module):
    """T binary trees of M nodes in all.

    Buffers: ``roots`` (T,) int32 nodes; of each node ``feature`` (M,) int32, which is compared, -1 for a leaf; ``threshold`` (M,)
    float64; ``branches`` (M, 2) int32, the node for ``x <= threshold`` and the other, a leaf's itself; ``value`` (M, P) float64,
    zero but for leaves.
    """

    names: ClassVar[tuple[str, ...]] = ("roots", "feature", "threshold", "branches", "value")

    def __init__(self) -> None:
        super().__init__()
        self.roots: Tensor
        self.feature: Tensor
        self.threshold: Tensor
        self.branches: Tensor
        self.value: Tensor
        self.register_buffer("roots", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("feature", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("branches", torch.zeros(0, 2, dtype=torch.int32))
        self.register_buffer("value", torch.zeros(0, 0, dtype=torch.float64))

    def pack(self, trees: Sequence[Any], values: Sequence[np.ndarray]) -> None:
        """Take over scikit-learn's trees (``estimator.tree_``) with a value (nodes, P) for every node; only leaves keep theirs."""
        device = self.roots.device
        sizes = [tree.node_count for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.names[1:]}
        for root, size, tree, value in zip(roots, sizes, trees, values, strict=True):
            leaf = tree.children_left < 0
            itself = np.arange(size)
            both = np.stack([np.where(leaf, itself, tree.children_left), np.where(leaf, itself, tree.children_right)], 1)
            parts["feature"].append(np.where(leaf, -1, tree.feature).astype(np.int32))
            parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
            parts["branches"].append((both + root).astype(np.int32))
            parts["value"].append(np.where(leaf[:, None], value, 0.0))
        self.roots = torch.from_numpy(roots.astype(np.int32)).to(device)
        for name, arrays in parts.items():
            setattr(self, name, torch.from_numpy(np.concatenate(arrays)).to(device))

    def leaves(self, x: Tensor) -> Tensor:
        """(N, D) float32 to the leaf (N, T) int64 that each row reaches in each tree."""
        feature, branches = self.feature.long(), self.branches.long()
        node = self.roots.long().expand(len(x), -1)
        for _ in range(len(feature)):  # a tree is no deeper than its nodes; most walks end long before
            asked = feature[node]
            if bool((asked < 0).all()):
                break
            right = x.gather(1, asked.clamp_min(0)).double() > self.threshold[node]
            node = branches[node, right.long()]
        return node

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) float32 to (N, P) float64: the sum of the trees' values."""
        return torch.cat([self.value[self.leaves(rows)].sum(1) for rows in x.split(ROWS)])
