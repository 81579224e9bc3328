"""Thresholds (CANON X5) against scikit-learn and hand-computed cases."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score

from saccade.metrics.detection import DetectionMetric
from saccade.metrics.thresholds import by_class, one_against_rest, threshold_curve, threshold_table
from saccade.types.prediction import Detection


@pytest.fixture
def case():
    """With ties of score."""
    rng = np.random.default_rng(0)
    right = rng.random(300) < 0.4
    return np.round(np.clip(rng.normal(0.4 + 0.25 * right, 0.2), 0, 1), 2), right


def test_X5_curve_is_scikit_learns(case):
    curve = threshold_curve(*case)
    precision, recall, threshold = precision_recall_curve(case[1], case[0])
    np.testing.assert_array_equal(curve.threshold, threshold)
    np.testing.assert_allclose(curve.precision, precision[:-1])
    np.testing.assert_allclose(curve.recall, recall[:-1])
    f1 = [f1_score(case[1], case[0] >= t) for t in threshold]
    np.testing.assert_allclose(curve.f1, f1)
    best = curve.best_f1()
    assert best.f1 == pytest.approx(max(f1))
    assert f1_score(case[1], case[0] >= best.threshold) == pytest.approx(max(f1))


def test_X5_wanted_precision_and_recall(case):
    scores, right = case
    curve = threshold_curve(scores, right)
    distinct = np.unique(scores)
    for wanted in (0.5, 0.7, 0.9):
        choice = curve.for_precision(wanted)
        assert choice.threshold == min(t for t in distinct if precision_score(right, scores >= t) >= wanted)
        choice = curve.for_recall(wanted)
        assert choice.threshold == max(t for t in distinct if recall_score(right, scores >= t) >= wanted)
    assert threshold_curve([0.9, 0.5], [False, True]).for_precision(0.6) is None
    assert threshold_curve([0.9, 0.5], [False, True], positives=4).for_recall(0.5) is None


def test_X5_objects_without_a_detection_count_in_recall(case):
    """As for scikit-learn with the missed ones scored below everything."""
    scores, right = case
    curve = threshold_curve(scores, right, positives=int(right.sum()) + 30)
    precision, recall, _ = precision_recall_curve(np.append(right, np.ones(30)), np.append(scores, np.full(30, -1.0)))
    np.testing.assert_allclose(curve.precision, precision[1:-1])
    np.testing.assert_allclose(curve.recall, recall[1:-1])


def test_X5_one_class_against_the_rest():
    rng = np.random.default_rng(1)
    scores, labels = rng.dirichlet(np.ones(3), 100), rng.integers(0, 3, 100)
    curves = one_against_rest(scores, labels, "abc")
    for k, name in enumerate("abc"):
        _, recall, threshold = precision_recall_curve(labels == k, scores[:, k])
        np.testing.assert_array_equal(curves[name].threshold, threshold)
        np.testing.assert_allclose(curves[name].recall, recall[:-1])


def test_X5_nothing_to_find_and_nothing_found():
    nothing = threshold_curve([], [])
    assert len(nothing.threshold) == 0
    assert nothing.best_f1() is nothing.for_precision(0.1) is nothing.for_recall(0.1) is None
    absent = threshold_curve([0.5, 0.6], [False, False])
    assert absent.best_f1() is None
    assert all(math.isnan(v) for v in absent.recall)
    assert threshold_table({"a": nothing, "b": absent}) == {}
    dirty = threshold_curve([0.5, np.nan, 0.4], [True, True, False])
    assert dirty.threshold.tolist() == [0.4, 0.5]


def test_X5_detections_by_hand():
    """Class a: two objects; right 0.9, wrong 0.8, right 0.3. Class b: one object, right at 0.6. Class c: an object, nothing found."""
    at = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60], [70, 70, 80, 80]], dtype=np.float32)
    metric = DetectionMetric(list("abc"))
    prediction = Detection(boxes=at[[0, 3, 1, 2]], labels=np.array([0, 0, 0, 1]), scores=np.array([0.9, 0.8, 0.3, 0.6], dtype=np.float32))
    metric.update([prediction], [{"boxes": at[[0, 1, 2, 3]], "labels": np.array([0, 0, 1, 2]), "image_id": 0}])
    table = metric.tables()["thresholds"]
    assert list(table) == ["", "a", "b"]
    assert table["a"]["threshold"] == pytest.approx([0.3, 0.8, 0.9])
    assert table["a"]["precision"] == pytest.approx([2 / 3, 1 / 2, 1])
    assert table["a"]["recall"] == pytest.approx([1, 1 / 2, 1 / 2])
    assert table["a"]["choices"]["best_f1"]["threshold"] == pytest.approx(0.3)
    assert table["a"]["choices"]["precision"]["threshold"] == pytest.approx(0.9)
    assert table["b"]["choices"]["recall"] == pytest.approx({"threshold": 0.6, "precision": 1, "recall": 1, "f1": 1})
    assert table[""]["recall"] == pytest.approx([3 / 4, 2 / 4, 1 / 4, 1 / 4])
    assert table[""]["choices"]["recall"] is None  # class c is never found
    # the metric's own numbers at its score are a point of the curve
    whole = metric.compute()
    row = int(np.searchsorted(table[""]["threshold"], metric.score))
    assert (table[""]["precision"][row], table[""]["recall"][row]) == pytest.approx((whole["precision"], whole["recall"]))


def test_X5_long_curves_are_thinned_and_keep_their_choices():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 5000), rng.random(5000)
    right = rng.random(5000) < scores
    curves = by_class(labels, scores, right, np.array([2000, 2500]), ["a", "b"])
    table = threshold_table(curves, wanted=0.8, points=100)
    assert [len(table[name]["f1"]) for name in ("", "a", "b")] == [100, 100, 100]
    assert table["a"]["choices"]["best_f1"] == curves["a"].best_f1()._asdict()
    assert table[""]["choices"]["precision"]["precision"] >= 0.8
