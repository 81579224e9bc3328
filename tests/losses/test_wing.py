"""C21: the Wing loss (Feng et al. 2017, arXiv 1711.06753). Oracle: equation 5, literally, in math."""

import math

import pytest
import torch

from saccade.losses.wing import wing_loss


def literal(x, w, epsilon):
    c = w - w * math.log(1 + w / epsilon)
    return w * math.log(1 + abs(x) / epsilon) if abs(x) < w else abs(x) - c


@pytest.mark.parametrize(("w", "epsilon"), [(10.0, 2.0), (15.0, 3.0), (1.0, 0.5)])
def test_C21_wing_is_equation_5(w, epsilon):
    values = [-40.0, -w, -w + 1e-3, -1.0, 0.0, 0.01, 0.5, w - 1e-3, w, 3 * w]
    got = wing_loss(torch.tensor(values, dtype=torch.float64), width=w, epsilon=epsilon)
    torch.testing.assert_close(got, torch.tensor([literal(x, w, epsilon) for x in values], dtype=torch.float64))


def test_C21_wing_meets_at_w_and_has_the_gradients_of_the_paper():
    x = torch.tensor([1e-9, 0.5, 10.0 - 1e-6, 10.0 + 1e-6, 50.0], dtype=torch.float64, requires_grad=True)
    loss = wing_loss(x, width=10.0, epsilon=2.0)
    assert abs(float(loss[3].detach() - loss[2].detach())) < 1e-5
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    # w / (epsilon + |x|) inside, 1 outside: largest at small errors, where L2's vanishes
    torch.testing.assert_close(gradient, torch.tensor([5.0, 4.0, 10 / 12, 1.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_C21_wing_refuses_no_width():
    with pytest.raises(ValueError, match="above 0"):
        wing_loss(torch.zeros(1), width=0)
