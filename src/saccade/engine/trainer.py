"""Lightning's Trainer, set up so that neither workers, nor interruption, nor a resume change a result."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from saccade.data.dataset import Dataset
from saccade.data.transforms.augment import AugmentedDataset, batch_mix
from saccade.engine.callbacks import AverageWeights, CsvLog, EpochEnd, Interrupt, KeptCheckpoint, Progress, read_metrics
from saccade.engine.loaders import EpochView, TrainSampler, TrainView, eval_loader, train_loader
from saccade.metrics.base import Metric
from saccade.models.base import AdversarialModel, Model
from saccade.tasks.base import Task, TrainingError
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.recipe import Recipe


def fit(
    model: nn.Module,
    task_class: type[Task],
    recipe: Recipe,
    folder: Path,
    train: Any,
    validation: Dataset | None = None,
    *,
    seed: int = 0,
    devices: int = 1,
    accelerator: str = "auto",
    strategy: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    how_to_resume: str = "",
    scored: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Train a model in place: on return it holds the best weights by the monitored value.

    Args:
        model: a Model, or a module with ``losses`` (a stage).
        task_class: its LightningModule.
        recipe: how.
        folder: gets checkpoints/ and metrics.csv.
        train: a Dataset (augmented and preprocessed here), an EpochView, or any indexable of (tensor, target, Geometry).
        validation: scored after each epoch; None keeps the last weights.
        seed: of sampling, augmentation, and the network's randomness.
        devices: how many; more than one trains by DDP with the batch shared out.
        accelerator, strategy: Lightning's; "auto" chooses.
        workers: loader processes; None chooses. Results do not depend on it.
        resume: go on from ``checkpoints/last.ckpt``.
        how_to_resume: the command to name when interrupted.
        scored: compute metrics in validation.
        say: where progress lines go (default stderr).

    Returns:
        Broken files that were skipped: path -> message.

    Raises:
        Interrupted: after SIGINT or SIGTERM, with a checkpoint written.
        TrainingError: NaN losses or out of memory, with what helps.
    """
    quiet_lightning()
    check_batch(recipe, devices)
    if isinstance(model, Model):
        model.configure(recipe)
    checkpoints = folder / "checkpoints"
    last = checkpoints / "last.ckpt"
    sampler = TrainSampler(len(train), recipe.batch_size, seed, world=devices, labels=sampling_labels(train, recipe))
    metric = task_class.make_metric(model.classes) if scored and validation is not None else None  # type: ignore[arg-type]
    steps = max(len(sampler) // recipe.accumulate, 1)
    task = task_class(model, recipe, steps_per_epoch=steps, seed=seed, metric=metric)
    data = LoaderFactory(model, train, validation, recipe, sampler, workers, seed)

    start: Path | None = None
    if resume:
        if not last.is_file():
            raise DataError(last, "there is no checkpoint to resume from", hint="start the run anew")
        start = last
        sampler.resume(*position(last, len(sampler)))
        read_metrics(folder / "metrics.csv")  # damage to what is needed later is told before the first step
        if (checkpoints / "best.ckpt").is_file():
            read_checkpoint(checkpoints / "best.ckpt")

    interrupt = Interrupt(last, how_to_resume)
    log = CsvLog(folder / "metrics.csv")
    monitored, mode = task.monitored(), task.monitor_mode()
    best = KeptCheckpoint(
        checkpoints, "best", monitor=monitored, mode=mode, save_top_k=1, every_n_epochs=recipe.validate_every,
        save_on_train_epoch_end=True, enable_version_counter=False, auto_insert_metric_name=False,
    )  # fmt: skip
    newest = KeptCheckpoint(
        checkpoints, "last", monitor=None, save_top_k=1, every_n_epochs=1, save_on_train_epoch_end=True,
        enable_version_counter=False, auto_insert_metric_name=False,
    )  # fmt: skip
    if validation is not None:
        check_monitor(recipe.monitor, metric)
    callbacks: list[Any] = [AverageWeights(recipe.ema)] if recipe.ema else []
    if validation is not None and recipe.patience:
        callbacks.append(
            EarlyStopping(
                monitored,
                mode=mode,
                patience=recipe.patience,
                min_delta=recipe.min_delta,
                check_on_train_epoch_end=False,
                check_finite=False,
            )
        )
    callbacks += [Progress(say), interrupt, _AfterStep(interrupt)]
    callbacks += ([best] if validation is not None else []) + [newest, EpochEnd(log, interrupt)]
    adversarial = isinstance(model, AdversarialModel)  # manual optimisation: Lightning refuses clipping and accumulation there
    if adversarial and recipe.accumulate > 1:
        raise UsageError("recipe.accumulate does not apply to adversarial models")
    trainer = make_trainer(
        max_epochs=recipe.epochs,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy if strategy != "auto" or devices == 1 else "ddp_spawn",
        precision=recipe.precision,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=None if adversarial else (recipe.clip or None),
        check_val_every_n_epoch=recipe.validate_every,
        callbacks=callbacks,
        logger=tensorboard_logger(folder),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=50,
    )
    try:
        trainer.fit(task, datamodule=data, ckpt_path=start, weights_only=True)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if (
            isinstance(error, torch.OutOfMemoryError)
            or "out of memory" in str(error).lower()
            or "can't allocate memory" in str(error).lower()
        ):
            raise TrainingError(
                f"out of memory with batches of {recipe.batch_size}: lower recipe.batch_size (recipe.accumulate keeps the effective size), "
                "lower model.size, or set recipe.precision=bf16-mixed"
            ) from None
        if start is not None and "loading state_dict" in str(error):
            raise DataError(start, f"does not fit the model: {error}") from None
        raise
    finally:
        interrupt.restore()
    if isinstance(model, Model) or validation is None:
        load_weights_into(model, checkpoints / ("best.ckpt" if validation is not None else "last.ckpt"), fallback=last)
    return dict(task.problems)


class _AfterStep(L.Callback):
    """Placed after the averaging of weights: the checkpoint of an interruption holds the whole step."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.interrupt.after_step(trainer)


class LoaderFactory(L.LightningDataModule):
    """Loaders made inside each process, which alone knows its rank."""

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        validation: Dataset | None,
        recipe: Recipe,
        sampler: TrainSampler,
        workers: int | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.preprocess = getattr(model, "preprocess", None)
        self.channels = getattr(self.preprocess, "channels", None)
        self.classes = len(getattr(model, "classes", ()))
        self.train_data, self.validation, self.recipe = train, validation, recipe
        self.sampler, self.workers, self.seed = sampler, workers, seed
        self.task = getattr(model, "task", "")

    def train_dataloader(self) -> Any:
        """Seeded batches of this rank."""
        self.sampler.rank = self.trainer.global_rank if self.trainer is not None else 0
        if isinstance(self.train_data, EpochView):
            view = self.train_data
        elif not isinstance(self.train_data, Dataset):
            view = StageView(self.train_data)
        else:
            data = AugmentedDataset(self.train_data, self.recipe, self.task, seed=self.seed)
            view = TrainView(data, self.preprocess)  # type: ignore[arg-type]
        return train_loader(view, self.sampler, workers=self.workers, batch_transform=batch_mix(self.recipe, self.task, self.classes))

    def val_dataloader(self) -> Any:
        """Every image once over all ranks."""
        if self.validation is None:
            return []
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return eval_loader(self.validation, self.preprocess, self.recipe.batch_size, workers=self.workers, rank=rank, world=world)  # type: ignore[arg-type]


class StageView(EpochView):
    """A stage's own items under (epoch, i) indices: seeded as images are."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, i = key
        torch.manual_seed((epoch * 1_000_003 + i) % 2**63)
        return self.data[i], []


def sampling_labels(train: Any, recipe: Recipe) -> list[int] | None:
    """Labels of the images where the recipe draws classes equally often.

    Raises:
        UsageError: images without one class each.
    """
    if not recipe.balanced_sampling:
        return None
    given = train.map_records(lambda record: record.label) if isinstance(train, Dataset) else getattr(train, "labels", [])
    if not given or any(label is None for label in given):
        raise UsageError("recipe.balanced_sampling is for classification: these images have no class each")
    return [int(label) for label in given]


def position(checkpoint: Path, batches_per_epoch: int) -> tuple[int, int]:
    """(epoch, batches done in it) of a checkpoint."""
    state = read_checkpoint(checkpoint)
    try:
        loops = state["loops"]["fit_loop"]
        done = int(loops["epoch_loop.batch_progress"]["current"]["ready"])
        epoch = int(loops["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(checkpoint, f"is no readable checkpoint of a run: its position is damaged ({error})") from None
    return (epoch, 0) if done >= batches_per_epoch else (epoch, done)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A resume checkpoint: tensors and plain values only, whatever the file holds."""
    problem = "is no readable checkpoint of a run: damaged, or it holds more than tensors and plain values"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail anywhere in the reader; torch's own advice is to trust the file
        raise DataError(path, problem, hint=type(error).__name__) from None
    if not (isinstance(state, dict) and all(isinstance(state.get(key), dict) for key in ("loops", "state_dict", "saccade"))):
        raise DataError(path, problem)
    return state


def load_weights_into(model: nn.Module, checkpoint: Path, *, fallback: Path) -> None:
    """The model's weights of a checkpoint (the averaged ones where weights are averaged)."""
    path = checkpoint if checkpoint.is_file() else fallback
    state = read_checkpoint(path)["state_dict"]
    try:
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise DataError(path, f"does not fit the model: {error}") from None


def make_trainer(**options: Any) -> L.Trainer:
    """Lightning's Trainer; UsageError in one line when these devices, strategy or precision are not to be had."""
    try:
        return L.Trainer(**options)
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        asked = ", ".join(f"{name} {options[name]}" for name in ("accelerator", "strategy", "devices", "precision"))
        raise UsageError(f"cannot train with {asked}: {' '.join(str(error).split())[:300]}") from None


def check_monitor(name: str, metric: Metric | None) -> None:
    """UsageError when validation gives no value that ``recipe.monitor`` may name; ``metric`` is an empty one of the task."""
    known = ["val_loss", *sorted(key for key in (metric.compute() if metric is not None else ()) if "/" not in key)]
    if name and name not in known:
        raise UsageError(f"recipe.monitor={name!r}: validation gives no such value{suggest(name, known)}")


def pick_precision(asked: str, accelerator: str) -> str:
    """Bfloat16 for "auto" where the device has units for it (twice the speed), else full precision; written to the run's config.yaml.

    Without such units bfloat16 on a CPU is emulated, and slow.
    """
    if asked != "auto":
        return asked
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16-mixed" if supported() else "32-true"


def check_batch(recipe: Recipe, devices: int) -> None:
    """The whole batch divides over the devices."""
    if devices < 1:
        raise UsageError(f"devices must be at least 1, not {devices}")
    if recipe.batch_size % devices:
        raise UsageError(
            f"recipe.batch_size={recipe.batch_size} does not divide over {devices} devices: it is the whole batch of all devices"
        )


def tensorboard_logger(folder: Path) -> Any:
    """TensorBoard where it is installed (extra "tensorboard"), else none: metrics.csv is always there."""
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def quiet_lightning() -> None:
    """Lightning's advice on workers and precision is not for our users."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*", ".*number of training batches.*smaller than the logging interval.*", ".*Checkpoint directory.*",
        ".*overridden `transfer_batch_to_device`.*",
        ".*not resumable.*", ".*lr_scheduler.step.*", ".*module.s. in eval mode.*", ".*No `_progress_bar_metrics`.*", ".*LeafSpec.*",
        ".*GPU available but not used.*", ".*`isinstance.treespec.*", ".*dataloader_iter.*", ".*Trying to infer the `batch_size`.*",
        ".*Starting from v1.9.0.*", ".*`training_step` returned `None`.*", ".*across ranks is zero.*",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", text)
