"""DCGAN (2015).

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, ICLR 2016,
arXiv:1511.06434. The game is that of Goodfellow et al. 2014 (arXiv:1406.2661).

What was new: rules by which two convolutional networks learn the adversarial game stably.

Where what stands:

* section 3 (strided and fractionally strided convolutions instead of pooling, no hidden dense layer, batch normalisation in all
  layers but the generator's output and the discriminator's input, ReLU and tanh, leaky ReLU of slope 0.2):
  :class:`Generator`, :class:`Discriminator`,
* figure 1 (4x4x1024, 8x8x512, 16x16x256, 32x32x128, 64x64x3): ``dcgan(size=64, width=128)``,
* section 4 (pixels in [-1, 1], batches of 128, weights from N(0, 0.02), Adam 2e-4 with beta_1 0.5): :func:`dcgan`,
  :func:`initialise`, :data:`RECIPES`,
* the losses, "non-saturating" (Goodfellow et al., end of section 3): :meth:`DCGAN.player_losses`.

Deviations. Kernels are 4x4: a kernel that the stride divides leaves no checkerboard (Odena et al. 2016); ``kernel=5`` is the paper's.
Noise is normal; ``noise="uniform"`` is the paper's. Default width is 64, half of figure 1. Other sizes have fewer or more levels.
A player's step moves neither the other's parameters nor its running statistics. In eval mode noise is a function of the image, so that
losses and scores repeat.

Pinned by tests: the shapes of figure 1, placement of the norms, slopes, standard deviation of the initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.data.transforms.preprocess import Preprocess
from saccade.models.base import AdversarialModel, Images
from saccade.models.bounds import check_within
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Generated, Prediction
from saccade.types.recipe import Recipe
from saccade.types.sample import Target


class Generator(nn.Module):
    """Noise (N, latent) to images (N, C, S, S) in [-1, 1]: up from 4x4 by transposed convolutions of stride 2."""

    def __init__(self, latent: int, channels: int, size: int, width: int, kernel: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in reversed(range(levels(size)))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for inputs, out in pairwise(widths):
            layers += [_up(inputs, out, kernel, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, _up(widths[-1], channels, kernel, bias=True), nn.Tanh())

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Images (N, C, S, S) to the logit (N,) of being real: down to 4x4 by convolutions of stride 2."""

    def __init__(self, channels: int, size: int, width: int, kernel: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels(size))]
        padding = (kernel - 1) // 2
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], kernel, 2, padding), nn.LeakyReLU(0.2, inplace=True)]
        for inputs, out in pairwise(widths):
            layers += [nn.Conv2d(inputs, out, kernel, 2, padding, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten()


def _up(inputs: int, out: int, kernel: int, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, out, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2, bias=bias)


def levels(size: int) -> int:
    """How often ``size`` halves down to 4."""
    count = size.bit_length() - 3
    if count < 1 or size != 4 << count:
        raise UsageError(f"model.size must be 8, 16, 32, 64, 128, ..., not {size}")
    return count


def initialise(module: nn.Module) -> None:
    """All weights from N(0, 0.02); biases 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class DCGAN(AdversarialModel):
    """DCGAN: see the module's docstring and :func:`dcgan`. The predictions are pictures that it made up."""

    task = "generate"
    loss_names = ("non_saturating", "minimax")

    def __init__(self, num_classes: int, channels: int, size: int, latent: int, width: int, kernel: int, noise: str) -> None:
        super().__init__(num_classes)
        self.latent, self.noise_kind, self.smoothing = latent, noise, 0.0
        self.generator = Generator(latent, channels, size, width, kernel)
        self.discriminator = Discriminator(channels, size, width, kernel)
        self.preprocess = Preprocess(mode="crop", size=(size, size), channels=channels, mean=(0.5,), std=(0.5,), crop=1.0)
        initialise(self)

    def raw(self, images: Images) -> Tensor:
        """Noise (N, latent) to images (N, C, S, S) in [-1, 1]. Given images, one is made from the noise that belongs to each."""
        assert isinstance(images, Tensor)
        return self.generator(images if images.ndim == 2 else self.noise_of(images))

    def decode(
        self, raw: Tensor, geometries: Sequence[Geometry], *, score: float = 0.0, iou: float = 0.5, max_detections: int = 100
    ) -> list[Prediction]:
        """Images in [-1, 1] to uint8 pictures of the network's own size."""
        return [Generated(image=picture) for picture, _ in zip(to_uint8(raw).cpu(), geometries, strict=True)]

    def configure(self, recipe: Recipe) -> None:
        """Loss, and one-sided label smoothing (Salimans et al. 2016): real pictures get the target 1 - ``label_smoothing``."""
        super().configure(recipe)
        self.smoothing = recipe.label_smoothing

    def player_losses(self, name: str, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Losses of one player; the other only judges or delivers, and is left as it is.

        Discriminator: -log D(x) ("real") and -log(1 - D(G(z))) ("fake"). Generator: -log D(G(z)), or with the loss "minimax"
        log(1 - D(G(z))) ("adversarial").
        """
        noise = self.draw(len(images), images.device) if self.training else self.noise_of(images)
        if name == "generator":
            with statistics_kept(self.discriminator):
                logits = self.discriminator(self.generator(noise)).float()
            value = -F.softplus(logits) if self.loss_name == "minimax" else F.softplus(-logits)
            return {"adversarial": value.mean()}
        with torch.no_grad(), statistics_kept(self.generator):
            made = self.generator(noise)
        real = self.discriminator(images).float()
        truth = torch.full_like(real, 1 - self.smoothing)
        return {
            "real": F.binary_cross_entropy_with_logits(real, truth),
            "fake": F.softplus(self.discriminator(made).float()).mean(),
        }

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Both players' losses, named ``PLAYER/NAME``."""
        assert isinstance(images, Tensor)
        return {f"{name}/{key}": value for name in self.players for key, value in self.player_losses(name, images, targets).items()}

    def draw(self, count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """(count, latent) random noise."""
        where = device if generator is None else generator.device
        if self.noise_kind == "uniform":
            return torch.rand(count, self.latent, device=where, generator=generator).to(device) * 2 - 1
        return torch.randn(count, self.latent, device=where, generator=generator).to(device)

    def noise_of(self, images: Tensor) -> Tensor:
        """(N, latent) noise that is a function of each image alone: the same on every device and in every batch.

        An integer hash of the 8-bit pixels (a weighted sum), mixed with the position by multiply and shift (the finaliser of
        counter-based generators), becomes a uniform number in (0, 1).
        """
        pixels = (images.float() * 127.5 + 127.5).round().long().flatten(1)
        weights = _mix(torch.arange(1, pixels.shape[1] + 1, device=images.device)) >> 1
        keys = _mix((pixels * weights).sum(1) & _MASK)
        bits = _mix((keys[:, None] + torch.arange(1, self.latent + 1, device=images.device) * 0x9E3779B1) & _MASK)
        uniform = ((bits >> 9).float() + 0.5) / 2**23 * 2 - 1
        return uniform if self.noise_kind == "uniform" else torch.erfinv(uniform) * 2**0.5

    @torch.no_grad()
    def sample(self, count: int, *, seed: int = 0) -> Tensor:
        """(count, C, S, S) uint8 pictures from seeded noise, the same for every batching; on the CPU."""
        noise = self.draw(count, self.device, torch.Generator().manual_seed(seed))
        was_training = self.training
        self.eval()
        try:
            return torch.cat([to_uint8(self.generator(part)).cpu() for part in noise.split(64)])
        finally:
            self.train(was_training)


_MASK = 2**32 - 1


def _mix(x: Tensor) -> Tensor:
    """32 bits in int64, well mixed: twice xor-shift and multiply; products stay below 2^63."""
    for shift in (16, 15):
        x = ((x ^ (x >> shift)) * 0x7FEB352D) & _MASK
    return x ^ (x >> 16)


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] to 0..255."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch normalisation as in training, its running statistics left alone."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)] if module.training else []
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def dcgan(
    num_classes: int = 1,
    *,
    in_chans: Literal[1, 3] = 3,
    pretrained: bool = False,
    size: int = 64,
    latent: int = 100,
    width: int = 64,
    kernel: Literal[4, 5] = 4,
    noise: Literal["normal", "uniform"] = "normal",
) -> DCGAN:
    """DCGAN. Figure 1 is ``width=128, kernel=5, noise="uniform"``.

    Args:
        num_classes: not used; the pictures are unconditional.
        in_chans: 1 or 3, of the pictures.
        pretrained: no weights are published; True is an error.
        size: side of the pictures: 8, 16, 32, 64, ...; images are resized by the short side and cut to the centre.
        latent: numbers of noise a picture.
        width: channels of the layers at half the size; doubled at each level below, down to 4x4.
        kernel: 4 or 5. noise: N(0, 1) or U(-1, 1).
    """
    if pretrained:
        raise UsageError("no weights are published for dcgan: leave pretrained off")
    check_within(8, 1024, size=size)
    check_within(1, 4096, latent=latent, width=width)
    return DCGAN(num_classes, in_chans, size, latent, width, kernel, noise)


RECIPES = {
    "dcgan": Recipe(
        epochs=25,
        batch_size=128,
        optimizer="adam",
        lr=2e-4,
        betas=(0.5, 0.999),
        weight_decay=0.0,
        schedule="constant",
    )
}
