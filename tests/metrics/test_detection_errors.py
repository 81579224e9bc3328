"""Errors by kind (CANON X5) against the definitions of TIDE (Bolya et al. 2020, sections 2.2 and 2.3) written as plain loops."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.metrics.confused import confused_pairs
from saccade.metrics.detection import DetectionImage, DetectionMetric
from saccade.metrics.detection_errors import KINDS, average_precisions

RECALLS = np.linspace(0, 1, 101).tolist()  # COCO's


# ------------------------------------------------------------------------------------------------ the paper, line by line


def literal_iou(a, b):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    w, h = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    inter = w * h if w > 0 and h > 0 else 0.0
    union = aw * ah + bw * bh - inter
    return inter / union if union else 0.0


def literal_crowd_overlap(box, crowd):
    (ax, ay, aw, ah), (bx, by, bw, bh) = box, crowd
    w, h = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    return w * h / (aw * ah) if w > 0 and h > 0 else 0.0


def literal_kinds(scenes, cap=100):
    """{(image, detection): (kind, object or None)} without those that belong to an ignored object, and the missed objects."""
    kinds, missed = {}, set()
    for i, (objects, detections) in enumerate(scenes):
        real = [g for g, (_, _, flag) in enumerate(objects) if not flag]
        taken, order = {}, sorted(range(len(detections)), key=lambda d: -detections[d][2])
        seen: dict[int, int] = {}
        for d in order:
            box, label, _ = detections[d]
            seen[label] = seen.get(label, 0) + 1
            if seen[label] > cap:
                continue
            best, which = 0.5, None
            for g in real:
                overlap = literal_iou(box, objects[g][0])
                if objects[g][1] == label and g not in taken and overlap >= best:
                    best, which = overlap, g
            if which is not None:
                taken[which] = d
                kinds[i, d] = ("right", which)
                continue
            ignored = False
            for _g, (other, k, flag) in enumerate(objects):
                if flag and k == label:
                    overlap = literal_crowd_overlap(box, other) if flag == "crowd" else literal_iou(box, other)
                    ignored |= overlap >= 0.5
            if not ignored:
                kinds[i, d] = ("wrong", None)
        for d in order:
            if kinds.get((i, d), ("",))[0] != "wrong":
                continue
            box, label, _ = detections[d]
            own = max(((literal_iou(box, objects[g][0]), -g) for g in real if objects[g][1] == label), default=(0.0, 1))
            other = max(((literal_iou(box, objects[g][0]), -g) for g in real if objects[g][1] != label), default=(0.0, 1))
            if 0.1 <= own[0] < 0.5:
                kinds[i, d] = ("location", -own[1])
            elif other[0] >= 0.5:
                kinds[i, d] = ("class", -other[1])
            elif own[0] >= 0.5:
                kinds[i, d] = ("duplicate", -own[1])
            elif own[0] < 0.1 and other[0] < 0.1:
                kinds[i, d] = ("background", None)
            else:
                kinds[i, d] = ("both", -other[1])
        covered = {g for (j, _), (kind, g) in kinds.items() if j == i and kind in ("right", "class", "location")}
        missed |= {(i, g) for g in real if g not in covered}
    return kinds, missed


def literal_ap(points, objects):
    """One class: (score, right) in the order of the detections, and the number of its objects."""
    points, curve, tp = sorted(points, key=lambda p: -p[0]), [], 0
    for n, (_, right) in enumerate(points, 1):
        tp += right
        curve.append((tp / objects if objects else 0.0, tp / n))
    return sum(max((p for r, p in curve if r >= level), default=0.0) for level in RECALLS) / 101 if objects else 0.0


def literal_mean_ap(rows, counts, classes):
    """Rows: (label, score, right)."""
    return float(np.mean([literal_ap([row[1:] for row in rows if row[0] == k], counts[k]) for k in classes]))


def literal_gains(scenes):
    kinds, missed = literal_kinds(scenes)
    counts: dict[int, int] = {}
    for objects, _ in scenes:
        for _, label, flag in objects:
            counts[label] = counts.get(label, 0) + (not flag)
    classes = [k for k, n in counts.items() if n]
    if not classes:
        return None, {}

    def rows(change):
        out = []
        for key in sorted(kinds):
            i, d = key
            _, label, score = scenes[i][1][d]
            row = change(key, *kinds[key], label, score)
            out += [row] if row else []
        return out

    before = literal_mean_ap(rows(lambda key, kind, g, label, score: (label, score, kind == "right")), counts, classes)
    gains = {}
    for kind in ("both", "duplicate", "background"):  # "suppress the false positive"
        kept = rows(lambda key, k, g, label, score, kind=kind: None if k == kind else (label, score, k == "right"))
        gains[kind] = literal_mean_ap(kept, counts, classes) - before
    for kind in ("class", "location"):  # correct it; "if a duplicate detection would be made this way, suppress the lower scoring"
        best = {}
        for key, (k, g) in sorted(kinds.items(), key=lambda item: (item[1][0] != "right", item[0])):
            score = scenes[key[0]][1][key[1]][2]
            if k in ("right", kind) and score > best.get((key[0], g), (-1.0, None))[0]:
                best[key[0], g] = (score, key)

        def mend(key, k, g, label, score, kind=kind, best=best):
            if k not in ("right", kind):
                return (label, score, False)
            return (scenes[key[0]][0][g][1], score, True) if best[key[0], g][1] == key else None

        gains[kind] = literal_mean_ap(rows(mend), counts, classes) - before
    plain = rows(lambda key, k, g, label, score: (label, score, k == "right"))
    fewer = dict(counts)
    for i, g in missed:
        fewer[scenes[i][0][g][1]] -= 1
    gains["missed"] = literal_mean_ap(plain, fewer, classes) - before
    gains["false positives"] = literal_mean_ap([row for row in plain if row[2]], counts, classes) - before
    found = {k: sum(row[0] == k and row[2] for row in plain) for k in counts}
    gains["false negatives"] = literal_mean_ap(plain, found, classes) - before
    return before, gains


# ------------------------------------------------------------------------------------------------------------- scenes


def image(objects, detections, number=0):
    """Objects: (xywh, label, "" or "crowd" or "difficult"); detections: (xywh, label, score)."""
    boxes = np.array([d[0] for d in detections], dtype=float).reshape(-1, 4)
    truth = np.array([o[0] for o in objects], dtype=float).reshape(-1, 4)
    flags = [np.array([o[2] == name for o in objects], dtype=bool) for name in ("crowd", "difficult")]
    return DetectionImage(
        number, f"{number}.png", (100, 100), boxes, np.array([d[1] for d in detections], dtype=np.int64),
        np.array([d[2] for d in detections], dtype=float), boxes[:, 2] * boxes[:, 3], truth,
        np.array([o[1] for o in objects], dtype=np.int64), truth[:, 2] * truth[:, 3], *flags,
    )  # fmt: skip


def collect(scenes, classes=3, **options):
    metric = DetectionMetric([f"c{k}" for k in range(classes)], **options)
    for i, (objects, detections) in enumerate(scenes):
        metric.add(image(objects, detections, i))
    return metric


def tables(scenes, classes=3, **options):
    return collect(scenes, classes, **options).tables()


def only(kind, count=1):
    return dict.fromkeys(KINDS, 0) | {kind: count}


def kinds_of(table, key="count"):
    return {kind: table["errors"][key][kind] for kind in KINDS}


box = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 7), st.integers(1, 7))
label = st.integers(0, 2)
objects = st.lists(st.tuples(box, label, st.sampled_from(["", "", "", "", "crowd", "difficult"])), max_size=4)
detections = st.lists(st.tuples(box, label, st.integers(1, 8).map(lambda s: s / 8)), max_size=7)
scenes = st.lists(st.tuples(objects, detections), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(scenes)
def test_X5_kinds_and_gains_are_the_papers_line_by_line(scenes):
    table = tables(scenes)
    kinds, missed = literal_kinds(scenes)
    expected = {kind: sum(k == kind for k, _ in kinds.values()) for kind in ("right", *KINDS)} | {"missed": len(missed)}
    assert {kind: table["errors"]["count"][kind] for kind in expected} == expected
    before, gains = literal_gains(scenes)
    assert table["errors"]["ap50"] == (None if before is None else pytest.approx(before, abs=1e-12))
    for kind, gain in gains.items():
        assert table["errors"]["gain"][kind] == pytest.approx(gain, abs=1e-12), kind
        assert gain >= -1e-12  # mending never harms


@settings(max_examples=60, deadline=None)
@given(scenes)
def test_X5_the_sums_add_up(scenes):
    """Every detection that counts is right or has one kind; sizes and classes are a division of the whole; so is a score's cut."""
    table = tables(scenes, score=0.5)
    kinds, _ = literal_kinds(scenes)
    count, shown = table["errors"]["count"], table["errors"]["shown"]
    assert count["right"] + sum(count[k] for k in KINDS[:-1]) == len(kinds)
    assert count["objects"] == sum(not flag for objects, _ in scenes for *_, flag in objects)
    for rows in (table["errors_by_size"], table["errors_by_class"]):
        assert {name: sum(row[name] for row in rows.values()) for name in shown} == shown
    above = [(objects, [d for d in found if d[2] >= 0.5]) for objects, found in scenes]
    assert tables(above)["errors"]["count"] == shown
    known = [row["gain"]["class"] for row in table["errors_by_class"].values() if row["ap50"] is not None]
    if known:
        assert np.mean(known) == pytest.approx(table["errors"]["gain"]["class"], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(scenes)
def test_X5_ap50_is_the_metrics(scenes):
    scenes = [([(b, k, "crowd" if flag else "") for b, k, flag in objects], found) for objects, found in scenes]  # COCO: no difficult
    metric = collect(scenes)
    map50, ap50 = metric.compute()["map50"], metric.tables()["errors"]["ap50"]
    assert np.isnan(map50) if ap50 is None else ap50 == pytest.approx(map50, abs=1e-9)


# ---------------------------------------------------------------------------------------------------------- hand cases

HERE, FAR = (10, 10, 20, 20), (70, 70, 20, 20)


def test_X5_class_error():
    table = tables([([(HERE, 0, "")], [(HERE, 1, 0.9)])])
    assert kinds_of(table) == only("class")  # the object is covered: not missed
    assert table["errors"]["ap50"] == 0.0
    assert table["errors"]["gain"] == dict.fromkeys(KINDS, 0.0) | {"class": 1.0, "false positives": 0.0, "false negatives": 0.0}
    assert table["confused"] == [{"truth": "c0", "predicted": "c1", "count": 1, "of": 1, "reverse": 0, "reverse_of": 0}]
    assert table["errors_by_class"]["c1"]["class"] == 1  # where it was predicted
    assert table["errors_by_class"]["c1"]["ap50"] is None


def test_X5_location_error_from_t_b_to_t_f():
    for width, kind in ((9, "location"), (2, "location"), (1.9, "background")):  # IoU 0.45, 0.1 and 0.095
        count = kinds_of(tables([([(HERE, 0, "")], [((10, 10, width, 20), 0, 0.9)])]))
        assert count == only(kind) | {"missed": int(kind == "background")}
    assert tables([([(HERE, 0, "")], [((10, 10, 10, 20), 0, 0.9)])])["errors"]["count"]["right"] == 1  # exactly 0.5
    assert tables([([(HERE, 0, "")], [((10, 10, 9, 20), 0, 0.9)])])["errors"]["gain"]["location"] == 1.0


def test_X5_both():
    table = tables([([(HERE, 0, "")], [((10, 10, 9, 20), 1, 0.9)])])
    assert kinds_of(table) == only("both") | {"missed": 1}  # a "both" error covers nothing
    assert table["errors"]["gain"]["both"] == 0.0


def test_X5_duplicate_and_background_by_hand():
    """Two objects: right 0.9, then the error, then right 0.7: AP (51 + 50 * 2 / 3) / 101; without the error 1."""
    for wrong, kind in ((HERE, "duplicate"), ((40, 10, 5, 5), "background")):
        table = tables([([(HERE, 0, ""), (FAR, 0, "")], [(HERE, 0, 0.9), (wrong, 0, 0.8), (FAR, 0, 0.7)])])
        assert kinds_of(table) == only(kind)
        assert table["errors"]["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
        assert table["errors"]["gain"][kind] == pytest.approx(1 - (51 + 50 * 2 / 3) / 101)
        assert table["errors"]["gain"]["false positives"] == table["errors"]["gain"][kind]


def test_X5_missed():
    table = tables([([(HERE, 0, ""), (FAR, 0, "")], [(HERE, 0, 0.9)])])
    assert kinds_of(table) == only("missed")
    assert table["errors"]["ap50"] == pytest.approx(51 / 101)
    assert table["errors"]["gain"]["missed"] == table["errors"]["gain"]["false negatives"] == pytest.approx(50 / 101)


def test_X5_of_two_mended_detections_the_better_score_stays():
    # An object found at 0.5 by a right detection; a badly placed one has 0.9. Mended, it takes the object; the right one goes.
    scene = [([(HERE, 0, ""), (FAR, 0, "")], [((10, 10, 9, 20), 0, 0.9), ((40, 40, 5, 5), 0, 0.8), (HERE, 0, 0.5)])]
    table = tables(scene)
    assert kinds_of(table) == only("location") | {"background": 1, "missed": 1}
    assert table["errors"]["ap50"] == pytest.approx(51 / 3 / 101)
    assert table["errors"]["gain"]["location"] == pytest.approx(51 * 2 / 3 / 101)


def test_X5_at_the_bounds_and_in_ties():
    # Exactly t_f with another class is a class error; of two objects with the same overlap it belongs to the first.
    assert kinds_of(tables([([(HERE, 0, "")], [((10, 10, 10, 20), 1, 0.9)])])) == only("class")
    table = tables([([(HERE, 0, ""), (HERE, 1, "")], [(HERE, 2, 0.9)])])
    assert kinds_of(table) == only("class") | {"missed": 1}
    assert table["confused"][0]["truth"] == "c0"
    # Of equal scores that which was right stays, behind the error that stands before it: nothing is gained.
    table = tables([([(HERE, 0, "")], [(HERE, 1, 0.5), (FAR, 0, 0.5), (HERE, 0, 0.5)])])
    assert table["errors"]["ap50"] == pytest.approx(0.5)
    assert table["errors"]["gain"]["class"] == pytest.approx(0.0)


def test_X5_crowds_and_difficult_objects_count_neither_way():
    crowd = ((0, 0, 60, 60), 0, "crowd")
    hard = ((70, 0, 20, 20), 0, "difficult")
    found = [((5, 5, 10, 10), 0, 0.9), ((70, 0, 20, 20), 0, 0.8), (FAR, 0, 0.7)]
    table = tables([([crowd, hard, (FAR, 0, "")], found)])
    assert kinds_of(table) == dict.fromkeys(KINDS, 0)
    assert table["errors"]["count"]["right"] == table["errors"]["count"]["objects"] == 1
    assert table["errors"]["ap50"] == pytest.approx(1.0)


def test_X5_by_size_and_score():
    sides = (31, 32, 96, 97)  # COCO's bounds: 32 and 96 squared are medium
    objects = [((i * 100, 0, side, side), 0, "") for i, side in enumerate(sides)]
    found = [((0, 0, 31, 31), 0, 0.9), ((100, 0, 32, 32), 0, 0.2), ((0, 200, 10, 10), 0, 0.8)]
    table = tables([(objects, found)], score=0.3)
    rows = table["errors_by_size"]
    assert [rows[s]["objects"] for s in rows] == [1, 2, 1]
    assert [rows[s]["right"] for s in rows] == [1, 0, 0]
    assert [rows[s]["missed"] for s in rows] == [0, 2, 1]
    assert [rows[s]["background"] for s in rows] == [1, 0, 0]
    assert (table["errors"]["count"]["right"], table["errors"]["shown"]["right"]) == (2, 1)


def test_X5_the_cap_of_detections_is_the_metrics():
    objects = [((20 * i, 0, 10, 10), 0, "") for i in range(4)]
    found = [(o[0], 0, 0.9 - 0.1 * i) for i, o in enumerate(objects)]
    metric = collect([(objects, found)], max_detections=(1, 3))
    assert metric.tables()["errors"]["count"]["right"] == 3
    assert metric.tables()["errors"]["ap50"] == pytest.approx(metric.compute()["map50"])


def test_X5_masks_are_compared_where_the_metric_compares_masks():
    from pycocotools import mask as rle

    left, whole = np.zeros((20, 20), np.uint8, order="F"), np.ones((20, 20), np.uint8, order="F")
    left[:, :8] = 1  # IoU 0.4 of the masks, although the boxes are equal
    one = image([((0, 0, 20, 20), 0, "")], [((0, 0, 20, 20), 0, 0.9)])
    metric = DetectionMetric(["x"], iou_type="masks")
    metric.add(one._replace(rles=[rle.encode(left)], truth_rles=[rle.encode(whole)]))
    assert kinds_of(metric.tables()) == only("location")


def test_X5_nothing_at_all():
    assert DetectionMetric(["x"]).tables()["errors"]["ap50"] is None
    table = tables([([], [(HERE, 0, 0.9)])])
    assert table["errors"]["ap50"] is None
    assert set(table["errors"]["gain"].values()) == {None}
    assert kinds_of(table) == only("background")
    assert kinds_of(tables([([(HERE, 0, "")], [])])) == only("missed")
    assert table["confused"] == []


def test_X5_average_precision_of_no_objects_is_zero():
    out = average_precisions(np.array([0, 1]), np.array([0.5, 0.5]), np.array([True, False]), np.array([1, 0]))
    assert out.tolist() == [1.0, 0.0]


def test_X5_confused_pairs_tell_both_directions():
    pairs = confused_pairs(np.array([[5, 1, 0], [7, 3, 2], [0, 2, 9]]), ["a", "b", "c"])
    assert pairs == [
        {"truth": "b", "predicted": "a", "count": 7, "of": 12, "reverse": 1, "reverse_of": 6},
        {"truth": "b", "predicted": "c", "count": 2, "of": 12, "reverse": 2, "reverse_of": 11},
    ]
    assert confused_pairs(np.array([[5, 1, 0], [7, 3, 2], [0, 2, 9]]), ["a", "b", "c"], most=1) == pairs[:1]
    assert confused_pairs(np.eye(3), ["a", "b", "c"]) == confused_pairs(np.zeros((0, 0)), []) == []


def test_X5_a_large_set_is_quick():
    """500 images of 36 detections and 7 objects: a tenth of COCO's validation set."""
    rng = np.random.default_rng(0)
    metric = DetectionMetric([str(k) for k in range(80)])
    for i in range(500):
        truth = np.concatenate([rng.uniform(0, 500, (7, 2)), rng.uniform(10, 200, (7, 2))], 1)
        found = np.concatenate([np.repeat(truth, 5, 0) + rng.normal(0, 5, (35, 4)), [[0, 0, 50, 50]]])
        labels = rng.integers(0, 80, 7)
        one = image([], [], i)._replace(
            boxes=found, labels=np.append(np.repeat(labels, 5), 0), scores=rng.random(36), areas=found[:, 2] * found[:, 3],
            truth_boxes=truth, truth_labels=labels, truth_areas=truth[:, 2] * truth[:, 3],
            crowd=np.zeros(7, bool), difficult=np.zeros(7, bool),
        )  # fmt: skip
        metric.add(one)
    metric.compute()
    start = time.process_time()
    metric.tables()
    assert time.process_time() - start < 0.6
