"""The course's network: sizes and parameters by hand."""

from __future__ import annotations

import pytest
import torch

from saccade import UsageError, create_model

SIZES = {
    "valid": {"conv1": (32, 26, 26), "pool1": (32, 13, 13), "conv2": (64, 11, 11), "pool2": (64, 5, 5), "conv3": (128, 3, 3)},
    "same": {
        "conv1": (32, 28, 28), "pool1": (32, 14, 14), "conv2": (64, 14, 14), "pool2": (64, 7, 7), "conv3": (128, 7, 7), "pool3": (128, 3, 3)
    },
}  # fmt: skip


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_C17_course_cnn_has_167114_parameters_and_its_sizes(padding):
    model = create_model("course_cnn", padding=padding)
    parts = [(9 * 1 + 1) * 32, (9 * 32 + 1) * 64, (9 * 64 + 1) * 128, (3 * 3 * 128 + 1) * 64, (64 + 1) * 10]
    assert sum(parts) == 167_114
    counted = [sum(p.numel() for p in m.parameters()) for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert counted == parts
    assert sum(p.numel() for p in model.parameters()) == 167_114
    image, got = torch.zeros(1, 1, 28, 28), {}
    for name, module in (*model.network.features.named_children(), *model.network.head.named_children()):
        image = module(image)
        got[name] = tuple(image.shape[1:])
    expected = SIZES[padding] | {"flatten": (1152,), "dense1": (64,), "dense2": (10,)}
    assert {name: got[name] for name in expected} == expected


def test_C17_course_cnn_takes_digits_as_they_are():
    model = create_model("course_cnn")
    image = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    from saccade.types.sample import Sample

    tensor = model.preprocess(Sample(image, {}))[0]
    torch.testing.assert_close(tensor, (image / 255 - 0.1307) / 0.3081)


def test_C17_course_cnn_says_what_is_too_small():
    with pytest.raises(UsageError, match=r"16x16; the least model.size is 18"):
        create_model("course_cnn", size=16)
