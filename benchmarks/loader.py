"""Images a second of the training loader against torchvision's ImageFolder line: ``python -m benchmarks.loader [--quick]``.

Both decode, cut a random part of half to all of the area, mirror half of the images, resize, normalise and batch, with the same number of
workers, one epoch a round, in turns. Theirs is ``ImageFolder`` with ``transforms.v2`` (RandomResizedCrop, RandomHorizontalFlip, ToImage,
ToDtype, Normalize) in a ``DataLoader``; ours is what ``saccade.train`` uses. ``ratio`` is theirs over ours in seconds; the lower end of its
95% interval shall be above 0.95, or the program fails. Sets: photographs of textures (dtd10) at 224 pixels, CIFAR-10's JPEGs at 32.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import saccade
from benchmarks.common import ROOT, interleaved, write_csv
from saccade.data.transforms.augment import AugmentedDataset
from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from saccade.engine.loaders import TrainSampler, TrainView, quiet_worker, train_loader
from saccade.types.recipe import Recipe

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))
LEAST = 0.95
SETS = {"dtd10": ("", 224, 32), "cifar10_jpg": ("train", 32, 64)}
"""Set -> folder of its class folders, side of the input, batch size."""


def ours(name: str, size: int, batch: int, workers: int, count: int | None) -> tuple[Any, int]:
    """The training loader of saccade, and its images."""
    data = saccade.load_data(str(DATA / name), "train")
    data = data.subset(range(min(count or len(data), len(data))))
    recipe = Recipe(crop=0.5, hflip=0.5, batch_size=batch)
    augmented = AugmentedDataset(data, recipe, "classify")
    view = TrainView(augmented, Preprocess(mode="stretch", size=(size, size), mean=IMAGENET_MEAN, std=IMAGENET_STD))
    return train_loader(view, TrainSampler(len(data), batch, 0), workers=workers), len(data)


def theirs(name: str, folder: str, size: int, batch: int, workers: int, count: int) -> Any:
    """The line of torchvision over as many files of the set."""
    steps = [
        v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True), v2.RandomHorizontalFlip(), v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]  # fmt: skip
    data = ImageFolder(str(DATA / name / folder), v2.Compose(steps))
    chosen = Subset(data, torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist())
    return DataLoader(
        chosen, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0, worker_init_fn=quiet_worker
    )  # fmt: skip


def epoch(loader: Any) -> int:
    """Images of one epoch."""
    return sum(len(batch[0]) for batch in loader)


def measure(name: str, workers: int, rounds: int, count: int | None) -> dict[str, Any]:
    """A row of results/loader.csv."""
    folder, size, batch = SETS[name]
    mine, images = ours(name, size, batch, workers, count)
    peer = theirs(name, folder, size, batch, workers, images)
    seen = epoch(mine), epoch(peer)
    if seen[0] != seen[1]:
        raise SystemExit(f"{name}: {seen[0]} images against {seen[1]}")
    compared = interleaved(lambda: epoch(mine), lambda: epoch(peer), rounds=rounds, warmup=1)
    row = compared.row()
    rates = {"ours_images_per_s": seen[0] / row["ours_s"], "theirs_images_per_s": seen[0] / row["theirs_s"]}
    return {"set": name, "images": seen[0], "size": size, "workers": workers} | rates | row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 images, one round: a check that it works, no measurement")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    rows = [measure(name, w, 1 if quick else arguments.rounds, 64 if quick else None) for name in SETS for w in ((0,) if quick else (0, 1))]
    for row in rows:
        print(
            f"{row['set']}, {row['workers']} workers: {row['ours_images_per_s']:.0f} images/s, "
            f"torchvision {row['theirs_images_per_s']:.0f}: "
            f"{row['ratio']:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
        )
    if quick:
        return
    write_csv("loader", rows)
    if low := [row for row in rows if row["ratio_low"] <= LEAST]:
        raise SystemExit(f"below {LEAST:g}: {', '.join(row['set'] for row in low)}")


if __name__ == "__main__":
    main()
