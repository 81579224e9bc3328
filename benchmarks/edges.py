"""Edge detectors against human boundaries on BSDS500: ODS, OIS and AP.

python -m benchmarks.edges [--images 67] [--thresholds 20] [--detectors canny sobel ...] [--processes N]

The protocol is that of Arbelaez, Maire, Fowlkes, Malik (PAMI 2011) after Martin, Fowlkes, Malik (PAMI 2004):

* A detector's map is thresholded and thinned. For each person, edge pixels and the person's boundary pixels are matched one to one within
  0.0075 of the image's diagonal, at the least sum of distances, where an unmatched pixel costs 100 times the reach: as many as possible.
* Precision: edge pixels matched by at least one person over all edge pixels. Recall: matched boundary pixels, summed over people, over all
  boundary pixels of all people. F = 2PR / (P + R).
* ODS: the best F over thresholds of the counts summed over images, linear between thresholds. OIS: counts of each image at its own best
  threshold, summed. AP: the area under precision over recall, 0 beyond the recalls that were reached.

Boundaries are the thinned outlines of the segmentations that ``saccade.data.formats.bsds`` reads: pixel for pixel the files' own
``Boundaries``. Thresholds are a fixed geometric grid.

The data here have 67 of the 200 test images and no training images. The defaults of Canny and Marr-Hildreth were chosen on eight images of
every other one ("tuning" in column ``half``); "held out" are the others: the honest number is theirs. Rows named "(default)" are F at the
default thresholds. Published for Canny, on all 200 test images with its scale fitted to the training images: ODS 0.60 (Arbelaez et al.).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, write_csv
from saccade import image as ops
from saccade.data.formats.bsds import read_segmentation
from saccade.types.machine import usable_cores

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))
TOLERANCE = 0.0075

Detector = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
"""Binary maps, not yet thinned, of an RGB float image at ascending thresholds."""


def strengths(name: str, image: np.ndarray, thresholds: np.ndarray, **options: Any) -> list[np.ndarray]:
    strength = getattr(ops, name)(image, threshold=None, **options)
    return [strength > t for t in thresholds]


def canny(image: np.ndarray, thresholds: np.ndarray, sigma: float, ratio: float) -> list[np.ndarray]:
    return [ops.canny(image, sigma=sigma, low=ratio * high, high=high) > 0 for high in thresholds]


DETECTORS: dict[str, tuple[float, Detector]] = {
    "roberts": (0.6, partial(strengths, "roberts_edges")),
    "prewitt": (0.6, partial(strengths, "prewitt_edges", thin=True)),
    "sobel": (0.6, partial(strengths, "sobel_edges", thin=True)),
    "scharr": (0.6, partial(strengths, "scharr_edges", thin=True)),
    "laplacian": (0.6, partial(strengths, "laplacian_edges")),
    **{f"marr_hildreth sigma={s:g}": (0.4, partial(strengths, "marr_hildreth", sigma=s)) for s in (2.0, 3.0, 4.0, 5.0)},
    **{f"canny sigma={s:g} low/high={r:g}": (2.0, partial(canny, sigma=s, ratio=r)) for s in (1.0, 2.0, 3.0, 4.0) for r in (0.2, 0.4)},
}
"""The greatest threshold of each, and its maps."""
DEFAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"canny (default)": ops.canny, "marr_hildreth (default)": ops.marr_hildreth}


def grid(thresholds: int) -> np.ndarray:
    """Shares of the greatest threshold."""
    return np.geomspace(0.01, 1, thresholds)


def boundaries(path: Path) -> list[np.ndarray]:
    """(H, W) bool of each person: outlines between unequal neighbours (right, below, diagonal), thinned."""
    from skimage.morphology import thin

    out: list[np.ndarray] = []
    people = 1
    while len(out) < people:
        regions, people = read_segmentation(path, len(out))
        edge = np.zeros(regions.shape, bool)
        edge[:, :-1] |= regions[:, :-1] != regions[:, 1:]
        edge[:-1] |= regions[:-1] != regions[1:]
        edge[:-1, :-1] |= regions[:-1, :-1] != regions[1:, 1:]
        out.append(thin(edge))
    return out


def matched(edges: np.ndarray, truth: np.ndarray, reach: float) -> tuple[np.ndarray, int]:
    """(edge pixels,) bool in row order: matched one to one with a boundary pixel within reach; and how many were."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    y, x = np.nonzero(truth)
    count = int(edges.sum())
    taken = np.zeros(count, bool)
    r = int(reach)
    numbers = np.full((edges.shape[0] + 2 * r, edges.shape[1] + 2 * r), -1)
    numbers[r : r + edges.shape[0], r : r + edges.shape[1]][edges] = np.arange(count)
    rows, columns, costs = [], [], []
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            distance = float(np.hypot(dy, dx))
            other = numbers[y + r + dy, x + r + dx] if distance <= reach else np.empty(0, int)
            near = np.flatnonzero(other >= 0)
            rows.append(near)
            columns.append(other[near])
            costs.append(np.full(len(near), 1 + distance))  # a cost of 0 would be no pair
    row, column, cost = (np.concatenate(v) for v in (rows, columns, costs))
    if not len(row):
        return taken, 0
    # What hangs together is solved together and nothing else: scipy's time grows with rows times columns. Small parts share a call.
    nodes = len(y) + count
    part = connected_components(csr_array((cost, (row, len(y) + column)), shape=(nodes, nodes)), directed=False)[1][row]
    order = np.argsort(part, kind="stable")
    begins = np.flatnonzero(np.diff(part[order], prepend=-1))
    total = 0
    while len(begins):
        until = max(1, int(np.searchsorted(begins, begins[0] + 2000)))
        chosen = order[begins[0] : begins[until] if until < len(begins) else None]
        begins = begins[until:]
        pairs = cheapest(row[chosen], column[chosen], cost[chosen], 1 + 100 * reach)
        taken[pairs] = True
        total += len(pairs)
    return taken, total


def cheapest(row: np.ndarray, column: np.ndarray, cost: np.ndarray, alone: float) -> np.ndarray:
    """Columns matched at the least sum of costs where a row without a column costs ``alone``."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, row = np.unique(row, return_inverse=True)
    columns, column = np.unique(column, return_inverse=True)
    outside = np.arange(len(rows))  # each row may go to a place of its own outside instead: scipy wants all matched
    graph = csr_array(
        (
            np.concatenate([cost, np.full(len(rows), alone)]),
            (np.concatenate([row, outside]), np.concatenate([column, len(columns) + outside])),
        ),
        shape=(len(rows), len(columns) + len(rows)),
    )
    pairs = min_weight_full_bipartite_matching(graph)[1]
    return np.asarray(columns[pairs[pairs < len(columns)]])


def counts(edges: np.ndarray, people: list[np.ndarray]) -> np.ndarray:
    """(4,): matched edge pixels, edge pixels, matched boundary pixels, boundary pixels."""
    from skimage.morphology import thin

    edges = thin(edges)
    reach = TOLERANCE * float(np.hypot(*edges.shape))
    by_person = [matched(edges, truth, reach) for truth in people]
    precise = np.any([taken for taken, _ in by_person], axis=0).sum()
    return np.array([precise, edges.sum(), sum(n for _, n in by_person), sum(int(t.sum()) for t in people)], dtype=np.int64)


def evaluate(stem: str, names: list[str], thresholds: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(thresholds, 4) counts of an image by detector, and seconds of each detector's maps."""
    from PIL import Image

    root = DATA / "bsds500"
    with Image.open(root / "images" / "test" / f"{stem}.jpg") as file:
        image = np.asarray(file.convert("RGB"), np.float32) / 255
    people = boundaries(root / "groundTruth" / "test" / f"{stem}.mat")
    if people[0].shape != image.shape[:2]:
        raise SystemExit(f"{stem}: boundaries and image differ in size")
    found, times = {}, {}
    for name in names:
        start = time.perf_counter()
        if name in DETECTORS:
            top, detector = DETECTORS[name]
            maps = detector(image, top * grid(thresholds))
        else:
            maps = [DEFAULTS[name](image) > 0]
        times[name] = time.perf_counter() - start
        found[name] = np.stack([counts(m, people) for m in maps])
    return found, times


def f_measure(c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall, F of counts (..., 4)."""
    precision = c[..., 0] / np.maximum(c[..., 1], 1)
    recall = c[..., 2] / np.maximum(c[..., 3], 1)
    return precision, recall, 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def scores(table: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """ODS, its place, OIS and AP of (images, thresholds, 4) counts."""
    precision, recall, _ = f_measure(table.sum(0))
    share = np.linspace(0, 1, 101)[:, None]
    p, r = (v[:-1] * (1 - share) + v[1:] * share if len(v) > 1 else v[None] for v in (precision, recall))
    f = 2 * p * r / np.maximum(p + r, 1e-12)
    best = np.unravel_index(int(f.argmax()), f.shape)
    at = thresholds[:-1] * (1 - share) + thresholds[1:] * share if len(thresholds) > 1 else thresholds[None]
    own = f_measure(table)[2].argmax(1)
    ois = f_measure(table[np.arange(len(table)), own].sum(0))[2]
    order = np.argsort(recall)
    area = float(np.interp(np.linspace(0, 1, 101), recall[order], precision[order], left=0, right=0).mean())
    return {
        "ods": float(f[best]),
        "precision": float(p[best]),
        "recall": float(r[best]),
        "threshold": float(at[best]),
        "ois": float(ois),
        "ap": area,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=67, help="the first so many by name")
    parser.add_argument("--thresholds", type=int, default=20, help="steps of the grid")
    parser.add_argument("--detectors", nargs="*", default=[], help="words of the detectors' names; all by default")
    parser.add_argument("--processes", type=int, default=usable_cores())
    arguments = parser.parse_args()
    stems = sorted(p.stem for p in (DATA / "bsds500" / "images" / "test").glob("*.jpg"))[: arguments.images]
    if not stems:
        raise SystemExit(f"no bsds500 under {DATA}: set SACCADE_DATA")
    names = [n for n in (*DETECTORS, *DEFAULTS) if not arguments.detectors or any(w in n for w in arguments.detectors)]
    start = time.perf_counter()
    work = partial(evaluate, names=names, thresholds=arguments.thresholds)
    with ProcessPoolExecutor(arguments.processes) as pool:
        done = list(pool.map(work, stems))
    print(f"{len(stems)} images in {time.perf_counter() - start:.0f} s", flush=True)
    rows: list[dict[str, Any]] = []
    for name in names:
        table = np.stack([found[name] for found, _ in done])
        milliseconds = 1000 * float(np.median([times[name] for _, times in done]))
        for half, part in (("all", slice(None)), ("tuning", slice(0, None, 2)), ("held out", slice(1, None, 2))):
            if not len(table[part]):
                continue
            row: dict[str, Any] = {"detector": name, "half": half, "images": len(table[part]), "seed": ""}
            if name in DEFAULTS:
                precision, recall, f = f_measure(table[part].sum((0, 1)))
                row |= {"f_default": float(f), "precision": float(precision), "recall": float(recall)}
            else:
                row |= scores(table[part], DETECTORS[name][0] * grid(arguments.thresholds)) | {"thresholds": arguments.thresholds}
            rows.append(row | {"maps_ms": milliseconds})
            print(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    print(write_csv("edges", rows))


if __name__ == "__main__":
    main()
