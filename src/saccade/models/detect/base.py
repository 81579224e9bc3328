"""What detectors tell of how they learn: which of their boxes take which object (:class:`Assignment`), and where their boxes are
(:class:`Priors`). ``saccade check`` draws and counts both; a detector without priors leaves the methods alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.models.base import Images, Model
from saccade.types.sample import Target

BACKGROUND = -1
"""Value of :attr:`Assignment.truth` of a box that learns the background."""


@dataclass(frozen=True)
class Assignment:
    """Boxes of one image that learn, and what; all in network pixels.

    Attributes:
        name: what the boxes are: "priors", "anchors", "regions".
        boxes: (M, 4) XYXY.
        truth: (M,) int64 index into ``objects``, or ``BACKGROUND``.
        objects: (G, 4) boxes that can be learnt: without crowds and boxes without area.
        labels: (G,) int64, 0..K-1.
    """

    name: str
    boxes: Tensor
    truth: Tensor
    objects: Tensor
    labels: Tensor

    def counts(self) -> Tensor:
        """(G,) int64: how many boxes learn each object."""
        return self.truth[self.truth != BACKGROUND].bincount(minlength=len(self.objects))


@dataclass(frozen=True)
class Priors:
    """Boxes that a detector starts from, for one size of its input.

    Attributes:
        boxes: (A, 4) XYXY network pixels.
        threshold: IoU from which a prior takes an object. None: the overlap does not matter, its centre must lie in the object.
        stride: distance of the finest map's cells in pixels.
    """

    boxes: Tensor
    threshold: float | None
    stride: float


class Detector(Model):
    """Base of detectors. Optional for a subclass: :meth:`assignments`, :meth:`prior_boxes`."""

    task = "detect"

    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """For each image of a preprocessed batch what its boxes learn, one item a stage of the detector.

        Without gradient; in eval mode no random choice and no buffer is touched.
        """
        return [() for _ in targets]

    def prior_boxes(self, size: tuple[int, int]) -> Priors | None:
        """Priors for an input of ``size`` (H, W); None where the detector has none."""
        return None


def truths(target: Target, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4) and labels (N,) to learn, and boxes (M, 4) of crowds, on the device of ``like``; boxes without area are left out."""
    boxes = target["boxes"].as_subclass(Tensor).to(like)
    labels = target["labels"].to(like.device)
    crowd = target["iscrowd"].to(like.device) if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    whole = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return boxes[whole & ~crowd], labels[whole & ~crowd], boxes[whole & crowd]
