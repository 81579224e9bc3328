"""What YOLOv2 to YOLOv5 share: heads that predict A boxes in each cell of one grid or more, relative to priors.

The paper's file gives the network, the assignment and the loss; here are the coder, decoding, priors (the paper's, given, or from the
user's data: YOLO9000, arXiv 1612.08242, section 2), and training at several sizes (section 2, "Multi-Scale Training").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.boxes.anchors import grid_boxes
from saccade.boxes.nms import DUPLICATES, select
from saccade.boxes.priors import kmeans_priors, size_iou
from saccade.data.dataset import Dataset
from saccade.data.priors import box_sizes
from saccade.data.transforms.preprocess import Preprocess
from saccade.models.detect.base import Detector, Priors
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

Sides = Sequence[tuple[float, float]]

LARGEST_LOG = 20.0
"""``exp`` of a larger side is cut: areas must stay finite in float32."""

LARGEST_PRIOR = 100_000
"""Pixels."""

POOR_FIT = 0.5
"""Mean IoU of the boxes with their best priors under which training says so; five priors fitted to VOC reach 0.61 (YOLO9000, table 1)."""


class GridDetector(Detector):
    """A detector whose head of each level gives (N, A (5 + K), H, W): per prior tx, ty, tw, th, objectness, K classes.

    A box of the cell (i, j) and the prior (pw, ph), in pixels of the input::

        bx = (s sigma(tx) - (s - 1) / 2 + i) stride        bw = pw exp(tw)    or, with ``squared``, pw (2 sigma(tw))^2

    with s = 1 unless ``scale_xy`` says otherwise, by level.

    Args:
        num_classes: K.
        priors: one list of (width, height) in pixels of the input a level.
        strides: pixels a cell, by level, in the order of ``raw``.
        size: side of the input, a multiple of the largest stride.
        in_chans: 1 or 3.
        given: the option ``priors`` of the builder: "paper", "auto" (from the training data, once they are known), or sizes as
            :func:`parse_priors` reads them.
        scale_xy: s, one number or one a level.
        mode, fill: of the preprocessing.

    Attributes:
        priors: (L, A, 2) float32 in pixels.
        squared: whether sides are squares of a sigmoid.
        exclusive: whether the classes of a box exclude each other (soft-max) or not (sigmoids).
    """

    squared: ClassVar[bool] = False
    exclusive: ClassVar[bool] = False
    multi_scale: tuple[float, ...] = ()

    priors: Tensor

    def __init__(
        self,
        num_classes: int,
        priors: Sequence[Sides],
        strides: Sequence[int],
        *,
        size: int,
        in_chans: int = 3,
        given: str = "paper",
        scale_xy: float | Sequence[float] = 1.0,
        mode: str = "letterbox",
        fill: float = 0.5,
    ) -> None:
        super().__init__(num_classes)
        if size % max(strides):
            nearest = max(round(size / max(strides)), 1) * max(strides)
            raise UsageError(f"size={size} is no multiple of {max(strides)}, the coarsest cell; {nearest} is")
        self.strides = tuple(strides)
        self.scale_xy = (float(scale_xy),) * len(strides) if isinstance(scale_xy, (int, float)) else tuple(scale_xy)
        self.preprocess = Preprocess(
            mode=mode, size=(size, size), channels=in_chans, mean=(0.0,) * in_chans, std=(1.0,) * in_chans, fill=fill  # type: ignore[arg-type]
        )  # fmt: skip
        self.automatic = given == "auto"
        sides = priors if given in ("paper", "auto") else parse_priors(given, len(strides), len(priors[0]))
        self.register_buffer("priors", torch.tensor([list(level) for level in sides], dtype=torch.float32), persistent=False)

    # -- coder ------------------------------------------------------------------------------------

    def fields(self, raw: Tensor) -> Tensor:
        """(N, A (5 + K), H, W) of a level to (N, A, H, W, 5 + K) float32."""
        n, _, h, w = raw.shape
        return raw.float().view(n, self.priors.shape[1], -1, h, w).permute(0, 1, 3, 4, 2)

    def boxes(self, fields: Tensor, level: int) -> Tensor:
        """(N, A, H, W, 4) centres and sides (x, y, w, h) in pixels of a level's fields."""
        h, w = fields.shape[2:4]
        y, x = torch.meshgrid(torch.arange(h, device=fields.device), torch.arange(w, device=fields.device), indexing="ij")
        return self.place(fields[..., :4], torch.stack([x, y], -1), self.priors[level][:, None, None], level)

    def place(self, t: Tensor, cells: Tensor, priors: Tensor, level: int) -> Tensor:
        """(..., 4) centres and sides in pixels of ``t`` (..., 4), at ``cells`` (..., 2) column and row, with ``priors`` (..., 2)."""
        s = self.scale_xy[level]
        centre = (t[..., :2].sigmoid() * s - (s - 1) / 2 + cells) * self.strides[level]
        sides = (2 * t[..., 2:].sigmoid()).square() if self.squared else t[..., 2:].clamp(max=LARGEST_LOG).exp()
        return torch.cat([centre, sides * priors], -1)

    def probabilities(self, classes: Tensor) -> Tensor:
        """(..., K) of the class outputs (..., K)."""
        return classes.softmax(-1) if self.exclusive else classes.sigmoid()

    def boxes_and_scores(self, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """All boxes (N, M, 4) XYXY in pixels of the input, objectness (N, M), scores (N, M, K); level by level, prior, row, column."""
        boxes, objectness, scores = [], [], []
        for level, out in enumerate(raw):
            fields = self.fields(out)
            boxes.append(corners(self.boxes(fields, level).flatten(1, 3)))
            objectness.append(fields[..., 4].sigmoid().flatten(1))
            scores.append(objectness[-1][..., None] * self.probabilities(fields[..., 5:].flatten(1, 3)))
        return torch.cat(boxes, 1), torch.cat(objectness, 1), torch.cat(scores, 1)

    def likely(self, raw: Sequence[Tensor], image: int, score: float) -> tuple[Tensor, Tensor]:
        """Of one image the boxes (M, 4) and scores (M, K) of :meth:`boxes_and_scores` whose objectness is above ``score``, in its order.

        No score can be above its objectness, so that with this threshold the others need no box and no classes.
        """
        boxes, scores = [], []
        for level, out in enumerate(raw):
            maps = out[image].unflatten(0, (self.priors.shape[1], -1))  # (A, 5 + K, H, W)
            objectness = maps[:, 4].float().sigmoid()
            prior, y, x = (objectness > score).nonzero(as_tuple=True)
            fields = maps[prior, :, y, x].float()
            boxes.append(corners(self.place(fields[:, :4], torch.stack([x, y], -1), self.priors[level][prior], level)))
            scores.append(objectness[prior, y, x, None] * self.probabilities(fields[:, 5:]))
        return torch.cat(boxes), torch.cat(scores)

    def decode(
        self, raw: Sequence[Tensor], geometries: Sequence[Geometry], *, score: float = 0.3, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Boxes of all levels, class-wise NMS, in original pixels; a score is objectness times class probability."""
        out: list[Prediction] = []
        most = DUPLICATES * max_detections
        for image, geometry in enumerate(geometries):
            found, value, label = select(
                *self.likely(raw, image, score), score=score, iou=iou, max_detections=max_detections, candidates=None, most=most
            )
            found = geometry.boxes_to_original(found)
            out.append(Detection(boxes=found.cpu().numpy(), labels=label.cpu().numpy(), scores=value.cpu().numpy()))
        return out

    # -- priors -----------------------------------------------------------------------------------

    def prior_boxes(self, size: tuple[int, int]) -> Priors:
        """The priors at every cell of an input of ``size``; a truth goes to the cell of its centre, whatever the overlap."""
        boxes = [
            grid_boxes((size[0] // stride, size[1] // stride), sides, (stride, stride))
            for stride, sides in zip(self.strides, self.priors, strict=True)
        ]
        return Priors(torch.cat(boxes), None, min(self.strides))

    def learn_from(self, data: Dataset) -> None:
        """With ``priors="auto"``, k-means under 1 - IoU over the boxes; the smallest go to the finest level."""
        if not self.automatic:
            return
        levels, count = self.priors.shape[:2]
        sizes = self._sizes(data)
        k = levels * count
        different = len(torch.unique(torch.as_tensor(sizes), dim=0))
        if different < k:
            raise UsageError(
                f"model.priors=auto needs {k} boxes of different sizes, the training data have {different}; take model.priors=paper"
            )
        sides, _ = kmeans_priors(sizes, k)
        by_level = torch.tensor(sides.round(1).clip(min=0.1), dtype=torch.float32).view(levels, count, 2)
        finest_first = sorted(range(levels), key=lambda level: self.strides[level])
        for rank, level in enumerate(finest_first):
            self.priors[level] = by_level[rank].to(self.priors)
        self.build_options["priors"] = format_priors(self.priors)
        self.automatic = False

    def _sizes(self, data: Dataset) -> np.ndarray:
        return box_sizes(data, self.preprocess.size, letterbox=self.preprocess.mode == "letterbox")

    def notes(self, data: Dataset) -> list[str]:
        """How well the priors fit the boxes, where they do not."""
        try:
            sizes = self._sizes(data)
        except UsageError:  # no box at all: said elsewhere
            return []
        fit = float(size_iou(sizes, self.priors.flatten(0, 1).cpu().numpy().astype(float)).max(1).mean())
        if fit >= POOR_FIT:
            return []
        return [
            f"the priors overlap the boxes by {fit:.2f} on average (IoU on a common centre): --set model.priors=auto fits them to the data"
        ]

    # -- training at several sizes ------------------------------------------------------------------

    def configure(self, recipe: Recipe) -> None:
        """Also takes ``recipe.multi_scale``."""
        super().configure(recipe)
        if recipe.multi_scale and (len(recipe.multi_scale) != 2 or recipe.multi_scale[0] > recipe.multi_scale[1]):
            raise UsageError(f"recipe.multi_scale is a least and a largest share of the side, as in [0.77, 1.46], not {recipe.multi_scale}")
        self.multi_scale = recipe.multi_scale

    def rescaled(self, images: Tensor, targets: list[Target]) -> tuple[Tensor, list[Target]]:
        """In training with ``recipe.multi_scale`` the batch at a random side, a multiple of the coarsest stride; else the batch itself."""
        if not (self.training and self.multi_scale):
            return images, targets
        step, (height, width) = max(self.strides), images.shape[-2:]
        low, high = (max(round(width * share / step), 1) for share in self.multi_scale)
        across = step * int(torch.randint(low, high + 1, ()))
        down = step * max(round(height * across / width / step), 1)
        if (down, across) == (height, width):
            return images, targets
        images = F.interpolate(images, size=(down, across), mode="bilinear", align_corners=False)
        factors = torch.tensor([across / width, down / height] * 2)
        given = (target["boxes"].as_subclass(Tensor) for target in targets)
        return images, [target | {"boxes": boxes * factors.to(boxes)} for target, boxes in zip(targets, given, strict=True)]


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) XYXY of centres and sides."""
    centre, sides = boxes.split(2, -1)
    return torch.cat([centre - sides / 2, centre + sides / 2], -1)


def parse_priors(text: str, levels: int, count: int) -> list[list[tuple[float, float]]]:
    """Priors from "10x13 16x30 ..." (commas or blanks between), level by level in the order of the model's outputs.

    Raises:
        UsageError: no such sizes, or another number than ``levels * count``.

    >>> parse_priors("10x13,16x30", 2, 1)
    [[(10.0, 13.0)], [(16.0, 30.0)]]
    """
    try:
        sides = [(float(w), float(h)) for w, h in (part.lower().split("x") for part in text.replace(",", " ").split())]
    except ValueError:
        raise UsageError(f'model.priors={text!r}: "paper", "auto", or sizes as in 10x13,16x30') from None
    if not all(0 < side <= LARGEST_PRIOR for side in itertools.chain(*sides)):
        raise UsageError(f"model.priors={text!r}: sides are pixels above 0, at most {LARGEST_PRIOR:,}")
    if len(sides) != levels * count:
        raise UsageError(f"model.priors has {len(sides)} sizes, the model {levels} levels of {count}: {levels * count} are needed")
    return [sides[k * count : (k + 1) * count] for k in range(levels)]


def format_priors(priors: Tensor) -> str:
    """(L, A, 2) as :func:`parse_priors` reads it."""
    return ",".join(f"{w:g}x{h:g}" for w, h in priors.flatten(0, 1).tolist())
