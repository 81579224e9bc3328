"""A trained model as two files: ``model.safetensors`` (numbers) and ``model.json`` (everything else). No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from saccade.data.transforms.preprocess import Preprocess
from saccade.engine.files import atomic, plain, write_json
from saccade.models.base import Model
from saccade.models.classify.base import Classifier
from saccade.models.registry import create_model
from saccade.types.errors import DataError, UsageError

FORMAT = 1
NOT_ARGUMENTS = {"name", "weights", "pretrained"}  # of create_model: a bundle neither fetches nor reads other weights


def save_bundle(model: Model, folder: str | Path, **facts: Any) -> Path:
    """Write a model that :func:`saccade.create_model` built.

    Args:
        model: with ``classes`` set.
        folder: made if missing; its two files are replaced atomically.
        facts: kept in model.json: metrics, thresholds, data fingerprint ...
    """
    folder = Path(folder)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with atomic(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", "saccade": model.build_name})
    description = {
        "saccade_bundle": FORMAT,
        "name": model.build_name,
        "task": model.task,
        "arguments": plain(model.build_options | {"num_classes": model.num_classes}),
        "classes": list(model.classes),
        "classes_known": model.classes_known,
        "preprocess": model.preprocess.to_dict(),
        "temperature": model.temperature if isinstance(model, Classifier) else 1.0,
        "versions": versions(),
        **plain(facts),
    }
    write_json(folder / "model.json", description)
    return folder


def describe_bundle(folder: str | Path) -> dict[str, Any]:
    """The content of model.json, checked."""
    path = Path(folder) / "model.json"
    if Path(folder).is_file():
        raise DataError(folder, "is a file", hint="give a run folder, its model/ folder, or Darknet's NAME.cfg beside its NAME.weights")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(folder, "is no model bundle", hint="it holds no model.json; give a run folder or its model/ folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"cannot be read: {error}") from None
    if not isinstance(description, dict) or "saccade_bundle" not in description:
        raise DataError(path, "is not saccade's model.json")
    if description["saccade_bundle"] != FORMAT:
        raise DataError(path, f"has bundle format {description['saccade_bundle']!r}", hint=f"this version reads {FORMAT}; update saccade")
    for key, kind in (("name", str), ("arguments", dict), ("classes", list), ("preprocess", dict)):
        if not isinstance(description.get(key), kind):
            raise DataError(path, f"has no usable {key!r}")
    arguments, classes = description["arguments"], description["classes"]
    count, seed = arguments.get("num_classes"), description.get("seed")
    if type(count) is not int or not 1 <= count <= 1_000_000:
        raise DataError(path, f"arguments.num_classes is {count!r}, not a whole number from 1 to 1000000")
    if refused := NOT_ARGUMENTS & arguments.keys():
        raise DataError(path, f"arguments may not hold {', '.join(sorted(refused))}")
    if len(classes) != count or not all(isinstance(name, str) for name in classes):
        raise DataError(path, f"'classes' must be {count} names, as arguments.num_classes says")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
        raise DataError(path, f"seed is {seed!r}, not a whole number from 0 to 2**63 - 1")
    temperature = description.get("temperature", 1.0)
    if not isinstance(temperature, (int, float)) or isinstance(temperature, bool) or not 1e-3 <= temperature <= 1e3:
        raise DataError(path, f"temperature is {temperature!r}, not a number from 0.001 to 1000")
    return description


def bundle_folder(folder: str | Path) -> Path:
    """Where model.json lies: a bundle, or the bundle of a run."""
    folder = Path(folder)
    return folder / "model" if (folder / "model" / "model.json").is_file() else folder


def set_temperature(folder: str | Path, temperature: float) -> None:
    """Write another temperature into a bundle."""
    folder = bundle_folder(folder)
    write_json(folder / "model.json", describe_bundle(folder) | {"temperature": temperature})


def load_bundle(folder: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a bundle, in eval mode; or of Darknet's own files, where a ``.cfg`` is given with its ``.weights`` beside it.

    Raises:
        DataError: missing or damaged files, or tensors that do not fit.
    """
    if Path(folder).suffix == ".cfg":
        return load_darknet_files(Path(folder)).to(device)
    folder = bundle_folder(folder)
    description = describe_bundle(folder)
    try:
        preprocess = Preprocess.from_dict(description["preprocess"])
        model = create_model(description["name"], **_no_downloads(description["arguments"]))
    except (UsageError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise DataError(folder / "model.json", f"describes no model that can be built: {error}") from None
    for name in ("mode", "size", "channels"):  # the network was built for these
        if getattr(preprocess, name) != (needed := getattr(model.preprocess, name)):
            raise DataError(folder / "model.json", f"preprocess.{name} is {getattr(preprocess, name)!r}; the network needs {needed!r}")
    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise DataError(path, f"cannot be read: {error}") from None
    resize_fitted(model, state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(path, f"does not fit {description['name']}: {error}") from None
    model.preprocess, model.classes = preprocess, list(description["classes"])
    model.classes_known = bool(description.get("classes_known", True))
    if isinstance(model, Classifier):
        model.temperature = description.get("temperature", 1.0)
    return model.to(device).eval()


def load_darknet_files(cfg: Path) -> Model:
    """The model of ``NAME.cfg`` with the ``NAME.weights`` beside it, and with ``NAME.names``, or the sole ``*.names`` there that fits.

    Raises:
        DataError: no weights there, or files that cannot be.
    """
    from saccade.models.darknet.model import load_darknet
    from saccade.models.darknet.tree import read_names

    weights = cfg.with_suffix(".weights")
    if cfg.is_file() and not weights.is_file():
        raise DataError(weights, "no such file", hint=f"put the weights of {cfg.name} beside it under this name")
    model = load_darknet(cfg, weights if cfg.is_file() else None)
    own = cfg.with_suffix(".names")
    given = [own] if own.is_file() else sorted(cfg.parent.glob("*.names"))
    fitting = [names for path in given if len(names := read_names(path)) == model.num_classes or path == own]
    if len(fitting) == 1 and not model.classes_known:
        if len(fitting[0]) != model.num_classes:
            raise DataError(own, f"has {len(fitting[0])} names for the {model.num_classes} classes of {cfg.name}")
        model.classes = fitting[0]
    return model


def resize_fitted(model: Model, state: dict[str, torch.Tensor]) -> None:
    """Buffers whose shape is known only after fitting take the shape of the file."""
    for name in model.fitted_buffers:
        if name in state:
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            setattr(module, leaf, torch.empty_like(state[name]))


def _no_downloads(arguments: dict[str, Any]) -> dict[str, Any]:
    """All numbers are in the bundle: nothing pre-trained is fetched again."""
    return {k: (False if k.startswith("pretrained") else v) for k, v in arguments.items()}


def versions() -> dict[str, str]:
    """Versions of what computed."""
    import platform
    from importlib.metadata import version

    return {"python": platform.python_version()} | {p: version(p) for p in ("saccade", "torch", "torchvision", "timm", "numpy")}
