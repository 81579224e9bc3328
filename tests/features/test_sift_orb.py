"""SIFT, FAST, BRIEF and ORB against OpenCV's own calls, scikit-image and plain loops."""

import cv2
import numpy as np
import pytest
from skimage.feature import SIFT

from saccade.features.brief import describe_brief
from saccade.features.keypoints import detect, to_opencv
from saccade.features.repeatability import repeatability


def texture(height=120, width=150, cell=8, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // cell), -(-width // cell)), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def blobs(height=120, width=150, count=40, seed=0):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = np.full((height, width), 110.0)
    for _ in range(count):
        u, v, s, a = random.uniform(0, width), random.uniform(0, height), random.uniform(2, 6), random.uniform(-90, 90)
        out += a * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * s**2))
    return out.clip(0, 255).astype(np.uint8)


def test_F3_sift_is_opencvs_with_centres_at_halves():
    image = texture()
    found = detect(image, "sift", layers=4, contrast=0.03, edge=12, sigma=1.5)
    points, values = cv2.SIFT.create(0, 4, 0.03, 12, 1.5, True).detectAndCompute(image, None)
    order = np.argsort([-p.response for p in points], kind="stable")
    np.testing.assert_allclose(found.points, np.array([p.pt for p in points])[order] + 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.angles, np.array([p.angle for p in points])[order] % 360, rtol=1e-6)
    np.testing.assert_array_equal(found.descriptors, values[order])
    assert len(found) > 50


def test_F3_sift_agrees_with_scikit_image():
    image = blobs()
    theirs = SIFT(upsampling=1)  # its doubling moves all points by a quarter of a pixel
    theirs.detect(image)
    places = theirs.positions[:, ::-1] + 0.5  # fractions of pixels, rows first
    ours = detect(image, "sift", limit=20)
    distance = np.linalg.norm(ours.points[:, None] - places, axis=-1)
    near = distance.min(1)
    assert (near < 1).mean() >= 0.9
    assert np.median(near) < 0.05
    # OpenCV's size is the diameter 2 sigma, with sigma relative to the image
    partner = distance.argmin(1)[near < 1]
    ratio = ours.sizes[near < 1] / 2 / theirs.sigmas[partner]
    assert np.median(ratio) == pytest.approx(1, abs=0.1)


def test_F3_a_dark_blob_is_found_at_its_centre_and_scale():
    y, x = np.mgrid[:80, :90] + 0.5
    image = (200 - 120 * np.exp(-((x - 40.25) ** 2 + (y - 37.75) ** 2) / (2 * 5**2))).round().astype(np.uint8)
    best = detect(image, "sift", limit=1)
    np.testing.assert_allclose(best.points[0], [40.25, 37.75], atol=0.1)
    # Differences of Gaussians s and 2^(1/3) s answer most when s is a little below the blob's sigma.
    assert 0.8 * 5 < best.sizes[0] / 2 < 1.1 * 5


def test_F3_root_sift_has_unit_length_and_hellingers_distance():
    plain, root = detect(texture(), "sift"), detect(texture(), "sift", root=True)
    np.testing.assert_allclose(np.linalg.norm(root.descriptors, axis=1), 1, rtol=1e-5)
    a, b = (d / d.sum() for d in plain.descriptors[:2].astype(np.float64))
    assert ((root.descriptors[0] - root.descriptors[1]) ** 2).sum() == pytest.approx(2 - 2 * np.sqrt(a * b).sum(), abs=1e-5)


@pytest.mark.parametrize(("angle", "scale"), [(30, 1.0), (90, 1.0), (0, 0.7), (45, 1.4)])
@pytest.mark.parametrize("kind", ["sift", "surf"])
def test_F3_points_repeat_under_rotation_and_scale(kind, angle, scale):
    image = blobs(200, 240, 120)
    move = np.vstack([cv2.getRotationMatrix2D((119.5, 99.5), angle, scale), [0, 0, 1]])
    move = np.array([[1, 0, 100], [0, 1, 100], [0, 0, 1]]) @ move  # into a larger picture
    other = cv2.warpPerspective(image, move, (440, 400), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=110)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    truth = half @ move @ np.linalg.inv(half)
    share = repeatability(detect(image, kind, limit=60), detect(other, kind), truth, tolerance=1.5)
    assert share > 0.6


def slow_fast(image, threshold):
    circle = [(0, -3), (1, -3), (2, -2), (3, -1), (3, 0), (3, 1), (2, 2), (1, 3)]
    circle += [(-x, -y) for x, y in circle]
    out = set()
    for y in range(3, image.shape[0] - 3):
        for x in range(3, image.shape[1] - 3):
            around = [int(image[y + dy, x + dx]) - int(image[y, x]) for dx, dy in circle]
            for signs in ([v > threshold for v in around], [v < -threshold for v in around]):
                twice = signs + signs
                if any(all(twice[k : k + 9]) for k in range(16)):
                    out.add((x + 0.5, y + 0.5))
    return out


@pytest.mark.parametrize("threshold", [10, 35])
def test_F5_fast_is_the_segment_test(threshold):
    image = texture(40, 44, cell=3)
    found = detect(image, "fast", threshold=threshold, suppress=False)
    assert {tuple(point) for point in found.points.tolist()} == slow_fast(image, threshold)
    assert len(found) > 20
    fewer = detect(image, "fast", threshold=threshold)
    assert 0 < len(fewer) < len(found)
    # the response is the greatest threshold that finds the corner
    best = fewer.points[0]
    level = int(fewer.responses[0])
    at = {t: tuple(best.tolist()) in slow_fast(image, t) for t in (level, level + 1)}
    assert at == {level: True, level + 1: False}


def test_F5_orb_is_opencvs():
    image = texture(200, 220)
    found = detect(image, "orb", limit=150, scale=1.3, levels=5, threshold=15)
    points, values = cv2.ORB.create(150, 1.3, 5, 31, 0, 2, cv2.ORB_HARRIS_SCORE, 31, 15).detectAndCompute(image, None)
    order = np.argsort([-p.response for p in points], kind="stable")[:150]
    np.testing.assert_allclose(found.points, np.array([p.pt for p in points])[order] + 0.5, rtol=1e-6)
    np.testing.assert_array_equal(found.descriptors, values[order])
    assert found.descriptors.shape[1] * 8 == 256
    assert len(detect(image, "orb", scale=4, levels=32)) > 0  # OpenCV fails where a level has no pixels


def test_F5_orb_turns_with_the_image_and_brief_does_not():
    image = texture(200, 200)
    turned = np.rot90(image).copy()
    bits = {}
    for kind in ("orb?levels=1&limit=100", "brief?detector=fast"):
        a, b = detect(image, kind), detect(turned, kind)
        expected = np.stack([a.points[:, 1], 200 - a.points[:, 0]], 1)
        distance = np.linalg.norm(expected[:, None] - b.points, axis=-1)
        same, partner = distance.min(1) < 0.1, distance.argmin(1)
        assert same.sum() > 20
        bits[a.kind] = np.bitwise_count(a.descriptors ^ b.descriptors[partner])[same].sum(1)
    assert np.median(bits["orb"]) < 30
    assert np.median(bits["brief"]) > 80


def test_F5_brief_has_256_bits_and_keeps_its_points():
    image = texture(160, 170)
    corners = detect(image, "harris")
    found = describe_brief(image, corners)
    assert found.descriptors.shape == (len(found), 32)
    inside = ((corners.points >= 28) & (corners.points < [170 - 28, 160 - 28])).all(1)
    np.testing.assert_array_equal(found.points, corners.points[inside])
    np.testing.assert_array_equal(found.responses, corners.responses[inside])
    one = cv2.xfeatures2d.BriefDescriptorExtractor.create(32).compute(image, to_opencv(found)[3:4])[1]
    np.testing.assert_array_equal(one[0], found.descriptors[3])
    brighter = describe_brief(np.clip(image.astype(int) // 2 + 90, 0, 255).astype(np.uint8), corners)
    assert np.bitwise_count(found.descriptors ^ brighter.descriptors).sum(1).mean() < 8  # only rounding
    assert len(describe_brief(image[:50, :50].copy(), detect(image[:50, :50].copy(), "harris"))) == 0
