"""Class masks in colours: tables of four kinds, colours read off, hostile files, write-then-read."""

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.compare import differences
from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, mask_color, read_data, write_data
from saccade.data.images import nearest_colors, read_color_mask, read_colors
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, SaccadeError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SKY, ROAD, VOID = (128, 128, 128), (128, 64, 128), (0, 0, 0)
CAMVID = "128 128 128\tSky\n128 64 128\tRoad way\n0 0 0\tVoid\n"
PIXELS = np.array([[SKY, SKY, ROAD, ROAD], [SKY, VOID, ROAD, ROAD]], dtype=np.uint8)
LABELS = [[0, 0, 1, 1], [0, -100, 1, 1]]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def make(root, count=3, table=("label_colors.txt", CAMVID), pixels=PIXELS):
    for k in range(count):
        save(root / f"images/{k}.png", np.full((*np.shape(pixels)[:2], 3), k))
        save(root / f"masks/{k}.png", pixels)
    if table:
        (root / table[0]).write_bytes(table[1] if isinstance(table[1], bytes) else table[1].encode())
    return root


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def text(index):
    return "\n".join(map(one_line, index.problems))


# ------------------------------------------------------------------------------------------------------- what it means


@pytest.mark.parametrize(
    "table",
    [
        ("label_colors.txt", CAMVID),
        ("label_colors.txt", "128 128 128 Sky\r\n128, 64, 128  Road way\r\n0 0 0 unlabelled\r\n"),
        ("class_dict.csv", "name,r,g,b\nSky,128,128,128\nRoad way,128,64,128\nVoid,0,0,0\n"),
        ("class_dict.csv", '"Sky", 128, 128, 128\nRoad way, 128, 64, 128\nignore, 0, 0, 0\n'),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nSky:128,128,128::\nRoad way:128,64,128:a,b:c\nvoid:0,0,0::\n"),
        ("classes.json", '{"Sky": [128, 128, 128], "Road way": [128, 64, 128], "void": [0, 0, 0]}'),
    ],
)
def test_T1_colormasks_tables(tmp_path, table):
    root = make(tmp_path, table=table)
    assert detect_format(root) == ("colormasks", f"3 pairs of image and mask in colours, {table[0]}")
    index = read_data(root)
    assert (index.classes, len(index), index.tasks) == (["Sky", "Road way"], 3, ("segment",))
    assert Dataset(index)[1].target["mask"].tolist() == LABELS
    assert text(index) == ""


def test_T1_colormasks_layouts_are_those_of_masks(tmp_path):
    for split, stem in (("train", "a"), ("val", "b")):  # Kaggle's CamVid
        save(tmp_path / f"{split}/{stem}.png", np.zeros((2, 4, 3)))
        save(tmp_path / f"{split}_labels/{stem}_L.png", PIXELS)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nSky,128,128,128\nRoad,128,64,128\nVoid,0,0,0\n")
    index = read_data(tmp_path)
    assert (index.format, {s: v.tolist() for s, v in index.splits.items()}) == ("colormasks", {"train": [0], "val": [1]})
    assert index.records[0].mask == "train_labels/a_L.png"
    assert text(index) == ""


def test_T1_colormasks_a_name_may_have_two_colours(tmp_path):
    table = ("class_dict.csv", "name,r,g,b\nway,128,128,128\nway,128,64,128\nlane,0,0,0\n")
    index = read_data(make(tmp_path, table=table))
    assert index.classes == ["way", "lane"]
    assert Dataset(index)[0].target["mask"].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]


def test_T1_colormasks_unknown_colour(tmp_path):
    pixels = PIXELS.copy()
    pixels[0, 0] = (127, 66, 128)
    root = make(tmp_path, pixels=pixels)
    with pytest.raises(DataError, match=r"0\.png: the mask's colour #7f4280 is no class \(known colours: #000000, #804080, #808080"):
        Dataset(read_data(root))[0]
    assert Dataset(read_data(root, nearest=True))[0].target["mask"][0, 0] == 1
    with pytest.raises(DataError, match="all colours are ignored"):
        read_data(root, ignore=["sky", "ROAD WAY"])


def test_T1_colormasks_without_a_table(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.array([(255, 0, 0), (0, 0, 255), (0, 0, 0)], dtype=np.uint8)[rng.integers(0, 3, (60, 80))]
    smooth = pixels.copy()
    smooth[5, 5], smooth[9, 9], smooth[1, 1] = (128, 0, 126), (90, 0, 0), (3, 2, 250)
    for k in range(8):
        save(tmp_path / f"images/{k}.png", np.zeros((60, 80, 3)))
        save(tmp_path / f"masks/{k}.png", smooth if k == 3 else pixels)
    index = read_data(tmp_path)
    assert (index.classes, index.mask_nearest) == (["#000000", "#0000FF", "#FF0000"], True)
    assert "other colours, #0302fa, #5a0000, #80007e: each goes to the nearest class" in text(index)
    target = Dataset(index)[3].target["mask"]
    assert (target[1, 1], target[9, 9]) == (1, 0)
    smooth[20, 20] = (0, 255, 0)  # rare, and no mixture of the others: a class
    save(tmp_path / "masks/3.png", smooth)
    assert read_data(tmp_path).classes == ["#000000", "#0000FF", "#00FF00", "#FF0000"]


def test_T1_colormasks_and_masks_keep_apart(tmp_path):
    grey = make(tmp_path / "grey", table=None, pixels=np.repeat(np.array([[0, 255]]), 3).reshape(1, 2, 3))
    assert detect_format(grey)[0] == "masks"
    palette = tmp_path / "palette"
    for k in range(2):
        save(palette / f"images/{k}.png", np.zeros((2, 2, 3)))
        picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
        picture.putpalette([255, 0, 0, 0, 255, 0])
        (palette / "masks").mkdir(exist_ok=True)
        picture.save(palette / f"masks/{k}.png")
    assert detect_format(palette)[0] == "masks"
    photo = tmp_path / "photo"
    save(photo / "images/a.png", np.zeros((64, 64, 3)))
    save(photo / "masks/a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    assert mask_color.sniff(photo) is None


@pytest.mark.parametrize("name", ["camvid", "wbc_segmentation", "bccd", "mnist", "near_duplicates", "coco128"])
def test_T1_colormasks_other_sets(real, name):
    assert mask_color.sniff(real(name)) is None


def test_T1_color_lookup_agrees_with_a_plain_one(tmp_path):
    rng = np.random.default_rng(1)
    colors = {int(c): k for k, c in enumerate(rng.choice(2**24, 40, replace=False))}
    known = np.array(list(colors))
    packed = known[rng.integers(0, 40, (30, 50))]
    packed[3, :7] = rng.integers(0, 2**24, 7)
    save(tmp_path / "a.png", np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1))
    np.testing.assert_array_equal(read_colors(tmp_path / "a.png"), packed)

    def nearest(color):
        def far(other):
            return sum(((color >> s & 255) - (other >> s & 255)) ** 2 for s in (0, 8, 16))

        return min(colors, key=far)

    truth = [[colors[nearest(int(c))] for c in row] for row in packed]
    np.testing.assert_array_equal(read_color_mask(tmp_path / "a.png", colors, nearest=True), truth)
    strange = packed[3, :7].astype(np.uint32)
    assert [int(known[k]) for k in nearest_colors(strange, known.astype(np.uint32))] == [nearest(int(c)) for c in strange]


def test_T1_voc_palette_has_a_colour_for_every_number():
    assert len({mask_color.voc_color(k) for k in range(70_000)}) == 70_000


# -------------------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (("label_colors.txt", ""), "label_colors.txt: holds no colour"),
        (("label_colors.txt", "1 2 Sky\n"), "line 1: is neither"),
        (("label_colors.txt", "1 2 300 Sky\n"), "line 1: has no colour of three whole numbers"),
        (("label_colors.txt", "1 2 3000000000000000000000 Sky\n"), "line 1: has no colour"),
        (("label_colors.txt", b"\xff\xfe\x00"), "label_colors.txt: byte 0: is not UTF-8"),
        (("label_colors.txt", "128 128 128 Sky\n128 128 128 Road\n"), "line 2: gives the colour 128 128 128 to 'Sky' and 'Road'"),
        (("labelmap.txt", "Sky:1,2::\n"), "line 1: is neither"),
        (("labelmap.txt", ":1,2,3::\n"), "line 1: has a colour without a name"),
        (("class_dict.csv", "name,r,g,b\n"), "class_dict.csv: holds no colour"),
        (("class_dict.csv", "Sky,1,2\n"), "row 1: has no colour"),
        (("class_dict.csv", "Sky,1,2,-3\n"), "row 1: has no colour"),
        (("class_dict.csv", "Sky,1,2,3\nRoad,nan,1e9,0.5\n"), "row 2: has no colour"),
        (("class_dict.csv", '"' + "a" * 200_000), "class_dict.csv: is no CSV"),
        (("class_dict.csv", "\n".join(f"c{k},{k % 256},{k // 256},1" for k in range(5000))), "holds more than 4096 colours"),
        (("classes.json", "{"), "classes.json: line 1 column 2: is not JSON"),
        (("classes.json", "[" * 100_000), "classes.json: is nested too deeply"),
        (("classes.json", '["Sky"]'), "classes.json: is no table of colours"),
        (("classes.json", '{"Sky": [1, 2, true]}'), "'Sky': has no colour"),
        (("classes.json", '{"Sky": [1, 2, 1e400]}'), "'Sky': has no colour"),
        (("classes.json", '{"void": [1, 2, 3]}'), "classes.json: all colours are ignored"),
    ],
)
def test_T1_colormasks_broken_tables(tmp_path, table, message):
    with pytest.raises(DataError) as error:
        read_data(make(tmp_path, table=table), "colormasks")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_T1_colormasks_too_many_colours(tmp_path):
    pixels = np.stack(np.meshgrid(np.arange(40), np.arange(40), [7]), -1).reshape(40, 40, 3) * 5
    with pytest.raises(DataError, match="the masks hold 1600 colours: no classes"):
        read_data(make(tmp_path, table=None, pixels=pixels), "colormasks")


def test_T1_colormasks_deep_and_broken_masks(tmp_path):
    root = make(tmp_path)
    Image.fromarray(np.zeros((2, 4), np.uint16)).save(root / "masks/0.png")
    (root / "masks/1.png").write_bytes(b"\x89PNG")
    data = Dataset(read_data(root, "colormasks"))
    with pytest.raises(DataError, match=r"0\.png: is a mask of mode I"):
        data[0]
    with pytest.raises(DataError, match=r"1\.png: "):
        data[1]
    assert data[2].target["mask"].tolist() == LABELS


@FUZZ
@given(st.data())
def test_T1_colormasks_mutated_tables(data):
    with tempfile.TemporaryDirectory() as folder:
        name = data.draw(st.sampled_from(mask_color.TABLES))
        good = {
            "class_dict.csv": b"name,r,g,b\nSky,128,128,128\nRoad,128,64,128\nVoid,0,0,0\n",
            "label_colors.txt": CAMVID.encode(),
            "labelmap.txt": b"Sky:128,128,128::\nRoad:128,64,128::\nvoid:0,0,0::\n",
            "classes.json": b'{"Sky": [128, 128, 128], "Road": [128, 64, 128], "void": [0, 0, 0]}',
        }[name]
        at = data.draw(st.integers(0, len(good)))
        bad = good[:at] + data.draw(st.binary(max_size=6)) + good[at + data.draw(st.integers(0, 4)) :]
        root = make(Path(folder), count=1, table=(name, bad))
        try:
            Dataset(read_data(root, "colormasks"))[0]
        except SaccadeError as error:
            one_line(error)


# ---------------------------------------------------------------------------------------------------------- round trip


NAMES = st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(NAMES, st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_T1_colormasks_write_then_read(names, seed, own_colors, in_splits):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "in", Path(folder) / "out"
        count = len(names)
        colors = rng.choice(2**24, count + 1, replace=False).tolist()
        truth = []
        for k in range(3):
            labels = rng.integers(0, count + 1, (5, 7))
            save(root / f"images/{k}.png", rng.integers(0, 256, (5, 7, 3)))
            packed = np.array(colors)[labels]
            save(root / f"m/{k}.png", np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1) if own_colors else labels)
            truth.append(np.where(labels == count, -100, labels))
        records = [Record(f"images/{k}.png", f"{k}", mask=f"m/{k}.png") for k in range(3)]
        splits = {"train": np.array([0, 2]), "val": np.array([1])} if in_splits else {}
        index = DataIndex("t", root, names, PackedRecords(records), splits, ("segment",), ignore=(count,))
        index.mask_colors = dict(zip(colors, range(count + 1), strict=True)) if own_colors else None
        before = Dataset(index)
        losses = write_data(before, out, "colormasks")
        after = Dataset(read_data(out, "colormasks"))
        assert differences(before, after, mask_color.HOLDS, losses) == []
        renamed = sum(n.lower() in mask_color.VOID_NAMES for n in names)
        assert (len(losses), len(after.classes)) == (renamed, count)
        by_name = {after.record(i).path.rpartition("/")[2]: i for i in range(3)}
        for k in range(3):
            np.testing.assert_array_equal(after[by_name[f"{k}.png"]].target["mask"], truth[k])
        if own_colors:
            rows = list(csv.reader((out / "class_dict.csv").open(encoding="utf-8", newline="")))[1:]
            assert [int(r) << 16 | int(g) << 8 | int(b) for _, r, g, b in rows] == colors[: count + 1]


def test_T1_colormasks_of_camvid_and_back(real, tmp_path):
    source = Dataset(read_data(real("camvid"), classes=[f"c{k}" for k in range(12)], ignore=[11])).subset(range(6))
    assert write_data(source, tmp_path / "color", "colormasks") == []
    assert detect_format(tmp_path / "color")[0] == "colormasks"
    color = Dataset(read_data(tmp_path / "color"))
    assert differences(source, color, mask_color.HOLDS) == []
    assert Image.open(tmp_path / "color" / color.record(0).mask).mode == "RGB"
    assert write_data(color, tmp_path / "plain", "masks") == []
    plain = Dataset(read_data(tmp_path / "plain"))
    assert plain.index.format == "masks"
    assert differences(source, plain, mask_color.HOLDS) == []


@pytest.mark.parametrize(("value", "known"), [("\x1c\x1c\x1c\x1c224", True), ("\u2003 7", True), ("\u0663", False), ("7 7", False)])
def test_T1_colormasks_strange_blanks_are_no_traceback(tmp_path, value, known):
    """Found by the fuzzer: blanks that a regular expression knows and int() does not."""
    path = tmp_path / "class_dict.csv"
    path.write_text(f"name,r,g,b\nsky,1,2,{value}\n", encoding="utf-8")
    if known:
        assert [name for name, _ in mask_color.read_color_table(path)] == ["sky"]
    else:
        with pytest.raises(DataError, match=r"class_dict\.csv: .*no colour of three whole numbers"):
            mask_color.read_color_table(path)
