"""Training of a cascade (:mod:`saccade.features.haar`): boosted stumps, stage after stage, each against what the others let pass.

Papers: Freund, Schapire: A Decision-Theoretic Generalization of On-Line Learning and an Application to Boosting (1997). Viola, Jones
(CVPR 2001): of many features each round takes the stump with the least weighted error; a stage ends when it keeps nearly all objects
and drops half of the others; the next one sees false alarms of the cascade so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from saccade.boxes.iou import pairwise_iou
from saccade.features.haar import Cascade, all_features, normalised_values
from saccade.features.names import check_range, check_whole
from saccade.features.pixels import as_images, as_pixels, grey, plain_array, resized
from saccade.types.errors import UsageError

STEP = 3
"""Pixels between the windows in which false alarms are looked for."""

LOOKS = 10
"""How often each picture is searched for them, at another size each time."""

AWAY = 0.3
"""A window whose IoU with an object is below is none."""


class Stump(NamedTuple):
    """``sign * value > sign * threshold`` of one feature votes for an object; ``error`` is its weighted share of mistakes."""

    feature: int
    threshold: float
    sign: int
    error: float


def train_cascade(
    objects: Sequence[Any],
    backgrounds: Sequence[Any],
    *,
    avoid: Sequence[np.ndarray] | None = None,
    window: int = 24,
    stages: int = 12,
    hit_rate: float = 0.995,
    false_rate: float = 0.5,
    stumps: int = 60,
    features: int = 3000,
    others: int = 2000,
    mirror: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Cascade:
    """A cascade that tells cut-out objects from windows of pictures without them.

    Args:
        objects: cut-outs, resized to the window. backgrounds: pictures, those at least as large as the window are used. Lists of
            images, each as :func:`saccade.features.pixels.as_pixels` takes it; colour is turned to grey.
        avoid: (n, 4) XYXY boxes of each background that no window is taken at (with an IoU of 0.3 or more): the objects in it.
            None where no background has an object.
        window: side in pixels.
        stages: at most; training ends before when no false alarm is found any more.
        hit_rate: least share of the training objects that pass a stage.
        false_rate: share of the others that a stage lets pass at most, or ``stumps`` are in it.
        features: so many of all, drawn at random for each stage.
        others: windows without an object that a stage is trained on.
        mirror: every object counts mirrored, too.
        seed: of all draws.
        say: sees a line a stage.

    Raises:
        UsageError: no objects, no background that holds a window, boxes that are not one array (n, 4) for each background, or an
            option that cannot be.
    """
    check_whole(8, 64, window=window)
    check_whole(1, 100, stages=stages)
    check_range(0.5, 1, hit_rate=hit_rate)
    check_range(0.01, 0.99, false_rate=false_rate)
    check_whole(1, 10_000, stumps=stumps)
    check_whole(10, 1_000_000, features=features, others=others)
    check_whole(0, None, seed=seed)
    backgrounds = as_images(backgrounds, empty=True)
    free = [np.zeros((0, 4))] * len(backgrounds) if avoid is None else [_boxes(boxes) for boxes in avoid]
    if len(free) != len(backgrounds):
        raise UsageError(f"avoid holds boxes of {len(free)} backgrounds, but there are {len(backgrounds)}: one array (n, 4) for each")
    rng = np.random.default_rng(seed)
    cut = [resized(grey(as_pixels(image)), (window, window)) for image in as_images(objects, empty=True)]
    large = [(grey(as_pixels(image)), boxes) for image, boxes in zip(backgrounds, free, strict=True)]
    large = [(pixels, boxes) for pixels, boxes in large if min(pixels.shape) >= window]
    pictures, taken = [pixels for pixels, _ in large], [boxes for _, boxes in large]
    if not cut or not pictures:
        raise UsageError(f"{len(cut)} objects and {len(pictures)} backgrounds of {window} pixels or more: at least one of each")
    positives = np.stack(cut + [image[:, ::-1] for image in cut] if mirror else cut)
    every = all_features(window)
    none = np.zeros(0, np.float32)
    cascade = Cascade(window, every[:0], none, none.astype(np.int8), none, np.zeros(0, np.int64), none)
    for stage in range(stages):
        negatives = false_alarms(cascade, pictures, taken, others, rng)
        positives = positives[cascade.passes(positives)]
        if len(negatives) < 10:
            if not stage:  # a cascade without a stage takes everything for an object
                raise UsageError(
                    f"{len(negatives)} windows of the backgrounds lie away from the objects: more or larger pictures are needed"
                )
            say(f"{len(negatives)} false alarms are left: done after {stage} stages")
            break
        chosen = every[np.sort(rng.choice(len(every), min(features, len(every)), replace=False))]
        found, weights, least = boost(
            normalised_values(positives, chosen),
            normalised_values(negatives, chosen),
            hit_rate=hit_rate,
            false_rate=false_rate,
            stumps=stumps,
        )
        cascade = Cascade(
            window,
            np.concatenate([cascade.features, chosen[[stump.feature for stump in found]]]),
            np.append(cascade.thresholds, [stump.threshold for stump in found]).astype(np.float32),
            np.append(cascade.signs, [stump.sign for stump in found]).astype(np.int8),
            np.append(cascade.weights, weights).astype(np.float32),
            np.append(cascade.ends, len(cascade.features) + len(found)),
            np.append(cascade.least, least).astype(np.float32),
        )
        kept, passed = cascade.passes(positives).mean(), cascade.passes(negatives).mean()
        say(f"stage {stage + 1}: {len(found)} stumps keep {kept:.4f} of {len(positives)} objects, {passed:.3f} of {len(negatives)} others")
    return cascade


def _boxes(boxes: Any) -> np.ndarray:
    """(n, 4) float64; n = 0 of an empty list."""
    accepted = "avoid holds boxes (n, 4) of finite numbers for each background"
    array = plain_array(boxes, accepted)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise UsageError(f"{accepted}; not {array.dtype} of shape {array.shape}")
    return array.astype(np.float64)


def boost(
    positives: np.ndarray, negatives: np.ndarray, *, hit_rate: float, false_rate: float, stumps: int
) -> tuple[list[Stump], np.ndarray, float]:
    """One stage: AdaBoost on feature values (P, F) and (N, F).

    Returns:
        The stumps, their weights ``log((1 - e) / e)``, and the votes that ``hit_rate`` of the objects reach.
    """
    values = np.concatenate([positives, negatives])
    labels = np.r_[np.ones(len(positives)), -np.ones(len(negatives))]
    weights = np.r_[np.full(len(positives), 0.5 / len(positives)), np.full(len(negatives), 0.5 / len(negatives))]
    order = values.argsort(0, kind="stable")
    inner = np.diff(np.take_along_axis(values, order, 0), axis=0) > 0  # a threshold lies between two different values
    votes, found, strengths = np.zeros(len(values)), [], []
    least = 0.0
    for _ in range(stumps):
        weights /= weights.sum()
        stump = best_stump(values, labels, weights, order, inner)
        if stump is None:
            break
        says = stump.sign * values[:, stump.feature] > stump.sign * np.float32(stump.threshold)
        error = min(max(stump.error, 1e-6), 0.5)
        strength = np.float32(np.log((1 - error) / error))
        votes = (votes + np.where(says, strength, 0)).astype(np.float32)
        weights = weights * np.where(says == (labels > 0), error / (1 - error), 1)
        found.append(stump)
        strengths.append(strength)
        reached = np.sort(votes[: len(positives)])
        least = float(reached[int((1 - hit_rate) * len(positives))]) - 1e-4
        if error >= 0.5 or (votes[len(positives) :] >= least).mean() <= false_rate:
            break
    if not found:
        raise UsageError("no feature tells the objects from the background: are the pictures all the same?")
    return found, np.array(strengths, np.float32), least


def best_stump(values: np.ndarray, labels: np.ndarray, weights: np.ndarray, order: np.ndarray, inner: np.ndarray) -> Stump | None:
    """The stump with the least weighted error; None when no feature has two different values.

    Args:
        values: (M, F). labels: (M,) +1 or -1. weights: (M,), sum 1.
        order: (M, F) that sorts each column of ``values``.
        inner: (M - 1, F) where neighbours in that order differ.
    """
    # With sign +1 and the threshold above the first k + 1 values, the mistakes are the objects among these and the others above:
    # the sum of all others' weights plus that of weight * label up to k.
    running = (weights * labels).astype(np.float32)[order][:-1].cumsum(0)
    negative = float(weights[labels < 0].sum())
    up, down = np.where(inner, running, np.inf), np.where(inner, running, -np.inf)
    low, high = up.argmin(0), down.argmax(0)
    columns = np.arange(values.shape[1])
    errors = np.stack([negative + up[low, columns], 1 - negative - down[high, columns]])
    if not np.isfinite(errors).any():
        return None
    which, column = np.unravel_index(errors.argmin(), errors.shape)
    row = (low, high)[which][column]
    below, above = (float(values[order[row + k, column], column]) for k in (0, 1))
    threshold = float(np.float32((below + above) / 2))
    return Stump(int(column), threshold if below <= threshold < above else below, 1 if which == 0 else -1, float(errors[which, column]))


def false_alarms(
    cascade: Cascade, pictures: Sequence[np.ndarray], avoid: Sequence[np.ndarray], count: int, rng: np.random.Generator
) -> np.ndarray:
    """At most ``count`` windows (n, W, W) uint8 of the pictures that pass away from what to ``avoid``, pictures and scales in random order.

    A picture is read :data:`LOOKS` times, at sizes between its own and that at which one window fills it; each time it gives a tenth of the
    windows at most.
    """
    import cv2

    out: list[np.ndarray] = []
    side = cascade.window
    share = max(count // 10, 1)
    for number in rng.permutation(np.repeat(np.arange(len(pictures)), LOOKS)):
        picture = pictures[number]
        factor = np.exp(rng.uniform(0, np.log(min(picture.shape) / side)))
        width, height = (max(round(length / factor), side) for length in (picture.shape[1], picture.shape[0]))
        smaller = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        places = cascade.scan(smaller, STEP)
        if len(avoid[number]):
            corners = np.concatenate([places, places + side], 1) * np.tile([picture.shape[1] / width, picture.shape[0] / height], 2)
            places = places[
                (pairwise_iou(torch.from_numpy(corners), torch.as_tensor(avoid[number], dtype=torch.float64)) < AWAY).all(1).numpy()
            ]
        for x, y in places[rng.permutation(len(places))[: min(share, count - len(out))]]:
            out.append(smaller[y : y + side, x : x + side])
        if len(out) >= count:
            break
    return np.stack(out) if out else np.zeros((0, side, side), np.uint8)
