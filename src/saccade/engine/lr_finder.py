"""The learning-rate range test: Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186, section 3.3.

The rate rises step by step, here exponentially as became usual, while the loss is watched: it falls, then explodes. A good rate lies where
the loss falls fastest over the logarithm of the rate. Lightning's Trainer runs the steps; its own finder sets one rate for all parameters,
which would undo ``backbone_lr`` and ``layer_decay``, and looks for the steepest fall over the rate itself, which the noise of the first,
smallest rates decides.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from saccade.engine.files import atomic, write_text
from saccade.engine.loaders import TrainSampler
from saccade.engine.trainer import LoaderFactory, check_batch, make_trainer, quiet_lightning, sampling_labels
from saccade.models.base import Model
from saccade.tasks.base import Task
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe

LOW, HIGH = 1e-6, 10.0
"""The first and the last rate."""

EXPLODED = 4.0
"""The test ends when the smoothed loss is this many times the least so far."""


@dataclass(frozen=True)
class RangeTest:
    """What the test gives.

    Attributes:
        rates: of each step, rising by one factor. losses: of each step's batch, before its update.
        smooth: the losses without most of their noise.
        suggestion: the rate of the steepest fall; NaN where the loss never falls.
    """

    rates: list[float]
    losses: list[float]
    smooth: list[float]
    suggestion: float

    def save(self, folder: Path) -> None:
        """``lr_finder.csv`` (step, lr, loss, smooth) and ``lr_finder.png``."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("step", "lr", "loss", "smooth"))
        rows.writerows((k, *map(repr, values)) for k, values in enumerate(zip(self.rates, self.losses, self.smooth, strict=True)))
        write_text(folder / "lr_finder.csv", out.getvalue())
        with atomic(folder / "lr_finder.png") as temporary:
            self.draw(temporary)

    def draw(self, path: Path) -> None:
        """The losses over the logarithm of the rate, with the suggestion."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="0.75", label="loss of the batch")
        axes.plot(self.rates, self.smooth, color="C0", label="smoothed")
        axes.set_xscale("log")
        least = min(self.smooth)
        axes.set_ylim(least - 0.1 * abs(least), max(self.smooth[0], least) * 1.5)  # not up to the explosion
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        if math.isfinite(self.suggestion):
            axes.axvline(self.suggestion, color="C3", linestyle="--", label=f"steepest fall: {self.suggestion:.2g}")
        axes.legend()
        figure.savefig(path, dpi=120)


def steepest(rates: Sequence[float], losses: Sequence[float]) -> tuple[list[float], float]:
    """Losses smoothed by a Gaussian of three steps, and the rate where they fall fastest over log(rate), before their least value.

    The suggestion is NaN for fewer than three losses, or losses that never fall.
    """
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(np.asarray(losses, dtype=np.float64), 3.0, mode="nearest")
    if len(smooth) < 3:
        return smooth.tolist(), float("nan")
    slope = np.gradient(smooth, np.log(np.asarray(rates)))[: int(smooth.argmin()) + 1]
    best = int(slope.argmin())
    return smooth.tolist(), float(rates[best]) if slope[best] < 0 else float("nan")


class _Rise(L.Callback):
    """Sets the rate before each step and notes the loss after it; every group keeps its own factor."""

    def __init__(self, rates: Sequence[float], base: float) -> None:
        self.planned, self.base = rates, base
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._mean, self._least = 0.0, math.inf
        self._factors: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """The rate of this step."""
        groups = trainer.optimizers[0].param_groups
        if not self._factors:
            self._factors = [group["initial_lr"] / self.base for group in groups]
        rate = self.planned[len(self.rates)]
        self.rates.append(rate)
        for group, factor in zip(groups, self._factors, strict=True):
            group["lr"] = rate * factor

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Its loss; the end when that explodes."""
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            self.rates.pop()
            assert isinstance(pl_module, Task)
            pl_module.forget_pending()  # it would stop with an error
            trainer.should_stop = True
            return
        self.losses.append(loss)
        self._mean = 0.9 * self._mean + 0.1 * loss
        smooth = self._mean / (1 - 0.9 ** len(self.losses))
        self._least = min(self._least, smooth)
        if smooth > EXPLODED * self._least and len(self.losses) > 10:
            trainer.should_stop = True


def range_test(
    model: Model,
    task_class: type[Task],
    recipe: Recipe,
    folder: Path,
    train: Any,
    *,
    steps: int = 100,
    seed: int = 0,
    accelerator: str = "auto",
    workers: int | None = None,
) -> RangeTest:
    """Run the test; the model's weights are used up.

    Args:
        model: fresh, or with the weights that training would start from.
        recipe: all but its rate, schedule and length is as in training.
        folder: Lightning's working folder; nothing of the test stays there.
        train: as in :func:`saccade.engine.trainer.fit`.
        steps: at most so many, from rate 1e-6 to 10.

    Raises:
        UsageError: the model does not learn by one optimiser, or fewer than 10 steps.
    """
    if steps < 10:
        raise UsageError(f"a range test needs at least 10 steps, not {steps}")
    quiet_lightning()
    check_batch(recipe, 1)
    base = 1.0
    recipe = recipe.replace(lr=base, schedule="constant", warmup=0.0, accumulate=1, ema=0.0)
    model.configure(recipe)
    sampler = TrainSampler(len(train), recipe.batch_size, seed, labels=sampling_labels(train, recipe))
    task = task_class(model, recipe, steps_per_epoch=len(sampler), seed=seed)
    if not task.automatic_optimization:
        raise UsageError("a range test is for models with one optimiser")
    rise = _Rise(np.geomspace(LOW, HIGH, steps).tolist(), base)
    trainer = make_trainer(
        max_steps=steps, max_epochs=-1, accelerator=accelerator, devices=1, strategy="auto", precision=recipe.precision,
        gradient_clip_val=recipe.clip or None, callbacks=[rise], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=LoaderFactory(model, train, None, recipe, sampler, workers, seed))
    smooth, suggestion = steepest(rise.rates, rise.losses)
    return RangeTest(rise.rates, rise.losses, smooth, suggestion)
