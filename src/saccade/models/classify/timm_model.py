"""Any classifier of timm under our contract: ``timm/NAME`` (``timm/resnet18``, ``timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k``).

The network is timm's, unchanged; so are its input size, mean, deviation, interpolation and centre crop, which timm states with
each set of weights. For ``in_chans=1`` timm sums the first convolution's weights over RGB, and mean and deviation are averaged.

Wightman: PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from saccade.data.transforms.preprocess import Preprocess, for_channels
from saccade.layers.backbones import check_backbone
from saccade.models.base import Images
from saccade.models.bounds import check_within
from saccade.models.classify.base import Classifier
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe


class TimmClassifier(Classifier):
    """A network of timm; ``network`` is it."""

    def __init__(self, num_classes: int, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__(num_classes, preprocess)
        self.network = network

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) to logits (N, K)."""
        return self.network(images)


def timm_classifier(
    num_classes: int = 1000,
    *,
    architecture: str,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    head: Literal["linear", "mlp"] = "linear",
    hidden: int = 512,
) -> TimmClassifier:
    """A classifier of timm by its name.

    Args:
        num_classes: of the output layer, made anew when it is not the weights' own.
        architecture: timm's name, with or without the tag of the weights.
        in_chans: 1 or 3.
        pretrained: download timm's weights.
        size: side of the input instead of the weights' own, where the network takes it.
        drop_rate, drop_path_rate: dropout before the output; stochastic depth.
        head: what gives the logits from the pooled features: one layer, or two with ``hidden`` units and ReLU between, which a frozen
            network may need where classes cannot be told apart linearly.
        hidden: of the "mlp".
    """
    check_within(1, 65536, hidden=hidden)
    options = {"drop_rate": drop_rate} if drop_rate else {}
    if drop_path_rate:
        options["drop_path_rate"] = drop_path_rate
    model = from_timm(architecture, num_classes, in_chans=in_chans, pretrained=pretrained, size=size, **options)
    if head == "mlp":
        put_mlp(model.network, hidden)
    return model


def put_mlp(network: Any, hidden: int) -> None:
    """Two layers in place of a network's output layer: in -> ``hidden``, ReLU, -> classes.

    Raises:
        UsageError: the output is no single dense layer or 1x1 convolution.
    """
    old = network.get_classifier()
    name = next((name for name, module in network.named_modules() if module is old), "")
    new: nn.Sequential
    if isinstance(old, nn.Linear):
        new = nn.Sequential(nn.Linear(old.in_features, hidden), nn.ReLU(), nn.Linear(hidden, old.out_features))
    elif isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1):
        new = nn.Sequential(nn.Conv2d(old.in_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, old.out_channels, 1))
    else:
        raise UsageError(f"model.head=mlp: the output of {type(network).__name__} is {type(old).__name__}, no dense layer")
    network.set_submodule(name, new)


def from_timm(
    architecture: str, num_classes: int, *, in_chans: int = 3, pretrained: bool = False, size: int | None = None, **options: Any
) -> TimmClassifier:
    """A network of timm with its own preprocessing; ``options`` go to timm's builder.

    Raises:
        UsageError: timm does not know the name, or cannot build the network with these options.
    """
    import timm
    from timm.data import resolve_model_data_config

    check_backbone(architecture, option="")
    check_within(8, 4096, size=size)

    def build(**extra: Any) -> nn.Module:
        return timm.create_model(architecture, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **options, **extra)

    try:
        try:
            network = build(img_size=size) if size else build()
        except TypeError:  # convolutional networks have no img_size: they take any
            network = build()
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        raise UsageError(f"timm cannot build {architecture!r}: {str(error).splitlines()[0]}") from None
    config = resolve_model_data_config(network)
    sides = (size, size) if size else tuple(config["input_size"][1:])
    mean, std = for_channels(in_chans, config["mean"], config["std"])
    preprocess = Preprocess(
        mode="crop",
        size=sides,
        channels=in_chans,
        mean=mean,
        std=std,
        crop=config["crop_pct"],
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
    )
    return TimmClassifier(num_classes, network, preprocess)


RECIPES = {
    "timm": Recipe(
        epochs=30,
        batch_size=32,
        optimizer="adamw",
        lr=3e-4,
        weight_decay=0.05,
        warmup=1.0,
        hflip=0.5,
        crop=0.5,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        label_smoothing=0.1,
    )
}
