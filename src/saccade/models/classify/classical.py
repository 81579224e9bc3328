"""What the classical classifiers share: features of the image (:mod:`saccade.features.base`), standardised, into a machine.

The machines are scikit-learn's. What they learn is kept as plain arrays in buffers, so that a bundle holds no pickle, and
predictions are computed from the arrays here; tests hold them against scikit-learn's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.features.base import FeatureExtractor, create_features
from saccade.features.pixels import in_threads
from saccade.losses.class_weights import balanced
from saccade.models.base import FittedModel, Images, Log
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Classification, Prediction
from saccade.types.recipe import Recipe

RECIPE = Recipe(epochs=1, batch_size=64, weight_decay=0.0)
"""Of it only ``batch_size`` (of evaluation) and ``class_weights`` apply: the machines are fitted."""

BATCH = 64
Held = tuple[np.ndarray, np.ndarray]  # features (n, D) and labels (n,)

LEAST = 1e-12
"""Probability in place of 0, so that logarithms are finite."""


class FeatureClassifier(FittedModel):
    """A machine on features. A subclass gives :meth:`learn` and :meth:`log_probabilities`.

    Buffers: ``present`` (P,) int64, the labels that the training images have, which the machine knows as 0..P-1; ``mean`` and ``std``
    (D,) of the training features where ``standardize``; the subclass's own; the features' own under ``features``.

    Attributes:
        features: the extractor. standardize: whether features are brought to mean 0 and deviation 1 first.
        class_weights: (K,) weights of the images by class, or None. calibrated: whether :meth:`learn` wants validation images.
    """

    task = "classify"
    calibrated: ClassVar[bool] = False
    fitted_buffers: ClassVar[tuple[str, ...]] = ("present", "mean", "std", "features.vocabulary", "features.idf")

    def __init__(self, num_classes: int, features: str, *, in_chans: int, pretrained: bool, standardize: bool | None) -> None:
        super().__init__(num_classes)
        if in_chans not in (1, 3):
            raise UsageError(f"model.in_chans is 1 or 3, not {in_chans}")
        self.features: FeatureExtractor = create_features(features, in_chans=in_chans, pretrained=pretrained)
        self.preprocess = Preprocess(**self.features.input, channels=in_chans, mean=(0.0,) * in_chans, std=(1.0,) * in_chans)
        self.standardize = self.features.standardize if standardize is None else standardize
        self.class_counts: Sequence[float] | None = None
        self.class_weights: Tensor | None = None
        self.present: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("present", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("std", torch.ones(0))

    # -- the machine, by the subclass -------------------------------------------------------------

    def learn(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, held: Held | None, seed: int) -> dict[str, float]:
        """Learn from features ``x`` (N, D) float32 of labels ``y`` (N,) 0..P-1, P > 1, images weighing ``weight`` (N,).

        Args:
            held: features and labels of validation images, where there are any and ``calibrated`` says that they are wanted.

        Returns:
            Numbers for the log.
        """
        raise NotImplementedError

    def log_probabilities(self, x: Tensor) -> Tensor:
        """Features (N, D) float32 to (N, P)."""
        raise NotImplementedError

    # -- prediction -------------------------------------------------------------------------------

    @torch.no_grad()
    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) or a list of (C, H, W), 0..1, to logits (N, K): logarithms of probabilities."""
        if not len(self.present):
            raise UsageError(f"{self.build_name or type(self).__name__} has learned nothing yet: fit it to data first")
        device = self.present.device
        x = torch.from_numpy(self.features([_bytes(image) for image in images])).to(device)
        out = torch.full((len(x), self.num_classes), LEAST, device=device).log()
        known = self.log_probabilities(self._standard(x)) if len(self.present) > 1 else torch.zeros(len(x), 1, device=device)
        out[:, self.present] = known.to(out).clamp_min(out[0, 0])
        return out

    def decode(
        self, raw: Tensor, geometries: Sequence[Geometry], *, score: float = 0.0, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Softmax of the logits (the detection settings do not apply)."""
        scores = raw.float().softmax(1).cpu().numpy()
        return [Classification(scores=row) for row, _ in zip(scores, geometries, strict=True)]

    def _standard(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std if self.standardize else x

    # -- learning ---------------------------------------------------------------------------------

    def count_classes(self, data: Dataset) -> None:
        """Set ``class_counts`` from the training data; called before :meth:`configure` where the recipe has ``class_weights``."""
        self.class_counts = data.class_counts().tolist()

    def configure(self, recipe: Recipe) -> None:
        """Class weights (inverse frequency of ``class_counts``) of the recipe."""
        super().configure(recipe)
        self.class_weights = None
        if recipe.class_weights:
            if self.class_counts is None:
                raise UsageError("recipe.class_weights needs the images a class: call model.count_classes(data)")
            self.class_weights = balanced(self.class_counts)

    @torch.no_grad()
    def fit(self, dataset: Dataset, *, validation: Dataset | None = None, seed: int = 0, log: Log | None = None) -> None:
        """Features of all images, their mean and deviation, the machine.

        Images that cannot be read are counted and skipped.

        Raises:
            DataError: none of the images can be read or has a class.
            UsageError: an option does not go with so few images.
        """
        log = log or (lambda name, values: None)
        began = time.perf_counter()
        self.features.fit(lambda: (images for images, _ in self._batches(dataset)), seed=seed)
        x, labels = self.extract(dataset)
        if not len(x):
            raise DataError(dataset.index.root, "has no image that can be read and has a class")
        seconds = time.perf_counter() - began
        log("features", {"images": len(x), "skipped": len(dataset) - len(x), "values": x.shape[1], "seconds": seconds})
        began = time.perf_counter()
        device = self.present.device
        present, y = np.unique(labels, return_inverse=True)
        if self.standardize:
            mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
            self.mean = torch.from_numpy(mean).float().to(device)
            self.std = torch.from_numpy(np.where(std > 1e-8, std, 1.0)).float().to(device)
        self.present = torch.from_numpy(present).to(device)
        if len(present) == 1:
            log("machine", {"classes": 1})
            return
        x = self._standard(torch.from_numpy(x).to(device)).cpu().numpy()
        weight = np.ones(len(x)) if self.class_weights is None else self.class_weights.double().cpu().numpy()[labels]
        values = {"classes": float(len(present))}
        held = self._held(validation) if self.calibrated and validation is not None else None
        values |= self.learn(x, y, weight, held, seed)
        log("machine", values | {"seconds": time.perf_counter() - began})

    def extract(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, D) float32 and labels (N,) int64 of all images that can be read and have a class; not standardised."""
        parts, labels = [np.zeros((0, 0), np.float32)], [np.zeros(0, np.int64)]
        for images, truth in self._batches(dataset):
            parts.append(self.features(images))
            labels.append(np.array(truth, np.int64))
        return np.concatenate(parts[1:] or parts), np.concatenate(labels)

    def _batches(self, dataset: Dataset) -> Iterator[tuple[list[Tensor], list[int]]]:
        """Preprocessed (C, H, W) uint8 images and their labels, decoded on all cores."""

        def load(i: int) -> tuple[Tensor, int] | None:
            try:
                sample = dataset[i]
            except DataError:
                return None
            label = sample.target.get("label")
            return None if label is None else (_bytes(self.preprocess(sample)[0]), int(label))

        for start in range(0, len(dataset), BATCH):
            items = in_threads(load, range(start, min(start + BATCH, len(dataset))))
            if good := [item for item in items if item is not None]:
                yield [image for image, _ in good], [label for _, label in good]

    def _held(self, validation: Dataset) -> Held | None:
        """Standardised features and labels 0..P-1 of the validation images of a class that is present; None where there are none."""
        x, labels = self.extract(validation)
        present = self.present.cpu().numpy()
        known = np.isin(labels, present)
        if not known.any():
            return None
        return self._standard(torch.from_numpy(x[known]).to(self.present.device)).cpu().numpy(), np.searchsorted(present, labels[known])


class MarginClassifier(FeatureClassifier):
    """A machine that gives decisions rather than probabilities: ``softmax(scale * decisions)`` are its scores.

    The one number ``scale`` (a buffer) is fitted by maximum likelihood (:func:`fit_scale`) to the validation images; without them, to
    a fifth of each class's training images, which a first machine has not seen. It does not change which class is the best. With too
    few images for that it is 1.
    """

    calibrated = True

    def __init__(self, num_classes: int, features: str, *, in_chans: int, pretrained: bool, standardize: bool | None) -> None:
        super().__init__(num_classes, features, in_chans=in_chans, pretrained=pretrained, standardize=standardize)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def fit_machine(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int) -> dict[str, float]:
        """Set the machine's buffers; arguments and value as in :meth:`learn`."""
        raise NotImplementedError

    def decisions(self, x: Tensor) -> Tensor:
        """Features (N, D) float32 to (N, P) float64, larger for likelier classes."""
        raise NotImplementedError

    def learn(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, held: Held | None, seed: int) -> dict[str, float]:
        """Fit the machine, then its scale."""
        scale = None
        if held is None:
            apart = a_fifth(y, seed)
            if apart.any():
                self.fit_machine(x[~apart], y[~apart], weight[~apart], seed)
                scale = fit_scale(self._decide(x[apart]), y[apart])
        values = self.fit_machine(x, y, weight, seed)
        if held is not None:
            scale = fit_scale(self._decide(held[0]), held[1])
        self.scale.fill_(1.0 if scale is None else scale)
        return values | {"scale": float(self.scale)}

    def _decide(self, x: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(x).to(self.present.device).split(256)
        return torch.cat([self.decisions(part) for part in parts]).cpu().numpy()

    def log_probabilities(self, x: Tensor) -> Tensor:
        """(N, P) float64."""
        return torch.log_softmax(self.scale * self.decisions(x), 1)


def two_columns(decisions: Tensor) -> Tensor:
    """(N, 1) decisions between two classes, positive for the second, as (N, 2): 0 and the decision."""
    return torch.cat([torch.zeros_like(decisions), decisions], 1)


def a_fifth(y: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: a random fifth of the images of each class, rounded down.

    >>> a_fifth(np.array([0] * 10 + [1] * 4), seed=0).sum()
    np.int64(2)
    """
    rng, out = np.random.default_rng(seed), np.zeros(len(y), bool)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        out[rng.permutation(own)[: len(own) // 5]] = True
    return out


def _bytes(image: Tensor) -> Tensor:
    """(C, H, W) uint8 of an image in 0..1."""
    return image.cpu().mul(255).round().clamp(0, 255).to(torch.uint8)


def fit_scale(decisions: np.ndarray, y: np.ndarray) -> float:
    """The factor a > 0 for which ``softmax(a decisions)`` are the most likely probabilities: Platt's sigmoid for many classes.

    The order of the classes is kept, so the label is the machine's own. The true class's target is (n + 1) / (n + 2), as Platt (1999)
    has it, and its best rival's the rest, so that a is finite where every decision is right.

    Args:
        decisions: (n, P) float64 of images that the machine has not learned from, larger for likelier classes. y: (n,) 0..P-1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    count, classes = decisions.shape
    spread = float(np.abs(decisions - decisions.mean(1, keepdims=True)).mean())
    if not count or classes < 2 or spread < 1e-12:
        return 1.0
    every, others = np.arange(count), decisions.copy()
    others[every, y] = -np.inf
    mean = (decisions[every, y] * (count + 1) + others.max(1)) / (count + 2)

    def loss(log_a: float) -> float:
        a = float(np.exp(log_a))
        return float((logsumexp(a * decisions, axis=1) - a * mean).mean())

    middle = -np.log(spread)
    return float(np.exp(minimize_scalar(loss, bounds=(middle - 7, middle + 7), method="bounded").x))
