"""C21: data for landmarks: the points are the classes, one set an image; what mirrors exchange; what cannot be used says so."""

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade.data.inspect import class_counts
from saccade.data.landmarks import reorder, swap_by_name
from saccade.data.transforms.augment import AugmentedDataset, build_augment
from saccade.types.recipe import Recipe

NAMES = ["left_eye", "right_eye", "nose"]


def table(folder, rows, header=None):
    """A csvpoints data set; a row is (file, x, y, ...)."""
    folder.mkdir(exist_ok=True)
    header = header or [f"{n}_{a}" for n in NAMES for a in "xy"]
    lines = [",".join(["image", *header])]
    for name, *cells in rows:
        pixels = np.random.default_rng(len(lines)).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        lines.append(",".join([name, *map(str, cells)]))
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_C21_points_become_the_classes(tmp_path):
    folder = table(tmp_path / "faces", [("a.png", 10, 10, 30, 10, 20, 20), ("b.png", 12, 11, 31, 12, "", "")])
    data = saccade.load_data(folder, task="landmarks")
    assert data.classes == NAMES
    assert data.tasks[0] == "landmarks"
    target = data[1].target
    assert target["keypoints"].shape == (1, 3, 2)
    assert target["visibility"].tolist() == [[2, 2, 0]]
    counts, what = class_counts(data, data.map_records(lambda r: r), None)
    assert (counts.tolist(), what) == ([2, 2, 1], "points")
    again = saccade.load_data(data, task="landmarks")
    assert again.fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("names", "swap"),
    [
        (NAMES, [1, 0, 2]),
        (["LeftEye", "RightEye", "Nose"], [1, 0, 2]),
        (["l_ear", "nose", "r_ear"], [2, 1, 0]),
        (["eye_L", "eye_R"], [1, 0]),
        (["bright", "nose"], []),
        (["left_eye", "nose"], []),
        (["0", "1", "2"], []),
    ],
)
def test_C21_left_and_right_are_found_by_name(names, swap):
    assert swap_by_name(names) == swap


def test_C21_a_mirror_exchanges_left_and_right(tmp_path):
    folder = table(tmp_path / "faces", [("a.png", 10, 5, 32, 7, 20, 20)])
    data = saccade.load_data(folder, task="landmarks")
    moved = AugmentedDataset(data, Recipe(hflip=1.0), "landmarks")[0, 0].target["keypoints"][0]
    # x -> 50 - x: the eye that was right stands left now, under the left one's label
    torch.testing.assert_close(moved, torch.tensor([[18.0, 7], [40, 5], [30, 20]]))


def test_C21_no_mirror_without_knowing_left_from_right(tmp_path):
    with pytest.raises(saccade.UsageError, match=r"recipe\.hflip.*left_\*"):
        build_augment(Recipe(hflip=0.5), "landmarks", [])
    build_augment(Recipe(hflip=0.5), "landmarks", [1, 0, 2])
    build_augment(Recipe(rotate=20), "landmarks", [])
    build_augment(Recipe(hflip=0.5), "detect", [])


def test_C21_other_orders_of_points_are_sorted_by_name(tmp_path):
    from saccade.engine.evaluator import align_classes
    from saccade.models.registry import create_model

    data = saccade.load_data(table(tmp_path / "f", [("a.png", 1, 2, 3, 4, 5, 6)]), task="landmarks")
    model = create_model("landmark_net", 4, size=32, width=4, hidden=8)
    model.classes = ["nose", "chin", "right_eye", "left_eye"]
    aligned = align_classes(data, model)
    target = aligned[0].target
    assert aligned.classes == model.classes
    assert target["keypoints"][0].tolist() == [[5, 6], [0, 0], [3, 4], [1, 2]]
    assert target["visibility"][0].tolist() == [2, 0, 2, 2]
    assert aligned.index.keypoint_swap == [0, 1, 3, 2]
    assert reorder(data.index, [0, 1, 2], NAMES).records.digest() == data.index.records.digest()
    model.classes = ["nose", "chin", "right_eye", "mouth"]
    with pytest.raises(saccade.UsageError, match="left_eye"):
        align_classes(data, model)


def test_C21_several_sets_in_an_image_are_refused(tmp_path):
    folder = table(tmp_path / "f", [("a.png", 1, 2, 3, 4, 5, 6), ("b.png", 1, 2, 3, 4, 5, 6), ("a.png", 11, 12, 13, 14, 15, 16)])
    with pytest.raises(saccade.DataError, match=r"a\.png has 2 sets of points; landmarks are one set an image"):
        saccade.load_data(folder, task="landmarks")
    with pytest.raises(saccade.DataError, match=r"sets of points, and [0-9]+ more images several"):
        saccade.load_data("synthetic:shapes?count=8&size=48&task=detect", task="landmarks")


def test_C21_data_without_points_are_refused(tmp_path):
    with pytest.raises(saccade.UsageError, match="landmarks needs points"):
        saccade.load_data("synthetic:shapes?count=4&size=32&task=classify", task="landmarks")
    empty = table(tmp_path / "f", [("a.png", "", "", "", "", "", ""), ("b.png", "", "", "", "", "", "")])
    with pytest.raises(saccade.DataError, match="no labelled point"):
        saccade.load_data(empty, task="landmarks")
    loose = saccade.load_data("synthetic:shapes?count=8&size=48&task=landmarks")
    with pytest.raises(saccade.UsageError, match='task="landmarks"'):
        saccade.train("landmark_net", loose, validation=loose, folder=tmp_path / "run")


def test_C21_synthetic_landmarks_are_one_large_object():
    data = saccade.load_data("synthetic:shapes?count=10&size=64", task="landmarks")
    assert data.classes == ["centre", "top", "right", "bottom", "left"]
    scenes = saccade.load_data("synthetic:shapes?count=10&size=64&task=landmarks", task="detect")
    assert scenes.classes == ["circle", "square", "triangle", "star", "ring"]
    for i in range(10):
        target = scenes[i].target
        assert target["labels"].tolist() == [i % 5]
        points, box = target["keypoints"][0], target["boxes"][0]
        inside = target["visibility"][0] > 0
        assert inside[0]
        assert (points[inside] >= box[:2] - 1).all()
        assert (points[inside] <= box[2:] + 1).all()
    assert torch.equal(scenes[3].image, saccade.load_data("synthetic:shapes?count=10&size=64&task=classify")[3].image)
