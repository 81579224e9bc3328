"""How shapes and receptive fields pass through PyTorch's operations: one rule a family of operations.

Every tensor that depends on the image carries a :class:`Trace`: along each side of the image a :class:`Span` (who sees which pixels), and
for each dimension of the tensor what lies in it. Channels are not told apart: a unit is a position.
Statistics of a normalisation over positions (group, layer, instance) are not counted as seeing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from saccade.explain.arithmetic import Span, conv_taps, not_whole, resize_taps, transposed_taps

Side = int | tuple[int, ...] | None
"""A side of the image; several where their units are mixed; None for channels and the like."""
Factors = tuple[tuple[Side, int], ...]
"""What lies in a dimension, outermost first: (side, units); a flattened map has several."""


def members(side: Side) -> tuple[int, ...]:
    """The single sides."""
    return () if side is None else (side,) if isinstance(side, int) else side


@dataclass(frozen=True)
class Trace:
    """Where a tensor's numbers come from.

    Attributes:
        spans: one a side of the image. dims: one a dimension. source: numbers of the layers that made it.
    """

    spans: tuple[Span, ...]
    dims: tuple[Factors, ...]
    source: frozenset[int] = frozenset()

    def place(self, side: int) -> int | None:
        """The dimension in which a side lies; None after pooling over it."""
        return next((d for d, factors in enumerate(self.dims) if any(side in members(a) for a, _ in factors)), None)

    def side(self, dim: int) -> int | None:
        """The side that makes up a dimension by itself."""
        factors = self.dims[dim]
        return factors[0][0] if len(factors) == 1 and isinstance(factors[0][0], int) else None

    def sides(self, dims: Iterable[int]) -> set[int]:
        """All sides in some dimensions."""
        return {one for d in dims for a, _ in self.dims[d] for one in members(a)}

    def changed(self, spans: dict[int, Span], dims: Sequence[Factors]) -> Trace:
        """With other spans of some sides, and other dimensions."""
        return replace(self, spans=tuple(spans.get(i, s) for i, s in enumerate(self.spans)), dims=tuple(dims))


def plain(size: int) -> Factors:
    """A dimension without a side of the image."""
    return ((None, size),)


def of_image(shape: Sequence[int], spatial: int) -> Trace:
    """Of the input: the last ``spatial`` dimensions are the sides of the image."""
    first = len(shape) - spatial
    dims = [((d - first, n),) if d >= first else plain(n) for d, n in enumerate(shape)]
    return Trace(tuple(Span.of_image(n) for n in shape[first:]), tuple(dims))


def follow(name: str, traces: list[Trace | None], args: Sequence[Any], kwargs: dict[str, Any], outputs: list[Tensor]) -> list[Trace]:
    """Traces of an operation's outputs.

    Args:
        name: "convolution", "add", ...: without overload and trailing underscore.
        traces: of ``args``, flat in order: of each tensor in them.
        args, kwargs: as the operation got them. outputs: its tensors.
    """
    known = [t for t in traces if t is not None]
    rule = RULES.get(name)
    if rule is not None and traces and (traces[0] is not None or name in ANY_FIRST):
        made = rule(Call(name, traces, args, kwargs, outputs))
        if made is not None:
            return made
    return [broadcast(known, tuple(out.shape)) for out in outputs]


@dataclass(frozen=True)
class Call:
    """One operation."""

    name: str
    traces: list[Trace | None]
    args: Sequence[Any]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    @property
    def trace(self) -> Trace:
        """Of the first tensor."""
        found = self.traces[0]
        assert found is not None
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.outputs[0].shape)

    def given(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


def lost(traces: Sequence[Trace], shape: Sequence[int]) -> Trace:
    """After an operation that is not followed."""
    spans = [t.lost() for t in traces[0].spans]
    for other in traces[1:]:
        spans = [a.joined(b.lost()) for a, b in zip(spans, other.spans, strict=True)]
    return Trace(tuple(spans), tuple(plain(n) for n in shape), sources(traces))


def sources(traces: Iterable[Trace]) -> frozenset[int]:
    """All layers behind some tensors."""
    return frozenset().union(*(t.source for t in traces))


def broadcast(traces: Sequence[Trace], shape: Sequence[int]) -> Trace:
    """Element by element, dimensions aligned from the right."""
    if len(traces) == 1 and tuple(size_of(f) for f in traces[0].dims) == tuple(shape):
        return traces[0]
    if any(
        len(t.dims) > len(shape) or any(size_of(f) not in (1, n) for f, n in zip(reversed(t.dims), reversed(shape), strict=False))
        for t in traces
    ):
        return lost(traces, shape)
    dims: list[Factors] = [plain(n) for n in shape]
    spans = []
    for side in range(len(traces[0].spans)):
        placed: dict[int, Factors] = {}
        span: Span | None = None
        for t in traces:
            one, at = t.spans[side], t.place(side)
            if at is not None and (size_of(t.dims[at]) > 1 or shape[at - len(t.dims)] == 1):
                placed[at - len(t.dims) + len(shape)] = t.dims[at]
            elif one.known:
                one = one.collapsed() if one.advance else one
            span = one if span is None else span.joined(one)
        assert span is not None
        if len(placed) > 1:
            span, placed = span.lost(), {}
        elif not placed and span.advance and len(traces) > 1:
            span = span.collapsed()
        for d, factors in placed.items():
            dims[d] = factors
        spans.append(span)
    return Trace(tuple(spans), tuple(dims), sources(traces))


def size_of(factors: Factors) -> int:
    """Units in a dimension."""
    return math.prod(n for _, n in factors)


def rebuilt(trace: Trace, shape: Sequence[int], made: dict[int, Span], first: int) -> Trace:
    """After a window operation on the dimensions from ``first``: sides that lie there purely have new spans, others are lost."""
    dims: list[Factors] = [plain(n) for n in shape]
    spans = {}
    for side, span in enumerate(trace.spans):
        at = trace.place(side)
        if side in made:
            assert at is not None
            spans[side], dims[at] = made[side], ((side, shape[at]),)
        elif at is not None and at >= first:
            spans[side] = span.lost()
        elif at is not None and size_of(trace.dims[at]) == shape[at] and at != first - 1:
            dims[at] = trace.dims[at]
        elif at is not None:  # in the channels, which are summed over
            spans[side] = span.collapsed()
    return trace.changed(spans, dims)


Taps = Callable[[int, int, int], tuple[list[tuple[int, int]], int]]


def windows(call: Call, first: int, taps: Taps) -> list[Trace]:
    """``taps(number of the dimension from first, old size, new size)`` gives taps and step along it."""
    trace, shape = call.trace, call.shape
    made = {}
    for d in range(first, len(shape)):
        side = trace.side(d)
        if side is not None:
            pattern, step = taps(d - first, size_of(trace.dims[d]), shape[d])
            made[side] = trace.spans[side].resampled(pattern, step, shape[d])
    return [rebuilt(trace, tuple(out.shape), made, first) for out in call.outputs]


def per_side(value: Any, count: int, default: int) -> list[int]:
    """(3,) or 3 or [] to one number a dimension."""
    if value is None or value == []:
        return [default] * count
    values = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (values * count if len(values) == 1 else values)]


@dataclass(frozen=True)
class Window:
    """Numbers of a convolution or pooling, one a dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    ceil: bool = False

    def taps(self, i: int) -> tuple[list[tuple[int, int]], int]:
        """Taps and step along dimension i."""
        k, s, p, d = self.kernel[i], self.stride[i], self.padding[i], self.dilation[i]
        return (transposed_taps(k, s, p, d), 1) if self.transposed else (conv_taps(k, p, d), s)

    def warning(self, sizes: Sequence[int]) -> str:
        """Where (I - K + 2P) / S is not whole."""
        if self.transposed:
            return ""
        found = [
            not_whole(n, k, s, p, d).partition(":")[0] + ": the last window hangs over"
            if self.ceil and not_whole(n, k, s, p, d)
            else not_whole(n, k, s, p, d)
            for n, k, s, p, d in zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        ]
        return "; ".join(dict.fromkeys(text for text in found if text))


def window_of(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Window | None:
    """The window of a convolution or pooling; None of other operations."""
    call = Call(name, [], args, kwargs, [])
    if name == "convolution":
        kernel = tuple(args[1].shape[2:])
        n = len(kernel)
        stride, padding, dilation = (tuple(per_side(args[i], n, d)) for i, d in ((3, 1), (4, 0), (5, 1)))
        return Window(kernel, stride, padding, dilation, transposed=bool(args[6]))
    if name.startswith(("max_pool", "avg_pool")):
        n = int(name[len("max_pool")])
        kernel = tuple(per_side(args[1], n, 1))
        given = call.given(2, "stride")
        stride = tuple(per_side(given, n, 1)) if given not in (None, []) else kernel
        padding = tuple(per_side(call.given(3, "padding"), n, 0))
        dilation = tuple(per_side(call.given(4, "dilation"), n, 1)) if name.startswith("max") else (1,) * n
        ceil = call.given(5, "ceil_mode", False) if name.startswith("max") else call.given(4, "ceil_mode", False)
        return Window(kernel, stride, padding, dilation, ceil=bool(ceil))
    return None


def convolve(call: Call) -> list[Trace] | None:
    """Convolutions and pools of fixed windows."""
    window = window_of(call.name, call.args, call.kwargs)
    assert window is not None
    first = len(call.shape) - len(window.kernel)
    return windows(call, first, lambda i, old, new: window.taps(i))


def adapt(call: Call) -> list[Trace]:
    """Pools to a given size."""
    n = len(per_side(call.args[1], 1, 1)) if not isinstance(call.args[1], int) else 1
    return windows(call, len(call.shape) - n, lambda i, old, new: resize_taps(old, new, "area"))


def upsample(call: Call) -> list[Trace] | None:
    """Resizing; with antialiasing it is not followed."""
    if "_aa" in call.name:
        return None
    mode = "nearest" if "nearest" in call.name else "cubic" if "cubic" in call.name else "linear"
    corners = bool(call.given(2, "align_corners", False)) if mode != "nearest" else False
    made = windows(call, 2, lambda i, old, new: resize_taps(old, new, mode, corners))
    trace = call.trace
    for side in range(len(trace.spans)):  # a single unit spread over the map: all see the same
        at = trace.place(side)
        if at is not None and at >= 2 and size_of(trace.dims[at]) == 1:
            same = trace.spans[side].collapsed(call.shape[at])
            made = [m.changed({side: same}, m.dims) for m in made]
    return made


def reduce(call: Call) -> list[Trace] | None:
    """Mean, sum, maximum ... over dimensions: all of them seen together."""
    trace, rank = call.trace, len(call.trace.dims)
    over = call.given(2 if call.name == "linalg_vector_norm" else 1, "dim")
    if isinstance(over, Tensor):  # the larger of two tensors
        return None
    dims = {int(d) % rank for d in ([over] if isinstance(over, int) else over or range(rank))}
    keep = len(call.shape) == rank
    spans = {side: trace.spans[side].collapsed() for side in trace.sides(dims)}
    kept: list[Factors] = [plain(1) if d in dims else f for d, f in enumerate(trace.dims) if keep or d not in dims]
    return [trace.changed(spans, kept)] * len(call.outputs) if len(kept) == len(call.shape) else None


def softmax(call: Call) -> list[Trace]:
    """Along a side, every unit sees all of it."""
    dim = int(call.args[1]) % len(call.shape)
    spans = {side: call.trace.spans[side].with_context(call.trace.spans[side]) for side in call.trace.sides([dim])}
    return [call.trace.changed(spans, call.trace.dims)]


def multiply(call: Call) -> list[Trace]:
    """Matrix products: the inner dimensions are seen together."""
    skip = 1 if call.name in ("addmm", "baddbmm", "addmv") else 0
    rank = len(call.shape)
    factors: list[Trace] = []
    for position, inner in ((skip, -1), (skip + 1, -2)):
        trace = call.traces[position] if len(call.traces) > position else None
        if trace is None:
            continue
        if len(trace.dims) != rank:
            return [lost([t for t in call.traces if t is not None], call.shape)]
        inner %= rank
        spans = {side: trace.spans[side].collapsed() for side in trace.sides([inner])}
        dims = list(trace.dims)
        dims[inner] = plain(1)
        factors.append(trace.changed(spans, dims))
    if skip and call.traces[0] is not None:
        factors.append(call.traces[0])
    if not factors:
        return [lost([t for t in call.traces if t is not None], call.shape)]
    out = broadcast(factors, call.shape)
    for side in range(len(out.spans)):  # a side in rows and columns: each pair of positions
        if len({t.place(side) for t in factors if t.place(side) is not None}) > 1:
            merged = factors[0].spans[side].with_context(factors[1].spans[side]).collapsed()
            out = out.changed({side: merged}, out.dims)
    return [out]


def attend(call: Call) -> list[Trace] | None:
    """Scaled dot-product attention: every query sees all keys and values."""
    query = call.trace
    out = query.changed({}, [*query.dims[:-1], plain(call.shape[-1])])
    for other in call.traces[1:3]:
        if other is not None:
            for side in other.sides([len(other.dims) - 2, len(other.dims) - 1]):
                out = out.changed({side: out.spans[side].with_context(other.spans[side])}, out.dims)
            out = replace(out, source=out.source | other.source)
    rest = [tuple(o.shape) for o in call.outputs[1:]]
    return [out, *(lost([query], shape) for shape in rest)]


def concatenate(call: Call) -> list[Trace] | None:
    """One after the other: in channels each unit sees both; along a side, who sees what is not followed."""
    known = [t for t in call.traces if t is not None]
    given = call.given(1, "dim", 0)
    dim = int(given) % len(call.shape)
    if any(len(t.dims) != len(call.shape) for t in known):
        return None
    along = set().union(*(t.sides([dim]) for t in known))
    cut = []
    for t in known:
        dims = list(t.dims)
        dims[dim] = ((tuple(sorted(along)) or None, call.shape[dim]),)
        cut.append(t.changed({side: t.spans[side].lost() for side in along}, dims))
    return [broadcast(cut, call.shape)]


def stack(call: Call) -> list[Trace]:
    """Along a new dimension."""
    known = [t for t in call.traces if t is not None]
    dim = int(call.given(1, "dim", 0)) % len(call.shape)
    return [broadcast([t.changed({}, [*t.dims[:dim], plain(1), *t.dims[dim:]]) for t in known], call.shape)]


def permute(call: Call) -> list[Trace]:
    """Dimensions in another order."""
    rank = len(call.shape)
    order = list(range(rank))
    if call.name == "permute":
        order = [int(d) % rank for d in call.args[1]]
    elif rank > 1:
        a, b = (0, 1) if call.name == "t" else (int(call.args[1]) % rank, int(call.args[2]) % rank)
        order[a], order[b] = order[b], order[a]
    return [call.trace.changed({}, [call.trace.dims[d] for d in order])]


def expand(call: Call) -> list[Trace]:
    """Repeated along dimensions of size 1."""
    return [broadcast([call.trace], call.shape)]


def reshape(call: Call) -> list[Trace] | None:
    """Views, by splitting and joining what lies in the dimensions."""
    trace, shape = call.trace, call.shape
    old = [factors for factors in trace.dims if size_of(factors) > 1]
    spans: dict[int, Span] = {}
    out: list[Factors] = []
    rest: list[tuple[Side, int]] = [f for factors in old for f in factors if f[1] > 1]
    for n in shape:
        taken: list[tuple[Side, int]] = []
        need = n
        while need > 1:
            if not rest:
                return None
            side, units = rest.pop(0)
            if need % units == 0:
                taken.append((side, units))
                need //= units
            elif units % need == 0:  # split: the outer part keeps the side, its units see all of the inner part
                inner = units // need
                taken.append((side, need))
                rest.insert(0, (None, inner))
                for one in members(side):
                    spans[one] = spans.get(one, trace.spans[one]).resampled([(0, inner - 1)], inner, need)
                need = 1
            else:
                return None
        out.append(tuple(taken) or plain(1))
    for d, factors in enumerate(out):
        out[d] = joined(factors, spans, trace)
    return [trace.changed(spans, out)]


def joined(factors: Factors, spans: dict[int, Span], trace: Trace) -> Factors:
    """Neighbours without a side as one; a side followed by plain units as one finer side."""
    out: list[tuple[Side, int]] = []
    for side, n in factors:
        if out and side is None:
            before, m = out[-1]
            out[-1] = (before, m * n)
            for one in members(before):
                spans[one] = spans.get(one, trace.spans[one]).resampled([(0, 0)] * n, 1, m * n)
        else:
            out.append((side, n))
    return tuple(out)


def slice_(call: Call) -> list[Trace] | None:
    """Units from a start, in steps."""
    dim = int(call.given(1, "dim", 0)) % len(call.shape)
    n, new = size_of(call.trace.dims[dim]), call.shape[dim]
    start, step = call.given(2, "start") or 0, call.given(4, "step", 1)
    return cut(call, dim, start + n if start < 0 else start, step) if new != n or step != 1 else [call.trace]


def cut(call: Call, dim: int, start: int, step: int = 1) -> list[Trace]:
    """Some of the units along a dimension."""
    side = call.trace.side(dim)
    dims = list(call.trace.dims)
    new = call.shape[dim]
    if side is not None:
        dims[dim] = ((side, new),)
        return [call.trace.changed({side: call.trace.spans[side].resampled([(start, start)], step, new)}, dims)]
    dims[dim] = plain(new)
    return [call.trace.changed({side: call.trace.spans[side].lost() for side in call.trace.sides([dim])}, dims)]


def select(call: Call) -> list[Trace]:
    """One unit along a dimension."""
    dim = int(call.args[1]) % len(call.trace.dims)
    side = call.trace.side(dim)
    spans = {s: call.trace.spans[s].collapsed() for s in call.trace.sides([dim])}
    if side is not None:
        unit = int(call.args[2]) % size_of(call.trace.dims[dim])
        spans[side] = call.trace.spans[side].resampled([(unit, unit)], 1, 1)
    return [call.trace.changed(spans, [f for d, f in enumerate(call.trace.dims) if d != dim])]


def pieces(call: Call) -> list[Trace]:
    """Split, chunk, unbind: free along channels, not followed along a side."""
    given = call.given(1 if call.name == "unbind" else 2, "dim", 0)
    dim = int(given) % len(call.trace.dims)
    spans = {side: call.trace.spans[side].lost() for side in call.trace.sides([dim])}
    out = []
    for tensor in call.outputs:
        dims = list(call.trace.dims)
        dims[dim : dim + 1] = [] if call.name == "unbind" else [plain(tensor.shape[dim])]
        out.append(call.trace.changed(spans, dims))
    return out


def pad(call: Call) -> list[Trace]:
    """Zeros, reflections or copies around: units shift."""
    given, rank = list(call.args[1]), len(call.shape)
    before = {rank - 1 - i // 2: given[i] for i in range(0, len(given), 2)}
    first = rank - len(given) // 2
    grown = [d for d in range(rank) if call.shape[d] != size_of(call.trace.dims[d])]
    if any(call.trace.side(d) is None and call.trace.sides([d]) for d in grown):
        return [lost([call.trace], call.shape)]
    trace = windows(call, first, lambda i, old, new: ([(-before[i + first],) * 2], 1))[0]
    # dimensions without padding keep what they hold
    kept = [call.trace.dims[d] if d not in grown else trace.dims[d] for d in range(rank)]
    spans = {s: trace.spans[s] if trace.place(s) in grown else call.trace.spans[s] for s in range(len(trace.spans))}
    return [call.trace.changed(spans, kept)]


def roll(call: Call) -> list[Trace]:
    """Shifted; what comes back in at the other end is left out."""
    trace = call.trace
    rank = len(call.shape)
    for shift, dim in zip(per_side(call.args[1], 1, 0), per_side(call.given(2, "dims"), 1, 0), strict=False):
        side = trace.side(dim % rank)
        if side is not None:
            moved = trace.spans[side].resampled([(-shift, -shift)], 1, call.shape[dim])
            trace = trace.changed({side: moved}, trace.dims)
    return [trace]


def shuffle(call: Call) -> list[Trace]:
    """Channels to neighbours and back."""
    factor = int(call.args[1])
    first = len(call.shape) - 2
    if call.name == "pixel_shuffle":
        made = windows(call, first, lambda i, old, new: ([(0, 0)] * factor, 1))
    else:
        made = windows(call, first, lambda i, old, new: ([(0, factor - 1)], factor))
    return made


RULES: dict[str, Callable[[Call], list[Trace] | None]] = {
    "convolution": convolve,
    **{f"{kind}_pool{n}d{tail}": convolve for kind, tail in (("max", ""), ("max", "_with_indices"), ("avg", "")) for n in (1, 2, 3)},
    **{f"{head}adaptive_{kind}_pool{n}d": adapt for kind in ("avg", "max") for n in (1, 2, 3) for head in ("", "_")},
    **dict.fromkeys(
        ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
         "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"), upsample,
    ),
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "logsumexp", "linalg_vector_norm", "prod",
         "argmax", "any", "all"), reduce,
    ),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), softmax),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), multiply),
    **dict.fromkeys(
        ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
         "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable"), attend,
    ),
    "cat": concatenate,
    "stack": stack,
    **dict.fromkeys(("permute", "transpose", "t"), permute),
    "expand": expand,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten"), reshape),
    "slice": slice_,
    "select": select,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind"), pieces),
    **dict.fromkeys(
        ("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d", "replication_pad3d"), pad,
    ),
    "roll": roll,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), shuffle),
}  # fmt: skip
ANY_FIRST = frozenset({"mm", "addmm", "bmm", "baddbmm", "cat", "stack"})
"""Operations whose rule holds although the first tensor does not depend on the image."""
