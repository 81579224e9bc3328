"""Sections of report.html that say what goes wrong and what to do next, as HTML strings from a metric's ``tables()``.

Colours are the page's variables, so that they follow light and dark; a bar stands beside its number, never instead of it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.report.page import columns, scroll

MEANS = {
    "class": "placed well, named as another class",
    "location": "the right class, placed badly (IoU 0.1 to 0.5)",
    "both": "another class and placed badly",
    "duplicate": "a second detection of an object found already",
    "background": "nothing there (IoU below 0.1)",
    "missed": "objects without any detection near",
    "false positives": "all detections that are wrong",
    "false negatives": "all objects not found",
}
"""Of each kind of error, in few words."""
ADVICE = {
    "class": "More images of the classes that are taken for one another, and a look at their labels (`saccade data labels`), help most; "
    "the pairs are below.",
    "location": "A larger input size, priors that fit the objects (`saccade data priors`) and tighter labels help most.",
    "both": "Objects are half seen: train longer or take a larger model or input; look at the labels of objects close together.",
    "duplicate": "Suppress more: a lower IoU threshold of the suppression (`--iou`).",
    "background": "Add images without objects and of what is mistaken for one; or raise the score threshold (`--score`). Look whether "
    "these are objects that the labels lack (`saccade data labels`).",
    "missed": "Add images of such objects; a larger input where they are small; or a lower score threshold (`--score`).",
}
"""What to do first where most is lost by a kind; commands and options stand between backticks."""
COUNTED = {
    "size": "COCO's sizes: below 32×32 pixels, to 96×96, above. An error has the size of its object, one on the background its own.",
    "class": "An error counts in the class that was predicted, a missed object in its own.",
}
SMALL_GAIN = 0.005
"""Below this no advice is given."""


def error_sections(tables: Mapping[str, Any]) -> str:
    """All that the tables have: errors by kind, size and class, boundaries, confused pairs; "" without any."""
    parts = []
    if tables.get("errors"):
        parts += [kinds(tables["errors"]), groups("size", tables["errors_by_size"]), groups("class", tables["errors_by_class"])]
    if tables.get("boundary"):
        parts.append(boundary(tables["boundary"]))
    if tables.get("confused"):
        counted = "pixels" if "boundary" in tables else "objects" if "errors" in tables else "images"
        parts.append(confused(tables["confused"], counted))
    return "".join(parts)


def kinds(errors: Mapping[str, Any]) -> str:
    """A row a kind of error, with a bar for what fixing it alone would gain; a sentence on the largest."""
    if errors["ap50"] is None:
        return ""
    gains = errors["gain"]
    top = max([*gains.values(), 1e-9])
    count, shown = errors["count"], errors["shown"]
    rows = []
    for kind, gain in gains.items():
        numbers = "".join(f'<td class="num">{of.get(kind, "")}</td>' for of in (shown, count))
        rows.append(
            f'<tr><th scope="row">{kind}</th><td>{_bar(gain / top)}</td><td class="num">{gain:+.4f}</td>{numbers}'
            f'<td class="soft">{MEANS[kind]}</td></tr>'
        )
    head = ("kind", "", "gain", f"at score {errors['score']:g}", "of all", "meaning")
    worst = max(ADVICE, key=lambda kind: gains[kind])
    advice = f'<p class="warn">Most is lost by <b>{worst}</b> errors ({gains[worst]:+.4f}). {_code(ADVICE[worst])}</p>'
    return (
        "<h3>Errors by kind</h3>"
        f'<p class="soft">What AP at IoU 0.5, {errors["ap50"]:.4f} now, would gain if only this kind were mended (TIDE). '
        "Gains do not add up.</p>"
        + (advice if gains[worst] >= SMALL_GAIN else "")
        + scroll(f'<table class="nowrap">{columns(head)}{"".join(rows)}</table>', "Errors by kind")
    )


def groups(by: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Counts at the score threshold by object size or class, shaded by their share of the objects."""
    rows = {name: row for name, row in rows.items() if any(v for v in row.values() if isinstance(v, int))}
    if not rows:
        return ""
    kinds = [name for name, value in next(iter(rows.values())).items() if isinstance(value, int)]
    body = ""
    for name, row in rows.items():
        shares = [min(row[c] / row["objects"], 1.0) if row["objects"] and c != "objects" else 0.0 for c in kinds]
        cells = "".join(f'<td class="cell" style="--share:{share:.3f}">{row[c]}</td>' for c, share in zip(kinds, shares, strict=True))
        body += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    return f'<h3>Errors by {by}</h3><p class="soft">{COUNTED[by]} At the score threshold.</p>' + scroll(
        f'<table class="numbers">{columns(["", *kinds])}{body}</table>', f"Errors by {by}"
    )


def boundary(found: Mapping[str, Any]) -> str:
    """Wrong pixels near a true boundary against the rest, and Boundary IoU by class."""
    if found["mean_boundary_iou"] is None:
        return ""
    percent = f"{100 * found['ratio']:g} % of the image's diagonal"
    lines = [
        f'<h3>Boundaries</h3><p>Mean Boundary IoU {found["mean_boundary_iou"]:.4f} <span class="soft">(bands of {percent})</span>.</p>'
    ]
    if found["share"] is not None:
        verdict = (
            "The regions are found, their edges are not: a larger input size, or more exact masks, help most."
            if found["share"] >= 0.5
            else "Whole regions are wrong: more images of the classes that are confused help most, not finer edges."
        )
        lines.append(
            f'<p class="warn"><b>{100 * found["share"]:.0f} %</b> of the {found["wrong"]} wrong pixels lie within {percent} of a true '
            f"boundary. {verdict}</p>"
        )
    rows = ""
    for name, iou in found["boundary_iou"].items():
        one = found["by_class"][name]
        cells = ("absent" if iou is None else f"{iou:.4f}", one["wrong"], "" if one["share"] is None else f"{100 * one['share']:.0f} %")
        numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
        rows += f'<tr><th scope="row">{html.escape(name)}</th>{numbers}</tr>'
    head = columns(("", "Boundary IoU", "wrong pixels", "near a boundary"))
    return "".join(lines) + scroll(f'<table class="numbers">{head}{rows}</table>', "Boundaries")


def confused(pairs: Sequence[Mapping[str, Any]], counted: str = "images", most: int = 10) -> str:
    """The most confused pairs of classes, both directions."""
    if not pairs:
        return ""

    def told(count: int, of: int) -> str:
        return f"{count} of {of}" + (f" ({100 * count / of:.1f} %)" if of else "")

    rows = "".join(
        f'<tr><th scope="row">{html.escape(one["truth"])} as {html.escape(one["predicted"])}</th>'
        f'<td class="num">{told(one["count"], one["of"])}</td><td class="num">{told(one["reverse"], one["reverse_of"])}</td></tr>'
        for one in pairs[:most]
    )
    head = columns((f"in {counted}", "this way", "the other way"))
    return "<h3>Most confused pairs</h3>" + scroll(f'<table class="numbers">{head}{rows}</table>', "Most confused pairs")


def _code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r'<code style="white-space:nowrap">\1</code>', text)


def _bar(share: float) -> str:
    return (
        '<span aria-hidden="true" style="display:inline-block;width:6rem"><span style="display:block;height:.8rem;border-radius:2px;'
        f'width:{100 * max(share, 0):.1f}%;background:rgb(var(--mark))"></span></span>'
    )
