"""Boundary IoU (Cheng et al. 2021) and boundary errors (CANON X5) against scikit-image's morphology and plain loops."""

import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import morphology

from saccade.metrics.segmentation import SegmentationMetric
from saccade.metrics.segmentation_errors import BoundaryCounts
from saccade.types.prediction import Segmentation


def literal_band(region, d):
    """The paper: the pixels of a region within d of its contour, what lies beyond the image being outside."""
    padded = np.pad(region, d)
    return region & ~morphology.erosion(padded, np.ones((2 * d + 1, 2 * d + 1), bool))[d:-d, d:-d]


def literal(found, there, classes, ratio):
    """(5, K) counts of one image."""
    d = max(1, round(ratio * float(np.hypot(*there.shape))))
    found = np.where(there == -100, -100, found)
    out = np.zeros((5, classes), dtype=int)
    for k in range(classes):
        g, p = literal_band(there == k, d), literal_band(found == k, d)
        out[:3, k] = g.sum(), p.sum(), (g & p).sum()
    for (y, x), label in np.ndenumerate(there):
        if label != -100 and found[y, x] != label:
            window = there[max(y - d, 0) : y + d + 1, max(x - d, 0) : x + d + 1]
            out[3, label] += 1
            out[4, label] += bool((window != label).any())
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 18), st.integers(1, 18), st.sampled_from([0.02, 0.1, 0.2]))
def test_X5_counts_are_literal_morphology(seed, height, width, ratio):
    rng = np.random.default_rng(seed)
    counts = BoundaryCounts(4, ratio)
    expected = np.zeros((5, 4), dtype=int)
    for _ in range(2):
        coarse = rng.integers(0, 3, (height // 4 + 1, width // 4 + 1))
        there = np.kron(coarse, np.ones((4, 4), int))[:height, :width]
        found = np.where(rng.random(there.shape) < 0.9, np.roll(there, 1, axis=1), rng.integers(0, 4, there.shape))
        there = np.where(rng.random(there.shape) < 0.03, -100, there)
        counts.add(found, there)
        expected += literal(found, there, 4, ratio)
    np.testing.assert_array_equal(counts.counts, expected)


def test_X5_boundary_iou_by_hand():
    """A 6 x 6 square in 12 x 12, predicted one pixel to the right; d = 1: rings of 20 pixels that share 10."""
    there, found = np.zeros((12, 12), int), np.zeros((12, 12), int)
    there[3:9, 3:9] = 1
    found[3:9, 4:10] = 1
    counts = BoundaryCounts(2)
    counts.add(found, there)
    table = counts.tables(["background", "cell"])
    assert table["boundary_iou"]["cell"] == pytest.approx(10 / 30)
    assert (table["wrong"], table["near"], table["share"]) == (12, 12, 1.0)
    assert table["by_class"]["cell"] == {"wrong": 6, "near": 6, "share": 1.0}


def test_X5_area_errors_lie_far_from_boundaries():
    there = np.zeros((100, 100), int)
    there[:, 50:] = 1
    found = there.copy()
    found[40:60, 10:30] = 1  # 20 or more columns from the boundary; d is 3
    found[0:10, 49] = 1
    counts = BoundaryCounts(3)
    counts.add(found, there)
    table = counts.tables(["a", "b", "c"])
    assert (table["wrong"], table["near"]) == (410, 10)
    assert table["boundary_iou"]["c"] is None
    assert table["by_class"]["b"] == {"wrong": 0, "near": 0, "share": None}


def test_X5_a_right_prediction_is_one_and_a_frame_of_ignored_pixels_does_no_harm():
    there = np.zeros((30, 30), int)
    there[10:20, 10:20] = 1
    there[9, 9:21] = there[20, 9:21] = there[9:21, 9] = there[9:21, 20] = -100
    found = np.where(there == -100, 1, there)
    counts = BoundaryCounts(2)
    counts.add(found, there)
    table = counts.tables(["a", "b"])
    assert table["mean_boundary_iou"] == 1.0
    assert table["wrong"] == 0
    assert table["share"] is None


def test_X5_the_metric_collects_and_merges():
    rng = np.random.default_rng(0)
    found, there = rng.integers(0, 3, (2, 4, 20, 30))
    whole, merged, counts = SegmentationMetric(list("abc")), SegmentationMetric(list("abc")), BoundaryCounts(3)
    parts = []
    for f, t in zip(found, there, strict=True):
        pair = [Segmentation(mask=f.astype(np.uint8))], [{"mask": torch.from_numpy(t), "image_id": 0, "path": "0.png"}]
        part = SegmentationMetric(list("abc"))
        for metric in (whole, part):
            metric.update(*pair)
        counts.add(f, t)
        parts.append(pickle.loads(pickle.dumps(part.state())))
    merged.merge(parts)
    table = whole.tables()
    assert table["boundary"] == counts.tables(list("abc")) == merged.tables()["boundary"]
    assert table["confused"] == merged.tables()["confused"]
    matrix = np.array(table["confusion"])
    top = table["confused"][0]
    a, b = "abc".index(top["truth"]), "abc".index(top["predicted"])
    assert (top["count"], top["reverse"]) == (matrix[a, b], matrix[b, a])
    assert top["count"] + top["reverse"] == max((matrix + matrix.T)[np.triu_indices(3, 1)])


def test_X5_nothing_at_all():
    table = SegmentationMetric(["a", "b"]).tables()["boundary"]
    assert table["mean_boundary_iou"] is None
    assert table["share"] is None


def test_X5_many_classes_and_tall_images():
    counts = BoundaryCounts(300)
    there = np.zeros((3, 900), int)
    there[:, 450:] = 299
    counts.add(there, there)
    assert counts.tables([str(k) for k in range(300)])["mean_boundary_iou"] == 1.0
    BoundaryCounts(2).add(np.zeros((0, 5), int), np.zeros((0, 5), int))


def test_X5_a_large_mask_is_quick():
    rng = np.random.default_rng(0)
    there = np.kron(rng.integers(0, 21, (25, 25)), np.ones((20, 20), int))
    found = np.roll(there, 3, axis=0).astype(np.uint8)
    counts = BoundaryCounts(21)
    counts.add(found, there)
    start = time.process_time()
    for _ in range(10):
        counts.add(found, there)
    assert time.process_time() - start < 0.3
