"""Splits: made (seeded, stratified, the same everywhere) and read from files of names."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.splits import make_splits, read_split_file
from saccade.types.errors import DataError, UsageError


def labelled(labels, order=None, classes=5):
    records = [Record(f"{k}.png", str(k), label=int(v)) for k, v in enumerate(labels)]
    records = records if order is None else [records[k] for k in order]
    return DataIndex("made", None, [str(k) for k in range(classes)], PackedRecords(records), tasks=("classify",))


def ids(index, splits):
    return {s: sorted(index.records[int(i)].image_id for i in v) for s, v in splits.items()}


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


# ------------------------------------------------------------------------------------------------------------------ made


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=120),
    st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2), (0.5, 0.25, 0.25), (1.0,), (0.9, 0.0, 0.1)]),
    st.integers(0, 99),
)
def test_T2_split_is_a_partition_close_to_its_fractions(labels, fractions, seed):
    splits = make_splits(labelled(labels), fractions, seed)
    assert list(splits) == ["train", "val", "test"][: len(fractions)]
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
    singles = sum(labels.count(v) == 1 for v in set(labels))
    open_splits = sum(f > 0 for f in fractions)
    for members, fraction in zip(splits.values(), fractions, strict=True):
        assert abs(len(members) - fraction * len(labels)) < 2 + singles
        assert fraction > 0 or len(members) == 0
        assert fraction == 0 or len(members) > 0 or len(labels) < open_splits


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=30, max_size=150), st.integers(0, 9))
def test_T2_split_is_stratified_by_label(labels, seed):
    labels = np.array(labels)
    for name, members in make_splits(labelled(labels), seed=seed).items():
        fraction = {"train": 0.7, "val": 0.15, "test": 0.15}[name]
        for k in np.unique(labels):
            if (labels == k).sum() > 1:
                assert abs((labels[members] == k).sum() - fraction * (labels == k).sum()) <= 3


def test_T2_split_does_not_depend_on_the_order_of_files_but_on_the_seed():
    labels = np.random.default_rng(0).integers(0, 5, 200)
    order = np.random.default_rng(1).permutation(200)
    a, b = labelled(labels), labelled(labels, order)
    assert ids(a, make_splits(a, seed=3)) == ids(b, make_splits(b, seed=3))
    assert ids(a, make_splits(a, seed=3)) != ids(a, make_splits(a, seed=4))


def test_T2_split_is_pinned_on_every_machine():
    splits = make_splits(labelled([k % 2 for k in range(12)]), seed=0)
    assert {s: v.tolist() for s, v in splits.items()} == {"train": [1, 2, 3, 4, 7, 8, 9, 10], "val": [0, 5], "test": [6, 11]}


def test_T2_split_of_tiny_sets():
    def sizes(n, fractions=(0.7, 0.15, 0.15)):
        return [len(v) for v in make_splits(labelled([0] * n), fractions).values()]

    assert sizes(0) == [0, 0, 0]
    assert sizes(1) == [1, 0, 0]
    assert sizes(2) == [1, 1, 0]
    assert sizes(3) == [1, 1, 1]
    assert sizes(4) == [2, 1, 1]
    assert sizes(2, (0.8, 0.2)) == [1, 1]
    assert sizes(10) == [7, 2, 1] or sizes(10) == [7, 1, 2]


def test_T2_split_a_class_of_one_image_is_for_training():
    labels = [0] * 40 + [1]
    assert 40 in make_splits(labelled(labels))["train"]


def test_T2_split_of_detection_is_by_the_rarest_class():
    rng = np.random.default_rng(0)
    records = []
    for k in range(200):
        present = [0, 0, 1] if k % 2 else [0]
        present = [*present, 2] if k < 20 else present  # rare: 20 of 200 images
        present = [] if k >= 190 else present
        count = len(present)
        boxes = np.tile(np.array([[1, 1, 2, 2]], np.float32), (count, 1))
        records.append(Record(f"{k}.png", str(k), boxes=boxes, labels=rng.permutation(np.array(present, np.int64))))
    index = DataIndex("made", None, ["a", "b", "c"], PackedRecords(records), tasks=("detect",))
    for name, members in make_splits(index).items():
        share = {"train": 0.7, "val": 0.15, "test": 0.15}[name]
        rare = sum(2 in index.records[int(i)].labels for i in members)
        empty = sum(len(index.records[int(i)].labels) == 0 for i in members)
        assert abs(rare - 20 * share) <= 1
        assert abs(empty - 10 * share) <= 1


def test_T2_split_of_a_part_and_without_labels():
    index = labelled([0] * 50)
    part = Dataset(index, np.arange(10, 30))
    splits = make_splits(part, {"a": 0.5, "b": 0.5})
    assert sorted(np.concatenate([splits["a"], splits["b"]]).tolist()) == list(range(10, 30))
    assert [len(v) for v in splits.values()] == [10, 10]
    masks = DataIndex("made", None, ["x"], PackedRecords(Record(f"{k}", str(k), mask="m") for k in range(20)))
    assert [len(v) for v in make_splits(masks).values()] == [14, 3, 3]


@pytest.mark.parametrize("fractions", [(0.5, 0.2), (0.5, 0.6), (-0.5, 1.5), (float("nan"), 0.5), (0.25,) * 4, {"a": 2.0}, ()])
def test_T2_split_of_wrong_fractions_is_refused(fractions):
    with pytest.raises(UsageError):
        make_splits(labelled([0, 1]), fractions)


# ------------------------------------------------------------------------------------------------------------- from files


@pytest.fixture
def index():
    paths = ["train/a.png", "train/b.jpg", "test/b.jpg", "x y.png", "1.png"]
    return DataIndex("made", None, ["c"], PackedRecords(Record(p, f"id{k}") for k, p in enumerate(paths)))


def read(index, tmp_path, text, name="val.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {s: v.tolist() for s, v in read_split_file(path, index).items()}


def test_T2_split_file_of_lines(index, tmp_path):
    assert read(index, tmp_path, "# mine\nid4\ntrain/b.jpg\n\n x y.png \na\n") == {"val": [4, 1, 3, 0]}
    assert read(index, tmp_path, "./train\\a.png\r\n", "fold1.txt") == {"fold1": [0]}
    assert read(index, tmp_path, "/data/set/test/b.jpg\nC:\\set\\train\\b.jpg\n") == {"val": [2, 1]}  # foreign beginnings
    assert index.problems == []


def test_T2_split_file_of_json_and_csv(index, tmp_path):
    assert read(index, tmp_path, json.dumps({"train": ["a", 1], "test": ["id2"]}), "s.json") == {"train": [0, 4], "test": [2]}
    table = "a,train\nid2,test\n1.png,train\n"
    assert read(index, tmp_path, table, "s.csv") == {"train": [0, 4], "test": [2]}
    assert read(index, tmp_path, "split,name\n" + "".join(f"{b},{a}\n" for a, b in (r.split(",") for r in table.split())), "s.csv") == {
        "train": [0, 4], "test": [2],
    }  # fmt: skip


def test_T2_split_file_reports_what_stands_twice(index, tmp_path):
    assert read(index, tmp_path, "a\na\n") == {"val": [0]}
    assert "line 2" in one_line(index.problems[0])
    assert "stands twice" in one_line(index.problems[0])
    read(index, tmp_path, json.dumps({"train": ["a"], "test": ["a"]}), "s.json")
    assert "1 images stand in more than one split" in one_line(index.problems[1])


WRONG = {
    "unknown": ("val.txt", "a\nidd4\n", "line 2: 'idd4' is no image"),
    "ambiguous stem": ("val.txt", "b\n", "fits 2 images: train/b.jpg, test/b.jpg"),
    "ambiguous name": ("val.txt", "b.jpg\n", "name them by their path"),
    "climbing": ("val.txt", "../../etc/passwd\n", "is no image"),
    "empty": ("val.txt", "", "names no image"),
    "comments only": ("val.txt", "# a\n", "names no image"),
    "binary": ("val.txt", b"a\x00b", "binary"),
    "not UTF-8": ("val.txt", b"\xff\xfe", "not UTF-8"),
    "broken JSON": ("s.json", "{", "line 1"),
    "JSON list": ("s.json", '["a"]', "not an object of lists"),
    "JSON of words": ("s.json", '{"train": "a"}', "not an object of lists"),
    "JSON null": ("s.json", '{"train": [null]}', "train[0]"),
    "JSON empty": ("s.json", "{}", "names no image"),
    "JSON unknown": ("s.json", '{"val": ["a", "zz"]}', "val[1]"),
    "JSON nested": ("s.json", "[" * 100_000, "nested"),
    "CSV one column": ("s.csv", "a\n", "line 1: has no name and split"),
    "CSV unknown": ("s.csv", "name,split\nzz,train\n", "line 2: 'zz' is no image"),
    "CSV empty": ("s.csv", "\n", "names no image"),
}


@pytest.mark.parametrize("name", WRONG)
def test_T2_split_file_errors_are_one_line(index, tmp_path, name):
    file, text, message = WRONG[name]
    with pytest.raises(DataError) as caught:
        read(index, tmp_path, text, file)
    assert message in one_line(caught.value)
    assert file in one_line(caught.value)


def test_T2_split_file_that_is_missing_or_a_folder(index, tmp_path):
    for path in (tmp_path, tmp_path / "no.txt"):
        with pytest.raises(DataError, match="is not a file"):
            read_split_file(path, index)


def test_T2_split_file_suggests_a_name(index, tmp_path):
    with pytest.raises(DataError, match=r"did you mean 'x y.png'"):
        read(index, tmp_path, "x-y.png\n")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.sampled_from(["s.txt", "s.json", "s.csv"]))
def test_T2_split_file_of_any_bytes(tmp_path_factory, data, name):
    index = labelled([0, 1])
    try:
        read(index, tmp_path_factory.mktemp("fuzz"), data, name)
    except DataError as error:
        one_line(error)


def test_T2_split_of_bccd_is_stratified(real):
    from saccade.data.formats import voc

    index = voc.read(real("bccd"))
    splits = make_splits(index)
    assert abs(len(splits["train"]) - 0.7 * 364) < 2
    assert abs(len(splits["test"]) - 0.15 * 364) < 2
    shares = {s: Dataset(index, v).class_counts() / Dataset(index).class_counts() for s, v in splits.items()}
    assert np.abs(shares["train"] - 0.7).max() < 0.06
    assert np.abs(shares["test"] - 0.15).max() < 0.06
