"""k-means priors against brute force over all partitions, and on real boxes."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from saccade.boxes.iou import pairwise_iou
from saccade.boxes.priors import kmeans_priors, size_iou


def brute_force(sizes, k):
    """Best mean IoU over all partitions into k clusters with the clusters' means as priors."""
    best = 0.0
    for labels in itertools.product(range(k), repeat=len(sizes)):
        if len(set(labels)) == k:
            means = np.stack([sizes[np.array(labels) == c].mean(0) for c in range(k)])
            best = max(best, size_iou(sizes, means).max(1).mean())
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 3])
def test_D27_kmeans_priors_reach_the_brute_force_optimum(seed, k):
    """Three groups of like boxes: the optimum is a fixed point of Lloyd's step, so it must be found."""
    rng = np.random.default_rng(seed)
    sizes = np.concatenate([np.array(c) * rng.uniform(0.9, 1.1, (n, 2)) for c, n in (((10, 12), 3), ((60, 30), 2), ((100, 150), 2))])
    priors, mean_iou = kmeans_priors(sizes, k, seed=0, restarts=30)
    assert mean_iou == pytest.approx(size_iou(sizes, priors).max(1).mean())
    if k == 3:
        assert mean_iou == pytest.approx(brute_force(sizes, k))
    else:
        assert brute_force(sizes, k) * 0.98 <= mean_iou <= brute_force(sizes, k) + 1e-9


def test_D27_size_iou_is_the_iou_of_centred_boxes():
    sizes = np.random.default_rng(0).uniform(1, 50, (6, 2))
    boxes = torch.from_numpy(np.concatenate([-sizes / 2, sizes / 2], axis=1))
    np.testing.assert_allclose(size_iou(sizes, sizes[:3]), pairwise_iou(boxes, boxes[:3]).numpy())


def test_D27_priors_are_sorted_seeded_and_scale_free():
    sizes = np.random.default_rng(1).gamma(2.0, 20.0, (300, 2)) + 1
    priors, mean_iou = kmeans_priors(sizes, 5, seed=3)
    again, _ = kmeans_priors(sizes, 5, seed=3)
    np.testing.assert_array_equal(priors, again)
    assert (np.diff(priors.prod(1)) >= 0).all()
    larger, same = kmeans_priors(sizes * 7, 5, seed=3)
    np.testing.assert_allclose(larger, priors * 7)
    assert same == pytest.approx(mean_iou)
    assert kmeans_priors(sizes, 9)[1] > mean_iou > kmeans_priors(sizes, 1)[1]


def test_D27_as_many_priors_as_sizes_fit_exactly():
    sizes = np.array([[1.0, 2], [3, 4], [1, 2], [50, 6]])
    assert kmeans_priors(sizes, 3)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="4 priors cannot be made of 3"):
        kmeans_priors(sizes, 4)
    with pytest.raises(ValueError, match="positive"):
        kmeans_priors(np.array([[0.0, 3.0]]), 1)


def test_D27_sizes_that_differ_by_rounding_alone_are_no_error():
    """As boxes over whole images of different sizes give them: 416 and 415.99999999999994."""
    side = np.nextafter(416.0, 0)
    sizes = np.array([[416.0, 416], [416, side], [side, 416], [side, side]])
    priors, mean_iou = kmeans_priors(sizes, 4)
    np.testing.assert_allclose(priors, 416)
    assert mean_iou == pytest.approx(1)


def test_D27_priors_of_real_blood_cells(real):
    """Red cells are about 105 px, white ones about 210, platelets about 40 of 640: three priors tell them apart."""
    sizes = []
    for file in sorted((real("bccd") / "Annotations").glob("*.xml")):
        for box in ET.parse(file).iter("bndbox"):
            x1, y1, x2, y2 = (float(box.find(name).text) for name in ("xmin", "ymin", "xmax", "ymax"))
            if x2 > x1 and y2 > y1:
                sizes.append((x2 - x1, y2 - y1))
    priors, mean_iou = kmeans_priors(np.array(sizes), 3)
    side = np.sqrt(priors.prod(1))
    assert 25 < side[0] < 70 < side[1] < 130 < side[2] < 260
    assert mean_iou > 0.75
