"""Planted label errors: how many ``saccade data labels`` finds, and how many of its findings are planted.

python -m benchmarks.label_errors mnist orl bccd [--seed 0] [--folds 4] [--epochs N] [--out FOLDER]

* mnist: 6000 of the 20 000 PNG (stratified), 5 % of the labels changed to another class, uniformly; by lenet5 and by hog.
* orl: the 400 faces, 5 % of the labels changed; by hog.
* bccd: 364 images, 5 % of the boxes removed and 5 % of the rest moved by 30 to 50 % of their size in a random direction (kept inside
  the image); by ssdlite.

A row a set, model and kind of error. ``flagged``: issues reported (removed: "overlooked"; moved: a labelled box that is badly located,
swapped or spurious). ``precision`` and ``recall`` of these; ``precision_at_k``: of the K first of the whole ranking, K being the number
planted; ``average_precision``: scikit-learn's, over all images or boxes by 1 - quality (removed: over all predictions off the labelled
boxes; planted boxes that none of them meets at IoU 0.5 come last). The sets have errors of their own, most of all BCCD's missing boxes:
a true finding that was not planted counts as a false one, so precision is a lower bound (of 30 such "overlooked" cells, picked evenly
down the ranking and looked at, about 27 were cells without a label). How many are flagged, hog's C and the least confidence of boxes
were chosen with seed 0 of these very sets.
``seconds``: training of all folds, one thread; hog: the whole search. Results go to results/label_errors.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.common import write_csv
from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.data.records import PackedRecords, Record
from saccade.data.splits import make_splits
from saccade.metrics import label_errors as judge
from saccade.workflows.labels import box_pairs, find_label_errors

SHARE = 0.05
MNIST = 6000


def flipped(data: Dataset, seed: int) -> tuple[Dataset, set[int]]:
    """The data with 5 % of their labels changed, and the numbers of those images."""
    random = np.random.default_rng(seed)
    planted = random.choice(data.indices, round(SHARE * len(data)), replace=False)
    steps = dict(zip(planted.tolist(), random.integers(1, len(data.classes), len(planted)).tolist(), strict=True))
    records = []
    for number, record in enumerate(data.index.records):
        if number in steps:
            record.label = (record.label + steps[number]) % len(data.classes)
        records.append(record)
    index = dataclasses.replace(data.index, records=PackedRecords(records))
    return Dataset(index, data.indices, channels=data.channels), set(steps)


def scores(planted: np.ndarray, suspicion: np.ndarray, flagged: np.ndarray, missed: int = 0) -> dict[str, float | int]:
    """Columns of a row. All (N,): whether planted, how suspicious, whether reported; ``missed`` planted errors are not among the N."""
    total = int(planted.sum()) + missed
    first = np.argsort(-suspicion, kind="stable")[:total]
    truth, value = np.append(planted, np.ones(missed, dtype=bool)), np.append(suspicion, np.full(missed, suspicion.min() - 1))
    return {
        "planted": total,
        "flagged": int(flagged.sum()),
        "precision": float(planted[flagged].mean()) if flagged.any() else 0.0,
        "recall": float(planted[flagged].sum() / total),
        "precision_at_k": float(planted[first].sum() / total),
        "average_precision": float(average_precision_score(truth, value)),
    }


def training_seconds(folder: Path) -> float:
    """Of all folds; also of those that an earlier call trained. 0 where nothing learns by gradient."""
    return sum(json.loads(file.read_text())["training_seconds"] for file in (folder / "folds").glob("run-*/run.json"))


def classes(name: str, data: Dataset, model: str, seed: int, folds: int, epochs: int | None, out: Path) -> list[dict[str, object]]:
    wrong, planted = flipped(data, seed)
    start = time.perf_counter()
    found = find_label_errors(wrong, model, folds=folds, epochs=epochs, seed=seed, out=out / f"{name}-{model}", workers=0)
    seconds = training_seconds(out / f"{name}-{model}") or time.perf_counter() - start
    numbers = np.array([n for n in wrong.indices.tolist() if wrong.index.records[n].image_id in found.quality])
    quality = np.array([found.quality[wrong.index.records[n].image_id] for n in numbers.tolist()])
    flagged = np.isin(numbers, [issue.number for issue in found.issues])
    row = scores(np.isin(numbers, list(planted)), 1 - quality, flagged)
    true = {n: data.classes[data.index.records[n].label] for n in planted}
    right = [issue.suggested == true[issue.number] for issue in found.issues if issue.number in planted]
    facts = {"set": name, "model": model, "error": "class", "images": len(wrong), "folds": folds, "seed": seed}
    return [facts | row | {"suggestion_right": float(np.mean(right)) if right else 0.0, "seconds": seconds}]


def spoiled(data: Dataset, seed: int) -> tuple[Dataset, dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The data with boxes removed and moved; (M, 4) removed boxes, and places of the moved ones among the boxes left, by image."""
    random = np.random.default_rng(seed)
    owner = [(n, k) for n in data.indices.tolist() for k in range(len(data.index.records[n].boxes))]
    chosen = random.permutation(len(owner))
    count = round(SHARE * len(owner))
    gone, moved = ({owner[i] for i in part.tolist()} for part in (chosen[:count], chosen[count : 2 * count]))
    removed, places, records = {}, {}, []
    for number, record in enumerate(data.index.records):
        keep = np.array([(number, k) not in gone for k in range(len(record.boxes))], dtype=bool)
        shifts = np.array([(number, k) in moved for k in range(len(record.boxes))], dtype=bool)
        boxes = record.boxes.copy()
        for k in np.flatnonzero(shifts).tolist():
            boxes[k] = moved_box(boxes[k], record.size, random)
        removed[number], places[number] = record.boxes[~keep], np.flatnonzero(shifts[keep])
        records.append(Record(record.path, record.image_id, record.size, boxes=boxes[keep], labels=record.labels[keep]))
    index = dataclasses.replace(data.index, records=PackedRecords(records))
    return Dataset(index, data.indices, channels=data.channels), removed, places


def moved_box(box: np.ndarray, size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Moved by 30 to 50 % of its size at a random angle that keeps its whole inside the image, if one does; else cut."""
    sides, limits = box[2:] - box[:2], np.array([size[1], size[0]])
    for _ in range(100):
        angle, part = random.uniform(0, 2 * np.pi), random.uniform(0.3, 0.5)
        step = part * sides * [np.cos(angle), np.sin(angle)]
        new = box + np.concatenate([step, step]).astype(np.float32)
        if (new[:2] >= 0).all() and (new[2:] <= limits).all():
            return new
    return np.concatenate([new[:2].clip(0), np.minimum(new[2:], limits)])


def boxes(name: str, data: Dataset, model: str, seed: int, folds: int, epochs: int | None, out: Path) -> list[dict[str, object]]:
    wrong, removed, places = spoiled(data, seed)
    folder = out / f"{name}-{model}"
    found = find_label_errors(wrong, model, folds=folds, epochs=epochs, seed=seed, out=folder, workers=0)
    seconds = training_seconds(folder)
    stored = [dict(np.load(file)) for file in sorted((folder / "folds").glob("*.npz"))]
    pairs = box_pairs(wrong, stored)
    thresholds = judge.box_thresholds(((given, predicted) for _, given, predicted in pairs), len(wrong.classes))
    gone: list[tuple[bool, float, bool]] = []
    shifted: list[tuple[bool, float, bool]] = []
    met = 0
    for number, given, predicted in pairs:
        quality = judge.box_quality(given, predicted, thresholds)
        reported = {issue.predicted for issue in quality.issues() if issue.kind == "overlooked"}
        overlap = judge.pairwise(predicted.boxes, removed[number])
        taken: set[int] = set()
        for p in np.argsort(quality.overlooked, kind="stable").tolist():
            if quality.overlooked[p] < 1:
                hits = [m for m in np.argsort(-overlap[p]).tolist() if overlap[p, m] >= 0.5 and m not in taken]
                taken.update(hits[:1])
                gone.append((bool(hits), 1 - quality.overlooked[p], p in reported))
        met += len(taken)
        doubted = {issue.given for issue in quality.issues() if issue.given >= 0}
        label = quality.label()
        shifted += [(i in places[number], 1 - label[i], i in doubted) for i in range(len(given.boxes))]
    missed = sum(map(len, removed.values())) - met
    facts = {"set": name, "model": model, "images": len(wrong), "folds": folds, "seed": seed, "seconds": seconds}
    kinds = {}
    for issue in found.issues:
        kinds[issue.kind] = kinds.get(issue.kind, 0) + 1
    print(kinds, "thresholds", dict(zip(wrong.classes, thresholds.round(3).tolist(), strict=True)), flush=True)
    columns = [tuple(np.array(c) for c in zip(*rows, strict=True)) for rows in (gone, shifted)]
    return [
        facts | {"error": "box removed"} | scores(*columns[0], missed=missed),
        facts | {"error": "box moved"} | scores(*columns[1]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=["mnist", "orl", "bccd"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, help="of each training of a network; default: its recipe's")
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--orl", default="../shared/datasets/orl_faces", help="folder of the ORL faces")
    parser.add_argument("--out", help="keep the searches here; default: a temporary folder")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(a.out or scratch)
        for name in a.names:
            if name == "mnist":
                train = load_data("set:mnist", "trainval")
                data = Dataset(train.index, make_splits(train, {"a": MNIST / len(train), "b": 1 - MNIST / len(train)}, a.seed)["a"])
            else:
                data = load_data("set:bccd") if name == "bccd" else load_data(a.orl, format="imagefolder")
            judged = boxes if name == "bccd" else classes
            for model in [a.model] if a.model else {"mnist": ["lenet5", "hog"], "orl": ["hog"], "bccd": ["ssdlite"]}[name]:
                epochs = None if model == "hog" else a.epochs
                rows = [row | {"epochs": epochs or ""} for row in judged(name, data, model, a.seed, a.folds, epochs, out)]
                for row in rows:
                    print(row, flush=True)
                print(write_csv("label_errors", rows, append=True))


if __name__ == "__main__":
    main()
