"""Matching against plain loops, homographies of known warps and of graf, scores against hand cases."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from saccade.features.keypoints import Keypoints, detect, no_keypoints
from saccade.features.match import SHIFT, Matches, corners, draw_matches, fit_homography, match, nearest_pairs, project
from saccade.features.repeatability import _overlaps, corner_error, correct, region_repeatability, repeatability
from saccade.types.errors import UsageError


def points(descriptors, kind="sift", places=None):
    count = len(descriptors)
    places = np.zeros((count, 2)) if places is None else places
    ones = np.ones(count, np.float32)
    return Keypoints(np.asarray(places, np.float32), ones, ones, ones, descriptors, kind, (100, 100))


def blobs(height=160, width=200, count=160, seed=0):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = np.full((height, width), 110.0)
    for _ in range(count):
        u, v, s, a = random.uniform(0, width), random.uniform(0, height), random.uniform(1.5, 6), random.uniform(-90, 90)
        out += a * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * s**2))
    return out.clip(0, 255).astype(np.uint8)


def slow_pairs(distance, ratio, mutual, farthest):
    out = []
    for i, row in enumerate(distance):
        order = np.argsort(row, kind="stable")
        first = row[order[0]]
        if len(row) > 1 and ratio < 1 and not first < ratio * row[order[1]]:
            continue
        if farthest is not None and first > farthest:
            continue
        if mutual and np.argmin(distance[:, order[0]]) != i:
            continue
        out.append((i, int(order[0])))
    return sorted(out)


@pytest.mark.parametrize(("ratio", "mutual", "farthest"), [(1, False, None), (0.95, False, None), (1, True, None), (0.97, True, 22.0)])
@pytest.mark.parametrize("binary", [False, True])
def test_F7_pairs_equal_plain_loops(binary, ratio, mutual, farthest):
    random = np.random.default_rng(5)
    a, b = (random.integers(0, 256, (count, 8)).astype(np.uint8 if binary else np.float32) for count in (40, 35))
    if binary:
        distance = np.array([[bin(int.from_bytes((x ^ y).tobytes(), "big")).count("1") for y in b] for x in a], float)
    else:
        distance = np.sqrt(((a[:, None].astype(float) - b) ** 2).sum(-1))
        farthest = farthest and 200.0
    pairs, found = nearest_pairs(points(a), points(b), ratio=ratio, mutual=mutual, farthest=farthest)
    assert sorted(map(tuple, pairs.tolist())) == slow_pairs(distance, ratio, mutual, farthest)
    assert 0 < len(pairs) <= 40
    np.testing.assert_allclose(found, distance[tuple(pairs.T)], rtol=1e-5)
    assert (np.diff(found) >= 0).all()
    assert pairs.dtype == np.int64
    assert found.dtype == np.float32


def test_F7_a_repeated_pattern_fails_the_ratio_test_and_one_candidate_passes():
    twin = np.array([[1, 0], [1, 0.01], [0, 9]], np.float32)
    pairs, _ = nearest_pairs(points(np.array([[1, 0.005], [0, 8]], np.float32)), points(twin))
    assert pairs.tolist() == [[1, 2]]
    pairs, _ = nearest_pairs(points(np.array([[1, 0]], np.float32)), points(twin[2:]))
    assert pairs.tolist() == [[0, 0]]


def test_F7_without_points_there_are_no_matches_and_the_summary_counts_them():
    some, none = detect(blobs(), "surf"), no_keypoints("surf", (50, 50), 64)
    for a, b, text in ((some, none, f"{len(some)} and 0 surf points"), (none, some, "0 and "), (none, none, "0 and 0")):
        found = match(a, b)
        assert len(found) == 0
        assert found.pairs.shape == (0, 2)
        assert found.homography is None
        assert not found.verified
        assert text in found.summary()
        assert "0 matches, no homography" in found.summary()
        assert draw_matches(blobs(), np.zeros((50, 50), np.uint8), found).shape == (160, 250, 3)


def test_F7_wrong_use_is_said():
    image = blobs(60, 60)
    with pytest.raises(UsageError, match="fast points have no descriptors"):
        match(detect(image, "fast"), detect(image, "fast"))
    with pytest.raises(UsageError, match="two kinds"):
        match(detect(image, "sift"), detect(image, "surf"))
    with pytest.raises(UsageError, match="two kinds"):
        match(detect(image, "orb"), detect(image, "brief"))
    for options in ({"ratio": 0}, {"ratio": 1.5}, {"threshold": 0}, {"threshold": float("nan")}, {"confidence": 1}, {"iterations": 0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            match(detect(image, "surf"), detect(image, "surf"), **options)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.eye(6, 2)[:5], np.eye(6, 2), "5 places in a, but 6 in b"),
        (np.zeros((6, 3)), np.zeros((6, 2)), r"not float64 of shape \(6, 3\)"),
        (np.zeros((6, 2)), np.zeros(12), r"\(12,\)"),
        (np.full((6, 2), np.nan), np.zeros((6, 2)), "not NaN"),
        (np.zeros((2, 2)), np.full((2, 2), np.inf), "not NaN or infinite"),
        (np.zeros((6, 2), complex), np.zeros((6, 2)), "complex128"),
        ([[0, 0], [1]], np.zeros((2, 2)), "not this list"),
        (None, np.zeros((2, 2)), "not object"),
    ],
)
def test_F7_places_that_are_no_pairs_are_said(a, b, said):
    with pytest.raises(UsageError, match=said):
        fit_homography(a, b)


@pytest.mark.parametrize(
    "options",
    [{"iterations": 2**40}, {"iterations": 2.5}, {"threshold": np.inf}, {"threshold": "1"}, {"confidence": np.nan}, {"seed": 1.5}]
    + [{"seed": -1}, {"iterations": None}, {"confidence": 0}],
)
def test_F7_wrong_options_of_the_fit_are_said(options):
    with pytest.raises(UsageError, match=f"option {next(iter(options))}="):
        fit_homography(np.zeros((0, 2)), np.zeros((0, 2)), **options)


@pytest.mark.parametrize("options", [{"ratio": None}, {"ratio": np.nan}, {"farthest": -1}, {"farthest": np.nan}, {"farthest": "9"}])
def test_F7_wrong_options_of_the_matching_are_said(options):
    some = points(np.eye(4, dtype=np.float32))
    with pytest.raises(UsageError, match=f"option {next(iter(options))}="):
        nearest_pairs(some, some, **options)


TRUTH = np.array([[0.9, -0.2, 30], [0.15, 1.05, -12], [3e-4, -2e-4, 1]])


def test_F7_ransac_finds_the_homography_among_outliers():
    random = np.random.default_rng(1)
    a = random.uniform(0, 400, (200, 2))
    b = project(TRUTH, a) + random.normal(0, 0.3, (200, 2))
    wrong = random.random(200) < 0.5
    b[wrong] = random.uniform(0, 400, (wrong.sum(), 2))
    found, inliers = fit_homography(a, b, threshold=1.5, seed=7)
    assert corner_error(found, TRUTH, (400, 400)) < 0.5
    assert (inliers == ~wrong).mean() > 0.97
    np.testing.assert_array_equal(inliers, np.linalg.norm(project(found, a) - b, axis=1) <= 1.5)
    again, same = fit_homography(a, b, threshold=1.5, seed=7)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(inliers, same)


@pytest.mark.parametrize("form", [lambda p: p.tolist(), torch.from_numpy, lambda p: torch.tensor(p, requires_grad=True)])
def test_F7_places_are_lists_or_tensors_too(form):
    a = np.random.default_rng(0).integers(0, 400, (40, 2)).astype(np.float64)
    b = project(TRUTH, a)
    expected, all_fit = fit_homography(a, b)
    assert all_fit.all()
    found, inliers = fit_homography(form(a), form(b))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(inliers, all_fit)


@pytest.mark.parametrize(
    "a", [np.zeros((0, 2)), np.arange(6.0).reshape(3, 2), np.zeros((10, 2)), np.stack([np.arange(12.0), 2 * np.arange(12.0)], 1)]
)
def test_F7_too_few_or_degenerate_pairs_give_no_homography(a):
    found, inliers = fit_homography(a, a + 1)
    if len(a) >= 4 and found is not None:  # points of a line fit many: the pairs fit what was found
        np.testing.assert_allclose(project(found, a), a + 1, atol=1.5)
    else:
        assert found is None
        assert not inliers.any()
    assert inliers.shape == (len(a),)


def test_F7_four_exact_pairs_are_enough():
    a = corners((90, 120))
    found, inliers = fit_homography(a, project(TRUTH, a))
    assert inliers.all()
    np.testing.assert_allclose(found / found[2, 2], TRUTH, atol=1e-6)


def test_F7_points_behind_the_horizon_are_infinite():
    assert np.isinf(project(np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]), np.array([[10.0, 0], [20.0, 5]]))).all()


@pytest.mark.parametrize("kind", ["sift", "surf", "orb?limit=1000"])
def test_F7_the_homography_of_a_warped_picture_is_recovered(kind):
    image = blobs(240, 320, 400)
    turn = np.vstack([cv2.getRotationMatrix2D((160, 120), 20, 0.9), [0, 0, 1]])
    move = np.array([[1, 0, 12], [0, 1, -7], [2e-4, 1e-4, 1]]) @ turn
    other = cv2.warpPerspective(image, move, (320, 240), flags=cv2.INTER_CUBIC)
    truth = SHIFT @ move @ np.linalg.inv(SHIFT)
    found = match(detect(image, kind), detect(other, kind))
    assert found.verified
    assert corner_error(found.homography, truth, (240, 320)) < 1
    assert correct(found, truth)[found.inliers].mean() > 0.97
    half = match(detect(image, kind), detect(image, kind))  # of an image with itself
    np.testing.assert_allclose(half.homography / half.homography[2, 2], np.eye(3), atol=1e-3)


@pytest.mark.parametrize(("count", "least"), [(10, 12), (20, 15), (100, 39)])
def test_F7_more_than_8_and_three_tenths_of_the_matches_verify(count, least):
    """Brown and Lowe (2007), section 3.2: n_i > 8 + 0.3 n_f; ten matches can never be enough."""
    none = no_keypoints("sift", (9, 9), 128)
    for inliers in range(count + 1):
        fits = np.arange(count) < inliers
        found = Matches(none, none, np.zeros((count, 2), np.int64), np.zeros(count, np.float32), np.eye(3), fits)
        assert found.verified == (inliers >= least)
        assert not replace(found, homography=None).verified


def test_F7_unrelated_pictures_are_not_verified():
    a, b = (np.random.default_rng(seed).integers(0, 256, (200, 200), dtype=np.uint8) for seed in (0, 1))
    found = match(detect(a, "sift"), detect(b, "sift"), ratio=1, threshold=3)
    assert len(found) > 25
    assert not found.verified


def test_F7_npz_holds_the_matches(tmp_path):
    image = blobs()
    found = match(detect(image, "surf"), detect(image, "surf"))
    found.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert set(file) == {"points_a", "points_b", "pairs", "distances", "inliers", "homography"}
        np.testing.assert_array_equal(file["points_a"], found.a.points[found.pairs[:, 0]])
        np.testing.assert_array_equal(file["inliers"], found.inliers)
        np.testing.assert_array_equal(file["homography"], found.homography)
    with pytest.raises(UsageError, match=r"\.npz"):
        found.save(tmp_path / "m.csv")


def test_F7_drawn_lines_join_the_pairs():
    descriptors = np.eye(5, dtype=np.float32) * 9
    places = np.array([[10, 20], [70, 15], [60, 80], [20, 70], [50.5, 40.5]])
    found = match(points(descriptors, places=places), points(descriptors, places=places + [4, 0]))
    assert found.inliers.all()
    picture = draw_matches(np.zeros((100, 100), np.uint8), np.zeros((100, 100, 3), np.uint8), found)
    assert picture.shape == (100, 200, 3)
    assert (picture[40, 60:140, 1] > 180).mean() > 0.9  # from (50.5, 40.5) to (154.5, 40.5)
    assert not draw_matches(np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8), found, most=0).any()
    np.testing.assert_array_equal(draw_matches(np.zeros((100, 100, 4)), torch.zeros(3, 100, 100), found), picture)
    with pytest.raises(UsageError, match="features take an image"):
        draw_matches(np.zeros((100, 100)), "b.png", found)
    with pytest.raises(UsageError, match="option most=-1"):
        draw_matches(np.zeros((100, 100)), np.zeros((100, 100)), found, most=-1)


def circles(places, sizes):
    ones = np.ones(len(places), np.float32)
    return Keypoints(
        np.array(places, np.float32), np.array(sizes, np.float32), ones, ones, np.zeros((len(places), 0), np.float32), "log", (100, 100)
    )


def test_F7_repeatability_of_hand_cases():
    a = circles([[20, 20], [50, 50], [80, 30], [5, 5]], [8, 8, 8, 8])
    assert repeatability(a, a, np.eye(3)) == region_repeatability(a, a, np.eye(3)) == 1
    shift = np.array([[1, 0, 10], [0, 1, 0], [0, 0, 1.0]])
    moved = circles([[30, 20], [60, 52], [90, 34]], [8, 8, 16])
    # (90, 34) is 4 pixels off and twice as large; all four of a are in view
    assert repeatability(a, moved, shift) == pytest.approx(2 / 3)
    assert repeatability(a, moved, shift, tolerance=5) == 1
    assert region_repeatability(a, moved, shift) == pytest.approx(2 / 3)
    assert region_repeatability(circles([[50, 50]], [8]), circles([[50, 50]], [9]), np.eye(3)) == 1  # areas 64 : 81
    assert region_repeatability(circles([[50, 50]], [8]), circles([[50, 50]], [11]), np.eye(3)) == 0
    twice = circles([[50, 50], [50, 50]], [8, 8])
    assert repeatability(twice, circles([[50, 50], [90, 90]], [8, 8]), np.eye(3)) == 1  # the same point counts once
    assert np.isnan(repeatability(a, a, np.array([[1, 0, 500], [0, 1, 0], [0, 0, 1.0]])))
    assert np.isnan(region_repeatability(a, circles(np.zeros((0, 2)), []), np.eye(3)))


def test_F7_a_doubled_picture_doubles_the_regions():
    double = np.diag([2.0, 2.0, 1.0])
    a, b = circles([[20, 20], [40, 30]], [8, 6]), circles([[40, 40], [80, 60]], [16, 12])
    assert region_repeatability(a, b, double) == 1
    assert region_repeatability(a, circles([[40, 40], [80, 60]], [8, 6]), double) == 0


@pytest.mark.parametrize("distance", [0.0, 5.0, 12.0, 25.0])
def test_F7_overlaps_of_two_circles_are_those_of_the_lens(distance):
    radius = 30.0
    lens = 2 * radius**2 * np.arccos(distance / (2 * radius)) - distance / 2 * np.sqrt(4 * radius**2 - distance**2)
    expected = lens / (2 * np.pi * radius**2 - lens)
    found = _overlaps(np.eye(2)[None], np.array([[distance * 0.6, distance * 0.8]]), np.array([radius]))
    assert found[0] == pytest.approx(expected, abs=0.01)


def test_F7_overlap_of_an_ellipse_and_a_circle():
    # axes 30 k and 30 / k against a circle of 30: four arcs cross at |tan| = 1 / sqrt(1) of the scaled frame
    k = 1.5
    y, x = (np.mgrid[-60:60:0.1, -60:60:0.1]) + 0.05
    ellipse, circle = (x / k) ** 2 + (y * k) ** 2 <= 900, x**2 + y**2 <= 900
    expected = (ellipse & circle).sum() / (ellipse | circle).sum()
    assert _overlaps(np.diag([1 / k, k])[None], np.zeros((1, 2)), np.array([30.0]))[0] == pytest.approx(expected, abs=0.01)


def test_F7_graf_views_2_and_3_are_recovered_to_two_pixels(real):
    folder = real("oxford_graf")
    images = [np.array(Image.open(folder / f"img{k}.png").convert("RGB")) for k in (1, 2, 3)]
    for kind in ("sift", "surf"):
        found = [detect(image, kind) for image in images]
        for k in (2, 3):
            truth = SHIFT @ np.loadtxt(folder / f"H1to{k}p") @ np.linalg.inv(SHIFT)
            matches = match(found[0], found[k - 1])
            assert corner_error(matches.homography, truth, (640, 800)) < 2
            assert matches.verified
            assert correct(matches, truth)[matches.inliers].mean() > 0.95
