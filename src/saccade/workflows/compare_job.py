"""One run of a comparison, in a process of its own: train (or go on), evaluate, measure.

A job's folder holds ``job.json`` (what to do, written by the queue), ``run/`` (as ``saccade train`` leaves it; its checkpoints go when
the run is done), ``log.txt`` (what the process said), and at the end ``result.json``, written last and atomically, so that its presence
means done; or ``error.json``, one line, when it failed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.engine import run as runs
from saccade.engine.bundle import load_bundle
from saccade.engine.callbacks import Interrupted, to_stderr
from saccade.engine.config import RunConfig, resolve
from saccade.engine.evaluator import evaluate_model
from saccade.engine.files import write_json
from saccade.engine.loaders import eval_loader, worker_count
from saccade.engine.run import Run, open_run
from saccade.engine.trainer import fit, pick_precision
from saccade.models.base import AdversarialModel, FittedModel, Model, StagedModel
from saccade.models.registry import find
from saccade.report.html import goodness
from saccade.tasks.table import task_class
from saccade.types.errors import DataError, SaccadeError, one_line
from saccade.types.prediction import Prediction
from saccade.types.recipe import EVALUATION
from saccade.types.sample import Target
from saccade.workflows.models import multiply_adds
from saccade.workflows.train import build, learning_view, load_splits, prepare, resume, train

GRACE = 60.0
"""Seconds that a job may take to write its checkpoint when it is asked to stop."""

MOST_SCORES = 20_000
"""Images whose own scores are kept: from them the pictures where models disagree are chosen."""

THROUGHPUT_BATCH = 8
SPEND = 0.9
"""Share of a budget that epochs may fill; the rest is for starting and for checkpoints."""


def main(folder: Path) -> None:
    """Do the job of a folder; exit status 0 and result.json, or 1 and error.json."""
    stop_with_parent()
    with locked(folder / "lock"):  # one that is still stopping, of a queue that was killed, goes first
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        try:
            result = calibrate(job) if job["what"] == "calibrate" else compete(job, folder)
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            sys.exit(1)
        except Exception as error:
            if not isinstance(error, SaccadeError):
                traceback.print_exc()
            text = str(error) if isinstance(error, SaccadeError) else f"{type(error).__name__}: {error}"
            write_json(folder / "error.json", {"error": one_line(text)})
            sys.exit(1)
        write_json(folder / "result.json", result)


def stop_with_parent() -> None:
    """End this process, after a checkpoint, when the queue is gone, however it went: its end of the pipe at stdin closes."""

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; the system frees it when the process ends in any way.

    Raises:
        BlockingIOError: another process holds it and ``wait`` is False.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two queues off one folder there
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def compete(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, evaluate on the comparison's split, measure."""
    run = trained(job, folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_bundle(run.folder, device)
    data = load_data(job["data"], job["split"], format=job["format"], split_file=job["split_file"], task=model.task)
    scores: list[list[Any]] = []

    def watch(prediction: Prediction, truth: Target) -> None:
        if len(scores) < MOST_SCORES:
            scores.append([str(truth["image_id"]), round(float(goodness(prediction, truth)), 6)])

    adversarial = isinstance(model, AdversarialModel)
    evaluation = evaluate_model(model, data, workers=job["workers"], watch=None if adversarial else watch)
    facts = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    kept = json.loads((folder / "trained.json").read_text()) if (folder / "trained.json").is_file() else {}
    learned = not isinstance(model, (FittedModel, StagedModel))
    result = {
        "metrics": evaluation.metrics,
        "intervals": evaluation.intervals,
        "main": evaluation.main,
        "images": evaluation.images,
        "scores": scores,
        "skipped": len(evaluation.skipped),
        "epochs": run.config.recipe.epochs if learned else None,
        "training_images": facts["images"]["train"],
        "training_seconds": facts["training_seconds"],
        "memory_bytes": kept.get("memory_bytes"),
        "resumed": kept.get("resumed", False),
        "parameters": count_parameters(model),
        "bundle_bytes": sum(f.stat().st_size for f in (run.folder / "model").iterdir() if f.is_file()),
        "machine": runs.machine(),
        **speed(model, data),
    }
    try:
        result["macs"] = multiply_adds(model.cpu())
    except Exception as error:  # a third party's network may want more than an image: a missing number is no failed run
        to_stderr(f"multiply-adds not counted: {type(error).__name__}: {one_line(error, 120)}")
        result["macs"] = None
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # the bundle holds the model
    return result


def trained(job: dict[str, Any], folder: Path) -> Run:
    """The finished run: found, gone on with, or begun."""
    target = folder / "run"
    if (target / "run.json").is_file():
        return open_run(target)
    run = None
    if (target / "config.yaml").is_file() and (target / "data.json").is_file():
        try:
            run = resume(target)
        except DataError as error:
            to_stderr(f"cannot go on, begins anew: {error}")
    resumed = run is not None  # after a kill the training time lacks what was done before it
    if run is None:
        shutil.rmtree(target, ignore_errors=True)
        run = train(
            job["model"], job["data"], folder=target, format=job["format"], split_file=job["split_file"], val_split=job["val_split"],
            seed=job["seed"], workers=job["workers"], options=job["options"], allow_leaks=job["allow_leaks"],
        )  # fmt: skip
    write_json(folder / "trained.json", {"memory_bytes": peak_memory(), "resumed": resumed})
    return run


def peak_memory() -> int | None:
    """The most that this process has held: on the GPU where there is one, else in main memory where the system tells it."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def count_parameters(model: Model) -> int:
    """Numbers that were learnt: parameters, and what a fitted model keeps in buffers."""
    buffers = dict(model.named_buffers())
    return sum(p.numel() for p in model.parameters()) + sum(buffers[name].numel() for name in model.fitted_buffers if name in buffers)


def speed(model: Model, data: Dataset) -> dict[str, float | None]:
    """Median time of one preprocessed image through the network and its decoding, and images a second in batches."""
    if isinstance(model, AdversarialModel):
        return _speed(lambda n: model.sample(n, seed=0))
    positions = np.arange(max(len(data), THROUGHPUT_BATCH)) % len(data)
    for batch in eval_loader(data.subset(positions[:64]), model.preprocess, THROUGHPUT_BATCH, workers=0):
        if len(batch.targets) == THROUGHPUT_BATCH:
            return _speed(lambda n, b=batch: model.predict_batch(b.images[:n], b.geometries[:n], **asdict(EVALUATION)))
    return {"latency_ms": None, "images_per_second": None}


def _speed(step: Any) -> dict[str, float | None]:
    with torch.inference_mode():
        one, several = _median_seconds(step, 1), _median_seconds(step, THROUGHPUT_BATCH)
    return {"latency_ms": 1000 * one, "images_per_second": THROUGHPUT_BATCH / several}


def _median_seconds(step: Any, images: int, *, limit: float = 3.0, repeats: int = 50, warm: int = 3) -> float:
    """Median over at most ``repeats`` calls in about ``limit`` seconds, after warm-up; of a slow model over what that leaves."""
    step(images)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < warm + repeats and (not times or time.perf_counter() - began < limit):
        start = time.perf_counter()
        step(images)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[warm:] or times))


def seconds_per_step(seconds: Callable[[int], float], *, most: int = 2000) -> float:
    """What a further step of training costs, where ``seconds`` of some steps includes a start and an end that cost the same for any number.

    Steps are added until they make up most of the time: the difference of two equal times is what else the machine did meanwhile.

    >>> round(seconds_per_step(lambda steps: 2.0 + 0.01 * steps), 6)
    0.01
    """
    few, steps = seconds(2), 6
    while (more := seconds(steps)) < 2 * few and steps < most:
        steps *= 3
    return max((more - few) / (steps - 2), 1e-5) if more > few else more / steps


def calibrate(job: dict[str, Any]) -> dict[str, Any]:
    """How many epochs fit into a budget here: a few steps through the trainer itself, and some validation images, are timed."""
    entry = find(job["model"])
    options, recipe = resolve(entry, job["options"])
    recipe = recipe.replace(precision=pick_precision(recipe.precision, "auto"))
    settings = RunConfig(
        model=job["model"], data=job["data"], model_options=options, recipe=recipe, format=job["format"], split_file=job["split_file"],
        val_split=job["val_split"], workers=job["workers"],
    )  # fmt: skip
    train_data, val_data = load_splits(settings, entry.task)
    model = build(settings, train_data)
    prepare(model, recipe, train_data)
    train_data = learning_view(train_data, job["model"], recipe)
    batch = min(recipe.batch_size, len(train_data))
    workers = worker_count(job["workers"], len(train_data))

    def seconds(steps: int) -> float:
        some = train_data.subset(np.arange(steps * batch) % len(train_data))
        with tempfile.TemporaryDirectory() as scratch:
            began = time.perf_counter()
            fit(
                model, task_class(model.task), recipe.replace(epochs=1), Path(scratch), some, None, workers=workers, say=lambda _: None
            )  # fmt: skip
            return time.perf_counter() - began

    seconds(1)  # warm-up
    step = seconds_per_step(seconds)
    steps = max(len(train_data) // batch, 1)
    validation = 0.0
    if val_data is not None:
        some = val_data.subset(np.arange(min(len(val_data), 2 * recipe.batch_size)))
        evaluate_model(model, some, batch_size=recipe.batch_size, workers=0, intervals=False)
        scored = evaluate_model(model, some, batch_size=recipe.batch_size, workers=0, intervals=False)
        validation = scored.seconds / len(some) * len(val_data)
    epoch = steps * step + validation / recipe.validate_every
    return {
        "epochs": int(min(max(SPEND * job["budget"] / epoch, 1), 1_000_000)),
        "step_seconds": round(step, 6),
        "steps_per_epoch": steps,
        "validation_seconds": round(validation, 4),
        "epoch_seconds": round(epoch, 4),
        "machine": runs.machine(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
