"""The gallery of image operations is what docs/gallery.py makes, and its pictures are small."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.image import operations

DOCS = Path(__file__).resolve().parents[2] / "docs"
AGAIN = "run python docs/gallery.py"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("docs_gallery", DOCS / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known(gallery):
    return gallery.names()


def test_I_the_page_is_what_the_script_makes(gallery, known):
    there = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert gallery.page(known).splitlines() == there.splitlines(), f"docs/gallery.md is old: {AGAIN}"
    assert gallery.LINES.keys() <= operations().keys()
    assert {entry.row for entry in operations().values()} <= gallery.ROWS.keys()


def test_I_every_picture_is_there_and_small(gallery):
    wanted = {f"{n}.webp" for n, o in operations().items() if o.gives != "value" or n == "histogram"}
    pictures = {p.name: p for p in (DOCS / "images" / "gallery").glob("*")}
    assert set(pictures) == wanted, AGAIN
    for name, path in pictures.items():
        assert path.stat().st_size <= gallery.LARGEST, name
        with Image.open(path) as picture:
            assert picture.format == "WEBP"
            assert picture.height == gallery.SIDE


@pytest.mark.parametrize("name", ["median", "rotate", "quantize", "gaussian_pyramid"])
def test_I_a_picture_shows_the_line_below_it(gallery, known, name):
    made = gallery.picture_of(name, known)
    with Image.open(DOCS / "images" / "gallery" / f"{name}.webp") as there:
        assert there.size == made.size
        difference = np.abs(np.asarray(there.convert("RGB"), float) - np.asarray(made, float))
    assert difference.mean() < 12  # what WebP loses of noise
