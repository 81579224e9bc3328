"""Classification with localisation: whether there is an object, where the one box is, and of which class (2017).

Ng: Deep Learning Specialization, course 4, Convolutional Neural Networks, week 3, "Object Localization", 2017. Before it: the box
regression of OverFeat (Sermanet et al., 2013, arXiv 1312.6229, section 4) and of the single-object task of ImageNet.

The network gives ``y = (p_c, b_x, b_y, b_h, b_w, c_1, ..., c_K)``: p_c that there is an object, the centre and the sides of its box as
fractions of the image, and a class.

The loss of an image, with y the truth and y' the network's::

    L = BCE(p_c', p_c) + [p_c = 1] (lambda ((b_x' - b_x)^2 + (b_y' - b_y)^2 + (b_h' - b_h)^2 + (b_w' - b_w)^2) + CE(c', c))

so that nothing but p_c is learnt of an image without an object: :meth:`Localizer.losses`.

Deviations. lambda (``box_weight``) is 5, the lambda_coord of YOLO (arXiv 1506.02640, equation 3): squared fractions are small beside cross
entropies. ``recipe.loss=smooth_l1`` takes smooth L1 with its bend at 0.1 instead of squares. The course leaves the network open: ours is
a small plain one, or any of timm (``model.backbone``).

Data with several objects an image: the largest is the truth that is learnt. The metrics are those of all detectors and count the others
as missed.

Pinned by tests: the equation, term by term; that box and class have no gradient where p_c = 0; at most one box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess, for_channels
from saccade.layers.grid_vector import GridVector, coordinate_head
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import unpublished
from saccade.models.detect.base import Detector
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

Raw = dict[str, Tensor]
BEND = 0.1
"""Error, as a fraction of the image's side, at which smooth L1 goes from a square to a line."""


class Localizer(Detector):
    """At most one box an image: see the module's docstring and :func:`localizer`.

    ``raw`` gives ``object`` (N,) and ``logits`` (N, K) before sigmoid and softmax, and ``box`` (N, 4): b_x, b_y, b_h, b_w.
    """

    loss_names = ("squared", "smooth_l1")

    def __init__(self, num_classes: int, features: GridVector, hidden: int, preprocess: Preprocess, box_weight: float) -> None:
        super().__init__(num_classes)
        self.features, self.preprocess, self.box_weight = features, preprocess, box_weight
        self.box = coordinate_head(hidden, 4)
        self.output = torch.nn.Linear(hidden, 1 + num_classes)

    def raw(self, images: Images) -> Raw:
        """(N, C, size, size) to ``{"object": (N,), "box": (N, 4), "logits": (N, K)}``."""
        vector = self.features(images)
        scores = self.output(vector).float()
        return {"object": scores[:, 0], "box": self.box(vector).float(), "logits": scores[:, 1:]}

    def decode(
        self, raw: Raw, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """The box of the most probable class where p_c times its probability is at least ``score``; else none."""
        best, label = raw["logits"].softmax(1).max(1)
        value = best * raw["object"].sigmoid()
        out: list[Prediction] = []
        for box, one, k, geometry in zip(raw["box"], value, label, geometries, strict=True):
            height, width = geometry.canvas
            x, y, tall, wide = box.unbind()
            half = torch.stack([wide, tall]).clamp_min(0) / 2
            centre = torch.stack([x, y])
            corners = torch.cat([centre - half, centre + half]) * box.new_tensor([width, height, width, height])
            found = geometry.boxes_to_original(corners[None])
            keep = (one >= score)[None]
            out.append(Detection(boxes=found[keep].cpu().numpy(), labels=k[None][keep].cpu().numpy(), scores=one[None][keep].cpu().numpy()))
        return out

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """``object``, ``box`` and ``class``: the terms of the equation, each a mean over the batch."""
        raw = self.raw(images)
        there, boxes, labels = (part.to(raw["box"].device) for part in self.truth(targets, (images[0].shape[-2], images[0].shape[-1])))
        if self.loss_name == "squared":
            errors = (raw["box"] - boxes).square()
        else:
            errors = F.smooth_l1_loss(raw["box"], boxes, reduction="none", beta=BEND)
        return {
            "object": F.binary_cross_entropy_with_logits(raw["object"], there),
            "box": self.box_weight * (there * errors.sum(1)).mean(),
            "class": (there * F.cross_entropy(raw["logits"], labels, reduction="none")).mean(),
        }

    @staticmethod
    def truth(targets: list[Target], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """p_c (N,), box (N, 4) as b_x, b_y, b_h, b_w and label (N,) of each image's largest object; zeros where there is none.

        Crowds and boxes without area are no objects.
        """
        there, boxes, labels = torch.zeros(len(targets)), torch.zeros(len(targets), 4), torch.zeros(len(targets), dtype=torch.int64)
        height, width = size
        for i, target in enumerate(targets):
            given = target["boxes"].as_subclass(Tensor).cpu().float()
            area = (given[:, 2:] - given[:, :2]).clamp_min(0).prod(1) * ~target["iscrowd"].cpu()
            if len(area) and area.max() > 0:
                largest = int(area.argmax())
                x1, y1, x2, y2 = (given[largest] / given.new_tensor([width, height, width, height])).unbind()
                there[i], labels[i] = 1, target["labels"][largest].cpu()
                boxes[i] = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, y2 - y1, x2 - x1])
        return there, boxes, labels

    def notes(self, data: Dataset) -> list[str]:
        """That the largest object is the truth, where images have several."""
        counts = data.map_records(lambda record: 0 if record.boxes is None else len(record.boxes))
        several = sum(count > 1 for count in counts)
        if not several:
            return []
        return [f"{several} of {len(counts)} images have several objects: the largest is learnt, the metrics count the others as missed"]


def localizer(
    num_classes: int = 3,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 96,
    width: int = 24,
    hidden: int = 128,
    dropout: float = 0.0,
    backbone: str | None = None,
    pretrained_backbone: bool = False,
    box_weight: float = 5.0,
) -> Localizer:
    """One box an image, with its class.

    Args:
        num_classes: without background.
        in_chans: 1 or 3.
        pretrained: no weights are published; True is an error.
        size: side to which images are stretched, from 32.
        width: channels of the plain network's first stage. hidden: of the dense layer. dropout: before the outputs.
        backbone: a network of timm instead. pretrained_backbone: with its published weights.
        box_weight: lambda of the loss.
    """
    unpublished("localizer", pretrained)
    check_within(32, 4096, size=size)
    check_within(1, 4096, width=width, hidden=hidden)
    if not 0 <= box_weight < float("inf"):
        raise UsageError(f"model.box_weight={box_weight}: it is a number from 0")
    features = GridVector(in_chans, size, hidden, name=backbone, width=width, pretrained=pretrained_backbone, dropout=dropout)
    mean, std = for_channels(in_chans)
    preprocess = Preprocess(mode="stretch", size=(size, size), channels=in_chans, mean=mean, std=std)
    return Localizer(num_classes, features, hidden, preprocess, box_weight)


RECIPES = {
    "localizer": Recipe(
        epochs=40,
        batch_size=16,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.01,
        warmup=1.0,
        hflip=0.5,
        scale=0.15,
        translate=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    )
}
