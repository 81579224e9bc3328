"""Seconds an epoch of transfer learning with kept features against the whole network: ``python -m benchmarks.feature_cache [--quick]``.

resnet18 with random weights (the time does not depend on them) on photographs of 224x224 pixels that this program draws, frozen but for its
output: ``recipe.cached_views=1`` against 0, both without augmentation, in turns, by the program itself (``saccade.train``). An epoch is the
time between the ends of two, validation included; the first is not counted, in which features are computed and workers start (its cost is
the column ``fill_s``). ``ratio`` says how many times faster a kept epoch is; its 95% interval shall lie above 20, or the program fails.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import saccade
from benchmarks.common import Comparison, write_csv
from saccade.models.registry import create_model

LEAST = 20.0
CLASSES = ("a", "b", "c", "d")
PLAIN = {"hflip": 0.0, "crop": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def draw(root: Path, train: int, val: int) -> None:
    """JPEG files of smooth noise, 300x260, a folder a class."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            small = Image.fromarray(random.integers(0, 256, (13, 15, 3)).astype(np.uint8))
            path = root / split / CLASSES[i % len(CLASSES)] / f"{i:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            small.resize((300, 260), Image.Resampling.BICUBIC).save(path, quality=90)


def run(data: Path, folder: Path, weights: Path, size: int, epochs: int, views: int) -> tuple[list[float], float]:
    """Seconds of the epochs after the first, and from the start to the first's end."""
    ends: list[float] = []

    def say(text: str) -> None:
        if text.startswith("epoch "):
            ends.append(time.perf_counter())

    began = time.perf_counter()
    saccade.train(
        "resnet18", data, folder=folder, weights=str(weights), report=False, say=say, accelerator="cpu",
        options={"model.size": size, "recipe.transfer": "features", "recipe.cached_views": views, "recipe.epochs": epochs}
        | {f"recipe.{key}": value for key, value in PLAIN.items()},
    )  # fmt: skip
    return np.diff(ends).tolist(), ends[0] - began


def measure(train: int, val: int, size: int, rounds: int) -> dict[str, Any]:
    """A row of results/feature_cache.csv."""
    kept, whole, fills = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        draw(root / "data", train, val)
        torch.manual_seed(0)
        model = create_model("resnet18", len(CLASSES), size=size)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, root / "start.safetensors")
        for turn in range(rounds):
            for views in (1, 0) if turn % 2 == 0 else (0, 1):
                times, first = run(root / "data", root / f"run{turn}-{views}", root / "start.safetensors", size, 6 if views else 2, views)
                (kept if views else whole).append(float(np.median(times)))
                fills += [first] if views else []
    compared = Comparison(np.array(kept), np.array(whole))
    return {"model": "resnet18", "size": size, "train": train, "val": val, "fill_s": float(np.median(fills))} | compared.row(
        "kept", "whole"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, one round: a check that it works, no measurement")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    row = measure(48, 16, 64, 1) if arguments.quick else measure(400, 100, 224, arguments.rounds)
    if not arguments.quick:
        write_csv("feature_cache", [row])
    low, high = row["ratio_low"], row["ratio_high"]
    print(f"kept {row['kept_s']:.3f} s, whole {row['whole_s']:.3f} s an epoch: {row['ratio']:.1f} times faster ({low:.1f} to {high:.1f})")
    if not arguments.quick and low <= LEAST:
        raise SystemExit(f"the interval does not lie above {LEAST:g}")


if __name__ == "__main__":
    main()
