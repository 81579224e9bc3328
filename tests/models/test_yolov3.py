"""YOLOv3 against Darknet's own descriptions, and against the paper's loss written out with loops."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from saccade import UsageError, create_model, load_data, testing
from saccade.data.priors import box_sizes
from saccade.layers.conv_bn import ConvBN
from saccade.models.darknet.model import load_darknet
from saccade.models.darknet.weights import units, write_weights
from saccade.models.detect.base import Detector
from saccade.models.detect.base import Objects as Batched
from saccade.models.detect.yolov3 import SpatialPools, ignored
from saccade.models.weights import load_weights
from saccade.types.recipe import Recipe
from saccade.types.sample import collate

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"
NAMES = {"yolov3": "pjreddie_yolov3", "yolov3_tiny": "pjreddie_yolov3-tiny", "yolov3_spp": "pjreddie_yolov3-spp"}
SLOPES = {nn.LeakyReLU: "leaky", nn.Mish: "mish", nn.SiLU: "swish"}


def on_meta(name: str, classes: int = 80, **options) -> Detector:
    with torch.device("meta"):
        return create_model(name, classes, **options)


def need_cfgs() -> None:
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions beside SACCADE_DATA")


# -- the network ----------------------------------------------------------------------------------


def test_D21_three_scales_of_255_maps():
    """Section 2.3: N x N x 3 x (4 + 1 + 80)."""
    model = on_meta("yolov3")
    assert [tuple(out.shape) for out in model.raw(torch.empty(2, 3, 416, 416, device="meta"))] == [
        (2, 255, 13, 13), (2, 255, 26, 26), (2, 255, 52, 52)
    ]  # fmt: skip
    tiny = on_meta("yolov3_tiny", 20)
    assert [tuple(out.shape) for out in tiny.raw(torch.empty(1, 3, 320, 320, device="meta"))] == [(1, 75, 10, 10), (1, 75, 20, 20)]


@pytest.mark.parametrize("name", NAMES)
def test_D21_priors_are_the_papers_by_the_masks_of_the_cfg(name):
    need_cfgs()
    heads = re.findall(r"mask *= *([\d,]+)\s+anchors *= *([\d, ]+)", (CFGS / f"{NAMES[name]}.cfg").read_text())
    model = create_model(name, 2, width=1 / 64)
    for level, (mask, anchors) in enumerate(heads):
        sides = np.array([float(v) for v in anchors.split(",")]).reshape(-1, 2)
        assert model.priors[level].tolist() == sides[[int(m) for m in mask.split(",")]].tolist()
    assert model.strides == (32, 16, 8)[: len(heads)]
    if name == "yolov3":  # the paper's list, section 2.3
        flat = model.priors.flip(0).flatten(0, 1).tolist()
        assert flat == [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]


@pytest.mark.parametrize(("name", "floats"), [("yolov3", 62_001_757), ("yolov3_tiny", 8_858_734), ("yolov3_spp", 63_052_381)])
def test_D21_as_many_numbers_as_in_darknets_file_of_weights(name, floats):
    model = on_meta(name)
    assert sum(unit.floats for unit in units(model)) == floats
    assert sum(v.numel() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")) == floats


@pytest.mark.parametrize("name", NAMES)
def test_D21_layers_stand_in_the_order_of_the_cfg(name):
    need_cfgs()
    text = (CFGS / f"{NAMES[name]}.cfg").read_text()
    described = []
    for section in re.findall(r"^\[convolutional\]\n([^\[]*)", text, re.MULTILINE):
        o = dict(re.findall(r"^(\w+) *= *(\w+)", section, re.MULTILINE))
        described.append((int(o["filters"]), int(o["size"]), int(o.get("stride", 1)), "batch_normalize" in o, o["activation"]))
    ours, inside = [], set()
    for module in on_meta(name).modules():
        if isinstance(module, ConvBN):
            inside.add(module.conv)
            ours.append((module.conv.out_channels, module.conv.kernel_size[0], module.conv.stride[0], True, SLOPES[type(module.act)]))
            assert module.bn.eps == 1e-5
        elif isinstance(module, nn.Conv2d) and module not in inside:
            ours.append((module.out_channels, module.kernel_size[0], module.stride[0], False, "linear"))
    assert ours == described


def narrow(cfg: str, side: int, width: float, classes: int, priors: int = 3) -> str:
    """A description at a fraction of its maps, for a small input and few classes."""
    text = (CFGS / f"{cfg}.cfg").read_text()
    text = re.sub(r"^(height|width) *= *\d+", rf"\1={side}", text, flags=re.MULTILINE)
    text = re.sub(r"^classes *= *\d+", f"classes={classes}", text, flags=re.MULTILINE)

    def maps(found: re.Match) -> str:
        count = int(found[1])
        return f"filters={priors * (5 + classes) if count == priors * 85 else round(count * width)}"

    return re.sub(r"^filters *= *(\d+)", maps, text, flags=re.MULTILINE)


def tame(network: nn.Module, seed: int = 0) -> None:
    """Weights of a file that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for unit in units(network):
            for tensor in unit.tensors:
                spread = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
                tensor.normal_(0, spread, generator=generator)
            if len(unit.tensors) == 5:
                unit.tensors[1].add_(0.8)
                unit.tensors[3].abs_().add_(0.5)


@pytest.mark.parametrize(("name", "width"), [("yolov3", 0.125), ("yolov3_tiny", 0.25), ("yolov3_spp", 0.125)])
def test_D21_numbers_are_darknets_on_the_same_file(name, width, tmp_path):
    need_cfgs()
    cfg = tmp_path / "net.cfg"
    cfg.write_text(narrow(NAMES[name], 96, width, 4))
    fresh = load_darknet(cfg, dialect="alexeyab")
    tame(fresh.network)
    write_weights(fresh.network, tmp_path / "net.weights")
    theirs = load_darknet(cfg, tmp_path / "net.weights", dialect="alexeyab")
    ours = create_model(name, 4, width=width, size=96, weights=tmp_path / "net.weights").eval()
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got, expected = ours.raw(image), theirs.raw(image)
        for a, b in zip(got, expected, strict=True):
            assert b.std() > 0.01
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
        for a, b in zip(ours.boxes_and_scores(got), theirs.boxes_and_scores(expected, (96, 96)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    write_weights(ours, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == (tmp_path / "net.weights").read_bytes()


def test_D21_a_cut_file_of_darknet53_starts_the_backbone(tmp_path):
    """darknet53.conv.74 holds the 52 convolutions before the classifier's output: 40,620,640 numbers."""
    assert sum(unit.floats for unit in units(on_meta("yolov3"))[:52]) == 41_645_640 - 1_025_000
    classifier = create_model("darknet53", 7, width=1 / 16, size=32)
    tame(classifier)
    write_weights(classifier, tmp_path / "whole.weights")
    cut = tmp_path / "darknet53.conv.74"
    cut.write_bytes((tmp_path / "whole.weights").read_bytes()[: -4 * (7 * 64 + 7)])
    model = create_model("yolov3", 3, width=1 / 16, size=64)
    kept = load_weights(model, cut, partial=True)
    assert not [name for name in kept if "backbone" in name and "num_batches" not in name]
    assert {name.split(".")[1] for name in kept if "num_batches" not in name} == {
        "squeeze32", "head32", "up16", "squeeze16", "head16", "up8", "squeeze8", "head8"
    }  # fmt: skip
    for ours, theirs in zip(units(model), units(classifier)[:52], strict=False):
        assert all(torch.equal(a, b) for a, b in zip(ours.tensors, theirs.tensors, strict=True))


def test_D21_pooling_is_over_windows_of_13_9_5_in_the_order_of_the_cfg():
    x = torch.randn(2, 3, 7, 20)
    windows = [nn.functional.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)]
    assert torch.equal(SpatialPools()(x), torch.cat([*windows, x], 1))


def test_D21_classes_do_not_exclude_each_other():
    model = create_model("yolov3_tiny", 2, width=1 / 64, size=32)
    raw = [torch.zeros(1, 21, 1, 1), torch.zeros(1, 21, 2, 2) - 20]
    raw[0][0, :7] = torch.tensor([0.0, 0.0, 0.0, 0.0, 20.0, 20.0, 20.0])[:, None, None]
    boxes, objectness, scores = model.boxes_and_scores(raw)
    assert scores[0, 0].tolist() == pytest.approx([1, 1])
    assert objectness[0, 0] == pytest.approx(1)
    assert boxes[0, 0].tolist() == pytest.approx([16 - 40.5, 16 - 41, 16 + 40.5, 16 + 41])


# -- the loss, written out ------------------------------------------------------------------------


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def entropy(t: float, wanted: float) -> float:
    return -wanted * math.log(sigmoid(t)) - (1 - wanted) * math.log(1 - sigmoid(t))


def iou(a: list[float], b: list[float]) -> float:
    width, height = (min(a[d + 2], b[d + 2]) - max(a[d], b[d]) for d in (0, 1))
    inter = max(width, 0) * max(height, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def corners(x: float, y: float, w: float, h: float) -> list[float]:
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def literal(model, raws, targets, *, smoothing: float = 0.0):
    """Section 2.1 and 2.2, box by box: losses, gradients by raw outputs as the paper and Darknet give them, boxes ignored and shared."""
    k, side = model.num_classes, raws[0].shape[2] * model.strides[0]
    raws = [r.detach().double().numpy() for r in raws]
    deltas = [np.zeros_like(r) for r in raws]
    loss = {"box": 0.0, "objectness": 0.0, "class": 0.0, "giou": 0.0, "diou": 0.0, "ciou": 0.0}
    count, out_of_play, claims = len(targets), 0, 0

    def boxes_of_level(level):
        _, _, h, w = raws[level].shape
        return [(a, j, i) for a in range(3) for j in range(h) for i in range(w)]

    for n, target in enumerate(targets):
        wanted: dict[tuple, list] = {}
        for number, (box, label) in enumerate(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)):
            w, h = box[2] - box[0], box[3] - box[1]
            best, found = -1.0, None
            for level, sides in enumerate(model.priors.tolist()):
                for a, (pw, ph) in enumerate(sides):
                    inter = min(w, pw) * min(h, ph)
                    overlap = inter / (w * h + pw * ph - inter)
                    if overlap > best:
                        best, found = overlap, (level, a)
            level, a = found
            stride = model.strides[level]
            i, j = int((box[0] + w / 2) / stride), int((box[1] + h / 2) / stride)
            wanted.setdefault((level, a, j, i), []).append((best, number, box, label))
        for level in range(len(raws)):
            stride = model.strides[level]
            for a, j, i in boxes_of_level(level):
                at = slice(a * (5 + k), (a + 1) * (5 + k))
                t, delta = raws[level][n, at, j, i], deltas[level][n, at, j, i]
                pw, ph = model.priors[level, a].tolist()
                predicted = corners(
                    (i + sigmoid(t[0])) * stride, (j + sigmoid(t[1])) * stride, pw * math.exp(t[2]), ph * math.exp(t[3])
                )  # fmt: skip
                asked = wanted.get((level, a, j, i))
                if asked is None:
                    if any(iou(predicted, box) > model.ignore for box in target["boxes"].tolist()):
                        out_of_play += 1
                        continue
                    loss["objectness"] += entropy(t[4], 0)
                    delta[4] = sigmoid(t[4])
                    continue
                claims += len(asked) - 1
                x1, y1, x2, y2 = max(asked, key=lambda claim: claim[:2])[2]
                weight = 2 - (x2 - x1) * (y2 - y1) / side**2
                for d, (low, high, c) in enumerate(((x1, x2, i), (y1, y2, j))):
                    offset = (low + high) / 2 / stride - c
                    delta[d] = weight * (sigmoid(t[d]) - offset)
                    floor = sum(-p * math.log(p) for p in (offset, 1 - offset) if p > 0)
                    loss["box"] += weight * (entropy(t[d], offset) - floor)
                    log = math.log((high - low) / (pw, ph)[d])
                    delta[2 + d] = weight * (t[2 + d] - log)
                    loss["box"] += weight * 0.5 * (t[2 + d] - log) ** 2
                loss["objectness"] += entropy(t[4], 1)
                delta[4] = sigmoid(t[4]) - 1
                for c in range(k):
                    y = float(c in [label for *_, label in asked]) * (1 - smoothing) + smoothing / 2
                    loss["class"] += entropy(t[5 + c], y)
                    delta[5 + c] = sigmoid(t[5 + c]) - y
                pair = torch.tensor([predicted]), torch.tensor([[x1, y1, x2, y2]])
                for kind, theirs in (("giou", generalized_box_iou_loss), ("diou", distance_box_iou_loss), ("ciou", complete_box_iou_loss)):
                    loss[kind] += float(theirs(*pair).sum())
    return {name: value / count for name, value in loss.items()}, [d / count for d in deltas], out_of_play, claims


def scene(seed: int, *counts: int, side: int = 96, classes: int = 3):
    """Targets whose boxes have about the priors' sides."""
    random = np.random.default_rng(seed)
    sides = np.array([[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [23, 27], [37, 58], [81, 82]])
    out = []
    for count in counts:
        wh = np.minimum(sides[random.integers(len(sides), size=count)] * random.uniform(0.7, 1.3, (count, 2)), side - 1)
        corner = random.uniform(0, 1, (count, 2)) * (side - wh)
        boxes = torch.tensor(np.concatenate([corner, corner + wh], 1).reshape(-1, 4), dtype=torch.float32)
        out.append({"boxes": boxes, "labels": torch.from_numpy(random.integers(0, classes, count))})
    return out


ONE_CELL = [
    # two of nearly one shape in one cell, of different classes; the first has the better shape
    {"boxes": torch.tensor([[40.0, 40, 50, 53], [41, 41, 50.5, 53.7], [3, 3, 90, 80]]), "labels": torch.tensor([0, 2, 1])},
    {"boxes": torch.tensor([[10.0, 10, 40, 71], [10, 10, 40, 71]]), "labels": torch.tensor([1, 2])},  # the same twice
    {"boxes": torch.tensor([[80.0, 83, 96, 96]]), "labels": torch.tensor([2])},  # a centre in the last cell
]
SCENES = [scene(0, 5, 0, 9), scene(1, 0, 0), scene(2, 1), ONE_CELL]


def given(model, count: int, side: int = 96, seed: int = 0, spread: float = 0.3) -> list[torch.Tensor]:
    """Raw outputs to be differentiated by, instead of the network's."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, 3 * (5 + model.num_classes), side // s, side // s) for s in model.strides]
    raws = [(torch.randn(shape, generator=generator) * spread).requires_grad_() for shape in shapes]
    model.raw = lambda images: raws
    return raws


@pytest.mark.parametrize("name", ["yolov3", "yolov3_tiny"])
@pytest.mark.parametrize("targets", SCENES, ids=["random", "empty", "one", "one cell"])
def test_D21_losses_and_gradients_are_the_papers_written_out(name, targets):
    model = create_model(name, 3, width=1 / 64, size=96).eval()
    raws = given(model, len(targets))
    expected, deltas, out_of_play, claims = literal(model, raws, targets)
    losses = model.losses(torch.zeros(len(targets), 3, 96, 96), targets)
    assert losses.keys() == {"box", "objectness", "class"}
    for key, value in losses.items():
        assert value.item() == pytest.approx(expected[key], rel=1e-4, abs=1e-6), key
    sum(losses.values()).backward()
    for raw, delta in zip(raws, deltas, strict=True):
        np.testing.assert_allclose(raw.grad.numpy(), delta, rtol=1e-3, atol=1e-6)
    if targets is SCENES[0]:
        assert out_of_play > 0
    if targets is ONE_CELL:
        assert claims == 2
    for kind in ("giou", "diou", "ciou"):
        model.set_loss(kind)
        assert model.losses(torch.zeros(len(targets), 3, 96, 96), targets)["box"].item() == pytest.approx(
            5 * expected[kind], rel=1e-4, abs=1e-6
        )


def test_D21_ignore_threshold_is_an_option():
    assert [on_meta(name, 2, width=1 / 64).ignore for name in NAMES] == [0.5] * 3
    for threshold in (0.5, 0.7):
        model = create_model("yolov3", 3, width=1 / 64, size=96, ignore=threshold).eval()
        raws = given(model, 3)
        expected, _, out_of_play, _ = literal(model, raws, SCENES[0])
        assert model.losses(torch.zeros(3, 3, 96, 96), SCENES[0])["objectness"].item() == pytest.approx(expected["objectness"], rel=1e-4)
        assert out_of_play > 0


def test_D21_label_smoothing():
    model = create_model("yolov3", 3, width=1 / 64, size=96).eval()
    raws = given(model, 3)
    model.configure(Recipe(label_smoothing=0.1))
    expected, *_ = literal(model, raws, SCENES[0], smoothing=0.1)
    assert model.losses(torch.zeros(3, 3, 96, 96), SCENES[0])["class"].item() == pytest.approx(expected["class"], rel=1e-4)


def test_D21_a_crowd_is_no_background():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [5, 0, 15, 10], [5.2, 0, 15.2, 10]]])  # 1, 0, 0.51, 0.49 of them in it
    target = {
        "boxes": torch.tensor([[0.0, 0, 10.1, 40]]),
        "labels": torch.zeros(1, dtype=torch.long),
        "iscrowd": torch.ones(1, dtype=torch.bool),
    }
    assert ignored(boxes, Batched.of([target], boxes), 0.5).tolist() == [[True, False, True, False]]
    target["iscrowd"] = torch.zeros(1, dtype=torch.bool)
    assert ignored(boxes, Batched.of([target], boxes), 0.5).tolist() == [[False] * 4]
    assert ignored(boxes, Batched.of([target], boxes), 0.24).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize("name", ["yolov3", "yolov4"])
def test_D21_D27_automatic_priors_go_to_the_levels_by_size(name, monkeypatch):
    """The smallest to the finest level, which stands last in YOLOv3 and first in YOLOv4."""
    model = create_model(name, 3, width=1 / 64, size=96, priors="auto")
    monkeypatch.setattr(model, "_sizes", lambda data: np.array([[4.0 * 1.3**k, 5.0 * 1.3**k] for k in range(9)]))
    model.learn_from(None)
    levels = {stride: priors[:, 0].tolist() for stride, priors in zip(model.strides, model.priors, strict=True)}
    expected = [round(4 * 1.3**k, 1) for k in range(9)]
    assert [v for stride in (8, 16, 32) for v in levels[stride]] == pytest.approx(expected)
    assert not model.automatic


def test_D21_D27_priors_that_fit_badly_are_told(monkeypatch):
    model = create_model("yolov3_tiny", 3, width=1 / 64, size=96)
    for sizes, count in (([[10.0, 14], [23, 27]], 0), ([[10.0, 14], [500, 2], [2, 500]], 1)):
        monkeypatch.setattr(model, "_sizes", lambda data, sizes=sizes: np.array(sizes))
        notes = model.notes(None)
        assert len(notes) == count
        assert all("overlap the boxes by 0.3" in note and "--set model.priors=auto" in note for note in notes)


@pytest.mark.parametrize(("name", "factors"), [("yolov3_tiny", (0.8, 0.8)), ("yolov4_tiny", (0.8, 1.0))])
def test_D21_D27_sizes_for_priors_are_resized_as_the_images_are(name, factors):
    """Images of 64 x 80 into 64 x 64: kept in shape, or stretched."""
    model, data = create_model(name, 3, width=1 / 64, size=64), testing.dataset("detect", 3)
    np.testing.assert_allclose(model._sizes(data), box_sizes(data) * factors)
    boxes, targets = model.preprocess(data[0])[1]["boxes"], data[0].target["boxes"]
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], (targets[:, 2:] - targets[:, :2]) * torch.tensor(factors), rtol=0.01)


def test_D21_one_prior_a_truth_of_the_best_shape():
    model = create_model("yolov3", 3, width=1 / 64, size=96).eval()
    targets = scene(3, 4, 0, 2)
    assigned = model.assignments(torch.zeros(3, 3, 96, 96), targets)
    priors = model.priors.flatten(0, 1)
    for (one,), target in zip(assigned, targets, strict=True):
        assert one.name == "priors"
        assert torch.equal(one.objects, target["boxes"])
        assert torch.equal(one.labels, target["labels"])
        assert one.counts().tolist() == [1] * len(target["boxes"])
        for box, truth in zip(one.boxes, one.truth.tolist(), strict=True):
            sides, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2
            goal = target["boxes"][truth]
            shapes = [iou([0, 0, *(goal[2:] - goal[:2]).tolist()], [0, 0, *p]) for p in priors.tolist()]
            best = int(np.argmax(shapes))
            torch.testing.assert_close(sides, priors[best])
            stride = (32, 16, 8)[best // 3]
            assert ((goal[:2] + goal[2:]) / 2 // stride).tolist() == (centre // stride).tolist()
            assert (centre % stride).tolist() == [stride / 2] * 2


# -- the rest of the system ------------------------------------------------------------------------


def test_D21_any_network_of_timm_as_backbone():
    model = create_model("yolov3", 2, backbone="test_resnet.r160_in1k", width=1 / 32, size=64, in_chans=1)
    raw = model.raw(torch.rand(2, 1, 64, 64))
    assert [tuple(out.shape) for out in raw] == [(2, 21, 2, 2), (2, 21, 4, 4), (2, 21, 8, 8)]
    with pytest.raises(UsageError, match="needed are 8, 16 and 32"):
        create_model("yolov3", 2, backbone="vit_tiny_patch16_224", size=224)


@pytest.mark.parametrize("name", NAMES)
def test_D21_wrong_options_are_named(name):
    with pytest.raises(UsageError, match="no multiple of 32"):
        create_model(name, 2, size=100, width=1 / 64)
    with pytest.raises(UsageError, match=r"model\.ignore=1\.5"):
        create_model(name, 2, ignore=1.5, width=1 / 64)
    with pytest.raises(UsageError, match=rf"weights={name.replace('_', '-')}\.weights"):
        create_model(name, 2, pretrained=True)
    with pytest.raises(UsageError, match=r"no loss 'iou'"):
        create_model(name, 2, width=1 / 64).set_loss("iou")


def test_D21_objectness_starts_low():
    torch.manual_seed(0)
    model = create_model("yolov3", 2, width=1 / 16, size=64)
    objectness = model.boxes_and_scores(model.raw(torch.rand(4, 3, 64, 64)))[1]
    assert 0.005 < float(objectness.mean()) < 0.02


def test_D21_broken_predictions_give_finite_overlap_losses():
    """Sides that underflow have no ratio."""
    model = create_model("yolov3", 3, width=1 / 64, size=96).eval()
    raws = given(model, 3, spread=200.0)
    model.set_loss("ciou")
    losses = model.losses(torch.zeros(3, 3, 96, 96), SCENES[0])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(raw.grad.isfinite().all() for raw in raws)


@pytest.mark.parametrize(("name", "kind"), [("yolov3", "mse"), ("yolov3_spp", "giou"), ("yolov3_tiny", "ciou")])
def test_D21_learns_eight_images_by_heart(name, kind):
    torch.manual_seed(0)
    data = load_data("synthetic:shapes?count=8&size=64", task="detect")
    model = create_model(name, len(data.classes), width=1 / 8 if name == "yolov3_tiny" else 1 / 16, size=64)
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
        values.append(float(loss.detach()))
    assert np.mean(values[-3:]) < 0.2 * values[0], values[::10]


def test_D21_priors_that_float32_does_not_hold_and_classes_without_end_are_refused():
    with pytest.raises(UsageError, match="sides are pixels above 0, at most 100,000"):
        create_model("yolov3_tiny", 2, width=0.1, priors="1e30x1,1x1,1x1,1x1,1x1,1x1")
    with pytest.raises(UsageError, match="num_classes is at most 1,000,000, not 1,000,000,000"):
        create_model("yolov3_tiny", 10**9)


@pytest.mark.parametrize(("name", "value"), [("multi_scale", (0.5, 1.0)), ("self_adversarial", 0.5)])
def test_D21_a_way_of_training_that_a_model_does_not_have_is_told(name, value):
    with pytest.raises(UsageError, match=f"recipe.{name} does not apply to ssdlite"):
        on_meta("ssdlite").configure(Recipe(**{name: value}))
