"""Selective search: class-independent region proposals by grouping segments, and a cache of them on disk.

Paper: Uijlings, van de Sande, Gevers, Smeulders: Selective Search for Object Recognition (IJCV 2013). New was to replace
the exhaustive window scan by some 2000 regions: Felzenszwalb's graph segmentation is merged greedily, always the most
similar neighbours, ``s = s_colour + s_texture + s_size + s_fill`` (equations 1 to 5), and every region met on the way
gives a box; several colour spaces, segmentation scales and similarity subsets diversify ("fast": 8 strategies,
"quality": 80).

The grouping is OpenCV's compiled one (``cv2.ximgproc.segmentation``); this file makes it fit for training:

* *Order.* OpenCV ranks by ``rand()`` of the C library, so that its first N boxes differ from call to call. Here boxes
  get the paper's rank (section 3.3: position in the hierarchy, largest first, times a random number in 0..1) from a
  seeded generator, with the order of areas as the position. The same pixels always give the same boxes in the same order.
* *Time.* 640x480 takes two seconds; ``max_side`` shrinks the image first, boxes come back in its own pixels.
* *Cache.* One file an image, named by a hash of its pixels and the settings.

Facts under test (CANON D8): the set of boxes equals OpenCV's; about 2000 regions; recall at IoU.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torchvision.ops import box_iou

from saccade.data.dataset import Dataset, as_tensor_image
from saccade.types.errors import DataError, UsageError
from saccade.types.machine import usable_cores

Mode = Literal["fast", "quality"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What the proposals of an image depend on besides its pixels.

    Attributes:
        mode: "fast" (8 strategies) or "quality" (80).
        max_side: shrink the image to this longer side first; 0 leaves it.
        max_proposals: keep the first of this many.
        min_size: drop boxes with a side below this many pixels (of the image as given).
        base_k, increment_k, sigma: scale of the first segmentation, steps of it, and its smoothing.
        seed: of the random rank.
    """

    mode: Mode = "fast"
    max_side: int = 500
    max_proposals: int = 2000
    min_size: float = 8
    base_k: int = 150
    increment_k: int = 150
    sigma: float = 0.8
    seed: int = 0


def selective_search(image: Any, mode: Mode | None = None, settings: SearchSettings | None = None) -> np.ndarray:
    """Region proposals of one image, best ranked first.

    Args:
        image: (C, H, W) uint8 tensor, (H, W[, 3]) uint8 array or Pillow image, RGB or grey.
        mode: short for ``SearchSettings(mode=...)``.
        settings: all settings.

    Returns:
        (N, 4) float32 XYXY in pixels of the image, without duplicates, N <= ``max_proposals``; (0, 4) where the image is
        too small to segment.

    Raises:
        UsageError: the image is not uint8, or the mode unknown.
    """
    settings = settings or SearchSettings(mode=mode or "fast")
    if settings.mode not in ("fast", "quality"):
        raise UsageError(f"no selective search mode {settings.mode!r}; known: fast, quality")
    pixels = as_tensor_image(image).numpy()
    if pixels.dtype != np.uint8 or pixels.shape[0] not in (1, 3):
        raise UsageError(f"selective search takes a uint8 image with 1 or 3 channels, not {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[1:]
    factor = min(1.0, settings.max_side / max(height, width)) if settings.max_side else 1.0
    small = max(1, round(width * factor)), max(1, round(height * factor))
    if min(small) < 4:
        return np.zeros((0, 4), np.float32)
    boxes = _regions(pixels, small, settings)
    boxes = np.unique(boxes, axis=0) * np.array([width / small[0], height / small[1]] * 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides >= settings.min_size).all(1)
    boxes, area = boxes[keep], sides[keep].prod(1)
    position = np.empty(len(boxes))
    position[np.argsort(-area, kind="stable")] = np.arange(1, len(boxes) + 1)
    rank = position * np.random.default_rng(settings.seed).random(len(boxes))
    return boxes[np.argsort(rank, kind="stable")][: settings.max_proposals].astype(np.float32)


def _regions(pixels: np.ndarray, size: tuple[int, int], settings: SearchSettings) -> np.ndarray:
    """(N, 4) XYXY boxes of OpenCV's search on the image at ``size`` (width, height)."""
    import cv2

    bgr = np.ascontiguousarray(np.moveaxis(pixels[::-1], 0, -1))  # OpenCV's strategies know BGR
    if bgr.shape[-1] == 1:
        bgr = np.repeat(bgr, 3, axis=-1)
    if size != (bgr.shape[1], bgr.shape[0]):
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(bgr)
    switch = search.switchToSelectiveSearchFast if settings.mode == "fast" else search.switchToSelectiveSearchQuality
    switch(settings.base_k, settings.increment_k, settings.sigma)
    boxes = np.asarray(search.process(), dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


class ProposalCache:
    """Proposals by image, kept in a folder: one ``.npy`` an image, named by its pixels and the settings.

    A file that is missing, cut short or foreign is computed anew; files are written whole or not at all, so that
    processes may share the folder.

    Args:
        folder: made when the first file is written; None keeps nothing.
        settings: of the search.
    """

    def __init__(self, folder: str | Path | None, settings: SearchSettings | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.settings = settings or SearchSettings()

    def file(self, image: Any) -> Path:
        """Where the proposals of an image lie."""
        if self.folder is None:
            raise UsageError("this cache has no folder")
        pixels = as_tensor_image(image).contiguous().numpy()
        digest = hashlib.blake2b(repr((pixels.shape, astuple(self.settings))).encode(), digest_size=16)
        digest.update(pixels.data)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def __call__(self, image: Any) -> np.ndarray:
        """(N, 4) float32 proposals of an image, read or computed."""
        if self.folder is None:
            return selective_search(image, settings=self.settings)
        file = self.file(image)
        boxes = _read(file)
        if boxes is None:
            boxes = selective_search(image, settings=self.settings)
            _write(file, boxes)
        return boxes

    def fill(self, dataset: Dataset, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> list[DataError]:
        """Compute what is missing for a data set, several images at a time (OpenCV releases the interpreter's lock).

        Args:
            workers: threads; None takes one a core.
            progress: called with (images done, images).

        Returns:
            What could not be decoded, an error each.
        """
        problems: list[DataError] = []

        def one(i: int) -> None:
            try:
                self(dataset.image(dataset.record(i)))
            except DataError as error:
                problems.append(error)

        with ThreadPoolExecutor(workers or usable_cores()) as pool:
            for done, _ in enumerate(pool.map(one, range(len(dataset))), 1):
                if progress:
                    progress(done, len(dataset))
        return problems


def _read(file: Path) -> np.ndarray | None:
    try:
        boxes = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = isinstance(boxes, np.ndarray) and boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4
    return boxes if sound and np.isfinite(boxes).all() else None


def _write(file: Path, boxes: np.ndarray) -> None:
    import tempfile

    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            np.save(out, boxes, allow_pickle=False)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def proposal_recall(
    proposals: Sequence[np.ndarray], truths: Sequence[np.ndarray], iou: Sequence[float] = (0.5, 0.7, 0.9)
) -> dict[float, float]:
    """Share of true boxes that some proposal of their image covers with at least this IoU.

    Args:
        proposals, truths: (N, 4) and (M, 4) XYXY an image.

    Returns:
        IoU -> recall over all images; NaN without true boxes.
    """
    best = [np.zeros(0)]
    for boxes, truth in zip(proposals, truths, strict=True):
        overlap = box_iou(torch.as_tensor(truth).reshape(-1, 4).float(), torch.as_tensor(boxes).reshape(-1, 4).float())
        best.append(overlap.max(1).values.numpy() if overlap.shape[1] else np.zeros(len(overlap)))
    reached = np.concatenate(best)
    return {float(t): float((reached >= t).mean()) if len(reached) else float("nan") for t in iou}
