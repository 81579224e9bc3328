"""BSDS500: the real files against SciPy's reader, hand-made .mat files, hostile ones."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import bsds, detect_format, read_data, write_data
from saccade.data.polygons import mask_to_rle
from saccade.types.errors import DataError, SaccadeError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
REGIONS = np.array([[1, 1, 2], [3, 1, 2]], np.uint16)  # 2 high, 3 wide


def mat(*people, name="groundTruth", compress=True, **more):
    """A file as SciPy writes it: a cell of structs."""
    from scipy.io import savemat

    cell = np.empty((1, len(people)), dtype=object)
    for k, values in enumerate(people):
        cell[0, k] = (
            {"Segmentation": values, "Boundaries": np.zeros(np.shape(values), np.uint8)} if isinstance(values, np.ndarray) else values
        )
    out = io.BytesIO()
    savemat(out, {**more, name: cell}, do_compression=compress)
    return out.getvalue()


def make(folder: Path, mats, split="test", size=(3, 2), images=None) -> Path:
    for sub in ("images", "groundTruth"):
        (folder / sub / split).mkdir(parents=True, exist_ok=True)
    for name, data in mats.items():
        (folder / "groundTruth" / split / f"{name}.mat").write_bytes(data)
    for name in images or mats:
        Image.new("RGB", size, (9, 80, 200)).save(folder / "images" / split / f"{name}.jpg", "JPEG")
    return folder


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------------ real files


def test_T1_bsds_counts_of_the_readme(real):
    assert detect_format(real("bsds500")) == ("bsds", "67 .mat files in groundTruth")
    index = read_data(real("bsds500"))
    assert (len(index), index.classes, index.tasks, index.problems) == (67, ["region"], ("detect",), [])
    assert {s: len(v) for s, v in index.splits.items()} == {"test": 67}
    annotators = [r.extra["annotators"] for r in index.records]
    assert {n: annotators.count(n) for n in set(annotators)} == {5: 46, 6: 19, 7: 2}
    assert {r.size for r in index.records} == {(321, 481), (481, 321)}
    assert len(read_data(real("bsds500"), annotator=5)) == sum(a > 5 for a in annotators)


@pytest.mark.parametrize("annotator", [0, 3])
def test_T1_bsds_regions_equal_scipy_s(real, annotator):
    from scipy.io import loadmat

    index = read_data(real("bsds500"), annotator=annotator)
    for number in (0, 17, 40, 66):
        record = index.records[number]
        cell = loadmat(real("bsds500") / "groundTruth" / "test" / f"{record.image_id}.mat")["groundTruth"]
        truth = cell[0, annotator]["Segmentation"][0, 0]
        assert cell.shape[1] == record.extra["annotators"]
        assert np.array_equal(
            bsds.read_segmentation(real("bsds500") / "groundTruth" / "test" / f"{record.image_id}.mat", annotator)[0], truth
        )
        masks = Dataset(index)[number].target["masks"].numpy()
        assert (masks.sum(0) == 1).all()  # together they cover the image, each pixel once
        numbers = np.unique(truth)
        assert np.array_equal(numbers[masks.argmax(0)], truth)
        for k, value in enumerate(numbers):
            ys, xs = np.nonzero(truth == value)
            assert record.boxes[k].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert record.segments[k] == mask_to_rle(truth == value)


# -------------------------------------------------------------------------------------------------------- what it means


@pytest.mark.parametrize("compress", [True, False])
def test_T1_bsds_by_hand(tmp_path, compress):
    data = mat(REGIONS, np.array([[0, 7, 7], [0, 7, 7]], np.uint8), compress=compress, note="text", number=3.5)
    root = make(tmp_path / "BSDS500" / "data", {"a": data}, "val")
    make(root, {"a": mat(np.ones((2, 3)), compress=compress)}, "train")
    index = read_data(tmp_path)
    assert index.root == root
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0], "val": [1]}
    assert [r.image_id for r in index.records] == ["a", "val/a"]
    assert index.records[0].boxes.tolist() == [[0, 0, 3, 2]]
    record = index.records[1]
    assert record.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 3, 2], [0, 1, 1, 2]]
    masks = Dataset(index)[1].target["masks"].numpy()
    assert np.array_equal((masks * np.array([1, 2, 3])[:, None, None]).sum(0), REGIONS)
    second = read_data(tmp_path, annotator="1")
    assert [(r.boxes.tolist(), r.labels.tolist(), r.extra) for r in second.records] == [([[1, 0, 3, 2]], [0], {"annotators": 2})]
    assert "a.mat: is broken: holds 1 segmentations; number 1" in one_line(second.problems[0])  # 0 is no region
    with pytest.raises(UsageError, match="number of a person"):
        read_data(tmp_path, annotator=-1)


def test_T1_bsds_is_not_written(tmp_path):
    data = Dataset(read_data(make(tmp_path / "d", {"a": mat(REGIONS)})))
    with pytest.raises(UsageError, match="is only read: it holds segmentations by several people"):
        write_data(data, tmp_path / "out", "bsds")
    assert write_data(data, tmp_path / "out", "coco") == ["1 image ids are not numbers: they become 1 to 1"]
    again = Dataset(read_data(tmp_path / "out"))
    assert np.array_equal(again[0].target["masks"], data[0].target["masks"])


def test_T1_bsds_sniff(tmp_path):
    assert bsds.sniff(tmp_path) is None
    make(tmp_path, {"a": b"no mat"})
    assert bsds.sniff(tmp_path) is None
    make(tmp_path, {"b": mat(REGIONS)})
    assert bsds.sniff(tmp_path) == "2 .mat files in groundTruth"


def test_T1_bsds_missing_halves(tmp_path):
    make(tmp_path, {"a": mat(REGIONS), "b": mat(REGIONS), "c": mat(REGIONS.T)}, images=["a", "x", "c"])
    index = read_data(tmp_path)
    assert [r.image_id for r in index.records] == ["a"]
    said = " | ".join(map(one_line, index.problems))
    assert "b.mat: its image b.* is missing" in said
    assert "x.jpg: has no .mat" in said
    assert "c.mat: its segmentation is 2x3, the image 3x2" in said


# -------------------------------------------------------------------------------------------------------------- bad files

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"


def element(kind, body):
    return struct.pack("<2I", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(kind, shape, *content, name=b"groundTruth"):
    body = element(6, struct.pack("<2I", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name)
    return element(14, body + b"".join(content))


def nested(depth):
    """Cells in cells. (SciPy's reader calls itself for each.)"""
    inner = matrix(9, (1, 1), element(2, b"\1"), name=b"")
    for _ in range(depth):
        inner = matrix(1, (1, 1), inner, name=b"groundTruth")
    return inner


def zipped(body):
    data = zlib.compress(body, 9)
    return HEAD + struct.pack("<2I", 15, len(data)) + data


WHOLE = mat(REGIONS)
BROKEN = {
    "empty": b"",
    "short": WHOLE[:100],
    "no elements": WHOLE[:128],
    "truncated": WHOLE[:-20],
    "half": WHOLE[: len(WHOLE) // 2 + 64],
    "a zip bomb": zipped(bytes(200_000_000)),
    "text": b"MATLAB is a program".ljust(400),
    "version 7.3": b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF\r\n\x1a\n",
    "another variable": mat(REGIONS, name="gt"),
    "a number": mat(REGIONS)[:128] + matrix(9, (1, 1), element(2, b"\1")),
    "no people": HEAD + matrix(1, (1, 0)),
    "cells in cells": HEAD + nested(3000),
    "a function": HEAD + matrix(1, (1, 1), matrix(16, (1, 1), name=b"")),
    "no struct": mat("text"),
    "no Segmentation": mat({"Boundaries": REGIONS}),
    "a text": mat({"Segmentation": "text"}),
    "a struct": mat({"Segmentation": {"a": 1}}),
    "complex": mat({"Segmentation": REGIONS * 1j}),
    "fractions": mat({"Segmentation": REGIONS + 0.5}),
    "negative": mat({"Segmentation": -REGIONS.astype(int)}),
    "NaN": mat({"Segmentation": np.full((2, 3), np.nan)}),
    "large numbers": mat({"Segmentation": REGIONS * 1e6}),
    "three dimensions": mat({"Segmentation": np.ones((2, 3, 2))}),
    "no pixels": mat({"Segmentation": np.ones((0, 3))}),
    "another size": mat(np.ones((5, 5))),
    "huge size": HEAD + matrix(1, (2**31 - 1, 2**31 - 1)),
    "negative size": HEAD + matrix(1, (-1, 1)),
    "many dimensions": HEAD + matrix(1, (1,) * 200),
    "element beyond the end": HEAD + struct.pack("<2I", 14, 2**32 - 1),
    "small element of 60000 bytes": HEAD + struct.pack("<2I", 14 | 60000 << 16, 0),
    "not zlib": HEAD + struct.pack("<2I", 15, 20) + b"x" * 20,
    "endless names": HEAD + matrix(1, (1, 1), matrix(2, (1, 1), element(5, struct.pack("<i", 2**31 - 1)), element(1, b"x" * 64), name=b"")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_bsds_a_broken_file_is_reported_and_the_others_are_read(tmp_path, name):
    index = read_data(make(tmp_path, {"a": BROKEN[name], "b": WHOLE}), "bsds")
    assert [r.image_id for r in index.records] == ["b"]
    assert "a.mat" in one_line(index.problems[0])
    assert len(index.problems) == 1


def test_T1_bsds_only_broken_files_and_links(tmp_path):
    with pytest.raises(DataError, match=r"no usable image .*a\.mat"):
        read_data(make(tmp_path / "d", {"a": HEAD}), "bsds")
    make(tmp_path / "e", {"a": WHOLE, "b": WHOLE})
    secret = tmp_path / "secret.mat"
    (tmp_path / "e" / "groundTruth" / "test" / "b.mat").rename(secret)
    (tmp_path / "e" / "groundTruth" / "test" / "b.mat").symlink_to(secret)
    index = read_data(tmp_path / "e")
    assert len(index) == 1
    assert "link" in one_line(index.problems[0])


@FUZZ
@given(st.integers(0, 700), st.binary(max_size=12), st.booleans(), st.integers(0, 900))
def test_T1_bsds_any_bytes_give_data_or_one_line(tmp_path_factory, place, change, compress, length):
    data = mat(REGIONS, REGIONS, compress=compress)
    data = (data[:place] + change + data[place + len(change) :])[: max(length, 130) if length < 800 else None]
    try:
        index = read_data(make(tmp_path_factory.mktemp("fuzz"), {"a": data}), "bsds")
        for k in range(len(index)):
            Dataset(index)[k]
    except SaccadeError as error:
        one_line(error)
