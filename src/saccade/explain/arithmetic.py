"""The arithmetic of convolutions: output sizes, parameters, and which pixels a unit sees. No torch here.

Dumoulin, Visin: A guide to convolution arithmetic for deep learning, arXiv 1603.07285 (sizes);
Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019 (fields over a graph).
Positions are edges of pixels: pixel 0 is from 0 to 1, its centre at 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

LONGEST_PERIOD = 4096
"""Units after which the pattern of a :class:`Span` must repeat; beyond, it is not followed."""


def conv_size(n: int, k: int, s: int = 1, p: int = 0, d: int = 1) -> int:
    """Output size of a convolution or pooling: floor((n + 2p - d(k - 1) - 1) / s + 1) (1603.07285, relationship 15).

    >>> conv_size(227, 11, s=4), conv_size(224, 7, s=2, p=3)
    (55, 112)
    """
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def transposed_size(n: int, k: int, s: int = 1, p: int = 0, d: int = 1, output_padding: int = 0) -> int:
    """Output size of a transposed convolution: s(n - 1) + d(k - 1) + 1 - 2p + output_padding (1603.07285, relationship 14).

    >>> transposed_size(4, 4, s=2, p=1)
    8
    """
    return s * (n - 1) + d * (k - 1) + 1 - 2 * p + output_padding


def conv_parameters(inputs: int, outputs: int, kernel: Sequence[int], groups: int = 1, bias: bool = True) -> int:
    """Weights and biases: outputs * (inputs / groups * kernel + 1).

    >>> conv_parameters(3, 96, (11, 11))
    34944
    """
    return outputs * (inputs // groups * math.prod(kernel) + bias)


def not_whole(n: int, k: int, s: int = 1, p: int = 0, d: int = 1) -> str:
    """What is wrong where (n - k + 2p) / s is not a whole number, or "".

    >>> not_whole(224, 11, s=4)
    '(224-11)/4 = 53.25 is not whole: 1 of 224 is not seen'
    >>> not_whole(227, 11, s=4)
    ''
    """
    extent = d * (k - 1) + 1
    rest = (n + 2 * p - extent) % s
    if rest == 0:
        return ""
    formula = f"({n}-{extent}{f'+{2 * p}' if p else ''})/{s} = {(n + 2 * p - extent) / s:g} is not whole"
    unseen = rest - p
    return formula + (f": {unseen} of {n} {'is' if unseen == 1 else 'are'} not seen" if unseen > 0 else ": padding is cut unevenly")


@dataclass(frozen=True)
class Span:
    """Which pixels the units of a map see, along one side of the image.

    Unit ``q * period + r`` sees from ``lows[r] + q * advance`` to ``highs[r] + q * advance``, padding counted as pixels. A plain
    convolution has period 1; after upsampling neighbours differ, so the pattern repeats after more units.

    Attributes:
        lows, highs: edges of pixels by phase. advance: pixels a period; 0 where all units see the same.
        count: units along the side. size: of the image.
        context: (low, high) that every unit sees beside its own (squeeze-and-excitation, attention), or None.
        known: False where an operation was met that is not followed; then only ``total`` holds.
    """

    lows: tuple[int, ...]
    highs: tuple[int, ...]
    advance: int
    count: int
    size: int
    context: tuple[int, int] | None = None
    known: bool = True

    @classmethod
    def of_image(cls, size: int) -> Span:
        """Each pixel sees itself."""
        return cls((0,), (1,), 1, size, size)

    @property
    def period(self) -> int:
        return len(self.lows)

    def at(self, unit: int) -> tuple[int, int]:
        """What a unit sees by itself, without context."""
        turns, phase = divmod(unit, self.period)
        return self.lows[phase] + turns * self.advance, self.highs[phase] + turns * self.advance

    @property
    def total(self) -> tuple[int, int]:
        """What all units together see of the image, padding left out."""
        ends = [self.at(0), self.at(max(0, self.count - 1)), *([self.context] if self.context else [])]
        return max(0, min(low for low, _ in ends)), min(self.size, max(high for _, high in ends))

    @property
    def sees_all(self) -> bool:
        """Every unit sees the whole image."""
        common = self.context if self.advance else _around(self.context, self.at(0))
        return self.known and common is not None and common[0] <= 0 and common[1] >= self.size

    @property
    def field(self) -> int | None:
        """Pixels that a unit sees, the most of all units (padding counted, so it may exceed the image); None when not followed."""
        if not self.known:
            return None
        own = max(high - low for low, high in zip(self.lows, self.highs, strict=True))
        return max(own, self.context[1] - self.context[0]) if self.context else own

    @property
    def jump(self) -> float | None:
        """Pixels between neighbouring units; None where all see the same."""
        return self.advance / self.period if self.known and self.advance else None

    @property
    def start(self) -> float | None:
        """Centre of what the first unit sees by itself."""
        return (self.lows[0] + self.highs[0]) / 2 if self.known else None

    def lost(self, count: int = 1) -> Span:
        """Of the same pixels, who sees which no longer followed."""
        low, high = self.total
        return replace(self, lows=(low,), highs=(high,), advance=0, count=count, context=None, known=False)

    def collapsed(self, count: int = 1) -> Span:
        """Every unit sees what all saw together."""
        low, high = self.total
        return replace(self, lows=(low,), highs=(high,), advance=0, count=count, context=None, known=True)

    def with_context(self, other: Span) -> Span:
        """Every unit sees all of ``other`` too."""
        return replace(self, context=_around(self.context, other.total))

    def resampled(self, taps: Sequence[tuple[int, int]], step: int, count: int) -> Span:
        """New units that see old ones: unit ``q * len(taps) + r`` sees old units ``taps[r][0] + q * step`` to ``taps[r][1] + q * step``.

        A convolution is ``[(-p, d(k - 1) - p)]`` at step s; nearest upsampling by 2 ``[(0, 0), (0, 0)]`` at step 1.
        """
        if not self.known:
            return self.lost(count)
        if self.advance == 0:
            return replace(self, count=count)
        turns = self.period // math.gcd(step, self.period)  # the least so that turns * step is a multiple of the period
        if turns * len(taps) > LONGEST_PERIOD:
            return self.lost(count)
        old = [(first + q * step, last + q * step) for q in range(turns) for first, last in taps]
        lows, highs = tuple(self.at(first)[0] for first, _ in old), tuple(self.at(last)[1] for _, last in old)
        return replace(self, lows=lows, highs=highs, advance=self.advance * turns * step // self.period, count=count).reduced()

    def reduced(self) -> Span:
        """The same with the shortest period."""
        for period in range(1, self.period):
            if self.period % period == 0 and self.advance % (self.period // period) == 0:
                short = replace(self, lows=self.lows[:period], highs=self.highs[:period], advance=self.advance * period // self.period)
                if all(short.at(i) == self.at(i) for i in range(self.period)):
                    return short
        return self

    def joined(self, other: Span) -> Span:
        """Each unit sees what it sees in both maps (their sum, or one after the other in channels)."""
        if self == other:
            return self
        count = max(self.count, other.count)
        if not (self.known and other.known):
            low, high = _around(self.total, other.total)
            if any(one.known and one.sees_all for one in (self, other)):
                return Span((0,), (self.size,), 0, count, self.size)
            return replace(self, lows=(low,), highs=(high,), context=None).lost(count)
        if other.advance == 0:
            return replace(self.with_context(other), count=count)
        if self.advance == 0:
            return replace(other.with_context(self), count=count)
        if self.advance * other.period != other.advance * self.period:  # grids of unlike jumps
            return self.with_context(other).lost(count)
        period = math.lcm(self.period, other.period)
        ends = [(*self.at(i), *other.at(i)) for i in range(period)]
        context = _around(self.context, other.context) if self.context and other.context else self.context or other.context
        return Span(
            tuple(min(a, c) for a, _, c, _ in ends),
            tuple(max(b, d) for _, b, _, d in ends),
            self.advance * period // self.period,
            count,
            self.size,
            context,
        ).reduced()


def _around(a: tuple[int, int] | None, b: tuple[int, int]) -> tuple[int, int]:
    return b if a is None else (min(a[0], b[0]), max(a[1], b[1]))


def conv_taps(k: int, p: int, d: int) -> list[tuple[int, int]]:
    """Taps of a convolution or pooling, for :meth:`Span.resampled` at the step of its stride."""
    return [(-p, d * (k - 1) - p)]


def transposed_taps(k: int, s: int, p: int, d: int) -> list[tuple[int, int]]:
    """Taps of a transposed convolution, at step 1: output o sees the inputs i with o = i * s - p + j * d for a j of the kernel."""
    taps = []
    for o in range(s):
        seen = [(o + p - j * d) // s for j in range(k) if (o + p - j * d) % s == 0]
        taps.append((min(seen), max(seen)) if seen else ((o + p) // s,) * 2)  # no input: it shows the bias alone
    return taps


def resize_taps(old: int, new: int, mode: str, align_corners: bool = False) -> tuple[list[tuple[int, int]], int]:
    """Taps and step of resizing a side of ``old`` units to ``new``: "nearest", "linear", "cubic", or "area" (adaptive pooling)."""
    if mode in ("linear", "cubic") and align_corners:
        over, under = (old - 1, new - 1) if new > 1 else (0, 1)
    else:
        over, under = old, new
    divisor = math.gcd(over, under)
    step, period = over // divisor, under // divisor
    taps = []
    for i in range(period):
        if mode == "area":
            taps.append((i * step // period, -(-(i + 1) * step // period) - 1))
        elif mode == "nearest":
            taps.append((i * step // period,) * 2)
        else:  # position of the centre, in halves of 1/period, exactly
            position = 2 * i * step if align_corners else (2 * i + 1) * step - period
            below, beyond = divmod(position, 2 * period)
            reach = 0 if mode == "linear" else 1
            taps.append((below - reach, below + 1 + reach) if beyond else (below, below))
    return taps, step
