"""saccade check: planted faults are named, clean data give no alarm, costs are those of a run, what cannot learn is told."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import saccade
from saccade.data import faults
from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.records import PackedRecords
from saccade.data.transforms.preprocess import Preprocess
from saccade.engine.bundle import save_bundle
from saccade.models.registry import create_model
from saccade.types.errors import DataError, UsageError
from saccade.workflows.check import check, summary
from saccade.workflows.check_steps import SavedBytes, measure_step

SMALL = {"size": 64, "backbone": "test_resnet.r160_in1k", "width": 16}
SSD = {f"model.{k}": v for k, v in SMALL.items()}
LARGER = SSD | {"model.size": 96}
CELLS = "synthetic:cells?count=28&size=128x80"
DIGITS = "synthetic:shapes?count=28&size=32&task=classify"

FAULTS = {
    "boxes swapped", "boxes normalised twice", "boxes moved", "labels off by one", "label out of range", "channels swapped",
    "image normalised twice", "image not normalised", "image moved", "input is no number", "mask size", "priors do not fit",
    "objects not learnt", "frozen network", "frozen at random", "loss is no number", "does not learn", "class names", "class order",
}  # fmt: skip


def quiet(_):
    pass


def kinds(found):
    return {f.kind: f.level for f in found.findings if f.kind in FAULTS}


def look(model, data, **options):
    return check(model, data, learn=options.pop("learn", False), workers=0, say=quiet, **options)


def changed(source, change, classes=None, task=None):
    """Training data with every record changed."""
    data = load_data(source, "train", task=task)

    def records():
        for record in data.index.records:
            change(record)
            yield record

    index = dataclasses.replace(data.index, records=PackedRecords(records()), classes=classes or data.classes)
    return Dataset(index, data.indices, split="train")


# -- clean data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [CELLS, "synthetic:shapes?count=28&size=96x128&seed=3", "synthetic:cells?count=28&size=128&seed=5"])
def test_X5_check_gives_no_false_alarm_on_clean_boxes(source):
    found = look("ssdlite", source, options=LARGER)
    assert kinds(found) == {}
    assert found.errors == []
    assert found.facts["input"]["order"] == "RGB"
    assert found.facts["input"]["gain"] == pytest.approx(1, abs=0.1)


def test_X5_check_gives_no_false_alarm_on_clean_labels_and_masks():
    assert kinds(look("lenet5", DIGITS)) == {}
    found = look("unet", "synthetic:cells?count=28&size=48x32&task=segment", options={"model.width": 4, "model.size": 32})
    assert kinds(found) == {}
    pixels = found.facts["classes"]
    assert pixels["background"] > pixels["red cell"] > 0
    assert sum(pixels.values()) == 20 * 48 * 32


# -- planted in the data --------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [False, True], ids=["as they are", "clipped by a reader"])
@pytest.mark.parametrize("source", [CELLS, "synthetic:shapes?count=40&size=128x96"])
def test_X5_check_sees_boxes_with_x_and_y_swapped(source, clip):
    def swap(record):
        height, width = record.size
        boxes = record.boxes[:, [1, 0, 3, 2]]
        record.segments = None
        if clip:
            boxes = boxes.clip(0, [width, height, width, height])
            solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, record.labels, record.keypoints = boxes[solid], record.labels[solid], None
        record.boxes = boxes.astype(np.float32)

    found = look("ssdlite", changed(source, swap), options=SSD)
    assert kinds(found)["boxes swapped"] == "error"
    (finding,) = [f for f in found.findings if f.kind == "boxes swapped"]
    assert "x and y were exchanged" in finding.text
    assert "but first look at: " in found.verdict
    assert found.verdict.endswith("boxes swapped")


def test_X5_check_sees_boxes_normalised_twice():
    def divide(record):
        height, width = record.size
        record.boxes = (record.boxes / [width, height, width, height]).astype(np.float32)

    found = look("ssdlite", changed(CELLS, divide), options=SSD)
    assert kinds(found)["boxes normalised twice"] == "error"
    assert "boxes swapped" not in kinds(found)


def shift(record):
    if record.label is not None:
        record.label += 1
    if record.labels is not None:
        record.labels = record.labels + 1


def test_X5_check_sees_labels_off_by_one():
    """Above the last name: an error, before anything is built. With a name too many: the first one is never used."""
    found = look("ssdlite", changed(CELLS, shift), options=SSD)
    assert kinds(found) == {"labels off by one": "error"}
    assert "subtract 1" in found.findings[0].text
    assert "cost" not in found.facts
    names = load_data(CELLS).classes
    found = look("ssdlite", changed(CELLS, shift, ["background", *names]), options=LARGER)
    assert kinds(found) == {"labels off by one": "warning"}
    found = look("lenet5", changed(DIGITS, shift, ["zero", *load_data(DIGITS).classes]))
    assert kinds(found) == {"labels off by one": "warning"}
    found = look("lenet5", changed(DIGITS, shift))
    assert kinds(found) == {"labels off by one": "error"}


def test_X5_check_sees_labels_without_a_name():
    def plant(record):
        record.labels = np.where(np.arange(len(record.labels)) == 0, 7, record.labels)

    found = look("ssdlite", changed(CELLS, plant), options=SSD)
    assert kinds(found) == {"label out of range": "error"}
    assert ": 7" in found.findings[0].examples[0]


def test_X5_check_sees_names_that_differ_in_capitals_only():
    names = ["Cell", "cell ", "other"]
    found = look("ssdlite", changed(CELLS, lambda record: None, names), options=SSD)
    assert kinds(found)["class names"] == "warning"


# -- planted in preprocessing ---------------------------------------------------------------------


class Bgr(Preprocess):
    def image(self, image, geometry):
        return super().image(image, geometry).flip(0)


class Twice(Preprocess):
    def image(self, image, geometry):
        mean, std = torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)
        return (super().image(image, geometry) - mean) / std


class Dark(Preprocess):
    def image(self, image, geometry):
        mean, std = torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)
        return ((super().image(image, geometry) * std + mean) / 255 - mean) / std


class Raw(Preprocess):
    def image(self, image, geometry):
        mean, std = torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)
        return (super().image(image, geometry) * std + mean) * 255


class Transposed(Preprocess):
    def image(self, image, geometry):
        return super().image(image, geometry).transpose(1, 2)


class SwappedBoxes(Preprocess):
    def target(self, target, geometry):
        out = super().target(target, geometry)
        return out | {"boxes": out["boxes"][:, [1, 0, 3, 2]]}


class UnitBoxes(Preprocess):
    def target(self, target, geometry):
        out = super().target(target, geometry)
        return out | {"boxes": out["boxes"] / geometry.canvas[0]}


class ForgottenBoxes(Preprocess):
    def target(self, target, geometry):
        return target


class ShiftedLabels(Preprocess):
    def target(self, target, geometry):
        out = super().target(target, geometry)
        return out | {"labels": (out["labels"] - 1).clamp(0)}


@pytest.mark.parametrize(
    ("faulty", "kind"),
    [
        (Bgr, "channels swapped"), (Twice, "image normalised twice"), (Dark, "image normalised twice"), (Raw, "image not normalised"),
        (Transposed, "image moved"), (SwappedBoxes, "boxes swapped"), (UnitBoxes, "boxes normalised twice"),
        (ForgottenBoxes, "boxes moved"), (ShiftedLabels, "labels off by one"),
    ],
)  # fmt: skip
def test_X5_check_sees_faults_of_preprocessing(faulty, kind):
    model = create_model("ssdlite", 3, **SMALL)
    model.preprocess = faulty(**{f.name: getattr(model.preprocess, f.name) for f in dataclasses.fields(Preprocess)})
    found = look(model, load_data(CELLS, "train"))
    got = kinds(found)
    for consequence in ("objects not learnt", "mask size"):  # boxes in a corner, and a mask that was not resized either
        got.pop(consequence, None)
    assert got == {kind: "error"}


def test_X5_check_says_BGR_and_is_silent_about_grey_images():
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (3, 20, 30)) for _ in range(3)]
    for order in ("RGB", "BGR", "GBR", "RBG"):
        inputs = [image[["RGB".index(c) for c in order]] + random.normal(0, 3, image.shape) for image in images]
        assert faults.rendering(inputs, images).order == order
    grey = [np.repeat(image[:1], 3, 0) for image in images]
    assert faults.rendering(grey, grey).order == ""
    assert faults.rendering([2 * i + 10 for i in images], images) == faults.Rendering("RGB", *(pytest.approx(v) for v in (2, 10, 1)))


# -- planted in the model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("ssdlite320", {"model.size": 128}, {"model.size": 128, "model.smallest": 0.9}),
        (
            "faster_rcnn",
            {"model.anchor_sizes": (6.0, 12.0, 24.0, 48.0, 96.0)},
            {"model.anchor_sizes": (96.0, 128.0, 192.0, 256.0, 512.0)},
        ),
    ],
)
def test_X5_check_sees_priors_far_too_large(name, good, bad):
    tiny = {
        "ssdlite320": {"model.backbone": SMALL["backbone"]},
        "faster_rcnn": {
            "model.backbone": SMALL["backbone"], "model.min_size": 80, "model.max_size": 128, "model.channels": 8,
            "model.head_width": 8, "model.regions": 16,
        },
    }[name]  # fmt: skip
    found = look(name, CELLS, options=tiny | good)
    assert "priors do not fit" not in kinds(found)
    found = look(name, CELLS, options=tiny | bad)
    assert kinds(found)["priors do not fit"] == "error"
    (finding,) = [f for f in found.findings if f.kind == "priors do not fit"]
    assert "too large" in finding.text
    assert found.facts["fit"]["taken"] < 0.2


def test_X5_check_tells_a_size_for_small_objects():
    source, options = "synthetic:cells?count=20&size=160x100", SSD | {"recipe.batch_size": 2}
    found = look("ssdlite", source, options=options)
    (finding,) = [f for f in found.findings if f.kind == "small objects"]
    wanted = int(finding.text.split("model.size=")[1].split()[0])
    found = look("ssdlite", source, options=options | {"model.size": wanted})
    assert found.facts["fit"]["below_8_pixels"] <= 0.11  # a tenth was what the size was chosen for


def frozen(model):
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def cut(model):
    losses = model.losses
    model.losses = lambda images, targets: {k: v.detach() for k, v in losses(images, targets).items()}


def no_number(model):
    losses = model.losses
    model.losses = lambda images, targets: {k: v * float("nan") for k, v in losses(images, targets).items()}


def constant(model):
    losses = model.losses
    model.losses = lambda images, targets: {k: 0 * v + 1 for k, v in losses(images, targets).items()}


def rising(model):
    losses = model.losses
    model.losses = lambda images, targets: {k: 20 - v for k, v in losses(images, targets).items()}


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (frozen, "frozen network"), (cut, "frozen network"), (no_number, "loss is no number"), (constant, "does not learn"),
        (rising, None),
    ],
)  # fmt: skip
def test_X5_check_says_that_a_model_cannot_learn(plant, kind):
    data = load_data(DIGITS, "train")
    model = create_model("lenet5", 5)
    plant(model)
    found = look(model, data, learn=True, steps=25)
    if kind is None:  # a loss that is minimised by being wrong: it falls, the metric does not rise
        assert "metric does not rise" in {f.kind for f in found.findings} or found.facts["overfit"]["after"] < 0.5
        return
    assert kinds(found) == {kind: "error"}
    assert found.verdict == f"lenet5 cannot learn these data as it is: {kind}"


def test_X5_check_sees_a_rate_of_nothing_and_parts_frozen_at_random():
    found = look("lenet5", DIGITS, learn=True, steps=25, options={"recipe.lr": 0.0})
    assert kinds(found) == {"frozen network": "error"}
    assert "recipe.lr is 0" in found.findings[0].text
    model = create_model("lenet5", 5)
    next(model.parameters()).requires_grad_(False)
    assert kinds(look(model, load_data(DIGITS, "train"))) == {"frozen at random": "warning"}


# -- what can learn -------------------------------------------------------------------------------


def test_X5_check_says_that_a_model_can_learn_and_leaves_it_alone(tmp_path):
    model = create_model("lenet5", 5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = look(model, load_data(DIGITS, "train"), learn=True, steps=60, out=tmp_path)
    test = found.facts["overfit"]
    assert found.verdict == "lenet5 can learn these data"
    assert (test["images"], test["metric"]) == (8, "accuracy")
    assert test["after"] > max(test["before"], 0.7)
    assert test["losses"][-1] < 0.5 * test["losses"][0]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert {p.name for p in tmp_path.iterdir()} == {"check.html", "batch.png"}
    page = (tmp_path / "check.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert page.count("<img") == page.count('<img alt="') == 8
    assert Image.open(tmp_path / "batch.png").size[0] > 600
    json.dumps(found.to_dict())
    lines = summary(found)
    assert lines[-1] == found.verdict
    assert any("by heart" in line for line in lines)


def test_X5_check_says_nothing_after_a_few_steps():
    found = look("lenet5", DIGITS, learn=True, steps=3, lr=1e-5)
    assert "not sure" in found.verdict
    assert {f.kind: f.level for f in found.findings}["too few steps"] == "note"


def test_X5_check_asks_models_without_a_batch_what_can_be_asked():
    found = look("hog_svm", "synthetic:shapes?count=28&size=96", learn=True, seconds=30)
    assert found.verdict == "hog_svm can learn these data"
    assert found.facts["overfit"]["after"] > 0.2
    assert "fitted" in found.facts["not_applied"]["batch"]
    found = look("hog_svm", "synthetic:shapes?count=28&size=96", learn=True, seconds=1e-6)
    assert "too few steps" in found.verdict
    tiny = {"model.backbone": SMALL["backbone"], "model.size": 64}
    found = look("rcnn", "synthetic:shapes?count=14&size=64", learn=True, options=tiny)
    assert "stages" in found.facts["not_applied"]["overfit"]
    assert found.errors == []


def test_X5_check_measures_two_players():
    tiny = {"model.width": 4, "model.size": 32, "model.latent": 8, "recipe.batch_size": 8}
    found = look("dcgan", "synthetic:shapes?count=14&size=32", learn=True, options=tiny)
    assert "two players" in found.facts["not_applied"]["overfit"]
    assert found.facts["cost"]["memory"] > 0
    assert kinds(found) == {}


# -- costs ----------------------------------------------------------------------------------------


def test_X5_check_counts_the_bytes_that_are_kept_for_the_way_back():
    """By hand: of relu(x W1) W2 the output of relu (B, H) is kept once, weights and input not counted; exp keeps its result."""
    x, net = torch.randn(6, 5), nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    saved = SavedBytes([*net.parameters(), x])
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda t: t):
        net(x).exp().sum()
    assert saved.total == 4 * (6 * 7 + 6 * 3)


def test_X5_check_counts_weights_gradients_and_optimiser():
    data = load_data(DIGITS, "train")
    numbers = 4 * sum(p.numel() for p in create_model("lenet5", 5).parameters())
    for optimizer, slots in (("adamw", 2), ("sgd", 1)):
        cost = look(create_model("lenet5", 5), data, optimizer=optimizer, batch_size=4).facts["cost"]
        assert cost["gradients"] == numbers
        assert slots * numbers <= cost["optimizer"] < slots * numbers + 200  # and a counter a parameter
    model = create_model("lenet5", 5)
    batch = saccade.types.sample.collate([model.preprocess(data[i]) for i in range(4)])
    recipe = saccade.Recipe(optimizer="sgd", lr=0.1)
    two, eight = measure_step(model, recipe, batch, 2), measure_step(model, recipe, batch, 8)
    assert (two.measured, two.batch, eight.measured, eight.batch) == (2, 2, 4, 8)
    assert eight.kept == pytest.approx(4 * two.kept, rel=0.05)
    assert eight.images == 4 * two.images == 8 * 32 * 32 * 4


def test_X5_check_tells_that_a_step_does_not_fit_into_memory():
    model = create_model("lenet5", 5)

    def losses(images, targets):
        raise torch.OutOfMemoryError("out of memory")

    model.losses = losses
    found = look(model, load_data(DIGITS, "train"), learn=True)
    assert [(f.kind, f.level) for f in found.errors] == [("memory", "error")]
    assert "lower recipe.batch_size" in found.errors[0].text
    assert found.facts.get("overfit") is None


def test_X5_check_tells_more_than_a_night(monkeypatch):
    found = look("lenet5", DIGITS, epochs=1000)
    cost = found.facts["cost"]
    assert cost["total_seconds"] == pytest.approx(1000 * cost["epoch_seconds"])
    assert "long training" not in {f.kind for f in found.findings}
    monkeypatch.setattr("saccade.workflows.check.LONG", 0.5 * cost["total_seconds"] / 3600 / 1000)
    assert {f.kind: f.level for f in look("lenet5", DIGITS, epochs=1000).findings}["long training"] == "warning"


def test_X5_check_bears_data_without_any_box():
    def empty(record):
        record.boxes, record.labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        record.segments = record.keypoints = record.iscrowd = None

    found = look("ssdlite", changed("synthetic:cells?count=10&size=64", empty), options=SSD, learn=True, steps=2)
    assert found.facts["fit"] == {}
    assert kinds(found) == {}


@pytest.mark.slow
def test_X5_check_predicts_the_disk_of_a_run(tmp_path):
    source = "synthetic:shapes?count=28&size=32&task=classify"
    for recipe in ({"epochs": 1, "batch_size": 8}, {"epochs": 1, "batch_size": 8, "optimizer": "adamw", "ema": 0.9}):
        predicted = look("lenet5", source, **recipe).facts["cost"]["disk"]
        run = saccade.train("lenet5", source, out=tmp_path, workers=0, report=False, say=quiet, **recipe)
        written = sum(f.stat().st_size for part in ("checkpoints", "model") for f in (run.folder / part).iterdir())
        assert predicted == pytest.approx(written, rel=0.1)


# -- names, leaks, broken files, wrong use --------------------------------------------------------


def test_X5_check_compares_class_names_with_those_of_weights(tmp_path):
    data = load_data(DIGITS, "train")
    model = create_model("lenet5", 5)
    model.classes = data.classes[::-1]
    save_bundle(model, tmp_path)
    found = look("lenet5", data, weights=str(tmp_path / "model.safetensors"))
    assert kinds(found) == {"class order": "warning"}
    model.classes = [*data.classes[:-1], "something"]
    save_bundle(model, tmp_path)
    assert kinds(look("lenet5", data, weights=str(tmp_path / "model.safetensors"))) == {"class names": "note"}


def test_X5_check_tells_leaks_and_broken_files(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in "ab":
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "data" / "val" / "a" / "0.png").write_bytes((tmp_path / "data" / "train" / "a" / "0.png").read_bytes())
    (tmp_path / "data" / "train" / "b" / "3.png").write_bytes(b"no picture")
    found = look("lenet5", tmp_path / "data", out=tmp_path / "out")
    assert sorted(f.kind for f in found.errors) == ["broken image", "leak"]
    for file in (tmp_path / "data").rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the images looked at can be read"):
        look("lenet5", tmp_path / "data")


def test_X5_check_refuses_wrong_use():
    with pytest.raises(UsageError, match="did you mean 'lenet5'"):
        look("lenet", DIGITS)
    with pytest.raises(UsageError, match=r"no option model\.sise"):
        look("ssdlite", CELLS, options={"model.sise": 3})
    with pytest.raises(UsageError, match="does not apply to a model that is built already"):
        look(create_model("lenet5", 5), DIGITS, options={"model.in_chans": 3})
    with pytest.raises(UsageError, match="steps must be at least 1"):
        look("lenet5", DIGITS, steps=0)
    with pytest.raises(UsageError, match="hold truth for classify"):
        look("ssdlite", DIGITS)


# -- real sets ------------------------------------------------------------------------------------


def test_X5_check_gives_no_false_alarm_on_bccd(real):
    found = look("ssdlite", real("bccd"), options=SSD | {"model.size": 160, "recipe.batch_size": 2})
    assert kinds(found) == {}
    assert found.errors == []
    assert found.facts["boxes"]["contrast"] > 1.25 * found.facts["boxes"]["contrast_transposed"]


def test_X5_check_sees_swapped_boxes_of_bccd(real):
    def swap(record):
        record.boxes = record.boxes[:, [1, 0, 3, 2]].clip(0, [640, 480, 640, 480]).astype(np.float32)

    found = look("hog_svm", changed(real("bccd"), swap))
    assert kinds(found) == {"boxes swapped": "error"}


def test_X5_check_gives_no_false_alarm_on_wbc_and_mnist(real, monkeypatch):
    found = look("unet", real("wbc_segmentation"), options={"model.width": 4, "model.size": 32})
    assert kinds(found) == {}
    monkeypatch.setenv("SACCADE_DATA", str(real("mnist").parent))
    found = look("lenet5", "set:mnist")
    assert kinds(found) == {}
    assert found.errors == []
