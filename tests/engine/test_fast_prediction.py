"""Prediction with folded normalisation: the plain model on the same images is the oracle."""

import copy

import pytest
import torch

import saccade
from saccade import testing
from saccade.engine.predictor import faster
from saccade.models.registry import create_model
from saccade.types.errors import UsageError

CASES = [
    ("darknet19", {"size": 32, "width": 1 / 8}),
    ("yolov3_tiny", {"size": 64, "width": 1 / 8}),
    ("ssdlite", {"size": 64, "backbone": "test_resnet.r160_in1k", "width": 16}),
    ("unet", {"size": 32, "width": 4}),
]


def lively(name, options):
    torch.manual_seed(0)
    model = create_model(name, 3, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def tensors(raw):
    return [raw] if isinstance(raw, torch.Tensor) else list(raw.values()) if isinstance(raw, dict) else list(raw)


@pytest.mark.parametrize(("name", "options"), CASES, ids=[name for name, _ in CASES])
def test_fast_network_gives_the_same_numbers_from_fewer_layers(name, options):
    model = lively(name, options)
    fast = faster(copy.deepcopy(model))
    count = [sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()) for network in (model, fast)]
    assert count[1] < count[0]
    images = testing.batch(model, 2).images
    with torch.no_grad():
        for plain, other in zip(tensors(model.raw(images)), tensors(fast.raw(images)), strict=True):
            torch.testing.assert_close(other, plain, atol=1e-5 * float(plain.abs().max()), rtol=1e-4)


def test_fast_prediction_of_a_run_and_of_a_model(tmp_path):
    from saccade.engine.bundle import save_bundle

    model = lively("darknet19", {"size": 32, "width": 1 / 8})
    save_bundle(model, tmp_path / "bundle")
    image = (torch.rand(3, 40, 40) * 255).to(torch.uint8)
    plain, fast = (next(iter(saccade.predict(tmp_path / "bundle", image, fast=one))) for one in (False, True))
    torch.testing.assert_close(torch.tensor(fast.scores), torch.tensor(plain.scores), atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="fast changes a model"):
        saccade.predict(model, image, fast=True)


def test_compiled_network_is_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda function: seen.append(function) or function)
    model = lively("darknet19", {"size": 32, "width": 1 / 8})
    own = model.raw
    assert faster(model, compiled=True).raw(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    assert seen == [own]
