"""Transfer learning: the stages of a network, which of them learn, and at what rate.

A stage is a run of layers between two resolutions: of our networks by ``feature_info``, of timm's by its ``group_matcher``, of systems with
a ``backbone`` by the backbone's feature maps, of others a child module. The last stage is the output, which every transfer learns: the
layer (or layers) that gives the logits, or everything after the backbone.

* "features" (Donahue et al. 2013, DeCAF, arXiv 1310.1531): the output alone learns, on what the frozen network sees,
* "finetune" (Yosinski et al. 2014, arXiv 1411.1792): the output and the last ``unfreeze`` stages before it learn; 0 = all,
* a rate by depth: ``lr * layer_decay**k`` for the k-th stage before the output (Howard and Ruder 2018, arXiv 1801.06146, section 3.2,
  with 1 / 2.6; Bao et al. 2021, arXiv 2106.08254).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe

if TYPE_CHECKING:
    from saccade.models.base import Model

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def stages(model: nn.Module) -> list[list[str]]:
    """Names of the parameters by stage, from the image to the output.

    Raises:
        UsageError: a model without layers that can be told apart.
    """
    from saccade.models.base import AdversarialModel, StagedModel

    names = [name for name, _ in model.named_parameters()]
    if not names or isinstance(model, (AdversarialModel, StagedModel)):
        raise UsageError(f"{type(model).__name__} has no stages to transfer: leave recipe.transfer and recipe.layer_decay alone")
    backbone = next((name for name, _ in model.named_modules() if name.rpartition(".")[2] == "backbone"), None)
    network = getattr(model, "network", None)
    if backbone is not None:
        inside = [name for name in names if name.startswith(f"{backbone}.")]
        groups = _prefixed(_of_backbone(model.get_submodule(backbone)), backbone)
        outputs = [name for name in names if name not in set(inside)]
    elif isinstance(network, nn.Module) and hasattr(network, "get_classifier"):
        groups = _prefixed(_of_network(network), "network")
        owners = {id(parameter) for module in _outputs(network) for parameter in module.parameters()}
        outputs = [name for name, parameter in model.named_parameters() if id(parameter) in owners]
    else:
        groups, outputs = _of_children(model), []
    last = set(outputs)
    groups = [kept for group in groups if (kept := [name for name in group if name not in last])]
    return [*groups, outputs] if outputs else groups


def _prefixed(groups: list[list[str]], prefix: str) -> list[list[str]]:
    return [[f"{prefix}.{name}" for name in group] for group in groups]


def _outputs(network: Any) -> list[nn.Module]:
    """The layers that give logits: one, or two of distilled networks, and those of auxiliary heads."""
    given = network.get_classifier()
    found = list(given) if isinstance(given, (tuple, list)) else [given]
    return found + [network.get_submodule(name) for name in getattr(network, "other_outputs", ())]


def _of_network(network: Any) -> list[list[str]]:
    """By timm's own grouping, or between the levels of our ``feature_info``."""
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        groups = group_parameters(network, network.group_matcher(coarse=True))
        return [groups[number] for number in sorted(groups)]
    return _between(network, [level["module"] for level in network.feature_info])


def _of_backbone(backbone: Any) -> list[list[str]]:
    """Between the feature maps of timm's ``features_only`` network; else by child."""
    info: Any = getattr(backbone, "feature_info", None)
    if not hasattr(info, "module_name"):
        return _of_children(backbone)
    modules = info.module_name()
    present = {name for name, _ in backbone.named_modules()}
    return _between(backbone, [name if name in present else name.replace(".", "_") for name in modules])  # timm flattens names


def _between(network: nn.Module, ends: Iterable[str]) -> list[list[str]]:
    """Parameters in the order of the modules, cut after each module of ``ends``."""
    groups: list[list[str]] = [[]]
    cuts, inside = set(ends), ""
    for path, module in network.named_modules():
        if inside and not path.startswith(f"{inside}."):
            groups.append([])
            inside = ""
        if path in cuts:
            inside = path
        groups[-1] += [f"{path}.{leaf}" if path else leaf for leaf, _ in module.named_parameters(recurse=False)]
    return [group for group in groups if group]


def _of_children(module: nn.Module) -> list[list[str]]:
    """A child with parameters is a stage; a sole child is looked into."""
    learned = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    if len(learned) == 1 and any(True for _ in learned[0][1].children()):
        return _prefixed(_of_children(learned[0][1]), learned[0][0])
    return [[f"{name}.{leaf}" for leaf, _ in child.named_parameters()] for name, child in learned]


def rate_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Parameter -> ``decay**k``, k stages before the output."""
    groups = stages(model)
    return {name: decay ** (len(groups) - 1 - number) for number, group in enumerate(groups) for name in group}


def apply_transfer(model: nn.Module, recipe: Recipe) -> None:
    """Take the gradient from what the recipe freezes.

    Raises:
        UsageError: fields that contradict each other, more stages than there are, or a model without stages.
    """
    if recipe.unfreeze and recipe.transfer != "finetune":
        raise UsageError(f"recipe.unfreeze={recipe.unfreeze} says how many stages are fine-tuned: set recipe.transfer=finetune")
    if recipe.layer_decay != 1:
        stages(model)
    frozen: list[list[str]] = []
    if recipe.transfer == "features":
        frozen = stages(model)[:-1]
    elif recipe.transfer == "finetune" and recipe.unfreeze:
        groups = stages(model)
        if recipe.unfreeze >= len(groups):
            raise UsageError(f"recipe.unfreeze={recipe.unfreeze}: there are {len(groups) - 1} stages before the output; 0 unfreezes all")
        frozen = groups[: -1 - recipe.unfreeze]
    names = {name for group in frozen for name in group}
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if recipe.freeze_norm:
        for module in model.modules():
            if isinstance(module, BATCH_NORM):
                for parameter in module.parameters():
                    parameter.requires_grad_(False)


def hold_still(model: nn.Module, recipe: Recipe) -> None:
    """Eval mode for what does not learn, so that its statistics and its output stay as they are. Called whenever training mode was set.

    "features": all of a classifier's network (dropout before the output too), or all of a backbone. "finetune": the frozen stages.
    ``freeze_norm``: every batch normalisation.
    """
    if recipe.transfer == "features" and getattr(model, "task", "") == "classify":
        for child in model.children():
            child.eval()
    elif recipe.transfer in ("features", "finetune"):
        for module in model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
    if recipe.freeze_norm:
        for module in model.modules():
            if isinstance(module, BATCH_NORM):
                module.eval()


def learning(model: nn.Module) -> tuple[int, int]:
    """Numbers that learn, and all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)


def frozen_anew(model: nn.Module, anew: Iterable[str]) -> list[str]:
    """Of the tensors that no weights were found for, the frozen parameters: they would stay at random values."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return [name for name in anew if name in frozen]


def output_layer(model: Model) -> tuple[nn.Module, nn.Module] | None:
    """The layer, or Sequential of layers, that gives the logits; and the module from its input to the logits (with what follows it).

    None where several layers apart from each other do.
    """
    names = stages(model)[-1]
    owners = {name.rpartition(".")[0] for name in names}
    parts = zip(*(name.split(".") for name in owners), strict=False)
    path = ".".join(level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, parts))
    if len(owners) > 1:
        block = model.get_submodule(path)
        if not isinstance(block, nn.Sequential) or {f"{path}.{name}" for name, _ in block.named_parameters()} != set(names):
            return None
    path, _, leaf = path.rpartition(".")
    parent = model.get_submodule(path)
    layer = parent.get_submodule(leaf)
    following: list[nn.Module] = []
    if isinstance(parent, nn.Sequential):
        children = [name for name, _ in parent.named_children()]
        following = list(parent)[children.index(leaf) + 1 :]
    return layer, nn.Sequential(layer, *following)
