"""VIA: regions of all kinds, versions 1 and 2, CSV, attributes, hostile files, and write-then-read."""

import csv
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, read_data, via, write_data
from saccade.data.formats.shapes import ellipse_polygon
from saccade.data.polygons import mask_to_rle, rasterize
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()


def region(name, attributes="cat", **shape):
    return {
        "shape_attributes": {"name": name, **shape},
        "region_attributes": {"class": attributes} if isinstance(attributes, str) else attributes,
    }


def rect(x=1, y=2, width=20, height=30, attributes="cat"):
    return region("rect", attributes, x=x, y=y, width=width, height=height)


def entry(*regions, name="a.png", attributes=None):
    return {"filename": name, "size": len(PNG), "regions": list(regions), "file_attributes": attributes or {}}


def page(*entries):
    return {f"{e['filename']}{e['size']}": e for e in entries}


def project(*entries, region=None, file=None, folder=""):
    return {
        "_via_settings": {"core": {"default_filepath": folder}},
        "_via_img_metadata": page(*entries),
        "_via_attributes": {"region": region or {}, "file": file or {}},
    }


def make(folder: Path, files: dict, images=("a.png", "b.png")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, (bytes, str)) else json.dumps(content)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)
    return folder


def one(folder, *regions, **options):
    index = via.read(make(folder, {"via_region_data.json": page(entry(*regions))}), **options)
    return index.records[0], index


GOOD = page(entry(rect(attributes="dog"), name="b.png"))


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def lines(index):
    return "\n".join(map(one_line, index.problems))


# ------------------------------------------------------------------------------------------------------- what it means

KINDS = [
    rect(attributes="rect"),
    region("circle", "circle", cx=20, cy=20, r=5),
    region("ellipse", "ellipse", cx=30, cy=24, rx=10, ry=5, theta=math.pi / 2),
    region("polygon", "poly", all_points_x=[1, 21, 1], all_points_y=[2, 2, 12]),
    region("polyline", "line", all_points_x=[1, 5], all_points_y=[2, 3]),
    region("point", "dot", cx=3, cy=4),
]


def test_T1_via_every_kind_of_region(tmp_path):
    record, index = one(tmp_path, *KINDS)
    assert [index.classes[k] for k in record.labels] == ["rect", "circle", "ellipse", "poly"]
    assert np.allclose(record.boxes, [[1, 2, 21, 32], [15, 15, 25, 25], [25, 14, 35, 34], [1, 2, 21, 12]], atol=1e-5)
    assert record.segments[0] is None
    assert record.segments[3][0].tolist() == [[1, 2], [21, 2], [1, 12]]
    assert record.extra["shapes"] == [
        None, {"type": "circle", "cx": 20.0, "cy": 20.0, "r": 5.0},
        {"type": "ellipse", "cx": 30.0, "cy": 24.0, "rx": 10.0, "ry": 5.0, "theta": math.pi / 2}, None,
    ]  # fmt: skip
    assert record.extra["marks"] == [
        {"type": "linestrip", "label": "line", "points": [[1, 2], [5, 3]]}, {"type": "point", "label": "dot", "points": [[3, 4]]},
    ]  # fmt: skip
    assert "2 points and lines belong to no object" in lines(index)
    assert abs(int(Dataset(index)[0].target["masks"][2].sum()) - 50 * math.pi) < 6


def test_T1_via_an_ellipse_turns_clockwise_as_seen():
    """theta 45 degrees: the long axis runs from the upper left to the lower right, as the browser's canvas draws it."""
    polygon = ellipse_polygon(0, 0, 10, 1, math.pi / 4)
    assert np.allclose(polygon[0], [10 / math.sqrt(2)] * 2)
    inverse = polygon @ np.array([[1, -1], [1, 1]]) / math.sqrt(2)
    assert np.allclose((inverse[:, 0] / 10) ** 2 + inverse[:, 1] ** 2, 1, atol=1e-5)


def test_T1_via_version_1(tmp_path):
    old = {
        "a.png123": {
            "fileref": "", "size": 123, "filename": "a.png", "base64_img_data": "", "file_attributes": {},
            "regions": {"0": rect(), "1": region("polygon", "dog", all_points_x=[1, 21, 1, 1], all_points_y=[2, 2, 12, 2])},
        }
    }  # fmt: skip
    index = via.read(make(tmp_path, {"via_region_data.json": old}))
    assert index.classes == ["cat", "dog"]
    assert index.records[0].boxes.tolist() == [[1, 2, 21, 32], [1, 2, 21, 12]]


def test_T1_via_the_file_name_of_a_key(tmp_path):
    for size in ("123", "-1"):
        index = via.read(make(tmp_path, {"x.json": {f"a.png{size}": {"size": 1, "regions": [rect()]}, "b.png7": entry(name="b.png")}}))
        assert [r.path for r in index.records] == ["a.png", "b.png"]


def table(rows, header="filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"):
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return header + "\n" + out.getvalue()


@pytest.mark.parametrize("mark", ["", "#"])
def test_T1_via_csv_says_what_json_says(tmp_path, mark):
    long = region("polygon", "poly", all_points_x=[1, *[21] * 40_000, 1], all_points_y=[2, *[2] * 40_000, 12])  # a cell of 300 KB
    regions = [*KINDS, long]
    rows = [
        ["a.png", 5, "{}", len(regions), k, json.dumps(r["shape_attributes"]), json.dumps(r["region_attributes"])]
        for k, r in enumerate(regions)
    ]
    rows.append(["b.png", 5, '{"note":"x"}', 0, 0, "{}", "{}"])
    root = make(tmp_path / "csv", {"via_export.csv": mark + table(rows)})
    index, other = via.read(root), via.read(make(tmp_path / "json", {"x.json": page(entry(*regions), entry(name="b.png"))}))
    assert detect_format(root)[0] == "via"
    assert index.classes == other.classes
    assert len(index.records[1].boxes) == 0
    assert index.records[1].extra == {"file_attributes": {"note": "x"}}
    assert np.array_equal(index.records[0].boxes, other.records[0].boxes)
    assert index.records[0].extra == other.records[0].extra


def test_T1_via_the_attribute_of_the_class(tmp_path):
    def read(*attributes, **options):
        index = via.read(make(tmp_path, {"x.json": page(entry(*(rect(attributes=a) for a in attributes)))}), **options)
        return index.classes, index.records[0].extra, lines(index)

    assert read({"kind": "a"}, {"kind": "b"})[0] == ["a", "b"]
    classes, extra, _ = read({"colour": "red", "Label": "a"}, {"colour": "", "Label": "b"})
    assert (classes, extra) == (["a", "b"], {"attributes": [{"colour": "red"}, None]})
    classes, _, text = read({"colour": "red", "size": "s"}, {"colour": "red"})
    assert classes == ["red"]
    assert "the region attribute 'colour' is taken for the class, not 'size'" in text
    assert read({"colour": "red", "size": "s"}, {"colour": "red", "size": 2}, attribute="size")[0] == ["2", "s"]
    assert read({"colour": {"red": True, "blue": False}}, {"colour": {"blue": True}})[0] == ["blue", "red"]
    classes, _, text = read({"colour": {"red": True, "blue": True}})
    assert (classes, "has 2 classes checked" in text) == (["red"], True)
    classes, _, text = read({"colour": "red"}, {"colour": ""}, {})
    assert (classes, text.count("has no 'colour'; it is skipped")) == (["red"], 2)
    assert read({}, {})[0] == ["object"]
    with pytest.raises(UsageError, match="did you mean 'colour'"):
        read({"colour": "red"}, attribute="color")


def test_T1_via_options_of_the_project_give_the_order(tmp_path):
    options = {"class": {"type": "dropdown", "options": {"zebra": "", "cat": "", "unused": ""}, "default_options": {}}}
    index = via.read(make(tmp_path, {"via_project_1.json": project(entry(rect(), rect(attributes="ant")), region=options)}))
    assert index.classes == ["zebra", "cat", "unused", "ant"]


def test_T1_via_attributes_of_files_are_classes_where_nothing_is_drawn(tmp_path):
    entries = [entry(attributes={"caption": "x", "species": "ant"}), entry(name="b.png", attributes={"caption": "y", "species": ""})]
    index = via.read(make(tmp_path, {"x.json": page(*entries)}))
    assert index.tasks == ("classify",)
    assert index.classes == ["ant"]
    assert [r.label for r in index.records] == [0, None]
    assert index.records[0].extra == {"file_attributes": {"caption": "x"}}
    assert "image 'b.png" in lines(index)


def test_T1_via_groups_and_key_points(tmp_path):
    def point(name, group, x, **more):
        return region("point", {"keypoint": name, "object_id": group, **more}, cx=x, cy=5)

    own = {"class": "cat", "object_id": "1"}
    polygons = [region("polygon", own, all_points_x=[k, k + 9, k], all_points_y=[1, 1, 9]) for k in (1, 20)]
    record, index = one(tmp_path, *polygons, point("nose", "1", 3), point("eye", "1", 4, visibility="1"), point("eye", "9", 5))
    assert record.boxes.tolist() == [[1, 1, 29, 9]]
    assert len(record.segments[0]) == 2
    assert index.keypoint_names == ["eye", "nose"]
    assert record.keypoints.tolist() == [[[4, 5, 1], [3, 5, 2]]]
    assert len(record.extra["marks"]) == 1
    assert index.tasks == ("detect", "pose")


@pytest.mark.parametrize(
    ("where", "image"),
    [
        ("via_region_data.json", "a.png"),
        ("annotations/via_region_data.json", "images/a.png"),
        ("train/via_region_data.json", "train/a.png"),
        ("via_project_train.json", "images/a.png"),
        ("via_project.json", "pictures/new/a.png"),
    ],
)
def test_T1_via_where_images_lie(tmp_path, where, image):
    index = via.read(make(tmp_path, {where: project(entry(rect()), folder="./pictures/new/")}, images=(image,)))
    assert [r.path for r in index.records] == [image]
    assert index.problems == []
    assert list(index.splits) == (["train"] if "train" in where else [])


@pytest.mark.parametrize("folder", ["../../", "/etc/", "C:\\", "\0", 7, None, "x" * 9999])
def test_T1_via_a_default_path_out_of_the_root_is_not_followed(tmp_path, folder):
    index = via.read(make(tmp_path / "in", {"via_project.json": project(entry(rect()), entry(name="../a.png"), folder=folder)}))
    assert [r.path for r in index.records] == ["a.png"]
    assert "lies outside" in lines(index) or "missing" in lines(index)


def test_T1_via_several_files_of_the_same_images(tmp_path):
    files = {
        "via_project.json": project(entry(rect())),
        "export.json": page(entry(rect())),
        "other.json": page(entry(rect(), rect()), entry(rect(), name="b.png")),
    }
    index = via.read(make(tmp_path, files))
    assert [len(r.boxes) for r in index.records] == [1, 1]
    assert lines(index).count("states other regions") == 1
    assert "other.json" in lines(index)


def test_T1_via_sniff(tmp_path):
    assert via.sniff(tmp_path) is None
    make(tmp_path, {"coco.json": {"images": [{"file_name": "a.png"}]}, "t.csv": "filename,class\na.png,cat\n", "m.json": {"shapes": []}})
    assert via.sniff(tmp_path) is None
    with pytest.raises(DataError, match="holds no VIA file"):
        via.read(tmp_path)
    make(tmp_path / "new", {"via_project_1.json": project(entry(rect())), "zz.json": "{}"})
    assert via.sniff(tmp_path / "new") == "1 VIA file: via_project_1.json"
    assert via.sniff(tmp_path / "new" / "via_project_1.json") == "1 VIA file: via_project_1.json"
    assert detect_format(tmp_path / "new")[0] == "via"
    assert len(read_data(tmp_path / "new" / "via_project_1.json")) == 1


# ------------------------------------------------------------------------------------------------------------- bad files

HEAD = '{"_via_img_metadata": '
BROKEN = {
    "truncated": json.dumps(project(entry(rect())))[:150],
    "nested": HEAD + "[" * 100_000,
    "not UTF-8": HEAD.encode() + b'"\xff\xfe"}',
    "a number of thousands of digits": HEAD + "9" * 10_000 + "}",
    "a list": HEAD + "[]}",
    "null": HEAD + "null}",
    "a text": HEAD + '"x"}',
    "two documents": HEAD + "{}}{}",
    "image no mapping": HEAD + '{"a": 3}}',
    "image missing": page(entry(rect(), name="zzz.png")),
    "image outside": page(entry(rect(), name="../../../etc/passwd")),
    "image absolute": page(entry(rect(), name="/etc/passwd")),
    "image of a URL": page(entry(rect(), name="http://x/y.png")),
    "name a number": HEAD + '{"a": {"filename": 3, "regions": []}}}',
    "name empty": HEAD + '{"": {"regions": []}}}',
    "name NUL": page(entry(rect(), name="\0")),
    "image broken": page(entry(rect(), name="broken.png")),
    "CSV without cells": b'filename,region_shape_attributes\n"a.png',
    "CSV of another length": b"filename,region_shape_attributes\na.png\n",
    "CSV without JSON": b"filename,region_shape_attributes\na.png,{name:rect}\n",
    "CSV nested": b"filename,region_shape_attributes\na.png," + b"[" * 100_000 + b"\n",
    "CSV without names": b"file,region_shape_attributes\na.png,{}\n",
    "CSV not UTF-8": b"filename,region_shape_attributes\n\xff\xfe,{}\n",
    "CSV NUL": b"filename,region_shape_attributes\n\0,{}\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_via_a_broken_file_is_reported_and_the_others_are_read(tmp_path, name):
    file = "via_bad." + ("csv" if name.startswith("CSV") else "json")
    (tmp_path / "broken.png").write_bytes(PNG[:20])
    index = via.read(make(tmp_path, {file: BROKEN[name], "x.json": GOOD}))
    assert [r.image_id for r in index.records] == ["b"]
    assert len(index.problems) == 1
    assert ("broken.png" if name == "image broken" else file) in one_line(index.problems[0])
    with pytest.raises(DataError) as error:
        via.read(tmp_path / file)
    assert file in one_line(error.value) or "broken.png" in one_line(error.value)


HUGE = 10**400
FLAWED = {
    "no region": ("cat", 0, "is no region"),
    "null": (None, 0, "is no region"),
    "no shape": ({"region_attributes": {"class": "cat"}}, 0, "is no region"),
    "shape a list": ({"shape_attributes": [], "region_attributes": {"class": "cat"}}, 0, "is no region"),
    "no kind": (region(None), 0, "None is unknown"),
    "unknown kind": (region("cube", x=1), 0, "'cube' is unknown"),
    "no class": (rect(attributes={}), 0, "has no 'class'"),
    "attributes a list": ({**rect(), "region_attributes": [1]}, 0, "has no 'class'"),
    "class a list": (rect(attributes={"class": ["cat"]}), 0, "has no 'class'"),
    "class a lone surrogate": (rect(attributes="\ud800"), 1, ""),
    "class a number": (rect(attributes={"class": 7}), 1, ""),
    "no area": (rect(width=0), 0, "has no area"),
    "negative": (rect(width=-9), 0, "has no area"),
    "NaN": (rect(x=float("nan")), 0, "not numbers"),
    "infinite": (rect(width=float("inf")), 0, "not numbers"),
    "huge": (rect(width=HUGE), 0, "not numbers"),
    "text": (rect(x="1"), 0, "not numbers"),
    "true": (rect(x=True), 0, "not numbers"),
    "missing": (region("rect", x=1), 0, "not numbers"),
    "outside": (rect(x=100, y=100), 0, "lies outside"),
    "over the border": (rect(x=-5, width=90), 1, "clipped"),
    "circle without radius": (region("circle", cx=5, cy=5, r=0), 0, "has no area"),
    "circle of a text": (region("circle", cx=5, cy=5, r="2"), 0, "not numbers"),
    "ellipse negative": (region("ellipse", cx=5, cy=5, rx=-2, ry=2), 0, "has no area"),
    "ellipse theta NaN": (region("ellipse", cx=5, cy=5, rx=2, ry=2, theta=float("nan")), 0, "not numbers"),
    "ellipse without theta": (region("ellipse", cx=9, cy=9, rx=2, ry=2), 1, ""),
    "polygon of two points": (region("polygon", all_points_x=[1, 2], all_points_y=[3, 4]), 0, "needs 3 points"),
    "polygon of unlike lists": (region("polygon", all_points_x=[1, 2, 3], all_points_y=[3, 4]), 0, "no lists of one length"),
    "polygon without lists": (region("polygon"), 0, "no lists of one length"),
    "polygon of nothing": (region("polygon", all_points_x=[], all_points_y=[]), 0, "pairs of numbers"),
    "polygon of texts": (region("polygon", all_points_x=["a", 1, 2], all_points_y=[1, 2, 3]), 0, "pairs of numbers"),
    "polygon of lists": (region("polygon", all_points_x=[[1], 1, 2], all_points_y=[1, 2, 3]), 0, "pairs of numbers"),
    "polygon huge": (region("polygon", all_points_x=[HUGE, 1, 2], all_points_y=[1, 2, 3]), 0, "pairs of numbers"),
    "point of a text": (region("point", cx="1", cy=2), 0, "not numbers"),
    "line of one point": (region("polyline", all_points_x=[1], all_points_y=[3]), 0, "needs 2 points"),
}


@pytest.mark.parametrize("name", FLAWED)
def test_T1_via_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    item, objects, message = FLAWED[name]
    record, index = one(tmp_path, item, rect())
    assert len(record.boxes) == objects + 1
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "via_region_data.json: image 'a.png" in t and "region 1" in t for t in texts) if message else texts == []
    assert Dataset(index)[0].target["boxes"].shape == (objects + 1, 4)
    Dataset(index).fingerprint()


def test_T1_via_a_link_out_of_the_root_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", {"x.json": page(entry(rect()), entry(rect(), name="c.png"))}, images=("a.png",))
    os.symlink(tmp_path / "secret.png", root / "c.png")
    os.mkfifo(root / "via_project.json")
    index = via.read(root)
    assert [r.image_id for r in index.records] == ["a"]
    assert "outside" in lines(index)


RAW = json.dumps(project(entry(*KINDS, attributes={"x": "y"})))
TABLE = table([["a.png", 5, "{}", 1, 0, json.dumps(KINDS[0]["shape_attributes"]), '{"class":"cat"}']])


@FUZZ
@given(st.booleans(), st.binary(max_size=200) | st.tuples(st.integers(0, len(RAW)), st.binary(max_size=6)))
def test_T1_via_any_bytes_give_data_or_one_line(tmp_path_factory, as_table, change):
    raw = (TABLE if as_table else RAW).encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    readable(make(tmp_path_factory.mktemp("fuzz"), {"via_a.csv" if as_table else "via_a.json": raw, "b.json": GOOD}))


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
jsons = st.recursive(values, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=8)


@FUZZ
@given(
    st.sampled_from(range(len(KINDS))), st.sampled_from(["name", "x", "r", "theta", "cx", "all_points_x"]), jsons,
    st.sampled_from(["class", "object_id", "keypoint", "visibility", "x"]), jsons,
    st.sampled_from(["filename", "size", "regions", "file_attributes"]), jsons,
    st.sampled_from(["_via_settings", "_via_attributes", "_via_img_metadata", "x"]), jsons,
)  # fmt: skip
def test_T1_via_any_values_give_data_or_one_line(tmp_path_factory, kind, key, value, own, other, whole, third, top, last):
    changed = {
        "shape_attributes": {**KINDS[kind]["shape_attributes"], key: value},
        "region_attributes": {"class": "cat", own: other},
    }
    data = {**project(entry(changed, rect()), {**entry(rect(), name="b.png"), whole: third} | {"filename": "b.png", "size": 1}), top: last}
    readable(make(tmp_path_factory.mktemp("fuzz"), {"via_a.json": data, "b.json": GOOD}))


def readable(root):
    try:
        index = via.read(root)
    except DataError as error:
        one_line(error)
        return
    lines(index)
    data = Dataset(index)
    data.fingerprint()
    for k in range(len(index)):
        target = data[k].target
        if "boxes" in target:
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
    write_data(data, root / "out", "via")


# ------------------------------------------------------------------------------------------------------ write then read


def same(a, b):
    assert (a.image_id, a.size) == (b.image_id, b.size)
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.labels, b.labels)
    for s, t in zip(a.segments or [None] * len(a.boxes), b.segments or [None] * len(b.boxes), strict=True):
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
        boxes, segments, points, shapes, attributes = [], [], [], [], []
        for _ in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(["box", "polygons", "circle", "ellipse", "framed"]))
            corner, side = np.array(draw(coordinate)) * 0.7, draw(st.tuples(st.floats(1.5, 15, width=32), st.floats(1.5, 12, width=32)))
            box, segment, form = np.float32([*corner, *(corner + side)]), None, None
            if kind in ("polygons", "framed"):
                x1, y1, x2, y2 = box
                segment = [np.float32([[x1, y1], [x2, y1], [x2, y2]]), np.float32([[x1, y1], [x1, y2], draw(coordinate)])][
                    : draw(st.integers(1, 2))
                ]
                every = np.concatenate(segment)
                box = np.concatenate([every.min(0), every.max(0)])
                if kind == "framed":
                    box = np.float32([box[0] / 2, box[1] / 2, 64, 48]) if box[2] < 60 else box
            elif kind in ("circle", "ellipse"):
                cx, cy = np.round(corner + 10, 2).tolist()
                sides = {"r": 3.25} if kind == "circle" else {"rx": 4.5, "ry": 2.25, "theta": draw(st.sampled_from([0.0, 0.5, -1.25]))}
                form = {"type": kind, "cx": cx, "cy": cy, **sides}
                segment = [ellipse_polygon(cx, cy, *((3.25, 3.25) if kind == "circle" else sides.values()))]
                box = np.concatenate([segment[0].min(0), segment[0].max(0)])
            visible = np.float32([[*draw(coordinate), draw(st.sampled_from([0, 1, 2]))] for _ in range(2)])
            visible[visible[:, 2] == 0] = 0
            boxes.append(box), segments.append(segment), points.append(visible), shapes.append(form)
            attributes.append(draw(st.sampled_from([None, {"colour": "red", "ok": {"yes": True}}])))
        marks = [
            {"type": "point", "label": "road", "points": [[1.5, 2.0]]},
            {"type": "linestrip", "label": "", "points": [[1.5, 2.0], [3.0, 4.0]]},
        ]
        extra = {"shapes": shapes} if any(shapes) else {}
        extra |= {"attributes": attributes} if any(attributes) else {}
        extra |= {"marks": marks} if draw(st.booleans()) else {}
        extra |= {"file_attributes": {"by": "me"}} if draw(st.booleans()) else {}
        out.append(Record(
            f"p{k}.png", f"p{k}", (48, 64), boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(draw(st.lists(st.integers(0, 2), min_size=len(boxes), max_size=len(boxes))), np.int64),
            segments=segments, keypoints=np.array(points, np.float32).reshape(-1, 2, 3), extra=extra or None,
        ))  # fmt: skip
    return out


@SOME
@given(records(), st.permutations(["zebra", "a & b", "<ö>"]))
def test_T1_via_write_then_read_gives_the_same(tmp_path_factory, made, classes):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(1), "trainval": np.arange(len(made))}
    names = ["tail", "left_ear"]
    index = DataIndex("made", folder, classes, PackedRecords(made), tasks=("detect",), splits=splits, keypoint_names=names)
    assert write_data(Dataset(index), folder / "out", "via") == []
    again = via.read(folder / "out")
    assert [p for p in map(str, again.problems) if "belong to no object" not in p] == []
    assert again.classes == classes
    assert {s: [again.records[i].image_id for i in v] for s, v in again.splits.items()} == {
        s: [made[i].image_id for i in v] for s, v in splits.items()
    }
    assert again.keypoint_names == names
    assert again.tasks == ("detect", "pose")
    back = {r.image_id: r for r in again.records}
    for before in made:
        same(before, back[before.image_id])


def test_T1_via_labels_of_images_are_attributes_of_files(tmp_path):
    made = [Record(f"{k}.png", f"{k}", (48, 64), label=k % 2) for k in range(4)]
    for record in made:
        (tmp_path / record.path).write_bytes(PNG)
    index = DataIndex("made", tmp_path, ["zebra", "ant"], PackedRecords(made), tasks=("classify",))
    assert write_data(Dataset(index), tmp_path / "out", "via") == []
    again = via.read(tmp_path / "out")
    assert again.classes == ["zebra", "ant"]
    assert [r.label for r in again.records] == [0, 1, 0, 1]


def test_T1_via_losses_are_told(tmp_path):
    mask = np.zeros((48, 64), bool)
    mask[5:9, 5:20] = mask[20:30, 7:9] = True
    made = []
    for name in ("x/a.png", "y/a.png", "y/A.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG + name.encode())
        box = np.array([[5, 5, 20, 30]], np.float32)
        made.append(Record(
            name, name, (48, 64), label=0, boxes=box, labels=np.zeros(1, np.int64), iscrowd=np.array([True]), captions=["hm"],
            segments=[mask_to_rle(mask)],
        ))  # fmt: skip
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords(made), tasks=("detect",), splits={"../up": np.arange(3)})
    losses = "\n".join(write_data(Dataset(index), tmp_path / "out", "via"))
    for text in ("3 captions", "3 crowd flags", "3 labels of whole images", "3 image ids", "split _up is lost", "3 run-length coded"):
        assert text in losses
    again = via.read(tmp_path / "out")
    assert len({(again.root / r.path).read_bytes() for r in again.records}) == 3
    assert all(np.array_equal(rasterize(r.segments[0], (48, 64)), mask) for r in again.records)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x", "y"]


# ------------------------------------------------------------------------------------------------------------ real files


def independent(path):
    """x1, y1, x2, y2 and class of every region by file name, by the published structure of VIA 2's projects alone."""
    data = json.loads(path.read_text())
    assert {"_via_settings", "_via_img_metadata", "_via_attributes", "_via_image_id_list"} <= data.keys()
    assert list(data["_via_img_metadata"]) == data["_via_image_id_list"]
    folder = path.parent / data["_via_settings"]["core"]["default_filepath"]
    out = {}
    for key, image in data["_via_img_metadata"].items():
        assert key == image["filename"] + str(image["size"])
        assert (folder / image["filename"]).stat().st_size == image["size"]
        out[image["filename"]] = []
        for one in image["regions"]:
            s, name = one["shape_attributes"], one["region_attributes"].get("class")
            assert name is None or name in data["_via_attributes"]["region"]["class"]["options"]
            if s["name"] == "rect":
                box = [s["x"], s["y"], s["x"] + s["width"], s["y"] + s["height"]]
            elif s["name"] == "polygon":
                box = [min(s["all_points_x"]), min(s["all_points_y"]), max(s["all_points_x"]), max(s["all_points_y"])]
            else:
                assert s["name"] == "point"
                assert one["region_attributes"]["keypoint"] in data["_via_attributes"]["region"]["keypoint"]["options"]
                continue
            out[image["filename"]].append((name, box))
    return out


def test_T1_via_bccd_there_and_back(real, tmp_path):
    index = read_data(real("bccd"))
    assert write_data(Dataset(index, np.arange(30)), tmp_path / "out", "via") == []
    again = read_data(tmp_path / "out")
    assert again.format == "via"
    assert again.problems == []
    assert again.classes == index.classes
    assert {s: len(v) for s, v in again.splits.items()} == {s: int((v < 30).sum()) for s, v in index.splits.items()}
    back = {r.image_id: r for r in again.records}
    for before in index.records[:30]:
        same(before, back[before.image_id])
    truth = {r.path.rpartition("/")[2]: r for r in index.records[:30]}
    found = {n: b for file in sorted((tmp_path / "out").glob("*.json")) for n, b in independent(file).items()}
    assert found.keys() == truth.keys()
    for name, regions in found.items():
        assert [b for _, b in regions] == truth[name].boxes.tolist()
        assert [n for n, _ in regions] == [index.classes[k] for k in truth[name].labels]


def test_T1_via_coco_mini_there_and_back(real, tmp_path):
    index = read_data(real("coco_mini"))
    losses = "\n".join(write_data(Dataset(index, np.arange(12)), tmp_path / "out", "via"))
    assert "boxes move onto their outlines" in losses
    again = read_data(tmp_path / "out")
    assert again.format == "via"
    assert again.keypoint_names == index.keypoint_names
    for file in (tmp_path / "out").glob("*.json"):
        independent(file)
    back = {r.path.rpartition("/")[2]: r for r in again.records}
    for before in index.records[:12]:
        after = back[before.path.rpartition("/")[2]]
        assert before.labels.tolist() == after.labels.tolist()
        assert np.abs(before.boxes - after.boxes).max(initial=0) <= 1
        assert np.array_equal(before.keypoints, after.keypoints)
        for s, t in zip(before.segments, after.segments, strict=True):
            if isinstance(s, list):
                assert [p.tolist() for p in s] == [p.tolist() for p in t]
