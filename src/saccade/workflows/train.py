"""Train any model on any data: load, check, learn, keep the best, bundle, report."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.transforms.augment import build_augment
from saccade.engine import run as runs
from saccade.engine.bundle import save_bundle
from saccade.engine.callbacks import to_stderr
from saccade.engine.config import RunConfig, resolve
from saccade.engine.evaluator import evaluate_model
from saccade.engine.files import write_json
from saccade.engine.run import Run, read_data_facts
from saccade.engine.stages import run_fit, run_stages
from saccade.engine.trainer import check_batch, check_monitor, fit, make_trainer, pick_precision, quiet_lightning
from saccade.models.base import AdversarialModel, FittedModel, Model, StagedModel
from saccade.models.registry import create_model, find, form_of_weights
from saccade.models.weights import load_weights
from saccade.tasks.table import task_class
from saccade.types.errors import DataError, UsageError
from saccade.types.prediction import Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target
from saccade.workflows.inspect import before_training


def train(
    model: str,
    data: str | Path | Dataset,
    *,
    validation: Dataset | None = None,
    out: str | Path = "runs",
    folder: str | Path | None = None,
    format: str | None = None,
    split_file: str | Path | None = None,
    train_split: str = "train",
    val_split: str = "val",
    seed: int = 0,
    pretrained: bool = False,
    weights: str | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    strategy: str = "auto",
    workers: int | None = None,
    config: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    allow_leaks: bool = False,
    report: bool = True,
    say: Callable[[str], None] | None = None,
    **recipe: Any,
) -> Run:
    """Train a model and leave a run folder.

    Args:
        model: registered name (:func:`saccade.list_models`).
        data: folder, file, ``set:NAME``, ``synthetic:NAME``, or a Dataset (then give ``validation`` too).
        validation: data set to validate on, with a Dataset as ``data``.
        out: parent of the new run folder ``out/MODEL-001``; or ``folder``: the run folder itself (must not hold a run).
        format, split_file, train_split, val_split: how the data are read; splits that the files do not state are made,
            seeded and stratified.
        seed: of everything random; two runs with the same seed on the same machine give the same numbers.
        pretrained, weights: start from published weights, or from a file.
        devices: more than one trains by DDP; the batch is shared out.
        config, options: YAML file, and dotted overrides such as ``{"model.size": 320, "recipe.lr": 1e-3}``.
        allow_leaks: train although an image of the training split is in another split too, byte for byte.
        report: write report.html, and its numbers as metrics.json and scores.csv.
        say: where progress lines go (default stderr).
        recipe: fields of :class:`saccade.Recipe` by name (``epochs=30``).

    Returns:
        A :class:`Run` with ``folder``, ``metrics`` and ``model``.

    Raises:
        UsageError: unknown names, options or classes, or leaks between splits, before the first step.
        DataError: unreadable data.
        Interrupted: SIGINT or SIGTERM, after a checkpoint was written.

    Example:
        >>> run = saccade.train("lenet5", "set:mnist", epochs=3)  # doctest: +SKIP
        >>> run.metrics["accuracy"]  # doctest: +SKIP
    """
    entry = find(model)
    model_options, resolved = resolve(entry, options, config, **recipe)
    check_batch(resolved, devices)
    resolved = resolved.replace(precision=pick_precision(resolved.precision, accelerator))
    named = not isinstance(data, Dataset)
    settings = RunConfig(
        model=model, data=str(data) if named else repr(data), model_options=model_options, recipe=resolved, format=format,
        split_file=str(split_file) if split_file else None, train_split=train_split, val_split=val_split, seed=seed,
        pretrained=pretrained, weights=weights, devices=devices, accelerator=accelerator, strategy=strategy, workers=workers,
    )  # fmt: skip
    given = None if named else (data, validation)
    train_data, val_data = load_splits(settings, entry.task) if given is None else given  # before a folder is made
    task_class(entry.task).check_data(train_data)  # type: ignore[arg-type]
    before_training(train_data, val_data, allow_leaks=allow_leaks, say=say or to_stderr)  # type: ignore[arg-type]
    built = build(settings, train_data, say or to_stderr)  # type: ignore[arg-type]
    prepare(built, resolved, train_data)  # type: ignore[arg-type]
    if not isinstance(built, (StagedModel, FittedModel)):
        quiet_lightning()
        check_monitor(resolved.monitor, task_class(entry.task).make_metric(built.classes) if val_data is not None else None)
        make_trainer(
            accelerator=accelerator, strategy=strategy if devices == 1 else "auto", devices=devices, precision=resolved.precision,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
    if folder is None:
        folder = runs.new_folder(Path(out), model)
    else:
        folder = Path(folder)
        if (folder / "config.yaml").exists():
            raise UsageError(f"{folder} holds a run already; give another folder, or go on with it: saccade train --resume {folder}")
        folder.mkdir(parents=True, exist_ok=True)
    settings.save(folder / "config.yaml")
    write_json(folder / "data.json", describe_data(train_data, val_data))  # type: ignore[arg-type]
    return _run(built, settings, folder, train_data, val_data, resume=False, report=report, say=say)  # type: ignore[arg-type]


def resume(
    folder: str | Path, *, data: tuple[Dataset, Dataset | None] | None = None, report: bool = True, say: Callable[[str], None] | None = None
) -> Run:
    """Go on with an interrupted run; on CPU the result equals the uninterrupted one bit for bit.

    Args:
        folder: the run folder.
        data: train and validation sets, when the run was started with Datasets instead of names.
        report, say: as in :func:`train`.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise DataError(folder, "holds no run to resume", hint="it has no config.yaml")
    settings = RunConfig.load(folder / "config.yaml")
    if (folder / "run.json").is_file():
        raise UsageError(f"{folder} is finished; nothing to resume")
    entry = find(settings.model)
    train_data, val_data = data or load_splits(settings, entry.task)
    known = read_data_facts(folder)
    if known and (known["fingerprint"], known["classes"]) != (train_data.fingerprint(), list(train_data.classes)):
        raise DataError(folder, f"its data {settings.data} have changed since the run began", hint="put them back, or start a new run")
    started = (folder / "checkpoints" / "last.ckpt").is_file() or entry.kind in ("staged", "fitted")
    model = build(settings, train_data, say or to_stderr)
    prepare(model, settings.recipe, train_data)
    return _run(model, settings, folder, train_data, val_data, resume=started, report=report, say=say)


def load_splits(settings: RunConfig, task: str) -> tuple[Dataset, Dataset | None]:
    """Training and validation data of a run."""

    def load(split: str) -> Dataset:
        return load_data(settings.data, split, format=settings.format, split_file=settings.split_file, task=task, seed=settings.seed)

    train_data = load(settings.train_split)
    if not len(train_data):
        raise DataError(settings.data, f"split {settings.train_split!r} has no images")
    if settings.val_split in ("", "none"):
        return train_data, None
    val_data = load(settings.val_split)
    return train_data, val_data if len(val_data) else None


def build(settings: RunConfig, data: Dataset, say: Callable[[str], None] = to_stderr) -> Model:
    """The model of a run, its initial weights a function of the seed."""
    import torch

    torch.manual_seed(settings.seed)
    classes = list(data.classes)
    options = dict(settings.model_options)
    if settings.weights is not None:
        options = form_of_weights(find(settings.model), settings.weights) | options
    model = create_model(settings.model, max(len(classes), 1), pretrained=settings.pretrained, **options)
    if settings.weights is not None:
        fresh = load_weights(model, settings.weights, partial=True)
        if fresh:
            say(f"{settings.weights}: {len(fresh)} tensors start anew ({', '.join(fresh[:3])}{', ...' if len(fresh) > 3 else ''})")
    if len(classes) == model.num_classes:
        model.classes = classes
    return model


def _run(
    model: Model,
    settings: RunConfig,
    folder: Path,
    train_data: Dataset,
    val_data: Dataset | None,
    *,
    resume: bool,
    report: bool,
    say: Callable[[str], None] | None,
) -> Run:
    say = say or to_stderr
    began = time.perf_counter()
    spent = _earlier_seconds(folder)
    how = f"saccade train --resume {shlex.quote(str(folder))}"
    count = len(val_data) if val_data else 0
    say(f"{settings.model} on {settings.data}: {len(train_data)} training and {count} validation images -> {folder}")
    for problem in train_data.index.problems[:5]:
        say(f"note: {problem}")
    if len(train_data.index.problems) > 5:
        say(f"note: and {len(train_data.index.problems) - 5} more; saccade data show lists them")
    recipe = settings.recipe
    train_data = learning_view(train_data, settings.model, recipe)
    skipped: dict[str, str] = {}
    try:
        if isinstance(model, StagedModel):
            run_stages(
                model, recipe, folder, train_data, val_data, cache=folder / "cache", seed=settings.seed, resume=resume,
                workers=settings.workers, accelerator=settings.accelerator, how_to_resume=how, say=say,
            )  # fmt: skip
        elif isinstance(model, FittedModel):
            run_fit(model, recipe, folder, train_data, val_data, seed=settings.seed, say=say)
        else:
            skipped = fit(
                model, task_class(model.task), recipe, folder, train_data, val_data, seed=settings.seed, devices=settings.devices,
                accelerator=settings.accelerator, strategy=settings.strategy, workers=settings.workers, resume=resume,
                how_to_resume=how, say=say,
            )  # fmt: skip
    finally:
        write_json(folder / "time.json", {"seconds": spent + time.perf_counter() - began})
    learnt = spent + time.perf_counter() - began

    scored: list[tuple[Prediction, Target]] = []
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    tables: dict[str, Any] = {}
    main = ""
    if val_data is not None:
        evaluation = evaluate_model(
            model,
            val_data,
            batch_size=recipe.batch_size,
            workers=settings.workers,
            watch=lambda p, t: scored.append((p, t)) if len(scored) < 2000 else None,
        )
        metrics, tables, main = evaluation.metrics, evaluation.tables, evaluation.main
        intervals, count = evaluation.intervals, evaluation.images
        skipped |= evaluation.skipped
    save_bundle(
        model, folder / "model", metrics=metrics, data={"source": settings.data, "fingerprint": train_data.fingerprint()},
        seed=settings.seed, training_seconds=round(learnt, 2),
    )  # fmt: skip
    facts = runs.facts() | {
        "model": settings.model, "data": settings.data, "seed": settings.seed, "training_seconds": round(learnt, 2), "main": main,
        "images": {"train": len(train_data), "val": len(val_data) if val_data else 0}, "metrics": metrics, "intervals": intervals,
        "skipped": skipped, "problems": [str(p) for p in train_data.index.problems], "fingerprint": train_data.fingerprint(),
        "adversarial": isinstance(model, AdversarialModel),
    }  # fmt: skip
    if report:
        from saccade.report.evidence_html import write_numbers
        from saccade.report.html import write_report

        write_report(folder / "report.html", facts, settings, runs.read_metrics(folder / "metrics.csv"), tables, scored, model, val_data)
        if val_data is not None:
            write_numbers(folder, metrics, intervals, tables, main, count)
    write_json(folder / "run.json", facts)
    for path, message in skipped.items():
        say(f"skipped: {message or path}")
    score = f"{main} {metrics[main]:.4f} on {settings.val_split}, " if main else ""
    say(f"{score}{learnt:.0f} s of training; model, curves and report: {folder}")
    return Run(folder, metrics)


def learning_view(data: Dataset, model: str, recipe: Recipe) -> Dataset:
    """The training data without instance masks where the model of this name cannot use them: they cost time and memory."""
    entry = find(model)
    tilted = recipe.rotate or recipe.shear  # then a mask gives a tighter box than the box's own corners
    return data.with_boxes_only() if entry.task == "detect" and "masks" not in entry.needs and not tilted else data


def prepare(model: Model, recipe: Recipe, data: Dataset) -> None:
    """Check what the recipe asks of the model and of augmentation, before anything is written."""
    if recipe.class_weights:
        model.count_classes(data)
    model.configure(recipe)
    build_augment(recipe, model.task, data.index.keypoint_swap)


def describe_data(train_data: Dataset, val_data: Dataset | None) -> dict[str, Any]:
    """What a resume and an evaluation must know of the data: fingerprint, classes, and which images were learnt from."""
    return {
        "fingerprint": train_data.fingerprint(),
        "index": train_data.index.records.digest(),
        "classes": list(train_data.classes),
        "train": train_data.map_records(lambda record: record.image_id),
        "val": val_data.map_records(lambda record: record.image_id) if val_data is not None else [],
    }


def _earlier_seconds(folder: Path) -> float:
    """Training time of the interrupted parts of a run."""
    try:
        return float(json.loads((folder / "time.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
