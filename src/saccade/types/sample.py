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
