"""Non-maximum suppression, and the post-processing that dense detectors share. The kernel is torchvision's."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import ops

DUPLICATES = 30
"""Boxes that may lie on one object before suppression: YOLOv5 teaches up to 27 to find it (three cells, priors and levels)."""

FARTHEST = 20_000.0
"""Pixels beyond which the overlap of boxes is not told apart."""


def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Greedy suppression within each class: the best box removes those of its class that overlap it by more than ``iou``.

    Args:
        boxes: (N, 4) XYXY in pixels of a network's input; scores: (N,); labels: (N,) int64.

    Returns:
        (M,) int64 indices of the kept boxes, best first.
    """
    # in float32: the CPU kernel refuses bfloat16, and half precision merges neighbours of large images; and classes are moved aside by the
    # largest coordinate, beside which those of the others must still have digits
    return ops.batched_nms(boxes.float().clamp(-FARTHEST, FARTHEST), scores.float(), labels, iou)


def select(
    boxes: Tensor,
    scores: Tensor,
    *,
    score: float,
    iou: float,
    max_detections: int,
    candidates: int | None = 400,
    most: int | None = None,
    agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Dense outputs of one image to detections: threshold, best candidates of each class, class-wise NMS, cap.

    Args:
        boxes: (A, 4) XYXY, one a location, or (A, K, 4), one a location and class.
        scores: (A, K) without background.
        score: kept are scores strictly above it.
        iou: NMS threshold.
        max_detections: cap an image.
        candidates: locations a class that enter NMS; None: any number.
        most: the same of all classes together. The boxes on one object must not crowd out the next: see :data:`DUPLICATES`.
        agnostic: suppress across classes.

    Returns:
        boxes (M, 4), scores (M,), labels (M,), best first.
    """
    passed = scores > score
    candidates = len(scores) if candidates is None else candidates
    crowded = (passed.sum(0) > candidates).nonzero()[:, 0]
    passed[:, crowded] = False
    label, picked = passed.T.nonzero(as_tuple=True)
    if len(crowded):  # only these classes need an order, which takes most of the time
        best, index = scores.T[crowded].topk(candidates, dim=1)
        row, rank = (best > score).nonzero(as_tuple=True)
        label, order = torch.cat([label, crowded[row]]).sort(stable=True)
        picked = torch.cat([picked, index[row, rank]])[order]
    kept = scores[picked, label]
    if most is not None and len(kept) > most:
        kept, order = kept.topk(most)
        label, picked = label[order], picked[order]
    found = boxes[picked] if boxes.ndim == 2 else boxes[picked, label]
    keep = class_nms(found, kept, torch.zeros_like(label) if agnostic else label, iou)[:max_detections]
    return found[keep], kept[keep], label[keep]
