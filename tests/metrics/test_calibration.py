"""Calibration (CANON X5) against torchmetrics, scikit-learn and hand-computed cases."""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from saccade.metrics.calibration import brier_score, calibration_error, calibration_table, maximum_calibration_error, reliability
from saccade.metrics.classification import ClassificationMetric
from saccade.metrics.detection import DetectionMetric
from saccade.types.prediction import Classification, Detection


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.full(4, 0.5), 400)
    return scores, np.where(rng.random(400) < 0.7, scores.argmax(1), rng.integers(0, 4, 400))


def confidence_of(case):
    scores, labels = case
    return scores.max(1), scores.argmax(1) == labels


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_X5_errors_are_torchmetrics(case, bins):
    table = reliability(*confidence_of(case), bins=bins)
    scores, labels = (torch.as_tensor(x) for x in case)
    for norm, ours in (("l1", calibration_error(table)), ("max", maximum_calibration_error(table))):
        theirs = multiclass_calibration_error(scores, labels, num_classes=4, n_bins=bins, norm=norm)
        assert ours == pytest.approx(theirs.item(), abs=1e-6), norm


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_X5_bins_are_scikit_learns(case, strategy):
    confidence, right = confidence_of(case)
    table = [b for b in reliability(confidence, right, bins=10, adaptive=strategy == "quantile") if b.count]
    true, found = calibration_curve(right, confidence, n_bins=10, strategy=strategy)
    np.testing.assert_allclose([b.accuracy for b in table], true)
    np.testing.assert_allclose([b.confidence for b in table], found)
    assert sum(b.count for b in table) == 400
    if strategy == "quantile":
        assert {b.count for b in table} == {40}


def test_X5_brier_score_is_scikit_learns(case):
    scores, labels = case
    assert brier_score(scores, labels) == pytest.approx(brier_score_loss(labels, scores, labels=range(4), scale_by_half=False))
    two = scores[:, :2] / scores[:, :2].sum(1, keepdims=True)
    assert brier_score(two, labels % 2) == pytest.approx(2 * brier_score_loss(labels % 2, two[:, 1]))
    assert brier_score(np.eye(3), [0, 1, 2]) == 0
    assert brier_score(np.eye(3), [1, 2, 0]) == 2
    assert math.isnan(brier_score(np.zeros((0, 3)), []))


def test_X5_a_case_by_hand():
    """Bins (0, 0.5] and (0.5, 1]: 0.5 is in the first. Gaps: |1/2 - 0.4| and |1/3 - 0.8|."""
    table = reliability([0.3, 0.5, 0.6, 0.8, 1.0], [True, False, True, False, False], bins=2)
    assert [(b.low, b.high, b.count) for b in table] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert calibration_error(table) == pytest.approx((2 * 0.1 + 3 * (0.8 - 1 / 3)) / 5)
    assert maximum_calibration_error(table) == pytest.approx(0.8 - 1 / 3)


def test_X5_edges_empty_bins_and_ties():
    first = reliability([0.0, 1.0], [False, True], bins=4)
    assert [b.count for b in first] == [1, 0, 0, 1]
    assert math.isnan(first[1].accuracy)
    assert calibration_error(first) == 0
    nothing = reliability([], [])
    assert len(nothing) == 15
    assert math.isnan(calibration_error(nothing))
    assert math.isnan(maximum_calibration_error(nothing))
    tied = reliability([0.7] * 10, [True] * 7 + [False] * 3, adaptive=True)
    assert [b.count for b in tied] == [10]
    assert calibration_error(tied) == pytest.approx(0)
    assert calibration_table([], []) == {}
    assert calibration_table([0.2, np.nan], [True, False]) == {}
    with pytest.raises(ValueError, match=r"0\.\.1"):
        reliability([1.2], [True])


def test_X5_the_classifiers_tables_have_it(case):
    scores, labels = case
    metric = ClassificationMetric(list("abcd"))
    truths = [{"label": int(k), "image_id": i, "path": ""} for i, k in enumerate(labels)]
    metric.update([Classification(scores=row) for row in scores], truths)
    table = metric.tables()["calibration"]
    assert table["ece"] == metric.compute()["ece"] == calibration_error(reliability(*confidence_of(case)))
    assert table["brier"] == pytest.approx(brier_score(scores, labels))
    assert sum(b["count"] for b in table["bins"]) == sum(b["count"] for b in table["adaptive_bins"]) == 400
    assert ClassificationMetric(list("abcd")).tables()["calibration"] == {}


def test_X5_a_detectors_precision_by_score():
    """Two right at 0.9 and 0.8, a wrong one at 0.85, one on a crowd (counts neither way), one wrong at 0.1."""
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60], [70, 70, 80, 80], [0, 50, 10, 60]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.85, 0.95, 0.1], dtype=np.float32)
    metric = DetectionMetric(["a"])
    truth = {"boxes": boxes[[0, 1, 3]], "labels": np.zeros(3, dtype=int), "iscrowd": [False, False, True], "image_id": 0}
    metric.update([Detection(boxes=boxes, labels=np.zeros(5, dtype=int), scores=scores)], [truth])
    table = metric.tables()["calibration"]
    filled = [b for b in table["bins"] if b["count"]]
    assert [b["count"] for b in filled] == [1, 2, 1]
    assert [b["accuracy"] for b in filled] == [0, 0.5, 1]
    assert filled[1]["confidence"] == pytest.approx(0.825)
