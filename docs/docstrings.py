"""For the API reference: our docstrings are written for Python's help(), here they become the Markdown that mkdocstrings reads."""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainDocstrings(griffe.Extension):
    """Takes roles and double backticks for code, and "Example:" for the section of examples."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that is read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring's Markdown.

    >>> markdown("As :func:`~saccade.train`, with ``epochs``.")
    'As `saccade.train`, with `epochs`.'
    """
    text = re.sub(r"(?m)^(\s*)Example:$", r"\1Examples:", text)
    text = re.sub(r"  # doctest: \+SKIP", "", text)
    text = re.sub(r":(?:func|class|meth|mod|data|attr):`~?(.+?)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text)
