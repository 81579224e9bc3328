"""Overlap of boxes: IoU, GIoU, DIoU and CIoU, for all pairs and pair by pair.

Boxes are XYXY in pixels, from edge to edge: (3, y, 4, y + 1) is one pixel. With intersection ``I``, union ``U``, smallest
enclosing box ``C``, centre distance ``d``, diagonal ``c`` of ``C``, and sides ``w, h``::

    IoU  = I / U
    GIoU = IoU - (|C| - U) / |C|                                    Rezatofighi et al. 2019, arXiv 1902.09630, eq. in alg. 1
    DIoU = IoU - d^2 / c^2                                          Zheng et al. 2020, arXiv 1911.08287, eq. 6
    CIoU = DIoU - a v,  v = 4 / pi^2 (atan(w1/h1) - atan(w2/h2))^2,  a = v / (1 - IoU + v)     ibid., eq. 8 to 11

``a`` is taken as a constant by the gradient, as the paper asks. The kernels are torchvision's.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torchvision import ops

Overlap = Literal["iou", "giou", "diou", "ciou"]

_PAIRWISE = {
    "iou": ops.box_iou,
    "giou": ops.generalized_box_iou,
    "diou": ops.distance_box_iou,
    "ciou": ops.complete_box_iou,
}
_PAIRED_LOSS = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
}


def pairwise_iou(boxes1: Tensor, boxes2: Tensor, kind: Overlap = "iou") -> Tensor:
    """(N, M) overlaps of all pairs of (N, 4) and (M, 4) boxes. Two boxes without area overlap by 0, not by 0/0."""
    return _PAIRWISE[kind](boxes1, boxes2).nan_to_num(nan=0.0)


def paired_iou(boxes1: Tensor, boxes2: Tensor, kind: Overlap = "iou") -> Tensor:
    """Row by row: (N,) overlaps of (N, 4) with (N, 4) boxes. One minus it is the IoU, GIoU, DIoU or CIoU loss.

    Differentiable; 1e-7 in the denominators keeps boxes without area finite.
    """
    if kind != "iou":
        return 1 - _PAIRED_LOSS[kind](boxes1, boxes2)
    (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes1.unbind(-1), boxes2.unbind(-1)
    inter = (x2.minimum(u2) - x1.maximum(u1)).clamp_min(0) * (y2.minimum(v2) - y1.maximum(v1)).clamp_min(0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter
    return inter / (union + 1e-7)
