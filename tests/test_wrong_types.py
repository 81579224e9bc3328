"""Wrong types and odd images through the Python interface: a UsageError that says what is wanted, never another error."""

import itertools
import os
import stat
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade import DataError, UsageError
from saccade.data.dataset import as_tensor_image
from saccade.data.images import read_image
from saccade.types.prediction import Classification, Detection, Segmentation
from saccade.workflows.predict import Writer

GREY = torch.zeros(1, 28, 28, dtype=torch.uint8)


@pytest.fixture(scope="module")
def model():
    return saccade.create_model("lenet5", 3)


@pytest.mark.parametrize("images", [None, 5, b"x.png", np.zeros((0, 60, 3), np.uint8), [None], [[1, 2]], np.zeros((9, 9)), object()])
def test_what_is_no_image_is_named(model, images):
    with pytest.raises(UsageError, match="image"):
        list(saccade.predict(model, images))
    with pytest.raises(UsageError, match="image"):
        model.predict(images)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "8"}, "batch_size"),
        ({"max_detections": -1}, "max_detections"),
        ({"max_detections": 1.5}, "max_detections"),
        ({"score": float("nan")}, "score"),
        ({"score": "high"}, "score"),
        ({"iou": 2}, "iou"),
    ],
)
def test_settings_out_of_range(model, setting, says):
    with pytest.raises(UsageError, match=says):
        saccade.predict(model, GREY, **setting)
    if "batch_size" not in setting:
        with pytest.raises(UsageError, match=says):
            model.predict(GREY, **setting)


def test_wrong_arguments_of_the_other_verbs(tmp_path, monkeypatch):
    for source in (None, 5):
        with pytest.raises(UsageError, match=f"not {type(source).__name__}"):
            saccade.load_data(source)
        with pytest.raises(UsageError, match=f"not {type(source).__name__}"):
            saccade.predict(source, GREY)
        with pytest.raises(UsageError, match="name of a model"):
            saccade.create_model(source)
    for classes in ("3", 3.0, True):
        with pytest.raises(UsageError, match="num_classes"):
            saccade.create_model("lenet5", classes)
    assert saccade.create_model("lenet5", np.int64(3)).build_options["num_classes"] == 3
    with pytest.raises(UsageError, match="pretrained"):
        saccade.create_model("lenet5", 3, pretrained="yes")
    with pytest.raises(UsageError, match="weights"):
        saccade.create_model("lenet5", 3, weights=5)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "x.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="'': does not exist"):
        saccade.load_data("")  # not the current folder
    assert len(saccade.load_data(".")) == 2


def test_no_images_give_no_predictions(model):
    assert model.predict([]) == []
    assert list(saccade.predict(model, [])) == []
    assert list(saccade.predict(model, iter([]))) == []


def test_long_lists_are_predicted_in_parts(model, monkeypatch):
    sizes, run = [], model.predict_batch
    monkeypatch.setattr(model, "predict_batch", lambda images, *a, **k: sizes.append(len(images)) or run(images, *a, **k))
    images = [torch.full((1, 28, 28), k, dtype=torch.uint8) for k in range(40)]
    assert [int(p.image[0, 0, 0]) for p in model.predict(images)] == list(range(40))
    assert sizes == [16, 16, 8]


def test_an_endless_stream_of_images_is_predicted_as_it_comes(model):
    taken = []

    def camera():
        for k in itertools.count():
            taken.append(k)
            yield GREY.numpy()[0]

    stream = saccade.predict(model, camera(), batch_size=2)
    assert [next(stream).label for _ in range(4)] == [model.predict(GREY)[0].label] * 4
    assert len(taken) <= 5


def test_names_and_images_may_stand_in_one_list(model, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "x.png")
    for given in ([tmp_path / "x.png", GREY], iter([tmp_path / "x.png", GREY])):
        assert [p.path for p in saccade.predict(model, given)] == [str(tmp_path / "x.png"), ""]


# ------------------------------------------------------------------------------------------------------- Pillow images


def pillow(mode):
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 255, (12, 20, 3), dtype=np.uint8))
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 65535, (12, 20), dtype=np.uint16))
    return rgb.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"), ("L", "png"), ("P", "png"), ("P", "gif"), ("1", "png"), ("LA", "png"), ("RGBA", "png"), ("I;16", "png"),
        ("CMYK", "tif"), ("YCbCr", "jpg"),
    ],
)  # fmt: skip
def test_a_pillow_image_has_the_pixels_of_its_file(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    pillow(mode).save(path)
    with Image.open(path) as opened:
        torch.testing.assert_close(as_tensor_image(opened), read_image(path).as_subclass(torch.Tensor), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_pillow_image_is_turned_as_its_exif_says(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    image = pillow("RGB")
    image.getexif()[0x0112] = 6
    image.save(path, exif=image.getexif())
    with Image.open(path) as opened:
        tensor = as_tensor_image(opened)
    assert tensor.shape == (3, 20, 12)
    torch.testing.assert_close(tensor, read_image(path).as_subclass(torch.Tensor), rtol=0, atol=0)


def test_pillow_images_that_are_no_file():
    hsv = pillow("HSV")
    np.testing.assert_array_equal(as_tensor_image(hsv).numpy(), np.moveaxis(np.asarray(hsv.convert("RGB")), -1, 0))
    palette = pillow("P")
    palette.info["transparency"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_tensor_image(palette)
    assert palette.info["transparency"] == 0  # the caller's image stays as it is
    with pytest.raises(DataError, match="floating-point"):
        as_tensor_image(pillow("F"))
    with pytest.raises(DataError, match="has no pixels"):
        as_tensor_image(Image.new("RGB", (0, 5)))


def test_read_only_arrays_are_copied():
    array = np.zeros((6, 5), np.uint8)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor_image(array)
    assert tensor.shape == (1, 6, 5)


# --------------------------------------------------------------------------------------------------------- predictions


def test_written_scores_read_back_as_the_same_float32():
    scores = np.random.default_rng(0).random(1000, dtype=np.float32)
    found = Detection(boxes=np.zeros((1000, 4), np.float32), labels=np.zeros(1000, np.int64), scores=scores)
    np.testing.assert_array_equal(np.array([o["score"] for o in found.to_dict()["objects"]], np.float32), scores)
    one = Classification(scores=scores[:3])
    np.testing.assert_array_equal(np.array([t["score"] for t in one.to_dict()["top"]], np.float32), np.sort(scores[:3])[::-1])


def test_saved_files_have_the_mode_of_the_umask(tmp_path):
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    one = Segmentation(mask=np.eye(20, dtype=np.uint8), classes=["bg", "x"], size=(20, 20), image=image)
    old = os.umask(0o027)
    try:
        files = [one.save(tmp_path / "x.json"), one.save(tmp_path / "x.PNG"), one.save_mask(tmp_path / "m" / "x.png")]
    finally:
        os.umask(old)
    assert [stat.S_IMODE(f.stat().st_mode) for f in files] == [0o640] * 3
    for name in ("x", "x.html"):
        with pytest.raises(UsageError, match=r"\.png"):
            one.save(tmp_path / "no" / name)
    assert not (tmp_path / "no").exists()


def drawn(path, size=(30, 30)):
    return Classification(scores=np.ones(1, np.float32), path=str(path), size=size, image=torch.zeros(3, *size, dtype=torch.uint8))


def test_drawn_pictures_have_names_of_their_own(tmp_path):
    paths = ["s1/x-3.png", "s2/x.png", "s3/x.png", "s4/X.png"]
    Writer(tmp_path).write_all(map(drawn, paths))
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.mark.parametrize("known", [True, False])
def test_drawn_pictures_never_replace_an_image(tmp_path, known):
    photos = [tmp_path / "Z" / "a.png", tmp_path / "a.png"]
    for photo in photos:
        photo.parent.mkdir(exist_ok=True)
        photo.write_bytes(b"mine")
    order = photos if known else photos[::-1]
    with pytest.raises(UsageError, match="would overwrite"):
        Writer(tmp_path / "Z" / "..", inputs=map(str, photos) if known else ()).write_all(map(drawn, order))
    assert [p.read_bytes() for p in photos] == [b"mine"] * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Z", "a.png"]


@pytest.mark.parametrize("form", Writer.FORMS)
def test_file_names_that_are_no_text_are_written(tmp_path, form):
    found = Detection(
        boxes=np.ones((1, 4), np.float32), labels=np.zeros(1, np.int64), scores=np.ones(1, np.float32),
        path=os.fsdecode(b"caf\xe9.png"), size=(9, 9),
    )  # fmt: skip
    writer = Writer(tmp_path, form, draw=False)
    assert writer.write_all([found]) == 1
    if form != "coco":
        assert "caf\\udce9.png" in writer.file.read_text(encoding="utf-8")


def test_every_error_is_one_line():
    assert str(UsageError("a\nb")) == "a b"
    assert "\n" not in str(saccade.SaccadeError("x\r\ny"))


# ---------------------------------------------------------------------------------------------------------------- data


def test_the_task_settles_what_is_drawn():
    data = saccade.load_data("synthetic:shapes?count=4&size=32", task="segment")
    assert data.classes[0] == "background"
    assert "task=segment" in str(data.index.root)  # the name alone gives the same data again
    assert str(saccade.load_data("synthetic:shapes", task="detect").index.root) == "synthetic:shapes"
    assert saccade.load_data("synthetic:shapes", task="classify").tasks[0] == "classify"
    with pytest.raises(UsageError, match="hold truth for classify, caption, not for segment"):
        saccade.load_data("synthetic:shapes?task=classify", task="segment")


def test_yolo_class_names_are_made_unique(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "x.png")
    (tmp_path / "labels" / "x.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text('names: ["0", "0", "0 (1)", b]\n')
    data = saccade.load_data(tmp_path)
    assert data.classes == ["0 (0)", "0 (1) (1)", "0 (1)", "b"]
    assert any("one name" in str(p) for p in data.index.problems)
