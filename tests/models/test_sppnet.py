"""SPP-net's classifier against the paper's sizes and views, and a count by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from saccade import UsageError, create_model, testing
from saccade.models.classify.sppnet import SCALES, SPPNet, map_span, view_places

TINY = {"size": 64, "width": 0.0625}


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return create_model("sppnet").network


@pytest.mark.parametrize(("side", "maps"), [(224, (55, 27, 13, 13, 13, 13)), (180, (44, 21, 10, 10, 10, 10))])
def test_C15_sppnet_has_the_maps_of_table_1_and_10_at_180(network, side, maps):
    image, got = torch.empty(1, 3, side, side, device="meta"), {}
    for name, module in network.features.named_children():
        image = module(image)
        got[name] = image.shape[2]
    assert tuple(got[name] for name in ("pool1", "conv2", "pool2", "conv3", "conv4", "conv5")) == maps
    assert network.head.spp(image).shape == (1, 50 * 256)


def test_C15_sppnet_has_77037672_parameters(network):
    convolutions = (7 * 7 * 3 + 1) * 96 + (5 * 5 * 96 + 1) * 256 + (9 * 256 + 1) * 384 + (9 * 384 + 1) * 384 + (9 * 384 + 1) * 256
    dense = (256 * (36 + 9 + 4 + 1) + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert convolutions + dense == 77_037_672
    assert sum(p.numel() for p in network.parameters()) == 77_037_672


@pytest.mark.parametrize("size", [(224, 224), (180, 180), (97, 250), (360, 480)])
def test_C15_sppnet_takes_any_size(network, size):
    assert network(torch.empty(2, 3, *size, device="meta")).shape == (2, 1000)


def test_C15_sppnet_trains_at_224_and_180_in_turn():
    model = create_model("sppnet", 3, **TINY)
    assert create_model("sppnet", 3, size=224, width=0.0625).sizes == (224, 180)
    seen = []
    model.network.features.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    images, targets = testing.batch(model, 2)[:2]
    for _ in range(4):
        model.train().losses(images, targets)
    assert seen == [64, 51, 64, 51]
    resized = F.interpolate(images, size=(51, 51), mode="bilinear", antialias=True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert state["batches"] == 4
    seen.clear()
    assert model.eval().losses(images, targets).keys() == {"ce"}
    assert seen == [64]
    again = create_model("sppnet", 3, dropout=0.0, **TINY)
    again.load_state_dict({**state, "batches": torch.tensor(1)})  # a resumed run goes on where it was
    loss = again.train().losses(images, targets)["ce"]
    torch.testing.assert_close(loss, F.cross_entropy(again.network(resized), model.truth(targets)))


def test_C15_sppnet_of_one_size():
    model = create_model("sppnet", 3, multi_size=False, **TINY).train()
    images, targets = testing.batch(model, 2)[:2]
    model.losses(images, targets)
    assert model.batches == 0


def test_C15_a_photo_of_4_to_3_has_96_views():
    """Section 3.1.5: 18 a scale, mirrored ones counted, and 6 at 224, where the windows are as high as the image."""
    counts = [2 * len(view_places((scale, round(scale * 500 / 375)), 224)) for scale in SCALES]
    assert SCALES == (224, 256, 300, 360, 448, 560)
    assert counts == [6, 18, 18, 18, 18, 18]
    assert sum(counts) == 96


def test_C15_windows_fall_on_the_maps():
    assert map_span(0, 224, 13) == slice(0, 13)
    assert map_span(16, 224, 14) == slice(1, 14)
    assert map_span(560 - 224, 224, 34) == slice(21, 34)  # the last window of 560 ends with the maps
    assert map_span(5, 8, 1) == slice(0, 1)


@torch.no_grad()
def test_C15_views_are_windows_of_shared_maps():
    torch.manual_seed(0)
    model = create_model("sppnet", 3, evaluation="views", scales=[64, 96], **TINY).eval()
    tensor = model.preprocess(testing.sample("classify", (96, 120)))[0][None]
    assert tensor.shape[2:] == (96, 120)
    expected, count = torch.zeros(1, 3), 0
    for size, tops, lefts in (((64, 80), [0], [0, 8, 16]), ((96, 120), [0, 16, 32], [0, 28, 56])):
        view = F.interpolate(tensor, size=size, mode="bilinear", antialias=True) if size != (96, 120) else tensor
        for mirrored in (view, view.flip(3)):
            maps = model.network.features(mirrored)
            for top in tops:
                for left in lefts:
                    end = [min(-(-(start + 64) // 16) - 1, length) for start, length in zip((top, left), maps.shape[2:], strict=True)]
                    window = maps[:, :, top // 16 : end[0], left // 16 : end[1]]
                    expected += model.network.head(window).softmax(1)
                    count += 1
    assert count == 2 * 3 + 2 * 9
    torch.testing.assert_close(model.probabilities(tensor), expected / count)


@torch.no_grad()
def test_C15_the_full_image_goes_in_whole():
    torch.manual_seed(0)
    model = create_model("sppnet", 3, evaluation="full", **TINY).eval()
    sample = testing.sample("classify", (100, 150))
    tensor = model.preprocess(sample)[0][None]
    whole = F.interpolate(tensor, size=(73, round(tensor.shape[3] * 73 / tensor.shape[2])), mode="bilinear", antialias=True)
    expected = model.network(whole).softmax(1)[0]
    got = torch.from_numpy(model.predict(sample.image.as_subclass(torch.Tensor))[0].scores)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    for size in ((1, 1), (1, 60), (40, 3)):
        assert model.predict(testing.picture(size))[0].scores.sum() == pytest.approx(1, abs=1e-5)


def test_C15_sppnet_says_what_does_not_work():
    with pytest.raises(UsageError, match=r"model\.scales=\(60,\): short sides, each in 64\.\.2048"):
        create_model("sppnet", 3, scales=[60], **TINY)
    with pytest.raises(UsageError, match=r"model\.levels=\(0,\)"):
        create_model("sppnet", 3, levels=[0], **TINY)
    assert SPPNet(3, size=64, levels=(4, 2, 1), width=0.0625).head.fc6.in_features == 21 * 16
