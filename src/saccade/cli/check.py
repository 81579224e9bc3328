"""saccade check: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o


def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of `saccade models`.")],
    data: o.Data,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="model.NAME=VALUE or recipe.NAME=VALUE.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="YAML file with model: and recipe: sections.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder of check.html and batch.png; default check/MODEL.")] = None,
    learn: Annotated[bool, typer.Option("--overfit/--no-overfit", help="Let the model learn a few images by heart.")] = True,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps of that.")] = 60,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time after which no further step begins.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of everything random.")] = 0,
    format: o.Format = None,
    split_file: o.SplitFile = None,
    train_split: Annotated[str, typer.Option("--train-split")] = "train",
    val_split: Annotated[str, typer.Option("--val-split", help="'none': without validation.")] = "val",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from published weights (downloaded).")] = False,
    weights: Annotated[str | None, typer.Option("--weights", help="Start from a file of weights.")] = None,
    device: o.Device = "auto",
    workers: o.Workers = None,
    as_json: o.Json = False,
) -> None:
    """Before a night of training: one batch as the network sees it, what training would cost, and whether the model can learn these data.

    Exit status 1 when there is an error among the findings.

    Examples:
      saccade check ssdlite blood/

      saccade check faster_rcnn blood/ --set model.min_size=480 --steps 200 --seconds 300

      saccade check unet cells/ --no-overfit --json
    """
    from pathlib import Path

    from saccade.engine.config import parse_sets
    from saccade.types.errors import one_line
    from saccade.workflows import check as workflow

    folder = Path(out) if out is not None else Path("check") / model.replace("/", "-")
    found = workflow.check(
        model, data, out=folder, format=format, split_file=split_file, train_split=train_split, val_split=val_split, seed=seed,
        pretrained=pretrained, weights=weights, device=o.pick_device(device), workers=workers, config=config,
        options=parse_sets(sets or []), learn=learn, steps=steps, seconds=seconds,
    )  # fmt: skip
    if as_json:
        o.emit(found.to_dict() | {"folder": str(folder)})
    else:
        for line in workflow.summary(found):
            typer.echo(" " * (len(line) - len(line.lstrip())) + one_line(line, 1000))
        typer.echo(f"page: {folder / 'check.html'}")
    if found.errors:
        raise typer.Exit(1)
