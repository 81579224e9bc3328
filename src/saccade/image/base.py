"""What an image is in this room, and how an operation becomes public.

An **image** is

* a NumPy array HW (grey) or HWC with 1, 2 (grey + alpha), 3 (RGB) or 4 (RGB + alpha) channels, or
* a torch tensor HW, CHW or NCHW (a batch) with the same numbers of channels, on any device (worked on by the CPU, without gradient),

of uint8 (0..255), uint16 (0..65535), float32 or float64 (0..1). Anything else is a UsageError that says what is accepted: other dtypes,
floats outside 0..1 (``clip`` them first), NaN, images without pixels, channels first in an array or last in a tensor. The result has the
dtype, the layout and the range of the input; values that leave the range are clipped, fractions rounded to the nearest (ties to even).
Images are never written to, and no result shares memory with one.

:func:`operation` wraps a function of plain arrays: inside, a grey image is always HW, a colour image HWC, C contiguous, of native byte
order. Alpha is kept aside (``alpha="keep"``), treated as one more channel (``"apply"``) or an error (``"refuse"``). A batch is a loop;
image k of a batch uses ``seed + k``. Arguments are checked against the annotations of the signature; those that are grey levels (a
threshold, a fill value) lie in 0..1 whatever the dtype, so that one setting means the same for 8 and 16 bits.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np

from saccade.types.errors import UsageError, one_line, suggest

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Alpha = Literal["keep", "apply", "refuse"]
Gives = Literal["image", "images", "value"]
Border = Literal["reflect", "symmetric", "replicate", "constant", "wrap"]


class BorderNames(NamedTuple):
    """What one border rule is called elsewhere: OpenCV's number, SciPy's ndimage and NumPy's (also scikit-image's) mode."""

    opencv: int
    scipy: str
    numpy: str


BORDERS: dict[str, BorderNames] = {
    "reflect": BorderNames(4, "mirror", "reflect"),  # d c b | a b c d | c b a, BORDER_REFLECT_101
    "symmetric": BorderNames(2, "reflect", "symmetric"),  # c b a | a b c d | d c b
    "replicate": BorderNames(1, "nearest", "edge"),  # a a a | a b c d | d d d
    "constant": BorderNames(0, "constant", "constant"),  # 0 0 0 | a b c d | 0 0 0
    "wrap": BorderNames(3, "wrap", "wrap"),  # b c d | a b c d | a b c
}
WHITE: dict[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
"""The greatest value of each dtype."""

LARGEST_WINDOW = 4095
"""Side of a window in pixels; more is a slip of the pen, and takes all memory."""

_ACCEPTED = (
    "an image is a NumPy array HW or HWC, or a tensor CHW or NCHW, with 1 to 4 channels, of uint8, uint16, float32 or float64 in 0..1"
)


@dataclass(frozen=True)
class Parameter:
    """One argument of an operation besides its images; ``default`` is ``inspect.Parameter.empty`` where it must be given."""

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def kind(self) -> str:
        """The type as text.

        >>> Parameter("border", Literal["wrap", "constant"], "wrap").kind, Parameter("size", int, 3).kind
        ('wrap|constant', 'int')
        """
        return _kind(self.annotation)

    def check(self, value: Any) -> Any:
        """The value as the function gets it.

        Raises:
            UsageError: it does not fit the annotation.

        >>> Parameter("sigma", float, 1.0).check(np.float32(2)), Parameter("size", int, 3).check(5)
        (2.0, 5)
        """
        try:
            return self._held(_fit(value, self.annotation))
        except (ValueError, OverflowError):
            raise self._wrong(value) from None

    def read(self, text: str) -> Any:
        """The value of a text from the command line: numbers, true/false, none, names; lists as ``1,2,3``, rows apart by ``;``.

        >>> Parameter("size", int, 3).read("5"), Parameter("shift", tuple[float, float], None).read("1,2.5")
        (5, (1.0, 2.5))
        """
        try:
            return self._held(_fit(_parse(text, self.annotation), self.annotation))
        except (ValueError, OverflowError):
            raise self._wrong(text) from None

    def _held(self, value: Any) -> Any:
        """The value; UsageError for a negative seed and for whole numbers that the libraries below do not hold."""
        if type(value) is int:
            low, high = (0, 2**63 - 2**32) if self.name == "seed" else (-(2**31), 2**31 - 1)
            within(value, low, high, self.name)
        return value

    def _wrong(self, value: Any) -> UsageError:
        choices = _choices(self.annotation) if isinstance(value, str) else []
        close = difflib.get_close_matches(value[:100], choices, n=1) if choices else []
        shown = one_line(f"{value!r}" if not isinstance(value, int) or abs(value) < 2**200 else "a huge number", 80)
        return UsageError(f"{self.name} is {self.kind}, not {shown}" + (f"; did you mean {close[0]!r}?" if close else ""))


@dataclass(frozen=True)
class Operation:
    """A registered operation.

    Attributes:
        name: of the public function.
        row: of the canon ("I7").
        function: the public function: images in any accepted form.
        plain: the function as written: plain arrays, unchecked.
        formula: what it computes, in one line.
        alpha: what happens to an alpha channel.
        inputs: number of images; 0: the first argument is a sequence of images.
        gives: one image, a list of images, or another value.
        masks: whether bool images are taken too.
    """

    name: str
    row: str
    function: Callable[..., Any]
    plain: Callable[..., Any]
    formula: str
    alpha: Alpha
    inputs: int
    gives: Gives
    masks: bool

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (self.plain.__doc__ or "").strip().split("\n")[0]

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.plain)

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The arguments after the images."""
        hints = typing.get_type_hints(self.plain)
        rest = list(self.signature.parameters.values())[max(self.inputs, 1) :]
        return tuple(Parameter(p.name, hints.get(p.name, Any), p.default) for p in rest)

    def parameter(self, name: str) -> Parameter:
        """The parameter of a name.

        Raises:
            UsageError: there is none.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = [p.name for p in self.parameters]
        raise UsageError(f"{self.name} has no parameter {name!r}{suggest(name, known) if known else '; it takes none'}")

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The images and the checked arguments of a call."""
        for name in kwargs:
            if name not in self.signature.parameters:
                self.parameter(name)
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(f"{self.name}: {error}") from None
        names = list(self.signature.parameters)
        images = [bound.arguments.pop(n) for n in names[: max(self.inputs, 1)]]
        try:
            return images, {n: self.parameter(n).check(v) for n, v in bound.arguments.items()}
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from None


OPERATIONS: dict[str, Operation] = {}
"""Every operation of the modules loaded so far; :func:`saccade.image.operations` loads them all."""


def operation(
    *, row: str, formula: str, alpha: Alpha = "keep", inputs: int = 1, gives: Gives = "image", masks: bool = False
) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[Concatenate[Any, P], Any]]:
    """Register a function of plain arrays under its name and make it take and give images in any accepted form.

    Args:
        row: of the canon.
        formula: what it computes, in one line.
        alpha: "keep": the function sees no alpha, which is put back as it was (dropped where the result is a value);
            "apply": alpha is one more channel; "refuse": an image with alpha is an error.
        inputs: number of images, the first arguments; they must be of one kind and dtype. 0: the first argument is a sequence of images.
        gives: "image", "images" (a list) or "value" (given back as it is; of a batch a list, one for each image).
        masks: bool images are taken too: the function sees uint8 0 and 255, the result is True from 128 on.
    """

    def register(plain: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], Any]:
        name = plain.__name__

        @functools.wraps(plain)
        def public(*args: Any, **kwargs: Any) -> Any:
            return _run(entry, args, kwargs)

        if name in OPERATIONS and OPERATIONS[name].plain.__module__ != plain.__module__:
            raise ValueError(f"two operations are called {name}")
        entry = Operation(name, row, public, plain, formula, alpha, inputs, gives, masks)
        OPERATIONS[name] = entry
        return public

    return register


def _run(entry: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    images, arguments = entry.bind(args, kwargs)
    if entry.inputs == 0:
        if not isinstance(images[0], (list, tuple)) or not images[0]:
            raise UsageError(f"{entry.name} takes a list of at least one image")
        images = list(images[0])
    forms = [_form(entry, x) for x in images]
    first = forms[0]
    for other in forms[1:]:
        if (other.tensor, other.dtype, other.batch) != (first.tensor, first.dtype, first.batch):
            raise UsageError(f"{entry.name} takes images of one kind and dtype, not {first.words()} and {other.words()}")
    if first.batch is None:
        return _one(entry, images, forms, arguments)
    results = []
    for k in range(first.batch):
        if isinstance(arguments.get("seed"), int):
            each = arguments | {"seed": arguments["seed"] + k}
        elif k and "seed" in entry.signature.parameters and isinstance(entry.parameter("seed").default, int):
            each = arguments | {"seed": entry.parameter("seed").default + k}
        else:
            each = arguments
        results.append(_one(entry, [x[k] for x in images], forms, each))
    if entry.gives == "image" and len({tuple(r.shape) for r in results}) == 1:
        import torch

        return torch.stack(results)
    if entry.gives == "images":
        import torch

        return [torch.stack(level) for level in zip(*results, strict=True)]
    return results


class _Form(NamedTuple):
    """How an image was given. ``channels`` is None for HW; ``batch`` is None for one image."""

    tensor: bool
    dtype: str
    channels: int | None
    batch: int | None
    device: Any

    def words(self) -> str:
        return f"a {self.dtype} {'tensor' if self.tensor else 'array'}" + (f" of {self.batch} images" if self.batch is not None else "")


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; loads no torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _form(entry: Operation, image: Any) -> _Form:
    """How an image is given; UsageError where it is none."""
    tensor = is_tensor(image)
    if not tensor and not isinstance(image, np.ndarray):
        raise UsageError(f"{entry.name}: {_ACCEPTED}; not {type(image).__name__}")
    shape, dtype = tuple(image.shape), str(image.dtype).removeprefix("torch.")
    dtype = image.dtype.name if not tensor else dtype
    if dtype not in WHITE and not (dtype == "bool" and entry.masks):
        hint = "; a mask: mask.astype('uint8') * 255" if dtype == "bool" else ""
        raise UsageError(f"{entry.name}: {_ACCEPTED}; not {dtype}{hint}")
    if len(shape) == 2:
        form = _Form(tensor, dtype, None, None, image.device if tensor else None)
    elif tensor and len(shape) in (3, 4):
        form = _Form(tensor, dtype, shape[-3], shape[0] if len(shape) == 4 else None, image.device)
    elif not tensor and len(shape) == 3:
        form = _Form(tensor, dtype, shape[2], None, None)
    else:
        hint = "; give the images of an array batch one by one" if len(shape) == 4 else ""
        raise UsageError(f"{entry.name}: {_ACCEPTED}; not of shape {shape}{hint}")
    if 0 in shape:
        raise UsageError(f"{entry.name}: the image has no pixels, its shape is {shape}")
    if form.channels not in (None, 1, 2, 3, 4):
        other = shape[-1] if tensor else shape[0]
        turn = "image.permute(2, 0, 1)" if tensor else "image.transpose(1, 2, 0)"
        hint = f"; channels {'first' if tensor else 'last'}: {turn}" if other in (1, 2, 3, 4) and len(shape) == 3 else ""
        raise UsageError(f"{entry.name}: {_ACCEPTED}; not of shape {shape}{hint}")
    if tensor and (image.is_sparse or image.is_meta):
        raise UsageError(f"{entry.name}: {_ACCEPTED}; not a {'sparse tensor' if image.is_sparse else 'tensor without values'}")
    if form.channels in (2, 4) and entry.alpha == "refuse":
        raise UsageError(f"{entry.name} takes no alpha channel; give image{'[:-1]' if tensor else '[..., :-1]'}")
    if dtype.startswith("float"):
        values = image.detach() if tensor else image
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also where they are NaN
            if math.isfinite(low) and math.isfinite(high):
                raise UsageError(f"{entry.name}: a float image lies in 0..1, not in {low:.9g}..{high:.9g}; scale or clip it first")
            raise UsageError(f"{entry.name}: the image holds NaN or infinite values")
    return form


def _one(entry: Operation, images: list[Any], forms: list[_Form], arguments: dict[str, Any]) -> Any:
    """One image (or pair, or list of images) through the function."""
    arrays, alpha = [], None
    for k, (image, form) in enumerate(zip(images, forms, strict=True)):
        array = _array(image, form)
        if form.channels in (2, 4) and entry.alpha == "keep":
            alpha = array[..., -1] if k == 0 else alpha
            array = array[..., :-1]
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        arrays.append(np.ascontiguousarray(array))
    try:
        result = entry.plain(arrays, **arguments) if entry.inputs == 0 else entry.plain(*arrays, **arguments)
    except Exception as error:
        if getattr(error, "code", None) == -4:  # OpenCV's MemoryError (StsNoMem)
            raise MemoryError(f"{entry.name} needs more memory than there is") from None
        raise
    if entry.gives == "value":
        return result
    if entry.gives == "images":
        return [_given_back(entry, r, forms[0], arrays, alpha) for r in result]
    return _given_back(entry, result, forms[0], arrays, alpha)


def _array(image: Any, form: _Form) -> np.ndarray:
    """HW or HWC, native byte order, bool as 0 and 255."""
    array: np.ndarray
    if form.tensor:
        array = image.detach().cpu().resolve_neg().numpy()
        array = array if array.ndim == 2 else array.transpose(1, 2, 0)
    else:
        array = image.astype(image.dtype.newbyteorder("="), copy=False)
    return array.astype(np.uint8) * np.uint8(255) if form.dtype == "bool" else array


def _given_back(entry: Operation, result: np.ndarray, form: _Form, arrays: list[np.ndarray], alpha: np.ndarray | None) -> Any:
    """The result in the layout of the input."""
    if alpha is not None:
        if result.shape[:2] != alpha.shape:
            raise UsageError(f"{entry.name} changes the size, so it cannot keep alpha as it is")
        kept = alpha if alpha.dtype == result.dtype else from_float(to_float(alpha), result.dtype)
        result = np.dstack([result, kept])
    if form.dtype == "bool" and result.dtype == np.uint8:
        result = result >= 128
    if result.ndim == 2 and (form.channels == 1 or (form.tensor and form.channels is not None)):
        result = result[..., None]
    if form.tensor and result.ndim == 3:
        result = result.transpose(2, 0, 1)
    if not result.flags.c_contiguous or any(np.may_share_memory(result, a) for a in arrays):
        result = np.array(result, order="C")
    if not form.tensor:
        return result
    import torch

    return torch.from_numpy(result).to(form.device)


def white(array: np.ndarray) -> float:
    """The greatest value of the array's dtype: 255, 65535 or 1."""
    return WHITE[array.dtype.name]


def to_float(array: np.ndarray) -> np.ndarray:
    """An image as floats in 0..1: integers as float32, floats as they are.

    >>> to_float(np.array([[0, 51, 255]], np.uint8)).tolist()
    [[0.0, 0.20000000298023224, 1.0]]
    """
    if array.dtype.kind == "f":
        return array
    return np.divide(array, np.float32(white(array)), dtype=np.float32)


def from_float(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Floats in 0..1 as an image of a dtype, clipped; integers rounded to the nearest, ties to even. NaN becomes 0.

    >>> from_float(np.array([[-1, 0.5, 2]]), np.uint8).tolist()
    [[0, 128, 255]]
    """
    dtype = np.dtype(dtype)
    if dtype.kind != "u":
        return in_range(values, dtype)
    return _cut(values * values.dtype.type(WHITE[dtype.name]), dtype, spend=True)


def in_range(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Floats on the scale of a dtype (0..255 for uint8) as that dtype, clipped and rounded. NaN becomes 0.

    >>> in_range(np.array([-3.0, 2.5, 3.5, 300.0]), np.uint8).tolist()
    [0, 2, 4, 255]
    """
    dtype = np.dtype(dtype)
    if values.dtype.kind in "iu":
        return np.clip(values, 0, WHITE[dtype.name]).astype(dtype)
    return _cut(values, dtype)


def _cut(values: np.ndarray, dtype: np.dtype[Any], *, spend: bool = False) -> np.ndarray:
    """Floats of :func:`in_range`, in their own place with ``spend``."""
    top = WHITE[dtype.name]
    values = np.nan_to_num(values, nan=0.0, posinf=top, neginf=0.0) if np.isnan(values.sum()) else values
    values = np.clip(values, 0, top, out=values if spend else None)
    return (np.rint(values, out=values) if dtype.kind == "u" else values).astype(dtype, copy=False)


def by_level(array: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A point operation: ``change`` maps floats in 0..1 to floats; integers go through a table of all their levels, in float64."""
    if array.dtype.kind == "f":
        return from_float(np.asarray(change(array)), array.dtype)
    top = int(white(array))
    return look_up(array, from_float(np.asarray(change(np.arange(top + 1) / top)), array.dtype))


def clipped(values: np.ndarray) -> np.ndarray:
    """Float values cut to 0..1 in place (also the last digit by which a mean of whites exceeds white); integers as they are."""
    return np.clip(values, 0, 1, out=values) if values.dtype.kind == "f" else values


def look_up(array: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``table[array]`` for an integer image: OpenCV's LUT for 8 bits, ``np.take`` for 16."""
    if array.dtype == np.uint8 and table.dtype in (np.uint8, np.float32, np.float64):
        import cv2

        out: np.ndarray = cv2.LUT(array, table)
        return out.reshape(array.shape)
    return np.take(table, array)


def strips(height: int, rows: int) -> list[slice]:
    """The rows 0 to height, so many at a time."""
    return [slice(top, min(height, top + rows)) for top in range(0, height, rows)]


def threads() -> int:
    """How many threads an operation may use: as many as OpenCV (``cv2.setNumThreads``; the workers of a folder have one each)."""
    import cv2

    return max(1, cv2.getNumThreads())


def in_threads(run: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """``run`` of every part, in order; NumPy, SciPy and OpenCV compute several at a time."""
    if len(parts) < 2 or threads() == 1:
        return [run(part) for part in parts]
    with ThreadPoolExecutor(threads()) as pool:
        return list(pool.map(run, parts))


def in_strips(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray], halo: int = 0, values: int = 2**18) -> np.ndarray:
    """``change`` of the image, a strip of rows at a time, top to bottom: its floats stay in the cache and take little memory.

    ``halo`` is how many rows above and below a row ``change`` looks at; what it takes for outside there is cut off. A strip has about
    ``values``; several are computed at a time.
    """
    height = image.shape[0]
    rows = max(8 * halo, values // math.prod(image.shape[1:]), 1)  # a quarter more work for the halos at most
    if height <= rows:
        return change(image)

    def part(strip: slice) -> np.ndarray:
        above = min(strip.start, halo)
        return change(image[strip.start - above : min(height, strip.stop + halo)])[above : above + strip.stop - strip.start]

    first, *others = strips(height, rows)
    begun = part(first)
    out = np.empty((height, *begun.shape[1:]), begun.dtype)
    out[first] = begun
    if rows * math.prod(image.shape[1:]) > 4 * values:  # strips that the halo made large, one at a time
        for strip in others:
            out[strip] = part(strip)
    else:
        in_threads(lambda strip: out.__setitem__(strip, part(strip)), others)
    return out


def channels(array: np.ndarray) -> Iterator[np.ndarray]:
    """The channels of HW or HWC, each (H, W) contiguous."""
    return (np.ascontiguousarray(array[..., c]) for c in range(array.shape[2])) if array.ndim == 3 else iter([array])


def stacked(parts: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
    """What became of the :func:`channels` of an image, as that is: HW or HWC."""
    return np.stack(parts, axis=-1) if like.ndim == 3 else parts[0]


def each_channel(array: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of HW applied to every channel of HW or HWC."""
    return stacked([change(channel) for channel in channels(array)], array)


def luma(array: np.ndarray) -> np.ndarray:
    """HW grey of HW or HW3 by ITU-R BT.601, same dtype: 0.299 R + 0.587 G + 0.114 B.

    OpenCV (uint16 by fixed-point weights, which differ by up to two of 65536 levels), NumPy for float64.

    >>> luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).tolist()
    [[76, 150, 29]]
    """
    if array.ndim == 2:
        return array
    if array.dtype == np.float64:
        return in_range(array @ np.array([0.299, 0.587, 0.114]), array.dtype)
    import cv2

    grey: np.ndarray = cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_RGB2GRAY)
    return np.minimum(grey, np.float32(1)) if array.dtype == np.float32 else grey


def pad(array: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], border: str, value: float = 0.0) -> np.ndarray:
    """HW or HWC with a frame of (above, below) rows and (left, right) columns by a border rule; a frame wider than the image is allowed.

    ``value`` in 0..1 fills a "constant" border. OpenCV's copyMakeBorder.

    >>> pad(np.array([[1, 2, 3]], np.uint8), (0, 0), (2, 2), "reflect").tolist()
    [[3, 2, 1, 2, 3, 2, 1]]
    """
    import cv2

    fill = [float(value) * white(array)] * 4 if value else [0.0] * 4  # of any dtype
    out: np.ndarray = cv2.copyMakeBorder(array, *rows, *columns, border_names(border).opencv, value=fill)
    return out.reshape(out.shape[:2] + array.shape[2:])


def border_names(border: str) -> BorderNames:
    """What a border rule is called elsewhere.

    Raises:
        UsageError: there is no such rule.
    """
    if border not in BORDERS:
        raise UsageError(f"no border {border!r}{suggest(border, BORDERS)}")
    return BORDERS[border]


def odd(size: int, name: str = "size", most: int = LARGEST_WINDOW) -> int:
    """The side of a window.

    Raises:
        UsageError: it is not odd, less than 1 or more than ``most``.
    """
    if size % 2 != 1 or not 1 <= size <= most:
        raise UsageError(f"{name} is an odd number of pixels from 1 to {most}, not {size}")
    return size


def within(value: float, low: float, high: float, name: str, *, open_low: bool = False) -> float:
    """A value in low..high, or above low with ``open_low``.

    Raises:
        UsageError: it is not.
    """
    if not (low <= value <= high) or (open_low and value == low):
        if high == math.inf:
            raise UsageError(f"{name} is {'greater than' if open_low else 'at least'} {low:g}, not {value:g}")
        raise UsageError(f"{name} lies in {low:g}..{high:g}{f', {low:g} excluded' if open_low else ''}, not {value:g}")
    return value


def same_shape(name: str, arrays: Sequence[np.ndarray]) -> None:
    """Raises:
    UsageError: the images differ in size or channels.
    """
    for other in arrays[1:]:
        if other.shape != arrays[0].shape:
            raise UsageError(f"{name} takes images of one size, not {arrays[0].shape} and {other.shape}")


def _kind(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(str(x) for x in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(x) for x in inner)
    if origin in (tuple, Sequence, list):
        if typing.get_origin(inner[0]) in (tuple, Sequence, list):
            return f"{_kind(inner[0])};..."
        shown = [x for x in inner if x is not Ellipsis]
        return f"{_kind(shown[0])},..." if len(shown) != len(inner) or origin is not tuple else ",".join(_kind(x) for x in shown)
    if annotation is None or annotation is type(None):
        return "none"
    return str(getattr(annotation, "__name__", annotation))


def _choices(annotation: Any) -> list[str]:
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return [str(x) for x in inner]
    return [c for x in inner for c in _choices(x)]


def _fit(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it; ValueError where it does not fit. Unknown annotations take anything."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in inner:
            try:
                return _fit(value, option)
            except ValueError:
                continue
        raise ValueError
    if origin is Literal:
        value = value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, str) else value
        if any(type(value) is type(x) and value == x for x in inner):
            return value
        raise ValueError
    if origin in (tuple, list, Sequence):
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (tuple, list)):
            raise ValueError
        if origin is tuple and Ellipsis not in inner:
            if len(value) != len(inner):
                raise ValueError
            return tuple(_fit(v, a) for v, a in zip(value, inner, strict=True))
        fitted = [_fit(v, inner[0]) for v in value]
        return tuple(fitted) if origin is tuple else fitted
    if annotation is type(None) or annotation is None:
        wanted = value is None
    elif annotation is bool:
        value, wanted = (bool(value), True) if isinstance(value, (bool, np.bool_)) else (value, False)
    elif annotation is int:
        wanted = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        value = int(value) if wanted else value
    elif annotation is float:
        wanted = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if wanted else value
    else:
        wanted = isinstance(value, str) if annotation is str else True
    if not wanted:
        raise ValueError
    return value


def _parse(text: str, annotation: Any) -> Any:
    """A value from text; ValueError where it cannot be read."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in inner:
            try:
                return _fit(_parse(text, option), option)
            except ValueError:
                continue
        raise ValueError
    if origin is Literal:
        return next((x for x in inner if str(x) == text), text)
    if origin in (tuple, list, Sequence):
        if typing.get_origin(inner[0]) in (tuple, list, Sequence):
            return [_parse(row, inner[0]) for row in text.split(";")]
        parts = text.split(",")
        each = [inner[0]] * len(parts) if Ellipsis in inner or origin is not tuple else inner
        if len(each) != len(parts):
            raise ValueError
        return [_parse(part.strip(), a) for part, a in zip(parts, each, strict=True)]
    if annotation is type(None):
        if text.lower() != "none":
            raise ValueError
        return None
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if annotation in (int, float):
        return annotation(text)
    return text
