"""YOLO, the first version (2016): detection as one regression, from the whole image to a grid of boxes and classes.

Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection, CVPR 2016, arXiv 1506.02640.

What was new: no proposals and no windows. The image is a grid of S x S cells; the cell that holds an object's centre predicts it: B boxes,
each with a confidence, and one set of K class probabilities. One pass of one network, trained on one loss.

Where it is:
    figure 3, 24 convolutions and two dense layers       :data:`CONVOLUTIONS`, :func:`yolov1`
    section 2, S x S x (5 B + K), 7 x 7 x 30 for VOC     :meth:`YOLOv1.split`
    section 2, the cell of an object                     :func:`assign`
    section 2.2, the responsible predictor               :func:`responsible`
    equation 2, the leaky slope 0.1                      :class:`~saccade.layers.conv_bn.ConvBN`
    equation 3, the loss; lambdas 5 and 0.5              :meth:`YOLOv1.losses`
    equation 1, class confidence; section 2.3            :meth:`YOLOv1.decode`

Three registered forms:
    ``yolov1``          the paper's network. It has no batch normalisation, and its convolutions start from ImageNet, which nobody has in a
                        form that can be had; from scratch ``model.batch_norm=true`` learns sooner.
    ``yolov1_darknet``  the authors' ``yolov1.cfg``: batch normalisation, three boxes a cell, and a locally connected layer of 256 maps in
                        place of the first dense one.
    ``yolov1_tiny``     the authors' ``yolov1-tiny.cfg`` (the paper's Fast YOLO has nine convolutions; this, the published one, eight and a
                        dense layer), with batch normalisation.

The raw vector stands in Darknet's order: classes of all cells, then confidences, then boxes (x, y in the cell; roots of w and h in shares
of the image). The files of weights of both cfg load.

What the paper leaves open. Of objects in one cell the first one counts, as in Darknet. While no predictor of a cell overlaps its object,
the one of least squared distance is responsible, as in Darknet; the paper's rule alone would always take the first. Cells whose centre lies
in a crowd do not learn that they are empty (the paper knows no crowds). The sum of equation 3 is a mean over the images of the batch.

Deviations. Darknet keeps 0.99 of the running mean and variance a step, 0.9 here; see ``darknet19.py``. The recipe is ours, for hundreds of
images and from scratch; the paper's: 135 epochs of SGD with batches of 64, momentum 0.9, decay 5e-4, rates 1e-2, 1e-3 and 1e-4 for 75, 30
and 30 epochs after a slow start; scaling and translation by up to 20%, exposure and saturation by up to 1.5.

Pinned by tests: 7 x 7 x 30; 24 + 2 layers; numbers in the files of weights; Darknet's raw outputs; equation 3 with its loops written out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.boxes.iou import paired_iou
from saccade.boxes.nms import select
from saccade.data.transforms.preprocess import Preprocess
from saccade.layers.conv_bn import ConvBN
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.classify.network import check_width, initialise, scaled
from saccade.models.darknet.layers import Local
from saccade.models.detect.base import Assignment, Detector, Objects
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

POOL = (0, 2, 2)

CONVOLUTIONS = (
    (64, 7, 2), POOL, (192, 3, 1), POOL, (128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), POOL,
    *((256, 1, 1), (512, 3, 1)) * 4, (512, 1, 1), (1024, 3, 1), POOL,
    *((512, 1, 1), (1024, 3, 1)) * 2, (1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1),
)  # fmt: skip
"""Figure 3: maps, side of the window, stride; no maps for a pooling."""

TINY_CONVOLUTIONS = (
    (16, 3, 1), POOL, (32, 3, 1), POOL, (64, 3, 1), POOL, (128, 3, 1), POOL, (256, 3, 1), POOL, (512, 3, 1), POOL,
    (1024, 3, 1), (256, 3, 1),
)  # fmt: skip
"""``yolov1-tiny.cfg``."""

STRIDE = 64
COORD, NO_OBJECT = 5.0, 0.5


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(N, P) whether points (P, 2) lie in any of an image's boxes (N, C, 4)."""
    corner, opposite = boxes[:, None, :, :2], boxes[:, None, :, 2:]
    return ((points[:, None] > corner) & (points[:, None] < opposite)).all(-1).any(-1)


class Cells(NamedTuple):
    """Objects and the cells that learn them, one row each.

    Attributes:
        image, row, column: (M,) int64 of the cell.
        place: (M, 4) x, y in shares of the cell, roots of width and height in shares of the image: what the network shall say.
        number: (M,) int64, which object of the batch.
    """

    image: Tensor
    row: Tensor
    column: Tensor
    place: Tensor
    number: Tensor


def assign(objects: Objects, size: int, side: int) -> Cells:
    """Each object to the cell of its centre, of ``side`` x ``side`` on an input of ``size`` pixels; the first of those in one cell."""
    corner, opposite = (objects.boxes / size).split(2, 1)
    centre = (corner + opposite) / 2 * side
    cell = centre.long().clamp(0, side - 1)
    column, row = cell.unbind(1)
    flat = (objects.image * side + row) * side + column
    number = torch.arange(len(flat), device=flat.device)
    first = flat.new_full((len(objects.counts) * side**2,), len(flat)).scatter_reduce(0, flat, number, "amin")
    number = number[first[flat] == number]
    place = torch.cat([centre - cell, (opposite - corner).sqrt()], 1)
    return Cells(objects.image[number], row[number], column[number], place[number], number)


def corners(places: Tensor, side: int, size: int) -> Tensor:
    """(..., 4) places to XYXY boxes in pixels, measured from the corner of the place's cell."""
    centre, half = places[..., :2] / side, places[..., 2:].square() / 2
    return torch.cat([centre - half, centre + half], -1) * size


def responsible(places: Tensor, wanted: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Of each cell's B predictors (M, B, 4) the one that learns its object (M, 4): (M,) its number, and (M,) its IoU with the object.

    The highest IoU; while none overlaps, the least squared distance of centre and sides.
    """
    overlap = paired_iou(corners(places, side, size), corners(wanted, side, size)[:, None])
    shape = torch.cat([places[..., :2] / side, places[..., 2:].square()], -1)
    aim = torch.cat([wanted[:, :2] / side, wanted[:, 2:].square()], -1)
    distance = (shape - aim[:, None]).square().sum(-1)
    best = torch.where(overlap.amax(1, keepdim=True) > 0, overlap, -distance).argmax(1)
    return best, overlap.gather(1, best[:, None])[:, 0]


class YOLOv1(Detector):
    """YOLO: convolutions, then layers to a vector (see the module's docstring and :func:`yolov1`).

    Args:
        num_classes: K.
        backbone: images to maps of S x S cells.
        head: maps to (N, S S (K + 5 B)).
        size: side of the input. boxes: B. in_chans: 1 or 3.
    """

    loss_names = ("squared",)

    def __init__(self, num_classes: int, backbone: nn.Module, head: nn.Module, *, size: int, boxes: int, in_chans: int = 3) -> None:
        super().__init__(num_classes)
        self.side, self.count, self.size = size // STRIDE, boxes, size
        self.preprocess = Preprocess(mode="stretch", size=(size, size), channels=in_chans, mean=(0.0,) * in_chans, std=(1.0,) * in_chans)
        self.backbone, self.head = backbone, head

    def raw(self, images: Images) -> Tensor:
        """(N, C, size, size) in 0..1 to (N, S S (K + 5 B)): classes of all cells, confidences, boxes; linear.

        Raises:
            UsageError: a size that the network was not built for.
        """
        assert isinstance(images, Tensor)
        if images.shape[-2:] != (self.size, self.size):
            height, width = images.shape[-2:]
            raise UsageError(f"{type(self).__name__} is built for images of {self.size}x{self.size}, not {height}x{width}: set model.size")
        return self.head(self.backbone(images))

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classes (N, S, S, K), confidences (N, S, S, B), places (N, S, S, B, 4) of a raw vector, float32."""
        s, b, k = self.side, self.count, self.num_classes
        classes, confidence, places = raw.float().split([s * s * k, s * s * b, s * s * b * 4], 1)
        return classes.view(-1, s, s, k), confidence.view(-1, s, s, b), places.view(-1, s, s, b, 4)

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Equation 3, summed over the cells, mean over the images: "box" (its first two sums), "object", "no_object", "class".

        The confidence of the responsible predictor learns its own IoU with the object, all others 0.
        """
        classes, confidence, places = self.split(self.raw(images))
        objects = Objects.of(targets, places)
        image, row, column, wanted, number = assign(objects, self.size, self.side)
        predictor, overlap = responsible(places[image, row, column].detach(), wanted, self.side, self.size)
        one = (image, row, column, predictor)
        empty = ~inside(self.centres(places), objects.crowds).view(-1, self.side, self.side, 1).expand_as(confidence)
        empty = empty.index_put(one, empty.new_zeros(()))
        aim = F.one_hot(objects.labels[number], self.num_classes)
        count = len(targets)
        return {
            "box": COORD * (places[one] - wanted).square().sum() / count,
            "object": (confidence[one] - overlap).square().sum() / count,
            "no_object": NO_OBJECT * (confidence.square() * empty).sum() / count,
            "class": (classes[image, row, column] - aim).square().sum() / count,
        }

    def centres(self, like: Tensor) -> Tensor:
        """(S S, 2) centres of the cells in pixels of the input, row by row."""
        middle = (torch.arange(self.side, device=like.device) + 0.5) * STRIDE
        return torch.cartesian_prod(middle, middle).flip(1)

    def boxes_and_scores(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All boxes (N, S S B, 4) XYXY in pixels of the input, confidences (N, S S B), scores (N, S S B, K); cell by cell.

        A score is the confidence times the class probability (equation 1), as they come: nothing keeps them in 0..1.
        """
        classes, confidence, places = self.split(raw)
        cell = (self.centres(raw) - STRIDE / 2).view(self.side, self.side, 1, 2)
        boxes = corners(places, self.side, self.size) + cell.repeat(1, 1, 1, 2)
        scores = confidence[..., None] * classes[..., None, :]
        return boxes.flatten(1, 3), confidence.flatten(1), scores.flatten(1, 3)

    def decode(
        self, raw: Tensor, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Class-wise NMS of all boxes, in original pixels; scores above 1 become 1."""
        out: list[Prediction] = []
        boxes, _, scores = self.boxes_and_scores(raw)
        for box, values, geometry in zip(boxes, scores, geometries, strict=True):
            found, value, label = select(box, values, score=score, iou=iou, max_detections=max_detections)
            found = geometry.boxes_to_original(found)
            out.append(Detection(boxes=found.cpu().numpy(), labels=label.cpu().numpy(), scores=value.clamp(max=1).cpu().numpy()))
        return out

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The cells that learn an object; one of several in a cell gets none."""
        assert isinstance(images, Tensor)
        objects = Objects.of(targets, images)
        cells = assign(objects, self.size, self.side)
        corner = torch.stack([cells.column, cells.row], 1) * float(STRIDE)
        square = torch.cat([corner, corner + STRIDE], 1)
        return objects.assigned("cells", square, cells.number)


# -- builders -------------------------------------------------------------------------------------


def convolutions(rows: Iterable[tuple[int, int, int]], in_chans: int, width: float, batch_norm: bool) -> tuple[nn.Sequential, int]:
    """The convolutions of a table (maps, side of the window, stride; no maps for a pooling), and how many maps they give."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    maps = in_chans
    for channels, kernel, stride in rows:
        kind = "conv" if channels else "pool"
        name = f"{kind}{sum(known.startswith(kind) for known in layers) + 1}"
        if not channels:
            layers[name] = nn.MaxPool2d(kernel, stride)
            continue
        given, maps = maps, scaled(channels, width)
        if batch_norm:
            layers[name] = ConvBN(given, maps, kernel, stride, activation="leaky")
        else:
            layers[name] = nn.Sequential(nn.Conv2d(given, maps, kernel, stride, padding=kernel // 2), nn.LeakyReLU(0.1))
    return nn.Sequential(layers), maps


def build(
    num_classes: int, backbone: nn.Module, head: OrderedDict[str, nn.Module], values: int, *, size: int, boxes: int, in_chans: int
) -> YOLOv1:
    """A model whose head ends in a dense layer from ``values``, with He's initial weights, the last layer's a tenth of that."""
    output = nn.Linear(values, (size // STRIDE) ** 2 * (num_classes + 5 * boxes))
    head["output"] = output
    model = YOLOv1(num_classes, backbone, nn.Sequential(head), size=size, boxes=boxes, in_chans=in_chans)
    initialise(model)
    with torch.no_grad():
        output.weight.mul_(0.1)
    return model


def check_options(name: str, pretrained: bool, size: int, width: float, boxes: int, dropout: float) -> None:
    """UsageError for options that make no network."""
    unpublished(name, pretrained)
    check_within(STRIDE, 2048, size=size)
    check_within(1, 64, boxes=boxes)
    check_width(width)
    if size % STRIDE:
        raise UsageError(f"model.size={size}: a multiple of {STRIDE}, the side of a cell")
    if not 0 <= dropout < 1:
        raise UsageError(f"model.dropout={dropout}: it lies in 0..1")


def yolov1(
    num_classes: int = 20,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 448,
    width: float = 1.0,
    hidden: int = 4096,
    boxes: int = 2,
    batch_norm: bool = False,
    dropout: float = 0.5,
) -> YOLOv1:
    """YOLO as in the paper (figure 3).

    Args:
        num_classes: K.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published that are read here by name; a UsageError.
        size: side of the input, a multiple of 64; the grid has S = size / 64 cells a side.
        width: factor on all maps.
        hidden: outputs of the first dense layer.
        boxes: B, predictors a cell.
        batch_norm: after each convolution; the paper has none.
        dropout: after the first dense layer.
    """
    check_options("yolov1", pretrained, size, width, boxes, dropout)
    check_within(1, 65536, hidden=hidden)
    backbone, maps = convolutions(CONVOLUTIONS, in_chans, width, batch_norm)
    head: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(), dense=nn.Linear(maps * (size // STRIDE) ** 2, hidden), act=nn.LeakyReLU(0.1), drop=nn.Dropout(dropout)
    )
    return build(num_classes, backbone, head, hidden, size=size, boxes=boxes, in_chans=in_chans)


def yolov1_darknet(
    num_classes: int = 20,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 448,
    width: float = 1.0,
    boxes: int = 3,
    dropout: float = 0.5,
) -> YOLOv1:
    """The authors' ``yolov1.cfg``: batch normalisation, three boxes a cell, 256 locally connected maps. Options as of :func:`yolov1`."""
    check_options("yolov1_darknet", pretrained, size, width, boxes, dropout)
    backbone, maps = convolutions(CONVOLUTIONS, in_chans, width, batch_norm=True)
    side = size // STRIDE
    local = Local((maps, side, side), scaled(256, width), 3, 1, 1, "leaky")
    head: OrderedDict[str, nn.Module] = OrderedDict(local=local, drop=nn.Dropout(dropout), flatten=nn.Flatten())
    return build(num_classes, backbone, head, scaled(256, width) * side**2, size=size, boxes=boxes, in_chans=in_chans)


def yolov1_tiny(
    num_classes: int = 20,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 448,
    width: float = 1.0,
    boxes: int = 2,
    batch_norm: bool = True,
) -> YOLOv1:
    """The authors' ``yolov1-tiny.cfg``: eight convolutions and one dense layer. Options as of :func:`yolov1`."""
    check_options("yolov1_tiny", pretrained, size, width, boxes, 0.0)
    backbone, maps = convolutions(TINY_CONVOLUTIONS, in_chans, width, batch_norm)
    head: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    return build(num_classes, backbone, head, maps * (size // STRIDE) ** 2, size=size, boxes=boxes, in_chans=in_chans)


NORMALISED = Recipe(
    epochs=60, batch_size=8, optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=3.0, lr_final=0.01, clip=10.0, ema=0.998,
    hflip=0.5, scale=0.2, translate=0.2, brightness=0.3, saturation=0.5,
)  # fmt: skip
"""From scratch on hundreds of images."""

RECIPES = {"yolov1": NORMALISED.replace(lr=1e-4), "yolov1_darknet": NORMALISED, "yolov1_tiny": NORMALISED}
