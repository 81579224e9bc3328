"""Score a run, a bundle, a model in memory, or a file of predictions made elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saccade.data.dataset import Dataset
from saccade.data.load import load_data
from saccade.engine.bundle import load_bundle, set_temperature
from saccade.engine.config import RunConfig
from saccade.engine.evaluator import Evaluation, calibrate, evaluate_model
from saccade.engine.run import read_data_facts
from saccade.metrics.bootstrap import intervals as bootstrap
from saccade.models.base import Model
from saccade.models.classify.base import with_views
from saccade.types.errors import UsageError
from saccade.types.recipe import EVALUATION, DecodeSettings


def evaluate(
    what: str | Path | Model,
    data: str | Path | Dataset,
    *,
    split: str | None = "test",
    format: str | None = None,
    split_file: str | Path | None = None,
    score: float = EVALUATION.score,
    iou: float = EVALUATION.iou,
    max_detections: int = EVALUATION.max_detections,
    batch_size: int = 16,
    workers: int | None = None,
    device: str = "cpu",
    seed: int | None = None,
    predictions_format: str | None = None,
    tta: Sequence[str] = (),
) -> dict[str, float]:
    """Metrics of a model or of predictions on data.

    Args:
        what: run folder, bundle folder, Model, or predictions made elsewhere (a COCO results file, a folder of YOLO or VOC
            files, mask PNGs).
        data: as in :func:`saccade.load_data`, or a Dataset.
        split: which part; None is everything.
        score, iou, max_detections: the same for every model, so that numbers compare.
        seed: of made splits; None takes the run's own, so that a run is never tested on its training images.
        predictions_format: of predictions made elsewhere ("coco", "yolo", "voc", "masks", "saccade"); None finds it.
        tta: test-time views of a classifier ("hflip", "vflip"): the mean of the probabilities over them and the image itself.

    Returns:
        Named floats; NaN where a class is absent from the data.
    """
    settings = DecodeSettings(score=score, iou=iou, max_detections=max_detections)
    return evaluate_fully(
        what, data, split=split, format=format, split_file=split_file, settings=settings, batch_size=batch_size, workers=workers,
        device=device, seed=seed, predictions_format=predictions_format, intervals=False, tta=tta,
    ).metrics  # fmt: skip


def evaluate_fully(
    what: str | Path | Model,
    data: str | Path | Dataset,
    *,
    split: str | None = "test",
    format: str | None = None,
    split_file: str | Path | None = None,
    settings: DecodeSettings = EVALUATION,
    batch_size: int = 16,
    workers: int | None = None,
    device: str = "cpu",
    seed: int | None = None,
    predictions_format: str | None = None,
    intervals: bool = True,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[Any, Any], None] | None = None,
    tta: Sequence[str] = (),
) -> Evaluation:
    """As :func:`evaluate`, with 95 % intervals (unless ``intervals`` is False), tables, counts, skipped files and time.

    ``progress`` and ``watch`` see the images of models only, not predictions made elsewhere.
    """
    split = None if split in ("all", "") else split
    if not isinstance(what, (str, Path, Model)):
        raise UsageError(f"give a run folder, a bundle, a model or predictions, not {type(what).__name__}")
    if is_predictions(what):
        if tta:
            raise UsageError("test-time views need a model, not predictions made elsewhere")
        from saccade.workflows.score import collect_predictions

        began = time.perf_counter()
        truth = data if isinstance(data, Dataset) or not split else _truth(data, split, format, split_file, seed or 0)
        scored = collect_predictions(str(what), truth, format=predictions_format, max_detections=settings.max_detections)
        numbers, seconds = scored.numbers(), time.perf_counter() - began
        ends, tables = bootstrap(scored.metric) if intervals else {}, scored.metric.tables()
        return Evaluation(numbers, tables, scored.metric.main, scored.images, seconds, settings=settings, intervals=ends)
    model = with_views(what if isinstance(what, Model) else load_bundle(what, device), tta)
    loaded = data if isinstance(data, Dataset) else _load(what, model, data, split, format, split_file, seed)
    if split not in (None, "train", "trainval"):
        refuse_leak(what, loaded)
    return evaluate_model(
        model, loaded, settings=settings, batch_size=batch_size, workers=workers, intervals=intervals, progress=progress, watch=watch
    )


def _load(
    what: str | Path | Model, model: Model, data: str | Path, split: str | None, format: str | None, split_file: Any, seed: int | None
) -> Dataset:
    """A part of the data, read as they were read for training where they are the run's own."""
    own = run_config(what)
    if own is not None and own.data == str(data):
        format, split_file = format or own.format, split_file or own.split_file
    seed = run_seed(what) if seed is None else seed
    return load_data(data, split, format=format, split_file=split_file, task=model.task, seed=seed)


def calibrate_run(
    what: str | Path,
    data: str | Path | Dataset,
    *,
    split: str = "val",
    format: str | None = None,
    split_file: str | Path | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    device: str = "cpu",
    seed: int | None = None,
) -> tuple[float, float, float]:
    """Find a classifier's temperature on images that it did not learn from, and write it into its bundle.

    Args:
        what: run folder or bundle folder.
        data, split, format, split_file, seed: the images, as in :func:`evaluate`.
        batch_size, workers, device: for speed only.

    Returns:
        The temperature, and the mean of -log p of the true classes without and with it.

    Raises:
        UsageError: no network for classification, or images that were trained on.
    """
    if isinstance(what, Model) or is_predictions(what):
        raise UsageError("a temperature is written into a bundle: give a run folder or a bundle folder")
    model = load_bundle(what, device)
    loaded = data if isinstance(data, Dataset) else _load(what, model, data, split, format, split_file, seed)
    refuse_leak(what, loaded)
    found = calibrate(model, loaded, batch_size=batch_size, workers=workers)
    set_temperature(what, found[0])
    return found


def is_predictions(what: object) -> bool:
    """Whether this is neither a model nor a folder with one."""
    if isinstance(what, Model):
        return False
    path = Path(str(what))
    return (
        path.exists()
        and path.suffix != ".cfg"  # Darknet's own files
        and not (path / "model.json").is_file()
        and not (path / "model" / "model.json").is_file()
        and not (path / "config.yaml").is_file()
    )


def run_config(what: object) -> RunConfig | None:
    """Settings of the run that a folder is, if it is one."""
    path = Path(str(what)) / "config.yaml"
    return RunConfig.load(path) if not isinstance(what, Model) and path.is_file() else None


def refuse_leak(what: object, data: Dataset) -> None:
    """UsageError when images of the same data set were trained on."""
    if isinstance(what, Model):
        return
    known = read_data_facts(Path(str(what)))
    if not known or known["index"] != data.index.records.digest():
        return
    learnt = set(known["train"])
    count = sum(data.record(i).image_id in learnt for i in range(len(data)))
    if count:
        raise UsageError(
            f"{count} of these {len(data)} images were trained on; give the splits of the run (--split-file), or --split train"
        )


def run_seed(what: object) -> int:
    """Seed of the run that a folder belongs to; 0 when unknown."""
    from saccade.engine.bundle import describe_bundle

    if isinstance(what, Model):
        return 0
    folder = Path(str(what))
    if folder.suffix == ".cfg":  # Darknet's own files
        return 0
    folder = folder / "model" if (folder / "model").is_dir() else folder
    return int(describe_bundle(folder).get("seed") or 0)


def _truth(data: str | Path, split: str, format: str | None, split_file: str | Path | None, seed: int) -> Any:
    """A truth file is scored as it is; other data are loaded."""
    if str(data).endswith(".json") and Path(str(data)).is_file():
        return data
    return load_data(data, split, format=format, split_file=split_file, seed=seed)
