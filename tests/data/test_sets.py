"""Named sets from a local folder, the cache, or a download (here: from file addresses)."""

import dataclasses
import gzip
import hashlib
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from saccade.data import sets
from saccade.data.dataset import Dataset
from saccade.data.sets import SETS, load_set, set_folder
from saccade.data.sets.fetch import manifest
from saccade.types.errors import DataError, UsageError


@pytest.fixture
def local(real, monkeypatch, tmp_path):
    """SACCADE_DATA on the real sets, and an empty cache."""

    def point(folder):
        monkeypatch.setenv("SACCADE_DATA", str(real(folder).parent))
        monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))

    return point


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Neither local sets nor a cache."""
    monkeypatch.delenv("SACCADE_DATA", raising=False)
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


# ------------------------------------------------------------------------------------------------------------- local sets


def test_T3_set_bccd(local):
    local("bccd")
    index = load_set("set:bccd")
    assert index.tasks == ("detect",)
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 205, "val": 87, "trainval": 292, "test": 72}
    assert len(index.problems) == 2


def test_T3_set_wbc_masks_and_cell_types(local):
    local("wbc_segmentation")
    index = load_set("wbc")
    assert index.classes == ["background", "cytoplasm", "nucleus"]
    assert len(index) == 300
    assert index.tasks == ("segment",)
    data = Dataset(index)
    shares = np.zeros(3)
    for k in range(0, 300, 10):
        mask = data[k].target["mask"]
        assert mask.min() >= 0
        shares += np.bincount(mask.flatten(), minlength=3) / mask.numel() / 30
    assert np.abs(shares - [0.688, 0.189, 0.123]).max() < 0.03  # the readme's shares of all pixels
    kinds = [r.extra["cell"] for r in index.records]
    names = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
    assert [kinds.count(n) for n in names] == [176, 53, 48, 22, 1]
    cells = load_set("set:wbc?task=classify")
    assert Dataset(cells).class_counts().tolist() == [176, 53, 48, 22, 1]
    assert "mask" not in Dataset(cells)[0].target


def test_T3_set_wbc_stray_greys_of_part_2_go_to_the_nearest(local):
    local("wbc_segmentation")
    index = load_set("set:wbc?part=2")
    assert len(index) == 60
    data = Dataset(index)
    for name in ("034", "035", "047", "050"):
        k = next(k for k in range(60) if data.record(k).image_id == name)
        assert set(np.unique(data[k].target["mask"])) <= {0, 1, 2}
    with pytest.raises(UsageError, match="parts 1 and 2"):
        load_set("wbc", part=3)
    with pytest.raises(UsageError, match="segment or classify"):
        load_set("wbc?task=detect")


def test_T3_set_camvid(local):
    local("camvid")
    index = load_set("camvid")
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 31, "val": 9, "test": 20}
    assert len(index.classes) == 11
    mask = Dataset(index)[0].target["mask"]
    raw = np.unique(mask)
    assert raw.max() <= 10
    assert raw.min() == -100  # 11 is void
    assert index.problems == []


def test_T3_set_mnist_is_png_for_training_and_idx_for_test(local):
    local("mnist")
    index = load_set("mnist")
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 20000, "test": 10000}
    data = Dataset(index)
    assert data.take("train").class_counts().tolist() == [2000] * 10
    assert data.take("test").class_counts().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for split in ("train", "test"):
        sample = data.take(split)[0]
        assert sample.image.shape == (1, 28, 28)
        assert sample.image.max() > 200
    copied = pickle.loads(pickle.dumps(index.reader))  # as a loader's worker gets it
    assert np.array_equal(copied.image(index.records[25000]), index.reader.image(index.records[25000]))
    raw = gzip.decompress((index.root / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    assert all(raw[int(r.image_id.removeprefix("train/"))] == r.label for r in index.records[:20000:500])


def test_T3_set_cifar10_of_pictures(local):
    local("cifar10_jpg")
    index = load_set("cifar10")
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 5000, "test": 1000}
    assert index.classes[0] == "airplane"


def test_T3_set_manifests_are_those_of_the_complete_local_copies(real):
    for name in ("bccd", "wbc"):
        patterns, expected = SETS[name].manifest
        assert manifest(real(SETS[name].folder), patterns) == expected
    for pattern, count in SETS["bccd"].counts.items():
        assert len(list(real("bccd").glob(pattern))) == count


# ------------------------------------------------------------------------------------------------------------- downloads


def zipped(folder, archive, top):
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("repository-abc/README.md", "hello")
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                out.write(file, f"repository-abc/{top}{file.relative_to(folder).as_posix()}")
    return archive


def test_T3_set_is_downloaded_checked_and_kept(real, empty, monkeypatch, capsys):
    archive = zipped(real("bccd"), empty / "d272fb1.zip", "BCCD/")
    monkeypatch.setitem(SETS, "bccd", dataclasses.replace(SETS["bccd"], url=archive.as_uri()))
    assert set_folder("bccd") is None
    index = load_set("bccd")
    assert len(index) == 364
    assert "downloading d272fb1.zip" in capsys.readouterr().err
    archive.unlink()
    assert len(load_set("bccd")) == 364  # from the cache
    assert set_folder("bccd") == empty / "cache" / "sets" / "bccd"
    assert sorted(p.name for p in (empty / "cache" / "sets").iterdir()) == ["bccd"]
    assert not (empty / "cache" / "downloads" / "bccd").exists()


@pytest.mark.parametrize(("change", "message"), [("drop", "holds 363 files Annotations"), ("edit", "contents hash to")])
def test_T3_set_that_changed_is_refused_and_not_kept(real, empty, monkeypatch, change, message):
    copy = shutil.copytree(real("bccd"), empty / "copy")
    for place in (copy, copy / "Annotations"):
        place.chmod(0o755)
    victim = copy / "Annotations" / "BloodImage_00000.xml"
    victim.chmod(0o644)
    victim.unlink() if change == "drop" else victim.write_text(victim.read_text().replace("260", "261"))
    monkeypatch.setitem(SETS, "bccd", dataclasses.replace(SETS["bccd"], url=zipped(copy, empty / "x.zip", "BCCD/").as_uri()))
    with pytest.raises(DataError, match=message) as caught:
        load_set("bccd")
    one_line(caught.value)
    assert list((empty / "cache" / "sets").iterdir()) == []
    assert not (empty / "cache" / "downloads" / "bccd").exists()


def test_T3_set_fashion_mnist_comes_from_torchvisions_addresses(empty, monkeypatch):
    from torchvision.datasets import FashionMNIST

    source = empty / "mirror"
    source.mkdir()
    resources = []
    for prefix, count in (("train", 20), ("t10k", 10)):
        labels = bytes(k % 10 for k in range(count))
        files = {
            f"{prefix}-images-idx3-ubyte.gz": struct.pack(">IIII", 0x803, count, 28, 28) + bytes(count * 784),
            f"{prefix}-labels-idx1-ubyte.gz": struct.pack(">II", 0x801, count) + labels,
        }
        for name, data in files.items():
            (source / name).write_bytes(gzip.compress(data))
            resources.append((name, hashlib.md5((source / name).read_bytes()).hexdigest()))
    missing = (empty / "nowhere").as_uri()
    monkeypatch.setattr(FashionMNIST, "mirrors", [missing, source.as_uri() + "/"])
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    index = load_set("fashion-mnist", offline=False)
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 20, "test": 10}
    assert index.classes[9] == "ankle boot"
    shutil.rmtree(empty / "cache")
    monkeypatch.setattr(FashionMNIST, "resources", [(n, "0" * 32) for n, _ in resources])
    with pytest.raises(DataError, match="wrong checksum: md5"):
        load_set("fashion-mnist", offline=False)


def binary(folder, name, labels, rng):
    rows = np.hstack([np.array(labels, np.uint8)[:, None], rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)])
    (folder / name).write_bytes(rows.tobytes())
    return rows


def test_T3_set_cifar10_binary(empty, monkeypatch):
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    folder = empty / "cifar-10-batches-bin"
    folder.mkdir()
    first = binary(folder, "data_batch_1.bin", [3, 9], rng)
    binary(folder, "data_batch_2.bin", [0], rng)
    binary(folder, "test_batch.bin", [5], rng)
    with tarfile.open(empty / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-bin")
    sums = hashlib.md5((empty / "cifar-10-binary.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "url", (empty / "cifar-10-python.tar.gz").as_uri())
    monkeypatch.setitem(SETS, "cifar10", dataclasses.replace(SETS["cifar10"], md5=sums))
    index = load_set("cifar10")
    assert {s: len(v) for s, v in index.splits.items()} == {"train": 3, "test": 1}
    data = Dataset(index)
    assert [data[k].target["label"].item() for k in range(4)] == [3, 9, 0, 5]
    assert np.array_equal(data[1].image.numpy().reshape(-1), first[1, 1:])  # planes of red, green, blue
    assert np.array_equal(pickle.loads(pickle.dumps(index.reader)).image(index.records[1]), index.reader.image(index.records[1]))
    cached = empty / "cache" / "sets" / "cifar10"
    (cached / "test_batch.bin").write_bytes(b"\x0b" + bytes(3072))
    with pytest.raises(DataError, match="label 11"):
        load_set("cifar10")
    (cached / "test_batch.bin").write_bytes(bytes(3000))
    with pytest.raises(DataError, match="truncated"):
        load_set("cifar10")


def test_T3_sets_never_touch_the_network_when_offline(empty):
    for name, info in SETS.items():
        with pytest.raises(UsageError) as caught:
            load_set(name, offline=True)
        text = one_line(caught.value)
        assert f"set:{name} is not here" in text
        assert str(empty / "cache" / "sets" / name) in text
        assert info.folder in text
    assert not (empty / "cache").exists()


def test_T3_sets_unknown_names_and_options(empty):
    with pytest.raises(UsageError, match="did you mean 'bccd'"):
        load_set("set:bcd")
    with pytest.raises(UsageError, match="no option 'part'"):
        load_set("set:bccd?part=1")
    with pytest.raises(UsageError, match="no named set"):
        set_folder("")


def test_T3_set_camvid_lists_are_checked(empty, monkeypatch):
    folder = empty / "data" / "camvid"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SACCADE_DATA", str(empty / "data"))
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n")
    with pytest.raises(DataError, match="not one image"):
        load_set("camvid")
    (folder / "val.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"val.txt: line 1: has 1 names"):
        load_set("camvid")
    (folder / "train.txt").write_text("../../../etc/passwd ../x\n")  # the last two parts: etc/passwd in the folder
    with pytest.raises(DataError):
        load_set("camvid")
    os.unlink(folder / "train.txt")
    with pytest.raises(DataError, match="cannot be read"):
        load_set("camvid")


def test_T3_the_table_of_sets_is_plain_data_and_light():
    code = "import sys; import saccade.data.sets; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert isinstance(sets.SETS, dict)
    assert all(i.title and i.licence and i.source and i.url for i in SETS.values())
    assert done.stdout.split() == ["False", "False"]
