"""The words of all rooms: errors, geometry, samples, predictions."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from saccade.types.errors import DataError, suggest
from saccade.types.geometry import Geometry
from saccade.types.prediction import Classification, Detection, Segmentation
from saccade.types.sample import Sample, boxes_tensor, collate, keep_objects


def test_a_data_error_is_one_line_and_survives_a_pickle():
    error = DataError("a\nb.xml", "is\x00 broken\r\nbadly", where="line 3", hint="fix it")
    assert str(error) == "a b.xml: line 3: is  broken  badly (fix it)"
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.problem, again.where, again.hint) == (error.path, error.problem, error.where, error.hint)
    assert len(str(DataError("x", "y" * 10_000))) < 1000


def test_suggestions():
    assert suggest("epoch", ["epochs", "lr"]) == "; did you mean 'epochs'?"
    assert suggest("zzz", []) == ""
    assert suggest("zzz", map(str, range(20))).endswith("and 8 more")


sides = st.integers(1, 500)


@given(sides, sides, sides, sides, st.integers(0, 50), st.integers(0, 50), st.data())
def test_geometry_there_and_back(h, w, rh, rw, top, left, data):
    geometry = Geometry((h, w), (rh, rw), (top, left), (rh + 2 * top, rw + 2 * left))
    x = data.draw(st.floats(0, w))
    y = data.draw(st.floats(0, h))
    point = torch.tensor([[x, y]], dtype=torch.float64)
    network = geometry.points_to_network(point)
    assert left - 1e-6 <= network[0, 0] <= left + rw + 1e-6
    torch.testing.assert_close(geometry.points_to_original(network), point, rtol=1e-9, atol=1e-6)
    box = torch.tensor([[0.0, 0.0, w, h]], dtype=torch.float64)
    torch.testing.assert_close(geometry.boxes_to_network(box), torch.tensor([[left, top, left + rw, top + rh]], dtype=torch.float64))
    torch.testing.assert_close(geometry.boxes_to_original(geometry.boxes_to_network(box)), box)


def test_geometry_by_hand():
    """A 100x200 image letterboxed to 50x50: scale 1/4, 12 and 13 rows of padding."""
    geometry = Geometry((100, 200), (25, 50), (12, 0), (50, 50))
    assert geometry.scale == (0.25, 0.25)
    torch.testing.assert_close(geometry.boxes_to_network(torch.tensor([[40.0, 20, 80, 60]])), torch.tensor([[10.0, 17, 20, 27]]))
    beyond = geometry.boxes_to_original(torch.tensor([[-10.0, 0, 60, 50]]))
    torch.testing.assert_close(beyond, torch.tensor([[0.0, 0, 200, 100]]))


def test_maps_come_back_to_original_pixels():
    geometry = Geometry((4, 8), (2, 4), (1, 0), (4, 4))
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, :] = 1.0
    out = geometry.maps_to_original(maps, mode="nearest")
    assert out.shape == (1, 4, 8)
    assert out[0, :2].eq(1).all()
    assert out[0, 2:].eq(0).all()


def test_the_fields_of_an_object_are_filtered_together_and_keep_their_types():
    target = {
        "boxes": boxes_tensor([[0, 0, 5, 5], [1, 1, 9, 9], [2, 2, 3, 3]], (10, 10)),
        "labels": torch.tensor([0, 1, 2]),
        "iscrowd": torch.tensor([False, True, False]),
        "masks": tv_tensors.Mask(torch.zeros(3, 10, 10, dtype=torch.bool)),
        "keypoints": torch.zeros(3, 4, 2),
        "visibility": torch.zeros(3, 4, dtype=torch.int64),
        "image_id": "7",
    }
    kept = keep_objects(target, torch.tensor([True, False, True]))
    assert kept["labels"].tolist() == [0, 2]
    assert {key: len(kept[key]) for key in ("boxes", "masks", "keypoints", "visibility", "iscrowd")} == dict.fromkeys(
        ("boxes", "masks", "keypoints", "visibility", "iscrowd"), 2
    )
    assert isinstance(kept["boxes"], tv_tensors.BoundingBoxes)
    assert isinstance(kept["masks"], tv_tensors.Mask)
    assert kept["boxes"].canvas_size == (10, 10)
    assert kept["image_id"] == "7"
    assert len(target["labels"]) == 3


def test_no_boxes_have_the_right_shape():
    assert boxes_tensor([], (5, 5)).shape == (0, 4)
    assert boxes_tensor(np.zeros((0, 4)), (5, 5)).dtype == torch.float32


def test_collate_stacks_equal_images_and_lists_others():
    geometry = Geometry((4, 4), (4, 4))
    same = collate([(torch.zeros(1, 4, 4), {}, geometry)] * 2)
    assert same.images.shape == (2, 1, 4, 4)
    assert same.truths is None
    other = collate([(torch.zeros(1, 4, 4), {}, geometry, {"label": 1}), (torch.zeros(1, 4, 5), {}, geometry, {"label": 0})])
    assert isinstance(other.images, list)
    assert [t["label"] for t in other.truths] == [1, 0]


def test_sample_unpacks():
    image, target = Sample(torch.zeros(3, 2, 2, dtype=torch.uint8), {"label": 1})
    assert image.shape == (3, 2, 2)
    assert target["label"] == 1


def detection():
    return Detection(
        boxes=np.array([[10, 20, 30, 50], [0, 0, 5, 5]], np.float32), labels=np.array([1, 0]), scores=np.array([0.9, 0.2], np.float32),
        classes=["a", "b"], size=(60, 80), path="x.png", image_id=5, image=torch.full((3, 60, 80), 200, dtype=torch.uint8),
    )  # fmt: skip


def test_detection_to_coco_and_back():
    rows = detection().to_coco(category_ids=[7, 9])
    assert rows[0] == {"image_id": 5, "category_id": 9, "bbox": [10.0, 20.0, 20.0, 30.0], "score": pytest.approx(0.9)}
    assert detection().to_coco(image_id=2)[1]["category_id"] == 1
    assert len(detection().above(0.5)) == 1
    assert detection().to_dict()["objects"][0]["name"] == "b"


def test_drawn_boxes_cover_the_pixels_inside_the_edges():
    drawn = np.asarray(detection().above(0.5).draw())
    changed = (drawn != 200).any(axis=2)
    assert changed[40, 10]  # first column inside
    assert changed[40, 29]  # last column inside: x2 = 30 is an edge
    assert not changed[40, 30]
    assert changed[49, 20]
    assert not changed[50, 20]


def test_predictions_save(tmp_path):
    path = detection().save(tmp_path / "deep" / "p.png")
    assert Image.open(path).size == (80, 60)
    detection().save(tmp_path / "p.json")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["p.json"]


def test_a_prediction_opens_its_own_image(tmp_path):
    Image.new("RGB", (50, 40), (9, 9, 9)).save(tmp_path / "x.png")
    one = Classification(scores=np.array([0.2, 0.8], np.float32), classes=["no", "yes"], size=(40, 50), path=str(tmp_path / "x.png"))
    assert one.draw().width >= 50
    assert (one.label, one.name(one.label)) == (1, "yes")
    assert one.top(2) == [(1, pytest.approx(0.8)), (0, pytest.approx(0.2))]
    with pytest.raises(ValueError, match="holds no image"):
        Classification(scores=np.ones(1)).draw()


def test_a_lazy_image_is_asked_for_only_when_drawn():
    asked = []

    def image():
        asked.append(1)
        return torch.zeros(3, 20, 20, dtype=torch.uint8)

    prediction = Segmentation(mask=np.eye(20, dtype=np.uint8), classes=["bg", "x"], size=(20, 20), image=image)
    assert prediction.to_dict()["pixels"] == {"bg": 380, "x": 20}
    assert not asked
    prediction.draw()
    assert asked == [1]


def test_masks_are_saved_as_labels(tmp_path):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Segmentation(mask=mask, size=(3, 4)).save_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")), mask)


def test_boxes_are_drawn_on_an_enlarged_copy():
    one = detection().above(0.5)
    drawn = np.asarray(one.draw(one.picture().resize((160, 120))))
    changed = (drawn != 200).any(axis=2)
    assert drawn.shape == (120, 160, 3)
    assert changed[80, 20]
    assert changed[80, 59]
    assert not changed[80, 60]
