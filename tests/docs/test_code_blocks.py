"""Every fenced block of README, CONTRIBUTING and docs/*.md is run: an unknown verb, a wrong option or a renamed function fails here."""

import json
import re
import shlex
import shutil
import signal
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml

from saccade.cli.main import app, main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    "make demo": "makes an environment; `saccade demo`, which it calls, is run below",
    "make test": "makes an environment and runs the tests, this one among them",
    "make lint": "has no result for a reader",
    "make bench": "takes hours on a quiet machine",
    "make docs": "tests/docs/test_docs_build.py builds the site",
}
"""Commands of other programs, by their exact text, with the reason. The target of make must exist."""

PARSED_ONLY = {
    "saccade compare": "a process a run: run by tests/workflows/test_compare.py and, as a tutorial, by test_tutorials.py",
    "saccade check faster_rcnn": "takes minutes: run on small models here and by tests/workflows/test_check.py",
    "saccade train lenet5 set:mnist": "needs the files of MNIST",
    "saccade features extract timm/resnet18 photos/ vectors.npz --pretrained": "downloads weights",
    "saccade export runs/yolov3-001": "the same command is run with yolov3_tiny in darknet.md",
}
"""Commands that begin so are only given to the command's own parser, with the reason."""

SHORTER = {
    r"saccade demo": "--epochs 1 --data synthetic:cells?count=24&size=64",
    r"saccade train (?!--resume)": "--epochs 1 {settings of a tiny model}",
    r"saccade check": "--no-overfit {settings of a tiny model}",
    r"saccade data labels (?!.*(hog|--apply))": "--folds 2 --epochs 1 {settings of a tiny model}",
    r"saccade data labels .*--apply": "--to voc",
}
"""What is added to a command that trains: the last value of an option counts."""

INSTEAD = {
    "--resume runs/ssdlite-001": "--resume runs/stopped",  # the other run is finished
    "--apply suspects/to_correct": "--apply corrected",  # which a person would have made
    "epochs=60": "epochs=1, workers=0, options=TINY['ssdlite']",
}
"""Text that is replaced before a block runs."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its lines."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def blocks_of(page):
    found, start, language, lines = [], 0, "", []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            if start:
                found.append(Block(page, start, language, "\n".join(lines)))
                start = 0
            else:
                start, language, lines = number, line.strip().strip("`"), []
        elif start:
            lines.append(line)
    assert not start, f"{page.name}:{start}: the block has no end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.fixture(scope="session")
def places(world, tmp_path_factory):
    """A page's own copy of the prepared folder, in which its blocks run from first to last."""
    made = {}

    def place(page):
        if page not in made:
            made[page] = tmp_path_factory.mktemp(page.stem) / "here"
            shutil.copytree(world, made[page])
            shutil.copytree(world / "blood", made[page] / "corrected")
        return made[page]

    return place


def instead(text):
    for given, used in INSTEAD.items():
        text = text.replace(given, used)
    return text


def leaf(words):
    """The command that words name, and its arguments; the error names what is unknown."""
    command, path = typer.main.get_command(app), ["saccade"]
    rest = list(words[1:])
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{' '.join(path)} has no command {rest[0]!r}"
        path.append(rest[0])
        command = command.commands[rest.pop(0)]
    return command, rest


def options_of(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"-h", "--help"}


def shortened(command, words, tiny):
    """The command with what SHORTER adds, and without loader processes."""
    text = " ".join(words)
    more = next((extra for pattern, extra in SHORTER.items() if re.match(pattern, text)), "")
    model = words[2] if words[1] in ("train", "check") else "ssdlite"
    if "{" in more:
        settings = [f"--set {key}={value}" for key, value in tiny[model].items()]
        more = re.sub(r"{.*}", " ".join(settings), more)
    if "--workers" in options_of(command):
        more += " --workers 0"
    return [*words, *more.split()]


def run_line(line, tiny, monkeypatch):
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "saccade":
        assert " ".join(words) in NOT_RUN, f"{line!r} is neither a command of saccade nor listed in NOT_RUN"
        assert words[0] != "make" or re.search(rf"(?m)^{words[1]}:", (ROOT / "Makefile").read_text()), f"the Makefile has no {words[1]}"
        return
    command, rest = leaf(words)
    if any(" ".join(words).startswith(begin) for begin in PARSED_ONLY):
        command.make_context(words[-1], rest)
        return
    monkeypatch.setattr(sys, "argv", shortened(command, words, tiny))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 0, f"{' '.join(sys.argv)}: exit status {stopped.value.code}"


def run_python(block, tiny):
    included = re.findall(r'--8<-- "(.+?)"', block.text)
    for name in included:  # the scripts themselves are run by test_tutorials.py
        file, _, section = name.partition(":")
        source = (ROOT / "docs" / file).read_text(encoding="utf-8")
        assert not section or source.count(f"# --8<-- [start:{section}]") == source.count(f"# --8<-- [end:{section}]") == 1, name
    if included:
        assert block.text.count("\n") + 1 == len(included), "a block that includes a file holds nothing else"
        return
    names = {"__name__": "block", "TINY": tiny}
    exec(compile(instead(block.text), str(block), "exec"), names)
    for name, function in list(names.items()):
        if name.startswith("test_"):
            for mark in function.pytestmark:
                for value in mark.args[1]:
                    function(value)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_runs(block, places, tiny, registered, monkeypatch):
    monkeypatch.chdir(places(block.page))
    match block.language:
        case "bash":
            for line in instead(block.text).replace("\\\n", " ").splitlines():
                run_line(line, tiny, monkeypatch)
        case "python":
            run_python(block, tiny)
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "yaml":
            yaml.safe_load(block.text)
        case "text":
            assert block.text.strip()
        case other:
            pytest.fail(f"{block}: a block in {other or 'no language'!r}: write bash, python, json, toml, yaml or text")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_a_sentence_exist(page):
    prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    for text in re.findall(r"`(saccade [^`]+)`", prose):
        words = text.split()
        command, rest = leaf(words)
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in options_of(command), f"{page.name}: `{text}`: no option {word}"


def test_no_indented_block_escapes_the_test():
    for page in PAGES:
        prose = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
        assert not re.search(r"(?m)^\n    (?!options:)\S", prose), f"{page.name}: an indented block is not run; fence it"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("saccade trian ssdlite blood/", "no command 'trian'"),
        ("saccade data show blood/ --fromat voc", "exit status 2"),
        ("saccade compare blood/ ssdlite --bugdet 10m", "No such option"),
        ("saccade eval runs/ssdlite-009 blood/", "exit status 1"),
        ("curl example.org", "neither a command of saccade"),
        ("make tets", "neither a command of saccade"),
    ],
)
def test_a_wrong_line_is_found(line, why, places, tiny, monkeypatch):
    monkeypatch.chdir(places(PAGES[0]))
    with pytest.raises((AssertionError, Exception)) as found:
        run_line(line, tiny, monkeypatch)
    assert why in getattr(found.value, "message", str(found.value))


def test_a_wrong_python_block_is_found(places, tiny, monkeypatch):
    monkeypatch.chdir(places(PAGES[0]))
    with pytest.raises(AttributeError, match="trian"):
        run_python(Block(PAGES[0], 1, "python", "import saccade\nsaccade.trian('ssdlite')"), tiny)
