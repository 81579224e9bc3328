"""The layers of Darknet's network descriptions, as its programs compute them. Maps are (C, H, W).

A layer with weights names its tensors in the order of the ``.weights`` file (:meth:`Layer.file_tensors`); heads (:class:`YoloHead`,
:class:`RegionHead`, :class:`DetectionHead`) turn the raw output before them into boxes and scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.models.darknet.tree import WordTree

Shape = tuple[int, int, int]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "relu": F.relu,
    "relu6": F.relu6,
    "mish": F.mish,
    "swish": F.silu,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": F.selu,
}


class Layer(nn.Module):
    """One section. ``out`` is the shape of its output; ``floats`` what it takes in a file of weights."""

    sources: Sequence[int] = ()
    """Numbers of the layers whose outputs it takes; empty: the one before."""

    def __init__(self, out: Shape) -> None:
        super().__init__()
        self.out = out

    def file_tensors(self) -> list[Tensor]:
        """Parameters and buffers in the order of the file."""
        return []

    @property
    def floats(self) -> int:
        """Numbers in a file of weights."""
        return sum(tensor.numel() for tensor in self.file_tensors())


class BatchNorm(nn.Module):
    """Batch normalisation over (N, C, H, W) or (N, C).

    In prediction (x - mean) / sqrt(var + 1e-5), or with ``outside`` (x - mean) / (sqrt(var) + 1e-6), which is what the original's CPU
    path computes; in training by the batch's own mean and variance, the running ones moved by 0.01.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, outside: bool) -> None:
        super().__init__()
        self.outside = outside
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.01, 1e-5)
        shape = (-1, *[1] * (x.ndim - 2))
        deviation = self.running_var.sqrt() + 1e-6 if self.outside else (self.running_var + 1e-5).sqrt()
        scale = self.weight / deviation
        return (x - self.running_mean.view(shape)) * scale.view(shape) + self.bias.view(shape)


class Convolutional(Layer):
    """``[convolutional]``: convolution, batch normalisation or bias, activation."""

    def __init__(
        self,
        shape: Shape,
        filters: int,
        size: int,
        stride: tuple[int, int],
        padding: int,
        activation: str,
        *,
        groups: int = 1,
        dilation: int = 1,
        batch_normalize: bool = False,
        outside: bool = False,
    ) -> None:
        channels, height, width = shape
        reach = dilation * (size - 1) + 1
        super().__init__((filters, (height + 2 * padding - reach) // stride[0] + 1, (width + 2 * padding - reach) // stride[1] + 1))
        self.activation = activation
        self.conv = nn.Conv2d(channels, filters, size, stride, padding, dilation, groups, bias=not batch_normalize)
        self.norm = BatchNorm(filters, outside=outside) if batch_normalize else None
        if self.conv.weight.device.type != "meta":
            nn.init.kaiming_normal_(self.conv.weight, a=0.1)

    def linear(self, x: Tensor) -> Tensor:
        """Before the activation."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.linear(x))

    def file_tensors(self) -> list[Tensor]:
        """Biases, [scales, means, variances,] weights."""
        if self.norm is None:
            assert self.conv.bias is not None
            return [self.conv.bias, self.conv.weight]
        return [self.norm.bias, self.norm.weight, self.norm.running_mean, self.norm.running_var, self.conv.weight]


class Connected(Layer):
    """``[connected]``: a dense layer over the flattened maps."""

    def __init__(self, shape: Shape, outputs: int, activation: str, *, batch_normalize: bool = False, outside: bool = False) -> None:
        super().__init__((outputs, 1, 1))
        self.activation = activation
        self.dense = nn.Linear(math.prod(shape), outputs, bias=not batch_normalize)
        self.norm = BatchNorm(outputs, outside=outside) if batch_normalize else None

    def linear(self, x: Tensor) -> Tensor:
        """Before the activation; (N, outputs, 1, 1)."""
        x = self.dense(x.flatten(1))
        return (x if self.norm is None else self.norm(x))[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.linear(x))

    def file_tensors(self) -> list[Tensor]:
        """Biases, weights[, scales, means, variances]."""
        if self.norm is None:
            return [self.dense.bias, self.dense.weight]
        return [self.norm.bias, self.dense.weight, self.norm.weight, self.norm.running_mean, self.norm.running_var]


class Local(Layer):
    """``[local]``: a convolution with weights of its own at every position."""

    def __init__(self, shape: Shape, filters: int, size: int, stride: int, padding: int, activation: str) -> None:
        channels, height, width = shape
        rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
        super().__init__((filters, rows, columns))
        self.size, self.stride, self.padding, self.activation = size, stride, padding, activation
        self.bias = nn.Parameter(torch.zeros(filters, rows, columns))
        self.weight = nn.Parameter(torch.randn(rows * columns, filters, channels * size * size) * (2 / (channels * size * size)) ** 0.5)

    def linear(self, x: Tensor) -> Tensor:
        """Before the activation."""
        patches = F.unfold(x, self.size, padding=self.padding, stride=self.stride)  # (N, C k k, positions)
        out = torch.einsum("pfk,nkp->nfp", self.weight, patches)
        return out.view(len(x), *self.out) + self.bias

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.linear(x))

    def file_tensors(self) -> list[Tensor]:
        """Biases a position, weights [position][filter][channel][row][column]."""
        return [self.bias, self.weight]


class BatchNormLayer(Layer):
    """``[batchnorm]`` alone. The original's files leave its biases out; the fork's begin with them."""

    def __init__(self, shape: Shape, *, outside: bool, activation: str = "linear") -> None:
        super().__init__(shape)
        self.norm = BatchNorm(shape[0], outside=outside)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.norm(x))

    def file_tensors(self) -> list[Tensor]:
        """[Biases,] scales, means, variances."""
        tensors: list[Tensor] = [self.norm.weight, self.norm.running_mean, self.norm.running_var]
        return tensors if self.norm.outside else [self.norm.bias, *tensors]


class MaxPool(Layer):
    """``[maxpool]``: ``padding`` (size - 1 unless said) in all, the smaller half above and left; what lies outside never wins."""

    def __init__(self, shape: Shape, size: int, stride: tuple[int, int], padding: int) -> None:
        channels, height, width = shape
        super().__init__((channels, (height + padding - size) // stride[0] + 1, (width + padding - size) // stride[1] + 1))
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.padding // 2, self.padding - self.padding // 2
        if self.size % 2 and before == after == self.size // 2:
            return F.max_pool2d(x, self.size, self.stride, before)
        return F.max_pool2d(F.pad(x, (before, after, before, after), value=-torch.inf), self.size, self.stride)


class AvgPool(Layer):
    """``[avgpool]``: the mean of every map."""

    def __init__(self, shape: Shape) -> None:
        super().__init__((shape[0], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Route(Layer):
    """``[route]``: maps of other layers one after the other; with ``groups`` the ``group_id``-th part of each."""

    def __init__(self, shapes: Sequence[Shape], sources: Sequence[int], groups: int, group: int) -> None:
        super().__init__((sum(c // groups for c, _, _ in shapes), *shapes[0][1:]))
        self.sources, self.groups, self.group = sources, groups, group

    def forward(self, *maps: Tensor) -> Tensor:
        parts = [x.chunk(self.groups, 1)[self.group] for x in maps] if self.groups > 1 else list(maps)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class Shortcut(Layer):
    """``[shortcut]``: alpha times the layer before plus beta times others.

    Of maps of other sizes the common channels are added: of a larger one every (w1 / w2)-th position, a smaller one to every
    (w2 / w1)-th.
    """

    def __init__(self, shape: Shape, sources: Sequence[int], activation: str, alpha: float, beta: float) -> None:
        super().__init__(shape)
        self.sources, self.activation, self.alpha, self.beta = sources, activation, alpha, beta

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        out = x if self.alpha == 1 else self.alpha * x
        for other in others:
            other = other if self.beta == 1 else self.beta * other
            out = out + other if other.shape == out.shape else _add_common(out, other)
        return ACTIVATIONS[self.activation](out)


def _add_common(x: Tensor, other: Tensor) -> Tensor:
    channels = min(x.shape[1], other.shape[1])
    step, spread = max(other.shape[3] // x.shape[3], 1), max(x.shape[3] // other.shape[3], 1)
    other = other[:, :channels, ::step, ::step]
    rows, columns = (min(x.shape[d] // spread, other.shape[d]) for d in (2, 3))
    out = x.clone()
    out[:, :channels, : rows * spread : spread, : columns * spread : spread] += other[:, :, :rows, :columns]
    return out


class Upsample(Layer):
    """``[upsample]``: every value ``stride`` times in both directions, times ``scale``."""

    def __init__(self, shape: Shape, stride: int, scale: float) -> None:
        channels, height, width = shape
        super().__init__((channels, height * stride, width * stride))
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=self.stride, mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Reorg(Layer):
    """``[reorg]``: maps of a quarter of the size, four times as many (stride 2).

    Not the pixel-unshuffle that the paper describes: the memory of the (C, H, W) maps is taken for (C / s^2, H s, W s) ones, whose
    s x s neighbours then become channels.
    """

    def __init__(self, shape: Shape, stride: int) -> None:
        channels, height, width = shape
        super().__init__((channels * stride**2, height // stride, width // stride))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.stride
        parts = x.reshape(n, c // s**2, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * s**2, h // s, w // s)


class Same(Layer):
    """``[dropout]`` and ``[cost]`` in prediction; dropout drops in training."""

    def __init__(self, shape: Shape, probability: float = 0.0) -> None:
        super().__init__(shape)
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.probability, self.training)


class Softmax(Layer):
    """``[softmax]`` over all values, in ``groups`` equal parts or over the siblings of a word tree."""

    def __init__(self, shape: Shape, groups: int, temperature: float, tree: WordTree | None) -> None:
        super().__init__(shape)
        self.groups, self.temperature, self.tree = groups, temperature, tree

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(1) / self.temperature
        if self.tree is not None:
            values = self.tree.softmax(values)
        else:
            values = values.unflatten(1, (self.groups, -1)).softmax(2).flatten(1)
        return values.view_as(x)


# --------------------------------------------------------------------------------------------------------------- heads


class Head(Layer):
    """What turns a raw output into boxes. ``classes``: K."""

    classes: int

    def boxes_and_scores(self, raw: Tensor, size: tuple[int, int], *, tree_threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
        """(N, A, 4) XYXY boxes in pixels of an input of ``size`` (H, W), (N, A) objectness, (N, A, K) scores: objectness times class."""
        raise NotImplementedError


def _corners(x: Tensor, y: Tensor, w: Tensor, h: Tensor, size: tuple[int, int]) -> Tensor:
    """Centres and sides as shares of the image to XYXY pixels."""
    height, width = size
    return torch.stack([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], -1)


def _cells(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row number of each cell, broadcast against (N, A, H, W)."""
    h, w = raw.shape[-2:]
    return torch.arange(w, device=raw.device, dtype=raw.dtype), torch.arange(h, device=raw.device, dtype=raw.dtype)[:, None]


class YoloHead(Head):
    """``[yolo]`` (YOLOv3, equation of section 2.1): (N, A (5 + K), H, W) to boxes, independent classes.

    b = (sigma(t) + c) / cells, side = prior e^t / input; with ``scale_x_y`` s the offset is s sigma(t) - (s - 1) / 2; with ``new_coords``
    the layer before has taken the sigmoid and side = prior (2 t)^2 / input.

    Args:
        shape: of its input. priors: (A, 2) sides in pixels of the input of the description.
    """

    def __init__(
        self, shape: Shape, priors: Sequence[tuple[float, float]], classes: int, scale_x_y: float, new_coords: bool, activation: str
    ) -> None:
        super().__init__(shape)
        self.classes, self.scale_x_y, self.new_coords, self.before = classes, scale_x_y, new_coords, activation
        self.register_buffer("priors", torch.tensor(priors, dtype=torch.float32), persistent=False)

    priors: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """What the layer puts out in Darknet: offsets, objectness and classes after their sigmoid, sides as they come."""
        n, _, h, w = x.shape
        t = x.view(n, len(self.priors), 5 + self.classes, h, w)
        if not self.new_coords:
            t = torch.cat([t[:, :, :2].sigmoid(), t[:, :, 2:4], t[:, :, 4:].sigmoid()], 2)
        if self.scale_x_y != 1:
            t = torch.cat([t[:, :, :2] * self.scale_x_y - 0.5 * (self.scale_x_y - 1), t[:, :, 2:]], 2)
        return t.reshape(n, -1, h, w)

    def boxes_and_scores(self, raw: Tensor, size: tuple[int, int], *, tree_threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
        n, _, h, w = raw.shape
        t = self(ACTIVATIONS[self.before](raw)).view(n, len(self.priors), 5 + self.classes, h, w)
        columns, rows = _cells(t)
        sides = (2 * t[:, :, 2:4]) ** 2 if self.new_coords else t[:, :, 2:4].exp()
        sides = sides * self.priors[:, :, None, None]
        x, y = (t[:, :, 0] + columns) / w, (t[:, :, 1] + rows) / h
        boxes = _corners(x, y, sides[:, :, 0] / size[1], sides[:, :, 1] / size[0], size)
        objectness = t[:, :, 4]
        scores = (objectness[:, :, None] * t[:, :, 5:]).permute(0, 1, 3, 4, 2)
        return boxes.flatten(1, 3), objectness.flatten(1), scores.flatten(1, 3)


class RegionHead(Head):
    """``[region]`` (YOLOv2): (N, A (5 + K), H, W) to boxes; one soft-max over the classes, or over the siblings of a word tree; without
    either the original takes the sigmoid of each class, the fork leaves them as they come.

    b = (sigma(t) + c) / cells, side = prior e^t / cells. With a word tree a box has one class. In the original it is the node that its
    descent reaches, and the score is the objectness; in the fork the last node that is more probable than the threshold, if there is one,
    and the score that probability, where the objectness is above the threshold of detection (:attr:`gated`).

    Args:
        shape: of its input. priors: (A, 2) sides in cells. original: whether as the original program, else as the fork.
    """

    def __init__(
        self,
        shape: Shape,
        priors: Sequence[tuple[float, float]],
        classes: int,
        softmax: bool,
        tree: WordTree | None,
        activation: str,
        *,
        original: bool,
    ) -> None:
        super().__init__(shape)
        self.classes, self.softmax, self.tree, self.before, self.original = classes, softmax, tree, activation, original
        self.register_buffer("priors", torch.tensor(priors, dtype=torch.float32), persistent=False)

    priors: Tensor

    @property
    def gated(self) -> bool:
        """Whether a score is no product with the objectness, which must be above the threshold for itself."""
        return self.tree is not None and not self.original

    def forward(self, x: Tensor) -> Tensor:
        """What the layer puts out in Darknet: offsets and objectness after their sigmoid, classes after the soft-max."""
        n, _, h, w = x.shape
        t = x.view(n, len(self.priors), 5 + self.classes, h, w)
        classes = t[:, :, 5:].movedim(2, -1)
        if self.tree is not None:
            classes = self.tree.softmax(classes)
        elif self.softmax:
            classes = classes.softmax(-1)
        elif self.original:
            classes = classes.sigmoid()
        return torch.cat([t[:, :, :2].sigmoid(), t[:, :, 2:4], t[:, :, 4:5].sigmoid(), classes.movedim(-1, 2)], 2).reshape(n, -1, h, w)

    def boxes_and_scores(self, raw: Tensor, size: tuple[int, int], *, tree_threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
        n, _, h, w = raw.shape
        t = self(ACTIVATIONS[self.before](raw)).view(n, len(self.priors), 5 + self.classes, h, w)
        columns, rows = _cells(t)
        sides = t[:, :, 2:4].exp() * self.priors[:, :, None, None]
        x, y = (t[:, :, 0] + columns) / w, (t[:, :, 1] + rows) / h
        boxes = _corners(x, y, sides[:, :, 0] / w, sides[:, :, 1] / h, size).flatten(1, 3)
        objectness = t[:, :, 4].flatten(1)
        classes = t[:, :, 5:].permute(0, 1, 3, 4, 2).flatten(1, 3)
        if self.tree is None:
            return boxes, objectness, objectness[..., None] * classes
        absolute = self.tree.absolute(classes)
        if self.original:
            node, value = self.tree.descend(absolute, tree_threshold)[..., None], objectness[..., None]
        else:  # nodes above one half are one path, the last its end
            last = ((absolute > tree_threshold) * torch.arange(1, self.classes + 1, device=raw.device)).amax(-1, keepdim=True)
            node = (last - 1).clamp_min(0)
            value = absolute.gather(-1, node) * (last > 0)
        return boxes, objectness, torch.zeros_like(classes).scatter_(-1, node, value)


class DetectionHead(Head):
    """``[detection]`` (YOLOv1): (N, S S (K + B 5)) as [classes a cell][confidence a box][x y w h a box] to boxes.

    x and y are shares of the cell, w and h of the image, as square roots with ``sqrt``.
    """

    def __init__(self, shape: Shape, side: int, boxes: int, classes: int, softmax: bool, sqrt: bool, activation: str) -> None:
        super().__init__(shape)
        self.side, self.count, self.classes, self.softmax, self.sqrt, self.before = side, boxes, classes, softmax, sqrt, activation

    def forward(self, x: Tensor) -> Tensor:
        """What the layer puts out in Darknet: the vector, the classes after a soft-max where it has one."""
        if not self.softmax:
            return x
        flat, cells = x.flatten(1), self.side**2
        classes = flat[:, : cells * self.classes].view(-1, cells, self.classes).softmax(2).flatten(1)
        return torch.cat([classes, flat[:, cells * self.classes :]], 1).view_as(x)

    def boxes_and_scores(self, raw: Tensor, size: tuple[int, int], *, tree_threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
        s, b, k = self.side, self.count, self.classes
        flat = self(ACTIVATIONS[self.before](raw)).flatten(1)
        classes, confidence, places = flat.split([s * s * k, s * s * b, s * s * b * 4], 1)
        place = places.view(-1, s, s, b, 4)
        cells = torch.arange(s, device=raw.device, dtype=raw.dtype)
        x, y = (place[..., 0] + cells[:, None]) / s, (place[..., 1] + cells[:, None, None]) / s
        w, h = (place[..., d] ** 2 if self.sqrt else place[..., d] for d in (2, 3))
        scores = confidence.view(-1, s * s, b, 1) * classes.view(-1, s * s, 1, k)
        return _corners(x, y, w, h, size).flatten(1, 3), confidence, scores.flatten(1, 2)
