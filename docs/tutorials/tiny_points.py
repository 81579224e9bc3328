"""Objects as points, small (2019): a detector in one file, added to saccade by another package.

Zhou, Wang, Kraehenbuehl: Objects as Points, 2019, arXiv 1904.07850.

What was new: an object is one point, the peak of a heat map, with its size beside it; no
anchors, no non-maximum suppression.

Where what stands: equation 1 (heat maps and their loss): :func:`draw_heat`, :func:`heat_loss`;
equations 2 to 4 (offset, size, the sum with the weights 1, 1 and 0.1):
:meth:`TinyPoints.losses`; section 4.1 (peaks of 3x3 neighbourhoods): :meth:`TinyPoints.decode`.

Deviations. The network is a few convolutions to stride 4 instead of a pretrained Hourglass, DLA
or ResNet; the deviation of a peak is a sixth of the box's sides instead of CornerNet's radius.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.data.transforms.preprocess import Preprocess
from saccade.models.base import Model
from saccade.models.index import Entry
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection
from saccade.types.recipe import Recipe
from saccade.types.sample import Target, keep_objects

STRIDE = 4


# --8<-- [start:model]
def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 5x5 convolution, batch normalisation, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 5, stride, padding=2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class TinyPoints(Model):
    """``raw`` gives (B, K + 4, H / 4, W / 4): a heat map a class, then width and height,
    then the offset (x, y), in cells.
    """

    task = "detect"
    loss_names = ("points",)

    def __init__(self, num_classes: int, in_chans: int, size: int, width: int) -> None:
        super().__init__(num_classes)
        self.preprocess = Preprocess(
            mode="stretch", size=(size, size), channels=in_chans, mean=(0.5,), std=(0.25,)
        )
        self.body = nn.Sequential(
            block(in_chans, width, stride=2),
            block(width, 2 * width, stride=2),
            block(2 * width, 2 * width),
            block(2 * width, 2 * width),
        )
        self.head = nn.Conv2d(2 * width, num_classes + 4, 1)
        # Every class starts at 0.1, so that the many empty cells do not swamp the first steps.
        nn.init.constant_(self.head.bias[:num_classes], math.log(0.1 / 0.9))

    def raw(self, images: Tensor) -> Tensor:
        return self.head(self.body(images)).float()

    # --8<-- [end:model]
    # --8<-- [start:losses]
    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Focal loss of the heat maps, L1 of size and offset at the centres; each over the
        number of objects.
        """
        raw = self.raw(images)
        heat, sides, offset = raw.split([self.num_classes, 2, 2], dim=1)
        truth = torch.zeros_like(heat)
        size_loss, offset_loss, count = sides.sum() * 0, offset.sum() * 0, 0
        for i, target in enumerate(targets):
            target = keep_objects(target, ~target["iscrowd"])
            boxes = target["boxes"].as_subclass(Tensor).to(raw) / STRIDE
            labels = target["labels"].to(raw.device)
            centre, wanted = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            x = centre[:, 0].long().clamp(0, raw.shape[3] - 1)
            y = centre[:, 1].long().clamp(0, raw.shape[2] - 1)
            within = centre - torch.stack([x, y], 1)
            draw_heat(truth[i], x, y, wanted, labels)
            size_loss = size_loss + (sides[i, :, y, x].T - wanted).abs().sum()
            offset_loss = offset_loss + (offset[i, :, y, x].T - within).abs().sum()
            count += len(boxes)
        objects = max(count, 1)
        return {
            "heat": heat_loss(heat, truth) / objects,
            "size": 0.1 * size_loss / objects,
            "offset": offset_loss / objects,
        }

    # --8<-- [end:losses]
    # --8<-- [start:decode]
    def decode(
        self,
        raw: Tensor,
        geometries: Sequence[Geometry],
        *,
        score: float = 0.3,
        iou: float = 0.5,
        max_detections: int = 100,
    ) -> list[Detection]:
        """Peaks of 3x3 neighbourhoods, best first. ``iou`` does not apply: there is no
        suppression.
        """
        heat = raw[:, : self.num_classes].sigmoid()
        heat = heat * (heat == F.max_pool2d(heat, 3, 1, 1))
        out = []
        for peaks, rest, geometry in zip(
            heat, raw[:, self.num_classes :], geometries, strict=True
        ):
            values, places = peaks.flatten().topk(min(max_detections, peaks.numel()))
            values, places = values[values > score], places[values > score]
            label, y, x = (p for p in torch.unravel_index(places, peaks.shape))
            half = rest[:2, y, x].clamp_min(0).T / 2
            centre = torch.stack([x, y], 1) + rest[2:, y, x].T
            boxes = geometry.boxes_to_original(
                torch.cat([centre - half, centre + half], 1) * STRIDE
            )
            out.append(
                Detection(
                    boxes=boxes.cpu().numpy(),
                    labels=label.cpu().numpy(),
                    scores=values.cpu().numpy(),
                )
            )
        return out

    # --8<-- [end:decode]


# --8<-- [start:heat]
def draw_heat(heat: Tensor, x: Tensor, y: Tensor, sides: Tensor, labels: Tensor) -> None:
    """Set (K, H, W) maps to the Gaussians of N objects at cells (x, y), of ``sides`` (N, 2)
    in cells; where two overlap, the larger.
    """
    rows = torch.arange(heat.shape[1], device=heat.device)[None, :, None] - y[:, None, None]
    columns = torch.arange(heat.shape[2], device=heat.device)[None, None, :] - x[:, None, None]
    deviation = (sides / 6).clamp_min(0.5)[:, :, None, None]
    peaks = torch.exp(
        -(columns**2) / (2 * deviation[:, 0] ** 2) - rows**2 / (2 * deviation[:, 1] ** 2)
    )
    for peak, label in zip(peaks, labels.tolist(), strict=True):
        heat[label] = torch.maximum(heat[label], peak)


def heat_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Equation 1 with alpha 2 and beta 4, summed: at peaks (1 - p)^2 log p, elsewhere (1 -
    truth)^4 p^2 log(1 - p), negated.
    """
    p = logits.sigmoid()
    at_peak = (1 - p) ** 2 * F.logsigmoid(logits)
    elsewhere = (1 - truth) ** 4 * p**2 * F.logsigmoid(-logits)
    return -torch.where(truth == 1, at_peak, elsewhere).sum()


# --8<-- [end:heat]


# --8<-- [start:entry]
def tiny_points(
    num_classes: int,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    size: int = 128,
    width: int = 32,
) -> TinyPoints:
    """The builder. Its keyword arguments are the options: ``--set model.width=64``.

    Args:
        num_classes: without background.
        in_chans: 1 or 3.
        pretrained: nobody publishes weights; True is an error.
        size: side of the input in pixels, a multiple of 4.
        width: channels of the first convolution.
    """
    if pretrained:
        raise UsageError("no weights are published for tiny_points: leave pretrained off")
    if size < STRIDE or size % STRIDE:
        raise UsageError(f"model.size={size}: a multiple of {STRIDE}")
    return TinyPoints(num_classes, in_chans, size, width)


RECIPES = {
    "tiny_points": Recipe(epochs=40, batch_size=8, lr=2e-3, warmup=1.0, hflip=0.5, vflip=0.5)
}

ENTRIES = [
    Entry(
        name="tiny_points",
        task="detect",
        paper="Zhou, Wang, Kraehenbuehl: Objects as Points",
        year=2019,
        arxiv="1904.07850",
        builder="tiny_points:tiny_points",
        needs=("fixed size",),
        tiny={"size": 32, "width": 4},
        summary="objects as peaks of heat maps, in one file of another package",
    )
]
# --8<-- [end:entry]
