"""saccade compare: arguments, output, exit status."""

import json

import pytest
import typer
from typer.testing import CliRunner

from saccade.cli.compare import compare as verb
from saccade.types.errors import UsageError
from saccade.workflows import compare as workflow


def run(*arguments):
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False, env={"COLUMNS": "200"})


@pytest.fixture
def caught(monkeypatch, tmp_path):
    """What the library is asked, answered with two rows, one of them failed when ``caught["fail"]``."""
    seen = {"fail": False}

    def answer(models, data, **options):
        seen.update(options, models=models, data=data)
        nothing = dict.fromkeys(
            ["low", "high", "difference", "difference_low", "difference_high", *workflow.MEASURED], float("nan")
        )  # fmt: skip
        rows = [
            nothing | {"model": name, "runs": 1, "wanted": 1, "value": 0.5, "best": i == 0, "values": {0: 0.5}, "error": "", "report": ""}
            for i, name in enumerate(models)
        ]
        if seen["fail"]:
            rows[-1] |= {"error": "broke", "runs": 0, "value": float("nan")}
        return workflow.Comparison(tmp_path, "accuracy", rows, {})

    monkeypatch.setattr(workflow, "compare", answer)
    return seen


def test_X5_cli_passes_everything_on(caught, tmp_path):
    result = run(
        "data/", "lenet5", "timm/resnet18", "--seeds", 3, "--budget", "10m", "--metric", "macro_f1", "--out", tmp_path, "--jobs", 2,
        "--set", "lenet5:recipe.lr=0.01", "--set", "recipe.batch_size=4", "--data-sizes", "0.25,0.5,1", "--workers", 0, "--allow-leaks",
    )  # fmt: skip
    assert result.exit_code == 0
    assert (caught["data"], caught["models"]) == ("data/", ["lenet5", "timm/resnet18"])
    assert caught["options"] == {"lenet5": {"recipe.lr": 0.01}, "*": {"recipe.batch_size": 4}}
    assert (caught["seeds"], caught["budget"], caught["epochs"], caught["metric"], caught["jobs"]) == (3, "10m", None, "macro_f1", 2)
    assert (caught["data_sizes"], caught["workers"], caught["allow_leaks"]) == ([0.25, 0.5, 1.0], 0, True)
    assert result.stdout.startswith("| model | accuracy |")
    assert len(result.stdout.splitlines()) == 4


def test_X5_cli_json_and_status_of_a_failure(caught):
    caught["fail"] = True
    result = run("data/", "lenet5", "timm/resnet18", "--json")
    answer = json.loads(result.stdout)
    assert answer["best"] == "lenet5"
    assert answer["rows"][1]["error"] == "broke"
    assert answer["rows"][1]["value"] is None
    assert result.exit_code == 1 or result.return_value == 1


def test_X5_cli_refuses_sizes_that_are_none(caught):
    with pytest.raises(UsageError, match="write shares such as"):
        run("data/", "lenet5", "--data-sizes", "half")


@pytest.mark.slow
def test_X5_cli_whole_way(tmp_path):
    result = run(
        "synthetic:shapes?count=24&size=32&task=classify", "lenet5", "--epochs", 1, "--set", "recipe.batch_size=8", "--out", tmp_path / "o",
        "--workers", 0, "--json",
    )  # fmt: skip
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["rows"][0]["epochs"] == 1
    assert (tmp_path / "o" / "index.html").is_file()
