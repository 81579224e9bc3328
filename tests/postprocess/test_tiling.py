"""Segmenters on images larger than their input."""

import numpy as np
import pytest
import torch

from saccade.models.segment.unet import unet
from saccade.postprocess.tiling import predict_tiled
from saccade.types.errors import UsageError


@torch.no_grad()
def test_tiles_of_a_padded_network_equal_the_whole_image():
    torch.manual_seed(0)
    model = unet(3, width=4, depth=2, size=32).eval()  # sees 20 positions on each side
    image = torch.randint(0, 256, (3, 150, 110), dtype=torch.uint8)
    tiled = predict_tiled(model, image, tile=32, margin=32, batch=3, align=4)
    assert tiled.mask.shape == (150, 110)
    assert tiled.mask.dtype == np.uint8
    assert tiled.size == (150, 110)
    from saccade.layers.tiling import mirror_pad
    from saccade.types.geometry import Geometry

    tensor = model.preprocess.image(image, Geometry((150, 110), (150, 110)))
    whole = model.raw(mirror_pad(tensor[None], (32, 32), (32 + 10, 32 + 18)))[0, :, 32 : 32 + 150, 32 : 32 + 110]
    assert (tiled.mask != whole.argmax(0).numpy()).mean() < 1e-3  # rounding of equal logits at most


def test_scale_and_kinds_of_image():
    model = unet(2, width=4, depth=1, size=32)
    array = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    for scale in (0.5, 1.0, 1.7):
        out = predict_tiled(model, array, tile=32, margin=8, scale=scale, align=2)
        assert out.mask.shape == (40, 61)
    assert model.training  # left as it was
    out.draw()


def test_wrong_use():
    with pytest.raises(UsageError, match="above 0"):
        predict_tiled(unet(2, width=4, depth=1), torch.zeros(3, 8, 8, dtype=torch.uint8), tile=0)
