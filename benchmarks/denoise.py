"""Denoisers on Set12, BSD68 and Set5: PSNR and SSIM at sigma 15, 25 and 50.

python -m benchmarks.denoise [--sets Set12 BSD68 Set5] [--sigmas 15 25 50] [--images N] [--methods median ...] [--noise clipped free]

Noise: additive Gaussian of a fixed seed (image k of a set has seed k). ``clipped``: rounded to 8 bits and cut to 0..255, as a camera gives
it. ``free``: not cut, as published work has it; an image of ours holds 0 to 1, so such an image is laid into the middle third (as float32,
with the settings that are grey levels divided by three as well) and its result is brought back. Scores are means over images, on 8-bit
results.

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

LEVELS = ("sigma_color", "h", "weight")
"""Settings in units of the range; so is ``sigma``, but for the Gaussian, where it is pixels."""


def images(name: str, most: int) -> list[np.ndarray]:
    from PIL import Image

    out = []
    for path in sorted(p for p in (DATA / "denoise" / name).iterdir() if p.suffix.lower() in SUFFIXES)[:most]:
        with Image.open(path) as file:
            out.append(np.asarray(file.convert("L" if file.mode in ("L", "1", "I;16") else "RGB")))
    return out


def noised(image: np.ndarray, sigma: float, seed: int, noise: str) -> np.ndarray:
    """uint8, or for noise that is not cut float32 with 0..1 at 1/3..2/3."""
    if noise == "clipped":
        return np.asarray(ops.gaussian_noise(image, sigma=sigma, seed=seed))
    normal = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return ((image / 255 + normal + 1) / 3).clip(0, 1).astype(np.float32)


def measure(name: str, sigma: float, noise: str, method: str, noisy: list[np.ndarray], clean: list[np.ndarray]) -> dict[str, Any]:
    options = {} if method == "noisy" else METHODS[method](sigma / 255)
    used = dict(options)
    if noise == "free":
        used = {k: v / 3 if k in LEVELS or (k == "sigma" and method != "gaussian") else v for k, v in options.items()}
    function = (lambda x: x) if method == "noisy" else getattr(ops, method)
    start = time.perf_counter()
    results = [function(x, **used) for x in noisy]
    seconds = (time.perf_counter() - start) / len(noisy)
    if noise == "free":
        results = [np.rint((3 * x - 1).clip(0, 1) * 255).astype(np.uint8) for x in results]
    row = {"set": name, "sigma": sigma, "noise": noise, "method": method, "images": len(clean), "seed": "0.."}
    for score in ("psnr", "ssim"):
        row[score] = float(np.mean([getattr(ops, score)(a, b) for a, b in zip(results, clean, strict=True)]))
    row["s_per_image"] = seconds
    row["settings"] = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["Set12", "BSD68", "Set5"])
    parser.add_argument("--sigmas", nargs="*", type=float, default=[15, 25, 50])
    parser.add_argument("--images", type=int, default=1000, help="at most so many of each set")
    parser.add_argument("--noise", nargs="*", choices=["clipped", "free"], default=["clipped", "free"])
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    if not (DATA / "denoise").is_dir():
        raise SystemExit(f"no denoise under {DATA}: set SACCADE_DATA")
    rows: list[dict[str, Any]] = []
    for name in arguments.sets:
        clean = images(name, arguments.images)
        for sigma in arguments.sigmas:
            for noise in arguments.noise:
                noisy = [noised(x, sigma / 255, k, noise) for k, x in enumerate(clean)]
                for method in ("noisy", *arguments.methods):
                    rows.append(measure(name, sigma, noise, method, noisy, clean))
                    print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    print(write_csv("denoise", rows))


if __name__ == "__main__":
    main()
