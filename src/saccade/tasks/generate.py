"""Generation: two players with an optimiser each, by turns on every batch; scored against real images."""

from __future__ import annotations

import zlib
from typing import Any

import torch

from saccade.data.dataset import Dataset
from saccade.metrics.generation import GenerationMetric
from saccade.models.base import AdversarialModel
from saccade.tasks.base import Task, make_optimizer
from saccade.types.prediction import Generated
from saccade.types.recipe import EVALUATION, DecodeSettings
from saccade.types.sample import Batch, Target


class GenerateTask(Task):
    """Adversarial learning. Two optimisers need Lightning's manual mode."""

    name = "generate"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    @classmethod
    def make_metric(cls, classes: list[str], settings: DecodeSettings = EVALUATION) -> GenerationMetric:
        """An empty metric."""
        return GenerationMetric(classes)

    @classmethod
    def check_data(cls, data: Dataset) -> None:
        """Any images do."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Each player in its order: its losses, its parameters, the other left alone."""
        self.start_step()
        assert isinstance(self.model, AdversarialModel)
        images = self.to_format(batch.images)
        everything = {}
        for player, optimizer in zip(self.model.players, self.optimizers(), strict=True):  # type: ignore[arg-type]
            self.toggle_optimizer(optimizer)
            losses = self.model.player_losses(player, images, batch.targets)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            self.manual_backward(total)
            if self.recipe.clip:
                self.clip_gradients(optimizer, gradient_clip_val=self.recipe.clip, gradient_clip_algorithm="norm")
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            everything |= {f"{player}/{key}": value for key, value in losses.items()}
        self.record(everything, torch.stack([v.detach() for v in everything.values()]).sum(), batch)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimiser a player, a constant rate."""
        assert isinstance(self.model, AdversarialModel)
        return [make_optimizer(self.model.player(name), self.recipe) for name in self.model.players]

    def score(self, batch: Batch, images: Any) -> None:
        """As many generated images as real ones into the metric."""
        assert self.metric is not None
        assert isinstance(self.model, AdversarialModel)
        self.metric.update(generated_like(self.model, batch), real_truths(self.model, batch))


def generated_like(model: AdversarialModel, batch: Batch) -> list[Generated]:
    """One generated image for each real one; the noise is a function of the real images' ids, so any order gives the same."""
    seed = zlib.crc32("\n".join(str(target["image_id"]) for target in batch.targets).encode())
    return [Generated(image=image.cpu(), size=tuple(image.shape[-2:])) for image in model.sample(len(batch.targets), seed=seed)]


def real_truths(model: AdversarialModel, batch: Batch) -> list[Target]:
    """The real images as the network saw them, in uint8."""
    mean = torch.tensor(model.preprocess.mean).view(-1, 1, 1)
    std = torch.tensor(model.preprocess.std).view(-1, 1, 1)
    return [{"image": ((image.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)} for image in batch.images]
