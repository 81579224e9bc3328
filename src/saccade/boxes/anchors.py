"""Anchors and default boxes: the same few sides at every cell of a grid. Boxes are XYXY in pixels of the network's input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def grid_boxes(grid: tuple[int, int], sides: Tensor, step: tuple[float, float], offset: float = 0.5) -> Tensor:
    """(H * W * n, 4) boxes: ``sides`` (n, 2) width and height in pixels at every cell of an (H, W) grid, row by row.

    Args:
        grid: (H, W) cells.
        sides: (n, 2) widths and heights.
        step: (y, x) distance of cells in pixels.
        offset: where in its cell a box's centre is: 0.5 is the middle (SSD, YOLO), 0 its corner (Faster R-CNN).
    """
    y = (torch.arange(grid[0], device=sides.device, dtype=sides.dtype) + offset) * step[0]
    x = (torch.arange(grid[1], device=sides.device, dtype=sides.dtype) + offset) * step[1]
    centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 1, 2)
    half = sides[None] / 2
    return torch.cat([centers - half, centers + half], dim=-1).reshape(-1, 4)


def ratio_sides(size: float, ratios: Sequence[float]) -> Tensor:
    """(n, 2) sides of boxes of area ``size ** 2`` and ratio height / width (Faster R-CNN's order)."""
    return torch.tensor([[size / math.sqrt(r), size * math.sqrt(r)] for r in ratios])


def ssd_scales(count: int, smallest: float = 0.2, largest: float = 0.9) -> list[float]:
    """SSD's equation 4 (arXiv 1512.02325): ``count`` scales from smallest to largest, evenly, and 1 for the map after the last.

    >>> [round(s, 2) for s in ssd_scales(6)]
    [0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.0]
    """
    step = (largest - smallest) / max(count - 1, 1)
    return [smallest + step * k for k in range(count)] + [1.0]


def ssd_sides(scale: float, next_scale: float, ratios: Sequence[float]) -> Tensor:
    """(2 + 2 len(ratios), 2) relative sides of one map (section 2.2 of the SSD paper), at most 1.

    A square of ``scale``, a square of ``sqrt(scale * next_scale)``, and for each ratio a wide and a tall box of area ``scale ** 2``.
    """
    middle = math.sqrt(scale * next_scale)
    sides = [(scale, scale), (middle, middle)]
    for ratio in ratios:
        long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        sides += [(long, short), (short, long)]
    return torch.tensor(sides).clamp(0, 1)
