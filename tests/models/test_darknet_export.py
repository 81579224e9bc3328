"""Models of ours written for Darknet: read back through the reader of cfg files, they give the same numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from saccade.engine.bundle import load_bundle
from saccade.models.darknet.export import write_darknet
from saccade.models.darknet.model import load_darknet
from saccade.models.registry import create_model
from saccade.types.errors import DataError, UsageError
from saccade.workflows.evaluate import is_predictions

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Statistics and weights that are not the initial ones."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "cfg", "priors"),
    [
        ("yolov3_tiny", "pjreddie_yolov3-tiny", "10x12,20x25,33x30,5x6,8x8,9x12"),
        ("yolov3_tiny", "pjreddie_yolov3-tiny", "paper"),
        ("yolov2_tiny", "pjreddie_yolov2-tiny-voc", "10x12,20x25,33x30,5x6,8x8"),
        ("yolov4_tiny", "alexey_yolov4-tiny", "paper"),
    ],
)
def test_D26_detector_written_for_darknet_gives_the_same_boxes(name: str, cfg: str, priors: str, tmp_path: Path) -> None:
    model = lively(create_model(name, 3, size=96, priors=priors))
    model.classes = ["a", "b", "c"]
    files = write_darknet(model, tmp_path / "cells.weights", CFGS / f"{cfg}.cfg")
    assert sorted(file.name for file in files) == ["cells.cfg", "cells.names", "cells.weights"]
    theirs = load_bundle(tmp_path / "cells.cfg")
    assert theirs.classes == ["a", "b", "c"]
    assert theirs.preprocess.size == (96, 96)
    again = load_darknet(tmp_path / "cells.cfg", tmp_path / "cells.weights", dialect="alexeyab")
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        raw, expected = model.raw(x), again.raw(x)
        for ours, other in zip(raw, expected, strict=True):
            torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-3)
        boxes, _, scores = model.boxes_and_scores(raw)
        other_boxes, _, other_scores = again.boxes_and_scores(expected, (96, 96))
    torch.testing.assert_close(boxes, other_boxes, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(scores, other_scores, atol=1e-4, rtol=1e-3)


@pytest.mark.real
def test_D26_yolov1_for_grey_images_of_another_size_and_number_of_boxes_written_for_darknet(tmp_path: Path) -> None:
    model = lively(create_model("yolov1_tiny", 2, size=128, boxes=3, in_chans=1))
    write_darknet(model, tmp_path / "cells", CFGS / "pjreddie_yolov1-tiny.cfg")
    again = load_darknet(tmp_path / "cells.cfg", tmp_path / "cells.weights", dialect="alexeyab")
    assert again.preprocess.channels == 1
    x = torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(model.raw(x), again.raw(x), atol=1e-4, rtol=1e-3)


@pytest.mark.real
def test_D26_classifier_written_for_darknet(tmp_path: Path) -> None:
    model = lively(create_model("darknet19", 5, size=64))
    model.classes = list("abcde")
    write_darknet(model, tmp_path / "leaves", CFGS / "pjreddie_darknet19.cfg")
    again = load_darknet(tmp_path / "leaves.cfg", tmp_path / "leaves.weights", dialect="alexeyab")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.raw(x), again.raw(x), atol=1e-3, rtol=1e-3)


@pytest.mark.real
def test_D26_cfg_of_another_network_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = create_model("yolov3_tiny", 3, size=96)
    with pytest.raises(DataError, match=r"another network.*yolov3-tiny\.cfg"):
        write_darknet(model, tmp_path / "cells", CFGS / "alexey_yolov4-tiny.cfg")
    assert not list(tmp_path.iterdir())


def test_D26_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no network of Darknet's"):
        write_darknet(create_model("lenet5", 3), tmp_path / "x")


def test_D26_cfg_without_weights_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text("[net]\nwidth=32\nheight=32\n[convolutional]\nfilters=2\n[avgpool]\n")
    with pytest.raises(DataError, match=r"net\.weights.*beside"):
        load_bundle(tmp_path / "net.cfg")


TINY_V3 = """[net]
width=32
height=32
[convolutional]
filters=18
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=1,2,3,4,5,6
classes=1
num=3
"""


def test_D26_a_description_with_other_heads_is_another_network(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(TINY_V3)
    with pytest.raises(DataError, match=r"net\.cfg: is of another network: it has 1 heads, the model 2 \(take yolov3-tiny\.cfg"):
        write_darknet(create_model("yolov3_tiny", 3, size=96, width=0.1), tmp_path / "cells", tmp_path / "net.cfg")
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


def test_D26_the_given_description_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(TINY_V3)
    with pytest.raises(UsageError, match=r"net\.cfg is the description that was given"):
        write_darknet(create_model("yolov3_tiny", 3, size=96, width=0.1), tmp_path / "net", tmp_path / "net.cfg")
    assert (tmp_path / "net.cfg").read_text() == TINY_V3
    assert [p.name for p in tmp_path.iterdir()] == ["net.cfg"]


@pytest.mark.parametrize("name", ["..", ".", "/"])
def test_D26_a_folder_is_no_name_of_files(name: str) -> None:
    with pytest.raises(UsageError, match="is a folder; give the name of the files in it"):
        write_darknet(create_model("yolov3_tiny", 3, size=96, width=0.1), name)


def test_D26_a_model_of_darknets_own_files_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(TINY_V3)
    with pytest.raises(UsageError, match="nothing to export"):
        write_darknet(load_darknet(tmp_path / "net.cfg"), tmp_path / "x")


def test_D26_a_cfg_is_evaluated_as_a_run_is_and_other_files_are_no_bundles(tmp_path: Path) -> None:
    (tmp_path / "net.cfg").write_text(TINY_V3)
    assert not is_predictions(tmp_path / "net.cfg")
    (tmp_path / "net.weights").write_bytes(b"x" * 40)
    with pytest.raises(DataError, match=r"net\.weights: is a file \(give a run folder.*NAME\.cfg"):
        load_bundle(tmp_path / "net.weights")


def test_D26_a_picture_given_as_weights_is_one_short_line(tmp_path: Path) -> None:
    (tmp_path / "a.weights").write_bytes(b"\x89PNG" * 20)
    with pytest.raises(DataError, match=r"^\S+a\.weights: cannot be read as weights \(expected") as caught:
        create_model("yolov3_tiny", 3, width=0.1, weights=tmp_path / "a.weights")
    assert "weights_only" not in str(caught.value)
