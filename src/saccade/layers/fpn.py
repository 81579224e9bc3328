"""Feature maps for pyramids: any timm backbone as a list of maps at strides 4, 8, 16, 32, its norm layers, its frozen stages.

The pyramid itself (Lin et al., Feature Pyramid Networks for Object Detection, 2017, arXiv 1612.03144, figure 3) is
``torchvision.ops.FeaturePyramidNetwork``: lateral 1x1 convolutions, nearest-neighbour upsampling, addition, 3x3 convolutions.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from saccade.layers.backbones import check_backbone
from saccade.types.errors import UsageError

Norm = Literal["frozen", "batch", "group"]


class Taps(NamedTuple):
    """Where a backbone is tapped, finest first: position among its outputs, stride, channels and module of each map."""

    indices: list[int]
    strides: list[int]
    channels: list[int]
    modules: list[str]


def timm_backbone(name: str, *, in_chans: int = 3, pretrained: bool = False) -> tuple[nn.Module, Taps]:
    """A timm network that returns its feature maps, tapped at every stride from 4 up.

    Raises:
        UsageError: timm has no such network, or it gives no maps of falling size (plain vision transformers).
    """
    import timm

    check_backbone(name)
    try:
        net = timm.create_model(name, features_only=True, in_chans=in_chans, pretrained=pretrained)
        info = net.feature_info
        strides, channels, modules = info.reduction(), info.channels(), info.module_name()
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UsageError(f"timm cannot give features of a backbone {name!r}: {error}") from None
    # A stride may be tapped twice (timm's VGG: before and after the last pool keep their own strides); the deepest map wins.
    last = {stride: i for i, stride in enumerate(strides) if stride >= 4}
    if len(last) < 2:
        raise UsageError(f"backbone {name!r} has maps of strides {strides}: a pyramid needs at least two of 4, 8, 16, 32")
    kept = sorted(last.values())
    return net, Taps(kept, [strides[i] for i in kept], [channels[i] for i in kept], [modules[i] for i in kept])


def tapped(net: nn.Module, taps: Taps, images: Tensor) -> list[Tensor]:
    """The tapped maps of a batch, each (N, channels, H / stride, W / stride)."""
    maps = net(images)
    maps = [maps[i] for i in taps.indices]
    if str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC"):  # Swin and its kin
        maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
    return maps


def convert_norm(net: nn.Module, norm: Norm) -> nn.Module:
    """The network with its batch normalisation frozen to constants, left as it is, or replaced by group normalisation.

    "frozen" keeps statistics and affine parameters as buffers (no gradient), what detectors with pretrained backbones and few images
    a batch do. "group" (Wu and He 2018, arXiv 1803.08494: 32 groups, fewer where a group would hold one channel) learns from scratch
    whatever the batch size.
    """
    if norm == "batch":
        return net
    if norm == "frozen":
        from timm.utils.model import freeze_batch_norm_2d

        return freeze_batch_norm_2d(net)
    for name, child in net.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            channels = child.num_features
            group = nn.GroupNorm(math.gcd(32, max(channels // 2, 1)), channels)
            activation = [getattr(child, key) for key in ("drop", "act") if hasattr(child, key)]  # timm fuses them into the norm
            setattr(net, name, nn.Sequential(group, *activation) if activation else group)
        else:
            convert_norm(child, norm)
    return net


NORM_EPS = 1e-5
"""Epsilon of timm's and torchvision's batch norms in ResNets."""


def fit_norms(state: dict[str, Tensor], own: dict[str, Tensor], eps: float | None = None) -> dict[str, Tensor]:
    """Tensors of one of torchvision's detectors, renamed to ours, with batch norms as ours are.

    Args:
        state: tensors by our names.
        own: the state dict of our network.
        eps: epsilon that the norms of ``state`` were used with, folded into their scale where it is not ours.
            None: torchvision's habit, 0 for frozen norms (without batch counters; its published detectors), else 1e-5.
    """
    counter = "num_batches_tracked"
    if eps is None:
        eps = NORM_EPS if any(name.endswith(counter) for name in state) else 0.0
    out = {name: value for name, value in state.items() if not name.endswith(counter)}
    for name in [n for n in out if n.endswith("running_var")] if eps != NORM_EPS else []:
        scale = name.replace("running_var", "weight")
        out[scale] = out[scale] * ((out[name] + NORM_EPS) / (out[name] + eps)).sqrt()
    # Frozen norms count no batches: the counters are left out, or taken from ours, as ours are frozen or not.
    return out | {name: value for name, value in own.items() if name.endswith(counter)}


def freeze_until(net: nn.Module, module: str) -> None:
    """No gradient for the parameters from the input up to and including ``module`` (a name of ``Taps.modules``)."""
    targets = {module, module.replace(".", "_")}  # timm's FeatureListNet flattens names
    reached = ""
    for name, child in net.named_modules():
        if reached and not name.startswith(f"{reached}."):
            return
        if name in targets:
            reached = name
        for parameter in child.parameters(recurse=False):
            parameter.requires_grad_(False)


def pad_batch(images: Tensor | list[Tensor], multiple: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """One (N, C, H, W) batch, padded with zeros right and below to a common multiple, and the (H, W) of each image inside it."""
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    if isinstance(images, Tensor) and images.shape[-2:] == (height, width):
        return images, sizes
    batch = images[0].new_zeros((len(images), images[0].shape[0], height, width))
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[-2], : image.shape[-1]].copy_(image)
    return batch, sizes


def pyramid_levels(boxes: Tensor, strides: list[int]) -> Tensor:
    """Level (N,) int64 whose map a box (N, 4) is pooled from: ``k = floor(4 + log2(sqrt(w h) / 224))`` (equation 1), clamped."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    first, last = math.log2(strides[0]), math.log2(strides[-1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224) + 1e-6).clamp(first, last)
    return (level - first).to(torch.int64)
