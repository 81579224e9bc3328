"""The findings of ``saccade check``: what is wrong with data, with what preprocessing makes of them, with how a detector's boxes fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from saccade.data import faults
from saccade.data.dataset import Dataset
from saccade.data.formats.files import image_hw
from saccade.data.inspect import Finding
from saccade.data.records import Record
from saccade.models.base import Model
from saccade.models.detect.base import Assignment, Detector
from saccade.types.errors import DataError
from saccade.types.geometry import Geometry
from saccade.types.sample import IGNORE, Sample, Target

MOST_PIXELS = 40_000
"""Pixels of an image that are compared with the input made of it."""

SMALL = 8.0
"""Shorter side in network pixels below which an object has little left to be seen."""

MANY = 0.25
"""Share of objects from which on a poor fit is a warning, not a note."""

Item = tuple[Tensor, Target, Geometry]


# -- annotations ----------------------------------------------------------------------------------


def label_range(data: Dataset) -> list[Finding]:
    """Labels that no class name belongs to: training would stop, or learn nonsense."""
    count, lowest, places, images, values = len(data.classes), None, [], [], set()
    for i, record in enumerate(data.map_records(lambda r: r)):
        labels = labels_of(record)
        if not len(labels):
            continue
        lowest = min(int(labels.min()), lowest if lowest is not None else int(labels.min()))
        wrong = labels[(labels < 0) | (labels >= count)]
        if len(wrong):
            places.append(f"{record.path}: {', '.join(map(str, sorted(set(wrong.tolist()))[:4]))}")
            images.append(i)
            values |= set(wrong.tolist())
    if not places:
        return []
    if values == {count} and lowest:
        text = f"label {count} is used, label 0 is not, and there are {count} classes: labels count from 0, subtract 1"
        return [Finding("labels off by one", "error", len(places), text, places[:20], images[:20])]
    text = f"images with labels outside 0..{count - 1}: a class without a name, or another numbering"
    return [Finding("label out of range", "error", len(places), text, places[:20], images[:20])]


def labels_of(record: Record) -> np.ndarray:
    """Labels of an image or of its objects."""
    if record.label is not None:
        return np.array([record.label])
    return np.asarray([] if record.labels is None else record.labels, dtype=np.int64)


def label_shift(counts: np.ndarray, classes: Sequence[str], task: str) -> list[Finding]:
    """Counts and names that speak for labels off by one."""
    what = faults.shifted_labels(counts, classes, task)
    return [Finding("labels off by one", "warning", 1, f"{what}; compare the names in the batch picture")] if what else []


def class_names(classes: Sequence[str], known: Sequence[str] | None) -> list[Finding]:
    """Names that are told apart by blanks or capitals only, and names in another order than those of the weights (``known``)."""
    out: list[Finding] = []
    folded: dict[str, list[str]] = {}
    for name in classes:
        folded.setdefault(" ".join(name.split()).casefold(), []).append(name)
    alike = [" = ".join(map(repr, names)) for names in folded.values() if len(names) > 1]
    if alike:
        out.append(
            Finding("class names", "warning", len(alike), "classes whose names differ in blanks or capitals only: one class?", alike)
        )
    if known is not None and list(known) != list(classes):
        if sorted(known) == sorted(classes):
            text = "the weights know the same classes in another order: label k would start as another class"
            out.append(Finding("class order", "warning", 1, text, [f"data: {', '.join(classes)}", f"weights: {', '.join(known)}"]))
        else:
            new = [name for name in classes if name not in known]
            text = f"the weights are of {len(known)} other classes; what is new starts from chance"
            out.append(Finding("class names", "note", len(new), text, new[:20]))
    return out


def box_faults(data: Dataset, samples: Sequence[Sample]) -> tuple[list[Finding], dict[str, Any]]:
    """Boxes with x and y exchanged, and boxes divided by the image's sides twice."""
    found = data.map_records(lambda r: np.zeros((0, 4)) if r.boxes is None else np.asarray(r.boxes, dtype=np.float64).reshape(-1, 4))
    everything = np.concatenate(found) if found else np.zeros((0, 4))
    if faults.in_unit_square(everything):
        text = "all boxes lie in the first pixel of their image: fractions of the sides were divided once more, or taken for pixels"
        return [Finding("boxes normalised twice", "error", len(everything), text)], {}
    images = [s.image.as_subclass(Tensor).numpy() for s in samples]
    boxes = [_objects(s.target).numpy().astype(np.float64) for s in samples]
    seen = faults.swapped_xy(images, boxes)
    facts = {
        "boxes_outside": seen.outside, "compared_boxes": seen.compared, "contrast": seen.contrast,
        "contrast_transposed": seen.contrast_transposed,
    }  # fmt: skip
    if not seen:
        return [], facts
    why = []
    if seen.compared:
        why.append(f"exchanged they differ {seen.contrast_transposed / max(seen.contrast, 1e-9):.1f} times as much from their surroundings")
    if seen.outside > seen.outside_transposed:
        why.append(f"{100 * seen.outside:.0f} % leave their image, exchanged {100 * seen.outside_transposed:.0f} %")
    text = f"boxes look as if x and y were exchanged: {'; '.join(why)}"
    return [Finding("boxes swapped", "error", sum(map(len, boxes)), text)], facts


def _objects(target: Target) -> Tensor:
    """(N, 4) boxes of a target that are no crowd; none of an image with a label alone."""
    if "boxes" not in target:
        return torch.zeros(0, 4)
    boxes = target["boxes"].as_subclass(Tensor)
    return boxes[~target["iscrowd"]] if "iscrowd" in target else boxes


# -- what preprocessing makes ---------------------------------------------------------------------


def to_pixels(image: Tensor, preprocess: Any) -> Tensor:
    """A network's input (C, H, W) back on the scale 0..255, float32, not clipped."""
    mean, std = (torch.tensor(getattr(preprocess, name, (default,))).view(-1, 1, 1) for name, default in (("mean", 0.0), ("std", 1.0)))
    return (image.as_subclass(Tensor).float().cpu() * std + mean) * 255


def input_faults(samples: Sequence[Sample], items: Sequence[Item], preprocess: Any) -> tuple[list[Finding], dict[str, Any]]:
    """Compare inputs and targets of a batch with the samples that they were made of, by their geometries."""
    pixels = [to_pixels(image, preprocess) for image, _, _ in items]
    pairs = [_aligned(p, s.image, g) for p, s, (_, _, g) in zip(pixels, samples, items, strict=True)]
    seen = faults.rendering([a for a, _ in pairs], [b for _, b in pairs])
    values = torch.cat([image.as_subclass(Tensor).float().flatten(1) for image, _, _ in items], dim=1)
    facts: dict[str, Any] = {
        "shape": list(items[0][0].shape), "mean": values.mean(1).tolist(), "std": values.std(1).tolist(),
        "pixel_range": [float(min(p.min() for p in pixels)), float(max(p.max() for p in pixels))],
        "order": seen.order, "gain": seen.gain, "offset": seen.offset, "correlation": seen.correlation,
    }  # fmt: skip
    out = []
    count = len(items)
    if not bool(torch.isfinite(values).all()):
        out.append(Finding("input is no number", "error", count, "preprocessing gives values that are no numbers"))
    elif seen.correlation < 0.5:
        text = f"the input does not show the image (correlation {seen.correlation:.2f}): turned, transposed, or moved against its geometry"
        out.append(Finding("image moved", "error", count, text))
    elif not 0.75 <= seen.gain <= 1.33 or abs(seen.offset) > 40:
        how = "not normalised" if seen.gain > 20 else "normalised twice"
        low, high = facts["pixel_range"]
        text = f"the input, back in pixels, spans {low:.0f} to {high:.0f} and is {seen.gain:.3g} x image {seen.offset:+.0f}: {how}?"
        out.append(Finding(f"image {how}", "error", count, text))
    if seen.order not in ("", "RGB"):
        text = f"the network sees the channels in the order {seen.order}, images are RGB: published weights expect RGB"
        out.append(Finding("channels swapped", "error", count, text))
    return out + _target_faults(samples, items), facts


def _aligned(pixels: Tensor, image: Tensor, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Content of an input, and the image resized and cut to the same place; both thinned out."""
    image = image.as_subclass(Tensor)
    if image.shape[0] != pixels.shape[0]:
        image = F.rgb_to_grayscale(image) if pixels.shape[0] == 1 else image.expand(3, -1, -1)
    if geometry.resized != geometry.original:
        image = F.resize(image, list(geometry.resized), antialias=True)
    (top, left), (height, width) = geometry.offset, pixels.shape[-2:]
    image = image[:, max(-top, 0) :, max(-left, 0) :][:, : height - max(top, 0), : width - max(left, 0)]
    pixels = pixels[:, max(top, 0) :, max(left, 0) :][:, : image.shape[1], : image.shape[2]]
    image = image[:, : pixels.shape[1], : pixels.shape[2]]  # a preprocessing that breaks its own geometry
    step = max(1, int((image.shape[1] * image.shape[2] / MOST_PIXELS) ** 0.5))
    return pixels[:, ::step, ::step].numpy(), image[:, ::step, ::step].numpy()


def _target_faults(samples: Sequence[Sample], items: Sequence[Item]) -> list[Finding]:
    """Targets that preprocessing moved otherwise than the image, or renamed."""
    kinds: dict[tuple[str, str], list[str]] = {}

    def note(kind: str, text: str, target: Target) -> None:
        kinds.setdefault((kind, text), []).append(str(target.get("path", "")))

    for sample, (image, target, geometry) in zip(samples, items, strict=True):
        given = sample.target
        if "boxes" in given and "boxes" in target:
            expected = geometry.boxes_to_network(given["boxes"].as_subclass(Tensor)).numpy()
            kind = faults.moved(target["boxes"].as_subclass(Tensor).cpu().numpy(), expected)
            if kind == "swapped":
                note("boxes swapped", "preprocessing exchanges x and y of boxes", target)
            elif kind == "normalised":
                note("boxes normalised twice", "preprocessing gives boxes as fractions; they must be network pixels", target)
            elif kind:
                note("boxes moved", "preprocessing moves boxes otherwise than its geometry moves the image", target)
        for key in ("labels", "label"):
            if key in given and key in target and not torch.equal(torch.as_tensor(given[key]), torch.as_tensor(target[key]).cpu()):
                note("labels off by one", "preprocessing changes labels", target)
        if "mask" in given and "mask" in target:
            mask = target["mask"].as_subclass(Tensor)
            if mask.shape[-2:] != image.shape[-2:]:
                note("mask size", "preprocessing gives masks of another size than the input", target)
            if set(mask.unique().tolist()) - set(given["mask"].as_subclass(Tensor).unique().tolist()) - {IGNORE}:
                note("labels off by one", "preprocessing gives masks labels that their images do not have", target)
    return [Finding(kind, "error", len(where), text, where) for (kind, text), where in kinds.items()]


# -- how boxes fit --------------------------------------------------------------------------------


def fit_faults(
    model: Model, data: Dataset, positions: Sequence[int], larger: Callable[[float], str]
) -> tuple[list[Finding], dict[str, Any]]:
    """Objects at the size of the network's input, and the priors that should take them.

    Args:
        positions: images that are looked at.
        larger: what to do about objects that would have to be so many times as large, in words.
    """
    sides, best, centred = [], [], []
    threshold, stride, largest = None, 0.0, 0.0
    known: dict[tuple[int, int], Any] = {}
    for i in positions:
        record = data.record(i)
        if record.boxes is None or not len(record.boxes):
            continue
        try:
            geometry = model.preprocess.geometry(image_hw(data, record))
        except DataError:
            continue
        boxes = torch.as_tensor(np.asarray(record.boxes), dtype=torch.float32)
        if record.iscrowd is not None:
            boxes = boxes[~torch.as_tensor(np.asarray(record.iscrowd), dtype=torch.bool)]
        boxes = geometry.boxes_to_network(boxes)
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
        sides.append(boxes[:, 2:] - boxes[:, :2])
        if not isinstance(model, Detector):
            continue
        if geometry.canvas not in known:
            known[geometry.canvas] = model.prior_boxes(geometry.canvas)
        priors = known[geometry.canvas]
        if priors is None or not len(boxes):
            continue
        threshold, stride = priors.threshold, float(priors.stride)
        cells = priors.boxes.cpu()
        largest = max(largest, float((cells[:, 2:] - cells[:, :2]).prod(1).max()) ** 0.5)
        iou, inside = _best(boxes, cells)
        best.append(iou)
        centred.append(inside)
    side = torch.cat(sides) if sides else torch.zeros(0, 2)
    if not len(side):
        return [], {}
    short, length = side.min(1).values, side.prod(1).sqrt()
    facts: dict[str, Any] = {
        "objects": len(side), "side": {str(q): float(length.quantile(q / 100)) for q in (1, 10, 50, 90, 99)},
        "side_histogram": _histogram(length, float(length.quantile(0.99))), "below_8_pixels": float((short < SMALL).float().mean()),
    }  # fmt: skip
    out = []
    if facts["below_8_pixels"] > 0.02:
        need = SMALL / max(float(short.quantile(0.1 if facts["below_8_pixels"] > 0.1 else 0.02)), 0.1)
        level = "warning" if facts["below_8_pixels"] >= MANY else "note"
        text = f"of {len(side)} objects are less than {SMALL:g} pixels wide or high in the network's input; {larger(need)}"
        out.append(Finding("small objects", level, int((short < SMALL).sum()), text))
    if best:
        out += _prior_faults(torch.cat(best), torch.cat(centred), length, threshold, stride, largest, facts)
    return out, facts


def _histogram(values: Tensor, high: float, bins: int = 20) -> list[int]:
    """Counts in equal bins from 0 to ``high``; larger values are counted in the last."""
    return np.histogram(values.numpy().clip(max=high), bins=bins, range=(0, high))[0].tolist()


def _best(boxes: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) IoU with the best prior, and (N,) bool whether some prior's centre lies inside."""
    from saccade.boxes.iou import pairwise_iou

    centre = (priors[:, :2] + priors[:, 2:]) / 2
    iou, inside = [], []
    for some in boxes.split(max(1, 4_000_000 // max(len(priors), 1))):
        iou.append(pairwise_iou(some, priors).amax(1))
        inside.append(((centre > some[:, None, :2]) & (centre < some[:, None, 2:])).all(-1).any(1))
    return torch.cat(iou), torch.cat(inside)


def _prior_faults(
    best: Tensor, centred: Tensor, length: Tensor, threshold: float | None, stride: float, largest: float, facts: dict[str, Any]
) -> list[Finding]:
    facts |= {
        "stride": stride, "largest_prior": largest, "threshold": threshold, "iou_histogram": _histogram(best, 1.0),
        "median_best_iou": float(best.median()),
        "taken": float((best >= threshold).float().mean() if threshold is not None else centred.float().mean()),
        "below_stride": float((length < stride).float().mean()), "above_largest": float((length > 1.5 * largest).float().mean()),
    }  # fmt: skip
    out, count = [], len(best)
    median, middle = facts["median_best_iou"], float(length.median())
    if threshold is None:
        if facts["taken"] < 1 - MANY / 2:
            text = f"of {count} objects lie between the cells of the finest map ({stride:g} pixels apart): raise the input's size"
            out.append(Finding("objects between cells", "warning", int((~centred).sum()), text))
    elif median < 0.3:
        missing = int((best < threshold).sum())
        size = "too large for" if middle < largest else "too small for"
        text = (
            f"of {count} objects overlap no prior by {threshold:g}, half of all by {median:.2f} at most: the priors are {size} them "
            f"(half are below {middle:.0f} pixels in the input); set the priors' sizes (saccade data priors), or the input's size"
        )
        out.append(Finding("priors do not fit", "error" if median < 0.15 else "warning", missing, text))
    if threshold is not None and facts["above_largest"] > 0.02:
        level = "warning" if facts["above_largest"] >= MANY else "note"
        text = f"of {count} objects are more than 1.5 times as large as the largest prior ({largest:.0f} pixels): add larger ones"
        out.append(Finding("objects beyond priors", level, round(facts["above_largest"] * count), text))
    return out


def unassigned(assigned: Sequence[tuple[Assignment, ...]]) -> tuple[list[Finding], dict[str, Any]]:
    """Objects of a batch that no box of the first stage learns (later stages learn from samples: what one batch lacks the next has)."""
    facts: dict[str, Any] = {}
    out = []
    for number, stage in enumerate(zip(*assigned, strict=True)):
        counts = torch.cat([one.counts() for one in stage]).float()
        if not len(counts):
            continue
        missed, name = int((counts == 0).sum()), stage[0].name
        facts[name] = {"objects": len(counts), "median": float(counts.median()), "most": int(counts.max()), "without": missed}
        if number == 0 and missed > 0.05 * len(counts) + 1:
            text = f"of {len(counts)} objects in the batch are learnt by none of the {name}"
            out.append(Finding("objects not learnt", "warning", missed, text))
    return out, facts
