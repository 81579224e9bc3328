"""Predictions: one dataclass a task. All coordinates are pixels of the image that the caller gave; labels are 0..K-1."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from saccade.types import drawing
from saccade.types.errors import UsageError
from saccade.types.files import atomic


@dataclass(kw_only=True)
class Prediction:
    """What all predictions share.

    Attributes:
        path: file of the image, or "".
        image_id: id in the data set, or None.
        classes: names by label.
        size: (H, W) of the image in pixels.
        image: (C, H, W) uint8 tensor, a function that gives one (so that a stream of predictions holds no pixels), or None;
            :meth:`picture` opens ``path`` when it is None.
    """

    path: str = ""
    image_id: int | str | None = None
    classes: list[str] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    image: Any = field(default=None, repr=False)
    task: ClassVar[str] = ""

    def picture(self) -> Image.Image:
        """The image as an RGB picture."""
        if self.image is not None:
            return drawing.to_pil(self.image() if callable(self.image) else self.image)
        if not self.path:
            raise ValueError("this prediction holds no image and no path to one: call draw(image)")
        from PIL import ImageOps

        with Image.open(self.path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")

    def name(self, label: int) -> str:
        """Class name of a label."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    def draw(self, image: object = None) -> Image.Image:
        """The prediction drawn on ``image`` (or on its own image); Pillow RGB."""
        return self._draw(drawing.to_pil(image) if image is not None else self.picture())

    def _draw(self, image: Image.Image) -> Image.Image:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        out: dict[str, Any] = {"task": self.task, "path": self.path, "size": list(self.size)}
        if self.image_id is not None:
            out["image_id"] = self.image_id
        return out

    def save(self, path: str | Path) -> Path:
        """Write ``.json`` (values) or a picture (drawn) by the suffix; atomically.

        Raises:
            UsageError: the suffix names neither JSON nor a picture format.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            return path
        if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
            raise UsageError(f"{path}: its suffix names no picture format; use .png, .jpg or .json")
        picture = self.draw()
        with atomic(path) as temporary:
            picture.save(temporary)
        return path


def exact_score(score: float) -> float:
    """A float32 score in the fewest digits that always read back as the same float32 (9), so that files keep every rank."""
    return float(f"{score:.9g}")


@dataclass(kw_only=True)
class Classification(Prediction):
    """``scores`` (K,) float32 probabilities."""

    scores: np.ndarray
    task: ClassVar[str] = "classify"

    @property
    def label(self) -> int:
        """The most probable class."""
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.scores.max())

    def top(self, k: int = 5) -> list[tuple[int, float]]:
        """The k most probable (label, probability), best first; ties by label."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(int(i), float(self.scores[i])) for i in order]

    def _draw(self, image: Image.Image) -> Image.Image:
        if max(image.size) < 160:
            factor = -(-160 // max(image.size))
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        return drawing.caption(image, f"{self.name(self.label)} {self.score:.2f}")

    def to_dict(self) -> dict[str, Any]:
        top = [{"label": i, "name": self.name(i), "score": exact_score(s)} for i, s in self.top()]
        return super().to_dict() | {"label": self.label, "name": self.name(self.label), "score": exact_score(self.score), "top": top}


@dataclass(kw_only=True)
class Detection(Prediction):
    """``boxes`` (N, 4) float32 XYXY, ``labels`` (N,) int64, ``scores`` (N,) float32, best first.

    Optional: ``masks`` (N, H, W) bool; ``keypoints`` (N, K, 3) xy and score.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    task: ClassVar[str] = "detect"

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, score: float) -> Detection:
        """Only the objects of at least this score."""
        keep = self.scores >= score
        return Detection(
            path=self.path, image_id=self.image_id, classes=self.classes, size=self.size, image=self.image,
            boxes=self.boxes[keep], labels=self.labels[keep], scores=self.scores[keep],
            masks=None if self.masks is None else self.masks[keep],
            keypoints=None if self.keypoints is None else self.keypoints[keep],
        )  # fmt: skip

    def _draw(self, image: Image.Image) -> Image.Image:
        if self.masks is not None:
            for one, label in zip(self.masks, self.labels, strict=True):
                image = drawing.mask(image, np.where(one, int(label), -1), background=None)
        if self.keypoints is not None:
            for i, points in enumerate(self.keypoints):
                image = drawing.keypoints(image, points[:, :2], index=i)
        texts = [f"{self.name(int(k))} {s:.2f}" for k, s in zip(self.labels, self.scores, strict=True)]
        height, width = self.size if all(self.size) else (image.height, image.width)
        scale = np.array([image.width / width, image.height / height] * 2)  # an enlarged copy of the image may be drawn on
        return drawing.boxes(image, self.boxes * scale, [int(k) for k in self.labels], texts)

    def to_dict(self) -> dict[str, Any]:
        objects = [
            {"box": [round(float(v), 3) for v in b], "label": int(k), "name": self.name(int(k)), "score": exact_score(s)}
            for b, k, s in zip(self.boxes, self.labels, self.scores, strict=True)
        ]
        return super().to_dict() | {"objects": objects}

    def to_coco(self, image_id: int | str | None = None, category_ids: list[int] | None = None) -> list[dict[str, Any]]:
        """COCO result entries: box as x, y, width, height; ``category_ids`` by label (default: label + 1)."""
        image_id = self.image_id if image_id is None else image_id
        out = []
        for (x1, y1, x2, y2), k, s in zip(self.boxes.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True):
            category = category_ids[k] if category_ids else k + 1
            out.append({"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": s})
        return out


@dataclass(kw_only=True)
class Landmarks(Prediction):
    """``points`` (K, 2) float32 xy, one of each class; they may lie outside the image. NaN: no such point.

    ``between``: labels of two points whose true distance errors are measured by, besides the image's diagonal.
    """

    points: np.ndarray
    between: tuple[int, int] | None = None
    task: ClassVar[str] = "landmarks"

    MOST_NAMES: ClassVar[int] = 16
    """Points up to which their names are drawn beside them."""

    def on(self, image: Image.Image) -> np.ndarray:
        """The points in pixels of a copy of the image that may be enlarged."""
        height, width = self.size if all(self.size) else (image.height, image.width)
        return np.asarray(self.points) * [image.width / width, image.height / height]

    def _draw(self, image: Image.Image) -> Image.Image:
        count = len(self.points)
        names = [self.name(k) for k in range(count)] if count <= self.MOST_NAMES else None
        return drawing.keypoints(image, self.on(image), names=names)

    def to_dict(self) -> dict[str, Any]:
        points = [{"name": self.name(k), "x": round(float(x), 3), "y": round(float(y), 3)} for k, (x, y) in enumerate(self.points)]
        return super().to_dict() | {"points": points}


@dataclass(kw_only=True)
class Segmentation(Prediction):
    """``mask`` (H, W) class map, uint8 up to 256 classes, else int32; optional ``scores`` (K, H, W) float16 probabilities."""

    mask: np.ndarray
    scores: np.ndarray | None = field(default=None, repr=False)
    task: ClassVar[str] = "segment"

    def _draw(self, image: Image.Image) -> Image.Image:
        image = drawing.mask(image, self.mask)
        present = [int(k) for k in np.unique(self.mask) if k != 0]
        from PIL import ImageDraw

        pen, size = ImageDraw.Draw(image), drawing.text_size(image)
        for row, k in enumerate(present[: max(1, image.height // (size + 6))]):
            drawing.label(pen, (0, (row + 1) * (size + 6)), self.name(k), drawing.color(k), size)
        return image

    def to_dict(self) -> dict[str, Any]:
        labels, counts = np.unique(self.mask, return_counts=True)
        pixels = {self.name(int(k)): int(c) for k, c in zip(labels, counts, strict=True)}
        return super().to_dict() | {"pixels": pixels}

    def save_mask(self, path: str | Path) -> Path:
        """The class map as a PNG whose grey values are the labels; written atomically."""
        path = Path(path)
        array = self.mask.astype(np.uint8 if self.mask.max(initial=0) < 256 else np.uint16)
        with atomic(path) as temporary:
            Image.fromarray(array).save(temporary, format="PNG")
        return path


@dataclass(kw_only=True)
class Generated(Prediction):
    """A picture that a model made: ``image`` (C, H, W) uint8."""

    task: ClassVar[str] = "generate"

    def _draw(self, image: Image.Image) -> Image.Image:
        return image
