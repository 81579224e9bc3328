"""From a data set to batches: views that augment and preprocess in workers, and samplers that neither workers nor a resume change.

An index is the pair (epoch, i): what happens to an image is a function of (seed, epoch, i) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from saccade.data.transforms.augment import AugmentedDataset
from saccade.data.transforms.preprocess import Preprocess
from saccade.types.errors import DataError
from saccade.types.geometry import Geometry
from saccade.types.machine import keep_memory, usable_cores
from saccade.types.sample import Batch, Sample, Target, collate

Item = tuple[Tensor, Target, Geometry]


class EpochView(TorchDataset[Any]):
    """Base of views for a :class:`TrainSampler`: ``view[(epoch, i)]`` gives an item, and the problems that stood in its way."""


class TrainView(EpochView):
    """``view[(epoch, i)]``: decode, augment, preprocess. A broken image is replaced by the next readable one and named."""

    def __init__(self, data: AugmentedDataset, preprocess: Callable[[Sample], Item]) -> None:
        self.data, self.preprocess = data, preprocess

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Item, list[DataError]]:
        epoch, i = key
        problems: list[DataError] = []
        for step in range(len(self)):
            try:
                return self.preprocess(self.data[epoch, (i + step) % len(self)]), problems
            except DataError as error:
                problems.append(error)
        raise DataError(problems[0].path, "none of the images can be read", hint="the first problem: " + str(problems[0]))


class EvalView(TorchDataset[Any]):
    """``view[i]``: decode and preprocess, with the truth in original pixels. A broken image gives its error instead."""

    def __init__(self, data: Any, preprocess: Preprocess) -> None:
        self.data, self.preprocess = data, preprocess

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Any, ...] | DataError:
        try:
            sample = self.data[i]
        except DataError as error:
            return error
        return *self.preprocess(sample), sample.target


def collate_train(items: Sequence[tuple[Item, list[DataError]]], batch_transform: Callable[[Batch], Batch] | None = None) -> Batch:
    """Items of a :class:`TrainView` to a batch."""
    batch = collate([item for item, _ in items])._replace(problems=tuple(p for _, problems in items for p in problems))
    return batch_transform(batch) if batch_transform else batch


def collate_eval(items: Sequence[Any]) -> Batch:
    """Items of an :class:`EvalView` to a batch, broken ones listed; all broken gives an empty batch."""
    problems = tuple(item for item in items if isinstance(item, DataError))
    good = [item for item in items if not isinstance(item, DataError)]
    if not good:
        return Batch([], [], [], [], problems)
    return collate(good)._replace(problems=problems)


class TrainSampler:
    """Batches of (epoch, i): a permutation a (seed, epoch), cut into batches, each shared out over the ranks.

    ``batch_size`` is the whole batch of all ranks. The last incomplete batch is dropped when there is a full one, so every
    batch weighs the same and a norm layer never sees a single image.

    With ``labels`` (length,) the images are drawn with replacement, each with a chance of 1 / (images of its class): all classes are
    equally frequent. It is still a function of (seed, epoch).
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1, labels: Sequence[int] | None = None
    ) -> None:
        if batch_size % world:
            raise ValueError(f"batch size {batch_size} does not divide over {world} devices")
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.chances: Tensor | None = None
        if labels is not None:
            known = torch.as_tensor(labels)
            self.chances = 1 / known.bincount().double()[known]
        self.batch_size = batch_size if length >= batch_size else max(length // world * world, world)
        self.epoch, self.start = 0, 0

    @property
    def sampler(self) -> TrainSampler:
        """Lightning looks for ``batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch; a resumed epoch keeps its start."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume(self, epoch: int, batches: int) -> None:
        """Continue inside an epoch after so many batches."""
        self.epoch, self.start = epoch, batches

    def __len__(self) -> int:
        return max(self.length // self.batch_size, 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        if self.chances is None:
            order = torch.randperm(self.length, generator=generator).tolist()
        else:
            order = torch.multinomial(self.chances, self.length, replacement=True, generator=generator).tolist()
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, i) for i in batch[self.rank :: self.world]]


def train_loader(
    view: EpochView,
    sampler: TrainSampler,
    *,
    workers: int | None = None,
    batch_transform: Callable[[Batch], Batch] | None = None,
) -> DataLoader[Any]:
    """The training loader."""
    count = worker_count(workers, sampler.length)
    return DataLoader(
        view,
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=partial(collate_train, batch_transform=batch_transform),
        num_workers=count,
        persistent_workers=count > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=quiet_worker,
    )


def eval_loader(
    data: Any, preprocess: Preprocess, batch_size: int, *, workers: int | None = None, rank: int = 0, world: int = 1
) -> DataLoader[Any]:
    """The evaluation loader: every image once, each rank its own share."""
    view = EvalView(data, preprocess)
    indices = list(range(rank, len(view), world))
    count = worker_count(workers, len(indices))
    return DataLoader(
        torch.utils.data.Subset(view, indices),
        batch_size=batch_size,
        collate_fn=collate_eval,
        num_workers=count,
        persistent_workers=count > 0,
        worker_init_fn=quiet_worker,
    )


def quiet_worker(_: int) -> None:
    """A worker decodes with one thread and leaves Ctrl-C and SIGTERM to its parent: a scheduler sends them to the whole group.

    (It ends when the parent closes its queue, or is gone.)
    """
    import signal

    keep_memory()
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def worker_count(asked: int | None, images: int) -> int:
    """As asked; else none for a handful of images, and one a spare core up to eight."""
    if asked is not None:
        return asked
    if images < 64:
        return 0
    return max(1, min(usable_cores() - 1, 8))
