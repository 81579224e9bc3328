"""What all networks for classification share: a paper's file gives ``raw`` (logits) and a ``preprocess``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.losses.class_weights import balanced
from saccade.models.base import Images, Model
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Classification, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target


class Classifier(Model):
    """One class an image: ``raw`` gives logits (N, K).

    Attributes:
        class_counts: images by class of the training data (:meth:`count_classes`); what ``recipe.class_weights`` weighs by.
        class_weights: (K,) weights of the cross entropy, or None. label_smoothing: of the cross entropy.
    """

    task = "classify"
    loss_names: ClassVar[tuple[str, ...]] = ("ce",)
    class_weights: Tensor | None

    def __init__(self, num_classes: int, preprocess: Preprocess) -> None:
        super().__init__(num_classes)
        self.preprocess = preprocess
        self.class_counts: Sequence[float] | None = None
        self.label_smoothing = 0.0
        self.register_buffer("class_weights", None, persistent=False)

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        raise NotImplementedError

    def decode(
        self, raw: Tensor, geometries: Sequence[Geometry], *, score: float = 0.0, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Softmax of the logits (the detection settings do not apply)."""
        scores = raw.float().softmax(1).cpu().numpy()
        return [Classification(scores=row) for row, _ in zip(scores, geometries, strict=True)]

    def count_classes(self, data: Dataset) -> None:
        """Set ``class_counts`` from the training data; called before :meth:`configure` where the recipe has ``class_weights``."""
        self.class_counts = data.class_counts().tolist()

    def configure(self, recipe: Recipe) -> None:
        """Loss, label smoothing and class weights (inverse frequency of ``class_counts``) of the recipe."""
        super().configure(recipe)
        if not 0 <= recipe.label_smoothing < 1:
            raise UsageError(f"recipe.label_smoothing must be at least 0 and below 1, not {recipe.label_smoothing}")
        self.label_smoothing = recipe.label_smoothing
        self.class_weights = None
        if recipe.class_weights:
            if self.class_counts is None:
                raise UsageError("recipe.class_weights needs the images a class: call model.count_classes(data)")
            self.class_weights = balanced(self.class_counts).to(self.device)

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy with ``target["label"]``, or with ``target["label_probs"]`` (K,) where images were mixed."""
        return {"ce": self.cross_entropy(self.raw(images), targets)}

    def cross_entropy(self, logits: Tensor, targets: list[Target]) -> Tensor:
        """Mean over the batch of the weighted, smoothed cross entropy of logits (N, K)."""
        truth = self.truth(targets).to(logits.device)
        return F.cross_entropy(logits.float(), truth, weight=self.class_weights, label_smoothing=self.label_smoothing)

    def truth(self, targets: list[Target]) -> Tensor:
        """Labels (N,) int64; or (N, K) probabilities when any target has ``label_probs``."""
        if not any("label_probs" in target for target in targets):
            return torch.stack([torch.as_tensor(target["label"]) for target in targets])
        rows = [t["label_probs"] if "label_probs" in t else F.one_hot(torch.as_tensor(t["label"]), self.num_classes) for t in targets]
        return torch.stack([row.to(torch.float32) for row in rows])


def unpublished(name: str, pretrained: bool) -> None:
    """UsageError when weights are asked for that nobody publishes."""
    if pretrained:
        raise UsageError(f"no weights are published for {name}: leave pretrained off")
