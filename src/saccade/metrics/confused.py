"""The classes that are taken for one another most, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def confused_pairs(confusion: np.ndarray, classes: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """The pairs of classes with the most confusions, both directions together, most first; none with zero.

    Each has ``truth``, ``predicted``, ``count`` of ``of`` (all of that truth), and the other direction, which is the rarer:
    ``reverse`` of ``reverse_of``.

    Args:
        confusion: (K, K) counts: rows are the truth, columns the prediction.
        classes: names by label.
        most: how many pairs at most.

    >>> confused_pairs(np.array([[8, 0, 2], [0, 9, 0], [1, 0, 5]]), ["cat", "bird", "dog"])
    [{'truth': 'cat', 'predicted': 'dog', 'count': 2, 'of': 10, 'reverse': 1, 'reverse_of': 6}]
    """
    confusion = np.asarray(confusion)
    total = confusion.sum(1)
    first, second = np.nonzero(np.triu(confusion + confusion.T, 1))
    order = np.argsort(-(confusion[first, second] + confusion[second, first]), kind="stable")[:most]
    out = []
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if confusion[b, a] > confusion[a, b]:
            a, b = b, a
        one = {"truth": classes[a], "predicted": classes[b], "count": int(confusion[a, b]), "of": int(total[a])}
        out.append(one | {"reverse": int(confusion[b, a]), "reverse_of": int(total[b])})
    return out
