"""What all networks for classification share: a paper's file gives ``raw`` (logits) and a ``preprocess``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.losses.class_weights import balanced
from saccade.models.base import Images, Model
from saccade.types.errors import UsageError, suggest
from saccade.types.geometry import Geometry
from saccade.types.prediction import Classification, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {"hflip": lambda images: images.flip(-1), "vflip": lambda images: images.flip(-2)}
"""Test-time views of (..., H, W) images."""


class Classifier(Model):
    """One class an image: ``raw`` gives logits (N, K).

    Attributes:
        class_counts: images by class of the training data (:meth:`count_classes`); what ``recipe.class_weights`` weighs by.
        class_weights: (K,) weights of the cross entropy, or None. label_smoothing: of the cross entropy.
        temperature: what the logits are divided by before the softmax of a prediction (:mod:`saccade.metrics.temperature`).
        views: names of :data:`VIEWS` besides the image itself; predictions are the mean of the probabilities over all.
    """

    task = "classify"
    loss_names: ClassVar[tuple[str, ...]] = ("ce",)
    class_weights: Tensor | None

    def __init__(self, num_classes: int, preprocess: Preprocess) -> None:
        super().__init__(num_classes)
        self.preprocess = preprocess
        self.class_counts: Sequence[float] | None = None
        self.label_smoothing = 0.0
        self.temperature = 1.0
        self.views: tuple[str, ...] = ()
        self.register_buffer("class_weights", None, persistent=False)

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        raise NotImplementedError

    def decode(
        self, raw: Tensor, geometries: Sequence[Geometry], *, score: float = 0.0, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Softmax of the logits over ``temperature`` (the detection settings do not apply)."""
        scores = (raw.float() / self.temperature).softmax(1).cpu().numpy()
        return [Classification(scores=row) for row, _ in zip(scores, geometries, strict=True)]

    def predict_batch(self, images: Images, geometries: Sequence[Geometry], **settings: Any) -> list[Prediction]:
        """As every model's; with ``views`` the mean of the probabilities over them and the image itself."""
        out = self.predict_view(images, geometries, **settings)
        for name in self.views:
            view = VIEWS[name]
            seen = view(images) if isinstance(images, Tensor) else [view(image) for image in images]
            for whole, part in zip(out, self.predict_view(seen, geometries, **settings), strict=True):
                whole.scores = whole.scores + part.scores  # type: ignore[attr-defined]
        for prediction in out if self.views else ():
            prediction.scores = prediction.scores / (1 + len(self.views))  # type: ignore[attr-defined]
        return out

    def predict_view(self, images: Images, geometries: Sequence[Geometry], **settings: Any) -> list[Prediction]:
        """Predictions of the images as they are; override for another evaluation than ``raw`` and ``decode``."""
        return super().predict_batch(images, geometries, **settings)

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

    @property
    def plain_losses(self) -> bool:
        """Whether the losses are the cross entropy of ``raw`` and nothing else: then features of a frozen network can be kept."""
        return type(self).losses is Classifier.losses

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


def with_views(model: Model, names: Sequence[str]) -> Model:
    """The model, predicting from several views of each image (:data:`VIEWS`); it shares all layers with the one given.

    Raises:
        UsageError: an unknown view, or a model that is no network for classification.
    """
    for name in names:
        if name not in VIEWS:
            raise UsageError(f"no test-time view {name!r}{suggest(name, VIEWS)}")
    if not names:
        return model
    if not isinstance(model, Classifier):
        raise UsageError(f"test-time views are for networks that classify, not for {model.build_name or type(model).__name__}")
    seeing = copy.copy(model)
    seeing.views = tuple(dict.fromkeys(names))
    return seeing


def unpublished(name: str, pretrained: bool) -> None:
    """UsageError when weights are asked for that nobody publishes."""
    if pretrained:
        raise UsageError(f"no weights are published for {name}: leave pretrained off")
