"""Predict images with a run, a bundle, or a model in memory."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saccade.engine.bundle import load_bundle
from saccade.engine.files import atomic, plain
from saccade.engine.predictor import faster, predict_files
from saccade.models.base import Model, as_images
from saccade.models.classify.base import with_views
from saccade.types.errors import DataError, UsageError
from saccade.types.prediction import Classification, Detection, Landmarks, Prediction, Segmentation, exact_score
from saccade.types.recipe import PREDICTION, DecodeSettings


def predict(
    what: str | Path | Model,
    images: Any,
    *,
    score: float = PREDICTION.score,
    iou: float = PREDICTION.iou,
    max_detections: int = PREDICTION.max_detections,
    batch_size: int = 8,
    workers: int | None = None,
    device: str = "cpu",
    skipped: Any = None,
    tta: Sequence[str] = (),
    fast: bool = False,
) -> Iterator[Prediction]:
    """Predictions one by one, in order, with bounded memory.

    Args:
        what: run folder, bundle folder, or Model.
        images: a file, folder or glob, or a list of them; or images in memory: (C, H, W) uint8 tensors, (H, W[, 3]) uint8 arrays,
            Pillow images.
        score, iou, max_detections: least score, NMS threshold, cap (detectors).
        skipped: called with the DataError of a broken file; None raises it.
        tta: test-time views of a classifier ("hflip", "vflip"): the mean of the probabilities over them and the image itself.
        fast: fold normalisation into the convolutions and lay channels last: the same but for the last digits. Of a folder only.

    Yields:
        A prediction an image; ``prediction.draw()`` draws it on its own image.

    Raises:
        UsageError: an argument of a wrong type or out of range.
        DataError: no such run, or a file that is no image.
    """
    if not isinstance(what, (str, Path, Model)):
        raise UsageError(f"predict takes a run folder, a bundle folder or a model, not {type(what).__name__}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size is a whole number from 1, not {batch_size!r}")
    settings = DecodeSettings(score=score, iou=iou, max_detections=max_detections)
    inputs = images if isinstance(images, Iterator) else iter(as_images(images))
    head = list(itertools.islice(inputs, 1))
    if isinstance(what, Model):
        if fast:
            raise UsageError("fast changes a model: give the folder of a run, or call saccade.engine.predictor.faster on a copy")
        model = with_views(what, tta)
    else:
        loaded = load_bundle(what, device)
        model = with_views(faster(loaded) if fast else loaded, tta)
    if not head or isinstance(head[0], (str, Path)):  # names are light: all of them, since a list may hold images too
        head += inputs
        if all(isinstance(item, (str, Path)) for item in head):
            return predict_files(model, head, settings=settings, batch_size=batch_size, workers=workers, skipped=skipped)
    return _in_memory(model, itertools.chain(head, inputs), settings, batch_size)


def _in_memory(model: Model, images: Iterator[Any], settings: DecodeSettings, batch_size: int) -> Iterator[Prediction]:
    """Images are taken a batch at a time, so that a camera or a generator of any length streams."""
    while batch := list(itertools.islice(images, batch_size)):
        yield from model.predict(batch, **asdict(settings))


ESCAPE = "backslashreplace"
"""How a file name that is no UTF-8 is written: its odd bytes as ``\\udcXX``."""


class Writer:
    """Writes a stream of predictions as it comes: drawn pictures, and one of JSON, JSON lines, COCO results or CSV.

    Args:
        out: folder; made if missing.
        form: "json" (a list), "jsonl", "coco" (results for COCO's tools, with an images table beside), "csv".
        draw: write drawn pictures.
        masks: write class maps of segmentations as PNG.
        inputs: the image files that are predicted, none of which a picture may overwrite.
    """

    FORMS = ("json", "jsonl", "coco", "csv")

    def __init__(self, out: Path, form: str = "json", *, draw: bool = True, masks: bool = True, inputs: Iterable[str] = ()) -> None:
        if form not in self.FORMS:
            raise UsageError(f"no output form {form!r}; known: {', '.join(self.FORMS)}")
        self.out, self.form, self.draw, self.masks = out, form, draw, masks
        self.count = 0
        self.names: set[str] = set()
        self._inputs = {_entry(path) for path in inputs}
        self._images: list[dict[str, Any]] = []
        self.file = (
            out
            / {"json": "predictions.json", "jsonl": "predictions.jsonl", "coco": "predictions.coco.json", "csv": "predictions.csv"}[form]
        )

    def write_all(self, predictions: Iterable[Prediction]) -> int:
        """Write a stream; the file appears whole when the stream ends. Returns the number of images."""
        self.out.mkdir(parents=True, exist_ok=True)
        with atomic(self.file) as temporary, temporary.open("w", encoding="utf-8", newline="", errors=ESCAPE) as file:
            writer = csv.writer(file)
            first = True
            if self.form in ("json", "coco"):
                file.write("[")
            for prediction in predictions:
                for row in self._rows(prediction):
                    if self.form == "csv":
                        if first:
                            writer.writerow(row.keys())
                        writer.writerow(row.values())
                    else:
                        separator = "\n" if first and self.form != "jsonl" else ",\n" if self.form != "jsonl" else ""
                        file.write(separator + json.dumps(plain(row), allow_nan=False) + ("\n" if self.form == "jsonl" else ""))
                    first = False
                self._pictures(prediction)
                self.count += 1
            if self.form in ("json", "coco"):
                file.write("\n]\n")
        if self.form == "coco":
            with atomic(self.out / "images.json") as temporary:
                temporary.write_text(json.dumps(self._images), encoding="utf-8")
        return self.count

    def _rows(self, prediction: Prediction) -> list[dict[str, Any]]:
        if self.form in ("json", "jsonl"):
            return [prediction.to_dict()]
        if self.form == "coco":
            if not isinstance(prediction, Detection):
                raise UsageError(f"COCO results hold detections, not {prediction.task}; use --form json")
            image_id = self.count + 1
            self._images.append({"id": image_id, "file_name": prediction.path, "height": prediction.size[0], "width": prediction.size[1]})
            return prediction.to_coco(image_id)
        if isinstance(prediction, Detection):
            return [
                {"path": prediction.path, "label": prediction.name(int(k)), "score": exact_score(s)}
                | dict(zip(("x1", "y1", "x2", "y2"), (round(float(v), 3) for v in box), strict=True))
                for box, k, s in zip(prediction.boxes, prediction.labels, prediction.scores, strict=True)
            ]
        if isinstance(prediction, Classification):
            return [{"path": prediction.path, "label": prediction.name(prediction.label), "score": exact_score(prediction.score)}]
        if isinstance(prediction, Landmarks):  # data of the format csvpoints
            points = prediction.to_dict()["points"]
            return [{"path": prediction.path} | {f"{p['name']}_{axis}": p[axis] for p in points for axis in ("x", "y")}]
        if isinstance(prediction, Segmentation):
            return [{"path": prediction.path} | {name: prediction.to_dict()["pixels"].get(name, 0) for name in prediction.classes}]
        return [{"path": prediction.path}]

    def _pictures(self, prediction: Prediction) -> None:
        if not (self.draw or (self.masks and isinstance(prediction, Segmentation))):
            return
        name = stem = Path(prediction.path or f"image-{self.count + 1:06}").stem
        number = self.count + 1
        while name.lower() in self.names:  # two folders may hold the same file name; a disk may not tell X from x
            name, number = f"{stem}-{number}", number + 1
        self.names.add(name.lower())
        if self.draw:
            picture = prediction.draw()
            suffix = ".jpg" if max(picture.size) > 400 else ".png"
            with atomic(self._free(self.out / f"{name}{suffix}", prediction)) as temporary:
                picture.save(temporary, quality=92)  # PNG has none
        if self.masks and isinstance(prediction, Segmentation):
            prediction.save_mask(self._free(self.out / "masks" / f"{name}.png", prediction))

    def _free(self, target: Path, prediction: Prediction) -> Path:
        """The target, unless an image of the user lies there."""
        entry = _entry(target)
        if entry in self._inputs or (prediction.path and entry == _entry(prediction.path)):
            raise UsageError(f"--out would overwrite the image {target}; give another folder")
        return target


def _entry(path: str | Path) -> str:
    """A file's own place: links of its folder followed, a link that it may be itself kept."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def load(folder: str | Path, device: str = "cpu") -> Model:
    """The model of a run folder, of a bundle, or of Darknet's ``NAME.cfg`` with its ``NAME.weights``, in eval mode, ready for ``predict``.

    Raises:
        DataError: no bundle there, or a damaged one.
    """
    if not Path(folder).exists():
        raise DataError(folder, "does not exist")
    return load_bundle(folder, device)
