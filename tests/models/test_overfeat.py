"""OverFeat against the paper's tables, a count by hand, and its own network on every crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saccade import UsageError, create_model, testing
from saccade.models.classify.overfeat import OverFeat, OverFeatAccurate


def conv(before: int, after: int, kernel: int = 1) -> int:
    return (before * kernel * kernel + 1) * after


SIZES = {
    "overfeat_fast": {
        "conv1": (96, 56, 56), "pool1": (96, 28, 28), "conv2": (256, 24, 24), "pool2": (256, 12, 12), "conv3": (512, 12, 12),
        "conv4": (1024, 12, 12), "conv5": (1024, 12, 12), "pool5": (1024, 6, 6), "fc6": (3072, 1, 1), "fc7": (4096, 1, 1),
        "fc8": (1000, 1, 1),
    },
    "overfeat_accurate": {
        "conv1": (96, 108, 108), "pool1": (96, 36, 36), "conv2": (256, 30, 30), "pool2": (256, 15, 15), "conv3": (512, 15, 15),
        "conv4": (512, 15, 15), "conv5": (1024, 15, 15), "conv6": (1024, 15, 15), "pool6": (1024, 5, 5), "fc7": (4096, 1, 1),
        "fc8": (4096, 1, 1), "fc9": (1000, 1, 1),
    },
}  # fmt: skip
DENSE = {"overfeat_fast": conv(1024, 3072, 6) + conv(3072, 4096), "overfeat_accurate": conv(1024, 4096, 5) + conv(4096, 4096)}
CONVOLUTIONS = {
    "overfeat_fast": conv(3, 96, 11) + conv(96, 256, 5) + conv(256, 512, 3) + conv(512, 1024, 3) + conv(1024, 1024, 3),
    "overfeat_accurate": conv(3, 96, 7)
    + conv(96, 256, 7)
    + conv(256, 512, 3)
    + conv(512, 512, 3)
    + conv(512, 1024, 3)
    + conv(1024, 1024, 3),
}
PARAMETERS = {"overfeat_fast": 145_920_872, "overfeat_accurate": 144_656_488}  # table 4: 145 and 144 million


@pytest.fixture(scope="module", params=list(SIZES))
def built(request):
    with torch.device("meta"):
        return request.param, create_model(request.param)


def test_C3_overfeat_has_the_tables_sizes(built):
    name, model = built
    side = {"overfeat_fast": 231, "overfeat_accurate": 221}[name]
    assert model.preprocess.size == (side, side)
    image, got = torch.empty(1, 3, side, side, device="meta"), {}
    for layer, module in (*model.network.features.named_children(), *model.network.head.named_children()):
        image = module(image)
        got[layer] = tuple(image.shape[1:])
    assert {layer: got[layer] for layer in SIZES[name]} == SIZES[name]


def test_C3_overfeat_has_the_parameters_of_table_4(built):
    name, model = built
    assert CONVOLUTIONS[name] + DENSE[name] + conv(4096, 1000) == PARAMETERS[name]
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


TABLE_5 = [
    ((245, 245), (17, 17), (3, 3)), ((281, 317), (20, 23), (6, 9)), ((317, 389), (23, 29), (9, 15)), ((389, 461), (29, 35), (15, 21)),
    ((425, 497), (32, 38), (18, 24)), ((461, 569), (35, 44), (21, 30)),
]  # fmt: skip


@pytest.mark.parametrize(("size", "maps", "classes"), TABLE_5)
def test_C3_overfeat_accurate_has_the_maps_of_table_5(size, maps, classes):
    with torch.device("meta"):
        network = OverFeatAccurate(1000)
        image = torch.empty(1, 3, *size)
    assert network.features[:-1](image).shape[2:] == maps
    assert network.dense(image).shape == (1, 1000, *classes)


def test_C3_overfeat_looks_at_the_scales_of_table_5():
    with torch.device("meta"):
        assert create_model("overfeat_accurate").scales == tuple(size[0] for size, _, _ in TABLE_5)
        fast = create_model("overfeat_fast")
    assert len(fast.scales) == 6
    for ours, size in zip(fast.scales, TABLE_5, strict=True):
        assert (ours - 231) % 16 == 0
        assert abs(ours / 231 - size[0][0] / 221) <= 16 / 2 / 231


@pytest.mark.parametrize(("kind", "size"), [(OverFeat, 107), (OverFeatAccurate, 113)])
@torch.no_grad()
def test_N7_overfeats_dense_pass_is_the_network_on_every_crop(kind, size):
    """Without padding, which a crop fills with zeros and the whole image does not, every position is a crop's own logits."""
    torch.manual_seed(0)
    network = kind(4, size=size, width=0.0625).eval()
    padded = [m for m in network.features if isinstance(m, torch.nn.Conv2d) and m.padding == (1, 1)]
    for layer in padded:
        layer.padding = (0, 0)
    side = size + 2 * network.stride * len(padded)  # what gives maps as large as before
    p = network.pooling
    steps = (p, p + 1)
    image = torch.randn(1, 3, side + (steps[0] + p - 1) * network.stride, side + (steps[1] + p - 1) * network.stride)
    got = network.dense(image)
    assert got.shape[2] >= p + 1
    for i in range(got.shape[2]):
        for j in range(got.shape[3]):
            top, left = i * network.stride, j * network.stride
            crop = image[..., top : top + side, left : left + side]
            torch.testing.assert_close(got[..., i, j], network(crop), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_C3_overfeats_offsets_pool_from_each_pixel():
    """Figure 3: position p i + dy is window i of the maps that begin at dy; here against a head that reads each window alone."""
    torch.manual_seed(0)
    network = OverFeatAccurate(4, size=77, width=0.0625).eval()
    image = torch.randn(1, 3, 77 + 12 * 5, 77 + 12 * 4)
    maps, got = network.features[:-1](image), network.dense(image)
    assert got.shape[2:] == (6, 3)
    for i in range(6):
        for j in range(3):
            expected = network.head(F.max_pool2d(maps[..., i : i + 3, j : j + 3], 3)).flatten(1)
            torch.testing.assert_close(got[..., i, j], expected)


@torch.no_grad()
def test_C3_overfeats_dense_evaluation_is_the_mean_over_scales_of_the_maximum_over_positions():
    torch.manual_seed(0)
    model = create_model("overfeat_fast", 3, size=75, width=0.0625, evaluation="dense", scales=[91, 120]).eval()
    image = testing.picture((100, 130))
    tensor = model.preprocess(testing.sample("classify", (100, 130), seed=1))[0]
    assert tensor.shape[1] == 120
    total = torch.zeros(3)
    for scale in (91, 120):
        size = (scale, round(tensor.shape[2] * scale / tensor.shape[1]))
        view = F.interpolate(tensor[None], size=size, mode="bilinear", antialias=True)
        for mirrored in (view, view.flip(3)):
            positions = model.network.dense(mirrored)[0].flatten(1).T
            total += torch.stack([logits.softmax(0) for logits in positions]).amax(0) / 4
    torch.testing.assert_close(model.probabilities(tensor[None])[0], total / total.sum(), rtol=1e-4, atol=1e-5)
    flipped = model.predict([image, image.flip(2)])
    np.testing.assert_allclose(flipped[0].scores, flipped[1].scores, rtol=1e-3)  # mirror images are seen alike


def test_C3_overfeat_trains_on_the_centre_also_where_it_predicts_densely():
    torch.manual_seed(0)
    model = create_model("overfeat_fast", 3, size=75, width=0.0625, evaluation="dense", scales=[91])
    images, targets = testing.batch(model, 2)[:2]
    model.train().losses(images, targets)["ce"].backward()
    assert model.network.head.fc8.weight.grad.abs().sum() > 0
    mixed = [images[0], images[1][:, :, :95]]
    assert model.eval().raw(mixed).shape == (2, 3)
    for size in ((1, 1), (1, 60), (40, 3), (200, 90)):
        scores = model.predict(testing.picture(size))[0].scores
        assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_C3_overfeat_says_what_does_not_work():
    model = create_model("overfeat_fast", 3, size=75, width=0.0625)
    with pytest.raises(UsageError, match=r"75x75, not 75x91.*model\.size"):
        model.raw(torch.zeros(1, 3, 75, 91))
    with pytest.raises(UsageError, match=r"model\.scales=\(80,\): short sides, each in 91\.\.2048"):
        create_model("overfeat_fast", 3, size=75, width=0.0625, evaluation="dense", scales=[80])
    with pytest.raises(UsageError, match=r"overfeat_accurate cannot work on 60x60; the least model.size is"):
        create_model("overfeat_accurate", 3, size=60)
    with pytest.raises(UsageError, match="no weights"):
        create_model("overfeat_fast", pretrained=True)
