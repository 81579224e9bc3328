"""saccade export: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder or bundle.")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Name of the files; a suffix is taken away.")],
    form: Annotated[str, typer.Option("--form", help="darknet: NAME.weights and NAME.names, with --cfg NAME.cfg too.")] = "darknet",
    cfg: Annotated[str | None, typer.Option("--cfg", help="The authors' description of the network, to be adapted to the model.")] = None,
    as_json: o.Json = False,
) -> None:
    """Write a model for another program: Darknet's files.

    Examples:
      saccade export runs/yolov3-001 cells --cfg yolov3.cfg
    """
    from saccade.models.darknet.export import write_darknet
    from saccade.types.errors import UsageError, suggest
    from saccade.workflows.predict import load

    if form != "darknet":
        raise UsageError(f"there is no --form {form!r}{suggest(form, ('darknet',))}")
    files = write_darknet(load(run), out, cfg)
    if as_json:
        o.emit({"files": [str(file) for file in files]})
    else:
        typer.echo(", ".join(str(file) for file in files))
