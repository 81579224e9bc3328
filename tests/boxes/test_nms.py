"""Suppression against a plain O(n^2) loop, and select() by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.boxes.iou import pairwise_iou
from saccade.boxes.nms import class_nms, select


def greedy(boxes, scores, labels, iou):
    """The definition, read aloud."""
    overlap, kept = pairwise_iou(boxes, boxes), []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(labels[i] != labels[j] or overlap[i, j] <= iou for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.floats(0.1, 0.9))
def test_D1_class_nms_equals_the_definition(seed, n, iou):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=g) * 10], dim=1)
    scores, labels = torch.rand(n, generator=g), torch.randint(3, (n,), generator=g)
    assert class_nms(boxes, scores, labels, iou).tolist() == greedy(boxes, scores, labels, iou)


def test_D1_nms_is_class_wise():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 1, 10, 11]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert class_nms(boxes, scores, torch.tensor([0, 1, 0]), 0.5).tolist() == [0, 1]
    assert class_nms(boxes.bfloat16(), scores.bfloat16(), torch.tensor([0, 0, 0]), 0.5).tolist() == [0]


def test_D1_a_box_without_measure_leaves_the_others_alone():
    """As the exponential of an untrained network gives it; the others are of another class."""
    for side in (1e9, 1e12, float("inf")):
        boxes = torch.tensor([[-side, -side, side, side], [10, 10, 20, 20], [13, 10, 23, 20], [40, 40, 50, 50], [40.5, 40, 50.5, 50]])
        scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
        assert class_nms(boxes, scores, torch.tensor([0, 3, 3, 3, 3]), 0.6).tolist() == [0, 1, 2, 3]


def test_select_thresholds_suppresses_and_caps():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]])
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.2, 0.7]])
    kept, value, label = select(boxes, scores, score=0.15, iou=0.5, max_detections=10)
    assert label.tolist() == [0, 1, 1, 0]
    torch.testing.assert_close(value, torch.tensor([0.9, 0.7, 0.3, 0.2]))
    torch.testing.assert_close(kept, boxes[[0, 2, 1, 2]])
    assert select(boxes, scores, score=0.15, iou=0.5, max_detections=10, agnostic=True)[1].tolist() == scores[[0, 2], [0, 1]].tolist()
    assert len(select(boxes, scores, score=0.0, iou=1.0, max_detections=2)[0]) == 2
    assert select(boxes, scores, score=0.0, iou=1.0, max_detections=9, candidates=1)[2].tolist() == [0, 1]
    assert select(boxes, scores, score=0.0, iou=1.0, max_detections=9, most=3)[1].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert select(boxes, scores, score=0.95, iou=0.5, max_detections=9)[0].shape == (0, 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 30), st.integers(1, 12), st.floats(0, 0.9))
def test_D1_select_equals_its_definition(seed, n, candidates, score):
    """Class by class the best candidates above the score, then suppression."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 20
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=g) * 10], dim=1)
    scores = torch.rand(n, 3, generator=g) * torch.tensor([1.0, 0.5, 0.0])
    rows = []
    for label in range(3):
        best = sorted(range(n), key=lambda i: -scores[i, label])[:candidates]
        rows += [(i, label) for i in best if scores[i, label] > score]
    place, label = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2).unbind(1)
    kept = greedy(boxes[place], scores[place, label], label, 0.4)[:7]
    found = select(boxes, scores, score=score, iou=0.4, max_detections=7, candidates=candidates)
    for got, expected in zip(found, (boxes[place], scores[place, label], label), strict=True):
        assert torch.equal(got, expected[kept])


def test_select_takes_boxes_of_each_class():
    boxes = torch.arange(24.0).reshape(3, 2, 4).sort(-1).values
    kept, _, label = select(boxes, torch.tensor([[0.9, 0.0], [0.0, 0.8], [0.0, 0.0]]), score=0.5, iou=0.5, max_detections=9)
    assert label.tolist() == [0, 1]
    torch.testing.assert_close(kept, torch.stack([boxes[0, 0], boxes[1, 1]]))
