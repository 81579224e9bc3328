"""U-Net (2015).

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, arXiv:1505.04597.

What was new: a decoder as wide as the encoder, which gets the encoder's maps by concatenation, so that a small set of strongly
augmented images suffices; any image size by overlapping tiles; a loss that is heavy where two cells nearly touch.

Where what stands:

* figure 1 (the network): :class:`UNetBody` (levels of :class:`DoubleConv`, joined by :class:`Up`),
* figure 2 (overlap-tile with mirroring): :meth:`UNet.network` and :func:`saccade.layers.tiling.tile_predict`,
* equation 1 (softmax cross entropy with a weight a pixel): loss "border",
* equation 2 (w = w_c + w_0 exp(-(d_1 + d_2)^2 / 2 sigma^2), w_0 = 10, sigma = 5): :func:`border_weights`,
* section 3 (initial weights N(0, 2 / N)): :func:`initialise`,
* 3-D form (Cicek et al. 2016, arXiv:1606.06650): ``dims=3``; :meth:`UNet.raw` on (N, C, D, H, W), trained by ``losses`` with
  masks (D, H, W); files and predictions are 2-D.

Deviations. The defaults are what trains best from scratch in minutes on a CPU: 'same' padding, batch normalisation, width 24,
Adam with a warm-up and a cosine. The paper's network is ``width=64, padding="valid", norm="none", dropout=0.5`` and its optimiser
SGD with momentum 0.99. With ``backbone=NAME`` the encoder is any network of timm; decoder and skips stay.
Inputs whose sides the strides do not divide are mirrored up on the right and below and the result is cut.

Pinned by tests: 572 -> 388; 31,030,658 parameters for a grey input and two classes (31,031,810 for RGB); the 23 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.data.transforms.preprocess import Preprocess
from saccade.layers.backbones import timm_features
from saccade.layers.tiling import mirror_pad
from saccade.losses.segmentation import SPECS
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.segment.base import Segmenter
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import IGNORE, Target

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UPCONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
MEAN, STD = (0.5,), (0.25,)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with ReLU (and batch normalisation before it)."""

    def __init__(self, channels: int, out: int, *, dims: int = 2, padding: str = "same", norm: str = "batch") -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, out):
            layers.append(CONV[dims](inputs, out, 3, padding=1 if padding == "same" else 0, bias=norm == "none"))
            if norm == "batch":
                layers.append(NORM[dims](out))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Up(nn.Module):
    """One step of the decoder: enlarge, put the encoder's map beside it, two convolutions.

    "transposed" is the paper's 2x2 up-convolution of stride 2; "bilinear" interpolates and changes the channels by 1x1.
    Without padding the encoder's map is cut to its centre (figure 1); else the enlarged map is fitted to it (odd sizes).
    Without a skip (``skip=0``) the map is only enlarged and convolved.
    """

    def __init__(
        self, channels: int, skip: int, out: int, *, dims: int = 2, padding: str = "same", norm: str = "batch", up: str = "transposed"
    ) -> None:
        super().__init__()
        self.mode = LINEAR[dims]
        self.interpolate = up == "bilinear"
        self.crop = padding == "valid"
        self.up = CONV[dims](channels, out, 1) if self.interpolate else UPCONV[dims](channels, out, 2, stride=2)
        self.conv = DoubleConv(out + skip, out, dims=dims, padding=padding, norm=norm)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = self.up(x)
        if self.interpolate:
            x = F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)
        if skip is None:
            return self.conv(x)
        if self.crop:
            skip = _cut(skip, [(a - b) // 2 for a, b in zip(skip.shape[2:], x.shape[2:], strict=True)], x.shape[2:])
        elif x.shape[2:] != skip.shape[2:]:
            x = F.interpolate(x, size=skip.shape[2:], mode=self.mode, align_corners=False)
        return self.conv(torch.cat([skip, x], dim=1))


def _cut(x: Tensor, starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """The window of ``sizes`` at ``starts`` of (N, C, ...)."""
    for k, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if x.shape[2 + k] != size:
            x = x.narrow(2 + k, start, size)
    return x


def initialise(module: nn.Module) -> None:
    """Section 3: weights from N(0, 2 / N), N the inputs of a neuron; biases 0."""
    for layer in module.modules():
        if isinstance(layer, (*CONV.values(), *UPCONV.values())):
            # a transposed 2x2 convolution of stride 2 gives each output one tap of every input channel
            inputs = layer.in_channels if isinstance(layer, tuple(UPCONV.values())) else layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class UNetBody(nn.Module):
    """Figure 1: ``depth`` times down and up; sides must satisfy :attr:`UNet.stride`, without padding also minus 4."""

    def __init__(
        self, num_classes: int, in_chans: int, width: int, depth: int, *, padding: str, norm: str, dims: int, up: str, dropout: float
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        style = {"dims": dims, "padding": padding, "norm": norm}
        self.down = nn.ModuleList(DoubleConv(a, b, **style) for a, b in zip([in_chans, *widths], widths, strict=False))
        self.pool = POOL[dims](2)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(Up(w * 2, w, w, up=up, **style) for w in reversed(widths[:-1]))
        self.head = CONV[dims](width, num_classes, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            if level >= len(self.down) - 2:  # the last two levels of the contracting path, as the authors' network
                x = self.dropout(x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(x, skip)
        return self.head(x)


class BackboneBody(nn.Module):
    """The same decoder on the maps of a timm network; ``width`` channels at full size, twice as many a level below."""

    def __init__(
        self, num_classes: int, in_chans: int, width: int, *, name: str, pretrained: bool, size: int | None, norm: str, up: str
    ) -> None:
        super().__init__()
        self.backbone = timm_features(name, in_chans, pretrained, size)
        info = self.backbone.feature_info
        # the last map of each reduction (a plain transformer has several of one)
        self.level_of = {int(r): i for i, r in enumerate(info.reduction())}
        self.channels = list(info.channels())
        self.channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")  # Swin and its kin
        self.stride = max(self.level_of)
        if any(r & (r - 1) for r in self.level_of):
            raise UsageError(f"backbone {name!r} reduces by {sorted(self.level_of)}; the decoder needs powers of two")
        self.reductions = [self.stride >> k for k in range(1, self.stride.bit_length())]
        channels, steps = self.channels[self.level_of[self.stride]], []
        for reduction in self.reductions:
            skip = self.channels[self.level_of[reduction]] if reduction in self.level_of else 0
            steps.append(Up(channels, skip, width * reduction, norm=norm, up=up))
            channels = width * reduction
        self.up = nn.ModuleList(steps)
        self.head = nn.Conv2d(channels, num_classes, 1)
        initialise(self.up)
        initialise(self.head)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        if self.channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        x = maps[self.level_of[self.stride]]
        for block, reduction in zip(self.up, self.reductions, strict=True):
            x = block(x, maps[self.level_of[reduction]] if reduction in self.level_of else None)
        return self.head(x)


class UNet(Segmenter):
    """U-Net: see the module's docstring and :func:`unet`.

    Attributes:
        stride: sides inside the network are cut to multiples of this.
        margin: positions that the network without padding loses on each side: 6 * 2^depth - 4, 92 for depth 4.
    """

    loss_names = (*SPECS, "border")

    def __init__(
        self, num_classes: int, body: nn.Module, preprocess: Preprocess, *, stride: int, valid: bool, dims: int, tile: int
    ) -> None:
        super().__init__(num_classes, preprocess)
        self.body, self.stride, self.valid, self.dims = body, stride, valid, dims
        lost = 6 * stride - 4
        self.margin = lost if valid else -(-lost // stride) * stride
        # without padding, an output of a multiple of the stride plus 4 keeps all pooling sides even (572 -> 388)
        self.tile = tile // stride * stride + (4 if valid else 0) if tile else 0
        self.tile_align = stride

    def network(self, images: Tensor) -> Tensor:
        """Logits of every position: borders are mirrored where there is no padding, odd sides on the right and below."""
        if images.ndim != self.dims + 2:
            raise UsageError(f"this U-Net takes (N, C, {'D, ' if self.dims == 3 else ''}H, W), not {tuple(images.shape)}")
        sizes = images.shape[2:]
        before = self.margin if self.valid else 0
        less = 4 if self.valid else 0  # without padding, sides are multiples of the stride minus 4: all poolings are even
        after = [before - (s + 2 * before + less) % -self.stride for s in sizes]
        logits = self.body(mirror_pad(images, [before] * self.dims, after))
        return _cut(logits, [0] * self.dims, sizes)

    def tile_network(self, windows: Tensor) -> Tensor:
        """The body alone: a window already has its margin."""
        return self.body(windows)

    def set_loss(self, name: str, class_weights: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        """As the base; "border" is equation 1 with the weights of equation 2."""
        super().set_loss("ce" if name == "border" else name, class_weights, label_smoothing)
        self.loss_name = name

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """The chosen loss. "border" takes the cells from ``target["masks"]``, else each connected region of a class is one."""
        if self.loss_name != "border":
            return super().losses(images, targets)
        logits = self.raw(images)
        total, count = 0.0, 0
        for one, target in zip(logits, targets, strict=True):
            mask = target["mask"].as_subclass(Tensor)
            cells = target["masks"].as_subclass(Tensor).cpu().numpy() if "masks" in target else regions(mask.cpu().numpy())
            mask = mask.to(one.device)
            valid = mask != IGNORE
            base = self.criterion.class_weights
            weights = torch.ones_like(one[0]) if base is None else base.to(one)[mask.clamp_min(0)]
            weights = weights + torch.from_numpy(border_weights(cells, mask.shape)).to(one)
            errors = F.cross_entropy(one.float()[None], mask[None], reduction="none", ignore_index=IGNORE)[0]
            total, count = total + (weights * errors).sum(), count + valid.sum()
        return {"border": total / torch.as_tensor(count).clamp_min(1)}


def regions(mask: np.ndarray) -> np.ndarray:
    """(N, ...) bool: the connected regions of each class but 0 of a class mask; pixels below 0 have no class."""
    from scipy import ndimage

    found = []
    for label in np.unique(mask[mask > 0]):
        numbered, count = ndimage.label(mask == label)
        found += [numbered == i for i in range(1, count + 1)]
    return np.stack(found) if found else np.zeros((0, *mask.shape), dtype=bool)


def border_weights(cells: np.ndarray, size: Sequence[int], *, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Equation 2 without w_c: w_0 exp(-(d_1 + d_2)^2 / (2 sigma^2)), float32 of ``size``.

    Args:
        cells: (N, *size) bool, a mask a cell.
        size: of the image.
        w0, sigma: height and width in pixels.

    d_1 and d_2 are the distances to the border of the nearest and of the second nearest cell (0 inside a cell);
    with fewer than two cells all weights are 0.
    """
    from scipy import ndimage

    cells = cells[cells.reshape(len(cells), -1).any(1)] if len(cells) else cells
    if len(cells) < 2:
        return np.zeros(tuple(size), dtype=np.float32)
    nearest = np.full((2, *size), np.inf)
    for cell in cells:
        distance = ndimage.distance_transform_edt(~cell)
        nearest[1] = np.minimum(nearest[1], np.maximum(nearest[0], distance))
        nearest[0] = np.minimum(nearest[0], distance)
    return (w0 * np.exp(-(nearest.sum(0) ** 2) / (2 * sigma**2))).astype(np.float32)


def unet(
    num_classes: int = 2,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int | None = 128,
    width: int = 24,
    depth: int = 4,
    padding: Literal["same", "valid"] = "same",
    norm: Literal["batch", "none"] = "batch",
    up: Literal["transposed", "bilinear"] = "transposed",
    dropout: float = 0.0,
    dims: Literal[2, 3] = 2,
    backbone: str | None = None,
    pretrained_backbone: bool = False,
    tile: int = 384,
) -> UNet:
    """U-Net. The paper's network is ``width=64, padding="valid", norm="none", dropout=0.5``.

    Args:
        num_classes: classes of a pixel, the background (label 0) among them.
        in_chans: 1 or 3.
        pretrained: no weights of the whole network are published; True is an error.
        size: side to which images are stretched; None keeps their pixels (any size, larger ones by tiles).
        width: channels of the first level. depth: how often the size is halved (paper's form only).
        padding: "valid" as the paper: input borders are mirrored by the margin instead of padded by zeros inside.
        norm: batch normalisation or none. up: up-convolution or interpolation. dropout: at the end of the contracting path.
        dims: 3 for volumes (N, C, D, H, W).
        backbone: a network of timm as the encoder. pretrained_backbone: with its published weights.
        tile: side of an output tile when ``size`` is None.
    """
    if pretrained:
        raise UsageError("no weights are published for unet; give model.backbone=NAME and model.pretrained_backbone=true")
    check_within(1, 4096, size=size, tile=tile, width=width)
    check_within(1, 8, depth=depth)
    if backbone and (padding == "valid" or dims == 3):
        raise UsageError("a timm backbone pads and is 2-D: leave model.padding and model.dims alone")
    if backbone:
        body: nn.Module = BackboneBody(
            num_classes, in_chans, width, name=backbone, pretrained=pretrained_backbone, size=size, norm=norm, up=up
        )
        stride = body.stride
    else:
        body = UNetBody(num_classes, in_chans, width, depth, padding=padding, norm=norm, dims=dims, up=up, dropout=dropout)
        stride = 2**depth
    if size is None:
        preprocess = Preprocess(mode="keep", channels=in_chans, mean=MEAN, std=STD)
    else:
        preprocess = Preprocess(mode="stretch", size=(size, size), channels=in_chans, mean=MEAN, std=STD)
    return UNet(num_classes, body, preprocess, stride=stride, valid=padding == "valid", dims=dims, tile=0 if size else tile)


RECIPES = {
    "unet": Recipe(
        epochs=35,
        batch_size=4,
        optimizer="adamw",
        lr=2e-3,
        weight_decay=0.01,
        warmup=1.0,
        ema=0.99,
        precision="auto",
        channels_last=True,
        loss="ce+dice",
        hflip=0.5,
        vflip=0.5,
        quarter_turns=True,
        scale=0.1,
        brightness=0.1,
        contrast=0.1,
        saturation=0.1,
        hue=0.01,
    )
}
