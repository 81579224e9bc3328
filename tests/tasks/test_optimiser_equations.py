"""The recipe's optimisers and schedules (CANON N6) as their papers' equations, one number at a time."""

from __future__ import annotations

import itertools
import math

import pytest
from torch import nn

from saccade.tasks.base import Task, make_optimizer, make_schedule
from saccade.types.recipe import Recipe

LR, DECAY, MOMENTUM, B1, B2 = 0.1, 0.02, 0.8, 0.85, 0.97
STEPS = 6


def slope(w):
    """Of f(w) = w^4 / 4 + w, which is not symmetric."""
    return w**3 + 1


def by_torch(**options):
    """What the recipe's optimiser makes of one weight."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1.5)
    recipe = Recipe(lr=LR, weight_decay=DECAY, momentum=MOMENTUM, betas=(B1, B2), **options)
    optimizer, seen = make_optimizer(model, recipe), []
    for _ in range(STEPS):
        model.weight.grad = slope(model.weight.detach())
        optimizer.step()
        seen.append(model.weight.item())
    return seen


def sgd(w, state, t, nesterov=False):
    """v = mu v + g; w = w - lr v, or with Nesterov w - lr (g + mu v)."""
    g = slope(w) + DECAY * w
    state["v"] = MOMENTUM * state["v"] + g if t > 1 else g
    return w - LR * (g + MOMENTUM * state["v"] if nesterov else state["v"])


def nesterov(w, state, t):
    return sgd(w, state, t, nesterov=True)


def rmsprop(w, state, t):
    """Hinton's lecture 6e: s = 0.99 s + 0.01 g^2; v = mu v + g / sqrt(s)."""
    g = slope(w) + DECAY * w
    state["s"] = 0.99 * state.get("s", 0.0) + 0.01 * g * g
    state["v"] = MOMENTUM * state.get("v", 0.0) + g / (math.sqrt(state["s"]) + 1e-8)
    return w - LR * state["v"]


def adagrad(w, state, t):
    """Duchi, Hazan, Singer 2011: the sum of all squares below the root."""
    g = slope(w) + DECAY * w
    state["s"] = state.get("s", 0.0) + g * g
    return w - LR * g / (math.sqrt(state["s"]) + 1e-10)


def adadelta(w, state, t):
    """Zeiler, arXiv 1212.5701, algorithm 1: rho 0.9, eps 1e-6."""
    g = slope(w) + DECAY * w
    state["s"] = 0.9 * state.get("s", 0.0) + 0.1 * g * g
    step = math.sqrt(state.get("u", 0.0) + 1e-6) / math.sqrt(state["s"] + 1e-6) * g
    state["u"] = 0.9 * state.get("u", 0.0) + 0.1 * step * step
    return w - LR * step


def moments(g, state):
    state["m"] = B1 * state.get("m", 0.0) + (1 - B1) * g
    state["v"] = B2 * state.get("v", 0.0) + (1 - B2) * g * g


def adam(w, state, t):
    """Kingma, Ba, arXiv 1412.6980, algorithm 1; the decay is part of the gradient."""
    moments(slope(w) + DECAY * w, state)
    return w - LR * (state["m"] / (1 - B1**t)) / (math.sqrt(state["v"] / (1 - B2**t)) + 1e-8)


def adamw(w, state, t):
    """Loshchilov, Hutter, arXiv 1711.05101, algorithm 2; the decay is apart from the gradient."""
    moments(slope(w), state)
    return w - LR * DECAY * w - LR * (state["m"] / (1 - B1**t)) / (math.sqrt(state["v"] / (1 - B2**t)) + 1e-8)


def adamax(w, state, t):
    """Kingma, Ba, algorithm 2: the largest decayed slope below, no root."""
    g = slope(w) + DECAY * w
    state["m"] = B1 * state.get("m", 0.0) + (1 - B1) * g
    state["u"] = max(B2 * state.get("u", 0.0), abs(g) + 1e-8)
    return w - LR / (1 - B1**t) * state["m"] / state["u"]


def nadam(w, state, t):
    """Dozat 2016, algorithm 2, momentum mu_t = b1 (1 - 0.5 * 0.96^(t * 0.004))."""
    g = slope(w) + DECAY * w
    moments(g, state)
    now, after = (B1 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in (t, t + 1))
    state["p"] = state.get("p", 1.0) * now
    ahead = after * state["m"] / (1 - state["p"] * after) + (1 - now) * g / (1 - state["p"])
    return w - LR * ahead / (math.sqrt(state["v"] / (1 - B2**t)) + 1e-8)


@pytest.mark.parametrize("equation", [sgd, nesterov, rmsprop, adagrad, adadelta, adam, adamw, adamax, nadam], ids=lambda f: f.__name__)
def test_N6_every_optimiser_is_its_equation(equation):
    options = {"optimizer": "sgd", "nesterov": True} if equation is nesterov else {"optimizer": equation.__name__}
    w, state, expected = 1.5, {}, []
    for t in range(1, STEPS + 1):
        w = equation(w, state, t)
        expected.append(w)
    assert by_torch(**options) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def rates(steps_per_epoch=10, **options):
    recipe = Recipe(lr=2.0, **options)
    optimizer = make_optimizer(nn.Linear(1, 1), recipe)
    schedule, out = make_schedule(optimizer, recipe, steps_per_epoch), []
    for _ in range(recipe.epochs * steps_per_epoch):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def test_N6_schedules_in_closed_form():
    total = 40
    assert rates(epochs=4, schedule="constant") == [2.0] * total
    cosine = [2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / total)) / 2) for t in range(total)]
    assert rates(epochs=4, schedule="cosine", lr_final=0.1) == pytest.approx(cosine)
    assert rates(epochs=4, schedule="linear") == pytest.approx([2.0 * (1 - t / total) for t in range(total)])
    assert rates(epochs=4, schedule="step", lr_steps=(0.25,), lr_gamma=0.5) == pytest.approx([2.0 * 0.5 ** (t // 10) for t in range(total)])
    drops = [2.0 * 0.1 ** ((t >= 20) + (t >= 30)) for t in range(total)]
    assert rates(epochs=4, schedule="multistep", lr_steps=(0.5, 0.75)) == pytest.approx(drops)


def test_N6_warm_up_rises_by_equal_steps_and_the_cosine_takes_what_is_left():
    warm = rates(epochs=4, schedule="cosine", warmup=0.9)
    assert warm[:9] == pytest.approx([2.0 * (t + 1) / 10 for t in range(9)])
    assert warm[9:] == pytest.approx([2.0 * (1 + math.cos(math.pi * t / 31)) / 2 for t in range(31)])


def test_N6_one_cycle_goes_up_for_a_third_of_the_run_and_down_to_almost_nothing():
    cycle = rates(epochs=10, schedule="onecycle")
    assert cycle[0] == pytest.approx(2.0 / 25)
    assert max(cycle) == cycle[29] == pytest.approx(2.0)  # 30% of 100 steps
    assert cycle[-1] == pytest.approx(2.0 / 25 * 1e-4)
    assert all(a < b for a, b in itertools.pairwise(cycle[:30]))
    assert all(a > b for a, b in itertools.pairwise(cycle[29:]))


def test_N6_plateau_lowers_the_rate_after_so_many_validations_without_gain():
    task = Task(nn.Linear(1, 1), Recipe(lr=2.0, schedule="plateau", plateau_patience=2, lr_gamma=0.5), steps_per_epoch=1)
    assert task.monitor_mode() == "min"
    optimizer, seen = task.configure_optimizers(), []
    for value in (1.0, 0.9, 0.95, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6):
        task._plateau.step(value)
        seen.append(optimizer.param_groups[0]["lr"])
    # best at the second; the fifth is the third without a gain, the eighth again; the ninth is a gain
    assert seen == [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
