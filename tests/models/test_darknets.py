"""Darknet-19, Darknet-53 and CSPDarknet-53 against the papers' tables and Darknet's own descriptions and files."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from saccade import UsageError, create_model
from saccade.layers.backbones import register_own
from saccade.layers.conv_bn import ConvBN

DARKNETS = ("darknet19", "darknet53", "cspdarknet53")


def on_meta(name: str):
    with torch.device("meta"):
        return create_model(name).network


def sizes(network, side: int) -> dict[str, tuple[int, ...]]:
    maps, out = torch.empty(1, 3, side, side, device="meta"), {}
    for name, layer in network.features.named_children():
        maps = layer(maps)
        out[name] = tuple(maps.shape[1:])
    return out


def test_C14_darknet19_has_the_sizes_of_table_6():
    network = on_meta("darknet19")
    assert list(sizes(network, 224).values()) == [
        (32, 224, 224), (32, 112, 112), (64, 112, 112), (64, 56, 56), (128, 56, 56), (64, 56, 56), (128, 56, 56), (128, 28, 28),
        (256, 28, 28), (128, 28, 28), (256, 28, 28), (256, 14, 14), (512, 14, 14), (256, 14, 14), (512, 14, 14), (256, 14, 14),
        (512, 14, 14), (512, 7, 7), (1024, 7, 7), (512, 7, 7), (1024, 7, 7), (512, 7, 7), (1024, 7, 7),
    ]  # fmt: skip
    assert network.head.conv19(torch.empty(1, 1024, 7, 7, device="meta")).shape == (1, 1000, 7, 7)
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 19
    assert sum(isinstance(m, nn.MaxPool2d) for m in network.modules()) == 5


@pytest.mark.parametrize("name", ["darknet53", "cspdarknet53"])
def test_C14_darknet53_has_the_sizes_of_table_1(name):
    expected = [(32, 256, 256), (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8)]
    assert list(sizes(on_meta(name), 256).values()) == expected


def test_C14_darknet53_has_52_convolutions_in_front_of_the_output():
    network = on_meta("darknet53")
    assert sum(isinstance(m, nn.Conv2d) for m in network.features.modules()) == 52
    blocks = [sum(type(m).__name__ == "Residual" for m in stage) for name, stage in network.features.named_children() if "stage" in name]
    assert blocks == [1, 2, 8, 8, 4]


@pytest.mark.parametrize(("name", "floats"), [("darknet19", 20_856_776), ("darknet53", 41_645_640)])
def test_C14_as_many_numbers_as_in_darknets_file_of_weights(name, floats):
    state = on_meta(name).state_dict()
    assert sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")) == floats


def sections(text: str) -> list[dict[str, str]]:
    """Sections of a .cfg file."""
    out: list[dict[str, str]] = []
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            out.append({"type": line.strip("[]")})
        elif "=" in line and not line.startswith("#"):
            key, value = line.split("=")
            out[-1][key.strip()] = value.strip()
    return out[1:]


@pytest.mark.parametrize(
    ("name", "file", "layers"),
    [("darknet19", "pjreddie_darknet19", None), ("darknet53", "pjreddie_darknet53", None), ("cspdarknet53", "alexey_yolov4", 105)],
)
def test_C14_convolutions_are_those_of_the_cfg_in_order(real, name, file, layers):
    described = []
    for section in sections((real("../darknet-cfg") / f"{file}.cfg").read_text())[:layers]:
        if section["type"] == "convolutional":
            bn = "batch_normalize" in section
            described.append((int(section["filters"]), int(section["size"]), int(section["stride"]), bn, section["activation"]))
    slope = {nn.LeakyReLU: "leaky", nn.Mish: "mish"}
    network, ours = on_meta(name), []
    for module in network.modules():
        if isinstance(module, ConvBN):
            ours.append((module.conv.out_channels, *module.conv.kernel_size[:1], *module.conv.stride[:1], True, slope[type(module.act)]))
    if layers is None:
        ours.append((1000, 1, 1, False, "linear"))
    assert ours == described
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} <= {0.1}
    assert not [m for m in network.features.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]


def literal(parsed: list[dict[str, str]], weights: list[torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """What Darknet does with a description, with plain convolutions and no normalisation."""
    outputs: list[torch.Tensor] = []
    x = image
    for section in parsed:
        if section["type"] == "convolutional":
            weight = weights.pop(0)
            x = nn.functional.conv2d(x, weight, stride=int(section["stride"]), padding=weight.shape[-1] // 2)
            x = nn.functional.mish(x) if section["activation"] == "mish" else nn.functional.leaky_relu(x, 0.1)
        elif section["type"] == "maxpool":
            x = nn.functional.max_pool2d(x, 2)
        elif section["type"] == "shortcut":
            x = x + outputs[int(section["from"])]
        elif section["type"] == "route":
            places = [int(p) for p in section["layers"].split(",")]
            x = torch.cat([outputs[p] for p in places], 1)
        outputs.append(x)
    return x


@pytest.mark.parametrize(
    ("name", "file", "layers"),
    [("darknet19", "pjreddie_darknet19", -3), ("darknet53", "pjreddie_darknet53", -3), ("cspdarknet53", "alexey_yolov4", 105)],
)
def test_C14_maps_are_those_of_the_cfg_walked_literally(real, name, file, layers):
    parsed = sections((real("../darknet-cfg") / f"{file}.cfg").read_text())[:layers]
    network = create_model(name, 3, width=0.125).network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # neutral but for eps
            module.eps = 0.0
    weights = [m.conv.weight for m in network.modules() if isinstance(m, ConvBN)]
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.forward_features(image), literal(parsed, weights, image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DARKNETS)
def test_C14_darknets_are_backbones_of_timm_and_take_any_multiple_of_32(name):
    register_own()
    network = timm.create_model(f"saccade_{name}", features_only=True, width=0.0625, out_indices=(2, 3, 4, 5))
    maps = network(torch.rand(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == network.feature_info.channels()
    assert [(64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    head = timm.create_model(f"saccade_{name}", num_classes=5, width=0.0625)
    assert head(torch.rand(1, 3, 64, 96)).shape == (1, 5)
    head.reset_classifier(7)
    assert head(torch.rand(1, 3, 64, 64)).shape == (1, 7)
    assert timm.create_model(f"saccade_{name}", num_classes=0, width=0.0625)(torch.rand(1, 3, 64, 64)).shape == (1, 64)


@pytest.mark.parametrize("name", DARKNETS)
def test_C14_darknets_say_what_they_do_not_have(name):
    with pytest.raises(UsageError, match="no weights are published"):
        create_model(name, pretrained=True)
    with pytest.raises(UsageError, match=r"model\.size=16: it lies in 32"):
        create_model(name, 3, size=16)


def test_C14_timms_networks_of_these_names_are_others():
    """Why these are ours: another slope, and no Mish."""
    with torch.device("meta"):
        theirs = timm.create_model("darknet53"), timm.create_model("cspdarknet53")
    assert {m.negative_slope for m in theirs[0].modules() if isinstance(m, nn.LeakyReLU)} != {0.1}
    assert not [m for m in theirs[1].modules() if isinstance(m, nn.Mish)]
