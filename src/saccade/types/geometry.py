"""Geometry: how an image was resized and padded for the network, and the way back. Pure, picklable, small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """An axis-aligned map between original and network pixels: ``network = original * scale + offset``.

    Attributes:
        original: (H, W) of the image that the caller gave.
        resized: (H, W) of the image content inside the network's input, before padding.
        offset: (top, left) padding in network pixels.
        canvas: (H, W) of the network's input, padding included.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    canvas: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.canvas == (0, 0):
            object.__setattr__(self, "canvas", self.resized)

    @property
    def scale(self) -> tuple[float, float]:
        """(y, x) factors from original to network pixels."""
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def points_to_network(self, xy: Tensor) -> Tensor:
        """(..., 2) xy in original pixels to network pixels."""
        (sy, sx), (top, left) = self.scale, self.offset
        return xy * xy.new_tensor([sx, sy]) + xy.new_tensor([left, top])

    def points_to_original(self, xy: Tensor) -> Tensor:
        """(..., 2) xy in network pixels to original pixels."""
        (sy, sx), (top, left) = self.scale, self.offset
        return (xy - xy.new_tensor([left, top])) / xy.new_tensor([sx, sy])

    def boxes_to_network(self, boxes: Tensor) -> Tensor:
        """(N, 4) XYXY in original pixels to network pixels."""
        return self.points_to_network(boxes.reshape(-1, 2, 2)).reshape(-1, 4)

    def boxes_to_original(self, boxes: Tensor, clip: bool = True) -> Tensor:
        """(N, 4) XYXY in network pixels to original pixels, clipped to the image."""
        out = self.points_to_original(boxes.reshape(-1, 2, 2))
        if clip:
            height, width = self.original
            out = torch.minimum(out.clamp_min(0), out.new_tensor([width, height]))
        return out.reshape(-1, 4)

    def maps_to_original(self, maps: Tensor, mode: str = "bilinear") -> Tensor:
        """(C, h, w) maps over the whole canvas (any stride) to (C, H, W) over the original image: upsample, crop, resize.

        What a centre crop cut off is 0.
        """
        (top, left), (height, width) = self.offset, self.resized
        align = {"align_corners": False} if mode in ("bilinear", "bicubic") else {}
        maps = maps[None]
        if tuple(maps.shape[-2:]) != self.canvas:
            maps = F.interpolate(maps, size=self.canvas, mode=mode, **align)
        # A negative number pads: the content reaches beyond the canvas.
        maps = F.pad(maps, (-left, left + width - self.canvas[1], -top, top + height - self.canvas[0]))
        if (height, width) != self.original:
            maps = F.interpolate(maps, size=self.original, mode=mode, **align)
        return maps[0]
