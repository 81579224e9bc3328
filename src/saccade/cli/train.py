"""saccade train: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o


def train(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A name of `saccade models`.")] = None,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="Folder, file, set:NAME, synthetic:shapes or synthetic:cells.")] = None,
    resume: Annotated[str | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training images.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="model.NAME=VALUE or recipe.NAME=VALUE.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="YAML file with model: and recipe: sections.")] = None,
    out: Annotated[str, typer.Option("--out", help="Parent of the run folder.")] = "runs",
    folder: Annotated[str | None, typer.Option("--folder", help="The run folder itself.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of everything random.")] = 0,
    format: o.Format = None,
    split_file: o.SplitFile = None,
    train_split: Annotated[str, typer.Option("--train-split")] = "train",
    val_split: Annotated[str, typer.Option("--val-split", help="'none' trains without validation.")] = "val",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from published weights (downloaded).")] = False,
    weights: Annotated[str | None, typer.Option("--weights", metavar="FILE|RUN", help="Start from the tensors that fit.")] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Train nothing: try rising learning rates, show where the loss falls.")
    ] = False,
    devices: Annotated[int, typer.Option("--devices", min=1, help="More than one trains by DDP; the batch is shared out.")] = 1,
    accelerator: Annotated[str, typer.Option("--accelerator", help="auto, cpu, gpu, mps, tpu.")] = "auto",
    strategy: Annotated[str, typer.Option("--strategy", help="Lightning's strategy: auto, ddp, fsdp ...")] = "auto",
    workers: o.Workers = None,
    allow_leaks: Annotated[bool, typer.Option("--allow-leaks", help="Train although images stand in two splits.")] = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
) -> None:
    """Train a model on your images.

    Examples:
      saccade train ssdlite blood/ --epochs 60

      saccade train unet cells/ --set model.backbone=resnet18 --set recipe.loss=dice+focal

      saccade train lenet5 set:mnist --seed 1 --out runs/mnist

      saccade train --resume runs/ssdlite-001

      saccade train lenet5 digits/ --weights runs/lenet5-001 --set recipe.transfer=features
    """
    from saccade.types.errors import DataError, UsageError
    from saccade.workflows import train as workflow

    if resume is not None:
        if model or data or find_lr:
            raise UsageError("--resume takes its model and data from the run: saccade train --resume RUN")
        run = workflow.resume(resume)
    else:
        if not model or not data:
            raise UsageError("give a model and data: saccade train MODEL DATA, or saccade train --resume RUN")
        from saccade.engine.config import parse_sets

        if find_lr:
            found = workflow.find_lr(
                model, data, out=out, folder=folder, format=format, split_file=split_file, train_split=train_split, val_split=val_split,
                seed=seed, pretrained=pretrained, weights=weights, accelerator=accelerator, workers=workers, config=config,
                options=parse_sets(sets or []),
            )  # fmt: skip
            if as_json:
                o.emit({"suggestion": found.suggestion, "lr": found.rates, "loss": found.losses})
            return
        run = workflow.train(
            model, data, out=out, folder=folder, format=format, split_file=split_file, train_split=train_split, val_split=val_split,
            seed=seed, pretrained=pretrained, weights=weights, devices=devices, accelerator=accelerator, strategy=strategy,
            workers=workers, config=config, options=parse_sets(sets or []), allow_leaks=allow_leaks, epochs=epochs,
        )  # fmt: skip
    if as_json:
        o.emit({"folder": str(run.folder), "metrics": run.metrics})
    if strict:
        import json

        skipped = json.loads((run.folder / "run.json").read_text())["skipped"]
        if skipped:
            raise DataError(next(iter(skipped)), f"and {len(skipped) - 1} more files were skipped" if len(skipped) > 1 else "was skipped")
