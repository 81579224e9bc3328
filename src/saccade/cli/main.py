"""The command ``saccade``. Parsing only: every verb calls one function of the library and says what it did.

Exit status: 0 done, 1 failed (data, training), 2 wrong use.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import Annotated

# Before torch loads anywhere below.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from saccade.cli import check, compare, data, demo, evaluate, export, features, image, models, predict, train
from saccade.types.errors import SaccadeError, UsageError, one_line
from saccade.types.machine import keep_memory

INTERRUPTED = 130
"""What typer gives back after a KeyboardInterrupt."""

app = typer.Typer(
    name="saccade",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("check")(check.check)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("demo")(demo.demo)
app.command("image", cls=image.ImageCommand)(image.image)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")


def _version(show: bool) -> None:
    if show:
        from saccade import __version__

        typer.echo(f"saccade {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never download; say what is missing.")] = False,
) -> None:
    """Computer vision on your own images: train, measure, predict, report.

    [bold]A first run[/bold]: saccade demo

    [bold]Your own images[/bold]: saccade train ssdlite blood/, then saccade eval runs/ssdlite-001 blood/,
    then saccade predict runs/ssdlite-001 photos/
    """
    if offline:
        os.environ["SACCADE_OFFLINE"] = "1"


def main() -> None:
    """Entry point: one line an error, the exit status as documented."""
    json_wanted = "--json" in sys.argv
    keep_memory()
    signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    try:
        code = app(prog_name="saccade", standalone_mode=False) or 0
        if code == INTERRUPTED:
            code = fail("stopped", 1, json_wanted)
    except SaccadeError as error:
        code = fail(str(error), 2 if isinstance(error, UsageError) else 1, json_wanted)
    except (typer.Exit, SystemExit) as stop:
        code = int(getattr(stop, "exit_code", getattr(stop, "code", 0)) or 0)
    except (KeyboardInterrupt, typer.Abort):
        code = fail("stopped", 1, json_wanted)
    except BrokenPipeError:
        code = 0
    except MemoryError:
        code = fail("out of memory", 1, json_wanted)
    except OSError as error:
        code = fail(f"{error.filename or 'system'}: {error.strerror or error}", 1, json_wanted)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help itself
            print(error, end="", file=sys.stderr)
            code = 2
        elif hasattr(error, "format_message"):  # wrong arguments, found by typer
            context = getattr(error, "ctx", None)
            see = f"; see {context.command_path} --help" if context else ""
            code = fail(one_line(error.format_message()).rstrip(".") + see, 2, json_wanted)
        elif os.environ.get("SACCADE_DEBUG"):
            raise
        else:
            code = fail(f"internal error, please report it: {type(error).__name__}: {error} (SACCADE_DEBUG=1 shows where)", 1, json_wanted)
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # a reader that had enough is no failure; a full disk is
            code = fail(f"stdout: {error.strerror}", 1, False)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
    sys.exit(code)


def _stop(number: int, frame: object) -> None:
    """SIGTERM is Ctrl-C: what is half-written goes. Training takes both signals over and writes a checkpoint first."""
    raise KeyboardInterrupt


def fail(message: str, code: int, as_json: bool) -> int:
    """The one line of an error."""
    print(f"saccade: error: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, "exit": code}))
    return code
