"""What models there are, and what is known of each."""

from __future__ import annotations

from typing import Any

from saccade.models.index import entries


def list_models(task: str | None = None) -> list[dict[str, Any]]:
    """Registered systems as plain dicts, by task and name. Loads no torch.

    Args:
        task: only these: "classify", "detect", "segment", "generate".
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

    from saccade.models.registry import builder, create_model, default_recipe, find, options

    entry = find(name)
    import inspect

    needs = inspect.signature(builder(entry)).parameters["num_classes"].default is inspect.Parameter.empty
    model = create_model(name, (num_classes or 10) if needs else num_classes)
    return entry.to_dict() | {
        "num_classes": model.num_classes,
        "input": f"{model.preprocess.channels}x{model.preprocess.size[0]}x{model.preprocess.size[1]} ({model.preprocess.mode})",
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": multiply_adds(model),
        "options": {key: default for key, (_, default) in options(entry).items()},
        "recipe": dataclasses.asdict(default_recipe(entry)),
        "losses": list(model.loss_names),
    }


def multiply_adds(model: Any) -> int | None:
    """Multiply-adds of ``raw`` on one image of the preprocessing's size; None where raw is not a network of images."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if model.task == "generate" or not any(True for _ in model.parameters()):
        return None
    height, width = model.preprocess.size
    image = torch.zeros(1, model.preprocess.channels, height, width)
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.raw(image)
    return counter.get_total_flops() // 2
