"""Darknet's files into the papers' own classes: the same numbers as the network built from the cfg, other class counts, partial files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.models.darknet.model import load_darknet
from saccade.models.darknet.weights import read_header, units, write_weights
from saccade.models.registry import create_model
from saccade.models.weights import load_weights
from saccade.types.errors import DataError

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"


def made(path: Path, floats: int, seed: int = 0, header: bytes = struct.pack("<3iQ", 0, 2, 0, 0)) -> Path:
    values = np.random.default_rng(seed).normal(0.5, 0.2, floats).astype("<f4")
    path.write_bytes(header + np.abs(values).tobytes())
    return path


def small(tmp_path: Path, seed: int = 0) -> tuple[Path, int]:
    """A file for darknet19 of 7 classes at a sixteenth of the width."""
    floats = sum(unit.floats for unit in units(create_model("darknet19", 7, width=1 / 16, size=32)))
    return made(tmp_path / "small.weights", floats, seed), floats


@pytest.mark.real
@pytest.mark.parametrize("name", ["darknet19", "darknet53"])
def test_C14_darknet_files_give_the_same_logits_in_our_class(name: str, tmp_path: Path) -> None:
    model = load_darknet(CFGS / f"pjreddie_{name}.cfg", dialect="alexeyab")
    torch.manual_seed(0)
    for unit in units(model.network):
        if len(unit.tensors) == 5:  # beta, gamma, mean, variance
            torch.nn.init.uniform_(unit.tensors[2], -0.1, 0.1)
            torch.nn.init.uniform_(unit.tensors[3], 0.5, 1.5)
    write_weights(model.network, tmp_path / "w.weights")
    ours = create_model(name, 1000, weights=tmp_path / "w.weights").eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        theirs = model.raw(x)
        assert float((ours.raw(x) - theirs).abs().max() / theirs.abs().max()) < 1e-5


def test_D26_class_takes_numbers_in_the_order_of_the_file(tmp_path: Path) -> None:
    path, floats = small(tmp_path)
    model = create_model("darknet19", 7, width=1 / 16, size=32, weights=path)
    values = np.frombuffer(path.read_bytes()[20:], "<f4")
    first = model.network.features.conv1
    maps = first.conv.weight.shape[0]
    order = (first.bn.bias, first.bn.weight, first.bn.running_mean, first.bn.running_var)
    for k, tensor in enumerate(order):
        assert np.array_equal(tensor.detach().numpy(), values[k * maps : (k + 1) * maps])
    assert np.array_equal(first.conv.weight.detach().numpy().ravel(), values[4 * maps : 4 * maps + maps * 27])
    last = model.network.get_submodule(model.network.output)
    assert np.array_equal(last.weight.detach().numpy().ravel(), values[floats - last.weight.numel() :])
    write_weights(model, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()


def test_D26_weights_of_other_classes_load_but_for_the_output(tmp_path: Path) -> None:
    path, _ = small(tmp_path)
    model = create_model("darknet19", 3, width=1 / 16, size=32)
    before = model.network.get_submodule(model.network.output).weight.clone()
    fresh = load_weights(model, path, partial=True)
    assert sorted(fresh) == [f"network.{model.network.output}.{part}" for part in ("bias", "weight")]
    assert torch.equal(model.network.get_submodule(model.network.output).weight, before)
    full = create_model("darknet19", 7, width=1 / 16, size=32, weights=path)
    assert torch.equal(model.network.features.conv18.conv.weight, full.network.features.conv18.conv.weight)
    with pytest.raises(DataError, match="another network"):
        create_model("darknet19", 3, width=1 / 16, size=32, weights=path)


def test_D26_partial_file_ends_after_a_layer(tmp_path: Path) -> None:
    model = create_model("darknet19", 7, width=1 / 16, size=32)
    floats = sum(unit.floats for unit in units(model)[:5])
    fresh = load_weights(model, made(tmp_path / "darknet19.conv.5", floats), partial=True)
    loaded = {
        f"network.features.conv{k}.{part}"
        for k in range(1, 6)
        for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    }
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(fresh) - {name for name in fresh if name.endswith("num_batches_tracked")} == own - loaded
    with pytest.raises(DataError, match=r"within network\.features\.conv5"):
        load_weights(model, made(tmp_path / "cut.conv.5", floats - 1), partial=True)


def test_D26_file_of_another_network_and_bad_numbers(tmp_path: Path) -> None:
    path, floats = small(tmp_path)
    model = create_model("darknet19", 7, width=1 / 16, size=32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DataError, match="another network"):
        load_weights(model, made(tmp_path / "long.weights", floats + 11), partial=True)
    data = bytearray(path.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    (tmp_path / "nan.weights").write_bytes(bytes(data))
    with pytest.raises(DataError, match="not finite"):
        load_weights(model, tmp_path / "nan.weights")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_D26_short_and_long_headers(tmp_path: Path) -> None:
    _, floats = small(tmp_path)
    new, old = tmp_path / "new.weights", tmp_path / "old.weights"
    made(new, floats), made(old, floats, header=struct.pack("<4i", 0, 1, 0, 64))
    assert (read_header(new).size, read_header(old).size, read_header(old).seen) == (20, 16, 64)
    a, b = (create_model("darknet19", 7, width=1 / 16, size=32, weights=path) for path in (new, old))
    assert torch.equal(a.network.features.conv9.conv.weight, b.network.features.conv9.conv.weight)
