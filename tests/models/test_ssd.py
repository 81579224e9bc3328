"""SSD by the paper's numbers, against torchvision's, and its loss by the equations."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

import saccade
from saccade.data.dataset import Dataset
from saccade.models.detect import ssd as module
from saccade.models.detect.ssd import SSD300, SSD512, TORCHVISION, AtrousVGG, default_sides, fitting, map_shapes, ssd300, ssd512
from saccade.models.registry import create_model
from saccade.models.weights import load_state
from saccade.types.errors import UsageError
from saccade.types.sample import Sample, collate

TINY = {"size": 64, "width": 0.0625}


@pytest.fixture(scope="module")
def pair():
    """torchvision's network with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91).eval()
    ours = ssd300(scales="torchvision").eval()
    load_state(ours, theirs.state_dict(), "torchvision")
    return ours, theirs


@pytest.fixture(scope="module")
def seen(pair):
    """A batch of pixels, what torchvision's network says of it, and its default boxes."""
    _, theirs = pair
    images = torch.randint(256, (2, 3, 300, 300), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    batch = theirs.transform([image / 255 for image in images])[0].tensors
    with torch.no_grad():
        maps = list(theirs.backbone(batch).values())
        return images, batch, theirs.head(maps), theirs.anchor_generator(ImageList(batch, [(300, 300)] * 2), maps)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return ssd300(3, **TINY)


def targets(size, *counts, seed=0):
    g = torch.Generator().manual_seed(seed)
    out = []
    for n in counts:
        corner = torch.rand(n, 2, generator=g) * size * 0.6
        boxes = torch.cat([corner, corner + size * (0.1 + 0.3 * torch.rand(n, 2, generator=g))], dim=1)
        out.append({"boxes": boxes, "labels": torch.randint(3, (n,), generator=g), "iscrowd": torch.zeros(n, dtype=torch.bool)})
    return out


# -- the paper's numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "size", "sides", "boxes", "total"),
    [
        (SSD300, 300, [38, 19, 10, 5, 3, 1], [4, 6, 6, 6, 4, 4], 8732),
        (SSD512, 512, [64, 32, 16, 8, 4, 2, 1], [4, 6, 6, 6, 6, 4, 4], 24564),
    ],
)
def test_D24_ssd300_has_8732_boxes_and_ssd512_24564(form, size, sides, boxes, total):
    """Figure 2, and the footnote on SSD512: one map more, 0.15 and 0.07."""
    with torch.device("meta"):
        backbone = AtrousVGG(3, form.extras)
        assert fitting(form.extras, size) == list(form.extras)
    channels, grids = map_shapes(backbone, 3, (size, size))
    assert grids == [(side, side) for side in sides]
    assert channels == [512, 1024, 512, *[256] * (len(sides) - 3)]
    scales = [0.1] * (len(sides) + 1)
    assert [len(s) for s in default_sides(scales, form.ratios, size)] == boxes
    assert sum(n * side * side for n, side in zip(boxes, sides, strict=True)) == total


def test_D24_ssd512_is_built_with_24564_boxes():
    with torch.device("meta"):
        model = ssd512(20)
    assert model.priors.shape == (24564, 4)
    assert model.preprocess.size == (512, 512)
    vgg = 14_714_688  # the convolutions of VGG-16
    dense = 512 * 1024 * 9 + 1024 + 1024 * 1024 + 1024
    extra = sum(
        a * b + b + b * c * k * k + c
        for a, b, c, k in [(1024, 256, 512, 3), (512, 128, 256, 3), *[(256, 128, 256, 3)] * 2, (256, 128, 256, 4)]
    )
    heads = sum((c * 9 + 1) * n * (21 + 4) for c, n in zip([512, 1024, 512, 256, 256, 256, 256], [4, 6, 6, 6, 6, 4, 4], strict=True))
    assert sum(p.numel() for p in model.parameters()) == vgg + dense + extra + heads + 512


def test_D24_scales_of_the_paper():
    """Section 3.1: 0.1 on conv4_3, the other five from 0.2 to 0.9; the first square of each map has its scale, the second the mean one."""
    model = ssd300(2, width=0.0625)
    sides = model.priors[:, 2:] - model.priors[:, :2]
    cells = np.cumsum([0, *(n * s * s for n, s in zip([4, 6, 6, 6, 4, 4], [38, 19, 10, 5, 3, 1], strict=True))])
    scales = [0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.0]
    for first, number, (scale, following) in zip(cells, [4, 6, 6, 6, 4, 4], pairwise(scales), strict=False):
        found = (sides[first : first + number] / 300).tolist()
        expected = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in [2, 3][: (number - 2) // 2]:
            expected += [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)), (scale / math.sqrt(ratio), scale * math.sqrt(ratio))]
        np.testing.assert_allclose(found, np.minimum(expected, 1), rtol=1e-4)
    np.testing.assert_allclose(model.priors[0].tolist(), [300 / 76 - 15, 300 / 76 - 15, 300 / 76 + 15, 300 / 76 + 15], rtol=1e-4)
    assert model.stride == pytest.approx(300 / 38)
    assert (SSD512.first, SSD512.smallest) == (0.07, 0.15)
    assert TORCHVISION.scales == (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)


def test_D24_conv4_3_is_normalised_to_length_20(tiny):
    """Section 3.1: the length of the features of each cell is scaled to 20, which is learnt."""
    backbone = tiny.backbone.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first = backbone(images)[0]
        plain = backbone.features(images)
    assert plain.norm(dim=1).std() > 0
    torch.testing.assert_close(first.norm(dim=1), torch.full((1, 8, 8), 20.0), rtol=1e-4, atol=1e-4)
    assert isinstance(backbone.scale_weight, nn.Parameter)
    assert backbone.scale_weight.shape == (first.shape[1],)


def test_D24_fc6_is_atrous_and_pool5_keeps_the_resolution():
    """Section 3: pool5 3x3 with stride 1, "the à trous algorithm to fill the holes"; 7x7 at every third position is 3x3."""
    with torch.device("meta"):
        pool, fc6, _, fc7, _ = AtrousVGG(3, ()).extra[0][-1]
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 1, 1)
    assert (fc6.out_channels, fc6.kernel_size, fc6.dilation, fc6.padding) == (1024, (3, 3), (6, 6), (6, 6))
    assert (fc7.out_channels, fc7.kernel_size) == (1024, (1, 1))


def test_D24_smaller_inputs_leave_maps_out_and_other_scales_are_counted():
    assert [len(fitting(SSD300.extras, size)) for size in (300, 321, 96, 64, 32)] == [4, 4, 2, 2, 1]
    model = ssd300(2, size=96, width=0.0625, box_scales=(0.05, 0.1, 0.2, 0.4, 0.8))
    assert len(model.priors) == 4 * 12**2 + 6 * (6**2 + 3**2 + 2**2)
    assert (model.priors[0, 2:] - model.priors[0, :2]).tolist() == pytest.approx([0.05 * 96] * 2, rel=1e-4)
    with pytest.raises(UsageError, match="take 5 scales"):
        ssd300(2, size=96, width=0.0625, box_scales=(0.05, 0.1))
    for options in (
        {"size": 16},
        {"size": 10**6},
        {"width": 0},
        {"pretrained": True, "size": 200},
        {"pretrained_backbone": True, "width": 0.5},
    ):
        with pytest.raises(UsageError):
            ssd300(2, **options)
    with pytest.raises(UsageError, match="ssd512"):
        ssd512(2, pretrained=True)


# -- torchvision's --------------------------------------------------------------------------------


def test_D24_parameters_are_torchvisions(pair):
    ours, theirs = pair
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 35_641_826


def test_D24_default_boxes_equal_torchvisions(pair, seen):
    torch.testing.assert_close(pair[0].priors, seen[3][0], atol=1e-4, rtol=1e-6)


def test_D24_D26_outputs_equal_torchvisions_from_pixels_on(pair, seen):
    ours, _ = pair
    images, batch, expected, anchors = seen
    inputs = torch.stack([ours.preprocess(Sample(image, {}))[0] for image in images])
    torch.testing.assert_close(inputs, batch, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        raw = ours.raw(batch)
    torch.testing.assert_close(raw["logits"], expected["cls_logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(raw["deltas"], expected["bbox_regression"], atol=1e-5, rtol=1e-5)
    decoded = ours.coder.decode(raw["deltas"][0], ours.priors)
    _, theirs = pair
    torch.testing.assert_close(decoded, theirs.box_coder.decode_single(expected["bbox_regression"][0], anchors[0]), atol=1e-2, rtol=1e-4)


def test_D24_D26_detections_equal_torchvisions(pair, seen):
    """Label k is torchvision's class k + 1, its class 0 being background."""
    ours, theirs = pair
    _, _, outputs, anchors = seen
    geometries = [ours.preprocess.geometry((300, 300))] * 2
    expected = theirs.postprocess_detections(outputs, anchors, [(300, 300)] * 2)
    raw = {"logits": outputs["cls_logits"], "deltas": outputs["bbox_regression"]}
    for found, other in zip(ours.decode(raw, geometries, score=0.01, iou=0.45, max_detections=200), expected, strict=True):
        assert len(found) == len(other["boxes"]) == 200
        np.testing.assert_allclose(found.scores, other["scores"].numpy(), atol=1e-6)
        np.testing.assert_array_equal(found.labels + 1, other["labels"].numpy())
        np.testing.assert_allclose(found.boxes, other["boxes"].numpy(), atol=1e-2, rtol=1e-5)


def test_D24_loss_equals_torchvisions(pair, seen, monkeypatch):
    ours, theirs = pair
    _, _, outputs, anchors = seen
    truth = targets(300, 4, 2)
    raw = {"logits": outputs["cls_logits"], "deltas": outputs["bbox_regression"]}
    monkeypatch.setattr(ours, "raw", lambda images: raw)
    got = ours.losses(torch.zeros(2, 3, 1, 1), truth)
    theirs_truth = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in truth]
    matched = [theirs.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(truth, anchors, strict=True)]
    expected = theirs.compute_loss(theirs_truth, outputs, anchors, matched)
    assert got["box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)
    assert got["class"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)


def test_D26_a_file_of_torchvisions_brings_its_form(pair, tmp_path, monkeypatch):
    _, theirs = pair
    state = theirs.state_dict()
    assert module.form_of_weights("ssd300", state) == {"scales": "torchvision"}
    assert module.form_of_weights("ssd300", ["backbone.scale_weight"]) == {}
    assert module.form_of_weights("ssd512", state) == {}
    monkeypatch.setattr(module, "fetch_torchvision", lambda weights: dict(state))
    model = ssd300(5, pretrained=True)
    assert model.build_options == {"scales": "torchvision", "pretrained_backbone": False}
    assert torch.equal(model.regression[0].weight, state["head.regression_head.module_list.0.weight"])
    assert torch.equal(model.backbone.scale_weight, state["backbone.scale_weight"])
    assert model.classification[0].weight.shape[0] == 4 * 6
    assert model.preprocess.std == (1 / 255,) * 3
    whole = ssd300(pretrained=True)
    assert torch.equal(whole.classification[5].weight, state["head.classification_head.module_list.5.weight"])
    assert (whole.classes[0], whole.classes[89]) == ("person", "toothbrush")


def test_D24_vgg_starts_from_imagenets_dense_layers(monkeypatch):
    """Section 3.1: fc6 and fc7 subsampled; a grey first layer answers grey as the colours' answers grey RGB."""
    number = iter(range(1, 10**6))
    shapes = {}
    with torch.device("meta"):
        lower, upper = (b := AtrousVGG(3, ())).features, b.extra[0]
    for k, layer in enumerate([*lower, *upper[:-1]]):
        if isinstance(layer, nn.Conv2d):
            shapes |= {f"features.{k}.weight": layer.weight.shape, f"features.{k}.bias": layer.bias.shape}
    assert list(shapes)[-1] == "features.28.bias"
    state = {name: torch.full(shape, float(next(number))) for name, shape in shapes.items()}
    state["classifier.0.weight"] = torch.arange(49.0).expand(4096, 512, 49).reshape(4096, -1)
    state["classifier.3.weight"] = torch.arange(4096.0).expand(4096, 4096)
    state["classifier.0.bias"] = state["classifier.3.bias"] = torch.arange(4096.0)
    asked = []
    monkeypatch.setattr(module, "fetch_torchvision", lambda weights: asked.append(weights.name) or dict(state))
    backbone = AtrousVGG(1, ())
    module.load_vgg(backbone, features_only=False)
    assert asked == ["IMAGENET1K_V1"]
    _, fc6, _, fc7, _ = backbone.extra[0][-1]
    assert fc6.weight[7, 3].tolist() == [[0, 3, 6], [21, 24, 27], [42, 45, 48]]
    assert fc7.weight[5, :3, 0, 0].tolist() == [0, 4, 8]
    assert fc6.bias[:3].tolist() == [0, 4, 8]
    assert backbone.features[0].weight.unique().tolist() == [3.0]
    assert backbone.extra[0][5].weight.unique().tolist() == [state["features.28.weight"].flatten()[0].item()]


# -- the loss by the equations --------------------------------------------------------------------


def slow_loss(model, raw, truth):
    """Equations 1 to 3, one box at a time: matching of section 2.2, offsets with variances 0.1 and 0.2, hard negatives 3 to 1 an image."""
    priors, confidence, location, n = model.priors.tolist(), 0.0, 0.0, 0

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        inter = max(w, 0) * max(h, 0)
        return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)

    for i, target in enumerate(truth):
        boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
        matched = {}
        for d, prior in enumerate(priors):
            overlaps = [iou(box, prior) for box in boxes]
            if overlaps and max(overlaps) > 0.5:
                matched[d] = overlaps.index(max(overlaps))
        for j, box in enumerate(boxes):
            overlaps = [iou(box, prior) for prior in priors]
            matched[overlaps.index(max(overlaps))] = j
        negative = []
        for d, prior in enumerate(priors):
            logits = raw["logits"][i, d].double().tolist()
            log_sum = math.log(sum(math.exp(c) for c in logits))
            if d not in matched:
                negative.append(log_sum - logits[0])
                continue
            box = boxes[matched[d]]
            confidence += log_sum - logits[1 + labels[matched[d]]]
            dw, dh = prior[2] - prior[0], prior[3] - prior[1]
            gw, gh = box[2] - box[0], box[3] - box[1]
            g = [
                ((box[0] + box[2]) / 2 - (prior[0] + prior[2]) / 2) / dw / 0.1,
                ((box[1] + box[3]) / 2 - (prior[1] + prior[3]) / 2) / dh / 0.1,
                math.log(gw / dw) / 0.2,
                math.log(gh / dh) / 0.2,
            ]
            for offset, wanted in zip(raw["deltas"][i, d].tolist(), g, strict=True):
                x = abs(offset - wanted)
                location += 0.5 * x * x if x < 1 else x - 0.5
        confidence += sum(sorted(negative, reverse=True)[: 3 * len(matched)])
        n += len(matched)
    return (confidence / n, location / n) if n else (0.0, 0.0)


def test_D24_loss_equals_the_equations_in_loops(tiny):
    tiny.eval()
    truth = targets(64, 3, 1, 0)
    with torch.no_grad():
        raw = tiny.raw(torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5)))
        raw = {"logits": raw["logits"] * 3, "deltas": raw["deltas"]}
        tiny.raw = lambda images: raw
        got = tiny.losses(torch.zeros(3, 3, 64, 64), truth)
    confidence, location = slow_loss(tiny, raw, truth)
    assert got["class"].item() == pytest.approx(confidence, rel=1e-4)
    assert got["box"].item() == pytest.approx(location, rel=1e-4)
    assert location > 0.5


@pytest.mark.parametrize("crowd", [[0.0, 0, 40, 40], [0.0, 0, 64, 64]], ids=["part", "all"])
def test_D24_default_boxes_in_a_crowd_are_no_negatives(tiny, crowd):
    """The loss is that of the equations without the default boxes that lie by more than half in the crowd, however wrong they are."""
    (truth,) = targets(64, 3)
    with torch.no_grad():
        raw = tiny.eval().raw(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(6)))
    matched = {tuple(box) for box in tiny.assignments(torch.zeros(1, 3, 64, 64), [truth])[0][0].boxes.tolist()}
    inside = []
    for x1, y1, x2, y2 in tiny.priors.tolist():
        wide, high = min(x2, crowd[2]) - max(x1, crowd[0]), min(y2, crowd[3]) - max(y1, crowd[1])
        inside.append(max(wide, 0) * max(high, 0) > 0.5 * (x2 - x1) * (y2 - y1) and (x1, y1, x2, y2) not in matched)
    inside = torch.tensor(inside)
    raw["logits"][0, inside, 1] += 20
    tiny.raw = lambda images: raw
    given = {"boxes": torch.cat([truth["boxes"], torch.tensor([crowd])]), "labels": torch.cat([truth["labels"], torch.tensor([0])])}
    got = tiny.losses(torch.zeros(1, 3, 64, 64), [given | {"iscrowd": torch.tensor([False, False, False, True])}])
    rest = SimpleNamespace(priors=tiny.priors[~inside])
    confidence, location = slow_loss(rest, {name: value[:, ~inside] for name, value in raw.items()}, [truth])
    assert got["class"].item() == pytest.approx(confidence, rel=1e-4)
    assert got["box"].item() == pytest.approx(location, rel=1e-4)


def test_D24_assignments_and_priors_for_check(tiny):
    truth = targets(64, 3)
    (stage,) = tiny.eval().assignments(torch.zeros(1, 3, 64, 64), truth)[0]
    overlap = box_iou(truth[0]["boxes"], tiny.priors)
    assert stage.counts().min() >= 1
    for box, k in zip(stage.boxes, stage.truth.tolist(), strict=True):
        value = box_iou(truth[0]["boxes"][k : k + 1], box[None]).item()
        assert value >= 0.5 or value == pytest.approx(overlap[k].max().item())
    priors = tiny.prior_boxes((64, 64))
    assert torch.equal(priors.boxes, tiny.priors)
    assert (priors.threshold, priors.stride) == (0.5, 8)


# -- learning -------------------------------------------------------------------------------------


def shapes(count=8, size=64) -> Dataset:
    return saccade.load_data(f"synthetic:shapes?count={2 * count}&size={size}", "train", task="detect")


def test_overfits_eight_scenes():
    """Every object of the eight is found again, with its class and in its place."""
    torch.manual_seed(0)
    data = shapes()
    model = ssd300(len(data.classes), size=64, width=0.25, norm="batch")
    batch = collate([model.preprocess(data[i]) for i in range(8)])
    optimizer, curve = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for _ in range(50):
        loss = sum(model.losses(batch.images, batch.targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve[-1] < curve[0] / 5
    model.eval()
    with torch.no_grad():
        found = model.predict_batch(batch.images, batch.geometries, score=0.3)
    hits = total = 0
    for i, prediction in enumerate(found):
        truth = data[i].target
        overlap = box_iou(truth["boxes"].as_subclass(torch.Tensor), torch.from_numpy(prediction.boxes))
        same = truth["labels"][:, None] == torch.from_numpy(prediction.labels)
        hits += int(((overlap * same) > 0.5).any(1).sum())
        total += len(truth["labels"])
    assert total >= 8
    assert hits >= 0.9 * total


def test_the_registry_builds_both_in_grey():
    for name in ("ssd300", "ssd512"):
        model = create_model(name, 2, in_chans=1, **TINY)
        assert model.preprocess.mean == pytest.approx((0.449,))
        assert len(model.predict(np.zeros((20, 30), np.uint8))) == 1
