"""C21: landmarks by regression, from data to pictures. Oracles: the loss by hand, hand geometry, the format's own reader."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade import testing
from saccade.cli.main import main
from saccade.models.registry import create_model
from saccade.models.transfer import stages
from saccade.report.check_html import Shot, draw_shot
from saccade.report.compare_html import draw, told, true_prediction
from saccade.report.html import goodness
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Landmarks
from saccade.types.recipe import Recipe

TINY = {"size": 32, "width": 4, "hidden": 16}
DATA = "synthetic:shapes?count=24&size=48&task=landmarks"


def targets():
    points = [[[3.0, 4], [20, 30], [0, 0]], [[10, 10], [11, 12], [13, 14]]]
    shown = [[2, 1, 0], [2, 2, 2]]
    made = [{"keypoints": torch.tensor([p]), "visibility": torch.tensor([v])} for p, v in zip(points, shown, strict=True)]
    return [*made, {"keypoints": torch.zeros(0, 3, 2), "visibility": torch.zeros(0, 3, dtype=torch.int64)}]


def wing(x, w=10.0, epsilon=2.0):
    return w * math.log(1 + abs(x) / epsilon) if abs(x) < w else abs(x) - (w - w * math.log(1 + w / epsilon))


LITERAL = {"wing": wing, "l1": abs, "l2": lambda x: x * x, "smooth_l1": lambda x: x * x / 2 if abs(x) < 1 else abs(x) - 0.5}


@pytest.mark.parametrize("loss", LITERAL)
def test_C21_the_loss_is_a_mean_over_labelled_coordinates_in_pixels(loss):
    torch.manual_seed(0)
    model = create_model("landmark_net", 3, **TINY).eval()
    model.configure(Recipe(loss=loss))
    torch.nn.init.normal_(model.points.weight, std=0.3)
    images = torch.randn(3, 3, 32, 32)
    found = (model.raw(images) * 32).tolist()
    values = []
    for image, target in zip(found, targets(), strict=True):
        for k in range(3):
            if len(target["keypoints"]) and target["visibility"][0, k] > 0:
                values += [LITERAL[loss](image[k][axis] - float(target["keypoints"][0, k, axis])) for axis in (0, 1)]
    assert len(values) == 10
    got = model.losses(images, targets())
    assert list(got) == [loss]
    assert float(got[loss].detach()) == pytest.approx(np.mean(values), rel=1e-5)


def test_C21_a_point_without_label_has_no_gradient():
    model = create_model("landmark_net", 3, **TINY)
    model.losses(torch.randn(1, 3, 32, 32), targets()[:1])["wing"].backward()
    rows = model.points.weight.grad.view(3, 2, -1).abs().amax((1, 2))
    assert rows[2] == 0
    assert (rows[:2] > 0).all()
    model.zero_grad()
    loss = model.losses(torch.randn(2, 3, 32, 32), [targets()[2]] * 2)["wing"]
    assert float(loss.detach()) == 0


def test_C21_points_are_pixels_of_the_original_image():
    model = create_model("landmark_net", 2, **TINY)
    (found,) = model.decode(torch.tensor([[[0.5, 0.25], [1.1, -0.1]]]), [Geometry((100, 200), (32, 32))])
    np.testing.assert_allclose(found.points, [[100, 25], [220, -10]], rtol=1e-5)


def test_C21_the_first_guess_is_the_middle():
    (found,) = testing.build("landmark_net").predict(np.full((40, 80, 3), 128, np.uint8))
    assert np.abs(found.points - [40, 20]).max() < 8


@pytest.mark.parametrize("backbone", [None, "test_resnet.r160_in1k"])
def test_C21_transfer_knows_the_backbone(backbone):
    model = create_model("landmark_net", 3, size=64, width=4, hidden=8, backbone=backbone)
    groups = stages(model)
    assert len(groups) >= 4
    assert all(name.startswith("features.backbone.") for group in groups[:-1] for name in group)
    assert {name.rpartition(".")[0] for name in groups[-1]} == {"features.narrow", "features.dense", "points"}
    model.configure(Recipe(transfer="features"))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(groups[-1])


def test_C21_between_names_two_points():
    model = create_model("landmark_net", 3, **TINY, between="left_eye, right_eye")
    model.classes = ["right_eye", "nose", "left_eye"]
    model.configure(Recipe())
    (found,) = model.predict(np.zeros((9, 9, 3), np.uint8))
    assert found.between == (2, 0)
    for between, message in (
        ("left_eye", "name two points"),
        ("nose,nose", "name two points"),
        ("nose,left_ey", "did you mean 'left_eye'"),
    ):
        model.between = between
        with pytest.raises(UsageError, match=message):
            model.configure(Recipe())


def test_C21_what_does_not_apply_is_refused(tmp_path):
    with pytest.raises(UsageError, match="LandmarkNet has no loss 'ce'"):
        create_model("landmark_net", 3, **TINY).configure(Recipe(loss="ce"))
    with pytest.raises(UsageError, match="landmarks needs points"):
        saccade.train("landmark_net", without_points(tmp_path), folder=tmp_path / "run", workers=0)
    with pytest.raises(UsageError, match=r"model\.size=8"):
        create_model("landmark_net", 3, size=8)


def without_points(folder):
    from saccade.data.formats import write_data

    write_data(saccade.load_data("synthetic:shapes?count=6&size=32"), folder / "boxes", "voc")
    return folder / "boxes"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = {f"model.{k}": v for k, v in TINY.items()} | {"recipe.batch_size": 8, "model.width": 8, "model.between": "left,right"}
    folder = tmp_path_factory.mktemp("landmarks") / "run"
    return saccade.train("landmark_net", DATA, folder=folder, epochs=12, options=options, hflip=0.5, workers=0, say=lambda _: None)


def test_C21_learns_and_reports(run):
    rows = list(csv.DictReader((run.folder / "metrics.csv").open()))
    assert float(rows[-1]["train_wing"]) < 0.85 * float(rows[0]["train_wing"])
    assert float(rows[-1]["nme"]) < float(rows[0]["nme"])
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["main"] == "auc"
    assert {"nme", "pck05", "pck10", "rmse", "nme_between", "nme/centre"} <= facts["metrics"].keys()
    assert facts["intervals"]["nme"][0] <= facts["metrics"]["nme"] <= facts["intervals"]["nme"][1]
    page = (run.folder / "report.html").read_text()
    for text in ("Share of the images within an error", "green the truth, red the prediction", "Worst predictions", "pck05"):
        assert text in page
    scores = list(csv.DictReader((run.folder / "scores.csv").open()))
    assert {"name": "nme", "class": "top"}.items() <= next(r for r in scores if r["class"] == "top").items()


def test_C21_the_best_checkpoint_may_go_by_a_falling_number():
    from saccade.tasks.landmarks import LandmarksTask

    model = testing.build("landmark_net")
    for monitor, mode in (("", "max"), ("nme", "min"), ("nme/0", "min"), ("rmse", "min"), ("pck05", "max"), ("val_loss", "min")):
        task = LandmarksTask(model, Recipe(monitor=monitor), steps_per_epoch=1, metric=LandmarksTask.make_metric(["a"]))
        assert task.monitor_mode() == mode, monitor


def test_C21_a_reloaded_run_scores_and_predicts_the_same(run, tmp_path):
    model = saccade.load(run.folder)
    assert model.classes == ["centre", "top", "right", "bottom", "left"]
    scored = saccade.evaluate(run.folder, DATA, split="val", workers=0)
    assert scored["nme"] == pytest.approx(run.metrics["nme"])
    image = saccade.load_data(DATA)[0].image
    one, two = model.predict(image)[0], next(iter(saccade.predict(run.folder, [image])))
    assert one.to_dict() == two.to_dict()
    assert [p["name"] for p in one.to_dict()["points"]] == model.classes
    one.save(tmp_path / "one.json")
    one.save(tmp_path / "one.png")
    assert json.loads((tmp_path / "one.json").read_text())["task"] == "landmarks"


def test_C21_csv_of_predictions_is_a_data_set(run, tmp_path, monkeypatch):
    data = saccade.load_data(DATA)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(data[i].image.permute(1, 2, 0).numpy()).save(photos / f"{i}.png")
    monkeypatch.setattr(
        "sys.argv",
        ["saccade", "predict", str(run.folder), str(photos), "--out", str(photos), "--form", "csv", "--no-draw", "--workers", "0"],
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    rows = list(csv.DictReader((photos / "predictions.csv").open()))
    assert list(rows[0])[:3] == ["path", "centre_x", "centre_y"]
    model = saccade.load(run.folder)
    read = saccade.load_data(photos / "predictions.csv", task="landmarks")
    assert read.classes == model.classes
    for i in range(3):
        (expected,) = model.predict(photos / f"{i}.png")
        np.testing.assert_allclose(read[i].target["keypoints"][0], expected.points, atol=1e-3)


def test_C21_check_says_that_it_can_learn(tmp_path):
    found = saccade.check("landmark_net", DATA, out=tmp_path / "check", options={f"model.{k}": v for k, v in TINY.items()}, steps=30)
    assert "can learn" in found.verdict
    assert found.facts["counted"] == "points"
    assert set(found.facts["classes"]) == {"centre", "top", "right", "bottom", "left"}
    assert (tmp_path / "check" / "batch.png").stat().st_size > 1000
    assert not any(f.kind == "metric does not rise" for f in found.findings)


def test_C21_drawn_points_are_where_they_are_said():
    canvas = np.zeros((60, 80, 3), np.uint8)
    prediction = Landmarks(points=np.array([[20.0, 30], [60, 10], [np.nan, 5]]), classes=["a", "b", "c"], size=(60, 80))
    small, large = (np.asarray(prediction.draw(Image.fromarray(canvas).resize((80 * f, 60 * f)))).max(2) > 0 for f in (1, 4))
    assert small[30, 20]
    assert large[120, 80]
    assert large[40, 240]
    assert not small[50:, :10].any()
    target = {"keypoints": torch.tensor([[[20.0, 30], [60, 10], [0, 0]]]), "visibility": torch.tensor([[2, 2, 0]])}
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    sample = saccade.load_data(DATA)[0]._replace(image=picture, target=target)
    truth = true_prediction(sample, ["a", "b", "c"], "landmarks")
    assert np.isnan(truth.points[2]).all()
    assert goodness(prediction, target) == pytest.approx(1.0)
    assert told(prediction, target) == "mean error 0.0000 of the diagonal"
    assert np.asarray(draw(truth, Image.fromarray(canvas))).max() > 0
    (shot,) = draw_shot(Shot("landmarks", picture.float(), target), ["a", "b", "c"])
    assert np.asarray(shot).max() > 0
