"""Haar cascade: a cascade of boosted Haar features, slid over an image pyramid; OpenCV's published ones, or trained on the user's boxes.

Paper: Viola, Jones: Rapid Object Detection using a Boosted Cascade of Simple Features (CVPR 2001). New were features that cost a few
reads of an integral image each, AdaBoost as the way to choose among thousands of them, and the cascade: cheap stages first, each of
which drops half of what is no object and next to nothing else, so that most windows are done after a few additions.

Where it is: features, scan and grouping of windows in :mod:`saccade.features.haar`; boosting, stages and the false alarms of the cascade
so far ("hard negatives", section 4.2) in :mod:`saccade.features.haar_train`; the objects' windows in :meth:`HaarCascade.cut`.

Deviations: one cascade a class, whose median aspect ratio the image is squeezed by, so that all windows are squares; objects are cut
with ``margin`` around them, several times, a little moved; all windows away from the class's boxes (IoU below 0.3) are negatives, other
classes' objects among them; the image is shrunk, not the features enlarged. The score of n windows that agree is ``n / (n + neighbors)``:
it ranks, and is no probability.

``cascade="face"`` (or another file of OpenCV, or one's own) is a model of one class that needs no fitting; its bundle holds the file.

Facts under test (CANON D6, F2): boxes of a published file equal OpenCV's; objects are found in images that were not trained on.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.features.haar import Cascade, cascade_file, find_objects, read_opencv
from saccade.features.haar_train import train_cascade
from saccade.features.pixels import as_pixels, grey, resized
from saccade.models.base import FittedModel, Images, Log
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe

if TYPE_CHECKING:
    import cv2

RECIPES = {"haar_cascade": Recipe(epochs=1, batch_size=1, weight_decay=0.0)}  # nothing of it applies: the cascade is fitted

ARRAYS = {
    "features": torch.int16,
    "thresholds": torch.float32,
    "signs": torch.int8,
    "weights": torch.float32,
    "ends": torch.int64,
    "least": torch.float32,
}
"""The arrays of a :class:`Cascade`, kept one class after the other."""

LIMITS = {
    "window": (8, 64),
    "stages": (1, 100),
    "stumps": (1, 10_000),
    "features": (10, 1_000_000),
    "others": (10, 1_000_000),
    "hit_rate": (0.5, 1),
    "false_rate": (0.01, 0.99),
    "margin": (0, 1),
    "copies": (1, 100),
    "pictures": (1, 1_000_000),
    "scale": (1.01, 4),
    "neighbors": (1, 100),
    "step": (1, 64),
}
"""Least and greatest value of each option."""

MOVE = 0.05
"""Greatest move of a copy of an object, and change of its size, as shares of its side."""


class Found(NamedTuple):
    """Objects of one image: ``boxes`` (N, 4) XYXY pixels, ``votes`` (N,) windows that agree, ``labels`` (N,)."""

    boxes: Tensor
    votes: Tensor
    labels: Tensor


class HaarCascade(FittedModel):
    """One cascade a class.

    Buffers: the arrays of all classes' cascades, one class after the other; ``counts`` (K, 2): stumps and stages of each (0 of a class
    that is never found); ``frames`` (K, 4): side of the window, width / height of the objects, margin around them as a share of their
    side, and the least side to look for, in pixels, margin included; ``xml``: the bytes of a file of OpenCV, in place of all these.
    """

    task = "detect"
    fitted_buffers = (*ARRAYS, "xml")

    def __init__(self, num_classes: int, *, in_chans: int, mirror: bool, **settings: float) -> None:
        super().__init__(num_classes)
        for name, (low, high) in LIMITS.items():
            if not low <= settings[name] <= high:
                raise UsageError(f"model.{name} lies in {low}..{high}, not {settings[name]}")
        self.preprocess = Preprocess(mode="keep", channels=in_chans, mean=(0.0,) * in_chans, std=(1.0,) * in_chans)
        self.margin, self.copies, self.pictures = settings["margin"], int(settings["copies"]), int(settings["pictures"])
        self.neighbors = int(settings["neighbors"])
        self.search: dict[str, Any] = {name: settings[name] for name in ("scale", "neighbors", "step")}
        learning = ("window", "stages", "hit_rate", "false_rate", "stumps", "features", "others")
        self.learning: dict[str, Any] = {name: settings[name] for name in learning} | {"mirror": mirror}
        self.counts: Tensor
        self.frames: Tensor
        self.xml: Tensor
        for name, dtype in ARRAYS.items():
            self.register_buffer(name, torch.zeros((0, 5) if name == "features" else 0, dtype=dtype))
        self.register_buffer("counts", torch.zeros(num_classes, 2, dtype=torch.int64))
        self.register_buffer("frames", torch.zeros(num_classes, 4))
        self.register_buffer("xml", torch.zeros(0, dtype=torch.uint8))

    # -- the search -----------------------------------------------------------------------------

    def cascade(self, label: int) -> Cascade | None:
        """The cascade of a class; None where it has none."""
        stumps, stages = self.counts[label].tolist()
        if not stages:
            return None
        first_stump, first_stage = self.counts[:label].sum(0).tolist()
        arrays = {}
        for name in ARRAYS:
            start, count = (first_stage, stages) if name in ("ends", "least") else (first_stump, stumps)
            arrays[name] = getattr(self, name)[start : start + count].cpu().numpy()
        return Cascade(int(self.frames[label, 0]), **arrays)

    def raw(self, images: Images) -> list[Found]:
        """Objects an image; ``images`` (C, H, W) in 0..1."""
        if not len(self.xml) and not self.frames.any():
            raise UsageError("haar_cascade has learned nothing yet: fit it to data first, or name a file: model.cascade=face")
        cascades = [None if len(self.xml) else self.cascade(k) for k in range(self.num_classes)]
        return [Found(*(part.to(image.device) for part in self._find(_grey(image), cascades))) for image in images]

    def _find(self, pixels: np.ndarray, cascades: Sequence[Cascade | None]) -> Found:
        if len(self.xml):
            boxes, votes = find_objects(pixels, _classifier(self.xml.cpu().numpy().tobytes()), **self.search)
            return Found(torch.from_numpy(boxes), torch.from_numpy(votes), torch.zeros(len(votes), dtype=torch.int64))
        parts = [Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))]
        for k, cascade in enumerate(cascades):
            if cascade is not None:
                squeezed, factors = self.squeeze(pixels, k)
                found, votes = find_objects(squeezed, cascade, smallest=int(self.frames[k, 3]), **self.search)
                inset = float(self.frames[k, 2]) / (1 + 2 * float(self.frames[k, 2])) * (found[:, 2:] - found[:, :2])
                boxes = np.concatenate([found[:, :2] + inset, found[:, 2:] - inset], 1) / factors
                parts.append(Found(torch.from_numpy(boxes).float(), torch.from_numpy(votes), torch.full((len(votes),), k)))
        return Found(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def decode(
        self,
        raw: Sequence[Found],
        geometries: Sequence[Geometry],
        *,
        score: float = 0.3,
        iou: float = 0.5,
        max_detections: int = 100,
    ) -> list[Prediction]:
        """Votes to scores, NMS a class."""
        out: list[Prediction] = []
        for found, geometry in zip(raw, geometries, strict=True):
            scores = found.votes / (found.votes + self.neighbors)
            boxes = geometry.boxes_to_original(found.boxes)
            keep = torch.nonzero(scores >= score)[:, 0]
            keep = keep[batched_nms(boxes[keep], scores[keep], found.labels[keep], iou)][:max_detections]
            out.append(
                Detection(boxes=boxes[keep].cpu().numpy(), labels=found.labels[keep].cpu().numpy(), scores=scores[keep].cpu().numpy())
            )
        return out

    # -- learning -------------------------------------------------------------------------------

    def fit(self, dataset: Dataset, *, validation: Dataset | None = None, seed: int = 0, log: Log | None = None) -> None:
        """A cascade of each class that has boxes; nothing where a file was named.

        Raises:
            DataError: the data have no boxes at all.
            UsageError: no image holds a window.
        """
        log = log or (lambda name, values: None)
        if len(self.xml):
            log("cascade", {"bytes": float(len(self.xml))})
            return
        present = self._choose_frames(dataset)
        rng = np.random.default_rng(seed)
        searched = set(rng.permutation(len(dataset))[: self.pictures].tolist())
        objects: dict[int, list[np.ndarray]] = {k: [] for k in present}
        views: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        skipped = 0
        for i in range(len(dataset)):
            try:
                image, target, _ = self.preprocess(dataset[i])
            except DataError:
                skipped += 1
                continue
            pixels, boxes, labels = _grey(image), target["boxes"].as_subclass(Tensor).double().numpy(), target["labels"].numpy()
            boxes, labels, crowd = (values[_whole(boxes)] for values in (boxes, labels, target["iscrowd"].numpy()))
            for k in present:
                mine = boxes[(labels == k) & ~crowd]
                if len(mine):
                    squeezed, factors = self.squeeze(pixels, k)
                    objects[k] += [
                        self.cut(squeezed, square, rng, copy) for square in self.squares(mine * factors) for copy in range(self.copies)
                    ]
            if i in searched:
                views.append((pixels, boxes, labels))
        found: dict[int, Cascade] = {}
        for k in present:
            if objects[k]:
                backgrounds, avoid = [], []
                for pixels, boxes, labels in views:
                    squeezed, factors = self.squeeze(pixels, k)
                    backgrounds.append(squeezed)
                    avoid.append(self.squares(boxes[labels == k] * factors))
                found[k] = train_cascade(objects[k], backgrounds, avoid=avoid, seed=seed, **self.learning)
                sizes = {"objects": len(objects[k]), "stages": len(found[k].ends), "stumps": len(found[k].features), "skipped": skipped}
                log(f"class {k}", {name: float(value) for name, value in sizes.items()})
        self.keep(found)

    def keep(self, cascades: dict[int, Cascade]) -> None:
        """Take the cascades of these classes into the buffers; other classes have none."""
        device = self.counts.device
        order = sorted(cascades)
        for name, dtype in ARRAYS.items():
            empty = getattr(self, name)[:0].cpu().numpy()
            values = np.concatenate([empty, *(getattr(cascades[k], name) for k in order)])
            setattr(self, name, torch.from_numpy(values).to(device, dtype))
        self.counts.zero_()
        for k in order:
            self.counts[k] = torch.tensor([len(cascades[k].features), len(cascades[k].ends)])

    def _choose_frames(self, dataset: Dataset) -> list[int]:
        """Set ``frames`` from the boxes; the labels that have any."""
        truths = [(r.boxes, r.labels) for r in dataset.map_records(lambda r: r) if r.boxes is not None and len(r.boxes)]
        if not truths:
            raise DataError(dataset.index.root, "has no boxes to learn from")
        boxes = np.concatenate([t[0] for t in truths]).astype(np.float64)
        labels = np.concatenate([t[1] for t in truths])[_whole(boxes)]
        sides = (boxes[:, 2:] - boxes[:, :2])[_whole(boxes)]
        present = [k for k in range(self.num_classes) if (labels == k).any()]
        for k in present:
            width, height = sides[labels == k].T
            aspect = float(np.clip(np.median(width / height), 0.25, 4))
            length = np.sqrt(width * height / max(aspect, 1 / aspect)) * (1 + 2 * self.margin)
            smallest = math.floor(np.quantile(length, 0.01) / self.search["scale"])
            self.frames[k] = torch.tensor([float(self.learning["window"]), aspect, self.margin, float(smallest)])
        return present

    def squeeze(self, pixels: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        """A grey image (H, W) with its longer direction, by a class's aspect ratio, shrunk so that the objects are squares.

        Returns:
            The image, and (4,) factors by which boxes change.
        """
        height, width = pixels.shape
        aspect = float(self.frames[label, 1])
        size = max(1, round(height * min(aspect, 1))), max(1, round(width / max(aspect, 1)))
        return resized(pixels, size), np.array([size[1] / width, size[0] / height] * 2)

    def squares(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) squares about boxes (N, 4) of a squeezed image, of their area, with the margin around."""
        centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        half = np.sqrt(sides.prod(1, keepdims=True)) * (0.5 + self.margin)
        return np.concatenate([centre - half, centre + half], 1)

    def cut(self, pixels: np.ndarray, square: np.ndarray, rng: np.random.Generator, copy: int) -> np.ndarray:
        """(n, n) uint8 pixels of a square (4,); copies after the first are moved and sized anew. Beyond the image lies its last pixel."""
        side = square[2] - square[0]
        middle = (square[:2] + square[2:]) / 2
        if copy:
            middle = middle + rng.uniform(-MOVE, MOVE, 2) * side
            side *= 1 + rng.uniform(-MOVE, MOVE)
        count = max(round(side), 2)
        left, top = np.rint(middle - side / 2).astype(int)
        rows, columns = (
            np.clip(np.arange(first, first + count), 0, most - 1) for first, most in zip((top, left), pixels.shape, strict=True)
        )
        return np.ascontiguousarray(pixels[rows[:, None], columns])

    def take_file(self, name: str) -> None:
        """A cascade by name or path: OpenCV's XML, or the ``.npz`` of :meth:`saccade.features.haar.Cascade.save`, as the only class.

        Raises:
            UsageError: there is none of this name, or the model has several classes.
            DataError: the file is missing or broken.
        """
        path = cascade_file(name)
        if self.num_classes != 1:
            raise UsageError(f"model.cascade={name} finds one kind of object: num_classes is 1, not {self.num_classes}")
        if path.suffix.lower() == ".npz":
            found = Cascade.load(path)
            self.keep({0: found})
            self.frames[0] = torch.tensor([float(found.window), 1.0, 0.0, 0.0])
        else:
            read_opencv(path)
            self.xml = torch.from_numpy(np.frombuffer(path.read_bytes(), np.uint8).copy())
        self.classes = [Path(name).stem]


def _whole(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: boxes of more than a pixel in both directions."""
    whole: np.ndarray = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(1)
    return whole


def _grey(image: Tensor) -> np.ndarray:
    """(H, W) uint8 of a (C, H, W) tensor in 0..1."""
    return grey(as_pixels(image.mul(255).round().to(torch.uint8).cpu()))


@lru_cache(maxsize=8)
def _classifier(content: bytes) -> cv2.CascadeClassifier:
    """OpenCV's classifier of a file's bytes; it reads all its formats from files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cascade.xml"
        path.write_bytes(content)
        return read_opencv(path)


def haar_cascade(
    num_classes: int = 1,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    cascade: str = "",
    window: int = 24,
    stages: int = 12,
    hit_rate: float = 0.995,
    false_rate: float = 0.5,
    stumps: int = 60,
    features: int = 2000,
    others: int = 1500,
    mirror: bool = True,
    margin: float = 0.1,
    copies: int = 3,
    pictures: int = 500,
    scale: float = 1.1,
    neighbors: int = 3,
    step: int = 2,
) -> HaarCascade:
    """Haar cascade detector.

    Args:
        num_classes: without background; 1 with ``cascade``.
        in_chans: 3 or 1; the cascade sees grey.
        pretrained: OpenCV's frontal face, as ``cascade="face"``.
        cascade: a file of OpenCV by name ("frontalface", "eye", "fullbody", "smile", ...; see :func:`saccade.features.haar.published`), or
            the path of an ``.xml`` or ``.npz``: nothing is learned then. "" for a cascade trained on the data.
        window: side of the window in pixels: smaller objects are not found.
        stages, hit_rate, false_rate, stumps, features, others, mirror: of the training, see
            :func:`saccade.features.haar_train.train_cascade`.
        margin: pixels around an object that belong to its window, as a share of its side.
        copies: windows cut of each object; the second and later ones are moved by up to 5 % and sized anew.
        pictures: images at most that are searched for false alarms; all of them give objects.
        scale, neighbors, step: of the search, see :func:`saccade.features.haar.find_objects`.

    Raises:
        UsageError: an option that cannot be.
        DataError: a file that is missing or broken.
    """
    model = HaarCascade(
        num_classes, in_chans=in_chans, mirror=mirror, window=window, stages=stages, hit_rate=hit_rate, false_rate=false_rate,
        stumps=stumps, features=features, others=others, margin=margin, copies=copies, pictures=pictures, scale=scale,
        neighbors=neighbors, step=step,
    )  # fmt: skip
    if cascade or pretrained:
        model.take_file(cascade or "face")
        model.build_options = {"cascade": ""}  # the bundle holds the file's content
    return model
