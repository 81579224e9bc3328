"""k nearest neighbours: the training images nearest in feature space vote.

Paper: Cover, Hart: Nearest Neighbor Pattern Classification (IEEE Transactions on Information Theory, 1967). New was the proof that
with ever more images the error of the one nearest neighbour is at most twice the least possible. There is nothing to learn: the
training features are the model.

Where it is: :meth:`KNN.neighbours` and :meth:`KNN.log_probabilities`; features and their standardisation in
:mod:`saccade.models.classify.classical`.

Deviations: more metrics than one; votes may weigh by distance and by class. Neighbours are found by brute force, as
scikit-learn's ``algorithm="brute"``; among equal distances the earlier training image is nearer.

Facts under test (CANON F9): scores equal scikit-learn's KNeighborsClassifier.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.models.classify.classical import RECIPE, FeatureClassifier, Held
from saccade.types.errors import UsageError

RECIPES = {"knn": RECIPE}

Metric = Literal["euclidean", "manhattan", "cosine"]


class KNN(FeatureClassifier):
    """Buffers: ``memory`` (N, D) float32 features, of unit length for "cosine"; ``labels`` (N,) int64 0..P-1; ``class_votes`` (P,)."""

    fitted_buffers = (*FeatureClassifier.fitted_buffers, "memory", "labels", "class_votes")

    def __init__(
        self,
        num_classes: int,
        features: str,
        *,
        in_chans: int,
        pretrained: bool,
        standardize: bool | None,
        k: int,
        metric: Metric,
        vote: Literal["uniform", "distance"],
    ) -> None:
        if k < 1:
            raise UsageError(f"model.k is at least 1, not {k}")
        super().__init__(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=standardize)
        self.k, self.vote = k, vote
        self.metric: Metric = metric
        self.memory: Tensor
        self.labels: Tensor
        self.class_votes: Tensor
        self.register_buffer("memory", torch.zeros(0, 0))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("class_votes", torch.zeros(0))

    def learn(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, held: Held | None, seed: int) -> dict[str, float]:
        """Keep the features.

        Raises:
            UsageError: there are fewer than ``k``.
        """
        if self.k > len(x):
            raise UsageError(f"model.k={self.k} neighbours are more than the {len(x)} training images")
        device = self.present.device
        memory = torch.from_numpy(x).to(device)
        self.memory = F.normalize(memory) if self.metric == "cosine" else memory
        self.labels = torch.from_numpy(y).to(device)
        votes = np.zeros(len(self.present))
        votes[y] = weight
        self.class_votes = torch.from_numpy(votes).float().to(device)
        return {}

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (N, k) float64, nearest first, and positions (N, k) of the k nearest training images of features (N, D)."""
        if self.metric == "cosine":
            x = F.normalize(x)
        if self.metric == "manhattan":
            rough = torch.cdist(x, self.memory, p=1)
        else:  # |a - b|^2 without |a|^2
            rough = self.memory.square().sum(1) - 2 * (x @ self.memory.T)
        count = min(self.k + 16, len(self.memory))
        near = rough.topk(count, largest=False).indices.sort(1).values  # a few more, then exactly; the earlier wins a tie
        difference = x.double()[:, None] - self.memory[near].double()
        exact = difference.abs().sum(2) if self.metric == "manhattan" else difference.square().sum(2)
        distance, order = exact.sort(dim=1, stable=True)
        if self.metric == "euclidean":
            distance = distance.sqrt()
        elif self.metric == "cosine":
            distance = distance / 2
        return distance[:, : self.k], near.gather(1, order[:, : self.k])

    def log_probabilities(self, x: Tensor) -> Tensor:
        """Logarithms of the classes' shares of the votes, (N, P)."""
        distance, near = self.neighbours(x)
        labels = self.labels[near]
        votes = self.class_votes[labels].double()
        if self.vote == "distance":
            same = distance == 0
            # copies of the image decide alone
            votes = votes * torch.where(same.any(1, keepdim=True), same.double(), 1 / distance)
        shares = votes.new_zeros(len(x), len(self.present)).scatter_add_(1, labels, votes)
        return (shares / shares.sum(1, keepdim=True)).log()


def knn(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    features: str = "hog",
    standardize: bool | None = None,
    k: int = 5,
    metric: Metric = "euclidean",
    vote: Literal["uniform", "distance"] = "distance",
) -> KNN:
    """The k nearest neighbours on features.

    Args:
        num_classes: classes of the data.
        in_chans: 3 colour, 1 grey.
        pretrained: load the published weights of features ``timm/NAME``.
        features: hog, sift_bow, lbp, color, pixels or timm/NAME, with options (``lbp?grid=8``).
        standardize: bring features to mean 0 and deviation 1 first; None: all but colour histograms.
        k: neighbours that vote.
        metric: distance between feature vectors; "cosine" is 1 - cos of their angle.
        vote: "uniform" gives each neighbour one vote, "distance" one divided by its distance.

    Raises:
        UsageError: an option that cannot be.
    """
    return KNN(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=standardize, k=k, metric=metric, vote=vote)
