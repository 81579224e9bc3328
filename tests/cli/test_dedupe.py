"""saccade data dedupe: groups, lists and splits; nothing is ever deleted."""

import json
import os

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import saccade
from saccade.cli.data_dedupe import dedupe as verb
from saccade.data.load import load_data
from saccade.engine.bundle import save_bundle
from saccade.types.errors import DataError, UsageError
from saccade.workflows.dedupe import dedupe, image_features


def picture(seed, size=(80, 60)):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (7, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def flowers(tmp_path):
    """train and test of two classes: an exact leak, a mirrored one, a copy within train, and a broken file."""
    root = tmp_path / "flowers"
    for name, seed in {"train/a/1": 1, "train/a/2": 2, "train/b/3": 3, "train/b/4": 4, "test/a/5": 5, "test/b/6": 6}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(root / f"{name}.png")
    picture(1).save(root / "test/a/same.png")
    picture(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "test/b/flipped.jpg", quality=90)
    picture(4, (40, 30)).save(root / "train/b/small.png")
    (root / "train/a/broken.jpg").write_bytes(b"\xff\xd8 no")
    return root


def run(*arguments):
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, standalone_mode=False, env={"COLUMNS": "200"})


def listing(root):
    return {str(p): p.stat().st_mtime_ns for p in root.rglob("*")}


def test_T2_dedupe_prints_groups_and_touches_nothing(flowers):
    before = listing(flowers.parent)
    result = run(flowers)
    assert result.exit_code == 0
    assert listing(flowers.parent) == before
    lines = result.stdout.splitlines()
    assert "group 1: 2 images" in lines
    assert sum(line.startswith("leak: ") for line in lines) == 2
    assert "near: mirrored, likeness" in result.stdout
    assert lines[-1] == "10 images, 3 groups of copies, 3 images can go, 2 leaks between splits"
    assert "broken.jpg" in result.stderr


def test_T2_dedupe_json_list_and_splits(flowers, tmp_path):
    result = run(flowers, "--json", "--out", tmp_path / "drop.txt", "--new-splits", tmp_path / "s.json")
    facts = json.loads(result.stdout)
    drop = (tmp_path / "drop.txt").read_text().splitlines()
    assert [os.path.relpath(p, flowers) for p in drop] == ["test/b/flipped.jpg", "train/a/1.png", "train/b/small.png"] or drop == facts[
        "drop"
    ]
    assert len(facts["groups"]) == 3
    assert all(set(g["drop"]) < set(g["images"]) for g in facts["groups"])
    assert {p["kind"] for g in facts["groups"] for p in g["pairs"]} == {"same bytes", "near: mirrored", "near"}
    assert len(facts["leaks"]) == 2
    assert len(facts["skipped"]) == 1
    assert facts["new_splits"]["images"] == {"train": 4, "test": 4}
    again = load_data(flowers, split_file=tmp_path / "s.json")
    paths = {s: sorted(again.index.records[int(i)].path for i in m) for s, m in again.index.splits.items()}
    assert paths["test"] == ["test/a/5.png", "test/a/same.png", "test/b/6.png", "test/b/flipped.jpg"]
    assert paths["train"] == ["train/a/2.png", "train/a/broken.jpg", "train/b/4.png", "train/b/small.png"]
    assert dedupe(flowers, split_file=tmp_path / "s.json").leaks == []


def test_T2_dedupe_options(flowers):
    assert json.loads(run(flowers, "--exact", "--json").stdout)["groups"][0]["pairs"][0]["kind"] == "same bytes"
    assert len(json.loads(run(flowers, "--no-flips", "--json").stdout)["groups"]) == 2
    assert len(json.loads(run(flowers, "--likeness", "1", "--json").stdout)["groups"]) == 1


def test_T2_dedupe_across_sets(flowers, tmp_path):
    other = tmp_path / "other"
    for name in ("x", "y"):
        (other / name).mkdir(parents=True)
    picture(6).save(other / "x" / "again.png")
    picture(7).save(other / "y" / "new.png")
    facts = dedupe([flowers, other]).to_dict()
    assert any({os.path.basename(n) for n in g["images"]} == {"6.png", "again.png"} for g in facts["groups"])
    assert facts["leaks"] == []
    with pytest.raises(UsageError, match="splits belong to one data set"):
        dedupe([flowers, other]).write_splits(tmp_path / "s.json")
    with pytest.raises(UsageError, match="of one data set"):
        dedupe([flowers, other], format="imagefolder")


def test_T2_dedupe_wrong_use(flowers, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        dedupe(tmp_path / "nothing")
    for options in ({"radius": 60}, {"likeness": 2}, {"cosine": -3}):
        with pytest.raises(UsageError, match="radius is 0 to 32 bits"):
            dedupe(flowers, **options)
    with pytest.raises(UsageError, match="lenet5 gives no features"):
        dedupe(flowers, model=saccade.create_model("lenet5", num_classes=2))


def test_T2_dedupe_a_line_break_in_a_name_cannot_be_listed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        picture(1).save(tmp_path / "d" / name / f"{name}\n.png")
    result = dedupe(tmp_path / "d")
    with pytest.raises(DataError, match="line break in its name"):
        result.write_list(tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_T2_dedupe_with_the_features_of_a_model(flowers, tmp_path):
    """Untrained features of one picture and its copy agree; broken images have none."""
    torch.manual_seed(0)
    model = saccade.create_model("timm/resnet18", num_classes=2, size=32)
    save_bundle(model, tmp_path / "run")
    data = load_data(flowers)
    features = image_features(model, data, workers=0)
    assert features.shape == (10, 512)
    paths = [data.record(i).path for i in range(len(data))]
    assert np.isnan(features[paths.index("train/a/broken.jpg")]).all()
    assert np.isfinite(features).all(1).sum() == 9
    np.testing.assert_allclose(features[paths.index("train/a/1.png")], features[paths.index("test/a/same.png")], rtol=1e-4)
    facts = json.loads(run(flowers, "--model", tmp_path / "run", "--cosine", "-1", "--device", "cpu", "--json", "--workers", "0").stdout)
    assert len(facts["groups"]) == 1
    assert len(facts["groups"][0]["images"]) == 9
