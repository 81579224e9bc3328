"""Convolution, batch normalisation, activation: the unit of nearly every network since 2015."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "relu6", "leaky", "mish", "silu", "linear"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "mish": nn.Mish,
    "silu": nn.SiLU,
    "linear": nn.Identity,
}
"""Name -> layer; "leaky" has Darknet's slope 0.1, "mish" is arXiv 1908.08681, "silu" x sigma(x), which Darknet calls swish."""


class ConvBN(nn.Module):
    """``act(bn(conv(x)))``: (N, in_chans, H, W) to (N, out_chans, H', W'); the convolution has no bias, as beta is one.

    The children stand in the order in which Darknet's files store them, so that a reader may walk ``modules()``.

    Args:
        in_chans, out_chans: maps.
        kernel: side, or (height, width).
        stride, groups: of the convolution.
        padding: None keeps the size at stride 1 (for odd kernels).
        activation: a name of :data:`ACTIVATIONS`.
        eps, momentum: of the batch normalisation; momentum is the share of the new batch in the running values.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        activation: Activation = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (sides[0] // 2, sides[1] // 2) if padding is None else padding
        self.conv = nn.Conv2d(in_chans, out_chans, sides, stride=stride, padding=around, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_chans, eps=eps, momentum=momentum)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))
