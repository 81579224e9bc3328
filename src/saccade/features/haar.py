"""Haar features and cascades of boosted stumps: detection by OpenCV's published cascades or by one that was trained here.

Papers: Viola, Jones: Rapid Object Detection using a Boosted Cascade of Simple Features (CVPR 2001). Lienhart, Maydt: An Extended Set of
Haar-like Features for Rapid Object Detection (ICIP 2002): rectangles are weighted so that a flat area gives 0.

A feature is two, three or four equal rectangles side by side, every second one black; its value is the sum of the black ones' pixels
less that of the white ones (of three, the middle one counts twice), read at the corners of the integral image. Values are divided by the
window's area and by the deviation of its grey values. A window of 24 x 24 has 162 336 of them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.features.names import check_range, check_whole
from saccade.features.pixels import as_pixels, grey
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.files import atomic

if TYPE_CHECKING:
    import cv2

SHAPES = ((2, 1), (1, 2), (3, 1), (1, 3), (2, 2))
"""Rectangles across and down of the five kinds of feature."""

PUBLISHED = {
    "face": "haarcascade_frontalface_default.xml",
    "eye": "haarcascade_eye.xml",
    "body": "haarcascade_fullbody.xml",
}
"""OpenCV's files by what they find; :func:`published` has all that it ships."""

LEAST_DEVIATION = 2.0
"""Grey levels: flatter windows are divided by it."""


def all_features(window: int) -> np.ndarray:
    """(F, 5) int16 kind, x, y, width and height of one rectangle: every feature inside a square window.

    >>> len(all_features(24))
    162336
    """
    parts = []
    for kind, (across, down) in enumerate(SHAPES):
        x, y, width, height = (
            axis.ravel() for axis in np.meshgrid(*[np.arange(window)] * 2, *[np.arange(1, window + 1)] * 2, indexing="ij")
        )
        inside = (x + across * width <= window) & (y + down * height <= window)
        parts.append(np.stack([np.full(inside.sum(), kind), x[inside], y[inside], width[inside], height[inside]], 1))
    return np.concatenate(parts).astype(np.int16)


def corner_weights(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (F, 16, 2) int64 x and y of a window's integral image, and weights (F, 16), whose weighted sum is a feature's value.

    A corner may come twice, or with weight 0 (features of two and three rectangles have fewer).
    """
    corners, weights = np.zeros((len(features), 16, 2), np.int64), np.zeros((len(features), 16))
    kind, x, y, width, height = features.astype(np.int64).T
    for index, (across, down) in enumerate(SHAPES):
        mine = kind == index
        for number in range(across * down):
            column, row = number % across, number // across
            sign = 1 if (column + row) % 2 else -1
            sign *= 2 if across * down == 3 and number == 1 else 1
            left, top = (x + column * width)[mine], (y + row * height)[mine]
            right, bottom = left + width[mine], top + height[mine]
            for place, (u, v, part) in enumerate(((right, bottom, sign), (left, bottom, -sign), (right, top, -sign), (left, top, sign))):
                corners[mine, 4 * number + place] = np.stack([u, v], 1)
                weights[mine, 4 * number + place] = part
    return corners, weights


def feature_values(pixels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(N, F) float64 sums of black less white pixels of windows (N, W, W) uint8, not normalised."""
    from scipy.sparse import csr_array

    count, side = len(pixels), pixels.shape[1]
    totals = np.zeros((count, side + 1, side + 1))
    totals[:, 1:, 1:] = pixels.astype(np.float64).cumsum(1).cumsum(2)
    corners, weights = corner_weights(features)
    places = corners[..., 1] * (side + 1) + corners[..., 0]
    number = np.repeat(np.arange(len(features)), 16)
    matrix = csr_array((weights.ravel(), (number, places.ravel())), shape=(len(features), (side + 1) ** 2))
    return np.asarray(matrix @ totals.reshape(count, -1).T).T


def normalised_values(pixels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(N, F) float32: :func:`feature_values` over the window's area and the deviation of its grey values."""
    side = pixels.shape[1]
    deviation = np.maximum(pixels.reshape(len(pixels), -1).std(1), LEAST_DEVIATION)
    return (feature_values(pixels, features) / (deviation[:, None] * side**2)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Cascade:
    """A trained cascade as plain arrays: T stumps in K stages.

    A window passes a stage when the votes of its stumps, ``weights`` where ``signs * value > signs * thresholds``, sum up to the
    stage's threshold or more; it is an object when it passes all.

    Attributes:
        window: side of the window in pixels.
        features: (T, 5) int16, rows of :func:`all_features`.
        thresholds, signs, weights: (T,) float32, +1 or -1 int8, float32.
        ends: (K,) int64, how many stumps there are up to the end of each stage.
        least: (K,) float32, the stages' thresholds.
    """

    window: int
    features: np.ndarray
    thresholds: np.ndarray
    signs: np.ndarray
    weights: np.ndarray
    ends: np.ndarray
    least: np.ndarray

    def __post_init__(self) -> None:
        count, stages = len(self.features), len(self.ends)
        good = self.features.shape == (count, 5) and self.least.shape == (stages,) and 4 <= self.window <= 256
        good = good and all(array.shape == (count,) for array in (self.thresholds, self.signs, self.weights))
        good = good and (np.diff(np.r_[0, self.ends]) > 0).all() and (count == 0 or self.ends[-1] == count)
        if good and count:
            kind, x, y, width, height = self.features.astype(np.int64).T
            good = bool(((kind >= 0) & (kind < len(SHAPES)) & (x >= 0) & (y >= 0) & (width > 0) & (height > 0)).all())
            if good:
                across, down = np.array(SHAPES)[kind].T
                good = bool(((x + across * width <= self.window) & (y + down * height <= self.window)).all())
        if not good:
            raise UsageError("the arrays are no cascade: their sizes do not agree, or a feature lies outside of the window")

    def _stages(self) -> Iterator[tuple[int, int, np.float32]]:
        """First stump, end and threshold of each stage."""
        return zip(np.r_[0, self.ends][:-1].tolist(), self.ends.tolist(), self.least, strict=True)

    def passes(self, pixels: np.ndarray) -> np.ndarray:
        """(N,) bool of windows (N, W, W) uint8."""
        values = normalised_values(pixels, self.features)
        votes = np.where(self.signs * values > self.signs * self.thresholds, self.weights, 0)
        good = np.ones(len(pixels), bool)
        for start, end, least in self._stages():
            good &= votes[:, start:end].sum(1) >= least
        return good

    def scan(self, pixels: np.ndarray, step: int = 2) -> np.ndarray:
        """(n, 2) int64 x and y of the windows of a grey image (H, W) that pass, one every ``step`` pixels; stage by stage."""
        import cv2

        height, width = pixels.shape
        side = self.window
        if min(height, width) < side:
            return np.zeros((0, 2), np.int64)
        total, squares = cv2.integral2(pixels, sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
        y, x = (axis.ravel() for axis in np.mgrid[0 : height - side + 1 : step, 0 : width - side + 1 : step])
        stride = width + 1
        origin = y * stride + x
        box = np.array([0, side, side * stride, side * stride + side])
        corner = np.array([1, -1, -1, 1])
        mean, square = (table.reshape(-1)[origin[:, None] + box] @ corner / side**2 for table in (total, squares))
        scale = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), LEAST_DEVIATION) * side**2
        corners, weights = corner_weights(self.features)
        places = corners[..., 1] * stride + corners[..., 0]
        flat = total.reshape(-1)
        for start, end, least in self._stages():
            votes = np.zeros(len(origin))
            for stump in range(start, end):
                value = np.zeros(len(origin))
                for place, weight in zip(places[stump], weights[stump], strict=True):
                    if weight:
                        value += weight * flat.take(origin + place)
                passed = self.signs[stump] * (value / scale).astype(np.float32) > self.signs[stump] * self.thresholds[stump]
                votes += np.where(passed, self.weights[stump], 0)
            good = votes.astype(np.float32) >= least
            origin, scale = origin[good], scale[good]
        return np.stack([origin % stride, origin // stride], 1)

    def save(self, path: str | Path) -> None:
        """Write ``.npz``: arrays named as the attributes, no pickle."""
        target = Path(path)
        if target.suffix.lower() != ".npz":
            raise UsageError(f"a cascade is written as .npz, not {target.name!r}")
        arrays = {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}
        with atomic(target) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Cascade:
        """What :meth:`save` wrote.

        Raises:
            DataError: the file is missing, broken or holds something else.
        """
        if not Path(path).is_file():
            raise DataError(path, "does not exist")
        kinds = {"features": np.int16, "signs": np.int8, "ends": np.int64}
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in cls.__dataclass_fields__}
            window = int(arrays.pop("window"))
            return cls(window, **{name: array.astype(kinds.get(name, np.float32)) for name, array in arrays.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, MemoryError, zipfile.BadZipFile) as error:
            raise DataError(path, f"holds no cascade: {error}") from None
        except UsageError as error:
            raise DataError(path, str(error)) from None


def find_objects(
    image: Any,
    cascade: str | Path | Cascade | cv2.CascadeClassifier = "face",
    *,
    scale: float = 1.1,
    neighbors: int = 3,
    smallest: int = 0,
    step: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Objects in an image at all sizes.

    Args:
        image: as :func:`saccade.features.pixels.as_pixels` takes it; colour is turned to grey.
        cascade: a name of :func:`published`, the path of an XML file or what :func:`read_opencv` gave, run by OpenCV; or a
            :class:`Cascade` or its ``.npz``.
        scale: between neighbouring sizes.
        neighbors: windows that must agree on an object.
        smallest: least side of an object in pixels.
        step: pixels between the windows of a :class:`Cascade`, at the size that the image has been shrunk to.

    Returns:
        (N, 4) float32 XYXY boxes, and (N,) float32 how many windows agreed; most first.

    Raises:
        UsageError: no such cascade, or an option that cannot be.
        DataError: a broken file.
    """
    import cv2

    check_range(1.01, 4, scale=scale)
    check_whole(1, 100, neighbors=neighbors)
    check_whole(0, 100_000, smallest=smallest)
    check_whole(1, 64, step=step)
    pixels = grey(as_pixels(image))
    found = _load(cascade)
    if isinstance(found, Cascade):
        rows: list[np.ndarray] = []
        factor = max(1.0, smallest / found.window)
        while min(pixels.shape) / factor >= found.window:
            size = (max(round(pixels.shape[1] / factor), 1), max(round(pixels.shape[0] / factor), 1))
            smaller = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            places = found.scan(smaller, step)
            rows.append(np.rint(np.column_stack([places, np.full((len(places), 2), found.window)]) * factor).astype(int))
            factor *= scale
        windows = np.concatenate(rows) if rows else np.zeros((0, 4), int)
        boxes, counts = _grouped(windows, neighbors)
    else:
        boxes, counts = found.detectMultiScale2(pixels, scaleFactor=scale, minNeighbors=neighbors, minSize=(smallest, smallest))
    sides = np.asarray(boxes, np.float32).reshape(-1, 4)
    out = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], 1)
    scores = np.asarray(counts, np.float32).reshape(-1)
    order = np.argsort(-scores, kind="stable")
    return out[order], scores[order]


def _grouped(windows: np.ndarray, neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (n, 4) of the windows (N, 4) that are alike, and how many these are, at least ``neighbors``."""
    import cv2

    # OpenCV leaves out groups of at most its threshold, and groups nothing at 0: each window comes twice.
    boxes, counts = cv2.groupRectangles(windows.tolist() * 2, 2 * neighbors - 1, 0.2)
    return np.asarray(boxes), np.asarray(counts) // 2


def published() -> dict[str, Path]:
    """The files that OpenCV ships, by name: those of :data:`PUBLISHED`, and each file's own ("frontalface", "eye", "smile", ...)."""
    import cv2

    folder = Path(cv2.__file__).parent / "data"
    files = {path.stem.removeprefix("haarcascade_").removesuffix("_default"): path for path in sorted(folder.glob("haarcascade_*.xml"))}
    return {name: folder / file for name, file in PUBLISHED.items()} | files


def cascade_file(cascade: str | Path) -> Path:
    """The file of a name of :func:`published` or of a path to ``.xml`` or ``.npz``.

    Raises:
        UsageError: neither.
        DataError: no such file.
    """
    path, known = Path(cascade), published()
    if str(cascade) in known:
        path = known[str(cascade)]
    elif path.suffix.lower() not in (".xml", ".npz"):
        raise UsageError(f"there is no cascade {str(cascade)!r}{suggest(str(cascade), [*known, 'FILE.xml', 'FILE.npz'])}")
    if not path.is_file():
        raise DataError(path, "does not exist")
    return path


def read_opencv(path: str | Path) -> cv2.CascadeClassifier:
    """OpenCV's classifier of an XML file.

    Raises:
        DataError: the file holds none.
    """
    import cv2

    try:
        classifier = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):  # a constructor's error comes as the latter
        classifier = None
    if classifier is None or classifier.empty():
        raise DataError(path, "holds no cascade of OpenCV")
    return classifier


def _load(cascade: str | Path | Cascade | cv2.CascadeClassifier) -> Any:
    """A Cascade, or OpenCV's classifier."""
    import cv2

    if isinstance(cascade, (Cascade, cv2.CascadeClassifier)):
        return cascade
    if not isinstance(cascade, (str, Path)):
        raise UsageError(f"a cascade is a name, a file, a Cascade or what read_opencv gave, not {type(cascade).__name__}")
    path = cascade_file(cascade)
    return Cascade.load(path) if path.suffix.lower() == ".npz" else read_opencv(path)
