"""C19: temperature scaling against SciPy's minimum, and by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from saccade.metrics.temperature import LEAST, MOST, fit_temperature, nll


def softmax(logits):
    values = np.exp(logits - logits.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_C19_the_temperature_is_scipys_minimum(factor):
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 5)) * 2
    labels = np.array([random.choice(5, p=row) for row in softmax(logits)])  # calibrated at factor 1

    def loss(temperature):
        p = softmax(logits * factor / temperature)
        return -np.log(p[np.arange(400), labels]).mean()

    expected = minimize_scalar(loss, bounds=(LEAST, MOST), method="bounded", options={"xatol": 1e-7})
    found = fit_temperature(softmax(logits * factor), labels)
    assert found == pytest.approx(expected.x, rel=1e-4)
    assert nll(softmax(logits * factor), labels, found) == pytest.approx(expected.fun, abs=1e-9)
    assert nll(softmax(logits * factor), labels) == pytest.approx(loss(1.0), abs=1e-9)
    assert found == pytest.approx(factor, rel=0.15)  # Guo et al.: the over-confident network is cooled by its own factor


def test_C19_two_classes_by_hand():
    """p = 0.9 for every image, right in 3 of 4: at the optimum the scaled p is 3/4, so T = log(9) / log(3) = 2."""
    assert fit_temperature(np.tile([0.9, 0.1], (4, 1)), np.array([0, 0, 0, 1])) == pytest.approx(2.0)


def test_C19_temperature_at_its_ends():
    sure = np.array([[0.6, 0.4], [0.3, 0.7]])
    assert fit_temperature(sure, np.array([0, 1])) == LEAST
    assert fit_temperature(sure, np.array([1, 0])) == MOST
    assert math.isfinite(nll(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1])))
    for probabilities in (np.zeros((0, 2)), np.array([[math.nan, math.nan]])):
        with pytest.raises(ValueError, match="temperature needs"):
            fit_temperature(probabilities, np.zeros(len(probabilities), dtype=int))
