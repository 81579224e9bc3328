"""The registry: pure data, one entry a system. No torch here; builders are named ``module:function`` and resolved on use.

A builder is ``def NAME(num_classes, *, in_chans=3, pretrained=False, ..., option=default) -> Model``: its keyword
arguments are the ``model.*`` options. ``RECIPES[NAME]`` in the same module is the default recipe.
Third parties add entries by the entry point group ``saccade.models``, whose objects are lists of :class:`Entry`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One system.

    Attributes:
        name: registered name; task; paper ("Authors, Title"), year, arxiv id or "".
        builder: "module:function".
        kind: how it learns.
        exportable: "whole" (raw is one graph), "parts" (NMS in between) or "no".
        needs: what the data or the user must give beyond the task's own ("proposals", "fixed size", ...).
        frozen: prefixes of parameters that get no gradient.
        row: id in the canon of systems.
        tiny: builder options that make it small for the contract suites.
        summary: one line for lists.
        weights: published weights that it loads ("torchvision COCO_V1", ...), or "".
        fixed: builder arguments that the name stands for ("timm/resnet18": the architecture); no options of the user.
    """

    name: str
    task: str
    paper: str
    year: int
    builder: str
    arxiv: str = ""
    kind: Literal["trainable", "fitted", "staged", "adversarial"] = "trainable"
    exportable: Literal["whole", "parts", "no"] = "whole"
    needs: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    row: str = ""
    tiny: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    weights: str = ""
    fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """Module of the builder."""
        return self.builder.partition(":")[0]

    @property
    def file(self) -> str:
        """Source file, relative to the package's parent."""
        return self.module.replace(".", "/") + ".py"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"file": self.file}


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="lenet5",
        task="classify",
        paper="LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition",
        year=1998,
        builder="saccade.models.classify.lenet5:lenet5",
        needs=("fixed size",),
        row="C1",
        summary="two convolutions and three dense layers on 32x32 grey images",
    ),
    Entry(
        name="alexnet",
        task="classify",
        paper="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks",
        year=2012,
        builder="saccade.models.classify.alexnet:alexnet",
        needs=("fixed size",),
        row="C2",
        tiny={"size": 67, "width": 0.0625},
        summary="five convolutions, ReLU, dropout; the paper's two towers, or torchvision's one with its weights",
        weights="torchvision AlexNet_Weights.IMAGENET1K_V1 (model.form=one_tower)",
    ),
    Entry(
        name="ssdlite",
        task="detect",
        paper="Sandler et al.: MobileNetV2 (SSDlite); Liu et al.: SSD; Lin et al.: FPN; Feng et al.: TOOD",
        year=2018,
        arxiv="1801.04381",
        builder="saccade.models.detect.ssdlite:ssdlite",
        needs=("fixed size",),
        row="D24",
        tiny={"size": 64, "backbone": "test_resnet.r160_in1k", "width": 16},
        summary="single-shot detector with separable heads on fused maps; the quick default, trained from scratch on your own images",
    ),
    Entry(
        name="ssdlite320",
        task="detect",
        paper="Sandler et al.: MobileNetV2; Howard et al.: Searching for MobileNetV3; Liu et al.: SSD",
        year=2018,
        arxiv="1801.04381",
        builder="saccade.models.detect.ssdlite:ssdlite320",
        needs=("fixed size",),
        row="D24",
        tiny={"size": 64, "backbone": "test_resnet.r160_in1k"},
        summary="the published SSDlite: MobileNetV3-Large, six maps, multibox loss, with torchvision's weights",
        weights="torchvision SSDLite320_MobileNet_V3_Large_Weights.COCO_V1",
    ),
    Entry(
        name="faster_rcnn",
        task="detect",
        paper="Ren, He, Girshick, Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
        year=2015,
        arxiv="1506.01497",
        builder="saccade.models.detect.faster_rcnn:faster_rcnn",
        exportable="parts",
        row="D14",
        tiny={"backbone": "test_resnet.r160_in1k", "min_size": 64, "max_size": 96, "channels": 32, "head_width": 32, "regions": 64},
        summary="region proposals and a box head on a feature pyramid",
        weights="torchvision FasterRCNN_ResNet50_FPN COCO_V1",
    ),
    Entry(
        name="rcnn",
        task="detect",
        paper="Girshick, Donahue, Darrell, Malik: Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation",
        year=2014,
        arxiv="1311.2524",
        builder="saccade.models.detect.rcnn:rcnn",
        kind="staged",
        exportable="parts",
        row="D10",
        tiny={"backbone": "test_resnet.r160_in1k", "size": 64, "max_proposals": 50},
        summary="selective search, a fine-tuned network on warped regions, linear SVMs, box regression",
    ),
    Entry(
        name="hog_svm",
        task="detect",
        paper="Dalal, Triggs: Histograms of Oriented Gradients for Human Detection",
        year=2005,
        builder="saccade.models.detect.hog_svm:hog_svm",
        kind="fitted",
        exportable="no",
        row="D5",
        summary="a linear SVM on HOG windows over an image pyramid, hard negatives mined",
    ),
    Entry(
        name="unet",
        task="segment",
        paper="Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation",
        year=2015,
        arxiv="1505.04597",
        builder="saccade.models.segment.unet:unet",
        row="S6",
        tiny={"width": 4, "size": 32},
        summary="encoder and decoder with concatenated skips; the paper's network or any timm backbone",
    ),
    Entry(
        name="dcgan",
        task="generate",
        paper="Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional GANs",
        year=2015,
        arxiv="1511.06434",
        builder="saccade.models.generate.dcgan:dcgan",
        kind="adversarial",
        row="G2",
        tiny={"width": 8, "size": 32, "latent": 16},
        summary="an all-convolutional generator against a discriminator",
    ),
)


@cache
def entries() -> dict[str, Entry]:
    """All systems by name, third parties' included; a name taken twice is an error of the later one."""
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in ENTRIES}
    for point in entry_points(group="saccade.models"):
        for entry in point.load():
            if entry.name in found:
                raise ValueError(f"entry point {point.value} registers {entry.name!r}, which exists already")
            found[entry.name] = entry
    return found
