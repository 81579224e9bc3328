"""Weights from files: every mismatch named, nothing loaded by halves."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from saccade.models import weights
from saccade.types.errors import DataError


class Net(torch.nn.Module):
    def __init__(self, out=3):
        super().__init__()
        self.layer = torch.nn.Linear(2, out)


class Renaming(Net):
    def translate_weights(self, state):
        return {name.replace("fc.", "layer."): value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_round_trip(tmp_path, suffix):
    state, path = Net().state_dict(), tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    model = Net()
    weights.load_weights(model, path)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_wrapped_and_translated(tmp_path):
    state = {name.replace("layer.", "fc."): value for name, value in Net().state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    model = Renaming()
    weights.load_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.layer.weight, state["fc.weight"])


def test_mismatches_are_one_error_and_load_nothing(tmp_path):
    state = {"layer.weight": torch.zeros(4, 2), "extra": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    model = Net()
    before = model.layer.weight.clone()
    with pytest.raises(DataError) as caught:
        weights.load_weights(model, tmp_path / "w.pth")
    text = str(caught.value)
    assert "\n" not in text
    for part in ("w.pth", "1 tensors are missing (layer.bias)", "1 are unexpected (extra)", "layer.weight (4, 2) for (3, 2)"):
        assert part in text
    assert torch.equal(model.layer.weight, before)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("case", ["absent", "text", "code", "list", "truncated", "safetensors"])
def test_bad_files_are_one_line(tmp_path, case, capsys):
    path = tmp_path / "w.pth"
    if case == "text":
        path.write_text("no weights")
    elif case == "code":
        torch.save({"a": Evil()}, path)
    elif case == "list":
        torch.save([torch.zeros(1)], path)
    elif case == "truncated":
        torch.save(Net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:300])
    elif case == "safetensors":
        path = tmp_path / "w.safetensors"
        path.write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match=path.name) as caught:
        weights.load_weights(Net(), path)
    assert "\n" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_fetch_torchvision_checks_the_hash_in_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(Net().state_dict(), folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    good, bad = folder / f"net-{digest[:8]}.pth", folder / "net-00000000.pth"
    for path in (good, bad):
        path.write_bytes((folder / "w.pth").read_bytes())

    class Enum:
        url = f"https://example.org/{good.name}"

    assert weights.fetch_torchvision(Enum).keys() == Net().state_dict().keys()
    Enum.url = f"https://example.org/{bad.name}"
    with pytest.raises(DataError, match="SHA-256"):
        weights.fetch_torchvision(Enum)
