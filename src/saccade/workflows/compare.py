"""``compare``: several systems on one's own data under one protocol: the same splits, the same evaluator, each its own recipe, seeds.

A run is a (model, seed, share of the training images), done by a process of its own (:mod:`saccade.workflows.compare_job`). The folder:

=======================  ===============================================================================================
``runs/KEY/``            one a run; KEY is a hash of model, options, recipe, seed, data and version, so that a finished
                         run is never run again and a changed one is another run
``splits/SHARE.json``    the images of each split, the same for all models and seeds
``plan.json``            with a budget: the epochs of each model as they were calibrated, kept on a restart or another machine
``table.md .csv .json``  written anew after every finished run
``index.html``           the page, when all is done
=======================  ===============================================================================================

Whatever stops it, the same call goes on: at most the running models' work since their last checkpoints is lost.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data import view
from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.splits import write_split_file
from saccade.engine import run as runs
from saccade.engine.bundle import load_bundle
from saccade.engine.callbacks import to_stderr
from saccade.engine.config import parse_sets, resolve
from saccade.engine.files import plain, write_json, write_text
from saccade.metrics.base import LOWER_IS_BETTER, NO_SHARE
from saccade.models.registry import find
from saccade.report import compare_html
from saccade.tasks.table import task_class
from saccade.types.errors import DataError, UsageError, one_line, suggest
from saccade.types.recipe import Recipe
from saccade.types.sample import Sample
from saccade.workflows.compare_job import GRACE, locked

ALL = "*"
"""Key of ``options`` whose overrides hold for every model."""

SHOWN = 6
"""Images of each section of the page."""

Values = dict[str, Any]


@dataclass
class Comparison:
    """What a comparison leaves.

    Attributes:
        folder: where everything lies; ``folder / "index.html"`` is the page.
        metric: what the models are ranked by.
        rows: a dict a model, best first, as in table.json.
        facts: what was compared, where and how.
        learning: (training images, metric) by model, where several shares of the data were asked for.
    """

    folder: Path
    metric: str
    rows: list[Values]
    facts: Values
    learning: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """Name of the best model; "" when none has finished."""
        return next((row["model"] for row in self.rows if row["best"]), "")

    @property
    def failures(self) -> dict[str, str]:
        """Error by model."""
        return {row["model"]: row["error"] for row in self.rows if row["error"]}

    def __repr__(self) -> str:
        shown = ", ".join(f"{row['model']} {row['value']:.4f}" for row in self.rows[:4])
        return f"<Comparison by {self.metric}: {shown}>"


@dataclass
class _Model:
    """A system that takes part: ``given`` are its dotted overrides, ``recipe`` and ``options`` what they come to.

    ``name`` is what the table calls it, ``system`` the registered name.
    """

    name: str
    system: str
    kind: str
    given: Values
    options: Values = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    error: str = ""

    @property
    def asked(self) -> str:
        """The overrides as a person gives them, but for the epochs, which the table has."""
        return " ".join(f"{key}={value}" for key, value in self.given.items() if key != "recipe.epochs")

    @property
    def has_epochs(self) -> bool:
        """Whether its training is as long as one says; fitted and staged systems have their own length."""
        return self.kind in ("trainable", "adversarial")


@dataclass(frozen=True, eq=False)
class _Job:
    name: str
    seed: int
    size: float
    folder: Path
    content: Values

    @property
    def label(self) -> str:
        """For progress."""
        share = "" if self.size == 1 else f", {self.size:g} of the data"
        return f"{self.name} (seed {self.seed}{share})"


def compare(
    models: Sequence[str],
    data: str | Path,
    *,
    seeds: int = 1,
    epochs: int | None = None,
    budget: str | float | None = None,
    metric: str | None = None,
    out: str | Path = "compare",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    format: str | None = None,
    split_file: str | Path | None = None,
    task: str | None = None,
    jobs: int = 1,
    workers: int | None = None,
    data_sizes: Sequence[float] = (1.0,),
    allow_leaks: bool = False,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Train and measure several models on the same data, and rank them.

    Called again with the same arguments it goes on where it stopped; with more models or seeds it only runs what is new.

    Args:
        models: registered names, all of one task. ``LABEL=NAME`` gives one a label, so that one system can take part in several forms:
            ``["unet", "unet18=unet"]`` with ``options={"unet18": {"model.backbone": "resnet18"}}``.
        data: folder, file, ``set:NAME`` or ``synthetic:NAME``. Splits that the files do not state are made once, for all.
        seeds: runs a model, with the seeds 0, 1, ...; from three on the table has intervals.
        epochs: of every model that has epochs; None leaves each its recipe's.
        budget: training time a run instead ("90s", "10m", "2h"): turned into epochs by timing a few steps of each model alone on
            this machine, and written to plan.json, which a restart or another machine reuses.
        metric: what ranks; None takes the task's main metric.
        out: folder of everything.
        options: dotted overrides by model (or its label), ``{"ssdlite": {"model.size": 320}}``; under ``"*"`` for every model.
        format, split_file: how the data are read.
        task: what the models must be for; None takes it from them.
        jobs: runs at once, spread over the GPUs, or sharing the CPU's threads (which may change last digits). Their times and latencies
            disturb each other.
        workers: loader processes a run.
        data_sizes: shares of the training images, nested, for learning curves (as many epochs each); the table shows the largest.
        allow_leaks: train although an image of the training split is in another split too.
        say: where progress lines go (default stderr).

    Returns:
        The :class:`Comparison`. A model that failed has a row with its error and stops no other.

    Raises:
        UsageError: unknown names, models of different tasks, values out of range, a folder in use.
        DataError: unreadable data.

    Example:
        >>> saccade.compare(["lenet5", "timm/resnet18"], "set:mnist", seeds=3, epochs=3).best  # doctest: +SKIP
        'timm/resnet18'
    """
    say = say or to_stderr
    sizes = _check(data, seeds, epochs, budget, jobs, data_sizes)
    seconds = parse_budget(budget) if budget is not None else None
    contestants, task = _contestants(models, options or {}, epochs, task)
    source = load_data(data, "train", format=format, split_file=split_file, task=task)
    names = list(task_class(task).make_metric(list(source.classes)).compute())
    if metric is not None and metric not in names:
        raise UsageError(f"{task} has no metric {metric!r}{suggest(metric, names)}")
    metric = metric or task_class(task).make_metric(list(source.classes)).main
    out = Path(out)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out / ".lock", wait=False))
        except BlockingIOError:
            raise UsageError(f"{out} is in use by another saccade compare; give another --out, or wait") from None
        split, parts = _write_splits(out / "splits", source, sizes)
        common: Values = {
            "data": str(data), "format": format, "split": split, "val_split": "val" if "val" in parts else "none", "workers": workers,
            "allow_leaks": allow_leaks,
        }  # fmt: skip
        test = Dataset(source.index, parts[split], split=split)
        queue = _Queue(out, common, jobs, say)
        fingerprints = [source.fingerprint(), test.fingerprint(), Dataset(source.index, parts.get("val", [])).fingerprint(), split]
        if seconds is not None:
            _calibrate(queue, contestants, seconds, sizes[0], fingerprints)
        if all(model.error for model in contestants):
            raise UsageError(f"no model can take part: {contestants[0].name}: {contestants[0].error}")
        work = _jobs(out, contestants, seeds, sizes, common, fingerprints)
        learnt = parts if sizes[0] == 1 else parts | {"train": nested_subset(source, sizes[0])}
        facts = _facts(source, test, learnt, data, metric, seeds, epochs, seconds, jobs, split, contestants)
        if sizes[0] < 1:
            facts["notes"].append(f"Learnt from {sizes[0]:g} of the {len(parts['train'])} training images.")
        results: dict[_Job, Values] = {}

        def tabulate() -> Comparison:
            made = _summarise(out, metric, contestants, work, results, seeds, sizes, facts)
            _write_table(made)
            return made

        tabulate()
        queue.run(work, results, tabulate, lambda result: _value(result, metric), metric)
        comparison = tabulate()
        _write_page(comparison, contestants, work, results, test, task)
    say(f"{len(results)} runs; the page: {out / 'index.html'}")
    return comparison


def parse_budget(text: str | float) -> float:
    """Seconds of "90s", "10m", "1.5h" or a number of seconds.

    >>> parse_budget("10m")
    600.0
    """
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smh]?)\s*", str(text))
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"budget {text!r} is no time: write 90s, 10m or 2h")
    return seconds


def nested_subset(data: Dataset, share: float) -> np.ndarray:
    """(N,) ascending numbers of records: a share of the images, at least one, of every class alike; smaller shares lie in larger ones.

    Images are drawn with a fixed seed; those of a detection or segmentation set are one stratum.
    """
    labels = np.array([-1 if label is None else label for label in data.map_records(lambda record: record.label)])
    order = np.random.default_rng(0).permutation(len(data))
    rank = np.empty(len(data))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)  # the q-quantile of every class comes at place q
    chosen = order[np.argsort(rank[order], kind="stable")][: max(round(share * len(data)), 1)]
    return np.sort(data.indices[chosen])


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean; NaN for fewer than three values, where it says nothing."""
    known = np.asarray([v for v in values if math.isfinite(v)], dtype=float)
    if len(known) < 3:
        return math.nan, math.nan
    from scipy.stats import t

    half = float(t.ppf(0.5 + level / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return float(known.mean()) - half, float(known.mean()) + half


# ----------------------------------------------------------------------------------------------------- before the runs


def _check(
    data: Any, seeds: int, epochs: int | None, budget: str | float | None, jobs: int, data_sizes: Sequence[float]
) -> tuple[float, ...]:
    """The shares of the data, largest first."""
    if not isinstance(data, (str, Path)):
        raise UsageError(f"compare takes data by name (each run is a process of its own), not {type(data).__name__}")
    for name, value in (("seeds", seeds), ("jobs", jobs), ("epochs", 1 if epochs is None else epochs)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{name} is a whole number from 1, not {value!r}")
    if epochs is not None and budget is not None:
        raise UsageError("give epochs or a budget, not both")
    sizes = tuple(sorted({float(size) for size in data_sizes}, reverse=True))
    if not sizes or not all(0 < size <= 1 for size in sizes):
        raise UsageError(f"data sizes are shares of the training images above 0 and up to 1, not {list(data_sizes)}")
    return sizes


def _contestants(
    models: Sequence[str], options: Mapping[str, Mapping[str, Any]], epochs: int | None, task: str | None
) -> tuple[list[_Model], str]:
    """The models with their settings; one whose settings are wrong takes part as a failure."""
    names = [models] if isinstance(models, str) else list(models)
    if not names:
        raise UsageError("give at least one model")
    labels = [label_of(name) for name in names]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"model {twice!r} is named twice; a label tells two forms of it apart: small={twice}")
    entries = {label: find(name.rpartition("=")[2]) for label, name in zip(labels, names, strict=True)}
    for name in options:
        if name != ALL and name not in entries:
            raise UsageError(f"options are given for {name!r}, which does not take part{suggest(name, labels)}")
    wanted = task or entries[labels[0]].task
    for name, entry in entries.items():
        if entry.task != wanted:
            raise UsageError(f"{name} is for {entry.task}, not for {wanted}: models of one task are compared")
    out: list[_Model] = []
    for name, entry in entries.items():
        model = _Model(name, entry.name, entry.kind, {**options.get(ALL, {}), **options.get(name, {})})
        if epochs is not None and model.has_epochs:
            model.given["recipe.epochs"] = epochs
        try:
            model.options, model.recipe = resolve(entry, model.given)
        except UsageError as error:
            model.error = str(error)
        twin = next((m for m in out if (m.system, m.given) == (model.system, model.given) and not model.error), None)
        if twin:
            raise UsageError(f"{twin.name} and {name} are the same model with the same options; give one of them --set {name}:...")
        out.append(model)
    return out, wanted


def label_of(model: str) -> str:
    """What the table calls a model: LABEL of ``LABEL=NAME``, else the name.

    >>> label_of("unet18=unet"), label_of("unet")
    ('unet18', 'unet')
    """
    label, equals, name = model.rpartition("=")
    if equals and not re.fullmatch(r"[\w.+-]{1,40}", label):
        raise UsageError(f"{model!r}: a label has letters, digits and . + - _, at most 40 of them")
    return label or name


def _write_splits(folder: Path, source: Dataset, sizes: Sequence[float]) -> tuple[str, dict[str, np.ndarray]]:
    """The split to measure on, and record numbers by split; a file of names a share of the training images."""
    parts = {name: source.index.splits[name] for name in ("train", "val", "test") if len(source.index.splits.get(name, ()))}
    split = next((name for name in ("test", "val") if name in parts), None)
    if split is None:
        raise UsageError(f"{source.index.root} has neither a test nor a val split to measure on; give --split-file")
    for size in sizes:
        write_split_file(folder / f"{size:g}.json", parts | {"train": nested_subset(source, size)}, source.index)
    return split, parts


def _calibrate(queue: _Queue, models: list[_Model], budget: float, size: float, fingerprints: list[str]) -> None:
    """Give every model that has epochs as many as fit into the budget, as plan.json says; what it does not say is timed and written."""
    path = queue.out / "plan.json"
    known = _read(path).get("models", {})
    for model in models:
        if model.error or not model.has_epochs:
            continue
        recipe = asdict(model.recipe.replace(epochs=1))
        question = plain(
            {"model": model.system, "options": model.options, "recipe": recipe, "data": fingerprints, "budget": budget, "size": size}
        )
        entry = known.get(model.name, {})
        if entry.get("question") != question:
            entry = queue.calibrate(model, budget, size)
            if "error" in entry:
                model.error = entry["error"]
                continue
            known[model.name] = entry | {"question": question}
            write_json(path, {"saccade": version("saccade"), "models": known})
        model.given["recipe.epochs"] = int(entry["epochs"])
        model.recipe = model.recipe.replace(epochs=int(entry["epochs"]))
        queue.say(f"{model.name}: {entry['epochs']} epochs fit into {compare_html.duration(budget)}")


def _jobs(out: Path, models: list[_Model], seeds: int, sizes: Sequence[float], common: Values, fingerprints: list[str]) -> list[_Job]:
    """What is to be run: all models with the first seed on the largest share first, so that the table is soon of use."""
    work = []
    for size in sizes:
        for seed in range(seeds):
            for model in models:
                if model.error:
                    continue
                identity = [
                    model.system, model.options, asdict(model.recipe), seed, size, fingerprints, version("saccade")
                ]  # fmt: skip
                key = hashlib.sha256(json.dumps(plain(identity), sort_keys=True).encode()).hexdigest()[:16]
                content = common | {
                    "what": "train", "model": model.system, "options": plain(model.given), "seed": seed,
                    "split_file": str((out / "splits" / f"{size:g}.json").resolve()),
                }  # fmt: skip
                work.append(_Job(model.name, seed, size, out / "runs" / key, content))
    return work


# ------------------------------------------------------------------------------------------------------------ the queue


class _Queue:
    """Processes, a few at a time, each with its own folder, log and result."""

    def __init__(self, out: Path, common: Values, slots: int, say: Callable[[str], None]) -> None:
        self.out, self.common, self.slots, self.say = out, common, slots, say

    def run(
        self, work: Sequence[_Job], results: dict[_Job, Values], changed: Callable[[], Any], value: Callable[[Values], float], metric: str
    ) -> None:  # fmt: skip
        """Do what is not done yet; ``results`` fills, ``changed`` is called after each."""
        waiting: deque[_Job] = deque()
        for job in work:
            done = _read(job.folder / "result.json")
            if done:
                results[job] = done
            else:
                waiting.append(job)
        if results:
            self.say(f"{len(results)} of {len(work)} runs are done already")
        running: dict[int, tuple[_Job, _Process]] = {}
        try:
            while waiting or running:
                for slot in range(self.slots):
                    if waiting and slot not in running:
                        job = waiting.popleft()
                        self.say(f"[{len(results) + len(running) + 1}/{len(work)}] {job.label}: {job.folder / 'log.txt'}")
                        running[slot] = job, _Process(job.folder, job.content, self.environment(slot))
                time.sleep(0.1)
                for slot, (job, process) in list(running.items()):
                    over = process.ended()
                    for line in process.lines():
                        self.say(f"  {job.label}: {line}")
                    if over:
                        del running[slot]
                        results[job] = result = process.result()
                        told = f"failed: {result['error']}" if "error" in result else f"{metric} {value(result):.4f}"
                        self.say(f"[{len(results)}/{len(work)}] {job.label}: {told}")
                        changed()
        finally:
            _stop([process for _, process in running.values()])

    def calibrate(self, model: _Model, budget: float, size: float) -> Values:
        """Epochs that fit into the budget, by a process that has the machine alone."""
        self.say(f"{model.name}: times a few steps")
        content = self.common | {
            "what": "calibrate", "model": model.system, "options": plain(model.given), "budget": budget,
            "split_file": str((self.out / "splits" / f"{size:g}.json").resolve()),
        }  # fmt: skip
        folder = self.out / "calibration" / model.name.replace("/", "-")
        (folder / "result.json").unlink(missing_ok=True)
        process = _Process(folder, content, self.environment(0))
        try:
            while not process.ended():
                time.sleep(0.05)
        finally:
            _stop([process])
        return process.result()

    def environment(self, slot: int) -> dict[str, str]:
        """A GPU a slot, in turn; processes that share a CPU share its cores."""
        import torch

        env = dict(os.environ)
        count = torch.cuda.device_count() if self.slots > 1 else 0
        if count > 1:
            named = [name for name in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            env["CUDA_VISIBLE_DEVICES"] = (named or [str(i) for i in range(count)])[slot % count]
        elif self.slots > 1:
            env.setdefault("OMP_NUM_THREADS", str(max(torch.get_num_threads() // self.slots, 1)))
        return env


class _Process:
    """A job's process. Its stdin is a pipe that closes with this process: a job never outlives its queue."""

    def __init__(self, folder: Path, content: Values, env: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.json").unlink(missing_ok=True)
        write_json(folder / "job.json", content)
        self.folder, self.log = folder, folder / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "saccade.workflows.compare_job", str(folder)],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=dict(env), start_new_session=True,
            )  # fmt: skip
        self.read = 0

    def ended(self) -> bool:
        """Whether it is over."""
        return self.process.poll() is not None

    def lines(self) -> list[str]:
        """What it has said since the last call, whole lines."""
        with self.log.open("rb") as log:
            log.seek(self.read)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        return [one_line(line) for line in whole.decode(errors="replace").splitlines() if line.strip()]

    def result(self) -> Values:
        """What it left, or ``{"error": one line}``."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        done = _read(self.folder / "result.json")
        if done:
            return done
        code = self.process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if code == -9:
            how += ", perhaps out of memory"
        return {"error": _read(self.folder / "error.json").get("error") or f"{how}; see {self.log}"}


def _stop(processes: Sequence[_Process]) -> None:
    """Let them write their checkpoints, then end them."""
    alive = [p.process for p in processes if p.process.poll() is None]
    for process in alive:
        process.terminate()
    until = time.monotonic() + GRACE
    for process in alive:
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(path: Path) -> Values:
    """A JSON object; {} when there is none or it is damaged: then it is made anew."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# ------------------------------------------------------------------------------------------------------------ the table


def _value(result: Values, metric: str) -> float:
    """The metric of a run; NaN where it failed or the metric does not exist."""
    value = result.get("metrics", {}).get(metric)
    return math.nan if value is None else float(value)


def _lower(metric: str) -> bool:
    return metric.partition("/")[0] in LOWER_IS_BETTER


MEASURED = ("training_seconds", "latency_ms", "images_per_second", "parameters", "macs", "memory_bytes", "bundle_bytes", "epochs")


def _summarise(
    out: Path,
    metric: str,
    models: Sequence[_Model],
    work: Sequence[_Job],
    results: Mapping[_Job, Values],
    seeds: int,
    sizes: Sequence[float],
    facts: Values,
) -> Comparison:
    """A row a model, best first; failures last."""
    rows = []
    for model in models:
        mine = [(job, results[job]) for job in work if job.name == model.name and job.size == sizes[0] and job in results]
        good = [(job, result) for job, result in mine if "error" not in result]
        values = {job.seed: _value(result, metric) for job, result in good}
        known = [v for v in values.values() if math.isfinite(v)]
        low, high = interval(known)
        if metric.partition("/")[0] not in NO_SHARE:  # Student's t knows no bounds
            low, high = (min(max(end, 0.0), 1.0) if math.isfinite(end) else end for end in (low, high))
        if len(good) == 1 and seeds == 1:
            low, high = (math.nan if v is None else v for v in good[0][1].get("intervals", {}).get(metric) or (None, None))
        row: Values = {
            "model": model.name, "system": model.system, "options": model.asked, "runs": len(good), "wanted": seeds,
            "value": float(np.mean(known)) if known else math.nan, "low": low,
            "high": high, "best": False, "difference": math.nan, "difference_low": math.nan, "difference_high": math.nan,
            "values": values, "error": model.error or next((r["error"] for _, r in mine if "error" in r), ""),
            "report": f"{good[0][0].folder.relative_to(out).as_posix()}/run/report.html" if good else "",
        }  # fmt: skip
        row["resumed"] = sum(bool(result.get("resumed")) for _, result in good)
        for name in MEASURED:
            given = [result[name] for _, result in good if result.get(name) is not None]
            row[name] = float(np.mean(given) if name == "training_seconds" else np.median(given)) if given else math.nan
        rows.append(row)
    sign = 1 if _lower(metric) else -1
    rows.sort(key=lambda row: (not math.isfinite(row["value"]), sign * row["value"] if math.isfinite(row["value"]) else 0.0))
    if math.isfinite(rows[0]["value"]):
        rows[0]["best"] = True
        for row in rows[1:]:  # by seed: the same seed sees the same order of images
            pairs = [v - rows[0]["values"][s] for s, v in row["values"].items() if s in rows[0]["values"]]
            pairs = [d for d in pairs if math.isfinite(d)]
            row["difference"] = float(np.mean(pairs)) if pairs else math.nan
            row["difference_low"], row["difference_high"] = interval(pairs)
    learning: dict[str, list[tuple[float, float]]] = {}
    if len(sizes) > 1:
        for model in models:
            for size in reversed(sizes):
                done = [r for j, r in results.items() if j.name == model.name and j.size == size and "error" not in r]
                known = [_value(r, metric) for r in done if math.isfinite(_value(r, metric))]
                if known:
                    learning.setdefault(model.name, []).append((float(done[0]["training_images"]), float(np.mean(known))))
    return Comparison(out, metric, rows, facts, learning)


def _write_table(comparison: Comparison) -> None:
    """table.md, table.csv, table.json."""
    out, rows = comparison.folder, comparison.rows
    facts = comparison.facts
    text = [f"# {facts['title']}", "", compare_html.markdown_table(rows, comparison.metric)]
    if comparison.learning:
        text += ["Learning curves (training images: metric):", ""]
        text += [f"* {name}: " + ", ".join(f"{n:.0f}: {v:.4f}" for n, v in points) for name, points in comparison.learning.items()] + [""]
    text += [f"* {note}" for note in facts["notes"]] + [f"* {name}: {value}" for name, value in facts["shown"].items()]
    write_text(out / "table.md", "\n".join(text) + "\n")
    write_json(out / "table.json", {"metric": comparison.metric, "facts": facts, "rows": rows, "learning": comparison.learning})
    names = [name for name in rows[0] if name not in ("values", "report")]
    seeds = sorted({seed for row in rows for seed in row["values"]})
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow([*names, *(f"seed_{seed}" for seed in seeds)])
    for row in rows:
        line = [row[name] for name in names] + [row["values"].get(seed, math.nan) for seed in seeds]
        writer.writerow("" if isinstance(v, float) and not math.isfinite(v) else v for v in line)
    write_text(out / "table.csv", table.getvalue())


def _facts(
    source: Dataset,
    test: Dataset,
    parts: Mapping[str, np.ndarray],
    data: str | Path,
    metric: str,
    seeds: int,
    epochs: int | None,
    budget: float | None,
    jobs: int,
    split: str,
    models: Sequence[_Model],
) -> Values:
    """What the page and the table say about how the numbers came about."""
    here = runs.facts()
    machine = here["machine"]
    notes = []
    if split != "test":
        notes.append("There is no test split: measured on the validation split, which also chose the checkpoints; too good by a little.")
    if jobs > 1:
        notes.append(f"{jobs} runs at once: their times and latencies disturb each other.")
    fixed = [model.name for model in models if not model.has_epochs and not model.error]
    if fixed and (epochs is not None or budget is not None):
        notes.append(f"{', '.join(fixed)}: no epochs, so neither a number of epochs nor a budget applies.")
    if seeds < 3:
        told = "One seed: intervals are over the images and leave out how much training varies" if seeds == 1 else "Two seeds: no intervals"
        notes.append(f"{told}; three seeds give intervals over seeds.")
    if budget is not None:
        length = f"what fits into {compare_html.duration(budget)} of training, calibrated once (plan.json)"
    else:
        length = f"{epochs} epochs" if epochs is not None else "each model's own recipe"
    return {
        "title": f"{len(models)} models on {data}",
        "metric": metric,
        "lower_is_better": _lower(metric),
        "notes": notes,
        "machine": machine,
        "shown": {
            "data": f"{data} ({', '.join(f'{name} {len(numbers)}' for name, numbers in parts.items())} images)",
            "data fingerprint": source.fingerprint(),
            "measured on": f"{len(test)} images of the split {split}, by one evaluator with one setting of score, IoU and cap",
            "training": length,
            **_named(models),
            "seeds": f"0 to {seeds - 1}" if seeds > 1 else "0",
            "intervals": "95 %: Student's t over seeds from three on; of one seed bootstrap over images; differences paired by seed",
            "latency": "median of a preprocessed image through network and decoding, after warm-up; images/s: batches of 8",
            "peak memory": "most that the training process held (on the GPU where there is one)",
            "machine": f"{machine.get('gpu') or machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}",
            "saccade": f"{here['saccade']} {here['commit']}".strip(),
            "command": here["command"],
            "date": here["date"],
        },
    }


def _named(models: Sequence[_Model]) -> Values:
    """What a label stands for, and the options that were given."""
    told = [f"{m.name}: {m.system} {m.asked}".rstrip() for m in models if m.asked or m.name != m.system]
    return {"models": "; ".join(told)} if told else {}


# ------------------------------------------------------------------------------------------------------------- the page


def _write_page(
    comparison: Comparison, models: Sequence[_Model], work: Sequence[_Job], results: Mapping[_Job, Values], test: Dataset, task: str
) -> None:
    first: dict[str, _Job] = {}
    for job in work:
        if "error" not in results[job]:
            first.setdefault(job.name, job)
    ranked = [row["model"] for row in comparison.rows if row["model"] in first]
    curves = {}
    for name in ranked:
        history = runs.read_metrics(first[name].folder / "run" / "metrics.csv")
        curves[name] = [(row["epoch"] + 1, row[comparison.metric]) for row in history if comparison.metric in row]
    shots = []
    if task != "generate" and ranked:
        sections = [("The same images by every model", "Spread evenly over the data that were measured on.", view.choose(test, SHOWN))]
        apart = most_apart({name: _scores(name, work, results) for name in ranked}, test) if len(ranked) > 1 else []
        sections.append(("Where the models disagree most", "By the spread over the models of how good each one's prediction is.", apart))
        positions = sorted({p for _, _, chosen in sections for p in chosen})
        samples = _readable(test, positions)
        positions = list(samples)
        predicted = {}
        for name in ranked:  # one model in memory at a time
            model = load_bundle(first[name].folder / "run")
            predicted[name] = dict(zip(positions, compare_html.predict_samples(model, list(samples.values())), strict=True))
        for heading, explanation, chosen in sections:
            here = [p for p in chosen if p in samples]
            shown = {name: [by_position[p] for p in here] for name, by_position in predicted.items()}
            drawn = compare_html.draw_shots(shown, [samples[p] for p in here], test.classes, task)
            shots.append((heading, explanation, drawn))
    compare_html.write_comparison(
        comparison.folder / "index.html", comparison.facts, comparison.rows, learning=comparison.learning, curves=curves, shots=shots
    )


def _readable(data: Dataset, positions: Sequence[int]) -> dict[int, Sample]:
    """Decoded images by position; broken ones are left out."""
    data = data.with_boxes_only()
    samples = {}
    for position in positions:
        try:
            samples[position] = data[position]
        except DataError:
            continue
    return samples


def _scores(name: str, work: Sequence[_Job], results: Mapping[_Job, Values]) -> dict[str, float]:
    """How good a model's prediction of each image is, 0 to 1: the mean over its runs on the largest share of the data."""
    size = max(job.size for job in work)
    sums: dict[str, list[float]] = {}
    for job in work:
        if job.name == name and job.size == size:
            for image_id, score in results[job].get("scores", ()):
                sums.setdefault(image_id, []).append(float(score))
    return {image_id: float(np.mean(scores)) for image_id, scores in sums.items()}


def most_apart(scores: Mapping[str, Mapping[str, float]], data: Dataset, count: int = SHOWN) -> list[int]:
    """Positions of the images whose scores (by model, by image id) deviate most between the models, most first."""
    spread = []
    for position, image_id in enumerate(data.map_records(lambda record: str(record.image_id))):
        given = [by_image[image_id] for by_image in scores.values() if image_id in by_image]
        if len(given) > 1 and np.std(given) > 0:
            spread.append((-float(np.std(given)), position))
    return [position for _, position in sorted(spread)[:count]]


def parse_model_sets(items: Sequence[str], models: Sequence[str]) -> dict[str, Values]:
    """``["ssdlite:model.size=96", "recipe.lr=0.01"]`` to ``options`` of :func:`compare`; without a model (or label) for all."""
    models = [label_of(model) for model in models]
    out: dict[str, Values] = {}
    for item in items:
        key, equals, value = item.partition("=")
        model, colon, name = key.rpartition(":")
        if colon and model not in models:
            raise UsageError(f"--set {item!r}: {model!r} does not take part{suggest(model, models)}")
        if not colon and not name.startswith(("model.", "recipe.")):
            raise UsageError(f"--set {item!r}: write it as MODEL:model.NAME=VALUE, MODEL:recipe.NAME=VALUE or recipe.NAME=VALUE")
        out.setdefault(model if colon else ALL, {}).update(parse_sets([name + equals + value]))
    return out
