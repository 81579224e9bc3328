"""Every set under the shared folder, and its natural parts, in its own format with the counts that its readme states."""

import numpy as np
import pytest

from saccade.data.dataset import Dataset
from saccade.data.formats import detect_format, read_data
from saccade.data.load import load_data
from saccade.types.errors import DataError, UsageError

# folder, format, images, classes, splits, main task ("" for pictures without truth), a quirk that is reported ("" for none at all)
RECOGNISED = [
    ("bccd", "voc", 364, 3, {"train": 205, "val": 87, "trainval": 292, "test": 72}, "detect", "504 337 504 337"),
    ("bccd/JPEGImages", "images", 364, 0, {}, "", ""),
    ("raccoon", "voc", 129, 1, {}, "detect", ""),
    ("raccoon/images", "images", 129, 0, {}, "", ""),
    ("raccoon/train_labels.csv", "csv", 104, 1, {"train": 104}, "detect", ""),
    ("coco128", "yolo", 152, 80, {"train": 128, "val": 24}, "detect", "000000000656.txt: has no image"),
    ("coco128/images", "images", 152, 0, {"train": 128, "val": 24}, "", ""),
    ("coco_mini", "coco", 120, 80, {"train": 80, "val": 40}, "detect", None),
    ("coco_mini/annotations/captions_val2017.json", "coco", 40, 0, {"val": 40}, "caption", ""),
    ("coco_mini/val2017", "images", 40, 0, {}, "", ""),
    ("wbc_segmentation", "masks", 360, 3, {}, "segment", "a few pixels of the masks have the values"),
    ("wbc_segmentation/Dataset 1", "masks", 300, 3, {}, "segment", None),
    ("wbc_segmentation/Dataset 2", "masks", 60, 3, {}, "segment", "a few pixels of the masks have the values"),
    ("wbc_segmentation/Class Labels of Dataset 1.csv", "csv", 300, 5, {}, "classify", ""),
    ("camvid", "masks", 60, 12, {"train": 31, "val": 9, "test": 20}, "segment", None),
    ("mnist", "idx", 10_000, 10, {"test": 10_000}, "classify", "train-labels"),
    ("mnist/png", "csv", 20_000, 10, {"train": 20_000}, "classify", ""),
    ("mnist/png/train", "imagefolder", 20_000, 10, {}, "classify", ""),
    ("orl_faces", "imagefolder", 400, 40, {}, "classify", "README: is not named like an image"),
    ("hymenoptera", "imagefolder", 96, 2, {"train": 63, "val": 33}, "classify", ""),
    ("hymenoptera/train", "imagefolder", 63, 2, {}, "classify", ""),
    ("cifar10_jpg", "imagefolder", 6000, 10, {"train": 5000, "test": 1000}, "classify", ""),
    ("dtd10", "imagefolder", 200, 10, {}, "classify", ""),
    ("facial_keypoints", "csvpoints", 113, 1, {"train": 83, "test": 30}, "pose", "outside the"),
    ("facial_keypoints/test_frames_keypoints.csv", "csvpoints", 30, 1, {"test": 30}, "pose", ""),
    ("facial_keypoints/training", "images", 83, 0, {}, "", ""),
    ("dlib_faces", "imglab", 9, 1, {"train": 4, "test": 5}, "detect", "testing_with_face_landmarks.xml too"),
    ("dlib_faces/training.xml", "imglab", 4, 1, {"train": 4}, "detect", ""),
    ("dlib_faces/cars", "images", 2, 0, {}, "", ""),
    ("bsds500", "bsds", 67, 1, {"test": 67}, "detect", ""),
    ("denoise/BSD68", "images", 68, 0, {}, "", ""),
    ("denoise/Set12", "images", 12, 0, {}, "", ""),
    ("denoise/Set5", "images", 5, 0, {}, "", ""),
    ("oxford_graf", "images", 6, 0, {}, "", "H1to2p: is not named like an image"),
    ("middlebury_stereo/cones", "images", 4, 0, {}, "", ""),
    ("middlebury_stereo/aloe", "images", 3, 0, {}, "", ""),
    ("multiview_dino", "images", 16, 0, {}, "", "dinoSR_par.txt: is not named like an image"),
    ("near_duplicates/base_images", "images", 10, 0, {}, "", ""),
    ("near_duplicates/formats_images", "images", 8, 0, {}, "", "ukbench09380.svg: is not named like an image"),
    ("near_duplicates/mixed_images", "images", 6, 0, {}, "", ""),
    ("video_sequences/bobot_frames", "images", 151, 0, {}, "", "license.txt: is not named like an image"),
    ("video_sequences/bgslibrary", "images", 17, 0, {}, "", "demo.avi: is not named like an image"),
    ("video_sequences/bgslibrary/frames", "images", 17, 0, {}, "", ""),
    ("opencv_samples", "images", 67, 0, {}, "", "letter-recognition.data: is not named like an image"),
    ("imagenet_samples", "images", 20, 20, {}, "classify", ""),
    ("pose_samples/300w", "coco", 2, 1, {}, "detect", None),
    ("pose_samples/aic", "coco", 3, 1, {}, "detect", None),
    ("pose_samples/animalpose", "coco", 2, 1, {}, "detect", None),
    ("pose_samples/cofw", "coco", 2, 1, {}, "detect", None),
    ("pose_samples/crowdpose", "coco", 2, 1, {}, "detect", None),
    ("pose_samples/freihand", "coco", 8, 1, {}, "detect", None),
    ("pose_samples/jhmdb", "coco", 3, 1, {}, "detect", None),
    ("pose_samples/wflw", "coco", 2, 1, {}, "detect", None),
    ("pose_samples/coco/test_coco.json", "coco", 4, 1, {}, "detect", None),
    ("pose_samples/posetrack18", "coco", 3, 1, {}, "detect", "it is clipped"),
    ("pose_samples/mpii/test_mpii.json", "mpii", 5, 1, {}, "pose", ""),
]

# Folders of pictures that look like classes, or like two things: the format has to be said.
SAID = [
    ("denoise", "images", 85, {}),
    ("middlebury_stereo", "images", 11, {}),
    ("near_duplicates", "images", 26, {}),
    ("video_sequences", "images", 168, {}),
    ("dlib_faces", "images", 13, {}),
    ("pose_samples", "images", 41, {}),
    ("orl_faces", "images", 400, {}),
    ("hymenoptera", "images", 96, {"train": 63, "val": 33}),
]


def folder(real, path):
    return real(path.split("/")[0]).parent / path


def texts(index):
    out = [str(p) for p in index.problems]
    assert not any("\n" in t for t in out)
    return out


@pytest.mark.parametrize(
    ("path", "name", "count", "classes", "splits", "task", "quirk"), RECOGNISED, ids=[r[0].replace(" ", "_") for r in RECOGNISED]
)
def test_T1_real_set_is_recognised_and_whole(real, path, name, count, classes, splits, task, quirk):
    root = folder(real, path)
    found, reason = detect_format(root)
    assert (found, bool(reason)) == (name, True)
    index = read_data(root)
    assert count is None or len(index) == count
    assert classes is None or len(index.classes) == classes
    assert splits is None or {s: len(v) for s, v in index.splits.items()} == splits
    assert task is None or index.tasks[:1] == ((task,) if task else ())
    said = texts(index)
    assert quirk is None or (any(quirk in t for t in said) if quirk else said == [])
    sample = Dataset(index)[0]
    assert sample.image.shape[0] in (1, 3)
    assert (index.root / index.records[0].path).resolve().is_relative_to(index.root.resolve())


@pytest.mark.parametrize(("path", "name", "count", "splits"), SAID, ids=[r[0] for r in SAID])
def test_T1_real_set_read_as_pictures(real, path, name, count, splits):
    index = read_data(folder(real, path), name)
    assert (len(index), index.tasks) == (count, ())
    assert {s: len(v) for s, v in index.splits.items()} == splits
    texts(index)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("near_duplicates", ["imagefolder", "images", "--format imagefolder|images"]),
        ("pose_samples", ["several data sets", "300w (coco)", "name one of the folders"]),
        ("pose_samples/mpii", ["coco (1 COCO JSON file: test_mpii_trb.json)", "mpii (1", "--format coco|mpii"]),
    ],
)
def test_T1_ambiguous_folders_name_the_choices(real, path, words):
    root = real("near_duplicates").parent / path
    with pytest.raises(UsageError) as error:
        read_data(root)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("path", ["denoise", "middlebury_stereo", "video_sequences"])
def test_T1_folders_of_pictures_count_as_class_folders(real, path):
    """Nothing tells Set5 and Set12 from two classes; --format images does."""
    assert detect_format(folder(real, path))[0] == "imagefolder"
    assert len(load_data(folder(real, path), task="generate")) == len(read_data(folder(real, path), "images"))


def test_T1_objects_of_the_real_sets_are_those_of_the_readme(real):
    def objects(index, split=None):
        data = Dataset(index) if split is None else Dataset(index).take(split)
        return int(data.class_counts().sum())

    bccd = read_data(real("bccd"))
    counts = dict(zip(bccd.classes, Dataset(bccd).class_counts().tolist(), strict=True))
    assert counts == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}  # two boxes have no area
    assert [objects(read_data(real("raccoon") / f"{s}_labels.csv")) for s in ("train", "test")] == [111, 26]
    coco128 = read_data(real("coco128"))
    assert (objects(coco128, "train"), objects(coco128, "val")) == (941 - 12, 158)  # two label files of 12 lines have no image
    assert (Dataset(coco128).take("train").class_counts() > 0).sum() == 71
    mini = read_data(real("coco_mini"))
    assert (objects(mini, "train"), objects(mini, "val")) == (739, 341)
    crowds = [
        sum(0 if r.iscrowd is None else int(r.iscrowd.sum()) for r in (mini.records[i] for i in mini.splits[s])) for s in ("train", "val")
    ]
    assert crowds == [8, 4]
    assert [sum(len(mini.records[i].captions) for i in mini.splits[s]) for s in ("train", "val")] == [400, 200]
    persons = [
        sum(int((r.keypoints[..., 2] > 0).any(-1).sum()) for r in (mini.records[i] for i in mini.splits[s]) if r.keypoints is not None)
        for s in ("train", "val")
    ]
    assert persons == [86, 39]
    wbc = read_data(real("wbc_segmentation") / "Class Labels of Dataset 1.csv")
    assert Dataset(wbc).class_counts().tolist() == [176, 53, 48, 22, 1]
    assert objects(read_data(real("dlib_faces"))) == 18 + 25
    faces = read_data(real("facial_keypoints"))
    assert all(r.keypoints.shape == (1, 68, 3) for r in faces.records)


def test_T1_masks_of_the_real_sets_hold_the_values_of_the_readme(real):
    wbc = read_data(real("wbc_segmentation"))
    assert (wbc.mask_values, wbc.mask_nearest) == ({0: 0, 128: 1, 255: 2}, True)
    camvid = read_data(real("camvid"))
    assert camvid.mask_values == {k: k for k in range(12)}
    assert np.unique(Dataset(camvid)[0].target["mask"]).max() <= 11


def test_T1_every_picture_of_the_small_sets_decodes_or_is_named(real):
    broken = []
    for name in ("denoise", "oxford_graf", "middlebury_stereo", "multiview_dino", "near_duplicates", "opencv_samples", "imagenet_samples"):
        data = Dataset(read_data(real(name), "images", label="none"))
        for i in range(0, len(data), 1 if len(data) < 30 else 6):
            try:
                assert data[i].image.numel()
            except DataError as error:
                broken.append(str(error))
    assert len(broken) == 1
    assert "ukbench09268_corrupt.jpg" in broken[0]


def test_T1_coco128_holds_the_truth_of_four_tasks(real):
    root = real("coco128")
    outlines = read_data(root, "yolo", labels="instance_segmentation")
    assert {s: len(v) for s, v in outlines.splits.items()} == {"train": 100, "val": 24}
    assert any(s is not None for r in outlines.records for s in r.segments or ())
    panoptic = read_data(root, "panoptic")
    assert {s: len(v) for s, v in panoptic.splits.items()} == {"train": 100, "val": 24}
    with pytest.raises(DataError, match=r"is missing; it is dropped|not one usable image"):
        read_data(root / "panoptic_segmentation")  # its images lie beside it
