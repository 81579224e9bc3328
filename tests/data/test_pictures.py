"""Folders of pictures without truth: what is listed, classes from names, patterns, write then read."""

import io
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, images, read_data, write_data
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, SaccadeError, UsageError

OUT = io.BytesIO()
Image.new("RGB", (6, 4), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG + name.encode())
    return root


def said(index):
    texts = [str(p) for p in index.problems]
    assert not any("\n" in t for t in texts)
    return "\n".join(texts)


def test_T1_images_imagenet_samples_are_labelled_by_their_names(real):
    assert detect_format(real("imagenet_samples")) == ("images", "20 images and no annotation")
    index = read_data(real("imagenet_samples"))
    assert (len(index), len(index.classes), index.tasks) == (20, 20, ("classify",))
    assert {"Rhodesian_ridgeback", "goldfish", "wire-haired_fox_terrier"} <= set(index.classes)
    assert all(index.classes[r.label] == r.path[10:-5] for r in index.records)
    assert load_data(real("imagenet_samples"), task="classify").class_counts().tolist() == [1] * 20
    plain = read_data(real("imagenet_samples"), label="none")
    assert (len(plain), plain.classes, plain.tasks) == (20, [], ())


def test_T1_images_near_duplicates_lists_all_and_decodes_25(real):
    """28 files: a licence and an SVG are not named like images, one is not decodable, 25 are pictures."""
    index = read_data(real("near_duplicates"), "images")
    assert len(index) == 26
    assert "ukbench09380.svg: is not named like an image" in said(index)
    assert "LICENSE" in said(index)
    data, broken = Dataset(index), []
    for i in range(len(data)):
        try:
            assert data[i].image.shape[0] in (1, 3)
        except DataError as error:
            broken.append(str(error))
    assert len(broken) == 1
    assert "ukbench09268_corrupt.jpg" in broken[0]


def test_T1_images_without_truth_serve_tasks_that_need_none(real):
    data = load_data(real("oxford_graf"), task="generate")
    assert (len(data), data.index.format, data.tasks, data[0].image.shape) == (6, "images", (), (3, 640, 800))
    assert "H1to2p: is not named like an image" in said(data.index)
    with pytest.raises(UsageError, match="hold no truth, not for classify"):
        load_data(real("oxford_graf"), task="classify")


def test_T1_images_take_no_class_folders(tmp_path):
    assert images.sniff(tree(tmp_path / "a", "cat/1.png", "dog/2.png")) is None
    assert detect_format(tmp_path / "a")[0] == "imagefolder"
    assert images.sniff(tree(tmp_path / "b", "flowers/rose/1.png", "flowers/iris/2.png")) is None  # one level too high
    assert images.sniff(tree(tmp_path / "c", "train/cat/1.png", "val/cat/2.png")) is None
    assert detect_format(tree(tmp_path / "d", "x/1.png", "x/deep/2.png"))[0] == "images"
    (tmp_path / "e").mkdir()
    assert images.sniff(tmp_path / "e") is None
    with pytest.raises(UsageError, match=r"imagefolder \(2 folders.*images \(1 image and.*--format imagefolder\|images"):
        detect_format(tree(tmp_path / "f", "cat/1.png", "dog/2.png", "loose.png"))
    assert load_data(tmp_path / "f", task="classify").index.format == "imagefolder"


def test_T1_images_folders_of_splits(tmp_path):
    index = read_data(tree(tmp_path, "train/1.png", "training/2.png", "valid/3.png", "more/4.png"), "images")
    paths = {s: [index.records[i].path for i in v] for s, v in index.splits.items()}
    assert paths == {"train": ["train/1.png", "training/2.png"], "val": ["valid/3.png"]}


@pytest.mark.parametrize(
    ("pattern", "names", "classes"),
    [
        ("", ["cat.0.png", "cat.1.png", "polar bear-12.png"], ["cat", "polar bear"]),
        ("", ["n01440764_tench.png", "n02012849_crane.png", "n03126707_crane.png"], ["crane (n02012849)", "crane (n03126707)", "tench"]),
        (r"(?P<label>[a-z]+)_\d+", ["cat_1.png", "dog_1.png"], ["cat", "dog"]),
        (r"(?P<label>\d)-.*", ["2-x.png", "10.png", "1-y.png"], ["1", "2"]),
        (r"x(?P<label>a)?", ["x.png", "xa.png"], ["a"]),
    ],
)
def test_T1_images_classes_in_names(tmp_path, pattern, names, classes):
    index = read_data(tree(tmp_path, *names), "images", label="name", pattern=pattern)
    assert index.classes == classes
    assert index.tasks == ("classify",)
    assert len(index) + said(index).count("its name holds no class") == len(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, "is no regular expression"),
        ({"pattern": "[a-z]+"}, "has no group 'label'"),
        ({"pattern": "(?P<label>a" * 2 + "))"}, "is no regular expression"),
        ({"pattern": "(?P<1>a)"}, "is no regular expression"),
        ({"pattern": "(" * 5000 + "(?P<label>a)" + ")" * 5000}, ""),
        ({"label": "names"}, "label is 'auto', 'name' or 'none'"),
        ({"lable": "name"}, "did you mean 'label'"),
        ({"pattern": "(?P<label>z)"}, "no image's name holds a class"),
        ({"label": "name", "classes": ["dog"]}, "holds the class 'cat'"),
    ],
)
def test_T1_images_wrong_options_are_one_line(tmp_path, options, message):
    with pytest.raises(SaccadeError) as error:
        read_data(tree(tmp_path, "cat1.png"), "images", **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def link_out(root):
    (root.parent / "secret.png").write_bytes(PNG)
    tree(root, "a.png")
    os.symlink(root.parent / "secret.png", root / "b.png")
    os.symlink(root.parent, root / "folder")
    os.symlink(root / "a.png", root / "c.png")  # stays inside


STRANGE = {
    "nothing": (lambda r: None, "holds no image", 0),
    "no images": (lambda r: (r / "a.txt").write_text("x"), "holds no image", 0),
    "a file": (lambda r: None, "", 0),
    "other files": (lambda r: (tree(r, "a.png") / "b.txt").write_text("x"), "b.txt: is not named like an image", 1),
    "hidden": (lambda r: tree(r, "a.png", ".b.png", ".c/d.png"), "", 1),
    "links": (link_out, "link", 2),
    "fifo": (lambda r: os.mkfifo(tree(r, "a.png") / "b.png"), "is not a regular file", 1),
    "folder named like an image": (lambda r: tree(r, "a.png", "b.png/c.png"), "is a folder named like an image", 1),
    "not UTF-8": (lambda r: os.makedirs(os.fsencode(tree(r, "a.png")) + b"/\xff.png"), "not UTF-8", 1),
    "empty image": (lambda r: (tree(r, "a.png") / "b.png").touch(), "", 2),
    "junk": (lambda r: tree(r, "a.png", "__MACOSX/b.png", "Thumbs.db"), "", 1),
    "capitals": (lambda r: tree(r, "A.JPEG", "b.Png"), "", 2),
    "deep": (lambda r: tree(r, "a/b/c/d/e/f.png"), "", 1),
    "blanks and unicode": (lambda r: tree(r, " a b /ö 日本.png"), "", 1),
    "no suffix": (lambda r: tree(r, "a.png", "b"), "b: is not named like an image", 1),
    "long name": (lambda r: tree(r, "x" * 250 + ".png"), "", 1),
}


@pytest.mark.parametrize("name", STRANGE)
def test_T1_images_strange_folders(tmp_path, name):
    root = tmp_path / "data"
    root.mkdir()
    fill, expected, count = STRANGE[name]
    fill(root)
    if name == "a file":
        tree(root, "a.png")
        root = root / "a.png"
    try:
        index = images.read(root)
        assert len(index) == count
        message = said(index)
    except DataError as error:
        message = str(error)
        assert "\n" not in message
        assert count == 0
    assert expected in message


PARTS = st.text(st.characters(categories=("L", "N"), include_characters=" _-", max_codepoint=0x3FF), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "x/", "train/", "val/y/"]), PARTS.map(str.strip).filter(bool)),
        min_size=1,
        max_size=5,
        unique_by=lambda t: str(t).lower(),
    )
)
def test_T1_images_written_then_read(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("write")
    tree(folder / "in", *(a + b + ".png" for a, b in places))
    before = read_data(folder / "in", "images", label="none")
    assert write_data(Dataset(before), folder / "out", "images") == []
    again = read_data(folder / "out", "images", label="none")
    assert [(r.path, r.image_id) for r in again.records] == [(r.path, r.image_id) for r in before.records]
    assert {s: v.tolist() for s, v in again.splits.items()} == {s: v.tolist() for s, v in before.splits.items()}
    assert all((again.root / r.path).read_bytes() == (before.root / r.path).read_bytes() for r in again.records)


def test_T1_images_losses_and_names_that_meet(tmp_path, real):
    tree(tmp_path / "in", "train/a.png", "a.png", "val/b.png")
    records = [Record(p, p, label=0) for p in ("train/a.png", "a.png", "val/b.png")]
    splits = {"train": np.array([0, 1]), "fold": np.array([2])}
    index = DataIndex("made", tmp_path / "in", ["x"], PackedRecords(records), tasks=("classify",), splits=splits)
    losses = "; ".join(write_data(Dataset(index), tmp_path / "out", "images"))
    for part in ("the splits fold are lost", "2 image ids change", "3 labels of whole images are lost"):
        assert part in losses
    again = read_data(tmp_path / "out", "images")
    assert sorted(r.path for r in again.records) == ["train/a.png", "train/a_2.png", "val_/b.png"]
    assert list(again.splits) == ["train"]
    samples = read_data(real("imagenet_samples"))
    assert write_data(Dataset(samples), tmp_path / "samples", "images") == []  # the names keep the labels
    assert [r.label for r in read_data(tmp_path / "samples").records] == [r.label for r in samples.records]
