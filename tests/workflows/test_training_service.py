"""C19: learning-rate finder, balanced sampling, early stopping, plateau, top losses, temperature, test-time views."""

import csv
import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import WeightedRandomSampler
from typer.testing import CliRunner

import saccade
from saccade.cli.main import app
from saccade.engine.bundle import load_bundle, save_bundle, set_temperature
from saccade.engine.loaders import TrainSampler
from saccade.engine.lr_finder import steepest
from saccade.metrics.classification import ClassificationMetric, top_losses
from saccade.metrics.temperature import fit_temperature
from saccade.models.classify.base import with_views
from saccade.testing import batch, build, picture
from saccade.types.prediction import Classification
from saccade.workflows.train import find_lr

SMALL = {"recipe.batch_size": 8, "recipe.epochs": 6, "recipe.rotate": 0.0, "recipe.scale": 0.0, "recipe.translate": 0.0}


@pytest.fixture(scope="session")
def bars(tmp_path_factory):
    """Horizontal and vertical bars under noise; splits train, val and test, two of three images horizontal."""
    root = tmp_path_factory.mktemp("bars")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 6), ("test", 6)):
        for name, times in (("flat", 2), ("tall", 1)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count * times):
                image = random.integers(0, 200, (28, 28)).astype(np.uint8)
                at = random.integers(6, 22)
                if name == "flat":
                    image[at : at + 2] = 220
                else:
                    image[:, at : at + 2] = 220
                Image.fromarray(image).save(folder / f"{i}.png")
    return root


def train(data, folder, **options):
    return saccade.train("lenet5", data, folder=folder, options=SMALL | options, workers=0, report=False, say=lambda _: None)


@pytest.fixture(scope="session")
def run(bars, tmp_path_factory):
    return train(bars, tmp_path_factory.mktemp("runs") / "run").folder


def command(*arguments):
    """What the command line gives; an error of saccade is raised."""
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False, env={"COLUMNS": "200"})


# -- learning-rate finder -------------------------------------------------------------------------


def test_C19_the_suggestion_is_the_steepest_fall_over_the_logarithm():
    """A loss that is a falling logistic of log10(rate) is steepest at its middle; then it explodes."""
    rates = np.geomspace(1e-6, 10, 100)
    for middle in (-4.0, -2.5):
        x = np.log10(rates)
        losses = 0.5 + 2 / (1 + np.exp(4 * (x - middle))) + 20 * np.clip(x + 0.5, 0, None) ** 2
        smooth, suggestion = steepest(rates, losses)
        assert abs(math.log10(suggestion) - middle) <= 7 / 99  # a step of the grid
        assert len(smooth) == 100
    assert math.isnan(steepest(rates, np.linspace(1, 3, 100))[1])
    assert math.isnan(steepest(rates[:2], [2.0, 1.0])[1])


def test_C19_find_lr_writes_a_curve_and_trains_nothing(bars, tmp_path):
    said = []
    found = find_lr("lenet5", bars, out=tmp_path, steps=40, options=SMALL | {"recipe.optimizer": "sgd"}, workers=0, say=said.append)
    folder = tmp_path / "lenet5-lr-001"
    assert {path.name for path in folder.iterdir()} == {"lr_finder.csv", "lr_finder.png"}
    rows = list(csv.DictReader((folder / "lr_finder.csv").open()))
    rates = np.array([float(row["lr"]) for row in rows])
    assert len(rates) <= 40
    assert rates[0] == pytest.approx(1e-6)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 1e7 ** (1 / 39), rtol=1e-9)
    losses = np.array([float(row["loss"]) for row in rows])
    assert losses[:10] == pytest.approx(math.log(2), abs=0.35)  # two classes, nothing learnt yet
    assert rates[0] < found.suggestion < 10
    assert f"recipe.lr={found.suggestion:.2g}" in said[-1]
    assert Image.open(folder / "lr_finder.png").size[0] > 400


def test_C19_the_finder_keeps_the_rates_of_the_stages_apart(bars, tmp_path, monkeypatch):
    from saccade.engine import lr_finder

    seen = []
    original = lr_finder._Rise.on_train_batch_start

    def spy(rise, trainer, *rest):
        original(rise, trainer, *rest)
        seen.append(sorted({group["lr"] for group in trainer.optimizers[0].param_groups}))

    monkeypatch.setattr(lr_finder._Rise, "on_train_batch_start", spy)
    find_lr("lenet5", bars, folder=tmp_path, steps=12, options=SMALL | {"recipe.layer_decay": 0.5}, workers=0, say=lambda _: None)
    assert np.allclose(np.array(seen[3]) / seen[3][-1], [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    assert seen[3][-1] == pytest.approx(1e-6 * 1e7 ** (3 / 11))


def test_C19_a_rate_cannot_be_found_for_fitted_models(bars, tmp_path):
    with pytest.raises(saccade.UsageError, match="no rate to find"):
        find_lr("knn", bars, folder=tmp_path / "x")
    with pytest.raises(saccade.UsageError, match="takes its model and data from the run"):
        command("train", "--resume", tmp_path, "--find-lr")


# -- balanced sampling ----------------------------------------------------------------------------


def test_C19_balanced_sampling_draws_as_torchs_weighted_sampler():
    labels = [0] * 90 + [1] * 9 + [2]
    sampler = TrainSampler(100, 10, seed=3, labels=labels)
    sampler.set_epoch(2)
    drawn = [i for numbers in sampler for _, i in numbers]
    chances = [1 / labels.count(label) for label in labels]
    oracle = WeightedRandomSampler(chances, 100, generator=torch.Generator().manual_seed(3 * 1_000_003 + 2))
    assert drawn == list(oracle)
    sampler = TrainSampler(100, 10, seed=0, labels=labels)
    counts = np.zeros(3)
    for epoch in range(60):
        sampler.set_epoch(epoch)
        counts += np.bincount([labels[i] for numbers in sampler for _, i in numbers], minlength=3)
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=4 * math.sqrt(2 / 9 / 6000))  # four standard deviations


def test_C19_balanced_sampling_is_shared_out_and_resumed():
    labels = [0] * 40 + [1] * 8
    whole = [sorted(numbers) for numbers in TrainSampler(48, 8, seed=1, labels=labels)]
    parts = [list(TrainSampler(48, 8, seed=1, rank=rank, world=2, labels=labels)) for rank in (0, 1)]
    assert whole == [sorted(a + b) for a, b in zip(*parts, strict=True)]
    late = TrainSampler(48, 8, seed=1, labels=labels)
    late.resume(0, 4)
    assert [sorted(numbers) for numbers in late] == whole[4:]


def test_C19_balanced_sampling_through_a_run(bars, tmp_path, monkeypatch):
    from saccade.tasks.classify import ClassifyTask

    labels = []
    original = ClassifyTask.training_step
    monkeypatch.setattr(
        ClassifyTask, "training_step", lambda t, b, i: labels.extend(int(x["label"]) for x in b.targets) or original(t, b, i)
    )
    train(bars, tmp_path / "plain")
    assert np.mean(labels) == pytest.approx(1 / 3, abs=0.01)  # 16 flat, 8 tall
    labels.clear()
    train(bars, tmp_path / "balanced", **{"recipe.balanced_sampling": True})
    assert np.mean(labels) == pytest.approx(1 / 2, abs=4 * 0.5 / math.sqrt(len(labels)))
    with pytest.raises(saccade.UsageError, match="balanced_sampling is for classification"):
        saccade.train(
            "ssdlite", "synthetic:shapes?count=8", folder=tmp_path / "d", options={"recipe.balanced_sampling": True}, say=lambda _: None
        )


# -- early stopping, plateau, the best ------------------------------------------------------------


def test_C19_early_stopping_counts_from_the_last_real_improvement_and_restores_the_best(bars, tmp_path):
    options = {"recipe.epochs": 40, "recipe.patience": 3, "recipe.min_delta": 0.02, "recipe.monitor": "val_loss", "recipe.lr": 3e-3}
    done = train(bars, tmp_path / "run", **options)
    losses = [row["val_loss"] for row in done.history]

    def stops(patience, least):  # Keras' EarlyStopping, by its definition
        best, waited = math.inf, 0
        for epoch, value in enumerate(losses):
            if value < best - least:
                best, waited = value, 0
            else:
                waited += 1
            if waited >= patience:
                return epoch + 1
        return None

    assert len(losses) == stops(3, 0.02) < 40
    assert min(losses) < losses[-1]
    model = done.model
    total = 0.0
    data = saccade.load_data(bars, "val")
    for i in range(len(data)):
        prediction = model.predict(data[i].image)[0]
        total -= math.log(prediction.scores[int(data[i].target["label"])]) / len(data)
    assert total == pytest.approx(min(losses), rel=1e-4)  # the best weights are back, not the last


def test_C19_a_gain_below_min_delta_is_none(bars, tmp_path):
    options = {"recipe.monitor": "val_loss", "recipe.optimizer": "sgd", "recipe.lr": 1e-3, "recipe.schedule": "constant"}
    options |= {"recipe.epochs": 5, "recipe.patience": 2}
    whole = [row["val_loss"] for row in train(bars, tmp_path / "whole", **options).history]
    assert len(whole) == 5
    assert all(b < a for a, b in itertools.pairwise(whole))  # it falls all the way, by little
    assert whole[0] - whole[-1] < 0.5
    assert len(train(bars, tmp_path / "cut", **options, **{"recipe.min_delta": 0.5}).history) == 3


def test_C19_reduce_on_plateau_is_torchs(bars, tmp_path):
    options = {
        "recipe.epochs": 8, "recipe.schedule": "plateau", "recipe.plateau_patience": 1, "recipe.lr_gamma": 0.5,
        "recipe.monitor": "val_loss", "recipe.lr": 0.05,
    }  # fmt: skip
    rows = train(bars, tmp_path / "run", **options).history
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.05)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    expected = []
    for row in rows:
        expected.append(optimizer.param_groups[0]["lr"])
        oracle.step(row["val_loss"])
    assert [row["lr"] for row in rows] == pytest.approx(expected)
    assert expected[-1] < 0.05


# -- top losses -----------------------------------------------------------------------------------


def test_C19_top_losses_are_minus_log_p_of_the_truth():
    metric = ClassificationMetric(["a", "b"])
    scores = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1.0, 0.0]]
    labels = [1, 1, 0, 1]
    metric.update(
        [Classification(scores=np.array(row, dtype=np.float32)) for row in scores],
        [{"label": label, "image_id": str(i)} for i, label in enumerate(labels)],
    )
    images = metric.tables()["images"]
    oracle = nn.functional.nll_loss(torch.tensor(scores).clamp_min(1e-45).log(), torch.tensor(labels), reduction="none")
    assert [image["loss"] for image in images] == pytest.approx(oracle.tolist(), rel=1e-5)
    assert [image["image_id"] for image in top_losses(images, 3)] == ["3", "0", "2"]


def test_C19_the_command_line_shows_them_and_the_report_begins_with_them(bars, run, tmp_path):
    told = json.loads(command("eval", run, bars, "--json", "--top-losses", 3, "--workers", 0).stdout)
    assert told.keys() >= {"accuracy", "top_losses"}
    losses = [image["loss"] for image in told["top_losses"]]
    assert len(losses) == 3
    assert losses == sorted(losses, reverse=True)
    text = command("eval", run, bars, "--top-losses", 2, "--workers", 0).stdout
    assert f"{losses[0]:.4f}" in text
    assert " -> " in text
    reported = saccade.train(
        "lenet5", bars, folder=tmp_path / "run", options=SMALL | {"recipe.epochs": 1}, workers=0, say=lambda _: None
    ).folder
    page = (reported / "report.html").read_text()
    model, data = saccade.load(reported), saccade.load_data(bars, "val")
    truth = [float(model.predict(data[i].image)[0].scores[int(data[i].target["label"])]) for i in range(len(data))]
    worst = page.index("Worst predictions")
    assert f"{min(truth):.3f}" in page[worst : page.index("figcaption>", page.index("<figcaption", worst)) + 10]
    assert "Misclassified" in page


# -- temperature ----------------------------------------------------------------------------------


def test_C19_the_temperature_divides_the_logits_and_travels_with_the_bundle(tmp_path):
    model = build("lenet5").eval()
    image = picture((40, 40))
    before = model.predict(image)[0].scores
    model.temperature = 2.5
    cooled = model.predict(image)[0].scores
    logits = model.raw(model.preprocess(saccade.testing.Sample(image, {}))[0][None]).detach()[0]
    torch.testing.assert_close(torch.from_numpy(cooled), (logits / 2.5).softmax(0))
    assert cooled.argmax() == before.argmax()
    assert cooled.max() < before.max()
    save_bundle(model, tmp_path)
    assert np.array_equal(load_bundle(tmp_path).predict(image)[0].scores, cooled)
    set_temperature(tmp_path, 1.0)
    assert np.array_equal(load_bundle(tmp_path).predict(image)[0].scores, before)
    for bad in ("hot", 0, -1, True, 1e9):
        set_temperature(tmp_path, 1.0)
        description = json.loads((tmp_path / "model.json").read_text()) | {"temperature": bad}
        (tmp_path / "model.json").write_text(json.dumps(description))
        with pytest.raises(saccade.DataError, match="temperature is"):
            load_bundle(tmp_path)
        (tmp_path / "model.json").write_text(json.dumps(description | {"temperature": 1.0}))


def test_C19_calibrating_a_run_is_the_minimum_on_its_validation_images(bars, run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    model, data = saccade.load(folder), saccade.load_data(bars, "val")
    scores = np.stack([model.predict(data[i].image)[0].scores for i in range(len(data))])
    labels = np.array([int(data[i].target["label"]) for i in range(len(data))])
    before = saccade.evaluate(folder, bars, workers=0)
    assert "temperature" in command("eval", folder, bars, "--calibrate", "--workers", 0).stderr
    found = json.loads((folder / "model" / "model.json").read_text())["temperature"]
    assert found == pytest.approx(fit_temperature(scores, labels), rel=1e-3)
    assert found != 1.0
    assert saccade.evaluate(folder, bars, workers=0)["accuracy"] == before["accuracy"]
    with pytest.raises(saccade.UsageError, match="measure on another one"):
        command("eval", folder, bars, "--calibrate", "--split", "val")
    calibrated = train(bars, tmp_path / "again", **{"recipe.calibrate": True})
    assert calibrated.model.temperature == pytest.approx(found, rel=1e-3)  # the same run, calibrated at its end


def test_C19_only_networks_that_classify_are_calibrated(bars, tmp_path):
    with pytest.raises(saccade.UsageError, match="needs validation images"):
        saccade.train("lenet5", bars, folder=tmp_path / "a", val_split="none", options=SMALL | {"recipe.calibrate": True})
    with pytest.raises(saccade.UsageError, match="calibrate is for networks"):
        saccade.train("knn", bars, folder=tmp_path / "b", options={"recipe.calibrate": True})
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


# -- test-time views ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [("lenet5", {}), ("overfeat_fast", {"evaluation": "dense"})])
def test_C19_views_are_averaged_probabilities(name, options):
    model = build(name, **options).eval()
    given = batch(model, 3)
    with torch.no_grad():
        plain = model.predict_batch(given.images, given.geometries)
        turned = [image.flip(-1) for image in given.images]
        turned = torch.stack(turned) if isinstance(given.images, torch.Tensor) else turned
        mirrored = model.predict_batch(turned, given.geometries)
        seen = with_views(model, ["hflip"]).predict_batch(given.images, given.geometries)
    for a, b, both in zip(plain, mirrored, seen, strict=True):
        np.testing.assert_allclose(both.scores, (a.scores + b.scores) / 2, rtol=1e-5, atol=1e-7)
        assert both.classes == a.classes
    assert model.views == ()  # the model that was given predicts as before


def test_C19_views_through_the_verbs(bars, run, tmp_path):
    images = sorted((bars / "test" / "tall").glob("*.png"))[:3]
    model = saccade.load(run)
    expected = [
        (model.predict(picture)[0].scores + model.predict(np.ascontiguousarray(picture[:, ::-1]))[0].scores) / 2
        for picture in (np.asarray(Image.open(path)) for path in images)
    ]
    got = list(saccade.predict(run, images, tta=["hflip"], workers=0))
    for prediction, scores in zip(got, expected, strict=True):
        np.testing.assert_allclose(prediction.scores, scores, rtol=1e-5, atol=1e-7)
    command("predict", run, *images, "--tta", "hflip", "--no-draw", "--out", tmp_path, "--workers", 0)
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["score"] for row in rows] == pytest.approx([float(scores.max()) for scores in expected], abs=1e-4)
    told = json.loads(command("eval", run, bars, "--tta", "hflip", "--json", "--workers", 0).stdout)
    assert told["accuracy"] == saccade.evaluate(run, bars, tta=["hflip"], workers=0)["accuracy"]
    with pytest.raises(saccade.UsageError, match="no test-time view 'hflop'; did you mean 'hflip'"):
        list(saccade.predict(run, images, tta=["hflop"]))
    with pytest.raises(saccade.UsageError, match="test-time views are for networks that classify"):
        with_views(build("ssdlite"), ["hflip"])
