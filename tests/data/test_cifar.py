"""CIFAR's binary files: real pixels written and read again, an independent numpy reading, malformed files."""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.data.dataset import Dataset
from saccade.data.formats import cifar_bin, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, SaccadeError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
RNG = np.random.default_rng(0)


def rows(labels, heads=1):
    labels = np.array(labels, np.uint8).reshape(-1, heads)
    return np.hstack([labels, RNG.integers(0, 256, (len(labels), 3072), dtype=np.uint8)])


TEN = {"data_batch_1.bin": rows([3, 9]), "data_batch_2.bin": rows([0]), "test_batch.bin": rows([5])}
HUNDRED = {"train.bin": rows([[1, 2], [0, 0], [1, 1]], 2), "test.bin": rows([[0, 0]], 2)}


def make(folder: Path, files, names=None) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.tobytes())
    for name, text in (names or {}).items():
        (folder / name).write_text(text)
    return folder


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


# -------------------------------------------------------------------------------------------------------- what it means


def test_T1_cifar_ten_is_numpy_s_reading(tmp_path):
    index = read_data(make(tmp_path / "cifar-10-batches-bin", TEN, {"batches.meta.txt": "\n".join("abcdefghij") + "\n\n"}).parent)
    assert (index.format, index.classes, index.problems) == ("cifar", list("abcdefghij"), [])
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0, 1, 2], "test": [3]}
    data = Dataset(index)
    whole = np.concatenate([np.frombuffer((index.root / f).read_bytes(), np.uint8).reshape(-1, 3073) for f in sorted(TEN)])
    for k in range(4):
        assert data[k].target["label"] == whole[k, 0]
        assert np.array_equal(data[k].image.numpy(), whole[k, 1:].reshape(3, 32, 32))
    assert [r.image_id for r in index.records] == ["train/0", "train/1", "train/2", "test/0"]
    copy = pickle.loads(pickle.dumps(data))  # as a loader's worker gets it
    assert len(pickle.dumps(index.reader)) < 500
    assert np.array_equal(copy[2].image, data[2].image)
    assert data.with_channels(1)[0].image.shape == (1, 32, 32)


def test_T1_cifar_hundred_has_two_labels(tmp_path):
    names = {"coarse_label_names.txt": "fish\nfruit\n", "fine_label_names.txt": "shark\nray\napple\n"}
    root = make(tmp_path, HUNDRED, names)
    fine = read_data(root)
    assert fine.classes == ["shark", "ray", "apple"]
    assert [(r.label, r.extra["coarse"]) for r in fine.records] == [(2, "fruit"), (0, "fish"), (1, "fruit"), (0, "fish")]
    coarse = read_data(root, labels="coarse")
    assert coarse.classes == ["fish", "fruit"]
    assert [(r.label, r.extra["fine"]) for r in coarse.records] == [(1, "apple"), (0, "shark"), (1, "ray"), (0, "shark")]
    assert np.array_equal(Dataset(fine)[1].image.numpy().reshape(-1), HUNDRED["train.bin"][1, 2:])
    with pytest.raises(UsageError, match="fine or coarse"):
        read_data(root, labels="both")
    with pytest.raises(UsageError, match="of one kind"):
        read_data(make(tmp_path / "ten", TEN), labels="coarse")
    bare = read_data(make(tmp_path / "bare", HUNDRED))
    assert (bare.classes, bare.records[0].extra) == (["0", "1", "2"], None)


def test_T1_cifar_sniff(tmp_path):
    assert cifar_bin.sniff(tmp_path) is None
    assert "CIFAR-10" in cifar_bin.sniff(make(tmp_path / "a", TEN))
    assert "CIFAR-10" in cifar_bin.sniff(tmp_path / "a" / "test_batch.bin")
    assert "CIFAR-100" in cifar_bin.sniff(make(tmp_path / "b", HUNDRED))
    # another program's train.bin
    assert cifar_bin.sniff(make(tmp_path / "c", {"train.bin": b"x" * 5000})) is None
    assert cifar_bin.sniff(make(tmp_path / "d", {"train.bin": rows([[99, 200]], 2)})) is None
    assert cifar_bin.sniff(make(tmp_path / "e", {"train.bin": b""})) is None
    assert len(read_data(tmp_path / "a" / "data_batch_1.bin")) == 2


# -------------------------------------------------------------------------------------------------------------- real files


def test_T1_cifar_real_pixels_written_and_read_again(real, tmp_path):
    from saccade.data.load import load_data

    source = load_data(real("cifar10_jpg"))
    rng = np.random.default_rng(1)
    part = source.subset(np.sort(np.concatenate([rng.choice(source.index.splits[s], n, False) for s, n in (("train", 300), ("test", 60))])))
    losses = write_data(part, tmp_path / "out", "cifar")
    assert losses == ["360 file names and image ids are lost"]
    again = Dataset(read_data(tmp_path / "out"))
    assert again.classes == source.classes
    assert again.index.problems == []
    assert {s: len(v) for s, v in again.index.splits.items()} == {"train": 300, "test": 60}
    order = [i for s in ("train", "test") for i in range(len(part)) if int(part.indices[i]) in set(source.index.splits[s].tolist())]
    for k, i in enumerate(order):
        theirs = part[i]
        assert np.array_equal(again[k].image, theirs.image)
        assert again[k].target["label"] == theirs.target["label"]


# ---------------------------------------------------------------------------------------------------------------- writing


class Noise:
    """A reader of random pixels."""

    def __init__(self, shape=(32, 32, 3)):
        self.shape = shape

    def image(self, record):
        return np.random.default_rng(int(record.path)).integers(0, 256, self.shape, dtype=np.uint8)

    def mask(self, record):
        raise NotImplementedError


def made(labels, classes, splits=None, extra=None, shape=(32, 32, 3)):
    records = [Record(str(k), f"im{k}", label=v, extra=extra[k] if extra else None) for k, v in enumerate(labels)]
    splits = {s: np.array(v) for s, v in (splits or {}).items()}
    return Dataset(DataIndex("made", Path("."), classes, PackedRecords(records), splits, ("classify",), reader=Noise(shape)))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_T1_cifar_written_then_read(data):
    count = data.draw(st.sampled_from([1, 3, 10, 11, 100]))
    classes = [f"c{(k * 7) % count} ö" if count in (1, 3, 10) else f"c{k}" for k in range(count)]
    labels = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    where = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    splits = {"train": [k for k, w in enumerate(where) if w], "test": [k for k, w in enumerate(where) if not w]}
    splits = {s: v for s, v in splits.items() if v}
    extra = [{"coarse": f"k{v % 3}"} for v in labels] if data.draw(st.booleans()) else None
    source = made(labels, classes, splits, extra)
    with tempfile.TemporaryDirectory() as folder:
        losses = write_data(source, Path(folder) / "out", "cifar")
        assert losses == [f"{len(labels)} file names and image ids are lost"]
        again = Dataset(read_data(Path(folder) / "out", "cifar"))
        assert again.classes == classes
        assert again.index.problems == []
        assert {s: len(v) for s, v in again.index.splits.items()} == {s: len(v) for s, v in splits.items()}
        for split, members in splits.items():
            for k, i in enumerate(members):
                ours, theirs = again.take(split)[k], source[i]
                assert np.array_equal(ours.image, theirs.image)
                assert int(ours.target["label"]) == labels[i]
                assert again.take(split).record(k).extra == (extra[i] if extra else None)


def test_T1_cifar_coarse_classes_are_written_as_coarse(tmp_path):
    source = made([1, 0], ["fish", "fruit"], extra=[{"fine": "apple"}, {"fine": "ray"}])
    write_data(source, tmp_path / "out", "cifar")
    again = read_data(tmp_path / "out", labels="coarse")
    assert again.classes == ["fish", "fruit"]
    assert [(r.label, r.extra) for r in again.records] == [(1, {"fine": "apple"}), (0, {"fine": "ray"})]


def test_T1_cifar_batches_of_ten_thousand(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_bin, "_BATCH", 2)
    write_data(made([0] * 5, ["a"]), tmp_path / "out", "cifar")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.bin")) == [f"data_batch_{k}.bin" for k in (1, 2, 3)]
    assert len(read_data(tmp_path / "out")) == 5


def test_T1_cifar_cannot_hold(tmp_path):
    with pytest.raises(UsageError, match="'im0' is 28x28"):
        write_data(made([0], ["a"], shape=(28, 28, 3)), tmp_path / "a", "cifar")
    with pytest.raises(UsageError, match="at most 100 classes; these data have 101"):
        write_data(made([0], [str(k) for k in range(101)]), tmp_path / "b", "cifar")
    losses = write_data(made([0, None, 0], ["a"], {"val": [0, 1], "test": [2]}, shape=(32, 32)), tmp_path / "c", "cifar")
    said = " | ".join(losses)
    assert "1 images of the split val stand in train" in said
    assert "1 images without a label are left out" in said
    assert "2 grey images become RGB" in said
    assert {s: len(v) for s, v in read_data(tmp_path / "c").splits.items()} == {"train": 1, "test": 1}
    assert not (tmp_path / "a").exists()


# -------------------------------------------------------------------------------------------------------------- bad files

GOOD = rows([1, 2])
BROKEN = {  # files, names, number of images that are left, what is said
    "empty": ({"data_batch_1.bin": b""}, {}, 0, "truncated"),
    "short": ({"data_batch_1.bin": b"\1" * 3072}, {}, 0, "truncated"),
    "half a record": ({"data_batch_1.bin": GOOD.tobytes()[:-1]}, {}, 1, "3072 bytes after its last whole record"),
    "a byte more": ({"data_batch_1.bin": GOOD.tobytes() + b"x"}, {}, 2, "1 bytes after"),
    "label 10": ({"data_batch_1.bin": rows([1, 10])}, {}, 1, "holds the label 10"),
    "all labels wrong": ({"data_batch_1.bin": rows([200])}, {}, 0, "holds the label 200"),
    "one broken batch": ({"data_batch_1.bin": b"x", "data_batch_2.bin": GOOD}, {}, 2, "data_batch_1.bin"),
    "few names": ({"data_batch_1.bin": GOOD}, {"batches.meta.txt": "a\nb\n"}, 1, "known are 0 to 1"),
    "no names": ({"data_batch_1.bin": GOOD}, {"batches.meta.txt": "\n\n"}, 2, "0 names"),
    "a name twice": ({"data_batch_1.bin": GOOD}, {"batches.meta.txt": "a\nb\na\n"}, 2, "2 of them different"),
    "300 names": ({"data_batch_1.bin": GOOD}, {"batches.meta.txt": "\n".join(map(str, range(300)))}, 2, "300 names"),
    "names are binary": ({"data_batch_1.bin": GOOD}, {"batches.meta.txt": "a\0b"}, 2, "binary"),
    "nothing": ({}, {}, 0, "no binary file"),
    "another name": ({"batch.bin": GOOD}, {}, 0, "no binary file"),
    "hundred short": ({"train.bin": b"x" * 3073}, {}, 0, "truncated"),
    "hundred few names": ({"train.bin": rows([[0, 7], [0, 1]], 2)}, {"fine_label_names.txt": "a\nb\n"}, 1, "holds the label 7"),
    "hundred coarse names": ({"train.bin": rows([[9, 1]], 2)}, {"coarse_label_names.txt": "a\na"}, 1, "1 of them different"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_cifar_malformed(tmp_path, name):
    files, names, count, expected = BROKEN[name]
    make(tmp_path, files, names)
    try:
        index = read_data(tmp_path, "cifar")
        said = " | ".join(one_line(p) for p in index.problems)
        assert len(index) == count
        Dataset(index)[count - 1]
    except DataError as error:
        said = one_line(error)
        assert count == 0
    assert expected in said


def test_T1_cifar_links_and_changes(tmp_path):
    make(tmp_path / "secret", TEN)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "data_batch_1.bin").symlink_to(tmp_path / "secret" / "data_batch_1.bin")
    with pytest.raises(DataError, match="outside"):
        read_data(tmp_path / "d", "cifar")
    data = Dataset(read_data(tmp_path / "secret"))
    os.truncate(tmp_path / "secret" / "data_batch_1.bin", 3073)
    with pytest.raises(DataError, match="become shorter"):
        pickle.loads(pickle.dumps(data))[1]
    (tmp_path / "secret" / "data_batch_1.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_1\.bin"):
        pickle.loads(pickle.dumps(data))[1]


@FUZZ
@given(st.sampled_from([*TEN, *HUNDRED]), st.binary(max_size=40), st.integers(0, 7000), st.binary(max_size=60))
def test_T1_cifar_any_bytes_give_data_or_one_line(tmp_path_factory, name, change, length, names):
    data = {**TEN, **HUNDRED}[name].tobytes()
    data = (change + data[len(change) :])[:length]
    root = make(tmp_path_factory.mktemp("fuzz"), {name: data})
    (root / ("batches.meta.txt" if name in TEN else "fine_label_names.txt")).write_bytes(names)
    try:
        index = read_data(root, "cifar")
        for k in range(len(index)):
            assert Dataset(index)[k].image.shape == (3, 32, 32)
            assert 0 <= index.records[k].label < len(index.classes)
    except SaccadeError as error:
        one_line(error)
