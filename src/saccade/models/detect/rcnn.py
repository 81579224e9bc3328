"""R-CNN: region proposals, a network's features of each warped region, a linear SVM a class, a regressed box.

Paper: Girshick, Donahue, Darrell, Malik: Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation
(CVPR 2014), arXiv 1311.2524. New was to put a convolutional network, pre-trained on a large classification set and then
fine-tuned, where hand-made features had been: 53.3% mAP on VOC 2012 against 40%.

Where it is: warping with context (appendix A, figure 7d: p = 16 pixels of a 227 pixel input) in :func:`context_boxes` and
:func:`warp_regions`; fine-tuning as (K + 1)-way classification of regions, IoU >= 0.5 positive, 32 positives in 128
(section 2.3) in :class:`RegionNetwork` and :class:`RegionDataset`; one linear machine a class, true boxes against
proposals of IoU < 0.3, hard negative mining (sections 2.3, appendix B) in :meth:`RCNN.fit_machines`; ridge regression of the box
with lambda = 1000 from pool5 of proposals of IoU >= 0.6 (appendix C) in :meth:`RCNN.fit_regression`.

Deviations. The paper's network is AlexNet; here any convolutional backbone of timm, by default one that learns from scratch
on a CPU (``pretrained_backbone=True`` and more ``size`` give the paper's regime). A training item is one image's group of
16 regions, 4 of them positive, so that any batch holds the paper's quarter; true boxes are among the positives. Features
are scaled to a mean length of 20, as the authors' release does, so that C and lambda mean the same for all backbones; C is
0.01 (there 0.001; hinge, positives twice). pool5 is averaged down to at most AlexNet's 9216 values. A last stage fits
Platt's sigmoid, which makes a 0..1 score of the margin. Proposals come from the image at ``max_side``; the paper's 500
pixels wide is an option.

Facts under test (CANON D10): the padding's geometry; thresholds 0.5, 0.3 and 0.6; a quarter of positives; ridge equals
scikit-learn's; NMS a class.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from saccade.boxes.coders import BoxCoder
from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess, for_channels
from saccade.layers.backbones import check_backbone
from saccade.models.base import Images, Stage, StageContext, StagedModel
from saccade.models.bounds import check_within
from saccade.models.detect.linear_svm import best_overlap, fit_linear_svm, fit_platt, match_truth
from saccade.models.detect.selective_search import Mode, ProposalCache, SearchSettings
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

# A batch is 8 groups of 16 regions = 128, as in section 2.3. The paper fine-tunes by SGD at 0.001 and the new layer at ten times that
# (`optimizer=sgd lr=0.01`: a pre-trained backbone takes backbone_lr of it); from scratch AdamW gets further in as many steps.
RECIPES = {"rcnn": Recipe(epochs=3, batch_size=8, optimizer="adamw", lr=3e-3, backbone_lr=0.1, weight_decay=0.05, clip=10.0)}
CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
GROUP, POSITIVES = 16, 4
FEATURE_LENGTH = 20.0
POOL5 = 9216
CALIBRATION = 100  # images
MAX_SAMPLES = 20000  # negatives, and regression pairs, a class
REGION_BATCH = 256


class Regions(NamedTuple):
    """Scored proposals of one image: ``boxes`` (N, 4) XYXY pixels, ``scores`` (N, K) margins, ``deltas`` (N, K, 4)."""

    boxes: Tensor
    scores: Tensor
    deltas: Tensor


class Truth(NamedTuple):
    """One training image: pixels (H, W[, 3]) uint8, true boxes (M, 4) and labels (M,), crowd boxes (C, 4)."""

    index: int
    pixels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


def context_boxes(boxes: np.ndarray, size: int, padding: float) -> np.ndarray:
    """The boxes (N, 4) grown so that, warped to ``size``, exactly ``padding`` pixels of context surround the original box.

    A side of w becomes ``w * size / (size - 2 padding)`` about the same centre.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    grow = (boxes[:, 2:] - boxes[:, :2]) * (padding / (size - 2 * padding))
    return np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], 1)


def warp_regions(image: np.ndarray, boxes: np.ndarray, size: int, padding: float, fill: Sequence[int]) -> np.ndarray:
    """Regions warped to squares, whatever their aspect ratio; what lies outside the image is ``fill`` (the mean).

    Args:
        image: (H, W[, 3]) uint8.
        boxes: (N, 4) tight boxes.

    Returns:
        (N, C, size, size) uint8.
    """
    import cv2

    image = image[..., None] if image.ndim == 2 else image
    height, width, channels = image.shape
    out = np.empty((len(boxes), size, size, channels), np.uint8)
    out[:] = np.asarray(fill, np.uint8)
    for target, (x1, y1, x2, y2) in zip(out, context_boxes(boxes, size, padding), strict=True):
        left, right, to_left, to_right = _inside(x1, x2, width, size)
        top, bottom, to_top, to_bottom = _inside(y1, y2, height, size)
        if right > left and bottom > top:
            wide, high = to_right - to_left, to_bottom - to_top
            how = cv2.INTER_AREA if wide <= right - left and high <= bottom - top else cv2.INTER_LINEAR
            warped = cv2.resize(image[top:bottom, left:right], (wide, high), interpolation=how)
            target[to_top:to_bottom, to_left:to_right] = warped.reshape(high, wide, channels)
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


def _inside(low: float, high: float, limit: int, size: int) -> tuple[int, int, int, int]:
    """Of an interval: the whole pixels inside 0..limit, and where they go in an output of ``size``."""
    first = min(max(round(low), 0), limit)
    last = min(max(round(high), first + 1), limit)
    factor = size / max(high - low, 1e-6)
    start = min(max(round((first - low) * factor), 0), size - 1)
    stop = min(max(round((last - low) * factor), start + 1), size)
    return first, last, start, stop


class RegionNetwork(nn.Module):
    """A backbone on warped regions and the fine-tuning layer of K + 1 classes, the background last."""

    def __init__(self, num_classes: int, *, in_chans: int, backbone: str, pretrained: bool, size: int) -> None:
        super().__init__()
        import timm

        check_backbone(backbone)
        try:
            self.backbone = timm.create_model(backbone, pretrained=pretrained, num_classes=0, in_chans=in_chans)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UsageError(f"model.backbone={backbone!r}: {error}") from None
        self.num_classes = num_classes
        mean, std = for_channels(in_chans)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1) * 255, persistent=False)
        was = self.backbone.training
        with torch.no_grad():
            maps = self.backbone.eval().forward_features(torch.zeros(1, in_chans, size, size))
            if maps.ndim != 4 or maps.shape[1] != self.backbone.num_features:
                raise UsageError(f"model.backbone={backbone!r} gives no (channels, rows, columns) map: take a convolutional one")
            self.dim = self.backbone.forward_head(maps, pre_logits=True).shape[1]
        self.backbone.train(was)
        self.grid = max(1, min(*maps.shape[2:], math.isqrt(POOL5 // maps.shape[1])))
        self.pool5_dim = maps.shape[1] * self.grid**2
        self.head = nn.Linear(self.dim, num_classes + 1)

    @property
    def fill(self) -> list[int]:
        """The mean colour, for what lies outside an image."""
        return [round(value) for value in self.mean.flatten().tolist()]

    def features(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) penultimate features and (N, P) flattened last maps of (N, C, S, S) uint8 regions."""
        maps = self.backbone.forward_features((regions.to(self.mean.dtype) - self.mean) / self.std)
        pool5 = F.adaptive_avg_pool2d(maps, self.grid) if maps.shape[-1] != self.grid else maps
        return self.backbone.forward_head(maps, pre_logits=True), pool5.flatten(1)

    def forward(self, regions: Tensor) -> Tensor:
        """(N, K + 1) logits of (N, C, S, S) uint8 regions."""
        return self.head(self.features(regions)[0])

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy over all regions of a batch of groups (R, C, S, S) with ``labels`` (R,); label K is background."""
        labels = torch.cat([target["labels"] for target in targets])
        logits = self(torch.cat(list(images)))
        return {"class": F.cross_entropy(logits, labels.to(logits.device))}


class RegionDataset(torch.utils.data.Dataset):
    """Fine-tuning data: item i is a group of 16 warped regions of one image, 4 of them positive.

    Positives are the true boxes and the proposals of IoU >= 0.5 with one; all others are background (label K). An image with
    fewer than 4 positives repeats them; one without any is left out. Regions and mirrors are drawn with torch's generator,
    which the engine seeds by (epoch, item).

    Args:
        truths: indices of images and their boxes, see :meth:`RCNN.truths`.
        groups: most groups an image and epoch.
    """

    def __init__(self, model: RCNN, dataset: Dataset, *, groups: int = 8, seed: int = 0) -> None:
        self.model, self.dataset, self.seed = model, dataset, seed
        self.regions: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.items: list[int] = []  # index of the image
        for truth in model.truths(dataset):
            proposals = model.proposals(truth.pixels)
            boxes = np.concatenate([truth.boxes, proposals]).astype(np.float32)
            overlap, nearest = best_overlap(boxes, truth.boxes)
            labels = np.full(len(boxes), model.num_classes, dtype=np.int64)
            labels[overlap >= 0.5] = truth.labels[nearest[overlap >= 0.5]]
            apart = (labels < model.num_classes) | (best_overlap(boxes, truth.crowd)[0] < 0.3)
            boxes, labels = boxes[apart], labels[apart]
            positives = int((labels < model.num_classes).sum())
            if positives and positives < len(labels):
                self.regions[truth.index] = boxes, labels
                self.items += [truth.index] * min(groups, math.ceil(positives / POSITIVES))
        if not self.items:
            raise DataError(dataset.index.root, "has no region to learn from: no proposal meets a box")

    def __len__(self) -> int:
        return len(self.items)

    def choose(self, item: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(16, 4) boxes and (16,) labels for an item, the 4 positives first."""
        boxes, labels = self.regions[self.items[item]]
        positives = np.flatnonzero(labels < self.model.num_classes)
        background = np.flatnonzero(labels == self.model.num_classes)
        chosen = np.concatenate([draw(positives, POSITIVES, rng), draw(background, GROUP - POSITIVES, rng)])
        return boxes[chosen], labels[chosen]

    def __getitem__(self, item: int) -> tuple[Tensor, Target, Geometry]:
        rng = np.random.default_rng((self.seed, int(torch.randint(2**62, ()))))
        boxes, labels = self.choose(item, rng)
        index = self.items[item]
        regions = self.model.warp(self.model.pixels(self.dataset, index), boxes)
        mirrored = torch.from_numpy(rng.random(GROUP) < 0.5)
        regions[mirrored] = regions[mirrored].flip(-1)
        size = self.model.size
        return regions, {"labels": torch.from_numpy(labels), "image_id": str(index)}, Geometry((size, size), (size, size))


def draw(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of the values at random; repeated only where there are fewer."""
    return rng.choice(values, count, replace=len(values) < count)


class RCNN(StagedModel):
    """Proposals, region network, machines, box regression.

    Buffers: ``svm_weight`` (K, D), ``svm_bias`` (K,), ``platt`` (K, 2), ``regression`` (K, 4, P + 1) with the constant last,
    ``feature_scale`` (2,) factors that bring penultimate and pool5 features to a mean length of 20.
    """

    task = "detect"

    def __init__(
        self,
        num_classes: int,
        *,
        in_chans: int = 3,
        backbone: str = "regnetx_002",
        pretrained_backbone: bool = False,
        size: int = 64,
        context: float = 16.0,
        search: Mode = "fast",
        max_side: int = 320,
        base_k: int = 50,
        max_proposals: int = 2000,
        groups: int = 8,
        c: float = 0.01,
        ridge: float = 1000.0,
        hard: int = 100,
    ) -> None:
        super().__init__(num_classes)
        check_within(32, 1024, size=size)
        if 2 * context >= 227:
            raise UsageError(f"model.context counts pixels of 227 on each side; {context} leaves no place for the region")
        self.preprocess = Preprocess(mode="keep", channels=in_chans, mean=(0.0,) * in_chans, std=(1.0,) * in_chans)
        self.size, self.padding = size, context * size / 227
        self.pretrained_backbone = pretrained_backbone
        self.groups, self.c, self.ridge, self.hard = groups, c, ridge, hard
        settings = SearchSettings(mode=search, max_side=max_side, base_k=base_k, increment_k=base_k, max_proposals=max_proposals)
        self.proposals = ProposalCache(None, settings)
        self.network = RegionNetwork(num_classes, in_chans=in_chans, backbone=backbone, pretrained=pretrained_backbone, size=size)
        self.svm_weight: Tensor
        self.svm_bias: Tensor
        self.platt: Tensor
        self.regression: Tensor
        self.feature_scale: Tensor
        self.register_buffer("svm_weight", torch.zeros(num_classes, self.network.dim))
        self.register_buffer("svm_bias", torch.zeros(num_classes))
        self.register_buffer("platt", torch.tensor([[1.0, 0.0]]).repeat(num_classes, 1))
        self.register_buffer("regression", torch.zeros(num_classes, 4, self.network.pool5_dim + 1))
        self.register_buffer("feature_scale", torch.ones(2))

    # -- prediction -----------------------------------------------------------------------------

    def warp(self, image: np.ndarray, boxes: np.ndarray) -> Tensor:
        """(N, C, S, S) uint8 regions of an image."""
        return torch.from_numpy(warp_regions(image, boxes, self.size, self.padding, self.network.fill))

    @torch.no_grad()
    def describe(self, image: np.ndarray, boxes: np.ndarray) -> tuple[Tensor, Tensor]:
        """(N, D) penultimate and (N, P) pool5 features of regions, unscaled, in eval mode."""
        was = self.network.training
        self.network.eval()
        parts = [
            self.network.features(self.warp(image, part).to(self.device))
            for part in np.split(boxes, range(REGION_BATCH, len(boxes), REGION_BATCH))
        ]
        self.network.train(was)
        return torch.cat([p[0] for p in parts]).float(), torch.cat([p[1] for p in parts]).float()

    def regions(self, image: np.ndarray) -> Regions:
        """Proposals of one image with their margins and box deltas."""
        boxes = self.proposals(image)
        features, pool5 = self.describe(image, boxes)
        scores = features * self.feature_scale[0] @ self.svm_weight.T + self.svm_bias
        deltas = torch.einsum("np,kcp->nkc", pool5 * self.feature_scale[1], self.regression[..., :-1]) + self.regression[..., -1]
        return Regions(torch.from_numpy(boxes).to(scores.device), scores, deltas)

    def raw(self, images: Images) -> list[Regions]:
        """Scored proposals an image; ``images`` (C, H, W) in 0..1."""
        return [self.regions(_array(image)) for image in images]

    def decode(
        self,
        raw: Sequence[Regions],
        geometries: Sequence[Geometry],
        *,
        score: float = 0.3,
        iou: float = 0.5,
        max_detections: int = 100,
    ) -> list[Prediction]:
        """Platt's score, NMS a class on the proposals, then the regressed boxes of those that stay."""
        out: list[Prediction] = []
        for regions, geometry in zip(raw, geometries, strict=True):
            scores = torch.sigmoid(regions.scores * self.platt[:, 0] + self.platt[:, 1])
            row, label = torch.nonzero(scores >= score, as_tuple=True)
            kept = batched_nms(regions.boxes[row], scores[row, label], label, iou)[:max_detections]
            row, label = row[kept], label[kept]
            boxes = geometry.boxes_to_original(CODER.decode(regions.deltas[row, label], regions.boxes[row]))
            out.append(Detection(boxes=boxes.cpu().numpy(), labels=label.cpu().numpy(), scores=scores[row, label].cpu().numpy()))
        return out

    # -- the stages -----------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """Proposals, fine-tuning, machines, box regression, calibration."""
        return [
            Stage("proposals", "cache", self._find_proposals),
            Stage("fine-tune", "train", self._fine_tune),
            Stage("svm", "fit", self._fit_machines),
            Stage("box regression", "fit", self._fit_regression),
            Stage("calibration", "fit", self._calibrate),
        ]

    def pixels(self, dataset: Dataset, index: int) -> np.ndarray:
        """(H, W[, 3]) uint8 of an image as the network sees it."""
        image = dataset.image(dataset.record(index))
        return _array(self.preprocess.image(image, self.preprocess.geometry((image.shape[-2], image.shape[-1]))))

    def truths(self, dataset: Dataset) -> Iterator[Truth]:
        """Images and their boxes; images that cannot be read and boxes without area are left out."""
        for i in range(len(dataset)):
            try:
                pixels = self.pixels(dataset, i)
            except DataError:
                continue
            target = dataset.target(dataset.record(i), pixels.shape[:2])
            boxes = np.asarray(target.get("boxes", np.zeros((0, 4))), dtype=np.float32).reshape(-1, 4)
            labels = np.asarray(target.get("labels", np.zeros(0)), dtype=np.int64)
            crowd = np.asarray(target.get("iscrowd", np.zeros(len(boxes))), dtype=bool)
            valid = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(1) & (labels < self.num_classes)
            yield Truth(i, pixels, boxes[valid & ~crowd], labels[valid & ~crowd], boxes[crowd])

    def _use_cache(self, context: StageContext) -> None:
        """A resumed run starts at any stage: each one looks for the proposals where the first one left them."""
        self.proposals = ProposalCache(Path(context.cache) / "proposals", self.proposals.settings)

    def _find_proposals(self, context: StageContext) -> None:
        self._use_cache(context)
        for name, dataset in (("train", context.train), ("validation", context.validation)):
            if dataset is not None:
                tenth = max(1, len(dataset) // 10)

                def progress(done: int, total: int, name: str = name, tenth: int = tenth) -> None:
                    if done % tenth == 0 or done == total:
                        context.log("proposals", {name: done / total})

                problems = self.proposals.fill(dataset.with_channels(self.preprocess.channels), progress=progress)
                context.log("proposals", {f"{name}/skipped": float(len(problems))})

    def _fine_tune(self, context: StageContext) -> None:
        self._use_cache(context)
        recipe = context.recipe
        if not self.pretrained_backbone:  # nothing to preserve: the whole network learns at the new layer's rate
            recipe = recipe.replace(backbone_lr=1.0)
        dataset = RegionDataset(self, context.train, groups=self.groups, seed=context.seed)
        context.log("fine-tune", {"groups": float(len(dataset))})
        context.train_network(self.network, dataset, recipe)

    def _fit_machines(self, context: StageContext) -> None:
        self._use_cache(context)
        positives: list[list[np.ndarray]] = [[] for _ in range(self.num_classes)]
        spans: list[tuple[int, np.ndarray]] = []  # per image: first row, (N, K) bool that tells negatives
        context.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=context.cache) as store:
            rows = 0
            for truth in self.truths(context.train):
                proposals = self.proposals(truth.pixels)
                features = self.describe(truth.pixels, np.concatenate([truth.boxes, proposals]))[0].cpu().numpy()
                for feature, label in zip(features, truth.labels, strict=False):
                    positives[label].append(feature)
                store.write(features[len(truth.boxes) :].astype(np.float32).tobytes())
                spans.append((rows, negatives_of(proposals, truth, self.num_classes)))
                rows += len(proposals)
            store.flush()
            features = np.memmap(store, np.float32, "r", shape=(rows, self.network.dim)) if rows else np.zeros((0, self.network.dim))
            self.fit_machines(positives, features, spans, seed=context.seed, log=lambda values: context.log("svm", values))
            del features

    def fit_machines(
        self,
        positives: Sequence[Sequence[np.ndarray]],
        features: np.ndarray,
        spans: Sequence[tuple[int, np.ndarray]],
        *,
        seed: int = 0,
        log: Callable[[dict[str, float]], None] = lambda values: None,
        rounds: int = 4,
    ) -> list[np.ndarray]:
        """One linear machine a class, with hard negative mining until no negative is left above the margin.

        Args:
            positives: per class, (D,) features of true boxes.
            features: (rows, D) features of all proposals; may lie on disk, is read an image at a time.
            spans: per image, its first row and (N, K) bool: which of its proposals are negatives of which class.

        Returns:
            Per class, the rows that the last machine was trained on.
        """
        lengths = [np.linalg.norm(features[first : first + len(mask)], axis=1) for first, mask in spans]
        mean = float(np.concatenate(lengths or [np.ones(1)]).mean())
        scale = FEATURE_LENGTH / max(mean, 1e-12)
        self.feature_scale[0] = scale
        self.svm_weight.zero_()
        self.svm_bias.fill_(-math.inf)  # a class without an example is never found
        rng = np.random.default_rng(seed)
        pools: list[np.ndarray] = []
        for k in range(self.num_classes):
            rows = np.concatenate([first + np.flatnonzero(mask[:, k]) for first, mask in spans] or [np.zeros(0, np.int64)])
            pools.append(np.sort(rng.permutation(rows)[: 10 * self.hard]))
        able = [k for k in range(self.num_classes) if len(positives[k]) and len(pools[k])]
        for round_ in range(rounds):
            for k in able:
                weight, bias = fit_linear_svm(
                    np.stack(positives[k]) * scale, features[pools[k]] * scale, c=self.c, positive_weight=2.0, bias_scale=10.0, seed=seed
                )
                self.svm_weight[k] = torch.from_numpy(weight)
                self.svm_bias[k] = bias
            log({f"round {round_}/negatives/{k}": float(len(pools[k])) for k in able})
            mined = self._mine(features, spans, scale, able)
            grown = {k: np.union1d(pools[k], mined[k])[:MAX_SAMPLES] for k in able}
            if round_ == rounds - 1 or all(len(grown[k]) == len(pools[k]) for k in able):
                break
            for k in able:
                pools[k] = grown[k]
        return pools

    def _mine(
        self, features: np.ndarray, spans: Sequence[tuple[int, np.ndarray]], scale: float, able: Sequence[int]
    ) -> dict[int, np.ndarray]:
        """Rows of negatives that a machine scores above -1, at most ``hard`` an image and class, the worst."""
        weight, bias = self.svm_weight.cpu().numpy() * scale, self.svm_bias.cpu().numpy()
        found: dict[int, list[np.ndarray]] = {k: [np.zeros(0, np.int64)] for k in able}
        for first, mask in spans:
            scores = features[first : first + len(mask)] @ weight.T + bias
            for k in able:
                rows = np.flatnonzero(mask[:, k] & (scores[:, k] > -1))
                found[k].append(first + rows[np.argsort(-scores[rows, k], kind="stable")[: self.hard]])
        return {k: np.concatenate(rows) for k, rows in found.items()}

    def _fit_regression(self, context: StageContext) -> None:
        self._use_cache(context)
        inputs: list[list[np.ndarray]] = [[] for _ in range(self.num_classes)]
        targets: list[list[np.ndarray]] = [[] for _ in range(self.num_classes)]
        for truth in self.truths(context.train):
            boxes, labels, deltas = regression_pairs(self.proposals(truth.pixels), truth)
            pool5 = self.describe(truth.pixels, boxes)[1].cpu().numpy()
            for k in np.unique(labels):
                inputs[k].append(pool5[labels == k])
                targets[k].append(deltas[labels == k])
        rng = np.random.default_rng(context.seed)
        pairs = {}
        for k in range(self.num_classes):
            if inputs[k]:
                x, y = np.concatenate(inputs[k]), np.concatenate(targets[k])
                chosen = np.sort(rng.permutation(len(x))[:MAX_SAMPLES])
                pairs[k] = x[chosen], y[chosen]
        self.fit_regression(pairs)
        context.log("box regression", {f"pairs/{k}": float(len(x)) for k, (x, _) in pairs.items()})

    def fit_regression(self, pairs: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Ridge regression a class: ``min sum |t - (W x + b)|^2 + ridge |W|^2``, in closed form.

        Args:
            pairs: label -> (N, P) pool5 features and (N, 4) targets tx, ty, tw, th.
        """
        from sklearn.linear_model import Ridge

        self.regression.zero_()
        if not pairs:
            return
        mean = float(np.concatenate([np.linalg.norm(x, axis=1) for x, _ in pairs.values()]).mean())
        scale = FEATURE_LENGTH / max(mean, 1e-12)
        self.feature_scale[1] = scale
        for k, (x, y) in pairs.items():
            model = Ridge(alpha=self.ridge, solver="cholesky").fit(x.astype(np.float64) * scale, y.astype(np.float64))
            self.regression[k, :, :-1] = torch.from_numpy(model.coef_)
            self.regression[k, :, -1] = torch.from_numpy(model.intercept_)

    def _calibrate(self, context: StageContext) -> None:
        """Platt's map a class, from the answers after NMS on validation images (training images where there are none)."""
        self._use_cache(context)
        dataset = context.validation or context.train
        if len(dataset) > CALIBRATION:
            dataset = dataset.subset(np.linspace(0, len(dataset) - 1, CALIBRATION).astype(np.int64))
        decisions: list[list[np.ndarray]] = [[np.zeros(0)] for _ in range(self.num_classes)]
        hits: list[list[np.ndarray]] = [[np.zeros(0, bool)] for _ in range(self.num_classes)]
        for truth in self.truths(dataset):
            regions = self.regions(truth.pixels)
            boxes = CODER.decode(regions.deltas, regions.boxes[:, None])
            for k in range(self.num_classes):
                scores = regions.scores[:, k]
                kept = batched_nms(regions.boxes, scores, torch.zeros_like(scores, dtype=torch.int64), 0.5)
                kept = kept[scores[kept] > -2]
                found = scores[kept].cpu().numpy()
                decisions[k].append(found)
                hits[k].append(match_truth(boxes[kept, k].cpu().numpy(), found, truth.boxes[truth.labels == k]))
        for k in range(self.num_classes):
            self.platt[k] = torch.tensor(fit_platt(np.concatenate(decisions[k]), np.concatenate(hits[k])))
        context.log("calibration", {f"hits/{k}": float(np.concatenate(hits[k]).sum()) for k in range(self.num_classes)})


def negatives_of(proposals: np.ndarray, truth: Truth, num_classes: int) -> np.ndarray:
    """(N, K) bool: proposals of IoU < 0.3 with every true box of the class, and with every crowd."""
    apart = best_overlap(proposals, truth.crowd)[0] < 0.3
    columns = [best_overlap(proposals, truth.boxes[truth.labels == k])[0] < 0.3 for k in range(num_classes)]
    return np.stack(columns, 1) & apart[:, None]


def regression_pairs(proposals: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposals (n, 4) of IoU >= 0.6 with a true box, that box's label (n,), and the targets (n, 4) that lead to it."""
    overlap, nearest = best_overlap(proposals, truth.boxes)
    near = overlap >= 0.6
    boxes = np.asarray(proposals, np.float32)[near]
    goal = truth.boxes.reshape(-1, 4)[nearest[near]] if len(truth.boxes) else np.zeros((0, 4), np.float32)
    labels = truth.labels[nearest[near]] if len(truth.labels) else np.zeros(0, np.int64)
    return boxes, labels, CODER.encode(torch.from_numpy(goal), torch.from_numpy(boxes)).numpy()


def _array(image: Tensor) -> np.ndarray:
    """(H, W[, 3]) uint8 of a (C, H, W) tensor in 0..1."""
    array = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array)


def rcnn(
    num_classes: int = 20,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    backbone: str = "regnetx_002",
    pretrained_backbone: bool = False,
    size: int = 64,
    context: float = 16.0,
    search: Mode = "fast",
    max_side: int = 320,
    base_k: int = 50,
    max_proposals: int = 2000,
    groups: int = 8,
    c: float = 0.01,
    ridge: float = 1000.0,
    hard: int = 100,
) -> RCNN:
    """R-CNN.

    Args:
        num_classes: without background.
        in_chans: 3 or 1.
        pretrained: there are no published weights of the whole system; see ``pretrained_backbone``.
        backbone: any convolutional network of timm (the paper: AlexNet).
        pretrained_backbone: start from timm's weights; fine-tuning then moves the backbone at a tenth of the rate.
        size: side of a warped region (the paper: 227).
        context: pixels of context around a region warped to 227; in proportion at another ``size``.
        search: selective search, "fast" or "quality".
        max_side: longer side of the image that is searched; 0: as it is.
        base_k: scale of the segmentation that search starts from (150 suits 500 pixels).
        max_proposals: regions an image.
        groups: fine-tuning items (16 regions each) an image and epoch, at most.
        c: weight of the machines' errors; ridge: lambda of the box regression.
        hard: hard negatives an image, class and round.
    """
    if pretrained:
        raise UsageError("rcnn has no published weights; take model.pretrained_backbone=true")
    return RCNN(
        num_classes, in_chans=in_chans, backbone=backbone, pretrained_backbone=pretrained_backbone, size=size, context=context,
        search=search, max_side=max_side, base_k=base_k, max_proposals=max_proposals, groups=groups, c=c, ridge=ridge, hard=hard,
    )  # fmt: skip
