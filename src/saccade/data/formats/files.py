"""What the formats of boxes share: images found on disk, split names, guarded JSON and text, images written out."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.images import IMAGE_SUFFIXES, STUB, file_bytes, image_size
from saccade.data.records import Record, inside
from saccade.types.errors import DataError, UsageError

MAX_TEXT = 64 * 2**20
"""Largest XML, label or list file that is read, in bytes."""

_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
_SPLIT_WORDS |= {"test": "test", "testing": "test", "trainval": "trainval"}
_SPLIT_ORDER = ("train", "val", "trainval", "test")


def split_name(text: str) -> str:
    """The usual name of a split: ``train2017`` is train, ``valid`` is val; another name stays as it is.

    >>> split_name("val2017"), split_name("Validation"), split_name("fold1")
    ('val', 'val', 'fold1')
    """
    return _SPLIT_WORDS.get(re.sub(r"[-_]?\d{4}$", "", text.strip().lower()), text.strip())


def is_split(text: str) -> bool:
    """Whether a folder or file stem is a usual name of a split."""
    return split_name(text) in _SPLIT_ORDER


def split_rank(name: str) -> tuple[int, str]:
    """Sort key: train, val, trainval, test, then the others by name."""
    return (_SPLIT_ORDER.index(name) if name in _SPLIT_ORDER else len(_SPLIT_ORDER), name)


def read_text(path: Path, *, limit: int = MAX_TEXT) -> str:
    """A text file as UTF-8 (a byte order mark is dropped); DataError when unreadable, too large or binary."""
    try:
        if path.stat().st_size > limit:
            raise DataError(path, f"is larger than {limit >> 20} MB: not a text of annotations")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(path, "is not UTF-8 text", where=f"byte {error.start}") from None
    if "\x00" in text:
        raise DataError(path, "is binary, not text")
    return text


def read_json(path: Path, *, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """A JSON file; DataError with line and column when it is broken, nested beyond reason or not text.

    ``hook`` gives what stands for every JSON object as soon as it is read.
    """
    try:
        return json.loads(path.read_bytes(), object_hook=hook)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise DataError(path, f"is not JSON: {error.msg}", where=f"line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise DataError(path, "is nested too deeply to be annotations") from None
    except (ValueError, MemoryError) as error:  # bad encoding, a number of thousands of digits
        raise DataError(path, f"is not usable JSON: {error}") from None


def read_xml(path: Path, *, limit: int = MAX_TEXT) -> Element:
    """The root of an XML file, read without entities or external files; DataError when unreadable, too large, broken or asking for them."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        if path.stat().st_size > limit:
            raise DataError(path, f"is larger than {limit >> 20} MB: not one image's annotation")
        return fromstring(path.read_bytes())
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    except DefusedXmlException as error:
        raise DataError(path, f"asks for XML entities or external files, which are refused ({type(error).__name__})") from None
    except DataError:
        raise
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError) as error:  # ParseError is a SyntaxError
        raise DataError(path, f"is not XML: {error}") from None


def shown(value: object, limit: int = 80) -> str:
    """A value of a file for a message: its repr, cut."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


class ImageFinder:
    """Finds the images that annotations name, inside the root only. A folder is listed once, so a look-up costs a microsecond.

    Args:
        root: the data root.
        folders: where to look, relative to the root, the best first; those that do not exist are left out.
    """

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        self.root = root
        self.folders = [f for f in dict.fromkeys(folders) if (root / f).is_dir()]
        self._cache: dict[tuple[str, str], tuple[str, dict[str, bool], DataError | None]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def find(self, name: object, *, source: str | Path, where: str = "") -> str | None:
        """Path relative to the root; None when no folder has the file; DataError when the name leaves the root."""
        if not isinstance(name, str) or not name.strip() or "\x00" in name:
            raise DataError(source, f"holds an unusable file name {shown(name)}", where=where)
        parent, _, base = name.replace("\\", "/").rpartition("/")
        outside = None
        for folder in self.folders:
            prefix, files, error = self._list(folder, parent, source, where)
            if error is not None:
                outside = DataError(source, error.problem, where=where, hint=error.hint)
            elif base in files:
                if files[base]:
                    return prefix + base
                inside(self.root, prefix + base, source=source, where=where)
        if outside is not None:
            raise outside
        return None

    def by_stem(self, stem: str) -> str | None:
        """The image file with this stem, whatever its suffix; of several the first by name."""
        for folder in self.folders:
            prefix, files, error = self._list(folder, "", folder, "")
            if folder not in self._stems:
                table: dict[str, list[str]] = {}
                for name in sorted(n for n, safe in files.items() if safe):
                    head, suffix = os.path.splitext(name)
                    if suffix.lower() in IMAGE_SUFFIXES:
                        table.setdefault(head, []).append(name)
                self._stems[folder] = table
            if error is None and stem in self._stems[folder]:
                return prefix + self._stems[folder][stem][0]
        return None

    def _list(self, folder: str, parent: str, source: str | Path, where: str) -> tuple[str, dict[str, bool], DataError | None]:
        """Prefix, file names (True: a plain file, or a link that stays inside) and what is wrong with the folder."""
        key = (folder, parent)
        if key not in self._cache:
            place = os.path.join(folder, parent)
            try:
                if place:
                    inside(self.root, place, source=source, where=where)
                path = self.root / place
                prefix = os.path.normpath(place).replace(os.sep, "/") + "/" if place and os.path.normpath(place) != "." else ""
                files = {}
                if len(parent) < 4096 and path.is_dir():
                    with os.scandir(path) as entries:
                        for entry in entries:
                            if entry.is_symlink():
                                files[entry.name] = stays_inside(Path(entry.path), self.root)
                            elif entry.is_file():
                                files[entry.name] = True
                self._cache[key] = (prefix, files, None)
            except DataError as error:
                self._cache[key] = ("", {}, error)
            except (OSError, ValueError) as error:
                self._cache[key] = ("", {}, DataError(source, f"names a folder that cannot be read: {error}", where=where))
        return self._cache[key]


def stays_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies below the root."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


# ------------------------------------------------------------------------------------------------------------- writing


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A new folder that becomes ``out`` when the block ends well, and vanishes when it fails: nothing half-written."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder: name a new one")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def unique_records(dataset: Dataset) -> list[tuple[int, Record]]:
    """(number in the index, record) of a data set, each once, in order."""
    return [(i, dataset.index.records[i]) for i in dict.fromkeys(dataset.indices.tolist())]


def splits_of(dataset: Dataset) -> dict[str, list[int]]:
    """Numbers in the index by split, as they are to be written; images of no split under "".

    The names are fit for files: a split called ``../x`` does not leave the folder.
    """
    numbers = list(dict.fromkeys(dataset.indices.tolist()))
    if dataset.split:
        return {_file_word(dataset.split): numbers}
    chosen = set(numbers)
    out = {name: [i for i in members.tolist() if i in chosen] for name, members in dataset.index.splits.items()}
    out = {_file_word(name): members for name, members in out.items() if members}
    rest = chosen.difference(*out.values())
    if rest:
        out[""] = [i for i in numbers if i in rest]
    return out


def _file_word(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".") or "_"


def file_names(dataset: Dataset, *, flat: bool) -> dict[int, str]:
    """A file name for every image of the data set, unique without its suffix and without regard to case.

    ``flat`` drops the folders; a name that is taken gets its folders, then a number. Images of a reader become PNG.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    for number, record in unique_records(dataset):
        path = record.path if dataset.index.reader is None else re.sub(r"[^\w.-]+", "_", record.image_id) + ".png"
        path = "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", ".", ".."))
        choices = [path.rpartition("/")[2], path.replace("/", "_")] if flat else [path]
        stem, suffix = os.path.splitext(choices[-1])
        for choice in [*choices, *(f"{stem}_{k}{suffix}" for k in range(2, len(taken) + 3))]:
            key = os.path.splitext(choice)[0].lower()
            if key and key not in taken:
                taken.add(key)
                names[number] = choice
                break
    return names


def copy_image(dataset: Dataset, record: Record, target: Path) -> None:
    """The image's bytes as they are; a PNG of the pixels when a reader makes them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if dataset.index.reader is not None:
        from PIL import Image

        Image.fromarray(np.asarray(dataset.index.reader.image(record))).save(target, format="PNG")
        return
    copy_file(dataset.path(record), target)


def copy_file(source: Path, target: Path) -> None:
    """An image or mask file's bytes as they are, also out of an archive that is read in place; DataError when that fails."""
    try:
        with open(source, "rb") as file:
            stub = file.read(len(STUB)) == STUB
        if stub:
            target.write_bytes(file_bytes(source))
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise DataError(source, f"cannot be copied: {error.strerror or error}") from None


def image_hw(dataset: Dataset, record: Record) -> tuple[int, int]:
    """(H, W) of a record's image: as stated, else from the file's header or the reader."""
    if record.size is not None:
        return record.size
    if dataset.index.reader is not None:
        return np.asarray(dataset.index.reader.image(record)).shape[:2]  # type: ignore[return-value]
    return image_size(dataset.path(record))


def count_losses(dataset: Dataset, title: str, keeps: set[str]) -> list[str]:
    """What a format cannot hold, in words with counts. ``keeps``: of label, boxes, crowd, segments, keypoints, mask, captions."""
    counts: dict[str, int] = {}
    for _, r in unique_records(dataset):
        found = {
            "label": int(r.label is not None),
            "boxes": 0 if r.boxes is None else len(r.boxes),
            "crowd": 0 if r.iscrowd is None else int(np.sum(r.iscrowd)),
            "segments": sum(s is not None for s in r.segments or ()),
            "keypoints": 0 if r.keypoints is None or not r.keypoints.size else int((r.keypoints[..., 2] > 0).any(-1).sum()),
            "mask": int(r.mask is not None),
            "captions": len(r.captions or ()),
        }
        for key, value in found.items():
            counts[key] = counts.get(key, 0) + value
    words = {
        "label": "labels of whole images", "boxes": "boxes", "crowd": "crowd flags", "segments": "outlines of objects",
        "keypoints": "objects' key points", "mask": "class masks", "captions": "captions",
    }  # fmt: skip
    return [f"{counts[k]} {words[k]} are lost: {title} has no place for them" for k in words if k not in keeps and counts.get(k)]


def split_losses(splits: Iterable[str], twice: int = 0) -> list[str]:
    """What is lost of the splits, in words.

    Args:
        splits: names in a format that knows splits by their folders only; nothing where any name can be written.
        twice: images of several splits that are written with the first.
    """
    other = [name for name in splits if name and not is_split(name)]
    lost = [f"the splits {', '.join(other)} are lost: only train, val, trainval, test have folders"] if other else []
    return lost + ([f"{twice} images of several splits stand in the first of them only"] if twice else [])


def unique_names(names: dict[int, str]) -> list[str]:
    """Class names by ascending id; a name that two ids share gets the id behind it."""
    counts, taken = Counter(names.values()), set(names.values())
    out = []
    for i in sorted(names):
        name = names[i]
        if counts[name] > 1:
            while name in taken:
                name += f" ({i})"
            taken.add(name)
        out.append(name)
    return out


def shorten(values: np.ndarray, digits: int = 4) -> np.ndarray:
    """float64 values that read back as the same float32, with few digits where that is possible."""
    exact = np.asarray(values, dtype=np.float64)
    rounded = np.round(exact, digits)
    return np.where(rounded.astype(np.float32) == exact.astype(np.float32), rounded, exact)
