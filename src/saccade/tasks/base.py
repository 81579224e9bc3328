"""What all tasks share: one LightningModule that seeds, sums losses, validates with the evaluator's settings, and schedules.

Randomness inside a network (dropout, sampled regions) is a function of (seed, step, rank); that of images is the loader's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from saccade.data.dataset import Dataset
from saccade.metrics.base import LOWER_IS_BETTER, Metric
from saccade.models.base import Model
from saccade.models.transfer import hold_still, rate_factors
from saccade.types.errors import SaccadeError, UsageError
from saccade.types.recipe import EVALUATION, DecodeSettings, Recipe
from saccade.types.sample import Batch


class TrainingError(SaccadeError):
    """Training cannot go on; the message says where and what helps."""


class Task(L.LightningModule):
    """A model learning by gradient.

    Args:
        model: any trainable :class:`~saccade.models.base.Model`, or a module with ``losses(images, targets)``.
        recipe: how.
        steps_per_epoch: optimiser steps of an epoch, for the schedules.
        seed: of the run.
        metric: None trains without scores (stages).
        decode: score, IoU and cap of the validation.
    """

    name: ClassVar[str] = ""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        steps_per_epoch: int,
        seed: int = 0,
        metric: Metric | None = None,
        decode: DecodeSettings = EVALUATION,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.seed = model, recipe, seed
        self.steps_per_epoch = steps_per_epoch
        self.metric, self.decode = metric, decode
        self.sums: dict[str, float] = defaultdict(float)  # weighted losses of the running epoch, kept in checkpoints
        self.epoch_values: dict[str, float] = {}  # what the last epoch gave
        self.problems: dict[str, str] = {}  # broken files by path
        self._pending: tuple[Tensor, int, list[str]] | None = None
        self._plateau: Any = None
        self._plateau_state: dict[str, Any] | None = None

    # -- what a task's file writes ----------------------------------------------------------------

    @classmethod
    def make_metric(cls, classes: list[str], settings: DecodeSettings = EVALUATION) -> Metric:
        """An empty metric of the task."""
        raise NotImplementedError

    @classmethod
    def check_data(cls, data: Dataset) -> None:
        """UsageError when the data hold no truth for this task."""
        if cls.name not in data.tasks:
            have = ", ".join(data.tasks) or "nothing"
            raise UsageError(f"{data.index.root} has annotations for {have}, not for {cls.name!r}")

    # -- steps ------------------------------------------------------------------------------------

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Images and target tensors; truths stay where metrics are computed."""
        given = batch.images
        moved = given.to(device, non_blocking=True) if isinstance(given, Tensor) else [image.to(device) for image in given]
        targets = [{k: v.to(device) if isinstance(v, Tensor) else v for k, v in target.items()} for target in batch.targets]
        return batch._replace(images=moved, targets=targets)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of the model's losses."""
        self.start_step()
        losses = self.model.losses(self.to_format(batch.images), batch.targets)  # type: ignore[operator]
        total = torch.stack([value.float() for value in losses.values()]).sum()
        self.record(losses, total, batch)
        return total

    def start_step(self) -> None:
        """Seed the network's own randomness."""
        torch.manual_seed((self.seed * 1_000_003 + self.global_step * 1_009 + self.global_rank) % 2**63)

    def to_format(self, images: Any) -> Any:
        """Channels-last where the recipe asks."""
        if self.recipe.channels_last and isinstance(images, Tensor) and images.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def record(self, losses: Mapping[str, Tensor], total: Tensor, batch: Batch) -> None:
        """Add a batch's losses to the epoch and look at the previous batch's total (a look at this one would wait for the device)."""
        self.check_finite()
        self._pending = (total.detach(), self.global_step, [str(t.get("path", "")) for t in batch.targets])
        count = len(batch.targets)
        self.sums["count"] += count
        self._tensors.append((count, {k: v.detach() for k, v in losses.items()} | {"loss": total.detach()}))
        if len(self._tensors) >= 50:
            self.drain()
        for problem in batch.problems:
            self.problems.setdefault(problem.path, str(problem))

    @property
    def _tensors(self) -> list[tuple[int, dict[str, Tensor]]]:
        return self.__dict__.setdefault("_undrained", [])

    def drain(self) -> None:
        """Losses still on the device into the epoch's sums."""
        for count, losses in self._tensors:
            for key, value in losses.items():
                self.sums[key] += count * float(value)
        self._tensors.clear()

    def forget_pending(self) -> None:
        """Do not stop at the last loss, whatever it is."""
        self._pending = None

    def check_finite(self) -> None:
        """Stop at a loss that is no number."""
        if self._pending is not None and not bool(torch.isfinite(self._pending[0])):
            value, step, paths = self._pending
            raise TrainingError(
                f"the loss became {float(value)} at step {step}, on {', '.join(paths[:8])}: "
                "lower recipe.lr, set recipe.clip=1 or look at these files"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Losses in network pixels, predictions and truths in original pixels."""
        for problem in batch.problems:
            self.problems.setdefault(problem.path, str(problem))
        if not batch.targets:
            return
        images = self.to_format(batch.images)
        count = len(batch.targets)
        losses = self.model.losses(images, batch.targets)  # type: ignore[operator]
        self.sums["val_count"] += count
        for key, value in losses.items():
            self.sums[f"val_{key}"] += count * float(value)
            self.sums["val_loss"] += count * float(value)
        if self.metric is not None:
            self.score(batch, images)

    def score(self, batch: Batch, images: Any) -> None:
        """Predictions of a batch into the metric."""
        assert isinstance(self.model, Model)
        assert self.metric is not None
        predictions = self.model.predict_batch(images, batch.geometries, **asdict(self.decode))
        self.metric.update(predictions, batch.truths or [])

    # -- epochs -----------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        hold_still(self.model, self.recipe)  # a run that is resumed inside an epoch sees no start of it

    def on_train_epoch_start(self) -> None:
        hold_still(self.model, self.recipe)
        self.sums.clear()
        self._tensors.clear()

    def on_validation_epoch_start(self) -> None:
        for key in [k for k in self.sums if k.startswith("val_")]:
            del self.sums[key]
        if self.metric is not None:
            self.metric = self.make_metric(list(self.model.classes), self.decode)  # type: ignore[arg-type]

    def on_validation_epoch_end(self) -> None:
        values: dict[str, float] = {}
        if self.metric is not None:
            if self.trainer.world_size > 1:
                self.metric.merge(gather(self.metric.state()))
            values |= self.metric.compute()
        self.epoch_values = values
        # The monitored value is told even when it is NaN (no such object in the data): the checkpoint then counts it as worst.
        shown = {k: v for k, v in values.items() if "/" not in k and (math.isfinite(v) or k == self.monitored())}
        sums = self.reduced()
        if sums.get("val_count"):
            shown["val_loss"] = sums["val_loss"] / sums["val_count"]
        for key, value in shown.items():
            self.log(key, torch.tensor(value, dtype=torch.float64), batch_size=1, sync_dist=False, rank_zero_only=False)

    def on_train_epoch_end(self) -> None:
        self.check_finite()
        self.drain()
        sums = self.reduced()
        values = {
            "epoch": float(self.current_epoch),
            "step": float(self.global_step),
            "lr": max(float(group["lr"]) for group in self.trainer.optimizers[0].param_groups),
        }
        for prefix in ("", "val_"):
            count = sums.get(f"{prefix}count", 0.0)
            values |= {
                k if prefix else f"train_{k}": v / count
                for k, v in sums.items()
                if count and k.startswith("val_") == bool(prefix) and not k.endswith("count")
            }
        self.epoch_values = values | self.epoch_values
        if self._plateau is not None and self.monitored() in self.epoch_values:
            self._plateau.step(self.epoch_values[self.monitored()])

    def reduced(self) -> dict[str, float]:
        """The epoch's sums over all processes."""
        if self.trainer.world_size == 1:
            return dict(self.sums)
        total: dict[str, float] = defaultdict(float)
        for part in gather(dict(self.sums)):
            for key, value in part.items():
                total[key] += value
        return dict(total)

    def monitored(self) -> str:
        """Name of the value that picks the best checkpoint."""
        if self.recipe.monitor:
            return self.recipe.monitor
        return self.metric.main if self.metric is not None else "val_loss"

    def monitor_mode(self) -> str:
        """Whether more is better: "max" for scores, "min" for losses."""
        return "min" if "loss" in self.monitored() or self.monitored().partition("/")[0] in LOWER_IS_BETTER else "max"

    # -- optimisers -------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.recipe)
        if self.recipe.schedule == "plateau":
            # Stepped by us: Lightning steps it after the checkpoint, so that a resume would lose a step.
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, mode=self.monitor_mode(), factor=self.recipe.lr_gamma, patience=self.recipe.plateau_patience
            )
            if self._plateau_state is not None:
                self._plateau.load_state_dict(self._plateau_state)
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": make_schedule(optimizer, self.recipe, self.steps_per_epoch), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.drain()
        checkpoint["saccade"] = {
            "sums": dict(self.sums),
            "plateau": self._plateau.state_dict() if self._plateau is not None else None,
            "problems": dict(self.problems),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["saccade"]
        self.sums = defaultdict(float, state["sums"])
        self.problems = dict(state["problems"])
        self._plateau_state = state["plateau"]
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)


def gather(value: Any) -> list[Any]:
    """The value of every process."""
    out: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(out, value)
    return out


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Learning parameters by rate and decay.

    ``backbone.*`` at ``backbone_lr``; stages by ``layer_decay``; biases and norms without weight decay unless ``norm_decay``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    by_depth = rate_factors(model, recipe.layer_decay) if recipe.layer_decay != 1 else {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = (recipe.backbone_lr if ".backbone." in f".{name}" else 1.0) * by_depth.get(name, 1.0)
        decay = recipe.weight_decay if recipe.norm_decay or parameter.ndim > 1 else 0.0
        groups[recipe.lr * factor, decay].append(parameter)
    if not groups:
        raise TrainingError(f"{type(model).__name__} has no parameter to train")
    return [{"params": parameters, "lr": lr, "weight_decay": decay} for (lr, decay), parameters in groups.items()]


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's parameters."""
    extra: dict[str, Any] = {"lr": recipe.lr}
    if recipe.optimizer == "sgd":
        extra |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    elif recipe.optimizer == "rmsprop":
        extra |= {"momentum": recipe.momentum}
    elif recipe.optimizer in ("adam", "adamw", "adamax", "nadam"):
        extra |= {"betas": tuple(recipe.betas)}
    return OPTIMIZERS[recipe.optimizer](parameter_groups(model, recipe), **extra)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate as a factor by optimiser step."""
    total = max(recipe.epochs * steps_per_epoch, 1)
    warmup = round(recipe.warmup * steps_per_epoch)

    def factor(step: int) -> float:  # a plain function: the scheduler's state must hold numbers only
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(total - warmup, 1), 1.0)
        fraction = min(step / total, 1.0)
        match recipe.schedule:
            case "cosine":
                return recipe.lr_final + (1 - recipe.lr_final) * (1 + math.cos(math.pi * done)) / 2
            case "linear":
                return recipe.lr_final + (1 - recipe.lr_final) * (1 - done)
            case "multistep":
                return recipe.lr_gamma ** sum(fraction >= at for at in recipe.lr_steps)
            case "step":
                return recipe.lr_gamma ** int(fraction / recipe.lr_steps[0] + 1e-9)
            case "onecycle":  # Smith: up for 30% from 1/25, then down to almost nothing, by cosines
                up, last = max(0.3 * total - 1, 1), max(total - 1, 2)
                return _between(1 / 25, 1.0, step / up) if step <= up else _between(1.0, 1e-4 / 25, min((step - up) / (last - up), 1))
        return 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
