"""HOG + SVM: a linear support vector machine on gradient histograms, slid over an image pyramid.

Paper: Dalal, Triggs: Histograms of Oriented Gradients for Human Detection (CVPR 2005). New were the descriptor
(:mod:`saccade.features.hog`) and the training that became the standard of sliding-window detectors: positives cut with a
margin of context and mirrored, random negatives, then an exhaustive search of the training images for the false
positives ("hard examples") with which the machine is trained again.

Where it is: the window of 64x128 pixels with 16 pixels of context (section 6) in :func:`object_window`; positives in
:meth:`HOGSVM.positives`; hard examples (section 4) in :meth:`HOGSVM.hard_negatives`; the scan in :meth:`HOGSVM.scan`.

Deviations: one machine a class; the window's shape and the sizes looked for come from each class's boxes unless
``window`` is given; blocks are computed once a pyramid level and all windows of a level are one convolution with the
weights; overlapping answers are joined by non-maximum suppression (the paper's thesis uses mean shift); the squared hinge
loss (solved in the primal) in place of the hinge; Platt's sigmoid makes a 0..1 score of the margin.

``pretrained=True`` is OpenCV's people detector (trained as in the paper on INRIA) as a model of one class.

Facts under test (CANON D5): window 64x128 = 3780 values + bias; scores of all windows equal OpenCV's; pyramid; hard
negatives; NMS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from saccade.data.dataset import Dataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.features.hog import Convention, hog_blocks
from saccade.models.base import FittedModel, Images, Log
from saccade.models.detect.linear_svm import fit_linear_svm, fit_platt, match_truth
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection, Prediction
from saccade.types.recipe import Recipe

RECIPES = {"hog_svm": Recipe(epochs=1, batch_size=1, weight_decay=0.0)}  # nothing of it applies: the machine is fitted


class Windows(NamedTuple):
    """Scored windows of one image: ``boxes`` (N, 4) XYXY pixels with their margin, ``scores`` (N,) margins, ``labels`` (N,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Level(NamedTuple):
    """One level of the pyramid: the image shrunk by ``factor``, its blocks (1, C, rows, columns), and the padding in cells."""

    factor: float
    grid: Tensor
    pad: int


def object_window(boxes: np.ndarray, *, cell: int = 8, margin: int = 8, largest: int = 80) -> tuple[int, int]:
    """(W, H) of a class's window in whole cells: the median aspect ratio of its boxes (N, 4), as large as its small objects.

    The object's place inside the window has the area of the 10th percentile of the boxes', between 3 cells and ``largest``
    squared; ``margin`` pixels surround it.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    aspect = float(np.median(sides[:, 0] / sides[:, 1]))
    size = float(np.clip(np.quantile(np.sqrt(sides.prod(1)), 0.1), 3 * cell, largest))
    place = size * math.sqrt(aspect), size / math.sqrt(aspect)
    width, height = (max(2, round((side + 2 * margin) / cell)) * cell for side in place)
    return width, height


class HOGSVM(FittedModel):
    """One linear machine a class on HOG windows.

    Buffers: ``weight`` (K, D) in the order (block row, block column, value), shorter windows zero at the end; ``bias`` (K,);
    ``platt`` (K, 2); ``windows`` (K, 4): W, H, margin x, margin y in pixels; ``factors`` (K, 2): smallest and largest
    factor by which the image is shrunk in the search.
    """

    task = "detect"
    fitted_buffers = ("weight",)

    def __init__(
        self,
        num_classes: int,
        *,
        in_chans: int = 3,
        window: tuple[int, int] | None = None,
        margin: int = 8,
        convention: Convention = "opencv",
        cell: int = 8,
        block: int = 2,
        bins: int = 9,
        step: float = 1.2,
        c: float = 0.01,
        rounds: int = 2,
        negatives: int = 20,
        hard: int = 40,
        max_negatives: int = 20000,
        candidates: int = 1000,
    ) -> None:
        super().__init__(num_classes)
        if step <= 1:
            raise UsageError(f"model.step is the factor between pyramid levels and exceeds 1, not {step}")
        if window is not None and (min(window) < (block * cell) or window[0] % cell or window[1] % cell):
            raise UsageError(f"model.window has sides in whole cells of {cell} pixels, at least {block * cell}; not {window}")
        if window is not None and 2 * margin >= min(window):
            raise UsageError(f"model.margin={margin} leaves no place for the object in a window of {window}")
        self.preprocess = Preprocess(mode="keep", channels=in_chans, mean=(0.0,) * in_chans, std=(1.0,) * in_chans)
        self.window, self.margin = window, margin
        self.convention: Convention = convention
        self.cell, self.block, self.bins, self.step = cell, block, bins, step
        self.c, self.rounds, self.negatives, self.hard, self.max_negatives = c, rounds, negatives, hard, max_negatives
        self.candidates = candidates
        self.weight: Tensor
        self.bias: Tensor
        self.platt: Tensor
        self.windows: Tensor
        self.factors: Tensor
        self.register_buffer("weight", torch.zeros(num_classes, 0))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("platt", torch.tensor([[1.0, 0.0]]).repeat(num_classes, 1))
        self.register_buffer("windows", torch.zeros(num_classes, 4))
        self.register_buffer("factors", torch.ones(num_classes, 2))

    # -- the scan -------------------------------------------------------------------------------

    def shape(self, label: int) -> tuple[int, int]:
        """(rows, columns) of blocks in a class's window."""
        width, height = self.windows[label, :2].int().tolist()
        return height // self.cell - self.block + 1, width // self.cell - self.block + 1

    def filters(self, label: int) -> Tensor:
        """(1, C, rows, columns) weights of a class as a convolution over the grid of blocks."""
        rows, columns = self.shape(label)
        depth = self.block**2 * self.bins
        return self.weight[label, : rows * columns * depth].view(rows, columns, depth).permute(2, 0, 1)[None].cpu()

    def levels(self, image: np.ndarray) -> Iterator[Level]:
        """The pyramid: factors ``step^j`` that some class asks for, as long as a window fits into the image with its margin.

        Args:
            image: (H, W[, 3]) uint8.
        """
        import cv2

        height, width = image.shape[:2]
        pad = math.ceil(float(self.windows[:, 2:].max()) / self.cell)
        least = float(self.factors[:, 0].min())
        most = min(float(self.factors[:, 1].max()), max(height, width))
        exponent = round(math.log(least) / math.log(self.step))
        while (factor := self.step**exponent) <= most * (1 + 1e-6):
            exponent += 1
            size = max(1, round(width / factor)), max(1, round(height / factor))
            level = image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR_EXACT)
            border = pad * self.cell
            if min(size) + 2 * border < float(self.windows[:, :2].min()):
                return
            # The mirror without the edge pixel, as OpenCV's gradients have it: windows inside the image keep their values.
            level = cv2.copyMakeBorder(level, border, border, border, border, cv2.BORDER_REFLECT_101)
            yield Level(factor, torch.from_numpy(self._blocks(level)).permute(2, 0, 1)[None], pad)

    def _blocks(self, image: np.ndarray) -> np.ndarray:
        return hog_blocks(image, convention=self.convention, cell=self.cell, block=self.block, bins=self.bins)

    def active(self, label: int, level: Level) -> bool:
        """Whether a class is looked for on a level, and its window fits."""
        low, high = self.factors[label].tolist()
        rows, columns = self.shape(label)
        fits = level.grid.shape[2] >= rows and level.grid.shape[3] >= columns
        return fits and low * (1 - 1e-6) <= level.factor <= high * (1 + 1e-6)

    def place(self, label: int, level: Level, row: Tensor, column: Tensor) -> Tensor:
        """(N, 4) windows, in pixels of the image, whose first block is at these places of a level's grid."""
        width, height = self.windows[label, :2].tolist()
        x, y = (column - level.pad) * self.cell, (row - level.pad) * self.cell
        return torch.stack([x, y, x + width, y + height], 1).float() * level.factor

    def objects(self, windows: Tensor, labels: Tensor) -> Tensor:
        """(N, 4) boxes of the objects: the windows without their margin."""
        frame = self.windows.to(windows)[labels]
        inset = frame[:, 2:] / frame[:, :2] * (windows[:, 2:] - windows[:, :2])
        return torch.cat([windows[:, :2] + inset, windows[:, 2:] - inset], 1)

    def scan(self, image: np.ndarray, floor: float = -1.0) -> Windows:
        """All windows of all levels whose margin exceeds ``floor``; at most ``candidates`` a class, the best.

        Args:
            image: (H, W[, 3]) uint8.
        """
        if not self.weight.shape[1]:
            raise UsageError("hog_svm has learned nothing yet: fit it to data first")
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(self.num_classes)]
        for level in self.levels(image):
            for k in range(self.num_classes):
                if self.active(k, level):
                    scores = F.conv2d(level.grid, self.filters(k))[0, 0] + self.bias[k].cpu()
                    row, column = torch.nonzero(scores > floor, as_tuple=True)
                    found[k].append((self.place(k, level, row, column), scores[row, column]))
        parts = []
        for k, items in enumerate(found):
            if items:
                boxes, scores = torch.cat([i[0] for i in items]), torch.cat([i[1] for i in items])
                best = scores.argsort(descending=True, stable=True)[: self.candidates]
                parts.append((boxes[best], scores[best], torch.full((len(best),), k)))
        if not parts:
            return Windows(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        return Windows(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def raw(self, images: Images) -> list[Windows]:
        """Scored windows an image; ``images`` (C, H, W) in 0..1."""
        return [Windows(*(part.to(image.device) for part in self.scan(_array(image)))) for image in images]

    def decode(
        self,
        raw: Sequence[Windows],
        geometries: Sequence[Geometry],
        *,
        score: float = 0.3,
        iou: float = 0.5,
        max_detections: int = 100,
    ) -> list[Prediction]:
        """Margins off, Platt's score, NMS a class."""
        out: list[Prediction] = []
        for windows, geometry in zip(raw, geometries, strict=True):
            a, b = self.platt.to(windows.scores)[windows.labels].unbind(1)
            scores = torch.sigmoid(a * windows.scores + b)
            boxes = geometry.boxes_to_original(self.objects(windows.boxes, windows.labels))
            keep = torch.nonzero(scores >= score)[:, 0]
            keep = keep[batched_nms(boxes[keep], scores[keep], windows.labels[keep], iou)][:max_detections]
            out.append(
                Detection(boxes=boxes[keep].cpu().numpy(), labels=windows.labels[keep].cpu().numpy(), scores=scores[keep].cpu().numpy())
            )
        return out

    # -- learning -------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, dataset: Dataset, *, validation: Dataset | None = None, seed: int = 0, log: Log | None = None) -> None:
        """Windows from the boxes, positives and random negatives, rounds of hard negatives, calibration.

        A class without a box keeps zero weights and is never found. The calibration uses ``validation``, if given.

        Raises:
            DataError: the data have no boxes at all.
        """
        log = log or (lambda name, values: None)
        present = self._choose_windows(dataset)
        depth = self.block**2 * self.bins
        size = max(math.prod(self.shape(k)) for k in present) * depth
        device = self.bias.device
        self.weight = torch.zeros(self.num_classes, size, device=device)
        self.bias = torch.full((self.num_classes,), -math.inf, device=device)  # never above any floor
        self.bias[present] = 0.0

        positives: dict[int, list[np.ndarray]] = {k: [] for k in present}
        negatives: dict[int, list[np.ndarray]] = {k: [] for k in present}
        skipped = 0
        for i, image, boxes, labels in self._images(dataset):
            if image is None:
                skipped += 1
                continue
            rng = np.random.default_rng((seed, i))
            for k in present:
                positives[k].extend(self.positives(image, boxes[labels == k], k))
            for k, features in self._random_negatives(image, boxes, labels, present, rng):
                negatives[k].append(features)
        log("windows", {f"width/{k}": float(self.windows[k, 0]) for k in present} | {"skipped": float(skipped)})
        for round_ in range(self.rounds + 1):
            if round_:
                for _, image, boxes, labels in self._images(dataset):
                    if image is None:
                        continue
                    levels = list(self.levels(image))
                    for k in present:
                        negatives[k].append(self.hard_negatives(levels, boxes[labels == k], k, limit=self.hard)[0])
            values: dict[str, float] = {}
            for k in present:
                pool = self._hardest(np.concatenate(negatives[k]), k, known=round_ > 0)
                negatives[k] = [pool]
                if not positives[k] or not len(pool):
                    continue
                weight, self.bias[k] = fit_linear_svm(
                    np.stack(positives[k]), pool, c=self.c, positive_weight="balanced", loss="squared_hinge", seed=seed
                )
                self.weight[k] = 0.0
                self.weight[k, : len(weight)] = torch.from_numpy(weight)
                values |= {f"positives/{k}": float(len(positives[k])), f"negatives/{k}": float(len(pool))}
            log(f"round {round_}", values)
        self._calibrate(validation or dataset, present, log)

    def _choose_windows(self, dataset: Dataset) -> list[int]:
        """Set ``windows`` and ``factors`` of all classes from the boxes; the labels that have any."""
        truths = [(r.boxes, r.labels) for r in dataset.map_records(lambda r: r) if r.boxes is not None and len(r.boxes)]
        if not truths:
            raise DataError(dataset.index.root, "has no boxes to learn from")
        boxes = np.concatenate([t[0] for t in truths]).astype(np.float64)
        labels = np.concatenate([t[1] for t in truths])
        valid = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(1)
        boxes, labels = boxes[valid], labels[valid]
        present = [k for k in range(self.num_classes) if (labels == k).any()]
        for k in range(self.num_classes):
            own = boxes[labels == k] if k in present else boxes
            width, height = self.window or object_window(own, cell=self.cell, margin=self.margin)
            self.windows[k] = torch.tensor([width, height, self.margin, self.margin])
            sizes = np.sqrt((own[:, 2:] - own[:, :2]).prod(1)) / math.sqrt((width - 2 * self.margin) * (height - 2 * self.margin))
            low, high = np.quantile(sizes, [0.01, 0.99])
            self.factors[k] = torch.tensor([low / math.sqrt(self.step), high * math.sqrt(self.step)])
        return present

    def _images(self, dataset: Dataset) -> Iterator[tuple[int, np.ndarray | None, np.ndarray, np.ndarray]]:
        """(index, pixels, boxes, labels) of all images; pixels None where an image cannot be read."""
        for i in range(len(dataset)):
            try:
                sample = dataset[i]
            except DataError:
                yield i, None, np.zeros((0, 4)), np.zeros(0)
                continue
            pixels, target, _ = self.preprocess(sample)
            boxes = target.get("boxes", torch.zeros(0, 4)).as_subclass(Tensor).numpy()
            yield i, _array(pixels), boxes, target.get("labels", torch.zeros(0, dtype=torch.int64)).numpy()

    def positives(self, image: np.ndarray, boxes: np.ndarray, label: int) -> list[np.ndarray]:
        """Descriptors of true boxes (N, 4) warped to the class's window with its margin, and of their mirror images."""
        import cv2

        width, height, margin_x, margin_y = self.windows[label].tolist()
        rows, columns = self.shape(label)
        out = []
        for x1, y1, x2, y2 in np.asarray(boxes, dtype=np.float64):
            if x2 - x1 <= 1 or y2 - y1 <= 1:
                continue
            sx, sy = (width - 2 * margin_x) / (x2 - x1), (height - 2 * margin_y) / (y2 - y1)
            # One more cell on each side, so that the window's own border has true gradients. Pixel centres are at + 0.5.
            tx, ty = margin_x + self.cell - sx * x1 + (sx - 1) / 2, margin_y + self.cell - sy * y1 + (sy - 1) / 2
            matrix = np.array([[sx, 0, tx], [0, sy, ty]])
            size = int(width) + 2 * self.cell, int(height) + 2 * self.cell
            patch = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            for one in (patch, np.ascontiguousarray(patch[:, ::-1])):
                out.append(self._blocks(one)[1 : 1 + rows, 1 : 1 + columns].reshape(-1))
        return out

    def _random_negatives(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, present: list[int], rng: np.random.Generator
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(label, descriptors (n, D)) of windows anywhere in the pyramid that meet no object of the class."""
        levels = list(self.levels(image))
        for k in present:
            usable = [level for level in levels if self.active(k, level)]
            share = math.ceil(self.negatives / max(len(usable), 1))
            for level in usable:
                rows, columns = self.shape(k)
                row = torch.from_numpy(rng.integers(0, level.grid.shape[2] - rows + 1, share))
                column = torch.from_numpy(rng.integers(0, level.grid.shape[3] - columns + 1, share))
                away = self._away(self.place(k, level, row, column), boxes[labels == k], k)
                yield k, self._cut(level, k, row[away], column[away])

    def hard_negatives(
        self, levels: Sequence[Level], truth: np.ndarray, label: int, *, limit: int, floor: float = -1.0
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """The false answers of one class in an image: windows above ``floor`` with IoU < 0.3 to every true box.

        Args:
            levels: the image's pyramid.
            truth: (M, 4) boxes of the class.
            limit: keep the best scored of this many.

        Returns:
            (n, D) float32 descriptors, (n, 4) windows and (n,) scores, best first.
        """
        features, boxes, scores = [np.zeros((0, math.prod(self.shape(label)) * self.block**2 * self.bins), np.float32)], [], []
        for level in levels:
            if self.active(label, level):
                values = F.conv2d(level.grid, self.filters(label))[0, 0] + self.bias[label].cpu()
                row, column = torch.nonzero(values > floor, as_tuple=True)
                windows = self.place(label, level, row, column)
                away = self._away(windows, truth, label)
                row, column, windows = row[away], column[away], windows[away]
                best = values[row, column].argsort(descending=True, stable=True)[:limit]
                features.append(self._cut(level, label, row[best], column[best]))
                boxes.append(windows[best])
                scores.append(values[row, column][best])
        if not scores:
            return features[0], torch.zeros(0, 4), torch.zeros(0)
        order = torch.cat(scores).argsort(descending=True, stable=True)[:limit]
        return np.concatenate(features)[order.numpy()], torch.cat(boxes)[order], torch.cat(scores)[order]

    def _away(self, windows: Tensor, truth: np.ndarray, label: int) -> Tensor:
        """(N,) bool: windows whose object meets no true box with IoU >= 0.3."""
        if not len(truth):
            return torch.ones(len(windows), dtype=torch.bool)
        objects = self.objects(windows, torch.full((len(windows),), label))
        return (box_iou(objects, torch.as_tensor(truth, dtype=torch.float32)) < 0.3).all(1)

    def _cut(self, level: Level, label: int, row: Tensor, column: Tensor) -> np.ndarray:
        """(n, D) descriptors of windows of a level."""
        rows, columns = self.shape(label)
        grid = level.grid[0].permute(1, 2, 0)
        parts = [grid[r : r + rows, c : c + columns].reshape(-1) for r, c in zip(row.tolist(), column.tolist(), strict=True)]
        size = rows * columns * self.block**2 * self.bins
        return torch.stack(parts).numpy() if parts else np.zeros((0, size), np.float32)

    def _hardest(self, pool: np.ndarray, label: int, *, known: bool) -> np.ndarray:
        """The negatives without repetitions, at most ``max_negatives``: those that the machine scores highest."""
        pool = np.unique(pool, axis=0)
        if len(pool) > self.max_negatives and known:
            scores = pool @ self.weight[label, : pool.shape[1]].cpu().numpy()
            pool = pool[np.argsort(-scores, kind="stable")]
        return pool[: self.max_negatives]

    def _calibrate(self, dataset: Dataset, present: list[int], log: Log) -> None:
        """Platt's map a class, from the answers after NMS that do and do not find a true box."""
        decisions: dict[int, list[np.ndarray]] = {k: [] for k in present}
        hits: dict[int, list[np.ndarray]] = {k: [] for k in present}
        for _, image, boxes, labels in self._images(dataset):
            if image is None:
                continue
            found = self.scan(image)
            objects = self.objects(found.boxes, found.labels)
            keep = batched_nms(objects, found.scores, found.labels, 0.5)
            for k in present:
                own = keep[found.labels[keep] == k]
                scores = found.scores[own].numpy()
                decisions[k].append(scores)
                hits[k].append(match_truth(objects[own].numpy(), scores, boxes[labels == k]))
        for k in present:
            self.platt[k] = torch.tensor(fit_platt(np.concatenate(decisions[k]), np.concatenate(hits[k])))
        log("calibration", {f"hits/{k}": float(np.concatenate(hits[k]).sum()) for k in present})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the fitted buffers' shapes from what is loaded."""
        for name in self.fitted_buffers:
            if prefix + name in state_dict:
                setattr(self, name, torch.zeros_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def load_people_detector(self) -> None:
        """OpenCV's people detector: 3780 weights and a bias for windows of 64x128 with 16 pixels of context."""
        import cv2

        values = torch.from_numpy(np.asarray(cv2.HOGDescriptor_getDefaultPeopleDetector(), dtype=np.float32).reshape(-1))
        by_column = values[:3780].view(7, 15, 36)
        self.weight = by_column.transpose(0, 1).reshape(1, -1).clone()
        self.bias = values[3780:].clone()
        self.windows = torch.tensor([[64.0, 128.0, 16.0, 16.0]])
        self.factors = torch.tensor([[1.0, 64.0]])
        self.classes = ["person"]


def _array(image: Tensor) -> np.ndarray:
    """(H, W[, 3]) uint8 of a (C, H, W) tensor in 0..1."""
    array = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array)


def hog_svm(
    num_classes: int = 1,
    *,
    in_chans: int = 3,
    pretrained: bool = False,
    window: tuple[int, int] | None = None,
    margin: int = 8,
    convention: Convention = "opencv",
    cell: int = 8,
    block: int = 2,
    bins: int = 9,
    step: float = 1.2,
    c: float = 0.01,
    rounds: int = 2,
    negatives: int = 20,
    hard: int = 40,
    max_negatives: int = 20000,
    candidates: int = 1000,
) -> HOGSVM:
    """HOG + SVM detector.

    Args:
        num_classes: without background.
        in_chans: 3 takes the strongest colour channel's gradient, 1 grey.
        pretrained: OpenCV's people detector; needs ``num_classes=1`` and the default descriptor.
        window: (W, H) of all classes in pixels (the paper: 64, 128); None chooses a window a class from the data.
        margin: pixels of context inside the window around the object (the paper: 16).
        convention, cell, block, bins: of the descriptor, see :func:`saccade.features.hog.hog_blocks`.
        step: factor between pyramid levels.
        c: weight of the training errors in the machine.
        rounds: of hard negative mining (the paper: 1).
        negatives, hard: random and hard negatives an image and class (hard ones: each round).
        max_negatives: cap a class; the best scored ones stay.
        candidates: windows a class and image that go to NMS.

    Raises:
        UsageError: an option that cannot be.
    """
    model = HOGSVM(
        num_classes, in_chans=in_chans, window=window, margin=margin, convention=convention, cell=cell, block=block, bins=bins,
        step=step, c=c, rounds=rounds, negatives=negatives, hard=hard, max_negatives=max_negatives, candidates=candidates,
    )  # fmt: skip
    if pretrained:
        if num_classes != 1 or (convention, cell, block, bins) != ("opencv", 8, 2, 9):
            raise UsageError("hog_svm's published weights find people only: num_classes=1 and the default descriptor")
        model.load_people_detector()
    return model
