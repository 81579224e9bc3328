"""Intervals (CANON X5) against SciPy, against metrics computed anew on every resample, and by their coverage."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats

from saccade.metrics import bootstrap
from saccade.metrics.bootstrap import RECALLS, Resampler, Support, ends, intervals, wilson
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
    return np.concatenate(list(bootstrap.resamples(metric.resampler(), draws, seed)))


def expect_equal(fast, literal, atol=1e-9):
    for name, values in fast.items():
        np.testing.assert_allclose(values, [one[name] for one in literal], atol=atol, err_msg=name)


def test_X5_accuracy_interval_is_scipys_wilson():
    scores, labels = classified()
    metric = classification_metric(scores, labels)
    right = int((scores.argmax(1) == labels).sum())
    for level in (0.95, 0.8):
        ours = intervals(metric, ["accuracy"], draws=5000, level=level)["accuracy"]
        theirs = stats.binomtest(right, 120).proportion_ci(level, method="wilson")
        assert ours == pytest.approx(tuple(theirs), abs=0.003), level  # one image is 0.0083


@pytest.mark.parametrize(("right", "size"), [(0, 7), (3, 7), (7, 7), (40, 41)])
def test_X5_wilsons_interval_is_scipys(right, size):
    theirs = stats.binomtest(right, size).proportion_ci(0.9, method="wilson")
    assert wilson(right / size, size, stats.norm.ppf(0.95)) == pytest.approx(tuple(theirs), abs=1e-12)


def made(drawn, support=None, means=None, images=12):
    return Resampler(images, lambda weights: drawn, 0, support or {}, means or {})


def test_X5_ends_are_korns_and_graubards():
    """Their effective sample size, written out: the class is in 7 of 12 images and has 30 objects."""
    drawn = {"recall/a": np.random.default_rng(0).normal(0.8, 0.1, 400)}
    variance = drawn["recall/a"].var() * 7 / 6
    ratio = stats.t.ppf(0.975, 29) / stats.t.ppf(0.975, 6)
    size = 0.8 * 0.2 / variance * ratio**2
    assert size < 30
    found = ends(made(drawn, {"recall/a": Support(7, 30)}), {"recall/a": 0.8}, drawn)["recall/a"]
    assert found == pytest.approx(wilson(0.8, size, 1.959964), abs=1e-7)
    # Less spread than that many objects can have: the objects count.
    calm = {"recall/a": drawn["recall/a"] * 0.1}
    assert ends(made(calm, {"recall/a": Support(7, 30)}), {"recall/a": 0.8}, calm)["recall/a"] == pytest.approx(
        tuple(stats.binomtest(24, 30).proportion_ci(method="wilson"))
    )
    # No bound by trials, and all images: the normal's quantile against Student's.
    calm = {"recall/a": drawn["recall/a"] * 0.5}
    size = 0.8 * 0.2 / (calm["recall/a"].var() * 12 / 11) * (1.959964 / stats.t.ppf(0.975, 11)) ** 2
    assert ends(made(calm), {"recall/a": 0.8}, calm)["recall/a"] == pytest.approx(wilson(0.8, size, 1.959964), abs=1e-7)
    # An image is one trial at least.
    wild = {"recall/a": np.tile([0.2, 1.0], 50)}
    assert ends(made(wild, {"recall/a": Support(7, 30)}), {"recall/a": 0.8}, wild)["recall/a"] == pytest.approx(wilson(0.8, 7, 1.959964))


def test_X5_a_mean_has_satterthwaites_degrees_of_freedom():
    """SciPy's Welch test has those of the sum of two means."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.6, 0.1, 5), rng.normal(0.7, 0.3, 9)
    freedom = stats.ttest_ind(a, b, equal_var=False).df
    drawn = {"x/a": np.array([-1, 1]) * a.std() / 5**0.5, "x/b": np.array([-1, 1]) * b.std() / 9**0.5, "x": np.array([-1, 1]) * 0.05}
    plain = a.var() / 5 + b.var() / 9
    factor = (a.var(ddof=1) / 5 + b.var(ddof=1) / 9) / plain
    trials = 4 / (1 / 40 + 1 / 90)
    ratio = stats.t.ppf(0.975, trials - 1) / stats.t.ppf(0.975, freedom)
    support = {"x/a": Support(5, 40), "x/b": Support(9, 90)}
    low, high = ends(made(drawn, support, {"x": ["x/a", "x/b"]}), {"x/a": 0.6, "x/b": 0.7, "x": 0.65}, drawn)["x"]
    assert (low, high) == pytest.approx(wilson(0.65, 0.65 * 0.35 / (0.05**2 * factor) * ratio**2, 1.959964), abs=1e-6)


def test_X5_numbers_rest_on_images_and_objects():
    """Counted by hand from the truth and predictions."""
    labels, found = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    r = classification_metric(np.eye(3)[found] * 0.8 + 0.1, labels, "abc").resampler()
    assert r.support["accuracy"] == (5, 5)
    assert [r.support[f"recall/{k}"] for k in "abc"] == [(3, 3), (2, 2), (0, 0)]
    assert r.support["precision/a"] == (3, 3)
    assert r.support["f1/b"] == (2, 4)
    assert r.means["macro_f1"] == ["f1/a", "f1/b"]
    assert r.means["balanced_accuracy"] == ["recall/a", "recall/b"]

    images = detected(count=20, seed=4)
    metric = detection_metric(images)
    r = metric.resampler()
    asked = [image.truth_labels[~image.crowd] for image in images]
    real = [image.truth_labels[~(image.crowd | image.difficult)] for image in images]
    for k in range(4):
        have, objects = sum(k in one for one in asked), sum(int((one == k).sum()) for one in asked)
        assert r.support[f"map50/c{k}"] == (have, objects)
        assert r.support[f"map/c{k}"] == (have, 10 * objects)  # an object at ten overlaps
        assert r.support[f"recall/c{k}"] == (sum(k in one for one in real), sum(int((one == k).sum()) for one in real))
    assert r.support["recall"] == (sum(len(one) > 0 for one in real), sum(map(len, real)))
    numbers = metric.compute()
    right = numbers["recall"] * r.support["recall"].trials
    assert r.support["precision"].trials == pytest.approx(right / numbers["precision"])
    assert r.support["f1"] == (r.support["recall"].images, r.support["recall"].trials + r.support["precision"].trials)
    assert r.means == {name: [f"{name}/c0", f"{name}/c1", f"{name}/c2"] for name in ("map50", "map")}

    there = np.zeros((3, 4, 4), dtype=np.int64)
    there[0, 0], there[1, 2:] = 1, 2
    r = segmentation_metric([(mask.astype(np.uint8), mask) for mask in there]).resampler()
    assert [r.support[f"iou/{k}"] for k in "abcd"] == [(3, math.inf), (1, math.inf), (1, math.inf), (0, math.inf)]
    assert r.means["mean_dice"] == ["dice/a", "dice/b", "dice/c"]


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


def test_X5_images_without_objects_or_detections():
    empty = detected(count=1, boxes=1)[0]
    assert not len(empty.truth_boxes)
    assert not len(empty.boxes)
    metric = detection_metric([empty._replace(image_id=i) for i in range(4)])
    assert all(math.isnan(v) for ends in intervals(metric, draws=20).values() for v in ends)


def test_X5_where_everything_is_right_the_interval_has_a_width():
    """No image shows how often the model errs; Wilson's low end for n of n is n / (n + z^2)."""
    _, labels = classified(count=30)
    ends = intervals(classification_metric(np.eye(6)[labels], labels), ["accuracy", "recall/a"], draws=50)
    for name, size in (("accuracy", 30), ("recall/a", int((labels == 0).sum()))):
        assert ends[name] == pytest.approx((size / (size + 1.959964**2), 1.0), abs=1e-6), name
    (image,) = detected(count=1, seed=5, boxes=9)
    clear = np.zeros(len(image.truth_labels), dtype=bool)
    perfect = image._replace(
        boxes=image.truth_boxes,
        labels=image.truth_labels,
        scores=np.ones(len(clear)),
        areas=image.truth_areas,
        crowd=clear,
        difficult=clear,
    )
    metric = detection_metric([perfect._replace(image_id=i) for i in range(4)])
    assert metric.compute()["map50/c0"] == 1
    size = 4 * int((image.truth_labels == 0).sum())
    assert intervals(metric, ["map50/c0"], draws=50)["map50/c0"] == pytest.approx((size / (size + 1.959964**2), 1.0), abs=1e-6)
    there = np.eye(4, dtype=np.int64)
    same = segmentation_metric([(there.astype(np.uint8), there)] * 5)
    assert intervals(same, ["mean_iou"], draws=50)["mean_iou"][0] < 0.75  # pixels of one image are no trials of their own


@pytest.mark.parametrize("images", [10, 20, 60])
def test_X5_coverage_of_accuracy_is_wilsons(images):
    """Exactly, from the binomial probabilities of every outcome."""
    ours, theirs = [], []
    for right in range(images + 1):
        metric = ClassificationMetric(["a", "b"])
        metric.merge([[(0, int(i >= right), int(i >= right), 0.9, "", "", 0.0) for i in range(images)]])
        ours.append(intervals(metric, ["accuracy"], draws=1000, seed=right)["accuracy"])
        theirs.append(tuple(stats.binomtest(right, images).proportion_ci(method="wilson")))
    grid = np.linspace(0.5, 0.98, 49)
    outcomes = stats.binom.pmf(np.arange(images + 1)[:, None], images, grid)
    covered = [((np.array(pairs)[:, :1] <= grid) & (grid <= np.array(pairs)[:, 1:])) for pairs in (ours, theirs)]
    own, expected = ((outcomes * held).sum(0).mean() for held in covered)
    assert own == pytest.approx(expected, abs=0.012)
    assert 0.94 <= own <= 0.97


@pytest.mark.parametrize(("images", "alike"), [(12, 6.0), (25, 3.0)])
def test_X5_coverage_of_a_share_of_clustered_objects(images, alike):
    """Each image has its own recall (beta, mean 0.9), 8 objects share it: objects alone would be far too sure of themselves."""
    rng, hits, naive, trials = np.random.default_rng(0), 0, 0, 400
    for trial in range(trials):
        right = rng.binomial(8, rng.beta(0.9 * alike, 0.1 * alike, images)).astype(float)

        def values(weights, right=right):
            return {"recall": weights @ right / (8 * weights.sum(1))}

        r = Resampler(images, values, 0, {"recall": Support(images, 8 * images)})
        exact = {"recall": float(right.mean() / 8)}
        low, high = ends(r, exact, bootstrap.collect(r, bootstrap.resamples(r, 200, trial)))["recall"]
        hits += low <= 0.9 <= high
        low, high = wilson(exact["recall"], 8 * images, 1.959964)
        naive += low <= 0.9 <= high
    error = (0.95 * 0.05 / trials) ** 0.5
    assert abs(hits / trials - 0.95) < 3 * error + 0.01, hits / trials
    assert naive / trials < 0.9, naive / trials


@pytest.mark.slow
@pytest.mark.parametrize("images", [20, 150])
def test_X5_coverage_of_map50_is_near_95_percent(images):
    truth = detection_metric(detected(count=8000, seed=99, noise=1.5)).compute()["map50"]
    hits, trials = 0, 100
    for trial in range(trials):
        metric = detection_metric(detected(count=images, seed=1000 + trial, noise=1.5))
        low, high = intervals(metric, ["map50"], draws=400)["map50"]
        hits += low <= truth <= high
    assert 0.90 <= hits / trials <= 0.99, hits / trials


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
