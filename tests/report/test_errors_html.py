"""The report's error sections (CANON X5): what they say, escaped, balanced, in the page's colours."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from saccade.metrics.classification import ClassificationMetric
from saccade.metrics.detection import DetectionImage, DetectionMetric
from saccade.metrics.detection_errors import KINDS
from saccade.metrics.segmentation import SegmentationMetric
from saccade.report import errors_html
from saccade.report.html import metric_tables
from saccade.types.prediction import Classification, Segmentation


class Balanced(HTMLParser):
    """Every tag that is opened is closed, in order; rows of a table are equally long."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.cells = []
        elif tag == "tr":
            self.cells.append(0)
        elif tag in ("td", "th"):
            self.cells[-1] += 1
        self.open += [] if tag in ("br", "img", "meta") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            assert len(set(self.cells)) == 1, self.cells

    def handle_data(self, data):
        self.text += data + " "


def detector(found, classes=("cell", "<b>"), score=0.5):
    """One object of each class; ``found``: (xywh, label, score)."""
    boxes = np.array([f[0] for f in found], dtype=float).reshape(-1, 4)
    truth = np.array([[10, 10, 20, 20], [70, 70, 20, 20]], dtype=float)
    metric = DetectionMetric(classes, score=score)
    metric.add(
        DetectionImage(
            0, "0.png", (100, 100), boxes, np.array([f[1] for f in found], dtype=np.int64), np.array([f[2] for f in found], dtype=float),
            boxes[:, 2] * boxes[:, 3], truth, np.array([0, 1]), np.full(2, 400.0), np.zeros(2, bool), np.zeros(2, bool),
        )
    )  # fmt: skip
    return metric


CASES = {
    "class": [((10, 10, 20, 20), 1, 0.9), ((70, 70, 20, 20), 1, 0.95)],
    "location": [((10, 10, 9, 20), 0, 0.9), ((70, 70, 20, 20), 1, 0.95)],
    "background": [((40, 40, 9, 20), 0, 0.9), ((10, 10, 20, 20), 0, 0.5), ((70, 70, 20, 20), 1, 0.95)],
    "both": [((70, 70, 9, 20), 0, 0.9), ((10, 10, 20, 20), 0, 0.5), ((70, 70, 20, 20), 1, 0.95)],
}


@pytest.mark.parametrize("kind", CASES)
def test_X5_the_largest_loss_is_named_with_what_to_do(kind):
    tables = detector(CASES[kind]).tables()
    text = re.sub(r"\s+", " ", Balanced(errors_html.error_sections(tables)).text)
    assert f"Most is lost by {kind} errors" in text
    assert errors_html.ADVICE[kind].split(" (`")[0] in text
    assert "`" not in text
    assert f"{tables['errors']['gain'][kind]:+.4f}" in text
    for name in (*KINDS, "false positives", "false negatives"):
        assert errors_html.MEANS[name] in text


def test_X5_no_advice_without_a_loss():
    page = errors_html.error_sections(detector([((10, 10, 20, 20), 0, 0.9), ((70, 70, 20, 20), 1, 0.95)]).tables())
    assert "Errors by kind" in page
    assert "Most is lost" not in page


def test_X5_names_are_escaped_and_colours_are_the_pages():
    page = errors_html.error_sections(detector(CASES["class"]).tables())
    assert "<b>" not in page.replace("<b>class</b>", "")
    assert "cell as &lt;b&gt;" in page
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", page)
    assert "var(--mark)" in page


def test_X5_segmentation_says_where_the_wrong_pixels_are():
    there = np.zeros((100, 100), int)
    there[:, 50:] = 1
    for found, verdict, share in (
        (np.roll(there, 1, axis=1), "their edges are not", "50 %"),
        (np.where(np.arange(100)[:, None] < 30, 1, there), "Whole regions are wrong", "6 %"),
    ):
        metric = SegmentationMetric(["a&b", "c"])
        metric.update([Segmentation(mask=found.astype(np.uint8))], [{"mask": there, "image_id": 0, "path": ""}])
        page = errors_html.error_sections(metric.tables())
        text = Balanced(page).text
        assert verdict in text
        assert share in text
        assert "a&amp;b" in page
        assert "in pixels" in text


def test_X5_classification_tells_both_directions():
    metric = ClassificationMetric(["cat", "dog"])
    for label, score in ((0, 0.2), (0, 0.3), (0, 0.9), (1, 0.7), (1, 0.1)):
        scores = np.array([score, 1 - score], dtype=np.float32)
        metric.update([Classification(scores=scores)], [{"label": label, "image_id": 0, "path": ""}])
    text = Balanced(errors_html.error_sections(metric.tables())).text
    assert "cat as dog" in text
    assert "2 of 3 (66.7 %)" in text
    assert "1 of 2 (50.0 %)" in text
    assert "in images" in text


def test_X5_nothing_to_tell_is_nothing():
    assert errors_html.error_sections({}) == ""
    assert errors_html.error_sections(SegmentationMetric(["a", "b"]).tables()) == ""
    assert errors_html.error_sections(ClassificationMetric(["a", "b"]).tables()) == ""
    assert "Errors by kind" not in Balanced(errors_html.error_sections(DetectionMetric(["x"]).tables())).text


def test_X5_the_report_shows_them():
    metric = detector(CASES["location"])
    page = metric_tables(metric.compute(), metric.tables(), metric.classes)
    assert "Errors by kind" in page
    Balanced(page)
