"""FAST corners. OpenCV computes them.

Paper: Rosten, Drummond: Machine Learning for High-Speed Corner Detection (ECCV 2006). A pixel is a corner when ``arc`` neighbouring pixels
of a circle around it (9 of the 16 at radius 3) are all brighter than it by the threshold, or all darker.
"""

from __future__ import annotations

from typing import Any, Literal

from saccade.features.keypoints import Keypoints, from_opencv
from saccade.features.names import check_choice, check_whole
from saccade.features.pixels import as_pixels, grey

Circle = Literal["9_16", "7_12", "5_8"]


def fast(
    image: Any,
    *,
    threshold: int = 20,
    suppress: bool = True,
    circle: Circle = "9_16",
    limit: int | None = None,
) -> Keypoints:
    """FAST corners at whole pixels, without angle and descriptor.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        threshold: in grey levels.
        suppress: of touching corners only the strongest stays; the response is the greatest threshold that finds it.
        circle: the arc and the number of pixels of the circle.
        limit: keep the strongest.
    """
    import cv2

    check_whole(0, 255, threshold=threshold)
    check_choice(Circle, circle=circle)
    pixels = grey(as_pixels(image))
    form = {
        "9_16": cv2.FAST_FEATURE_DETECTOR_TYPE_9_16,
        "7_12": cv2.FAST_FEATURE_DETECTOR_TYPE_7_12,
        "5_8": cv2.FAST_FEATURE_DETECTOR_TYPE_5_8,
    }[circle]
    points = cv2.FastFeatureDetector.create(threshold, suppress, form).detect(pixels, None)
    return from_opencv(points, None, "fast", (pixels.shape[0], pixels.shape[1]), 0).strongest(limit)
