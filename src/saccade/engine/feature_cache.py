"""Features of a frozen network, computed once: a memory-mapped file in the run's folder, and the views that train an output on it.

``features/train.npy`` is (views, images, ...) float32 and ``train.json`` holds its key: a hash of the frozen weights, the data, the
preprocessing and, with augmented views, the augmentation. A file with another key is never read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from saccade.data.dataset import Dataset
from saccade.data.transforms.augment import AugmentedDataset
from saccade.engine.files import atomic, write_json
from saccade.engine.loaders import EpochView, Item, collate_eval, quiet_worker, worker_count
from saccade.models.classify.base import Classifier
from saccade.models.transfer import output_layer, stages
from saccade.types.errors import DataError
from saccade.types.geometry import Geometry
from saccade.types.recipe import Recipe
from saccade.types.sample import Sample, Target

WHERE = Geometry((1, 1), (1, 1))
"""Of a feature: it has no pixels."""


class Output(Classifier):
    """The learning end of a classifier as a model of its own, whose "images" are features; it shares the layers."""

    def __init__(self, model: Classifier, tail: nn.Module) -> None:
        super().__init__(model.num_classes, feature_item)  # type: ignore[arg-type]
        self.tail = tail
        self._classes, self.classes_known, self.class_counts = list(model.classes), model.classes_known, model.class_counts

    def raw(self, images: Any) -> Tensor:
        """Features (N, ...) to logits (N, K)."""
        return self.tail(images).flatten(1)

    def configure(self, recipe: Recipe) -> None:
        """Loss, label smoothing and class weights; nothing here is frozen."""
        super().configure(recipe.replace(transfer="", unfreeze=0, layer_decay=1.0, freeze_norm=False))


def feature_item(sample: Sample) -> Item:
    """What a feature is preprocessed by: nothing."""
    return sample.image, sample.target, WHERE


def cannot_cache(model: nn.Module) -> str:
    """Why the features of a model cannot be kept, or "" when they can."""
    if not isinstance(model, Classifier):
        return "only classifiers have one vector an image"
    if not model.plain_losses or getattr(model, "evaluation", "crop") != "crop":
        return f"{model.build_name or type(model).__name__} has its own losses or predictions"
    found = output_layer(model)
    if found is None:
        return "several layers give the logits"
    return "" if _splits(model, *found) else "what follows the output layer is not known"


def _splits(model: Classifier, layer: nn.Module, tail: nn.Module) -> bool:
    """Whether the tail on what the layer sees gives the logits of the whole, on noise."""
    with torch.no_grad():
        features, logits = _in_eval(model, lambda: seen_by(model, layer, _noise(model)))
        if features is None:
            return False
        again = _in_eval(model, lambda: tail(features).flatten(1))
    return again.shape == logits.shape and torch.allclose(again, logits, rtol=1e-4, atol=1e-5)


def _noise(model: Classifier) -> Tensor:
    return torch.rand((2, model.preprocess.channels, *model.preprocess.size), generator=torch.Generator().manual_seed(0)).to(model.device)


def _in_eval(model: nn.Module, function: Callable[[], Any]) -> Any:
    """A value in eval mode; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return function()
    finally:
        for module, mode in modes:
            module.training = mode


def seen_by(model: Classifier, layer: nn.Module, images: Any) -> tuple[Tensor | None, Tensor]:
    """What a layer sees of a batch (None unless it sees one tensor), and the logits."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        logits = model.raw(images)
    finally:
        hook.remove()
    return (seen[0] if len(seen) == 1 else None), logits


# -- the file -------------------------------------------------------------------------------------


class Features:
    """Features of a data set, mapped into memory when first read: (views, images, ...) float32; and the images that are broken."""

    def __init__(self, path: Path, problems: dict[int, DataError]) -> None:
        self.path, self.problems = path, problems
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}  # a process of its own maps the file anew

    @property
    def array(self) -> np.ndarray:
        """The mapped file."""
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r")
        return self._array

    def feature(self, view: int, i: int) -> Tensor:
        """A copy of one."""
        return torch.from_numpy(np.array(self.array[view, i]))


class _Numbered(TorchDataset[Any]):
    """``[i]``: the number, and a preprocessed image or its error. View 0 is the image, view k > 0 what epoch k - 1 would see."""

    def __init__(self, data: Dataset, preprocess: Callable[[Sample], Item], augmented: AugmentedDataset | None, view: int) -> None:
        self.data, self.preprocess, self.augmented, self.view = data, preprocess, augmented, view

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[int, Any]:
        try:
            sample = self.data[i] if self.augmented is None or not self.view else self.augmented[self.view - 1, i]
        except DataError as error:
            return i, error
        return i, self.preprocess(Sample(sample.image, {}))


def _collate(items: Sequence[tuple[int, Any]]) -> tuple[list[int], dict[int, DataError], Any]:
    broken = {i: item for i, item in items if isinstance(item, DataError)}
    return [i for i, _ in items if i not in broken], broken, collate_eval([item for _, item in items]).images


def cache_key(model: Classifier, data: Dataset, recipe: Recipe, views: int, seed: int) -> str:
    """A hash of all that decides the features."""
    digest = hashlib.sha256()
    learned = set(stages(model)[-1])
    for name, value in model.state_dict().items():
        if name not in learned:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    rest = {"data": data.fingerprint(), "preprocess": model.preprocess.to_dict(), "views": views}
    if views > 1:
        rest |= {"recipe": asdict(recipe), "seed": seed}
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def make_features(
    model: Classifier,
    data: Dataset,
    path: Path,
    *,
    recipe: Recipe,
    views: int = 1,
    seed: int = 0,
    workers: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    say: Callable[[str], None],
) -> Features:
    """The features of a data set, from the file where it has the right key, else computed: each image goes through the network once a view.

    Args:
        model: its frozen part is used, in eval mode.
        path: the ``.npy`` file.
        recipe: augmentation of the views after the first; ``batch_size`` for speed.
        views: how many.
        device: where they are computed.
        resume: a file with another key is an error, since the output was trained on it.

    Raises:
        DataError: no image can be read, or the key has changed since the run began.
    """
    key, facts = cache_key(model, data, recipe, views, seed), path.with_suffix(".json")
    try:
        known = json.loads(facts.read_text(encoding="utf-8"))
        problems = {int(i): DataError(*fields[:2], where=fields[2], hint=fields[3]) for i, fields in known["problems"].items()}
        right = known["key"] == key and path.is_file()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known, problems, right = {}, {}, False
    if right:
        return Features(path, problems)
    if resume and known:
        raise DataError(path, "the frozen weights, the data or the recipe have changed since the run began", hint="start a new run")
    began = time.perf_counter()
    problems = _fill(model, data, path, recipe=recipe, views=views, seed=seed, workers=workers, device=device)
    fields = {i: (p.path, p.problem, p.where, p.hint) for i, p in sorted(problems.items())}
    write_json(facts, {"key": key, "problems": fields})
    size, seconds = path.stat().st_size / 2**20, time.perf_counter() - began
    times = f", {views} views" if views > 1 else ""
    say(f"features: {len(data)} images{times} once through the frozen part in {seconds:.1f} s, {size:.1f} MiB in {path}")
    return Features(path, problems)


def _fill(
    model: Classifier, data: Dataset, path: Path, *, recipe: Recipe, views: int, seed: int, workers: int | None, device: str
) -> dict[int, DataError]:
    """Compute and write the file; the broken images."""
    found = output_layer(model)
    assert found is not None
    layer = found[0]
    problems: dict[int, DataError] = {}
    augmented = AugmentedDataset(data, recipe, model.task, seed=seed) if views > 1 else None
    count, home = worker_count(workers, len(data)), model.device
    path.parent.mkdir(parents=True, exist_ok=True)
    array: np.ndarray | None = None
    model.to(device)
    try:
        with atomic(path) as temporary, torch.inference_mode():
            for view in range(views):
                loader = DataLoader(
                    _Numbered(data, model.preprocess, augmented, view), batch_size=recipe.batch_size, collate_fn=_collate,
                    num_workers=count, worker_init_fn=quiet_worker,
                )  # fmt: skip
                for numbers, broken, images in loader:
                    problems |= broken
                    if not numbers:
                        continue
                    features, _ = _in_eval(model, partial(seen_by, model, layer, images.to(device)))
                    if array is None:
                        array = np.lib.format.open_memmap(
                            temporary, mode="w+", dtype=np.float32, shape=(views, len(data), *features.shape[1:])
                        )
                    array[view, numbers] = features.float().cpu().numpy()
            if array is None:
                first = next(iter(problems.values()))
                raise DataError(first.path, "none of the images can be read", hint=f"the first problem: {first}")
            array.flush()  # type: ignore[attr-defined]
            del array
    finally:
        model.to(home)
    return problems


# -- what trains on it ----------------------------------------------------------------------------


class _Targets:
    """Targets of a data set for classification, nothing decoded."""

    def __init__(self, data: Dataset) -> None:
        self.labels, self.ids, self.paths = [], [], []
        for record in data.map_records(lambda record: record):
            self.labels.append(int(record.label))
            self.ids.append(record.image_id)
            self.paths.append(data.shown_path(record))

    def __getitem__(self, i: int) -> Target:
        return {"image_id": self.ids[i], "path": self.paths[i], "label": torch.tensor(self.labels[i])}


class TrainFeatures(EpochView):
    """Cached features under (epoch, i): view ``(epoch + i) % views``; a broken image is replaced by the next readable one and named."""

    def __init__(self, features: Features, data: Dataset) -> None:
        self.features, self.targets = features, _Targets(data)
        self.labels, self.views = self.targets.labels, len(features.array)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Item, list[DataError]]:
        epoch, i = key
        problems: list[DataError] = []
        while (problem := self.features.problems.get(i)) is not None:  # not all are broken, or there were no file
            problems.append(problem)
            i = (i + 1) % len(self)
        return (self.features.feature((epoch + i) % self.views, i), self.targets[i], WHERE), problems


class EvalFeatures:
    """Cached features as samples, for the evaluation loader; a broken image raises its error."""

    def __init__(self, features: Features, data: Dataset) -> None:
        self.features, self.targets = features, _Targets(data)

    def __len__(self) -> int:
        return len(self.targets.labels)

    def __getitem__(self, i: int) -> Sample:
        if (problem := self.features.problems.get(i)) is not None:
            raise problem
        return Sample(self.features.feature(0, i), self.targets[i])
