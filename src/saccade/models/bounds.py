"""Ranges of builders' options."""

from __future__ import annotations

from saccade.types.errors import UsageError


def check_within(low: int, high: int, **options: int | None) -> None:
    """UsageError when one of a builder's options lies outside ``low..high``; None is not checked.

    >>> check_within(1, 4096, width=96, size=None)
    """
    for name, value in options.items():
        if value is not None and not low <= value <= high:
            raise UsageError(f"model.{name}={value}: it lies in {low}..{high}")
