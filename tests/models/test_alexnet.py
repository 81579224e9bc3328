"""AlexNet against the paper's sizes and torchvision's network."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from saccade import UsageError, create_model
from saccade.layers.backbones import register_own


@pytest.fixture(scope="module")
def two_towers():
    with torch.device("meta"):
        return create_model("alexnet").network


def sizes(network, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Output shape without the batch of every layer."""
    out = {}
    for name, module in (*network.features.named_children(), *network.head.named_children()):
        image = module(image)
        out[name] = tuple(image.shape[1:])
    return out


def test_C2_alexnet_has_the_papers_sizes(two_towers):
    got = sizes(two_towers, torch.empty(1, 3, 227, 227, device="meta"))
    expected = {
        "conv1": (96, 55, 55), "pool1": (96, 27, 27), "conv2": (256, 27, 27), "pool2": (256, 13, 13), "conv3": (384, 13, 13),
        "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected


def test_C2_alexnet_of_two_towers_has_60965224_parameters(two_towers):
    assert sum(p.numel() for p in two_towers.parameters()) == 60_965_224


def test_C2_alexnet_of_two_towers_has_groups_where_the_paper_splits(two_towers):
    assert [two_towers.features.get_submodule(f"conv{k}").groups for k in range(1, 6)] == [1, 2, 1, 2, 2]


def test_C2_alexnet_normalises_by_the_sum_over_five_neighbours_as_the_paper_writes():
    """b_i = a_i / (k + alpha sum_j a_j^2)^beta, j within 2 of i."""
    norm = create_model("alexnet", 2, size=67, width=0.25).network.features.norm1
    maps = torch.rand(1, 8, 1, 1, dtype=torch.float64) * 30
    a = maps.flatten().tolist()
    for i in range(8):
        total = sum(a[j] ** 2 for j in range(max(0, i - 2), min(8, i + 3)))
        assert norm(maps)[0, i, 0, 0] == pytest.approx(a[i] / (2 + 1e-4 * total) ** 0.75, rel=1e-9)


def test_C2_alexnet_of_one_tower_is_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(weights=None, num_classes=7).eval()
    ours = create_model("alexnet", 7, form="one_tower").eval()
    ours.load_state_dict(ours.translate_weights(theirs.state_dict()))
    image = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours.raw(image), theirs(image))


def test_C2_alexnet_of_one_tower_has_61100840_parameters():
    with torch.device("meta"):
        network = create_model("alexnet", form="one_tower").network
    assert sum(p.numel() for p in network.parameters()) == 61_100_840


def test_C2_alexnet_paper_init_has_ones_where_the_paper_says():
    network = create_model("alexnet", 5, size=67, width=0.25, init="paper").network
    ones = {name.removesuffix(".bias").rpartition(".")[2] for name, p in network.named_parameters() if name.endswith("bias") and p.all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert network.head.fc7.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_C2_alexnet_says_the_sizes_that_work():
    model = create_model("alexnet", 3, size=67, width=0.0625)
    with pytest.raises(UsageError, match=r"67x67, not 64x80.*model\.size"):
        model.raw(torch.zeros(1, 3, 64, 80))
    with pytest.raises(UsageError, match=r"40x40; the least model.size is 67"):
        create_model("alexnet", 3, size=40)


def test_C2_alexnet_weights_are_published_for_one_form_only():
    with pytest.raises(UsageError, match="one_tower"):
        create_model("alexnet", pretrained=True)


def test_C2_alexnet_dropout_falls_on_both_hidden_inputs():
    model = create_model("alexnet", 3, size=67, width=0.0625, dropout=0.25)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.25, 0.25]


def test_C2_alexnet_is_a_backbone_of_timm():
    register_own()
    network = timm.create_model("saccade_alexnet", features_only=True, in_chans=1, width=0.0625, out_indices=(0, 2))
    image = torch.rand(1, 1, 227, 227)
    maps = network(image)
    assert network.feature_info.channels() == [8, 16]
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 55, 55), (16, 13, 13)]
    assert network.feature_info.reduction() == [4, 16]
    assert F.relu(maps[1]).equal(maps[1])
    head = timm.create_model("saccade_alexnet", num_classes=5, width=0.0625, size=67)
    assert head(torch.rand(1, 3, 67, 67)).shape == (1, 5)
    assert head.forward_head(head.forward_features(torch.rand(1, 3, 67, 67)), pre_logits=True).shape == (1, 256)
    head.reset_classifier(9)
    assert head(torch.rand(1, 3, 67, 67)).shape == (1, 9)
