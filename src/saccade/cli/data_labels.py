"""saccade data labels: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o


def labels(
    data: o.Data,
    model: Annotated[
        str | None, typer.Option("--model", help="A name of `saccade models`, or hog: a quick classifier, fitted in seconds.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Each is judged by a model that learnt from the others.")] = 4,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes of each training.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="model.NAME=VALUE or recipe.NAME=VALUE.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="classify, detect or segment, when the data hold several.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Judge this split only.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Keep near duplicates in one fold: 'folder', or a regular expression on paths.")
    ] = None,
    out: Annotated[
        str, typer.Option("--out", help="Folder of the search, which goes on there; with --apply, of the new data.")
    ] = "label-errors",
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the worst are drawn and written.")] = 60,
    write: Annotated[str | None, typer.Option("--write", metavar="FORMAT", help="Write the suspicious images to OUT/to_correct.")] = None,
    apply: Annotated[str | None, typer.Option("--apply", metavar="FOLDER", help="Take corrected labels over instead of searching.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="With --apply: format to write (default: the data's own).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of folds and trainings.")] = 0,
    format: o.Format = None,
    workers: o.Workers = None,
    as_json: o.Json = False,
) -> None:
    """Find likely label errors, write them out to be corrected, and take the corrections over.

    Examples:
      saccade data labels blood/ --out suspects --write voc

      saccade data labels digits/ --model hog --folds 5

      saccade data labels blood/ --apply suspects/to_correct --out blood2 --to voc
    """
    from saccade.types.errors import UsageError, one_line
    from saccade.workflows.labels import apply_corrections, find_label_errors

    if apply is not None:
        if write is not None:
            raise UsageError("--write makes files to correct, --apply takes them over: give one of them")
        done = apply_corrections(data, apply, out, to, data_format=format)
        if as_json:
            o.emit(vars(done))
            return
        for text in (*done.problems, *done.losses):
            typer.echo(f"note: {one_line(text)}")
        typer.echo(f"{done.read} corrected images, {done.changed} of them changed; {done.images} images -> {done.folder}")
        return
    if to is not None:
        raise UsageError("--to goes with --apply; a search takes --write FORMAT")
    from saccade.engine.config import parse_sets

    found = find_label_errors(
        data, model, folds=folds, epochs=epochs, task=task, split=split, format=format, seed=seed, groups=group,
        options=parse_sets(sets or []), out=out, top=top, write=write, workers=workers,
    )  # fmt: skip
    if as_json:
        o.emit(found.to_dict())
        return
    for rank, issue in enumerate(found.issues[: min(top, 20)], 1):
        where = f", object {issue.object}" if issue.object else ""
        change = f"{issue.given or 'nothing'} -> {issue.suggested or 'nothing'}"
        typer.echo(one_line(f"{rank:>4}. {issue.path}{where}: {issue.kind}, {change}, quality {issue.quality:.3f}"))
    typer.echo(f"{len(found.issues)} likely errors in {len(found.suspicious())} of {found.images} images: {found.folder}")
