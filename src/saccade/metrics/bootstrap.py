"""Intervals: how far a number would move had other images of the same kind been drawn.

The images are the units (Efron 1979, "Bootstrap methods: another look at the jackknife"): a resample draws as many images as there are,
with replacement, and takes each image whole, with all its objects or pixels. Models do not predict anew and nothing is matched anew: a
metric keeps what an image gives to its numbers, and a resample is one weight an image (how often it was drawn). AP of a resample walks
its weighted detections, best first; equal scores stay in the order of the images. A resample in which a number does not exist (no object
of the class was drawn) is left out.

Quantiles of the resampled values are poor ends where images are few or the number is near 1: a number of which every resample is 1 has no
spread at all. So the resamples give only the variance v, and the ends are Wilson's (1927) for a share p of m trials,

    (p + z^2 / 2m +- z sqrt(p (1 - p) / m + z^2 / 4m^2)) / (1 + z^2 / m),   m = p (1 - p) / v (t[n-1] / t[d])^2,

with m the effective sample size of Korn and Graubard (1998, "Confidence intervals for proportions with small expected number of positive
counts estimated from survey data"): never above the n trials that there were (Parker et al. 2017, "National Center for Health Statistics
data presentation standards for proportions"), which are images for accuracy, objects for recall and AP (the trials of AP's binomial
interval: Boyd, Eng and Page 2013, "Area under the precision-recall curve: point estimates and confidence intervals") and have no bound
for pixels; and never below the g images that have the class, as if each were right or wrong as a whole. t are Student's quantiles,
d = g - 1, and v has the factor g / (g - 1), which a bootstrap lacks. A mean over K classes has n = K^2 / sum(1 / n_k), g likewise, and
Satterthwaite's (1946) d. Where v is 0, m is n, or g for pixels: a set on which all is right leaves an interval of some width.

How often 95 % intervals of simulated sets held the number of very many images (benchmarks/coverage.py; in brackets BCa, Efron 1987):

    images                   10           20           36           72           150          300
    accuracy 0.92            0.97 (0.51)  0.93 (0.80)  0.97 (0.89)  0.96 (0.95)  0.94 (0.96)  0.96 (0.97)
    mean IoU 0.72            0.95 (0.84)  0.93 (0.87)  0.93 (0.89)  0.93 (0.91)  0.94 (0.93)  0.96 (0.95)
    map50 0.88               0.95 (0.73)  0.95 (0.85)  0.95 (0.92)  0.94 (0.94)  0.97 (0.96)  0.94 (0.93)
    map50 0.32, flat scores  0.91 (0.82)  0.92 (0.89)  0.89 (0.88)  0.93 (0.92)  0.93 (0.92)  0.93 (0.92)

The last is of a detector whose scores hardly tell right from wrong: AP takes the best precision at each recall or above, so AP of few
images is too high on the average, there by 0.06 at 10 images and 0.02 at 72, about half its standard deviation. None of the methods tried
mends that; moving the interval by the bootstrap's estimate of the bias helps little. Of the other detectors map50 is off by less than 0.01.

What the interval does not hold: another training run (seeds), images of another kind, and images that depend on each other (frames of
one film).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

BLOCK = 2_000_000
"""Numbers of the largest array at once."""
RECALLS = np.linspace(0, 1, 101)


class Support(NamedTuple):
    """What a number rests on.

    Attributes:
        images: g, those that have the class.
        trials: n, the things (images, objects) of which it is a share or a mean; none known for pixels.
    """

    images: float
    trials: float = math.inf


class Resampler(NamedTuple):
    """A metric's numbers as a function of the images' weights.

    Attributes:
        images: N.
        values: (B, N) whole weights -> (B,) values in 0..1 by name; NaN where a number does not exist.
        width: columns of its largest array, for the size of blocks.
        support: of numbers that are no means; one that is missing rests on all images.
        means: of numbers that are means of others: the others' names.
    """

    images: int
    values: Callable[[np.ndarray], dict[str, np.ndarray]]
    width: int = 0
    support: Mapping[str, Support] = MappingProxyType({})
    means: Mapping[str, Sequence[str]] = MappingProxyType({})


@runtime_checkable
class Resampled(Protocol):
    """A metric that offers intervals."""

    def resampler(self, names: Sequence[str] | None = None) -> Resampler:
        """For the numbers ``names`` at least, or for all that it can."""
        ...


def intervals(
    metric: object, names: Sequence[str] | None = None, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Low and high end of numbers of a metric, over its images.

    Args:
        metric: one of ours, with everything collected; one that offers no intervals (generation) gives {}, as do fewer than 2 images.
        names: of ``metric.compute()``; None takes all that the metric offers.
        draws: resamples.
        level: share of such intervals that hold the true value, about.
        seed: of the draws; the same images give the same intervals.

    Raises:
        ValueError: a name for which the metric offers no interval.

    Returns:
        (low, high) by name, with the number between them; (NaN, NaN) where the number itself is NaN.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 1 and level between 0 and 1, not {draws} and {level}")
    resampler = metric.resampler(names) if isinstance(metric, Resampled) else None
    if resampler is None or resampler.images < 2:
        return {}
    exact = {name: float(values[0]) for name, values in resampler.values(np.ones((1, resampler.images))).items()}
    unknown = [name for name in names or () if name not in exact]
    if unknown:
        raise ValueError(f"no interval for {unknown[0]!r}; known: {', '.join(exact)}")
    found = ends(resampler, exact, collect(resampler, resamples(resampler, draws, seed)), level)
    return {name: found[name] for name in (names if names is not None else exact)}


def ends(
    resampler: Resampler, exact: Mapping[str, float], drawn: Mapping[str, np.ndarray], level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """(low, high) of every number from its ``exact`` value and its (B,) ``drawn`` ones; the module has the formula."""
    from scipy.special import stdtrit

    def quantile(freedom: float) -> float:
        return float(stdtrit(np.clip(freedom, 1, 1e9), (1 + level) / 2))

    spread = {name: float(np.nanvar(values)) if (~np.isnan(values)).any() else 0.0 for name, values in drawn.items()}
    out = {}
    for name, value in exact.items():
        if math.isnan(value):
            out[name] = (math.nan, math.nan)
            continue
        parts = resampler.means.get(name, [name])
        rests = [resampler.support.get(part, Support(resampler.images)) for part in parts]
        images, trials = (_pooled(column) for column in zip(*rests, strict=True))
        plain = np.array([spread[part] for part in parts])
        free = np.maximum([rest.images for rest in rests], 2) - 1  # degrees of freedom of each part
        share = plain * (1 + 1 / free)
        variance, freedom = spread[name], min(images, resampler.images) - 1
        if share.sum() > 0:
            variance *= share.sum() / plain.sum()
            freedom = share.sum() ** 2 / (share**2 / free).sum()
        least = min(images, resampler.images, trials)
        size = trials if trials < math.inf else least
        if variance > 1e-12:
            found = value * (1 - value) / variance * (quantile(trials - 1) / quantile(freedom)) ** 2
            size = min(max(found, least), trials)
        out[name] = wilson(value, size, quantile(math.inf))
    return out


def _pooled(counts: Sequence[float]) -> float:
    """Trials of a mean of K independent shares that has the variance of one share of so many."""
    total = sum(1 / max(count, 1) for count in counts)
    return len(counts) ** 2 / total if total else math.inf


def wilson(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Wilson's (1927) interval of a share of ``size`` trials, both not whole in general; ``quantile`` of the normal: 1.96 for 95 %."""
    half = quantile**2 / (2 * size)
    middle, reach = share + half, quantile * math.sqrt(max(share * (1 - share), 0) / size + (half / quantile) ** 2)
    low, high = (min(max(end / (1 + 2 * half), 0.0), 1.0) for end in (middle - reach, middle + reach))
    return min(low, share), max(high, share)  # rounding


def image_sums(images: int, image: np.ndarray, column: np.ndarray, columns: int, amount: np.ndarray | None = None) -> Any:
    """(images, columns) sparse (SciPy): row ``image[i]``, column ``column[i]`` gets ``amount[i]`` (1). Weights @ it: sums of a resample."""
    from scipy.sparse import csc_array

    amount = np.ones(len(image)) if amount is None else np.asarray(amount, dtype=np.float64)
    return csc_array((amount, (image, column)), shape=(images, columns))


class Ranking:
    """Detections of one class over all images, for the average precision (COCO's, 101 recalls) of weighted images.

    Args:
        images: N.
        image: (D,) number of each detection's image, those that count neither way left out.
        scores: (D,).
        right: (D,) whether it found an object.
    """

    def __init__(self, images: int, image: np.ndarray, scores: np.ndarray, right: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        image, right = image[order], right[order]
        self.hits = image[right]
        # Only the places of right detections matter, and how many wrong ones stand before each; those behind the last never do.
        after = np.cumsum(right)
        before = ~right & (after < len(self.hits))
        self.wrong = image_sums(images, image[before], after[before], len(self.hits))

    def average_precision(self, weights: np.ndarray, there: np.ndarray) -> np.ndarray:
        """(B,) for (B, N) whole weights and the (B,) objects of the class that they leave; NaN for none."""
        rows, size = len(weights), len(self.hits)
        found = np.cumsum(weights[:, self.hits], axis=1)
        total = np.cumsum(weights @ self.wrong, axis=1) + found
        best = np.zeros((rows, size + 1))  # the last column: recalls that are never reached
        np.divide(found, total, out=best[:, :-1], where=total > 0)
        best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
        need = _needed(there)
        # One search for all rows: each is lifted above the one before.
        row = np.arange(rows)[:, None]
        lift = row * (need.max() + 2)
        place = np.searchsorted((found + lift).ravel(), (need + lift).ravel()).reshape(need.shape) - row * size
        return np.where(there > 0, best[row, place].mean(1), np.nan)


def _needed(there: np.ndarray) -> np.ndarray:
    """(B, 101) fewest objects whose share of ``there`` is at least each recall, by the same rounding as found / there >= recall."""
    there = np.maximum(there, 1)[:, None]
    need = np.ceil(RECALLS * there)
    need -= (need - 1) / there >= RECALLS
    return need + (need / there < RECALLS)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part`` / ``whole``; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def mean_of(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(B,) mean over the columns that are ``there``, both (B, K); NaN for none."""
    return ratio(np.where(there, values, 0.0).sum(1), there.sum(1))


def resamples(resampler: Resampler, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of weights (B, N): how often each image is drawn."""
    rng, size = np.random.default_rng(seed), resampler.images
    rows = max(1, BLOCK // max(size, resampler.width))
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)


def collect(resampler: Resampler, blocks: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    """(B,) by name: the numbers of all blocks of weights."""
    parts = [resampler.values(weights) for weights in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
