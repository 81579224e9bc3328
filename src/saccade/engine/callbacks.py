"""What the trainer adds to Lightning: metrics.csv, interruption at a step, the progress bar."""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging

from saccade.engine.files import write_text
from saccade.types.errors import DataError, SaccadeError


class Interrupted(SaccadeError):
    """SIGINT or SIGTERM came; a checkpoint was written."""


class CsvLog:
    """``metrics.csv``: a row an epoch, rewritten whole, so that a kill leaves the last complete one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, values: Mapping[str, float]) -> None:
        """Add or replace the row of an epoch; later epochs (of a run that was resumed before them) are dropped."""
        rows = [row for row in read_metrics(self.path) if row["epoch"] < values["epoch"]] + [dict(values)]
        names = list(dict.fromkeys(name for row in rows for name in row))
        names.sort(key=lambda n: (["epoch", "step", "lr"].index(n) if n in ("epoch", "step", "lr") else 3, "/" in n))
        out = io.StringIO()
        writer = csv.DictWriter(out, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, out.getvalue())


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv; an empty cell is no value. DataError when it is damaged."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if k and v not in ("", None)} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(path, f"cannot be read: {error}") from None
    if not all("epoch" in row for row in rows):
        raise DataError(path, "has a row without an epoch")
    return rows


class EpochEnd(Checkpoint):
    """Runs after all checkpoints of the epoch are written: the CSV row, and an interruption that waited for them.

    A Checkpoint by class, since Lightning keeps these last.
    """

    def __init__(self, log: CsvLog | None, interrupt: Interrupt) -> None:
        self.rows, self.interrupt = log, interrupt

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the row, then stop if asked."""
        if self.rows is not None and trainer.is_global_zero:
            self.rows.write(pl_module.epoch_values)
        pl_module.epoch_values = {}
        self.interrupt.stop_if_asked(trainer, save=False)


class Interrupt(L.Callback):
    """SIGINT and SIGTERM: finish the step, write ``last.ckpt``, stop. A second signal stops at once."""

    def __init__(self, checkpoint: Path, how_to_resume: str) -> None:
        self.checkpoint, self.how_to_resume = checkpoint, how_to_resume
        self.received = 0
        self._old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._main = threading.current_thread() is threading.main_thread()  # only there can signals be taken

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which would stop without a checkpoint."""
        if self._main:
            for number in self._old:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
        print(f"{signal.Signals(number).name}: finishing the step and writing a checkpoint ...", file=sys.stderr, flush=True)

    def restore(self) -> None:
        """Give the signals back, after Lightning has put back what it found."""
        if self._main:
            for number, handler in self._old.items():
                signal.signal(number, handler)

    def after_step(self, trainer: L.Trainer) -> None:
        """Called by the task after every other hook of the step."""
        last = trainer.fit_loop.epoch_loop._num_ready_batches_reached()  # then validation and the epoch's own checkpoint come first
        if self.received and not last and not trainer.fit_loop._should_accumulate():
            self.stop_if_asked(trainer, save=True)

    def stop_if_asked(self, trainer: L.Trainer, *, save: bool) -> None:
        """Raise Interrupted when a signal came."""
        if not self.received:
            return
        if save:
            trainer.save_checkpoint(self.checkpoint)
        name = signal.Signals(self.received).name
        raise Interrupted(f"stopped by {name} at step {trainer.global_step}; nothing is lost; go on with: {self.how_to_resume}")


class KeptCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose folder may have been moved or copied since: Lightning would forget the best epoch."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Paths of the checkpoint's own time become paths in the folder of today."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return os.path.join(here, os.path.basename(path)) if path else path

        state = dict(state_dict) | {"dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(state.get(key, ""))
        state["best_k_models"] = {moved(path): score for path, score in state.get("best_k_models", {}).items()}
        super().load_state_dict(state)


class AverageWeights(WeightAveraging):
    """Exponential moving average: ``average += (1 - d_t) * (weights - average)``, ``d_t = min(decay, (1 + t) / (10 + t))``.

    The rising decay keeps the random start out of the average. Validated, kept and bundled instead of the last weights.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, multi_avg_fn=_Average(decay))


class _Average:
    """Called with all tensors of one type at once: a call a tensor took a tenth of a step on a CPU, and a wait for the device each."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, average: Any, current: Any, count: Any) -> None:
        if not average[0].is_floating_point():
            torch._foreach_copy_(average, current)  # counters such as num_batches_tracked
            return
        t = float(count)
        torch._foreach_lerp_(average, current, 1 - min(self.decay, (1 + t) / (10 + t)))


class Progress(L.Callback):
    """One line: epoch, step, losses, last metric, time left. On a terminal it is redrawn, elsewhere a line an epoch."""

    def __init__(self, out: Callable[[str], None] | None = None, every: float = 0.5) -> None:
        self.every, self.live = every, sys.stderr.isatty()
        self.out = out or to_stderr
        self._began = self._shown = time.monotonic()
        self._first_step = 0
        self._metric = ""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = time.monotonic()
        self._first_step = trainer.fit_loop.total_batch_idx + 1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.monotonic()
        if self.live and now - self._shown > self.every:
            self._shown = now
            pl_module.drain()
            sys.stderr.write("\r\x1b[2K" + self.line(trainer, pl_module, batch_idx))
            sys.stderr.flush()

    def line(self, trainer: L.Trainer, task: Any, batch_idx: int) -> str:
        """The text of the moment."""
        per_epoch = int(trainer.num_training_batches)
        done = trainer.fit_loop.total_batch_idx + 1
        total = per_epoch * (trainer.max_epochs or 1)
        taken = done - self._first_step
        left = (time.monotonic() - self._began) / taken * (total - done) if taken > 0 else math.nan
        count = task.sums.get("count", 0) or 1
        losses = " ".join(f"{k} {v / count:.4f}" for k, v in task.sums.items() if not k.startswith("val_") and k != "count")
        where = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} step {batch_idx + 1}/{per_epoch}"
        return f"{where} {losses} {self._metric}| left {clock(left)}"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        monitored = pl_module.monitored()
        value = trainer.callback_metrics.get(monitored)
        self._metric = f"{monitored} {float(value):.4f} " if value is not None else ""
        pl_module.drain()
        line = self.line(trainer, pl_module, int(trainer.num_training_batches) - 1)
        if self.live:
            sys.stderr.write("\r\x1b[2K")
        if trainer.is_global_zero:
            self.out(line)


def to_stderr(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """75 -> '1:15'; NaN -> '?'."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
