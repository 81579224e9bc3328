"""Every page that saccade writes, in headless Chromium (CANON X5): wide, narrow, light, dark, by keyboard, on paper, with hard contents."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade.data.load import load_data
from saccade.engine.config import RunConfig
from saccade.metrics.bootstrap import intervals
from saccade.models.registry import create_model
from saccade.report.compare_html import draw_shots, write_comparison
from saccade.report.html import write_report
from saccade.report.label_errors import LabelIssue, write_issues
from saccade.tasks.table import task_class
from saccade.types.prediction import Classification, Detection, Segmentation
from saccade.types.recipe import Recipe
from saccade.workflows.check import check

NAN = math.nan
HARD = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "long" * 50, "two words " * 20, "خلية دم بيضاء", "תא לבן \u202eturned",
    "細胞", "a\"b'c&amp;d", "`code`", "{{x}}", "e\u0301\u0301\u0301", " ",
]  # fmt: skip
"""Names that a page must bear: markup, 200 letters with and without gaps, right to left, quotes, a blank."""
MANY = [f"class number {k}" for k in range(100)]
FACTS = {
    "command": "saccade train lenet5 data --out runs/one", "date": "2026-11-20 16:00:00 +0000", "training_seconds": 12.3, "seed": 0,
    "saccade": "1.0", "commit": "0123456789ab+", "fingerprint": "f" * 64, "skipped": {}, "problems": [],
    "machine": {"cpu": "A processor with a long name and 64 cores @ 3.00GHz", "cores": 2, "torch": "2.15.0+cpu"},
}  # fmt: skip
TROUBLE = {"skipped": {"a.png": "a.png: cut off"}, "problems": ["/a/very/long/path/" + "x" * 300 + ".png: <b>broken</b>"] * 12}


def guesses(samples, classes, task, rng):
    """Predictions as a half-trained model makes them: moved, missed, doubled, mistaken."""
    out = []
    for sample in samples:
        target, size = sample.target, tuple(int(v) for v in sample.image.shape[-2:])
        common = {"classes": list(classes), "size": size, "image_id": target["image_id"], "path": f'it\'s "{target["image_id"]}" <i>.png'}
        if task == "classify":
            scores = rng.dirichlet(np.full(len(classes), 0.3))
            scores[int(target["label"])] += rng.uniform(0, 1.5)
            out.append(Classification(scores=(scores / scores.sum()).astype(np.float32), **common))
        elif task == "detect":
            boxes, labels = np.asarray(target["boxes"], dtype=np.float32).reshape(-1, 4), np.asarray(target["labels"])
            kept = np.concatenate([np.flatnonzero(rng.random(len(boxes)) < 0.8), np.flatnonzero(rng.random(len(boxes)) < 0.3)])
            moved = boxes[kept] + rng.normal(0, 3, (len(kept), 4)).astype(np.float32)
            found = np.where(rng.random(len(kept)) < 0.8, labels[kept], rng.integers(0, len(classes), len(kept)))
            scores = np.sort(rng.uniform(0.1, 1, len(kept)).astype(np.float32))[::-1].copy()
            out.append(Detection(boxes=moved, labels=found.astype(np.int64), scores=scores, **common))
        else:
            mask = np.roll(np.maximum(np.asarray(target["mask"]), 0), int(rng.integers(0, 4)), axis=1).astype(np.uint8)
            out.append(Segmentation(mask=mask, **common))
    return out


def report(path, task, classes=None, count=14, model="lenet5", size=72, **changes):
    """report.html of a run whose validation images were predicted by :func:`guesses`."""
    rng = np.random.default_rng(0)
    data = load_data(f"synthetic:{'cells' if task == 'detect' else 'shapes'}?count={count}&size={size}&task={task}", task=task)
    classes = list(classes or data.classes)
    samples = [data[i] for i in range(len(data))]
    if task == "classify":
        for k, sample in enumerate(samples):
            sample.target["label"] = torch.tensor(k % len(classes))
    scored = list(zip(guesses(samples, classes, task, rng), [s.target for s in samples], strict=True))
    metric = task_class(task).make_metric(classes)
    metric.update(*map(list, zip(*scored, strict=True)))
    numbers = metric.compute()
    history = [
        {"epoch": e, "train_loss": 2 / (e + 1), "train_box": 1 / (e + 1), "train_class": 1 / (e + 1), "val_loss": 2.2 / (e + 1),
         "val_box": 1.1 / (e + 1), "val_class": 1.2 / (e + 1), "lr": 0.01 * 0.9**e, metric.main: 0.8 - 0.5 / (e + 1)} for e in range(12)
    ]  # fmt: skip
    facts = FACTS | {
        "images": {"train": 40, "val": len(samples)}, "metrics": numbers, "main": metric.main, "intervals": intervals(metric, draws=50),
    } | changes  # fmt: skip
    settings = RunConfig(model=model, data=f"synthetic:shapes?count={count}", recipe=Recipe())
    model = SimpleNamespace(classes=classes, task=task)
    write_report(path, facts, settings, history, metric.tables(), scored, model, data)


def classify(path):
    report(path, "classify", count=60)


def trained(path):
    options = {"recipe.epochs": 2, "recipe.batch_size": 8}
    data = "synthetic:shapes?count=24&size=32&task=classify"
    run = saccade.train("lenet5", data, folder=path.parent / "run", options=options, workers=0, say=str)
    (run.folder / "report.html").rename(path)


def detect(path):
    report(path, "detect", size=160, model="ssdlite", **TROUBLE)


def segment(path):
    report(path, "segment", model="unet")


def generate(path):
    model = create_model("dcgan", size=16, width=4)
    facts = FACTS | {"images": {"train": 40, "val": 10}, "metrics": {"swd": 12.5}, "main": "swd", "intervals": {}}
    history = [{"epoch": e, "train_loss": 1.0, "train_generator": 1 + e, "train_discriminator": 1 / (e + 1), "lr": 1e-3} for e in range(5)]
    write_report(path, facts, RunConfig(model="dcgan", data="x"), history, {}, [], model)


def classify_two_classes_without_errors(path):
    report(path, "classify", ["no", "yes"], count=8)


def detect_hard_names(path):
    report(path, "detect", HARD, size=96, model="<b>'\"", command="saccade " + "train/" * 60)


def classify_hard_names(path):
    report(path, "classify", HARD, count=40)


def segment_hard_names(path):
    report(path, "segment", HARD)


def classify_100_classes(path):
    report(path, "classify", MANY, count=120, size=32)


def detect_100_classes(path):
    report(path, "detect", MANY, size=96)


def nothing_validated(path):
    facts = FACTS | {"images": {"train": 1, "val": 0}, "metrics": {}, "main": "", "intervals": {}}
    model = SimpleNamespace(classes=["a"], task="classify")
    write_report(path, facts, RunConfig(model="m", data="d"), [], {}, [], model)


def only_nan(path):
    metrics = {"accuracy": NAN, "recall/a": NAN, "recall/b": NAN}
    facts = FACTS | {"images": {"train": 1, "val": 1}, "metrics": metrics, "main": "accuracy", "intervals": {"accuracy": (NAN, NAN)}}
    history = [{"epoch": 0, "train_loss": NAN, "val_loss": NAN, "lr": 0.1, "accuracy": NAN}]
    model = SimpleNamespace(classes=["a", "b"], task="classify")
    write_report(path, facts, RunConfig(model="m", data="d"), history, {"images": []}, [], model)


def inspection(path):
    saccade.inspect("synthetic:cells?count=14&size=160", out=path, workers=0)


def inspection_of_masks(path):
    saccade.inspect("synthetic:shapes?count=8&size=48&task=segment", out=path, workers=0)


def inspection_of_hard_names(path):
    """Folders of names, broken and doubled files, an image in two splits, names of files with quotes."""
    rng, data = np.random.default_rng(0), path.parent / "data"
    for name in HARD:
        folder = data / "train" / (name.strip() or "blank").replace("/", "_")
        folder.mkdir(parents=True)
        for k in range(2):
            Image.fromarray(rng.integers(0, 255, (24, 200 if k else 24), dtype=np.uint8)).save(folder / f'it\'s "{k}" <i>.png')
    (folder / "broken.png").write_bytes(b"no image")
    other = data / "val" / folder.name
    other.mkdir(parents=True)
    (other / "again.png").write_bytes((folder / 'it\'s "0" <i>.png').read_bytes())
    saccade.inspect(data, out=path, workers=0)


def labels(path, names=("round", "square"), issues=9):
    data = load_data(f"synthetic:cells?count={max(issues, 2)}&size=120", task="detect")
    kinds = ("class", "overlooked", "badly located", "swapped", "spurious")
    found = [
        LabelIssue(
            f"images/it's \"{k}\".png", str(k), k, kinds[k % 5], "" if kinds[k % 5] == "overlooked" else names[k % len(names)],
            names[(k + 1) % len(names)], 0.1 * k, 0.9, 1, [10, 10, 60, 60], [15, 15, 70, 70],
        )
        for k in range(issues)
    ]  # fmt: skip
    facts = {"model": "ssdlite", "data": "d" * 200, "none": None}
    write_issues(path.parent, data, found, task="detect", images=9, facts=facts, notes=["skipped <b>" + "y" * 200], top=9)
    (path.parent / "report.html").rename(path)


def labels_hard_names(path):
    labels(path, HARD, len(HARD))


def no_labels_in_doubt(path):
    labels(path, issues=0)


def comparison(path, names=("timm/resnet18", "lenet5", "hog_svm", "commonest"), rows=None):
    data = load_data("synthetic:shapes?count=3&size=64&task=classify")
    samples, rng = [data[0], data[1]], np.random.default_rng(0)
    good = [
        {
            "model": name, "runs": 3, "wanted": 3, "value": 0.9 - 0.5 * k / len(names), "low": 0.88 - 0.5 * k / len(names),
            "high": 0.92 - 0.5 * k / len(names), "best": k == 0, "difference": NAN if k == 0 else -0.1 * k,
            "difference_low": NAN if k == 0 else -0.11 * k, "difference_high": NAN if k == 0 else -0.09 * k, "epochs": 12.0,
            "training_seconds": 432.1, "latency_ms": 50 / 2.1 ** (k % 9), "images_per_second": 512.3, "parameters": 6.1e4, "macs": 4e5,
            "memory_bytes": 7e8, "bundle_bytes": 2.4e5, "error": "", "report": "runs/x/run/report.html", "resumed": k % 2,
        }
        for k, name in enumerate(names)
    ]  # fmt: skip
    broken = dict.fromkeys(good[0], NAN) | {
        "model": "broken", "runs": 0, "wanted": 3, "best": False, "report": "", "resumed": 0,
        "error": "model.size=3: <b>too small</b>: " + "out/of/memory/" * 12,
    }  # fmt: skip
    facts = {
        "title": f"{len(names)} models on some data & more", "metric": "accuracy", "lower_is_better": False,
        "notes": ["There is no test split: measured on the validation split."], "shown": {"data": "x" * 150, "seeds": "0 to 2"},
    }  # fmt: skip
    curves = {name: [(e + 1, 0.9 - 0.05 * k - 0.5 / (e + 1)) for e in range(10)] for k, name in enumerate(names)}
    learning = {name: [(n, 0.9 - 0.05 * k - 5 / n) for n in (10, 20, 40, 80)] for k, name in enumerate(names)}
    predicted = {name: guesses(samples, data.classes, "classify", rng) for name in names}
    shots = [("The same images by every model", "Spread evenly.", draw_shots(predicted, samples, data.classes, "classify"))]
    write_comparison(path, facts, [*good, broken] if rows is None else [broken][:rows], curves=curves, learning=learning, shots=shots)


def comparison_of_hard_names(path):
    comparison(path, HARD[:-1])


def comparison_of_30_models(path):
    comparison(path, [f"timm/family_{k}.of_model" for k in range(30)])


def comparison_of_failures(path):
    comparison(path, rows=1)


def checked_classifier(path):
    check("lenet5", "synthetic:shapes?count=24&size=32&task=classify", out=path.parent / "out", workers=0, steps=6, say=str)
    (path.parent / "out" / "check.html").rename(path)


def checked_detector(path):
    options = {"model.size": 64, "model.backbone": "test_resnet.r160_in1k", "model.width": 16, "recipe.batch_size": 4}
    check("ssdlite", "synthetic:shapes?count=12&size=64", out=path.parent / "out", options=options, workers=0, learn=False, say=str)
    (path.parent / "out" / "check.html").rename(path)


def inspection_of_nothing(path):
    saccade.inspect(load_data("synthetic:shapes?count=4&size=32").subset([]), out=path, workers=0)


def inspection_where_nothing_opens(path):
    for name in "ab":
        (path.parent / "data" / name).mkdir(parents=True)
        (path.parent / "data" / name / f"{name}.png").write_bytes(b"")
    saccade.inspect(path.parent / "data", out=path, workers=0)


PAGES = [
    trained, classify, detect, segment, generate, classify_two_classes_without_errors, nothing_validated, only_nan,
    checked_classifier, checked_detector, inspection, inspection_of_masks, inspection_of_nothing, inspection_where_nothing_opens,
    labels, no_labels_in_doubt, comparison, comparison_of_failures,
    detect_hard_names, classify_hard_names, segment_hard_names, classify_100_classes, detect_100_classes, inspection_of_hard_names,
    labels_hard_names, comparison_of_hard_names, comparison_of_30_models,
]  # fmt: skip
every_page = pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """``written(make)``: the path of a page, made once."""
    paths = {}

    def path(make):
        if make not in paths:
            paths[make] = tmp_path_factory.mktemp(make.__name__) / 'it\'s a "page" #1.html'
            make(paths[make])
        return paths[make]

    return path


@every_page
def test_X5_page_is_sound_wide_and_narrow_in_light_and_dark(make, written, browser):
    path = written(make)
    for width in (1280, 400):
        for scheme in ("light", "dark"):
            browser.open(path, width, scheme)
            assert browser.complaints(path) == []
            assert browser.audit() == {"layout": [], "contrast": [], "structure": []}, f"{width} {scheme}"
            if scheme == "dark":
                assert browser.script("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"


FOCUSED = """(() => {
  const e = document.activeElement, all = [...document.querySelectorAll("*")];
  if (e === document.body) return null;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {number: all.indexOf(e), seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
          inside: box.bottom > 0 && box.top < innerHeight, name: e.outerHTML.slice(0, 90)};
})()"""
REACHABLE = """[...document.querySelectorAll("*")].map((e, i) => [e, i]).filter(([e]) => e.checkVisibility({visibilityProperty: true})
  && (e.matches("a[href],button,input,select,textarea,summary,[tabindex]")
      || (["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1))).map(([e, i]) => i)"""


@pytest.mark.parametrize(
    "make", [detect, classify_hard_names, comparison, inspection_of_hard_names, labels], ids=lambda make: make.__name__
)
def test_X5_all_that_can_be_used_is_reached_by_tab_and_seen(make, written, browser):
    browser.open(written(make), 400)
    wanted = browser.script(REACHABLE)
    reached = []
    for _ in range(len(wanted) + 5):
        browser.press("Tab")
        at = browser.script(FOCUSED)
        if at is None or at["number"] in reached:
            break
        assert at["seen"], f"focus is not seen: {at['name']}"
        assert at["inside"], f"focus is off the window: {at['name']}"
        reached.append(at["number"])
    assert wanted
    assert set(wanted) <= set(reached)
    assert reached == sorted(reached)


@every_page
def test_X5_page_prints_in_light_and_nothing_is_cut(make, written, browser):
    width = 1047 if "A4 landscape" in written(make).read_text() else 718  # CSS pixels of A4 inside Chromium's margins
    browser.open(written(make), width, "dark", media="print")  # a reader of dark pages prints on white paper too
    assert browser.script("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    got = browser.audit()
    if make.__name__.endswith(("_names", "_models", "_classes")):  # Chromium shrinks a page of wide tables to half at most
        got["layout"] = [line for line in got["layout"] if not line.startswith(("the page is", "outside of the window"))]
    assert got == {"layout": [], "contrast": [], "structure": []}
    pdf = browser.paper()
    assert pdf.startswith(b"%PDF")


def test_X5_the_same_inks_can_be_told_apart_without_colour(written, browser):
    browser.open(written(comparison))
    drawn = browser.script('[...document.querySelectorAll("svg")].slice(1, 2).flatMap(s => [...s.querySelectorAll("polyline")].map(l => '
                           'l.getAttribute("stroke") + l.getAttribute("stroke-dasharray")))')  # fmt: skip
    assert len(set(drawn)) == len(drawn) == 4


FAULTS = {
    "layout": {
        "the page is": '<p style="width:3000px">wide</p>',
        "cut sideways": '<p style="width:20px;overflow:hidden;white-space:nowrap">this is cut</p>',
        "cut in height": '<p style="height:5px;overflow:hidden">this is cut</p>',
        "tiny text": '<p style="font-size:6px">tiny</p>',
        "wider than its cell": '<table><caption>c</caption><tr><th scope="row" style="display:block;width:9px">wideword</th></tr></table>',
        "outside of its chart": '<svg role="img" aria-label="x" viewBox="0 0 99 99" width="99"><text x="90" y="50">out of it</text></svg>',
        "one upon the other": '<svg role="img" aria-label="x" width="99"><text y="50">one</text><text y="50">two</text></svg>',
        "tiny in its chart": '<svg role="img" aria-label="x" viewBox="0 0 999 999" width="99"><text y="50">one</text></svg>',
        "no picture": '<img alt="gone" src="data:image/png;base64,AAAA">',
    },
    "contrast": {
        "4.4": '<p style="color:#787878">grey</p>',
        "1.0": '<div style="background:#fff"><p style="background:rgba(0,0,0,.02);color:#fffe">white</p></div>',
        "2.8": '<svg role="img" aria-label="x"><text y="20" fill="#999">grey</text></svg>',
        "faint": '<svg role="img" aria-label="x"><line x2="9" y2="9" stroke="#aaa"/></svg>',
    },
    "structure": {
        "no alt": '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">',
        "no text for": "<svg></svg>",
        "a heading of level 4": "<h2>x</h2><h4>y</h4>",
        "headings 1,1": "<h1>again</h1>",
        "no scope": "<table><caption>c</caption><tr><th>x</th></tr></table>",
        "no th": "<table><caption>c</caption><tr><td>x</td></tr></table>",
        "no name": '<table><tr><th scope="row">x</th></tr></table>',
        "rows of": '<table><caption>c</caption><tr><th scope="row">x</th></tr><tr><td>1</td><td>2</td></tr></table>',
        "ids are not": '<p id="a"></p><p id="a"></p>',
        "leads nowhere": '<a href="#none">x</a>',
        "onclick": '<p onclick="1">x</p>',
        "a SCRIPT": "<script></script>",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_X5_the_audit_sees_planted_faults(kind, tmp_path, browser):
    page = (
        '<!doctype html><html lang="en"><head><title>t</title><meta name="viewport" content="width=device-width">'
        "<style>body{{margin:40px}}</style></head><body><main><h1>t</h1>{}</main></body></html>"
    )
    path = tmp_path / "page.html"
    path.write_text(page.format("<p>fine</p>"))
    browser.open(path)
    assert browser.audit() == {"layout": [], "contrast": [], "structure": []}
    for line, fault in FAULTS[kind].items():
        path.write_text(page.format(fault))
        browser.open(path)
        assert any(found.startswith(line) for found in browser.audit()[kind]), (line, browser.audit())


def test_X5_complaints_are_heard(tmp_path, browser):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>t</title><img src=x onerror='console.log(1)'><script>throw 1</script>")
    browser.open(path)
    told = " ".join(browser.complaints(path))
    for word in ("asks for file://", "exceptionThrown", "consoleAPICalled"):
        assert word in told
