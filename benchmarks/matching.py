"""Key points and matches of graf's view changes against the true homographies, all detectors.

python -m benchmarks.matching [--points 1000] [--seed 0]

graf is ``oxford_graf`` under SACCADE_DATA: six views of a wall, 800x640, with homographies from the first. Each kind gives its strongest
``--points`` an image. ``regions``: the share of circles that overlap their partner by 60 % once brought to a radius of 30 pixels, one to
one (Mikolajczyk et al. 2005); from view 5 on the wall is so slanted that no circle does. ``places``: the share of points with a
partner within 3 pixels. ``inliers``: of the matches (ratio 0.8, mutual), the share within 3 pixels of the truth. ``error``: mean distance
between the image corners under the found and the true homography. A row "turned" or "scaled" is view 1 against its own copy.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.common import ROOT, write_csv
from saccade.features.keypoints import DESCRIBED, KINDS, Keypoints, detect
from saccade.features.match import SHIFT, match
from saccade.features.repeatability import corner_error, correct, region_repeatability, repeatability

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))


def views(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, image and homography from view 1 (pixel centres at halves) of view 1 itself, its copies and the five others."""
    first = np.array(Image.open(folder / "img1.png").convert("RGB"))
    out = [("1", first, np.eye(3))]
    for name, angle, scale in (("turned by 30", 30, 1.0), ("turned by 90", 90, 1.0), ("scaled by 0.7", 0, 0.7), ("scaled by 0.5", 0, 0.5)):
        move = np.vstack([cv2.getRotationMatrix2D((400, 320), angle, scale), [0, 0, 1]])
        blurred = first if scale == 1 else cv2.GaussianBlur(first, (0, 0), 0.5 / scale)
        moved = cv2.warpPerspective(blurred, move, (800, 640), flags=cv2.INTER_CUBIC)
        out.append((name, moved, SHIFT @ move @ np.linalg.inv(SHIFT)))
    for k in range(2, 7):
        image = np.array(Image.open(folder / f"img{k}.png").convert("RGB"))
        out.append((str(k), image, SHIFT @ np.loadtxt(folder / f"H1to{k}p") @ np.linalg.inv(SHIFT)))
    return out


def row(kind: str, name: str, a: Keypoints, b: Keypoints, truth: np.ndarray, seconds: float, seed: int) -> dict[str, Any]:
    out: dict[str, Any] = {
        "kind": kind,
        "view": name,
        "points_1": len(a),
        "points_2": len(b),
        "regions": region_repeatability(a, b, truth),
        "places": repeatability(a, b, truth),
        "detect_s": seconds,
    }
    if kind in DESCRIBED:
        found = match(a, b, seed=seed)
        good = correct(found, truth)
        out |= {"matches": len(found), "inliers": float(good.mean()) if len(good) else float("nan")}
        out |= {"error": corner_error(found.homography, truth, a.image_size)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1000, help="strongest points of an image")
    parser.add_argument("--seed", type=int, default=0, help="of RANSAC")
    arguments = parser.parse_args()
    folder = DATA / "oxford_graf"
    if not folder.is_dir():
        raise SystemExit(f"no {folder}: set SACCADE_DATA")
    rows = []
    shown = views(folder)
    for kind in KINDS:
        found: list[Keypoints] = []
        times = []
        for _, image, _ in shown:
            start = time.perf_counter()
            found.append(detect(image, kind, limit=arguments.points))
            times.append(time.perf_counter() - start)
        for (name, _, truth), points, seconds in zip(shown[1:], found[1:], times[1:], strict=True):
            rows.append(
                row(kind, name, found[0], points, truth, seconds, arguments.seed) | {"limit": arguments.points, "seed": arguments.seed}
            )
            print(rows[-1], flush=True)
    print(write_csv("matching", rows))


if __name__ == "__main__":
    main()
