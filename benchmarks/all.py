"""Every benchmark of this folder in turn, each in a process of its own: ``make bench``.

python -m benchmarks.all [--quick] [--accuracy]

One that fails does not stop the others; the exit status is 1 when any did. Each writes results/NAME.csv with the command in every row.
The trainings on real images (benchmarks.accuracy, benchmarks.compare, benchmarks.transfer) take hours and run with ``--accuracy`` only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ARGUMENTS = {"accuracy": ["all"], "compare": ["all"]}
LONG = ("accuracy", "compare", "transfer")
"""Trainings on real images."""
QUICK = {
    "coco_eval": ["--images", "200", "--rounds", "1"],
    "coco_read": ["--annotations", "20000", "--rounds", "1"],
    "convert": ["--set", "bccd"],
    "coverage": ["--images", "20", "--repetitions", "50"],
    "faster_rcnn": ["--rounds", "3"],
    "feature_cache": ["--quick"],
    "denoise": ["--sets", "Set5", "--sigmas", "25", "--images", "1", "--methods", "median"],
    "edges": ["--images", "1", "--thresholds", "3", "--detectors", "canny"],
    "fuzz": ["--count", "200"],
    "haar": ["--stages", "3", "--features", "300", "--others", "300"],
    "image_folder": ["--images", "20", "--rounds", "1", "--operations", "gaussian"],
    "image_memory": ["--megapixels", "1", "--operations", "invert"],
    "image_ops": ["--rounds", "1", "--megapixels", "0.1", "--operations", "invert"],
    "import_time": ["--quick"],
    "index_memory": ["--most", "20000"],
    "loader": ["--quick"],
    "prediction": ["--quick"],
    "ssd": ["--rounds", "3"],
    "training": ["--quick"],
    "transfer": ["--quick"],
    "yolov5": ["--quick"],
}
"""Arguments of a short run."""


def names() -> list[str]:
    """The benchmarks, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "all", "common"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs: a check that they work, no measurement")
    parser.add_argument("--accuracy", action="store_true", help="the trainings on real images too")
    arguments = parser.parse_args()
    failed = []
    for name in names():
        if name in LONG and not (arguments.accuracy or (name in QUICK and arguments.quick)):
            continue
        extra = ARGUMENTS.get(name, []) + (QUICK.get(name, []) if arguments.quick else [])
        print(f"-- {name}", flush=True)
        start = time.perf_counter()
        status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *extra], cwd=FOLDER.parent).returncode
        print(f"-- {name}: {'failed' if status else 'done'} in {time.perf_counter() - start:.0f} s", flush=True)
        failed += [name] if status else []
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
