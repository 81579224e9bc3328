"""Options that several verbs share."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

Data = Annotated[str, typer.Argument(metavar="DATA", help="Folder, file, set:NAME, synthetic:shapes or synthetic:cells.")]
Format = Annotated[str | None, typer.Option("--format", help="Annotation format, when it is not recognised by itself.")]
SplitFile = Annotated[str | None, typer.Option("--split-file", help="File that says which images belong to which split.")]
Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout.")]
Strict = Annotated[bool, typer.Option("--strict", help="A broken image is an error, not skipped.")]
Workers = Annotated[int | None, typer.Option("--workers", min=0, help="Loader processes; never changes a result.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto.")]
Score = Annotated[float | None, typer.Option("--score", min=0, max=1, help="Least score of a detection.")]
Iou = Annotated[float | None, typer.Option("--iou", min=0, max=1, help="IoU of non-maximum suppression.")]
MaxDetections = Annotated[int | None, typer.Option("--max-detections", min=1, help="Most detections an image.")]
Tta = Annotated[
    list[str] | None,
    typer.Option("--tta", metavar="VIEW", help="hflip or vflip, once or both: a classifier's mean over the image and these views of it."),
]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images at once; for speed only.")]


def emit(value: Any) -> None:
    """Machine output: NaN as null."""
    from saccade.engine.files import plain

    typer.echo(json.dumps(plain(value), indent=1, allow_nan=False))


def pick_device(name: str) -> str:
    """The best there is for "auto"; UsageError for what is not there."""
    if name == "cpu":  # loads no torch
        return name
    import torch

    from saccade.types.errors import UsageError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    known = re.fullmatch(r"(?:cpu|cuda|mps)|cuda:([0-9]{1,4})", name)
    if known is None:
        raise UsageError(f"no device {name!r}; known: cpu, cuda, cuda:N, mps, auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no MPS device here; use --device cpu")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageError("no CUDA device here; use --device cpu")
        if int(known[1] or 0) >= count:
            raise UsageError(f"no device {name!r} here; the last is cuda:{count - 1}")
    return name


def settings(base: Any, score: float | None, iou: float | None, max_detections: int | None) -> Any:
    """Decode settings with what was given."""
    import dataclasses

    given = {"score": score, "iou": iou, "max_detections": max_detections}
    return dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})
