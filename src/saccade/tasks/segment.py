"""Segmentation: images to a class a pixel; scored by the mean IoU of the whole set."""

from __future__ import annotations

from saccade.metrics.segmentation import SegmentationMetric
from saccade.tasks.base import Task
from saccade.types.recipe import EVALUATION, DecodeSettings


class SegmentTask(Task):
    """Cross entropy, Dice, focal ...; validated by mean IoU."""

    name = "segment"

    @classmethod
    def make_metric(cls, classes: list[str], settings: DecodeSettings = EVALUATION) -> SegmentationMetric:
        """An empty metric."""
        return SegmentationMetric(classes)
