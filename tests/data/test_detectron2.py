"""detectron2's dataset dicts: what they mean, hostile files, and write-then-read."""

import copy
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import coco, detect_format, detectron2, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def png(width=64, height=48):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (9, 80, 200)).save(out, "PNG")
    return out.getvalue()


PNG = png()
VALID = [
    {"file_name": "images/a.png", "height": 48, "width": 64, "image_id": 7, "annotations": [
        {"bbox": [4, 5, 14, 17], "bbox_mode": 0, "category_id": 1, "iscrowd": 1, "keypoints": [5, 6, 2, 0, 0, 0],
         "segmentation": [[4, 5, 14, 5, 14, 17]]},
        {"bbox": [4, 5, 10, 12], "bbox_mode": "XYWH_ABS", "category_id": 0,
         "segmentation": {"size": [48, 64], "counts": [0, 10, 3062]}},
    ]},
    {"file_name": "images/b.png", "height": 48, "width": 64, "image_id": 9, "annotations": []},
]  # fmt: skip
METADATA = {"thing_classes": ["cat", "dog"], "keypoint_names": ["left_eye", "right_eye"]}


def make(root, data=VALID, metadata=METADATA, name="train.json"):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for image in ("a.png", "b.png"):
        (root / "images" / image).write_bytes(PNG)
    (root / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    if metadata is not None:
        (root / "metadata.json").write_text(json.dumps(metadata))
    return root


def changed(*path, value):
    data = copy.deepcopy(VALID)
    node = data
    for key in path[:-1]:
        node = node[key]
    if value is DELETE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return data


DELETE = object()
FIRST = (0, "annotations", 0)


def one_line(error):
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def test_T1_detectron2_what_it_means(tmp_path):
    index = detectron2.read(make(tmp_path))
    assert index.problems == []
    assert (index.format, index.tasks, index.classes) == ("detectron2", ("detect", "pose"), ["cat", "dog"])
    assert (index.keypoint_names, index.keypoint_swap) == (["left_eye", "right_eye"], [1, 0])
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0, 1]}
    a, b = index.records
    assert (a.image_id, a.path, a.size) == ("7", "images/a.png", (48, 64))
    assert a.boxes.tolist() == [[4, 5, 14, 17], [4, 5, 14, 17]]  # the two modes
    assert a.labels.tolist() == [1, 0]
    assert a.iscrowd.tolist() == [True, False]
    assert a.keypoints.tolist() == [[[5, 6, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert a.segments[0][0].tolist() == [[4, 5], [14, 5], [14, 17]]
    assert a.segments[1] == {"size": [48, 64], "counts": [0, 10, 3062]}
    assert b.boxes.shape == (0, 4)


def test_T1_detectron2_boxes_are_those_of_coco(real, tmp_path):
    """coco_mini turned into dicts by hand, with both modes: the same records as from COCO's own file."""
    root = real("coco_mini")
    truth = coco.read(root / "annotations" / "instances_val2017.json")
    data = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    label = {n: k for k, n in enumerate(sorted(c["id"] for c in data["categories"]))}
    dicts = []
    for image in data["images"]:
        mine = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        rows = []
        for k, a in enumerate(mine):
            x, y, w, h = a["bbox"]
            box = {"bbox": [x, y, x + w, y + h], "bbox_mode": 0} if k % 2 else {"bbox": a["bbox"], "bbox_mode": 1}
            rows.append({**box, "category_id": label[a["category_id"]], "segmentation": a["segmentation"], "iscrowd": a["iscrowd"]})
        name = f"/somewhere/else/val2017/{image['file_name']}"  # absolute, as detectron2 registers them
        dicts.append({"file_name": name, "height": image["height"], "width": image["width"], "image_id": image["id"], "annotations": rows})
    (tmp_path / "val.json").write_text(json.dumps(dicts))
    (tmp_path / "classes.txt").write_text("\n".join(truth.classes))
    index = detectron2.read(tmp_path, check_files=False)
    assert index.classes == truth.classes
    assert len(index) == len(truth) == 40
    for a, b in zip(index.records, truth.records, strict=True):
        assert np.allclose(a.boxes, b.boxes, atol=1e-4)
        assert np.array_equal(a.labels, b.labels)


def test_T1_detectron2_absolute_names_count_by_their_last_parts(tmp_path):
    data = copy.deepcopy(VALID)
    data[0]["file_name"], data[1]["file_name"] = "/home/me/data/images/a.png", "C:\\data\\images\\b.png"
    assert [r.path for r in detectron2.read(make(tmp_path, data)).records] == ["images/a.png", "images/b.png"]


def test_T1_detectron2_classes_from_a_table_or_by_number(tmp_path):
    root = make(tmp_path, metadata=None)
    index = detectron2.read(root)
    assert (index.classes, index.keypoint_names) == (["0", "1"], ["0", "1"])
    (root / "classes.txt").write_text("katze\nhund\nmaus\n")
    assert detectron2.read(root).classes == ["katze", "hund", "maus"]


def test_T1_detectron2_semantic_masks_are_reported(tmp_path):
    index = detectron2.read(make(tmp_path, changed(0, "sem_seg_file_name", value="a_mask.png")))
    assert "1 semantic masks" in one_line(index.problems[0])


def test_T1_detectron2_sniff(tmp_path):
    assert detectron2.sniff(tmp_path) is None
    root = make(tmp_path)
    assert "1 detectron2 JSON file: train.json" in detectron2.sniff(root)
    assert detectron2.sniff(root / "train.json")
    assert detectron2.sniff(root / "metadata.json") is None
    assert coco.sniff(root) is None
    assert detect_format(root)[0] == "detectron2"


BROKEN = {
    "empty": b"", "cut off": json.dumps(VALID).encode()[:150], "bytes": bytes(range(256)), "a dict": b"{}", "null": b"null",
    "a number": b"3",
    "deep": b"[" * 100_000, "huge number": b"[" + b"9" * 9999 + b"]", "empty list": b"[]", "numbers": b"[1, 2]", "lists": b"[[], []]",
    "utf-16": json.dumps(VALID).encode("utf-16")[:-1], "no file names": [{"annotations": []}], "names are numbers": [{"file_name": 5}],
    "missing images": [{"file_name": "z.png", "annotations": []}], "outside": [{"file_name": "../../a.png", "annotations": []}],
    "absolute outside": [{"file_name": "/etc/passwd", "annotations": []}], "NUL": [{"file_name": "a\x00b", "annotations": []}],
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_T1_detectron2_a_broken_file_is_one_line(tmp_path, name):
    root = make(tmp_path, BROKEN[name])
    with pytest.raises(DataError) as caught:
        detectron2.read(root / "train.json")
    assert "train.json" in one_line(caught.value)


def test_T1_detectron2_neither_objects_nor_names(tmp_path):
    with pytest.raises(DataError, match="neither objects nor names"):
        detectron2.read(make(tmp_path, [VALID[1]], metadata=None))


FLAWED = {
    "mode 2": ((*FIRST, "bbox_mode"), 2, 1, "bbox_mode 2"),
    "mode a word": ((*FIRST, "bbox_mode"), "REL", 1, "bbox_mode 'REL'"),
    "mode null": ((*FIRST, "bbox_mode"), None, 1, "bbox_mode None"),
    "box null": ((*FIRST, "bbox"), None, 2, "polygon's is taken"),
    "box of three": ((*FIRST, "bbox"), [1, 2, 3], 1, "no box of four numbers"),
    "box of words": ((*FIRST, "bbox"), ["a"] * 4, 1, "no box of four numbers"),
    "box NaN": ((*FIRST, "bbox"), [4, float("nan"), 14, 17], 1, "no box of four numbers"),
    "box turned": ((*FIRST, "bbox"), [14, 5, 4, 17], 1, "without area"),
    "box huge": ((*FIRST, "bbox"), [0, 0, 10**400, 3], 1, "no box of four numbers"),
    "box outside": ((*FIRST, "bbox"), [100, 0, 120, 3], 1, "outside the image"),
    "category 2": ((*FIRST, "category_id"), 2, 1, "unknown category 2"),
    "category a list": ((*FIRST, "category_id"), [1], 1, "unknown category"),
    "category negative": ((*FIRST, "category_id"), -1, 1, "unknown category"),
    "points too few": ((*FIRST, "keypoints"), [1, 2, 3], 2, "key points are not 2"),
    "polygon of words": ((*FIRST, "segmentation"), [["a"] * 6], 2, "polygons are not"),
    "annotation a number": (FIRST, 5, 1, "not an object"),
    "annotations a word": ((0, "annotations"), "x", 0, "no list"),
    "image a word": ((1,), "x", 2, "no dict of an image"),
    "size a word": ((0, "height"), "x", 2, "are no size"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWED)
def test_T1_detectron2_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    path, value, objects, message = FLAWED[name]
    index = detectron2.read(make(tmp_path, changed(*path, value=value)))
    assert sum(len(r.boxes) for r in index.records) == objects
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "train.json" in t for t in texts)


@pytest.mark.parametrize("metadata", [[], {}, {"thing_classes": "cat"}, {"thing_classes": [1, 2]}, {"thing_classes": []}, 5])
def test_T1_detectron2_flawed_metadata_is_not_used(tmp_path, metadata):
    index = detectron2.read(make(tmp_path, metadata=metadata))
    assert index.classes == ["0", "1"]
    assert "metadata.json" in one_line(index.problems[0])


@FUZZ
@given(st.tuples(st.integers(0, 700), st.binary(max_size=4), st.integers(0, 3)))
def test_T1_detectron2_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = json.dumps(VALID).encode()
    at, new, gone = change
    root = make(tmp_path_factory.mktemp("fuzz"), raw[:at] + new + raw[at + gone :])
    detectron2.sniff(root)
    try:
        index = detectron2.read(root / "train.json")
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for record in index.records:
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


@st.composite
def objects(draw):
    x, y = draw(st.floats(0, 40, width=32)), draw(st.floats(0, 30, width=32))
    box = np.array([x, y, x + draw(st.floats(0.5, 14, width=32)), y + draw(st.floats(0.5, 14, width=32))], np.float32)
    polygon = np.array(draw(st.lists(st.floats(0, 40, width=32), min_size=6, max_size=6)), np.float32).reshape(-1, 2)
    points = [
        [draw(st.floats(0, 40, width=32)), draw(st.floats(0, 40, width=32)), draw(st.sampled_from([0.0, 1.0, 2.0]))] for _ in range(2)
    ]
    n = draw(st.integers(0, 3000))
    segment = draw(st.sampled_from([None, [polygon], {"size": [48, 64], "counts": [n, 3072 - n]}]))
    return box, draw(st.integers(0, 2)), draw(st.booleans()), segment, points, draw(st.floats(0, 100))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(objects(), max_size=3), min_size=1, max_size=3))
def test_T1_detectron2_write_then_read_gives_the_same(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("write")
    records = []
    for k, things in enumerate(made):
        (folder / f"p{k}.png").write_bytes(PNG)
        crowd = np.array([t[2] for t in things], bool)
        records.append(Record(
            f"p{k}.png", str(k + 3), (48, 64), boxes=np.array([t[0] for t in things], np.float32).reshape(-1, 4),
            labels=np.array([t[1] for t in things], np.int64), iscrowd=crowd if crowd.any() else None, segments=[t[3] for t in things],
            keypoints=np.array([t[4] for t in things], np.float32).reshape(-1, 2, 3), extra={"area": np.array([t[5] for t in things])},
        ))  # fmt: skip
    index = DataIndex("made", folder, ["cat", "dog", "cow"], PackedRecords(records), tasks=("detect",), keypoint_names=["left", "right"],
                      keypoint_swap=[1, 0], splits={"train": np.arange(len(records))})  # fmt: skip
    assert write_data(Dataset(index), folder / "out", "detectron2") == []
    again = detectron2.read(folder / "out")
    assert again.problems == []
    assert (again.classes, again.keypoint_names, again.keypoint_swap) == (index.classes, ["left", "right"], [1, 0])
    assert again.splits["train"].tolist() == list(range(len(records)))
    outlined = any(s is not None for r in records for s in r.segments)
    for a, b in zip(records, again.records, strict=True):
        assert (a.image_id, a.size, f"images/{a.path}") == (b.image_id, b.size, b.path)
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.keypoints, b.keypoints)
        assert np.array_equal(a.extra["area"], b.extra["area"])
        assert (a.iscrowd is None) == (b.iscrowd is None)
        if outlined:
            for s, t in zip(a.segments, b.segments, strict=True):
                assert s == t if not isinstance(s, list) else np.array_equal(s[0], t[0])


def test_T1_detectron2_write_names_what_is_lost(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    made = [Record("a.png", "photo", label=0, boxes=np.array([[1, 2, 3, 4.5]], np.float32), labels=np.array([0]), captions=["x"])]
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords(made), tasks=("detect",))
    losses = write_data(Dataset(index), tmp_path / "out", "detectron2")
    assert any("1 labels of whole images" in t for t in losses)
    assert any("1 captions" in t for t in losses)
    assert any("not numbers" in t for t in losses)
    again = detectron2.read(tmp_path / "out")
    assert again.records[0].boxes.tolist() == [[1, 2, 3, 4.5]]
    assert again.splits == {}
