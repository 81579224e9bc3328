"""RetinaNet: one pass over a feature pyramid, trained with the focal loss.

Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002.

New in the paper: a detector in one pass sees some 100,000 places and a handful of objects; the sum of many small losses of easy background
drowns the rest. The focal loss weighs each place by how wrong it is, ``(1 - p_t)^gamma``: nothing is sampled, all places learn.

Where it is:
    Equation 5, focal loss, alpha 0.25, gamma 2     :mod:`saccade.losses.focal`
    Section 3.3, initial probability pi = 0.01      :class:`Tower`
    Section 4, pyramid P3 to P7 (footnote 2)        :func:`retinanet`, torchvision's ``FeaturePyramidNetwork`` and ``LastLevelP6P7``
    Section 4, anchors, 3 sizes and 3 ratios        :meth:`RetinaNet.anchors`
    Section 4, assignment at 0.5 and 0.4            :meth:`RetinaNet.assign`
    Figure 3, class subnet (W x H x KA), box subnet (W x H x 4A), shared by all levels    :class:`Tower`
    Section 4.1, 1000 best a level, NMS at 0.5      :meth:`RetinaNet.decode`; the loss of an image: :meth:`RetinaNet.losses`

P6. The paper makes it from C5, the backbone's last map (``p6="c5"``, the default). torchvision's ``retinanet_resnet50_fpn`` makes it from
P5 (``p6="p5"``; its weights have 256 input channels there), its ``_v2`` from C5 again. Published weights bring their form with them.

The second version of torchvision (after Zhang et al., ATSS, arXiv 1912.02424) has group normalisation in the subnets
(``head_norm="group"``) and was trained with GIoU (``recipe.loss=giou``), the first with L1 (``l1``). Here the default is the paper's smooth
L1, which turns linear at 1/9.

Deviations. Sides of anchors are rounded to whole pixels (torchvision). A truth that no anchor overlaps by 0.5 takes its best ones
(``best_match``; torchvision and the authors' program; the paper does not say it). Boxes without area are not learned; anchors mostly inside
a crowd region are neither object nor background.
Recipe: the paper's SGD (rate 0.01 for 16 images, here 0.0025 for 4), a tenth after 2/3 and 8/9, flips; with warm-up and clipped gradient.

torchvision's weights have 91 outputs, COCO's category ids, and never 0: ours are 90 labels, ``label = id - 1``. A file with one class more
than the model has loses its first output; with 91 classes all stay.

Pinned by tests: anchors, levels, thresholds, parameters; outputs, boxes and losses equal torchvision's; the losses by the equations, in
loops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from saccade.boxes.coders import BoxCoder
from saccade.boxes.iou import paired_iou, pairwise_iou
from saccade.boxes.nms import class_nms
from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, for_channels
from saccade.layers.fpn import Taps, convert_norm, fit_norms, freeze_until, pad_batch, tapped, timm_backbone
from saccade.losses.focal import sigmoid_focal_loss
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.detect.base import Assignment, Detector, Priors, truths
from saccade.models.detect.rpn import IGNORED, SMOOTH_L1_BETA, cell_anchors, grid_anchors, ignore_crowd, match
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

RATIOS = (0.5, 1.0, 2.0)
"""Height / width of the anchors."""

OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sizes of a level's anchors, relative to its base."""

CANDIDATES = 1000
"""Best places and classes of a level that enter NMS."""


class RawLevels(TypedDict):
    """What :meth:`RetinaNet.raw` gives, an item a level: ``logits`` (B, M, K), ``deltas`` (B, M, 4), ``anchors`` (M, 4) network pixels."""

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class Tower(nn.Module):
    """A subnet of figure 3: four 3x3 convolutions with ReLU, and one that gives ``columns`` numbers for each of A anchors of a cell.

    Args:
        channels: of the pyramid's maps and within.
        anchors: A.
        columns: K classes or 4 offsets.
        prior: probability that the outputs start at (the paper's pi); None: the outputs start near 0.
        norm: group normalisation in 32 groups after each inner convolution.
    """

    def __init__(self, channels: int, anchors: int, columns: int, *, prior: float | None = None, norm: bool = False) -> None:
        super().__init__()
        layer: Callable[[int], nn.Module] | None = partial(nn.GroupNorm, math.gcd(32, channels)) if norm else None
        self.columns = columns
        self.inner = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=layer) for _ in range(4)))
        self.output = nn.Conv2d(channels, anchors * columns, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if prior is not None:
            nn.init.constant_(self.output.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, H * W * A, columns) float32 of each map, in the order of the anchors."""
        out = [self.output(self.inner(m)) for m in maps]  # channel = anchor * columns + column
        return [o.permute(0, 2, 3, 1).reshape(len(o), -1, self.columns).float() for o in out]


class RetinaNet(Detector):
    """RetinaNet on a pyramid; images are normalised (C, H, W) tensors of any sizes, padded here to a common multiple of 32.

    Args:
        num_classes: K; label k is output k.
        backbone: gives the maps of ``taps``, of strides 8, 16 and 32.
        fpn: turns them into P3 to P7.
        channels: of the pyramid.
        preprocess: resizes and normalises.
        sizes: sides of the three square anchors of each level in pixels.
        ratios: of the anchors.
        head_norm: group normalisation in the subnets.
        alpha, gamma: of the focal loss.
        best_match: a truth takes its best anchors, however low their overlap.
    """

    loss_names = ("smooth_l1", "l1", "giou")
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    positive, negative = 0.5, 0.4

    def __init__(
        self,
        num_classes: int,
        backbone: nn.Module,
        taps: Taps,
        fpn: nn.Module,
        channels: int,
        preprocess: Preprocess,
        *,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float] = RATIOS,
        head_norm: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        best_match: bool = True,
    ) -> None:
        super().__init__(num_classes)
        self.backbone, self.taps, self.fpn, self.preprocess = backbone, taps, fpn, preprocess
        self.alpha, self.gamma, self.best_match = alpha, gamma, best_match
        self.multiple = taps.strides[-1]
        for level, size in enumerate(sizes):
            self.register_buffer(f"cell{level}", cell_anchors(size, ratios), persistent=False)
        count = len(sizes[0]) * len(ratios)
        self.classification = Tower(channels, count, num_classes, prior=0.01, norm=head_norm)
        self.regression = Tower(channels, count, 4, norm=head_norm)

    # -- the network ------------------------------------------------------------------------------

    def anchors(self, grids: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> list[Tensor]:
        """(H * W * A, 4) anchors of each level's (H, W) grid, for images padded to ``canvas`` (H, W)."""
        cells = [self.get_buffer(f"cell{level}") for level in range(len(grids))]
        return [grid_anchors(c, g, (canvas[0] // g[0], canvas[1] // g[1])) for c, g in zip(cells, grids, strict=True)]

    def raw(self, images: Images) -> RawLevels:
        """Class logits, box offsets and anchors of the five levels."""
        batch, _ = pad_batch(images, self.multiple)
        maps = {str(i): m for i, m in enumerate(tapped(self.backbone, self.taps, batch))}
        levels = list(self.fpn(maps).values())
        anchors = self.anchors([(m.shape[-2], m.shape[-1]) for m in levels], (batch.shape[-2], batch.shape[-1]))
        return {"logits": self.classification(levels), "deltas": self.regression(levels), "anchors": anchors}

    def decode(
        self, raw: RawLevels, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Sigmoids, of each level the best 1000 of all places and classes above ``score``, NMS a class, the best ``max_detections``."""
        least = math.log(score / (1 - score)) if 0 < score < 1 else math.copysign(math.inf, score - 0.5)
        out: list[Prediction] = []
        for i, geometry in enumerate(geometries):
            boxes, scores, labels = [], [], []
            for logits, deltas, anchors in zip(*(raw["logits"], raw["deltas"], raw["anchors"]), strict=True):
                flat = logits[i].flatten()
                above = torch.where(flat > least)[0]
                value, best = flat[above].topk(min(CANDIDATES, len(above)))
                place, label = above[best] // self.num_classes, above[best] % self.num_classes
                boxes.append(clip_boxes_to_image(self.coder.decode(deltas[i, place], anchors[place]), geometry.resized))
                scores.append(value.sigmoid())
                labels.append(label)
            box, value, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
            keep = class_nms(box, value, label, iou)[:max_detections]
            found = geometry.boxes_to_original(box[keep])
            out.append(Detection(boxes=found.cpu().numpy(), labels=label[keep].cpu().numpy(), scores=value[keep].cpu().numpy()))
        return out

    # -- learning ---------------------------------------------------------------------------------

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Focal loss of all anchors that are not ignored, and loss of the positives' boxes; of an image over its number of positives.

        Both are means over the images.
        """
        raw = self.raw(images)
        logits, deltas, anchors = torch.cat(raw["logits"], 1), torch.cat(raw["deltas"], 1), torch.cat(raw["anchors"])
        class_loss = box_loss = logits.new_zeros(())
        for i, target in enumerate(targets):
            boxes, labels, crowd = truths(target, deltas)
            matched = self.assign(anchors, boxes, crowd)
            found = torch.where(matched >= 0)[0]
            count = max(len(found), 1)
            wanted = torch.zeros_like(logits[i])
            wanted[found, labels[matched[found]]] = 1
            focal = sigmoid_focal_loss(logits[i], wanted, alpha=self.alpha, gamma=self.gamma, reduction="none")
            class_loss = class_loss + focal.sum(1)[matched != IGNORED].sum() / count
            box_loss = box_loss + self.box_loss(deltas[i, found], anchors[found], boxes[matched[found]]) / count
        return {"class": class_loss / len(targets), "box": box_loss / len(targets)}

    def box_loss(self, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Summed loss of M predicted (M, 4) offsets to the ``boxes`` (M, 4) that their ``anchors`` (M, 4) learn."""
        if self.loss_name == "giou":
            return (1 - paired_iou(self.coder.decode(deltas, anchors), boxes, "giou")).sum()
        wanted = self.coder.encode(boxes, anchors)
        if self.loss_name == "l1":
            return F.l1_loss(deltas, wanted, reduction="sum")
        return F.smooth_l1_loss(deltas, wanted, beta=SMOOTH_L1_BETA, reduction="sum")

    def assign(self, anchors: Tensor, boxes: Tensor, crowd: Tensor) -> Tensor:
        """(A,) index of the truth that each anchor learns: IoU of at least 0.5; below 0.4 background, between the two ignored."""
        matched = match(pairwise_iou(boxes, anchors), self.positive, self.negative, keep_best=self.best_match)
        return ignore_crowd(matched, anchors, crowd)

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The anchors that learn an object."""
        batch, _ = pad_batch(images, self.multiple)
        anchors = self.prior_boxes((batch.shape[-2], batch.shape[-1])).boxes
        out: list[tuple[Assignment, ...]] = []
        for target in targets:
            boxes, labels, crowd = truths(target, anchors)
            matched = self.assign(anchors, boxes, crowd)
            found = torch.where(matched >= 0)[0]
            out.append((Assignment("anchors", anchors[found], matched[found], boxes, labels),))
        return out

    def prior_boxes(self, size: tuple[int, int]) -> Priors:
        """The anchors of all levels of an image of ``size`` (H, W)."""
        height, width = (-(-side // self.multiple) * self.multiple for side in size)
        grids = [(height // stride, width // stride) for stride in self.taps.strides]
        for _ in range(2):  # P6 and P7 halve, rounding up
            grids.append((-(-grids[-1][0] // 2), -(-grids[-1][1] // 2)))
        return Priors(torch.cat(self.anchors(grids, (height, width))), self.positive, self.taps.strides[0])

    def translate_weights(self, state: dict[str, Tensor], *, norm_eps: float | None = None) -> dict[str, Tensor]:
        """A state dict of torchvision's ``retinanet_resnet50_fpn`` or ``_v2`` under our names; one of ours unchanged.

        Args:
            state: tensors by name.
            norm_eps: epsilon that the batch norms of ``state`` were used with; None: see :func:`~saccade.layers.fpn.fit_norms`.
        """
        if not any(name.startswith("head.") for name in state):
            return state
        out = {}
        for name, value in state.items():
            for pattern, ours in TORCHVISION_NAMES:
                name = re.sub(pattern, ours, name)
            out[name] = value
        for name in ("classification.output.weight", "classification.output.bias"):
            per_anchor = out[name].unflatten(0, (self.regression.output.out_channels // 4, -1))
            if per_anchor.shape[1] == self.num_classes + 1:
                out[name] = per_anchor[:, 1:].flatten(0, 1)
        return fit_norms(out, self.state_dict(), norm_eps)


TORCHVISION_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"fpn.\1_blocks.\2.0.\3"),  # files older than torchvision 0.13
    (r"^backbone\.fpn\.", "fpn."),
    (r"^head\.(classification|regression)_head\.(cls_logits|bbox_reg)\.", r"\1.output."),
    # files older than torchvision 0.13 count the activations: 0, 2, 4, 6
    (r"^head\.(classification|regression)_head\.conv\.(\d)\.(weight|bias)$", lambda m: f"{m[1]}.inner.{int(m[2]) // 2}.0.{m[3]}"),
    (r"^head\.(classification|regression)_head\.conv\.", r"\1.inner."),
)


def retinanet(
    num_classes: int = 90,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    backbone: str = "resnet50",
    pretrained_backbone: bool = False,
    p6: Literal["c5", "p5"] | None = None,
    head_norm: Literal["none", "group"] = "none",
    norm: Literal["auto", "frozen", "batch", "group"] = "auto",
    frozen_stages: int | None = None,
    min_size: int = 800,
    max_size: int = 1333,
    anchor_sizes: tuple[float, ...] | None = None,
    aspect_ratios: tuple[float, ...] = RATIOS,
    channels: int = 256,
    alpha: float = 0.25,
    gamma: float = 2.0,
    best_match: bool = True,
) -> RetinaNet:
    """RetinaNet on any timm backbone with maps of strides 8, 16 and 32.

    Args:
        num_classes: labels; 90 with the published weights (COCO's category id - 1).
        in_chans: 1 or 3.
        pretrained: torchvision's COCO weights (backbone "resnet50"), of its first version, or with ``head_norm="group"`` of its second;
            with another ``num_classes`` the last layer starts anew.
        backbone: a timm name.
        pretrained_backbone: ImageNet weights.
        p6: what P6 is made from, the backbone's last map ("c5") or the pyramid's ("p5"); None: as the weights, else "c5".
        head_norm: "group" normalises in the subnets, which training from scratch may want.
        norm: "frozen" (constants), "batch" or "group" normalisation in the backbone; "auto": frozen with pretrained weights, else batch.
        frozen_stages: stages of the backbone without gradient, 1 being stem and first stage; None: 1 with pretrained weights, else 0.
        min_size, max_size: short side after resizing; the long one is at most ``max_size``.
        anchor_sizes: square roots of the areas of each level's smallest anchors in network pixels, five; None: 32, 64, 128, 256, 512.
            Each level has them times 1, 1.26 and 1.59. Small objects, or a small ``min_size``, want smaller ones.
        aspect_ratios: height / width of the anchors.
        channels: of the pyramid's maps and the subnets.
        alpha, gamma: weight of positives and focusing of the focal loss.
        best_match: a truth takes its best anchors, however low their overlap.

    Raises:
        UsageError: options that do not fit together.
    """
    check_within(32, 4096, min_size=min_size)
    check_within(min_size, 16384, max_size=max_size)
    check_within(1, 4096, channels=channels)
    if not (0 < alpha < 1 and 0 <= gamma <= 5):
        raise UsageError(f"model.alpha={alpha}, model.gamma={gamma}: alpha lies between 0 and 1, gamma in 0..5")
    bases = anchor_sizes or (32.0, 64.0, 128.0, 256.0, 512.0)
    if len(bases) != 5 or not aspect_ratios or min(*bases, *aspect_ratios) <= 0:
        raise UsageError("model.anchor_sizes has a size for each of 5 levels, model.aspect_ratios one ratio or more, all above 0")
    published = "c5" if head_norm == "group" else "p5"
    p6 = p6 or (published if pretrained else "c5")  # type: ignore[assignment]
    if pretrained and ((backbone, in_chans, channels, p6) != ("resnet50", 3, 256, published) or norm == "group"):
        raise UsageError("retinanet has published weights for its default network (resnet50, in_chans=3): use pretrained_backbone=True")
    learned = pretrained or pretrained_backbone
    if norm == "auto":
        norm = "frozen" if learned else "batch"
    net, taps = timm_backbone(backbone, in_chans=in_chans, pretrained=pretrained_backbone and not pretrained)
    if not {8, 16, 32} <= set(taps.strides):
        raise UsageError(f"backbone {backbone!r} has maps of strides {taps.strides}: RetinaNet needs 8, 16 and 32")
    net = convert_norm(net, norm)
    frozen_stages = int(learned) if frozen_stages is None else frozen_stages
    check_within(0, len(taps.modules), frozen_stages=frozen_stages)
    if frozen_stages:
        freeze_until(net, taps.modules[frozen_stages - 1])
    used = [taps.strides.index(stride) for stride in (8, 16, 32)]
    taps = Taps(*([values[k] for k in used] for values in taps))  # type: ignore[arg-type]

    last = LastLevelP6P7(taps.channels[-1] if p6 == "c5" else channels, channels)
    last.use_P5 = p6 == "p5"  # which torchvision guesses from the channels
    fpn = FeaturePyramidNetwork(taps.channels, channels, last)
    config = getattr(net, "pretrained_cfg", None) or {}
    mean, std = for_channels(in_chans, config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD))
    preprocess = Preprocess(
        mode="shortest", size=(min_size, max_size), channels=in_chans, mean=mean, std=std, antialias=False, resize_float=True
    )
    model = RetinaNet(
        num_classes, net, taps, fpn, channels, preprocess,
        sizes=[[max(1, math.floor(base * factor)) for factor in OCTAVE] for base in bases],
        ratios=aspect_ratios, head_norm=head_norm == "group", alpha=alpha, gamma=gamma, best_match=best_match,
    )  # fmt: skip
    # What a bundle must say: the network as it is now, without fetching weights again.
    model.build_options = {"p6": p6, "norm": norm, "frozen_stages": frozen_stages, "pretrained_backbone": False}
    if pretrained:
        _load_published(model, second=head_norm == "group")
    return model


def _load_published(model: RetinaNet, *, second: bool) -> None:
    """The COCO weights of torchvision; the last layer of the classes only where they are 90 or 91."""
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

    from saccade.models.weights import fetch_torchvision

    weights = RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1 if second else RetinaNet_ResNet50_FPN_Weights.COCO_V1
    state = model.translate_weights(fetch_torchvision(weights))
    categories = list(weights.meta["categories"])
    if model.num_classes in (len(categories), len(categories) - 1):
        model.classes = categories[-model.num_classes :]
    else:
        state |= {name: value for name, value in model.state_dict().items() if name.startswith("classification.output.")}
    model.load_state_dict(state)


def form_of_weights(name: str, tensors: Iterable[str]) -> dict[str, str]:
    """Which form a file of weights is of: of torchvision's two the second has norms in its subnets."""
    names = set(tensors)
    if not any(tensor.startswith("head.classification_head.") for tensor in names):
        return {}
    second = "head.classification_head.conv.0.1.weight" in names
    return {"p6": "c5", "head_norm": "group"} if second else {"p6": "p5"}


RECIPES = {
    "retinanet": Recipe(
        epochs=26, batch_size=4, optimizer="sgd", lr=0.0025, momentum=0.9, weight_decay=1e-4, norm_decay=True,
        schedule="multistep", lr_steps=(0.667, 0.889), warmup=1.0, clip=10.0, hflip=0.5,
    )
}  # fmt: skip
