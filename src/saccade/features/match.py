"""Matching of two images' key points: nearest descriptors, ratio test, mutual check, a homography by RANSAC, drawn matches.

Papers: Lowe (IJCV 2004), section 7.1: a match counts when the nearest descriptor is nearer than 0.8 times the second nearest. Fischler,
Bolles: Random Sample Consensus (CACM 1981). Brown, Lowe: Automatic Panoramic Image Stitching using Invariant Features (IJCV 2007),
section 3.2: two images show the same when more than ``8 + 0.3 n`` of n matches fit one homography.

Homographies are 3x3 float64 with ``[2, 2] = 1`` where that can be; ``H (x, y, 1)`` maps points of the first image to the second, in
pixels whose centres are at halves. OpenCV's, with centres at whole numbers, are ``S^-1 H S`` with S the shift by half a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.features.keypoints import DESCRIBED, Keypoints
from saccade.features.names import check_range, check_whole
from saccade.features.pixels import as_pixels, plain_array, rgb
from saccade.types.errors import UsageError
from saccade.types.files import atomic

SHIFT = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""From whole-numbered pixel centres to ours."""


@dataclass(frozen=True, eq=False)
class Matches:
    """M pairs of key points of two images, best first, and the homography that most of them fit.

    Attributes:
        a, b: all key points of both images.
        pairs: (M, 2) int64 number in a and in b.
        distances: (M,) float32 of the descriptors: Euclidean, or bits that differ.
        homography: (3, 3) float64 from a to b; None when no four pairs gave one.
        inliers: (M,) bool, the pairs that fit it; none without one.
    """

    a: Keypoints
    b: Keypoints
    pairs: np.ndarray
    distances: np.ndarray
    homography: np.ndarray | None
    inliers: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, 2) places in a, and in b."""
        return self.a.points[self.pairs[:, 0]], self.b.points[self.pairs[:, 1]]

    @property
    def verified(self) -> bool:
        """Whether both images show the same scene: more than ``8 + 0.3 M`` inliers."""
        return self.homography is not None and bool(self.inliers.sum() > 8 + 0.3 * len(self))

    def summary(self) -> str:
        """How many points, matches and inliers there are."""
        text = f"{len(self.a)} and {len(self.b)} {self.a.kind} points, {len(self)} matches"
        return text + (", no homography" if self.homography is None else f", {int(self.inliers.sum())} fit the homography")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.a.kind,
            "points": [len(self.a), len(self.b)],
            "matches": len(self),
            "inliers": int(self.inliers.sum()),
            "verified": self.verified,
            "homography": None if self.homography is None else self.homography.tolist(),
        }

    def save(self, path: str | Path) -> None:
        """Write ``.npz``: ``points_a``, ``points_b``, ``pairs``, ``distances``, ``inliers``, ``homography`` (NaN without one)."""
        target = Path(path)
        if target.suffix.lower() != ".npz":
            raise UsageError(f"matches are written as .npz, not {target.name!r}")
        points_a, points_b = self.points
        found = np.full((3, 3), np.nan) if self.homography is None else self.homography
        with atomic(target) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, points_a=points_a, points_b=points_b, pairs=self.pairs, distances=self.distances, inliers=self.inliers,
                homography=found,
            )  # fmt: skip


def match(
    a: Keypoints,
    b: Keypoints,
    *,
    ratio: float = 0.8,
    mutual: bool = True,
    farthest: float | None = None,
    threshold: float = 1.5,
    confidence: float = 0.999,
    iterations: int = 5000,
    seed: int = 0,
) -> Matches:
    """Match the descriptors, and fit a homography to the matches.

    Args:
        a, b: key points of one kind with descriptors.
        ratio, mutual, farthest: as in :func:`nearest_pairs`.
        threshold, confidence, iterations, seed: as in :func:`fit_homography`.

    Raises:
        UsageError: key points without descriptors, of two kinds, or an option that cannot be.
    """
    pairs, distances = nearest_pairs(a, b, ratio=ratio, mutual=mutual, farthest=farthest)
    found, inliers = fit_homography(
        a.points[pairs[:, 0]], b.points[pairs[:, 1]], threshold=threshold, confidence=confidence, iterations=iterations, seed=seed
    )
    return Matches(a, b, pairs, distances, found, inliers)


def nearest_pairs(
    a: Keypoints, b: Keypoints, *, ratio: float = 0.8, mutual: bool = True, farthest: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Brute force: for each point of ``a`` the point of ``b`` with the nearest descriptor, Euclidean or by differing bits.

    Args:
        a, b: key points of one kind.
        ratio: the distance is below ``ratio`` times that to the second nearest; 1 leaves the test out. A ``b`` of one point passes.
        mutual: the point of ``a`` is also the nearest one of its partner.
        farthest: greatest distance.

    Returns:
        (M, 2) int64 numbers in a and b, and (M,) float32 distances, nearest first.

    Raises:
        UsageError: key points without descriptors, of two kinds, or an option that cannot be.
    """
    import cv2

    check_range(1e-9, 1, ratio=ratio)
    if farthest is not None:
        check_range(0, math.inf, farthest=farthest)
    if a.binary != b.binary or a.descriptors.shape[1] != b.descriptors.shape[1] or a.kind != b.kind:
        raise UsageError(f"key points of two kinds cannot be matched: {a.kind} and {b.kind}")
    if not a.descriptors.shape[1]:
        raise UsageError(f"{a.kind} points have no descriptors to match; take one of {', '.join(DESCRIBED)}")
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    norm, form = (cv2.NORM_HAMMING, cv2.CV_32S) if a.binary else (cv2.NORM_L2, cv2.CV_32F)
    distances, nearest = cv2.batchDistance(a.descriptors, b.descriptors, form, normType=norm, K=min(2, len(b)))
    first = distances[:, 0].astype(np.float32)
    good = np.ones(len(a), bool)
    if ratio < 1 and len(b) > 1:
        good &= first < ratio * distances[:, 1]
    if farthest is not None:
        good &= first <= farthest
    if mutual:
        back = cv2.batchDistance(b.descriptors, a.descriptors, form, normType=norm, K=1)[1][:, 0]
        good &= back[nearest[:, 0]] == np.arange(len(a))
    chosen = np.flatnonzero(good)
    chosen = chosen[np.argsort(first[chosen], kind="stable")]
    return np.stack([chosen, nearest[chosen, 0]], 1).astype(np.int64), first[chosen]


def fit_homography(
    a: Any, b: Any, *, threshold: float = 1.5, confidence: float = 0.999, iterations: int = 5000, seed: int = 0
) -> tuple[np.ndarray | None, np.ndarray]:
    """The homography that most of the pairs fit, by OpenCV's RANSAC with local optimisation, from uniform samples.

    Args:
        a, b: (M, 2) places, arrays of finite numbers or what NumPy makes one of.
        threshold: greatest error of an inlier, in pixels of ``b``.
        confidence: that one sample was without outliers.
        iterations: samples at most.
        seed: of the samples: the same pairs and seed give the same result.

    Returns:
        (3, 3) float64, or None when there are fewer than four pairs or none fits four; and (M,) bool inliers.

    Raises:
        UsageError: the places are not two arrays of one such shape, or an option that cannot be.
    """
    import cv2

    check_range(1e-9, 1e9, threshold=threshold)
    check_range(1e-9, 1 - 1e-9, confidence=confidence)
    check_whole(1, 10_000_000, iterations=iterations)
    check_whole(0, None, seed=seed)
    a, b = _places(a), _places(b)
    if len(a) != len(b):
        raise UsageError(f"a homography is fitted to pairs: {len(a)} places in a, but {len(b)} in b")
    none = np.zeros(len(a), bool)
    if len(a) < 4:
        return None, none
    settings = cv2.UsacParams()
    settings.sampler, settings.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MSAC
    settings.loMethod, settings.loIterations, settings.loSampleSize = cv2.LOCAL_OPTIM_INNER_AND_ITER_LO, 10, 14
    settings.final_polisher, settings.final_polisher_iterations = cv2.LSQ_POLISHER, 3
    settings.threshold, settings.confidence, settings.maxIterations = threshold, confidence, iterations
    settings.randomGeneratorState, settings.isParallel = seed % 2**31, False
    try:
        found, _ = cv2.findHomography(a, b, settings)
    except cv2.error:  # all samples degenerate
        return None, none
    if found is None or not np.isfinite(found).all() or abs(np.linalg.det(found)) < 1e-12:
        return None, none
    error = np.linalg.norm(project(found, a) - b, axis=1)
    inliers = error <= threshold
    return (found, inliers) if inliers.sum() >= 4 else (None, none)


def _places(points: Any) -> np.ndarray:
    """(M, 2) float64."""
    accepted = "places are (M, 2) finite numbers"
    array = plain_array(points, accepted)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iuf":
        raise UsageError(f"{accepted}; not {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{accepted}; not NaN or infinite ones")
    return np.ascontiguousarray(array, np.float64)


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) float64 of points (N, 2) under a homography; infinite on or behind its horizon.

    >>> project(np.array([[2, 0, 1], [0, 2, 0], [0, 0, 1.0]]), np.array([[3, 4]]))
    array([[7., 8.]])
    """
    x = np.asarray(points, np.float64) @ homography[:, :2].T + homography[:, 2]
    w = x[:, 2:]
    return np.where(w > 1e-12, x[:, :2] / np.where(w > 1e-12, w, 1), np.inf)


def corners(size: tuple[int, int]) -> np.ndarray:
    """(4, 2) float64 corners of an image of (H, W), clockwise from the top left."""
    height, width = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def draw_matches(image_a: Any, image_b: Any, matches: Matches, *, most: int = 200) -> np.ndarray:
    """(max H, W + W, 3) uint8: both images side by side and a line for each pair, green for inliers, thin red for the others.

    Args:
        image_a, image_b: as :func:`saccade.features.keypoints.detect` takes them.
        most: so many of the inliers and of the others, the nearest ones, are drawn.

    Raises:
        UsageError: not such images.
    """
    import cv2

    check_whole(0, None, most=most)
    left, right = (rgb(as_pixels(image)) for image in (image_a, image_b))
    out = np.zeros((max(len(left), len(right)), left.shape[1] + right.shape[1], 3), np.uint8)
    out[: len(left), : left.shape[1]], out[: len(right), left.shape[1] :] = left, right
    starts, ends = matches.points
    ends = ends + np.array([left.shape[1], 0])
    for fits, shade in ((False, (230, 60, 60)), (True, (60, 220, 80))):
        chosen = np.flatnonzero(matches.inliers == fits)[:most]
        lines = [np.rint((places[chosen] - 0.5) * 16).astype(int).tolist() for places in (starts, ends)]
        for start, end in zip(*lines, strict=True):
            cv2.line(out, start, end, shade, 1, cv2.LINE_AA, 4)
            for place in (start, end):
                cv2.circle(out, place, 48, shade, 1, cv2.LINE_AA, 4)
    return out
