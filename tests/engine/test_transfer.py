"""C18: transfer between data sets through whole runs, and features that are computed once."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import saccade
from saccade.data.transforms.augment import AugmentedDataset
from saccade.engine.callbacks import read_metrics
from saccade.engine.feature_cache import make_features
from saccade.types.recipe import Recipe

NAME = "timm/test_resnet.r160_in1k"
PLAIN = {"recipe.hflip": 0.0, "recipe.crop": 1.0, "recipe.brightness": 0.0, "recipe.contrast": 0.0, "recipe.saturation": 0.0}
SHORT = {"recipe.epochs": 3, "recipe.batch_size": 4, "recipe.lr": 0.02}


def draw(root, names, train=5, val=3):
    """Blocks of a colour a class, with noise."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = random.integers(0, 120, (32, 32, 3)).astype(np.uint8)
                image[8:24, 8:24, label % 3] += 60 + 60 * (label // 3)
                Image.fromarray(image).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("few"), ["a", "b", "c"])


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """A run on other data with other classes."""
    data = draw(tmp_path_factory.mktemp("many"), ["p", "q", "r", "s", "t"])
    folder = tmp_path_factory.mktemp("runs") / "pretrain"
    options = {"model.size": 32, "recipe.epochs": 1, "recipe.batch_size": 5}
    return saccade.train(NAME, data, folder=folder, options=options, workers=0, report=False, say=lambda _: None).folder


def transfer(data, folder, pretrained, said=None, **options):
    return saccade.train(
        NAME, data, folder=folder, weights=pretrained, options=PLAIN | SHORT | {"recipe.transfer": "features"} | options, workers=0,
        report=False, say=said.append if said is not None else lambda _: None,
    )  # fmt: skip


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_C18_transfer_from_a_run_with_other_classes(few, pretrained, tmp_path):
    said = []
    run = transfer(few, tmp_path / "run", pretrained, said)
    assert run.config.model_options["size"] == 32  # the run's own form
    text = "\n".join(said)
    assert "2 tensors start anew (network.fc.weight, network.fc.bias)" in text
    before, after = weights(pretrained), weights(run.folder)
    assert before["network.fc.weight"].shape[0] == 5
    assert after["network.fc.weight"].shape[0] == 3
    for name in before:
        assert "fc" in name or torch.equal(before[name], after[name]), name  # batch statistics too
    learn = after["network.fc.weight"].numel() + after["network.fc.bias"].numel()
    assert f"{learn:,} of " in text
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["parameters"]["learn"] == learn < facts["parameters"]["all"]
    assert saccade.evaluate(run.folder, few, split="val", workers=0) == run.metrics


def test_C18_the_preprocessing_of_a_run_travels_with_its_weights(few, pretrained, tmp_path):
    other = tmp_path / "pretrain"
    shutil.copytree(pretrained, other)
    description = json.loads((other / "model" / "model.json").read_text())
    description["preprocess"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (other / "model" / "model.json").write_text(json.dumps(description))
    run = transfer(few, tmp_path / "run", other, **{"recipe.epochs": 1})
    assert run.model.preprocess.mean == (0.1, 0.2, 0.3)
    assert run.model.preprocess.std == (0.4, 0.5, 0.6)


def test_C18_kept_features_give_the_run_of_the_whole_network(few, pretrained, tmp_path):
    kept = transfer(few, tmp_path / "kept", pretrained, **{"recipe.class_weights": True, "recipe.label_smoothing": 0.1})
    whole = transfer(
        few, tmp_path / "whole", pretrained,
        **{"recipe.cached_views": 0, "recipe.class_weights": True, "recipe.label_smoothing": 0.1},
    )  # fmt: skip
    assert not (whole.folder / "features").exists()
    one, two = weights(kept.folder), weights(whole.folder)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    a, b = kept.history, whole.history
    assert len(a) == len(b) == 3
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, rel=1e-4, abs=1e-5)


def test_C18_each_image_is_decoded_once_whatever_the_epochs(few, pretrained, tmp_path, monkeypatch):
    from saccade.data.dataset import Dataset

    counts = []
    original = Dataset.image
    monkeypatch.setattr(Dataset, "image", lambda data, record: counts.append(record.image_id) or original(data, record))
    for epochs in (1, 4):
        counts.clear()
        transfer(few, tmp_path / str(epochs), pretrained, **{"recipe.epochs": epochs})
        assert len(counts) == 15 + 9 + 9  # training, validation, and the evaluation of the end


def test_C18_views_are_what_the_epochs_would_have_seen(few, pretrained, tmp_path):
    said = []
    recipe = Recipe(hflip=0.5, brightness=0.5, batch_size=4, transfer="features")
    model = saccade.load(pretrained)
    data = saccade.load_data(few, "train")
    features = make_features(model, data, tmp_path / "train.npy", recipe=recipe, views=3, seed=7, workers=0, say=said.append)
    assert features.array.shape[:2] == (3, 15)
    augmented = AugmentedDataset(data, recipe, "classify", seed=7)

    def seen(sample):
        """timm's own way to what the output layer sees."""
        with torch.no_grad():
            image = model.preprocess(sample)[0][None]
            return model.network.forward_head(model.network.forward_features(image), pre_logits=True)[0]

    for i in (0, 4, 9):
        torch.testing.assert_close(features.feature(0, i), seen(data[i]), rtol=1e-4, atol=1e-5)
        for view in (1, 2):
            torch.testing.assert_close(features.feature(view, i), seen(augmented[view - 1, i]), rtol=1e-4, atol=1e-5)
    assert not np.allclose(features.array[1], features.array[2])
    again = make_features(model, data, tmp_path / "train.npy", recipe=recipe, views=3, seed=7, workers=0, say=said.append)
    assert np.array_equal(again.array, features.array)
    assert len(said) == 1  # the second time nothing was computed
    make_features(model, data, tmp_path / "train.npy", recipe=recipe, views=3, seed=8, workers=0, say=said.append)
    assert len(said) == 2  # another seed, other views


class Stop:
    """Sends SIGTERM to this process at an optimiser step."""

    def __init__(self, monkeypatch, step):
        from saccade.tasks.classify import ClassifyTask

        original = ClassifyTask.training_step

        def training_step(task, batch, batch_idx):
            if task.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(task, batch, batch_idx)

        monkeypatch.setattr(ClassifyTask, "training_step", training_step)


@pytest.mark.parametrize("views", [2, 0])
def test_C18_a_resumed_transfer_is_the_uninterrupted_one(few, pretrained, tmp_path, monkeypatch, views):
    options = {"recipe.cached_views": views, "recipe.hflip": 0.5}
    whole = transfer(few, tmp_path / "whole", pretrained, **options)
    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        Stop(patch, 4)
        with pytest.raises(saccade.SaccadeError, match="nothing is lost"):
            transfer(few, folder, pretrained, **options)
    said = []
    saccade.resume(folder, report=False, say=said.append)
    assert not any(line.startswith("features:") for line in said)  # they are still there
    one, two = weights(whole.folder), weights(folder)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (folder / "metrics.csv").read_text() == (whole.folder / "metrics.csv").read_text()


def test_C18_a_resume_refuses_features_of_other_weights(few, pretrained, tmp_path, monkeypatch):
    start = tmp_path / "pretrain"
    shutil.copytree(pretrained, start)
    with monkeypatch.context() as patch:
        Stop(patch, 4)
        with pytest.raises(saccade.SaccadeError):
            transfer(few, tmp_path / "cut", start)
    state = weights(start)
    state["network.conv1.0.weight"] += 1
    save_file(state, start / "model" / "model.safetensors")
    with pytest.raises(saccade.DataError, match="have changed since the run began"):
        saccade.resume(tmp_path / "cut", report=False, say=lambda _: None)


def test_C18_a_broken_image_is_skipped_and_named(few, pretrained, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(few, root)
    for broken in (root / "train" / "c" / "4.png", root / "val" / "a" / "0.png"):
        broken.write_bytes(broken.read_bytes()[:60])
    kept = transfer(root, tmp_path / "kept", pretrained)
    whole = transfer(root, tmp_path / "whole", pretrained, **{"recipe.cached_views": 0})
    skipped = json.loads((kept.folder / "run.json").read_text())["skipped"]
    assert {path.rpartition("/")[2] for path in skipped} == {"4.png", "0.png"}
    assert skipped == json.loads((whole.folder / "run.json").read_text())["skipped"]
    assert kept.history[-1] == pytest.approx(whole.history[-1], rel=1e-4, abs=1e-5)  # the same image took its place


def test_C18_a_model_with_own_losses_runs_through_the_whole_network(few, tmp_path):
    options = {"recipe.epochs": 1, "recipe.batch_size": 5, "model.in_chans": 3}
    start = saccade.train("lenet5", few, folder=tmp_path / "start", options=options, workers=0, report=False, say=lambda _: None)
    said = []
    run = saccade.train(
        "lenet5", few, folder=tmp_path / "run", weights=start.folder / "model" / "model.safetensors", workers=0, report=False,
        options=options | {"recipe.transfer": "finetune", "recipe.unfreeze": 1}, say=said.append,
    )  # fmt: skip
    before, after = weights(start.folder), weights(run.folder)
    assert {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"f6", "output"}
    run = saccade.train(
        "lenet5", few, folder=tmp_path / "features", weights=start.folder, workers=0, report=False,
        options=options | {"recipe.transfer": "features", "model.head": "rbf"}, say=said.append,
    )  # fmt: skip
    assert any("features are not kept" in line for line in said)
    assert not (run.folder / "features").exists()
    after = weights(run.folder)
    assert {name.partition(".")[0] for name in after if name in before and not torch.equal(before[name], after[name])} == {"f6"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, "transfer=features starts from weights"),
        ({"options": {"recipe.transfer": "scratch"}}, "leave out --pretrained and --weights"),
        ({"weights": "nowhere.pth"}, "no such file of weights"),
        ({"options": {"recipe.transfer": "frozen"}}, "expected one of"),
    ],
)
def test_C18_contradictions_are_errors_before_anything_is_written(few, pretrained, tmp_path, changes, message):
    arguments = {"weights": pretrained, "options": {"recipe.transfer": "features"}} | changes
    with pytest.raises(saccade.SaccadeError, match=message):
        saccade.train(NAME, few, folder=tmp_path / "run", workers=0, report=False, say=lambda _: None, **arguments)
    assert not (tmp_path / "run").exists()


def test_C18_weights_of_another_model_or_another_width_are_refused(few, pretrained, tmp_path):
    with pytest.raises(saccade.UsageError, match=r"holds weights of timm/test_resnet\.r160_in1k, not of lenet5"):
        saccade.train("lenet5", few, folder=tmp_path / "a", weights=pretrained, workers=0, say=lambda _: None)
    options = {"model.size": 32, "model.width": 0.25, "recipe.epochs": 1, "recipe.batch_size": 5}
    start = saccade.train("course_cnn", few, folder=tmp_path / "s", options=options, workers=0, report=False, say=lambda _: None)
    with pytest.raises(saccade.DataError, match=r"does not hold \d+ tensors that recipe.transfer=features freezes"):
        saccade.train(
            "course_cnn", few, folder=tmp_path / "b", weights=start.folder, options={"model.width": 0.5, "recipe.transfer": "features"},
            workers=0, say=lambda _: None,
        )  # fmt: skip


def test_C18_layer_rates_reach_the_log(few, pretrained, tmp_path):
    run = transfer(
        few, tmp_path / "run", pretrained,
        **{"recipe.transfer": "finetune", "recipe.layer_decay": 0.1, "recipe.schedule": "constant"}, **{"recipe.warmup": 0.0},
    )  # fmt: skip
    assert read_metrics(run.folder / "metrics.csv")[0]["lr"] == pytest.approx(0.02)  # the output's
