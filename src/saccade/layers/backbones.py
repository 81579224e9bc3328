"""Which names of backbones timm may be given."""

from __future__ import annotations

from collections.abc import Callable

from saccade.types.errors import UsageError, suggest

OWN: list[Callable[[], None]] = []
"""Functions that register saccade's own networks with timm (``saccade_NAME``); the room of the models, below, adds its one."""


def register_own() -> None:
    """Make saccade's own networks known to timm."""
    for register in OWN:
        register()


def check_backbone(name: str, option: str = "model.backbone: ") -> None:
    """UsageError with a suggestion when timm itself has no such network; ``option`` begins the message.

    Called before every ``timm.create_model``, which would follow a name such as "hf-hub:owner/model" or "local-dir:folder" to the
    network or into a folder.
    """
    import timm

    if name.startswith("saccade_"):
        register_own()
    if not timm.is_model(name) or set(name) & set(":/\\"):
        raise UsageError(f"{option}timm has no model {name!r}{suggest(name.partition('.')[0], timm.list_models())}")
