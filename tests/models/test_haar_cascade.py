"""Haar cascade as a detector: OpenCV's classifier as the oracle, planted objects, windows and negatives by hand, bundles."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from saccade import create_model
from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.engine.bundle import load_bundle, save_bundle
from saccade.features.haar import Cascade
from saccade.features.haar_train import false_alarms
from saccade.models.detect.haar_cascade import Found, haar_cascade
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry

FACES = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
SMALL = {"window": 14, "stages": 6, "hit_rate": 0.995, "false_rate": 0.3, "stumps": 10, "features": 250, "others": 250, "step": 1}


def textures(random, shape):
    cell = int(random.integers(4, 12))
    coarse = random.integers(0, 256, (-(-shape[0] // cell), -(-shape[1] // cell)), dtype=np.uint8)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def drawn(random, kind, width, height):
    """Kind 0: two dark eyes over a dark mouth. Kind 1: bright, dark and bright again from left to right, wide."""
    out = np.zeros((40, 40))
    if kind == 0:
        out[8:18, 4:16] = out[8:18, 24:36] = out[28:34, 8:32] = -1
        out[12:26, 18:22] = 1
    else:
        out[:, 13:27] = -1
        out[8:32, 2:11] = out[8:32, 29:38] = 1
    out = random.uniform(90, 160) + random.uniform(30, 70) * out
    return cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA) + random.normal(0, 5, (height, width))


def scene(random):
    image = textures(random, (96, 128))
    boxes = []
    for kind, left in enumerate((4, 60)):
        side = int(random.integers(22, 34))
        width, height = side * (1 + kind), side
        x, y = (
            left + int(random.integers(0, 128 - 60 - width + 1) if kind else random.integers(0, 20)),
            int(random.integers(2, 94 - height)),
        )
        image[y : y + height, x : x + width] = drawn(random, kind, width, height).clip(0, 255)
        boxes.append([x, y, x + width, y + height])
    return np.repeat(image[..., None], 3, 2), np.array(boxes, np.float32), np.array([0, 1])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    random, records = np.random.default_rng(0), []
    for i in range(31):
        image, boxes, labels = scene(random)
        cv2.imwrite(str(root / f"{i}.png"), image)
        records.append(Record(path=f"{i}.png", image_id=str(i), boxes=boxes, labels=labels))
    return Dataset(DataIndex("test", root, ["smile", "bars"], PackedRecords(records), tasks=("detect",)))


@pytest.fixture(scope="module")
def fitted(data):
    model = create_model("haar_cascade", 3, **SMALL)  # the third class has no box
    logged = {}
    model.fit(data.subset(range(20)), log=logged.__setitem__)
    return model, logged


def face_picture():
    """A face as the published cascade knows it: drawn, blurred, on noise."""
    random = np.random.default_rng(1)
    image = random.integers(90, 130, (150, 200), dtype=np.uint8)
    image[30:110, 60:124] = 190
    for x in (70, 98):
        cv2.rectangle(image, (x, 52), (x + 16, 60), 60, -1)
    cv2.rectangle(image, (88, 60), (95, 80), 215, -1)
    cv2.rectangle(image, (76, 88), (108, 95), 90, -1)
    return cv2.GaussianBlur(image, (0, 0), 2.5)


@pytest.mark.parametrize("name", ["frontalface", "eye", "fullbody", str(FACES)])
def test_D6_a_published_file_needs_no_fitting_and_equals_opencv(name, real):
    stem = {"frontalface": "frontalface_default"}.get(name, name)
    oracle = cv2.CascadeClassifier(name if name.endswith(".xml") else str(FACES.parent / f"haarcascade_{stem}.xml"))
    picture = np.array(Image.open(real("dlib_faces") / "2007_007763.jpg").convert("RGB"))
    if name == "eye":  # larger ones
        picture = cv2.resize(np.array(Image.open(real("orl_faces") / "s1" / "1.pgm").convert("RGB")), None, fx=2, fy=2)
    boxes, counts = oracle.detectMultiScale2(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), scaleFactor=1.2, minNeighbors=1)
    model = create_model("haar_cascade", num_classes=1, cascade=name, scale=1.2, neighbors=1)
    (prediction,) = model.predict(picture, score=0.0, iou=1.0)
    assert len(prediction) == len(boxes)
    assert len(boxes) or name == "fullbody"  # nobody stands in the picture
    expected = {(x, y, x + w, y + h): n / (n + 1) for (x, y, w, h), n in zip(np.reshape(boxes, (-1, 4)).tolist(), counts, strict=True)}
    got = {tuple(box): score for box, score in zip(prediction.boxes.tolist(), prediction.scores.tolist(), strict=True)}
    assert got == pytest.approx(expected)
    assert (prediction.labels == 0).all()
    assert model.classes == [Path(name).stem]


def test_D6_a_drawn_face_equals_opencvs_answer():
    image = face_picture()
    boxes, counts = cv2.CascadeClassifier(str(FACES)).detectMultiScale2(image, scaleFactor=1.1, minNeighbors=1)
    (prediction,) = haar_cascade(pretrained=True, neighbors=1).predict(image, score=0.0, iou=1.0)
    assert len(boxes)
    order = np.lexsort(prediction.boxes.T)
    expected = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    np.testing.assert_array_equal(prediction.boxes[order], expected[np.lexsort(expected.T)])
    assert sorted(prediction.scores) == pytest.approx(sorted(counts / (counts + 1)))


def test_D6_a_trained_cascade_finds_objects_of_two_shapes(fitted, data):
    model, logged = fitted
    assert set(logged) == {"class 0", "class 1"}
    assert logged["class 0"]["objects"] == 20 * 3
    assert model.frames[:, 1].tolist() == pytest.approx([1, 2, 0], abs=0.05)
    hits = others = 0
    for i in range(20, 26):
        sample = data[i]
        (found,) = model.predict(sample.image)
        assert 2 not in found.labels
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.scores >= 0.5) & (found.scores < 1)).all()
        for box, label in zip(sample.target["boxes"], sample.target["labels"], strict=True):
            best = torch.from_numpy(found.boxes[found.labels == int(label)][:1])
            hits += bool((box_iou(best, torch.as_tensor(box)[None]) > 0.5).any())
        others += len(found) - 2
    assert hits >= 11  # of 12: the best answer of a class is the object
    assert others <= 6 * 4


def test_D6_a_bundle_holds_the_trained_cascades(fitted, data, tmp_path):
    model, _ = fitted
    model.classes = ["smile", "bars", "none"]
    save_bundle(model, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "model.json"}
    a, b = (m.predict(data[30].image)[0] for m in (model, load_bundle(tmp_path)))
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert a.classes == b.classes == ["smile", "bars", "none"]


def test_D6_a_seed_repeats_the_training(data):
    options = SMALL | {"stages": 2, "stumps": 3, "features": 60, "others": 60}
    models = [haar_cascade(2, **options) for _ in range(3)]
    for model, seed in zip(models, (4, 4, 5), strict=True):
        model.fit(data.subset(range(4)), seed=seed)
    first, again, other = (model.state_dict() for model in models)
    for name, value in first.items():
        assert torch.equal(again[name], value), name
    assert not torch.equal(first["features"], other["features"])


def test_D6_a_bundle_holds_the_named_file(tmp_path):
    mine = tmp_path / "mine.xml"
    mine.write_bytes(FACES.read_bytes())
    model = create_model("haar_cascade", cascade=str(mine), neighbors=1)
    save_bundle(model, tmp_path / "bundle")
    mine.unlink()
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.classes == ["mine"]
    assert str(tmp_path) not in json.dumps(json.loads((tmp_path / "bundle" / "model.json").read_text()))
    image = face_picture()
    np.testing.assert_array_equal(loaded.predict(image)[0].boxes, model.predict(image)[0].boxes)
    assert len(model.predict(image)[0])


def test_D6_a_file_is_not_fitted_again_and_npz_works(fitted, data, tmp_path):
    faces = haar_cascade(cascade="face")
    before = faces.xml.clone()
    faces.fit(data.subset(range(2)))
    assert torch.equal(faces.xml, before)
    cascade = fitted[0].cascade(0)
    cascade.save(tmp_path / "smile.npz")
    model = haar_cascade(cascade=str(tmp_path / "smile.npz"))
    again = model.cascade(0)
    for name in ("features", "thresholds", "signs", "weights", "ends", "least"):
        np.testing.assert_array_equal(getattr(again, name), getattr(cascade, name))
    assert model.predict(data[30].image)[0].classes == ["smile"]
    assert fitted[0].cascade(2) is None


def test_D6_windows_are_squares_about_the_objects():
    model = haar_cascade(1, margin=0.25)
    model.frames[0, 1] = 2.0  # objects twice as wide as high: the image is halved across
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100), dtype=np.uint8)
    squeezed, factors = model.squeeze(pixels, 0)
    assert squeezed.shape == (60, 50)
    assert factors.tolist() == [0.5, 1, 0.5, 1]
    (square,) = model.squares(np.array([[20.0, 10, 60, 30]]) * factors)
    assert square.tolist() == [5, 5, 35, 35]  # 20 x 20 and a quarter of it on each side
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(model.cut(squeezed, square, rng, 0), squeezed[5:35, 5:35])
    moved = model.cut(squeezed, square, rng, 1)
    assert abs(len(moved) - 30) <= 2
    outside = model.cut(squeezed, np.array([-3.0, -3, 7, 7]), rng, 0)
    assert (outside[:4, :4] == squeezed[0, 0]).all()
    np.testing.assert_array_equal(outside[3:, 3:], squeezed[:7, :7])


def test_D6_no_negative_lies_on_an_object():
    """In a picture little higher than the window, whose grey value tells the place: 4 x."""
    picture = np.tile((4 * np.arange(60) + 2).astype(np.uint8), (14, 1))
    none = np.zeros(0, np.float32)
    passes_all = Cascade(12, np.zeros((0, 5), np.int16), none, none.astype(np.int8), none, np.zeros(0, np.int64), none)

    def distances(avoid):
        found = false_alarms(passes_all, [picture], [avoid], 400, np.random.default_rng(0))
        return np.abs(found.mean((1, 2)) / 4 - 27)

    free, away = distances(np.zeros((0, 4))), distances(np.array([[20, 0, 34, 14]]))  # the object's middle is at 27
    assert (free < 5).sum() > 10
    assert away.min() > 5
    assert (away < 9).any()  # windows that it only reaches into are negatives
    assert (away > 12).sum() > 10


def test_D6_votes_become_scores_and_overlaps_are_joined():
    model = haar_cascade(2, neighbors=3)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [-5, 20, 10, 40]])
    raw = [Found(boxes, torch.tensor([3.0, 9, 3, 27]), torch.tensor([0, 0, 1, 0]))]
    (found,) = model.decode(raw, [Geometry((40, 40), (40, 40))])
    assert found.boxes.tolist() == [[0, 20, 10, 40], [1, 0, 11, 10], [0, 0, 10, 10]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.75, 0.5])
    assert found.labels.tolist() == [0, 0, 1]
    assert len(model.decode(raw, [Geometry((40, 40), (40, 40))], score=0.6)[0]) == 2
    assert len(model.decode(raw, [Geometry((40, 40), (40, 40))], max_detections=1)[0]) == 1
    assert len(model.decode(raw, [Geometry((40, 40), (40, 40))], iou=0.95)[0]) == 4


def test_D6_odd_data(data, tmp_path):
    records = [data.record(i) for i in range(3)] + [
        Record(path="broken.png", image_id="b", boxes=np.array([[0, 0, 9, 9]], np.float32), labels=np.array([0])),
        Record(path="none.png", image_id="n", boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64)),
        Record(path="tiny.png", image_id="t", boxes=np.array([[1, 1, 1, 4]], np.float32), labels=np.array([1])),
    ]
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(data.path(data.record(i)).read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "none.png"), np.full((40, 40, 3), 99, np.uint8))
    cv2.imwrite(str(tmp_path / "tiny.png"), np.full((6, 6, 3), 99, np.uint8))
    odd = Dataset(DataIndex("test", tmp_path, ["a", "b"], PackedRecords(records)))
    model, logged = haar_cascade(2, in_chans=1, window=12, stages=2, stumps=3, features=40, others=40), {}
    model.fit(odd, log=logged.__setitem__)
    assert logged["class 0"]["skipped"] == 1
    for shape in ((96, 128, 3), (7, 5), (1, 300, 3)):
        assert np.isfinite(model.predict(np.zeros(shape, np.uint8))[0].boxes).all()
    with pytest.raises(DataError, match="no boxes"):
        haar_cascade(1).fit(Dataset(DataIndex("test", tmp_path, ["a"], PackedRecords(records[4:5]))))


def test_D6_wrong_options_are_said(tmp_path):
    for options, words in (
        ({"window": 4}, r"model\.window lies in 8\.\.64"),
        ({"hit_rate": 0.2}, "hit_rate"),
        ({"scale": 1.0}, "scale"),
        ({"neighbors": 0}, "neighbors"),
        ({"copies": 0}, "copies"),
        ({"margin": -0.1}, "margin"),
        ({"cascade": "frontalfaces"}, "did you mean 'frontalface'"),
    ):
        with pytest.raises(UsageError, match=words):
            create_model("haar_cascade", 1, **options)
    with pytest.raises(UsageError, match="one kind of object"):
        haar_cascade(2, cascade="eye")
    with pytest.raises(UsageError, match="fit it"):
        haar_cascade(1).predict(np.zeros((30, 30), np.uint8))
    with pytest.raises(DataError, match="does not exist"):
        haar_cascade(cascade=str(tmp_path / "none.xml"))
    (tmp_path / "bad.xml").write_text("<opencv_storage></opencv_storage>")
    with pytest.raises(DataError, match="no cascade of OpenCV"):
        haar_cascade(cascade=str(tmp_path / "bad.xml"))
