"""Box coders against torchvision's and by hand."""

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder as TorchvisionCoder

from saccade.boxes.coders import MAX_LOG_SCALE, BoxCoder


def random_boxes(n, seed):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * 200
    return torch.cat([corner, corner + 1 + torch.rand(n, 2, generator=g) * 100], dim=1)


@pytest.mark.parametrize("weights", [(10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0)])
def test_D1_coder_equals_torchvision(weights):
    boxes, anchors = random_boxes(50, 0), random_boxes(50, 1)
    ours, theirs = BoxCoder(weights), TorchvisionCoder(weights)
    deltas = ours.encode(boxes, anchors)
    torch.testing.assert_close(deltas, theirs.encode_single(boxes, anchors))
    torch.testing.assert_close(ours.decode(deltas, anchors), boxes, atol=1e-3, rtol=1e-5)
    wild = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 50
    torch.testing.assert_close(ours.decode(wild, anchors), theirs.decode_single(wild, anchors))


def test_D1_coder_by_hand():
    anchor = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    box = torch.tensor([[5.0, 10.0, 25.0, 20.0]])  # centre 15, 15; 20 x 10
    expected = torch.tensor([[1.0, 0.25, math.log(2), math.log(0.5)]])
    torch.testing.assert_close(BoxCoder((1.0, 1.0, 1.0, 1.0)).encode(box, anchor), expected)
    # SSD's variances 0.1, 0.2 are the weights 10, 5
    torch.testing.assert_close(BoxCoder().encode(box, anchor), expected / torch.tensor([0.1, 0.1, 0.2, 0.2]))


def test_decode_clips_the_scale_and_broadcasts():
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    out = BoxCoder().decode(torch.tensor([[0.0, 0.0, 1e6, 0.0]]), anchor)
    assert out.isfinite().all()
    assert float(out[0, 2] - out[0, 0]) == pytest.approx(1000, rel=1e-4)
    assert pytest.approx(math.log(62.5)) == MAX_LOG_SCALE
    assert BoxCoder().decode(torch.zeros(3, 5, 4), random_boxes(5, 3)).shape == (3, 5, 4)
    assert BoxCoder().decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
