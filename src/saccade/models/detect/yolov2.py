"""YOLO, the second version (2016): priors, batch normalisation, no dense layer, any input size.

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017, arXiv 1612.08242 (of December 2016), sections 2 and 3. Section 4, YOLO9000
itself, is ``yolo9000.py``.

What was new against YOLO: each cell predicts boxes relative to five priors, which k-means finds in the data under 1 - IoU; centres stay in
their cell by a sigmoid; each box has classes of its own; a pass-through layer brings finer maps to the head; batches change their size.

Where it is:
    section 3, table 6, Darknet-19                      :class:`~saccade.models.classify.darknet19.Darknet19`
    section 3, "Training for detection"; "Fine-Grained Features": 26 x 26 x 512 to 13 x 13 x 2048, after it 3072 maps    :class:`YOLOv2`
    section 2, "Direct location prediction"             :meth:`~saccade.models.detect.grid.GridDetector.boxes`
    section 2, "Dimension Clusters"                     :mod:`saccade.boxes.priors`; ``model.priors=auto``
    section 2, "Multi-Scale Training"                   :meth:`~saccade.models.detect.grid.GridDetector.rescaled`
    the assignment and the loss                         :meth:`RegionDetector.assign`, :meth:`RegionDetector.losses`

Three registered forms:
    ``yolov2``          the paper's network: the pass-through stacks 2 x 2 neighbours of 512 maps.
    ``yolov2_darknet``  the authors' ``yolov2-voc.cfg``: a 1x1 convolution first makes 64 maps of the 512, and Darknet's own reorganisation
                        mixes positions (:class:`~saccade.models.darknet.layers.Reorg`): 1280 maps.
    ``yolov2_tiny``     the authors' ``yolov2-tiny-voc.cfg``.

The paper gives no equation of the loss; it is that of Darknet's region layer, whose gradients are those of half squared errors (of the
centre after the sigmoid, of the sides before the exponential, of the objectness after the sigmoid) and of a cross entropy of the soft-max:

    an object belongs to the cell of its centre and to the prior that overlaps it most on a common centre; of two with the same cell and
    prior the last one counts;
    its box: weight 1 (``coord_scale``) times 2 - w h in shares of the image, so that small ones count nearly double;
    its objectness: weight 5 (``object_scale``) towards the IoU of its box, as it is predicted, with the object (``rescore``; with
    ``recipe.loss=one`` towards 1);
    every other objectness: weight 1 (``noobject_scale``) towards 0, unless its box overlaps some object by more than 0.6 (``thresh``);
    its classes: weight 1 (``class_scale``).

Deviations. Darknet pulls the boxes of all cells towards their priors (weight 0.01) for the first 12 800 images; the last layer here starts
small, so that boxes begin as priors. Boxes that lie by more than half in a crowd do not learn that they are empty. Sums are means over the
images of the batch. A side is drawn for every batch, in the paper for every tenth. Darknet keeps 0.99 of the running mean and variance a
step, 0.9 here; see ``darknet19.py``. The recipe is ours, for hundreds of images and from scratch; the paper's: 160 epochs of SGD with
momentum 0.9, decay 5e-4, rate 1e-3, a tenth of it from epochs 60 and 90 on, from weights of ImageNet (``--weights
darknet19_448.conv.23`` starts there).

Pinned by tests: 13 x 13 x 125; 3072 and 1280 maps; numbers in the files of weights; Darknet's raw outputs; the loss with its loops written
out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.boxes.iou import paired_iou
from saccade.layers.conv_bn import ConvBN
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.darknet19 import Darknet19
from saccade.models.classify.network import check_width, initialise, scaled
from saccade.models.darknet.layers import MaxPool, Reorg
from saccade.models.detect.base import Assignment, Objects
from saccade.models.detect.grid import GridDetector, corners
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

STRIDE = 32

VOC_PRIORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
TINY_PRIORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
"""Widths and heights in cells, from ``yolov2-voc.cfg`` and ``yolov2-tiny-voc.cfg``."""

OBJECT, NO_OBJECT, CLASS, COORD = 5.0, 1.0, 1.0, 1.0
"""Weights of the parts of the loss, from the same files."""

THRESHOLD = 0.6
"""IoU with an object over which a box need not learn that it is empty."""


class Assigned(NamedTuple):
    """Objects and the boxes that learn them, one row each.

    Attributes:
        image, prior, row, column: (M,) int64 of the box.
        number: (M,) int64, which object of the batch.
    """

    image: Tensor
    prior: Tensor
    row: Tensor
    column: Tensor
    number: Tensor


class RegionDetector(GridDetector):
    """Boxes by priors on one grid, trained as by Darknet's region layer; the network is the subclass's."""

    loss_names = ("iou", "one")
    exclusive: ClassVar[bool] = True

    def assign(self, objects: Objects, grid: tuple[int, int]) -> Assigned:
        """Each object to the cell of its centre and its best prior; the last of those with the same cell and prior."""
        stride, sides = self.strides[0], self.priors[0]
        rows, columns = grid
        corner, opposite = objects.boxes.split(2, 1)
        cell = ((corner + opposite) / 2 / stride).long()
        column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
        extent = opposite - corner
        shared = torch.minimum(extent[:, None], sides).prod(-1)
        prior = (shared / (extent.prod(-1)[:, None] + sides.prod(-1) - shared)).argmax(1)
        flat = ((objects.image * len(sides) + prior) * rows + row) * columns + column
        number = torch.arange(len(flat), device=flat.device)
        last = flat.new_full((len(objects.counts) * len(sides) * rows * columns,), -1).scatter_reduce(0, flat, number, "amax")
        number = number[last[flat] == number]
        return Assigned(objects.image[number], prior[number], row[number], column[number], number)

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """The loss of the module's docstring in parts "box", "object", "no_object", "class"."""
        assert isinstance(images, Tensor)
        images, targets = self.rescaled(images, targets)
        (raw,) = self.raw(images)
        return {name: value / len(targets) for name, value in self.region_losses(self.fields(raw), targets).items()}

    def region_losses(self, fields: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """The losses of fields (N, A, H, W, 5 + K), summed over the images."""
        rows, columns = fields.shape[2:4]
        stride = self.strides[0]
        objects = Objects.of(targets, fields)
        at = self.assign(objects, (rows, columns))
        one = (at.image, at.prior, at.row, at.column)
        wanted, mine = objects.boxes[at.number], fields[one]

        with torch.no_grad():
            predicted = corners(self.boxes(fields, 0))
            overlap = paired_iou(predicted[one], wanted)
            free = self.free(predicted, objects).index_put(one, torch.zeros((), dtype=torch.bool, device=fields.device))
            extent = wanted[:, 2:] - wanted[:, :2]
            cell = torch.stack([at.column, at.row], 1)
            aim = torch.cat([(wanted[:, :2] + wanted[:, 2:]) / 2 / stride - cell, (extent / self.priors[0][at.prior]).log()], 1)
            share = extent.prod(1) / (rows * columns * stride**2)

        place = torch.cat([mine[:, :2].sigmoid(), mine[:, 2:4]], 1)
        objectness = fields[..., 4].sigmoid()
        likeness = overlap if self.loss_name == "iou" else torch.ones_like(overlap)
        return {
            "box": COORD * ((2 - share) * (place - aim).square().sum(1)).sum() / 2,
            "object": OBJECT * (objectness[one] - likeness).square().sum() / 2,
            "no_object": NO_OBJECT * (objectness.square() * free).sum() / 2,
            "class": CLASS * self.class_loss(mine[:, 5:], objects.labels[at.number]),
        }

    def free(self, predicted: Tensor, objects: Objects) -> Tensor:
        """(N, A, H, W) bool: boxes that overlap no object by more than the threshold and do not lie by more than half in a crowd."""
        truth = objects.padded
        boxes = predicted.flatten(1, 3)
        taken = (paired_iou(boxes[:, :, None], truth[:, None]) > THRESHOLD).any(2)
        crowded = (common(boxes, objects.crowds) > 0.5 * (boxes[..., 2:] - boxes[..., :2]).prod(-1, keepdim=True)).any(2)
        return ~(taken | crowded).view(predicted.shape[:-1])

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of (M, K) logits, summed."""
        return F.cross_entropy(logits, labels, reduction="sum")

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The priors, in their cells, that learn an object."""
        assert isinstance(images, Tensor)
        stride = self.strides[0]
        objects = Objects.of(targets, images)
        at = self.assign(objects, (images.shape[2] // stride, images.shape[3] // stride))
        centre = (torch.stack([at.column, at.row], 1) + 0.5) * stride
        half = self.priors[0][at.prior] / 2
        square = torch.cat([centre - half, centre + half], 1)
        return objects.assigned("priors", square, at.number)

    def check_sides(self, images: Tensor) -> None:
        """UsageError where the cells do not divide the images."""
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise UsageError(f"{type(self).__name__} takes images whose sides are multiples of {STRIDE}, not {height}x{width}")


def common(boxes: Tensor, others: Tensor) -> Tensor:
    """(N, P, C) areas that boxes (N, P, 4) share with others (N, C, 4)."""
    corner = torch.maximum(boxes[:, :, None, :2], others[:, None, :, :2])
    return (torch.minimum(boxes[:, :, None, 2:], others[:, None, :, 2:]) - corner).clamp_min(0).prod(-1)


class YOLOv2(RegionDetector):
    """YOLOv2 with Darknet-19 (see the module's docstring and :func:`yolov2`).

    Children stand in the order of ``yolov2-voc.cfg``.

    Args:
        num_classes: K.
        width: factor on all maps.
        reduce: maps to which a 1x1 convolution brings the 512 of the pass-through, which then goes Darknet's way; 0 is the paper's.
        options: of :class:`~saccade.models.detect.grid.GridDetector`.
    """

    def __init__(
        self, num_classes: int, *, width: float = 1.0, reduce: int = 0, size: int = 416, in_chans: int = 3, given: str = "paper"
    ) -> None:
        super().__init__(num_classes, [in_pixels(VOC_PRIORS)], [STRIDE], size=size, in_chans=in_chans, given=given)
        fine, maps = scaled(512, width), scaled(1024, width)
        self.backbone = Darknet19(0, in_chans, width=width).features
        self.conv19 = ConvBN(maps, maps, 3, activation="leaky")
        self.conv20 = ConvBN(maps, maps, 3, activation="leaky")
        self.reduce = ConvBN(fine, scaled(reduce, width), 1, activation="leaky") if reduce else None
        passed = 4 * (scaled(reduce, width) if reduce else fine)
        self.reorganise: nn.Module = Reorg((passed // 4, size // 16, size // 16), 2) if reduce else nn.PixelUnshuffle(2)
        self.conv21 = ConvBN(passed + maps, maps, 3, activation="leaky")
        self.output = nn.Conv2d(maps, self.priors.shape[1] * (5 + num_classes), 1)
        start(self, self.output)

    def raw(self, images: Images) -> list[Tensor]:
        """(N, C, H, W) in 0..1 to [(N, A (5 + K), H / 32, W / 32)]."""
        assert isinstance(images, Tensor)
        self.check_sides(images)
        fine = maps = images
        for name, layer in self.backbone.named_children():
            maps = layer(maps)
            if name == "conv13":
                fine = maps
        maps = self.conv20(self.conv19(maps))
        if self.reduce is not None:
            fine = self.reduce(fine)
        return [self.output(self.conv21(torch.cat([self.reorganise(fine), maps], 1)))]


class YOLOv2Tiny(RegionDetector):
    """The network of ``yolov2-tiny-voc.cfg``: six convolutions with a pooling after each, the last of stride 1; two more; the output."""

    def __init__(self, num_classes: int, *, width: float = 1.0, size: int = 416, in_chans: int = 3, given: str = "paper") -> None:
        super().__init__(num_classes, [in_pixels(TINY_PRIORS)], [STRIDE], size=size, in_chans=in_chans, given=given)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        maps = in_chans
        for k, channels in enumerate((16, 32, 64, 128, 256, 512), 1):
            layers[f"conv{k}"] = ConvBN(maps, scaled(channels, width), 3, activation="leaky")
            maps = scaled(channels, width)
            layers[f"pool{k}"] = nn.MaxPool2d(2) if k < 6 else MaxPool((maps, size // STRIDE, size // STRIDE), 2, (1, 1), 1)
        wide = scaled(1024, width)
        layers["conv7"] = ConvBN(maps, wide, 3, activation="leaky")
        layers["conv8"] = ConvBN(wide, wide, 3, activation="leaky")
        self.backbone = nn.Sequential(layers)
        self.output = nn.Conv2d(wide, self.priors.shape[1] * (5 + num_classes), 1)
        start(self, self.output)

    def raw(self, images: Images) -> list[Tensor]:
        """(N, C, H, W) in 0..1 to [(N, A (5 + K), H / 32, W / 32)]."""
        assert isinstance(images, Tensor)
        self.check_sides(images)
        return [self.output(self.backbone(images))]


def in_pixels(cells: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sides in cells to pixels."""
    return [(w * STRIDE, h * STRIDE) for w, h in cells]


def start(model: nn.Module, output: nn.Conv2d) -> None:
    """He's initial weights; of the output a tenth, so that boxes begin as priors."""
    initialise(model)
    with torch.no_grad():
        output.weight.mul_(0.1)


def check_options(name: str, pretrained: bool, size: int, width: float) -> None:
    """UsageError for options that make no network."""
    unpublished(name, pretrained)
    check_within(STRIDE, 2048, size=size)
    check_width(width)


def yolov2(
    num_classes: int = 20,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
) -> YOLOv2:
    """YOLOv2 as in the paper.

    Args:
        num_classes: K.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published that are read here by name; a UsageError.
        size: side of the input, a multiple of 32; other such sides work too.
        width: factor on all maps.
        priors: "paper" (the authors', for VOC), "auto" (k-means over the training boxes), or five sizes in pixels: "42x55 102x128 ...".
    """
    check_options("yolov2", pretrained, size, width)
    return YOLOv2(num_classes, width=width, size=size, in_chans=in_chans, given=priors)


def yolov2_darknet(
    num_classes: int = 20,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
) -> YOLOv2:
    """The authors' ``yolov2-voc.cfg``: 64 maps through Darknet's own reorganisation. Options as of :func:`yolov2`."""
    check_options("yolov2_darknet", pretrained, size, width)
    return YOLOv2(num_classes, width=width, reduce=64, size=size, in_chans=in_chans, given=priors)


def yolov2_tiny(
    num_classes: int = 20,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
) -> YOLOv2Tiny:
    """The authors' ``yolov2-tiny-voc.cfg``. Options as of :func:`yolov2`."""
    check_options("yolov2_tiny", pretrained, size, width)
    return YOLOv2Tiny(num_classes, width=width, size=size, in_chans=in_chans, given=priors)


SCRATCH = Recipe(
    epochs=60, batch_size=8, optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=3.0, lr_final=0.01, clip=10.0, ema=0.998,
    hflip=0.5, scale=0.3, translate=0.1, brightness=0.3, saturation=0.5, multi_scale=(320 / 416, 608 / 416),
)  # fmt: skip
"""From scratch on hundreds of images."""

RECIPES = {"yolov2": SCRATCH, "yolov2_darknet": SCRATCH, "yolov2_tiny": SCRATCH}
