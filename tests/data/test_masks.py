"""Class masks as images: real sets, layouts, class tables, round trips, malformed input."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, read_data, write_data
from saccade.data.formats.scan import read_class_table
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, SaccadeError

SIZE = (4, 6)


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), value, np.uint8)).save(path, format="PNG")


def mask(path, values=(0, 1), dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.resize(np.array(values, dtype=dtype), SIZE)
    Image.fromarray(array).save(path, format="PNG")


def pairs(root, count=3, values=(0, 1)):
    for k in range(count):
        image(root / f"images/{k}.jpg", k)
        mask(root / f"masks/{k}.png", values)
    return root


def problems(index):
    return "\n".join(map(str, index.problems))


# ------------------------------------------------------------------------------------------------------------ real sets


def test_T1_masks_camvid(real):
    index = read_data(real("camvid"))
    assert (index.format, len(index), index.tasks) == ("masks", 60, ("segment",))
    assert {k: len(v) for k, v in index.splits.items()} == {"train": 31, "val": 9, "test": 20}
    assert all(r.mask == r.path.replace("/", "annot/") for r in index.records)
    assert index.mask_values == {k: k for k in range(12)}
    assert not index.problems
    named = read_data(real("camvid"), classes=[f"c{k}" for k in range(12)], ignore=[11])
    target = Dataset(named)[0].target["mask"]
    assert len(named.classes) == 11
    assert target.shape == (360, 480)
    assert target.unique()[0] == -100
    assert target.max() == 10


def test_T1_masks_wbc_dataset_1(real):
    index = read_data(real("wbc_segmentation") / "Dataset 1")
    assert (index.format, len(index), index.classes) == ("masks", 300, ["0", "128", "255"])
    assert index.mask_values == {0: 0, 128: 1, 255: 2}
    assert not index.mask_nearest
    assert not index.problems
    data = Dataset(index)
    counts = sum(torch.bincount(data[i].target["mask"].flatten(), minlength=3) for i in range(300))
    np.testing.assert_allclose(counts / counts.sum(), [0.688, 0.189, 0.123], atol=5e-4)  # the set's README


def test_T1_masks_wbc_dataset_2_has_stray_values(real):
    index = read_data(real("wbc_segmentation") / "Dataset 2")
    assert (len(index), index.classes, index.mask_nearest) == (60, ["0", "128", "255"], True)
    assert "each goes to the nearest of [0, 128, 255]" in problems(index)
    data = Dataset(index)
    for name in ("034", "035", "047", "050"):
        k = next(i for i in range(60) if data.record(i).path == f"{name}.bmp")
        assert set(data[k].target["mask"].unique().tolist()) <= {0, 1, 2}
    strict = Dataset(read_data(real("wbc_segmentation") / "Dataset 2", nearest=False))
    with pytest.raises(DataError, match=r"034\.png: mask value \d+ is no class"):
        strict[next(i for i in range(60) if data.record(i).path == "034.bmp")]
    both = read_data(real("wbc_segmentation"), "masks", classes={0: "background", 128: "cytoplasm", 255: "nucleus"}, nearest=True)
    assert (len(both), both.classes) == (360, ["background", "cytoplasm", "nucleus"])


@pytest.mark.parametrize("name", ["bccd", "cifar10_jpg", "near_duplicates", "orl_faces", "coco_mini", "middlebury_stereo"])
def test_T1_other_sets_are_not_taken_for_masks(real, name):
    from saccade.data.formats import mask_png

    assert mask_png.sniff(real(name)) is None


# -------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("picture", "its_mask", "split"),
    [
        ("images/{}.jpg", "masks/{}.png", None),
        ("Images/{}.jpg", "Masks/{}.png", None),
        ("img/{}.jpg", "labels/{}_label.png", None),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", None),
        ("train/images/{}.jpg", "train/masks/{}.png", "train"),
        ("images/valid/{}.jpg", "masks/valid/{}.png", "val"),
        ("test/{}.png", "testannot/{}.png", "test"),
        ("{}.bmp", "{}.png", None),
        ("some folder/{}.jpg", "some folder/{}_mask.png", None),
        ("{}.png", "{}_seg.png", None),
        ("{}.jpg", "masks/{}.png", None),
        ("leftImg8bit/train/berlin/{}.png", "gtFine/train/berlin/{}.png", "train"),
    ],
)
def test_T1_masks_layouts(tmp_path, picture, its_mask, split):
    for stem in "ab":
        image(tmp_path / picture.format(stem))
        mask(tmp_path / its_mask.format(stem))
    index = read_data(tmp_path)
    assert index.format == "masks"
    assert [(r.path, r.mask) for r in index.records] == [(picture.format(s), its_mask.format(s)) for s in "ab"]
    assert list(index.splits) == ([split] if split else [])


def test_T1_masks_lists(tmp_path):
    pairs(tmp_path, 5)
    (tmp_path / "train.txt").write_text("/foreign/root/images/0.jpg /foreign/root/masks/0.png\nimages/1.jpg masks/1.png\n\n")
    (tmp_path / "val.txt").write_text("2\nnix\n")
    (tmp_path / "test.txt").write_text("3.jpg\n../../etc/passwd /etc/shadow\n")
    index = read_data(tmp_path)
    assert {k: [index.records[i].path for i in v] for k, v in index.splits.items()} == {
        "train": ["images/0.jpg", "images/1.jpg"],
        "val": ["images/2.jpg"],
        "test": ["images/3.jpg"],
    }
    said = problems(index)
    assert "val.txt: line 2: 'nix' names no image" in said
    assert "test.txt: line 2" in said
    assert "4.jpg: is in no list" in said


def test_T1_masks_class_tables(tmp_path):
    pairs(tmp_path, values=(0, 128, 255))
    for name, text in {
        "classes.txt": "0 background\n128 cell\n255 void\n",
        "classes.csv": "value,name\n0,background\n128,cell\n255,ignore\n",
        "classes.json": '{"classes": {"0": "background", "128": "cell"}, "ignore": [255]}',
    }.items():
        (tmp_path / name).write_text(text)
        index = read_data(tmp_path)
        assert (index.classes, index.mask_values, index.ignore) == (["background", "cell"], {0: 0, 128: 1}, (255,))
        assert Dataset(index)[0].target["mask"].unique().tolist() == [-100, 0, 1]
        (tmp_path / name).unlink()


def test_T1_masks_values_found(tmp_path):
    index = read_data(pairs(tmp_path / "a", values=(0, 1, 2, 255)))
    assert index.classes == ["0", "1", "2", "255"]
    assert index.ignore == ()  # no value means it by itself
    assert "say ignore 255" in problems(index)
    index = read_data(pairs(tmp_path / "b", values=(0, 128, 255)))
    assert index.classes == ["0", "128", "255"]
    assert not index.problems
    root = pairs(tmp_path / "c", 9, values=(0, 1))
    mask(root / "masks/8.png", [0] * 23 + [2])  # a rare class is a class, not a stray value
    assert read_data(root).classes == ["0", "1", "2"]
    root = pairs(tmp_path / "d", 2)
    mask(root / "masks/0.png", (0, 300, 1000), np.uint16)
    assert read_data(root).mask_values == {0: 0, 1: 1, 300: 2, 1000: 3}


# ------------------------------------------------------------------------------------------------------------ malformed


def rgb_masks(root):
    for k in range(3):
        image(root / f"images/{k}.jpg", k)
        path = root / f"masks/{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(path)


def photos_as_masks(root):
    pairs(root)
    big = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(big).save(root / "masks/0.png")


def links(root):
    pairs(root, 2)
    mask(root.parent / "secret.png")
    (root / "masks/1.png").unlink()
    (root / "masks/1.png").symlink_to(root.parent / "secret.png")


MALFORMED = {
    "empty": (lambda r: None, "holds no image with a mask"),
    "images_only": (lambda r: image(r / "images/0.jpg"), "holds no image with a mask"),
    "masks_only": (lambda r: mask(r / "masks/0.png"), "holds no image with a mask"),
    "no_common_names": (lambda r: (image(r / "images/0.jpg"), mask(r / "masks/1.png")), "holds no image with a mask"),
    "image_without_mask": (lambda r: image(pairs(r) / "images/9.jpg"), "9.jpg: has no mask"),
    "mask_without_image": (lambda r: mask(pairs(r) / "masks/9.png"), "9.png: has no mask, or is a mask without image"),
    "other_files": (lambda r: (pairs(r) / "readme.md").touch(), "readme.md: is not named like an image"),
    "coloured": (rgb_masks, "is a mask in colours"),
    "broken_mask": (lambda r: (pairs(r) / "masks/1.png").write_bytes(b"\x89PNG"), "1.png"),
    "all_masks_broken": (lambda r: [(pairs(r) / f"masks/{k}.png").write_bytes(b"x") for k in range(3)], "is no image"),
    "empty_mask": (lambda r: (pairs(r) / "masks/1.png").write_bytes(b""), "is empty (0 bytes)"),
    "too_many_values": (photos_as_masks, "no classes"),
    "mask_is_a_folder": (lambda r: (pairs(r) / "masks/9.png").mkdir(), "is a folder named like an image"),
    "links_out": (links, "is a link"),
    "fifo": (lambda r: os.mkfifo(pairs(r) / "masks/9.png"), "not a regular file"),
    "table_not_json": (lambda r: (pairs(r) / "classes.json").write_text("{"), "is not JSON"),
    "table_no_table": (lambda r: (pairs(r) / "classes.json").write_text("3"), "is no table of classes"),
    "table_wrong_type": (lambda r: (pairs(r) / "classes.json").write_text('{"0": 3}'), "is no table of classes"),
    "table_bad_ignore": (lambda r: (pairs(r) / "classes.json").write_text('{"classes": ["a"], "ignore": ["x"]}'), "'ignore'"),
    "table_bad_value": (lambda r: (pairs(r) / "classes.csv").write_text("value,name\nx,a\n"), "is no mask value"),
    "table_big_value": (lambda r: (pairs(r) / "classes.csv").write_text("70000,a\n"), "is no mask value"),
    "table_negative": (lambda r: (pairs(r) / "classes.txt").write_text("-1 a\n0 b\n"), "is no mask value"),
    "table_short_row": (lambda r: (pairs(r) / "classes.csv").write_text("0\n"), "needs a value and a name"),
    "table_no_name": (lambda r: (pairs(r) / "classes.csv").write_text("0,\n"), "has no name"),
    "table_twice": (lambda r: (pairs(r) / "classes.csv").write_text("0,a\n0,b\n"), "stands twice"),
    "table_only_void": (lambda r: (pairs(r) / "classes.txt").write_text("void\n"), "holds no class"),
    "table_deep": (lambda r: (pairs(r) / "classes.json").write_text("[" * 100_000), "nested"),
    "list_binary": (lambda r: (pairs(r) / "train.txt").write_bytes(b"\xff\xfe\0"), "UTF-8"),
    "list_of_strangers": (lambda r: (pairs(r) / "train.txt").write_text("x\ny z\n"), "names no image"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_T1_malformed_masks(tmp_path, name):
    root = tmp_path / "data"
    root.mkdir()
    make, expected = MALFORMED[name]
    make(root)
    try:
        said = problems(read_data(root, "masks"))
    except SaccadeError as error:
        said = str(error)
        assert "\n" not in said
    assert expected in said


def test_T1_sizes_and_values_are_checked_when_a_mask_is_opened(tmp_path):
    root = pairs(tmp_path)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(root / "masks/1.png")
    mask(root / "masks/2.png", (0, 77))
    (root / "classes.txt").write_text("a\nb\n")
    data = Dataset(read_data(root))
    with pytest.raises(DataError, match=r"1\.png: the mask is 3x3, its image 6x4"):
        data[1]
    with pytest.raises(DataError, match=r"2\.png: mask value 77 is no class"):
        data[2]


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.binary(max_size=120), st.text(max_size=80).map(str.encode)),
    st.sampled_from(["classes.json", "classes.csv", "classes.txt", "train.txt"]),
)
def test_T1_fuzzed_tables_and_lists(data, name):
    with tempfile.TemporaryDirectory() as folder:
        root = pairs(Path(folder), 1)
        (root / name).write_bytes(data)
        try:
            index = read_data(root, "masks")
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert index.classes
            assert [r.path for r in index.records] == ["images/0.jpg"]


# ---------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.lists(st.sampled_from([0, 1, 2, 5, 128, 255, 300, 65535]), min_size=1, max_size=4, unique=True),
    count=st.integers(1, 4),
    with_splits=st.booleans(),
    merged=st.booleans(),
    data=st.data(),
)
def test_T1_masks_written_then_read(values, count, with_splits, merged, data):
    ignore = (values[-1],) if len(values) > 1 and data.draw(st.booleans()) else ()
    table = {v: k for k, v in enumerate(v for v in values if v not in ignore)}
    if merged:
        table = dict.fromkeys(table, 0)  # several values of one class
    classes = [f"class {k}" for k in range(max(table.values()) + 1)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "src"
        records = []
        for k in range(count):
            image(root / f"in/{k % 2}/{k // 2}.png", k)
            mask(root / f"m{k}.png", data.draw(st.lists(st.sampled_from(values), min_size=24, max_size=24)), np.uint16)
            records.append(Record(f"in/{k % 2}/{k // 2}.png", str(k), mask=f"m{k}.png"))
        where = [data.draw(st.sampled_from(["train", "val", "test"])) for _ in range(count)] if with_splits else []
        splits = {s: np.array([k for k in range(count) if where[k] == s]) for s in set(where)}
        source = Dataset(DataIndex("test", root, classes, PackedRecords(records), splits, ("segment",), mask_values=table, ignore=ignore))
        assert write_data(source, Path(folder) / "out", "masks") == []
        assert detect_format(Path(folder) / "out")[0] == "masks"
        read = Dataset(read_data(Path(folder) / "out"))
        assert read.classes == classes
        assert not read.index.problems

        def content(d):
            split = {int(i): s for s, members in d.index.splits.items() for i in members}
            samples = {i: d[i] for i in range(len(d))}
            return {int(s.image[0, 0, 0]): (split.get(i), s.target["mask"].tolist()) for i, s in samples.items()}

        assert content(read) == content(source)


def test_T1_masks_of_a_reader_are_written_as_png(tmp_path):
    class Reader:
        def image(self, record):
            return np.full((3, 4, 3), int(record.path), np.uint8)

        def mask(self, record):
            return np.full((3, 4), int(record.path) * 300)

    records = [Record(str(k), f"x/{k}", mask=str(k)) for k in range(2)] + [Record("7", "7")]
    index = DataIndex("test", tmp_path, ["a", "b"], PackedRecords(records), tasks=("segment",), mask_values={0: 0, 300: 1}, reader=Reader())
    assert write_data(Dataset(index), tmp_path / "out", "masks") == ["1 images without a mask are left out"]
    read = Dataset(read_data(tmp_path / "out"))
    assert read.index.mask_values == {0: 0, 300: 1}
    assert [int(read[i].target["mask"][0, 0]) for i in range(2)] == [0, 1]


def test_T1_masks_an_infinite_ignore_value_is_a_dataerror(tmp_path):
    """Found by the fuzzer: 1e400 in JSON is infinite."""
    path = tmp_path / "classes.json"
    path.write_text('{"classes": ["a", "b"], "ignore": [1e400]}')
    with pytest.raises(DataError, match=r"classes\.json: 'ignore' is not a list"):
        read_class_table(path, of_masks=True)
    path.with_suffix(".csv").write_text("\x1c7,sky\n8,road\n", encoding="utf-8")
    assert [v for v, _ in read_class_table(path.with_suffix(".csv"), of_masks=True).entries] == [7, 8]
