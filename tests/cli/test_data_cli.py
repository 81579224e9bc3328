"""saccade data inspect, split, view, priors on the command line: output, files, exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def saccade(*arguments, code=0):
    command = [sys.executable, "-m", "saccade", *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert out.returncode == code, out.stdout + out.stderr
    assert "Traceback" not in out.stderr
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                small.resize((48, 48), Image.Resampling.BICUBIC).save(root / split / name / f"{split}{k}.png")
    (root / "test/bee/copy.png").write_bytes((root / "train/bee/train0.png").read_bytes())
    (root / "train/ant/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


def test_T2_inspect_tells_json_page_and_exit_code(folder, tmp_path):
    page = tmp_path / "page.html"
    found = json.loads(saccade("data", "inspect", folder, "--json", "--out", page).stdout)
    assert (found["images"], found["readable"], found["classes"]) == (20, 19, {"ant": 10, "bee": 10})
    kinds = {f["kind"]: f for f in found["findings"]}
    assert kinds["leak"]["level"] == kinds["broken image"]["level"] == "error"
    assert "copy.png" in kinds["leak"]["examples"][0]
    assert page.read_text().startswith("<!doctype html>")
    text = saccade("data", "inspect", folder, "--no-duplicates").stdout
    assert "error: broken image" in text
    saccade("data", "inspect", folder, "--strict", code=1)
    assert "does not exist" in saccade("data", "inspect", tmp_path / "nothing", code=1).stderr


def test_T2_split_writes_files_that_train_takes(folder, tmp_path):
    out = tmp_path / "s.json"
    counts = json.loads(
        saccade("data", "split", folder, "--fractions", "train=0.8,test=0.2", "--group", "duplicates", "--out", out, "--json").stdout
    )
    assert counts == {str(out): {"train": 16, "test": 4}}
    shown = json.loads(saccade("data", "show", folder, "--split-file", out, "--json").stdout)
    assert shown["splits"] == {"train": 16, "test": 4}
    splits = json.loads(out.read_text())
    side = {name: split for split, names in splits.items() for name in names}
    assert side["test/bee/copy.png"] == side["train/bee/train0.png"]
    saccade("data", "split", folder, "--folds", 4, "--out", tmp_path / "folds")
    folds = [json.loads((tmp_path / "folds" / f"fold{k}.json").read_text()) for k in range(1, 5)]
    assert sorted(n for f in folds for n in f["val"]) == sorted(side)
    assert all(not set(f["train"]) & set(f["val"]) for f in folds)
    assert "is not 0.7,0.15,0.15" in saccade("data", "split", folder, "--fractions", "much", code=2).stderr


def test_T2_view_writes_a_sheet_and_names_what_is_broken(folder, tmp_path):
    out = saccade("data", "view", folder, "--out", tmp_path / "s.png", "--count", 40, "--cell", 80)
    assert "cut.png" in out.stderr
    assert Image.open(tmp_path / "s.png").width > 300
    assert "did you mean 'bee'" in saccade("data", "view", folder, "--class", "beee", "--out", tmp_path / "t.png", code=2).stderr
    assert "no picture format" in saccade("data", "view", folder, "--out", tmp_path / "t.txt", code=2).stderr


def test_D27_priors_on_the_command_line():
    rows = json.loads(saccade("data", "priors", "synthetic:cells?count=12&size=96", "--k", "1-3", "--size", 96, "--json").stdout)
    assert [row["k"] for row in rows] == [1, 2, 3]
    assert "--k is a number or a range" in saccade("data", "priors", "synthetic:cells?count=4", "--k", "3-1", code=2).stderr
