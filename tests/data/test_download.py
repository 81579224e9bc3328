"""Downloads from a server on this machine that resumes, breaks off, lies; and archives that try to leave their folder."""

import hashlib
import io
import os
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.data.download import cache_dir, download, extract, is_offline
from saccade.types.errors import DataError, UsageError

DATA = bytes(range(256)) * 4000  # 1 MB
SHA = hashlib.sha256(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        kind = self.path.strip("/")
        start = 0
        if kind in ("missing", "forbidden", "moved"):
            self.send_response({"missing": 404, "forbidden": 403, "moved": 302}[kind])
            self.send_header("Location", "ftp://127.0.0.1/x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "busy" and len(server.asked) < 3:
            self.send_error(503)
            return
        asked = self.headers.get("Range")
        if asked and kind not in ("plain",):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(DATA):
                self.send_error(416)
                return
            self.send_response(206)
            begin = start + 7 if kind == "shifted" else start
            self.send_header("Content-Range", f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}")
        else:
            self.send_response(200)
        body = DATA[start:]
        if kind == "corrupt":
            body = b"\xff" + body[1:]
        length = len(body) + 1000 if kind == "lies" else len(body)
        if kind != "endless":
            self.send_header("Content-Length", "many" if kind == "wordy" else str(length))
        self.end_headers()
        if kind in ("breaks", "plain") and len(server.asked) < server.good_from:
            body = body[: len(body) // 3]
            self.close_connection = True
        if kind in ("lies", "endless", "wordy"):
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.good_from = [], 3
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def get(server, kind, path, **options):
    return download(f"{server.url}/{kind}", path, offline=False, wait=0.0, **options)


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def test_T3_download_says_what_comes_from_where_and_checks_it(server, tmp_path, capsys):
    path = get(server, "file", tmp_path / "deep" / "a.bin", sha256=SHA)
    assert path.read_bytes() == DATA
    said = capsys.readouterr()
    assert said.out == ""
    assert f"downloading a.bin (1.0 MB) from {server.url}/file to {path.parent}" in said.err
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
    get(server, "file", path, sha256=SHA[:12])  # it is here already, a prefix is enough
    get(server, "file", path, md5=hashlib.md5(DATA).hexdigest())
    get(server, "file", path)
    assert len(server.asked) == 1
    path.write_bytes(b"changed")
    assert get(server, "file", path, sha256=SHA).read_bytes() == DATA  # a wrong file is fetched anew
    assert len(server.asked) == 2


def test_T3_download_goes_on_where_it_broke_off(server, tmp_path):
    path = get(server, "breaks", tmp_path / "a", sha256=SHA)
    assert path.read_bytes() == DATA
    third = len(DATA) // 3
    assert [r for _, r in server.asked] == [None, f"bytes={third}-", f"bytes={third + (len(DATA) - third) // 3}-"]


def test_T3_download_of_a_later_call_goes_on_too(server, tmp_path):
    server.good_from = 99
    with pytest.raises(DataError, match=r"broke off at \d+ of 1024000 bytes \(2 tries\)") as caught:
        get(server, "breaks", tmp_path / "a", tries=2)
    assert "run again to go on" in one_line(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.part"]
    server.good_from = 0
    assert get(server, "breaks", tmp_path / "a", sha256=SHA).read_bytes() == DATA
    assert server.asked[-1][1].startswith("bytes=")


def test_T3_download_from_a_server_without_ranges_begins_again(server, tmp_path):
    assert get(server, "plain", tmp_path / "a", sha256=SHA).read_bytes() == DATA


def test_T3_download_of_a_stale_part_starts_once_more(server, tmp_path):
    (tmp_path / "a.part").write_bytes(b"other bytes of an older version")
    assert get(server, "file", tmp_path / "a", sha256=SHA).read_bytes() == DATA
    assert [r is None for _, r in server.asked] == [False, True]
    (tmp_path / "b.part").write_bytes(DATA + b"longer than the file")  # the server answers 416
    assert get(server, "file", tmp_path / "b", sha256=SHA).read_bytes() == DATA


@pytest.mark.parametrize("digits", ["0" * 64, "0" * 8])
def test_T3_download_with_a_wrong_checksum_is_deleted(server, tmp_path, digits):
    with pytest.raises(DataError, match="wrong checksum: sha256") as caught:
        get(server, "file", tmp_path / "a", sha256=digits)
    one_line(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert len(server.asked) == 1  # a whole file that is wrong will not become right


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "404 Not Found"),
        ("forbidden", "403"),
        ("moved", "unknown url type: ftp"),
        ("corrupt", "wrong checksum"),
    ],
)
def test_T3_download_errors_are_one_line(server, tmp_path, kind, message):
    with pytest.raises(DataError) as caught:
        get(server, kind, tmp_path / "a", sha256=SHA, tries=2)
    assert message in one_line(caught.value)
    assert server.url in one_line(caught.value)
    assert not (tmp_path / "a").exists()


def test_T3_download_of_a_length_that_lies(server, tmp_path):
    with pytest.raises(DataError, match="broke off at 1024000 of 1025000 bytes"):
        get(server, "lies", tmp_path / "a", tries=1)
    assert get(server, "lies", tmp_path / "b", sha256=SHA).read_bytes() == DATA  # the checksum knows better


def test_T3_download_waits_for_a_busy_server_and_takes_one_without_a_length(server, tmp_path):
    assert get(server, "busy", tmp_path / "a", sha256=SHA).read_bytes() == DATA
    assert get(server, "endless", tmp_path / "b", sha256=SHA).read_bytes() == DATA
    assert get(server, "wordy", tmp_path / "c", sha256=SHA).read_bytes() == DATA


def test_T3_download_of_a_server_that_resumes_elsewhere(server, tmp_path):
    (tmp_path / "a.part").write_bytes(DATA[:100])
    with pytest.raises(DataError, match="resumes at another byte"):
        get(server, "shifted", tmp_path / "a", tries=2)


def test_T3_download_from_nobody(tmp_path):
    with pytest.raises(DataError, match="cannot be reached") as caught:
        download("http://127.0.0.1:9/x", tmp_path / "a", offline=False, tries=2, wait=0)
    one_line(caught.value)


def test_T3_download_times_out(tmp_path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DataError, match="timed out") as caught:
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", tmp_path / "a", offline=False, tries=1, timeout=0.2)
    one_line(caught.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "data:,x", "gopher://x", "/etc/passwd", "", "javascript:1"])
def test_T3_download_of_other_schemes_is_refused(tmp_path, url):
    with pytest.raises(UsageError, match="http, https or file"):
        download(url, tmp_path / "a", offline=False)


def test_T3_download_offline_says_what_to_put_where(server, tmp_path, monkeypatch):
    with pytest.raises(UsageError) as caught:
        download(f"{server.url}/file", tmp_path / "a.bin", offline=True)
    assert str(tmp_path / "a.bin") in one_line(caught.value)
    assert server.url in str(caught.value)
    monkeypatch.setenv("SACCADE_OFFLINE", "1")
    with pytest.raises(UsageError):
        download(f"{server.url}/file", tmp_path / "a.bin")
    assert server.asked == []
    monkeypatch.setenv("SACCADE_OFFLINE", "0")
    assert not is_offline()
    assert is_offline(True)


def test_T3_download_of_a_file_address(tmp_path):
    (tmp_path / "source").write_bytes(DATA)
    (tmp_path / "a.part").write_bytes(b"stale")
    assert download((tmp_path / "source").as_uri(), tmp_path / "a", sha256=SHA, offline=True).read_bytes() == DATA
    with pytest.raises(DataError):
        download((tmp_path / "nothing").as_uri(), tmp_path / "b")


def test_T3_download_checksums_that_are_none(tmp_path):
    for bad in ("xyz", "12", "g" * 64):
        with pytest.raises(UsageError, match="no sha256"):
            download("http://127.0.0.1:9/x", tmp_path / "a", sha256=bad)


def test_T3_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("SACCADE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_dir() == tmp_path / "x" / "saccade"


# ------------------------------------------------------------------------------------------------------------- archives


def make_zip(path, files, modes=None):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for member in members:
            name, data = member[:2]
            info = tarfile.TarInfo(name)
            if len(member) == 2:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data, member[2]
                archive.addfile(info)
    return path


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_T3_extract_zip_and_tar(tmp_path):
    files = {"top/a.txt": b"1", "top/sub/b.txt": b"22", "other/c": b"3"}
    archives = [make_zip(tmp_path / "x.zip", files)]
    for mode in ("w:gz", "w:bz2", "w:xz", "w"):
        archives.append(make_tar(tmp_path / f"x.{mode[2:]}tar", files.items(), mode))
    for k, archive in enumerate(archives):
        assert tree(extract(archive, tmp_path / f"all{k}")) == files
        assert tree(extract(archive, tmp_path / f"top{k}", inner="*/sub")) == {"b.txt": b"22"}
        with pytest.raises(DataError, match="holds nothing below"):
            extract(archive, tmp_path / f"none{k}", inner="nothing")
        assert not (tmp_path / f"none{k}").exists()
    with pytest.raises(UsageError, match="not an empty folder"):
        extract(archives[0], tmp_path / "all0")


HOSTILE = {
    "climbs": lambda p: make_zip(p, {"../evil": b"x"}),
    "climbs inside": lambda p: make_zip(p, {"a/../../evil": b"x"}),
    "absolute": lambda p: make_zip(p, {"/evil": b"x"}),
    "backslashes": lambda p: make_zip(p, {"..\\evil": b"x"}),
    "drive": lambda p: make_zip(p, {"C:/evil": b"x"}),
    "link": lambda p: make_zip(p, {"l": b"/etc"}, {"l": stat.S_IFLNK | 0o777}),
    "device": lambda p: make_zip(p, {"l": b""}, {"l": stat.S_IFCHR | 0o777}),
    "twice": lambda p: make_zip(p, {"a": b"x", "./a": b"y"}),
    "file and folder": lambda p: make_zip(p, {"a": b"x", "a/b": b"y"}),
    "tar climbs": lambda p: make_tar(p, [("../evil", b"x")]),
    "tar absolute": lambda p: make_tar(p, [("/evil", b"x")]),
    "tar link": lambda p: make_tar(p, [("l", tarfile.SYMTYPE, ".."), ("l/evil", b"x")]),
    "tar hard link": lambda p: make_tar(p, [("l", tarfile.LNKTYPE, "/etc/passwd")]),
    "tar pipe": lambda p: make_tar(p, [("l", tarfile.FIFOTYPE, "")]),
    "empty zip": lambda p: make_zip(p, {}),
    "empty file": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_bytes(b"hello " * 999),
    "cut gzip": lambda p: p.write_bytes(make_tar(p, [("a", os.urandom(9999))]).read_bytes()[:5000]),
    "cut zip": lambda p: p.write_bytes(make_zip(p, {"a": os.urandom(9999)}).read_bytes()[:5000]),
    "a folder": lambda p: p.mkdir(),
    "missing": lambda p: None,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_T3_extract_hostile_archives_leave_nothing(tmp_path, name):
    (tmp_path / "in").mkdir()
    HOSTILE[name](tmp_path / "in" / "archive")
    with pytest.raises(DataError) as caught:
        extract(tmp_path / "in" / "archive", tmp_path / "out" / "folder")
    one_line(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.name not in ("in", "archive", "out")) == []
    assert not os.path.exists("/evil")


def test_T3_extract_limits(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\x00" * 10_000_000)
    with pytest.raises(DataError, match=r"more than 1\.0 MB"):
        extract(bomb, tmp_path / "out", max_bytes=1_000_000)
    with pytest.raises(DataError, match="more than 3 entries"):
        extract(make_zip(tmp_path / "many.zip", {str(k): b"" for k in range(9)}), tmp_path / "out", max_files=3)
    assert not (tmp_path / "out").exists()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["zip", "tar"]), st.integers(0, 400), st.binary(min_size=1, max_size=6))
def test_T3_extract_of_changed_bytes(tmp_path_factory, kind, place, data):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "archive"
    make_zip(path, {"a/b": b"x" * 50, "c": b"y"}) if kind == "zip" else make_tar(path, [("a/b", b"x" * 50), ("c", b"y")])
    raw = path.read_bytes()
    path.write_bytes(raw[:place] + data + raw[place + len(data) :])
    try:
        extract(path, folder / "out")
    except DataError as error:
        one_line(error)
    assert {p.name for p in folder.iterdir()} <= {"archive", "out"}
