"""inspect.html: one file without network or script: what is in a data set, what is wrong with it, and how it looks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade.data import view
from saccade.data.dataset import Dataset
from saccade.data.inspect import Finding, Inspection
from saccade.engine.files import write_text
from saccade.report import svg
from saccade.report.html import data_uri
from saccade.report.page import columns, document, scroll, table
from saccade.types.errors import DataError

_MORE = """
.error,.note{border-left:4px solid #cf222e;padding:.4rem .8rem;background:var(--wash);margin:.6rem 0;overflow-wrap:anywhere}
.note{border-color:var(--line)}details .shots{margin:.6rem 0}
details>ul{max-height:20rem;overflow:auto;margin:.3rem 0}li{overflow-wrap:anywhere}
"""


def write_inspection(path: Path, data: Dataset, found: Inspection, source: str, *, shots: int = 12) -> None:
    """Write the page.

    Args:
        path: file to write, atomically.
        data: the images, to be drawn.
        found: of :func:`saccade.data.inspect.inspect_data`.
        source: how the user named the data.
        shots: images of the overview.
    """
    facts = found.facts
    counts = {level: sum(f.level == level for f in found.findings) for level in ("error", "warning", "note")}
    verdict = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items() if n) or "nothing wrong found"
    look = _pictures(data, view.choose(data, shots), "with its truth")
    parts = [
        f"<h1>{html.escape(source)}</h1>",
        f'<p><span class="big">{facts["images"]}</span> images, {html.escape(verdict)}</p>',
        "<h2>Findings</h2>" + "".join(_finding(f, data) for f in found.findings) if found.findings else "",
        "<h2>Data</h2>" + table(_rows(facts), name="Data"),
        "<h2>Classes</h2>" + _classes(facts) if facts["classes"] else "",
        "<h2>Objects</h2>" + _objects(facts["objects"]) if "objects" in facts else "",
        "<h2>Sizes</h2>" + _sizes(facts) if facts["sizes"]["different"] else "",
        "<h2>A look</h2>" + look if look else "",
    ]
    write_text(path, document(f"{source}: saccade data inspect", "".join(parts), _MORE))


def _finding(finding: Finding, data: Dataset) -> str:
    style = {"error": "error", "warning": "warn", "note": "note"}[finding.level]
    places = "".join(f"<li>{html.escape(place)}</li>" for place in finding.examples)
    more = f"<li>and {finding.count - len(finding.examples)} more</li>" if finding.count > len(finding.examples) else ""
    listed = f"<details><summary>where</summary><ul>{places}{more}</ul></details>" if places else ""
    shown = _pictures(data, finding.images[:8], f"an example of {finding.kind}") if finding.images and finding.level != "note" else ""
    return (
        f'<div class="{style}"><b>{finding.level}: {html.escape(finding.kind)} ({finding.count}).</b> {html.escape(finding.text)}{listed}'
        + (f"<details><summary>pictures</summary>{shown}</details>" if shown else "")
        + "</div>"
    )


def _pictures(data: Dataset, positions: Sequence[int], what: str) -> str:
    """Images with their truth drawn, those that can be opened; ``what`` they show is read aloud."""
    figures = []
    for position in positions:
        try:
            picture, target = view.drawn(data, position, cell=280)
        except DataError:
            continue
        name = Path(str(target["path"])).name
        name += f": {data.classes[int(target['label'])]}" if "label" in target else ""
        alt = html.escape(f"{name}, {what}")
        figures.append(f'<figure><img alt="{alt}" src="{data_uri(picture)}"><figcaption>{html.escape(name)}</figcaption></figure>')
    return f'<div class="shots">{"".join(figures)}</div>' if figures else ""


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    def join(values: dict[str, Any]) -> str:
        return ", ".join(f"{html.escape(str(k))} {v}" for k, v in values.items()) or "none"

    rows = [
        ("read as", html.escape(f"{facts['format']}: {facts['reason']}")),
        ("truth for", html.escape(", ".join(facts["tasks"]) or "no task")),
        ("splits", join(facts["splits"])),
        ("readable", f"{facts['readable']} of {facts['images']}, {facts['bytes'] / 2**20:.1f} MB"),
        ("files", join(facts["kinds"])),
        ("colour modes", join(facts["modes"])),
    ]
    if "duplicates" in facts:
        rows.append(("duplicates", f"{facts['duplicates']['groups']} groups of {facts['duplicates']['images']} images"))
    if "captions" in facts:
        words = facts["captions"]["words"]
        rows.append(("captions", f"{facts['captions']['texts']} of {words['least']} to {words['most']} words, mean {words['mean']}"))
    return rows


def _classes(facts: dict[str, Any]) -> str:
    """A bar a class: its share of the largest."""
    most = max(facts["classes"].values()) or 1
    masks = facts.get("masks", {})
    head = columns(("class", facts["counted"], "images") if masks else ("class", facts["counted"]))
    rows = []
    for name, count in sorted(facts["classes"].items(), key=lambda item: -item[1])[:200]:
        images = f'<td class="num">{masks.get(name, {}).get("images", 0)}</td>' if masks else ""
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}</th><td class="cell" style="--share:{count / most:.3f}">{count}</td>{images}</tr>'
        )
    more = f"<p class='soft'>and {len(facts['classes']) - 200} more classes</p>" if len(facts["classes"]) > 200 else ""
    return scroll(f"<table>{head}{''.join(rows)}</table>", "Classes") + more


def _objects(objects: dict[str, Any]) -> str:
    per, sizes = objects["per_image"], objects["coco_sizes"]
    rows = [
        ("objects", f"{objects['count']}, {objects['outlines']} with an outline, {objects['crowd']} crowds"),
        ("an image", f"{per['least']} to {per['most']}, mean {per['mean']}; {objects['images_without']} images without"),
        ("sizes as COCO counts them", f"{sizes['small']} small, {sizes['medium']} medium, {sizes['large']} large"),
        ("touching the border", str(objects["touch_border"])),
    ]
    if objects["side_share"]:
        share = objects["side_share"]
        rows.append(("side as a share of the image", f"{share['1']:.3f} to {share['99']:.3f}, median {share['50']:.3f} (1 to 99 %)"))
    charts = svg.bars("Objects by the share of the image that their side takes", objects["side_histogram"], (0.0, 1.0), x="side / image")
    many = objects["per_image_histogram"]
    charts += svg.bars(
        "Images by their number of objects" + (" (50: or more)" if len(many) > 50 else ""), many, (0.0, len(many)), x="objects"
    )
    out = table(rows, name="Objects") + f'<div class="row">{charts}</div>'
    if "keypoints" in objects:
        points = objects["keypoints"]
        cells = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td class="num">{one["visible"]}</td><td class="num">{one["hidden"]}</td></tr>'
            for name, one in points["points"].items()
        )
        head = f"<caption>Key points of {points['objects']} objects</caption>" + columns(("", "visible", "hidden"))
        out += scroll(f"<table>{head}{cells}</table>", "Key points")
    return out


def _sizes(facts: dict[str, Any]) -> str:
    sizes = facts["sizes"]
    common = ", ".join(f"{w}x{h} ({n})" for w, h, n in sizes["common"])
    (small_w, small_h), (large_w, large_h) = sizes["smallest"], sizes["largest"]
    return table(
        [("different sizes", str(sizes["different"])), ("most common", common), ("from", f"{small_w}x{small_h} to {large_w}x{large_h}")],
        name="Sizes",
    )
