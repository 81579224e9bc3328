"""Convolution, batch normalisation, activation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from saccade.layers.conv_bn import ConvBN

LITERAL = {
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "linear": lambda x: x,
}


@pytest.mark.parametrize("activation", LITERAL)
def test_N3_conv_bn_by_its_formula(activation):
    torch.manual_seed(0)
    layer = ConvBN(4, 6, (1, 3), 2, groups=2, activation=activation, eps=1e-3).eval()
    for tensor in (layer.bn.weight.data, layer.bn.bias.data, layer.bn.running_mean):
        tensor.normal_(0, 2)
    layer.bn.running_var.uniform_(0.5, 2)
    image = torch.randn(2, 4, 7, 9) * 5
    maps = F.conv2d(image, layer.conv.weight, stride=2, padding=(0, 1), groups=2)
    mean, variance, gamma, beta = (
        v.view(1, -1, 1, 1) for v in (layer.bn.running_mean, layer.bn.running_var, layer.bn.weight, layer.bn.bias)
    )
    torch.testing.assert_close(layer(image), LITERAL[activation](gamma * (maps - mean) / (variance + 1e-3).sqrt() + beta))


def test_N3_conv_bn_stores_its_tensors_in_order_and_no_bias():
    assert [name for name, _ in ConvBN(3, 8, 3).named_parameters()] == ["conv.weight", "bn.weight", "bn.bias"]
    assert ConvBN(3, 8, 3, padding=0)(torch.rand(2, 3, 9, 9)).shape == (2, 8, 7, 7)
