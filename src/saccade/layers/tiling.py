"""Overlapping tiles: a dense network on an image of any size, in bounded memory, mirrored beyond the border.

The overlap-tile strategy of U-Net (Ronneberger et al. 2015, figure 2): every output tile is computed from a window that is
larger by the network's margin; what the window lacks outside the image is mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def mirror(length: int, start: int, stop: int, device: torch.device | None = None) -> Tensor:
    """Indices (stop - start,) into 0..length-1 for the positions start..stop-1, reflected at the ends as often as needed.

    The edge is not repeated, as in numpy's and torch's "reflect", which this extends to any distance.

    >>> mirror(4, -3, 7).tolist()
    [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    """
    period = max(2 * (length - 1), 1)
    folded = torch.arange(start, stop, device=device) % period
    return torch.minimum(folded, period - folded) if length > 1 else torch.zeros_like(folded)


def mirror_pad(images: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """(N, C, *sizes) with ``before[k]`` and ``after[k]`` mirrored positions added to spatial dimension k."""
    for k, (first, last) in enumerate(zip(before, after, strict=True)):
        if first or last:
            length = images.shape[2 + k]
            images = images.index_select(2 + k, mirror(length, -first, length + last, images.device))
    return images


def tile_predict(function: Callable[[Tensor], Tensor], image: Tensor, *, tile: int, margin: int, batch: int = 1, align: int = 1) -> Tensor:
    """Apply a dense network to an image by overlapping tiles; at most ``batch`` windows are in work at a time.

    Args:
        function: (B, C, S, S) windows with S = tile + 2 margin to (B, K, tile, tile), the centre of each (a network without
            padding), or to (B, K, S, S), whose margin is then cut off (a network with padding). Any dtype: an argmax
            inside keeps the result small.
        image: (C, H, W).
        tile: side of an output tile.
        margin: context on each side. The result is exactly the network's on the whole mirrored image when the network has
            no padding, loses ``margin`` on each side, and tiles start at multiples of its total stride (``align``).
        batch: windows a call.
        align: tiles are spaced by the largest multiple of this that ``tile`` holds.

    Returns:
        (K, H, W) on the device of ``image``.

    Raises:
        ValueError: no multiple of ``align`` fits ``tile``, or the function returns another size.
    """
    step = tile // align * align
    if step < 1 or margin < 0 or batch < 1:
        raise ValueError(f"tile={tile}, margin={margin}, batch={batch}, align={align}: the tile must hold one multiple of align")
    _, height, width = image.shape
    starts = [(top, left) for top in range(0, height, step) for left in range(0, width, step)]
    out: Tensor | None = None
    for first in range(0, len(starts), batch):
        chunk = starts[first : first + batch]
        windows = []
        for top, left in chunk:
            rows = mirror(height, top - margin, top + tile + margin, image.device)
            columns = mirror(width, left - margin, left + tile + margin, image.device)
            windows.append(image[:, rows[:, None], columns])
        results = function(torch.stack(windows))
        extra = results.shape[-1] - tile
        if results.shape[-2] != results.shape[-1] or extra not in (0, 2 * margin):
            raise ValueError(
                f"the network turns {tile + 2 * margin} into {tuple(results.shape[-2:])}: neither the tile {tile} nor the window"
            )
        cut = extra // 2
        if out is None:
            out = results.new_empty((results.shape[1], height, width), device=image.device)
        for (top, left), result in zip(chunk, results, strict=True):
            bottom, right = min(top + step, height), min(left + step, width)
            out[:, top:bottom, left:right] = result[:, cut : cut + bottom - top, cut : cut + right - left]
    assert out is not None
    return out
