"""SSD: boxes and classes of all objects in one pass, from maps of several resolutions.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector, 2016, arXiv 1512.02325.

New in the paper: no proposals and no second look at the pixels. Every cell of every map predicts, for default boxes of a few shapes, the
classes and the offsets to the object; fine maps find the small objects, coarse ones the large.

Where it is:
    Figure 2, the network                               :class:`AtrousVGG`, :data:`SSD300`, :data:`SSD512`
    Section 2.1, 3x3 convolutions on each map           :func:`prediction_layer`
    Section 2.2, default boxes, equation 4              :mod:`saccade.boxes.anchors`, :func:`default_sides`
    Section 2.2, matching (IoU over 0.5, or the best)   :func:`match`
    Equations 1 to 3, loss; hard negatives 3 to 1       :meth:`SSD.losses`
    Section 3.1, L2 normalisation of conv4_3, scale 20  :class:`AtrousVGG`
    Section 3, fc6 and fc7 subsampled to convolutions   :func:`load_vgg`
    The base of :mod:`saccade.models.detect.ssdlite`    :class:`SSD`

Default boxes. ``scales="paper"``: 0.1 on conv4_3 and 0.2 to 0.9 evenly on the other five maps (section 3.1); of SSD512 0.07 and 0.15 to
0.9; centres in the middle of cells that divide the input evenly. ``scales="torchvision"``, for which torchvision's weights were made: the
smaller boxes of section 3.4 as the authors' program has them (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), with its steps of 8, 16, 32, 64,
100 and 300 pixels, and images as these weights want them: mean removed, 0 to 255. The paper does not say which scale follows the last one;
its program has 1.05 and ours 1.

Training. The paper has batches of 32, rate 0.001, a tenth of it from 2/3 and from 5/6 of the run. The recipe keeps the rate and its steps,
with batches of 8, one epoch of warm-up and a clipped gradient. Augmentation is zoom, flip and colour instead of section 2.2's crops by IoU.
The paper starts from ImageNet's VGG-16 (``pretrained_backbone``); ``norm="batch"`` adds batch normalisation for training from scratch.
``width`` and ``size`` make smaller networks of the same kind; maps that would have no cell are left out.

Published weights have 91 outputs, COCO's category ids with 0 for background: ours are 90 labels, ``label = id - 1``.

Pinned by tests: maps, 8732 and 24564 boxes, scales; outputs, boxes and loss equal torchvision's; the loss by the equations, in loops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

from saccade.boxes.anchors import grid_boxes, ssd_scales, ssd_sides
from saccade.boxes.coders import BoxCoder
from saccade.boxes.iou import pairwise_iou
from saccade.boxes.nms import select
from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, for_channels
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import check_width, initialise, scaled
from saccade.models.detect.base import Assignment, Detector, Priors, truths
from saccade.models.weights import fetch_torchvision
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

Raw = dict[str, Tensor]
Grids = list[tuple[int, int]]

POSITIVE = 0.5
"""IoU from which a default box takes a truth."""


# -- the detector on any maps ---------------------------------------------------------------------


class SSD(Detector):
    """Prediction layers on the maps of a backbone, trained with the multibox loss.

    ``raw`` gives ``logits`` (B, A, K + 1), background first, and ``deltas`` (B, A, 4) for the A default boxes ``priors`` (A, 4).

    Args:
        num_classes: K, without background; label k is output k + 1.
        backbone: images to a list of maps.
        sides: grids (H, W) of the maps to (n, 2) sides of default boxes in pixels, a map.
        head: channels and outputs to a prediction layer.
        preprocess: resizes to the square input.
        steps: distance of the cells of each map in pixels; None divides the input evenly.
    """

    loss_names = ("multibox",)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    background = 1  # outputs of the class layers beside the classes
    candidates = 400  # boxes a class that enter NMS
    priors: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        sides: Callable[[Grids], list[Tensor]],
        head: Callable[[int, int], nn.Module],
        *,
        preprocess: Preprocess,
        steps: Sequence[float] | None = None,
    ) -> None:
        super().__init__(num_classes)
        self.backbone, self.preprocess = backbone, preprocess
        height, width = preprocess.size
        channels, grids = map_shapes(backbone, preprocess.channels, (height, width))
        shapes = sides(grids)
        spacing = [(height / h, width / w) for h, w in grids] if steps is None else [(step, step) for step in steps]
        boxes = [grid_boxes(g, s, step) for g, s, step in zip(grids, shapes, spacing, strict=True)]
        self.stride = spacing[0][0]
        self.register_buffer("priors", torch.cat(boxes), persistent=False)

        def heads(columns: int) -> nn.ModuleList:
            return nn.ModuleList(head(c, columns * len(s)) for c, s in zip(channels, shapes, strict=True))

        self.classification, self.regression = heads(num_classes + self.background), heads(4)
        self.reset_heads()

    def reset_heads(self) -> None:
        """Draw the heads' weights anew."""
        xavier_init(self.classification)
        xavier_init(self.regression)

    def raw(self, images: Images) -> Raw:
        """``{"logits": (B, A, columns), "deltas": (B, A, 4)}`` of (B, C, H, W) images."""
        maps = self.backbone(images)

        def rows(heads: nn.ModuleList, columns: int) -> Tensor:
            out = [head(m).permute(0, 2, 3, 1).reshape(len(m), -1, columns) for head, m in zip(heads, maps, strict=True)]
            return torch.cat(out, dim=1).float()

        return {"logits": rows(self.classification, self.num_classes + self.background), "deltas": rows(self.regression, 4)}

    def scores(self, logits: Tensor) -> Tensor:
        """(..., K) probabilities of the classes."""
        return logits.softmax(-1)[..., 1:]

    def decode(
        self, raw: Raw, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Boxes on the default boxes, best candidates of each class, class-wise NMS."""
        height, width = self.preprocess.size
        out: list[Prediction] = []
        for deltas, scores, geometry in zip(raw["deltas"], self.scores(raw["logits"]), geometries, strict=True):
            boxes = ops.clip_boxes_to_image(self.coder.decode(deltas, self.priors), (height, width))
            found, value, label = select(boxes, scores, score=score, iou=iou, max_detections=max_detections, candidates=self.candidates)
            found = geometry.boxes_to_original(found)
            out.append(Detection(boxes=found.cpu().numpy(), labels=label.cpu().numpy(), scores=value.cpu().numpy()))
        return out

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Multibox loss (equation 1 with alpha 1): smooth L1 of matched boxes and cross entropy, both over the number of matches.

        Equation 3 with hard negatives: of an image's unmatched boxes count the three times as many as matched ones of highest loss.
        """
        raw = self.raw(channels_last(images))
        logits, deltas = raw["logits"], raw["deltas"]
        labels = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)
        ignored = torch.zeros_like(labels, dtype=torch.bool)
        box_loss = deltas.sum() * 0
        for i, target in enumerate(targets):
            boxes, classes, crowd = truths(target, deltas)
            ignored[i] = covered(self.priors, crowd)
            if len(boxes):
                truth, found = self.matches(raw, i, boxes, classes)
                labels[i, found] = classes[truth] + 1
                wanted = self.coder.encode(boxes[truth], self.priors[found])
                box_loss = box_loss + F.smooth_l1_loss(deltas[i, found], wanted, reduction="sum")
        class_loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        positive = labels > 0
        rank = class_loss.detach().masked_fill(positive | ignored, -torch.inf).argsort(1, descending=True).argsort(1)
        hard = (rank < 3 * positive.sum(1, keepdim=True)) & ~ignored
        count = positive.sum().clamp_min(1)
        return {"class": class_loss[positive | hard].sum() / count, "box": box_loss / count}

    def matches(self, raw: Raw, i: int, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of the default boxes of image ``i`` that learn an object: (M,) the truths' indices and (M,) their own."""
        matched = match(boxes, self.priors)
        found = (matched >= 0).nonzero()[:, 0]
        return matched[found], found

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The default boxes that learn an object."""
        raw = self.raw(images)
        out: list[tuple[Assignment, ...]] = []
        for i, target in enumerate(targets):
            boxes, labels, _ = truths(target, raw["deltas"])
            truth, found = self.matches(raw, i, boxes, labels) if len(boxes) else (labels, labels)
            out.append((Assignment("priors", self.priors[found], truth, boxes, labels),))
        return out

    def prior_boxes(self, size: tuple[int, int]) -> Priors:
        """The default boxes; ``size`` is always that of the preprocessing."""
        return Priors(self.priors, POSITIVE, self.stride)

    def translate_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename torchvision's entries to ours."""
        ours = {"head.classification_head.module_list.": "classification.", "head.regression_head.module_list.": "regression."}
        return {next((name.replace(t, o) for t, o in ours.items() if name.startswith(t)), name): v for name, v in state.items()}


def channels_last(images: Images) -> Tensor:
    """The batch with a pixel's channels side by side in memory, in which a processor's convolutions are quicker; equal up to rounding.

    For training: predictions stay exactly what published weights give.
    """
    assert isinstance(images, Tensor)
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def map_shapes(backbone: nn.Module, channels: int, size: tuple[int, int]) -> tuple[list[int], Grids]:
    """Channels and (H, W) of the maps that a backbone makes of an input of ``size``; nothing is computed."""
    maps = copy.deepcopy(backbone).to("meta").eval()(torch.empty(1, channels, *size, device="meta"))
    return [m.shape[1] for m in maps], [(m.shape[2], m.shape[3]) for m in maps]


def match(boxes: Tensor, priors: Tensor, threshold: float = POSITIVE) -> Tensor:
    """(A,) index of the truth that each default box learns, or -1: the truth of highest IoU if over the threshold.

    Each truth takes its best default box whatever the IoU (section 2.2).
    """
    overlap = pairwise_iou(boxes, priors)
    value, matched = overlap.max(0)
    matched[value < threshold] = -1
    matched[overlap.argmax(1)] = torch.arange(len(boxes), device=boxes.device)
    return matched


def covered(priors: Tensor, crowd: Tensor) -> Tensor:
    """(A,) whether more than half of a default box lies in one crowd: it is no evidence for the background."""
    corner = torch.maximum(priors[:, None, :2], crowd[None, :, :2])
    inter = (torch.minimum(priors[:, None, 2:], crowd[None, :, 2:]) - corner).clamp_min(0).prod(-1)
    return (inter > 0.5 * ops.box_area(priors)[:, None]).any(1)


def prediction_layer(channels: int, outputs: int) -> nn.Module:
    """SSD's prediction layer: one 3x3 convolution."""
    return nn.Conv2d(channels, outputs, 3, padding=1)


def xavier_init(module: nn.Module) -> None:
    """Weights of convolutions by Glorot and Bengio, as section 3.1 says of all new layers; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# -- the paper's network --------------------------------------------------------------------------


@dataclass(frozen=True)
class Extra:
    """An extra layer: 1x1 to ``inner`` channels, then ``kernel`` x ``kernel`` to ``outer``, each with ReLU."""

    inner: int
    outer: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0

    def after(self, side: int) -> int:
        """Cells along a side of the map that it makes of one with ``side`` cells."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Form:
    """What SSD300, SSD512 and torchvision's SSD300 do differently.

    Attributes:
        side: of the input that it was made for.
        extras: layers after conv7.
        ratios: of each map's default boxes, besides 1.
        first, smallest: their scale on conv4_3, and on conv7 (0.9 is the last map's).
        scales: one a map and one after the last, instead of these.
        steps: distance of cells in pixels, a map; none divides the input evenly.
        pixels: mean and deviation of the colours.
    """

    side: int
    extras: tuple[Extra, ...]
    ratios: tuple[tuple[int, ...], ...]
    first: float
    smallest: float
    scales: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = (IMAGENET_MEAN, IMAGENET_STD)


SSD300 = Form(
    side=300,
    extras=(Extra(256, 512, 3, 2, 1), Extra(128, 256, 3, 2, 1), Extra(128, 256), Extra(128, 256)),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    first=0.1,
    smallest=0.2,
)
TORCHVISION = replace(
    SSD300,
    scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    steps=(8.0, 16.0, 32.0, 64.0, 100.0, 300.0),
    pixels=((0.48235, 0.45882, 0.40784), (1 / 255,) * 3),
)
SSD512 = Form(
    side=512,
    extras=(Extra(256, 512, 3, 2, 1), *[Extra(128, 256, 3, 2, 1)] * 3, Extra(128, 256, 4, 1, 1)),
    ratios=((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    first=0.07,
    smallest=0.15,
)
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions of the five stages."""


class AtrousVGG(nn.Module):
    """VGG-16 with fc6 and fc7 as convolutions, and extra layers: the maps of conv4_3, conv7 and each extra layer.

    conv4_3 is brought to length 1 in each cell, times a learnt factor a channel that starts at 20. pool5 is 3x3 with stride 1, so fc6 reads
    cells six apart ("atrous"). Module names are torchvision's, so that its state dict fits.

    Args:
        in_chans: channels of the images.
        extras: extra layers.
        width: factor on all maps.
        norm: batch normalisation after each convolution.
    """

    def __init__(self, in_chans: int, extras: Sequence[Extra], *, width: float = 1.0, norm: bool = False) -> None:
        super().__init__()
        before = in_chans

        def conv(channels: int, kernel: int = 3, stride: int = 1, padding: int = 1, dilation: int = 1) -> list[nn.Module]:
            nonlocal before
            channels = scaled(channels, width)
            layer = nn.Conv2d(before, channels, kernel, stride, padding, dilation, bias=not norm)
            before = channels
            return [layer, *([nn.BatchNorm2d(channels)] if norm else []), nn.ReLU(inplace=True)]

        stages = [[layer for _ in range(depth) for layer in conv(channels)] for channels, depth in VGG16]
        pools = [nn.MaxPool2d(2, 2, ceil_mode=k == 2) for k in range(4)]  # the third rounds up: 75 cells to 38
        self.scale_weight = nn.Parameter(torch.full((scaled(VGG16[3][0], width),), 20.0))
        self.features = nn.Sequential(*stages[0], pools[0], *stages[1], pools[1], *stages[2], pools[2], *stages[3])
        dense = nn.Sequential(nn.MaxPool2d(3, 1, 1), *conv(1024, padding=6, dilation=6), *conv(1024, 1, padding=0))
        layers = [nn.Sequential(*conv(e.inner, 1, padding=0), *conv(e.outer, e.kernel, e.stride, e.padding)) for e in extras]
        self.extra = nn.ModuleList([nn.Sequential(pools[3], *stages[4], dense), *layers])
        initialise(self)
        xavier_init(nn.ModuleList([dense, *layers]))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.features(x)
        maps = [F.normalize(x) * self.scale_weight.view(1, -1, 1, 1)]
        for layer in self.extra:
            x = layer(x)
            maps.append(x)
        return maps


def fitting(extras: Sequence[Extra], size: int) -> list[Extra]:
    """The extra layers that an input of ``size`` has cells for: up to a map of one cell."""
    side = -(-(size // 4) // 2) // 2  # of conv7
    kept: list[Extra] = []
    for extra in extras:
        if side == 1 or extra.after(side) < 1:
            break
        kept.append(extra)
        side = extra.after(side)
    return kept


def default_sides(scales: Sequence[float], ratios: Sequence[Sequence[int]], size: int) -> list[Tensor]:
    """(n, 2) sides in pixels of the default boxes of each map: ``scales`` has one a map and the one after the last."""
    return [ssd_sides(scale, following, r) * size for (scale, following), r in zip(pairwise(scales), ratios, strict=True)]


def load_vgg(backbone: AtrousVGG, *, features_only: bool) -> None:
    """ImageNet's VGG-16 into the layers up to conv7; a first layer for grey images takes the sum over the colours.

    Args:
        backbone: of width 1 and without normalisation.
        features_only: the convolutions as torchvision's SSD starts from (for images of 0 to 255); fc6 and fc7 stay as they are. Else fc6
            and fc7 come from the dense layers, every third position of every fourth output (section 3).
    """
    from torchvision.models import VGG16_Weights

    state = fetch_torchvision(VGG16_Weights.IMAGENET1K_FEATURES if features_only else VGG16_Weights.IMAGENET1K_V1)
    with torch.no_grad():
        first = backbone.features[0]
        assert isinstance(first, nn.Conv2d)
        if first.in_channels == 1:
            state["features.0.weight"] = state["features.0.weight"].sum(1, keepdim=True)
        lower, upper = backbone.features, backbone.extra[0]
        assert isinstance(upper, nn.Sequential)
        for number, layer in enumerate([*lower, *upper[:-1]]):
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(state[f"features.{number}.weight"])
                layer.bias.copy_(state[f"features.{number}.bias"])  # type: ignore[union-attr]
        if not features_only:
            fc6 = state["classifier.0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3], state["classifier.0.bias"][::4]
            fc7 = state["classifier.3.weight"].view(4096, 4096, 1, 1)[::4, ::4], state["classifier.3.bias"][::4]
            for layer, (weight, bias) in zip((m for m in upper[-1].modules() if isinstance(m, nn.Conv2d)), (fc6, fc7), strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)  # type: ignore[union-attr]


# -- builders -------------------------------------------------------------------------------------


def ssd300(
    num_classes: int = 90,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    pretrained_backbone: bool = False,
    scales: Literal["paper", "torchvision"] | None = None,
    box_scales: tuple[float, ...] | None = None,
    size: int = 300,
    width: float = 1.0,
    norm: Literal["none", "batch"] = "none",
) -> SSD:
    """SSD300; with ``scales="torchvision"`` it is torchvision's ``ssd300_vgg16``.

    Args:
        num_classes: without background. torchvision's 90 are COCO's ids 1 to 90, so that label k is id k + 1 and ten labels name nothing.
        in_chans: 1 or 3.
        pretrained: torchvision's COCO weights; with another number of classes than 90 the class layers start anew.
        pretrained_backbone: ImageNet's VGG-16, from which the paper starts.
        scales: default boxes and pixels "paper" or "torchvision" (see the module's header); None: as the weights, else "paper".
        box_scales: other scales, relative to the input: one a map from fine to coarse and one that follows the last.
        size: side of the square input in pixels; the published weights' is 300.
        width: factor on all maps.
        norm: "batch" adds batch normalisation, which the paper has not, for training from scratch.

    Raises:
        UsageError: options that do not fit together.
    """
    scales = scales or ("torchvision" if pretrained else "paper")
    if pretrained and (in_chans, scales, size, width, norm) != (3, "torchvision", 300, 1.0, "none"):
        raise UsageError("ssd300 has published weights for in_chans 3, scales torchvision, size 300, width 1 and norm none only")
    form, fetch = TORCHVISION if scales == "torchvision" else SSD300, pretrained_backbone and not pretrained
    model = _build(form, num_classes, in_chans, size, width, norm, box_scales, fetch)
    model.build_options = {"scales": scales, "pretrained_backbone": False}
    if pretrained:
        from torchvision.models.detection import SSD300_VGG16_Weights as Published

        state = model.translate_weights(fetch_torchvision(Published.COCO_V1))
        if num_classes == 90:
            model.classes = Published.COCO_V1.meta["categories"][1:]
        else:
            state |= {name: value for name, value in model.state_dict().items() if name.startswith("classification.")}
        model.load_state_dict(state)
    return model


def ssd512(
    num_classes: int = 90,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    pretrained_backbone: bool = False,
    box_scales: tuple[float, ...] | None = None,
    size: int = 512,
    width: float = 1.0,
    norm: Literal["none", "batch"] = "none",
) -> SSD:
    """SSD512: larger images and one map more.

    Args:
        num_classes: without background.
        in_chans: 1 or 3.
        pretrained: no weights are published; True is an error.
        pretrained_backbone, box_scales, width, norm: as of :func:`ssd300`.
        size: side of the square input in pixels.
    """
    unpublished("ssd512", pretrained)
    model = _build(SSD512, num_classes, in_chans, size, width, norm, box_scales, pretrained_backbone)
    model.build_options = {"pretrained_backbone": False}
    return model


def _build(
    form: Form,
    num_classes: int,
    in_chans: int,
    size: int,
    width: float,
    norm: str,
    scales: tuple[float, ...] | None,
    pretrained_backbone: bool,
) -> SSD:
    check_within(32, 4096, size=size)
    check_width(width)
    if pretrained_backbone and (width, norm) != (1.0, "none"):
        raise UsageError("VGG-16 has published weights for model.width=1 and model.norm=none only")
    extras = fitting(form.extras, size)
    maps = 2 + len(extras)
    chosen = scales or form.scales[: maps + 1] or (form.first, *ssd_scales(maps - 1, form.smallest))
    if len(chosen) != maps + 1 or not all(0 < scale <= 2 for scale in chosen):
        raise UsageError(f"model.box_scales: the {maps} maps of an input of {size} pixels take {maps + 1} scales, each above 0, at most 2")
    backbone = AtrousVGG(in_chans, extras, width=width, norm=norm == "batch")
    if pretrained_backbone:
        load_vgg(backbone, features_only=form is TORCHVISION)
    mean, std = for_channels(in_chans, *form.pixels)
    preprocess = Preprocess(size=(size, size), channels=in_chans, mean=mean, std=std, antialias=False, resize_float=True)

    def sides(grids: Grids) -> list[Tensor]:
        return default_sides(chosen, form.ratios[: len(grids)], size)

    steps = form.steps if size == form.side and form.steps else None
    return SSD(num_classes, backbone, sides, prediction_layer, preprocess=preprocess, steps=steps)


def form_of_weights(name: str, tensors: Iterable[str]) -> dict[str, str]:
    """Which form of ``ssd300`` a file of weights is of: torchvision's names have a ``head``."""
    published = any(t.startswith("head.classification_head.") for t in tensors)
    return {"scales": "torchvision"} if name == "ssd300" and published else {}


_RECIPE = Recipe(
    epochs=60, batch_size=8, optimizer="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4, schedule="multistep", lr_steps=(0.667, 0.833),
    warmup=1.0, clip=10.0, hflip=0.5, scale=0.5, brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05,
)  # fmt: skip
RECIPES = {"ssd300": _RECIPE, "ssd512": _RECIPE}
