"""Haar features against sums of pixels and scikit-image, boosting against plain loops, a trained cascade on planted objects."""

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.feature import haar_like_feature

from saccade.features.haar import Cascade, all_features, feature_values, find_objects, normalised_values, published, read_opencv
from saccade.features.haar_train import best_stump, boost, train_cascade
from saccade.types.errors import DataError, UsageError


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def slow_value(pixels, feature):
    kind, x, y, w, h = (int(v) for v in feature)
    across, down = [(2, 1), (1, 2), (3, 1), (1, 3), (2, 2)][kind]
    value = 0
    for row in range(down * h):
        for column in range(across * w):
            i, j = column // w, row // h
            weight = (-1, 2, -1)[max(i, j)] if across * down == 3 else (1 if (i + j) % 2 else -1)
            value += weight * int(pixels[y + row, x + column])
    return value


def test_F2_a_window_of_24_has_162336_features():
    features = all_features(24)
    assert len(features) == 162_336
    counts = np.bincount(features[:, 0])
    assert counts.tolist() == [43_200, 43_200, 27_600, 27_600, 20_736]
    assert len(np.unique(features, axis=0)) == len(features)


def test_F2_values_are_sums_of_pixels():
    windows, every = noise(3, 12, 12), all_features(12)
    chosen = every[np.random.default_rng(1).choice(len(every), 120, replace=False)]
    expected = [[slow_value(window, feature) for feature in chosen] for window in windows]
    np.testing.assert_array_equal(feature_values(windows, chosen), expected)
    assert set(chosen[:, 0]) == {0, 1, 2, 3, 4}
    np.testing.assert_allclose(
        normalised_values(windows, chosen), np.array(expected) / (144 * windows.reshape(3, -1).std(1)[:, None]), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("kind", "name"), [(0, "type-2-x"), (1, "type-2-y"), (4, "type-4")])
def test_F2_values_are_scikit_images(kind, name):
    window = noise(8, 8)
    total = window.astype(np.int64).cumsum(0).cumsum(1)
    theirs = haar_like_feature(total, 0, 0, 8, 8, name)
    every = all_features(8)
    ours = feature_values(window[None], every[every[:, 0] == kind])[0]
    assert len(ours) == len(theirs)
    np.testing.assert_array_equal(np.sort(np.abs(ours)), np.sort(np.abs(theirs)))


def test_F2_a_flat_window_gives_zero():
    every = all_features(10)
    assert not feature_values(np.full((1, 10, 10), 137, np.uint8), every)[:, every[:, 0] != 99].any()


@pytest.mark.parametrize("seed", [0, 1])
def test_F2_the_best_stump_equals_plain_loops(seed):
    random = np.random.default_rng(seed)
    values = np.round(random.normal(size=(30, 6)), 1).astype(np.float32)  # with ties
    labels = np.where(random.random(30) < 0.4, 1, -1)
    weights = random.random(30)
    weights /= weights.sum()
    order = values.argsort(0, kind="stable")
    stump = best_stump(values, labels, weights, order, np.diff(np.take_along_axis(values, order, 0), axis=0) > 0)
    errors = {}
    for column in range(6):
        for threshold in (np.unique(values[:, column])[:-1] + np.unique(values[:, column])[1:]) / 2:
            for sign in (1, -1):
                says = np.where(sign * values[:, column] > sign * threshold, 1, -1)
                errors[column, float(threshold), sign] = weights[says != labels].sum()
    assert stump.error == pytest.approx(min(errors.values()), abs=1e-6)
    says = np.where(stump.sign * values[:, stump.feature] > stump.sign * np.float32(stump.threshold), 1, -1)
    assert weights[says != labels].sum() == pytest.approx(stump.error, abs=1e-6)


def test_F2_boosting_weighs_as_adaboost_does():
    random = np.random.default_rng(3)
    positives, negatives = (random.normal(m, 1, (40, 5)).astype(np.float32) for m in (0.6, -0.3))
    found, strengths, least = boost(positives, negatives, hit_rate=0.95, false_rate=0.01, stumps=8)
    values, labels = np.concatenate([positives, negatives]), np.r_[np.ones(40), -np.ones(40)]
    weights = np.full(80, 1 / 80)
    votes = np.zeros(80)
    for stump, strength in zip(found, strengths, strict=True):
        says = stump.sign * values[:, stump.feature] > stump.sign * np.float32(stump.threshold)
        error = weights[says != (labels > 0)].sum()
        assert error == pytest.approx(stump.error, abs=1e-5)
        assert strength == pytest.approx(np.log((1 - error) / error), rel=1e-4)
        weights[says == (labels > 0)] *= error / (1 - error)
        weights /= weights.sum()
        votes += strength * says
    assert len(found) == 8
    assert (votes[:40] >= least).mean() >= 0.95
    assert (votes[40:] >= least).mean() < 0.6
    with pytest.raises(UsageError, match="no feature"):
        boost(np.ones((4, 3), np.float32), np.ones((5, 3), np.float32), hit_rate=0.9, false_rate=0.5, stumps=3)


def smile(side=16, seed=0):
    """Two dark eyes, a bright nose and a dark mouth, each time with another contrast, brightness, place and noise."""
    random = np.random.default_rng(seed)
    out = np.zeros((64, 64))
    for x, y, width, height, value in ((8, 16, 16, 12, -1), (40, 16, 16, 12, -1), (28, 20, 8, 24, 1), (16, 48, 32, 8, -1)):
        left, top = x + random.integers(-4, 5), y + random.integers(-4, 5)
        out[top : top + height, left : left + width] = value
    out = random.uniform(80, 170) + random.uniform(15, 70) * out
    out = cv2.resize(out, (side, side), interpolation=cv2.INTER_AREA)
    return (out + random.normal(0, 8, out.shape)).clip(0, 255).astype(np.uint8)


def textures(count, seed, side=70):
    random = np.random.default_rng(seed)
    cells = [random.integers(0, 256, (-(-side // c), -(-side // c)), dtype=np.uint8) for c in random.integers(2, 12, count)]
    return [cv2.resize(cell, (side, side), interpolation=cv2.INTER_CUBIC) for cell in cells]


@pytest.fixture(scope="module")
def trained():
    lines = []
    cascade = train_cascade(
        [smile(seed=k) for k in range(60)],
        textures(25, 1, 150),
        window=16,
        stages=6,
        hit_rate=0.99,
        stumps=12,
        features=400,
        others=300,
        say=lines.append,
    )
    return cascade, lines


def test_F2_a_trained_cascade_finds_planted_objects(trained):
    cascade, lines = trained
    assert cascade.passes(np.stack([smile(seed=k) for k in range(60)])).mean() >= 0.93
    assert cascade.passes(np.stack([smile(seed=k) for k in range(500, 600)])).mean() > 0.8  # new ones
    assert "stumps keep" in lines[0]
    scene = textures(1, 77, 160)[0]
    planted = [(20, 30, 32), (100, 90, 24)]
    for number, (x, y, side) in enumerate(planted):
        scene[y : y + side, x : x + side] = smile(side, 900 + number)
    boxes, scores = find_objects(scene, cascade, step=1)
    assert boxes.dtype == scores.dtype == np.float32
    assert len(boxes) >= 2
    for x, y, side in planted:  # the two that most windows agree on
        low, high = np.maximum(boxes[:2, :2], [x, y]), np.minimum(boxes[:2, 2:], [x + side, y + side])
        common = np.prod(np.clip(high - low, 0, None), axis=1)
        overlap = common / (np.prod(boxes[:2, 2:] - boxes[:2, :2], axis=1) + side**2 - common)
        assert overlap.max() > 0.5
    assert (np.diff(scores) <= 0).all()
    assert scores.min() >= 3
    lone = find_objects(scene, cascade, step=1, neighbors=1)[1]
    assert len(lone) > len(scores)
    assert lone.min() == 1
    np.testing.assert_array_equal(lone[lone >= 3], scores)


def test_F2_later_stages_see_the_false_alarms_of_the_earlier_ones(trained):
    cascade, _ = trained
    windows = np.stack([t[k : k + 16, k : k + 16] for t in textures(30, 5) for k in range(0, 50, 5)])
    shares = []
    for stage in range(1, len(cascade.ends) + 1):
        end = cascade.ends[stage - 1]
        first = Cascade(
            16,
            *(getattr(cascade, n)[:end] for n in ("features", "thresholds", "signs", "weights")),
            cascade.ends[:stage],
            cascade.least[:stage],
        )
        shares.append(first.passes(windows).mean())
    assert (np.diff(shares) <= 0).all()
    assert shares[0] < 0.75
    assert shares[-1] < 0.05


def test_F2_scanning_agrees_with_single_windows_and_training_repeats(trained):
    cascade, _ = trained
    scene = textures(1, 8, 60)[0]
    scene[20:36, 30:46] = next(face for face in map(smile, [16] * 9, range(9)) if cascade.passes(face[None])[0])
    places = {(x, y) for x, y in cascade.scan(scene, 1).tolist()}
    windows = {(x, y): scene[y : y + 16, x : x + 16] for y in range(45) for x in range(45)}
    passed = cascade.passes(np.stack(list(windows.values())))
    assert places == {place for place, good in zip(windows, passed, strict=True) if good}
    assert (30, 20) in places
    small = {"window": 16, "stages": 2, "stumps": 3, "features": 50, "others": 60}
    a, b = (train_cascade([smile(seed=k) for k in range(10)], textures(3, 1), seed=4, **small) for _ in range(2))
    np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(a.thresholds, b.thresholds)


def test_F2_a_cascade_is_plain_arrays(trained, tmp_path):
    cascade, _ = trained
    cascade.save(tmp_path / "c.npz")
    again = Cascade.load(tmp_path / "c.npz")
    for name in ("features", "thresholds", "signs", "weights", "ends", "least"):
        np.testing.assert_array_equal(getattr(again, name), getattr(cascade, name))
        assert getattr(again, name).dtype == getattr(cascade, name).dtype
    scene = textures(1, 8, 60)[0]
    np.testing.assert_array_equal(find_objects(scene, tmp_path / "c.npz")[0], find_objects(scene, cascade)[0])
    fields = dict(np.load(tmp_path / "c.npz"))
    for number, change in enumerate(
        ({"ends": fields["ends"][::-1]}, {"features": fields["features"] + 20}, {"signs": fields["signs"][:1]})
    ):
        np.savez(tmp_path / f"bad{number}.npz", **(fields | change))
        with pytest.raises(DataError, match="no cascade"):
            Cascade.load(tmp_path / f"bad{number}.npz")
    (tmp_path / "text.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no cascade"):
        Cascade.load(tmp_path / "text.npz")
    with pytest.raises(UsageError, match=r"\.npz"):
        cascade.save(tmp_path / "c.xml")


def test_F2_small_and_flat_images_hold_nothing(trained):
    for what in (trained[0], "face", "eye", "body"):
        for image in (np.zeros((1, 1), np.uint8), np.full((50, 60, 3), 90, np.uint8)):
            boxes, scores = find_objects(image, what)
            assert boxes.shape == (0, 4)
            assert scores.shape == (0,)


def test_F2_opencvs_files_have_names():
    known = published()
    assert {"face", "body", "frontalface", "eye", "fullbody", "smile", "profileface"} <= known.keys()
    assert known["face"] == known["frontalface"]
    assert known["body"] == known["fullbody"]
    assert read_opencv(known["eye"]).getOriginalWindowSize() == (20, 20)
    assert find_objects(noise(60, 60), read_opencv(known["eye"]))[0].shape[1] == 4


def test_F2_wrong_use_is_said(tmp_path):
    image = noise(30, 30)
    with pytest.raises(UsageError, match="did you mean 'face'"):
        find_objects(image, "fase")
    with pytest.raises(DataError, match="does not exist"):
        find_objects(image, tmp_path / "none.xml")
    (tmp_path / "empty.xml").write_text("<opencv_storage></opencv_storage>")
    with pytest.raises(DataError, match="no cascade of OpenCV"):
        find_objects(image, tmp_path / "empty.xml")
    for options in ({"scale": 1}, {"neighbors": 0}, {"neighbors": 2.5}, {"step": 0}, {"smallest": "9"}, {"scale": float("nan")}):
        with pytest.raises(UsageError, match=f"option {next(iter(options))}="):
            find_objects(image, "face", **options)
    with pytest.raises(UsageError, match="not NoneType"):
        find_objects(image, None)
    with pytest.raises(UsageError, match="0 objects and 1 backgrounds"):
        train_cascade([], [noise(40, 40)])
    with pytest.raises(UsageError, match="0 windows of the backgrounds lie away"):  # no stage would let everything pass
        train_cascade([noise(24, 24)], [noise(40, 40)], avoid=[np.array([[0.0, 0, 40, 40]])], window=32)
    with pytest.raises(UsageError, match="1 objects and 0 backgrounds"):
        train_cascade([noise(24, 24)], [noise(20, 40)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"avoid": []}, "boxes of 0 backgrounds, but there are 1"),
        ({"avoid": [np.zeros((0, 4)), np.zeros((0, 4))]}, "boxes of 2 backgrounds"),
        ({"avoid": [np.zeros((2, 3))]}, r"not float64 of shape \(2, 3\)"),
        ({"avoid": [[[0, 0, 9, np.nan]]]}, "finite"),
        ({"seed": -1}, "option seed=-1"),
        ({"stumps": 2.5}, "option stumps=2.5"),
        ({"objects": noise(24, 24, 3)}, "a list of images, not an array"),
        ({"backgrounds": noise(40, 40, 3)}, "a list of images, not an array"),
    ],
)
def test_F2_wrong_options_of_training_are_said(options, said):
    with pytest.raises(UsageError, match=said):
        train_cascade(**({"objects": [noise(24, 24)], "backgrounds": [noise(40, 40)]} | options))


def test_F2_training_takes_images_of_any_kind_and_boxes_as_lists():
    small = {"window": 16, "stages": 1, "stumps": 2, "features": 50, "others": 60}
    cut, pictures = [smile(seed=k) for k in range(10)], textures(2, 1)
    a = train_cascade(cut, pictures, **small)
    b = train_cascade([image / 255 for image in cut], [image[..., None] * np.uint16(257) for image in pictures], avoid=[[], []], **small)
    np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(a.thresholds, b.thresholds)


def test_F2_opencvs_face_cascade_finds_faces(real):
    """orl_faces are upright faces that fill the picture."""
    found = 0
    for person in range(1, 9):
        face = np.array(Image.open(real("orl_faces") / f"s{person}" / "1.pgm"))
        boxes, _ = find_objects(cv2.copyMakeBorder(face, 40, 40, 40, 40, cv2.BORDER_REPLICATE), "face", neighbors=2)
        found += any(x1 < 86 < x2 and y1 < 96 < y2 and x2 - x1 > 50 for x1, y1, x2, y2 in boxes)
    assert found >= 7
