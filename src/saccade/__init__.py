"""saccade: computer vision on your own images, from a folder of labelled pictures to a trained, measured, reported model.

>>> import saccade
>>> [m["name"] for m in saccade.list_models(task="detect")][:2]
['faster_rcnn', 'haar_cascade']

Everything here is loaded on first use: importing saccade loads neither torch nor Lightning.
"""

from __future__ import annotations

import importlib
import os as _os
from typing import TYPE_CHECKING, Any

# Spinning OpenMP threads turn 45 ms into 940 ms where a neighbour is busy; read when torch loads.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from saccade import features as features
    from saccade import image as image
    from saccade.data.dataset import Dataset
    from saccade.data.load import load_data
    from saccade.data.mixed import mix
    from saccade.engine.run import Run, open_run
    from saccade.models.darknet.model import load_darknet
    from saccade.models.registry import create_model
    from saccade.types.errors import DataError, SaccadeError, UsageError
    from saccade.types.recipe import Recipe
    from saccade.workflows.check import check
    from saccade.workflows.compare import compare
    from saccade.workflows.evaluate import evaluate
    from saccade.workflows.inspect import inspect
    from saccade.workflows.models import list_models, model_info, model_shape
    from saccade.workflows.predict import load, predict
    from saccade.workflows.train import resume, train

_WHERE = {
    "list_models": "saccade.workflows.models",
    "model_info": "saccade.workflows.models",
    "model_shape": "saccade.workflows.models",
    "create_model": "saccade.models.registry",
    "load_darknet": "saccade.models.darknet.model",
    "load_data": "saccade.data.load",
    "mix": "saccade.data.mixed",
    "Dataset": "saccade.data.dataset",
    "Recipe": "saccade.types.recipe",
    "train": "saccade.workflows.train",
    "resume": "saccade.workflows.train",
    "check": "saccade.workflows.check",
    "compare": "saccade.workflows.compare",
    "evaluate": "saccade.workflows.evaluate",
    "inspect": "saccade.workflows.inspect",
    "predict": "saccade.workflows.predict",
    "load": "saccade.workflows.predict",
    "Run": "saccade.engine.run",
    "open_run": "saccade.engine.run",
    "SaccadeError": "saccade.types.errors",
    "DataError": "saccade.types.errors",
    "UsageError": "saccade.types.errors",
}

__all__ = [
    "DataError",
    "Dataset",
    "Recipe",
    "Run",
    "SaccadeError",
    "UsageError",
    "check",
    "compare",
    "create_model",
    "evaluate",
    "inspect",
    "list_models",
    "load",
    "load_darknet",
    "load_data",
    "mix",
    "model_info",
    "model_shape",
    "open_run",
    "predict",
    "resume",
    "train",
]
__version__ = "0.1.0"


_ROOMS = ("features", "image")
"""Packages that are attributes too: ``saccade.image.median(...)``."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"saccade.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'saccade' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
