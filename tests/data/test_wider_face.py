"""WIDER FACE text: meaning by hand, malformed entries, write then read."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, read_data, wider_face, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()
A, B, C = "0--Parade/0_Parade_1.jpg", "1--Hand shaking/x y.jpg", "2--Demo/c.jpg"
TRUTH = f"{A}\n2\n10 5 20 30 1 0 1 0 2 1 \n0 0 3 4 2 0 0 1 0 0 \n{B}\n0\n0 0 0 0 0 0 0 0 0 0 \n{C}\n1\n1 2 3 4 0 0 0 0 0 0\n"


def make(root: Path, files: dict[str, str | bytes], images=(A, B, C), split="train") -> Path:
    for name in images:
        path = root / f"WIDER_{split}/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    for name, text in files.items():
        path = root / "wider_face_split" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def said(index):
    return "\n".join(one_line(p) for p in index.problems)


def test_T1_widerface_means_what_it_says(tmp_path):
    root = make(tmp_path, {"wider_face_train_bbx_gt.txt": TRUTH, "wider_face_test_filelist.txt": "3--Riot/t.jpg\n"})
    make(root, {}, ["3--Riot/t.jpg"], "test")
    assert detect_format(root) == ("widerface", "wider_face_split/wider_face_train_bbx_gt.txt: image names and face boxes")
    index = read_data(root)
    assert (index.classes, index.tasks, index.problems) == (["face"], ("detect",), [])
    a, b, c, t = index.records
    assert a.path == f"WIDER_train/images/{A}"
    assert a.boxes.tolist() == [[10, 5, 30, 35], [0, 0, 3, 4]]
    assert a.labels.tolist() == [0, 0]
    assert a.iscrowd.tolist() == [False, True]  # the second is invalid
    assert a.extra["face_attributes"].tolist() == [[1, 0, 1, 2, 1], [2, 0, 0, 0, 0]]
    assert (b.boxes.shape, b.iscrowd, b.extra) == ((0, 4), None, None)
    assert c.boxes.tolist() == [[1, 2, 4, 6]]
    assert t.boxes is None
    assert {k: v.tolist() for k, v in index.splits.items()} == {"train": [0, 1, 2], "test": [3]}
    one = read_data(root / "wider_face_split" / "wider_face_train_bbx_gt.txt")
    assert len(one) == 3


def test_T1_widerface_without_attributes_or_zero_line(tmp_path):
    root = make(tmp_path, {"wider_face_val_bbx_gt.txt": f"{A}\r\n1\r\n10 5 20 30\r\n{B}\r\n0\r\n{C}\r\n1\r\n1.5 2 3 4\r\n"}, split="val")
    index = read_data(root)
    assert [r.boxes.tolist() for r in index.records] == [[[10, 5, 30, 35]], [], [[1.5, 2, 4.5, 6]]]
    assert all(r.extra is None for r in index.records)
    assert index.problems == []
    assert list(index.splits) == ["val"]


def entry(text, name=A):
    return f"{C}\n1\n1 2 3 4 0 0 0 0 0 0\n{name}\n{text}"


BROKEN = {
    "empty": (b"", "holds no WIDER FACE text"),
    "binary": (b"\x89PNG\r\n\0\xff", "holds no WIDER FACE text"),
    "no such image": ("9--Nix/n.jpg\n1\n1 1 2 2\n", "not one usable image"),
    "missing image": (entry("1\n1 1 5 5\n", "9--Nix/n.jpg"), "is missing; it is dropped"),
    "leaves the root": (entry("1\n1 1 5 5\n", "../../../secret.jpg"), "lies outside"),
    "absolute": (entry("1\n1 1 5 5\n", "/etc/x.jpg"), ""),
    "nul": (entry("1\n1 1 5 5\n", "a\0.jpg"), "unusable file name"),
    "fewer faces": (entry("3\n1 1 5 5\n"), "states 3 faces and lists 1"),
    "more faces": (entry("1\n1 1 5 5\n2 2 5 5\n"), "states 1 faces and lists 2"),
    "no number": (entry("1 1 5 5\n"), "states no number of faces and lists 1"),
    "huge number": (entry("99999999999999999999\n1 1 5 5\n"), "no image and no face"),
    "negative number": (entry("-1\n1 1 5 5\n"), "no image and no face"),
    "words": (entry("1\none two three four\n"), "no image and no face"),
    "nan": (entry("1\n1 nan 5 5\n"), "no image and no face"),
    "huge box": (entry("1\n1 1 1e30 5\n"), "no image and no face"),
    "three numbers": (entry("1\n1 1 5\n"), "no image and no face"),
    "six numbers": (entry("1\n1 1 5 5 0 1\n"), "has 6 numbers, not 4 or 10"),
    "no area": (entry("1\n1 1 0 5 0 0 0 0 0 0\n"), "has no area"),
    "negative size": (entry("1\n9 9 -4 5\n"), "has no area"),
    "outside": (entry("1\n100 100 5 5\n"), "lies outside"),
    "over the border": (entry("1\n-5 40 20 20\n"), "is clipped"),
    "listed twice": (entry("1\n1 1 5 5\n", C), "lists '2--Demo/c.jpg' again"),
    "latin-1": (entry("1\n1 1 5 5\n").encode() + "é.jpg\n".encode("latin-1"), "is not UTF-8"),
    "endless line": (entry("1\n1 1 5 5\n") + "1 " * 1_000_000, "million characters"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_widerface_malformed(tmp_path, name):
    text, expected = BROKEN[name]
    (tmp_path / "secret.jpg").write_bytes(PNG)
    root = make(tmp_path / "data", {"wider_face_train_bbx_gt.txt": text})
    try:
        index = wider_face.read(root)
        message = said(index)
        assert any(r.path.endswith(C) for r in index.records)
        assert "wider_face_train_bbx_gt.txt" in message
    except DataError as error:
        message = one_line(error)
        assert str(root) in message
    assert expected in message


def test_T1_widerface_a_broken_image_is_dropped(tmp_path):
    root = make(tmp_path, {"wider_face_train_bbx_gt.txt": TRUTH})
    (root / "WIDER_train/images" / A).write_bytes(b"\xff\xd8\xff")
    index = read_data(root)
    assert len(index) == 2
    assert "0_Parade_1.jpg" in said(index)


@FUZZ
@given(st.binary(max_size=200) | st.tuples(st.integers(0, 160), st.binary(max_size=6)))
def test_T1_widerface_any_bytes_give_data_or_one_line(tmp_path_factory, change):
    raw = TRUTH.encode()
    raw = change if isinstance(change, bytes) else raw[: change[0]] + change[1] + raw[change[0] + len(change[1]) :]
    root = make(tmp_path_factory.mktemp("fuzz"), {"wider_face_train_bbx_gt.txt": raw, "wider_face_val_bbx_gt.txt": TRUTH})
    try:
        index = wider_face.read(root)
    except DataError as error:
        one_line(error)
        return
    said(index)
    for record in index.records:
        assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
        assert (record.boxes >= 0).all()


@st.composite
def sets(draw):
    records = []
    for k in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 3))
        numbers = [
            draw(st.tuples(st.floats(0, 30, width=32), st.integers(0, 20), st.floats(1, 30, width=32), st.integers(1, 20)))
            for _ in range(count)
        ]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in numbers], np.float32).reshape(-1, 4)
        crowd = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
        values = np.array(draw(st.lists(st.integers(0, 2), min_size=5 * count, max_size=5 * count)), dtype=np.int8).reshape(-1, 5)
        path = f"WIDER_{'train' if k < 1 else 'val'}/images/{k}--An event/p {k}.png"
        records.append(Record(
            path, path, (48, 64), boxes=boxes, labels=np.zeros(count, np.int64), iscrowd=crowd if crowd.any() else None,
            extra={"face_attributes": values} if values.any() else None,
        ))  # fmt: skip
    return records


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(sets())
def test_T1_widerface_write_then_read_gives_the_same(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(1), "val": np.arange(1, len(made))}
    index = DataIndex("made", folder, ["face"], PackedRecords(made), tasks=("detect",), splits=splits)
    assert write_data(Dataset(index), folder / "out", "widerface") == []
    again = read_data(folder / "out")
    assert (again.format, again.problems) == ("widerface", [])
    assert {s: v.tolist() for s, v in again.splits.items()} == {s: v.tolist() for s, v in splits.items() if len(v)}
    for before, after in zip(made, again.records, strict=True):
        assert (after.path, after.image_id, after.size) == (before.path, before.image_id, before.size)
        assert np.array_equal(after.boxes, before.boxes)
        assert (after.iscrowd is None) == (before.iscrowd is None)
        assert before.iscrowd is None or np.array_equal(after.iscrowd, before.iscrowd)
        assert (after.extra is None) == (before.extra is None)
        assert before.extra is None or np.array_equal(after.extra["face_attributes"], before.extra["face_attributes"])


def test_T1_widerface_losses_names_and_images_without_truth(tmp_path):
    paths = ["x/a.png", "images/x/a.png", "b\n.png"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(PNG + path.encode())
    box = np.array([[1, 2, 3, 4]], np.float32)
    records = [Record(p, p, boxes=box, labels=np.array([k % 2])) for k, p in enumerate(paths[:2])] + [Record(paths[2], "b")]
    index = DataIndex("made", tmp_path, ["cat", "face"], PackedRecords(records), tasks=("detect",))
    losses = "; ".join(write_data(Dataset(index), tmp_path / "out", "widerface"))
    assert "the classes cat become the one class face" in losses
    again = read_data(tmp_path / "out")
    assert again.problems == []
    assert sorted(r.path for r in again.records) == ["images/b_.png", "images/x/a.png", "images/x/a_2.png"]
    assert sum(r.boxes is None for r in again.records) == 1
    assert not again.splits
    assert len({(again.root / r.path).read_bytes() for r in again.records}) == 3
