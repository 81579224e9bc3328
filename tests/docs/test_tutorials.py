"""The tutorials run as they stand and show what they say; the worked example of a paper is a good citizen."""

import importlib
import json
import re
import runpy
from pathlib import Path

import pytest

import saccade
from saccade import testing

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"


def number(pattern, text):
    return float(re.search(pattern, text)[1])


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``run(name)``: the script in an empty folder; gives what it printed."""

    def go(name):
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(TUTORIALS / f"{name}.py"))
        return capsys.readouterr().out

    return go


@pytest.mark.slow
def test_first_detector(run, tmp_path):
    said = run("first_detector")
    assert number(r"test: mAP@.5 ([\d.]+)", said) > 0.2
    assert (tmp_path / "found" / "0.png").is_file()
    assert (tmp_path / "runs" / "ssdlite-001" / "report.html").is_file()


def test_own_folder(run, tmp_path):
    said = run("own_folder")
    assert number(r"test accuracy ([\d.]+)", said) > 0.85
    low, high = map(float, re.search(r"interval over the images ([\d.]+) to ([\d.]+)", said).groups())
    assert 0.7 < low < high <= 1
    assert (tmp_path / "digits.html").is_file()
    splits = json.loads((tmp_path / "splits.json").read_text())
    assert sorted(map(len, splits.values())) == [100, 100, 400]


def test_segmenter(run, tmp_path):
    said = run("segmenter")
    assert number(r"mean IoU ([\d.]+)", said) > 0.5
    assert (tmp_path / "masks" / "0.png").is_file()


@pytest.mark.slow
def test_bake_off(run, tmp_path):
    said = run("bake_off")
    assert said.splitlines()[0].startswith("lenet5")
    assert "behind lenet5 on average" in said
    assert (tmp_path / "compare" / "index.html").is_file()


def test_clean_labels(run, tmp_path):
    said = run("clean_labels")
    assert "2 images can go" in said
    assert number(r"(\d+) of them planted", said) >= 10
    assert "602 images before, and none was changed" in said
    assert (tmp_path / "suspects" / "report.html").is_file()


def test_all_are_run_and_shown():
    names = {path.stem for path in TUTORIALS.glob("*.py")}
    tested = set(re.findall(r'run\("(\w+)"\)', Path(__file__).read_text())) | {"tiny_points"}
    shown = set(re.findall(r'--8<-- "tutorials/(\w+).py"', (TUTORIALS.parent / "tutorials.md").read_text()))
    assert names == tested == shown
    for path in TUTORIALS.glob("*.py"):
        assert path.stem == "tiny_points" or len(path.read_text().splitlines()) <= 80, path.name


# -- a paper in one file, as a package of its own -------------------------------------------------


@pytest.mark.parametrize("check", testing.BY_GRADIENT + testing.COMMON + (testing.check_export,), ids=lambda c: c.__name__)
def test_the_worked_example_passes_the_contract_suite(check, registered):
    check("tiny_points")


def test_the_worked_example_is_listed_and_refuses_what_it_has_not(registered):
    assert "tiny_points" in [m["name"] for m in saccade.list_models("detect")]
    assert set(testing.checks_for("tiny_points")) == {*testing.BY_GRADIENT, *testing.COMMON, testing.check_export}
    with pytest.raises(saccade.UsageError, match="no weights are published"):
        saccade.create_model("tiny_points", 2, pretrained=True)
    with pytest.raises(saccade.UsageError, match="a multiple of 4"):
        saccade.create_model("tiny_points", 2, size=30)


def test_the_worked_example_has_its_papers_loss(registered):
    """Equation 1 literally, pixel by pixel; peaks are 1 and a sixth of the sides is their deviation."""
    import torch

    points = importlib.import_module("tiny_points")  # another test may not have loaded it
    truth = torch.zeros(2, 8, 10)
    points.draw_heat(truth, torch.tensor([3, 6]), torch.tensor([4, 2]), torch.tensor([[6.0, 12.0], [6.0, 6.0]]), torch.tensor([1, 1]))
    assert truth[0].sum() == 0
    assert (truth == 1).nonzero().tolist() == [[1, 2, 6], [1, 4, 3]]
    assert float(truth[1, 4, 2]) == pytest.approx(2.718281828**-0.5)  # one deviation to the left
    assert float(truth[1, 6, 3]) == pytest.approx(2.718281828**-0.5)  # one, which is two cells, below
    logits = torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = 0.0
    for p, y in zip(logits.sigmoid().flatten().tolist(), truth.flatten().tolist(), strict=True):
        expected -= (1 - p) ** 2 * torch.tensor(p).log().item() if y == 1 else (1 - y) ** 4 * p**2 * torch.tensor(1 - p).log().item()
    assert points.heat_loss(logits, truth.double()).item() == pytest.approx(expected, rel=1e-5)


def test_the_worked_example_learns(registered, tmp_path):
    data = "synthetic:cells?count=60&size=64"
    options = {"model.size": 64, "model.width": 16}
    run = saccade.train("tiny_points", data, epochs=16, folder=tmp_path / "run", options=options, workers=0, say=lambda _: None)
    assert run.metrics["map50/red cell"] > 0.5
    (prediction,) = saccade.predict(run.folder, [saccade.load_data(data, "test")[0].image])
    assert (prediction.boxes[:, 2:] > prediction.boxes[:, :2]).all()


@pytest.mark.slow
def test_X5_a_detector_of_another_package_is_compared(registered, tmp_path, monkeypatch):
    """The queue's processes find it as an installed package, by its entry point."""
    monkeypatch.setenv("PYTHONPATH", str(registered))
    options = {"tiny_points": {"model.size": 32, "model.width": 4}, "hog_svm": {"model.rounds": 0, "model.max_negatives": 100}}
    made = saccade.compare(
        ["tiny_points", "hog_svm"], "synthetic:shapes?count=24&size=32", epochs=1, out=tmp_path / "c", options=options, workers=0, say=print
    )  # fmt: skip
    assert not made.failures
    assert {row["model"] for row in made.rows} == {"tiny_points", "hog_svm"}
    row = next(row for row in made.rows if row["model"] == "tiny_points")
    assert row["macs"] > 0
    assert row["latency_ms"] > 0
