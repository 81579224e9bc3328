"""Image folders and CSV tables: real sets, round trips, malformed input; the registry of formats."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import FORMATS, detect_format, format_module, read_data, write_data
from saccade.data.formats.scan import MOST, read_class_table
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, SaccadeError, UsageError


def picture(path, value=0, size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, format="PNG")


def tree(root, *names):
    for k, name in enumerate(names):
        picture(root / name, k)
    return root


def table(root, text, name="labels.csv"):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def problems(index):
    return "\n".join(map(str, index.problems))


# ------------------------------------------------------------------------------------------------------------ real sets


@pytest.mark.parametrize(
    ("name", "count", "classes", "splits"),
    [
        ("orl_faces", 400, 40, {}),
        ("hymenoptera", 96, 2, {"train": 63, "val": 33}),
        ("cifar10_jpg", 6000, 10, {"train": 5000, "test": 1000}),
        ("dtd10", 200, 10, {}),
    ],
)
def test_T1_imagefolder_real_sets(real, name, count, classes, splits):
    index = read_data(real(name))
    assert index.format == "imagefolder"
    assert (len(index), len(index.classes), {k: len(v) for k, v in index.splits.items()}) == (count, classes, splits)
    assert index.tasks == ("classify",)
    assert index.records.nbytes / count < 200


def test_T1_imagefolder_agrees_with_torchvision(real):
    from torchvision.datasets import ImageFolder

    for name in ("hymenoptera/train", "dtd10"):
        folder = real(name.split("/")[0]).parent / name
        index, oracle = read_data(folder), ImageFolder(str(folder), is_valid_file=lambda p: True)
        ours = {str(folder / r.path): r.label for r in index.records}
        assert index.classes == oracle.classes
        assert ours == dict(oracle.samples)


def test_T1_hymenoptera_counts_and_its_gif(real):
    data = Dataset(read_data(real("hymenoptera")))
    assert data.take("train").class_counts().tolist() == [39, 24]
    assert data.take("val").class_counts().tolist() == [20, 13]
    gif = next(i for i in range(len(data)) if data.record(i).path.endswith(".gif"))
    assert data[gif].image.shape[0] == 3


def test_T1_near_duplicates_corrupt_file_is_named(real):
    data = Dataset(read_data(real("near_duplicates"), "imagefolder"))
    failed = []
    for i in range(len(data)):
        try:
            data[i]
        except DataError as error:
            failed.append(str(error))
    assert len(failed) == 1
    assert "ukbench09268_corrupt.jpg" in failed[0]
    assert "ukbench09380.svg" in problems(data.index)


def test_T1_csv_mnist(real):
    index = read_data(real("mnist") / "png")
    assert (index.format, len(index), index.classes) == ("csv", 20000, list("0123456789"))
    assert {k: len(v) for k, v in index.splits.items()} == {"train": 20000}
    assert Dataset(index).class_counts().tolist() == [2000] * 10
    assert all(r.path.split("/")[1] == index.classes[r.label] for r in index.records[::97])
    assert not index.problems


def test_T1_csv_raccoon_equals_its_xml(real):
    index, oracle = read_data(real("raccoon"), "csv"), read_data(real("raccoon"), "voc")
    assert {k: len(v) for k, v in index.splits.items()} == {"train": 104, "test": 25}
    assert [sum(len(index.records[i].boxes) for i in index.splits[s]) for s in ("train", "test")] == [111, 26]
    ours = {r.path.split("/")[-1]: r.boxes for r in index.records}
    theirs = {r.path.split("/")[-1]: r.boxes for r in oracle.records}
    assert ours.keys() == theirs.keys()
    for name, boxes in ours.items():
        np.testing.assert_allclose(np.sort(boxes, 0), np.sort(theirs[name], 0), atol=1.01)  # VOC's pixel count from 1
    assert detect_format(real("raccoon"))[0] == "voc"  # the table repeats the XML
    assert len(read_data(real("raccoon") / "raccoon_labels.csv")) == 129


def test_T1_csv_wbc_ids_find_their_bmp(real):
    index = read_data(real("wbc_segmentation"), "csv")
    assert (len(index), index.classes) == (360, ["1", "2", "3", "4", "5"])
    first = [r for r in index.records if r.path.startswith("Dataset 1/")]
    assert np.bincount([r.label for r in first]).tolist() == [176, 53, 48, 22, 1]
    assert all(r.path.endswith(".bmp") for r in index.records)
    assert f"{40 - MOST} more rows without their image" in problems(index)


# ----------------------------------------------------------------------------------------------------------- imagefolder


def test_T1_imagefolder_layouts(tmp_path):
    index = read_data(tree(tmp_path / "a", "cat/1.png", "dog/2.png", "dog/deep/3.png"))
    assert [(r.path, r.label) for r in index.records] == [("cat/1.png", 0), ("dog/2.png", 1), ("dog/deep/3.png", 1)]
    index = read_data(tree(tmp_path / "b", "Train/x/1.png", "valid/x/2.png", "testing/y/3.png"))
    assert {k: v.tolist() for k, v in index.splits.items()} == {"train": [0], "val": [2], "test": [1]}
    assert "the class 'y' has no image in train" in problems(index)
    index = read_data(tree(tmp_path / "c", "10/1.png", "9/2.png", "1/3.png"))
    assert index.classes == ["1", "9", "10"]
    (tmp_path / "c" / "classes.txt").write_text("9\n10\n1\n")
    assert read_data(tmp_path / "c").classes == ["9", "10", "1"]
    assert read_data(tmp_path / "c", classes=["1", "10", "9", "5"]).classes == ["1", "10", "9", "5"]
    index = read_data(tree(tmp_path / "d", "test/1.png", "cat/2.png"), "imagefolder")  # a class called test
    assert index.classes == ["cat", "test"]
    assert not index.splits


def link_out(root):
    secret = root.parent / "secret.png"
    picture(secret)
    tree(root, "cat/1.png")
    (root / "cat" / "2.png").symlink_to(secret)
    (root / "dog").symlink_to(root.parent)


def not_utf8(root):
    tree(root, "cat/1.png", "dog/1.png")
    os.makedirs(os.fsencode(root) + b"/\xff\xfe")
    shutil.copy(root / "cat/1.png", os.fsencode(root) + b"/cat/\xff.png")


def fifo(root):
    tree(root, "cat/1.png")
    os.mkfifo(root / "cat" / "2.png")


FOLDERS = {
    "empty": (lambda r: None, "holds no image in a class folder"),
    "no_images": (lambda r: (r / "cat").mkdir() or (r / "cat/a.txt").write_text("x"), "holds no image in a class folder"),
    "images_at_the_top": (lambda r: tree(r, "1.png", "2.png"), "holds no image in a class folder"),
    "splits_without_classes": (lambda r: tree(r, "train/1.png", "test/2.png"), None),
    "split_and_loose_image": (lambda r: tree(r, "train/a/1.png", "train/b/2.png", "train/3.png"), "lies in no class folder"),
    "loose_image": (lambda r: tree(r, "a/1.png", "b/2.png", "3.png"), "3.png: lies in no class folder"),
    "other_files": (lambda r: (tree(r, "a/1.png", "b/2.png") / "a/Notes.md").write_text("x"), "Notes.md: is not named like an image"),
    "folder_named_like_an_image": (lambda r: (tree(r, "a/1.png", "b/2.png") / "a/x.jpg").mkdir(), "x.jpg: is a folder named like an image"),
    "class_folder_named_like_an_image": (lambda r: tree(r, "a/1.png", "b.jpg/2.png"), "b.jpg: is a folder named like an image"),
    "empty_class": (lambda r: (tree(r, "a/1.png", "b/2.png") / "c").mkdir(), "c: is a class folder without images"),
    "links_out": (link_out, "link"),
    "not_utf8": (not_utf8, "not UTF-8"),
    "fifo": (fifo, "is not a regular file"),
    "one_level_too_high": (lambda r: tree(r, "flowers/rose/1.png", "flowers/iris/2.png"), None),
    "class_lacking_in_val": (lambda r: tree(r, "train/a/1.png", "train/b/2.png", "val/a/3.png"), "'b' has no image in val"),
    "class_table_lacks_a_folder": (
        lambda r: (tree(r, "roze/1.png", "iris/2.png") / "classes.txt").write_text("rose\niris\n"),
        "did you mean",
    ),
    "class_table_empty": (lambda r: (tree(r, "a/1.png", "b/2.png") / "classes.txt").write_text("\n"), "holds no class"),
    "class_table_twice": (lambda r: (tree(r, "a/1.png", "b/2.png") / "classes.txt").write_text("a\nb\na\n"), "twice"),
    "class_table_binary": (lambda r: (tree(r, "a/1.png", "b/2.png") / "classes.txt").write_bytes(b"\xff\xfe\0"), "UTF-8"),
    "class_table_json": (lambda r: (tree(r, "a/1.png", "b/2.png") / "classes.json").write_text('{"a": 1'), "JSON"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_T1_malformed_imagefolder(tmp_path, name):
    root = tmp_path / "data"
    root.mkdir()
    make, expected = FOLDERS[name]
    make(root)
    try:
        said = problems(read_data(root, "imagefolder"))
    except SaccadeError as error:
        said = str(error)
        assert "\n" not in said
    assert expected is None or expected in said


def test_T1_one_level_too_high_says_where(tmp_path):
    tree(tmp_path, "flowers/rose/1.png", "flowers/iris/2.png")
    assert read_data(tmp_path, "imagefolder").classes == ["flowers"]  # as torchvision; one class, and not recognised by itself
    with pytest.raises(DataError, match="no known data format"):
        detect_format(tmp_path)


def test_T1_many_problems_are_counted(tmp_path):
    tree(tmp_path, "a/1.png", "b/2.png")
    for k in range(MOST + 7):
        (tmp_path / "a" / f"{k}.txt").touch()
    index = read_data(tmp_path)
    assert len(index.problems) == MOST + 1
    assert str(index.problems[-1]).endswith("7 more files that are no images")


def test_T1_a_broken_image_is_named_when_it_is_opened(tmp_path):
    tree(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"1\.png"):
        Dataset(read_data(tmp_path))[0]


# ------------------------------------------------------------------------------------------------------------------ csv


def test_T1_csv_columns_and_delimiters(tmp_path):
    tree(tmp_path, "im/a.png", "im/b.png")
    for text in (
        "filepath,label\nim/a.png,cat\nim/b.png,dog\n",
        "Class Name;Image ID\r\ncat;a\r\ndog;b\r\n",
        "\ufefffile_name\tcategory\textra\nim\\a.png\tcat\t1\n./im/b.png\tdog\t2\n",
        "img|target\n/content/drive/im/a.png|cat\nC:\\data\\im\\b.png|dog",
        'image,class\n"im/a.png","cat"\n\n"im/b.png",dog\n',
    ):
        index = read_data(table(tmp_path, text))
        assert (index.format, index.classes, [r.path for r in index.records]) == ("csv", ["cat", "dog"], ["im/a.png", "im/b.png"])
        assert index.tasks == ("classify",)
    for head in ("image,xmin,ymin,xmax,ymax,class", "id,x1,y1,x2,y2,label", "file,left,top,right,bottom,species"):
        index = read_data(table(tmp_path, f"{head}\na,1,1,3,4,cat\na,0.5,0,1,1,dog\nb,,,,,\n"))
        assert index.records[0].boxes.tolist() == [[1, 1, 3, 4], [0.5, 0, 1, 1]]
        assert index.records[0].labels.tolist() == [0, 1]
        assert index.records[1].boxes.shape == (0, 4)
    for head in ("image,x,y,w,h,class", "image,x,y,width,height,class", "image,bbox_x,bbox_y,bbox_width,bbox_height,class"):
        assert read_data(table(tmp_path, f"{head}\na,1,1,3,2,cat\n")).records[0].boxes.tolist() == [[1, 1, 4, 3]]
    index = read_data(table(tmp_path, "image,label,split\na,1,training\nb,10,valid\n"))
    assert {k: v.tolist() for k, v in index.splits.items()} == {"train": [0], "val": [1]}
    assert index.classes == ["1", "10"]


def test_T1_csv_tables_of_splits(tmp_path):
    tree(tmp_path, "a.png", "b.png", "c.png")
    table(tmp_path, "image,label\na.png,x\nb.png,y\n", "train_labels.csv")
    table(tmp_path, "image,label\nc.png,x\nb.png,y\n", "test.csv")
    table(tmp_path, "image,label\na.png,x\n", "everything.csv")
    index = read_data(tmp_path)
    assert {k: [index.records[i].path for i in v] for k, v in index.splits.items()} == {
        "train": ["a.png", "b.png"],
        "test": ["b.png", "c.png"],
    }
    assert "'b.png' is also in" in problems(index)
    assert "everything.csv: is of no split" in problems(index)


DETECT = "image,width,height,class,xmin,ymin,xmax,ymax\n"
TABLES = {
    "empty": (b"", "is empty"),
    "blank_line": (b"\nimage,label\na,x\n", "empty first line"),
    "header_only": (b"image,label\n", "names no image that is there"),
    "no_header": (b"a.png,cat\n", "names no column of images"),
    "no_label_column": (b"image,size\na.png,3\n", "no column of classes"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0", ""),
    "latin1": "image,label\na.png,caf\u00e9\n".encode("latin-1"),
    "utf16": "image,label\na.png,x\n".encode("utf-16"),
    "nul": (b"image,label\na.png,\0\n", ""),
    "gzip_named_csv": (b"\x1f\x8b\x08\0\0\0\0\0", ""),
    "short_row": (b"image,label\na.png\nb.png,x\n", "has 1 fields"),
    "unclosed_quote": (b'image,label\n"a.png,x\nb.png,y\n', ""),
    "huge_field": (b"image,label\na.png," + b"x" * 200_000 + b"\n", "is no CSV"),
    "endless_header": (b"image," * 400_000, ""),
    "missing_image": (b"image,label\na.png,x\nnix.png,y\n", "no image 'nix.png'"),
    "leaves_root": (b"image,label\na.png,x\n../secret.png,y\n", "lies outside"),
    "absolute": (b"image,label\na.png,x\n/etc/passwd,y\n", "no image '/etc/passwd'"),
    "nul_path": (b"image,label\na.png,x\n\\0,y\n", "no image"),
    "empty_label": (b"image,label\na.png,x\nb.png,\n", "has no label"),
    "two_classes": (b"image,label\na.png,x\na.png,y\n", "row skipped"),
    "nan_box": (DETECT.encode() + b"a.png,6,4,x,1,1,nan,3\nb.png,6,4,x,1,1,2,2\n", "is not four numbers"),
    "infinite_box": (DETECT.encode() + b"a.png,6,4,x,1,1,inf,3\n", "is not four numbers"),
    "word_box": (DETECT.encode() + b"a.png,6,4,x,1,1,two,3\n", "is not four numbers"),
    "long_number": (DETECT.encode() + b"a.png,6,4,x,1,1," + b"9" * 5000 + b",3\n", "is not four numbers"),
    "reversed_box": (DETECT.encode() + b"a.png,6,4,x,3,1,1,3\n", "has no area"),
    "zero_box": (DETECT.encode() + b"a.png,6,4,x,1,1,1,1\n", "has no area"),
    "outside_box": (DETECT.encode() + b"a.png,6,4,x,-3,1,100,3\n", "leaves the 6x4 image"),
    "box_without_class": (DETECT.encode() + b"a.png,6,4,,1,1,2,3\n", "has no label"),
    "bad_size": (DETECT.encode() + b"a.png,six,4,x,1,1,2,3\n", ""),
}


@pytest.mark.parametrize("name", TABLES)
def test_T1_malformed_csv(tmp_path, name):
    content, expected = TABLES[name] if isinstance(TABLES[name], tuple) else (TABLES[name], "")
    root = tmp_path / "data"
    tree(root, "a.png", "b.png")
    picture(tmp_path / "secret.png")
    table(root, content)
    try:
        index = read_data(root, "csv")
        assert all(not r.path.startswith("..") for r in index.records)
        said = problems(index)
    except SaccadeError as error:
        said = str(error)
        assert "\n" not in said
    assert expected in said


def test_T1_csv_outside_boxes_are_cut(tmp_path):
    tree(tmp_path, "a.png")
    index = read_data(table(tmp_path, DETECT + "a.png,6,4,x,-3,1,100,3\n"))
    assert index.records[0].boxes.tolist() == [[0, 1, 6, 3]]
    assert index.records[0].size == (4, 6)


@settings(max_examples=120, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300), st.text(max_size=200).map(str.encode), st.text("a.png,x\n\"';0123|\t-", max_size=200).map(str.encode)
    )
)
def test_T1_fuzzed_csv(data):
    with tempfile.TemporaryDirectory() as folder:
        root = tree(Path(folder), "a.png", "b.png")
        table(root, data)
        for start in (b"", DETECT.encode(), b"image,label,split\n"):
            table(root, start + data)
            try:
                index = read_data(root, "csv")
            except SaccadeError:
                continue
            for record in index.records:
                assert record.path in ("a.png", "b.png")
                if record.boxes is not None:
                    assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()


# ---------------------------------------------------------------------------------------------------------- round trips

NAMES = st.text(st.characters(categories=("L", "N"), include_characters=" _-.", max_codepoint=0x3FF), min_size=1, max_size=8)
CLASSES = st.lists(NAMES.map(str.strip).filter(bool), min_size=1, max_size=4, unique_by=str.lower)


def dataset(root, classes, records, splits, task):
    for k, record in enumerate(records):
        picture(root / record.path, k)
    return Dataset(
        DataIndex(
            format="test",
            root=root,
            classes=classes,
            records=PackedRecords(records),
            splits={k: np.array(v) for k, v in splits.items()},
            tasks=(task,),
        )
    )


def signature(data):
    """What must survive: of every image its pixels (a value each), split and truth."""
    out = {}
    splits = data.index.splits or {"": range(len(data))}
    for split, members in splits.items():
        for i in members:
            record = data.index.records[int(i)]
            truth = None if record.label is None else data.classes[record.label]
            boxes = (
                [] if record.boxes is None else [(data.classes[k], *b) for k, b in zip(record.labels, record.boxes.tolist(), strict=True)]
            )
            out[int(data.image(record)[0, 0, 0])] = (split, truth, boxes)
    return out


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(classes=CLASSES, data=st.data())
def test_T1_imagefolder_written_then_read(classes, data):
    labels = data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=1, max_size=6))
    where = data.draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=len(labels), max_size=len(labels)))
    with_splits = data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        records = [Record(f"in/{k % 2}/same {k // 2}.png", f"id{k}", label=v) for k, v in enumerate(labels)]
        splits = {s: [k for k, w in enumerate(where) if w == s] for s in set(where)} if with_splits else {}
        given_set = dataset(Path(folder) / "src", classes, records, splits, "classify")
        losses = write_data(given_set, Path(folder) / "out", "imagefolder")
        read = Dataset(read_data(Path(folder) / "out", "imagefolder"))
        renamed = any("becomes the folder" in text for text in losses)
        assert renamed or read.classes == classes
        if not renamed:
            assert signature(read) == signature(given_set)
        assert len(read) == len(labels)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(classes=CLASSES, data=st.data())
def test_T1_csv_written_then_read(classes, data):
    count = data.draw(st.integers(1, 5))
    detect = data.draw(st.booleans())
    number = st.floats(0, 100, width=32)
    records = []
    for k in range(count):
        record = Record(f"{k}.png", str(k))
        if detect:
            boxes = data.draw(st.lists(st.tuples(number, number, number, number), max_size=3))
            boxes = [(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in boxes]
            record.boxes = np.array(boxes, np.float32).reshape(-1, 4)
            record.labels = np.array([data.draw(st.integers(0, len(classes) - 1)) for _ in boxes], np.int64)
            record.size = (500, 500)
        else:
            record.label = data.draw(st.integers(0, len(classes) - 1))
        records.append(record)
    splits = {"train": [0], "fold2": list(range(1, count))} if count > 1 and data.draw(st.booleans()) else {}
    with tempfile.TemporaryDirectory() as folder:
        given_set = dataset(Path(folder) / "src", classes, records, splits, "detect" if detect else "classify")
        assert write_data(given_set, Path(folder) / "out", "csv") == []
        read = Dataset(read_data(Path(folder) / "out"))
        assert read.index.format == "csv"
        assert read.classes == classes
        assert signature(read) == signature(given_set)
        assert not read.index.problems


def test_T1_written_images_are_the_same_bytes_and_losses_are_counted(tmp_path):
    box = np.array([[0, 0, 2, 2]], np.float32)
    records = [
        Record("a.png", "a", label=0, boxes=box, labels=np.array([0]), captions=["x", "y"], segments=[[[0, 0, 1, 0, 1, 1]]]),
        Record("b.png", "b"),
    ]
    data = dataset(tmp_path / "src", ["x"], records, {}, "classify")
    losses = "; ".join(write_data(data, tmp_path / "out", "imagefolder"))
    assert "1 boxes" in losses
    assert "2 captions" in losses
    assert "1 outlines" in losses
    assert "1 images without a label are left out" in losses
    assert (tmp_path / "out/x/a.png").read_bytes() == (tmp_path / "src/a.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


def test_T1_class_names_that_are_no_folders(tmp_path):
    classes = ["a/b", "..", "A/B", "con:", ""]
    records = [Record(f"{k}.png", str(k), label=k) for k in range(5)]
    losses = write_data(dataset(tmp_path / "src", classes, records, {}, "classify"), tmp_path / "out", "imagefolder")
    read = read_data(tmp_path / "out")
    assert len(read) == len(read.classes) == 5
    assert sum("becomes the folder" in text for text in losses) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


# ------------------------------------------------------------------------------------------------------------- registry


def test_T1_every_format_module_keeps_the_protocol():
    for name in FORMATS:
        module = format_module(name)
        assert name == module.NAME
        assert module.TITLE
        assert set(module.TASKS) <= {"classify", "detect", "segment", "caption", "pose"}
        assert all(callable(getattr(module, f)) for f in ("sniff", "read", "write"))


def test_T1_unknown_names_get_a_suggestion(tmp_path):
    tree(tmp_path, "a/1.png", "b/2.png")
    with pytest.raises(UsageError, match="did you mean 'imagefolder'"):
        read_data(tmp_path, "imagefoldr")
    with pytest.raises(UsageError, match="did you mean 'classes'"):
        read_data(tmp_path, "imagefolder", clases=["a"])
    with pytest.raises(DataError, match="does not exist"):
        read_data(tmp_path / "nix")
    with pytest.raises(DataError, match="does not exist"):
        read_data(tmp_path / ("x" * 50))
    with pytest.raises(DataError, match="no usable path"):
        read_data(tmp_path / ("x" * 5000))
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="holds nothing"):
        read_data(tmp_path / "other")
    (tmp_path / "other" / "a.zip").touch()
    with pytest.raises(DataError, match=r"1 \.zip"):
        read_data(tmp_path / "other")


def test_T1_nothing_half_written(tmp_path):
    tree(tmp_path / "src", "a/1.png", "b/2.png", "b/3.png")
    data = Dataset(read_data(tmp_path / "src"))
    (tmp_path / "src/b/3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png"):
        write_data(data, tmp_path / "out", "imagefolder")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        write_data(data, tmp_path / "full", "imagefolder")
    with pytest.raises(UsageError, match="holds segment"):
        write_data(data, tmp_path / "out", "masks")


def test_T1_index_memory_is_below_1_kb_an_image(tmp_path):
    rng = np.random.default_rng(0)
    plain = PackedRecords(
        Record(f"train/some class name/IMG_{k:012d}.jpg", f"IMG_{k:012d}", (480, 640), label=k % 9) for k in range(20_000)
    )
    assert plain.nbytes / len(plain) < 1024 / 4
    boxed = PackedRecords(
        Record(
            f"train/IMG_{k:012d}.jpg", str(k), (480, 640), boxes=rng.random((10, 4), np.float32), labels=np.zeros(10, np.int64)
        )
        for k in range(20_000)
    )  # fmt: skip
    annotations = 10 * (4 * 4 + 8)
    assert boxed.nbytes / len(boxed) < 1024 + annotations
    assert boxed[777].boxes.shape == (10, 4)


@pytest.mark.parametrize(
    ("name", "text", "entries", "ignore"),
    [
        ("classes.json", '["a", "b"]', [(0, "a"), (1, "b")], ()),
        ("classes.json", '{"128": "a", "0": "b", "7": "void"}', [(128, "a"), (0, "b")], (7,)),
        ("classes.json", '{"classes": ["a", "b", "c"], "ignore": [1]}', [(0, "a"), (2, "c")], (1,)),
        ("classes.csv", "value,name\n5,a\n6, b c\n", [(5, "a"), (6, "b c")], ()),
        ("classes.txt", "# mine\n0 sky\n255 road surface\n", [(0, "sky"), (255, "road surface")], ()),
        ("classes.txt", "sky\nroad\n", [(0, "sky"), (1, "road")], ()),
    ],
)
def test_T1_class_tables(tmp_path, name, text, entries, ignore):
    (tmp_path / name).write_text(text)
    table = read_class_table(tmp_path / name, of_masks=True)
    assert (table.entries, table.ignore) == (entries, ignore)
