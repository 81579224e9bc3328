"""Features of a network: any backbone of timm without its head, frozen.

Paper: Donahue et al.: DeCAF: A Deep Convolutional Activation Feature for Generic Visual Recognition (ICML 2014): activations of a
network trained for ImageNet are features for other tasks, under a linear classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from saccade.features.base import FeatureExtractor
from saccade.features.names import check_whole
from saccade.features.pixels import as_images, as_pixels, in_threads, resized
from saccade.layers.backbones import check_backbone
from saccade.types.errors import UsageError

BATCH = 32


class Backbone(FeatureExtractor):
    """A frozen network of timm with the preparation of images that its weights want.

    Args:
        network: as timm made it. in_chans: 1 or 3; grey statistics are the means over RGB.
        size: side of the input instead of the weights' own.
    """

    def __init__(self, network: Any, in_chans: int, size: int | None) -> None:
        from timm.data import resolve_model_data_config

        config = resolve_model_data_config(network)
        sides = (size, size) if size else tuple(config["input_size"][1:])
        bicubic = config["interpolation"] == "bicubic"
        super().__init__(mode="crop", size=sides, crop=config["crop_pct"], interpolation="bicubic" if bicubic else "bilinear")
        self.size, self.channels = sides, in_chans
        mean, std = (config[key] if in_chans == 3 else (sum(config[key]) / len(config[key]),) for key in ("mean", "std"))
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.network: Any = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Always in eval mode: batch norm and dropout are frozen."""
        return super().train(False)

    def batches(self, images: Sequence[Any], scale: float = 1.0) -> list[Tensor]:
        """Images, resized to ``scale`` times the network's size and normalised, as (n, C, H, W) batches on its device."""
        height, width = (max(round(side * scale), 1) for side in self.size)
        device = next(self.network.parameters()).device

        def prepare(image: Any) -> Tensor:
            pixels = resized(as_pixels(image), (height, width))
            planes = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)
            if len(planes) != self.channels:
                raise UsageError(f"the network takes {self.channels} channels, not {len(planes)}")
            return planes

        tensors = in_threads(prepare, as_images(images))
        parts = (torch.stack(tensors[k : k + BATCH]).to(device) for k in range(0, len(tensors), BATCH))
        return [(part.float() / 255 - self.mean.to(device)) / self.std.to(device) for part in parts]


class BackboneFeatures(Backbone):
    """Pooled activations of the last layer before the head.

    The weights are random (a function of torch's seed) unless ``pretrained``; they never change, and are kept with the model.

    Args:
        architecture: timm's name. in_chans: 1 or 3; grey weights are timm's sums over RGB.
        pretrained: download timm's weights.
        size: side of the input instead of the weights' own, where the network takes it.
    """

    def __init__(self, *, architecture: str, in_chans: int = 3, pretrained: bool = False, size: int | None = None) -> None:
        import timm

        check_backbone(architecture, option="features: ")
        check_whole(8, 4096, size=8 if size is None else size)
        extra: dict[str, Any] = {"img_size": size} if size else {}
        try:
            try:
                network = timm.create_model(architecture, pretrained=pretrained, num_classes=0, in_chans=in_chans, **extra)
            except TypeError:  # convolutional networks have no img_size: they take any
                network = timm.create_model(architecture, pretrained=pretrained, num_classes=0, in_chans=in_chans)
        except (RuntimeError, TypeError, ValueError, OSError) as error:
            raise UsageError(f"timm cannot build {architecture!r}: {str(error).splitlines()[0]}") from None
        super().__init__(network, in_chans, size)

    @torch.no_grad()
    def forward(self, images: Sequence[Any]) -> np.ndarray:
        """(N, D) float32, pooled over the image."""
        return torch.cat([self.network(batch) for batch in self.batches(images)]).float().cpu().numpy()

    @torch.no_grad()
    def maps(self, images: Sequence[Any]) -> np.ndarray:
        """What the network gives before pooling, float32: (N, C, h, w), 7x7 of 224x224 for a stride of 32; tokens of a transformer."""
        return torch.cat([self.network.forward_features(batch) for batch in self.batches(images)]).float().cpu().numpy()
