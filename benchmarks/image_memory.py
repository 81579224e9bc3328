"""Memory of every image operation on 12 megapixels of RGB: what a process grows by, over the image's own bytes.

python -m benchmarks.image_memory [--megapixels 12] [--operations canny median ...]

Each operation runs with its defaults in a process of its own, once on 64 x 64 pixels (imports, pools) and then on the photo; ``times`` is
the peak that the system counted (VmHWM) above what was held before, over the bytes of the image: the result counts, the input does not.
The allocator gives freed blocks back at once, so that nothing that was used before hides what an operation takes.
Operations that take minutes at 12 megapixels run on a part (column ``megapixels``). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import write_csv
from benchmarks.image_ops import photo
from saccade import image as ops

LIMIT = 4
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc: blocks of 64 KiB and more go back to the system when they are freed."""
SLOW = {"non_local_means": 1 / 48, "total_variation": 1 / 12, "graph_segments": 1 / 12, "graph_regions": 1 / 12}
"""The share of the image that slow operations get."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    "correlate": {"kernel": "mean:5"},
    "crop": {"top": 0, "left": 0, "height": 1000, "width": 1000},
    "resize": {"size": (1500, 2000)},
    "slice_levels": {"low": 0.4, "high": 0.6},
    "frame": {"above": 10},
    "affine": {"matrix": [[1.0, 0.1, 0.0], [0.0, 1.0, 0.0]]},
    "perspective": {"matrix": [[1.0, 0.1, 0.0], [0.0, 1.0, 0.0], [1e-5, 0.0, 1.0]]},
}
LEFT_OUT = ("merge", "n4", "n8", "bits_per_pixel")


def status(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(name: str, megapixels: float) -> dict[str, Any]:
    """Peak above what was held before, of one operation in this process."""
    entry = ops.operations()[name]
    image = photo(megapixels)
    arguments = ARGUMENTS.get(name, {})
    small = np.ascontiguousarray(image[:64, :64])
    inputs = [image] + [image[::-1].copy()] * (entry.inputs - 1)
    entry.function(*[small] * len(inputs), **arguments | ({"height": 9, "width": 9} if name == "crop" else {}))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    result = entry.function(*inputs, **arguments)
    grown = status("VmHWM") - before
    del result
    return {"megapixels": round(image.shape[0] * image.shape[1] / 1e6, 2), "grown_mib": grown / 2**20, "times": grown / image.nbytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--operations", nargs="*", default=[], help="all by default")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.megapixels)))
        return
    rows: list[dict[str, Any]] = []
    for name in arguments.operations or [n for n in ops.operations() if n not in LEFT_OUT]:
        pixels = arguments.megapixels * SLOW.get(name, 1)
        command = [sys.executable, "-m", "benchmarks.image_memory", "--one", name, "--megapixels", str(pixels)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ALLOCATOR)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        rows.append({"operation": name, "seed": 0} | json.loads(done.stdout.splitlines()[-1]))
        mark = " <- more than 4 times" if rows[-1]["times"] > LIMIT else ""
        print(f"{name} {rows[-1]['times']:.2f}{mark}", flush=True)
    print(write_csv("image_memory", rows))


if __name__ == "__main__":
    main()
