"""The bought networks against the facts of their papers; on the meta device, so that the largest cost nothing."""

from __future__ import annotations

import importlib

import pytest
import timm
import torch
import torchvision
from torch import nn

from saccade import UsageError, create_model
from saccade.models.classify.published import efficientnet_scaling
from saccade.models.classify.zoo import ZOO
from saccade.models.registry import builder, default_recipe, find, options

NAMES = [fields["name"] for fields in ZOO]


def on_meta(name: str, **given):
    with torch.device("meta"):
        return create_model(name, **given).eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shapes(network: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """Output shape without the batch of every module."""
    out: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, given, maps, name=name: out.__setitem__(name, tuple(maps.shape[1:])))
    network(torch.empty(1, 3, side, side, device="meta"))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_every_bought_network_is_what_its_entry_says(name):
    entry = find(name)
    assert entry.row in {"C5", "C7", "C8", "C9", "C10", "C11", "C12", "C13"}
    assert entry.arxiv
    assert builder(entry).__name__ == entry.builder.partition(":")[2]
    assert set(entry.tiny) <= set(options(entry))
    assert "architecture" not in options(entry)
    published = importlib.import_module(entry.module)
    assert name in published.RECIPES
    assert f"({entry.year}), arXiv {entry.arxiv}" in published.__doc__
    assert default_recipe(entry) == published.RECIPES[name]
    architecture = entry.weights.removeprefix("timm ")
    assert timm.is_model(architecture)
    with torch.device("meta"):
        theirs = timm.create_model(architecture)
    model = on_meta(name, num_classes=1000)
    assert model.build_name == name
    assert {k: v.shape for k, v in model.network.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_bought_network_takes_grey_images_and_other_classes(name):
    model = on_meta(name, num_classes=7, in_chans=1)
    height, width = model.preprocess.size
    assert model.raw(torch.empty(1, 1, height, width, device="meta")).shape == (1, 7)
    assert model.preprocess.channels == len(model.preprocess.mean) == 1


# every network of the line that torchvision has too: an independent count
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vgg11", 132_863_336), ("vgg16", 138_357_544), ("vgg19", 143_667_240), ("resnet18", 11_689_512), ("resnet34", 21_797_672),
        ("resnet50", 25_557_032), ("resnet101", 44_549_160), ("resnet152", 60_192_808), ("densenet121", 7_978_856),
        ("densenet161", 28_681_000), ("densenet169", 14_149_480), ("densenet201", 20_013_928), ("mobilenet_v2", 3_504_872),
        ("efficientnet_b0", 5_288_548), ("efficientnet_b7", 66_347_960),
    ],
)  # fmt: skip
def test_C5_C8_C10_C12_C13_parameters(name, count):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
    assert parameters(on_meta(name, num_classes=1000)) == parameters(theirs) == count


def test_C5_vgg16_has_13_convolutions_of_3x3_and_three_dense_layers():
    model = on_meta("vgg16")
    convolutions = [m for m in model.network.features if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13
    assert {(m.kernel_size, m.stride, m.padding) for m in convolutions} == {((3, 3), (1, 1), (1, 1))}
    got = shapes(model.network, 224)
    assert got["features"] == (512, 7, 7)
    assert (model.network.pre_logits.fc1.kernel_size, model.network.pre_logits.fc1.out_channels) == ((7, 7), 4096)
    assert model.network.head.fc.in_features == 4096
    model = create_model("vgg11", 3, size=32, dense=8, dropout=0.25)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]


@pytest.mark.parametrize(("layers", "convolutions"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_C5_vgg_layers(layers, convolutions):
    for name, norms in ((f"vgg{layers}", 0), (f"vgg{layers}_bn", convolutions)):
        features = on_meta(name).network.features
        assert sum(isinstance(m, nn.Conv2d) for m in features) == convolutions == layers - 3
        assert sum(isinstance(m, nn.BatchNorm2d) for m in features) == norms


@pytest.mark.parametrize(
    ("layers", "blocks"), [(18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))]
)
def test_C8_C9_resnet_blocks(layers, blocks):
    """Table 1 of arXiv 1512.03385: the network's name counts its convolutions and the dense layer."""
    network = on_meta(f"resnet{layers}").network
    assert tuple(len(network.get_submodule(f"layer{k}")) for k in (1, 2, 3, 4)) == blocks
    kernels = [m.kernel_size[0] for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
    assert len(kernels) + 1 == layers
    assert kernels[1:4] == ([3, 3, 3] if layers < 50 else [1, 3, 1])
    second = on_meta(f"resnet{layers}v2").network
    assert tuple(len(stage.blocks) for stage in second.stages) == blocks
    if layers == 34:
        assert sum(blocks) == 16


@pytest.mark.parametrize("name", ["resnet18v2", "resnet50v2"])
def test_C9_pre_activation_normalises_before_each_convolution_and_not_after_the_addition(name):
    """Figure 1b of arXiv 1603.05027: a block of norm, ReLU, convolution; the sum of one block is the input of the next, untouched."""
    torch.manual_seed(0)
    network = create_model(name, 3).network.eval()
    block = network.stages[1].blocks[1]
    maps = torch.randn(1, block.conv1.in_channels, 4, 4)
    x = maps
    for k in range(1, 3 if name == "resnet18v2" else 4):
        norm, conv = block.get_submodule(f"norm{k}"), block.get_submodule(f"conv{k}")
        normalised = (x - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()
        x = conv(torch.relu(normalised * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)))
    with torch.no_grad():
        torch.testing.assert_close(block(maps), maps + x)
    assert "norm" in dict(network.named_children())  # the extra activation after the last block
    assert not [n for n, _ in network.stem.named_children() if "norm" in n]


@pytest.mark.parametrize(
    ("layers", "growth", "stages"),
    [
        (121, 32, (256, 512, 1024, 1024)),
        (161, 48, (384, 768, 2112, 2208)),
        (169, 32, (256, 512, 1280, 1664)),
        (201, 32, (256, 512, 1792, 1920)),
    ],
)
def test_C10_densenet_stages(layers, growth, stages):
    """Table 1 of arXiv 1608.06993: each layer is 1x1 to 4k maps, then 3x3 to k; blocks end at these depths; transitions halve."""
    network = on_meta(f"densenet{layers}").network
    got = shapes(network, 224)
    assert got["features.pool0"] == (2 * growth, 56, 56)
    assert [got[f"features.denseblock{k}"] for k in (1, 2, 3, 4)] == [(d, s, s) for d, s in zip(stages, (56, 28, 14, 7), strict=True)]
    assert [got[f"features.transition{k}"] for k in (1, 2, 3)] == [
        (d // 2, s, s) for d, s in zip(stages[:3], (28, 14, 7), strict=True)
    ]  # fmt: skip
    first = network.features.denseblock1.denselayer1
    assert (first.conv1.out_channels, first.conv1.kernel_size) == (4 * growth, (1, 1))
    assert (first.conv2.out_channels, first.conv2.kernel_size) == (growth, (3, 3))
    counted = sum(isinstance(m, nn.Conv2d) for m in network.modules()) + 1
    assert counted == layers


def test_C11_xception_has_36_convolutions_and_a_middle_flow_of_8():
    """Section 4 and figure 5 of arXiv 1610.02357: 36 convolution layers in 14 modules, separable but for the first two."""
    network = on_meta("xception").network
    got = shapes(network, 299)
    middle = [name for name, shape in got.items() if name.startswith("block") and "." not in name and shape == (728, 19, 19)]
    assert len(middle) == 1 + 8  # the entry flow's last module gives the same shape
    for name in middle[1:]:
        block = network.get_submodule(name)
        assert block.skip is None
        assert sum(isinstance(m, nn.Conv2d) and m.groups == 728 for m in block.modules()) == 3
    separable = sum(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    assert separable == 34
    plain = [m for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and m.kernel_size == (3, 3)]
    assert len(plain) + separable == 36
    assert got["conv4"] == (2048, 10, 10)


@pytest.mark.parametrize(
    ("name", "maps"), [("inception_v3", (2048, 8, 8)), ("inception_v4", (1536, 8, 8)), ("inception_resnet_v2", (1536, 8, 8))]
)
def test_C7_inception_grids(name, maps):
    """Last maps of arXiv 1512.00567 (table 1) and 1602.07261 (figures 9 and 15): 35x35, 17x17, 8x8."""
    model = on_meta(name)
    assert model.preprocess.size == (299, 299)
    assert tuple(model.network.forward_features(torch.empty(1, 3, 299, 299, device="meta")).shape[1:]) == maps
    sides = [shape[1] for shape in shapes(model.network, 299).values() if len(shape) == 3]
    assert {35, 17, 8} <= set(sides)


def test_C7_inception_v3_is_torchvisions_without_the_auxiliary_head():
    with torch.device("meta"):
        theirs = torchvision.models.inception_v3(weights=None, init_weights=False)
    assert parameters(on_meta("inception_v3", num_classes=1000)) == parameters(theirs) - parameters(theirs.AuxLogits)


def test_C12_mobilenet_v2_adds_shortcuts_at_stride_1_only_and_has_linear_bottlenecks():
    network = on_meta("mobilenet_v2").network
    blocks = [block for stage in network.blocks for block in stage]
    assert len(blocks) == 17  # table 2: 1 + 2 + 3 + 4 + 3 + 3 + 1
    for block in blocks[1:]:
        stride = block.conv_dw.stride[0]
        assert block.has_skip == (stride == 1 and block.conv_pw.in_channels == block.conv_pwl.out_channels)
        assert block.conv_pw.out_channels == 6 * block.conv_pw.in_channels
        assert isinstance(block.bn3.act, nn.Identity)
        assert isinstance(block.bn1.act, nn.ReLU6)
    assert sum(block.has_skip for block in blocks) == 10
    assert [block.conv_pwl.out_channels for block in blocks[1:]] == [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320]


@pytest.mark.parametrize("alpha", [0.35, 0.5, 0.75, 1.0, 1.4])
def test_C12_mobilenet_v2_alpha_and_rho(alpha):
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2(weights=None, width_mult=alpha)
    model = on_meta("mobilenet_v2", alpha=alpha, rho=96 / 224)
    assert parameters(model) == parameters(theirs)
    assert model.preprocess.size == (96, 96)
    with pytest.raises(UsageError, match=r"0\.35, 0\.5, 0\.75, 1, 1\.4"):
        create_model("mobilenet_v2", alpha=0.9)


def test_C13_compound_scaling_doubles_the_cost_a_step():
    """Equation 3 and the grid search's result, section 4.2 of arXiv 1905.11946."""
    depth, width, resolution = efficientnet_scaling(1)
    assert (depth, width, resolution) == pytest.approx((1.2, 1.1, 1.15))
    assert depth * width**2 * resolution**2 == pytest.approx(2, abs=0.1)
    for phi in range(8):
        factors = efficientnet_scaling(phi)
        assert factors.depth * factors.width**2 * factors.resolution**2 == pytest.approx(1.92**phi, rel=0.002 * (phi + 1))
    assert efficientnet_scaling(2, alpha=2, beta=3, gamma=4) == (4, 9, 16)


# (width, depth, side) of the paper's program
COEFFICIENTS = [
    (1.0, 1.0, 224),
    (1.0, 1.1, 240),
    (1.1, 1.2, 260),
    (1.2, 1.4, 300),
    (1.4, 1.8, 380),
    (1.6, 2.2, 456),
    (1.8, 2.6, 528),
    (2.0, 3.1, 600),
]


@pytest.mark.parametrize("step", range(8))
def test_C13_efficientnet_b0_to_b7_scale_b0s_stages(step):
    """Table 1 of arXiv 1905.11946, stages' layers and channels times the coefficients."""
    width, depth, side = COEFFICIENTS[step]
    model = on_meta(f"efficientnet_b{step}")
    assert model.preprocess.size == (side, side)
    layers, channels = (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)
    assert [len(stage) for stage in model.network.blocks] == [-int(-depth * n // 1) for n in layers]
    for stage, maps in zip(model.network.blocks, channels, strict=True):
        last = stage[-1].conv_pw if not hasattr(stage[-1], "conv_pwl") else stage[-1].conv_pwl
        nearest = max(8, int(maps * width + 4) // 8 * 8)
        assert last.out_channels == nearest + 8 * (nearest < 0.9 * maps * width)
        assert all(hasattr(block, "se") and not isinstance(block.se, nn.Identity) for block in stage)
    assert (depth, width, side / 224) == pytest.approx(tuple(efficientnet_scaling(step)), rel=0.25)  # the paper rounded them by hand
