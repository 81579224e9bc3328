"""The one evaluator: any model, any data set, one setting of score, IoU and cap."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from saccade.data.dataset import Dataset
from saccade.engine.loaders import eval_loader
from saccade.metrics.base import Metric
from saccade.metrics.bootstrap import intervals as bootstrap
from saccade.metrics.temperature import fit_temperature, nll
from saccade.models.base import AdversarialModel, Model
from saccade.models.classify.base import Classifier
from saccade.tasks.generate import generated_like, real_truths
from saccade.tasks.table import task_class
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.prediction import Prediction
from saccade.types.recipe import EVALUATION, DecodeSettings
from saccade.types.sample import Target


@dataclass
class Evaluation:
    """What an evaluation gives.

    Attributes:
        metrics: named floats; NaN where a class is absent.
        tables: confusion matrix, curves ... for reports.
        main: name of the main metric.
        images: how many were scored; seconds: how long it took.
        skipped: broken files: path -> message.
        settings: score, IoU and cap.
        intervals: of many metrics the low and high end of the 95 % interval over the images (:mod:`saccade.metrics.bootstrap`).
    """

    metrics: dict[str, float]
    tables: dict[str, Any]
    main: str
    images: int
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)
    settings: DecodeSettings = EVALUATION
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def evaluate_model(
    model: Model,
    data: Dataset,
    *,
    settings: DecodeSettings = EVALUATION,
    batch_size: int = 16,
    workers: int | None = None,
    watch: Callable[[Prediction, Target], None] | None = None,
    intervals: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every image once and score.

    Args:
        model: trained; its classes must be the data's, by name.
        data: with truth for the model's task.
        settings: score, IoU and cap for every model alike.
        batch_size, workers: for speed only.
        watch: sees each prediction with its truth (reports).
        intervals: give 95 % intervals too (seconds at most).
        progress: called with (images done, all).
    """
    task = task_class(model.task)
    task.check_data(data)
    data = align_classes(data, model)
    if not len(data):
        raise DataError(data.index.root, f"split {data.split or 'all'!r} has no images")
    metric = task.make_metric(list(model.classes), settings)
    began, done, skipped = time.perf_counter(), 0, {}
    model.eval()
    with torch.inference_mode():
        for batch in eval_loader(data, model.preprocess, batch_size, workers=workers):
            skipped |= {problem.path: str(problem) for problem in batch.problems}
            if not batch.targets:
                continue
            done += len(batch.targets)
            predictions = score_batch(model, metric, batch, settings)
            if watch is not None:
                for prediction, truth in zip(predictions, batch.truths or [], strict=True):
                    prediction.path, prediction.image_id = str(truth.get("path", "")), truth.get("image_id")
                    watch(prediction, truth)
            if progress is not None:
                progress(done, len(data))
    if not done:
        raise DataError(data.index.root, "none of the images can be read", hint=next(iter(skipped.values()), ""))
    metrics, seconds = metric.compute(), time.perf_counter() - began
    ends = bootstrap(metric) if intervals else {}
    return Evaluation(metrics, metric.tables(), metric.main, done, seconds, skipped, settings, ends)


def calibrate(model: Model, data: Dataset, *, batch_size: int = 16, workers: int | None = None) -> tuple[float, float, float]:
    """Set a classifier's temperature by the likelihood of images that it did not learn from (:mod:`saccade.metrics.temperature`).

    Returns:
        The temperature, and the mean of -log p of the true classes without and with it.

    Raises:
        UsageError: the model has no temperature: it is no network for classification.
    """
    if not isinstance(model, Classifier):
        raise UsageError(f"a temperature is for networks that classify, not for {model.build_name or type(model).__name__}")
    scores, labels = [], []

    def watch(prediction: Any, truth: Target) -> None:
        scores.append(prediction.scores)
        labels.append(int(truth["label"]))

    model.temperature = 1.0
    evaluate_model(model, data, batch_size=batch_size, workers=workers, watch=watch, intervals=False)
    known, truth = np.stack(scores), np.array(labels)
    try:
        model.temperature = fit_temperature(known, truth)
    except ValueError as error:
        raise DataError(data.index.root, str(error)) from None
    return model.temperature, nll(known, truth), nll(known, truth, model.temperature)


def score_batch(model: Model, metric: Metric, batch: Any, settings: DecodeSettings) -> list[Prediction]:
    """Predictions of a batch, added to the metric."""
    if isinstance(model, AdversarialModel):
        made = generated_like(model, batch)
        metric.update(made, real_truths(model, batch))
        return list(made)
    predictions = model.predict_batch(batch.images, batch.geometries, **asdict(settings))
    metric.update(predictions, batch.truths)
    return predictions


def align_classes(data: Dataset, model: Model) -> Dataset:
    """The data with labels in the model's order of names; an error where the data have a class that the model lacks."""
    if model.task == "generate" or list(data.classes) == list(model.classes):
        return data
    if not model.classes_known and len(model.classes) == len(data.classes):
        return data  # a model that never learnt names: label k is the data's label k
    unknown = [name for name in data.classes if name not in model.classes]
    if unknown:
        names = ", ".join(map(repr, unknown[:6]))
        raise UsageError(f"the data have classes that the model lacks: {names}{suggest(unknown[0], model.classes)}")
    return relabel(data, [model.classes.index(name) for name in data.classes], list(model.classes))


def relabel(data: Dataset, mapping: list[int], classes: list[str]) -> Dataset:
    """A data set with label (or landmark) k turned to ``mapping[k]``."""
    import dataclasses

    from saccade.data import landmarks
    from saccade.data.records import PackedRecords

    if data.tasks[:1] == (landmarks.TASK,):
        index = landmarks.reorder(data.index, mapping, classes)
        return Dataset(index, data.indices, channels=data.channels, split=data.split, boxes_only=data.boxes_only)
    table = np.asarray(mapping)

    def moved() -> Any:
        for record in data.index.records:
            if record.label is not None:
                record.label = int(table[record.label])
            if record.labels is not None and len(record.labels):
                record.labels = table[record.labels]
            yield record

    values = data.index.mask_values
    if data.index.tasks[:1] == ("segment",):
        values = {raw: int(table[k]) for raw, k in (values or {k: k for k in range(len(mapping))}).items()}
    index = dataclasses.replace(data.index, records=PackedRecords(moved()), classes=classes, mask_values=values)
    return Dataset(index, data.indices, channels=data.channels, split=data.split, boxes_only=data.boxes_only)
