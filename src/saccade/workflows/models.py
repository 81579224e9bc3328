"""What models there are, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.models.index import entries

if TYPE_CHECKING:
    from saccade.explain.shape import Table


def list_models(task: str | None = None) -> list[dict[str, Any]]:
    """Registered systems as plain dicts, by task and name. Loads no torch.

    Args:
        task: only these: "classify", "detect", "segment", "landmarks", "generate".
    """
    found = [entry.to_dict() for entry in entries().values() if task is None or entry.task == task]
    if not found and task is not None:
        from saccade.types.errors import UsageError, suggest

        raise UsageError(f"no models for task {task!r}{suggest(task, {e.task for e in entries().values()})}")
    return sorted(found, key=lambda m: (m["task"], m["name"]))


def model_info(name: str, num_classes: int | None = None) -> dict[str, Any]:
    """Paper, year, file, options, default recipe, input, parameters, and multiply-adds of one image.

    Args:
        name: registered name.
        num_classes: for the counts; None takes the builder's default, else 10.
    """
    import dataclasses

    from saccade.models.registry import create_model, default_recipe, find, options

    entry = find(name)
    model = create_model(name, classes_for(name, num_classes))
    return entry.to_dict() | {
        "num_classes": model.num_classes,
        "input": f"{model.preprocess.channels}x{model.preprocess.size[0]}x{model.preprocess.size[1]} ({model.preprocess.mode})",
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": multiply_adds(model),
        "options": {key: default for key, (_, default) in options(entry).items()},
        "recipe": dataclasses.asdict(default_recipe(entry)),
        "losses": list(model.loss_names),
    }


def classes_for(name: str, num_classes: int | None) -> int | None:
    """The given number; None where the builder has a default, else 10."""
    import inspect

    from saccade.models.registry import builder, find

    needed = inspect.signature(builder(find(name))).parameters["num_classes"].default is inspect.Parameter.empty
    return (num_classes or 10) if needed else num_classes


def multiply_adds(model: Any) -> int | None:
    """Multiply-adds of ``raw`` on one image of the preprocessing's size; None where raw is not a network of images."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from saccade.explain.shape import trace

    if model.task == "generate" or not any(True for _ in model.parameters()):
        return None
    height, width = model.preprocess.size
    if not hasattr(model, "parts") and not hasattr(model, "stages"):  # one graph: no need to compute it
        return trace(model, (1, model.preprocess.channels, height, width)).macs
    image = torch.zeros(1, model.preprocess.channels, height, width)
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.raw(image)
    return counter.get_total_flops() // 2


def without_memory(name: str, num_classes: int | None = None, model_options: Mapping[str, Any] | None = None) -> Any:
    """A model built without memory or initial numbers, where its file allows; the large ones take seconds otherwise."""
    import torch

    from saccade.models.registry import create_model

    given = dict(model_options or {})
    try:
        with torch.device("meta"):
            return create_model(name, classes_for(name, num_classes), **given)
    except NotImplementedError:  # a builder that reads numbers
        return create_model(name, classes_for(name, num_classes), **given)


def model_tables(
    name: str, size: int | Sequence[int] | None = None, *, num_classes: int | None = None, model_options: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Table]]:
    """The model, and the layers of each of its networks: ``""`` where it is one, else by part ("generator", "proposals", ...).

    Args:
        size: side of the input or (H, W); None is the model's own.

    Raises:
        UsageError: no such model or option, a size that the network does not take, or a model without a network.
    """
    from dataclasses import replace

    from saccade.explain.shape import trace
    from saccade.models.registry import find, options
    from saccade.types.errors import UsageError

    given = dict(model_options or {})
    sides = (size, size) if isinstance(size, int) else tuple(size) if size else None
    if sides and len(sides) != 2:
        raise UsageError(f"the size is a side or HxW, not {size!r}")
    if sides and sides[0] == sides[1] and "size" in options(find(name)) and "size" not in given:
        given["size"] = sides[0]
    model = without_memory(name, num_classes, given)
    height, width = sides or model.preprocess.size
    image = (1, model.preprocess.channels, height, width)
    parts = networks(model, image, resized=sides is not None)
    if not parts:
        raise UsageError(f"{name} is no network of layers: it has no shape to show")
    try:
        tables = {part: within_network(trace(network, shape)) for part, (network, shape) in parts.items()}
    except UsageError as error:
        if sides is None or "fixed size" not in find(name).needs:
            raise
        own = without_memory(name, num_classes, model_options).preprocess.size
        raise UsageError(f"{name} takes {own[0]}x{own[1]}, not {height}x{width} ({error})") from None
    if len(tables) > 1:  # a part may be cut out of the whole model, whose other parameters are not its own
        tables = {part: replace(t, parameters=sum(row.parameters for row in t.rows), unused=()) for part, t in tables.items()}
    return model, tables


def within_network(table: Table) -> Table:
    """Names without the attribute of ours that holds the network, where all layers are in it."""
    from dataclasses import replace

    outer = {row.name.partition(".")[0] for row in table.rows}
    if outer not in ({"network"}, {"model"}) or not all("." in row.name for row in table.rows):
        return table
    prefix = f"{outer.pop()}."
    rows = [
        replace(
            row,
            name=row.name.removeprefix(prefix),
            blocks=tuple((path.removeprefix(prefix), kind) for path, kind in row.blocks if path + "." != prefix),
        )
        for row in table.rows
    ]
    return replace(table, rows=rows, unused=tuple(name.removeprefix(prefix) for name in table.unused))


def networks(model: Any, image: tuple[int, ...], *, resized: bool) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Networks of a model by part, with the shape of each one's input."""
    if hasattr(model, "parts"):
        shapes = {part: (network, tuple(given[0].shape)) for part, (network, given) in model.parts().items()}
        first = next(iter(shapes))
        return shapes | ({first: (shapes[first][0], image)} if resized else {})
    if hasattr(model, "players"):
        noise = (1, model.latent)
        return {player: (model.player(player), noise if player == "generator" else image) for player in reversed(model.players)}
    if not any(True for _ in model.parameters()):
        return {}
    if hasattr(model, "stages"):
        return {"": (model.network, (1, image[1], model.size, model.size))}
    return {"": (model, image)}


def model_shape(
    name: str,
    size: int | Sequence[int] | None = None,
    *,
    num_classes: int | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Every layer of a model: output shape, parameters, multiply-adds, receptive field, jump, start, and what does not come out whole.

    Args:
        name: registered name, or ``timm/NAME``.
        size: side of the input in pixels or (H, W); None is the model's own.
        num_classes: None takes the builder's default, else 10.
        model_options: the builder's keyword arguments.

    Returns:
        ``{"name", "parts": [{"part", "input", "parameters", "macs", "unused", "layers": [...]}]}``, one part a network; a layer has the
        attributes of :class:`~saccade.explain.shape.LayerRow`.

    Raises:
        UsageError: no such model or option, a size that the network does not take, or a model without a network.
    """
    _, tables = model_tables(name, size, num_classes=num_classes, model_options=model_options)
    return {
        "name": name,
        "parts": [
            {
                "part": part,
                "input": list(table.input),
                "parameters": table.parameters,
                "macs": table.macs,
                "unused": list(table.unused),
                "layers": [row.to_dict() for row in table.rows],
            }
            for part, table in tables.items()
        ],
    }


def draw_model(
    name: str,
    out: str | Path,
    size: int | Sequence[int] | None = None,
    *,
    num_classes: int | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a diagram of a model (SVG). A model of several networks has them side by side.

    Raises:
        UsageError: as :func:`model_shape`, or a file that cannot be written.
    """
    from saccade.engine.files import write_text
    from saccade.explain.diagram import draw_tables
    from saccade.types.errors import UsageError

    target = Path(out)
    if target.suffix.lower() != ".svg":
        raise UsageError(f"{target}: the diagram is SVG; name the file with .svg")
    _, tables = model_tables(name, size, num_classes=num_classes, model_options=model_options)
    try:
        write_text(target, draw_tables(name, tables))
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror or error}") from None
    return target


def model_source(name: str) -> Path:
    """The file that a model is written in; of ``timm/NAME`` timm's own.

    Raises:
        UsageError: no such model.
    """
    import importlib
    import inspect

    from saccade.models.registry import find

    entry = find(name)
    if name.startswith("timm/"):
        import timm

        file = inspect.getsourcefile(timm.models.model_entrypoint(entry.fixed["architecture"].partition(".")[0]))
    else:
        file = inspect.getsourcefile(importlib.import_module(entry.module))
    assert file is not None
    return Path(file)


def diff_models(a: str, b: str) -> dict[str, Any]:
    """What model b changed against model a, each in its default form.

    Returns:
        ``{"a", "b", "totals": {name: [of a, of b]}, "layers": [{"kind", "before", "after", "what"}], "losses": [of a, of b],
        "recipe": {field: [of a, of b]}}``; of recipe only what differs, of layers only those added, removed or changed. Of models
        of several networks parts with the same name are compared, else the first.
    """
    import dataclasses

    from saccade.explain.difference import diff, totals
    from saccade.models.registry import default_recipe, find

    (first, tables_a), (second, tables_b) = model_tables(a), model_tables(b)
    recipes = [dataclasses.asdict(default_recipe(find(name))) for name in (a, b)]
    shared = [part for part in tables_a if part in tables_b]
    main_a, main_b = (next(iter(tables.values())) for tables in (tables_a, tables_b))
    pairs = [(part, tables_a[part], tables_b[part]) for part in shared] or [("", main_a, main_b)]
    numbers = [totals(main_a), totals(main_b)]
    return {
        "a": a,
        "b": b,
        "totals": {"year": [find(a).year, find(b).year]} | {key: [n[key] for n in numbers] for key in numbers[0]},
        "layers": [change.to_dict() | {"part": part} for part, x, y in pairs for change in diff(x.rows, y.rows)],
        "losses": [list(first.loss_names), list(second.loss_names)],
        "recipe": {key: [r[key] for r in recipes] for key in recipes[0] if recipes[0][key] != recipes[1][key]},
    }
