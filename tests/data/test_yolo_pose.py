"""YOLO key points: kpt_shape, flip_idx, kpt_names; hostile lines; write-then-read."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.compare import differences
from saccade.data.dataset import Dataset
from saccade.data.formats import coco, read_data, write_data, yolo
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import SaccadeError

OUT = io.BytesIO()
Image.new("RGB", (80, 40), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()
CONFIG = "names: [cat]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nkpt_names:\n  0: [left, right]\n"
BOX = "0 0.5 0.5 0.5 0.5"


def make(folder, lines, config=CONFIG):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "images/a.png").write_bytes(PNG)
    (folder / "labels/a.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    (folder / "data.yaml").write_text(config)
    return folder


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def text(index):
    return "\n".join(map(one_line, index.problems))


def test_T1_yolo_key_points_of_three_numbers(tmp_path):
    index = yolo.read(make(tmp_path, f"{BOX} 0.25 0.5 2 0.75 0.125 1\n{BOX} 0 0 0 1 1 2.0\n{BOX}\n"))
    record = index.records[0]
    assert (index.tasks, index.keypoint_names, index.keypoint_swap) == (("detect", "pose"), ["left", "right"], [1, 0])
    assert record.keypoints.tolist() == [[[20, 20, 2], [60, 5, 1]], [[0, 0, 0], [80, 40, 2]], [[0, 0, 0], [0, 0, 0]]]
    assert record.boxes.tolist() == [[20, 10, 60, 30]] * 3
    assert record.segments is None
    assert text(index) == ""
    target = load_data(tmp_path, task="pose")[0].target
    assert target["visibility"].tolist() == [[2, 1], [0, 2], [0, 0]]


def test_T1_yolo_key_points_of_two_numbers(tmp_path):
    index = yolo.read(make(tmp_path, f"{BOX} 0.25 0.5 0 0\n", "names: [cat]\nkpt_shape: [2, 2]\n"))
    assert index.records[0].keypoints.tolist() == [[[20, 20, 2], [0, 0, 0]]]
    assert (index.keypoint_names, index.keypoint_swap) == (["0", "1"], [0, 1])


@pytest.mark.parametrize(
    ("lines", "config", "message"),
    [
        (f"{BOX} 0.5 0.5 2\n", CONFIG, "a.txt: line 1: has 3 numbers behind the box, 2 key points of 3 make 6; they are left out"),
        (f"{BOX} 0.5 0.5 2 0.5 0.5 2 1\n", CONFIG, "a.txt: line 1: has 7 numbers behind the box"),
        (
            f"{BOX} 0.5 0.5 3 0.5 0.5 2\n",
            CONFIG,
            "a.txt: line 1: 1 key points are no fractions with visibility 0, 1 or 2 (point 1: 0.5 0.5 3)",
        ),
        (f"{BOX} 0.5 0.5 2 nan 0.5 2\n", CONFIG, "a.txt: line 1: 1 key points are no fractions"),
        (f"{BOX} 0.5 0.5 2 0.5 inf 2\n", CONFIG, "a.txt: line 1: 1 key points are no fractions"),
        (f"{BOX} 0.5 0.5 nan 0.5 1e308 2\n", CONFIG, "a.txt: line 1: 2 key points are no fractions"),
        (f"{BOX} 320 200 2 0.5 0.5 2\n", CONFIG, "(point 1: 320 200 2); they are unmarked"),
        (f"{BOX} x 0.5 2 0.5 0.5 2\n", CONFIG, "a.txt: line 1: is not numbers"),
        ("0 0.5 0.5\n" + BOX, CONFIG, "a.txt: line 1: has 3 numbers"),
        (BOX, "names: [cat]\nkpt_shape: [0, 3]\n", "data.yaml: kpt_shape is [0, 3], not [number of points, 2 or 3]"),
        (BOX, "names: [cat]\nkpt_shape: [17, 4]\n", "data.yaml: kpt_shape is [17, 4]"),
        (BOX, "names: [cat]\nkpt_shape: [99999999999, 3]\n", "data.yaml: kpt_shape is [99999999999, 3]"),
        (BOX, "names: [cat]\nkpt_shape: 17\n", "data.yaml: kpt_shape is 17"),
        (BOX, "names: [cat]\nkpt_shape: [yes, 3]\n", "data.yaml: kpt_shape is ['yes', 3]"),
        (BOX, "names: [cat]\nkpt_shape: [2, 3]\nflip_idx: [0, 0]\n", "data.yaml: flip_idx is no permutation of 0..1"),
        (BOX, "names: [cat]\nkpt_shape: [2, 3]\nflip_idx: x\n", "data.yaml: flip_idx is no permutation"),
        (BOX, "names: [cat]\nkpt_shape: [2, 3]\nkpt_names: [a]\n", "data.yaml: kpt_names are not 2 names"),
        (BOX, "names: [cat]\nkpt_shape: [2, 3]\nkpt_names: {0: {a: b}}\n", "data.yaml: kpt_names are not 2 names"),
    ],
)
def test_T1_yolo_key_points_malformed(tmp_path, lines, config, message):
    index = yolo.read(make(tmp_path, lines, config))
    assert message in text(index)
    assert len(Dataset(index)[0].target["boxes"]) == ("is not numbers" not in message)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_T1_yolo_key_points_mutated(data):
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder) / "in", f"{BOX} 0.25 0.5 2 0.75 0.125 1\n")
        path = root / data.draw(st.sampled_from(["labels/a.txt", "data.yaml"]))
        good = path.read_bytes()
        at = data.draw(st.integers(0, len(good)))
        path.write_bytes(good[:at] + data.draw(st.binary(max_size=6)) + good[at + data.draw(st.integers(0, 4)) :])
        try:
            Dataset(read_data(root, "yolo"))[0]
        except SaccadeError as error:
            one_line(error)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_T1_yolo_key_points_write_then_read(seed, points):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = []
        for k in range(2):
            (root / f"{k}.png").write_bytes(PNG)
            count = int(rng.integers(0, 4))
            corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * [80, 40]
            spots = np.concatenate([rng.uniform(-20, 90, (count, points, 2)), rng.integers(0, 3, (count, points, 1))], -1)
            boxes = corners.reshape(-1, 4).astype(np.float32)
            labels = rng.integers(0, 2, count)
            records.append(Record(f"{k}.png", f"{k}", (40, 80), boxes=boxes, labels=labels, keypoints=spots.astype(np.float32)))
        names, swap = [f"p{k}" for k in range(points)], rng.permutation(points).tolist()
        splits = {"train": np.array([0]), "val": np.array([1])}
        index = DataIndex("t", root, ["b", "a"], PackedRecords(records), splits, ("pose",), keypoint_names=names, keypoint_swap=swap)
        losses = write_data(Dataset(index), root / "out", "yolo")
        far = sum(int((np.abs(r.keypoints[..., :2] / [80, 40] - 0.5).max(-1) > 1.5)[r.keypoints[..., 2] > 0].sum()) for r in records)
        assert bool(losses) == bool(far)
        after = yolo.read(root / "out")
        assert (after.keypoint_names, after.keypoint_swap, after.classes) == (names, swap, ["b", "a"])
        assert differences(Dataset(index), Dataset(after), yolo.HOLDS, losses) == []
        assert text(after) == ""


def test_T1_yolo_key_points_of_coco(real, tmp_path):
    source = coco.read(real("coco_mini"))
    source.tasks = ("pose", *(t for t in source.tasks if t != "pose"))
    data = Dataset(source).subset(range(30))
    losses = write_data(data, tmp_path / "out", "yolo")
    assert [line for line in losses if "key points" in line] == []
    after = Dataset(read_data(tmp_path / "out"))
    assert after.index.keypoint_names == source.keypoint_names
    assert after.index.keypoint_swap == source.keypoint_swap
    assert differences(data, after, yolo.HOLDS, losses) == []
    truth = sum(int((r.keypoints[..., 2] > 0).sum()) for r in source.records[:30] if r.keypoints is not None)
    again = sum(int((r.keypoints[..., 2] > 0).sum()) for r in after.index.records)
    assert truth == again > 0
