"""Files from the web: resumed, checked, never silently, never half there. Archives opened without leaving their folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from saccade.types.errors import DataError, UsageError

MAX_ARCHIVE_BYTES = 50 * 2**30
MAX_ARCHIVE_FILES = 2_000_000

_SCHEMES = ("http", "https", "file")


class _Broken(Exception):
    """The transfer stopped in the middle; another try may go on from there."""


def cache_dir() -> Path:
    """Where downloads are kept: ``SACCADE_CACHE``, else ``saccade`` under ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if given := os.environ.get("SACCADE_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "saccade"


def is_offline(offline: bool | None = None) -> bool:
    """The argument, else whether SACCADE_OFFLINE is set to anything but 0, no, false."""
    if offline is not None:
        return offline
    return os.environ.get("SACCADE_OFFLINE", "").strip().lower() not in ("", "0", "no", "false")


def download(
    url: str, path: str | Path, *, sha256: str = "", md5: str = "", offline: bool | None = None, progress: bool = True,
    chunk: int = 1 << 20, tries: int = 4, wait: float = 1.0, timeout: float = 30.0,
) -> Path:  # fmt: skip
    """Fetch a file unless it is there and has the right checksum. Says on stderr what comes from where.

    The bytes go to ``path.part`` and are renamed when they are complete and checked; a transfer that broke off is taken up again
    where it stopped, within the call and in a later one, if the server can. A wrong checksum deletes what was fetched; when the
    transfer had been resumed, it starts once more from the first byte.

    Args:
        url: http, https or file address.
        path: the file to make.
        sha256: hex digest, or its first characters (at least 8); "" checks nothing.
        md5: full hex digest, for sources that publish only this.
        offline: True forbids the network; None asks SACCADE_OFFLINE. A file address is always read.
        progress: a bar on stderr, when that is a terminal.
        chunk: bytes read at a time.
        tries: attempts at a transfer that breaks off or a server that is busy; wait: seconds before the second, doubled each time.
        timeout: seconds without a byte.

    Raises:
        UsageError: offline; the message says what to put where. An address of another scheme.
        DataError: refused, not found, broken off, or a wrong checksum.
    """
    path = Path(path)
    scheme = urllib.parse.urlsplit(url).scheme.lower()
    if scheme not in _SCHEMES:
        raise UsageError(f"cannot download {url!r}: the address must begin with http, https or file")
    checks = _digests(sha256, md5)
    if path.is_file():
        if not checks or not _mismatch(path, checks):
            return path
        path.unlink()
    if scheme != "file" and is_offline(offline):
        raise UsageError(f"offline: {path.name} is not here; fetch {url} by hand and put it at {path}, or allow the network")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    resumed = part.is_file() and part.stat().st_size > 0
    for attempt in range(tries):
        try:
            _fetch(url, part, path, progress, chunk, timeout)
        except _Broken as error:
            if checks and part.is_file() and not _mismatch(part, checks):  # all is there, the server misstated the length
                os.replace(part, path)
                return path
            if attempt + 1 == tries:
                have = part.stat().st_size if part.is_file() else 0
                raise DataError(url, f"{error} ({tries} tries)", hint=f"{have} bytes are kept; run again to go on") from None
            resumed = resumed or (part.is_file() and part.stat().st_size > 0)
            time.sleep(wait * 2**attempt)
            continue
        wrong = _mismatch(part, checks)
        if not wrong:
            os.replace(part, path)
            return path
        part.unlink()
        if not resumed:
            break
        resumed = False
        _say(f"{path.name} does not fit its checksum after a resumed transfer; fetching it anew")
    raise DataError(
        url, f"has the wrong checksum: {wrong}", hint="the file was deleted; the source has changed or the transfer is tampered with"
    )


def _digests(sha256: str, md5: str) -> dict[str, str]:
    checks = {k: v.lower() for k, v in (("sha256", sha256), ("md5", md5)) if v}
    for kind, value in checks.items():
        if not re.fullmatch(r"[0-9a-f]{8,64}" if kind == "sha256" else r"[0-9a-f]{32}", value):
            raise UsageError(f"{value!r} is no {kind} checksum in hexadecimal digits")
    return checks


def _mismatch(path: Path, checks: dict[str, str]) -> str:
    """What differs, or ""."""
    for kind, expected in checks.items():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda kind=kind: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if not found.startswith(expected):
            return f"{kind} {found[: max(len(expected), 12)]}, expected {expected}"
    return ""


def _opener() -> urllib.request.OpenerDirector:
    """HTTP, HTTPS and files; a redirect to anything else fails."""
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(), urllib.request.HTTPErrorProcessor(), urllib.request.FileHandler(),
        urllib.request.UnknownHandler(), urllib.request.HTTPSHandler(),
    ]  # fmt: skip
    for handler in handlers:
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "saccade")]
    return opener


def _fetch(url: str, part: Path, path: Path, progress: bool, chunk: int, timeout: float) -> None:
    """One attempt: append to ``part`` what is missing. Raises _Broken when another attempt is worth it, DataError when not."""
    have = part.stat().st_size if part.is_file() and not url.startswith("file:") else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with _opener().open(request, timeout=timeout) as answer:
            start = _start(answer, have)
            length = answer.headers.get("Content-Length", "")
            total = start + int(length) if re.fullmatch(r"\d{1,18}", length) else None
            size = f" ({_bytes(total)})" if total is not None else ""
            _say(f"downloading {path.name}{size} from {url} to {path.parent}" + (f", from byte {start} on" if start else ""))
            with part.open("r+b" if start else "wb") as out:
                out.truncate(start)
                out.seek(start)
                for piece in _watched(answer, chunk, start, total, path.name, progress):
                    out.write(piece)
            done = part.stat().st_size
            if total is not None and done != total:
                raise _Broken(f"the transfer broke off at {done} of {total} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing beyond what is there, or another file: begin again
            part.unlink()
            raise _Broken("the server cannot go on from where the transfer stopped") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Broken(f"the server answers {error.code} {error.reason}") from None
        raise DataError(url, f"the server answers {error.code} {error.reason}", hint="check the address") from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        if isinstance(error.reason, (ConnectionError, TimeoutError)):
            raise _Broken(f"cannot be reached: {reason}") from None
        raise DataError(url, f"cannot be reached: {reason}") from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Broken(f"the transfer broke off: {error or type(error).__name__}") from None
    except OSError as error:
        raise DataError(part, f"cannot be written: {error.strerror or error}") from None
    except ValueError as error:  # a malformed address
        raise DataError(url, f"is no usable address: {error}") from None


def _start(answer: Any, have: int) -> int:
    """The byte at which the answer begins: ``have`` when the server resumes, else 0."""
    if not have or getattr(answer, "status", None) != 206:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) > have:
        raise _Broken("the server resumes at another byte")
    return int(match[1])


def _watched(answer: Any, chunk: int, start: int, total: int | None, name: str, progress: bool) -> Iterator[bytes]:
    """Pieces of the answer, with a progress bar on a terminal."""
    if not progress or not sys.stderr.isatty():
        yield from iter(lambda: answer.read(chunk), b"")
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=start)
        while piece := answer.read(chunk):
            bar.advance(task, len(piece))
            yield piece


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bytes(count: int) -> str:
    size, units = float(count), ["B", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


# ------------------------------------------------------------------------------------------------------------ archives


def extract(
    archive: str | Path, folder: str | Path, *, inner: str = "", max_bytes: int = MAX_ARCHIVE_BYTES, max_files: int = MAX_ARCHIVE_FILES
) -> Path:
    """Unpack a zip or tar (gz, bz2, xz) into a new folder, all or nothing.

    Args:
        archive: the file; its content decides what it is.
        folder: must not exist or be empty.
        inner: take only what lies below this folder of the archive, which becomes the root; ``*`` stands for any one name
            (``*/CamVid`` in a repository's archive).
        max_bytes: most bytes that come out, counted while unpacking; max_files: most entries.

    Raises:
        UsageError: the folder is not empty.
        DataError: no archive, broken, too large, or an entry that is a link, a device, or leaves the folder.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _unpack(archive, work, [p for p in inner.split("/") if p], max_bytes, max_files)
        work.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return folder


def _unpack(archive: Path, work: Path, inner: list[str], max_bytes: int, max_files: int) -> None:
    count = written = 0
    try:
        with _entries(archive) as entries:
            for name, is_folder, size, opened in entries:
                count += 1
                if count > max_files:
                    raise DataError(archive, f"holds more than {max_files} entries")
                parts = safe_parts(archive, name)
                if len(parts) < len(inner) or any(i not in ("*", p) for i, p in zip(inner, parts, strict=False)):
                    continue
                target = work.joinpath(*parts[len(inner) :])
                if is_folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                if target == work:
                    raise DataError(archive, f"the entry {name!r} is a file, not a folder")
                if written + size > max_bytes:
                    raise DataError(archive, f"unpacks to more than {_bytes(max_bytes)}", where=name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, target.open("xb") as out:
                    while piece := source.read(1 << 20):
                        written += len(piece)
                        if written > max_bytes:  # the header may lie
                            raise DataError(archive, f"unpacks to more than {_bytes(max_bytes)}", where=name)
                        out.write(piece)
    except DataError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OSError) as error:
        raise DataError(archive, f"cannot be unpacked: {error}") from None
    except Exception as error:  # lzma and struct errors of hostile bytes
        raise DataError(archive, f"cannot be unpacked: {type(error).__name__} {error}") from None
    if not any(work.iterdir()):
        raise DataError(archive, f"holds nothing below {'/'.join(inner)}" if inner else "is empty")


def safe_parts(archive: Path, name: str) -> list[str]:
    """Parts of an entry's name; DataError when it is absolute, climbs, or cannot be a file's."""
    text = name.replace("\\", "/")
    parts = [p for p in text.split("/") if p not in ("", ".")]
    if text.startswith("/") or ".." in parts or "\x00" in text or any(":" in p for p in parts[:1]):
        raise DataError(archive, f"the entry {name!r} leaves the folder", hint="this archive is not to be trusted")
    return parts


@contextmanager
def _entries(archive: Path) -> Iterator[Iterable[tuple[str, bool, int, Any]]]:
    """(name, is a folder, stated size, function that opens it) of every entry; links and devices raise."""
    if not archive.is_file():
        raise DataError(archive, "is not a file")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_entries(archive, zipped)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tarred:
            yield _tar_entries(archive, tarred)
    else:
        raise DataError(archive, "is neither zip nor tar")


def _zip_entries(archive: Path, zipped: zipfile.ZipFile) -> Iterator[tuple[str, bool, int, Any]]:
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(archive, f"the entry {info.filename!r} is a link or a device")
        yield info.filename, info.is_dir(), info.file_size, lambda info=info: zipped.open(info)


def _tar_entries(archive: Path, tarred: tarfile.TarFile) -> Iterator[tuple[str, bool, int, Any]]:
    def opened(member: tarfile.TarInfo) -> IO[bytes]:
        file = tarred.extractfile(member)
        assert file is not None  # regular files only
        return file

    for member in tarred:
        if not (member.isreg() or member.isdir()):
            raise DataError(archive, f"the entry {member.name!r} is a link or a device")
        yield member.name, member.isdir(), member.size, lambda member=member: opened(member)
