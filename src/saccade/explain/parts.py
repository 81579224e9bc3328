"""Where each part of a network is kept: the index of convolutions, poolings, blocks, normalisations, activations and losses.

What torch, torchvision and timm keep is not written again here; it stands in this list with the form that a paper means. Nothing is
imported until :meth:`Part.load`.

>>> part("roi_align").where
'torchvision.ops.RoIAlign'
>>> part("psp").load().__name__
'PyramidPooling'
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from saccade.types.errors import UsageError, suggest

Kind = Literal["convolution", "pooling", "block", "normalisation", "activation", "loss"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part.

    Attributes:
        name: by which :func:`part` finds it. kind: of :data:`KINDS`.
        where: dotted path of the class or function.
        example: a Python expression that makes it, or for a loss computes it; ``torch`` and ``nn`` are known, the part by its last name,
            and of timm.layers ``create_conv2d`` and ``BatchNormAct2d``.
        given, gives: shapes of what the example takes and gives; () for losses and what takes boxes too.
        summary: one line. paper: its first, or "".
    """

    name: str
    kind: Kind
    where: str
    example: str
    given: tuple[int, ...] = ()
    gives: tuple[int, ...] = ()
    summary: str
    paper: str = ""

    def load(self) -> Any:
        """The class or function itself."""
        module, _, name = self.where.rpartition(".")
        return getattr(importlib.import_module(module), name)


def part(name: str) -> Part:
    """The part of a name.

    Raises:
        UsageError: there is none; the nearest name is suggested.
    """
    for found in PARTS:
        if found.name == name:
            return found
    raise UsageError(f"no part is called {name!r}{suggest(name, [p.name for p in PARTS])}")


def _rows(kind: Kind, *rows: Sequence[Any]) -> list[Part]:
    """Parts of one kind. A row: name, module, example, given, gives, summary, paper; the example calls the part first of all."""
    parts = []
    for name, module, example, given, gives, summary, paper in rows:
        called = example[: example.index("(", 1)].rpartition(" ")[2]
        where = f"{module}.{called}"
        parts.append(Part(name=name, kind=kind, where=where, example=example, given=given, gives=gives, summary=summary, paper=paper))
    return parts


# fmt: off
PARTS: tuple[Part, ...] = (
    *_rows(
        "convolution",
        ("conv", "torch.nn", "Conv2d(3, 256, 5)", (1, 3, 12, 12), (1, 256, 8, 8), "plain", "LeCun et al. 1989"),
        ("strided", "torch.nn", "Conv2d(3, 96, 11, stride=4)", (1, 3, 227, 227), (1, 96, 55, 55), "every fourth position", ""),
        ("dilated", "torch.nn", "Conv2d(8, 8, 3, dilation=2, padding=2)",
         (1, 8, 9, 9), (1, 8, 9, 9), "3x3 weights over 5x5", "Yu, Koltun, arXiv 1511.07122"),
        ("transposed", "torch.nn", "ConvTranspose2d(8, 4, 4, stride=2, padding=1)",
         (1, 8, 4, 4), (1, 4, 8, 8), "learned upsampling", "Zeiler et al. 2010"),
        ("grouped", "torch.nn", "Conv2d(8, 16, 3, groups=2)",
         (1, 8, 5, 5), (1, 16, 3, 3), "parts of the maps by themselves", "Krizhevsky et al. 2012"),
        ("depthwise", "torch.nn", "Conv2d(8, 8, 3, groups=8)", (1, 8, 5, 5), (1, 8, 3, 3), "each map by itself", "Sifre 2014"),
        ("pointwise", "torch.nn", "Conv2d(8, 16, 1)",
         (1, 8, 5, 5), (1, 16, 5, 5), "each pixel by itself", "Lin, Chen, Yan, arXiv 1312.4400"),
        ("separable", "timm.layers", "SeparableConv2d(8, 16, 3)",
         (1, 8, 5, 5), (1, 16, 5, 5), "depthwise, then pointwise", "Chollet, arXiv 1610.02357"),
        ("conv1d", "torch.nn", "Conv1d(2, 4, 3)", (1, 2, 10), (1, 4, 8), "along a line", ""),
        ("causal", "saccade.layers.convolutions", "CausalConv1d(2, 4, 3, dilation=2)",
         (1, 2, 10), (1, 4, 10), "along time, past only", "van den Oord et al., arXiv 1609.03499"),
        ("conv3d", "torch.nn", "Conv3d(1, 4, 3)", (1, 1, 5, 6, 7), (1, 4, 3, 4, 5), "in a volume or a video", ""),
        ("deformable", "torchvision.ops", "DeformConv2d(4, 8, 3)", (), (), "learned offsets of the taps", "Dai et al., arXiv 1703.06211"),
    ),
    *_rows(
        "pooling",
        ("max", "torch.nn", "MaxPool2d(2)", (1, 4, 6, 6), (1, 4, 3, 3), "the maximum of each window", ""),
        ("average", "torch.nn", "AvgPool2d(2)", (1, 4, 6, 6), (1, 4, 3, 3), "the mean of each window", ""),
        ("sum", "saccade.layers.pooling", "SumPool2d(2)", (1, 4, 6, 6), (1, 4, 3, 3), "the sum of each window", ""),
        ("global_average", "torch.nn", "AdaptiveAvgPool2d(1)",
         (1, 4, 6, 5), (1, 4, 1, 1), "the mean of each map", "Lin, Chen, Yan, arXiv 1312.4400"),
        ("global_max", "torch.nn", "AdaptiveMaxPool2d(1)", (1, 4, 6, 5), (1, 4, 1, 1), "the maximum of each map", ""),
        ("unpool", "torch.nn", "MaxUnpool2d(2)",
         (), (), "maxima back to where MaxPool2d(return_indices=True) found them", "Zeiler, Fergus, arXiv 1311.2901"),
        ("spp", "saccade.layers.spp", "SpatialPyramidPooling((4, 2, 1))",
         (1, 256, 13, 9), (1, 5376), "a vector of fixed length from any size", "He et al., arXiv 1406.4729"),
        ("psp", "saccade.layers.pooling", "PyramidPooling(8)",
         (2, 8, 12, 9), (2, 16, 12, 9), "bins 1, 2, 3, 6 beside the maps", "Zhao et al., arXiv 1612.01105"),
        ("roi_pool", "torchvision.ops", "RoIPool((7, 7), 1 / 16)",
         (), (), "maxima of a box's bins, rounded to cells", "Girshick, arXiv 1504.08083"),
        ("roi_align", "torchvision.ops", "RoIAlign((7, 7), 1 / 16, 2, aligned=True)",
         (), (), "bilinear samples of a box's bins", "He et al., arXiv 1703.06870"),
        ("ps_roi_pool", "torchvision.ops", "PSRoIPool((3, 3), 1 / 16)",
         (), (), "means of a box's bins, each from its own maps", "Dai et al., arXiv 1605.06409"),
        ("ps_roi_align", "torchvision.ops", "PSRoIAlign((3, 3), 1 / 16, 2)",
         (), (), "as ps_roi_pool with bilinear samples", "Li et al., arXiv 1711.07264"),
    ),
    *_rows(
        "block",
        ("conv_bn", "saccade.layers.conv_bn", "ConvBN(3, 8, 3, 2)",
         (2, 3, 8, 8), (2, 8, 4, 4), "convolution, batch normalisation, activation", "Ioffe, Szegedy, arXiv 1502.03167"),
        ("residual_basic", "torchvision.models.resnet", "BasicBlock(8, 8)",
         (2, 8, 6, 6), (2, 8, 6, 6), "two 3x3 around a short cut", "He et al., arXiv 1512.03385"),
        ("residual_bottleneck", "torchvision.models.resnet", "Bottleneck(32, 8)",
         (2, 32, 6, 6), (2, 32, 6, 6), "1x1, 3x3, 1x1 around a short cut", "He et al., arXiv 1512.03385"),
        ("preactivation_basic", "timm.models.resnetv2", "PreActBasic(8, conv_layer=create_conv2d, norm_layer=BatchNormAct2d)",
         (2, 8, 6, 6), (2, 8, 6, 6), "normalisation and ReLU before each convolution", "He et al., arXiv 1603.05027"),
        ("preactivation_bottleneck", "timm.models.resnetv2", "PreActBottleneck(32, conv_layer=create_conv2d, norm_layer=BatchNormAct2d)",
         (2, 32, 6, 6), (2, 32, 6, 6), "the bottleneck likewise", "He et al., arXiv 1603.05027"),
        ("inception_naive", "saccade.layers.blocks", "NaiveInception(192, (64, 128, 32))",
         (1, 192, 7, 7), (1, 416, 7, 7), "1x1, 3x3, 5x5, pooling side by side", "Szegedy et al., arXiv 1409.4842"),
        ("inception", "torchvision.models.googlenet", "Inception(192, 64, 96, 128, 16, 32, 32)",
         (2, 192, 7, 7), (2, 256, 7, 7), "with 1x1 reductions; without batch normalisation: googlenet", "Szegedy et al., arXiv 1409.4842"),
        ("dense_block", "timm.models.densenet", "DenseBlock(6, 64, bn_size=4, growth_rate=32)",
         (2, 64, 6, 6), (2, 256, 6, 6), "each layer sees all before it", "Huang et al., arXiv 1608.06993"),
        ("dense_transition", "timm.models.densenet", "DenseTransition(256, 128)",
         (2, 256, 6, 6), (2, 128, 3, 3), "between dense blocks: half the maps, half the size", "Huang et al., arXiv 1608.06993"),
        ("squeeze_excite", "torchvision.ops", "SqueezeExcitation(16, 4)",
         (1, 16, 6, 6), (1, 16, 6, 6), "a share for each map from all means", "Hu et al., arXiv 1709.01507"),
        ("inverted_residual", "torchvision.models.mobilenetv2", "InvertedResidual(16, 16, 1, 6)",
         (2, 16, 6, 6), (2, 16, 6, 6), "wide in between, narrow outside", "Sandler et al., arXiv 1801.04381"),
        ("csp", "saccade.models.classify.cspdarknet53", "Stage(64, 128, 2, first=False)",
         (2, 64, 8, 8), (2, 128, 4, 4), "part of the maps goes around the blocks", "Wang et al., arXiv 1911.11929"),
        ("channel_attention", "timm.layers.cbam", "ChannelAttn(16, 1 / 4)",
         (1, 16, 6, 6), (1, 16, 6, 6), "CBAM: a share for each map from means and maxima", "Woo et al., arXiv 1807.06521"),
        ("spatial_attention", "timm.layers.cbam", "SpatialAttn(7)",
         (2, 16, 6, 6), (2, 16, 6, 6), "CBAM's SAM: a share for each position from means and maxima", "Woo et al., arXiv 1807.06521"),
        ("pointwise_attention", "saccade.layers.blocks", "PointwiseAttention(16)",
         (1, 16, 6, 6), (1, 16, 6, 6), "YOLOv4's SAM: a share for each value", "Bochkovskiy et al., arXiv 2004.10934"),
        ("aspp", "torchvision.models.segmentation.deeplabv3", "ASPP(32, [6, 12, 18], 16)",
         (2, 32, 9, 9), (2, 16, 9, 9), "dilated convolutions and the image's mean side by side", "Chen et al., arXiv 1706.05587"),
        ("jpu", "saccade.layers.blocks", "JointPyramidUpsampling((8, 16, 32), 4)",
         (), (), "maps of strides 8, 16, 32 to stride 8", "Wu et al., arXiv 1903.11816"),
        ("fpn", "torchvision.ops", "FeaturePyramidNetwork([8, 16], 4)",
         (), (), "top-down path with lateral 1x1 convolutions", "Lin et al., arXiv 1612.03144"),
        ("space_to_depth", "torch.nn", "PixelUnshuffle(2)",
         (1, 512, 26, 26), (1, 2048, 13, 13), "neighbours become maps, as the paper draws it", "Redmon, Farhadi, arXiv 1612.08242"),
        ("reorg", "saccade.models.darknet.layers", "Reorg((512, 26, 26), 2)",
         (1, 512, 26, 26), (1, 2048, 13, 13), "the pass-through as Darknet computes it", "Redmon, Farhadi, arXiv 1612.08242"),
        ("depth_to_space", "torch.nn", "PixelShuffle(2)",
         (1, 16, 5, 5), (1, 4, 10, 10), "maps become neighbours", "Shi et al., arXiv 1609.05158"),
    ),
    *_rows(
        "normalisation",
        ("batch_norm", "torch.nn", "BatchNorm2d(4)",
         (2, 4, 3, 3), (2, 4, 3, 3), "by each map's mean and variance over the batch", "Ioffe, Szegedy, arXiv 1502.03167"),
        ("frozen_batch_norm", "torchvision.ops", "FrozenBatchNorm2d(4)", (1, 4, 3, 3), (1, 4, 3, 3), "with constants, in training too", ""),
        ("group_norm", "torch.nn", "GroupNorm(2, 4)",
         (1, 4, 3, 3), (1, 4, 3, 3), "by groups of maps of one image", "Wu, He, arXiv 1803.08494"),
        ("layer_norm", "torch.nn", "LayerNorm(4)", (1, 3, 4), (1, 3, 4), "by the last axis", "Ba et al., arXiv 1607.06450"),
        ("instance_norm", "torch.nn", "InstanceNorm2d(4)",
         (1, 4, 3, 3), (1, 4, 3, 3), "by each map of one image", "Ulyanov et al., arXiv 1607.08022"),
        ("lrn", "torch.nn", "LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)",
         (1, 8, 3, 3), (1, 8, 3, 3), "by neighbouring maps; alpha is the paper's times n", "Krizhevsky et al. 2012"),
        ("pixel_norm", "timm.layers", "RmsNorm2d(4, eps=1e-8, affine=False)",
         (1, 4, 3, 3), (1, 4, 3, 3), "each pixel's vector to length sqrt(maps)", "Karras et al., arXiv 1710.10196"),
        ("dropout", "torch.nn", "Dropout(0.5)", (1, 8), (1, 8), "values to 0, the others up, in training", "Srivastava et al. 2014"),
        ("drop_block", "torchvision.ops", "DropBlock2d(0.1, 3)",
         (1, 4, 9, 9), (1, 4, 9, 9), "squares of maps to 0, the others up, in training", "Ghiasi et al., arXiv 1810.12890"),
        ("stochastic_depth", "torchvision.ops", "StochasticDepth(0.2, 'row')",
         (2, 4, 3, 3), (2, 4, 3, 3), "whole branches to 0, in training", "Huang et al., arXiv 1603.09382"),
    ),
    *_rows(
        "activation",
        ("sigmoid", "torch.nn", "Sigmoid()", (3,), (3,), "1 / (1 + e^-x)", ""),
        ("tanh", "torch.nn", "Tanh()", (3,), (3,), "hyperbolic tangent", ""),
        ("relu", "torch.nn", "ReLU()", (3,), (3,), "max(x, 0)", ""),
        ("relu6", "torch.nn", "ReLU6()", (3,), (3,), "min(max(x, 0), 6)", ""),
        ("leaky_relu", "torch.nn", "LeakyReLU(0.1)", (3,), (3,), "x, or 0.1 x below 0", "Maas et al. 2013"),
        ("prelu", "torch.nn", "PReLU()", (3,), (3,), "the slope below 0 is learned", "He et al., arXiv 1502.01852"),
        ("elu", "torch.nn", "ELU()", (3,), (3,), "x, or e^x - 1 below 0", "Clevert et al., arXiv 1511.07289"),
        ("softplus", "torch.nn", "Softplus()", (3,), (3,), "log(1 + e^x)", ""),
        ("silu", "torch.nn", "SiLU()", (3,), (3,), "x sigmoid(x), also called swish", "Ramachandran et al., arXiv 1710.05941"),
        ("mish", "torch.nn", "Mish()", (3,), (3,), "x tanh(softplus(x))", "Misra, arXiv 1908.08681"),
        ("gelu", "torch.nn", "GELU()", (3,), (3,), "x times the normal distribution at x", "Hendrycks, Gimpel, arXiv 1606.08415"),
        ("hardswish", "torch.nn", "Hardswish()", (3,), (3,), "x relu6(x + 3) / 6", "Howard et al., arXiv 1905.02244"),
        ("softmax", "torch.nn", "Softmax(1)", (2, 3), (2, 3), "shares that add up to 1", ""),
    ),
    *_rows(
        "loss",
        ("cross_entropy", "torch.nn.functional", "cross_entropy(logits, labels, weight=weights, label_smoothing=0.1)",
         (), (), "one of K classes; weighted, smoothed", "Szegedy et al., arXiv 1512.00567"),
        ("binary_cross_entropy", "torch.nn.functional", "binary_cross_entropy_with_logits(scores, targets)",
         (), (), "yes or no, from logits", ""),
        ("safe_bce", "saccade.losses.safe_bce", "safe_binary_cross_entropy(probabilities, targets)",
         (), (), "yes or no, from probabilities of 0 and 1 too", ""),
        ("focal", "saccade.losses.focal", "softmax_focal_loss(logits, labels, gamma=2.0)",
         (), (), "one of K classes, easy ones weigh less", "Lin et al., arXiv 1708.02002"),
        ("sigmoid_focal", "saccade.losses.focal", "sigmoid_focal_loss(scores, targets, alpha=0.25, gamma=2.0)",
         (), (), "yes or no, easy ones weigh less", "Lin et al., arXiv 1708.02002"),
        ("dice", "saccade.losses.dice", "dice_loss(logits, labels)",
         (), (), "1 - 2 TP / (2 TP + FP + FN)", "Milletari et al., arXiv 1606.04797"),
        ("jaccard", "saccade.losses.jaccard", "jaccard_loss(logits, labels)", (), (), "1 - TP / (TP + FP + FN)", "Rahman, Wang 2016"),
        ("tversky", "saccade.losses.tversky", "tversky_loss(logits, labels, alpha=0.3, beta=0.7)",
         (), (), "1 - TI, TI = TP / (TP + alpha FP + beta FN)", "Salehi et al., arXiv 1706.05721"),
        ("focal_tversky", "saccade.losses.tversky", "tversky_loss(logits, labels, gamma=0.75)",
         (), (), "(1 - TI)^gamma", "Abraham, Khan, arXiv 1810.07842"),
        ("smooth_l1", "torch.nn.functional", "smooth_l1_loss(scores, targets, beta=1.0)",
         (), (), "x^2 / (2 beta) below beta, |x| - beta / 2 above", "Girshick, arXiv 1504.08083"),
        ("iou", "saccade.boxes.iou", "(1 - paired_iou(boxes1, boxes2, 'iou')).mean()", (), (), "1 - I / U", ""),
        ("giou", "torchvision.ops", "generalized_box_iou_loss(boxes1, boxes2, reduction='mean')",
         (), (), "also less empty room around both", "Rezatofighi et al., arXiv 1902.09630"),
        ("diou", "torchvision.ops", "distance_box_iou_loss(boxes1, boxes2, reduction='mean')",
         (), (), "also nearer centres", "Zheng et al., arXiv 1911.08287"),
        ("ciou", "torchvision.ops", "complete_box_iou_loss(boxes1, boxes2, reduction='mean')",
         (), (), "also the same aspect ratio", "Zheng et al., arXiv 1911.08287"),
        ("contrastive", "saccade.losses.contrastive", "contrastive_loss(distances, targets, margin=1.0)",
         (), (), "Y D^2 + (1 - Y) max(m - D, 0)^2", "Hadsell et al. 2006"),
        ("triplet", "torch.nn.functional", "triplet_margin_loss(anchors, positives, negatives, margin=1.0)",
         (), (), "max(d(a, p) - d(a, n) + m, 0)", "Schroff et al., arXiv 1503.03832"),
    ),
)
# fmt: on
