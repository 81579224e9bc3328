"""G2: DCGAN (Radford et al. 2015). Oracles: figure 1 and section 3 and 4 of the paper, the losses of Goodfellow et al. by hand."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saccade.models.generate.dcgan import RECIPES, dcgan
from saccade.models.registry import create_model
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe

TINY = {"width": 8, "size": 32, "latent": 16}


def pictures(n=4, channels=3, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator).float() / 127.5 - 1


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.mark.parametrize("kernel", [4, 5])
@torch.no_grad()
def test_G2_dcgan_figure_1(kernel):
    with torch.device("meta"):
        model = create_model("dcgan", size=64, width=128, kernel=kernel)
    shapes = []
    for layer in model.generator.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:])))
    assert model.generator(torch.zeros(1, 100, device="meta")).shape == (1, 3, 64, 64)
    assert shapes == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]
    assert model.discriminator(torch.zeros(2, 3, 64, 64, device="meta")).shape == (2,)


def test_G2_dcgan_is_all_convolutional_with_norms_and_slopes_of_section_3():
    model = dcgan()
    kinds = (nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample)
    assert not [m for m in model.modules() if isinstance(m, kinds)]
    g, d = list(model.generator.layers), list(model.discriminator.layers)
    assert [type(m) for m in g[:3]] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    assert [type(m) for m in g[-2:]] == [nn.ConvTranspose2d, nn.Tanh]  # no norm at the generator's output
    assert [type(m) for m in d[:2]] == [nn.Conv2d, nn.LeakyReLU]  # nor at the discriminator's input
    assert all(type(b) is nn.BatchNorm2d for a, b in pairwise(g[:-2]) if isinstance(a, nn.ConvTranspose2d))
    assert all(type(b) is nn.BatchNorm2d for a, b in pairwise(d[2:]) if isinstance(a, nn.Conv2d))
    assert {m.negative_slope for m in d if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert all(m.stride == (2, 2) for m in [*g[3:], *d[:-1]] if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)))


def test_G2_dcgan_initial_weights_and_training_settings_of_section_4():
    torch.manual_seed(0)
    model = dcgan()
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.weight.numel() > 5000:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert abs(layer.weight.mean().item()) < 1e-3
    recipe = RECIPES["dcgan"]
    assert (recipe.optimizer, recipe.lr, recipe.betas, recipe.batch_size, recipe.weight_decay) == ("adam", 2e-4, (0.5, 0.999), 128, 0.0)
    tensor = model.preprocess.image(
        torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2).expand(3, 2, 2), model.preprocess.geometry((2, 2))
    )
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)


def test_losses_by_hand():
    torch.manual_seed(0)
    model = dcgan(**TINY).eval()
    images = pictures()
    losses = model.losses(images, [{}] * 4)
    real = model.discriminator(images).sigmoid().double()
    made = model.discriminator(model.raw(images)).sigmoid().double()
    assert losses["discriminator/real"].item() == pytest.approx(-real.log().mean().item(), rel=1e-4)
    assert losses["discriminator/fake"].item() == pytest.approx(-(1 - made).log().mean().item(), rel=1e-4)
    assert losses["generator/adversarial"].item() == pytest.approx(-made.log().mean().item(), rel=1e-4)
    model.configure(Recipe(loss="minimax", label_smoothing=0.1))
    smooth = model.losses(images, [{}] * 4)
    assert smooth["generator/adversarial"].item() == pytest.approx((1 - made).log().mean().item(), rel=1e-4)
    expected = -(0.9 * real.log() + 0.1 * (1 - real).log()).mean().item()
    assert smooth["discriminator/real"].item() == pytest.approx(expected, rel=1e-4)
    assert losses.keys() == smooth.keys()


def test_a_step_of_one_player_leaves_the_other_alone():
    torch.manual_seed(0)
    model = dcgan(**TINY).train()
    images = pictures()
    for name, other in (("discriminator", "generator"), ("generator", "discriminator")):
        optimizer = torch.optim.Adam(model.player(name).parameters(), lr=2e-4, betas=(0.5, 0.999))
        before, left = state(model.player(name)), state(model.player(other))
        optimizer.zero_grad()
        sum(model.player_losses(name, images, [{}] * 4).values()).backward()
        assert all(p.grad is not None for p in model.player(name).parameters())
        optimizer.step()
        assert same(model.player(other).state_dict(), left)  # parameters and running statistics
        now = model.player(name).state_dict()
        assert all(not torch.equal(now[k], before[k]) for k in before)
        assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        model.zero_grad()


def test_gradients_reach_all_parameters():
    model = dcgan(**TINY)
    sum(model.losses(pictures(), [{}] * 4).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_eval_losses_repeat_and_leave_buffers_alone():
    model = dcgan(**TINY).eval()
    images = pictures()
    before, rng = state(model), torch.get_rng_state()
    first, second = model.losses(images, [{}] * 4), model.losses(images, [{}] * 4)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert same(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), rng)
    model.train()
    assert not torch.equal(model.losses(images, [{}] * 4)["generator/adversarial"], first["generator/adversarial"])


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_of_images_is_noise(kind):
    from scipy import stats

    model = dcgan(**(TINY | {"noise": kind}))
    images = pictures(500, side=8)
    noise = model.noise_of(images)
    assert noise.shape == (500, 16)
    assert torch.equal(noise[3:4], model.noise_of(images[3:4]))  # the same in every batch
    one = images[:1].clone()
    one[0, 0, 0, 0] += 2 / 255 if one[0, 0, 0, 0] < 0 else -2 / 255
    assert (model.noise_of(one) - noise[:1]).abs().mean() > 0.2  # one grey level changes all
    expected = stats.norm() if kind == "normal" else stats.uniform(-1, 2)
    assert stats.kstest(noise.flatten().numpy(), expected.cdf).pvalue > 1e-3
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.2


def test_samples_are_seeded():
    model = dcgan(**TINY)
    model.losses(pictures(), [{}] * 4)  # moves the running statistics
    first = model.sample(70, seed=3)
    assert first.shape == (70, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, model.sample(70, seed=3))
    assert torch.equal(first[:5], model.sample(5, seed=3))
    assert not torch.equal(first, model.sample(70, seed=4))
    assert model.training


def test_predictions_are_made_pictures():
    model = dcgan(in_chans=1, **TINY)
    image = torch.randint(0, 256, (3, 50, 40), dtype=torch.uint8)
    out = model.predict([image, image[:, :20]])
    assert [tuple(p.image.shape) for p in out] == [(1, 32, 32)] * 2
    assert out[0].image.dtype == torch.uint8
    assert out[0].draw().size == (32, 32)
    with torch.no_grad():
        assert model.eval().raw(torch.zeros(3, 16)).shape == (3, 1, 32, 32)


def test_exports_from_noise_and_from_images():
    model = dcgan(**TINY).eval()
    for given in (torch.randn(2, 16), pictures(2)):
        exported = torch.export.export(model, (given,)).module()
        torch.testing.assert_close(exported(given), model.raw(given), rtol=1e-4, atol=1e-5)


def test_wrong_use():
    for size in (28, 4, 48):
        with pytest.raises(UsageError, match=r"model\.size"):
            dcgan(size=size)
    with pytest.raises(UsageError, match="no weights"):
        dcgan(pretrained=True)


@pytest.mark.slow
def test_it_learns_the_mean_colour():
    """Two hundred steps on red pictures: made pictures become red."""
    torch.manual_seed(0)
    model = dcgan(width=8, size=8, latent=8).train()
    images = torch.tensor([0.8, -0.8, -0.8]).view(1, 3, 1, 1).expand(16, 3, 8, 8) + 0.05 * torch.randn(16, 3, 8, 8)
    optimizers = {n: torch.optim.Adam(model.player(n).parameters(), lr=1e-3, betas=(0.5, 0.999)) for n in model.players}
    for _ in range(200):
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            sum(model.player_losses(name, images, [{}] * 16).values()).backward()
            optimizer.step()
    made = model.sample(32).float().mean((0, 2, 3)) / 127.5 - 1
    assert F.l1_loss(made, torch.tensor([0.8, -0.8, -0.8])) < 0.35
    assert math.isfinite(made.sum())
