"""YOLOv1 against Darknet's cfg, and its loss against equation 3 with its loops written out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from saccade import UsageError, create_model, load_data, testing
from saccade.layers.conv_bn import ConvBN
from saccade.models.darknet.cfg import parse_cfg
from saccade.models.darknet.layers import Local
from saccade.models.darknet.model import assemble, load_darknet
from saccade.models.darknet.weights import read_weights, units, write_weights
from saccade.models.detect.yolov1 import responsible
from saccade.types.geometry import Geometry
from saccade.types.sample import collate

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"
FLOATS = {"yolov1_tiny": 27_099_950, "yolov1_darknet": 197_328_243}


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
    """Targets with seeded boxes, some of them sharing a cell."""
    generator, out = torch.Generator().manual_seed(seed), []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * size * 0.7
        side = size * (0.03 + 0.25 * torch.rand(count, 2, generator=generator))
        crowd = torch.rand(count, generator=generator) < 0.3 if crowds else torch.zeros(count, dtype=torch.bool)
        labels = torch.randint(classes, (count,), generator=generator)
        out.append({"boxes": torch.cat([corner, corner + side], 1), "labels": labels, "iscrowd": crowd})
    return out


# -- the network ----------------------------------------------------------------------------------


def test_D18_the_paper_has_24_convolutions_two_dense_layers_and_7x7x30():
    model = on_meta("yolov1")
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 24
    dense = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(7 * 7 * 1024, 4096), (4096, 7 * 7 * 30)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    raw = model.eval().raw(torch.empty(2, 3, 448, 448, device="meta"))
    assert raw.shape == (2, 7 * 7 * 30)
    classes, confidence, places = model.split(raw)
    assert (classes.shape, confidence.shape, places.shape) == ((2, 7, 7, 20), (2, 7, 7, 2), (2, 7, 7, 2, 4))


def test_D18_sizes_of_figure_3():
    model, maps = on_meta("yolov1"), torch.empty(1, 3, 448, 448, device="meta")
    seen = []
    for layer in model.backbone:
        if isinstance(layer, nn.MaxPool2d):
            seen.append((maps.shape[1], maps.shape[2]))
        maps = layer(maps)
    assert seen == [(64, 224), (192, 112), (512, 56), (1024, 28)]
    assert maps.shape[1:] == (1024, 7, 7)


@pytest.mark.parametrize("name", FLOATS)
def test_D18_as_many_numbers_as_in_darknets_file_of_weights(name):
    assert sum(unit.floats for unit in units(on_meta(name))) == FLOATS[name]


def test_D18_the_cfg_has_three_boxes_and_a_locally_connected_layer():
    model = on_meta("yolov1_darknet")
    (local,) = [m for m in model.modules() if isinstance(m, Local)]
    assert (local.out, local.size, local.activation) == ((256, 7, 7), 3, "leaky")
    assert model.count == 3
    assert model.head.output.out_features == 7 * 7 * (20 + 15) == 1715
    assert sum(isinstance(m, ConvBN) for m in model.modules()) == 24


SMALL = """
[net]
width=128
height=128
channels=3
{layers}
[local]
filters=16
size=3
stride=1
pad=1
activation=leaky
[dropout]
probability=.5
[connected]
output=72
activation=linear
[detection]
classes=3
coords=4
rescore=1
side=2
num=3
softmax=0
sqrt=1
"""


def test_D18_darknets_cfg_gives_the_same_numbers_at_small_width(tmp_path):
    """yolov1.cfg with a sixteenth of its maps, a grid of 2 x 2 and three classes."""
    model = shake(create_model("yolov1_darknet", 3, size=128, width=1 / 16))
    layers = ""
    for layer in model.backbone:
        if isinstance(layer, nn.MaxPool2d):
            layers += "[maxpool]\nsize=2\nstride=2\n"
        else:
            conv = layer.conv
            layers += f"[convolutional]\nbatch_normalize=1\nfilters={conv.out_channels}\nsize={conv.kernel_size[0]}\n"
            layers += f"stride={conv.stride[0]}\npad=1\nactivation=leaky\n"
    same(model, assemble(parse_cfg(SMALL.format(layers=layers)), dialect="alexeyab"), tmp_path, 128)


def same(model, theirs, folder, size):
    """Raw outputs and boxes of a class equal those of the network that Darknet's reader builds, on one file of weights."""
    write_weights(model, folder / "w.weights")
    read_weights(theirs.network, folder / "w.weights")
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        raw = model.raw(images)
        torch.testing.assert_close(raw, theirs.raw(images), rtol=1e-4, atol=1e-4)
        for ours, other in zip(model.boxes_and_scores(raw), theirs.boxes_and_scores(raw, (size, size)), strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


@pytest.mark.real
def test_D18_tiny_cfg_gives_the_same_numbers(tmp_path):
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions")
    same(shake(create_model("yolov1_tiny")), load_darknet(CFGS / "pjreddie_yolov1-tiny.cfg", dialect="alexeyab"), tmp_path, 448)


@pytest.mark.real
@pytest.mark.slow
def test_D18_full_cfg_gives_the_same_numbers(tmp_path):
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions")
    same(shake(create_model("yolov1_darknet")), load_darknet(CFGS / "pjreddie_yolov1.cfg", dialect="alexeyab"), tmp_path, 448)


# -- the loss -------------------------------------------------------------------------------------


def overlap(a, b):
    """IoU of two boxes given by centre and sides."""
    wide = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    high = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    inter = max(wide, 0.0) * max(high, 0.0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def equation_3(raw, targets, s, b, k, size):
    """The paper's equation 3, image by image, cell by cell, box by box; raw in Darknet's order."""
    total = {"box": 0.0, "object": 0.0, "no_object": 0.0, "class": 0.0}
    for vector, target in zip(raw.double().tolist(), targets, strict=True):
        crowds = [box for box, crowd in zip(target["boxes"].tolist(), target["iscrowd"].tolist(), strict=True) if crowd]
        taken = {}
        for box, label, crowd in zip(target["boxes"].tolist(), target["labels"].tolist(), target["iscrowd"].tolist(), strict=True):
            x, y = (box[0] + box[2]) / 2 / size, (box[1] + box[3]) / 2 / size
            w, h = (box[2] - box[0]) / size, (box[3] - box[1]) / size
            if not crowd and w > 0 and h > 0:
                taken.setdefault((int(y * s), int(x * s)), (x, y, w, h, label))
        for row in range(s):
            for column in range(s):
                cell = row * s + column
                p = vector[cell * k : cell * k + k]
                c = vector[s * s * k + cell * b :][:b]
                place = [vector[s * s * (k + b) + (cell * b + j) * 4 :][:4] for j in range(b)]
                boxes = [((t[0] + column) / s, (t[1] + row) / s, t[2] ** 2, t[3] ** 2) for t in place]
                chosen = -1
                if (row, column) in taken:
                    x, y, w, h, label = taken[row, column]
                    ious = [overlap(box, (x, y, w, h)) for box in boxes]
                    apart = [sum((u - v) ** 2 for u, v in zip(box, (x, y, w, h), strict=True)) for box in boxes]
                    chosen = ious.index(max(ious)) if max(ious) > 0 else apart.index(min(apart))
                    t = place[chosen]
                    total["box"] += 5 * ((t[0] - (x * s - column)) ** 2 + (t[1] - (y * s - row)) ** 2)
                    total["box"] += 5 * ((t[2] - w**0.5) ** 2 + (t[3] - h**0.5) ** 2)
                    total["object"] += (c[chosen] - ious[chosen]) ** 2
                    total["class"] += sum((p[n] - (1 if n == label else 0)) ** 2 for n in range(k))
                u, v = (column + 0.5) * size / s, (row + 0.5) * size / s
                in_crowd = any(q[0] < u < q[2] and q[1] < v < q[3] for q in crowds)
                total["no_object"] += sum(0.5 * c[j] ** 2 for j in range(b) if j != chosen and not in_crowd)
    return {name: value / len(targets) for name, value in total.items()}


@pytest.mark.parametrize(("counts", "crowds"), [([3, 8, 0, 25], False), ([0, 0], False), ([6, 12], True), ([1], False)])
def test_D18_loss_is_equation_3(counts, crowds, monkeypatch):
    model = testing.build("yolov1", size=256)
    targets = scene(256, counts, seed=sum(counts), crowds=crowds)
    generator = torch.Generator().manual_seed(5)
    raw = torch.rand(len(counts), 16 * (3 + 10), generator=generator) * 0.8
    raw[:, 16 * 5 :] -= 0.1
    monkeypatch.setattr(type(model), "raw", lambda self, images: raw)
    ours, expected = model.losses(torch.zeros(1), targets), equation_3(raw, targets, 4, 2, 3, 256)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_D18_the_predictor_of_highest_overlap_is_responsible():
    """By hand, in a grid of one cell of 64 pixels: the object is the middle quarter."""
    wanted = torch.tensor([[0.5, 0.5, 0.5**0.5, 0.5**0.5]])
    far, half, same_place = [0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.5, 0.5**0.5], [0.5, 0.5, 0.5**0.5, 0.5**0.5]
    best, iou = responsible(torch.tensor([[far, half]]), wanted, 1, 64)
    assert best.tolist() == [1]
    assert iou.item() == pytest.approx(0.5, abs=1e-5)
    assert responsible(torch.tensor([[same_place, half]]), wanted, 1, 64)[0].tolist() == [0]
    none, nearer = [0.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.1, 0.1]
    best, iou = responsible(torch.tensor([[none, nearer]]), wanted, 1, 64)
    assert (best.tolist(), iou.item()) == ([1], 0.0)


def test_D18_cells_of_objects_and_the_one_that_gets_none():
    model = testing.build("yolov1", size=256)
    boxes = torch.tensor([[10.0, 70, 30, 90], [12, 72, 40, 92], [192, 192, 256, 256]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 1, 2])}
    ((one,), (none,)) = model.assignments(
        torch.zeros(2, 3, 256, 256), [target, target | {"boxes": boxes[:0], "labels": torch.zeros(0).long()}]
    )
    assert one.boxes.tolist() == [[0, 64, 64, 128], [192, 192, 256, 256]]
    assert one.truth.tolist() == [0, 2]
    assert one.counts().tolist() == [1, 0, 1]
    assert len(none.boxes) == 0


# -- decoding and learning ------------------------------------------------------------------------


def test_D18_a_score_is_confidence_times_class_probability():
    """One predictor of the cell (row 1, column 2) says: a box of a quarter of the side around (0.25, 0.5) of the cell."""
    model = testing.build("yolov1", size=256)
    raw = torch.zeros(1, 16 * 13)
    cell = 1 * 4 + 2
    raw[0, cell * 3 : cell * 3 + 3] = torch.tensor([0.1, 0.8, 0.1])
    raw[0, 48 + cell * 2 + 1] = 0.9
    raw[0, 80 + (cell * 2 + 1) * 4 :][:4] = torch.tensor([0.25, 0.5, 0.5, 0.5])
    (found,) = model.decode(raw, [Geometry((256, 256), (256, 256))])
    assert found.labels.tolist() == [1]
    assert found.scores.tolist() == pytest.approx([0.72])
    assert found.boxes.tolist() == [pytest.approx([144 - 32, 96 - 32, 144 + 32, 96 + 32])]


@pytest.mark.parametrize("name", ["yolov1", "yolov1_tiny", "yolov1_darknet"])
def test_D18_overfits_eight_images(name):
    torch.manual_seed(0)
    options = {"dropout": 0.0} if name != "yolov1_tiny" else {}
    options |= {"hidden": 128} if name == "yolov1" else {}
    data = load_data("synthetic:shapes?count=8&size=128")
    model = create_model(name, len(data.classes), size=128, width=0.125, **options)
    images, targets = collate([model.preprocess(data[i]) for i in range(8)])[:2]
    learnable = sum(len(one.truth) for (one,) in model.assignments(images, targets))  # others share their cell with an earlier object
    assert learn(model, images, targets, *((100, 1e-3) if name == "yolov1" else (50, 2e-3))) > 0.6 * learnable


def learn(model, images, targets, steps, lr):
    """The loss falls by more than 80 %; gives how many objects a box of their class then overlaps by half."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    curve = []
    for _ in range(steps):
        loss = torch.stack(list(model.train().losses(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
        curve.append(loss.item())
    assert curve[-1] < curve[0] / 5, f"{curve[0]} to {curve[-1]}"
    found = 0
    with torch.no_grad():
        predictions = model.eval().decode(model.raw(images), [Geometry(images.shape[-2:], images.shape[-2:])] * len(images), score=0.2)
    for prediction, target in zip(predictions, targets, strict=True):
        same = target["labels"][:, None] == torch.from_numpy(prediction.labels)
        overlaps = box_iou(target["boxes"].as_subclass(torch.Tensor), torch.from_numpy(prediction.boxes)) * same
        found += int((overlaps > 0.5).any(1).sum())
    return found


@pytest.mark.parametrize(
    "options", [{"size": 100}, {"size": 32}, {"boxes": 0}, {"width": 0.0}, {"dropout": 1.0}, {"hidden": 0}, {"pretrained": True}], ids=str
)
def test_D18_options_that_make_no_network(options):
    with pytest.raises(UsageError):
        create_model("yolov1", 3, **options)


def test_D18_another_size_is_refused():
    model = testing.build("yolov1")
    with pytest.raises(UsageError, match="128x128, not 64x96"):
        model.raw(torch.zeros(1, 3, 64, 96))
