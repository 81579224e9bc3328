"""saccade check: arguments, output, exit status."""

import json

import pytest
import typer
from typer.testing import CliRunner

from saccade.cli.check import check as verb
from saccade.data.inspect import Finding
from saccade.types.errors import UsageError
from saccade.workflows import check as workflow

FACTS = {"model": "lenet5", "data": "data/", "images": {"train": 3}, "not_applied": {}, "verdict": "lenet5 can learn these data"}


def run(*arguments):
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False, env={"COLUMNS": "200"})


@pytest.fixture
def caught(monkeypatch):
    """What the library is asked, answered with the findings in ``caught["findings"]``."""
    seen = {"findings": []}

    def answer(model, data, **options):
        seen.update(options, model=model, data=data)
        return workflow.Check(dict(FACTS), seen["findings"], options["out"])

    monkeypatch.setattr(workflow, "check", answer)
    return seen


def test_X5_check_command_passes_everything_on(caught, tmp_path):
    result = run(
        "ssdlite", "data/", "--set", "model.size=160", "--set", "recipe.lr=0.01", "--out", tmp_path, "--no-overfit", "--steps", 5,
        "--seconds", 7, "--seed", 3, "--format", "voc", "--split-file", "s.csv", "--val-split", "none", "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    assert result.exit_code == 0
    assert (caught["model"], caught["data"], caught["out"]) == ("ssdlite", "data/", tmp_path)
    assert caught["options"] == {"model.size": 160, "recipe.lr": 0.01}
    assert (caught["learn"], caught["steps"], caught["seconds"], caught["seed"]) == (False, 5, 7.0, 3)
    assert (caught["format"], caught["split_file"], caught["val_split"], caught["device"]) == ("voc", "s.csv", "none", "cpu")
    assert result.stdout.splitlines()[-2:] == ["lenet5 can learn these data", f"page: {tmp_path / 'check.html'}"]


def test_X5_check_command_status_is_1_after_an_error_only(caught):
    caught["findings"] = [Finding("rare class", "warning", 1, "few")]
    result = run("timm/resnet18", "data/")
    assert result.exit_code == 0
    assert str(caught["out"]) == "check/timm-resnet18"
    assert "warning: rare class (1): few" in result.stdout
    caught["findings"] = [Finding("boxes swapped", "error", 4, "look", ["a.png"])]
    result = run("ssdlite", "data/", "--json")
    answer = json.loads(result.stdout)
    assert answer["findings"][0] == {"kind": "boxes swapped", "level": "error", "count": 4, "text": "look", "examples": ["a.png"]}
    assert answer["folder"] == "check/ssdlite"
    assert result.exit_code == 1 or result.return_value == 1


def test_X5_check_command_refuses_wrong_use(caught):
    with pytest.raises(UsageError, match="write it as model"):
        run("ssdlite", "data/", "--set", "size")
    with pytest.raises(UsageError, match="no device 'tpu7'"):
        run("ssdlite", "data/", "--device", "tpu7")


def test_X5_check_command_whole_way(tmp_path):
    source = "synthetic:shapes?count=28&size=32&task=classify"
    result = run("lenet5", source, "--out", tmp_path / "o", "--workers", 0, "--device", "cpu", "--steps", 30)
    assert result.exit_code == 0
    assert "lenet5 can learn these data" in result.stdout
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"check.html", "batch.png"}
