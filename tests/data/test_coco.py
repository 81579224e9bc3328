"""COCO JSON: real files against pycocotools, hostile files, and write-then-read."""

import copy
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import coco, write_data
from saccade.data.formats.rle import rle_counts, rle_problem
from saccade.data.polygons import rasterize
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def png(width=64, height=48):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (9, 80, 200)).save(out, "PNG")
    return out.getvalue()


PNG = png()
VALID = {
    "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}, {"id": 9, "file_name": "b.png", "width": 64, "height": 48}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 5, 10, 12], "area": 60.0, "iscrowd": 0,
         "segmentation": [[4, 5, 14, 5, 14, 17]], "keypoints": [5, 6, 2, 0, 0, 0], "num_keypoints": 1},
        {"id": 2, "image_id": 7, "category_id": 90, "bbox": [0, 0, 64, 48], "area": 10, "iscrowd": 1,
         "segmentation": {"size": [48, 64], "counts": [0, 10, 3062]}},
    ],
    "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat", "keypoints": ["left_eye", "right_eye"], "skeleton": []}],
}  # fmt: skip


def make(folder: Path, data, name="instances.json", images=("a.png", "b.png")) -> Path:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    (folder / "annotations" / name).write_bytes(raw)
    (folder / "images").mkdir(exist_ok=True)
    for image in images:
        (folder / "images" / image).write_bytes(PNG)
    return folder


def changed(**where):
    """The valid file with one value set: annotations__0__bbox=[...]; DELETE removes it."""
    data = copy.deepcopy(VALID)
    for path, value in where.items():
        node = data
        *parts, last = [int(p) if p.isdigit() else p for p in path.split("__")]
        for part in parts:
            node = node[part]
        if value is DELETE:
            del node[last]
        else:
            node[last] = value
    return data


DELETE = object()


def one_line(error):
    text = str(error)
    assert "\n" not in text
    assert text
    return text


# ------------------------------------------------------------------------------------------------------------ real files


def test_T1_coco_mini_counts_of_the_readme(real):
    index = coco.read(real("coco_mini"))
    assert len(index) == 120
    assert index.problems == []
    assert index.tasks == ("detect", "pose", "caption")
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 80, "val": 40}
    for split, objects, crowds, captions, posed in (("train", 739, 8, 400, 86), ("val", 341, 4, 200, 39)):
        records = [index.records[int(i)] for i in index.splits[split]]
        assert sum(len(r.boxes) for r in records) == objects
        assert sum(0 if r.iscrowd is None else int(r.iscrowd.sum()) for r in records) == crowds
        assert sum(len(r.captions) for r in records) == captions
        assert sum(int((r.keypoints[..., 2] > 0).any(-1).sum()) for r in records) == posed
    assert len(index.classes) == 80
    assert index.category_ids[-1] == 90  # gaps
    assert index.classes[0] == "person"
    assert index.keypoint_names[5] == "left_shoulder"
    assert index.keypoint_swap[5] == 6
    assert index.keypoint_swap[0] == 0


def test_T1_coco_boxes_areas_and_masks_are_pycocotools(real):
    from pycocotools.coco import COCO

    path = real("coco_mini") / "annotations" / "instances_val2017.json"
    index = coco.read(path)
    oracle = COCO(str(path))
    assert index.classes == [c["name"] for c in oracle.loadCats(oracle.getCatIds())]
    assert index.category_ids == oracle.getCatIds()
    for record in index.records:
        truth = oracle.loadAnns(oracle.getAnnIds(imgIds=int(record.image_id)))
        assert len(truth) == len(record.boxes)
        xywh = np.array([a["bbox"] for a in truth]).reshape(-1, 4)
        assert np.allclose(record.boxes[:, :2], xywh[:, :2], atol=1e-4)
        assert np.allclose(record.boxes[:, 2:] - record.boxes[:, :2], xywh[:, 2:], atol=1e-4)
        assert [index.category_ids[k] for k in record.labels] == [a["category_id"] for a in truth]
        assert record.extra["area"].tolist() == [a["area"] for a in truth]
        for segment, annotation in zip(record.segments, truth, strict=True):
            assert np.array_equal(rasterize(segment, record.size), oracle.annToMask(annotation).astype(bool))


def test_T1_coco_compressed_runs_are_pycocotools():
    from pycocotools import mask as oracle

    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 7), (48, 64), (300, 400)):
        for density in (0.0, 0.02, 0.5, 1.0):
            code = oracle.encode(np.asfortranarray(rng.random(shape) < density, dtype=np.uint8))
            runs = rle_counts(code["counts"].decode())
            again = oracle.frPyObjects({"size": list(shape), "counts": runs.tolist()}, *shape)
            assert again["counts"] == code["counts"]
            assert runs.sum() == shape[0] * shape[1]
            assert rle_problem({"size": list(shape), "counts": code["counts"].decode()}) == ""


def test_T1_coco_mini_written_and_read_again(real, tmp_path):
    index = coco.read(real("coco_mini"))
    losses = write_data(Dataset(index), tmp_path / "out", "coco")
    assert losses == []
    again = coco.read(tmp_path / "out")
    assert again.problems == []
    assert again.classes == index.classes
    assert again.category_ids == index.category_ids
    by_id = {r.image_id: r for r in again.records}
    for record in index.records:
        same(record, by_id[record.image_id])
    first = index.records[0].path
    assert (tmp_path / "out" / "images" / first).read_bytes() == (index.root / first).read_bytes()


def test_T1_coco_file_of_pose_samples(real):
    index = coco.read(real("pose_samples") / "coco" / "test_coco.json")
    assert index.tasks == ("detect", "pose")
    assert len(index.keypoint_names) == 17
    with pytest.raises(DataError, match="no list of images"):
        coco.read(real("pose_samples") / "coco" / "test_coco_det_AP_H_56.json")


# ------------------------------------------------------------------------------------------------------- what it means


def test_T1_coco_labels_are_by_ascending_id_and_objects_complete(tmp_path):
    index = coco.read(make(tmp_path, VALID))
    assert (index.classes, index.category_ids) == (["cat", "dog"], [3, 90])
    a, b = index.records
    assert a.boxes.tolist() == [[4, 5, 14, 17], [0, 0, 64, 48]]
    assert a.labels.tolist() == [0, 1]
    assert a.iscrowd.tolist() == [False, True]
    assert a.keypoints.tolist() == [[[5, 6, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert index.keypoint_swap == [1, 0]
    assert a.segments[0][0].tolist() == [[4, 5], [14, 5], [14, 17]]
    assert b.boxes.shape == (0, 4)
    assert b.segments == []
    assert b.keypoints.shape == (0, 2, 3)
    sample = Dataset(index)[1]
    assert sample.target["masks"].shape == (0, 48, 64)


def test_T1_coco_names_of_files_give_splits_and_image_folders(tmp_path):
    for split in ("train2017", "val2017"):
        make(tmp_path, VALID, f"instances_{split}.json", ())
        (tmp_path / split).mkdir()
        for name in ("a.png", "b.png"):
            (tmp_path / split / name).write_bytes(PNG)
    index = coco.read(tmp_path)
    assert {s: [index.records[i].path for i in v] for s, v in index.splits.items()} == {
        "train": ["train2017/a.png", "train2017/b.png"], "val": ["val2017/a.png", "val2017/b.png"],
    }  # fmt: skip
    assert [r.image_id for r in index.records] == ["train/7", "train/9", "val/7", "val/9"]  # ids clash between files


def test_T1_coco_an_object_of_two_files_is_one_whatever_its_id(tmp_path):
    make(tmp_path, changed(annotations__0__keypoints=DELETE), "instances_train.json")
    poses = copy.deepcopy(VALID)
    poses["annotations"] = [{**VALID["annotations"][0], "id": 555, "segmentation": []}]
    make(tmp_path, poses, "person_keypoints_train.json")
    record = coco.read(tmp_path).records[0]
    assert len(record.boxes) == 2
    assert record.keypoints[0, 0].tolist() == [5, 6, 2]
    assert record.segments[0] is not None


def test_T1_coco_two_equal_boxes_of_one_file_stay_two(tmp_path):
    data = copy.deepcopy(VALID)
    data["annotations"].append({**VALID["annotations"][0], "id": 3})
    assert len(coco.read(make(tmp_path, data)).records[0].boxes) == 3


def test_T1_coco_without_images_on_disk(tmp_path):
    path = make(tmp_path, VALID, images=()) / "annotations" / "instances.json"
    with pytest.raises(DataError, match="not one usable image"):
        coco.read(path)
    assert [r.path for r in coco.read(path, check_files=False).records] == ["a.png", "b.png"]


def test_T1_coco_sniff(tmp_path):
    assert coco.sniff(tmp_path) is None
    (tmp_path / "shapes.json").write_text('{"shapes": [], "imagePath": "a.png"}')
    assert coco.sniff(tmp_path) is None
    assert coco.sniff(tmp_path / "shapes.json") is None
    make(tmp_path, VALID)
    assert "1 COCO JSON file: instances.json" in coco.sniff(tmp_path)
    assert coco.sniff(tmp_path / "annotations" / "instances.json")


# ------------------------------------------------------------------------------------------------------------- bad files

BROKEN = {
    "empty file": b"",
    "truncated": json.dumps(VALID).encode()[:200],
    "not text": bytes(range(256)),
    "half utf-16": b"\xff\xfe{\x00",
    "a list": b"[]",
    "a number": b"17",
    "null": b"null",
    "nested beyond reason": b"[" * 200_000,
    "objects nested beyond reason": b'{"images":' * 100_000,
    "a number of 10 000 digits": b'{"images": [], "annotations": [' + b"9" * 10_000 + b"]}",
    "images missing": {"annotations": [], "categories": []},
    "images not a list": changed(images={}),
    "no image": changed(images=[]),
    "annotations not a list": changed(annotations={}),
    "categories not a list": changed(categories="cat"),
    "no categories": changed(categories=DELETE),
    "empty categories": changed(categories=[]),
    "images are numbers": changed(images=[1, 2]),
    "no image is there": changed(images=[{"id": 7, "file_name": "zzz.png"}]),
    "only paths outside": changed(images=[{"id": 7, "file_name": "../../etc/passwd"}]),
    "neither objects nor captions": {"images": VALID["images"]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_coco_a_broken_file_is_one_line(tmp_path, name):
    make(tmp_path, BROKEN[name])
    with pytest.raises(DataError) as caught:
        coco.read(tmp_path / "annotations" / "instances.json")
    assert "annotations" in one_line(caught.value)


FLAWED = {
    "NaN box": ({"annotations__0__bbox": [4, float("nan"), 1, 1]}, 1, "no box of four numbers"),
    "infinite box": ({"annotations__0__bbox": [4, 5, float("inf"), 1]}, 1, "no box of four numbers"),
    "negative width": ({"annotations__0__bbox": [4, 5, -3, 1]}, 1, "without area"),
    "zero height": ({"annotations__0__bbox": [4, 5, 3, 0]}, 1, "without area"),
    "width below float32": ({"annotations__0__bbox": [40, 5, 1e-9, 5]}, 1, "without area"),
    "box outside": ({"annotations__0__bbox": [400, 5, 3, 3]}, 1, "outside the image"),
    "box of three": ({"annotations__0__bbox": [4, 5, 3]}, 1, "no box of four numbers"),
    "box of words": ({"annotations__0__bbox": ["a", "b", "c", "d"]}, 1, "no box of four numbers"),
    "box of text numbers": ({"annotations__0__bbox": ["1", "2", "3", "4"]}, 1, "no box of four numbers"),
    "box is null": ({"annotations__1__bbox": None}, 1, "no box of four numbers"),
    "huge box": ({"annotations__0__bbox": [0, 0, 10**400, 3]}, 1, "no box of four numbers"),
    "unknown image": ({"annotations__0__image_id": 8}, 1, "unknown image 8"),
    "image id a list": ({"annotations__0__image_id": [7]}, 1, "unknown image"),
    "no image id": ({"annotations__0__image_id": DELETE}, 1, "unknown image None"),
    "unknown category": ({"annotations__0__category_id": 4}, 1, "unknown category 4"),
    "category a word": ({"annotations__0__category_id": "cat"}, 1, "unknown category"),
    "category a fraction": ({"annotations__0__category_id": 3.5}, 1, "unknown category"),
    "huge category": ({"annotations__0__category_id": 2**70}, 1, "unknown category"),
    "annotation a number": ({"annotations__0": 5}, 1, "not an object"),
    "annotation null": ({"annotations__0": None}, 1, "not an object"),
    "id twice": ({"annotations__1__id": 1}, 1, "stands twice"),
    "id a list": ({"annotations__0__id": []}, 2, ""),
    "box over the border": ({"annotations__0__bbox": [-9, 5, 20, 10]}, 2, "clipped"),
    "no bbox but polygon": ({"annotations__0__bbox": DELETE}, 2, "polygon's is taken"),
    "polygon of two points": ({"annotations__0__segmentation": [[1, 2, 3, 4]]}, 2, "polygons are not"),
    "polygon odd": ({"annotations__0__segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, 2, "polygons are not"),
    "polygon NaN": ({"annotations__0__segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, 2, "polygons are not"),
    "polygon words": ({"annotations__0__segmentation": [["a"] * 6]}, 2, "polygons are not"),
    "polygon of points": ({"annotations__0__segmentation": [[[1, 2], [3, 4], [5, 6]]]}, 2, "polygons are not"),
    "one polygon without its list": ({"annotations__0__segmentation": [4, 5, 14, 5, 14, 17]}, 2, ""),
    "segmentation a word": ({"annotations__0__segmentation": "x"}, 2, "not polygons"),
    "code too short": ({"annotations__1__segmentation__counts": [0, 10]}, 2, "covers 10 pixels"),
    "code negative": ({"annotations__1__segmentation__counts": [3082, -10]}, 2, "no usable counts"),
    "code not ASCII": ({"annotations__1__segmentation__counts": "äö"}, 2, "not ASCII"),
    "code cut off": ({"annotations__1__segmentation__counts": "PQ"}, 2, "broken"),
    "code long": ({"annotations__1__segmentation__counts": "o" * 50 + "0"}, 2, "broken"),
    "code size words": ({"annotations__1__segmentation__size": ["a", "b"]}, 2, "size is"),
    "code size zero": ({"annotations__1__segmentation__size": [0, 0]}, 2, "size is"),
    "key points too few": ({"annotations__0__keypoints": [1, 2]}, 2, "key points are not"),
    "key points NaN": ({"annotations__0__keypoints": [float("nan"), 6, 2, 0, 0, 0]}, 2, "key points are not"),
    "visibility 5": ({"annotations__0__keypoints": [5, 6, 5, 0, 0, 0]}, 2, "key points are not"),
    "crowd a word": ({"annotations__0__iscrowd": "yes"}, 2, "iscrowd is"),
    "crowd a list": ({"annotations__0__iscrowd": [1]}, 2, "iscrowd is"),
    "area negative": ({"annotations__0__area": -4}, 2, "area -4 is replaced"),
    "area a word": ({"annotations__0__area": "big"}, 2, "is replaced"),
    "image missing": ({"images__1__file_name": "zzz.png"}, 2, "is missing"),
    "image outside": ({"images__1__file_name": "../../../etc/passwd"}, 2, "outside"),
    "image absolute": ({"images__1__file_name": "/etc/passwd"}, 2, "outside"),
    "image with NUL": ({"images__1__file_name": "a\x00b"}, 2, "unusable file name"),
    "image name a number": ({"images__1__file_name": 5}, 2, "unusable file name"),
    "image a folder": ({"images__1__file_name": "."}, 2, "is missing"),
    "image name long": ({"images__1__file_name": "x" * 5000 + "/a"}, 2, "is missing"),
    "image twice": ({"images__1__id": 7}, 2, "stands twice"),
    "image id missing": ({"images__1__id": DELETE}, 2, "without an id"),
    "image listed twice": ({"images__1__file_name": "a.png"}, 2, "listed twice"),
    "image size words": ({"images__1__width": "wide"}, 2, "no size"),
    "category id missing": ({"categories__0__id": DELETE}, 1, "whole number as id"),
    "category twice": ({"categories__1__id": 90}, 1, "stands twice"),
    "category without a name": ({"categories__0__name": ""}, 2, "has no name"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWED)
def test_T1_coco_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    change, objects, message = FLAWED[name]
    index = coco.read(make(tmp_path, changed(**change)))
    assert sum(len(r.boxes) for r in index.records) == objects
    texts = [one_line(p) for p in index.problems]
    assert any(message in t for t in texts) if message else len(texts) == 0
    for record in index.records:
        assert np.isfinite(record.boxes).all()
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


def test_T1_coco_a_link_out_of_the_root_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", VALID)
    (root / "images" / "b.png").unlink()
    os.symlink(tmp_path / "secret.png", root / "images" / "b.png")
    index = coco.read(root)
    assert [r.path for r in index.records] == ["images/a.png"]
    assert "outside" in one_line(index.problems[0])


def test_T1_coco_names_of_categories_must_agree_between_files(tmp_path):
    make(tmp_path, VALID, "instances_train.json")
    make(tmp_path, changed(categories__0__name="wolf"), "instances_val.json")
    with pytest.raises(DataError, match="'wolf', but 'dog' in another file"):
        coco.read(tmp_path)


def test_T1_coco_a_folder_named_json_and_a_missing_file(tmp_path):
    (tmp_path / "annotations" / "instances.json").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no COCO JSON"):
        coco.read(tmp_path)
    with pytest.raises(DataError):
        coco.read(tmp_path / "nothing.json")


# -------------------------------------------------------------------------------------------------------------- fuzzing

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(scalars, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=8), s, max_size=4), max_leaves=8)


def nodes(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from nodes(child, (*path, key))


PATHS = [p for p in nodes(VALID) if p]


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(PATHS), anything), min_size=1, max_size=4))
def test_T1_coco_any_change_of_a_value_gives_data_or_one_line(tmp_path_factory, changes):
    data = copy.deepcopy(VALID)
    for path, value in changes:
        node = data
        try:
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    readable(make(tmp_path_factory.mktemp("fuzz"), json.dumps(data).encode()) / "annotations" / "instances.json")


@FUZZ
@given(st.binary(max_size=300) | st.tuples(st.integers(0, 900), st.binary(max_size=4)))
def test_T1_coco_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = json.dumps(VALID).encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    readable(make(tmp_path_factory.mktemp("fuzz"), raw) / "annotations" / "instances.json")


def readable(path):
    try:
        index = coco.read(path)
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for k in range(len(index)):
        try:
            target = Dataset(index)[k].target
        except DataError as error:  # an outline that cannot be drawn
            one_line(error)
            continue
        if "boxes" in target:
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
            assert all(0 <= v < len(index.classes) for v in target["labels"].tolist())


# ------------------------------------------------------------------------------------------------------ write then read

coordinate = st.floats(0, 40, width=32)
visibility = st.sampled_from([0.0, 1.0, 2.0])


@st.composite
def objects(draw):
    x, y = draw(coordinate), draw(st.floats(0, 30, width=32))
    w, h = draw(st.floats(0.5, 20, width=32)), draw(st.floats(0.5, 15, width=32))
    box = np.array([x, y, x + w, y + h], dtype=np.float32)
    kind = draw(st.sampled_from(["none", "polygon", "code", "text"]))
    segment = None
    if kind == "polygon":
        count = draw(st.integers(1, 2))
        segment = [np.array(draw(st.lists(coordinate, min_size=6, max_size=8).filter(lambda p: len(p) % 2 == 0)), np.float32).reshape(-1, 2)
                   for _ in range(count)]  # fmt: skip
    elif kind == "code":
        n = draw(st.integers(0, 3000))
        segment = {"size": [48, 64], "counts": [n, 3072 - n]}
    elif kind == "text":
        segment = {"size": [48, 64], "counts": encoded(draw(st.integers(0, 3072)))}
    points = [[draw(coordinate), draw(coordinate), draw(visibility)] for _ in range(2)]
    return box, draw(st.integers(0, 1)), draw(st.booleans()), draw(st.floats(0, 1000)), segment, points


def encoded(first):
    from pycocotools import mask as oracle

    return oracle.frPyObjects({"size": [48, 64], "counts": [first, 3072 - first]}, 48, 64)["counts"].decode()


@st.composite
def records(draw):
    out = []
    for k in range(draw(st.integers(1, 3))):
        things = draw(st.lists(objects(), max_size=3))
        crowd = np.array([t[2] for t in things], dtype=bool)
        out.append(Record(
            f"p{k}.png", str(draw(st.integers(0, 10**9)) * 3 + k), (48, 64),
            boxes=np.array([t[0] for t in things], np.float32).reshape(-1, 4),
            labels=np.array([t[1] for t in things], np.int64), iscrowd=crowd if crowd.any() else None, segments=[t[4] for t in things],
            keypoints=np.array([t[5] for t in things], np.float32).reshape(-1, 2, 3),
            captions=draw(st.lists(st.text(max_size=20), max_size=2)), extra={"area": np.array([t[3] for t in things])},
        ))  # fmt: skip
    return out


@FUZZ
@given(records())
def test_T1_coco_write_then_read_gives_the_same(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    index = DataIndex(
        "made", folder, ["cat", "dog"], PackedRecords(made), tasks=("detect",), category_ids=[5, 17],
        keypoint_names=["left", "right"], keypoint_swap=[1, 0], splits={"train": np.arange(len(made))},
    )  # fmt: skip
    assert write_data(Dataset(index), folder / "out", "coco") == []
    again = coco.read(folder / "out")
    assert again.problems == []
    assert (again.classes, again.category_ids) == (index.classes, index.category_ids)
    assert again.splits["train"].tolist() == index.splits["train"].tolist()
    segmented = any(s is not None for r in made for s in r.segments)
    posed = any(r.keypoints.any() for r in made)
    for before, after in zip(made, again.records, strict=True):
        same(before, after, segmented, posed)


def same(a, b, segmented=True, posed=True):
    assert a.image_id == b.image_id
    assert a.size == b.size
    assert a.captions == b.captions
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.labels, b.labels)
    assert np.array_equal(a.extra["area"], b.extra["area"])
    assert (a.iscrowd is None) == (b.iscrowd is None)
    assert a.iscrowd is None or np.array_equal(a.iscrowd, b.iscrowd)
    if posed:
        assert np.array_equal(a.keypoints, b.keypoints)
    if segmented:
        for s, t in zip(a.segments, b.segments, strict=True):
            if isinstance(s, list):
                assert all(np.array_equal(p, q) and q.dtype == np.float32 for p, q in zip(s, t, strict=True))
            else:
                assert s == t


def test_T1_coco_write_names_what_is_lost_and_leaves_nothing_half_written(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    made = [Record("a.png", "photo", label=0, boxes=np.array([[1, 2, 3, 4.5]], np.float32), labels=np.array([0]))]
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords(made), tasks=("detect",))
    losses = write_data(Dataset(index), tmp_path / "out", "coco")
    assert any("1 labels of whole images" in t for t in losses)
    assert any("not numbers" in t for t in losses)
    assert coco.read(tmp_path / "out").records[0].boxes.tolist() == [[1, 2, 3, 4.5]]
    with pytest.raises(UsageError):
        write_data(Dataset(index), tmp_path / "out", "coco")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError):
        write_data(Dataset(index), tmp_path / "other", "coco")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
