"""The pyramid classifier against its parts."""

from __future__ import annotations

import pytest
import timm
import torch

from saccade import UsageError, create_model

TINY = {"backbone": "test_resnet.r160_in1k", "size": 64, "channels": 16}


def built(**options):
    torch.manual_seed(0)
    return create_model("fpn_classifier", 3, **(TINY | options)).eval()


def test_C16_the_pyramid_has_a_map_at_each_stride_of_equal_channels():
    model = built()
    assert model.strides == [4, 8, 16, 32]
    maps = model.pyramid(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 64 // s, 96 // s) for s in (4, 8, 16, 32)]


@torch.no_grad()
def test_C16_the_pyramid_is_lateral_plus_nearest_up_sampling():
    """Figure 3 of the paper, level by level, on timm's own maps."""
    model = built()
    images = torch.rand(1, 3, 64, 64)
    taps = model.backbone(images)
    chosen = [taps[i] for i in model.taps.indices]
    inner = [block(m) for block, m in zip(model.fpn.inner_blocks, chosen, strict=True)]
    for k in (2, 1, 0):
        inner[k] = inner[k] + inner[k + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    for got, block, m in zip(model.pyramid(images), model.fpn.layer_blocks, inner, strict=True):
        torch.testing.assert_close(got, block(m), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("combine", ["mean", "weighted", "max"])
@torch.no_grad()
def test_C16_one_head_a_level_combined(combine):
    model = built(combine=combine)
    for head in model.heads:
        head.weight.normal_()
    images = torch.rand(2, 3, 64, 64)
    levels = [maps.flatten(2).mean(2) @ head.weight.T + head.bias for maps, head in zip(model.pyramid(images), model.heads, strict=True)]
    if combine == "weighted":
        model.shares.copy_(torch.tensor([0.0, 1.0, 2.0, -1.0]))
        weights = [torch.e**v for v in (0.0, 1.0, 2.0, -1.0)]
        expected = sum(w * level for w, level in zip(weights, levels, strict=True)) / sum(weights)
    else:
        expected = sum(levels) / 4 if combine == "mean" else torch.stack(levels).max(0).values
    torch.testing.assert_close(model.raw(images), expected, rtol=1e-4, atol=1e-5)


def test_C16_the_backbones_preprocessing_travels_with_it():
    theirs = timm.models.get_pretrained_cfg("mobilevit_xxs")
    model = create_model("fpn_classifier", 3, backbone="mobilevit_xxs", size=96, channels=8)
    assert model.preprocess.mean == tuple(theirs.mean) == (0, 0, 0)
    assert built().preprocess.mean == tuple(timm.models.get_pretrained_cfg("test_resnet.r160_in1k").mean) != (0, 0, 0)


def test_C16_our_own_networks_are_backbones():
    model = create_model("fpn_classifier", 3, backbone="saccade_nin_imagenet", size=128, channels=4)
    assert model.strides == [4, 8, 16, 32]
    assert model.raw(torch.rand(1, 3, 128, 128)).shape == (1, 3)


def test_C16_an_unknown_backbone_is_suggested():
    with pytest.raises(UsageError, match=r"model\.backbone: .*resnet18"):
        create_model("fpn_classifier", backbone="resnt18")
