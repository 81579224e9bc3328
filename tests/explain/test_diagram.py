"""Diagrams: well-formed, readable, complete; the layout against its own definition (row N1)."""

import itertools
import random
import re
import xml.etree.ElementTree as ET

import pytest
import torch
import torchvision
from torch import nn

from saccade.explain.blocks import MOST_BOXES, condense
from saccade.explain.diagram import draw, draw_tables
from saccade.explain.layout import lay_out
from saccade.explain.shape import trace
from saccade.types.errors import UsageError
from saccade.workflows.models import draw_model, model_tables

SVG = "{http://www.w3.org/2000/svg}"
KINDS = ("conv", "depth", "dense", "pool", "up", "join", "attend", "block", "other", "input")


def parsed(text):
    return ET.fromstring(text)


def words(root):
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def rectangles(root, kinds=KINDS):
    """(x, y, right, bottom) in the picture, of boxes of some kinds without the legend."""
    found = []
    for group in root.findall(f"{SVG}g"):
        dx, dy = (float(v) for v in re.fullmatch(r"translate\(([\d.]+),([\d.]+)\)", group.get("transform")).groups())
        for node in group.iter(f"{SVG}rect"):
            if node.get("class") in kinds:
                x, y, w, h = (float(node.get(key)) for key in ("x", "y", "width", "height"))
                found.append((x + dx, y + dy, x + dx + w, y + dy + h))
    return found


def meta(builder, **options):
    with torch.device("meta"):
        return builder(**options)


MODELS = {
    "alexnet": (torchvision.models.alexnet, {}),
    "resnet18": (torchvision.models.resnet18, {}),
    "googlenet": (torchvision.models.googlenet, {"init_weights": False}),
    "densenet121": (torchvision.models.densenet121, {}),
    "resnet152": (torchvision.models.resnet152, {}),
    "mobilenet_v3": (torchvision.models.mobilenet_v3_small, {}),
    "deeplabv3": (torchvision.models.segmentation.deeplabv3_resnet50, {"weights_backbone": None}),
}


@pytest.mark.parametrize("name", MODELS)
def test_N1_a_diagram_is_well_formed_and_nothing_overlaps(name):
    builder, options = MODELS[name]
    text = draw(meta(builder, **options), 224, title=name)
    root = parsed(text)
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title").text == name
    assert root.get("aria-labelledby") == "title facts"
    assert "multiply-adds" in root.find(f"{SVG}desc").text
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"<script|href|url\(|@import|nan|inf", text)
    width, height = float(root.get("width")), float(root.get("height"))
    boxes = rectangles(root)
    assert all(
        0 <= x < right <= width and 0 <= y < bottom <= height for x, y, right, bottom in boxes + rectangles(root, ("frame", "frame again"))
    )
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert c <= e or g <= a or d <= f or h <= b
    for a, b, c, d in boxes:  # a box is in a frame or out of it
        for e, f, g, h in rectangles(root, ("frame", "frame again")):
            assert c <= e or g <= a or d <= f or h <= b or (e <= a and c <= g and f <= b and d <= h)
    assert 0.3 < width / height < 2.5  # folded into columns, not a ribbon


def test_N1_alexnets_picture_has_its_layers():
    root = parsed(draw(meta(torchvision.models.alexnet), 224, title="AlexNet"))
    text = words(root)
    assert [t for t in text if t.startswith("conv ")] == [
        "conv 11×11 /4, 64",
        "conv 5×5, 192",
        "conv 3×3, 384",
        "conv 3×3, 256",
        "conv 3×3, 256",
    ]
    assert [t for t in text if t.startswith("dense ")] == ["dense 4096", "dense 4096", "dense 1000"]
    assert len(rectangles(root)) == 1 + 5 + 3 + 1 + 3  # input, convolutions, pools, the adaptive pool, dense
    assert {"64×55×55", "192×27×27", "256×6×6", "input 3×224×224"} <= set(text)
    tips = ["".join(node.itertext()) for node in root.iter(f"{SVG}title")]
    assert any(t.startswith("features.0, output 64×55×55, 23,296 parameters, 70.3 M multiply-adds, sees 11×11 pixels") for t in tips)


def test_N1_equal_blocks_stand_once_and_residuals_go_around():
    text = words(parsed(draw(meta(torchvision.models.resnet50), 224)))
    times = [t.rpartition(" ")[2] for t in text if t.startswith("Bottleneck × ")]
    assert times == ["2", "3", "5", "2"]  # after the first of 3, 4, 6, 3, which differs by its projection
    assert draw(meta(torchvision.models.resnet50), 224).count('class="skip"') == 4
    root = parsed(draw(meta(torchvision.models.googlenet, init_weights=False), 224))
    assert words(root).count("concatenate") == 9


def test_N1_collapsing_keeps_the_graph_whole():
    for builder in (torchvision.models.densenet201, torchvision.models.inception_v3):
        table = trace(meta(builder, **({"init_weights": False} if builder is torchvision.models.inception_v3 else {})), (1, 3, 299, 299))
        boxes, repeats = condense(table)
        assert len(boxes) <= MOST_BOXES
        assert all(box.inputs and all(-1 <= source < i for source in box.inputs) for i, box in enumerate(boxes))
        read = {source for box in boxes for source in box.inputs}
        assert [i for i in range(len(boxes)) if i not in read] == [len(boxes) - 1]  # all lead to the logits
        if builder is torchvision.models.densenet201:
            assert sorted(repeats.values()) == [5, 11, 31, 47]


def test_N1_beyond_a_number_of_boxes_blocks_become_boxes():
    class Branch(nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, kernel, padding=kernel // 2) for _ in range(3))

        def forward(self, x):
            return self.a(x) + self.c(self.b(x))

    model = nn.Sequential(*(Branch(k) for k in (1, 3) * 20))
    boxes, _ = condense(trace(model, (1, 3, 8, 8)))
    assert [(box.kind, box.title) for box in boxes] == [("block", "Branch")] * 40
    assert boxes[1].extra == ["3×3"] * 3
    assert sum(box.parameters for box in boxes) == sum(p.numel() for p in model.parameters())
    assert [list(box.inputs) for box in boxes] == [[i - 1] for i in range(40)]


def test_N1_several_networks_side_by_side_and_names_are_text():
    _, tables = model_tables("dcgan")
    root = parsed(draw_tables('<b>"dcgan"&', tables))
    assert root.find(f"{SVG}title").text == '<b>"dcgan"&'
    assert {"generator", "discriminator", "input 100", "input 3×64×64"} <= set(words(root))


def test_N1_draw_writes_a_file_or_says_why_not(tmp_path):
    file = draw_model("lenet5", tmp_path / "lenet5.svg")
    assert {"conv 5×5, 6", "average pool 2×2 /2", "dense 84", "16×10×10"} <= set(words(parsed(file.read_text(encoding="utf-8"))))
    with pytest.raises(UsageError, match=r"name the file with \.svg"):
        draw_model("lenet5", tmp_path / "lenet5.png")
    with pytest.raises(UsageError, match="did you mean 'lenet5'"):
        draw_model("lenet6", tmp_path / "x.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UsageError, match=r"folder\.svg"):
        draw_model("lenet5", tmp_path / "folder.svg")


@pytest.mark.parametrize("seed", range(8))
def test_N1_layout_of_any_graph(seed):
    """Edges go down, neighbours keep their distance, each passage is one node a rank; a chain is upright."""
    random.seed(seed)
    count = random.randint(1, 40)
    edges = sorted({(random.randint(max(0, b - 6), b - 1), b) for b in range(1, count) for _ in range(random.randint(1, 3))})
    widths = [random.choice((30.0, 168.0)) for _ in range(count)]
    layout = lay_out(widths, edges, gap=26.0, thin=20.0)
    assert sorted(n for level in layout.ranks for n in level) == list(range(len(layout.nodes)))
    for (a, b), route in zip(edges, layout.routes, strict=True):
        assert (route[0], route[-1]) == (a, b)
        ranks = [layout.nodes[n].rank for n in route]
        assert ranks == list(range(ranks[0], ranks[-1] + 1))
        assert all(layout.nodes[n].item is None for n in route[1:-1])
    for level in layout.ranks:
        for a, b in itertools.pairwise(level):
            left, right = layout.nodes[a], layout.nodes[b]
            assert right.x - right.width / 2 >= left.x + left.width / 2 - 1e-6
    chain = lay_out([168.0] * 5, [(i, i + 1) for i in range(4)], gap=26.0, thin=20.0)
    assert {node.x for node in chain.nodes} == {84.0}
