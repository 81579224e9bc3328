"""saccade models: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o

app = typer.Typer(invoke_without_command=True)


@app.callback()
def root(ctx: typer.Context) -> None:
    """What models there are, and what is known of each.

    Examples:
      saccade models

      saccade models list --task detect

      saccade models info ssdlite
    """
    if ctx.invoked_subcommand is None:
        list_(task=None, as_json=False)


@app.command("list")
def list_(
    task: Annotated[str | None, typer.Option("--task", help="classify, detect, segment, generate.")] = None, as_json: o.Json = False
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
    """Paper, file, options, recipe, parameters, multiply-adds."""
    from saccade.workflows.models import model_info

    facts = model_info(name)
    if as_json:
        o.emit(facts)
        return
    macs = "not counted" if facts["macs"] is None else f"{facts['macs'] / 1e6:,.1f} M multiply-adds"
    arxiv = f", arXiv {facts['arxiv']}" if facts["arxiv"] else ""
    typer.echo(f"{facts['name']} ({facts['task']}, {facts['kind']})\n{facts['paper']}, {facts['year']}{arxiv}\nfile {facts['file']}")
    typer.echo(f"input {facts['input']}, {facts['num_classes']} classes: {facts['parameters']:,} parameters, {macs}")
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
