"""The contract on CUDA with mixed precision. One command: ``pytest -m gpu``."""

import numpy as np
import pytest
import torch

import saccade
from saccade import testing
from saccade.models.registry import find

pytestmark = pytest.mark.gpu
BY_GRADIENT = [name for name in testing.representatives() if find(name).kind in ("trainable", "adversarial")]
DATA = {"classify": "synthetic:shapes?count=24&size=48&task=classify", "detect": "synthetic:shapes?count=24&size=64",
        "segment": "synthetic:shapes?count=24&size=48&task=segment", "generate": "synthetic:shapes?count=24&size=32"}  # fmt: skip


def to_cuda(batch):
    images = batch.images.cuda() if isinstance(batch.images, torch.Tensor) else [image.cuda() for image in batch.images]
    return images, [{k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in t.items()} for t in batch.targets]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_losses_and_gradients_under_autocast(name, dtype):
    model = testing.build(name).cuda().train()
    images, targets = to_cuda(testing.batch(model, 4))
    with torch.autocast("cuda", dtype=dtype):
        losses = model.losses(images, targets)
    total = torch.stack([v.float() for v in losses.values()]).sum()
    assert torch.isfinite(total)
    total.backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", [name for name in BY_GRADIENT if find(name).kind == "trainable"])
def test_predictions_equal_the_cpus(name):
    model = testing.build(name).eval()
    image = testing.picture((64, 80))
    raw_cpu = model.predict(image, score=0.0)[0]
    raw_gpu = model.cuda().predict(image, score=0.0)[0]
    for field in ("scores", "mask"):
        if getattr(raw_cpu, field, None) is not None:
            a, b = np.asarray(getattr(raw_cpu, field)), np.asarray(getattr(raw_gpu, field))
            assert a.shape == b.shape
            assert np.mean(~np.isclose(a, b, atol=1e-3)) < 0.01


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_run_on_cuda(name, precision, tmp_path):
    settings = {f"model.{k}": v for k, v in find(name).tiny.items()}
    settings |= {"recipe.epochs": 1, "recipe.batch_size": 4, "recipe.precision": precision}
    run = saccade.train(
        name,
        DATA[find(name).task],
        folder=tmp_path / "run",
        options=settings,
        accelerator="gpu",
        workers=0,
        report=False,
        say=lambda _: None,
    )
    assert all(np.isfinite(row["train_loss"]) for row in run.history)
    assert saccade.load(run.folder, device="cuda").predict(testing.picture((40, 40)))
