"""saccade models: the verb."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli import options as o

app = typer.Typer(invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="A name of `saccade models`, or timm/NAME.")]
Size = Annotated[str | None, typer.Option("--size", metavar="S|HxW", help="Of the input in pixels; else the model's own.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="model.NAME=VALUE.")]
Classes = Annotated[int | None, typer.Option("--classes", min=1, help="Else the model's default, or 10.")]


@app.callback()
def root(ctx: typer.Context) -> None:
    """What models there are, and what is known of each.

    Examples:
      saccade models

      saccade models list --task detect

      saccade models info ssdlite

      saccade models shape alexnet --size 224

      saccade models draw googlenet googlenet.svg

      saccade models diff alexnet zfnet
    """
    if ctx.invoked_subcommand is None:
        list_(task=None, as_json=False)


@app.command("list")
def list_(
    task: Annotated[str | None, typer.Option("--task", help="classify, detect, segment, landmarks, generate.")] = None,
    as_json: o.Json = False,
) -> None:
    """All models, a line each."""
    from saccade.workflows.models import list_models

    found = list_models(task)
    if as_json:
        o.emit(found)
        return
    for m in found:
        typer.echo(f"{m['name']:<16} {m['task']:<10} {m['year']}  {m['summary']}")
    if task in (None, "classify"):
        typer.echo("timm/NAME        classify        any classifier of timm")


@app.command("info")
def info(name: Annotated[str, typer.Argument(help="Registered name.")], as_json: o.Json = False) -> None:
    """Paper, file, options, recipe, parameters, multiply-adds, accuracy as published."""
    from saccade.workflows.models import model_info

    facts = model_info(name)
    if as_json:
        o.emit(facts)
        return
    macs = "not counted" if facts["macs"] is None else f"{facts['macs'] / 1e6:,.1f} M multiply-adds"
    arxiv = f", arXiv {facts['arxiv']}" if facts["arxiv"] else ""
    typer.echo(f"{facts['name']} ({facts['task']}, {facts['kind']})\n{facts['paper']}, {facts['year']}{arxiv}\nfile {facts['file']}")
    typer.echo(f"input {facts['input']}, {facts['num_classes']} classes: {facts['parameters']:,} parameters, {macs}")
    if facts["accuracy"]:
        typer.echo(f"accuracy as published: {facts['accuracy']}")
    if facts["weights"]:
        typer.echo(f"published weights: {facts['weights']}")
    typer.echo("options (--set model.NAME=VALUE):")
    for key, default in facts["options"].items():
        typer.echo(f"  {key:<20} {default}")
    from saccade.types.recipe import Recipe

    plain = Recipe()
    typer.echo("recipe (--set recipe.NAME=VALUE), where it differs from the common one:")
    for key, value in facts["recipe"].items():
        if value != getattr(plain, key):
            typer.echo(f"  {key:<20} {value}")


@app.command("shape")
def shape(name: Name, size: Size = None, sets: Set = None, classes: Classes = None, as_json: o.Json = False) -> None:
    """Layer by layer: output, parameters, multiply-adds, receptive field, jump, start.

    The field is how many pixels a unit sees (padding counted), the jump how far neighbouring units are apart, the start the centre
    of what the first unit sees. 'all': a unit sees the whole image. '?': not followed.
    A '!' marks sizes that do not come out whole, said below the table.

    Examples:
      saccade models shape alexnet --size 224

      saccade models shape unet --size 256x320 --set model.width=32

      saccade models shape timm/resnet50 --json
    """
    from saccade.workflows.models import model_shape

    found = model_shape(name, parse_size(size), num_classes=classes, model_options=model_sets(sets))
    if as_json:
        o.emit(found)
        return
    for part in found["parts"]:
        if part["part"]:
            typer.echo(f"{part['part']}:")
        for line in layer_lines(part["layers"], shutil.get_terminal_size((120, 24)).columns):
            typer.echo(line)
        typer.echo(
            f"input {by(part['input'])}: {part['parameters']:,} parameters, {part['macs'] / 1e6:,.1f} M multiply-adds, "
            f"{len(part['layers'])} layers"
        )
        if part["unused"]:
            parents = sorted({path.split(".")[0] for path in part["unused"]})
            typer.echo(f"not used in this pass (training only): {len(part['unused'])} parameter tensors of {', '.join(parents)}")


@app.command("draw")
def draw(
    name: Name,
    out: Annotated[Path, typer.Argument(help="File to write, .svg.")],
    size: Size = None,
    sets: Set = None,
    classes: Classes = None,
) -> None:
    """A diagram: blocks, branches, shapes on the edges.

    Examples:
      saccade models draw resnet18 resnet18.svg

      saccade models draw unet unet.svg --size 256
    """
    from saccade.workflows.models import draw_model

    typer.echo(str(draw_model(name, out, parse_size(size), num_classes=classes, model_options=model_sets(sets))))


@app.command("source")
def source(name: Name, path: Annotated[bool, typer.Option("--path", help="Only where the file is.")] = False) -> None:
    """The file that the model is written in.

    Examples:
      saccade models source lenet5

      $EDITOR "$(saccade models source unet --path)"
    """
    from saccade.workflows.models import model_source

    file = model_source(name)
    typer.echo(str(file) if path else file.read_text(encoding="utf-8"), nl=path)


@app.command("diff")
def diff(a: Name, b: Name, as_json: o.Json = False) -> None:
    """What model B changed against model A: layers, totals, losses, recipe.

    Examples:
      saccade models diff alexnet zfnet

      saccade models diff resnet18 resnet34 --json
    """
    from saccade.workflows.models import diff_models

    found = diff_models(a, b)
    if as_json:
        o.emit(found)
        return
    for line in diff_lines(found):
        typer.echo(line)


# -- words ----------------------------------------------------------------------------------------


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``224`` or ``HxW``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text.strip())
    if match is None or not int(match[1]) or not int(match[2] or match[1]):
        from saccade.types.errors import UsageError

        raise UsageError(f"--size {text!r}: a side in pixels (224) or HxW (240x320)")
    return int(match[1]), int(match[2] or match[1])


def model_sets(sets: list[str] | None) -> dict[str, Any]:
    """The ``model.*`` of ``--set``; a recipe has no shape."""
    from saccade.engine.config import parse_sets
    from saccade.types.errors import UsageError

    given = parse_sets(sets or [])
    for key in given:
        if not key.startswith("model."):
            raise UsageError(f"--set {key}: only model.NAME=VALUE changes the network")
    return {key.removeprefix("model."): value for key, value in given.items()}


def by(numbers: Sequence[Any]) -> str:
    """1x3x224x224."""
    return "x".join(map(str, numbers))


def brief(count: int) -> str:
    """Multiply-adds in four signs or so: 70.3M."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g}{unit}"
    return str(count) if count else ""


def square(values: Sequence[Any], missing: str = "?") -> str:
    """One number where all sides have the same."""
    shown = [missing if v is None else f"{v:g}" for v in values]
    return shown[0] if len(set(shown)) == 1 else "x".join(shown)


def kind(row: Mapping[str, Any]) -> str:
    """Type with kernel, stride, dilation and groups: ``Conv2d 3x3/2 d2 g32``."""
    text = row["type"]
    if row["kernel"]:
        text += f" {by(row['kernel'])}"
        strides, dilations = set(row["stride"]), set(row["dilation"])
        text += f"/{square(row['stride'])}" if strides != {1} else ""
        text += f" d{square(row['dilation'])}" if dilations != {1} else ""
        text += f" g{row['groups']}" if row["groups"] > 1 else ""
    return text


def layer_lines(layers: Sequence[Mapping[str, Any]], columns: int) -> list[str]:
    """The table, in a terminal of so many columns: names and types are cut where it is narrow."""
    head = ("layer", "type", "output", "parameters", "MACs", "field", "jump", "start")
    rows = []
    for row in layers:
        field = "-" if not row["field"] else "all" if row["whole"] else square(row["field"])
        rows.append(
            (
                row["name"] + (" !" if row["warning"] else ""),
                kind(row),
                by(row["output"][1:]) or "1",
                f"{row['parameters']:,}" if row["parameters"] else "",
                brief(row["macs"]),
                field,
                square(row["jump"], "-") if row["jump"] else "-",
                square(row["start"]) if row["start"] and any(j is not None for j in row["jump"]) else "-",
            )
        )
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    for column, least in ((1, 12), (0, 16)):  # types first, then names
        widths[column] = max(min(widths[column], least), widths[column] - max(0, sum(widths) + 2 * (len(head) - 1) - columns))

    def line(cells: Sequence[str]) -> str:
        name, type_, *rest = cells
        left = [shorten(name, widths[0], keep_end=True).ljust(widths[0]), shorten(type_, widths[1]).ljust(widths[1])]
        return "  ".join([*left, *(cell.rjust(width) for cell, width in zip(rest, widths[2:], strict=True))]).rstrip()

    out = [line(head), *map(line, rows)]
    warned: dict[str, list[str]] = {}
    for row in layers:
        if row["warning"]:
            warned.setdefault(row["warning"], []).append(row["name"])
    for warning, names in warned.items():
        out.append(f"! {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {warning}")
    return out


def shorten(text: str, width: int, keep_end: bool = False) -> str:
    """Cut with a mark; of a path the end says more."""
    if len(text) <= width:
        return text
    return "…" + text[len(text) - width + 1 :] if keep_end else text[: width - 1] + "…"


def diff_lines(found: Mapping[str, Any]) -> list[str]:
    """The comparison as text."""
    a, b = found["a"], found["b"]
    width = max(len(key) for key in found["totals"])
    cell = max(12, len(a), len(b))
    out = [f"{'':<{width}}  {a:>{cell}}  {b:>{cell}}"]
    for key, values in found["totals"].items():
        shown = [
            f"{v:,}" if isinstance(v, int) and key != "year" else "-" if v is None else f"{v:g}" if isinstance(v, float) else str(v)
            for v in values
        ]
        out.append(f"{key:<{width}}  {shown[0]:>{cell}}  {shown[1]:>{cell}}")
    out.append("")
    run: list[Mapping[str, Any]] = []

    def flush() -> None:
        """A run of layers added (or removed) in the same block is one line."""
        if not run:
            return
        sign, side = ("+", "after") if run[0]["kind"] == "added" else ("-", "before")
        rows = [change[side] for change in run]
        if len(rows) < 4:
            out.extend(f"{sign} {row['name']}: {described(row)}" for row in rows)
        else:
            counts: dict[str, int] = {}
            for row in rows:
                counts[row["type"]] = counts.get(row["type"], 0) + 1
            kinds = ", ".join(f"{n} {t}" if n > 1 else t for t, n in list(counts.items())[:6])
            parameters = sum(row["parameters"] for row in rows)
            out.append(f"{sign} {rows[0]['name']} to {rows[-1]['name']}: {len(rows)} layers ({kinds}), {parameters:,} parameters")
        run.clear()

    for change in found["layers"]:
        side = "after" if change["kind"] == "added" else "before"
        block = change[side]["name"].rpartition(".")[0]
        if run and (change["kind"] != run[0]["kind"] or block != run[0][side]["name"].rpartition(".")[0]):
            flush()
        if change["kind"] == "changed":
            x, y = change["before"], change["after"]
            names = x["name"] if x["name"] == y["name"] else f"{x['name']} -> {y['name']}"
            out.append(f"~ {names} ({y['type']}): " + ", ".join(f"{k} {value(v[0])} -> {value(v[1])}" for k, v in change["what"].items()))
        else:
            run.append(change)
    flush()
    if not found["layers"]:
        out.append("the same layers")
    if found["losses"][0] != found["losses"][1]:
        out += ["", f"losses: {', '.join(found['losses'][0])} -> {', '.join(found['losses'][1])}"]
    if found["recipe"]:
        out += ["", "recipe:", *(f"  {key:<20} {x} -> {y}" for key, (x, y) in found["recipe"].items())]
    return out


def described(row: Mapping[str, Any]) -> str:
    """A layer in a few words."""
    parameters = f", {row['parameters']:,} parameters" if row["parameters"] else ""
    return f"{kind(row)} -> {by(row['output'][1:])}{parameters}"


def value(v: Any) -> str:
    """A property of a layer: 3x3, 64, none."""
    return (by(v) or "none") if isinstance(v, (list, tuple)) else str(v)
