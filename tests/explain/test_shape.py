"""Layer tables: sizes, costs and receptive fields against PyTorch itself, gradients, and the papers' numbers (row N1)."""

import doctest
import math

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import saccade
from saccade.explain.arithmetic import conv_parameters, conv_size, not_whole, resize_taps, transposed_size, transposed_taps
from saccade.explain.shape import layer_table, trace
from saccade.models.index import ENTRIES
from saccade.types.errors import UsageError
from saccade.workflows.models import model_shape, model_tables


def by_name(rows):
    return {row.name: row for row in rows}


def on_meta(builder, **options):
    with torch.device("meta"):
        return builder(**options)


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "d"), [(227, 11, 4, 0, 1), (224, 7, 2, 3, 1), (32, 5, 1, 0, 1), (17, 3, 2, 1, 2), (9, 3, 3, 4, 1)]
)
def test_N1_conv_size_is_torchs(n, k, s, p, d):
    out = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, k), stride=s, padding=p, dilation=d)
    assert conv_size(n, k, s, p, d) == out.shape[-1]


@pytest.mark.parametrize(("n", "k", "s", "p", "d", "o"), [(4, 4, 2, 1, 1, 0), (7, 3, 2, 1, 1, 1), (5, 3, 3, 0, 2, 2), (1, 4, 1, 0, 1, 0)])
def test_N1_transposed_size_is_torchs(n, k, s, p, d, o):
    out = F.conv_transpose1d(torch.zeros(1, 1, n), torch.zeros(1, 1, k), stride=s, padding=p, dilation=d, output_padding=o)
    assert transposed_size(n, k, s, p, d, o) == out.shape[-1]


def test_N1_the_textbook_cases_by_hand():
    # Krizhevsky's first layer: 224 does not give 55, 227 does; 96 filters of 11x11x3 with a bias each.
    assert not_whole(224, 11, 4) == "(224-11)/4 = 53.25 is not whole: 1 of 224 is not seen"
    assert not_whole(227, 11, 4) == ""
    assert conv_size(227, 11, 4) == 55
    assert conv_parameters(3, 96, (11, 11)) == 96 * (3 * 11 * 11 + 1) == 34_944
    assert not_whole(7, 3, 3) == "(7-3)/3 = 1.33333 is not whole: 1 of 7 is not seen"
    assert not_whole(112, 3, 2, 1) == "(112-3+2)/2 = 55.5 is not whole: padding is cut unevenly"
    assert not_whole(7, 3, 2, 0, 2) == ""  # dilated: the extent is 5


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_N1_conv_parameters_are_torchs(groups, bias):
    layer = nn.Conv2d(8, 16, (3, 5), groups=groups, bias=bias)
    assert conv_parameters(8, 16, (3, 5), groups, bias) == sum(p.numel() for p in layer.parameters())


# -- rows -----------------------------------------------------------------------------------------


def test_N1_lenet_by_hand():
    rows = by_name(layer_table(saccade.create_model("lenet5"), 32, channels=1))
    assert [(n, rows[n].output, rows[n].parameters, rows[n].macs) for n in ("c1", "c3", "c5", "f6")] == [
        ("c1", (1, 6, 28, 28), 6 * 26, 28 * 28 * 6 * 25),
        ("c3", (1, 16, 10, 10), 16 * 151, 10 * 10 * 16 * 150),
        ("c5", (1, 120, 1, 1), 120 * 401, 120 * 400),
        ("f6", (1, 84), 84 * 121, 84 * 120),
    ]
    # fields: 5; pool 5 + 1; conv 6 + 4 * 2; pool 14 + 2; conv 16 + 4 * 4
    assert [rows[n].field[0] for n in ("c1", "s2", "c3", "s4", "c5")] == [5, 6, 14, 16, 32]
    assert [rows[n].jump[0] for n in ("c1", "s2", "c3", "s4")] == [1, 2, 2, 4]
    assert rows["c1"].start == (2.5, 2.5)
    assert rows["f6"].whole
    assert rows["f6"].jump == (None, None)


BUILDERS = {
    "alexnet": torchvision.models.alexnet,
    "resnet18": torchvision.models.resnet18,
    "densenet121": torchvision.models.densenet121,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "resnext": torchvision.models.resnext50_32x4d,
    "vit": lambda: timm.create_model("vit_tiny_patch16_224"),
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224"),
    "convnext": lambda: timm.create_model("convnext_atto"),
    "efficientnet": lambda: timm.create_model("efficientnet_b0"),
    "fcn": lambda: torchvision.models.segmentation.fcn_resnet50(weights_backbone=None),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_N1_totals_and_shapes_are_those_of_pytorch(name):
    model = on_meta(BUILDERS[name]).eval()
    table = trace(model, (2, 3, 224, 224))
    assert sum(row.parameters for row in table.rows) + sum(model.get_parameter(n).numel() for n in table.unused) == table.parameters
    assert table.parameters == sum(p.numel() for p in model.parameters())
    image = torch.zeros(2, 3, 224, 224, device="meta")
    shapes = {}

    def note(path):
        def hook(part, given, out):
            shapes.setdefault(path, tuple(out.shape))

        return hook

    for path, part in model.named_modules():
        if not list(part.children()) and not isinstance(part, nn.Identity):
            part.register_forward_hook(note(path))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert table.macs == counter.get_total_flops() // 2
    assert sum(row.macs for row in table.rows) == table.macs
    rows = by_name(table.rows)
    assert len(shapes) > 10
    assert {path: rows[path].output for path in shapes} == shapes


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(8, 12, 3, groups=4), 12 * 14 * 14 * 2 * 9),
        (nn.Conv2d(8, 8, (1, 5), groups=8, dilation=2), 8 * 16 * 8 * 5),
        (nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2), 8 * 16 * 16 * 2 * 9),
        (nn.Linear(16, 5), 8 * 16 * 16 * 5),
    ],
)
def test_N1_macs_of_single_layers(layer, macs):
    table = trace(layer, (1, 8, 16, 16))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.zeros(1, 8, 16, 16))
    assert table.macs == macs == counter.get_total_flops() // 2
    assert table.rows[0].parameters == sum(p.numel() for p in layer.parameters())


def test_N1_shared_weights_count_once_and_unused_ones_are_named():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.scale = nn.Parameter(torch.ones(3, 1, 1))
            self.training_head = nn.Linear(3, 2)

        def forward(self, x):
            return self.conv(F.relu(self.conv(x))) * self.scale

    table = trace(Twice(), (1, 3, 8, 8))
    assert [(row.name, row.type, row.parameters, row.field) for row in table.rows] == [
        ("conv", "Conv2d", 84, (3, 3)),
        ("relu", "relu", 0, (3, 3)),
        ("conv (2)", "Conv2d", 0, (5, 5)),
        ("multiply", "multiply", 3, (5, 5)),
    ]
    assert table.unused == ("training_head.weight", "training_head.bias")
    assert [row.inputs for row in table.rows] == [(-1,), (0,), (1,), (2,)]


def test_N1_the_module_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_table(model, 16)
    assert [part.training for part in model] == [True, False, True]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert model[0].weight.device.type == "cpu"


def test_N1_a_network_that_looks_at_its_numbers_is_run_for_real():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.anchors = torch.ones(4, 1, 1)  # no buffer: stays where it is

        def forward(self, x):
            y = self.conv(x) * self.anchors
            return y.relu() if y.abs().sum().item() >= 0 else y

    rows = layer_table(Careful(), 8)
    assert [(row.type, row.output, row.field, row.parameters) for row in rows] == [
        ("Conv2d", (1, 4, 6, 6), (3, 3), 112),
        ("relu", (1, 4, 6, 6), (3, 3), 0),
    ]


def test_N1_without_memory_and_for_real_are_the_same():
    from saccade.explain.shape import _run

    model = timm.create_model("test_resnet.r160_in1k")
    assert _run(model, (2, 3, 64, 64), meta=True) == _run(model, (2, 3, 64, 64), meta=False)


def test_N1_lines_and_volumes():
    line = layer_table(nn.Sequential(nn.Conv1d(3, 4, 5, stride=2), nn.MaxPool1d(3, 1)), (33,))
    assert [(row.output, row.field, row.jump, row.start) for row in line] == [
        ((1, 4, 15), (5,), (2.0,), (2.5,)),
        ((1, 4, 13), (9,), (2.0,), (4.5,)),
    ]
    volume = layer_table(nn.Conv3d(1, 2, (3, 1, 5), stride=(1, 1, 2)), (8, 8, 9), channels=1)
    assert (volume[0].output, volume[0].field, volume[0].jump) == ((1, 2, 6, 8, 3), (3, 1, 5), (1.0, 1.0, 2.0))
    assert volume[0].macs == 2 * 6 * 8 * 3 * 15


def test_N1_an_input_that_does_not_fit_is_one_line():
    with pytest.raises(UsageError, match="Sequential does not take an input of 1x3x4x4: "):
        layer_table(nn.Sequential(nn.Conv2d(3, 4, 7)), 4)
    with pytest.raises(UsageError, match="lenet5 takes 32x32, not 20x20"):
        model_shape("lenet5", 20)
    with pytest.raises(UsageError, match="hog_svm is no network"):
        model_shape("hog_svm")
    with pytest.raises(UsageError, match="must be at least 1"):
        layer_table(nn.Conv2d(3, 4, 3), 0)


def test_N1_where_the_size_is_not_whole_stands_in_the_row():
    rows = by_name(layer_table(on_meta(torchvision.models.googlenet, init_weights=False), 224))
    assert rows["conv1.conv"].warning == "(224-7+6)/2 = 111.5 is not whole: padding is cut unevenly"
    assert rows["maxpool1"].warning == "(112-3)/2 = 54.5 is not whole: the last window hangs over"  # ceil mode
    assert rows["inception3a.branch2.1.conv"].warning == ""


def test_N1_windows_inside_a_layer_are_not_its_own():
    """A pyramid of pools has several, local response normalisation pools over channels."""
    rows = {row["type"]: row for row in model_shape("sppnet")["parts"][0]["layers"]}
    assert rows["SpatialPyramidPooling"]["kernel"] == rows["LocalResponseNorm"]["kernel"] == ()
    assert rows["Conv2d"]["kernel"] == (3, 3)


# -- receptive fields -----------------------------------------------------------------------------


def last_field(model, layer, size=224):
    row = by_name(layer_table(model, size))[layer]
    return row.field[0], row.jump[0]


def test_N1_published_receptive_fields():
    """Araujo et al. 2019, table of section "receptive fields of popular networks"."""
    assert last_field(on_meta(torchvision.models.alexnet), "features.12") == (195, 32)
    assert last_field(on_meta(torchvision.models.vgg16), "features.30") == (212, 32)
    # He's own ResNet strides in the first 1x1 convolution of a block, torchvision's in the 3x3.
    resnet = on_meta(torchvision.models.resnet50)
    for part in resnet.modules():
        if isinstance(part, torchvision.models.resnet.Bottleneck):
            part.conv1.stride, part.conv2.stride = part.conv2.stride, part.conv1.stride
    assert last_field(resnet, "layer4.2.add") == (483, 32)


class Thin(nn.Module):
    """A convolution of the same geometry with one channel and weights 1: quick, and no gradient cancels."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        n = self.layer
        kernel = x.new_full((1, 1, *n.kernel_size), 1 / math.prod(n.kernel_size))
        x = x.mean(1, keepdim=True)
        if isinstance(n, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, kernel, None, n.stride, n.padding, n.output_padding, 1, n.dilation)
        return F.conv2d(x, kernel, None, n.stride, n.padding, n.dilation)


def thin(module):
    """All convolutions thin, no norms and dense layers, maximum pools as averages (a maximum hides what it does not choose)."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Conv2d, nn.ConvTranspose2d)):
            setattr(module, name, Thin(child))
        elif isinstance(child, (nn.BatchNorm2d, nn.Linear)):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        else:
            thin(child)
    return module


def seen(module, layer, size, unit):
    """(low, high) pixel edges that one unit on the diagonal of a layer's map sees, along both sides, by backpropagation."""
    out = []
    handle = module.get_submodule(layer).register_forward_hook(lambda m, given, value: out.append(value))
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    module.double().eval()(image)
    handle.remove()
    out[-1][0, :, unit, unit].sum().backward()
    pixels = image.grad[0].abs().sum(0)
    return [tuple(int(v) for v in (axis.nonzero().min(), axis.nonzero().max() + 1)) for axis in (pixels.sum(1), pixels.sum(0))]


def predicted(row, size, unit):
    """The same from the row's field, jump and start."""
    return [
        (max(0, int(s + unit * j - f / 2)), min(size, int(s + unit * j + f / 2)))
        for f, j, s in zip(row.field, row.jump, row.start, strict=True)
    ]


class Branches(nn.Module):
    """A dilated residual, an asymmetric branch, a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=2, padding=1)
        self.a = nn.Sequential(nn.Conv2d(4, 4, 3, dilation=3, padding=3), nn.Conv2d(4, 4, (1, 5), padding=(0, 2)))
        self.b = nn.Conv2d(4, 4, 2)
        self.c = nn.Conv2d(8, 4, 1)
        self.relu = nn.ReLU()
        self.last = nn.MaxPool2d(3, 2)

    def forward(self, x):
        x = self.stem(x)
        y = self.relu(x + self.a(x))
        z = F.pad(self.b(y), (1, 0, 1, 0))
        return self.last(self.c(torch.cat((y, z), 1)))


class Focus(nn.Module):
    """YOLOv5's first layer: every second pixel, four times, into channels; then a shifted sum."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.conv(torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1))
        return self.last(F.pad(x, (0, 2, 0, 2))[..., 2:, 2:] + x)


GRADIENT = [
    (torchvision.models.alexnet, {}, ["features.5", "features.8", "features.12"], 224),
    (torchvision.models.resnet18, {}, ["layer1.1.relu", "layer2.0.downsample.0", "layer3.1.relu", "layer4.1.relu"], 480),
    (
        torchvision.models.googlenet,
        {"init_weights": False, "aux_logits": False},
        ["inception3a.branch3", "maxpool3", "inception4b.branch4"],
        320,
    ),
    (Branches, {}, ["a", "b", "c", "last"], 64),
    (Focus, {}, ["conv", "last"], 32),
]


@pytest.mark.parametrize(("builder", "options", "layers", "size"), GRADIENT, ids=[g[0].__name__ for g in GRADIENT])
def test_N1_fields_are_what_the_gradient_reaches(builder, options, layers, size):
    """The row of the module's last operation predicts the pixels from which the gradient of a unit is not zero, borders included."""
    model = builder(**options)
    rows = layer_table(model, size)
    found = {}
    for layer in layers:
        inside = [row for row in rows if row.name == layer or row.name.startswith((f"{layer}.", f"{layer} "))]
        row = next((r for r in reversed(inside) if r.type in ("Conv2d", "MaxPool2d", "ReLU", "relu")), None)
        found[layer] = row
    slim = thin(model)
    for layer, row in found.items():
        for unit in {0, row.output[-1] // 2, row.output[-1] - 1}:
            assert seen(slim, layer, size, unit) == predicted(row, size, unit), (layer, unit)


@pytest.mark.parametrize(
    ("layers", "size", "period"),
    [
        ([nn.Conv2d(3, 2, 3, stride=2), nn.ConvTranspose2d(2, 2, 2, stride=2), nn.Conv2d(2, 2, 3)], 21, 2),
        ([nn.Conv2d(3, 2, 3, stride=3), nn.ConvTranspose2d(2, 2, 5, stride=2, padding=1), nn.AvgPool2d(2)], 30, 1),
        ([nn.AvgPool2d(4), nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(3, 2, 3, padding=1)], 32, 2),
        ([nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 2, 3)], 24, 2),
        ([nn.AvgPool2d(3), nn.Upsample(size=(17, 17), mode="bilinear", align_corners=True)], 27, 0),
        ([nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(7)], 25, 0),
        ([nn.Conv2d(3, 4, 2, stride=2), nn.PixelShuffle(2), nn.Conv2d(1, 1, 3)], 20, 2),
    ],
)
def test_N1_upsampling_sees_what_the_gradient_reaches(layers, size, period):
    """Neighbours see unlike many pixels: the field is the most of all units away from the borders; the pattern repeats after ``period``."""
    model = nn.Sequential(*layers)
    row = layer_table(model, size)[-1]
    slim = thin(model)
    if isinstance(layers[1], nn.PixelShuffle):
        slim[0] = nn.Conv2d(3, 4, 2, stride=2)
        nn.init.ones_(slim[0].weight)
    extents = [seen(slim, str(len(layers) - 1), size, unit)[0] for unit in range(row.output[-1])]
    whole = [(low, high) for low, high in extents if low > 0 and high < size] or extents
    assert row.field[0] == max(high - low for low, high in whole)
    middle = len(extents) // 2
    if period:
        assert extents[middle + period][0] - extents[middle][0] == row.jump[0] * period


def test_N1_a_squeeze_sees_the_whole_image_and_keeps_the_grid():
    class Squeeze(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.gate = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()

    rows = by_name(layer_table(Squeeze(), 32))
    assert rows["conv"].field == (3, 3)
    assert not rows["conv"].whole
    assert rows["gate"].whole
    assert rows["multiply"].whole
    assert rows["multiply"].jump == (2.0, 2.0)


def test_N1_windows_of_attention_and_reordering_by_views():
    class Reorganise(nn.Module):
        """YOLOv2's passthrough: 2x2 neighbours into channels."""

        def forward(self, x):
            n, c, h, w = x.shape
            return F.relu(x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2))

    row = layer_table(Reorganise(), 16)[-1]
    assert (row.output, row.field, row.jump, row.start) == ((1, 12, 8, 8), (2, 2), (2.0, 2.0), (1.0, 1.0))
    swin = by_name(layer_table(on_meta(lambda: timm.create_model("swin_tiny_patch4_window7_224")), 224))
    assert swin["layers.0.blocks.0.add"].field == (28, 28)  # a window of 7x7 patches of 4x4 pixels
    vit = by_name(layer_table(on_meta(lambda: timm.create_model("vit_tiny_patch16_224")), 224))
    assert vit["blocks.0.add"].whole
    assert vit["patch_embed.proj"].field == (16, 16)


def test_N1_taps_of_transposed_convolutions_are_their_definition():
    """Output o sees input i where o = i * s - p + j * d for a j of the kernel: by a loop over all pairs."""
    for k, s, p, d in [(2, 2, 0, 1), (3, 2, 1, 1), (4, 2, 1, 1), (5, 3, 2, 1), (3, 2, 0, 2)]:
        taps = transposed_taps(k, s, p, d)
        for o in range(12, 24):
            inputs = [i for i in range(-20, 60) if any(o == i * s - p + j * d for j in range(k))]
            low, high = taps[o % s]
            assert not inputs or (low + o // s, high + o // s) == (min(inputs), max(inputs))


def test_N1_adaptive_pools_split_as_torch_does():
    for old, new in [(13, 6), (7, 7), (5, 2), (6, 4)]:
        taps, step = resize_taps(old, new, "area")
        x = torch.arange(old, dtype=torch.float64)[None, None].requires_grad_()
        out = F.adaptive_avg_pool1d(x, new)
        for i in range(new):
            (grad,) = torch.autograd.grad(out[0, 0, i], x, retain_graph=True)
            used = grad[0, 0].nonzero()
            low, high = taps[i % len(taps)]
            assert (low + i // len(taps) * step, high + i // len(taps) * step) == (int(used.min()), int(used.max()))


def test_N1_the_examples_in_the_docstrings_hold():
    from saccade.explain import arithmetic, shape

    for module in (arithmetic, shape):
        found = doctest.testmod(module)
        assert found.failed == 0
        assert found.attempted >= 2


# -- the registry ---------------------------------------------------------------------------------

NETWORKS = [entry.name for entry in ENTRIES if entry.kind != "fitted"]


@pytest.mark.parametrize("name", NETWORKS)
def test_N1_every_registered_network_has_a_table(name):
    model, tables = model_tables(name)
    for table in tables.values():
        assert table.rows[-1].output[0] == table.input[0]
        assert all(row.inputs for row in table.rows)
    if model.task == "classify":
        (table,) = tables.values()
        assert table.parameters == sum(p.numel() for p in model.parameters())
        assert table.rows[-1].output[:2] == (1, model.num_classes)
        assert None not in table.rows[-1].field
        # The logits see all of the image; a network whose pools leave rows out sees what they leave.
        unseen = any("not seen" in row.warning for row in table.rows)
        assert unseen or all(f >= size for f, size in zip(table.rows[-1].field, table.input[2:], strict=True))
