"""Lists of files and labels: the dialects that people have, malformed lists, write then read."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, lists, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (6, 4), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()


def make(root: Path, files: dict[str, str | bytes], images=("im/a.png", "im/b c.png")) -> Path:
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


def rows(index):
    return {r.path: None if r.label is None else index.classes[r.label] for r in index.records}


def members(index):
    return {s: [index.records[i].path for i in v] for s, v in index.splits.items()}


DIALECTS = {
    "numbers": ({"train.txt": "im/a.png 0\nim/b c.png 1\n"}, {"im/a.png": "0", "im/b c.png": "1"}),
    "numbers and names": (
        {"train.txt": "im/a.png 1\nim/b c.png 0\n", "labels.txt": "cat\ndog\n"},
        {"im/a.png": "dog", "im/b c.png": "cat"},
    ),
    "names": ({"train.txt": "im/a.png dog\nim/b c.png polar bear\n"}, {"im/a.png": "dog", "im/b c.png": "polar bear"}),
    "tabs and carriage returns": ({"train.txt": "im/a.png\tdog\r\nim/b c.png\tcat\r\n"}, {"im/a.png": "dog", "im/b c.png": "cat"}),
    "commas": ({"train.txt": "im/a.png,3\nim/b c.png,4\n"}, {"im/a.png": "3", "im/b c.png": "4"}),
    "windows": ({"train.txt": "im\\a.png 3\n.\\im\\b c.png 4\n"}, {"im/a.png": "3", "im/b c.png": "4"}),
    "foreign": ({"train.txt": "/home/me/data/im/a.png 3\nC:\\x\\im\\b c.png 4\n"}, {"im/a.png": "3", "im/b c.png": "4"}),
    "names alone": ({"train.txt": "a.png 3\nb c.png 4\n"}, {"im/a.png": "3", "im/b c.png": "4"}),
    "another suffix": ({"train.txt": "im/a.jpg 3\nim/b c.png 4\n"}, {"im/b c.png": "4"}),
    "synsets": (
        {"val.txt": "im/a.png 0\nim/b c.png 1\n", "synset_words.txt": "n01440764 tench, Tinca tinca\nn02012849 crane\n"},
        {"im/a.png": "tench", "im/b c.png": "crane"},
    ),
    "synsets of one name": (
        {"val.txt": "im/a.png n03126707\nim/b c.png n02012849\n", "synset_words.txt": "n02012849 crane\nn03126707 crane\n"},
        {"im/a.png": "crane (n03126707)", "im/b c.png": "crane (n02012849)"},
    ),
    "two tables": (
        {"val.txt": "im/a.png 1\nim/b c.png 0\n", "synsets.txt": "n02012849\nn01440764\n", "imagenet_metadata.txt": "n01440764\ttench\n"},
        {"im/a.png": "tench", "im/b c.png": "n02012849"},
    ),
    "tf-slim": (
        {"train.txt": "im/a.png 1\nim/b c.png 0\n", "labels.txt": "0:daisy\n1:rose\n"},
        {"im/a.png": "rose", "im/b c.png": "daisy"},
    ),
    "from one": ({"train.txt": "im/a.png 1\nim/b c.png 2\n", "labels.txt": "cat\ndog\n"}, {"im/a.png": "cat", "im/b c.png": "dog"}),
    "a list of no split": ({"files.txt": "# all\nim/a.png 1\n\nim/b c.png 2\n"}, {"im/a.png": "1", "im/b c.png": "2"}),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_T1_list_dialects(tmp_path, name):
    files, expected = DIALECTS[name]
    root = make(tmp_path, files)
    if name not in ("a list of no split",):
        assert detect_format(root)[0] == "list"
    index = read_data(root, "list")
    assert rows(index) == expected
    assert index.tasks == ("classify",)
    assert ("count from 1" in said(index)) == (name == "from one")
    assert list(index.splits) == ([] if "files.txt" in files else ["val" if "val.txt" in files else "train"])


def test_T1_list_folders_are_the_classes(tmp_path):
    images = [f"{s}/{c}/{k}.JPEG" for s in ("train", "val") for c in ("n01440764", "n02012849") for k in range(2)]
    files = {
        "train.txt": "".join(f"/data/imagenet/{p}\n" for p in images if p.startswith("train")),
        "val_list.txt": "".join(f"{p.removeprefix('val/')}\n" for p in images if p.startswith("val")),  # as in train: the split decides
        "imagenet_synsets.txt": "n01440764 tench\nn02012849 crane\n",
    }
    root = make(tmp_path, files, images)
    assert detect_format(root)[0] == "list"
    index = read_data(root)
    assert index.classes == ["tench", "crane"]
    assert rows(index) == {p: "tench" if "n01" in p else "crane" for p in images}
    assert members(index) == {"train": [p for p in images if p.startswith("train")], "val": [p for p in images if p.startswith("val")]}
    assert index.problems == []


def test_T1_list_imagenet_validation_labels(tmp_path):
    validation = [f"validation/ILSVRC2012_val_{k:08d}.JPEG" for k in (1, 2, 4)]  # a part: 3 is not here
    files = {lists.VALIDATION: "n01440764\nn02012849\nn02012849\nn01440764\n", "synset_words.txt": "n01440764 tench\nn02012849 crane\n"}
    root = make(tmp_path, files, [*validation, "train/n02012849/x.JPEG"])
    assert detect_format(root)[0] == "list"
    index = read_data(root)
    assert [rows(index)[p] for p in validation] == ["tench", "crane", "tench"]
    assert members(index) == {"train": ["train/n02012849/x.JPEG"], "val": validation}
    other = make(tmp_path / "b", {lists.VALIDATION: "n01440764\nn02012849\n"}, ["val/p.JPEG", "val/q.JPEG"])
    assert rows(read_data(other)) == {"val/p.JPEG": "n01440764", "val/q.JPEG": "n02012849"}
    (other / "val/r.JPEG").write_bytes(PNG)
    with pytest.raises(DataError, match="has 2 labels for 3 validation images"):
        read_data(other)


def test_T1_list_images_without_a_label_and_tables_of_others(tmp_path):
    root = make(tmp_path, {"train.txt": "im/a.png cat\n", "test.txt": "im/b c.png\n"})
    index = read_data(root)
    assert rows(index) == {"im/a.png": "cat", "im/b c.png": None}
    assert "1 images of the lists have no label" in said(index)
    assert read_data(root, "list", classes=["dog", "cat"]).records[0].label == 1
    with pytest.raises(DataError, match="did you mean 'cats'"):
        read_data(root, "list", classes=["cats"])
    one = read_data(root / "train.txt")
    assert len(one) == 1
    assert "1 images are in no list" in said(one)


def test_T1_list_is_not_seen_in_lists_of_other_kinds(tmp_path):
    for k, text in enumerate(
        [
            "im/a.png im/b c.png\nim/b c.png im/a.png\n",  # image and mask
            "im/a.png 10,20,30,40,0\nim/b c.png 1,2,3,4,1\n",  # boxes
            "im/a.png 1 0 1\nim/b c.png 0 0 1\n",  # several labels
            "im/a.png 0.25\nim/b c.png 0.75\n",  # numbers to regress
            "16\nim/a.png 3310.4 0.0 316.73\n",  # cameras
            "im/a.png\nim/b c.png\n",  # one folder
            "a 1\nb -1\n",
            "",
        ]
    ):
        root = make(tmp_path / str(k), {"train.txt": text})
        assert lists.sniff(root) is None, text


BROKEN = {
    "empty": (b"", "no list names an image that is there"),
    "no such images": ("x.png 1\n", "no image 'x.png 1'"),
    "one missing": ("im/a.png 1\nx.png 1\n", "no image 'x.png 1', or several; line skipped"),
    "leaves the root": ("im/a.png 1\n../secret.png 1\n", "no image '../secret.png 1'"),
    "absolute": ("im/a.png 1\n/etc/passwd 1\n", "no image '/etc/passwd 1'"),
    "twice": ("im/a.png 1\nim/a.png 1\n", "lists 'im/a.png' twice"),
    "two classes": ("im/a.png 1\nim/a.png 2\n", "is '1' above, '2' here"),
    "no label": ("im/b c.png\n", None),
    "nul": ("im/a.png 1\n\0 1\n", "no image"),
    "latin-1": ("im/a.png 1\ncaf\u00e9.png 1\n".encode("latin-1"), "is not UTF-8"),
    "utf-16": ("im/a.png 1\n".encode("utf-16"), "is not UTF-8"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\xff", "is not UTF-8"),
    "endless line": ("im/a.png 1\n" + "x" * 2_000_000, "million characters"),
    "long number": ("im/a.png " + "9" * 5000 + "\n", ""),
    "negative": ("im/a.png -1\n", ""),
    "blanks": ("   \n\t\nim/a.png 1\n", ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_list_malformed(tmp_path, name):
    text, expected = BROKEN[name]
    (tmp_path / "secret.png").write_bytes(PNG)
    root = make(tmp_path / "data", {"train.txt": text})
    try:
        index = lists.read(root)
        message = said(index)
        assert all(not r.path.startswith("..") for r in index.records)
    except DataError as error:
        message = one_line(error)
        assert str(root) in message
    assert expected is None or expected in message


@pytest.mark.parametrize(
    ("names", "message"),
    [("cat\n", "names 1 classes, but the lists hold the label 7"), (b"\xff\xfe", "labels.txt: byte 0: is not UTF-8"), ("\n\n", "")],
)
def test_T1_list_broken_names(tmp_path, names, message):
    root = make(tmp_path, {"train.txt": "im/a.png 7\n", "labels.txt": names})
    try:
        text = said(lists.read(root))
    except DataError as error:
        text = one_line(error)
    assert message in text


def test_T1_list_links_out_are_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "secret.txt").write_text("im/a.png 1\n")
    root = make(tmp_path / "data", {"train.txt": "im/a.png 1\nim/c.png 2\n"})
    os.symlink(tmp_path / "secret.png", root / "im/c.png")
    os.symlink(tmp_path / "secret.txt", root / "val.txt")
    index = read_data(root, "list")
    assert rows(index) == {"im/a.png": "1"}
    assert list(index.splits) == ["train"]


@FUZZ
@given(st.binary(max_size=200) | st.text('im/ab c.png01\n\t\\"#', max_size=80).map(str.encode), st.binary(max_size=40))
def test_T1_list_any_bytes_give_data_or_one_line(tmp_path_factory, text, names):
    root = make(tmp_path_factory.mktemp("fuzz"), {"train.txt": text, "val.txt": b"im/a.png 1\n" + text, "labels.txt": names})
    try:
        index = lists.read(root)
    except DataError as error:
        one_line(error)
        return
    said(index)
    assert set(rows(index)) <= {"im/a.png", "im/b c.png"}


NAMES = st.text(st.characters(categories=("L", "N"), include_characters=" _-.,:#", max_codepoint=0x3FF), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(NAMES.map(lambda t: " ".join(t.split())).filter(bool), min_size=1, max_size=4, unique=True), st.data())
def test_T1_list_write_then_read_gives_the_same(tmp_path_factory, classes, data):
    folder = tmp_path_factory.mktemp("write")
    labels = data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=1, max_size=5))
    records = [
        Record(f"images/{k % 2}/same 1.png {k // 2}.png", f"images/{k % 2}/same 1.png {k // 2}.png", label=v) for k, v in enumerate(labels)
    ]
    for record in records:
        (folder / record.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / record.path).write_bytes(PNG)
    splits = {"train": [0], "fold2": list(range(1, len(labels)))} if len(labels) > 1 and data.draw(st.booleans()) else {}
    index = DataIndex(
        "made", folder, classes, PackedRecords(records), tasks=("classify",), splits={k: np.array(v) for k, v in splits.items()}
    )
    assert write_data(Dataset(index), folder / "out", "list") == []
    again = read_data(folder / "out", "list")
    assert again.classes == classes
    assert again.problems == []
    assert rows(again) == rows(index)
    assert members(again) == members(index)
    assert detect_format(folder / "out")[0] == "list"


def test_T1_list_cifar_there_and_back(real, tmp_path):
    """Names repeat in every class and split; the paths tell them apart."""
    before = read_data(real("cifar10_jpg"))
    chosen = np.arange(0, 6000, 60)
    assert write_data(Dataset(before, chosen), tmp_path / "out", "list") == ["100 image ids change to the paths of their files"]
    again = read_data(tmp_path / "out")
    assert again.classes == before.classes
    assert {r.path.removeprefix("images/"): r.label for r in again.records} == {
        before.records[int(i)].path: before.records[int(i)].label for i in chosen
    }
    assert {s: len(v) for s, v in again.splits.items()} == {s: len(np.intersect1d(v, chosen)) for s, v in before.splits.items()}


def test_T1_list_losses(tmp_path):
    make(tmp_path, {}, ["a\nb.png", "c.png"])
    records = [Record("a\nb.png", "1", label=0), Record("c.png", "2", label=1, captions=["x"])]
    splits = {"labels": np.array([0]), "val_list": np.array([1])}
    index = DataIndex("made", tmp_path, ["n01440764 big tench, fish", "x\ny"], PackedRecords(records), tasks=("classify",), splits=splits)
    losses = "; ".join(write_data(Dataset(index), tmp_path / "out", "list"))
    for part in ("1 captions", "labels, val_list get other names", "2 class names change", "2 image ids change"):
        assert part in losses
    again = read_data(tmp_path / "out")
    assert len(again) == 2
    assert sorted(again.splits) == ["fold_labels", "fold_val_list"]
