"""Accuracy on real images, from scratch: ``python -m benchmarks.accuracy bccd|wbc|mnist|all [--seed 0]``.

Each run trains with the default recipe through ``saccade.train``, tests with ``saccade.evaluate``, and leaves under results/NAME/:
``result.json`` (command, commit, seed, machine, time, every number), ``metrics.csv`` (a row an epoch), ``sheet.jpg`` (test images drawn);
and a row in results/accuracy.csv. Bad numbers stay in.

* bccd: ssdlite, train split 205 images (validated on 87), tested on the 72 of test.
* wbc: unet on Dataset 1, ``numpy.random.default_rng(0).permutation(300)``: first 240 train, last 60 test, no validation.
* mnist: lenet5 on the 20 000 training images, no validation, the official 10 000 as test.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "results"
RUNS: dict[str, dict[str, Any]] = {
    "bccd": {"model": "ssdlite", "data": "set:bccd", "shown": ("map50", "map", "map50/Platelets", "map50/RBC", "map50/WBC")},
    "wbc": {
        "model": "unet",
        "data": "set:wbc",
        "shown": ("iou/cytoplasm", "iou/nucleus", "mean_iou"),
        "train_split": "trainval",
        "val_split": "none",
    },
    "mnist": {"model": "lenet5", "data": "set:mnist", "shown": ("accuracy",), "train_split": "trainval", "val_split": "none"},
}


def wbc_split(folder: Path) -> Path:
    """The issue's split of the 300 images, sorted by name."""
    import numpy as np

    import saccade

    data = saccade.load_data("set:wbc")
    names = sorted(record.image_id for record in data.map_records(lambda r: r))
    order = np.random.default_rng(0).permutation(len(names))
    path = folder / "wbc_split.json"
    path.write_text(json.dumps({"train": [names[i] for i in order[:240]], "test": [names[i] for i in order[240:]]}))
    return path


def run(name: str, seed: int, out: Path, options: dict[str, Any], finished: str = "", note: str = "") -> dict[str, Any]:
    """Train (or take a finished run), test, write the results."""
    import saccade
    from saccade.engine.callbacks import read_metrics
    from saccade.engine.run import facts
    from saccade.types import drawing

    settings = RUNS[name]
    split_file = wbc_split(out) if name == "wbc" else None
    splits = {k: settings[k] for k in ("train_split", "val_split") if k in settings}
    if finished:
        trained = saccade.open_run(finished)
        seed = trained.config.seed
    else:
        trained = saccade.train(settings["model"], settings["data"], out=out, seed=seed, split_file=split_file, options=options, **splits)
    metrics = saccade.evaluate(trained.folder, settings["data"], split="test", split_file=split_file)
    known = json.loads((trained.folder / "run.json").read_text())
    history = read_metrics(trained.folder / "metrics.csv")
    result = (
        facts()
        | {key: known[key] for key in ("commit", "date", "machine")}
        | {
            "command": f"python -m benchmarks.accuracy {name} --seed {seed}" + "".join(f" --set {k}={v}" for k, v in options.items()),
            "model": settings["model"],
            "data": settings["data"],
            "seed": seed,
            "images": known["images"],
            "fingerprint": known["fingerprint"],
            "epochs": len(history),
            "training_seconds": known["training_seconds"],
            "options": options,
            "validation": known["metrics"],
            "test": metrics,
        }
    )
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    shutil.copy(trained.folder / "metrics.csv", folder / "metrics.csv")
    test = saccade.load_data(settings["data"], "test", split_file=split_file)
    predictions = list(saccade.predict(trained.folder, [test.image(test.record(i)) for i in range(12)]))
    drawing.sheet([p.draw() for p in predictions], columns=4, cell=300).save(folder / "sheet.jpg", quality=85)
    append(name, seed, result, settings["shown"], note)
    return result


def append(name: str, seed: int, result: dict[str, Any], shown: tuple[str, ...], note: str) -> None:
    """A row of results/accuracy.csv."""
    path = RESULTS / "accuracy.csv"
    machine = result["machine"]
    row = {
        "run": name,
        "model": result["model"],
        "seed": seed,
        "test": "; ".join(f"{key} {result['test'][key]:.4f}" for key in shown),
        "epochs": result["epochs"],
        "training_minutes": f"{result['training_seconds'] / 60:.2f}",
        "date": result["date"],
        "commit": result["commit"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}",
        "command": result["command"],
        "note": note,
    }
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*RUNS, "all"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", default="", help="where run folders go; default: a temporary folder")
    parser.add_argument("--run", default="", metavar="FOLDER", help="test this finished run instead of training")
    parser.add_argument("--note", default="", help="kept with the row, such as what else the machine did")
    arguments = parser.parse_args()
    from saccade.engine.config import parse_sets

    out = Path(arguments.out or tempfile.mkdtemp(prefix="saccade-"))
    out.mkdir(parents=True, exist_ok=True)
    for name in list(RUNS) if "all" in arguments.names else arguments.names:
        result = run(name, arguments.seed, out, parse_sets(arguments.set), arguments.run, arguments.note)
        numbers = ", ".join(f"{key} {result['test'][key]:.4f}" for key in RUNS[name]["shown"])
        print(f"{name}: {numbers}; {result['training_seconds']:.0f} s of training", file=sys.stderr)


if __name__ == "__main__":
    main()
