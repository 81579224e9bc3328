"""Segmentation metrics (CANON S13) against scikit-learn, torchmetrics and hand-computed values."""

import math
import pickle
import time

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchvision import tv_tensors

from saccade.metrics.segmentation import SegmentationMetric
from saccade.types.prediction import Segmentation


def make(found, there):
    predictions = [Segmentation(mask=np.asarray(m)) for m in found]
    truths = [{"mask": tv_tensors.Mask(torch.as_tensor(m)), "image_id": i, "path": f"{i}.png"} for i, m in enumerate(there)]
    return predictions, truths


@pytest.fixture
def case():
    """Images of several sizes, classes 0..3 of 5; class 3 is never predicted, class 4 is only predicted, some pixels are ignored."""
    rng = np.random.default_rng(0)
    found, there = [], []
    for i in range(6):
        size = (10 + i, 20 - i)
        mask = rng.integers(0, 4, size)
        guess = np.where(rng.random(size) < 0.6, mask, rng.integers(0, 5, size))
        guess[guess == 3] = 4
        mask[rng.random(size) < 0.1] = -100
        found.append(guess.astype(np.uint8))
        there.append(mask)
    return found, there


def test_S13_numbers_are_scikit_learns(case):
    metric = SegmentationMetric(list("abcde"))
    metric.update(*make(*case))
    out = metric.compute()
    a, b = (np.concatenate([m.ravel() for m in side]) for side in (case[1], case[0]))
    a, b = a[a != -100], b[a != -100]
    np.testing.assert_array_equal(metric.tables()["confusion"], sk.confusion_matrix(a, b, labels=range(5)))
    assert out["pixel_accuracy"] == pytest.approx(sk.accuracy_score(a, b))
    options = {"labels": range(4), "average": None, "zero_division": 0}
    oracles = {
        "iou": sk.jaccard_score(a, b, **options),
        "dice": sk.f1_score(a, b, **options),
        "sensitivity": sk.recall_score(a, b, **options),
        "precision": sk.precision_score(a, b, **options),
        "specificity": np.array([sk.recall_score(a != k, b != k) for k in range(4)]),
    }
    for name, expected in oracles.items():
        for k in range(4):
            assert out[f"{name}/{'abcd'[k]}"] == pytest.approx(expected[k]), (name, k)
        assert out[f"mean_{name}"] == pytest.approx(expected.mean())
    # never true but predicted: an overlap of 0 that the mean does not count, no sensitivity
    assert out["iou/e"] == out["dice/e"] == out["precision/e"] == 0
    assert math.isnan(out["sensitivity/e"])


def test_S13_jaccard_is_torchmetrics(case):
    from torchmetrics.classification import MulticlassJaccardIndex

    theirs = MulticlassJaccardIndex(num_classes=5, average="none", ignore_index=-100)
    for guess, mask in zip(*case, strict=True):
        theirs.update(torch.from_numpy(guess.astype(np.int64))[None], torch.from_numpy(mask)[None])
    metric = SegmentationMetric(list("abcde"))
    metric.update(*make(*case))
    np.testing.assert_allclose([metric.compute()[f"iou/{c}"] for c in "abcde"], theirs.compute().numpy(), atol=1e-6)


def test_S13_by_hand():
    metric = SegmentationMetric(["background", "cell"])
    metric.update(*make([[[0, 1, 1, 1]]], [[[0, 0, 1, -100]]]))  # TP 1, FP 1, FN 0, TN 1
    out = metric.compute()
    assert out["iou/cell"] == 1 / 2
    assert out["dice/cell"] == pytest.approx(2 / 3)
    assert (out["sensitivity/cell"], out["specificity/cell"], out["precision/cell"]) == (1, 1 / 2, 1 / 2)
    assert out["pixel_accuracy"] == pytest.approx(2 / 3)
    assert out["mean_iou"] == out["image_mean_iou"] == 1 / 2


def test_S13_whole_set_and_per_image_means_differ():
    metric = SegmentationMetric(["a", "b"])
    there = [np.zeros((1, 9), int), np.ones((1, 1), int)]
    metric.update(*make([there[0], np.zeros((1, 1), int)], there))
    out = metric.compute()
    assert out["mean_iou"] == pytest.approx((9 / 10 + 0) / 2)
    assert out["image_mean_iou"] == pytest.approx((1 + 0) / 2)
    assert metric.tables()["images"][0] == {"image_id": "0", "path": "0.png", "mean_iou": 1.0, "iou": [1.0, None]}


def test_S13_merge_of_states_is_a_single_pass(case):
    predictions, truths = make(*case)
    whole, merged = SegmentationMetric(list("abcde")), SegmentationMetric(list("abcde"))
    whole.update(predictions, truths)
    states = []
    for rank in range(2):
        part = SegmentationMetric(list("abcde"))
        part.update(predictions[rank::2], truths[rank::2])
        states.append(pickle.loads(pickle.dumps(part.state())))
    merged.merge(states)
    assert merged.compute() == pytest.approx(whole.compute(), nan_ok=True)


def test_S13_absent_classes_and_nothing_at_all_are_nan():
    metric = SegmentationMetric(["a", "b", "c"])
    assert all(math.isnan(v) for v in metric.compute().values())
    metric.update(*make([[[0, 1]]], [[[-100, -100]]]))
    assert all(math.isnan(v) for v in metric.compute().values())
    assert metric.tables()["images"][0]["mean_iou"] is None
    metric.update(*make([[[0, 1]]], [[[0, 1]]]))
    out = metric.compute()
    assert math.isnan(out["iou/c"])
    assert out["mean_iou"] == out["image_mean_iou"] == out["mean_specificity"] == 1


def test_S13_wrong_masks_raise():
    metric = SegmentationMetric(["a", "b"])
    for found, there, message in (
        ([[0, 2]], [[0, 1]], "predicted labels"),
        ([[0, 1]], [[0, 255]], "true labels"),
        ([[0]], [[0, 1]], "the true one"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.update(*make([found], [there]))
    assert metric.confusion.sum() == 0


def test_S13_a_large_mask_is_quick():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 21, (500, 500))
    metric = SegmentationMetric([str(i) for i in range(21)])
    start = time.process_time()
    for _ in range(10):
        metric.update(*make([mask.astype(np.uint8)], [mask]))
    assert time.process_time() - start < 0.3
