"""CSV tables of landmarks: the real set, dialects, malformed tables, write then read."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import csv_points, detect_format, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()


def make(root: Path, files: dict[str, str | bytes], images=("im/a.png", "im/b.png")) -> Path:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    for name, text in files.items():
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def said(index):
    return "\n".join(one_line(p) for p in index.problems)


def test_T1_csvpoints_facial_keypoints(real):
    root = real("facial_keypoints")
    assert detect_format(root) == ("csvpoints", "test_frames_keypoints.csv has columns of 68 points")
    index = read_data(root)
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 83, "test": 30}
    assert (index.tasks, index.classes, index.keypoint_names) == (("pose", "detect"), ["object"], [str(k) for k in range(68)])
    texts = [one_line(p) for p in index.problems]
    outside = [t for t in texts if "outside the" in t]
    assert len(outside) == len(texts) == 2
    assert all("training_frames_keypoints.csv: line 8" in t for t in texts)  # the last two rows: 83 and 84
    with open(root / "training_frames_keypoints.csv", newline="") as file:
        truth = {row[0]: np.array(row[1:], float).reshape(-1, 2) for row in list(csv.reader(file))[1:]}
    for record in (index.records[i] for i in index.splits["train"]):
        points = truth[record.path.removeprefix("training/")]
        assert record.keypoints.shape == (1, 68, 3)
        np.testing.assert_array_equal(record.keypoints[0, :, :2], points.astype(np.float32))
        assert (record.keypoints[..., 2] == 2).all()
        height, width = record.size
        expected = np.concatenate([points.min(0), points.max(0)]).clip(0, [width, height, width, height])
        np.testing.assert_array_equal(record.boxes[0], expected.astype(np.float32))
    sample = Dataset(index)[0]  # a PNG of four channels named .jpg
    assert sample.image.shape[0] == 3
    assert sample.target["keypoints"].shape == (1, 68, 2)


def test_T1_csvpoints_facial_keypoints_written_and_read_again(real, tmp_path):
    before = read_data(real("facial_keypoints"))
    assert write_data(Dataset(before), tmp_path / "out", "csvpoints") == ["113 image ids change to the paths of their files"]
    again = read_data(tmp_path / "out")
    assert again.keypoint_names == before.keypoint_names
    assert {s: v.tolist() for s, v in again.splits.items()} == {s: v.tolist() for s, v in before.splits.items()}
    for a, b in zip(before.records, again.records, strict=True):
        assert a.size == b.size
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.keypoints, b.keypoints)


DIALECTS = {
    "numbers": (",0,1,2,3\na.png,1,2,3,4\n", ["0", "1"]),
    "x0 y0": ("image,x0,y0,x1,y1,x2,y2\na.png,1,2,3,4,5,6\n", ["0", "1", "2"]),
    "x_1 y_1": ("id;x_1;y_1;x_2;y_2;x_3;y_3;image\n7;1;2;3;4;5;6;a.png\n", ["1", "2", "3"]),
    "names": ("filename,nose_x,nose_y,left eye_x,left eye_y\nim/a.png,1,2,3,4\n", ["nose", "left eye"]),
    "Kaggle": ("left_eye_center_x,left_eye_center_y,nose_tip_x,nose_tip_y,Image\n1,2,3,4,a.png\n", ["left_eye_center", "nose_tip"]),
    "one point": ("image,pupil_x,pupil_y\na.png,1,2\n", ["pupil"]),
    "another order": ("image,a_y,a_x,b_y,b_x\na.png,2,1,4,3\n", ["a", "b"]),
    "tabs": ("image\ta_x\ta_y\tb_x\tb_y\na\t1\t2\t3\t4\n", ["a", "b"]),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_T1_csvpoints_dialects(tmp_path, name):
    text, names = DIALECTS[name]
    root = make(tmp_path, {"labels.csv": text})
    assert detect_format(root)[0] == "csvpoints"
    index = read_data(root)
    assert index.keypoint_names == names
    truth = np.arange(1, 2 * len(names) + 1, dtype=np.float32).reshape(-1, 2)
    assert index.records[0].keypoints[0].tolist() == [[x, y, 2] for x, y in truth.tolist()]
    box = [0.5, 1.5, 1.5, 2.5] if name == "one point" else [*truth[0], *truth[-1]]
    assert index.records[0].boxes.tolist() == [box]


@pytest.mark.parametrize(
    "header",
    [
        "image,xmin,ymin,xmax,ymax,class", "image,x1,y1,x2,y2,label", "image,x0,y0,x1,y1,label",
        "image,bbox_x,bbox_y,bbox_width,bbox_height,class",
        "image,min_x,min_y,max_x,max_y,label", "image,center_x,center_y,width,height,label", "image,x,y,w,h,class", "filepath,label",
        "nose_x,nose_y", "", "image,0,1,2", "image,1,2,3,4",
    ],
)  # fmt: skip
def test_T1_csvpoints_tables_of_boxes_are_others(tmp_path, header):
    assert csv_points.sniff(make(tmp_path, {"labels.csv": header + "\na.png,1,2,3,4,x\n"})) is None


def test_T1_csvpoints_columns_beside_the_points(tmp_path):
    text = "image,class,a_x,a_y,a_v,b_x,b_y,b_v,xmin,ymin,xmax,ymax,split\n"
    text += "a.png,cat,1,2,1,,,0,0,0,10,20,train\na.png,dog,5,6,2,7,8,0,1,1,70,9,train\nb.png,,,,,,,,,,,,val\n"
    index = read_data(make(tmp_path, {"labels.csv": text}))
    a, b = index.records
    assert a.keypoints.tolist() == [[[1, 2, 1], [0, 0, 0]], [[5, 6, 2], [7, 8, 0]]]
    assert a.boxes.tolist() == [[0, 0, 10, 20], [1, 1, 64, 9]]
    assert [index.classes[k] for k in a.labels] == ["cat", "dog"]
    assert (b.boxes.shape, b.keypoints.shape) == ((0, 4), (0, 2, 3))
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0], "val": [1]}
    assert "its box leaves the image; it is cut" in said(index)


HEAD = "image,a_x,a_y,b_x,b_y\n"
BROKEN = {
    "empty": (b"", "holds no table of points"),
    "carriage return in the header": ("image,a_x,a_y\r,b_x,b_y\nb.png,1,2,3,4\n", "holds no table of points"),
    "header alone": (HEAD, "names no image that is there"),
    "no image column": ("a_x,a_y,b_x,b_y\n1,2,3,4\n", "holds no table of points"),
    "short row": (HEAD + "a.png,1\nb.png,1,2,3,4\n", "has 2 fields, the header 5"),
    "missing image": (HEAD + "b.png,1,2,3,4\nnix.png,1,2,3,4\n", "no image 'nix.png'"),
    "leaves the root": (HEAD + "b.png,1,2,3,4\n../secret.png,1,2,3,4\n", "lies outside"),
    "absolute": (HEAD + "b.png,1,2,3,4\n/etc/passwd,1,2,3,4\n", "no image '/etc/passwd'"),
    "nul": (HEAD + "b.png,1,2,3,4\n\0,1,2,3,4\n", "no image"),
    "words": (HEAD + "b.png,one,2,3,4\n", "'one' is no coordinate; the point is not labelled"),
    "infinite": (HEAD + "b.png,inf,2,3,4\n", "'inf' is no coordinate"),
    "huge": (HEAD + "b.png,1e300,2,3,4\n", "'1e300' is no coordinate"),
    "long number": (HEAD + "b.png," + "9" * 5000 + ",2,3,4\n", "is no coordinate"),
    "no points": (HEAD + "b.png,1,2,3,4\na.png,nan,nan,,\n", "has no box and no point"),
    "outside": (HEAD + "b.png,-5,2,100,4\n", "2 points lie outside the 64 x 48 image; kept"),
    "all outside": (HEAD + "b.png,1,2,3,4\na.png,500,500,600,600\n", ""),
    "latin-1": ((HEAD + "b.png,1,2,3,4\ncaf\u00e9.png,1,2,3,4\n").encode("latin-1"), "is not UTF-8"),
    "unclosed quote": (HEAD + 'b.png,1,2,3,4\n"a.png,1,2,3,4\n', ""),
    "huge field": (HEAD + "b.png,1,2,3,4\n" + "x" * 200_000 + "\n", "is no CSV"),
    "endless line": (HEAD + "b.png,1,2,3,4\n" + "x" * 2_000_000, "million characters"),
    "a broken image": (HEAD + "b.png,1,2,3,4\nc.png,1,2,3,4\n", "c.png"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_csvpoints_malformed(tmp_path, name):
    text, expected = BROKEN[name]
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", {"labels.csv": text})
    (root / "im/c.png").write_bytes(PNG[:30])
    try:
        index = csv_points.read(root)
        message = said(index)
        assert any(r.path == "im/b.png" for r in index.records)
        for record in index.records:
            assert np.isfinite(record.keypoints).all()
            assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
    except DataError as error:
        message = one_line(error)
        assert str(root) in message
    assert expected in message


def test_T1_csvpoints_tables_that_do_not_fit(tmp_path):
    files = {
        "train.csv": HEAD + "a.png,1,2,3,4\n", "val.csv": "image,c_x,c_y,d_x,d_y\nb.png,1,2,3,4\n", "other.csv": "x\n1\n",
        "test.csv": HEAD + "b.png,1,2,3,4\na.png,9,9,9,9\n", "all.csv": HEAD + "b.png,1,2,3,4\n",
    }  # fmt: skip
    index = read_data(make(tmp_path, files))
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [1], "test": [0, 1]} or set(index.splits) == {"train", "test"}
    for part in ("val.csv: has other points", "other.csv: has no columns of points", "all.csv: is of no split"):
        assert part in said(index)


@FUZZ
@given(st.binary(max_size=200) | st.tuples(st.integers(0, 60), st.binary(max_size=6)), st.booleans())
def test_T1_csvpoints_any_bytes_give_data_or_one_line(tmp_path_factory, change, after):
    raw = (HEAD + "a.png,1,2,3,4\nb.png,5,6,7,8\n").encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    root = make(tmp_path_factory.mktemp("fuzz"), {"labels.csv": HEAD.encode() + raw if after else raw})
    try:
        index = csv_points.read(root)
    except DataError as error:
        one_line(error)
        return
    said(index)
    for record in index.records:
        assert np.isfinite(record.keypoints).all()
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


@st.composite
def sets(draw):
    points = draw(st.integers(1, 3))
    number = st.floats(-5, 70, width=32)
    records = []
    for k in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 2))
        keypoints = np.array(
            draw(st.lists(st.tuples(number, number, st.integers(0, 2)), min_size=count * points, max_size=count * points)), np.float32
        )
        keypoints = keypoints.reshape(count, points, 3)
        boxes = np.zeros((count, 4), np.float32)
        for i in range(count):
            derived = csv_points.extent(keypoints[i][keypoints[i, :, 2] > 0].astype(np.float64), (48, 64))
            own = draw(st.booleans()) or derived is None or not (derived[2:].astype(np.float32) > derived[:2].astype(np.float32)).all()
            boxes[i] = [1, 2, draw(st.floats(2, 60, width=32)), 9] if own else derived
        labels = np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)), np.int64)
        records.append(Record(f"images/p{k}.png", f"images/p{k}.png", (48, 64), boxes=boxes, labels=labels, keypoints=keypoints))
    return points, records


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(sets(), st.permutations(["zebra", 'a, "b"']), st.booleans())
def test_T1_csvpoints_write_then_read_gives_the_same(tmp_path_factory, made, classes, divided):
    points, records = made
    folder = tmp_path_factory.mktemp("write")
    make(folder, {}, [r.path for r in records])
    splits = {"train": np.arange(1), "fold 2": np.arange(1, len(records))} if divided and len(records) > 1 else {}
    names = ["nose", "left, eye", "0"][:points]
    index = DataIndex("made", folder, classes, PackedRecords(records), tasks=("pose",), splits=splits, keypoint_names=names)
    losses = write_data(Dataset(index), folder / "out", "csvpoints")
    assert losses == []
    again = read_data(folder / "out", "csvpoints")
    assert (again.classes, again.keypoint_names) == (classes, names)
    assert not [t for t in map(str, again.problems) if "outside the 64 x 48 image; kept" not in t]
    for before, after in zip(records, again.records, strict=True):
        assert (after.path, after.size, after.labels.tolist()) == (before.path, before.size, before.labels.tolist())
        assert np.array_equal(after.boxes, before.boxes)
        assert np.array_equal(after.keypoints, before.keypoints)
    assert [v.tolist() for v in again.splits.values()] == [v.tolist() for v in splits.values()]


def test_T1_csvpoints_losses_and_data_without_points(tmp_path, real):
    with pytest.raises(UsageError, match="these data have none"):
        write_data(Dataset(read_data(real("bccd"))).subset(range(3)), tmp_path / "out", "csvpoints")
    make(tmp_path, {})
    record = Record(
        "im/a.png",
        "a",
        boxes=np.array([[1, 1, 5, 5]], np.float32),
        labels=np.array([0]),
        keypoints=np.ones((1, 2, 3), np.float32),
        captions=["x"],
    )
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords([record]), tasks=("pose",), keypoint_names=["min", "a"])
    losses = "; ".join(write_data(Dataset(index), tmp_path / "out", "csvpoints"))
    assert "1 captions" in losses
    assert "the names of the points change" in losses
    assert read_data(tmp_path / "out").keypoint_names == ["point 0", "point 1"]
