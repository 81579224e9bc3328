"""Which names of backbones timm may be given."""

from __future__ import annotations

from saccade.types.errors import UsageError, suggest


def check_backbone(name: str, option: str = "model.backbone: ") -> None:
    """UsageError with a suggestion when timm itself has no such network; ``option`` begins the message.

    Called before every ``timm.create_model``, which would follow a name such as "hf-hub:owner/model" or "local-dir:folder" to the
    network or into a folder.
    """
    import timm

    if not timm.is_model(name) or set(name) & set(":/\\"):
        raise UsageError(f"{option}timm has no model {name!r}{suggest(name.partition('.')[0], timm.list_models())}")
