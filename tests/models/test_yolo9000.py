"""YOLO9000: its word tree by hand, its losses with their loops written out, Darknet's cfg, and mixed data."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import saccade
from saccade import DataError, UsageError, create_model, load_data, testing
from saccade.data.dataset import Dataset
from saccade.data.mixed import mix
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.engine.bundle import load_bundle, save_bundle
from saccade.models.darknet.model import load_darknet
from saccade.models.darknet.weights import read_weights, units, write_weights
from saccade.types.geometry import Geometry
from saccade.types.sample import collate

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"

TREE = "animal -1\nvehicle -1\ndog 0\ncat 0\nterrier 2\n"
"""Two roots; dog and cat are animals; the only kind of dog is the terrier."""

PARENTS = (-1, -1, 0, 0, 2)


def need_cfgs():
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions")


def small(classes=5, **options):
    torch.manual_seed(0)
    return create_model("yolo9000", classes, **({"size": 64, "width": 0.0625, "tree": TREE, "priors": "8x8 20x30 40x30"} | options))


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


# -- the authors' network -------------------------------------------------------------------------


@pytest.mark.real
def test_C22_D20_the_authors_network_has_9418_nodes_and_as_many_numbers_as_its_file():
    need_cfgs()
    with torch.device("meta"):
        model = create_model("yolo9000", 9418, tree=str(CFGS / "9k.tree"))
    assert len(model.tree) == 9418
    assert model.output.out_channels == 28_269 == 3 * (5 + 9418)
    assert sum(unit.floats for unit in units(model)) == 48_807_501
    (raw,) = model.eval().raw(torch.empty(1, 3, 544, 544, device="meta"))
    assert raw.shape == (1, 28_269, 17, 17)
    assert model.classes[:2] == ["n00002452", "n00020827"]


@pytest.mark.real
def test_D20_darknets_cfg_gives_the_same_numbers_and_the_same_nodes(tmp_path):
    need_cfgs()
    model = shake(create_model("yolo9000", 9418, tree=str(CFGS / "9k.tree"), names=str(CFGS / "9k.names"), size=64))
    theirs = load_darknet(CFGS / "pjreddie_yolo9000.cfg", dialect="alexeyab", tree=CFGS / "9k.tree")
    theirs.network.layers[-1].original = True  # its epsilon is the fork's, the descent is the original's
    write_weights(model, tmp_path / "w.weights")
    read_weights(theirs.network, tmp_path / "w.weights")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ((ours,), (other,)) = model.raw(images), theirs.raw(images)
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)
        ours[:, ::7] *= 8  # so that the descent leaves the roots
        for threshold in (0.0, 0.01, 0.5):
            model.tree_threshold = theirs.tree_threshold = threshold
            for a, b in zip(model.boxes_and_scores([ours]), theirs.boxes_and_scores([ours], (64, 64)), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert model.classes[5] == (CFGS / "9k.names").read_text().splitlines()[5].replace(" ", "_")


# -- a tree of five nodes, by hand ----------------------------------------------------------------


def test_C22_probabilities_of_five_nodes_by_hand():
    """animal 3/4, vehicle 1/4; dog 2/3, cat 1/3 of the animals; every dog a terrier."""
    model = small()
    logits = torch.tensor([math.log(3), 0.0, math.log(2), 0.0, 5.0])
    absolute = model.tree.absolute(model.tree.softmax(logits))
    assert absolute.tolist() == pytest.approx([3 / 4, 1 / 4, 1 / 2, 1 / 4, 1 / 2])
    paths = model.path_probability(logits.expand(5, 5), torch.arange(5)).exp()
    assert paths.tolist() == pytest.approx([3 / 4, 1 / 4, 1 / 2, 1 / 4, 1 / 2])


def test_C22_a_label_costs_the_cross_entropy_of_each_set_on_its_path():
    """ "animal" says nothing of dog or cat, "terrier" costs animal, dog and terrier; by hand, with the gradient of the root alone."""
    model = small()
    logits = torch.tensor([[math.log(3), 0.0, math.log(2), 0.0, 5.0]], requires_grad=True)
    assert model.class_loss(logits, torch.tensor([0])).item() == pytest.approx(-math.log(3 / 4))
    assert model.class_loss(logits, torch.tensor([4])).item() == pytest.approx(-math.log(3 / 4) - math.log(2 / 3))
    model.class_loss(logits, torch.tensor([0])).backward()
    assert logits.grad[0].tolist() == pytest.approx([-1 / 4, 1 / 4, 0, 0, 0])


def test_C22_prediction_descends_while_it_is_sure():
    model = small()
    logits = torch.tensor([[math.log(9), 0.0, math.log(9), 0.0, 0.0], [math.log(9), 0.0, 0.0, 0.1, 0.0], [0.0, 2.0, 0.0, 0.0, 0.0]])
    assert model.probabilities(logits).argmax(-1).tolist() == [4, 0, 1]  # 0.9 * 0.81 * 0.81 is above 0.5; 0.9 * 0.47 is not
    assert model.probabilities(logits).sum(-1).tolist() == [1, 1, 1]
    model.tree_threshold = 0.7
    assert model.probabilities(logits).argmax(-1).tolist() == [2, 0, 1]


def test_C22_classes_are_nodes_by_name_and_a_node_between_counts_for_its_ancestor():
    class Data:
        classes = ("vehicle", "dog")

    model = small(2)
    model.learn_from(Data)
    assert model.nodes.tolist() == [1, 2]
    assert model.labels_of_nodes().tolist() == [-1, 0, 1, -1, 1]
    logits = torch.tensor([[math.log(9), 0.0, math.log(9), 0.0, 0.0], [math.log(9), 0.0, 0.0, 3.0, 0.0], [0.0, 9.0, 0.0, 0.0, 0.0]])
    assert model.probabilities(logits).tolist() == [[0, 1], [0, 0], [1, 0]]  # terrier is a dog; cat is no class
    Data.classes = ("vehicle", "dgo")
    with pytest.raises(UsageError, match=r"'dgo' is no node of model.tree.*did you mean 'dog'"):
        model.learn_from(Data)


def test_C22_without_names_all_nodes_or_all_leaves():
    assert small(5).nodes.tolist() == [0, 1, 2, 3, 4]
    assert small(3).nodes.tolist() == [1, 3, 4]
    assert small(5).classes == ["animal", "vehicle", "dog", "cat", "terrier"]


def test_C22_a_bundle_holds_its_tree(tmp_path):
    (tmp_path / "my.tree").write_text(TREE)
    model = small(2, tree=str(tmp_path / "my.tree"), tree_threshold=0.25)
    model.nodes.copy_(torch.tensor([3, 1]))
    save_bundle(model, tmp_path / "bundle")
    (tmp_path / "my.tree").unlink()
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.tree.names == ["animal", "vehicle", "dog", "cat", "terrier"]
    assert loaded.tree.parent.tolist() == list(PARENTS)
    assert (loaded.nodes.tolist(), loaded.tree_threshold) == ([3, 1], 0.25)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tree": "a 1\nb 0\n"}, "not an earlier node"),
        ({"tree": "a -1\nb\n"}, "no name and number"),
        ({"tree": "no.tree"}, "cannot be read"),
        ({"tree": "a -1\nb -1\n"}, "2 nodes for 5 classes"),
        ({"tree": None, "names": "x"}, "not given"),
        ({"tree_threshold": 1.5}, "tree_threshold"),
        ({"pretrained": True}, "published"),
    ],
    ids=str,
)
def test_C22_wrong_trees_and_options(options, match):
    with pytest.raises((UsageError, DataError), match=match):
        small(5, **options)


# -- the losses -----------------------------------------------------------------------------------


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


def log_path(t, node):
    """log Pr(node) from logits, set by set of siblings."""
    total = 0.0
    while node >= 0:
        siblings = [k for k, parent in enumerate(PARENTS) if parent == PARENTS[node]]
        total += t[node] - math.log(sum(math.exp(t[k]) for k in siblings))
        node = PARENTS[node]
    return total


def overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(wide, 0.0) * max(high, 0.0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def literal(raw, targets, priors, nodes, stride=32):
    """Section 4 with the region layer's parts, number by number; targets have boxes, or a label only."""
    n, _, rows, columns = raw.shape
    raw = raw.double().view(n, len(priors), 10, rows, columns).tolist()
    total = dict.fromkeys(("box", "object", "no_object", "class", "image_class", "image_object"), 0.0)
    for image, target in zip(raw, targets, strict=True):
        every = [(a, r, c) for a in range(len(priors)) for r in range(rows) for c in range(columns)]
        t = {place: [image[place[0]][d][place[1]][place[2]] for d in range(10)] for place in every}
        if "boxes" not in target:
            node = nodes[int(target["label"])]
            best = max(every, key=lambda place, t=t, node=node: sigmoid(t[place][4]) * math.exp(log_path(t[place][5:], node)))
            total["image_class"] -= log_path(t[best][5:], node)
            total["image_object"] += 5 * (0.3 - sigmoid(t[best][4])) ** 2 / 2 if sigmoid(t[best][4]) < 0.3 else 0
            continue
        objects, learns = list(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)), {}
        for box, label in objects:
            w, h = box[2] - box[0], box[3] - box[1]
            fit = [min(w, p) * min(h, q) / (w * h + p * q - min(w, p) * min(h, q)) for p, q in priors]
            learns[fit.index(max(fit)), int((box[1] + box[3]) / 2 / stride), int((box[0] + box[2]) / 2 / stride)] = box, label
        for a, r, c in every:
            v, (p, q) = t[a, r, c], priors[a]
            x, y, w, h = (c + sigmoid(v[0])) * stride, (r + sigmoid(v[1])) * stride, p * math.exp(v[2]), q * math.exp(v[3])
            mine = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            if (a, r, c) not in learns:
                total["no_object"] += 0 if any(overlap(mine, box) > 0.6 for box, _ in objects) else sigmoid(v[4]) ** 2 / 2
                continue
            box, label = learns[a, r, c]
            bw, bh = box[2] - box[0], box[3] - box[1]
            aim = (box[0] + box[2]) / 2 / stride - c, (box[1] + box[3]) / 2 / stride - r, math.log(bw / p), math.log(bh / q)
            got, weight = (sigmoid(v[0]), sigmoid(v[1]), v[2], v[3]), 2 - bw * bh / (rows * columns * stride**2)
            total["box"] += sum(weight * (one - other) ** 2 / 2 for one, other in zip(got, aim, strict=True))
            total["object"] += 5 * (sigmoid(v[4]) - overlap(mine, box)) ** 2 / 2
            total["class"] -= log_path(v[5:], nodes[label])
    return {name: value / n for name, value in total.items()}


def boxed(size, count, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size * 0.6
    side = size * (0.05 + 0.3 * torch.rand(count, 2, generator=generator))
    return {"boxes": torch.cat([corner, corner + side], 1), "labels": torch.randint(classes, (count,), generator=generator)}


@pytest.mark.parametrize("kinds", ["bbll", "b", "ll", "b0l", "00"])
def test_D20_losses_of_mixed_batches(kinds, monkeypatch):
    """b: an image with boxes, 0: one without an object, l: one with a label and no boxes."""
    model = small(4)
    model.nodes.copy_(torch.tensor([1, 4, 0, 2]))
    targets = [{"label": torch.tensor(k % 4)} if kind == "l" else boxed(96, 6 * (kind == "b"), 4, k) for k, kind in enumerate(kinds)]
    raw = torch.randn(len(kinds), 30, 3, 3, generator=torch.Generator().manual_seed(4))
    raw[-1, 4::10] -= 3  # in the last image the best box is below 0.3
    monkeypatch.setattr(type(model), "raw", lambda self, images: [raw])
    ours = model.losses(torch.zeros(len(kinds), 3, 96, 96), targets)
    expected = literal(raw, targets, model.priors[0].tolist(), model.nodes.tolist())
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].item() == pytest.approx(value, rel=1e-4, abs=1e-5), name
    if kinds == "b0l":
        assert ours["image_object"] > 0


def test_D20_an_image_without_boxes_teaches_one_box_and_nothing_else():
    model = small()
    raw = torch.randn(1, 3, 10, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    fields = model.fields(raw.flatten(1, 2))
    losses = model.image_losses(fields, torch.tensor([2]))
    torch.stack(list(losses.values())).sum().backward()
    touched = raw.grad.abs().sum(2)[0] > 0
    assert int(touched.sum()) == 1
    assert raw.grad[0, :, :4].abs().sum() == 0


# -- learning -------------------------------------------------------------------------------------


def test_D20_overfits_a_mixed_batch():
    torch.manual_seed(0)
    data, whole = load_data("synthetic:shapes?count=6&size=96"), load_data("synthetic:shapes?count=5&size=96&task=classify")
    model = create_model("yolo9000", 5, size=96, width=0.125, priors="auto")
    model.learn_from(data)
    items = [model.preprocess(both[i]) for both in (data, whole) for i in range(len(both))]
    images, targets = collate(items)[:2]
    assert ["boxes" in target for target in targets] == [True] * 6 + [False] * 5
    optimizer, curve = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=45)
    for _ in range(45):
        losses = model.train().losses(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
        curve.append(loss.item())
    assert curve[-1] < curve[0] / 5
    assert losses["image_class"] < 0.3 * math.log(5)
    with torch.no_grad():
        predictions = model.eval().decode(model.raw(images), [Geometry((96, 96), (96, 96))] * 11, score=0.2)
    learnable = sum(len(one.truth) for (one,) in model.assignments(images, targets))
    found = 0
    for prediction, target in zip(predictions[:6], targets[:6], strict=True):
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            rows = zip(prediction.boxes.tolist(), prediction.labels.tolist(), strict=True)
            found += any(label == other and overlap(box, mine) > 0.5 for mine, other in rows)
    assert found > 0.6 * learnable


def test_D20_two_data_sets_in_one():
    boxes, labels = load_data("synthetic:shapes?count=4&size=64"), load_data("synthetic:shapes?count=3&size=64&task=classify")
    labels.index.classes = [labels.classes[0], "moon", *labels.classes[2:]]
    data = mix(boxes, labels)
    assert len(data) == 7
    assert data.classes == [*boxes.classes, "moon"]
    assert ["boxes" in data[i].target for i in range(7)] == [True] * 4 + [False] * 3
    assert [int(data[i].target["label"]) for i in range(4, 7)] == [0, len(boxes.classes), 2]
    for i in range(4):
        assert torch.equal(data[i].image, boxes[i].image)
        np.testing.assert_array_equal(data[i].target["boxes"], boxes[i].target["boxes"])
    assert torch.equal(data[5].image, labels[1].image)
    with pytest.raises(UsageError, match="has no boxes"):
        mix(labels, labels)
    with pytest.raises(UsageError, match="has no label"):
        mix(boxes, boxes)


def test_D20_mixed_data_keep_crowds_and_what_a_format_adds(tmp_path):
    boxes, labels = np.array([[0, 0, 10, 20], [0, 0, 60, 40]], np.float32), np.array([0, 1])
    one = Record("a.png", "0", (48, 64), boxes=boxes, labels=labels, iscrowd=np.array([False, True]), extra={"area": np.array([9.0, 8.0])})
    other = Record("a.png", "0", (32, 32), label=0)
    sources = [
        Dataset(DataIndex("test", tmp_path, names, PackedRecords([record]), tasks=(task,)))
        for names, record, task in ((["x", "y"], one, "detect"), (["y"], other, "classify"))
    ]
    first, second = (mix(*sources).record(i) for i in range(2))
    assert first.iscrowd.tolist() == [False, True]
    assert first.extra["area"].tolist() == [9, 8]
    assert (first.size, second.size, second.label, second.boxes) == ((48, 64), (32, 32), 1, None)
    assert first.path != second.path


def test_D20_trains_on_two_data_sets(tmp_path):
    """Through the whole engine, with a tree whose nodes are the shapes and what they have in common."""
    boxes, labels = load_data("synthetic:shapes?count=12&size=64"), load_data("synthetic:shapes?count=8&size=64&task=classify")
    names = boxes.classes
    tree = "round -1\nangular -1\n" + "".join(f"{name} {int(k > 1)}\n" for k, name in enumerate(names))
    options = {
        "model.tree": tree,
        "model.size": 64,
        "model.width": 0.0625,
        "recipe.epochs": 1,
        "recipe.batch_size": 4,
        "model.priors": "auto",
    }
    data = mix(boxes, labels)
    run = saccade.train("yolo9000", data, validation=boxes, folder=tmp_path / "run", options=options, workers=0, say=lambda _: None)
    model = saccade.load(run.folder)
    assert model.classes == names
    assert model.nodes.tolist() == [2, 3, 4, 5, 6]
    assert "image_class" in (run.folder / "metrics.csv").read_text()


def test_D20_flat_classes_are_siblings():
    model = testing.build("yolo9000")
    assert model.tree.sizes == [3]
    assert model.class_loss(torch.zeros(2, 3), torch.tensor([0, 2])).item() == pytest.approx(2 * math.log(3))


def test_D20_mixed_source_by_name_keeps_the_splits_of_the_boxes():
    boxes, labels = "synthetic:shapes?count=20&size=48", "synthetic:shapes?count=6&size=32&task=classify"
    first, second = saccade.load_data(boxes), saccade.load_data(labels, "train")
    assert len(second) == 4
    parts = {split: saccade.load_data(f"mix:{boxes},{labels}", split, task="detect") for split in ("train", "val", "test")}
    assert [len(parts[split]) for split in ("train", "val", "test")] == [14 + 4, 3, 3]
    whole = saccade.load_data(boxes, "train")
    train = parts["train"]
    assert [train.record(i).path for i in range(14)] == [f"boxes/{whole.record(i).path}" for i in range(14)]
    assert [train.record(14 + i).label for i in range(4)] == [train.classes.index(second.classes[second.record(i).label]) for i in range(4)]
    assert train.classes == parts["val"].classes
    assert train.classes[: len(first.classes)] == first.classes
    assert torch.equal(train[0].image, whole[0].image)
    with pytest.raises(UsageError, match="two sources"):
        saccade.load_data("mix:one")


def test_D20_mixed_data_are_refused_by_models_that_learn_from_boxes_only(tmp_path):
    data = "mix:synthetic:shapes?count=20&size=48,synthetic:shapes?count=6&size=32&task=classify"
    with pytest.raises(UsageError, match=r"yolov3_tiny learns from boxes only.*yolo9000"):
        saccade.train("yolov3_tiny", data, out=tmp_path, epochs=1, options={"model.width": 0.1, "model.size": 64})
    assert not list(tmp_path.iterdir())
    options = {"model.width": 0.1, "model.size": 64}
    with pytest.raises(UsageError, match="learns from boxes only"):
        saccade.check("yolov3_tiny", data, learn=False, options=options)
    found = saccade.check("yolo9000", data, learn=False, options=options, seconds=1)  # images with a label alone are looked at too
    assert found.facts["classes"]
