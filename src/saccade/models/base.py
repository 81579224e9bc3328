"""Contract v1: what every model is and does. See docs/conventions.md for the reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from saccade.data.dataset import Dataset, as_tensor_image
from saccade.data.images import read_image
from saccade.data.transforms.preprocess import Preprocess
from saccade.models.transfer import apply_transfer
from saccade.types.errors import UsageError, suggest
from saccade.types.geometry import Geometry
from saccade.types.prediction import Prediction
from saccade.types.recipe import PREDICTION, DecodeSettings, Recipe
from saccade.types.sample import Sample, Target, collate

Images = Tensor | list[Tensor]

BATCH = 16
"""Images that ``predict`` gives to the network at once."""


class Model(nn.Module):
    """Base of all models.

    A subclass sets ``task`` and ``preprocess`` and gives ``raw`` and ``decode``; trainable ones give ``losses``.

    Attributes:
        task: "classify", "detect", "segment", "landmarks", "generate".
        num_classes: without background; labels are 0..num_classes-1. Of landmarks the points are the classes.
        classes: names by label (set by the trainer or the bundle; label numbers until then).
        preprocess: sample -> (tensor, target, Geometry); runs in loader workers, saved in the bundle.
        loss_names: values that ``recipe.loss`` may take; the first is the default.
        fitted_buffers: names of buffers whose shape is known only after fitting.
    """

    task: ClassVar[str]
    loss_names: ClassVar[tuple[str, ...]] = ()
    fitted_buffers: ClassVar[tuple[str, ...]] = ()

    num_classes: int
    classes_known: bool
    preprocess: Preprocess

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise UsageError(f"num_classes must be at least 1, not {num_classes}")
        self.num_classes = num_classes
        self._classes = [str(i) for i in range(num_classes)]
        self.classes_known = False
        self.loss_name = self.loss_names[0] if self.loss_names else ""
        self.build_name = ""  # registered name and options, set by create_model, written to the bundle
        self.build_options: dict[str, Any] = {}

    @property
    def classes(self) -> list[str]:
        """Names by label; ``classes_known`` says whether anybody gave them."""
        return self._classes

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        self._classes = [str(name) for name in names]
        self.classes_known = True

    # -- what a paper's file writes -------------------------------------------------------------

    def raw(self, images: Images) -> Any:
        """The network alone: tensors in, tensors out (no thresholds, no NMS where the system allows)."""
        raise NotImplementedError

    def decode(
        self, raw: Any, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Raw outputs to predictions in original pixels; one a geometry."""
        raise NotImplementedError

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Named losses whose sum is minimised.

        In eval mode: the same keys, finite, no buffer changed, no random choice.
        """
        raise NotImplementedError

    # -- what all models have -------------------------------------------------------------------

    def forward(self, images: Images) -> Any:
        """``raw``."""
        return self.raw(images)

    def learn_from(self, data: Dataset) -> None:
        """Take from the training data what must be known before the first step (priors); called before :meth:`configure`."""

    def configure(self, recipe: Recipe) -> None:
        """Take what the recipe says about the loss and about frozen parts. Called before training; override to read more fields."""
        if recipe.loss:
            self.set_loss(recipe.loss)
        for name in ("multi_scale", "self_adversarial"):  # the models that train so have them
            if getattr(recipe, name) and not hasattr(self, name):
                raise UsageError(f"recipe.{name} does not apply to {self.build_name or type(self).__name__}")
        apply_transfer(self, recipe)

    def count_classes(self, data: Dataset) -> None:
        """Learn from the training data what ``recipe.class_weights`` weighs by; called before :meth:`configure` where it is set."""
        raise UsageError(f"recipe.class_weights does not apply to {type(self).__name__}")

    def notes(self, data: Dataset) -> list[str]:
        """What is to be known of this model with these training data, a line each; training and ``saccade check`` tell it."""
        return []

    def set_loss(self, name: str) -> None:
        """Choose a loss by name."""
        if name not in self.loss_names:
            raise UsageError(f"{type(self).__name__} has no loss {name!r}{suggest(name, self.loss_names)}")
        self.loss_name = name

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @torch.no_grad()
    def predict(
        self,
        images: Any,
        *,
        score: float = PREDICTION.score,
        iou: float = PREDICTION.iou,
        max_detections: int = PREDICTION.max_detections,
    ) -> list[Prediction]:
        """Preprocess, raw, decode: one Prediction an image, in its own pixels.

        Args:
            images: one or a list of: (C, H, W) uint8 tensors, (H, W[, 3]) uint8 arrays, Pillow images, file names.
            score, iou, max_detections: as in ``decode``.

        Raises:
            UsageError: not such an image, or a setting out of range.
            DataError: a file that is no image.
        """
        settings = asdict(DecodeSettings(score=score, iou=iou, max_detections=max_detections))
        given = as_images(images)
        out: list[Prediction] = []
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(given), BATCH):  # a long list needs no more memory than one batch
                inputs = [read_input(image) for image in given[start : start + BATCH]]
                batch = collate([self.preprocess(Sample(image, {})) for _, image in inputs])
                predictions = self.predict_batch(batch.images, batch.geometries, **settings)
                for prediction, (path, image) in zip(predictions, inputs, strict=True):
                    prediction.path = path
                    if prediction.image is None:  # a generator's prediction is a picture of its own
                        prediction.image = image
                out += predictions
        finally:
            self.train(was_training)
        return out

    def predict_batch(self, images: Images, geometries: Sequence[Geometry], **settings: Any) -> list[Prediction]:
        """Raw and decode of a preprocessed batch, with class names and sizes filled in. The caller sets eval mode."""
        device = self.device
        moved = images.to(device) if isinstance(images, Tensor) else [image.to(device) for image in images]
        out = self.decode(self.raw(moved), geometries, **settings)
        for prediction, geometry in zip(out, geometries, strict=True):
            prediction.classes, prediction.size = self.classes, geometry.original
        return out


class FittedModel(Model):
    """A model without gradients: ``fit(dataset)`` learns, ``predict`` works as everywhere. Its numbers are buffers."""

    def fit(self, dataset: Dataset, *, validation: Dataset | None = None, seed: int = 0, log: Log | None = None) -> None:
        """Learn from a data set. ``log(name, values)`` reports progress."""
        raise NotImplementedError


class AdversarialModel(Model):
    """A model of two players with opposed losses; each has an optimiser and its own step.

    ``losses`` gives all players' losses, named ``PLAYER/NAME``.
    """

    players: ClassVar[tuple[str, ...]] = ("discriminator", "generator")

    def player(self, name: str) -> nn.Module:
        """The network whose parameters this player moves."""
        module = getattr(self, name)
        assert isinstance(module, nn.Module)
        return module

    def player_losses(self, name: str, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Losses that this player minimises on a batch."""
        raise NotImplementedError

    def sample(self, count: int, *, seed: int = 0) -> Tensor:
        """(count, C, H, W) uint8 images from seeded noise."""
        raise NotImplementedError


Log = Callable[[str, Mapping[str, float]], None]


@dataclass(frozen=True)
class StageContext:
    """What the engine gives to a stage.

    Attributes:
        train, validation: data sets in original pixels.
        cache: folder that outlives the run: what is expensive and depends on images only (proposals) is kept here.
        recipe: the resolved recipe.
        seed: of the run.
        log: ``log(stage, {"name": value})``.
        train_network: trains a module by gradient with the engine's own trainer (its checkpoints, seeds, progress):
            ``train_network(module, dataset, recipe)``; ``module.losses(images, targets)`` gives the losses of a batch
            and ``dataset[i]`` a ``(tensor, target, Geometry)``.
    """

    train: Dataset
    validation: Dataset | None
    cache: Path
    recipe: Recipe
    seed: int
    log: Log
    train_network: Callable[[nn.Module, Any, Recipe], None]


@dataclass(frozen=True)
class Stage:
    """One step of a staged model: ``run(context)`` leaves its result in the model's parameters and buffers.

    ``kind``: "cache" (nothing learned), "train" (by gradient) or "fit".
    """

    name: str
    kind: str
    run: Callable[[StageContext], None]


class StagedModel(Model):
    """A model learned in stages that the engine runs in order, saves after each, and resumes by stage."""

    def stages(self) -> list[Stage]:
        """The stages in order."""
        raise NotImplementedError


def as_images(images: Any) -> list[Any]:
    """One image of any accepted kind, or many, as a list."""
    if is_one_image(images):
        return [images]
    if not isinstance(images, Iterable):
        raise UsageError(f"images are file names, tensors, arrays or Pillow images, or a list of them, not {type(images).__name__}")
    return list(images)


def is_one_image(value: Any) -> bool:
    """Whether a value stands for one image (or for something that is none) rather than for several."""
    return isinstance(value, (str, bytes, Path)) or hasattr(value, "shape") or hasattr(value, "getpixel")


def read_input(image: Any) -> tuple[str, Tensor]:
    """File name (or "") and (C, H, W) uint8 tensor of one image of any accepted kind."""
    if isinstance(image, (str, Path)):
        return str(image), read_image(image).as_subclass(Tensor)
    return "", as_tensor_image(image)
