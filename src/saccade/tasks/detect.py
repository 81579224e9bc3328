"""Detection: images to boxes; scored by mean average precision."""

from __future__ import annotations

from saccade.metrics.detection import DetectionMetric
from saccade.tasks.base import Task
from saccade.types.recipe import EVALUATION, DecodeSettings


class DetectTask(Task):
    """The detector's own losses; validated by mAP at IoU 0.5."""

    name = "detect"

    @classmethod
    def make_metric(cls, classes: list[str], settings: DecodeSettings = EVALUATION) -> DetectionMetric:
        """An empty metric that counts as many detections an image as are decoded."""
        return DetectionMetric(classes, max_detections=(1, 10, settings.max_detections))
