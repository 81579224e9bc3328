"""The report's evidence (CANON X5, C19): intervals, calibration, thresholds, mistakes, and the numbers as files."""

import csv
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.cli.evaluate import show
from saccade.metrics.bootstrap import intervals
from saccade.metrics.calibration import calibration_table
from saccade.metrics.classification import ClassificationMetric
from saccade.report import evidence_html as evidence
from saccade.types.prediction import Classification
from saccade.workflows.evaluate import evaluate_fully


class Tags(HTMLParser):
    """Every opened element is closed, in order; collects text and tags."""

    VOID = ("meta", "img", "br", "line", "rect", "circle", "polyline", "path")

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def scored():
    """60 predictions of the classes "a & b" and "<c>", two thirds right."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(60):
        label, score = int(rng.integers(0, 2)), float(rng.uniform(0.5, 1))
        best = label if rng.random() < 0.67 else 1 - label
        scores = np.full(2, 1 - score)
        scores[best] = score
        out.append((Classification(scores=scores, path=f"{i}.png", classes=["a & b", "<c>"]), {"label": label, "image_id": i}))
    return out


@pytest.fixture(scope="module")
def metric(scored):
    metric = ClassificationMetric(["a & b", "<c>"])
    metric.update(*zip(*scored, strict=True))
    return metric


def test_X5_intervals_are_shown_by_number_and_class(metric):
    ends, numbers = intervals(metric), metric.compute()
    page = Tags(evidence.interval_tables(numbers, ends, "accuracy", metric.classes))
    low, high = ends["accuracy"]
    assert f"{low:.3f} to {high:.3f}" in page.text
    assert "a & b" in page.text
    assert "<c>" in page.text
    assert "By class: recall" in page.text
    assert evidence.interval_tables(numbers, {}, "accuracy", metric.classes) == ""
    assert evidence.interval_text("x", {"x": (math.nan, math.nan)}) == ""


def test_X5_calibration_says_which_way(metric, scored):
    page = Tags(evidence.calibration(metric.tables()["calibration"]))
    assert "too sure of itself" in page.text
    assert f"Brier score {np.mean([2 * (1 - p.scores[t['label']]) ** 2 for p, t in scored]):.3f}" in page.text
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert any("accuracy by confidence" in text for text in labels)
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 4000)
    fair = calibration_table(confidence, rng.random(4000) < confidence)
    assert "about as sure as it is right" in evidence.calibration(fair, "detect")
    assert "less sure" in evidence.calibration(calibration_table(confidence * 0.5, rng.random(4000) < confidence))
    assert evidence.calibration({}) == ""


def test_X5_thresholds_name_the_best(scored):
    table = evidence.classifier_thresholds(scored, ["a & b", "<c>"])
    assert list(table) == ["<c>"]  # of two classes one curve says all
    best = table["<c>"]["choices"]["best_f1"]
    page = Tags(evidence.thresholds(table))
    assert f"best F1 at {best['threshold']:.3f}" in page.text
    assert f"precision {best['precision']:.3f}, recall {best['recall']:.3f}" in page.text
    whole = Tags(evidence.thresholds({"": table["<c>"], **table}))
    assert "Best F1 of all classes together" in whole.text
    assert evidence.thresholds({}) == ""
    assert evidence.classifier_thresholds([], ["a"]) == {}


def test_C19_most_confident_mistakes_first(scored):
    drawn = []

    def draw(prediction, truth):
        drawn.append((prediction, truth))
        return "<figure></figure>"

    page = Tags(evidence.mistakes(scored, draw, most=5))
    wrong = [p for p, t in scored if p.label != t["label"]]
    assert f"{len(wrong)} of 60 images" in page.text
    assert [p.score for p, _ in drawn] == sorted((p.score for p in wrong), reverse=True)[:5]
    right = [(p, t) for p, t in scored if p.label == t["label"]]
    assert evidence.mistakes(right, draw) == ""


def test_X5_numbers_as_json_and_csv(metric, tmp_path):
    numbers, ends = metric.compute() | {"recall/a, b": float("nan")}, intervals(metric)
    evidence.write_numbers(tmp_path, numbers, ends, metric.tables(), "accuracy", 60)
    facts = json.loads((tmp_path / "metrics.json").read_text())
    assert facts["metrics"]["accuracy"] == numbers["accuracy"]
    assert tuple(facts["intervals"]["accuracy"]) == ends["accuracy"]
    assert facts["tables"]["confusion"] == metric.confusion().tolist()
    assert "images" not in facts["tables"]
    rows = {(row["name"], row["class"]): row for row in csv.DictReader((tmp_path / "scores.csv").open())}
    assert float(rows["accuracy", ""]["value"]) == numbers["accuracy"]
    assert float(rows["recall", "<c>"]["low"]) == ends["recall/<c>"][0]
    assert rows["recall", "a, b"]["value"] == rows["ece", ""]["low"] == ""


def test_X5_predictions_made_elsewhere_have_intervals_too(tmp_path, capsys):
    boxes = [[10 * i, 5, 8, 8] for i in range(6)]
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 80, "height": 20} for i in range(6)],
        "categories": [{"id": 1, "name": "dot"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0} for i, box in enumerate(boxes)
        ],
    }
    found = [{"image_id": i, "category_id": 1, "bbox": box, "score": 0.9 - 0.1 * i} for i, box in enumerate(boxes[:4])]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    result = evaluate_fully(tmp_path / "found.json", tmp_path / "truth.json", split=None)
    low, high = result.intervals["recall"]
    assert result.metrics["recall"] == pytest.approx(4 / 6)
    assert low < 4 / 6 < high
    assert (result.images, result.main) == (6, "map50")
    show("head", result.metrics, result.intervals)
    assert f"0.6667  ({low:.3f} to {high:.3f})" in capsys.readouterr().out


def test_X5_a_run_reports_its_evidence(tmp_path):
    """Two classes of squares that look alike."""
    rng, data = np.random.default_rng(0), tmp_path / "data"
    for split, count in (("train", 12), ("val", 12)):
        for k, name in enumerate("ab"):
            (data / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(20 * k, 200, (28, 28)).astype(np.uint8)).save(data / split / name / f"{i}.png")
    options = {"recipe.epochs": 1, "recipe.batch_size": 16}
    run = saccade.train("lenet5", data, folder=tmp_path / "run", options=options, workers=0, say=lambda _: None)
    page = Tags((run.folder / "report.html").read_text())
    for title in ("How sure these numbers are", "Calibration", "Which score to cut at", "Misclassified images"):
        assert title in page.text
    facts, numbers = (json.loads((run.folder / name).read_text()) for name in ("run.json", "metrics.json"))
    assert facts["intervals"] == numbers["intervals"]
    assert facts["metrics"] == numbers["metrics"]
    low, high = facts["intervals"]["accuracy"]
    assert low <= facts["metrics"]["accuracy"] <= high
    assert f"95 % interval {low:.3f} to {high:.3f}" in page.text
    again = evaluate_fully(run.folder, data, split="val", workers=0)
    assert again.intervals["accuracy"] == (low, high)
    assert evaluate_fully(run.folder, data, split="val", workers=0, intervals=False).intervals == {}
