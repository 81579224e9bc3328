"""Zip and tar archives read in place: ``load_data("blood.zip")`` is as the folder inside it.

An archive gets a shadow folder in the cache (:func:`~saccade.data.download.cache_dir`), which the formats read as any folder.
Annotations and other files that are no images are unpacked into it. An image of a zip or a plain tar stays in the archive: the shadow
holds a stub, a file of a hundred bytes that says where in the archive its bytes stand, and :func:`saccade.data.images.file_bytes` fetches
them when the image is decoded. So a data set of 100 GB needs no second 100 GB, opening costs a stub an image once, and loader workers
and later processes use the same shadow. A compressed tar (gz, bz2, xz) has no random access: its images are unpacked too, which is
reported.

The shadow is keyed by path, size and time of the archive; when these change, it is made anew and the old one is removed, and stubs of
the old one give an error. A single folder at the top of the archive is the root (unless it is named like a split).

What an archive may not do. Everything below is checked on the stated sizes before anything is written (in a compressed tar while it is
unpacked, where nothing remains when it fails), and once more on the bytes themselves:

* unpacked files of more than 20 GB, half of the free disk, or 200 times the archive (256 MB are always allowed); over 2 million members;
  an encrypted member, or an unpacked one whose bytes do not fit its checksum: the archive is refused.
* absolute names, ``..``, links, devices, sparse files, names that are not UTF-8, too long or too deep, names that stand twice (also ``a``
  and ``A`` where the disk does not tell them apart; the first is read), unknown compression, an image of more than 256 MB: the member is
  skipped and reported. Archives inside are not opened, which is reported.
* hidden files and ``__MACOSX`` are left out, as in folders.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

from saccade.data.download import cache_dir, safe_parts
from saccade.data.formats.files import is_split
from saccade.data.formats.scan import Problems
from saccade.data.images import STUB, is_image_name
from saccade.types.errors import DataError, SaccadeError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

MAX_BYTES, MAX_RATIO, ALWAYS_BYTES = 20 * 2**30, 200, 256 * 2**20
"""Most bytes that are unpacked: this many, this many times the size of the archive, and what is allowed whatever its size."""

MAX_MEMBERS = 2_000_000
MAX_IMAGE = 256 * 2**20

_CHUNK = 2**20
_MAX_HEADER = 2**20  # longest name or extended header of a tar
_MAX_DEPTH = 64
_MOST_STUB = 4096
_XZ_MEMORY = 256 * 2**20
_STORED, _DEFLATED = 0, 8
_SKIPPED_ERRORS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of an archive.

    Attributes:
        name: as stated, with ``/``.
        kind: "file", "folder", or what it is instead ("a link").
        size: bytes of the file; packed: bytes it takes in the archive.
        offset: of its local header in a zip, of its data in a tar.
        method: 0 stored, 8 deflated; other numbers are not read.
        crc: CRC-32 of the bytes in a zip; None in a tar.
    """

    name: str
    kind: str
    size: int
    packed: int
    offset: int
    method: int = _STORED
    crc: int | None = None


@dataclass(frozen=True)
class Shadow:
    """The folder that stands for an archive: ``root`` is to be read; ``problems``: what was left out."""

    archive: Path
    files: Path
    root: Path
    problems: list[DataError]

    def named(self, error: SaccadeError) -> SaccadeError:
        """The error with the archive's name in place of the shadow's."""

        def real(text: str) -> str:
            return text.replace(str(self.files), str(self.archive))

        if isinstance(error, DataError):
            return DataError(real(error.path), real(error.problem), where=real(error.where), hint=real(error.hint))
        return type(error)(real(str(error)))


def is_archive(path: Path) -> bool:
    """Whether the path is a file named like an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def open_archive(path: Path) -> Shadow:
    """The shadow of an archive, made when there is none yet.

    Raises:
        DataError: no archive, broken, encrypted or too large; or the cache cannot be written.
    """
    path = Path(os.path.realpath(path))
    try:
        state = _state(path.stat())
        key = _hash(os.fsencode(path))
        home = _shadows() / f"{key}-{_hash(repr(state).encode())[:8]}"
        if not (home / "archive.json").is_file():
            _make(path, state, home)
            for old in _shadows().glob(f"{key}-*"):
                if old != home:
                    shutil.rmtree(old, ignore_errors=True)
        facts = _facts(str(home))
    except OSError as error:
        hint = "set SACCADE_CACHE to a folder that can be written, or unpack the archive" if error.filename != str(path) else ""
        raise DataError(path, f"cannot be opened: {error.strerror or error}", hint=hint) from None
    files = home / "files"
    return Shadow(path, files, files / facts["top"], [DataError(p, t, where=w, hint=h) for p, t, w, h in facts["problems"]])


@contextmanager
def shadow_of(path: Path) -> Iterator[Shadow]:
    """:func:`open_archive`; errors raised within the block name the archive in place of the shadow."""
    shadow = open_archive(path)
    try:
        yield shadow
    except SaccadeError as error:
        raise shadow.named(error) from None


def member_bytes(path: str | Path, content: bytes) -> tuple[bytes, str] | None:
    """The bytes that a stub stands for, and a name for messages; None when the file lies in no shadow.

    A stub names no archive, so that one from a hostile archive can lead to nothing but bytes of the same archive.

    Raises:
        DataError: the archive is gone, has changed, or is broken.
    """
    top, place = f"{_shadows()}{os.sep}", os.path.abspath(path)
    parts = place.removeprefix(top).split(os.sep)
    if not place.startswith(top) or len(parts) < 3 or parts[1] != "files":
        return None
    facts = _facts(top + parts[0])
    archive, name = facts["archive"], f"{facts['archive']}/{'/'.join(parts[2:])}"
    with _reading(archive, name):
        member = Member("", "file", **json.loads(content[len(STUB) :]))
        with open(archive, "rb") as file:
            if list(_state(os.fstat(file.fileno()))) != facts["state"]:
                raise DataError(archive, "has changed since the data were read", hint="read them again")
            if member.size > MAX_IMAGE:
                raise DataError(name, f"is larger than {MAX_IMAGE >> 20} MB", hint="unpack the archive")
            return b"".join(_pieces(file, member)), name


def member_size(path: str | Path) -> int | None:
    """Bytes of the image that a stub stands for; None for any other file."""
    if not os.path.abspath(path).startswith(f"{_shadows()}{os.sep}"):
        return None
    try:
        content = Path(path).read_bytes() if os.path.getsize(path) < _MOST_STUB else b""
        return int(json.loads(content[len(STUB) :])["size"]) if content.startswith(STUB) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --------------------------------------------------------------------------------------------------------------- the shadow


def _shadows() -> Path:
    return Path(os.path.abspath(cache_dir())) / "archives"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _facts(home: str) -> dict[str, Any]:
    """What stands in archive.json; a shadow is never changed, only replaced."""
    path = Path(home) / "archive.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        return facts
    except (OSError, ValueError) as error:
        raise DataError(path, f"cannot be read: {error}", hint="the shadow of an archive is broken or gone: read the data again") from None


def _make(archive: Path, state: tuple[int, int], home: Path) -> None:
    """Fill a new folder and rename it to ``home``: there is never half a shadow."""
    home.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
    try:
        files = work / "files"
        files.mkdir()
        problems = Problems(archive)
        with _reading(archive, str(archive)):
            _Filler(archive, files, problems).fill()
        if _state(archive.stat()) != state:
            raise DataError(archive, "has changed while it was read", hint="read it again when it is complete")
        facts = {
            "archive": str(archive),
            "state": state,
            "top": _top(files, archive),
            "problems": [(p.path, p.problem, p.where, p.hint) for p in problems.list()],
        }
        (work / "archive.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            work.rename(home)
        except OSError:
            if not (home / "archive.json").is_file():  # else another process was faster
                raise
            shutil.rmtree(work, ignore_errors=True)
        _facts.cache_clear()
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _top(files: Path, archive: Path) -> str:
    """The single folder at the top, which is then the root, or ""."""
    names = os.listdir(files)
    if not names:
        raise DataError(archive, "holds no file that can be read")
    return names[0] if len(names) == 1 and (files / names[0]).is_dir() and not is_split(names[0]) else ""


class _Filler:
    """Writes the stubs and the unpacked files of one archive, within the limits."""

    def __init__(self, archive: Path, folder: Path, problems: Problems) -> None:
        self.archive, self.folder, self.problems = archive, folder, problems
        self.written = 0
        self.unpacked_images = 0
        allowed = max(MAX_RATIO * archive.stat().st_size, ALWAYS_BYTES)
        free = shutil.disk_usage(folder).free // 2
        self.limit = min(MAX_BYTES, allowed, free)
        self.why = "half of the free disk" if self.limit == free else "200 times its size" if self.limit == allowed else "20 GB"
        self._folders: set[Path] = {folder}

    def fill(self) -> None:
        """Write everything."""
        with open(self.archive, "rb") as file:
            start = file.read(6)
            file.seek(0)
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                self._check(_zip_members(self.archive))
                self._write(file, _zip_members(self.archive))
            elif (packed := _compression(start)) is None:
                self._check(_tar_members(_Tar(file)))
                self._write(file, _tar_members(_Tar(file)))
            else:
                with _decompressed(file, packed) as raw:
                    stream = _Tar(raw, self)
                    self._write(stream, _tar_members(stream))
                    while stream.read(_CHUNK):  # to the checksum at the end
                        pass
                if self.unpacked_images:
                    self.problems.add(
                        "compressed tars", self.archive,
                        f"is a compressed tar, which has no random access: its {self.unpacked_images} images were unpacked into the cache "
                        f"({self.written / 1e6:.0f} MB)", hint="a zip or a plain tar is read in place",
                    )  # fmt: skip

    def _check(self, members: Iterable[Member]) -> None:
        """The limits, by what the members state."""
        total = 0
        for count, member in enumerate(members, 1):
            if count > MAX_MEMBERS:
                self._refuse_count()
            total += 0 if member.kind != "file" or is_image_name(member.name) else member.size
            if total + 4096 * count > self.limit:
                self.refuse()

    def refuse(self) -> None:
        """Raise: too much would be unpacked."""
        raise DataError(
            self.archive, f"unpacks to more than {self.limit / 1e6:.0f} MB ({self.why})", hint="unpack it by hand if you trust it"
        )

    def _refuse_count(self) -> None:
        raise DataError(self.archive, f"holds more than {MAX_MEMBERS} members", hint="unpack it by hand if you trust it")

    def _write(self, file: BinaryIO | _Tar, members: Iterable[Member]) -> None:
        for count, member in enumerate(members, 1):
            if count > MAX_MEMBERS:
                self._refuse_count()
            target = self._target(member)
            if target is None:
                continue
            try:
                self._parent(target.parent)
                with open(target, "xb") as out:
                    if is_image_name(target.name) and not isinstance(file, _Tar):
                        fields = {k: v for k, v in asdict(member).items() if k not in ("name", "kind")}
                        out.write(STUB + json.dumps(fields).encode())
                    else:
                        self.unpacked_images += is_image_name(target.name)
                        for piece in _pieces(file, member):
                            self.written += len(piece)
                            if self.written > self.limit:  # headers may lie
                                self.refuse()
                            out.write(piece)
            except OSError as error:
                if error.errno not in _SKIPPED_ERRORS or error.filename is None:
                    raise
                what = (
                    "stands twice, or as a file and a folder"
                    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
                    else "is no usable name"
                )
                self._skip("names that cannot be used", member, what)

    def _target(self, member: Member) -> Path | None:
        """Where a file is written; None for what is not."""
        if member.kind == "folder":
            return None
        try:
            member.name.encode()
            parts = safe_parts(self.archive, member.name)
        except UnicodeEncodeError:
            self._skip("names that are not UTF-8", member, "has a name that is not UTF-8")
            return None
        except DataError as error:
            self.problems.add("names that leave the archive", self.archive, f"{error.problem}; skipped", hint=error.hint)
            return None
        if not parts or any(p.startswith(".") for p in parts) or parts[0] == "__MACOSX":
            return None
        if member.kind != "file":
            self._skip("members that are no files", member, f"is {member.kind}")
        elif is_image_name(parts[-1]) and member.size > MAX_IMAGE:
            self._skip("images that are too large", member, f"is an image of more than {MAX_IMAGE >> 20} MB")
        elif len(parts) > _MAX_DEPTH:
            self._skip("names that cannot be used", member, f"lies more than {_MAX_DEPTH} folders deep")
        elif member.method not in (_STORED, _DEFLATED):
            self._skip("members of unknown compression", member, f"is compressed by method {member.method}, which is not read")
        else:
            if parts[-1].lower().endswith(SUFFIXES):
                self.problems.add("archives inside", self.archive, f"the entry {member.name!r} is an archive itself; it is not opened")
            return self.folder.joinpath(*parts)
        return None

    def _skip(self, kind: str, member: Member, what: str) -> None:
        self.problems.add(kind, self.archive, f"the entry {member.name!r} {what}; skipped")

    def _parent(self, folder: Path) -> None:
        if folder not in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)


# -------------------------------------------------------------------------------------------------------------- bytes of members


def _pieces(file: BinaryIO | _Tar, member: Member) -> Iterator[bytes]:
    """The bytes of a member; DataError when they are not as many as stated, or their sum is wrong."""
    file.seek(member.offset)
    if member.crc is not None:
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise DataError("", "is broken: no header stands where its table of contents says", where=member.name)
        file.seek(member.offset + 30 + sum(struct.unpack("<2H", header[26:30])))
    rest, done, crc = member.packed, 0, 0
    inflate = zlib.decompressobj(-15) if member.method == _DEFLATED else None
    while rest > 0 and (piece := file.read(min(rest, _CHUNK))):
        rest -= len(piece)
        while piece:
            out = inflate.decompress(piece, _CHUNK) if inflate else piece
            piece = inflate.unconsumed_tail if inflate else b""
            done, crc = done + len(out), zlib.crc32(out, crc) if member.crc is not None else 0
            if done > member.size or (inflate and inflate.eof and (piece or rest)):
                break
            yield out
        if done > member.size:
            break
    if inflate and done <= member.size:
        out = inflate.flush()  # at most some kilobytes that the limit above held back
        done, crc = done + len(out), zlib.crc32(out, crc)
        yield out
    if rest > 0 and done < member.size:
        raise DataError("", "is truncated", where=member.name)
    if done != member.size or (member.crc is not None and crc != member.crc) or (inflate and not inflate.eof):
        raise DataError("", "is broken: a member's bytes are not as many as stated, or their sum is wrong", where=member.name)


@contextmanager
def _reading(archive: str | Path, name: str) -> Iterator[None]:
    """What parsers of broken bytes raise becomes a DataError that names ``name``; a full disk stays an OSError."""
    try:
        yield
    except DataError as error:
        if error.path:
            raise
        raise DataError(name, error.problem, where=error.where, hint=error.hint) from None
    except EOFError:
        raise DataError(name, "is truncated: the compressed data end too early", hint="copy or download it again") from None
    except OSError as error:
        if error.errno is None or (error.errno == errno.EINVAL and error.filename is None):  # of gzip; of a place before the start
            raise DataError(name, f"is broken: {error}") from None
        if isinstance(error, FileNotFoundError) and error.filename == str(archive):
            raise DataError(archive, "does not exist any more") from None
        raise
    except (
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise DataError(name, f"is broken: {error}") from None


# ------------------------------------------------------------------------------------------------------------------------ zip


def _zip_members(archive: Path) -> Iterator[Member]:
    """The entries of a zip's table of contents, one at a time (Python's zipfile holds a kilobyte of each)."""
    with open(archive, "rb") as file:
        size, start, shift = _zip_table(file, archive)
        end = start + shift + size
        file.seek(start + shift)
        number = 0
        while file.tell() < end:
            number += 1
            head = file.read(46)
            if len(head) < 46 or head[:4] != b"PK\x01\x02":
                raise DataError(archive, "is broken: its table of contents is not readable", where=f"entry {number}")
            fields = struct.unpack("<4s6H3L5H2L", head)
            flags, method, crc, packed, length = fields[3], fields[4], *fields[7:10]
            names, extras, comment = fields[10:13]
            system, mode, offset = fields[1] >> 8, fields[15] >> 16, fields[16]
            raw = file.read(names)
            extra = file.read(extras)
            file.seek(comment, 1)
            length, packed, offset = _zip64(extra, length, packed, offset)
            name = _zip_name(raw, flags)
            form = stat.S_IFMT(mode) if system == 3 else 0
            if name.endswith(("/", "\\")) or form == stat.S_IFDIR:
                kind = "folder"
            else:
                kind = "file" if form in (0, stat.S_IFREG) else "a link" if form == stat.S_IFLNK else "no regular file"
            if flags & 1 and kind == "file":
                raise DataError(archive, "is encrypted", where=name, hint="unpack it with its password")
            if method == _STORED and packed != length and kind == "file":
                raise DataError(archive, f"is broken: {packed} bytes are said to be {length}", where=name)
            yield Member(name, kind, length, packed, offset + shift, method, crc)


def _zip_table(file: BinaryIO, archive: Path) -> tuple[int, int, int]:
    """Size and place of the table of contents, and the number of bytes that stand before the zip."""
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 65557))
    base = file.tell()
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise DataError(
            archive, "is truncated: the zip's table of contents, which stands at its end, is missing", hint="copy or download it again"
        )
    disk, first, _, _, size, start = struct.unpack("<4x4H2L2x", tail[at : at + 22])
    position = base + at
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        file.seek(struct.unpack("<8xQ4x", tail[at - 20 : at])[0])
        position = file.tell()
        record = file.read(56)
        if len(record) < 56 or record[:4] != b"PK\x06\x06":
            raise DataError(archive, "is broken: its zip64 table of contents is missing")
        disk, first, size, start = struct.unpack("<16x2L16x2Q", record)
    if disk or first:
        raise DataError(archive, "is one part of a zip in several parts", hint="join the parts")
    if size + start > position:
        raise DataError(archive, "is broken: its table of contents lies outside the file")
    return size, start, position - size - start


def _zip64(extra: bytes, length: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and place with the 64-bit numbers that stand in the extra field."""
    values = [length, packed, offset]
    if 0xFFFFFFFF in values:
        at = 0
        while at + 4 <= len(extra):
            kind, size = struct.unpack("<2H", extra[at : at + 4])
            if kind == 1:
                numbers = iter(struct.unpack(f"<{size // 8}Q", extra[at + 4 : at + 4 + size // 8 * 8]))
                values = [next(numbers, v) if v == 0xFFFFFFFF else v for v in values]
                break
            at += 4 + size
    return values[0], values[1], values[2]


def _zip_name(raw: bytes, flags: int) -> str:
    """UTF-8, as stated or not (many tools forget to state it), else DOS's code page 437."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape") if flags & 0x800 else raw.decode("cp437")


# ------------------------------------------------------------------------------------------------------------------------ tar


class _Tar:
    """A tar's bytes for tarfile: no single read may be huge, and a compressed one moves forward only, within the limit.

    Args:
        raw: the file, or the decompressed stream.
        filler: of a compressed tar; its limit holds for everything that is decompressed.
    """

    def __init__(self, raw: BinaryIO, filler: _Filler | None = None) -> None:
        self.raw, self.filler = raw, filler
        self.position = 0
        self.last = b""
        if filler is None:
            raw.seek(0)

    def tell(self) -> int:
        """Place in the bytes of the tar."""
        return self.raw.tell() if self.filler is None else self.position

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end."""
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        self.last = self.raw.read(size)
        self.position += len(self.last)
        if self.filler is not None and self.position > self.filler.limit:
            self.filler.refuse()
        return self.last

    def seek(self, target: int, whence: Literal[0] = 0) -> int:
        """To a place; a compressed stream is read up to it."""
        if self.filler is None:
            return self.raw.seek(target)
        if target < self.position:
            raise tarfile.ReadError("a place before the current one")
        while self.position < target and self.read(min(target - self.position, _CHUNK)):
            pass
        return self.position


def _tar_members(stream: _Tar) -> Iterator[Member]:
    try:
        tar = tarfile.open(fileobj=stream, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
    except tarfile.ReadError as error:
        raise DataError("", f"is neither zip nor tar: {error}") from None
    while (item := tar.next()) is not None:
        tar.members.clear()  # a million of them take a gigabyte
        if item.isdir():
            kind = "folder"
        elif item.issparse():
            kind = "a sparse file"
        else:
            kind = "file" if item.isreg() else "a link" if item.issym() or item.islnk() else "no regular file"
        yield Member(item.name, kind, item.size, item.size, item.offset_data)
    # tarfile takes a broken header, and a single block of zeros, for the end; the real end are two blocks of zeros, or none
    if stream.last.strip(b"\0") or (stream.last and stream.read(512).strip(b"\0")):
        raise DataError("", "is broken or truncated: no header stands where one should", where=f"byte {stream.tell() - len(stream.last)}")


def _compression(start: bytes) -> str | None:
    """By the first bytes "gz", "bz2" or "xz", else None."""
    magics = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
    return next((name for magic, name in magics.items() if start.startswith(magic)), None)


@contextmanager
def _decompressed(file: BinaryIO, kind: str) -> Iterator[BinaryIO]:
    if kind == "gz":
        opened: Any = gzip.GzipFile(fileobj=file, mode="rb")
    else:
        opened = bz2.BZ2File(file) if kind == "bz2" else io.BufferedReader(_Xz(file), _CHUNK)
    with opened:
        yield opened


class _Xz(io.RawIOBase):
    """xz with a limit on the memory that its header may ask for, which ``lzma.open`` has not."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._decoder = file, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Decompressed bytes of one stream after the other; 0 at the end."""
        while True:
            data = b""
            if self._decoder.eof:
                data = (self._decoder.unused_data or self._file.read(_CHUNK)).lstrip(b"\0")  # streams may be padded
                if not data:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            elif self._decoder.needs_input:
                data = self._file.read(_CHUNK)
                if not data:
                    raise EOFError
            out = self._decoder.decompress(data, len(buffer))
            if out:
                buffer[: len(out)] = out
                return len(out)
