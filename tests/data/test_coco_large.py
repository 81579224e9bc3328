"""Large COCO files, whose annotations are taken out of the JSON while it is read, give what small ones give; and outlines in arrays."""

import copy
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.formats import coco, coco_batches, coco_reader
from saccade.data.records import PackedRecords, Record
from saccade.data.segments import Segments, joined
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def png():
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (9, 80, 200)).save(out, "PNG")
    return out.getvalue()


def annotation(number, image, category=3, **other):
    x, y = 2 * number, number
    polygon = [x, y, x + 6, y, x + 6.5, y + 9.25]
    return {"id": number, "image_id": image, "category_id": category, "bbox": [x, y, 6.5, 9.25], "area": 30.5, "iscrowd": 0,
            "segmentation": [polygon, polygon[::-1]], **other}  # fmt: skip


VALID = {
    "images": [{"id": k, "file_name": f"{k}.png", "width": 64, "height": 48} for k in (7, 9)],
    "annotations": [annotation(1, 9), annotation(2, 7, segmentation={"size": [48, 64], "counts": [0, 10, 3062]}, iscrowd=1),
                    annotation(3, 9, 90, segmentation=[]), annotation(4, 7), annotation(5, 9, area=None), annotation(6, 7)],
    "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
}  # fmt: skip
FLAWS = {
    "none": {}, "unknown image": {"image_id": 8}, "image id a word": {"image_id": "9"}, "image id null": {"image_id": None},
    "unknown category": {"category_id": 4}, "category a word": {"category_id": "3"}, "box NaN": {"bbox": [1, float("nan"), 2, 2]},
    "box of words": {"bbox": ["a"] * 4}, "box of three": {"bbox": [1, 2, 3]}, "box null": {"bbox": None},
    "box empty": {"bbox": [1, 1, 0, 3]}, "box outside": {"bbox": [90, 3, 4, 4]}, "box over the border": {"bbox": [-9, 5, 20, 10]},
    "id twice": {"id": 1}, "id null": {"id": None}, "id a word": {"id": "x"}, "crowd a word": {"iscrowd": "x"},
    "area negative": {"area": -3}, "polygon odd": {"segmentation": [[1, 2, 3]]}, "polygon words": {"segmentation": [["a"] * 6]},
    "one polygon flat": {"segmentation": [1, 2, 3, 4, 5, 7]}, "mask a word": {"segmentation": "x"},
    "code broken": {"segmentation": {"size": [48, 64], "counts": "PQ"}}, "huge id": {"image_id": 2**70},
    "key points": {"keypoints": [1, 2, 2]}, "a caption": {"caption": "words"},
    "an object inside": {"more": {"image_id": 7, "bbox": [1, 2, 3, 4]}},
}  # fmt: skip


@pytest.fixture
def taken(monkeypatch):
    monkeypatch.setattr(coco_batches, "BATCH", 2)

    def read(path):
        """The same file read whole, and a batch at a time."""
        out = []
        for least in (2**62, 0):
            monkeypatch.setattr(coco_reader, "LARGE", least)
            try:
                index = coco.read(path)
                out.append((index, sorted(str(p) for p in index.problems)))
            except DataError as error:
                out.append((None, [str(error)]))
        return out

    return read


def make(folder, data):
    (folder / "images").mkdir()
    for k in (7, 9):
        (folder / "images" / f"{k}.png").write_bytes(png())
    path = folder / "instances.json"
    path.write_text(json.dumps(data))
    return path


def same(a, b):
    assert (a is None) == (b is None)
    if a is None:
        return
    assert (a.classes, a.category_ids, a.tasks, a.extra) == (b.classes, b.category_ids, b.tasks, b.extra)
    assert len(a) == len(b)
    for r, s in zip(a.records, b.records, strict=True):
        assert (r.path, r.image_id, r.size) == (s.path, s.image_id, s.size)
        for name in ("boxes", "labels", "iscrowd", "keypoints"):
            x, y = getattr(r, name), getattr(s, name)
            assert (x is None) == (y is None)
            assert x is None or (x.dtype == y.dtype and np.array_equal(x, y))
        assert (r.extra is None) == (s.extra is None)
        assert r.extra is None or np.array_equal(r.extra["area"], s.extra["area"])
        assert (r.segments is None) == (s.segments is None)
        for x, y in zip(r.segments or (), s.segments or (), strict=True):
            assert isinstance(x, list) == isinstance(y, list)
            assert all(map(np.array_equal, x, y)) if isinstance(x, list) else x == y


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("name", FLAWS)
def test_T1_coco_large_files_give_the_same(tmp_path, taken, name, place):
    data = copy.deepcopy(VALID)
    data["annotations"][place] |= FLAWS[name]
    (whole, before), (batched, after) = taken(make(tmp_path, data))
    same(whole, batched)
    assert [p.replace(".0", "") for p in before] == [p.replace(".0", "") for p in after]  # numbers are floats in a batch


def test_T1_coco_large_real_files_give_the_same(taken, real):
    for name in ("instances_train2017", "person_keypoints_train2017", "captions_train2017"):
        (whole, before), (batched, after) = taken(real("coco_mini") / "annotations" / f"{name}.json")
        same(whole, batched)
        assert before == after == []


def test_T1_coco_large_files_keep_the_order_of_the_annotations(tmp_path, taken):
    _, (index, problems) = taken(make(tmp_path, VALID))
    assert problems == []
    assert index.records[0].boxes[:, 1].tolist() == [2, 4, 6]
    assert index.records[1].boxes[:, 1].tolist() == [1, 3, 5]
    assert index.records[1].labels.tolist() == [0, 1, 0]


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(sorted(FLAWS))), max_size=4))
def test_T1_coco_large_files_with_any_flaws_give_the_same(tmp_path_factory, changes):
    data = copy.deepcopy(VALID)
    for place, name in changes:
        data["annotations"][place] |= FLAWS[name]
    path = make(tmp_path_factory.mktemp("large"), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_batches, "BATCH", 2)
        out = []
        for least in (2**62, 0):
            patch.setattr(coco_reader, "LARGE", least)
            try:
                out.append(coco.read(path))
            except DataError:
                out.append(None)
    same(*out)


# ------------------------------------------------------------------------------------------------------------- segments

polygons = st.lists(st.integers(1, 5).map(lambda n: np.arange(2 * n, dtype=np.float32).reshape(-1, 2)), min_size=1, max_size=3)
outlines = st.lists(
    st.none() | polygons | st.builds(lambda n: {"size": [2, 2], "counts": [n, 4 - n]}, st.integers(0, 4)), min_size=1, max_size=6
)


def equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert type(x) is type(y)
        assert all(map(np.array_equal, x, y)) and len(x) == len(y) if isinstance(x, list) else x == y


@FUZZ
@given(outlines, st.randoms(use_true_random=False))
def test_T1_segments_in_arrays_are_the_list(items, random):
    table = Segments.of(items)
    if table is None:
        assert not any(isinstance(s, list) for s in items)
        table = Segments.none(len(items))._replace(codes={k: s for k, s in enumerate(items) if s is not None})
    equal(table.tolist(), items)
    order = list(range(len(items))) * 2
    random.shuffle(order)
    equal(table.take(np.array(order)).tolist(), [items[k] for k in order])
    cut = random.randint(0, len(items))
    parts = list(table.split(np.array([0, cut, len(items)])))
    equal(parts[0].tolist(), items[:cut])
    equal(parts[1].tolist(), items[cut:])
    equal(joined(parts).tolist(), items)
    (record,) = PackedRecords([Record("a", "a", segments=items)])
    equal(record.segments, items)


def test_T1_records_come_back_as_they_were_and_can_be_written_to():
    made = Record(
        "a.png", "7", (4, 5), boxes=np.ones((2, 4), np.float32), labels=np.array([1, 0]), iscrowd=np.array([True, False]),
        segments=[[np.zeros((3, 2), np.float64)], None], keypoints=np.zeros((2, 0, 3), np.float32), captions=["x"],
        extra={"pose": ["a", "b"], "area": np.array([1.5, 2]), "mixed": np.array([None, 3], dtype=object), "n": 5},
    )  # fmt: skip
    (again,) = PackedRecords([made])
    for name in ("boxes", "labels", "iscrowd", "keypoints"):
        a, b = getattr(made, name), getattr(again, name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.array_equal(a, b)
        assert b.flags.writeable
    assert again.segments[0][0].dtype == np.float64  # what does not fit the arrays stays as it is
    assert list(again.extra) == list(made.extra)
    assert again.extra["area"].tolist() == [1.5, 2]
    assert again.extra["mixed"].tolist() == [None, 3]
    assert made.extra["area"] is not None  # the record given is left alone
