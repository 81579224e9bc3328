"""YOLOv5 (2020), n, s, m, l and x: a cross-stage partial network, pooled at its end, with two-way fused maps and three priors a cell.

There is no paper, and the authors' program, whose licence is not ours, was not read. This file is built from observed facts (the layers'
output shapes, the names and shapes of the parameters, the priors, the decoding) and from the papers whose ideas it joins:

    Wang, Liao, Wu, Chen, Hsieh, Yeh: CSPNet, 2019, arXiv 1911.11929 (half of the maps pass by the blocks)         :class:`C3`
    He, Zhang, Ren, Sun: Deep Residual Learning, 2015, arXiv 1512.03385 (the addition in a block)                  :class:`Bottleneck`
    He, Zhang, Ren, Sun: Spatial Pyramid Pooling, 2014, arXiv 1406.4729; Redmon, Farhadi: YOLOv3, 1804.02767, whose
        SPP form pools by 5, 9 and 13 at stride 1: here the same maxima by one 5x5 window three times               :class:`SPPF`
    Liu, Qi, Qin, Shi, Jia: Path Aggregation Network, 2018, arXiv 1803.01534, with maps joined instead of added, as
        Bochkovskiy, Wang, Liao: YOLOv4, 2020, arXiv 2004.10934, section 3.4, figure 6                              :meth:`YOLOv5.raw`
    Elfwing, Uchibe, Doya: Sigmoid-Weighted Linear Units, 2017, arXiv 1702.03118 (SiLU after every convolution)
    Redmon, Farhadi: YOLO9000, 2016, arXiv 1612.08242 (priors; k-means with ``priors="auto"``)                      :class:`GridDetector`
    Bochkovskiy et al., section 3.4 (several cells and priors learn one truth; the centre reaches over the cell)    :func:`assign`
    Zheng et al.: Distance-IoU Loss, 2019, arXiv 1911.08287, equations 8 to 11 (CIoU; also the objectness' target)  :meth:`YOLOv5.losses`
    Lin, Goyal, Girshick, He, Dollar: Focal Loss, 2017, arXiv 1708.02002, section 3.3 (biases from a prior)         :meth:`Head.start`

Facts (also pinned by the tests). Strides 8, 16, 32; priors :data:`PRIORS`; batch normalisation with eps 1e-3 and momentum 0.03;
``sigma`` of an output gives ``xy = (2 sigma - 0.5 + cell) stride``, ``wh = (2 sigma)^2 prior``; 1 872 157 parameters of n and 7 235 389 of
s for 80 classes. The names of the tensors are the observed ones, so that state dicts with them load: layer ``k`` is ``model.k``.
The facts do not tell in which order maps are joined, nor which blocks add: we join the newer map first, and add in the backbone alone.

Ours, to be read as nothing else than our choice: the weights of the losses and of the levels (:data:`WEIGHTS`), the rule of assignment
in its details (:func:`assign`), the start of the biases, initialisation, and the recipe, which is made for some hundred images from
scratch. Crowds: a cell whose centre lies in one learns no objectness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.boxes.iou import Overlap, paired_iou
from saccade.data.dataset import Dataset
from saccade.layers.conv_bn import ConvBN
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.network import check_width
from saccade.models.detect.base import Assignment, Objects
from saccade.models.detect.grid import GridDetector, corners
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

Variant = Literal["n", "s", "m", "l", "x"]

MULTIPLES: dict[Variant, tuple[float, float]] = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1, 1), "x": (1.33, 1.25)}
"""Factors on the number of blocks and on the number of maps."""

STRIDES = (8, 16, 32)
PRIORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
"""Width and height in pixels, by level; fitted to COCO at 640 pixels, as YOLOv3's at 416."""

RATIO = 4.0
"""A prior takes a truth when no side of one is so many times the other's."""

REACH = 1600
"""Cells of the middle level at 640 pixels: objectness is summed over all cells and divided by this, so that a cell counts the same on
every level and at every size of the input."""

WEIGHTS = {"box": 1.0, "objectness": 8.0, "class": 0.5}
LEAST = -6.0
"""Outputs for boxes are cut here in the loss (a side is 1 / 40 000 of the prior's): a side of 0 would give 0 / 0 in CIoU."""

OBJECTS = 8
"""So many objects an image are expected before the first step."""


# -- layers ---------------------------------------------------------------------------------------


def conv(in_chans: int, out_chans: int, kernel: int, stride: int = 1, padding: int | None = None) -> ConvBN:
    """Convolution, batch normalisation, SiLU."""
    return ConvBN(in_chans, out_chans, kernel, stride, padding=padding, activation="silu", eps=1e-3, momentum=0.03)


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution of equal width: (N, C, H, W) to the same; with ``add`` the input is added."""

    def __init__(self, maps: int, add: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = conv(maps, maps, 1), conv(maps, maps, 3), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """A cross-stage partial stage of three 1x1 convolutions: half of the maps through ``depth`` blocks, half around them, joined."""

    def __init__(self, in_chans: int, out_chans: int, depth: int, *, add: bool) -> None:
        super().__init__()
        half = out_chans // 2
        self.cv1, self.cv2, self.cv3 = conv(in_chans, half, 1), conv(in_chans, half, 1), conv(2 * half, out_chans, 1)
        self.m = nn.Sequential(*(Bottleneck(half, add) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class SPPF(nn.Module):
    """Maxima over 5x5, 9x9 and 13x13 windows beside the map itself, between two 1x1 convolutions; sizes stay."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        half = in_chans // 2
        self.cv1, self.cv2 = conv(in_chans, half, 1), conv(4 * half, out_chans, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.cv1(x)]
        for _ in range(3):  # a maximum of maxima: 5x5 twice is 9x9, three times 13x13
            maps.append(self.pool(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class Join(nn.Module):
    """Maps of one size beside each other, in the order given."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)


class Head(nn.Module):
    """A 1x1 convolution a level, to A (5 + K) maps.

    Attributes:
        anchors: (L, A, 2) priors in cells of their level. They are stored, as the weights are good for these alone.
    """

    anchors: Tensor

    def __init__(self, in_chans: Sequence[int], num_classes: int, anchors: Tensor) -> None:
        super().__init__()
        self.outputs = 5 + num_classes
        self.register_buffer("anchors", anchors)
        self.m = nn.ModuleList(nn.Conv2d(maps, anchors.shape[1] * self.outputs, 1) for maps in in_chans)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.m, maps, strict=True)]

    @torch.no_grad()
    def start(self, objectness: float) -> None:
        """Small weights; every prior starts at this objectness, at the prior's own box, and with classes equally likely."""
        for layer in self.m:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            bias = layer.bias.view(-1, self.outputs)
            bias.zero_()
            bias[:, 4] = math.log(objectness / (1 - objectness))
            bias[:, 5:] = -math.log(self.outputs - 5)  # the odds of one among K and none


# -- assignment -----------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Of one level what learns which truth, each (M,) int64: prior, row and column of the cell, index of the truth."""

    prior: Tensor
    row: Tensor
    column: Tensor
    truth: Tensor


def assign(boxes: Tensor, priors: Tensor, stride: int, grid: tuple[int, int]) -> Pairs:
    """Which priors of a level learn which truths.

    A prior (pw, ph) takes a truth of sides (w, h) when ``max(w / pw, pw / w, h / ph, ph / h) < 4``; (2 sigma)^2 ends there. It does so in
    three cells: the one that holds the truth's centre, and of its neighbours beside and above or below those that the centre is nearer
    to; 2 sigma - 0.5 reaches half a cell over. A centre in the very middle has no nearer neighbour, and none lies outside the grid.

    Args:
        boxes: (T, 4) XYXY in pixels, of any images.
        priors: (A, 2) in pixels.
        stride: pixels a cell.
        grid: (H, W) of the level.
    """
    ratio = (boxes[:, 2:] - boxes[:, :2]) / priors[:, None]
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < RATIO  # (A, T)
    centre = (boxes[:, :2] + boxes[:, 2:]) / (2 * stride)
    last = centre.new_tensor([grid[1] - 1, grid[0] - 1])
    cell = centre.floor().clamp_min(0).minimum(last)
    step = (centre - cell - 0.5).sign()  # to the nearer neighbour, -1 or 1
    cells = torch.cat([cell[:, None], cell[:, None] + torch.diag_embed(step)], 1)  # (T, 3, 2): its own, beside, above or below
    inside = ((cells >= 0) & (cells <= last)).all(-1)
    inside[:, 1:] &= step != 0
    prior, truth, place = (fits[..., None] & inside).nonzero(as_tuple=True)
    column, row = cells[truth, place].long().unbind(-1)
    return Pairs(prior, row, column, truth)


# -- the detector ---------------------------------------------------------------------------------


class YOLOv5(GridDetector):
    """YOLOv5; see the module's docstring and :func:`yolov5`.

    ``raw`` gives for the strides 8, 16, 32 (N, 3 (5 + K), H, W): by prior x, y, w, h, objectness, classes, before the sigmoid.

    Args:
        num_classes: K.
        depth: factor on the published numbers of blocks (of l).
        width: factor on the published numbers of maps (of l); made multiples of 8.
        size, in_chans, priors: as :func:`yolov5`.
    """

    squared = True
    loss_names = ("ciou", "giou", "diou")

    def __init__(self, num_classes: int, *, depth: float, width: float, size: int, in_chans: int = 3, priors: str = "paper") -> None:
        super().__init__(num_classes, PRIORS, STRIDES, size=size, in_chans=in_chans, given=priors, scale_xy=2.0)
        self.own_priors = priors not in ("paper", "auto")
        self.label_smoothing = 0.0
        c1, c2, c3, c4, c5 = (8 * math.ceil(maps * width / 8) for maps in (64, 128, 256, 512, 1024))
        d3, d6, d9 = (max(round(blocks * depth), 1) for blocks in (3, 6, 9))
        priors_in_cells = self.priors / self.priors.new_tensor(STRIDES)[:, None, None]
        self.model = nn.ModuleList(
            [
                conv(in_chans, c1, 6, 2, padding=2),  # 0: backbone, stride 2
                conv(c1, c2, 3, 2),
                C3(c2, c2, d3, add=True),
                conv(c2, c3, 3, 2),  # 3: stride 8
                C3(c3, c3, d6, add=True),
                conv(c3, c4, 3, 2),
                C3(c4, c4, d9, add=True),
                conv(c4, c5, 3, 2),  # 7: stride 32
                C3(c5, c5, d3, add=True),
                SPPF(c5, c5),
                conv(c5, c4, 1),  # 10: from coarse to fine
                nn.Upsample(scale_factor=2.0),
                Join(),
                C3(2 * c4, c4, d3, add=False),
                conv(c4, c3, 1),
                nn.Upsample(scale_factor=2.0),
                Join(),
                C3(2 * c3, c3, d3, add=False),
                conv(c3, c3, 3, 2),  # 18: and back
                Join(),
                C3(2 * c3, c4, d3, add=False),
                conv(c4, c4, 3, 2),
                Join(),
                C3(2 * c4, c5, d3, add=False),
                Head((c3, c4, c5), num_classes, priors_in_cells),
            ]
        )
        cells = sum((size // stride) ** 2 for stride in STRIDES)
        self.head.start(OBJECTS / (cells * self.priors.shape[1]))
        self.register_load_state_dict_post_hook(take_anchors)

    @property
    def head(self) -> Head:
        """The last layer."""
        head = self.model[-1]
        assert isinstance(head, Head)
        return head

    def raw(self, images: Images) -> list[Tensor]:
        """The heads' outputs of (N, C, H, W) images, sides multiples of 32; PANet figure 1: (a) down, up again, (b) down again."""
        assert isinstance(images, Tensor)
        m = self.model
        c3 = m[4](m[3](m[2](m[1](m[0](images)))))
        c4 = m[6](m[5](c3))
        t5 = m[10](m[9](m[8](m[7](c4))))
        t4 = m[14](m[13](m[12](m[11](t5), c4)))
        p3 = m[17](m[16](m[15](t4), c3))
        p4 = m[20](m[19](m[18](p3), t4))
        p5 = m[23](m[22](m[21](p4), t5))
        return m[24]([p3, p4, p5])

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """``box``: 1 - CIoU, mean over the assigned; ``objectness``: cross entropy towards their CIoU, elsewhere 0; ``class``.

        Of several truths that one prior of a cell learns, the best placed one is the objectness' target. The last is a binary cross entropy
        summed over the classes, mean over the assigned. Each is times :data:`WEIGHTS`.
        """
        assert isinstance(images, Tensor)
        images, targets = self.rescaled(images, targets)
        raw = self.raw(images)
        truth = Objects.of(targets, images)
        kind: Overlap = self.loss_name  # type: ignore[assignment]
        objectness, boxes, classes, count = [], [], [], 0
        for level, out in enumerate(raw):
            fields, priors = self.fields(out), self.priors[level]
            pairs = assign(truth.boxes, priors, self.strides[level], (out.shape[2], out.shape[3]))
            index = (truth.image[pairs.truth], pairs.prior, pairs.row, pairs.column)
            rows = fields[index]
            # in pixels from the cell's corner: there float32 still tells the corners of a very small box apart
            placed = corners(self.place(rows[:, :4].clamp_min(LEAST), rows.new_zeros(2), priors[pairs.prior], level))
            cell = torch.stack([pairs.column, pairs.row, pairs.column, pairs.row], 1)
            overlap = paired_iou(placed, truth.boxes[pairs.truth] - cell * self.strides[level], kind)
            wanted = rows.new_zeros(fields.shape[:4])
            flat = (((index[0] * len(priors) + pairs.prior) * out.shape[2] + pairs.row) * out.shape[3]) + pairs.column
            wanted.view(-1).scatter_reduce_(0, flat, overlap.detach().clamp_min(0), "amax")
            entropy = F.binary_cross_entropy_with_logits(fields[..., 4], wanted, reduction="none")
            crowded = in_crowd(truth.crowds, self.strides[level], (out.shape[2], out.shape[3]))
            entropy = entropy.masked_fill(crowded & (wanted == 0), 0.0)
            objectness.append(entropy.sum())
            boxes.append((1 - overlap).sum())
            hot = F.one_hot(truth.labels[pairs.truth], self.num_classes) * (1 - self.label_smoothing) + self.label_smoothing / 2
            classes.append(F.binary_cross_entropy_with_logits(rows[:, 5:], hot.to(rows), reduction="sum"))
            count += len(overlap)
        shares = {"box": max(count, 1), "objectness": len(images) * self.priors.shape[1] * REACH, "class": max(count, 1)}
        terms = {"box": boxes, "objectness": objectness, "class": classes}
        return {name: WEIGHTS[name] * torch.stack(levels).sum() / shares[name] for name, levels in terms.items()}

    @torch.no_grad()
    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """The priors, each around the middle of its cell, that learn an object."""
        assert isinstance(images, Tensor)
        height, width = images.shape[-2:]
        truth = Objects.of(targets, images)
        boxes, indices = [], []
        for stride, priors in zip(self.strides, self.priors, strict=True):
            pairs = assign(truth.boxes, priors, stride, (height // stride, width // stride))
            centre = (torch.stack([pairs.column, pairs.row], 1) + 0.5) * stride
            boxes.append(corners(torch.cat([centre, priors[pairs.prior]], 1)))
            indices.append(pairs.truth)
        prior, index = torch.cat(boxes), torch.cat(indices)
        return truth.assigned("priors", prior, index)

    def configure(self, recipe: Recipe) -> None:
        """Also takes ``recipe.label_smoothing``."""
        super().configure(recipe)
        if not 0 <= recipe.label_smoothing < 1:
            raise UsageError(f"recipe.label_smoothing must be at least 0 and below 1, not {recipe.label_smoothing}")
        self.label_smoothing = recipe.label_smoothing

    def learn_from(self, data: Dataset) -> None:
        """As the base; the head stores the priors too."""
        super().learn_from(data)
        self.head.anchors.copy_(self.priors / self.priors.new_tensor(self.strides)[:, None, None])

    def translate_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take away what a wrapper put before the names. Priors in the file are taken, unless the option ``priors`` gives some."""
        first = "model.0.conv.weight"
        prefix = next((name.removesuffix(first) for name in state if name.endswith(first)), "")
        state = {name.removeprefix(prefix): value for name, value in state.items() if not name.endswith(".anchor_grid")}
        if self.own_priors or "model.24.anchors" not in state:
            state["model.24.anchors"] = self.head.anchors
        return state


def in_crowd(crowds: Tensor, stride: int, grid: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) whether the middle of a cell of an (H, W) grid lies in one of an image's crowds (N, C, 4)."""
    x1, y1, x2, y2 = (crowds / stride - 0.5)[..., None].unbind(2)
    row, column = (torch.arange(cells, device=crowds.device) for cells in grid)
    across, down = (x1 <= column) & (column < x2), (y1 <= row) & (row < y2)  # (N, C, W), (N, C, H)
    return (down[..., None] & across[:, :, None]).any(1, keepdim=True)


def take_anchors(model: YOLOv5, _: object) -> None:
    """After weights were loaded: the priors that came with them."""
    model.priors.copy_(model.head.anchors * model.priors.new_tensor(model.strides)[:, None, None])


# -- builder --------------------------------------------------------------------------------------


def yolov5(
    num_classes: int = 80,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    variant: Variant = "s",
    size: int = 640,
    width: float = 1.0,
    priors: str = "paper",
) -> YOLOv5:
    """YOLOv5.

    Args:
        num_classes: without background.
        in_chans: 1 (grey) or 3.
        pretrained: nobody publishes weights under a free licence; a UsageError. A state dict of yours: ``weights=FILE``.
        variant: how deep and wide: :data:`MULTIPLES`.
        size: side of the square input in pixels, a multiple of 32; images keep their aspect.
        width: factor on all maps beside the variant's, for a smaller network.
        priors: "paper" (:data:`PRIORS`), "auto" (k-means over the training data), or nine sizes as in 10x13,16x30,..., finest first.
    """
    if pretrained:
        raise UsageError(
            f"saccade downloads no weights of yolov5{variant}: give a state dict of yours, weights=FILE, or leave pretrained off"
        )
    check_within(32, 4096, size=size)
    check_width(width)
    deep, wide = MULTIPLES[variant]
    return YOLOv5(num_classes, depth=deep, width=wide * width, size=size, in_chans=in_chans, priors=priors)


RECIPES = dict.fromkeys(
    (f"yolov5{variant}" for variant in MULTIPLES),
    Recipe(
        epochs=100, batch_size=8, optimizer="adamw", lr=2e-3, weight_decay=0.05, warmup=3.0, lr_final=0.01, clip=10.0, ema=0.998,
        channels_last=True, hflip=0.5, scale=0.5, translate=0.1, hue=0.015, brightness=0.3, contrast=0.2, saturation=0.5, mosaic=0.5,
        close_augment=0.2,
    ),
)  # fmt: skip
"""Ours, for some hundred images from scratch."""
