"""Dense layers as convolutions: a classifier of crops that runs over a whole image in one pass.

Sermanet et al.: OverFeat, arXiv 1312.6229, section 3.5; Long, Shelhamer, Darrell: Fully Convolutional Networks, arXiv 1411.4038, section
3.1. A dense layer on flattened maps of C x h x w is a convolution with h x w kernels; every later one is a 1x1 convolution.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from saccade.types.errors import UsageError

REWRITTEN = (nn.Linear, nn.Flatten, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.BatchNorm1d)
ELEMENTWISE = (
    nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Tanh, nn.Sigmoid, nn.Softplus,
)  # fmt: skip
ELEMENTWISE_FUNCTIONS = {
    "relu", "tanh", "sigmoid", "dropout", "gelu", "silu", "leaky_relu", "elu", "mish", "hardswish", "contiguous", "float",
}  # fmt: skip


class _Tracer(fx.Tracer):
    """Looks only into modules that hold something to rewrite; convolutional parts stay whole, whatever Python they run."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        inner = any(isinstance(part, REWRITTEN) for part in m.modules())
        return not inner or super().is_leaf_module(m, module_qualified_name)


@torch.no_grad()
def to_convolutional(network: nn.Module, size: tuple[int, int], in_chans: int = 3) -> fx.GraphModule:
    """A classifier's dense layers rewritten as convolutions; images (N, C, H, W) from ``size`` up to class maps (N, K, h, w).

    At ``size`` the class map has one position, the classifier's own output. On a larger image position (i, j) is the output for the
    window of the last maps that begins there: without padded convolutions exactly the classifier's output on the crop at
    (i, j) times the total stride; with them the crop would see zeros at its border where the image has pixels.

    Flattening (as a module, ``torch.flatten``, ``flatten``, ``view``, ``reshape``) followed by dense layers, batch normalisation,
    dropout and activations is rewritten, also several at once; adaptive pooling becomes the ordinary pooling that it is at ``size``.

    Args:
        network: the classifier; it is not changed, and the result has its own copy of the weights. Eval mode.
        size: (H, W) that the classifier is built for.
        in_chans: channels of the image.

    Raises:
        UsageError: a layer that has no convolutional form, or a network that cannot be traced.
    """
    module = copy.deepcopy(network).eval()
    image = next((p.new_zeros(1, in_chans, *size) for p in module.parameters()), torch.zeros(1, in_chans, *size))
    try:
        module(image)
        traced = fx.GraphModule(module, _Tracer().trace(module))
    except (fx.proxy.TraceError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{type(network).__name__} at {size[0]}x{size[1]} cannot be rewritten: {str(error).splitlines()[0]}") from None
    ShapeProp(traced).propagate(image)
    flat: dict[fx.Node, tuple[int, int, int]] = {}  # vectors of the classifier -> (C, h, w) of the maps that they are
    for node in list(traced.graph.nodes):
        _rewrite(traced, node, flat)
    traced.graph.eliminate_dead_code()
    traced.graph.lint()
    traced.recompile()
    return traced


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def _rewrite(traced: fx.GraphModule, node: fx.Node, flat: dict[fx.Node, tuple[int, int, int]]) -> None:
    """Rewrite one node of the graph; those before it are done."""
    source = next((given for given in node.all_input_nodes if _shape(given)), None)
    if source is None or node.op in ("placeholder", "output"):
        return
    layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    before, after, name = _shape(source), _shape(node), _name(node)
    flattens = isinstance(layer, nn.Flatten) or name in ("flatten", "view", "reshape", "squeeze")
    if isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)) or name.startswith("adaptive_"):
        _replace(traced, node, source, _pooling(layer or name, before, after))
    elif flattens and len(before) == 4 and len(after) == 2:
        flat[_replace(traced, node, source, nn.Identity())] = before[1], before[2], before[3]
    elif source not in flat:
        if isinstance(layer, (nn.Linear, nn.BatchNorm1d)) or (len(before) == 4 and len(after) == 2):
            raise _no_form(node, layer)
    elif isinstance(layer, nn.Linear):
        flat[_replace(traced, node, source, _convolution(layer, flat[source]))] = layer.out_features, 1, 1
    elif isinstance(layer, nn.BatchNorm1d) and flat[source][1:] == (1, 1):
        flat[_replace(traced, node, source, _batch_norm(layer))] = flat[source]
    elif flattens and after == before:
        flat[_replace(traced, node, source, nn.Identity())] = flat[source]
    elif isinstance(layer, ELEMENTWISE) or name in ELEMENTWISE_FUNCTIONS:
        flat[node] = flat[source]
    elif after:
        raise _no_form(node, layer)


def _no_form(node: fx.Node, layer: nn.Module | None) -> UsageError:
    return UsageError(
        f"{node.target if layer else node.name} ({type(layer).__name__ if layer else node.op}) has no convolutional form here"
    )


def _name(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _replace(traced: fx.GraphModule, node: fx.Node, source: fx.Node, layer: nn.Module) -> fx.Node:
    """Let another module stand for a node; gives the node that calls it."""
    if node.op == "call_module":
        traced.set_submodule(str(node.target), layer)
        return node
    name = f"{node.name}_layer"
    traced.add_submodule(name, layer)
    with traced.graph.inserting_after(node):
        new = traced.graph.call_module(name, (source,))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)
    return new


def _pooling(kind: nn.Module | str, before: tuple[int, ...], after: tuple[int, ...]) -> nn.Module:
    """The ordinary pooling that adaptive pooling is from maps ``before`` to ``after``."""
    inner, outer = before[-2:], after[-2:]
    if inner == outer:
        return nn.Identity()
    if any(many % few for many, few in zip(inner, outer, strict=True)):
        raise UsageError(f"adaptive pooling from {inner[0]}x{inner[1]} to {outer[0]}x{outer[1]} has no even windows")
    window = (inner[0] // outer[0], inner[1] // outer[1])
    stride = (1 if outer[0] == 1 else window[0], 1 if outer[1] == 1 else window[1])
    most = isinstance(kind, nn.AdaptiveMaxPool2d) or "max" in str(kind)
    return nn.MaxPool2d(window, stride) if most else nn.AvgPool2d(window, stride)


def _convolution(layer: nn.Linear, maps: tuple[int, int, int]) -> nn.Conv2d:
    """The convolution that a dense layer is on flattened maps (C, h, w)."""
    conv = nn.Conv2d(maps[0], layer.out_features, maps[1:], bias=layer.bias is not None)
    conv = conv.to(layer.weight)
    conv.weight.copy_(layer.weight.view(conv.weight.shape))
    if conv.bias is not None:
        conv.bias.copy_(layer.bias)
    return conv


def _batch_norm(layer: nn.BatchNorm1d) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    norm.load_state_dict(layer.state_dict(), assign=True)
    return norm.eval()
