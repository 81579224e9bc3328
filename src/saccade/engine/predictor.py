"""Predictions for a stream of files: decoded and preprocessed in workers, nothing kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from saccade.data.images import find_images, read_image
from saccade.data.transforms.preprocess import Preprocess
from saccade.engine.loaders import collate_eval, quiet_worker, worker_count
from saccade.layers.fuse import fuse_conv_bn
from saccade.models.base import Model
from saccade.types.errors import DataError
from saccade.types.prediction import Prediction
from saccade.types.recipe import PREDICTION, DecodeSettings
from saccade.types.sample import Sample


class FileView(TorchDataset[Any]):
    """Files, decoded and preprocessed; a broken one gives its error."""

    def __init__(self, paths: list[str], preprocess: Preprocess) -> None:
        self.paths, self.preprocess = paths, preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Any, ...] | DataError:
        try:
            image = read_image(Path(self.paths[i]))
        except DataError as error:
            return error
        tensor, target, geometry = self.preprocess(Sample(image, {"path": self.paths[i]}))
        return tensor, target, geometry, {}


def predict_files(
    model: Model,
    inputs: Iterable[str | Path],
    *,
    settings: DecodeSettings = PREDICTION,
    batch_size: int = 8,
    workers: int | None = None,
    skipped: Callable[[DataError], None] | None = None,
) -> Iterator[Prediction]:
    """One prediction an image file, in order, with bounded memory.

    Args:
        model: trained.
        inputs: files, folders, globs.
        settings: score, IoU and cap.
        batch_size, workers: for speed only.
        skipped: sees the error of each broken file; None raises the first.
    """
    paths = list(find_images(inputs))
    count = worker_count(workers, len(paths))
    loader = DataLoader(
        FileView(paths, model.preprocess), batch_size=batch_size, collate_fn=collate_eval, num_workers=count, worker_init_fn=quiet_worker
    )
    model.eval()
    for batch in loader:
        for problem in batch.problems:
            if skipped is None:
                raise problem
            skipped(problem)
        if not batch.targets:
            continue
        with torch.inference_mode():
            predictions = model.predict_batch(batch.images, batch.geometries, **asdict(settings))
        for prediction, target in zip(predictions, batch.targets, strict=True):
            prediction.path = target["path"]
            prediction.image = partial(read_image, Path(prediction.path))
            yield prediction


def faster(model: Model, *, compiled: bool = False) -> Model:
    """The model made for prediction alone: normalisation folded into the convolutions, channels last, or compiled too.

    Outputs differ in the last digits (relative 1e-5). The model must not be trained or saved afterwards.

    Args:
        model: changed in place.
        compiled: ``torch.compile`` of the network: the first batch of each size takes up to minutes.
    """
    model = fuse_conv_bn(model.eval()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        model.raw = torch.compile(model.raw)  # type: ignore[method-assign]
    return model
