"""Generated pictures against real ones: the sliced Wasserstein distance of patches (Karras, Aila, Laine, Lehtinen 2018, arXiv 1710.10196).

Section 5: 7x7 patches are drawn from each level of a Laplacian pyramid (Burt and Adelson 1983), from the full size down to 16 pixels;
patches of a level are normalised by the mean and deviation of each channel; the distance of the two clouds is the mean, over random
directions, of the Wasserstein-1 distance of their projections (Rabin et al. 2011). Fine levels see texture, coarse ones see shape.

Unlike the Inception score or FID it needs no trained network, so it means the same on cells and on faces. Deviations: fewer patches an
image and directions than the paper's 128 and 512 (arguments), and a picture smaller than 32 pixels has one level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from saccade.types.prediction import Generated
from saccade.types.sample import Target

PATCH = 7
COARSEST = 16


class GenerationMetric:
    """Collects generated and real pictures; gives ``swd/SIZE`` a pyramid level, their mean ``swd`` and its negative ``neg_swd``.

    Distances are times 1000, as in the paper; 0 is best; NaN without pictures on both sides. The value falls slowly with the number of
    pictures: compare runs of equal numbers only.

    Args:
        classes: not used; metrics of all tasks are made alike.
        patches: drawn from each level of each picture.
        directions: random projections.
        seed: of patches and directions; the same pictures give the same number.
    """

    main: ClassVar[str] = "neg_swd"

    def __init__(self, classes: Sequence[str] = (), patches: int = 32, directions: int = 128, seed: int = 0) -> None:
        self.patches, self.directions, self.seed = patches, directions, seed
        self._sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])  # generated, real: (C, H, W) uint8

    def update(self, predictions: Sequence[Generated], truths: Sequence[Target]) -> None:
        """Add generated pictures, and one real picture each: the truth's ``image`` (C, H, W) uint8, or else the file ``path``.

        Real pictures are resized to the generated ones (antialiased) and take their number of channels.
        """
        for prediction, truth in zip(predictions, truths, strict=True):
            made = np.asarray(prediction.image, dtype=np.uint8)
            if min(made.shape[1:]) < PATCH:
                raise ValueError(f"pictures must have {PATCH} pixels a side at least, not {made.shape[1:]}")
            if self._sides[0] and made.shape != self._sides[0][0].shape:
                raise ValueError(f"a generated picture is {made.shape}, the first one {self._sides[0][0].shape}")
            self._sides[0].append(made)
            self._sides[1].append(_fit(truth["image"] if "image" in truth else truth["path"], made.shape))

    def compute(self) -> dict[str, float]:
        """Flat named floats; see the class."""
        if not self._sides[0]:
            return {"neg_swd": np.nan, "swd": np.nan}
        generator = torch.Generator().manual_seed(self.seed)
        made, real = (self._descriptors(side, generator) for side in self._sides)
        out = {f"swd/{size}": 1000 * self._distance(made[size], real[size], generator) for size in made}
        mean = float(np.mean(list(out.values())))
        return {"neg_swd": -mean, "swd": mean} | out

    def _descriptors(self, pictures: list[np.ndarray], generator: torch.Generator) -> dict[int, Tensor]:
        """(pictures * patches, C * 49) normalised patches by level; the key is the level's smaller side."""
        taken: dict[int, list[Tensor]] = {}
        for start in range(0, len(pictures), 256):
            batch = torch.from_numpy(np.stack(pictures[start : start + 256])).float()
            for level in laplacian_pyramid(batch):
                count, channels, height, width = level.shape
                y = torch.randint(height - PATCH + 1, (count, self.patches, 1, 1), generator=generator) + torch.arange(PATCH)[:, None]
                x = torch.randint(width - PATCH + 1, (count, self.patches, 1, 1), generator=generator) + torch.arange(PATCH)
                where = (y * width + x).reshape(count, 1, -1).expand(-1, channels, -1)
                found = level.flatten(2).gather(2, where).reshape(count, channels, self.patches, -1).transpose(1, 2)
                taken.setdefault(min(height, width), []).append(found.flatten(0, 1))
        out = {}
        for size, parts in taken.items():
            cloud = torch.cat(parts)
            deviation, mean = torch.std_mean(cloud, (0, 2), correction=0, keepdim=True)
            out[size] = ((cloud - mean) / deviation.clamp_min(1e-6)).flatten(1)
        return out

    def _distance(self, made: Tensor, real: Tensor, generator: torch.Generator) -> float:
        directions = F.normalize(torch.randn(made.shape[1], self.directions, generator=generator), dim=0)
        return float(((made @ directions).sort(0).values - (real @ directions).sort(0).values).abs().mean())

    def tables(self) -> dict[str, Any]:
        """How many pictures were compared."""
        return {"pictures": len(self._sides[0])}

    def state(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The pictures of both sides, uint8."""
        return self._sides

    def merge(self, states: Sequence[tuple[list[np.ndarray], list[np.ndarray]]]) -> None:
        """Replace the pictures by the union of several processes'."""
        self._sides = ([p for made, _ in states for p in made], [p for _, real in states for p in real])


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Band-pass levels (N, C, H, W), (N, C, H / 2, W / 2), ... and the low-pass rest, not smaller than 16 pixels a side.

    Adding the levels back, each :func:`expand`-ed, gives the images.
    """
    levels = []
    while min(images.shape[-2:]) >= 2 * COARSEST:
        smaller = _smooth(images)[..., ::2, ::2]
        levels.append(images - expand(smaller, images.shape[-2:]))
        images = smaller
    return [*levels, images]


def expand(images: Tensor, size: Sequence[int]) -> Tensor:
    """Twice the size: zeros between the pixels, then the binomial filter."""
    out = images.new_zeros(*images.shape[:2], *size)
    out[..., ::2, ::2] = images
    return 4 * _smooth(out)


def _smooth(images: Tensor) -> Tensor:
    line = images.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (line[:, None] * line).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def _fit(image: Any, shape: tuple[int, ...]) -> np.ndarray:
    channels, height, width = shape
    if isinstance(image, str):
        with Image.open(image) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB")
    else:
        array = np.asarray(image)
        if array.shape == shape:
            return array
        picture = Image.fromarray(np.moveaxis(array, 0, -1).squeeze()).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return np.moveaxis(pixels.reshape(height, width, channels), -1, 0)
