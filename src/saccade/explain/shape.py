"""What a network does to an image, layer by layer: output shape, parameters, multiply-adds, receptive field.

The network runs once on tensors without memory (PyTorch's "meta" device), and every operation below autograd is seen, whichever module
or function called it; so branches, residuals and functional calls need no help from the model's file.

The receptive field of a unit is the square of pixels that can change it, the most over all units and with padding counted; ``jump`` is
the distance of neighbouring units and ``start`` the centre of what the first one sees, in pixels (the centre of pixel 0 is at 0.5).
Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019; Dumoulin, Visin, arXiv 1603.07285.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from saccade.explain.arithmetic import conv_parameters, conv_size, transposed_size
from saccade.explain.flow import Trace, Window, follow, of_image, sources, window_of
from saccade.types.errors import UsageError

__all__ = ["LayerRow", "Table", "conv_parameters", "conv_size", "layer_table", "trace", "transposed_size"]


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer as it was run, or one function that joins or changes maps.

    Attributes:
        name: path of the module ("layer1.0.conv1"); for a function that of its module and its own name ("layer1.0.add").
        type: class of the module, or the function's.
        output: shape. inputs: numbers of the rows that it reads (-1 is the input itself), in order.
        parameters: read here for the first time. macs: multiply-adds of the batch.
        kernel, stride, padding, dilation: of a convolution or pooling, one a side, else (). groups: of a convolution. transposed: likewise.
        field: (H, W) pixels that a unit sees; None for a side that is not followed; () where nothing depends on an image.
        whole: the unit sees all that there is of the image.
        jump, start: one a side; None where all units see the same or the side is not followed.
        warning: where (I - K + 2P) / S is not whole, or "".
        blocks: (path, class) of the modules around it, outermost first.
    """

    name: str
    type: str
    output: tuple[int, ...]
    inputs: tuple[int, ...]
    parameters: int
    macs: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False
    field: tuple[int | None, ...] = ()
    whole: bool = False
    jump: tuple[float | None, ...] = ()
    start: tuple[float | None, ...] = ()
    warning: str = ""
    blocks: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {key: value for key, value in asdict(self).items() if key != "blocks"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """All layers of one run.

    Attributes:
        input: shape of the input. rows: layers in the order of execution.
        parameters: of the whole module, shared ones once. unused: names of parameters that were not read (heads for training).
        macs: multiply-adds in all, layers without a row included.
    """

    input: tuple[int, ...]
    rows: list[LayerRow]
    parameters: int
    unused: tuple[str, ...]
    macs: int


def layer_table(module: nn.Module, size: int | Sequence[int], channels: int = 3, batch: int = 1) -> list[LayerRow]:
    """The layers of a network for images of one size.

    Args:
        module: takes (batch, channels, *size); a :class:`~saccade.models.base.Model` or any other. It is not changed.
        size: side, or (H, W); (L,) and (D, H, W) for networks of lines and volumes.

    Raises:
        UsageError: the network does not take this size.

    >>> rows = layer_table(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2)), 33)
    >>> [(row.type, row.output, row.field, row.jump) for row in rows]  # doctest: +NORMALIZE_WHITESPACE
    [('Conv2d', (1, 8, 16, 16), (3, 3), (2.0, 2.0)), ('ReLU', (1, 8, 16, 16), (3, 3), (2.0, 2.0)),
     ('MaxPool2d', (1, 8, 8, 8), (5, 5), (4.0, 4.0))]
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return trace(module, (batch, channels, *sides)).rows


def trace(module: nn.Module, shape: Sequence[int]) -> Table:
    """Run a network on one input of a shape (N, C, *sides), or (N, D) for vectors, and note every layer."""
    if min(shape) < 1:
        raise UsageError(f"the input is {'x'.join(map(str, shape))}: every number must be at least 1")
    try:
        try:
            return _run(module, shape, meta=True)
        except (NotImplementedError, RuntimeError) as error:
            if not isinstance(error, NotImplementedError) and "meta tensor" not in str(error):
                raise
            return _run(module, shape, meta=False)  # an operation that needs the numbers
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise _refused(module, shape, error) from error


def _refused(module: nn.Module, shape: Sequence[int], error: Exception) -> UsageError:
    reason = str(error).strip().splitlines()
    return UsageError(f"{type(module).__name__} does not take an input of {'x'.join(map(str, shape))}: {reason[0] if reason else error!r}")


def _run(module: nn.Module, shape: Sequence[int], *, meta: bool) -> Table:
    named = dict(module.named_parameters())
    dtype = next((p.dtype for p in named.values() if p.is_floating_point()), torch.float32)
    tensors: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    if meta:
        twins = {id(t): t.detach().to("meta") for t in tensors.values()}
        tensors = {name: twins[id(t)] for name, t in tensors.items()}
    names = {id(tensors[name]): name for name in named}
    image = torch.zeros(tuple(shape), dtype=dtype, device="meta" if meta else next((t.device for t in tensors.values()), "cpu"))
    sizes = {name: p.numel() for name, p in named.items()}
    recorder = Recorder(module, image, names, sizes, meta)
    with evaluating(module), recorder.hooked(), torch.no_grad(), recorder:
        torch.func.functional_call(module, tensors, (image,))
    return Table(
        input=tuple(shape),
        rows=numbered([row for row in recorder.rows if not row.idle]),
        parameters=sum(sizes.values()),
        unused=tuple(name for name in sizes if name not in recorder.read),
        macs=recorder.macs,
    )


def numbered(rows: list[Row]) -> list[LayerRow]:
    """Rows as the user sees them; ``inputs`` are positions in this list."""
    places = {row.number: i for i, row in enumerate(rows)} | {-1: -1}
    return [replace(done, inputs=tuple(places[n] for n in done.inputs)) for done in (row.finished() for row in rows)]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, each part's own mode after it; and no fused attention, which would hide its layers."""
    modes = [(m, m.training) for m in module.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for part, mode in modes:
            part.training = mode


FUNCTIONS = {
    "convolution": "conv", "addmm": "linear", "mm": "linear", "bmm": "matmul", "baddbmm": "matmul", "add": "add", "sub": "subtract",
    "mul": "multiply", "div": "divide", "cat": "concatenate", "stack": "stack", "mean": "mean", "amax": "max", "relu": "relu",
    "leaky_relu": "leaky_relu", "hardtanh": "relu6", "sigmoid": "sigmoid", "tanh": "tanh", "gelu": "gelu", "silu": "silu", "mish": "mish",
    "elu": "elu", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "softplus": "softplus", "_softmax": "softmax",
    "_safe_softmax": "softmax", "_log_softmax": "log_softmax", "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm", "native_layer_norm": "layer_norm", "native_group_norm": "group_norm",
    "pixel_shuffle": "pixel_shuffle", "pixel_unshuffle": "pixel_unshuffle", "roi_align": "roi_align", "roi_pool": "roi_pool",
    "constant_pad_nd": "pad", "maximum": "maximum", "grid_sampler_2d": "grid_sample",
}  # fmt: skip
"""Functions that make a row of their own where no layer's module calls them."""
JOINING = ("add", "sub", "mul", "div", "cat", "stack", "maximum")
"""Of these only where they join two maps or read a parameter."""
SILENT = (nn.Identity, nn.Sequential, nn.ModuleList)


@dataclass
class Row:
    """A row in the making."""

    number: int
    name: str
    type: str
    blocks: tuple[tuple[str, str], ...]
    output: tuple[int, ...] = ()
    trace: Trace | None = None
    inputs: dict[int, None] = field(default_factory=dict)
    parameters: int = 0
    macs: int = 0
    window: Window | None = None
    windows: int = 0
    groups: int = 1
    warning: str = ""
    idle: bool = False  # a module without operations whose output is no tensor

    def finished(self) -> LayerRow:
        """For the user."""
        spans = self.trace.spans if self.trace else ()
        window = self.window
        return LayerRow(
            name=self.name,
            type=self.type,
            output=self.output,
            inputs=tuple(self.inputs),
            parameters=self.parameters,
            macs=self.macs,
            kernel=window.kernel if window else (),
            stride=window.stride if window else (),
            padding=window.padding if window else (),
            dilation=window.dilation if window else (),
            groups=self.groups,
            transposed=bool(window and window.transposed),
            field=tuple(s.field for s in spans),
            whole=bool(spans) and all(s.sees_all for s in spans),
            jump=tuple(s.jump for s in spans),
            start=tuple(s.start for s in spans),
            warning=self.warning,
            blocks=self.blocks,
        )


class Recorder(TorchDispatchMode):
    """Sees all operations of one run and keeps a row a layer."""

    def __init__(self, module: nn.Module, image: Tensor, names: Mapping[int, str], sizes: Mapping[str, int], meta: bool) -> None:
        super().__init__()
        self.module, self.names, self.sizes, self.meta = module, names, sizes, meta
        self.rows: list[Row] = []
        self.read: set[str] = set()
        self.macs = 0
        self.traces: dict[int, Trace] = {}
        self.weights: dict[int, frozenset[str]] = {}  # tensors made of parameters alone: of which
        self.alive: list[Tensor] = []  # ids stay unique while these live
        self.frames: list[tuple[str, nn.Module, Row | None]] = []
        self.counts: dict[str, int] = {}
        start = of_image(tuple(image.shape), max(0, image.ndim - 2))
        self.keep(image, Trace(start.spans, start.dims, frozenset({-1})))

    def keep(self, tensor: Tensor, made: Trace) -> None:
        """Remember where a tensor comes from."""
        if id(tensor) not in self.traces:
            if self.meta:
                self.alive.append(tensor)
            else:  # real tensors cost memory: forget with them
                weakref.finalize(tensor, self.traces.pop, id(tensor), None)
        self.traces[id(tensor)] = made

    # -- modules ----------------------------------------------------------------------------------

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Know which module is running."""
        paths = {m: name for name, m in self.module.named_modules()}
        handles = (
            register_module_forward_pre_hook(lambda m, _: self.enter(paths[m], m) if m in paths else None),
            register_module_forward_hook(lambda m, _, out: self.leave(out) if m in paths else None),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def enter(self, path: str, part: nn.Module) -> None:
        """A module begins; one without children is a layer."""
        row = None
        if not any(True for _ in part.children()) and not isinstance(part, SILENT):
            row = self.new_row(path, type(part).__name__)
        self.frames.append((path, part, row))

    def leave(self, result: Any) -> None:
        """The module ends."""
        _, _, row = self.frames.pop()
        if row is None:
            return
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]  # in any kind of container
        if not made:
            row.idle = True
            return
        own = [t for t in made if id(t) in self.traces and row.number in self.traces[id(t)].source]  # others only pass through
        out = own[0] if own else made[0]
        row.output = tuple(out.shape)
        row.trace = self.traces.get(id(out))
        if not row.inputs and row.trace is not None:  # no operation inside: dropout when evaluating
            row.inputs = dict.fromkeys(sorted(row.trace.source))

    def new_row(self, name: str, kind: str) -> Row:
        self.counts[name] = self.counts.get(name, 0) + 1
        blocks = tuple((path, type(m).__name__) for path, m, _ in self.frames if path)
        again = f" ({self.counts[name]})" if self.counts[name] > 1 else ""
        row = Row(len(self.rows), name + again, kind, blocks)
        self.rows.append(row)
        return row

    # -- operations -------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        if self.meta and any(t.device.type != "meta" and t.ndim for t in given):  # constants that a module holds outside its buffers
            args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta") if t.ndim else t, (args, kwargs))
            given = tensors_in((args, kwargs))
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        traces = [self.traces.get(id(t)) for t in given]
        known = [t for t in traces if t is not None]
        used = frozenset().union(*(self.weights_of(t) for t in given))
        if not known:
            for out in outputs if used else ():
                self.weights[id(out)] = used
                self.alive.append(out)
            return result
        name = func._schema.name.partition("::")[2]
        name = name if name.startswith("__") else name.rstrip("_")
        made = follow(name, traces, args, kwargs, outputs)
        row = self.row_of(name, known, used)
        if row is not None:
            self.note(row, name, args, kwargs, outputs, known, used)
            made = [Trace(t.spans, t.dims, frozenset({row.number})) for t in made]
            if outputs:
                row.output, row.trace = tuple(outputs[0].shape), made[0]
        else:
            self.macs += multiply_adds(name, args, outputs)
        for out, new in zip(outputs, made, strict=True):
            self.keep(out, new)
        return result

    def weights_of(self, tensor: Tensor) -> frozenset[str]:
        name = self.names.get(id(tensor))
        return frozenset({name}) if name is not None else self.weights.get(id(tensor), frozenset())

    def row_of(self, name: str, known: list[Trace], used: frozenset[str]) -> Row | None:
        """The running layer's row, or one for the function, or None for what only rearranges."""
        path, _, row = self.frames[-1] if self.frames else ("", None, None)
        if row is not None:
            return row
        shown = FUNCTIONS.get(name) or ("upsample" if "upsample" in name else "")
        if "_pool" in name:
            shown = name.lstrip("_").removesuffix("_with_indices")
        elif "dot_product" in name and "attention" in name:
            shown = "attention"
        elif name in JOINING and len({t.source for t in known}) < 2 and not used:
            shown = ""
        elif not shown and used:
            shown = name.strip("_")
        return self.new_row(f"{path}.{shown}".lstrip("."), shown) if shown else None

    def note(
        self,
        row: Row,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        outputs: list[Tensor],
        known: list[Trace],
        used: frozenset[str],
    ) -> None:
        """Add one operation to its row."""
        for source in sorted(sources(known)):
            if source != row.number:
                row.inputs[source] = None
        for parameter in used - self.read:
            row.parameters += self.sizes[parameter]
        self.read |= used
        macs = multiply_adds(name, args, outputs)
        row.macs += macs
        self.macs += macs
        window = window_of(name, args, kwargs)
        sides = len(known[0].spans) or outputs[0].ndim - 2
        if window is not None and len(window.kernel) == sides:  # local response normalisation pools over channels
            row.window = None if row.windows else window  # several in one layer: none is its own
            row.windows += 1
            row.warning = row.warning or window.warning(tuple(args[0].shape[-len(window.kernel) :]))
            if name == "convolution":
                row.groups = int(args[8])


def tensors_in(value: Any) -> list[Tensor]:
    """Tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def multiply_adds(name: str, args: Sequence[Any], outputs: Sequence[Tensor]) -> int:
    """Multiply-adds of a convolution or matrix product; what is cheap (norms, activations, pooling) counts nothing, as is usual."""
    if name == "convolution":
        weight = args[1]
        per_unit = math.prod(weight.shape[1:])  # transposed: (in, out / groups, ...); else (out, in / groups, ...)
        return (math.prod(args[0].shape) if args[6] else math.prod(outputs[0].shape)) * per_unit
    if name in ("mm", "bmm"):
        return math.prod(outputs[0].shape) * args[0].shape[-1]
    if name in ("addmm", "baddbmm"):
        return math.prod(outputs[0].shape) * args[1].shape[-1]
    if "dot_product" in name and "attention" in name:
        query, key, value = args[:3]
        return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return 0
