"""What detectors tell of their learning: assignments by the published rules, priors where the network has them."""

import pytest
import torch
from torchvision.ops import box_iou

from saccade import testing
from saccade.models.detect import base, rpn
from saccade.models.detect.faster_rcnn import faster_rcnn
from saccade.models.detect.ssdlite import ssdlite, ssdlite320
from saccade.types.sample import boxes_tensor

SMALL = "test_resnet.r160_in1k"


def detector(name):
    torch.manual_seed(0)
    if name == "faster_rcnn":
        return faster_rcnn(3, backbone=SMALL, min_size=64, max_size=96, channels=16, head_width=16, regions=32).eval()
    build = {"ssdlite": ssdlite, "ssdlite320": ssdlite320}[name]
    return build(3, backbone=SMALL, size=64).eval()


@pytest.fixture(scope="module", params=["ssdlite", "ssdlite320", "faster_rcnn"])
def seen(request):
    """Model, batch with an empty image and with a crowd and a box without area among the objects, and the assignments."""
    model = detector(request.param)
    batch = testing.batch(model, 3)
    batch.targets[1] |= {"boxes": boxes_tensor([], (64, 80)), "labels": torch.zeros(0, dtype=torch.int64)}
    batch.targets[1]["iscrowd"] = torch.zeros(0, dtype=torch.bool)
    batch.targets[2]["iscrowd"][0] = True
    batch.targets[2]["boxes"][1, 2] = batch.targets[2]["boxes"][1, 0]
    before = testing.state(model)
    assigned = model.assignments(batch.images, batch.targets)
    testing.same_state(model, before)
    return model, batch, assigned


def test_D24_D14_assignments_name_the_objects_that_can_be_learnt(seen):
    model, batch, assigned = seen
    stages = ["anchors", "regions"] if hasattr(model, "rpn") else ["priors"]
    assert [[stage.name for stage in one] for one in assigned] == [stages] * 3
    for stage in assigned[0]:
        assert torch.equal(stage.objects, batch.targets[0]["boxes"].as_subclass(torch.Tensor))
        assert torch.equal(stage.labels, batch.targets[0]["labels"])
        assert (stage.counts() > 0).all() or stage.name == "regions"  # which are a sample
        assert stage.counts().sum() == (stage.truth != base.BACKGROUND).sum()
    for stage in assigned[1]:
        assert stage.counts().tolist() == []
        assert (stage.truth == base.BACKGROUND).all()
    for stage in assigned[2]:
        assert torch.equal(stage.objects, batch.targets[2]["boxes"][2:].as_subclass(torch.Tensor))
        assert torch.equal(stage.labels, batch.targets[2]["labels"][2:])


def test_D24_D14_assigned_boxes_follow_the_papers_rules(seen):
    """SSD: IoU from 0.5, or a truth's best. RPN: from 0.7, or the best; regions: from 0.5. TOOD: at most ten, centre inside or best."""
    model, _, assigned = seen
    priors = model.prior_boxes((64, 64) if hasattr(model, "priors") else tuple(seen[1].images.shape[-2:]))
    for one in assigned[:1]:
        for stage in one:
            iou = box_iou(stage.objects, stage.boxes)
            best = box_iou(stage.objects, priors.boxes).amax(1)
            for k, truth in enumerate(stage.truth.tolist()):
                if stage.name == "regions":
                    assert (iou[:, k].max() >= 0.5) == (truth != base.BACKGROUND)
                elif priors.threshold is not None:
                    assert iou[truth, k] >= priors.threshold or iou[truth, k] >= best[truth] - 1e-6
                else:
                    centre = (stage.boxes[k, :2] + stage.boxes[k, 2:]) / 2
                    x1, y1, x2, y2 = stage.objects[truth]
                    assert (x1 < centre[0] < x2 and y1 < centre[1] < y2) or iou[truth, k] >= best[truth] - 1e-6
            if priors.threshold is None:
                assert stage.counts().max() <= 10
            if stage.name != "regions" and priors.threshold is not None:
                overlap = box_iou(stage.objects, priors.boxes)
                assert len(stage.boxes) >= int((overlap.amax(0) >= priors.threshold).sum())


def test_D24_D14_priors_are_the_networks_own(seen):
    model, batch, _ = seen
    size = tuple(batch.images.shape[-2:])
    priors = model.prior_boxes(size)
    if hasattr(model, "rpn"):
        with torch.no_grad():
            anchors = torch.cat(model.propose(batch.images, batch.targets)[1].anchors)
        assert torch.equal(priors.boxes, anchors)
        assert (priors.threshold, priors.stride) == (0.7, 4)
    else:
        assert torch.equal(priors.boxes, model.priors)
        assert priors.stride == (8 if priors.threshold is None else 16)


@pytest.mark.parametrize("size", [(64, 96), (70, 65), (96, 64)])
def test_D14_prior_boxes_of_odd_sizes(size):
    """As the network itself pads and places them."""
    model = detector("faster_rcnn")
    images = [torch.zeros(3, *size)]
    targets = [{"boxes": boxes_tensor([[3, 3, 20, 20]], size), "labels": torch.zeros(1, dtype=torch.int64)}]
    with torch.no_grad():
        anchors = torch.cat(model.propose(images, targets)[1].anchors)
    assert torch.equal(model.prior_boxes(size).boxes, anchors)


# -- the images of a batch do not see each other ----------------------------------------------------

ONE_STAGE = ("yolov1", "yolov2", "yolo9000", "yolov3", "yolov4", "yolov4_csp", "yolov5n", "ssd300", "retinanet")
BOXES = (
    [[0.1, 0.1, 0.45, 0.5], [0.5, 0.3, 0.95, 0.9], [0.2, 0.6, 0.4, 0.8]],
    [],
    [[0.15, 0.12, 0.5, 0.47], [0.55, 0.35, 0.9, 0.95]],  # in the cells of the first two above
    [[0.85, 0.85, 1.15, 1.15]],  # its centre is the image's corner
)
LABELS = ([0, 1, 2], [], [2, 0], [1])


def of_rows(value, rows):
    """Raw outputs of some images; anchors are those of all."""
    if isinstance(value, dict):
        return {name: one if name == "anchors" else of_rows(one, rows) for name, one in value.items()}
    return [of_rows(one, rows) for one in value] if isinstance(value, list) else value[rows]


def noise(value, generator):
    """Outputs as various as those of a trained network, of the same shapes."""
    if isinstance(value, dict):
        return {name: one if name == "anchors" else noise(one, generator) for name, one in value.items()}
    if isinstance(value, list):
        return [noise(one, generator) for one in value]
    return torch.randn(value.shape, generator=generator)


@pytest.fixture(scope="module", params=ONE_STAGE)
def batched(request):
    """A model whose outputs are seeded for each of four images (which hold their number), the images, and their targets."""
    model = testing.build(request.param).eval()
    side = model.preprocess.size[0]
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, side, side)
    with torch.no_grad():
        outputs = noise(model.raw(torch.zeros(4, 3, side, side)), torch.Generator().manual_seed(0))
    model.raw = lambda given: of_rows(outputs, given[:, 0, 0, 0].long())
    targets = [
        {"boxes": boxes_tensor(torch.tensor(boxes).reshape(-1, 4) * side, (side, side)), "labels": torch.tensor(labels).long()}
        for boxes, labels in zip(BOXES, LABELS, strict=True)
    ]
    return model, images, targets


def test_D18_D25_a_batch_assigns_what_its_images_assign_alone(batched):
    model, images, targets = batched
    together = model.assignments(images, targets)
    assert len(together) == 4
    for i, (stage,) in enumerate(together):
        ((alone,),) = model.assignments(images[i : i + 1], targets[i : i + 1])
        for name in ("boxes", "truth", "objects", "labels"):
            assert torch.equal(getattr(stage, name), getattr(alone, name)), (i, name)
        assert stage.counts().sum() >= min(len(targets[i]["labels"]), 1)
        assert ((stage.boxes[:, :2] + stage.boxes[:, 2:]) / 2 < images.shape[-1]).all()  # no cell beyond the last


def test_D18_D25_the_loss_of_a_batch_is_that_of_its_images(batched):
    """The mean over the images, or, where the paper divides by the matches of the batch, the mean over the matches."""
    model, images, targets = batched
    together = model.losses(images, targets)
    singles = [model.losses(images[i : i + 1], targets[i : i + 1]) for i in range(4)]
    matches = torch.tensor([len(stage.truth) for (stage,) in model.assignments(images, targets)]).float()
    by_match = {"SSD": ("class", "box"), "YOLOv5": ("class", "box")}.get(type(model).__name__, ())
    for name, value in together.items():
        weights = matches / matches.sum() if name in by_match else torch.full((4,), 0.25)
        alone = torch.stack([single[name] for single in singles])
        assert value.isfinite()
        torch.testing.assert_close(value, (weights * alone).sum(), rtol=1e-4, atol=1e-5)
    swapped = model.losses(images, [targets[i] for i in (2, 1, 0, 3)])
    assert abs(sum(swapped.values()) - sum(together.values())) > 1e-3


def test_D14_background_is_one_number():
    assert base.BACKGROUND == rpn.BACKGROUND


def test_D5_detectors_without_priors_tell_nothing():
    model = base.Detector(2)
    assert model.task == "detect"
    assert model.assignments(torch.zeros(2, 3, 8, 8), [{}, {}]) == [(), ()]
    assert model.prior_boxes((8, 8)) is None
