"""Where pixels go: mirror, crop, shift, rotate, shear, zoom, affine, perspective, pyramids (CANON row I13).

Coordinates are (x, y) in pixels, the centre of the first pixel at (0.5, 0.5) as everywhere in saccade, so the middle of an image is
(W/2, H/2). Angles are in degrees, counter-clockwise as seen. A matrix maps points of the input to points of the result. What comes from
outside the image is made by the ``border`` rule; a "constant" border has the grey level ``value`` (0..1) and alpha 0. Alpha moves with
the picture.

Warps are OpenCV's, which rounds the place from which a pixel comes to 1/32 pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from saccade.image.base import Border, border_names, in_range, is_tensor, operation, to_float, white, within
from saccade.image.sampling import MAX_SIDE, new_size
from saccade.types.errors import UsageError

Interpolation = Literal["nearest", "bilinear", "bicubic"]


def _fill(image: np.ndarray, value: float) -> list[float]:
    """OpenCV's border value; alpha, the last of 2 or 4 channels, is 0."""
    within(value, 0, 1, "value")
    channels = 1 if image.ndim == 2 else image.shape[2]
    fill = [value * white(image)] * 4
    if channels in (2, 4):
        fill[channels - 1] = 0.0
    return fill


def _warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], method: str, border: str, value: float) -> np.ndarray:
    """(height, width) of the image under a 3x3 matrix from input to result indices: pixel centres at whole numbers, as in OpenCV."""
    import cv2

    height, width = new_size(size)
    if max(image.shape[:2]) > MAX_SIDE:
        raise UsageError(f"warps take images with sides up to {MAX_SIDE} pixels")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise UsageError("the matrix cannot be inverted")
    flags = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[method]
    mode, fill = border_names(border).opencv, _fill(image, value)
    if np.allclose(matrix[2], (0, 0, 1), rtol=0, atol=1e-15):
        ends = np.linalg.inv(matrix)[:2] @ [[0, 0, width, width], [0, height, 0, height], [1, 1, 1, 1]]
        if border in ("wrap", "reflect", "symmetric") and np.abs(ends).max() > 2**15 - 1:  # OpenCV's places have 16 bits
            raise UsageError(f"the result shows places {np.abs(ends).max():.0f} pixels away, border={border!r} goes to {2**15 - 1}")
        out = cv2.warpAffine(image, matrix[:2], (width, height), flags=flags, borderMode=mode, borderValue=fill)
    else:
        out = cv2.warpPerspective(image, matrix, (width, height), flags=flags, borderMode=mode, borderValue=fill)
    return in_range(out, image.dtype) if image.dtype.kind == "f" else out


def _about(image: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """3x3 of a linear map about the middle of the image."""
    middle = np.array([(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle - linear @ middle
    return matrix


@operation(row="I13", formula="g(y, x) = f(y, W-1-x)", alpha="apply")
def mirror(image: np.ndarray, axis: Literal["horizontal", "vertical", "both"] = "horizontal") -> np.ndarray:
    """Left and right swapped ("horizontal"), top and bottom ("vertical"), or both; its own inverse. OpenCV's flip.

    >>> mirror(np.array([[1, 2, 3]], np.uint8)).tolist()
    [[3, 2, 1]]
    """
    import cv2

    return cv2.flip(image, {"horizontal": 1, "vertical": 0, "both": -1}[axis])


@operation(row="I13", formula="g(y, x) = f(x, W-1-y)", alpha="apply")
def quarter_turn(image: np.ndarray, turns: int = 1) -> np.ndarray:
    """Rotated by ``turns`` times 90 degrees counter-clockwise (clockwise if negative), no pixel changed. OpenCV's rotate.

    >>> quarter_turn(np.array([[1, 2], [3, 4]], np.uint8)).tolist()
    [[2, 4], [1, 3]]
    """
    import cv2

    codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
    return cv2.rotate(image, codes[turns % 4]) if turns % 4 else image


@operation(row="I13", formula="g(y, x) = f(top + y, left + x)", alpha="apply")
def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The part of ``height`` rows from ``top`` and ``width`` columns from ``left``, which lies inside the image. NumPy.

    >>> crop(np.arange(9, dtype=np.uint8).reshape(3, 3), 1, 0, 2, 2).tolist()
    [[3, 4], [6, 7]]
    """
    if height < 1 or width < 1 or top < 0 or left < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        shape = f"{image.shape[0]}x{image.shape[1]}"
        raise UsageError(f"a crop of {height}x{width} at row {top}, column {left} does not lie in an image of {shape}")
    return image[top : top + height, left : left + width]


@operation(row="I13", formula="g(y, x) = f(y - above, x - left), outside by the border rule", alpha="apply")
def frame(
    image: np.ndarray,
    above: int = 0,
    below: int = 0,
    left: int = 0,
    right: int = 0,
    border: Border = "reflect",
    value: float = 0.0,
) -> np.ndarray:
    """Rows and columns added around the image. OpenCV's copyMakeBorder.

    >>> frame(np.array([[1, 2, 3]], np.uint8), left=2, right=2, border="wrap").tolist()
    [[2, 3, 1, 2, 3, 1, 2]]
    """
    import cv2

    if min(above, below, left, right) < 0:
        raise UsageError("a frame has 0 or more pixels on every side; crop takes some away")
    for name, count in (("above", above), ("below", below), ("left", left), ("right", right)):
        within(count, 0, MAX_SIDE, name)
    mode = border_names(border).opencv
    return cv2.copyMakeBorder(image, above, below, left, right, mode, value=_fill(image, value))


@operation(row="I13", formula="g(y, x) = f(y - dy, x - dx)", alpha="apply")
def shift(
    image: np.ndarray,
    dy: float = 0.0,
    dx: float = 0.0,
    method: Interpolation = "bilinear",
    border: Border = "constant",
    value: float = 0.0,
) -> np.ndarray:
    """Moved down by ``dy`` and right by ``dx`` pixels, the size kept. OpenCV.

    >>> shift(np.array([[1, 2, 3]], np.uint8), dx=1).tolist()
    [[0, 1, 2]]
    """
    if border == "wrap":  # once around is where it was
        dy, dx = math.fmod(dy, image.shape[0]), math.fmod(dx, image.shape[1])
    matrix = np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])
    return _warp(image, matrix, (image.shape[0], image.shape[1]), method, border, value)


@operation(row="I13", formula="p' = R(angle) (p - m) + m", alpha="apply")
def rotate(
    image: np.ndarray,
    angle: float = 30.0,
    expand: bool = False,
    method: Interpolation = "bilinear",
    border: Border = "constant",
    value: float = 0.0,
) -> np.ndarray:
    """Rotated about the middle by ``angle`` degrees counter-clockwise. OpenCV.

    Args:
        image: any.
        angle: degrees.
        expand: the result is as large as needed to hold all of the image; else it has the size of the input.
        method, border, value: as the module says.

    >>> rotate(np.array([[1, 2], [3, 4]], np.uint8), 90).tolist()
    [[2, 4], [1, 3]]
    """
    turn = math.radians(angle)
    c, s = round(math.cos(turn), 15), round(math.sin(turn), 15)  # quarter turns exactly
    matrix = _about(image, np.array([[c, s], [-s, c]]))  # y points down
    height, width = image.shape[:2]
    size = (height, width)
    if expand:
        size = (math.ceil(abs(s) * width + abs(c) * height - 1e-9), math.ceil(abs(c) * width + abs(s) * height - 1e-9))
        matrix[:2, 2] += (np.array(size[::-1]) - (width, height)) / 2
    return _warp(image, matrix, size, method, border, value)


@operation(row="I13", formula="x' = x + tan(x_angle) (y - m_y), y' = y + tan(y_angle) (x - m_x)", alpha="apply")
def shear(
    image: np.ndarray,
    x_angle: float = 15.0,
    y_angle: float = 0.0,
    method: Interpolation = "bilinear",
    border: Border = "constant",
    value: float = 0.0,
) -> np.ndarray:
    """Rows moved along x, columns along y, in proportion to their distance from the middle. OpenCV.

    Args:
        image: any.
        x_angle: degrees in -89..89 by which vertical lines lean.
        y_angle: degrees by which horizontal lines lean; ``tan(x_angle) tan(y_angle)`` is not 1.
        method, border, value: as the module says.
    """
    within(x_angle, -89, 89, "x_angle")
    within(y_angle, -89, 89, "y_angle")
    linear = np.array([[1, math.tan(math.radians(x_angle))], [math.tan(math.radians(y_angle)), 1]])
    return _warp(image, _about(image, linear), (image.shape[0], image.shape[1]), method, border, value)


@operation(row="I13", formula="p' = factor (p - m) + m", alpha="apply")
def zoom(
    image: np.ndarray,
    factor: float = 2.0,
    method: Interpolation = "bilinear",
    border: Border = "constant",
    value: float = 0.0,
) -> np.ndarray:
    """Enlarged (factor above 1) or made smaller about the middle, the size of the image kept. OpenCV.

    Going down, nothing is blurred first: :func:`saccade.image.resize` does that.
    """
    within(factor, 0, 1e4, "factor", open_low=True)
    return _warp(image, _about(image, np.eye(2) * factor), (image.shape[0], image.shape[1]), method, border, value)


@operation(row="I13", formula="p' = A p + t, matrix = [A | t]", alpha="apply")
def affine(
    image: np.ndarray,
    matrix: Sequence[Sequence[float]],
    size: tuple[int, int] | None = None,
    method: Interpolation = "bilinear",
    border: Border = "constant",
    value: float = 0.0,
) -> np.ndarray:
    """An affine map of the plane. OpenCV's warpAffine.

    Args:
        image: any.
        matrix: 2x3, from (x, y, 1) of the input to (x, y) of the result; pixel centres as the module says.
        size: (height, width) of the result; None: as the input.
        method, border, value: as the module says.

    Raises:
        UsageError: the matrix is not 2x3 or cannot be inverted.

    >>> affine(np.array([[1, 2, 3]], np.uint8), [[1, 0, -1], [0, 1, 0]]).tolist()
    [[2, 3, 0]]
    """
    full = np.vstack([_matrix(matrix, (2, 3)), [0.0, 0.0, 1.0]])
    return _warp(image, _of_indices(full), size or (image.shape[0], image.shape[1]), method, border, value)


@operation(row="I13", formula="(x', y') = (u/w, v/w), (u, v, w) = H (x, y, 1)", alpha="apply")
def perspective(
    image: np.ndarray,
    matrix: Sequence[Sequence[float]],
    size: tuple[int, int] | None = None,
    method: Interpolation = "bilinear",
    border: Border = "constant",
    value: float = 0.0,
) -> np.ndarray:
    """A homography. OpenCV's warpPerspective; :func:`homography` makes the matrix of four points.

    Args:
        image: any.
        matrix: 3x3, from (x, y, 1) of the input to the result, as :func:`homography` and the matches of features have it.
        size: (height, width) of the result; None: as the input.
        method, border, value: as the module says.

    Raises:
        UsageError: the matrix is not 3x3 or cannot be inverted.
    """
    return _warp(image, _of_indices(_matrix(matrix, (3, 3))), size or (image.shape[0], image.shape[1]), method, border, value)


def _of_indices(matrix: np.ndarray) -> np.ndarray:
    """A 3x3 matrix between points as one between indices, which are half a pixel less."""
    half = np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.asarray(np.linalg.inv(half) @ matrix @ half)


def _matrix(rows: Sequence[Sequence[float]], shape: tuple[int, int]) -> np.ndarray:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError):
        matrix = np.empty(0)
    if matrix.shape != shape:
        raise UsageError(f"the matrix has {shape[0]} rows of {shape[1]} numbers")
    return matrix


def homography(source: Sequence[Sequence[float]], target: Sequence[Sequence[float]]) -> np.ndarray:
    """3x3 float64 matrix that takes four points (x, y) to four others; no three of either lie on a line.

    The eight equations ``x' (h31 x + h32 y + 1) = h11 x + h12 y + h13`` and the same for y', solved by NumPy.

    Raises:
        UsageError: not four points each, or three lie on a line.

    >>> corners = [(0, 0), (2, 0), (2, 2), (0, 2)]
    >>> homography(corners, [(1, 1), (5, 1), (5, 5), (1, 5)]).round(9).tolist()
    [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    """
    a, b = _matrix(source, (4, 2)), _matrix(target, (4, 2))
    rows, right = [], []
    for (x, y), (u, v) in zip(a, b, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    try:
        solved = np.linalg.solve(np.array(rows), np.array(right))
    except np.linalg.LinAlgError:
        solved = np.full(8, np.nan)
    matrix = np.append(solved, 1.0).reshape(3, 3)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise UsageError("three of the four points lie on a line")
    return matrix


def _level_count(image: np.ndarray, levels: int) -> int:
    deepest = (max(image.shape[:2]) - 1).bit_length() + 1  # where one pixel is left
    if not 1 <= levels <= deepest:
        raise UsageError(f"an image of {image.shape[0]}x{image.shape[1]} has 1 to {deepest} levels, not {levels}")
    return levels


@operation(row="I13", formula="G_0 = f, G_k+1 = every second pixel of (w * G_k), w = [1 4 6 4 1]/16 an axis", alpha="apply", gives="images")
def gaussian_pyramid(image: np.ndarray, levels: int = 3) -> list[np.ndarray]:
    """The image and ``levels`` - 1 smaller ones, each half as large (rounded up), blurred before sub-sampling. OpenCV's pyrDown.

    Burt and Adelson 1983. The last possible level is one pixel.

    >>> [g.shape for g in gaussian_pyramid(np.zeros((5, 8), np.uint8), 4)]
    [(5, 8), (3, 4), (2, 2), (1, 1)]
    """
    import cv2

    pyramid = [image]
    for _ in range(_level_count(image, levels) - 1):
        pyramid.append(cv2.pyrDown(pyramid[-1]))
    return pyramid


@operation(row="I13", formula="L_k = G_k - up(G_k+1), L_last = G_last", alpha="apply", gives="images")
def laplacian_pyramid(image: np.ndarray, levels: int = 3) -> list[np.ndarray]:
    """What each level of the Gaussian pyramid has more than the next, and the last level itself. OpenCV's pyrDown and pyrUp.

    Burt and Adelson 1983. The levels are differences: floats in -1..1 (float32, float64 for float64), no images.
    :func:`collapse` undoes it.

    >>> [float(x.max()) for x in laplacian_pyramid(np.full((4, 4), 255, np.uint8), 3)]
    [0.0, 0.0, 1.0]
    """
    import cv2

    pyramid = [to_float(image)]
    for _ in range(_level_count(image, levels) - 1):
        pyramid.append(cv2.pyrDown(pyramid[-1]))
    for k, (fine, coarse) in enumerate(itertools.pairwise(pyramid)):
        larger = _up(coarse, fine)
        pyramid[k] = np.subtract(fine, larger, out=larger)
    return pyramid


def _up(small: np.ndarray, like: np.ndarray) -> np.ndarray:
    import cv2

    out: np.ndarray = cv2.pyrUp(small, dstsize=(like.shape[1], like.shape[0]))
    return out.reshape(like.shape)


def collapse(levels: Sequence[Any]) -> Any:
    """The image of a Laplacian pyramid, floats in 0..1 but for rounding: ``L_last`` made larger and added, level by level.

    Args:
        levels: as :func:`laplacian_pyramid` gives them: arrays HW or HWC, or tensors HW, CHW or NCHW.

    Raises:
        UsageError: there is no level, or a level has not half the size of the one before.

    >>> f = np.arange(35, dtype=np.uint8).reshape(5, 7)
    >>> bool(np.abs(collapse(laplacian_pyramid(f, 3)) * 255 - f).max() < 1e-4)
    True
    """
    if len(levels) == 0:
        raise UsageError("a pyramid has a level at least")
    if is_tensor(levels[0]):
        import torch

        if levels[0].ndim == 4:
            return torch.stack([collapse([x[k] for x in levels]) for k in range(len(levels[0]))])
        if levels[0].ndim == 3:
            arrays = [np.ascontiguousarray(x.detach().cpu().numpy().transpose(1, 2, 0)) for x in levels]
            return torch.from_numpy(np.ascontiguousarray(collapse(arrays).transpose(2, 0, 1))).to(levels[0].device)
        return torch.from_numpy(collapse([x.detach().cpu().numpy() for x in levels])).to(levels[0].device)
    out = np.asarray(levels[-1])
    for level in reversed(list(levels)[:-1]):
        if tuple((side + 1) // 2 for side in level.shape[:2]) != out.shape[:2]:
            raise UsageError(f"the level after one of {level.shape[:2]} has half its size, not {out.shape[:2]}")
        out = level + _up(out, level)
    return out
