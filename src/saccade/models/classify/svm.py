"""A support vector machine on features: planes, or surfaces of a Gaussian kernel, with the widest margin between the classes.

Paper: Cortes, Vapnik: Support-Vector Networks (Machine Learning, 1995). New was the soft margin: training images may lie on the wrong
side at a price C each, so that the widest margin exists for data that no surface separates.

Where it is: the two machines in :meth:`SVM.fit_machine`; decisions in :meth:`SVM.decisions`; features, standardisation and the scores
(a softmax of the decisions with one fitted scale) in :mod:`saccade.models.classify.classical`.

Deviations: the paper separates two classes. ``kernel="linear"`` has one plane a class against the rest (LIBLINEAR, squared hinge, the
bias regularised too); ``kernel="rbf"`` a machine for every pair of classes (LIBSVM), whose votes count, and among equal votes
the sums of their decisions, as in scikit-learn's ``SVC.decision_function``.

Facts under test (CANON F9): decisions equal scikit-learn's LinearSVC and SVC.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from saccade.models.classify.classical import RECIPE, MarginClassifier, two_columns
from saccade.types.errors import UsageError

RECIPES = {"svm": RECIPE}


class SVM(MarginClassifier):
    """Buffers, float64 but for the vectors, with P classes present.

    "linear": ``coefficients`` (P, D), or (1, D) for two classes, and ``bias`` (P,) or (1,).
    "rbf": ``vectors`` (S, D) float32, the support vectors by class; ``counts`` (P,) int64 of each class; ``coefficients`` (P - 1, S):
    of the machine for classes i < j, row j - 1 holds those of the vectors of i and row i those of j; ``bias`` (P (P - 1) / 2,)
    by pair; ``gamma``.
    """

    fitted_buffers = (*MarginClassifier.fitted_buffers, "coefficients", "bias", "vectors", "counts")

    def __init__(
        self,
        num_classes: int,
        features: str,
        *,
        in_chans: int,
        pretrained: bool,
        standardize: bool | None,
        kernel: Literal["linear", "rbf"],
        c: float | None,
        gamma: float | None,
    ) -> None:
        for name, value in (("c", c), ("gamma", gamma)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"model.{name} is above 0, not {value}")
        super().__init__(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=standardize)
        self.kernel, self.given_gamma = kernel, gamma
        self.c = c or (0.01 if kernel == "linear" else 10.0)
        self.coefficients: Tensor
        self.bias: Tensor
        self.vectors: Tensor
        self.counts: Tensor
        self.gamma: Tensor
        self.register_buffer("coefficients", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("vectors", torch.zeros(0, 0))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("gamma", torch.ones((), dtype=torch.float64))

    def fit_machine(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int) -> dict[str, float]:
        """Fit scikit-learn's machine and keep its arrays."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import SVC, LinearSVC

        device = self.present.device
        if self.kernel == "linear":
            plane = LinearSVC(C=self.c, max_iter=2000, random_state=seed % 2**32)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the dual stops at max_iter close to the optimum
                plane.fit(x, y, sample_weight=weight)
            self.coefficients = torch.from_numpy(plane.coef_).to(device)
            self.bias = torch.from_numpy(np.atleast_1d(plane.intercept_)).to(device)
            return {}
        gamma = self.given_gamma or 1 / (x.shape[1] * max(float(x.var(dtype=np.float64)), 1e-12))  # scikit-learn's "scale"
        machine = SVC(C=self.c, gamma=gamma, cache_size=500).fit(x, y, sample_weight=weight)
        self.gamma.fill_(gamma)
        self.coefficients = torch.from_numpy(np.array(machine.dual_coef_)).to(device)
        self.bias = torch.from_numpy(np.array(machine.intercept_)).to(device)
        self.vectors = torch.from_numpy(machine.support_vectors_.astype(np.float32)).to(device)
        self.counts = torch.from_numpy(machine.n_support_.astype(np.int64)).to(device)
        return {"support vectors": float(len(self.vectors)), "gamma": gamma}

    def decisions(self, x: Tensor) -> Tensor:
        """(N, D) float32 to (N, P) float64; for two classes 0 and the machine's decision."""
        if self.kernel == "linear":
            out = x.double() @ self.coefficients.T + self.bias
            return two_columns(out) if out.shape[1] == 1 else out
        # a float32 product would lose what is left of near vectors' distances
        square = torch.cdist(x.double(), self.vectors.double(), compute_mode="use_mm_for_euclid_dist").square()
        kernel = torch.exp(-self.gamma * square)
        if len(self.counts) == 2:
            return two_columns(kernel @ self.coefficients.T + self.bias)
        # of each class's vectors: their part of the decision against every other class
        parts = [
            k @ c.T for k, c in zip(kernel.split(self.counts.tolist(), 1), self.coefficients.split(self.counts.tolist(), 1), strict=True)
        ]
        return one_against_one(parts, self.bias)


def one_against_one(parts: list[Tensor], bias: Tensor) -> Tensor:
    """Decisions of all pairs to (N, P): votes, and between -1/3 and 1/3 the squashed sum of decisions, which orders equal votes.

    Args:
        parts: of P classes, (N, P - 1): what its support vectors add to the decision against each other class, in order.
        bias: (P (P - 1) / 2,) of the pairs (0, 1), (0, 2), ...; a positive decision is for the first.
    """
    first, second = torch.triu_indices(len(parts), len(parts), 1, device=bias.device)
    every = torch.stack(parts)
    decision = (every[first, :, second - 1] + every[second, :, first]).T + bias  # (N, pairs)
    votes = decision.new_zeros(len(decision), len(parts))
    sums = torch.zeros_like(votes)
    votes.index_add_(1, first, (decision >= 0).to(votes)).index_add_(1, second, (decision < 0).to(votes))
    sums.index_add_(1, first, decision).index_add_(1, second, -decision)
    return votes + sums / (3 * (sums.abs() + 1))


def svm(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    features: str = "hog",
    standardize: bool | None = None,
    kernel: Literal["linear", "rbf"] = "rbf",
    c: float | None = None,
    gamma: float | None = None,
) -> SVM:
    """A support vector machine on features.

    Args:
        num_classes: classes of the data.
        in_chans: 3 colour, 1 grey.
        pretrained: load the published weights of features ``timm/NAME``.
        features: hog, sift_bow, lbp, color, pixels or timm/NAME, with options (``lbp?grid=8``).
        standardize: bring features to mean 0 and deviation 1 first; None: all but colour histograms.
        kernel: "linear", or "rbf": exp(-gamma |x - z|^2).
        c: price of training errors; None is 10 for "rbf" and 0.01 for "linear".
        gamma: of "rbf"; None is 1 / (D var(x)).

    Raises:
        UsageError: an option that cannot be.
    """
    return SVM(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=standardize, kernel=kernel, c=c, gamma=gamma)
