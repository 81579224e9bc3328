"""What all networks for semantic segmentation share: a paper's file gives ``network`` and a ``preprocess``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.layers.tiling import mirror_pad, tile_predict
from saccade.losses.class_weights import balanced
from saccade.losses.segmentation import SPECS, segmentation_loss
from saccade.models.base import Images, Model
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Prediction, Segmentation
from saccade.types.recipe import Recipe
from saccade.types.sample import IGNORE, Target


class Segmenter(Model):
    """A class for every pixel: ``raw`` gives logits (N, K, H, W) at the size of the input.

    ``recipe.loss`` is any sum of :data:`saccade.losses.segmentation.TERMS`, such as "ce+dice".

    Attributes:
        tile: side of an output tile; larger inputs are predicted tile by tile, in bounded memory. 0: always in one piece.
        margin: context of a tile on each side. tile_align: spacing of tiles is a multiple of this (the network's stride).
        class_counts: pixels by class of the training data (:meth:`count_classes`); what ``recipe.class_weights`` weighs by.
        keep_scores: predictions carry the probabilities (K, H, W) too.
    """

    task = "segment"
    loss_names: ClassVar[tuple[str, ...]] = SPECS
    tile: int = 0
    margin: int = 0
    tile_align: int = 1
    keep_scores: bool = False

    def __init__(self, num_classes: int, preprocess: Preprocess) -> None:
        super().__init__(num_classes)
        self.preprocess = preprocess
        self.class_counts: Sequence[float] | None = None
        self.set_loss(self.loss_name)

    def network(self, images: Tensor) -> Tensor:
        """(N, C, H, W) of any size to logits (N, K, H, W)."""
        raise NotImplementedError

    def raw(self, images: Images) -> Any:
        """Logits (N, K, H, W); for a list of images of several sizes, a list of (K, H, W)."""
        if isinstance(images, Tensor):
            return self.network(images)
        stacked, sizes = _stack(images)
        return [logits[:, :h, :w] for logits, (h, w) in zip(self.network(stacked), sizes, strict=True)]

    def decode(
        self, raw: Any, geometries: Sequence[Geometry], *, score: float = 0.0, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """The most probable class of every original pixel (the detection settings do not apply)."""
        return [self.segmentation(logits, geometry) for logits, geometry in zip(raw, geometries, strict=True)]

    def segmentation(self, logits: Tensor, geometry: Geometry) -> Segmentation:
        """Logits (K, h, w) over the whole canvas to a class map in original pixels."""
        maps = geometry.maps_to_original(logits.float())
        scores = maps.softmax(0).half().cpu().numpy() if self.keep_scores else None
        labels = maps.max(0).indices  # on a CPU argmax takes nine times as long
        return Segmentation(mask=_class_map(labels, self.num_classes), scores=scores)

    def predict_batch(self, images: Images, geometries: Sequence[Geometry], **settings: Any) -> list[Prediction]:
        """As the base; inputs larger than ``tile`` go through it tile by tile."""
        if not self.tile or max(side for image in images for side in image.shape[-2:]) <= self.tile + 2 * self.margin:
            return super().predict_batch(images, geometries, **settings)
        out: list[Prediction] = []
        for image, geometry in zip(images, geometries, strict=True):
            if self.keep_scores or geometry.original != geometry.canvas:
                prediction = self.segmentation(self.tiled(image), geometry)
            else:  # nothing to resize: only the class map of a tile is kept, never all logits
                labels = self.tiled(image, argmax=True)[0]
                prediction = Segmentation(mask=_class_map(labels, self.num_classes))
            prediction.classes, prediction.size = self.classes, geometry.original
            out.append(prediction)
        return out

    def tiled(self, image: Tensor, *, argmax: bool = False, batch: int = 1) -> Tensor:
        """Logits (K, H, W) of one preprocessed image (C, H, W) by tiles; with ``argmax`` the labels (1, H, W), int32."""

        def function(windows: Tensor) -> Tensor:
            logits = self.tile_network(windows.to(self.device))
            return logits.max(1, keepdim=True).indices.int() if argmax else logits

        return tile_predict(function, image, tile=self.tile, margin=self.margin, batch=batch, align=self.tile_align)

    def tile_network(self, windows: Tensor) -> Tensor:
        """Network on the windows of :meth:`tiled`: logits of the whole window, or of its centre only."""
        return self.network(windows)

    def count_classes(self, data: Dataset, images: int = 500) -> None:
        """Set ``class_counts`` from masks of the training data, of at most so many images, evenly spaced; broken files are left out.

        Called before :meth:`configure` where the recipe has ``class_weights``.
        """
        counts = np.zeros(self.num_classes, dtype=np.int64)
        for i in np.unique(np.linspace(0, len(data) - 1, min(images, len(data))).astype(int)):
            with contextlib.suppress(DataError):
                mask = np.asarray(data[int(i)].target["mask"])
                counts += np.bincount(mask[mask >= 0], minlength=self.num_classes)
        self.class_counts = counts.tolist()

    def configure(self, recipe: Recipe) -> None:
        """Loss, label smoothing and class weights (inverse frequency of ``class_counts``) of the recipe."""
        weights = None
        if recipe.class_weights:
            if self.class_counts is None:
                raise UsageError("recipe.class_weights needs the pixels a class: call model.count_classes(data)")
            weights = balanced(self.class_counts)
        self.set_loss(recipe.loss or self.loss_name, weights, recipe.label_smoothing)

    def set_loss(self, name: str, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        """Choose a loss by its spec; ``class_weights`` (K,), ``label_smoothing`` for its cross entropy."""
        smoothing = label_smoothing if "ce" in name.split("+") else 0.0
        self.criterion = segmentation_loss(name, self.num_classes, class_weights, smoothing)
        self.loss_name = name

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """The terms of the chosen loss over all pixels of the batch that have a class."""
        stacked, _ = _stack(images)
        masks = stack_masks(targets, stacked.shape[2:]).to(stacked.device)
        return self.criterion(self.network(stacked), masks)


def stack_masks(targets: list[Target], size: Sequence[int]) -> Tensor:
    """(N, *size) int64 of the targets' masks, -100 beyond a smaller one."""
    masks = [target["mask"].as_subclass(Tensor) for target in targets]
    if all(mask.shape == torch.Size(size) for mask in masks):
        return torch.stack(masks)
    out = masks[0].new_full((len(masks), *size), IGNORE)
    for row, mask in zip(out, masks, strict=True):
        row[tuple(slice(0, side) for side in mask.shape)] = mask
    return out


def _stack(images: Images) -> tuple[Tensor, list[tuple[int, int]]]:
    """One tensor of the largest height and width, smaller images mirrored on the right and below; and their sizes."""
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    if isinstance(images, Tensor):
        return images, sizes
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    padded = [mirror_pad(image[None], (0, 0), (height - h, width - w)) for image, (h, w) in zip(images, sizes, strict=True)]
    return torch.cat(padded), sizes


def _class_map(labels: Tensor, num_classes: int) -> np.ndarray:
    return labels.to(torch.uint8 if num_classes <= 256 else torch.int32).cpu().numpy()
