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
