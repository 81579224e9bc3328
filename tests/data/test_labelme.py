"""labelme JSON: shapes of all kinds, groups, embedded pictures, hostile files, and write-then-read."""

import base64
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, labelme, read_data, write_data
from saccade.data.formats.shapes import crop_code
from saccade.data.polygons import mask_to_rle, rasterize
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def png(array):
    out = io.BytesIO()
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


PICTURE = np.full((48, 64, 3), (9, 80, 200), np.uint8)
PNG = png(PICTURE)
CROP = np.array([[0, 1, 1], [1, 1, 0]])


def b64(data):
    return base64.b64encode(data).decode()


def shape(points, label="cat", kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def page(*shapes, name="a.png", **more):
    page = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": name, "imageData": None}
    return {**page, "imageHeight": 48, "imageWidth": 64, **more}


def make(folder: Path, pages: dict, images=("a.png", "b.png")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)
    return folder


def one(folder, *shapes, **more):
    """(record, index) of a set of one image with these shapes."""
    index = labelme.read(make(folder, {"a.json": page(*shapes, **more)}))
    return index.records[0], index


TRIANGLE = [[1, 2], [21, 2], [1, 12]]
GOOD = page(shape(TRIANGLE, "dog"), name="b.png")


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def lines(index):
    return "\n".join(map(one_line, index.problems))


# ------------------------------------------------------------------------------------------------------- what it means


def test_T1_labelme_every_type_of_shape(tmp_path):
    record, index = one(
        tmp_path,
        shape(TRIANGLE, "poly"),
        shape([[30, 20], [10, 5]], "rect", "rectangle"),
        shape([[20, 20], [23, 24]], "circle", "circle"),
        shape([[7, 3], [9, 4]], "mask", "mask", mask=b64(png(CROP * 255))),
        shape([[1, 1], [2, 2]], "line", "line"),
        shape([[1, 1], [2, 2], [5, 5]], "strip", "linestrip"),
        shape([[3, 4]], "dot", "point"),
        shape([[3, 4], [5, 6]], "dots", "points"),
    )
    assert [index.classes[k] for k in record.labels] == ["poly", "rect", "circle", "mask"]
    assert record.boxes.tolist() == [[1, 2, 21, 12], [10, 5, 30, 20], [15, 15, 25, 25], [7, 3, 10, 5]]
    assert record.segments[0][0].tolist() == TRIANGLE
    assert record.segments[1] is None
    assert np.allclose(np.hypot(*(record.segments[2][0] - [20, 20]).T), 5, atol=1e-5)
    assert len(record.segments[2][0]) == 64
    truth = np.zeros((48, 64), bool)
    truth[3:5, 7:10] = CROP
    assert np.array_equal(rasterize(record.segments[3], (48, 64)), truth)
    assert record.extra["shapes"] == [None, None, {"type": "circle", "cx": 20.0, "cy": 20.0, "r": 5.0, "rim": [23.0, 24.0]}, None]
    assert [(m["type"], m["label"], m["points"]) for m in record.extra["marks"]] == [
        ("line", "line", [[1, 1], [2, 2]]),
        ("linestrip", "strip", [[1, 1], [2, 2], [5, 5]]),
        ("points", "dots", [[3, 4], [5, 6]]),
        ("point", "dot", [[3, 4]]),
    ]
    assert index.tasks == ("detect",)
    assert lines(index).endswith("4 points and lines belong to no object: they are kept for writing, and not used")
    target = Dataset(index)[0].target
    assert target["masks"].shape == (4, 48, 64)
    assert [int(m.sum()) for m in target["masks"]][1] == 0
    assert abs(int(target["masks"][2].sum()) - 78.5) < 4


def test_T1_labelme_the_type_of_old_files_is_polygon(tmp_path):
    old = {"label": "cat", "points": TRIANGLE, "line_color": None, "fill_color": [1, 2, 3, 4]}
    record, index = one(tmp_path, old, {**old, "shape_type": None})
    assert record.boxes.tolist() == [[1, 2, 21, 12]] * 2
    assert index.problems == []


def test_T1_labelme_groups_are_objects_and_points_their_key_points(tmp_path):
    record, index = one(
        tmp_path,
        shape(TRIANGLE, "cat", group_id=1),
        shape([[30, 30], [40, 30], [30, 40]], "cat", group_id=1),
        shape([[50, 30], [60, 40]], "dog", "rectangle", group_id=2),
        shape([[52, 32]], "nose", "point", group_id=2),
        shape([[5, 5]], "left_eye", "point", group_id=1, flags={"occluded": True}),
        shape([[6, 5]], "right_eye", "point", group_id=1),
        shape([[9, 9]], "nose", "point", group_id=7),  # of no object
    )
    assert record.boxes.tolist() == [[1, 2, 40, 40], [50, 30, 60, 40]]
    assert [len(s) if s else s for s in record.segments] == [2, None]
    assert index.keypoint_names == ["left_eye", "nose", "right_eye"]
    assert index.keypoint_swap == [2, 1, 0]
    assert record.keypoints.tolist() == [[[5, 5, 1], [0, 0, 0], [6, 5, 2]], [[0, 0, 0], [52, 32, 2], [0, 0, 0]]]
    assert len(record.extra["marks"]) == 1
    assert index.tasks == ("detect", "pose")


def test_T1_labelme_a_rectangle_of_a_group_is_the_box_of_its_outlines(tmp_path):
    record, _ = one(tmp_path, shape(TRIANGLE, group_id=3), shape([[0, 0], [30, 20]], kind="rectangle", group_id=3))
    assert record.boxes.tolist() == [[0, 0, 30, 20]]
    assert [p.tolist() for p in record.segments[0]] == [TRIANGLE]


def test_T1_labelme_masks_and_polygons_of_a_group_are_united(tmp_path):
    record, _ = one(
        tmp_path,
        shape([[30, 30], [32, 31]], kind="mask", group_id=3, mask=b64(png(CROP * 255))),
        shape([[0, 0], [10, 0], [10, 10], [0, 10]], group_id=3),
    )
    assert rasterize(record.segments[0], (48, 64)).sum() == 100 + 4
    assert record.boxes.tolist() == [[0, 0, 33, 32]]


def test_T1_labelme_two_points_of_one_name_are_not_key_points(tmp_path):
    rect = shape([[0, 0], [30, 20]], kind="rectangle", group_id=3)
    record, index = one(tmp_path, rect, shape([[1, 1]], "p", "point", group_id=3), shape([[2, 2]], "p", "point", group_id=3))
    assert record.keypoints.tolist() == [[[1, 1, 2]]]
    assert record.extra["marks"][0]["points"] == [[2, 2]]
    assert "two points 'p'" in lines(index)


def test_T1_labelme_points_of_very_many_names_are_marks(tmp_path):
    rect = shape([[0, 0], [30, 20]], kind="rectangle", group_id=3)
    record, index = one(tmp_path, rect, *(shape([[1, 1]], f"p{k}", "point", group_id=3) for k in range(600)))
    assert record.keypoints is None
    assert len(record.extra["marks"]) == 600
    assert "too many for key points" in lines(index)


def test_T1_labelme_order_of_classes_and_what_shapes_say_besides(tmp_path):
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nzebra\ncat\n")
    record, index = one(
        tmp_path, shape(TRIANGLE, "ant"), shape(TRIANGLE, "cat", flags={"hard": True, "x": False}, description="a\nb"), flags={"seen": True}
    )
    assert index.classes == ["zebra", "cat", "ant"]
    assert "labels.txt: lacks 'ant'" in lines(index)
    assert record.extra == {"flags": {"seen": True}, "shape_flags": [None, {"hard": True}], "descriptions": [None, "a\nb"]}


def test_T1_labelme_flags_are_the_class_where_nothing_is_drawn(tmp_path):
    pages = {
        "a.json": page(flags={"dog": False, "cat": True}),
        "b.json": page(flags={"dog": True, "cat": True}, name="b.png"),
        "c.json": page(flags={"dog": True}, name="c.png"),
    }
    index = labelme.read(make(tmp_path, pages, images=("a.png", "b.png", "c.png")))
    assert index.tasks == ("classify",)
    assert index.classes == ["cat", "dog"]
    assert [r.label for r in index.records] == [0, None, 1]
    assert "has 2 true flags" in lines(index)
    assert Dataset(index)[0].target["label"] == 0


@pytest.mark.parametrize(
    ("where", "name", "image"),
    [
        ("a.json", "a.png", "a.png"),
        ("a.json", "other.png", "a.png"),  # imagePath of a picture that was renamed
        ("a.json", "C:\\Users\\me\\a.png", "a.png"),
        ("a.json", "/home/me/a.png", "a.png"),
        ("a.json", None, "a.png"),
        ("annotations/a.json", "../images/a.png", "images/a.png"),
        ("annotations/a.json", "..\\images\\a.png", "images/a.png"),
        ("annotations/train/a.json", "a.png", "images/train/a.png"),
        ("train/json/a.json", "a.png", "train/images/a.png"),
    ],
)
def test_T1_labelme_where_images_lie(tmp_path, where, name, image):
    index = labelme.read(make(tmp_path, {where: page(shape(TRIANGLE), name=name)}, images=(image,)))
    assert [r.path for r in index.records] == [image]
    assert index.problems == []
    assert list(index.splits) == (["train"] if "train" in where else [])


def test_T1_labelme_splits_and_ids(tmp_path):
    pages = {f"{s}/{n}.json": page(shape(TRIANGLE), name=f"{n}.png") for s in ("train", "valid") for n in "ab"}
    index = labelme.read(make(tmp_path, pages, images=[p.replace("json", "png") for p in pages]))
    assert {s: [index.records[i].path for i in v] for s, v in index.splits.items()} == {
        "train": ["train/a.png", "train/b.png"], "val": ["valid/a.png", "valid/b.png"],
    }  # fmt: skip
    assert [r.image_id for r in index.records] == ["a", "b", "valid/a", "valid/b"]


def test_T1_labelme_an_image_that_two_files_name_counts_once(tmp_path):
    index = labelme.read(make(tmp_path, {"a.json": page(shape(TRIANGLE)), "c.json": page(shape(TRIANGLE))}))
    assert len(index) == 1
    assert "c.json: names the image 'a.png', which a.json has" in lines(index)


def test_T1_labelme_a_wrong_size_is_looked_up(tmp_path):
    record, index = one(tmp_path, shape([[1, 2], [60, 40]], kind="rectangle"), imageHeight=10, imageWidth=10)
    assert record.boxes.tolist() == [[1, 2, 60, 40]]
    assert index.problems == []


def test_T1_labelme_embedded_pictures(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    grey = png(noise[..., 0])
    pages = {
        "a.json": page(shape(TRIANGLE)),
        "in.json": page(shape([[1, 1], [5, 5]], kind="rectangle"), name="gone.png", imageData=b64(png(noise))),
        "grey.json": page(name="gone.png", imageData=b64(grey), imageHeight=None, imageWidth=None),
    }
    index = labelme.read(make(tmp_path, pages, images=("a.png",)))
    assert [r.path for r in index.records] == ["a.png", "grey.json", "in.json"]
    assert index.records[1].size == (48, 64)
    assert "2 images have no file of their own" in lines(index)
    index.reader = pickle.loads(pickle.dumps(index.reader))
    data = Dataset(index)
    assert (data[0].image.permute(1, 2, 0).numpy() == PICTURE).all()
    assert (data[1].image[0].numpy() == noise[..., 0]).all()
    assert (data[2].image.permute(1, 2, 0).numpy() == noise).all()
    write_data(data, tmp_path / "out", "labelme")
    again = labelme.read(tmp_path / "out")
    assert again.reader is None
    assert sorted((len(r.boxes), r.size) for r in again.records) == [(0, (48, 64)), (1, (48, 64)), (1, (48, 64))]
    assert sorted(Dataset(again)[k].image.double().mean() for k in range(3)) == sorted(data[k].image.double().mean() for k in range(3))


def test_T1_labelme_crops_are_coded_as_whole_masks_are():
    rng = np.random.default_rng(1)
    for _ in range(60):
        size = tuple(rng.integers(1, 9, 2).tolist())
        crop = rng.random(tuple(rng.integers(1, 9, 2))) < rng.choice([0.3, 0.9, 1.0])
        left, top = rng.integers(-4, 8, 2).tolist()
        whole = np.zeros((40, 40), bool)
        whole[16 + top : 16 + top + crop.shape[0], 16 + left : 16 + left + crop.shape[1]] = crop
        whole = whole[16 : 16 + size[0], 16 : 16 + size[1]]
        assert crop_code(crop, left, top, size) == (mask_to_rle(whole) if whole.any() else None)


def test_T1_labelme_sniff(tmp_path):
    assert labelme.sniff(tmp_path) is None
    make(tmp_path, {"x.json": {"images": [], "annotations": [], "categories": []}, "shapes.json": {"shapes": 3}, "y.json": "{"})
    assert labelme.sniff(tmp_path) is None
    with pytest.raises(DataError, match="holds no labelme JSON"):
        labelme.read(tmp_path)
    make(tmp_path / "new", {"a.json": GOOD, "b.json": page()})
    assert labelme.sniff(tmp_path / "new") == "2 labelme JSON files"
    assert labelme.sniff(tmp_path / "new" / "a.json") == "a labelme JSON file"
    assert detect_format(tmp_path / "new")[0] == "labelme"
    assert len(read_data(tmp_path / "new" / "a.json")) == 1


# ------------------------------------------------------------------------------------------------------------- bad files

BROKEN = {
    "empty": b"",
    "truncated": json.dumps(GOOD)[:70],
    "bytes": bytes(range(256)),
    "a list": "[]",
    "a number": "3",
    "no shapes": {"imagePath": "a.png"},
    "shapes a mapping": page(name="a.png") | {"shapes": {"0": {}}},
    "shapes null": page(name="a.png") | {"shapes": None},
    "nested": '{"shapes": ' + "[" * 100_000,
    "a number of thousands of digits": '{"shapes": [], "imageHeight": ' + "9" * 10_000 + "}",
    "not UTF-8": b'{"shapes": [], "imagePath": "\xff\xfe"}',
    "image missing": page(name="zzz.png"),
    "image missing, data no base64": page(name="zzz.png", imageData="****"),
    "image missing, data no picture": page(name="zzz.png", imageData=b64(b"hello")),
    "image missing, data empty": page(name="zzz.png", imageData=""),
    "image missing, data a number": page(name="zzz.png", imageData=7),
    "image outside": page(name="../../../etc/passwd"),
    "image absolute": page(name="/etc/passwd"),
    "image a folder": page(name="."),
    "image name a number": page(name=5),
    "image name NUL": page(name="\0"),
    "image name long": page(name="x" * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_labelme_a_broken_file_is_reported_and_the_others_are_read(tmp_path, name):
    index = labelme.read(make(tmp_path, {"bad.json": BROKEN[name], "b.json": GOOD}))
    assert [r.image_id for r in index.records] == ["b"]
    assert len(index.problems) == 1
    assert "bad.json" in one_line(index.problems[0])


def test_T1_labelme_only_broken_files_are_an_error(tmp_path):
    with pytest.raises(DataError, match="not one usable image"):
        labelme.read(make(tmp_path, {"a.json": '{"shapes": [{"label": '}, images=()))
    with pytest.raises(DataError, match=r"a\.json"):
        labelme.read(tmp_path / "a.json")


BOMB = png(np.zeros((1, 1)))
FLAWED = {
    "no shape": ("cat", 0, "is no shape"),
    "null": (None, 0, "is no shape"),
    "no label": (shape(TRIANGLE, ""), 0, "no label"),
    "label a list": (shape(TRIANGLE, ["cat"]), 0, "no label"),
    "label a number": (shape(TRIANGLE, 7), 1, ""),
    "label a lone surrogate": (shape(TRIANGLE, "\ud800"), 1, ""),
    "no points": (shape([]), 0, "pairs of numbers"),
    "points null": (shape(None), 0, "pairs of numbers"),
    "points a text": (shape("abc"), 0, "pairs of numbers"),
    "points ragged": (shape([[1, 2], [3], [4, 5]]), 0, "pairs of numbers"),
    "points of three": (shape([[1, 2, 3]] * 3), 0, "pairs of numbers"),
    "points of huge whole numbers": (shape([[1, 2], [10**400, 3], [4, 5]]), 0, "pairs of numbers"),
    "NaN": (shape([[1, 2], [float("nan"), 3], [4, 5]]), 0, "no usable number"),
    "infinite": (shape([[1, 2], [float("inf"), 3], [4, 5]]), 0, "no usable number"),
    "far": (shape([[1, 2], [1e9, 3], [4, 5]]), 0, "no usable number"),
    "two points": (shape([[1, 2], [3, 4]]), 0, "needs three points"),
    "a line of points": (shape([[1, 2], [3, 2], [9, 2]]), 0, "no area"),
    "a circle of one point": (shape([[1, 2]], kind="circle"), 0, "another point on its rim"),
    "a circle without radius": (shape([[1, 2], [1, 2]], kind="circle"), 0, "another point on its rim"),
    "rectangle without area": (shape([[1, 2], [1, 9]], kind="rectangle"), 0, "no area"),
    "rectangle of one point": (shape([[1, 2]], kind="rectangle"), 0, "no area"),
    "outside": (shape([[100, 100], [200, 200]], kind="rectangle"), 0, "lies outside"),
    "over the border": (shape([[-5, 2], [90, 40]], kind="rectangle"), 1, "clipped"),
    "a hair over the border": (shape([[-0.5, 2], [64.5, 40]], kind="rectangle"), 1, ""),
    "unknown type": (shape(TRIANGLE, kind="cube"), 0, "'cube' is unknown"),
    "type a list": (shape(TRIANGLE, kind=["polygon"]), 0, "is unknown"),
    "mask missing": (shape([[1, 2], [3, 4]], kind="mask"), 0, "no picture"),
    "mask no base64": (shape([[1, 2], [3, 4]], kind="mask", mask="***a"), 0, "mask"),
    "mask no picture": (shape([[1, 2], [3, 4]], kind="mask", mask=b64(b"xyz")), 0, "no readable PNG"),
    "mask truncated": (shape([[1, 2], [3, 4]], kind="mask", mask=b64(png(np.ones((30, 30)))[:60])), 0, "no readable PNG"),
    "mask larger than the image": (shape([[1, 2], [3, 4]], kind="mask", mask=b64(png(np.ones((500, 10))))), 0, "larger than the image"),
    "mask black": (shape([[1, 2], [3, 4]], kind="mask", mask=b64(BOMB)), 0, "no pixel inside"),
    "mask outside": (shape([[900, 2], [903, 4]], kind="mask", mask=b64(png(CROP))), 0, "no pixel inside"),
    "mask over the border": (shape([[62, 46], [64, 47]], kind="mask", mask=b64(png(CROP))), 1, ""),
    "mask in colours": (shape([[1, 2], [3, 4]], kind="mask", mask=b64(png(np.ones((2, 2, 3))))), 1, ""),
    "group a list": (shape(TRIANGLE, group_id=[1]), 1, ""),
    "group a text": (shape(TRIANGLE, group_id="x"), 1, ""),
    "flags a list": (shape(TRIANGLE, flags=[1]), 1, ""),
    "description a number": (shape(TRIANGLE, description=3), 1, ""),
}


@pytest.mark.parametrize("name", FLAWED)
def test_T1_labelme_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    item, objects, message = FLAWED[name]
    record, index = one(tmp_path, item, shape([[1, 2], [30, 40]], kind="rectangle"))
    assert len(record.boxes) == objects + 1
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "a.json: shape 1" in t for t in texts) if message else texts == []
    assert Dataset(index)[0].target["boxes"].shape == (objects + 1, 4)
    Dataset(index).fingerprint()


@pytest.mark.parametrize(
    "size", [(None, None), (0, 5), (-3, 4), ("48", "64"), (True, True), (10**300, 10**300), (9_000_000, 9_000_000), (1.5, 2)]
)
def test_T1_labelme_a_size_that_is_none(tmp_path, size):
    mask = shape([[7, 3], [9, 4]], "mask", "mask", mask=b64(png(CROP * 255)))
    record, index = one(tmp_path, mask, shape([[1, 2], [900, 40]], kind="rectangle"), imageHeight=size[0], imageWidth=size[1])
    assert record.size == (48, 64)
    assert record.boxes.tolist() == [[7, 3, 10, 5], [1, 2, 64, 40]]
    assert Dataset(index)[0].target["masks"].sum() == 4


def test_T1_labelme_a_link_out_of_the_root_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "secret.json").write_text(json.dumps(page(shape(TRIANGLE, "secret"))))
    root = make(tmp_path / "data", {"a.json": page(shape(TRIANGLE)), "c.json": page(shape(TRIANGLE), name="c.png")}, images=("a.png",))
    os.symlink(tmp_path / "secret.png", root / "c.png")
    os.symlink(tmp_path / "secret.json", root / "d.json")
    os.mkfifo(root / "e.json")
    index = labelme.read(root)
    assert [r.image_id for r in index.records] == ["a"]
    assert index.classes == ["cat"]
    assert "outside" in lines(index)


RAW = json.dumps(
    page(shape(TRIANGLE, group_id=1), shape([[7, 3], [9, 4]], kind="mask", mask=b64(png(CROP))), shape([[1, 1]], "p", "point", group_id=1))
)


@FUZZ
@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(RAW)), st.binary(max_size=6)))
def test_T1_labelme_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = RAW.encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    readable(make(tmp_path_factory.mktemp("fuzz"), {"a.json": raw, "b.json": GOOD}))


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
jsons = st.recursive(values, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=8)


@FUZZ
@given(
    st.sampled_from(["label", "points", "group_id", "shape_type", "flags", "description", "mask"]), jsons,
    st.sampled_from(["flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"]), jsons,
)  # fmt: skip
def test_T1_labelme_any_values_give_data_or_one_line(tmp_path_factory, key, value, top, other):
    changed = page(shape(TRIANGLE) | {key: value}, shape([[1, 1], [3, 3]], kind="mask", mask=b64(png(CROP))) | {key: value}, **{top: other})
    readable(make(tmp_path_factory.mktemp("fuzz"), {"a.json": changed, "b.json": GOOD}))


def readable(root):
    try:
        index = labelme.read(root)
    except DataError as error:
        one_line(error)
        return
    lines(index)
    data = Dataset(index)
    data.fingerprint()
    for k in range(len(index)):
        try:
            target = data[k].target
        except DataError as error:
            one_line(error)
            continue
        if "boxes" in target:
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
    write_data(data, root / "out", "labelme")


# ------------------------------------------------------------------------------------------------------ write then read


def same(a, b):
    assert a.size == b.size
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.labels, b.labels)
    for s, t in zip(a.segments or [None] * len(a.boxes), b.segments or [None] * len(b.boxes), strict=True):
        if isinstance(s, dict):
            assert np.array_equal(rasterize(s, a.size), rasterize(t, a.size))
        else:
            assert [p.tolist() for p in s or ()] == [p.tolist() for p in t or ()]
    assert (a.keypoints is None) == (b.keypoints is None)
    assert a.keypoints is None or np.array_equal(a.keypoints, b.keypoints)
    assert plain(a.extra) == plain(b.extra)


def plain(extra):
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in (extra or {}).items()}


coordinate = st.tuples(st.floats(0, 63, width=32), st.floats(0, 47, width=32))


@st.composite
def records(draw):
    out = []
    for k in range(draw(st.integers(1, 3))):
        boxes, segments, points, shapes = [], [], [], []
        for _ in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(["box", "polygons", "code", "circle", "framed"]))
            corner, side = np.array(draw(coordinate)) * 0.7, draw(st.tuples(st.floats(1.5, 15, width=32), st.floats(1.5, 12, width=32)))
            box, segment, form = np.float32([*corner, *(corner + side)]), None, None
            if kind in ("polygons", "framed"):
                box = np.float32(box)
                x1, y1, x2, y2 = box
                segment = [np.float32([[x1, y1], [x2, y1], [x2, y2]]), np.float32([[x1, y1], [x1, y2], draw(coordinate)])][
                    : draw(st.integers(1, 2))
                ]
                every = np.concatenate(segment)
                box = np.concatenate([every.min(0), every.max(0)])
                if kind == "framed":
                    box = np.float32([box[0] / 2, box[1] / 2, 64, 48]) if box[2] < 60 else box
            elif kind == "code":
                mask = np.zeros((48, 64), bool)
                x1, y1 = np.floor(box[:2]).astype(int)
                mask[y1 : y1 + 3, x1 : x1 + 2] = True
                mask[y1, x1] = draw(st.booleans())
                box, segment = np.float32([x1, y1, x1 + 2, y1 + 3]), mask_to_rle(mask)
            elif kind == "circle":
                cx, cy, r = (float(v) for v in (*np.round(corner + 10, 2), 3.5))
                form = {"type": "circle", "cx": cx, "cy": cy, "r": float(np.hypot(cx + r - cx, 0)), "rim": [cx + r, cy]}
                from saccade.data.formats.shapes import ellipse_polygon

                segment = [ellipse_polygon(cx, cy, form["r"], form["r"])]
                box = np.concatenate([segment[0].min(0), segment[0].max(0)])
            visible = np.float32([[*draw(coordinate), draw(st.sampled_from([0, 1, 2]))] for _ in range(2)])
            visible[visible[:, 2] == 0] = 0
            boxes.append(box), segments.append(segment), points.append(visible), shapes.append(form)
        marks = [{"type": "linestrip", "label": "road", "points": [[1.5, 2.0], [3.0, 4.0]]}] if draw(st.booleans()) else []
        extra = ({"shapes": shapes} if any(shapes) else {}) | ({"marks": marks} if marks else {})
        out.append(Record(
            f"p{k}.png", f"p{k}", (48, 64), boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(draw(st.lists(st.integers(0, 2), min_size=len(boxes), max_size=len(boxes))), np.int64),
            segments=segments, keypoints=np.array(points, np.float32).reshape(-1, 2, 3), extra=extra or None,
        ))  # fmt: skip
    return out


@SOME
@given(records(), st.permutations(["zebra", "a & b", "<ö>"]))
def test_T1_labelme_write_then_read_gives_the_same(tmp_path_factory, made, classes):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(1), "test": np.arange(1, len(made))}
    names = ["tail", "left_ear"]
    index = DataIndex("made", folder, classes, PackedRecords(made), tasks=("detect",), splits=splits, keypoint_names=names)
    assert write_data(Dataset(index), folder / "out", "labelme") == []
    again = labelme.read(folder / "out")
    assert [p for p in map(str, again.problems) if "belong to no object" not in p] == []
    assert again.classes == classes
    assert again.keypoint_names == names
    assert {s: [again.records[i].image_id for i in v] for s, v in again.splits.items()} == {
        s: [made[i].image_id for i in v] for s, v in splits.items() if len(v)
    }
    back = {r.image_id: r for r in again.records}
    for before in made:
        same(before, back[before.image_id])


def test_T1_labelme_labels_of_images_are_written_as_flags(tmp_path):
    made = [Record(f"{k}.png", f"{k}", (48, 64), label=k % 2) for k in range(4)]
    for record in made:
        (tmp_path / record.path).write_bytes(PNG)
    index = DataIndex("made", tmp_path, ["zebra", "ant"], PackedRecords(made), tasks=("classify",))
    assert write_data(Dataset(index), tmp_path / "out", "labelme") == []
    again = labelme.read(tmp_path / "out")
    assert again.classes == ["zebra", "ant"]
    assert [r.label for r in again.records] == [0, 1, 0, 1]
    assert json.loads((tmp_path / "out" / "1.json").read_text())["flags"] == {"zebra": False, "ant": True}


def test_T1_labelme_what_via_draws_is_kept_and_the_other_way_round(tmp_path):
    """A circle stays a circle on the way to VIA and back; an ellipse, which labelme has not, becomes a polygon of its corners."""
    record, index = one(
        tmp_path / "in", shape([[20, 20], [25, 20]], "circle", "circle", flags={"occluded": True}), shape([[1, 2], [3, 4]], "l", "line")
    )
    assert write_data(Dataset(index), tmp_path / "via", "via") == []
    other = read_data(tmp_path / "via")
    assert other.format == "via"
    assert other.records[0].extra["shapes"] == [{"type": "circle", "cx": 20, "cy": 20, "r": 5}]
    write_data(Dataset(other), tmp_path / "out", "labelme")
    again = labelme.read(tmp_path / "out").records[0]
    assert again.extra["shapes"] == record.extra["shapes"]
    assert again.extra["occluded"].tolist() == [True]
    assert [m["points"] for m in again.extra["marks"]] == [[[1, 2], [3, 4]]]
    assert np.array_equal(again.boxes, record.boxes)
    turned = {"name": "ellipse", "cx": 30, "cy": 20, "rx": 9, "ry": 4, "theta": 0.5}
    entry = {
        "filename": "a.png",
        "size": 1,
        "regions": [{"shape_attributes": turned, "region_attributes": {"x": "y"}}],
        "file_attributes": {},
    }
    ellipse = read_data(make(tmp_path / "ellipse", {"x.json": {"a.png1": entry}}))
    write_data(Dataset(ellipse), tmp_path / "polygon", "labelme")
    polygon = labelme.read(tmp_path / "polygon").records[0]
    assert polygon.segments[0][0].tolist() == ellipse.records[0].segments[0][0].tolist()


def test_T1_labelme_losses_are_told(tmp_path):
    made = []
    for name in ("x/a.png", "y/a.png", "y/A.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG + name.encode())
        box = np.array([[1, 2, 21.5, 12]], np.float32)
        made.append(Record(
            name, name, (48, 64), label=0, boxes=box, labels=np.zeros(1, np.int64), iscrowd=np.array([True]), captions=["hm"],
            segments=[[np.float32(TRIANGLE)]],
        ))  # fmt: skip
    splits = {"train": np.arange(2), "trainval": np.arange(3), "../up": np.arange(3)}
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords(made), tasks=("detect",), splits=splits)
    losses = "\n".join(write_data(Dataset(index), tmp_path / "out", "labelme"))
    for text in (
        "3 captions",
        "3 crowd flags",
        "3 labels of whole images",
        "3 image ids",
        "2 images of the split trainval",
        "split _up is lost",
    ):
        assert text in losses
    assert "3 boxes move onto their outlines, by at most 0.500 pixels" in losses
    again = labelme.read(tmp_path / "out")
    assert len({(again.root / r.path).read_bytes() for r in again.records}) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x", "y"]


# ------------------------------------------------------------------------------------------------------------ real files


def independent(path):
    """(label, group, xyxy) of each shape of a file, and its image's size, by the published structure alone."""
    page = json.loads(path.read_text())
    assert page.keys() == {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert (path.parent / page["imagePath"]).is_file()
    out = []
    for s in page["shapes"]:
        assert s.keys() == {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
        assert s["shape_type"] in ("polygon", "rectangle", "mask")
        if s["shape_type"] == "mask":  # as labelme places it: inclusive corners
            (x1, y1), (x2, y2) = s["points"]
            assert np.asarray(Image.open(io.BytesIO(base64.b64decode(s["mask"])))).shape == (y2 - y1 + 1, x2 - x1 + 1)
        xs, ys = zip(*s["points"], strict=True)
        out.append((s["label"], s["group_id"], s["shape_type"], [min(xs), min(ys), max(xs), max(ys)]))
    return (page["imageHeight"], page["imageWidth"]), out


def test_T1_labelme_bccd_there_and_back(real, tmp_path):
    index = read_data(real("bccd"))
    data = Dataset(index, np.arange(30))
    losses = write_data(data, tmp_path / "out", "labelme")
    assert all("trainval" in t for t in losses)
    again = read_data(tmp_path / "out")
    assert again.format == "labelme"
    assert again.problems == []
    assert again.classes == index.classes
    back = {r.image_id: r for r in again.records}
    assert len(back) == 30
    for before in index.records[:30]:
        after = back[before.image_id]
        same(before, after)
        size, shapes = independent((again.root / after.path).with_suffix(".json"))
        assert size == before.size
        assert [s[3] for s in shapes] == before.boxes.tolist()
        assert [s[0] for s in shapes] == [index.classes[k] for k in before.labels]


def test_T1_labelme_coco_mini_there_and_back(real, tmp_path):
    index = read_data(real("coco_mini"))
    crowds = [k for k, r in enumerate(index.records) if r.iscrowd is not None]
    chosen = np.array(sorted({*range(12), *crowds[:3]}))
    losses = "\n".join(write_data(Dataset(index, chosen), tmp_path / "out", "labelme"))
    assert "crowd flags are lost" in losses
    assert "boxes move onto their outlines" in losses
    again = read_data(tmp_path / "out")
    assert again.format == "labelme"
    assert again.keypoint_names == index.keypoint_names
    assert again.keypoint_swap == index.keypoint_swap
    back = {r.path.rpartition("/")[2]: r for r in again.records}
    several = 0
    for k in chosen:
        before, after = index.records[k], back[index.records[k].path.rpartition("/")[2]]
        assert [index.classes[n] for n in before.labels] == [again.classes[n] for n in after.labels]
        assert np.abs(before.boxes - after.boxes).max(initial=0) <= 1
        assert np.array_equal(before.keypoints, after.keypoints)
        for s, t in zip(before.segments, after.segments, strict=True):
            if isinstance(s, dict):
                assert np.array_equal(rasterize(s, before.size), rasterize(t, before.size))
            elif s is not None:
                assert [p.tolist() for p in s] == [p.tolist() for p in t]
                several += len(s) > 1
    assert several >= 3
