"""saccade demo: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o


def demo(
    out: Annotated[str, typer.Option("--out", help="Where everything goes.")] = "runs/demo",
    data: Annotated[str, typer.Option("--data", help="Data to use instead of the built-in cells.")] = "",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Fewer is shorter.")] = None,
    as_json: o.Json = False,
) -> None:
    """The main job on built-in data: train a detector on drawn blood cells, evaluate, predict, report (two minutes of CPU).

    Example:
      saccade demo --out runs/demo
    """
    from saccade.workflows.demo import demo as run

    result = run(out, data or None, epochs)
    if as_json:
        o.emit(result)
