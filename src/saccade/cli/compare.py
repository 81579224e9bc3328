"""saccade compare: the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from saccade.cli import options as o


def compare(
    data: o.Data,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Names of `saccade models`, all of one task; LABEL=NAME for another form of one."),
    ],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs a model; from three on with intervals.")] = 1,
    budget: Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Training time a run: 90s, 10m, 2h.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Of every model, instead of its recipe's.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="What ranks; the task's main metric when not given.")] = None,
    out: Annotated[str, typer.Option("--out", help="Folder of everything; given again, what is done is not done again.")] = "compare",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at once, spread over the GPUs.")] = 1,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="[MODEL:]KEY=VALUE", help="model.NAME=VALUE or recipe.NAME=VALUE.")
    ] = None,
    data_sizes: Annotated[str, typer.Option("--data-sizes", metavar="0.25,0.5,1", help="Shares of the training images.")] = "1",
    format: o.Format = None,
    split_file: o.SplitFile = None,
    workers: o.Workers = None,
    allow_leaks: Annotated[bool, typer.Option("--allow-leaks", help="Train although images stand in two splits.")] = False,
    as_json: o.Json = False,
) -> None:
    """Compare models on your images: same splits, same evaluator, each its own recipe. Interrupted, the same command goes on.

    Exit status 1 when a model failed; the others are in the table.

    Examples:
      saccade compare blood/ ssdlite faster_rcnn hog_svm --seeds 3 --out compare/blood

      saccade compare set:mnist lenet5 timm/resnet18 --budget 2m

      saccade compare cells/ unet unet18=unet --set unet18:model.backbone=resnet18 --data-sizes 0.25,0.5,1
    """
    from saccade.types.errors import UsageError
    from saccade.workflows import compare as workflow

    try:
        sizes = [float(text) for text in data_sizes.split(",")]
    except ValueError:
        raise UsageError(f"--data-sizes {data_sizes!r}: write shares such as 0.25,0.5,1") from None
    made = workflow.compare(
        models, data, seeds=seeds, epochs=epochs, budget=budget, metric=metric, out=out,
        options=workflow.parse_model_sets(sets or [], models), format=format, split_file=split_file, jobs=jobs, workers=workers,
        data_sizes=sizes, allow_leaks=allow_leaks,
    )  # fmt: skip
    if as_json:
        o.emit({"folder": str(made.folder), "metric": made.metric, "best": made.best, "rows": made.rows, "learning": made.learning})
    else:
        from saccade.report.compare_html import markdown_table

        typer.echo(markdown_table(made.rows, made.metric), nl=False)
    if made.failures:
        raise typer.Exit(1)
