"""Denoisers on Set12, BSD68 and Set5: PSNR and SSIM at sigma 15, 25 and 50.

python -m benchmarks.denoise [--sets Set12 BSD68 Set5] [--sigmas 15 25 50] [--images N] [--methods median ...]

Noise: additive Gaussian of a fixed seed (image k of a set has seed k), **not** clipped to 0..255 in published work, but an image of ours
is: the noisy image is rounded to 8 bits and clipped, as a camera gives it, which costs or wins a few hundredths of a decibel. Scores are
means over images, on 8-bit results.

Every method knows sigma; its strength follows from it by one rule for all images (``settings``), chosen on the first three images of
Set12 and stated in column ``settings``. Published for comparison, from Zhang, Zuo, Chen, Meng, Zhang: Beyond a Gaussian Denoiser (TIP
2017), tables II and III, unclipped noise: BM3D 31.07, 28.57, 25.62 dB on BSD68 and 32.37, 29.97, 26.72 dB on Set12.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, write_csv
from saccade import image as ops

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))
SUFFIXES = (".png", ".bmp", ".tif", ".jpg")


METHODS: dict[str, Callable[[float], dict[str, Any]]] = {
    "mean": lambda s: {"size": 3 if s < 0.15 else 5},
    "weighted_mean": lambda s: {"size": 3 if s < 0.15 else 7},
    "median": lambda s: {"size": 3 if s < 0.08 else 5 if s < 0.15 else 7},
    "gaussian": lambda s: {"sigma": round(0.3 + 5.2 * s, 3)},
    "wiener": lambda s: {"sigma": s},
    "adaptive_wiener": lambda s: {"sigma": s, "size": 5 if s < 0.15 else 7},
    "bilateral": lambda s: {"sigma_color": round(2.3 * s, 4), "sigma_space": 1.8 if s < 0.15 else 2.5},
    "non_local_means": lambda s: {"h": round(0.95 * s, 4), "patch": 5, "search": 21},
    "wavelet_shrinkage": lambda s: {"sigma": s, "wavelet": "haar"},
    "total_variation": lambda s: {"weight": round(0.8 * s, 4)},
}
"""The settings of a method for noise of a deviation in 0..1."""


def images(name: str, most: int) -> list[np.ndarray]:
    from PIL import Image

    out = []
    for path in sorted(p for p in (DATA / "denoise" / name).iterdir() if p.suffix.lower() in SUFFIXES)[:most]:
        with Image.open(path) as file:
            out.append(np.asarray(file.convert("L" if file.mode in ("L", "1", "I;16") else "RGB")))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["Set12", "BSD68", "Set5"])
    parser.add_argument("--sigmas", nargs="*", type=float, default=[15, 25, 50])
    parser.add_argument("--images", type=int, default=1000, help="at most so many of each set")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    if not (DATA / "denoise").is_dir():
        raise SystemExit(f"no denoise under {DATA}: set SACCADE_DATA")
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        clean = images(name, arguments.images)
        for sigma in arguments.sigmas:
            noisy = [ops.gaussian_noise(x, sigma=sigma / 255, seed=k) for k, x in enumerate(clean)]
            for method in ("noisy", *arguments.methods):
                options = {} if method == "noisy" else METHODS[method](sigma / 255)
                function = (lambda x: x) if method == "noisy" else getattr(ops, method)
                start = time.perf_counter()
                results = [function(x, **options) for x in noisy]
                seconds = (time.perf_counter() - start) / len(noisy)
                row = {"set": name, "sigma": sigma, "method": method, "images": len(clean), "seed": "0.."}
                row |= {
                    score: float(np.mean([getattr(ops, score)(a, b) for a, b in zip(results, clean, strict=True)]))
                    for score in ("psnr", "ssim")
                }
                row |= {
                    "s_per_image": seconds,
                    "settings": " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items()),
                }
                rows.append(row)
                print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
    print(write_csv("denoise", rows))


if __name__ == "__main__":
    main()
