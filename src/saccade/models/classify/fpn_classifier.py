"""A classifier on a feature pyramid (2016).

Lin, Dollár, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks for Object Detection, arXiv 1612.03144 (December 2016).

What it shows: the pyramid, made for detection, under a classifier: every level has the same number of channels and strong features, so
each can name the class by itself, fine ones from small parts, coarse ones from the whole; the levels vote.

Where what stands:

* section 3, figure 3 (lateral 1x1 convolutions, nearest up-sampling, addition, 3x3 convolutions): torchvision's pyramid on the maps of
  any timm network at strides 4, 8, 16, 32: :mod:`saccade.layers.fpn`,
* one head a level, the mean over positions and a dense layer, and their combination: :class:`FPNClassifier`.

Deviations. The paper has no classifier; head and combination are ours, in the manner of its section 4 (heads on all levels). Unlike
there, a level has a head of its own: where one class is named by texture and another by shape the levels must weigh features differently.

Pinned by tests: the pyramid's maps at every stride; each combination against its formula; a single-level network of the same parts.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from saccade.data.transforms.preprocess import Preprocess
from saccade.layers.fpn import tapped, timm_backbone
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import Classifier
from saccade.models.classify.network import PHOTOS


class FPNClassifier(Classifier):
    """A backbone, its pyramid, and a linear head a level; see :func:`fpn_classifier`.

    Attributes:
        strides: of the levels, finest first. shares: learned logarithms of the levels' weights, for ``combine="weighted"``.
    """

    def __init__(
        self, num_classes: int, in_chans: int, preprocess: Preprocess, *, backbone: str, pretrained: bool, channels: int, combine: str
    ) -> None:
        super().__init__(num_classes, preprocess)
        self.backbone, self.taps = timm_backbone(backbone, in_chans=in_chans, pretrained=pretrained)
        self.strides, self.combine = self.taps.strides, combine
        self.fpn = FeaturePyramidNetwork(self.taps.channels, channels)
        self.heads = nn.ModuleList(nn.Linear(channels, num_classes) for _ in self.strides)
        self.shares = nn.Parameter(torch.zeros(len(self.strides))) if combine == "weighted" else None
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) to maps (N, channels, H / stride, W / stride), finest first."""
        maps = tapped(self.backbone, self.taps, images)
        return list(self.fpn({str(k): m for k, m in enumerate(maps)}).values())

    def level_logits(self, images: Images) -> Tensor:
        """(N, C, H, W) to what each level says: (levels, N, K)."""
        assert isinstance(images, Tensor)
        return torch.stack([head(maps.mean((2, 3))) for head, maps in zip(self.heads, self.pyramid(images), strict=True)])

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        logits = self.level_logits(images)
        if self.combine == "max":
            return logits.amax(0)
        if self.shares is None:
            return logits.mean(0)
        return (self.shares.softmax(0)[:, None, None] * logits).sum(0)


def fpn_classifier(
    num_classes: int = 10,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    backbone: str = "resnet18",
    size: int = 224,
    channels: int = 256,
    combine: Literal["mean", "weighted", "max"] = "mean",
) -> FPNClassifier:
    """A classifier with one head a level of a feature pyramid.

    Args:
        num_classes: of the output.
        in_chans: 1 (grey) or 3.
        pretrained: download timm's weights of the backbone.
        backbone: any timm network with maps of falling size, also ours (``saccade_zfnet``).
        size: side that images are cut to.
        channels: of all levels of the pyramid.
        combine: the levels' logits are averaged ("mean"; the soft-max is then the normalised geometric mean of theirs), averaged with
            learned weights, or the highest counts.
    """
    check_within(32, 1024, size=size)
    check_within(1, 4096, channels=channels)
    preprocess = backbone_preprocess(backbone, (size, size), in_chans)
    return FPNClassifier(num_classes, in_chans, preprocess, backbone=backbone, pretrained=pretrained, channels=channels, combine=combine)


def backbone_preprocess(name: str, size: tuple[int, int], in_chans: int) -> Preprocess:
    """The centre of an image, with the mean and deviation of a timm network's weights."""
    from timm.models import get_pretrained_cfg

    from saccade.layers.backbones import check_backbone
    from saccade.models.classify.network import preprocess_for

    check_backbone(name)
    config = get_pretrained_cfg(name)
    return preprocess_for(size, in_chans, mean=config.mean, std=config.std) if config else preprocess_for(size, in_chans)


RECIPES = {"fpn_classifier": PHOTOS.replace(weight_decay=0.05)}
