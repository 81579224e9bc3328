"""The engine: interruption, resume, workers, DDP, early stopping, EMA; all by a small network without batch norm."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import saccade
from saccade.engine.callbacks import read_metrics
from saccade.engine.loaders import TrainSampler

SACCADE = [sys.executable, "-m", "saccade"]
SMALL = {"recipe.batch_size": 8, "recipe.epochs": 3, "recipe.rotate": 10.0, "recipe.translate": 0.1}


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """60 training and 24 validation images of three drawn signs."""
    root = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 8)):
        for label, name in enumerate(("bar", "cross", "ring")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = random.integers(0, 60, (28, 28)).astype(np.uint8)
                y, x = random.integers(9, 19, 2)
                if label == 0:
                    image[y - 1 : y + 2, 4:24] = 220
                elif label == 1:
                    image[y - 7 : y + 8, x - 1 : x + 1] = 220
                    image[y - 1 : y + 1, x - 7 : x + 8] = 220
                else:
                    yy, xx = np.mgrid[:28, :28]
                    image[np.abs(np.hypot(yy - y, xx - x) - 6) < 1.2] = 220
                Image.fromarray(image).save(folder / f"{i:03}.png")
    return root


def train(digits, folder, **options):
    return saccade.train("lenet5", digits, folder=folder, options=SMALL | options, workers=0, report=False, say=lambda _: None)


def weights(folder):
    return load_file(Path(folder) / "model" / "model.safetensors")


def assert_same(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="session")
def reference(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reference"
    train(digits, folder, **{"recipe.ema": 0.9})
    return folder


def test_a_run_leaves_what_it_promises(reference):
    assert {"config.yaml", "metrics.csv", "run.json", "model", "checkpoints"} <= {p.name for p in reference.iterdir()}
    rows = read_metrics(reference / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert {"train_loss", "val_loss", "accuracy", "lr"} <= set(rows[0])
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    facts = json.loads((reference / "run.json").read_text())
    assert facts["images"] == {"train": 60, "val": 24}
    assert facts["metrics"]["accuracy"] == max(row["accuracy"] for row in rows)  # the best weights are kept
    assert not list(reference.rglob("*.pkl"))


def test_the_same_seed_gives_the_same_run_whatever_the_workers(digits, reference, tmp_path):
    options = SMALL | {"recipe.ema": 0.9}
    saccade.train("lenet5", digits, folder=tmp_path / "w2", options=options, workers=2, report=False, say=lambda _: None)
    assert_same(reference, tmp_path / "w2")
    assert (tmp_path / "w2" / "metrics.csv").read_text() == (reference / "metrics.csv").read_text()


def test_another_seed_gives_another_run(digits, reference, tmp_path):
    saccade.train(
        "lenet5", digits, folder=tmp_path / "s1", options=SMALL | {"recipe.epochs": 1}, seed=1, workers=0, report=False, say=lambda _: None
    )
    assert not torch.equal(weights(reference)["c1.weight"], weights(tmp_path / "s1")["c1.weight"])


class Stop:
    """Sends a signal to this process from inside training, after so many optimiser steps or at a validation."""

    def __init__(self, monkeypatch, number, *, step=None, validation=None):
        from saccade.tasks.classify import ClassifyTask

        original, original_validation = ClassifyTask.training_step, ClassifyTask.validation_step

        def training_step(task, batch, batch_idx):
            if step is not None and task.global_step == step:
                os.kill(os.getpid(), number)
            return original(task, batch, batch_idx)

        def validation_step(task, batch, batch_idx):
            if validation is not None and task.current_epoch == validation and batch_idx == 0:
                os.kill(os.getpid(), number)
            return original_validation(task, batch, batch_idx)

        monkeypatch.setattr(ClassifyTask, "training_step", training_step)
        monkeypatch.setattr(ClassifyTask, "validation_step", validation_step)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", [{"step": 3}, {"step": 9}, {"step": 6}, {"validation": 1}, {"step": 7}])
def test_a_signal_writes_a_checkpoint_and_the_resumed_run_is_the_uninterrupted_one(digits, reference, tmp_path, monkeypatch, number, where):
    if number == signal.SIGINT and where != {"step": 3}:
        pytest.skip("one place is enough for the second signal")
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        Stop(patch, number, **where)
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        with pytest.raises(saccade.SaccadeError, match=r"saccade train --resume") as stopped:
            train(digits, folder, **{"recipe.ema": 0.9})
    assert str(folder) in str(stopped.value)
    assert not (folder / "run.json").exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    run = saccade.resume(folder, report=False, say=lambda _: None)
    assert_same(reference, folder)
    assert (folder / "metrics.csv").read_text() == (reference / "metrics.csv").read_text()
    assert run.metrics == saccade.open_run(reference).metrics


def test_sigkill_leaves_the_last_epoch_and_the_resumed_run_is_the_uninterrupted_one(digits, reference, tmp_path):
    folder = tmp_path / "run"
    sets = [f"--set={key}={value}" for key, value in (SMALL | {"recipe.ema": 0.9}).items()]
    # The child is slowed down, so that the kill falls inside the second epoch.
    slow = "import time, saccade.tasks.classify as c; o = c.ClassifyTask.training_step\n"
    slow += "def s(t, b, i):\n    time.sleep(0.15 if t.current_epoch else 0)\n    return o(t, b, i)\n"
    slow += "c.ClassifyTask.training_step = s\nfrom saccade.cli.main import main\nmain()"
    command = [sys.executable, "-c", slow, "train", "lenet5", str(digits), "--folder", str(folder), "--workers", "0", *sets]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert len(read_metrics(folder / "metrics.csv")) == 1
    result = subprocess.run([*SACCADE, "train", "--resume", str(folder), "--json"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["metrics"]["accuracy"] == saccade.open_run(reference).metrics["accuracy"]
    assert_same(reference, folder)


def test_a_finished_run_is_not_resumed_and_a_folder_with_a_run_is_not_overwritten(digits, reference):
    with pytest.raises(saccade.UsageError, match="finished"):
        saccade.resume(reference)
    with pytest.raises(saccade.UsageError, match="holds a run already"):
        train(digits, reference)


def test_resume_reads_no_pickle(digits, reference, tmp_path):
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    (folder / "run.json").unlink()

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"state_dict": {}, "x": Evil()}, folder / "checkpoints" / "last.ckpt")
    with pytest.raises(saccade.DataError, match="no readable checkpoint"):
        saccade.resume(folder)
    assert not (tmp_path / "owned").exists()


def test_early_stopping_and_plateau(digits, tmp_path):
    options = {"recipe.lr": 0.0, "recipe.epochs": 9, "recipe.patience": 2, "recipe.schedule": "plateau", "recipe.plateau_patience": 0}
    train(digits, tmp_path / "run", **options)
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 3  # the first, and two without improvement


def test_plateau_lowers_the_rate_and_survives_a_resume(digits, tmp_path, monkeypatch):
    options = {"recipe.lr": 1e-7, "recipe.epochs": 5, "recipe.schedule": "plateau", "recipe.plateau_patience": 0, "recipe.lr_gamma": 0.5}
    train(digits, tmp_path / "whole", **options)
    rates = [row["lr"] for row in read_metrics(tmp_path / "whole" / "metrics.csv")]
    assert rates[-1] < rates[0]
    with monkeypatch.context() as patch:
        Stop(patch, signal.SIGTERM, step=24)
        with pytest.raises(saccade.SaccadeError):
            train(digits, tmp_path / "cut", **options)
    saccade.resume(tmp_path / "cut", report=False, say=lambda _: None)
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert [row["lr"] for row in read_metrics(tmp_path / "cut" / "metrics.csv")] == rates


def test_accumulation_equals_the_larger_batch(digits, tmp_path):
    plain = {"recipe.optimizer": "sgd", "recipe.lr": 0.05, "recipe.epochs": 1, "recipe.schedule": "constant", "recipe.weight_decay": 0.0}
    train(digits, tmp_path / "a", **plain, **{"recipe.batch_size": 20})
    train(digits, tmp_path / "b", **plain, **{"recipe.batch_size": 10, "recipe.accumulate": 2})
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_evaluate_every_image_once(digits, tmp_path):
    """DDP over two gloo processes; LeNet-5 has no batch norm."""
    sets = [f"--set={key}={value}" for key, value in SMALL.items()]
    for devices in (1, 2):
        command = [*SACCADE, "train", "lenet5", str(digits), "--folder", str(tmp_path / str(devices)), "--workers", "0", *sets]
        command += ["--devices", str(devices), "--accelerator", "cpu"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert result.returncode == 0, result.stderr
    one, two = (read_metrics(tmp_path / str(devices) / "metrics.csv") for devices in (1, 2))
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-5), key


def test_sampler_shares_batches_out_without_overlap():
    whole = [sorted(batch) for batch in TrainSampler(50, 8, seed=3)]
    parts = [list(TrainSampler(50, 8, seed=3, rank=rank, world=2)) for rank in (0, 1)]
    assert len(whole) == len(TrainSampler(50, 8, seed=3)) == 6
    assert whole == [sorted(a + b) for a, b in zip(*parts, strict=True)]
    assert all(len(a) == len(b) == 4 for a, b in zip(*parts, strict=True))
    late = TrainSampler(50, 8, seed=3)
    late.resume(0, 4)
    assert [sorted(batch) for batch in late] == whole[4:]
    late.set_epoch(1)
    assert len(list(late)) == 6


def test_nan_stops_with_step_and_files(digits, tmp_path):
    with pytest.raises(saccade.SaccadeError, match=r"loss became (nan|inf) at step \d+, on .*\.png") as error:
        train(digits, tmp_path / "run", **{"model.activation": "relu", "recipe.optimizer": "sgd", "recipe.lr": 1e6})
    assert "recipe.lr" in str(error.value)


def test_a_broken_image_is_skipped_counted_and_named(digits, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(digits, root)
    for broken in (root / "train" / "bar" / "003.png", root / "val" / "ring" / "001.png"):
        broken.write_bytes(broken.read_bytes()[:100])
    run = train(root, tmp_path / "run", **{"recipe.epochs": 1})
    skipped = json.loads((run.folder / "run.json").read_text())["skipped"]
    assert {Path(p).name for p in skipped} == {"003.png", "001.png"}
    assert all("\n" not in message for message in skipped.values())


def test_class_weights_are_counted_from_the_training_data(digits, tmp_path):
    """Equal classes weigh 1 each: the same run as without."""
    train(digits, tmp_path / "with", **{"recipe.epochs": 1, "recipe.class_weights": True})
    train(digits, tmp_path / "without", **{"recipe.epochs": 1})
    one, two = weights(tmp_path / "with"), weights(tmp_path / "without")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_mixed_precision_runs(digits, tmp_path):
    run = train(digits, tmp_path / "run", **{"recipe.precision": "bf16-mixed", "recipe.epochs": 1, "recipe.clip": 1.0})
    assert np.isfinite(run.metrics["accuracy"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("recipe.leaning_rate", 1, "no 'leaning_rate'"),
        ("recipe.lr", "fast", "recipe.lr='fast'"),
        ("recipe.lr", -1, "at least 0"),
        ("recipe.epochs", 0, "at least 1"),
        ("model.widht", 3, "no option model.widht"),
        ("lr", 3, "did you mean 'recipe.lr'"),
        ("recipe.optimizer", "adamm", "recipe.optimizer='adamm'"),
    ],
)
def test_unknown_options_are_errors_before_anything_is_written(digits, tmp_path, key, value, message):
    with pytest.raises(saccade.UsageError, match=message):
        train(digits, tmp_path / "run", **{key: value})
    assert not (tmp_path / "run").exists()


def test_a_moved_run_keeps_its_best_epoch_on_resume(digits, tmp_path, monkeypatch):
    import shutil

    options = {"recipe.epochs": 4, "recipe.lr": 0.02}
    train(digits, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        Stop(patch, signal.SIGTERM, step=23)
        with pytest.raises(saccade.SaccadeError):
            train(digits, tmp_path / "cut", **options)
    shutil.move(tmp_path / "cut", tmp_path / "moved")
    saccade.resume(tmp_path / "moved", report=False, say=lambda _: None)
    assert_same(tmp_path / "whole", tmp_path / "moved")


def test_resume_refuses_other_data(digits, tmp_path, monkeypatch):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(digits, root)
    with monkeypatch.context() as patch:
        Stop(patch, signal.SIGTERM, step=3)
        with pytest.raises(saccade.SaccadeError):
            train(root, tmp_path / "run")
    (root / "train" / "bar" / "000.png").unlink()
    with pytest.raises(saccade.DataError, match="have changed since the run began"):
        saccade.resume(tmp_path / "run")


def test_a_run_is_not_tested_on_its_training_images(digits, tmp_path):
    names = [f"train/{sign}/{i:03}" for sign in ("bar", "cross", "ring") for i in range(20)]
    first = {"train": names[::2], "val": names[1::4], "test": names[3::4]}
    other = {"train": names[3::4], "val": names[1::4], "test": names[::2]}
    for file, splits in (("a.json", first), ("b.json", other)):
        (tmp_path / file).write_text(json.dumps({k: [f"{n}.png" for n in v] for k, v in splits.items()}))
    run = saccade.train(
        "lenet5", digits, folder=tmp_path / "run", split_file=tmp_path / "a.json", options=SMALL | {"recipe.epochs": 1}, workers=0,
        report=False, say=lambda _: None,
    )  # fmt: skip
    assert 0 <= saccade.evaluate(run.folder, digits, workers=0)["accuracy"] <= 1  # the run's own split file is used
    with pytest.raises(saccade.UsageError, match="30 of these 30 images were trained on"):
        saccade.evaluate(run.folder, digits, split_file=tmp_path / "b.json", workers=0)
    assert saccade.evaluate(run.folder, digits, split="train", workers=0)


def test_names_of_numbers_are_matched_by_name(digits):
    from saccade.engine.evaluator import align_classes
    from saccade.testing import dataset

    data = dataset("classify", 6)
    data.index.classes = ["2", "1", "0"]
    model = saccade.create_model("lenet5", 3)
    assert align_classes(data, model) is data  # nobody gave names: label k is label k
    model.classes = ["0", "1", "2"]
    aligned = align_classes(data, model)
    assert aligned.classes == ["0", "1", "2"]
    assert [aligned.record(i).label for i in range(6)] == [2 - data.record(i).label for i in range(6)]


def test_a_timm_name_makes_a_folder_name(digits, tmp_path):
    run = saccade.train(
        "timm/test_resnet.r160_in1k", digits, out=tmp_path, options={"recipe.epochs": 1, "recipe.batch_size": 8}, workers=0, report=False,
        say=lambda _: None,
    )  # fmt: skip
    assert run.folder.name == "timm-test_resnet.r160_in1k-001"
    assert saccade.load(run.folder).classes == ["bar", "cross", "ring"]


def test_a_wrong_loss_or_augmentation_is_an_error_before_anything_is_written(digits, tmp_path):
    for key, value in (("recipe.loss", "foo"), ("recipe.mosaic", 1.0)):
        with pytest.raises(saccade.UsageError):
            train(digits, tmp_path / "run", **{key: value})
        assert not (tmp_path / "run").exists()


def test_a_signal_to_the_whole_process_group_loses_nothing(digits, tmp_path):
    """Schedulers and terminals signal the loader's workers too."""
    folder = tmp_path / "run"
    sets = [f"--set={key}={value}" for key, value in (SMALL | {"recipe.epochs": 2000}).items()]
    command = [*SACCADE, "train", "lenet5", str(digits), "--folder", str(folder), "--workers", "1", *sets]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGTERM)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 1, told
    assert "nothing is lost" in told
    assert "Traceback" not in told
    assert (folder / "checkpoints" / "last.ckpt").is_file()
