"""GoogLeNet against the paper's table 1 and torchvision's network."""

from __future__ import annotations

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from saccade import UsageError, create_model, testing
from saccade.layers.backbones import register_own

TABLE_1 = """
3a 64 96 128 16 32 32
3b 128 128 192 32 96 64
4a 192 96 208 16 48 64
4b 160 112 224 24 64 64
4c 128 128 256 24 64 64
4d 112 144 288 32 64 64
4e 256 160 320 32 128 128
5a 256 160 320 32 128 128
5b 384 192 384 48 128 128
"""
ROWS = {row.split()[0]: [int(v) for v in row.split()[1:]] for row in TABLE_1.strip().splitlines()}


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return create_model("googlenet").network


def conv(maps_in: int, maps_out: int, side: int) -> int:
    """Weights and biases."""
    return (side * side * maps_in + 1) * maps_out


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_C6_googlenet_has_the_sizes_of_table_1(network):
    maps, got = torch.empty(1, 3, 224, 224, device="meta"), {}
    for name, layer in network.features.named_children():
        maps = layer(maps)
        got[name] = tuple(maps.shape[1:])
    expected = {
        "conv1": (64, 112, 112), "pool1": (64, 56, 56), "conv2": (192, 56, 56), "pool2": (192, 28, 28),
        "inception_3a": (256, 28, 28), "inception_3b": (480, 28, 28), "pool3": (480, 14, 14),
        "inception_4a": (512, 14, 14), "inception_4b": (512, 14, 14), "inception_4c": (512, 14, 14), "inception_4d": (528, 14, 14),
        "inception_4e": (832, 14, 14), "pool4": (832, 7, 7), "inception_5a": (832, 7, 7), "inception_5b": (1024, 7, 7),
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected


def test_C6_googlenet_has_the_parameters_of_table_1(network):
    total, before = conv(3, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3), 192
    for name, (one, reduce3, three, reduce5, five, projection) in ROWS.items():
        here = conv(before, one, 1) + conv(before, reduce3, 1) + conv(reduce3, three, 3)
        here += conv(before, reduce5, 1) + conv(reduce5, five, 5) + conv(before, projection, 1)
        assert count(network.features.get_submodule(f"inception_{name}")) == here
        total, before = total + here, one + three + five + projection
    total += before * 1000 + 1000
    assert total == 6_998_552
    assert count(network.features) + count(network.head) == total


def test_C6_googlenet_has_nine_modules_and_22_layers(network):
    modules = [name for name, _ in network.features.named_children() if name.startswith("inception")]
    assert len(modules) == 9
    stem = sum(isinstance(m, nn.Conv2d) for n, m in network.features.named_modules() if not n.startswith("inception"))
    deepest = sum(isinstance(m, nn.Conv2d) for m in network.features.inception_3a.conv5x5.modules())
    assert stem + 9 * deepest + 1 == 22


def test_C6_googlenet_has_no_batch_normalisation_and_two_local_response_normalisations(network):
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(isinstance(m, nn.LocalResponseNorm) for m in network.modules()) == 2


def test_C6_googlenet_auxiliary_heads_stand_as_in_section_5(network):
    for name, depth in (("4a", 512), ("4d", 528)):
        head = network.get_submodule(f"auxiliary_{name}")
        pooled = head.pool(torch.empty(1, depth, 14, 14, device="meta"))
        assert pooled.shape == (1, depth, 4, 4)
        assert head.conv.conv.weight.shape == (128, depth, 1, 1)
        assert head.fc.weight.shape == (1024, 4 * 4 * 128)
        assert head.drop.p == 0.7
        assert head.output.weight.shape == (1000, 1024)
    modules = [name for name, _ in network.features.named_children() if name.startswith("inception")]
    assert [modules.index(f"inception_{name}") + 1 for name in ("4a", "4d")] == [3, 6]


def test_C6_googlenet_loss_is_main_and_three_tenths_of_each_head():
    model = testing.build("googlenet", 5).eval()
    with torch.no_grad():
        for layer in (model.network.head.fc, model.network.auxiliary_4a.output, model.network.auxiliary_4d.output):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([2.0, 0, 0, 0, 0]))
    losses = model.losses(torch.randn(2, 3, 80, 80), [{"label": torch.tensor(0)}, {"label": torch.tensor(1)}])
    expected = math.log(math.exp(2) + 4) - (2 + 0) / 2
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({"ce": expected, "ce_4a": 0.3 * expected, "ce_4d": 0.3 * expected})


def test_C6_googlenet_heads_are_off_at_inference_where_any_size_goes():
    model = testing.build("googlenet").eval()
    image = torch.randn(1, 3, 97, 120)
    before = model.raw(image)
    for name in ("4a", "4d"):
        nn.init.normal_(model.network.get_submodule(f"auxiliary_{name}").fc.weight)
    assert torch.equal(model.raw(image), before)
    with pytest.raises(UsageError, match=r"80x80.*not 97x120.*model\.size"):
        model.losses(image, [{"label": torch.tensor(0)}])
    with pytest.raises(UsageError, match=r"40x40; the least model.size is 79"):
        create_model("googlenet", 3, size=40, width=0.0625)


def test_C6_googlenet_of_torchvision_gives_its_outputs():
    torch.manual_seed(0)
    theirs = torchvision.models.googlenet(weights=None, num_classes=7, aux_logits=True, transform_input=True, init_weights=False)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = create_model("googlenet", 7, form="batch_norm", size=96)
    ours.load_state_dict(ours.translate_weights(theirs.state_dict()))
    theirs.eval()
    ours.eval()
    image = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert ours.preprocess.mean == ours.preprocess.std == (0.5, 0.5, 0.5)
    with torch.no_grad():
        torch.testing.assert_close(ours.raw((image - 0.5) / 0.5), theirs((image - mean) / std), rtol=1e-5, atol=1e-5)
        maps = torch.randn(2, 528, 6, 6)
        torch.testing.assert_close(ours.network.auxiliary_4d(maps), theirs.aux2(maps), rtol=1e-5, atol=1e-5)
        maps = torch.randn(2, 512, 6, 6)
        torch.testing.assert_close(ours.network.auxiliary_4a(maps), theirs.aux1(maps), rtol=1e-5, atol=1e-5)


def test_C6_googlenet_of_torchvision_loads_for_other_classes(monkeypatch):
    from saccade.models.classify import network

    theirs = torchvision.models.googlenet(weights=None, num_classes=11, aux_logits=True, init_weights=False)
    published = {name: value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    monkeypatch.setattr(network, "fetch_torchvision", lambda weights: dict(published))
    model = create_model("googlenet", 4, form="batch_norm", pretrained=True)
    assert torch.equal(model.network.features.conv1.conv.weight, theirs.conv1.conv.weight)
    assert torch.equal(model.network.auxiliary_4a.fc.weight, theirs.aux1.fc1.weight)
    assert model.network.auxiliary_4a.output.weight.shape[0] == 4
    with pytest.raises(UsageError, match="batch_norm"):
        create_model("googlenet", pretrained=True)


def test_C6_googlenet_form_of_torchvision_learns_too():
    model = create_model("googlenet", 3, form="batch_norm", size=64, width=0.0625)
    losses = model.losses(torch.randn(4, 3, 64, 64), [{"label": torch.tensor(k % 3)} for k in range(4)])
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_C6_googlenet_takes_other_classes_in_all_heads():
    network = testing.build("googlenet").network
    network.reset_classifier(9)
    assert {name: tuple(v.shape) for name, v in network.all_logits(torch.randn(2, 3, 80, 80)).items()} == {
        "4a": (2, 9), "4d": (2, 9), "": (2, 9),
    }  # fmt: skip


def test_C6_googlenet_is_a_backbone_of_timm_without_auxiliary_heads():
    register_own()
    with torch.device("meta"):
        whole = timm.create_model("saccade_googlenet")
    assert count(whole) == 6_998_552
    network = timm.create_model("saccade_googlenet", features_only=True, in_chans=1, width=0.0625)
    maps = network(torch.rand(1, 1, 64, 64))
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [64 // m.shape[2] for m in maps] == network.feature_info.reduction() == [2, 4, 8, 16, 32]
