"""timm/NAME: the networks are timm's own, so timm with the same weights is the oracle."""

import pytest
import timm
import torch

from saccade.models.registry import create_model, default_recipe, find, options
from saccade.types.errors import UsageError
from saccade.types.sample import Sample


def test_logits_are_timms():
    torch.manual_seed(0)
    ours = create_model("timm/test_resnet", 5).eval()
    theirs = timm.create_model("test_resnet", num_classes=5).eval()
    theirs.load_state_dict({k.removeprefix("network."): v for k, v in ours.state_dict().items()})
    images = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(ours.raw(images), theirs(images))


def test_preprocess_is_timms():
    import numpy as np
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    model = create_model("timm/test_vit", 5)
    config = resolve_model_data_config(model.network)
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((310, 230), Image.Resampling.BICUBIC)  # smooth: Pillow and torch differ on noise
    expected = create_transform(**config)(image)
    tensor = model.preprocess(Sample(torch.from_numpy(np.array(image)).permute(2, 0, 1), {}))[0]
    assert tensor.shape == expected.shape
    assert (tensor - expected).abs().mean() < 0.02  # timm rounds the offset of the crop the other way
    assert model.preprocess.crop == config["crop_pct"]


def test_entry_options_and_bundle_arguments():
    entry = find("timm/resnet18.a1_in1k")
    assert entry.task == "classify"
    assert "architecture" not in options(entry)
    assert default_recipe(entry).label_smoothing == 0.1
    model = create_model("timm/test_resnet", 3, in_chans=1, drop_rate=0.1)
    assert model.build_name == "timm/test_resnet"
    assert model.build_options == {"num_classes": 3, "in_chans": 1, "drop_rate": 0.1}
    assert model.predict(torch.zeros(3, 20, 30, dtype=torch.uint8))[0].scores.shape == (3,)


def test_size_where_the_network_takes_it():
    assert create_model("timm/test_vit", 3, size=96).raw(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    model = create_model("timm/test_resnet", 3, size=64)
    assert model.preprocess.size == (64, 64)
    assert model.raw(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_gradients_losses_and_export():
    model = create_model("timm/test_resnet", 3)
    images, targets = torch.randn(4, 3, 64, 64), [{"label": torch.tensor(i % 3)} for i in range(4)]
    model.losses(images, targets)["ce"].backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    before = {k: v.clone() for k, v in model.named_buffers()}
    assert torch.equal(model.losses(images, targets)["ce"], model.losses(images, targets)["ce"])
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model.raw(images))


def test_unknown_name_is_suggested():
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        find("timm/resnt18")
    with pytest.raises(UsageError, match="timm has no model"):
        find("timm/")
