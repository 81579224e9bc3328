"""Inspection of real sets: images/s with one process and with one a core, against a plain loop that only decodes the same files.

python -m benchmarks.inspect [--sets bccd mnist] [--rounds 3]

``bccd`` is its 364 images with boxes, ``mnist`` the 20 000 PNGs of the training set. ``plain_s`` opens each file with Pillow and
decodes it, in one process: the least that any inspection must do. ``cores`` is the processor time of the run with workers over its wall
time, so 2.0 means that both cores were busy. Duplicates are part of the inspection.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import write_csv
from saccade.data.inspect import inspect_data
from saccade.data.load import load_data
from saccade.types.machine import usable_cores

SETS = {"bccd": ("bccd", None), "mnist": ("mnist/png/train", None)}


def plain(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and processor seconds of this process and its children."""
    before, start = os.times(), time.perf_counter()
    function()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", default=os.environ.get("SACCADE_DATA", "../shared/datasets"))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        folder, form = SETS[name]
        data = load_data(Path(arguments.root) / folder, format=form)
        paths = [data.path(data.record(i)) for i in range(len(data))]
        plain(paths)  # the files into the page cache
        times: dict[str, list[tuple[float, float]]] = {"plain": [], "one": [], "all": []}
        for _ in range(arguments.rounds):
            times["plain"].append(timed(lambda: plain(paths)))  # noqa: B023
            times["one"].append(timed(lambda: inspect_data(data, workers=0)))  # noqa: B023
            times["all"].append(timed(lambda: inspect_data(data, workers=usable_cores())))  # noqa: B023
        walls = {key: float(np.median([w for w, _ in values])) for key, values in times.items()}
        busy = float(np.median([cpu / wall for wall, cpu in times["all"]]))
        rows.append(
            {
                "set": name, "images": len(data), "rounds": arguments.rounds, "plain_s": walls["plain"], "one_process_s": walls["one"],
                "workers": usable_cores(), "workers_s": walls["all"], "images_per_s": len(data) / walls["all"], "cores": round(busy, 2),
                "one_over_plain": walls["one"] / walls["plain"],
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    print(write_csv("inspect", rows))


if __name__ == "__main__":
    main()
