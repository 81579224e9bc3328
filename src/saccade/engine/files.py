"""Text and JSON files, written whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from saccade.types.files import atomic

__all__ = ["atomic", "plain", "write_json", "write_text"]


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """JSON that every reader accepts: NaN and infinities become null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Plain JSON values: tuples to lists, paths to strings, arrays to lists, NaN to None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value
