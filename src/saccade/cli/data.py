"""saccade data: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import data_dedupe, data_labels
from saccade.cli import options as o

app = typer.Typer(help="Look at data, clean and split them, write them in another format.", no_args_is_help=True)


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


@app.command("inspect")
def inspect(
    data: o.Data,
    format: o.Format = None,
    split_file: o.SplitFile = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
    duplicates: Annotated[bool, typer.Option("--duplicates/--no-duplicates", help="Look for duplicates and leaks too.")] = True,
    out: Annotated[str | None, typer.Option("--out", help="Write a page of one file, with pictures.")] = None,
    workers: o.Workers = None,
    as_json: o.Json = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when there is an error among the findings.")] = False,
) -> None:
    """Open every image once and say what is there and what is wrong with it.

    Example:
      saccade data inspect blood/ --out blood.html
    """
    import sys

    from saccade.types.errors import one_line
    from saccade.workflows import inspect as workflow

    def progress(done: int, count: int) -> None:
        print(f"\r{done}/{count} images", end="" if done < count else "\n", file=sys.stderr, flush=True)

    shown = progress if sys.stderr.isatty() and not as_json else None
    found = workflow.inspect(
        data, split=split, format=format, split_file=split_file, duplicates=duplicates, workers=workers, out=out, progress=shown
    )
    if as_json:
        o.emit(found.to_dict())
    else:
        for line in workflow.summary(found):
            typer.echo(" " * (len(line) - len(line.lstrip())) + one_line(line))
        if out is not None:
            typer.echo(f"page: {out}")
    if strict and any(f.level == "error" for f in found.findings):
        raise typer.Exit(1)


@app.command("split")
def split(
    data: o.Data,
    out: Annotated[str, typer.Option("--out", help="JSON file to write, for --split-file; a folder with --folds.")] = "splits.json",
    fractions: Annotated[str, typer.Option("--fractions", help="Of train, val, test; or by name: train=0.8,test=0.2.")] = "0.7,0.15,0.15",
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="Write fold1.json ... with train and val instead.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Keep images together: 'folder', 'duplicates', or a regular expression on the path.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed gives another division.")] = 0,
    format: o.Format = None,
    as_json: o.Json = False,
) -> None:
    r"""Divide data into splits or folds, stratified by class; related images stay on one side.

    Examples:
      saccade data split blood/ --out splits.json

      saccade data split scans/ --group 'patient(\d+)' --folds 5 --out folds/

      saccade train ssdlite blood/ --split-file splits.json
    """
    from pathlib import Path

    import numpy as np

    from saccade.data import splits as s
    from saccade.data.duplicates import find_duplicates
    from saccade.data.load import load_data
    from saccade.types.errors import UsageError

    loaded = load_data(data, format=format)
    groups = None
    if group is not None:
        groups = find_duplicates(loaded).clusters() if group == "duplicates" else s.group_numbers(loaded, group)
    if folds is not None:
        parts = s.make_folds(loaded, folds, seed, groups=groups)
        made = {
            f"fold{i}": {"train": np.sort(np.concatenate([p for k, p in enumerate(parts) if k != i - 1])), "val": parts[i - 1]}
            for i in range(1, folds + 1)
        }
        files = {str(Path(out) / f"{name}.json"): one for name, one in made.items()}
    else:
        values = [v.strip() for v in fractions.split(",")]
        try:
            shares = {k.strip(): float(v) for k, v in (p.split("=") for p in values)} if "=" in fractions else [float(v) for v in values]
        except ValueError:
            raise UsageError(f"--fractions {fractions!r} is not 0.7,0.15,0.15 or train=0.8,test=0.2") from None
        files = {out: s.make_splits(loaded, shares, seed, groups=groups)}
    for path, one in files.items():
        s.write_split_file(path, one, loaded.index)
    counts = {path: {name: len(members) for name, members in one.items()} for path, one in files.items()}
    if as_json:
        o.emit(counts)
        return
    for path, one in counts.items():
        typer.echo(f"{path}: " + ", ".join(f"{name} {count}" for name, count in one.items()))


@app.command("view")
def view(
    data: o.Data,
    out: Annotated[str, typer.Option("--out", help="Picture to write (.png, .jpg).")] = "sheet.png",
    count: Annotated[int, typer.Option("--count", min=1, max=400, help="Images to show.")] = 16,
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", help="Only images that hold this class; may be repeated.")] = None,
    cell: Annotated[int, typer.Option("--cell", min=64, max=2000, help="Pixels of an image's place.")] = 320,
    seed: Annotated[int | None, typer.Option("--seed", help="Draw the images at random; else they are spread evenly.")] = None,
    format: o.Format = None,
    split_file: o.SplitFile = None,
) -> None:
    """Draw images with their truth on one sheet.

    Example:
      saccade data view blood/ --class Platelets --out platelets.png
    """
    from pathlib import Path

    from saccade.data import view as v
    from saccade.data.load import load_data
    from saccade.types.errors import UsageError
    from saccade.types.files import atomic

    if Path(out).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UsageError(f"{out}: its suffix names no picture format; use .png or .jpg")
    loaded = load_data(data, split, format=format, split_file=split_file)
    picture, broken = v.sheet(loaded, v.choose(loaded, count, classes=classes or (), seed=seed), cell=cell)
    with atomic(Path(out)) as temporary:
        picture.save(temporary)
    for error in broken:
        typer.echo(f"skipped: {error}", err=True)
    typer.echo(f"{out}: {picture.width}x{picture.height}")


@app.command("priors")
def priors(
    data: o.Data,
    k: Annotated[str, typer.Option("--k", help="Number of priors, or a range.")] = "1-9",
    size: Annotated[int, typer.Option("--size", min=0, help="Side of the network's input in pixels; 0 keeps original pixels.")] = 416,
    stretch: Annotated[bool, typer.Option("--stretch", help="Images are stretched to the input, not letterboxed.")] = False,
    split: Annotated[str | None, typer.Option("--split", help="Split to fit to.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of k-means.")] = 0,
    format: o.Format = None,
    as_json: o.Json = False,
) -> None:
    """Fit priors (anchor sizes) to the boxes: k-means under 1 - IoU, with the mean IoU by number.

    Example:
      saccade data priors blood/ --split train --k 5 --size 416
    """
    import re

    from saccade.data.load import load_data
    from saccade.data.priors import fit_priors
    from saccade.types.errors import UsageError

    match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", k.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]):
        raise UsageError(f"--k is a number or a range such as 1-9, not {k!r}")
    rows = fit_priors(
        load_data(data, split, format=format),
        range(int(match[1]), int(match[2] or match[1]) + 1),
        size=size or None,
        letterbox=not stretch,
        seed=seed,
    )
    if as_json:
        o.emit(rows)
        return
    typer.echo(f"  k  mean IoU  priors (width x height in {f'pixels of a {size} input' if size else 'original pixels'})")
    for row in rows:
        typer.echo(f"{row['k']:>3}  {row['mean_iou']:.4f}    " + "  ".join(f"{w:g}x{h:g}" for w, h in row["priors"]))


@app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(metavar="DATA", help="What to read.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write; must not exist.")],
    to: Annotated[str, typer.Option("--to", help="Format to write.")],
    format: o.Format = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Read it back and compare; exit 1 when more differs than was said.")] = False,
) -> None:
    """Write data in another format, and say what it cannot hold.

    Example:
      saccade data convert blood/ blood_coco/ --to coco --check
    """
    from pathlib import Path

    from saccade.data.formats import write_data
    from saccade.data.load import load_data
    from saccade.types.errors import UsageError

    loaded = load_data(source, split, format=format)
    if Path(source).expanduser().is_dir() and Path(target).resolve().is_relative_to(loaded.index.root.resolve()):
        raise UsageError(f"{target} lies inside the data that are read, {source}: name a folder outside")
    losses = write_data(loaded, Path(target), to)
    for loss in losses:
        typer.echo(f"note: {loss}")
    typer.echo(f"{len(loaded)} images -> {target}")
    if check:
        from saccade.data.compare import differences
        from saccade.data.formats import format_module
        from saccade.types.errors import one_line

        lines = differences(loaded, load_data(target, format=to), format_module(to).HOLDS, losses)
        for line in lines:
            typer.echo(f"differs: {one_line(line)}", err=True)
        if lines:
            raise typer.Exit(1)
        typer.echo("read back and compared: nothing else differs")


app.command("dedupe")(data_dedupe.dedupe)
app.command("labels")(data_labels.labels)
