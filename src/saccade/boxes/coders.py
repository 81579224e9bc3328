"""Box coders: a box as four numbers relative to an anchor, and back. Boxes are XYXY in pixels.

R-CNN's parameterisation (Girshick et al., arXiv 1311.2524, appendix C; Fast/Faster R-CNN and SSD keep it): for an anchor with centre
``(xa, ya)`` and size ``(wa, ha)`` and a box ``(x, y, w, h)``::

    tx = wx (x - xa) / wa    ty = wy (y - ya) / ha    tw = ww log(w / wa)    th = wh log(h / ha)

The weights bring the four targets to a like spread. SSD's "variances" (0.1, 0.1, 0.2, 0.2) are their inverses: 10, 10, 5, 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""A decoded side is at most 62.5 times the anchor's: exp() of an untrained network's output must stay finite."""


@dataclass(frozen=True)
class BoxCoder:
    """R-CNN's box coder; the same numbers as ``torchvision.models.detection._utils.BoxCoder``.

    Attributes:
        weights: (wx, wy, ww, wh). SSD and the second stage of Faster R-CNN use (10, 10, 5, 5), a region proposal network ones.
        clip: largest ``log(w / wa)`` that :meth:`decode` lets through.
    """

    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    clip: float = MAX_LOG_SCALE

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Targets (..., 4) of ``boxes`` (..., 4) relative to ``anchors`` (..., 4); leading dimensions broadcast.

        Sides must be positive: an empty box has no logarithm.
        """
        wx, wy, ww, wh = self.weights
        xa, ya, wa, ha = _center_size(anchors)
        x, y, w, h = _center_size(boxes)
        return torch.stack((wx * (x - xa) / wa, wy * (y - ya) / ha, ww * torch.log(w / wa), wh * torch.log(h / ha)), dim=-1)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 4) of ``deltas`` (..., 4) on ``anchors`` (..., 4): the inverse of :meth:`encode`. Not clipped to the image."""
        wx, wy, ww, wh = self.weights
        xa, ya, wa, ha = _center_size(anchors.to(deltas.dtype))
        tx, ty, tw, th = deltas.unbind(-1)
        x, y = tx / wx * wa + xa, ty / wy * ha + ya
        w, h = torch.exp((tw / ww).clamp(max=self.clip)) * wa, torch.exp((th / wh).clamp(max=self.clip)) * ha
        return torch.stack((x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h), dim=-1)


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x, centre y, width, height of XYXY boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h
