"""What detectors tell of how they learn: which of their boxes take which object (:class:`Assignment`), and where their boxes are
(:class:`Priors`). ``saccade check`` draws and counts both; a detector without priors leaves the methods alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
    learns_labels: ClassVar[bool] = False
    """Whether images with a label and no boxes teach it too (:func:`saccade.data.mixed.mix`)."""

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


class Objects(NamedTuple):
    """The objects of a batch that can be learnt: T of them, image after image; all in network pixels.

    Attributes:
        boxes: (T, 4) XYXY. labels: (T,) int64. image: (T,) int64, the place in the batch. counts: of each image.
        padded, crowds: (N, G, 4) the objects and (N, C, 4) the crowds of each image, filled up with boxes of no area.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    counts: list[int]
    padded: Tensor
    crowds: Tensor

    @classmethod
    def of(cls, targets: Sequence[Target], like: Tensor) -> Objects:
        """From targets, on the device of ``like``."""
        boxes, labels, crowds = zip(*(truths(target, like) for target in targets), strict=True)
        counts = [len(one) for one in boxes]
        image = torch.arange(len(counts), device=like.device).repeat_interleave(torch.tensor(counts, device=like.device))
        padded, crowded = (pad_sequence(list(one), batch_first=True) for one in (boxes, crowds))
        return cls(torch.cat(boxes), torch.cat(labels), image, counts, padded, crowded)

    @property
    def centres(self) -> Tensor:
        """(T, 2) x and y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def sides(self) -> Tensor:
        """(T, 2) width and height."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    def assigned(self, name: str, boxes: Tensor, truth: Tensor) -> list[tuple[Assignment, ...]]:
        """By image what boxes (M, 4) called ``name`` learn: ``truth`` (M,) counts the objects of the whole batch."""
        out: list[tuple[Assignment, ...]] = []
        image, start = self.image[truth], 0
        for i, count in enumerate(self.counts):
            mine, own = image == i, slice(start, start + count)
            out.append((Assignment(name, boxes[mine], truth[mine] - start, self.boxes[own], self.labels[own]),))
            start += count
        return out
