"""Write the pages that are made from the code: ``python docs/generate.py`` (part of ``make docs``).

papers.md comes from the registry, the models themselves and results/*.csv; parts.md from the index of parts; cli.md from the commands' own
help. All are committed; a test says that they are what this script makes.
"""

from __future__ import annotations

import csv
import inspect
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "results"
TASKS = {"classify": "Classification", "detect": "Detection", "segment": "Segmentation", "landmarks": "Landmarks", "generate": "Generation"}
EXPORTS = {"whole": "as one graph", "parts": "in parts, non-maximum suppression in between", "no": "no network to export"}


def main() -> None:
    """Write the pages."""
    (DOCS / "papers.md").write_text(papers(), encoding="utf-8")
    (DOCS / "parts.md").write_text(parts(), encoding="utf-8")
    (DOCS / "cli.md").write_text(commands(), encoding="utf-8")


# -- papers.md ------------------------------------------------------------------------------------


def papers() -> str:
    """The page of all systems of this package: facts, and our own measured numbers. Names of one file and paper share a section."""
    from saccade.models.index import ENTRIES

    order = list(TASKS)
    facts = [facts_of(entry.name) for entry in sorted(ENTRIES, key=lambda e: (order.index(e.task), e.year, e.paper))]
    families = [list(family) for _, family in itertools.groupby(facts, lambda f: (f["task"], f["file"], f["paper"]))]
    lines = [
        "# Models and papers",
        "",
        "Every system is one file that reads like its paper, with the deviations named at its head. Parameters and multiply-adds are of",
        "the default form, for one image of the default input. A score stands here only where one was measured, with its seed, date and",
        "commit (commands and machines: `results/`); bad numbers stay in.",
        "",
        "Beside these, `timm/NAME` trains any classifier of timm (`saccade train timm/resnet18 photos/`).",
    ]
    for task, title in TASKS.items():
        own = [family for family in families if family[0]["task"] == task]
        lines += ["", f"## {title}", ""]
        lines += table(
            ("models", "year", "in short"),
            ((", ".join(f"[`{f['name']}`](#{f['name']})" for f in family), family[0]["year"], in_short(family)) for family in own),
        )
        for family in own:
            lines += ["", *section(family)]
    return "\n".join(lines) + "\n"


def facts_of(name: str) -> dict[str, Any]:
    """Of one system, built without memory where its network can be: large ones take seconds otherwise."""
    import torch

    from saccade.workflows.models import model_info

    try:
        with torch.device("meta"):
            return model_info(name)
    except NotImplementedError:  # what depends on the numbers: non-maximum suppression, a buffer that is read
        return model_info(name)


def section(family: list[dict[str, Any]]) -> list[str]:
    """One paper's file, with one system or a family of them."""
    first = family[0]
    single = len(family) == 1
    arxiv = f", [arXiv {first['arxiv']}](https://arxiv.org/abs/{first['arxiv']})" if first["arxiv"] else ""
    kinds = {"trainable": "by gradient", "fitted": "fitted in one go", "staged": "in stages", "adversarial": "two players"}
    weights = list(dict.fromkeys(f["weights"] for f in family if f["weights"]))
    same = all(f["options"] == first["options"] for f in family)
    rows = [
        ("paper", f"{first['paper']}, {first['year']}{arxiv}"),
        ("file", f"`src/{first['file']}`"),
        ("learns", kinds[first["kind"]]),
        *([("input", first["input"]), ("size", size_of(first))] if single else []),
        ("published weights", ("; ".join(weights) if single or len(weights) == 1 else "see below") if weights else "none"),
        ("export", EXPORTS[first["exportable"]]),
        (
            f"options{'' if same else ' of ' + first['name']}",
            ", ".join(f"`model.{key}={value}`" for key, value in first["options"].items()),
        ),
        ("row of the canon", ", ".join(dict.fromkeys(f["row"] for f in family))),
    ]
    title = first["name"] if single else f"{first['name']} {'and' if len(family) == 2 else 'to'} {family[-1]['name']}"
    anchor = first["name"] if single else f"family-{first['name']}"
    lines = [f"### {title} {{#{anchor}}}", "", *([f"{first['summary'][0].upper()}{first['summary'][1:]}.", ""] if single else [])]
    lines += table(("", ""), rows)
    if not single:
        forms = ((f"`{f['name']}`{{#{f['name']}}}", f["input"], size_of(f), f["weights"] or "none", f["summary"]) for f in family)
        lines += ["", *table(("model", "input", "size", "published weights", "in short"), forms)]
    found = [line for fact in family for line in measured(fact["name"])]
    return [*lines, "", "Measured:", "", *found] if found else [*lines, "", "Not measured yet."]


def in_short(family: list[dict[str, Any]]) -> str:
    """One line on a system, or on the first of a family."""
    return family[0]["summary"] if len(family) == 1 else f"`{family[0]['name']}`: {family[0]['summary']}"


def size_of(fact: dict[str, Any]) -> str:
    """Parameters and multiply-adds in words."""
    if not fact["parameters"]:
        return "fitted to the data: it has none of its own"
    outputs = {"generate": "", "landmarks": f" ({fact['num_classes']} points)"}
    classes = outputs.get(fact["task"], f" ({fact['num_classes']} classes)")
    cost = f", {count(fact['macs'])} multiply-adds" + (" a region" if fact["kind"] == "staged" else "") if fact["macs"] else ""
    return f"{fact['parameters']:,} parameters{cost}{classes}"


def measured(name: str) -> list[str]:
    """Our numbers of one model: scores of accuracy.csv, then speeds."""
    scores = [
        (
            f"`{name}`", f"`{row['run']}`", row["test"].replace(";", ","), row["epochs"], f"{row['training_minutes']} min", row["seed"],
            f"{row['date'][:10]}, `{row['commit']}`", row["note"],
        )
        for row in rows_of("accuracy.csv", name)
    ]  # fmt: skip
    lines = table(("model", "data", "test score", "epochs", "training", "seed", "date, commit", "note"), scores) if scores else []
    compared = [(folder, *row) for folder in sorted((RESULTS / "compare").glob("*/table.json")) for row in in_comparison(folder, name)]
    if compared:
        lines += ["", "In the bake-off, a small budget of training each (pages and tables in `results/compare/`):", ""]
        head = ("data", "options", "score", "95 % interval", "place", "runs", "epochs", "training", "latency", "date, commit")
        lines += table(head, ((f"`{folder.parent.name}`", *row) for folder, *row in compared))
    for row in rows_of("training.csv", name):
        if row["how"] == "runs":
            lines += bullet(
                f"`{name}`, training: {float(row['ours_images_per_s']):.1f} images/s on `{row['data']}`, batch {row['batch']}", row
            )
    for row in rows_of("prediction.csv", name):
        if row["what"] == "overhead":
            rate, size = float(row["predict_batch_images_per_s"]), f"{row['width']}x{row['height']}"
            lines += bullet(f"`{name}`, prediction: {rate:.1f} images/s ({size}, batch {row['images']})", row)
    return lines


def in_comparison(file: Path, name: str) -> list[tuple[str, ...]]:
    """What a comparison says of a model, a tuple each form of it that took part."""
    made = json.loads(file.read_text(encoding="utf-8"))
    facts, ranked = made["facts"]["shown"], made["rows"]
    out = []
    for place, row in enumerate(ranked, 1):
        if row["system"] != name:
            continue
        told = [f"failed: {row['error']}", "-"] if row["value"] is None else [f"{made['metric']} {row['value']:.3f}", "-"]
        if row["low"] is not None:
            told[1] = f"{row['low']:.3f} to {row['high']:.3f}"
        latency = "-" if row["latency_ms"] is None else f"{row['latency_ms']:.1f} ms"
        training = "-" if row["training_seconds"] is None else f"{row['training_seconds']:.0f} s"
        epochs = "-" if row["epochs"] is None else f"{row['epochs']:.0f}"
        when = f"{facts['date'][:10]}, `{facts['saccade'].partition(' ')[2]}`"
        asked = f"`{row['options']}`" if row["options"] else ""
        out.append((asked, *told, f"{place} of {len(ranked)}", str(row["runs"]), epochs, training, latency, when))
    return out


def bullet(text: str, row: dict[str, str]) -> list[str]:
    """A line of a list, with where the number comes from."""
    return ["", f"* {text}; {row['machine']}; {row['date'][:10]}, `{row['commit']}`, `{row['command']}`"]


def rows_of(file: str, name: str) -> list[dict[str, str]]:
    """Rows of results/FILE about a model."""
    with (RESULTS / file).open(newline="", encoding="utf-8") as handle:
        return [row for row in csv.DictReader(handle) if row["model"] == name]


def count(number: int | None) -> str:
    """Millions or thousands, as one reads them."""
    if not number:
        return "-"
    return next(
        f"{number / unit:,.{digits}f} {text}"
        for unit, digits, text in ((1e9, 2, "G"), (1e6, 2, "M"), (1e3, 1, "k"), (1, 0, ""))
        if number >= unit
    )


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    titles = list(head)
    body = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles), *body]


# -- parts.md -------------------------------------------------------------------------------------


def parts() -> str:
    """The page of all parts: where each is kept, an example, the shapes before and after."""
    from saccade.explain.parts import KINDS, PARTS

    lines = [
        "# Parts",
        "",
        "Where each part of a network is kept. What torch, torchvision and timm have is not written again: it stands here in the form that",
        "its paper means. Tests run every example and hold the parts of the textbook against their equations. By name, from Python:",
        "",
        "```python",
        "from saccade.explain.parts import part",
        "",
        'pyramid = part("psp").load()(2048)  # saccade.layers.pooling.PyramidPooling',
        "```",
    ]
    for kind in KINDS:
        plural = f"{kind}es" if kind == "loss" else f"{kind}s"
        rows = (
            (
                f"`{p.name}`",
                p.summary,
                f"`{p.where}`",
                f"`{p.example}`",
                f"{shape(p.given)} to {shape(p.gives)}" if p.given else "",
                cited(p.paper),
            )
            for p in PARTS
            if p.kind == kind
        )
        lines += ["", f"## {plural.capitalize()}", "", *table(("name", "in short", "where", "example", "shapes", "paper"), rows)]
    return "\n".join(lines) + "\n"


def shape(sides: Iterable[int]) -> str:
    """1x3x12x12."""
    return "x".join(map(str, sides))


def cited(paper: str) -> str:
    """A paper with its arXiv number as a link."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", paper)


# -- cli.md ---------------------------------------------------------------------------------------


def commands() -> str:
    """The page of all commands, from their own help."""
    import typer

    from saccade.cli.main import app

    lines = [
        "# Command reference",
        "",
        "Made from `saccade --help`. `--json` gives machine output on stdout; progress and messages go to stderr.",
        "Exit status: 0 done, 1 failed (data, training), 2 wrong use.",
        "",
        *described("saccade", typer.main.get_command(app), level=2),
    ]
    return "\n".join(lines).rstrip() + "\n"


def described(path: str, command: Any, level: int) -> list[str]:
    """One command and those below it."""
    text, examples = split_help(command.help or "")
    shown = [p for p in command.params if not p.hidden]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option" and p.name != "help"]
    below = getattr(command, "commands", {})
    usage = " ".join(
        [path, *(p.metavar or p.name.upper() for p in arguments), *(["[OPTIONS]"] if options else []), *(["COMMAND"] if below else [])]
    )
    lines = [f"{'#' * level} {path}", "", *text, "", "```text", usage, "```", ""]
    if arguments or options:
        rows = [(f"`{p.metavar or p.name.upper()}`", "", p.help or "") for p in arguments]
        rows += [(", ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts)), default_of(p), p.help or "") for p in options]
        lines += [*table(("option", "default", "what"), rows), ""]
    if examples:
        lines += ["```bash", *examples, "```", ""]
    for name, sub in below.items():
        lines += described(f"{path} {name}", sub, min(level + 1, 3))
    return lines


def default_of(parameter: Any) -> str:
    """The default as one would type it."""
    value = parameter.default
    if value is None or isinstance(value, bool) or value == "":
        return ""
    return f"`{value}`"


def split_help(text: str) -> tuple[list[str], list[str]]:
    """Lines of prose, and the commands of its examples."""
    prose: list[str] = []
    examples: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        bare = re.sub(r"\[/?bold\]", "**", line.strip())
        if bare.startswith("saccade "):
            examples.append(bare)
        elif not re.fullmatch(r"Examples?:", bare):
            prose.append(bare)
    return "\n".join(prose).strip().splitlines(), examples


if __name__ == "__main__":
    main()
