"""A path of an annotation stays under the data root, whichever folder the process is in."""

from pathlib import Path

import pytest

from saccade.data.records import inside
from saccade.types.errors import DataError


def test_T1_a_relative_root_is_of_the_folder_that_the_process_is_in_now(tmp_path, monkeypatch):
    for place, kind in (("first", "0"), ("second", "1")):  # the second folder is new, the root's name is not
        (tmp_path / place / "digits" / kind).mkdir(parents=True)
        (tmp_path / place / "digits" / kind / "a.png").touch()
        monkeypatch.chdir(tmp_path / place)
        assert inside(Path("digits"), f"{kind}/a.png", source="s") == Path(f"digits/{kind}/a.png")
        with pytest.raises(DataError, match="lies outside digits"):
            inside(Path("digits"), "../other.png", source="s")


def test_T1_a_folder_that_is_a_link_out_of_the_root_is_refused(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for root in (Path("root"), tmp_path / "root"):
        with pytest.raises(DataError, match="lies outside"):
            inside(root, "link/a.png", source="s")
