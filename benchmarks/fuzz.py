"""Mutated files against every reader and every image decoder: nothing but data or a DataError may come out.

python -m benchmarks.fuzz [--count 200000] [--format NAME] [--seed 0] [--save FOLDER]

Seeds are tiny valid sets written by saccade's own writers, the same in archives, and small pictures in every image format that is
read. Each case takes one file of a seed, flips bits, cuts, repeats and splices bytes, puts in huge numbers and hostile words, swaps
values of JSON (or numbers of any text), and reads the set and one of its first images. A case is a function of the seed and its
number. Cases run in a worker process whose address space may grow by 512 MB, each with an alarm of 5 seconds; a worker that dies or
stops answering is replaced.

Columns: cases; ``data`` and ``refused`` (a DataError); ``escapes`` (another exception), ``memory`` (MemoryError), ``hangs``,
``crashes`` (the process died); ``peak_mb`` (growth of the resident memory), ``seconds``. Files that got through are saved in ``--save``.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from benchmarks.common import write_csv
from saccade.data import images
from saccade.data.dataset import Dataset
from saccade.data.formats import FORMATS, format_module, read_data, write_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.data.strokes import pack
from saccade.types.errors import SaccadeError

EXTRA_MEMORY = 512 * 2**20
ALARM = 5.0
SILENCE = 30.0
"""Seconds without a finished case after which a worker is taken for dead (stuck in compiled code)."""

ARCHIVES = ("zip", "tar", "gztar", "bztar", "xztar")

CODECS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")

_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null')
_NASTY = [
    b"0", b"-1", b"1e308", b"-1e308", b"1e400", b"NaN", b"Infinity", b"-0.0", b"4294967296", b"9223372036854775808", b"9" * 400,
    b"0.1e-400", b'""', b"null", b"true", b"[]", b"{}", b'"../../../etc/passwd"', b'"/etc/passwd"', b'"a\\u0000b"', b'"\\ud800"',
    b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe", b"\x00", b"../../x", b"a" * 5000, b"<!DOCTYPE x [<!ENTITY y 'z'>]>", b"&y;", b"<a>" * 3000,
    b"\n" * 50, b",,,,", b"- - -",
]  # fmt: skip


class Hang(BaseException):
    """The alarm of a case."""


# --------------------------------------------------------------------------------------------------------------- seeds


def tiny(folder: Path, tasks: tuple[str, ...], *, grey: bool = False, size: tuple[int, int] = (24, 32)) -> Dataset:
    """Three images with all the truth that the tasks may have."""
    rng = np.random.default_rng(0)
    height, width = size
    records = []
    for k in range(3):
        pixels = rng.integers(0, 256, (height, width) if grey else (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        Image.fromarray(rng.integers(0, 2, size, dtype=np.uint8)).save(folder / f"{k}_mask.png")
        record = Record(f"{k}.png", str(k), size)
        if "classify" in tasks:
            record.label = k % 2
        if {"detect", "pose"} & set(tasks):
            record.boxes = np.array([[2, 3, 12, 15], [14, 4, 30, 20]], dtype=np.float32)
            record.labels = np.array([0, 1])
            record.segments = [[np.array([[x, y], [z, y], [z, w], [x, w]], dtype=np.float32)] for x, y, z, w in record.boxes]
        if "pose" in tasks:
            record.keypoints = np.array([[[3, 4, 2], [5, 6, 1], [0, 0, 0]], [[15, 5, 2], [16, 6, 2], [17, 7, 2]]], dtype=np.float32)
        if "segment" in tasks:
            record.mask = f"{k}_mask.png"
        if "caption" in tasks:
            record.captions = ["a cat", "a dog"]
        strokes = [rng.integers(0, 256, (count, 2)) for count in (4, 2)]
        record.extra = {"strokes": pack(strokes)}
        records.append(record)
    splits = {"train": np.array([0, 1]), "val": np.array([2])}
    names = ["nose", "left_eye", "right_eye"] if "pose" in tasks else []
    index = DataIndex(
        "tiny",
        folder,
        ["cat", "dog"],
        PackedRecords(records),
        splits,
        tasks,
        keypoint_names=names,
        keypoint_swap=[0, 2, 1] if names else [],
    )
    return Dataset(index)


def format_seeds(name: str, place: Path) -> list[Path]:
    """Folders with valid data of a format, one for each of its tasks and one for all of them."""
    if name == "bsds":
        return [bsds_seed(place)]
    module = format_module(name)
    out: list[Path] = []
    told = ""
    wanted = [module.TASKS, *((task,) for task in module.TASKS if len(module.TASKS) > 1)]
    for k, tasks in enumerate(wanted):
        for shape in ({}, {"grey": True}, {"size": (32, 32)}, {"grey": True, "size": (28, 28)}):
            source, target = place / f"source{k}", place / f"seed{k}"
            shutil.rmtree(source, ignore_errors=True)
            source.mkdir(parents=True)
            try:
                write_data(tiny(source, tasks, **shape), target, name)  # type: ignore[arg-type]
                read_data(target, name)
            except SaccadeError as error:
                shutil.rmtree(target, ignore_errors=True)
                told = str(error)
                continue
            out.append(target)
            break
        shutil.rmtree(source)
    if not out:
        print(f"  {name}: {told}", flush=True)
    return out


def bsds_seed(place: Path) -> Path:
    """BSDS500's layout, which saccade does not write: three images, each segmented by two people."""
    from scipy.io import savemat

    root = place / "seed"
    tiny(place, ())
    for k, split in enumerate(("train", "train", "val")):
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / "groundTruth" / split).mkdir(parents=True, exist_ok=True)
        Image.open(place / f"{k}.png").save(root / "images" / split / f"{k}.jpg")
        regions = np.repeat(np.arange(1, 5, dtype=np.uint16), 8)[None].repeat(24, 0)
        people = np.empty((1, 2), dtype=object)
        people[0, 0] = people[0, 1] = {"Segmentation": regions, "Boundaries": (regions > 2).astype(np.uint8)}
        savemat(root / "groundTruth" / split / f"{k}.mat", {"groundTruth": people}, do_compression=k > 0)
    return root


def image_seeds(codec: str) -> list[bytes]:
    """Small pictures of several modes in one image format; none where Pillow cannot write it."""
    if codec == "AVIF" and not features.check("avif"):
        return []
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 32), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    out = []
    pictures = [rgb, rgb.convert("L"), rgb.convert("P"), rgb.convert("RGBA"), rgb.convert("CMYK"), rgb.convert("1"), deep]
    for picture, options in [(p, {}) for p in pictures] + [(rgb, {"exif": exif}), (rgb, {"save_all": True, "append_images": [rgb]})]:
        for more in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}) if codec == "TIFF" else ({},):
            buffer = io.BytesIO()
            try:
                picture.save(buffer, format=codec, **options, **more)
            except (OSError, ValueError, TypeError, KeyError):
                continue
            out.append(buffer.getvalue())
    return out


# ------------------------------------------------------------------------------------------------------------ mutations


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four random changes; a gzip is changed inside half of the time."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.5:
        return gzip.compress(mutate(gzip.decompress(data), rng, others), 1)
    for _ in range(min(4, 1 + int(rng.expovariate(1.0)))):
        data = rng.choice(CHANGES)(data, rng, others)
    return data[: 2**20]


def _flip(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    out = bytearray(data)
    at = rng.randrange(len(out) + 1)
    value = rng.choice((b"\xff", b"\x00", b"\x7f", bytes([rng.randrange(256)]))) * rng.choice((1, 2, 4, 8))
    out[at : at + len(value)] = value
    return bytes(out)


def _cut(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.5 else data[:at] + data[at + rng.randrange(1, 40) :]


def _repeat(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    b = min(b, a + 2000)
    return data[:b] + data[a:b] * rng.choice((1, 1, 3, 50)) + data[b:]


def _splice(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_NASTY) + data[at:]


def _replace_value(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    tokens = list(_TOKEN.finditer(data[:20_000]))
    if not tokens:
        return _overwrite(data, rng, others)
    token = rng.choice(tokens)
    return data[: token.start()] + rng.choice(_NASTY) + data[token.end() :]


def _swap_values(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    tokens = list(_TOKEN.finditer(data[:20_000]))
    if len(tokens) < 2:
        return _flip(data, rng, others)
    a, b = sorted(rng.sample(range(len(tokens)), 2))
    first, second = tokens[a], tokens[b]
    return data[: first.start()] + second[0] + data[first.end() : second.start()] + first[0] + data[second.end() :]


CHANGES: list[Callable[[bytes, random.Random, list[bytes]], bytes]] = [
    _flip, _overwrite, _cut, _repeat, _splice, _insert, _replace_value, _replace_value, _swap_values,
]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- worker


class FormatCases:
    """The cases of one format: one file of a seed folder is rewritten, the set is read, the file is put back."""

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self.seeds = [(root, sorted(p for p in root.rglob("*") if p.is_file())) for root in format_seeds(name, place)]
        self.bytes = {path: path.read_bytes() for _, files in self.seeds for path in files}
        if self.seeds:
            self.others = list(self.bytes.values())

    def __bool__(self) -> bool:
        return bool(self.seeds)

    def prepare(self, rng: random.Random) -> Path:
        """Mutate one file; gives its path."""
        self.root, files = rng.choice(self.seeds)
        notes = [p for p in files if not images.is_image_name(p)]
        self.changed = rng.choice(notes) if notes and rng.random() < (0.85 if len(notes) > 1 else 0.5) else rng.choice(files)
        self.shown = rng.randrange(6)
        self.changed.write_bytes(mutate(self.bytes[self.changed], rng, self.others))
        return self.changed

    def run(self) -> None:
        """Recognise and read the set, and decode one of its first images."""
        if self.root.is_dir():
            format_module(self.name).sniff(self.root)
        data = Dataset(read_data(self.root, self.name))
        for problem in data.index.problems:
            assert "\n" not in str(problem)
        if len(data):
            with contextlib.suppress(SaccadeError):
                data[self.shown % min(3, len(data))]

    def restore(self) -> None:
        self.changed.write_bytes(self.bytes[self.changed])


class ArchiveCases(FormatCases):
    """The cases of one kind of archive: a VOC set in it, read in place."""

    def __init__(self, kind: str, place: Path) -> None:
        self.name = "voc"
        os.environ["SACCADE_CACHE"] = str(place / "cache")
        folder = format_seeds("voc", place)[0]
        self.root = Path(shutil.make_archive(str(place / "archive"), kind, folder))
        self.seeds = [(self.root, [self.root])]
        self.bytes = {self.root: self.root.read_bytes()}
        self.others = [p.read_bytes() for p in folder.rglob("*.xml")] + list(self.bytes.values())


class ImageCases:
    """The cases of one image format."""

    def __init__(self, codec: str, place: Path) -> None:
        self.seeds = image_seeds(codec)
        self.changed = place / "image"

    def __bool__(self) -> bool:
        return bool(self.seeds)

    def prepare(self, rng: random.Random) -> Path:
        """Write a mutated picture; gives its path."""
        self.changed.write_bytes(mutate(rng.choice(self.seeds), rng, self.seeds))
        self.reader = rng.choice((images.read_image, images.read_image, images.read_mask, images.read_colors, images.image_size))
        return self.changed

    def run(self) -> None:
        """Decode it in one of the ways."""
        self.reader(self.changed)

    def restore(self) -> None:
        """Nothing to put back."""


def _alarm(*_: Any) -> None:
    raise Hang


OUTCOMES = ("data", "refused", "escapes", "memory", "hangs", "crashes")


def work(cases: FormatCases | ImageCases, name: str, seed: int, start: int, stop: int, save: Path, state: Any) -> None:
    """Run cases from ``start`` to ``stop``. ``state``: the case at hand, growth of memory in KB, and counts by :data:`OUTCOMES`."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff speaks straight to stderr
    signal.signal(signal.SIGALRM, _alarm)
    told: Counter[str] = Counter()
    for number in range(3):  # what is imported late is imported before memory is limited
        _run_one(cases, name, f"warm {seed} {start}", number, save, told)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA_MEMORY, size + EXTRA_MEMORY))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(start, stop):
        state[0] = case
        outcome = _run_one(cases, name, str(seed), case, save, told)
        state[2 + OUTCOMES.index(outcome)] += 1
        if case % 100 == 0:
            state[1] = max(state[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)


def _run_one(cases: FormatCases | ImageCases, name: str, seed: str, case: int, save: Path, told: Counter[str]) -> str:
    path = cases.prepare(random.Random(f"{seed} {name} {case}"))
    outcome, trace = "data", ""
    signal.setitimer(signal.ITIMER_REAL, ALARM)
    try:
        cases.run()
    except SaccadeError:
        outcome = "refused"
    except Hang:
        outcome, trace = "hangs", traceback.format_exc(limit=-3)
    except MemoryError:
        outcome, trace = "memory", traceback.format_exc(limit=-3)
    except Exception:
        outcome, trace = "escapes", traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if trace:
        key = re.sub(r"line (\d+)|\d+", lambda m: m[0] if m[1] else "", trace.rsplit("\n", 2)[0])
        told[key] += 1
        if told[key] <= 3:
            kept = keep(save, name, case, path)
            if told[key] == 1:
                print(f"  {name}: {outcome}: {kept}\n{trace}", flush=True)
    cases.restore()
    return outcome


def keep(save: Path, name: str, case: int, path: Path) -> Path:
    """Save a file that got through."""
    save.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(path, save / f"{name.replace(':', '-')}-{case}-{path.name}"))


# --------------------------------------------------------------------------------------------------------------- parent


def run(name: str, count: int, seconds: float, seed: int, save: Path) -> dict[str, Any] | None:
    """All cases of a format ("voc"), a kind of archive ("archive:zip") or an image format ("image:PNG"); None without seeds."""
    start = time.perf_counter()
    until = start + seconds if seconds else float("inf")
    context = multiprocessing.get_context("fork")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        kind, _, what = name.partition(":")
        kinds = {"image": ImageCases, "archive": ArchiveCases}
        cases = kinds[kind](what, Path(folder)) if what else FormatCases(name, Path(folder))
        if not cases:
            return None
        state = context.Array("q", 2 + len(OUTCOMES), lock=False)
        first = 0
        while first < count and time.perf_counter() < until:
            worker = context.Process(target=work, args=(cases, name, seed, first, count, save, state), daemon=True)
            worker.start()
            last, quiet, stuck = -1, time.perf_counter(), False
            while worker.is_alive() and time.perf_counter() < until and not stuck:
                worker.join(0.5)
                if state[0] != last:
                    last, quiet = state[0], time.perf_counter()
                stuck = time.perf_counter() - quiet > SILENCE
            if worker.is_alive():
                worker.kill()
                worker.join()
            elif worker.exitcode == 0:
                break
            if stuck or time.perf_counter() < until:
                outcome = "hangs" if stuck else "crashes"
                state[2 + OUTCOMES.index(outcome)] += 1
                kept = keep(save, name, state[0], cases.prepare(random.Random(f"{seed} {name} {state[0]}")))
                cases.restore()
                print(f"  {name}: {outcome}: {kept}: exit code {worker.exitcode}", flush=True)
            first = state[0] + 1
    row = dict(zip(OUTCOMES, state[2:], strict=True))
    seconds = round(time.perf_counter() - start, 1)
    return {"format": name, "cases": sum(row.values()), **row, "peak_mb": round(state[1] / 1024, 1), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200_000, help="cases of each format")
    parser.add_argument("--format", action="append", help="only this one (voc, archive:zip, image:PNG); may be repeated")
    parser.add_argument("--seconds", type=float, default=0, help="stop a format after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path(tempfile.gettempdir()) / "saccade-fuzz", help="where files that got through go")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.format or [*FORMATS, *(f"archive:{kind}" for kind in ARCHIVES), *(f"image:{codec}" for codec in CODECS)]:
        row = run(name, arguments.count, arguments.seconds, arguments.seed, arguments.save)
        print(row if row else f"{name}: no seed", flush=True)
        rows += [row] if row else []
    print(write_csv("fuzz", rows, append=bool(arguments.format)))
    bad = sum(row[key] for row in rows for key in ("escapes", "memory", "hangs", "crashes"))
    if bad:
        raise SystemExit(f"{bad} cases got through; they are in {arguments.save}")


if __name__ == "__main__":
    main()
