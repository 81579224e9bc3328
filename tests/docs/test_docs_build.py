"""The site: pages made from the code are up to date, the build has no warning, links resolve, and nothing is loaded from elsewhere."""

import html.parser
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "function"), [("papers.md", "papers"), ("parts.md", "parts"), ("cli.md", "commands")])
def test_pages_made_from_the_code_are_up_to_date(generate, page, function):
    made, there = getattr(generate, function)(), (DOCS / page).read_text(encoding="utf-8")
    assert made.splitlines() == there.splitlines(), f"docs/{page} is old: run python docs/generate.py (or make docs)"


def test_every_registered_model_and_every_verb_has_its_section(generate):
    from saccade.models.index import ENTRIES

    papers, commands = ((DOCS / page).read_text(encoding="utf-8") for page in ("papers.md", "cli.md"))
    for entry in ENTRIES:
        assert f"{{#{entry.name}}}" in papers
        assert f"src/{entry.file}" in papers
        assert (ROOT / "src" / entry.file).is_file()
    for verb in ("train", "eval", "predict", "compare", "data convert", "data labels", "models info"):
        assert re.search(rf"(?m)^### saccade {verb}$", commands)
    assert "| `ssdlite` | `bccd` | map50 0.8689" in papers  # results/accuracy.csv


class Page(html.parser.HTMLParser):
    """Ids of a page, where its links lead, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if values.get("src"):
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason='the site is built with the extra "docs": pip install -e .[docs]')
    pytest.importorskip("mkdocstrings", reason='the site is built with the extra "docs": pip install -e .[docs]')
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return {path.relative_to(out).as_posix(): Page(path.read_text(encoding="utf-8")) for path in out.rglob("*.html")}, out


def test_the_site_builds_without_a_warning_and_has_all_pages(site):
    pages, out = site
    assert {f"{page.stem}.html" for page in DOCS.glob("*.md")} <= set(pages)
    names = {path.name for path in out.rglob("*")}
    assert not names & {"generate.py", "docstrings.py", "__pycache__"}
    assert {path.name for path in (DOCS / "tutorials").glob("*.py")} <= names


def test_every_link_and_anchor_leads_somewhere(site):
    pages, out = site
    for name, page in pages.items():
        if name == "404.html":  # its links are from the root of a server
            continue
        for link in page.links + page.loads:
            target = urlparse(link)
            if target.scheme or target.netloc:
                continue
            path = (out / name).parent.joinpath(unquote(target.path)).resolve() if target.path else out / name
            path = path / "index.html" if path.is_dir() else path
            assert path.is_file(), f"{name}: {link}"
            key = path.relative_to(out).as_posix()
            if target.fragment and key in pages:
                assert unquote(target.fragment) in pages[key].ids, f"{name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site):
    pages, out = site
    for name, page in pages.items():
        for source in page.loads:
            assert not urlparse(source).netloc, f"{name} loads {source}"
    for sheet in out.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
    everything = "".join((out / name).read_text(encoding="utf-8") for name in pages)
    assert "fonts.g" not in everything  # Google's font hosts
    assert "8<--" not in everything  # a snippet that was not put in


def test_the_reference_shows_every_public_name_and_no_markup_of_docstrings(site):
    import saccade

    pages, out = site
    text = (out / "api.html").read_text(encoding="utf-8")
    for name in saccade.__all__:
        assert f"saccade.{name}" in pages["api.html"].ids, f"docs/api.md lacks ::: saccade.{name}"
    assert not re.search(r":(func|class|meth|mod):", text)


def test_links_of_readme_and_contributing_resolve():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            if not urlparse(link).scheme:
                assert (ROOT / link.partition("#")[0]).exists(), f"{page.name}: {link}"
