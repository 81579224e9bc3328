"""Training images/s of saccade against a plain PyTorch loop: the same network, data, optimiser, schedule and average of weights.

python -m benchmarks.training [--quick] [--workers 1] [--steps 40] [--rounds 6]

The plain loop (:func:`plain_loop`) is what an expert writes without any framework: a DataLoader, backward, clip, step, and nothing that
logs, checks, seeds or can resume. Both decode the same files and apply the same augmentation and preprocessing; only seconds between
the start of one step and the start of a later one count, so that neither starting nor saving is in them.

Rows: ``how`` "runs" times whole runs in turns, with loader workers; "steps" runs both in one process without workers, in turns of one
step, which a busy neighbour disturbs less (on a CPU only). ``ratio`` is our images/s over the plain loop's; its interval shall lie above
0.95, or the program fails.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.common import Comparison, write_csv
from saccade.data.dataset import Dataset
from saccade.data.formats import write_data
from saccade.data.load import load_data
from saccade.data.transforms.augment import build_augment
from saccade.engine.trainer import fit, pick_precision
from saccade.models.base import Model
from saccade.models.registry import create_model, default_recipe, find
from saccade.tasks.table import task_class
from saccade.types.recipe import Recipe

SIZE = 160
WARMUP = 5  # steps of each run that are not timed: the first ones find their memory, and the loader starts full
LEAST = 0.95


# -- the plain loop -------------------------------------------------------------------------------


class PlainView(TorchDataset[Any]):
    """The same augmented and preprocessed images, without seeds or care for broken files."""

    def __init__(self, data: Dataset, model: Model, recipe: Recipe) -> None:
        self.data, self.preprocess = data, model.preprocess
        self.augment = build_augment(recipe, model.task, data.index.keypoint_swap)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Any]]:
        return self.preprocess(self.augment(self.data[i]))[:2]


def plain_collate(items: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, list[dict[str, Any]]]:
    return torch.stack([image for image, _ in items]), [target for _, target in items]


def plain_loop(model: Model, recipe: Recipe, data: Dataset, workers: int) -> Iterator[None]:
    """One epoch; yields when a step begins."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    loader = DataLoader(
        PlainView(data, model, recipe), recipe.batch_size, shuffle=True, drop_last=True, num_workers=workers, collate_fn=plain_collate,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=recipe.betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / len(loader))) / 2)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True) if recipe.ema else None
    model.train()
    for images, targets in loader:
        yield
        images = images.to(device, non_blocking=True)
        targets = [{k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in target.items()} for target in targets]
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            loss = torch.stack(list(model.losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(model)


# -- both loops under a clock ---------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One network on one data set; an epoch is a run."""

    model: Model
    recipe: Recipe
    data: Dataset

    def ours(self, begin: Callable[[], None], workers: int) -> None:
        """A run of saccade's trainer; ``begin`` is called when a step begins."""
        base = task_class(self.model.task)

        class Marked(base):  # type: ignore[valid-type, misc]
            def training_step(self, *arguments: Any) -> Tensor:
                begin()
                return super().training_step(*arguments)

        with tempfile.TemporaryDirectory() as folder:
            fit(copy.deepcopy(self.model), Marked, self.recipe, Path(folder), self.data, workers=workers, say=lambda _: None)

    def plain(self, begin: Callable[[], None], workers: int) -> None:
        """A run of the plain loop."""
        for _ in plain_loop(copy.deepcopy(self.model), self.recipe, self.data, workers):
            begin()

    def runs(self, rounds: int, workers: int) -> Comparison:
        """Whole runs in turns: mean seconds of a step, by run."""
        means: dict[Any, list[float]] = {self.ours: [], self.plain: []}
        for turn in range(rounds):
            for loop in (self.ours, self.plain) if turn % 2 == 0 else (self.plain, self.ours):
                began: list[float] = []
                loop(lambda: began.append(time.perf_counter()), workers)  # noqa: B023
                means[loop].append((began[-1] - began[WARMUP]) / (len(began) - 1 - WARMUP))
        return Comparison(np.array(means[self.ours]), np.array(means[self.plain]))

    def steps(self) -> Comparison:
        """Both at once, a step of each in turns: mean seconds of a step, by blocks of five."""
        ours: list[float] = []
        theirs: list[float] = []
        loop = plain_loop(copy.deepcopy(self.model), self.recipe, self.data, 0)
        since = time.perf_counter()

        def begin() -> None:
            nonlocal since
            now = time.perf_counter()
            ours.append(now - since)
            next(loop, None)
            since = time.perf_counter()
            theirs.append(since - now)

        self.ours(begin, 0)
        whole = WARMUP + (len(ours) - WARMUP) // 5 * 5
        return Comparison(*(np.array(times[WARMUP:whole]).reshape(-1, 5).mean(1) for times in (ours, theirs)))


def cases(steps: int, folder: Path) -> Iterator[tuple[str, str, Case]]:
    """(model, data, case): a detector and a segmenter on drawn cells that were written to files."""
    for name, task, form in (("ssdlite", "detect", "voc"), ("unet", "segment", "masks")):
        recipe = default_recipe(find(name)).replace(epochs=1, warmup=0.0)
        recipe = recipe.replace(precision=pick_precision(recipe.precision, "auto"))
        source = f"synthetic:cells?count={steps * recipe.batch_size}&size={SIZE}&task={task}"
        write_data(load_data(source, task=task), folder / name, form)
        data = load_data(folder / name, format=form, task=task)
        options = {"size": SIZE} | ({"width": 16} if name == "unet" else {})
        torch.manual_seed(0)
        model = create_model(name, len(data.classes), **options)
        model.configure(recipe)
        yield name, source, Case(model, recipe, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="steps of a run, the first 5 not timed")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="20 steps, 3 rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.rounds = 20, 3
    torch.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source, case in cases(arguments.steps, Path(folder)):
            found = {"runs": (arguments.workers, case.runs(arguments.rounds, arguments.workers))}
            if not torch.cuda.is_available():
                found["steps"] = (0, case.steps())
            for how, (workers, timing) in found.items():
                row = {
                    "model": name,
                    "data": source,
                    "batch": case.recipe.batch_size,
                    "steps": arguments.steps,
                    "how": how,
                    "workers": workers,
                }
                speed = {f"{who}_images_per_s": case.recipe.batch_size / float(np.median(times))
                         for who, times in (("ours", timing.a), ("plain", timing.b))}  # fmt: skip
                rows.append(row | timing.row("ours_step", "plain_step") | speed)
                text = f"{speed['ours_images_per_s']:.1f} against {speed['plain_images_per_s']:.1f} images/s"
                low, high = timing.interval()
                print(f"{name:8} {how:5} {text}: ratio {timing.ratio:.3f} ({low:.3f} to {high:.3f})", flush=True)
    print(write_csv("training", rows))
    worst = min(row["ratio_low"] for row in rows)
    if worst < LEAST:
        raise SystemExit(f"the interval of a ratio reaches down to {worst:.3f}: {LEAST} is asked for")


if __name__ == "__main__":
    main()
