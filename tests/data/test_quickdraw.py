"""Quick, Draw!: both forms by hand-made files, the drawing, malformed files, write-then-read."""

import json
import pickle
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, quickdraw, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.strokes import StrokeReader, check_options, draw, pack, unpack
from saccade.types.errors import DataError, SaccadeError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

SQUARE = [[[0, 255, 255, 0, 0], [0, 0, 255, 255, 0]], [[100, 150], [120, 130]]]
RAW = [[[10.5, 300.25], [-4, 20.125], [0, 17]], [[20], [30], [44]]]


def line(word="cat", drawing=SQUARE, **more):
    facts = {"countrycode": "DE", "timestamp": "2017-03-01 10:00:00.00000 UTC", "recognized": True, "key_id": "5201136883597312"}
    return json.dumps({"word": word, **facts, "drawing": drawing, **more})


def record(drawing=SQUARE, key=7, country=b"FR", recognized=1, stamp=1488362400):
    out = struct.pack("<Q2sbIH", key, country, recognized, stamp, len(drawing))
    for x, y in drawing:
        out += struct.pack("<H", len(x)) + bytes(x) + bytes(y)
    return out


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


# -------------------------------------------------------------------------------------------------------- what it means


def test_T1_quickdraw_ndjson(tmp_path):
    (tmp_path / "zebra.ndjson").write_text(line("zebra") + "\n\n" + line("zebra", RAW, key_id="8", recognized=False) + "\n")
    (tmp_path / "ant.ndjson").write_text(line("ant", key_id="9"))
    assert detect_format(tmp_path) == ("quickdraw", "2 files of Quick, Draw! (ndjson)")
    index = read_data(tmp_path, size=32)
    assert (index.classes, index.tasks, index.splits, index.problems) == (["ant", "zebra"], ("classify",), {}, [])
    assert [(r.image_id, r.label, r.size) for r in index.records] == [
        ("9", 0, (32, 32)),
        ("5201136883597312", 1, (32, 32)),
        ("8", 1, (32, 32)),
    ]
    first, raw = index.records[1].extra, index.records[2].extra
    assert [s.T.tolist() for s in unpack(first["strokes"])] == SQUARE
    assert first["strokes"]["points"].dtype == np.uint8
    assert [s.T.tolist() for s in unpack(raw["strokes"])] == RAW
    assert (first["countrycode"], raw["recognized"], first["timestamp"][:4]) == ("DE", False, "2017")
    data = Dataset(index)
    assert data[0].image.shape == (1, 32, 32)
    assert len(read_data(tmp_path / "ant.ndjson")) == 1
    assert len(read_data(tmp_path, limit=1)) == 2
    assert index.records.nbytes / len(index) < 700


def test_T1_quickdraw_binary(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "train" / "full_binary_cat.bin").write_bytes(record() + record([[[1], [2]]], key=2**63, recognized=0))
    (tmp_path / "test" / "train.bin").write_bytes(record(key=9))  # a word of Quick, Draw!
    index = read_data(tmp_path)
    assert (index.format, index.classes, index.problems) == ("quickdraw", ["cat", "train"], [])
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [1, 2], "test": [0]}
    assert [r.image_id for r in index.records] == ["9", "7", str(2**63)]
    extra = index.records[1].extra
    assert [s.T.tolist() for s in unpack(extra["strokes"])] == SQUARE
    assert (extra["countrycode"], extra["timestamp"], extra["recognized"]) == ("FR", 1488362400, True)


def test_T1_quickdraw_the_drawing():
    """A horizontal line of width 4 in 64 pixels: 58 pixels between the centres of its round ends."""
    picture = draw(pack([np.array([[0, 5], [255, 5]])]), 64, 4.0)
    assert picture.dtype == np.uint8
    assert (picture[31:33, 4:60] == 0).all()
    assert (picture[[28, 35]] == 255).all()
    assert np.abs(255 - picture[:, 32].astype(float)).sum() / 255 == pytest.approx(4, abs=0.5)
    assert (picture[:, [0, 63]] == 255).all()
    assert np.abs(picture[31].astype(int) - picture[31, ::-1]).max() <= 64  # symmetric but for the sampling
    ink = 255 - picture.astype(float)
    centre = (ink * (np.arange(64) + 0.5)).sum() / ink.sum()
    assert centre == pytest.approx(32, abs=0.25)
    assert (ink.T * (np.arange(64) + 0.5)).sum() / ink.sum() == pytest.approx(32, abs=0.25)


def test_T1_quickdraw_drawing_ignores_place_and_scale():
    base = np.array([[0, 0], [200, 40], [30, 100]], float)
    pictures = [draw(pack([base * s + t])) for s, t in ((1, 0), (1, 55), (0.25, 9.5), (1000, -1e5))]
    for other in pictures[1:]:
        assert np.abs(other.astype(int) - pictures[0]).max() <= 32
    dot = draw(pack([np.array([[17, 99]])]), 28, 3)
    assert dot.min() == 0
    assert 4.5 < (255 - dot.astype(float)).sum() / 255 < 8  # a disc of diameter 3 has 7.07
    assert draw(pack([np.full((5, 2), 3e-320)])).min() == 0  # no extent that could be scaled


def test_T1_quickdraw_options_and_readers(tmp_path):
    (tmp_path / "cat.ndjson").write_text(line())
    data = Dataset(read_data(tmp_path, size="28", stroke=1))
    assert data[0].image.shape == (1, 28, 28)
    assert np.array_equal(pickle.loads(pickle.dumps(data))[0].image, data[0].image)
    assert data.with_channels(3)[0].image.shape == (3, 28, 28)
    thick = Dataset(read_data(tmp_path, size=28, stroke=3))
    assert thick[0].image.float().mean() < data[0].image.float().mean()
    for options in (
        {"size": 7},
        {"size": 5000},
        {"size": "x"},
        {"size": 32.5},
        {"stroke": 0},
        {"stroke": float("nan")},
        {"stroke": 60},
        {"limit": 0},
    ):
        with pytest.raises(UsageError):
            read_data(tmp_path, **options)
    assert check_options(100, None) == (100, 5.0)
    with pytest.raises(DataError, match="no mask"):
        StrokeReader(28, 1.0).mask(data.record(0))


def test_T1_quickdraw_sniff(tmp_path):
    assert quickdraw.sniff(tmp_path) is None
    (tmp_path / "other.ndjson").write_text('{"data_row": {"id": 1}}\n')
    (tmp_path / "other.bin").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "zero.bin").write_bytes(bytes(5000))
    assert quickdraw.sniff(tmp_path) is None
    with pytest.raises(DataError, match="holds no drawings"):
        quickdraw.read(tmp_path)
    (tmp_path / "cat.bin").write_bytes(record())
    assert quickdraw.sniff(tmp_path) == "4 files of Quick, Draw! (binary)"
    assert quickdraw.sniff(tmp_path / "cat.bin") == "a Quick, Draw! binary file"
    assert len(read_data(tmp_path)) == 1


# -------------------------------------------------------------------------------------------------------------- bad files

BAD_LINES = {
    "no JSON": "{",
    "a list": "[1]",
    "a number": "5",
    "no word": json.dumps({"drawing": SQUARE}),
    "word a number": line(3),
    "word of a surrogate": '{"word": "\\ud800", "drawing": [[[1],[2]]]}',
    "no drawing": json.dumps({"word": "cat"}),
    "drawing a text": line(drawing="x"),
    "no stroke": line(drawing=[]),
    "empty strokes": line(drawing=[[[], []], []]),
    "one row": line(drawing=[[[1, 2]]]),
    "rows of two lengths": line(drawing=[[[1, 2], [3]]]),
    "four rows": line(drawing=[[[1], [2], [3], [4]]]),
    "texts": line(drawing=[[["1"], ["2"]]]),
    "null": line(drawing=[[[None], [1]]]),
    "NaN": '{"word": "cat", "drawing": [[[NaN], [1]]]}',
    "infinite": '{"word": "cat", "drawing": [[[1e999], [1]]]}',
    "huge": line(drawing=[[[10**30], [1]]]),
    "large": line(drawing=[[[1e7], [1]]]),
    "nested": '{"word": "cat", "drawing": ' + "[" * 100_000,
    "deep stroke": line(drawing=[[[[1]], [[2]]]]),
    "not UTF-8": b'{"word": "\xff", "drawing": [[[1],[2]]]}',
    "many digits": '{"word": "cat", "drawing": [[[' + "9" * 5000 + "],[2]]]}",
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_T1_quickdraw_a_bad_line_is_reported_and_the_others_are_read(tmp_path, name):
    bad = BAD_LINES[name]
    bad = bad if isinstance(bad, bytes) else bad.encode()
    (tmp_path / "cat.ndjson").write_bytes(line("cat").encode() + b"\n" + bad + b"\n" + line("cat", key_id="3").encode())
    index = read_data(tmp_path)
    assert [r.image_id for r in index.records] == ["5201136883597312", "3"]
    assert len(index.problems) == 1
    assert "cat.ndjson: line 2" in one_line(index.problems[0])
    (tmp_path / "cat.ndjson").write_bytes(bad)
    with pytest.raises(DataError) as error:
        read_data(tmp_path, "quickdraw")
    one_line(error.value)


def test_T1_quickdraw_odd_lines_that_are_fine(tmp_path):
    rows = ["\ufeff" + line(key_id=None), line(key_id=12), line(key_id=12), line(drawing=[[[1], [2]], [[], []]], key_id="x" * 99)]
    (tmp_path / "cat.ndjson").write_text("\n".join([*rows, line(drawing=[[[1], [2], [3]], [[4], [5]]])]) + "\n")
    index = read_data(tmp_path)
    assert index.problems == []
    assert [r.image_id for r in index.records][:3] == ["cat.ndjson#1", "12", "cat.ndjson#3"]
    assert len(index.records[3].extra["strokes"]["ends"]) == 1
    assert index.records[4].extra["strokes"]["points"].tolist() == [[1, 2], [4, 5]]  # times only where all strokes have them


BAD_RECORDS = {
    "truncated header": (record()[:10], "ends inside a drawing"),
    "truncated stroke": (record()[:25], "ends inside a drawing"),
    "last byte": (record()[:-1], "ends inside a drawing"),
    "no strokes": (record([]), "no point"),
    "empty stroke": (record([[[], []]]), "no point"),
    "many strokes": (struct.pack("<Q2sbIH", 1, b"DE", 1, 1, 65535), "ends inside a drawing"),
    "many points": (struct.pack("<Q2sbIHH", 1, b"DE", 1, 1, 1, 65535), "ends inside a drawing"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_T1_quickdraw_a_bad_record_is_reported(tmp_path, name):
    data, expected = BAD_RECORDS[name]
    (tmp_path / "cat.bin").write_bytes(record() + data)
    index = read_data(tmp_path, "quickdraw")
    assert len(index) == 1
    assert expected in one_line(index.problems[0])
    assert "cat.bin: record 2" in str(index.problems[0])


def test_T1_quickdraw_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(quickdraw, "_MAX_LINE", 4096)
    monkeypatch.setattr(quickdraw, "_MAX_BINARY", 100)
    (tmp_path / "cat.ndjson").write_text(line() + "\n" + line(drawing=[[[1] * 3000, [2] * 3000]]) + "\n" + line() + "\n")
    (tmp_path / "dog.bin").write_bytes(record() * 10)
    index = read_data(tmp_path)
    assert len(index) == 1
    said = " | ".join(map(one_line, index.problems))
    assert "line 2" in said
    assert "dog.bin: is larger" in said


@FUZZ
@given(st.booleans(), st.integers(0, 300), st.binary(max_size=8), st.integers(0, 400))
def test_T1_quickdraw_any_bytes_give_data_or_one_line(tmp_path_factory, binary, place, change, length):
    data = record() + record([[[1, 2], [3, 4]]] * 3) if binary else (line() + "\n" + line(drawing=RAW)).encode()
    data = (data[:place] + change + data[place + len(change) :])[:length]
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / ("cat.bin" if binary else "cat.ndjson")).write_bytes(data)
    try:
        index = read_data(folder, "quickdraw")
        for k in range(len(index)):
            assert Dataset(index)[k].image.min() < 128
        for problem in index.problems:
            one_line(problem)
    except SaccadeError as error:
        one_line(error)


# ------------------------------------------------------------------------------------------------------ write then read

small = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=6).map(lambda p: np.array(p, float))
timed = st.lists(
    st.tuples(*[st.floats(-5000, 5000, width=32)] * 2, st.integers(0, 100_000)), min_size=1, max_size=6
).map(lambda p: np.array(p, float))  # fmt: skip
drawings = st.lists(small, min_size=1, max_size=4) | st.lists(timed, min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(drawings, st.integers(0, 2), st.sampled_from(["", "train", "test"])), min_size=1, max_size=4), st.booleans())
def test_T1_quickdraw_written_then_read(items, facts):
    classes = ["the Eiffel Tower", "ant", "é/ü"]
    extras = {"countrycode": "DE", "timestamp": "now", "recognized": False} if facts else {}
    records = [Record(str(k), f"10{k}", (64, 64), v, extra={"strokes": pack(d), **extras}) for k, (d, v, _) in enumerate(items)]
    splits = {s: np.array([k for k, item in enumerate(items) if item[2] == s]) for s in ("train", "test")}
    splits = {s: v for s, v in splits.items() if len(v)}
    index = DataIndex("made", Path("."), classes, PackedRecords(records), splits, ("classify",), reader=StrokeReader(64, 3.2))
    with tempfile.TemporaryDirectory() as folder:
        assert write_data(Dataset(index), Path(folder) / "out", "quickdraw") == []
        again = read_data(Path(folder) / "out")
        assert again.problems == []
        assert again.classes == classes
        ids = {s: {again.records[i].image_id for i in v} for s, v in again.splits.items()}
        assert ids == {s: {f"10{k}" for k in v} for s, v in splits.items()}
        by_id = {r.image_id: r for r in again.records}
        assert len(by_id) == len(records)
        for before in records:
            after = by_id[before.image_id]
            assert (after.label, after.size) == (before.label, before.size)
            assert {k: v for k, v in after.extra.items() if k != "strokes"} == extras
            for key in ("points", "ends"):
                ours, theirs = after.extra["strokes"][key], before.extra["strokes"][key]
                assert np.array_equal(ours, theirs)
                assert ours.dtype == theirs.dtype


def test_T1_quickdraw_other_strokes_are_scaled_and_pixels_refused(tmp_path):
    big = Record("a", "a", label=0, extra={"strokes": pack([np.array([[-100.0, 7], [410, 517]])])})
    index = DataIndex("made", tmp_path, ["x"], PackedRecords([big]), tasks=("classify",), reader=StrokeReader(64, 3.0))
    assert write_data(Dataset(index), tmp_path / "out", "quickdraw") == ["the coordinates of 1 drawings are scaled to 0..255 and rounded"]
    assert read_data(tmp_path / "out").records[0].extra["strokes"]["points"].tolist() == [[0, 0], [255, 255]]
    index.records = PackedRecords([big, Record("b", "b", label=0)])
    with pytest.raises(UsageError, match="1 of 2 images have none"):
        write_data(Dataset(index), tmp_path / "no", "quickdraw")
    assert not (tmp_path / "no").exists()
