"""saccade data dedupe: the verb."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from saccade.cli import options as o

SHOWN = 100
"""Groups that are printed; ``--json`` gives all."""


def dedupe(
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Folders, files or set:NAME; several are searched together.")],
    out: Annotated[str | None, typer.Option("--out", help="Write the images that can go, a name a line.")] = None,
    new_splits: Annotated[str | None, typer.Option("--new-splits", help="Write splits without leaks as JSON, for --split-file.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Equal pixels only; no edited copies.")] = False,
    radius: Annotated[int | None, typer.Option("--radius", min=0, max=32, help="Bits by which hashes of copies may differ.")] = None,
    likeness: Annotated[float | None, typer.Option("--likeness", min=-1, max=1, help="Least correlation of an edited copy.")] = None,
    flips: Annotated[bool, typer.Option("--flips/--no-flips", help="Find mirrored copies.")] = True,
    rotations: Annotated[bool, typer.Option("--rotations/--no-rotations", help="Find copies turned by 90, 180, 270 degrees.")] = True,
    any_angle: Annotated[bool, typer.Option("--any-angle", help="Find copies turned by any angle about the centre; slower.")] = False,
    model: Annotated[str | None, typer.Option("--model", metavar="RUN", help="A trained classifier whose features count, too.")] = None,
    cosine: Annotated[float | None, typer.Option("--cosine", min=-1, max=1, help="Least cosine of the model's features.")] = None,
    format: o.Format = None,
    split_file: o.SplitFile = None,
    workers: o.Workers = None,
    device: o.Device = "auto",
    as_json: o.Json = False,
) -> None:
    """Images that are there twice: equal files or pixels, and edited copies. Nothing is deleted.

    Of each group the largest picture stays, of equal ones the first by name; --out lists the others. --new-splits keeps test (and val)
    as they are and leaves their copies out of train (and val); data without splits get new ones that keep copies together.

    Examples:
      saccade data dedupe photos/

      saccade data dedupe blood/ --out drop.txt --new-splits splits.json
    """
    from saccade.types.errors import one_line
    from saccade.workflows import dedupe as workflow

    given = {"radius": radius, "likeness": likeness, "cosine": cosine}
    result = workflow.dedupe(
        data, format=format, split_file=split_file, near=not exact, flips=flips, rotations=rotations, any_angle=any_angle, model=model,
        device=o.pick_device(device) if model else "cpu", workers=workers, **{k: v for k, v in given.items() if v is not None},
    )  # fmt: skip
    facts = result.to_dict()
    sizes = result.write_splits(new_splits) if new_splits else None
    if out:
        result.write_list(out)
    for problem in facts["skipped"]:
        print(f"saccade: skipped: {problem}", file=sys.stderr)
    if as_json:
        o.emit(facts | {"list": out, "new_splits": new_splits and {"file": new_splits, "images": sizes}})
        return
    for number, group in enumerate(facts["groups"][:SHOWN], 1):
        typer.echo(f"group {number}: {len(group['images'])} images")
        for name in group["images"]:
            typer.echo(f"  {'can go' if name in group['drop'] else 'stays '}  {one_line(name)}")
        for pair in group["pairs"]:
            more = "" if pair["kind"].startswith("same") else f", likeness {pair['likeness']:.3f}"
            typer.echo(one_line(f"    {pair['kind']}{more}: {pair['first']} | {pair['second']}"))
    if len(facts["groups"]) > SHOWN:
        typer.echo(f"... and {len(facts['groups']) - SHOWN} groups more (--json lists all)")
    for leak in facts["leaks"][:SHOWN]:
        typer.echo(f"leak: {one_line(leak)}")
    if len(facts["leaks"]) > SHOWN:
        typer.echo(f"... and {len(facts['leaks']) - SHOWN} leaks more")
    typer.echo(
        f"{facts['images']} images, {len(facts['groups'])} groups of copies, {len(facts['drop'])} images can go"
        + (f", {len(facts['leaks'])} leaks between splits" if facts["leaks"] else "")
        + (f" -> {out}" if out else "")
    )
    if sizes is not None:
        typer.echo(", ".join(f"{name} {count}" for name, count in sizes.items()) + f" -> {new_splits}")
