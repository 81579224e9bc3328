"""Panoramas: views of a plane, or of anything from one spot, joined by homographies and blended.

Paper: Brown, Lowe: Automatic Panoramic Image Stitching using Invariant Features (IJCV 2007): all pairs are matched, a pair counts when
more than ``8 + 0.3 n`` of n matches fit (section 3.2), and the views hang together by the pairs with the most inliers. Homographies are
chained along that tree, without bundle adjustment; views are blended by weights that fall to 0 at their borders (feathering), without
matching of their exposures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.features.keypoints import detect
from saccade.features.match import SHIFT, Matches, corners, match, project
from saccade.features.names import check_whole
from saccade.features.pixels import as_images, as_pixels, in_threads, rgb
from saccade.types.errors import DataError, UsageError

MOST_PIXELS = 100_000_000
"""Of a panorama: beyond it, two views are all but perpendicular."""


@dataclass(frozen=True, eq=False)
class Panorama:
    """Several views as one picture.

    Attributes:
        image: (H, W, 3) uint8, black where no view is.
        covered: (H, W) bool, where one is.
        homographies: (3, 3) float64 of each view, from its pixels to the panorama's.
        pairs: the matches of the pairs (i, j), i < j, that hold the views together.
        reference: number of the view that is only moved, not warped.
    """

    image: np.ndarray
    covered: np.ndarray
    homographies: list[np.ndarray]
    pairs: dict[tuple[int, int], Matches]
    reference: int


def make_panorama(
    images: Sequence[Any],
    *,
    kind: str = "sift",
    reference: int | None = None,
    names: Sequence[str] | None = None,
    ratio: float = 0.8,
    threshold: float = 3.0,
    seed: int = 0,
) -> Panorama:
    """Join two or more views, in any order.

    Args:
        images: as :func:`saccade.features.keypoints.detect` takes them; grey ones become grey RGB.
        kind: of the key points, with options: ``"orb?limit=2000"``.
        reference: number of the view whose plane the panorama lies in; None takes the one in the middle of the tree.
        names: of the views, for messages: as many as there are views.
        ratio, threshold, seed: as in :func:`saccade.features.match.match`.

    Raises:
        UsageError: no list of two views or more, or an option that cannot be.
        DataError: a view without a part in common with the others, or views that do not fit on a plane.
    """
    images = as_images(images, empty=True)
    count = len(images)
    shown = [str(name) for name in names] if names is not None else [f"view {i + 1}" for i in range(count)]
    if count < 2:
        raise UsageError(f"a panorama needs two views or more, not {count}")
    if len(shown) != count:
        raise UsageError(f"{len(shown)} names of {count} views: one for each")
    if reference is not None:
        check_whole(0, count - 1, reference=reference)
    views = [rgb(as_pixels(image)) for image in images]
    points = in_threads(lambda view: detect(view, kind), views)
    found = {(i, j): match(points[i], points[j], ratio=ratio, threshold=threshold, seed=seed) for j in range(count) for i in range(j)}
    tree = _tree(found, count, shown)
    root = _middle(tree, count) if reference is None else reference
    moves = _chained(found, tree, root, count)
    low, high = _bounds(moves, views, shown)
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1.0]])
    homographies = [shift @ move for move in moves]
    image, covered = blend(views, homographies, (int(high[1] - low[1]), int(high[0] - low[0])))
    return Panorama(image, covered, homographies, {edge: found[edge] for edge in tree}, root)


def blend(views: Sequence[np.ndarray], homographies: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The views (h, w, 3) uint8 on a canvas of (H, W), each pixel the mean of its views, weighted by how far it lies from their borders.

    A view's weight falls in both directions from 1 in its middle towards 0 at the border. Pixels are read bilinearly.

    Returns:
        (H, W, 3) uint8 and the covered pixels (H, W) bool.
    """
    import cv2

    total, weights = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    for view, homography in zip(views, homographies, strict=True):
        height, width = view.shape[:2]
        edges = project(homography, corners((height, width)))
        left, top = np.clip(np.floor(edges.min(0)).astype(int), 0, size[::-1])
        right, bottom = np.clip(np.ceil(edges.max(0)).astype(int), 0, size[::-1])
        if right <= left or bottom <= top:
            continue
        move = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]]) @ homography
        move = np.linalg.inv(SHIFT) @ move @ SHIFT
        box = (int(right - left), int(bottom - top))
        down, across = (1 - np.abs(2 * (np.arange(side) + 0.5) / side - 1) for side in (height, width))
        weight = (down[:, None] * across).astype(np.float32)
        warped = cv2.warpPerspective(view, move, box, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        spread = cv2.warpPerspective(weight, move, box, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        total[top:bottom, left:right] += warped * spread[..., None]
        weights[top:bottom, left:right] += spread
    covered = weights > 0
    mean = total / np.where(covered, weights, 1)[..., None]
    return np.rint(mean).clip(0, 255).astype(np.uint8), covered


def _tree(found: dict[tuple[int, int], Matches], count: int, names: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs with the most inliers that hold all views together (Kruskal's greatest spanning tree)."""
    group, tree = list(range(count)), []
    good = [edge for edge in found if found[edge].verified]
    for i, j in sorted(good, key=lambda edge: (-int(found[edge].inliers.sum()), edge)):
        if group[i] != group[j]:
            tree.append((i, j))
            group = [group[i] if g == group[j] else g for g in group]
    if len(tree) < count - 1:
        largest = max(set(group), key=lambda g: (group.count(g), -g))
        lone = next(i for i in range(count) if group[i] != largest)
        best = max((edge for edge in found if lone in edge), key=lambda edge: int(found[edge].inliers.sum()))
        other = best[0] if best[1] == lone else best[1]
        raise DataError(names[lone], "has no part in common with the other views", hint=f"best {names[other]}: {found[best].summary()}")
    return tree


def _walk(tree: Sequence[tuple[int, int]], root: int) -> list[tuple[int, int]]:
    """(view, the neighbour nearer to the root), from the root outward."""
    order, seen = [(root, root)], {root}
    for view, _ in order:
        for edge in tree:
            if view in edge:
                other = edge[0] if edge[1] == view else edge[1]
                if other not in seen:
                    seen.add(other)
                    order.append((other, view))
    return order


def _middle(tree: Sequence[tuple[int, int]], count: int) -> int:
    """The view from which the steps to all others are fewest in sum; of equals the first."""

    def steps(root: int) -> int:
        depth = {root: 0}
        for view, parent in _walk(tree, root)[1:]:
            depth[view] = depth[parent] + 1
        return sum(depth.values())

    return min(range(count), key=steps)


def _chained(found: dict[tuple[int, int], Matches], tree: Sequence[tuple[int, int]], root: int, count: int) -> list[np.ndarray]:
    """(3, 3) of each view to the root."""
    moves = [np.eye(3)] * count
    for view, parent in _walk(tree, root)[1:]:
        forward = found[min(view, parent), max(view, parent)].homography
        assert forward is not None
        step = forward if view < parent else np.linalg.inv(forward)
        move = moves[parent] @ step
        moves[view] = move / move[2, 2] if abs(move[2, 2]) > 1e-12 else move
    return moves


def _bounds(moves: Sequence[np.ndarray], views: Sequence[np.ndarray], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest x and y of all views, to the nearest whole numbers: a sliver of half a pixel is left out."""
    low, high = np.zeros(2), np.zeros(2)
    for move, view, name in zip(moves, views, names, strict=True):
        edges = project(move, corners((view.shape[0], view.shape[1])))
        if not np.isfinite(edges).all():
            raise DataError(name, "reaches behind the horizon of the reference view", hint="take another reference, or fewer views")
        low, high = np.minimum(low, np.rint(edges.min(0))), np.maximum(high, np.rint(edges.max(0)))
        width, height = high - low
        if width * height > MOST_PIXELS:
            problem = f"would make the panorama {width:.0f}x{height:.0f} pixels"
            raise DataError(name, problem, hint="take another reference, or fewer views")
    return low, high
