"""differences: what is told, what is excused, how images and objects find each other; and ``saccade data convert --check``."""

import copy
import dataclasses

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from saccade.cli.main import app
from saccade.data.compare import differences, excused, match_images, match_objects, outline_difference
from saccade.data.dataset import Dataset
from saccade.data.formats import format_module, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record

ALL = frozenset({"label", "boxes", "crowd", "segments", "keypoints", "mask", "captions"})
SQUARE = np.array([[1, 1], [5, 1], [5, 5], [1, 5]], dtype=np.float32)


def record(k):
    return Record(
        f"{k}.png", f"{k}", (8, 10), label=k % 2, boxes=np.array([[1, 1, 5, 5], [2, 2, 9, 7]], dtype=np.float32),
        labels=np.array([0, 1]), iscrowd=np.array([False, True]), segments=[[SQUARE], None],
        keypoints=np.array([[[1, 2, 2], [3, 4, 1]], [[0, 0, 0], [0, 0, 0]]], dtype=np.float32), mask=f"{k}_m.png", captions=["one", "two"],
    )  # fmt: skip


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(tmp_path / f"{k}.png")
        Image.fromarray(rng.integers(0, 2, (8, 10), dtype=np.uint8)).save(tmp_path / f"{k}_m.png")
    splits = {"train": np.array([0, 1]), "val": np.array([2])}
    tasks = ("detect", "classify", "segment", "pose", "caption")
    return Dataset(DataIndex("t", tmp_path, ["cat", "dog"], PackedRecords(map(record, range(4))), splits, tasks))


def changed(data, number=1, **fields):
    """The data with one record changed."""
    records = list(data.index.records)
    records[number] = dataclasses.replace(records[number], **fields)
    return Dataset(dataclasses.replace(data.index, records=PackedRecords(records)))


def test_T1_compare_equal_data(data):
    assert differences(data, data, ALL) == []
    assert differences(data, Dataset(copy.deepcopy(data.index)), ALL) == []


BOXES = np.array([[1, 1, 5, 5], [2, 2, 9, 7]], dtype=np.float32)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"label": 0}, "1.png: was 'dog' and is 'cat'"),
        ({"label": None}, "1.png: has lost its label"),
        ({"boxes": BOXES + np.float32(0.01)}, "1.png: object 1: its box was 1 1 5 5 and is 1.01 1.01 5.01 5.01"),
        ({"boxes": None, "segments": None, "keypoints": None}, "1.png: object 1 (cat) is missing"),
        ({"iscrowd": None}, "1.png: object 2: its crowd flag was True"),
        ({"segments": None}, "1.png: object 1: has lost its outline"),
        ({"segments": [[SQUARE], [SQUARE]]}, "1.png: object 2: has an outline and had none"),
        ({"segments": [[SQUARE + 1], None]}, "1.png: object 1: its outline differs in 14 of 23 pixels"),
        ({"keypoints": record(1).keypoints + np.float32([0.5, 0, 0])}, "1.png: object 1: a key point moves by 0.5 pixels"),
        ({"keypoints": None}, "1.png: object 1: 2 of its 2 key points were marked; now 0 of 0, or with another visibility"),
        ({"mask": None}, "1.png: has lost its mask"),
        ({"mask": "2_m.png"}, "pixels of its mask are of another class"),
        ({"captions": ["one"]}, "1.png: has lost the caption 'two'"),
        ({"captions": ["two", "one"]}, "1.png: has lost the caption 'their order'"),
        ({"captions": ["one", "two", "3"]}, "1.png: has a caption that it had not: '3'"),
        ({"size": (8, 9)}, "1.png: was 10x8 and is 9x8"),
    ],
)
def test_T1_compare_tells(data, fields, told):
    lines = differences(data, changed(data, **fields), ALL)
    assert told in "\n".join(lines)
    assert not any("\n" in line for line in lines)
    held = {"label": "label", "iscrowd": "crowd", "segments": "segments", "keypoints": "keypoints", "mask": "mask", "captions": "captions"}
    if len(fields) == 1 and (word := held.get(*fields)):
        assert differences(data, changed(data, **fields), ALL - {word}) == []


def test_T1_compare_splits_classes_images_pixels(data, tmp_path):
    other = dataclasses.replace(data.index, splits={"train": np.array([0]), "val": np.array([2])})
    assert differences(data, Dataset(other), ALL) == ["1.png: was in train and is in no split"]
    other = dataclasses.replace(data.index, splits={"training": np.array([0, 1]), "val2017": np.array([2])})
    assert differences(data, Dataset(other), ALL) == []
    other = dataclasses.replace(data.index, classes=["cat", "wolf"])
    lines = differences(data, Dataset(other), frozenset({"label"}))
    assert lines[:2] == ["the class 'dog' is missing", "the class 'wolf' is there and was not before"]
    assert "1.png: was 'dog' and is 'wolf'" in lines
    assert differences(data, data.subset([0, 1, 2]), ALL) == ["3.png: is missing"]
    assert differences(data.subset([0, 1, 2]), data, ALL) == ["3.png: is there and was not before"]
    Image.new("RGB", (10, 8)).save(tmp_path / "black.png")
    lines = differences(data, changed(data, path="black.png"), ALL)
    assert lines == ["1.png: its pixels changed"]


def test_T1_compare_class_order_does_not_count(data):
    flipped = [dataclasses.replace(r, label=1 - r.label, labels=1 - r.labels) for r in data.index.records]
    index = dataclasses.replace(data.index, classes=["dog", "cat"], records=PackedRecords(flipped), mask_values={0: 1, 1: 0})
    assert differences(data, Dataset(index), ALL) == []


def test_T1_compare_caps_and_excuses(data):
    moved = [dataclasses.replace(r, boxes=r.boxes + 1) for r in data.index.records]
    after = Dataset(dataclasses.replace(data.index, records=PackedRecords(moved)))
    lines = differences(data, after, ALL)
    assert len(lines) == 6
    assert lines[-1] == "3 more differences of objects"
    assert differences(data, after, ALL, tolerance=1) == []
    assert differences(data, after, ALL, ["8 boxes are moved"]) == []
    assert differences(data, after, ALL, ["the boxes are moved"]) == []
    assert differences(data, after, ALL, ["7 boxes are moved"])[-1] == "3 more differences of objects; 7 were stated"
    assert differences(data, after, ALL, ["9 outlines are lost"]) == lines


def test_T1_compare_reads_what_the_writers_say():
    assert excused(["3 images without a label are left out"]) == {"images": 3, "labels": 3}
    assert excused(["400 file names are lost", "12 image ids change to the stems of their files"]) == {}
    assert excused(["5 class masks are lost: X has no place for them"]) == {"masks": 5}
    assert excused(["the class 'a/b' becomes the folder 'a_b'"]) == {"classes": float("inf")}
    assert excused(["2 boxes are lost", "1 boxes and outlines are left out"]) == {"objects": 3, "outlines": 1}


def test_T1_compare_images_are_matched_by_content(data, tmp_path):
    names = ["b", "d", "a", "c"]
    for k, name in enumerate(names):
        (tmp_path / f"{name}.png").write_bytes((tmp_path / f"{k}.png").read_bytes())
    Image.open(tmp_path / "2.png").save(tmp_path / "a.png", compress_level=0)  # encoded again: the pixels are equal
    Image.open(tmp_path / "3.png").convert("L").save(tmp_path / "c.png")
    records = [dataclasses.replace(r, path=f"{names[k]}.png") for k, r in enumerate(data.index.records)]
    after = Dataset(dataclasses.replace(data.index, records=PackedRecords(records)), [3, 1, 0, 2])
    pairs, missing, extra, equal = match_images(data, after)
    assert (pairs, missing, extra) == ([(k, k) for k in range(4)], [], [])
    assert equal == {(0, 0), (1, 1), (2, 2)}
    assert differences(data, after, ALL) == ["3.png: its pixels changed"]
    assert differences(data, after, ALL, ["the colours of 1 images are lost: grey"]) == []


def test_T1_compare_objects_find_their_own():
    before = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 9, 9], [1, 1, 3, 3]], dtype=float)
    after = before[[2, 0, 1]]
    same = np.ones((4, 3), dtype=bool)
    assert match_objects(before, after, same, 1e-3) == [(0, 1), (1, 2), (2, 0)]
    same[2] = False
    assert (2, 0) not in match_objects(before, after, same, 1e-3)
    assert match_objects(before, after[:0], same[:, :0], 1e-3) == []


def test_T1_compare_outlines_within_rounding():
    assert outline_difference([SQUARE], [SQUARE + np.float32(1e-4)], (8, 10)) == ""
    assert "malformed" in outline_difference([SQUARE], {"size": [8, 10], "counts": "zzz\xff"}, (8, 10))
    assert outline_difference(None, None, (8, 10)) == ""


def test_T1_convert_check(data, tmp_path, monkeypatch):
    source = tmp_path / "source"
    write_data(Dataset(dataclasses.replace(data.index, tasks=("detect",))), source, "voc")
    runner = CliRunner()
    good = runner.invoke(app, ["data", "convert", str(source), str(tmp_path / "out"), "--to", "yolo", "--check"])
    assert good.exit_code == 0, good.output
    assert "nothing else differs" in good.output
    module = format_module("yolo")
    plain = module.write

    def broken(dataset, out):
        losses = plain(dataset, out)
        file = next((out / "labels").rglob("0.txt"))
        file.write_text(file.read_text().partition("\n")[2])
        return losses

    monkeypatch.setattr(module, "write", broken)
    bad = runner.invoke(app, ["data", "convert", str(source), str(tmp_path / "bad"), "--to", "yolo", "--check"])
    assert bad.exit_code == 1
    assert "differs: JPEGImages/0.png: object 1 (cat) is missing" in bad.output


def test_T1_compare_a_set_with_itself_read_again(real):
    index = read_data(real("bccd"))
    assert differences(Dataset(index).subset(range(5)), Dataset(read_data(real("bccd"))).subset(range(5)), ALL) == []
