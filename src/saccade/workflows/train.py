"""Train any model on any data: load, check, learn, keep the best, bundle, report."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.transforms.augment import build_augment
from saccade.data.transforms.preprocess import Preprocess
from saccade.engine import run as runs
from saccade.engine.bundle import bundle_folder, describe_bundle, save_bundle
from saccade.engine.callbacks import to_stderr
from saccade.engine.config import RunConfig, resolve
from saccade.engine.evaluator import calibrate, evaluate_model
from saccade.engine.files import write_json
from saccade.engine.lr_finder import RangeTest, range_test
from saccade.engine.run import Run, read_data_facts
from saccade.engine.stages import run_fit, run_stages
from saccade.engine.trainer import check_batch, check_monitor, make_trainer, pick_precision, quiet_lightning, sampling_labels
from saccade.engine.transfer import fit_transfer
from saccade.models.base import AdversarialModel, FittedModel, Model, StagedModel
from saccade.models.detect.base import Detector
from saccade.models.registry import check_options, create_model, find, form_of_weights
from saccade.models.transfer import apply_transfer, frozen_anew, learning
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
    weights: str | Path | None = None,
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
        pretrained, weights: start from published weights; or from a file or the folder of a run of this model, of which all tensors are
            taken that fit (its output only if it has as many classes). Of a run, the model's options and preprocessing are taken too.
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
    settings = resolve_settings(
        model, data, format=format, split_file=split_file, train_split=train_split, val_split=val_split, seed=seed, pretrained=pretrained,
        weights=weights, devices=devices, accelerator=accelerator, strategy=strategy, workers=workers, config=config, options=options,
        **recipe,
    )  # fmt: skip
    check_start(settings)
    entry, resolved = find(model), settings.recipe
    given = (data, validation) if isinstance(data, Dataset) else None
    train_data, val_data = load_splits(settings, entry.task) if given is None else given  # before a folder is made
    task_class(entry.task).check_data(train_data)
    if resolved.calibrate and (val_data is None or entry.task != "classify" or entry.kind != "trainable"):
        raise UsageError("recipe.calibrate is for networks that classify, and needs validation images")
    before_training(train_data, val_data, allow_leaks=allow_leaks, say=say or to_stderr)
    built = build(settings, train_data, say or to_stderr)
    prepare(built, resolved, train_data)
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
    write_json(folder / "data.json", describe_data(train_data, val_data))
    return _run(built, settings, folder, train_data, val_data, resume=False, report=report, say=say)


def resolve_settings(
    model: str,
    data: str | Path | Dataset,
    *,
    split_file: str | Path | None = None,
    config: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    weights: str | Path | None = None,
    pretrained: bool = False,
    format: str | None = None,
    train_split: str = "train",
    val_split: str = "val",
    seed: int = 0,
    strategy: str = "auto",
    workers: int | None = None,
    **recipe: Any,
) -> RunConfig:
    """The resolved configuration of :func:`train`'s arguments; nothing is read but ``config`` and the description of ``weights``."""
    entry = find(model)
    model_options, resolved = resolve(entry, options, config, **recipe)
    if weights is not None:
        model_options = _options_of_run(entry.name, weights) | model_options
    check_batch(resolved, devices)
    if resolved.transfer == "scratch" and (pretrained or weights is not None or any(model_options.get(k) for k in LEARNT)):
        raise UsageError("recipe.transfer=scratch starts from random weights: leave out --pretrained and --weights")
    resolved = resolved.replace(precision=pick_precision(resolved.precision, accelerator))
    return RunConfig(
        model=model, data=repr(data) if isinstance(data, Dataset) else str(data), model_options=model_options, recipe=resolved,
        format=format, split_file=str(split_file) if split_file else None, train_split=train_split, val_split=val_split, seed=seed,
        pretrained=pretrained, weights=str(weights) if weights is not None else None, devices=devices, accelerator=accelerator,
        strategy=strategy, workers=workers,
    )  # fmt: skip


LEARNT = ("pretrained_backbone",)
"""Model options that bring learnt weights."""


def _options_of_run(name: str, weights: str | Path) -> dict[str, Any]:
    """The model's options of the run or bundle that a folder of weights is; {} for a file."""
    if not Path(weights).is_dir():
        return {}
    description = describe_bundle(bundle_folder(weights))
    if description["name"] != name:
        raise UsageError(f"{weights} holds weights of {description['name']}, not of {name}")
    entry = find(name)
    given = {k: v for k, v in description["arguments"].items() if k not in ("num_classes", *LEARNT) and k not in entry.fixed}
    return check_options(entry, given)


def check_start(settings: RunConfig) -> None:
    """UsageError where a transfer has nothing to start from: its frozen parts would stay at random values."""
    given = settings.pretrained or settings.weights or any(settings.model_options.get(name) for name in LEARNT)
    if settings.recipe.transfer in ("features", "finetune") and not given:
        raise UsageError(f"recipe.transfer={settings.recipe.transfer} starts from weights: give --pretrained or --weights FILE|RUN")


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


def find_lr(
    model: str,
    data: str | Path | Dataset,
    *,
    steps: int = 100,
    out: str | Path = "runs",
    folder: str | Path | None = None,
    say: Callable[[str], None] | None = None,
    **arguments: Any,
) -> RangeTest:
    """The learning-rate range test: at most ``steps`` training steps at a rising rate (:mod:`saccade.engine.lr_finder`).

    Nothing is trained: a folder ``out/MODEL-lr-001`` gets ``lr_finder.csv`` and ``lr_finder.png``, no model.

    Args:
        model, data, out, folder, say: as in :func:`train`.
        steps: from rate 1e-6 to 10; at least 10.
        arguments: the others of :func:`train` that decide how a run starts, and fields of the recipe by name.

    Returns:
        Rates and losses by step, and ``suggestion``, the rate of the steepest fall.

    Example:
        >>> saccade.workflows.train.find_lr("lenet5", "set:mnist").suggestion  # doctest: +SKIP
    """
    say = say or to_stderr
    settings = resolve_settings(model, data, **arguments)
    check_start(settings)
    entry = find(model)
    if entry.kind != "trainable":
        raise UsageError(f"{model} does not learn by one optimiser: there is no rate to find")
    train_data = data if isinstance(data, Dataset) else load_splits(settings, entry.task)[0]
    task_class(entry.task).check_data(train_data)
    built = build(settings, train_data, say)
    prepare(built, settings.recipe, train_data)
    folder = Path(folder) if folder is not None else runs.new_folder(Path(out), f"{model}-lr")
    folder.mkdir(parents=True, exist_ok=True)
    found = range_test(
        built, task_class(entry.task), settings.recipe, folder, learning_view(train_data, model, settings.recipe), steps=steps,
        seed=settings.seed, accelerator=settings.accelerator, workers=settings.workers,
    )  # fmt: skip
    found.save(folder)
    told = f"the loss falls fastest at rate {found.suggestion:.2g}: --set recipe.lr={found.suggestion:.2g}"
    say((told if math.isfinite(found.suggestion) else "the loss never falls") + f"; {len(found.rates)} steps, curve: {folder}")
    return found


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
        if Path(settings.weights).is_dir():
            own = describe_bundle(bundle_folder(settings.weights))["preprocess"]
            model.preprocess = Preprocess.from_dict(own | {k: getattr(model.preprocess, k) for k in ("mode", "size", "channels")})
        apply_transfer(model, settings.recipe)
        other = settings.pretrained or any(settings.model_options.get(name) for name in LEARNT)  # then they hold those weights
        if settings.recipe.transfer and not other and (frozen := frozen_anew(model, fresh)):
            some = ", ".join(frozen[:3]) + (", ..." if len(frozen) > 3 else "")
            raise DataError(
                settings.weights, f"does not hold {len(frozen)} tensors that recipe.transfer={settings.recipe.transfer} freezes ({some})",
                hint="they would stay at random values",
            )  # fmt: skip
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
    for note in model.notes(train_data):
        say(f"note: {note}")
    recipe = settings.recipe
    learns, numbers = learning(model)
    if learns < numbers and not isinstance(model, (FittedModel, StagedModel)):
        say(f"{learns:,} of {numbers:,} parameters learn" + (f" (recipe.transfer={recipe.transfer})" if recipe.transfer else ""))
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
            skipped = fit_transfer(
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
    if val_data is not None and recipe.calibrate:
        temperature, before, after = calibrate(model, val_data, batch_size=recipe.batch_size, workers=settings.workers)
        say(f"temperature {temperature:.3f}: the mean -log p of the validation images goes from {before:.4f} to {after:.4f}")
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
        "adversarial": isinstance(model, AdversarialModel), "parameters": {"learn": learns, "all": numbers},
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
    if data.index.format == "mixed" and isinstance(model, Detector) and not model.learns_labels:
        raise UsageError(f"{model.build_name} learns from boxes only; images with a label and no boxes are for yolo9000")
    if recipe.class_weights:
        model.count_classes(data)
    model.learn_from(data)
    model.configure(recipe)
    build_augment(recipe, model.task, data.index.keypoint_swap)
    sampling_labels(data, recipe)


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
