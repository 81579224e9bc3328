"""Overlapping tiles. Oracles: numpy's reflect padding, and the network on the whole mirrored image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saccade.layers.tiling import mirror, mirror_pad, tile_predict


@given(length=st.integers(1, 9), before=st.integers(0, 30), after=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_mirror_is_numpys_reflect(length, before, after):
    expected = np.pad(np.arange(length), (before, after), mode="reflect")
    assert mirror(length, -before, length + after).tolist() == expected.tolist()


def test_mirror_pad_in_three_dimensions():
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(1, 2, 3, 4, 5)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 5), (0, 2), (3, 0)), mode="reflect")
    assert torch.equal(mirror_pad(x, (1, 0, 3), (5, 2, 0)), torch.from_numpy(expected))


def network():
    """Without padding, stride 2 inside: loses 3 positions on each side."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=0), nn.Tanh(), nn.ConvTranspose2d(4, 3, 2, stride=2),
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize(("height", "width"), [(37, 22), (8, 9), (1, 3), (16, 16), (50, 1)])
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_tiles_equal_the_whole_image(height, width, batch):
    net = network()
    image = torch.randn(2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sides = [side + side % 2 for side in (height, width)]
    whole = net(mirror_pad(image[None], (3, 3), [3 + s - t for s, t in zip(sides, (height, width), strict=True)]))[0]
    windows = []

    def function(x):
        windows.append(tuple(x.shape))
        return net(x)

    tiled = tile_predict(function, image, tile=8, margin=3, batch=batch, align=2)
    assert tiled.shape == (3, height, width)
    torch.testing.assert_close(tiled, whole[:, :height, :width], rtol=1e-12, atol=1e-12)
    assert all(shape[0] <= batch and shape[2:] == (14, 14) for shape in windows)


@torch.no_grad()
def test_a_network_with_padding_has_its_margin_cut():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 5, padding=2))
    image = torch.randn(1, 30, 41)
    whole = net(mirror_pad(image[None], (3, 3), (3, 3)))[0, :, 3:-3, 3:-3]
    torch.testing.assert_close(tile_predict(net, image, tile=10, margin=3, batch=4), whole)


def test_an_argmax_inside_keeps_its_dtype():
    image = torch.randn(3, 20, 20)
    labels = tile_predict(lambda x: x.argmax(1, keepdim=True).to(torch.uint8), image, tile=7, margin=0)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels[0].long(), image.argmax(0))


def test_wrong_use():
    image = torch.zeros(1, 8, 8)
    with pytest.raises(ValueError, match="multiple of align"):
        tile_predict(lambda x: x, image, tile=7, margin=0, align=8)
    with pytest.raises(ValueError, match="neither the tile"):
        tile_predict(lambda x: x[..., 1:-1, 1:-1], image, tile=4, margin=2)
