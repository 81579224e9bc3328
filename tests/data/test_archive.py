"""Zip and tar archives read in place: the same records and pixels as the folder, and nothing bad from hostile ones."""

import gzip
import io
import json
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data import archive
from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, read_data, write_data
from saccade.data.images import STUB, file_bytes, image_size, read_image
from saccade.data.load import load_data
from saccade.types.errors import DataError, SaccadeError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
TARS = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def png(value, size=(6, 4)):
    out = io.BytesIO()
    Image.new("RGB", size, (value, 80, 200)).save(out, "PNG")
    return out.getvalue()


FILES = {f"{split}/{name}/{k}.png": png(40 * k + len(name)) for split in ("train", "test") for name in ("cat", "zebra") for k in range(3)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SACCADE_CACHE", str(folder))
    return folder


def pack(path: Path, files, top="", method=zipfile.ZIP_DEFLATED) -> Path:
    """An archive of bytes by name; the suffix says which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", method) as out:
            for name, data in files.items():
                out.writestr(top + name, data)
    else:
        with tarfile.open(path, TARS[path.name.partition(".")[2]]) as out:
            for name, data in files.items():
                info = tarfile.TarInfo(top + name)
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
    return path


def of_folder(path: Path, folder: Path, top="") -> Path:
    return pack(path, {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}, top)


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def same(ours: Dataset, theirs: Dataset, step=1):
    assert ours.index.format == theirs.index.format
    assert ours.classes == theirs.classes
    assert ours.index.records.digest() == theirs.index.records.digest()
    assert {s: v.tolist() for s, v in ours.index.splits.items()} == {s: v.tolist() for s, v in theirs.index.splits.items()}
    assert ours.fingerprint() == theirs.fingerprint()
    for k in range(0, len(theirs), step):
        assert torch.equal(ours[k].image, theirs[k].image)


# ---------------------------------------------------------------------------------------------------- equal to the folder


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_T1_archive_bccd_is_the_folder(real, tmp_path, cache, suffix):
    path = of_folder(tmp_path / f"bccd.{suffix}", real("bccd"), "BCCD_Dataset-d272fb1/")
    ours = load_data(path)
    same(ours, load_data(real("bccd")), step=23)
    assert [one_line(p).partition("Annotations")[2] for p in ours.index.problems] == [
        one_line(p).partition("Annotations")[2] for p in load_data(real("bccd")).index.problems
    ]
    assert f"bccd.{suffix}/BCCD_Dataset-d272fb1/Annotations/BloodImage_00338.xml: object 13" in str(ours.index.problems[0])
    stubs = list(cache.rglob("*.jpg"))
    assert len(stubs) == 364
    assert sum(p.stat().st_size for p in stubs) < 100_000  # the pictures are still in the archive
    losses = write_data(ours.subset(range(12)), tmp_path / "out", "voc")
    assert losses == []
    for name in ("BloodImage_00000.jpg", "BloodImage_00011.jpg"):
        assert (tmp_path / "out" / "JPEGImages" / name).read_bytes() == (real("bccd") / "JPEGImages" / name).read_bytes()


def test_T1_archive_mnist_idx_is_the_folder(real, tmp_path):
    files = {p.name: p.read_bytes() for p in real("mnist").glob("*.gz")}
    path = pack(tmp_path / "mnist.zip", files, method=zipfile.ZIP_STORED)
    same(load_data(path, "test", format="idx"), load_data(real("mnist"), "test", format="idx"), step=997)


@pytest.mark.parametrize("suffix", ["zip", *TARS])
def test_T1_archive_image_folder_is_the_folder(tmp_path, suffix):
    folder = tmp_path / "flowers"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    path = of_folder(tmp_path / f"flowers.{suffix}", folder, "flowers/")
    data = load_data(path)
    same(data, load_data(folder))
    assert detect_format(path)[0] == "imagefolder"
    said = " | ".join(map(one_line, data.index.problems))
    assert ("no random access: its 12 images were unpacked" in said) == (suffix not in ("zip", "tar"))
    stub = data.path(data.record(0))
    assert stub.read_bytes().startswith(STUB) == (suffix in ("zip", "tar"))
    assert file_bytes(stub) == FILES[data.record(0).path]
    assert image_size(stub) == (4, 6)
    assert str(data[0].target["path"]).endswith(data.record(0).path)
    assert torch.equal(read_image(data[0].target["path"]), data[0].image)


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_T1_archive_in_loader_workers_and_another_process(tmp_path, cache, suffix):
    path = pack(tmp_path / f"a.{suffix}", FILES)
    data = load_data(path, "train")
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=2, collate_fn=list)
    seen = {s.target["image_id"]: s.image.float().mean().item() for batch in loader for s in batch}
    assert seen == {data.record(i).image_id: data[i].image.float().mean().item() for i in range(len(data))}
    if suffix == "tar":
        return
    made = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    code = f"from saccade.data.load import load_data; d = load_data({str(path)!r}, 'train'); print(d.fingerprint(), int(d[3].image.sum()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert out.stdout.split() == [data.fingerprint(), str(int(data[3].image.sum()))]
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()} == made  # nothing was written again


def test_T1_archive_masks_are_copied_as_they_are(tmp_path):
    mask = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(mask, "PNG")
    files = {f"{f}/{k}.png": png(k, (2, 2)) if f == "images" else mask.getvalue() for f in ("images", "masks") for k in range(2)}
    data = load_data(pack(tmp_path / "m.zip", files))
    assert data.index.format == "masks"
    assert data[0].target["mask"].tolist() == [[0, 1], [1, 0]]
    write_data(data, tmp_path / "out", "masks")
    assert (tmp_path / "out" / "masks" / "0.png").read_bytes() == mask.getvalue()


# ------------------------------------------------------------------------------------------------------------ what it means


def test_T1_archive_the_top_folder_is_the_root(tmp_path):
    flat = {name.partition("/")[2]: data for name, data in FILES.items() if name.startswith("train")}
    assert load_data(pack(tmp_path / "a.zip", flat, "set-1/")).classes == ["cat", "zebra"]
    split = load_data(pack(tmp_path / "b.zip", flat, "train/"))  # a split's folder is not thrown away
    assert (split.classes, list(split.index.splits)) == (["cat", "zebra"], ["train"])
    junk = {**{f"x/{n}": d for n, d in flat.items()}, "__MACOSX/x/._a": b"1", ".DS_Store": b"2", "x/.hidden.png": b"3"}
    assert load_data(pack(tmp_path / "c.zip", junk)).index.problems == []


def test_T1_archive_that_changes(tmp_path, cache):
    path = pack(tmp_path / "a.zip", FILES)
    data = load_data(path)
    assert data[0].image.shape == (3, 4, 6)
    more = {**FILES, "train/cat/9.png": png(7)}
    pack(path, more)
    with pytest.raises(DataError, match=r"a\.zip: has changed since"):
        data[0]
    assert len(load_data(path)) == 13
    assert len(list((cache / "archives").iterdir())) == 1  # the old shadow is gone
    fresh = load_data(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.zip: does not exist any more"):
        fresh[0]
    with pytest.raises(DataError, match="does not exist"):
        load_data(path)


def test_T1_archive_a_stub_counts_only_in_the_cache(tmp_path, cache):
    data = load_data(pack(tmp_path / "a.zip", FILES))
    stub = data.path(data.record(0))
    shutil.copy(stub, tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: is no image"):
        read_image(tmp_path / "x.png")
    assert file_bytes(tmp_path / "x.png") == stub.read_bytes()
    shutil.copy(stub, cache / "x.png")
    with pytest.raises(DataError, match="is no image"):
        read_image(cache / "x.png")


@pytest.mark.parametrize(
    "fields",
    [
        {"archive": "/etc/passwd", "offset": 0, "size": 10, "packed": 10, "method": 0, "crc": None},
        {"offset": 0, "size": 10, "packed": 10, "method": 0, "crc": None},
        {"offset": -5, "size": 10, "packed": 10, "method": 0, "crc": None},
        {"offset": 10**30, "size": 10, "packed": 10, "method": 0, "crc": None},
        {"offset": 0, "size": 10**12, "packed": 10**12, "method": 0, "crc": None},
        {"offset": 0, "size": "x", "packed": 1, "method": 0, "crc": None},
        {"offset": 0, "size": 100, "packed": 10, "method": 8, "crc": 1},
        [1],
    ],
)
def test_T1_archive_a_stub_inside_an_archive_leads_nowhere(tmp_path, fields):
    """A compressed tar's files are unpacked, so a hostile one can hold a stub: it reads bytes of its own archive at most."""
    files = {**FILES, "train/cat/0.png": STUB + json.dumps(fields).encode()}
    data = load_data(pack(tmp_path / "a.tar.gz", files))
    with pytest.raises(DataError) as error:
        data[next(i for i in range(len(data)) if data.record(i).path == "train/cat/0.png")]
    assert "a.tar.gz/train/cat/0.png" in one_line(error.value)


def test_T1_archive_errors_of_images_name_the_archive(tmp_path):
    data = load_data(pack(tmp_path / "a.zip", {**FILES, "train/cat/0.png": b"no image"}))
    number = next(i for i in range(len(data)) if data.record(i).path == "train/cat/0.png")
    with pytest.raises(DataError, match=r"a\.zip/train/cat/0\.png: is no image"):
        data[number]
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    at = raw.find(b"no image")
    state = os.stat(tmp_path / "a.zip")
    if at < 0:  # deflated
        at = raw.find(b"train/cat/0.png") + 16
    raw[at] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(raw)
    os.utime(tmp_path / "a.zip", ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(DataError, match="is broken") as error:
        data[number]
    assert "a.zip/train/cat/0.png" in one_line(error.value)


# ---------------------------------------------------------------------------------------------------------------- hostile


def test_T1_archive_names_that_leave_are_not_written(tmp_path, cache):
    bad = ["../evil.txt", "a/../../evil.txt", "/tmp/evil-saccade.txt", "..\\evil.txt", "C:/evil.txt", "train/../../../../evil.png"]
    for suffix in ("zip", "tar", "tar.gz"):
        path = pack(tmp_path / f"a.{suffix}", {**FILES, **dict.fromkeys(bad, b"evil")})
        data = load_data(path)
        assert len(data) == 12
        said = [one_line(p) for p in data.index.problems if "leaves the folder" in str(p)]
        assert len(said) == len(bad)
        assert all(f"a.{suffix}: the entry" in text for text in said)
    assert not [p for top in (tmp_path.parent, cache.parent, Path("/tmp")) for p in top.glob("*evil*")]
    assert not list(cache.rglob("*evil*"))


def special(path: Path, kind, link="../../../../etc/passwd"):
    """FILES and one member that is no file."""
    if path.suffix == ".zip":
        pack(path, FILES)
        with zipfile.ZipFile(path, "a") as out:
            info = zipfile.ZipInfo("train/cat/x.png")
            info.create_system = 3
            info.external_attr = ({"link": stat.S_IFLNK, "device": stat.S_IFCHR, "fifo": stat.S_IFIFO}[kind] | 0o777) << 16
            out.writestr(info, link)
    else:
        pack(path, FILES)
        with tarfile.open(path, "a") as out:
            info = tarfile.TarInfo("train/cat/x.png")
            info.type = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "fifo": tarfile.FIFOTYPE}[kind]
            info.linkname = link
            out.addfile(info)
    return path


@pytest.mark.parametrize(
    ("suffix", "kind"), [("zip", "link"), ("zip", "device"), ("zip", "fifo")] + [("tar", k) for k in ("link", "hard", "device", "fifo")]
)
def test_T1_archive_links_and_devices_are_skipped(tmp_path, cache, suffix, kind):
    data = load_data(special(tmp_path / f"a.{suffix}", kind))
    assert len(data) == 12
    assert "'train/cat/x.png' is " in one_line(data.index.problems[0])
    assert not list(cache.rglob("x.png"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_T1_archive_duplicate_and_clashing_names(tmp_path):
    for suffix in ("zip", "tar"):
        path = tmp_path / f"a.{suffix}"
        names = ["a/x.png", "a/x.png", "b/y.png", "b", "b/y.png/z.txt", "A/X.png", "a/X.png"]
        if suffix == "zip":
            with zipfile.ZipFile(path, "w") as out:
                for k, name in enumerate(names):
                    out.writestr(name, png(k))
        else:
            with tarfile.open(path, "w") as out:
                for k, name in enumerate(names):
                    info = tarfile.TarInfo(name)
                    info.size = len(png(k))
                    out.addfile(info, io.BytesIO(png(k)))
        shadow = archive.open_archive(path)
        said = [one_line(p) for p in shadow.problems]
        assert len([t for t in said if "stands twice, or as a file and a folder" in t]) >= 3
        assert read_image(shadow.root / "a" / "x.png")[0, 0, 0] == 0  # the first one
        data = read_data(path)
        assert "b/y.png" in [r.path for r in data.records]


def test_T1_archive_bombs_are_refused_before_anything_is_written(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_BYTES", 2**20)
    zeros = bytes(60_000_000)
    for suffix in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz"):
        path = pack(tmp_path / f"bomb.{suffix}", {**FILES, "notes.txt": zeros})
        if suffix == "tar":  # not packed: within the ratio
            monkeypatch.setattr(archive, "MAX_BYTES", 10_000_000)
        with pytest.raises(DataError, match=r"bomb\.\S+: unpacks to more than") as error:
            load_data(path)
        one_line(error.value)
        monkeypatch.setattr(archive, "MAX_BYTES", 20 * 2**30)
    assert not list((cache / "archives").iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 5000))
    with pytest.raises(DataError, match="half of the free disk"):
        load_data(pack(tmp_path / "a.zip", FILES))


def test_T1_archive_a_zip_that_understates_its_size(tmp_path):
    path = pack(tmp_path / "a.zip", {"classes.txt": b"x" * 100_000, **FILES})
    raw = bytearray(path.read_bytes())
    for at in (raw.find(b"PK\1\2") + 24, raw.find(b"PK\3\4") + 22):
        raw[at : at + 4] = struct.pack("<I", 10)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.zip: classes\.txt: is broken"):
        load_data(path)


def test_T1_archive_an_image_that_inflates_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_IMAGE", 1000)
    data = load_data(pack(tmp_path / "a.zip", {**FILES, "train/cat/big.png": bytes(2000)}))
    assert len(data) == 12
    assert "'train/cat/big.png' is an image of more than" in one_line(data.index.problems[0])


def test_T1_archive_encrypted(tmp_path):
    path = pack(tmp_path / "a.zip", FILES)
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.zip: train/cat/0\.png: is encrypted \(unpack it with its password\)"):
        load_data(path)


def test_T1_archive_other_compression_is_skipped(tmp_path):
    path = pack(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as out:
        out.writestr("train/cat/x.png", png(1))
    data = load_data(path)
    assert len(data) == 12
    assert "compressed by method 14" in one_line(data.index.problems[0])


def test_T1_archive_names_that_are_not_utf8_too_long_or_deep(tmp_path):
    odd = {
        "train/cat/\udcff.png": png(1),
        "train/cat/" + "n" * 300 + ".png": png(1),
        "d/" * 2000 + "x.png": png(1),
        "e/" * 70 + "y.txt": b"1",
    }
    path = tmp_path / "a.tar"
    pack(path, {**FILES, **odd})
    data = load_data(path)
    assert len(data) == 12
    said = [one_line(p) for p in data.index.problems]
    for expected in ("not UTF-8", "is no usable name", "folders deep"):
        assert any(expected in text for text in said)
    dos = tmp_path / "dos.zip"
    pack(dos, {"a/M\u00fcller.png": png(1), "b/x.png": png(2)})
    raw = dos.read_bytes().replace("ü".encode(), b"\x81x")  # as DOS wrote it, and without the flag for UTF-8
    fixed = bytearray(raw)
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = fixed.find(mark)
        fixed[at + place : at + place + 2] = b"\0\0"
    dos.write_bytes(fixed)
    assert "a/Müxller.png" in [r.path for r in load_data(dos).index.records]


def test_T1_archive_inside_an_archive(tmp_path):
    inner = pack(tmp_path / "inner.zip", FILES).read_bytes()
    data = load_data(pack(tmp_path / "a.zip", {**FILES, "more.zip": inner}))
    assert "'more.zip' is an archive itself; it is not opened" in one_line(data.index.problems[0])
    assert len(data) == 12


def test_T1_archive_a_million_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 11)
    for suffix in ("zip", "tar", "tar.gz"):
        with pytest.raises(DataError, match="more than 11 members"):
            load_data(pack(tmp_path / f"a.{suffix}", FILES))


def test_T1_archive_many_members_in_little_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "a.zip"
    head = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0)
    table = b"".join(head + b"%010d" % k for k in range(20_000))
    path.write_bytes(b"PK\5\6" + table + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(table), 4, 0))
    tracemalloc.start()
    assert sum(1 for _ in archive._zip_members(path)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


BROKEN = {
    "empty": lambda raw: b"",
    "text": lambda raw: b"this is no archive",
    "one byte": lambda raw: raw[:1],
    "half": lambda raw: raw[: len(raw) // 2],
    "the end is missing": lambda raw: raw[:-30] if raw[:2] == b"PK" else raw[: len(raw) * 2 // 3],
    "zeros": lambda raw: bytes(len(raw)),
    "a broken middle": lambda raw: raw[: len(raw) // 2] + bytes(600) + raw[len(raw) // 2 + 600 :],
    "html": lambda raw: b"<!DOCTYPE html><html>404</html>",
}


@pytest.mark.parametrize("suffix", ["zip", *TARS])
@pytest.mark.parametrize("name", BROKEN)
def test_T1_archive_broken(tmp_path, cache, suffix, name):
    path = pack(tmp_path / f"a.{suffix}", {**FILES, "classes.txt": b"cat\nzebra\n" * 1000})
    path.write_bytes(BROKEN[name](path.read_bytes()))
    try:
        data = load_data(path, format="imagefolder")
        for k in range(len(data)):
            data[k]
    except SaccadeError as error:
        assert f"a.{suffix}" in one_line(error)  # noqa: PT017
    else:
        pytest.fail("nothing is said")
    for left in (cache / "archives").glob(".*"):
        pytest.fail(f"{left} is left")


def test_T1_archive_gzip_that_is_no_tar(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"hello" * 1000))
    with pytest.raises(DataError, match=r"a\.tar\.gz: is neither zip nor tar"):
        load_data(tmp_path / "a.tar.gz")
    (tmp_path / "b.tar.xz").write_bytes(lzma.compress(b"x" * 5000, preset=lzma.PRESET_DEFAULT, filters=None))
    with pytest.raises(DataError, match="is neither zip nor tar"):
        load_data(tmp_path / "b.tar.xz")
    big = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]
    (tmp_path / "c.tar.xz").write_bytes(lzma.compress(b"x" * 5000, filters=big))
    with pytest.raises(DataError, match=r"c\.tar\.xz"):  # asks for a gigabyte of memory
        load_data(tmp_path / "c.tar.xz")


def test_T1_archive_tar_headers_that_lie(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "long.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(20_000))
    with pytest.raises(DataError, match=r"long\.tar: is .*header of 8589934592 bytes"):
        load_data(tmp_path / "long.tar")
    info = tarfile.TarInfo("train/cat/x.png")
    info.size = 2**40
    (tmp_path / "big.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(20_000))
    with pytest.raises(DataError, match=r"big\.tar: is "):
        load_data(tmp_path / "big.tar")


def test_T1_archive_zip64_and_bytes_before_the_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in FILES.items():
            with out.open(name, "w", force_zip64=True) as file:
                file.write(data)
    plain = load_data(path)
    table = next(archive._zip_members(path))
    assert (table.name, table.size) == ("train/cat/0.png", len(FILES["train/cat/0.png"]))
    raw = path.read_bytes()
    size, start, _ = archive._zip_table(io.BytesIO(raw), path)
    end = raw.rfind(b"PK\5\6")
    big = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 12, 12, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "b.zip").write_bytes(raw[:end] + big + locator + last)
    with zipfile.ZipFile(tmp_path / "b.zip") as oracle:
        assert len(oracle.namelist()) == 12
    same(load_data(tmp_path / "b.zip"), plain)
    assert archive._zip64(struct.pack("<2H2Q", 1, 16, 5, 7), 0xFFFFFFFF, 3, 0xFFFFFFFF) == (5, 3, 7)
    assert archive._zip64(b"", 0xFFFFFFFF, 3, 4) == (0xFFFFFFFF, 3, 4)
    with open(tmp_path / "c.zip", "wb") as out:
        out.write(b"PK\3\4" + b"#!/bin/sh, a stub of a self-extractor" + raw)
    same(load_data(tmp_path / "c.zip"), plain)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_T1_archive_a_cache_that_cannot_be_written(tmp_path, cache):
    cache.chmod(0o500)
    with pytest.raises(DataError, match="set SACCADE_CACHE"):
        load_data(pack(tmp_path / "a.zip", FILES))
    cache.chmod(0o700)


def test_T1_archive_is_told_by_its_name(tmp_path):
    pack(tmp_path / "a.zip", FILES)
    for name in ("a.ZIP", "b.tar.gz", "c.tgz", "d.TBZ2"):
        (tmp_path / name).write_bytes(b"x")
        assert archive.is_archive(tmp_path / name)
    (tmp_path / "folder.zip").mkdir()
    assert not archive.is_archive(tmp_path / "folder.zip")
    assert not archive.is_archive(tmp_path / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(UsageError, match="no data format"):
        read_data(tmp_path / "a.zip", "nix")
    with pytest.raises(UsageError, match="no option 'nix'"):
        read_data(tmp_path / "a.zip", nix=1)


@FUZZ
@given(st.sampled_from(["zip", "tar", "tar.gz"]), st.floats(0, 1), st.binary(min_size=1, max_size=8), st.integers(0, 4))
def test_T1_archive_any_bytes_give_data_or_one_line(tmp_path_factory, suffix, place, change, cut):
    path = pack(tmp_path_factory.mktemp("fuzz") / f"a.{suffix}", {"a/1.png": png(1), "b/2.png": png(2), "classes.txt": b"a\nb\n"}, "top/")
    raw = path.read_bytes()
    at = int(place * len(raw))
    path.write_bytes(raw[:at] + change + raw[at + cut :])
    try:
        data = load_data(path)
        for problem in data.index.problems:
            one_line(problem)
        for k in range(len(data)):
            data[k]
    except SaccadeError as error:
        one_line(error)


def test_T1_archive_opened_by_several_at_once(tmp_path, cache):
    from concurrent.futures import ThreadPoolExecutor

    path = pack(tmp_path / "a.zip", FILES)
    with ThreadPoolExecutor(6) as pool:
        roots = {shadow.root for shadow in pool.map(archive.open_archive, [path] * 6)}
    assert len(roots) == 1
    assert [p.name for p in (cache / "archives").iterdir()] == [next(iter(roots)).parent.name]
