"""How well key points and matches of two images agree with the true homography between them.

Papers: Schmid, Mohr, Bauckhage: Evaluation of Interest Point Detectors (IJCV 2000): repeatability is the share of points that are found
again at their place. Mikolajczyk et al.: A Comparison of Affine Region Detectors (IJCV 2005): regions are found again when they overlap
by 60 % or more, once the first has been brought to a radius of 30 pixels, and one region has one partner.

More points are found again by chance: compare detectors at the same number (:meth:`saccade.features.keypoints.Keypoints.strongest`).
"""

from __future__ import annotations

import numpy as np

from saccade.features.keypoints import Keypoints
from saccade.features.match import Matches, corners, project

RADIUS = 30.0
"""Pixels to which a region is brought before overlaps are measured."""


def repeatability(a: Keypoints, b: Keypoints, truth: np.ndarray, *, tolerance: float = 3.0) -> float:
    """Share of the places that both images have: points within ``tolerance`` pixels of each other in ``b``, and nearest to each other.

    Only points that the other image shows count, each place once; the share is of the smaller number of the two.

    Args:
        truth: (3, 3) homography from a to b.

    Returns:
        0..1; NaN when an image has no such points.
    """
    from scipy.spatial import KDTree

    a, b = _shared(a, b, truth)
    moved, there = project(truth, a.points), b.points.astype(np.float64)
    if not len(moved) or not len(there):
        return float("nan")
    distance, partner = KDTree(there).query(moved)
    back = KDTree(moved).query(there)[1]
    paired = (distance <= tolerance) & (back[partner] == np.arange(len(moved)))
    return float(paired.sum() / min(len(moved), len(there)))


def region_repeatability(a: Keypoints, b: Keypoints, truth: np.ndarray, *, overlap: float = 0.6) -> float:
    """Share of the regions that both images have: circles of ``a``, ellipses under the homography, that overlap those of ``b``.

    Both regions of a pair are enlarged by what brings the first one's area to that of a circle of :data:`RADIUS`; their distance stays as
    it is in pixels of ``b``. So points count that lie near each other and agree in scale, whatever part of it a kind calls its size.
    Of all ways to pair regions one to one, the greatest counts.

    Args:
        truth: (3, 3) homography from a to b.
        overlap: least intersection over union.

    Returns:
        0..1; NaN when an image has no points that the other shows.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import KDTree

    a, b = _shared(a, b, truth)
    if not len(a) or not len(b):
        return float("nan")
    moved, there = project(truth, a.points), b.points.astype(np.float64)
    near = KDTree(moved).sparse_distance_matrix(KDTree(there), 2 * RADIUS, output_type="ndarray")
    i, j = near["i"], near["j"]
    inverse = np.linalg.inv(_affine(truth, a.points.astype(np.float64)))
    spread = 1 / np.sqrt(np.abs(np.linalg.det(inverse)))  # how much longer a side is in b
    relative = b.sizes[j] / (a.sizes[i] * spread[i])
    # The overlap is at most the ratio of the areas.
    alike = np.minimum(relative, 1 / relative) ** 2 >= overlap
    i, j, relative = i[alike], j[alike], relative[alike]
    shape = inverse[i] * spread[i, None, None]  # takes the ellipse to the unit circle, both of equal area
    good = _overlaps(shape, there[j] - moved[i], RADIUS * relative) >= overlap
    pairs = csr_array((np.ones(int(good.sum())), (i[good], j[good])), shape=(len(a), len(b)))
    found = maximum_bipartite_matching(pairs, perm_type="column")
    return float((found >= 0).sum() / min(len(a), len(b)))


def correct(matches: Matches, truth: np.ndarray, *, tolerance: float = 3.0) -> np.ndarray:
    """(M,) bool: the pairs that the true homography from a to b agrees with, within ``tolerance`` pixels of b."""
    places_a, places_b = matches.points
    return np.asarray(np.linalg.norm(project(truth, places_a) - places_b, axis=1) <= tolerance)


def corner_error(found: np.ndarray | None, truth: np.ndarray, size: tuple[int, int]) -> float:
    """Mean distance in pixels between where two homographies put the corners of an image (H, W); infinite for None."""
    if found is None:
        return float("inf")
    return float(np.linalg.norm(project(found, corners(size)) - project(truth, corners(size)), axis=1).mean())


def _shared(a: Keypoints, b: Keypoints, truth: np.ndarray) -> tuple[Keypoints, Keypoints]:
    """The points that the other image shows; those of one place and size (to a tenth of a pixel) once, as angles differ."""
    out = []
    for points, homography, size in ((a, truth, b.image_size), (b, np.linalg.inv(truth), a.image_size)):
        rows = np.rint(np.column_stack([points.points, points.sizes]) * 10).astype(np.int64)
        once = points.take(np.sort(np.unique(rows, axis=0, return_index=True)[1]))
        moved = project(homography, once.points)
        out.append(once.take(np.all((moved >= 0) & (moved < np.array(size[::-1])), axis=1)))
    return out[0], out[1]


def _affine(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2, 2) derivatives of a homography at points (N, 2)."""
    there = project(homography, points)
    w = points @ homography[2, :2] + homography[2, 2]
    return (homography[:2, :2] - there[:, :, None] * homography[2, :2]) / w[:, None, None]


def _overlaps(shapes: np.ndarray, shifts: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Intersection over union of ellipses ``|S x| <= RADIUS``, det S = 1, and circles ``|x - shift| <= radius``, by 600 samples."""
    number = np.arange(600)
    turn, reach = number * np.pi * (3 - np.sqrt(5)), np.sqrt((number + 0.5) / len(number))  # a sunflower: equal areas
    disc = np.stack([reach * np.cos(turn), reach * np.sin(turn)], 1)
    out = np.empty(len(shapes))
    for start in range(0, len(shapes), 1024):
        part = slice(start, start + 1024)
        places = shifts[part, None] + radii[part, None, None] * disc
        inside = ((places @ shapes[part].transpose(0, 2, 1)) ** 2).sum(-1) <= RADIUS**2
        common = inside.mean(1) * radii[part] ** 2
        out[part] = common / (RADIUS**2 + radii[part] ** 2 - common)
    return out
