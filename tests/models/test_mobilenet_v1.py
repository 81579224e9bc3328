"""MobileNet v1 against the paper's table and equation, and timm's network."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from saccade import UsageError, create_model
from saccade.layers.backbones import register_own
from saccade.models.classify.mobilenet_v1 import separable_cost


def on_meta(**options):
    with torch.device("meta"):
        return create_model("mobilenet_v1", **options)


def cost(layer, maps: torch.Tensor) -> int:
    """Multiply-adds of a separable layer by its own weights and output."""
    middle = layer.depthwise(maps)
    out = layer.pointwise(middle)
    return layer.depthwise.conv.weight.numel() * middle[0, 0].numel() + layer.pointwise.conv.weight.numel() * out[0, 0].numel()


def test_C12_mobilenet_v1_has_the_sizes_of_table_1():
    maps, got = torch.empty(1, 3, 224, 224, device="meta"), []
    for layer in on_meta().network.features:
        maps = layer(maps)
        got.append(tuple(maps.shape[1:]))
    assert got == [
        (32, 112, 112), (64, 112, 112), (128, 56, 56), (128, 56, 56), (256, 28, 28), (256, 28, 28), *[(512, 14, 14)] * 6,
        (1024, 7, 7), (1024, 7, 7),
    ]  # fmt: skip


@pytest.mark.parametrize(("alpha", "parameters"), [(1.0, 4_231_976), (0.75, 2_585_560), (0.5, 1_331_592), (0.25, 470_072)])
def test_C12_mobilenet_v1_parameters_by_alpha(alpha, parameters):
    """Tables 6 and 9 of the paper round them to 4.2, 2.6, 1.3 and 0.5 million."""
    assert sum(p.numel() for p in on_meta(alpha=alpha).parameters()) == parameters
    assert f"{parameters / 1e6:.1f}" == {1.0: "4.2", 0.75: "2.6", 0.5: "1.3", 0.25: "0.5"}[alpha]


@pytest.mark.parametrize(("alpha", "rho"), [(1.0, 1.0), (0.75, 1.0), (0.5, 160 / 224), (0.25, 128 / 224)])
def test_C12_a_separable_layer_costs_what_equation_7_says(alpha, rho):
    """n*n*(a z)*(r k)^2 + (a y)*(r k)^2*(a z) at the layers of 512 maps on 14x14."""
    model = on_meta(alpha=alpha, rho=rho)
    side = round(14 * rho)
    assert model.preprocess.size == (16 * side, 16 * side)
    z, y = round(512 * alpha), round(512 * alpha)
    maps = torch.empty(1, z, side, side, device="meta")
    by_hand = 3 * 3 * z * side**2 + y * side**2 * z
    assert cost(model.network.features.conv8, maps) == by_hand == pytest.approx(separable_cost(14, 512, 512, alpha=alpha, rho=rho))


def test_C12_a_separable_layer_costs_an_eighth_to_a_ninth_of_a_full_one():
    full = 3 * 3 * 512 * 512 * 14 * 14
    assert separable_cost(14, 512, 512) / full == pytest.approx(1 / 512 + 1 / 9)


def test_C12_mobilenet_v1_gives_timms_logits():
    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv1_100", num_classes=7).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = create_model("mobilenet_v1", 7).eval()
    ours.load_state_dict(ours.translate_weights(theirs.state_dict()))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.raw(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_C12_mobilenet_v1_loads_timms_weights_for_one_form_only(monkeypatch):
    real_create = timm.create_model
    theirs = real_create("mobilenetv1_100", num_classes=4, in_chans=1)
    asked = []

    def fetch(name, pretrained, **options):
        asked.append((name, pretrained, options))
        return theirs

    monkeypatch.setattr(timm, "create_model", fetch)
    model = create_model("mobilenet_v1", 4, in_chans=1, pretrained=True)
    assert asked == [("mobilenetv1_100", True, {"num_classes": 4, "in_chans": 1})]
    assert torch.equal(model.network.features.conv14.pointwise.conv.weight, theirs.blocks[4][1].conv_pw.weight)
    assert model.preprocess.crop == timm.get_pretrained_cfg("mobilenetv1_100").crop_pct
    with pytest.raises(UsageError, match=r"model\.alpha=1"):
        create_model("mobilenet_v1", alpha=0.5, pretrained=True)


def test_C12_mobilenet_v1_is_a_backbone_of_timm():
    register_own()
    network = timm.create_model("saccade_mobilenet_v1", features_only=True, alpha=0.25)
    maps = network(torch.rand(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == network.feature_info.channels() == [16, 32, 64, 128, 256]
    assert [64 // m.shape[2] for m in maps] == network.feature_info.reduction() == [2, 4, 8, 16, 32]
