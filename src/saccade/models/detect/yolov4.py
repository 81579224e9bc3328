"""YOLOv4 (2020), its small form and the cross-stage partial one.

Bochkovskiy, Wang, Liao: YOLOv4: Optimal Speed and Accuracy of Object Detection, arXiv 2004.10934 (2020);
Wang, Bochkovskiy, Liao: Scaled-YOLOv4: Scaling Cross Stage Partial Network, arXiv 2011.08036 (2020): ``yolov4_tiny``, ``yolov4_csp``.

What was new: of what others had found for backbone, neck, loss and augmentation, what trains well together on one GPU; and mosaics,
self-adversarial training, and simpler forms of spatial attention and path aggregation.

Where what stands:

* section 3.4, CSPDarknet-53 with Mish: :mod:`saccade.models.classify.cspdarknet53`; spatial pyramid pooling, path aggregation with
  concatenation (figure 6): :class:`PathAggregation`,
* figure 5, the pointwise spatial attention: :class:`~saccade.layers.blocks.PointwiseAttention`, before each head with
  ``model.attention`` (the paper does not say where, and the authors' cfg has none),
* section 3.3, self-adversarial training: :meth:`YOLOv4.attacked`, by ``recipe.self_adversarial``; mosaics: ``recipe.mosaic``,
* section 3.4, CIoU, several priors a truth: :class:`YOLOv4`, on YOLOv3's loss; "eliminate grid sensitivity": ``scale_xy``; class label
  smoothing: ``recipe.label_smoothing``; DropBlock (Ghiasi, Lin, Le, arXiv 1810.12890; torchvision's, windows of 7): on the maps of the
  backbone's last two stages with ``model.drop_block``, at full strength from the first step on,
* Scaled-YOLOv4, section 4.1 (the first stage without a split, the neck in cross-stage partial form): :func:`yolov4_csp`,
  :class:`PartialBlock`; section 4.2 (YOLOv4-tiny, halves of the maps): :class:`TinyPartial`,
* priors, numbers of the loss and the order of the layers: the authors' ``yolov4.cfg``, ``yolov4-tiny.cfg``, ``yolov4-csp.cfg`` and
  ``yolov4-csp-swish.cfg``. ``yolov4-tiny.cfg`` has the prior 81x82 on both levels and 10x14 on none; so it is here.

Deviations. As in :mod:`yolov3 <saccade.models.detect.yolov3>`. The overlap's gradient is that of the loss (Darknet leaves out some inner
derivatives and scales by 0.07). No cross mini-batch normalisation: the authors' cfg has none. Darknet ignores only predicted boxes that
also name the truth's class. Of the cfg of the cross-stage partial form: the weights of objectness by level, 4, 1, 0.4, and of classes, 0.5;
not the smoothing of objectness. The recipe is for small data from scratch: AdamW and averaged weights for SGD at 0.0013 over 500 500
batches of 64; of the paper's it keeps cosine, mosaics (of half of the images, and none at the end: whole small objects matter on small
data), flips, colours, and several sizes.

Pinned by tests: priors, scales of x and y; 64,429,405, 6,062,814 and 52,986,205 numbers in Darknet's files of weights; the layers of its
descriptions in order, its numbers on the same weights; losses of a literal program.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

from saccade.layers.blocks import PointwiseAttention
from saccade.layers.conv_bn import Activation, ConvBN
from saccade.models.bounds import check_within
from saccade.models.classify.cspdarknet53 import CSPDarknet53, Residual, Stage
from saccade.models.classify.network import check_width, initialise, scaled
from saccade.models.detect.grid import Sides
from saccade.models.detect.yolov3 import DarknetStages, SpatialPools, YOLOv3, doubled, head, squeeze, units, unpublished
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

PRIORS: tuple[Sides, ...] = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
"""Finest scale first, in pixels."""

TINY_PRIORS: tuple[Sides, ...] = (((81, 82), (135, 169), (344, 319)), ((23, 27), (37, 58), (81, 82)))

STAGES = {128: 2, 256: 8, 512: 8, 1024: 4}
"""Of the cross-stage partial form: maps of a stage -> residual blocks; the first stage, of 64 maps, has one and no split."""

STEP = 0.01
"""Of self-adversarial training: how far each value of an image (0..1) is moved. The paper does not say."""

WINDOW = 7
"""Of DropBlock, the side that its paper found best."""


# -- networks -------------------------------------------------------------------------------------


def drop_block(x: Tensor, probability: float) -> Tensor:
    """(N, C, H, W) with square windows of values dropped, the others scaled up; smaller maps, smaller windows."""
    side = min(WINDOW, *x.shape[2:])
    return ops.drop_block2d(x, probability, side - 1 + side % 2)


class PartialBlock(nn.Module):
    """The cross-stage partial form of convolutions that narrow maps: (N, in_chans, H, W) to (N, maps, H, W).

    Args:
        in_chans, maps: before and after.
        activation: after every convolution.
        pooled: the top of the pyramid: no convolution before the split, pooling between the convolutions.
    """

    def __init__(self, in_chans: int, maps: int, activation: Activation, *, pooled: bool = False) -> None:
        super().__init__()
        self.enter = nn.Identity() if pooled else ConvBN(in_chans, maps, 1, activation=activation)
        width = in_chans if pooled else maps
        self.around = ConvBN(width, maps, 1, activation=activation)
        if pooled:
            before = units(width, (maps,) * 3, (1, 3, 1), activation)
            self.through = nn.Sequential(*before, SpatialPools(), *units(4 * maps, (maps,) * 2, (1, 3), activation))
        else:
            self.through = nn.Sequential(*units(width, (maps,) * 4, (1, 3, 1, 3), activation))
        self.join = ConvBN(2 * maps, maps, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.join(torch.cat([self.through(x), self.around(x)], 1))


class PathAggregation(nn.Module):
    """Images to the outputs of strides 8, 16 and 32: the pyramid from coarse to fine, and back. The children stand in the cfg's order.

    Args:
        stages: the backbone.
        top: the coarsest maps to (N, 512, H, W).
        block: (maps of two sources joined, maps) to the layer that fuses them.
        outputs: maps of a head.
        width: factor on all maps.
        activation: after the other convolutions.
        heads_last: whether in the file the heads stand at the end, or each after its level.
        probability: of DropBlock. attention: before each head.
    """

    up16: nn.Module
    lateral16: nn.Module
    merge16: nn.Module
    up8: nn.Module
    lateral8: nn.Module
    merge8: nn.Module
    down16: nn.Module
    path16: nn.Module
    down32: nn.Module
    path32: nn.Module
    head8: nn.Module
    head16: nn.Module
    head32: nn.Module

    def __init__(
        self,
        stages: DarknetStages,
        top: nn.Module,
        block: Callable[[int, int], nn.Module],
        outputs: int,
        *,
        width: float,
        activation: Activation = "leaky",
        heads_last: bool = False,
        probability: float = 0.0,
        attention: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise UsageError(f"model.drop_block={probability}: it lies in 0..1, without 1")
        fine, medium, coarse = (scaled(maps, width) for maps in (128, 256, 512))
        self.probability = probability
        self.stages, self.top = stages, top

        def conv(in_chans: int, maps: int, kernel: int = 1, stride: int = 1) -> nn.Module:
            return ConvBN(in_chans, maps, kernel, stride, activation=activation)

        def predict(maps: int) -> nn.Module:
            layers = head(maps, 2 * maps, outputs, activation)
            return nn.Sequential(PointwiseAttention(maps), *layers) if attention else layers

        up = {
            "up16": conv(coarse, medium), "lateral16": conv(stages.channels[1], medium), "merge16": block(2 * medium, medium),
            "up8": conv(medium, fine), "lateral8": conv(stages.channels[0], fine), "merge8": block(2 * fine, fine),
        }  # fmt: skip
        down16 = {"down16": conv(fine, medium, 3, 2), "path16": block(2 * medium, medium)}
        down32 = {"down32": conv(medium, coarse, 3, 2), "path32": block(2 * coarse, coarse)}
        head8, head16, head32 = ({f"head{stride}": predict(maps)} for stride, maps in ((8, fine), (16, medium), (32, coarse)))
        by_level, at_the_end = up | head8 | down16 | head16 | down32 | head32, up | down16 | down32 | head8 | head16 | head32
        for name, layer in (at_the_end if heads_last else by_level).items():
            self.add_module(name, layer)
        initialise(self)

    @property
    def heads(self) -> list[nn.Module]:
        """What predicts, in the order of the outputs."""
        return [self.head8, self.head16, self.head32]

    def forward(self, images: Tensor) -> list[Tensor]:
        fine, medium, coarse = self.stages(images)
        if self.training and self.probability:
            medium, coarse = drop_block(medium, self.probability), drop_block(coarse, self.probability)
        coarse = self.top(coarse)
        medium = self.merge16(torch.cat([self.lateral16(medium), doubled(self.up16(coarse))], 1))
        fine = self.merge8(torch.cat([self.lateral8(fine), doubled(self.up8(medium))], 1))
        medium = self.path16(torch.cat([self.down16(fine), medium], 1))
        coarse = self.path32(torch.cat([self.down32(medium), coarse], 1))
        return [self.head8(fine), self.head16(medium), self.head32(coarse)]


class TinyPartial(nn.Module):
    """A stage of ``yolov4-tiny.cfg``: (N, in_chans, H, W) to (N, 2 maps, H, W) and to its second half, (N, maps, H, W).

    The second half of the maps goes through two convolutions, whose outputs are joined, and is joined to all of them.
    """

    def __init__(self, in_chans: int, maps: int) -> None:
        super().__init__()
        self.enter = ConvBN(in_chans, maps, 3, activation="leaky")
        self.first = ConvBN(maps // 2, maps // 2, 3, activation="leaky")
        self.second = ConvBN(maps // 2, maps // 2, 3, activation="leaky")
        self.join = ConvBN(maps, maps, 1, activation="leaky")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enter(x)
        first = self.first(x.chunk(2, 1)[1])
        joined = self.join(torch.cat([self.second(first), first], 1))
        return torch.cat([x, joined], 1), joined


class TinyBackbone(nn.Module):
    """Images to the maps of strides 16 and 32 of ``yolov4-tiny.cfg``."""

    def __init__(self, in_chans: int, width: float) -> None:
        super().__init__()
        maps = [scaled(m, width) for m in (32, 64, 128, 256, 512)]
        self.conv1 = ConvBN(in_chans, maps[0], 3, 2, activation="leaky")
        self.conv2 = ConvBN(maps[0], maps[1], 3, 2, activation="leaky")
        chans = (maps[1], 2 * maps[1], 2 * maps[2])
        self.stages = nn.ModuleList(TinyPartial(i, o) for i, o in zip(chans, maps[1:4], strict=True))
        self.pool = nn.MaxPool2d(2)
        self.last = ConvBN(2 * maps[3], maps[4], 3, activation="leaky")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv2(self.conv1(images))
        half = x
        for stage in self.stages:
            x, half = stage(x)
            x = self.pool(x)
        return half, self.last(x)


class TinyNetwork(nn.Module):
    """``yolov4-tiny.cfg``: images to the outputs of strides 32 and 16."""

    def __init__(self, in_chans: int, outputs: int, *, width: float = 1.0) -> None:
        super().__init__()
        fine, medium, coarse = (scaled(maps, width) for maps in (128, 256, 512))
        self.backbone = TinyBackbone(in_chans, width)
        self.squeeze32 = ConvBN(coarse, medium, 1, activation="leaky")
        self.head32 = head(medium, coarse, outputs)
        self.up16 = ConvBN(medium, fine, 1, activation="leaky")
        self.head16 = head(fine + medium, medium, outputs)
        initialise(self)

    @property
    def heads(self) -> list[nn.Module]:
        """What predicts, in the order of the outputs."""
        return [self.head32, self.head16]

    def forward(self, images: Tensor) -> list[Tensor]:
        fine, coarse = self.backbone(images)
        coarse = self.squeeze32(coarse)
        return [self.head32(coarse), self.head16(torch.cat([doubled(self.up16(coarse)), fine], 1))]


def partial_stages(in_chans: int, width: float, activation: Activation) -> DarknetStages:
    """Backbone of the cross-stage partial form: CSPDarknet-53, but for a first stage that is not split."""
    maps, first = scaled(32, width), scaled(64, width)
    stages: OrderedDict[str, nn.Module] = OrderedDict(conv1=ConvBN(in_chans, maps, 3, activation=activation))
    stages["stage1"] = nn.Sequential(ConvBN(maps, first, 3, 2, activation=activation), Residual(first, first // 2, activation))
    chans = [first, *(scaled(m, width) for m in STAGES)]
    for number, ((before, after), blocks) in enumerate(zip(pairwise(chans), STAGES.values(), strict=True), start=2):
        stages[f"stage{number}"] = Stage(before, after, blocks, False, activation)
    return DarknetStages(nn.Sequential(stages), chans[-3:])


# -- the detector ---------------------------------------------------------------------------------


class YOLOv4(YOLOv3):
    """YOLOv3's outputs and losses, with CIoU, more priors a truth, and self-adversarial training."""

    loss_names: ClassVar[tuple[str, ...]] = ("ciou", "diou", "giou", "mse")
    self_adversarial = 0.0

    def configure(self, recipe: Recipe) -> None:
        """Also takes ``recipe.self_adversarial``."""
        super().configure(recipe)
        self.self_adversarial = recipe.self_adversarial

    def prepared(self, images: Tensor, targets: list[Target]) -> tuple[Tensor, list[Target]]:
        """In training the batch at another size, and with the recipe's probability changed against the network."""
        images, targets = super().prepared(images, targets)
        if self.training and self.self_adversarial and float(torch.rand(())) < self.self_adversarial:
            images = self.attacked(images)
        return images, targets

    def attacked(self, images: Tensor) -> Tensor:
        """Section 3.3, first stage: images (N, C, H, W) in 0..1 on which the network sees less of an object, moved by ``STEP``.

        One step by the sign of the gradient of the objectness of all boxes, with the network as it predicts; no parameter's gradient and
        no buffer changes.
        """
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            given = images.detach().clone().requires_grad_()
            with torch.enable_grad():
                seen = torch.stack([F.softplus(self.fields(out)[..., 4]).sum() for out in self.raw(given)]).sum()
                (slope,) = torch.autograd.grad(seen, given)
        finally:
            for module, mode in modes:
                module.training = mode
        return (images - STEP * slope.sign()).clamp(0, 1)


class YOLOv4CSP(YOLOv4):
    """With sides as squares of a sigmoid."""

    squared = True
    loss_names = ("ciou", "diou", "giou")


# -- builders -------------------------------------------------------------------------------------


def yolov4(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
    ignore: float = 0.7,
    drop_block: float = 0.0,
    attention: bool = False,
) -> YOLOv4:
    """YOLOv4.

    Args:
        num_classes: K.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are fetched, but Darknet's files are read; a UsageError.
        size: side of the input in pixels, a multiple of 32.
        width: factor on all maps.
        priors: "paper", "auto" (fitted to the training data), or nine sizes as 10x13, finest scale first.
        ignore: overlap of a predicted box with a truth above which it learns no background.
        drop_block: probability of DropBlock in training, 0..1.
        attention: pointwise spatial attention before each head; such a network reads no file of Darknet's.
    """
    _check("yolov4", pretrained, size, width)
    maps = [scaled(m, width) for m in (256, 512, 1024)]
    stages = DarknetStages(CSPDarknet53(0, in_chans, width=width).features, maps)  # type: ignore[arg-type]
    half = maps[1]
    before, after = (units(c, (half, 2 * half, half), (1, 3, 1)) for c in (maps[2], 4 * half))
    top = nn.Sequential(*before, SpatialPools(), *after)
    network = PathAggregation(stages, top, squeeze, 3 * (5 + num_classes), width=width, probability=drop_block, attention=attention)
    return YOLOv4(
        network, num_classes, PRIORS, (8, 16, 32), ignore=ignore, shared=0.213, size=size, in_chans=in_chans, given=priors,
        scale_xy=(1.2, 1.1, 1.05), mode="stretch",
    )  # fmt: skip


def yolov4_tiny(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 416,
    width: float = 1.0,
    priors: str = "paper",
    ignore: float = 0.7,
) -> YOLOv4:
    """YOLOv4-tiny: scales of strides 32 and 16 with three priors each, one prior a truth; options as :func:`yolov4`."""
    _check("yolov4_tiny", pretrained, size, width)
    network = TinyNetwork(in_chans, 3 * (5 + num_classes), width=width)
    return YOLOv4(
        network, num_classes, TINY_PRIORS, (32, 16), ignore=ignore, size=size, in_chans=in_chans, given=priors, scale_xy=1.05,
        mode="stretch",
    )  # fmt: skip


def yolov4_csp(
    num_classes: int,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 512,
    width: float = 1.0,
    priors: str = "paper",
    ignore: float = 0.7,
    activation: Literal["mish", "swish"] = "mish",
    drop_block: float = 0.0,
    attention: bool = False,
) -> YOLOv4CSP:
    """YOLOv4 with a neck in cross-stage partial form (Scaled-YOLOv4); other options as :func:`yolov4`.

    Args:
        num_classes, in_chans, pretrained, size, width, priors, ignore, drop_block, attention: see there.
        activation: "mish" with the layers in the order of ``yolov4-csp.cfg``, or "swish" with that of ``yolov4-csp-swish.cfg``, whose
            heads stand at the end.
    """
    _check("yolov4_csp", pretrained, size, width)
    act: Activation = "silu" if activation == "swish" else "mish"
    stages = partial_stages(in_chans, width, act)
    network = PathAggregation(
        stages,
        PartialBlock(stages.channels[2], scaled(512, width), act, pooled=True),
        lambda joined, maps: PartialBlock(joined, maps, act),
        3 * (5 + num_classes),
        width=width,
        activation=act,
        heads_last=activation == "swish",
        probability=drop_block,
        attention=attention,
    )
    return YOLOv4CSP(
        network, num_classes, PRIORS, (8, 16, 32), ignore=ignore, shared=0.2, level_weights=(4.0, 1.0, 0.4), class_weight=0.5, size=size,
        in_chans=in_chans, given=priors, scale_xy=2.0,
    )  # fmt: skip


def _check(name: str, pretrained: bool, size: int, width: float) -> None:
    check_within(32, 4096, size=size)
    check_width(width)
    unpublished(name, pretrained)


RECIPE = Recipe(
    epochs=60, batch_size=8, optimizer="adamw", lr=1e-3, weight_decay=0.01, warmup=2.0, lr_final=0.01, clip=10.0, ema=0.998,
    channels_last=True, hflip=0.5, scale=0.3, translate=0.1, brightness=0.3, saturation=0.3, hue=0.05, multi_scale=(0.75, 1.25),
    mosaic=0.5, close_augment=0.2,
)  # fmt: skip

RECIPES = {"yolov4": RECIPE, "yolov4_tiny": RECIPE.replace(mosaic=0.0, close_augment=0.0), "yolov4_csp": RECIPE}
