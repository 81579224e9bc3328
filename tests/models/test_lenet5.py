"""C1: LeNet-5 (LeCun et al. 1998). Oracles: section II.B of the paper, hand formulas, and a plain nn.Sequential with the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saccade.models.classify.lenet5 import C3_TABLE, RBF, RECIPES, ScaledTanh, SparseConv, digit_codes, lenet5
from saccade.models.registry import create_model
from saccade.types.errors import UsageError
from saccade.types.recipe import Recipe

PAPER = {"c3": "sparse", "subsampling": "trainable", "activation": "scaled_tanh", "head": "rbf"}


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def batch(n=4, classes=10):
    images = torch.randn(n, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    return images, [{"label": torch.tensor(i % classes)} for i in range(n)]


@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_C1_layer_sizes(options):
    model, shapes = lenet5(**options), {}
    for name in ("c1", "s2", "c3", "s4", "c5", "f6", "output"):
        getattr(model, name).register_forward_hook(lambda m, i, o, name=name: shapes.__setitem__(name, tuple(o.shape[1:])))
    model.raw(torch.zeros(1, 1, 32, 32))
    assert shapes == {
        "c1": (6, 28, 28), "s2": (6, 14, 14), "c3": (16, 10, 10), "s4": (16, 5, 5), "c5": (120, 1, 1), "f6": (84,), "output": (10,),
    }  # fmt: skip


def test_C1_full_c3_has_61706_parameters():
    model = create_model("lenet5")
    assert count(model) == 61_706
    assert [count(getattr(model, k)) for k in ("c1", "s2", "c3", "s4", "c5", "f6", "output")] == [156, 0, 2416, 0, 48_120, 10_164, 850]


def test_C1_paper_form_has_60000_trainable_parameters():
    model = create_model("lenet5", **PAPER)
    # section II.B states each of them
    assert [count(getattr(model, k)) for k in ("c1", "s2", "c3", "s4", "c5", "f6", "output")] == [156, 12, 1516, 32, 48_120, 10_164, 0]
    assert count(model) == 60_000


def test_C1_table_I():
    # the ten C3 maps of each S2 map, as the rows of table I show them
    rows = {
        0: {0, 4, 5, 6, 9, 10, 11, 12, 14, 15}, 1: {0, 1, 5, 6, 7, 10, 11, 12, 13, 15}, 2: {0, 1, 2, 6, 7, 8, 11, 13, 14, 15},
        3: {1, 2, 3, 6, 7, 8, 9, 12, 14, 15}, 4: {2, 3, 4, 7, 8, 9, 10, 12, 13, 15}, 5: {3, 4, 5, 8, 9, 10, 11, 13, 14, 15},
    }  # fmt: skip
    assert sum(map(len, C3_TABLE)) == 60
    for s2, maps in rows.items():
        assert {c3 for c3, sources in enumerate(C3_TABLE) if s2 in sources} == maps


def test_C1_sparse_convolution_is_a_masked_one():
    torch.manual_seed(0)
    layer = SparseConv(6, C3_TABLE)
    x = torch.randn(2, 6, 14, 14)
    pieces, start = [], 0
    for k, sources in enumerate(C3_TABLE):  # one small convolution a map
        kernel = layer.weight[start : start + len(sources)].reshape(1, len(sources), 5, 5)
        pieces.append(F.conv2d(x[:, list(sources)], kernel, layer.bias[k : k + 1]))
        start += len(sources)
    torch.testing.assert_close(layer(x), torch.cat(pieces, 1), rtol=1e-4, atol=1e-5)


def test_C1_equals_a_plain_sequential_network():
    torch.manual_seed(0)
    model = lenet5().eval()
    plain = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
    with torch.no_grad():
        for mine, theirs in zip(plain.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs.reshape(mine.shape))
    images, _ = batch(8)
    torch.testing.assert_close(model.raw(images), plain(images), rtol=1e-5, atol=1e-6)


def test_C1_trainable_subsampling_by_hand():
    from saccade.models.classify.lenet5 import Subsampling

    layer = Subsampling(1)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(-1.0)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert layer(x).item() == pytest.approx(0.5 * 10 - 1)


def test_C1_squashing():
    squash = ScaledTanh()
    assert squash(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([1.0, -1.0], abs=1e-4)  # appendix A
    assert squash(torch.tensor(100.0)).item() == pytest.approx(1.7159)


def test_C1_rbf_output_and_losses_by_hand():
    codes = digit_codes()
    assert codes.shape == (10, 7 * 12)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    assert len({tuple(row) for row in codes.tolist()}) == 10
    logits = RBF(10)(codes)
    torch.testing.assert_close(logits, -2 * (84 - codes @ codes.T))  # |a - b|^2 of codes of +-1
    assert logits.argmax(1).tolist() == list(range(10))

    model = lenet5(**PAPER).eval()
    images, targets = batch(3)
    y = -model.raw(images).double()
    right = [y[i, i].item() for i in range(3)]
    expected = sum(r + math.log(math.exp(-1) + sum(math.exp(-v) for v in row)) for r, row in zip(right, y.tolist(), strict=True)) / 3
    assert model.losses(images, targets)["map"].item() == pytest.approx(expected, rel=1e-5)
    model.set_loss("mse")
    assert model.losses(images, targets)["mse"].item() == pytest.approx(sum(right) / 3, rel=1e-5)


@pytest.mark.parametrize("options", [{}, PAPER, {"in_chans": 3, "activation": "relu", "fit": "stretch"}], ids=["default", "paper", "rgb"])
def test_gradients_reach_all_parameters_and_it_overfits(options):
    torch.manual_seed(0)
    model = lenet5(4, **options)
    images = torch.randn(8, options.get("in_chans", 1), 32, 32)
    targets = [{"label": torch.tensor(i % 4)} for i in range(8)]
    sum(model.losses(images, targets).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model.losses(images, targets).values()).backward()
        optimizer.step()
    assert model.eval().raw(images).argmax(1).tolist() == [i % 4 for i in range(8)]


def test_small_images_are_centred_and_any_size_is_predicted():
    model = lenet5()
    image = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    from saccade.types.sample import Sample

    tensor, _, geometry = model.preprocess(Sample(image, {}))
    assert tensor.shape == (1, 32, 32)
    assert geometry.offset == (2, 2)
    white, black = (1 - 0.1307) / 0.3081, -0.1307 / 0.3081
    assert tensor[0, 2:30, 2:30].unique().tolist() == pytest.approx([white], rel=1e-5)
    assert tensor[0, 0].unique().tolist() == pytest.approx([black], rel=1e-5)
    out = model.predict([image, torch.zeros(3, 77, 40, dtype=torch.uint8), torch.zeros(1, 1, 1, dtype=torch.uint8)])
    assert [p.size for p in out] == [(28, 28), (77, 40), (1, 1)]
    for p in out:
        assert p.scores.shape == (10,)
        assert p.scores.sum() == pytest.approx(1, abs=1e-5)


def test_losses_soft_labels_smoothing_and_weights():
    model = lenet5(3).eval()
    images, targets = batch(4, 3)
    logits = model.raw(images)
    labels = torch.tensor([0, 1, 2, 0])
    assert model.losses(images, targets)["ce"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)

    mixed = [{"label": torch.tensor(0), "label_probs": torch.tensor([0.25, 0.75, 0.0])}, *targets[1:]]
    expected = -(0.25 * logits.log_softmax(1)[0, 0] + 0.75 * logits.log_softmax(1)[0, 1]) + F.cross_entropy(logits[1:], labels[1:]) * 3
    assert model.losses(images, mixed)["ce"].item() == pytest.approx(expected.item() / 4, rel=1e-5)

    with pytest.raises(UsageError, match="count_classes"):
        model.configure(Recipe(class_weights=True))
    model.class_counts = [30, 10, 20]
    model.configure(Recipe(class_weights=True, label_smoothing=0.1))
    weights = torch.tensor([60 / 90, 60 / 30, 60 / 60])
    expected = F.cross_entropy(logits, labels, weight=weights, label_smoothing=0.1)
    assert model.losses(images, targets)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert "class_weights" not in model.state_dict()


def test_eval_losses_repeat_and_leave_buffers_alone():
    model = lenet5(**PAPER).eval()
    images, targets = batch()
    before = {k: v.clone() for k, v in model.named_buffers()}
    first, second = model.losses(images, targets), model.losses(images, targets)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(v, before[k]) for k, v in model.named_buffers())


@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_exports(options):
    model = lenet5(**options).eval()
    images, _ = batch()
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model.raw(images))


def test_wrong_use():
    with pytest.raises(UsageError, match="ten digits"):
        lenet5(11, head="rbf")
    with pytest.raises(UsageError, match="no weights"):
        lenet5(pretrained=True)
    with pytest.raises(UsageError, match="linear output"):
        lenet5().set_loss("map")
    with pytest.raises(UsageError, match="no loss"):
        lenet5().set_loss("dice")
    with pytest.raises(UsageError, match="c3"):
        create_model("lenet5", c3="half")
    assert RECIPES["lenet5"].epochs == 8
