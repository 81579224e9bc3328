"""Every real set to every format that can hold it and back: what differs beyond what the writer says is lost.

python -m benchmarks.convert [--set NAME] [--format NAME]

Sets are read from SACCADE_DATA (default ../shared/datasets). Prints a line a conversion and exits 1 when any differs or fails.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import ROOT
from saccade.data.compare import differences
from saccade.data.dataset import Dataset
from saccade.data.formats import FORMATS, format_module, read_data, write_data
from saccade.types.errors import SaccadeError

SETS: dict[str, tuple[str, str]] = {
    "bccd": ("bccd", "voc"),
    "raccoon": ("raccoon", "voc"),
    "coco_mini": ("coco_mini", "coco"),
    "coco128": ("coco128", "yolo"),
    "wbc 1": ("wbc_segmentation/Dataset 1", "masks"),
    "wbc 2": ("wbc_segmentation/Dataset 2", "masks"),
    "wbc classes": ("wbc_segmentation", "csv"),
    "camvid": ("camvid", "masks"),
    "mnist idx": ("mnist", "idx"),
    "mnist png": ("mnist/png/train", "imagefolder"),
    "orl_faces": ("orl_faces", "imagefolder"),
    "hymenoptera": ("hymenoptera", "imagefolder"),
    "cifar10_jpg": ("cifar10_jpg", "imagefolder"),
    "dtd10": ("dtd10", "imagefolder"),
}
"""Folder and format of each set."""


def targets(data: Dataset) -> Iterator[str]:
    """The formats that hold truth for one of the tasks of the data."""
    for name in FORMATS:
        if set(format_module(name).TASKS) & set(data.tasks):
            yield name


def convert(data: Dataset, name: str, out: Path) -> tuple[list[str], list[str]]:
    """(stated losses, differences) of one conversion and back."""
    losses = write_data(data, out, name)
    again = Dataset(read_data(out, name))
    return losses, differences(data, again, format_module(name).HOLDS, losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=SETS, help="only this set")
    parser.add_argument("--format", choices=FORMATS, help="only this format")
    arguments = parser.parse_args()
    root = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))
    wrong = 0
    print(f"{'set':<12} {'format':<12} {'images':>6} {'seconds':>7}  outcome")
    for title, (folder, form) in SETS.items():
        if arguments.set not in (None, title):
            continue
        if not (root / folder).is_dir():
            print(f"{title:<12} is not under {root}")
            continue
        data = Dataset(read_data(root / folder, form))
        for name in targets(data):
            if arguments.format not in (None, name):
                continue
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as place:
                try:
                    losses, lines = convert(data, name, Path(place) / "out")
                    refused = ""
                except SaccadeError as error:
                    losses, lines, refused = [], [], f"refused: {error}"
            wrong += bool(lines)
            outcome = refused or ("equal" if not lines else "DIFFERS") + (f" but for {len(losses)} stated losses" if losses else "")
            print(f"{title:<12} {name:<12} {len(data):>6} {time.perf_counter() - start:>7.1f}  {outcome}", flush=True)
            for line in [*(f"stated: {text}" for text in losses), *(f"differs: {text}" for text in lines)]:
                print(f"{'':<12} {line}")
    if wrong:
        raise SystemExit(f"{wrong} conversions differ")


if __name__ == "__main__":
    main()
