"""YOLOv5 against the observed facts, and its assignment and loss against loops that read as the docstrings do."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.ops import complete_box_iou, distance_box_iou, generalized_box_iou

import saccade
from saccade import testing
from saccade.boxes.nms import select
from saccade.engine.bundle import load_bundle, save_bundle
from saccade.layers.fuse import fuse_conv_bn
from saccade.metrics.detection import DetectionMetric
from saccade.models.detect.base import BACKGROUND, Objects
from saccade.models.detect.yolov5 import PRIORS, SPPF, WEIGHTS, YOLOv5, assign, yolov5
from saccade.models.registry import create_model
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.recipe import Recipe
from saccade.types.sample import boxes_tensor, collate

# Observed convolutions of n: layer, maps out, maps in, side. All but the last three are followed by batch normalisation.
CONVOLUTIONS = """
0 16 3 6; 1 32 16 3; 2.cv1 16 32 1; 2.cv2 16 32 1; 2.cv3 32 32 1; 2.m.0.cv1 16 16 1; 2.m.0.cv2 16 16 3; 3 64 32 3; 4.cv1 32 64 1;
4.cv2 32 64 1; 4.cv3 64 64 1; 4.m.0.cv1 32 32 1; 4.m.0.cv2 32 32 3; 4.m.1.cv1 32 32 1; 4.m.1.cv2 32 32 3; 5 128 64 3; 6.cv1 64 128 1;
6.cv2 64 128 1; 6.cv3 128 128 1; 6.m.0.cv1 64 64 1; 6.m.0.cv2 64 64 3; 6.m.1.cv1 64 64 1; 6.m.1.cv2 64 64 3; 6.m.2.cv1 64 64 1;
6.m.2.cv2 64 64 3; 7 256 128 3; 8.cv1 128 256 1; 8.cv2 128 256 1; 8.cv3 256 256 1; 8.m.0.cv1 128 128 1; 8.m.0.cv2 128 128 3;
9.cv1 128 256 1; 9.cv2 256 512 1; 10 128 256 1; 13.cv1 64 256 1; 13.cv2 64 256 1; 13.cv3 128 128 1; 13.m.0.cv1 64 64 1;
13.m.0.cv2 64 64 3; 14 64 128 1; 17.cv1 32 128 1; 17.cv2 32 128 1; 17.cv3 64 64 1; 17.m.0.cv1 32 32 1; 17.m.0.cv2 32 32 3; 18 64 64 3;
20.cv1 64 128 1; 20.cv2 64 128 1; 20.cv3 128 128 1; 20.m.0.cv1 64 64 1; 20.m.0.cv2 64 64 3; 21 128 128 3; 23.cv1 128 256 1;
23.cv2 128 256 1; 23.cv3 256 256 1; 23.m.0.cv1 128 128 1; 23.m.0.cv2 128 128 3; 24.m.0 255 64 1; 24.m.1 255 128 1; 24.m.2 255 256 1
"""
# Observed maps and sides of the layers 0 to 23 of n at 320 pixels.
SHAPES = """
16 160, 32 80, 32 80, 64 40, 64 40, 128 20, 128 20, 256 10, 256 10, 256 10, 128 10, 128 20, 256 20, 128 20, 64 20, 64 40, 128 40, 64 40,
64 20, 128 20, 128 20, 128 10, 256 10, 256 10
"""


def observed(factor):
    """Names and shapes of the state dict; s has everywhere twice as many maps as n, but 3 of the image and 255 of the outputs."""
    table = {"model.24.anchors": (3, 3, 2)}
    for line in CONVOLUTIONS.split(";"):
        layer, *numbers = line.split()
        out, inside, side = (int(n) for n in numbers)
        out, inside = (n if n in (3, 255) else factor * n for n in (out, inside))
        if out == 255:
            table |= {f"model.{layer}.weight": (out, inside, 1, 1), f"model.{layer}.bias": (out,)}
            continue
        table[f"model.{layer}.conv.weight"] = (out, inside, side, side)
        table |= {f"model.{layer}.bn.{name}": (out,) for name in ("weight", "bias", "running_mean", "running_var")}
        table[f"model.{layer}.bn.num_batches_tracked"] = ()
    return table


def tiny(classes=3, **options):
    torch.manual_seed(0)
    return yolov5(classes, variant="n", **{"size": 64, "width": 0.5} | options)


def scene(size, counts, classes=3, seed=0):
    """Targets of a batch with boxes of all sizes, some at the border, some without area, some crowds."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for n in counts:
        centre = torch.rand(n, 2, generator=g) * size
        centre[::3] = (centre[::3] / 8).round() * 8 + torch.randint(
            2, (len(centre[::3]), 2), generator=g
        ) * 4  # corners and middles of cells
        side = size * torch.exp(torch.randn(n, 2, generator=g) * 0.8 - 1.5)
        centre, side = (centre * 8).round() / 8, (side * 4).round() / 4  # sums without rounding
        boxes = torch.cat([centre - side / 2, centre + side / 2], 1).clamp(0, size)
        boxes[4::5, 2] = boxes[4::5, 0]
        crowd = torch.zeros(n, dtype=torch.bool)
        crowd[6::7] = True
        out.append({"boxes": boxes_tensor(boxes, (size, size)), "labels": torch.randint(classes, (n,), generator=g), "iscrowd": crowd})
    return out


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "factor", "count"), [("yolov5n", 1, 1_872_157), ("yolov5s", 2, 7_235_389)])
def test_D23_yolov5_has_the_observed_names_shapes_and_count(name, factor, count):
    model = create_model(name)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == observed(factor)
    assert sum(p.numel() for p in model.parameters()) == count


FUSED = {"n": 1_867_405, "s": 7_225_885, "m": 21_172_173, "l": 46_533_693, "x": 86_705_005}


def test_D23_yolov5_counts_of_all_five():
    """Batch normalisation folded. Recalled as commonly reported; only those of n and s follow from the observed facts."""
    with torch.device("meta"):
        for variant, count in FUSED.items():
            model = create_model(f"yolov5{variant}").eval()
            norms = sum(len(layer.weight) for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d))
            assert sum(p.numel() for p in model.parameters()) - norms == count


def test_D23_yolov5_layers_have_the_observed_shapes():
    model, shapes = create_model("yolov5n").eval(), []
    for layer in model.model[:-1]:
        layer.register_forward_hook(lambda *a: shapes.append(tuple(a[2].shape)))
    with torch.no_grad():
        raw = model.raw(torch.zeros(1, 3, 320, 320))
    expected = [tuple(int(n) for n in line.split()) for line in SHAPES.split(",")]
    assert shapes == [(1, maps, side, side) for maps, side in expected]
    assert [tuple(r.shape) for r in raw] == [(1, 255, 40, 40), (1, 255, 20, 20), (1, 255, 10, 10)]
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert {(n.eps, n.momentum) for n in norms} == {(1e-3, 0.03)}
    assert sum(isinstance(layer, torch.nn.SiLU) for layer in model.modules()) == len(norms) == 57


def test_D23_spp_pools_by_5_9_and_13():
    """The pyramid of YOLOv3's SPP form, by one window three times."""
    layer, image = SPPF(8, 16).eval(), torch.randn(2, 8, 17, 15)
    entered = layer.cv1(image)
    windows = [F.max_pool2d(entered, side, 1, side // 2) for side in (5, 9, 13)]
    torch.testing.assert_close(layer(image), layer.cv2(torch.cat([entered, *windows], 1)))


def test_D23_stem_is_the_focus_of_four_pixels():
    """A 6x6 convolution of stride 2 is a 3x3 one over 2x2 blocks of pixels put side by side."""
    stem = create_model("yolov5n").model[0].conv
    image = torch.rand(2, 3, 16, 12)
    weight = F.pixel_unshuffle(stem.weight, 2)
    torch.testing.assert_close(F.conv2d(F.pixel_unshuffle(image, 2), weight, padding=1), stem(image), atol=1e-5, rtol=1e-5)


def test_D23_yolov5_decodes_as_observed():
    """xy = (2 t - 0.5 + cell) stride, wh = (2 t)^2 prior, score = objectness times class, t the sigmoid of the output."""
    model = tiny(2, width=0.25)
    raw = [torch.full((1, 21, side, side), -20.0) for side in (8, 4, 2)]
    raw[1][0, 7:14, 3, 1] = torch.tensor([0.3, -1.0, 0.5, -0.2, 3.0, -2.0, 2.0])  # prior 1 of the middle level, row 3, column 1
    sigmoid = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    x, y = (2 * sigmoid(0.3) - 0.5 + 1) * 16, (2 * sigmoid(-1.0) - 0.5 + 3) * 16
    w, h = (2 * sigmoid(0.5)) ** 2 * 62, (2 * sigmoid(-0.2)) ** 2 * 45
    found = model.decode(raw, [Geometry((640, 640), (64, 64))])[0]
    expected = np.clip(np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * 10, 0, 640)
    np.testing.assert_allclose(found.boxes, [expected], rtol=1e-5)
    np.testing.assert_allclose(found.scores, [sigmoid(3.0) * sigmoid(2.0)], rtol=1e-6)
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize("score", [0.0, 0.001, 0.3, 0.999])
def test_D23_decoding_only_the_likely_changes_nothing(score):
    """Against scores and boxes of everything, in both precisions."""
    model, g = tiny(4, size=96), torch.Generator().manual_seed(0)
    raw = [torch.randn(2, 27, side, side, generator=g) * 3 for side in (12, 6, 3)]
    geometries = [Geometry((200, 300), (96, 96))] * 2
    for outputs in (raw, [r.bfloat16() for r in raw]):
        boxes, objectness, scores = model.boxes_and_scores(outputs)
        assert boxes.shape == (2, 3 * (144 + 36 + 9), 4)
        assert (scores <= objectness[..., None]).all()
        for image, found in enumerate(model.decode(outputs, geometries, score=score)):
            box, value, label = select(boxes[image], scores[image], score=score, iou=0.5, max_detections=100, candidates=3000)
            np.testing.assert_array_equal(found.labels, label)
            np.testing.assert_allclose(found.scores, value, rtol=1e-6)  # a sigmoid of many and one of few round differently
            np.testing.assert_allclose(found.boxes, geometries[image].boxes_to_original(box), rtol=1e-6, atol=1e-4)


def test_D23_sixty_objects_of_one_class_are_all_found():
    """Nine boxes on each, those of the surer objects before all of the next: more than 400 boxes of one class enter the suppression."""
    model = tiny(1, size=320, width=0.25)
    raw = [torch.full((1, 18, side, side), -20.0) for side in (40, 20, 10)]
    for k in range(60):
        row, column = 4 * (k // 10) + 2, 4 * (k % 10) + 1
        for j in range(9):
            field = raw[0][0, 0:6, row - 1 + j // 3, column - 1 + j % 3]
            field[:] = torch.tensor([3.0 * (1 - j % 3), 3.0 * (1 - j // 3), 1.0, 1.0, 4 - 0.05 * k, 9.0])
    (found,) = model.decode(raw, [Geometry((320, 320), (320, 320))], score=0.3)
    assert len(found.boxes) == 60


def test_D23_first_objectness_expects_eight_objects():
    model = yolov5(4, variant="n", size=128).eval()
    with torch.no_grad():
        _, objectness, scores = model.boxes_and_scores(model.raw(torch.rand(2, 3, 128, 128)))
    assert objectness.sum(1).tolist() == pytest.approx([8, 8], rel=0.1)
    assert (scores / objectness[..., None]).mean().item() == pytest.approx(1 / 5, rel=0.1)


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_D26_state_dicts_with_the_observed_names_load(tmp_path, suffix):
    """In half precision, with other priors, behind a wrapper's name; the bundle keeps the priors."""
    theirs = {n: torch.rand(s).half() if s else torch.tensor(7) for n, s in observed(1).items()}
    save = save_file if suffix == "safetensors" else torch.save
    save({f"model.{name}": value for name, value in theirs.items()}, tmp_path / f"theirs.{suffix}")
    model = create_model("yolov5n", num_classes=80, size=64, weights=tmp_path / f"theirs.{suffix}")
    for name, value in model.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, theirs[name].to(value.dtype))
    expected = theirs["model.24.anchors"].float() * torch.tensor([8.0, 16, 32])[:, None, None]
    assert torch.equal(model.priors, expected)
    save_bundle(model, tmp_path / "bundle")
    assert torch.equal(load_bundle(tmp_path / "bundle").priors, expected)


def test_D26_priors_of_the_file_and_of_the_option(tmp_path):
    own = tiny()
    state = own.state_dict()
    state["model.24.anchors"] = state["model.24.anchors"] * 2
    torch.save(state, tmp_path / "double.pt")
    options = {"size": 64, "width": 0.5, "weights": tmp_path / "double.pt"}
    assert torch.equal(create_model("yolov5n", 3, **options).priors, 2 * torch.tensor(PRIORS))
    sizes = " ".join(f"{w}x{w}" for w in range(10, 19))
    chosen = create_model("yolov5n", 3, priors=sizes, **options)
    assert chosen.priors[2].tolist() == [[16, 16], [17, 17], [18, 18]]
    assert chosen.head.anchors[2, 2].tolist() == [18 / 32, 18 / 32]
    torch.save({k: v for k, v in state.items() if "anchors" not in k}, tmp_path / "double.pt")
    assert torch.equal(create_model("yolov5n", 3, **options).priors, torch.tensor(PRIORS).float())
    with pytest.raises(DataError, match="another shape"):
        create_model("yolov5n", 4, **options)


def test_D23_automatic_priors_reach_the_head_and_the_bundle(tmp_path):
    model = create_model("yolov5n", 3, size=64, width=0.5, priors="auto")
    model.learn_from(testing.dataset("detect"))
    assert not torch.equal(model.priors, torch.tensor(PRIORS).float())
    torch.testing.assert_close(model.head.anchors * torch.tensor([8.0, 16, 32])[:, None, None], model.priors)
    save_bundle(model, tmp_path)
    loaded = load_bundle(tmp_path)
    torch.testing.assert_close(loaded.priors, model.priors)
    assert torch.equal(copy.deepcopy(loaded).head.anchors, loaded.head.anchors)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pretrained": True}, "downloads no weights"), ({"size": 100}, "no multiple of 32, .*; 96 is"), ({"size": 16}, "32..4096"),
     ({"width": 0.0}, "model.width"), ({"priors": "3x4"}, "9 are needed")],
)  # fmt: skip
def test_D23_wrong_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        create_model("yolov5n", 3, **options)


def test_D23_fused_yolov5_gives_the_same_numbers():
    model = tiny(size=96)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        expected = model.eval().raw(image)
        got = fuse_conv_bn(model).raw(image.contiguous(memory_format=torch.channels_last))
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


# -- assignment and loss --------------------------------------------------------------------------


def literal_pairs(boxes, priors, stride, grid):
    """The rule, loops and all: a set of (prior, row, column, truth)."""
    out = set()
    for t, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        w, h, x, y = x2 - x1, y2 - y1, (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
        column, row = min(int(x), grid[1] - 1), min(int(y), grid[0] - 1)
        cells = [(row, column)]
        if x - column < 0.5:
            cells.append((row, column - 1))
        if x - column > 0.5:
            cells.append((row, column + 1))
        if y - row < 0.5:
            cells.append((row - 1, column))
        if y - row > 0.5:
            cells.append((row + 1, column))
        for p, (pw, ph) in enumerate(priors.tolist()):
            if max(w / pw, pw / w, h / ph, ph / h) < 4:
                out |= {(p, r, c, t) for r, c in cells if 0 <= r < grid[0] and 0 <= c < grid[1]}
    return out


@pytest.mark.parametrize("seed", range(6))
def test_D23_assignment_equals_the_loops(seed):
    truth = Objects.of(scene(96, [9, 0, 30], seed=seed), torch.zeros(()))
    for stride, priors in zip((8, 16, 32), torch.tensor(PRIORS).float(), strict=True):
        for grid in ((96 // stride, 96 // stride), (96 // stride, 128 // stride)):
            pairs = assign(truth.boxes, priors, stride, grid)
            rows = list(zip(*(v.tolist() for v in pairs), strict=True))
            assert len(set(rows)) == len(rows)
            assert set(rows) == literal_pairs(truth.boxes, priors, stride, grid)


def test_D23_assignment_by_hand():
    priors = torch.tensor([[10.0, 10], [10, 40], [39, 39]])
    boxes = torch.tensor([[15.0, 10, 25, 20]])  # 10 x 10 around (20, 15): cell (column 2, row 1) and 0.5, 0.875 inside it
    pairs = {tuple(row) for row in torch.stack(assign(boxes, priors, 8, (8, 8)), 1).tolist()}
    assert pairs == {(p, row, 2, 0) for p in (0, 2) for row in (1, 2)}  # 40 is four times 10, and the middle has no neighbour beside
    corner = torch.tensor([[0.0, 0, 6, 6], [58, 58, 64, 64]])
    assert {tuple(row) for row in torch.stack(assign(corner, priors[:1], 8, (8, 8)), 1).tolist()} == {(0, 0, 0, 0), (0, 7, 7, 1)}


OVERLAP = {"ciou": complete_box_iou, "giou": generalized_box_iou, "diou": distance_box_iou}


def literal_losses(raw, priors, targets, classes, kind, smoothing):
    """Every cell, prior and truth by itself, in double precision."""
    count, box, objectness, label = 0, 0.0, 0.0, 0.0

    def entropy(x, t):
        return math.log1p(math.exp(-x)) * t + math.log1p(math.exp(x)) * (1 - t)

    sigmoid = lambda v: 1 / (1 + math.exp(-v))  # noqa: E731
    for level, stride in enumerate((8, 16, 32)):
        out = raw[level].detach().double()
        height, width = out.shape[2:]
        for i, target in enumerate(targets):
            boxes, wanted = target["boxes"].as_subclass(torch.Tensor), {}
            whole = (boxes[:, 2:] > boxes[:, :2]).all(1)
            mine, labels = boxes[whole & ~target["iscrowd"]], target["labels"][whole & ~target["iscrowd"]]
            for p, r, c, t in literal_pairs(mine, priors[level], stride, (height, width)):
                tx, ty, tw, th = out[i, p * (5 + classes) : p * (5 + classes) + 4, r, c].tolist()
                x, y = (2 * sigmoid(tx) - 0.5 + c) * stride, (2 * sigmoid(ty) - 0.5 + r) * stride
                w, h = (2 * sigmoid(tw)) ** 2 * priors[level, p, 0].item(), (2 * sigmoid(th)) ** 2 * priors[level, p, 1].item()
                predicted = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]], dtype=torch.float64)
                overlap = OVERLAP[kind](predicted, mine[t : t + 1].double()).item()
                wanted[p, r, c] = max(wanted.get((p, r, c), 0.0), overlap)
                box += 1 - overlap
                count += 1
                for k in range(classes):
                    hot = (1 - smoothing) * (k == labels[t].item()) + smoothing / 2
                    label += entropy(out[i, p * (5 + classes) + 5 + k, r, c].item(), hot)
            crowds = boxes[whole & target["iscrowd"]].tolist()
            for p in range(3):
                for r in range(height):
                    for c in range(width):
                        x, y = (c + 0.5) * stride, (r + 0.5) * stride
                        crowded = any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in crowds)
                        if not crowded or wanted.get((p, r, c), 0.0) > 0:
                            objectness += entropy(out[i, p * (5 + classes) + 4, r, c].item(), wanted.get((p, r, c), 0.0))
    return {"box": box / max(count, 1), "objectness": 8 * objectness / (len(targets) * 3 * 1600), "class": 0.5 * label / max(count, 1)}


@pytest.mark.parametrize(
    ("counts", "kind", "smoothing"),
    [([6, 0, 15], "ciou", 0.0), ([3, 12], "giou", 0.2), ([8], "diou", 0.0), ([0, 0], "ciou", 0.0), ([40], "ciou", 0.1)],
)
def test_D23_losses_equal_the_loops(counts, kind, smoothing):
    model = tiny(width=0.25, size=96)
    model.configure(Recipe(loss=kind, label_smoothing=smoothing))
    g = torch.Generator().manual_seed(len(counts))
    raw = [torch.randn(len(counts), 24, 96 // s, 96 // s, generator=g) * 1.5 for s in (8, 16, 32)]
    model.raw = lambda images: raw
    targets = scene(96, counts, seed=counts[0])
    got = model.losses(torch.zeros(len(counts), 3, 96, 96), targets)
    expected = literal_losses(raw, model.priors, targets, 3, kind, smoothing)
    assert got.keys() == expected.keys() == WEIGHTS.keys()
    for name, value in expected.items():
        assert got[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name
    if not any(counts):
        assert got["box"] == got["class"] == 0 < got["objectness"]


def test_D23_objectness_target_has_no_gradient_and_extreme_outputs_are_finite():
    model = tiny(width=0.25)
    raw = [torch.zeros(1, 24, 64 // s, 64 // s, requires_grad=True) for s in (8, 16, 32)]
    model.raw = lambda images: raw
    targets = scene(64, [4])
    model.losses(torch.zeros(1, 3, 64, 64), targets)["objectness"].backward()
    for r in raw:
        assert r.grad.view(3, 8, -1)[:, [0, 1, 2, 3, 5, 6, 7]].abs().max() == 0
    for value in (-300.0, 300.0):
        extreme = [torch.full_like(r, value, requires_grad=True) for r in raw]
        model.raw = lambda images, extreme=extreme: extreme
        total = sum(model.losses(torch.zeros(1, 3, 64, 64), targets).values())
        total.backward()
        assert total.isfinite()
        assert all(r.grad.isfinite().all() for r in extreme)


def test_D23_assignments_tell_what_the_loss_learns():
    model = tiny().eval()
    targets = scene(64, [5, 0, 14], seed=3)
    told = model.assignments(torch.zeros(3, 3, 64, 64), targets)
    for one, target in zip(told, targets, strict=True):
        (stage,) = one
        truth = Objects.of([target], torch.zeros(()))
        assert torch.equal(stage.objects, truth.boxes)
        assert torch.equal(stage.labels, truth.labels)
        expected = []
        for stride, priors in zip((8, 16, 32), model.priors, strict=True):
            for p, r, c, t in literal_pairs(truth.boxes, priors, stride, (64 // stride, 64 // stride)):
                x, y, (w, h) = (c + 0.5) * stride, (r + 0.5) * stride, priors[p].tolist()
                expected.append((t, x - w / 2, y - h / 2, x + w / 2, y + h / 2))
        got = [(t, *box) for t, box in zip(stage.truth.tolist(), stage.boxes.tolist(), strict=True)]
        assert sorted(got) == sorted(expected)
        assert BACKGROUND not in stage.truth.tolist()


def test_D23_recipes_of_all_five_and_several_sizes():
    """``multi_scale`` changes the side of a batch in training, never in eval."""
    model = tiny()
    model.configure(Recipe(multi_scale=(0.5, 1.5)))
    seen = []
    network = model.raw
    model.raw = lambda images: seen.append(images.shape[-1]) or network(images)
    batch = testing.batch(model, 2)
    for _ in range(12):
        model.train().losses(batch.images, batch.targets)
    assert set(seen) <= {32, 64, 96}
    assert len(set(seen)) > 1
    seen.clear()
    model.eval().losses(batch.images, batch.targets)
    assert seen == [64]
    for given in ((0.5,), (1.5, 0.5)):
        with pytest.raises(saccade.UsageError, match="multi_scale is a least and a largest"):
            model.configure(Recipe(multi_scale=given))


def test_D23_overfits_eight_scenes():
    torch.manual_seed(0)
    data = saccade.load_data("synthetic:shapes?count=40&size=96", "train", task="detect")
    samples = [data[i] for i in range(8)]
    model = tiny(len(data.classes), size=96)
    assert isinstance(model, YOLOv5)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.2  # 80 steps are too few for running statistics of 0.03
    batch = collate([model.preprocess(sample) for sample in samples])
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=80, pct_start=0.2)
    for _ in range(80):
        optimizer.zero_grad()
        sum(model.losses(batch.images, batch.targets).values()).backward()
        optimizer.step()
        schedule.step()
    metric = DetectionMetric(data.classes)
    with torch.no_grad():
        found = model.eval().predict_batch(batch.images, batch.geometries, score=0.001, iou=0.5, max_detections=100)
    metric.update(found, [sample.target for sample in samples])
    assert metric.compute()["map50"] > 0.8
