"""Open Images CSV: meaning by hand, malformed tables, write then read."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, open_images, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()
HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
NAMES = "/m/01,Cat\n/m/02,Polar bear\n"
ROW = "a,xclick,/m/01,1,0.25,0.5,0,0.75,0,0,0,0,0\n"


def make(root: Path, files: dict[str, str | bytes], images=("images/a.png", "images/b.png")) -> Path:
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def said(index):
    return "\n".join(one_line(p) for p in index.problems)


def test_T1_open_images_columns_mean_what_they_say(tmp_path):
    """XMin, XMax, YMin, YMax in this order, as fractions of 64 x 48; flags; splits from the files' names."""
    root = make(
        tmp_path,
        {
            "oidv6-train-annotations-bbox.csv": HEAD + ROW + "a,activemil,/m/02,1,0,1,0.5,1,1,-1,1,0,1\n",
            "validation-annotations-bbox.csv": HEAD + "b,xclick,/m/02,1,0.5,0.75,0.25,0.5,0,0,0,1,0\nzz,xclick,/m/02,1,0,1,0,1,0,0,0,0,0\n",
            "class-descriptions-boxable.csv": NAMES,
        },
        ("train/a.png", "validation/b.png"),
    )
    assert detect_format(root)[0] == "openimages"
    index = read_data(root)
    assert index.classes == ["Cat", "Polar bear"]
    a, b = index.records
    assert a.boxes.tolist() == [[16, 0, 32, 36], [0, 24, 64, 48]]
    assert a.labels.tolist() == [0, 1]
    assert a.iscrowd.tolist() == [False, True]
    assert {k: list(v) for k, v in a.extra.items()} == {
        "IsOccluded": [0, 1], "IsTruncated": [0, -1], "IsInside": [0, 1], "Source": ["xclick", "activemil"],
    }  # fmt: skip
    assert b.boxes.tolist() == [[32, 12, 48, 24]]
    assert b.iscrowd is None
    assert b.extra["IsDepiction"].tolist() == [1]
    assert {k: v.tolist() for k, v in index.splits.items()} == {"train": [0], "val": [1]}
    assert index.tasks == ("detect",)
    assert "image 'zz' are not here" in said(index)
    assert (a.size, a.image_id) == ((48, 64), "a")


def test_T1_open_images_an_independent_parser_agrees(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        ["a" if k % 2 else "b", "xclick", f"/m/0{k % 2 + 1}", 1, *np.sort(rng.random(2)), *np.sort(rng.random(2)), 0, 0, 0, 0, 0]
        for k in range(50)
    ]
    text = HEAD + "".join(",".join(map(str, r)) + "\n" for r in rows)
    index = read_data(make(tmp_path, {"train-annotations-bbox.csv": text, "class-descriptions.csv": "LabelName,DisplayName\n" + NAMES}))
    truth = {"a": [], "b": []}
    for r in csv.DictReader(io.StringIO(text)):
        truth[r["ImageID"]].append([float(r[k]) * s for k, s in (("XMin", 64), ("YMin", 48), ("XMax", 64), ("YMax", 48))])
    for record in index.records:
        np.testing.assert_allclose(record.boxes, truth[record.image_id], rtol=1e-6)


def test_T1_open_images_labels_of_whole_images(tmp_path):
    head = "ImageID,Source,LabelName,Confidence\n"
    rows = "a,verification,/m/02,1\na,verification,/m/01,0\nb,verification,/m/01,1\nb,verification,/m/02,1\nc,machine,/m/01,0.3\n"
    root = make(tmp_path, {"train-annotations-human-imagelabels.csv": head + rows, "class-descriptions.csv": NAMES})
    index = read_data(root)
    assert (index.format, index.tasks, index.classes) == ("openimages", ("classify",), ["Cat", "Polar bear"])
    assert [(r.image_id, r.label) for r in index.records] == [("a", 1), ("b", 0)]
    assert "'b' has the class '/m/01' already; '/m/02' is skipped" in said(index)


def test_T1_open_images_lists_of_images_and_other_tables(tmp_path):
    files = {
        "train-annotations-bbox.csv": HEAD + ROW,
        "train-images.csv": "ImageID,Subset,OriginalURL\na,train,x\nb,train,y\n",
        "train-annotations-object-segmentation.csv": "MaskPath,ImageID,LabelName,BoxID\nm.png,a,/m/01,1\n",
    }
    index = read_data(make(tmp_path, files))
    assert [(r.image_id, len(r.boxes)) for r in index.records] == [("a", 1), ("b", 0)] or {r.image_id for r in index.records} == {"a", "b"}
    assert index.splits["train"].tolist() == [0, 1]
    assert index.classes == ["/m/01"]
    assert "object-segmentation.csv: holds no boxes; not read" in said(index)


def test_T1_open_images_a_large_table_gives_the_classes_that_occur(tmp_path):
    table = "".join(f"/m/{k},name {k % 1500}\n" for k in range(2000))
    rows = "a,x,/m/1,1,0,1,0,1,0,0,0,0,0\na,x,/m/1501,1,0,1,0,1,0,0,0,0,0\nb,x,/m/7,1,0,1,0,1,0,0,0,0,0\n"
    index = read_data(make(tmp_path, {"test-annotations-bbox.csv": HEAD + rows, "class-descriptions.csv": table}))
    assert index.classes == ["name 1 (/m/1)", "name 7", "name 1 (/m/1501)"]
    write_data(Dataset(index), tmp_path / "out", "openimages")
    assert "/m/1501" in (tmp_path / "out/test-annotations-bbox.csv").read_text()  # LabelNames survive


BROKEN = {
    "empty": (b"", "holds no Open Images table"),
    "a column twice": (HEAD.replace("Source", "ImageID") + ROW + "a,b,c,d,e,f,g,h,i,j,k,l\n", "has 12 fields, the header 13"),
    "carriage return in the header": (HEAD.replace(",YMin", "\r,YMin") + ROW, "lacks the column YMin"),
    "header alone": (HEAD, "not one of its images is here"),
    "no such images": (HEAD + ROW.replace("a,", "x,"), "image 'x' are not here"),
    "short row": (HEAD + "a,xclick\n" + ROW, "has 2 fields, the header 13"),
    "word": (HEAD + ROW + ROW.replace("0.25", "left"), "is not four numbers"),
    "nan": (HEAD + ROW + ROW.replace("0.25", "nan"), "is not four numbers"),
    "infinite": (HEAD + ROW + ROW.replace("0.25", "-inf"), "is not four numbers"),
    "pixels": (HEAD + ROW + ROW.replace("0.5", "300"), "pixels instead of fractions"),
    "over the border": (HEAD + ROW.replace("0.5", "1.05"), "leaves the image; it is clipped"),
    "no area": (HEAD + ROW + ROW.replace("0.5", "0.25"), "has no area"),
    "reversed": (HEAD + ROW + ROW.replace("0.25,0.5", "0.5,0.25"), "has no area"),
    "no class": (HEAD + ROW + ROW.replace("/m/01", ""), "has no LabelName"),
    "odd flags": (HEAD + ROW.replace("0,0,0,0,0\n", "yes,7,-1,,x\n"), ""),
    "leaves the root": (HEAD + ROW + ROW.replace("a,", "../secret,"), "are not here"),
    "nul": (HEAD + ROW + ROW.replace("a,", "\0,"), ""),
    "unclosed quote": (HEAD + ROW + '"a,xclick,' + ROW, ""),
    "huge field": (HEAD + ROW + "a," + "x" * 200_000 + "\n", "is no CSV"),
    "endless line": (HEAD + ROW + "a" * 2_000_000, "million characters"),
    "latin-1": (HEAD.encode() + ROW.encode() + "é,1\n".encode("latin-1"), "is not UTF-8"),
    "long number": (HEAD + ROW + ROW.replace("0.25", "9" * 5000), ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_open_images_malformed(tmp_path, name):
    text, expected = BROKEN[name]
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", {"train-annotations-bbox.csv": text})
    try:
        index = open_images.read(root)
        message = said(index)
        assert all(not r.path.startswith("..") for r in index.records)
        assert "train-annotations-bbox.csv" in message or not expected
    except DataError as error:
        message = one_line(error)
        assert str(root) in message
    assert expected in message


def test_T1_open_images_broken_names_and_images_are_reported(tmp_path):
    root = make(
        tmp_path, {"train-annotations-bbox.csv": HEAD + ROW + ROW.replace("a,", "b,"), "class-descriptions.csv": "/m/01\n,x\n/m/02,Bear\n"}
    )
    (root / "images/b.png").write_bytes(PNG[:20])
    index = read_data(root)
    assert index.classes == ["Bear", "/m/01"]
    assert "'/m/01' is no new class" in said(index)
    assert "lacks /m/01" in said(index)
    assert "b.png: " in said(index)
    os.remove(root / "images/b.png")
    os.symlink(tmp_path.parent, root / "images/b.png")
    assert len(read_data(root)) == 1


@FUZZ
@given(st.binary(max_size=200) | st.tuples(st.integers(0, 300), st.binary(max_size=6)))
def test_T1_open_images_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = (HEAD + ROW + ROW.replace("a,", "b,")).encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    root = make(tmp_path_factory.mktemp("fuzz"), {"train-annotations-bbox.csv": raw, "class-descriptions.csv": raw[-60:]})
    try:
        index = open_images.read(root)
    except DataError as error:
        one_line(error)
        return
    said(index)
    for record in index.records:
        assert record.boxes is None or (record.boxes[:, 2:] > record.boxes[:, :2]).all()


@st.composite
def sets(draw):
    records = []
    for k in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 3))
        numbers = [
            draw(st.tuples(st.floats(0, 30, width=32), st.floats(0, 20, width=32), st.floats(1, 30), st.floats(1, 20)))
            for _ in range(count)
        ]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in numbers], np.float32).reshape(-1, 4)
        crowd = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
        flags = np.array(draw(st.lists(st.integers(-1, 1), min_size=count, max_size=count)), dtype=np.int8)
        labels = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int64)
        records.append(Record(
            f"p,{k}.png", f"p,{k}", (48, 64), boxes=boxes, labels=labels, iscrowd=crowd if crowd.any() else None,
            extra={"IsOccluded": flags} if flags.any() else None,
        ))  # fmt: skip
    return records


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(sets(), st.permutations(["zebra", 'a, "b"', "ö"]), st.booleans())
def test_T1_open_images_write_then_read_gives_the_same(tmp_path_factory, made, classes, divided):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(1), "fold 2": np.arange(1, len(made))} if divided and len(made) > 1 else {}
    index = DataIndex("made", folder, classes, PackedRecords(made), tasks=("detect",), splits=splits)
    assert write_data(Dataset(index), folder / "out", "openimages") == []
    again = read_data(folder / "out")
    assert (again.format, again.classes, again.problems) == ("openimages", classes, [])
    assert [[again.records[i].image_id for i in v] for v in again.splits.values()] == [
        [made[i].image_id for i in v] for v in splits.values()
    ]
    theirs = {r.image_id: r for r in again.records}
    for before in made:
        after = theirs[before.image_id]
        assert (after.size, after.labels.tolist()) == (before.size, before.labels.tolist())
        assert np.array_equal(after.boxes, before.boxes)
        assert (after.iscrowd is None) == (before.iscrowd is None)
        assert before.iscrowd is None or np.array_equal(after.iscrowd, before.iscrowd)
        assert (after.extra is None) == (before.extra is None)
        assert before.extra is None or np.array_equal(after.extra["IsOccluded"], before.extra["IsOccluded"])


def test_T1_open_images_whole_labels_are_written_and_losses_counted(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(PNG)
    records = [Record("a.png", "a", label=1, captions=["x"]), Record("b.png", "b")]
    index = DataIndex("made", tmp_path, ["x", "y"], PackedRecords(records), tasks=("classify",))
    losses = "; ".join(write_data(Dataset(index), tmp_path / "out", "openimages"))
    assert "1 captions" in losses
    assert "1 images without a label are left out" in losses
    again = read_data(tmp_path / "out")
    assert [(r.image_id, r.label) for r in again.records] == [("a", 1)]
    assert again.classes == ["x", "y"]


def test_T1_open_images_bccd_there_and_back(real, tmp_path):
    before = Dataset(read_data(real("bccd")), np.arange(30))
    assert write_data(before, tmp_path / "out", "openimages") == []
    again = Dataset(read_data(tmp_path / "out"))
    theirs = {again.record(i).image_id: again.record(i) for i in range(30)}
    for i in range(30):
        record = before.record(i)
        assert np.array_equal(record.boxes, theirs[record.image_id].boxes)
        assert np.array_equal(record.labels, theirs[record.image_id].labels)
