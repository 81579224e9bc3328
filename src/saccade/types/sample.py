"""Sample and Batch, the target keys, and the one place where the fields of an object are filtered together.

Target keys by task (every target also has ``image_id`` and ``path``):

==============  ==========================================================================================
classify        ``label`` int64 scalar, 0..K-1
detect          ``boxes`` (N, 4) float32 XYXY in pixels (tv_tensors.BoundingBoxes), ``labels`` (N,) int64,
                ``iscrowd`` (N,) bool; optionally ``masks`` (N, H, W) bool (tv_tensors.Mask),
                ``keypoints`` (N, K, 2) float32 xy and ``visibility`` (N, K) int64 in {0, 1, 2}; ``area`` (N,) as annotated
                and ``difficult`` (N,) bool, for metrics
landmarks       as detect, with ``keypoints`` and ``visibility``, at most one object (N is 0 or 1), whose points are the classes
segment         ``mask`` (H, W) int64 (tv_tensors.Mask), 0..K-1, and -100 where it is to be ignored
generate        nothing needed
others          ``captions`` list[str]; ``depth`` (H, W) float32
==============  ==========================================================================================

A pixel's centre is at (x + 0.5, y + 0.5); a box spans edges, so a 1-pixel object at column 3 is (3, y, 4, y + 1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from saccade.types.errors import DataError
from saccade.types.geometry import Geometry

IGNORE = -100
"""Value of ``mask`` where a pixel has no class; the default of torch's cross entropy."""

OBJECT_KEYS = ("boxes", "labels", "iscrowd", "masks", "keypoints", "visibility", "area", "difficult")
"""Keys whose first dimension counts the objects of an image."""

Target = dict[str, Any]


class Sample(NamedTuple):
    """One image and its truth: ``image`` uint8 (C, H, W) tv_tensor with C 1 or 3 (RGB), ``target`` a dict (see module)."""

    image: Tensor
    target: Target


class Batch(NamedTuple):
    """What a loader yields.

    ``images`` and ``targets`` are as ``model.preprocess`` made them (network pixels); ``geometries`` lead back;
    ``truths`` are the targets in original pixels, for metrics (None while training); ``problems`` are the broken files
    that were skipped.
    """

    images: Tensor | list[Tensor]
    targets: list[Target]
    geometries: list[Geometry]
    truths: list[Target] | None = None
    problems: tuple[DataError, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """From a loader's worker each tensor would travel as shared memory of its own, which takes a label longer than decoding a small
        image; so the small ones travel as arrays.
        """
        return _unpacked, (self.images, _packed(self.targets), self.geometries, _packed(self.truths), self.problems)


SMALL = 4096
"""Numbers up to which a tensor of a target travels as an array."""


class _Array(NamedTuple):
    """A tensor as an array; of boxes also their format and canvas."""

    values: np.ndarray
    format: str = ""
    canvas: tuple[int, int] = (0, 0)


def _packed(targets: list[Target] | None) -> list[Target] | None:
    def pack(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.numel() > SMALL or value.device.type != "cpu" or value.requires_grad:
            return value
        if value.dtype is torch.bfloat16:  # NumPy has none
            return value
        if isinstance(value, tv_tensors.BoundingBoxes):
            return _Array(value.as_subclass(Tensor).numpy(), value.format.value, value.canvas_size)  # type: ignore[arg-type]
        return _Array(value.numpy()) if type(value) is Tensor else value

    return None if targets is None else [{key: pack(value) for key, value in target.items()} for target in targets]


def _unpacked(
    images: Any, targets: list[Target], geometries: list[Geometry], truths: list[Target] | None, problems: tuple[DataError, ...]
) -> Batch:
    def unpack(value: Any) -> Any:
        if not isinstance(value, _Array):
            return value
        tensor = torch.from_numpy(value.values if value.values.flags.writeable else value.values.copy())
        if not value.format:
            return tensor
        return tv_tensors.BoundingBoxes(tensor, format=value.format, canvas_size=value.canvas)  # type: ignore[call-overload]

    def whole(packed: list[Target] | None) -> list[Target] | None:
        return None if packed is None else [{key: unpack(value) for key, value in target.items()} for target in packed]

    return Batch(images, whole(targets) or [], geometries, whole(truths), problems)


def keep_objects(target: Target, keep: Tensor) -> Target:
    """The target with only the objects of ``keep`` (a bool mask or indices): every field of an object, tv_tensor types kept."""
    out = dict(target)
    for key in OBJECT_KEYS:
        if key in out:
            value = out[key]
            out[key] = rewrap(value, torch.as_tensor(value)[keep])
    return out


def rewrap(like: Tensor, value: Tensor) -> Tensor:
    """``value`` as the tv_tensor type of ``like``: indexing drops the type, and the next flip would skip the boxes."""
    if isinstance(like, tv_tensors.TVTensor):
        return tv_tensors.wrap(value.as_subclass(Tensor), like=like)
    return value


def boxes_tensor(boxes: Any, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """(N, 4) XYXY float32 tv_tensor for an image of ``size`` (H, W); an empty list gives (0, 4)."""
    data = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return tv_tensors.BoundingBoxes(data, format="XYXY", canvas_size=size)  # type: ignore[call-overload]


def collate(items: list[tuple[Tensor, Target, Geometry] | tuple[Tensor, Target, Geometry, Target]]) -> Batch:
    """The one collate: images of one shape are stacked, others stay a list."""
    images = [i[0].as_subclass(Tensor) for i in items]
    same = all(i.shape == images[0].shape for i in images)
    truths = [i[3] for i in items] if items and len(items[0]) == 4 else None  # type: ignore[misc]
    return Batch(torch.stack(images) if same and images else images, [i[1] for i in items], [i[2] for i in items], truths)
