"""Where the named sets lie, and how they come there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.data.download import cache_dir, download, extract, is_offline
from saccade.types.errors import DataError, UsageError

if TYPE_CHECKING:
    from saccade.data.sets import NamedSet


def locate(name: str, info: NamedSet) -> Path | None:
    """The set's folder: under SACCADE_DATA, else in the cache; None when it is in neither."""
    data = os.environ.get("SACCADE_DATA")
    places = [Path(data).expanduser() / info.folder] if data else []
    return next((p for p in [*places, cache_dir() / "sets" / name] if p.is_dir() and any(p.iterdir())), None)


def fetch(name: str, info: NamedSet, *, offline: bool | None, progress: bool) -> Path:
    """Download a set into the cache, all or nothing; returns its folder."""
    folder = cache_dir() / "sets" / name
    sources = _sources(info)
    if is_offline(offline) and not all(urls[0].startswith("file:") for urls, _ in sources):
        raise UsageError(
            f"offline: set:{name} is not here; put it at {folder} (or set SACCADE_DATA to a folder with {info.folder}/), "
            f"or allow the network to fetch {', '.join(urls[0] for urls, _ in sources)}"
        )
    downloads = cache_dir() / "downloads" / name
    unchecked = folder.with_name(f".{name}.unchecked")
    shutil.rmtree(unchecked, ignore_errors=True)
    files = [_first(urls, downloads, md5, offline, progress) for urls, md5 in sources]
    try:
        if len(files) == 1:
            extract(files[0], unchecked, inner=info.inner)
        else:
            unchecked.mkdir(parents=True)
            for file in files:
                shutil.copyfile(file, unchecked / file.name)
        _check(name, info, unchecked)
        shutil.rmtree(folder, ignore_errors=True)
        unchecked.rename(folder)
    except BaseException:
        shutil.rmtree(unchecked, ignore_errors=True)
        shutil.rmtree(downloads, ignore_errors=True)  # or the same broken archive would be taken again
        raise
    shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _sources(info: NamedSet) -> list[tuple[list[str], str]]:
    """(addresses to try in turn, md5) of every file; torchvision's constants where the table says so."""
    if not info.url.startswith("torchvision:"):
        return [([info.url], info.md5)]
    from torchvision import datasets

    source = getattr(datasets, info.url.partition(":")[2])
    if hasattr(source, "resources"):
        return [([f"{mirror.rstrip('/')}/{name}" for mirror in source.mirrors], md5) for name, md5 in source.resources]
    # the Python version of CIFAR-10 is a pickle, which is never read; the binary version lies beside it
    return [([source.url.replace("-python.tar.gz", "-binary.tar.gz")], info.md5)]


def _first(urls: list[str], folder: Path, md5: str, offline: bool | None, progress: bool) -> Path:
    """The file from the first address that gives it."""
    for k, url in enumerate(urls):
        try:
            return download(url, folder / url.rpartition("/")[2], md5=md5, offline=offline, progress=progress)
        except DataError:
            if k + 1 == len(urls):
                raise
    raise AssertionError("a set has an address")


def _check(name: str, info: NamedSet, folder: Path) -> None:
    for pattern, expected in info.counts.items():
        found = sum(1 for _ in folder.glob(pattern))
        if found != expected:
            raise DataError(
                f"set:{name}", f"the download holds {found} files {pattern}, expected {expected}", hint="the source has changed"
            )
    if info.manifest is not None:
        found_hash = manifest(folder, info.manifest[0])
        if found_hash != info.manifest[1]:
            raise DataError(f"set:{name}", f"the download's contents hash to {found_hash[:12]}, expected {info.manifest[1][:12]}",
                            hint="the source has changed")  # fmt: skip


def manifest(folder: Path, patterns: Iterable[str]) -> str:
    """SHA-256 over (relative name, NUL, SHA-256 of the bytes) of all matching files, sorted by name."""
    names = {p.relative_to(folder).as_posix(): p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode() + b"\x00" + hashlib.sha256(names[name].read_bytes()).digest())
    return digest.hexdigest()
