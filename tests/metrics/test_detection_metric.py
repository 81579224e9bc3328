"""Detection metrics (CANON D2) against pycocotools, a plain loop, and hand-computed cases."""

import contextlib
import copy
import io
import json
import math
import pickle
import time

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saccade.metrics.detection import DetectionMetric, voc_ap
from saccade.types.prediction import Detection
from saccade.types.sample import boxes_tensor

TWELVE = ["map", "map50", "map75", "map_small", "map_medium", "map_large"]
TWELVE += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]


def truth(boxes, labels=None, image_id=0, **more):
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.as_tensor(labels)
    return {"image_id": image_id, "path": f"{image_id}.png", "boxes": boxes_tensor(boxes, (100, 100)), "labels": labels} | more


def detection(boxes, scores, labels=None, **more):
    labels = np.zeros(len(boxes), dtype=np.int64) if labels is None else np.asarray(labels)
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    return Detection(boxes=boxes, labels=labels, scores=np.asarray(scores, dtype=np.float32), size=(100, 100), **more)


def random_set(images=60, classes=4, seed=0, masks=False):
    """Crowded random images with crowds, score ties, duplicates, absent classes and empty images: targets and detections."""
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for i in range(images):
        g, d = rng.integers(0, 12), rng.integers(0, 50)
        corner, side = rng.uniform(0, 150, (g, 2)), np.exp(rng.uniform(1.5, 5, (g, 2)))
        boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
        labels, crowd = rng.integers(0, classes - 1, g), rng.random(g) < 0.1
        source = rng.integers(0, max(g, 1), d) if g else None
        found = rng.uniform(0, 150, (d, 2))
        found = np.concatenate([found, found + np.exp(rng.uniform(1.5, 5, (d, 2)))], 1)
        kinds = rng.integers(0, classes, d)
        if g:
            near = rng.random(d) < 0.7
            found[near] = boxes[source[near]] + rng.normal(0, 3, (near.sum(), 4))
            kinds[near] = labels[source[near]]
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = rng.integers(1, 30, d) / 30  # ties
        more, extra = {}, {}
        if masks:
            yy, xx = np.mgrid[:200, :200]

            def ellipses(b, yy=yy, xx=xx):
                cx, cy, rx, ry = (b[:, 0] + b[:, 2]) / 2, (b[:, 1] + b[:, 3]) / 2, (b[:, 2] - b[:, 0]) / 2, (b[:, 3] - b[:, 1]) / 2
                inside = [((xx - cx[k]) / rx[k]) ** 2 + ((yy - cy[k]) / ry[k]) ** 2 <= 1 for k in range(len(b))]
                return np.stack(inside) if len(b) else np.zeros((0, 200, 200), dtype=bool)

            more, extra = {"masks": ellipses(found)}, {"masks": torch.from_numpy(ellipses(boxes))}
        prediction = detection(found, scores, kinds, image_id=i, **more)
        predictions.append(prediction)
        target = truth(boxes, labels, i, iscrowd=torch.from_numpy(crowd), **extra)
        target["boxes"] = boxes_tensor(boxes, (200, 200))
        truths.append(target)
    return predictions, truths


def pycoco(predictions, truths, classes, kind="bbox", caps=(1, 10, 100), areas=None):
    """The peer's own summary of the same data."""
    from pycocotools import mask as rle

    annotations, results = [], []
    for i, (p, t) in enumerate(zip(predictions, truths, strict=True)):
        boxes = np.asarray(t["boxes"], dtype=np.float64)
        crowd = np.asarray(t.get("iscrowd", np.zeros(len(boxes))))
        for j, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            one = {"id": len(annotations) + 1, "image_id": i, "category_id": int(t["labels"][j]), "bbox": box, "iscrowd": int(crowd[j])}
            one["area"] = box[2] * box[3] if "masks" not in t else int(t["masks"][j].sum())
            if kind == "segm":
                one["segmentation"] = rle.encode(np.asfortranarray(t["masks"][j].numpy().astype(np.uint8)))
            annotations.append(one)
        for j, (x1, y1, x2, y2) in enumerate(p.boxes.astype(np.float64).tolist()):
            one = {"image_id": i, "category_id": int(p.labels[j]), "score": float(p.scores[j])}
            if kind == "segm":
                one["segmentation"] = rle.encode(np.asfortranarray(p.masks[j].astype(np.uint8)))
            else:
                one["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            results.append(one)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        images = [{"id": i, "height": 200, "width": 200} for i in range(len(truths))]
        gt.dataset = {"images": images, "annotations": annotations, "categories": [{"id": k} for k in range(classes)], "info": {}}
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(copy.deepcopy(results)), kind)
        evaluation.params.maxDets = list(caps)
        evaluation.evaluate()
        evaluation.accumulate()
        if list(caps) == [1, 10, 100]:
            evaluation.summarize()
    return evaluation


def test_D2_coco_twelve_are_pycocotools():
    for seed in range(3):
        predictions, truths = random_set(seed=seed)
        metric = DetectionMetric(list("abcd"))
        metric.update(predictions, truths)
        ours, theirs = metric.compute(), pycoco(predictions, truths, 4)
        np.testing.assert_allclose([ours[name] for name in TWELVE], theirs.stats, atol=1e-6)
        assert 0.1 < ours["map50"] < 0.9
        precision = theirs.eval["precision"][..., 0, -1]
        for k, name in enumerate("abc"):
            assert ours[f"map/{name}"] == pytest.approx(precision[:, :, k].mean(), abs=1e-6)
            assert ours[f"map50/{name}"] == pytest.approx(precision[0, :, k].mean(), abs=1e-6)
        assert math.isnan(ours["map/d"])  # no truth, although it was predicted
        assert math.isnan(ours["map50/d"])


def test_D2_coco_twelve_of_masks_are_pycocotools():
    predictions, truths = random_set(images=12, masks=True)
    metric = DetectionMetric(list("abcd"), iou_type="masks")
    metric.update(predictions, truths)
    np.testing.assert_allclose([metric.compute()[name] for name in TWELVE], pycoco(predictions, truths, 4, "segm").stats, atol=1e-6)


def test_D2_area_is_the_masks_where_there_are_masks():
    predictions, truths = random_set(images=12, masks=True)
    metric = DetectionMetric(list("abcd"))
    metric.update(predictions, truths)
    np.testing.assert_allclose([metric.compute()[name] for name in TWELVE], pycoco(predictions, truths, 4).stats, atol=1e-6)


@pytest.mark.parametrize("split", ["train", "val"])
def test_D2_coco_twelve_on_coco_mini(real, split):
    name = {"train": "instances_train2017.json", "val": "instances_val2017.json"}[split]
    data = json.loads((real("coco_mini") / "annotations" / name).read_text())
    rng = np.random.default_rng(0)
    ids = sorted(c["id"] for c in data["categories"])
    predictions, truths = [], []
    for image in sorted(data["images"], key=lambda i: i["id"]):
        objects = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in objects], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([ids.index(a["category_id"]) for a in objects], dtype=np.int64)
        crowd = torch.tensor([bool(a["iscrowd"]) for a in objects], dtype=torch.bool)
        truths.append(truth(boxes, labels, image["id"], iscrowd=crowd))
        twice = np.repeat(np.arange(len(boxes)), 2)
        found = boxes[twice] + rng.normal(0, 8, (len(twice), 4))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        kinds = np.where(rng.random(len(twice)) < 0.8, labels[twice], rng.integers(0, len(ids), len(twice)))
        predictions.append(detection(found, rng.random(len(twice)), kinds, image_id=image["id"]))
    metric = DetectionMetric([str(i) for i in ids])
    metric.update(predictions, truths)
    np.testing.assert_allclose([metric.compute()[n] for n in TWELVE], pycoco(predictions, truths, len(ids)).stats, atol=1e-6)


def test_D2_any_cap_of_detections():
    """150 perfect boxes: torchmetrics' fixed cap of 100 gives 0.663."""
    boxes = [[10 * (i % 15), 10 * (i // 15), 10 * (i % 15) + 9, 10 * (i // 15) + 9] for i in range(150)]
    scores = np.linspace(1, 0.5, 150)
    wide, coco = DetectionMetric(["x"], max_detections=(1, 10, 300)), DetectionMetric(["x"])
    for metric in (wide, coco):
        metric.update([detection(boxes, scores)], [truth(boxes)])
    ours = wide.compute()
    assert ours["map"] == ours["map50"] == ours["mar_300"] == 1.0
    assert ours["mar_10"] == pytest.approx(10 / 150)
    assert "mar_100" not in ours
    assert coco.compute()["map"] == pytest.approx(67 / 101)  # recall stops at 100 / 150
    predictions, truths = random_set()
    metric = DetectionMetric(list("abcd"), max_detections=[5, 2])
    metric.update(predictions, truths)
    precision = pycoco(predictions, truths, 4, caps=(2, 5)).eval["precision"][..., 0, -1]
    assert metric.compute()["map"] == pytest.approx(precision[precision > -1].mean(), abs=1e-6)


def test_D2_crowds_are_ignored():
    metric = DetectionMetric(["x"])
    target = truth([[0, 0, 10, 10], [20, 20, 80, 80]], iscrowd=torch.tensor([False, True]))
    # one hit, then three inside the crowd: they are neither right nor wrong
    metric.update([detection([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 60, 60], [25, 25, 45, 45]], [0.5, 0.9, 0.8, 0.7])], [target])
    out = metric.compute()
    assert out["map"] == out["voc_map50"] == out["precision"] == out["recall"] == 1.0
    assert metric.tables()["images"][0]["false_positives"] == metric.tables()["images"][0]["missed"] == []


def test_D2_voc_ap_by_hand():
    # Five detections against four objects: + + - + - ; recall 1/4 2/4 2/4 3/4 3/4, precision 1 1 2/3 3/4 3/5
    recall, precision = np.array([0.25, 0.5, 0.5, 0.75, 0.75]), np.array([1, 1, 2 / 3, 0.75, 0.6])
    # points 0 .. 0.5: 1 (six of them), 0.6 and 0.7: 0.75, then nothing
    assert voc_ap(recall, precision, eleven_points=True) == pytest.approx((6 * 1 + 2 * 0.75) / 11)
    assert voc_ap(recall, precision) == pytest.approx(0.5 * 1 + 0.25 * 0.75)
    assert voc_ap(np.zeros(0), np.zeros(0)) == voc_ap(np.zeros(0), np.zeros(0), eleven_points=True) == 0.0
    # recall of exactly 3 / 10 reaches the point 0.3
    assert voc_ap(np.array([0.1, 0.2, 0.1 + 0.2]), np.ones(3), eleven_points=True) == pytest.approx(4 / 11)


def test_D2_voc_ap_of_a_set_by_hand():
    metric = DetectionMetric(["x", "y"])
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]]
    hard = torch.tensor([False, False, False, False, True])
    found = [[0, 0, 10, 10], [20, 0, 30, 10], [0, 50, 10, 60], [40, 0, 50, 10], [0, 0, 10, 9], [80, 0, 90, 10]]
    metric.update([detection(found, [0.9, 0.8, 0.7, 0.6, 0.5, 0.99])], [truth(boxes, difficult=hard)])
    out = metric.compute()
    # + + - + - as above: the fifth is a duplicate; the difficult object counts neither way
    assert out["voc07_map50"] == pytest.approx((6 + 1.5) / 11)
    assert out["voc_map50"] == pytest.approx(0.6875)
    assert metric.tables()["voc_ap50"] == {"x": pytest.approx(0.6875), "y": None}
    assert metric.tables()["images"][0] == {
        "image_id": 0, "path": "0.png", "true_positives": [0, 1, 3], "false_positives": [2, 4], "missed": [3],
    }  # fmt: skip


def test_D2_voc_ap_is_a_plain_loops():
    """The challenge's procedure, written as a loop: sort by score, take the object of most overlap, count it once."""
    predictions, truths = random_set(images=30)
    metric = DetectionMetric(list("abcd"))
    metric.update(predictions, truths)
    table = metric.tables()
    for k, name in enumerate("abc"):
        rows = [(-s, i, j) for i, p in enumerate(predictions) for j, s in enumerate(p.scores.tolist()) if p.labels[j] == k]
        objects = sum(int(((t["labels"] == k) & ~t["iscrowd"]).sum()) for t in truths)
        used, hits, tp = set(), [], 0
        for _, i, j in sorted(rows):
            x1, y1, x2, y2 = predictions[i].boxes[j].astype(np.float64)
            best, which = 0.0, None
            for g in torch.nonzero(truths[i]["labels"] == k).flatten().tolist():
                a1, b1, a2, b2 = truths[i]["boxes"][g].double().tolist()
                inter = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
                area = (x2 - x1) * (y2 - y1)
                union = area if truths[i]["iscrowd"][g] else area + (a2 - a1) * (b2 - b1) - inter
                if inter / union > best:
                    best, which = inter / union, g
            if best >= 0.5 and truths[i]["iscrowd"][which]:
                continue
            right = best >= 0.5 and (i, which) not in used
            used.add((i, which) if right else None)
            hits.append(right)
        area, points, precision = 0.0, np.zeros(11), []
        for n, right in enumerate(hits, 1):
            tp += right
            precision.append(tp / n)
        tp = 0
        for n, right in enumerate(hits):
            tp += right
            area += right / objects * max(precision[n:])
            reached = np.arange(11) * objects <= tp * 10  # recall >= point, in whole numbers
            points[reached] = np.maximum(points[reached], max(precision[n:]))
        assert table["voc_ap50"][name] == pytest.approx(area)
        assert table["voc07_ap50"][name] == pytest.approx(points.mean())


def test_D2_precision_recall_f1_are_pycocotools_matches():
    predictions, truths = random_set()
    metric = DetectionMetric(list("abcd"), score=0.5)
    metric.update(predictions, truths)
    out = metric.compute()
    theirs = pycoco([p.above(0.5) for p in predictions], truths, 4, caps=(1, 10, 1000))
    counts = np.zeros((3, 4))
    for one in theirs.evalImgs:
        if one is not None and one["aRng"] == [0, 1e10]:
            k, ignored = one["category_id"], one["dtIgnore"][0].astype(bool)
            counts[:, k] += ((one["dtMatches"][0] > 0) & ~ignored).sum(), (~ignored).sum(), (1 - one["gtIgnore"]).sum()
    for suffix, (tp, found, there) in zip(("", "/a", "/b", "/c", "/d"), (counts.sum(1), *counts.T), strict=True):
        assert out["precision" + suffix] == pytest.approx(tp / found)
        assert out["recall" + suffix] == pytest.approx(tp / there if there else math.nan, nan_ok=True)
        assert out["f1" + suffix] == pytest.approx(2 * tp / (found + there))
    images = metric.tables()["images"]
    assert sum(len(i["true_positives"]) for i in images) == counts[0].sum()
    assert sum(len(i["true_positives"]) + len(i["false_positives"]) for i in images) == counts[1].sum()
    assert sum(len(i["true_positives"]) + len(i["missed"]) for i in images) == counts[2].sum()


def test_D2_curves_end_at_recall_and_precision():
    predictions, truths = random_set()
    metric = DetectionMetric(list("abcd"), score=0)
    metric.update(predictions, truths)
    curves, out = metric.tables()["curves"], metric.compute()
    assert set(curves) == set("abc")
    for name, curve in curves.items():
        assert curve["recall"][-1] == pytest.approx(out[f"recall/{name}"])
        assert curve["precision"][-1] == pytest.approx(out[f"precision/{name}"])
        assert curve["score"] == sorted(curve["score"], reverse=True)


def test_merge_of_states_is_a_single_pass():
    predictions, truths = random_set()
    whole = DetectionMetric(list("abcd"))
    whole.update(predictions, truths)
    parts = []
    for rank in (1, 0, 2):  # as a sampler deals images to processes, arriving in any order
        part = DetectionMetric(list("abcd"))
        part.update(predictions[rank::3], truths[rank::3])
        parts.append(pickle.loads(pickle.dumps(part.state())))
    merged = DetectionMetric(list("abcd"))
    merged.update(predictions[:1], truths[:1])
    merged.merge(parts)
    assert merged.compute() == pytest.approx(whole.compute(), abs=0, nan_ok=True)
    assert merged.tables() == whole.tables()


def test_compute_may_be_called_between_updates():
    predictions, truths = random_set(images=20)
    metric = DetectionMetric(list("abcd"))
    metric.update(predictions[:10], truths[:10])
    first = metric.compute()
    metric.update(predictions[10:], truths[10:])
    assert first["map"] != metric.compute()["map"]


def test_nothing_found_is_zero_and_no_truth_is_nan():
    none = detection(np.zeros((0, 4)), [])
    metric = DetectionMetric(["x", "y"])
    metric.update([none, none], [truth([[0, 0, 10, 10]], image_id=0), truth(np.zeros((0, 4)), image_id=1)])
    out = metric.compute()
    assert out["map50"] == out["mar_100"] == out["voc_map50"] == out["voc07_map50"] == out["recall"] == out["f1"] == 0
    assert math.isnan(out["precision"])
    assert math.isnan(out["map_large"])
    assert math.isnan(out["map50/y"])
    empty = DetectionMetric(["x"])
    assert all(math.isnan(v) for v in empty.compute().values())
    empty.update([detection([[0, 0, 5, 5]], [0.9])], [truth(np.zeros((0, 4)))])
    out = empty.compute()
    assert out["precision"] == out["f1"] == 0
    assert all(math.isnan(v) for k, v in out.items() if k not in ("precision", "f1", "precision/x", "f1/x"))
    assert empty.tables()["images"][0]["false_positives"] == [0]


def test_numbers_that_are_not_finite_are_dropped_and_counted():
    clean, dirty = DetectionMetric(["x"]), DetectionMetric(["x"])
    target = truth([[0, 0, 10, 10], [20, 20, 30, 30]])
    clean.update([detection([[0, 0, 10, 10]], [0.9])], [target])
    dirty.update([detection([[np.nan, 0, 10, 10], [0, 0, 10, 10], [0, 0, 9, 9], [0, 0, np.inf, 9]], [0.9, 0.9, np.nan, 1])], [target])
    out = dirty.compute()
    assert out.pop("invalid_detections") == 3
    assert out == pytest.approx(clean.compute(), nan_ok=True)
    assert dirty.tables()["images"][0]["true_positives"] == [1]


def test_boxes_without_area_do_no_harm():
    metric = DetectionMetric(["x"])
    metric.update([detection([[5, 5, 5, 5], [0, 0, 10, 10]], [0.9, 0.8])], [truth([[5, 5, 5, 5], [0, 0, 10, 10]])])
    assert metric.compute()["recall"] == 0.5


def test_wrong_labels_and_arguments_raise():
    metric = DetectionMetric(["x"])
    with pytest.raises(ValueError, match=r"labels 1\.\.1 for 1 classes"):
        metric.update([detection([[0, 0, 1, 1]], [1.0], [1])], [truth([[0, 0, 1, 1]])])
    with pytest.raises(ValueError):
        metric.update([], [truth([[0, 0, 1, 1]])])
    with pytest.raises(ValueError, match="masks"):
        DetectionMetric(["x"], iou_type="masks").update([detection([[0, 0, 1, 1]], [1.0])], [truth([[0, 0, 1, 1]])])
    for wrong in ({"iou_type": "points"}, {"max_detections": ()}, {"max_detections": (0,)}):
        with pytest.raises(ValueError):
            DetectionMetric(["x"], **wrong)


def test_a_validation_is_quick():
    """87 images of 100 detections and 13 objects, as BCCD's: far below 0.3 s."""
    rng = np.random.default_rng(0)
    metric = DetectionMetric(list("abc"))
    for i in range(87):
        sides = [rng.uniform(0, 500, (n, 2)) for n in (13, 100)]
        boxes = [np.concatenate([c, c + rng.uniform(30, 100, c.shape)], 1) for c in sides]
        metric.update([detection(boxes[1], rng.random(100), rng.integers(0, 3, 100))], [truth(boxes[0], rng.integers(0, 3, 13), i)])
    start = time.process_time()
    metric.compute()
    assert time.process_time() - start < 0.3
