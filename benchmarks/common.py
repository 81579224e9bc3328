"""What all benchmarks share: facts of the machine, the commit, interleaved timing with an interval of the ratio, CSV rows."""

from __future__ import annotations

import csv
import datetime
import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.types.machine import usable_cores

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


def machine() -> str:
    """Processor, cores, memory, system, Python, torch and GPU in one line; no name of the host or user."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    facts = [cpu, f"{usable_cores()} cores", f"{platform.system()} {platform.machine()}", f"Python {platform.python_version()}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts.insert(2, f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    if "torch" in sys.modules:
        import torch

        facts.append(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        if torch.cuda.is_available():
            facts.append(torch.cuda.get_device_name())
    return "; ".join(facts)


def commit() -> str:
    """Short hash of the checked-out commit, with ``+`` when tracked files were changed; "unknown" outside a repository."""
    try:
        short = _git("rev-parse", "--short", "HEAD").strip()
        return short + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def command() -> str:
    """How this benchmark was called, without paths of this machine."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    name = f"python -m {spec.name}" if spec is not None else f"python {Path(sys.argv[0]).name}"
    return " ".join([name, *sys.argv[1:]]).replace(str(ROOT) + os.sep, "")


def facts() -> dict[str, str]:
    """The columns that every row has: ``command``, ``commit``, ``machine``, ``date`` (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    return {"command": command(), "commit": commit(), "machine": machine(), "date": now.strftime("%Y-%m-%dT%H:%M:%SZ")}


@dataclass(frozen=True)
class Comparison:
    """Seconds of two callables, timed in turns: ``a[i]`` and ``b[i]`` ran beside each other."""

    a: np.ndarray
    b: np.ndarray

    @property
    def ratio(self) -> float:
        """median(b) / median(a): how many times faster ``a`` is."""
        return float(np.median(self.b) / np.median(self.a))

    def interval(self, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap 95% interval of the ratio, drawing whole rounds."""
        chosen = np.random.default_rng(seed).integers(len(self.a), size=(draws, len(self.a)))
        ratios = np.median(self.b[chosen], axis=1) / np.median(self.a[chosen], axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        return float(low), float(high)

    def row(self, a: str = "ours", b: str = "theirs") -> dict[str, float | int]:
        """Columns for a CSV: median and IQR of both, the ratio and its interval."""
        low, high = self.interval()
        return (
            {"rounds": len(self.a)} | seconds(a, self.a) | seconds(b, self.b) | {"ratio": self.ratio, "ratio_low": low, "ratio_high": high}
        )


def seconds(name: str, times: np.ndarray) -> dict[str, float]:
    """``NAME_s`` (median) and ``NAME_iqr_s`` (quartile range)."""
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return {f"{name}_s": float(middle), f"{name}_iqr_s": float(high - low)}


def interleaved(
    a: Callable[[], Any],
    b: Callable[[], Any],
    *,
    rounds: int = 7,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time two callables in turns (a b, b a, a b, ...), so that a busy neighbour and a warming processor hit both alike.

    Args:
        rounds: timed runs of each.
        warmup: runs of each before that.
        clock: ``time.process_time`` counts this process' processor time instead of the wall's.
    """
    for _ in range(warmup):
        a(), b()
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            times[which].append(timed((a, b)[which], clock))
    return Comparison(np.array(times[0]), np.array(times[1]))


def timed(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call, garbage collected before and not during it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        function()
        return clock() - start
    finally:
        if enabled:
            gc.enable()


def write_csv(name: str, rows: Iterable[Mapping[str, Any]], *, append: bool = False, folder: Path = RESULTS) -> Path:
    """Write rows (with :func:`facts` added) to ``results/NAME.csv``, atomically; ``append`` keeps the rows that are there."""
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    old: list[dict[str, Any]] = []
    if append and path.is_file():
        with path.open(newline="", encoding="utf-8") as lines:
            old = list(csv.DictReader(lines))
    shared = facts()
    table = old + [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} | shared for row in rows]
    columns = list(dict.fromkeys(key for row in table for key in row))
    columns = [c for c in columns if c not in shared] + list(shared)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".csv")
    with os.fdopen(handle, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    return path
