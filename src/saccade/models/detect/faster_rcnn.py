"""Faster R-CNN: a region proposal network and a box head on shared feature maps.

Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015, arXiv 1506.01497.
The pyramid form: Lin et al., Feature Pyramid Networks for Object Detection, 2017, arXiv 1612.03144, section 4.

New in the paper: proposals are computed by the detector itself, and both halves learn together.

Where things are: figure 2 (the whole): :class:`FasterRCNN`. Section 3.1, RPN: :mod:`saccade.models.detect.rpn`. The box head of Fast R-CNN
(arXiv 1504.08083): :class:`BoxHead`, its mini-batch and loss: :meth:`FasterRCNN.sample`, :meth:`FasterRCNN.losses`.
Equation 1 of the pyramid paper: :func:`saccade.layers.fpn.pyramid_levels`. Approximate joint training (3.2) is what ``losses`` does.

Two forms, told apart by ``backbone``:

* a timm name ("resnet50", "mobilenetv3_large_100", ...): a pyramid of 256 channels at strides 4 to 32 and a fifth map for the largest
  anchors; one anchor size a map, 8 times its stride (32 ... 512), three ratios; RoIAlign 7x7, two dense layers of 1024. With "resnet50"
  it is the network of torchvision's ``fasterrcnn_resnet50_fpn``: the same numbers from the same weights.
* "vgg16" (or another VGG by torchvision's name): the paper's. conv5_3 alone, stride 16, 9 anchors, border-crossing ones dropped in
  training; RoI max pooling 7x7, fc6 and fc7 of VGG. The paper's image sizes are ``min_size=600, max_size=1000``.

Deviations. Region sampling is Fast R-CNN's: 25% with an overlap of at least 0.5; but all below 0.5 is background, as in the released
code of Faster R-CNN (the paper of Fast R-CNN asks for at least 0.1). Proposals of an image: 2000 in training, 1000 (pyramid) or 300
(VGG) in use. Smooth L1 turns linear at 1/9 in both halves (torchvision). Objects without area are not learned; boxes mostly inside a
crowd region are neither object nor background.
Published weights have 91 outputs, COCO's category ids with 0 for background: ours are 90 labels, ``label = id - 1``; ten of them
(ids 12, 26, 29, 30, 45, 66, 68, 69, 71, 83) never occur ("N/A").

Pinned by tests: 41,755,286 parameters with frozen norms and 90 labels; detections, proposals and losses equal torchvision's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, batched_nms, box_iou, clip_boxes_to_image, roi_align, roi_pool
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from saccade.boxes.coders import BoxCoder
from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from saccade.layers.fpn import Taps, convert_norm, fit_norms, freeze_until, pad_batch, pyramid_levels, tapped, timm_backbone
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.detect.base import Assignment, Detector, Priors
from saccade.models.detect.rpn import BACKGROUND, RPN, SMOOTH_L1_BETA, Proposing, Truth, ignore_crowd, match
from saccade.models.detect.rpn import sample as sample_boxes
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

VGGS = ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")

RECIPES = {
    "faster_rcnn": Recipe(
        epochs=26,
        batch_size=4,
        optimizer="sgd",
        lr=0.005,  # torchvision's 0.02 for 16 images
        momentum=0.9,
        weight_decay=1e-4,
        norm_decay=True,
        schedule="multistep",
        lr_steps=(0.615, 0.846),  # after 16 and 22 of 26 epochs
        warmup=1.0,
        clip=10.0,  # far above a usual step's norm: only a spike of an untrained network meets it
        hflip=0.5,
    )
}


class RawBoxes(TypedDict):
    """What :meth:`FasterRCNN.raw` gives, an item an image; class 0 is the background.

    ``proposals`` (P, 4) network pixels, ``logits`` (P, K + 1), ``deltas`` (P, K + 1, 4).
    """

    proposals: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]


class Regions(NamedTuple):
    """Sampled proposals of a batch, an item an image.

    ``boxes`` (R, 4) network pixels, ``labels`` (R,) with 0 the background, ``aims`` (R, 4) box targets (zeros for background),
    ``matched`` (R,) index of the truth or ``BACKGROUND``.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    aims: list[Tensor]
    matched: list[Tensor]


@dataclass(frozen=True)
class Form:
    """What the two forms do differently: proposals kept before and after NMS (training, use), regions an image, RoI operator."""

    before: tuple[int, int]
    after: tuple[int, int]
    regions: int
    pooling: Literal["align", "max"]


PYRAMID = Form(before=(2000, 1000), after=(2000, 1000), regions=512, pooling="align")
SINGLE = Form(before=(12000, 6000), after=(2000, 300), regions=128, pooling="max")


class BoxHead(nn.Module):
    """Two dense layers, then class logits (background first) and four box offsets a class."""

    def __init__(self, channels: int, size: int, hidden: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc6 = nn.Linear(channels * size * size, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, 4 * (num_classes + 1))
        for layer, spread in ((self.score, 0.01), (self.deltas, 0.001)):  # Fast R-CNN, section 2.3
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, S, S) pooled features to logits (R, K + 1) and deltas (R, K + 1, 4)."""
        hidden = self.dropout(F.relu(self.fc6(pooled.flatten(1))))
        hidden = self.dropout(F.relu(self.fc7(hidden)))
        return self.score(hidden), self.deltas(hidden).unflatten(1, (-1, 4))


class FasterRCNN(Detector):
    """Faster R-CNN.

    Images are normalised (C, H, W) tensors of any sizes: a stacked batch or a list, which is padded here to a common multiple of the
    largest stride (so an image's own size stays known: boxes are clipped to it, not to the padding).

    Args:
        num_classes: labels, without the background.
        backbone: gives the maps of ``taps``; the names of its parameters start with ``backbone``.
        fpn: turns them into the pyramid; None uses the only map as it is.
        head: the second stage.
        form: numbers that go with the form.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        taps: Taps,
        fpn: nn.Module | None,
        rpn: RPN,
        head: BoxHead,
        form: Form,
        preprocess: Preprocess,
    ) -> None:
        super().__init__(num_classes)
        self.backbone, self.taps, self.fpn = backbone, taps, fpn
        self.rpn, self.box_head, self.form = rpn, head, form
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.multiple = taps.strides[-1]
        self.pool_size = 7
        self.preprocess = preprocess

    # -- the network ------------------------------------------------------------------------------

    def features(self, batch: Tensor) -> list[Tensor]:
        """Maps of a padded batch, finest first; the pyramid's last one serves the proposals only."""
        maps = tapped(self.backbone, self.taps, batch)
        return maps if self.fpn is None else list(self.fpn({str(i): m for i, m in enumerate(maps)}).values())

    def pool(self, maps: list[Tensor], boxes: list[Tensor], size: int) -> tuple[Tensor, Tensor]:
        """Features of all images' boxes (in network pixels), each from the map that suits its size.

        Returns:
            ``pooled`` (R, C, size, size), sorted by map, and ``back`` (R,): ``answers[back]`` brings what a head says about ``pooled``
            into the order of the boxes. (Reordering the features themselves would copy far more.)
        """
        index = torch.cat([b.new_full((len(b), 1), i) for i, b in enumerate(boxes)])
        rois = torch.cat((index, torch.cat(boxes)), dim=1)
        strides = self.taps.strides
        maps = [m.float() for m in maps]  # half precision would move boxes by pixels
        if self.form.pooling == "max":
            return roi_pool(maps[0], rois, size, 1 / strides[0]), torch.arange(len(rois), device=rois.device)
        level = pyramid_levels(rois[:, 1:], strides)
        where = [torch.where(level == k)[0] for k in range(len(strides))]
        parts = [roi_align(m, rois[w], size, 1 / s, 2) for m, w, s in zip(maps, where, strides, strict=False)]
        return torch.cat(parts), torch.cat(where).argsort()

    def judge(self, maps: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What the box head says about all images' boxes: float32 logits (R, K + 1) and deltas (R, K + 1, 4)."""
        pooled, back = self.pool(maps, boxes, self.pool_size)
        logits, deltas = self.box_head(pooled.to(maps[0].dtype))
        return logits.float()[back], deltas.float()[back]

    def raw(self, images: Images) -> RawBoxes:
        """Proposals and what the box head says about them."""
        batch, sizes = pad_batch(images, self.multiple)
        maps = self.features(batch)
        out = self.rpn.run(maps, (batch.shape[-2], batch.shape[-1]))
        proposals = self.rpn.proposals(out, sizes, before=self.form.before[1], after=self.form.after[1])
        logits, deltas = self.judge(maps, proposals)
        counts = [len(p) for p in proposals]
        return {"proposals": proposals, "logits": list(logits.split(counts)), "deltas": list(deltas.split(counts))}

    def decode(
        self, raw: RawBoxes, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Detection]:
        """Soft-max, the class's own box, NMS a class, the best ``max_detections``."""
        out = []
        for proposals, logits, deltas, geometry in zip(raw["proposals"], raw["logits"], raw["deltas"], geometries, strict=True):
            probabilities = logits.softmax(-1)[:, 1:]
            row, label = torch.where(probabilities >= score)
            scores = probabilities[row, label]
            boxes = clip_boxes_to_image(self.coder.decode(deltas[row, label + 1], proposals[row]), geometry.resized)
            solid = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(dim=1)
            boxes, scores, label = boxes[solid], scores[solid], label[solid]
            keep = batched_nms(boxes, scores, label, iou)[:max_detections]
            out.append(
                Detection(
                    boxes=geometry.boxes_to_original(boxes[keep]).cpu().numpy(),
                    labels=label[keep].cpu().numpy(),
                    scores=scores[keep].cpu().numpy(),
                )
            )
        return out

    # -- learning ---------------------------------------------------------------------------------

    def propose(self, images: Images, targets: list[Target]) -> tuple[list[Tensor], Proposing, list[tuple[int, int]], list[Truth]]:
        """First stage of a batch: maps, what the RPN says, the images' own sizes, and their truths."""
        batch, sizes = pad_batch(images, self.multiple)
        maps = self.features(batch)
        out = self.rpn.run(maps, (batch.shape[-2], batch.shape[-1]))
        return maps, out, sizes, [truth_of(target, batch.device) for target in targets]

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """``objectness`` and ``rpn_box`` of the proposals, ``class`` and ``box`` of the regions, each a mean over what was sampled.

        In eval mode evenly spaced anchors and regions are taken instead of random ones.
        """
        maps, out, sizes, truths = self.propose(images, targets)
        objectness, rpn_box = self.rpn.losses(out, truths, sizes, random=self.training)
        proposals = self.rpn.proposals(out, sizes, before=self.form.before[0], after=self.form.after[0])
        regions = self.sample(proposals, truths)
        logits, deltas = self.judge(maps, regions.boxes)
        label, aims = torch.cat(regions.labels), torch.cat(regions.aims)
        objects = torch.where(label > 0)[0]
        count = max(len(label), 1)
        category = F.cross_entropy(logits, label, reduction="sum") / count
        own = deltas[objects, label[objects]]
        box = F.smooth_l1_loss(own, aims[objects], beta=SMOOTH_L1_BETA, reduction="sum") / count
        return {"objectness": objectness, "rpn_box": rpn_box, "class": category, "box": box}

    @torch.no_grad()
    def sample(self, proposals: list[Tensor], truths: list[Truth]) -> Regions:
        """Regions to learn from: a quarter with overlap of at least 0.5 (the truths themselves among them), the rest background."""
        regions = Regions([], [], [], [])
        for boxes, truth in zip(proposals, truths, strict=True):
            boxes = torch.cat((boxes, truth.boxes))
            matched = ignore_crowd(match(box_iou(truth.boxes, boxes), 0.5, 0.5), boxes, truth.crowd)
            positive, negative = sample_boxes(matched, self.form.regions, 0.25, random=self.training)
            chosen = torch.cat((positive, negative))
            boxes, matched = boxes[chosen], matched[chosen]
            is_object = matched != BACKGROUND
            labels, aims = torch.zeros_like(matched), torch.zeros_like(boxes)
            labels[is_object] = truth.labels[matched[is_object]] + 1
            aims[is_object] = self.coder.encode(truth.boxes[matched[is_object]], boxes[is_object])
            for field, value in zip(regions, (boxes, labels, aims, matched), strict=True):
                field.append(value)
        return regions

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The RPN's positive anchors, and the regions that the box head learns from."""
        _, out, sizes, truths = self.propose(images, targets)
        anchors = torch.cat(out.anchors)
        regions = self.sample(self.rpn.proposals(out, sizes, before=self.form.before[0], after=self.form.after[0]), truths)
        assigned = []
        for truth, size, boxes, learnt in zip(truths, sizes, regions.boxes, regions.matched, strict=True):
            matched = self.rpn.assign(anchors, truth, size)
            positive = torch.where(matched >= 0)[0]
            first = Assignment("anchors", anchors[positive], matched[positive], truth.boxes, truth.labels)
            assigned.append((first, Assignment("regions", boxes, learnt, truth.boxes, truth.labels)))
        return assigned

    def prior_boxes(self, size: tuple[int, int]) -> Priors:
        """The RPN's anchors on all maps of an image of ``size`` (H, W)."""
        height, width = (-(-side // self.multiple) * self.multiple for side in size)
        strides = [*self.taps.strides, *([2 * self.taps.strides[-1]] if self.fpn is not None else [])]
        maps = [torch.empty(0, -(-height // stride), -(-width // stride)) for stride in strides]
        return Priors(torch.cat(self.rpn.anchors(maps, (height, width))), self.rpn.high, self.taps.strides[0])

    # -- weights and export -----------------------------------------------------------------------

    def translate_weights(self, state: dict[str, Tensor], *, norm_eps: float | None = None) -> dict[str, Tensor]:
        """A state dict of torchvision's ``fasterrcnn_resnet50_fpn`` under our names; one of ours unchanged.

        Args:
            state: tensors by name.
            norm_eps: epsilon that the batch norms of ``state`` were used with; None: see :func:`~saccade.layers.fpn.fit_norms`.
        """
        if not any(name.startswith("roi_heads.") for name in state):
            return state
        out = {}
        for name, value in state.items():
            for pattern, ours in TORCHVISION_NAMES:
                name = re.sub(pattern, ours, name)
            out[name] = value
        return fit_norms(out, self.state_dict(), norm_eps)

    def parts(self) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Exportable halves with an example input each; between them stand NMS and RoI pooling.

        ``proposals``: padded batch (N, C, H, W) -> maps, objectness, deltas (a list each). ``box_head``: pooled features
        (R, C, 7, 7) -> logits, deltas.
        """
        side = max(2 * self.multiple, -(-self.preprocess.size[0] // self.multiple) * self.multiple)
        like = self.rpn.conv.weight
        image = like.new_zeros((1, self.preprocess.channels, side, side))
        pooled = like.new_zeros((2, like.shape[1], self.pool_size, self.pool_size))
        return {"proposals": (ProposalPart(self), (image,)), "box_head": (self.box_head, (pooled,))}


TORCHVISION_NAMES = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"fpn.\1_blocks.\2.0.\3"),  # files older than torchvision 0.13
    (r"^backbone\.fpn\.", "fpn."),
    (r"^rpn\.head\.conv\.(0\.0\.)?", "rpn.conv."),
    (r"^rpn\.head\.cls_logits\.", "rpn.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"^roi_heads\.box_head\.", "box_head."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box_head.score."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box_head.deltas."),
)


class ProposalPart(nn.Module):
    """Backbone, pyramid and RPN of a model as one graph."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Maps, objectness logits and deltas."""
        maps = self.model.features(batch)
        return maps, *self.model.rpn(maps)


class VGGMaps(nn.Module):
    """The convolutions of a VGG up to the last pool: one map at stride 16."""

    def __init__(self, convolutions: nn.Sequential) -> None:
        super().__init__()
        self.features = convolutions[:-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """[(N, 512, H / 16, W / 16)]."""
        return [self.features(images)]


def truth_of(target: Target, device: torch.device) -> Truth:
    """The objects of a target: those with an area, crowd regions apart."""
    boxes = target["boxes"].as_subclass(Tensor).to(device, torch.float32).reshape(-1, 4)
    labels = target["labels"].to(device)
    crowd = target["iscrowd"].to(device) if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return Truth(boxes[solid & ~crowd], labels[solid & ~crowd], boxes[solid & crowd])


def faster_rcnn(
    num_classes: int = 90,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    backbone: str = "resnet50",
    pretrained_backbone: bool = False,
    norm: Literal["auto", "frozen", "batch", "group"] = "auto",
    frozen_stages: int | None = None,
    min_size: int = 800,
    max_size: int = 1333,
    anchor_sizes: tuple[float, ...] | None = None,
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    drop_border: bool | None = None,
    channels: int = 256,
    head_width: int | None = None,
    regions: int | None = None,
) -> FasterRCNN:
    """Faster R-CNN on any timm backbone through a feature pyramid, or on one map of a VGG as in the paper.

    Args:
        num_classes: labels; 90 with the published weights (COCO's category id - 1).
        in_chans: 1 or 3.
        pretrained: torchvision's COCO weights (backbone "resnet50"); with another ``num_classes`` the last layer starts anew.
        backbone: a timm name, or "vgg16" and its like for the paper's form.
        pretrained_backbone: ImageNet weights.
        norm: "frozen" (constants), "batch" or "group" normalisation in the backbone; "auto": frozen with pretrained weights, else batch.
        frozen_stages: stages of the backbone without gradient, 1 being stem and first stage (VGG: conv1 and conv2);
            None: 1 with pretrained weights, else 0.
        min_size, max_size: short side after resizing; the long one is at most ``max_size``.
        anchor_sizes: square roots of the anchors' areas in network pixels. Pyramid: one a map, the coarsest included (five for most
            backbones); None: 8 strides of each map. VGG: all those of its one map; None: 128, 256, 512. Small objects, or a small
            ``min_size``, want smaller ones.
        aspect_ratios: height / width of the anchors.
        drop_border: leave anchors that cross the border out of training. None: as the form (VGG yes, pyramid no).
        channels: of the pyramid's maps.
        head_width: units of the box head's two dense layers. None: 1024; VGG: 4096, which starts from VGG's own.
        regions: proposals of an image that the box head learns from at a step. None: 512; VGG: 128. Half of a step's time on a processor.

    Raises:
        UsageError: options that do not fit together.
    """
    check_within(32, 4096, min_size=min_size)
    check_within(min_size, 16384, max_size=max_size)
    check_within(1, 16384, channels=channels, head_width=head_width, regions=regions)
    single = backbone in VGGS
    if pretrained and ((backbone, in_chans, channels, head_width or 1024) != ("resnet50", 3, 256, 1024) or norm == "group"):
        raise UsageError("faster_rcnn has published weights for its default network (resnet50, in_chans=3): use pretrained_backbone=True")
    learned = pretrained or pretrained_backbone
    if norm == "auto":
        norm = "frozen" if learned else "batch"
    fetch_backbone = pretrained_backbone and not pretrained
    if single:
        net, taps, dense = _vgg(backbone, in_chans, fetch_backbone)
    else:
        net, taps = timm_backbone(backbone, in_chans=in_chans, pretrained=fetch_backbone)
    net = convert_norm(net, norm)
    frozen_stages = int(learned) if frozen_stages is None else frozen_stages
    if not 0 <= frozen_stages <= len(taps.modules):
        raise UsageError(f"model.frozen_stages={frozen_stages}: {backbone} has {len(taps.modules)} stages")
    if frozen_stages:
        freeze_until(net, taps.modules[frozen_stages - 1])

    if single:
        form, fpn, channels, width = SINGLE, None, taps.channels[0], head_width or 4096
        sizes = [anchor_sizes or (128.0, 256.0, 512.0)]
    else:
        form, width = PYRAMID, head_width or 1024
        fpn = FeaturePyramidNetwork(taps.channels, channels, LastLevelMaxPool())
        strides = [*taps.strides, 2 * taps.strides[-1]]
        sizes = [(size,) for size in anchor_sizes or [8.0 * stride for stride in strides]]
        if len(sizes) != len(strides):
            raise UsageError(f"model.anchor_sizes has {len(sizes)} values; {backbone} has maps of strides {', '.join(map(str, strides))}")
    form = form if regions is None else replace(form, regions=regions)
    rpn = RPN(channels, sizes, aspect_ratios, drop_border=single if drop_border is None else drop_border)
    head = BoxHead(channels, 7, width, num_classes, dropout=0.5 if single else 0.0)
    if single and width == 4096:
        head.fc6.load_state_dict(dense[0].state_dict())
        head.fc7.load_state_dict(dense[3].state_dict())
    config = getattr(net, "pretrained_cfg", None) or {}
    preprocess = Preprocess(
        mode="shortest",
        size=(min_size, max_size),
        channels=in_chans,
        mean=config.get("mean", IMAGENET_MEAN) if in_chans == 3 else (0.449,),
        std=config.get("std", IMAGENET_STD) if in_chans == 3 else (0.226,),
        antialias=False,
        resize_float=True,
    )
    model = FasterRCNN(num_classes, net, taps, fpn, rpn, head, form, preprocess)
    # What a bundle must say: the network as it is now, without fetching weights again.
    model.build_options = {"norm": norm, "frozen_stages": frozen_stages, "pretrained_backbone": False}
    if pretrained:
        _load_published(model)
    return model


def _vgg(name: str, in_chans: int, pretrained: bool) -> tuple[VGGMaps, Taps, nn.Sequential]:
    """Convolutions, tap at stride 16, and the dense layers of torchvision's VGG."""
    from torchvision.models import get_model, get_model_weights

    net = get_model(name)
    if pretrained:
        from saccade.models.weights import fetch_torchvision

        net.load_state_dict(fetch_torchvision(get_model_weights(name).DEFAULT))
    if in_chans != 3:  # the sum over colours answers a grey image as the whole filter answers grey RGB
        first, grey = net.features[0], nn.Conv2d(in_chans, 64, 3, padding=1)
        grey.weight.data.copy_(first.weight.data.sum(1, keepdim=True) / in_chans)
        grey.bias.data.copy_(first.bias.data)
        net.features[0] = grey
    pools = [f"features.{i}" for i, layer in enumerate(net.features) if isinstance(layer, nn.MaxPool2d)]
    return VGGMaps(net.features), Taps([0], [16], [512], pools[1:-1]), net.classifier


def _load_published(model: FasterRCNN) -> None:
    """The COCO weights of torchvision; the last layers only when they have 90 labels."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    from saccade.models.weights import fetch_torchvision

    weights = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    state = model.translate_weights(fetch_torchvision(weights), norm_eps=0.0)
    if model.num_classes == 90:
        model.classes = list(weights.meta["categories"][1:])
    else:
        own = model.state_dict()
        state |= {name: own[name] for name in own if name.startswith(("box_head.score.", "box_head.deltas."))}
    model.load_state_dict(state)
