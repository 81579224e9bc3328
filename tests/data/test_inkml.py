"""InkML: hand-made inks, prefixes, symbols, malformed files, write-then-read."""

import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.data.dataset import Dataset
from saccade.data.formats import inkml, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.strokes import StrokeReader, pack, unpack
from saccade.types.errors import DataError, SaccadeError, UsageError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NS = 'xmlns="http://www.w3.org/2003/InkML"'
TRACES = '<trace id="0">0 0, 100 0</trace><trace id="1">\n50 0 , 50 100\n</trace><trace id="2">75 75,75 75</trace>'
GROUPS = """<traceGroup xml:id="g"><annotation type="truth">Segmentation</annotation>
<traceGroup xml:id="a"><annotation type="truth">T</annotation><traceView traceDataRef="0"/><traceView traceDataRef="1"/></traceGroup>
<traceGroup xml:id="b"><annotation type="truth">\\cdot</annotation><traceView traceDataRef="#2"/></traceGroup></traceGroup>"""


def ink(*parts, truth="x", ns=NS):
    said = f'<annotation type="writer">me</annotation><annotation type="truth">{truth}</annotation>' if truth else ""
    return f"<ink {ns}>{said}{''.join(parts)}</ink>"


def make(folder: Path, files) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def one_line(error):
    text = str(error)
    assert "\n" not in text
    return text


def points(text, form=""):
    """Points of the one trace of an ink."""
    with tempfile.TemporaryDirectory() as folder:
        index = read_data(make(Path(folder), {"a.inkml": ink(form, f"<trace>{text}</trace>")}), "inkml")
    return index.records[0].extra["strokes"]["points"].tolist()


# -------------------------------------------------------------------------------------------------------- what it means


def test_T1_inkml_classes_of_whole_inks(tmp_path):
    make(
        tmp_path,
        {"train/a.inkml": ink(TRACES, truth="$x$"), "train/b.inkml": ink(TRACES, truth=" y \n z "), "test/c.inkml": ink(TRACES, ns="")},
    )
    index = read_data(tmp_path, size=50)
    assert (index.format, index.classes, index.tasks, index.problems) == ("inkml", ["$x$", "x", "y z"], ("classify",), [])
    assert [(r.image_id, r.label) for r in index.records] == [("test/c", 1), ("train/a", 0), ("train/b", 2)]
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [1, 2], "test": [0]}
    assert [s.tolist() for s in unpack(index.records[0].extra["strokes"])] == [
        [[0, 0], [100, 0]],
        [[50, 0], [50, 100]],
        [[75, 75], [75, 75]],
    ]
    assert Dataset(index)[0].image.shape == (1, 50, 50)
    assert len(read_data(tmp_path / "test" / "c.inkml")) == 1


def test_T1_inkml_classes_of_folders(tmp_path):
    make(
        tmp_path,
        {"train/plus/a.inkml": ink(TRACES, truth=""), "train/minus/b.inkml": ink(TRACES, truth=""), "c.inkml": ink(TRACES, truth="")},
    )
    index = read_data(tmp_path)
    assert index.classes == ["minus", "plus"]
    assert {s: v.tolist() for s, v in index.splits.items()} == {"train": [0, 1]}
    assert "c.inkml: has no <annotation" in one_line(index.problems[0])


def test_T1_inkml_symbols_are_objects(tmp_path):
    make(tmp_path, {"a.inkml": ink(TRACES, GROUPS, truth="$T\\cdot$"), "b.inkml": ink(TRACES, truth="$x$")})
    index = read_data(tmp_path, size=64, stroke=2)
    assert (index.classes, index.tasks) == (["T", "\\cdot"], ("detect", "caption"))
    record = index.records[0]
    assert record.captions == ["$T\\cdot$"]
    assert record.labels.tolist() == [0, 1]
    # 100 units take 64 - 2 - 2 = 60 pixels, from 2 on; half a stroke is a pixel
    assert record.boxes.tolist() == [[1, 1, 63, 63], [2 + 45 - 1, 2 + 45 - 1, 2 + 45 + 1, 2 + 45 + 1]]
    assert [g.tolist() for g in record.extra["groups"]] == [[0, 1], [2]]
    assert index.records[1].boxes.shape == (0, 4)
    assert "b.inkml: has no group of strokes" in one_line(index.problems[0])
    sample = Dataset(index)[0]
    dark = (sample.image[0] < 255).nonzero()
    assert dark.min(0).values.tolist() == [1, 1]
    assert dark.max(0).values.tolist() == [62, 62]
    assert sample.target["captions"] == ["$T\\cdot$"]
    whole = read_data(tmp_path, symbols=False)
    assert (whole.classes, whole.tasks) == (["$T\\cdot$", "$x$"], ("classify",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 2,3 4", [[1, 2], [3, 4]]),
        (" 1\n2 ,\t3.5 -4e1, ", [[1, 2], [3.5, -40]]),
        ("1-2,3-4", [[1, -2], [3, -4]]),
        ("10 20,'1'2,3 4", [[10, 20], [11, 22], [14, 26]]),
        ("10 20,'1'2,\"1\"1,1 1,!5!6", [[10, 20], [11, 22], [13, 25], [16, 29], [5, 6]]),
        ("1125 18432,'23'43,\"7\"-8,3-5,7-3", [[1125, 18432], [1148, 18475], [1178, 18510], [1211, 18540], [1251, 18567]]),
    ],
)
def test_T1_inkml_values_of_points(text, expected):
    assert points(text) == expected


def test_T1_inkml_channels():
    form = '<traceFormat><channel name="T"/><channel name="Y"/><channel name="X" type="decimal"/><channel name="F"/></traceFormat>'
    assert points("0 20 10 0.5, 7 40 30 0.5", form) == [[10, 20], [30, 40]]
    assert points("1 2 99, 3 4 98") == [[1, 2], [3, 4]]  # more values than X and Y, and no format: the first two


def test_T1_inkml_sniff(tmp_path):
    assert inkml.sniff(tmp_path) is None
    make(tmp_path, {"a.inkml": "<svg/>", "b.xml": ink(TRACES)})
    assert inkml.sniff(tmp_path) is None
    make(tmp_path, {"b.inkml": ink(TRACES)})
    assert inkml.sniff(tmp_path) == "2 InkML files"
    assert inkml.sniff(tmp_path / "b.inkml") == "an InkML file"
    assert inkml.sniff(make(tmp_path / "deep", {"train/x/c.inkml": ink(TRACES)})) == "1 InkML file"


# -------------------------------------------------------------------------------------------------------------- bad files

LAUGHS = "<!DOCTYPE l [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {chr(98 + i)} '{('&' + chr(97 + i) + ';') * 10}'>" for i in range(8)) + "]>"
BROKEN = {
    "empty": "",
    "truncated": ink(TRACES)[:90],
    "bytes": bytes(range(256)),
    "two roots": ink(TRACES) * 2,
    "another root": "<svg><trace>1 2</trace></svg>",
    "external entity": '<!DOCTYPE ink [<!ENTITY s SYSTEM "file:///etc/passwd">]>' + ink("<trace>&s;</trace>"),
    "a billion laughs": LAUGHS + ink("<trace>&i;</trace>"),
    "nested": "<ink>" * 50_000,
    "no trace": ink(),
    "empty trace": ink("<trace/>"),
    "no X": ink('<traceFormat><channel name="Y"/></traceFormat>', TRACES),
    "one value": ink("<trace>1,2,3</trace>"),
    "words": ink("<trace>a b</trace>"),
    "NaN": ink("<trace>nan 2</trace>"),
    "infinite": ink("<trace>inf 2, 1 2</trace>"),
    "huge": ink("<trace>1e300 2</trace>"),
    "a repeat": ink("<trace>1 2,* *</trace>"),
    "unknown": ink("<trace>1 2,? 3</trace>"),
    "hexadecimal": ink("<trace>#F #A</trace>"),
    "difference first": ink("<trace>'1'2</trace>"),
    "uneven": ink("<trace>1 2, 3</trace>"),
    "uneven the other way": ink("<trace>1 2, 3 4 5</trace>"),
    "differences that run away": ink("<trace>0 0,'9999999 0,1 1,1 1</trace>"),
    "a NUL": ink(TRACES) + "\0",
}


@pytest.mark.parametrize("name", BROKEN)
def test_T1_inkml_a_broken_file_is_reported_and_the_others_are_read(tmp_path, name):
    index = read_data(make(tmp_path, {"bad.inkml": BROKEN[name], "good.inkml": ink(TRACES)}), "inkml")
    assert [r.image_id for r in index.records] == ["good"]
    said = [one_line(p) for p in index.problems]
    assert said
    assert all("bad.inkml" in text for text in said)
    assert "root:" not in " ".join(said)
    (tmp_path / "good.inkml").unlink()
    with pytest.raises(DataError, match="holds no usable InkML"):
        read_data(tmp_path, "inkml")


FLAWED = {  # more of the ink, number of objects, what is said
    "no such trace": (
        '<traceGroup><annotation type="truth">q</annotation><traceView traceDataRef="9"/></traceGroup>',
        2,
        "a trace that is not there",
    ),
    "one of two is there": (
        '<traceGroup><annotation type="truth">q</annotation><traceView traceDataRef="9"/><traceView traceDataRef="0"/></traceGroup>',
        3,
        "left out",
    ),
    "no truth": ('<traceGroup><traceView traceDataRef="0"/></traceGroup>', 2, "has no truth"),
    "a blank truth": ('<traceGroup><annotation type="truth"> </annotation><traceView traceDataRef="0"/></traceGroup>', 2, "has no truth"),
    "no reference": ('<traceGroup><annotation type="truth">q</annotation><traceView/></traceGroup>', 2, "has no stroke"),
    "a broken trace": ("<trace>x</trace>", 2, "trace 4: point 1 holds 'x'"),
}


@pytest.mark.parametrize("name", FLAWED)
def test_T1_inkml_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    more, count, expected = FLAWED[name]
    index = read_data(make(tmp_path, {"a.inkml": ink(TRACES, GROUPS, more)}))
    assert len(index.records[0].boxes) == count
    assert expected in " | ".join(map(one_line, index.problems))


@FUZZ
@given(st.integers(0, 900), st.binary(max_size=8) | st.sampled_from([b"'", b"!", b'"', b",", b"e9", b"<trace>", b"-"]), st.integers(0, 5))
def test_T1_inkml_any_bytes_give_data_or_one_line(tmp_path_factory, place, change, cut):
    raw = ink(TRACES, "<trace>1 2,'3 4,5 6</trace>", GROUPS).encode()
    raw = raw[:place] + change + raw[place + cut :]
    try:
        index = read_data(make(tmp_path_factory.mktemp("fuzz"), {"a.inkml": raw}), "inkml")
        for problem in index.problems:
            one_line(problem)
        for k in range(len(index)):
            sample = Dataset(index)[k]
            assert sample.image.min() < 128
            if "boxes" in sample.target:
                assert (sample.target["boxes"][:, 2:] > sample.target["boxes"][:, :2]).all()
    except SaccadeError as error:
        one_line(error)


# ------------------------------------------------------------------------------------------------------ write then read

strokes = st.lists(
    st.lists(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 2), min_size=1, max_size=5).map(lambda p: np.array(p, float)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.booleans())
def test_T1_inkml_written_then_read(data, objects):
    classes = ["zebra", "a & b", "<ö>"]
    items = data.draw(st.lists(strokes, min_size=1, max_size=3))
    records, where = [], []
    for k, item in enumerate(items):
        drawn = pack(item)
        where.append(data.draw(st.sampled_from(["train", "test"])))
        record = Record(f"p{k}", f"{where[-1]}/p{k}", (64, 64), extra={"strokes": drawn})
        if objects:
            groups = data.draw(
                st.lists(st.lists(st.integers(0, len(item) - 1), min_size=1, max_size=3, unique=True), min_size=k == 0, max_size=3)
            )
            record.extra["groups"] = [np.array(g, np.int32) for g in groups]
            record.boxes = inkml._boxes(drawn, record.extra["groups"], 64, 3.2)
            record.labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))), np.int64)
            record.captions = ["x < y"] if data.draw(st.booleans()) else None
        else:
            record.label = data.draw(st.integers(0, 2))
        records.append(record)
    splits = {s: np.array([k for k, w in enumerate(where) if w == s]) for s in ("train", "test")}
    splits = {s: v for s, v in splits.items() if len(v)}
    tasks = ("detect",) if objects else ("classify",)
    index = DataIndex("made", Path("."), classes, PackedRecords(records), splits, tasks, reader=StrokeReader(64, 3.2))
    with tempfile.TemporaryDirectory() as folder:
        assert write_data(Dataset(index), Path(folder) / "out", "inkml") == []
        again = read_data(Path(folder) / "out")
        assert [p for p in again.problems if "has no group" not in str(p)] == []
        assert again.classes == classes
        by_id = {r.image_id: r for r in again.records}
        assert set(by_id) == {r.image_id for r in records}
        ids = {s: {again.records[i].image_id for i in v} for s, v in again.splits.items()}
        assert ids == {s: {records[i].image_id for i in v} for s, v in splits.items()}
        for before in records:
            after = by_id[before.image_id]
            assert (after.label, after.size, after.captions) == (before.label, before.size, before.captions)
            for key in ("points", "ends"):
                assert np.array_equal(after.extra["strokes"][key], before.extra["strokes"][key])
            if objects:
                assert np.array_equal(after.boxes, before.boxes)
                assert np.array_equal(after.labels, before.labels)
                assert [g.tolist() for g in after.extra["groups"]] == [g.tolist() for g in before.extra["groups"]]


def test_T1_inkml_written_files_are_read_by_another_parser(tmp_path):
    record = Record("a", "a", label=0, extra={"strokes": pack([np.array([[1, 2.5], [3, 4]]), np.array([[7, 8]])])})
    index = DataIndex("made", tmp_path, ["x"], PackedRecords([record]), tasks=("classify",), reader=StrokeReader(64, 3.0))
    write_data(Dataset(index), tmp_path / "out", "inkml")
    tree = ElementTree.parse(tmp_path / "out" / "a.inkml")
    space = {"i": "http://www.w3.org/2003/InkML"}
    assert [t.text for t in tree.findall("i:trace", space)] == ["1 2.5, 3 4", "7 8"]
    assert tree.find("i:annotation[@type='truth']", space).text == "x"


def test_T1_inkml_names_losses(tmp_path):
    drawn = {"strokes": pack([np.array([[1, 2], [3, 4]])])}
    box = np.array([[1, 2, 3, 4]], np.float32)
    made = [
        Record("x", "a b", boxes=box, labels=np.array([0]), captions=["p", "q"], extra=drawn),
        Record("y", "a:b", boxes=box, labels=np.array([0]), extra=drawn),
    ]
    index = DataIndex("made", tmp_path, ["c"], PackedRecords(made), {"fold": np.array([0, 1])}, ("detect",), reader=StrokeReader(64, 3.0))
    said = " | ".join(write_data(Dataset(index), tmp_path / "out", "inkml"))
    for expected in ("2 boxes are lost", "1 captions are lost: an ink has one truth", "the splits fold are lost", "2 image ids change"):
        assert expected in said
    assert sorted(p.name for p in (tmp_path / "out").glob("*.inkml")) == ["a_b.inkml", "a_b_2.inkml"]
    index.records = PackedRecords([Record("z", "z", label=0)])
    with pytest.raises(UsageError, match="1 of 1 images have none"):
        write_data(Dataset(index, [0]), tmp_path / "no", "inkml")
