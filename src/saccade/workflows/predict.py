"""Predict images with a run, a bundle, or a model in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saccade.engine.bundle import load_bundle
from saccade.engine.files import atomic, plain
from saccade.engine.predictor import predict_files
from saccade.models.base import Model
from saccade.types.errors import DataError, UsageError
from saccade.types.prediction import Classification, Detection, Prediction, Segmentation
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
) -> Iterator[Prediction]:
    """Predictions one by one, in order, with bounded memory.

    Args:
        what: run folder, bundle folder, or Model.
        images: a file, folder or glob, or a list of them; or images in memory: (C, H, W) uint8 tensors, (H, W[, 3]) uint8 arrays,
            Pillow images.
        score, iou, max_detections: least score, NMS threshold, cap (detectors).
        skipped: called with the DataError of a broken file; None raises it.

    Yields:
        A prediction an image; ``prediction.draw()`` draws it on its own image.
    """
    model = what if isinstance(what, Model) else load_bundle(what, device)
    settings = DecodeSettings(score=score, iou=iou, max_detections=max_detections)
    inputs = [images] if isinstance(images, (str, Path)) or hasattr(images, "shape") or hasattr(images, "mode") else list(images)
    if all(isinstance(item, (str, Path)) for item in inputs):
        return predict_files(model, inputs, settings=settings, batch_size=batch_size, workers=workers, skipped=skipped)
    return _in_memory(model, inputs, settings, batch_size)


def _in_memory(model: Model, images: list[Any], settings: DecodeSettings, batch_size: int) -> Iterator[Prediction]:
    for start in range(0, len(images), batch_size):
        yield from model.predict(
            images[start : start + batch_size], score=settings.score, iou=settings.iou, max_detections=settings.max_detections
        )


class Writer:
    """Writes a stream of predictions as it comes: drawn pictures, and one of JSON, JSON lines, COCO results or CSV.

    Args:
        out: folder; made if missing.
        form: "json" (a list), "jsonl", "coco" (results for COCO's tools, with an images table beside), "csv".
        draw: write drawn pictures.
        masks: write class maps of segmentations as PNG.
    """

    FORMS = ("json", "jsonl", "coco", "csv")

    def __init__(self, out: Path, form: str = "json", *, draw: bool = True, masks: bool = True) -> None:
        if form not in self.FORMS:
            raise UsageError(f"no output form {form!r}; known: {', '.join(self.FORMS)}")
        self.out, self.form, self.draw, self.masks = out, form, draw, masks
        self.count = 0
        self.names: set[str] = set()
        self._images: list[dict[str, Any]] = []
        self.file = (
            out
            / {"json": "predictions.json", "jsonl": "predictions.jsonl", "coco": "predictions.coco.json", "csv": "predictions.csv"}[form]
        )

    def write_all(self, predictions: Iterable[Prediction]) -> int:
        """Write a stream; the file appears whole when the stream ends. Returns the number of images."""
        self.out.mkdir(parents=True, exist_ok=True)
        with atomic(self.file) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
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
                {"path": prediction.path, "label": prediction.name(int(k)), "score": round(float(s), 6)}
                | dict(zip(("x1", "y1", "x2", "y2"), (round(float(v), 3) for v in box), strict=True))
                for box, k, s in zip(prediction.boxes, prediction.labels, prediction.scores, strict=True)
            ]
        if isinstance(prediction, Classification):
            return [{"path": prediction.path, "label": prediction.name(prediction.label), "score": round(prediction.score, 6)}]
        if isinstance(prediction, Segmentation):
            return [{"path": prediction.path} | {name: prediction.to_dict()["pixels"].get(name, 0) for name in prediction.classes}]
        return [{"path": prediction.path}]

    def _pictures(self, prediction: Prediction) -> None:
        if not (self.draw or (self.masks and isinstance(prediction, Segmentation))):
            return
        name = Path(prediction.path or f"image-{self.count + 1:06}").stem
        if name in self.names:  # two folders may hold the same file name
            name = f"{name}-{self.count + 1}"
        self.names.add(name)
        if self.draw:
            picture = prediction.draw()
            picture.save(self.out / f"{name}.jpg", quality=92) if max(picture.size) > 400 else picture.save(self.out / f"{name}.png")
        if self.masks and isinstance(prediction, Segmentation):
            prediction.save_mask(self.out / "masks" / f"{name}.png")


def load(folder: str | Path, device: str = "cpu") -> Model:
    """The model of a run folder or bundle, in eval mode, ready for ``predict``.

    Raises:
        DataError: no bundle there, or a damaged one.
    """
    if not Path(folder).exists():
        raise DataError(folder, "does not exist")
    return load_bundle(folder, device)
