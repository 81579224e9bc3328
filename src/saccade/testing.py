"""Contract checks that any registered model must pass; third parties run them on their own entries.

In a test file::

    import pytest
    from saccade import testing

    @pytest.mark.parametrize("check", testing.checks_for("my_model"), ids=lambda c: c.__name__)
    def test_my_model(check):
        check("my_model")

Each check builds the model with the entry's ``tiny`` options and raises AssertionError with what is wrong.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.engine.bundle import load_bundle, save_bundle
from saccade.models.base import AdversarialModel, FittedModel, Model
from saccade.models.index import ENTRIES
from saccade.models.registry import create_model, find
from saccade.types.prediction import Classification, Detection, Generated, Landmarks, Prediction, Segmentation
from saccade.types.sample import IGNORE, Batch, Sample, Target, boxes_tensor, collate

CLASSES = 3


def build(name: str, num_classes: int = CLASSES, **options: Any) -> Model:
    """The tiny form of a model, seeded; a fitted one is fitted to a few seeded images."""
    torch.manual_seed(0)
    model = create_model(name, num_classes, **(find(name).tiny | options))
    if isinstance(model, FittedModel):
        model.fit(dataset(model.task, 4, num_classes))
    return model


class _Samples:
    """An ImageReader of :func:`sample`."""

    def __init__(self, task: str) -> None:
        self.task = task

    def image(self, record: Record) -> np.ndarray:
        """(H, W, 3) uint8."""
        return sample(self.task, seed=int(record.image_id)).image.permute(1, 2, 0).numpy()

    def mask(self, record: Record) -> np.ndarray:
        """(H, W) labels."""
        return sample(self.task, seed=int(record.image_id)).target["mask"].numpy()


def dataset(task: str, count: int = 8, num_classes: int = CLASSES) -> Dataset:
    """A few samples as a data set."""
    records = []
    for seed in range(count):
        target = sample(task, seed=seed).target
        record = Record(str(seed), str(seed))
        if task == "classify":
            record.label = int(target["label"]) % num_classes
        elif task == "detect":
            record.boxes, record.labels = target["boxes"].numpy(), target["labels"].numpy() % num_classes
        elif task == "landmarks":
            record.boxes, record.labels = target["boxes"].numpy(), target["labels"].numpy()
            record.keypoints = torch.cat([target["keypoints"], target["visibility"][..., None]], dim=2).numpy()
        elif task == "segment":
            record.mask = str(seed)
        records.append(record)
    names = [str(k) for k in range(num_classes)]
    return Dataset(DataIndex("testing", Path(), names, PackedRecords(records), tasks=(task,), reader=_Samples(task)))


def picture(size: tuple[int, int], channels: int = 3, seed: int = 0) -> Tensor:
    """(C, H, W) uint8: blocks of colour, which downsampling does not turn to grey."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (-(-size[0] // 6), -(-size[1] // 6), channels), dtype=np.uint8)
    large = small.repeat(6, axis=0).repeat(6, axis=1)[: size[0], : size[1]]
    return torch.from_numpy(np.moveaxis(large, -1, 0).copy())


def sample(task: str, size: tuple[int, int] = (64, 80), *, channels: int = 3, seed: int = 0, empty: bool = False) -> Sample:
    """One seeded sample with the truth of a task; ``empty`` has no object, or no pixel with a class."""
    random = np.random.default_rng(seed)
    height, width = size
    target: Target = {"image_id": str(seed), "path": f"{seed}.png"}
    if task == "classify":
        target["label"] = torch.tensor(int(random.integers(CLASSES)))
    elif task == "detect":
        count = 0 if empty else 3
        corner = random.uniform(0, 0.5, (count, 2))
        side = random.uniform(0.2, 0.5, (count, 2))
        target["boxes"] = boxes_tensor(np.concatenate([corner, corner + side], 1) * [width, height, width, height], size)
        target["labels"] = torch.from_numpy(random.integers(0, CLASSES, count))
        target["iscrowd"] = torch.zeros(count, dtype=torch.bool)
    elif task == "landmarks":
        count = 0 if empty else 1
        target["boxes"] = boxes_tensor([[0, 0, width, height]] * count, size)
        target["labels"], target["iscrowd"] = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
        target["keypoints"] = torch.from_numpy(random.uniform(0, 1, (count, CLASSES, 2)) * [width, height]).float()
        target["visibility"] = torch.tensor([[2, 1, 0]] * count, dtype=torch.int64).reshape(count, CLASSES)
    elif task == "segment":
        mask = np.full(size, IGNORE) if empty else random.integers(0, CLASSES, size)
        target["mask"] = tv_tensors.Mask(torch.from_numpy(mask.astype(np.int64)))
    return Sample(tv_tensors.Image(picture(size, channels, seed)), target)


def batch(model: Model, count: int = 2, **options: Any) -> Batch:
    """A preprocessed batch of different images."""
    return collate([model.preprocess(sample(model.task, seed=seed, **options)) for seed in range(count)])


def state(model: Model) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_state(model: Model, before: dict[str, Tensor]) -> None:
    """Assert that nothing changed."""
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} changed"


# -- checks ---------------------------------------------------------------------------------------


def check_losses_are_finite_and_the_same_in_eval(name: str) -> None:
    """Training and eval modes give the same keys, all finite scalars; eval repeats itself and changes no buffer."""
    model = build(name)
    images, targets = batch(model)[:2]
    training = model.train().losses(images, targets)
    model.eval()
    before = state(model)
    first, second = model.losses(images, targets), model.losses(images, targets)
    assert training.keys() == first.keys(), f"train has {sorted(training)}, eval {sorted(first)}"
    for key, value in (training | first).items():
        assert value.ndim == 0, f"{key} is no scalar"
        assert torch.isfinite(value), f"{key} is {value}"
    for key in first:
        assert torch.equal(first[key], second[key]), f"{key} is random in eval mode"
    same_state(model, before)


def check_gradients_reach_every_parameter(name: str) -> None:
    """Every parameter that is not declared frozen gets a finite gradient, and at least one that is not zero somewhere."""
    model, entry = build(name), find(name)
    images, targets = batch(model, 4)[:2]
    model.train()
    torch.stack(list(model.losses(images, targets).values())).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith(entry.frozen) and entry.frozen:
            assert parameter.grad is None, f"{parameter_name} is declared frozen and gets a gradient"
        elif parameter.requires_grad:
            assert parameter.grad is not None, f"{parameter_name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{parameter_name} has a gradient that is no number"


def check_empty_targets(name: str) -> None:
    """Images without an object, or without a pixel that has a class: finite losses and finite gradients."""
    model = build(name)
    if model.task not in ("detect", "segment", "landmarks"):
        return
    images, targets = batch(model, empty=True)[:2]
    losses = model.train().losses(images, targets)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total), f"losses without objects are {losses}"
    if total.requires_grad:
        total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), f"{parameter_name} has a gradient that is no number"


def check_any_image(name: str) -> None:
    """Odd sizes, one pixel, thin ones, grey and colour, one and many; predictions in the image's own pixels."""
    model = build(name)
    sizes = [(33, 47), (1, 1), (1, 40), (57, 3), (64, 64)]
    images = [picture(size, channels, seed) for seed, size in enumerate(sizes) for channels in (1, 3)]
    predictions = model.predict(images)
    assert len(predictions) == len(images)
    for image, prediction in zip(images, predictions, strict=True):
        check_prediction(prediction, model, (image.shape[-2], image.shape[-1]))
    one = model.predict(images[4].permute(1, 2, 0).numpy())  # (H, W, 1) array
    assert len(one) == 1


def check_prediction(prediction: Prediction, model: Model, size: tuple[int, int]) -> None:
    """Types, ranges and shapes of a prediction of an image of ``size`` (H, W)."""
    if isinstance(prediction, Generated):
        return
    assert prediction.size == size, f"size {prediction.size} of an image of {size}"
    assert prediction.classes == model.classes
    if isinstance(prediction, Classification):
        assert prediction.scores.shape == (model.num_classes,)
        assert abs(float(prediction.scores.sum()) - 1) < 1e-4
    elif isinstance(prediction, Detection):
        count = len(prediction)
        assert prediction.boxes.shape == (count, 4)
        assert prediction.labels.shape == prediction.scores.shape == (count,)
        assert ((prediction.labels >= 0) & (prediction.labels < model.num_classes)).all(), "a label is outside 0..K-1"
        assert ((prediction.scores >= 0) & (prediction.scores <= 1)).all(), "a score is outside 0..1"
        assert (np.diff(prediction.scores) <= 0).all(), "scores are not best first"
        low, high = prediction.boxes.min(initial=0), prediction.boxes.reshape(-1, 2, 2).max(axis=(0, 1), initial=0)
        assert low >= 0, "a box leaves the image"
        assert (high <= np.array(size[::-1]) + 1e-3).all(), "a box leaves the image"
    elif isinstance(prediction, Landmarks):
        assert prediction.points.shape == (model.num_classes, 2)
        assert np.isfinite(prediction.points).all(), "a point is no number"
    elif isinstance(prediction, Segmentation):
        assert prediction.mask.shape == size
        assert prediction.mask.max() < model.num_classes
    assert prediction.draw().size[0] > 0
    prediction.to_dict()


def check_any_number_of_classes_and_channels(name: str) -> None:
    """One class, many classes, one input channel."""
    for num_classes, channels in ((1, 3), (20, 3), (CLASSES, 1)):
        model = build(name, num_classes, in_chans=channels)
        assert model.num_classes == num_classes
        assert model.preprocess.channels == channels
        (prediction,) = model.predict(picture((40, 40)))
        check_prediction(prediction, model, (40, 40))


def check_bundle_round_trip(name: str) -> None:
    """Saved and loaded, the model predicts the same; no file is a pickle."""
    model = build(name)
    model.classes = ["a", "b", "c"]
    image = picture((50, 70))
    expected = model.predict(image)[0]
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(model, folder)
        assert {p.name for p in Path(folder).iterdir()} == {"model.safetensors", "model.json"}
        loaded = load_bundle(folder)
    assert loaded.classes == model.classes
    assert loaded.preprocess == model.preprocess
    same_state(loaded, state(model))
    got = loaded.predict(image)[0]
    for field in ("scores", "boxes", "labels", "mask", "points", "image"):
        if hasattr(expected, field) and getattr(expected, field) is not None:
            np.testing.assert_array_equal(np.asarray(getattr(got, field)), np.asarray(getattr(expected, field)))


def check_preprocess_is_picklable_and_pure(name: str) -> None:
    """It travels to workers, and gives the same twice without changing its input."""
    model = build(name)
    preprocess = pickle.loads(pickle.dumps(model.preprocess))
    given = sample(model.task, (45, 31), seed=3)
    before = given.image.clone()
    first, second = preprocess(given)[0], model.preprocess(given)[0]
    assert torch.equal(first, second)
    assert torch.equal(given.image, before)
    assert first.dtype == torch.float32


def check_export(name: str) -> None:
    """``raw`` as one exported graph gives the same numbers; a model exported by parts gives its parts."""
    model, entry = build(name).eval(), find(name)
    if entry.exportable == "no":
        return
    if entry.exportable == "parts":
        parts = model.parts()  # type: ignore[operator]
        assert parts
    else:
        parts = {"raw": (_Raw(model), (batch(model).images,))}
    for part_name, (module, inputs) in parts.items():
        with torch.no_grad():
            expected = module(*inputs)
            program = torch.export.export(module, tuple(inputs))
            got = program.module()(*inputs)
        for a, b in zip(_tensors(got), _tensors(expected), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda m, part=part_name: f"{part}: {m}")


def check_players_leave_each_other_alone(name: str) -> None:
    """A player's losses give gradients to its own parameters; sampling is seeded."""
    model = build(name)
    assert isinstance(model, AdversarialModel)
    images, targets = batch(model, 4)[:2]
    model.train()
    for player in model.players:
        model.zero_grad()
        own = {id(p) for p in model.player(player).parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in own)
        torch.stack(list(model.player_losses(player, images, targets).values())).sum().backward()
        for parameter_name, parameter in model.player(player).named_parameters():
            assert parameter.grad is not None, f"{player}.{parameter_name} gets no gradient"
    model.eval()
    assert torch.equal(model.sample(2, seed=1), model.sample(2, seed=1))
    assert model.sample(2, seed=1).dtype == torch.uint8


class _Raw(torch.nn.Module):
    """``raw`` as ``forward``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.raw(images)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


COMMON = (check_any_image, check_any_number_of_classes_and_channels, check_bundle_round_trip, check_preprocess_is_picklable_and_pure)
BY_GRADIENT = (
    check_losses_are_finite_and_the_same_in_eval,
    check_gradients_reach_every_parameter,
    check_empty_targets,
)


def representatives() -> list[str]:
    """Names of saccade's own systems that the contract suites run: all but, of a bought family (one builder, one row), the larger ones."""
    first: dict[tuple[str, str], str] = {}
    for entry in ENTRIES:
        first.setdefault((entry.builder, entry.row), entry.name)
    return list(first.values())


def checks_for(name: str) -> tuple[Callable[[str], None], ...]:
    """The checks that a model's declared capabilities ask for."""
    kind = find(name).kind
    if kind == "trainable":
        return (*BY_GRADIENT, *COMMON, check_export)
    if kind == "adversarial":
        return (check_losses_are_finite_and_the_same_in_eval, check_players_leave_each_other_alone, *COMMON)
    return COMMON
