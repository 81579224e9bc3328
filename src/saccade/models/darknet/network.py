"""From a description to a network: shapes from layer to layer, what is kept for later layers, and the raw outputs of the heads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from saccade.models.darknet import layers as dk
from saccade.models.darknet.cfg import Description, Dialect, Section
from saccade.models.darknet.layers import Head, Layer, Shape
from saccade.models.darknet.tree import WordTree, read_tree
from saccade.types.errors import DataError, suggest

MOST_FLOATS = 2**31
"""Weights, or values of one layer's output for one image, that a description may ask for (8 GiB)."""

LARGEST_INPUT = 8192
LARGEST_PRIOR = 100_000

NOT_COMPUTED = {
    "xnor": "0", "binary": "0", "flipped": "0", "antialiasing": "0", "share_index": "-1000000000", "assisted_excitation": "0",
    "deform": "0", "sway": "0", "rotate": "0", "stretch": "0", "stretch_sway": "0", "maxpool_depth": "0", "weights_type": "none",
    "reverse": "0", "flatten": "0", "extra": "0", "numload": "0", "dontload": "0", "dontloadscales": "0", "background": "0",
    "noadjust": "0", "spatial": "0",
}  # fmt: skip
"""Options that change what a layer computes and that no network of the papers has; another value than this is an error, not a guess."""


class DarknetNetwork(nn.Module):
    """The layers of a description.

    Attributes:
        layers: one module a section, in order. input: (C, H, W) of the description.
        busiest: most values that one layer reads and writes for one image.
        heads: numbers of the ``[yolo]``, ``[region]`` and ``[detection]`` layers.
        tree: the word tree of the last layer that has one.
    """

    def __init__(self, description: Description, dialect: Dialect, tree: str | Path | None = None) -> None:
        super().__init__()
        self.description, self.dialect = description, dialect
        net = description.net
        self.input: Shape = (
            net.int("channels", 3, 1, 4096),
            net.int("height", 416, 1, LARGEST_INPUT),
            net.int("width", 416, 1, LARGEST_INPUT),
        )
        self.tree: WordTree | None = None
        self.tree_path = tree
        self.layers = nn.ModuleList()
        self.sections = description.layers
        shape, total, self.busiest = self.input, 0, 0
        for section in description.layers:
            for key, plain in NOT_COMPUTED.items():
                if key in section and section.text(key).lower() not in (plain, ""):
                    raise section.error(f"{key}={section.text(key)[:40]} is not computed here", key)
            layer, floats = self._build(section, shape)
            total += floats
            if min(layer.out) < 1:
                raise section.error(f"an input of {_shown(shape)} is too small for it")
            if max(total, math.prod(layer.out)) > MOST_FLOATS:
                raise section.error(f"the network needs more than {MOST_FLOATS >> 20} M numbers up to here")
            self.layers.append(layer)
            self.busiest = max(self.busiest, math.prod(shape) + math.prod(layer.out))
            shape = layer.out
        self.heads = [k for k, layer in enumerate(self.layers) if isinstance(layer, Head)]
        last = {k: k for k in range(len(self.layers))}  # the last layer that takes each output
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            for source in layer.sources:
                last[source] = max(last[source], k)
        self._kept = [[source for source, until in last.items() if until == k and source < k] for k in range(len(self.layers))]
        self._wanted = {source for layer in self.layers for source in layer.sources}  # type: ignore[attr-defined, union-attr]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) in 0..1 to the raw output of every head, before its layer's activation; without heads the last scores (N, K, 1, 1).

        Of a network without heads the soft-max at its end is left out.
        """
        x, outputs, raws = images, {}, []
        for k, layer in enumerate(self.layers):
            follows = self.layers[k + 1] if k + 1 < len(self.layers) else None
            if isinstance(follows, Head):
                raw = layer.linear(x) if isinstance(layer, (dk.Convolutional, dk.Connected, dk.Local)) else None
                x = dk.ACTIVATIONS[layer.activation](raw) if raw is not None else self._step(layer, x, outputs)  # type: ignore[index]
                raws.append(x if raw is None else raw)
            elif isinstance(layer, (dk.Softmax, dk.Same)) and not self.heads and self._is_end(k):
                break
            elif isinstance(layer, Head) and k not in self._wanted and (follows is None or isinstance(follows, dk.Route)):
                continue  # nobody takes its output
            else:
                x = self._step(layer, x, outputs)
            if k in self._wanted:
                outputs[k] = x
            for source in self._kept[k]:
                outputs.pop(source, None)
        return raws or [x]

    @staticmethod
    def _step(layer: nn.Module, x: Tensor, outputs: dict[int, Tensor]) -> Tensor:
        if isinstance(layer, dk.Route):
            return layer(*(outputs[k] for k in layer.sources))
        if isinstance(layer, dk.Shortcut):
            return layer(x, *(outputs[k] for k in layer.sources))
        return layer(x)

    def _is_end(self, k: int) -> bool:
        return all(isinstance(layer, (dk.Softmax, dk.Same)) for layer in self.layers[k:])

    # ------------------------------------------------------------------------------------------------- a section

    def _build(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        """A layer, and how many weights it has (checked before they are made)."""
        kind: Callable[[Section, Shape], tuple[Layer, int]] = getattr(self, f"_{section.kind}")
        return kind(section, shape)

    def _take(self, section: Section, floats: int) -> int:
        if floats > MOST_FLOATS:
            raise section.error(f"asks for {floats:,} weights, more than {MOST_FLOATS:,}")
        return floats

    def _activation(self, section: Section, default: str) -> str:
        name = section.text("activation", default).lower()[:40]
        if name not in dk.ACTIVATIONS:
            raise section.error(f"activation {name!r} is not known{suggest(name, dk.ACTIVATIONS)}", "activation")
        return name

    def _source(self, section: Section, key: str, number: int) -> int:
        """A layer's number from a relative or absolute one."""
        source = section.number + number if number < 0 else number
        if not 0 <= source < section.number:
            what = "itself or a later one" if source >= section.number else "one before the first"
            raise section.error(f"{key}={number} points at layer {source}, {what}", key)
        return source

    def _stride(self, section: Section, default: int | None = 1) -> tuple[int, int]:
        stride = section.int("stride", default, 1, 1024)
        return section.int("stride_y", stride, 1, 1024), section.int("stride_x", stride, 1, 1024)

    @property
    def _outside(self) -> bool:
        return self.dialect == "pjreddie"

    def _convolutional(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        filters, size = section.int("filters", 1, 1), section.int("size", 1, 1, 1024)
        groups, dilation = section.int("groups", 1, 1), section.int("dilation", 1, 1, 1024)
        padding = size // 2 if section.int("pad", 0) else section.int("padding", 0, 0, 1024)
        if dilation > 1 and section.int("pad", 0):
            padding = dilation * (size // 2)
        if shape[0] % groups or filters % groups:
            raise section.error(f"groups={groups} does not divide {shape[0]} channels and {filters} filters", "groups")
        normalised = bool(section.int("batch_normalize", 0))
        floats = self._take(section, filters * (shape[0] // groups) * size**2 + filters * (4 if normalised else 1))
        reach = dilation * (size - 1) + 1
        if min(shape[1:]) + 2 * padding < reach:
            raise section.error(f"its {size}x{size} window is larger than its input of {_shown(shape)}")
        layer = dk.Convolutional(
            shape, filters, size, self._stride(section), padding, self._activation(section, "logistic"), groups=groups, dilation=dilation,
            batch_normalize=normalised, outside=self._outside,
        )  # fmt: skip
        return layer, floats

    def _connected(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        outputs, normalised = section.int("output", 1, 1, 1 << 24), bool(section.int("batch_normalize", 0))
        floats = self._take(section, math.prod(shape) * outputs + outputs * (4 if normalised else 1))
        activation = self._activation(section, "logistic")
        return dk.Connected(shape, outputs, activation, batch_normalize=normalised, outside=self._outside), floats

    def _local(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        filters, size, stride = section.int("filters", 1, 1), section.int("size", 1, 1, 1024), section.int("stride", 1, 1, 1024)
        padding = section.int("pad", 0, 0, 1)
        if padding and size != 3:
            raise section.error("pad=1 is defined for size=3 only: Darknet pads by one pixel and counts as for a 3x3 window", "pad")
        if min(shape[1:]) + 2 * padding < size:
            raise section.error(f"its {size}x{size} window is larger than its input of {_shown(shape)}")
        positions = math.prod((side + 2 * padding - size) // stride + 1 for side in shape[1:])
        floats = self._take(section, positions * filters * (1 + shape[0] * size**2))
        return dk.Local(shape, filters, size, stride, padding, self._activation(section, "logistic")), floats

    def _batchnorm(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        return dk.BatchNormLayer(shape, outside=self._outside, activation=self._activation(section, "linear")), 4 * shape[0]

    def _maxpool(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        stride = self._stride(section)
        size = section.int("size", stride[0], 1, 1024)
        padding = section.int("padding", size - 1, 0, 2048)
        if max(padding // 2, padding - padding // 2) >= size:
            raise section.error(f"padding={padding} leaves windows of {size} without a value", "padding")
        return dk.MaxPool(shape, size, stride, padding), 0

    def _avgpool(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        return dk.AvgPool(shape), 0

    def _route(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        sources = [self._source(section, "layers", n) for n in section.ints("layers")]
        if not sources:
            raise section.error("has no layers=")
        shapes = [self._shape(k) for k in sources]
        groups = section.int("groups", 1, 1)
        group = section.int("group_id", 0, 0, groups - 1)
        for k, given in zip(sources, shapes, strict=True):
            if given[1:] != shapes[0][1:]:
                raise section.error(f"layer {k} gives {_shown(given)}, layer {sources[0]} {_shown(shapes[0])}: sizes differ", "layers")
            if given[0] % groups:
                raise section.error(f"groups={groups} does not divide the {given[0]} maps of layer {k}", "groups")
        return dk.Route(shapes, sources, groups, group), 0

    def _shortcut(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        sources = [self._source(section, "from", n) for n in section.ints("from")]
        if not sources:
            raise section.error("has no from=")
        for k in sources:
            _, height, width = self._shape(k)
            larger, smaller = max(width, shape[2]), min(width, shape[2])
            if larger // smaller != max(height, shape[1]) // min(height, shape[1]) or (height > shape[1]) != (width > shape[2]):
                raise section.error(
                    f"layer {k} gives {_shown(self._shape(k))}, the layer before {_shown(shape)}: they cannot be added", "from"
                )
        alpha, beta = section.float("alpha", 1.0), section.float("beta", 1.0)
        return dk.Shortcut(shape, sources, self._activation(section, "linear"), alpha, beta), 0

    def _upsample(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        stride = section.int("stride", 2, 1, 64)
        if math.prod(shape) * stride**2 > MOST_FLOATS:
            raise section.error(f"stride={stride} makes the maps too large", "stride")
        return dk.Upsample(shape, stride, section.float("scale", 1.0)), 0

    def _reorg(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        stride = section.int("stride", 1, 1, 1024)
        if shape[0] % stride**2 or shape[1] % stride or shape[2] % stride:
            raise section.error(f"stride={stride} does not divide its input of {_shown(shape)}", "stride")
        return dk.Reorg(shape, stride), 0

    def _dropout(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        probability = section.float("probability", 0.5)
        if not 0 <= probability < 1:
            raise section.error(f"probability={probability} lies outside 0..1", "probability")
        return dk.Same(shape, probability), 0

    def _cost(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        return dk.Same(shape), 0

    def _softmax(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        groups, temperature = section.int("groups", 1, 1), section.float("temperature", 1.0)
        if math.prod(shape) % groups or temperature <= 0:
            raise section.error(f"groups={groups} must divide its {math.prod(shape)} inputs, and the temperature be above 0", "groups")
        return dk.Softmax(shape, groups, temperature, self._tree(section, math.prod(shape), "its inputs")), 0

    # --------------------------------------------------------------------------------------------------- heads

    def _before(self) -> str:
        """Activation of the layer before a head, which decoding does itself."""
        layer = self.layers[-1] if self.layers else None
        return layer.activation if isinstance(layer, (dk.Convolutional, dk.Connected, dk.Local)) else "linear"

    def _yolo(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        classes = section.int("classes", 20, 1)
        priors = self._priors(section, section.int("num", 1, 1, 4096))
        mask = section.ints("mask") or list(range(len(priors)))
        if not all(0 <= m < len(priors) for m in mask):
            raise section.error(f"mask={section.text('mask')[:40]} names priors that are not there: there are {len(priors)}", "mask")
        self._check_channels(section, shape, len(mask), classes)
        scale, new = section.float("scale_x_y", 1.0), bool(section.int("new_coords", 0))
        return dk.YoloHead(shape, [priors[m] for m in mask], classes, scale, new, self._before()), 0

    def _region(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        classes, count = section.int("classes", 20, 1), section.int("num", 1, 1, 4096)
        if section.int("coords", 4) != 4:
            raise section.error(f"coords={section.text('coords')}: only boxes of 4 are known", "coords")
        priors = self._priors(section, count)
        self._check_channels(section, shape, count, classes)
        tree = self._tree(section, classes, "classes")
        softmax, original = bool(section.int("softmax", 0)), self.dialect == "pjreddie"
        return dk.RegionHead(shape, priors, classes, softmax, tree, self._before(), original=original), 0

    def _detection(self, section: Section, shape: Shape) -> tuple[Layer, int]:
        side, boxes, classes = section.int("side", 7, 1, 1024), section.int("num", 1, 1, 1024), section.int("classes", 1, 1)
        if section.int("coords", 4) != 4:
            raise section.error(f"coords={section.text('coords')}: only boxes of 4 are known", "coords")
        wanted = side**2 * (classes + 5 * boxes)
        if math.prod(shape) != wanted:
            raise section.error(f"needs {side}x{side}x({classes} + 5x{boxes}) = {wanted} inputs, the layer before gives {math.prod(shape)}")
        softmax, sqrt = bool(section.int("softmax", 0)), bool(section.int("sqrt", 0))
        return dk.DetectionHead(shape, side, boxes, classes, softmax, sqrt, self._before()), 0

    def _priors(self, section: Section, count: int) -> list[tuple[float, float]]:
        values = section.floats("anchors")
        if len(values) != 2 * count:
            raise section.error(f"num={count} needs {2 * count} numbers in anchors, there are {len(values)}", "anchors")
        if not all(0 < value <= LARGEST_PRIOR for value in values):
            raise section.error(f"anchors must be above 0, at most {LARGEST_PRIOR:,}", "anchors")
        return list(zip(values[::2], values[1::2], strict=True))

    def _check_channels(self, section: Section, shape: Shape, priors: int, classes: int) -> None:
        wanted = priors * (5 + classes)
        if shape[0] != wanted:
            hint = f"filters={wanted} in the layer before"
            raise section.error(f"needs {priors} x (5 + {classes}) = {wanted} maps, the layer before gives {shape[0]}", "classes", hint)

    def _tree(self, section: Section, classes: int, what: str) -> WordTree | None:
        if "tree" not in section and self.tree_path is None:
            return None
        if section.kind == "softmax" and "tree" not in section:
            return None
        named = Path(section.text("tree"))
        folder = self.description.path.parent
        places = [Path(self.tree_path)] if self.tree_path is not None else [folder / named, folder / named.name, folder.parent / named]
        found = next((place for place in places if os.path.isfile(place)), None)
        if found is None:
            raise section.error(f"the word tree {str(named)[:60]} is not there", "tree", "give its file: load_darknet(..., tree=FILE)")
        tree = read_tree(found)
        if len(tree) != classes:
            raise section.error(f"{found.name} has {len(tree)} nodes for {classes} {what}", "tree")
        self.tree = tree
        return tree

    def _shape(self, number: int) -> Shape:
        layer = self.layers[number]
        assert isinstance(layer, Layer)
        return layer.out


def _shown(shape: Shape) -> str:
    channels, height, width = shape
    return f"{channels} maps of {height}x{width}"


def build_network(description: Description, dialect: Dialect, tree: str | Path | None = None) -> DarknetNetwork:
    """The network with fresh weights; its size is known, and checked against the memory there is, before any is taken.

    Raises:
        DataError: a section that cannot be (names it and its line), or more memory than this machine has.
    """
    with torch.device("meta"):
        sketch = DarknetNetwork(description, dialect, tree)
    wanted, free = 4 * (sum(t.numel() for t in (*sketch.parameters(), *sketch.buffers())) + sketch.busiest), available_memory()
    problem = f"the network and one image in it take {wanted / 2**30:.1f} GiB"
    if wanted > free:
        raise DataError(description.path, f"{problem}, {free / 2**30:.1f} GiB of memory are free")
    try:
        return DarknetNetwork(description, dialect, tree)
    except RuntimeError as error:  # torch's allocator, where this process may take less than is free
        if "allocate memory" not in str(error):
            raise
        raise DataError(description.path, f"{problem}, which this process does not get") from None


def available_memory() -> float:
    """Bytes that can be had without swapping, where the system tells; else infinite."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return math.inf
