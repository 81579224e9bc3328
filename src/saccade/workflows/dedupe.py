"""Find images that are there twice, and write what to leave out. Nothing is ever deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.data.duplicates import COSINE, LIKENESS, RADIUS, Duplicates, Leak, clean_splits, find_duplicates, leaks
from saccade.data.load import load_data
from saccade.engine.bundle import load_bundle
from saccade.engine.files import write_json, write_text
from saccade.engine.loaders import EvalView, collate_eval, quiet_worker, worker_count
from saccade.models.base import Model
from saccade.types.errors import DataError, UsageError


@dataclass
class Dedupe:
    """What :func:`dedupe` found.

    Attributes:
        data: the data sets, with the images of all splits.
        found: the duplicates among them.
        leaks: those between splits of one data set.
        drop: positions in ``found.names`` of images that have a copy that stays.
    """

    data: list[Dataset]
    found: Duplicates
    leaks: list[Leak]
    drop: list[int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found, names = self.found, self.found.names
        pairs: dict[int, list[dict[str, Any]]] = {}
        clusters = found.clusters()
        for p in found.pairs:
            row = {
                "first": names[p.first],
                "second": names[p.second],
                "kind": p.kind,
                "distance": p.distance,
                "likeness": round(p.likeness, 4),
            }
            pairs.setdefault(int(clusters[p.first]), []).append(row)
        drop = set(self.drop)
        groups = [
            {
                "images": [names[i] for i in group],
                "drop": [names[i] for i in group if i in drop],
                "pairs": pairs[int(clusters[group[0]])],
            }
            for group in found.groups
        ]
        return {
            "images": len(names),
            "groups": groups,
            "leaks": [str(leak) for leak in self.leaks],
            "drop": [names[i] for i in self.drop],
            "skipped": [str(problem) for problem in found.problems],
        }

    def write_list(self, path: str | Path) -> int:
        """Write the images to leave out, a name a line; returns their number."""
        lines = [self.found.names[i] for i in self.drop]
        if bad := next((line for line in lines if "\n" in line or "\r" in line), None):
            raise DataError(bad, "has a line break in its name, which a list of names cannot hold", hint="rename it")
        write_text(Path(path), "".join(f"{line}\n" for line in lines))
        return len(lines)

    def write_splits(self, path: str | Path) -> dict[str, int]:
        """Write splits without leaks (:func:`saccade.data.duplicates.clean_splits`) as JSON for ``--split-file``; gives their sizes."""
        if len(self.data) != 1:
            raise UsageError(f"splits belong to one data set; {len(self.data)} were given")
        index = self.data[0].index
        splits = clean_splits(index, self.found)
        write_json(Path(path), {name: [index.records[int(i)].image_id for i in members] for name, members in splits.items()})
        return {name: len(members) for name, members in splits.items()}


def dedupe(
    sources: str | Path | Dataset | Sequence[str | Path | Dataset],
    *,
    format: str | None = None,
    split_file: str | Path | None = None,
    near: bool = True,
    radius: int = RADIUS,
    likeness: float = LIKENESS,
    flips: bool = True,
    rotations: bool = True,
    any_angle: bool = False,
    model: str | Path | Model | None = None,
    cosine: float = COSINE,
    device: str = "cpu",
    workers: int | None = None,
) -> Dedupe:
    """Find duplicates in a data set or across several, and what could be left out.

    Args:
        sources: what :func:`saccade.load_data` reads.
        format, split_file: of ``load_data``; for one source.
        near, radius, likeness (``least``), flips, rotations, any_angle, workers: of :func:`saccade.data.duplicates.find_duplicates`.
        model: run folder, bundle or model: images whose features (what the last layer sees) have a cosine of ``cosine`` are near, too.
        device: of the model.

    Raises:
        UsageError: a model that gives no features, or options that do not fit.
        DataError: unusable data.
    """
    given = [sources] if isinstance(sources, (str, Path, Dataset)) else list(sources)
    if len(given) != 1 and (format is not None or split_file is not None):
        raise UsageError("a format or a split file is of one data set: give one")
    if not 0 <= radius <= 32 or not -1 <= likeness <= 1 or not -1 <= cosine <= 1:
        raise UsageError(f"radius is 0 to 32 bits, likeness and cosine -1 to 1; got {radius}, {likeness}, {cosine}")
    data = [load_data(source, format=format, split_file=split_file) for source in given]
    features = None
    if model is not None:
        loaded = model if isinstance(model, Model) else load_bundle(model, device)
        features = np.concatenate([image_features(loaded, each, workers=workers) for each in data])
    found = find_duplicates(
        data,
        near=near,
        radius=radius,
        least=likeness,
        flips=flips,
        rotations=rotations,
        any_angle=any_angle,
        features=features,
        cosine=cosine,
        workers=workers,
    )
    between = leaks(data[0].index, found=found) if len(data) == 1 else []
    return Dedupe(data, found, between, found.surplus())


def image_features(model: Model, data: Dataset, *, workers: int | None = None, batch_size: int = 32) -> np.ndarray:
    """(N, D) float32: what the last layer of a classifier sees of every image; NaN for broken images.

    Raises:
        UsageError: the model's network has no ``forward_features``.
    """
    network = next((m for m in (model, getattr(model, "network", None)) if hasattr(m, "forward_features")), None)
    if network is None:
        raise UsageError(f"{model.build_name or type(model).__name__} gives no features of an image; take a classifier of timm")
    model.eval()
    loader = torch.utils.data.DataLoader(
        EvalView(data.with_boxes_only(), model.preprocess),
        batch_size=batch_size,
        collate_fn=list,
        num_workers=worker_count(workers, len(data)),
        worker_init_fn=quiet_worker,
    )
    rows: list[np.ndarray | None] = []
    for items in loader:
        good = [item for item in items if not isinstance(item, DataError)]
        images = collate_eval(good).images
        if good and not isinstance(images, Tensor):
            raise UsageError(f"{model.build_name} takes images of different sizes: it gives no features of an image")
        with torch.inference_mode():
            values = iter(_features(network, images.to(model.device)).float().cpu().numpy() if isinstance(images, Tensor) else ())
        rows += [None if isinstance(item, DataError) else next(values) for item in items]
    width = next((len(row) for row in rows if row is not None), 1)
    return np.stack([np.full(width, np.nan, dtype=np.float32) if row is None else row for row in rows])


def _features(network: Any, images: Tensor) -> Tensor:
    """(N, D): timm's features as its last layer gets them, else the mean over places."""
    maps = network.forward_features(images)
    if hasattr(network, "forward_head"):
        maps = network.forward_head(maps, pre_logits=True)
    return maps.flatten(2).mean(2) if maps.ndim > 2 else maps
