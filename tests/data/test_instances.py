"""Instance PNGs: VOC's and Cityscapes' kinds, hostile files, write-then-read."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.compare import differences
from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, instance_png, read_data, write_data
from saccade.data.polygons import mask_to_rle, rasterize
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, SaccadeError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
IDS = np.array([[0, 7, 7, 0, 3], [0, 7, 0, 0, 3], [9, 0, 0, 0, 0]])  # 3: right column; 7: an L; 9: one pixel
BOXES = [[4, 0, 5, 2], [1, 0, 3, 2], [0, 2, 1, 3]]


def save(path, values, dtype=np.uint8, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values).astype(dtype))
    if palette:
        picture = picture.convert("L")
        picture.putpalette(list(np.random.default_rng(0).permutation(768) % 256))
    picture.save(path, format="PNG")


def photo(path, size=(3, 5)):
    save(path, np.zeros((*size, 3)))


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def text(index):
    return "\n".join(map(one_line, index.problems))


# ------------------------------------------------------------------------------------------------------- what it means


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_T1_instances_of_one_class(tmp_path, dtype):
    photo(tmp_path / "images/a.jpg")
    save(tmp_path / "instances/a.png", IDS, dtype)
    assert detect_format(tmp_path) == ("instances", "1 images with a PNG of instance numbers")
    index = read_data(tmp_path)
    record = index.records[0]
    assert (index.classes, index.tasks, record.labels.tolist()) == (["object"], ("detect",), [0, 0, 0])
    assert record.boxes.tolist() == BOXES
    for number, segment in zip((3, 7, 9), record.segments, strict=True):
        np.testing.assert_array_equal(rasterize(segment, (3, 5)), number == IDS)
        assert segment == mask_to_rle(number == IDS)  # the code that pycocotools' encoder gives
    (tmp_path / "classes.txt").write_text("cell\n")
    assert read_data(tmp_path).classes == ["cell"]


def test_T1_instances_of_voc(tmp_path):
    numbers, classes = IDS.copy(), np.where(IDS == 7, 12, np.where(IDS > 0, 15, 0))
    numbers[1, 3] = classes[1, 3] = 255  # the border
    photo(tmp_path / "JPEGImages/a.jpg")
    photo(tmp_path / "JPEGImages/unmarked.jpg")
    save(tmp_path / "SegmentationObject/a.png", numbers, palette=True)
    save(tmp_path / "SegmentationClass/a.png", classes, palette=True)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    index = read_data(tmp_path, "instances")
    record = index.records[0]
    assert [index.classes[k] for k in record.labels] == ["person", "dog", "person"]
    assert (len(index), len(index.classes), record.boxes.tolist()) == (1, 20, BOXES)
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0]}
    assert "line 2: names 'b', which has no image here" in text(index)
    classes[0, 4] = 1
    save(tmp_path / "SegmentationClass/a.png", classes, palette=True)
    assert "the objects 3 have several classes" in text(read_data(tmp_path, "instances"))


def test_T1_instances_of_voc_beside_xml_are_left_to_voc(tmp_path):
    photo(tmp_path / "JPEGImages/a.jpg")
    save(tmp_path / "SegmentationObject/a.png", IDS)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    assert detect_format(tmp_path)[0] == "voc"


def test_T1_instances_of_cityscapes(tmp_path):
    numbers = np.array([[26000, 26000, 26001, 7], [24000, 0, 26001, 26]])  # 7 is road, 26 a group of cars: no single objects
    photo(tmp_path / "leftImg8bit/train/bonn/b_1_leftImg8bit.png", (2, 4))
    save(tmp_path / "gtFine/train/bonn/b_1_gtFine_instanceIds.png", numbers, np.uint16)
    save(tmp_path / "gtFine/train/bonn/b_1_gtFine_labelIds.png", numbers // 1000)
    assert detect_format(tmp_path)[0] == "instances"
    index = read_data(tmp_path)
    assert [index.classes[k] for k in index.records[0].labels] == ["person", "car", "car"]
    assert index.records[0].boxes.tolist() == [[0, 1, 1, 2], [0, 0, 2, 1], [2, 0, 3, 2]]
    assert list(index.splits) == ["train"]
    assert len(index.classes) == 10
    flat = tmp_path / "flat"
    photo(flat / "images/a.png", (2, 4))
    save(flat / "instances/a.png", numbers, np.uint16)
    assert read_data(flat, thousands=True).classes == ["24", "26"]


def test_T1_instances_beside_the_image(tmp_path):
    photo(tmp_path / "a.png")
    save(tmp_path / "a_instances.png", IDS)
    assert len(read_data(tmp_path, "instances").records[0].boxes) == 3


@pytest.mark.parametrize("name", ["camvid", "wbc_segmentation", "bccd", "mnist", "coco128", "coco_mini", "near_duplicates", "orl_faces"])
def test_T1_instances_other_sets(real, name):
    assert instance_png.sniff(real(name)) is None


# -------------------------------------------------------------------------------------------------------------- hostile


def png(values, dtype=np.uint8):
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "a.png", values, dtype)
        return (Path(folder) / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("instances/a.png", b"", "a.png: is empty"),
        ("instances/a.png", b"\x89PNG\r\n\x1a\n", "a.png: "),
        ("instances/a.png", b"GIF89a", "a.png: "),
        ("instances/a.png", b"not a picture", "a.png: is no image"),
        ("instances/a.png", png(np.zeros((4, 5))), "a.png: is 5x4, its image 5x3"),
        ("instances/a.png", png(np.arange(45).reshape(3, 5, 3)), "a.png: is a mask in colours"),
        ("instances/a.png", png(IDS)[:-30], "a.png: "),
        ("instances/a.png", png(IDS)[:40], "a.png: "),
        ("images/a.jpg", b"", "a.jpg: is empty"),
        ("images/a.jpg", b"x" * 100, "a.jpg: is no image"),
        ("classes/a.png", b"", "classes/a.png: is empty"),
        ("classes/a.png", png(np.zeros((3, 6))), "classes/a.png: is 6x3"),
        ("classes/a.png", png(np.arange(45).reshape(3, 5, 3)), "classes/a.png: is a mask in colours"),
        ("classes.json", b"{", "classes.json: line 1 column 2: is not JSON"),
        ("classes.json", b"[" * 100_000, "classes.json: is nested too deeply"),
        ("classes.json", b'{"classes": {"x": "cat"}}', "classes.json: 'x' is no mask value"),
        ("classes.txt", b"\xff\xff", "classes.txt: byte 0: is not UTF-8"),
    ],
)
def test_T1_instances_malformed(tmp_path, file, content, message):
    photo(tmp_path / "images/a.jpg")
    photo(tmp_path / "images/b.jpg")
    for stem in "ab":
        save(tmp_path / f"instances/{stem}.png", IDS)
        save(tmp_path / f"classes/{stem}.png", IDS > 0)
    (tmp_path / file).write_bytes(content)
    try:
        index = read_data(tmp_path, "instances")
        assert [r.path for r in index.records] == ["images/b.jpg"]
        said = text(index)
    except DataError as error:
        said = str(error)
        assert file.startswith("classes.")
    assert message in said
    assert "\n" not in said


def test_T1_instances_objects_without_a_class(tmp_path):
    photo(tmp_path / "images/a.jpg")
    save(tmp_path / "instances/a.png", IDS)
    save(tmp_path / "classes/a.png", np.where(IDS == 7, 2, 0))
    index = read_data(tmp_path)
    assert (index.classes, index.records[0].boxes.tolist()) == (["2"], BOXES[1:2])
    assert "the objects 3, 9 have no class in classes/a.png; skipped" in text(index)
    (tmp_path / "classes.json").write_text('{"0": "background", "1": "cat"}')
    index = read_data(tmp_path)
    assert (index.classes, len(index.records[0].boxes)) == (["cat"], 0)
    assert "holds an object of the class 2, which has no name; skipped" in text(index)


def test_T1_instances_noise_is_refused(tmp_path):
    photo(tmp_path / "images/a.jpg", (150, 150))
    save(tmp_path / "instances/a.png", np.random.default_rng(0).permutation(150 * 150).reshape(150, 150), np.uint16)
    with pytest.raises(DataError, match="not one usable image") as error:
        read_data(tmp_path, "instances")
    assert "holds 22499 numbers: not one for each object" in str(error.value)
    with pytest.raises(DataError, match="holds no image with a PNG"):
        read_data(tmp_path / "images", "instances")


@FUZZ
@given(st.data())
def test_T1_instances_mutated_files(data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photo(root / "images/a.jpg")
        save(root / "instances/a.png", IDS, np.uint16)
        save(root / "classes/a.png", IDS > 0)
        (root / "classes.json").write_text('{"classes": {"1": "cat"}}')
        path = root / data.draw(st.sampled_from(["instances/a.png", "classes/a.png", "classes.json"]))
        good = path.read_bytes()
        at = data.draw(st.integers(0, len(good)))
        path.write_bytes(good[:at] + data.draw(st.binary(max_size=6)) + good[at + data.draw(st.integers(0, 4)) :])
        try:
            Dataset(read_data(root, "instances"))[0]
        except SaccadeError as error:
            one_line(error)


# ---------------------------------------------------------------------------------------------------------- round trip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_T1_instances_write_then_read(seed, in_splits):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = []
        for k in range(3):
            numbers = rng.integers(0, rng.integers(1, 6), (9, 12))
            photo(root / f"{k}.png", (9, 12))
            ids = [i for i in np.unique(numbers) if i]
            segments = [mask_to_rle(numbers == i) for i in ids]
            boxes = []
            for i in ids:
                y, x = np.nonzero(numbers == i)
                boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
            labels = rng.integers(0, 3, len(ids))
            boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
            records.append(Record(f"{k}.png", f"{k}", (9, 12), boxes=boxes, labels=labels, segments=segments))
        splits = {"train": np.array([0, 2]), "test": np.array([1])} if in_splits else {}
        before = Dataset(DataIndex("t", root, ["b", "a", "void"], PackedRecords(records), splits, ("detect",)))
        assert write_data(before, root / "out", "instances") == []
        after = Dataset(read_data(root / "out"))
        assert after.index.format == "instances"
        assert after.classes == before.classes
        assert differences(before, after, instance_png.HOLDS) == []
        by_name = {r.path.rpartition("/")[2]: r for r in after.index.records}
        for record in records:
            again = by_name[record.path]
            assert again.boxes.tolist() == record.boxes.tolist()
            assert again.labels.tolist() == record.labels.tolist()
            assert again.segments == record.segments


def test_T1_instances_overlaps_are_counted(tmp_path):
    photo(tmp_path / "a.png", (10, 10))

    def square(x1, y1, x2, y2):
        return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float32)]

    boxes = np.array([[0, 0, 6, 6], [4, 4, 8, 8], [5, 5, 7, 7], [4, 4, 8, 8], [1, 1, 2, 2], [0, 8, 3, 9.5]], dtype=np.float32)
    segments = [square(*b) for b in boxes[:4]] + [None, square(0, 8, 3, 10)]
    record = Record("a.png", "a", (10, 10), boxes=boxes, labels=np.zeros(6, dtype=int), segments=segments)
    data = Dataset(DataIndex("t", tmp_path, ["x"], PackedRecords([record]), tasks=("detect",)))
    losses = write_data(data, tmp_path / "out", "instances")
    assert losses == [
        "1 boxes of objects without an outline are left out",
        "1 boxes and outlines of objects that others cover wholly are left out",
        "2 outlines lose the pixels that smaller objects cover: a PNG holds one object a pixel",
        "1 boxes become the extent of their outlines' pixels",
    ]
    after = Dataset(read_data(tmp_path / "out"))
    assert len(after.record(0).boxes) == 4
    assert differences(data, after, instance_png.HOLDS, losses) == []
    assert len(differences(data, after, instance_png.HOLDS)) == 5


def test_T1_instances_of_boxes_only_are_refused(tmp_path):
    photo(tmp_path / "a.png")
    record = Record("a.png", "a", (3, 5), boxes=np.array([[0, 0, 2, 2]], dtype=np.float32), labels=np.array([0]))
    with pytest.raises(UsageError, match="these data have boxes only"):
        write_data(Dataset(DataIndex("t", tmp_path, ["x"], PackedRecords([record]), tasks=("detect",))), tmp_path / "out", "instances")
    assert not (tmp_path / "out").exists()
