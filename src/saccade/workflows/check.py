"""Before a night of training: what a network would see of these data, what that would cost, and whether it can learn them at all."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data import view
from saccade.data.dataset import Dataset
from saccade.data.inspect import LEVELS, Finding, Inspection, class_counts
from saccade.data.transforms.augment import AugmentedDataset, batch_mix
from saccade.engine.bundle import describe_bundle
from saccade.engine.callbacks import to_stderr
from saccade.engine.config import RunConfig, resolve
from saccade.engine.files import atomic
from saccade.engine.loaders import TrainSampler, worker_count
from saccade.engine.trainer import check_batch, pick_precision
from saccade.models.base import AdversarialModel, FittedModel, Model, StagedModel
from saccade.models.detect.base import Detector
from saccade.models.index import Entry
from saccade.models.registry import find
from saccade.models.registry import options as known_options
from saccade.tasks.base import TrainingError
from saccade.tasks.table import task_class
from saccade.types.errors import DataError, SaccadeError, UsageError
from saccade.types.machine import usable_cores
from saccade.types.sample import IGNORE, Batch, Sample, collate
from saccade.workflows import check_faults as faults
from saccade.workflows.check_steps import IMAGES, Overfit, StepCost, fit_few, measure_step, overfit, part
from saccade.workflows.inspect import training_findings
from saccade.workflows.train import build, learning_view, load_splits, prepare

OPENED = 48
"""Images that are decoded to look at pixels, boxes and masks."""

FITTED = 200
"""Images whose boxes are held against the priors."""

SHOWN = 8
"""Images of the drawn batch."""

LONG = 16.0
"""Hours of training that are more than a night."""

PATIENCE = 20.0
"""Seconds after which no further image is asked what a detector's boxes learn in it."""

SLOW = 5.0
"""Seconds above which a step is measured on two images and scaled to the whole batch."""


@dataclass
class Check(Inspection):
    """What :func:`check` found: ``facts`` (plain values), ``findings`` (the worst first), and ``folder`` with check.html and batch.png."""

    folder: Path | None = None

    @property
    def errors(self) -> list[Finding]:
        """Findings that should stop a training."""
        return [f for f in self.findings if f.level == "error"]

    @property
    def verdict(self) -> str:
        """One line."""
        return str(self.facts["verdict"])


def check(
    model: str | Model,
    data: str | Path | Dataset,
    *,
    validation: Dataset | None = None,
    out: str | Path | None = None,
    format: str | None = None,
    split_file: str | Path | None = None,
    train_split: str = "train",
    val_split: str = "val",
    seed: int = 0,
    pretrained: bool = False,
    weights: str | None = None,
    device: str = "cpu",
    workers: int | None = None,
    config: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    learn: bool = True,
    steps: int = 60,
    seconds: float = 60.0,
    say: Callable[[str], None] | None = None,
    **recipe: Any,
) -> Check:
    """Look at a model and data before they are trained: nothing is trained for good, nothing but ``out`` is written.

    Args:
        model: registered name, or a model that :func:`saccade.create_model` built (it is left as it is).
        data: folder, file, ``set:NAME``, ``synthetic:NAME``, or a Dataset (then perhaps with ``validation``).
        out: folder that gets check.html and batch.png.
        format, split_file, train_split, val_split, seed, pretrained, weights, workers, config, options, recipe: as for training.
        device: "cpu", "cuda", ...: where steps are measured.
        learn: whether the model shall learn a few images by heart.
        steps: optimiser steps of that; seconds: time after which no further step begins.
        say: where progress lines go (default stderr).

    Returns:
        ``facts`` and ``findings``; ``errors`` are those that should stop a training.

    Raises:
        UsageError, DataError: what :func:`saccade.train` would raise before its first step, leaks apart (they are a finding).

    Example:
        >>> found = check("lenet5", "synthetic:shapes?count=40&task=classify", learn=False)
        >>> found.errors, found.facts["cost"]["parameters"]
        ([], 61281)
    """
    say = say or to_stderr
    if steps < 1 or not seconds > 0:
        raise UsageError(f"steps must be at least 1 and seconds above 0, not {steps} and {seconds}")
    entry = find(model if isinstance(model, str) else model.build_name)
    model_options, resolved = resolve(entry, options, config, **recipe)
    if not isinstance(model, str) and model_options:
        raise UsageError(f"model.{next(iter(model_options))} does not apply to a model that is built already")
    check_batch(resolved, 1)
    resolved = resolved.replace(precision=pick_precision(resolved.precision, "cpu" if device == "cpu" else "auto"))
    named = not isinstance(data, Dataset)
    settings = RunConfig(
        model=entry.name, data=str(data) if named else repr(data), model_options=model_options, recipe=resolved, format=format,
        split_file=str(split_file) if split_file else None, train_split=train_split, val_split=val_split, seed=seed,
        pretrained=pretrained, weights=weights, workers=workers,
    )  # fmt: skip
    train_data, val_data = load_splits(settings, entry.task) if named else (data, validation)
    task_class(entry.task).check_data(train_data)  # type: ignore[arg-type]
    work = _Work(entry, settings, train_data, val_data, torch.device(device), say)  # type: ignore[arg-type]
    work.look_at_data()
    if not any(f.kind in ("labels off by one", "label out of range") and f.level == "error" for f in work.findings):
        built = model if isinstance(model, Model) else build(settings, work.train, say)
        work.look_at_model(built, learn=learn, steps=steps, seconds=seconds)
    return work.result(Path(out) if out is not None else None)


class _Work:
    """The steps of a check, and what they have found so far."""

    def __init__(
        self, entry: Entry, settings: RunConfig, train: Dataset, val: Dataset | None, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self.entry, self.settings, self.recipe, self.say, self.device = entry, settings, settings.recipe, say, device
        self.train, self.val = train, val
        self.findings: list[Finding] = []
        self.facts: dict[str, Any] = {
            "model": entry.name, "data": settings.data, "task": entry.task, "seed": settings.seed,
            "images": {"train": len(train)} | ({"val": len(val)} if val is not None else {}), "not_applied": {},
        }  # fmt: skip
        self.drawn: list[Any] = []  # of each image of the batch its pictures
        self.readable: list[int] = []  # positions of the opened images
        self.samples: list[Sample] = []  # some of them

    # -- data -------------------------------------------------------------------------------------

    def look_at_data(self) -> None:
        """Labels, names, leaks, boxes, masks."""
        data, task = self.train, self.entry.task
        wrong = faults.label_range(data) if task in ("classify", "detect") else []
        self.findings += wrong
        self.facts |= {"classes": {}, "counted": "", "verdict": "nothing was tried"}
        if wrong:
            return
        for finding in training_findings(data, self.val):  # what was skipped in reading is told by each command: good to know here
            self.findings.append(dataclasses.replace(finding, level="note") if finding.kind == "reader" else finding)
        samples = self._open(view.choose(data, OPENED))
        self.samples = samples[:: max(1, len(samples) // SHOWN)][:SHOWN]
        counts, what = class_counts(data, data.map_records(lambda r: r), None)
        if task == "segment":
            masks = [np.asarray(s.target["mask"]) for s in samples]
            counts = sum((np.bincount(m[m != IGNORE], minlength=len(data.classes)) for m in masks), np.zeros(len(data.classes), np.int64))
            what = f"pixels in {len(samples)} images"
        if counts is not None and task != "generate":
            self.facts |= {"classes": dict(zip(data.classes, counts.tolist(), strict=True)), "counted": what}
            self.findings += faults.label_shift(counts, data.classes, task)
        self.findings += faults.class_names(data.classes, self._classes_of_weights())
        if task == "detect":
            found, self.facts["boxes"] = faults.box_faults(data, samples)
            self.findings += found

    def _open(self, positions: Sequence[int]) -> list[Sample]:
        """Samples of these images; broken ones become a finding."""
        samples, broken = [], []
        for i in positions:
            try:
                samples.append(self.train[i])
                self.readable.append(i)
            except DataError as error:
                broken.append((i, str(error)))
        if not samples:
            raise DataError(self.settings.data, "none of the images looked at can be read", hint=broken[0][1] if broken else "")
        if broken:
            text = f"of {len(positions)} images looked at cannot be read; training skips them"
            self.findings.append(Finding("broken image", "error", len(broken), text, [p for _, p in broken], [i for i, _ in broken]))
        return samples

    def _classes_of_weights(self) -> list[str] | None:
        """Names that a bundle of weights knows."""
        if self.settings.weights is None:
            return None
        folder = Path(self.settings.weights).parent
        if not (folder / "model.json").is_file():
            return None
        description = describe_bundle(folder)
        return list(description["classes"]) if description.get("classes_known") else None

    # -- model ------------------------------------------------------------------------------------

    def look_at_model(self, model: Model, *, learn: bool, steps: int, seconds: float) -> None:
        """A batch, the fit of sizes, the costs, and a few images by heart."""
        given = model.device
        prepare(model, self.recipe, self.train)
        self.train = learning_view(self.train, self.entry.name, self.recipe)
        self.findings += [Finding("model and data", "note", 1, note) for note in model.notes(self.train)]
        try:
            model.to(self.device)
            # Held against the images as they are: the border that an augmentation leaves would look alike turned and unturned.
            found, self.facts["input"] = faults.input_faults(self.samples, [model.preprocess(s) for s in self.samples], model.preprocess)
            self.findings += found
            batch, load = self._batch(model)
            if self.entry.task == "detect":
                positions = view.choose(self.train, FITTED)
                found, self.facts["fit"] = faults.fit_faults(model, self.train, positions, lambda factor: self._larger(model, factor))
                self.findings += found
            some = [i for i in self.readable if self.entry.task != "detect" or len(faults.labels_of(self.train.record(i)))] or self.readable
            few = self.train.subset([some[k] for k in _spread(len(some), IMAGES)], split="")
            if isinstance(model, (FittedModel, StagedModel)):
                self._fitted(model, few, learn=learn, seconds=seconds)
            else:
                self._trained(model, batch, load, few, learn=learn, steps=steps, seconds=seconds)
        finally:
            model.to(given)

    def _batch(self, model: Model) -> tuple[Batch, float]:
        """The first images that training would draw, as the network gets them; and seconds to load one."""
        augmented = AugmentedDataset(self.train, self.recipe, self.entry.task, seed=self.settings.seed)
        sampler = TrainSampler(len(self.train), min(self.recipe.batch_size, len(self.train)), self.settings.seed)
        order = [key for keys in sampler for key in keys][: max(SHOWN, self.recipe.batch_size)]
        items: list[Any] = []
        times: list[float] = []
        for key in order:
            began = time.perf_counter()
            try:
                items.append(model.preprocess(augmented[key]))
            except DataError:  # told already
                continue
            times.append(time.perf_counter() - began)
        if not items:
            raise DataError(self.settings.data, "none of the images of the first batch can be read")
        batch = collate(items)
        mix = batch_mix(self.recipe, self.entry.task, len(self.train.classes))
        batch = mix(batch) if mix is not None and isinstance(batch.images, torch.Tensor) else batch
        self._draw(model, part(batch, SHOWN))
        return batch, float(np.median(times))

    def _draw(self, model: Model, batch: Batch) -> None:
        """The pictures of a batch, with what a detector's boxes learn; fewer images where a network is slow."""
        from saccade.report.check_html import Shot, draw_shot

        assigned: list[Any] = [() for _ in batch.targets]
        if isinstance(model, Detector):
            assigned, until, training = [], time.monotonic() + PATIENCE, model.training
            model.eval()
            for image, target, geometry in zip(batch.images, batch.targets, batch.geometries, strict=True):
                one = collate([(image.to(self.device), target, geometry)])  # one by one: less memory than a training step
                assigned += model.assignments(one.images, one.targets)
                if time.monotonic() > until:
                    break
            model.train(training)
            found, self.facts["assigned"] = faults.unassigned(assigned)
            self.findings += found
        for image, target, stages in zip(batch.images, batch.targets, assigned, strict=False):
            shot = Shot(self.entry.task, faults.to_pixels(image, model.preprocess), target, stages)
            self.drawn.append(draw_shot(shot, self.train.classes))

    def _larger(self, model: Model, factor: float) -> str:
        """How to make objects so many times as large in the input."""
        known = known_options(self.entry)
        name = next((n for n in ("size", "min_size") if n in known), None)
        now = model.preprocess.size[0]
        if name is None or factor <= 1:
            return "use larger pictures of the objects, or cut the images into tiles"
        wanted = min(math.ceil(now * factor / 32) * 32, 4096)
        height, width = self.train[self.readable[0]].image.shape[-2:]
        scale = model.preprocess.geometry((height, width)).scale[0]
        more = "; that is more than the images have: cut them into tiles, or take them closer" if scale * wanted / now > 1.5 else ""
        return f"try model.{name}={wanted} (now {now}){more}"

    def _fitted(self, model: FittedModel | StagedModel, few: Dataset, *, learn: bool, seconds: float) -> None:
        """Models without a batch."""
        lacking = self.facts["not_applied"]
        how = "is fitted" if isinstance(model, FittedModel) else "learns in stages, each with its own data"
        lacking["batch"] = f"{self.entry.name} {how}: the batch shows images and truth, there is no training step to measure"
        if isinstance(model, StagedModel):
            lacking["overfit"] = f"{self.entry.name} {how}: a few images by heart say nothing"
            self.facts["verdict"] = "data looked at; whether it learns was not tried"
            return
        if not learn:
            self._not_asked()
            return
        self.say(f"fitting {len(few)} images; given up after about {seconds:.0f} s")
        try:
            done = fit_few(copy.deepcopy(model), few, seconds=seconds, seed=self.settings.seed)
        except SaccadeError as error:
            done = Overfit(len(few), problem="does not learn", text=str(error))
        self._judge(done)

    def _trained(self, model: Model, batch: Batch, load: float, few: Dataset, *, learn: bool, steps: int, seconds: float) -> None:
        """Models that learn by gradient."""
        self._note_frozen(model)
        self.say("measuring a training step")
        try:
            cost = self._cost(model, batch, load)
        except TrainingError as error:
            self._judge(Overfit(problem="frozen network", text=str(error)))
            return
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            text = f"a step does not fit into memory: lower recipe.batch_size ({self.recipe.batch_size}) or the input's size"
            self.findings.append(Finding("memory", "error", 1, text))
            self.facts["verdict"] = "whether it learns was not tried"
            return
        if isinstance(model, AdversarialModel):
            self.facts["not_applied"]["overfit"] = "two players with opposed losses: a falling loss says nothing"
            self.facts["verdict"] = "data looked at; whether it learns was not tried"
        elif not learn:
            self._not_asked()
        else:
            self.say(f"learning {len(few)} images by heart: at most {steps} steps and about {seconds:.0f} s")
            done = overfit(
                model, self.recipe, few, steps=steps, seconds=seconds, step_seconds=cost.seconds / cost.batch, seed=self.settings.seed
            )  # fmt: skip
            self._judge(done)

    def _note_frozen(self, model: Model) -> None:
        """Frozen parts are meant to hold learnt values; at random ones they are a mistake."""
        frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        everything = sum(p.numel() for p in model.parameters())
        learnt = self.settings.pretrained or self.settings.weights or self.settings.model_options.get("pretrained_backbone")
        if 0 < frozen < everything and not learnt:
            text = f"{frozen:,} of {everything:,} parameters get no gradient, and no weights were loaded: they stay at random values"
            self.findings.append(Finding("frozen at random", "warning", frozen, text))

    def _cost(self, model: Model, batch: Batch, load: float) -> StepCost:
        """Memory, time and disk; findings where they are not there."""
        size = min(self.recipe.batch_size, len(self.train))
        cost = measure_step(model, self.recipe, part(batch, min(2, size)), size)
        if cost.seconds < SLOW and size > cost.measured:
            cost = measure_step(model, self.recipe, batch, size)
        workers = worker_count(self.settings.workers, len(self.train))
        steps = len(TrainSampler(len(self.train), size, 0))
        wait = max(load * size / max(workers, 1), cost.seconds) if workers else load * size + cost.seconds
        validation = (len(self.val) if self.val is not None else 0) * (cost.predict_seconds + load / max(workers, 1))
        epoch = steps * wait + validation / self.recipe.validate_every
        disk = cost.checkpoint * (2 if self.val is not None else 1) + cost.weights
        self.facts["cost"] = dataclasses.asdict(cost) | {
            "memory": cost.memory, "load_seconds": load * size, "workers": workers, "steps": steps, "epoch_seconds": epoch,
            "epochs": self.recipe.epochs, "total_seconds": epoch * self.recipe.epochs, "disk": disk, "device": str(self.device),
            "parameters": sum(p.numel() for p in model.parameters()),
        }  # fmt: skip
        there = _memory(self.device)
        if there and cost.memory > 0.9 * there:
            text = (
                f"a step needs about {cost.memory / 1e9:.1f} GB of {there / 1e9:.1f}: lower recipe.batch_size ({size}) or the input's size"
            )
            self.findings.append(Finding("memory", "error", 1, text))
        hours = epoch * self.recipe.epochs / 3600
        if hours > LONG:
            text = (
                f"the recipe takes about {hours:.0f} hours here: take a smaller input, fewer recipe.epochs ({self.recipe.epochs}), or a GPU"
            )
            self.findings.append(Finding("long training", "warning", 1, text))
        free = shutil.disk_usage(Path()).free
        if disk > 0.9 * free:
            text = f"a run writes about {disk / 1e9:.1f} GB, free are {free / 1e9:.1f} here"
            self.findings.append(Finding("disk", "error", 1, text))
        return cost

    def _not_asked(self) -> None:
        self.facts["not_applied"]["overfit"] = "learning a few images by heart was not asked for"
        self.facts["verdict"] = "data looked at; whether it learns was not tried"

    def _judge(self, done: Overfit) -> None:
        """What came of learning by heart, as facts, finding and verdict."""
        name = self.entry.name
        self.facts["overfit"] = dataclasses.asdict(done) | {"fall": done.fall}
        if done.problem in ("frozen network", "loss is no number", "does not learn"):
            self.findings.append(Finding(done.problem, "error", 1, done.text))
            self.facts["verdict"] = f"{name} cannot learn these data as it is: {done.problem}"
        elif done.problem:
            level = "warning" if done.problem == "learns slowly" else "note"
            self.findings.append(Finding(done.problem, level, 1, done.text))
            self.facts["verdict"] = f"whether {name} can learn these data is not sure: {done.problem}"
        else:
            self.facts["verdict"] = f"{name} can learn these data"
            if done.losses and done.after <= done.before:
                text = (
                    f"the loss falls, but {done.metric} on the very images it learnt is {done.after:.3f} (before {done.before:.3f}) after "
                    f"{len(done.losses)} steps: a few more (--steps) should raise it"
                )
                self.findings.append(Finding("metric does not rise", "note", 1, text))

    # -- result -----------------------------------------------------------------------------------

    def result(self, out: Path | None) -> Check:
        """Everything, and the page."""
        self.findings.sort(key=lambda f: (LEVELS.index(f.level), -f.count))
        other = {f.kind for f in self.findings if f.level == "error"} - {self.facts.get("overfit", {}).get("problem")}
        if other:
            self.facts["verdict"] += f"; but first look at: {', '.join(sorted(other))}"
        self.facts["machine"] = {"device": str(self.device), "cores": usable_cores(), "threads": torch.get_num_threads()}
        check = Check(self.facts, self.findings, out)
        if out is not None:
            from saccade.report.check_html import sheet, write_check

            out.mkdir(parents=True, exist_ok=True)
            if self.drawn:
                with atomic(out / "batch.png") as temporary:
                    sheet(self.drawn).save(temporary, format="PNG")
            write_check(out / "check.html", check, self.drawn)
        return check


def _spread(length: int, count: int) -> list[int]:
    """At most so many positions, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


def _memory(device: torch.device) -> int:
    """Bytes of memory of a device, or 0 where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def summary(found: Check) -> list[str]:
    """The check as lines for a terminal."""
    from saccade.report.check_html import cost_rows

    facts = found.facts
    lines = [f"{facts['model']} on {facts['data']}: {', '.join(f'{n} {split}' for split, n in facts['images'].items())} images"]
    if "input" in facts:
        seen = facts["input"]
        low, high = seen["pixel_range"]
        lines.append(f"  input {'x'.join(map(str, seen['shape']))}, back in pixels {low:.0f} to {high:.0f}, {seen['order'] or 'grey'}")
    for name, one in (facts.get("assigned") or {}).items():
        lines.append(f"  {name}: {one['median']:g} an object (median), {one['without']} of {one['objects']} objects have none")
    if facts.get("fit"):
        fit = facts["fit"]
        line = f"  objects: median side {fit['side']['50']:.0f} pixels in the input, {100 * fit['below_8_pixels']:.0f} % below 8"
        if "taken" in fit:
            how = "hold a prior's centre" if fit["threshold"] is None else f"overlap a prior by {fit['threshold']:g} or more"
            line += f"; {100 * fit['taken']:.0f} % {how}"
        lines.append(line)
    if facts.get("cost"):
        lines += [f"  {name}: {text}" for name, text in cost_rows(facts).items()]
    test = facts.get("overfit")
    if test and test["losses"]:
        lines.append(f"  by heart: {test['text']}; {test['metric']} on them {test['before']:.3f} -> {test['after']:.3f}")
    elif test and not test["problem"]:
        lines.append(f"  by heart: {test['text']}")
    lines += [f"  not applied: {text}" for text in facts["not_applied"].values()]
    for finding in found.findings:
        lines.append(str(finding))
        lines += [f"    {place}" for place in finding.examples[:3]]
    return [*lines, found.verdict]
