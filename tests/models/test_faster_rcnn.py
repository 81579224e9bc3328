"""Faster R-CNN against torchvision's, and by the paper's rules (CANON rows D13, D14)."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from saccade.layers.fpn import pad_batch, pyramid_levels
from saccade.models.detect.faster_rcnn import RECIPES, faster_rcnn
from saccade.models.detect.rpn import BACKGROUND, IGNORED, RPN, Truth, cell_anchors, grid_anchors, ignore_crowd, match, sample
from saccade.types.errors import UsageError
from saccade.types.sample import Sample, collate

TINY = {"backbone": "test_resnet.r160_in1k", "min_size": 64, "max_size": 96, "channels": 32, "head_width": 32, "regions": 64}


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Statistics and heads that make a network's answers vary, so that equality means something."""
    torch.manual_seed(seed)
    for module in net.modules():
        if hasattr(module, "running_var"):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.1)
    for name, value in net.named_parameters():
        if any(key in name for key in ("cls_score", "bbox_pred", "cls_logits", "score.", "deltas.", "objectness.")):
            value.data.normal_(0, 0.3) if value.ndim == 1 else value.data.mul_(60 if "score" in name else 3)


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def objects(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> dict:
    target = {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    return target if crowd is None else target | {"iscrowd": torch.tensor(crowd, dtype=torch.bool)}


def small_pair(**options) -> tuple[nn.Module, nn.Module]:
    """Torchvision's ResNet-18 Faster R-CNN with frozen norms, 3 + 1 classes, and ours with its weights."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)
    theirs = TorchvisionFasterRCNN(backbone, num_classes=4, min_size=96, max_size=160, **options)
    randomise(theirs)
    ours = faster_rcnn(3, backbone="resnet18", norm="frozen", min_size=96, max_size=160)
    ours.load_state_dict(ours.translate_weights(theirs.state_dict(), norm_eps=1e-5))
    return theirs, ours


@pytest.fixture(scope="module")
def pair():
    everything, few = {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6}, 200
    return small_pair(**everything, rpn_post_nms_top_n_train=few, rpn_post_nms_top_n_test=few)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return faster_rcnn(2, **TINY)


# -- D13, the region proposal network -------------------------------------------------------------


def test_D13_nine_anchors_of_three_areas_and_three_ratios():
    cell = cell_anchors((128, 256, 512), (0.5, 1.0, 2.0))
    assert cell.shape == (9, 4)
    width, height = (cell[:, 2] - cell[:, 0]), (cell[:, 3] - cell[:, 1])
    np.testing.assert_allclose((height / width).numpy(), np.repeat([0.5, 1, 2], 3), rtol=0.02)
    np.testing.assert_allclose((height * width).sqrt().numpy(), np.tile([128, 256, 512], 3), rtol=0.01)
    assert (cell[:, :2] == -cell[:, 2:]).all()


def test_D13_paper_form_has_stride_16_and_nine_anchors_a_position():
    with torch.device("meta"):  # 134 million parameters that nobody fills
        model = faster_rcnn(20, backbone="vgg16")
    assert model.taps.strides == [16]
    assert model.rpn.objectness.out_channels == 9
    assert model.rpn.deltas.out_channels == 36
    assert model.rpn.conv.out_channels == 512
    assert model.rpn.drop_border
    assert (model.box_head.fc6.in_features, model.box_head.fc6.out_features, model.box_head.fc7.out_features) == (7 * 7 * 512, 4096, 4096)
    vgg16 = 138_357_544 - (4096 * 1000 + 1000)
    rpn = 512 * 512 * 9 + 512 + (512 + 1) * 9 * 5
    assert sum(p.numel() for p in model.parameters()) == vgg16 + rpn + (4096 + 1) * 21 * 5


def test_D13_about_20000_anchors_on_a_1000_x_600_image():
    anchors = grid_anchors(cell_anchors((128, 256, 512), (0.5, 1.0, 2.0)), (600 // 16, 1000 // 16), (16, 16))
    assert len(anchors) == pytest.approx(20_000, rel=0.05)  # section 3.1.3: "roughly 20000 (60 x 40 x 9)"


def test_D13_anchors_equal_torchvisions():
    sizes, ratios = ((32,), (64,), (128,), (256,), (512,)), (0.5, 1.0, 2.0)
    maps = [torch.zeros(2, 8, h, w) for h, w in ((24, 40), (12, 20), (6, 10), (3, 5), (2, 3))]  # 96 x 160; the last stride is 48 x 53
    theirs = AnchorGenerator(sizes, (ratios,) * 5)(ImageList(torch.zeros(2, 3, 96, 160), [(96, 160)] * 2), maps)
    ours = RPN(8, sizes, ratios).anchors(maps, (96, 160))
    assert torch.equal(torch.cat(ours), theirs[0])


def test_D13_positive_above_07_or_best_negative_below_03():
    iou = torch.tensor([[0.80, 0.50, 0.10, 0.72, 0.29, 0.00], [0.00, 0.00, 0.40, 0.71, 0.00, 0.00], [0.00, 0.00, 0.00, 0.00, 0.00, 0.00]])
    # column 2: below 0.7, but the best of truth 1? no: column 3 is. column 1: between. the third truth overlaps nothing and takes nothing.
    assert match(iou, 0.7, 0.3, keep_best=True).tolist() == [0, IGNORED, IGNORED, 0, BACKGROUND, BACKGROUND]
    iou[1, 3] = 0.0
    assert match(iou, 0.7, 0.3, keep_best=True).tolist() == [0, IGNORED, 1, 0, BACKGROUND, BACKGROUND]
    assert match(iou, 0.7, 0.3).tolist() == [0, IGNORED, IGNORED, 0, BACKGROUND, BACKGROUND]
    assert match(iou[:0], 0.7, 0.3, keep_best=True).tolist() == [BACKGROUND] * 6


def test_D13_256_sampled_one_to_one():
    matched = torch.full((6000,), BACKGROUND)
    matched[::5], matched[1::5] = 2, IGNORED
    for random in (True, False):
        positive, negative = sample(matched, 256, 0.5, random=random)
        assert (len(positive), len(negative)) == (128, 128)
        assert (matched[positive] == 2).all()
        assert (matched[negative] == BACKGROUND).all()
        assert len(torch.cat((positive, negative)).unique()) == 256
    matched[50:] = BACKGROUND
    positive, negative = sample(matched, 256, 0.5, random=True)
    assert (len(positive), len(negative)) == (10, 246)  # "padded with negative ones"
    assert faster_rcnn(1, **TINY).rpn.samples == 256


def test_sampling_is_random_in_training_only():
    matched = torch.full((6000,), BACKGROUND)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    even = [sample(matched, 256, 0.5, random=False)[1] for _ in range(2)]
    assert torch.equal(*even)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(*(sample(matched, 256, 0.5, random=True)[1] for _ in range(2)))


@pytest.mark.parametrize("drop", [True, False])
def test_D13_cross_border_anchors_dropped_in_training(drop):
    rpn = RPN(4, ((32,),), (1.0,), drop_border=drop)
    anchors = torch.tensor([[-1, 10, 31, 42], [0, 0, 32, 32], [30, 30, 62, 62], [64, 64, 96, 96], [65, 64, 97, 96]], dtype=torch.float32)
    truth = Truth(torch.tensor([[-1.0, 10, 31, 42]]), torch.tensor([0]), torch.zeros(0, 4))
    expected = [IGNORED, 0, BACKGROUND, BACKGROUND, IGNORED] if drop else [0, IGNORED, BACKGROUND, BACKGROUND, BACKGROUND]
    assert rpn.assign(anchors, truth, (96, 96)).tolist() == expected  # without it, the next best anchor is the truth's


def test_D13_proposals_equal_torchvisions(pair):
    theirs, ours = pair
    theirs.eval(), ours.eval()
    torch.manual_seed(1)
    batch, sizes = torch.randn(2, 3, 96, 160), [(96, 150), (80, 160)]
    with torch.no_grad():
        features = theirs.backbone(batch)
        expected, _ = theirs.rpn(ImageList(batch, sizes), features)
        maps = ours.features(batch)
        for mine, other in zip(maps, features.values(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
        out = ours.rpn.run(maps, (96, 160))
        found = ours.rpn.proposals(out, sizes, before=1000, after=200)
    for mine, other in zip(found, expected, strict=True):
        assert len(mine) > 50
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-3)


# -- D14, the whole -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet50():
    theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=128, max_size=200).eval()
    randomise(theirs)
    return theirs


def test_D14_equal_detections_from_torchvisions_weights_and_uint8_images(resnet50):
    ours = faster_rcnn(90, norm="frozen", min_size=128, max_size=200)
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == 41_755_286
    ours.load_state_dict(ours.translate_weights(resnet50.state_dict()))
    images = pictures((150, 217), (240, 130))
    with torch.no_grad():
        expected = resnet50([image / 255 for image in images])
    for mine, other in zip(ours.predict(images, score=0.05), expected, strict=True):
        assert len(mine) == len(other["boxes"]) > 20
        np.testing.assert_array_equal(mine.labels, other["labels"].numpy() - 1)
        np.testing.assert_allclose(mine.scores, other["scores"].numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine.boxes, other["boxes"].numpy(), rtol=1e-4, atol=1e-3)


def test_D14_frozen_norm_epsilon_and_names_of_the_published_file(resnet50):
    # The published file: frozen norms used with epsilon 0, and names without the ".0" of later versions.
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in resnet50.state_dict().items() if k.startswith("backbone.")})
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
            module.running_var.mul_(1e-4)  # so small that the epsilon shows
            module.weight.mul_(1e-2)
    state = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
    state |= {k: v for k, v in resnet50.state_dict().items() if not k.startswith("backbone.")}
    old = OrderedDict(
        (
            k.replace("head.conv.0.0.", "head.conv.").replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            if "fpn" in k or "rpn" in k
            else k,
            v,
        )
        for k, v in state.items()
    )
    assert {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.0.weight"} <= set(old)
    ours = faster_rcnn(90, norm="frozen", min_size=128, max_size=200).eval()
    ours.load_state_dict(ours.translate_weights(old))
    batch = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, other in zip(ours.features(batch), backbone(batch).values(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_classes", [90, 3])
def test_D14_pretrained_takes_the_published_weights_and_renews_other_heads(resnet50, num_classes, monkeypatch):
    monkeypatch.setattr("saccade.models.weights.fetch_torchvision", lambda weights: dict(resnet50.state_dict()))
    model = faster_rcnn(num_classes, pretrained=True)
    assert torch.equal(model.rpn.conv.weight, resnet50.rpn.head.conv[0][0].weight)
    assert torch.equal(model.box_head.fc6.weight, resnet50.roi_heads.box_head.fc6.weight)
    assert model.box_head.score.out_features == num_classes + 1
    if num_classes == 90:
        assert torch.equal(model.box_head.score.weight, resnet50.roi_heads.box_predictor.cls_score.weight)
        assert (model.classes[0], model.classes[89], model.classes[11]) == ("person", "toothbrush", "N/A")
        assert [i + 1 for i, name in enumerate(model.classes) if name == "N/A"] == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert model.build_options == {"norm": "frozen", "frozen_stages": 1, "pretrained_backbone": False}
    assert not any(p.requires_grad for p in model.backbone.layer1.parameters())
    assert all(p.requires_grad for p in model.backbone.layer2.parameters())


def test_D14_training_losses_and_gradients_equal_torchvisions(pair):
    theirs, ours = pair
    ours.rpn.samples, ours.form = 10**6, replace(ours.form, regions=10**6, after=(200, 200))  # nothing is left to chance
    theirs.train(), ours.train()
    images = pictures((120, 150), (100, 190), (96, 96))
    truths = [
        objects([[10, 10, 60, 70], [80, 20, 140, 110], [30, 30, 50, 50]], [0, 2, 1]),
        objects([[100, 5, 180, 95]], [1]),
        objects([], []),
    ]
    items = [ours.preprocess(Sample(image, target)) for image, target in zip(images, truths, strict=True)]
    batch = collate(items)
    mine = ours.losses(batch.images, batch.targets)
    other = theirs([i / 255 for i in images], [t | {"labels": t["labels"] + 1} for t in truths])
    names = {"objectness": "loss_objectness", "rpn_box": "loss_rpn_box_reg", "class": "loss_classifier", "box": "loss_box_reg"}
    for key, name in names.items():
        torch.testing.assert_close(mine[key], other[name], rtol=1e-4, atol=1e-6)
    sum(mine.values()).backward()
    sum(other.values()).backward()
    expected = ours.translate_weights({k: v.grad for k, v in theirs.named_parameters()}, norm_eps=1e-5)
    for name, value in ours.named_parameters():
        error = (value.grad - expected[name]).norm() / (expected[name].norm() + 1e-6)
        assert error < 1e-3, (name, error)


def test_D14_preprocess_equals_torchvisions_transform():
    model = faster_rcnn(1, **TINY)
    config = model.preprocess
    transform = GeneralizedRCNNTransform(64, 96, list(config.mean), list(config.std)).eval()
    images = pictures((50, 33), (40, 130), (64, 64), (200, 301))
    expected, _ = transform([image / 255 for image in images])
    tensors = [config(Sample(image, {}))[0] for image in images]
    batch, sizes = pad_batch(tensors, 32)
    assert sizes == [tuple(s) for s in expected.image_sizes]
    torch.testing.assert_close(batch, expected.tensors, rtol=1e-5, atol=2e-6)


def test_D14_box_head_samples_512_a_quarter_objects():
    tiny = faster_rcnn(2, **TINY | {"regions": None}).train()
    truth = Truth(torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([1]), torch.zeros(0, 4))
    near = torch.tensor([[12.0, 12, 52, 52]]).repeat(400, 1)
    far = torch.tensor([[60.0, 60, 90, 90]]).repeat(900, 1)
    regions = tiny.sample([torch.cat((near, far))], [truth])
    labels = regions.labels[0]
    assert (int((labels == 2).sum()), int((labels == 0).sum())) == (128, 384)
    own = tiny.coder.decode(regions.aims[0][labels > 0], regions.boxes[0][labels > 0])
    torch.testing.assert_close(own, truth.boxes.expand(128, 4), rtol=1e-4, atol=1e-3)


def test_pyramid_level_of_a_region():
    boxes = torch.tensor([[0, 0, s, s] for s in (10, 111, 112, 223, 224, 448, 2000)], dtype=torch.float32)
    assert pyramid_levels(boxes, [4, 8, 16, 32]).tolist() == [0, 0, 1, 1, 2, 3, 3]


# -- contract -------------------------------------------------------------------------------------


def batch_of(model, sizes=((60, 80), (90, 70)), targets=None):
    images = pictures(*sizes)
    targets = targets or [objects([[5, 5, 40, 40], [20, 10, 60, 55]], [0, 1])] * len(images)
    return collate([model.preprocess(Sample(image, target)) for image, target in zip(images, targets, strict=True)])


def test_losses_give_all_parameters_a_gradient(tiny):
    tiny.train()
    batch = batch_of(tiny)
    sum(tiny.losses(batch.images, batch.targets).values()).backward()
    assert [n for n, p in tiny.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_losses_in_eval_mode_are_the_same_each_time_and_leave_no_trace(tiny):
    batch = batch_of(tiny)
    names = tiny.train().losses(batch.images, batch.targets).keys()
    tiny.eval()
    before = {name: value.clone() for name, value in tiny.named_buffers()}
    state = torch.get_rng_state()
    first, second = (tiny.losses(batch.images, batch.targets) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.keys() == names
    assert all(torch.equal(first[key], second[key]) and first[key].isfinite() for key in first)
    assert all(torch.equal(before[name], value) for name, value in tiny.named_buffers())


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("backbone", ["test_resnet.r160_in1k", "vgg11"])
def test_empty_degenerate_and_crowd_targets_are_finite(train, backbone):
    if backbone == "vgg11" and not train:
        pytest.skip("one mode is enough for the wide network")
    torch.manual_seed(0)
    model = faster_rcnn(2, **TINY | {"backbone": backbone}).train(train)
    targets = [
        objects([], []),
        objects([[10, 10, 10, 10], [20, 5, 20, 30]], [0, 1]),
        objects([[0, 0, 50, 50]], [1], [True]),
        objects([[0, 0, 60, 60], [5, 5, 30, 30]], [1, 0], [True, False]),
    ]
    for size in ((64, 64), (33, 90)):
        batch = batch_of(model, [size] * 4, targets)
        losses = model.losses(batch.images, batch.targets)
        assert all(value.isfinite() for value in losses.values()), losses
        sum(losses.values()).backward()


def test_crowd_regions_are_neither_object_nor_background():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 40, 40], [50, 50, 60, 60], [8, 0, 18, 10]])
    crowd = torch.tensor([[0.0, 0, 12, 12]])
    matched = torch.full((4,), BACKGROUND)
    assert ignore_crowd(matched, boxes, crowd).tolist() == [IGNORED, BACKGROUND, BACKGROUND, BACKGROUND]
    matched[0] = 3
    assert ignore_crowd(matched, boxes, crowd).tolist()[0] == 3


def test_predictions_lie_in_the_image_and_do_not_depend_on_the_batch(tiny):
    images = pictures((60, 80), (200, 37), (64, 64))
    randomise(tiny)
    together = tiny.predict(images, score=0.05)
    for image, prediction in zip(images, together, strict=True):
        height, width = image.shape[-2:]
        assert len(prediction) > 0
        assert prediction.boxes.min() >= 0
        assert prediction.boxes[:, [0, 2]].max() <= width
        assert prediction.boxes[:, [1, 3]].max() <= height
        assert set(prediction.labels) <= {0, 1}
        assert (np.diff(prediction.scores) <= 0).all()
    alone = tiny.predict(images[2], score=0.05)[0]
    assert len(alone) == len(tiny.predict([images[2]] * 2, score=0.05)[1])
    assert len(tiny.predict(images[2], score=0.05, max_detections=3)[0]) == 3
    assert len(tiny.predict(images[2], score=1.0)[0]) == 0


def test_an_image_narrower_than_its_stride(tiny):
    assert len(tiny.predict(pictures((7, 300), (1, 1)))) == 2


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "regnetx_002", "convnext_atto", "mambaout_femto", "vgg11_bn.tv_in1k"])
def test_any_timm_backbone(backbone):
    torch.manual_seed(0)
    model = faster_rcnn(2, **TINY | {"backbone": backbone}).train()
    batch = batch_of(model)
    losses = model.losses(batch.images, batch.targets)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert len(model.predict(pictures((60, 80)))) == 1


def test_paper_form_runs_and_learns():
    torch.manual_seed(0)
    model = faster_rcnn(2, **TINY | {"backbone": "vgg11"}, anchor_sizes=(16.0, 32.0), frozen_stages=1).train()
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert frozen == [f"backbone.features.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")]  # conv1 and conv2
    batch = batch_of(model)
    sum(model.losses(batch.images, batch.targets).values()).backward()
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    assert len(model.predict(pictures((60, 80), (50, 50)))) == 2


@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_norms(norm):
    model = faster_rcnn(2, **TINY, norm=norm).train()
    kinds = {type(module).__name__ for module in model.backbone.modules()}
    assert ("FrozenBatchNorm2d" in kinds, "BatchNorm2d" in kinds, "GroupNorm" in kinds) == (
        norm == "frozen",
        norm == "batch",
        norm == "group",
    )
    before = {name: value.clone() for name, value in model.named_buffers()}
    batch = batch_of(model)
    sum(model.losses(batch.images, batch.targets).values()).backward()
    changed = any(not torch.equal(before[name], value) for name, value in model.named_buffers())
    assert changed == (norm == "batch")


def test_frozen_stages_are_the_stem_and_the_first_ones():
    model = faster_rcnn(2, **TINY, norm="frozen", frozen_stages=1)
    frozen = {name.split(".")[1] for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"conv1", "layer1"}
    mobile = faster_rcnn(2, **TINY | {"backbone": "mobilenetv3_small_050"}, frozen_stages=2)
    frozen = {".".join(name.split(".")[1:3]) for name, value in mobile.named_parameters() if not value.requires_grad}
    assert {"conv_stem.weight", "blocks.0", "blocks.1"} <= frozen
    assert not any(part.startswith(("blocks.2", "blocks.3")) for part in frozen)


def test_grey_images():
    for backbone in (TINY["backbone"], "vgg11"):
        model = faster_rcnn(2, **TINY | {"backbone": backbone}, in_chans=1)
        assert len(model.predict(pictures((60, 80)))) == 1
        assert model.preprocess.channels == 1


def test_parts_export(tiny):
    randomise(tiny)
    tiny.eval()
    parts = tiny.parts()
    assert set(parts) == {"proposals", "box_head"}
    torch.manual_seed(2)
    for module, example in parts.values():
        program = torch.export.export(module.eval(), example)
        inputs = tuple(torch.randn_like(value) for value in example)
        with torch.no_grad():
            expected, found = module(*inputs), program.module()(*inputs)
        for mine, other in zip(torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(expected), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_registry_keeps_what_the_builder_resolved():
    from saccade.models.registry import create_model

    model = create_model("faster_rcnn", 2, **TINY)
    assert model.build_options == TINY | {"num_classes": 2, "norm": "batch", "frozen_stages": 0, "pretrained_backbone": False}
    again = create_model("faster_rcnn", **model.build_options)
    again.load_state_dict(model.state_dict())
    assert RECIPES["faster_rcnn"].optimizer == "sgd"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet5o"}, "resnet50"),
        ({"backbone": "vit_tiny_patch16_224"}, "strides"),
        ({"pretrained": True}, "published weights"),
        ({"anchor_sizes": (32.0,)}, "anchor_sizes"),
        ({"frozen_stages": 9}, "stages"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(UsageError, match=words):
        faster_rcnn(**{"num_classes": 2} | TINY | options)


def test_overfits_one_image():
    torch.manual_seed(0)
    model = faster_rcnn(1, **TINY | {"head_width": 64, "channels": 64}, anchor_sizes=(16.0, 24.0, 32.0, 48.0, 64.0))
    image = pictures((64, 64))[0] // 4
    image[:, 12:40, 20:50] += 150
    target = objects([[20, 12, 50, 40]], [0])
    batch = collate([model.preprocess(Sample(image, target))] * 2)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 60)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.train().losses(batch.images, batch.targets).values()).backward()
        optimizer.step()
        schedule.step()
    found = model.predict(image, score=0.7)[0]
    assert len(found) == 1
    assert np.abs(found.boxes[0] - [20, 12, 50, 40]).max() < 4


@pytest.mark.gpu
def test_on_cuda(tiny):
    tiny.cuda().train()
    batch = batch_of(tiny)
    images = [image.cuda() for image in batch.images]
    with torch.autocast("cuda", torch.bfloat16):
        assert all(value.isfinite() for value in tiny.losses(images, batch.targets).values())
    assert len(tiny.predict(pictures((60, 80)))) == 1
