"""Boosting on features: small trees one after the other, each on the images that those before it got wrong.

Papers: Freund, Schapire: A Decision-Theoretic Generalization of On-Line Learning and an Application to Boosting (Journal of Computer
and System Sciences, 1997): AdaBoost. New was that the weight of each weak classifier and of each image follow from its error alone,
and that the training error falls exponentially. Zhu, Zou, Rosset, Hastie: Multi-class AdaBoost (Statistics and Its Interface, 2009):
with log(P - 1) added to the weight (SAMME) it works for P classes as soon as weak classifiers beat chance; for two it is AdaBoost.

Where it is: the rounds in :meth:`Boosting.fit_machine`, the walk in :mod:`saccade.models.classify.trees`; features and the scores (a
softmax of the decisions with one fitted scale) in :mod:`saccade.models.classify.classical`.

Deviations: a node of a weak tree chooses from a random share of the features unless ``max_features="all"``, which is many times
faster on thousands of them; trees may be deeper than the paper's stumps (``depth=1``). AdaBoost was chosen over gradient boosting for
being the textbook's, and for learning one tree a round whatever the number of classes.

Facts under test (CANON F9): decisions equal scikit-learn's AdaBoostClassifier.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from saccade.models.bounds import check_within
from saccade.models.classify.classical import RECIPE, MarginClassifier
from saccade.models.classify.trees import Trees
from saccade.types.errors import UsageError

RECIPES = {"boosting": RECIPE}


class Boosting(MarginClassifier):
    """``trees`` holds the weak classifiers; a leaf's value is its vote: weight for its class, - weight / (P - 1) for the others,
    weights summing to 1.
    """

    fitted_buffers = (*MarginClassifier.fitted_buffers, *(f"trees.{name}" for name in Trees.names))

    def __init__(
        self,
        num_classes: int,
        features: str,
        *,
        in_chans: int,
        pretrained: bool,
        rounds: int,
        depth: int,
        rate: float,
        max_features: Literal["sqrt", "log2", "all"],
    ) -> None:
        check_within(1, 10_000, rounds=rounds)
        check_within(1, 64, depth=depth)
        if not 0 < rate <= 10:
            raise UsageError(f"model.rate is above 0 and at most 10, not {rate}")
        super().__init__(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=False)
        self.rounds, self.depth, self.rate, self.max_features = rounds, depth, rate, max_features
        self.trees = Trees()

    def fit_machine(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int) -> dict[str, float]:
        """Boost scikit-learn's trees and keep their arrays."""
        from sklearn.ensemble import AdaBoostClassifier
        from sklearn.tree import DecisionTreeClassifier

        choice = None if self.max_features == "all" else self.max_features
        weak = DecisionTreeClassifier(max_depth=self.depth, max_features=choice)
        boosted = AdaBoostClassifier(weak, n_estimators=self.rounds, learning_rate=self.rate, random_state=seed % 2**32)
        try:
            boosted.fit(x, y, sample_weight=weight)
        except ValueError as error:
            if "worse than random" not in str(error):
                raise
            raise UsageError(
                "boosting: the first tree is no better than chance; try other model.features or a larger model.depth"
            ) from None
        trees = [estimator.tree_ for estimator in boosted.estimators_]
        weights = boosted.estimator_weights_[: len(trees)]
        classes = len(self.present)
        votes = np.eye(classes) * (1 + 1 / (classes - 1)) - 1 / (classes - 1)
        self.trees.pack(
            trees, [share * votes[tree.value[:, 0].argmax(1)] for share, tree in zip(weights / weights.sum(), trees, strict=True)]
        )
        return {"trees": float(len(trees)), "nodes": float(len(self.trees.feature))}

    def decisions(self, x: Tensor) -> Tensor:
        """(N, D) float32 to (N, P) float64: the weighted votes."""
        return self.trees(x)


def boosting(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    features: str = "hog",
    rounds: int = 200,
    depth: int = 6,
    rate: float = 1.0,
    max_features: Literal["sqrt", "log2", "all"] = "sqrt",
) -> Boosting:
    """AdaBoost on features.

    Args:
        num_classes: classes of the data.
        in_chans: 3 colour, 1 grey.
        pretrained: load the published weights of features ``timm/NAME``.
        features: hog, sift_bow, lbp, color, pixels or timm/NAME, with options (``lbp?grid=8``).
        rounds: trees, at most; fewer when one makes no error.
        depth: of a tree.
        rate: factor on the trees' weights.
        max_features: how many of the D features a node chooses from.

    Raises:
        UsageError: an option that cannot be.
    """
    return Boosting(
        num_classes, features, in_chans=in_chans, pretrained=pretrained, rounds=rounds, depth=depth, rate=rate, max_features=max_features
    )
