"""A random forest on features: many trees, each grown on its own sample of the images, vote.

Paper: Breiman: Random Forests (Machine Learning, 2001). New was to add to bagging a random choice of features at every node: the
trees err apart, and the mean of many errs less, without overfitting as trees are added.

Where it is: the growing in :meth:`RandomForest.learn`, the walk in :mod:`saccade.models.classify.trees`; features in
:mod:`saccade.models.classify.classical`.

Deviations: scikit-learn's: the trees' class shares are averaged in place of their votes. Features are not standardised: the order of
their values is all that a tree sees.

Facts under test (CANON F9): scores equal scikit-learn's RandomForestClassifier.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from saccade.models.bounds import check_within
from saccade.models.classify.classical import RECIPE, FeatureClassifier, Held
from saccade.models.classify.trees import Trees
from saccade.types.machine import usable_cores

RECIPES = {"random_forest": RECIPE}


class RandomForest(FeatureClassifier):
    """``forest`` holds the forest; a leaf's value is its shares of the classes divided by the number of trees."""

    fitted_buffers = (*FeatureClassifier.fitted_buffers, *(f"forest.{name}" for name in Trees.names))

    def __init__(
        self,
        num_classes: int,
        features: str,
        *,
        in_chans: int,
        pretrained: bool,
        trees: int,
        depth: int | None,
        min_leaf: int,
        max_features: Literal["sqrt", "log2", "all"],
    ) -> None:
        check_within(1, 10_000, trees=trees, depth=depth, min_leaf=min_leaf)
        super().__init__(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=False)
        self.count, self.depth, self.min_leaf, self.max_features = trees, depth, min_leaf, max_features
        self.forest = Trees()

    def learn(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, held: Held | None, seed: int) -> dict[str, float]:
        """Grow scikit-learn's forest on all cores and keep its arrays."""
        from sklearn.ensemble import RandomForestClassifier

        grown = RandomForestClassifier(
            self.count,
            max_depth=self.depth,
            min_samples_leaf=self.min_leaf,
            max_features=None if self.max_features == "all" else self.max_features,
            n_jobs=usable_cores(),
            random_state=seed % 2**32,
        ).fit(x, y, sample_weight=weight)
        trees = [estimator.tree_ for estimator in grown.estimators_]
        self.forest.pack(trees, [tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True) / self.count for tree in trees])
        return {"nodes": float(len(self.forest.feature)), "deepest": float(max(tree.max_depth for tree in trees))}

    def log_probabilities(self, x: Tensor) -> Tensor:
        """Logarithms of the mean shares of the reached leaves, (N, P)."""
        return self.forest(x).log()


def random_forest(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    features: str = "hog",
    trees: int = 200,
    depth: int | None = None,
    min_leaf: int = 1,
    max_features: Literal["sqrt", "log2", "all"] = "sqrt",
) -> RandomForest:
    """A random forest on features.

    Args:
        num_classes: classes of the data.
        in_chans: 3 colour, 1 grey.
        pretrained: load the published weights of features ``timm/NAME``.
        features: hog, sift_bow, lbp, color, pixels or timm/NAME, with options (``lbp?grid=8``).
        trees: how many.
        depth: of a tree at most; None grows until leaves are pure.
        min_leaf: training images in a leaf, at least.
        max_features: how many of the D features a node chooses from.

    Raises:
        UsageError: an option that cannot be.
    """
    return RandomForest(
        num_classes, features, in_chans=in_chans, pretrained=pretrained, trees=trees, depth=depth, min_leaf=min_leaf,
        max_features=max_features,
    )  # fmt: skip
