"""Published and own weights into models: files are read without pickle's code, and every mismatch is named in one error."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saccade.types.errors import DataError

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

State = dict[str, Tensor]

BUNDLED = "model.safetensors"
"""Where a bundle keeps its numbers."""


def read_state(path: str | Path) -> State:
    """Tensors by name from ``.safetensors``, from ``.pth``, ``.pt``, ``.ckpt`` read with ``weights_only=True``, or from a run's folder.

    A checkpoint that holds its weights under "state_dict", "model" or "model_state_dict" is unwrapped.

    Raises:
        DataError: no such file, unreadable, or not a table of tensors.
    """
    path = Path(path)
    if path.is_dir():
        path = next((p for p in (path / "model" / BUNDLED, path / BUNDLED) if p.is_file()), path)
        if path.is_dir():
            raise DataError(path, "holds no weights", hint=f"a run's folder has model/{BUNDLED} once it is finished")
    if not path.is_file():
        raise DataError(path, "no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise whatever they meet inside a broken file
        raise DataError(
            path, f"cannot be read as weights: {error}", hint="expected .safetensors, or a state dict saved by torch"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(path, "holds no table of tensors", hint="save model.state_dict()")
    return dict(state)


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str | Path, *, partial: bool = False) -> list[str]:
    """Load tensors by name into a model, all or nothing; ``source`` names them in errors.

    ``model.translate_weights(state)``, where a model has it, renames published weights first.

    Args:
        model, state, source: see above.
        partial: tensors of the model that are missing in ``state``, or have another shape there (class layers for other classes),
            keep their values; a file that fits nowhere is still an error.

    Returns:
        Names of the tensors that kept their values.

    Raises:
        DataError: missing or unexpected names, or other shapes; nothing is loaded then.
    """
    translate = getattr(model, "translate_weights", None)
    state = dict(translate(dict(state)) if translate else state)
    own = model.state_dict()
    if partial:
        fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
        if fitting:
            model.load_state_dict(fitting, strict=False)
            return [name for name in own if name not in fitting]
    problems = []
    if missing := [name for name in own if name not in state]:
        problems.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if unexpected := [name for name in state if name not in own]:
        problems.append(f"{len(unexpected)} are unexpected ({_some(unexpected)})")
    wrong = [f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}" for k, v in state.items() if k in own and v.shape != own[k].shape]
    if wrong:
        problems.append(f"{len(wrong)} have another shape ({_some(wrong)})")
    if problems:
        hint = "the model must be built with the options and the number of classes that the weights were made with"
        raise DataError(source, "; ".join(problems), hint=hint)
    model.load_state_dict(state)
    return []


def load_weights(model: nn.Module, path: str | Path, *, partial: bool = False) -> list[str]:
    """Load a file of weights into a model: :func:`read_state`, then :func:`load_state`."""
    return load_state(model, read_state(path), path, partial=partial)


def fetch_torchvision(weights: WeightsEnum) -> State:
    """State dict of a published torchvision weight, kept where torchvision itself keeps it, so that neither loads it twice.

    Downloaded aloud on first use; with ``--offline`` a file that is not there is an error.

    Raises:
        DataError: not available offline, or the file's SHA-256 does not begin as its name says.
    """
    url = weights.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        from saccade.data.download import download

        download(url, path)
    stated = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if stated:
        with path.open("rb") as file:
            if not hashlib.file_digest(file, "sha256").hexdigest().startswith(stated[1]):
                raise DataError(path, "the file is damaged: its SHA-256 is not the one in its name", hint="delete it and run again")
    return read_state(path)


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
