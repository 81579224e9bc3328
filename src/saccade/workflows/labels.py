"""Likely label errors of a data set: cross-validated predictions, a ranked list, pictures, files to correct, and the way back.

Every image is judged by a model that was trained on the other folds only; :mod:`saccade.metrics.label_errors` compares. The folder of a
search holds::

    search.json               what is searched and how; the same call goes on where it stopped
    folds/fold-1.npz ...      predictions of a finished fold, never computed again
    folds/run-1/ ...          the run folder of its training, where the model learns by gradient
    issues.json, issues.csv   all that was found, worst first
    sheet.jpg, report.html    the worst as pictures
    to_correct/               the suspicious images with their labels as they are, where a format is asked for

:func:`apply_corrections` reads ``to_correct`` back when it was corrected in a tool and writes the whole data set with the new labels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from saccade.data.dataset import Dataset
from saccade.data.formats import format_module, write_data
from saccade.data.load import load_data
from saccade.data.splits import group_numbers, make_folds
from saccade.engine.bundle import load_bundle
from saccade.engine.callbacks import to_stderr
from saccade.engine.evaluator import evaluate_model
from saccade.engine.files import atomic, plain, write_json
from saccade.metrics import label_errors as judge
from saccade.models.base import Model
from saccade.models.registry import find
from saccade.report.label_errors import LabelIssue, write_issues
from saccade.types.errors import DataError, UsageError
from saccade.types.recipe import DecodeSettings
from saccade.workflows.corrections import Corrections, apply_corrections
from saccade.workflows.train import resume, train

__all__ = ["Corrections", "LabelErrors", "LabelIssue", "apply_corrections", "find_label_errors"]

TASKS = ("classify", "detect", "segment")
HOG = "hog"
"""The quick classifier: logistic regression on histograms of oriented gradients, fitted in seconds."""

DECODE = DecodeSettings(score=0.02, max_detections=300)
"""Unsure predictions count too: a labelled box is spurious only where not even one of them stands."""

SMALL_SIDE = 40
"""Images up to this side are small: LeNet-5 can learn them, and HOG takes cells of 4 pixels."""


@dataclass
class LabelErrors:
    """What a search finds.

    Attributes:
        folder: where its files lie.
        task: "classify", "detect" or "segment".
        images: how many were judged.
        issues: worst first.
        quality: of every judged image, by its id.
        skipped: broken images: path -> message.
        notes: what could not be judged, and what the format of the files to correct cannot hold.
    """

    folder: Path
    task: str
    images: int
    issues: list[LabelIssue]
    quality: dict[str, float]
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def suspicious(self, top: int | None = None) -> list[int]:
        """Numbers of the suspicious images in the index, worst first."""
        return list(dict.fromkeys(issue.number for issue in self.issues))[:top]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as issues.json holds them."""
        return plain(dataclasses.asdict(self))

    def __repr__(self) -> str:
        return f"<LabelErrors {self.task}: {len(self.issues)} issues in {len(self.suspicious())} of {self.images} images, {self.folder}>"


def find_label_errors(
    data: str | Path | Dataset,
    model: str | None = None,
    *,
    folds: int = 4,
    epochs: int | None = None,
    task: str | None = None,
    split: str | None = None,
    format: str | None = None,
    seed: int = 0,
    groups: Sequence[int] | np.ndarray | str | None = None,
    options: Mapping[str, Any] | None = None,
    out: str | Path = "label-errors",
    top: int = 60,
    write: str | None = None,
    prune: judge.Prune = "count",
    rank: judge.Rank = "normalised margin",
    workers: int | None = None,
    accelerator: str = "auto",
    say: Callable[[str], None] | None = None,
) -> LabelErrors:
    """Rank the labels of a data set by how much cross-validated predictions speak against them.

    A search that was stopped goes on when it is called again with the same arguments and folder; a finished fold is not computed again.

    Args:
        data: as :func:`saccade.load_data` takes it, or a Dataset.
        model: registered name; or "hog" (classes only), fitted in seconds. None: ssdlite for boxes, unet for masks; for classes
            lenet5 where the images are small and grey and many, else hog.
        folds: each is judged by a model that learnt from the others.
        epochs: of each training; None takes the model's recipe.
        task: "classify", "detect" or "segment"; None takes the data's main one.
        split: judge (and learn from) this split only; None takes all images.
        format: of the data.
        seed: of folds and trainings.
        groups: (N,) a number for each image of the data: images of one number (near duplicates, one patient) stay in one fold, else a
            copy vouches for its twin's label. Or "folder" or a regular expression, as :func:`saccade.data.splits.group_numbers` takes.
        options: dotted overrides of model and recipe, as :func:`saccade.train` takes them.
        out: folder of the search.
        top: how many of the worst are drawn, and how many images are written to be corrected.
        write: format of ``out/to_correct``, a data set of the suspicious images only.
        prune, rank: as in :func:`saccade.metrics.label_errors.class_issues`.
        workers, accelerator: as in :func:`saccade.train`.
        say: where progress lines go (default stderr).

    Raises:
        UsageError: a task, model or format that does not fit, or a folder that holds another search.
        DataError: unreadable data.
    """
    say = say or to_stderr
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    data, task, grouped = _load(data, task, split, format, seed, groups)
    model = model or _default_model(data, task)
    if model == HOG and task != "classify":
        raise UsageError(f"the model hog tells classes only, not {task}: name a model of `saccade models`")
    if model == HOG and (epochs is not None or options):
        raise UsageError("the model hog is fitted in one go: it takes no epochs and no options")
    if model != HOG and find(model).task != task:
        raise UsageError(f"{model} is for {find(model).task}, these labels are for {task}")
    if write is not None and task not in format_module(write).TASKS:
        raise UsageError(f"{format_module(write).TITLE} holds {' or '.join(format_module(write).TASKS)}, not {task}")
    out = Path(out)
    if write is not None and (out / "to_correct").exists():
        raise UsageError(f"{out / 'to_correct'} was written before and may hold your corrections: move it away")
    parts = make_folds(data, folds, seed, groups=grouped)
    settings = {"data": data.fingerprint(), "task": task, "model": model, "folds": folds, "epochs": epochs, "seed": seed}
    settings |= {"options": plain(dict(options or {})), "groups": None if grouped is None else plain(grouped)}
    _claim(out, settings)
    skipped: dict[str, str] = {}
    found: list[dict[str, np.ndarray]] = []
    for k, part in enumerate(parts, 1):
        file = out / "folds" / f"fold-{k}.npz"
        if file.is_file():
            say(f"fold {k} of {folds}: done before")
        else:
            rest = np.setdiff1d(data.indices, part)
            learn, held = _take(data, rest, "train"), _take(data, part, "held out")
            say(f"fold {k} of {folds}: {model} learns from {len(learn)} images and judges {len(held)}")
            if model == HOG:
                values = _fit_hog(learn, held, seed)
            else:
                values = _train_fold(model, learn, held, out / "folds" / f"run-{k}", epochs, seed, options, workers, accelerator, say)
            with atomic(file) as temporary:
                np.savez_compressed(temporary, **values)  # type: ignore[arg-type]
        values = _read_fold(file)
        skipped |= dict(zip(values["skipped_paths"].tolist(), values["skipped_texts"].tolist(), strict=True))
        found.append(values)
    for message in skipped.values():
        say(f"skipped: {message}")

    result = LabelErrors(out, task, sum(len(values["numbers"]) for values in found), [], {}, skipped)
    if task == "classify":
        _judge_classes(data, found, result, prune, rank)
    elif task == "detect":
        _judge_boxes(data, found, result)
    else:
        _judge_masks(data, found, result)
    if write is not None:
        _write_suspicious(data, result, write, top)
    how = {key: value for key, value in settings.items() if key != "groups"}
    write_json(out / "issues.json", how | {"classes": data.classes} | result.to_dict())
    shown = {issue.number for issue in result.issues[:top]}
    masks = {n: values[f"predicted_{n}"] for values in found for n in values["numbers"].tolist() if n in shown and task == "segment"}
    write_issues(
        out,
        data,
        result.issues,
        task=task,
        images=result.images,
        facts={k: how[k] for k in ("model", "folds", "epochs", "seed")},
        notes=[*result.skipped.values(), *result.notes],
        top=top,
        masks=masks,
    )
    count = len(result.suspicious())
    say(f"{len(result.issues)} likely errors in {count} of {result.images} images: {out / 'issues.csv'}, {out / 'report.html'}")
    for note in result.notes:
        say(f"note: {note}")
    return result


# --------------------------------------------------------------------------------------------------------------- the data


def _load(
    data: str | Path | Dataset, task: str | None, split: str | None, format: str | None, seed: int, groups: Any
) -> tuple[Dataset, str, np.ndarray | None]:
    """The images that have a label of the task, each once; the task; the images' groups."""
    if task is not None and task not in TASKS:
        raise UsageError(f"labels are judged for {', '.join(TASKS)}, not {task!r}")
    split = None if split in ("", "all") else split
    loaded = load_data(data, split, format=format, task=task, seed=seed)
    task = task or next((t for t in loaded.tasks if t in TASKS), None)
    if task is None:
        raise UsageError(f"{loaded.index.root} holds neither classes nor boxes nor masks to judge")
    loaded = load_data(loaded, task=task)
    name = {"classify": "label", "detect": "boxes", "segment": "mask"}[task]
    if isinstance(groups, str):
        groups = group_numbers(loaded, groups)
    elif groups is not None and np.shape(groups) != (len(loaded),):
        raise UsageError(f"groups are {len(loaded)} numbers, one for each image of the data, not {np.shape(groups)}")
    numbers, first = np.unique(loaded.indices, return_index=True)
    held = np.array([getattr(loaded.index.records[int(i)], name) is not None for i in numbers], dtype=bool)
    if not held.any():
        raise DataError(loaded.index.root, f"no image has a label for {task}")
    data = Dataset(loaded.index, numbers[held], channels=loaded.channels, split=loaded.split)
    grouped = None if groups is None else np.asarray(groups)[first][held]
    return data.with_boxes_only() if task == "detect" else data, task, grouped


def _take(data: Dataset, numbers: np.ndarray, split: str) -> Dataset:
    return Dataset(data.index, numbers, channels=data.channels, split=split, boxes_only=data.boxes_only)


def _default_model(data: Dataset, task: str) -> str:
    if task != "classify":
        return {"detect": "ssdlite", "segment": "unet"}[task]
    image = next(_images(data))[1]
    small = image.ndim == 2 and max(image.shape) <= SMALL_SIDE
    return "lenet5" if small and len(data) >= 100 * len(data.classes) else HOG


def _images(data: Dataset, broken: dict[str, str] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(number, (H, W) or (H, W, 3) uint8) of the readable images; DataError when there is none."""
    problem, count = None, 0
    for number in data.indices.tolist():
        try:
            array = np.moveaxis(np.asarray(data.image(data.index.records[number])), 0, -1)
        except DataError as error:
            problem = error
            if broken is not None:
                broken[error.path] = str(error)
            continue
        count += 1
        yield number, array[..., 0] if array.shape[-1] == 1 else array
    if problem is not None and not count:
        raise DataError(data.index.root, "none of the images can be read", hint=f"the last problem: {problem}")


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or check that it holds this very search."""
    file = out / "search.json"
    if file.is_file():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
            other = [key for key in settings if known.get(key) != settings[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(file, f"cannot be read: {error}", hint="name another folder") from None
        if other:
            raise UsageError(f"{out} holds a search with another {', '.join(other)}: name another folder")
    elif out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no search: name another folder")
    write_json(file, settings)


# -------------------------------------------------------------------------------------------------------- predictions


def _train_fold(
    model: str,
    learn: Dataset,
    held: Dataset,
    folder: Path,
    epochs: int | None,
    seed: int,
    options: Mapping[str, Any] | None,
    workers: int | None,
    accelerator: str,
    say: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """Predictions of the held-out images by a model trained on the others; an interrupted training goes on."""
    if (folder / "config.yaml").is_file():
        if not (folder / "run.json").is_file():
            resume(folder, data=(learn, None), report=False, say=say)
    else:
        train(
            model,
            learn,
            folder=folder,
            seed=seed,
            options=options,
            workers=workers,
            accelerator=accelerator,
            allow_leaks=True,  # a copy in the data's own test split changes nothing here
            report=False,
            say=say,
            val_split="none",
            epochs=epochs,
        )
    return _predict(load_bundle(folder), held, workers)


def _predict(model: Model, held: Dataset, workers: int | None) -> dict[str, np.ndarray]:
    """Arrays of a fold: ``numbers`` of the readable images and what the task needs of their predictions."""
    numbers = {held.record(i).image_id: int(held.indices[i]) for i in range(len(held))}
    rows: list[tuple[int, tuple[np.ndarray, ...]]] = []

    def watch(prediction: Any, truth: Mapping[str, Any]) -> None:
        if model.task == "classify":
            kept: tuple[np.ndarray, ...] = (np.asarray(prediction.scores, dtype=np.float32),)
        elif model.task == "detect":
            kept = (prediction.boxes, prediction.labels, prediction.scores)
        else:
            kept = summarise_pixels(np.asarray(truth["mask"]), prediction.scores)
        rows.append((numbers[str(truth["image_id"])], kept))

    if model.task == "segment":
        model.keep_scores = True  # type: ignore[assignment]
    evaluation = evaluate_model(model, held, settings=DECODE, workers=workers, watch=watch, intervals=False)
    out = {"numbers": np.array([number for number, _ in rows], dtype=np.int64)} | _skipped(evaluation.skipped)
    if model.task == "classify":
        out["probabilities"] = np.stack([kept[0] for _, kept in rows])
    elif model.task == "detect":
        out["counts"] = np.array([len(kept[0]) for _, kept in rows], dtype=np.int64)
        for name, values in zip(("boxes", "labels", "scores"), zip(*(kept for _, kept in rows), strict=True), strict=True):
            out[name] = np.concatenate(values)
    else:
        for number, kept in rows:
            out |= {f"{name}_{number}": value for name, value in zip(("own", "predicted", "score"), kept, strict=True)}
    return out


def summarise_pixels(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is kept of (K, H, W) probabilities: that of the given label and the largest one, each in 255ths, and its class.

    Three bytes a pixel, however many classes there are.
    """
    probabilities = np.asarray(probabilities, dtype=np.float32)
    own = np.take_along_axis(probabilities, np.maximum(labels, 0)[None], 0)[0]
    predicted = probabilities.argmax(0)
    score = probabilities.max(0)
    kind = np.uint8 if len(probabilities) <= 256 else np.uint16
    return np.rint(own * 255).astype(np.uint8), predicted.astype(kind), np.rint(score * 255).astype(np.uint8)


def _skipped(messages: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {"skipped_paths": np.array(list(messages), dtype=np.str_), "skipped_texts": np.array(list(messages.values()), dtype=np.str_)}


def _read_fold(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(file, f"cannot be read: {error}", hint="remove it, and the fold is computed again") from None


def _fit_hog(learn: Dataset, held: Dataset, seed: int) -> dict[str, np.ndarray]:
    """Probabilities by multinomial logistic regression on HOG of images stretched to one size."""
    from sklearn.linear_model import LogisticRegression

    broken: dict[str, str] = {}
    small = max(next(_images(learn))[1].shape[:2]) <= SMALL_SIDE
    _, features, labels = _hog_table(learn, small, broken)
    numbers, asked, _ = _hog_table(held, small, broken)
    probabilities = np.zeros((len(asked), len(learn.classes)), dtype=np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        probabilities[:, present] = 1
    else:
        machine = LogisticRegression(C=0.3, max_iter=300, random_state=seed).fit(features, labels)
        probabilities[:, machine.classes_] = machine.predict_proba(asked)
    return {"numbers": numbers, "probabilities": probabilities} | _skipped(broken)


def _hog_table(data: Dataset, small: bool, broken: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, features and labels of the readable images."""
    import cv2

    from saccade.features.hog import hog

    side, cell = (32, 4) if small else (64, 8)
    numbers, rows = [], []
    for number, image in _images(data, broken):
        shrinks = max(image.shape[:2]) > side
        resized = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        numbers.append(number)
        rows.append(hog(resized, cell=cell))
    labels = np.array([data.index.records[number].label for number in numbers], dtype=np.int64)
    return np.array(numbers, dtype=np.int64), np.stack(rows), labels


# ------------------------------------------------------------------------------------------------------------- judging


def _judge_classes(data: Dataset, found: list[dict[str, np.ndarray]], result: LabelErrors, prune: judge.Prune, rank: judge.Rank) -> None:
    numbers = np.concatenate([values["numbers"] for values in found])
    probabilities = np.concatenate([values["probabilities"] for values in found])
    fold = np.concatenate([np.full(len(values["numbers"]), k) for k, values in enumerate(found)])
    records = [data.index.records[int(i)] for i in numbers]
    labels = np.array([record.label for record in records], dtype=np.int64)
    able = np.array([len(np.unique(fold[labels == label])) > 1 for label in range(len(data.classes))])[labels]
    for label in np.unique(labels[~able]):
        result.notes.append(f"the class {data.classes[label]!r} stands in one fold only: its labels are not judged")
    issues = judge.class_issues(labels[able], probabilities[able], prune=prune, rank=rank)
    result.images = int(able.sum())
    chosen = np.flatnonzero(able)
    result.quality = {records[k].image_id: float(q) for k, q in zip(chosen.tolist(), issues.quality, strict=True)}
    for row in issues.order.tolist():
        k, suggested = int(chosen[row]), int(issues.suggested[row])
        result.issues.append(
            _issue(
                data,
                int(numbers[k]),
                "class",
                quality=issues.quality[row],
                score=probabilities[k, suggested],
                given=labels[k],
                suggested=suggested,
            )
        )


def _judge_boxes(data: Dataset, found: list[dict[str, np.ndarray]], result: LabelErrors) -> None:
    pairs = box_pairs(data, found)
    thresholds = judge.box_thresholds(((given, predicted) for _, given, predicted in pairs), len(data.classes))
    for k in np.flatnonzero(~np.isfinite(thresholds)).tolist():
        result.notes.append(f"no box of the class {data.classes[k]!r} was found by the held-out predictions: its labels are not judged")
    for number, given, predicted in pairs:
        quality = judge.box_quality(given, predicted, thresholds)
        issues = quality.issues()
        result.quality[data.index.records[number].image_id] = min((issue.quality for issue in issues), default=1.0)
        assert predicted.scores is not None
        for kind, value, i, p in issues:
            result.issues.append(
                _issue(
                    data,
                    number,
                    kind,
                    quality=value,
                    score=predicted.scores[p] if p >= 0 else 0.0,
                    given=None if i < 0 else given.labels[i],
                    suggested=None if p < 0 else predicted.labels[p],
                    object=None if i < 0 else i + 1,
                    box=None if i < 0 else given.boxes[i],
                    suggested_box=None if p < 0 else predicted.boxes[p],
                )
            )
    result.issues.sort(key=lambda issue: issue.quality)


def box_pairs(data: Dataset, found: Sequence[Mapping[str, np.ndarray]]) -> list[tuple[int, judge.Boxes, judge.Boxes]]:
    """(number, labelled, predicted) of every image of the folds."""
    pairs = []
    for values in found:
        ends = np.cumsum(values["counts"])
        for number, start, end in zip(values["numbers"].tolist(), (ends - values["counts"]).tolist(), ends.tolist(), strict=True):
            record = data.index.records[number]
            assert record.boxes is not None
            labels = np.asarray(record.labels, dtype=np.int64).reshape(-1)
            given = judge.Boxes(np.asarray(record.boxes).reshape(-1, 4), labels, crowd=record.iscrowd)
            place = slice(start, end)
            pairs.append((number, given, judge.Boxes(values["boxes"][place], values["labels"][place], values["scores"][place])))
    return pairs


def _judge_masks(data: Dataset, found: list[dict[str, np.ndarray]], result: LabelErrors) -> None:
    sums, counts = np.zeros(len(data.classes)), np.zeros(len(data.classes))

    def rows() -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
        for values in found:
            for number in values["numbers"].tolist():
                maps = {name: values[f"{name}_{number}"] for name in ("own", "predicted", "score")}
                yield number, data.mask(data.index.records[number], maps["own"].shape), maps  # type: ignore[arg-type]

    for _, mask, maps in rows():
        valid = mask >= 0
        counts += np.bincount(mask[valid], minlength=len(counts))
        sums += np.bincount(mask[valid], maps["own"][valid] / 255, minlength=len(counts))
    thresholds = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    weighed = []
    for number, mask, maps in rows():
        own, score = maps["own"] / 255, maps["score"] / 255
        result.quality[data.index.records[number].image_id] = judge.mask_quality(own[mask >= 0])
        least = max(9, round(mask.size / 2000))
        for region in judge.mask_regions(mask, own, maps["predicted"], score, thresholds, least=least):
            issue = _issue(
                data,
                number,
                "region",
                quality=region.quality,
                score=region.quality + region.weight / region.area,
                given=region.given,
                suggested=region.suggested,
                box=np.array(region.box),
                area=region.area,
            )
            weighed.append((region.weight, issue))
    result.issues = [issue for _, issue in sorted(weighed, key=lambda pair: -pair[0])]


def _issue(
    data: Dataset,
    number: int,
    kind: str,
    *,
    quality: float,
    score: float,
    given: int | None,
    suggested: int | None,
    object: int | None = None,
    box: np.ndarray | None = None,
    suggested_box: np.ndarray | None = None,
    area: int | None = None,
) -> LabelIssue:
    record = data.index.records[number]
    before, after = ("" if k is None else data.classes[int(k)] for k in (given, suggested))
    corners, new_corners = (None if b is None else [round(float(v), 2) for v in b] for b in (box, suggested_box))
    return LabelIssue(
        record.path,
        record.image_id,
        number,
        kind,
        before,
        after,
        round(float(quality), 6),
        round(float(score), 6),
        object,
        corners,
        new_corners,
        area,
    )


def _write_suspicious(data: Dataset, result: LabelErrors, write: str, top: int) -> None:
    """``to_correct``: the suspicious images as a data set without splits, so that every tool opens it as one folder."""
    numbers = sorted(result.suspicious(top))
    if not numbers:
        result.notes.append("nothing is suspicious: no files to correct are written")
        return
    chosen = Dataset(dataclasses.replace(data.index, splits={}), numbers, channels=data.channels)
    result.notes += write_data(chosen, result.folder / "to_correct", write)
