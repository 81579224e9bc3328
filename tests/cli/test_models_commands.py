"""saccade models info, shape, draw, source, diff."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saccade.cli.models import app, by, layer_lines, parse_size
from saccade.types.errors import UsageError
from saccade.workflows.models import model_shape


def saccade_models(*arguments, columns=120):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": str(columns)}, catch_exceptions=True)


def test_N1_shape_is_a_table_that_fits_the_terminal():
    lines = saccade_models("shape", "alexnet", "--size", 224, columns=80).stdout.splitlines()
    assert lines[0].split() == ["layer", "type", "output", "parameters", "MACs", "field", "jump", "start"]
    assert max(map(len, lines[:24])) <= 80
    first = next(line for line in lines if "conv1 !" in line)
    assert first.split()[-6:] == ["96x54x54", "34,944", "102M", "11", "4", "5.5"]
    assert next(line for line in lines if "fc6" in line).split()[-3:] == ["all", "-", "-"]
    assert "! features.conv1: (224-11)/4 = 53.25 is not whole: 1 of 224 is not seen" in lines
    wide = saccade_models("shape", "alexnet", columns=140).stdout
    assert "LocalResponseNorm" in wide
    assert "is not whole" not in wide  # 227 comes out whole everywhere


def test_N1_shape_in_json_is_what_the_function_gives():
    found = json.loads(saccade_models("shape", "lenet5", "--json", "--classes", 7).stdout)
    assert found == json.loads(json.dumps(model_shape("lenet5", num_classes=7)))
    assert found["parts"][0]["layers"][-1]["output"] == [1, 7]


def test_N1_shape_takes_options_and_both_sides():
    found = json.loads(saccade_models("shape", "unet", "--size", "64x96", "--set", "model.width=4", "--json").stdout)
    assert found["parts"][0]["input"] == [1, 3, 64, 96]
    assert found["parts"][0]["layers"][0]["output"] == [1, 4, 64, 96]


def test_N1_a_model_of_two_networks_has_two_tables():
    out = saccade_models("shape", "dcgan").stdout
    assert [line for line in out.splitlines() if line.endswith(":")] == ["generator:", "discriminator:"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shape", "lenet"), "did you mean 'lenet5'"),
        (("draw", "alexnett", "x.svg"), "did you mean 'alexnet'"),
        (("source", "unett"), "did you mean 'unet'"),
        (("diff", "lenet5", "alexne"), "did you mean 'alexnet'"),
        (("shape", "lenet5", "--size", "12x"), "a side in pixels"),
        (("shape", "lenet5", "--size", "0"), "a side in pixels"),
        (("shape", "lenet5", "--size", "20"), "lenet5 takes 32x32, not 20x20"),
        (("shape", "unet", "--set", "model.widht=3"), "did you mean 'width'"),
        (("shape", "unet", "--set", "recipe.lr=3"), "only model.NAME=VALUE"),
        (("shape", "hog_svm"), "no network of layers"),
        (("draw", "lenet5", "x.pdf"), "name the file with .svg"),
    ],
)
def test_N1_wrong_use_is_one_line_that_says_what_to_do(arguments, message):
    error = saccade_models(*arguments).exception
    assert isinstance(error, UsageError)
    assert message in str(error)
    assert "\n" not in str(error)


def test_N1_draw_and_source(tmp_path):
    out = saccade_models("draw", "lenet5", tmp_path / "l.svg")
    assert out.stdout.strip() == str(tmp_path / "l.svg")
    assert (tmp_path / "l.svg").read_text(encoding="utf-8").startswith("<svg xmlns=")
    path = Path(saccade_models("source", "lenet5", "--path").stdout.strip())
    assert path == Path(importlib.util.find_spec("saccade.models.classify.lenet5").origin)
    assert saccade_models("source", "lenet5").stdout == path.read_text(encoding="utf-8")
    assert saccade_models("source", "timm/resnet18", "--path").stdout.strip().endswith("resnet.py")


def test_N1_diff_says_what_changed():
    text = saccade_models("diff", "alexnet", "zfnet").stdout
    assert "conv1 (Conv2d): kernel 11x11 -> 7x7, stride 4x4 -> 2x2" in text
    assert text.splitlines()[0].split() == ["alexnet", "zfnet"]
    grown = saccade_models("diff", "resnet18", "resnet34").stdout
    assert "+ layer1.2.conv1 to layer1.2.act2: 7 layers (2 Conv2d, 2 BatchNorm2d, 2 ReLU, add), 73,984 parameters" in grown
    assert "the same layers" in saccade_models("diff", "lenet5", "lenet5").stdout
    assert json.loads(saccade_models("diff", "lenet5", "lenet5", "--json").stdout)["layers"] == []


def test_N1_info_has_the_published_accuracy():
    out = saccade_models("info", "resnet18").stdout
    assert "accuracy as published: ImageNet top-1" in out
    assert "accuracy as published" not in saccade_models("info", "lenet5").stdout


def test_N1_parts_of_the_table():
    assert parse_size("240x320") == (240, 320)
    assert parse_size("96") == (96, 96)
    assert parse_size(None) is None
    assert by((3, 224, 224)) == "3x224x224"
    layer = model_shape("lenet5")["parts"][0]["layers"][0] | {"field": [None, 5], "jump": [None, 1.0], "start": [None, 2.5]}
    assert layer_lines([layer], 100)[1].split()[-3:] == ["?x5", "-x1", "?x2.5"]
