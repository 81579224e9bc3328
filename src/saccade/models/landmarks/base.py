"""What all networks for landmarks share: a paper's file gives ``raw`` (coordinates) and a ``preprocess``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.transforms.preprocess import Preprocess
from saccade.losses.wing import wing_loss
from saccade.models.base import Images, Model
from saccade.types.errors import UsageError, suggest
from saccade.types.geometry import Geometry
from saccade.types.prediction import Landmarks, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "wing": wing_loss,
    "l1": torch.abs,
    "l2": torch.square,
    "smooth_l1": lambda errors: F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none"),
}
"""Loss of each coordinate's error in network pixels."""


class LandmarkModel(Model):
    """One set of K points an image: ``raw`` gives (N, K, 2) xy as fractions of the input's sides.

    The points are the model's classes: ``num_classes`` is K, ``classes`` their names. A point of visibility 0 (not labelled, or out of the
    image) is not learnt; one of visibility 1 (hidden, but its place is known) is.

    Attributes:
        between: "NAME,NAME": two points whose distance predictions are measured by too (:class:`saccade.metrics.landmarks.LandmarkMetric`).
    """

    task = "landmarks"
    loss_names: ClassVar[tuple[str, ...]] = tuple(LOSSES)

    def __init__(self, num_classes: int, preprocess: Preprocess, between: str = "") -> None:
        super().__init__(num_classes)
        self.preprocess, self.between = preprocess, between

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) to (N, K, 2)."""
        raise NotImplementedError

    def configure(self, recipe: Recipe) -> None:
        """As the base; ``between`` must name points of the data."""
        super().configure(recipe)
        self.measure()

    def measure(self) -> tuple[int, int] | None:
        """Labels of the two points of ``between``.

        Raises:
            UsageError: not two names of points.
        """
        if not self.between:
            return None
        names = [name.strip() for name in self.between.split(",")]
        for name in names:
            if name not in self.classes:
                raise UsageError(f"model.between={self.between}: no point {name!r}{suggest(name, self.classes)}")
        if len(names) != 2 or names[0] == names[1]:
            raise UsageError(f"model.between={self.between}: name two points, as model.between=left_eye,right_eye")
        return self.classes.index(names[0]), self.classes.index(names[1])

    def decode(
        self, raw: Tensor, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Points in original pixels, which may lie outside the image (the detection settings do not apply)."""
        between = self.measure()
        out: list[Prediction] = []
        for points, geometry in zip(raw.float(), geometries, strict=True):
            height, width = geometry.canvas
            xy = geometry.points_to_original(points * points.new_tensor([width, height]))
            out.append(Landmarks(points=xy.cpu().numpy(), between=between))
        return out

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """The chosen loss, a mean over the coordinates of the labelled points of the batch; errors are in network pixels."""
        raw = self.raw(images).float()
        points, known = self.truth(targets, self.num_classes)
        size = raw.new_tensor([images[0].shape[-1], images[0].shape[-2]])
        errors = raw * size - points.to(raw)
        weight = known.to(raw)[..., None].expand_as(errors)
        return {self.loss_name: (LOSSES[self.loss_name](errors) * weight).sum() / weight.sum().clamp_min(1)}

    @staticmethod
    def truth(targets: list[Target], count: int) -> tuple[Tensor, Tensor]:
        """Points (N, K, 2) in network pixels and whether each is labelled (N, K); an image without an object has none that is."""
        points, known = torch.zeros(len(targets), count, 2), torch.zeros(len(targets), count, dtype=torch.bool)
        for i, target in enumerate(targets):
            if len(target["keypoints"]):
                points[i] = target["keypoints"][0].as_subclass(Tensor).cpu()
                known[i] = target["visibility"][0].cpu() > 0
        return points, known
