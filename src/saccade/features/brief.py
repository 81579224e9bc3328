"""BRIEF: 256 bits, each the comparison of two smoothed pixels of a 48 x 48 patch. OpenCV computes them.

Paper: Calonder et al.: BRIEF: Binary Robust Independent Elementary Features (ECCV 2010). It knows neither rotation nor scale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from saccade.features.keypoints import Keypoints, detect, no_keypoints, to_opencv
from saccade.features.names import split_kind
from saccade.features.pixels import as_pixels, grey
from saccade.types.errors import UsageError


def brief(image: Any, *, detector: str = "fast", limit: int | None = None) -> Keypoints:
    """BRIEF descriptors at the corners of another detector; those within 28 pixels of the border have none and are left out.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        detector: any kind, with options after it: ``"harris"``, ``"fast?threshold=40"``.
        limit: keep the strongest.

    Returns:
        Descriptors (N, 32) uint8; the angles, if the detector gave any, are not used.
    """
    pixels = as_pixels(image)
    if split_kind(detector)[0] == "brief":
        raise UsageError("the features' option detector='brief': BRIEF describes what another detector finds, such as fast")
    return describe_brief(pixels, detect(pixels, detector)).strongest(limit)


def describe_brief(image: Any, keypoints: Keypoints) -> Keypoints:
    """The key points that are far enough from the border, with BRIEF descriptors in place of their own."""
    import cv2

    pixels = grey(as_pixels(image))
    points, values = cv2.xfeatures2d.BriefDescriptorExtractor.create(32).compute(pixels, to_opencv(keypoints))
    if not points:
        return no_keypoints("brief", keypoints.image_size, 32, binary=True)
    kept = keypoints.take(np.array([point.class_id for point in points]))
    return replace(kept, descriptors=values, kind="brief")
