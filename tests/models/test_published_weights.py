"""torchvision's weights through the real code: a server on this machine, download, check of the hash, names, logits."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torchvision.models as theirs

import saccade
from saccade.types.errors import DataError, UsageError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """``server(network, weights)``: the state of a network is served under the name that torchvision's weights would have."""
    folder = tmp_path / "served"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SACCADE_OFFLINE", raising=False)

    def serve(network, weights):
        torch.save(network.state_dict(), folder / "state")
        digest = hashlib.sha256((folder / "state").read_bytes()).hexdigest()[:8]
        name = f"network-{digest}.pth"
        (folder / "state").rename(folder / name)
        monkeypatch.setattr(weights.value, "url", f"http://127.0.0.1:{http.server_port}/{name}")
        return folder / name

    yield serve
    http.shutdown()


def random_network(build, **options):
    """A torchvision network with random weights and statistics."""
    torch.manual_seed(0)
    network = build(weights=None, **options)
    for name, tensor in network.state_dict().items():
        if "running_mean" in name:
            tensor.normal_(0, 0.1)
        elif "running_var" in name:
            tensor.uniform_(0.5, 2)
    return network.eval()


CASES = {
    "alexnet": (theirs.alexnet, theirs.AlexNet_Weights.IMAGENET1K_V1, {"form": "one_tower"}, {}),
    "googlenet": (
        theirs.googlenet, theirs.GoogLeNet_Weights.IMAGENET1K_V1, {"form": "batch_norm"},
        {"transform_input": False, "init_weights": True, "aux_logits": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param("alexnet", marks=pytest.mark.slow), "googlenet"])
def test_C2_C6_published_weights_are_fetched_checked_and_give_torchvisions_logits(name, server, capfd):
    build, weights, options, more = CASES[name]
    network = random_network(build, **more)
    served = server(network, weights)
    model = saccade.create_model(name, pretrained=True, **options).eval()
    assert served.name in capfd.readouterr().err  # downloaded aloud
    assert model.classes == weights.meta["categories"]
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.raw(image), network(image), rtol=1e-5, atol=1e-5)
    served.unlink()  # the second time from the cache
    other = saccade.create_model(name, 5, pretrained=True, **options)
    assert other.num_classes == 5
    first = next(iter(model.network.state_dict()))
    assert torch.equal(other.network.state_dict()[first], model.network.state_dict()[first])


def test_C6_a_damaged_download_is_one_line_and_nothing_is_kept(server, monkeypatch):
    build, weights, options, more = CASES["googlenet"]
    served = server(random_network(build, **more), weights)
    served.write_bytes(served.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="is not the one in its name"):
        saccade.create_model("googlenet", pretrained=True, **options)


def test_C6_offline_asks_for_nothing(server, monkeypatch):
    build, weights, options, more = CASES["googlenet"]
    server(random_network(build, **more), weights)
    monkeypatch.setenv("SACCADE_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"offline: network-\w+\.pth is not here"):
        saccade.create_model("googlenet", pretrained=True, **options)
