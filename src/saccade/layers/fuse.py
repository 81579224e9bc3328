"""Batch normalisation folded into the convolution before it, for prediction.

In eval mode the normalisation is an affine map of each channel (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 2), and so is the
convolution: together they are one convolution, ``w' = w gamma / sqrt(var + eps)``, ``b' = (b - mean) gamma / sqrt(var + eps) + beta``.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

from saccade.layers.conv_bn import ConvBN

Network = TypeVar("Network", bound=nn.Module)


def fuse_conv_bn(model: Network) -> Network:
    """Fold every normalisation that follows its convolution into it, in place: the same outputs from fewer layers.

    Taken are :class:`~saccade.layers.conv_bn.ConvBN`, and neighbours in any ``nn.Sequential`` (torchvision's ``Conv2dNormActivation`` is
    one). Left as they are: subclasses of the two layers (which may compute something else), layers that stand in two places, that have
    hooks or parametrisations, and a normalisation without running statistics.

    Args:
        model: in eval mode. Its parameters have other names afterwards: keep a copy where it will be trained or saved.

    Returns:
        The same object.

    Raises:
        ValueError: a normalisation is in training mode.

    >>> layer = fuse_conv_bn(ConvBN(3, 8, 3).eval())
    >>> layer.bn, layer.conv.bias.shape
    (Identity(), torch.Size([8]))
    """
    places = Counter(id(child) for module in model.modules() for child in module.children())
    for module in list(model.modules()):
        if isinstance(module, ConvBN):
            pairs = [("conv", "bn")]
        elif isinstance(module, nn.Sequential):
            pairs = list(pairwise(module._modules))
        else:
            continue
        for first, second in pairs:
            conv, norm = getattr(module, first), getattr(module, second)
            if (
                type(conv) is nn.Conv2d
                and type(norm) is nn.BatchNorm2d
                and _plain(conv, norm)
                and places[id(conv)] == places[id(norm)] == 1
            ):
                if conv.training or norm.training:
                    raise ValueError("fuse_conv_bn folds running statistics: call model.eval() first")
                setattr(module, first, fuse_conv_bn_eval(conv, norm))
                setattr(module, second, nn.Identity())
    return model


def _plain(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether the two compute what their tensors say, and nobody listens in between."""
    hooks = (conv._forward_hooks, conv._forward_pre_hooks, norm._forward_hooks, norm._forward_pre_hooks)
    return norm.running_mean is not None and not any(hooks) and not is_parametrized(conv)
