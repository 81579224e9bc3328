"""load_data: sources, splits, tasks."""

import numpy as np
import pytest
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords
from saccade.types.errors import DataError, UsageError


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """40 images of two classes, no splits."""
    root = tmp_path_factory.mktemp("plain")
    fill(root, ["a"] * 30 + ["b"] * 10)
    return root


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """train 40 and test 5."""
    root = tmp_path_factory.mktemp("divided")
    fill(root / "train", ["a"] * 30 + ["b"] * 10)
    fill(root / "test", ["a"] * 3 + ["b"] * 2)
    return root


def fill(root, classes):
    for k, name in enumerate(classes):
        path = root / name / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 3), k, np.uint8)).save(path)


def names(data):
    return {data.record(i).path for i in range(len(data))}


def test_T1_no_split_gives_everything(plain, divided):
    assert len(load_data(plain)) == 40
    assert len(load_data(str(divided))) == 45
    assert load_data(plain)[0].image.shape == (1, 3, 3)
    assert load_data(plain, channels=3)[0].image.shape == (3, 3, 3)


def test_T1_splits_are_made_when_none_are_stated(plain):
    parts = {s: load_data(plain, s) for s in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [28, 6, 6]
    assert set.union(*map(names, parts.values())) == names(load_data(plain))
    assert parts["train"].class_counts().tolist() == [21, 7]  # stratified
    assert names(load_data(plain, "train", seed=0)) == names(parts["train"])
    assert names(load_data(plain, "train", seed=1)) != names(parts["train"])
    assert names(load_data(plain, "trainval")) == names(parts["train"]) | names(parts["val"])
    assert "states no splits" in str(parts["val"].index.problems[-1])
    with pytest.raises(UsageError, match="no split 'fold3'"):
        load_data(plain, "fold3")


def test_T1_val_is_held_out_of_train_when_the_files_state_none(divided):
    train, val, test = (load_data(divided, s) for s in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (34, 6, 5)
    assert not names(train) & names(val)
    assert names(load_data(divided, "trainval")) == names(train) | names(val)
    assert len(load_data(divided, "trainval")) == 40
    assert "6 of 40 training images are held out (stratified, seed 0)" in str(val.index.problems[-1])
    assert not any("held out" in str(p) for p in test.index.problems)


def test_T1_stated_splits_are_kept(tmp_path):
    fill(tmp_path / "train", ["a", "b"])
    fill(tmp_path / "valid", ["a"])
    assert len(load_data(tmp_path, "train")) == 2
    assert len(load_data(tmp_path, "val")) == len(load_data(tmp_path, "valid")) == 1
    assert len(load_data(tmp_path, "trainval")) == 3
    with pytest.raises(UsageError, match="no split 'test'"):
        load_data(tmp_path, "test")  # never invented beside stated ones
    fill(tmp_path / "only" / "test", ["a", "b"])
    with pytest.raises(UsageError, match="no split 'train'"):
        load_data(tmp_path / "only", "train")


def test_T1_split_file(plain, tmp_path):
    (tmp_path / "train.txt").write_text("a/0.png\n1\n")
    assert names(load_data(plain, "train", split_file=tmp_path / "train.txt")) <= {"a/0.png", "a/1.png"}
    (tmp_path / "s.json").write_text('{"train": ["a/0.png", "b/30.png"], "val": ["a/2.png"]}')
    assert names(load_data(plain, "val", split_file=tmp_path / "s.json")) == {"a/2.png"}
    assert names(load_data(plain, "train", split_file=tmp_path / "s.json")) == {"a/0.png", "b/30.png"}
    (tmp_path / "bad.txt").write_text("a/999.png\n")
    with pytest.raises(DataError, match=r"bad\.txt"):
        load_data(plain, split_file=tmp_path / "bad.txt")


def test_T1_task_must_be_there_and_settles_the_format(plain, real):
    assert load_data(plain, task="classify").tasks == ("classify",)
    assert load_data(plain, task="embed").tasks == ("classify",)
    assert len(load_data(plain, task="generate")) == 40
    with pytest.raises(UsageError, match="hold truth for classify, not for detect"):
        load_data(plain, task="detect")
    wbc = real("wbc_segmentation")
    assert load_data(wbc).index.format == "masks"  # a table yields to annotations of another kind
    assert load_data(wbc, task="segment").index.format == "masks"
    assert load_data(wbc, task="classify").index.format == "csv"
    assert len(load_data(real("bccd"), "test", task="detect")) == 72


def test_T1_named_and_synthetic_sources(monkeypatch, real):
    data = load_data("synthetic:shapes?count=20&size=32&seed=1", "train")
    assert len(data) == 14
    assert data[0].image.shape == (3, 32, 32)
    with pytest.raises(UsageError, match="did you mean 'shapes'"):
        load_data("synthetic:shape")
    with pytest.raises(UsageError, match="did you mean 'bccd'"):
        load_data("set:bcd")
    with pytest.raises(UsageError, match="leave --format"):
        load_data("synthetic:shapes", format="coco")
    monkeypatch.setenv("SACCADE_DATA", str(real("bccd").parent))
    assert len(load_data("set:bccd", "test")) == 72


def test_T1_a_loaded_set_is_a_source(plain):
    data = load_data(plain)
    assert load_data(data, "val").indices.tolist() == load_data(plain, "val").indices.tolist()
    part = data.subset(range(10))
    assert len(load_data(part)) == 10
    assert names(load_data(part, "train")) < names(part)
    assert len(load_data(data.index)) == 40


@pytest.mark.parametrize("source", ["nix/nix", "", "x" * 5000, "a\0b"])
def test_T1_missing_source(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        load_data(source)
    assert "\n" not in str(error.value)


def test_T1_empty_sets(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        load_data(DataIndex("test", tmp_path, [], PackedRecords([])))
    with pytest.raises(DataError, match="holds nothing"):
        load_data(tmp_path)
    fill(tmp_path, ["a", "b"])
    assert isinstance(load_data(tmp_path, "train"), Dataset)
    with pytest.raises((DataError, UsageError)):
        load_data(load_data(tmp_path).subset([]), "train")


def test_T1_one_image(tmp_path):
    fill(tmp_path, ["a"])
    assert len(load_data(tmp_path, "train", format="imagefolder")) == 1
    with pytest.raises(DataError, match="split 'test' holds no images"):
        load_data(tmp_path, "test", format="imagefolder")
