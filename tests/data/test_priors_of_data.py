"""Priors of a data set: sizes at the network's input, and the mean IoU by number."""

import numpy as np
import pytest

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.priors import box_sizes, fit_priors
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import UsageError


def test_D27_sizes_are_those_of_the_input(real):
    data = load_data(real("bccd"), "train")
    original = box_sizes(data)
    scaled = box_sizes(data, 320)  # 640 x 480 into 320: half
    np.testing.assert_allclose(scaled, original / 2)
    stretched = box_sizes(data, 320, letterbox=False)
    np.testing.assert_allclose(stretched, original * [320 / 640, 320 / 480])
    wide = box_sizes(data, (240, 640))
    np.testing.assert_allclose(wide, original / 2)


def test_D27_crowds_and_boxes_without_area_are_no_sizes(tmp_path):
    boxes, labels = np.array([[0, 0, 10, 20], [0, 0, 60, 40], [5, 5, 5, 9]], np.float32), np.zeros(3, np.int64)  # the last has no area
    record = Record("0.png", "0", (48, 64), boxes=boxes, labels=labels, iscrowd=np.array([False, True, False]))
    data = Dataset(DataIndex("test", tmp_path, ["a"], PackedRecords([record]), tasks=("detect",)))
    assert box_sizes(data).tolist() == [[10, 20]]


def test_D27_mean_iou_of_one_prior_by_hand_and_more_are_better(real):
    data = load_data(real("bccd"), "train")
    rows = fit_priors(data, range(1, 7), size=416)
    assert [row["k"] for row in rows] == [1, 2, 3, 4, 5, 6]
    values = [row["mean_iou"] for row in rows]
    assert values == sorted(values)
    sizes, prior = box_sizes(data, 416), np.array(rows[0]["priors"][0])
    inter = np.minimum(sizes, prior).prod(1)
    assert values[0] == pytest.approx((inter / (sizes.prod(1) + prior.prod() - inter)).mean(), abs=2e-3)
    areas = [w * h for w, h in rows[-1]["priors"]]
    assert areas == sorted(areas)


def test_D27_priors_that_cannot_be(real):
    with pytest.raises(UsageError, match="no boxes"):
        fit_priors(load_data(real("orl_faces")), [3])
    with pytest.raises(UsageError, match="at least 1"):
        fit_priors(load_data(real("raccoon"), format="voc"), [0])
