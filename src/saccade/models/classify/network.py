"""What the networks of the classification papers share: timm's protocol, sizes, initial weights, and a classifier around a network.

A paper's file has

* one class, a :class:`Network`: ``features`` (images to maps, its children named as in the paper) and ``head`` (maps to logits),
* one builder a registered name, which gives a :class:`NetworkClassifier`,
* ``NETWORKS``: name -> class (or a ``functools.partial`` of it) of what timm shall know as ``saccade_NAME``; in timm these take
  ``num_classes``, ``in_chans``, ``features_only`` and ``out_indices`` like its own, so that any system can have them as backbone,
* ``RECIPES``: name -> recipe.
"""

from __future__ import annotations

import bisect
import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, for_channels
from saccade.models.base import Images
from saccade.models.classify.base import Classifier
from saccade.models.weights import fetch_torchvision, load_state
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

PHOTOS = Recipe(
    epochs=30,
    batch_size=32,
    optimizer="adamw",
    lr=3e-4,
    weight_decay=0.01,
    warmup=1.0,
    hflip=0.5,
    crop=0.5,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
)
"""From scratch on hundreds to thousands of photos, for networks without batch normalisation."""

PHOTOS_NORMALISED = PHOTOS.replace(lr=1e-3, weight_decay=0.05)
"""The same for networks with it."""


class Network(nn.Module):
    """A network of a paper, in timm's protocol.

    A subclass is built by ``(num_classes, in_chans, *, options)`` and sets:

    Attributes:
        features: images (N, C, H, W) to maps (N, D, h, w). head: maps to logits (N, K).
        output: name of the layer that gives the logits, a Linear or a 1x1 Conv2d ("head.fc8").
        other_outputs: names of further such layers (of auxiliary heads, which train only).
        feature_info: one :func:`level` for each resolution, finest first, for ``features_only``.
        num_features: channels of the maps.
        input_size: (H, W) that it is built for.
        fixed: whether only this size works.
        published_names: layer in the published weights -> our layer, where the names differ.
    """

    features: nn.Module
    head: nn.Module
    output: ClassVar[str]
    other_outputs: tuple[str, ...] = ()
    input_size: tuple[int, int] = (224, 224)
    fixed: bool = False
    published_names: ClassVar[Mapping[str, str]] = {}

    def __init__(self, num_classes: int, num_features: int, feature_info: list[dict[str, Any]]) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.feature_info = num_classes, num_features, feature_info

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the last maps."""
        return self.features(images)

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps to logits (N, K); with ``pre_logits`` to what the output layer sees."""
        if not pre_logits:
            return self.head(maps)
        seen: list[Tensor] = []
        hook = self.get_classifier().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self.head(maps)
        finally:
            hook.remove()
        return seen[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.get_submodule(self.output)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New output layers for another number of classes, with fresh weights."""
        for output in (self.output, *self.other_outputs):
            old = self.get_submodule(output)
            assert isinstance(old, (nn.Linear, nn.Conv2d))
            new = (
                pointwise_output(old.in_channels, num_classes) if isinstance(old, nn.Conv2d) else dense_output(old.in_features, num_classes)
            )
            initialise(new)
            parent, _, name = output.rpartition(".")
            setattr(self.get_submodule(parent), name, new.to(old.weight.device))
        self.num_classes = num_classes


class NetworkClassifier(Classifier):
    """A classifier whose network is a :class:`Network`."""

    def __init__(self, network: Network, preprocess: Preprocess) -> None:
        super().__init__(network.num_classes, preprocess)
        self.network = network

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) to logits (N, K).

        Raises:
            UsageError: a size that the network was not built for.
        """
        check_size(self.network, images)
        return self.network(images)

    def translate_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published weights with our names; our own are left alone."""
        if any(key.startswith("network.") for key in state):
            return state
        names = self.network.published_names
        parts = ((key.rpartition("."), value) for key, value in state.items())
        return {f"network.{names.get(layer, layer)}.{kind}": value for (layer, _, kind), value in parts}


def load_published(model: NetworkClassifier, weights: WeightsEnum) -> None:
    """Load torchvision's weights, downloaded aloud; with another number of classes the output layers keep their initial weights."""
    state = model.translate_weights(fetch_torchvision(weights))
    own = model.state_dict()
    # weights saved by PyTorch before 0.4.1 have no counters of batches
    state |= {name: value for name, value in own.items() if name.endswith("num_batches_tracked") and name not in state}
    outputs = [f"network.{name}" for name in (model.network.output, *model.network.other_outputs)]
    if len(state[f"{outputs[0]}.weight"]) != model.num_classes:
        state |= {f"{output}.{kind}": own[f"{output}.{kind}"] for output in outputs for kind in ("weight", "bias")}
    else:
        model.classes = weights.meta["categories"]
    load_state(model, state, weights.url)


def check_size(network: Network, images: Images) -> None:
    """UsageError where a network of fixed size is given another one."""
    assert isinstance(images, Tensor)
    if network.fixed and tuple(images.shape[-2:]) != network.input_size:
        (height, width), (given_height, given_width) = network.input_size, images.shape[-2:]
        raise UsageError(
            f"{type(network).__name__} is built for images of {height}x{width}, not {given_height}x{given_width}: resize them, "
            f"or build it with model.size"
        )


def level(channels: int, reduction: int, module: str) -> dict[str, Any]:
    """What ``features_only`` needs to know of a stage: channels, stride to the image, and name of the module that gives it."""
    return {"num_chs": channels, "reduction": reduction, "module": module}


def size_after(features: nn.Module, in_chans: int, size: tuple[int, int], name: str) -> tuple[int, int, int]:
    """(D, h, w) of the maps of an image of (H, W); nothing is computed.

    Raises:
        UsageError: the image is too small for the layers; says the least side that works.
    """
    shadow = copy.deepcopy(features).to("meta").eval()

    def maps(height: int, width: int) -> torch.Size | None:
        try:
            shape = shadow(torch.empty(1, in_chans, height, width, device="meta")).shape
        except (RuntimeError, ValueError):
            return None
        return shape if min(shape[2:]) > 0 else None

    shape = maps(*size)
    if shape is None:
        least = bisect.bisect_left(range(1025), True, key=lambda side: maps(side, side) is not None)
        raise UsageError(f"{name} cannot work on {size[0]}x{size[1]}" + (f"; the least model.size is {least}" if least < 1025 else ""))
    return int(shape[1]), int(shape[2]), int(shape[3])


def scaled(channels: int, width: float) -> int:
    """Channels times ``model.width``, a multiple of 4 (groups of two), at least 4; unchanged at width 1."""
    return channels if width == 1 else max(4, 4 * round(channels * width / 4))


def dense_output(features: int, num_classes: int) -> nn.Module:
    """The dense layer that gives the logits; none for 0 classes, which is how timm asks for maps only."""
    return nn.Linear(features, num_classes) if num_classes else nn.Identity()


def pointwise_output(maps: int, num_classes: int) -> nn.Module:
    """The 1x1 convolution that gives the logits; none for 0 classes."""
    return nn.Conv2d(maps, num_classes, 1) if num_classes else nn.Identity()


def check_width(width: float) -> None:
    """UsageError for a ``model.width`` that makes no network."""
    if not 1 / 64 <= width <= 4:
        raise UsageError(f"model.width={width}: it lies in {1 / 64:g}..4")


def initialise(module: nn.Module, activation: str = "relu") -> None:
    """He's initial weights (arXiv 1502.01852), which train deep networks without batch normalisation; biases 0; the norms at identity."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity=activation)  # type: ignore[arg-type]
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.BatchNorm2d, nn.GroupNorm)) and layer.affine:
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def output_gain(network: Network, gain: float = 0.1) -> None:
    """Shrink the initial output layers, so that training starts near equal scores for all classes (loss log K)."""
    for output in (network.output, *network.other_outputs):
        layer = network.get_submodule(output)
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            with torch.no_grad():
                layer.weight.mul_(gain)


def preprocess_for(
    size: tuple[int, int], in_chans: int, *, crop: float = 0.875, mean: Iterable[float] = IMAGENET_MEAN, std: Iterable[float] = IMAGENET_STD
) -> Preprocess:
    """The evaluation of the ImageNet papers: the short side resized to ``size / crop``, the centre cut; ``crop=1`` cuts least.

    Grey images (``in_chans`` 1) are normalised by the mean of the three channels' values.
    """
    mean, std = for_channels(in_chans, mean, std)
    return Preprocess(mode="crop", size=size, channels=in_chans, mean=mean, std=std, crop=crop)


def register_with_timm(name: str, network: Callable[..., Network]) -> None:
    """Let ``timm.create_model("saccade_NAME")`` build a network; once."""
    from timm.models import build_model_with_cfg, is_model, register_model

    known = f"saccade_{name}"
    if is_model(known):
        return
    built: Any = getattr(network, "func", network)

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        kept = {key: value for key, value in options.items() if key not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
        if kept.pop("global_pool", None):
            raise UsageError(f"{known} has its own pooling; leave global_pool out")
        config = {
            "url": "", "num_classes": 1000, "input_size": (3, *built.input_size), "pool_size": None, "crop_pct": 0.875,
            "interpolation": "bilinear", "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "classifier": built.output,
        }  # fmt: skip
        kept.setdefault("num_classes", 1000)
        kept.setdefault("in_chans", 3)
        if kept.get("features_only") and "out_indices" not in kept:  # timm would ask for five levels
            with torch.device("meta"):
                shadow = network(**{key: value for key, value in kept.items() if key != "features_only"})
            kept["out_indices"] = tuple(range(len(shadow.feature_info)))
        return build_model_with_cfg(
            network, known, pretrained, pretrained_cfg=config, feature_cfg={"feature_cls": "hook", "flatten_sequential": False}, **kept
        )

    entry.__name__, entry.__module__, entry.__doc__ = known, built.__module__, built.__doc__
    register_model(entry)
