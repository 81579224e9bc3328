"""Panoramas of views that were cut and warped from one picture."""

import cv2
import numpy as np
import pytest

from saccade.features.match import SHIFT
from saccade.features.panorama import blend, make_panorama
from saccade.features.repeatability import corner_error
from saccade.types.errors import DataError, UsageError


def scene(height=200, width=420, seed=0):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = np.full((height, width, 3), 110.0)
    for _ in range(1500):
        u, v, s = random.uniform(0, width), random.uniform(0, height), random.uniform(1.2, 4)
        part = slice(max(int(v - 4 * s), 0), int(v + 4 * s) + 1), slice(max(int(u - 4 * s), 0), int(u + 4 * s) + 1)
        blob = np.exp(-((x[part] - u) ** 2 + (y[part] - v) ** 2) / (2 * s**2))
        out[part] += random.uniform(-80, 80, 3) * blob[..., None]
    return out.clip(0, 255).astype(np.uint8)


def test_F7_two_views_give_the_picture_back():
    picture = scene()
    views = [picture[:, :270].copy(), picture[:, 150:].copy()]
    found = make_panorama(views)
    assert abs(found.image.shape[1] - 420) <= 2
    assert abs(found.image.shape[0] - 200) <= 2
    assert found.reference == 0
    assert set(found.pairs) == {(0, 1)}
    inner = found.image[5:190, 5:410].astype(int) - picture[5:190, 5:410]
    assert np.abs(inner).mean() < 1.5
    np.testing.assert_allclose(found.homographies[1] / found.homographies[1][2, 2], [[1, 0, 150], [0, 1, 0], [0, 0, 1]], atol=0.7)
    again = make_panorama(views)
    np.testing.assert_array_equal(found.image, again.image)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_F7_three_warped_views_in_any_order(order):
    picture = scene()
    cuts = [
        (0, np.eye(3)),
        (110, np.array([[1, 0.04, -3], [-0.03, 1, 4], [1e-4, -5e-5, 1]])),
        (220, np.array([[0.95, 0, 5], [0, 0.95, 5], [0, 0, 1]])),
    ]
    views = []
    for left, warp in cuts:
        move = warp @ np.array([[1, 0, -left], [0, 1, 0], [0, 0, 1.0]])
        views.append((cv2.warpPerspective(picture, move, (200, 200), flags=cv2.INTER_CUBIC), SHIFT @ move @ np.linalg.inv(SHIFT)))
    found = make_panorama([views[i][0] for i in order], kind="sift")
    middle = order.index(1)
    assert found.reference == middle  # it overlaps both others
    assert set(found.pairs) == {tuple(sorted((middle, k))) for k in range(3) if k != middle}
    for k, i in enumerate(order):  # from a view to the middle view and to the panorama
        truth = views[1][1] @ np.linalg.inv(views[i][1])
        ours = np.linalg.inv(found.homographies[middle]) @ found.homographies[k]
        assert corner_error(ours, truth, (200, 200)) < 1
    assert found.covered.mean() > 0.8


def test_F7_the_reference_can_be_chosen_and_grey_views_work():
    picture = cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY)
    found = make_panorama([picture[:, :270].copy(), picture[:, 150:].copy()], reference=1, kind="surf")
    assert found.reference == 1
    np.testing.assert_allclose(found.homographies[1][:2, :2], np.eye(2))
    assert found.image.shape[2] == 3
    np.testing.assert_array_equal(found.image[..., 0], found.image[..., 2])


def test_F7_feathering_weighs_by_the_distance_from_the_borders():
    left, right = np.full((10, 20, 3), 40, np.uint8), np.full((10, 20, 3), 200, np.uint8)
    moves = [np.eye(3), np.array([[1, 0, 10], [0, 1, 0], [0, 0, 1.0]])]
    image, covered = blend([left, right], moves, (10, 30))
    assert covered.all()
    assert (image[:, :10] == 40).all()
    assert (image[:, 20:] == 200).all()
    for x in range(10, 20):
        a, b = 1 - abs(2 * (x + 0.5) / 20 - 1), 1 - abs(2 * (x - 10 + 0.5) / 20 - 1)
        assert image[4, x, 0] == pytest.approx((40 * a + 200 * b) / (a + b), abs=1)
    image, covered = blend([left], [np.array([[1, 0, 5], [0, 1, 3], [0, 0, 1.0]])], (20, 40))
    assert covered.sum() == 200
    assert covered[3:13, 5:25].all()
    assert (image[~covered] == 0).all()


def test_F7_views_without_a_common_part_are_named():
    picture, other = scene(), scene(seed=9)
    with pytest.raises(DataError, match=r"cat\.png: has no part in common .* (left|right)\.png.* sift points"):
        make_panorama([picture[:, :270], picture[:, 150:], other[:, :200]], names=["left.png", "right.png", "cat.png"])
    with pytest.raises(DataError, match=r"0 and 0 sift points, 0 matches"):
        make_panorama([np.zeros((50, 50), np.uint8), np.zeros((1, 1), np.uint8)])


def test_F7_a_panorama_beyond_the_limit_is_an_error(monkeypatch):
    picture = scene()
    monkeypatch.setattr("saccade.features.panorama.MOST_PIXELS", 80_000)  # 420x200 are 84 000
    with pytest.raises(DataError, match=r"view 2: would make the panorama 4\d\dx20\d pixels"):
        make_panorama([picture[:, :270], picture[:, 150:]])


def test_F7_wrong_use_of_panoramas():
    picture = scene(60, 80)
    with pytest.raises(UsageError, match="two views or more, not 1"):
        make_panorama([picture])
    with pytest.raises(UsageError, match=r"0\.\.1"):
        make_panorama([picture, picture], reference=2)
    with pytest.raises(UsageError, match="no descriptors"):
        make_panorama([picture, picture], kind="harris")
    with pytest.raises(UsageError, match="uint8"):
        make_panorama([picture, picture.astype(float)])


@pytest.mark.parametrize(
    ("count", "options", "said"),
    [
        (None, {}, r"a list of images, not an array of shape \(60, 80, 3\)"),
        (0, {}, "two views or more, not 0"),
        (2, {"names": ["a"]}, "1 names of 2 views"),
        (2, {"names": ["a", "b", "c"]}, "3 names of 2 views"),
        (2, {"reference": 0.5}, "option reference=0.5"),
        (2, {"kind": None}, "named by a text"),
        (2, {"seed": -1}, "option seed=-1"),
    ],
)
def test_F7_wrong_lists_and_options_of_panoramas(count, options, said):
    picture = scene(60, 80)
    with pytest.raises(UsageError, match=said):
        make_panorama(picture if count is None else [picture] * count, **options)


def test_F7_a_batch_of_floats_is_a_list_of_views():
    picture = scene()
    views = np.stack([picture[:, :270], picture[:, 150:]])
    expected = make_panorama(list(views)).image
    np.testing.assert_array_equal(make_panorama(views / 255).image, expected)


def test_F7_a_view_behind_the_horizon_is_an_error(monkeypatch):
    picture = scene()
    real_match = make_panorama.__globals__["match"]

    def steep(a, b, **options):
        found = real_match(a, b, **options)
        return type(found)(found.a, found.b, found.pairs, found.distances, np.array([[1, 0, 0], [0, 1, 0], [0.02, 0, 1.0]]), found.inliers)

    monkeypatch.setitem(make_panorama.__globals__, "match", steep)
    with pytest.raises(DataError, match="horizon"):
        make_panorama([picture[:, :270], picture[:, 150:]])
