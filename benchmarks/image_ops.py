"""Image operations on 12 megapixels of RGB against the fastest of OpenCV, scikit-image, SciPy and kornia at the same operation.

python -m benchmarks.image_ops [--rounds 5] [--megapixels 12] [--operations canny median ...]

Each peer is called as its documentation has it for an 8-bit RGB image (or a grey one, where the operation takes only that), kornia with a
float32 tensor that was made before; kornia and, for wavelets, PyWavelets are asked where they
are installed. The fastest of two runs is timed in turns with ours.
``ratio`` is the peer's time over ours: above 1 ours is faster, 0.91 is ten percent slower. Operations that take seconds a megapixel run on
a part of the image (column ``megapixels``). The photo is made from noise and shapes: the time of none of these operations hangs on the
picture, but for Canny's, whose edges are as many as a photo's.

Not here: what copies no pixel (``identity``, ``crop``, ``split``, ``n4`` ...), what none of the four has as one or two calls (grey-level
slicing against a look-up table is here, Wiener with a degradation too), and what another row contains (``prewitt`` beside ``sobel``).
kornia's Canny links edges in a loop over the image that takes minutes here and is left out; OpenCV has no Laplacian of a Gaussian.
OpenCV's 8-bit HSV lays 360 degrees over 256 steps and is rounded from fixed-point numbers (there and back: up to 9 levels off); ours lays
them over 0..255 as its other dtypes (3 levels).
OpenCV's YCrCb is put in the order Y, Cb, Cr here, which kornia and we have.
``ours_s`` and ``theirs_s`` are of ``calls`` calls.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common import interleaved, timed, write_csv
from saccade import image as ops

Call = Callable[["Inputs"], Any]


@dataclass(frozen=True)
class Inputs:
    """One photo in the forms that libraries take: RGB and grey uint8, and float32 tensors in 0..1 of both."""

    rgb: np.ndarray
    gray: np.ndarray
    tensor: Any
    gray_tensor: Any

    @classmethod
    def of(cls, rgb: np.ndarray) -> Inputs:
        import cv2
        import torch

        gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        tensor = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255
        return cls(rgb, gray, tensor, torch.from_numpy(gray)[None, None].float() / 255)


@dataclass(frozen=True)
class Case:
    """An operation, ours and the peers', and the share of the image's area that it gets."""

    operation: str
    ours: Call
    peers: dict[str, Call]
    share: float = 1.0


def repeat(call: Call, inputs: Inputs, calls: int) -> None:
    for _ in range(calls):
        call(inputs)


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


def cases() -> list[Case]:
    import cv2
    import scipy.ndimage
    import scipy.signal
    import skimage.color
    import skimage.exposure
    import skimage.feature
    import skimage.filters
    import skimage.metrics
    import skimage.restoration
    import skimage.segmentation
    import skimage.util

    sk: Any = skimage
    nd: Any = scipy.ndimage
    kornia: Any = None
    if importlib.util.find_spec("kornia"):
        import kornia
    wavelets = importlib.util.find_spec("pywt") is not None
    out: list[Case] = []

    def row(operation: str, ours: Call, share: float = 1.0, **peers: Call) -> None:
        if kornia is None:
            peers.pop("kornia", None)
        if not wavelets and operation in ("wavelet_shrinkage", "estimate_sigma"):
            peers.clear()
        if peers:
            out.append(Case(operation, ours, peers, share))

    # Point operations and colour spaces
    level = np.arange(256) / 255
    gamma, log, steps = (np.rint(255 * v).astype(np.uint8) for v in (level**0.5, np.log1p(level) / np.log(2), np.rint(level * 7) / 7))
    band = np.where((level >= 0.4) & (level <= 0.6), 255, np.arange(256)).astype(np.uint8)
    row(
        "invert",
        lambda i: ops.invert(i.rgb),
        opencv=lambda i: cv2.bitwise_not(i.rgb),
        skimage=lambda i: sk.util.invert(i.rgb),
        kornia=lambda i: kornia.enhance.invert(i.tensor),
    )
    row("quantize", lambda i: ops.quantize(i.rgb, 8), opencv=lambda i: cv2.LUT(i.rgb, steps))
    row("slice_levels", lambda i: ops.slice_levels(i.rgb, 0.4, 0.6), opencv=lambda i: cv2.LUT(i.rgb, band))
    row("log_transform", lambda i: ops.log_transform(i.rgb), opencv=lambda i: cv2.LUT(i.rgb, log))
    row(
        "gamma",
        lambda i: ops.gamma(i.rgb),
        opencv=lambda i: cv2.LUT(i.rgb, gamma),
        kornia=lambda i: kornia.enhance.adjust_gamma(i.tensor, 0.5),
    )
    row(
        "stretch",
        lambda i: ops.stretch(i.rgb),
        opencv=lambda i: cv2.normalize(i.rgb, None, 0, 255, cv2.NORM_MINMAX),
        skimage=lambda i: sk.exposure.rescale_intensity(i.rgb),
    )
    row("histogram", lambda i: ops.histogram(i.gray), opencv=lambda i: cv2.calcHist([i.gray], [0], None, [256], [0, 256]))
    row("equalize", lambda i: ops.equalize(i.gray), opencv=lambda i: cv2.equalizeHist(i.gray))
    row("clahe", lambda i: ops.clahe(i.gray), opencv=lambda i: cv2.createCLAHE(2, (8, 8)).apply(i.gray))
    for name, code in {
        "rgb_to_bgr": cv2.COLOR_RGB2BGR,
        "rgb_to_gray": cv2.COLOR_RGB2GRAY,
        "rgb_to_hsv": cv2.COLOR_RGB2HSV_FULL,
        "rgb_to_lab": cv2.COLOR_RGB2LAB,
        "hsv_to_rgb": cv2.COLOR_HSV2RGB_FULL,
        "lab_to_rgb": cv2.COLOR_LAB2RGB,
    }.items():
        torch_name = name.replace("gray", "grayscale")
        row(
            name,
            lambda i, name=name: getattr(ops, name)(i.rgb),
            opencv=lambda i, code=code: cv2.cvtColor(i.rgb, code),
            kornia=lambda i, name=torch_name: getattr(kornia.color, name)(i.tensor),
        )

    def swapped(image: np.ndarray) -> np.ndarray:  # OpenCV has Cr before Cb
        return cv2.mixChannels([image], [np.empty_like(image)], [0, 0, 1, 2, 2, 1])[0]

    row(
        "rgb_to_ycbcr",
        lambda i: ops.rgb_to_ycbcr(i.rgb),
        opencv=lambda i: swapped(cv2.cvtColor(i.rgb, cv2.COLOR_RGB2YCrCb)),
        kornia=lambda i: kornia.color.rgb_to_ycbcr(i.tensor),
    )
    row(
        "ycbcr_to_rgb",
        lambda i: ops.ycbcr_to_rgb(i.rgb),
        opencv=lambda i: cv2.cvtColor(swapped(i.rgb), cv2.COLOR_YCrCb2RGB),
        kornia=lambda i: kornia.color.ycbcr_to_rgb(i.tensor),
    )
    row("gray_to_rgb", lambda i: ops.gray_to_rgb(i.gray), opencv=lambda i: cv2.cvtColor(i.gray, cv2.COLOR_GRAY2RGB))
    row(
        "match_histogram",
        lambda i: ops.match_histogram(i.rgb, i.rgb[::-1] // 2),
        skimage=lambda i: sk.exposure.match_histograms(i.rgb, i.rgb[::-1] // 2, channel_axis=-1),
    )

    # Sampling and geometry
    half = (lambda i: (i.rgb.shape[0] // 2, i.rgb.shape[1] // 2), lambda i: (i.rgb.shape[1] // 2, i.rgb.shape[0] // 2))
    turn = lambda i: cv2.getRotationMatrix2D((i.rgb.shape[1] / 2 - 0.5, i.rgb.shape[0] / 2 - 0.5), 30, 1)  # noqa: E731
    tilt = [[1.0, 0.1, 0.0], [0.02, 1.0, 0.0], [1e-5, 0.0, 1.0]]
    row(
        "resize",
        lambda i: ops.resize(i.rgb, half[0](i)),
        opencv=lambda i: cv2.resize(i.rgb, half[1](i), interpolation=cv2.INTER_LINEAR),
        kornia=lambda i: kornia.geometry.resize(i.tensor, half[0](i)),
    )
    row("upsample", lambda i: ops.upsample(i.rgb, 2), 1 / 4, opencv=lambda i: cv2.resize(i.rgb, None, fx=2, fy=2))
    row(
        "gaussian_pyramid",
        lambda i: ops.gaussian_pyramid(i.rgb, 2),
        opencv=lambda i: [i.rgb.copy(), cv2.pyrDown(i.rgb)],
        kornia=lambda i: [i.tensor.clone(), kornia.geometry.pyrdown(i.tensor)],
    )
    row("mirror", lambda i: ops.mirror(i.rgb), opencv=lambda i: cv2.flip(i.rgb, 1), kornia=lambda i: kornia.geometry.hflip(i.tensor))
    row("quarter_turn", lambda i: ops.quarter_turn(i.rgb), opencv=lambda i: cv2.rotate(i.rgb, cv2.ROTATE_90_COUNTERCLOCKWISE))
    row(
        "frame",
        lambda i: ops.frame(i.rgb, 10, 10, 10, 10),
        opencv=lambda i: cv2.copyMakeBorder(i.rgb, 10, 10, 10, 10, cv2.BORDER_REFLECT_101),
    )
    row(
        "rotate",
        lambda i: ops.rotate(i.rgb, 30),
        opencv=lambda i: cv2.warpAffine(i.rgb, turn(i), i.rgb.shape[1::-1]),
    )
    row(
        "perspective",
        lambda i: ops.perspective(i.rgb, tilt),
        opencv=lambda i: cv2.warpPerspective(i.rgb, np.array(tilt), i.rgb.shape[1::-1]),
    )

    # Windows
    box5, box3 = np.ones((5, 5), np.uint8), np.ones((3, 3), np.uint8)
    kernel = np.random.default_rng(0).random((5, 5)) / 12.5
    sharp = np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    row("correlate", lambda i: ops.correlate(i.rgb, kernel), opencv=lambda i: cv2.filter2D(i.rgb, -1, kernel))
    row("sharpen", lambda i: ops.sharpen(i.rgb), opencv=lambda i: cv2.filter2D(i.rgb, -1, sharp))
    row(
        "mean",
        lambda i: ops.mean(i.rgb, size=5),
        opencv=lambda i: cv2.blur(i.rgb, (5, 5)),
        kornia=lambda i: kornia.filters.box_blur(i.tensor, (5, 5)),
    )
    row(
        "gaussian",
        lambda i: ops.gaussian(i.rgb, sigma=2.0),
        opencv=lambda i: cv2.GaussianBlur(i.rgb, (17, 17), 2),
        skimage=lambda i: sk.filters.gaussian(i.rgb, 2, channel_axis=-1),
        kornia=lambda i: kornia.filters.gaussian_blur2d(i.tensor, (17, 17), (2.0, 2.0)),
    )
    row("minimum", lambda i: ops.minimum(i.rgb, size=5), opencv=lambda i: cv2.erode(i.rgb, box5))
    row("maximum", lambda i: ops.maximum(i.rgb, size=5), opencv=lambda i: cv2.dilate(i.rgb, box5))
    row(
        "median",
        lambda i: ops.median(i.rgb, size=5),
        opencv=lambda i: cv2.medianBlur(i.rgb, 5),
        kornia=lambda i: kornia.filters.median_blur(i.tensor, (5, 5)),
    )
    row("median 9", lambda i: ops.median(i.rgb, size=9), opencv=lambda i: cv2.medianBlur(i.rgb, 9))
    row("opening", lambda i: ops.opening(i.rgb), opencv=lambda i: cv2.morphologyEx(i.rgb, cv2.MORPH_OPEN, box3))
    row("top_hat", lambda i: ops.top_hat(i.rgb), opencv=lambda i: cv2.morphologyEx(i.rgb, cv2.MORPH_TOPHAT, np.ones((9, 9), np.uint8)))

    # Derivatives and edges
    def cv_magnitude(x: np.ndarray) -> np.ndarray:
        return cv2.convertScaleAbs(cv2.magnitude(cv2.Sobel(x, cv2.CV_32F, 1, 0), cv2.Sobel(x, cv2.CV_32F, 0, 1)))

    row("sobel", lambda i: ops.sobel(i.rgb), opencv=lambda i: cv2.convertScaleAbs(cv2.Sobel(i.rgb, cv2.CV_16S, 1, 0)))
    row(
        "laplacian",
        lambda i: ops.laplacian(i.rgb),
        opencv=lambda i: cv2.convertScaleAbs(cv2.Laplacian(i.rgb, cv2.CV_16S)),
        kornia=lambda i: kornia.filters.laplacian(i.tensor, 3),
    )
    row(
        "gradient_magnitude",
        lambda i: ops.gradient_magnitude(i.rgb),
        opencv=lambda i: cv_magnitude(i.rgb),
        kornia=lambda i: kornia.filters.sobel(i.tensor),
    )
    row(
        "sobel_edges",
        lambda i: ops.sobel_edges(i.gray),
        skimage=lambda i: sk.filters.sobel(i.gray),
        opencv=lambda i: cv_magnitude(i.gray),
        kornia=lambda i: kornia.filters.sobel(i.gray_tensor),
    )
    row(
        "laplacian_of_gaussian",
        lambda i: ops.laplacian_of_gaussian(i.gray, sigma=2.0),
        scipy=lambda i: nd.gaussian_laplace(i.gray.astype(np.float32), 2.0),
    )
    row(
        "canny",
        lambda i: ops.canny(i.gray, sigma=2.0, low=0.2, high=0.4),
        opencv=lambda i: cv2.Canny(cv2.GaussianBlur(i.gray, (17, 17), 2), 51, 102, L2gradient=True),
        skimage=lambda i: sk.feature.canny(i.gray, 2),
    )

    # Noise
    def cv_noise(x: np.ndarray) -> np.ndarray:
        return cv2.add(x, cv2.randn(np.empty(x.shape, np.int16), np.zeros(4), np.full(4, 25.0)), dtype=cv2.CV_8U)

    def sk_noise(kind: str) -> Call:
        return lambda i: sk.util.random_noise(i.rgb, kind, rng=0)

    row(
        "gaussian_noise",
        lambda i: ops.gaussian_noise(i.rgb, sigma=0.1),
        opencv=lambda i: cv_noise(i.rgb),
        skimage=sk_noise("gaussian"),
    )
    row("multiplicative_noise", lambda i: ops.multiplicative_noise(i.rgb, sigma=0.1), skimage=sk_noise("speckle"))
    row("salt_and_pepper", lambda i: ops.salt_and_pepper(i.rgb), skimage=sk_noise("s&p"))
    row("poisson_noise", lambda i: ops.poisson_noise(i.rgb), 1 / 4, skimage=sk_noise("poisson"))

    # Denoising and quality
    def pywt_shrunk(x: np.ndarray) -> np.ndarray:
        """BayesShrink on the undecimated transform (of sides that are multiples of 16)."""
        import pywt

        height, width = (n // 16 * 16 for n in x.shape)
        means, *levels = pywt.swtn(x[:height, :width], "haar", 4, norm=True, trim_approx=True)
        for k, details in enumerate(reversed(levels), 1):
            noise = 0.1 / 2**k
            for name, band in details.items():
                signal = max(float(np.mean(np.square(band))) - noise**2, 1e-12) ** 0.5
                details[name] = pywt.threshold(band, noise**2 / signal, "soft")
        return np.asarray(pywt.iswtn([means, *levels], "haar", norm=True))

    motion = np.full((1, 9), 1 / 9)
    row(
        "wiener",
        lambda i: ops.wiener(i.gray, degradation=motion, noise_to_signal=0.01, border="wrap"),
        1 / 4,
        skimage=lambda i: sk.restoration.wiener(i.gray / 255, motion, 0.01),
    )
    row("adaptive_wiener", lambda i: ops.adaptive_wiener(i.gray), 1 / 4, scipy=lambda i: scipy.signal.wiener(i.gray.astype(np.float32), 5))
    row(
        "bilateral",
        lambda i: ops.bilateral(i.rgb, size=9),
        1 / 4,
        opencv=lambda i: cv2.bilateralFilter(i.rgb, 9, 25.5, 3),
        kornia=lambda i: kornia.filters.bilateral_blur(i.tensor, (9, 9), 0.1, (3.0, 3.0)),
    )
    row(
        "non_local_means",
        lambda i: ops.non_local_means(i.rgb, h=0.08),
        1 / 48,
        opencv=lambda i: cv2.fastNlMeansDenoising(i.rgb, None, 20.4, 7, 21),
        skimage=lambda i: sk.restoration.denoise_nl_means(i.rgb, 7, 10, 0.08, channel_axis=-1),
    )
    row(
        "wavelet_shrinkage",
        lambda i: ops.wavelet_shrinkage(i.gray, sigma=0.1),
        1 / 4,
        pywavelets=lambda i: pywt_shrunk(i.gray / np.float32(255)),
    )
    row(
        "estimate_sigma",
        lambda i: ops.estimate_sigma(i.gray),
        skimage=lambda i: sk.restoration.estimate_sigma(i.gray),
    )
    row(
        "total_variation",
        lambda i: ops.total_variation(i.rgb),
        1 / 48,
        skimage=lambda i: sk.restoration.denoise_tv_chambolle(i.rgb, 0.1, channel_axis=-1),
    )
    row(
        "psnr",
        lambda i: ops.psnr(i.rgb, i.rgb[::-1].copy()),
        opencv=lambda i: cv2.PSNR(i.rgb, i.rgb[::-1].copy()),
        skimage=lambda i: sk.metrics.peak_signal_noise_ratio(i.rgb, i.rgb[::-1].copy()),
    )
    row(
        "ssim",
        lambda i: ops.ssim(i.gray, i.gray[::-1].copy()),
        1 / 4,
        skimage=lambda i: sk.metrics.structural_similarity(i.gray, i.gray[::-1].copy(), gaussian_weights=True, use_sample_covariance=False),
        kornia=lambda i: kornia.metrics.ssim(i.gray_tensor, i.gray_tensor.flip(2), 11),
    )

    # Frequency, thresholds, segments
    row("low_pass", lambda i: ops.low_pass(i.rgb), 1 / 4, skimage=lambda i: sk.filters.butterworth(i.rgb, 0.1, False, channel_axis=-1))
    row(
        "fixed_threshold",
        lambda i: ops.fixed_threshold(i.rgb),
        opencv=lambda i: cv2.threshold(i.rgb, 127, 255, cv2.THRESH_BINARY),
    )
    row(
        "otsu",
        lambda i: ops.otsu(i.gray),
        opencv=lambda i: cv2.threshold(i.gray, 0, 255, cv2.THRESH_OTSU),
        skimage=lambda i: i.gray > sk.filters.threshold_otsu(i.gray),
    )
    row(
        "adaptive_threshold",
        lambda i: ops.adaptive_threshold(i.gray, size=51, offset=0.02),
        opencv=lambda i: cv2.adaptiveThreshold(i.gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 51, 5),
        skimage=lambda i: i.gray > sk.filters.threshold_local(i.gray, 51, "mean", 5),
    )
    row(
        "graph_segments",
        lambda i: ops.graph_segments(i.rgb),
        1 / 48,
        skimage=lambda i: sk.segmentation.felzenszwalb(i.rgb, 300, 0.8, 20),
    )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each")
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--operations", nargs="*", default=[], help="all by default")
    arguments = parser.parse_args()
    whole = photo(arguments.megapixels)
    rows: list[dict[str, Any]] = []
    for case in cases():
        if arguments.operations and case.operation not in arguments.operations:
            continue
        height, width = (round(n * case.share**0.5) for n in whole.shape[:2])
        inputs = Inputs.of(np.ascontiguousarray(whole[:height, :width]))
        first = {name: min(timed(lambda peer=peer, inputs=inputs: peer(inputs)) for _ in range(2)) for name, peer in case.peers.items()}
        fastest = min(first, key=lambda name: first[name])
        row = {"operation": case.operation, "megapixels": round(height * width / 1e6, 2), "peer": fastest, "seed": 0}
        row |= {"peers": " ".join(f"{name}={seconds:.3g}s" for name, seconds in first.items())}
        calls = max(1, round(0.05 / first[fastest]))  # of one timing: what takes a millisecond is called fifty times
        ours, theirs = (partial(repeat, call, inputs, calls) for call in (case.ours, case.peers[fastest]))
        rows.append(row | {"calls": calls} | interleaved(ours, theirs, rounds=arguments.rounds).row())
        print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()), flush=True)
    print(write_csv("image_ops", rows))


if __name__ == "__main__":
    main()
