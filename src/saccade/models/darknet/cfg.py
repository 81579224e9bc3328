"""Darknet's network descriptions: ``[section]`` lines with ``key=value`` lines below, ``#`` and ``;`` begin comments.

Two programs read them, and compute a few things differently: the original (``"pjreddie"``) and the fork that the later papers used
(``"alexeyab"``). :func:`guess_dialect` tells a file of the fork by what only it knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from saccade.types.errors import DataError, suggest

Dialect = Literal["pjreddie", "alexeyab"]

MOST_BYTES = 4 << 20
"""Larger files are no network descriptions."""

MOST_SECTIONS = 4096

_ONLY_ALEXEYAB = {
    "groups", "group_id", "scale_x_y", "new_coords", "iou_loss", "nms_kind", "beta_nms", "mosaic", "cutmix", "letter_box", "ema_alpha",
    "iou_normalizer", "cls_normalizer", "obj_normalizer", "max_delta", "dilation", "stride_x", "stride_y", "objectness_smooth",
    "optimized_memory",
}  # fmt: skip
_ONLY_ALEXEYAB_ACTIVATIONS = {"mish", "swish"}


@dataclass
class Section:
    """One ``[kind]`` of a file.

    Attributes:
        kind: name in the brackets. line: its number in the file, from 1. number: of the layer, from 0; -1 for ``[net]``.
        options: values by key, as text, and the line of each in ``lines``.
    """

    path: Path
    kind: str
    line: int
    number: int
    options: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def error(self, problem: str, key: str = "", hint: str = "") -> DataError:
        """A DataError at this section or at one of its lines."""
        place = f"line {self.lines.get(key, self.line)}, {self}"
        return DataError(self.path, problem, where=place, hint=hint)

    def __str__(self) -> str:
        return f"[{self.kind}]" + (f" (layer {self.number})" if self.number >= 0 else "")

    def __contains__(self, key: str) -> bool:
        return key in self.options

    def text(self, key: str, default: str = "") -> str:
        """A value as it stands."""
        return self.options.get(key, default)

    def int(self, key: str, default: int | None = None, low: int = 0, high: int = 1 << 20) -> int:
        """A whole number in ``low..high``; without a default it must be there."""
        if key not in self.options:
            if default is None:
                raise self.error(f"has no {key}=")
            return default
        value = self.float(key, 0.0)
        if not low <= value <= high or value != int(value):
            raise self.error(f"{key}={self.options[key][:40]} is no whole number from {low} to {high}", key)
        return int(value)

    def float(self, key: str, default: float) -> float:
        """A finite number."""
        if key not in self.options:
            return default
        try:
            value = float(self.options[key])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(f"{key}={self.options[key][:40]} is no number", key)
        return value

    def floats(self, key: str) -> list[float]:
        """Numbers with commas between them; an empty list when the key is missing."""
        out = []
        for item in filter(None, (part.strip() for part in self.options.get(key, "").split(","))):
            try:
                value = float(item)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise self.error(f"{key}: {item[:40]!r} is no number", key)
            out.append(value)
        return out

    def ints(self, key: str) -> list[int]:
        """Whole numbers with commas between them."""
        values = self.floats(key)
        if any(v != int(v) or abs(v) > 1 << 20 for v in values):
            raise self.error(f"{key}={self.options[key][:60]} are no whole numbers", key)
        return [int(v) for v in values]


@dataclass
class Description:
    """A whole file: ``net`` (sizes, training) and the layers in order."""

    path: Path
    net: Section
    layers: list[Section]

    def __iter__(self) -> Iterator[Section]:
        return iter(self.layers)


KINDS = (
    "convolutional", "connected", "local", "maxpool", "avgpool", "route", "shortcut", "upsample", "reorg", "dropout", "batchnorm",
    "softmax", "cost", "detection", "region", "yolo",
)  # fmt: skip
_SHORT = {"conv": "convolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool", "soft": "softmax", "network": "net"}


def read_cfg(path: str | Path) -> Description:
    """Read a ``.cfg`` file.

    Raises:
        DataError: no such file, no ``[net]`` at its top, a section that is not known, a line that is no ``key=value``; names the line.
    """
    path = Path(path)
    check_regular(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(path, f"is larger than {MOST_BYTES >> 20} MiB: no network description")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    if b"\0" in content:
        raise DataError(path, "is no text", hint="the network description is the .cfg file, the weights go to weights=")
    return parse_cfg(content.decode("utf-8", errors="replace"), path)


def check_regular(path: Path) -> None:
    """DataError for a pipe or a device, whose end may never come, and for a name that cannot be one."""
    try:
        special = path.exists() and not (path.is_file() or path.is_dir())
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    if special:
        raise DataError(path, "is not a regular file")


def parse_cfg(text: str, path: Path = Path("cfg")) -> Description:
    """The sections of a description's text; ``path`` names it in errors."""
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].partition(";")[0].strip().lstrip("\ufeff")
        if not line:
            continue
        if line.startswith("["):
            kind = line.strip("[]").strip().lower()[:60]
            kind = _SHORT.get(kind, kind)
            sections.append(Section(path, kind, number, len(sections) - 1))
            if len(sections) > MOST_SECTIONS:
                raise DataError(path, f"has more than {MOST_SECTIONS} sections", where=f"line {number}")
            continue
        key, equals, value = line.partition("=")
        if not equals or not sections:
            what = "is no key=value" if sections else "stands before any [section]: no network description"
            raise DataError(path, f"{line[:60]!r} {what}", where=f"line {number}")
        key = key.strip().lower()
        if key not in sections[-1]:  # of a key that stands twice Darknet takes the first
            sections[-1].options[key], sections[-1].lines[key] = value.strip(), number
    if not sections or sections[0].kind != "net":
        raise DataError(path, "does not begin with [net]: no network description")
    for section in sections[1:]:
        if section.kind not in KINDS:
            near = suggest(section.kind, KINDS)
            near = near if near.endswith("?") else ""  # the hint has them all
            raise section.error(f"[{section.kind}] is not known{near}", hint=f"known are {', '.join(KINDS)}")
    if len(sections) == 1:
        raise DataError(path, "has no layers")
    return Description(path, sections[0], sections[1:])


def guess_dialect(description: Description) -> Dialect:
    """Say "alexeyab" where the file has what only the fork knows (options such as ``scale_x_y``, Mish), else "pjreddie"."""
    for section in (description.net, *description.layers):
        known = {"groups"} if section.kind == "softmax" else set()  # the original's softmax has groups too
        if (_ONLY_ALEXEYAB - known) & section.options.keys() or section.text("activation") in _ONLY_ALEXEYAB_ACTIVATIONS:
            return "alexeyab"
    return "pjreddie"
