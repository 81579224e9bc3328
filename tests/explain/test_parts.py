"""The index of parts: every entry exists, its example runs and gives the shape that it states; the docstrings' examples hold."""

from __future__ import annotations

import doctest
import importlib

import pytest
import timm.layers
import torch
from torch import nn

from saccade.explain.parts import KINDS, PARTS, part
from saccade.types.errors import UsageError

DOCUMENTED = [
    "explain.parts", "layers.blocks", "layers.convolutions", "layers.pooling", "layers.spp", "losses.class_weights", "losses.contrastive",
    "losses.safe_bce",
]  # fmt: skip


def names_for(entry):
    """What an example may name."""
    return {
        "torch": torch, "nn": nn, "create_conv2d": timm.layers.create_conv2d, "BatchNormAct2d": timm.layers.BatchNormAct2d,
        entry.where.rpartition(".")[2]: entry.load(),
    }  # fmt: skip


LAYERS = [entry for entry in PARTS if entry.kind != "loss"]
LOSSES = [entry for entry in PARTS if entry.kind == "loss"]


@pytest.mark.parametrize("entry", LAYERS, ids=lambda e: e.name)
def test_N4_every_part_is_there_and_gives_the_shape_that_the_index_states(entry):
    layer = eval(entry.example, names_for(entry))
    assert isinstance(layer, nn.Module)
    if entry.given:
        assert tuple(layer(torch.rand(entry.given)).shape) == entry.gives


@pytest.mark.parametrize("entry", LOSSES, ids=lambda e: e.name)
def test_N5_every_loss_of_the_index_is_a_finite_number_with_a_gradient(entry):
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.rand(*shape, generator=generator).requires_grad_()

    corner, side = leaf(4, 2), leaf(4, 2)
    boxes1 = torch.cat([corner, corner + side], 1)
    leaves = {
        "logits": leaf(4, 3), "scores": leaf(4), "probabilities": leaf(4), "distances": leaf(4), "anchors": leaf(4, 5),
    }  # fmt: skip
    constants = {
        "labels": torch.tensor([0, 2, 1, 1]), "weights": torch.tensor([1.0, 2, 3]), "targets": torch.tensor([0.0, 1, 1, 0]),
        "boxes1": boxes1,
        "boxes2": torch.tensor([[0.0, 0, 1, 1]]).expand(4, 4), "positives": torch.rand(4, 5, generator=generator),
        "negatives": torch.rand(4, 5, generator=generator),
    }  # fmt: skip
    value = eval(entry.example, names_for(entry) | leaves | constants)
    assert value.ndim == 0
    assert torch.isfinite(value)
    assert value >= 0
    value.backward()
    grads = [x.grad for x in (*leaves.values(), corner) if x.grad is not None]
    assert len(grads) == 1
    assert torch.isfinite(grads[0]).all()
    assert grads[0].abs().sum() > 0


def test_N4_names_are_found_once_or_the_nearest_is_suggested():
    assert len({entry.name for entry in PARTS}) == len(PARTS)
    assert {entry.kind for entry in PARTS} == set(KINDS)
    assert part("jpu").load().__name__ == "JointPyramidUpsampling"
    with pytest.raises(UsageError, match="did you mean 'roi_align'"):
        part("roialign")


def test_N4_every_own_layer_and_loss_stands_in_the_index():
    """What the rooms of layers and losses define for other files to use, but for what only composes or counts."""
    listed = {entry.where for entry in PARTS}
    for room in ("convolutions", "pooling", "blocks", "spp", "conv_bn"):
        module = importlib.import_module(f"saccade.layers.{room}")
        own = {f"{module.__name__}.{k}" for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__}
        assert own
        assert own <= listed
    for room in ("contrastive", "dice", "focal", "jaccard", "safe_bce", "tversky"):
        module = importlib.import_module(f"saccade.losses.{room}")
        own = {k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and k.endswith(("_loss", "_entropy"))}
        assert own
        assert {f"{module.__name__}.{k}" for k in own} <= listed


@pytest.mark.parametrize("name", DOCUMENTED)
def test_N2_the_examples_in_the_docstrings_hold(name):
    found = doctest.testmod(importlib.import_module(f"saccade.{name}"))
    assert found.failed == 0
    assert found.attempted >= 1
