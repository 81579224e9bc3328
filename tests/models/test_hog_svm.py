"""HOG + SVM: scores and windows against OpenCV's detector, hard negatives, pyramid, NMS, calibration, learning."""

import cv2
import numpy as np
import pytest
import torch
from sklearn.calibration import _SigmoidCalibration
from sklearn.svm import LinearSVC
from torchvision.ops import box_iou

from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.features.hog import hog
from saccade.models.detect.hog_svm import Windows, hog_svm, object_window
from saccade.models.detect.linear_svm import fit_linear_svm, fit_platt, match_truth
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry


def scene(rng):
    """Squares (class 0) and tall bars with a notch (class 1) among discs: (image, boxes, labels)."""
    image = np.full((120, 160, 3), 210, np.uint8)
    image += rng.integers(0, 12, image.shape, dtype=np.uint8)
    boxes, labels = [], []
    for slot in range(3):
        x, y = slot * 52 + int(rng.integers(4, 10)), int(rng.integers(8, 40))
        shade = int(rng.integers(30, 90))
        if slot == 2:
            cv2.circle(image, (x + 18, y + 18), 16, (shade,) * 3, -1)  # in no class
            continue
        width, height = (36, 36) if slot == 0 else (24, 60)
        image[y : y + height, x : x + width] = shade
        image[y + height // 2 : y + height // 2 + 4, x + 4 : x + width - 4] = 255 - shade
        boxes.append([x, y, x + width, y + height])
        labels.append(slot)
    return image, np.array(boxes, np.float32), np.array(labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    rng, records = np.random.default_rng(0), []
    for i in range(12):
        image, boxes, labels = scene(rng)
        cv2.imwrite(str(root / f"{i}.png"), image)
        records.append(Record(path=f"{i}.png", image_id=str(i), boxes=boxes, labels=labels))
    return Dataset(DataIndex("test", root, ["square", "bar"], PackedRecords(records), tasks=("detect",)))


@pytest.fixture(scope="module")
def fitted(data):
    model = hog_svm(2, rounds=1)
    logged = []
    model.fit(data.subset(range(8)), log=lambda name, values: logged.append((name, values)))
    return model, dict(logged)


@pytest.fixture
def one_opencv_thread():
    """`detectMultiScale` locks twice, for its places and for their scores: two threads can pair them wrongly."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def people_picture(seed=3):
    noise = np.random.default_rng(seed).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (200, 240), interpolation=cv2.INTER_CUBIC)


def opencv_detect(image, floor):
    oracle = cv2.HOGDescriptor()
    oracle.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    places, scores = oracle.detect(image, hitThreshold=floor, winStride=(8, 8), padding=(0, 0))
    return {(x, y): s for (x, y), s in zip(np.asarray(places).reshape(-1, 2).tolist(), np.ravel(scores).tolist(), strict=True)}


def test_D5_window_is_64x128_with_3780_weights():
    model = hog_svm(1, pretrained=True)
    assert model.windows[0].tolist() == [64, 128, 16, 16]
    assert model.weight.shape == (1, 3780)
    assert cv2.HOGDescriptor_getDefaultPeopleDetector().size == 3780 + 1
    assert model.shape(0) == (15, 7)
    assert hog(np.zeros((128, 64), np.uint8)).size == 3780


def test_D5_people_detector_scores_every_window_as_opencv():
    image, model = people_picture(), hog_svm(1, pretrained=True, candidates=100000)
    model.factors[0] = torch.tensor([1.0, 1.0])
    expected = opencv_detect(image, -100.0)
    found = model.scan(image, floor=-100.0)
    ours = {(x, y): s for (x, y), s in zip(found.boxes[:, :2].int().tolist(), found.scores.tolist(), strict=True)}
    assert len(expected) == ((200 - 64) // 8 + 1) * ((240 - 128) // 8 + 1)
    assert set(expected) <= set(ours)  # ours looks two cells beyond the border too
    np.testing.assert_allclose([ours[p] for p in expected], list(expected.values()), atol=2e-5)


def test_D5_people_detector_equals_detect_multi_scale(one_opencv_thread):
    image = people_picture()
    model = hog_svm(1, pretrained=True, step=1.05, candidates=100000)
    oracle = cv2.HOGDescriptor()
    oracle.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    floor = -1.9
    rectangles, scores = oracle.detectMultiScale(image, hitThreshold=floor, winStride=(8, 8), padding=(0, 0), scale=1.05, groupThreshold=0)
    expected = np.concatenate([np.asarray(rectangles, float).reshape(-1, 4), np.reshape(scores, (-1, 1))], 1)
    assert len(expected) > 5
    found = model.scan(image, floor=floor - 1e-3)
    ours = torch.cat([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2], found.scores[:, None]], 1).numpy()
    for row in expected:  # OpenCV rounds rectangles to whole pixels
        near = np.abs(ours[:, :4] - row[:4]).max(1) <= 1.01
        assert np.abs(ours[near, 4] - row[4]).min(initial=9) < 1e-4, row
    inside = (found.boxes[:, :2] >= 0).all(1) & (found.boxes[:, 2] <= 199) & (found.boxes[:, 3] <= 239) & (found.scores > floor + 1e-3)
    for row in ours[inside.numpy()]:
        near = np.abs(expected[:, :4] - row[:4]).max(1) <= 1.01
        assert np.abs(expected[near, 4] - row[4]).min(initial=9) < 1e-4, row


def test_D5_people_are_found_in_a_real_picture(real, one_opencv_thread):
    """Wherever OpenCV's detector answers, its best window must stand here with the same score."""
    oracle = cv2.HOGDescriptor()
    oracle.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    model = hog_svm(1, pretrained=True, step=1.05)
    files = sorted((real("coco128") / "images").rglob("*.jpg"))[:25]
    checked = 0
    for file in files:
        image = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        rectangles, scores = oracle.detectMultiScale(
            image, hitThreshold=0.5, winStride=(8, 8), padding=(0, 0), scale=1.05, groupThreshold=0
        )
        if len(rectangles):
            found = model.scan(image, floor=0.5 - 1e-3)
            best = int(np.argmax(scores))
            x, y, w, h = rectangles[best]
            distance = (found.boxes - torch.tensor([x, y, x + w, y + h])).abs().amax(1)
            assert np.abs(found.scores[distance <= 2].numpy() - np.ravel(scores)[best]).min() < 1e-3
            checked += 1
        if checked == 3:
            break
    assert checked


def test_D5_window_of_a_class_follows_its_boxes():
    tall = np.array([[0, 0, 30, 90]] * 9 + [[0, 0, 60, 180]], float)
    width, height = object_window(tall, margin=8)
    assert (width, height) == (48, 104)  # place 30 x 90, margins 8, in whole cells
    assert object_window(np.array([[0, 0, 5, 5]], float))[0] == 40  # at least three cells
    assert object_window(np.array([[0, 0, 500, 500]], float)) == (96, 96)  # at most `largest`


def test_D5_pyramid_levels_and_places(fitted):
    model, _ = fitted
    image = np.zeros((120, 160, 3), np.uint8)
    levels = list(model.levels(image))
    factors = [level.factor for level in levels]
    np.testing.assert_allclose(np.diff(np.log(factors)), np.log(1.2))
    for level in levels:
        assert level.grid.shape[2:] == (
            round(120 / level.factor) // 8 + 2 * level.pad - 1,
            round(160 / level.factor) // 8 + 2 * level.pad - 1,
        )
    low, high = float(model.factors[:, 0].min()), float(model.factors[:, 1].max())
    assert factors[0] <= low * 1.2
    assert factors[-1] <= high
    level = levels[0]
    at_origin = model.place(0, level, torch.tensor([level.pad]), torch.tensor([level.pad]))
    np.testing.assert_allclose(at_origin[0], model.windows[0, [0, 0, 0, 1]].numpy() * [0, 0, 1, 1] * level.factor, rtol=1e-6)


def test_D5_positive_is_the_object_in_its_place_and_its_mirror(fitted):
    model, _ = fitted
    width, height, margin, _ = model.windows[0].int().tolist()
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    place = [60, 70, 60 + width - 2 * margin, 70 + height - 2 * margin]  # unscaled: the warp is a plain cut
    upright, mirrored = model.positives(image, np.array([place]), 0)
    window = image[70 - margin - 8 : 70 - margin + height + 8, 60 - margin - 8 : 60 - margin + width + 8]
    grid = model._blocks(np.ascontiguousarray(window))[1:-1, 1:-1]
    np.testing.assert_allclose(upright, grid.reshape(-1), atol=1e-6)
    np.testing.assert_allclose(mirrored, model._blocks(np.ascontiguousarray(window[:, ::-1]))[1:-1, 1:-1].reshape(-1), atol=1e-6)
    objects = model.objects(torch.tensor([[60.0 - margin, 70 - margin, 60 - margin + width, 70 - margin + height]]), torch.tensor([0]))
    np.testing.assert_allclose(objects[0], place)


def test_D5_hard_negatives_are_what_the_model_scores_high(fitted, data):
    model, _ = fitted
    sample = data[9]
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    truth = sample.target["boxes"].numpy()[sample.target["labels"].numpy() == 0]
    features, windows, scores = model.hard_negatives(list(model.levels(image)), truth, 0, limit=7, floor=-2.0)
    assert len(features) == 7
    again = features @ model.weight[0, : features.shape[1]].numpy() + float(model.bias[0])
    np.testing.assert_allclose(again, scores, atol=1e-4)
    assert (scores > -2).all()
    assert (scores.diff() <= 0).all()
    objects = model.objects(windows, torch.zeros(7, dtype=torch.int64))
    assert (box_iou(objects, torch.from_numpy(truth)) < 0.3).all()
    everything = model.scan(image, floor=-2.0)  # no false answer with a higher score was left out
    own = everything.labels == 0
    away = (box_iou(model.objects(everything.boxes, everything.labels), torch.from_numpy(truth)) < 0.3).all(1)
    np.testing.assert_allclose(everything.scores[own & away][:7], scores, atol=1e-6)


def test_D5_mining_adds_negatives(fitted):
    _, log = fitted
    assert log["round 1"]["negatives/0"] > log["round 0"]["negatives/0"]
    assert log["round 0"]["positives/0"] == 16  # eight boxes and their mirrors


def test_D5_learns_shapes(fitted, data):
    model, _ = fitted
    for i in range(8, 12):
        sample = data[i]
        found = model.predict(sample.image, score=0.05)[0]
        assert found.size == (120, 160)
        for box, label in zip(sample.target["boxes"], sample.target["labels"], strict=True):
            best = torch.from_numpy(found.boxes[found.labels == int(label)][:1])
            assert float(box_iou(best, box[None])) > 0.5
        assert ((found.scores >= 0.05) & (found.scores <= 1)).all()
        assert (np.diff(found.scores) <= 0).all()


def test_D5_nms_a_class_and_cap():
    model = hog_svm(2, window=(32, 32), margin=8)
    model.windows[:] = torch.tensor([32.0, 32, 8, 8])
    frame = torch.tensor([[0.0, 0, 32, 32], [1, 0, 33, 32], [0, 0, 32, 32], [64, 64, 96, 96]])
    raw = [Windows(frame, torch.tensor([1.0, 2, 0.5, -0.5]), torch.tensor([0, 0, 1, 0]))]
    geometry = [Geometry((100, 100), (100, 100))]
    out = model.decode(raw, geometry, score=0.1)[0]
    np.testing.assert_allclose(out.boxes, [[9, 8, 25, 24], [8, 8, 24, 24], [72, 72, 88, 88]])  # margins off, 0.88 IoU joined
    assert out.labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(out.scores, 1 / (1 + np.exp([-2, -0.5, 0.5])), rtol=1e-6)
    assert len(model.decode(raw, geometry, score=0.6)[0]) == 2
    assert len(model.decode(raw, geometry, score=0.1, max_detections=1)[0]) == 1
    assert len(model.decode(raw, geometry, score=0.1, iou=0.95)[0]) == 4


def test_D5_state_dict_holds_everything(fitted, data):
    model, _ = fitted
    fresh = hog_svm(2)
    with pytest.raises(UsageError, match="fit it"):
        fresh.predict(data[0].image)
    fresh.load_state_dict(model.state_dict())
    a, b = (m.predict(data[9].image, score=0.1)[0] for m in (model, fresh))
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_D5_same_seed_same_machine(data, fitted):
    again = hog_svm(2, rounds=1)
    again.fit(data.subset(range(8)))
    for name, value in fitted[0].state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_D5_odd_data(data, tmp_path):
    model = hog_svm(3, window=(32, 32), rounds=0, in_chans=1)  # a class without boxes, grey, a broken image, no object
    records = [data.record(i) for i in range(3)] + [
        Record(path="broken.png", image_id="b", boxes=np.array([[0, 0, 9, 9]], np.float32), labels=np.array([0])),
        Record(path="none.png", image_id="n", boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64)),
        Record(path="flat.png", image_id="f", boxes=np.array([[5, 5, 5, 9]], np.float32), labels=np.array([2])),
    ]
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(data.path(data.record(i)).read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("none", "flat"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 40, 3), 99, np.uint8))
    odd = Dataset(DataIndex("test", tmp_path, ["a", "b", "c"], PackedRecords(records)))
    logged = []
    model.fit(odd, log=lambda name, values: logged.append((name, values)))
    assert dict(logged)["windows"]["skipped"] == 1
    for shape in ((120, 160, 3), (7, 5), (1, 300, 3)):
        found = model.predict(np.zeros(shape, np.uint8), score=0.0)[0]
        assert 2 not in found.labels
        assert np.isfinite(found.boxes).all()
    empty = Dataset(DataIndex("test", tmp_path, ["a"], PackedRecords(records[4:5])))
    with pytest.raises(DataError, match="no boxes"):
        hog_svm(1).fit(empty)
    for options in ({"window": (30, 64)}, {"window": (8, 64)}, {"step": 1.0}, {"window": (16, 16)}):
        with pytest.raises(UsageError):
            hog_svm(1, **options)
    with pytest.raises(UsageError, match="people"):
        hog_svm(2, pretrained=True)


def test_linear_svm_is_liblinears():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(1, 1, (30, 5)), rng.normal(-1, 1, (60, 5))
    weight, bias = fit_linear_svm(positives, negatives, c=0.5, positive_weight="balanced", loss="squared_hinge")
    oracle = LinearSVC(C=0.5, dual=False, class_weight={1: 2.0}).fit(np.r_[positives, negatives], [1] * 30 + [0] * 60)
    np.testing.assert_allclose(weight, oracle.coef_[0], rtol=1e-5)
    np.testing.assert_allclose(bias, oracle.intercept_[0], rtol=1e-5)


def test_platt_is_scikit_learns_and_keeps_the_order():
    rng = np.random.default_rng(0)
    scores, truths = np.r_[rng.normal(1, 1, 40), rng.normal(-1, 1, 90)], np.arange(130) < 40
    a, b = fit_platt(scores, truths)
    oracle = _SigmoidCalibration().fit(scores, truths)
    np.testing.assert_allclose([a, b], [-oracle.a_, -oracle.b_], rtol=1e-2)
    assert fit_platt(scores, np.zeros(130, bool)) == (1.0, 0.0)
    assert fit_platt(-scores, truths) == (1.0, 0.0)
    assert np.isfinite(fit_platt(np.array([-1.0, 1.0]), np.array([False, True]))).all()


def test_match_truth_takes_each_box_once():
    truth = np.array([[0, 0, 10, 10]], float)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]], float)
    assert match_truth(boxes, np.array([0.9, 0.5, 0.1]), truth).tolist() == [True, False, False]
    assert match_truth(boxes, np.array([0.1, 0.5, 0.9]), truth).tolist() == [False, True, False]
    assert match_truth(boxes, np.ones(3), np.zeros((0, 4))).tolist() == [False] * 3
