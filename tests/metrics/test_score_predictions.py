"""Predictions made elsewhere: COCO results against pycocotools, YOLO and VOC folders, mask PNGs, saccade's own JSON, and bad files."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError
from saccade.types.prediction import Classification, Detection
from saccade.workflows.score import score_predictions

TWELVE = ["map", "map50", "map75", "map_small", "map_medium", "map_large"]
TWELVE += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]


def summary(truth, results, kind="bbox"):
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        evaluation = COCOeval(gt, gt.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def perturbed(data, rng, kind="bbox"):
    """Results near the truth, with wrong classes, misses, doubles and inventions; boxes in full precision."""
    ids = [c["id"] for c in data["categories"]]
    results = []
    for a in data["annotations"]:
        for _ in range(rng.integers(0, 4)):
            one = {"image_id": a["image_id"], "category_id": int(rng.choice(ids)) if rng.random() < 0.2 else a["category_id"]}
            one["score"] = float(rng.integers(1, 100) / 100)
            if kind == "segm":
                # results hold compressed run-length codes
                image = next(i for i in data["images"] if i["id"] == a["image_id"])
                shift, outline = rng.normal(0, 3), a["segmentation"]
                if not a["iscrowd"]:
                    outline = [[v + shift for v in part] for part in outline]
                code = rle.frPyObjects(outline, image["height"], image["width"])
                code = rle.merge(code) if isinstance(code, list) else code
                one["segmentation"] = code | {"counts": code["counts"].decode()}
            else:
                x, y, w, h = a["bbox"]
                moved = [x + rng.normal(0, 0.1) * w, y + rng.normal(0, 0.1) * h]
                one["bbox"] = moved + [w * math.exp(rng.normal(0, 0.1)), h * math.exp(rng.normal(0, 0.1))]
            results.append(one)
    return results


@pytest.mark.parametrize("name", ["instances_train2017.json", "instances_val2017.json"])
def test_D2_coco_results_are_pycocotools(real, tmp_path, name):
    truth, results = real("coco_mini") / "annotations" / name, tmp_path / "results.json"
    results.write_text(json.dumps(perturbed(json.loads(truth.read_text()), np.random.default_rng(0))))
    out = score_predictions(results, truth)
    np.testing.assert_allclose([out[n] for n in TWELVE], summary(truth, results), atol=1e-6)
    assert 0.1 < out["map50"] < 0.9
    assert out["settings/max_detections"] == 100
    data = json.loads(truth.read_text())
    assert out["images"] == len(data["images"])
    there = {a["category_id"] for a in data["annotations"] if not a["iscrowd"]}
    assert {c["id"] for c in data["categories"] if not math.isnan(out[f"map50/{c['name']}"])} == there


def test_D2_coco_segmentations_are_pycocotools(real, tmp_path):
    truth, results = real("coco_mini") / "annotations" / "instances_val2017.json", tmp_path / "results.json"
    results.write_text(json.dumps(perturbed(json.loads(truth.read_text()), np.random.default_rng(0), "segm")))
    out = score_predictions(results, truth)
    np.testing.assert_allclose([out[n] for n in TWELVE], summary(truth, results, "segm"), atol=1e-6)


@pytest.fixture
def coco(tmp_path):
    """A truth with gaps in its category ids, an image without objects, text in place of numbers where tools differ."""
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 50, "width": 60} for i in (7, 3, 12)],
        "categories": [{"id": 90, "name": "cell"}, {"id": 4, "name": "rod"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 4, "bbox": [5, 5, 20, 20]},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))

    def score(results, truth_name="truth.json", **options):
        (tmp_path / "results.json").write_text(results if isinstance(results, str) else json.dumps(results))
        return score_predictions(tmp_path / "results.json", tmp_path / truth_name, **options)

    score.folder = tmp_path
    return score


HIT = {"image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 12], "score": 0.9}
OTHER = {"image_id": "3", "category_id": 4.0, "bbox": [5, 5, 20, 20], "score": 0.8}


def test_gaps_and_ids_as_text(coco):
    out = coco([HIT, OTHER, HIT])  # a duplicate is a false positive behind the hit
    assert out["map"] == out["map50/cell"] == out["map/rod"] == out["recall"] == 1
    assert out["precision"] == pytest.approx(2 / 3)
    assert (out["detections"], out["objects"], out["images"], out["images_without_predictions"]) == (3, 2, 3, 1)
    assert out["settings/score"] == 0.3
    assert coco([HIT, OTHER, HIT], score=0.85)["recall"] == 0.5


def test_objects_of_unknown_images_are_counted(coco):
    truth = json.loads((coco.folder / "truth.json").read_text())
    truth["annotations"] += [{"id": 3, "image_id": 8, "category_id": 4, "bbox": [0, 0, 1, 1]}, {"image_id": 7, "caption": "a cell"}]
    (coco.folder / "more.json").write_text(json.dumps(truth))
    out = coco([HIT, OTHER], truth_name="more.json")
    assert (out["map"], out["objects"], out["skipped_objects"]) == (1, 2, 1)


def test_no_results_are_zero(coco):
    out = coco([])
    assert out["map"] == out["recall"] == 0
    assert math.isnan(out["precision"])


def test_any_cap(coco):
    out = coco([HIT, OTHER], max_detections=300)
    assert out["mar_300"] == 1
    assert "mar_100" not in out
    assert coco([HIT], max_detections=1)["mar_1"] == 0.5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (HIT | {"image_id": 99}, r"results\.json: entry 1: image_id 99 is not in"),
        (HIT | {"category_id": 1}, r"entry 1: category_id 1 is not in .*known: 4, 90"),
        (HIT | {"category_id": True}, "entry 1: category_id True"),
        (HIT | {"score": math.nan}, "entry 1: score is nan, not a finite number"),
        (HIT | {"score": None}, "entry 1: score is None"),
        (HIT | {"score": "high"}, "entry 1: score is 'high'"),
        (HIT | {"score": [0.5]}, "entry 1: score is"),
        (HIT | {"bbox": [1, 2, 3]}, "entry 1: bbox is"),
        (HIT | {"bbox": [1, 2, -3, 4]}, "sides of at least 0"),
        (HIT | {"bbox": [1, 2, math.inf, 4]}, "entry 1: bbox is"),
        (HIT | {"bbox": {"x": 1}}, "entry 1: bbox is"),
        ({k: v for k, v in HIT.items() if k != "score"}, "entry 1: score is None"),
        ({k: v for k, v in HIT.items() if k != "bbox"}, "neither bbox nor segmentation|entry"),
        ("text", "entry 1: is no COCO result"),
        (["x"], "entry 1: is no COCO result"),
        (HIT | {"bbox": [10**400, 0, 1, 1]}, "entry 1: bbox is"),
    ],
)
def test_bad_entries_are_named(coco, entry, message):
    with pytest.raises(DataError, match=message) as caught:
        coco([HIT, entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1}', "3", "null", "\x00", '[{"image_id": 1', '"text"', "\udcff"])
def test_broken_files_are_one_line(coco, text):
    (coco.folder / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"results\.json"):
        score_predictions(coco.folder / "results.json", coco.folder / "truth.json")
    (coco.folder / "other.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"other\.json"):
        coco([HIT], truth_name="other.json")


def test_wrong_use(coco):
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        coco([HIT], format="cocoo")
    with pytest.raises(UsageError, match="max_detections"):
        coco([HIT], max_detections=0)
    with pytest.raises(DataError, match="without a segmentation"):
        coco([HIT], iou_type="masks")
    with pytest.raises(DataError, match="does not exist"):
        score_predictions(coco.folder / "nothing", coco.folder / "truth.json")
    (coco.folder / "empty").mkdir()
    with pytest.raises(DataError, match="no predictions"):
        score_predictions(coco.folder / "empty", coco.folder / "truth.json")


# ------------------------------------------------------------------------------------------------------- boxes of folders


def yolo_lines(record, size, score=0.9, swap=None):
    lines = []
    for (x1, y1, x2, y2), label in zip(record.boxes.astype(np.float64), record.labels, strict=True):
        label = label if swap is None else swap[label]
        numbers = [(x1 + x2) / 2 / size[1], (y1 + y2) / 2 / size[0], (x2 - x1) / size[1], (y2 - y1) / size[0]]
        lines.append(f"{label} " + " ".join(f"{v:.12f}" for v in numbers) + f" {score}")
    return "\n".join(lines) + "\n"


def test_a_yolo_folder_of_the_truth_scores_one(real, tmp_path):
    data = load_data(real("bccd"), split="test")
    for i in range(len(data)):
        record = data.record(i)
        name = record.path.rpartition("/")[2].rpartition(".")[0]
        (tmp_path / f"{name}.txt").write_text(yolo_lines(record, (480, 640)))
    (tmp_path / "classes.txt").write_text("\n".join(data.classes))
    out = score_predictions(tmp_path, data)
    assert out["images"] == 72
    for name in ("map", "map50", "voc_map50", "voc07_map50", "precision", "recall", "mar_100"):
        assert out[name] == pytest.approx(1.0), name
    assert {out[f"map50/{c}"] for c in ("RBC", "WBC", "Platelets")} == {1.0}
    # one file less is objects missed; another split's file is not used
    gone = next(tmp_path.glob("Blood*.txt"))
    gone.rename(tmp_path / f"{load_data(real('bccd'), split='val').record(0).path.rpartition('/')[2].rpartition('.')[0]}.txt")
    out = score_predictions(tmp_path, data)
    assert out["map50"] < 1
    assert (out["images_without_predictions"], out["unused_predictions"]) == (1, 1)


def test_classes_in_another_order(real, tmp_path):
    data = load_data(real("bccd"), split="test").subset(range(5))
    order = [data.classes[k] for k in (2, 0, 1)]
    swap = [order.index(name) for name in data.classes]
    for i in range(5):
        record = data.record(i)
        (tmp_path / f"{record.path.rpartition('/')[2].rpartition('.')[0]}.txt").write_text(yolo_lines(record, (480, 640), swap=swap))
    assert score_predictions(tmp_path, data, classes=order)["map50"] == pytest.approx(1)
    assert score_predictions(tmp_path, data)["map50"] < 0.5
    with pytest.raises(UsageError, match="did you mean 'WBC'"):
        score_predictions(tmp_path, data, classes=["WBCs", "RBC", "Platelets"])


@pytest.fixture
def boxes(tmp_path):
    """Two images in two folders with the same stem, one more in another split."""
    box = np.array([[10, 20, 30, 60]], dtype=np.float32)
    records = [
        Record(path, name, (100, 200), boxes=box, labels=np.array([1]))
        for path, name in (("a/1.jpg", "a1"), ("b/1.jpg", "b1"), ("b/2.jpg", "b2"), ("b/3.jpg", "b3"))
    ]
    index = DataIndex("test", tmp_path, ["x", "y"], PackedRecords(records), tasks=("detect",))
    folder = tmp_path / "out"
    folder.mkdir()
    return Dataset(index, [0, 1, 2]), folder


def test_files_find_their_image_by_the_end_of_the_path(boxes):
    data, folder = boxes
    for name in ("a/1", "b/1", "2"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.txt").write_text("1 0.1 0.4 0.1 0.4 0.5\n\n")
    assert score_predictions(folder, data)["map"] == pytest.approx(1)
    (folder / "1.txt").write_text("")
    with pytest.raises(DataError, match=r"'1\.txt' fits 2 images"):
        score_predictions(folder, data)
    (folder / "1.txt").rename(folder / "4.txt")
    with pytest.raises(DataError, match=r"'4\.txt' is no image of"):
        score_predictions(folder, data)
    (folder / "4.txt").rename(folder / "b" / "2.txt")
    with pytest.raises(DataError, match="second file"):
        score_predictions(folder, data)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.1 0.1", "class cx cy w h score"),
        ("2 0.5 0.5 0.1 0.1 0.9", r"class 2 is outside 0\.\.1"),
        ("-1 0.5 0.5 0.1 0.1 0.9", "class -1 is outside"),
        ("0.5 0.5 0.5 0.1 0.1 0.9", "class 0.5 is outside"),
        ("1 0.5 nan 0.1 0.1 0.9", "not finite"),
        ("1 0.5 0.5 0.1 0.1 nan", "not finite"),
        ("1 0.5 0.5 -0.1 0.1 0.9", "negative side"),
        ("y 0.5 0.5 0.1 0.1 0.9", "no number"),
        ("inf 0.5 0.5 0.1 0.1 0.9", "class inf is outside"),
        ("\x00", "binary"),
    ],
)
def test_bad_yolo_lines_are_named(boxes, line, message):
    data, folder = boxes
    (folder / "2.txt").write_text("1 0.1 0.4 0.1 0.4 0.5\n" + line)
    with pytest.raises(DataError, match=message) as caught:
        score_predictions(folder, data)
    assert "2.txt" in str(caught.value)


VOC = (
    "<annotation><object><name>y</name><score>0.7</score>"
    "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object></annotation>"
)


def test_a_voc_folder(boxes):
    data, folder = boxes
    for name in ("a_1", "b_1", "2"):
        path = folder / f"{name.replace('_', '/')}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(VOC if name != "2" else VOC.replace("score", "confidence"))
    out = score_predictions(folder, data)
    assert out["map"] == pytest.approx(1)
    assert out["images_without_predictions"] == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>y<", "<name>why<", "class 'why' is not in the data"),
        ("<score>0.7</score>", "", "needs a <score>"),
        ("0.7", "nan", "not finite"),
        (">30<", ">5<", "turned over"),
        (">30<", "><", "no number"),
        ("</annotation>", "", "no usable XML"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;', "no usable XML"),
    ],
)
def test_bad_voc_files_are_named(boxes, old, new, message):
    data, folder = boxes
    (folder / "2.xml").write_text(VOC.replace(old, new))
    with pytest.raises(DataError, match=message):
        score_predictions(folder, data)


def test_difficult_objects_and_crowds_of_a_record_are_known(boxes):
    data, folder = boxes
    two = np.array([[10, 20, 30, 60], [100, 20, 120, 60]], dtype=np.float32)
    record = Record("c/9.jpg", "c9", (100, 200), boxes=two, labels=np.array([1, 1]), extra={"difficult": np.array([False, True])})
    data = Dataset(DataIndex("test", data.index.root, ["x", "y"], PackedRecords([record]), tasks=("detect",)))
    (folder / "9.txt").write_text("1 0.1 0.4 0.1 0.4 0.5\n")
    out = score_predictions(folder, data)
    assert out["voc_map50"] == out["recall"] == 1
    assert out["map50"] == pytest.approx(51 / 101)  # COCO knows no difficult objects


# -------------------------------------------------------------------------------------------------------------- own JSON


def test_own_predictions_of_boxes(boxes):
    data, folder = boxes
    rows = [
        Detection(
            path="/elsewhere/a/1.jpg",
            classes=["y", "x"],
            boxes=np.array([[10, 20, 30, 60.0]]),
            labels=np.array([0]),
            scores=np.array([0.9]),
        ),
        Detection(image_id="b1", classes=["x", "y"], boxes=np.array([[10, 20, 30, 60.0]]), labels=np.array([1]), scores=np.array([0.9])),
        Detection(path="b/2.jpg", boxes=np.array([[10, 20, 30, 60.0]]), labels=np.array([1]), scores=np.array([0.9])),
        Detection(image_id="b3", boxes=np.zeros((0, 4)), labels=np.zeros(0), scores=np.zeros(0)),
    ]
    file = folder.parent / "predictions.json"
    file.write_text(json.dumps([row.to_dict() for row in rows]))
    out = score_predictions(file, data)  # classes by their names, numbers where there are none
    assert out["map"] == pytest.approx(1)
    assert (out["images_without_predictions"], out["unused_predictions"]) == (0, 1)
    lines = file.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    assert score_predictions(lines, data) == pytest.approx(out, nan_ok=True)
    for change, message in (
        ({"path": "z/8.jpg"}, "is no image of"),
        ({"path": ""}, "names no image"),
        ({"path": "b/1.jpg"}, "twice"),
        ({"objects": None}, "no list of objects"),
        ({"objects": [{"box": [0, 0, 1, 1], "label": 7, "score": 1}]}, "class 7 is not in the data"),
        ({"objects": [{"box": [0, 0, 1, 1], "label": 0, "name": "yy", "score": 1}]}, "class 'yy' is not in the data"),
        ({"objects": [{"box": [5, 0, 1, 1], "label": 0, "score": 1}]}, "entry 2 object 0: box is"),
        ({"objects": [{"box": [0, 0, 1, 1], "label": 0, "score": None}]}, "score is None"),
        ({"task": "segment"}, "masks are scored as a folder"),
    ):
        file.write_text(json.dumps([rows[0].to_dict(), rows[1].to_dict(), rows[2].to_dict() | change]))
        with pytest.raises(DataError, match=message):
            score_predictions(file, data)


def test_own_predictions_against_a_coco_file(coco):
    rows = [
        Detection(path="7.jpg", classes=["cell"], boxes=np.array([[1, 2, 11, 14.0]]), labels=np.array([0]), scores=np.array([0.9])),
        Detection(image_id=3, classes=["cell", "rod"], boxes=np.array([[5, 5, 25, 25.0]]), labels=np.array([1]), scores=np.array([0.9])),
    ]
    out = coco([row.to_dict() for row in rows])
    assert out["map"] == 1
    assert out["images_without_predictions"] == 1


def test_own_predictions_of_labels(tmp_path):
    records = [Record(f"{i}.png", str(i), label=i % 3) for i in range(6)]
    data = Dataset(DataIndex("test", tmp_path, ["a", "b", "c"], PackedRecords(records), tasks=("classify",)))
    rows = []
    for i in range(6):
        scores = np.full(3, 0.1, dtype=np.float32)
        scores[(i + (i == 0)) % 3] = 0.8
        rows.append(Classification(image_id=str(i), classes=["a", "b", "c"], scores=scores).to_dict())
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(rows))
    out = score_predictions(file, data)
    assert out["accuracy"] == pytest.approx(5 / 6)
    assert out["recall/a"] == 0.5
    file.write_text(json.dumps(rows[1:]))
    with pytest.raises(DataError, match="no prediction for 1 of 6 images"):
        score_predictions(file, data)


# ----------------------------------------------------------------------------------------------------------------- masks


@pytest.fixture
def wbc(real, tmp_path):
    """Eight images of WBC, values 0, 128, 255."""
    source = real("wbc_segmentation") / "Dataset 1"
    records = [Record(f"{i:03}.bmp", f"{i:03}", mask=f"{i:03}.png") for i in range(1, 9)]
    values = {0: 0, 128: 1, 255: 2}
    index = DataIndex(
        "masks", source, ["background", "cytoplasm", "nucleus"], PackedRecords(records), mask_values=values, mask_nearest=True
    )
    raw = {r.image_id: np.asarray(Image.open(source / r.mask).convert("L")) for r in records}
    labels = {name: np.abs(mask[..., None].astype(int) - np.array([0, 128, 255])).argmin(-1).astype(np.uint8) for name, mask in raw.items()}
    folder = tmp_path / "masks"
    folder.mkdir()
    return Dataset(index), labels, folder


def test_mask_images_of_labels_and_of_the_datas_values(wbc):
    from sklearn.metrics import jaccard_score

    data, labels, folder = wbc
    for values in (np.array([0, 1, 2], dtype=np.uint8), np.array([0, 128, 255], dtype=np.uint8)):
        for name, mask in labels.items():
            Image.fromarray(values[mask]).save(folder / f"{name}.png")
        out = score_predictions(folder, data)
        assert out["mean_iou"] == out["pixel_accuracy"] == out["iou/nucleus"] == 1
        assert out["images"] == 8
    moved = {name: np.roll(mask, 3, axis=1) for name, mask in labels.items()}
    for name, mask in moved.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    out = score_predictions(folder, data)
    pixels = [np.concatenate([m.ravel() for m in side.values()]) for side in (labels, moved)]
    np.testing.assert_allclose([out[f"iou/{c}"] for c in data.classes], jaccard_score(*pixels, average=None))
    swapped = score_predictions(folder, data, classes=["background", "nucleus", "cytoplasm"])
    assert swapped["mean_iou"] < out["mean_iou"]


def test_bad_masks_are_named(wbc):
    data, labels, folder = wbc
    for name, mask in labels.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    Image.fromarray(labels["003"] + 5).save(folder / "003.png")
    with pytest.raises(DataError, match=r"003\.png: mask value 5 is no class"):
        score_predictions(folder, data)
    Image.fromarray(labels["003"][1:]).save(folder / "003.png")
    with pytest.raises(DataError, match=r"003\.png: is 120x119, its image 120x120"):
        score_predictions(folder, data)
    (folder / "003.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"003\.png"):
        score_predictions(folder, data)
    (folder / "003.png").unlink()
    with pytest.raises(DataError, match=r"no prediction for 1 of 8 images, '003\.bmp' the first"):
        score_predictions(folder, data)


def test_predictions_that_do_not_fit_the_truth(wbc, boxes, coco):
    data, labels, folder = wbc
    Image.fromarray(labels["001"]).save(folder / "001.png")
    with pytest.raises(UsageError, match="holds masks"):
        score_predictions(folder, boxes[0])
    (folder / "001.txt").write_text("0 0.5 0.5 0.1 0.1 0.5")
    with pytest.raises(DataError, match="several formats: yolo, masks"):
        score_predictions(folder, data)
    with pytest.raises(UsageError, match="holds boxes"):
        score_predictions(folder, data, format="yolo")
    coco([HIT])
    with pytest.raises(UsageError, match="score against a COCO file"):
        score_predictions(coco.folder / "results.json", boxes[0])
