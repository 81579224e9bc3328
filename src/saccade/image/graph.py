"""Graph segmentation (canon D7): neighbouring pixels grow together to segments while their borders are weak.

Paper: Felzenszwalb, Huttenlocher: Efficient Graph-Based Image Segmentation (IJCV 2004). Pixels are the vertices of a graph, joined to
their eight neighbours by edges whose weight is the difference of their (smoothed) colours. With

* ``Int(C)``: the greatest weight in the minimum spanning tree of a segment C, 0 of a single pixel (equation 1),
* ``Dif(A, B)``: the least weight of an edge between two segments (equation 2),
* ``MInt(A, B) = min(Int(A) + tau(A), Int(B) + tau(B))`` with ``tau(C) = k / |C|`` (equations 4 and 5),

there is a border between A and B where ``Dif(A, B) > MInt(A, B)`` (equation 3). Edges are taken from the lightest to the heaviest, as in
Kruskal's algorithm, and one that joins two segments without a border merges them: no segmentation found so is too fine or too coarse.
"""

from __future__ import annotations

import math

import numpy as np

from saccade.image.base import in_range, operation, within
from saccade.types.errors import UsageError

_FORMULA = "A and B merge where Dif(A, B) < min(Int(A) + k / |A|, Int(B) + k / |B|), lightest edges first"


@operation(row="D7", formula=_FORMULA, gives="value")
def graph_segments(image: np.ndarray, k: float = 300.0, sigma: float = 0.8, min_size: int = 20) -> np.ndarray:
    """Felzenszwalb and Huttenlocher's segments: (H, W) int64 labels 0, 1, ... scikit-image's.

    Colours differ by their Euclidean distance in RGB, in one graph (the paper segments each channel and intersects); a tie, Dif = MInt,
    is a border.

    Args:
        image: any image; alpha is left out.
        k: how weak a border may be around small segments, on the scale of 0..255 whatever the dtype; more gives fewer segments.
        sigma: of the Gaussian that smooths first, in pixels; 0 for none. Outside lies the mirrored image ("symmetric").
        min_size: smaller segments are then joined to the neighbour at the lightest edge, in pixels.

    >>> from saccade import image
    >>> image.graph_segments(np.array([[10, 12, 90, 91]], np.uint8), k=5, sigma=0, min_size=1).tolist()
    [[0, 0, 1, 1]]
    """
    return _segments(image, k, sigma, min_size)


@operation(row="D7", formula=f"g = mean of f over the segment; {_FORMULA}")
def graph_regions(image: np.ndarray, k: float = 300.0, sigma: float = 0.8, min_size: int = 20) -> np.ndarray:
    """The segments of :func:`graph_segments` to look at: each in the mean colour of its pixels. scikit-image's and NumPy's.

    Args:
        image: any image.
        k, sigma, min_size: as in :func:`graph_segments`.
    """
    labels = _segments(image, k, sigma, min_size).ravel()
    size = np.bincount(labels)
    planes = image.reshape(labels.size, -1).T
    means = np.stack([np.bincount(labels, plane) / size for plane in planes], axis=1)
    return in_range(means, image.dtype)[labels].reshape(image.shape)


def _segments(image: np.ndarray, k: float, sigma: float, min_size: int) -> np.ndarray:
    from skimage.segmentation import felzenszwalb

    within(k, 0, math.inf, "k")
    within(sigma, 0, 1000, "sigma")
    if min_size < 1:
        raise UsageError(f"min_size is at least 1 pixel, not {min_size}")
    found = felzenszwalb(image, scale=k, sigma=sigma, min_size=min_size, channel_axis=-1 if image.ndim == 3 else None)
    return np.asarray(found, np.int64)
