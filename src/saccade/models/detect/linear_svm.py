"""What the detectors with linear support vector machines share (HOG + SVM, R-CNN): the machine, its
calibration, and how boxes meet the truth.

The machines are LIBLINEAR's, through scikit-learn; what is learned is returned as plain arrays.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from torchvision.ops import box_iou


def fit_linear_svm(
    positives: np.ndarray,
    negatives: np.ndarray,
    *,
    c: float,
    positive_weight: float | Literal["balanced"] = 1.0,
    loss: Literal["hinge", "squared_hinge"] = "hinge",
    bias_scale: float = 1.0,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """A separating plane: ``min |w|^2 / 2 + c sum_i v_i loss(y_i (w x_i + b))``, the bias regularised as ``b / bias_scale``.

    Args:
        positives, negatives: (P, D) and (N, D), at least one each.
        c: weight of the errors.
        positive_weight: factor v of positives; "balanced" gives both sides the same total.
        loss: "hinge" (solved in the dual) or "squared_hinge" (in the primal: quick for many long vectors).

    Returns:
        (D,) float32 weight and the bias; ``w x + b > 0`` means positive.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    weight = len(negatives) / len(positives) if positive_weight == "balanced" else positive_weight
    machine = LinearSVC(
        C=c,
        loss=loss,
        dual=loss == "hinge",
        class_weight={1: weight},
        intercept_scaling=bias_scale,
        max_iter=2000,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the dual stops at max_iter close to the optimum
        machine.fit(np.concatenate([positives, negatives]), np.repeat([1, 0], [len(positives), len(negatives)]))
    return machine.coef_[0].astype(np.float32), float(machine.intercept_[0])


def fit_platt(decisions: np.ndarray, truths: np.ndarray) -> tuple[float, float]:
    """Platt's map of decision values to probabilities, ``p = 1 / (1 + exp(-(a s + b)))``.

    Maximum likelihood with Platt's smoothed targets ``(N+ + 1) / (N+ + 2)`` and ``1 / (N- + 2)`` (Platt 1999), as a logistic
    regression in which every value appears as a weighted positive and negative. The order of scores is kept: where the
    values say nothing (one kind only, or a falling map) it is the plain logistic function (1, 0).

    Args:
        decisions: (N,) values of the machine; truths: (N,) bool.

    Returns:
        (a, b), a > 0.
    """
    truths = np.asarray(truths, dtype=bool)
    positives = int(truths.sum())
    negatives = len(truths) - positives
    if not positives or not negatives:
        return 1.0, 0.0
    from sklearn.linear_model import LogisticRegression

    target = np.where(truths, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    values = np.tile(np.asarray(decisions, dtype=np.float64), 2)[:, None]
    scale = max(float(values.std()), 1e-12)
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(values / scale, np.repeat([1, 0], len(truths)), sample_weight=np.concatenate([target, 1 - target]))
    a, b = float(model.coef_[0, 0]) / scale, float(model.intercept_[0])
    return (a, b) if a > 0 else (1.0, 0.0)


def match_truth(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, iou: float = 0.5) -> np.ndarray:
    """(N,) bool: which boxes find a true box, best score first, each true box once (the rule of average precision)."""
    hit = np.zeros(len(boxes), dtype=bool)
    if not len(boxes) or not len(truth):
        return hit
    overlap = box_iou(torch.as_tensor(boxes).float(), torch.as_tensor(truth).float()).numpy()
    for i in np.argsort(-scores, kind="stable"):
        best = int(overlap[i].argmax())
        if overlap[i, best] >= iou:
            hit[i] = True
            overlap[:, best] = -1
    return hit


def best_overlap(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) largest IoU of each box with a true box, and (N,) index of that box; IoU 0 where there is none."""
    if not len(truth) or not len(boxes):
        return np.zeros(len(boxes), np.float32), np.zeros(len(boxes), np.int64)
    overlap, nearest = box_iou(torch.as_tensor(boxes).float(), torch.as_tensor(truth).float()).max(1)
    return overlap.numpy(), nearest.numpy()
