"""What stands between a decoded image and a network: channels, resize, padding, normalisation; with the way back.

A :class:`Preprocess` is pure and picklable: it runs in loader workers and travels with the model's bundle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_type_hints

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from saccade.types.coerce import coerce
from saccade.types.geometry import Geometry
from saccade.types.sample import IGNORE, Sample, Target, rewrap

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def for_channels(
    channels: int, mean: Iterable[float] = IMAGENET_MEAN, std: Iterable[float] = IMAGENET_STD
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of colour images as they are, or for one grey channel the mean of each.

    >>> for_channels(1, (0.2, 0.4, 0.6), (0.1, 0.1, 0.1))
    ((0.4,), (0.1,))
    """
    given = tuple(mean), tuple(std)
    return given if channels == 3 else tuple((math.fsum(values) / len(values),) for values in given)  # type: ignore[return-value]


LARGEST = 16384  # side of a network's input in pixels


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """``preprocess(sample) -> (tensor, target, Geometry)``.

    Attributes:
        mode: "stretch" resizes to ``size``; "letterbox" keeps the aspect ratio and pads to ``size``;
            "shortest" resizes the short side to ``size[0]``, the long one to at most ``size[1]`` (torchvision's detectors);
            "crop" resizes the short side to ``size / crop`` and cuts the centre (ImageNet evaluation);
            "keep" leaves the size alone.
        size: (H, W) of the network's input; for "shortest" (short side, longest side).
        multiple: "keep" and "shortest" pad right and below to a multiple of this.
        channels: 1 or 3; grey is repeated, colour becomes BT.601 grey.
        mean, std: per channel on the 0..1 scale; the tensor is ``(image / 255 - mean) / std``.
        fill: padding value on the 0..1 scale, before normalisation; class masks are padded with -100, depth with 0.
        interpolation: "bilinear", "bicubic" or "nearest".
        antialias: low-pass before shrinking.
        resize_float: resize float values, not rounded 8-bit ones (torchvision's detectors); slower.
        upscale: whether letterbox and shortest may enlarge.
    """

    mode: Literal["stretch", "letterbox", "shortest", "crop", "keep"] = "stretch"
    size: tuple[int, int] = (224, 224)
    multiple: int = 1
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fill: float = 0.0
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    antialias: bool = True
    resize_float: bool = False
    upscale: bool = True
    crop: float = 0.875

    def __post_init__(self) -> None:
        for name, hint in HINTS.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, coerce(value, hint))
            except ValueError as error:
                raise ValueError(f"{name} is {value!r}: {error}") from None
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}: 1 or 3")
        if not all(1 <= side <= LARGEST for side in (*self.size, self.multiple)):
            raise ValueError(f"size {self.size} and multiple {self.multiple}: each from 1 to {LARGEST}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}: above 0, at most 1")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} values for {self.channels} channels")
        if not all(map(math.isfinite, (*self.mean, *self.std, self.fill))) or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean}, std {self.std} and fill {self.fill} must be finite, and std above 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the bundle."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of :meth:`to_dict`."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def geometry(self, original: tuple[int, int]) -> Geometry:
        """How an image of (H, W) is mapped; nothing is computed on pixels."""
        height, width = original
        if self.mode == "stretch":
            return Geometry(original, self.size)
        if self.mode == "letterbox":
            factor = min(self.size[0] / height, self.size[1] / width)
            factor = factor if self.upscale else min(factor, 1.0)
            resized = _scaled(original, factor, self.size)
            offset = ((self.size[0] - resized[0]) // 2, (self.size[1] - resized[1]) // 2)
            return Geometry(original, resized, offset, self.size)
        if self.mode == "crop":
            # sides and offsets rounded as torchvision's Resize and CenterCrop and timm's evaluation do
            factor = max(math.floor(self.size[0] / self.crop) / height, math.floor(self.size[1] / self.crop) / width)
            resized = (max(int(height * factor + 1e-6), self.size[0]), max(int(width * factor + 1e-6), self.size[1]))
            offset = (-round((resized[0] - self.size[0]) / 2), -round((resized[1] - self.size[1]) / 2))
            return Geometry(original, resized, offset, self.size)
        resized = original
        if self.mode == "shortest":
            factor = min(self.size[0] / min(original), self.size[1] / max(original))
            factor = factor if self.upscale else min(factor, 1.0)
            # torchvision floors here: interpolate(scale_factor=...) with recompute_scale_factor
            resized = (max(1, int(height * factor)), max(1, int(width * factor)))
        canvas = tuple(-(-side // self.multiple) * self.multiple for side in resized)
        return Geometry(original, resized, (0, 0), canvas)  # type: ignore[arg-type]

    def __call__(self, sample: Sample) -> tuple[Tensor, Target, Geometry]:
        """Map one sample; the tensor is float32 (channels, H, W)."""
        image, target = sample
        geometry = self.geometry((image.shape[-2], image.shape[-1]))
        return self.image(image, geometry), self.target(target, geometry), geometry

    def image(self, image: Tensor, geometry: Geometry) -> Tensor:
        """uint8 (C, H, W) to the normalised float32 input."""
        image = image.as_subclass(Tensor)
        if image.shape[0] != self.channels:
            image = F.rgb_to_grayscale(image) if self.channels == 1 else image.expand(3, -1, -1)
        if self.resize_float:
            image = image.to(torch.float32).div_(255)
        if geometry.resized != geometry.original:
            how = F.InterpolationMode(self.interpolation)
            image = F.resize(image, list(geometry.resized), interpolation=how, antialias=self.antialias and self.interpolation != "nearest")
        tensor = image if self.resize_float else image.to(torch.float32).div_(255)
        if geometry.canvas != geometry.resized:
            tensor = _place(tensor, geometry, self.fill)
        return tensor.sub_(_column(self.mean)).div_(_column(self.std))

    def target(self, target: Target, geometry: Geometry) -> Target:
        """Boxes, points and masks moved to network pixels; labels unchanged."""
        out = dict(target)
        if "boxes" in out:
            moved = geometry.boxes_to_network(out["boxes"].as_subclass(Tensor))
            out["boxes"] = tv_tensors.BoundingBoxes(moved, format="XYXY", canvas_size=geometry.canvas)  # type: ignore[call-overload]
        if "keypoints" in out:
            out["keypoints"] = geometry.points_to_network(out["keypoints"])
        for key, fill in (("mask", IGNORE), ("masks", 0), ("depth", 0)):
            if key in out:
                mask = out[key].as_subclass(Tensor)
                flat = mask if mask.ndim == 3 else mask[None]
                if geometry.resized != geometry.original and flat.shape[0]:
                    # "exact" takes the pixel whose centre is nearest, as the image does; plain nearest is half a network pixel off
                    flat = F.resize(flat, list(geometry.resized), interpolation=F.InterpolationMode.NEAREST_EXACT)
                elif not flat.shape[0]:
                    flat = flat.new_zeros((0, *geometry.resized))
                if geometry.canvas != geometry.resized:
                    flat = _place(flat, geometry, fill)
                out[key] = rewrap(out[key], flat if mask.ndim == 3 else flat[0])
        return out


HINTS = get_type_hints(Preprocess)


@cache
def _column(values: tuple[float, ...]) -> Tensor:
    """(C, 1, 1) of a value a channel; made once."""
    return torch.tensor(values).view(-1, 1, 1)


def _scaled(original: tuple[int, int], factor: float, limit: tuple[int, int]) -> tuple[int, int]:
    return tuple(min(max(1, round(side * factor)), most) for side, most in zip(original, limit, strict=True))  # type: ignore[return-value]


def _place(tensor: Tensor, geometry: Geometry, fill: float) -> Tensor:
    """The content on a canvas at its offset; a negative offset cuts."""
    (top, left), (height, width) = geometry.offset, geometry.canvas
    out = tensor.new_full((tensor.shape[0], height, width), fill)
    cut = tensor[:, max(-top, 0) :, max(-left, 0) :][:, : height - max(top, 0), : width - max(left, 0)]
    out[:, max(top, 0) : max(top, 0) + cut.shape[1], max(left, 0) : max(left, 0) + cut.shape[2]] = cut
    return out
