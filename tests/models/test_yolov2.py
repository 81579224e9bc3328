"""YOLOv2 against Darknet's cfg, and its loss against the region layer's with its loops written out."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from saccade import UsageError, create_model, load_data, testing
from saccade.models.darknet.layers import Reorg
from saccade.models.darknet.model import load_darknet
from saccade.models.darknet.weights import read_weights, units, write_weights
from saccade.models.registry import default_recipe, find
from saccade.types.geometry import Geometry
from saccade.types.recipe import Recipe
from saccade.types.sample import collate

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"
FLOATS = {"yolov2_tiny": 15_867_885, "yolov2_darknet": 50_676_061}
DESCRIPTIONS = {"yolov2_tiny": "pjreddie_yolov2-tiny-voc.cfg", "yolov2_darknet": "pjreddie_yolov2-voc.cfg"}


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, 20, **options)


def shake(model, seed=0):
    """Weights and statistics that keep activations near 1 and that no initialisation gives."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for unit in units(model):
            for tensor in unit.tensors:
                fan = tensor[0].numel() if tensor.ndim > 1 else 0
                tensor.normal_(0, fan**-0.5 if fan else 0.1, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.add_(0.8)
                module.running_var.abs_().add_(0.2)
    return model.eval()


def scene(size, counts, classes=3, seed=0, crowds=False):
    """Targets with seeded boxes; the first two of an image share cell and shape."""
    generator, out = torch.Generator().manual_seed(seed), []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * size * 0.7
        side = size * (0.03 + 0.25 * torch.rand(count, 2, generator=generator))
        boxes = torch.cat([corner, corner + side], 1)
        if count > 1:
            boxes[1] = boxes[0] + 0.25
        crowd = torch.rand(count, generator=generator) < 0.3 if crowds else torch.zeros(count, dtype=torch.bool)
        out.append({"boxes": boxes, "labels": torch.randint(classes, (count,), generator=generator), "iscrowd": crowd})
    return out


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "maps"), [("yolov2", 3072), ("yolov2_darknet", 1280)])
def test_D19_passes_finer_maps_through_to_13x13(name, maps):
    model = on_meta(name).eval()
    seen = []
    model.conv21.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    model.reorganise.register_forward_hook(lambda _, given, out: seen.append((given[0].shape[1:], out.shape[1:])))
    (raw,) = model.raw(torch.empty(2, 3, 416, 416, device="meta"))
    assert raw.shape == (2, 125, 13, 13)
    fine = (maps - 1024) // 4
    assert seen == [((fine, 26, 26), (4 * fine, 13, 13)), (2, maps, 13, 13)]
    assert sum(isinstance(m, nn.Conv2d) for m in model.backbone.modules()) == 18  # Darknet-19 without its last
    assert isinstance(model.reorganise, Reorg) == (name == "yolov2_darknet")
    assert model.conv21(torch.empty(1, maps, 13, 13, device="meta")).shape[1] == 1024


def test_D19_the_paper_stacks_neighbours():
    """A 4 x 4 map: the four maps of a cell are its 2 x 2 neighbours."""
    model = testing.build("yolov2")
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert model.reorganise(x)[0, :, 0, 1].tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize("name", FLOATS)
def test_D19_as_many_numbers_as_in_darknets_file_of_weights(name):
    assert sum(unit.floats for unit in units(on_meta(name))) == FLOATS[name]


@pytest.mark.real
@pytest.mark.parametrize("name", FLOATS)
def test_D19_darknets_cfg_gives_the_same_numbers(name, tmp_path):
    """At 64 pixels, which the convolutions do not mind; the cfg's own size takes 40 times as long."""
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions")
    model, theirs = shake(create_model(name, 20, size=64)), load_darknet(CFGS / DESCRIPTIONS[name], dialect="alexeyab")
    write_weights(model, tmp_path / "w.weights")
    read_weights(theirs.network, tmp_path / "w.weights")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ((ours,), (other,)) = model.raw(images), theirs.raw(images)
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)
        for a, b in zip(model.boxes_and_scores([ours]), theirs.boxes_and_scores([other], (64, 64)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_D19_priors_of_the_cfg_in_pixels():
    assert testing.build("yolov2").priors[0, 4].tolist() == pytest.approx([11.2364 * 32, 10.0071 * 32])
    assert testing.build("yolov2_tiny").priors[0, 0].tolist() == pytest.approx([1.08 * 32, 1.19 * 32])


def test_D19_priors_given_or_from_the_data():
    model = create_model("yolov2_tiny", 3, size=64, width=0.0625, priors="4x5 8x9 10x20 20x10 30x30")
    assert model.priors[0].tolist() == [[4, 5], [8, 9], [10, 20], [20, 10], [30, 30]]
    model = create_model("yolov2_tiny", 5, size=64, width=0.0625, priors="auto")
    before = model.priors.clone()
    model.learn_from(load_data("synthetic:shapes?count=12&size=64"))
    assert not torch.equal(model.priors, before)
    assert (model.priors > 2).all()
    assert (model.priors < 64).all()


# -- the loss -------------------------------------------------------------------------------------


def overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(wide, 0.0) * max(high, 0.0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


def region(raw, targets, priors, k, stride, loss):
    """Darknet's region layer, number by number: priors in pixels, raw (N, A (5 + K), H, W)."""
    n, _, rows, columns = raw.shape
    raw = raw.double().view(n, len(priors), 5 + k, rows, columns).tolist()
    total = {"box": 0.0, "object": 0.0, "no_object": 0.0, "class": 0.0}
    for image, target in zip(raw, targets, strict=True):
        every = list(zip(target["boxes"].tolist(), target["labels"].tolist(), target["iscrowd"].tolist(), strict=True))
        objects = [(box, label) for box, label, crowd in every if not crowd and box[2] > box[0] and box[3] > box[1]]
        crowds = [box for box, _, crowd in every if crowd]
        learns = {}
        for box, label in objects:
            w, h = box[2] - box[0], box[3] - box[1]
            fit = [min(w, p) * min(h, q) / (w * h + p * q - min(w, p) * min(h, q)) for p, q in priors]
            row, column = int((box[1] + box[3]) / 2 / stride), int((box[0] + box[2]) / 2 / stride)
            learns[fit.index(max(fit)), row, column] = box, label
        for a, (p, q) in enumerate(priors):
            for row in range(rows):
                for column in range(columns):
                    t = [image[a][d][row][column] for d in range(5 + k)]
                    x, y = (column + sigmoid(t[0])) * stride, (row + sigmoid(t[1])) * stride
                    w, h = p * math.exp(t[2]), q * math.exp(t[3])
                    mine = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                    if (a, row, column) not in learns:
                        near = any(overlap(mine, box) > 0.6 for box, _ in objects)
                        for c in crowds:
                            wide, high = min(mine[2], c[2]) - max(mine[0], c[0]), min(mine[3], c[3]) - max(mine[1], c[1])
                            near |= max(wide, 0) * max(high, 0) > 0.5 * w * h
                        total["no_object"] += 0 if near else sigmoid(t[4]) ** 2 / 2
                        continue
                    box, label = learns[a, row, column]
                    bw, bh = box[2] - box[0], box[3] - box[1]
                    weight = 2 - bw * bh / (rows * columns * stride**2)
                    aim = (box[0] + box[2]) / 2 / stride - column, (box[1] + box[3]) / 2 / stride - row
                    aim += math.log(bw / p), math.log(bh / q)
                    got = sigmoid(t[0]), sigmoid(t[1]), t[2], t[3]
                    total["box"] += sum(weight * (u - v) ** 2 / 2 for u, v in zip(got, aim, strict=True))
                    total["object"] += 5 * (sigmoid(t[4]) - (overlap(mine, box) if loss == "iou" else 1)) ** 2 / 2
                    total["class"] -= t[5 + label] - math.log(sum(math.exp(v) for v in t[5:]))
    return {name: value / n for name, value in total.items()}


@pytest.mark.parametrize(
    ("counts", "crowds", "loss"),
    [([3, 8, 0, 14], False, "iou"), ([0, 0], False, "iou"), ([6, 12], True, "iou"), ([2, 5], False, "one"), ([1], False, "iou")],
)
def test_D19_loss_is_the_region_layers(counts, crowds, loss, monkeypatch):
    model = testing.build("yolov2_tiny", priors="8x8 20x30 30x20 60x60 16x40")
    model.configure(Recipe(loss=loss))
    targets = scene(128, counts, seed=sum(counts), crowds=crowds)
    raw = torch.randn(len(counts), 5 * 8, 4, 4, generator=torch.Generator().manual_seed(3)) * 0.5
    monkeypatch.setattr(type(model), "raw", lambda self, images: [raw])
    ours = model.losses(torch.zeros(len(counts), 3, 128, 128), targets)
    expected = region(raw, targets, model.priors[0].tolist(), 3, 32, loss)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].item() == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_D19_a_box_that_overlaps_an_object_need_not_be_empty(monkeypatch):
    """One object, three priors of about its size: one learns it, one overlaps it by 0.609 and is left alone until it moves away, one
    overlaps it by 0.58 and learns.
    """
    model = testing.build("yolov2_tiny", priors="32x32 41x41 42x42 200x200 4x4")
    target = {"boxes": torch.tensor([[0.0, 0, 32, 32]]), "labels": torch.tensor([1])}
    raw = torch.zeros(1, 40, 1, 1)
    monkeypatch.setattr(type(model), "raw", lambda self, images: [raw])
    loss = model.losses(torch.zeros(1, 3, 32, 32), [target])["no_object"]
    assert loss.item() == pytest.approx(3 * 0.25 / 2)
    raw[0, 8 + 2] = 3.0
    loss = model.losses(torch.zeros(1, 3, 32, 32), [target])["no_object"]
    assert loss.item() == pytest.approx(4 * 0.25 / 2)


def test_D19_assigned_priors():
    model = testing.build("yolov2_tiny", priors="8x8 20x30 30x20 60x60 16x40")
    boxes = torch.tensor([[0.0, 0, 30, 20], [1, 1, 30, 22], [100, 100, 128, 128]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 1, 2])}
    ((one,),) = model.assignments(torch.zeros(1, 3, 128, 128), [target])
    assert one.truth.tolist() == [1, 2]
    assert one.counts().tolist() == [0, 1, 1]
    assert one.boxes.tolist() == [[1, 6, 31, 26], [102, 97, 122, 127]]  # of two that fit as well the first


# -- decoding and learning ------------------------------------------------------------------------


def test_D19_one_box_by_hand():
    """Cell (row 1, column 2) of 4 x 4, prior 20 x 30: centre in the middle of the cell, width doubled."""
    model = testing.build("yolov2_tiny", size=128, priors="8x8 20x30 30x20 60x60 16x40").eval()
    raw = torch.full((1, 5, 8, 4, 4), -20.0)
    raw[0, 1, :, 1, 2] = torch.tensor([0.0, 0, math.log(2), 0, 2, 0, 3, 0])
    (found,) = model.decode([raw.view(1, 40, 4, 4)], [Geometry((128, 128), (128, 128))])
    assert found.labels.tolist() == [1]
    assert found.boxes.tolist() == [pytest.approx([80 - 20, 48 - 15, 80 + 20, 48 + 15])]
    assert found.scores.tolist() == pytest.approx([sigmoid(2) * math.exp(3) / (math.exp(3) + 2)])


def test_D19_batches_of_sides_320_to_608():
    model = on_meta("yolov2_tiny").train()
    model.configure(default_recipe(find("yolov2_tiny")))
    sides = set()
    torch.manual_seed(0)
    for _ in range(120):
        images, targets = model.rescaled(torch.zeros(1, 1, 416, 416), [{"boxes": torch.tensor([[0.0, 0, 416, 208]])}])
        sides.add(images.shape[-1])
        assert targets[0]["boxes"].tolist() == [[0, 0, pytest.approx(images.shape[-1]), pytest.approx(images.shape[-1] / 2)]]
    assert sides == set(range(320, 609, 32))


def test_D19_a_batch_of_oblong_images_keeps_its_shape_and_its_boxes():
    model = on_meta("yolov2_tiny").train()
    model.configure(Recipe(multi_scale=(2.0, 2.0)))
    images, targets = model.rescaled(torch.zeros(1, 1, 64, 128), [{"boxes": torch.tensor([[0.0, 32, 128, 64]])}])
    assert images.shape[-2:] == (128, 256)
    assert targets[0]["boxes"].tolist() == [[0, 64, 256, 128]]


def test_D19_automatic_priors_of_boxes_of_no_pixel_stay_above_0(monkeypatch):
    model = create_model("yolov2_tiny", 3, size=64, width=0.0625, priors="auto")
    monkeypatch.setattr(model, "_sizes", lambda data: np.array([[0.01 * k, 0.02] for k in range(1, 6)]))
    model.learn_from(None)
    assert model.priors.unique().tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("name", ["yolov2", "yolov2_tiny", "yolov2_darknet"])
def test_D19_overfits_eight_images(name):
    torch.manual_seed(0)
    data = load_data("synthetic:shapes?count=8&size=96")
    model = create_model(name, len(data.classes), size=96, width=0.125, priors="auto")
    model.learn_from(data)
    images, targets = collate([model.preprocess(data[i]) for i in range(8)])[:2]
    learnable = sum(len(one.truth) for (one,) in model.assignments(images, targets))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=45)
    curve = []
    for _ in range(45):
        loss = torch.stack(list(model.train().losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
        curve.append(loss.item())
    assert curve[-1] < curve[0] / 5
    with torch.no_grad():
        predictions = model.eval().decode(model.raw(images), [Geometry((96, 96), (96, 96))] * 8, score=0.2)
    assert found(predictions, targets) > 0.6 * learnable


def found(predictions, targets):
    """How many objects a box of their class overlaps by half."""
    count = 0
    for prediction, target in zip(predictions, targets, strict=True):
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            rows = zip(prediction.boxes.tolist(), prediction.labels.tolist(), strict=True)
            count += any(label == other and overlap(box, mine) > 0.5 for mine, other in rows)
    return count


@pytest.mark.parametrize(
    "options", [{"size": 100}, {"size": 16}, {"width": 0.0}, {"pretrained": True}, {"priors": "3x4"}, {"priors": "many"}], ids=str
)
def test_D19_options_that_make_no_network(options):
    with pytest.raises(UsageError):
        create_model("yolov2", 3, **options)


def test_D19_sides_that_the_cells_do_not_divide():
    with pytest.raises(UsageError, match="multiples of 32, not 64x80"):
        testing.build("yolov2").raw(torch.zeros(1, 3, 64, 80))
