"""Near pairs among 100 000 hashes against a search by all pairs, and duplicates among 20 000 MNIST pictures.

python -m benchmarks.duplicates [--hashes 100000] [--rounds 3] [--images 20000]

The hashes are random ones and, in a tenth, copies with up to ten bits changed: what a set of photos looks like. "all pairs" is the plain
numpy search: XOR and ``bitwise_count`` of each row with the rest, ten rows at a time so that all stays in the cache, with
``flatnonzero`` (``nonzero`` of rows takes six times as long). Both give the same pairs (checked). The pictures are those of
``mnist/png`` under SACCADE_DATA; their rows are left out where they are missing. Near copies are looked for in all eight ways to lay a
picture down.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, interleaved, write_csv
from saccade.data.duplicates import RADIUS, find_duplicates, quick_leaks
from saccade.data.load import load_data
from saccade.features.hashes import near_pairs
from saccade.types.machine import usable_cores

ROWS = 10

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))


def hashes(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    out = random.integers(0, 2**64, count, dtype=np.uint64)
    copies = count // 10
    out[-copies:] = out[:copies]
    for _ in range(10):
        flip = random.integers(0, 64, copies).astype(np.uint64)
        out[-copies:] ^= (np.uint64(1) << flip) * (random.random(copies) < 0.5)
    return out[random.permutation(count)]


def all_pairs(values: np.ndarray, radius: int) -> np.ndarray:
    found = []
    for start in range(0, len(values), ROWS):
        rest = values[start:]
        i, j = divmod(np.flatnonzero(np.bitwise_count(values[start : start + ROWS, None] ^ rest) <= radius), len(rest))
        found.append(np.stack([i, j], axis=1)[i < j] + start)
    return np.concatenate(found)


def search(count: int, radius: int, rounds: int) -> dict[str, Any]:
    values = hashes(count)
    if not np.array_equal(near_pairs(values, radius), all_pairs(values, radius)):
        raise SystemExit(f"the two searches differ at radius {radius}")
    times = interleaved(lambda: near_pairs(values, radius), lambda: all_pairs(values, radius), rounds=rounds, warmup=0)
    return {"what": "near pairs of hashes", "count": count, "radius": radius, "pairs": len(near_pairs(values, radius))} | times.row(
        "ours", "all_pairs"
    )


def pictures(count: int) -> list[dict[str, Any]]:
    folder = DATA / "mnist" / "png"
    if not folder.is_dir():
        print(f"no {folder}: the rows of pictures are left out")
        return []
    data = load_data(folder)
    data = data.subset(np.arange(min(count, len(data))))
    rows = []
    for what, options in (("exact and near", {}), ("exact", {"near": False})):
        start = time.perf_counter()
        found = find_duplicates(data, **options)
        seconds = time.perf_counter() - start
        row = {"what": f"find_duplicates, {what}, {usable_cores()} processes", "count": len(data), "pairs": len(found.pairs)}
        rows.append(row | {"ours_s": seconds, "images_per_s": len(data) / seconds})
        print(rows[-1], flush=True)
    order = np.random.default_rng(0).permutation(len(data))
    data.index.splits = {"train": data.indices[np.sort(order[len(order) // 4 :])], "test": data.indices[np.sort(order[: len(order) // 4])]}
    start = time.perf_counter()
    found_leaks = quick_leaks(data.index)
    seconds = time.perf_counter() - start
    rows.append(
        {"what": "quick_leaks", "count": len(data), "pairs": len(found_leaks), "ours_s": seconds, "images_per_s": len(data) / seconds}
    )
    print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hashes", type=int, default=100_000, help="number of hashes")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each search")
    parser.add_argument("--images", type=int, default=20_000, help="number of pictures")
    arguments = parser.parse_args()
    rows = []
    for radius in sorted({4, 8, RADIUS}):
        rows.append(search(arguments.hashes, radius, arguments.rounds))
        print(rows[-1], flush=True)
    rows += pictures(arguments.images)
    print(write_csv("duplicates", rows))


if __name__ == "__main__":
    main()
