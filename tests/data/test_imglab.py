"""imglab XML: the real faces by the readme's counts, parts, hostile files, and write-then-read."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, imglab, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()


def box(left, top, width, height, label="cat", inner="", more=""):
    name = f"<label>{label}</label>" if label else ""
    return f'<box top="{top}" left="{left}" width="{width}" height="{height}" {more}>{name}{inner}</box>'


def part(name, x, y):
    return f"<part name='{name}' x='{x}' y='{y}'/>"


def image(*boxes, file="a.png", size='width="64" height="48"'):
    return f'<image file="{file}" {size}>{"".join(boxes)}</image>'


def page(*images):
    return f"<?xml version='1.0' encoding='ISO-8859-1'?>\n<dataset><name>x</name><images>{''.join(images)}</images></dataset>"


def make(folder: Path, files: dict[str, str | bytes], images=("a.png", "b.png")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("latin-1", "replace"))
    for name in images:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)
    return folder


GOOD = page(image(box(1, 2, 20, 30, "dog"), file="b.png"))


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def lines(index):
    return "\n".join(map(one_line, index.problems))


# ------------------------------------------------------------------------------------------------------------ real files


def test_T1_imglab_dlib_faces_counts_of_the_readme(real):
    root = real("dlib_faces")
    assert detect_format(root)[0] == "imglab"
    index = read_data(root)
    assert len(index) == 9
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 4, "test": 5}
    counts = {s: Dataset(index).take(s).class_counts().tolist() for s in ("train", "test")}
    assert counts == {"train": [18], "test": [25]}
    assert index.classes == ["object"]
    assert index.tasks == ("detect", "pose")
    assert index.keypoint_names == [f"{k:02}" for k in range(68)]
    assert all((r.keypoints[..., 2] == 2).all() for r in index.records)
    texts = [one_line(p) for p in index.problems]
    repeated = [t for t in texts if "stand in" in t]
    assert len(repeated) == 2
    assert any("training.xml: 4 of its images stand in training_with_face_landmarks.xml too" in t for t in repeated)
    for k in range(9):
        assert Dataset(index)[k].target["keypoints"].shape[1:] == (68, 2)


def test_T1_imglab_dlib_faces_agree_with_another_parser(real):
    root = real("dlib_faces")
    index = imglab.read(root)
    for stem in ("training", "testing"):
        text = (root / f"{stem}_with_face_landmarks.xml").read_text("latin-1")
        for block in re.findall(r"<image .*?</image>", text, re.S):
            record = next(r for r in index.records if r.path == re.search(r"file='(.*?)'", block)[1])
            truth = [[int(v) for v in m] for m in re.findall(r"<box top='(-?\d+)' left='(-?\d+)' width='(\d+)' height='(\d+)'", block)]
            whole = np.array([[x, y, x + w, y + h] for y, x, w, h in truth], np.float32)
            height, width = record.size
            assert np.array_equal(record.boxes, np.where((whole < -1) | (whole > np.array([width, height] * 2) + 1), record.boxes, whole))
            points = np.array([[int(v) for v in m] for m in re.findall(r"x='(-?\d+)' y='(-?\d+)'/>", block)])
            assert np.array_equal(record.keypoints[..., :2].reshape(-1, 2), points)


def test_T1_imglab_the_mirror_of_68_points_is_that_of_the_faces(real):
    """A mirrored face's points, put in order by the permutation, lie near the unmirrored ones; without it they do not."""
    index = imglab.read(real("dlib_faces"))
    swap = index.keypoint_swap
    assert sorted(swap) == list(range(68))
    assert [swap[k] for k in swap] == list(range(68))
    assert (swap[0], swap[8], swap[36], swap[48], swap[60], swap[27]) == (16, 8, 45, 54, 64, 27)
    faces = np.concatenate([r.keypoints[..., :2] for r in index.records])
    faces = (faces - faces.mean(1, keepdims=True)) / faces.std((1, 2), keepdims=True)
    mirrored = faces * [-1, 1]
    assert np.abs(mirrored[:, swap] - faces).mean() < 0.5 * np.abs(mirrored - faces).mean()


def test_T1_imglab_dlib_faces_there_and_back(real, tmp_path):
    index = imglab.read(real("dlib_faces"))
    assert write_data(Dataset(index), tmp_path / "out", "imglab") == []
    again = read_data(tmp_path / "out")
    assert again.format == "imglab"
    assert again.problems == []
    assert again.keypoint_names == index.keypoint_names
    back = {r.image_id: r for r in again.records}
    for before in index.records:
        same(before, back[before.image_id])
    for split, members in index.splits.items():
        assert [index.records[i].image_id for i in members] == [again.records[i].image_id for i in again.splits[split]]


# ------------------------------------------------------------------------------------------------------- what it means


def test_T1_imglab_boxes_flags_and_ignored_ones(tmp_path):
    boxes = [
        box(1, 2, 20, 30), box(5, 6, 7, 8, more="ignore='1'"), box(5, 6, 7, 8, "", more="ignore='1' difficult='1'"), box(9, 9, 9, 9, "")
    ]  # fmt: skip
    index = imglab.read(make(tmp_path, {"x.xml": page(image(*boxes))}))
    record = index.records[0]
    assert index.classes == ["cat", "object"]
    assert record.boxes.tolist() == [[1, 2, 21, 32], [5, 6, 12, 14], [5, 6, 12, 14], [9, 9, 18, 18]]
    assert record.labels.tolist() == [0, 0, 0, 1]
    assert record.iscrowd.tolist() == [False, True, True, False]
    assert {k: v.tolist() for k, v in record.extra.items()} == {"difficult": [False, False, True, False]}
    assert index.splits == {}
    assert index.tasks == ("detect",)
    assert record.keypoints is None


def test_T1_imglab_parts_are_numbered_and_missing_ones_invisible(tmp_path):
    first = box(1, 2, 20, 30, inner=part(10, 3, 4) + part(9, 5, 6))
    second = box(1, 2, 20, 30, inner=part("tail", 7, 8))
    index = imglab.read(make(tmp_path, {"x.xml": page(image(first, second))}))
    assert index.keypoint_names == ["9", "10", "tail"]
    assert index.records[0].keypoints.tolist() == [[[5, 6, 2], [3, 4, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [7, 8, 2]]]


def test_T1_imglab_the_richer_file_wins(tmp_path):
    plain, rich = image(box(1, 2, 3, 4), box(5, 5, 5, 5)), image(box(1, 2, 3, 4, inner=part(0, 1, 1)))
    files = {"train.xml": page(plain), "training_with_parts.xml": page(rich), "test.xml": page(image(box(9, 9, 9, 9), file="b.png"))}
    index = imglab.read(make(tmp_path, files))
    assert [len(r.boxes) for r in index.records] == [1, 1]
    assert {s: [index.records[i].path for i in v] for s, v in index.splits.items()} == {"train": ["a.png"], "test": ["b.png"]}
    assert "train.xml: 1 of its images stand in training_with_parts.xml too" in lines(index)


def test_T1_imglab_classes_txt_and_other_places(tmp_path):
    root = make(tmp_path, {"annotations/train.xml": page(image(box(1, 2, 3, 4, "ant"), file="../images/a.png"))}, images=("images/a.png",))
    (root / "classes.txt").write_text("zebra\nant\n")
    index = imglab.read(root)
    assert index.classes == ["zebra", "ant"]
    assert [r.path for r in index.records] == ["images/a.png"]
    assert list(index.splits) == ["train"]
    alone = imglab.read(make(tmp_path / "alone", {"x.xml": page(image(box(1, 2, 3, 4)))}) / "x.xml")
    assert len(alone) == 1


def test_T1_imglab_without_a_size_the_image_is_asked(tmp_path):
    index = imglab.read(
        make(
            tmp_path,
            {"x.xml": page(image(box(1, 2, 900, 4), size=""), image(box(0, 0, 60, 40), file="b.png", size='width="9" height="9"'))},
        )
    )
    assert [r.size for r in index.records] == [(48, 64), (48, 64)]
    assert [r.boxes.tolist() for r in index.records] == [[[1, 2, 64, 6]], [[0, 0, 60, 40]]]


def test_T1_imglab_sniff(tmp_path):
    assert imglab.sniff(tmp_path) is None
    (tmp_path / "voc.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    (tmp_path / "other.xml").write_text("<dataset><row/></dataset>")
    assert imglab.sniff(tmp_path) is None
    with pytest.raises(DataError, match="holds no imglab XML"):
        imglab.read(tmp_path)
    make(tmp_path / "new", {"train.xml": GOOD})
    assert imglab.sniff(tmp_path / "new") == "1 imglab XML file: train.xml"
    assert imglab.sniff(tmp_path / "new" / "train.xml") == "an imglab XML file"


# ------------------------------------------------------------------------------------------------------------- bad files

SECRET = '<!DOCTYPE dataset [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
LAUGHS = "<!DOCTYPE l [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {chr(98 + i)} '{('&' + chr(97 + i) + ';') * 10}'>" for i in range(8)) + "]>"
BODY = "<dataset><images>{}</images></dataset>"

BROKEN = {
    "empty": b"",
    "truncated": page(image(box(1, 2, 3, 4)))[:150],
    "bytes": bytes(range(256)),
    "another root": "<annotation><image file='a.png'/></annotation>",
    "two roots": GOOD + GOOD,
    "unknown entity": BODY.format(image(box(1, 2, 3, 4, "&nbsp;"))),
    "external entity": SECRET + BODY.format(image(box(1, 2, 3, 4, "&secret;"))),
    "external entity unused": SECRET + BODY.format(image(box(1, 2, 3, 4))),
    "a billion laughs": LAUGHS + BODY.format(image(box(1, 2, 3, 4, "&i;"))),
    "wrong encoding": b'<?xml version="1.0" encoding="utf-8"?><dataset>\xff\xfe</dataset>',
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><dataset/>',
    "a NUL": page(image()) + "\x00",
    "image missing": page(image(box(1, 2, 3, 4), file="zzz.png")),
    "no file": page("<image><box/></image>"),
    "image outside": page(image(file="../../../etc/passwd")),
    "image absolute": page(image(file="/etc/passwd")),
    "nested": "<dataset>" * 50_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_imglab_a_broken_file_is_reported_and_the_others_are_read(tmp_path, name):
    index = imglab.read(make(tmp_path, {"bad.xml": BROKEN[name], "good.xml": GOOD}))
    assert [r.image_id for r in index.records] == ["b"]
    assert len(index.problems) == 1
    text = one_line(index.problems[0])
    assert "bad.xml" in text
    assert "root:" not in text


@pytest.mark.parametrize("name", BROKEN)
def test_T1_imglab_a_broken_file_alone_is_one_line(tmp_path, name):
    make(tmp_path, {"bad.xml": BROKEN[name]})
    with pytest.raises(DataError) as error:
        imglab.read(tmp_path / "bad.xml")
    assert "bad.xml" in one_line(error.value)


FLAWED = {
    "no area": (box(5, 5, 0, 9), 0, "has no area"),
    "negative": (box(5, 5, -3, 9), 0, "has no area"),
    "NaN": (box("nan", 5, 5, 9), 0, "as numbers"),
    "infinite": (box(1, 5, "inf", 9), 0, "as numbers"),
    "huge": (box(1, 5, "1e300", 9), 0, "as numbers"),
    "words": (box("a", 5, 5, 9), 0, "as numbers"),
    "empty": (box("", 5, 5, 9), 0, "as numbers"),
    "no numbers": ("<box/>", 0, "as numbers"),
    "outside": (box(100, 100, 20, 20), 0, "lies outside"),
    "over the border": (box(-5, 2, 90, 40), 1, "clipped"),
    "a pixel over the border": (box(-1, 0, 66, 49), 1, ""),
    "fractions": (box(0.5, 2.25, 3.5, 4.75), 1, ""),
    "part without a number": (box(1, 2, 3, 4, inner=part(0, "x", 1)), 1, "the part '0'"),
    "part without a name": (box(1, 2, 3, 4, inner="<part x='1' y='1'/>"), 1, "the part ''"),
    "part twice": (box(1, 2, 3, 4, inner=part(0, 1, 1) + part(0, 2, 2)), 1, "stands twice"),
    "flag a word": (box(1, 2, 3, 4, more="ignore='perhaps'"), 1, ""),
}


@pytest.mark.parametrize("name", FLAWED)
def test_T1_imglab_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    item, objects, message = FLAWED[name]
    index = imglab.read(make(tmp_path, {"x.xml": page(image(item, box(1, 2, 30, 40)))}))
    assert len(index.records[0].boxes) == objects + 1
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "x.xml: image 1 (a.png) box 1" in t for t in texts) if message else texts == []


def test_T1_imglab_very_many_part_names_are_left_out(tmp_path):
    many = box(1, 2, 3, 4, inner="".join(part(k, 1, 1) for k in range(600)))
    index = imglab.read(make(tmp_path, {"x.xml": page(image(many))}))
    assert index.records[0].keypoints is None
    assert "too many for key points" in lines(index)


def test_T1_imglab_images_twice_and_links_out_of_the_root(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", {"x.xml": page(image(box(1, 2, 3, 4)), image(), image(file="c.png"))}, images=("a.png",))
    os.symlink(tmp_path / "secret.png", root / "c.png")
    index = imglab.read(root)
    assert [len(r.boxes) for r in index.records] == [1]
    assert "image 2: image 'a.png' stands twice" in lines(index)
    assert "outside" in lines(index)


RAW = page(image(box(1, 2, 3, 4, inner=part(0, 1, 1)), box(5, 5, 5, 5, more="ignore='1'")))


@FUZZ
@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(RAW)), st.binary(max_size=6)))
def test_T1_imglab_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = RAW.encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    readable(make(tmp_path_factory.mktemp("fuzz"), {"a.xml": raw, "b.xml": GOOD}))


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.floats().map(str) | st.integers().map(str)


@FUZZ
@given(st.lists(texts, min_size=9, max_size=9))
def test_T1_imglab_any_values_give_data_or_one_line(tmp_path_factory, values):
    from xml.sax.saxutils import escape

    a, b, c, d, label, name, x, y, file = (escape(v, {'"': "&quot;", "'": "&apos;"}) for v in values)
    text = page(image(box(a, b, c, d, label, part(name, x, y))), image(box(1, 2, 3, 4), file=file)).replace("ISO-8859-1", "utf-8")
    readable(make(tmp_path_factory.mktemp("fuzz"), {"a.xml": text.encode("utf-8", "replace"), "b.xml": GOOD}))


def readable(root):
    try:
        index = imglab.read(root)
    except DataError as error:
        one_line(error)
        return
    lines(index)
    data = Dataset(index)
    data.fingerprint()
    for k in range(len(index)):
        boxes = data[k].target["boxes"]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    write_data(data, root / "out", "imglab")


# ------------------------------------------------------------------------------------------------------ write then read


@st.composite
def records(draw):
    out = []
    for k in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 3))
        corner = np.array(draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=count, max_size=count))).reshape(-1, 2)
        side = np.array(draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 15)), min_size=count, max_size=count))).reshape(-1, 2)
        crowd, hard = (np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool) for _ in range(2))
        points = np.array(
            draw(
                st.lists(
                    st.tuples(st.integers(-5, 70), st.integers(0, 60), st.sampled_from([0, 2])), min_size=2 * count, max_size=2 * count
                )
            ),
            np.float32,
        ).reshape(-1, 2, 3)
        points[points[..., 2] == 0] = 0
        out.append(Record(
            f"p{k}.png", f"p{k}", (48, 64), boxes=np.hstack([corner, corner + side]).astype(np.float32),
            labels=np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int64), keypoints=points,
            iscrowd=crowd if crowd.any() else None, extra={"difficult": hard} if hard.any() else None,
        ))  # fmt: skip
    return out


@SOME
@given(records(), st.permutations(["zebra", "a & b", "<ö>"]))
def test_T1_imglab_write_then_read_gives_the_same(tmp_path_factory, made, classes):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(len(made) - 1), "trainval": np.arange(len(made))}
    index = DataIndex("made", folder, classes, PackedRecords(made), tasks=("detect",), splits=splits, keypoint_names=["tail", "left ear"])
    assert write_data(Dataset(index), folder / "out", "imglab") == []
    again = imglab.read(folder / "out")
    assert [t for t in map(str, again.problems) if "stand in" not in t] == []
    assert again.classes == classes
    assert again.keypoint_names == ["tail", "left ear"]
    back = {r.image_id: r for r in again.records}
    assert {s: {again.records[i].image_id for i in v} for s, v in again.splits.items()} == {
        s: {made[i].image_id for i in v} for s, v in splits.items() if len(v)
    }
    for before in made:
        same(before, back[before.image_id])


def same(a, b):
    assert (a.image_id, a.size) == (b.image_id, b.size)
    for key in ("boxes", "labels", "iscrowd", "keypoints"):
        x, y = getattr(a, key), getattr(b, key)
        assert (x is None) == (y is None), key
        assert x is None or np.array_equal(x, y), key
    assert (a.extra or {}).keys() == (b.extra or {}).keys()
    for key in a.extra or ():
        assert np.array_equal(a.extra[key], b.extra[key])


def test_T1_imglab_losses_are_told(tmp_path):
    made = []
    for name in ("x/a.png", "y/a.png", "y/\x01A.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG + name.encode())
        made.append(Record(
            name, name, (48, 64), boxes=np.array([[1.5, 2, 3, 4]], np.float32), labels=np.zeros(1, np.int64), captions=["hm"],
            keypoints=np.array([[[1, 2.5, 1]]], np.float32), segments=[[np.float32([[1, 2], [3, 4], [1, 4]])]],
        ))  # fmt: skip
    splits = {"../up": np.arange(3)}
    index = DataIndex("made", tmp_path, ["ca\x01t"], PackedRecords(made), tasks=("detect",), splits=splits)
    losses = "\n".join(write_data(Dataset(index), tmp_path / "out", "imglab"))
    for text in (
        "3 captions",
        "3 outlines",
        "3 boxes are rounded",
        "3 key points are rounded",
        "3 key points are no longer",
        "split _up is lost",
    ):
        assert text in losses
    again = imglab.read(tmp_path / "out")
    assert len({(again.root / r.path).read_bytes() for r in again.records}) == 3
    assert again.problems == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x", "y"]


def test_T1_imglab_writes_only_what_dlib_reads(real, tmp_path):
    """dlib's reader takes whole numbers; the structure is checked with a parser of its own."""
    index = read_data(real("bccd"))
    write_data(Dataset(index, np.arange(10)), tmp_path / "out", "imglab")
    text = (tmp_path / "out" / "trainval.xml").read_text("utf-8") + (tmp_path / "out" / "test.xml").read_text("utf-8")
    boxes = re.findall(r'<box top="(\d+)" left="(\d+)" width="(\d+)" height="(\d+)"[^>]*>\s*<label>(\w+)</label>\s*</box>', text)
    truth = [(*b.tolist(), index.classes[k]) for r in index.records[:10] for b, k in zip(r.boxes, r.labels, strict=True)]
    assert sorted((int(x), int(y), int(x) + int(w), int(y) + int(h), n) for y, x, w, h, n in boxes) == sorted(truth)
