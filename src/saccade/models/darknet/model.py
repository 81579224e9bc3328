"""A detector or classifier from Darknet's files: :func:`load_darknet`.

Redmon: Darknet: Open Source Neural Networks in C; Bochkovskiy's fork of it. The papers: YOLOv1 (1506.02640), YOLOv2 and YOLO9000
(1612.08242), YOLOv3 (1804.02767), YOLOv4 (2004.10934), Scaled-YOLOv4 (2011.08036).

Deviations. Images are resized with a low-pass filter and rounded to 8 bits, where Darknet interpolates between pixels without; boxes go
through torchvision's NMS by class. The numbers of the network on the same input are Darknet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from saccade.boxes.nms import DUPLICATES, select
from saccade.data.transforms.preprocess import Preprocess
from saccade.models.base import Images
from saccade.models.classify.base import Classifier
from saccade.models.darknet.cfg import Description, Dialect, guess_dialect, read_cfg
from saccade.models.darknet.layers import DetectionHead, Head
from saccade.models.darknet.network import DarknetNetwork, build_network
from saccade.models.darknet.tree import read_names
from saccade.models.darknet.weights import read_weights
from saccade.models.detect.base import Detector
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction

LETTERBOX_FILL = 0.5


class DarknetDetector(Detector):
    """A network with ``[yolo]``, ``[region]`` or ``[detection]`` heads.

    Attributes:
        network: the :class:`~saccade.models.darknet.network.DarknetNetwork`.
        tree_threshold: of YOLO9000's descent in the word tree.
    """

    def __init__(self, network: DarknetNetwork, tree_threshold: float = 0.5) -> None:
        heads = [network.layers[k] for k in network.heads]
        classes = {head.classes for head in heads if isinstance(head, Head)}
        if len(classes) > 1:
            raise DataError(network.description.path, f"its heads have different numbers of classes: {sorted(classes)}")
        super().__init__(classes.pop())
        self.network, self.tree_threshold = network, tree_threshold
        channels, height, width = network.input
        stretch = network.dialect == "alexeyab" and not network.description.net.int("letter_box", 0)
        self.preprocess = Preprocess(
            mode="stretch" if stretch or any(isinstance(head, DetectionHead) for head in heads) else "letterbox",
            size=(height, width), channels=channels, mean=(0.0,), std=(1.0,), fill=LETTERBOX_FILL,
        )  # fmt: skip

    def raw(self, images: Images) -> list[Tensor] | Tensor:
        """Output of the layer before each head and its activation, (N, A (5 + K), H, W) a scale; YOLOv1's vector (N, S S (K + 5 B)).

        Args:
            images: (N, C, H, W) in 0..1.
        """
        assert isinstance(images, Tensor)
        raws = self.network(images)
        if isinstance(self.network.layers[self.network.heads[0]], DetectionHead):
            return raws[0].flatten(1)
        return raws

    def boxes_and_scores(self, raw: list[Tensor] | Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """All boxes (N, A, 4) XYXY in pixels of an input of ``size`` (H, W), objectness (N, A), scores (N, A, K); head by head."""
        raws = [raw] if isinstance(raw, Tensor) else raw
        found = [
            self.network.layers[k].boxes_and_scores(r.float(), size, tree_threshold=self.tree_threshold)  # type: ignore[operator, union-attr]
            for k, r in zip(self.network.heads, raws, strict=True)
        ]
        boxes, objectness, scores = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return boxes, objectness, scores

    def decode(
        self, raw: list[Tensor] | Tensor, geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Boxes of all heads, class-wise NMS, in original pixels; a score is objectness times class probability."""
        out: list[Prediction] = []
        height, width = geometries[0].canvas
        boxes, objectness, scores = self.boxes_and_scores(raw, (height, width))
        if any(getattr(self.network.layers[k], "gated", False) for k in self.network.heads):
            scores = scores * (objectness > score)[..., None]
        most = DUPLICATES * max_detections
        for box, values, geometry in zip(boxes, scores, geometries, strict=True):
            found, value, label = select(box, values, score=score, iou=iou, max_detections=max_detections, candidates=None, most=most)
            found = geometry.boxes_to_original(found)
            out.append(Detection(boxes=found.cpu().numpy(), labels=label.cpu().numpy(), scores=value.clamp(max=1).cpu().numpy()))
        return out


class DarknetClassifier(Classifier):
    """A network that ends in scores of classes; trains with cross entropy."""

    def __init__(self, network: DarknetNetwork) -> None:
        channels, height, width = network.input
        crop = Preprocess(mode="crop", size=(height, width), channels=channels, mean=(0.0,), std=(1.0,), crop=1.0)
        last = network.layers[-1].out
        assert isinstance(last, tuple)
        if last[1:] != (1, 1):
            raise DataError(
                network.description.path, f"ends in {last[0]} maps of {last[1]}x{last[2]}: neither boxes nor scores of classes",
                hint="a detector ends in [yolo], [region] or [detection], a classifier in [avgpool] or [softmax]",
            )  # fmt: skip
        super().__init__(last[0], crop)
        self.network = network

    def raw(self, images: Images) -> Tensor:
        """(N, C, H, W) in 0..1 to the logits before the soft-max, (N, K)."""
        assert isinstance(images, Tensor)
        return self.network(images)[0].flatten(1)


def load_darknet(
    cfg: str | Path,
    weights: str | Path | None = None,
    dialect: Dialect | None = None,
    *,
    names: str | Path | Sequence[str] | None = None,
    tree: str | Path | None = None,
    partial: bool = False,
) -> DarknetDetector | DarknetClassifier:
    """A working model from Darknet's own files, as Darknet computes it.

    Args:
        cfg: the network description.
        weights: the ``.weights`` file; None leaves fresh weights.
        dialect: which program's arithmetic: ``"pjreddie"`` or ``"alexeyab"``; None guesses from the description (and takes the first where
            it could be both: they differ in the epsilon of batch normalisation, in how images are resized, in the class that a box with a
            word tree has, and in ``[region]`` without a soft-max).
        names: class names, a file with one a line or a list.
        tree: YOLO9000's word tree, where it is not found beside the description.
        partial: the weights may end after any layer (``darknet53.conv.74``).

    Returns:
        A detector when the description has a ``[yolo]``, ``[region]`` or ``[detection]`` section, else a classifier.

    Raises:
        DataError: a file that cannot be; names the section, its line, and floats expected and found.
        UsageError: an unknown dialect, or names that do not fit the classes.

    Example:
        >>> saccade.load_darknet("yolov3.cfg", "yolov3.weights", names="coco.names").predict("street.jpg")  # doctest: +SKIP
    """
    description = read_cfg(cfg)
    return assemble(description, weights, dialect, names=names, tree=tree, partial=partial)


def assemble(
    description: Description,
    weights: str | Path | None = None,
    dialect: Dialect | None = None,
    *,
    names: str | Path | Sequence[str] | None = None,
    tree: str | Path | None = None,
    partial: bool = False,
) -> DarknetDetector | DarknetClassifier:
    """As :func:`load_darknet`, from a description that was read."""
    if dialect not in (None, "pjreddie", "alexeyab"):
        raise UsageError(f'dialect is "pjreddie" or "alexeyab", not {dialect!r}')
    network = build_network(description, dialect or guess_dialect(description), tree)
    if tree is not None and network.tree is None:
        raise UsageError(f"{description.path} has no layer with a word tree: leave tree={str(tree)!r} out")
    if network.input[0] not in (1, 3):
        raise description.net.error(f"channels={network.input[0]}: images have 1 or 3", "channels")
    model: DarknetDetector | DarknetClassifier = DarknetDetector(network) if network.heads else DarknetClassifier(network)
    if weights is not None:
        read_weights(network, weights, partial=partial)
    given = read_names(names) if isinstance(names, (str, Path)) else names
    if given is None and network.tree is not None:
        given = network.tree.names
    if given is not None:
        if len(given) != model.num_classes:
            raise UsageError(f"{len(given)} names for the {model.num_classes} classes of {description.path}")
        model.classes = list(given)
    return model.eval()
