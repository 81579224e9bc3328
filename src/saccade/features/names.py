"""How features are named: a kind, and options after it as in a web address (``sift?limit=300``, ``lbp?radius=2&grid=8``).

Every function checks its own options by what stands below: it may be called without such a text.
"""

from __future__ import annotations

import inspect
import numbers
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.types.coerce import coerce
from saccade.types.errors import UsageError, one_line, suggest

VECTORS = {
    "hog": "saccade.features.vectors:HogVector",
    "sift_bow": "saccade.features.bow:BagOfWords",
    "lbp": "saccade.features.lbp:LbpVector",
    "color": "saccade.features.color:ColorVector",
    "pixels": "saccade.features.vectors:PixelVector",
    "timm": "saccade.features.backbone:BackboneFeatures",
}
"""Features that are one vector an image: their classes (:mod:`saccade.features.base`)."""


def split_kind(text: str) -> tuple[str, str]:
    """Name and options of a description.

    Raises:
        UsageError: it is no text.

    >>> split_kind("lbp?radius=2&grid=8"), split_kind("hog")
    (('lbp', 'radius=2&grid=8'), ('hog', ''))
    """
    if not isinstance(text, str):
        raise UsageError(f"features are named by a text such as 'sift' or 'lbp?radius=2', not by {type(text).__name__}")
    name, _, query = text.partition("?")
    return name, query


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
    """UsageError when an option is no number, or lies outside ``low..high``."""
    for name, value in options.items():
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(name, value, f"it lies in {low}..{high}")


def check_whole(low: int, high: int | None, **options: int) -> None:
    """UsageError when an option is no whole number, or lies outside ``low..high``; None is no upper end."""
    for name, value in options.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < low or (high is not None and value > high):
            raise _wrong(name, value, "it is a whole number and " + (f"at least {low}" if high is None else f"lies in {low}..{high}"))


def check_choice(known: Any, **options: str) -> None:
    """UsageError when an option is none of the texts of the Literal ``known``."""
    for name, value in options.items():
        if not isinstance(value, str) or value not in typing.get_args(known):
            raise _wrong(name, value, "it is " + " or ".join(typing.get_args(known)))


def _wrong(name: str, value: Any, rule: str) -> UsageError:
    if isinstance(value, int) and abs(value) > 2**200:
        value = "a huge number"  # Python writes out no number of more than 4300 digits
    elif isinstance(value, str):
        value = repr(value)
    return UsageError(f"the features' option {name}={one_line(value, 80)}: {rule}")
