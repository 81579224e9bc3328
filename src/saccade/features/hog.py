"""Histograms of oriented gradients.

Paper: Dalal, Triggs: Histograms of Oriented Gradients for Human Detection (CVPR 2005). New was that a dense grid of
gradient histograms, normalised over overlapping blocks, beats sparse features for finding people.

Four conventions, because four descriptors are called HOG:

==========  ==========================================================================================================
dalal       the paper's default: no gamma, [-1 0 1], strongest colour channel, votes split linearly over orientation
            (bin centres 10, 30, ..., 170 degrees) and position, Gaussian of sigma = half the block, L2-Hys.
            Computed by OpenCV's compiled code; blocks row by row.
opencv      exactly ``cv2.HOGDescriptor().compute``: square-root gamma, sigma = a quarter of the block; blocks and
            the cells in them column by column. OpenCV's published people detector wants this one.
skimage     exactly ``skimage.feature.hog``: each pixel votes for one bin and one cell.
course      the textbook exercise: bin centres 0, 20, ..., 160, a vote split between the two nearest centres (15 degrees
            of magnitude 8 gives 2 to bin 0 and 6 to bin 20), no interpolation over position. Computed here.
==========  ==========================================================================================================

Facts under test (CANON F1): 8x8 cells, 9 unsigned bins, 2x2 blocks, L2-Hys at 0.2; 64x128 gives 15 * 7 blocks of 36
values = 3780.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from saccade.features.names import check_choice, check_range, check_whole
from saccade.features.pixels import as_pixels
from saccade.types.errors import UsageError

Convention = Literal["dalal", "opencv", "skimage", "course"]


def hog(
    image: Any,
    *,
    convention: Convention = "dalal",
    cell: int = 8,
    block: int = 2,
    bins: int = 9,
    signed: bool = False,
    clip: float = 0.2,
) -> np.ndarray:
    """The descriptor of a whole image as one vector, in the convention's own order.

    Args:
        image: as :func:`saccade.features.pixels.as_pixels` takes it; what exceeds whole cells is ignored.
        convention, cell, block, bins, signed, clip: as in :func:`hog_blocks`.

    Returns:
        (D,) float32; D = (H / cell - block + 1) * (W / cell - block + 1) * block^2 * bins.

    Raises:
        UsageError: no such image, one smaller than a block, or an option that cannot be.

    >>> hog(np.zeros((128, 64), np.uint8)).shape
    (3780,)
    """
    blocks = hog_blocks(image, convention=convention, cell=cell, block=block, bins=bins, signed=signed, clip=clip)
    return (blocks.transpose(1, 0, 2) if convention == "opencv" else blocks).reshape(-1)


def hog_blocks(
    image: Any,
    *,
    convention: Convention = "dalal",
    cell: int = 8,
    block: int = 2,
    bins: int = 9,
    signed: bool = False,
    clip: float = 0.2,
) -> np.ndarray:
    """The dense grid of normalised blocks, one step a cell: a detector computes it once per pyramid level and cuts windows.

    Args:
        image: as in :func:`hog`.
        convention: whose HOG (see the module).
        cell: side of a cell in pixels, 1 to 1024; block: side of a block in cells, 1 to 64.
        bins: orientation bins over 180 degrees, or over 360 if ``signed``, 1 to 64.
        signed: keep the sign of a gradient; scikit-image has no such option.
        clip: L2-Hys threshold, 0.001 to 1; 1 clips nothing.

    Returns:
        (rows, columns, block^2 * bins) float32; ``[r, c]`` covers the cells r..r+block-1, c..c+block-1. The cells of a
        block stand row by row ("opencv": column by column).

    Raises:
        UsageError: as :func:`hog`.
    """
    check_hog(convention=convention, cell=cell, block=block, bins=bins, clip=clip)
    pixels = as_pixels(image)
    rows, columns = pixels.shape[0] // cell, pixels.shape[1] // cell
    if rows < block or columns < block:
        raise UsageError(f"HOG needs at least {block * cell}x{block * cell} pixels, not {pixels.shape[1]}x{pixels.shape[0]}")
    if convention == "course":
        return normalize_blocks(hog_cells(pixels, cell=cell, bins=bins, signed=signed), block=block, clip=clip)
    if convention == "skimage":
        from skimage.feature import hog as skimage_hog

        if signed or clip != 0.2:
            raise UsageError("scikit-image's HOG has neither signed bins nor another clip than 0.2")
        grid = skimage_hog(
            pixels, orientations=bins, pixels_per_cell=(cell, cell), cells_per_block=(block, block), block_norm="L2-Hys",
            feature_vector=False, channel_axis=-1 if pixels.ndim == 3 else None,
        )  # fmt: skip
        return grid.reshape(*grid.shape[:2], -1).astype(np.float32)
    import cv2

    # A window of one block, moved by a cell, makes OpenCV return the dense grid with each block computed once.
    side = block * cell
    gamma, sigma = (True, -1.0) if convention == "opencv" else (False, side / 2)
    descriptor = cv2.HOGDescriptor((side,) * 2, (side,) * 2, (cell,) * 2, (cell,) * 2, bins, 1, sigma, 0, clip, gamma, 64, signed)
    flat = np.asarray(descriptor.compute(np.ascontiguousarray(pixels), winStride=(cell, cell)))
    grid = flat.reshape(rows - block + 1, columns - block + 1, block, block, bins)
    if convention == "dalal":
        grid = grid.swapaxes(2, 3)
    return grid.reshape(*grid.shape[:2], -1)


def check_hog(*, convention: Convention = "dalal", cell: int = 8, block: int = 2, bins: int = 9, clip: float = 0.2) -> None:
    """UsageError when an option of :func:`hog_blocks` cannot be."""
    check_choice(Convention, convention=convention)
    check_whole(1, 1024, cell=cell)
    check_whole(1, 64, block=block, bins=bins)
    check_range(0.001, 1, clip=clip)


def hog_cells(image: Any, *, cell: int = 8, bins: int = 9, signed: bool = False) -> np.ndarray:
    """Unnormalised histograms of all cells in the course's convention.

    A gradient of magnitude m at angle t votes ``m (1 - f)`` for bin k and ``m f`` for bin k + 1 (cyclic), where
    ``t / width = k + f`` and width = 180 / bins (360 / bins if ``signed``): bin centres are 0, width, 2 width, ...
    Gradients are central differences of the strongest colour channel; the image's edge is repeated outward.

    Args:
        image, cell, bins, signed: as in :func:`hog_blocks`.

    Returns:
        (H // cell, W // cell, bins) float32.
    """
    check_hog(cell=cell, bins=bins)
    pixels = as_pixels(image)
    magnitude, angle = gradient(pixels)
    rows, columns = pixels.shape[0] // cell, pixels.shape[1] // cell
    magnitude, angle = magnitude[: rows * cell, : columns * cell], angle[: rows * cell, : columns * cell]
    span = 360 if signed else 180
    position = (angle % span) * (bins / span)
    low = np.floor(position).astype(np.int64)
    part = position - low
    row, column = np.arange(rows * cell)[:, None] // cell, np.arange(columns * cell)[None] // cell
    first = (row * columns + column) * bins
    size = rows * columns * bins
    histogram = np.bincount((first + low % bins).ravel(), (magnitude * (1 - part)).ravel(), size)
    histogram += np.bincount((first + (low + 1) % bins).ravel(), (magnitude * part).ravel(), size)
    return histogram.reshape(rows, columns, bins).astype(np.float32)


def gradient(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude and angle (degrees, 0 <= t < 360, y downward) of central differences ``f(x + 1) - f(x - 1)``.

    Of a colour image, each pixel takes the channel of the largest magnitude. Both (H, W) float64.
    """
    pixels = np.atleast_3d(as_pixels(image)).astype(np.float64)
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    dx = padded[1:-1, 2:] - padded[1:-1, :-2]
    dy = padded[2:, 1:-1] - padded[:-2, 1:-1]
    strongest = (dx**2 + dy**2).argmax(-1)[..., None]
    dx, dy = (np.take_along_axis(d, strongest, -1)[..., 0] for d in (dx, dy))
    return np.hypot(dx, dy), np.degrees(np.arctan2(dy, dx)) % 360


def normalize_blocks(cells: np.ndarray, *, block: int = 2, clip: float = 0.2, eps: float = 1e-5) -> np.ndarray:
    """L2-Hys over all overlapping blocks: ``v / sqrt(|v|^2 + eps^2)``, clipped at ``clip``, and normalised again.

    Args:
        cells: (rows, columns, bins).

    Returns:
        (rows - block + 1, columns - block + 1, block^2 * bins) float32, cells of a block row by row.
    """
    check_hog(block=block, clip=clip)
    windows = np.lib.stride_tricks.sliding_window_view(cells, (block, block), axis=(0, 1))  # (r, c, bins, y, x)
    blocks = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1).astype(np.float64)
    blocks /= np.sqrt((blocks**2).sum(-1, keepdims=True) + eps**2)
    np.minimum(blocks, clip, out=blocks)
    blocks /= np.sqrt((blocks**2).sum(-1, keepdims=True) + eps**2)
    return blocks.astype(np.float32)
