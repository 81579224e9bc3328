"""Landmarks: images to a set of named points each; validated by the area under the curve of errors."""

from __future__ import annotations

from saccade.data.dataset import Dataset
from saccade.metrics.landmarks import LandmarkMetric
from saccade.tasks.base import Task
from saccade.types.errors import UsageError
from saccade.types.recipe import EVALUATION, DecodeSettings


class LandmarksTask(Task):
    """A loss of coordinates; the classes are the points."""

    name = "landmarks"

    @classmethod
    def make_metric(cls, classes: list[str], settings: DecodeSettings = EVALUATION) -> LandmarkMetric:
        """An empty metric."""
        return LandmarkMetric(classes)

    @classmethod
    def check_data(cls, data: Dataset) -> None:
        """As the base; data with points must be loaded for this task, which makes the points their classes."""
        if "pose" in data.tasks and cls.name not in data.tasks:
            raise UsageError(
                f'{data.index.root}: load these data with load_data(..., task="landmarks"), which takes one set of points an image'
            )
        super().check_data(data)
