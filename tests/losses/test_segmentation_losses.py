"""Losses by pixel (CANON N5) against torchvision, torch and hand-computed values."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision import tv_tensors

from saccade.losses.dice import dice_loss
from saccade.losses.focal import sigmoid_focal_loss, softmax_focal_loss
from saccade.losses.jaccard import jaccard_loss
from saccade.losses.segmentation import SPECS, TERMS, segmentation_loss
from saccade.losses.tversky import tversky_loss
from saccade.types.errors import UsageError

EVERY = "+".join(TERMS)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.randint(0, 3, (2, 5, 4), generator=generator)
    mask[0, :2] = -100
    return logits, mask


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_N5_sigmoid_focal_loss_is_torchvisions(alpha, gamma):
    logits, targets = torch.randn(50) * 4, (torch.rand(50) < 0.3).float()
    for reduction in ("none", "sum", "mean"):
        expected = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction=reduction)
        torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction=reduction), expected)


def test_N5_sigmoid_focal_loss_without_alpha_or_gamma_is_binary_cross_entropy():
    logits, targets = torch.randn(9, 4), torch.rand(9, 4)
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha=None, gamma=0), expected)


def test_N5_softmax_focal_loss_by_hand():
    # p = 0.8 for the first, 0.5 for the second: -(1 - p)^2 log p
    logits = torch.tensor([[math.log(4.0), 0.0], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([-(0.2**2) * math.log(0.8), -(0.5**2) * math.log(0.5)], dtype=torch.float64)
    torch.testing.assert_close(softmax_focal_loss(logits, torch.tensor([0, 1]), reduction="none"), expected)
    # class weights divide out as in torch's cross entropy
    weighted = softmax_focal_loss(logits, torch.tensor([0, 1]), alpha=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(weighted, (expected[0] + 3 * expected[1]) / 4)
    torch.testing.assert_close(softmax_focal_loss(logits, torch.tensor([0, 1]), alpha=0.25, reduction="sum"), 0.25 * expected.sum())


def test_N5_softmax_focal_loss_with_gamma_0_is_cross_entropy(case):
    logits, mask = case
    weights = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(softmax_focal_loss(logits, mask, gamma=0), F.cross_entropy(logits, mask))
    torch.testing.assert_close(softmax_focal_loss(logits, mask, alpha=weights, gamma=0), F.cross_entropy(logits, mask, weights))


def test_N5_focal_gamma_is_0_to_5():
    for gamma in (-0.1, 5.1, math.nan):
        with pytest.raises(ValueError, match="gamma"):
            softmax_focal_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), gamma=gamma)


def test_N5_overlap_losses_by_hand():
    # Two classes, four pixels: p(class 1) = 0.9 0.8 0.3 0.4, truth 1 1 0 1
    p = torch.tensor([0.9, 0.8, 0.3, 0.4], dtype=torch.float64)
    logits = torch.stack([torch.zeros(4, dtype=torch.float64), torch.logit(p)])[None, :, None]
    mask = torch.tensor([[[1, 1, 0, 1]]])
    one, none = torch.tensor([0.0, 1.0]), 0.0
    tp, fp, fn = 0.9 + 0.8 + 0.4, 0.3, 0.1 + 0.2 + 0.6
    assert dice_loss(logits, mask, weights=one, smooth=none).item() == pytest.approx(1 - 2 * tp / (2 * tp + fp + fn))
    assert jaccard_loss(logits, mask, weights=one, smooth=none).item() == pytest.approx(1 - tp / (tp + fp + fn))
    tversky = 1 - tp / (tp + 0.3 * fp + 0.7 * fn)
    assert tversky_loss(logits, mask, weights=one, smooth=none).item() == pytest.approx(tversky)
    assert tversky_loss(logits, mask, weights=one, smooth=none, gamma=0.75).item() == pytest.approx(tversky**0.75)
    # class 0: TP 0.7, FP = the other's FN and the other way round
    mean = (2 - 2 * tp / (2 * tp + fp + fn) - 1.4 / (1.4 + fp + fn)) / 2
    assert dice_loss(logits, mask, smooth=none).item() == pytest.approx(mean)


def test_N5_tversky_holds_dice_and_jaccard(case):
    torch.testing.assert_close(tversky_loss(*case, alpha=0.5, beta=0.5, smooth=0), dice_loss(*case, smooth=0))
    torch.testing.assert_close(tversky_loss(*case, alpha=1, beta=1, smooth=0), jaccard_loss(*case, smooth=0))


def test_N5_overlap_is_that_of_hard_masks():
    """With certain scores the soft losses are those of the class maps (scikit-learn)."""
    from sklearn.metrics import f1_score, jaccard_score

    generator = torch.Generator().manual_seed(1)
    found, mask = torch.randint(0, 4, (2, 3, 6, 6), generator=generator)
    logits = F.one_hot(found, 4).movedim(-1, 1) * 1e4
    a, b = mask.flatten().numpy(), found.flatten().numpy()
    assert dice_loss(logits.float(), mask).item() == pytest.approx(1 - f1_score(a, b, average="macro"), abs=1e-6)
    assert jaccard_loss(logits.float(), mask).item() == pytest.approx(1 - jaccard_score(a, b, average="macro"), abs=1e-6)


def test_N5_absent_classes_do_not_count():
    logits, mask = torch.randn(1, 3, 4, 4), torch.randint(0, 2, (1, 4, 4))
    expected = torch.stack([dice_loss(logits, mask, weights=w) for w in torch.eye(3)[:2]]).mean()
    torch.testing.assert_close(dice_loss(logits, mask), expected)


@pytest.mark.parametrize("term", TERMS)
def test_N5_gradients(case, term):
    logits, mask = case
    loss = segmentation_loss(term, 3, [1.0, 2.0, 0.5])
    assert torch.autograd.gradcheck(lambda x: loss(x, mask)[term], logits)


@pytest.mark.parametrize("term", TERMS)
def test_N5_ignored_pixels_are_excluded_exactly(case, term):
    logits, mask = case
    loss = segmentation_loss(term, 3)
    value = loss(logits, mask)[term]
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[0, :, :2] == 0).all()
    assert (gradient[0, :, 2:] != 0).all()
    changed = logits.detach().clone()
    changed[0, :, :2] = 1e6 * torch.randn(3, 2, 4)
    assert loss(changed, mask)[term] == value.detach()


@pytest.mark.parametrize("spec", [EVERY, "ce"])
def test_N5_all_ignored_is_zero_with_a_gradient(spec):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    out = segmentation_loss(spec, 3, [1, 2, 3])(logits, torch.full((2, 4, 4), -100))
    assert all(v.item() == 0 for v in out.values())
    sum(out.values()).backward()
    assert (logits.grad == 0).all()


def test_N5_extreme_scores_stay_finite():
    mask = torch.randint(0, 3, (1, 4, 4))
    right = F.one_hot(mask, 3).movedim(-1, 1).float()
    for scale in (1e4, -1e4):
        logits = (right * scale).requires_grad_()
        out = segmentation_loss(EVERY, 3)(logits, mask)
        sum(out.values()).backward()
        assert all(torch.isfinite(v) for v in out.values())
        assert torch.isfinite(logits.grad).all()
    best = segmentation_loss(EVERY, 3)(right * 1e4, mask)
    assert all(v.item() < 1e-4 for v in best.values())


def test_N5_cross_entropy_is_torchs(case):
    logits, mask = case
    weights = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    ours = segmentation_loss("ce", 3, weights, label_smoothing=0.1)(logits, mask)["ce"]
    torch.testing.assert_close(ours, F.cross_entropy(logits, mask, weights, label_smoothing=0.1))
    torch.testing.assert_close(segmentation_loss("ce", 3)(logits, mask)["ce"], F.cross_entropy(logits, mask))


def test_specs_give_their_terms(case):
    for spec in SPECS:
        assert list(segmentation_loss(spec, 3)(*case)) == spec.split("+")
    loss = segmentation_loss("dice + focal", 3, [1, 1, 2])
    assert not loss.state_dict()
    assert not list(loss.parameters())


def test_masks_of_torchvision_and_half_precision_are_taken(case):
    logits, mask = case
    out = segmentation_loss(EVERY, 3)(logits.bfloat16(), tv_tensors.Mask(mask))
    assert all(type(v) is torch.Tensor and v.dtype == torch.float32 for v in out.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dise", 3), "did you mean 'dice'"),
        (("ce+", 3), "''"),
        (("dice+dice", 3), "twice"),
        (("ce", 3, [1, 2]), "3 numbers"),
        (("ce", 2, [1, -1]), "at least 0"),
        (("ce", 3, None, 1.0), "label_smoothing"),
        (("dice", 3, None, 0.1), "needs the term 'ce'"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments, message):
    with pytest.raises(UsageError, match=message):
        segmentation_loss(*arguments)
