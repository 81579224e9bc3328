"""The region proposal network of Faster R-CNN: anchors, their labels, the network, its losses, its proposals.

Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, 2015, arXiv 1506.01497, section 3.1.

New in the paper: proposals come from the detector's own feature map. A 3x3 convolution and two sibling 1x1 convolutions give, for each of
A anchors a position, the probability of an object and four box offsets (figure 3).

Where things are: anchors (3.1.1): :func:`cell_anchors`, :func:`grid_anchors`. Labels (3.1.2: above 0.7 or the best of a truth positive,
below 0.3 negative): :func:`match`. Mini-batch of 256 anchors, up to 1:1 (3.1.3): :func:`sample`. Loss, equation 1: :meth:`RPN.losses`.
Proposals (3.3: NMS at 0.7): :meth:`RPN.proposals`.

Deviations. Equation 1 divides the class term by N_cls = 256 and the box term by N_reg, about 2400 positions, times lambda = 10: within 7%
the same factor. As all later implementations, both terms here are divided by the number of sampled anchors (lambda = 1).
Objectness is one logit with a sigmoid, not a two-class soft-max (footnote 3 allows it). With ``drop_border`` anchors that cross the image's
border take no part in training, as in the paper; the pyramid form keeps them, as torchvision does.

Pinned by tests: 9 anchors of 128, 256, 512 by 1:2, 1:1, 2:1; torchvision's anchors, labels, proposals and losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from saccade.boxes.coders import BoxCoder

BACKGROUND, IGNORED = -1, -2
"""Values of :func:`match` beside the index of a truth."""

SMOOTH_L1_BETA = 1 / 9
"""Where smooth L1 turns from quadratic to linear (the authors' sigma = 3)."""


class Truth(NamedTuple):
    """Objects of one image in network pixels: ``boxes`` (G, 4), ``labels`` (G,), ``crowd`` (C, 4) regions to be ignored."""

    boxes: Tensor
    labels: Tensor
    crowd: Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """(len(ratios) * len(sizes), 4) XYXY around the origin: area ``size ** 2``, ratio height / width, rounded to whole pixels."""
    root = torch.tensor(ratios, dtype=torch.float32).sqrt()[:, None]
    size = torch.tensor(sizes, dtype=torch.float32)[None]
    width, height = (size / root).flatten(), (size * root).flatten()
    return (torch.stack((-width, -height, width, height), dim=1) / 2).round()


def grid_anchors(cell: Tensor, grid: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """(H * W * A, 4) anchors of a map ``grid`` (H, W): ``cell`` (A, 4) at every position, row by row; ``stride`` (y, x)."""
    y = torch.arange(grid[0], device=cell.device, dtype=cell.dtype) * stride[0]
    x = torch.arange(grid[1], device=cell.device, dtype=cell.dtype) * stride[1]
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=-1).view(-1, 1, 4)
    return (shifts + cell).view(-1, 4)


def match(iou: Tensor, high: float, low: float, *, keep_best: bool = False) -> Tensor:
    """(N,) index of the truth of each box, ``BACKGROUND`` or ``IGNORED``, from their overlaps ``iou`` (G, N).

    A box takes the truth it overlaps most when the overlap is at least ``high``; below ``low`` it is background.
    ``keep_best`` also gives each truth the boxes of its highest overlap, however low, unless they overlap nothing.
    """
    if iou.shape[0] == 0:
        return torch.full((iou.shape[1],), BACKGROUND, dtype=torch.int64, device=iou.device)
    value, index = iou.max(dim=0)
    out = torch.where(value < low, BACKGROUND, torch.where(value < high, IGNORED, index))
    if keep_best and iou.shape[1]:
        best = iou.amax(dim=1, keepdim=True)
        tied = ((iou == best) & (best > 0)).any(dim=0)
        out = torch.where(tied, index, out)
    return out


def ignore_crowd(matched: Tensor, boxes: Tensor, crowd: Tensor, share: float = 0.5) -> Tensor:
    """``matched`` with background boxes ignored where at least ``share`` of their area lies in one crowd region."""
    if not len(crowd) or not len(boxes):
        return matched
    low, high = torch.maximum(boxes[:, None, :2], crowd[None, :, :2]), torch.minimum(boxes[:, None, 2:], crowd[None, :, 2:])
    inside = (high - low).clamp_min(0).prod(dim=-1).amax(dim=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    return torch.where((matched == BACKGROUND) & (inside >= share * area), IGNORED, matched)


def sample(matched: Tensor, count: int, positive_share: float, *, random: bool) -> tuple[Tensor, Tensor]:
    """Indices of at most ``count`` boxes to learn from: up to ``positive_share`` of them matched ones, the rest background.

    ``random`` False takes evenly spaced ones: the same every time, and from all over the image.
    """
    positive, negative = torch.where(matched >= 0)[0], torch.where(matched == BACKGROUND)[0]
    positive = _choose(positive, int(count * positive_share), random)
    return positive, _choose(negative, count - len(positive), random)


def _choose(indices: Tensor, count: int, random: bool) -> Tensor:
    total = len(indices)
    if total <= count:
        return indices
    if random:
        return indices[torch.randperm(total, device=indices.device)[:count]]
    return indices[torch.arange(count, device=indices.device) * total // count]


class Proposing(NamedTuple):
    """What the network says, a tensor a level: ``logits`` (N, M), ``deltas`` (N, M, 4), ``anchors`` (M, 4)."""

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class RPN(nn.Module):
    """Region proposal network on one map or several; all maps share its weights.

    Args:
        channels: of each map.
        sizes: anchor sizes in network pixels, a tuple for each map.
        ratios: height / width, the same for all maps.
        drop_border: in training, ignore anchors that cross the image's border.
        samples: anchors an image to learn from.
        high, low: overlaps from which an anchor is positive, below which it is negative.
        nms: overlap above which the weaker of two proposals goes.
    """

    def __init__(
        self,
        channels: int,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        *,
        drop_border: bool = False,
        samples: int = 256,
        high: float = 0.7,
        low: float = 0.3,
        nms: float = 0.7,
    ) -> None:
        super().__init__()
        count = len(sizes[0]) * len(ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, count, 1)
        self.deltas = nn.Conv2d(channels, 4 * count, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)  # 3.1.3
            nn.init.zeros_(layer.bias)
        for level, size in enumerate(sizes):
            self.register_buffer(f"cell{level}", cell_anchors(size, ratios), persistent=False)
        self.drop_border, self.samples, self.high, self.low, self.nms = drop_border, samples, high, low, nms
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (N, M) and deltas (N, M, 4) of each map, in the order of its anchors."""
        logits, deltas = [], []
        for features in maps:
            hidden = F.relu(self.conv(features))
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            offsets = self.deltas(hidden)  # channel = anchor * 4 + coordinate
            deltas.append(offsets.permute(0, 2, 3, 1).reshape(len(offsets), -1, 4))
        return logits, deltas

    def anchors(self, maps: list[Tensor], canvas: tuple[int, int]) -> list[Tensor]:
        """(M, 4) anchors of each map of a batch whose padded images are ``canvas`` (H, W)."""
        out = []
        for level, features in enumerate(maps):
            height, width = features.shape[-2:]
            stride = (canvas[0] // height, canvas[1] // width)
            out.append(grid_anchors(self.get_buffer(f"cell{level}"), (height, width), stride))
        return out

    def run(self, maps: list[Tensor], canvas: tuple[int, int]) -> Proposing:
        """The network's float32 answers beside their anchors."""
        logits, deltas = self(maps)
        return Proposing([x.float() for x in logits], [x.float() for x in deltas], self.anchors(maps, canvas))

    @torch.no_grad()
    def proposals(self, out: Proposing, sizes: list[tuple[int, int]], *, before: int, after: int) -> list[Tensor]:
        """(P, 4) proposals of each image, best first: the ``before`` best anchors a map, NMS within a map, the ``after`` best of all."""
        scores, boxes, levels = [], [], []
        for level, (logits, deltas, anchors) in enumerate(zip(*out, strict=True)):
            best, index = logits.topk(min(before, logits.shape[1]), dim=1)
            chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            scores.append(best)
            boxes.append(self.coder.decode(chosen, anchors[index]))
            levels.append(torch.full_like(index, level))
        score, box, level_of = torch.cat(scores, 1).sigmoid(), torch.cat(boxes, 1), torch.cat(levels, 1)
        kept = []
        for one, value, group, size in zip(box, score, level_of, sizes, strict=True):
            one = clip_boxes_to_image(one, size)
            solid = ((one[:, 2:] - one[:, :2]) >= 1e-3).all(dim=1)
            one = one[solid]
            kept.append(one[batched_nms(one, value[solid], group[solid], self.nms)[:after]])
        return kept

    def losses(self, out: Proposing, truths: list[Truth], sizes: list[tuple[int, int]], *, random: bool) -> tuple[Tensor, Tensor]:
        """Objectness and box loss of equation 1, both a mean over the sampled anchors of the batch."""
        logits, deltas, anchors = torch.cat(out.logits, 1), torch.cat(out.deltas, 1), torch.cat(out.anchors)
        chosen_logits, labels, chosen_deltas, aims = [], [], [], []
        for i, truth in enumerate(truths):
            matched = self.assign(anchors, truth, sizes[i])
            positive, negative = sample(matched, self.samples, 0.5, random=random)
            chosen_logits.append(logits[i, torch.cat((positive, negative))])
            labels.append(torch.cat((torch.ones_like(positive), torch.zeros_like(negative))))
            chosen_deltas.append(deltas[i, positive])
            aims.append(self.coder.encode(truth.boxes[matched[positive]], anchors[positive]))
        label = torch.cat(labels).float()
        count = max(len(label), 1)
        objectness = F.binary_cross_entropy_with_logits(torch.cat(chosen_logits), label, reduction="sum") / count
        box = F.smooth_l1_loss(torch.cat(chosen_deltas), torch.cat(aims), beta=SMOOTH_L1_BETA, reduction="sum") / count
        return objectness, box

    def assign(self, anchors: Tensor, truth: Truth, size: tuple[int, int]) -> Tensor:
        """(M,) truth of each anchor, ``BACKGROUND`` or ``IGNORED``, for an image of ``size`` (H, W)."""
        iou = box_iou(truth.boxes, anchors)
        if self.drop_border:
            height, width = size
            crosses = (anchors[:, :2] < 0).any(1) | (anchors[:, 2] > width) | (anchors[:, 3] > height)
            iou = iou.masked_fill(crosses, -1)  # the best anchor of a truth is sought among the others
        matched = ignore_crowd(match(iou, self.high, self.low, keep_best=True), anchors, truth.crowd)
        return matched.masked_fill(crosses, IGNORED) if self.drop_border else matched
