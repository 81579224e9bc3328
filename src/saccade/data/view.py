"""Pictures with their truth drawn on, one by one or as a sheet: no window, no browser."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.types import drawing
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.sample import Sample, Target

MOST_OBJECTS = 60
"""Objects from which on the drawn boxes carry no names: they would hide the picture."""


def draw_truth(sample: Sample, classes: Sequence[str], *, smallest: int = 160) -> Image.Image:
    """The image with its boxes, outlines, key points, class mask, label and captions.

    Args:
        sample: as ``data[i]`` gives it.
        classes: names by label.
        smallest: an image whose longer side is shorter is enlarged in whole steps first.
    """
    image, target = drawing.to_pil(sample.image), sample.target
    scale = max(1, -(-smallest // max(image.size)))
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    if "mask" in target:
        mask = np.asarray(target["mask"])
        image = drawing.mask(image, mask.repeat(scale, 0).repeat(scale, 1))
        image = _legend(image, [int(k) for k in np.unique(mask) if k > 0], classes)
    if "boxes" in target:
        labels = [int(k) for k in target["labels"]]
        for one, label in zip(np.asarray(target.get("masks", ())), labels, strict=False):
            if one.any():
                image = drawing.mask(image, np.where(one, label, -1).repeat(scale, 0).repeat(scale, 1), alpha=0.35, background=None)
        names = ["" if len(labels) > MOST_OBJECTS else classes[k] for k in labels]
        names = [f"{n} (crowd)" if n and c else n for n, c in zip(names, target["iscrowd"].tolist(), strict=True)]
        image = drawing.boxes(image, np.asarray(target["boxes"]) * scale, labels, names)
        if "keypoints" in target:
            points, visible = np.asarray(target["keypoints"]), np.asarray(target["visibility"])
            for k in range(len(points)):
                image = drawing.keypoints(image, points[k] * scale, visible[k], index=k)
    texts = [classes[int(target["label"])]] if "label" in target else []
    texts += [line for text in target.get("captions", [])[:2] for line in textwrap.wrap(text.strip(), 44)[:2]]
    for text in texts:
        image = drawing.caption(image, text)
    return image


def _legend(image: Image.Image, present: Sequence[int], classes: Sequence[str]) -> Image.Image:
    from PIL import ImageDraw

    image = image.copy()
    pen, size = ImageDraw.Draw(image), drawing.text_size(image)
    for row, k in enumerate(present[: max(1, image.height // (size + 6))]):
        drawing.label(pen, (0, (row + 1) * (size + 6)), classes[k], drawing.color(k), size)
    return image


def choose(data: Dataset, count: int, *, classes: Sequence[str] = (), seed: int | None = None) -> list[int]:
    """Positions of images to show: spread evenly over the data, or drawn by ``seed``; with ``classes`` only images that hold one of them.

    Raises:
        UsageError: a class that the data lack, or none that holds one.
    """
    positions = np.arange(len(data))
    if classes:
        for name in classes:
            if name not in data.classes:
                raise UsageError(f"the data have no class {name!r}{suggest(name, data.classes)}")
        wanted = {data.classes.index(name) for name in classes}
        holds = [({r.label} if r.labels is None else set(np.asarray(r.labels).tolist())) & wanted for r in data.map_records(lambda r: r)]
        positions = np.flatnonzero([bool(h) for h in holds])
        if not len(positions):
            raise UsageError(f"no image holds {' or '.join(classes)}")
    if len(positions) <= count:
        return positions.tolist()
    if seed is not None:
        return np.sort(np.random.default_rng(seed).choice(positions, count, replace=False)).tolist()
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)].tolist()


def sheet(data: Dataset, positions: Sequence[int], *, columns: int = 0, cell: int = 320) -> tuple[Image.Image, list[DataError]]:
    """Annotated images as one picture, each with its file's name; and what could not be opened.

    Raises:
        DataError: not one image can be opened.
    """
    cells, broken = [], []
    for i in positions:
        try:
            image, target = drawn(data, i, cell=cell)
        except DataError as error:
            broken.append(error)
            continue
        cells.append(drawing.caption(image, Path(str(target["path"])).name[-40:], (90, 90, 90)))
    if not cells:
        raise broken[0] if broken else DataError(data.index.root, "holds no image to show")
    return drawing.sheet(cells, columns=columns, cell=cell), broken


def drawn(data: Dataset, position: int, *, cell: int = 320) -> tuple[Image.Image, Target]:
    """An image with its truth, its longer side about ``cell`` pixels, and the truth itself.

    Raises:
        DataError: it cannot be opened.
    """
    sample = data[position]
    if "segment" not in data.tasks:
        sample.target.pop("mask", None)  # its values are not labels of these classes
    image = draw_truth(sample, data.classes, smallest=cell)
    factor = min(1.0, cell / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS), sample.target
