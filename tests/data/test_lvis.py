"""LVIS JSON: what it means, apart from COCO, hostile files, and write-then-read."""

import copy
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import coco, detect_format, lvis, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
URL = "http://images.example.org/"


def png(width=64, height=48):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (9, 80, 200)).save(out, "PNG")
    return out.getvalue()


PNG = png()
VALID = {
    "info": {"version": "v1"},
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4.5, 5, 10, 12], "area": 60.0, "segmentation": [[4.5, 5, 14, 5, 14, 17]]},
        {"id": 2, "image_id": 9, "category_id": 1203, "bbox": [0, 0, 64, 48], "area": 10, "segmentation": [[0, 0, 64, 0, 64, 48]]},
    ],
    "images": [
        {"id": 7, "coco_url": URL + "train2017/a.png", "width": 64, "height": 48, "neg_category_ids": [5],
         "not_exhaustive_category_ids": [3]},
        {"id": 9, "coco_url": URL + "val2017/b.png", "width": 64, "height": 48, "neg_category_ids": [], "not_exhaustive_category_ids": []},
    ],
    "categories": [
        {"id": 1203, "name": "zucchini", "synset": "zucchini.n.02", "synonyms": ["zucchini", "courgette"], "def": "a marrow",
         "frequency": "c", "image_count": 40, "instance_count": 61},
        {"id": 3, "name": "air_conditioner", "synset": "air_conditioner.n.01", "synonyms": ["air_conditioner"], "def": "keeps air cool",
         "frequency": "f", "image_count": 364, "instance_count": 1000},
        {"id": 5, "name": "alarm_clock", "synset": "alarm_clock.n.01", "synonyms": [], "def": "", "frequency": "r", "image_count": 2,
         "instance_count": 2},
    ],
}  # fmt: skip


def make(root, data=VALID, name="lvis_v1_train.json"):
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True, exist_ok=True)
    (root / "train2017" / "a.png").write_bytes(PNG)
    (root / "val2017" / "b.png").write_bytes(PNG)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return root


def one_line(error):
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def test_T1_lvis_what_it_means(tmp_path):
    index = lvis.read(make(tmp_path))
    assert index.problems == []
    assert (index.format, index.tasks) == ("lvis", ("detect",))
    assert (index.classes, index.category_ids) == (["air_conditioner", "alarm_clock", "zucchini"], [3, 5, 1203])
    a, b = index.records
    assert (a.path, b.path) == ("train2017/a.png", "val2017/b.png")  # LVIS mixes COCO's splits
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0, 1]}
    assert a.boxes.tolist() == [[4.5, 5, 14.5, 17]]
    assert (a.labels.tolist(), b.labels.tolist()) == ([0], [2])
    assert a.extra["neg_category_ids"] == [5]
    assert a.extra["not_exhaustive_category_ids"] == [3]
    assert index.extra["categories"]["zucchini"] == {k: v for k, v in VALID["categories"][0].items() if k not in ("id", "name")}
    assert Dataset(index)[0].target["masks"].shape == (1, 48, 64)


def test_T1_lvis_is_recognised_apart_from_coco(tmp_path):
    root = make(tmp_path)
    file = root / "annotations" / "lvis_v1_train.json"
    assert "lvis_v1_train.json" in lvis.sniff(root)
    assert coco.sniff(root) is None
    assert coco.sniff(file) is None
    assert lvis.sniff(file)
    assert detect_format(root)[0] == "lvis"
    plain = {k: v for k, v in VALID.items() if k != "categories"} | {"categories": [{"id": 3, "name": "x"}]}
    plain["images"] = [{"id": 7, "file_name": "a.png"}]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "instances.json").write_text(json.dumps(plain))
    assert lvis.sniff(tmp_path / "c") is None
    assert coco.sniff(tmp_path / "c")


def test_T1_lvis_marks_are_found_at_either_end_of_a_large_file(tmp_path):
    data = copy.deepcopy(VALID)
    data["annotations"] = data["annotations"] * 20_000  # 3 MB between the head and the images
    root = make(tmp_path, {"categories": VALID["categories"], **{k: v for k, v in data.items() if k != "categories"}})
    assert lvis.sniff(root)
    assert coco.sniff(root) is None


def test_T1_lvis_file_names_and_urls(tmp_path):
    data = copy.deepcopy(VALID)
    data["images"][0] |= {"coco_url": URL + "train2017/a.png?x=1"}
    data["images"][1] = {"id": 9, "file_name": "val2017/b.png"}
    assert [r.path for r in lvis.read(make(tmp_path, data)).records] == ["train2017/a.png", "val2017/b.png"]
    assert [r.path for r in read_data(tmp_path / "annotations" / "lvis_v1_train.json").records] == ["train2017/a.png", "val2017/b.png"]


def test_T1_lvis_written_and_read_again(tmp_path):
    index = lvis.read(make(tmp_path / "in"))
    assert write_data(Dataset(index), tmp_path / "out", "lvis") == []
    again = lvis.read(tmp_path / "out")
    assert again.problems == []
    assert again.extra == index.extra
    assert (again.classes, again.category_ids) == (index.classes, index.category_ids)
    for a, b in zip(index.records, again.records, strict=True):
        assert (a.image_id, a.size) == (b.image_id, b.size)
        assert np.array_equal(a.boxes, b.boxes)
        assert {k: v for k, v in a.extra.items() if k != "area"} == {k: v for k, v in b.extra.items() if k != "area"}
        assert np.array_equal(a.extra["area"], b.extra["area"])


def test_T1_lvis_counts_are_made_when_there_are_none_and_losses_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    made = [Record("a.png", "1", (48, 64), boxes=np.array([[1, 2, 3, 4], [1, 2, 5, 6]], np.float32), labels=np.array([1, 1]),
                   iscrowd=np.array([True, False]))]  # fmt: skip
    index = DataIndex("made", tmp_path, ["cat", "dog"], PackedRecords(made), tasks=("detect",))
    losses = write_data(Dataset(index), tmp_path / "out", "lvis")
    assert losses == ["1 crowd flags are lost: LVIS JSON has no place for them"]
    assert (tmp_path / "out" / "annotations" / "lvis_v1.json").is_file()
    again = lvis.read(tmp_path / "out")
    assert again.splits == {}
    dog = again.extra["categories"]["dog"]
    assert (dog["image_count"], dog["instance_count"], dog["frequency"]) == (1, 2, "r")


BROKEN = {
    "empty": b"", "cut off": json.dumps(VALID).encode()[:300], "bytes": bytes(range(256)), "a list": b"[]", "a number": b"7",
    "null": b"null",
    "deep": b"[" * 100_000, "utf-16": json.dumps(VALID).encode("utf-16")[:99], "no images": {**VALID, "images": []},
    "images a dict": {**VALID, "images": {}}, "images missing": {k: v for k, v in VALID.items() if k != "images"},
    "annotations a word": {**VALID, "annotations": "x"}, "categories a number": {**VALID, "categories": 5},
    "no categories": {**VALID, "categories": []}, "images are numbers": {**VALID, "images": [1, 2]},
    "paths outside": {**VALID, "images": [{"id": 7, "coco_url": "../../etc/passwd"}]},
    "a url of nothing": {**VALID, "images": [{"id": 7, "coco_url": "///"}]},
    "a url a number": {**VALID, "images": [{"id": 7, "coco_url": 5}]},
    "a huge number": b'{"images": [' + b"9" * 10_000 + b"]}",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_T1_lvis_a_broken_file_is_one_line(tmp_path, name):
    root = make(tmp_path, BROKEN[name])
    with pytest.raises(DataError) as caught:
        lvis.read(root / "annotations" / "lvis_v1_train.json")
    assert "lvis_v1_train.json" in one_line(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("neg_category_ids", "x"),
        ("neg_category_ids", [1, "a", None, 2.5, True]),
        ("not_exhaustive_category_ids", {}),
        ("neg_category_ids", [10**30]),
    ],
)
def test_T1_lvis_flawed_lists_of_categories_are_left_out(tmp_path, key, value):
    data = copy.deepcopy(VALID)
    data["images"][0][key] = value
    record = lvis.read(make(tmp_path, data)).records[0]
    assert record.extra.get(key, []) in ([], [1])
    assert len(record.boxes) == 1


@FUZZ
@given(st.tuples(st.integers(0, 1800), st.binary(max_size=4), st.integers(0, 3)))
def test_T1_lvis_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = json.dumps(VALID).encode()
    at, new, gone = change
    root = make(tmp_path_factory.mktemp("fuzz"), raw[:at] + new + raw[at + gone :])
    lvis.sniff(root)
    try:
        index = lvis.read(root / "annotations" / "lvis_v1_train.json")
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for record in index.records:
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


side = st.floats(0.5, 14, width=32)


@st.composite
def objects(draw):
    x, y, w, h = draw(st.floats(0, 40, width=32)), draw(st.floats(0, 30, width=32)), draw(side), draw(side)
    polygon = np.array(draw(st.lists(st.floats(0, 40, width=32), min_size=6, max_size=6)), np.float32).reshape(-1, 2)
    box = np.array([x, y, np.float32(x + w), np.float32(y + h)], np.float32)
    return box, draw(st.integers(0, 1)), [polygon] if draw(st.booleans()) else None, draw(st.floats(0, 1000))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.lists(objects(), max_size=3), st.lists(st.sampled_from([5, 17]), max_size=2)), min_size=1, max_size=3))
def test_T1_lvis_write_then_read_gives_the_same(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("write")
    records = []
    for k, (things, absent) in enumerate(made):
        (folder / f"p{k}.png").write_bytes(PNG)
        records.append(Record(
            f"p{k}.png", str(k), (48, 64), boxes=np.array([t[0] for t in things], np.float32).reshape(-1, 4),
            labels=np.array([t[1] for t in things], np.int64), segments=[t[2] for t in things],
            extra={"area": np.array([t[3] for t in things]), "neg_category_ids": absent, "not_exhaustive_category_ids": []},
        ))  # fmt: skip
    index = DataIndex("made", folder, ["cat", "dog"], PackedRecords(records), tasks=("detect",), category_ids=[5, 17],
                      splits={"val": np.arange(len(records))})  # fmt: skip
    assert write_data(Dataset(index), folder / "out", "lvis") == []
    again = lvis.read(folder / "out")
    assert again.problems == []
    assert again.splits["val"].tolist() == list(range(len(records)))
    outlined = any(s is not None for r in records for s in r.segments)
    for a, b in zip(records, again.records, strict=True):
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.extra["area"], b.extra["area"])
        assert a.extra["neg_category_ids"] == b.extra["neg_category_ids"]
        if outlined:
            for s, t in zip(a.segments, b.segments, strict=True):
                assert (s is None) == (t is None)
                assert s is None or np.array_equal(s[0], t[0])


def test_T1_lvis_a_category_that_holds_a_segmentation_is_no_traceback(tmp_path):
    """Found by the fuzzer: the reader packs the numbers of anything called segmentation."""
    data = copy.deepcopy(VALID)
    data["categories"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    index = lvis.read(make(tmp_path, data))
    assert len(index) == 2
    assert write_data(Dataset(index), tmp_path / "out", "lvis") is not None
