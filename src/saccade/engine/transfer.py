"""Training only the output of a classifier on features that are computed once (``recipe.transfer=features``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from saccade.data.dataset import Dataset
from saccade.engine.callbacks import to_stderr
from saccade.engine.feature_cache import EvalFeatures, Output, TrainFeatures, cannot_cache, make_features
from saccade.engine.trainer import fit
from saccade.models.base import Model
from saccade.models.classify.base import Classifier
from saccade.models.transfer import output_layer
from saccade.tasks.base import Task
from saccade.types.recipe import Recipe

NOT_MIXED: dict[str, Any] = {"mixup": 0.0, "cutmix": 0.0}
AUGMENTATION = (
    "hflip", "vflip", "quarter_turns", "rotate", "shear", "scale", "translate", "crop", "brightness", "contrast", "saturation", "hue",
    "blur", "erase", "mixup", "cutmix",
)  # fmt: skip


def fit_transfer(
    model: Model,
    task_class: type[Task],
    recipe: Recipe,
    folder: Path,
    train: Dataset,
    validation: Dataset | None = None,
    *,
    resume: bool = False,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> dict[str, str]:
    """As :func:`saccade.engine.trainer.fit`; with "features" the frozen part sees each image once, where that gives the same.

    Training, checkpoints and results are those of the whole network without augmentation (to the rounding of floats). With
    ``recipe.cached_views=0``, and for models whose losses need more than the logits, every epoch runs through the whole network.
    """
    say = say or to_stderr
    if recipe.transfer != "features" or not recipe.cached_views:
        return fit(model, task_class, recipe, folder, train, validation, resume=resume, say=say, **options)
    if why := cannot_cache(model):
        say(f"note: features are not kept, every epoch runs through the whole network: {why}")
        return fit(model, task_class, recipe, folder, train, validation, resume=resume, say=say, **options)
    assert isinstance(model, Classifier)
    if recipe.cached_views == 1 and any(getattr(recipe, name) != getattr(Recipe, name) for name in AUGMENTATION):
        say("note: features are of the plain images; recipe.cached_views=8 keeps augmented views too, 0 augments anew each epoch")
    found = output_layer(model)
    assert found is not None
    accelerator = options.get("accelerator", "auto")
    shared: dict[str, Any] = {
        "recipe": recipe, "seed": options.get("seed", 0), "workers": options.get("workers"), "resume": resume, "say": say,
        "device": "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu",
    }  # fmt: skip
    features = make_features(model, train, folder / "features" / "train.npy", views=recipe.cached_views, **shared)
    learnt_from: Any = TrainFeatures(features, train)
    validated: Any = None
    if validation is not None:
        validated = EvalFeatures(make_features(model, validation, folder / "features" / "val.npy", **shared), validation)
    return fit(
        Output(model, found[1]), task_class, recipe.replace(**NOT_MIXED), folder, learnt_from, validated, resume=resume, say=say,
        **(options | {"workers": 0}),
    )  # fmt: skip
