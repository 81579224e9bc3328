"""YOLO text labels: real files by the readme's counts, hostile files, and write-then-read."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import write_data, yolo
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
OUT = io.BytesIO()
Image.new("RGB", (64, 48), (9, 80, 200)).save(OUT, "PNG")
PNG = OUT.getvalue()
GOOD = "1 0.5 0.5 0.25 0.5\n"
NAMES = "names: [cat, dog]\n"


def make(
    folder: Path, labels: dict[str, str | bytes], images=("a.png", "b.png"), config: str | bytes | None = NAMES, name="data.yaml"
) -> Path:
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for image in images:
        (folder / "images" / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / image).write_bytes(PNG)
    for file, text in labels.items():
        (folder / "labels" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "labels" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    if config is not None:
        (folder / name).write_bytes(config if isinstance(config, bytes) else config.encode())
    return folder


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------------ real files


def test_T1_yolo_coco128_counts_of_the_readme(real):
    root = real("coco128")
    index = yolo.read(root)
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 128, "val": 24}
    assert len(index.classes) == 80
    counts = {s: Dataset(index).take(s).class_counts() for s in index.splits}
    orphans = [root / "object_detection/labels/train2017" / f"000000000{n}.txt" for n in (656, 659)]
    lost = [line.split() for p in orphans for line in p.read_text().splitlines()]
    assert counts["train"].sum() == 941 - len(lost)  # the readme counts the two label files without an image too
    assert counts["train"][0] == 261 - sum(row[0] == "0" for row in lost)
    assert counts["val"].sum() == 158
    assert [Path(p.path).stem for p in index.problems] == ["000000000656", "000000000659"]
    assert all("has no image" in one_line(p) for p in index.problems)
    negative = [r for r in index.records if r.image_id in ("000000000250", "000000000508")]
    assert [len(r.boxes) for r in negative] == [0, 0]
    assert index.records[0].segments is None


def test_T1_yolo_coco128_polygons_with_gaps_in_the_ids(real):
    index = yolo.read(real("coco128"), labels="instance_segmentation")
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 100, "val": 24}  # others have no label file, and the YAML says skip
    assert index.category_ids[-1] == 90
    assert index.category_ids != list(range(len(index.classes)))
    record = index.records[0]
    (polygon,) = record.segments[0]
    assert record.boxes[0].tolist() == [*polygon.min(0), *polygon.max(0)]


def test_T1_yolo_and_coco_agree_on_a_shared_image(real):
    """val2017 000000000139 is in coco128 (YOLO) and in coco_mini (COCO JSON): the same boxes, which two projects made."""
    from saccade.data.formats import coco

    ours = next(r for r in yolo.read(real("coco128")).records if r.image_id == "000000000139")
    index = coco.read(real("coco_mini") / "annotations" / "instances_val2017.json")
    truth = next(r for r in index.records if r.path.endswith("000000000139.jpg"))
    assert ours.size == truth.size
    key = lambda b: tuple(np.round(b))  # noqa: E731
    a, b = np.array(sorted(ours.boxes.tolist(), key=key)), np.array(sorted(truth.boxes.tolist(), key=key))
    assert len(a) == len(b)
    assert np.abs(a - b).max() < 1


# ------------------------------------------------------------------------------------------------------- what it means


def test_T1_yolo_numbers_are_centre_and_size_of_the_image(tmp_path):
    index = yolo.read(make(tmp_path, {"a.txt": GOOD + "0 0 0 0.5 0 0.5 1\n"}))
    a, b = index.records
    assert a.boxes.tolist() == [[24, 12, 40, 36], [0, 0, 32, 48]]
    assert a.labels.tolist() == [1, 0]
    assert a.segments[0] is None
    assert a.segments[1][0].tolist() == [[0, 0], [32, 0], [32, 48]]
    assert b.boxes.shape == (0, 4)  # no label file: nothing to see
    assert b.segments == []


def test_T1_yolo_layouts(tmp_path):
    split = make(tmp_path / "a", {"train/a.txt": GOOD, "valid/b.txt": GOOD}, ("train/a.png", "valid/b.png"))
    assert {s: v.tolist() for s, v in yolo.read(split).splits.items()} == {"train": [0], "val": [1]}
    for part in ("train", "valid"):
        make(tmp_path / "b" / part, {"a.txt": GOOD}, ("a.png",), None)
    (tmp_path / "b" / "data.yaml").write_text(NAMES)
    index = yolo.read(tmp_path / "b")
    assert {s: [index.records[i].path for i in v] for s, v in index.splits.items()} == {
        "train": ["train/images/a.png"], "val": ["valid/images/a.png"],
    }  # fmt: skip
    assert [r.image_id for r in index.records] == ["train/images/a.png", "valid/images/a.png"]
    beside = tmp_path / "c"
    beside.mkdir()
    for name, text in (("a.png", PNG), ("a.txt", GOOD.encode()), ("obj.names", b"cat\ndog\n"), ("train.txt", b"data/obj/a.png\nzzz.png\n")):
        (beside / name).write_bytes(text)
    index = yolo.read(beside)
    assert index.classes == ["cat", "dog"]
    assert index.splits["train"].tolist() == [0]
    assert "train.txt: line 2: names 'zzz.png'" in one_line(index.problems[0])


def test_T1_yolo_names(tmp_path):
    index = yolo.read(make(tmp_path / "gaps", {"a.txt": "7 0.5 0.5 0.1 0.1\n"}, config="names: {3: cat, 7: no}\n"))
    assert (index.classes, index.category_ids, index.records[0].labels.tolist()) == (["cat", "no"], [3, 7], [1])
    index = yolo.read(make(tmp_path / "none", {"a.txt": "2 0.5 0.5 0.1 0.1\n"}, config=None))
    assert index.classes == ["0", "1", "2"]
    index = yolo.read(make(tmp_path / "text", {"a.txt": GOOD}, config="cat\nsea lion\n", name="classes.txt"))
    assert index.classes == ["cat", "sea lion"]


def test_T1_yolo_sniff(tmp_path):
    assert yolo.sniff(tmp_path) is None
    make(tmp_path, {"a.txt": "hello world\n"})
    assert yolo.sniff(tmp_path) is None
    (tmp_path / "labels" / "a.txt").write_text(GOOD)
    assert yolo.sniff(tmp_path) == "1 label file of lines 'class x y w h' in labels"


# ------------------------------------------------------------------------------------------------------------- bad files

FLAWED = {
    "words": ("cat 0.5 0.5 0.1 0.1", 1, "not numbers"),
    "four numbers": ("0 0.5 0.5 0.1", 1, "has 4 numbers"),
    "six numbers": ("0 0.5 0.5 0.1 0.1 0.9", 1, "has 6 numbers"),
    "an even polygon": ("0 0.1 0.1 0.5 0.1 0.5 0.9 0.7", 1, "has 8 numbers"),
    "one number": ("0", 1, "has 1 numbers"),
    "NaN": ("0 nan 0.5 0.1 0.1", 1, "NaN or infinity"),
    "infinity": ("0 0.5 inf 0.1 0.1", 1, "NaN or infinity"),
    "pixels": ("0 320 240 50 60", 1, "out of 0..1"),
    "negative": ("0 -0.5 0.5 0.1 0.1", 1, "out of 0..1"),
    "no area": ("0 0.5 0.5 0 0.1", 1, "no area"),
    "negative side": ("0 0.5 0.5 -0.1 0.1", 1, "no area"),
    "outside": ("0 1.05 0.5 0.05 0.1", 1, "no area inside"),
    "a line as polygon": ("0 0.1 0.5 0.2 0.5 0.3 0.5", 1, "no area inside"),
    "smaller than float32": ("0 0.9 0.5 1e-12 0.1", 1, "too small"),
    "id beyond the names": ("2 0.5 0.5 0.1 0.1", 1, "class id 2 has no name"),
    "id a fraction": ("0.5 0.5 0.5 0.1 0.1", 1, "not a whole number"),
    "id negative": ("-1 0.5 0.5 0.1 0.1", 1, "not a whole number"),
    "id NaN": ("nan 0.5 0.5 0.1 0.1", 1, "not a whole number"),
    "id huge": ("1e300 0.5 0.5 0.1 0.1", 1, "not a whole number"),
    "over the border": ("0 0.02 0.5 0.2 0.1", 2, "clipped"),
    "rounding at the border": ("0 0.05 0.5 0.1001 0.1", 2, ""),
    "id as 0.0": ("0.0 0.5 0.5 0.1 0.1", 2, ""),
    "tabs and blanks": ("0\t0.5  0.5 0.1\t0.1  ", 2, ""),
    "an empty line": ("", 1, ""),
}


@pytest.mark.parametrize("name", FLAWED)
def test_T1_yolo_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    line, objects, message = FLAWED[name]
    index = yolo.read(make(tmp_path, {"a.txt": f"{line}\n{GOOD}"}))
    record = index.records[0]
    assert len(record.boxes) == len(record.labels) == objects
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "a.txt" in t for t in texts) if message else texts == []
    assert (record.boxes >= 0).all()
    assert (record.boxes[:, 2:] <= [64, 48]).all()


BROKEN_LABELS = {
    "bytes": bytes(range(128, 256)),
    "a NUL": b"0 0.5\x00 0.5 0.1 0.1",
    "utf-16": GOOD.encode("utf-16"),
    "latin-1": "ä 0.5 0.5 0.1 0.1".encode("latin-1"),
}


@pytest.mark.parametrize("name", BROKEN_LABELS)
def test_T1_yolo_an_unreadable_label_file_drops_its_image(tmp_path, name):
    index = yolo.read(make(tmp_path, {"a.txt": BROKEN_LABELS[name], "b.txt": GOOD}))
    assert [r.image_id for r in index.records] == ["b"]
    assert "a.txt" in one_line(index.problems[0])


def test_T1_yolo_a_broken_image_is_dropped_and_a_folder_named_jpg_ignored(tmp_path):
    root = make(tmp_path, {"a.txt": GOOD, "b.txt": GOOD})
    (root / "images" / "a.png").write_bytes(b"not an image")
    (root / "images" / "c.jpg").mkdir()
    index = yolo.read(root)
    assert [r.image_id for r in index.records] == ["b"]
    assert "a.png" in one_line(index.problems[0])


BROKEN_NAMES = {
    "not YAML": "names: [cat, dog\n",
    "bytes": b"names: [\xff\xfe]",
    "a word": "names: cat\n",
    "empty": "names: []\n",
    "nested": "names: [[cat], dog]\n",
    "keys are words": "names: {cat: 0, dog: 1}\n",
    "keys negative": "names: {-1: cat, 1: dog}\n",
    "key huge": "names: {99999999999999999999: cat, 1: dog}\n",
    "nc contradicts": "nc: 80\nnames: [cat, dog]\n",
    "null name": "names: {0: null, 1: dog}\n",
    "aliases": "a: &a [x]\nnames: [*a, *a]\n",
    "a Python object": "names: !!python/object/apply:os.system ['true']\n",
    "tabs": "names:\n\t- cat\n",
    "deep": "names: " + "[" * 5000 + "\n",
    "deep again and again": "names: [" + ("[" * 300 + "]" * 300 + ",\n") * 200 + "]\n",
    "of other data": "names: [only]\n",
}


@pytest.mark.parametrize("name", BROKEN_NAMES)
def test_T1_yolo_broken_names_are_one_line(tmp_path, name):
    with pytest.raises(DataError) as caught:
        yolo.read(make(tmp_path, {"a.txt": GOOD}, config=BROKEN_NAMES[name]))
    assert "data.yaml" in one_line(caught.value)


def test_T1_yolo_deep_brackets_are_refused_at_once(tmp_path):
    """PyYAML looks at every open bracket for every character: 120 kB of them took it minutes."""
    with pytest.raises(DataError, match="nested deeper than 16"):
        yolo.read(make(tmp_path, {"a.txt": GOOD}, config=BROKEN_NAMES["deep again and again"]))


def test_T1_yolo_names_of_other_data_are_an_error_a_few_stray_ids_are_not(tmp_path):
    stray = "5 0.5 0.5 0.1 0.1\n"
    index = yolo.read(make(tmp_path, {"a.txt": GOOD * 3 + stray}))
    assert len(index.records[0].boxes) == 3
    with pytest.raises(DataError, match=r"names 2 classes, but 4 of 7 objects have other ids \(the first: 5\)"):
        yolo.read(make(tmp_path, {"a.txt": GOOD * 3 + stray * 4}))


def test_T1_yolo_nothing_usable(tmp_path):
    with pytest.raises(DataError, match="holds no YOLO labels"):
        yolo.read(tmp_path)
    with pytest.raises(DataError, match="holds no YOLO labels"):
        yolo.read(tmp_path / "missing")
    with pytest.raises(DataError, match="not one usable image"):
        yolo.read(make(tmp_path, {"a.txt": GOOD}, ()))


@FUZZ
@given(
    st.binary(max_size=120) | st.text(alphabet="0123456789.-+e nainf\t\n", max_size=120), st.binary(max_size=60) | st.just(NAMES.encode())
)
def test_T1_yolo_any_bytes_give_data_or_one_line(tmp_path_factory, label, config):
    root = make(tmp_path_factory.mktemp("fuzz"), {"a.txt": label, "b.txt": GOOD}, config=config)
    try:
        index = yolo.read(root)
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for k in range(len(index)):
        target = Dataset(index)[k].target
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
        assert all(0 <= v < len(index.classes) for v in target["labels"].tolist())


# ------------------------------------------------------------------------------------------------------ write then read


@st.composite
def records(draw, segmented):
    out = []
    for k in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 3))
        pairs = st.lists(st.tuples(st.floats(0, 30, width=32), st.floats(0, 20, width=32)), min_size=count, max_size=count)
        corner = np.array(draw(pairs)).reshape(-1, 2)
        boxes = np.hstack([corner, corner + np.array(draw(pairs)).reshape(-1, 2) + 1]).astype(np.float32)
        segments = [[np.array([b[:2], b[[2, 1]], b[2:]])] for b in boxes]
        out.append(Record(
            f"p{k}.png", f"p{k}", (48, 64), boxes=boxes, segments=segments if segmented else None,
            labels=np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), np.int64),
        ))  # fmt: skip
    return out


@FUZZ
@given(st.booleans().flatmap(records), st.permutations(["no", "1e3: x", "ö 'q'"]), st.booleans())
def test_T1_yolo_write_then_read_gives_the_same(tmp_path_factory, made, classes, split):
    folder = tmp_path_factory.mktemp("write")
    for record in made:
        (folder / record.path).write_bytes(PNG)
    splits = {"train": np.arange(1), "val": np.arange(1, len(made))} if split else {}
    index = DataIndex("made", folder, classes, PackedRecords(made), tasks=("detect",), splits=splits)
    assert write_data(Dataset(index), folder / "out", "yolo") == []
    again = yolo.read(folder / "out")
    assert again.problems == []
    assert again.classes == classes
    assert {s: v.tolist() for s, v in again.splits.items()} == {s: v.tolist() for s, v in splits.items() if len(v)}
    for before, after in zip(made, again.records, strict=True):
        assert before.image_id == after.image_id
        assert np.allclose(before.boxes, after.boxes, atol=1e-5)
        assert np.array_equal(before.labels, after.labels)
        for s, t in zip(before.segments or [], after.segments or [], strict=True):
            assert np.allclose(s[0], t[0], atol=1e-5)


def test_T1_yolo_write_names_what_is_lost(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    triangle = np.array([[1, 1], [9, 1], [9, 9]], np.float32)
    record = Record(
        "a.png", "a", (48, 64), boxes=np.array([[1, 1, 9, 9], [0, 0, 64, 48]], np.float32), labels=np.array([0, 0]),
        iscrowd=np.array([False, True]), segments=[[triangle, triangle / 2], {"size": [48, 64], "counts": [0, 3072]}],
    )  # fmt: skip
    splits = {"train": np.array([0]), "trainval": np.array([0])}
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords([record]), tasks=("detect",), splits=splits)
    losses = write_data(Dataset(index), tmp_path / "out", "yolo")
    assert [t.split(" ", 1)[0] for t in losses] == ["1", "1", "1", "1"]
    assert any("crowd" in t for t in losses)
    assert any("further polygons" in t for t in losses)
    assert any("run-length" in t for t in losses)
    assert any("trainval" in t for t in losses)
    assert (tmp_path / "out" / "images" / "train" / "a.png").read_bytes() == PNG
    assert yolo.read(tmp_path / "out").records[0].boxes.tolist() == [[1, 1, 9, 9], [0, 0, 64, 48]]
