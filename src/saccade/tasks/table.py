"""Task classes by name, imported on use."""

from __future__ import annotations

import importlib

from saccade.tasks.base import Task
from saccade.types.errors import UsageError, suggest

TASKS = {
    "classify": "saccade.tasks.classify:ClassifyTask",
    "detect": "saccade.tasks.detect:DetectTask",
    "segment": "saccade.tasks.segment:SegmentTask",
    "landmarks": "saccade.tasks.landmarks:LandmarksTask",
    "generate": "saccade.tasks.generate:GenerateTask",
}


def task_class(name: str) -> type[Task]:
    """The task's LightningModule class."""
    if name not in TASKS:
        raise UsageError(f"no task {name!r}{suggest(name, TASKS)}")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
