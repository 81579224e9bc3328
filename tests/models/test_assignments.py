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


def test_D14_background_is_one_number():
    assert base.BACKGROUND == rpn.BACKGROUND


def test_D5_detectors_without_priors_tell_nothing():
    model = base.Detector(2)
    assert model.task == "detect"
    assert model.assignments(torch.zeros(2, 3, 8, 8), [{}, {}]) == [(), ()]
    assert model.prior_boxes((8, 8)) is None
