"""Augmentation in original pixels, by the fields of a :class:`~saccade.types.recipe.Recipe`.

All geometry of a sample (mirrors, quarter turns, rotation, shear, zoom, shift, resized crop) is one affine matrix, applied once: the
image is resampled bilinearly (OpenCV), masks and depth by the nearest pixel, points and boxes by the matrix itself. A matrix that only
mirrors, turns or shifts by whole pixels moves pixels without resampling. Colour (brightness, contrast, saturation) is one 3x4 matrix on
RGB, with the definitions of ``torchvision.transforms.v2``, rounded once instead of after each step; hue, blur, mix-up and cut-mix are
OpenCV's and v2's. Measured on one core: v2's affine, colour jitter with hue and blur take ten times as long.

Every random number comes from torch's global generator; :func:`seeded` sets it for one image and gives it back, so that a sample is a
function of (seed, epoch, image) alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.data.dataset import Dataset
from saccade.types.errors import DataError, UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import IGNORE, OBJECT_KEYS, Batch, Sample, Target, boxes_tensor, keep_objects, rewrap

GREY = 114
"""Value of image pixels that no source pixel covers."""

PLANES = (("mask", IGNORE), ("depth", 0))
"""Keys of maps over the whole image, with the value of pixels that no source pixel covers."""

LEAST_VISIBLE = 0.2
"""An object keeps at least this share of its (transformed) area inside the image, or it is dropped."""

LEAST_SIDE = 2.0
"""A box that shrinks below this many pixels on a side is dropped."""

OPENCV_SIDE = 32766
"""The longest side that OpenCV resamples; longer images take the nearest pixel."""

LEAST_UNERASED = 0.25
"""An object of which erasing leaves a smaller share of the box is dropped."""


# -- randomness -----------------------------------------------------------------------------------


def mix_seed(*values: int) -> int:
    """A 63-bit seed from integers, by splitmix64's finaliser: neighbouring inputs give unrelated seeds."""
    state = 0
    for value in values:
        state = (state + (int(value) & (2**64 - 1)) + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


@contextlib.contextmanager
def seeded(*values: int) -> Iterator[None]:
    """The CPU generator of torch seeded by :func:`mix_seed` inside, as it was outside (``fork_rng`` does the same 30 times slower)."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(mix_seed(*values))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _uniform(count: int) -> list[float]:
    return torch.rand(count, dtype=torch.float64).tolist()


# -- geometry -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """A map of pixel coordinates (pixel centres at +0.5): ``[x', y'] = matrix[:, :2] @ [x, y] + matrix[:, 2]``.

    ``matrix`` is (2, 3) float64; ``size`` is (H, W) of the result.
    """

    matrix: np.ndarray
    size: tuple[int, int]

    def then(self, matrix: np.ndarray, size: tuple[int, int] | None = None) -> Affine:
        """A (2, 3) matrix applied after it."""
        linear = matrix[:, :2] @ self.matrix
        linear[:, 2] += matrix[:, 2]
        return Affine(linear, size or self.size)

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Affine:
        """Nothing moves."""
        return cls(np.eye(2, 3), size)

    def mirror(self, horizontal: bool, vertical: bool) -> Affine:
        """Then flip left-right, up-down, or both."""
        if not (horizontal or vertical):
            return self
        height, width = self.size
        x, y = (-1.0 if horizontal else 1.0), (-1.0 if vertical else 1.0)
        return self.then(np.array([[x, 0, width if horizontal else 0], [0, y, height if vertical else 0]]))

    def turn(self, quarters: int) -> Affine:
        """Then rotate counterclockwise by quarter turns, as ``torch.rot90``; odd ones exchange height and width."""
        out = self
        for _ in range(quarters % 4):
            height, width = out.size
            out = out.then(np.array([[0.0, 1, 0], [-1, 0, width]]), (width, height))
        return out

    def centred(self, linear: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)) -> Affine:
        """Then apply a (2, 2) matrix about the centre, and shift by (x, y) pixels."""
        centre = np.array([self.size[1] / 2, self.size[0] / 2])
        offset = centre - linear @ centre + np.array(shift)
        return self.then(np.concatenate([linear, offset[:, None]], axis=1))

    @property
    def inverse(self) -> np.ndarray:
        """(2, 3) of the way back."""
        (a, b, c), (d, e, f) = self.matrix.tolist()  # plain numbers: NumPy's overhead is most of a small image's time
        if not (area := a * e - b * d):
            raise np.linalg.LinAlgError("Singular matrix")
        return np.array([[e, -b, b * f - c * e], [-d, a, c * d - a * f]]) / area

    @property
    def mirrors(self) -> bool:
        """Whether left and right are exchanged."""
        return float(np.linalg.det(self.matrix[:, :2])) < 0

    @property
    def axis_aligned(self) -> bool:
        """Whether boxes stay boxes."""
        (a, b, _), (d, e, _) = self.matrix.tolist()
        return b == d == 0 or a == e == 0

    @property
    def lattice(self) -> bool:
        """Whether pixels go to pixels: mirrors, quarter turns and whole shifts only."""
        (a, b, c), (d, e, f) = self.matrix.tolist()
        return self.axis_aligned and abs(a) + abs(b) == abs(d) + abs(e) == 1 and all(v % 1 == 0 for v in (a, b, c, d, e, f))

    def points(self, xy: Tensor) -> Tensor:
        """(..., 2) points moved; float32."""
        matrix = torch.from_numpy(self.matrix)
        return (xy.as_subclass(Tensor).to(torch.float64) @ matrix[:, :2].T + matrix[:, 2]).to(torch.float32)

    def hulls(self, boxes: Tensor) -> Tensor:
        """(N, 4) boxes around the four moved corners; not clipped."""
        x1, y1, x2, y2 = boxes.as_subclass(Tensor).unbind(1)
        corners = self.points(torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=1).reshape(-1, 4, 2))
        return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)

    def exact(self, pixels: Tensor, fill: float) -> Tensor:
        """(..., H, W) moved by a :attr:`lattice` map: no value changes."""
        a = self.matrix[:, :2]
        out = pixels
        if a[0, 0] == 0:
            out = out.transpose(-1, -2)
            signs, shift = (a[0, 1], a[1, 0]), self.matrix[:, 2]
        else:
            signs, shift = (a[0, 0], a[1, 1]), self.matrix[:, 2]
        flips = [dim for dim, sign in zip((-1, -2), signs, strict=True) if sign < 0]
        out = out.flip(flips) if flips else out
        height, width = out.shape[-2:]
        left = int(shift[0]) - (width if signs[0] < 0 else 0)
        top = int(shift[1]) - (height if signs[1] < 0 else 0)
        if (top, left, (height, width)) == (0, 0, self.size):
            return out.contiguous()
        canvas = out.new_full((*out.shape[:-2], *self.size), fill)
        rows, columns = slice(max(top, 0), min(top + height, self.size[0])), slice(max(left, 0), min(left + width, self.size[1]))
        if rows.start < rows.stop and columns.start < columns.stop:
            canvas[..., rows, columns] = out[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        return canvas

    def nearest(self, size: tuple[int, int], window: tuple[slice, slice] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Flat index of the source pixel of every pixel of the result (or of a window of it), and whether it has one."""
        rows, columns = window or (slice(0, self.size[0]), slice(0, self.size[1]))
        x, y = np.arange(columns.start, columns.stop) + 0.5, np.arange(rows.start, rows.stop)[:, None] + 0.5
        (a, b, c), (d, e, f) = self.inverse
        source_x, source_y = np.floor(a * x + (b * y + c)), np.floor(d * x + (e * y + f))
        known = (source_x >= 0) & (source_x < size[1]) & (source_y >= 0) & (source_y < size[0])
        index = np.where(known, source_y * size[1] + source_x, 0).astype(np.int64)
        return index, known


def _opencv() -> Any:
    """OpenCV, on one thread inside a loader worker: a forked pool of threads may hang, and the workers are the parallelism."""
    import cv2

    if torch.utils.data.get_worker_info() is not None and cv2.getNumThreads() > 1:
        cv2.setNumThreads(0)
    return cv2


def _to_rows(image: Tensor) -> np.ndarray:
    """(C, H, W) tensor to (H, W, C) array."""
    planes = image.as_subclass(Tensor).numpy()
    return _opencv().merge(list(np.ascontiguousarray(planes))).reshape(*planes.shape[1:], planes.shape[0])


def _to_planes(rows: np.ndarray, like: Tensor) -> Tensor:
    """(H, W[, C]) array to a (C, H, W) tensor of the type of ``like``."""
    rows = rows.reshape(*rows.shape[:2], -1)
    return rewrap(like, torch.from_numpy(np.ascontiguousarray(rows.transpose(2, 0, 1))))


def _warp_image(image: Tensor, affine: Affine) -> Tensor:
    """Bilinear resampling; pixels from outside are :data:`GREY`."""
    if max(*image.shape[-2:], *affine.size) > OPENCV_SIDE:
        index, known = affine.nearest((image.shape[-2], image.shape[-1]))
        planes = [torch.from_numpy(np.where(known, _take(plane, index), np.uint8(GREY))) for plane in image.as_subclass(Tensor)]
        return rewrap(image, torch.stack(planes))
    cv2 = _opencv()
    matrix = affine.inverse
    # OpenCV's pixel centres are at whole numbers, ours at halves.
    matrix[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(_to_rows(image), matrix, affine.size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(GREY,) * 3)
    return _to_planes(out, image)


def _windows(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 4) tight boxes of bool masks (zeros where there is no pixel) and (N,) pixel counts; float32."""
    cv2 = _opencv()
    boxes, counts = [], []
    for one in masks.as_subclass(Tensor).contiguous().view(torch.uint8).numpy():
        x, y, width, height = cv2.boundingRect(one)
        boxes.append((x, y, x + width, y + height))
        counts.append(np.count_nonzero(one))  # a hundred times faster than torch's sum of a bool tensor
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(counts, dtype=torch.float32)


def _take(plane: Tensor, index: np.ndarray) -> np.ndarray:
    """Values of a plane at flat indices; NumPy gathers twice as fast as torch here."""
    return plane.contiguous().numpy().reshape(-1).take(index, mode="clip")


def _warp_masks(masks: Tensor, windows: Tensor, affine: Affine) -> Tensor:
    """(N, H, W) bool by the nearest pixel, each looked up only where it can land."""
    source = masks.as_subclass(Tensor)
    height, width = affine.size
    out = source.new_zeros((source.shape[0], height, width))
    hulls = affine.hulls(windows)
    lower, upper = hulls[:, :2].floor().long() - 1, hulls[:, 2:].ceil().long() + 1
    for k in range(source.shape[0]):
        columns = slice(max(int(lower[k, 0]), 0), min(int(upper[k, 0]), width))
        rows = slice(max(int(lower[k, 1]), 0), min(int(upper[k, 1]), height))
        if rows.start < rows.stop and columns.start < columns.stop:
            index, known = affine.nearest((source.shape[-2], source.shape[-1]), (rows, columns))
            out[k, rows, columns] = torch.from_numpy(_take(source[k], index) & known)
    return out


def move(sample: Sample, affine: Affine, keypoint_swap: Sequence[int] | None = None) -> Sample:
    """Image and truth moved together; objects that leave the image are dropped with all their fields.

    Boxes become the hull of their moved corners, cut at the border; where masks tell more (after a rotation, or a cut), the tight box of
    the mask. Key points outside get visibility 0 and (0, 0); ``keypoint_swap`` reorders them when the map mirrors. ``mask`` is filled
    with -100, ``depth`` with 0 (unknown).
    """
    image, target = sample
    size = (image.shape[-2], image.shape[-1])
    lattice = affine.lattice
    moved = affine.exact(image.as_subclass(Tensor), GREY) if lattice else _warp_image(image, affine)
    image = rewrap(image, moved.as_subclass(Tensor))
    target = dict(target)
    index = known = None
    for key, fill in PLANES:
        if key in target:
            plane = target[key]
            plain = plane.as_subclass(Tensor)
            if lattice:
                new = affine.exact(plain, fill)
            else:
                index, known = affine.nearest(size) if index is None else (index, known)
                new = torch.from_numpy(np.where(known, _take(plain, index), plain.numpy().dtype.type(fill)))
            target[key] = rewrap(plane, new)
    if "boxes" in target:
        target = _move_objects(target, affine, keypoint_swap)
    return Sample(image, target)


def _move_objects(target: Target, affine: Affine, keypoint_swap: Sequence[int] | None) -> Target:
    before = target["boxes"].as_subclass(Tensor)
    hulls = affine.hulls(before)
    height, width = affine.size
    limit = hulls.new_tensor([width, height, width, height])
    boxes = torch.minimum(hulls.clamp_min(0), limit)
    full, inside = _areas(hulls), _areas(boxes)
    if "masks" in target:
        old = target["masks"]
        windows, old_counts = _windows(old)
        masks = affine.exact(old.as_subclass(Tensor), 0) if affine.lattice else _warp_masks(old, windows, affine)
        target["masks"] = rewrap(old, masks)
        tight, counts = _windows(masks)
        cut = (boxes != hulls).any(dim=1)
        use = old_counts > 0  # an object without a mask of its own keeps its hull
        use = use & cut if affine.axis_aligned else use
        boxes = torch.where(use[:, None], tight, boxes)
        share = abs(float(np.linalg.det(affine.matrix[:, :2])))
        full, inside = torch.where(use & cut, old_counts * share, full), torch.where(use & cut, counts, inside)
    if "keypoints" in target:
        target |= _move_keypoints(target, affine, keypoint_swap)
    target["boxes"] = boxes_tensor(boxes, affine.size)
    sides, old_sides = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1), (before[:, 2:] - before[:, :2]).amin(dim=1)
    keep = (inside >= LEAST_VISIBLE * full) & (sides >= old_sides.clamp(max=LEAST_SIDE))
    return target if bool(keep.all()) else keep_objects(target, keep)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp_min(0) * (boxes[:, 3] - boxes[:, 1]).clamp_min(0)


def _move_keypoints(target: Target, affine: Affine, swap: Sequence[int] | None) -> Target:
    points, visibility = affine.points(target["keypoints"]), target["visibility"].clone()
    if swap and affine.mirrors:
        points, visibility = points[:, list(swap)], visibility[:, list(swap)]
    height, width = affine.size
    inside = (points >= 0).all(dim=-1) & (points <= points.new_tensor([width, height])).all(dim=-1)
    visibility[~inside] = 0
    points[visibility == 0] = 0
    return {"keypoints": rewrap(target["keypoints"], points), "visibility": visibility}


# -- recipes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augment:
    """``augment(sample) -> sample``: one random draw of a recipe, geometry first, then colour, blur and erasing. Picklable."""

    recipe: Recipe
    keypoint_swap: tuple[int, ...] = ()

    def __call__(self, sample: Sample) -> Sample:
        """The sample augmented; fields that the recipe turns off cost nothing."""
        affine = self.geometry((sample.image.shape[-2], sample.image.shape[-1]))
        if affine is not None:
            sample = move(sample, affine, self.keypoint_swap)
        image = self.color(sample.image)
        return self.erase(Sample(image, sample.target))

    def geometry(self, size: tuple[int, int]) -> Affine | None:
        """The map of one draw for an image of (H, W), or None where nothing moves. Size stays, but for odd quarter turns."""
        r = self.recipe
        u = _uniform(14)  # always as many: what one field draws does not depend on another
        affine = Affine.identity(size).mirror(u[0] < r.hflip, u[1] < r.vflip)
        affine = affine.turn(int(u[2] * 4) if r.quarter_turns else 0)
        height, width = affine.size
        shift = (round((2 * u[3] - 1) * r.translate * width), round((2 * u[4] - 1) * r.translate * height))
        if r.rotate or r.shear or r.scale:
            angle = math.radians((2 * u[5] - 1) * r.rotate)
            shear_x, shear_y = (math.tan(math.radians((2 * v - 1) * r.shear)) for v in (u[6], u[7]))
            zoom = max(1 + (2 * u[8] - 1) * r.scale, 0.05)
            rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            affine = affine.centred(zoom * rotation @ np.array([[1, shear_x], [shear_y, 1]]), shift)
        elif shift != (0, 0):
            affine = affine.centred(np.eye(2), shift)
        if r.crop < 1:
            # Inception's crop: an area in [crop, 1] of the image, an aspect in [3/4, 4/3] times its own, stretched back to its size.
            area, aspect = r.crop + (1 - r.crop) * u[9], math.exp((2 * u[10] - 1) * math.log(4 / 3))
            share_x, share_y = min(math.sqrt(area * aspect), 1.0), min(math.sqrt(area / aspect), 1.0)
            left, top = u[11] * (1 - share_x) * width, u[12] * (1 - share_y) * height
            affine = affine.then(np.array([[1 / share_x, 0, -left / share_x], [0, 1 / share_y, -top / share_y]]))
        unmoved = affine.size == size and affine.matrix.tolist() == [[1, 0, 0], [0, 1, 0]]
        return None if unmoved else affine

    def color(self, image: Tensor) -> Tensor:
        """Brightness, contrast, saturation (factors in [1 - v, 1 + v]), hue (a shift of the circle in [-v, v]) and blur."""
        r = self.recipe
        u = _uniform(6)
        brightness, contrast, saturation = (
            max(1 + (2 * v - 1) * spread, 0.0) for v, spread in zip(u, (r.brightness, r.contrast, r.saturation), strict=False)
        )
        hue = (2 * u[3] - 1) * r.hue
        blurs = u[4] < r.blur
        if (brightness, contrast, saturation, hue, blurs) == (1, 1, 1, 0, False):
            return image
        rows = _to_rows(image)
        if (brightness, contrast, saturation) != (1, 1, 1):
            rows = jitter(rows, brightness, contrast, saturation)
        if hue and rows.ndim == 3 and rows.shape[2] == 3:
            rows = shift_hue(rows, hue)
        if blurs:
            rows = _opencv().GaussianBlur(rows, (0, 0), 0.3 + 1.2 * u[5])
        return _to_planes(rows, image)

    def erase(self, sample: Sample) -> Sample:
        """Grey out a rectangle (Zhong et al. 2017, arXiv 1708.04896): 2 to 33 % of the area, aspect 0.3 to 3.3."""
        if not self.recipe.erase:
            return sample
        u = _uniform(5)
        image, target = sample
        height, width = image.shape[-2:]
        area, aspect = (0.02 + 0.31 * u[1]) * height * width, math.exp(math.log(0.3) + u[2] * math.log(3.3 / 0.3))
        tall, wide = min(round(math.sqrt(area * aspect)), height), min(round(math.sqrt(area / aspect)), width)
        if u[0] >= self.recipe.erase or not tall or not wide:
            return sample
        top, left = int(u[3] * (height - tall + 1)), int(u[4] * (width - wide + 1))
        erased = image.as_subclass(Tensor).clone()
        erased[:, top : top + tall, left : left + wide] = GREY
        if "boxes" in target:
            boxes = target["boxes"].as_subclass(Tensor)
            patch = boxes.new_tensor([left, top, left + wide, top + tall])
            hidden = _areas(torch.cat([torch.maximum(boxes[:, :2], patch[:2]), torch.minimum(boxes[:, 2:], patch[2:])], dim=1))
            target = keep_objects(target, hidden <= (1 - LEAST_UNERASED) * _areas(boxes))
        return Sample(rewrap(image, erased), target)


def jitter(rows: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """(H, W, C) uint8 times ``brightness``, blended with its mean grey by ``contrast``, with its own grey by ``saturation``.

    The three of ``v2.ColorJitter`` in this order, as one matrix, rounded and clipped once.
    """
    cv2 = _opencv()
    weights = np.array([0.2989, 0.587, 0.114]) if rows.shape[-1] == 3 else np.ones(1)
    mean = float(weights @ np.array(cv2.mean(rows)[: len(weights)])) * brightness
    count = len(weights)
    blend = np.eye(count) * saturation + (1 - saturation) * np.tile(weights, (count, 1)) if count == 3 else np.eye(1)
    offset = blend @ np.full((count, 1), (1 - contrast) * mean)
    return cv2.transform(rows, np.concatenate([blend * (brightness * contrast), offset], axis=1)).reshape(rows.shape)


def shift_hue(rows: np.ndarray, shift: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB with its HSV hue moved by a fraction of the circle."""
    cv2 = _opencv()
    hsv = cv2.cvtColor(rows, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)  # uint8 wraps around, as the circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def build_augment(recipe: Recipe, task: str, keypoint_swap: Sequence[int] | None = None) -> Augment:
    """The augmentation of a recipe for a task ("classify", "detect", "segment", ...).

    Args:
        recipe: its augmentation fields are read.
        task: mosaic needs boxes or masks; mix-up and cut-mix need labels of whole images.
        keypoint_swap: permutation of the key points under a mirror (``DataIndex.keypoint_swap``); landmarks need it to be mirrored.

    Raises:
        UsageError: a field out of its range, or one that the task cannot use.
    """
    for name in ("hflip", "vflip", "blur", "erase", "mosaic", "close_augment"):
        if not 0 <= getattr(recipe, name) <= 1:
            raise UsageError(f"recipe.{name} is {getattr(recipe, name)}; it lies in 0..1")
    for name in ("translate", "brightness", "contrast", "saturation", "mixup", "cutmix"):
        if not (getattr(recipe, name) >= 0 and math.isfinite(getattr(recipe, name))):
            raise UsageError(f"recipe.{name} is {getattr(recipe, name)}; it is 0 or more")
    for name, low, high in (("rotate", 0, 180), ("shear", 0, 40), ("scale", 0, 0.95), ("hue", 0, 0.5), ("crop", 0.01, 1)):
        if not low <= getattr(recipe, name) <= high:
            raise UsageError(f"recipe.{name} is {getattr(recipe, name)}; it lies in {low}..{high}")
    if recipe.mosaic and task not in ("detect", "segment"):
        raise UsageError(f"recipe.mosaic works for detect and segment, not for {task}; set recipe.mosaic=0")
    for name in ("mixup", "cutmix"):
        if getattr(recipe, name) and task != "classify":
            raise UsageError(f"recipe.{name} works for classify, not for {task}; set recipe.{name}=0")
    if task == "landmarks" and (recipe.hflip or recipe.vflip) and not keypoint_swap:
        raise UsageError(
            "recipe.hflip and vflip turn left points into right ones, and the data do not say which are which: "
            "set both to 0, or name the points left_* and right_*"
        )
    return Augment(recipe, tuple(keypoint_swap or ()))


# -- several images -------------------------------------------------------------------------------


def mosaic(samples: Sequence[Sample], keypoint_swap: Sequence[int] | None = None) -> Sample:
    """Four images around a random point (Bochkovskiy et al. 2020, YOLOv4, arXiv 2004.10934); the result has the first one's size.

    Each quadrant shows the part of its image that touches the point, unscaled; where an image is too small the quadrant is grey.
    ``image_id``, ``path`` and other fields of the whole image are the first one's.
    """
    if len(samples) != 4:
        raise ValueError(f"a mosaic takes four samples, not {len(samples)}")
    channels = max(s.image.shape[0] for s in samples)
    height, width = samples[0].image.shape[-2:]
    u = _uniform(2)
    cut_x, cut_y = (min(max(round(side * (0.25 + 0.5 * v)), 0), side) for side, v in ((width, u[0]), (height, u[1])))
    parts = []
    for k, (image, target) in enumerate(samples):
        right, below = k % 2, k // 2
        size = (height - cut_y if below else cut_y, width - cut_x if right else cut_x)
        shift = (0 if right else size[1] - image.shape[-1], 0 if below else size[0] - image.shape[-2])
        image = rewrap(image, image.as_subclass(Tensor).expand(channels, -1, -1))
        part = move(Sample(image, target), Affine(np.array([[1.0, 0, shift[0]], [0, 1, shift[1]]]), size), keypoint_swap)
        place = Affine(np.array([[1.0, 0, right * cut_x], [0, 1, below * cut_y]]), (height, width))
        parts.append((part, place, (slice(below * cut_y, below * cut_y + size[0]), slice(right * cut_x, right * cut_x + size[1]))))
    canvas = torch.full((channels, height, width), GREY, dtype=torch.uint8)
    target = dict(samples[0].target)
    shared = set.intersection(*(set(s.target) for s in samples))
    planes = [(key, fill) for key, fill in PLANES if key in shared]
    for key, fill in planes:
        first = samples[0].target[key]
        target[key] = rewrap(first, first.as_subclass(Tensor).new_full((height, width), fill))
    objects: list[Target] = []
    for part, place, window in parts:
        canvas[(slice(None), *window)] = part.image.as_subclass(Tensor)
        for key, _ in planes:
            target[key].as_subclass(Tensor)[window] = part.target[key].as_subclass(Tensor)
        if "boxes" in shared:
            objects.append(_place_objects(part.target, place))
    for key in OBJECT_KEYS:
        target.pop(key, None)
        if key in shared:
            joined = torch.cat([o[key].as_subclass(Tensor) for o in objects])
            target[key] = boxes_tensor(joined, (height, width)) if key == "boxes" else rewrap(samples[0].target[key], joined)
    return Sample(rewrap(samples[0].image, canvas), target)


def _place_objects(target: Target, place: Affine) -> Target:
    """The objects of a quadrant in the coordinates of the whole."""
    out = {key: target[key] for key in OBJECT_KEYS if key in target}
    out["boxes"] = place.hulls(out["boxes"])
    if "masks" in out:
        out["masks"] = place.exact(out["masks"].as_subclass(Tensor), 0)
    if "keypoints" in out:
        out["keypoints"] = torch.where((out["visibility"] > 0)[..., None], place.points(out["keypoints"]), 0.0)
    return out


def close(recipe: Recipe, epoch: int) -> bool:
    """Whether an epoch lies in the last fraction of the run that sees no mosaic, mix-up or cut-mix."""
    return recipe.close_augment > 0 and epoch >= recipe.epochs * (1 - recipe.close_augment)


@dataclass(frozen=True)
class BatchMix:
    """Mix-up (Zhang et al. 2017, arXiv 1710.09412) or cut-mix (Yun et al. 2019, arXiv 1905.04899) of a batch of classified images.

    ``mix(batch) -> batch``: images (B, C, H, W) mixed with their neighbours, targets with ``label_probs`` (K,) float32 beside the unmixed
    ``label``. Where both alphas are set, a coin chooses for the batch. The draw is a function of the seeds that
    :class:`AugmentedDataset` leaves in the targets; it leaves none in the epochs that are not mixed.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, batch: Batch) -> Batch:
        """The batch mixed; a single image, or one without seeds, stays as it is."""
        seeds = [target.get("mix_seed") for target in batch.targets]
        targets = [{key: value for key, value in target.items() if key != "mix_seed"} for target in batch.targets]
        if len(seeds) < 2 or None in seeds:
            return batch._replace(targets=targets)
        if not isinstance(batch.images, Tensor):
            raise UsageError("mix-up and cut-mix need images of one size; set recipe.mixup=0 and recipe.cutmix=0, or a fixed model.size")
        with seeded(*seeds):
            images, probabilities = self.mix(batch.images, torch.stack([target["label"] for target in targets]))
        return batch._replace(images=images, targets=[t | {"label_probs": p} for t, p in zip(targets, probabilities, strict=True)])

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) images and (B,) labels to mixed images and (B, K) probabilities, by torch's generator."""
        from torchvision.transforms import v2

        use_mixup = bool(self.mixup) and (not self.cutmix or _uniform(1)[0] < 0.5)
        mix = (
            v2.MixUp(alpha=self.mixup, num_classes=self.num_classes)
            if use_mixup
            else v2.CutMix(alpha=self.cutmix, num_classes=self.num_classes)
        )
        return mix(images, labels)


def batch_mix(recipe: Recipe, task: str, num_classes: int) -> BatchMix | None:
    """What mixes the batches of a recipe, or None."""
    if task != "classify" or not (recipe.mixup or recipe.cutmix):
        return None
    return BatchMix(num_classes, recipe.mixup, recipe.cutmix)


class AugmentedDataset:
    """A data set seen through a recipe: ``augmented[epoch, i]`` is a function of (seed, epoch, i) alone.

    Neither the order of access nor the number of loader workers changes a sample, nor does access change torch's generator.

    Args:
        dataset: samples in original pixels.
        recipe: its augmentation fields.
        task: "classify", "detect", "segment", ...
        seed: of the run.

    Raises:
        UsageError: see :func:`build_augment`.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, task: str, *, seed: int = 0) -> None:
        self.dataset, self.recipe, self.seed = dataset, recipe, seed
        self.augment = build_augment(recipe, task, dataset.index.keypoint_swap)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, i = key
        recipe, sample = self.recipe, self.dataset[i]
        mixes = not close(recipe, epoch)
        with seeded(self.seed, epoch, i):
            if mixes and recipe.mosaic and _uniform(1)[0] < recipe.mosaic:
                others = torch.randint(len(self.dataset), (3,)).tolist()
                # A broken partner costs the mosaic; it is named when its own turn comes.
                with contextlib.suppress(DataError):
                    sample = mosaic([sample, *(self.dataset[k] for k in others)], self.augment.keypoint_swap)
            sample = self.augment(sample)
        if mixes and (recipe.mixup or recipe.cutmix):
            sample = Sample(sample.image, sample.target | {"mix_seed": mix_seed(self.seed, epoch, i)})
        return sample
