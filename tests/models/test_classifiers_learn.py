"""Every registered classifier that learns by gradient: its loss falls on eight images."""

from __future__ import annotations

import pytest
import torch

from saccade import testing
from saccade.models.index import ENTRIES

STEPS = 12

LIBRARIES = "saccade.models.classify.published"
"""Networks that timm and torchvision keep, at full width: a light one with and one without separable convolutions stand for all."""

OF_LIBRARIES = ("resnet18", "mobilenet_v2")

NAMES = [
    entry.name
    for entry in ENTRIES
    if entry.task == "classify" and entry.kind == "trainable" and (entry.module != LIBRARIES or entry.name in OF_LIBRARIES)
]


@pytest.mark.parametrize("name", NAMES)
def test_C_the_loss_falls_on_eight_images(name):
    model = testing.build(name)
    images, targets = testing.batch(model, 8)[:2]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def loss() -> torch.Tensor:
        return torch.stack(list(model.losses(images, targets).values())).sum()

    model.train()
    seen = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert torch.isfinite(torch.tensor(seen)).all()
    assert min(seen[-3:]) < 0.7 * seen[0], f"{name}: {seen[0]:.3f} to {seen[-1]:.3f} in {STEPS} steps"
