"""Transfer learning without a hub: ``python -m benchmarks.transfer [dtd10|orl_faces|hymenoptera] [--quick] [--out FOLDER]``.

A network is trained on the CIFAR-10 subset (``cifar10_jpg``: 32x32 pixels, 10 classes), then meets a small set of other pictures in three
ways, three seeds each, all through ``saccade.train``: from scratch, fine-tuned (all stages, the early ones slower), and with only its
output learning on kept features. Same images, size and epochs for all three; the last weights count, so that nothing is chosen by any
image but those that are learnt from; test images are looked at once. The seed decides initial weights, order, augmentation and, where a
set states no splits, the splits. Interrupted, the same command with the same ``--out`` goes on.

results/transfer.csv has a row a run: test accuracy, images, seconds of training, seed. Sets are read from SACCADE_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import saccade
from benchmarks.common import ROOT, write_csv

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))
MODEL = "resnet18"
SOURCE = "cifar10_jpg"
TESTS = {"dtd10": "test", "orl_faces": "test", "hymenoptera": "val"}
"""Target -> the split that is measured on; hymenoptera states train and val only."""

WAYS: dict[str, dict[str, Any]] = {
    "scratch": {"recipe.transfer": "scratch"},
    "finetune": {"recipe.transfer": "finetune", "recipe.layer_decay": 0.6},
    "features": {"recipe.transfer": "features", "recipe.cached_views": 4, "recipe.lr": 3e-3},
}
SEEDS = (0, 1, 2)


def trained(data: Any, folder: Path, options: dict[str, Any], seed: int, weights: Path | None = None) -> saccade.Run:
    """A finished run: the one that lies there, resumed, or new."""
    if (folder / "run.json").is_file():
        return saccade.open_run(folder)
    if (folder / "config.yaml").is_file():
        return saccade.resume(folder, data=None if isinstance(data, str) else (data, None))
    return saccade.train(
        MODEL, data, folder=folder, options=options, seed=seed, val_split="none", weights=weights and str(weights), allow_leaks=True
    )


def compare(target: str, size: int, epochs: int, out: Path, *, quick: bool) -> list[dict[str, Any]]:
    """A row a run."""
    source: Any = str(DATA / SOURCE)
    learnt: Any = str(DATA / target)
    if quick:
        source = saccade.load_data(source, "train").subset(range(0, 4000, 100))
        learnt = saccade.load_data(learnt, "train").subset(range(0, 60, 3))
    rows = []
    shared = {"model.size": size, "recipe.batch_size": 32 if not quick else 8, "recipe.precision": "auto"}
    first = trained(source, out / "pretrain", shared | {"recipe.epochs": max(epochs // 2, 1)}, 0)
    for seed in SEEDS[: 1 if quick else None]:
        test = saccade.load_data(str(DATA / target), TESTS[target], seed=seed)
        test = test.subset(range(0, len(test), 3)) if quick else test
        for way, options in WAYS.items():
            run = trained(
                learnt, out / f"{target}-{way}-{seed}", shared | {"recipe.epochs": epochs} | options, seed,
                None if way == "scratch" else first.folder,
            )  # fmt: skip
            facts = json.loads((run.folder / "run.json").read_text())
            rows.append(
                {
                    "target": target, "way": way, "seed": seed, "model": MODEL, "source": SOURCE, "size": size,
                    "epochs": epochs, "train": facts["images"]["train"], "test": len(test), "learn": facts["parameters"]["learn"],
                    "training_s": facts["training_seconds"], "accuracy": saccade.evaluate(run.folder, test)["accuracy"],
                }
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=tuple(TESTS), default="dtd10")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=30, help="on the target; half as many on CIFAR-10")
    parser.add_argument("--quick", action="store_true", help="few small images, one epoch, one seed: a check that it works, no measurement")
    parser.add_argument("--out", type=Path, help="where the runs lie; default: a folder that goes at the end")
    arguments = parser.parse_args()
    size, epochs = (32, 1) if arguments.quick else (arguments.size, arguments.epochs)
    with tempfile.TemporaryDirectory() as temporary:
        rows = compare(arguments.target, size, epochs, arguments.out or Path(temporary), quick=arguments.quick)
    if not arguments.quick:
        write_csv("transfer", rows)
    for way in WAYS:
        values = [row["accuracy"] for row in rows if row["way"] == way]
        print(f"{way:>9}: test accuracy {np.mean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})")


if __name__ == "__main__":
    main()
