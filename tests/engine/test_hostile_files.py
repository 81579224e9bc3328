"""Damaged or edited runs and bundles, and options out of range: one line that names the file, nothing fetched, nothing trained."""

import dataclasses
import json
import math
import shutil

import lightning
import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

import saccade
from saccade.cli.options import pick_device
from saccade.data.transforms.preprocess import Preprocess
from saccade.engine.bundle import load_bundle, save_bundle
from saccade.engine.callbacks import read_metrics
from saccade.engine.config import RunConfig, recipe_value, resolve
from saccade.engine.trainer import check_monitor, load_weights_into, make_trainer, position
from saccade.models.registry import create_model, default_recipe, find
from saccade.tasks.classify import ClassifyTask
from saccade.tasks.detect import DetectTask
from saccade.types.errors import DataError, UsageError

FOREIGN = ["hf-hub:evil/x", "hf_hub:evil/x", "local-dir:folder", "../../x", "resnet18.hf-hub:evil/x", "resnet18./../x", "resnet81", ""]


def one_line(error):
    return "\n" not in str(error.value) and "weights_only" not in str(error.value)


# -- backbones -------------------------------------------------------------------------------------


@pytest.fixture
def no_timm(monkeypatch):
    """timm builds nothing: whoever asks it for a network fails."""

    def built(name, **_):
        raise AssertionError(f"timm was asked for {name!r}")

    monkeypatch.setattr(timm, "create_model", built)


@pytest.mark.parametrize("model", ["ssdlite", "ssdlite320", "rcnn", "faster_rcnn", "unet"])
def test_a_backbone_that_is_not_timms_never_reaches_timm(no_timm, model):
    for name in FOREIGN if model != "unet" else FOREIGN[:-1]:  # "" is unet's own encoder
        if (model, name) == ("ssdlite", ""):  # its default
            continue
        with pytest.raises(UsageError, match="timm has no model"):
            create_model(model, 2, backbone=name)


def test_a_classifier_that_is_not_timms_never_reaches_timm(no_timm):
    for name in FOREIGN:
        with pytest.raises(UsageError, match="timm has no model"):
            create_model(f"timm/{name}", 2)
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        create_model("timm/resnet81", 2)


# -- bundles ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    model = create_model("lenet5", 3)
    model.classes = ["a", "b", "c"]
    return save_bundle(model, tmp_path_factory.mktemp("bundle"), seed=1)


def edited(bundle, folder, edit):
    shutil.copytree(bundle, folder)
    description = json.loads((folder / "model.json").read_text())
    edit(description)
    (folder / "model.json").write_text(json.dumps(description))
    return folder


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def edit(description):
        for key in keys:
            description = description[key]
        description[last] = value

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["arguments"].pop("num_classes"),
        *(put("arguments", "num_classes", value) for value in ("3", 3.5, True, None, 0, -1, 4, 10**12)),
        *(put("arguments", key, "x") for key in ("name", "weights", "pretrained", "backbone", "c3")),
        *(put("classes", value) for value in (["a"], ["a", "b", "c", "d"], [1, 2, 3], "abc")),
        *(put("preprocess", "size", value) for value in ("ab", [0, 0], [1e5, 1e5], [32], [32.5, 32], None, [-1, 32], [64, 64])),
        *(put("preprocess", "mode", value) for value in ("bad", 3, "stretch")),
        *(put("preprocess", "interpolation", value) for value in ("lanczos", None)),
        *(put("preprocess", "mean", value) for value in ("abc", [], [0.1, 0.2], [math.nan], [None], 3)),
        *(put("preprocess", "std", value) for value in ([0], [-1], [math.inf])),
        *(put("preprocess", "channels", value) for value in (7, 3, "x")),
        *(put("preprocess", key, value) for key, value in (("fill", math.inf), ("crop", 0), ("multiple", 0), ("nonsense", 1))),
        *(put("seed", value) for value in ("abc", -1, 2**63, [1])),
        *(put("name", value) for value in ("lenet6", "timm/hf-hub:evil/x", "ssdlite", 3)),
        put("preprocess", []),
        put("arguments", []),
    ],
)
def test_an_edited_model_json_is_an_error_that_names_it(bundle, tmp_path, edit):
    with pytest.raises(DataError, match=r"model\.(json|safetensors)") as error:
        load_bundle(edited(bundle, tmp_path / "edited", edit))
    assert one_line(error)


def test_an_untouched_bundle_loads(bundle, tmp_path):
    model = load_bundle(edited(bundle, tmp_path / "same", lambda d: None))
    assert model.classes == ["a", "b", "c"]
    assert model.preprocess == create_model("lenet5", 3).preprocess


def test_a_bundle_fetches_no_weights(tmp_path, monkeypatch):
    asked = []
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: (asked.append(k.get("pretrained")), real(*a, **k))[1])
    folder = save_bundle(create_model("unet", 2, backbone="test_resnet", width=4, size=64), tmp_path / "bundle")
    for value in (True, "true", "yes"):
        load_bundle(edited(folder, tmp_path / str(value), put("arguments", "pretrained_backbone", value)))
    assert not any(asked)


def test_preprocess_takes_what_builders_give():
    assert Preprocess(size=[32, 32], mean=[0.5], std=(1,)).size == (32, 32)
    for wrong in ({"channels": 2}, {"size": (0, 3)}, {"size": (16385, 3)}, {"mode": "zoom"}, {"std": (0.0,)}, {"mean": (math.nan,)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Preprocess(**wrong)


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory):
    """A run of one epoch, as it lies there after a kill, its config asking for two."""
    root = tmp_path_factory.mktemp("hostile")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("dark", "light"):
            (root / "data" / split / label).mkdir(parents=True)
            for i in range(4):
                image = random.integers(0, 100, (28, 28)) + 150 * (label == "light")
                Image.fromarray(image.astype(np.uint8)).save(root / "data" / split / label / f"{i}.png")
    saccade.train("lenet5", root / "data", folder=root / "run", epochs=1, batch_size=4, workers=0, report=False, say=lambda _: None)
    (root / "run" / "run.json").unlink()
    config = yaml.safe_load((root / "run" / "config.yaml").read_text())
    config["recipe"]["epochs"] = 2
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    return root / "run"


@pytest.fixture
def no_training(monkeypatch):
    def fit(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr(lightning.Trainer, "fit", fit)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize(
    "content", ["text", b"\x80\x02", b"", {"a": 1}, [1], {"loops": 1, "state_dict": {}, "saccade": {}}, torch.zeros(2)]
)
def test_a_damaged_checkpoint_is_an_error_before_training(interrupted, tmp_path, no_training, name, content):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    path = run / "checkpoints" / name
    if isinstance(content, (str, bytes)):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=rf"{name}.*no readable checkpoint") as error:
        saccade.resume(run, report=False, say=lambda _: None)
    assert one_line(error)


def test_a_checkpoint_without_a_position_or_of_another_network_is_an_error(tmp_path):
    parts = {"loops": {"fit_loop": {}}, "state_dict": {"model.weight": torch.zeros(3)}, "saccade": {}}
    torch.save(parts, tmp_path / "last.ckpt")
    with pytest.raises(DataError, match="position is damaged"):
        position(tmp_path / "last.ckpt", 3)
    with pytest.raises(DataError, match="does not fit the model"):
        load_weights_into(torch.nn.Linear(2, 2), tmp_path / "last.ckpt", fallback=tmp_path / "last.ckpt")


def test_a_checkpoint_of_another_network_is_an_error_on_resume(interrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    path = run / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    state["state_dict"].pop(next(iter(state["state_dict"])))
    torch.save(state, path)
    with pytest.raises(DataError, match=r"last\.ckpt.*does not fit"):
        saccade.resume(run, report=False, say=lambda _: None)


@pytest.mark.parametrize("content", [b"\x89PNG\x00\xff\xfe", b"epoch,loss\n0,abc\n", b"loss\n1\n", b"epoch\n0,1,2\n"])
def test_damaged_metrics_are_an_error_before_training(interrupted, tmp_path, no_training, content):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    (run / "metrics.csv").write_bytes(content)
    if content == b"epoch\n0,1,2\n":  # superfluous cells have no name
        assert read_metrics(run / "metrics.csv") == [{"epoch": 0.0}]
        return
    with pytest.raises(DataError, match=r"metrics\.csv"):
        saccade.resume(run, report=False, say=lambda _: None)


@pytest.mark.parametrize(
    "edit",
    [
        *(put("recipe", "epochs", value) for value in ("abc", -1, 0, None, 10**12)),
        *(put("recipe", "lr", value) for value in ("abc", -1, math.nan, 1e38)),
        *(put("recipe", key, None) for key in ("batch_size", "optimizer", "betas", "loss")),
        *(put("seed", value) for value in ("abc", -1, 2**63, None)),
        put("recipe", "nonsense", 1),
        put("recipe", [1]),
        lambda d: d.pop("recipe"),
        lambda d: d.pop("model"),
        put("nonsense", 1),
        put("model", "lenet6"),
        put("model_options", "nonsense", 1),
        put("model_options", "abc"),
        put("devices", 0),
        put("workers", -1),
        put("pretrained", "perhaps"),
        put("allow", 3),
    ],
)
def test_an_edited_config_is_an_error_that_names_it(interrupted, tmp_path, edit):
    values = yaml.safe_load((interrupted / "config.yaml").read_text())
    edit(values)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(DataError, match=r"config\.yaml"):
        RunConfig.load(tmp_path / "config.yaml")


def test_a_config_comes_back_as_it_was(tmp_path):
    for model, options in (("ssdlite", {"model.size": 64}), ("hog_svm", {}), ("dcgan", {}), ("timm/test_resnet", {})):
        model_options, recipe = resolve(find(model), options)
        saved = RunConfig(model=model, data="x", model_options=model_options, recipe=recipe, seed=2**63 - 1)
        saved.save(tmp_path / "config.yaml")
        assert RunConfig.load(tmp_path / "config.yaml") == saved


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ema", 2), ("ema", 1), ("momentum", 5), ("betas", [2, 2]), ("betas", [0.9, 1]), ("lr", 1e38), ("lr", math.inf),
        ("translate", 9), ("hflip", 1.5), ("lr_steps", [5]), ("lr_steps", [0]), ("lr_steps", []), ("lr_gamma", 1),
        ("label_smoothing", 1), ("epochs", 10**12), ("validate_every", 0),
    ],
)  # fmt: skip
def test_recipe_values_out_of_range(name, value):
    with pytest.raises(UsageError, match=rf"recipe\.{name}"):
        recipe_value(name, value)


def test_all_models_own_recipes_are_in_range():
    for entry in (find(m["name"]) for m in saccade.list_models()):
        for name, value in dataclasses.asdict(default_recipe(entry)).items():
            assert recipe_value(name, value) == value, (entry.name, name)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        *(("ssdlite", {"size": size}) for size in (0, -5, 1, 999999999)),
        *(("ssdlite320", {"size": size}) for size in (0, -5, 1, 999999999)),
        ("ssdlite", {"width": 0}), ("ssdlite", {"width": -1}), ("unet", {"width": 0}), ("unet", {"size": 0}), ("unet", {"size": 10**9}),
        ("unet", {"depth": 0}), ("unet", {"depth": 99}), ("unet", {"size": None, "tile": 0}),
        ("rcnn", {"size": 0}), ("rcnn", {"size": 10**6}),
        ("faster_rcnn", {"min_size": 0}), ("faster_rcnn", {"min_size": 10**6}), ("faster_rcnn", {"max_size": 10}),
        ("faster_rcnn", {"channels": 0}), ("faster_rcnn", {"regions": 0}), ("dcgan", {"size": 2**30}), ("dcgan", {"width": 0}),
        ("dcgan", {"latent": 0}), ("timm/test_resnet", {"size": -1}), ("timm/test_resnet", {"size": 10**9}),
    ],
)  # fmt: skip
def test_model_options_out_of_range(no_timm, model, options):
    with pytest.raises(UsageError, match=rf"model\.{list(options)[-1]}"):
        create_model(model, 2, **options)


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
def test_seeds_out_of_range(seed):
    with pytest.raises(UsageError, match="seed"):
        RunConfig(model="lenet5", data="x", seed=seed)


@pytest.mark.parametrize(("accelerator", "strategy"), [("foo", "auto"), ("tpu", "auto"), ("cpu", "foo"), ("cpu", "fsdp"), ("hpu", "auto")])
def test_what_lightning_refuses_is_a_usage_error_of_one_line(accelerator, strategy):
    with pytest.raises(UsageError, match=f"accelerator {accelerator}, strategy {strategy}") as error:
        make_trainer(accelerator=accelerator, strategy=strategy, devices=1, precision="32-true", logger=False)
    assert one_line(error)


def test_an_unknown_monitor_is_told_before_training(interrupted, tmp_path, no_training):
    with pytest.raises(UsageError, match=r"recipe\.monitor='accuracies'.*did you mean 'accuracy'"):
        saccade.train(
            "lenet5",
            interrupted.parent / "data",
            folder=tmp_path / "run",
            monitor="accuracies",
            workers=0,
            report=False,
            say=lambda _: None,
        )


@pytest.mark.parametrize(("task", "good"), [(ClassifyTask, "macro_f1"), (DetectTask, "map75"), (DetectTask, "val_loss"), (DetectTask, "")])
def test_a_known_monitor_passes(task, good):
    check_monitor(good, task.make_metric(["a", "b"]))


@pytest.mark.parametrize("name", ["meta", "cuda:99", "cuda:-1", "cuda:x", "cpu:0", "xla", "hpu", "", "CPU", "cuda:99999999999"])
def test_devices_that_are_not_here(name):
    with pytest.raises(UsageError, match="device"):
        pick_device(name)


def test_devices_that_are_here():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")
    if not torch.backends.mps.is_available():
        with pytest.raises(UsageError, match="no MPS device"):
            pick_device("mps")
