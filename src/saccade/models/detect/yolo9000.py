"""YOLO9000 (2016): a detector of thousands of classes in a word tree, which also learns from images without boxes.

Redmon, Farhadi: YOLO9000: Better, Faster, Stronger, CVPR 2017, arXiv 1612.08242, section 4.

What was new: classes are nodes of a tree ("animal", "dog", "terrier"), with a soft-max over each set of siblings, so that data sets with
labels of different fineness mix; and an image with a label and no box teaches the classes of the box that likes the label best.

Where it is:
    "Hierarchical classification", WordTree             :class:`~saccade.models.darknet.tree.WordTree`
    its soft-max, the loss along the path of a label    :meth:`YOLO9000.path_probability`, :meth:`YOLO9000.class_loss`
    its prediction, down the tree until a threshold     :meth:`YOLO9000.probabilities`; ``model.tree_threshold``
    "Joint classification and detection"                :meth:`YOLO9000.losses`
    three priors instead of five                        :data:`PRIORS`
    mixed data                                          :func:`saccade.data.mixed.mix`

The network is that of the authors' ``yolo9000.cfg``, whose file of weights loads: Darknet-19 without its last layer and one 1x1 convolution
to 3 x (5 + nodes) maps at 544 pixels. (The paper says only "the base YOLOv2 architecture but only 3 priors"; the three 3x3 convolutions and
the pass-through of YOLOv2 are not in the cfg.)

Classes and nodes. Labels are the user's classes, each of them a node: by its name in the training data. Without ``model.tree`` all classes
are siblings at the root. A box whose descent ends at a node that is no class counts for the nearest ancestor that is one; where there is
none it is dropped. The score of a box is its objectness, as in Darknet: the descent has made sure of the class.

Losses. Boxes, objectness and background as in ``yolov2.py``; a class costs the cross entropy in every set of siblings from its own up to
the root, so that an image labelled "dog" says nothing about breeds. An image without boxes: at the box with the highest objectness times
probability of the label the class loss; and where its objectness is below 0.3, half of 5 times its squared distance from 0.3 ("we assume
that the predicted box overlaps what would be the ground truth label by at least .3 IOU").

Deviations. Darknet has the objectness of such an image learn nothing at that box and 0 at all others, the paper what is said above. The
recipe is ours, as that of ``yolov2.py``. See there for the rest.

Pinned by tests: 9418 nodes of the authors' tree; 28 269 maps; the number of floats in the file of weights; Darknet's raw outputs and
descent; a tree of five nodes by hand; the losses with their loops written out.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from saccade.data.dataset import Dataset
from saccade.models.base import Images
from saccade.models.classify.darknet19 import Darknet19
from saccade.models.classify.network import scaled
from saccade.models.darknet.tree import WordTree, parse_tree, read_names, read_tree
from saccade.models.detect.base import Assignment
from saccade.models.detect.yolov2 import CLASS, OBJECT, SCRATCH, STRIDE, RegionDetector, check_options, in_pixels, start
from saccade.types.errors import UsageError, suggest
from saccade.types.sample import Target

PRIORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
"""Widths and heights in cells, from ``yolo9000.cfg``."""

ASSUMED = 0.3
"""IoU that the best box of an image without boxes is assumed to have."""


class YOLO9000(RegionDetector):
    """YOLO9000 (see the module's docstring and :func:`yolo9000`).

    Args:
        num_classes: K classes of the user, at most as many as nodes.
        tree: over T nodes.
        flat: the tree was made of the classes; then label k is node k whatever the names.
        tree_threshold: of the descent.
        width, size, in_chans, given: as of YOLOv2.

    Attributes:
        nodes: (K,) int64, the node of each class. Until the training data are known: all nodes in order, or all leaves, where there are as
            many as classes; else the first ones.
    """

    learns_labels = True

    nodes: Tensor

    def __init__(
        self,
        num_classes: int,
        tree: WordTree,
        *,
        flat: bool = False,
        tree_threshold: float = 0.5,
        width: float = 1.0,
        size: int = 544,
        in_chans: int = 3,
        given: str = "paper",
    ) -> None:
        super().__init__(num_classes, [in_pixels(PRIORS)], [STRIDE], size=size, in_chans=in_chans, given=given)
        if num_classes > len(tree):
            raise UsageError(f"model.tree has {len(tree)} nodes for {num_classes} classes: each class must be a node")
        self.tree, self.flat, self.tree_threshold = tree, flat, tree_threshold
        leaves = torch.from_numpy(tree.leaf).nonzero()[:, 0]
        first = leaves if len(leaves) == num_classes != len(tree) else torch.arange(num_classes)
        self.register_buffer("nodes", first)
        paths = [torch.tensor(tree.ancestors(k)) for k in range(len(tree))]
        self.paths = pad_sequence(paths, batch_first=True, padding_value=-1)  # (T, depth) from each node to its root
        self.backbone = Darknet19(0, in_chans, width=width).features
        self.output = nn.Conv2d(scaled(1024, width), self.priors.shape[1] * (5 + len(tree)), 1)
        start(self, self.output)

    def raw(self, images: Images) -> list[Tensor]:
        """(N, C, H, W) in 0..1 to [(N, A (5 + T), H / 32, W / 32)]."""
        assert isinstance(images, Tensor)
        self.check_sides(images)
        return [self.output(self.backbone(images))]

    # -- classes and nodes ------------------------------------------------------------------------

    def learn_from(self, data: Dataset) -> None:
        """Priors as the base; and the node of each class, by name.

        Raises:
            UsageError: a class that is no node.
        """
        super().learn_from(data)
        if self.flat:
            return
        known = {name: node for node, name in enumerate(self.tree.names)}
        wanted = [as_node(name) for name in data.classes]
        for name in wanted:
            if name not in known:
                raise UsageError(f"the class {name!r} is no node of model.tree{suggest(name, known)}")
        self.nodes.copy_(torch.tensor([known[name] for name in wanted]))

    def labels_of_nodes(self) -> Tensor:
        """(T,) int64: of each node the class that it or its nearest ancestor is; -1 for none."""
        own = {node: label for label, node in enumerate(self.nodes.tolist())}
        labels: list[int] = []
        for node, parent in enumerate(self.tree.parent.tolist()):  # a parent comes before its children
            labels.append(own.get(node, labels[parent] if parent >= 0 else -1))
        return torch.tensor(labels, device=self.nodes.device)

    def probabilities(self, classes: Tensor) -> Tensor:
        """(..., T) logits to (..., K): 1 for the class that the descent reaches, 0 for all others."""
        node = self.tree.descend(self.tree.absolute(self.tree.softmax(classes)), self.tree_threshold)
        label = self.labels_of_nodes()[node][..., None]
        out = classes.new_zeros((*classes.shape[:-1], self.num_classes))
        return out.scatter_(-1, label.clamp_min(0), (label >= 0).to(out))

    def path_probability(self, logits: Tensor, nodes: Tensor) -> Tensor:
        """(..., T) logits and (...) nodes to (...) logarithms of the nodes' probabilities: the sum along the path to the root."""
        path = self.paths.to(nodes.device)[nodes]
        steps = self.tree.log_softmax(logits).gather(-1, path.clamp_min(0).expand(*logits.shape[:-1], path.shape[-1]))
        return torch.where(path >= 0, steps, steps.new_zeros(())).sum(-1)

    # -- losses -----------------------------------------------------------------------------------

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy in each set of siblings on the labels' paths, summed."""
        return -self.path_probability(logits, self.nodes[labels]).sum()

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Those of the base, of images with boxes; "image_class" and "image_object" of images with a ``label`` and no boxes.

        All are sums over the images of a kind divided by the number of images of both.
        """
        assert isinstance(images, Tensor)
        labelled = [i for i, target in enumerate(targets) if "boxes" not in target]
        boxed = [i for i, target in enumerate(targets) if "boxes" in target]
        images, targets = self.rescaled(images, with_boxes(targets))
        fields = self.fields(self.raw(images)[0])
        none = fields.sum() * 0
        out = dict.fromkeys(("box", "object", "no_object", "class", "image_class", "image_object"), none)
        if boxed:
            out |= self.region_losses(fields[boxed], [targets[i] for i in boxed])
        if labelled:
            labels = torch.stack([targets[i]["label"] for i in labelled]).to(fields.device)
            out |= self.image_losses(fields[labelled], labels)
        return {name: value / len(targets) for name, value in out.items()}

    def image_losses(self, fields: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Of images (N, A, H, W, 5 + T) that have labels (N,) and no boxes, summed."""
        boxes, nodes = fields.flatten(1, 3), self.nodes[labels]
        with torch.no_grad():
            likely = F.logsigmoid(boxes[..., 4]) + self.path_probability(boxes[..., 5:], nodes[:, None])
            best = likely.argmax(1)
        chosen = boxes[torch.arange(len(boxes), device=boxes.device), best]
        return {
            "image_class": -CLASS * self.path_probability(chosen[:, 5:], nodes).sum(),
            "image_object": OBJECT * (ASSUMED - chosen[:, 4].sigmoid()).clamp_min(0).square().sum() / 2,
        }

    def assignments(self, images: Images, targets: list[Target]) -> list[tuple[Assignment, ...]]:
        """As the base; images without boxes have none."""
        return super().assignments(images, with_boxes(targets))


def with_boxes(targets: list[Target]) -> list[Target]:
    """Targets without boxes with an empty list of them."""
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [target if "boxes" in target else target | empty for target in targets]


def as_node(name: str) -> str:
    """A class's name as Darknet's trees write it: without blanks."""
    return "_".join(name.split())


def tree_of(tree: str | None, names: str | None, num_classes: int) -> WordTree:
    """The tree of a file, or of its text (more than one line); without either one of ``num_classes`` roots."""
    if tree is None:
        return WordTree([str(k) for k in range(num_classes)], [-1] * num_classes)
    found = parse_tree(tree, "model.tree") if "\n" in tree else read_tree(tree)
    if names is None:
        return found
    given = [as_node(name) for name in read_names(names)]
    if len(given) != len(found):
        raise UsageError(f"model.names has {len(given)} names, model.tree {len(found)} nodes")
    return WordTree(given, found.parent.tolist(), tree)


def yolo9000(
    num_classes: int = 9418,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    tree: str | None = None,
    names: str | None = None,
    tree_threshold: float = 0.5,
    size: int = 544,
    width: float = 1.0,
    priors: str = "paper",
) -> YOLO9000:
    """YOLO9000: YOLOv2 over a word tree.

    Args:
        num_classes: K classes of the user, each of them a node of the tree.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published that are read here by name; a UsageError.
        tree: a file of Darknet's form (``9k.tree``): a name and the number of its parent a line; or such text itself, which is what a saved
            model keeps. None: the classes are siblings at the root.
        names: a file of names for the nodes, one a line (``9k.names``), in place of those in the tree.
        tree_threshold: how sure the descent must be to go on, 0..1.
        size: side of the input, a multiple of 32.
        width: factor on all maps.
        priors: "paper" (the authors', for COCO), "auto" (k-means over the training boxes), or three sizes in pixels.
    """
    check_options("yolo9000", pretrained, size, width)
    if not 0 <= tree_threshold <= 1:
        raise UsageError(f"model.tree_threshold={tree_threshold}: it lies in 0..1")
    if names is not None and tree is None:
        raise UsageError("model.names names the nodes of model.tree, which is not given")
    nodes = tree_of(tree, names, num_classes)
    model = YOLO9000(
        num_classes, nodes, flat=tree is None, tree_threshold=tree_threshold, width=width, size=size, in_chans=in_chans, given=priors
    )
    if tree is not None:
        text = "".join(f"{name} {parent}\n" for name, parent in zip(nodes.names, nodes.parent.tolist(), strict=True))
        model.build_options = {"tree": text, "names": None}
        if num_classes == len(nodes):
            model.classes = nodes.names
    return model


RECIPES = {"yolo9000": SCRATCH}
