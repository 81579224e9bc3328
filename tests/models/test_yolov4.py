"""YOLOv4 against Darknet's own descriptions, and against its loss written out with loops."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from saccade import UsageError, create_model, load_data
from saccade.layers.blocks import PointwiseAttention
from saccade.layers.conv_bn import ConvBN
from saccade.models.darknet.model import load_darknet
from saccade.models.darknet.weights import units, write_weights
from saccade.models.detect.base import Detector
from saccade.models.detect.yolov4 import drop_block
from saccade.models.registry import default_recipe, find
from saccade.types.recipe import Recipe
from saccade.types.sample import collate

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"
FORMS = {
    "yolov4": ("yolov4", {}),
    "yolov4-tiny": ("yolov4_tiny", {}),
    "yolov4-csp": ("yolov4_csp", {}),
    "yolov4-csp-swish": ("yolov4_csp", {"activation": "swish"}),
}
FLOATS = {"yolov4": 64_429_405, "yolov4-tiny": 6_062_814, "yolov4-csp": 52_986_205, "yolov4-csp-swish": 52_986_205}
ACTIVATIONS = {nn.LeakyReLU: "leaky", nn.Mish: "mish", nn.SiLU: "swish"}


def build(form: str, classes: int = 80, **options) -> Detector:
    name, own = FORMS[form]
    return create_model(name, classes, **own, **options)


def description(form: str) -> str:
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions beside SACCADE_DATA")
    return (CFGS / f"alexey_{form}.cfg").read_text()


def sections(text: str, kind: str) -> list[dict[str, str]]:
    found = re.findall(rf"^\[{kind}\]\s*\n([^\[]*)", text, re.MULTILINE)
    return [dict(re.findall(r"^(\w+) *= *(.+?) *$", section, re.MULTILINE)) for section in found]


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "strides"), [("yolov4", (8, 16, 32)), ("yolov4-tiny", (32, 16)), ("yolov4-csp", (8, 16, 32))])
def test_D22_scales_of_255_maps(form, strides):
    with torch.device("meta"):
        model = build(form)
        raw = model.raw(torch.empty(1, 3, 512, 512))
    assert [tuple(out.shape) for out in raw] == [(1, 255, 512 // s, 512 // s) for s in strides]


@pytest.mark.parametrize("form", FORMS)
def test_D22_priors_offsets_and_numbers_of_the_loss_are_the_cfgs(form):
    model = build(form, 2, width=1 / 64)
    heads = sections(description(form), "yolo")
    assert len(heads) == len(model.strides)
    for level, o in enumerate(heads):
        sides = np.array([float(v) for v in o["anchors"].split(",")]).reshape(-1, 2)
        assert model.priors[level].tolist() == sides[[int(m) for m in o["mask"].split(",")]].tolist()
        assert model.scale_xy[level] == float(o["scale_x_y"])
        assert model.squared == (o.get("new_coords") == "1")
        assert model.ignore == float(o["ignore_thresh"])
        if form != "yolov4-csp-swish":  # which has other weights of objectness, and one prior a truth
            assert model.shared == (float(o["iou_thresh"]) if "iou_thresh" in o else None)
            assert model.level_weights[level] == float(o.get("obj_normalizer", 1))
        assert model.class_weight == float(o["cls_normalizer"])
        assert model.loss_name == o["iou_loss"] == "ciou"
    assert model.preprocess.mode == ("letterbox" if sections(description(form), "net")[0].get("letter_box") == "1" else "stretch")


@pytest.mark.parametrize("form", FORMS)
def test_D22_layers_stand_in_the_order_of_the_cfg(form):
    described = [
        (int(o["filters"]), int(o["size"]), int(o.get("stride", 1)), "batch_normalize" in o, o["activation"])
        for o in sections(description(form), "convolutional")
    ]
    described = [(*o[:4], "linear" if o[4] == "logistic" else o[4]) for o in described]  # which decoding takes
    ours, inside = [], set()
    with torch.device("meta"):
        model = build(form)
    for module in model.modules():
        if isinstance(module, ConvBN):
            inside.add(module.conv)
            act = ACTIVATIONS[type(module.act)]
            ours.append((module.conv.out_channels, module.conv.kernel_size[0], module.conv.stride[0], True, act))
            assert module.bn.eps == 1e-5
        elif isinstance(module, nn.Conv2d) and module not in inside:
            ours.append((module.out_channels, module.kernel_size[0], module.stride[0], False, "linear"))
    assert ours == described
    assert sum(unit.floats for unit in units(model)) == FLOATS[form]
    assert sum(v.numel() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")) == FLOATS[form]


@pytest.mark.parametrize(("form", "width"), [("yolov4", 0.125), ("yolov4-tiny", 0.25), ("yolov4-csp", 0.125), ("yolov4-csp-swish", 0.125)])
def test_D22_numbers_are_darknets_on_the_same_file(form, width, tmp_path):
    text = re.sub(r"^(height|width) *= *\d+", r"\1=96", description(form), flags=re.MULTILINE)
    text = re.sub(r"^classes *= *\d+", "classes=4", text, flags=re.MULTILINE)
    text = re.sub(r"^filters *= *(\d+)", lambda m: f"filters={27 if m[1] == '255' else round(int(m[1]) * width)}", text, flags=re.MULTILINE)
    (tmp_path / "net.cfg").write_text(text)
    fresh, generator = load_darknet(tmp_path / "net.cfg", dialect="alexeyab"), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for unit in units(fresh.network):
            for tensor in unit.tensors:
                tensor.normal_(0, tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1, generator=generator)
            if len(unit.tensors) == 5:
                unit.tensors[1].add_(0.8)
                unit.tensors[3].abs_().add_(0.5)
    write_weights(fresh.network, tmp_path / "net.weights")
    theirs = load_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", dialect="alexeyab")
    name, options = FORMS[form]
    ours = create_model(name, 4, width=width, size=96, weights=tmp_path / "net.weights", **options).eval()
    image = torch.rand(2, 3, 96, 96, generator=generator)
    with torch.no_grad():
        got, expected = ours.raw(image), theirs.raw(image)
        for a, b in zip(got, expected, strict=True):
            assert b.std() > 0.01
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
        for a, b in zip(ours.boxes_and_scores(got), theirs.boxes_and_scores(expected, (96, 96)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    write_weights(ours, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == (tmp_path / "net.weights").read_bytes()


# -- the loss, written out ------------------------------------------------------------------------


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def entropy(t: float, wanted: float) -> float:
    return -wanted * math.log(sigmoid(t)) - (1 - wanted) * math.log(1 - sigmoid(t))


def iou(a: list[float], b: list[float]) -> float:
    width, height = (min(a[d + 2], b[d + 2]) - max(a[d], b[d]) for d in (0, 1))
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def overlap_loss(kind: str, a: list[float], b: list[float]) -> float:
    """1 - GIoU (arXiv 1902.09630), DIoU or CIoU (arXiv 1911.08287, equations 6 to 11)."""
    w, h = (max(a[d + 2], b[d + 2]) - min(a[d], b[d]) for d in (0, 1))
    value = iou(a, b)
    if kind == "giou":
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        union = sum(areas) / (1 + value)
        return 1 - value + (w * h - union) / (w * h)
    distance = sum(((a[d] + a[d + 2]) / 2 - (b[d] + b[d + 2]) / 2) ** 2 for d in (0, 1)) / (w * w + h * h)
    if kind == "diou":
        return 1 - value + distance
    v = 4 / math.pi**2 * (math.atan((b[2] - b[0]) / (b[3] - b[1])) - math.atan((a[2] - a[0]) / (a[3] - a[1]))) ** 2
    return 1 - value + distance + (v / (1 - value + v) * v if v else 0)


def literal(model, raws, targets, kind: str, *, shared: float | None, levels: list[float], smoothing: float = 0.0):
    """Losses box by box; how many boxes learn, and how many of them were asked for more than once."""
    k, side = model.num_classes, raws[0].shape[2] * model.strides[0]
    priors = model.priors.tolist()
    loss = {"box": 0.0, "objectness": 0.0, "class": 0.0}
    learnt = claims = 0
    for n, target in enumerate(targets):
        wanted: dict[tuple, list] = {}
        truths = list(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True))
        for number, (box, label) in enumerate(truths):
            w, h = box[2] - box[0], box[3] - box[1]
            shapes = {}
            for level in range(len(priors)):
                for a, (pw, ph) in enumerate(priors[level]):
                    inter = min(w, pw) * min(h, ph)
                    shapes[level, a] = inter / (w * h + pw * ph - inter)
            best = max(shapes, key=shapes.get)
            for (level, a), shape in shapes.items():
                if priors[level][a] == priors[best[0]][best[1]] or (shared is not None and shape > shared):
                    stride = model.strides[level]
                    cell = int((box[1] + h / 2) / stride), int((box[0] + w / 2) / stride)
                    wanted.setdefault((level, a, *cell), []).append((shape, number, box, label))
        for level, raw in enumerate(raws):
            s, stride = model.scale_xy[level], model.strides[level]
            for a, (pw, ph) in enumerate(priors[level]):
                for j in range(raw.shape[2]):
                    for i in range(raw.shape[3]):
                        t = raw[n, a * (5 + k) : (a + 1) * (5 + k), j, i].detach().double().tolist()
                        x, y = ((c + s * sigmoid(v) - (s - 1) / 2) * stride for c, v in ((i, t[0]), (j, t[1])))
                        if model.squared:
                            w, h = pw * (2 * sigmoid(t[2])) ** 2, ph * (2 * sigmoid(t[3])) ** 2
                        else:
                            w, h = pw * math.exp(t[2]), ph * math.exp(t[3])
                        predicted = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                        asked = wanted.get((level, a, j, i))
                        if asked is None:
                            if not any(iou(predicted, box) > 0.7 for box, _ in truths):
                                loss["objectness"] += levels[level] * entropy(t[4], 0)
                            continue
                        learnt, claims = learnt + 1, claims + len(asked) - 1
                        loss["objectness"] += levels[level] * entropy(t[4], 1)
                        for c in range(k):
                            hit = float(c in [label for *_, label in asked])
                            loss["class"] += model.class_weight * entropy(t[5 + c], hit * (1 - smoothing) + smoothing / 2)
                        goal = max(asked, key=lambda claim: claim[:2])[2]
                        if kind != "mse":
                            loss["box"] += 5 * overlap_loss(kind, predicted, goal)
                            continue
                        gw, gh = goal[2] - goal[0], goal[3] - goal[1]
                        weight = 2 - gw * gh / side**2
                        for d, c in ((0, i), (1, j)):
                            u = ((goal[d] + goal[d + 2]) / 2 / stride - c + (s - 1) / 2) / s
                            loss["box"] += weight * s * (entropy(t[d], u) + u * math.log(u) + (1 - u) * math.log(1 - u))
                        loss["box"] += weight * 0.5 * ((t[2] - math.log(gw / pw)) ** 2 + (t[3] - math.log(gh / ph)) ** 2)
    return {name: value / len(targets) for name, value in loss.items()}, learnt, claims


def scene(seed: int, *counts: int, side: int = 96, classes: int = 3):
    """Targets whose boxes have about the priors' sides."""
    random = np.random.default_rng(seed)
    sides = np.array([[12, 16], [19, 36], [40, 28], [36, 75], [76, 55], [23, 27], [37, 58], [81, 82]])
    out = []
    for count in counts:
        wh = np.minimum(sides[random.integers(len(sides), size=count)] * random.uniform(0.7, 1.3, (count, 2)), side - 1)
        corner = random.uniform(0, 1, (count, 2)) * (side - wh)
        boxes = torch.tensor(np.concatenate([corner, corner + wh], 1).reshape(-1, 4), dtype=torch.float32)
        out.append({"boxes": boxes, "labels": torch.from_numpy(random.integers(0, classes, count))})
    return out


ONE_CELL = [
    {"boxes": torch.tensor([[40.0, 40, 52, 57], [41, 41, 53.5, 57.7], [3, 3, 90, 80]]), "labels": torch.tensor([0, 2, 1])},
    {"boxes": torch.tensor([[10.0, 10, 46, 85], [10, 10, 46, 85]]), "labels": torch.tensor([1, 2])},  # the same twice
    {"boxes": torch.tensor([[80.0, 83, 95.9, 95.8]]), "labels": torch.tensor([2])},
]
SCENES = [scene(0, 5, 0, 9), scene(1, 0, 0), ONE_CELL]


def given(model, count: int, side: int = 96) -> list[torch.Tensor]:
    """Raw outputs to be differentiated by, instead of the network's."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, 3 * (5 + model.num_classes), side // s, side // s) for s in model.strides]
    raws = [(torch.randn(shape, generator=generator) * 0.3).requires_grad_() for shape in shapes]
    model.raw = lambda images: raws
    return raws


@pytest.mark.parametrize(
    ("form", "shared", "levels"),
    [("yolov4", 0.213, [1, 1, 1]), ("yolov4-tiny", None, [1, 1]), ("yolov4-csp", 0.2, [4, 1, 0.4])],
)
@pytest.mark.parametrize("targets", SCENES, ids=["random", "empty", "one cell"])
def test_D22_losses_are_the_papers_written_out(form, shared, levels, targets):
    model = build(form, 3, width=1 / 64, size=96).eval()
    raws = given(model, len(targets))
    assert set(model.loss_names) == {"ciou", "diou", "giou"} | (set() if form == "yolov4-csp" else {"mse"})
    for kind in model.loss_names if targets is SCENES[0] else model.loss_names[:1]:
        model.set_loss(kind)
        expected, learnt, claims = literal(model, raws, targets, kind, shared=shared, levels=levels)
        losses = model.losses(torch.zeros(len(targets), 3, 96, 96), targets)
        for key, value in losses.items():
            assert value.item() == pytest.approx(expected[key], rel=1e-4, abs=1e-6), (kind, key)
    truths = sum(len(t["boxes"]) for t in targets)
    if shared is not None and truths:
        assert learnt > truths
    if targets is ONE_CELL:
        assert claims > 0


def test_D22_label_smoothing():
    model = build("yolov4", 3, width=1 / 64, size=96).eval()
    raws = given(model, 3)
    model.configure(Recipe(label_smoothing=0.1))
    expected = literal(model, raws, SCENES[0], "ciou", shared=0.213, levels=[1, 1, 1], smoothing=0.1)[0]
    assert model.losses(torch.zeros(3, 3, 96, 96), SCENES[0])["class"].item() == pytest.approx(expected["class"], rel=1e-4)


def test_D22_a_truth_is_learnt_by_all_priors_of_a_like_shape():
    """By hand: 36x75 has an IoU of 0.253 with 19x36, 0.358 with 40x28, 0.404 with 76x55, 0.257 with 72x146, but 0.173 with 142x110."""
    model = build("yolov4", 3, width=1 / 64, size=96).eval()
    target = {"boxes": torch.tensor([[20.0, 10, 56, 85]]), "labels": torch.tensor([1])}
    ((one,),) = model.assignments(torch.zeros(1, 3, 96, 96), [target])
    sides = (one.boxes[:, 2:] - one.boxes[:, :2]).round().tolist()
    assert sides == [[19, 36], [40, 28], [36, 75], [76, 55], [72, 146]]
    assert one.truth.tolist() == [0] * 5
    assert ((one.boxes[:, :2] + one.boxes[:, 2:]) / 2).tolist() == [[36, 44], [36, 44], [40, 40], [40, 40], [40, 40]]


def test_D22_tiny_learns_the_prior_of_both_levels_on_both():
    model = build("yolov4-tiny", 3, width=1 / 64, size=96).eval()
    targets = [{"boxes": torch.tensor([[5.0, 5, 85, 88], [0, 0, 11, 14]]), "labels": torch.tensor([1, 0])}]
    ((one,),) = model.assignments(torch.zeros(1, 3, 96, 96), targets)
    assert sorted(one.truth.tolist()) == [0, 0, 1]


# -- what is regularised and attacked ---------------------------------------------------------------


def test_D22_drop_block_drops_windows_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(64, 8, 16, 16)
    dropped = drop_block(x, 0.1)
    zero = dropped == 0
    assert 0.05 < zero.float().mean() < 0.13
    assert float(dropped.mean()) == pytest.approx(1, abs=1e-4)
    rows = zero.unfold(2, 7, 1).unfold(3, 7, 1).all(-1).all(-1)  # windows of 7 x 7 that are gone
    covered = nn.functional.max_pool2d(nn.functional.pad(rows.float(), (6,) * 4), 7, 1).bool()
    assert torch.equal(covered, zero)
    assert drop_block(torch.ones(2, 2, 2, 2), 0.5).shape == (2, 2, 2, 2)


@pytest.mark.parametrize("form", ["yolov4", "yolov4-csp"])
def test_D22_drop_block_is_for_training(form):
    torch.manual_seed(0)
    model, image = build(form, 2, width=1 / 32, size=64, drop_block=0.2), torch.rand(2, 3, 64, 64)
    plain = build(form, 2, width=1 / 32, size=64)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert not torch.equal(model.train().raw(image)[0], model.raw(image)[0])
        plain.load_state_dict(model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(model.eval().raw(image), plain.eval().raw(image), strict=True))
    with pytest.raises(UsageError, match=r"model\.drop_block=1\.0"):
        build(form, 2, width=1 / 64, drop_block=1.0)


def test_D22_spatial_attention_is_pointwise_and_before_each_head():
    model = build("yolov4", 2, width=1 / 32, size=64, attention=True)
    layers = [m for m in model.modules() if isinstance(m, PointwiseAttention)]
    assert len(layers) == 3
    maps = [m.conv for m in layers]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in maps] == [(4, 4, (1, 1)), (8, 8, (1, 1)), (16, 16, (1, 1))]
    targets = scene(1, 2, 3, side=64)
    sum(model.train().losses(torch.rand(2, 3, 64, 64), [t | {"labels": t["labels"] % 2} for t in targets]).values()).backward()
    assert all(c.weight.grad.abs().sum() > 0 for c in maps)


def test_D22_self_adversarial_images_hide_the_objects():
    torch.manual_seed(0)
    model = build("yolov4-tiny", 2, width=1 / 8, size=64).train()
    model.network.squeeze32.eval()  # a part that does not learn stays so
    images = torch.rand(2, 3, 64, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attacked = model.attacked(images)
    assert model.training
    assert model.network.backbone.training
    assert not model.network.squeeze32.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert float((attacked - images).abs().max()) == pytest.approx(0.01, abs=1e-6)
    model.eval()
    objectness = [model.boxes_and_scores(model.raw(x))[1].sum() for x in (images, attacked)]
    assert objectness[1] < objectness[0]
    fooled = [model.losses(x, scene(1, 4, 5, side=64, classes=2))["objectness"] for x in (images, attacked)]
    assert fooled[1] > fooled[0]


def test_D22_self_adversarial_training_is_by_the_recipe_and_the_seed(monkeypatch):
    model = build("yolov4-tiny", 2, width=1 / 16, size=64)
    images, targets, attacks = torch.rand(2, 3, 64, 64), scene(1, 2, 3, side=64, classes=2), []
    monkeypatch.setattr(model, "attacked", lambda x: attacks.append(1) or x)

    def count(seed: int) -> list[int]:
        torch.manual_seed(seed)
        out = []
        for _ in range(12):
            attacks.clear()
            model.losses(images, targets)
            out.append(len(attacks))
        return out

    assert sum(count(0)) == 0
    model.configure(Recipe(self_adversarial=0.5))
    assert count(1) == count(1) != count(2)
    assert 0 < sum(count(1)) < 12
    model.eval()
    assert sum(count(1)) == 0


# -- the rest of the system ------------------------------------------------------------------------


def test_D22_the_recipe_has_mosaics_and_its_loss_is_ciou():
    assert default_recipe(find("yolov4")).mosaic == default_recipe(find("yolov4_csp")).mosaic > 0
    assert build("yolov4", 2, width=1 / 64).loss_name == "ciou"


def test_D22_wrong_options_are_named():
    for form in FORMS:
        with pytest.raises(UsageError, match="no multiple of 32"):
            build(form, 2, size=100, width=1 / 64)
    with pytest.raises(UsageError, match=r"weights=yolov4-tiny\.weights"):
        build("yolov4-tiny", 2, pretrained=True)
    with pytest.raises(UsageError, match="no loss 'mse'"):
        build("yolov4-csp", 2, width=1 / 64).set_loss("mse")
    with pytest.raises(UsageError, match=r"model\.activation"):
        create_model("yolov4_csp", 2, activation="relu")


@pytest.mark.parametrize(("form", "kind"), [("yolov4", "ciou"), ("yolov4-tiny", "mse"), ("yolov4-csp-swish", "ciou")])
def test_D22_learns_eight_images_by_heart(form, kind):
    torch.manual_seed(0)
    data = load_data("synthetic:shapes?count=8&size=64", task="detect")
    model = build(form, len(data.classes), width=1 / 8 if form == "yolov4-tiny" else 1 / 16, size=64)
    model.set_loss(kind)
    batch = collate([model.preprocess(data[i]) for i in range(len(data))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    values = []
    for _ in range(60):
        loss = sum(model.losses(batch.images, batch.targets).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        values.append(loss.item())
    assert np.mean(values[-3:]) < 0.2 * values[0], values[::10]
