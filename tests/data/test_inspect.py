"""Inspection: planted faults are found and named, clean data stay silent, facts equal counts made by hand."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.data.dataset import Dataset
from saccade.data.inspect import inspect_data, quick_findings
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import UsageError
from saccade.workflows.inspect import summary


def picture(folder: Path, name: str, size=(64, 48), seed=0, **options):
    rng = np.random.default_rng([seed, *name.encode()])
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    small.resize(size, Image.Resampling.BICUBIC).save(folder / name, **options)


def boxes_index(root, records, classes=("a", "b"), splits=None):
    return DataIndex("test", root, list(classes), PackedRecords(records), splits=splits or {}, tasks=("detect",))


def record(name, boxes, labels=None, size=(48, 64), **more):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels)
    return Record(path=name, image_id=name, size=size, boxes=boxes, labels=labels, **more)


def kinds(found):
    return {f.kind: f for f in found.findings}


def test_T2_inspect_bccd_counts_and_known_quirks(real):
    found = inspect_data(load_data(real("bccd")), duplicates=False)
    facts = found.facts
    assert (facts["images"], facts["readable"]) == (364, 364)
    assert facts["classes"] == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert facts["modes"] == {"RGB": 364}
    assert facts["sizes"]["common"] == [[640, 480, 364]]
    objects = facts["objects"]
    assert objects["count"] == 361 + 4153 + 372
    assert objects["per_image"]["most"] == 30
    assert objects["touch_border"] == 1182  # the readme's, within a pixel
    seen = kinds(found)
    assert seen["reader"].count == 2
    assert seen["double box"].count == 8  # the readme's pairs of IoU above 0.8
    assert "broken image" not in seen
    assert "box outside" not in seen
    json.dumps(found.to_dict(), allow_nan=False)


def test_T2_inspect_finds_what_was_planted_in_images(tmp_path):
    for k in range(12):
        picture(tmp_path, f"a/{k}.png")
    picture(tmp_path, "b/good.jpg")
    out = io.BytesIO()
    Image.open(tmp_path / "a/0.png").save(out, "JPEG")
    (tmp_path / "b/cut.jpg").write_bytes(out.getvalue()[:-200])
    Image.open(tmp_path / "a/1.png").save(tmp_path / "b/liar.jpg", format="PNG")
    Image.new("RGB", (30, 30), (7, 7, 7)).save(tmp_path / "b/blank.png")
    Image.new("L", (30, 9)).save(tmp_path / "b/low.png")
    Image.open(tmp_path / "a/2.png").convert("RGBA").save(tmp_path / "b/alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path, "b/turned.jpg", exif=exif)
    frames = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (20, 20), dtype=np.uint8)) for k in range(3)]
    frames[0].save(tmp_path / "b/film.gif", save_all=True, append_images=frames[1:])
    Image.fromarray((np.arange(400).reshape(20, 20) * 160).astype(np.uint16)).save(tmp_path / "b/deep.png")
    found = inspect_data(load_data(tmp_path), duplicates=False, workers=0)
    seen = kinds(found)
    planted = {
        "broken image": "cut.jpg", "suffix": "liar.jpg", "blank image": "blank.png", "tiny image": "low.png", "transparency": "alpha.png",
        "EXIF turn": "turned.jpg", "several frames": "film.gif", "more than 8 bits": "deep.png",
    }  # fmt: skip
    for kind, name in planted.items():
        assert any(name in place for place in seen[kind].examples), kind
    assert [seen[k].count for k in ("broken image", "suffix", "EXIF turn", "transparency", "more than 8 bits")] == [1] * 5
    assert found.findings[0].level == "error"
    assert [48, 64, 1] in found.facts["sizes"]["values"]  # the turned photo, upright


def test_T2_inspect_finds_what_was_planted_in_boxes(tmp_path):
    for k in range(6):
        picture(tmp_path, f"{k}.png")
    points = np.zeros((1, 2, 3), np.float32)
    points[0] = [[10, 10, 2], [90, 10, 2]]
    records = [
        record("0.png", [[1, 1, 30, 30], [1, 1, 30, 29]]),  # IoU 0.966, one class
        record("1.png", [[1, 1, 30, 30], [1, 1, 30, 29.5]], [0, 1]),  # two classes
        record("2.png", [[40, 40, 80, 47]]),  # outside
        record("3.png", [[5, 5, 6, 20]]),  # one pixel wide
        record("4.png", [[5, 5, 50, 40]], size=(480, 640)),  # states another size
        record("5.png", [[5, 5, 40, 40]], keypoints=points),
    ]
    seen = kinds(inspect_data(Dataset(boxes_index(tmp_path, records, ("a", "b", "never"))), duplicates=False, workers=0))
    planted = {"double box": "0.png", "two classes": "1.png", "box outside": "2.png", "tiny object": "3.png", "size mismatch": "4.png",
               "point outside": "5.png", "absent class": "never", "rare class": "b: 1"}  # fmt: skip
    for kind, name in planted.items():
        assert seen[kind].count >= 1, kind
        assert any(name in place for place in seen[kind].examples), kind
    assert [seen[k].count for k in ("double box", "two classes", "box outside", "size mismatch", "point outside")] == [1] * 5


def test_T2_inspect_counts_objects_by_hand(tmp_path):
    for k in range(3):
        picture(tmp_path, f"{k}.png", size=(200, 100))
    records = [
        record("0.png", [[0, 0, 10, 10], [50, 20, 150, 70]], size=(100, 200), iscrowd=np.array([False, True])),
        record("1.png", [[0, 0, 200, 100]], size=(100, 200)),
        record("2.png", [], size=(100, 200)),
    ]
    objects = inspect_data(Dataset(boxes_index(tmp_path, records)), duplicates=False, workers=0).facts["objects"]
    assert objects["count"] == 3
    assert objects["coco_sizes"] == {"small": 1, "medium": 1, "large": 1}  # areas 100, 5000, 20000 against 32^2 and 96^2
    assert objects["per_image"] == {"least": 0, "mean": 1.0, "most": 2}
    assert (objects["images_without"], objects["crowd"], objects["touch_border"]) == (1, 1, 2)
    assert objects["side_share"]["50"] == 0.5  # sqrt(5000 / 20000)


def test_T2_inspect_masks_of_another_size_or_class(tmp_path):
    for k in range(3):
        picture(tmp_path, f"images/{k}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = np.zeros((48, 64), np.uint8)
        mask[:12] = 1
        Image.fromarray(mask).save(tmp_path / f"masks/{k}.png")
    Image.new("L", (64, 47)).save(tmp_path / "masks/1.png")
    Image.fromarray(np.full((48, 64), 9, np.uint8)).save(tmp_path / "masks/2.png")
    (tmp_path / "classes.json").write_text('["ground", "sky"]')
    found = inspect_data(load_data(tmp_path), duplicates=False, workers=0)
    broken = kinds(found)["broken mask"]
    assert broken.count == 2
    assert "64x47" in broken.examples[0]
    assert "9" in broken.examples[1]
    assert found.facts["masks"]["sky"] == {"share": 0.25, "images": 1}


def test_T2_inspect_wbc_dataset_2_stray_values_do_not_break(real):
    data = load_data(real("wbc_segmentation") / "Dataset 2", format="masks")
    found = inspect_data(data, duplicates=False)
    assert found.facts["readable"] == 60
    assert "broken mask" not in kinds(found)
    shares = [round(one["share"], 3) for one in found.facts["masks"].values()]
    np.testing.assert_allclose(shares, [0.776, 0.126, 0.098], atol=2e-3)  # the readme's


def test_T2_inspect_hymenoptera_gif(real):
    """imageNotFound.gif is a picture, in palette mode, and the only one that is no JPEG."""
    found = inspect_data(load_data(real("hymenoptera")), duplicates=False)
    assert found.facts["modes"] == {"RGB": 95, "P": 1}
    assert found.facts["kinds"] == {"JPEG": 95, "GIF": 1}
    assert found.findings == []


def test_T2_inspect_finds_leaks_and_duplicates(tmp_path):
    for split in ("train", "test"):
        for k in range(15):
            picture(tmp_path, f"{split}/a/{split}{k}.png")
            picture(tmp_path, f"{split}/b/{split}{k}.png", seed=1)
    (tmp_path / "test/a/copy.png").write_bytes((tmp_path / "train/a/train3.png").read_bytes())
    Image.open(tmp_path / "train/b/train5.png").save(tmp_path / "test/b/near.jpg", quality=60)
    found = inspect_data(load_data(tmp_path), workers=0)
    leak = kinds(found)["leak"]
    assert leak.level == "error"
    assert leak.count == 2
    assert any("copy.png" in e and "train3.png" in e for e in leak.examples)
    assert any("near.jpg" in e and "train5.png" in e for e in leak.examples)
    quick = [f for f in quick_findings(load_data(tmp_path, "train")) if f.kind == "leak"]
    assert len(quick) == 1
    assert quick[0].count == 1


def test_T2_train_refuses_leaks_unless_told(tmp_path):
    for split in ("train", "val"):
        for k in range(6):
            picture(tmp_path, f"data/{split}/a/{split}{k}.png", size=(32, 32))
            picture(tmp_path, f"data/{split}/b/{split}{k}.png", size=(32, 32), seed=1)
    (tmp_path / "data/val/a/copy.png").write_bytes((tmp_path / "data/train/a/train3.png").read_bytes())
    options = {"epochs": 1, "report": False, "out": tmp_path / "runs", "workers": 0}
    with pytest.raises(UsageError, match=r"copy\.png.*train3\.png.*--allow-leaks"):
        saccade.train("lenet5", tmp_path / "data", **options)
    assert not (tmp_path / "runs").exists()
    said = []
    saccade.train("lenet5", tmp_path / "data", allow_leaks=True, say=said.append, **options)
    assert any("stand in another split" in line for line in said)


def test_T2_inspect_writes_a_page_of_one_file(tmp_path, real):
    found = saccade.inspect(real("raccoon"), format="voc", out=tmp_path / "page.html", duplicates=False)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") >= 1
    assert 'src="data:image/webp;base64,' in page
    assert "http" not in page.split("<style>")[1].split("</style>")[0]
    for finding in found.findings:
        assert finding.kind in page
    lines = summary(found)
    assert any("129 images" in line for line in lines)
    assert any(line.startswith("note: mixed colour") for line in lines)  # three grey JPEGs
    assert kinds(found)["mixed colour"].count == 3


def test_T2_inspect_is_the_same_with_workers(tmp_path):
    for k in range(40):
        picture(tmp_path, f"a/{k}.png")
    (tmp_path / "a/bad.png").write_bytes(b"no picture")
    data = load_data(tmp_path)
    assert inspect_data(data, workers=2).to_dict() == inspect_data(data, workers=0).to_dict()


def test_T2_inspect_empty_truth_and_one_image(tmp_path):
    picture(tmp_path, "0.png")
    data = Dataset(boxes_index(tmp_path, [record("0.png", [])]))
    found = inspect_data(data, workers=0)
    assert found.facts["objects"]["count"] == 0
    assert kinds(found)["absent class"].count == 2


def test_T2_inspect_takes_no_crowd_for_a_double_box(tmp_path):
    """A crowd lies over single objects by design."""
    picture(tmp_path, "0.png")
    twice = [[1, 1, 30, 30], [1, 1, 30, 29]]
    for crowd, expected in ((False, {"double box"}), (True, set())):
        one = record("0.png", twice, iscrowd=np.array([False, crowd]))
        seen = kinds(inspect_data(Dataset(boxes_index(tmp_path, [one])), duplicates=False, workers=0))
        assert {"double box", "two classes"} & set(seen) == expected, crowd


def test_T2_inspect_box_limits_are_width_and_height(tmp_path):
    """Two boxes that leave a wide image, and one that leaves it only if its sides were exchanged."""
    for name in ("0.png", "1.png", "2.png"):
        picture(tmp_path, name, size=(64, 48))
    records = [record("0.png", [[5, 5, 60, 20]]), record("1.png", [[5, 5, 20, 60]]), record("2.png", [[5, 5, 70, 20]])]
    seen = kinds(inspect_data(Dataset(boxes_index(tmp_path, records)), duplicates=False, workers=0))
    assert sorted(place.split(":")[0] for place in seen["box outside"].examples) == ["1.png", "2.png"]


def test_T2_inspect_tells_imbalance_and_classes_missing_in_a_split(tmp_path):
    picture(tmp_path, "0.png")
    picture(tmp_path, "1.png")
    many = [[k % 8, k // 8, k % 8 + 5 + k / 7, k // 8 + 6] for k in range(50)]
    splits = {"train": np.array([0]), "test": np.array([1])}
    for count, expected in ((50, True), (49, False)):
        records = [record("0.png", many[:count]), record("1.png", [[1, 1, 20, 20]], [1])]
        found = quick_findings(Dataset(boxes_index(tmp_path, records, splits=splits)))
        seen = {f.kind: f for f in found}
        assert ("imbalance" in seen) == expected, count
        assert sorted(seen["class missing in a split"].examples) == ["test: a", "train: b"]
    whole = [record(name, [[1, 1, 20, 20], [1, 1, 9, 9]], [0, 1]) for name in ("0.png", "1.png")]
    quiet = {f.kind for f in quick_findings(Dataset(boxes_index(tmp_path, whole, splits=splits)))}
    assert not {"imbalance", "class missing in a split"} & quiet
