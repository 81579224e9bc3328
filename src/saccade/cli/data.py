"""saccade data: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o

app = typer.Typer(help="Look at data and write them in another format.", no_args_is_help=True)


@app.command("show")
def show(data: o.Data, format: o.Format = None, split_file: o.SplitFile = None, as_json: o.Json = False) -> None:
    """What is there: format and why, classes, splits, counts, and what was skipped or repaired.

    Example:
      saccade data show blood/
    """
    from saccade.data.load import load_data
    from saccade.types.errors import one_line

    loaded = load_data(data, format=format, split_file=split_file)
    index = loaded.index
    counts = dict(zip(loaded.classes, loaded.class_counts().tolist(), strict=True))
    facts = {
        "format": index.format,
        "reason": index.reason,
        "root": str(index.root),
        "images": len(index),
        "tasks": list(index.tasks),
        "splits": {name: len(members) for name, members in index.splits.items()},
        "classes": counts,
        "problems": [str(p) for p in index.problems],
    }
    if as_json:
        o.emit(facts)
        return
    typer.echo(one_line(f"{data}: {facts['format']} ({facts['reason']}), {facts['images']} images for {', '.join(facts['tasks'])}"))
    for name, count in facts["splits"].items():
        typer.echo(f"  split {one_line(name):<12} {count}")
    for name, count in counts.items():
        typer.echo(f"  class {one_line(name):<20} {count}")
    for problem in facts["problems"]:
        typer.echo(f"  note: {problem}")


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(metavar="DATA", help="What to read.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    to: Annotated[str, typer.Option("--to", help="Format to write.")],
    format: o.Format = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
) -> None:
    """Write data in another format, and say what it cannot hold.

    Example:
      saccade data convert blood/ blood_coco/ --to coco
    """
    from pathlib import Path

    from saccade.data.formats import write_data
    from saccade.data.load import load_data
    from saccade.types.errors import UsageError

    loaded = load_data(source, split, format=format)
    if Path(source).expanduser().is_dir() and Path(target).resolve().is_relative_to(loaded.index.root.resolve()):
        raise UsageError(f"{target} lies inside the data that are read, {source}: name a folder outside")
    for loss in write_data(loaded, Path(target), to):
        typer.echo(f"note: {loss}")
    typer.echo(f"{len(loaded)} images -> {target}")
