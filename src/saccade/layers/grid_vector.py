"""An image as one vector that still tells what stands where, for heads that give coordinates.

The last map of a backbone is narrowed by a 1x1 convolution and laid out cell by cell before a dense layer. (Pooling over the whole map, as
classifiers do, would average the places away.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.layers.backbones import timm_features
from saccade.layers.conv_bn import ConvBN

CELL_CHANNELS = 32
"""Channels of a cell of the grid before the dense layer."""


def plain_backbone(in_chans: int, width: int) -> nn.Sequential:
    """Four stages of two 3x3 convolutions with batch normalisation and ReLU, the first of stride 2; ``width`` channels, doubled a stage."""
    stages, before = [], in_chans
    for out in (width, 2 * width, 4 * width, 8 * width):
        stages.append(nn.Sequential(ConvBN(before, out, 3, stride=2), ConvBN(out, out, 3)))
        before = out
    for layer in (layer for stage in stages for layer in stage.modules() if isinstance(layer, nn.Conv2d)):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*stages)


class GridVector(nn.Module):
    """Images (N, C, size, size) to vectors (N, hidden).

    Args:
        in_chans: C. size: side of the input. hidden: length of the vector.
        name: a network of timm; None takes :func:`plain_backbone` of this ``width``.
        pretrained: timm's weights. dropout: of the vector.
    """

    def __init__(
        self, in_chans: int, size: int, hidden: int, *, name: str | None, width: int, pretrained: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.backbone = plain_backbone(in_chans, width) if name is None else timm_features(name, in_chans, pretrained, size)
        self.channels_last = str(getattr(self.backbone, "output_fmt", "NCHW")).endswith("NHWC")  # Swin and its kin
        self.backbone.eval()
        with torch.no_grad():
            _, channels, *grid = self.last_map(torch.zeros(1, in_chans, size, size)).shape
        self.backbone.train()
        self.narrow = nn.Conv2d(channels, CELL_CHANNELS, 1)
        self.dense = nn.Linear(CELL_CHANNELS * grid[0] * grid[1], hidden)
        self.dropout = nn.Dropout(dropout)

    def last_map(self, images: Tensor) -> Tensor:
        """(N, C, h, w), the last map of the backbone."""
        maps = self.backbone(images)
        last = maps if isinstance(maps, Tensor) else maps[-1]
        return last.permute(0, 3, 1, 2) if self.channels_last else last

    def forward(self, images: Tensor) -> Tensor:
        cells = self.narrow(self.last_map(images)).relu()
        return self.dropout(self.dense(cells.flatten(1)).relu())


def coordinate_head(hidden: int, outputs: int) -> nn.Linear:
    """A dense layer whose first guesses all lie near 0.5, the middle of the image in fractions of its sides."""
    head = nn.Linear(hidden, outputs)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.constant_(head.bias, 0.5)
    return head
