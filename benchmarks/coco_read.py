"""Reading COCO JSON of a million annotations into the index, against ``pycocotools.coco.COCO(file)``: time and peak memory.

python -m benchmarks.coco_read [--annotations 1000000] [--rounds 3]

The file is made here: 8 annotations an image, each with a box, an area and a polygon of 6 to 34 points with two decimals, as in COCO.
Every reading runs in a process of its own, in turns; the time is that of the call, imports aside; the peak is ``ru_maxrss`` of the whole
process, imports included (ours brings torch, pycocotools matplotlib). ``time_ratio`` and ``memory_ratio`` are ours by theirs: the program
fails when one is above 1.0. pycocotools keeps the JSON's dicts and tables from ids to them; ours checks every box and polygon and packs
arrays.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, Comparison, write_csv

AN_IMAGE = 8
CLASSES = 80
LEAST = 500_000
"""Annotations from which on the ratios are judged: below, the memory is that of the imports."""


def make(path: Path, count: int) -> None:
    """Write the file, 10 000 annotations at a time."""
    rng = np.random.default_rng(0)
    images = [
        {"id": 100_000 + k, "file_name": f"{k:012d}.jpg", "width": 640, "height": 480, "license": 1, "date_captured": "2013-11-14 17:02:52"}
        for k in range(-(-count // AN_IMAGE))
    ]
    categories = [{"id": k, "name": f"class {k}", "supercategory": "thing"} for k in range(1, CLASSES + 1)]
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"info": {{}}, "licenses": [], "images": {json.dumps(images)}, "annotations": [')
        for start in range(0, count, 10_000):
            many = min(10_000, count - start)
            corner, side = rng.random((many, 2)) * [400, 300], 20 + rng.random((many, 2)) * [200, 150]
            boxes = np.round(np.hstack([corner, side]), 2).tolist()
            points = rng.integers(6, 35, many).tolist()
            offsets = rng.random((many, 34, 2))
            items = []
            for k in range(many):
                polygon = np.round(corner[k] + offsets[k, : points[k]] * side[k], 2).reshape(-1).tolist()
                number = start + k
                items.append({
                    "segmentation": [polygon], "area": round(boxes[k][2] * boxes[k][3] * 0.6, 4), "iscrowd": 0, "bbox": boxes[k],
                    "image_id": 100_000 + number // AN_IMAGE, "category_id": number % CLASSES + 1, "id": 1_000_000 + number,
                })  # fmt: skip
            file.write((", " if start else "") + json.dumps(items)[1:-1])
        file.write(f'], "categories": {json.dumps(categories)}}}')


def read(which: str, path: Path) -> dict[str, Any]:
    """Read the file in this process: seconds by the wall and of the processor, peak memory in MB before and after, annotations read."""
    if which == "saccade":
        from saccade.data.formats import coco

        before = peak()
        start = times()
        index = coco.read(path, check_files=False)
        seconds, cpu = times() - start
        after, count = peak(), sum(len(r.boxes) for r in index.records)
    else:
        from pycocotools.coco import COCO

        before = peak()
        start = times()
        theirs = COCO(str(path))
        seconds, cpu = times() - start
        after, count = peak(), len(theirs.anns)
    return {"seconds": float(seconds), "cpu": float(cpu), "before": before, "peak": after, "annotations": count}


def times() -> np.ndarray:
    """Seconds by the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def peak() -> float:
    """Most memory that this process has had so far, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 if sys.platform != "darwin" else 2**20)


def measured(which: str, path: Path) -> dict[str, Any]:
    """:func:`read` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.coco_read", "--read", which, str(path)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read[0], Path(arguments.read[1]))))
        return
    runs: dict[str, list[dict[str, Any]]] = {"saccade": [], "pycocotools": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        make(path, arguments.annotations)
        size = path.stat().st_size
        for turn in range(arguments.rounds):
            for which in ("saccade", "pycocotools") if turn % 2 == 0 else ("pycocotools", "saccade"):
                runs[which].append(measured(which, path))
                print(which, runs[which][-1], flush=True)
    if {run["annotations"] for many in runs.values() for run in many} != {arguments.annotations}:
        raise SystemExit("not all annotations were read")
    wall = Comparison(*(np.array([run["seconds"] for run in runs[which]]) for which in ("saccade", "pycocotools")))
    row: dict[str, Any] = {"annotations": arguments.annotations, "file_mb": size / 2**20} | wall.row("saccade", "pycocotools")
    for which, many in runs.items():
        row[f"{which}_peak_mb"] = float(np.median([run["peak"] for run in many]))
        row[f"{which}_cpu_s"] = float(np.median([run["cpu"] for run in many]))
        row[f"{which}_imports_mb"] = float(np.median([run["before"] for run in many]))
    row["time_ratio"] = 1 / row["ratio"]
    row["memory_ratio"] = row["saccade_peak_mb"] / row["pycocotools_peak_mb"]
    print(write_csv("coco_read", [row]))
    print(f"time {row['time_ratio']:.2f}, memory {row['memory_ratio']:.2f} of pycocotools'")
    if arguments.annotations >= LEAST and max(row["time_ratio"], row["memory_ratio"]) > 1:
        raise SystemExit("slower or larger than pycocotools")


if __name__ == "__main__":
    main()
