"""Index entries of the bought networks (:mod:`published <saccade.models.classify.published>`): pure data, no torch.

Within a row of the canon the smallest network stands first: it is the one that the contract suite runs.
Accuracies are the papers' own, of one network on ImageNet's validation images.
"""

from __future__ import annotations

from typing import Any

PUBLISHED = "saccade.models.classify.published"

VGG = {
    "paper": "Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition",
    "year": 2014, "arxiv": "1409.1556", "row": "C5", "builder": f"{PUBLISHED}:vgg", "tiny": {"size": 64, "dense": 64},
}  # fmt: skip
INCEPTION_V3 = {
    "paper": "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision",
    "year": 2015, "arxiv": "1512.00567", "row": "C7", "tiny": {"size": 75},
}  # fmt: skip
INCEPTION_V4 = {
    "paper": "Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "year": 2016, "arxiv": "1602.07261", "row": "C7", "tiny": {"size": 75},
}  # fmt: skip
RESNET = {
    "paper": "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition",
    "year": 2015, "arxiv": "1512.03385", "row": "C8", "tiny": {"size": 64},
}  # fmt: skip
RESNET_V2 = {
    "paper": "He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks",
    "year": 2016, "arxiv": "1603.05027", "row": "C9", "tiny": {"size": 64},
}  # fmt: skip
DENSENET = {
    "paper": "Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks",
    "year": 2016, "arxiv": "1608.06993", "row": "C10", "tiny": {"size": 64},
}  # fmt: skip
XCEPTION = {
    "paper": "Chollet: Xception: Deep Learning with Depthwise Separable Convolutions",
    "year": 2016, "arxiv": "1610.02357", "row": "C11", "tiny": {"size": 64},
}  # fmt: skip
MOBILENET_V2 = {
    "paper": "Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    "year": 2018, "arxiv": "1801.04381", "row": "C12", "builder": f"{PUBLISHED}:mobilenet_v2", "tiny": {"alpha": 0.35, "rho": 0.2857},
    "fixed": {},
}  # fmt: skip
EFFICIENTNET = {
    "paper": "Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
    "year": 2019, "arxiv": "1905.11946", "row": "C13", "tiny": {"size": 64},
}  # fmt: skip


def entry(name: str, family: dict[str, Any], architecture: str, summary: str, top1: str = "", source: str = "") -> dict[str, Any]:
    """Fields of an ``Entry``; ``top1`` is the accuracy in percent and ``source`` where the paper says so."""
    return {
        "name": name, "task": "classify", "builder": f"{PUBLISHED}:timm_classifier", "summary": summary,
        "weights": f"timm {architecture}", "fixed": {"architecture": architecture},
        "accuracy": f"ImageNet top-1 {top1}% (arXiv {family['arxiv']}, {source})" if top1 else "",
    } | family  # fmt: skip


def vgg_entries() -> list[dict[str, Any]]:
    """VGG with and without batch normalisation, which the paper did not have."""
    letters, top1 = {11: "A", 13: "B", 16: "D", 19: "E"}, {11: "70.4", 13: "71.3", 16: "74.4", 19: "74.5"}
    out = []
    for layers, letter in letters.items():
        what = f"configuration {letter}: {layers - 3} convolutions of 3x3 and three dense layers"
        where = "table 3, dense evaluation at one scale"
        out.append(entry(f"vgg{layers}", VGG, f"vgg{layers}", what, top1[layers], where))
        out.append(entry(f"vgg{layers}_bn", VGG, f"vgg{layers}_bn", f"{what}, with batch normalisation"))
    return out


def resnet_entries() -> list[dict[str, Any]]:
    """ResNet as first published, then with pre-activation."""
    blocks = {18: "2, 2, 2, 2", 34: "3, 4, 6, 3", 50: "3, 4, 6, 3", 101: "3, 4, 23, 3", 152: "3, 8, 36, 3"}
    top1 = {
        18: ("72.12", "table 2, 10 crops"), 34: ("74.97", "table 3, 10 crops, parameter-free shortcuts"),
        50: ("77.15", "table 3, 10 crops"), 101: ("78.25", "table 3, 10 crops"), 152: ("78.57", "table 3, 10 crops"),
    }  # fmt: skip
    top1_v2 = {152: ("78.9", "table 5, crop 320x320")}
    out = []
    for layers, counts in blocks.items():
        kind = "of two 3x3 convolutions" if layers < 50 else "of 1x1, 3x3 and 1x1 convolutions"
        summary = f"{counts} residual blocks {kind}"
        out.append(entry(f"resnet{layers}", RESNET, f"resnet{layers}", summary, *top1[layers]))
        summary = f"{summary}, normalised and activated before each convolution"
        out.append(entry(f"resnet{layers}v2", RESNET_V2, f"resnetv2_{layers}", summary, *top1_v2.get(layers, ())))
    return out


def densenet_entries() -> list[dict[str, Any]]:
    """DenseNet; accuracy by the paper's table 3."""
    forms = {
        121: (32, "6, 12, 24, 16", "74.98"), 161: (48, "6, 12, 36, 24", ""), 169: (32, "6, 12, 32, 32", "76.20"),
        201: (32, "6, 12, 48, 32", "77.42"),
    }  # fmt: skip
    return [
        entry(
            f"densenet{layers}",
            DENSENET,
            f"densenet{layers}",
            f"dense blocks of {counts} layers, growth {growth}",
            top1,
            "table 3, one crop",
        )
        for layers, (growth, counts, top1) in forms.items()
    ]


def efficientnet_entries() -> list[dict[str, Any]]:
    """EfficientNet B0 to B7 with the paper's own weights (AutoAugment); accuracy by table 2."""
    sides = (224, 240, 260, 300, 380, 456, 528, 600)
    top1 = ("77.1", "79.1", "80.1", "81.6", "82.9", "83.6", "84.0", "84.3")
    return [
        entry(
            f"efficientnet_b{k}", EFFICIENTNET, f"tf_efficientnet_b{k}.aa_in1k",
            f"inverted residual blocks with squeeze and excitation, compound scaling step {k}: {side}x{side} pixels", top1[k], "table 2",
        )
        for k, side in enumerate(sides)
    ]  # fmt: skip


ZOO: tuple[dict[str, Any], ...] = (
    *vgg_entries(),
    entry(
        "inception_v3", INCEPTION_V3, "inception_v3", "factorised Inception modules on 299x299 pixels", "78.8", "table 3, one crop"
    ),
    entry(
        "inception_v4", INCEPTION_V4, "inception_v4", "a deeper, more uniform Inception without shortcuts", "80.0", "table 2, one crop"
    ),
    entry(
        "inception_resnet_v2", INCEPTION_V4, "inception_resnet_v2", "Inception modules with residual shortcuts", "80.1",
        "table 2, one crop",
    ),
    *resnet_entries(),
    *densenet_entries(),
    entry(
        "xception", XCEPTION, "legacy_xception", "36 convolutions, most of them separable: entry, middle (8 times) and exit flow", "79.0",
        "table 1, one crop",
    ),
    entry("mobilenet_v2", MOBILENET_V2, "mobilenetv2_100", "inverted residuals, linear bottlenecks", "72.0", "table 4"),
    *efficientnet_entries(),
)  # fmt: skip
"""Fields of the entries."""
