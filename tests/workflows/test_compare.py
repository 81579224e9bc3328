"""The bake-off: one protocol, a queue that survives anything, a budget that is written down, failures that stop nobody."""

import contextlib
import csv
import itertools
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy import stats

from saccade.data.load import load_data
from saccade.engine.bundle import load_bundle
from saccade.types.errors import UsageError
from saccade.workflows import compare as workflow
from saccade.workflows.compare import compare, interval, most_apart, nested_subset, parse_budget, parse_model_sets
from saccade.workflows.compare_job import seconds_per_step

DATA = "synthetic:shapes?count=24&size=32&task=classify"
TINY = {"*": {"recipe.batch_size": 8, "recipe.epochs": 1}}


def quiet(_):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """lenet5 twice is one model; a timm network with an option that does not exist fails at once."""
    out = tmp_path_factory.mktemp("bake") / "off"
    said = []
    options = TINY | {"timm/resnet18": {"model.sise": 32}}
    comparison = compare(["timm/resnet18", "lenet5"], DATA, seeds=2, out=out, options=options, workers=0, say=said.append)
    return comparison, said, options


def files(out):
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}


def test_X5_compare_ranks_measures_and_keeps_failures_in_the_table(made):
    comparison, _, _ = made
    assert comparison.best == "lenet5"
    assert comparison.metric == "accuracy"
    best, failed = comparison.rows
    assert failed["model"] == "timm/resnet18"
    assert "no option model.sise" in failed["error"]
    assert list(comparison.failures) == ["timm/resnet18"]
    assert (best["runs"], best["wanted"], sorted(best["values"])) == (2, 2, [0, 1])
    assert best["value"] == pytest.approx(np.mean(list(best["values"].values())))
    for name in ("training_seconds", "latency_ms", "images_per_second", "memory_bytes", "bundle_bytes"):
        assert best[name] > 0, name
    assert best["macs"] > 100_000
    assert 50_000 < best["parameters"] < 62_000
    assert best["bundle_bytes"] > 4 * best["parameters"]
    assert math.isnan(best["low"])  # two seeds say nothing of spread


def test_X5_compare_writes_three_tables_and_a_page(made):
    out = made[0].folder
    page = (out / "index.html").read_text()
    assert "<svg" in page
    assert page.count("data:image/webp;base64,") >= 8  # four test images, truth and prediction
    assert "http://" not in page
    assert "https://" not in page
    markdown = (out / "table.md").read_text()
    assert "failed: timm/resnet18 has no option model.sise" in markdown
    table = json.loads((out / "table.json").read_text())
    assert table["rows"][0]["value"] == made[0].rows[0]["value"]
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [row["model"] for row in rows] == ["lenet5", "timm/resnet18"]
    assert float(rows[0]["seed_1"]) == made[0].rows[0]["values"][1]
    assert rows[1]["value"] == ""


def test_X5_a_finished_run_is_never_run_again_and_new_ones_are_added(made):
    comparison, _, options = made
    before = files(comparison.folder)
    said = []
    again = compare(
        ["timm/resnet18", "lenet5"], DATA, seeds=2, out=comparison.folder, options=options, workers=0, say=said.append
    )  # fmt: skip
    assert said[0] == "2 of 2 runs are done already"
    assert files(comparison.folder) == before
    assert again.rows[0]["values"] == comparison.rows[0]["values"]
    folders = {name.split(os.sep)[1] for name in before}
    assert len(folders) == 2
    assert not any("checkpoints" in name for name in before)


def test_X5_all_runs_have_the_same_splits_whatever_the_seed(made):
    out = made[0].folder
    facts = [json.loads(p.read_text()) for p in sorted(out.glob("runs/*/run/data.json"))]
    assert len(facts) == 2
    assert facts[0] == facts[1]
    test = json.loads((out / "splits" / "1.json").read_text())
    assert not set(test["test"]) & set(facts[0]["train"])


@pytest.mark.slow
def test_X5_another_comparison_reproduces_every_digit(made, tmp_path):
    options = {"*": {"recipe.batch_size": 8, "recipe.epochs": 1}}
    again = compare(["lenet5"], DATA, seeds=1, out=tmp_path / "o", options=options, workers=0, say=quiet)
    assert again.rows[0]["values"][0] == made[0].rows[0]["values"][0]
    result = [json.loads(p.read_text()) for p in made[0].folder.glob("runs/*/result.json")]
    mine = json.loads(next((tmp_path / "o").glob("runs/*/result.json")).read_text())
    assert any(r["metrics"] == mine["metrics"] and r["scores"] == mine["scores"] for r in result)


def start(out, epochs):
    options = {"*": {"recipe.batch_size": 4, "recipe.epochs": epochs}}
    call = f"compare(['lenet5'], {DATA!r}, seeds=2, out={str(out)!r}, options={options!r}, workers=0)"
    code = f"from saccade.workflows.compare import compare\n{call}"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


RUNS, EPOCHS = 2, 40
MOMENTS = (
    "starting", "calibrating", "planned", "training", "training", "evaluating", "tabulating", "training", "evaluating", "drawing",
)  # fmt: skip
TIMES = ("training_seconds", "latency_ms", "images_per_second", "memory_bytes", "bundle_bytes", "resumed")
"""What may differ between two equal comparisons: a bundle has the training time in its text."""


def progress(out):
    """(calibration begun, plan written, epochs of unfinished runs, unfinished runs that are trained, finished runs)."""
    done = {p.parent for p in out.glob("runs/*/result.json")}
    open_runs = [p.parent.parent for p in out.glob("runs/*/run/metrics.csv") if p.parent.parent not in done]
    epochs = sum(len((folder / "run" / "metrics.csv").read_bytes().splitlines()) for folder in open_runs)
    learnt = sum((folder / "run" / "run.json").is_file() for folder in open_runs)
    return len(list(out.glob("calibration/*/job.json"))), (out / "plan.json").is_file(), epochs, learnt, len(done)


def reached(moment, before, now, more):
    """Whether a comparison that stood at ``before`` when it was started has come to the moment; ``more`` epochs were to be trained."""
    _, planned, epochs, learnt, done = now
    return {
        "starting": True,
        "calibrating": now[0] > 0 and not planned,
        "planned": planned,
        "training": epochs > before[2] + more,
        "evaluating": learnt > 0,
        "tabulating": done > before[4],
        "drawing": done == RUNS,
    }[moment]


def contents(out):
    """Everything in the folders of finished runs, and the plan."""
    folders = [p.parent for p in out.glob("runs/*/result.json")]
    paths = [*out.glob("plan.json"), *(p for folder in folders for p in folder.rglob("*"))]
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths if p.is_file() and p.name not in ("lock", "log.txt")}


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen processes that import torch: a minute alone, longer beside others
def test_X5_killed_at_ten_random_moments_it_goes_on_and_gives_the_same_numbers(tmp_path):
    """From the first second to the page: finished runs and the plan stay as they are, the table is that of a comparison left alone."""
    out, whole = tmp_path / "killed", tmp_path / "whole"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saccade.workflows.compare"])  # the queue starts at once; each run is a new process all the same
    options = {"*": {"recipe.batch_size": 4}}

    def begin(folder):
        given = {"seeds": RUNS, "budget": "2s", "out": folder, "options": options, "workers": 0, "say": str}
        process = context.Process(target=compare, args=(["lenet5"], DATA), kwargs=given)
        process.start()
        return process

    rng, done = random.Random(0), {}
    for number, moment in enumerate(MOMENTS):
        before, process, until, more = progress(out), begin(out), time.monotonic() + 300, rng.randint(1, 12)
        while not reached(moment, before, progress(out), more):
            assert process.is_alive(), f"{moment}: it ended by itself"
            assert time.monotonic() < until, f"{moment} is never reached"
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.4 if number < 3 else 0.02))
        jobs = psutil.Process(process.pid).children(recursive=True) if process.is_alive() and number % 2 else []
        for victim in (process, *jobs):  # every other time the run dies too, as when the power fails
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"{moment}: too late"
        kept = contents(out)
        assert {p: kept.get(p) for p in done} == done  # never run again, never written again
        if moment == "planned":  # a slow machine's plan would be too short to be killed in
            plan = json.loads((out / "plan.json").read_text())
            plan["models"]["lenet5"]["epochs"] = EPOCHS
            (out / "plan.json").write_text(json.dumps(plan))
            kept = contents(out)
        done = kept
        for path in [*out.glob("*.json"), *out.glob("runs/*/*.json")]:
            json.loads(path.read_text())  # nothing is half-written
    process = begin(out)
    process.join(300)
    assert process.exitcode == 0
    after = contents(out)
    assert {p: after.get(p) for p in done} == done
    whole.mkdir()
    (whole / "plan.json").write_bytes((out / "plan.json").read_bytes())  # as many epochs, whatever the machine does meanwhile
    process = begin(whole)
    process.join(300)
    assert process.exitcode == 0

    def told(folder):
        table = json.loads((folder / "table.json").read_text())
        runs = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("runs/*/result.json")}
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in table["rows"]]
        curves = {}
        for key in runs:  # but for the mean loss of an epoch that was cut in two
            lines = (folder / "runs" / key / "run" / "metrics.csv").read_text().splitlines()
            curves[key] = [{k: v for k, v in row.items() if not k.startswith("train_")} for row in csv.DictReader(lines)]
        same = ("metrics", "intervals", "scores", "epochs", "parameters")
        return rows, {key: [run[k] for k in same] for key, run in runs.items()}, curves

    assert told(out) == told(whole)
    assert [len(rows) for rows in told(out)[2].values()] == [EPOCHS] * RUNS
    assert (out / "index.html").is_file()


@pytest.mark.slow
def test_X5_a_job_does_not_outlive_its_queue(tmp_path):
    out = tmp_path / "orphan"
    process = start(out, 100_000)
    until = time.monotonic() + 60
    while not list(out.glob("runs/*/run/metrics.csv")):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.kill()
    process.wait()
    rows = next(iter(out.glob("runs/*/run/metrics.csv")))
    time.sleep(3.0)
    size = rows.stat().st_size
    time.sleep(1.0)
    assert rows.stat().st_size == size
    with workflow.locked(rows.parent.parent / "lock", wait=False):
        pass


def test_X5_two_queues_on_one_folder_are_refused(tmp_path):
    with workflow.locked(tmp_path / ".lock"), pytest.raises(UsageError, match="in use by another"):
        compare(["lenet5"], DATA, out=tmp_path, say=quiet)


@pytest.mark.slow
def test_X5_a_run_that_fails_stops_no_other_and_its_error_is_one_line(tmp_path):
    # A rate that makes the losses overflow: this fails while it trains, in its own process.
    options = TINY | {"lenet5": {"recipe.lr": 1e6, "recipe.optimizer": "sgd", "recipe.epochs": 30}}
    small = {"timm/test_resnet.r160_in1k": {"recipe.epochs": 1}}
    comparison = compare(
        ["lenet5", "timm/test_resnet.r160_in1k"], DATA, out=tmp_path, options=options | small, workers=0, say=quiet
    )  # fmt: skip
    good, bad = comparison.rows
    assert good["model"] == "timm/test_resnet.r160_in1k"
    assert not good["error"]
    assert "\n" not in bad["error"]
    assert bad["error"]


@pytest.mark.slow
def test_X5_a_label_lets_one_system_take_part_in_two_forms(tmp_path):
    options = TINY | parse_model_sets(["relu:model.activation=relu"], ["lenet5", "relu=lenet5"])
    first = compare(["lenet5", "relu=lenet5"], DATA, out=tmp_path, options=options, workers=0, say=quiet)
    assert sorted(row["model"] for row in first.rows) == ["lenet5", "relu"]
    assert not first.failures
    relu = {load_bundle(p.parent.parent).build_options.get("activation") for p in tmp_path.glob("runs/*/run/model/model.json")}
    assert relu == {None, "relu"}
    assert "relu: lenet5 recipe.batch_size=8 model.activation=relu" in (tmp_path / "table.md").read_text()
    before = files(tmp_path)
    renamed = compare(
        ["lenet5", "rectified=lenet5"], DATA, out=tmp_path, options=TINY | {"rectified": options["relu"]}, workers=0, say=quiet
    )
    assert files(tmp_path) == before  # a label is no part of a run
    assert {row["model"]: row["value"] for row in renamed.rows}["rectified"] == {row["model"]: row["value"] for row in first.rows}["relu"]


def test_X5_a_budget_becomes_epochs_once_and_is_reused(tmp_path):
    said = []
    options = {"*": {"recipe.batch_size": 8}}
    first = compare(["lenet5"], DATA, budget="2s", out=tmp_path / "a", options=options, workers=0, say=said.append)
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())["models"]["lenet5"]
    assert plan["epochs"] == first.rows[0]["epochs"] >= 1
    assert plan["epoch_seconds"] == pytest.approx(plan["steps_per_epoch"] * plan["step_seconds"] + plan["validation_seconds"], abs=1e-3)
    assert any("times a few steps" in line for line in said)
    # Another machine: only the plan is taken over.
    plan["epochs"] = 2
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "plan.json").write_text(json.dumps({"models": {"lenet5": plan}}))
    said.clear()
    second = compare(["lenet5"], DATA, budget="2s", out=tmp_path / "b", options=options, workers=0, say=said.append)
    assert second.rows[0]["epochs"] == 2
    assert not any("times a few steps" in line for line in said)


@pytest.mark.slow
def test_X5_detectors_fitted_and_trained_on_equal_terms_and_data_sizes(tmp_path):
    options = {"ssdlite": {"model.size": 64, "model.backbone": "test_resnet.r160_in1k", "model.width": 16, "recipe.batch_size": 4}}
    comparison = compare(
        ["ssdlite", "hog_svm"], "synthetic:shapes?count=24&size=64", epochs=1, out=tmp_path, options=options, data_sizes=(0.5, 1),
        workers=0, jobs=2, say=quiet,
    )  # fmt: skip
    assert comparison.failures == {}
    rows = {row["model"]: row for row in comparison.rows}
    assert rows["ssdlite"]["epochs"] == 1
    assert math.isnan(rows["hog_svm"]["epochs"])
    assert rows["hog_svm"]["parameters"] > 100
    assert any("hog_svm: no epochs" in note for note in comparison.facts["notes"])
    assert {name: [n for n, _ in points] for name, points in comparison.learning.items()} == {"ssdlite": [8, 17], "hog_svm": [8, 17]}
    assert (tmp_path / "index.html").read_text().count("by training images") == 2
    half = compare(
        ["ssdlite", "hog_svm"], "synthetic:shapes?count=24&size=64", epochs=1, out=tmp_path, options=options, data_sizes=(0.5,),
        workers=0, jobs=2, say=quiet,
    )  # fmt: skip
    assert "Learnt from 0.5 of the 17 training images." in half.facts["notes"]
    assert "(train 8, " in half.facts["shown"]["data"]


TOY = """
import torch
from saccade.data.transforms.preprocess import Preprocess
from saccade.models.base import FittedModel
from saccade.models.index import Entry
from saccade.types.prediction import Classification

class Commonest(FittedModel):
    task = "classify"
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.preprocess = Preprocess(size=(8, 8), mode="stretch", channels=1, mean=(0.0,), std=(1.0,))
        self.register_buffer("share", torch.zeros(num_classes))
    def fit(self, dataset, *, validation=None, seed=0, log=None):
        counts = torch.as_tensor(dataset.class_counts(), dtype=torch.float32)
        self.share.copy_(counts / counts.sum())
    def raw(self, images):
        return self.share.expand(len(images), -1)
    def decode(self, raw, geometries, **settings):
        return [Classification(scores=row.cpu().numpy()) for row in raw]

def commonest(num_classes, *, pretrained=False):
    return Commonest(num_classes)

ENTRIES = [Entry(name="commonest", task="classify", paper="none", year=2026, builder="toy_models:commonest", kind="fitted")]
"""


@pytest.mark.slow
def test_X5_a_model_of_another_package_takes_part_by_entry_point(tmp_path):
    (tmp_path / "toy_models.py").write_text(TOY)
    info = tmp_path / "toy_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[saccade.models]\ntoy = toy_models:ENTRIES\n")
    code = (
        "from saccade.workflows.compare import compare\n"
        f"made = compare(['commonest'], {DATA!r}, out={str(tmp_path / 'out')!r}, workers=0)\n"
        "print(made.rows[0]['error'] or made.rows[0]['value'])"
    )
    path = os.pathsep.join(p for p in (str(tmp_path), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    truth = load_data(DATA, "test")
    expected = [truth.record(i).label for i in range(len(truth))]
    train = load_data(DATA, "train").class_counts()
    assert float(done.stdout) == pytest.approx(np.mean(np.array(expected) == train.argmax()))


# ------------------------------------------------------------------------------------------------------- small pieces


def test_X5_interval_equals_scipys():
    values = [0.91, 0.94, 0.89, 0.93]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert interval(values) == pytest.approx(expected, rel=1e-12)
    assert all(map(math.isnan, interval(values[:2])))


def test_X5_interval_covers_the_mean_19_times_in_20():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high = interval(random.normal(0.8, 0.02, 3).tolist())
        hits += low <= 0.8 <= high
    assert 930 <= hits <= 970


def test_X5_difference_is_paired_by_seed():
    models = [
        workflow._Model("a", "a", "trainable", {}),
        workflow._Model("b", "b", "trainable", {}),
        workflow._Model("c", "c", "trainable", {}),
    ]
    values = {"a": [0.5, 0.7, 0.9], "b": [0.4, 0.6, 0.8], "c": [0.1, 0.2, None]}
    work, results = [], {}
    for name, given in values.items():
        for seed, value in enumerate(given):
            job = workflow._Job(name, seed, 1.0, Path("o/runs") / f"{name}{seed}", {})
            work.append(job)
            results[job] = (
                {"error": "broke"} if value is None else {"metrics": {"accuracy": value}, "intervals": {}, "latency_ms": 2.0 + seed}
            )
    made = workflow._summarise(Path("o"), "accuracy", models, work, results, 3, (1.0,), {})
    a, b, c = made.rows
    assert [a["model"], b["model"], c["model"]] == ["a", "b", "c"]
    assert (a["best"], b["difference"]) == (True, pytest.approx(-0.1))
    assert b["difference_high"] - b["difference_low"] < 1e-12  # seeds differ much, the pairs not at all
    assert c["difference"] == pytest.approx(-0.45)
    assert (c["runs"], c["error"], c["latency_ms"]) == (2, "broke", 2.5)


def test_X5_the_interval_of_a_share_stays_within_0_and_1():
    models = [workflow._Model("a", "a", "trainable", {})]
    work = [workflow._Job("a", seed, 1.0, Path("o/runs") / str(seed), {}) for seed in range(3)]
    for metric, values, expected in (("mean_iou", (0.2, 0.8, 0.9), (0.0, 1.0)), ("rmse", (0.2, 0.8, 0.9), interval((0.2, 0.8, 0.9)))):
        results = {job: {"metrics": {metric: value}} for job, value in zip(work, values, strict=True)}
        row = workflow._summarise(Path("o"), metric, models, work, results, 3, (1.0,), {}).rows[0]
        assert (row["low"], row["high"]) == pytest.approx(expected)


def test_X5_lower_is_better_ranks_the_other_way():
    models = [workflow._Model("a", "a", "trainable", {}), workflow._Model("b", "b", "trainable", {})]
    work = [workflow._Job(name, 0, 1.0, Path("o/runs") / name, {}) for name in "ab"]
    results = {job: {"metrics": {"ece": value}, "intervals": {"ece": [0.1, 0.4]}} for job, value in zip(work, (0.3, 0.2), strict=True)}
    made = workflow._summarise(Path("o"), "ece", models, work, results, 1, (1.0,), {})
    assert made.best == "b"
    assert (made.rows[0]["low"], made.rows[0]["high"]) == (0.1, 0.4)


def test_X5_subsets_are_nested_and_keep_the_shares_of_classes():
    data = load_data("synthetic:shapes?count=200&size=16&task=classify", "train")
    sets = [set(nested_subset(data, share).tolist()) for share in (0.1, 0.25, 0.5, 1.0)]
    assert [len(s) for s in sets] == [14, 35, 70, 140]
    assert all(a < b for a, b in itertools.pairwise(sets))
    assert sets[3] == set(data.indices.tolist())
    labels = [data.index.records[i].label for i in sets[1]]
    assert np.bincount(labels).tolist() == [7, 7, 7, 7, 7]
    assert len(nested_subset(data, 1e-9)) == 1


def test_X5_most_apart_finds_the_image_that_divides_the_models():
    data = load_data("synthetic:shapes?count=5&size=16&task=classify")
    ids = data.map_records(lambda r: r.image_id)
    scores = {"a": dict(zip(ids, [1.0, 1.0, 0.5, 0.0, 1.0], strict=True)), "b": dict(zip(ids, [1.0, 0.0, 0.4, 0.3, 1.0], strict=True))}
    assert most_apart(scores, data) == [1, 3, 2]


def test_X5_budgets_are_read():
    assert [parse_budget(t) for t in ("90s", "10m", "1.5h", 30)] == [90.0, 600.0, 5400.0, 30.0]
    for bad in ("", "0", "-3", "ten", "5d", "nan"):
        with pytest.raises(UsageError, match="is no time"):
            parse_budget(bad)


def test_X5_model_sets_are_parsed():
    assert parse_model_sets(["timm/resnet18:recipe.lr=0.1", "recipe.epochs=2", "timm/resnet18:model.a=x:y"], ["timm/resnet18"]) == {
        "timm/resnet18": {"recipe.lr": 0.1, "model.a": "x:y"},
        "*": {"recipe.epochs": 2},
    }
    with pytest.raises(UsageError, match="does not take part; did you mean 'lenet5'"):
        parse_model_sets(["lenet:recipe.lr=1"], ["lenet5"])
    with pytest.raises(UsageError, match="write it as MODEL"):
        parse_model_sets(["lr=1"], ["lenet5"])


@pytest.mark.parametrize(
    ("models", "options", "match"),
    [
        (["lenet5", "lenett"], {}, "no model 'lenett'"),
        (["lenet5", "unet"], {}, "unet is for segment, not for classify"),
        (["lenet5", "lenet5"], {}, "named twice; a label tells"),
        (["lenet5", "other=lenet5"], {}, "lenet5 and other are the same model with the same options"),
        (["a b=lenet5"], {}, "a label has letters"),
        (["x=lenett"], {}, "no model 'lenett'"),
        ([], {}, "at least one model"),
        (["lenet5"], {"options": {"x": {}}}, "'x', which does not take part"),
        (["lenet5"], {"seeds": 0}, "seeds is a whole number"),
        (["lenet5"], {"epochs": 1, "budget": "1m"}, "not both"),
        (["lenet5"], {"data_sizes": (0.5, 2)}, "data sizes are shares"),
        (["lenet5"], {"metric": "acuracy"}, "did you mean 'accuracy'"),
        (["lenet5"], {"options": {"*": {"recipe.epoch": 3}}}, "no model can take part"),
    ],
)
def test_X5_wrong_use_is_one_line_before_anything_runs(models, options, match, tmp_path):
    with pytest.raises(UsageError, match=match):
        compare(models, DATA, out=tmp_path / "o", say=quiet, **options)
    assert not (tmp_path / "o" / "runs").exists()


def test_calibration_is_not_led_astray_by_a_busy_moment():
    """The short run is slowed by something else for as long as four steps take: the difference of two and six steps is then nothing."""
    asked = []

    def seconds(steps: int) -> float:
        asked.append(steps)
        return 2.0 + 0.2 * steps + (0.8 if steps == 2 else 0.0)

    assert seconds_per_step(seconds) == pytest.approx(0.2, rel=0.3)
    assert asked[:2] == [2, 6]
    assert max(asked) <= 54
    assert seconds_per_step(lambda steps: 0.001 * steps) == pytest.approx(0.001)
    assert 0 < seconds_per_step(lambda steps: 3.0 if steps == 2 else 2.9) < 3 / 1000  # never by nothing: it ends
