"""saccade eval: the verb."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from saccade.cli import options as o


def evaluate(
    what: Annotated[str, typer.Argument(metavar="RUN|PREDICTIONS", help="Run folder, bundle, COCO results, or a folder of predictions.")],
    data: o.Data,
    split: Annotated[str, typer.Option("--split", help="Part of the data; 'all' takes everything.")] = "test",
    format: o.Format = None,
    predictions_format: Annotated[str | None, typer.Option("--predictions-format", help="Of predictions made elsewhere.")] = None,
    split_file: o.SplitFile = None,
    score: o.Score = None,
    iou: o.Iou = None,
    max_detections: o.MaxDetections = None,
    batch_size: o.Batch = 16,
    workers: o.Workers = None,
    device: o.Device = "auto",
    tta: o.Tta = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First find a classifier's temperature on split val, and keep it.")
    ] = False,
    top_losses: Annotated[
        int, typer.Option("--top-losses", min=0, metavar="N", help="Show the N images of a classifier's highest loss.")
    ] = 0,
    strict: o.Strict = False,
    as_json: o.Json = False,
) -> None:
    """Score a trained model, or predictions made elsewhere.

    Examples:
      saccade eval runs/ssdlite-001 blood/ --split test

      saccade eval predictions.json instances_val.json

      saccade eval yolo_predictions/ blood/ --json

      saccade eval runs/lenet5-001 digits/ --calibrate --tta hflip --top-losses 20
    """
    from saccade.types.errors import DataError, UsageError
    from saccade.types.recipe import EVALUATION
    from saccade.workflows import evaluate as workflow

    part = None if split in ("all", "") else split
    if calibrate:
        if split == "val":
            raise UsageError("--calibrate finds the temperature on split val: measure on another one")
        temperature, before, after = workflow.calibrate_run(
            what, data, format=format, split_file=split_file, batch_size=batch_size, workers=workers, device=o.pick_device(device)
        )
        print(f"temperature {temperature:.3f}: the mean -log p on split val goes from {before:.4f} to {after:.4f}", file=sys.stderr)
    result = workflow.evaluate_fully(
        what, data, split=part, format=format, split_file=split_file, settings=o.settings(EVALUATION, score, iou, max_detections),
        batch_size=batch_size, workers=workers, device=o.pick_device(device), predictions_format=predictions_format, tta=tta or (),
    )  # fmt: skip
    worst = []
    if top_losses:
        from saccade.metrics.classification import top_losses as highest

        if "loss" not in next(iter(result.tables.get("images", ())), {}):
            raise UsageError("--top-losses is for classifiers")
        worst = highest(result.tables["images"], top_losses)
    if as_json:
        o.emit(result.metrics | {"intervals": result.intervals} | ({"top_losses": worst} if worst else {}))
    else:
        show(f"{what} on {result.images} images of {data} ({split}), {result.seconds:.1f} s", result.metrics, result.intervals)
        show_errors(result.tables.get("errors"))
        show_losses(worst, result.tables.get("classes", []))
    for message in result.skipped.values():
        print(f"saccade: skipped: {message}", file=sys.stderr)
    if strict and result.skipped:
        raise DataError(next(iter(result.skipped)), f"{len(result.skipped)} broken files were skipped")


def show(head: str, metrics: dict[str, float], intervals: dict[str, tuple[float, float]]) -> None:
    """Numbers of the whole set with their 95 % intervals, then a row a class; the settings of a file of predictions in one line."""
    import math

    def text(value: float) -> str:
        return f"{value:.4f}" if math.isfinite(value) else "absent"

    def ends(key: str) -> str:
        low, high = intervals.get(key, (math.nan, math.nan))
        return f"  ({low:.3f} to {high:.3f})" if math.isfinite(low) else ""

    typer.echo(head)
    if intervals:
        typer.echo("  in brackets: the 95 % interval over the images")
    for key, value in metrics.items():
        if "/" not in key:
            typer.echo(f"  {key:<28} {text(value)}{ends(key)}")
    settings = {key.removeprefix("settings/"): value for key, value in metrics.items() if key.startswith("settings/")}
    if settings:
        typer.echo("  with " + ", ".join(f"{key} {value:g}" for key, value in settings.items()))
    metrics = {key: value for key, value in metrics.items() if not key.startswith("settings/")}
    kinds = list(dict.fromkeys(k.partition("/")[0] for k in metrics if "/" in k))
    names = list(dict.fromkeys(k.partition("/")[2] for k in metrics if "/" in k))
    if names:
        width = max(len(n) for n in names)
        typer.echo("  " + " " * width + "".join(f" {k:>12}" for k in kinds))
        for name in names:
            typer.echo(f"  {name:<{width}}" + "".join(f" {text(metrics.get(f'{k}/{name}', math.nan)):>12}" for k in kinds))


def show_errors(errors: dict[str, Any] | None) -> None:
    """A row a kind of detection error: what fixing it alone would gain, and how many there are."""
    if not errors or errors["ap50"] is None:
        return
    typer.echo(f"  {'errors by kind (TIDE)':<28} gain of AP50  at score {errors['score']:g}")
    for kind, gain in errors["gain"].items():
        typer.echo(f"  {kind:<28} {gain:>+12.4f}  {errors['shown'].get(kind, ''):>12}")


def show_losses(worst: list[dict[str, Any]], classes: list[str]) -> None:
    """A row an image: its loss, what it is, what it was taken for."""
    if worst:
        typer.echo(f"  {'loss':>8}  true -> predicted (score)  image")
    for row in worst:
        seen = f"{classes[row['truth']]} -> {classes[row['label']]} ({row['score']:.3f})"
        typer.echo(f"  {row['loss']:>8.4f}  {seen}  {row['path']}")
