"""saccade image: the verb."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from saccade.cli import options as o
from saccade.types.errors import DataError, SaccadeError, one_line

_RAW = "saccade.image.words"


class ImageCommand(TyperCommand):
    """Remembers the words in order: a --set belongs to the operation or --then before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_RAW] = list(args)
        return super().parse_args(ctx, args)


def image(
    context: typer.Context,
    operation: Annotated[str, typer.Argument(metavar="OP", help="An operation; or list, sheet OP, histogram.")],
    paths: Annotated[list[str] | None, typer.Argument(metavar="IN... OUT", help="Files, folders, globs; then a file or folder.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the operation before it; can be repeated.")
    ] = None,
    then: Annotated[list[str] | None, typer.Option("--then", metavar="OP", help="An operation on the result; can be repeated.")] = None,
    over: Annotated[
        str | None, typer.Option("--over", metavar="NAME=FIRST:LAST:COUNT", help="sheet: the parameter's values, or NAME=A,B or NAME=A;B.")
    ] = None,
    alpha: Annotated[
        bool, typer.Option("--alpha/--no-alpha", help="Keep the alpha channel where the operation allows, or drop it.")
    ] = True,
    form: Annotated[str | None, typer.Option("--form", help="Suffix of results in a folder; else that of the input.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes for a folder; never changes a result.")] = None,
    strict: o.Strict = False,
    as_json: o.Json = False,
) -> None:
    """Image operations on files and folders: filters, edges, noise, colour, geometry ... EXIF turns are honoured, 16 bits and alpha kept.

    An operation that gives no image (a histogram, a quality) prints its answer and takes no OUT. Of several images, those that cannot be
    read or do not fit the operation are skipped and named (--strict: an error). Random operations give image k of a folder seed + k.

    Examples:
      saccade image list

      saccade image list median

      saccade image median photos/0.jpg smooth.png --set size=5

      saccade image rgb_to_gray photos/ edges/ --form png --then gaussian --set sigma=1.5 --then sobel

      saccade image sheet gaussian --over sigma=0.5:5:10 photos/0.jpg sheet.png

      saccade image histogram photos/0.jpg histogram.png
    """
    words = list(paths or [])
    if operation == "list":
        _list(words, as_json)
        return
    chains = _in_order(context.meta[_RAW])
    if operation == "sheet":
        _sheet(words, chains, over, alpha, as_json)
        return
    from saccade.types.errors import UsageError

    if over is not None:
        raise UsageError("--over belongs to saccade image sheet OP")
    if operation == "histogram":
        _histogram(words, chains, alpha, as_json)
        return
    _apply(operation, words, chains, alpha, form, workers, strict, as_json)


def _in_order(words: list[str]) -> list[tuple[str, list[str]]]:
    """(operation, settings) of each --then in order; the first operation is called ""."""
    chains: list[tuple[str, list[str]]] = [("", [])]
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        option, equals, value = word.partition("=")
        if option in ("--set", "--then"):
            value = value if equals else next(rest, "")
            if option == "--then":
                chains.append((value, []))
            else:
                chains[-1][1].append(value)
    return chains


def _apply(
    operation: str,
    words: list[str],
    chains: list[tuple[str, list[str]]],
    alpha: bool,
    form: str | None,
    workers: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    from glob import has_magic
    from pathlib import Path

    from saccade.types.errors import UsageError
    from saccade.workflows import image as workflow

    steps = [workflow.make_step(name or operation, settings) for name, settings in chains]
    workflow.check_chain(steps)
    problems: list[SaccadeError] = []
    if steps[-1].operation.gives == "value":
        if not words:
            raise UsageError(f"saccade image {operation} IN...: name an image")
        if len(words) > 1 and Path(words[-1]).suffix.lower() in workflow.WRITTEN and not (Path(words[-1]).exists() or has_magic(words[-1])):
            raise UsageError(f"{steps[-1].name} prints its answer and takes no OUT; there is no image {words[-1]}")
        several = steps[0].operation.inputs == 1 and len(workflow.read_inputs(words)) > 1
        answers = list(workflow.values(steps, words, alpha=alpha, failed=problems.append if several and not strict else None))
        _name(problems, [])
        if as_json:
            o.emit([{"image": path, steps[-1].name: value} for path, value in answers])
        else:
            for path, value in answers:
                typer.echo(f"{path}: {value}")
        if problems and not answers:
            raise typer.Exit(1)
        return
    if len(words) < 2 or not words[-1]:
        raise UsageError(f"saccade image {operation} IN... OUT: name an image, and a file or folder for the result")
    tasks = workflow.plan(steps, words[:-1], words[-1], form)

    def progress(done: int, count: int) -> None:
        print(f"\r{done}/{count} images", end="" if done < count else "\n", file=sys.stderr, flush=True)

    shown = progress if sys.stderr.isatty() and not as_json and len(tasks) > 1 else None
    several = len(tasks) > 1 and not strict
    written = workflow.apply(steps, tasks, alpha=alpha, workers=workers, progress=shown, failed=problems.append if several else None)
    sources = {one_line(path) for task in tasks for path in task.paths}
    failed = [p for p in problems if isinstance(p, DataError) and p.path not in sources]  # what could not be written
    skipped = [p for p in problems if p not in failed]
    _name(skipped, failed)
    if as_json:
        o.emit({"written": written, "skipped": [str(p) for p in skipped], "failed": [str(p) for p in failed]})
    else:
        place = written[0] if len(written) == 1 else words[-1] if len(tasks) > 1 else f"{written[0]} ... {Path(written[-1]).name}"
        counts = "".join(f", {len(some)} {word}" for word, some in (("skipped", skipped), ("failed", failed)) if some)
        typer.echo(f"{len(written)} image{'s' * (len(written) != 1)} -> {place}{counts}")
    if failed or not written:
        raise typer.Exit(1)


def _name(skipped: list[SaccadeError], failed: list[SaccadeError]) -> None:
    for word, problems in (("skipped", skipped), ("failed", failed)):
        for problem in problems:
            print(f"saccade: {word}: {problem}", file=sys.stderr)


def _list(words: list[str], as_json: bool) -> None:
    from saccade.types.errors import UsageError
    from saccade.workflows import image as workflow

    if len(words) > 1:
        raise UsageError("saccade image list takes one operation or none")
    rows = [row for row in workflow.listing() if not words or row["name"] == workflow.operation_named(words[0]).name]
    if as_json:
        o.emit(rows)
        return
    if not words:
        for row in rows:
            typer.echo(f"{row['row']:<4} {row['name']:<24} {row['summary']}")
        return
    row = rows[0]
    typer.echo(f"{row['name']} ({row['row']}): {row['summary']}\n  {row['formula']}")
    for parameter in row["parameters"]:
        default = f" = {parameter['default']}" if "default" in parameter else " (required)"
        typer.echo(f"  --set {parameter['name']}: {parameter['type']}{default}")
    typer.echo(f"  images: {row['images']}; gives: {row['gives']}; alpha: {row['alpha']}")


def _sheet(words: list[str], chains: list[tuple[str, list[str]]], over: str | None, alpha: bool, as_json: bool) -> None:
    from pathlib import Path

    from saccade.types.errors import UsageError
    from saccade.types.files import atomic
    from saccade.workflows import image as workflow

    if len(words) != 3 or over is None:
        raise UsageError("saccade image sheet OP --over NAME=FIRST:LAST:COUNT IN OUT")
    if len(chains) > 1:
        raise UsageError("a sheet shows one operation; --then does not go with it")
    name, source, out = words
    key, numbers = workflow.parse_over(name, over)
    step = workflow.make_step(name, chains[0][1], later=[key])
    workflow.check_target(out, source)
    picture = workflow.contact_sheet(step, key, numbers, workflow.load_file(source, alpha))
    with atomic(Path(out)) as temporary:
        picture.save(temporary)
    if as_json:
        o.emit({"written": [out], "parameter": key, "values": numbers})
    else:
        typer.echo(f"{len(numbers)} values of {key} -> {out}")


def _histogram(words: list[str], chains: list[tuple[str, list[str]]], alpha: bool, as_json: bool) -> None:
    from pathlib import Path

    from saccade.types.errors import UsageError
    from saccade.types.files import atomic
    from saccade.workflows import image as workflow

    if len(chains) > 1:
        raise UsageError("a histogram is no image, so nothing can follow it; put the other operation first, and write its result")
    step = workflow.make_step("histogram", chains[0][1])
    if as_json and len(words) == 1:
        (answer,) = workflow.values([step], words, alpha=alpha)
        o.emit({"image": answer[0], "histogram": answer[1]})
        return
    if len(words) != 2 or Path(words[1]).suffix.lower() not in workflow.WRITTEN:
        raise UsageError("saccade image histogram IN OUT.png (or --json with IN alone, for the counts)")
    workflow.check_target(words[1], words[0])
    pixels = workflow.load_file(words[0], alpha=False)
    picture = workflow.histogram_picture(pixels, **step.arguments)
    with atomic(Path(words[1])) as temporary:
        picture.save(temporary)
    if as_json:
        o.emit({"image": words[0], "written": [words[1]]})
    else:
        typer.echo(f"histogram of {words[0]} -> {words[1]}")
