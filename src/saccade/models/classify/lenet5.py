"""LeNet-5 (1998).

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86(11), 1998.

What was new: shared weights, local receptive fields and sub-sampling learned by gradient from pixels to classes.

Where what stands:

* figure 2 (the network): :class:`LeNet5`; 32x32 -> C1 28x28x6 -> S2 14x14x6 -> C3 10x10x16 -> S4 5x5x16 -> C5 120 -> F6 84 -> 10,
* table I (which S2 maps each C3 map sees): :data:`C3_TABLE`, :class:`SparseConv`,
* sub-sampling (sum of 2x2, a coefficient and a bias a map, squashed): :class:`Subsampling`,
* equation 6 and appendix A (squashing A tanh(S a), A = 1.7159, S = 2/3): :class:`ScaledTanh`,
* equation 7 (radial basis functions on 7x12 bitmaps of the digits): :class:`RBF`, :data:`DIGITS`,
* equation 8 (penalty of the right class) and 9 (with a competition between classes): losses "mse" and "map" of ``head="rbf"``.

The paper's form is ``lenet5(c3="sparse", subsampling="trainable", activation="scaled_tanh", head="rbf")``: 60,000 trainable
parameters (C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164; the RBF codes are fixed). The default is the form that is taught
and that most libraries mean: full C3, average pooling, tanh, a linear output: 61,706 parameters.

Deviations. Initial weights are uniform with the standard deviation 1 / sqrt(fan-in) instead of within 2.4 / fan-in, which starves
layers with many inputs. The pictures of the digits are drawn by us: the paper shows its own only as a figure. Mean and deviation of
the input are MNIST's. The recipe is ours (the paper: 20 epochs of stochastic Levenberg-Marquardt on 60,000 digits, 0.95% errors,
0.8% with distortions).

Pinned by tests: the size of every layer, 61,706, 60,000 and its six parts, the table's 60 connections.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.data.transforms.preprocess import Preprocess
from saccade.models.base import Images
from saccade.models.classify.base import Classifier, unpublished
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe
from saccade.types.sample import Target

C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""Table I: the S2 maps that feed each of the 16 C3 maps."""

DIGITS = (
    ".#####. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.",
    "##...## ..###.. ##...## ##...## ...###. ##..... .##.... .....## ##...## ##...##",
    "##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##",
    "##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##",
    "##...## ...##.. ....##. .....## ##..##. ##..... ##..... ....##. ##...## ##...##",
    "##...## ...##.. ....##. ..####. ##..##. ######. ######. ...##.. .#####. .######",
    "##...## ...##.. ...##.. .....## ####### .....## ##...## ...##.. ##...## .....##",
    "##...## ...##.. ..##... .....## ....##. .....## ##...## ..##... ##...## .....##",
    "##...## ...##.. ..##... .....## ....##. .....## ##...## ..##... ##...## .....##",
    "##...## ...##.. .##.... ##...## ....##. ##...## ##...## ..##... ##...## ....##.",
    "##...## ...##.. ##..... ##...## ....##. ##...## ##...## .##.... ##...## ...##..",
    ".#####. .#####. ####### .#####. ....##. .#####. .#####. .##.... .#####. .###...",
)
"""The ten digits side by side, each 7 wide and 12 high: # is +1, . is -1."""


class ScaledTanh(nn.Module):
    """f(a) = 1.7159 tanh(2 a / 3), so that f(1) = 1 and f(-1) = -1."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """S2 and S4 of the paper: the sum of each 2x2, times a coefficient, plus a bias, both learned, one each a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) * 4 * self.weight + self.bias


class SparseConv(nn.Module):
    """A 5x5 convolution whose output maps see only the input maps of a table: only these kernels exist as parameters."""

    def __init__(self, in_channels: int, table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        pairs = [(out, channel) for out, row in enumerate(table) for channel in row]
        index = torch.tensor(pairs).T
        self.register_buffer("position", index[0] * in_channels + index[1], persistent=False)
        self.shape = (len(table), in_channels, 5, 5)
        bounds = torch.tensor([(3 / (25 * len(table[out]))) ** 0.5 for out, _ in pairs])
        self.weight = nn.Parameter((torch.rand(len(pairs), 25) * 2 - 1) * bounds[:, None])
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        dense = self.weight.new_zeros(self.shape[0] * self.shape[1], 25).index_copy(0, self.position, self.weight)
        return F.conv2d(x, dense.view(self.shape), self.bias)


class RBF(nn.Module):
    """Equation 7: y_i = sum_j (x_j - w_ij)^2 to fixed codes of +-1; gives -y, so that the largest is the class."""

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes > 10:
            raise UsageError(f'model.head="rbf" has codes for the ten digits, not for {num_classes} classes; take "linear"')
        self.register_buffer("codes", digit_codes()[:num_classes])

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(2)


def digit_codes() -> Tensor:
    """(10, 84) float32 of +-1: the pictures of :data:`DIGITS`, row by row."""
    pictures = ["".join(row.split()[digit] for row in DIGITS) for digit in range(10)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in picture] for picture in pictures])


ACTIVATIONS = {"tanh": nn.Tanh, "scaled_tanh": ScaledTanh, "relu": nn.ReLU}


class LeNet5(Classifier):
    """LeNet-5: see the module's docstring and :func:`lenet5`. Layers carry the paper's names."""

    loss_names = ("ce", "map", "mse")

    def __init__(
        self, num_classes: int, in_chans: int, preprocess: Preprocess, *, c3: str, subsampling: str, activation: str, head: str
    ) -> None:
        super().__init__(num_classes, preprocess)
        squash = ACTIVATIONS[activation]
        trainable = subsampling == "trainable"

        def pool(channels: int) -> nn.Module:
            return nn.Sequential(Subsampling(channels), squash()) if trainable else nn.AvgPool2d(2)

        self.c1 = nn.Conv2d(in_chans, 6, 5)
        self.s2 = pool(6)
        self.c3 = SparseConv(6, C3_TABLE) if c3 == "sparse" else nn.Conv2d(6, 16, 5)
        self.s4 = pool(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = RBF(num_classes) if head == "rbf" else nn.Linear(84, num_classes)
        self.squash = squash()
        initialise(self)
        if head == "rbf":
            self.set_loss("map")

    def raw(self, images: Images) -> Tensor:
        """(N, C, 32, 32) to logits (N, K); with the RBF output, minus the distances."""
        x = self.s2(self.squash(self.c1(images)))
        x = self.s4(self.squash(self.c3(x)))
        x = self.squash(self.c5(x)).flatten(1)
        return self.output(self.squash(self.f6(x)))

    def set_loss(self, name: str) -> None:
        """As the base; "map" and "mse" are the paper's, for the RBF output."""
        super().set_loss(name)
        if name != "ce" and not isinstance(self.output, RBF):
            raise UsageError(f'recipe.loss={name} is for model.head="rbf"; the linear output takes "ce"')

    @property
    def plain_losses(self) -> bool:
        """Only with the loss "ce"."""
        return self.loss_name == "ce"

    def losses(self, images: Images, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy; or equation 8 ("mse": y of the right class) or 9 ("map": + log(e^-j + sum_i e^-y_i), j = 1)."""
        if self.loss_name == "ce":
            return super().losses(images, targets)
        logits = self.raw(images).float()
        truth = self.truth(targets).to(logits.device)
        if truth.ndim == 1:
            truth = F.one_hot(truth, self.num_classes).float()
        right = -(truth * logits).sum(1)
        if self.loss_name == "map":
            constant = logits.new_full((len(logits), 1), -1.0)
            right = right + torch.cat([logits, constant], 1).logsumexp(1)
        return {self.loss_name: right.mean()}


def initialise(model: LeNet5) -> None:
    """Weights uniform with standard deviation 1 / sqrt(fan-in), biases 0 (:class:`SparseConv` does the same)."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            bound = (3 / layer.weight[0].numel()) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)


def lenet5(
    num_classes: int = 10,
    *,
    in_chans: Literal[1, 3] = 1,
    pretrained: bool = False,
    c3: Literal["full", "sparse"] = "full",
    subsampling: Literal["average", "trainable"] = "average",
    activation: Literal["tanh", "scaled_tanh", "relu"] = "tanh",
    head: Literal["linear", "rbf"] = "linear",
    fit: Literal["pad", "stretch"] = "pad",
) -> LeNet5:
    """LeNet-5 on 32x32 images.

    Args:
        num_classes: of the output; at most 10 with ``head="rbf"``.
        in_chans: 1 (grey) or 3.
        pretrained: no weights are published; True is an error.
        c3: "sparse" connects C3 by the paper's table I.
        subsampling: "trainable" as the paper, or average pooling.
        activation: tanh, the paper's 1.7159 tanh(2 a / 3), or ReLU.
        head: a linear output, or the paper's distances to fixed bitmaps of the digits.
        fit: "pad" centres smaller images (28x28) on black and shrinks larger ones, aspect ratio kept; "stretch" resizes all.
    """
    unpublished("lenet5", pretrained)
    preprocess = Preprocess(
        mode="letterbox" if fit == "pad" else "stretch", size=(32, 32), channels=in_chans, mean=(0.1307,), std=(0.3081,), upscale=False
    )
    return LeNet5(num_classes, in_chans, preprocess, c3=c3, subsampling=subsampling, activation=activation, head=head)


RECIPES = {
    "lenet5": Recipe(
        epochs=8,
        batch_size=64,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=1e-2,
        warmup=0.5,
        rotate=10.0,
        scale=0.1,
        translate=0.05,
    )
}
