"""Published and own weights into models: files are read without pickle's code, and every mismatch is named in one error."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saccade.models.darknet.weights import is_darknet
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
        # torch's own text advises to run what a pickle says
        reason = "" if "weights_only" in str(error) else f": {error}" if str(error) else ""
        hint = "expected .safetensors, a state dict saved by torch, or Darknet's .weights"
        raise DataError(path, f"cannot be read as weights{reason}", hint=hint) from error
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
    """Load a file of weights into a model: :func:`read_state`, then :func:`load_state`; a file of Darknet's by the order of its layers."""
    if is_darknet(path):
        return load_darknet_file(model, path, partial=partial)
    return load_state(model, read_state(path), path, partial=partial)


def load_darknet_file(model: nn.Module, path: str | Path, *, partial: bool = False) -> list[str]:
    """Darknet's ``.weights`` into a registered model whose layers stand in the order of its authors' cfg.

    Args:
        model, path: see above.
        partial: the file may end after any whole layer, or be made for another number of classes (which its length tells); the layers that
            it does not hold, or holds for other classes, keep their values.

    Returns:
        Names of the tensors that kept their values.

    Raises:
        DataError: a file of another network, cut off, or with numbers that are not finite; nothing is loaded then.
    """
    from saccade.models.darknet.weights import read_header, read_other_classes, read_weights, units

    own = units(model)
    floats = (Path(path).stat().st_size - read_header(Path(path)).size) // 4
    missing = floats - sum(unit.floats for unit in own)
    if missing and partial and (other := _of_other_classes(model, missing)) is not None:
        read_other_classes(model, other, path)
        kept = [unit for unit, theirs in zip(own, units(other), strict=True) if unit.floats != theirs.floats]
    else:
        kept = own[read_weights(model, path, partial=partial) :]
    fresh = {tensor.data_ptr() for unit in kept for tensor in unit.tensors}
    return [name for name, tensor in model.state_dict().items() if tensor.data_ptr() in fresh]


def _of_other_classes(model: nn.Module, missing: int) -> nn.Module | None:
    """The same network for the number of classes with which it has ``missing`` floats more, without memory; None where there is none."""
    from saccade.models.darknet.weights import units
    from saccade.models.registry import create_model

    name, classes, options = model.build_name, model.num_classes, dict(model.build_options)  # type: ignore[attr-defined]
    options.pop("num_classes", None)

    def build(count: int) -> nn.Module:
        with torch.device("meta"):
            return create_model(name, count, **options)

    def size(network: nn.Module) -> int:
        return sum(unit.floats for unit in units(network))

    by_class = size(build(classes + 1)) - size(model)  # the output layers grow linearly
    if not by_class or missing % by_class or classes + missing // by_class < 1:
        return None
    other = build(classes + missing // by_class)
    return other if size(other) - size(model) == missing else None


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
