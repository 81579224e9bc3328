"""From a name to a model: resolve the builder, check the options, build, load weights."""

from __future__ import annotations

import importlib
import inspect
import numbers
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saccade.layers import backbones
from saccade.models.base import Model
from saccade.models.index import Entry, entries
from saccade.types.coerce import coerce
from saccade.types.errors import UsageError, suggest
from saccade.types.recipe import Recipe


def register_own_networks() -> None:
    """Register the networks of our classifiers with timm, as ``saccade_NAME``."""
    from saccade.models.classify.network import register_with_timm

    for entry in entries().values():
        if entry.task == "classify":
            networks = getattr(importlib.import_module(entry.module), "NETWORKS", {})
            for name, network in networks.items():
                register_with_timm(name, network)


backbones.OWN.append(register_own_networks)

NOT_OPTIONS = ("num_classes", "pretrained")
MOST_CLASSES = 1_000_000


def find(name: str) -> Entry:
    """The entry of a system, or UsageError with a suggestion. ``timm/NAME`` is any classifier of timm."""
    known = entries()
    if not isinstance(name, str):
        raise UsageError(f"the name of a model is a text, not {type(name).__name__}")
    if name.startswith("timm/"):
        return timm_entry(name)
    if name not in known:
        raise UsageError(f"no model {name!r}{suggest(name, known)}")
    return known[name]


def timm_entry(name: str) -> Entry:
    """An entry made for ``timm/NAME``, or UsageError with a suggestion."""
    from saccade.layers.backbones import check_backbone

    architecture = name.removeprefix("timm/")
    check_backbone(architecture, option="")
    return Entry(
        name=name,
        task="classify",
        paper="see timm's documentation of the network",
        year=2019,
        builder="saccade.models.classify.timm_model:timm_classifier",
        needs=("fixed size",),
        summary=f"{architecture} of timm",
        weights=f"timm {architecture}",
        fixed={"architecture": architecture},
    )


def builder(entry: Entry) -> Callable[..., Model]:
    """The builder function."""
    module, _, function = entry.builder.partition(":")
    return getattr(importlib.import_module(module), function)


def default_recipe(entry: Entry) -> Recipe:
    """The recipe that the model's file states."""
    recipes = getattr(importlib.import_module(entry.module), "RECIPES", {})
    return recipes.get(entry.name.partition("/")[0], Recipe())


def options(entry: Entry) -> dict[str, tuple[Any, Any]]:
    """``model.*`` options: name -> (type, default)."""
    function = builder(entry)
    hints = typing.get_type_hints(function)
    return {
        name: (hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in NOT_OPTIONS and name not in entry.fixed
    }


def check_options(entry: Entry, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options, typed; an unknown name or a value of the wrong type is a UsageError."""
    known = options(entry)
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{entry.name} has no option model.{name}{suggest(name, known)}")
        try:
            checked[name] = coerce(value, known[name][0])
        except ValueError as error:
            raise UsageError(f"model.{name}={value!r}: {error}") from None
    return checked


def create_model(
    name: str, num_classes: int | None = None, *, pretrained: bool = False, weights: str | Path | None = None, **model_options: Any
) -> Model:
    """Build a model by name.

    Args:
        name: see :func:`saccade.list_models`.
        num_classes: without background; None takes the builder's default.
        pretrained: download the published weights (said aloud; honours ``--offline``).
        weights: a file of weights instead.
        model_options: the builder's keyword arguments.

    Raises:
        UsageError: unknown name or option, or an argument of a wrong type.
    """
    entry = find(name)
    if not isinstance(pretrained, bool):
        raise UsageError(f"pretrained is True or False, not {pretrained!r}")
    if weights is not None and not isinstance(weights, (str, Path)):
        raise UsageError(f"weights is a file name, not {type(weights).__name__}")
    checked = check_options(entry, model_options)
    function = builder(entry)
    if num_classes is not None:
        if not isinstance(num_classes, numbers.Integral) or isinstance(num_classes, bool):
            raise UsageError(f"num_classes is a whole number, not {num_classes!r}")
        if num_classes > MOST_CLASSES:
            raise UsageError(f"num_classes is at most {MOST_CLASSES:,}, not {num_classes:,}")
        checked["num_classes"] = int(num_classes)
    elif inspect.signature(function).parameters["num_classes"].default is inspect.Parameter.empty:
        raise UsageError(f"{name} needs num_classes")
    if weights is not None:
        checked = form_of_weights(entry, weights) | checked
    model = function(pretrained=pretrained, **entry.fixed, **checked)
    # The bundle writes them; what the builder resolved (an "auto" option, weights fetched already) wins over what was asked.
    model.build_name, model.build_options = name, checked | model.build_options
    if weights is not None:
        from saccade.models.weights import load_weights

        load_weights(model, weights)
    return model


def form_of_weights(entry: Entry, weights: str | Path) -> dict[str, Any]:
    """Options that a file of weights asks for: a module's ``form_of_weights(name, tensors)`` may tell a system's forms apart."""
    tell = getattr(importlib.import_module(entry.module), "form_of_weights", None)
    if tell is None:
        return {}
    from saccade.models.weights import is_darknet, read_state

    if is_darknet(weights):
        return {}
    return tell(entry.name, read_state(weights).keys())
