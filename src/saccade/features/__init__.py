"""Classical features: key points and descriptors, their matching, and vectors of whole images.

>>> from saccade import features
>>> import numpy as np
>>> len(features.detect(np.zeros((40, 60), np.uint8), "sift"))
0

The modules are attributes (``features.match.match(a, b)``, ``features.surf.surf(image)``), loaded on first use, and so are the functions of
:data:`FUNCTIONS`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

FUNCTIONS = {
    "Keypoints": "keypoints",
    "detect": "keypoints",
    "fit_homography": "match",
    "draw_matches": "match",
    "make_panorama": "panorama",
    "find_objects": "haar",
    "train_cascade": "haar_train",
    "create_features": "base",
}
"""Name -> module."""

MODULES = tuple(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"saccade.features.{name}")
    if name not in FUNCTIONS:
        raise AttributeError(f"module 'saccade.features' has no attribute {name!r}")
    return getattr(importlib.import_module(f"saccade.features.{FUNCTIONS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *FUNCTIONS, *MODULES})
