"""Features of whole images: one vector of fixed length an image, under one interface and one way to name them.

==============  =====================================================================================================
hog             gradient histograms of the image resized to a square (:mod:`saccade.features.hog`)
sift_bow        a bag of visual words over SIFT descriptors (:mod:`saccade.features.bow`)
lbp             histograms of local binary patterns over a grid (:mod:`saccade.features.lbp`)
color           colour histograms (:mod:`saccade.features.color`)
pixels          the grey values of the image resized to a square
timm/NAME       any backbone of timm without its head (:mod:`saccade.features.backbone`)
==============  =====================================================================================================

Options follow the name as in a web address: ``lbp?radius=2&grid=8``, ``timm/resnet18?size=128``. The text is the whole
description; what an extractor learns or loads lies in its buffers and parameters, so that it travels in a bundle.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import nn

from saccade.features.names import VECTORS, read_options, split_kind
from saccade.features.pixels import as_images, as_pixels, in_threads
from saccade.types.errors import UsageError, suggest

Batches = Callable[[], Iterable[Sequence[Any]]]
"""Gives all training images, in batches, each time it is called."""


class FeatureExtractor(nn.Module):
    """``extractor(images)`` gives (N, D) float32; D is the same for images of any size, from one pixel on.

    Attributes:
        input: how images are best brought to it, as fields of :class:`saccade.data.transforms.preprocess.Preprocess`. Images that
            come otherwise are resized where the features need one size.
        fitted_buffers: names of buffers whose shape is known only after :meth:`fit`.
        standardize: whether a classifier should bring the values to mean 0 and deviation 1 unless told otherwise.
    """

    fitted_buffers: ClassVar[tuple[str, ...]] = ()
    standardize: ClassVar[bool] = True

    def __init__(self, **preparation: Any) -> None:
        super().__init__()
        self.input: dict[str, Any] = preparation

    def fit(self, batches: Batches, *, seed: int = 0) -> None:
        """Learn from the training images what the features need; most learn nothing.

        Raises:
            UsageError: nothing can be learned from these images.
        """

    def forward(self, images: Sequence[Any]) -> np.ndarray:
        """(N, D) float32 of a list of N images, each as :func:`as_pixels` takes it, or of a batch (N, C, H, W) as a tensor.

        Raises:
            UsageError: no list, or something in it that is no image.
        """
        vectors = in_threads(lambda image: self.vector(as_pixels(image)), as_images(images))
        return np.stack(vectors).astype(np.float32, copy=False)

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """(D,) of one (H, W) or (H, W, 3) uint8 image; called from several threads."""
        raise NotImplementedError


def create_features(text: str, *, in_chans: int = 3, pretrained: bool = False) -> FeatureExtractor:
    """The extractor of a description such as ``"hog"``, ``"lbp?radius=2&grid=8"`` or ``"timm/resnet18"``.

    Args:
        text: name, then options (see the module).
        in_chans: channels of the images that it will get, 1 or 3.
        pretrained: load a backbone's published weights; only for ``timm/NAME``.

    Raises:
        UsageError: unknown name (with a suggestion), unknown option or a value that cannot be; ``pretrained`` without a backbone.

    >>> create_features("pixels?size=4")([np.zeros((9, 7, 3), np.uint8)]).shape
    (1, 16)
    """
    name, query = split_kind(text)
    kind, slash, architecture = name.partition("/")
    if kind not in VECTORS or bool(slash) != (kind == "timm"):
        known = [k for k in VECTORS if k != "timm"] + ["timm/NAME"]
        raise UsageError(f"there are no features {name!r}{suggest(name, known)}")
    if pretrained and kind != "timm":
        raise UsageError(f"no weights are published for the features {kind!r}: leave pretrained off")
    module, _, class_name = VECTORS[kind].partition(":")
    extractor = getattr(importlib.import_module(module), class_name)
    options = read_options(query, extractor, text=text, leave=("in_chans", "architecture", "pretrained"))
    if kind == "timm":
        options |= {"architecture": architecture, "pretrained": pretrained}
    return extractor(in_chans=in_chans, **options)
