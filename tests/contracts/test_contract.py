"""The contract, over the whole registry, by declared capabilities."""

import importlib
import inspect
import json

import numpy as np
import pytest

import saccade
from saccade import testing
from saccade.models.index import ENTRIES, entries
from saccade.models.registry import builder, default_recipe, find, options
from saccade.types.recipe import Recipe

NAMES = testing.representatives()  # tests/models/test_published.py has the others of the bought families


@pytest.mark.parametrize(("name", "check"), [(n, c) for n in NAMES for c in testing.checks_for(n)], ids=lambda v: getattr(v, "__name__", v))
def test_contract(name, check):
    check(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_index_tells_the_truth(name):
    entry = find(name)
    function = builder(entry)
    assert function.__name__ == entry.builder.partition(":")[2]
    assert function.__doc__
    signature = inspect.signature(function)
    assert next(iter(signature.parameters)) == "num_classes"
    assert {"in_chans", "pretrained"} <= set(signature.parameters)
    assert set(entry.tiny) <= set(options(entry))
    assert isinstance(default_recipe(entry), Recipe)
    assert name in importlib.import_module(entry.module).RECIPES
    model = testing.build(name)
    assert model.task == entry.task
    assert model.build_name == name
    header = importlib.import_module(entry.module).__doc__
    assert str(entry.year) in header, "the file names its paper and year"


def test_every_model_file_is_readable_at_one_sitting():
    for entry in ENTRIES:
        lines = inspect.getsource(importlib.import_module(entry.module)).count("\n")
        assert lines <= 600, f"{entry.file}: {lines} lines"


def test_an_entry_point_adds_a_model_and_cannot_replace_one(monkeypatch):
    import importlib.metadata

    from saccade.models.index import Entry

    class Point:
        value = "pack:ENTRIES"

        def __init__(self, name):
            self.name = name

        def load(self):
            return [Entry(name=self.name, task="classify", paper="-", year=2020, builder="saccade.models.classify.lenet5:lenet5")]

    for name, works in (("theirs", True), ("lenet5", False)):
        entries.cache_clear()
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group, name=name: [Point(name)])
        if works:
            assert any(m["name"] == "theirs" for m in saccade.list_models(task="classify"))
            assert saccade.create_model("theirs", 4).num_classes == 4
        else:
            with pytest.raises(ValueError, match="exists already"):
                entries()
    monkeypatch.undo()
    entries.cache_clear()


SMALL_DATA = {"classify": "synthetic:shapes?count=24&size=48&task=classify", "detect": "synthetic:shapes?count=24&size=64",
              "segment": "synthetic:shapes?count=24&size=48&task=segment", "landmarks": "synthetic:shapes?count=24&size=48&task=landmarks",
              "generate": "synthetic:shapes?count=24&size=32"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_line_from_data_to_a_reloaded_model(name, tmp_path):
    """Load, learn, evaluate, predict, bundle, reload: every system through the same five calls."""
    entry = find(name)
    settings = {f"model.{k}": v for k, v in entry.tiny.items()} | {"recipe.epochs": 1, "recipe.batch_size": 4}
    data = SMALL_DATA[entry.task]
    run = saccade.train(name, data, folder=tmp_path / "run", options=settings, workers=0, say=lambda _: None)
    model = saccade.load(run.folder)
    assert model.classes == saccade.load_data(data, task=entry.task).classes or entry.task == "generate"
    metrics = saccade.evaluate(run.folder, data, split="test", workers=0)
    facts = json.loads((run.folder / "run.json").read_text())
    assert np.isfinite(facts["metrics"][facts["main"]])
    assert metrics.keys() == run.metrics.keys()
    test = saccade.load_data(data, "test", task=entry.task)
    first, second = (list(saccade.predict(m, [test[0].image])) for m in (model, run.folder))
    assert len(first) == 1
    assert first[0].to_dict() == second[0].to_dict()
    assert (run.folder / "report.html").stat().st_size > 5000
