"""A cascade trained on ORL's faces finds the faces of dlib's group photos; OpenCV's published one beside it.

python -m benchmarks.haar [--stages 14] [--features 2000] [--others 1500] [--seed 0]

Objects are the middle squares of ORL's 400 pictures (``orl_faces``), mirrored too; backgrounds are textures, roads and things (``dtd10``,
``camvid``, ``imagenet_samples``), all under SACCADE_DATA. The test pictures are the nine of ``dlib_faces`` with boxes (43 faces). A face
counts as found when a box that is not taken yet overlaps it by 40 % (intersection over union; ORL's squares and dlib's boxes are cut
differently), the boxes with the most neighbours first. ORL's faces are frontal, of 40 persons; OpenCV's cascade has seen thousands.
"""

from __future__ import annotations

import argparse
import os
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import ROOT, write_csv
from saccade.features.haar import Cascade, find_objects
from saccade.features.haar_train import train_cascade

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))
OVERLAP = 0.4


def grey(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("L"))


def truths() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures and their boxes (n, 4) XYXY."""
    out = []
    for name in ("training.xml", "testing.xml"):
        for image in ElementTree.parse(DATA / "dlib_faces" / name).iter("image"):
            boxes = [[float(box.attrib[key]) for key in ("left", "top", "width", "height")] for box in image.iter("box")]
            sides = np.array(boxes).reshape(-1, 4)
            picture = np.array(Image.open(DATA / "dlib_faces" / image.attrib["file"]).convert("RGB"))
            out.append((picture, np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], 1)))
    return out


def score(cascade: str | Cascade, neighbors: int) -> dict[str, Any]:
    hits = faces = boxes_all = 0
    seconds = 0.0
    for picture, truth in truths():
        start = time.perf_counter()
        boxes, _ = find_objects(picture, cascade, neighbors=neighbors, smallest=24)
        seconds += time.perf_counter() - start
        free = np.ones(len(truth), bool)
        for box in boxes:
            low, high = np.maximum(box[:2], truth[:, :2]), np.minimum(box[2:], truth[:, 2:])
            common = np.prod(np.clip(high - low, 0, None), axis=1)
            overlap = common / (np.prod(box[2:] - box[:2]) + np.prod(truth[:, 2:] - truth[:, :2], axis=1) - common)
            best = int(np.where(free, overlap, 0).argmax()) if len(truth) else 0
            if len(truth) and free[best] and overlap[best] >= OVERLAP:
                free[best] = False
                hits += 1
        faces, boxes_all = faces + len(truth), boxes_all + len(boxes)
    return {"neighbors": neighbors, "faces": faces, "found": hits, "recall": hits / faces, "boxes": boxes_all, "detect_s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", type=int, default=14)
    parser.add_argument("--features", type=int, default=2000, help="drawn for each stage")
    parser.add_argument("--others", type=int, default=1500, help="windows without a face, each stage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    missing = [name for name in ("orl_faces", "dlib_faces", "dtd10", "camvid", "imagenet_samples") if not (DATA / name).is_dir()]
    if missing:
        raise SystemExit(f"not under {DATA}: {', '.join(missing)}; set SACCADE_DATA")
    faces = [grey(path)[30:106, 8:84] for path in sorted((DATA / "orl_faces").glob("s*/*.pgm"))]
    pictures = [*(DATA / "dtd10").rglob("*.jpg"), *(DATA / "camvid").glob("t*/*.png"), *(DATA / "imagenet_samples").rglob("*.JPEG")]
    backgrounds = [grey(path) for path in sorted(pictures)]
    start = time.perf_counter()
    cascade = train_cascade(
        faces, backgrounds, stages=arguments.stages, features=arguments.features, others=arguments.others, seed=arguments.seed,
        say=lambda text: print(text, flush=True),
    )  # fmt: skip
    trained = {"stages": len(cascade.ends), "stumps": len(cascade.features), "train_s": time.perf_counter() - start, "seed": arguments.seed}
    rows: list[dict[str, Any]] = []
    for neighbors in (1, 3, 6):
        rows.append({"cascade": f"trained on {len(faces)} ORL faces"} | trained | score(cascade, neighbors))
        rows.append({"cascade": "OpenCV's frontalface_default"} | score("face", neighbors))
    for row in rows:
        print(row, flush=True)
    print(write_csv("haar", rows))


if __name__ == "__main__":
    main()
