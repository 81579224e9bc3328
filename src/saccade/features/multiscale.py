"""Feature maps at several scales of any backbone of timm that gives them, named by their stride in pixels of the input.

Papers: Adelson et al.: Pyramid Methods in Image Processing (RCA Engineer 1984): the same features of ever smaller images. Lin et al.:
Feature Pyramid Networks for Object Detection (CVPR 2017, arXiv 1612.03144): maps of one pass, from coarse to fine: a 1x1 convolution
of each stage plus the coarser map doubled, then a 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from saccade.features.backbone import Backbone
from saccade.features.names import check_choice, check_range, check_whole
from saccade.layers.fpn import tapped, timm_backbone
from saccade.types.errors import UsageError

Mode = Literal["network", "fpn", "image"]


class MultiscaleMaps(Backbone):
    """``maps(images)`` is a dict from ``"stride8"`` and so on, finest first, to (N, C, h, w) float32.

    Weights are random (a function of torch's seed) unless ``pretrained``; they never change.

    Args:
        architecture: timm's name. in_chans: 1 or 3.
        pretrained: download timm's weights.
        mode: "network": the stages of one pass, C as they have it. "fpn": these with the top-down path, C = ``channels`` at all levels; its
            convolutions are random, a function of ``seed``, since they are only learned with a detector. "image": the last
            stage of the image at several ``scales``.
        size: side of the input instead of the weights' own.
        channels, seed: of mode "fpn".
        scales: of mode "image", of the input's size; a scale of 2 halves the stride.
    """

    def __init__(
        self,
        *,
        architecture: str,
        in_chans: int = 3,
        pretrained: bool = False,
        mode: Mode = "network",
        size: int | None = None,
        channels: int = 256,
        seed: int = 0,
        scales: tuple[float, ...] = (2.0, 1.0, 0.5),
    ) -> None:
        check_choice(Mode, mode=mode)
        check_whole(32, 4096, size=32 if size is None else size)
        check_whole(1, 4096, channels=channels)
        check_whole(0, 2**63 - 1, seed=seed)
        for scale in scales:
            check_range(0.05, 8, scales=scale)
        network, taps = timm_backbone(architecture, in_chans=in_chans, pretrained=pretrained)
        super().__init__(network, in_chans, size)
        self.mode, self.taps = mode, taps
        self.scales = sorted(set(scales), reverse=True)
        last = self.taps.strides[-1]
        strides = [round(last / scale) for scale in self.scales] if mode == "image" else list(self.taps.strides)
        if len(set(strides)) < len(strides) or not strides:
            raise UsageError(f"the features' option scales={list(scales)}: one or more scales whose strides differ")
        self.levels = [f"stride{stride}" for stride in strides]
        self.pyramid: Any = None
        if mode == "fpn":
            from torchvision.ops import FeaturePyramidNetwork

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.pyramid = FeaturePyramidNetwork(self.taps.channels, channels).eval().requires_grad_(False)

    @torch.no_grad()
    def maps(self, images: Sequence[Any]) -> dict[str, np.ndarray]:
        """All levels of N images, each as :func:`saccade.features.pixels.as_pixels` takes it; they are resized to the input's size."""
        if self.mode == "image":
            stages = [[tapped(self.network, self.taps, batch)[-1] for batch in self.batches(images, scale)] for scale in self.scales]
        else:
            passes = [self._one_pass(batch) for batch in self.batches(images)]
            stages = [list(level) for level in zip(*passes, strict=True)]
        return {name: torch.cat(level).float().cpu().numpy() for name, level in zip(self.levels, stages, strict=True)}

    def _one_pass(self, batch: Tensor) -> list[Tensor]:
        maps = tapped(self.network, self.taps, batch)
        if self.pyramid is None:
            return maps
        out: dict[str, Tensor] = self.pyramid(dict(zip(self.levels, maps, strict=True)))
        return [out[name] for name in self.levels]

    def forward(self, images: Sequence[Any]) -> np.ndarray:
        """(N, D) float32: the means of all maps, finest first."""
        return np.concatenate([level.mean((2, 3)) for level in self.maps(images).values()], 1)
