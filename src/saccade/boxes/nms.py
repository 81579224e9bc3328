"""Non-maximum suppression, and the post-processing that dense detectors share. The kernel is torchvision's."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import ops


def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Greedy suppression within each class: the best box removes those of its class that overlap it by more than ``iou``.

    Args:
        boxes: (N, 4) XYXY; scores: (N,); labels: (N,) int64.

    Returns:
        (M,) int64 indices of the kept boxes, best first.
    """
    # in float32: the CPU kernel refuses bfloat16, and half precision merges neighbours of large images
    return ops.batched_nms(boxes.float(), scores.float(), labels, iou)


def select(
    boxes: Tensor, scores: Tensor, *, score: float, iou: float, max_detections: int, candidates: int = 400, agnostic: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Dense outputs of one image to detections: threshold, best candidates of each class, class-wise NMS, cap.

    Args:
        boxes: (A, 4) XYXY, one a location, or (A, K, 4), one a location and class.
        scores: (A, K) without background.
        score: kept are scores strictly above it.
        iou: NMS threshold.
        max_detections: cap an image.
        candidates: locations a class that enter NMS.
        agnostic: suppress across classes.

    Returns:
        boxes (M, 4), scores (M,), labels (M,), best first.
    """
    passed = scores > score
    crowded = (passed.sum(0) > candidates).nonzero()[:, 0]
    passed[:, crowded] = False
    label, picked = passed.T.nonzero(as_tuple=True)
    if len(crowded):  # only these classes need an order, which takes most of the time
        best, index = scores.T[crowded].topk(candidates, dim=1)
        row, rank = (best > score).nonzero(as_tuple=True)
        label, order = torch.cat([label, crowded[row]]).sort(stable=True)
        picked = torch.cat([picked, index[row, rank]])[order]
    kept = scores[picked, label]
    found = boxes[picked] if boxes.ndim == 2 else boxes[picked, label]
    keep = class_nms(found, kept, torch.zeros_like(label) if agnostic else label, iou)[:max_detections]
    return found[keep], kept[keep], label[keep]
