"""Darknet's files against a slow, literal NumPy program in this file: layer by layer, number by number."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.models.darknet.cfg import guess_dialect, parse_cfg, read_cfg
from saccade.models.darknet.layers import BatchNorm, Same
from saccade.models.darknet.model import assemble, load_darknet
from saccade.models.darknet.network import DarknetNetwork
from saccade.models.darknet.tree import WordTree, read_names, read_tree
from saccade.models.darknet.weights import read_weights, write_weights
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry

CFGS = Path(os.environ.get("SACCADE_DATA", "../shared/datasets")).parent / "darknet-cfg"
FLOATS = {
    "yolov1-tiny": 27_099_950, "yolov1": 197_328_243, "yolov2-tiny-voc": 15_867_885, "yolov2-voc": 50_676_061, "yolov3-tiny": 8_858_734,
    "yolov3": 62_001_757, "yolov3-spp": 63_052_381, "yolov4-tiny": 6_062_814, "yolov4": 64_429_405, "yolov4-csp": 52_986_205,
    "yolov4-csp-swish": 52_986_205, "yolo9000": 48_807_501, "darknet19": 20_856_776, "darknet53": 41_645_640, "resnet50": 22_825_896,
}  # fmt: skip
ALL = [f"pjreddie_{n}" for n in ("darknet19", "darknet53", "resnet50", "yolo9000", "yolov1-tiny", "yolov1", "yolov2-tiny-voc", "yolov2-voc",
                                 "yolov3-spp", "yolov3-tiny", "yolov3")]  # fmt: skip
ALL += [f"alexey_{n}" for n in ("yolo9000", "yolov2-tiny-voc", "yolov2-voc", "yolov3-tiny", "yolov4-csp-swish", "yolov4-csp", "yolov4-tiny",
                                "yolov4")]  # fmt: skip
QUICK = ("pjreddie_yolov2-tiny-voc", "alexey_yolov3-tiny", "alexey_yolov4-tiny")


# ------------------------------------------------------------------------------------------- the literal program


def sections(text: str) -> list[tuple[str, dict[str, str]]]:
    out: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            out.append((line[1:-1], {}))
        elif "=" in line:
            key, value = line.split("=")
            out[-1][1][key.strip()] = value.strip()
    return out


def activate(x: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x))
    return {
        "linear": x, "leaky": np.where(x > 0, x, 0.1 * x), "logistic": sigmoid, "relu": np.maximum(x, 0), "swish": x * sigmoid,
        "mish": x * np.tanh(np.logaddexp(0, x)),
    }[name]  # fmt: skip


class Literal:
    """Darknet as its README and papers describe it, in float64, one image, maps (C, H, W)."""

    def __init__(self, text: str, dialect: str, weights: np.ndarray, tree: list[tuple[str, int]] | None = None) -> None:
        self.sections, self.dialect, self.weights, self.at, self.tree = sections(text), dialect, weights, 0, tree

    def take(self, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        part = self.weights[self.at : self.at + count].reshape(shape).astype(np.float64)
        assert part.size == count
        self.at += count
        return part

    def normalise(self, x: np.ndarray, scale, mean, variance, bias) -> np.ndarray:
        deviation = np.sqrt(variance) + 1e-6 if self.dialect == "pjreddie" else np.sqrt(variance + 1e-5)
        shape = (-1,) + (1,) * (x.ndim - 1)
        return (x - mean.reshape(shape)) / deviation.reshape(shape) * scale.reshape(shape) + bias.reshape(shape)

    def run(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Raw outputs before the heads' layers, and (boxes as x y w h in shares of the image, objectness, classes) rows of each head."""
        net = self.sections[0][1]
        self.net_size = float(net["height"]), float(net["width"])
        outputs: list[np.ndarray] = []
        raws, found = [], []
        for number, (kind, o) in enumerate(self.sections[1:]):
            x = x if number == 0 else outputs[-1]
            follows = self.sections[number + 2][0] if number + 2 < len(self.sections) else ""
            if kind in ("convolutional", "connected", "local"):
                linear = getattr(self, kind)(x, o)
                if follows in ("yolo", "region", "detection"):
                    raws.append(linear)
                x = activate(linear, o["activation"])
            elif kind == "batchnorm":
                c = len(x)
                bias = self.take(c) if self.dialect == "alexeyab" else np.zeros(c)
                scale, mean, variance = self.take(c), self.take(c), self.take(c)
                x = self.normalise(x, scale, mean, variance, bias)
            elif kind == "maxpool":
                x = self.maxpool(x, o)
            elif kind == "avgpool":
                x = np.array([[[m.mean()]] for m in x])
            elif kind == "route":
                parts = [outputs[int(n) + number if int(n) < 0 else int(n)] for n in o["layers"].split(",")]
                groups, group = int(o.get("groups", 1)), int(o.get("group_id", 0))
                x = np.concatenate([p[len(p) // groups * group : len(p) // groups * (group + 1)] for p in parts])
            elif kind == "shortcut":
                x = x.copy()
                for n in o["from"].split(","):
                    other = outputs[int(n) + number if int(n) < 0 else int(n)]
                    step, spread = max(other.shape[2] // x.shape[2], 1), max(x.shape[2] // other.shape[2], 1)
                    for k in range(min(len(x), len(other))):
                        for j in range(min(x.shape[1], other.shape[1])):
                            for i in range(min(x.shape[2], other.shape[2])):
                                x[k, j * spread, i * spread] += other[k, j * step, i * step]
                x = activate(x, o.get("activation", "linear"))
            elif kind == "upsample":
                s = int(o["stride"])
                x = np.array([[[m[j // s, i // s] for i in range(m.shape[1] * s)] for j in range(m.shape[0] * s)] for m in x])
            elif kind == "reorg":
                x = self.reorg(x, int(o["stride"]))
            elif kind == "softmax":
                raws.append(x.ravel())
                x = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
            elif kind in ("yolo", "region", "detection"):
                found.append(getattr(self, kind)(x, o))
            else:
                assert kind in ("dropout", "cost")
            outputs.append(x)
        assert self.at == len(self.weights)
        return raws, found

    def convolutional(self, x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        n, k, s, groups = int(o["filters"]), int(o["size"]), int(o.get("stride", 1)), int(o.get("groups", 1))
        pad = k // 2 if o.get("pad", "0") == "1" else int(o.get("padding", 0))
        c, h, w = x.shape
        bias = self.take(n)
        norm = [self.take(n) for _ in range(3)] if o.get("batch_normalize") == "1" else None
        weights = self.take(n, c // groups, k, k)
        padded = np.zeros((c, h + 2 * pad, w + 2 * pad))
        padded[:, pad : pad + h, pad : pad + w] = x
        out = np.zeros((n, (h + 2 * pad - k) // s + 1, (w + 2 * pad - k) // s + 1))
        for g in range(groups):
            mine = slice(n // groups * g, n // groups * (g + 1))
            kernel = weights[mine].reshape(n // groups, -1)
            for j in range(out.shape[1]):
                for i in range(out.shape[2]):
                    patch = padded[c // groups * g : c // groups * (g + 1), j * s : j * s + k, i * s : i * s + k]
                    out[mine, j, i] = kernel @ patch.ravel()
        return self.normalise(out, *norm, bias) if norm else out + bias[:, None, None]

    def connected(self, x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        n = int(o["output"])
        bias, weights = self.take(n), self.take(n, x.size)
        out = weights @ x.ravel()
        if o.get("batch_normalize") == "1":
            return self.normalise(out, *(self.take(n) for _ in range(3)), bias)[:, None, None]
        return (out + bias)[:, None, None]

    def local(self, x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        n, k, s, pad = int(o["filters"]), int(o["size"]), int(o["stride"]), int(o.get("pad", 0))
        c, h, w = x.shape
        rows, columns = ((side - (1 if pad else k)) // s + 1 for side in (h, w))
        bias, weights = self.take(n, rows, columns), self.take(rows * columns, n, c * k * k)
        padded = np.zeros((c, h + 2 * pad, w + 2 * pad))
        padded[:, pad : pad + h, pad : pad + w] = x
        out = np.zeros((n, rows, columns))
        for j in range(rows):
            for i in range(columns):
                out[:, j, i] = weights[j * columns + i] @ padded[:, j * s : j * s + k, i * s : i * s + k].ravel()
        return out + bias

    @staticmethod
    def maxpool(x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        s = int(o["stride"])
        k = int(o.get("size", s))
        pad = int(o.get("padding", k - 1))
        c, h, w = x.shape
        out = np.full((c, (h + pad - k) // s + 1, (w + pad - k) // s + 1), -np.inf)
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                for a in range(k):
                    for b in range(k):
                        y, z = j * s + a - pad // 2, i * s + b - pad // 2
                        if 0 <= y < h and 0 <= z < w:
                            out[:, j, i] = np.maximum(out[:, j, i], x[:, y, z])
        return out

    @staticmethod
    def reorg(x: np.ndarray, s: int) -> np.ndarray:
        """By indices: out[k, j, i] of the input's own shape is memory cell (c2, j s + row, i s + column) of maps s times as large."""
        c, h, w = x.shape
        few = c // s**2
        flat, out = x.ravel(), np.zeros_like(x)
        for k in range(c):
            c2, offset = k % few, k // few
            for j in range(h):
                for i in range(w):
                    out[k, j, i] = flat[i * s + offset % s + w * s * (j * s + offset // s + h * s * c2)]
        return out.reshape(c * s * s, h // s, w // s)

    def yolo(self, x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        anchors = np.array([float(v) for v in o["anchors"].split(",")]).reshape(-1, 2)
        mask, classes = [int(m) for m in o["mask"].split(",")], int(o["classes"])
        scale, new = float(o.get("scale_x_y", 1)), o.get("new_coords") == "1"
        _, h, w = x.shape
        x = x.reshape(len(mask), 5 + classes, h, w)
        rows = []
        for n, m in enumerate(mask):
            for j in range(h):
                for i in range(w):
                    t = x[n, :, j, i]
                    s = t if new else activate(t, "logistic")
                    bx, by = ((i, j)[d] + s[d] * scale - 0.5 * (scale - 1) for d in (0, 1))
                    sides = [t[2 + d] ** 2 * 4 * anchors[m, d] if new else np.exp(t[2 + d]) * anchors[m, d] for d in (0, 1)]
                    rows.append([bx / w, by / h, sides[0] / self.net_size[1], sides[1] / self.net_size[0], s[4], *(s[4] * s[5:])])
        return np.array(rows)

    def region(self, x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        anchors = np.array([float(v) for v in o["anchors"].split(",")]).reshape(-1, 2)
        classes = int(o["classes"])
        _, h, w = x.shape
        x = x.reshape(len(anchors), 5 + classes, h, w)
        rows = []
        for n in range(len(anchors)):
            for j in range(h):
                for i in range(w):
                    t = x[n, :, j, i]
                    s = activate(t, "logistic")
                    sides = [np.exp(t[2]) * anchors[n, 0] / w, np.exp(t[3]) * anchors[n, 1] / h]
                    rows.append([(i + s[0]) / w, (j + s[1]) / h, *sides, s[4], *self.class_scores(t[5:], s[4])])
        return np.array(rows)

    def class_scores(self, t: np.ndarray, objectness: float) -> np.ndarray:
        if self.tree is None:
            return objectness * np.exp(t - t.max()) / np.exp(t - t.max()).sum()
        parents = [p for _, p in self.tree]
        p = np.zeros(len(t))
        for parent in dict.fromkeys(parents):
            group = [k for k, q in enumerate(parents) if q == parent]
            p[group] = np.exp(t[group] - t[group].max()) / np.exp(t[group] - t[group].max()).sum()
        for k, parent in enumerate(parents):
            p[k] *= p[parent] if parent >= 0 else 1
        if self.dialect == "alexeyab":  # from the last class to the first: one above a half is it
            sure = [k for k in range(len(p)) if p[k] > 0.5]
            return np.eye(len(t))[sure[-1]] * p[sure[-1]] if sure else np.zeros(len(t))
        node, reached = -1, 1.0
        while True:
            group = [k for k, q in enumerate(parents) if q == node]
            if not group:
                break
            best = group[int(np.argmax(p[group]))]
            if reached * p[best] <= 0.5:
                node = best if node == -1 else node
                break
            reached, node = reached * p[best], best
        return np.eye(len(t))[node] * objectness

    def detection(self, x: np.ndarray, o: dict[str, str]) -> np.ndarray:
        side, count, classes = int(o["side"]), int(o["num"]), int(o["classes"])
        x, cells = x.ravel(), int(o["side"]) ** 2
        rows = []
        for cell in range(cells):
            row, column = divmod(cell, side)
            for n in range(count):
                confidence = x[cells * classes + cell * count + n]
                place = x[cells * (classes + count) + (cell * count + n) * 4 :][:4]
                w, h = (v**2 if o.get("sqrt") == "1" else v for v in place[2:])
                score = confidence * x[cell * classes : (cell + 1) * classes]
                rows.append([(place[0] + column) / side, (place[1] + row) / side, w, h, confidence, *score])
        return np.array(rows)


def tame(network: DarknetNetwork, seed: int = 0) -> None:
    """Weights that keep activations near 1, with a tiny variance at the start, where the two epsilons differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, layer in enumerate(network.layers):
            for tensor in layer.file_tensors():
                fan = tensor[0].numel() if tensor.ndim > 1 else 0
                if fan:
                    tensor.normal_(0, 1, generator=generator).mul_(fan**-0.5)
                else:
                    tensor.normal_(0, 0.1, generator=generator)
            norm = getattr(layer, "norm", None)
            if norm is not None:
                norm.weight.add_(0.5)
                norm.running_var.abs_().add_(0.2)
                if number < 2:
                    norm.running_var[0] = 1e-4


def compare(text: str, dialect: str, folder: Path, path: Path = Path("net.cfg"), tree: list[tuple[str, int]] | None = None):
    """Ours and the literal program on the same weights file and image; both in shares of the image."""
    model = assemble(parse_cfg(text, path), dialect=dialect)
    tame(model.network)
    write_weights(model.network, folder / "w.weights")
    floats = np.fromfile(folder / "w.weights", dtype="<f4", offset=20)
    image = torch.rand(1, *model.network.input, generator=torch.Generator().manual_seed(1))
    raws, found = Literal(text, dialect, floats, tree).run(image[0].double().numpy())
    with torch.no_grad():
        raw = model.raw(image)
        for a, b in zip([raw] if isinstance(raw, torch.Tensor) else raw, raws, strict=True):
            scale = np.abs(b).max()
            np.testing.assert_allclose(a[0].double().numpy().ravel(), b.ravel(), rtol=1e-3, atol=2e-5 * scale)
        if model.task == "detect":
            _, height, width = model.network.input
            boxes, objectness, scores = (t[0].double().numpy() for t in model.boxes_and_scores(raw, (height, width)))
            rows = np.concatenate(found)
            corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1) * [width, height, width, height]
            np.testing.assert_allclose(boxes, corners, rtol=1e-3, atol=1e-3 * width)
            np.testing.assert_allclose(objectness, rows[:, 4], rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(scores, rows[:, 5:], rtol=2e-3, atol=1e-5)
    return model


def smaller(text: str, side: int) -> str:
    """The same description for a small input; YOLOv1's one cell."""
    text = re.sub(r"^(height|width) *= *\d+", rf"\1={side}", text, flags=re.MULTILINE)
    if "[detection]" in text:
        count = int(re.search(r"^num *= *(\d+)", text, re.MULTILINE)[1])
        text = re.sub(r"^side *= *\d+", "side=1", text, flags=re.MULTILINE)
        text = re.sub(r"^output *= *(1715|1470)", f"output={20 + 5 * count}", text, flags=re.MULTILINE)
    return text


# ------------------------------------------------------------------------------------------------------- tests


def need_cfgs() -> None:
    if not CFGS.is_dir():
        pytest.skip("needs Darknet's network descriptions beside SACCADE_DATA")


@pytest.mark.real
@pytest.mark.parametrize("name", ALL)
def test_D26_every_description_builds_with_the_floats_of_its_weights_file(name):
    need_cfgs()
    with torch.device("meta"):
        network = DarknetNetwork(read_cfg(CFGS / f"{name}.cfg"), "pjreddie")
    assert sum(layer.floats for layer in network.layers) == FLOATS[name.partition("_")[2]]


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ALL])
def test_D26_every_description_computes_what_the_literal_program_computes(name, tmp_path):
    need_cfgs()
    dialect = "pjreddie" if name.startswith("pjreddie") else "alexeyab"
    tree = [(n, int(p)) for n, p in (line.split() for line in (CFGS / "9k.tree").read_text().splitlines())] if "9000" in name else None
    side = {"yolov1": 64, "yolov1-tiny": 64}.get(name.partition("_")[2], 32)
    compare(smaller((CFGS / f"{name}.cfg").read_text(), side), dialect, tmp_path, CFGS / f"{name}.cfg", tree)


EVERYTHING = """
[net]
width=40
height=24
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=mish
[maxpool]
size=2
stride=2
[convolutional]
filters=8
size=3
stride=1
padding=2
groups=4
activation=swish
[convolutional]
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=relu
[shortcut]
from=-3
activation=leaky
[batchnorm]
[route]
layers=-1
groups=3
group_id=1
[maxpool]
size=3
stride=1
[maxpool]
size=2
stride=1
[upsample]
stride=2
[route]
layers=2,-1
[reorg]
stride=2
[convolutional]
filters=21
size=1
stride=1
pad=1
activation=logistic
[yolo]
mask=0,2,1
anchors=4,6, 10,8, 20,16
classes=2
num=3
scale_x_y=1.2
[route]
layers=-4
[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear
[region]
anchors=1,2, 0.5,0.7
classes=2
num=2
softmax=1
"""


@pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
def test_D26_every_kind_of_section_computes_what_the_literal_program_computes(dialect, tmp_path):
    model = compare(EVERYTHING, dialect, tmp_path)
    kinds = {section.kind for section in model.network.sections}
    assert len(kinds) == 9


DENSE = """
[net]
height=8
width=8
channels=1
[convolutional]
filters=4
size=3
stride=1
pad=1
activation=leaky
[local]
filters=3
size=3
stride=2
pad=1
activation=relu
[local]
filters=2
size=2
stride=1
activation=leaky
[connected]
batch_normalize=1
output=11
activation=leaky
[dropout]
probability=.5
[connected]
output=52
activation=linear
[detection]
classes=3
coords=4
side=2
num=2
softmax=0
sqrt=1
"""


@pytest.mark.parametrize("dialect", ["pjreddie", "alexeyab"])
def test_D26_dense_and_local_layers_and_yolov1s_boxes_compute_what_the_literal_program_computes(dialect, tmp_path):
    model = compare(DENSE, dialect, tmp_path)
    assert model.raw(torch.rand(2, 1, 8, 8)).shape == (2, 2 * 2 * (3 + 2 * 5))


CLASSIFIER = """
[net]
height=16
width=16
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=5
size=1
activation=linear
[avgpool]
[softmax]
groups=1
[cost]
type=sse
"""


def test_D26_a_classifiers_raw_are_the_logits_before_the_softmax(tmp_path):
    model = compare(CLASSIFIER, "pjreddie", tmp_path)
    assert model.task == "classify"
    (prediction,) = model.predict(torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8))
    assert prediction.scores.sum() == pytest.approx(1)


NEW_COORDS = """
[net]
height=16
width=32
[convolutional]
filters=14
size=3
stride=8
pad=1
activation=logistic
[yolo]
mask=0,1
anchors=4,6, 10,8
classes=2
num=2
scale_x_y=2.0
new_coords=1
"""


def test_D26_new_coords_raw_is_before_the_sigmoid_and_boxes_are_squares_of_twice_it(tmp_path):
    model = compare(NEW_COORDS, "alexeyab", tmp_path)
    (raw,) = model.raw(torch.rand(1, 3, 16, 32))
    assert raw.min() < 0  # no sigmoid yet
    raw = torch.zeros(1, 14, 2, 4)  # by hand: sigmoid 0.5, offset 2 * 0.5 - 0.5, sides prior * (2 * 0.5)^2
    boxes, objectness, scores = model.boxes_and_scores([raw], (16, 32))
    torch.testing.assert_close(boxes[0, 0], torch.tensor([4 - 2.0, 4 - 3.0, 4 + 2.0, 4 + 3.0]))
    torch.testing.assert_close(boxes[0, 8 + 5], torch.tensor([12 - 5.0, 12 - 4.0, 12 + 5.0, 12 + 4.0]))
    assert objectness.unique().item() == 0.5
    assert scores.unique().item() == 0.25


REGION = "[net]\nheight=32\nwidth=32\n[convolutional]\nfilters=7\nsize=1\nstride=32\nactivation=linear\n[region]\nclasses=2\nanchors=1,1\n"


@pytest.mark.parametrize(("dialect", "expected"), [("pjreddie", [0.25, 0.5 / (1 + np.exp(-2))]), ("alexeyab", [0.0, 1.0])])
def test_D26_region_without_softmax_has_independent_classes_in_the_original_and_plain_ones_in_the_fork(dialect, expected):
    model = assemble(parse_cfg(REGION), dialect=dialect)
    raw = torch.zeros(1, 7, 1, 1)
    raw[0, 6] = 2.0
    _, objectness, scores = model.boxes_and_scores([raw], (32, 32))
    assert objectness.item() == 0.5
    assert scores[0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("dialect", "expected"), [("pjreddie", [(2, 0.88), (0, 0.88), (0, 0.88)]), ("alexeyab", [(2, 0.63), (2, 0.6), (-1, 0.0)])]
)
def test_C22_region_scores_of_a_word_tree_in_both_programs(dialect, expected, tmp_path):
    """a and b are roots, c and d are kinds of a. The original weighs .9 * .63, .8 * .6 on its way down; the fork takes what is above .5."""
    (tmp_path / "t.tree").write_text("a -1\nb -1\nc 0\nd 0\n")
    text = REGION.replace("filters=7", "filters=9").replace("classes=2", "classes=4\ntree=t.tree")
    model = assemble(parse_cfg(text, tmp_path / "t.cfg"), dialect=dialect)
    for (a, c), (node, score) in zip([(0.9, 0.7), (0.8, 0.75), (0.5, 0.5)], expected, strict=True):
        raw = torch.tensor([0, 0, 0, 0, 2.0, *np.log([a, 1 - a, c, 1 - c])], dtype=torch.float32).view(1, 9, 1, 1)
        (scores,) = model.boxes_and_scores([raw], (32, 32))[2][0]
        assert scores.max().item() == pytest.approx(score, abs=1e-3)
        assert node == -1 or scores.argmax() == node
        assert (scores > 0).sum() == (node >= 0)
        assert len(model.decode([raw], [Geometry((32, 32), (32, 32))])[0]) == (node >= 0)
        raw[0, 4] = -2.0  # an objectness of 0.12
        assert len(model.decode([raw], [Geometry((32, 32), (32, 32))])[0]) == 0


def test_D26_of_a_key_that_stands_twice_the_first_counts():
    """Darknet's option_find goes through a section from its top."""
    section = parse_cfg("[net]\n[convolutional]\nfilters=8\n filters = 9\r\nsize=3\n").layers[0]
    assert (section.int("filters"), section.lines["filters"], section.int("size")) == (8, 3, 3)


def test_D26_a_crowded_image_keeps_its_objects(tmp_path):
    """Sixty boxes apart from each other, each nine times, the surer objects first; Darknet has no limit before suppression."""
    cfg = (
        "[net]\nheight=96\nwidth=160\n[convolutional]\nfilters=54\nsize=1\nstride=16\nactivation=linear\n[yolo]\nclasses=1\nnum=9\nanchors="
    )
    model = assemble(parse_cfg(cfg + ",".join(["10,10"] * 9) + "\n"))
    raw = torch.zeros(1, 9, 6, 6, 10)
    raw[:, :, 4] = (4 - 0.05 * torch.arange(60.0)).view(6, 10)
    raw[:, :, 5] = 9
    (found,) = model.decode([raw.flatten(1, 2)], [Geometry((96, 160), (96, 160))])
    assert len(found) == 60


def test_D26_reorg_is_darknets_and_not_a_pixel_unshuffle():
    network = DarknetNetwork(parse_cfg("[net]\nheight=4\nwidth=4\nchannels=4\n[reorg]\nstride=2\n"), "pjreddie")
    x = torch.arange(64.0).view(1, 4, 4, 4)
    (out,) = network(x)
    np.testing.assert_array_equal(out[0].numpy(), Literal.reorg(x[0].numpy(), 2))
    assert not out.equal(torch.nn.functional.pixel_unshuffle(x, 2))


# options that few networks have, by their definitions


def plain(sections: str, channels: int = 2, side: int = 4) -> DarknetNetwork:
    return DarknetNetwork(parse_cfg(f"[net]\nheight={side}\nwidth={side}\nchannels={channels}\n{sections}"), "alexeyab").eval()


def test_D26_comments_short_names_and_other_programs_first_byte():
    text = "\ufeff[network]\nheight=8 ; rows\nwidth = 9 # columns\n;[cost]\n#[cost]\n[conv]\r\nfilters=4\r\n[max]\n[avg]\n[conn]\n[soft]\n"
    description = parse_cfg(text)
    assert [section.kind for section in description] == ["convolutional", "maxpool", "avgpool", "connected", "softmax"]
    assert (description.net.int("height"), description.net.int("width"), description.layers[0].int("filters")) == (8, 9, 4)
    assert description.layers[0].lines == {"filters": 7}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("linear", [-2.0, 0.5, 7]), ("leaky", [-0.2, 0.5, 7]), ("relu", [0.0, 0.5, 7]), ("relu6", [0.0, 0.5, 6]),
     ("elu", [np.exp(-2) - 1, 0.5, 7]), ("selu", [1.0507 * 1.6733 * (np.exp(-2) - 1), 1.0507 * 0.5, 1.0507 * 7]),
     ("tanh", np.tanh([-2, 0.5, 7])), ("logistic", 1 / (1 + np.exp([2, -0.5, -7]))), ("", 1 / (1 + np.exp([2, -0.5, -7]))),
     ("swish", [-2 / (1 + np.exp(2)), 0.5 / (1 + np.exp(-0.5)), 7 / (1 + np.exp(-7))]),
     ("mish", [v * np.tanh(np.log1p(np.exp(v))) for v in (-2, 0.5, 7)])],
)  # fmt: skip
def test_D26_activations_of_a_convolution_which_is_logistic_by_itself(name, expected):
    layer = plain("[convolutional]\nfilters=1\n" + (f"activation={name}\n" if name else ""), channels=1).layers[0]
    with torch.no_grad():
        layer.conv.weight.fill_(1)
        layer.conv.bias.zero_()
        got = layer(torch.tensor([-2.0, 0.5, 7]).view(1, 1, 1, 3))
    np.testing.assert_allclose(got.flatten().numpy(), expected, rtol=1e-4)


def test_D26_dilation_and_a_stride_for_each_direction():
    layer = plain("[convolutional]\nfilters=3\nsize=3\npad=1\ndilation=2\nstride_x=2\nactivation=linear\n", side=6).layers[0]
    x = torch.randn(1, 2, 6, 6)
    expected = torch.nn.functional.conv2d(x, layer.conv.weight, layer.conv.bias, (1, 2), 2, 2)
    assert layer.out == tuple(expected.shape[1:]) == (3, 6, 3)
    torch.testing.assert_close(layer(x), expected)


def test_D26_sums_weigh_their_parts_and_spread_smaller_maps():
    x = torch.randn(1, 2, 4, 4)
    (out,) = plain("[upsample]\nstride=1\nscale=3\n[upsample]\nstride=1\n[shortcut]\nfrom=0\nalpha=0.5\nbeta=2\n")(x)
    torch.testing.assert_close(out, 0.5 * 3 * x + 2 * 3 * x)
    (out,) = plain("[maxpool]\nstride=2\n[upsample]\nstride=2\n[shortcut]\nfrom=0\n")(x)
    small = torch.nn.functional.max_pool2d(x, 2)
    expected = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected[:, :, ::2, ::2] += small
    torch.testing.assert_close(out, expected)


def test_D26_softmax_in_parts_and_with_a_temperature():
    layer = plain("[avgpool]\n[softmax]\ngroups=2\ntemperature=2\n", channels=4).layers[1]
    values = layer(torch.tensor([0.0, np.log(9), np.log(4), np.log(4)], dtype=torch.float32).view(1, 4, 1, 1))
    assert values.flatten().tolist() == pytest.approx([1 / 4, 3 / 4, 1 / 2, 1 / 2])


def test_D26_yolov1s_classes_after_a_softmax():
    text = "[connected]\noutput=7\nactivation=linear\n[detection]\nclasses=2\nside=1\nnum=1\nsoftmax=1\n"
    model = assemble(plain(text, channels=3).description)
    scores = model.boxes_and_scores(torch.tensor([[0.0, np.log(3), 0.8, 0.5, 0.5, 0.2, 0.2]], dtype=torch.float32), (4, 4))[2]
    assert scores.flatten().tolist() == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(
    ("dialect", "letter_box", "mode"), [("pjreddie", 0, "letterbox"), ("alexeyab", 0, "stretch"), ("alexeyab", 1, "letterbox")]
)
def test_D26_images_keep_their_shape_in_the_original_and_where_the_fork_is_told_so(dialect, letter_box, mode):
    text = NEW_COORDS.replace("[net]", f"[net]\nletter_box={letter_box}")
    assert assemble(parse_cfg(text), dialect=dialect).preprocess.mode == mode


def test_D26_in_training_statistics_move_by_a_hundredth_and_dropout_drops():
    norm, x = BatchNorm(2, outside=True).train(), torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    torch.testing.assert_close(norm(x), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.02, 0.04]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.99 + 0.02, 0.99 + 0.08]))
    torch.manual_seed(0)
    drop, ones = Same((1, 1, 1000), 0.25), torch.ones(1, 1, 1, 1000)
    assert 0.15 < float((drop.train()(ones) == 0).float().mean()) < 0.35
    assert torch.equal(drop.eval()(ones), ones)


# weights files


def small(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "c.cfg").write_text(CLASSIFIER)
    model = load_darknet(tmp_path / "c.cfg")
    tame(model.network)
    write_weights(model.network, tmp_path / "c.weights", seen=12345)
    return tmp_path / "c.cfg", tmp_path / "c.weights"


def test_D26_a_written_file_reads_back_the_same_and_has_the_header(tmp_path):
    cfg, weights = small(tmp_path)
    data = weights.read_bytes()
    assert struct.unpack("<3iQ", data[:20]) == (0, 2, 0, 12345)
    first, second = load_darknet(cfg, weights), load_darknet(cfg, weights)
    write_weights(second.network, tmp_path / "again.weights", seen=12345)
    assert (tmp_path / "again.weights").read_bytes() == data
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    conv = first.network.layers[0]  # by hand: biases, scales, means, variances, weights
    floats = np.frombuffer(data, "<f4", offset=20)
    for k, tensor in enumerate((conv.norm.bias, conv.norm.weight, conv.norm.running_mean, conv.norm.running_var)):
        np.testing.assert_array_equal(tensor.detach().numpy(), floats[8 * k : 8 * k + 8])
    np.testing.assert_array_equal(conv.conv.weight.detach().numpy().ravel(), floats[32 : 32 + 8 * 27])


@pytest.mark.parametrize(("version", "wide"), [((0, 1, 0), False), ((0, 2, 0), True), ((0, 2, 5), True), ((1, 0, 0), True)])
def test_D26_all_header_versions_are_read(version, wide, tmp_path):
    cfg, weights = small(tmp_path)
    floats = weights.read_bytes()[20:]
    (tmp_path / "v.weights").write_bytes(struct.pack("<3i", *version) + struct.pack("<Q" if wide else "<i", 7) + floats)
    old, new = load_darknet(cfg, weights), load_darknet(cfg, tmp_path / "v.weights")
    for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_D26_dense_layers_are_transposed_from_version_1000_on(tmp_path):
    (tmp_path / "d.cfg").write_text("[net]\nheight=2\nwidth=3\nchannels=1\n[connected]\noutput=4\nactivation=linear\n[softmax]\n")
    bias, kernel = np.arange(4, dtype="<f4"), np.arange(24, dtype="<f4").reshape(4, 6)
    for wide in (False, True):
        header = struct.pack("<3i", 1001, 0, 0) + struct.pack("<Q" if wide else "<i", 3)
        (tmp_path / "d.weights").write_bytes(header + bias.tobytes() + kernel.T.copy().tobytes())
        model = load_darknet(tmp_path / "d.cfg", tmp_path / "d.weights")
        np.testing.assert_array_equal(model.network.layers[0].dense.weight.detach().numpy(), kernel)


def test_D26_a_partial_file_loads_the_layers_that_it_holds(tmp_path):
    cfg, weights = small(tmp_path)
    first = 8 * 4 + 8 * 27
    (tmp_path / "c.conv.1").write_bytes(weights.read_bytes()[: 20 + 4 * first])
    with pytest.raises(DataError, match=r"has 248 floats, c\.cfg needs 293: it ends before line 12, \[convolutional\] \(layer 1\)"):
        load_darknet(cfg, tmp_path / "c.conv.1")
    model = load_darknet(cfg)
    last = model.network.layers[1].conv.weight.clone()
    (tmp_path / "c.conv.0").write_bytes(weights.read_bytes()[:20])
    with pytest.raises(DataError, match=r"ends with its header: it holds none of the 293 floats of c\.cfg"):
        read_weights(model.network, tmp_path / "c.conv.0", partial=True)
    assert read_weights(model.network, tmp_path / "c.conv.1", partial=True) == 1
    assert torch.equal(model.network.layers[1].conv.weight, last)
    assert torch.equal(model.network.layers[0].conv.weight, load_darknet(cfg, weights).network.layers[0].conv.weight)


def test_D26_wrong_files_of_weights_are_one_line_that_names_section_line_and_floats(tmp_path):
    cfg, weights = small(tmp_path)
    data = weights.read_bytes()
    nan = bytearray(data)
    nan[20 + 4 * 5 : 24 + 4 * 5] = struct.pack("<f", float("nan"))
    cases = {
        data[:-4]: r"has 292 floats, c\.cfg needs 293: it ends within line 12, \[convolutional\] \(layer 1\), which takes 45 from 248 on",
        data + data[20:24]: r"has 294 floats, c\.cfg needs 293",
        data[:-3]: "ends within a number",
        data[:10]: "too short",
        b"": "too short",
        b"GIF89a" * 20: "no Darknet weights",
        bytes(nan): r"line 5, \[convolutional\] \(layer 0\): holds numbers that are not finite",
    }
    for content, match in cases.items():
        (tmp_path / "bad.weights").write_bytes(content)
        model = load_darknet(cfg)
        before = [t.clone() for t in model.state_dict().values()]
        with pytest.raises(DataError, match=match) as caught:
            read_weights(model.network, tmp_path / "bad.weights")
        assert "\n" not in str(caught.value)
        for a, b in zip(model.state_dict().values(), before, strict=True):
            assert torch.equal(a, b)  # nothing is half loaded


# descriptions

HEAD = "[net]\nheight=32\nwidth=32\nchannels=3\n"
CONV = "[convolutional]\nfilters={}\nsize=3\npad=1\nactivation=linear\n"
BAD = {
    "": "does not begin with",
    "hello": "stands before any",
    "[net]\n": "has no layers",
    HEAD + "[convolutionall]\nfilters=3\n": r"line 5.*not known; did you mean 'convolutional'",
    HEAD + "[convolutional]\nfilters=x\n": "line 6.*filters=x is no number",
    HEAD + "[convolutional]\nfilters=1e9\nsize=3\n": "no whole number from 1 to",
    HEAD + "[convolutional]\nfilters=1000000\nsize=1000\npad=1\n": "asks for 3,000,001,000,000 weights",
    HEAD + "[convolutional]\nsize=99\n": "99x99 window is larger than its input of 3 maps of 32x32",
    HEAD + "[convolutional]\nactivation=gelu\n": "line 6.*activation 'gelu' is not known",
    HEAD + "[convolutional]\nxnor=1\n": "xnor=1 is not computed",
    HEAD + CONV.format(4) + "[route]\nlayers=5\n": r"layers=5 points at layer 5, itself or a later one",
    HEAD + CONV.format(4) + "[route]\nlayers=1\n": "itself or a later one",
    HEAD + CONV.format(4) + "[route]\nlayers=-2\n": "one before the first",
    HEAD + CONV.format(4) + "[shortcut]\nfrom=0.5\n": "no whole numbers",
    HEAD + CONV.format(4) + "[maxpool]\nstride=2\n[route]\nlayers=0,1\n": "layer 1 gives 4 maps of 16x16, layer 0 4 maps of 32x32",
    HEAD + CONV.format(4) + "[yolo]\nclasses=2\nnum=3\nanchors=1,2,3,4\n": "num=3 needs 6 numbers in anchors, there are 4",
    HEAD
    + CONV.format(4)
    + "[yolo]\nclasses=2\nnum=2\nanchors=1,2,3,4\n": r"needs 2 x \(5 \+ 2\) = 14 maps, the layer before gives 4.*filters=14",
    HEAD + CONV.format(14) + "[yolo]\nclasses=2\nnum=2\nmask=0,2\nanchors=1,2,3,4\n": "names priors that are not there: there are 2",
    HEAD + CONV.format(14) + "[yolo]\nclasses=2\nnum=2\nanchors=1,2,-3,4\n": "above 0",
    HEAD + CONV.format(14) + "[yolo]\nclasses=2\nnum=2\nanchors=1,2,1e39,4\n": "at most 100,000",
    HEAD + CONV.format(4) + "[detection]\nside=7\nclasses=2\n": "needs 7x7",
    HEAD + CONV.format(4): "neither boxes nor scores of classes",
    "[net]\nheight=999999\n" + CONV.format(4): "height=999999 is no whole number from 1 to 8192",
    "[net]\nheight=8000\nwidth=8000\n" + CONV.format(100_000): "needs more than 2048 M numbers",
    HEAD + CONV.format(14) + "[region]\nclasses=2\nnum=2\nanchors=1,2,3,4\ntree=no.tree\n": "word tree no.tree is not there",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_D26_wrong_descriptions_are_one_line_that_names_section_and_line(text, tmp_path):
    (tmp_path / "bad.cfg").write_text(text)
    with pytest.raises(DataError, match=BAD[text]) as caught:
        load_darknet(tmp_path / "bad.cfg")
    assert "bad.cfg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_D26_memory_of_weights_and_of_one_image_is_checked_before_it_is_taken(tmp_path, monkeypatch):
    """The widest step of CONV.format(4) reads 3 maps of 32x32 and writes 4: 7168 numbers beside 4 x 28 weights."""
    (tmp_path / "a.cfg").write_text(HEAD + CONV.format(4) + "[avgpool]\n")
    for free, fits in ((4 * (7168 + 112), True), (4 * (7168 + 112) - 1, False)):
        monkeypatch.setattr("saccade.models.darknet.network.available_memory", lambda free=free: free)
        if fits:
            load_darknet(tmp_path / "a.cfg")
        else:
            with pytest.raises(DataError, match=r"a\.cfg: the network and one image in it take .* GiB of memory are free"):
                load_darknet(tmp_path / "a.cfg")


def test_D26_pipes_are_no_files_and_an_idle_tree_is_told(tmp_path):
    cfg, weights = small(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for arguments in ((tmp_path / "pipe",), (cfg, tmp_path / "pipe")):
        with pytest.raises(DataError, match="pipe: is not a regular file"):
            load_darknet(*arguments)
    for read in (read_tree, read_names):
        with pytest.raises(DataError, match="pipe: is not a regular file"):
            read(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no layer with a word tree"):
        load_darknet(cfg, weights, tree=tmp_path / "no.tree")


def test_D26_weights_given_as_a_description_are_told(tmp_path):
    cfg, weights = small(tmp_path)
    with pytest.raises(DataError, match="is no text"):
        load_darknet(weights)
    with pytest.raises(DataError, match="cannot be read"):
        load_darknet(tmp_path / "none.cfg")
    with pytest.raises(UsageError, match='dialect is "pjreddie"'):
        load_darknet(cfg, dialect="ultra")
    with pytest.raises(UsageError, match="2 names for the 5 classes"):
        load_darknet(cfg, names=["a", "b"])


def test_D26_the_dialect_is_guessed_from_what_only_the_fork_knows():
    assert guess_dialect(parse_cfg(CLASSIFIER)) == "pjreddie"
    for line in ("scale_x_y=2.0", "new_coords=1"):  # either alone
        assert guess_dialect(parse_cfg(NEW_COORDS.replace(line, ""))) == "alexeyab"
    assert guess_dialect(parse_cfg(EVERYTHING)) == "alexeyab"


def test_D26_a_detector_predicts_in_the_images_own_pixels(tmp_path):
    (tmp_path / "d.cfg").write_text(NEW_COORDS)
    model = load_darknet(tmp_path / "d.cfg", names=["cat", "dog"])
    assert model.preprocess.mode == "stretch"
    images = [torch.randint(0, 256, (3, 50, 200), dtype=torch.uint8), torch.randint(0, 256, (1, 7, 5), dtype=torch.uint8)]
    for image, prediction in zip(images, model.predict(images, score=0.0), strict=True):
        assert len(prediction) > 0
        assert prediction.classes == ["cat", "dog"]
        assert (prediction.boxes >= 0).all()
        assert (prediction.boxes <= np.array([image.shape[2], image.shape[1]] * 2) + 1e-3).all()


def test_D26_overlong_values_and_names_are_short_lines(tmp_path):
    """What a file says is quoted, but never whole; a name that no file can have is no crash."""
    long = "9" * 5000
    region = HEAD + CONV.format(7) + "[region]\nclasses=2\nnum=1\nanchors=1,1\n"
    cases = {
        HEAD + f"[{long}]\n": "is not known",
        HEAD + f"[convolutional]\nfilters=0.5{long}\n": "is no whole number from 1",
        HEAD + f"[convolutional]\nactivation={long}\n": "is not known",
        HEAD + CONV.format(4) + "[route]\nlayers=1e300\n": "are no whole numbers",
        region + f"tree={long}\n": "is not there",
    }
    for text, match in cases.items():
        (tmp_path / "long.cfg").write_text(text)
        with pytest.raises(DataError, match=match) as caught:
            load_darknet(tmp_path / "long.cfg")
        assert len(str(caught.value)) < 800, text[-60:]
    for read in (load_darknet, read_tree, read_names):
        with pytest.raises(DataError, match="File name too long"):
            read(long)


# the word tree


def test_C22_the_word_tree_has_9418_nodes():
    need_cfgs()
    tree = read_tree(CFGS / "9k.tree")
    assert len(tree) == 9418
    assert tree.sizes[0] == int((tree.parent == -1).sum())
    assert sum(tree.sizes) == 9418


def test_C22_softmax_is_over_siblings_and_probabilities_are_products_along_the_path():
    tree = WordTree(list("abcdefg"), [-1, -1, 0, 0, 1, 1, 2])
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5, 9.0, 7.0, 0.1]])
    conditional = tree.softmax(logits)
    for group in ([0, 1], [2, 3], [4, 5], [6]):
        expected = np.exp(logits[0, group].numpy()) / np.exp(logits[0, group].numpy()).sum()
        np.testing.assert_allclose(conditional[0, group].numpy(), expected, rtol=1e-6)
    absolute = tree.absolute(conditional)[0]
    assert absolute[6].item() == pytest.approx((conditional[0, 0] * conditional[0, 2] * conditional[0, 6]).item(), rel=1e-6)
    assert absolute[[2, 3]].sum().item() == pytest.approx(absolute[0].item(), rel=1e-6)
    assert tree.ancestors(6) == [6, 2, 0]
    assert tree.leaf.tolist() == [False, False, False, True, True, True, True]
    assert tree.softmax(torch.tensor([[1e4, -1e4, 0, 0, 0, 0, 0]])).isfinite().all()


def test_C22_descent_stops_where_the_probability_falls_below_the_threshold():
    tree = WordTree(list("abcd"), [-1, -1, 0, 0])
    rows = torch.tensor([[0.9, 0.1, 0.7, 0.2], [0.9, 0.1, 0.5, 0.4], [0.45, 0.55, 0.4, 0.05], [0.3, 0.3, 0.2, 0.1], [0.8, 0.2, 0.6, 0.2]])
    assert tree.descend(rows, 0.5).tolist() == [2, 0, 1, 0, 0]  # of the last 0.8 * 0.6 is held against it, as Darknet does


@pytest.mark.parametrize(
    ("lines", "match"),
    [("a -1\nb 1\n", "parent 1 of 'b' is not an earlier node"), ("a -1\nb x\n", "no name and number"), ("", "has no nodes"),
     ("".join(f"n{k} {k - 1}\n" for k in range(300)), "line 300: is more than 256 nodes deep"),
     ("a -1\nb --1\n", "'b --1' is no name and number of the parent"),
     ("a -1\nb 0\nc -1\n", "do not stand together")],
)  # fmt: skip
def test_C22_wrong_trees_are_one_line(lines, match, tmp_path):
    (tmp_path / "t.tree").write_text(lines)
    with pytest.raises(DataError, match=match):
        read_tree(tmp_path / "t.tree")
