"""SSDlite: a single-shot detector whose prediction layers are depthwise separable.

Papers:
    Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, 2016, arXiv 1512.02325.
    Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv 1801.04381 (6.2: SSDlite).
    Howard et al.: Searching for MobileNetV3, 2019, arXiv 1905.02244 (section 6.3: where the maps are taken, the reduced tail).

New in SSD: boxes and classes in one pass, from several maps, relative to default boxes of several scales and shapes. New in SSDlite: each
3x3 prediction convolution becomes a depthwise 3x3 and a 1x1, which brings the heads from millions of parameters to thousands.

Where it is:
    SSD figure 2, the six maps                          :class:`MobileNetMaps`
    SSD section 2.2, default boxes, equation 4          :mod:`saccade.boxes.anchors`
    SSD matching, loss, decoding                        :mod:`saccade.models.detect.ssd`
    MobileNetV2 section 6.2, SSDlite's layers           :func:`prediction_block`

Two registered forms, because the published network is made for 118 000 images and not for 200:

``ssdlite320`` is the published network as torchvision keeps it (MobileNetV3-Large with the reduced tail, maps of 20, 10, 5, 3, 2, 1 cells,
six boxes a cell, scales 0.2 to 0.95). Its weights load and give the same numbers. Deviation from the paper: torchvision's scales.

``ssdlite`` is saccade's quick detector, good when trained from scratch on one's own few images. It keeps SSDlite's form (one pass,
separable heads, default boxes, R-CNN's coder) and differs where a later paper, or a measurement on 205 blood smears, showed how:
    backbone  dense 3x3 convolutions (timm's cs3darknet_s): on a CPU an image through it and back costs about what MobileNetV3-Large
              costs, and on BCCD it learnt more in as many epochs than regnety_002, the other one tried;
    maps      strides 8 to 64, fused from coarse to fine (:class:`FusedMaps`; Lin et al., FPN, arXiv 1612.03144): stride 16 is too coarse
              for objects of 20 pixels;
    boxes     one square a cell, three cells wide: the assignment below needs no shapes;
    matching  by how well the network itself classifies and places a truth, top 10 (:func:`assign_aligned`; Feng et al., TOOD,
              arXiv 2108.07755), no hard negatives; sigmoids, no background class;
    losses    cross entropy towards the quality of the assigned boxes, focal for all others (Zhang et al., VarifocalNet, arXiv 2008.13367,
              without its weights for positives), and GIoU. TOOD's own losses weigh an assigned box by its quality and so forget the small
              and rare: after 12 epochs no platelet of ``synthetic:cells`` was found, with these after 8 AP 0.63;
    coder     weights 1 instead of 10 and 5. Under an IoU loss they only slow the sides down: with them (and boxes four cells wide, and
              other augmentation: the three were not separated) most platelets still had the default box's size after 12 epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops
from torchvision.models import mobilenet_v2, mobilenet_v3_large

from saccade.boxes.anchors import ssd_scales, ssd_sides
from saccade.boxes.coders import BoxCoder
from saccade.boxes.iou import paired_iou, pairwise_iou
from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from saccade.layers.backbones import check_backbone
from saccade.models.bounds import check_within
from saccade.models.detect.base import Priors, truths
from saccade.models.detect.ssd import SSD, Grids, Raw, covered
from saccade.models.weights import fetch_torchvision, load_state
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

Norm = Callable[[int], nn.Module]

torchvision_norm: Norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)


# -- layers ---------------------------------------------------------------------------------------


def conv(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, norm: Norm) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU6."""
    return ops.Conv2dNormActivation(
        in_channels, out_channels, kernel, stride, groups=groups, norm_layer=norm, activation_layer=nn.ReLU6
    )  # fmt: skip


def separable(in_channels: int, out_channels: int, stride: int = 1, *, norm: Norm) -> nn.Sequential:
    """Depthwise 3x3, then 1x1, each with batch normalisation and ReLU6."""
    return nn.Sequential(conv(in_channels, in_channels, 3, stride, in_channels, norm=norm), conv(in_channels, out_channels, norm=norm))


def prediction_block(in_channels: int, out_channels: int, *, norm: Norm) -> nn.Sequential:
    """SSDlite's prediction layer: depthwise 3x3 with normalisation and ReLU6, then a plain 1x1."""
    return nn.Sequential(conv(in_channels, in_channels, 3, groups=in_channels, norm=norm), nn.Conv2d(in_channels, out_channels, 1))


def extra_block(in_channels: int, out_channels: int, *, norm: Norm) -> nn.Sequential:
    """SSD's extra layer, separable: 1x1 to half the channels, depthwise 3x3 of stride 2, 1x1."""
    half = out_channels // 2
    return nn.Sequential(conv(in_channels, half, norm=norm), conv(half, half, 3, 2, half, norm=norm), conv(half, out_channels, norm=norm))


def normal_init(module: nn.Module, std: float = 0.03) -> None:
    """Weights of convolutions from N(0, std), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# -- maps -----------------------------------------------------------------------------------------


class MobileNetMaps(nn.Module):
    """Six maps: inside the block that goes to stride 32 (after its expansion, MobileNetV3 section 6.3), at the end, and four extra layers.

    Module names are torchvision's, so that its state dict fits.
    """

    def __init__(self, layers: nn.Sequential, *, norm: Norm) -> None:
        super().__init__()
        last = max(i for i, layer in enumerate(layers) if getattr(layer, "_is_cn", False))  # the block that goes to stride 32
        inner = getattr(layers[last], "block", None) or layers[last].conv
        self.features = nn.Sequential(nn.Sequential(*layers[:last], inner[0]), nn.Sequential(inner[1:], *layers[last + 1 :]))
        channels = (layers[-1].out_channels, 512, 256, 256, 128)
        self.extra = nn.ModuleList(extra_block(i, o, norm=norm) for i, o in pairwise(channels))
        normal_init(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in (*self.features, *self.extra):
            x = layer(x)
            maps.append(x)
        return maps


class TimmMaps(nn.Module):
    """Six maps on any timm backbone: its strides 16 and 32, and SSD's four extra layers."""

    def __init__(self, name: str, in_chans: int, *, norm: Norm) -> None:
        super().__init__()
        self.features = timm_features(name, (16, 32), in_chans)
        channels = (self.features.feature_info.channels()[-1], 512, 256, 256, 128)
        self.extra = nn.ModuleList(extra_block(i, o, norm=norm) for i, o in pairwise(channels))
        normal_init(self.extra)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.features(x)
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return maps


class FusedMaps(nn.Module):
    """Four maps of equal width, strides 8 to 64: a backbone's strides 8, 16, 32, each with the coarser ones added (FPN), and one below.

    FPN's 3x3 convolutions are separable here, as everything in SSDlite.
    """

    def __init__(self, name: str, width: int, in_chans: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d
        self.features = timm_features(name, (8, 16, 32), in_chans)
        self.lateral = nn.ModuleList(conv(c, width, norm=norm) for c in self.features.feature_info.channels())
        self.smooth = nn.ModuleList(separable(width, width, norm=norm) for _ in range(3))
        self.extra = separable(width, width, 2, norm=norm)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [lateral(f) for lateral, f in zip(self.lateral, self.features(x), strict=True)]
        for i in (1, 0):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
        maps = [smooth(m) for smooth, m in zip(self.smooth, maps, strict=True)]
        return [*maps, self.extra(maps[-1])]


def timm_features(name: str, strides: tuple[int, ...], in_chans: int) -> nn.Module:
    """A timm network that gives its maps of these strides.

    Raises:
        UsageError: timm does not know the name, or the network has no such maps.
    """
    import timm

    check_backbone(name)
    try:
        reductions = timm.create_model(name, features_only=True, pretrained=False).feature_info.reduction()
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UsageError(f"timm cannot give features of a backbone {name!r}: {error}") from None
    if not set(strides) <= set(reductions):
        raise UsageError(f"backbone {name} gives strides {reductions}, needed are {list(strides)}")
    indices = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]  # the last map of each stride
    return timm.create_model(name, features_only=True, out_indices=indices, in_chans=in_chans)


# -- the published detector -----------------------------------------------------------------------


class SSDLite(SSD):
    """SSD with SSDlite's prediction layers.

    Args:
        num_classes, backbone, sides, preprocess: as of :class:`~saccade.models.detect.ssd.SSD`.
        norm: normalisation of the heads.
        tower: separable layers before each prediction layer.
    """

    candidates = 300

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        sides: Callable[[Grids], list[Tensor]],
        *,
        preprocess: Preprocess,
        norm: Norm = torchvision_norm,
        tower: int = 0,
    ) -> None:
        def head(channels: int, outputs: int) -> nn.Module:
            layers = [separable(channels, channels, norm=norm) for _ in range(tower)]
            return nn.Sequential(*layers, *prediction_block(channels, outputs, norm=norm))

        super().__init__(num_classes, backbone, sides, head, preprocess=preprocess)

    def reset_heads(self) -> None:
        """Draw the heads' weights anew."""
        normal_init(self.classification)
        normal_init(self.regression)


# -- saccade's form -------------------------------------------------------------------------------


class FusedSSDLite(SSDLite):
    """SSDlite on fused maps, trained by task-aligned assignment; classes are sigmoids.

    The coder has no variances: under an IoU loss they only slow the sides down.
    """

    loss_names = ("aligned",)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    background = 0
    candidates = 1000  # ten boxes learn one object (assign_aligned), and a hundred objects may be found
    box_weight = 2.0

    def reset_heads(self) -> None:
        """Small weights; each class starts at probability 0.01, that the many empty cells do not swamp the first steps (RetinaNet)."""
        for head in (*self.classification, *self.regression):
            nn.init.normal_(head[-1].weight, std=0.01)
            nn.init.zeros_(head[-1].bias)
        for head in self.classification:
            nn.init.constant_(head[-1].bias, math.log(0.01 / 0.99))

    def scores(self, logits: Tensor) -> Tensor:
        """(..., K) probabilities of the classes."""
        return logits.sigmoid()

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy with the quality of assigned boxes, focal (score squared) elsewhere; GIoU of assigned boxes, by alignment.

        The first is over the sum of qualities, the second over the sum of alignments.
        """
        raw = self.raw(images)
        logits, boxes = raw["logits"], self.coder.decode(raw["deltas"], self.priors)
        quality = torch.zeros_like(logits)
        ignored = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        box_loss, weights = boxes.sum() * 0, boxes.new_zeros(())
        for i, target in enumerate(targets):
            wanted, classes, crowd = truths(target, boxes)
            ignored[i] = covered(self.priors, crowd)
            if len(wanted):
                truth, prior, weight, value = assign_aligned(logits[i].detach().sigmoid(), boxes[i].detach(), self.priors, wanted, classes)
                quality[i, prior, classes[truth]] = value
                box_loss = box_loss + ((1 - paired_iou(boxes[i, prior], wanted[truth], "giou")) * weight).sum()
                weights = weights + weight.sum()
        assigned = quality > 0
        entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
        entropy = torch.where(assigned, entropy, entropy * logits.sigmoid().square())
        class_loss = entropy[~ignored | assigned.any(-1)].sum()
        return {
            "class": class_loss / quality.sum().clamp_min(1),
            "box": self.box_weight * box_loss / weights.clamp_min(1),
        }

    def matches(self, raw: Raw, i: int, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As the base, by alignment."""
        predicted = self.coder.decode(raw["deltas"][i], self.priors)
        return assign_aligned(raw["logits"][i].sigmoid(), predicted, self.priors, boxes, labels)[:2]

    def prior_boxes(self, size: tuple[int, int]) -> Priors:
        """As the base; no overlap is asked for, but a centre inside the truth."""
        return Priors(self.priors, None, self.stride)


def assign_aligned(
    scores: Tensor, boxes: Tensor, priors: Tensor, truth: Tensor, labels: Tensor, *, top: int = 10, power: float = 6.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Task-aligned assignment (TOOD, equations 1 and 6).

    Of the default boxes whose centre lies in a truth (and the one that overlaps it most) the ``top`` with the highest alignment
    ``t = s * u^power`` learn it, ``s`` being the score of its class and ``u`` the IoU of the predicted box.

    Args:
        scores: (A, K); boxes: (A, 4) predicted; priors: (A, 4).
        truth: (N, 4); labels: (N,).

    Returns:
        Of the M assigned boxes (M,) the truths' indices, (M,) their own, (M,) alignments scaled so that a truth's largest is 1, and (M,)
        qualities: the same scaled so that a truth's largest is its largest ``u``.
    """
    overlap, rows = pairwise_iou(truth, boxes), torch.arange(len(truth), device=truth.device)
    near = pairwise_iou(truth, priors)
    centre = (priors[:, :2] + priors[:, 2:]) / 2
    candidate = ((centre > truth[:, None, :2]) & (centre < truth[:, None, 2:])).all(-1)
    candidate[rows, near.argmax(1)] = True
    aligned = scores[:, labels].T * overlap**power + 1e-12 * near  # the last term decides while no predicted box overlaps
    aligned = torch.where(candidate, aligned, aligned.new_zeros(()))
    value, index = aligned.topk(min(top, len(priors)), dim=1)
    chosen = torch.zeros_like(candidate).scatter_(1, index, value > 0)
    best = torch.where(chosen, overlap, overlap.new_full((), -1.0)).argmax(0)  # a default box learns one truth: the one it overlaps most
    chosen &= rows[:, None] == best
    aligned = torch.where(chosen, aligned, aligned.new_zeros(()))
    largest = torch.where(chosen, overlap, overlap.new_zeros(())).amax(1, keepdim=True)
    aligned = aligned / aligned.amax(1, keepdim=True).clamp_min(1e-12)
    index, prior = chosen.nonzero(as_tuple=True)
    return index, prior, aligned[index, prior], (aligned * largest)[index, prior]


# -- builders -------------------------------------------------------------------------------------


def ssdlite(
    num_classes: int,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    structure: Literal["fused", "published"] | None = None,
    backbone: str | None = None,
    size: int = 320,
    width: int = 96,
) -> SSDLite:
    """Saccade's quick detector (see the module's header).

    Args:
        num_classes: without background.
        in_chans: 1 or 3.
        pretrained: start from the published COCO weights, which are those of the published structure.
        structure: "fused", or "published" (:func:`ssdlite320`); None is fused from scratch, and published where published weights are
            asked for (``pretrained``, or a file of them).
        backbone: of the fused form any timm network with strides 8, 16 and 32 (default cs3darknet_s); of the published form as there.
        size: side of the square input in pixels.
        width: channels of the fused maps and heads.
    """
    check_within(32, 4096, size=size)
    check_within(1, 4096, width=width)
    structure = structure or ("published" if pretrained else "fused")
    if structure == "published":
        model: SSDLite = ssdlite320(
            num_classes, in_chans=in_chans, pretrained=pretrained, backbone=backbone or "mobilenet_v3_large", size=size
        )
        model.build_options = {"structure": structure}
        return model
    if pretrained:
        raise UsageError("ssdlite has published weights for structure published only")
    maps = FusedMaps(backbone or "cs3darknet_s", width, in_chans)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if in_chans == 3 else ((0.5,), (0.5,))
    preprocess = Preprocess(size=(size, size), channels=in_chans, mean=mean, std=std)

    def sides(grids: Grids) -> list[Tensor]:
        return [torch.full((1, 2), 3.0 * stride) for stride in (8, 16, 32, 64)]

    model = FusedSSDLite(num_classes, maps, sides, preprocess=preprocess, norm=nn.BatchNorm2d, tower=1)
    model.build_options = {"structure": structure}
    return model


def form_of_weights(name: str, tensors: Iterable[str]) -> dict[str, str]:
    """Which form of ``ssdlite`` a file of weights is of: torchvision's names have a ``head``, the published ones two ``features``."""
    published = any(t.startswith(("head.classification_head.", "backbone.features.0.0.")) for t in tensors)
    return {"structure": "published"} if name == "ssdlite" and published else {}


def ssdlite320(
    num_classes: int = 90,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    backbone: str = "mobilenet_v3_large",
    size: int = 320,
    smallest: float = 0.2,
    largest: float = 0.95,
) -> SSDLite:
    """The published SSDlite; the default is torchvision's ``ssdlite320_mobilenet_v3_large``.

    Args:
        num_classes: without background. torchvision's 90 are COCO's ids 1 to 90, so that label k is id k + 1 and ten labels name nothing.
        in_chans: 1 or 3.
        pretrained: load torchvision's COCO weights; with another number of classes than 90 the class layers' outputs start anew.
        backbone: "mobilenet_v3_large" (torchvision's, reduced tail), "mobilenet_v2" (torchvision's), or any timm network.
        size: side of the square input in pixels.
        smallest, largest: scales of the default boxes of the first and the last map, relative to the input.
    """
    check_within(32, 4096, size=size)
    if pretrained and (backbone, in_chans) != ("mobilenet_v3_large", 3):
        raise UsageError("ssdlite320 has published weights for backbone mobilenet_v3_large and in_chans 3 only")
    if backbone == "mobilenet_v3_large":
        layers = mobilenet_v3_large(weights=None, reduced_tail=True, norm_layer=torchvision_norm).features
        maps: nn.Module = MobileNetMaps(with_channels(layers, in_chans), norm=torchvision_norm)
    elif backbone == "mobilenet_v2":
        layers = mobilenet_v2(weights=None, norm_layer=torchvision_norm).features
        maps = MobileNetMaps(with_channels(layers, in_chans), norm=torchvision_norm)
    else:
        maps = TimmMaps(backbone, in_chans, norm=torchvision_norm)

    def sides(grids: Grids) -> list[Tensor]:
        scales = ssd_scales(len(grids), smallest, largest)
        return [ssd_sides(scale, following, (2, 3)) * size for scale, following in pairwise(scales)]

    half = (0.5,) * in_chans
    preprocess = Preprocess(size=(size, size), channels=in_chans, mean=half, std=half, antialias=False, resize_float=True)
    model = SSDLite(num_classes, maps, sides, preprocess=preprocess)
    if pretrained:
        from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights as Published

        state = model.translate_weights(fetch_torchvision(Published.COCO_V1))
        if num_classes != 90:  # keep the fresh outputs
            own = model.state_dict()
            state.update({name: own[name] for name in own if name.startswith("classification.") and own[name].shape != state[name].shape})
        load_state(model, state, Published.COCO_V1.url)
    return model


def with_channels(layers: nn.Sequential, in_chans: int) -> nn.Sequential:
    """The layers with a first convolution that takes ``in_chans`` channels."""
    first = layers[0][0]
    if in_chans != first.in_channels:
        layers[0][0] = nn.Conv2d(in_chans, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
    return layers


RECIPES = {
    "ssdlite": Recipe(
        epochs=28, batch_size=8, optimizer="adamw", lr=2e-3, weight_decay=0.05, warmup=2.0, lr_final=0.01, clip=10.0, ema=0.998,
        precision="auto", channels_last=True, hflip=0.5, vflip=0.5, scale=0.3, brightness=0.2, contrast=0.2, saturation=0.2,
    ),
    "ssdlite320": Recipe(
        epochs=60, batch_size=24, optimizer="sgd", lr=0.015, weight_decay=4e-5, momentum=0.9, warmup=1.0, schedule="cosine",
        hflip=0.5, scale=0.3, brightness=0.2, contrast=0.2, saturation=0.2,
    ),
}  # fmt: skip
