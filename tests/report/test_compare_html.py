"""compare's page: the table's cells, the Pareto front, where the dots stand, and that nothing comes from outside."""

import html.parser
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.data.load import load_data
from saccade.report.compare_html import (
    cells,
    columns,
    draw,
    draw_shots,
    duration,
    html_table,
    markdown_table,
    pareto_front,
    scatter,
    true_prediction,
    write_comparison,
)
from saccade.types.prediction import Classification, Detection, Segmentation
from saccade.types.sample import Sample

NAN = math.nan


def row(model, value, **changes):
    return {
        "model": model, "runs": 3, "wanted": 3, "value": value, "low": value - 0.01, "high": value + 0.01, "best": False,
        "difference": -0.1, "difference_low": -0.2, "difference_high": -0.05, "epochs": 12.0, "training_seconds": 432.1,
        "latency_ms": 3.14159, "images_per_second": 512.345, "parameters": 61_706.0, "macs": 416_520.0,
        "memory_bytes": 700e6, "bundle_bytes": 248_000.0,
        "error": "", "report": "runs/x/run/report.html", "values": {0: value},
    } | changes  # fmt: skip


FACTS = {
    "title": "3 models on a & b",
    "metric": "map50",
    "lower_is_better": False,
    "notes": ["be <careful>"],
    "shown": {"data": "x", "seeds": "0 to 2"},
}
ROWS = [
    row("good|one", 0.93, best=True, difference=NAN, difference_low=NAN, difference_high=NAN),
    row("fast", 0.83, latency_ms=0.5),
    row("broken", NAN, low=NAN, high=NAN, runs=0, error="model.size=3: too <small>", latency_ms=NAN, report="")
    | dict.fromkeys(("training_seconds", "images_per_second", "parameters", "macs", "memory_bytes", "bundle_bytes", "epochs"), NAN)
    | dict.fromkeys(("difference", "difference_low", "difference_high"), NAN),
]


class Tags(html.parser.HTMLParser):
    """Every opened element is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text):
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags.seen


def test_X5_cells_read_as_written_by_hand():
    assert dict(zip(columns("map50"), cells(ROWS[1]), strict=True)) == {
        "model": "fast", "map50": "0.8300", "95% interval": "[0.8200, 0.8400]", "against the best": "-0.1000 [-0.2000, -0.0500]",
        "runs": "3 of 3", "epochs": "12", "training": "7.2 min", "latency": "0.50 ms", "images/s": "512.3", "parameters": "61.7 k",
        "MACs": "417 k", "peak memory": "668 MB", "bundle": "242 KB", "note": "",
    }  # fmt: skip
    assert cells(ROWS[0])[3] == "best"
    assert cells(ROWS[2])[1:4] == ["-", "-", "-"]
    assert cells(ROWS[2])[-1] == "failed: model.size=3: too <small>"
    assert cells(row("m", 0.5, runs=1, wanted=3))[-1] == "waiting"
    assert cells(row("m", 0.5, resumed=2))[-1] == "2 resumed: the time may lack what was before"
    assert [duration(s) for s in (None, NAN, 0.04, 99.94, 100, 7000)] == ["-", "-", "0.0 s", "99.9 s", "1.7 min", "1.9 h"]


def test_X5_markdown_has_as_many_cells_in_every_line():
    lines = markdown_table(ROWS, "map50").splitlines()
    assert len(lines) == 5
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {len(columns("map50")) + 2}
    assert "good\\|one" in lines[2]


def test_X5_html_table_escapes_and_marks_the_best():
    text = html_table(ROWS, "map50")
    parsed(text)
    assert '<tr class="best"><th scope="row"><a href="runs/x/run/report.html">good|one</a>' in text
    assert "too &lt;small&gt;" in text


@pytest.mark.parametrize("lower", [False, True])
def test_X5_pareto_front_equals_the_definition(lower):
    random = np.random.default_rng(1)
    for _ in range(200):
        points = [tuple(p) for p in random.integers(0, 6, (int(random.integers(1, 9)), 2)).astype(float)]
        sign = -1 if lower else 1

        def beaten(i, points=points, sign=sign):
            x, y = points[i][0], sign * points[i][1]
            others = [(a, sign * b, j) for j, (a, b) in enumerate(points) if j != i]
            return any(a <= x and b >= y and ((a, b) != (x, y) or j < i) for a, b, j in others)

        expected = {i for i in range(len(points)) if not beaten(i)}
        front = pareto_front(points, lower=lower)
        assert set(front) == expected
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_X5_scatter_places_dots_by_their_numbers():
    points = [("a", 1.0, 0.5, 0.4, 0.6), ("b", 10.0, 0.7, NAN, NAN), ("c", 100.0, 0.6, NAN, NAN)]
    text = scatter("map50 against latency", points, x="ms")
    seen = parsed(text)
    dots = [(float(a["cx"]), float(a["cy"]), "stroke" in a) for tag, a in seen if tag == "circle"]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.11)  # logarithmic: a decade is a decade
    assert dots[1][1] < dots[2][1] < dots[0][1]  # better is higher
    assert [front for *_, front in dots] == [True, True, False]
    whisker = next(a for _, a in seen if a.get("class") == "whisker")
    middle = (float(whisker["y1"]) + float(whisker["y2"])) / 2
    assert middle == pytest.approx(dots[0][1], abs=0.06)
    steps = next(a["points"].split() for _, a in seen if a.get("class") == "front")
    assert steps[0] == f"{dots[0][0]:.1f},{dots[0][1]:.1f}"
    assert steps[-1] == f"{dots[1][0]:.1f},{dots[1][1]:.1f}"
    assert steps[1] == f"{dots[1][0]:.1f},{dots[0][1]:.1f}"
    svg = next(a for tag, a in seen if tag == "svg")
    assert "On the Pareto front: a, b" in svg["aria-label"]
    assert all(0 < x < 760 and 0 < y < 380 for x, y, _ in dots)


def test_X5_scatter_of_one_model_and_of_equal_ones():
    for points in ([("a", 2.0, 0.5, NAN, NAN)], [("a", 2.0, 0.5, NAN, NAN), ("b", 2.0, 0.5, NAN, NAN)], [("a", 2.0, 0.0, NAN, NAN)]):
        text = scatter("t", points, x="ms")
        assert "nan" not in text.lower().replace("finance", "")
        names = [(float(a["x"]), float(a["y"])) for tag, a in parsed(text) if tag == "text" and "text-anchor" not in a]
        assert len(set(names)) == len(points)  # names do not lie on each other


def test_X5_page_is_one_file_without_network_or_script(tmp_path):
    data = load_data("synthetic:shapes?count=4&size=32", task="detect").with_boxes_only()
    samples = [data[0], data[1]]
    empty = Detection(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32), size=(32, 32))
    shots = draw_shots(
        {"good|one": [true_prediction(s, data.classes, "detect") for s in samples], "fast": [empty, empty]}, samples, data.classes, "detect"
    )
    assert [next(caption for caption, _ in shot.pictures) for shot in shots] == ["truth", "truth"]
    assert "good|one: F1 1.00" in shots[0].pictures[1][0]
    assert "fast: F1 0.00, 0 found" in shots[0].pictures[2][0]
    path = tmp_path / "index.html"
    write_comparison(
        path, FACTS, ROWS, learning={"fast": [(10, 0.5), (20, 0.6)]}, curves={"fast": [(1, 0.1), (2, 0.2)], "good|one": []},
        shots=[("Same images", "why", shots), ("None", "nothing", [])],
    )  # fmt: skip
    text = path.read_text()
    seen = parsed(text.removeprefix("<!doctype html>"))
    assert not [tag for tag, _ in seen if tag in ("script", "link", "iframe")]
    assert not re.search(r"(?:src|href)=\"(?!data:|runs/)", text)
    assert all(a.get("alt") for tag, a in seen if tag == "img")
    assert sum(tag == "img" for tag, _ in seen) == 6
    assert sum(tag == "svg" and a.get("role") == "img" for tag, a in seen) == 3
    assert "a &amp; b" in text
    assert "be &lt;careful&gt;" in text
    assert "<h2>None</h2>" not in text
    assert '<span class="big">0.9300</span>' in text


def test_X5_page_of_failures_only_is_a_page(tmp_path):
    write_comparison(tmp_path / "index.html", FACTS, ROWS[2:])
    text = (tmp_path / "index.html").read_text()
    parsed(text.removeprefix("<!doctype html>"))
    assert "<svg" not in text
    assert "too &lt;small&gt;" in text


def test_X5_small_pictures_are_enlarged_before_drawing():
    image = Image.new("RGB", (28, 28), (10, 20, 30))
    boxes = Detection(
        boxes=np.array([[2, 2, 20, 20]], np.float32), labels=np.array([0]), scores=np.array([0.9], np.float32), size=(28, 28), classes=["x"]
    )
    mask = Segmentation(mask=np.eye(28, dtype=np.uint8), size=(28, 28), classes=["background", "line"])
    label = Classification(scores=np.array([0.2, 0.8], np.float32), classes=["a", "b"])
    for prediction in (boxes, mask, label):
        picture = draw(prediction, image)
        assert max(picture.size) >= 160
        assert len(set(picture.getdata())) > 1
    red = np.asarray(draw(boxes, image))
    assert (red[16, 40:120] != red[4, 4]).any()  # the upper edge of the box, eight times as large


def test_X5_truth_is_drawn_as_predictions_are():
    sample = Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), {"label": torch.tensor(1), "image_id": "i"})
    truth = true_prediction(sample, ["a", "b"], "classify")
    assert (truth.label, truth.score) == (1, 1.0)
    segment = Sample(sample.image, {"mask": torch.ones(8, 8, dtype=torch.int64), "image_id": "i"})
    assert true_prediction(segment, ["a", "b"], "segment").mask.sum() == 64
