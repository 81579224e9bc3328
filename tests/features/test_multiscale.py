"""Maps of backbones at several scales against timm and torchvision."""

import numpy as np
import pytest
import timm
import torch
from torchvision.ops import FeaturePyramidNetwork

from saccade.features.multiscale import MultiscaleMaps
from saccade.types.errors import UsageError

NAME = "test_resnet.r160_in1k"


def images(count=3, height=50, width=70):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def build(**options):
    torch.manual_seed(4)
    return MultiscaleMaps(architecture=NAME, size=64, **options)


def test_F10_the_stages_of_one_pass_are_timms():
    model = build()
    maps = model.maps(images())
    assert list(maps) == ["stride4", "stride8", "stride16", "stride32"]
    assert [value.shape[2:] for value in maps.values()] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    torch.manual_seed(4)
    net = timm.create_model(NAME, features_only=True).eval()
    with torch.no_grad():
        expected = net(model.batches(images())[0])
    strides = net.feature_info.reduction()
    for name, value in maps.items():
        np.testing.assert_allclose(value, expected[strides.index(int(name.removeprefix("stride")))].numpy(), rtol=1e-5, atol=1e-6)
    assert {value.dtype for value in maps.values()} == {np.dtype(np.float32)}


def test_F10_the_top_down_path_is_torchvisions():
    model, plain = build(mode="fpn", channels=16, seed=2), build()
    maps, bottom = model.maps(images()), plain.maps(images())
    assert {value.shape[:2] for value in maps.values()} == {(3, 16)}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        pyramid = FeaturePyramidNetwork([value.shape[1] for value in bottom.values()], 16)
    with torch.no_grad():
        expected = pyramid({name: torch.from_numpy(value) for name, value in bottom.items()})
    assert list(maps) == list(expected)
    for name, value in maps.items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-4, atol=1e-5)


def test_F10_an_image_pyramid_names_its_levels_by_their_stride():
    model = build(mode="image", scales=(0.5, 2.0, 1.0))
    maps = model.maps(images())
    assert {name: value.shape[2:] for name, value in maps.items()} == {"stride16": (4, 4), "stride32": (2, 2), "stride64": (1, 1)}
    np.testing.assert_allclose(maps["stride32"], build().maps(images())["stride32"], rtol=1e-5, atol=1e-6)


def test_F10_maps_do_not_depend_on_the_batch_and_vectors_are_their_means():
    model = build()
    together, alone = model.maps(images()), model.maps(images()[1:2])
    for name in together:
        np.testing.assert_allclose(together[name][1:2], alone[name], rtol=1e-4, atol=1e-5)
    vectors = model(images())
    assert vectors.shape == (3, sum(value.shape[1] for value in together.values()))
    width = together["stride4"].shape[1]
    np.testing.assert_allclose(vectors[:, :width], together["stride4"].mean((2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "resnet18x"}, "timm has no model"),
        ({"architecture": "vit_tiny_patch16_224"}, "pyramid needs|cannot give"),
        ({"architecture": NAME, "size": 8}, r"32\.\.4096"),
        ({"architecture": NAME, "mode": "image", "scales": ()}, "one or more scales"),
        ({"architecture": NAME, "mode": "image", "scales": (1.0, 1.001)}, "strides differ"),
    ],
)
def test_F10_wrong_use(options, message):
    with pytest.raises(UsageError, match=message):
        MultiscaleMaps(**options)
