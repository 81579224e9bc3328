"""Optimisers, schedules and averaged weights against torch's own and hand-computed values."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from saccade.engine.callbacks import AverageWeights, clock
from saccade.tasks.base import make_optimizer, make_schedule, parameter_groups
from saccade.types.recipe import Recipe


def rates(recipe, steps_per_epoch=10):
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    schedule = make_schedule(optimizer, recipe, steps_per_epoch)
    out = []
    for _ in range(recipe.epochs * steps_per_epoch):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def torch_rates(make, lr, count):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=lr)
    schedule = make(optimizer)
    out = []
    for _ in range(count):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def test_N6_cosine_is_torchs():
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.01), 0.1, 50)
    assert rates(Recipe(epochs=5, lr=0.1, schedule="cosine", lr_final=0.1)) == pytest.approx(expected)


def test_N6_multistep_is_torchs():
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, [25, 40], 0.5), 0.1, 50)
    assert rates(Recipe(epochs=5, lr=0.1, schedule="multistep", lr_steps=(0.5, 0.8), lr_gamma=0.5)) == pytest.approx(expected)


def test_N6_step_is_torchs():
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, 10, 0.5), 0.1, 50)
    assert rates(Recipe(epochs=5, lr=0.1, schedule="step", lr_steps=(0.2,), lr_gamma=0.5)) == pytest.approx(expected)


def test_N6_onecycle_peaks_and_ends_as_torchs():
    expected = torch_rates(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=500, cycle_momentum=False), 0.1, 500)
    ours = rates(Recipe(epochs=5, lr=0.1, schedule="onecycle"), 100)
    assert ours == pytest.approx(expected)


def test_N6_warm_up_is_linear_by_hand():
    ours = rates(Recipe(epochs=2, lr=1.0, schedule="constant", warmup=0.4))
    assert ours[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam"])
def test_N6_every_optimiser_lowers_a_loss_and_is_torchs(name):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = make_optimizer(model, Recipe(optimizer=name, lr=0.01))
    assert type(optimizer).__name__.lower() == name
    x, y = torch.randn(64, 4), torch.randn(64, 1)
    first = None
    for _ in range(30):
        loss = ((model(x) - y) ** 2).mean()
        first = first if first is not None else loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first


def test_biases_and_norms_do_not_decay_and_the_backbone_has_its_rate():
    model = nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), "head": nn.Linear(2, 2)})
    groups = parameter_groups(model, Recipe(lr=0.1, backbone_lr=0.1, weight_decay=0.5))
    table = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert table[id(model["backbone"][0].weight)] == (pytest.approx(0.01), 0.5)
    assert table[id(model["backbone"][1].weight)] == (pytest.approx(0.01), 0.0)
    assert table[id(model["head"].weight)] == (0.1, 0.5)
    assert table[id(model["head"].bias)] == (0.1, 0.0)
    model["head"].weight.requires_grad_(False)
    assert id(model["head"].weight) not in {id(p) for g in parameter_groups(model, Recipe()) for p in g["params"]}


def test_averaged_weights_by_hand():
    """d_t = min(decay, (1 + t) / (10 + t)): after t = 1 a step keeps 2/11 of the average."""
    update = AverageWeights(0.9)._kwargs["multi_avg_fn"]

    def average(start, now, t):
        tensor = torch.tensor(start)
        update([tensor], [torch.tensor(now)], torch.tensor(t))
        return tensor.item()

    assert average(0.0, 11.0, 1) == pytest.approx(9.0)
    assert average(0.0, 10.0, 10_000) == pytest.approx(1.0)
    assert average(3, 8, 5) == 8


def test_clock():
    assert [clock(s) for s in (5, 75, 3700, float("nan"))] == ["0:05", "1:15", "1:01:40", "?"]
