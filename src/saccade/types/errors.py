"""Errors that a user can act on. Each is one line: what, where, what to do. No torch here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class SaccadeError(Exception):
    """Base of every error that saccade raises on purpose: one line, which the command line prints before it exits 1."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message, 2000))


class UsageError(SaccadeError):
    """A wrong option, name or argument: the command line exits 2."""


class MissingExtra(SaccadeError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'saccade[{extra}]'")


class DataError(SaccadeError, ValueError):
    """Something is wrong with a user's file.

    Attributes:
        path: the file or folder.
        problem: what is wrong, in one phrase.
        where: the place inside the file ("line 3", "object 2"), or "".
        hint: what to do about it, or "".
    """

    def __init__(self, path: str | Path, problem: str, *, where: str = "", hint: str = "") -> None:
        # One line whatever the file's name or content holds.
        self.path, self.problem, self.where, self.hint = (one_line(x) for x in (path, problem, where, hint))
        text = ": ".join(x for x in (self.path or "''", self.where, self.problem) if x)
        super().__init__(f"{text} ({self.hint})" if self.hint else text)

    def __reduce__(self) -> tuple:  # loader workers send errors between processes
        return _rebuild, (type(self), self.path, self.problem, self.where, self.hint)


def _rebuild(cls: type[DataError], path: str, problem: str, where: str, hint: str) -> DataError:
    return cls(path, problem, where=where, hint=hint)


def one_line(value: object, limit: int = 400) -> str:
    """A value as one printable line, cut to ``limit`` characters: names and contents of files go into messages."""
    text = "".join(c if c.isprintable() else " " for c in str(value)).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def suggest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` or the short list of what is known; "" when nothing is known.

    >>> suggest("leaning_rate", ["learning_rate", "epochs"])
    "; did you mean 'learning_rate'?"
    >>> suggest("zzz", ["a", "b"])
    '; known: a, b'
    """
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if not known:
        return ""
    shown = ", ".join(known[:12])
    return f"; known: {shown}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")
