"""Overlaps by hand, against a brute-force pixel count, and pair by pair against all pairs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.boxes.iou import paired_iou, pairwise_iou

KINDS = ("iou", "giou", "diou", "ciou")
corner = st.integers(0, 20)
side = st.integers(1, 12)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


def test_D1_iou_by_hand():
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 20]])
    iou = 50 / (100 + 200 - 50)
    giou = iou - (300 - 250) / 300  # the enclosing box is 15 x 20
    diou = iou - (5**2 + 5**2) / (15**2 + 20**2)
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    ciou = diou - v * v / (1 - iou + v)
    for kind, expected in zip(KINDS, (iou, giou, diou, ciou), strict=True):
        assert pairwise_iou(a, b, kind).item() == pytest.approx(expected, abs=1e-6)
        assert paired_iou(a, b, kind).item() == pytest.approx(expected, abs=1e-6)


@given(box, box)
def test_D1_iou_counts_pixels(a, b):
    """Oracle: boxes of whole pixels, counted on a raster."""
    raster = torch.zeros(2, 40, 40, dtype=torch.bool)
    for plane, (x1, y1, x2, y2) in zip(raster, (a, b), strict=True):
        plane[y1:y2, x1:x2] = True
    expected = (raster[0] & raster[1]).sum() / (raster[0] | raster[1]).sum()
    got = pairwise_iou(torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32))
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_paired_is_the_diagonal_of_pairwise(kind):
    g = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 30, 2, generator=g) * 50
    boxes = torch.cat([boxes, boxes + 1 + torch.rand(2, 30, 2, generator=g) * 40], dim=-1)
    torch.testing.assert_close(paired_iou(*boxes, kind), pairwise_iou(*boxes, kind).diagonal(), atol=1e-5, rtol=1e-4)


def test_apart_and_empty_boxes():
    a, b = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]])
    assert pairwise_iou(a, b).item() == 0
    assert pairwise_iou(a, b, "giou").item() == pytest.approx(-0.5)
    point = torch.tensor([[2.0, 2, 2, 2]])
    assert pairwise_iou(point, point).item() == 0
    assert pairwise_iou(torch.zeros(0, 4), b).shape == (0, 1)
    assert paired_iou(torch.zeros(0, 4), torch.zeros(0, 4), "ciou").shape == (0,)


def test_D22_ciou_gradient_takes_alpha_as_a_constant():
    """Against differences of IoU - d^2 / c^2 - a v with ``a`` held (arXiv 1911.08287, equations 8 to 11)."""
    target, at = [2.0, 1.0, 9.0, 6.0], [0.0, 0.0, 8.0, 7.0]

    def parts(b):
        (x1, y1, x2, y2), (u1, v1, u2, v2) = b, target
        inter = (min(x2, u2) - max(x1, u1)) * (min(y2, v2) - max(y1, v1))
        iou = inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter)
        c2 = (max(x2, u2) - min(x1, u1)) ** 2 + (max(y2, v2) - min(y1, v1)) ** 2
        d2 = ((x1 + x2 - u1 - u2) / 2) ** 2 + ((y1 + y2 - v1 - v2) / 2) ** 2
        v = 4 / math.pi**2 * (math.atan((u2 - u1) / (v2 - v1)) - math.atan((x2 - x1) / (y2 - y1))) ** 2
        return iou - d2 / c2, v, v / (1 - iou + v)

    held = parts(at)[2]
    expected = []
    for k in range(4):
        low, high = ([p + (j == k) * e for j, p in enumerate(at)] for e in (-1e-5, 1e-5))
        expected.append(sum(sign * (parts(b)[0] - held * parts(b)[1]) for sign, b in ((1, high), (-1, low))) / 2e-5)
    box = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    paired_iou(box, torch.tensor([target], dtype=torch.float64), "ciou").sum().backward()
    assert box.grad[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite(kind):
    a = torch.tensor([[0.0, 0, 10, 10], [30, 30, 40, 41]], requires_grad=True)
    (1 - paired_iou(a, torch.tensor([[2.0, 2, 8, 9], [0, 0, 5, 5]]), kind)).sum().backward()
    assert a.grad.isfinite().all()
