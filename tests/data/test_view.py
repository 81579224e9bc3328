"""Pictures with their truth: looked at by colour where the truth says something stands."""

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data import view
from saccade.data.load import load_data
from saccade.types import drawing
from saccade.types.errors import DataError, UsageError
from saccade.types.sample import Sample


def test_T2_view_draws_boxes_where_they_are():
    data = load_data("synthetic:shapes?count=3&size=200")
    sample = data[0]
    picture = np.asarray(view.draw_truth(sample, data.classes))
    x1, _, x2, y2 = (int(v) for v in sample.target["boxes"][0])
    shade = drawing.color(int(sample.target["labels"][0]))
    assert picture[min(y2, 200) - 1, (x1 + x2) // 2].tolist() == list(shade)  # the lower edge carries no text


def test_T2_view_draws_masks_points_labels_and_captions():
    for task in ("detect", "segment", "classify"):
        data = load_data(f"synthetic:shapes?count=2&size=96&task={task}")
        plain = drawing.to_pil(data[0].image)
        shown = view.draw_truth(data[0], data.classes, smallest=96)
        same = shown.size == plain.size and np.array_equal(np.asarray(shown), np.asarray(plain))
        assert not same, task


def test_T2_view_colours_masks_and_points_at_their_scale():
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    mask = torch.zeros(20, 40, dtype=torch.int64)
    mask[15:, 30:] = 2
    shown = np.asarray(view.draw_truth(Sample(image, {"mask": mask}), ["ground", "a", "b"], smallest=80))
    assert shown.shape == (40, 80, 3)
    np.testing.assert_allclose(shown[35, 70], 0.45 * np.array(drawing.color(2)), atol=1)
    assert shown[29, 70].tolist() == shown[35, 59].tolist() == [0, 0, 0]

    target = {
        "boxes": torch.tensor([[0.0, 0, 40, 20]]), "labels": torch.tensor([0]), "iscrowd": torch.tensor([False]),
        "keypoints": torch.tensor([[[30.0, 15], [20, 15]]]), "visibility": torch.tensor([[2, 0]]),
    }  # fmt: skip
    shown = np.asarray(view.draw_truth(Sample(image, target), ["a"], smallest=80))
    assert shown[30, 60].tolist() == list(drawing.color(0))
    assert shown[30, 40].tolist() == [0, 0, 0]  # not in the picture

    captions = [view.draw_truth(Sample(image, {"captions": texts}), []) for texts in ([], ["a cell"], ["a cell", "two cells", "three"])]
    assert [picture.height for picture in captions] == [80, 98, 116]  # a strip for each of the first two


def test_T2_view_chooses_images_by_class_evenly_or_by_seed(real):
    data = load_data(real("bccd"), "test")
    without = [i for i in range(len(data)) if data.classes.index("WBC") not in data.record(i).labels]
    chosen = view.choose(data, 100, classes=["WBC"])
    assert sorted(chosen + without) == list(range(len(data)))
    assert view.choose(data, 4) == [0, 24, 47, 71]
    assert view.choose(data, 5, seed=1) == view.choose(data, 5, seed=1) != view.choose(data, 5, seed=2)
    with pytest.raises(UsageError, match="did you mean 'Platelets'"):
        view.choose(data, 4, classes=["Platelet"])


def test_T2_view_sheet_leaves_out_what_is_broken(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 30), (10, 200, 30)).save(tmp_path / name / "x.png")
    (tmp_path / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = load_data(tmp_path, format="imagefolder")
    picture, broken = view.sheet(data, range(len(data)), cell=100)
    assert len(broken) == 1
    assert "broken.png" in str(broken[0])
    assert picture.width >= 200
    with pytest.raises(DataError, match=r"broken\.png"):
        view.sheet(data, [i for i in range(3) if "broken" in data.record(i).path])
