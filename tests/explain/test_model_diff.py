"""What a successor changed: alignment of layers (row N1)."""

import torch
from torch import nn

from saccade.explain.difference import diff, totals
from saccade.explain.shape import layer_table, trace
from saccade.workflows.models import diff_models, model_tables


def rows(*layers, size=32):
    with torch.device("meta"):
        return layer_table(nn.Sequential(*layers), size)


def test_N1_changes_by_hand():
    before = rows(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Tanh())
    after = rows(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3))
    found = diff(before, after)
    assert [(c.kind, (c.before or c.after).type, c.what) for c in found] == [
        ("changed", "Conv2d", {"kernel": ((5, 5), (3, 3)), "stride": ((2, 2), (1, 1))}),
        ("added", "BatchNorm2d", {}),
        ("changed", "Conv2d", {"channels": (8, 16)}),
        ("removed", "Tanh", {}),
    ]
    assert diff(before, before) == []


def test_N1_passing_more_channels_on_is_no_change():
    before, after = (rows(nn.Conv2d(3, width, 3), nn.ReLU(), nn.MaxPool2d(2)) for width in (8, 16))
    assert [(c.kind, c.before.type) for c in diff(before, after)] == [("changed", "Conv2d")]


def test_N1_the_difference_turns_one_into_the_other():
    (_, a), (_, b) = model_tables("resnet18"), model_tables("resnet34")
    before, after = a[""].rows, b[""].rows
    found = diff(before, after)
    assert {c.kind for c in found} == {"added"}
    # He et al. 2015, table 1: [2, 2, 2, 2] to [3, 4, 6, 3] blocks of two convolutions; blocks stay together
    added = [c.after for c in found]
    assert sum(row.type == "Conv2d" for row in added) == 2 * (1 + 2 + 4 + 1)
    assert sorted({row.name.rpartition(".")[0] for row in added}) == sorted(
        [f"layer1.{i}" for i in (2,)] + [f"layer2.{i}" for i in (2, 3)] + [f"layer3.{i}" for i in (2, 3, 4, 5)] + ["layer4.2"]
    )
    assert len(after) - len(before) == len(added)
    assert [r.name for r in after if r not in added] == [r.name for r in before]
    assert sum(row.parameters for row in added) == b[""].parameters - a[""].parameters


def test_N1_zfnet_against_alexnet():
    """Zeiler, Fergus 2013, section 4.1: the first layer's 11x11 filters at stride 4 became 7x7 at stride 2."""
    found = diff_models("alexnet", "zfnet")
    (first,) = [c for c in found["layers"] if c["kind"] == "changed" and c["before"]["name"].endswith("conv1")]
    assert first["what"]["kernel"] == [(11, 11), (7, 7)]
    assert first["what"]["stride"] == [(4, 4), (2, 2)]
    assert found["totals"]["year"] == [2012, 2013]
    assert found["totals"]["layers with weights"] == [8, 8]
    assert found["totals"]["parameters"][0] == 60_965_224


def test_N1_losses_and_recipes_are_compared():
    found = diff_models("lenet5", "alexnet")
    assert found["losses"][1] == ["ce"]
    assert all(x != y for x, y in found["recipe"].values())
    assert "optimizer" in found["recipe"] or "lr" in found["recipe"]
    assert diff_models("lenet5", "lenet5")["layers"] == []


def test_N1_totals_name_the_last_map():
    with torch.device("meta"):
        table = trace(
            nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
            (1, 3, 32, 32),
        )
    found = totals(table)
    assert (found["field of the last map"], found["jump of the last map"], found["layers with weights"]) == (7, 2.0, 3)
    assert found["parameters"] == 4 * 28 + 4 * 37 + 10
