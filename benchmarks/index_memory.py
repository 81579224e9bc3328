"""Memory of the data set's index: at most 1 KB an image beside its annotations, to a million images.

python -m benchmarks.index_memory [--most 1000000]

Rows: images for classification (a path of 40 letters, id, size, label) and for detection (also 10 boxes: 16 bytes of corners and 8 of
label each). ``bytes_per_image`` is all that the index holds, annotations included; ``beside_annotations`` is without those 24 bytes
a box. ``resident_bytes_per_image`` is what the process grew by, as the system counts it. The program fails above 1024.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import write_csv
from saccade.data.records import PackedRecords, Record

LIMIT = 1024
BOXES = 10


def records(count: int, boxes: int) -> Iterator[Record]:
    rng = np.random.default_rng(0)
    for k in range(count):
        path = f"train/n{k % 1000:08d}/ILSVRC2012_train_{k:08d}.JPEG"
        record = Record(path, path, (480, 640), label=k % 1000)
        if boxes:
            record.label = None
            record.boxes = rng.random((boxes, 4), dtype=np.float32) * 480
            record.labels = rng.integers(0, 80, boxes)
        yield record


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(count: int, boxes: int) -> dict[str, float | int | str]:
    gc.collect()
    before = resident()
    start = time.perf_counter()
    index = PackedRecords(records(count, boxes))
    seconds = time.perf_counter() - start
    gc.collect()
    grown = resident() - before
    places = np.random.default_rng(1).integers(0, count, 20_000).tolist()
    start = time.perf_counter()
    for place in places:
        index[place]
    access = (time.perf_counter() - start) / len(places)
    each = index.nbytes / count
    return {
        "task": "detect" if boxes else "classify",
        "images": count,
        "boxes_per_image": boxes,
        "bytes_per_image": round(each, 1),
        "beside_annotations": round(each - 24 * boxes, 1),
        "resident_bytes_per_image": round(grown / count, 1),
        "pack_s": seconds,
        "access_us": access * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000, help="images of the largest row")
    most = parser.parse_args().most
    rows = []
    for boxes in (0, BOXES):
        for count in sorted({min(n, most) for n in (1_000, 20_000, 100_000, most)}):
            rows.append(measure(count, boxes))
            print(rows[-1], flush=True)
    print(write_csv("index_memory", rows))
    worst = max(float(row["beside_annotations"]) for row in rows)
    if worst > LIMIT:
        raise SystemExit(f"{worst:.0f} bytes an image beside its annotations: more than {LIMIT}")


if __name__ == "__main__":
    main()
