"""Losses of classes, boxes and pairs (CANON N5) as their equations, number by number; by-pixel ones stand in test_segmentation_losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from saccade.boxes.iou import paired_iou
from saccade.losses.contrastive import contrastive_loss
from saccade.losses.focal import softmax_focal_loss
from saccade.losses.safe_bce import safe_binary_cross_entropy
from saccade.losses.tversky import tversky_loss

# -- one of K classes -------------------------------------------------------------------------------


def test_N5_weighted_cross_entropy_by_its_equation():
    logits, labels, weights = torch.randn(6, 3, dtype=torch.float64), [0, 2, 1, 1, 2, 0], [1.0, 4.0, 0.5]
    total = 0.0
    for row, k in zip(logits.tolist(), labels, strict=True):
        total -= weights[k] * math.log(math.exp(row[k]) / sum(map(math.exp, row)))
    got = F.cross_entropy(logits, torch.tensor(labels), torch.tensor(weights, dtype=torch.float64))
    assert got.item() == pytest.approx(total / sum(weights[k] for k in labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_N5_label_smoothing_spreads_a_share_over_all_classes(smoothing):
    """Targets (1 - e) one-hot + e / K (arXiv 1512.00567, section 7)."""
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 2, 1, 1])
    target = (1 - smoothing) * F.one_hot(labels, 4).double() + smoothing / 4
    expected = -(target * (logits.exp() / logits.exp().sum(1, keepdim=True)).log()).sum(1).mean()
    torch.testing.assert_close(F.cross_entropy(logits, labels, label_smoothing=smoothing), expected)
    # least where the prediction is the smoothed target, not where it is certain
    best = (target + 1e-300).log()
    assert F.cross_entropy(best, labels, label_smoothing=smoothing) <= F.cross_entropy(2 * best, labels, label_smoothing=smoothing)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_N5_focal_loss_is_cross_entropy_times_the_miss(gamma):
    logits, labels = torch.randn(20, 4, dtype=torch.float64), torch.randint(0, 4, (20,))
    p = logits.softmax(1)[torch.arange(20), labels]
    expected = -0.25 * (1 - p) ** gamma * p.log()
    torch.testing.assert_close(softmax_focal_loss(logits, labels, alpha=0.25, gamma=gamma, reduction="none"), expected)
    easy = torch.tensor([[math.log(9.0), 0.0]])  # p = 0.9 (the paper, section 3.2: 100 times less at gamma 2)
    ratio = F.cross_entropy(easy, torch.tensor([0])) / softmax_focal_loss(easy, torch.tensor([0]), gamma=2.0)
    assert ratio.item() == pytest.approx(100, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 0.75, 4 / 3, 2.0])
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (0.5, 0.5), (1.0, 1.0)])
def test_N5_focal_tversky_is_one_minus_the_index_to_the_power_gamma(alpha, beta, gamma):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, 3, (2, 6, 5), generator=generator)
    p, losses = logits.softmax(1), []
    for k in range(3):
        truth, said = (mask == k).double(), p[:, k]
        tp, fp, fn = (truth * said).sum(), ((1 - truth) * said).sum(), (truth * (1 - said)).sum()
        losses.append((1 - tp / (tp + alpha * fp + beta * fn)) ** gamma)
    got = tversky_loss(logits, mask, alpha=alpha, beta=beta, gamma=gamma, smooth=0.0)
    torch.testing.assert_close(got, torch.stack(losses).mean())


# -- yes or no --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 1)), min_size=1, max_size=9))
def test_N5_safe_bce_inside_is_torchs(rows):
    p, t = torch.tensor(rows, dtype=torch.float64).T
    for reduction in ("none", "sum", "mean"):
        expected = F.binary_cross_entropy(p, t, reduction=reduction)
        torch.testing.assert_close(safe_binary_cross_entropy(p, t, eps=1e-12, reduction=reduction), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_N5_safe_bce_at_the_boundaries_is_finite_and_still_falls(dtype):
    p = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=dtype, requires_grad=True)
    t = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=dtype)
    loss = safe_binary_cross_entropy(p, t, reduction="none")
    assert loss.tolist() == pytest.approx([-math.log(1e-7), -math.log(1e-7), 0, 0], abs=2e-6)
    assert (loss >= 0).all()
    safe_binary_cross_entropy(p.float(), t, eps=1e-3, reduction="sum").backward()
    # q' = 1 - 2 eps over q: 1 / eps where wrong, about 1 where right
    slope = (1 - 2e-3) / 1e-3
    assert p.grad.tolist() == pytest.approx([-slope, slope, 1.0, -1.0], rel=1e-2)


def test_N5_torchs_bce_jumps_at_the_boundary_where_ours_does_not():
    """What "boundary-safe" is about: values 100, and slopes of 1e12."""
    wrong = torch.tensor([0.0], requires_grad=True)
    value = F.binary_cross_entropy(wrong, torch.ones(1))
    value.backward()
    assert value.item() == 100
    assert wrong.grad.item() < -1e11


def test_N5_safe_bce_says_what_it_cannot_take():
    one = torch.ones(1)
    for eps in (0.0, 0.5, -1.0, math.nan):
        with pytest.raises(ValueError, match="eps"):
            safe_binary_cross_entropy(one, one, eps=eps)
    with pytest.raises(ValueError, match="one shape"):
        safe_binary_cross_entropy(one, torch.ones(1, 1))
    assert safe_binary_cross_entropy(one[:0], one[:0]).item() == 0


# -- boxes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 1.0, 1 / 9])
def test_N5_smooth_l1_is_a_parabola_that_turns_into_a_line(beta):
    x = torch.tensor([-3.0, -beta, -beta / 2, 0.0, beta / 4, beta, 2.0], dtype=torch.float64, requires_grad=True)
    expected = [v * v / (2 * beta) if abs(v) < beta else abs(v) - beta / 2 for v in x.tolist()]
    loss = F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=beta)
    assert loss.tolist() == pytest.approx(expected)
    loss.sum().backward()
    assert x.grad.abs().max() <= 1  # outliers pull no more than by 1
    torch.testing.assert_close(loss, F.huber_loss(x, torch.zeros_like(x), reduction="none", delta=beta) / beta)


def overlap_losses(a, b):
    """1 minus IoU, GIoU, DIoU, CIoU of two boxes, as their papers write them."""
    inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    (w1, h1), (w2, h2) = ((x[2] - x[0], x[3] - x[1]) for x in (a, b))
    union = w1 * h1 + w2 * h2 - inter
    iou = inter / union
    width, height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    centres = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    v = 4 / math.pi**2 * (math.atan(w2 / h2) - math.atan(w1 / h1)) ** 2
    alpha = v / (1 - iou + v) if v else 0.0
    diou = iou - centres / (width**2 + height**2)
    return {"iou": 1 - iou, "giou": 1 - iou + (width * height - union) / (width * height), "diou": 1 - diou, "ciou": 1 - diou + alpha * v}


place, length = st.floats(0, 50), st.floats(2, 40)
box = st.tuples(place, place, length, length).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(box, box)
def test_N5_overlap_losses_are_their_equations(a, b):
    first, second = (torch.tensor([x], dtype=torch.float64) for x in (a, b))
    for kind, expected in overlap_losses(a, b).items():
        assert 1 - paired_iou(first, second, kind).item() == pytest.approx(expected, abs=1e-5)
    theirs = {
        "giou": torchvision.ops.generalized_box_iou_loss,
        "diou": torchvision.ops.distance_box_iou_loss,
        "ciou": torchvision.ops.complete_box_iou_loss,
    }
    for kind, loss in theirs.items():
        assert loss(first, second).item() == pytest.approx(overlap_losses(a, b)[kind], abs=1e-5)


def test_N5_only_iou_has_no_slope_between_boxes_apart():
    truth = torch.tensor([[0.0, 0, 10, 10]])
    for kind in ("iou", "giou", "diou", "ciou"):
        far = torch.tensor([[30.0, 0, 40, 10]], requires_grad=True)
        (1 - paired_iou(far, truth, kind)).sum().backward()
        assert (far.grad[0, [0, 2]].sum() > 0) == (kind != "iou")  # pulled to the left, but for IoU


# -- pairs and triplets -----------------------------------------------------------------------------


def test_N5_contrastive_loss_by_its_equation():
    distances, same, margin = [0.0, 0.4, 1.3, 0.0, 0.4, 1.3, 2.0], [1, 1, 1, 0, 0, 0, 0], 1.2
    expected = [y * d**2 + (1 - y) * max(margin - d, 0) ** 2 for d, y in zip(distances, same, strict=True)]
    d, y = torch.tensor(distances, dtype=torch.float64), torch.tensor(same)
    assert contrastive_loss(d, y, margin=margin, reduction="none").tolist() == pytest.approx(expected)
    assert contrastive_loss(d, y.bool(), margin=margin, reduction="sum").item() == pytest.approx(sum(expected))
    assert contrastive_loss(d, y, margin=margin).item() == pytest.approx(sum(expected) / 7)
    hinge = F.hinge_embedding_loss(d, 2 * y - 1, margin=margin, reduction="none")  # torch's has no squares
    torch.testing.assert_close(contrastive_loss(d, y, margin=margin, reduction="none"), hinge**2)


def test_N5_contrastive_loss_draws_alike_together_and_others_apart_to_the_margin():
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [3.0, 3.0]], dtype=torch.float64, requires_grad=True)
    kinds = torch.tensor([0, 0, 1, 1])
    first, second = torch.triu_indices(4, 4, 1)
    optimizer = torch.optim.SGD([points], lr=0.1)
    for _ in range(300):
        distances = torch.linalg.vector_norm(points[first] - points[second], dim=1)
        loss = contrastive_loss(distances, kinds[first] == kinds[second], margin=2.0, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    between = torch.cdist(points, points).detach()
    assert loss.item() < 1e-6
    assert between[0, 1] < 1e-3
    assert between[2, 3] < 1e-3
    assert between[:2, 2:].min() > 2 - 1e-3


def test_N5_contrastive_loss_has_a_gradient_where_vectors_are_equal():
    points = torch.zeros(2, 3, requires_grad=True)
    distances = torch.linalg.vector_norm(points[:1] - points[1:], dim=1)
    contrastive_loss(distances, torch.zeros(1)).backward()
    assert torch.isfinite(points.grad).all()


def test_N5_contrastive_loss_says_what_it_cannot_take():
    with pytest.raises(ValueError, match="margin"):
        contrastive_loss(torch.ones(2), torch.ones(2), margin=0.0)
    with pytest.raises(ValueError, match="one shape"):
        contrastive_loss(torch.ones(2), torch.ones(2, 1))
    assert contrastive_loss(torch.ones(0), torch.ones(0)).item() == 0


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_N5_triplet_loss_by_its_equation(margin):
    torch.manual_seed(0)
    anchor, positive, negative = torch.randn(3, 8, 5, dtype=torch.float64)
    expected = [
        max(math.dist(a, p) - math.dist(a, n) + margin, 0)
        for a, p, n in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True)
    ]
    got = nn.TripletMarginLoss(margin, reduction="none")(anchor, positive, negative)
    assert got.tolist() == pytest.approx(expected, abs=1e-5)
    assert 0 in expected
    assert max(expected) > 0


def test_N5_triplet_loss_by_hand():
    a, p, n = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert F.triplet_margin_loss(a, p, n, margin=1.0).item() == pytest.approx(5 - 2 + 1, abs=1e-5)
    assert F.triplet_margin_loss(a, n, p, margin=1.0).item() == 0
