"""The command line under bad luck: signals, closed pipes, odd names, folders that are given twice."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.engine.bundle import save_bundle

ENV = os.environ | {"OMP_NUM_THREADS": "1", "SACCADE_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
COMMAND = [sys.executable, "-m", "saccade"]


def run(*arguments, cwd=None):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=ENV, cwd=cwd, timeout=120)


def error_line(result, code):
    assert result.returncode == code, (result.returncode, result.stderr)
    (line,) = result.stderr.splitlines()
    assert line.startswith("saccade: error: "), result.stderr
    return line


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "model"
    save_bundle(saccade.create_model("lenet5", 3), folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(3):
        Image.fromarray(np.full((28, 28), 60 * k, np.uint8)).save(folder / f"{k}.png")
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["predict", "convert"])
def test_a_signal_is_a_failure_and_leaves_nothing(bundle, photos, tmp_path, number, verb):
    for k in range(3, 3000):
        os.link(photos / "0.png", photos / f"{k}.png")
    out = tmp_path / "out"
    if verb == "predict":
        arguments = ["predict", bundle, photos, "--out", out, "--no-draw", "--workers", "0", "--batch-size", "1", "--json"]
    else:
        arguments = ["data", "convert", "synthetic:cells?count=800&size=64", out / "coco", "--to", "coco"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it, and children inherit that
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (out.exists() and any(p.name.startswith(".") for p in out.iterdir())) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert said == "saccade: error: stopped\n"
    assert verb != "predict" or json.loads(printed) == {"error": "stopped", "exit": 1}
    assert list(out.iterdir()) == []


def test_predict_does_not_write_over_the_images(bundle, photos):
    before = {p.name: p.read_bytes() for p in photos.iterdir()}
    assert "would overwrite" in error_line(run("predict", bundle, photos, "--out", photos, "--workers", 0), 2)
    assert {p.name: p.read_bytes() for p in photos.iterdir()} == before


def test_predict_writes_names_that_are_no_text(bundle, photos, tmp_path):
    name = os.fsencode(photos) + b"/caf\xe9.png"
    os.link(photos / "0.png", name)
    for form in ("csv", "json"):
        result = run("predict", bundle, photos, "--out", tmp_path / "out", "--workers", 0, "--form", form)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("4 images")
        assert "caf\\udce9.png" in (tmp_path / "out" / f"predictions.{form}").read_text()


def test_an_empty_name_is_shown(bundle):
    assert "'': does not exist" in error_line(run("predict", bundle, ""), 1)
    assert "'': does not exist" in error_line(run("data", "show", ""), 1)


def test_a_closed_stdout_is_no_failure():
    result = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *COMMAND, "models", "list"], capture_output=True, text=True, env=ENV, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_failure():
    with open("/dev/full", "w") as full:
        result = subprocess.run([*COMMAND, "models", "list"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENV, timeout=60)
    assert "No space left" in error_line(result, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "--foo"], "No such option: --foo"),
        (["bogus"], "No such command 'bogus'"),
        (["data", "show"], "Missing argument 'DATA'"),
        (["predict", "a", "b", "--score", "7"], "--score"),
    ],
)
def test_wrong_arguments_are_one_line_and_json(arguments, says):
    result = run(*arguments, "--json")
    assert says in error_line(result, 2)
    out = json.loads(result.stdout)
    assert out["exit"] == 2
    assert says in error_line(run(*arguments), 2)


def test_a_model_of_another_task_draws_its_own_synthetic_data(tmp_path):
    arguments = ["train", "lenet5", "synthetic:shapes?count=12&size=32", "--epochs", 1, "--folder", tmp_path / "run", "--workers", 0]
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    assert "accuracy" in json.loads(result.stdout)["metrics"]


def test_convert_does_not_write_into_its_source(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "A" / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "A" / name / "x.png")
    before = sorted(tmp_path.rglob("*"))
    for source, target in ((tmp_path / "A", tmp_path / "A" / "out"), ("A", "A/a/../out")):
        result = run("data", "convert", source, target, "--to", "csv", cwd=tmp_path)
        assert "lies inside the data" in error_line(result, 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_data_show_keeps_a_class_on_its_line(tmp_path):
    for name in ("a\nb", "c"):
        (tmp_path / name).mkdir()
        Image.new("L", (9, 9)).save(tmp_path / name / "x.png")
    result = run("data", "show", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "  class a b " in result.stdout
    assert "a\nb" in json.loads(run("data", "show", tmp_path, "--json").stdout)["classes"]
