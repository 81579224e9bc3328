"""C20: classification with localisation. Oracle: the equation of the course, term by term, in plain NumPy; hand cases."""

import json
import math

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import saccade
from saccade import testing
from saccade.models.registry import create_model
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.sample import collate

TINY = {"size": 32, "width": 4, "hidden": 16}


def target(boxes, labels, crowd=None):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "iscrowd": torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
    }


# p_c = 1 with a box and class 2; p_c = 0; three objects of which the second is the largest
TARGETS = [target([[4, 8, 20, 24]], [2]), target([], []), target([[0, 0, 8, 8], [2, 4, 30, 28], [1, 1, 5, 20]], [0, 1, 2])]
TRUTH = [(1, 12 / 32, 16 / 32, 16 / 32, 16 / 32, 2), (0, 0, 0, 0, 0, 0), (1, 16 / 32, 16 / 32, 24 / 32, 28 / 32, 1)]


def literal(y, truth, box_weight, square):
    """L of one image; ``y`` is (p_c, b_x, b_y, b_h, b_w, c_1 ... c_K) with p_c and c before sigmoid and softmax."""
    there, *box, label = truth
    p = 1 / (1 + math.exp(-y[0]))
    loss = -math.log(p if there else 1 - p)
    if not there:
        return loss, 0.0, 0.0
    exponents = [math.exp(c) for c in y[5:]]
    return loss, box_weight * sum(square(a - b) for a, b in zip(y[1:5], box, strict=True)), -math.log(exponents[label] / sum(exponents))


def smooth(x, bend=0.1):
    return x * x / (2 * bend) if abs(x) < bend else abs(x) - bend / 2


@pytest.mark.parametrize(("loss", "square"), [("squared", lambda x: x * x), ("smooth_l1", smooth)])
def test_C20_the_loss_is_the_equation(loss, square):
    torch.manual_seed(0)
    model = create_model("localizer", 3, **TINY, box_weight=7.0).eval()
    model.set_loss(loss)
    images = torch.randn(3, 3, 32, 32)
    torch.nn.init.normal_(model.box.weight, std=0.3)
    raw = model.raw(images)
    rows = torch.cat([raw["object"][:, None], raw["box"], raw["logits"]], 1).tolist()
    terms = np.array([literal(y, t, 7.0, square) for y, t in zip(rows, TRUTH, strict=True)])
    got = model.losses(images, TARGETS)
    assert list(got) == ["object", "box", "class"]
    np.testing.assert_allclose([float(v.detach()) for v in got.values()], terms.mean(0), rtol=1e-5)


def test_C20_nothing_but_p_c_is_learnt_without_an_object():
    model = create_model("localizer", 3, **TINY)
    torch.stack(
        list(model.losses(torch.randn(2, 3, 32, 32), [target([], []), target([[1, 1, 9, 9]], [1], [True])]).values())
    ).sum().backward()
    assert model.box.weight.grad.abs().max() == 0
    assert model.output.weight.grad[1:].abs().max() == 0
    assert model.output.weight.grad[0].abs().max() > 0


def test_C20_at_most_one_box_in_original_pixels():
    model = create_model("localizer", 2, **TINY)
    raw = {
        "object": torch.tensor([3.0, 3.0, -3.0]),
        "box": torch.tensor([[0.5, 0.25, 0.5, 0.2], [0.9, 0.5, -1.0, 0.4], [0.5, 0.5, 0.1, 0.1]]),
        "logits": torch.tensor([[0.0, 2.0], [1.0, -1.0], [0.0, 0.0]]),
    }
    geometries = [Geometry((100, 200), (32, 32))] * 3
    first, second, third = model.decode(raw, geometries, score=0.3)
    # centre (100, 25), 50 high, 40 wide; a point of probability sigmoid(3) times softmax
    np.testing.assert_allclose(first.boxes, [[80, 0, 120, 50]], atol=1e-4)
    assert first.labels.tolist() == [1]
    assert first.scores[0] == pytest.approx(1 / (1 + math.exp(-3)) / (1 + math.exp(-2)), rel=1e-5)
    np.testing.assert_allclose(second.boxes, [[140, 50, 200, 50]], atol=1e-4)  # a negative side is none; cut at the border
    assert len(third) == 0
    assert [len(p) for p in model.decode(raw, geometries, score=0.0)] == [1, 1, 1]


def test_C20_truth_takes_the_largest_object_and_no_crowd():
    model = create_model("localizer", 3, **TINY)
    there, boxes, labels = model.truth([*TARGETS, target([[0, 0, 30, 30], [0, 0, 4, 4]], [0, 2], [True, False])], (32, 32))
    assert there.tolist() == [1, 0, 1, 1]
    np.testing.assert_allclose(boxes[:3], [t[1:5] for t in TRUTH])
    assert labels.tolist() == [2, 0, 1, 2]


def test_C20_several_objects_are_told_once():
    model = create_model("localizer", 5, **TINY)
    assert model.notes(saccade.load_data("synthetic:shapes?count=6&size=48&task=landmarks", task="detect")) == []
    (note,) = model.notes(saccade.load_data("synthetic:shapes?count=6&size=48"))
    assert "of 6 images have several objects: the largest is learnt" in note


def test_C20_learns_where_and_what_of_ten_images():
    torch.manual_seed(0)
    data = saccade.load_data("synthetic:shapes?count=10&size=48&task=landmarks", task="detect")
    model = create_model("localizer", 5, size=32, width=8, hidden=32)
    batch = collate([model.preprocess(data[i]) for i in range(10)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch.images, batch.targets).values())).sum().backward()
        optimizer.step()
    overlaps = []
    for i, prediction in enumerate(model.predict([data[i].image for i in range(10)])):
        truth = data[i].target
        assert prediction.labels.tolist() == truth["labels"].tolist()
        overlaps.append(float(box_iou(torch.from_numpy(prediction.boxes), truth["boxes"])))
    assert min(overlaps) > 0.5
    assert np.mean(overlaps) > 0.7


@pytest.mark.parametrize("several", [False, True])
def test_C20_training_says_which_object_is_learnt(several, tmp_path):
    said, data = [], f"synthetic:shapes?count=10&size=48&task={'detect' if several else 'landmarks'}"
    options = {f"model.{k}": v for k, v in TINY.items()} | {"recipe.batch_size": 4}
    run = saccade.train("localizer", data, folder=tmp_path / "run", epochs=1, options=options, workers=0, say=said.append)
    assert sum("the largest is learnt" in line for line in said) == several
    assert json.loads((run.folder / "run.json").read_text())["main"] == "map50"
    assert {"train_object", "train_box", "train_class", "map50"} <= set((run.folder / "metrics.csv").read_text().splitlines()[0].split(","))


def test_C20_a_backbone_of_timm_and_bad_options():
    model = testing.build("localizer", backbone="test_resnet.r160_in1k", size=64)
    assert model.raw(torch.zeros(2, 3, 64, 64))["logits"].shape == (2, 3)
    for options, message in (
        ({"size": 16}, "model.size=16"),
        ({"backbone": "resnet1888"}, "timm has no model"),
        ({"box_weight": -1.0}, "model.box_weight=-1.0"),
        ({"pretrained": True}, "no weights are published"),
    ):
        with pytest.raises(UsageError, match=message):
            create_model("localizer", 3, **options)


def test_C20_check_tells_of_several_objects():
    options = {f"model.{k}": v for k, v in TINY.items()}
    found = saccade.check("localizer", "synthetic:shapes?count=12&size=48", options=options, steps=5)
    assert any("the largest is learnt" in f.text for f in found.findings)
    assert found.facts["cost"]["parameters"] > 0
