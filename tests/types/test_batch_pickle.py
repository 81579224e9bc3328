"""Batches on their way from a loader's worker."""

import pickle

import torch
from torchvision import tv_tensors

from saccade.types.geometry import Geometry
from saccade.types.sample import SMALL, Batch, boxes_tensor


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    else:
        assert a == b
    if isinstance(a, tv_tensors.BoundingBoxes):
        assert (a.format, a.canvas_size) == (b.format, b.canvas_size)


def test_batch_arrives_as_it_left():
    target = {
        "image_id": "a", "path": "a.png", "label": torch.tensor(3), "boxes": boxes_tensor([[1, 2, 3, 4.5]], (20, 30)),
        "labels": torch.tensor([1]), "iscrowd": torch.tensor([False]), "mask": tv_tensors.Mask(torch.ones(8, 9, dtype=torch.int64)),
        "depth": torch.rand(SMALL + 1), "label_probs": torch.tensor([0.25, 0.75]), "half": torch.ones(2, dtype=torch.bfloat16),
        "captions": ["x"],
    }  # fmt: skip
    empty = {"image_id": "b", "path": "b.png", "boxes": boxes_tensor([], (5, 6)), "labels": torch.zeros(0, dtype=torch.int64)}
    batch = Batch(torch.rand(2, 3, 4, 4), [target, empty], [Geometry((4, 4), (4, 4))] * 2, [empty, target])
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, Batch)
    assert torch.equal(again.images, batch.images)
    assert again.geometries == batch.geometries
    for given, found in ((batch.targets, again.targets), (batch.truths, again.truths)):
        assert len(given) == len(found)
        for one, other in zip(given, found, strict=True):
            assert list(one) == list(other)
            for key in one:
                same(one[key], other[key])
    again.targets[0]["labels"] += 1  # writable, and nobody else's
    assert batch.targets[0]["labels"].tolist() == [1]
    plain = pickle.loads(pickle.dumps(batch._replace(truths=None, targets=[])))
    assert plain.truths is None
    assert plain.targets == []


def test_small_tensors_of_targets_travel_as_arrays(monkeypatch):
    batch = Batch(torch.zeros(1), [{"label": torch.tensor(1)} for _ in range(50)], [])
    sent, own = [], torch.Tensor.__reduce_ex__
    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", lambda tensor, protocol: sent.append(tensor) or own(tensor, protocol))
    pickle.dumps(batch)
    assert len(sent) == 1  # the images alone
    sent.clear()
    pickle.dumps(list(batch))
    assert len(sent) == 51
