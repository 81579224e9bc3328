"""SIFT: extrema of differences of Gaussians with an orientation and 128 gradient histogram values. OpenCV computes them.

Paper: Lowe: Distinctive Image Features from Scale-Invariant Keypoints (IJCV 2004). Scale space of s layers an octave, each doubling;
an extremum among 26 neighbours is refined to a fraction of a pixel, weak ones and edges (ratio of principal curvatures) dropped;
16 x 16 samples in the point's own frame give 4 x 4 histograms of 8 orientations. Root: Arandjelovic, Zisserman: Three things
everyone should know to improve object retrieval (CVPR 2012): Euclidean distance of the roots is Hellinger's of the histograms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.features.keypoints import Keypoints, from_opencv
from saccade.features.names import check_range, check_whole
from saccade.features.pixels import as_pixels, grey


def sift(
    image: Any,
    *,
    layers: int = 3,
    contrast: float = 0.04,
    edge: float = 10.0,
    sigma: float = 1.6,
    root: bool = False,
    limit: int | None = None,
) -> Keypoints:
    """SIFT key points; a place with two dominant directions gives two.

    Args:
        image: as :func:`saccade.features.keypoints.detect` takes it.
        layers: s, of an octave.
        contrast: least contrast; OpenCV divides it by ``layers``, so that 0.09 is the paper's 0.03.
        edge: greatest ratio r of the principal curvatures.
        sigma: of the first layer, in pixels of the doubled image.
        root: descriptors as roots of their L1-normalised values.
        limit: keep the strongest.

    Returns:
        Descriptors (N, 128) float32.
    """
    import cv2

    check_whole(1, 16, layers=layers)
    check_range(0, 1, contrast=contrast)
    check_range(1, 1e6, edge=edge)
    check_range(0.1, 16, sigma=sigma)
    pixels = grey(as_pixels(image))
    # Without the precise doubling all points lie a quarter of a pixel off.
    points, values = cv2.SIFT.create(0, layers, contrast, edge, sigma, True).detectAndCompute(pixels, None)
    found = from_opencv(points, values, "sift", (pixels.shape[0], pixels.shape[1]), 128)
    if root:
        total = found.descriptors.sum(1, keepdims=True)
        np.sqrt(found.descriptors / np.maximum(total, np.float32(1e-12)), out=found.descriptors)
    return found.strongest(limit)
