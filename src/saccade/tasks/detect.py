"""Detection: images to boxes; scored by mean average precision."""

from __future__ import annotations

from saccade.metrics.detection import DetectionMetric
from saccade.tasks.base import Task


class DetectTask(Task):
    """The detector's own losses; validated by mAP at IoU 0.5."""

    name = "detect"

    @classmethod
    def make_metric(cls, classes: list[str]) -> DetectionMetric:
        """An empty metric."""
        return DetectionMetric(classes)
