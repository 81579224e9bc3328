"""Staged and fitted models: the engine runs, logs, saves and resumes them by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from saccade.data.dataset import Dataset
from saccade.engine.bundle import resize_fitted
from saccade.engine.callbacks import CsvLog
from saccade.engine.files import atomic
from saccade.engine.trainer import fit
from saccade.models.base import FittedModel, Model, Stage, StageContext, StagedModel
from saccade.tasks.base import Task
from saccade.types.errors import DataError
from saccade.types.recipe import Recipe


class StageTask(Task):
    """A stage's network: losses only, no metric."""

    name = "stage"

    @classmethod
    def check_data(cls, data: Dataset) -> None:
        """A stage makes its own data."""


def run_stages(
    model: StagedModel,
    recipe: Recipe,
    folder: Path,
    train: Dataset,
    validation: Dataset | None,
    *,
    cache: Path,
    seed: int = 0,
    resume: bool = False,
    workers: int | None = None,
    accelerator: str = "auto",
    how_to_resume: str = "",
    say: Callable[[str], None] = print,
) -> None:
    """Run a staged model's stages in order; after each, its state is ``checkpoints/NN-NAME.safetensors``.

    A resumed run loads the newest state and goes on with the next stage; a stage by gradient goes on inside itself.
    """
    model.configure(recipe)
    stages = model.stages()
    first = 0
    if resume:
        for number, stage in enumerate(stages):
            path = state_file(folder, number, stage)
            if path.is_file():
                load_state(model, path)
                first = number + 1
    rows = CsvLog(folder / "metrics.csv")
    for number, stage in enumerate(stages[first:], start=first):
        values: dict[str, float] = {}
        say(f"stage {number + 1}/{len(stages)}: {stage.name}")
        began = time.perf_counter()
        stage_folder = folder / "stages" / stage.name

        def log(name: str, given: Mapping[str, float], values: dict[str, float] = values) -> None:
            values.update({f"{name}_{k}": float(v) for k, v in given.items()})
            say(f"  {name}: " + ", ".join(f"{k} {float(v):.4g}" for k, v in given.items()))

        def train_network(module: nn.Module, data: Any, stage_recipe: Recipe, folder: Path = stage_folder) -> None:
            fit(
                module, StageTask, stage_recipe, folder, data, None, seed=seed, workers=workers, accelerator=accelerator, scored=False,
                resume=resume and (folder / "checkpoints" / "last.ckpt").is_file(), how_to_resume=how_to_resume, say=say,
            )  # fmt: skip

        stage.run(StageContext(train, validation, cache, recipe, seed, log, train_network))
        save_state(model, state_file(folder, number, stage))
        values["seconds"] = time.perf_counter() - began
        rows.write({"epoch": float(number), **values})


def run_fit(
    model: FittedModel,
    recipe: Recipe,
    folder: Path,
    train: Dataset,
    validation: Dataset | None,
    *,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Fit a model without gradients; what it logs becomes metrics.csv."""
    model.configure(recipe)
    rows, number = CsvLog(folder / "metrics.csv"), 0

    def log(name: str, given: Mapping[str, float]) -> None:
        nonlocal number
        say(f"{name}: " + ", ".join(f"{k} {float(v):.4g}" for k, v in given.items()))
        rows.write({"epoch": float(number), **{f"{name}_{k}": float(v) for k, v in given.items()}})
        number += 1

    torch.manual_seed(seed)
    model.fit(train, validation=validation, seed=seed, log=log)


def state_file(folder: Path, number: int, stage: Stage) -> Path:
    """Where a stage's result lies."""
    return folder / "checkpoints" / f"{number:02}-{stage.name}.safetensors"


def save_state(model: Model, path: Path) -> None:
    """All parameters and buffers, atomically."""
    with atomic(path) as temporary:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}, temporary)


def load_state(model: Model, path: Path) -> None:
    """The inverse of :func:`save_state`."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(path, f"cannot be read: {error}", hint="delete it to run the stage again") from None
    resize_fitted(model, state)
    model.load_state_dict(state)
