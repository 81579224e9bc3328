"""Blocks (CANON N4), ours and those that torchvision and timm keep, against their papers' equations written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, create_conv2d
from timm.layers.cbam import SpatialAttn
from timm.models.densenet import DenseBlock, DenseTransition
from timm.models.resnetv2 import PreActBasic, PreActBottleneck
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.ops import SqueezeExcitation

from saccade.layers.blocks import JointPyramidUpsampling, NaiveInception, PointwiseAttention
from saccade.models.classify.cspdarknet53 import Stage
from saccade.models.classify.googlenet import Inception
from saccade.models.darknet.layers import Reorg


def settled(module):
    """A module in eval mode whose batch normalisations are far from the identity."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return module.double().eval()


def bn(layer, x):
    """Batch normalisation in prediction, by its formula."""
    mean, variance, scale, shift = (t.view(-1, 1, 1) for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
    return (x - mean) / (variance + layer.eps).sqrt() * scale + shift


def maps(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# -- residual ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_N4_residual_basic_is_f_plus_x_then_relu(stride):
    short = nn.Sequential(nn.Conv2d(4, 6, 1, stride, bias=False), nn.BatchNorm2d(6)) if stride == 2 else None
    block, x = settled(BasicBlock(4, 6 if short else 4, stride, short)), maps(2, 4, 7, 6)
    inner = bn(block.bn1, F.conv2d(x, block.conv1.weight, None, stride, 1)).clamp_min(0)
    around = bn(short[1], F.conv2d(x, short[0].weight, None, stride)) if short else x
    expected = (bn(block.bn2, F.conv2d(inner, block.conv2.weight, None, 1, 1)) + around).clamp_min(0)
    torch.testing.assert_close(block(x), expected)


def test_N4_residual_bottleneck_has_a_quarter_of_the_maps_inside():
    block, x = settled(Bottleneck(16, 4)), maps(1, 16, 5, 5)
    assert [tuple(c.weight.shape) for c in (block.conv1, block.conv2, block.conv3)] == [(4, 16, 1, 1), (4, 4, 3, 3), (16, 4, 1, 1)]
    inner = bn(block.bn1, F.conv2d(x, block.conv1.weight)).clamp_min(0)
    inner = bn(block.bn2, F.conv2d(inner, block.conv2.weight, padding=1)).clamp_min(0)
    torch.testing.assert_close(block(x), (bn(block.bn3, F.conv2d(inner, block.conv3.weight)) + x).clamp_min(0))


def test_N4_preactivation_keeps_the_short_cut_clean():
    """x + W2 relu(bn2(W1 relu(bn1(x)))) (arXiv 1603.05027, figure 4e): nothing after the sum."""
    block, x = settled(PreActBasic(4, conv_layer=create_conv2d, norm_layer=BatchNormAct2d)), maps(2, 4, 6, 5)
    inner = F.conv2d(bn(block.norm1, x).clamp_min(0), block.conv1.weight, padding=1)
    inner = F.conv2d(bn(block.norm2, inner).clamp_min(0), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), x + inner)
    block = settled(PreActBottleneck(16, conv_layer=create_conv2d, norm_layer=BatchNormAct2d))
    x, inner = maps(1, 16, 5, 5), bn(block.norm1, maps(1, 16, 5, 5)).clamp_min(0)
    inner = bn(block.norm2, F.conv2d(inner, block.conv1.weight)).clamp_min(0)
    inner = bn(block.norm3, F.conv2d(inner, block.conv2.weight, padding=1)).clamp_min(0)
    torch.testing.assert_close(block(x), x + F.conv2d(inner, block.conv3.weight))


def test_N4_inverted_residual_is_wide_inside_and_linear_at_its_end():
    block, x = settled(InvertedResidual(4, 4, 1, 6)), maps(1, 4, 5, 6)
    expand, depthwise, project, norm = block.conv[0], block.conv[1], block.conv[2], block.conv[3]
    inner = bn(expand[1], F.conv2d(x, expand[0].weight)).clamp(0, 6)
    assert inner.shape[1] == 24
    inner = bn(depthwise[1], F.conv2d(inner, depthwise[0].weight, padding=1, groups=24)).clamp(0, 6)
    torch.testing.assert_close(block(x), x + bn(norm, F.conv2d(inner, project.weight)))
    assert InvertedResidual(4, 8, 2, 6)(torch.rand(2, 4, 6, 6)).shape == (2, 8, 3, 3)


# -- inception, dense -------------------------------------------------------------------------------


def test_N4_naive_inception_joins_four_branches():
    block, x = NaiveInception(3, (2, 4, 5)).double(), maps(1, 3, 6, 7)
    got = block(x)
    assert got.shape == (1, block.out_channels, 6, 7) == (1, 14, 6, 7)
    starts = (0, 2, 6, 11)
    for start, conv, side in zip(starts, block.convs, (1, 3, 5), strict=False):
        assert conv.kernel_size == (side, side)
        expected = F.conv2d(F.pad(x, [side // 2] * 4), conv.weight, conv.bias).clamp_min(0)
        torch.testing.assert_close(got[:, start : start + len(conv.weight)], expected)
    torch.testing.assert_close(got[:, 11:], F.max_pool2d(F.pad(x, [1] * 4, value=-math.inf), 3, 1))


def test_N4_reduction_makes_inception_cheaper():
    """Module 3a of GoogLeNet's table 1: 192 maps in, 64 + 128 + 32 + 32 out; without reductions the pooled 192 pass on."""

    def unit(a, b, k, **_):
        return nn.Conv2d(a, b, k, padding=k // 2)

    reduced, naive = Inception(192, (64, 96, 128, 16, 32, 32), unit), NaiveInception(192, (64, 128, 32))
    x = torch.rand(1, 192, 7, 7)
    assert reduced(x).shape[1] == 256
    assert naive(x).shape[1] == naive.out_channels == 416
    weights = {m: sum(p.numel() for p in m.parameters() if p.ndim == 4) for m in (reduced, naive)}
    assert weights[reduced] == 192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32
    assert weights[naive] == 192 * (64 + 9 * 128 + 25 * 32)


def test_N4_dense_layers_see_all_before_them_and_the_transition_halves():
    block, x = settled(DenseBlock(3, 6, bn_size=4, growth_rate=2)), maps(1, 6, 5, 5)
    all_maps = [x]
    for layer in block.values():
        joined = torch.cat(all_maps, 1)
        inner = F.conv2d(bn(layer.norm1, joined).clamp_min(0), layer.conv1.weight)
        assert inner.shape[1] == 4 * 2
        all_maps.append(F.conv2d(bn(layer.norm2, inner).clamp_min(0), layer.conv2.weight, padding=1))
    out = torch.cat(all_maps, 1)
    assert out.shape[1] == 6 + 3 * 2
    torch.testing.assert_close(block(x), out)
    transition = settled(DenseTransition(12, 6))
    expected = F.avg_pool2d(F.conv2d(bn(transition.norm, out).clamp_min(0), transition.conv.weight), 2)
    torch.testing.assert_close(transition(out), expected)


def test_N4_csp_sends_one_part_around_the_blocks():
    stage, x = settled(Stage(4, 8, 2, first=False)), maps(1, 4, 8, 8)
    mish = torch.nn.functional.mish

    def unit(layer, x):
        return mish(bn(layer.bn, F.conv2d(x, layer.conv.weight, None, layer.conv.stride, layer.conv.padding)))

    down = unit(stage.down, x)
    part = unit(stage.enter, down)
    for block in stage.blocks:
        part = part + unit(block.conv, unit(block.reduce, part))
    around = unit(stage.around, down)
    assert part.shape[1] == around.shape[1] == 4
    torch.testing.assert_close(stage(x), unit(stage.join, torch.cat([unit(stage.leave, part), around], 1)))


# -- attention --------------------------------------------------------------------------------------


def test_N4_squeeze_excite_scales_each_map_by_one_share():
    block, x = SqueezeExcitation(6, 2).double(), maps(2, 6, 4, 5)
    hidden = F.linear(x.mean((2, 3)), block.fc1.weight.flatten(1), block.fc1.bias).clamp_min(0)
    share = 1 / (1 + torch.exp(-F.linear(hidden, block.fc2.weight.flatten(1), block.fc2.bias)))
    torch.testing.assert_close(block(x), x * share[:, :, None, None])


def test_N4_sam_scales_each_position_by_one_share():
    block, x = settled(SpatialAttn(7)), maps(1, 6, 9, 8)
    described = torch.stack([x.mean(1), x.amax(1)], 1)
    share = bn(block.conv.bn, F.conv2d(described, block.conv.conv.weight, padding=3)).sigmoid()
    assert share.shape == (1, 1, 9, 8)
    torch.testing.assert_close(block(x), x * share)


def test_N4_yolov4s_sam_scales_each_value_by_its_own_share():
    block = PointwiseAttention(2).requires_grad_(False)
    block.conv.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]).view(2, 2, 1, 1))
    block.conv.bias.zero_()
    x = torch.tensor([5.0, math.log(3.0)]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    got = block(x)
    assert got[0, 0].flatten().tolist() == pytest.approx([5 * 0.75] * 9)  # sigmoid(log 3) = 3/4
    assert got[0, 1].flatten().tolist() == pytest.approx([math.log(3) / 2] * 9)


# -- context ----------------------------------------------------------------------------------------


def test_N4_aspp_is_dilated_branches_and_the_images_mean():
    block, x = settled(ASPP(4, [2, 3], 3)), maps(1, 4, 9, 8)
    parts = [bn(block.convs[0][1], F.conv2d(x, block.convs[0][0].weight)).clamp_min(0)]
    for number, rate in ((1, 2), (2, 3)):
        conv, norm = block.convs[number][0], block.convs[number][1]
        parts.append(bn(norm, F.conv2d(x, conv.weight, padding=rate, dilation=rate)).clamp_min(0))
    image = bn(block.convs[3][2], F.conv2d(x.mean((2, 3), keepdim=True), block.convs[3][1].weight)).clamp_min(0)
    parts.append(image.expand(-1, -1, 9, 8))
    expected = bn(block.project[1], F.conv2d(torch.cat(parts, 1), block.project[0].weight)).clamp_min(0)
    torch.testing.assert_close(block(x), expected)


def test_N4_jpu_is_its_figure():
    """Figure 4: (a) a convolution each, (b) enlarged and joined, separable convolutions of rates 1, 2, 4, 8."""
    block = settled(JointPyramidUpsampling((3, 4, 5), width=2))
    inputs = [maps(1, 3, 9, 13), maps(1, 4, 5, 7), maps(1, 5, 3, 4)]  # stride 2 apart, corners on corners: 9 = 2 * 5 - 1
    parts = []
    for conv, x in zip(block.convs, inputs, strict=True):
        part = bn(conv.bn, F.conv2d(x, conv.conv.weight, padding=1)).clamp_min(0)
        for _ in range({9: 0, 5: 1, 3: 2}[x.shape[2]]):  # doubling with corners on corners: means of neighbours in between
            rows = torch.stack([part[:, :, :-1], (part[:, :, :-1] + part[:, :, 1:]) / 2], 3).flatten(2, 3)
            rows = torch.cat([rows, part[:, :, -1:]], 2)
            columns = torch.stack([rows[..., :-1], (rows[..., :-1] + rows[..., 1:]) / 2], 4).flatten(3)
            part = torch.cat([columns, rows[..., -1:]], 3)
        parts.append(part)
    joined = torch.cat(parts, 1)
    expected = []
    for branch, rate in zip(block.branches, (1, 2, 4, 8), strict=True):
        inner = bn(branch[1], F.conv2d(joined, branch[0].weight, padding=rate, dilation=rate, groups=6))
        expected.append(bn(branch[2].bn, F.conv2d(inner, branch[2].conv.weight)).clamp_min(0))
    got = block(inputs)
    assert got.shape == (1, block.out_channels, 9, 13) == (1, 8, 9, 13)
    torch.testing.assert_close(got, torch.cat(expected, 1))


def test_N4_jpu_of_resnet_maps_gives_2048_at_stride_8():
    with torch.device("meta"):
        block = JointPyramidUpsampling((512, 1024, 2048))
        given = [torch.empty(2, c, s, s) for c, s in ((512, 60), (1024, 30), (2048, 15))]
        assert block(given).shape == (2, 2048, 60, 60)


def test_N4_jpu_of_odd_sizes_trains_and_exports():
    block = JointPyramidUpsampling((2, 3, 4), width=2)
    given = [torch.rand(1, 2, 7, 5), torch.rand(1, 3, 4, 3), torch.rand(1, 4, 2, 2)]
    block(given).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in block.parameters())
    block.eval()
    torch.testing.assert_close(torch.export.export(block, (given,)).module()(given), block(given))


# -- space and depth --------------------------------------------------------------------------------


def test_N4_space_to_depth_of_yolov2():
    x = torch.rand(1, 512, 26, 26)
    assert nn.PixelUnshuffle(2)(x).shape == Reorg((512, 26, 26), 2)(x).shape == (1, 2048, 13, 13)
    small = torch.arange(16.0).view(1, 1, 4, 4)
    assert nn.PixelUnshuffle(2)(small)[0].tolist() == [
        [[0, 2], [8, 10]], [[1, 3], [9, 11]], [[4, 6], [12, 14]], [[5, 7], [13, 15]],
    ]  # fmt: skip
    assert nn.PixelShuffle(2)(nn.PixelUnshuffle(2)(small)).equal(small)


def test_N4_darknets_reorg_keeps_every_value_but_not_the_papers_order():
    x = torch.arange(64.0).view(1, 4, 4, 4)
    got = Reorg((4, 4, 4), 2)(x)
    assert sorted(got.flatten().tolist()) == list(range(64))
    # the memory of 4 maps of 4x4 read as one map of 8x8, whose 2x2 neighbours become maps
    expected = torch.stack([x.view(8, 8)[i::2, j::2] for i in (0, 1) for j in (0, 1)]).reshape(1, 16, 2, 2)
    assert got.equal(expected)
    assert not got.equal(nn.PixelUnshuffle(2)(x))
