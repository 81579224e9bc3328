"""The one data set class: an index of records, decoded one image at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from saccade.data.images import pillow_tensor, read_color_mask, read_image, read_mask
from saccade.data.records import DataIndex, Record, inside
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.sample import IGNORE, Sample, Target, boxes_tensor


class Dataset(torch.utils.data.Dataset[Sample]):
    """Images and truth of one split, decoded lazily.

    ``data[i]`` gives a :class:`~saccade.types.sample.Sample` in original pixels; a broken image raises
    :class:`~saccade.types.errors.DataError` (the trainer skips, counts and names it).

    Args:
        index: what a format reader gave.
        indices: the records of this split; None takes all.
        channels: 1 or 3 to convert every image; None keeps grey images grey.
        split: name of the split, for messages and reports.
        boxes_only: leave out instance masks and what a synthetic scene tells beside them, which cost time and memory.
    """

    def __init__(
        self,
        index: DataIndex,
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        channels: int | None = None,
        split: str = "",
        boxes_only: bool = False,
    ) -> None:
        self.index = index
        self.indices = np.arange(len(index)) if indices is None else np.asarray(indices, dtype=np.int64)
        self.channels = channels
        self.split = split
        self.boxes_only = boxes_only

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def classes(self) -> list[str]:
        """Names by label."""
        return self.index.classes

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the annotations can train, the main one first."""
        return self.index.tasks

    def record(self, i: int) -> Record:
        """Record of image i, nothing decoded."""
        return self.index.records[int(self.indices[i])]

    def path(self, record: Record) -> Path:
        """File of the image; inside the root, or DataError."""
        return inside(self.index.root, record.path, source=record.image_id)

    def image(self, record: Record) -> tv_tensors.Image:
        """Decoded (C, H, W) uint8."""
        if self.index.reader is not None:
            array = self.index.reader.image(record)
            array = array[..., None] if array.ndim == 2 else array
            if self.channels == 3 and array.shape[-1] == 1:
                array = np.repeat(array, 3, axis=-1)
            elif self.channels == 1 and array.shape[-1] == 3:
                array = np.round(array @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
            return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0))))
        return read_image(self.path(record), channels=self.channels)

    def __getitem__(self, i: int) -> Sample:
        record = self.record(i)
        image = self.image(record)
        return Sample(image, self.target(record, (image.shape[-2], image.shape[-1])))

    def target(self, record: Record, size: tuple[int, int]) -> Target:
        """Truth of one image of ``size`` (H, W), by the keys of :mod:`saccade.types.sample`."""
        target: Target = {"image_id": record.image_id, "path": self.shown_path(record)}
        if record.label is not None:
            target["label"] = torch.tensor(record.label, dtype=torch.int64)
        if record.boxes is not None:
            count = len(record.boxes)
            target["boxes"] = boxes_tensor(record.boxes, size)
            target["labels"] = torch.as_tensor(np.asarray(record.labels), dtype=torch.int64).reshape(-1)
            crowd = np.zeros(count, dtype=bool) if record.iscrowd is None else record.iscrowd
            target["iscrowd"] = torch.as_tensor(np.asarray(crowd), dtype=torch.bool)
            for key, dtype in (("area", torch.float64), ("difficult", torch.bool)):  # what COCO's and VOC's metrics ask for
                values = (record.extra or {}).get(key)
                if values is not None and len(values) == count:
                    target[key] = torch.as_tensor(np.asarray(values), dtype=dtype)
            if record.segments is not None and not self.boxes_only:
                target["masks"] = tv_tensors.Mask(torch.from_numpy(self._instance_masks(record, size)))
            if record.keypoints is not None:
                points = torch.as_tensor(record.keypoints, dtype=torch.float32)
                target["keypoints"] = points[..., :2].clone()
                target["visibility"] = points[..., 2].to(torch.int64)
        if record.mask is not None:
            target["mask"] = tv_tensors.Mask(torch.from_numpy(self.mask(record, size)))
        if record.captions is not None:
            target["captions"] = list(record.captions)
        if self.index.reader is not None and hasattr(self.index.reader, "extras") and not self.boxes_only:
            target.update(self.index.reader.extras(record))
        return target

    def _instance_masks(self, record: Record, size: tuple[int, int]) -> np.ndarray:
        """(N, H, W) bool."""
        from saccade.data.polygons import rasterize

        masks = np.zeros((len(record.segments or ()), *size), dtype=bool)
        for k, segment in enumerate(record.segments or ()):
            try:
                masks[k] = rasterize(segment, size)
            except ValueError as error:
                raise DataError(self.shown_path(record), str(error), where=f"object {k + 1}") from None
        return masks

    def mask(self, record: Record, size: tuple[int, int]) -> np.ndarray:
        """(H, W) int64 labels, -100 where the data set says to ignore."""
        raw, name = self.raw_mask(record)
        if raw.shape != size:
            raise DataError(name, f"the mask is {raw.shape[1]}x{raw.shape[0]}, its image {size[1]}x{size[0]}", hint="sizes must agree")
        return decode_mask(raw, self.index, name)

    def raw_mask(self, record: Record) -> tuple[np.ndarray, str]:
        """(H, W) values of a mask as the files hold them, before ``index.mask_values``; and the name of the file."""
        index = self.index
        assert record.mask is not None
        if index.reader is not None:
            return index.reader.mask(record), record.path
        file = inside(index.root, record.mask, source=record.image_id)
        if index.mask_colors is not None:
            return read_color_mask(file, index.mask_colors, nearest=index.mask_nearest), str(file)
        return read_mask(file), str(file)

    def shown_path(self, record: Record) -> str:
        """Where an image comes from, for messages and reports."""
        return record.path if self.index.reader is not None else str(self.index.root / record.path)

    def subset(self, indices: Sequence[int] | np.ndarray, split: str | None = None) -> Dataset:
        """The images at these positions of this data set."""
        chosen = self.indices[np.asarray(indices, dtype=np.int64)]
        return Dataset(self.index, chosen, channels=self.channels, split=self.split if split is None else split, boxes_only=self.boxes_only)

    def with_channels(self, channels: int | None) -> Dataset:
        """The same images decoded as grey (1) or RGB (3)."""
        return Dataset(self.index, self.indices, channels=channels, split=self.split, boxes_only=self.boxes_only)

    def with_boxes_only(self) -> Dataset:
        """The same images without instance masks in their targets."""
        return Dataset(self.index, self.indices, channels=self.channels, split=self.split, boxes_only=True)

    def take(self, split: str) -> Dataset:
        """A named split."""
        if split not in self.index.splits:
            raise UsageError(f"{self.index.root} has no split {split!r}{suggest(split, self.index.splits)}")
        return Dataset(self.index, self.index.splits[split], channels=self.channels, split=split, boxes_only=self.boxes_only)

    def map_records(self, function: Callable[[Record], Any]) -> list[Any]:
        """The function's value for every record of this split."""
        return [function(self.record(i)) for i in range(len(self))]

    def class_counts(self) -> np.ndarray:
        """(K,) int64: images by label, or objects by label; masks are not opened (zeros)."""
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for i in range(len(self)):
            record = self.record(i)
            if record.label is not None:
                counts[record.label] += 1
            elif record.labels is not None and len(record.labels):
                counts += np.bincount(record.labels, minlength=len(counts))
        return counts

    def fingerprint(self) -> str:
        """A hash of records, split and classes: the same data give the same fingerprint."""
        digest = hashlib.sha256()
        digest.update(self.index.records.digest().encode())
        digest.update(np.ascontiguousarray(self.indices).tobytes())
        digest.update("\x00".join(self.classes).encode())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        split = f" {self.split}" if self.split else ""
        return f"<Dataset {self.index.format}{split}: {len(self)} images, {len(self.classes)} classes, root {self.index.root}>"


def decode_mask(raw: np.ndarray, index: DataIndex, name: str) -> np.ndarray:
    """Raw mask values to labels by the index's table: ignore values to -100, stray ones to the nearest or an error."""
    raw = raw.astype(np.int64)
    table = index.mask_values
    if table is None:
        table = {k: k for k in range(len(index.classes))}
    seen = np.unique(raw)
    if seen.min(initial=0) < 0 or seen.max(initial=0) > 65535:
        raise DataError(name, "mask values are outside 0..65535")
    lookup = np.full(int(seen.max(initial=0)) + 1, IGNORE, dtype=np.int64)
    known = np.array(sorted(table), dtype=np.int64)
    for value in seen.tolist():
        if value in index.ignore:
            continue
        if value in table:
            lookup[value] = table[value]
        elif index.mask_nearest:
            lookup[value] = table[int(known[np.abs(known - value).argmin()])]
        else:
            raise DataError(
                name, f"mask value {value} is no class", hint=f"known values: {', '.join(map(str, known[:12]))}; name it in the class table"
            )
    return lookup[raw]


def as_tensor_image(image: Any) -> Tensor:
    """(C, H, W) uint8, C 1 or 3, from a tensor ([C,] H, W), an array (H, W[, C]), or a Pillow image (as its file would be read).

    Raises:
        UsageError: not such an image.
        DataError: a Pillow image that cannot be decoded.
    """
    if isinstance(image, Image.Image):
        return pillow_tensor(image)
    if isinstance(image, Tensor):
        tensor = image[None] if image.ndim == 2 else image
    elif hasattr(image, "__array__"):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise UsageError(f"an array of an image is (H, W) or (H, W, C) uint8, not {array.shape} {array.dtype}")
        # A copy: torch takes no read-only memory, and the caller may write the next frame into the array.
        tensor = torch.from_numpy(np.array(np.moveaxis(np.atleast_3d(array), -1, 0), order="C"))
    else:
        raise UsageError(f"an image is a file name, a tensor, an array or a Pillow image, not {type(image).__name__}")
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or not tensor.numel():
        raise UsageError(f"an image is (C, H, W) uint8 with C 1 or 3 and some pixels, not {tuple(tensor.shape)} {tensor.dtype}")
    return tensor
