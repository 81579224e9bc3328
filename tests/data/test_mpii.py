"""MPII's list of persons: real files, what it means, hostile files, and write-then-read."""

import copy
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import coco, detect_format, mpii, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def png(width=640, height=480):
    out = io.BytesIO()
    Image.new("L", (width, height), 80).save(out, "PNG")
    return out.getvalue()


PNG = png()
VALID = [
    {"image": "a.png", "joints": [[10, 20.5], [-1, -1]], "joints_vis": [1, 0], "center": [300, 200], "scale": 1.5},
    {"image": "a.png", "joints": [[30, 40], [50, 60]], "joints_vis": [1, 1], "center": [20.0, 30.0], "scale": 1},
]


def make(root, data=VALID, name="train.json"):
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "images" / "a.png").write_bytes(PNG)
    (root / "annot").mkdir(exist_ok=True)
    (root / "annot" / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return root


def one_line(error):
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def test_T1_mpii_file_of_pose_samples(real):
    path = real("pose_samples") / "mpii" / "test_mpii.json"
    index = mpii.read(path)
    assert index.problems == []
    assert len(index) == 5
    assert (index.classes, index.tasks) == (["person"], ("pose", "detect"))
    assert index.keypoint_names == mpii.JOINTS
    assert [index.keypoint_names[k] for k in index.keypoint_swap[:3]] == ["left_ankle", "left_knee", "left_hip"]
    truth = {p["image"]: p for p in json.loads(path.read_text())}
    for record in index.records:
        person = truth[record.path]
        assert record.keypoints.shape == (1, 16, 3)
        assert ((record.keypoints[0, :, 2] == 2) == np.array(person["joints_vis"], bool)).all()
        seen = np.array(person["joints_vis"], bool)
        assert np.allclose(record.keypoints[0, seen, :2], np.array(person["joints"])[seen], atol=1e-4)
        x1, y1, x2, y2 = record.boxes[0]
        xy = record.keypoints[0, seen, :2]
        assert ((xy >= [x1, y1]) & (xy <= [x2, y2])).all(1).mean() > 0.8
        assert Dataset(index)[0].target["keypoints"].shape == (1, 16, 2)


def test_T1_mpii_what_it_means(tmp_path):
    index = mpii.read(make(tmp_path))
    assert index.problems == []
    (record,) = index.records
    assert (record.image_id, record.size, record.labels.tolist()) == ("a", (480, 640), [0, 0])
    assert record.boxes.tolist() == [[150, 50, 450, 350], [0, 0, 120, 130]]  # squares of 300 and 200, the second cut off
    assert record.keypoints.tolist() == [[[10, 20.5, 2], [0, 0, 0]], [[30, 40, 2], [50, 60, 2]]]
    assert record.extra["center"].tolist() == [[300, 200], [20, 30]]
    assert index.keypoint_names == ["0", "1"]
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0]}


def test_T1_mpii_sniff(tmp_path, real):
    assert mpii.sniff(tmp_path) is None
    root = make(tmp_path)
    assert "train.json" in mpii.sniff(root)
    assert mpii.sniff(root / "annot" / "train.json")
    assert coco.sniff(root) is None
    assert detect_format(root)[0] == "mpii"
    folder = real("pose_samples") / "mpii"
    assert "1 MPII JSON file: test_mpii.json" in mpii.sniff(folder)
    assert mpii.sniff(folder / "test_mpii_trb.json") is None


def test_T1_mpii_written_and_read_again(real, tmp_path):
    index = mpii.read(real("pose_samples") / "mpii" / "test_mpii.json")
    assert write_data(Dataset(index), tmp_path / "out", "mpii") == []
    again = mpii.read(tmp_path / "out")
    assert again.splits == {}
    for a, b in zip(index.records, again.records, strict=True):
        assert (a.image_id, a.size) == (b.image_id, b.size)
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.keypoints, b.keypoints)
        assert np.array_equal(a.extra["center"], b.extra["center"])
        assert np.array_equal(a.extra["scale"], b.extra["scale"])


BROKEN = {
    "empty": b"", "cut off": json.dumps(VALID).encode()[:100], "bytes": bytes(range(256)), "a dict": b"{}", "null": b"null",
    "a number": b"7",
    "deep": b"[" * 100_000, "huge number": b"[" + b"9" * 9999 + b"]", "empty list": b"[]", "numbers": b"[1, 2]", "lists": b"[[]]",
    "no image": [{k: v for k, v in VALID[0].items() if k != "image"}], "image a number": [{**VALID[0], "image": 4}],
    "image missing": [{**VALID[0], "image": "z.png"}], "image outside": [{**VALID[0], "image": "../../../etc/passwd"}],
    "outside the image": [{**VALID[0], "center": [9000, 9000]}], "utf-16": json.dumps(VALID).encode("utf-16")[:-1],
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_T1_mpii_a_broken_file_is_one_line(tmp_path, name):
    root = make(tmp_path, BROKEN[name])
    with pytest.raises(DataError) as caught:
        mpii.read(root / "annot" / "train.json")
    if name != "outside the image":
        assert "train.json" in one_line(caught.value)


FLAWED = {
    "center a word": {"center": "x"}, "center of three": {"center": [1, 2, 3]}, "center NaN": {"center": [1, float("nan")]},
    "center far": {"center": [1e9, 3]}, "no center": {"center": None}, "scale zero": {"scale": 0}, "scale negative": {"scale": -2},
    "scale NaN": {"scale": float("nan")}, "scale huge": {"scale": 10**400}, "scale a word": {"scale": "1"},
    "joints a word": {"joints": "x"}, "joints of three": {"joints": [[1, 2, 3], [1, 2, 3]]}, "joints missing": {"joints": [[1, 2]]},
    "joints inf": {"joints": [[float("inf"), 2]] * 2},
    "vis 2": {"joints_vis": [2, 1]}, "vis a word": {"joints_vis": ["a", 1]}, "vis missing": {"joints_vis": None},
    "other number": {"joints": [[1, 2]] * 3, "joints_vis": [1] * 3},
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWED)
def test_T1_mpii_a_flawed_person_is_skipped(tmp_path, name):
    data = copy.deepcopy(VALID)
    data[1] |= FLAWED[name]
    index = mpii.read(make(tmp_path, data))
    assert len(index.records[0].boxes) == 1
    text = one_line(index.problems[0])
    assert "train.json: [1]:" in text
    assert "skipped" in text


@FUZZ
@given(st.tuples(st.integers(0, 250), st.binary(max_size=4), st.integers(0, 3)))
def test_T1_mpii_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = json.dumps(VALID).encode()
    at, new, gone = change
    root = make(tmp_path_factory.mktemp("fuzz"), raw[:at] + new + raw[at + gone :])
    mpii.sniff(root)
    try:
        index = mpii.read(root / "annot" / "train.json")
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for record in index.records:
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


coordinate = st.floats(0, 400, width=32)


@st.composite
def persons(draw):
    joints = [[draw(coordinate), draw(coordinate)] if draw(st.booleans()) else None for _ in range(3)]
    points = [[0, 0, 0] if j is None else [*j, 2] for j in joints]
    return points, [draw(st.floats(50, 500)), draw(st.floats(50, 400))], draw(st.floats(0.25, 5))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(persons(), min_size=1, max_size=3), min_size=1, max_size=2))
def test_T1_mpii_write_then_read_gives_the_same(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("write")
    records = []
    for k, people in enumerate(made):
        (folder / f"p{k}.png").write_bytes(PNG)
        center, scale = np.array([p[1] for p in people]), np.array([p[2] for p in people])
        half = scale[:, None] * 100
        boxes = np.hstack([center - half, center + half]).clip(0, [640, 480, 640, 480]).astype(np.float32)
        points = np.array([p[0] for p in people], np.float32)
        records.append(Record(f"p{k}.png", f"p{k}", (480, 640), boxes=boxes, labels=np.zeros(len(people), np.int64), keypoints=points,
                              extra={"center": center, "scale": scale}))  # fmt: skip
    index = DataIndex("made", folder, ["person"], PackedRecords(records), tasks=("pose",), keypoint_names=["0", "1", "2"],
                      splits={"val": np.arange(len(records))})  # fmt: skip
    assert write_data(Dataset(index), folder / "out", "mpii") == []
    again = mpii.read(folder / "out")
    assert again.problems == []
    assert again.splits["val"].tolist() == list(range(len(records)))
    for a, b in zip(records, again.records, strict=True):
        assert (a.image_id, a.size) == (b.image_id, b.size)
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.keypoints, b.keypoints)


def test_T1_mpii_write_names_what_is_lost(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    boxes = np.array([[10, 20, 50, 60], [10, 20, 50, 100]], np.float32)
    points = np.array([[[11, 22, 1]], [[30, 40, 2]]], np.float32)
    made = [Record("a.png", "1", boxes=boxes, labels=np.array([0, 1]), keypoints=points),
            Record("b.png", "b", boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))]  # fmt: skip
    index = DataIndex("made", tmp_path, ["man", "dog"], PackedRecords(made), tasks=("pose",), keypoint_names=["nose"])
    losses = write_data(Dataset(index), tmp_path / "out", "mpii")
    assert any(t.startswith("1 images without a person") for t in losses)
    assert any(t.startswith("2 classes become one") for t in losses)
    assert any(t.startswith("1 image ids change") for t in losses)
    assert any(t.startswith("1 boxes become squares") for t in losses)
    assert any(t.startswith("1 hidden key points") for t in losses)
    assert mpii.read(tmp_path / "out").records[0].boxes.tolist() == [[10, 20, 50, 60], [0, 20, 70, 100]]
