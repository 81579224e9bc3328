"""Filters of a neighbourhood: weighted sums (canon I6), ranks (I7) and derivatives (I8), each channel by itself.

Conventions:

* Filters **correlate**: the kernel is laid on the image as it is written, its centre on the pixel. Its sides are odd. A kernel may be
  larger than the image; ``border`` says what lies outside.
* ``output="same"`` (the default) keeps dtype and range: what leaves the range is clipped, fractions are rounded. A derivative has a sign,
  which no image can hold: it gives its **absolute value**. ``output="float"`` gives the signed response as it is, float32 (float64 of a
  float64 image), in units of the image's range: a step from black to white is 1 times the kernel, for every dtype.
* x goes right, y down: ``sobel(axis="x")`` is positive where the image brightens to the right.

All run in OpenCV, the fastest of those that are exact, but for the median of some windows of floats or 16 bits (SciPy).
OpenCV smooths 8 bits in fixed point: a Gaussian of sigma up to 8 may be two levels from the exact one on photos and noise, 4.5 on
regular stripes. Larger ones are computed in floats.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from saccade.image.base import (
    LARGEST_WINDOW,
    Border,
    Parameter,
    border_names,
    clipped,
    each_channel,
    from_float,
    in_range,
    in_strips,
    odd,
    operation,
    pad,
    white,
    within,
)
from saccade.types.errors import UsageError, one_line, suggest

Output = Literal["same", "float"]
Operator = Literal["sobel", "prewitt", "scharr", "roberts"]
Kernel = Sequence[Sequence[float]] | str

DERIVATIVES: dict[str, tuple[float, float, float]] = {"sobel": (1, 2, 1), "prewitt": (1, 1, 1), "scharr": (3, 10, 3)}
"""The smoothing across of each separable operator; along its axis all have (-1, 0, 1)."""

_ROBERTS = {"x": ((0, 0, 0), (0, 1, 0), (0, 0, -1)), "y": ((0, 0, 0), (0, 0, 1), (0, -1, 0))}


# ---------------------------------------------------------------------------------------------------------------- kernels


def identity_kernel() -> np.ndarray:
    """The kernel that changes nothing."""
    return np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])


def mean_kernel(size: int = 3) -> np.ndarray:
    """``size * size`` equal weights of sum 1."""
    return np.full((odd(size), size), 1 / size**2)


def weighted_kernel(size: int = 3) -> np.ndarray:
    """Binomial weights of sum 1, heaviest in the middle.

    >>> (weighted_kernel(3) * 16).tolist()
    [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]
    """
    size = odd(int(within(size, 1, 255, "size")))
    row = np.array([math.comb(size - 1, k) / 2 ** (size - 1) for k in range(size)])
    return np.outer(row, row)


def gaussian_kernel(sigma: float = 1.0, size: int | None = None, mean: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A sampled Gaussian of sum 1: ``exp(-((x - mx)^2 + (y - my)^2) / (2 sigma^2))``.

    Args:
        sigma: deviation in pixels.
        size: side, odd; by default 4 sigma (and the mean) to each side, rounded, as SciPy has it.
        mean: (x, y) of the top in pixels from the centre: a filter with it moves the image by the opposite.
    """
    rows = [gaussian_weights(sigma, size, m, max(abs(m) for m in mean)) for m in mean]
    return np.outer(rows[1], rows[0])


def gaussian_weights(sigma: float, size: int | None = None, mean: float = 0.0, reach: float = 0.0) -> np.ndarray:
    """A sampled Gaussian that sums to 1; 4 sigma to each side by default."""
    within(sigma, 1e-3, 1e4, "sigma")
    within(reach, 0, 1e4, "mean")
    size = 2 * int(4 * sigma + reach + 0.5) + 1 if size is None else odd(size)
    if size > LARGEST_WINDOW:
        raise UsageError(f"sigma={sigma:g} makes a kernel of {size} pixels a side, more than {LARGEST_WINDOW}")
    exponent = -((np.arange(size) - size // 2 - mean) ** 2) / (2 * sigma**2)
    weights = np.exp(exponent - exponent.max())
    return weights / weights.sum()


def sharpen_kernel(amount: float = 1.0, neighbours: int = 4) -> np.ndarray:
    """The identity minus ``amount`` times the Laplacian.

    >>> sharpen_kernel().tolist()
    [[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]]
    """
    return identity_kernel() - within(amount, -1e6, 1e6, "amount") * laplacian_kernel(neighbours)


def laplacian_kernel(neighbours: int = 4) -> np.ndarray:
    """The sum of the 4 or 8 neighbours minus as often the pixel.

    >>> laplacian_kernel(8).tolist()
    [[1.0, 1.0, 1.0], [1.0, -8.0, 1.0], [1.0, 1.0, 1.0]]
    """
    if neighbours not in (4, 8):
        raise UsageError(f"neighbours are 4 or 8, not {neighbours}")
    side = 1.0 if neighbours == 8 else 0.0
    return np.array([[side, 1, side], [1, -neighbours, 1], [side, 1, side]])


def ridge_kernel(neighbours: int = 8) -> np.ndarray:
    """As often the pixel minus its 4 or 8 neighbours: bright lines and points stay, even ground becomes 0."""
    return -laplacian_kernel(neighbours)


def motion_kernel(length: int = 9, angle: float = 0.0) -> np.ndarray:
    """``length`` equal points on a line, a pixel apart, of sum 1: the blur of a camera that moved in direction ``angle`` (degrees, y down).

    A point between pixels is shared among the four around it.
    """
    within(length, 1, 1e3, "length")
    reach = length // 2 + 1
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.arange(length) - (length - 1) / 2
    x, y = (np.round(reach + steps * f(math.radians(angle)), 9) for f in (math.cos, math.sin))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            share = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy)) / length
            np.add.at(out, (np.minimum(top + dy, 2 * reach), np.minimum(left + dx, 2 * reach)), share)
    return out


def derivative_kernel(operator: str = "sobel", axis: str = "x") -> np.ndarray:
    """The 3x3 kernel of a derivative; Roberts' 2x2 stands in its lower right, on the pixel and its right, lower and diagonal neighbours.

    >>> derivative_kernel("sobel", "x").tolist()
    [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]
    """
    if axis not in ("x", "y") or operator not in (*DERIVATIVES, "roberts"):
        raise UsageError(f"a derivative is one of {', '.join(DERIVATIVES)}, roberts along x or y, not {operator!r} along {axis!r}")
    if operator == "roberts":
        return np.array(_ROBERTS[axis], dtype=np.float64)
    kernel = np.outer(DERIVATIVES[operator], (-1.0, 0.0, 1.0))
    return kernel if axis == "x" else kernel.T


KERNELS: dict[str, Callable[..., np.ndarray]] = {
    "identity": identity_kernel,
    "mean": mean_kernel,
    "weighted": weighted_kernel,
    "gaussian": gaussian_kernel,
    "sharpen": sharpen_kernel,
    "laplacian": laplacian_kernel,
    "ridge": ridge_kernel,
    "motion": motion_kernel,
    "derivative": derivative_kernel,
}


def kernel(description: Kernel) -> np.ndarray:
    """The weights of a kernel as float64: rows of numbers, or a name with arguments such as ``"mean:5"`` or ``"motion:9:45"``.

    Raises:
        UsageError: unknown name, wrong arguments, rows of different lengths, an even side, NaN.

    >>> kernel("laplacian:4").tolist()
    [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]
    """
    if isinstance(description, str):
        weights = _named(description)
    else:
        try:
            weights = np.array(description, dtype=np.float64)
        except (TypeError, ValueError):
            raise UsageError("a kernel is rows of equally many numbers") from None
    if weights.ndim != 2 or not weights.size:
        raise UsageError(f"a kernel is rows of equally many numbers, not of shape {weights.shape}")
    if weights.shape[0] % 2 == 0 or weights.shape[1] % 2 == 0:
        raise UsageError(f"the sides of a kernel are odd, not {weights.shape[0]}x{weights.shape[1]}")
    if not np.isfinite(weights).all():
        raise UsageError("the kernel holds NaN or infinite weights")
    if not np.abs(weights).sum() < 1e30:
        raise UsageError("the kernel's weights are too large")
    return weights


def _named(description: str) -> np.ndarray:
    """The weights of a name with arguments."""
    name, *texts = description.split(":")
    if name not in KERNELS:
        numbers = set(name) <= set("0123456789.,;+-einfa ")
        hint = "; the weights are numbers" if numbers else f"{suggest(name, KERNELS)}, or rows of numbers such as 0,1,0;1,-4,1;0,1,0"
        raise UsageError(f"no kernel {one_line(name, 40)!r}{hint}")
    function = KERNELS[name]
    hints = typing.get_type_hints(function)
    parameters = [Parameter(p.name, hints[p.name], p.default) for p in inspect.signature(function).parameters.values()]
    try:
        if len(texts) > len(parameters):
            raise UsageError("too many arguments")
        return function(*(parameter.read(text) for parameter, text in zip(parameters, texts, strict=False)))
    except UsageError as error:
        raise UsageError(f"the kernel {one_line(description, 40)!r} has wrong arguments: {error}; known: {_usage(name)}") from None


def _usage(name: str) -> str:
    return ":".join([name, *(f"{p.name}={p.default}" for p in inspect.signature(KERNELS[name]).parameters.values())])


# --------------------------------------------------------------------------------------------------- shared with other modules


def framed(image: np.ndarray, reach: tuple[int, int], border: str, run: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """``run(image, OpenCV's border number)``; "wrap", which OpenCV's filters lack, with a frame of ``reach`` (rows, columns)."""
    if border != "wrap":
        return run(image, border_names(border).opencv)
    (rows, columns), (height, width) = reach, image.shape[:2]
    if rows > max(64, 16 * height) or columns > max(64, 16 * width):
        raise UsageError(f"a window that reaches {max(reach)} pixels wraps the {height}x{width} image too often: make it smaller")
    return run(pad(image, (rows, rows), (columns, columns), border), 1)[rows : rows + height, columns : columns + width]


def strips_within(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray], halo: int, border: str) -> np.ndarray:
    """:func:`in_strips` but for "wrap", where the first rows look at the last."""
    return change(image) if border == "wrap" else in_strips(image, change, halo)


def depth(image: np.ndarray) -> int:
    """OpenCV's number of the float type that responses of an image have: float64 of float64, else float32."""
    return 6 if image.dtype == np.float64 else 5


def smooth(image: np.ndarray, sigma: float, border: str = "reflect", *, size: int | None = None, floats: bool = False) -> np.ndarray:
    """A Gaussian filter of HW or HWC: dtype kept, or with ``floats`` floats on the image's own scale."""
    import cv2

    row = gaussian_weights(sigma, size)
    if floats and image.dtype == np.uint8:
        return framed(image, (len(row) // 2,) * 2, border, lambda x, b: cv2.sepFilter2D(x, cv2.CV_32F, row, row, borderType=b))
    if image.dtype == np.uint8 and len(row) > 65:  # fixed point has too few digits for so small weights

        def change(strip: np.ndarray) -> np.ndarray:
            run = partial(cv2.sepFilter2D, ddepth=cv2.CV_32F, kernelX=row, kernelY=row)
            return np.asarray(cv2.convertScaleAbs(framed(strip, (len(row) // 2,) * 2, border, lambda x, b: run(x, borderType=b))))

        return strips_within(image, change, len(row) // 2, border)
    image = image.astype(np.float32) if floats and image.dtype.kind == "u" else image
    return framed(image, (len(row) // 2,) * 2, border, lambda x, b: cv2.GaussianBlur(x, (len(row),) * 2, sigma, None, sigma, b))


def derivative(image: np.ndarray, operator: str, axis: str, border: str, kind: int | None = None) -> np.ndarray:
    """A derivative on the image's own scale (0..255 for uint8), signed; ``kind`` is OpenCV's number of the result's type, or floats."""
    import cv2

    kind = depth(image) if kind is None else kind
    if operator == "roberts":
        weights = derivative_kernel(operator, axis)
        return framed(image, (1, 1), border, lambda x, b: cv2.filter2D(x, kind, weights, borderType=b))
    along, across = np.array([-1.0, 0.0, 1.0]), np.array(DERIVATIVES[operator], dtype=np.float64)
    row, column = (along, across) if axis == "x" else (across, along)
    return framed(image, (1, 1), border, lambda x, b: cv2.sepFilter2D(x, kind, row, column, borderType=b))


def length(dx: np.ndarray, dy: np.ndarray, *, spend: bool = False) -> np.ndarray:
    """``sqrt(dx^2 + dy^2)``, in the place of dx and dy with ``spend``.

    NumPy's: the last digit of OpenCV's magnitude differs from one run to the next.
    """
    out = np.square(dx, out=dx if spend else None)
    out += np.square(dy, out=dy if spend else None)
    return np.sqrt(out, out=out)


def signed(response: np.ndarray, image: np.ndarray, output: str) -> np.ndarray:
    """A signed response on the image's own scale as an operation gives it (see the module)."""
    if output == "float":
        return np.multiply(response, 1 / white(image), dtype=np.float64 if image.dtype == np.float64 else np.float32)
    if image.dtype == np.uint8:
        import cv2

        out: np.ndarray = cv2.convertScaleAbs(response)
        return out
    response = np.abs(response)
    np.clip(response, 0, white(image), out=response)
    return (np.rint(response, out=response) if image.dtype == np.uint16 else response).astype(image.dtype, copy=False)


def _exact_depth(image: np.ndarray) -> int:
    """16 signed bits hold every response of a 3x3 derivative of 8 bits."""
    return 3 if image.dtype == np.uint8 else depth(image)


# ------------------------------------------------------------------------------------------------------------ linear, I6


@operation(row="I6", formula="g(y, x) = sum_ij k(i, j) f(y + i, x + j)")
def correlate(
    image: np.ndarray,
    kernel: Kernel,
    stride: int = 1,
    padding: Literal["same", "valid"] = "same",
    border: Border = "reflect",
    output: Output = "same",
) -> np.ndarray:
    """Correlation with any kernel: the weighted sum of each pixel's neighbourhood. OpenCV's filter2D.

    Args:
        image: any image.
        kernel: rows of numbers, odd sides; or a name with arguments: identity, ``mean:SIZE``, ``weighted:SIZE``, ``gaussian:SIGMA[:SIZE]``,
            ``sharpen:AMOUNT[:4|8]``, ``laplacian:4|8``, ``ridge:4|8``, ``motion:LENGTH:ANGLE``,
            ``derivative:sobel|prewitt|scharr|roberts:x|y``.
        stride: take every so many-th pixel of the result, from the first on.
        padding: "same": as large as the image; "valid": only where the kernel lies inside.
        border: what lies outside ("same" only).
        output: "same" or "float" (see the module). Negative sums become 0 with "same".

    Raises:
        UsageError: an even or malformed kernel; "valid" with a kernel larger than the image.
    """
    weights = named_kernel(kernel)
    within(stride, 1, 1e6, "stride")
    out = _correlated(image, weights, border, output)
    if padding == "valid":
        (rows, columns), (height, width) = (s // 2 for s in weights.shape), image.shape[:2]
        if 2 * rows >= height or 2 * columns >= width:
            raise UsageError(f"the {weights.shape[0]}x{weights.shape[1]} kernel lies nowhere inside the {height}x{width} image")
        out = out[rows : height - rows, columns : width - columns]
    return out[::stride, ::stride]


named_kernel = kernel  # the argument of correlate has the function's name


def _correlated(image: np.ndarray, weights: np.ndarray, border: str, output: str) -> np.ndarray:
    import cv2

    reach = (weights.shape[0] // 2, weights.shape[1] // 2)
    if output == "float":
        scaled = weights / white(image)
        return framed(image, reach, border, lambda x, b: cv2.filter2D(x, depth(image), scaled, borderType=b))
    if np.abs(weights).sum() * white(image) >= 2**31:  # OpenCV's sums of integers would overflow
        exact = framed(image, reach, border, lambda x, b: cv2.filter2D(x, depth(image), weights, borderType=b))
        return in_range(exact, image.dtype)
    return clipped(framed(image, reach, border, lambda x, b: cv2.filter2D(x, -1, weights, borderType=b)))


@operation(row="I6", formula="g = sum of the size x size window / size^2")
def mean(image: np.ndarray, size: int = 3, border: Border = "reflect") -> np.ndarray:
    """The mean of each pixel's window. OpenCV's running sums: as fast for any size.

    Args:
        image: any image.
        size: side of the window, odd.
        border: what lies outside.
    """
    import cv2

    return clipped(framed(image, (odd(size) // 2,) * 2, border, lambda x, b: cv2.blur(x, (size, size), borderType=b)))


@operation(row="I6", formula="g = sum(w f) / sum(w), w binomial unless given")
def weighted_mean(
    image: np.ndarray, size: int = 3, weights: Sequence[Sequence[float]] | None = None, border: Border = "reflect"
) -> np.ndarray:
    """The weighted mean of each pixel's window: 1 2 1, 2 4 2, 1 2 1 over 16 unless other weights are given. OpenCV's filters.

    Args:
        image: any image.
        size: side of the binomial weights, odd.
        weights: rows of weights, not negative; they are divided by their sum.
        border: what lies outside.

    Raises:
        UsageError: negative weights, or a sum of 0.
    """
    import cv2

    if weights is None:
        row = weighted_kernel(size)[size // 2]
        row = row / row.sum()
        return clipped(framed(image, (size // 2,) * 2, border, lambda x, b: cv2.sepFilter2D(x, -1, row, row, borderType=b)))
    values = kernel(weights)
    if (values < 0).any() or not values.sum():
        raise UsageError("the weights of a mean are not negative and not all 0")
    return _correlated(image, values / values.sum(), border, "same")


@operation(row="I6", formula="g = f * exp(-((x - mx)^2 + (y - my)^2) / (2 sigma^2)) / sum")
def gaussian(
    image: np.ndarray, sigma: float = 1.0, size: int | None = None, mean: tuple[float, float] = (0.0, 0.0), border: Border = "reflect"
) -> np.ndarray:
    """Smoothing with a Gaussian. OpenCV's GaussianBlur; the kernel is SciPy's.

    Args:
        image: any image.
        sigma: deviation in pixels.
        size: side of the kernel, odd; by default 4 sigma to each side.
        mean: (x, y) of the Gaussian's top, in pixels from the centre.
        border: what lies outside.
    """
    if mean != (0.0, 0.0):
        return _correlated(image, gaussian_kernel(sigma, size, mean), border, "same")
    return clipped(smooth(image, sigma, border, size=size))


@operation(row="I6", formula="g = f - amount * Laplacian(f)")
def sharpen(
    image: np.ndarray, amount: float = 1.0, neighbours: Literal[4, 8] = 4, border: Border = "reflect", output: Output = "same"
) -> np.ndarray:
    """Sharpening: what differs from the neighbours is made to differ more. OpenCV's filter2D with 0 -1 0, -1 5 -1, 0 -1 0.

    Args:
        image: any image.
        amount: of the Laplacian to take away; 0 changes nothing.
        neighbours: of the Laplacian, 4 or 8.
        border: what lies outside.
        output: see the module.
    """
    return _correlated(image, sharpen_kernel(amount, neighbours), border, output)


@operation(row="I6", formula="g = f")
def identity(image: np.ndarray) -> np.ndarray:
    """The image itself, as a copy: the filter with a single 1."""
    return image.copy()


@operation(row="I6", formula="g = N f - sum of the N neighbours")
def ridge(image: np.ndarray, neighbours: Literal[4, 8] = 8, border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """Bright lines and points on even ground. OpenCV's filter2D with -1 -1 -1, -1 8 -1, -1 -1 -1 (or 4 neighbours).

    Args:
        image: any image.
        neighbours: 4 or 8.
        border: what lies outside.
        output: see the module; with "same" dark lines (negative) become 0.
    """
    return _correlated(image, ridge_kernel(neighbours), border, output)


# -------------------------------------------------------------------------------------------------------------- ranks, I7


@operation(row="I7", formula="g = least value of the window")
def minimum(image: np.ndarray, size: int = 3, border: Border = "reflect") -> np.ndarray:
    """The least value of each pixel's square window. OpenCV's erode.

    Args:
        image: any image.
        size: side of the window, odd.
        border: what lies outside.
    """
    import cv2

    window = np.ones((odd(size), size), np.uint8)
    return framed(image, (size // 2,) * 2, border, lambda x, b: cv2.erode(x, window, borderType=b, borderValue=0))


@operation(row="I7", formula="g = greatest value of the window")
def maximum(image: np.ndarray, size: int = 3, border: Border = "reflect") -> np.ndarray:
    """The greatest value of each pixel's square window. OpenCV's dilate.

    Args:
        image: any image.
        size: side of the window, odd.
        border: what lies outside.
    """
    import cv2

    window = np.ones((odd(size), size), np.uint8)
    return framed(image, (size // 2,) * 2, border, lambda x, b: cv2.dilate(x, window, borderType=b, borderValue=0))


@operation(row="I7", formula="g = middle value of the window")
def median(image: np.ndarray, size: int = 3, border: Border = "replicate") -> np.ndarray:
    """The median of each pixel's square window: removes salt and pepper and keeps edges.

    OpenCV's medianBlur for uint8 of any size and for uint16 and float32 up to 5; above, and for float64, SciPy's of small windows, and
    medianBlur of the two bytes of each value's rank for large ones.

    Args:
        image: any image.
        size: side of the window, odd, up to 255; up to 63 of floats with more than 65 536 different values.
        border: what lies outside; OpenCV's own rule by default, which needs no frame around the image.
    """
    import cv2

    reach, (height, width) = odd(size, most=255) // 2, image.shape[:2]
    if size == 1:
        return image.copy()
    wide = image if border == "replicate" else pad(image, (reach, reach), (reach, reach), border)
    if image.dtype == np.uint8 or (size <= 5 and image.dtype != np.float64):
        out: np.ndarray = cv2.medianBlur(wide, size)
    else:
        out = each_channel(wide, lambda x: _ranked_median(x, size))
    top, left = (out.shape[0] - height) // 2, (out.shape[1] - width) // 2
    return out[top : top + height, left : left + width]


def _ranked_median(channel: np.ndarray, size: int) -> np.ndarray:
    """The median of (H, W) values of any dtype, replicated at the border.

    A median goes through every rising map: that of the ranks' high byte is the median's high byte; among the pixels where it is ``top``,
    the median of ``rank - 256 top``, cut to 0..255, is its low byte. SciPy's cost and memory grow with size^2 and size^4.
    """
    import cv2

    values, ranks = np.unique(channel, return_inverse=True)
    if size**2 <= len(values) // 128 or len(values) > 2**16:
        if size > 63:
            raise UsageError(f"the median of floats has a window of at most 63 pixels, not {size}; make the image 8 or 16 bits")
        from scipy import ndimage

        return np.asarray(ndimage.median_filter(channel, size, mode="nearest"))
    ranks = ranks.reshape(channel.shape).astype(np.int32)
    high, out, reach = cv2.medianBlur((ranks >> 8).astype(np.uint8), size), np.empty_like(ranks), size // 2
    for top in np.unique(high):
        there = high == top
        rows = np.flatnonzero(there.any(1))
        near = slice(max(0, rows[0] - reach), rows[-1] + reach + 1)
        low = cv2.medianBlur(np.clip(ranks[near] - 256 * int(top), 0, 255).astype(np.uint8), size)
        out[near][there[near]] = 256 * int(top) + low[there[near]].astype(np.int32)
    return np.asarray(values[out])


# -------------------------------------------------------------------------------------------------------- derivatives, I8


@operation(row="I8", formula="g = sum of the N neighbours - N f")
def laplacian(image: np.ndarray, neighbours: Literal[4, 8] = 4, border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """The Laplacian: second derivatives along x and y (and the diagonals with 8 neighbours). OpenCV's filter2D.

    Args:
        image: any image.
        neighbours: 4 or 8.
        border: what lies outside.
        output: "same" (absolute) or "float" (signed), see the module.
    """
    import cv2

    weights, kind = laplacian_kernel(neighbours), _exact_depth(image)
    return signed(framed(image, (1, 1), border, lambda x, b: cv2.filter2D(x, kind, weights, borderType=b)), image, output)


@operation(row="I8", formula="x: (-1 0 1) along, (1 2 1) across; y: turned")
def sobel(image: np.ndarray, axis: Literal["x", "y"] = "x", border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """Sobel's derivative along an axis. OpenCV's separable filter.

    Args:
        image: any image.
        axis: "x" finds vertical edges, "y" horizontal ones.
        border: what lies outside.
        output: "same" (absolute) or "float" (signed), see the module.
    """
    return signed(derivative(image, "sobel", axis, border, _exact_depth(image)), image, output)


@operation(row="I8", formula="x: (-1 0 1) along, (1 1 1) across; y: turned")
def prewitt(image: np.ndarray, axis: Literal["x", "y"] = "x", border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """Prewitt's derivative along an axis. OpenCV's separable filter.

    Args:
        image: any image.
        axis: "x" finds vertical edges, "y" horizontal ones.
        border: what lies outside.
        output: "same" (absolute) or "float" (signed), see the module.
    """
    return signed(derivative(image, "prewitt", axis, border, _exact_depth(image)), image, output)


@operation(row="I8", formula="x: (-1 0 1) along, (3 10 3) across; y: turned")
def scharr(image: np.ndarray, axis: Literal["x", "y"] = "x", border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """Scharr's derivative along an axis, the one whose direction errs least. OpenCV's separable filter.

    Args:
        image: any image.
        axis: "x" finds vertical edges, "y" horizontal ones.
        border: what lies outside.
        output: "same" (absolute) or "float" (signed), see the module.
    """
    return signed(derivative(image, "scharr", axis, border, _exact_depth(image)), image, output)


@operation(row="I8", formula="x: f(y, x) - f(y+1, x+1); y: f(y, x+1) - f(y+1, x)")
def roberts(image: np.ndarray, axis: Literal["x", "y"] = "x", border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """Roberts' cross: differences along the diagonals. OpenCV's filter2D.

    Args:
        image: any image.
        axis: "x": pixel minus its lower right neighbour; "y": right minus lower neighbour.
        border: what lies outside.
        output: "same" (absolute) or "float" (signed), see the module.
    """
    return signed(derivative(image, "roberts", axis, border, _exact_depth(image)), image, output)


@operation(row="I8", formula="g = sqrt(gx^2 + gy^2)")
def gradient_magnitude(image: np.ndarray, operator: Operator = "sobel", border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """The length of the gradient. OpenCV's filters, NumPy's root.

    Args:
        image: any image.
        operator: whose derivatives.
        border: what lies outside.
        output: see the module.
    """

    def change(strip: np.ndarray) -> np.ndarray:
        dx, dy = (derivative(strip, operator, axis, border) for axis in "xy")
        return signed(length(dx, dy, spend=True), strip, output)

    return strips_within(image, change, 1, border)


@operation(row="I8", formula="g = atan2(gy, gx)")
def gradient_direction(image: np.ndarray, operator: Operator = "sobel", border: Border = "reflect", output: Output = "same") -> np.ndarray:
    """The direction in which the image brightens most: 0 degrees right, 90 down; 0 where it is even. NumPy.

    Args:
        image: any image.
        operator: whose derivatives.
        border: what lies outside.
        output: "float": degrees in 0 <= t < 360; "same": 0..360 laid over the image's range.
    """

    def change(strip: np.ndarray) -> np.ndarray:
        dx, dy = (derivative(strip, operator, axis, border) for axis in "xy")
        angle = np.arctan2(dy, dx, out=dy)
        angle *= dy.dtype.type(180 / np.pi)
        angle[angle < 0] += 360
        angle[angle >= 360] = 0  # a tiny negative angle rounds up to 360
        return angle if output == "float" else from_float(angle / dy.dtype.type(360), image.dtype)

    return strips_within(image, change, 1, border)
