"""A model of ours for Darknet's program: its ``.weights``, and a ``.cfg`` of the same network with our classes, priors and input size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from saccade.models.base import Model
from saccade.models.darknet.cfg import Section, parse_cfg, read_cfg
from saccade.models.darknet.network import DarknetNetwork
from saccade.models.darknet.weights import units, write_weights
from saccade.models.detect.yolov1 import YOLOv1
from saccade.types.errors import DataError, UsageError
from saccade.types.files import atomic

CFG_OF = {
    "darknet19": "darknet19.cfg",
    "darknet53": "darknet53.cfg",
    "yolov1_darknet": "yolov1.cfg",
    "yolov1_tiny": "yolov1-tiny.cfg",
    "yolov2_darknet": "yolov2-voc.cfg",
    "yolov2_tiny": "yolov2-tiny-voc.cfg",
    "yolo9000": "yolo9000.cfg",
    "yolov3": "yolov3.cfg",
    "yolov3_tiny": "yolov3-tiny.cfg",
    "yolov3_spp": "yolov3-spp.cfg",
    "yolov4": "yolov4.cfg",
    "yolov4_tiny": "yolov4-tiny.cfg",
    "yolov4_csp": "yolov4-csp.cfg",
}
"""Registered network -> the authors' description whose layers it has, in this order."""

HEADS = ("yolo", "region", "detection")


def adapted_cfg(cfg: str | Path, model: Model) -> str:
    """The text of a description with the model's classes, priors, input size and channels; all other lines stay.

    Args:
        cfg: the authors' description of the model's network.
        model: trained by us.

    Raises:
        DataError: the description cannot be read, or is of another network.
    """
    description = read_cfg(cfg)
    lines = Path(cfg).read_text(encoding="utf-8", errors="replace").splitlines()
    height, width = model.preprocess.size
    size = {"width": width, "height": height, "channels": model.preprocess.channels}
    changes: list[tuple[Section, dict[str, Any]]] = [(description.net, size)]
    layers = description.layers
    heads = [section for section in layers if section.kind in HEADS]
    if len(heads) != len(getattr(model, "strides", heads)):
        raise _other_network(model, Path(cfg), f"it has {len(heads)} heads, the model {len(model.strides)}")  # type: ignore[arg-type]
    for section in heads:
        changes.append((section, {"classes": model.num_classes} | _priors(section, heads, model)))
        before = layers[section.number - 1]
        count = len(section.ints("mask")) or section.int("num", 1)
        if isinstance(model, YOLOv1) and section.kind == "detection":
            changes[-1][1].update(side=model.side, num=model.count)
            changes.append((before, {"output": model.side**2 * (model.count * 5 + model.num_classes)}))
        else:
            changes.append((before, {"filters": count * (5 + model.num_classes)}))
    if not heads:
        last = next((section for section in reversed(layers) if section.kind in ("convolutional", "connected")), None)
        if last is not None:
            changes.append((last, {"filters" if last.kind == "convolutional" else "output": model.num_classes}))
    new: dict[int, list[str]] = {}
    for section, values in changes:
        for key, value in values.items():
            if key in section.lines:
                lines[section.lines[key] - 1] = f"{key}={value}"
            else:
                new.setdefault(section.line, []).append(f"{key}={value}")
    for number in sorted(new, reverse=True):
        lines[number:number] = new[number]
    return "\n".join(lines) + "\n"


def _priors(section: Section, heads: list[Section], model: Model) -> dict[str, str]:
    """``anchors=`` of a head: all levels' priors under its masks ([yolo], pixels), or in cells ([region])."""
    priors = getattr(model, "priors", None)
    if priors is None or "anchors" not in section:
        return {}
    if section.kind == "region":
        sides = priors[0] / model.strides[0]  # type: ignore[index, operator]
        return {"anchors": ", ".join(f"{v:.6g}" for v in sides.flatten().tolist())}
    sides = section.floats("anchors")
    levels = priors.tolist()
    if all([sides[2 * m : 2 * m + 2] for m in head.ints("mask")] == level for head, level in zip(heads, levels, strict=True)):
        return {}
    count = len(levels[0])  # masks of the authors may overlap: each level gets priors of its own
    first = heads.index(section) * count
    return {
        "anchors": ", ".join(f"{v:.6g}" for v in priors.flatten().tolist()),
        "mask": ",".join(str(first + k) for k in range(count)),
        "num": str(len(levels) * count),
    }


def write_darknet(model: Model, out: str | Path, cfg: str | Path | None = None) -> list[Path]:
    """Write ``OUT.weights``, ``OUT.names`` and, with the authors' description, ``OUT.cfg`` for Darknet's program.

    Args:
        model: a network of :data:`CFG_OF` at its full width.
        out: the files' name; a suffix is taken away.
        cfg: the authors' description of this network, for the ``.cfg``.

    Returns:
        The files written.

    Raises:
        UsageError: a model that Darknet has no layers for.
        DataError: ``cfg`` is of another network.
    """
    name = model.build_name
    if isinstance(getattr(model, "network", None), DarknetNetwork):
        raise UsageError("this model is read from Darknet's own files: there is nothing to export")
    if name not in CFG_OF:
        raise UsageError(f"{name or type(model).__name__} is no network of Darknet's; these are: {', '.join(CFG_OF)}")
    if model.preprocess.size[0] % 32 or model.preprocess.size[1] % 32:
        raise UsageError(f"Darknet's networks take sides that are multiples of 32, not {model.preprocess.size}")
    out = Path(out)
    out = out.with_suffix("") if out.suffix in (".weights", ".cfg", ".names") else out
    if out.name in ("", ".."):
        raise UsageError(f"{out} is a folder; give the name of the files in it, such as {out / 'cells'}")
    files = [out.with_name(out.name + suffix) for suffix in (".weights", ".names")]
    if cfg is not None:
        target = out.with_name(out.name + ".cfg")
        if os.path.realpath(target) == os.path.realpath(cfg):
            raise UsageError(f"{target} is the description that was given, which is not overwritten; give another name")
        text = adapted_cfg(cfg, model)
        _same_layers(model, text, Path(cfg))
        with atomic(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files.append(target)
    write_weights(model, files[0])
    with atomic(files[1]) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in model.classes), encoding="utf-8")
    return files


def _other_network(model: Model, given: Path, why: str) -> DataError:
    hint = f"take {CFG_OF[model.build_name]}, and a model of the width that the authors gave it"
    return DataError(given, f"is of another network: {why}", hint=hint)


def _same_layers(model: Model, text: str, given: Path) -> None:
    """DataError where the layers of a description's text, adapted from a ``given`` one, are not the model's."""
    try:
        with torch.device("meta"):
            network = DarknetNetwork(parse_cfg(text, given), "alexeyab")
    except DataError as error:
        raise _other_network(model, given, f"{error.where}: {error.problem}") from None
    theirs, ours = ([[t.numel() for t in unit.tensors] for unit in units(n) if unit.tensors] for n in (network, model))
    if theirs != ours:
        numbers = f"{sum(map(sum, theirs)):,} floats in {len(theirs)} layers, the model has {sum(map(sum, ours)):,} in {len(ours)}"
        raise _other_network(model, given, numbers)
