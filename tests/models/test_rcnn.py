"""R-CNN: the geometry of context, the paper's thresholds, the quarter of positives, machines, ridge, stages end to end."""

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from saccade.boxes.coders import BoxCoder
from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.models.base import StageContext
from saccade.models.detect.rcnn import (
    RECIPES,
    RegionDataset,
    Regions,
    Truth,
    context_boxes,
    negatives_of,
    rcnn,
    regression_pairs,
    warp_regions,
)
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.sample import collate

TINY = {"backbone": "test_resnet.r160_in1k", "size": 32, "max_proposals": 120, "max_side": 128}


def scene(rng):
    """Red squares (0) and blue discs (1) on a textured ground: (image, boxes, labels)."""
    image = np.full((96, 128, 3), 200, np.uint8)
    image += rng.integers(0, 10, image.shape, dtype=np.uint8)
    x, y = (int(v) for v in rng.integers(4, 24, 2))
    cv2.rectangle(image, (x, y), (x + 31, y + 31), (200, 40, 40), -1)
    u, v = int(rng.integers(84, 104)), int(rng.integers(24, 72))
    cv2.circle(image, (u, v), 18, (40, 60, 200), -1)
    return image, np.array([[x, y, x + 32, y + 32], [u - 18, v - 18, u + 19, v + 19]], np.float32), np.array([0, 1])


def dataset(root, count=6, classes=("square", "disc"), extra=()):
    rng, records = np.random.default_rng(0), []
    for i in range(count):
        image, boxes, labels = scene(rng)
        cv2.imwrite(str(root / f"{i}.png"), image[..., ::-1])
        records.append(Record(path=f"{i}.png", image_id=str(i), boxes=boxes, labels=labels))
    return Dataset(DataIndex("test", root, list(classes), PackedRecords([*records, *extra]), tasks=("detect",)))


def plain_training(module, data, recipe):
    """What an engine does, in a few lines."""
    optimizer = torch.optim.SGD(module.parameters(), lr=recipe.lr, momentum=0.9)
    module.train()
    for _ in range(recipe.epochs):
        for batch in torch.utils.data.DataLoader(data, recipe.batch_size, shuffle=True, collate_fn=collate):
            loss = sum(module.losses(batch.images, batch.targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def context(train, cache, *, validation=None, epochs=20):
    lines = []
    recipe = RECIPES["rcnn"].replace(epochs=epochs, batch_size=4)
    made = StageContext(train, validation, cache, recipe, 0, lambda stage, values: lines.append((stage, values)), plain_training)
    return made, lines


# -- warping ------------------------------------------------------------------------------------


def test_D10_context_is_16_of_227_pixels():
    # a box of 195 pixels is warped 1:1: 195 + 2 * 16 = 227
    np.testing.assert_allclose(context_boxes(np.array([[100, 200, 295, 395]]), 227, 16), [[84, 184, 311, 411]])
    # a box of 390 x 97.5: 32 pixels of context left and right, 8 above and below
    np.testing.assert_allclose(context_boxes(np.array([[0, 0, 390, 97.5]]), 227, 16), [[-32, -8, 422, 105.5]])
    np.testing.assert_allclose(context_boxes(np.array([[1, 2, 3, 4]]), 64, 0), [[1, 2, 3, 4]])
    assert rcnn(1, **TINY).padding == pytest.approx(16 * 32 / 227)
    assert rcnn(1, **TINY | {"size": 227}).padding == 16


def test_D10_warped_box_lies_16_pixels_inside():
    image = np.zeros((300, 400, 3), np.uint8)
    image[60:138, 100:295] = 255  # a box of 195 x 78
    warped = warp_regions(image, np.array([[100, 60, 295, 138]]), 227, 16, (0, 0, 0))[0, 0]
    assert warped.shape == (227, 227)
    assert (warped[18:-18, 18:-18] == 255).all()
    assert (warped[:14] == 0).all()
    assert (warped[:, :14] == 0).all()
    assert (warped[-14:] == 0).all()
    assert (warped[:, -14:] == 0).all()


def test_D10_outside_the_image_is_the_mean():
    image = np.full((50, 50, 3), 200, np.uint8)
    warped = warp_regions(image, np.array([[0, 0, 195, 195]]), 227, 16, (1, 2, 3))[0]
    assert (warped[:, 16:66, 16:66] == 200).all()
    for channel, value in enumerate((1, 2, 3)):
        assert (warped[channel, :16] == value).all()
        assert (warped[channel, 66:] == value).all()
        assert (warped[channel, :, 66:] == value).all()


def test_D10_warping_survives_every_box():
    image = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    odd = np.array([[0, 0, 1, 1], [29, 19, 30, 20], [0, 0, 30, 1], [10.2, 3.3, 10.4, 3.5], [-50, -50, -40, -40], [25, 15, 90, 90]])
    assert warp_regions(image, odd, 16, 1.1, (7,)).shape == (6, 1, 16, 16)
    assert warp_regions(image, np.zeros((0, 4)), 16, 1.1, (7,)).shape == (0, 1, 16, 16)


# -- thresholds ---------------------------------------------------------------------------------


def truth_of(boxes, labels, crowd=()):
    return Truth(
        0, np.zeros((1, 1, 3), np.uint8), np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64),
        np.array(crowd, np.float32).reshape(-1, 4),
    )  # fmt: skip


STRIPS = np.array([[0, 0, w, 10] for w in (100, 70, 60, 59, 50, 49, 30, 29, 10)], np.float32)  # IoU with 100 x 10: w / 100


def test_D10_negatives_of_a_machine_have_iou_below_0_3():
    mask = negatives_of(STRIPS, truth_of([[0, 0, 100, 10]], [0]), 2)
    assert mask[:, 0].tolist() == [False] * 7 + [True] * 2
    assert mask[:, 1].all()  # other classes' objects are negatives too
    assert not negatives_of(STRIPS, truth_of([], [], [[0, 0, 100, 10]]), 2)[:7].any()  # a crowd is nobody's negative


def test_D10_regression_pairs_have_iou_of_at_least_0_6():
    boxes, labels, targets = regression_pairs(STRIPS, truth_of([[0, 0, 100, 10]], [1]))
    assert (boxes[:, 2] - boxes[:, 0]).tolist() == [100, 70, 60]
    assert labels.tolist() == [1, 1, 1]
    np.testing.assert_allclose(targets[2], [(50 - 30) / 60, 0, np.log(100 / 60), 0], rtol=1e-6)
    assert [len(x) for x in regression_pairs(STRIPS, truth_of([], []))] == [0, 0, 0]


def test_D10_fine_tuning_positives_have_iou_of_at_least_0_5(tmp_path):
    data = dataset(tmp_path, 1)
    truth = data.record(0).boxes[0]
    model = rcnn(2, **TINY)
    widths = (1.0, 0.51, 0.49, 0.2)
    model.proposals = lambda image: np.array([[truth[0], truth[1], truth[0] + 32 * w, truth[3]] for w in widths], np.float32)
    boxes, labels = RegionDataset(model, data).regions[0]
    assert labels.tolist() == [0, 1, 0, 0, 2, 2]  # two true boxes, then the proposals; 2 is the background
    np.testing.assert_array_equal(boxes[:2], data.record(0).boxes)


def test_D10_a_batch_of_128_has_32_positives(tmp_path):
    data = dataset(tmp_path, 3)
    regions = RegionDataset(rcnn(2, **TINY), data)
    loader = torch.utils.data.DataLoader(regions, RECIPES["rcnn"].batch_size, collate_fn=collate)
    batch = next(iter(loader))
    labels = torch.cat([t["labels"] for t in batch.targets])
    assert batch.images.shape == (8, 16, 3, 32, 32)
    assert len(labels) == 128
    assert int((labels < 2).sum()) == 32
    assert sum(int((t["labels"] < 2).sum()) == 4 for t in batch.targets) == 8


def test_D10_regions_are_drawn_with_torchs_generator(tmp_path):
    regions = RegionDataset(rcnn(2, **TINY), dataset(tmp_path, 2))

    def item(seed):
        torch.manual_seed(seed)
        return regions[1]

    (one, target, _), (two, again, _) = item(3), item(3)
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert torch.equal(target["labels"], again["labels"])
    assert not torch.equal(one, item(4)[0])


# -- machines and regression --------------------------------------------------------------------


def test_D10_machines_take_only_negatives_and_mine_the_hard_ones():
    rng = np.random.default_rng(0)
    model = rcnn(2, **TINY, hard=4)
    dim = model.network.dim
    spans, rows, features = [], 0, []
    direction = rng.normal(size=dim)
    for _ in range(10):
        block = rng.normal(size=(30, dim)).astype(np.float32)
        block[:5] += direction  # like the class, but marked as overlapping it
        features.append(block)
        mask = np.ones((30, 2), bool)
        mask[:5, 0] = False
        mask[:, 1] = False  # class 1 has no negative at all
        spans.append((rows, mask))
        rows += 30
    features = np.concatenate(features)
    positives = [list(rng.normal(size=(20, dim)).astype(np.float32) + direction), []]
    logged = []
    pools = model.fit_machines(positives, features, spans, log=logged.append)
    allowed = np.concatenate([first + np.flatnonzero(mask[:, 0]) for first, mask in spans])
    assert set(pools[0]) <= set(allowed.tolist())
    assert len(logged) > 1
    assert logged[-1]["round 1/negatives/0" if len(logged) == 2 else f"round {len(logged) - 1}/negatives/0"] >= 40
    scale = float(model.feature_scale[0])
    assert np.linalg.norm(features * scale, axis=1).mean() == pytest.approx(20, rel=1e-5)
    scores = features * scale @ model.svm_weight[0].numpy() + float(model.svm_bias[0])
    left = np.setdiff1d(allowed, pools[0])
    assert (scores[left] > -1).sum() <= 40  # at most what one more round would add
    assert (np.stack(positives[0]) * scale @ model.svm_weight[0].numpy() + float(model.svm_bias[0]) > 0).mean() > 0.9
    assert float(model.svm_bias[1]) == -np.inf  # never found


def test_D10_box_regression_is_scikit_learns_ridge_with_lambda_1000():
    rng = np.random.default_rng(0)
    model = rcnn(2, **TINY)
    x, y = rng.normal(size=(50, model.network.pool5_dim)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    model.fit_regression({1: (x, y)})
    scale = 20 / np.linalg.norm(x, axis=1).mean()
    assert float(model.feature_scale[1]) == pytest.approx(scale)
    # the closed form, centred: W = (X'X + 1000 I)^-1 X'Y
    xc, yc = (x - x.mean(0)).astype(float) * scale, (y - y.mean(0)).astype(float)
    expected = np.linalg.solve(xc.T @ xc + 1000 * np.eye(x.shape[1]), xc.T @ yc).T
    np.testing.assert_allclose(model.regression[1, :, :-1], expected, atol=1e-5)
    oracle = Ridge(alpha=1000).fit(x * scale, y)
    mine = torch.from_numpy(x) * model.feature_scale[1] @ model.regression[1, :, :-1].T + model.regression[1, :, -1]
    np.testing.assert_allclose(mine, oracle.predict(x * scale), atol=1e-4)
    assert not model.regression[0].any()


def test_D10_decode_nms_a_class_then_regressed_boxes():
    model = rcnn(2, **TINY)
    boxes = torch.tensor([[0.0, 0, 40, 40], [2, 0, 42, 40], [100, 0, 140, 40]])
    scores = torch.tensor([[1.0, -9], [2.0, 0.5], [-9, -9]])
    deltas = torch.zeros(3, 2, 4)
    deltas[1, 0] = torch.tensor([0.1, 0, np.log(0.5), 0])
    geometry = [Geometry((100, 200), (100, 200))]
    out = model.decode([Regions(boxes, scores, deltas)], geometry, score=0.1)[0]
    np.testing.assert_allclose(out.boxes, [[16, 0, 36, 40], [2, 0, 42, 40]], atol=1e-5)
    assert out.labels.tolist() == [0, 1]
    np.testing.assert_allclose(out.scores, 1 / (1 + np.exp([-2, -0.5])), rtol=1e-6)
    torch.testing.assert_close(BoxCoder((1, 1, 1, 1)).decode(deltas[1, 0], boxes[1]), torch.tensor([16.0, 0, 36, 40]))
    assert len(model.decode([Regions(boxes, scores, deltas)], geometry, score=0.1, iou=0.95)[0]) == 3
    assert len(model.decode([Regions(boxes, scores, deltas)], geometry, score=0.1, max_detections=1)[0]) == 1


# -- whole --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("rcnn")
    torch.manual_seed(0)
    broken = Record(path="broken.png", image_id="b", boxes=np.array([[0, 0, 9, 9]], np.float32), labels=np.array([0]))
    bare = Record(path="bare.png", image_id="e", boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64))
    (root / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(root / "bare.png"), np.full((40, 40, 3), 99, np.uint8))
    data = dataset(root, 8, classes=("square", "disc", "never"), extra=[broken, bare])
    model = rcnn(3, **TINY)
    made, lines = context(data.subset([0, 1, 2, 3, 4, 5, 8, 9]), root / "cache", validation=data.subset([6]))
    for stage in model.stages():
        stage.run(made)
    return model.eval(), data, lines, root


def test_D10_stages_learn_shapes(trained):
    from torchvision.ops import box_iou

    model, data, lines, _ = trained
    assert [(s.name, s.kind) for s in model.stages()] == [
        ("proposals", "cache"), ("fine-tune", "train"), ("svm", "fit"), ("box regression", "fit"), ("calibration", "fit"),
    ]  # fmt: skip
    assert ("proposals", {"train/skipped": 1.0}) in lines
    for i in (6, 7):
        sample = data[i]
        found = model.predict(sample.image, score=0.01)[0]
        assert 2 not in found.labels
        for box, label in zip(sample.target["boxes"], sample.target["labels"], strict=True):
            best = torch.from_numpy(found.boxes[found.labels == int(label)][:1])
            assert float(box_iou(best, box[None].as_subclass(torch.Tensor))) > 0.5


def test_D10_state_dict_holds_everything(trained):
    model, data, _, _ = trained
    fresh = rcnn(3, **TINY)
    fresh.load_state_dict(model.state_dict())
    a, b = (m.predict(data[7].image, score=0.01)[0] for m in (model, fresh))
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_D10_proposals_are_cached_for_prediction_and_resume(trained, monkeypatch):
    model, data, _, root = trained
    assert len(list((root / "cache" / "proposals").rglob("*.npy"))) >= 8
    monkeypatch.setattr("saccade.models.detect.selective_search.selective_search", lambda *a, **k: pytest.fail("computed anew"))
    model.predict(data[0].image)
    resumed = rcnn(3, **TINY)
    resumed.load_state_dict(model.state_dict())
    made, _ = context(data.subset([0, 1]), root / "cache")
    resumed.stages()[3].run(made)  # "box regression" alone
    assert resumed.regression.any()


def test_D10_losses_in_eval_mode_change_nothing(tmp_path):
    data = dataset(tmp_path, 1)
    model = rcnn(2, **TINY).eval()
    item = RegionDataset(model, data)[0]
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    first, again = (model.network.losses(item[0][None], [item[1]])["class"] for _ in range(2))
    assert torch.isfinite(first)
    assert first == again
    first.backward()
    assert all(p.grad is not None for p in model.network.parameters())
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_D10_odd_images_and_options(tmp_path):
    model = rcnn(2, **TINY | {"in_chans": 1})
    for shape in ((5, 5, 3), (1, 40), (33, 57)):
        found = model.predict(np.zeros(shape, np.uint8), score=0.0)[0]
        assert found.boxes.shape[1] == 4
        assert found.size == shape[:2]
    with pytest.raises(UsageError, match="backbone"):
        rcnn(2, backbone="no_such_net")
    with pytest.raises(UsageError, match="convolutional"):
        rcnn(2, backbone="test_vit", size=160)
    with pytest.raises(UsageError, match="pretrained_backbone"):
        rcnn(2, pretrained=True)
    with pytest.raises(UsageError, match="context"):
        rcnn(2, context=120, **TINY)
    empty = dataset(tmp_path, 0, extra=[Record(path="0.png", image_id="0", boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, int))])
    cv2.imwrite(str(tmp_path / "0.png"), scene(np.random.default_rng(0))[0])
    with pytest.raises(DataError, match="no region"):
        RegionDataset(model, empty)
