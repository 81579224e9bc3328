"""Label errors: confident learning against a literal reading of the paper, boxes and masks by hand-computed cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.metrics import label_errors as le
from saccade.metrics.label_errors import Boxes
from saccade.types.errors import UsageError

# ----------------------------------------------------------------------------------- classes: the paper, line by line


def literal_thresholds(labels, p):
    """Equation 2: t_j = 1 / |X_j| sum over x in X_j of p(j; x)."""
    out = []
    for j in range(len(p[0])):
        members = [row[j] for label, row in zip(labels, p, strict=True) if label == j]
        out.append(sum(members) / len(members) if members else float("inf"))
    return out


def literal_confident_class(row, t):
    """Equation 1: the arg max of p(l; x) over the classes l with p(l; x) >= t_l."""
    able = [j for j in range(len(row)) if row[j] >= t[j] - 1e-9]
    return max(able, key=lambda j: (row[j], -j)) if able else None


def literal_joint(labels, p):
    """Equations 1 and 3: counts, rows calibrated to |X_i|, all over their sum."""
    t, k = literal_thresholds(labels, p), len(p[0])
    counts = [[0] * k for _ in range(k)]
    for label, row in zip(labels, p, strict=True):
        j = literal_confident_class(row, t)
        if j is not None:
            counts[label][j] += 1
    q = []
    for i in range(k):
        size, total = labels.count(i), sum(counts[i])
        q.append([(counts[i][j] / total if total else float(i == j)) * size for j in range(k)])
    whole = sum(map(sum, q))
    return counts, [[v / whole for v in row] for row in q]


def literal_pruned(labels, p, method):
    """Section 3.2; an image whose most probable class is its label stays."""
    n, k = len(labels), len(p[0])
    _, q = literal_joint(labels, p)
    t = literal_thresholds(labels, p)
    doubted = {x for x in range(n) if max(v for j, v in enumerate(p[x]) if j != labels[x]) > p[x][labels[x]]}
    if method == "confusion":
        return doubted
    if method == "confident joint":
        return {x for x in range(n) if literal_confident_class(p[x], t) not in (None, labels[x])}
    by_class, by_noise = set(), set()
    for i in range(k):
        members = [x for x in range(n) if labels[x] == i]
        wrong = int(n * sum(q[i][j] for j in range(k) if j != i) + 0.5 + 1e-9)
        by_class |= set(sorted(members, key=lambda x: (p[x][i], x))[:wrong])
        for j in range(k):
            if j != i:
                by_noise |= set(sorted(members, key=lambda x: (-(p[x][j] - p[x][i]), x))[: int(n * q[i][j] + 0.5 + 1e-9)])
    own = [(row[label] - max(v for j, v in enumerate(row) if j != label) + 1) / 2 for label, row in zip(labels, p, strict=True)]
    count = int(n * (1 - sum(q[i][i] for i in range(k))) + 0.5 + 1e-9)
    worst = set(sorted(range(n), key=lambda x: (own[x], x))[:count])
    return {"count": worst, "class": by_class, "noise rate": by_noise, "both": by_class & by_noise}[method] & doubted


@st.composite
def problems(draw):
    n, k = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    p = random.dirichlet(np.full(k, draw(st.sampled_from([0.2, 1.0]))), n)
    labels = np.where(random.random(n) < 0.7, p.argmax(1), random.integers(0, k, n))
    return labels.tolist(), p


@settings(max_examples=60, deadline=None)
@given(problems())
def test_X5_labels_confident_learning_is_the_papers(problem):
    labels, p = problem
    rows = p.tolist()
    np.testing.assert_allclose(le.class_thresholds(labels, p), literal_thresholds(labels, rows))
    counts, joint = literal_joint(labels, rows)
    np.testing.assert_array_equal(le.confident_joint(labels, p), counts)
    np.testing.assert_allclose(le.estimate_joint(labels, le.confident_joint(labels, p)), joint)
    for method in le.PRUNES:
        issues = le.class_issues(labels, p, prune=method)
        assert set(issues.order.tolist()) == literal_pruned(labels, rows, method), method
        assert (np.diff(issues.quality[issues.order]) >= 0).all()
        assert (issues.suggested[issues.order] != np.asarray(labels)[issues.order]).all()
        assert ((issues.quality >= 0) & (issues.quality <= 1)).all()


def test_X5_labels_by_hand():
    """Dogs 0, cats 1. t_0 = (0.9 + 0.7 + 0.2) / 3 = 0.6, t_1 = (0.8 + 0.6 + 0.1) / 3 = 0.5."""
    labels = [0, 0, 0, 1, 1, 1]
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    np.testing.assert_allclose(le.class_thresholds(labels, p), [0.6, 0.5])
    np.testing.assert_array_equal(le.confident_joint(labels, p), [[2, 1], [1, 2]])
    issues = le.class_issues(labels, p, prune="noise rate")
    np.testing.assert_allclose(issues.joint, [[1 / 3, 1 / 6], [1 / 6, 1 / 3]])
    assert issues.order.tolist() == [5, 2]  # margins (0.1 - 0.9 + 1) / 2 = 0.1 and (0.2 - 0.8 + 1) / 2 = 0.2
    np.testing.assert_allclose(issues.quality, [0.9, 0.7, 0.2, 0.8, 0.6, 0.1])
    assert issues.suggested[[5, 2]].tolist() == [0, 1]
    own = le.class_issues(labels, p, rank="self confidence")
    np.testing.assert_allclose(own.quality, p[np.arange(6), labels])


def test_X5_labels_a_class_whose_images_are_never_confident_is_left_alone():
    """Class 2 labels nothing: its threshold is infinite, so nobody is told to be it."""
    labels, p = [0, 1, 1], np.array([[0.1, 0.2, 0.7], [0.0, 0.9, 0.1], [0.1, 0.8, 0.1]])
    assert np.isinf(le.class_thresholds(labels, p)[2])
    assert le.confident_joint(labels, p)[:, 2].sum() == 0
    joint = le.estimate_joint(labels, le.confident_joint(labels, p))
    np.testing.assert_allclose(joint.sum(), 1)


def test_X5_labels_equal_probabilities_reach_their_own_mean():
    p = np.full((3, 2), 0.1)
    p[:, 0] = 0.9
    assert le.confident_joint([0, 0, 0], p)[0, 0] == 3


@pytest.mark.parametrize(
    ("labels", "p"),
    [
        ([0], [0.5, 0.5]),
        ([0, 1], [[0.5, 0.5]]),
        ([2], [[0.5, 0.5]]),
        ([-1], [[0.5, 0.5]]),
        ([0], [[float("nan"), 0.5]]),
        ([0], [[1.5, 0.5]]),
        ([0], np.zeros((1, 0))),
    ],
)
def test_X5_labels_bad_numbers_are_refused(labels, p):
    with pytest.raises(UsageError):
        le.class_issues(labels, p)


def test_X5_labels_unknown_ways_are_refused():
    with pytest.raises(UsageError, match="prune is one of"):
        le.class_issues([0], [[1.0, 0.0]], prune="magic")


def test_X5_labels_no_images_and_one_class():
    assert len(le.class_issues(np.zeros(0, int), np.zeros((0, 3))).order) == 0
    assert len(le.class_issues([0, 0], [[1.0], [1.0]]).order) == 0


def test_X5_labels_planted_flips_are_found():
    from sklearn.datasets import make_blobs
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    x, truth = make_blobs(600, centers=[(0, 0), (8, 0), (0, 8), (8, 8)], cluster_std=1.6, random_state=0)
    random = np.random.default_rng(0)
    planted = random.choice(600, 30, replace=False)
    labels = truth.copy()
    labels[planted] = (labels[planted] + random.integers(1, 4, 30)) % 4
    p = cross_val_predict(LogisticRegression(), x, labels, method="predict_proba", cv=4)
    for method in ("count", "class", "noise rate", "both", "confident joint"):
        found = set(le.class_issues(labels, p, prune=method).order.tolist())
        hits = len(found & set(planted.tolist()))
        assert hits >= 20, (method, hits)
        assert hits / len(found) > 0.8, (method, len(found))


# --------------------------------------------------------------------------------------------------------------- boxes

HALF = np.array([0.5, 0.5])


def objects(*rows, crowd=None):
    boxes = np.array([r[:4] for r in rows], dtype=np.float32).reshape(-1, 4)
    return Boxes(boxes, np.array([r[4] for r in rows], dtype=np.int64), crowd=crowd)


def predictions(*rows):
    rows = sorted(rows, key=lambda r: -r[5])
    return objects(*rows)._replace(scores=np.array([r[5] for r in rows], dtype=np.float32))


def kinds(given, predicted, thresholds=HALF):
    return [(i.kind, i.given, i.predicted) for i in le.box_quality(given, predicted, thresholds).issues()]


def test_X5_labels_boxes_in_place_are_fine():
    given = objects((0, 0, 10, 10, 0), (20, 20, 40, 40, 1))
    assert kinds(given, predictions((0, 0, 10, 10, 0, 0.9), (20, 20, 40, 38, 1, 0.6))) == []


def test_X5_labels_overlooked_box():
    given = objects((0, 0, 10, 10, 0))
    found = le.box_quality(given, predictions((0, 0, 10, 10, 0, 0.9), (5, 0, 15, 10, 1, 0.8), (50, 50, 60, 60, 1, 0.7)), HALF)
    # IoU of (5, 0, 15, 10) with the label: 50 / 150
    np.testing.assert_allclose(found.overlooked, [1, 1 - 0.8 * (1 - 1 / 3), 1 - 0.7], rtol=1e-6)
    assert [(i.kind, i.predicted) for i in found.issues()] == [("overlooked", 2), ("overlooked", 1)]
    assert kinds(given, predictions((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 60, 1, 0.3))) == []  # not confident: 0.3 / 0.5 is below 0.8


def test_X5_labels_badly_located_box():
    given = objects((0, 0, 10, 10, 0))
    found = le.box_quality(given, predictions((5, 0, 15, 10, 0, 0.9)), HALF)
    np.testing.assert_allclose(found.located, [1 / 3])
    assert [(i.kind, i.given, i.predicted) for i in found.issues()] == [("badly located", 0, 0)]  # and not overlooked besides
    found = le.box_quality(given, predictions((5, 0, 15, 10, 0, 0.25)), HALF)  # half as sure as its class's threshold: not reported
    np.testing.assert_allclose(found.located, [1 - 0.5 * (2 / 3)])
    assert found.issues() == []


def test_X5_labels_swapped_box():
    given = objects((0, 0, 10, 10, 0))
    found = le.box_quality(given, predictions((0, 0, 10, 9, 1, 0.9), (0, 0, 10, 10, 0, 0.1)), HALF)
    np.testing.assert_allclose(found.swapped, [(0.1 - 0.9 + 1) / 2], rtol=1e-6)
    assert [i.kind for i in found.issues()] == ["swapped"]
    # the own class is confident as well: nothing is swapped, however well the other fits
    assert kinds(given, predictions((0, 0, 10, 10, 1, 0.9), (0, 0, 10, 8, 0, 0.6))) == []


def test_X5_labels_spurious_box():
    given = objects((0, 0, 10, 10, 0), (50, 50, 60, 60, 0))
    found = le.box_quality(given, predictions((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 58, 0, 0.05)), HALF)
    np.testing.assert_allclose(found.spurious, [1, 0.05 / 0.5], rtol=1e-6)
    assert [(i.kind, i.given) for i in found.issues()] == [("spurious", 1)]
    assert kinds(given, predictions((0, 0, 10, 10, 0, 0.9), (50, 50, 60, 58, 1, 0.3))) == []  # some support, of whatever class
    np.testing.assert_allclose(found.label(), [1, 0.1], rtol=1e-6)


def test_X5_labels_moved_far_is_spurious_and_overlooked():
    assert kinds(objects((0, 0, 10, 10, 0)), predictions((30, 0, 40, 10, 0, 0.9))) == [("spurious", 0, -1), ("overlooked", -1, 0)]


def test_X5_labels_crowds_and_duplicates():
    given = objects((0, 0, 50, 50, 0), crowd=np.array([True]))
    assert kinds(given, predictions((5, 5, 15, 15, 0, 0.9))) == []  # inside the crowd; the crowd itself is never spurious
    assert kinds(objects(), predictions((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 1, 0.8))) == [("overlooked", -1, 0)]  # one place
    assert kinds(objects((0, 0, 10, 10, 0)), predictions((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 9, 0, 0.8))) == []  # found twice


@pytest.mark.parametrize(("given_rows", "rows"), [((), ()), (((0, 0, 5, 5, 0),), ()), ((), ((0, 0, 5, 5, 1, 0.2),))])
def test_X5_labels_empty_sides(given_rows, rows):
    found = le.box_quality(objects(*given_rows), predictions(*rows), HALF)
    assert (len(found.located), len(found.overlooked)) == (len(given_rows), len(rows))


def test_X5_labels_box_thresholds_by_hand():
    """Class 0 was found with 0.9 and 0.5 (the better of two); class 1 not at all."""
    first = objects((0, 0, 10, 10, 0)), predictions((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 1, 0.95))
    second = (
        objects((0, 0, 10, 10, 0), (20, 20, 30, 30, 0), (40, 40, 50, 50, 1)),
        predictions((0, 0, 10, 9, 0, 0.5), (0, 0, 10, 8, 0, 0.3)),
    )
    np.testing.assert_allclose(le.box_thresholds([first, second], 2), [0.7, np.inf], rtol=1e-6)
    quality = le.box_quality(objects((40, 40, 50, 50, 1)), predictions(), np.array([0.7, np.inf]))
    assert quality.issues() == []  # a class that was never found is not judged


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_X5_labels_box_scores_stay_in_range(seed):
    random = np.random.default_rng(seed)

    def some(count):
        low = random.uniform(0, 80, (count, 2))
        return np.concatenate([low, low + random.uniform(0, 40, (count, 2))], 1), random.integers(0, 3, count)

    given = Boxes(*some(random.integers(0, 8)))
    given = given._replace(crowd=random.random(len(given.boxes)) < 0.2)
    boxes, labels = some(random.integers(0, 12))
    predicted = Boxes(boxes, labels, np.sort(random.random(len(boxes)))[::-1])
    found = le.box_quality(given, predicted, np.array([0.3, 0.6, np.inf]))
    for values in (found.overlooked, found.located, found.swapped, found.spurious):
        assert ((values >= 0) & (values <= 1)).all()
    paired = found.partner[found.partner >= 0]
    assert len(np.unique(paired)) == len(paired)
    assert (found.overlooked[paired[found.confident[paired]]] == 1).all()


# --------------------------------------------------------------------------------------------------------------- masks


def test_X5_labels_softmin_is_the_papers():
    values = np.array([0.9, 0.8, 0.1, 0.95])
    weights = [np.exp((1 - v) / 0.1) for v in values]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert le.mask_quality(values) == pytest.approx(expected)
    assert le.mask_quality(np.ones((4, 4))) == 1.0
    assert le.mask_quality(np.zeros(0)) == 1.0
    assert le.mask_quality(values, temperature=1e-3) == pytest.approx(0.1)


def maps(size=(20, 30)):
    labels = np.zeros(size, dtype=np.int64)
    predicted, own, score = labels.copy(), np.full(size, 0.9), np.full(size, 0.9)
    return labels, own, predicted, score


def disagree(labels, own, predicted, score, place, suggested=1, sure=0.8):
    predicted[place], own[place], score[place] = suggested, 0.1, sure


def test_X5_labels_mask_region_by_hand():
    given = maps()
    disagree(*given, (slice(4, 9), slice(10, 16)))
    (region,) = le.mask_regions(*given, np.array([0.9, 0.7]))
    assert (region.given, region.suggested, region.box, region.area) == (0, 1, (10, 4, 16, 9), 30)
    assert region.quality == pytest.approx(0.1)
    assert region.weight == pytest.approx(30 * 0.7)
    assert le.mask_regions(*given, np.array([0.9, 0.85])) == []  # below the class's threshold


def test_X5_labels_mask_regions_are_apart_by_pair_and_place():
    given = maps()
    disagree(*given, (slice(0, 4), slice(0, 4)))
    disagree(*given, (slice(0, 4), slice(4, 8)), suggested=2)  # touches the first
    disagree(*given, (slice(10, 15), slice(20, 25)))
    found = le.mask_regions(*given, np.array([0.9, 0.7, 0.7]))
    assert [(r.suggested, r.area) for r in found] == [(1, 25), (1, 16), (2, 16)]


def test_X5_labels_mask_thin_small_and_ignored_are_no_regions():
    given = maps()
    disagree(*given, (slice(0, 20), slice(0, 2)))  # an outline two pixels wide
    disagree(*given, (slice(5, 7), slice(10, 12)))  # four pixels
    disagree(*given, (slice(10, 16), slice(20, 26)))
    given[0][10:16, 20:26] = -100
    assert le.mask_regions(*given, np.array([0.9, 0.7])) == []
