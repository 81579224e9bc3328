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
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from saccade.features.pixels import plain_array
from saccade.types.coerce import coerce
from saccade.types.errors import UsageError, suggest
from saccade.types.machine import usable_cores

Batches = Callable[[], Iterable[Sequence[Any]]]
"""Gives all training images, in batches, each time it is called."""

KINDS = {
    "hog": "saccade.features.vectors:HogVector",
    "sift_bow": "saccade.features.bow:BagOfWords",
    "lbp": "saccade.features.lbp:LbpVector",
    "color": "saccade.features.color:ColorVector",
    "pixels": "saccade.features.vectors:PixelVector",
    "timm": "saccade.features.backbone:BackboneFeatures",
}


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
        """(N, D) float32 of N images, each as :func:`as_pixels` takes it."""
        vectors = in_threads(lambda image: self.vector(as_pixels(image)), images)
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
    name, _, query = text.partition("?")
    kind, slash, architecture = name.partition("/")
    if kind not in KINDS or bool(slash) != (kind == "timm"):
        known = [k for k in KINDS if k != "timm"] + ["timm/NAME"]
        raise UsageError(f"there are no features {name!r}{suggest(name, known)}")
    if pretrained and kind != "timm":
        raise UsageError(f"no weights are published for the features {kind!r}: leave pretrained off")
    module, _, class_name = KINDS[kind].partition(":")
    extractor = getattr(importlib.import_module(module), class_name)
    options = read_options(query, extractor, text=text, leave=("in_chans", "architecture", "pretrained"))
    if kind == "timm":
        options |= {"architecture": architecture, "pretrained": pretrained}
    return extractor(in_chans=in_chans, **options)


def read_options(
    query: str, function: Any, *, text: str, given: Mapping[str, Any] | None = None, leave: Sequence[str] = ()
) -> dict[str, Any]:
    """The options ``"radius=2&grid=8"`` of a function or class, as its annotations want them.

    Args:
        query: what follows the question mark; "" for none.
        function: whose keyword arguments the options are.
        text: the whole description, for messages.
        given: more options, which win.
        leave: arguments that are no options.

    Raises:
        UsageError: unknown option (with a suggestion), or a value that does not fit.
    """
    hints = typing.get_type_hints(vars(function).get("__init__", function))
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in leave]
    items: list[tuple[str, Any]] = [(item.partition("=")[0], item.partition("=")[2]) for item in query.split("&") if query]
    options: dict[str, Any] = {}
    for option, value in [*items, *(given or {}).items()]:
        if option not in known:
            raise UsageError(f"the features {text.partition('?')[0]!r} have no option {option!r}{suggest(option, known)}")
        try:
            options[option] = coerce(value, hints[option])
        except ValueError as error:
            raise UsageError(f"features {text!r}: {option}={value!r}: {error}") from None
    return options


def check_range(low: float, high: float, **options: float) -> None:
    """UsageError when an option lies outside ``low..high``."""
    for name, value in options.items():
        if not low <= value <= high:
            raise UsageError(f"the features' option {name}={value}: it lies in {low}..{high}")


def as_pixels(image: Any) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of such an array, a (1 or 3, H, W) uint8 tensor or a Pillow image of 8 bits a channel.

    Palettes become colours; alpha is dropped.

    Raises:
        UsageError: not such an image.
    """
    array = plain_array(image)
    if isinstance(image, Tensor) and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3) or not array.size:
        raise UsageError(f"features take a uint8 image (H, W) or (H, W, 3), not {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W) uint8 by BT.601."""
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image at (H, W) ``size``, low-passed before it shrinks; as it is where it has that size."""
    if pixels.shape[:2] == size:
        return pixels
    from torchvision.transforms.v2 import functional as F

    planes = torch.from_numpy(np.moveaxis(np.atleast_3d(pixels), -1, 0).copy())
    out = np.moveaxis(F.resize(planes, list(size), antialias=True).numpy(), 0, -1)
    return np.ascontiguousarray(out if pixels.ndim == 3 else out[..., 0])


def cells(size: tuple[int, int], grid: int) -> np.ndarray:
    """(H, W) int64: which of ``grid * grid`` equal parts of the image, row by row, a pixel lies in."""
    rows, columns = (np.arange(side) * grid // side for side in size)
    return rows[:, None] * grid + columns[None]


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """``function`` of every item, in order, on all cores: what is heavy in it (OpenCV, NumPy, Pillow) runs without Python's lock."""
    if len(items) < 2 or usable_cores() < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, items))
