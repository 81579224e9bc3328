"""Image operations: pixels in, pixels out. ``saccade.image.median(image, size=5)``; :mod:`saccade.image.base` says what an image is.

Every operation is an attribute of this package, loaded on first use; OpenCV, scikit-image, SciPy and torch only by the operations that
need them.

>>> import numpy as np
>>> from saccade import image
>>> image.invert(np.array([[0, 100, 255]], np.uint8)).tolist()
[[255, 155, 0]]
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

from saccade.image.base import OPERATIONS, Operation

MODULES = tuple(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")
"""The modules of the room; no operation has the name of one."""


def operations() -> dict[str, Operation]:
    """Every operation by name, in the order of the canon's rows."""
    for module in MODULES:
        importlib.import_module(f"saccade.image.{module}")
    return dict(sorted(OPERATIONS.items(), key=lambda item: _rank(item[1].row)))


def _rank(row: str) -> tuple[str, int]:
    return re.sub(r"[0-9]", "", row), int(re.sub(r"[^0-9]", "", row) or 0)


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'saccade.image' has no attribute {name!r}")
    if name in MODULES:
        return importlib.import_module(f"saccade.image.{name}")
    known = operations()
    if name not in known:
        from saccade.types.errors import suggest

        raise AttributeError(f"no image operation {name!r}{suggest(name, known)}")
    value = known[name].function
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES, *operations()})
