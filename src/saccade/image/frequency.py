"""Operations on the whole image (canon I12): the Fourier transform and filters in it, Hough's lines and circles, histogram matching.

Frequencies are in cycles per pixel, 0 to 0.5 along an axis, whatever the size. A transform sees the image as periodic; ``border`` other
than "wrap" adds a frame first. Transforms by SciPy, which keeps float32 and takes any size; each channel by itself.

Papers: Butterworth (1930). Hough: US patent 3069654 (1962); Duda, Hart: Use of the Hough Transformation to Detect Lines and Curves in
Pictures (1972).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from saccade.image.base import (
    Border,
    border_names,
    channels,
    each_channel,
    from_float,
    look_up,
    luma,
    operation,
    pad,
    stacked,
    strips,
    threads,
    to_float,
    white,
    within,
)
from saccade.image.edges import canny
from saccade.image.filters import Output
from saccade.image.point import level_counts
from saccade.types.errors import UsageError

Kind = Literal["ideal", "butterworth", "gaussian"]


# ---------------------------------------------------------------------------------------------------------------- Fourier


@operation(row="I12", formula="g = log(1 + |F|) / max, F = DFT(f), frequency 0 in the middle")
def fft_magnitude(image: np.ndarray, output: Output = "same") -> np.ndarray:
    """The magnitude of the Fourier transform, frequency 0 at (H // 2, W // 2). SciPy.

    Args:
        image: any image.
        output: "same": logarithmic, the greatest white; "float": ``|F|`` itself, float, of an image in 0..1.
    """
    halves = [np.abs(half_spectrum(channel)) for channel in channels(image)]
    if output == "same":
        top = max(math.log1p(max(float(half.max()) for half in halves)), 1e-12)
        halves = [from_float(np.log1p(half, out=half) / half.dtype.type(top), image.dtype) for half in halves]
    return stacked([_whole(half, half, image.shape[1]) for half in halves], image)


@operation(row="I12", formula="g = arg(F), F = DFT(f), frequency 0 in the middle")
def fft_phase(image: np.ndarray, output: Output = "same") -> np.ndarray:
    """The phase of the Fourier transform, frequency 0 at (H // 2, W // 2). SciPy.

    Args:
        image: any image.
        output: "same": -pi..pi laid over the range; "float": radians.
    """

    def change(channel: np.ndarray) -> np.ndarray:
        half = np.angle(half_spectrum(channel))
        if output == "float":
            return _whole(half, -half, channel.shape[1])
        half /= 2 * np.pi
        return _whole(from_float(half + 0.5, image.dtype), from_float(0.5 - half, image.dtype), channel.shape[1])

    return stacked([change(channel) for channel in channels(image)], image)


def from_spectrum(magnitude: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """The image of a magnitude and a phase as the operations give them with ``output="float"``: float, not clipped.

    >>> x = np.random.default_rng(0).random((5, 4))
    >>> bool(np.allclose(from_spectrum(fft_magnitude(x, output="float"), fft_phase(x, output="float")), x))
    True
    """
    from scipy import fft

    spectrum = fft.ifftshift(magnitude * np.exp(1j * phase), axes=(0, 1))
    image: np.ndarray = fft.ifft2(spectrum, axes=(0, 1)).real
    return image


def _whole(half: np.ndarray, other: np.ndarray, width: int) -> np.ndarray:
    """(H, W), frequency 0 in the middle, of what was made of a half spectrum; ``other`` of its complex conjugate."""
    height, middle = len(half), width // 2
    out = np.empty((height, width), half.dtype)
    rows = (np.arange(height) + height // 2) % height
    out[rows, middle:] = half[:, : width - middle]
    out[rows, :middle] = other[-np.arange(height) % height][:, middle:0:-1]  # F(-u, -v) = conj F(u, v)
    if width % 2 == 0:
        out[rows, 0] = half[:, middle]
    return out


def half_spectrum(image: np.ndarray) -> np.ndarray:
    """(H, W // 2 + 1) complex: SciPy's ``rfft2`` of an image (H, W) in 0..1, strips of rows first and then all columns in place.

    So no floats of the whole image stand beside its spectrum.
    """
    from scipy import fft

    height, width = image.shape
    out: np.ndarray | None = None
    for rows in _strips(height, width):
        part = fft.rfft(to_float(image[rows]), axis=1, workers=threads())
        out = np.empty((height, width // 2 + 1), part.dtype) if out is None else out
        out[rows] = part
    return np.asarray(fft.fft(out, axis=0, overwrite_x=True, workers=threads()))


def from_half_spectrum(spectrum: np.ndarray, width: int, finish: Callable[[np.ndarray, slice], np.ndarray]) -> np.ndarray:
    """``finish(floats, rows)`` of each strip of rows of SciPy's ``irfft2``; the spectrum is overwritten."""
    from scipy import fft

    spectrum = fft.ifft(spectrum, axis=0, overwrite_x=True, workers=threads())
    out: np.ndarray | None = None
    for rows in _strips(len(spectrum), width):
        part = finish(fft.irfft(spectrum[rows], width, axis=1, workers=threads()), rows)
        out = np.empty((len(spectrum), *part.shape[1:]), part.dtype) if out is None else out
        out[rows] = part
    assert out is not None
    return out


def _strips(height: int, width: int) -> list[slice]:
    return strips(height, max(1, 2**18 // width))


def frequencies(shape: tuple[int, int], rows: slice = slice(None)) -> np.ndarray:
    """(H, W // 2 + 1) distance from frequency 0 in cycles per pixel, of a real image's half spectrum as ``rfft2`` orders it."""
    return np.hypot(np.fft.fftfreq(shape[0])[rows, None], np.fft.rfftfreq(shape[1]))


def transfer(shape: tuple[int, int], cutoff: float, kind: str = "butterworth", order: int = 2, rows: slice = slice(None)) -> np.ndarray:
    """What a low-pass lets through of each frequency, on the half spectrum of :func:`frequencies` (or rows of it).

    * ideal: 1 up to the cutoff, 0 beyond
    * butterworth: ``1 / (1 + (f / cutoff)^(2 order))``: a half at the cutoff
    * gaussian: ``exp(-f^2 / (2 cutoff^2))``: 0.607 at the cutoff
    """
    within(cutoff, 0, 1, "the cutoff", open_low=True)
    within(order, 1, 100, "order")
    f = frequencies(shape, rows)
    if kind == "ideal":
        return (f <= cutoff).astype(np.float64)
    if kind == "gaussian":
        return np.exp(-(f**2) / (2 * cutoff**2))
    with np.errstate(over="ignore"):
        return 1 / (1 + (f / cutoff) ** (2 * order))


def filtered(
    image: np.ndarray, response: Callable[[slice], np.ndarray], finish: Callable[[np.ndarray, slice], np.ndarray] = lambda x, rows: x
) -> np.ndarray:
    """An image (H, W) in 0..1 times a response in its half spectrum; periodic, not clipped.

    Args:
        image: of any dtype.
        response: gives rows of the (H, W // 2 + 1) response.
        finish: makes rows of the result of the floats and their place.
    """
    spectrum = half_spectrum(image)
    for rows in _strips(*spectrum.shape):
        values = response(rows)
        spectrum[rows] *= values.astype(spectrum.dtype if np.iscomplexobj(values) else spectrum.real.dtype, copy=False)
    return from_half_spectrum(spectrum, image.shape[1], finish)


@operation(row="I12", formula="g = IDFT(H F), H near 1 below the cutoff")
def low_pass(image: np.ndarray, cutoff: float = 0.1, kind: Kind = "butterworth", order: int = 2, border: Border = "wrap") -> np.ndarray:
    """Keeps what varies slowly. SciPy's transforms; see :func:`transfer`.

    Args:
        image: any image.
        cutoff: frequency in cycles per pixel.
        kind: of the fall-off: ideal (rings), butterworth, gaussian (does not ring).
        order: of Butterworth's fall-off.
        border: "wrap": periodic; others: half a frame to each side, cut off afterwards.
    """
    return _passed(image, (cutoff, None), kind, order, border, lambda x: from_float(x, image.dtype))


@operation(row="I12", formula="g = IDFT((1 - H) F), H a low-pass")
def high_pass(
    image: np.ndarray,
    cutoff: float = 0.1,
    kind: Kind = "butterworth",
    order: int = 2,
    border: Border = "wrap",
    output: Output = "same",
) -> np.ndarray:
    """Keeps what varies fast; even ground becomes 0. SciPy's transforms.

    Args:
        image: any image.
        cutoff: frequency in cycles per pixel.
        kind: as of :func:`low_pass`.
        order: of Butterworth's fall-off.
        border: as of :func:`low_pass`.
        output: "same" (absolute) or "float" (signed, in units of the range).
    """
    return _passed(image, (None, cutoff), kind, order, border, lambda x: _signed(x, image, output))


@operation(row="I12", formula="g = IDFT(H_high (1 - H_low) F)")
def band_pass(
    image: np.ndarray,
    low: float = 0.05,
    high: float = 0.2,
    kind: Kind = "butterworth",
    order: int = 2,
    border: Border = "wrap",
    output: Output = "same",
) -> np.ndarray:
    """Keeps what varies neither slowly nor fast. SciPy's transforms.

    Args:
        image: any image.
        low: lower cutoff in cycles per pixel.
        high: upper cutoff.
        kind: as of :func:`low_pass`.
        order: of Butterworth's fall-off.
        border: as of :func:`low_pass`.
        output: "same" (absolute) or "float" (signed, in units of the range).
    """
    if low >= high:
        raise UsageError(f"low={low:g} is not below high={high:g}")
    return _passed(image, (high, low), kind, order, border, lambda x: _signed(x, image, output))


def _passed(
    image: np.ndarray,
    cutoffs: tuple[float | None, float | None],
    kind: str,
    order: int,
    border: str,
    finish: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """What ``finish`` makes of each channel, floats in units of the range, after a low-pass and a high-pass, each where it has a cutoff."""
    border_names(border)
    height, width = image.shape[:2]
    rows, columns = (0, 0) if border == "wrap" else ((height + 1) // 2, (width + 1) // 2)
    shape, (below, above) = (height + 2 * rows, width + 2 * columns), cutoffs
    response = np.empty((shape[0], shape[1] // 2 + 1), to_float(image[:0, :0]).dtype)
    for strip in _strips(*response.shape):
        response[strip] = 1 if below is None else transfer(shape, below, kind, order, strip)
        if above is not None:
            response[strip] *= 1 - transfer(shape, above, kind, order, strip)

    def change(channel: np.ndarray) -> np.ndarray:
        wide = pad(channel, (rows, rows), (columns, columns), border) if border != "wrap" else channel
        return filtered(wide, lambda strip: response[strip], lambda x, _: finish(x[:, columns : columns + width]))[rows : rows + height]

    return each_channel(image, change)


def _signed(response: np.ndarray, image: np.ndarray, output: str) -> np.ndarray:
    return response if output == "float" else from_float(np.abs(response), image.dtype)


# ------------------------------------------------------------------------------------------------------------------ Hough


@operation(row="I12", formula="x cos(theta) + y sin(theta) = rho, the cells with most votes", gives="value", masks=True)
def find_lines(
    image: np.ndarray,
    votes: int = 100,
    count: int = 10,
    degrees: float = 1.0,
    apart: tuple[float, float] = (10.0, 5.0),
    edges: bool = False,
) -> np.ndarray:
    """Straight lines by Hough's transform. OpenCV's HoughLines.

    Args:
        image: any image; its edges by :func:`canny` (sigma 1.5, thresholds 0.2 and 0.5) vote.
        votes: least number of edge pixels on a line.
        count: at most so many lines, strongest first.
        degrees: step of the angle; the step of the distance is a pixel.
        apart: pixels and degrees; of lines that are nearer in both, only the strongest stays.
        edges: the image is an edge map or mask already: every pixel above 0 votes.

    Returns:
        (N, 3) float32 rho, theta, votes: ``x cos(theta) + y sin(theta) = rho``, theta in degrees, 0 <= theta < 180, y down; the
        centre of the first pixel is (0.5, 0.5).
    """
    import cv2

    within(votes, 1, 1e9, "votes")
    within(count, 0, 1e6, "count")
    within(degrees, 0.05, 45, "degrees")
    grey = luma(image)
    voters = (grey > 0).astype(np.uint8) if edges else _plain_canny(grey)
    found = cv2.HoughLinesWithAccumulator(voters, 1, math.radians(degrees), int(votes) - 1)
    if found is None:
        return np.zeros((0, 3), np.float32)
    rest = found.reshape(-1, 3) * np.array([1, 180 / np.pi, 1], np.float32)
    lines: list[np.ndarray] = []
    while len(rest) and len(lines) < count:
        rho, theta, _ = rest[0]
        lines.append(rest[0])
        turned = np.abs(rest[:, 1] - theta) > 90  # the angle 179 with rho is nearly the angle 0 with -rho
        shift, angle = np.where(turned, rest[:, 0] + rho, rest[:, 0] - rho), np.abs(rest[:, 1] - theta)
        near = (np.abs(shift) <= apart[0]) & (np.where(turned, 180 - angle, angle) <= apart[1])
        near[0] = True
        rest = rest[~near]
    out = np.array(lines, np.float32).reshape(-1, 3)
    turn = np.radians(out[:, 1])
    out[:, 0] += 0.5 * (np.cos(turn) + np.sin(turn))  # OpenCV's pixel centres are whole numbers
    return out


@operation(row="I12", formula="(x - a)^2 + (y - b)^2 = r^2, the centres and radii with most votes", gives="value")
def find_circles(
    image: np.ndarray,
    least: int = 5,
    most: int = 0,
    apart: float = 20.0,
    high: float = 1.2,
    roundness: float = 0.85,
    count: int = 20,
) -> np.ndarray:
    """Circles by Hough's transform with gradients. OpenCV's HoughCircles (HOUGH_GRADIENT_ALT), on 8 bits.

    Args:
        image: any image.
        least: radius in pixels.
        most: radius; 0 for as large as the image.
        apart: least distance between centres.
        high: upper threshold of the edges, in units of the range; half of it is the lower one. Of Scharr's kernel: above Sobel's.
        roundness: how much of a circle must be there, below 1.
        count: at most so many circles, strongest first.

    Returns:
        (N, 3) float32 x, y, radius in pixels; the centre of the first pixel is (0.5, 0.5).
    """
    import cv2

    within(least, 0, 1e5, "least")
    within(apart, 1, 1e6, "apart")
    within(high, 0.01, 15, "high")
    if not 0 < roundness < 1:
        raise UsageError(f"roundness lies between 0 and 1, both excluded, not {roundness:g}")
    within(count, 0, 1e6, "count")
    grey = from_float(to_float(luma(image)), np.uint8)
    if most and most < least:
        raise UsageError(f"the radius lies in least={least}..most={most}: nothing does")
    found = cv2.HoughCircles(grey, cv2.HOUGH_GRADIENT_ALT, 1.5, apart, None, high * 255, roundness, least, most or max(least, *grey.shape))
    if found is None:
        return np.zeros((0, 3), np.float32)
    return np.asarray(found.reshape(-1, found.shape[-1])[:count, :3] + np.array([0.5, 0.5, 0]), np.float32)


@operation(row="I12", formula="the image with the lines of find_lines drawn on it", alpha="refuse", masks=True)
def hough_lines(
    image: np.ndarray,
    votes: int = 100,
    count: int = 10,
    degrees: float = 1.0,
    apart: tuple[float, float] = (10.0, 5.0),
    edges: bool = False,
) -> np.ndarray:
    """The lines of :func:`find_lines` drawn on the image. OpenCV.

    Args:
        image: any image; on grey the lines are white.
        votes: least number of edge pixels on a line.
        count: at most so many lines, strongest first.
        degrees: step of the angle.
        apart: pixels and degrees; of lines that are nearer in both, only the strongest stays.
        edges: the image is an edge map already.
    """
    import cv2

    out = image.copy()
    reach = sum(image.shape[:2])
    for rho, theta, _ in find_lines(image, votes, count, degrees, apart, edges):
        c, s = math.cos(math.radians(theta)), math.sin(math.radians(theta))
        ends = [(round(c * rho - k * s * reach - 0.5), round(s * rho + k * c * reach - 0.5)) for k in (-1, 1)]
        cv2.line(out, ends[0], ends[1], _ink(image), 1 + min(image.shape[:2]) // 400)
    return out


@operation(row="I12", formula="the image with the circles of find_circles drawn on it", alpha="refuse")
def hough_circles(
    image: np.ndarray,
    least: int = 5,
    most: int = 0,
    apart: float = 20.0,
    high: float = 1.2,
    roundness: float = 0.85,
    count: int = 20,
) -> np.ndarray:
    """The circles of :func:`find_circles` drawn on the image. OpenCV.

    Args:
        image: any image; on grey the circles are white.
        least: radius in pixels.
        most: radius; 0 for as large as the image.
        apart: least distance between centres.
        high: upper threshold of the edges, in units of the range.
        roundness: how much of a circle must be there, below 1.
        count: at most so many circles, strongest first.
    """
    import cv2

    out = image.copy()
    for x, y, radius in find_circles(image, least=least, most=most, apart=apart, high=high, roundness=roundness, count=count):
        cv2.circle(out, (round(float(x) - 0.5), round(float(y) - 0.5)), round(float(radius)), _ink(image), 1 + min(image.shape[:2]) // 400)
    return out


def _plain_canny(grey: np.ndarray) -> np.ndarray:
    return (canny(grey, sigma=1.5, low=0.2, high=0.5) > 0).astype(np.uint8)


def _ink(image: np.ndarray) -> tuple[float, float, float] | float:
    return (white(image), 0.0, 0.0) if image.ndim == 3 else white(image)


# -------------------------------------------------------------------------------------------------------------- histogram


@operation(row="I12", formula="g = inverse CDF of the reference at the CDF of f", inputs=2)
def match_histogram(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The image with the reference's histogram, each channel by itself. Ours on NumPy; scikit-image's truncates where this rounds.

    Args:
        image: any image.
        reference: of the same dtype and number of channels; of any size.
    """
    if image.ndim != reference.ndim or image.shape[2:] != reference.shape[2:]:
        raise UsageError(f"match_histogram takes images with equally many channels, not {image.shape} and {reference.shape}")
    if image.ndim == 2:
        return _matched(image, reference)
    return np.stack([_matched(np.ascontiguousarray(image[..., c]), reference[..., c]) for c in range(image.shape[2])], axis=-1)


def _matched(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    if image.dtype.kind == "f":
        _, where, counts = np.unique(image, return_inverse=True, return_counts=True)
        values, wanted = np.unique(reference, return_counts=True)
        table = np.interp(np.cumsum(counts) / image.size, np.cumsum(wanted) / reference.size, values)
        return table[where.reshape(image.shape)].astype(image.dtype)
    counts, wanted = level_counts(image), level_counts(reference)
    present = np.flatnonzero(wanted)
    table = np.interp(np.cumsum(counts) / image.size, np.cumsum(wanted)[present] / reference.size, present)
    return look_up(image, np.rint(table).astype(image.dtype))
