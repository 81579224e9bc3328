"""Normalisation, dropout, activations and the classifier's layers by hand (CANON N8): torch's, torchvision's and timm's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import RmsNorm2d
from torch import nn
from torchvision.ops import DropBlock2d, FrozenBatchNorm2d

from saccade.layers.conv_bn import ACTIVATIONS
from saccade.layers.fpn import convert_norm


def test_N8_batch_norm_trains_by_the_batch_and_predicts_by_running_values():
    norm = nn.BatchNorm2d(1, momentum=0.1, eps=1e-12)
    x = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(2, 1, 1, 2)  # mean 4, variance 5, unbiased 20/3
    torch.testing.assert_close(norm(x).flatten(), torch.tensor([-3.0, -1.0, 1.0, 3.0]) / math.sqrt(5))
    assert norm.running_mean.item() == pytest.approx(0.9 * 0 + 0.1 * 4)
    assert norm.running_var.item() == pytest.approx(0.9 * 1 + 0.1 * 20 / 3)
    mean, variance = 0.4, 0.9 + 2 / 3
    norm.eval()
    torch.testing.assert_close(norm(x).flatten(), (x.flatten() - mean) / math.sqrt(variance))
    assert norm.running_mean.item() == pytest.approx(mean)  # eval moves nothing
    norm.weight.data.fill_(2.0)
    norm.bias.data.fill_(-1.0)
    torch.testing.assert_close(norm(x).flatten(), 2 * (x.flatten() - mean) / math.sqrt(variance) - 1)


def test_N8_frozen_batch_norm_is_the_same_constants_in_both_modes():
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(8, 3, 4, 4) * 3 + 1)
    norm.weight.data.uniform_(0.5, 2.0)
    frozen = FrozenBatchNorm2d(3)
    frozen.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 5, 5) * 7
    torch.testing.assert_close(frozen(x), norm.eval()(x))
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    torch.testing.assert_close(frozen.train()(x), frozen.eval()(x))
    assert all(before[k].equal(v) for k, v in frozen.state_dict().items())
    assert list(frozen.parameters()) == []


def test_N8_a_whole_network_is_frozen_with_its_values():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    net(torch.randn(4, 3, 8, 8))
    x = torch.randn(1, 3, 8, 8)
    expected = net.eval()(x)
    frozen = convert_norm(net, "frozen").train()
    torch.testing.assert_close(frozen(x), expected)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())


@pytest.mark.parametrize("n", [3, 5])
def test_N8_lrn_by_its_loop_and_torch_divides_alpha_by_n(n):
    """b_i = a_i / (k + alpha sum over n neighbouring maps of a_j^2)^beta (Krizhevsky et al. 2012, section 3.3)."""
    k, alpha, beta = 2.0, 1e-1, 0.75  # a large alpha, so that the factor n shows
    x = torch.randn(1, 7, 2, 2, dtype=torch.float64)
    expected = torch.empty_like(x)
    for i in range(7):
        near = x[:, max(0, i - n // 2) : min(7, i + n // 2 + 1)]
        expected[:, i] = x[:, i] / (k + alpha * near.square().sum(1)) ** beta
    torch.testing.assert_close(nn.LocalResponseNorm(n, alpha * n, beta, k)(x), expected)
    assert not nn.LocalResponseNorm(n, alpha, beta, k)(x).allclose(expected)


def test_N8_pixel_norm_gives_every_pixel_the_same_length():
    """b = a / sqrt(mean of a^2 over the maps + 1e-8) (Karras et al., arXiv 1710.10196, section 4.2)."""
    norm, x = RmsNorm2d(6, eps=1e-8, affine=False), torch.randn(2, 6, 3, 4) * 5
    length = (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    torch.testing.assert_close(norm(x), x / length)
    torch.testing.assert_close(norm(x).norm(dim=1), torch.full((2, 3, 4), math.sqrt(6)))
    assert norm(torch.tensor([3.0, 4.0, 0, 0, 0, 0]).view(1, 6, 1, 1)).flatten()[:2].tolist() == pytest.approx(
        [3 / math.sqrt(25 / 6), 4 / math.sqrt(25 / 6)]
    )
    assert list(norm.parameters()) == []


def test_N8_dropout_drops_and_scales_in_training_only():
    torch.manual_seed(0)
    drop, x = nn.Dropout(0.25), torch.ones(40_000)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 40_000))
    assert drop.eval()(x) is x


def test_N8_drop_block_drops_whole_squares_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = DropBlock2d(0.1, 3), torch.ones(16, 8, 20, 20)
    out = drop(x)
    gone = out == 0
    # every zero lies in a 3x3 square of zeros
    whole = -F.max_pool2d(-gone.float(), 3, 1)  # squares all of zeros
    assert F.max_pool2d(F.pad(whole, [2] * 4), 3, 1).bool().equal(gone)
    assert not gone[0, 0].equal(gone[0, 1])  # each map by itself
    assert gone.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=1e-4)  # the others are scaled up by what is kept
    kept = out[~gone]
    assert kept.min() == kept.max() > 1
    assert drop.eval()(x).equal(x)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softplus(x):
    return math.log(1 + math.exp(x))


FORMULAS = {
    nn.Sigmoid(): sigmoid,
    nn.Tanh(): lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)),
    nn.ReLU(): lambda x: max(x, 0),
    nn.ReLU6(): lambda x: min(max(x, 0), 6),
    nn.LeakyReLU(0.1): lambda x: x if x > 0 else 0.1 * x,
    nn.PReLU(init=0.25): lambda x: x if x > 0 else 0.25 * x,
    nn.ELU(): lambda x: x if x > 0 else math.exp(x) - 1,
    nn.Softplus(): softplus,
    nn.SiLU(): lambda x: x * sigmoid(x),
    nn.Mish(): lambda x: x * math.tanh(softplus(x)),
    nn.GELU(): lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    nn.Hardswish(): lambda x: x * min(max(x + 3, 0), 6) / 6,
}


@pytest.mark.parametrize("layer", FORMULAS, ids=lambda layer: type(layer).__name__)
def test_N8_activations_by_their_formulas(layer):
    values = [-8.0, -3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0, 5.0, 7.0]
    with torch.no_grad():
        got = layer.double()(torch.tensor(values, dtype=torch.float64)).tolist()
    assert got == pytest.approx([FORMULAS[layer](x) for x in values], abs=1e-12)


def test_N8_activations_at_points_worked_by_hand():
    log2 = torch.tensor(math.log(2.0))
    assert nn.Tanh()(log2).item() == pytest.approx(3 / 5)  # (2 - 1/2) / (2 + 1/2)
    assert nn.SiLU()(log2).item() == pytest.approx(math.log(2) * 2 / 3)
    assert nn.Mish()(log2).item() == pytest.approx(math.log(2) * 4 / 5)  # softplus = log 3; tanh(log 3) = 8/10
    assert ACTIVATIONS["leaky"]()(torch.tensor(-2.0)).item() == pytest.approx(-0.2)
    assert ACTIVATIONS["mish"]()(log2).item() == pytest.approx(math.log(2) * 4 / 5)


def test_N8_flatten_dense_and_softmax_by_hand():
    x = torch.arange(12.0).view(1, 3, 2, 2)
    assert nn.Flatten()(x).tolist() == [list(range(12))]  # map by map, row by row
    dense = nn.Linear(3, 2).requires_grad_(False)
    dense.weight.copy_(torch.tensor([[1.0, 2, 3], [0, -1, 1]]))
    dense.bias.copy_(torch.tensor([10.0, 20]))
    assert dense(torch.tensor([[1.0, 1, 2]])).tolist() == [[19, 21]]
    logits = torch.log(torch.tensor([[1.0, 2, 5]]))
    torch.testing.assert_close(nn.Softmax(1)(logits), torch.tensor([[0.125, 0.25, 0.625]]))
    torch.testing.assert_close(nn.Softmax(1)(logits + 1000), torch.tensor([[0.125, 0.25, 0.625]]))  # a shift changes nothing
