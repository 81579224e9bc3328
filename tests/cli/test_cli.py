"""The command line as a person uses it: output, JSON, exit codes, one line an error, nothing half-written."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ENV = os.environ | {"OMP_NUM_THREADS": "1", "SACCADE_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}


def saccade(*arguments, cwd=None):
    command = [sys.executable, "-m", "saccade", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, cwd=cwd, timeout=280)


def error_line(result, code):
    """The one line of an error, and no traceback."""
    assert result.returncode == code, (result.returncode, result.stderr)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("saccade: error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="session")
def cells_run(tmp_path_factory):
    """A detector trained for an epoch on drawn cells."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    data = "synthetic:cells?count=40&size=96"
    result = saccade("train", "ssdlite", data, "--epochs", 1, "--set", "model.size=96", "--folder", folder, "--workers", 0, "--json")
    assert result.returncode == 0, result.stderr
    return folder, data, json.loads(result.stdout)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three pictures on two levels, a note, and a broken picture."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "deep/a.png"):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (folder / "note.txt").write_text("hello")
    return folder


def test_train_prints_json_and_leaves_a_run(cells_run):
    folder, _, out = cells_run
    assert out["folder"] == str(folder)
    assert "map50" in out["metrics"]
    report = (folder / "report.html").read_text()
    assert "<script" not in report
    assert "http:" not in report
    assert "https:" not in report


def test_eval_prints_every_number_by_name(cells_run):
    folder, data, _ = cells_run
    as_json = saccade("eval", folder, data, "--json", "--workers", 0)
    assert as_json.returncode == 0, as_json.stderr
    numbers = json.loads(as_json.stdout)
    assert {"map", "map50", "map75", "mar_100", "map50/red cell"} <= set(numbers)
    table = saccade("eval", folder, data, "--split", "val", "--workers", 0)
    assert "map50" in table.stdout
    assert "red cell" in table.stdout


def test_predict_writes_pictures_and_json_and_skips_the_broken_one(cells_run, photos, tmp_path):
    result = saccade("predict", cells_run[0], photos, "--out", tmp_path / "p", "--score", 0.01, "--json", "--workers", 0)
    assert result.returncode == 0, result.stderr
    out = json.loads(result.stdout)
    assert out["images"] == 3
    assert len(out["skipped"]) == 1
    assert "broken.jpg" in out["skipped"][0]
    assert "broken.jpg" in result.stderr
    predictions = json.loads((tmp_path / "p" / "predictions.json").read_text())
    assert [Path(p["path"]).name for p in predictions] == ["a.png", "b.jpg", "a.png"]
    assert all(p["size"] == [60, 80] for p in predictions)
    assert len(list((tmp_path / "p").glob("*.png")) + list((tmp_path / "p").glob("*.jpg"))) == 3  # the two a.png do not collide


def test_predict_strict_makes_a_broken_image_an_error_and_writes_no_half_file(cells_run, photos, tmp_path):
    result = saccade("predict", cells_run[0], photos, "--out", tmp_path / "p", "--strict", "--workers", 0, "--no-draw")
    assert "broken.jpg" in error_line(result, 1)
    assert list((tmp_path / "p").iterdir()) == []


@pytest.mark.parametrize("form", ["coco", "csv", "jsonl"])
def test_predict_other_forms(cells_run, photos, tmp_path, form):
    result = saccade(
        "predict", cells_run[0], f"{photos}/**/*.png", "--out", tmp_path, "--form", form, "--score", 0.001, "--no-draw", "--workers", 0
    )
    assert result.returncode == 0, result.stderr
    if form == "coco":
        rows = json.loads((tmp_path / "predictions.coco.json").read_text())
        assert {"image_id", "category_id", "bbox", "score"} == set(rows[0])
        assert [i["id"] for i in json.loads((tmp_path / "images.json").read_text())] == [1, 2]
        assert all(row["bbox"][2] >= 0 for row in rows)
    elif form == "csv":
        rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
        assert set(rows[0]) == {"path", "label", "score", "x1", "y1", "x2", "y2"}
    else:
        assert [json.loads(line)["task"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()] == ["detect", "detect"]


def test_coco_predictions_are_scored_against_a_coco_file(cells_run, tmp_path):
    """What predict writes, eval reads; perfect predictions score 1."""
    data = "synthetic:cells?count=12&size=96"
    assert saccade("data", "convert", data, tmp_path / "coco", "--to", "coco").returncode == 0
    truth_file = next(p for p in sorted((tmp_path / "coco").rglob("instances*.json")))
    truth = json.loads(truth_file.read_text())
    results = [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in truth["annotations"]]
    (tmp_path / "predictions.json").write_text(json.dumps(results))
    result = saccade("eval", tmp_path / "predictions.json", truth_file, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["map"] == pytest.approx(1.0)
    shown = saccade("eval", tmp_path / "predictions.json", truth_file).stdout
    assert "with max_detections" in shown
    assert "settings" not in shown  # they are no classes


def test_models_list_and_info():
    listed = json.loads(saccade("models", "list", "--json").stdout)
    assert {"lenet5", "ssdlite", "faster_rcnn", "rcnn", "hog_svm", "unet", "dcgan"} <= {m["name"] for m in listed}
    assert "61,706 parameters" in saccade("models", "info", "lenet5").stdout
    assert "did you mean 'unet'" in error_line(saccade("models", "info", "unett"), 2)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "ssdlite", "nowhere/"], 1, "nowhere"),
        (["train", "ssdlight", "synthetic:shapes"], 2, "did you mean 'ssdlite'"),
        (["train", "ssdlite", "synthetic:shape"], 2, "did you mean"),
        (["train", "ssdlite", "set:bcdd"], 2, "did you mean 'bccd'"),
        (["train", "ssdlite"], 2, "MODEL DATA"),
        (["train", "ssdlite", "synthetic:shapes", "--set", "recipe.epoch=3"], 2, "did you mean 'epochs'"),
        (["train", "ssdlite", "synthetic:shapes", "--set", "model.size=big"], 2, "model.size='big'"),
        (["train", "ssdlite", "synthetic:shapes", "--set", "nonsense"], 2, "--set 'nonsense'"),
        (["train", "unet", "synthetic:shapes?task=classify"], 2, "segment"),
        (["train", "ssdlite", "synthetic:shapes", "--devices", "3"], 2, "does not divide over 3 devices"),
        (["train", "--resume", "nowhere"], 1, "holds no run to resume"),
        (["eval", "nowhere", "synthetic:cells"], 1, "nowhere"),
        (["predict", "nowhere", "x.png"], 1, "does not exist"),
        (["train", "ssdlite", "synthetic:shapes", "--config", "nowhere.yaml"], 1, "does not exist"),
    ],
)
def test_wrong_use_is_one_line_and_the_right_exit_code(arguments, code, says, tmp_path):
    result = saccade(*arguments, cwd=tmp_path)
    assert says in error_line(result, code)
    assert list(tmp_path.rglob("*")) == []


def test_classes_that_do_not_match_are_an_error(cells_run):
    line = error_line(saccade("eval", cells_run[0], "synthetic:shapes?count=20&size=64", "--workers", 0), 2)
    assert "classes that the model lacks" in line
    assert "known: " in line


def test_predict_names_what_it_cannot_find(cells_run, tmp_path):
    assert "does not exist" in error_line(saccade("predict", cells_run[0], tmp_path / "x.png"), 1)
    assert "holds no images" in error_line(saccade("predict", cells_run[0], tmp_path), 1)
    (tmp_path / "folder.jpg").mkdir()
    assert "folder.jpg" in error_line(saccade("predict", cells_run[0], tmp_path / "folder.jpg"), 1)


def test_a_damaged_bundle_is_an_error(cells_run, tmp_path):
    import shutil

    for name, content in (
        ("model.json", "{"),
        ("model.json", '{"saccade_bundle": 99}'),
        ("model.safetensors", "x"),
        ("model.safetensors", None),
    ):
        folder = tmp_path / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(cells_run[0] / "model", folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        assert name in error_line(saccade("predict", folder, "x.png"), 1)


def test_json_errors_are_json_too(tmp_path):
    result = saccade("eval", "nowhere", "synthetic:cells", "--json", cwd=tmp_path)
    assert json.loads(result.stdout)["exit"] == 1


def test_help_has_examples():
    for verb in ("train", "eval", "predict", "demo", "models"):
        out = saccade(verb, "--help").stdout
        assert f"saccade {verb}" in out
        assert "Example" in out


def test_version():
    assert saccade("--version").stdout.startswith("saccade 0.")


@pytest.mark.slow
def test_demo(tmp_path):
    result = saccade("demo", "--out", tmp_path / "demo", "--data", "synthetic:cells?count=40&size=96", "--epochs", 1, "--json")
    assert result.returncode == 0, result.stderr
    out = json.loads(result.stdout)
    with Image.open(out["sheet"]) as sheet:
        assert sheet.width > 600
    assert Path(out["report"]).stat().st_size > 10_000
    assert "map50" in out["metrics"]
