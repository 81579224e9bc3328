"""Bootstrap intervals (CANON X5) against SciPy, against metrics computed anew on every resample, and by their coverage."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats

from saccade.metrics import bootstrap
from saccade.metrics.bootstrap import RECALLS, intervals
from saccade.metrics.classification import ClassificationMetric
from saccade.metrics.detection import DetectionImage, DetectionMetric
from saccade.metrics.generation import GenerationMetric
from saccade.metrics.segmentation import SegmentationMetric
from saccade.types.prediction import Classification, Segmentation


def classified(count=120, classes=6, seed=0, right=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    found = np.where(rng.random(count) < right, labels, rng.integers(0, classes, count))
    scores = rng.random((count, classes)) + 1.5 * np.eye(classes)[found]
    return scores / scores.sum(1, keepdims=True), labels


def classification_metric(scores, labels, classes="abcdef"):
    metric = ClassificationMetric(list(classes))
    truths = [{"label": int(k), "image_id": i, "path": ""} for i, k in enumerate(labels)]
    metric.update([Classification(scores=row) for row in scores], truths)
    return metric


def detected(count=40, classes=4, seed=0, boxes=8, noise=4.0, ties=False):
    """Images with found, missed, doubled and invented objects, crowds and difficult ones; the last class has no truth."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(count):
        g = int(rng.integers(0, boxes))
        truth = np.concatenate([rng.uniform(0, 300, (g, 2)), rng.uniform(15, 60, (g, 2))], 1)
        labels = rng.integers(0, max(classes - 1, 1), g)
        chosen = np.repeat(np.arange(g), rng.integers(0, 3, g))
        junk = int(rng.integers(0, boxes))
        invented = np.concatenate([rng.uniform(0, 300, (junk, 2)), rng.uniform(15, 60, (junk, 2))], 1)
        found = np.concatenate([truth[chosen] + rng.normal(0, noise, (len(chosen), 4)), invented])
        kinds = np.concatenate([labels[chosen], rng.integers(0, classes, junk)])
        scores = np.concatenate([0.3 + 0.7 * rng.random(len(chosen)), 0.8 * rng.random(junk)])
        scores = np.ceil(scores * 8) / 8 if ties else scores
        images.append(
            DetectionImage(
                i, "", (400, 400), found, kinds, scores, found[:, 2] * found[:, 3], truth, labels, truth[:, 2] * truth[:, 3],
                rng.random(g) < 0.1, rng.random(g) < 0.1,
            )
        )  # fmt: skip
    return images


def detection_metric(images, classes=4):
    metric = DetectionMetric([f"c{k}" for k in range(classes)])
    for image in images:
        metric.add(image)
    return metric


def segmented(count=15, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    metric_input = []
    for _ in range(count):
        there = rng.integers(0, rng.integers(1, classes), (12, 10))
        found = np.where(rng.random(there.shape) < 0.7, there, rng.integers(0, classes, there.shape))
        there[rng.random(there.shape) < 0.05] = -100
        metric_input.append((found.astype(np.uint8), there))
    return metric_input


def segmentation_metric(pairs, classes="abcd"):
    metric = SegmentationMetric(list(classes))
    truths = [{"mask": torch.as_tensor(there), "image_id": i, "path": ""} for i, (_, there) in enumerate(pairs)]
    metric.update([Segmentation(mask=found) for found, _ in pairs], truths)
    return metric


def blocks(metric, draws, seed):
    return np.concatenate(list(bootstrap._resamples(metric.resampler(), draws, seed)))


def expect_equal(fast, literal, atol=1e-9):
    for name, values in fast.items():
        np.testing.assert_allclose(values, [one[name] for one in literal], atol=atol, err_msg=name)


def test_X5_accuracy_interval_is_scipys():
    scores, labels = classified()
    metric = classification_metric(scores, labels)
    right = (scores.argmax(1) == labels).astype(float)
    for method in ("percentile", "bca"):
        ours = intervals(metric, ["accuracy"], draws=5000, method=method)["accuracy"]
        theirs = stats.bootstrap((right,), np.mean, n_resamples=5000, method=method, rng=np.random.default_rng(1)).confidence_interval
        assert ours == pytest.approx(tuple(theirs), abs=0.009), method  # one image is 0.0083


def test_X5_bca_ends_are_scipys_on_the_same_resamples():
    """A skewed mean; SciPy draws the same indices from the same generator."""
    values = np.random.default_rng(3).exponential(size=40)

    class Mean:
        def resampler(self, names=None):
            return bootstrap.Resampler(len(values), lambda weights: {"mean": weights @ values / weights.sum(1)})

    theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, method="bca", rng=np.random.default_rng(0)).confidence_interval
    ours = intervals(Mean(), draws=2000, method="bca", seed=0)["mean"]
    assert ours == pytest.approx(tuple(theirs), abs=1e-9)
    plain = intervals(Mean(), draws=2000, seed=0, method="percentile")["mean"]
    assert ours[0] > plain[0]  # a long right tail moves both ends up
    assert ours[1] > plain[1]


def test_X5_map50_of_resamples_is_the_metric_computed_anew():
    images = detected()
    metric = detection_metric(images)
    weights = blocks(metric, 25, 4)
    fast = metric.resampler().values(weights)
    literal = []
    for row in weights.astype(int):
        drawn = [image for image, times in zip(images, row, strict=True) for _ in range(times)]
        literal.append(detection_metric([image._replace(image_id=i) for i, image in enumerate(drawn)]).compute())
    assert {"map", "map50", "map50/c0", "map/c1", "recall", "f1/c2"} <= set(fast)
    expect_equal(fast, literal)
    assert np.isnan(fast["map50/c3"]).all()
    assert np.ptp(fast["map50"]) > 0.02


@pytest.mark.parametrize("ties", [False, True])
def test_X5_the_exact_value_is_the_metrics(ties):
    metric = detection_metric(detected(count=60, seed=2, ties=ties))
    resampler, exact = metric.resampler(), metric.compute()
    for name, values in resampler.values(np.ones((1, 60))).items():
        assert values[0] == pytest.approx(exact[name], abs=1e-9, nan_ok=True), name


def test_X5_the_cap_of_detections_holds():
    (image,) = detected(count=1, seed=5, boxes=9)
    metric = DetectionMetric([f"c{k}" for k in range(4)], max_detections=(1,))
    for i in range(3):
        metric.add(image._replace(image_id=i))
    assert metric.resampler().values(np.ones((1, 3)))["map50"][0] == pytest.approx(metric.compute()["map50"], abs=1e-9)
    assert metric.compute()["map50"] < detection_metric([image]).compute()["map50"]


def test_X5_iou_of_resamples_is_the_metric_computed_anew():
    pairs = segmented()
    metric = segmentation_metric(pairs)
    weights = blocks(metric, 25, 1)
    fast = metric.resampler().values(weights)
    literal = []
    for row in weights.astype(int):
        literal.append(segmentation_metric([pair for pair, times in zip(pairs, row, strict=True) for _ in range(times)]).compute())
    assert set(fast) == set(literal[0])
    expect_equal(fast, literal)


def test_X5_classification_of_resamples_is_the_metric_computed_anew():
    scores, labels = classified(count=25)
    metric = classification_metric(scores, labels)
    weights = blocks(metric, 25, 1)
    fast = metric.resampler().values(weights)
    literal = []
    for row in weights.astype(int):
        rows = np.repeat(np.arange(25), row)
        literal.append(classification_metric(scores[rows], labels[rows]).compute())
    assert set(fast) == set(literal[0]) - {"ece"}
    expect_equal(fast, literal)


def test_X5_recall_levels_round_as_the_division_does():
    for there in [1, 3, 7, 10, 29, 100, 1000, 12345]:
        tp = np.arange(there + 1)
        expected = np.searchsorted(tp / there, RECALLS)
        np.testing.assert_array_equal(bootstrap._needed(np.array([float(there)]))[0], expected)


def test_X5_same_seed_same_interval_whatever_the_block(monkeypatch):
    metric = classification_metric(*classified())
    first = intervals(metric, seed=3)
    assert first == intervals(metric, seed=3)
    assert first != intervals(metric, seed=4)
    monkeypatch.setattr(bootstrap, "BLOCK", 1000)
    again = intervals(metric, seed=3)
    assert list(again) == list(first)
    np.testing.assert_allclose(list(again.values()), list(first.values()))


def test_X5_what_has_no_interval():
    scores, labels = classified()
    assert intervals(GenerationMetric()) == {}
    assert intervals(ClassificationMetric(list("ab"))) == {}
    assert intervals(DetectionMetric(list("ab"))) == {}
    assert intervals(SegmentationMetric(list("ab"))) == {}
    assert intervals(classification_metric(scores[:1], labels[:1])) == {}
    absent = intervals(detection_metric(detected()), ["map50", "map50/c3"], draws=50)
    assert list(absent) == ["map50", "map50/c3"]
    assert all(math.isnan(v) for v in absent["map50/c3"])
    with pytest.raises(ValueError, match="no interval for 'nothing'"):
        intervals(classification_metric(scores, labels), ["nothing"])
    with pytest.raises(ValueError, match="level"):
        intervals(GenerationMetric(), level=95)
    sure = classification_metric(np.eye(6)[labels], labels)
    assert intervals(sure, ["accuracy"], method="bca")["accuracy"] == (1.0, 1.0)


def test_X5_images_without_objects_or_detections():
    empty = detected(count=1, boxes=1)[0]
    assert not len(empty.truth_boxes)
    assert not len(empty.boxes)
    metric = detection_metric([empty._replace(image_id=i) for i in range(4)])
    assert all(math.isnan(v) for ends in intervals(metric, draws=20).values() for v in ends)


def test_X5_coverage_of_accuracy_is_near_95_percent():
    """Data of a known distribution: how often the interval holds the true value."""
    rng = np.random.default_rng(0)
    for truth, count in ((0.8, 100), (0.6, 60)):
        hits = 0
        for trial in range(150):
            right = rng.random(count) < truth
            metric = ClassificationMetric(["a", "b"])
            metric._rows = [(0, int(not r), int(not r), 0.9, "", "", 0.0) for r in right]
            low, high = intervals(metric, ["accuracy"], draws=300, seed=trial)["accuracy"]
            hits += low <= truth <= high
        assert 0.90 <= hits / 150 <= 0.98, (truth, hits / 150)


@pytest.mark.slow
def test_X5_coverage_of_map50_is_near_95_percent():
    """Percentiles alone miss more often: AP of few images, and of a resample even more, is too high on the average."""
    truth = detection_metric(detected(count=8000, seed=99, noise=1.5)).compute()["map50"]
    hits = dict.fromkeys(("percentile", "bca"), 0)
    for trial in range(120):
        metric = detection_metric(detected(count=150, seed=1000 + trial, noise=1.5))
        for method in hits:
            low, high = intervals(metric, ["map50"], draws=400, method=method)["map50"]
            hits[method] += low <= truth <= high
    assert 0.90 <= hits["bca"] / 120 <= 0.98, hits
    assert hits["bca"] >= hits["percentile"]


@pytest.mark.slow
def test_X5_ten_thousand_images_take_seconds():
    metric = detection_metric(detected(count=10_000, classes=10, seed=1, boxes=6), classes=10)
    metric._matches()
    began = time.process_time()
    ends = intervals(metric)
    assert time.process_time() - began < 15
    low, high = ends["map50"]
    assert low < metric.compute()["map50"] < high
    assert high - low < 0.03
