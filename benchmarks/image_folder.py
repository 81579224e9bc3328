"""``saccade image`` on a folder of 1 000 photos: how busy the cores are, how much memory a process takes, against a loop with OpenCV.

python -m benchmarks.image_folder [--images 1000] [--rounds 3]

The folder holds the photos of bccd (640 x 480, JPEG), each under several names. Ours is the whole command, start of Python included;
the peer is the loop that one would write with OpenCV (imread, the filter, imwrite), in a process of its own, on all cores of OpenCV's
threads. ``busy_cores`` is processor time of the command and its workers over wall time; ``ratio`` is the loop's time over ours.
``command_mib`` is the most that any one process of the command held. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, write_csv
from saccade.types.machine import usable_cores

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))

LOOP = """
import sys, pathlib, cv2
source, out = map(pathlib.Path, sys.argv[1:3])
out.mkdir()
for path in sorted(source.iterdir()):
    image = cv2.imread(str(path))
    cv2.imwrite(str(out / path.name), {call})
"""
CASES = {
    "gaussian": (["gaussian", "--set", "sigma=2"], "cv2.GaussianBlur(image, (17, 17), 2)"),
    "median": (["median", "--set", "size=5"], "cv2.medianBlur(image, 5)"),
    "non_local_means": (["non_local_means", "--set", "h=0.04", "--set", "search=11"], "cv2.fastNlMeansDenoising(image, None, 10.2, 7, 11)"),
}
"""Arguments of ours, and the loop's call."""


def run(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and MiB of the largest process of a command and all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - start
    with contextlib.suppress(ChildProcessError):  # workers whose parent has ended come to us: only who waits for a process sees its time
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--operations", nargs="*", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    photos = sorted((DATA / "bccd" / "JPEGImages").glob("*.jpg"))
    if not photos:
        raise SystemExit(f"no bccd under {DATA}: set SACCADE_DATA")
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "in")
        source.mkdir()
        for k in range(arguments.images):
            shutil.copy(photos[k % len(photos)], source / f"{k:04d}.jpg")
        for name in arguments.operations:
            ours, call = CASES[name]
            out = Path(temporary, "out")
            commands = {
                "ours": [sys.executable, "-m", "saccade", "image", ours[0], str(source), str(out), *ours[1:]],
                "loop": [sys.executable, "-c", LOOP.format(call=call), str(source), str(out)],
            }
            times: dict[str, list[tuple[float, float, float]]] = {"ours": [], "loop": []}
            for turn in range(arguments.rounds):
                for which in ("ours", "loop") if turn % 2 == 0 else ("loop", "ours"):
                    times[which].append(run(commands[which]))
                    made = len(list(out.iterdir()))
                    shutil.rmtree(out)
                    if made != arguments.images:
                        raise SystemExit(f"{name}, {which}: {made} pictures of {arguments.images}")
            wall, processor, _ = sorted(times["ours"])[arguments.rounds // 2]
            loop = sorted(times["loop"])[arguments.rounds // 2]
            rows.append(
                {
                    "operation": name,
                    "images": arguments.images,
                    "rounds": arguments.rounds,
                    "seed": "",
                    "ours_s": wall,
                    "images_per_s": arguments.images / wall,
                    "busy_cores": processor / wall,
                    "cores": usable_cores(),
                    "loop_s": loop[0],
                    "loop_busy_cores": loop[1] / loop[0],
                    "ratio": loop[0] / wall,
                    "command_mib": times["ours"][0][2],  # the first: a later number holds the loop's too
                }
            )
            print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    print(write_csv("image_folder", rows))


if __name__ == "__main__":
    main()
