"""Image operations on files: chains, folders over several processes, contact sheets over a parameter, histogram plots."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.images import find_images, read_array
from saccade.image import operations
from saccade.image.base import Operation, from_float, to_float, white
from saccade.types.errors import DataError, SaccadeError, UsageError, one_line, suggest
from saccade.types.files import atomic
from saccade.types.machine import keep_memory, usable_cores

WRITTEN = {
    ".png": (16, True),
    ".tif": (16, True),
    ".tiff": (16, True),
    ".webp": (8, True),
    ".jpg": (8, False),
    ".jpeg": (8, False),
    ".bmp": (8, False),
    ".ppm": (8, False),
    ".pgm": (8, False),
}
"""Suffixes that can be written: bits a channel, and whether alpha is kept."""

_SAVE: dict[str, dict[str, Any]] = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}, ".webp": {"lossless": True}}
_LONGEST = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}  # sides that the format's encoder takes
_FEW = 16  # below so many files, other processes cost more than they save


def operation_named(name: str) -> Operation:
    """The operation of a name.

    Raises:
        UsageError: there is none.
    """
    known = operations()
    if name not in known:
        raise UsageError(f"no image operation {name!r}{suggest(name, known)} (saccade image list)")
    return known[name]


@dataclass(frozen=True)
class Step:
    """An operation with its arguments."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def operation(self) -> Operation:
        return operation_named(self.name)

    def __call__(self, *images: np.ndarray) -> Any:
        given = [list(images)] if self.operation.inputs == 0 else images
        return self.operation.function(*given, **self.arguments)


def make_step(name: str, settings: Iterable[str] = (), *, later: Iterable[str] = ()) -> Step:
    """An operation with ``NAME=VALUE`` texts read as its parameters.

    Args:
        name: of the operation.
        settings: texts.
        later: names of required parameters that are given afterwards.

    Raises:
        UsageError: an unknown name, a value that does not fit, or a required parameter that is missing.
    """
    entry, arguments = operation_named(name), {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes NAME=VALUE, not {text!r}")
        arguments[key] = entry.parameter(key).read(value)
    for parameter in entry.parameters:
        if parameter.required and parameter.name not in arguments and parameter.name not in later:
            raise UsageError(f"{name} needs --set {parameter.name}=... ({parameter.kind})")
    return Step(name, arguments)


def check_chain(steps: Sequence[Step]) -> None:
    """Raises:
    UsageError: an operation after the first takes several images, or one before the last gives no single image.
    """
    for earlier, later in itertools.pairwise(steps):
        if earlier.operation.gives != "image":
            raise UsageError(f"{earlier.name} gives no image, so nothing can follow it")
        if later.operation.inputs != 1:
            raise UsageError(f"{later.name} takes several images, so it can only come first")


def run_chain(steps: Sequence[Step], images: Sequence[np.ndarray], index: int = 0) -> Any:
    """What the last operation gives for file number ``index`` of many.

    File k takes ``seed + k``, as image k of a batch does, and a later step that is given no seed a million more than the one before:
    else all files, and both noises of a chain, would have the same numbers.
    """
    result: Any = None
    for place, step in enumerate(steps):
        seed = step.arguments.get("seed", 1_000_000 * place) + index
        random = "seed" in step.operation.signature.parameters and isinstance(seed, int)
        varied = Step(step.name, {**step.arguments, "seed": seed}) if random else step
        result = varied(*images) if place == 0 else varied(result)
    return result


# ---------------------------------------------------------------------------------------------------------------- files


def write_array(path: Path, image: np.ndarray) -> None:
    """Write an image, whole or not at all; the suffix says how. JPEG at quality 95, WebP without loss.

    Floats, which operations give that are no images (differences, derivatives), become 8 bits: 0..1 as it is, anything else with zero in
    the middle. Grey and alpha of 16 bits are written as RGBA.

    Raises:
        DataError: the format does not hold alpha or 16 bits.
        UsageError: the suffix is unknown.
    """
    bits, clear = _held(path)
    image = viewable(image) if image.dtype.kind == "f" else image
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        image = image.reshape(image.shape[:2])
    if channels in (2, 4) and not clear:
        raise DataError(path, f"{path.suffix} holds no alpha channel", hint="write .png or .tif, or give --no-alpha")
    if image.dtype == np.uint16 and bits < 16:
        raise DataError(path, f"{path.suffix} holds 8 bits a channel, the image has 16", hint="write .png or .tif")
    check_sides(path, image.shape)
    with atomic(path) as temporary:
        if image.dtype == np.uint16 and channels > 1:
            import cv2

            rgb = image[..., [0, 0, 0, 1]] if channels == 2 else image
            done, content = cv2.imencode(
                ".tiff" if path.suffix.lower().startswith(".tif") else ".png", rgb[..., [2, 1, 0, 3][: rgb.shape[2]]]
            )
            if not done:
                raise DataError(path, "cannot be encoded")
            temporary.write_bytes(content.tobytes())
            return
        from PIL import Image

        options = _SAVE.get(path.suffix.lower(), {})
        Image.fromarray(image).save(temporary, **options)


def check_sides(path: Path, shape: Sequence[int]) -> None:
    """Raises:
    DataError: a side of an image (H, W, ...) is longer than the format of the suffix holds.
    """
    longest = _LONGEST.get(path.suffix.lower())
    if longest is not None and max(shape[:2]) > longest:
        problem = f"{path.suffix} holds sides up to {longest} pixels, the image is {shape[1]}x{shape[0]}"
        raise DataError(path, problem, hint="write .png")


def viewable(image: np.ndarray) -> np.ndarray:
    """An array as uint8: 16 bits scaled, floats of 0..1 as they are, anything else with zero in the middle."""
    if image.dtype == np.uint8:
        return image
    values = to_float(image)
    low, high = float(values.min()), float(values.max())
    return from_float(values if low >= 0 and high <= 1 else 0.5 + values / (2 * max(-low, high)), np.uint8)


def _held(path: Path) -> tuple[int, bool]:
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise UsageError(f"{path.name}: an image is written as {', '.join(WRITTEN)}, not {suffix or 'a name without suffix'}")
    return WRITTEN[suffix]


def read_inputs(inputs: Sequence[str]) -> list[tuple[str, str]]:
    """(file, name below its folder) of files, folders and globs."""
    found = []
    for item in inputs:
        base = item if os.path.isdir(item) else ""
        found += [(path, os.path.relpath(path, base) if base else os.path.basename(path)) for path in find_images([item])]
    return found


@dataclass(frozen=True)
class Task:
    """One result to make: input files and the output file."""

    paths: tuple[str, ...]
    out: str
    index: int = 0


def plan(steps: Sequence[Step], inputs: Sequence[str], out: str, suffix: str | None = None) -> list[Task]:
    """Which files become which.

    Raises:
        UsageError: the number of files does not fit the operation, two results have one name, or a result would overwrite an input.
    """
    check_chain(steps)
    count, last = steps[0].operation.inputs, steps[-1]
    if last.operation.gives == "value":
        raise UsageError(f"{last.name} gives no image; name only inputs and read its answer")
    if suffix is not None:
        suffix = suffix if suffix.startswith(".") else f".{suffix}"
        if suffix.lower() not in WRITTEN:
            raise UsageError(f"--form {suffix}: an image is written as {', '.join(WRITTEN)}")
    files = read_inputs(inputs)
    folder = any(os.path.isdir(item) for item in inputs)
    if count > 1 and len(files) != count:
        raise UsageError(f"{steps[0].name} takes {count} images, not {len(files)}, and a file for the result")
    target = Path(out)
    if count != 1 or (len(files) == 1 and not folder and not target.is_dir() and target.suffix):
        _held(target)
        if suffix is not None:
            raise UsageError(f"--form {suffix} is for results in a folder; {out} has its own suffix")
        tasks = [Task(tuple(path for path, _ in files), out)]
    else:
        if target.suffix.lower() in WRITTEN and not target.is_dir():
            raise UsageError(f"{out} is a file's name; the results of several images need a folder")
        if target.is_file():
            raise UsageError(f"{out} is a file, not a folder, which the results of several images need")
        tasks = [Task((path,), str(target / _named(name, suffix)), k) for k, (path, name) in enumerate(files)]
    made: dict[str, str] = {}
    sources = {os.path.realpath(path) for path, _ in files}
    for task in tasks:
        place = os.path.realpath(task.out)
        if place in made:
            raise UsageError(f"{made[place]} and {task.paths[0]} would both become {task.out}")
        if place in sources:
            raise UsageError(f"{task.out} is one of the inputs, which are never overwritten")
        if last.operation.gives == "images" and (taken := _numbered(Path(place), sources)):
            raise UsageError(f"{last.name} writes {Path(taken).name}, which is one of the inputs, and those are never overwritten")
        made[place] = task.paths[0]
    return tasks


def _numbered(out: Path, sources: Iterable[str]) -> str | None:
    """The source that has the name of one of several results of one image: ``out-0.png``, ``out-1.png`` ..."""
    head, tail = f"{out.with_suffix('')}-", out.suffix
    return next((s for s in sources if s.startswith(head) and s.endswith(tail) and s[len(head) : len(s) - len(tail)].isdecimal()), None)


def check_target(out: str, source: str) -> None:
    """Raises:
    UsageError: the picture of one image has no suffix of an image, or would overwrite it.
    """
    _held(Path(out))
    if os.path.realpath(out) == os.path.realpath(source):
        raise UsageError(f"{out} is the input, which is never overwritten")


def _named(name: str, suffix: str | None) -> str:
    stem, own = os.path.splitext(name)
    return stem + (suffix or (own if own.lower() in WRITTEN else ".png"))


def apply(
    steps: Sequence[Step],
    tasks: Sequence[Task],
    *,
    alpha: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    failed: Callable[[SaccadeError], None] | None = None,
) -> list[str]:
    """Make every result; the written files, in order.

    Args:
        steps: operations, one after the other.
        tasks: of :func:`plan`.
        alpha: False drops the alpha channel of the inputs.
        workers: processes; 0: this one; None: one a core, this one for a handful of files. Never changes a result.
        progress: called with the number of files that are done, and of all.
        failed: called with the error of each file that cannot be read, changed or written; None raises the first.

    Raises:
        UsageError: a wrong argument: no file could be made because of one.
        SaccadeError: a file failed and ``failed`` is None.
    """
    if not tasks:
        return []
    first = _work(steps, tasks[0], alpha)  # alone: a wrong argument fails before processes start
    if isinstance(first, SaccadeError) and (failed is None or (isinstance(first, UsageError) and len(tasks) == 1)):
        raise first
    if progress is not None:
        progress(1, len(tasks))
    results: list[list[str] | SaccadeError | None] = [first] + [None] * (len(tasks) - 1)
    count = workers if workers is not None else usable_cores() if len(tasks) >= _FEW else 0
    for done, (k, result) in enumerate(_all_others(steps, tasks, alpha, count), 2):
        results[k] = result
        if progress is not None:
            progress(done, len(tasks))
        if failed is None and isinstance(result, SaccadeError):
            break
    problems = [r for r in results if isinstance(r, SaccadeError)]
    if failed is None and problems:
        raise problems[0]
    if failed is not None:
        _tell(problems, len(tasks), failed)
    return [name for r in results if isinstance(r, list) for name in r]


def _tell(problems: Sequence[SaccadeError], count: int, failed: Callable[[SaccadeError], None]) -> None:
    """The errors of files one by one; UsageError where all failed by a wrong argument, whatever else some files are."""
    wrong = [p for p in problems if isinstance(p, UsageError)]
    if len(problems) == count and 2 * len(wrong) > count:
        raise wrong[0]
    for problem in problems:
        failed(problem)


def _all_others(steps: Sequence[Step], tasks: Sequence[Task], alpha: bool, count: int) -> Iterator[tuple[int, list[str] | SaccadeError]]:
    """(index, result) of all tasks but the first, as they come."""
    if count < 1 or len(tasks) < 3:
        for k in range(1, len(tasks)):
            yield k, _work(steps, tasks[k], alpha)
        return
    with ProcessPoolExecutor(min(count, len(tasks) - 1), _workers(), _quiet) as pool:
        waiting = {pool.submit(_work, steps, task, alpha): k for k, task in enumerate(tasks) if k}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool:
            raise SaccadeError("a worker process ended (out of memory?); use --workers 0") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _workers() -> BaseContext:
    """Where workers come from: a clean process that has loaded this module once (OpenCV's and torch's threads do not survive a fork)."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _quiet() -> None:
    """A worker uses one thread and leaves signals to its parent."""
    import signal

    import cv2

    keep_memory()
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def load_file(path: str, alpha: bool = True) -> np.ndarray:
    """The pixels of a file, with alpha or without.

    Raises:
        DataError: it cannot be read.
    """
    image = read_array(path)
    if not alpha and image.ndim == 3 and image.shape[2] in (2, 4):
        image = image[..., 0] if image.shape[2] == 2 else np.ascontiguousarray(image[..., :3])
    return image


def _work(steps: Sequence[Step], task: Task, alpha: bool) -> list[str] | SaccadeError:
    """Make one result; the error instead of it."""
    out = Path(task.out)
    try:
        try:
            result = run_chain(steps, [load_file(path, alpha) for path in task.paths], task.index)
        except UsageError as error:
            return error if len(task.paths) != 1 else UsageError(f"{task.paths[0]}: {error}")
        if steps[-1].operation.gives == "image":
            write_array(out, result)
            return [str(out)]
        names = [out.with_name(f"{out.stem}-{k}{out.suffix}") for k in range(len(result))]
        for name, each in zip(names, result, strict=True):
            write_array(name, each)
        return [str(name) for name in names]
    except SaccadeError as error:
        return error
    except MemoryError:
        return DataError(task.paths[0], "needs more memory than there is")
    except OSError as error:
        return DataError(error.filename2 or error.filename or task.out, error.strerror or one_line(error))


def values(
    steps: Sequence[Step], inputs: Sequence[str], *, alpha: bool = True, failed: Callable[[SaccadeError], None] | None = None
) -> Iterator[tuple[str, Any]]:
    """(files, answer) of operations that give a value, as plain Python objects.

    Args:
        steps: operations, one after the other.
        inputs: files, folders, globs.
        alpha: False drops the alpha channel of the inputs.
        failed: called with the error of each file that cannot be read or does not fit the operation; None raises the first.

    Raises:
        UsageError: a wrong argument: no file has an answer because of one; or the number of files does not fit the operation.
        DataError: a file cannot be read and ``failed`` is None.
    """
    check_chain(steps)
    count = steps[0].operation.inputs
    files = [path for path, _ in read_inputs(inputs)]
    if count > 1 and len(files) != count:
        raise UsageError(f"{steps[0].name} takes {count} images, not {len(files)}")
    problems: list[SaccadeError] = []
    groups = [files] if count != 1 else [[path] for path in files]
    for k, group in enumerate(groups):
        try:
            answer = run_chain(steps, [load_file(path, alpha) for path in group], k)
        except SaccadeError as error:
            problem = UsageError(f"{group[0]}: {error}") if isinstance(error, UsageError) and len(group) == 1 else error
            if failed is None:
                raise problem from None
            problems.append(problem)
            continue
        yield ", ".join(group), _plain(answer)
    if problems and failed is not None:
        _tell(problems, len(groups), failed)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


# --------------------------------------------------------------------------------------------------------------- sheets


def parse_over(name: str, over: str) -> tuple[str, list[Any]]:
    """The parameter and its values: ``sigma=0.5:5:10`` (ten from 0.5 to 5), ``border=wrap,reflect``, or with ``;`` between values that
    hold commas or colons: ``size=10,10;20,20``, ``kernel=mean:3;mean:5``.

    Raises:
        UsageError: what is given cannot be read.
    """
    key, equals, text = over.partition("=")
    if not equals or not text:
        raise UsageError(f"--over takes NAME=FIRST:LAST:COUNT or NAME=VALUE,VALUE,..., not {over!r}")
    parameter = operation_named(name).parameter(key)
    if ";" in text:
        return key, [parameter.read(part) for part in text.split(";") if part]
    parts = text.split(":")
    if len(parts) == 1:
        return key, [parameter.read(part) for part in text.split(",")]
    try:
        first, last, count = float(parts[0]), float(parts[1]), int(parts[2])
    except (ValueError, IndexError):
        raise UsageError(f"--over takes NAME=FIRST:LAST:COUNT, not {over!r}") from None
    if len(parts) != 3 or not 1 <= count <= 400:
        raise UsageError(f"--over takes NAME=FIRST:LAST:COUNT with a count of 1 to 400, not {over!r}")
    if not (math.isfinite(first) and math.isfinite(last)):
        raise UsageError(f"--over takes finite numbers, not {over!r}")
    numbers = np.linspace(first, last, count)
    try:
        return key, [parameter.check(float(x)) for x in numbers]
    except UsageError:
        whole = dict.fromkeys(round(float(x)) for x in numbers)
        return key, [parameter.check(x) for x in whole]


def contact_sheet(step: Step, key: str, over: Sequence[Any], image: np.ndarray, *, cell: int = 240, columns: int = 0) -> Any:
    """A Pillow picture: the image, then what the operation makes of it for each value of a parameter, labelled."""
    from saccade.types import drawing

    entry = step.operation
    if entry.inputs != 1 or entry.gives != "image":
        raise UsageError(f"a sheet shows operations that make one image of one image, which {step.name} does not")
    pictures = [drawing.caption(_shown(image, cell), "input")]
    for value in over:
        result = entry.function(image, **{**step.arguments, key: value})
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        pictures.append(drawing.caption(_shown(result, cell), one_line(f"{key}={text}", 40)))
    return drawing.sheet(pictures, cell=cell + 30, columns=columns)


def _shown(image: np.ndarray, cell: int) -> Any:
    """An RGB Pillow picture of an image, its longer side ``cell`` pixels; alpha over white."""
    from PIL import Image

    image = viewable(image)
    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if picture.mode in ("LA", "RGBA"):
        plain = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(plain, picture.convert("RGBA"))
    factor = cell / max(picture.size)
    how = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
    return picture.convert("RGB").resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), how)


def histogram_picture(image: np.ndarray, bins: int = 256, size: tuple[int, int] = (360, 640)) -> Any:
    """A Pillow picture of an image's histogram: one grey area, or three coloured ones laid over each other; size is (height, width)."""
    from PIL import Image, ImageDraw

    from saccade.types import drawing

    height, width = size
    counts = np.atleast_2d(operation_named("histogram").function(image, bins=bins))
    left, right, top, bottom = 70, width - 20, 30, height - 45
    most = max(int(counts.max()), 1)
    canvas = np.full((height, width, 3), 255.0)
    colors = [(90, 90, 90)] if len(counts) == 1 else [(220, 50, 50), (40, 150, 60), (60, 80, 220)]
    at = np.arange(right - left) * bins // (right - left)
    rows = np.arange(top, bottom)[:, None]
    for row, color in zip(counts, colors, strict=True):
        columns = row[at] if bins <= right - left else np.maximum.reduceat(row, at)
        filled = rows >= bottom - np.ceil(columns / most * (bottom - top))
        area = canvas[top:bottom, left:right]
        area[filled] = area[filled] * 0.5 + np.array(color) * 0.5
    picture = Image.fromarray(canvas.astype(np.uint8))
    draw, face, ink = ImageDraw.Draw(picture), drawing.font(13), (60, 60, 60)
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=ink)
    last = int(white(image)) if image.dtype.kind == "u" else 1
    for part in (0, 0.25, 0.5, 0.75, 1):
        x = left + part * (right - left - 1)
        draw.line([(x, bottom), (x, bottom + 5)], fill=ink)
        draw.text((x, bottom + 8), f"{round(part * last)}" if last > 1 else f"{part:g}", fill=ink, font=face, anchor="ma")
    for part in (0.5, 1):
        y = bottom - part * (bottom - top)
        draw.line([(left - 5, y), (left, y)], fill=ink)
        draw.text((left - 8, y), f"{round(part * most):,}", fill=ink, font=face, anchor="rm")
    draw.text((left, 8), f"{image.shape[1]} x {image.shape[0]} pixels, {bins} bins", fill=ink, font=face)
    return picture


def listing() -> list[dict[str, Any]]:
    """Every operation: row, name, summary, formula, parameters with types and defaults, what becomes of alpha, what it gives."""
    return [
        {
            "row": entry.row,
            "name": entry.name,
            "summary": entry.summary,
            "formula": entry.formula,
            "parameters": [{"name": p.name, "type": p.kind} | ({} if p.required else {"default": p.default}) for p in entry.parameters],
            "images": entry.inputs or "any",
            "gives": entry.gives,
            "alpha": entry.alpha,
        }
        for entry in operations().values()
    ]
