"""RetinaNet by the paper's numbers, against torchvision's, and its losses by the equations."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import saccade
from saccade.models.detect import retinanet as module
from saccade.models.detect.retinanet import retinanet
from saccade.models.registry import create_model
from saccade.types.errors import UsageError
from saccade.types.sample import Sample, collate

SMALL = "test_resnet.r160_in1k"
TINY = {"backbone": SMALL, "min_size": 64, "max_size": 96, "channels": 16}


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Statistics and heads that make a network's answers vary, so that equality means something."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if hasattr(layer, "running_var"):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            layer.weight.data.uniform_(0.5, 1.0)
            layer.bias.data.normal_(0, 0.1)
    for name, value in net.named_parameters():
        if "head." in name and value.ndim > 1:
            value.data.mul_(2.5 if "conv" in name else 4)


def small_pair(second: bool):
    """torchvision's network of the first or second version on a ResNet-18 with 3 classes, and ours with its weights."""
    torch.manual_seed(0)
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(512 if second else 256, 256))
    head = RetinaNetHead(256, 9, 3, norm_layer=partial(nn.GroupNorm, 32)) if second else None
    theirs = TorchvisionRetinaNet(backbone, 3, min_size=96, max_size=160, head=head, topk_candidates=300)
    if second:
        theirs.head.regression_head._loss_type = "giou"
    randomise(theirs)
    form = {"p6": "c5", "head_norm": "group"} if second else {"p6": "p5"}
    assert module.form_of_weights("retinanet", theirs.state_dict()) == form
    ours = retinanet(3, backbone="resnet18", norm="frozen", min_size=96, max_size=160, **form)
    ours.load_state_dict(ours.translate_weights(theirs.state_dict(), norm_eps=1e-5))
    return theirs.eval(), ours.eval()


@pytest.fixture(scope="module", params=[False, True], ids=["first", "second"])
def pair(request):
    return small_pair(request.param)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return retinanet(3, **TINY)


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def objects(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> dict:
    target = {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    return target if crowd is None else target | {"iscrowd": torch.tensor(crowd, dtype=torch.bool)}


# -- the paper's numbers --------------------------------------------------------------------------


def test_D25_nine_anchors_of_three_sizes_and_three_ratios_on_levels_3_to_7():
    """Section 4: areas 32^2 to 512^2, each times 2^0, 2^(1/3), 2^(2/3), at 1:2, 1:1, 2:1, on strides 8 to 128."""
    with torch.device("meta"):
        shell = retinanet(1, backbone=SMALL)
    assert shell.taps.strides == [8, 16, 32]
    model = retinanet(1, **TINY)
    grids = [(256 // stride, 512 // stride) for stride in (8, 16, 32, 64, 128)]
    levels = model.anchors(grids, (256, 512))
    for base, stride, grid, anchors in zip((32, 64, 128, 256, 512), (8, 16, 32, 64, 128), grids, levels, strict=True):
        assert len(anchors) == 9 * grid[0] * grid[1]
        first = anchors[:9]
        width, height = first[:, 2] - first[:, 0], first[:, 3] - first[:, 1]
        np.testing.assert_allclose((height / width).numpy(), np.repeat([0.5, 1, 2], 3), rtol=0.06)
        np.testing.assert_allclose((height * width).sqrt().numpy(), np.tile(base * 2 ** (np.arange(3) / 3), 3), rtol=0.03)
        assert (anchors[9] - anchors[0]).tolist() == [stride, 0, stride, 0]
        assert (anchors[9 * grid[1]] - anchors[0]).tolist() == [0, stride, 0, stride]


def test_D25_anchors_equal_torchvisions():
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    maps = [torch.zeros(2, 8, h, w) for h, w in ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))]  # 96 x 160
    theirs = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)(ImageList(torch.zeros(2, 3, 96, 160), [(96, 160)] * 2), maps)
    model = retinanet(1, **TINY)
    assert torch.equal(model.prior_boxes((96, 160)).boxes, theirs[0])
    assert torch.equal(model.prior_boxes((70, 140)).boxes, theirs[0])  # padded to multiples of 32
    assert torch.equal(torch.cat(model.raw(torch.zeros(1, 3, 70, 140))["anchors"]), theirs[0])
    priors = model.prior_boxes((96, 160))
    assert (priors.threshold, priors.stride) == (0.5, 8)


def test_D25_subnets_are_four_convolutions_and_one_and_start_at_one_percent():
    """Figure 3: W x H x KA and W x H x 4A; section 4.1: N(0, 0.01), bias -log((1 - pi) / pi)."""
    torch.manual_seed(0)
    model = retinanet(7, **TINY | {"channels": 64})
    assert (model.classification.output.out_channels, model.regression.output.out_channels) == (7 * 9, 4 * 9)
    for tower in (model.classification, model.regression):
        convs = [layer for layer in tower.modules() if isinstance(layer, nn.Conv2d)]
        assert [(c.in_channels, c.kernel_size) for c in convs] == [(64, (3, 3))] * 5
        assert sum(isinstance(layer, nn.ReLU) for layer in tower.modules()) == 4
        for conv in convs:
            assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert all((conv.bias == 0).all() for conv in convs[:-1])
    torch.testing.assert_close(model.classification.output.bias.sigmoid(), torch.full((63,), 0.01))
    assert (model.regression.output.bias == 0).all()
    with torch.no_grad():
        raw = model.raw(torch.randn(1, 3, 64, 96))
    assert [tuple(x.shape) for x in raw["logits"]] == [(1, 9 * n, 7) for n in (96, 24, 6, 2, 1)]
    assert [tuple(x.shape) for x in raw["deltas"]] == [(1, 9 * n, 4) for n in (96, 24, 6, 2, 1)]


def test_D25_p6_comes_from_c5_as_in_the_paper_or_from_p5():
    model = retinanet(2, **TINY)
    assert model.build_options["p6"] == "c5"
    assert model.fpn.extra_blocks.p6.in_channels == model.taps.channels[-1]
    equal = retinanet(2, **TINY | {"channels": model.taps.channels[-1]})  # from which torchvision would guess P5
    assert not equal.fpn.extra_blocks.use_P5
    other = retinanet(2, **TINY, p6="p5")
    assert other.fpn.extra_blocks.use_P5
    assert other.fpn.extra_blocks.p6.in_channels == 16


def test_D25_assigned_from_half_background_below_four_tenths():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 21], [0, 0, 10, 24.99], [0, 0, 10, 25.01], [40, 40, 50, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 45]])  # the second overlaps its best anchor by 0.25
    none = torch.zeros(0, 4)
    words, best = retinanet(2, **TINY, best_match=False), retinanet(2, **TINY)
    assert words.assign(anchors, boxes, none).tolist() == [0, 0, -2, -2, -1, -1]
    assert best.assign(anchors, boxes, none).tolist() == [0, 0, -2, -2, -1, 1]
    assert best.assign(anchors, boxes[:0], none).tolist() == [-1] * 6
    crowd = torch.tensor([[39.0, 39, 51, 61]])
    assert best.assign(anchors, boxes[:1], crowd).tolist() == [0, 0, -2, -2, -1, -2]


def test_options_that_make_no_network():
    for options, words in (
        ({"backbone": "resnet5O"}, "did you mean"),
        ({"backbone": "vit_tiny_patch16_224"}, "backbone"),
        ({"min_size": 8}, "min_size"),
        ({"gamma": 9.0}, "gamma"),
        ({"alpha": 0.0}, "alpha"),
        ({"anchor_sizes": (8.0, 16.0)}, "each of 5 levels"),
        ({"anchor_sizes": (0.0, 16.0, 32.0, 64.0, 128.0)}, "above 0"),
        ({"aspect_ratios": ()}, "aspect_ratios"),
        ({"frozen_stages": 9}, "frozen_stages"),
        ({"pretrained": True}, "published weights"),
    ):
        with pytest.raises(UsageError, match=words):
            retinanet(2, **TINY | options)


# -- torchvision's --------------------------------------------------------------------------------


def test_D25_D26_outputs_equal_torchvisions(pair):
    theirs, ours = pair
    batch = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = list(theirs.backbone(batch).values())
        expected = theirs.head(features)
        raw = ours.raw(batch)
        anchors = theirs.anchor_generator(ImageList(batch, [(96, 160)] * 2), features)[0]
    logits, deltas = torch.cat(raw["logits"], 1), torch.cat(raw["deltas"], 1)
    assert expected["cls_logits"].std() > 0.1
    torch.testing.assert_close(logits, expected["cls_logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(deltas, expected["bbox_regression"], atol=1e-5, rtol=1e-5)
    decoded = ours.coder.decode(deltas[0], torch.cat(raw["anchors"]))
    torch.testing.assert_close(decoded, theirs.box_coder.decode_single(expected["bbox_regression"][0], anchors), atol=1e-3, rtol=1e-4)


def test_D25_D26_detections_equal_torchvisions(pair):
    """From pixels to boxes, for images of two sizes, one of them padded; more candidates on a level than are kept."""
    theirs, ours = pair
    images = pictures((120, 150), (100, 190))
    assert module.CANDIDATES == 1000  # section 4.1
    theirs.score_thresh, least = 0.012, module.CANDIDATES
    module.CANDIDATES = 300
    try:
        with torch.no_grad():
            expected = theirs([image / 255 for image in images])
            found = ours.predict(images, score=0.012, iou=0.5, max_detections=300)
    finally:
        module.CANDIDATES = least
    for prediction, other in zip(found, expected, strict=True):
        assert len(prediction) == len(other["boxes"]) > 20
        np.testing.assert_allclose(prediction.scores, other["scores"].numpy(), atol=1e-5)
        np.testing.assert_array_equal(prediction.labels, other["labels"].numpy())
        np.testing.assert_allclose(prediction.boxes, other["boxes"].numpy(), atol=1e-2, rtol=1e-4)


def test_D25_losses_equal_torchvisions(pair):
    """Its first version learns by L1, its second by GIoU."""
    theirs, ours = pair
    ours.set_loss("giou" if theirs.head.regression_head._loss_type == "giou" else "l1")
    images = pictures((120, 150), (100, 190), (96, 96))
    truths = [
        objects([[10, 10, 60, 70], [80, 20, 140, 110], [30, 30, 50, 50]], [0, 2, 1]),
        objects([[100, 5, 180, 95]], [1]),
        objects([], []),
    ]
    batch = collate([ours.preprocess(Sample(image, target)) for image, target in zip(images, truths, strict=True)])
    theirs.train()
    try:
        with torch.no_grad():
            got, expected = ours.losses(batch.images, batch.targets), theirs([image / 255 for image in images], truths)
    finally:
        theirs.eval()
    assert got["class"].item() == pytest.approx(expected["classification"].item(), rel=1e-4)
    assert got["box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-4)
    ours.set_loss("smooth_l1")


@pytest.mark.parametrize(("build", "form", "count"), [
    (retinanet_resnet50_fpn, {"p6": "p5"}, 34_014_999), (retinanet_resnet50_fpn_v2, {"head_norm": "group"}, 38_198_935),
])  # fmt: skip
def test_D25_D26_published_networks_by_name_and_number_of_parameters(build, form, count):
    """The numbers that torchvision states, norms frozen in the first; 90 labels leave out the output of id 0."""
    with torch.device("meta"):
        state = build(weights=None, weights_backbone=None).state_dict()
        whole = retinanet(91, norm="frozen" if "p6" in form else "batch", **form)
        model = retinanet(norm="frozen", **form)
    assert sum(p.numel() for p in whole.parameters()) == count
    old = {}  # the names of the published file of the first version
    for name, value in state.items():
        if "p6" in form:
            if "fpn." in name and "_blocks." in name and "extra" not in name:
                name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            if ".conv." in name:
                k = int(name.split(".conv.")[1][0])
                name = name.replace(f".conv.{k}.0.", f".conv.{2 * k}.")
        old[name] = value
    for given in (state, old):
        for ours in (whole, model):
            own, translated = ours.state_dict(), ours.translate_weights(given, norm_eps=1e-5)
            assert {n: v.shape for n, v in translated.items()} == {n: v.shape for n, v in own.items()}


def test_D26_the_output_of_id_0_goes():
    model, like = retinanet(2, **TINY), retinanet(3, **TINY)
    state = {f"head.{kind}_head.{'cls_logits' if kind == 'classification' else 'bbox_reg'}.{leaf}": value
             for kind in ("classification", "regression") for leaf, value in getattr(like, kind).output.state_dict().items()}  # fmt: skip
    state["head.classification_head.cls_logits.bias"] = torch.arange(27.0)  # anchor * 3 + class
    out = model.translate_weights(state)
    assert out["classification.output.bias"].tolist() == [3.0 * a + c for a in range(9) for c in (1, 2)]
    assert out["classification.output.weight"].shape == model.classification.output.weight.shape
    assert model.translate_weights(dict(model.state_dict())).keys() == model.state_dict().keys()


@pytest.mark.parametrize("num_classes", [90, 3])
def test_D26_pretrained_takes_the_published_weights_and_renews_other_heads(num_classes, monkeypatch):
    torch.manual_seed(0)
    state = retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}  # as frozen norms have it
    monkeypatch.setattr("saccade.models.weights.fetch_torchvision", lambda weights: dict(state))
    model = retinanet(num_classes, pretrained=True)
    assert torch.equal(model.fpn.extra_blocks.p6.weight, state["backbone.fpn.extra_blocks.p6.weight"])
    assert torch.equal(model.regression.output.weight, state["head.regression_head.bbox_reg.weight"])
    assert model.build_options == {"p6": "p5", "norm": "frozen", "frozen_stages": 1, "pretrained_backbone": False}
    assert not any(p.requires_grad for p in model.backbone.layer1.parameters())
    assert all(p.requires_grad for p in model.backbone.layer2.parameters())
    norm = model.backbone.bn1  # the published file was used with epsilon 0
    torch.testing.assert_close(norm.weight / (norm.running_var + norm.eps).sqrt(), state["backbone.body.bn1.weight"])
    if num_classes == 90:
        assert (model.classes[0], model.classes[89], model.classes[11]) == ("person", "toothbrush", "N/A")
        theirs = state["head.classification_head.cls_logits.weight"].view(9, 91, 256, 3, 3)
        assert torch.equal(model.classification.output.weight.view(9, 90, 256, 3, 3), theirs[:, 1:])


# -- the losses by the equations ------------------------------------------------------------------


def slow_losses(model, raw, truth):
    """Equation 5 summed over all anchors of an image that are not ignored, over its positives; smooth L1 of the offsets."""
    anchors = torch.cat(raw["anchors"]).tolist()
    logits, deltas = torch.cat(raw["logits"], 1).double(), torch.cat(raw["deltas"], 1).tolist()
    class_loss = box_loss = 0.0

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        inter = max(w, 0) * max(h, 0)
        return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)

    for i, target in enumerate(truth):
        boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
        table = [[iou(box, anchor) for anchor in anchors] for box in boxes]
        focal = box = 0.0
        positives = 0
        for a, anchor in enumerate(anchors):
            overlaps = [row[a] for row in table]
            best = max(overlaps, default=0.0)
            lifted = any(row[a] == max(row) > 0 for row in table)
            if best < 0.5 and not lifted and best >= 0.4:
                continue
            j = overlaps.index(best) if best >= 0.5 or lifted else None
            positives += j is not None
            for c in range(model.num_classes):
                p = 1 / (1 + math.exp(-logits[i, a, c].item()))
                y = j is not None and labels[j] == c
                p_t, alpha_t = (p, 0.25) if y else (1 - p, 0.75)
                focal -= alpha_t * (1 - p_t) ** 2 * math.log(p_t)
            if j is None:
                continue
            aw, ah = anchor[2] - anchor[0], anchor[3] - anchor[1]
            x1, y1, x2, y2 = boxes[j]
            wanted = (
                ((x1 + x2) / 2 - (anchor[0] + anchor[2]) / 2) / aw,
                ((y1 + y2) / 2 - (anchor[1] + anchor[3]) / 2) / ah,
                math.log((x2 - x1) / aw),
                math.log((y2 - y1) / ah),
            )
            for offset, aim in zip(deltas[i][a], wanted, strict=True):
                d = abs(offset - aim)
                box += 0.5 * d * d * 9 if d < 1 / 9 else d - 0.5 / 9
        class_loss += focal / max(positives, 1)
        box_loss += box / max(positives, 1)
    return class_loss / len(truth), box_loss / len(truth)


def test_D25_losses_equal_the_equations_in_loops():
    torch.manual_seed(0)
    model = retinanet(2, **TINY, anchor_sizes=(8.0, 16.0, 32.0, 64.0, 128.0)).eval()
    randomise(model)
    truth = [objects([[5, 6, 40, 30], [20, 20, 31, 34], [50, 5, 54, 9]], [0, 1, 1]), objects([], [])]
    with torch.no_grad():
        raw = model.raw(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)))
        model.raw = lambda images: raw
        got = model.losses(torch.zeros(2, 3, 64, 64), truth)
    class_loss, box_loss = slow_losses(model, raw, truth)
    assert got["class"].item() == pytest.approx(class_loss, rel=1e-4)
    assert got["box"].item() == pytest.approx(box_loss, rel=1e-4)
    assert box_loss > 0.05


# -- learning -------------------------------------------------------------------------------------


def test_D25_assignments_follow_the_rule_and_say_nothing_of_crowds(tiny):
    tiny.eval()
    targets = [
        objects([[5, 5, 40, 40], [30, 10, 60, 55]], [0, 1]),
        objects([], []),
        objects([[0, 0, 50, 50], [8, 8, 30, 30]], [1, 0], [True, False]),
    ]
    stages = [stage for (stage,) in tiny.assignments(torch.zeros(3, 3, 64, 64), targets)]
    assert [len(stage.objects) for stage in stages] == [2, 0, 1]
    priors = tiny.prior_boxes((64, 64)).boxes
    for stage in stages:
        assert (stage.counts() > 0).all()
        best = box_iou(stage.objects, priors).amax(1) if len(stage.objects) else []
        for box, k in zip(stage.boxes, stage.truth.tolist(), strict=True):
            value = box_iou(stage.objects[k : k + 1], box[None]).item()
            assert value >= 0.5 or value == pytest.approx(best[k].item())


def test_empty_degenerate_and_crowd_targets_are_finite(tiny):
    targets = [
        objects([], []),
        objects([[10, 10, 10, 10], [20, 5, 20, 30]], [0, 1]),
        objects([[0, 0, 50, 50]], [1], [True]),
        objects([[0, 0, 60, 60], [5, 5, 30, 30]], [1, 0], [True, False]),
    ]
    for name in tiny.loss_names:
        tiny.set_loss(name)
        losses = tiny.train().losses(torch.randn(4, 3, 64, 96), targets)
        assert all(value.isfinite() for value in losses.values()), losses
        tiny.zero_grad()
        sum(losses.values()).backward()
        assert [n for n, p in tiny.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_predictions_lie_in_the_image_and_do_not_depend_on_the_others(tiny):
    with torch.no_grad():
        tiny.classification.output.weight.mul_(30)
    images = pictures((60, 80), (200, 37), (64, 64))
    for image, prediction in zip(images, tiny.predict(images, score=0.005), strict=True):
        assert len(prediction) > 0
        assert prediction.boxes.min() >= 0
        assert prediction.boxes[:, [0, 2]].max() <= image.shape[-1]
        assert prediction.boxes[:, [1, 3]].max() <= image.shape[-2]
        assert (np.diff(prediction.scores) <= 0).all()
    other = pictures((64, 64), seed=1)[0]
    alone, together = tiny.predict(images[2], score=0.005)[0], tiny.predict([other, images[2]], score=0.005)[1]
    np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-4)
    assert len(tiny.predict(images[2], score=1.0)[0]) == 0
    assert len(tiny.predict(images[2], score=0.0, max_detections=7)[0]) == 7


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "convnext_atto"])
def test_any_timm_backbone_in_grey(backbone):
    model = create_model("retinanet", 2, in_chans=1, **TINY | {"backbone": backbone})
    assert model.preprocess.channels == 1
    assert len(model.predict(np.zeros((40, 60), np.uint8))) == 1


def test_overfits_eight_scenes():
    """Every object of the eight is found again, with its class and in its place."""
    torch.manual_seed(0)
    data = saccade.load_data("synthetic:shapes?count=16&size=64", "train", task="detect")
    model = retinanet(len(data.classes), backbone="resnet10t", min_size=64, max_size=64, channels=32, head_norm="group",
                      anchor_sizes=(10.0, 20.0, 40.0, 80.0, 160.0))  # fmt: skip
    batch = collate([model.preprocess(data[i]) for i in range(8)])
    optimizer, curve = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    for _ in range(45):
        loss = sum(model.losses(batch.images, batch.targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
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
