"""saccade predict: the verb."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from saccade.cli import options as o


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder or bundle, or Darknet's NAME.cfg beside its NAME.weights.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Files, folders, globs.")],
    out: Annotated[str, typer.Option("--out", help="Where pictures and predictions go.")] = "predictions",
    form: Annotated[str, typer.Option("--form", help="json, jsonl, coco or csv.")] = "json",
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Write drawn pictures.")] = True,
    score: o.Score = None,
    iou: o.Iou = None,
    max_detections: o.MaxDetections = None,
    batch_size: o.Batch = 8,
    workers: o.Workers = None,
    device: o.Device = "auto",
    tta: o.Tta = None,
    fast: Annotated[bool, typer.Option("--fast", help="Fold normalisation into convolutions, channels last; last digits differ.")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="--fast, and compile the network first: for thousands of images.")] = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
) -> None:
    """Predict images: drawn pictures, and JSON, JSON lines, COCO results or CSV.

    Examples:
      saccade predict runs/ssdlite-001 photos/ --out found

      saccade predict runs/ssdlite-001 'photos/**/*.jpg' --form coco --no-draw --score 0.05
    """
    from pathlib import Path

    from saccade.data.images import find_images
    from saccade.engine.predictor import faster
    from saccade.types.errors import DataError
    from saccade.types.recipe import PREDICTION
    from saccade.workflows import predict as workflow

    settings = o.settings(PREDICTION, score, iou, max_detections)
    skipped: list[DataError] = []
    model = workflow.load(run, o.pick_device(device))
    if fast or compiled:
        model = faster(model, compiled=compiled)
    paths = list(find_images(images))
    writer = workflow.Writer(Path(out), form, draw=draw, inputs=paths)
    stream = workflow.predict(
        model, paths, score=settings.score, iou=settings.iou, max_detections=settings.max_detections, batch_size=batch_size,
        workers=workers, skipped=None if strict or len(paths) == 1 else skipped.append, tta=tta or (),
    )  # fmt: skip
    count = writer.write_all(stream)
    for problem in skipped:
        print(f"saccade: skipped: {problem}", file=sys.stderr)
    if not count:
        raise DataError(images[0], "none of the images can be read")
    if as_json:
        o.emit({"images": count, "skipped": [str(p) for p in skipped], "file": str(writer.file), "folder": out})
    else:
        typer.echo(f"{count} images -> {writer.file}" + (f", {len(skipped)} skipped" if skipped else ""))
