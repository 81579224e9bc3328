"""Classification metrics against scikit-learn and hand-computed values."""

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from saccade.metrics.classification import ClassificationMetric
from saccade.types.prediction import Classification


def make(scores, labels):
    predictions = [Classification(scores=s) for s in scores]
    truths = [{"label": torch.tensor(int(k)), "image_id": i, "path": f"{i}.png"} for i, k in enumerate(labels)]
    return predictions, truths


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 300)
    scores = rng.random((300, 7)).astype(np.float32) + 0.8 * np.eye(7, dtype=np.float32)[labels]
    scores[:, 5] = 0  # there, never predicted; class 6 is predicted and never there
    return scores / scores.sum(1, keepdims=True), labels


def test_numbers_are_scikit_learns(case):
    scores, labels = case
    metric = ClassificationMetric(list("abcdefg"), top=(2, 5))
    metric.update(*make(scores, labels))
    out, found = metric.compute(), scores.argmax(1)
    assert out["accuracy"] == pytest.approx(sk.accuracy_score(labels, found))
    for k in (2, 5):
        assert out[f"top{k}"] == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=k, labels=range(7)))
    there = range(6)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, found, labels=there, zero_division=0)
    for k in there:
        assert out[f"precision/{'abcdefg'[k]}"] == pytest.approx(precision[k])
        assert out[f"recall/{'abcdefg'[k]}"] == pytest.approx(recall[k])
        assert out[f"f1/{'abcdefg'[k]}"] == pytest.approx(f1[k])
    assert out["macro_precision"] == pytest.approx(precision.mean())
    assert out["macro_recall"] == pytest.approx(recall.mean())
    assert out["macro_f1"] == pytest.approx(f1.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert out["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, found))
    assert out["precision/g"] == 0
    assert math.isnan(out["recall/g"])
    assert math.isnan(out["f1/g"])
    np.testing.assert_array_equal(metric.tables()["confusion"], sk.confusion_matrix(labels, found, labels=range(7)))


def test_calibration_error_by_hand():
    # two bins of two: scores 0.55 and 0.65 (one right), 0.9 and 0.8 (both right)
    metric = ClassificationMetric(["a", "b"], bins=4)
    scores = [[0.55, 0.45], [0.65, 0.35], [0.1, 0.9], [0.2, 0.8]]
    metric.update(*make(np.array(scores), [0, 1, 1, 1]))
    assert metric.compute()["ece"] == pytest.approx((abs(1 - 1.2) + abs(2 - 1.7)) / 4)


def test_calibration_error_is_torchmetrics(case):
    from torchmetrics.functional.classification import multiclass_calibration_error

    scores, labels = case
    metric = ClassificationMetric(list("abcdefg"))
    metric.update(*make(scores, labels))
    expected = multiclass_calibration_error(torch.from_numpy(scores), torch.from_numpy(labels), num_classes=7, n_bins=15)
    assert metric.compute()["ece"] == pytest.approx(expected.item(), abs=1e-6)


def test_merge_of_states_is_a_single_pass(case):
    predictions, truths = make(*case)
    whole, merged = ClassificationMetric(list("abcdefg")), ClassificationMetric(list("abcdefg"))
    whole.update(predictions, truths)
    states = []
    for rank in range(3):
        part = ClassificationMetric(list("abcdefg"))
        part.update(predictions[rank::3], truths[rank::3])
        states.append(pickle.loads(pickle.dumps(part.state())))
    merged.merge(states)
    assert merged.compute() == pytest.approx(whole.compute(), nan_ok=True)
    assert merged.tables()["confusion"] == whole.tables()["confusion"]


def test_no_image_is_nan_and_scores_of_nan_are_wrong():
    metric = ClassificationMetric(["a", "b", "c"], top=(2,))
    assert all(math.isnan(v) for v in metric.compute().values())
    metric.update(*make(np.full((1, 3), np.nan), [0]))
    out = metric.compute()
    assert out["top2"] == 0
    assert math.isnan(out["ece"])


def test_ties_go_to_the_lower_label_as_in_a_prediction():
    metric = ClassificationMetric(["a", "b", "c"], top=(1, 2))
    metric.update(*make(np.array([[0.2, 0.4, 0.4]]), [2]))
    out = metric.compute()
    assert (out["accuracy"], out["top1"], out["top2"]) == (0, 0, 1)


def test_top_k_needs_more_than_k_classes():
    assert "top5" not in ClassificationMetric(list("abcde")).compute()
    assert "top5" in ClassificationMetric(list("abcdef")).compute()


def test_wrong_shapes_and_labels_raise():
    metric = ClassificationMetric(["a", "b"])
    for scores, label in (([0.5, 0.2, 0.3], 0), ([0.5, 0.5], 2), ([0.5, 0.5], -1)):
        with pytest.raises(ValueError, match="for 2 classes"):
            metric.update(*make(np.array([scores]), [label]))
