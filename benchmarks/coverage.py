"""Coverage of 95 % intervals over few images: how often they hold the number that very many images would give.

python -m benchmarks.coverage [classify segment detect] [--models good] [--images 10 20 ...] [--repetitions 1000] [--draws 400] [--ours]
    [--seed 0] [--append] [--out FOLDER]

Simulated test sets of 10 to 300 images, scored by the metrics of this package; ``truth`` is the number of 30 000 images of the same kind.

* accuracy: images right with the same probability.
* mean_iou: four classes in 100, 90, 60 and 30 % of the images; the share of right pixels varies from image to image and class to class.
* map50 of detections of three classes, 10, 1 and 0.4 objects an image (red cells, white cells and something rare): images are busy or
  empty (gamma-Poisson), easy or hard (a beta-distributed recall and scores that go with it), false detections come in clusters.
  map50/common, map50/single and map50/rare are AP50 of the classes; a set without the rare class has none of it.

Each by a ``good``, a ``poor`` and, detection only, a ``flat`` model, whose scores tell little between right and wrong. A row a metric,
model, number of images and method: ``coverage`` (``coverage_error``: its binomial standard error), ``above`` and ``below``: intervals
wholly above or below the truth, ``width``: the mean, ``bias``: of the number itself over such sets, ``deviation``: its standard deviation.
Methods: ``saccade`` (saccade.metrics.bootstrap), and what else was tried, all on the same resamples: ``percentile``; ``expanded``
percentile (Hesterberg 2015, arXiv 1411.5279); ``bca`` (Efron 1987) and ``bca expanded``; ``normal``, ``logit`` and ``wilson``: Student's t
with the standard error of the resamples, plainly, of the logit, and in Wilson's interval without the bound by trials; ``logit jackknife``:
with the jackknife's error; ``logit recentred``: moved by the bootstrap's estimate of bias. Results go to results/coverage.csv.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from benchmarks.common import RESULTS, write_csv
from saccade.metrics.bootstrap import Resampled, Resampler, collect, ends, resamples, wilson
from saccade.metrics.classification import ClassificationMetric
from saccade.metrics.detection import DetectionImage, DetectionMetric
from saccade.metrics.segmentation import SegmentationMetric

IMAGES = (10, 20, 36, 72, 150, 300)
POPULATION = 30_000
CLASSES = ("common", "single", "rare")
OBJECTS = (10.0, 1.0, 0.4)
"""An image, by class."""
RECALL = {"good": (2.6, 3.2, 1.6), "poor": (0.8, 1.2, -0.2), "flat": (0.8, 1.2, -0.2)}
"""Logits, of an image of usual ease, by class."""
FALSE = {"good": 0.25, "poor": 0.6, "flat": 1.0}
"""False detections an object."""
APART = {"good": 2.7, "poor": 2.0, "flat": 0.3}
"""Scores of right detections above those of false ones, in standard deviations."""

Ends = tuple[float, float]


def classified(random: np.random.Generator, images: int, quality: str) -> ClassificationMetric:
    right = random.random(images) < {"good": 0.92, "poor": 0.6}[quality]
    metric = ClassificationMetric(["a", "b"])
    metric.merge([[(0, int(not hit), int(not hit), 0.9, "", "", 0.0) for hit in right.tolist()]])
    return metric


def segmented(random: np.random.Generator, images: int, quality: str) -> SegmentationMetric:
    """Wrong pixels go to the other classes of the image, by their area."""
    ease = random.normal(size=(images, 1)) * 0.8 + random.normal(size=(images, 4)) * 0.5
    share = expit(np.array([3.0, 2.2, 1.5, 1.2]) - (1.3 if quality == "poor" else 0.0) + ease)
    area = random.dirichlet([6, 2, 1, 0.5], images) * (random.random((images, 4)) < [1, 0.9, 0.6, 0.3]) * 10_000
    right = np.round(area * share)
    true = np.round(area)
    others = (true + 1)[:, None] * (1 - np.eye(4))
    wrong = np.einsum("nk,nkj->nj", true - right, others / others.sum(2, keepdims=True))
    counts = np.round(np.stack([right, true, right + wrong], axis=1)).astype(np.int64)
    metric = SegmentationMetric(["a", "b", "c", "d"])
    metric.merge([(metric.confusion, metric.boundary.counts, [("", "", one) for one in counts])])
    return metric


def detected(random: np.random.Generator, images: int, quality: str) -> DetectionMetric:
    """Objects side by side; a right detection has its object's box, a false one lies elsewhere."""
    ease, busy = random.normal(size=images), random.gamma(3, 1 / 3, images)
    rows: list[list[np.ndarray]] = [[], [], []]  # image, label, place: of objects, right detections, false ones
    scores: list[list[np.ndarray]] = [[], []]
    for label, (rate, base) in enumerate(zip(OBJECTS, RECALL[quality], strict=True)):
        count = random.poisson(rate * busy)
        image = np.repeat(np.arange(images), count)
        middle = expit(base + 0.7 * ease)
        hit = random.random(len(image)) < random.beta(8 * middle, 8 * (1 - middle))[image]
        place = np.arange(len(image)) - np.repeat(np.cumsum(count) - count, count)
        false = random.poisson(FALSE[quality] * rate * random.gamma(1, 1, images) * np.exp(-0.4 * ease))
        wrong = np.repeat(np.arange(images), false)
        parts = ((image, place), (image[hit], place[hit]), (wrong, np.full(len(wrong), -2)))
        for row, (where, column) in zip(rows, parts, strict=True):
            row.append(np.stack([where, np.full(len(where), label), column], axis=1))
        scores[0].append(APART[quality] + 0.7 * ease[image[hit]] + random.normal(size=int(hit.sum())))
        scores[1].append(random.normal(size=len(wrong)))
    metric = DetectionMetric(CLASSES)
    truth, found = np.concatenate(rows[0]), np.concatenate(rows[1] + rows[2])
    score = expit(np.concatenate(scores[0] + scores[1]))
    of_truth, of_found = (np.argsort(table[:, 0], kind="stable") for table in (truth, found))
    truth, found, score = truth[of_truth], found[of_found], score[of_found]
    begin, start = (np.searchsorted(table[:, 0], np.arange(images + 1)) for table in (truth, found))
    for i in range(images):
        there, mine = truth[begin[i] : begin[i + 1]], slice(start[i], start[i + 1])
        none = np.zeros(len(there), dtype=bool)
        metric.add(
            DetectionImage(
                i, "", (100, 100), _boxes(found[mine]), found[mine, 1], score[mine], np.full(len(found[mine]), 64.0),
                _boxes(there), there[:, 1], np.full(len(there), 64.0), none, none,
            )
        )  # fmt: skip
    return metric


def _boxes(rows: np.ndarray) -> np.ndarray:
    return np.stack([10.0 * rows[:, 2], 10.0 * rows[:, 1], np.full(len(rows), 8.0), np.full(len(rows), 8.0)], axis=1)


SETS: dict[str, tuple[Callable[[np.random.Generator, int, str], Resampled], tuple[str, ...], tuple[str, ...]]] = {
    "classify": (classified, ("good", "poor"), ("accuracy",)),
    "segment": (segmented, ("good", "poor"), ("mean_iou", "iou/d")),
    "detect": (detected, ("good", "poor", "flat"), ("map50", *(f"map50/{name}" for name in CLASSES))),
}
"""By task: makes a set and its model's predictions, collected; models; numbers."""


def left_out(images: int) -> Iterator[np.ndarray]:
    """The weights of the jackknife."""
    yield 1 - np.eye(images)


def others(value: float, drawn: np.ndarray, left: np.ndarray, images: int) -> dict[str, Ends]:
    """The ends by the methods that were tried, on the same resamples; ``left``: (N,) numbers with one image left out."""
    drawn, left = drawn[~np.isnan(drawn)], left[~np.isnan(left)]
    if not len(drawn):
        return {}
    student = float(stdtrit(images - 1, 0.975))
    error = float(drawn.std()) * np.sqrt(images / (images - 1))
    wide = ndtr(-np.sqrt(images / (images - 1)) * student)
    below = np.clip(((drawn < value - 1e-9).mean() + (drawn <= value + 1e-9).mean()) / 2, 0.5 / len(drawn), 1 - 0.5 / len(drawn))
    gap = left.mean() - left if len(left) else np.zeros(1)
    skew = float((gap**3).sum() / (6 * (gap**2).sum() ** 1.5)) if (gap**2).sum() > 0 else 0.0

    def by_quantiles(tail: float, corrected: bool) -> Ends:
        tails = np.array([tail, 1 - tail])
        if corrected:
            shifted = ndtri(below) + ndtri(tails)
            tails = ndtr(ndtri(below) + shifted / (1 - skew * shifted))
        low, high = np.quantile(drawn, tails)
        return float(low), float(high)

    def by_logit(middle: float, error: float) -> Ends:
        middle = min(max(middle, 1e-6), 1 - 1e-6)
        reach = student * error / (middle * (1 - middle))
        return float(expit(logit(middle) - reach)), float(expit(logit(middle) + reach))

    jackknife = float(np.sqrt((len(left) - 1) * (gap**2).mean())) if len(left) else 0.0
    size = value * (1 - value) / error**2 if error > 1e-6 else 0.0
    return {
        "percentile": by_quantiles(0.025, False),
        "expanded": by_quantiles(wide, False),
        "bca": by_quantiles(0.025, True),
        "bca expanded": by_quantiles(wide, True),
        "normal": (value - student * error, value + student * error),
        "logit": by_logit(value, error),
        "logit jackknife": by_logit(value, jackknife),
        "logit recentred": by_logit(2 * value - float(drawn.mean()), error),
        "wilson": wilson(value, size or images, student),
    }


def simulate(task: str, quality: str, images: int, truth: dict[str, float], a: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of one size of set."""
    make, _, names = SETS[task]
    found: dict[tuple[str, str], list[Ends]] = {}
    values: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(a.repetitions if images < 100 else a.repetitions // 3):
        random = np.random.default_rng([a.seed, repetition, images])
        resampler = make(random, images, quality).resampler([*names])
        exact = {name: float(v[0]) for name, v in resampler.values(np.ones((1, images))).items()}
        drawn = collect(resampler, resamples(resampler, a.draws, repetition))
        ours = ends(resampler, exact, drawn)
        left = collect(resampler, left_out(images)) if a.methods else {}
        for name in names:
            if np.isnan(exact[name]):
                continue
            values[name].append(exact[name])
            rivals = others(exact[name], drawn[name], left[name], images) if a.methods else {}
            for method, pair in ({"saccade": ours[name]} | rivals).items():
                found.setdefault((name, method), []).append(pair)
    rows: list[dict[str, object]] = []
    for (name, method), pairs in found.items():
        low, high = np.array(pairs).T
        slack = 1e-9
        above, below = (low > truth[name] + slack).mean(), (high < truth[name] - slack).mean()
        held = float(1 - above - below)
        rows.append(
            {
                "task": task, "model": quality, "metric": name, "images": images, "method": method, "coverage": held,
                "coverage_error": float(np.sqrt(held * (1 - held) / len(pairs))), "above": float(above), "below": float(below),
                "width": float((high - low).mean()), "truth": truth[name], "bias": float(np.mean(values[name]) - truth[name]),
                "deviation": float(np.std(values[name])), "repetitions": len(pairs), "draws": a.draws, "seed": a.seed,
            }
        )  # fmt: skip
    return rows


def true_values(task: str, quality: str, seed: int) -> dict[str, float]:
    """The numbers of very many images; accuracy's is known."""
    if task == "classify":
        return {"accuracy": {"good": 0.92, "poor": 0.6}[quality]}
    make, _, names = SETS[task]
    resampler: Resampler = make(np.random.default_rng([seed, 1_000_000_000]), POPULATION, quality).resampler([*names])
    return {name: float(values[0]) for name, values in resampler.values(np.ones((1, POPULATION))).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=[*SETS], help=f"of {', '.join(SETS)}")
    parser.add_argument("--models", nargs="+", default=[*RECALL], help=f"of {', '.join(RECALL)}")
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--repetitions", type=int, default=1000, help="a third as many from 100 images on")
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ours", dest="methods", action="store_false", help="only saccade's own method, not the others")
    parser.add_argument("--append", action="store_true", help="keep the rows that are there")
    parser.add_argument("--out", default=RESULTS, help="folder of coverage.csv")
    a = parser.parse_args()
    rows = []
    for task in a.tasks:
        for quality in [one for one in SETS[task][1] if one in a.models]:
            truth = true_values(task, quality, a.seed)
            for images in a.images:
                began = time.process_time()
                new = simulate(task, quality, images, truth, a)
                rows += new
                for row in new:
                    if row["method"] == "saccade":
                        texts = (f"{key} {row[key]:.3f}" for key in ("coverage", "width", "truth", "bias", "deviation"))
                        print(f"{quality} {row['metric']} {images}:", *texts, flush=True)
                print(f"  {time.process_time() - began:.1f} s", flush=True)
    print(write_csv("coverage", rows, append=a.append, folder=Path(a.out)))


if __name__ == "__main__":
    main()
