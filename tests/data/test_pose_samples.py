"""Every JSON of pose_samples: read with the counts that the files state, by a parser of their own here; or refused with one clear line."""

import json

import numpy as np
import pytest

from saccade.data.dataset import Dataset
from saccade.data.formats import coco, mpii, read_data
from saccade.data.formats.coco_points import BODY, mirror_permutation, whole_body_names
from saccade.types.errors import DataError

# file -> (images, objects, key points of an object, objects with a labelled point, problems)
FILES = {
    "300w/test_300w.json": (2, 2, 68, 2, 0),
    "aic/test_aic.json": (3, 9, 14, 9, 0),
    "animalpose/test_animalpose.json": (2, 2, 20, 2, 0),
    "coco/test_coco.json": (4, 14, 17, 12, 0),
    "coco/test_coco_wholebody.json": (4, 14, 133, 12, 2),
    "coco/test_keypoint_partition_metric.json": (4, 14, 133, 12, 2),
    "cofw/test_cofw.json": (2, 2, 29, 2, 0),
    "crowdpose/test_crowdpose.json": (2, 5, 14, 4, 0),
    "freihand/test_freihand.json": (8, 8, 21, 8, 0),
    "jhmdb/test_jhmdb_sub1.json": (3, 3, 15, 3, 0),
    "mpii/test_mpii_trb.json": (5, 5, 40, 5, 5),
    "posetrack18/annotations/test_posetrack18_val.json": (3, 14, 17, 14, 2),
    "posetrack18/annotations/val/003418_mpii_test.json": (1, 1, 17, 1, 1),
    "posetrack18/annotations/val/009473_mpii_test.json": (1, 2, 17, 2, 0),
    "posetrack18/annotations/val/012834_mpii_test.json": (1, 11, 17, 11, 1),
    "wflw/test_wflw.json": (2, 4, 98, 4, 0),
}
DETECTIONS = (
    "coco/test_coco_det_AP_H_56.json",
    "crowdpose/test_crowdpose_det_AP_40.json",
    "posetrack18/annotations/test_posetrack18_human_detections.json",
)


@pytest.mark.parametrize("name", FILES)
def test_T1_pose_samples_counts(real, name):
    images, objects, points, labelled, problems = FILES[name]
    path = real("pose_samples") / name
    index = coco.read(path)
    assert len(index) == images
    assert [len(index.keypoint_names), len(index.keypoint_swap)] == [points, points]
    assert sorted(index.keypoint_swap) == list(range(points))
    assert "pose" in index.tasks
    rows = np.concatenate([r.keypoints for r in index.records])
    assert rows.shape == (objects, points, 3)
    assert int((rows[..., 2] > 0).any(1).sum()) == labelled
    assert len(index.problems) == problems
    truth = json.loads(path.read_bytes())["annotations"]
    assert objects == len(truth)
    body = np.array([np.reshape(a["keypoints"], (-1, 3))[: points if points != 133 else 17] for a in truth], np.float32)
    ours = rows[:, : body.shape[1]]
    order = lambda a: sorted(a.reshape(len(a), -1).tolist())  # noqa: E731
    assert order(ours) == order(body)
    for k in range(len(index)):
        sample = Dataset(index)[k]
        assert sample.image.shape[-2:] == index.records[k].size


@pytest.mark.parametrize("name", DETECTIONS)
def test_T1_pose_samples_lists_of_detections_are_refused(real, name):
    with pytest.raises(DataError, match="list of detections, not of truth") as caught:
        coco.read(real("pose_samples") / name)
    assert name.rpartition("/")[2] in str(caught.value)


def test_T1_pose_samples_no_json_is_forgotten(real):
    root = real("pose_samples")
    found = {p.relative_to(root).as_posix() for p in root.rglob("*.json")}
    assert found == {*FILES, *DETECTIONS, "mpii/test_mpii.json"}
    assert len(list(root.rglob("*.jpg"))) + len(list(root.rglob("*.jpeg"))) + len(list(root.rglob("*.png"))) == 41


@pytest.mark.parametrize("name", ["300w", "aic", "animalpose", "cofw", "crowdpose", "freihand", "jhmdb", "posetrack18", "wflw"])
def test_T1_pose_samples_folders_are_recognised_as_coco(real, name):
    assert read_data(real("pose_samples") / name).format == "coco"


def test_T1_pose_samples_whole_body_parts_are_the_file_with_all_in_one(real):
    """Both files hold the same 14 persons, one with parts of their own, one with 133 points in a row (mmpose joined those)."""
    folder = real("pose_samples") / "coco"
    parts, whole = (coco.read(folder / n) for n in ("test_coco_wholebody.json", "test_keypoint_partition_metric.json"))
    assert parts.keypoint_names == whole.keypoint_names == whole_body_names()
    for a, b in zip(parts.records, whole.records, strict=True):
        assert np.array_equal(a.keypoints, b.keypoints)
        assert np.array_equal(a.boxes, b.boxes)


def test_T1_coco_whole_body_mirror_partners():
    names = whole_body_names()
    swap = mirror_permutation(names)
    assert len(set(names)) == 133
    assert names[:17] == list(BODY)
    face = [s - 23 for s in swap[23:91]]  # iBUG's 68 points: jaw, brows, nose, eyes, lips
    assert [face[k] for k in (0, 8, 17, 21, 27, 31, 33, 36, 37, 39, 40, 41)] == [16, 8, 26, 22, 27, 35, 33, 45, 44, 42, 47, 46]
    assert [face[k] for k in (48, 49, 50, 51, 55, 56, 57, 60, 61, 62, 65, 66)] == [54, 53, 52, 51, 59, 58, 57, 64, 63, 62, 67, 66]
    assert swap[91:112] == list(range(112, 133))
    assert [swap[k] for k in (17, 18, 19)] == [20, 21, 22]


def test_T1_pose_samples_a_box_of_trb_is_around_its_points(real):
    index = coco.read(real("pose_samples") / "mpii" / "test_mpii_trb.json")
    assert all("around its key points" in p.problem for p in index.problems)
    for record in index.records:
        seen = record.keypoints[0][record.keypoints[0, :, 2] > 0]
        assert np.allclose(record.boxes[0], [*seen[:, :2].min(0), *seen[:, :2].max(0)], atol=1e-3)


def test_T1_pose_samples_mpii_agrees_with_trb(real):
    """The same five pictures in MPII's own list: the joints that both have are equal."""
    folder = real("pose_samples") / "mpii"
    ours, other = mpii.read(folder / "test_mpii.json"), coco.read(folder / "test_mpii_trb.json")
    assert len(ours) == len(other) == 5
    by_path = {r.path: r for r in other.records}
    for record in ours.records:
        trb = by_path[record.path]
        for name in ("right_knee", "left_knee", "right_hip", "left_shoulder", "right_ankle"):
            a, b = record.keypoints[0, ours.keypoint_names.index(name)], trb.keypoints[0, other.keypoint_names.index(name)]
            assert np.array_equal(a[:2], b[:2])
