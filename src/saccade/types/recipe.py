"""How a model is trained: one flat dataclass. Each model file states its own defaults beside its builder. No torch here."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass
from typing import Literal

from saccade.types.errors import UsageError

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam"]
Schedule = Literal["constant", "cosine", "step", "multistep", "linear", "onecycle", "plateau"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings. ``--set recipe.NAME=VALUE`` overrides any of them.

    Lengths are in epochs unless said; probabilities are 0..1; geometric ranges are fractions of the image side.
    """

    # length and optimiser
    epochs: int = 30
    batch_size: int = 16
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    nesterov: bool = False
    norm_decay: bool = False  # weight decay on biases and normalisation weights too
    backbone_lr: float = 1.0  # factor on lr for parameters under `backbone`
    schedule: Schedule = "cosine"
    warmup: float = 0.0  # epochs of linear warm-up
    lr_final: float = 0.0  # cosine, linear: the last rate as a fraction of lr
    lr_steps: tuple[float, ...] = (0.67, 0.89)  # multistep: fractions of the run; step: the first is the period
    lr_gamma: float = 0.1  # step, multistep, plateau: factor
    plateau_patience: int = 5  # plateau: validations without improvement
    clip: float = 0.0  # gradient norm; 0 = off
    accumulate: int = 1  # batches per optimiser step
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "32-true"  # auto: bf16 where the device computes in it
    ema: float = 0.0  # decay of the averaged weights that are validated and kept; 0 = off
    channels_last: bool = False
    loss: str = ""  # a choice of the model's (unet: "ce", "dice+focal", ...); "" = the model's default
    label_smoothing: float = 0.0
    class_weights: bool = False  # weigh classes by inverse frequency
    balanced_sampling: bool = False  # draw images so that all classes are equally frequent

    # transfer learning
    transfer: Literal["", "scratch", "finetune", "features"] = ""  # "" = all learns, from whatever weights; features: only the output
    unfreeze: int = 0  # finetune: how many of the last stages before the output learn; 0 = all
    layer_decay: float = 1.0  # the rate of each stage is this times that of the stage after it
    freeze_norm: bool = False  # batch normalisation keeps statistics and weights
    cached_views: int = 1  # features: 1 = a pass over the plain images, kept; k = and k - 1 augmented passes; 0 = nothing is kept

    # what is kept and when training stops
    monitor: str = ""  # metric that picks the best checkpoint; "" = the task's main metric
    patience: int = 0  # early stopping after so many validations without improvement; 0 = off
    min_delta: float = 0.0
    validate_every: int = 1
    calibrate: bool = False  # classifiers: one temperature for the scores, by the validation images

    # augmentation, in original pixels
    hflip: float = 0.0
    vflip: float = 0.0
    quarter_turns: bool = False  # random rotation by 0, 90, 180 or 270 degrees
    rotate: float = 0.0  # degrees, +-
    shear: float = 0.0  # degrees, +-
    scale: float = 0.0  # zoom by a factor in [1 - s, 1 + s]
    translate: float = 0.0  # fraction of the side, +-
    crop: float = 1.0  # smallest area of a random resized crop; 1 = off
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0  # probability of a Gaussian blur
    erase: float = 0.0  # probability of random erasing (cut-out)
    mosaic: float = 0.0  # probability of a four-image mosaic
    mixup: float = 0.0  # alpha of mix-up; 0 = off
    cutmix: float = 0.0  # alpha of cut-mix; 0 = off
    multi_scale: tuple[float, ...] = ()  # YOLO: each batch at a side within these two shares of the network's, in whole coarsest cells
    self_adversarial: float = 0.0  # YOLOv4: probability that a batch is first changed against the network
    close_augment: float = 0.0  # last fraction of the run without mosaic, mix-up and cut-mix

    def replace(self, **changes: object) -> Recipe:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """One setting of score, IoU and cap for all models, so that numbers compare.

    ``score``: least score kept, 0..1. ``iou``: NMS threshold, 0..1. ``max_detections``: cap an image, from 1; else UsageError.
    """

    score: float = 0.001
    iou: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        for name in ("score", "iou"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
                raise UsageError(f"{name} is a number from 0 to 1, not {value!r}")
        if not isinstance(self.max_detections, numbers.Integral) or self.max_detections < 1:
            raise UsageError(f"max_detections is a whole number from 1, not {self.max_detections!r}")


EVALUATION = DecodeSettings()
PREDICTION = DecodeSettings(score=0.3)
