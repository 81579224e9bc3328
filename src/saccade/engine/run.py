"""A run's folder: config.yaml, metrics.csv, checkpoints/, model/ (the bundle), run.json, report.html, metrics.json, scores.csv."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.engine.bundle import load_bundle
from saccade.engine.callbacks import read_metrics
from saccade.engine.config import RunConfig
from saccade.models.base import Model
from saccade.types.errors import DataError
from saccade.types.machine import usable_cores


@dataclass
class Run:
    """What training leaves behind.

    Attributes:
        folder: where everything lies.
        metrics: numbers of the best weights on the validation split ("train" numbers where there is none).
    """

    folder: Path
    metrics: dict[str, float]

    @property
    def model(self) -> Model:
        """The trained model, in eval mode; loaded anew at each call."""
        return load_bundle(self.folder)

    @property
    def config(self) -> RunConfig:
        """The resolved settings."""
        return RunConfig.load(self.folder / "config.yaml")

    @property
    def history(self) -> list[dict[str, float]]:
        """A row an epoch."""
        return read_metrics(self.folder / "metrics.csv")

    def __repr__(self) -> str:
        shown = ", ".join(f"{k} {v:.4f}" for k, v in list(self.metrics.items())[:3])
        return f"<Run {self.folder}: {shown}>"


def open_run(folder: str | Path) -> Run:
    """A finished run from its folder."""
    folder = Path(folder)
    path = folder / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return Run(folder, {k: float("nan") if v is None else float(v) for k, v in facts["metrics"].items()})
    except FileNotFoundError:
        raise DataError(
            folder, "is no finished run", hint="it holds no run.json; saccade train --resume goes on with an unfinished one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(path, f"cannot be read: {error}") from None


def read_data_facts(folder: Path) -> dict[str, Any]:
    """A run's data.json: which images it learnt from; {} where there is none."""
    path = folder / "data.json"
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return {key: facts[key] for key in ("fingerprint", "index", "classes", "train", "val")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(path, f"cannot be read: {error}") from None


def new_folder(out: Path, name: str) -> Path:
    """A fresh folder ``out/NAME-001``, numbered."""
    out.mkdir(parents=True, exist_ok=True)
    name = name.replace("/", "-")  # timm/resnet18
    for number in range(1, 100_000):
        folder = out / f"{name}-{number:03}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise DataError(out, "holds too many runs", hint="give another --out")


def machine() -> dict[str, Any]:
    """What this ran on."""
    import torch

    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """Commit of the source tree that saccade runs from, with "+" when it is changed; "" for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", ".", ":!results"], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""


def facts() -> dict[str, Any]:
    """Who, where, when: for run.json, reports and results."""
    from importlib.metadata import version

    return {
        "saccade": version("saccade"),
        "commit": commit(),
        "command": " ".join(["saccade", *sys.argv[1:]]) if Path(sys.argv[0]).name == "saccade" else "python",
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": machine(),
    }
