"""Point operations: each pixel by itself, or by the histogram (CANON row I5). Thresholds are in :mod:`saccade.image.threshold`.

Where an operation looks at the grey levels of a colour image as a whole (equalisation, CLAHE), it works on the luma Y of YCbCr and keeps
the colour differences. Alpha stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from saccade.image.base import (
    by_level,
    each_channel,
    from_float,
    in_range,
    in_threads,
    look_up,
    luma,
    operation,
    pad,
    strips,
    white,
    within,
)
from saccade.types.errors import UsageError


@operation(row="I5", formula="g = (L-1) - f")
def invert(image: np.ndarray) -> np.ndarray:
    """The negative; its own inverse (floats: but for rounding). OpenCV's bitwise_not for integers, NumPy for floats.

    >>> invert(np.array([[0, 100, 255]], np.uint8)).tolist()
    [[255, 155, 0]]
    """
    if image.dtype.kind == "f":
        return np.subtract(image.dtype.type(1), image)
    import cv2

    return cv2.bitwise_not(image)


def _stretched(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high (in the image's own levels) spread over the range; an image of one value, or of the whole range, stays as it is."""
    if high <= low or (low, high) == (0, white(image)):
        return image
    if image.dtype.kind == "f":
        return in_range((image - image.dtype.type(low)) / image.dtype.type(high - low), image.dtype)
    top = white(image)
    return look_up(image, in_range((np.arange(top + 1) - low) / (high - low) * top, image.dtype))


@operation(row="I5", formula="g = (f - min) / (max - min) * (L-1)")
def stretch(image: np.ndarray, per_channel: bool = False) -> np.ndarray:
    """Contrast stretch: the least value becomes black, the greatest white; an image of one value stays. A table (OpenCV's LUT).

    Args:
        image: any.
        per_channel: every channel by its own least and greatest value (changes colours); else by those of the whole image.

    >>> stretch(np.array([[50, 100, 150]], np.uint8)).tolist()
    [[0, 128, 255]]
    """
    return _per_channel(image, lambda x: _stretched(x, *_extremes(x)), per_channel)


@operation(row="I5", formula="g = (f - p_low) / (p_high - p_low) * (L-1), clipped")
def percentile_stretch(image: np.ndarray, low: float = 2.0, high: float = 98.0, per_channel: bool = False) -> np.ndarray:
    """Contrast stretch between two percentiles, so that a few extreme pixels do not count. Our own: percentiles by the histogram.

    Args:
        image: any.
        low, high: percentiles in 0..100, low below high (linear between the two nearest ranks, NumPy's default).
        per_channel: every channel by itself.

    >>> percentile_stretch(np.array([[0, 100, 110, 120, 255]], np.uint8), 25, 75).tolist()
    [[0, 0, 128, 255, 255]]
    """
    if not 0 <= low < high <= 100:
        raise UsageError(f"low and high are percentiles, 0 <= low < high <= 100, not {low:g} and {high:g}")
    return _per_channel(image, lambda x: _stretched(x, *_percentiles(x, (low, high))), per_channel)


def _extremes(image: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value; no further than to where black and white are seen, which nothing exceeds."""
    import cv2

    low, high = math.inf, -math.inf
    for rows in strips(len(image), max(1, 2**20 // math.prod(image.shape[1:]))):
        least, most = cv2.minMaxLoc(image[rows].reshape(rows.stop - rows.start, -1))[:2]
        low, high = min(low, least), max(high, most)
        if (low, high) == (0, white(image)):
            break
    return low, high


def _percentiles(image: np.ndarray, wanted: tuple[float, float]) -> list[float]:
    """``np.percentile`` of all values; integers by counting, which is several times faster."""
    if image.dtype.kind == "f":
        return [float(p) for p in np.percentile(image, wanted)]
    upto = np.cumsum(level_counts(image))
    out = []
    for percent in wanted:
        at = percent / 100 * (image.size - 1)
        below, above = np.searchsorted(upto, [math.floor(at), math.ceil(at)], side="right")
        out.append(float(below + (above - below) * (at - math.floor(at))))
    return out


def _per_channel(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray], per_channel: bool) -> np.ndarray:
    return each_channel(image, change) if per_channel else change(image)


@operation(row="I5", formula="g = value where low <= f <= high, else f (keep) or 0")
def slice_levels(image: np.ndarray, low: float, high: float, value: float = 1.0, keep: bool = True) -> np.ndarray:
    """Grey-level slicing: the levels low..high are set to one value, the rest stays intact or becomes black. Our own, by a table.

    Args:
        image: any; every channel by itself.
        low, high: the band of levels, both included, in 0..1.
        value: what they become, 0..1.
        keep: the other levels stay; else they become 0.

    >>> slice_levels(np.array([[0, 99, 100, 150, 151]], np.uint8), 100 / 255, 150 / 255).tolist()
    [[0, 99, 255, 255, 151]]
    """
    within(low, 0, 1, "low")
    within(high, low, 1, "high")
    within(value, 0, 1, "value")
    return by_level(image, lambda x: np.where((x >= low) & (x <= high), value, x if keep else 0.0))


@operation(row="I5", formula="g = c log(1 + f), f in 0..255")
def log_transform(image: np.ndarray, c: float | None = None) -> np.ndarray:
    """Logarithm: spreads the dark levels. A table (OpenCV's LUT); f and c count in 0..255 for every dtype.

    Args:
        image: any.
        c: above 0; None: 255 / log(256), which leaves black and white where they are.

    >>> log_transform(np.array([[0, 15, 255]], np.uint8)).tolist(), log_transform(np.array([[0, 15, 255]], np.uint8), 10.0).tolist()
    ([[0, 128, 255]], [[0, 28, 55]])
    """
    factor = 255 / math.log(256) if c is None else within(c, 0, 1e6, "c", open_low=True)
    return by_level(image, lambda x: np.log1p(x * 255) * (factor / 255))


@operation(row="I5", formula="g = c (f + eps)^gamma, f in 0..1")
def gamma(image: np.ndarray, gamma: float = 0.5, c: float = 1.0, eps: float = 0.0) -> np.ndarray:
    """Power law: gamma below 1 brightens, above 1 darkens. A table (OpenCV's LUT).

    Args:
        image: any.
        gamma: the exponent, above 0.
        c: factor, above 0.
        eps: added before, from 0: what black becomes.

    >>> gamma(np.array([[0, 64, 255]], np.uint8), 0.5).tolist(), gamma(np.array([[0, 64, 255]], np.uint8), 2.0).tolist()
    ([[0, 128, 255]], [[0, 16, 255]])
    """
    within(gamma, 0, 100, "gamma", open_low=True)
    within(c, 0, 1e6, "c", open_low=True)
    within(eps, 0, 1, "eps")
    return by_level(image, lambda x: c * np.power(x + eps, gamma))


def level_counts(image: np.ndarray, channel: int | None = None) -> np.ndarray:
    """int64 count of every level of an integer image (all channels together), or of one of its channels."""
    if image.dtype != np.uint8:
        values, levels = image if channel is None else image[..., channel], int(white(image)) + 1
        counts, rows = np.zeros(levels, np.int64), max(1, 2**20 // math.prod(values.shape[1:]))  # bincount makes 8 bytes of each value
        for top in range(0, len(values), rows):
            counts += np.bincount(values[top : top + rows].reshape(-1), minlength=levels)
        return counts
    import cv2

    depth, width = math.prod(image.shape[2:]), image.shape[1] if image.shape[1] < 2**20 else 1
    flat = image.reshape(-1, width * depth) if channel is None else image.reshape(-1, width, depth)
    counts = np.zeros(256, np.int64)
    for rows in strips(len(flat), max(1, 2**24 // flat.shape[1])):  # calcHist counts in float32
        counts += cv2.calcHist([flat[rows]], [channel or 0], None, [256], [0, 256]).reshape(-1).astype(np.int64)
    return counts


@operation(row="I5", formula="h(k) = number of pixels in bin k", gives="value")
def histogram(image: np.ndarray, bins: int = 256) -> np.ndarray:
    """Counts of the values in equal bins over the whole range: (bins,) int64 of a grey image, (3, bins) of RGB.

    OpenCV's calcHist for uint8, NumPy's bincount for uint16 and histogram for floats.

    >>> histogram(np.array([[0, 1, 64, 255]], np.uint8), 4).tolist()
    [2, 1, 0, 1]
    """
    if not 1 <= bins <= 65536:
        raise UsageError(f"bins is a whole number in 1..65536, not {bins}")
    if image.ndim == 3:
        return np.stack([_binned(image, bins, channel) for channel in range(image.shape[2])])
    return _binned(image, bins, None)


def _binned(image: np.ndarray, bins: int, channel: int | None) -> np.ndarray:
    if image.dtype.kind == "f":
        return np.histogram(image if channel is None else image[..., channel], bins, (0, 1))[0].astype(np.int64)
    counts = level_counts(image, channel)
    if bins == len(counts):
        return counts
    out = np.zeros(bins, np.int64)
    np.add.at(out, np.arange(len(counts)) * bins // len(counts), counts)
    return out


def _on_luma(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Change the luma of a colour image and keep its colour differences: R' = R + (Y' - Y), the same for G and B."""
    if image.ndim == 2:
        return change(image)
    grey = luma(image)
    wanted, out = change(grey), np.empty_like(image)
    signed = np.int32 if image.dtype.kind == "u" else image.dtype
    rows = max(1, 2**18 // image.shape[1])  # strips fit the cache, and bound the memory
    for top in range(0, image.shape[0], rows):
        strip = slice(top, top + rows)
        out[strip] = in_range(image[strip] + np.subtract(wanted[strip], grey[strip], dtype=signed)[..., None], image.dtype)
    return out


@operation(row="I5", formula="g = (cdf(f) - cdf_min) / (N - cdf_min) * (L-1)")
def equalize(image: np.ndarray) -> np.ndarray:
    """Histogram equalisation; of a colour image that of its luma. OpenCV for uint8, else the same formula by a table.

    An image of one value stays as it is. Floats are counted in 65536 bins.

    >>> equalize(np.array([[52, 55, 61, 59]], np.uint8)).tolist()
    [[0, 85, 255, 170]]
    """

    def change(grey: np.ndarray) -> np.ndarray:
        if grey.dtype == np.uint8:
            import cv2

            return cv2.equalizeHist(grey)
        levels = grey if grey.dtype == np.uint16 else from_float(grey, np.uint16)
        upto = np.cumsum(level_counts(levels))
        first = int(upto[int(levels.min())])
        if first == grey.size:
            return grey
        table = from_float(np.maximum(upto - first, 0) / (grey.size - first), grey.dtype)
        return look_up(levels, table)

    return _on_luma(image, change)


@operation(row="I5", formula="equalisation in tiles, histograms clipped, bilinear between tiles (Zuiderveld 1994)")
def clahe(image: np.ndarray, clip: float = 2.0, tiles: tuple[int, int] = (8, 8)) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994); of a colour image that of its luma.

    OpenCV for 8 bits. It counts 16 bits in 65536 levels, of which a tile has too few pixels to clip anything: those and floats are ours,
    by the same rule with 256 levels and straight lines between them, so that ``clip`` means the same for every dtype.

    Args:
        image: any.
        clip: a histogram bin holds at most this many times the mean of a tile's bins, above 0; what is cut off is spread evenly.
        tiles: (rows, columns) of tiles.
    """
    within(clip, 0, math.inf, "clip", open_low=True)
    height, width = image.shape[:2]
    if not (min(tiles) >= 1):
        raise UsageError(f"tiles is rows,columns from 1, not {tiles[0]},{tiles[1]}")
    grid = (min(tiles[0], height), min(tiles[1], width))  # a tile has a pixel at least
    limit = min(clip, 256.0)  # so many times the mean are all pixels of a tile; more overflows in OpenCV

    def change(grey: np.ndarray) -> np.ndarray:
        if grey.dtype == np.uint8:
            import cv2

            return np.asarray(cv2.createCLAHE(clipLimit=limit, tileGridSize=grid[::-1]).apply(grey))
        return _clahe(grey, limit, grid)

    return _on_luma(image, change)


def _clahe(grey: np.ndarray, limit: float, grid: tuple[int, int]) -> np.ndarray:
    """OpenCV's CLAHE of 8 bits without its roundings, for (H, W) uint16 or floats."""
    (height, width), scale = grey.shape, 255 / white(grey)
    # As OpenCV: where a side is no multiple of the tiles, both are made longer.
    more = (
        (0, 0) if height % grid[0] == 0 and width % grid[1] == 0 else tuple(n - side % n for n, side in zip(grid, grey.shape, strict=True))
    )
    wide = pad(grey, (0, more[0]), (0, more[1]), "reflect")
    rows, columns = wide.shape[0] // grid[0], wide.shape[1] // grid[1]
    area = rows * columns
    tables = np.empty((*grid, 257))  # the 257th, of white and no more, is the 256th
    for y, x in np.ndindex(grid):
        tile = wide[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns]
        counts = np.bincount(np.rint(tile * scale).astype(np.intp).ravel(), minlength=256)
        most = max(int(limit * area / 256), 1)
        spare = int(np.maximum(counts - most, 0).sum())
        counts = np.minimum(counts, most) + spare // 256
        rest = spare % 256
        counts[: rest * (step := max(256 // max(rest, 1), 1)) : step] += 1
        tables[y, x, :256] = np.cumsum(counts) * (255 / area)
    tables[..., 256] = tables[..., 255]
    flat = tables.reshape(-1)

    def neighbours(side: int, size: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(index, weight) of the tile before and after each row or column."""
        at = np.arange(side) / size - 0.5
        first = np.floor(at)
        share = at - first
        return [(np.maximum(first, 0).astype(np.intp), 1 - share), (np.minimum(first + 1, count - 1).astype(np.intp), share)]

    down, right = neighbours(height, rows, grid[0]), neighbours(width, columns, grid[1])
    out = np.empty_like(grey)

    def run(strip: slice) -> None:
        level = grey[strip] * scale
        low = level.astype(np.intp)
        level -= low
        total = np.zeros(low.shape)
        for y, above in down:
            for x, left in right:
                place = (y[strip, None] * grid[1] + x) * 257 + low
                begun = flat[place]
                total += above[strip, None] * left * (begun + (flat[place + 1] - begun) * level)
        out[strip] = in_range(total / scale, grey.dtype)

    in_threads(run, strips(height, max(1, 2**17 // width)))
    return out
