"""What a training step costs, and whether a handful of images can be learnt by heart."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from saccade.data.dataset import Dataset
from saccade.engine.evaluator import evaluate_model
from saccade.engine.loaders import EvalView, collate_eval
from saccade.models.base import AdversarialModel, FittedModel, Model
from saccade.tasks.base import TrainingError, make_optimizer
from saccade.types.recipe import Recipe
from saccade.types.sample import Batch

IMAGES = 8
"""Images that the model is asked to learn by heart, where time allows."""

LEAST_STEPS = 20
"""Steps without which nothing is said about learning: fewer images are taken until so many fit into the time."""

SLOWEST = 10.0
"""Seconds of a first step after which no second one is measured."""

LEARNT, UNLEARNT = 0.3, 0.05
"""Share by which the loss falls when a model learns, and below which it does not."""

DONE = 0.05
"""The test ends early when the loss is below this share of the first one."""


# -- one step -------------------------------------------------------------------------------------


def all_losses(model: Model, images: Any, targets: list[Any]) -> Tensor:
    """The sum that training minimises; of two players' losses both."""
    if isinstance(model, AdversarialModel):
        losses = {f"{p}/{k}": v for p in model.players for k, v in model.player_losses(p, images, targets).items()}
    else:
        losses = model.losses(images, targets)
    return torch.stack([value.float() for value in losses.values()]).sum()


def to_device(batch: Batch, device: torch.device) -> tuple[Any, list[Any]]:
    """Images and targets where the model is."""
    images = batch.images.to(device) if isinstance(batch.images, Tensor) else [image.to(device) for image in batch.images]
    return images, [{k: v.to(device) if isinstance(v, Tensor) else v for k, v in target.items()} for target in batch.targets]


def part(batch: Batch, count: int) -> Batch:
    """The first images of a batch."""
    return Batch(batch.images[:count], batch.targets[:count], batch.geometries[:count])


def precision_context(precision: str, device: torch.device) -> Any:
    """Autocast as the trainer's precision asks."""
    if precision == "32-true":
        return nullcontext()
    half = torch.float16 if precision == "16-mixed" and device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=half)


def tensor_bytes(tensors: Any) -> int:
    """Bytes of the tensors among some values."""
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


class SavedBytes:
    """Counts what a forward pass keeps for its backward pass: each storage once, without what is known already (weights, images)."""

    def __init__(self, known: Any) -> None:
        self._known = {t.untyped_storage().data_ptr() for t in known}
        self._seen: dict[int, int] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(self._seen.values())


@dataclass(frozen=True)
class StepCost:
    """What a training step costs. Bytes; ``measured`` images were in it, ``batch`` are in the recipe's.

    Attributes:
        seconds: of a step of ``batch`` images (scaled from ``measured``).
        predict_seconds: of losses and predictions of one image, as in validation.
        weights: parameters and buffers. gradients, optimizer: their sizes. kept: results that the backward pass needs, scaled.
        images: the batch itself.
        images: the batch itself. averaged: a second set of weights where the recipe averages them.
        peak: most that the GPU held, None on a CPU.
    """

    measured: int
    batch: int
    seconds: float
    predict_seconds: float
    weights: int
    gradients: int
    optimizer: int
    kept: int
    images: int
    averaged: int
    peak: int | None

    @property
    def memory(self) -> int:
        """Predicted peak of a step: everything at once; temporary workspaces of kernels come on top."""
        return self.weights + self.gradients + self.optimizer + self.kept + self.images + self.averaged

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return self.weights + self.optimizer + self.averaged


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, the model may be trained; afterwards its weights, buffers, gradients and mode are as they were."""
    before = {name: value.detach().clone() for name, value in model.state_dict(keep_vars=False).items()}
    training = model.training
    try:
        yield
    finally:
        model.load_state_dict(before)
        model.zero_grad(set_to_none=True)
        model.train(training)


def measure_step(model: Model, recipe: Recipe, batch: Batch, count: int) -> StepCost:
    """Time and memory of a step of ``count`` images, measured on the batch given (at most so many); the model stays as it is.

    Raises:
        TrainingError: no parameter takes a gradient.
    """
    device, measured = model.device, min(len(batch.targets), count)
    images, targets = to_device(part(batch, measured), device)
    pixels = tensor_bytes(images if isinstance(images, list) else [images])
    with untouched(model):
        optimizer = make_optimizer(model, recipe)
        model.train()
        known = [*model.parameters(), *model.buffers(), *(images if isinstance(images, list) else [images])]
        saved, seconds = SavedBytes(known), 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for attempt in range(2):  # the first one allocates and chooses kernels
            began = _now(device)
            optimizer.zero_grad(set_to_none=True)
            hooks = torch.autograd.graph.saved_tensors_hooks(saved, _same) if attempt == 0 else nullcontext()
            with precision_context(recipe.precision, device), hooks:
                loss = all_losses(model, images, targets)
            if not loss.requires_grad:
                raise TrainingError(f"the losses of {type(model).__name__} do not depend on any of its parameters")
            loss.backward()
            optimizer.step()
            seconds = _now(device) - began
            if seconds > SLOWEST:
                break
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        gradients = tensor_bytes(p.grad for p in model.parameters())
        state = tensor_bytes(value for slot in optimizer.state.values() for value in slot.values())
        predict_seconds = 0.0
        if not isinstance(model, AdversarialModel):
            model.eval()
            with torch.inference_mode():
                began = _now(device)
                all_losses(model, images, targets)
                model.predict_batch(images, batch.geometries[:measured], score=0.001, iou=0.5, max_detections=100)
                predict_seconds = (_now(device) - began) / measured
    weights, scale = tensor_bytes([*model.parameters(), *model.buffers()]), count / measured
    return StepCost(
        measured, count, seconds * scale, predict_seconds, weights, gradients, state, round(saved.total * scale), round(pixels * scale),
        weights if recipe.ema else 0, peak,
    )  # fmt: skip


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# -- by heart -------------------------------------------------------------------------------------


@dataclass
class Overfit:
    """What came of learning a few images by heart.

    Attributes:
        images: how many; seconds: how long it took.
        asked: steps that were asked for. losses: the loss at each step; batches: how many different ones take turns.
        metric: name of the task's main metric; before, after: its value on these images.
        frozen: parameters (numbers) without gradient; parameters: all.
        unmoved: names of trainable parameters that kept their values.
        problem: kind of what went wrong, or "": "frozen network", "loss is no number", "does not learn", "learns slowly", "too few steps".
        text: what that means, in a line.
    """

    images: int = 0
    seconds: float = 0.0
    asked: int = 0
    losses: list[float] = field(default_factory=list)
    batches: int = 1
    metric: str = ""
    before: float = float("nan")
    after: float = float("nan")
    frozen: int = 0
    parameters: int = 0
    unmoved: list[str] = field(default_factory=list)
    problem: str = ""
    text: str = ""

    @property
    def fall(self) -> float:
        """Share by which the loss fell: 1 is to nothing, below 0 it rose."""
        first, last = self.ends
        return 1 - last / first if first else 0.0

    @property
    def ends(self) -> tuple[float, float]:
        """Mean loss over all batches at first, and at last."""
        first, last = self.losses[: self.batches], self.losses[-max(self.batches, len(self.losses) // 10) :]
        return sum(first) / max(len(first), 1), sum(last) / max(len(last), 1)


def overfit(model: Model, recipe: Recipe, data: Dataset, *, steps: int, seconds: float, step_seconds: float, seed: int = 0) -> Overfit:
    """Train on a few images without augmentation, with the model's losses and the recipe's optimiser; the model stays as it is.

    The rate rises linearly over the first tenth of the steps and stays. Fewer images are taken where ``LEAST_STEPS`` would not fit.

    Args:
        data: the images, in original pixels.
        steps: optimiser steps; seconds: time after which no further step begins.
        step_seconds: of one image in a step, as measured.
    """
    most, least = min(IMAGES, len(data)), min(2, len(data))
    fitting = (n for n in (most, 4) if n <= most and min(n, recipe.batch_size) * step_seconds * min(steps, LEAST_STEPS) <= seconds)
    data = data.subset(range(next(fitting, least)))
    out = Overfit(len(data), asked=steps, parameters=sum(p.numel() for p in model.parameters()))
    out.frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    began = time.monotonic()
    with untouched(model):
        out.metric, out.before = _score(model, data)
        try:
            _learn(model, recipe, data, out, steps, began + seconds, seed)
        except TrainingError as error:  # nothing to train
            out.problem, out.text = "frozen network", str(error)
            return out
        if not out.problem:
            out.after = _score(model, data)[1]
    out.seconds = time.monotonic() - began
    if not out.problem:
        out.problem, out.text = _judge(out, recipe)
    return out


def _learn(model: Model, recipe: Recipe, data: Dataset, out: Overfit, steps: int, until: float, seed: int) -> None:
    """The steps; losses and what stood still into ``out``."""
    view = EvalView(data, model.preprocess)
    items = [view[i] for i in range(len(view))]
    size = min(recipe.batch_size, len(items))
    batches = [to_device(collate_eval(items[i : i + size]), model.device) for i in range(0, len(items) - size + 1, size)]
    out.batches = len(batches)
    optimizer, warmup = make_optimizer(model, recipe), max(steps // 10, 1)
    rates = [group["lr"] for group in optimizer.param_groups]
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    model.train()
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min((step + 1) / warmup, 1.0)
        torch.manual_seed(seed * 1_000_003 + step)
        loss = all_losses(model, *batches[step % len(batches)])
        out.losses.append(float(loss.detach()))
        if not torch.isfinite(loss):
            out.problem = "loss is no number"
            out.text = (
                f"the loss became {out.losses[-1]} at step {step}: lower recipe.lr ({recipe.lr:g}), set recipe.clip=1, or look at the batch"
            )
            return
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        settled = len(out.losses) >= LEAST_STEPS and sum(out.losses[-3:]) / 3 < DONE * out.losses[0]
        if settled or time.monotonic() > until:
            break
    current = dict(model.named_parameters())
    out.unmoved = [name for name, value in start.items() if torch.equal(current[name], value)]
    if len(out.unmoved) == len(start):
        out.problem = "frozen network"
        out.text = "no parameter changed in training" + (": recipe.lr is 0" if not recipe.lr else ": no gradient reaches any of them")


def _judge(out: Overfit, recipe: Recipe) -> tuple[str, str]:
    first, last = out.ends
    told = f"in {len(out.losses)} steps on {out.images} images the loss went from {first:.4g} to {last:.4g}"
    if out.fall >= LEARNT or out.after - out.before >= LEARNT:
        return "", told
    if len(out.losses) < LEAST_STEPS:
        needed = math.ceil(1.1 * out.seconds / len(out.losses) * LEAST_STEPS)
        more = f"--steps {LEAST_STEPS} or more" if out.asked < LEAST_STEPS else f"about --seconds {needed}"
        return "too few steps", f"{told}: too few steps to say anything; {more} would give enough"
    if out.fall < UNLEARNT:
        advice = (
            "it rises: lower recipe.lr" if out.fall < -UNLEARNT else "it does not fall: look at the batch, at recipe.lr and at the loss"
        )
        return "does not learn", f"{told} (recipe.lr {recipe.lr:g}); {advice}"
    return "learns slowly", f"{told}: try more --steps before a long training, or a larger recipe.lr ({recipe.lr:g})"


class _TimeIsUp(Exception):
    """Raised inside a fit from its own progress report."""


def fit_few(model: FittedModel, data: Dataset, *, seconds: float, seed: int = 0) -> Overfit:
    """The same question to a model that is fitted: does it find what it was fitted to? Given up at its next report after the time."""
    out = Overfit(len(data), parameters=0)
    began = time.monotonic()

    def log(name: str, values: Any) -> None:
        if time.monotonic() - began > seconds:
            raise _TimeIsUp(name)

    try:
        model.fit(data, seed=seed, log=log)
        out.metric, out.after = _score(model, data)
    except _TimeIsUp:
        out.problem, out.text = "too few steps", f"a fit on {len(data)} images was not done after {seconds:.0f} s"
    out.seconds = time.monotonic() - began
    if not out.problem:
        out.text = f"fitted to {out.images} images in {out.seconds:.1f} s; {out.metric} on them {out.after:.3f}"
        if not out.after > 0:
            out.problem = "does not learn"
    return out


def _score(model: Model, data: Dataset) -> tuple[str, float]:
    """Main metric of the task on some images."""
    scored = evaluate_model(model, data, batch_size=IMAGES, workers=0, intervals=False)
    return scored.main, scored.metrics[scored.main]
