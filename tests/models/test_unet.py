"""S6: U-Net (Ronneberger et al. 2015). Oracles: figure 1, hand formulas, an independent functional re-computation, SciPy's distances."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saccade.models.registry import create_model
from saccade.models.segment.unet import border_weights, regions, unet
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.recipe import Recipe
from saccade.types.sample import IGNORE

PAPER = {"width": 64, "padding": "valid", "norm": "none"}
TINY = {"width": 4, "size": 32}


def batch(n=2, side=32, classes=3, channels=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, channels, side, side, generator=generator)
    return images, [{"mask": torch.randint(0, classes, (side, side), generator=generator)} for _ in range(n)]


def parameters_by_hand(inputs, classes, width=64, depth=4):
    """Section 2: two 3x3 convolutions a level, 2x2 up-convolutions that halve the channels, a 1x1 output."""
    widths = [width * 2**k for k in range(depth + 1)]
    conv = lambda a, b, k: a * b * k * k + b  # noqa: E731
    total = sum(conv(a, b, 3) + conv(b, b, 3) for a, b in zip([inputs, *widths[:-1]], widths, strict=True))
    total += sum(conv(2 * w, w, 2) + conv(2 * w, w, 3) + conv(w, w, 3) for w in widths[:-1])
    return total + conv(width, classes, 1)


def test_S6_unet_has_31_0_million_parameters_and_23_convolutions():
    model = create_model("unet", 2, in_chans=1, **PAPER)
    count = sum(p.numel() for p in model.parameters())
    assert count == parameters_by_hand(1, 2) == 31_030_658
    assert round(count / 1e6, 1) == 31.0
    assert sum(p.numel() for p in unet(2, **PAPER).parameters()) == parameters_by_hand(3, 2) == 31_031_810
    convolutions = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(convolutions) == 23  # "In total the network has 23 convolutional layers"
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


@torch.no_grad()
def test_S6_unet_valid_572_to_388_with_the_sizes_of_figure_1():
    with torch.device("meta"):
        model = unet(2, in_chans=1, **PAPER)
    sizes = []
    for block in [*model.body.down, *(up.conv for up in model.body.up)]:
        block.register_forward_hook(lambda m, i, o: sizes.append((i[0].shape[1], i[0].shape[-1], o.shape[1], o.shape[-1])))
    assert model.body(torch.zeros(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    assert sizes == [
        (1, 572, 64, 568), (64, 284, 128, 280), (128, 140, 256, 136), (256, 68, 512, 64), (512, 32, 1024, 28),
        (1024, 56, 512, 52), (512, 104, 256, 100), (256, 200, 128, 196), (128, 392, 64, 388),
    ]  # fmt: skip
    assert model.margin == 92
    assert unet(2, **{**PAPER, "width": 4}, size=None, tile=388).tile == 388


def functional(model, x, depth):
    """The network again, from the paper's words and the state dict alone (no padding, no normalisation)."""
    weights = model.state_dict()

    def double(x, prefix):
        for k in (0, 2):
            x = F.relu(F.conv2d(x, weights[f"{prefix}.{k}.weight"], weights[f"{prefix}.{k}.bias"]))
        return x

    skips = []
    for level in range(depth + 1):
        x = double(F.max_pool2d(x, 2) if level else x, f"body.down.{level}")
        skips.append(x)
    for k in range(depth):
        x = F.conv_transpose2d(x, weights[f"body.up.{k}.up.weight"], weights[f"body.up.{k}.up.bias"], stride=2)
        skip = skips[depth - 1 - k]
        cut = (skip.shape[-1] - x.shape[-1]) // 2
        x = double(torch.cat([skip[..., cut:-cut, cut:-cut], x], 1), f"body.up.{k}.conv")
    return F.conv2d(x, weights["body.head.weight"], weights["body.head.bias"])


@torch.no_grad()
def test_S6_unet_equals_an_independent_recomputation():
    torch.manual_seed(0)
    model = unet(3, width=4, padding="valid", norm="none").eval()
    x = torch.randn(2, 3, 188 + 16, 188)
    out = model.body(x)
    assert out.shape[-2:] == (20, 4)
    torch.testing.assert_close(out, functional(model, x, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_S6_unet_margin_by_depth(depth):
    model = unet(2, width=2, depth=depth, padding="valid", norm="none")
    side = model.margin * 2 + 2**depth + 4
    assert model.body(torch.zeros(1, 3, side, side)).shape[-1] == 2**depth + 4


@torch.no_grad()
def test_S6_unet_overlap_tiles_are_seamless_for_any_image_size():
    torch.manual_seed(0)
    model = unet(3, width=4, depth=2, padding="valid", norm="none", size=None, tile=36, in_chans=1).double().eval()
    image = torch.randn(1, 1, 121, 90, dtype=torch.float64)
    whole = model.raw(image)[0]
    assert whole.shape == (3, 121, 90)
    torch.testing.assert_close(model.tiled(image[0]), whole, rtol=1e-9, atol=1e-11)
    geometry = Geometry((121, 90), (121, 90))
    prediction = model.predict_batch(image, [geometry])[0]
    assert np.array_equal(prediction.mask, whole.argmax(0).numpy())
    # mirrored by hand as figure 2 shows it
    padded = np.pad(image[0, 0].numpy(), ((20, 20 + 3), (20, 20 + 2)), mode="reflect")
    by_hand = functional(model, torch.from_numpy(padded)[None, None], 2)[0, :, :121, :90]
    torch.testing.assert_close(whole, by_hand, rtol=1e-9, atol=1e-11)


def test_S6_unet_3d_form():
    torch.manual_seed(0)
    model = unet(2, in_chans=1, width=2, depth=2, dims=3)
    volume = torch.randn(2, 1, 5, 9, 12)
    assert model.raw(volume).shape == (2, 2, 5, 9, 12)
    targets = [{"mask": torch.randint(0, 2, (5, 9, 12))} for _ in range(2)]
    sum(model.losses(volume, targets).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert unet(2, in_chans=1, width=2, depth=1, dims=3, padding="valid", norm="none").raw(volume).shape == (2, 2, 5, 9, 12)
    with pytest.raises(UsageError, match="C, D, H, W"):
        model.predict(torch.zeros(1, 8, 8, dtype=torch.uint8))


def test_S6_unet_initial_weights():
    torch.manual_seed(0)
    for layer in unet(2, width=32, norm="none").modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5000:
            fan_in = layer.in_channels * layer.kernel_size[0] ** 2
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)


def test_S6_unet_border_weights_by_hand():
    cells = np.zeros((2, 5, 9), dtype=bool)
    cells[0, :, :2] = True  # columns 0, 1
    cells[1, :, 6:] = True  # columns 6, 7, 8
    weights = border_weights(cells, (5, 9))
    # column 3 is 2 from the first cell and 3 from the second; inside the first cell, d1 = 0 and d2 = 5 or 6
    for column, sum_of_distances in ((0, 6), (1, 5), (2, 1 + 4), (3, 2 + 3), (4, 3 + 2), (6, 5), (8, 7)):
        assert weights[2, column] == pytest.approx(10 * math.exp(-(sum_of_distances**2) / 50), rel=1e-5)
    assert not border_weights(cells[:1], (5, 9)).any()
    assert not border_weights(np.zeros((0, 5, 9), dtype=bool), (5, 9)).any()


def test_border_loss_by_hand():
    torch.manual_seed(0)
    model = unet(3, **TINY).eval()
    model.set_loss("border")
    images, _ = batch()
    mask = torch.zeros(2, 32, 32, dtype=torch.int64)
    mask[0, 4:10, 4:10], mask[0, 4:10, 13:20], mask[0, 20:25, 4:9] = 1, 1, 2
    mask[1, :5] = IGNORE
    assert [r.sum() for r in regions(mask[0].numpy())] == [36, 42, 25]
    out = model.losses(images, [{"mask": m} for m in mask])["border"]
    logits = model.raw(images)
    weights = torch.stack([1 + torch.from_numpy(border_weights(regions(m.numpy()), (32, 32))) for m in mask])
    errors = F.cross_entropy(logits, mask, reduction="none")
    assert out.item() == pytest.approx((weights * errors).sum().item() / (mask != IGNORE).sum().item(), rel=1e-5)
    assert weights.max() > 5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "valid", "norm": "none", "depth": 2},
        {"up": "bilinear", "dropout": 0.5},
        {"backbone": "test_resnet"},
        {"backbone": "test_convnext"},  # first map at stride 4
        {"backbone": "test_vit", "size": 160},  # maps of one stride only
    ],
    ids=["default", "valid", "bilinear", "resnet", "convnext", "vit"],
)
def test_gradients_sizes_losses_and_export(options):
    torch.manual_seed(0)
    options = TINY | options
    model = unet(3, **options)
    images, targets = batch(2, options["size"])
    out = model.losses(images, targets)
    sum(out.values()).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    # the last norm of a backbone may feed no feature map
    assert not [n for n in missing if "backbone" not in n], missing
    model.eval()
    before = {k: v.clone() for k, v in model.named_buffers()}
    first, second = model.losses(images, targets), model.losses(images, targets)
    assert first.keys() == out.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())
    with torch.no_grad():
        assert model.raw(images).shape == (2, 3, options["size"], options["size"])
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), model.raw(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"padding": "valid", "norm": "none", "depth": 2}, {"backbone": "test_resnet"}])
@torch.no_grad()
def test_odd_sizes(options):
    model = unet(2, **(TINY | options)).eval()
    for height, width in ((33, 47), (1, 7), (16, 1), (50, 50)):
        assert model.raw(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


def test_images_of_several_sizes():
    torch.manual_seed(0)
    model = unet(2, width=4, depth=2, size=None).eval()
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in ((20, 31), (33, 17))]
    together, alone = model.predict(images), [model.predict(image)[0] for image in images]
    for a, b, image in zip(together, alone, images, strict=True):
        assert a.mask.shape == tuple(image.shape[1:])
        assert (a.mask == b.mask).mean() > 0.7  # what is mirrored beyond a smaller image differs from its zero padding alone
    raw = model.raw([torch.randn(3, 20, 31), torch.randn(3, 33, 17)])
    assert [tuple(r.shape) for r in raw] == [(2, 20, 31), (2, 33, 17)]
    targets = [{"mask": torch.randint(0, 2, (20, 31))}, {"mask": torch.randint(0, 2, (33, 17))}]
    assert all(torch.isfinite(v) for v in model.losses([torch.randn(3, 20, 31), torch.randn(3, 33, 17)], targets).values())


def test_predictions_in_original_pixels():
    model = unet(3, **TINY)
    image = torch.randint(0, 256, (3, 45, 70), dtype=torch.uint8)
    prediction = model.predict(image)[0]
    assert prediction.mask.shape == (45, 70)
    assert prediction.mask.dtype == np.uint8
    assert prediction.scores is None
    model.keep_scores = True
    scored = model.predict(image)[0]
    assert scored.scores.shape == (3, 45, 70)
    assert np.allclose(scored.scores.astype(np.float32).sum(0), 1, atol=5e-3)
    assert unet(300, **TINY).predict(image)[0].mask.dtype == np.int32


@pytest.mark.parametrize("original", [(120, 120), (300, 211), (88, 120)])
def test_truth_through_the_network_size_and_back_is_not_shifted(original):
    """Half a pixel of shift between image and mask costs 2 points of IoU on 120-pixel cells."""
    from torchvision import tv_tensors

    from saccade.types.sample import Sample

    y, x = np.mgrid[: original[0], : original[1]]
    disc = ((y - original[0] / 2.2) ** 2 + (x - original[1] / 1.9) ** 2 < (min(original) / 4) ** 2).astype(np.int64)
    model = unet(2, width=4)
    sample = Sample(tv_tensors.Image(torch.zeros(3, *original, dtype=torch.uint8)), {"mask": tv_tensors.Mask(torch.from_numpy(disc))})
    _, target, geometry = model.preprocess(sample)
    perfect = F.one_hot(target["mask"], 2).permute(2, 0, 1)[None].float()
    mask = model.decode(perfect, [geometry])[0].mask
    assert (mask & disc).sum() / (mask | disc).sum() > 0.955
    for axis in (0, 1):
        centres = [np.nonzero(m)[axis].mean() for m in (mask, disc)]
        assert centres[0] == pytest.approx(centres[1], abs=0.1 * max(1, original[axis] / 128))  # a tenth of a network pixel


def test_ignored_and_empty_masks():
    model = unet(3, **TINY)
    images, targets = batch()
    ignored = [{"mask": torch.full((32, 32), IGNORE)} for _ in targets]
    background = [{"mask": torch.zeros(32, 32, dtype=torch.int64)} for _ in targets]
    for name in (*model.loss_names, "ce+focal"):
        model.set_loss(name)
        for one in (ignored, background):
            losses = model.losses(images, one)
            assert all(torch.isfinite(v) for v in losses.values()), name
        sum(model.losses(images, ignored).values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_recipe_sets_the_loss():
    model = unet(3, **TINY)
    assert model.loss_name in model.loss_names
    model.configure(Recipe(loss="dice+focal"))
    assert set(model.losses(*batch())) == {"dice", "focal"}
    model.class_counts = [100, 10, 0]
    model.configure(Recipe(loss="ce", class_weights=True))
    assert model.criterion.class_weights.tolist() == pytest.approx([110 / 300, 110 / 30, 1.0])
    assert not [k for k in model.state_dict() if "criterion" in k]
    for recipe in (Recipe(loss="mse"), Recipe(loss="border+dice")):
        with pytest.raises(UsageError):
            model.configure(recipe)


def test_class_counts_of_masks():
    from saccade.testing import dataset

    data = dataset("segment", 6)
    model = unet(len(data.classes), **TINY)
    model.count_classes(data)
    expected = sum(torch.bincount(data[i].target["mask"].flatten().clamp_min(0), minlength=model.num_classes) for i in range(6))
    assert model.class_counts == expected.tolist()
    model.configure(Recipe(class_weights=True))


def test_wrong_use():
    for options, text in (
        ({"pretrained": True}, "pretrained_backbone"),
        ({"backbone": "test_resnet", "padding": "valid"}, "2-D"),
        ({"backbone": "no_such_net"}, "no_such_net"),
    ):
        with pytest.raises(UsageError, match=text):
            unet(2, **options)
    with pytest.raises(UsageError, match=r"model\.padding"):
        create_model("unet", 2, padding="reflect")


@pytest.mark.slow
def test_it_overfits_eight_real_images(real):
    from PIL import Image

    folder = real("wbc_segmentation") / "Dataset 1"
    torch.manual_seed(0)
    model, items = unet(3, width=8, size=64), []
    from torchvision import tv_tensors

    from saccade.types.sample import Sample, collate

    for name in [f"{i:03d}" for i in range(1, 9)]:
        image = torch.from_numpy(np.asarray(Image.open(folder / f"{name}.bmp").convert("RGB")).copy()).permute(2, 0, 1)
        mask = torch.from_numpy(np.asarray(Image.open(folder / f"{name}.png")).astype(np.int64) // 127)
        items.append(model.preprocess(Sample(tv_tensors.Image(image), {"mask": tv_tensors.Mask(mask)})))
    data = collate(items)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.losses(data.images, data.targets).values()).backward()
        optimizer.step()
    mask = torch.stack([t["mask"] for t in data.targets])
    assert (model.eval().raw(data.images).argmax(1) == mask).float().mean() > 0.95
