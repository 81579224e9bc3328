"""C21: numbers of landmarks. Oracles: hand cases, a literal loop, numerical integration of the curve, plain bootstrap."""

import math

import numpy as np
import pytest
import torch

from saccade.metrics.bootstrap import intervals
from saccade.metrics.landmarks import LandmarkMetric, distances
from saccade.types.prediction import Landmarks

NAMES = ["left_eye", "right_eye", "nose"]


def truth(points, visibility=(2, 2, 2), name="a"):
    return {
        "image_id": name,
        "path": f"{name}.png",
        "keypoints": torch.tensor([points], dtype=torch.float32),
        "visibility": torch.tensor([visibility]),
    }


def prediction(points, size=(30, 40), between=None):
    return Landmarks(points=np.array(points, dtype=np.float32), size=size, classes=NAMES, between=between)


def metric(pairs):
    out = LandmarkMetric(NAMES)
    out.update([p for p, _ in pairs], [t for _, t in pairs])
    return out


def random_pairs(count, seed=0, between=None):
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        size = (int(rng.integers(30, 90)), int(rng.integers(30, 90)))
        points = rng.uniform(0, 1, (3, 2)) * size[::-1]
        found = points + rng.normal(0, rng.uniform(0.5, 4), (3, 2))
        pairs.append(
            (prediction(found, size, between), truth(points.tolist(), rng.choice([0, 1, 2], 3, p=[0.2, 0.2, 0.6]).tolist(), str(i)))
        )
    return pairs


def test_C21_a_hand_case_on_a_3_4_5_image():
    # 30 x 40 pixels: a diagonal of 50. Distances 5, 0 and (not labelled) 100.
    pair = prediction([[13, 14], [20, 10], [39, 29]]), truth([[10, 10], [20, 10], [0, 0]], (2, 1, 0))
    assert distances(*pair)[:2].tolist() == [5.0, 0.0]
    assert math.isnan(distances(*pair)[2])
    values = metric([pair]).compute()
    assert values["nme"] == pytest.approx(2.5 / 50)
    assert values["auc"] == pytest.approx(1 - 0.05 / 0.1)
    assert values["pck05"] == pytest.approx(0.5)  # 5 of 50 is 0.1
    assert values["pck10"] == pytest.approx(1.0)
    assert values["rmse"] == pytest.approx(math.sqrt((25 + 0) / 2))
    assert values["nme/left_eye"] == pytest.approx(0.1)
    assert math.isnan(values["nme/nose"])
    assert math.isnan(values["pck10/nose"])
    assert "nme_between" not in values


def test_C21_the_distance_of_two_points_is_the_other_measure():
    pair = prediction([[13, 14], [20, 10], [20, 20]], between=(0, 1)), truth([[10, 10], [20, 10], [20, 20]])
    other = prediction([[0, 0], [0, 0], [0, 0]], between=(0, 1)), truth([[10, 10], [20, 10], [20, 20]], (2, 0, 2), "b")
    assert metric([pair]).compute()["nme_between"] == pytest.approx((5 / 3) / 10)
    assert metric([pair, other]).compute()["nme_between"] == pytest.approx((5 / 3) / 10)  # b lacks one of the eyes
    assert math.isnan(metric([other]).compute()["nme_between"])  # told, and not there


def test_C21_all_numbers_equal_a_literal_loop():
    pairs = random_pairs(40, between=(0, 2))
    errors, images, squares, between = [], [], [], []
    for found, there in pairs:
        diagonal, own = math.hypot(*found.size), []
        points, seen = there["keypoints"][0].tolist(), there["visibility"][0].tolist()
        for k in range(3):
            if seen[k]:
                d = math.dist(found.points[k].tolist(), points[k])
                own.append(d)
                squares.append(d * d)
                errors.append((k, d / diagonal))
        if own:
            images.append(sum(own) / len(own) / diagonal)
            if seen[0] and seen[2]:
                between.append(sum(own) / len(own) / math.dist(points[0], points[2]))
    values = metric(pairs).compute()
    assert values["nme"] == pytest.approx(np.mean(images))
    assert values["rmse"] == pytest.approx(math.sqrt(np.mean(squares)))
    assert values["nme_between"] == pytest.approx(np.mean(between))
    for k, name in enumerate(NAMES):
        own = np.array([e for point, e in errors if point == k])
        assert values[f"nme/{name}"] == pytest.approx(own.mean())
        assert values[f"pck05/{name}"] == pytest.approx((own <= 0.05).mean())
    assert values["pck05"] == pytest.approx(np.mean([e <= 0.05 for _, e in errors]))
    assert values["pck10"] == pytest.approx(np.mean([e <= 0.1 for _, e in errors]))
    # the area under the curve of errors, by the trapezium rule on a fine grid
    grid = np.linspace(0, 0.1, 200_001)
    share = np.searchsorted(np.sort(images), grid, side="right") / len(images)
    assert values["auc"] == pytest.approx(np.trapezoid(share, grid) / 0.1, abs=1e-5)
    curve = metric(pairs).tables()["error_curve"]
    assert curve["share"][50] == pytest.approx(np.mean(np.array(images) <= 0.05))
    assert curve["error"][50] == pytest.approx(0.05)


def test_C21_intervals_hold_the_number_and_have_the_width_of_a_plain_bootstrap():
    one = metric(random_pairs(60))
    values, ends = one.compute(), intervals(one)
    assert {"auc", "nme", "pck05", "nme/nose"} <= ends.keys()
    assert not {"rmse", "nme_between"} & ends.keys()
    for name, (low, high) in ends.items():
        assert low <= values[name] <= high
    images = np.array([row["nme"] for row in one.tables()["images"] if row["nme"] is not None])
    standard = images.std(ddof=1) / math.sqrt(len(images))
    low, high = ends["nme"]
    assert high - low == pytest.approx(2 * 1.96 * standard, rel=0.12)


def test_C21_parts_of_several_processes_merge_and_empty_ones_are_nan():
    pairs = random_pairs(9)
    whole, parts = metric(pairs), [metric(pairs[:4]), metric(pairs[4:])]
    merged = LandmarkMetric(NAMES)
    merged.merge([part.state() for part in parts])
    np.testing.assert_equal(merged.compute(), whole.compute())
    assert all(math.isnan(v) for v in LandmarkMetric(NAMES).compute().values())
    nothing = truth([[0, 0]] * 3)
    nothing |= {"keypoints": torch.zeros(0, 3, 2), "visibility": torch.zeros(0, 3)}
    alone = metric([(prediction([[1, 1]] * 3), nothing)])
    assert math.isnan(alone.compute()["nme"])
    assert alone.tables()["images"][0]["nme"] is None


def test_C21_a_wrong_number_of_points_is_told():
    with pytest.raises(ValueError, match="3 names"):
        metric([(Landmarks(points=np.zeros((2, 2)), size=(9, 9)), truth([[0, 0]] * 3))])


def test_C21_a_point_is_right_within_a_twentieth_and_a_tenth_of_the_diagonal():
    """The diagonal of 30 x 40 pixels is 50: 2.4, 2.6 and 5.1 pixels are 0.048, 0.052 and 0.102 of it."""
    places = [[10.0, 10.0], [20.0, 10.0], [15.0, 20.0]]
    found = [[12.4, 10.0], [20.0, 12.6], [20.1, 20.0]]
    numbers = metric([(prediction(found), truth(places))]).compute()
    assert [numbers[f"pck05/{name}"] for name in NAMES] == [1, 0, 0]
    assert [numbers[f"pck10/{name}"] for name in NAMES] == [1, 1, 0]
    assert (numbers["pck05"], numbers["pck10"]) == pytest.approx((1 / 3, 2 / 3))
