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

from saccade.models.classify.zoo import ZOO


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
        accuracy: as the paper states it, with the place, or "".
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
    accuracy: str = ""
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
        name="zfnet",
        task="classify",
        paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks",
        year=2013,
        arxiv="1311.2901",
        builder="saccade.models.classify.zfnet:zfnet",
        needs=("fixed size",),
        row="C3",
        tiny={"size": 64, "width": 0.0625},
        summary="AlexNet mended after a look inside: 7x7 filters at stride 2 first, dense connections",
    ),
    Entry(
        name="overfeat_fast",
        task="classify",
        paper="Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun: OverFeat: Integrated Recognition, Localization and Detection",
        year=2013,
        arxiv="1312.6229",
        builder="saccade.models.classify.overfeat:overfeat_fast",
        needs=("fixed size",),
        row="C3",
        tiny={"size": 75, "width": 0.0625},
        summary="dense layers as convolutions that slide; fast form; the paper's dense multi-scale test (model.evaluation=dense)",
    ),
    Entry(
        name="overfeat_accurate",
        task="classify",
        paper="Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun: OverFeat: Integrated Recognition, Localization and Detection",
        year=2013,
        arxiv="1312.6229",
        builder="saccade.models.classify.overfeat:overfeat_accurate",
        needs=("fixed size",),
        row="C3",
        tiny={"size": 77, "width": 0.0625},
        summary="OverFeat's accurate form: smaller strides, one layer more, offset pooling of 3x3",
    ),
    Entry(
        name="nin",
        task="classify",
        paper="Lin, Chen, Yan: Network In Network",
        year=2013,
        arxiv="1312.4400",
        builder="saccade.models.classify.nin:nin",
        row="C4",
        tiny={"width": 0.0625},
        summary="1x1 convolutions between the convolutions, global average pooling instead of dense layers; 32x32 images",
    ),
    Entry(
        name="nin_imagenet",
        task="classify",
        paper="Lin, Chen, Yan: Network In Network",
        year=2013,
        arxiv="1312.4400",
        builder="saccade.models.classify.nin:nin_imagenet",
        row="C4",
        tiny={"size": 64, "width": 0.0625},
        summary="the authors' Network in Network for photos, four blocks",
    ),
    Entry(
        name="sppnet",
        task="classify",
        paper="He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition",
        year=2014,
        arxiv="1406.4729",
        builder="saccade.models.classify.sppnet:sppnet",
        row="C15",
        tiny={"size": 64, "width": 0.0625},
        summary="ZF-5 with a pyramid of bins before the dense layers: any input size, training at two sizes, test on many views",
    ),
    Entry(
        name="fpn_classifier",
        task="classify",
        paper="Lin, Dollár, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks for Object Detection",
        year=2016,
        arxiv="1612.03144",
        builder="saccade.models.classify.fpn_classifier:fpn_classifier",
        row="C16",
        tiny={"backbone": "test_resnet.r160_in1k", "size": 64, "channels": 16},
        summary="a head on every level of a feature pyramid over any timm backbone, combined",
        weights="timm's for the backbone",
    ),
    Entry(
        name="course_cnn",
        task="classify",
        paper="Chollet: Deep Learning with Python",
        year=2017,
        builder="saccade.models.classify.course_cnn:course_cnn",
        needs=("fixed size",),
        row="C17",
        tiny={"width": 0.25},
        summary="three small convolutions and two dense layers on 28x28 grey images: 167,114 parameters",
    ),
    Entry(
        name="googlenet",
        task="classify",
        paper="Szegedy et al.: Going Deeper with Convolutions",
        year=2014,
        arxiv="1409.4842",
        builder="saccade.models.classify.googlenet:googlenet",
        needs=("fixed size",),
        row="C6",
        tiny={"size": 80, "width": 0.0625},
        summary="nine Inception modules and two auxiliary heads, as published; or torchvision's with batch normalisation and weights",
        weights="torchvision GoogLeNet_Weights.IMAGENET1K_V1 (model.form=batch_norm)",
        accuracy="ImageNet top-5 89.93% (arXiv 1409.4842, table 3, one network, one crop)",
    ),
    Entry(
        name="bn_inception",
        task="classify",
        paper="Ioffe, Szegedy: Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
        year=2015,
        arxiv="1502.03167",
        builder="saccade.models.classify.bn_inception:bn_inception",
        row="C7",
        tiny={"size": 64, "width": 0.0625},
        summary="Inception with batch normalisation and two 3x3 windows for each 5x5",
    ),
    Entry(
        name="inception_v2",
        task="classify",
        paper="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision",
        year=2015,
        arxiv="1512.00567",
        builder="saccade.models.classify.inception_v2:inception_v2",
        row="C7",
        tiny={"size": 80, "width": 0.0625},
        summary="factorised Inception modules: two 3x3 for a 5x5, 1xn and nx1",
        accuracy="ImageNet top-1 76.6% (arXiv 1512.00567, table 3, one crop)",
    ),
    Entry(
        name="mobilenet_v1",
        task="classify",
        paper="Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
        year=2017,
        arxiv="1704.04861",
        builder="saccade.models.classify.mobilenet_v1:mobilenet_v1",
        row="C12",
        tiny={"alpha": 0.125, "rho": 0.2857},
        summary="depthwise separable convolutions with a width multiplier alpha and a resolution multiplier rho",
        weights="timm mobilenetv1_100 (model.alpha=1)",
        accuracy="ImageNet top-1 70.6% (arXiv 1704.04861, table 8)",
    ),
    Entry(
        name="darknet19",
        task="classify",
        paper="Redmon, Farhadi: YOLO9000: Better, Faster, Stronger",
        year=2016,
        arxiv="1612.08242",
        builder="saccade.models.classify.darknet19:darknet19",
        row="C14",
        tiny={"size": 64, "width": 0.0625},
        summary="19 convolutions with batch normalisation; the backbone of YOLOv2",
        accuracy="ImageNet top-1 72.9% (arXiv 1612.08242, section 3, 224x224)",
    ),
    Entry(
        name="darknet53",
        task="classify",
        paper="Redmon, Farhadi: YOLOv3: An Incremental Improvement",
        year=2018,
        arxiv="1804.02767",
        builder="saccade.models.classify.darknet53:darknet53",
        row="C14",
        tiny={"size": 64, "width": 0.0625},
        summary="53 convolutions with residual shortcuts; the backbone of YOLOv3",
        accuracy="ImageNet top-1 77.2% (arXiv 1804.02767, table 2, 256x256)",
    ),
    Entry(
        name="cspdarknet53",
        task="classify",
        paper="Wang et al.: CSPNet; Bochkovskiy, Wang, Liao: YOLOv4: Optimal Speed and Accuracy of Object Detection",
        year=2020,
        arxiv="2004.10934",
        builder="saccade.models.classify.cspdarknet53:cspdarknet53",
        row="C14",
        tiny={"size": 64, "width": 0.0625},
        summary="Darknet-53 in cross-stage partial form with Mish; the backbone of YOLOv4",
    ),
    *(Entry(**fields) for fields in ZOO),
    Entry(
        name="knn",
        task="classify",
        paper="Cover, Hart: Nearest Neighbor Pattern Classification",
        year=1967,
        builder="saccade.models.classify.knn:knn",
        kind="fitted",
        exportable="no",
        row="F9",
        tiny={"k": 3},
        summary="the nearest training images vote, in any feature space (model.features)",
    ),
    Entry(
        name="svm",
        task="classify",
        paper="Cortes, Vapnik: Support-Vector Networks",
        year=1995,
        builder="saccade.models.classify.svm:svm",
        kind="fitted",
        exportable="no",
        row="F9",
        summary="the widest margin, linear or with a Gaussian kernel, on any features (model.features)",
    ),
    Entry(
        name="random_forest",
        task="classify",
        paper="Breiman: Random Forests",
        year=2001,
        builder="saccade.models.classify.random_forest:random_forest",
        kind="fitted",
        exportable="no",
        row="F9",
        tiny={"trees": 8},
        summary="many trees on samples of images and features, on any features (model.features)",
    ),
    Entry(
        name="boosting",
        task="classify",
        paper="Freund, Schapire: A Decision-Theoretic Generalization of On-Line Learning and an Application to Boosting",
        year=1997,
        builder="saccade.models.classify.boosting:boosting",
        kind="fitted",
        exportable="no",
        row="F9",
        tiny={"rounds": 8},
        summary="AdaBoost of small trees on any features (model.features)",
    ),
    Entry(
        name="ssd300",
        task="detect",
        paper="Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector",
        year=2016,
        arxiv="1512.02325",
        builder="saccade.models.detect.ssd:ssd300",
        needs=("fixed size",),
        row="D24",
        tiny={"size": 64, "width": 0.0625},
        summary="boxes and classes in one pass: default boxes on six maps of a VGG-16, multibox loss, hard negatives",
        weights="torchvision SSD300_VGG16_Weights.COCO_V1",
        accuracy="VOC 2007 test mAP 74.3% (arXiv 1512.02325, table 1, trained on VOC 2007 and 2012)",
    ),
    Entry(
        name="ssd512",
        task="detect",
        paper="Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg: SSD: Single Shot MultiBox Detector",
        year=2016,
        arxiv="1512.02325",
        builder="saccade.models.detect.ssd:ssd512",
        needs=("fixed size",),
        row="D24",
        tiny={"size": 64, "width": 0.0625},
        summary="SSD on 512x512 images with seven maps",
        accuracy="VOC 2007 test mAP 76.8% (arXiv 1512.02325, table 1, trained on VOC 2007 and 2012)",
    ),
    Entry(
        name="retinanet",
        task="detect",
        paper="Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection",
        year=2017,
        arxiv="1708.02002",
        builder="saccade.models.detect.retinanet:retinanet",
        row="D25",
        tiny={"backbone": "test_resnet.r160_in1k", "min_size": 64, "max_size": 96, "channels": 16},
        summary="one pass over a feature pyramid of any timm backbone, trained with the focal loss",
        weights="torchvision RetinaNet_ResNet50_FPN_Weights.COCO_V1, and V2 (model.head_norm=group)",
        accuracy="COCO test-dev AP 39.1 (arXiv 1708.02002, table 2, ResNet-101-FPN)",
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
        name="yolov1",
        task="detect",
        paper="Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection",
        year=2016,
        arxiv="1506.02640",
        builder="saccade.models.detect.yolov1:yolov1",
        needs=("fixed size",),
        row="D18",
        tiny={"size": 128, "width": 0.0625, "hidden": 32},
        summary="one pass from the image to a grid of boxes and classes; 24 convolutions and two dense layers",
        accuracy="VOC 2007 mAP 63.4 (arXiv 1506.02640, table 1)",
    ),
    Entry(
        name="yolov1_tiny",
        task="detect",
        paper="Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection",
        year=2016,
        arxiv="1506.02640",
        builder="saccade.models.detect.yolov1:yolov1_tiny",
        needs=("fixed size",),
        row="D18",
        tiny={"size": 128, "width": 0.0625},
        summary="YOLO's authors' small network (yolov1-tiny.cfg)",
        weights="Darknet yolov1-tiny.weights",
    ),
    Entry(
        name="yolov1_darknet",
        task="detect",
        paper="Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection",
        year=2016,
        arxiv="1506.02640",
        builder="saccade.models.detect.yolov1:yolov1_darknet",
        needs=("fixed size",),
        row="D18",
        tiny={"size": 128, "width": 0.0625},
        summary="YOLO's authors' network (yolov1.cfg): batch normalisation, three boxes a cell, a locally connected layer",
        weights="Darknet yolov1.weights",
    ),
    Entry(
        name="yolov3",
        task="detect",
        paper="Redmon, Farhadi: YOLOv3: An Incremental Improvement",
        year=2018,
        arxiv="1804.02767",
        builder="saccade.models.detect.yolov3:yolov3",
        needs=("fixed size",),
        row="D21",
        tiny={"size": 64, "width": 0.0625},
        summary="boxes at three scales on Darknet-53 or any timm backbone, nine priors, independent logistic classes",
        weights="Darknet yolov3.weights",
        accuracy="COCO test-dev AP 33.0, AP50 57.9 (arXiv 1804.02767, table 3, 608x608)",
    ),
    Entry(
        name="yolov3_spp",
        task="detect",
        paper="Redmon, Farhadi: YOLOv3: An Incremental Improvement (yolov3-spp.cfg)",
        year=2018,
        arxiv="1804.02767",
        builder="saccade.models.detect.yolov3:yolov3_spp",
        needs=("fixed size",),
        row="D21",
        tiny={"size": 64, "width": 0.0625},
        summary="YOLOv3 with pooling over windows of 5, 9 and 13 before the coarsest head",
        weights="Darknet yolov3-spp.weights",
    ),
    Entry(
        name="yolov3_tiny",
        task="detect",
        paper="Redmon, Farhadi: YOLOv3: An Incremental Improvement (yolov3-tiny.cfg)",
        year=2018,
        arxiv="1804.02767",
        builder="saccade.models.detect.yolov3:yolov3_tiny",
        needs=("fixed size",),
        row="D21",
        tiny={"size": 64, "width": 0.0625},
        summary="the small YOLOv3: thirteen convolutions, two scales, six priors",
        weights="Darknet yolov3-tiny.weights",
    ),
    Entry(
        name="yolov4",
        task="detect",
        paper="Bochkovskiy, Wang, Liao: YOLOv4: Optimal Speed and Accuracy of Object Detection",
        year=2020,
        arxiv="2004.10934",
        builder="saccade.models.detect.yolov4:yolov4",
        needs=("fixed size",),
        row="D22",
        tiny={"size": 64, "width": 0.0625},
        summary="CSPDarknet-53 with Mish, pooling pyramid, path aggregation, CIoU, several priors a truth",
        weights="Darknet yolov4.weights",
        accuracy="COCO test-dev AP 43.5, AP50 65.7 (arXiv 2004.10934, abstract)",
    ),
    Entry(
        name="yolov4_tiny",
        task="detect",
        paper="Wang, Bochkovskiy, Liao: Scaled-YOLOv4: Scaling Cross Stage Partial Network",
        year=2020,
        arxiv="2011.08036",
        builder="saccade.models.detect.yolov4:yolov4_tiny",
        needs=("fixed size",),
        row="D22",
        tiny={"size": 64, "width": 0.125},
        summary="the small YOLOv4: three cross-stage partial stages, two scales",
        weights="Darknet yolov4-tiny.weights",
        accuracy="COCO test-dev AP 22.0, AP50 42.0 (arXiv 2011.08036, abstract)",
    ),
    Entry(
        name="yolov4_csp",
        task="detect",
        paper="Wang, Bochkovskiy, Liao: Scaled-YOLOv4: Scaling Cross Stage Partial Network",
        year=2020,
        arxiv="2011.08036",
        builder="saccade.models.detect.yolov4:yolov4_csp",
        needs=("fixed size",),
        row="D22",
        tiny={"size": 64, "width": 0.0625},
        summary="YOLOv4 with a neck in cross-stage partial form, Mish or swish",
        weights="Darknet yolov4-csp.weights, yolov4-csp-swish.weights (model.activation=swish)",
    ),
    *(
        Entry(
            name=f"yolov5{variant}",
            task="detect",
            paper="no paper (YOLOv5, 2020); Wang et al.: CSPNet; Liu et al.: PANet; Bochkovskiy et al.: YOLOv4; Zheng et al.: CIoU",
            year=2020,
            builder="saccade.models.detect.yolov5:yolov5",
            needs=("fixed size",),
            row="D23",
            tiny={"size": 64, "width": 0.5},
            summary=f"cross-stage partial network, two-way fused maps, three priors a cell, learnt in three cells: {size}",
            weights="a state dict with YOLOv5's names",
            fixed={"variant": variant},
        )
        for variant, size in {"n": "nano", "s": "small", "m": "medium", "l": "large", "x": "extra large"}.items()
    ),
    Entry(
        name="yolov2",
        task="detect",
        paper="Redmon, Farhadi: YOLO9000: Better, Faster, Stronger",
        year=2016,
        arxiv="1612.08242",
        builder="saccade.models.detect.yolov2:yolov2",
        row="D19",
        tiny={"size": 64, "width": 0.0625},
        summary="Darknet-19, five priors a cell, a pass-through of finer maps, any input size",
        accuracy="VOC 2007 mAP 76.8 at 416 (arXiv 1612.08242, table 3)",
    ),
    Entry(
        name="yolov2_tiny",
        task="detect",
        paper="Redmon, Farhadi: YOLO9000: Better, Faster, Stronger",
        year=2016,
        arxiv="1612.08242",
        builder="saccade.models.detect.yolov2:yolov2_tiny",
        row="D19",
        tiny={"size": 64, "width": 0.0625},
        summary="YOLOv2's authors' small network (yolov2-tiny-voc.cfg)",
        weights="Darknet yolov2-tiny-voc.weights",
    ),
    Entry(
        name="yolov2_darknet",
        task="detect",
        paper="Redmon, Farhadi: YOLO9000: Better, Faster, Stronger",
        year=2016,
        arxiv="1612.08242",
        builder="saccade.models.detect.yolov2:yolov2_darknet",
        row="D19",
        tiny={"size": 64, "width": 0.0625},
        summary="YOLOv2's authors' network (yolov2-voc.cfg): 64 maps through Darknet's own reorganisation",
        weights="Darknet yolov2-voc.weights",
    ),
    Entry(
        name="yolo9000",
        task="detect",
        paper="Redmon, Farhadi: YOLO9000: Better, Faster, Stronger",
        year=2016,
        arxiv="1612.08242",
        builder="saccade.models.detect.yolo9000:yolo9000",
        row="D20",
        tiny={"size": 64, "width": 0.0625},
        summary="YOLOv2 over a word tree: thousands of classes, and images with a label and no boxes learn too",
        weights="Darknet yolo9000.weights",
        accuracy="ImageNet detection mAP 19.7 (arXiv 1612.08242, section 4)",
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
        name="haar_cascade",
        task="detect",
        paper="Viola, Jones: Rapid Object Detection using a Boosted Cascade of Simple Features",
        year=2001,
        builder="saccade.models.detect.haar_cascade:haar_cascade",
        kind="fitted",
        exportable="no",
        row="D6",
        tiny={"window": 12, "stages": 2, "stumps": 4, "features": 60, "others": 60},
        summary="boosted Haar features in a cascade of stages; OpenCV's published files, or trained on the data",
        weights="OpenCV's Haar cascades",
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
        name="localizer",
        task="detect",
        paper="Ng: Deep Learning Specialization, course 4: Convolutional Neural Networks",
        year=2017,
        builder="saccade.models.detect.localizer:localizer",
        needs=("fixed size",),
        row="C20",
        tiny={"size": 32, "width": 4, "hidden": 16},
        summary="classification with localisation: at most one box an image, with its class",
        weights="timm's for the backbone",
    ),
    Entry(
        name="landmark_net",
        task="landmarks",
        paper="Feng, Kittler, Awais, Huber, Wu: Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks",
        year=2017,
        arxiv="1711.06753",
        builder="saccade.models.landmarks.landmark_net:landmark_net",
        needs=("fixed size",),
        row="C21",
        tiny={"size": 32, "width": 4, "hidden": 16},
        summary="the coordinates of named points by regression, with Wing, L1 or L2 loss; one set an image",
        weights="timm's for the backbone",
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
