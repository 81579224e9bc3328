"""Values from YAML and ``--set`` to the types that a builder or the recipe declares. No torch here."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Literal


def coerce(value: Any, hint: Any) -> Any:
    """``value`` as the type ``hint``: bool, int, float, str, None, Literal, Union, tuple, list, Sequence, or Any.

    Numbers may come as text (YAML takes ``1e-3`` for a string); a float with a fraction is no int; a bool is no number.

    Raises:
        ValueError: it does not fit; the message says what was expected.

    >>> coerce("1e-3", float), coerce([1, "2"], tuple[int, ...]), coerce(None, int | None)
    (0.001, (1, 2), None)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (typing.Union, types.UnionType):
        return _first(value, arguments)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) is not any(isinstance(a, bool) for a in arguments if a == value):
            raise ValueError("expected one of " + ", ".join(map(str, arguments)))
        return value
    if hint is None or hint is type(None):
        return _exact(value is None, value, "nothing")
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        return _sequence(value, origin or hint, arguments)
    if hint is bool:
        words = {"true": True, "false": False, "yes": True, "no": False}
        value = words.get(value.lower(), value) if isinstance(value, str) else value
        return _exact(isinstance(value, bool), value, "true or false")
    if hint in (int, float):
        return _number(value, hint)
    if isinstance(hint, type):
        return _exact(isinstance(value, hint), value, "a text" if hint is str else f"a {hint.__name__}")
    return value


def _exact(fits: bool, value: Any, expected: str) -> Any:
    if not fits:
        raise ValueError(f"expected {expected}")
    return value


def _number(value: Any, hint: type) -> Any:
    expected = "a whole number" if hint is int else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"expected {expected}")
    try:
        number = float(value)
        if hint is float:
            return number
        return int(value) if not isinstance(value, float) else _exact(number.is_integer(), int(number), expected)
    except (ValueError, OverflowError):
        raise ValueError(f"expected {expected}") from None


def _first(value: Any, arguments: tuple[Any, ...]) -> Any:
    """The arm of a union whose type the value has already, else the first that takes it."""
    reasons = []
    for strict in (True, False):
        for argument in arguments:
            try:
                fitted = coerce(value, argument)
            except ValueError as error:
                reasons.append(str(error).removeprefix("expected "))
                continue
            if not strict or type(fitted) is type(value):
                return fitted
    raise ValueError("expected " + " or ".join(dict.fromkeys(reasons)))


def _sequence(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ValueError("expected a list such as [1, 2]")
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ValueError(f"expected a list of {len(arguments)} values")
        return tuple(coerce(v, a) for v, a in zip(value, arguments, strict=True))
    item = arguments[0] if arguments else Any
    out = [coerce(v, item) for v in value]
    return out if kind is list else tuple(out)
