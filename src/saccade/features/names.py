"""How features are named: a kind, and options after it as in a web address (``sift?limit=300``, ``lbp?radius=2&grid=8``)."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.types.coerce import coerce
from saccade.types.errors import UsageError, suggest

VECTORS = {
    "hog": "saccade.features.vectors:HogVector",
    "sift_bow": "saccade.features.bow:BagOfWords",
    "lbp": "saccade.features.lbp:LbpVector",
    "color": "saccade.features.color:ColorVector",
    "pixels": "saccade.features.vectors:PixelVector",
    "timm": "saccade.features.backbone:BackboneFeatures",
}
"""Features that are one vector an image: their classes (:mod:`saccade.features.base`)."""


def read_options(
    query: str, function: Any, *, text: str, given: Mapping[str, Any] | None = None, leave: Sequence[str] = ()
) -> dict[str, Any]:
    """The options ``"radius=2&grid=8"`` of a function or class, as its annotations want them.

    Args:
        query: what follows the question mark; "" for none.
        function: whose keyword arguments the options are.
        text: the whole description, for messages.
        given: more options, which win.
        leave: arguments that are no options.

    Raises:
        UsageError: unknown option (with a suggestion), or a value that does not fit.
    """
    hints = typing.get_type_hints(vars(function).get("__init__", function))
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in leave]
    items: list[tuple[str, Any]] = [(item.partition("=")[0], item.partition("=")[2]) for item in query.split("&") if query]
    options: dict[str, Any] = {}
    for option, value in [*items, *(given or {}).items()]:
        if option not in known:
            raise UsageError(f"the features {text.partition('?')[0]!r} have no option {option!r}{suggest(option, known)}")
        try:
            options[option] = coerce(value, hints[option])
        except ValueError as error:
            raise UsageError(f"features {text!r}: {option}={value!r}: {error}") from None
    return options


def check_range(low: float, high: float, **options: float) -> None:
    """UsageError when an option lies outside ``low..high``."""
    for name, value in options.items():
        if not low <= value <= high:
            raise UsageError(f"the features' option {name}={value}: it lies in {low}..{high}")
