"""YOLOv3 (2018), with its small form and the one with spatial pyramid pooling.

Redmon, Farhadi: YOLOv3: An Incremental Improvement, arXiv 1804.02767.

What was new: boxes at three scales from one fused pyramid, nine priors shared out among them, one prior a truth, a logistic objectness,
independent logistic classes instead of a soft-max, and Darknet-53.

Where what stands:

* section 2.1, the equations of a box: :class:`~saccade.models.detect.grid.GridDetector`; the loss of its coordinates, "the ground truth
  value minus our prediction" as gradient: :meth:`YOLOv3.coordinate_loss`,
* section 2.1, the prior that overlaps a truth more than any other learns it, the others above a threshold are ignored:
  :meth:`YOLOv3.assign`, :func:`ignored`,
* section 2.2, classes that do not exclude each other: :meth:`YOLOv3.losses`,
* section 2.3, three scales of N x N x 3 x (4 + 1 + 80), each fused from the coarser one and the backbone; the nine priors:
  :class:`Pyramid`, ``PRIORS``,
* section 2.4, Darknet-53: :mod:`saccade.models.classify.darknet53`,
* the small network, the pooling of ``yolov3_spp``, the priors of each level and the order of the layers: Darknet's own descriptions
  (``yolov3.cfg``, ``yolov3-tiny.cfg``, ``yolov3-spp.cfg``). The convolutions stand in ``modules()`` in their order.

What the paper leaves open, here as in Darknet: an ignored box is one whose *predicted* box overlaps a truth; the gradient
"prediction minus truth" is of sigma(tx) and sigma(ty) (so their loss is a cross entropy) and of tw and th (half a squared error), each
weighted by 2 minus the share of the image that the truth covers; losses are summed over an image and averaged over the batch.

Deviations. Of several truths that one box should learn it takes the one of its shape, Darknet the last of the file; it learns the classes
of all of them, as in Darknet. ``recipe.loss`` may replace the coordinates' loss by 1 - GIoU, DIoU or CIoU, five times as heavy (our
choice). Objectness starts near 0.01 everywhere (RetinaNet, arXiv 1708.02002), not near one half. Crowds are ignored. Batch normalisation
adds 1e-5 inside the root. The recipe is for small data from scratch: AdamW, a cosine, averaged weights and some tens of epochs for SGD at
0.001 over 500 200 batches; of the paper's training it keeps several sizes, flips, and shifts of scale, place and colour.

Pinned by tests: priors and scales; 62,001,757, 8,858,734 and 63,052,381 numbers in Darknet's files of weights; the layers of its
descriptions in order, its numbers on the same weights; losses and gradients of a literal program.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.boxes.iou import paired_iou
from saccade.layers.backbones import timm_features
from saccade.layers.conv_bn import Activation, ConvBN
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.darknet53 import Darknet53
from saccade.models.classify.network import check_width, initialise, scaled
from saccade.models.detect.base import Assignment, Objects
from saccade.models.detect.grid import GridDetector, Sides, corners
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

PRIORS: tuple[Sides, ...] = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
"""Section 2.3, coarsest scale first, in pixels."""

TINY_PRIORS: tuple[Sides, ...] = (((81, 82), (135, 169), (344, 319)), ((10, 14), (23, 27), (37, 58)))

START = 0.01
"""Objectness of every box before training."""

SMALLEST_SIDE = 1e-2
"""Pixels that a predicted side has at least where its overlap is learnt: an empty box has no ratio of sides."""


# -- layers ---------------------------------------------------------------------------------------


class SpatialPools(nn.Module):
    """(N, C, H, W) to (N, 4 C, H, W): maxima over windows of 13, 9 and 5, and the maps themselves.

    A window of 9 is one of 5 after one of 5.
    """

    def forward(self, x: Tensor) -> Tensor:
        pools = [x]
        for _ in (5, 9, 13):
            pools.insert(0, F.max_pool2d(pools[0], 5, stride=1, padding=2))
        return torch.cat(pools, 1)


def doubled(x: Tensor) -> Tensor:
    """Every value twice in both directions."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def units(in_chans: int, maps: Sequence[int], kernels: Sequence[int], activation: Activation = "leaky") -> list[nn.Module]:
    """Convolutions with batch normalisation and activation, one after the other."""
    chans = [in_chans, *maps]
    return [ConvBN(i, o, k, activation=activation) for i, o, k in zip(chans[:-1], chans[1:], kernels, strict=True)]


def squeeze(in_chans: int, maps: int) -> nn.Sequential:
    """Five convolutions, 1x1 and 3x3 in turn, to ``maps``."""
    return nn.Sequential(*units(in_chans, (maps, 2 * maps, maps, 2 * maps, maps), (1, 3, 1, 3, 1)))


def head(in_chans: int, maps: int, outputs: int, activation: Activation = "leaky") -> nn.Sequential:
    """A 3x3 convolution and the plain 1x1 that predicts."""
    return nn.Sequential(ConvBN(in_chans, maps, 3, activation=activation), nn.Conv2d(maps, outputs, 1))


def start_low(heads: Iterable[nn.Module], num_classes: int) -> None:
    """Initial weights of heads: near-equal outputs, objectness near ``START``."""
    for layer in heads:
        assert isinstance(layer, nn.Sequential)
        predict = layer[-1]
        assert isinstance(predict, nn.Conv2d)
        assert predict.bias is not None
        with torch.no_grad():
            nn.init.normal_(predict.weight, std=0.01)
            predict.bias.zero_().view(-1, 5 + num_classes)[:, 4] = math.log(START / (1 - START))


class TimmStages(nn.Module):
    """The last maps of strides 8, 16 and 32 of a timm network."""

    def __init__(self, name: str, in_chans: int, pretrained: bool, size: int) -> None:
        super().__init__()
        self.backbone = timm_features(name, in_chans, pretrained, size)
        info: Any = self.backbone.feature_info
        strides = info.reduction()
        if not {8, 16, 32} <= set(strides):
            raise UsageError(f"model.backbone: {name} gives maps of strides {strides}, needed are 8, 16 and 32")
        self.picked = [len(strides) - 1 - strides[::-1].index(stride) for stride in (8, 16, 32)]
        self.channels = [info.channels()[k] for k in self.picked]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone(images)
        return [maps[k] for k in self.picked]


class DarknetStages(nn.Module):
    """The maps of strides 8, 16 and 32 of Darknet-53, or of another network whose last three stages have them."""

    def __init__(self, stages: nn.Sequential, channels: Sequence[int]) -> None:
        super().__init__()
        self.backbone = stages
        self.channels = list(channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.backbone:
            maps.append(stage(maps[-1]))
        return maps[-3:]


# -- networks -------------------------------------------------------------------------------------


class Pyramid(nn.Module):
    """Section 2.3: images to the outputs of strides 32, 16 and 8. The children stand in the order of ``yolov3.cfg``."""

    def __init__(self, stages: DarknetStages | TimmStages, outputs: int, *, width: float = 1.0, pooled: bool = False) -> None:
        super().__init__()
        self.stages = stages
        top, middle, bottom = (scaled(maps, width) for maps in (512, 256, 128))
        fine, medium, coarse = stages.channels
        if pooled:
            before = units(coarse, (top, 2 * top, top), (1, 3, 1))
            after = units(4 * top, (top, 2 * top, top), (1, 3, 1))
            self.squeeze32 = nn.Sequential(*before, SpatialPools(), *after)
        else:
            self.squeeze32 = squeeze(coarse, top)
        self.head32 = head(top, 2 * top, outputs)
        self.up16 = ConvBN(top, middle, 1, activation="leaky")
        self.squeeze16 = squeeze(middle + medium, middle)
        self.head16 = head(middle, 2 * middle, outputs)
        self.up8 = ConvBN(middle, bottom, 1, activation="leaky")
        self.squeeze8 = squeeze(bottom + fine, bottom)
        self.head8 = head(bottom, 2 * bottom, outputs)
        for name, layer in self.named_children():
            if name != "stages":  # which have their own initial weights
                initialise(layer)

    @property
    def heads(self) -> list[nn.Module]:
        """What predicts, in the order of the outputs."""
        return [self.head32, self.head16, self.head8]

    def forward(self, images: Tensor) -> list[Tensor]:
        fine, medium, coarse = self.stages(images)
        coarse = self.squeeze32(coarse)
        medium = self.squeeze16(torch.cat([doubled(self.up16(coarse)), medium], 1))
        fine = self.squeeze8(torch.cat([doubled(self.up8(medium)), fine], 1))
        return [self.head32(coarse), self.head16(medium), self.head8(fine)]


class TinyPyramid(nn.Module):
    """``yolov3-tiny.cfg``: images to the outputs of strides 32 and 16."""

    def __init__(self, in_chans: int, outputs: int, *, width: float = 1.0) -> None:
        super().__init__()
        maps = [scaled(m, width) for m in (16, 32, 64, 128, 256, 512, 1024)]
        convs = units(in_chans, maps, (3,) * 7)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, conv in enumerate(convs, start=1):
            layers[f"conv{number}"] = conv
            if number < 6:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
            elif number == 6:  # a window of 2 at stride 1, one more column and row
                layers["pool6"] = nn.Sequential(nn.ReplicationPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, stride=1))
        self.backbone = nn.Sequential(layers)
        self.squeeze32 = ConvBN(maps[6], maps[4], 1, activation="leaky")
        self.head32 = head(maps[4], maps[5], outputs)
        self.up16 = ConvBN(maps[4], maps[3], 1, activation="leaky")
        self.head16 = head(maps[3] + maps[4], maps[4], outputs)
        initialise(self)

    @property
    def heads(self) -> list[nn.Module]:
        """What predicts, in the order of the outputs."""
        return [self.head32, self.head16]

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = x = images
        for name, layer in self.backbone.named_children():
            x = layer(x)
            fine = x if name == "conv5" else fine
        coarse = self.squeeze32(x)
        return [self.head32(coarse), self.head16(torch.cat([doubled(self.up16(coarse)), fine], 1))]


# -- what a box learns ------------------------------------------------------------------------------


class Assigned(NamedTuple):
    """Boxes that learn an object: S of them, none twice.

    Attributes:
        image, box: (S,) the image, and the box among its M as :meth:`YOLOv3.predictions` has them.
        truth: (S,) of :class:`Objects`. labels: (S, K) 0 or 1, the classes of all objects that ask for the box.
        prior: (S,) among the priors of all levels. cell: (S, 2) column and row.
    """

    image: Tensor
    box: Tensor
    truth: Tensor
    labels: Tensor
    prior: Tensor
    cell: Tensor


def shape_iou(sides: Tensor, priors: Tensor) -> Tensor:
    """(T, P) IoU of (T, 2) and (P, 2) widths and heights on a common centre."""
    inter = torch.minimum(sides[:, None], priors).prod(-1)
    return inter / (sides.prod(-1)[:, None] + priors.prod(-1) - inter)


def ignored(boxes: Tensor, objects: Objects, threshold: float) -> Tensor:
    """(N, M) whether a predicted box (N, M, 4) overlaps a truth by more than ``threshold``, or lies in a crowd by more than half."""

    def common(others: Tensor) -> Tensor:
        (left, top, right, bottom), (x1, y1, x2, y2) = boxes[:, :, None].unbind(-1), others[:, None].unbind(-1)
        width = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_min_(0)
        return width.mul_((torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_min_(0))

    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[..., None]
    inter = common(objects.padded)
    union = area + (objects.padded[..., 2:] - objects.padded[..., :2]).prod(-1)[:, None] - inter
    return (inter > threshold * union).any(-1) | (common(objects.crowds) > 0.5 * area).any(-1)


# -- the detector ---------------------------------------------------------------------------------


class YOLOv3(GridDetector):
    """A network with logistic outputs for boxes, objectness and classes; ``raw`` gives (N, A (5 + K), H, W) a level.

    Args:
        network: images to the raw outputs by level; has ``heads``.
        num_classes, priors, strides: see :class:`~saccade.models.detect.grid.GridDetector`.
        ignore: a box learns no background where it overlaps a truth by more (section 2.1).
        shared: priors that overlap a truth in shape by more learn it too (YOLOv4); None: only the best one does.
        level_weights: of the objectness by level. class_weight: of the classes.
        options: of the base.
    """

    loss_names: ClassVar[tuple[str, ...]] = ("mse", "giou", "diou", "ciou")
    overlap_weight = 5.0  # of 1 - GIoU, DIoU, CIoU
    label_smoothing = 0.0

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        priors: Sequence[Sides],
        strides: Sequence[int],
        *,
        ignore: float,
        shared: float | None = None,
        level_weights: Sequence[float] | None = None,
        class_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, priors, strides, **options)
        if not 0 < ignore <= 1:
            raise UsageError(f"model.ignore={ignore}: an overlap above 0, at most 1 (which ignores nothing)")
        self.network = network
        self.ignore, self.shared, self.class_weight = ignore, shared, class_weight
        self.level_weights = tuple(level_weights or (1.0,) * len(strides))
        start_low(network.heads, num_classes)  # type: ignore[arg-type]

    def configure(self, recipe: Recipe) -> None:
        """Also takes ``recipe.label_smoothing``."""
        super().configure(recipe)
        self.label_smoothing = recipe.label_smoothing

    def raw(self, images: Images) -> list[Tensor]:
        """(N, C, H, W) in 0..1 to the outputs (N, A (5 + K), H / stride, W / stride), level by level."""
        assert isinstance(images, Tensor)
        return self.network(images)

    def predictions(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All fields (N, M, 5 + K) and boxes (N, M, 4) as centre and sides in pixels: by level, prior, row, column."""
        levels = [self.fields(out) for out in raw]
        boxes = [self.boxes(fields, level).flatten(1, 3) for level, fields in enumerate(levels)]
        return torch.cat([fields.flatten(1, 3) for fields in levels], 1), torch.cat(boxes, 1)

    @torch.no_grad()
    def assign(self, objects: Objects, size: tuple[int, int]) -> Assigned:
        """Which boxes of an input of ``size`` (H, W) learn which object.

        An object goes to the cell of its centre, of the level of the prior that overlaps it most in shape (of equal priors on two levels,
        on both), and with ``shared`` to those of all other priors that overlap it enough.
        """
        device, count = objects.boxes.device, self.priors.shape[1]
        priors = self.priors.flatten(0, 1)
        grids = [(size[0] // stride, size[1] // stride) for stride in self.strides]
        starts = [0]
        for h, w in grids:
            starts += [starts[-1] + (a + 1) * h * w for a in range(count)]
        start = torch.tensor(starts[:-1], device=device)  # of each prior's boxes among the M
        grid = torch.tensor([(w, h) for h, w in grids], device=device).repeat_interleave(count, 0)

        overlap = shape_iou(objects.sides, priors)
        taken = (priors[:, None] == priors).all(-1)[overlap.argmax(1)]
        if self.shared is not None:
            taken |= overlap > self.shared
        truth, prior = taken.nonzero(as_tuple=True)
        order = overlap[truth, prior].argsort(stable=True)  # of several objects that ask for a box it learns the last one: the best
        truth, prior = truth[order], prior[order]
        cell = (objects.centres[truth] / self.by_prior(self.strides)[prior, None]).floor().long()
        cell = torch.minimum(cell.clamp_min(0), grid[prior] - 1)
        box = objects.image[truth] * starts[-1] + start[prior] + cell[:, 1] * grid[prior, 0] + cell[:, 0]
        boxes, which = box.unique(return_inverse=True)
        labels = objects.boxes.new_zeros(len(boxes), self.num_classes)
        labels[which, objects.labels[truth]] = 1
        last = torch.zeros_like(boxes).scatter_reduce(0, which, torch.arange(len(box), device=device), "amax", include_self=False)
        return Assigned(boxes // starts[-1], boxes % starts[-1], truth[last], labels, prior[last], cell[last])

    def by_prior(self, values: Sequence[float]) -> Tensor:
        """(L * A,) float32 of one value a level."""
        return torch.tensor(values, dtype=torch.float32, device=self.priors.device).repeat_interleave(self.priors.shape[1])

    def prepared(self, images: Tensor, targets: list[Target]) -> tuple[Tensor, list[Target]]:
        """What the step learns from a batch, in training: the batch at another size."""
        return self.rescaled(images, targets)

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Sums over each image, averaged over the batch.

        ``objectness``: cross entropy of all boxes with 1 where they learn an object, else 0, without the ignored ones. ``class``: cross
        entropy of each class of the boxes that learn an object. ``box``: :meth:`coordinate_loss` of these, or with ``recipe.loss`` the
        overlap's.
        """
        assert isinstance(images, Tensor)
        images, targets = self.prepared(images, targets)
        raw = self.raw(images)
        fields, boxes = self.predictions(raw)
        objects = Objects.of(targets, fields)
        size = (images.shape[-2], images.shape[-1])
        assigned = self.assign(objects, size)
        learnt = fields[assigned.image, assigned.box]

        if self.loss_name == "mse":
            place = self.coordinate_loss(learnt, objects, assigned, size)
        else:
            place = self.overlap_weight * self.overlap_loss(boxes[assigned.image, assigned.box], objects, assigned)

        entropy = self.objectness_loss(fields, boxes, objects, assigned)
        levels = entropy.split([len(self.priors[0]) * out.shape[2] * out.shape[3] for out in raw], 1)
        objectness = torch.stack([weight * level.sum() for weight, level in zip(self.level_weights, levels, strict=True)]).sum()

        wanted = assigned.labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        classes = F.binary_cross_entropy_with_logits(learnt[:, 5:], wanted, reduction="sum")
        count = len(images)
        return {"box": place / count, "objectness": objectness / count, "class": self.class_weight * classes / count}

    def objectness_loss(self, fields: Tensor, boxes: Tensor, objects: Objects, assigned: Assigned) -> Tensor:
        """(N, M) cross entropy; 0 where ignored."""
        wanted = torch.zeros_like(fields[..., 4])
        wanted[assigned.image, assigned.box] = 1
        entropy = F.binary_cross_entropy_with_logits(fields[..., 4], wanted, reduction="none")
        with torch.no_grad():
            left_out = ignored(corners(boxes), objects, self.ignore) & (wanted == 0)
        return entropy.masked_fill(left_out, 0.0)

    def coordinate_loss(self, fields: Tensor, objects: Objects, assigned: Assigned, size: tuple[int, int]) -> Tensor:
        """Of the fields (S, 5 + K) of assigned boxes; its gradient by tx, ty, tw, th is prediction minus truth (see the header).

        With u the sigmoid's value that gives the truth's offset, s KL(u, sigma(tx)) has the gradient s sigma(tx) - s u.
        """
        s = self.by_prior(self.scale_xy)[assigned.prior, None]
        stride = self.by_prior(self.strides)[assigned.prior, None]
        sides = objects.sides[assigned.truth]
        offset = objects.centres[assigned.truth] / stride - assigned.cell
        u = ((offset + (s - 1) / 2) / s).clamp(0, 1)
        entropy = F.binary_cross_entropy_with_logits(fields[:, :2], u, reduction="none")
        places = s * (entropy + torch.xlogy(u, u) + torch.xlogy(1 - u, 1 - u))
        logs = (sides / self.priors.flatten(0, 1)[assigned.prior]).log()
        squares = 0.5 * (fields[:, 2:4] - logs).square()
        weight = 2 - sides.prod(1) / (size[0] * size[1])
        return (weight[:, None] * (places + squares)).sum()

    def overlap_loss(self, boxes: Tensor, objects: Objects, assigned: Assigned) -> Tensor:
        """Sum of 1 - GIoU, DIoU or CIoU of predicted boxes (S, 4), centre and sides, with their truths."""
        truth = objects.boxes[assigned.truth]
        middle = objects.centres[assigned.truth]  # float32 tells small sides apart only near 0
        found = corners(torch.cat([boxes[:, :2] - middle, boxes[:, 2:].clamp_min(SMALLEST_SIDE)], 1))
        return (1 - paired_iou(found, truth - middle.repeat(1, 2), self.loss_name)).sum()  # type: ignore[arg-type]

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The priors, at their cells, that learn an object."""
        assert isinstance(images, Tensor)
        objects = Objects.of(targets, images)
        assigned = self.assign(objects, (images.shape[-2], images.shape[-1]))
        centre = (assigned.cell + 0.5) * self.by_prior(self.strides)[assigned.prior, None]
        boxes = corners(torch.cat([centre, self.priors.flatten(0, 1)[assigned.prior]], 1))
        return objects.assigned("priors", boxes, assigned.truth)


# -- builders -------------------------------------------------------------------------------------


def unpublished(name: str, pretrained: bool) -> None:
    """UsageError where weights are asked for by name."""
    if pretrained:
        raise UsageError(f"{name} fetches no weights: give their authors' file as weights={name.replace('_', '-')}.weights")


def yolov3(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
    ignore: float = 0.5,
    backbone: str | None = None,
    pooled: bool = False,
) -> YOLOv3:
    """YOLOv3.

    Args:
        num_classes: K.
        in_chans: 1 (grey) or 3.
        pretrained: of a backbone of timm; of YOLOv3 itself no weights are fetched, but Darknet's files are read.
        size: side of the input in pixels, a multiple of 32.
        width: factor on all maps (of a backbone of timm, on those of the pyramid).
        priors: "paper", "auto" (fitted to the training data), or nine sizes as 10x13, coarsest scale first.
        ignore: overlap of a predicted box with a truth above which it learns no background; the paper's 0.5, Darknet's 0.7.
        backbone: any network of timm with strides 8, 16 and 32 instead of Darknet-53.
        pooled: maxima over windows of 5, 9 and 13 before the coarsest head (:func:`yolov3_spp`).
    """
    check_within(32, 4096, size=size)
    check_width(width)
    stages: DarknetStages | TimmStages
    if backbone is None:
        unpublished("yolov3_spp" if pooled else "yolov3", pretrained)
        stages = DarknetStages(Darknet53(0, in_chans, width=width).features, [scaled(m, width) for m in (256, 512, 1024)])  # type: ignore[arg-type]
    else:
        stages = TimmStages(backbone, in_chans, pretrained, size)
    network = Pyramid(stages, 3 * (5 + num_classes), width=width, pooled=pooled)
    return YOLOv3(network, num_classes, PRIORS, (32, 16, 8), ignore=ignore, size=size, in_chans=in_chans, given=priors)


def yolov3_spp(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
    ignore: float = 0.5,
    backbone: str | None = None,
) -> YOLOv3:
    """YOLOv3 with spatial pyramid pooling before the coarsest head; options as :func:`yolov3`."""
    return yolov3(
        num_classes, in_chans=in_chans, pretrained=pretrained, size=size, width=width, priors=priors, ignore=ignore, backbone=backbone,
        pooled=True,
    )  # fmt: skip


def yolov3_tiny(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
    ignore: float = 0.5,
) -> YOLOv3:
    """YOLOv3-tiny: thirteen convolutions, scales of strides 32 and 16 with six priors; options as :func:`yolov3`."""
    check_within(32, 4096, size=size)
    check_width(width)
    unpublished("yolov3_tiny", pretrained)
    network = TinyPyramid(in_chans, 3 * (5 + num_classes), width=width)
    return YOLOv3(network, num_classes, TINY_PRIORS, (32, 16), ignore=ignore, size=size, in_chans=in_chans, given=priors)


RECIPE = Recipe(
    epochs=60, batch_size=8, optimizer="adamw", lr=1e-3, weight_decay=0.01, warmup=2.0, lr_final=0.01, clip=10.0, ema=0.998,
    channels_last=True, hflip=0.5, scale=0.3, translate=0.1, brightness=0.3, saturation=0.3, hue=0.05, multi_scale=(320 / 416, 608 / 416),
)  # fmt: skip

RECIPES = {"yolov3": RECIPE, "yolov3_spp": RECIPE, "yolov3_tiny": RECIPE}
