"""C18: stages of networks, what learns, at what rate, what stands still."""

import math

import pytest
import torch

import saccade
from saccade.engine.feature_cache import cannot_cache, seen_by
from saccade.models.transfer import hold_still, learning, output_layer, rate_factors, stages
from saccade.tasks.base import make_optimizer, parameter_groups
from saccade.testing import batch, build
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe

OUTPUTS = {
    "resnet18": {"network.fc"},
    "vgg11": {"network.head.fc"},
    "mobilenet_v2": {"network.classifier"},
    "zfnet": {"network.head.fc8"},
    "darknet19": {"network.head.conv19"},
    "course_cnn": {"network.head.dense2"},
    "lenet5": {"output"},
    "googlenet": {"network.head.fc", "network.auxiliary_4a.output", "network.auxiliary_4d.output"},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_C18_stages_share_out_all_parameters_and_end_with_the_output(name):
    model = build(name)
    groups = stages(model)
    flat = [parameter for group in groups for parameter in group]
    assert sorted(flat) == sorted(parameter for parameter, _ in model.named_parameters())
    assert len(flat) == len(set(flat))
    assert all(groups)
    assert len(groups) >= 4
    assert {parameter.rpartition(".")[0] for parameter in groups[-1]} == OUTPUTS[name]
    order = {parameter: i for i, (parameter, _) in enumerate(model.named_parameters())}
    assert groups[0][0] == min(flat, key=order.__getitem__)  # the first layer is in the first stage


def test_C18_the_stages_of_resnet_are_its_four_and_the_stem():
    groups = stages(build("resnet18"))
    assert [{name.split(".")[1] for name in group} for group in groups] == [
        {"conv1", "bn1"}, {"layer1"}, {"layer2"}, {"layer3"}, {"layer4"}, {"fc"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["resnet18", "darknet19", "lenet5"])
def test_C18_features_gives_a_gradient_to_the_output_alone(name):
    model = build(name)
    recipe = Recipe(transfer="features")
    model.configure(recipe)
    model.train()
    hold_still(model, recipe)
    images, targets = batch(model, 4)[:2]
    torch.stack(list(model.losses(images, targets).values())).sum().backward()
    last = set(stages(model)[-1])
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (parameter_name in last), parameter_name
    held = {id(p) for group in make_optimizer(model, recipe).param_groups for p in group["params"]}
    assert held == {id(model.get_parameter(name)) for name in last}
    assert learning(model) == (sum(model.get_parameter(n).numel() for n in last), sum(p.numel() for p in model.parameters()))


def test_C18_finetune_unfreezes_the_last_stages():
    model = build("resnet18")
    model.configure(Recipe(transfer="finetune", unfreeze=2))
    learns = {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == {"fc", "layer4", "layer3"}
    model = build("resnet18")
    model.configure(Recipe(transfer="finetune"))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_C18_frozen_statistics_stay_and_others_move():
    images = torch.rand(4, 3, 64, 64)

    def statistics(**changes):
        model = build("resnet18")
        recipe = Recipe(**changes)
        model.configure(recipe)
        before = {name: value.clone() for name, value in model.named_buffers()}
        model.train()
        hold_still(model, recipe)
        model.raw(images)
        return {name.split(".")[1] for name, value in model.named_buffers() if not torch.equal(value, before[name])}

    assert statistics() == {"bn1", "layer1", "layer2", "layer3", "layer4"}
    assert statistics(transfer="features") == set()
    assert statistics(transfer="finetune", unfreeze=1) == {"layer4"}
    assert statistics(freeze_norm=True) == set()


def test_C18_freeze_norm_leaves_the_convolutions_learning():
    model = build("resnet18")
    model.configure(Recipe(freeze_norm=True))
    learns = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learns == [name for name, parameter in model.named_parameters() if parameter.ndim > 1 or "fc" in name]


def test_C18_dropout_of_a_frozen_network_is_off():
    model = saccade.create_model("timm/test_resnet.r160_in1k", 3, drop_rate=0.9)
    recipe = Recipe(transfer="features")
    model.configure(recipe)
    model.train()
    images = torch.rand(4, 3, 64, 64)
    assert not torch.equal(model.raw(images), model.raw(images))
    hold_still(model, recipe)
    assert torch.equal(model.raw(images), model.raw(images))


def test_C18_rates_fall_with_the_distance_from_the_output():
    model = build("resnet18")
    recipe = Recipe(lr=0.1, layer_decay=0.5, optimizer="sgd")
    names = {id(parameter): name.split(".")[1] for name, parameter in model.named_parameters()}
    rates = {}
    for group in parameter_groups(model, recipe):
        for parameter in group["params"]:
            assert rates.setdefault(names[id(parameter)], group["lr"]) == group["lr"]
    expected = {"fc": 0.1, "layer4": 0.05, "layer3": 0.025, "layer2": 0.0125, "layer1": 0.00625, "conv1": 0.003125, "bn1": 0.003125}
    assert rates == pytest.approx(expected)
    assert set(rate_factors(model, 1.0).values()) == {1.0}
    # one step of SGD moves each stage by its rate times the gradient
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, recipe.replace(momentum=0.0, weight_decay=0.0))
    images, targets = batch(model, 4)[:2]
    model.losses(images, targets)["ce"].backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter, expected[name.split(".")[1]] * parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["ssdlite", "faster_rcnn", "fpn_classifier"])
def test_C18_systems_with_a_backbone_freeze_it(name):
    model = build(name)
    frozen_before = {n for n, p in model.named_parameters() if not p.requires_grad}
    recipe = Recipe(transfer="features")
    model.configure(recipe)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not parameter_name.startswith("backbone.") and parameter_name not in frozen_before)
    model.train()
    hold_still(model, recipe)
    assert model.training
    assert not any(module.training for module in model.backbone.modules())


@pytest.mark.parametrize(
    ("name", "options"),
    [(n, {}) for n in ("lenet5", "alexnet", "nin", "darknet19", "resnet18", "resnet18v2", "vgg11")]
    + [(n, {"head": "mlp", "hidden": 8}) for n in ("resnet18", "resnet18v2", "densenet121", "efficientnet_b0")],
)
def test_C18_what_the_output_layer_sees_gives_the_logits(name, options):
    model = build(name, **options).eval()
    assert cannot_cache(model) == ""
    layer, tail = output_layer(model)
    images = batch(model, 3).images
    with torch.no_grad():
        features, logits = seen_by(model, layer, images)
        torch.testing.assert_close(tail(features).flatten(1), model.raw(images))
        torch.testing.assert_close(logits, model.raw(images))


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("sppnet", {}, "own losses"),
        ("lenet5", {"head": "rbf"}, "own losses"),
        ("googlenet", {}, "own losses"),
        ("overfeat_fast", {"evaluation": "dense"}, "own losses or predictions"),
        ("fpn_classifier", {}, "several layers"),
    ],
)
def test_C18_features_are_kept_only_where_they_give_the_same(name, options, why):
    assert why in cannot_cache(build(name, **options))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("resnet18", {"unfreeze": 2}, "set recipe.transfer=finetune"),
        ("resnet18", {"transfer": "finetune", "unfreeze": 6}, "there are 5 stages before the output"),
        ("dcgan", {"transfer": "features"}, "no stages to transfer"),
        ("knn", {"layer_decay": 0.5}, "no stages to transfer"),
    ],
)
def test_C18_what_cannot_be_frozen_is_said(name, fields, message):
    with pytest.raises(saccade.UsageError, match=message):
        build(name).configure(Recipe(**fields))


@pytest.mark.parametrize(("name", "maps"), [("resnet18", 512), ("resnet18v2", 512), ("efficientnet_b0", 1280)])
def test_C18_head_of_two_layers(name, maps):
    model = build(name, head="mlp", hidden=8)
    plain = build(name)
    own = {n: tuple(p.shape) for n, p in model.named_parameters()}
    theirs = {n: tuple(p.shape) for n, p in plain.named_parameters()}
    classes = model.num_classes
    new = {n: shape for n, shape in own.items() if n not in theirs}
    assert sorted(math.prod(shape) for shape in new.values()) == sorted([8 * maps, 8, 8 * classes, classes])
    assert set(stages(model)[-1]) == set(new)
    model.configure(Recipe(transfer="features"))
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(new)


def test_C18_head_of_two_layers_needs_a_dense_output():
    with pytest.raises(UsageError, match="hidden"):
        build("resnet18", head="mlp", hidden=0)
