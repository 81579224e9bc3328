"""ZFNet against figure 3 of the paper and a count by hand."""

from __future__ import annotations

import pytest
import timm
import torch

from saccade import UsageError, create_model
from saccade.layers.backbones import register_own


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return create_model("zfnet").network


def test_C3_zfnet_has_the_sizes_of_figure_3(network):
    image, got = torch.empty(1, 3, 224, 224, device="meta"), {}
    for name, module in (*network.features.named_children(), *network.head.named_children()):
        image = module(image)
        got[name] = tuple(image.shape[1:])
    expected = {
        "conv1": (96, 110, 110), "pool1": (96, 55, 55), "conv2": (256, 26, 26), "pool2": (256, 13, 13), "conv3": (384, 13, 13),
        "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected


def test_C3_zfnet_has_62357608_parameters(network):
    convolutions = (7 * 7 * 3 + 1) * 96 + (5 * 5 * 96 + 1) * 256 + (9 * 256 + 1) * 384 + (9 * 384 + 1) * 384 + (9 * 384 + 1) * 256
    dense = (256 * 6 * 6 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert convolutions + dense == 62_357_608
    assert sum(p.numel() for p in network.parameters()) == 62_357_608


def test_C3_zfnet_is_connected_densely_and_begins_with_7x7_at_stride_2(network):
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.groups for m in convolutions} == {1}
    assert (convolutions[0].kernel_size, convolutions[0].stride) == ((7, 7), (2, 2))
    assert (convolutions[1].kernel_size, convolutions[1].stride) == ((5, 5), (2, 2))


def test_C3_zfnet_normalises_after_pooling(network):
    names = list(dict(network.features.named_children()))
    assert [names[names.index(f"norm{k}") - 1] for k in (1, 2)] == ["pool1", "pool2"]


def test_C3_zfnet_says_the_sizes_that_work():
    with pytest.raises(UsageError, match=r"64x64, not 64x80.*model\.size"):
        create_model("zfnet", 3, size=64, width=0.0625).raw(torch.zeros(1, 3, 64, 80))
    with pytest.raises(UsageError, match=r"model\.size=16"):
        create_model("zfnet", 3, size=16)
    with pytest.raises(UsageError, match="no weights"):
        create_model("zfnet", pretrained=True)


def test_C3_zfnet_is_a_backbone_of_timm():
    register_own()
    network = timm.create_model("saccade_zfnet", features_only=True, width=0.0625)
    maps = network(torch.rand(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 110, 110), (16, 26, 26), (16, 13, 13)]
    assert network.feature_info.reduction() == [2, 8, 16]
