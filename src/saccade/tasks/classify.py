"""Classification: images to one class each; scored by accuracy."""

from __future__ import annotations

from saccade.metrics.classification import ClassificationMetric
from saccade.tasks.base import Task
from saccade.types.recipe import EVALUATION, DecodeSettings


class ClassifyTask(Task):
    """Cross entropy and its kin; validated by accuracy."""

    name = "classify"

    @classmethod
    def make_metric(cls, classes: list[str], settings: DecodeSettings = EVALUATION) -> ClassificationMetric:
        """An empty metric."""
        return ClassificationMetric(classes)
