"""ORB: FAST corners over a scale pyramid, turned by their intensity centroid, described by steered BRIEF. OpenCV computes them.

Paper: Rublee et al.: ORB: an efficient alternative to SIFT or SURF (ICCV 2011).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from saccade.features.keypoints import Keypoints, from_opencv, no_keypoints
from saccade.features.names import check_choice, check_range, check_whole
from saccade.features.pixels import as_pixels, grey

Rank = Literal["harris", "fast"]


def orb(
    image: Any,
    *,
    limit: int = 500,
    scale: float = 1.2,
    levels: int = 8,
    patch: int = 31,
    threshold: int = 20,
    rank: Rank = "harris",
) -> Keypoints:
    """ORB key points.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        limit: at most so many, shared out over the levels by their area.
        scale: between neighbouring levels.
        levels: of the pyramid.
        patch: side of the described square in pixels of its level; nothing is found nearer to the border.
        threshold: of FAST, in grey levels.
        rank: which corners are the strongest.

    Returns:
        Descriptors (N, 32) uint8: 256 bits.
    """
    import cv2

    check_whole(1, 1_000_000, limit=limit)
    check_range(1.01, 4, scale=scale)
    check_whole(1, 32, levels=levels)
    check_whole(5, 255, patch=patch)
    check_whole(0, 255, threshold=threshold)
    check_choice(Rank, rank=rank)
    pixels = grey(as_pixels(image))
    size = (pixels.shape[0], pixels.shape[1])
    if min(size) <= 2 * patch:  # no pixel is far enough from the border, and OpenCV fails on levels of no pixels
        return no_keypoints("orb", size, 32, binary=True)
    levels = min(levels, 1 + int(math.log(min(size) / 2) / math.log(scale)))
    score = cv2.ORB_HARRIS_SCORE if rank == "harris" else cv2.ORB_FAST_SCORE
    detector = cv2.ORB.create(limit, scale, levels, patch, 0, 2, score, patch, threshold)
    points, values = detector.detectAndCompute(pixels, None)
    return from_opencv(points, values, "orb", size, 32, binary=True).strongest(limit)
