"""What every metric of a task offers to the evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from saccade.types.prediction import Prediction
from saccade.types.sample import Target

LOWER_IS_BETTER = ("ece", "swd", "nme", "nme_between", "rmse")
"""Numbers of which a smaller one is better; none is the main one of its metric."""

NO_SHARE = ("swd", "neg_swd", "nme", "nme_between", "rmse")
"""Numbers that may leave 0..1; all others are shares."""


class Metric(Protocol):
    """Collects predictions and truths in original pixels over a whole data set, then gives named numbers.

    Attributes:
        main: name of the number that picks the best checkpoint; larger is better.
    """

    main: ClassVar[str]

    def update(self, predictions: Sequence[Prediction], truths: Sequence[Target]) -> None:
        """Add images; one prediction a truth."""
        ...

    def compute(self) -> dict[str, float]:
        """Flat named floats ("map50", "ap50/RBC"); NaN where a class is absent. May be called again after more updates."""
        ...

    def tables(self) -> dict[str, Any]:
        """For reports: confusion matrix, curves, per-image scores, as plain lists."""
        ...

    def state(self) -> Any:
        """Everything collected, picklable: sent between processes."""
        ...

    def merge(self, states: Sequence[Any]) -> None:
        """Replace what was collected by the union of several processes' states."""
        ...
