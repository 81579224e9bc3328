"""Duplicates and leaks: real edited copies, planted ones, and sets whose pictures merely look alike."""

import io
import itertools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from saccade.data import duplicates as d
from saccade.data.dataset import Dataset
from saccade.data.duplicates import clean_splits, embedding_pairs, find_duplicates, leaks, quick_leaks
from saccade.data.formats import imagefolder, voc
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.splits import read_split_file
from saccade.types.errors import UsageError


def picture(seed, size=(60, 80)):
    """A picture of blobs, unlike that of another seed."""
    random = np.random.default_rng(seed)
    low = Image.fromarray(random.integers(0, 256, (7, 8, 3), dtype=np.uint8))
    return low.resize(size[::-1], Image.Resampling.BICUBIC)


def index_of(root, splits=None, names=None, reader=None):
    """An index of all files below a folder."""
    names = names or sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    records = PackedRecords(Record(path=n, image_id=n) for n in names)
    splits = {s: np.array([names.index(n) for n in members]) for s, members in (splits or {}).items()}
    return DataIndex("test", root, ["a"], records, splits=splits, reader=reader)


def save(folder, **pictures):
    for name, image in pictures.items():
        path = folder / name.replace("__", "/")
        path = path.with_name(path.name.replace("_jpg", ".jpg").replace("_png", ".png").replace("_bmp", ".bmp"))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def named(found):
    """{(first, second): kind} by file names."""
    short = [os.path.basename(n) for n in found.names]
    return {(short[p.first], short[p.second]): p.kind for p in found.pairs}


EDITS = {
    "JPEG quality 50": lambda im: jpeg(im, 50),
    "smaller": lambda im: im.resize((round(im.width * 0.7), round(im.height * 0.7)), Image.Resampling.BICUBIC),
    "mirrored": lambda im: im.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped": lambda im: im.crop((round(im.width * 0.03), round(im.height * 0.03), im.width, im.height)),
    "cropped all round": lambda im: im.crop((im.width * 3 // 200, im.height * 3 // 200, im.width * 197 // 200, im.height * 197 // 200)),
    "brighter": lambda im: im.point(lambda v: min(v + 20, 255)),
    "upside down": lambda im: im.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "turned by 90": lambda im: im.transpose(Image.Transpose.ROTATE_90),
    "turned by 180": lambda im: im.transpose(Image.Transpose.ROTATE_180),
    "turned by 270": lambda im: im.transpose(Image.Transpose.ROTATE_270),
    "transposed": lambda im: im.transpose(Image.Transpose.TRANSPOSE),
    "grey": lambda im: im.convert("L"),
    "contrast": lambda im: ImageEnhance.Contrast(im).enhance(0.7),
    "mirrored, smaller, JPEG 50": lambda im: jpeg(EDITS["smaller"](EDITS["mirrored"](im)), 50),
}


def jpeg(image, quality):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out)


# ------------------------------------------------------------------------------------------------------------ real files


def test_E6_near_duplicates_all_found_and_no_false_pair(real):
    """The same ukbench number is the same picture, whatever the format, suffix, flip, size, turn (30 degrees, corners black), colour."""
    root = real("near_duplicates")
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "LICENSE")
    found = find_duplicates(Dataset(index_of(root, names=names)), any_angle=True)
    number = {i: re.search(r"ukbench\d+", n)[0] for i, n in enumerate(names) if "ukbench" in n and "corrupt" not in n}
    number[names.index("alpha_channel_image.png")] = "ukbench00120"  # the name does not say so; the picture does
    truth = {frozenset((i, j)) for i, j in itertools.combinations(number, 2) if number[i] == number[j]}
    linked = {frozenset(pair) for group in found.groups for pair in itertools.combinations(group, 2)}
    assert linked == truth, {tuple(names[i] for i in sorted(pair)) for pair in linked ^ truth}
    kinds = {os.path.basename(found.names[i]): set() for i in range(len(names))}
    for pair in found.pairs:
        for i in (pair.first, pair.second):
            kinds[os.path.basename(found.names[i])].add(pair.kind)
    assert kinds["ukbench00120_hflip.jpg"] <= {"near: mirrored"}
    assert kinds["ukbench00120_rotation.jpg"] == {"near: turned by 30°", "near: turned by 330°"}  # after and before the others
    assert "same bytes" in kinds["ukbench09380.svg"]
    assert ["ukbench09268_corrupt.jpg" in str(p) for p in found.problems] == [True]


def test_E6_turned_by_any_angle(real, tmp_path):
    sources = sorted((real("coco128") / "images").rglob("*.jpg"))[::20]
    turns = dict(zip(range(len(sources)), np.random.default_rng(0).integers(15, 85, len(sources)).tolist(), strict=True))
    for k, source in enumerate(sources):
        image = Image.open(source).convert("RGB")
        image.save(tmp_path / f"{k:02}.bmp")
        image.rotate(-turns[k], Image.Resampling.BICUBIC).save(tmp_path / f"{k:02}_turned.bmp")  # Pillow turns the other way
    found = find_duplicates(Dataset(index_of(tmp_path)), any_angle=True)
    pairs = {(p.first // 2, p.second // 2): int(re.search(r"by (\d+)", p.kind)[1]) for p in found.pairs}
    assert all(a == b for a, b in pairs)
    assert len(pairs) >= len(sources) - 1
    assert all(abs((360 - angle) - turns[a]) <= 2 for (a, _), angle in pairs.items())


@pytest.fixture(scope="module")
def planted(real, tmp_path_factory):
    """40 pictures of BCCD as train; six of each edit of them as test. Gives the folder, and the source of each copy."""
    root, folder = real("bccd"), tmp_path_factory.mktemp("planted")
    sources = sorted((root / "JPEGImages").glob("*.jpg"))[::9][:40]
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    for source in sources:
        shutil.copy(source, folder / "train" / source.name)
    truth = {}
    for k, (name, edit) in enumerate(EDITS.items()):
        for source in sources[k % 7 :: 7]:
            copy = folder / "test" / f"{name.replace(' ', '_')}_{source.stem}.bmp"
            edit(Image.open(source)).save(copy)
            truth[copy.name] = source.name
    return folder, truth


def test_E6_planted_leaks_in_bccd_none_missed_none_false(planted):
    folder, truth = planted
    names = sorted(f"{s}/{p.name}" for s in ("train", "test") for p in (folder / s).iterdir())
    splits = {s: [n for n in names if n.startswith(s)] for s in ("train", "test")}
    index = index_of(folder, splits, names)
    found = find_duplicates(Dataset(index))
    seen = {os.path.basename(leak.second_name): os.path.basename(leak.first_name) for leak in leaks(index, found=found)}
    missed = {copy: source for copy, source in truth.items() if copy not in seen}
    assert not missed
    assert seen == truth
    groups = [{truth.get(os.path.basename(found.names[i]), os.path.basename(found.names[i])) for i in group} for group in found.groups]
    assert all(len(sources) == 1 for sources in groups)


def test_E6_bccd_untouched_gives_no_pair(real):
    found = find_duplicates(Dataset(voc.read(real("bccd")), np.arange(0, 364, 3)))
    assert found.pairs == []
    assert found.problems == []


def test_E6_digits_that_look_alike_are_no_duplicates(real):
    """MNIST: hundreds of ones, all nearly the same stroke."""
    data = load_data(real("mnist") / "png")
    ones = [i for i in range(len(data)) if data.record(i).label in (0, 1)][::4]
    found = find_duplicates(data.subset(ones))
    assert len(ones) == 1000
    assert found.pairs == []


def test_E6_two_sets_share_two_pictures(real):
    """The readme says which: val2017 000000000139 and 000000000802."""
    yolo, coco = load_data(real("coco128"), format="yolo"), load_data(real("coco_mini"), format="coco")
    chosen = [data.subset([i for i in range(len(data)) if "val" in data.record(i).path]) for data in (yolo, coco)]
    found = find_duplicates(chosen)
    assert {os.path.basename(found.names[p.first]) for p in found.pairs} == {"000000000139.jpg", "000000000802.jpg"}
    assert all(found.sets[p.first] == 0 and found.sets[p.second] == 1 for p in found.pairs)


# -------------------------------------------------------------------------------------------------------- kinds and groups


def test_E6_kinds_of_copies(tmp_path):
    a, b = picture(1), picture(2)
    save(tmp_path, a_png=a, b_png=b, c_bmp=a, d_jpg=a, z_png=picture(9))
    (tmp_path / "e.png").write_bytes((tmp_path / "b.png").read_bytes())
    os.link(tmp_path / "b.png", tmp_path / "f.png")
    a.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "g.png")
    found = find_duplicates(Dataset(index_of(tmp_path)))
    assert named(found) == {
        ("a.png", "c.bmp"): "same pixels",
        ("a.png", "d.jpg"): "near",
        ("a.png", "g.png"): "near: turned by 90°",
        ("d.jpg", "g.png"): "near: turned by 90°",
        ("b.png", "e.png"): "same bytes",
        ("b.png", "f.png"): "same file",
    }
    assert [[os.path.basename(found.names[i]) for i in g] for g in found.groups] == [
        ["a.png", "c.bmp", "d.jpg", "g.png"],
        ["b.png", "e.png", "f.png"],
    ]
    assert found.sizes.tolist() == [[60, 80]] * 6 + [[80, 60], [60, 80]]
    clusters = found.clusters()
    assert len(set(clusters.tolist())) == 3
    assert clusters[0] == clusters[2] == clusters[3] == clusters[6]
    only = find_duplicates(Dataset(index_of(tmp_path)), near=False)
    assert set(named(only).values()) == {"same pixels", "same bytes", "same file"}
    still = find_duplicates(Dataset(index_of(tmp_path)), rotations=False)
    assert ("a.png", "g.png") not in named(still)
    loose = find_duplicates(Dataset(index_of(tmp_path)), exact=False)
    assert set(named(loose).values()) == {"near", "near: turned by 90°"}


def test_E6_flat_pictures_are_compared_by_pixels_only(tmp_path):
    black, dark = Image.new("RGB", (40, 30)), Image.new("RGB", (40, 30), (1, 1, 1))
    noise = [Image.fromarray(np.random.default_rng(k).integers(126, 130, (30, 40), dtype=np.uint8)) for k in range(3)]
    save(tmp_path, a_png=black, b_bmp=black, c_png=dark, d_png=noise[0], e_png=noise[1], f_png=noise[2], g_bmp=noise[1])
    assert named(find_duplicates(Dataset(index_of(tmp_path)))) == {("a.png", "b.bmp"): "same pixels", ("e.png", "g.bmp"): "same pixels"}


def test_E6_grey_and_colour_of_equal_channels_are_the_same_pixels(tmp_path):
    grey = picture(3).convert("L")
    save(tmp_path, a_png=grey, b_png=grey.convert("RGB"))
    assert named(find_duplicates(Dataset(index_of(tmp_path)))) == {("a.png", "b.png"): "same pixels"}


def test_E6_broken_images_are_reported_and_the_others_found(tmp_path):
    save(tmp_path, a_png=picture(1), b_jpg=picture(1))
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:900])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "empty2.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    index = index_of(tmp_path, names=["a.png", "b.jpg", "broken.jpg", "empty.png", "empty2.png", "text.png", "gone.png", "../out.png"])
    found = find_duplicates(Dataset(index))
    assert named(found) == {("a.png", "b.jpg"): "near"}
    assert len(found.problems) == 6
    assert found.sizes[2:].tolist() == [[0, 0]] * 6
    for problem, name in zip(found.problems, ["broken", "empty", "empty2", "text", "gone", "out"], strict=True):
        assert name in str(problem)
        assert "\n" not in str(problem)


def test_E6_workers_change_nothing(tmp_path):
    for k in range(6):
        save(tmp_path, **{f"p{k}_png": picture(k % 4), f"q{k}_jpg": picture(k % 3)})
    (tmp_path / "x.png").write_text("broken")
    one, two = (find_duplicates(Dataset(index_of(tmp_path)), workers=n) for n in (0, 2))
    assert one.pairs == two.pairs
    assert len(one.pairs) > 6
    assert [str(p) for p in one.problems] == [str(p) for p in two.problems]


def test_E6_images_of_a_reader(real):
    class Reader:
        def image(self, record):
            seed, kind = record.path.split()
            array = np.array(picture(int(seed)))
            return array[:, ::-1] if kind == "mirrored" else np.array(picture(int(seed)).convert("L")) if kind == "grey" else array

    names = ["1 plain", "2 plain", "1 mirrored", "2 grey", "2 again", "3 plain"]
    index = index_of(None, {"train": names[:3], "test": names[3:]}, names, Reader())
    found = find_duplicates(Dataset(index))
    assert [(p.first, p.second, p.kind) for p in found.pairs] == [(0, 2, "near: mirrored"), (1, 3, "near"), (1, 4, "same pixels")]
    assert [(k.first_name, k.second_name) for k in leaks(index, found=found)] == [("2 plain", "2 again"), ("2 plain", "2 grey")]
    assert quick_leaks(index) == []


def test_E6_a_record_that_stands_twice_is_no_duplicate(tmp_path):
    save(tmp_path, a_png=picture(1), b_png=picture(2))
    found = find_duplicates(Dataset(index_of(tmp_path), [0, 1, 0, 0]))
    assert found.pairs == []
    assert found.originals.tolist() == [0, 1, 0, 0]
    assert len(set(found.clusters().tolist())) == 2
    assert find_duplicates([]).pairs == []
    assert find_duplicates(Dataset(index_of(tmp_path), [])).groups == []


def test_E6_what_can_go_always_has_a_copy_that_stays(tmp_path):
    a = picture(1, (120, 160))
    save(tmp_path, b_png=a, a_png=a.resize((80, 60)), c_png=a, d_png=picture(2), e_png=picture(2), f_png=picture(3))
    found = find_duplicates(Dataset(index_of(tmp_path)))
    assert [os.path.basename(found.names[i]) for i in found.surplus()] == ["a.png", "c.png", "e.png"]


def test_E6_of_a_chain_as_many_stay_as_are_not_alike():
    pairs = [d.Pair(i, i + 1, "near", 3, 0.99) for i in range(4)]
    found = d.Duplicates(list("abcde"), np.zeros(5, int), np.arange(5), np.full((5, 2), 9), np.arange(5), pairs)
    assert found.surplus() == [1, 3]
    assert found.groups == [[0, 1, 2, 3, 4]]
    largest = d.Duplicates(
        list("abcde"), np.zeros(5, int), np.arange(5), np.array([[9, 9], [10, 9], [9, 9], [9, 9], [9, 9]]), np.arange(5), pairs
    )
    assert largest.surplus() == [0, 2, 4]


# ---------------------------------------------------------------------------------------------------------------- leaks


def split_folder(folder, **members):
    """A folder of each split with pictures by seed."""
    for split, seeds in members.items():
        for k, seed in enumerate(seeds):
            save(folder, **{f"{split}__{k}_png": picture(seed)})
    return index_of(folder, {s: [f"{s}/{k}.png" for k in range(len(seeds))] for s, seeds in members.items()})


def test_E6_leaks_name_each_image_of_the_later_split_once(tmp_path):
    index = split_folder(tmp_path, train=[1, 1, 2, 3], val=[3, 4], test=[1, 3, 5, 5])
    expected = [
        ("train/0.png", "test/0.png", "same bytes"),
        ("train/3.png", "val/0.png", "same bytes"),
        ("train/3.png", "test/1.png", "same bytes"),
        ("val/0.png", "test/1.png", "same bytes"),
    ]
    for found in (leaks(index), quick_leaks(index)):
        assert sorted((k.first_name, k.second_name, k.kind) for k in found) == sorted(expected)
        assert all(k.first_name.startswith(k.first_split) and k.second_name.startswith(k.second_split) for k in found)
    assert str(found[0]).count("\n") == 0


def test_E6_a_record_in_two_splits_is_a_leak(tmp_path):
    index = split_folder(tmp_path, train=[1, 2], test=[3])
    index.splits["test"] = np.array([0, 1])
    for found in (leaks(index), quick_leaks(index)):
        assert [(k.first, k.second, k.kind) for k in found] == [(1, 1, "same image")]
        assert str(found[0]) == "train/0.png is in train and in test"


def test_E6_trainval_is_train_and_val(tmp_path):
    index = split_folder(tmp_path, train=[1, 2], val=[3], test=[4, 2])
    index.splits["trainval"] = np.union1d(index.splits["train"], index.splits["val"])
    assert [(k.first_split, k.second_split) for k in quick_leaks(index)] == [("train", "test")]
    del index.splits["train"]
    assert [(k.first_split, k.second_split) for k in quick_leaks(index)] == [("train", "test")]
    del index.splits["test"]
    assert quick_leaks(index) == leaks(index) == []


def test_E6_a_named_part_of_the_usual_splits_is_none_of_its_own(tmp_path):
    index = split_folder(tmp_path, train=[1, 2], test=[4])
    index.splits["small"] = index.splits["train"][:1]
    assert quick_leaks(index) == []
    folds = split_folder(tmp_path / "folds", fold1=[1, 2], fold2=[2, 3])
    assert [(k.first_split, k.second_split) for k in quick_leaks(folds)] == [("fold1", "fold2")]


def test_E6_near_leaks_need_the_long_way(tmp_path):
    index = split_folder(tmp_path, train=[1, 2], test=[4])
    picture(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "test" / "0.png")
    assert quick_leaks(index) == []
    assert [(k.first_name, k.second_name, k.kind) for k in leaks(index)] == [("train/1.png", "test/0.png", "near: mirrored")]


def test_E6_quick_leaks_are_quick(real):
    """20 000 small files of colliding sizes in two splits: well under the second that a training may wait."""
    import time

    index = imagefolder.read(real("mnist") / "png" / "train")
    assert len(index) == 20_000
    order = np.random.default_rng(0).permutation(len(index))
    index.splits = {"train": np.sort(order[:15_000]), "test": np.sort(order[15_000:])}
    start = time.process_time()
    assert quick_leaks(index) == []
    assert time.process_time() - start < 2.5


def test_E6_real_splits_do_not_leak(real):
    assert quick_leaks(voc.read(real("bccd"))) == []
    assert quick_leaks(imagefolder.read(real("hymenoptera"))) == []


# --------------------------------------------------------------------------------------------------------- clean splits


def names_of(index, splits):
    return {split: [index.records[int(i)].path for i in members] for split, members in splits.items()}


def test_E6_clean_splits_keep_test_and_leave_its_copies_out(tmp_path):
    index = split_folder(tmp_path, train=[1, 1, 2, 3], val=[3, 4], test=[1, 5, 5])
    clean = clean_splits(index, find_duplicates(Dataset(index)))
    assert names_of(index, clean) == {
        "train": ["train/2.png"],
        "val": ["val/0.png", "val/1.png"],
        "test": ["test/0.png", "test/1.png", "test/2.png"],
    }
    index.splits = clean
    assert leaks(index) == []


def test_E6_clean_splits_of_data_without_splits_keep_copies_together(tmp_path):
    for k in range(24):
        save(tmp_path, **{f"p{k:02}_png": picture(k // 3)})
    index = index_of(tmp_path)
    index.splits = clean_splits(index, find_duplicates(Dataset(index)))
    assert sorted(np.concatenate(list(index.splits.values())).tolist()) == list(range(24))
    assert set(index.splits) == {"train", "val", "test"}
    assert all(len(members) % 3 == 0 for members in index.splits.values())
    assert leaks(index) == []


def test_E6_a_record_in_two_splits_stays_in_the_later(tmp_path):
    index = split_folder(tmp_path, train=[1, 2], test=[3])
    index.splits["test"] = np.array([0, 1])
    clean = clean_splits(index, find_duplicates(Dataset(index)))
    assert {k: v.tolist() for k, v in clean.items()} == {"train": [2], "test": [0, 1]}


# -------------------------------------------------------------------------------------------------------------- features


def test_E6_embedding_pairs_are_all_pairs(monkeypatch):
    random = np.random.default_rng(0)
    centres = random.normal(size=(30, 16))
    features = np.concatenate([centres, centres + random.normal(size=(30, 16)) * 0.2, np.zeros((2, 16))]).astype(np.float32)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    expected = np.argwhere(np.triu(unit @ unit.T >= 0.9, 1))
    pairs, cosines = embedding_pairs(features, 0.9)
    assert np.array_equal(pairs, expected)
    np.testing.assert_allclose(cosines, (unit @ unit.T)[tuple(expected.T)], rtol=1e-5)
    assert len(pairs) >= 20
    assert embedding_pairs(np.zeros((0, 4)), 0.5)[0].shape == (0, 2)
    assert embedding_pairs(np.zeros((3, 4)), -1.0)[0].shape == (0, 2)
    monkeypatch.setattr(d, "MOST_PAIRS", 5)
    with pytest.raises(UsageError, match="more than 5 pairs of features"):
        embedding_pairs(features, 0.0)


def test_E6_features_find_what_hashes_do_not(tmp_path):
    save(tmp_path, a_png=picture(1), b_png=picture(2), c_png=picture(3))
    (tmp_path / "d.png").write_text("broken")
    features = np.array([[1, 0, 0], [0.99, 0.05, 0], [0, 1, 0], [np.nan] * 3], np.float32)
    data = Dataset(index_of(tmp_path))
    found = find_duplicates(data, features=features)
    assert named(found) == {("a.png", "b.png"): "near: features"}
    assert 0.99 < found.pairs[0].likeness < 1
    with pytest.raises(UsageError, match=r"features are \(N, D\) for 4 images"):
        find_duplicates(data, features=features[:2])


def test_E6_too_many_that_look_alike_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(d, "MOST_CANDIDATES", 3)
    for k in range(5):
        picture(1).save(tmp_path / f"{k}.jpg", quality=90 - k)
    found = find_duplicates(Dataset(index_of(tmp_path)))
    assert all("more than 3 pairs of images look alike" in str(p) for p in found.problems)
    assert found.problems


def test_E6_likeness_forgives_a_crop_and_brightness_and_nothing_else():
    images = np.stack([np.asarray(picture(k, (400, 400)).convert("L")) for k in range(12)])
    places = itertools.cycle([(0, 380, 0, 380), (12, 400, 6, 390), (10, 400, 0, 400)])
    crops = [image[top:bottom, left:right] for image, (top, bottom, left, right) in zip(images, places, strict=False)]

    def small(pictures):
        return np.stack([np.asarray(Image.fromarray(p).resize((64, 64), Image.Resampling.BOX)) for p in pictures])

    a, b = small(images), small(crops)
    assert d.likeness(a, b).min() > 0.97
    assert d.likeness(b, a).min() > 0.97
    assert d.likeness(a, (a * 0.5 + 60).astype(np.uint8)).min() > 0.97
    assert d.likeness(a, np.roll(a, 1, axis=0)).max() < 0.6
    assert np.abs(d.likeness(a, np.zeros_like(a))).max() < 0.01
    assert d.likeness(a[:0], a[:0]).shape == (0,)


def test_E6_the_split_file_of_clean_splits_is_read_again(tmp_path):
    import json

    index = split_folder(tmp_path / "data", train=[1, 2], test=[1, 3])
    clean = clean_splits(index, find_duplicates(Dataset(index)))
    (tmp_path / "s.json").write_text(json.dumps({s: [index.records[int(i)].image_id for i in m] for s, m in clean.items()}))
    again = read_split_file(tmp_path / "s.json", index)
    assert {k: v.tolist() for k, v in again.items()} == {k: v.tolist() for k, v in clean.items()}


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_T2_a_leak_inside_an_archive_is_seen_before_training(tmp_path, monkeypatch, kind):
    """In a zip or tar the images are stubs on disk: what counts are the bytes in the archive."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "x" / split / "a").mkdir(parents=True)
        for k in range(4):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "x" / split / "a" / f"{split}{k}.png")
    shutil.copy(tmp_path / "x/train/a/train1.png", tmp_path / "x/test/a/copy.png")
    index = load_data(shutil.make_archive(str(tmp_path / "archive"), kind, tmp_path / "x")).index
    found = quick_leaks(index)
    assert [(Path(leak.first_name).name, Path(leak.second_name).name, leak.kind) for leak in found] == [
        ("train1.png", "copy.png", "same bytes")
    ]
