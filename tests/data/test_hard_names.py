"""Every format under hard names: Unicode, blanks, very long names, read-only folders, links; the truth stays the same."""

import os
import shutil
import stat

import numpy as np
import pytest
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import FORMATS, format_module, read_data, write_data
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import UsageError

WRITTEN = [name for name in FORMATS if name not in ("bsds", "cifar", "idx", "quickdraw", "inkml")]
"""Formats that hold pictures as files of their own."""

NAMES = ("plain.png", "two blanks here.png", "größe_日本語_ñ.png", "a'b\"c&d,e;f%20.png", "L" * 200 + ".png", "semi=colon#1.png")


def picture(seed):
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((64, 48), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of hard names with a label, a box, a polygon, key points, a mask and a caption each."""
    root = tmp_path_factory.mktemp("hard") / "Ünïcödé folder"
    (root / "masks").mkdir(parents=True)
    records = []
    for k, name in enumerate(NAMES):
        picture(k).save(root / name)
        mask = np.zeros((48, 64), np.uint8)
        mask[8:30, 10:40] = 1
        Image.fromarray(mask).save(root / "masks" / f"{k}.png")
        polygon = np.array([[10, 8], [40, 8], [40, 30], [10, 30]], np.float32)
        records.append(
            Record(
                name, str(k + 1), (48, 64), label=k % 2, boxes=np.array([[10, 8, 40, 30]], np.float32), labels=np.array([k % 2]),
                segments=[[polygon]], keypoints=np.array([[[12, 9, 2], [30, 20, 2]]], np.float32), mask=f"masks/{k}.png", captions=["a b"],
            )
        )  # fmt: skip
    index = DataIndex(
        "test", root, ["größe klein", "b"], PackedRecords(records), tasks=("detect", "classify", "segment", "pose", "caption")
    )
    index.keypoint_names, index.keypoint_swap = ["left", "right"], [1, 0]
    return Dataset(index)


def facts(index):
    """What must not change."""
    rows = []
    for r in index.records:
        boxes = None if r.boxes is None else np.round(np.asarray(r.boxes), 2).tolist()
        labels = None if r.labels is None else [index.classes[int(k)] for k in r.labels]
        rows.append(
            (os.path.getsize(index.root / r.path), boxes, labels, None if r.label is None else index.classes[r.label], r.mask is not None)
        )
    return sorted(rows, key=str)


@pytest.mark.parametrize("name", WRITTEN)
def test_T1_hard_names_written_and_read_again(data, tmp_path, name):
    out = tmp_path / "nön ascii out"
    write_data(data, out, name)
    index = read_data(out, name)
    assert len(index) == len(NAMES)
    loaded = Dataset(index)
    wanted = {loaded.image(loaded.record(i)).numpy().tobytes() for i in range(len(loaded))}
    assert wanted == {data.image(data.record(i)).numpy().tobytes() for i in range(len(data))}


@pytest.mark.parametrize("name", WRITTEN)
def test_T1_read_only_and_moved_and_linked_data_are_the_same(data, tmp_path, name):
    write_data(data, tmp_path / "out", name)
    before = facts(read_data(tmp_path / "out", name))
    moved = tmp_path / ("d" * 150) / "été ☀"
    moved.parent.mkdir()
    shutil.move(tmp_path / "out", moved)
    assert facts(read_data(moved, name)) == before
    (tmp_path / "link").symlink_to(moved, target_is_directory=True)
    assert facts(read_data(tmp_path / "link", name)) == before
    for folder, _, files in os.walk(moved):
        for file in files:
            os.chmod(os.path.join(folder, file), stat.S_IRUSR)
        os.chmod(folder, stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert facts(read_data(moved, name)) == before
    finally:
        for folder, _, _ in os.walk(moved):
            os.chmod(folder, stat.S_IRWXU)


@pytest.mark.parametrize("name", [n for n in WRITTEN if n not in ("images", "imagefolder")])
def test_T1_an_image_that_is_a_link_out_of_the_data_is_refused(data, tmp_path, name):
    write_data(data, tmp_path / "out", name)
    index = read_data(tmp_path / "out", name)
    victim = index.root / index.records[0].path
    victim.rename(tmp_path / "outside.png")
    victim.symlink_to(tmp_path / "outside.png")
    again = read_data(tmp_path / "out", name)
    loaded = Dataset(again)
    assert len(again) == len(NAMES) - 1 or any(_refused(loaded, i) for i in range(len(loaded)))


def _refused(data, i):
    try:
        data.image(data.record(i))
    except Exception as error:
        return "outside" in str(error)
    return False


def test_T1_a_name_that_is_no_text_is_reported_not_fatal(tmp_path):
    picture(0).save(tmp_path / "good.png")
    try:
        with open(os.fsencode(tmp_path) + b"/\xff\xfe.png", "wb") as file:
            file.write((tmp_path / "good.png").read_bytes())
    except OSError:
        pytest.skip("the file system takes only text")
    data = load_data(tmp_path, format="images")
    assert len(data) == 1
    assert any("not UTF-8" in str(p) for p in data.index.problems)


def test_T1_formats_state_what_they_hold():
    words = {"label", "boxes", "crowd", "segments", "keypoints", "mask", "captions"}
    for name in FORMATS:
        module = format_module(name)
        assert name == module.NAME
        assert words >= module.HOLDS, name
        assert module.read.__doc__
        assert module.sniff.__doc__
    with pytest.raises(UsageError, match="did you mean 'yolo'"):
        format_module("yollo")
