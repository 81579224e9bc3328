"""Shared fixtures. Real sets are read from SACCADE_DATA (default ../shared/datasets) and never copied into the project."""

import os
from pathlib import Path

# Before torch loads: a spinning OpenMP pool starves the neighbour on a two-core machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SACCADE_OFFLINE", "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))


@pytest.fixture(scope="session")
def real():
    """``real("bccd")``: folder of a real set, or a skip that says what is missing."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"real set {name} is not under {DATA}; set SACCADE_DATA")
        return folder

    return find


def pytest_collection_modifyitems(items):
    import importlib.util

    has_cuda = None
    for item in items:
        if "real" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
        if item.get_closest_marker("gpu"):
            if has_cuda is None:
                has_cuda = importlib.util.find_spec("torch") is not None and __import__("torch").cuda.is_available()
            if not has_cuda:
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))
