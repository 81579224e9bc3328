"""Pascal VOC XML: real files by the readme's counts, hostile files, and write-then-read."""

import csv
import io
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import voc, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()
SIZE = "<size><width>64</width><height>48</height><depth>3</depth></size>"


def box(*values, name="cat", more=""):
    tags = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{tags}</bndbox></object>"


def page(*objects, filename="a.png", size=SIZE):
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def make(folder: Path, files: dict[str, str | bytes], images=("a.png", "b.png"), lists=None) -> Path:
    for sub in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "Annotations" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for name in images:
        (folder / "JPEGImages" / name).write_bytes(PNG)
    for name, text in (lists or {}).items():
        (folder / "ImageSets/Main" / name).write_text(text)
    return folder


GOOD = page(box(1, 2, 30, 40, name="dog"), filename="b.png")


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------------ real files


def test_T1_voc_bccd_counts_of_the_readme(real):
    index = voc.read(real("bccd"))
    assert len(index) == 364
    assert index.classes == ["Platelets", "RBC", "WBC"]
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 205, "val": 87, "trainval": 292, "test": 72}
    counts = {s: Dataset(index).take(s).class_counts().tolist() for s in ("train", "val", "test")}
    # the readme's numbers, less the two boxes without area
    assert [sum(c[k] for c in counts.values()) for k in range(3)] == [361, 4155 - 2, 372]
    assert counts["val"][0] == 83
    assert counts["test"][2] == 71
    texts = [one_line(p) for p in index.problems]
    assert len(texts) == 2
    assert "BloodImage_00338.xml: object 13: the box 504 337 504 337 of 'RBC' has no area" in texts[0]
    assert "BloodImage_00343.xml" in texts[1]
    assert sorted(index.splits["trainval"]) == sorted([*index.splits["train"], *index.splits["val"]])


def test_T1_voc_bccd_numbers_are_edges_as_they_are(real):
    """640 and 480 occur, which as 1-based inclusive pixels and as edges are both in range: nothing is added or subtracted."""
    root = real("bccd")
    record = next(r for r in voc.read(root).records if r.image_id == "BloodImage_00338")
    tree = ElementTree.parse(root / "Annotations" / "BloodImage_00338.xml")  # an independent parser
    truth = [[int(b.findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax")] for b in tree.iter("bndbox")]
    assert record.boxes.tolist() == [b for b in truth if b[2] > b[0]]
    shifted = next(r for r in voc.read(root, one_based=True).records if r.image_id == "BloodImage_00338")
    # read as 1-based inclusive pixels, 504 337 504 337 is one pixel
    assert shifted.boxes.tolist() == [[max(a - 1, 0), max(b - 1, 0), c, d] for a, b, c, d in truth]


def test_T1_voc_raccoon_is_its_csv(real):
    root = real("raccoon")
    index = voc.read(root)
    assert len(index) == 129
    assert index.problems == []
    with (root / "raccoon_labels.csv").open() as file:
        rows = [(r["filename"], [float(r[k]) for k in ("xmin", "ymin", "xmax", "ymax")]) for r in csv.DictReader(file)]
    ours = [(r.path.rpartition("/")[2], b) for r in index.records for b in r.boxes.tolist()]
    assert sorted(ours) == sorted(rows)


def test_T1_voc_bccd_written_and_read_again(real, tmp_path):
    index = voc.read(real("bccd"))
    losses = write_data(Dataset(index, np.arange(40)), tmp_path / "out", "voc")
    assert losses == []
    again = voc.read(tmp_path / "out")
    assert again.classes == index.classes
    assert again.problems == []
    for before, after in zip(index.records[:40], again.records, strict=True):
        same(before, after)
    assert (tmp_path / "out" / "JPEGImages" / "BloodImage_00000.jpg").read_bytes() == (index.root / index.records[0].path).read_bytes()


# ------------------------------------------------------------------------------------------------------- what it means


def test_T1_voc_splits_stand_as_given(tmp_path):
    lists = {"train.txt": "a\n", "val.txt": "b.png\n\n", "trainval.txt": "a\nb\nb\nzzz\n", "cat_train.txt": "a 1\nb -1\n"}
    index = voc.read(make(tmp_path, {"a.xml": page(box(1, 2, 3, 4)), "b.xml": GOOD}, lists=lists))
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0], "val": [1], "trainval": [0, 1]}
    texts = [one_line(p) for p in index.problems]
    assert "trainval.txt: line 3: names 'b' twice" in texts[0]
    assert "trainval.txt: line 4: names 'zzz'" in texts[1]


def test_T1_voc_flags_are_kept(tmp_path):
    hard = box(1, 2, 3, 4, more="<difficult>1</difficult><truncated>1</truncated><pose>Left</pose>")
    index = voc.read(make(tmp_path, {"a.xml": page(hard, box(5, 6, 7, 8)), "b.xml": GOOD}))
    extra = index.records[0].extra
    assert extra["difficult"].tolist() == [True, False]
    assert extra["truncated"].tolist() == [True, False]
    assert extra["pose"] == ["Left", "Unspecified"]
    assert index.records[1].extra is None


def test_T1_voc_other_layouts(tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "a.xml").write_text(page(box(1, 2, 3, 4)))
    (beside / "a.png").write_bytes(PNG)
    assert [r.path for r in voc.read(beside).records] == ["a.png"]
    for split in ("train", "valid"):
        (tmp_path / "parts" / split).mkdir(parents=True)
        (tmp_path / "parts" / split / "a.xml").write_text(page(box(1, 2, 3, 4)))
        (tmp_path / "parts" / split / "a.png").write_bytes(PNG)
    index = voc.read(tmp_path / "parts")
    assert {s: [index.records[i].path for i in v] for s, v in index.splits.items()} == {"train": ["train/a.png"], "val": ["valid/a.png"]}
    assert len({r.image_id for r in index.records}) == 2


def test_T1_voc_image_of_the_stem_goes_before_the_filename(tmp_path):
    files = {"a.xml": page(box(1, 2, 3, 4), filename="other.jpg"), "named.xml": page(box(1, 2, 3, 4), filename="b.png")}
    index = voc.read(make(tmp_path, files))
    assert [(r.image_id, r.path) for r in index.records] == [("a", "JPEGImages/a.png"), ("named", "JPEGImages/b.png")]


def test_T1_voc_a_wrong_size_in_the_xml_is_looked_up_in_the_image(tmp_path):
    small = "<size><width>10</width><height>10</height></size>"
    index = voc.read(make(tmp_path, {"a.xml": page(box(1, 2, 60, 40), size=small)}))
    assert index.records[0].size == (48, 64)
    assert index.records[0].boxes.tolist() == [[1, 2, 60, 40]]
    assert index.problems == []


def test_T1_voc_sniff(tmp_path):
    assert voc.sniff(tmp_path) is None
    (tmp_path / "x.xml").write_text("<dataset><images/></dataset>")
    assert voc.sniff(tmp_path) is None
    with pytest.raises(DataError, match="holds no Pascal VOC XML"):
        voc.read(tmp_path)
    make(tmp_path, {"a.xml": GOOD})
    assert voc.sniff(tmp_path) == "1 XML file with <annotation>"


# ------------------------------------------------------------------------------------------------------------- bad files

ENTITY = '<!DOCTYPE annotation [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
LAUGHS = "<!DOCTYPE l [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {chr(98 + i)} '{('&' + chr(97 + i) + ';') * 10}'>" for i in range(8)) + "]>"

BROKEN = {
    "empty": b"",
    "truncated": page(box(1, 2, 3, 4))[:80],
    "bytes": bytes(range(256)),
    "text": "<annotation",
    "another root": "<dataset><annotation></annotation></dataset>",
    "two roots": GOOD + GOOD,
    "unknown entity": page(box(1, 2, 3, 4, name="&nbsp;")),
    "external entity": ENTITY + page(box(1, 2, 3, 4, name="&secret;")),
    "external entity unused": ENTITY + page(box(1, 2, 3, 4)),
    "a billion laughs": LAUGHS + page(box(1, 2, 3, 4, name="&i;")),
    "parameter entity": '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x">%p;]>' + page(),
    "wrong encoding": b'<?xml version="1.0" encoding="utf-8"?><annotation>\xff\xfe</annotation>',
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><annotation/>',
    "a NUL": page() + "\x00",
    "image missing": page(box(1, 2, 3, 4), filename="zzz.png"),
    "no filename": "<annotation/>",
    "image outside": page(box(1, 2, 3, 4), filename="../../../etc/passwd"),
    "image absolute": page(box(1, 2, 3, 4), filename="/etc/passwd"),
    "image name empty": page(box(1, 2, 3, 4), filename=""),
    "nested": "<annotation>" * 50_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_voc_a_broken_file_is_reported_and_the_others_are_read(tmp_path, name):
    index = voc.read(make(tmp_path, {"bad.xml": BROKEN[name], "b.xml": GOOD}))
    assert [r.image_id for r in index.records] == ["b"]
    assert len(index.problems) == 1
    text = one_line(index.problems[0])
    assert "bad.xml" in text
    assert "root:" not in text  # nothing of the file that an entity named


def test_T1_voc_only_broken_files_are_an_error(tmp_path):
    with pytest.raises(DataError, match="not one usable image"):
        voc.read(make(tmp_path, {"a.xml": "<annotation>"}))
    (tmp_path / "Annotations" / "a.xml").unlink()
    (tmp_path / "Annotations" / "a.xml").mkdir()
    with pytest.raises(DataError):
        voc.read(tmp_path)


FLAWED = {
    "no area": (box(5, 5, 5, 9), 1, "has no area"),
    "negative side": (box(9, 5, 5, 9), 1, "has no area"),
    "NaN": (box("nan", 5, 5, 9), 1, "four finite numbers"),
    "infinite": (box(1, 5, "inf", 9), 1, "four finite numbers"),
    "huge": (box(1, 5, "1e300", 9), 1, "four finite numbers"),
    "words": (box("a", 5, 5, 9), 1, "four finite numbers"),
    "empty numbers": (box("", 5, 5, 9), 1, "four finite numbers"),
    "no bndbox": ("<object><name>cat</name></object>", 1, "four finite numbers"),
    "half a bndbox": ("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>", 1, "four finite numbers"),
    "no name": (box(1, 2, 3, 4, name=" "), 1, "no <name>"),
    "outside": (box(100, 100, 200, 200), 1, "lies outside"),
    "over the border": (box(-5, 2, 90, 40), 2, "clipped"),
    "fractions": (box(0.5, 2.25, 3.5, 4.75), 2, ""),
    "blanks": (box(" 1 ", "2\n", 3, 4), 2, ""),
    "two bndboxes": (box(1, 2, 3, 4, more="<bndbox/>"), 1, "four finite numbers"),
    "difficult a word": (box(1, 2, 3, 4, more="<difficult>perhaps</difficult>"), 2, ""),
    "parts inside": (box(1, 2, 3, 4, more="<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"), 2, ""),
}


@pytest.mark.parametrize("name", FLAWED)
def test_T1_voc_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    item, objects, message = FLAWED[name]
    index = voc.read(make(tmp_path, {"a.xml": page(item, box(1, 2, 30, 40))}))
    record = index.records[0]
    assert len(record.boxes) == objects
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "a.xml: object 1" in t for t in texts) if message else texts == []
    assert (record.boxes >= 0).all()
    assert (record.boxes[:, 2:] <= [64, 48]).all()


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"])
def test_T1_voc_without_a_size(tmp_path, size):
    index = voc.read(make(tmp_path, {"a.xml": page(box(1, 2, 900, 40), size=size)}))
    assert index.records[0].boxes.tolist() == [[1, 2, 64, 40]]


def test_T1_voc_a_link_out_of_the_root_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", {"a.xml": page(box(1, 2, 3, 4)), "c.xml": page(box(1, 2, 3, 4), filename="c.png")})
    os.symlink(tmp_path / "secret.png", root / "JPEGImages" / "c.png")
    index = voc.read(root)
    assert [r.image_id for r in index.records] == ["a"]
    assert "outside" in one_line(index.problems[0])


@FUZZ
@given(st.binary(max_size=200) | st.tuples(st.integers(0, 300), st.binary(max_size=6)))
def test_T1_voc_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = page(box(1, 2, 3, 4)).encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    readable(make(tmp_path_factory.mktemp("fuzz"), {"a.xml": raw, "b.xml": GOOD}))


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.floats().map(str) | st.integers().map(str)


@FUZZ
@given(st.lists(texts, min_size=6, max_size=6), st.sampled_from(["train.txt", "val.txt"]), st.text(max_size=20))
def test_T1_voc_any_values_give_data_or_one_line(tmp_path_factory, values, split, lines):
    from xml.sax.saxutils import escape

    a, b, c, d, name, filename = map(escape, values)
    files = {"a.xml": page(box(a, b, c, d, name=name), filename=filename), "b.xml": GOOD}
    root = make(tmp_path_factory.mktemp("fuzz"), files)
    (root / "ImageSets" / "Main" / split).write_text(lines, encoding="utf-8", errors="replace")
    readable(root)


def readable(root):
    try:
        index = voc.read(root)
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for k in range(len(index)):
        boxes = Dataset(index)[k].target["boxes"]
        assert (boxes[:, 2:] > boxes[:, :2]).all()


# ------------------------------------------------------------------------------------------------------ write then read


@st.composite
def records(draw):
    out = []
    for k in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 3))
        corner = np.array(draw(st.lists(st.tuples(st.floats(0, 40, width=32), st.floats(0, 30, width=32)), min_size=count, max_size=count)))
        side = np.array(draw(st.lists(st.tuples(st.floats(1, 20, width=32), st.floats(1, 15, width=32)), min_size=count, max_size=count)))
        corner, side = corner.reshape(-1, 2), side.reshape(-1, 2)
        flags = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
        labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
        out.append(Record(
            f"p{k}.png", f"p{k}", (48, 64), boxes=np.hstack([corner, corner + side]).astype(np.float32),
            labels=np.array(labels, np.int64), extra={"difficult": flags} if flags.any() else None,
        ))  # fmt: skip
    return out


@FUZZ
@given(records(), st.permutations(["zebra", "a & b", "<ö>"]))
def test_T1_voc_write_then_read_gives_the_same(tmp_path_factory, made, classes):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(len(made) - 1), "trainval": np.arange(len(made))}
    index = DataIndex("made", folder, classes, PackedRecords(made), tasks=("detect",), splits=splits)
    assert write_data(Dataset(index), folder / "out", "voc") == []
    again = voc.read(folder / "out")
    assert again.problems == []
    assert again.classes == classes
    assert {s: v.tolist() for s, v in again.splits.items()} == {s: v.tolist() for s, v in splits.items() if len(v)}
    for before, after in zip(made, again.records, strict=True):
        same(before, after)


def same(a, b):
    assert a.image_id == b.image_id
    assert a.size == b.size
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.labels, b.labels)
    assert (a.extra is None) == (b.extra is None)
    for key in a.extra or ():
        assert np.array_equal(a.extra[key], b.extra[key])


def test_T1_voc_write_keeps_images_apart_and_names_losses(tmp_path):
    made = []
    for name in ("x/a.png", "y/a.png", "y/A.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG + name.encode())
        made.append(Record(name, name, (48, 64), boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), captions=["hm"]))
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords(made), tasks=("detect",), splits={"../up": np.arange(3)})
    losses = write_data(Dataset(index), tmp_path / "out", "voc")
    assert any("3 captions" in t for t in losses)
    again = voc.read(tmp_path / "out")
    assert len(again) == 3
    assert len({(again.root / r.path).read_bytes() for r in again.records}) == 3
    assert list(again.splits) == ["_up"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x", "y"]


class Drawn:
    """A reader that makes pixels."""

    def image(self, record):
        return np.full((20, 30), 7, dtype=np.uint8)

    def mask(self, record):
        raise NotImplementedError


def test_T1_voc_images_of_a_reader_become_png(tmp_path):
    record = Record("scene#0", "scene/0", boxes=np.array([[1, 2, 3, 4]], np.float32), labels=np.array([0]))
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords([record]), tasks=("detect",), reader=Drawn())
    write_data(Dataset(index), tmp_path / "out", "voc")
    again = voc.read(tmp_path / "out")
    assert again.records[0].size == (20, 30)
    assert (Dataset(again)[0].image == 7).all()
