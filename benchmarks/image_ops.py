"""Image operations on 12 megapixels of RGB against the fastest of OpenCV and scikit-image at the same operation.

python -m benchmarks.image_ops [--rounds 5] [--megapixels 12] [--operations canny median ...]

Each peer is called as its documentation has it for an 8-bit RGB image (or a grey one, where the operation takes only that); the fastest
of a first run is timed in turns with ours. ``ratio`` is the peer's time over ours: above 1 ours is faster, 0.91 is ten percent slower.
Operations that take seconds a megapixel run on a part of the image (column ``megapixels``). The photo is made from noise and shapes: the
time of none of these operations hangs on the picture, but for Canny's, whose edges are as many as a photo's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.common import interleaved, timed, write_csv
from saccade import image as ops

Call = Callable[[], Any]


def photo(megapixels: float) -> np.ndarray:
    """(H, W, 3) uint8 of 4:3 with ground, shapes and noise."""
    import cv2

    height, width = (round((megapixels * 1e6 * f) ** 0.5) for f in (3 / 4, 4 / 3))
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(200):
        x, y, r = (int(v) for v in rng.integers(0, (width, height, max(2, height // 10))))
        cv2.circle(ground, (x, y), r, [int(v) for v in rng.integers(0, 256, 3)], -1)
    return np.clip(ground + rng.standard_normal(ground.shape, dtype=np.float32) * 6, 0, 255).astype(np.uint8)


def cases() -> Iterator[tuple[str, float, Callable[[np.ndarray, np.ndarray], tuple[Call, dict[str, Call]]]]]:
    """Name, share of the image, and what makes ours and the peers' calls of a (contiguous) RGB and grey image."""
    import cv2
    import skimage.exposure
    import skimage.feature
    import skimage.filters
    import skimage.metrics
    import skimage.morphology
    import skimage.restoration
    import skimage.transform
    import skimage.util

    sk: Any = skimage
    box5, box3 = np.ones((5, 5), np.uint8), np.ones((3, 3), np.uint8)
    kernel = np.random.default_rng(0).random((5, 5)) / 12.5
    sharp = np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    table = np.rint(255 * (np.arange(256) / 255) ** 0.5).astype(np.uint8)

    def cv_magnitude(x: np.ndarray) -> np.ndarray:
        return cv2.convertScaleAbs(cv2.magnitude(cv2.Sobel(x, cv2.CV_32F, 1, 0), cv2.Sobel(x, cv2.CV_32F, 0, 1)))

    def cv_noise(x: np.ndarray) -> np.ndarray:
        return cv2.add(x, cv2.randn(np.empty(x.shape, np.int16), np.zeros(4), np.full(4, 25.0)), dtype=cv2.CV_8U)

    yield "invert", 1, lambda x, g: (lambda: ops.invert(x), {"opencv": lambda: cv2.bitwise_not(x), "skimage": lambda: sk.util.invert(x)})
    yield "gamma", 1, lambda x, g: (lambda: ops.gamma(x), {"opencv": lambda: cv2.LUT(x, table)})
    yield "rgb_to_gray", 1, lambda x, g: (lambda: ops.rgb_to_gray(x), {"opencv": lambda: cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)})
    yield "mirror", 1, lambda x, g: (lambda: ops.mirror(x), {"opencv": lambda: cv2.flip(x, 1)})
    yield "correlate", 1, lambda x, g: (lambda: ops.correlate(x, kernel), {"opencv": lambda: cv2.filter2D(x, -1, kernel)})
    yield "sharpen", 1, lambda x, g: (lambda: ops.sharpen(x), {"opencv": lambda: cv2.filter2D(x, -1, sharp)})
    yield "mean", 1, lambda x, g: (lambda: ops.mean(x, size=5), {"opencv": lambda: cv2.blur(x, (5, 5))})
    yield (
        "gaussian",
        1,
        lambda x, g: (
            lambda: ops.gaussian(x, sigma=2.0),
            {"opencv": lambda: cv2.GaussianBlur(x, (17, 17), 2), "skimage": lambda: sk.filters.gaussian(x, 2, channel_axis=-1)},
        ),
    )
    yield "minimum", 1, lambda x, g: (lambda: ops.minimum(x, size=5), {"opencv": lambda: cv2.erode(x, box5)})
    yield "maximum", 1, lambda x, g: (lambda: ops.maximum(x, size=5), {"opencv": lambda: cv2.dilate(x, box5)})
    yield "median", 1, lambda x, g: (lambda: ops.median(x, size=5), {"opencv": lambda: cv2.medianBlur(x, 5)})
    yield "sobel", 1, lambda x, g: (lambda: ops.sobel(x), {"opencv": lambda: cv2.convertScaleAbs(cv2.Sobel(x, cv2.CV_16S, 1, 0))})
    yield (
        "laplacian",
        1,
        lambda x, g: (lambda: ops.laplacian(x), {"opencv": lambda: cv2.convertScaleAbs(cv2.Laplacian(x, cv2.CV_16S))}),
    )
    yield "gradient_magnitude", 1, lambda x, g: (lambda: ops.gradient_magnitude(x), {"opencv": lambda: cv_magnitude(x)})
    yield "sobel_edges", 1, lambda x, g: (lambda: ops.sobel_edges(g), {"skimage": lambda: sk.filters.sobel(g)})
    yield (
        "canny",
        1,
        lambda x, g: (
            lambda: ops.canny(g, sigma=2.0, low=0.2, high=0.4),
            {
                "opencv": lambda: cv2.Canny(cv2.GaussianBlur(g, (17, 17), 2), 51, 102, L2gradient=True),
                "skimage": lambda: sk.feature.canny(g, 2),
            },
        ),
    )
    yield (
        "gaussian_noise",
        1,
        lambda x, g: (
            lambda: ops.gaussian_noise(x, sigma=0.1),
            {"opencv": lambda: cv_noise(x), "skimage": lambda: sk.util.random_noise(x, "gaussian", rng=0)},
        ),
    )
    yield "salt_and_pepper", 1, lambda x, g: (lambda: ops.salt_and_pepper(x), {"skimage": lambda: sk.util.random_noise(x, "s&p", rng=0)})
    yield (
        "poisson_noise",
        1 / 4,
        lambda x, g: (lambda: ops.poisson_noise(x), {"skimage": lambda: sk.util.random_noise(x, "poisson", rng=0)}),
    )
    yield "bilateral", 1 / 4, lambda x, g: (lambda: ops.bilateral(x, size=9), {"opencv": lambda: cv2.bilateralFilter(x, 9, 25.5, 3)})
    yield (
        "non_local_means",
        1 / 48,
        lambda x, g: (
            lambda: ops.non_local_means(x, h=0.08),
            {"opencv": lambda: cv2.fastNlMeansDenoising(x, None, 20.4, 7, 21)},
        ),
    )
    yield (
        "total_variation",
        1 / 48,
        lambda x, g: (
            lambda: ops.total_variation(x),
            {"skimage": lambda: sk.restoration.denoise_tv_chambolle(x, 0.1, channel_axis=-1)},
        ),
    )
    yield (
        "low_pass",
        1 / 4,
        lambda x, g: (lambda: ops.low_pass(x), {"skimage": lambda: sk.filters.butterworth(x, 0.1, False, channel_axis=-1)}),
    )
    yield (
        "match_histogram",
        1,
        lambda x, g: (
            lambda: ops.match_histogram(x, x[::-1] // 2),
            {"skimage": lambda: sk.exposure.match_histograms(x, x[::-1] // 2, channel_axis=-1)},
        ),
    )
    yield "opening", 1, lambda x, g: (lambda: ops.opening(x), {"opencv": lambda: cv2.morphologyEx(x, cv2.MORPH_OPEN, box3)})
    yield (
        "fixed_threshold",
        1,
        lambda x, g: (lambda: ops.fixed_threshold(x), {"opencv": lambda: cv2.threshold(x, 127, 255, cv2.THRESH_BINARY)}),
    )
    yield (
        "otsu",
        1,
        lambda x, g: (
            lambda: ops.otsu(g),
            {"opencv": lambda: cv2.threshold(g, 0, 255, cv2.THRESH_OTSU), "skimage": lambda: g > sk.filters.threshold_otsu(g)},
        ),
    )
    yield (
        "adaptive_threshold",
        1,
        lambda x, g: (
            lambda: ops.adaptive_threshold(g, size=51, offset=0.02),
            {
                "opencv": lambda: cv2.adaptiveThreshold(g, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 51, 5),
                "skimage": lambda: g > sk.filters.threshold_local(g, 51, "mean", 5),
            },
        ),
    )
    yield "psnr", 1, lambda x, g: (lambda: ops.psnr(x, x[::-1].copy()), {"opencv": lambda: cv2.PSNR(x, x[::-1].copy())})
    yield (
        "ssim",
        1 / 4,
        lambda x, g: (
            lambda: ops.ssim(g, g[::-1].copy()),
            {"skimage": lambda: sk.metrics.structural_similarity(g, g[::-1].copy(), gaussian_weights=True, use_sample_covariance=False)},
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each")
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--operations", nargs="*", default=[], help="all by default")
    arguments = parser.parse_args()
    import cv2

    whole = photo(arguments.megapixels)
    rows: list[dict[str, Any]] = []
    for name, share, make in cases():
        if arguments.operations and name not in arguments.operations:
            continue
        rgb = np.ascontiguousarray(whole[: round(len(whole) * share**0.5), : round(whole.shape[1] * share**0.5)])
        ours, peers = make(rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        first = {peer: timed(call) for peer, call in peers.items()}
        fastest = min(first, key=lambda p: first[p])
        row = {"operation": name, "megapixels": round(rgb.shape[0] * rgb.shape[1] / 1e6, 2), "peer": fastest, "seed": 0}
        rows.append(row | interleaved(ours, peers[fastest], rounds=arguments.rounds).row())
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    print(write_csv("image_ops", rows))


if __name__ == "__main__":
    main()
