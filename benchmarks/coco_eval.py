"""COCO evaluation: ours (arrays, a compiled matcher) against pycocotools, from the same two JSON files to the twelve numbers.

python -m benchmarks.coco_eval [--images 5000] [--rounds 5]

Both sides read the files and end with all their numbers; ours also checks every entry and gives AP by class, VOC's two and precision,
recall and F1. Both run on one thread; seconds are this process' processor time, which a busy neighbour does not stretch much. It fails
when the twelve differ by more than 1e-6. Rows: the synthetic set, and coco_mini's truth with perturbed detections where the real sets are
at hand (SACCADE_DATA, or ../shared/datasets).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, interleaved, write_csv

TWELVE = ["map", "map50", "map75", "map_small", "map_medium", "map_large"]
TWELVE += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]


def synthetic(images: int, *, classes: int = 80, objects: float = 7, detections: int = 36, seed: int = 0) -> tuple[dict, list[dict]]:
    """COCO truth and results of about COCO's density: 60% of the detections near an object, 2% of the objects crowds."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i in range(1, images + 1):
        count = int(rng.poisson(objects))
        boxes = np.concatenate([rng.uniform(0, 500, (count, 2)), np.exp(rng.uniform(2, 5.3, (count, 2)))], 1)
        labels = rng.integers(1, classes + 1, count)
        for box, label, crowd in zip(boxes.tolist(), labels.tolist(), (rng.random(count) < 0.02).tolist(), strict=True):
            one = {"id": len(annotations) + 1, "image_id": i, "category_id": label, "bbox": box, "iscrowd": int(crowd)}
            annotations.append(one | {"area": box[2] * box[3]})
        found = np.concatenate([rng.uniform(0, 500, (detections, 2)), np.exp(rng.uniform(2, 5.3, (detections, 2)))], 1)
        kinds = rng.integers(1, classes + 1, detections)
        if count:
            near, source = rng.random(detections) < 0.6, rng.integers(0, count, detections)
            sides = boxes[source, 2:]
            moved = np.concatenate(
                [boxes[source, :2] + rng.normal(0, 0.1, sides.shape) * sides, sides * np.exp(rng.normal(0, 0.15, sides.shape))], 1
            )
            found[near] = moved[near]
            kinds = np.where(near & (rng.random(detections) < 0.8), labels[source], kinds)
        for box, label, score in zip(found.tolist(), kinds.tolist(), rng.random(detections).tolist(), strict=True):
            results.append({"image_id": i, "category_id": label, "bbox": box, "score": score})
    truth = {
        "images": [{"id": i, "height": 640, "width": 640} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
        "annotations": annotations,
    }
    return truth, results


def perturbed(truth: dict, *, seed: int = 0) -> list[dict]:
    """Results around a truth: each object found 0 to 5 times, a fifth with a wrong class."""
    rng = np.random.default_rng(seed)
    ids = [c["id"] for c in truth["categories"]]
    results = []
    for a in truth["annotations"]:
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = a["bbox"]
            dx, dy, dw, dh = rng.normal(0, 0.1, 4).tolist()
            label = int(rng.choice(ids)) if rng.random() < 0.2 else a["category_id"]
            box = [x + dx * w, y + dy * h, w * float(np.exp(dw)), h * float(np.exp(dh))]
            results.append({"image_id": a["image_id"], "category_id": label, "bbox": box, "score": float(rng.random())})
    return results


def ours(truth: Path, results: Path) -> list[float]:
    """The twelve by ``score_predictions``, files read and checked."""
    from saccade.workflows.score import score_predictions

    out = score_predictions(results, truth)
    return [out[name] for name in TWELVE]


def theirs(truth: Path, results: Path) -> list[float]:
    """The twelve by pycocotools, files read."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        evaluation = COCOeval(gt, gt.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def compare(name: str, truth: dict, results: list[dict], rounds: int) -> dict[str, Any]:
    """One row: both from files to numbers, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "truth.json", Path(folder) / "results.json"
        for file, content in zip(files, (truth, results), strict=True):
            file.write_text(json.dumps(content))
        last: dict[str, list[float]] = {}

        def kept(key: str, function: Callable[[Path, Path], list[float]]) -> Callable[[], None]:
            return lambda: last.__setitem__(key, function(*files))

        timing = interleaved(kept("ours", ours), kept("theirs", theirs), rounds=rounds, clock=time.process_time)
    difference = float(np.max(np.abs(np.array(last["ours"]) - np.array(last["theirs"]))))
    row = {"set": name, "images": len(truth["images"]), "objects": len(truth["annotations"]), "detections": len(results)}
    row |= timing.row("ours", "pycocotools") | {"clock": "process"} | {"largest_difference": difference, "map": last["ours"][0]}
    print({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    if not difference <= 1e-6:
        raise SystemExit(f"{name}: the twelve numbers differ by {difference}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = [compare("synthetic", *synthetic(arguments.images), arguments.rounds)]
    real = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets")) / "coco_mini" / "annotations"
    if real.is_dir():
        for split in ("train", "val"):
            truth = json.loads((real / f"instances_{split}2017.json").read_text())
            rows.append(compare(f"coco_mini/{split}", truth, perturbed(copy.deepcopy(truth)), max(arguments.rounds, 9)))
    print(write_csv("coco_eval", rows))


if __name__ == "__main__":
    main()
