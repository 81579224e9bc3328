"""Inspect data, and the quick look before each training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.inspect import Finding, Inspection, inspect_data, quick_findings
from saccade.data.load import load_data
from saccade.types.errors import UsageError


def inspect(
    data: str | Path | Dataset,
    *,
    split: str | None = None,
    format: str | None = None,
    split_file: str | Path | None = None,
    duplicates: bool = True,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Say what is in data and what is wrong with them; every image is opened once.

    Args:
        data: folder, file, ``set:NAME``, ``synthetic:NAME``, or a Dataset.
        split: look at this split only.
        format, split_file: as in :func:`saccade.load_data`.
        duplicates: look for duplicates and for leaks between splits too.
        workers: processes that decode.
        out: write a page of one file there (HTML).
        progress: is told (images done, all images).

    Returns:
        ``facts`` (plain values) and ``findings`` (the worst first).

    Raises:
        DataError, UsageError: as :func:`saccade.load_data`.

    Example:
        >>> found = inspect("synthetic:shapes?count=6&size=48")
        >>> found.facts["images"], found.facts["objects"]["images_without"]
        (6, 0)
    """
    loaded = data if isinstance(data, Dataset) and split is None else load_data(data, split, format=format, split_file=split_file)
    found = inspect_data(loaded, duplicates=duplicates, workers=workers, progress=progress)
    if out is not None:
        from saccade.report.inspect_html import write_inspection

        write_inspection(Path(out), loaded, found, str(data) if not isinstance(data, Dataset) else repr(data))
    return found


def training_findings(train: Dataset, validation: Dataset | None) -> list[Finding]:
    """What annotations and file bytes say of the training data, and the errors of other validation data. Nothing is decoded."""
    findings = quick_findings(train)
    if validation is not None and validation.index is not train.index:
        told = {(f.kind, *f.examples) for f in findings}  # read twice, the same files leak twice
        findings += [f for f in quick_findings(validation) if f.level == "error" and (f.kind, *f.examples) not in told]
    return findings


def before_training(train: Dataset, validation: Dataset | None, *, allow_leaks: bool, say: Callable[[str], None]) -> None:
    """What each training looks at first: annotations, classes, and files that stand in two splits. Nothing is decoded.

    Raises:
        UsageError: an image of the training split is also in another split, and ``allow_leaks`` is False.
    """
    findings = training_findings(train, validation)
    leak = next((f for f in findings if f.kind == "leak"), None)
    if leak is not None and not allow_leaks:
        raise UsageError(
            f"{leak.examples[0]}"
            + (f", and {leak.count - 1} more such leaks" if leak.count > 1 else "")
            + "; the numbers would be too good: "
            "mend the splits with saccade data dedupe --new-splits, or train all the same with --allow-leaks"
        )
    for finding in findings:
        if finding.level != "note" and finding.kind != "reader":
            say(str(finding) + (f", such as {finding.examples[0]}" if finding.examples else ""))


def summary(found: Inspection) -> list[str]:
    """The inspection as lines for a terminal."""
    facts = found.facts
    sizes, tasks = facts["sizes"], ", ".join(facts["tasks"]) or "no task"
    smallest, largest = ("x".join(map(str, sizes[key])) for key in ("smallest", "largest"))
    lines = [
        f"{facts['root']}: {facts['format']} ({facts['reason']})",
        f"  {facts['images']} images, {facts['readable']} readable, {facts['bytes'] / 2**20:.1f} MB, for {tasks}",
        f"  sizes {smallest} to {largest}, {sizes['different']} different; {_join(facts['modes'])}",
    ]
    if facts["splits"]:
        lines.append(f"  splits {_join(facts['splits'])}")
    if facts["classes"]:
        most = max(facts["classes"].values()) or 1
        lines.append(f"  {len(facts['classes'])} classes, {facts['counted']}:")
        ranked = sorted(facts["classes"].items(), key=lambda item: -item[1])
        lines += [f"    {name[:24]:<24} {count:>9}  {'█' * round(30 * count / most)}" for name, count in ranked[:20]]
        if len(ranked) > 20:
            lines.append(f"    and {len(ranked) - 20} more")
    if "objects" in facts:
        objects = facts["objects"]
        per, coco = objects["per_image"], objects["coco_sizes"]
        lines.append(
            f"  {objects['count']} objects, {per['least']} to {per['most']} an image (mean {per['mean']}), "
            f"{objects['images_without']} images without; "
            f"{coco['small']} small, {coco['medium']} medium, {coco['large']} large"
        )
    if "masks" in facts:
        lines.append("  pixels: " + _join({name: f"{100 * one['share']:.2f} %" for name, one in facts["masks"].items()}))
    lines += [line for finding in found.findings for line in _told(finding)]
    return lines if found.findings else [*lines, "nothing wrong found"]


def _told(finding: Finding) -> list[str]:
    more = [f"    and {finding.count - 3} more"] if finding.count > 3 and len(finding.examples) > 3 else []
    return [str(finding), *(f"    {place}" for place in finding.examples[:3]), *more]


def _join(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
