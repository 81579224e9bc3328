"""Splits by group and folds, against scikit-learn's rules and by counting."""

import json

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.splits import group_numbers, make_folds, make_splits, read_split_file, write_split_file
from saccade.types.errors import UsageError


def labelled(labels, folder=lambda i: "x"):
    records = [Record(path=f"{folder(i)}/{i}.png", image_id=str(i), label=int(k)) for i, k in enumerate(labels)]
    return DataIndex("test", "root", [f"c{k}" for k in range(max(labels) + 1)], PackedRecords(records), tasks=("classify",))


def boxed(rows, classes):
    records = []
    for i, labels in enumerate(rows):
        boxes = np.tile(np.array([[0, 0, 5, 5]], np.float32), (len(labels), 1))
        records.append(Record(path=f"{i}.png", image_id=str(i), boxes=boxes, labels=np.array(labels, np.int64)))
    return DataIndex("test", "root", [f"c{k}" for k in range(classes)], PackedRecords(records), tasks=("detect",))


def test_T2_split_by_group_keeps_groups_together_and_classes_in_proportion():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 600)
    labels = (groups % 3 + (rng.random(600) < 0.2)) % 3
    splits = make_splits(labelled(labels), (0.6, 0.2, 0.2), groups=groups)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(600))
    owners = [set(groups[members].tolist()) for members in splits.values()]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    whole = np.bincount(labels) / 600
    for members, share in zip(splits.values(), (0.6, 0.2, 0.2), strict=True):
        assert abs(len(members) / 600 - share) < 0.03
        assert np.abs(np.bincount(labels[members], minlength=3) / len(members) - whole).max() < 0.05


def test_T2_folds_by_group_are_as_even_as_scikit_learns():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(80), rng.integers(1, 12, 80))
    labels = rng.integers(0, 4, 80)[groups]
    folds = make_folds(labelled(labels), 5, groups=groups)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(groups)))
    whole = np.bincount(labels) / len(labels)

    def spread(parts):
        return max(np.abs(np.bincount(labels[p], minlength=4) / len(p) - whole).max() for p in parts)

    theirs = [test for _, test in StratifiedGroupKFold(5).split(np.zeros(len(labels)), labels, groups)]
    assert all(len(set(groups[a].tolist()) & set(groups[b].tolist())) == 0 for i, a in enumerate(folds) for b in folds[:i])
    assert spread(folds) <= spread(theirs) + 0.03
    assert max(map(len, folds)) - min(map(len, folds)) <= max(map(len, theirs)) - min(map(len, theirs)) + 10


def test_T2_many_labels_are_stratified_by_group():
    """Iterative stratification by hand: two images hold the rare class 1, and each split gets one of them."""
    rows = [[0]] * 8 + [[0, 1]] * 2
    splits = make_splits(boxed(rows, 2), {"a": 0.5, "b": 0.5}, groups=np.arange(10))
    assert [len(m) for m in splits.values()] == [5, 5]
    assert [sum(i >= 8 for i in m) for m in splits.values()] == [1, 1]


def test_T2_folds_without_groups_are_even_and_stratified():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    folds = make_folds(labelled(labels), 5, seed=3)
    assert [len(f) for f in folds] == [20] * 5
    for fold in folds:
        np.testing.assert_allclose(np.bincount(labels[fold], minlength=3), [10, 6, 4], atol=2)
    assert [f.tolist() for f in make_folds(labelled(labels), 5, seed=3)] == [f.tolist() for f in folds]
    assert [f.tolist() for f in make_folds(labelled(labels), 5, seed=4)] != [f.tolist() for f in folds]


@pytest.mark.parametrize(("k", "groups"), [(1, None), (11, None), (4, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2])])
def test_T2_folds_that_cannot_be_made(k, groups):
    with pytest.raises(UsageError, match="folds cannot be made"):
        make_folds(labelled([0] * 10), k, groups=groups)


def test_T2_groups_by_folder_and_by_expression():
    data = Dataset(labelled([0] * 6, folder=lambda i: f"patient{i // 2}/day{i % 2}"))
    assert len(set(group_numbers(data, "folder").tolist())) == 6
    by_patient = group_numbers(data, r"patient(\d+)")
    assert by_patient.tolist() == [0, 0, 1, 1, 2, 2]
    assert group_numbers(data, r"day1").tolist().count(group_numbers(data, r"day1")[1]) == 3  # the others stand alone
    for pattern, message in (("(", "no regular expression"), ("ward", "matches no path")):
        with pytest.raises(UsageError, match=message):
            group_numbers(data, pattern)


def test_T2_groups_of_a_part_of_the_data():
    index = labelled(list(range(4)) * 10)
    part = Dataset(index, np.arange(39, -1, -2))
    groups = np.arange(20) // 2
    splits = make_splits(part, (0.5, 0.5), groups=groups)
    number = {int(n): int(g) for n, g in zip(part.indices, groups, strict=True)}
    sides = [{number[int(n)] for n in members} for members in splits.values()]
    assert not sides[0] & sides[1]
    with pytest.raises(UsageError, match="20 images need 20 group numbers"):
        make_splits(part, (0.5, 0.5), groups=[1, 2])


def test_T2_an_image_group_larger_than_its_split_leaves_none_empty():
    splits = make_splits(labelled([0] * 10), (0.7, 0.15, 0.15), groups=[0] * 8 + [1, 2])
    assert sorted(map(len, splits.values())) == [1, 1, 8]


def test_T2_a_split_file_reads_back(tmp_path, real):
    index = load_data(real("bccd")).index
    splits = make_splits(index, (0.8, 0.2))
    path = write_split_file(tmp_path / "s.json", splits, index)
    again = read_split_file(path, index)
    assert {k: sorted(v.tolist()) for k, v in again.items()} == {k: v.tolist() for k, v in splits.items()}
    assert set(json.loads(path.read_text())) == {"train", "val"}
