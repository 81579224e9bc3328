"""Networks of timm as backbones: which names it may be given, and their feature maps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from saccade.types.errors import UsageError, suggest

if TYPE_CHECKING:
    from torch import nn

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


def timm_features(name: str, in_chans: int, pretrained: bool, size: int | None) -> nn.Module:
    """All maps of a timm network; transformers are built for inputs of ``size``."""
    import timm

    check_backbone(name)

    def build(**extra: int) -> nn.Module:
        return timm.create_model(name, features_only=True, in_chans=in_chans, pretrained=pretrained, **extra)

    try:
        if size is not None:
            with contextlib.suppress(TypeError):  # convolutional networks have no img_size: they take any
                return build(img_size=size)
        return build()
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        raise UsageError(f"timm gives no feature maps of a backbone {name!r}: {error}") from None
