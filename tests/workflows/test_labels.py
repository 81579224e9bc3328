"""The search for label errors: folds, resuming, what it writes, and the way back of corrections."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import read_data, write_data
from saccade.data.load import load_data
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError, UsageError
from saccade.workflows import labels as workflow
from saccade.workflows.labels import apply_corrections, find_label_errors

SIGNS = ("bar", "cross", "ring")


def quiet(_):
    pass


def sign(random, label):
    image = random.integers(0, 60, (28, 28)).astype(np.uint8)
    y, x = random.integers(10, 18, 2)
    if label == 0:
        image[y - 1 : y + 2, 4:24] = 220
    elif label == 1:
        image[y - 7 : y + 8, x - 1 : x + 1] = 220
        image[y - 1 : y + 1, x - 7 : x + 8] = 220
    else:
        yy, xx = np.mgrid[:28, :28]
        image[np.abs(np.hypot(yy - y, xx - x) - 6) < 1.2] = 220
    return image


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """90 signs in folders by label, six of them in a wrong one; file names repeat between folders."""
    root = tmp_path_factory.mktemp("signs") / "data"
    random = np.random.default_rng(0)
    planted = {}
    for label, name in enumerate(SIGNS):
        (root / name).mkdir(parents=True)
        for i in range(30):
            truth = (label + 1) % 3 if i < 2 else label
            Image.fromarray(sign(random, truth)).save(root / name / f"{i:03}.png")
            if i < 2:
                planted[f"{name}/{i:03}.png"] = SIGNS[truth]
    return root, planted


@pytest.fixture(scope="module")
def search(signs, tmp_path_factory):
    root, planted = signs
    out = tmp_path_factory.mktemp("search") / "found"
    return root, planted, find_label_errors(root, "hog", folds=3, out=out, write="imagefolder", top=20, say=quiet)


# -------------------------------------------------------------------------------------------------------------- classes


def test_T2_labels_planted_classes_are_ranked_first(search):
    _, planted, found = search
    assert found.images == 90
    assert len(found.issues) >= len(planted) - 1
    assert {i.path: i.suggested for i in found.issues} == {i.path: planted[i.path] for i in found.issues}
    assert sorted(found.quality, key=found.quality.get)[: len(planted)] == sorted(planted, key=found.quality.get)
    assert all(i.kind == "class" for i in found.issues)
    assert found.quality["bar/000.png"] < 0.2 < found.quality["bar/020.png"]


def test_T2_labels_writes_table_json_sheet_page(search):
    _, _, found = search
    with (found.folder / "issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["path"] for r in rows] == [i.path for i in found.issues]
    assert rows[0]["rank"] == "1"
    content = json.loads((found.folder / "issues.json").read_text())
    assert content["model"] == "hog"
    assert content["issues"][0]["image_id"] == found.issues[0].image_id
    with Image.open(found.folder / "sheet.jpg") as sheet:
        assert sheet.width > 400
    page = (found.folder / "report.html").read_text()
    assert page.count("<figure>") == min(20, len(found.issues))
    assert "http" not in page.replace("http-equiv", "")


def test_T2_labels_a_finished_fold_is_not_computed_again(search, tmp_path, monkeypatch):
    root, _, found = search
    again = tmp_path / "again"
    shutil.copytree(found.folder, again, ignore=shutil.ignore_patterns("to_correct"))
    (again / "folds" / "fold-2.npz").unlink()
    calls = []
    fit = workflow._fit_hog
    monkeypatch.setattr(workflow, "_fit_hog", lambda *a: calls.append(1) or fit(*a))
    other = find_label_errors(root, "hog", folds=3, out=again, say=quiet)
    assert len(calls) == 1
    assert other.issues == found.issues


def test_T2_labels_a_folder_of_another_search_is_refused(search, tmp_path):
    root, _, found = search
    with pytest.raises(UsageError, match="another folds, seed"):
        find_label_errors(root, "hog", folds=4, seed=1, out=found.folder, say=quiet)
    with pytest.raises(UsageError, match="may hold your corrections"):
        find_label_errors(root, "hog", folds=3, out=found.folder, write="imagefolder", say=quiet)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no search"):
        find_label_errors(root, "hog", out=tmp_path, say=quiet)


def test_T2_labels_a_broken_image_is_skipped(signs, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(signs[0], root)
    (root / "bar" / "010.png").write_bytes(b"no picture")
    found = find_label_errors(root, "hog", folds=2, out=tmp_path / "out", say=quiet)
    assert found.images == 89
    assert any("010.png" in message for message in found.skipped.values())
    assert "bar/010.png" not in found.quality


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "ssdlite"}, "ssdlite is for detect"),
        ({"model": "lenet"}, "no model"),
        ({"task": "detect"}, "these data hold truth for classify"),
        ({"task": "caption"}, "labels are judged for"),
        ({"model": "hog", "epochs": 3}, "no epochs"),
        ({"write": "voc"}, "holds detect, not classify"),
        ({"folds": 1}, "1 folds"),
        ({"folds": 91}, "91 folds"),
        ({"top": 0}, "top must be"),
        ({"groups": [1, 2]}, "groups are 90 numbers"),
    ],
)
def test_T2_labels_wrong_use_is_told_before_anything_is_written(signs, tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        find_label_errors(signs[0], out=tmp_path / "out", say=quiet, **arguments)
    assert not (tmp_path / "out").exists()


def test_T2_labels_groups_stay_in_one_fold(signs, tmp_path):
    data = load_data(signs[0])
    twins = np.arange(90) // 2
    find_label_errors(data, "hog", folds=3, groups=twins, out=tmp_path / "out", say=quiet)
    for file in sorted((tmp_path / "out" / "folds").glob("*.npz")):
        numbers = set(np.load(file)["numbers"].tolist())
        assert all((n ^ 1) in numbers for n in numbers)


def test_T2_labels_a_class_in_one_fold_is_not_judged(signs, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(signs[0], root)
    (root / "alone").mkdir()
    shutil.copy(root / "bar" / "020.png", root / "alone" / "x.png")
    found = find_label_errors(root, "hog", folds=3, out=tmp_path / "out", say=quiet)
    assert found.images == 90
    assert not any(i.path == "alone/x.png" for i in found.issues)
    assert any("'alone' stands in one fold only" in note for note in found.notes)


def test_T2_labels_a_network_learns_each_fold_and_goes_on(signs, tmp_path):
    arguments = {"folds": 2, "epochs": 1, "out": tmp_path / "out", "workers": 0, "options": {"recipe.batch_size": 16}}
    said = []
    found = find_label_errors(signs[0], "lenet5", say=said.append, **arguments)
    assert found.images == 90
    assert sum("learns from 45 images" in text for text in said) == 2
    assert (tmp_path / "out" / "folds" / "run-1" / "run.json").is_file()
    fold, run = tmp_path / "out" / "folds" / "fold-1.npz", tmp_path / "out" / "folds" / "run-1"
    fold.unlink()  # stopped between training and predicting
    assert find_label_errors(signs[0], "lenet5", say=quiet, **arguments).issues == found.issues
    fold.unlink()  # stopped after the last checkpoint
    (run / "run.json").unlink()
    shutil.rmtree(run / "model")
    assert find_label_errors(signs[0], "lenet5", say=quiet, **arguments).quality == found.quality
    fold.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="remove it, and the fold is computed again"):
        find_label_errors(signs[0], "lenet5", say=quiet, **arguments)


def test_T2_labels_default_models(signs):
    data = load_data(signs[0])
    assert workflow._default_model(data, "classify") == "hog"  # 90 images
    assert workflow._default_model(data.subset(np.tile(np.arange(90), 5)), "classify") == "lenet5"
    assert workflow._default_model(data, "detect") == "ssdlite"
    assert workflow._default_model(data, "segment") == "unet"


# ---------------------------------------------------------------------------------------------------------- corrections


def test_T2_labels_corrected_folders_come_back(search, tmp_path):
    """The user moves files between class folders; file names repeat, so only the bytes tell who is who."""
    root, planted, found = search
    work = tmp_path / "to_correct"
    shutil.copytree(found.folder / "to_correct", work)
    original = {(root / path).read_bytes(): path for path in planted}
    for number, file in enumerate(sorted(work.rglob("*.png"))):
        path = original.get(file.read_bytes())
        if path is not None:
            (work / planted[path]).mkdir(exist_ok=True)
            file.rename(work / planted[path] / f"moved {number}.png")
    done = apply_corrections(root, work, tmp_path / "new", "csv")
    moved = {i.path for i in found.issues}
    assert (done.images, done.read, done.changed) == (90, len(moved), len(moved))
    assert done.problems == []
    new = load_data(tmp_path / "new")
    old = load_data(root)
    truth = {(root / r.path).read_bytes(): planted[r.path] if r.path in moved else old.classes[r.label] for r in old.index.records}
    assert len(new) == 90
    for record in new.index.records:
        assert new.classes[record.label] == truth[(tmp_path / "new" / record.path).read_bytes()]


def test_T2_labels_corrections_of_strangers_are_refused(signs, tmp_path):
    root = tmp_path / "strange" / "bar"
    root.mkdir(parents=True)
    Image.new("L", (9, 9), 7).save(root / "unheard.png")
    with pytest.raises(DataError, match="none of its images is one of the data"):
        apply_corrections(signs[0], root.parent, tmp_path / "new", "csv", corrected_format="imagefolder")
    assert not (tmp_path / "new").exists()


def test_T2_labels_ambiguous_names_are_named(signs, tmp_path):
    """Re-encoded, so that the bytes tell nothing, and 001.png stands in three folders."""
    work = tmp_path / "work"
    (work / "bar").mkdir(parents=True)
    with Image.open(signs[0] / "bar" / "001.png") as image:
        image.save(work / "bar" / "elsewhere.png", compress_level=0)
        image.save(work / "bar" / "001.png", compress_level=0)
    (work / "table.csv").write_text("filepath,label\nbar/elsewhere.png,ring\nbar/001.png,ring\n")
    done = apply_corrections(signs[0], work, tmp_path / "new", "csv", corrected_format="csv")
    assert done.read == 1  # by its path
    assert any("elsewhere.png" in text and "is no image of the data" in text for text in done.problems)


# --------------------------------------------------------------------------------------------------------------- boxes


def boxed(root: Path) -> Dataset:
    """Eight images of two classes, with outlines; the labels are right."""
    root.mkdir()
    random = np.random.default_rng(0)
    records = []
    for i in range(8):
        Image.fromarray(random.integers(0, 255, (60, 80, 3)).astype(np.uint8)).save(root / f"i{i}.png")
        boxes = np.array([[4, 4, 24, 24], [40, 10, 70, 50]], dtype=np.float32)
        outlines = [[np.array([[b[0], b[1]], [b[2], b[1]], [b[2], b[3]]], dtype=np.float32)] for b in boxes]
        records.append(Record(f"i{i}.png", f"i{i}", (60, 80), boxes=boxes, labels=np.array([0, 1]), segments=outlines))
    return Dataset(DataIndex("test", root, ["cell", "plate"], PackedRecords(records), tasks=("detect",)))


@pytest.fixture
def boxes(tmp_path, monkeypatch):
    """The data with four planted errors, and predictions that know the truth."""
    data = boxed(tmp_path / "images")
    truth = {r.image_id: r for r in data.index.records}

    def planted():
        for r in data.index.records:
            if r.image_id == "i1":  # the cell is missing
                r.boxes, r.labels, r.segments = r.boxes[1:], r.labels[1:], r.segments[1:]
            elif r.image_id == "i2":
                r.boxes = r.boxes + np.array([[8, 0, 8, 0], [0, 0, 0, 0]], dtype=np.float32)
            elif r.image_id == "i3":
                r.labels = np.array([1, 1])
            elif r.image_id == "i4":
                r.boxes = np.concatenate([r.boxes, [[2, 40, 20, 58]]]).astype(np.float32)
                r.labels, r.segments = np.array([0, 1, 0]), [*r.segments, None]
            yield r

    def know(model, learn, held, *rest):
        rows = [truth[held.record(i).image_id] for i in range(len(held))]
        return {
            "numbers": held.indices, "counts": np.full(len(rows), 2), "boxes": np.concatenate([r.boxes for r in rows]),
            "labels": np.concatenate([r.labels for r in rows]), "scores": np.full(2 * len(rows), 0.8), **workflow._skipped({}),
        }  # fmt: skip

    monkeypatch.setattr(workflow, "_train_fold", know)
    wrong = Dataset(dataclasses.replace(data.index, records=PackedRecords(planted())))
    return wrong, truth


def test_T2_labels_planted_boxes_are_found(boxes, tmp_path):
    found = find_label_errors(boxes[0], folds=2, out=tmp_path / "out", say=quiet)
    assert found.task == "detect"
    assert {(i.image_id, i.kind, i.object) for i in found.issues} == {
        ("i1", "overlooked", None), ("i2", "badly located", 1), ("i3", "swapped", 1), ("i4", "spurious", 3)
    }  # fmt: skip
    kinds = {i.kind: i for i in found.issues}
    assert kinds["overlooked"].suggested_box == [4, 4, 24, 24]
    assert (kinds["swapped"].given, kinds["swapped"].suggested) == ("plate", "cell")
    assert kinds["badly located"].quality == pytest.approx(12 / 28, abs=1e-6)
    assert found.quality["i5"] == 1.0
    assert (tmp_path / "out" / "sheet.jpg").is_file()


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_T2_labels_corrected_boxes_come_back(boxes, tmp_path, form):
    wrong, truth = boxes
    find_label_errors(wrong, folds=2, out=tmp_path / "out", write=form, say=quiet)
    index = read_data(tmp_path / "out" / "to_correct", form)
    assert len(index) == 4

    def corrected():
        for record in index.records:
            name = Path(record.path).stem
            record.boxes, record.labels, record.iscrowd, record.extra = truth[name].boxes, truth[name].labels, None, None
            if record.segments is not None:
                record.segments = truth[name].segments
            yield record

    fixed = dataclasses.replace(index, records=PackedRecords(corrected()))
    write_data(Dataset(fixed), tmp_path / "fixed", form)
    done = apply_corrections(wrong, tmp_path / "fixed", tmp_path / "new", "coco")
    assert (done.images, done.read, done.changed) == (8, 4, 4)
    new = load_data(tmp_path / "new", task="detect")
    for record in new.index.records:
        expected = truth[Path(record.path).stem]
        np.testing.assert_allclose(record.boxes, expected.boxes, atol=0.01)
        assert [new.classes[k] for k in record.labels] == ["cell", "plate"]
    # an untouched box keeps its outline although VOC has no place for one; the new cell of i1 has none
    by_stem = {Path(r.path).stem: r for r in new.index.records}
    assert by_stem["i1"].segments[1] is not None
    assert (by_stem["i1"].segments[0] is None) == (form == "voc")


def test_T2_labels_a_detector_learns_each_fold(tmp_path):
    data = load_data("synthetic:cells?count=12&size=64")
    tiny = {"model.size": 64, "model.backbone": "test_resnet.r160_in1k", "model.width": 16, "recipe.batch_size": 4}
    found = find_label_errors(data, "ssdlite", folds=2, epochs=1, options=tiny, out=tmp_path / "out", workers=0, say=quiet)
    assert found.images == 12
    assert found.task == "detect"


# --------------------------------------------------------------------------------------------------------------- masks


@pytest.fixture
def masks(tmp_path, monkeypatch):
    """Six masks of grey values 0 and 200, one with an object that the predictions do not see and one that lacks an object."""
    root = tmp_path / "masks"
    for sub in ("images", "masks"):
        (root / sub).mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 30), (50, 90, 20 * i)).save(root / "images" / f"m{i}.png")
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[5:15, 5:15] = 200
        if i == 2:
            mask[18:28, 20:35] = 200
        if i == 4:
            mask[:] = 0
        Image.fromarray(mask).save(root / "masks" / f"m{i}.png")
    (root / "classes.json").write_text(json.dumps({"classes": {"0": "ground", "200": "cell"}}))

    def know(model, learn, held, *rest):
        out = {"numbers": held.indices} | workflow._skipped({})
        for i in range(len(held)):
            given = held.mask(held.record(i), (30, 40))
            probabilities = np.full((2, 30, 40), 0.05)
            probabilities[0] = 0.95
            probabilities[:, 5:15, 5:15] = probabilities[::-1, 5:15, 5:15]
            kept = workflow.summarise_pixels(given, probabilities)
            out |= {f"{n}_{held.indices[i]}": v for n, v in zip(("own", "predicted", "score"), kept, strict=True)}
        return out

    monkeypatch.setattr(workflow, "_train_fold", know)
    return root


def test_T2_labels_planted_mask_regions_are_found_and_corrected(masks, tmp_path):
    found = find_label_errors(masks, folds=2, out=tmp_path / "out", write="masks", say=quiet)
    assert [(Path(i.path).stem, i.given, i.suggested, i.box, i.area) for i in found.issues] == [
        ("m2", "cell", "ground", [20, 18, 35, 28], 150),
        ("m4", "ground", "cell", [5, 5, 15, 15], 100),
    ]
    assert sorted(found.quality, key=found.quality.get)[:2] == sorted([i.image_id for i in found.issues], key=found.quality.get)
    work = tmp_path / "out" / "to_correct"
    good = np.zeros((30, 40), dtype=np.uint8)
    good[5:15, 5:15] = 200
    for file in (work / "masks").iterdir():
        Image.fromarray(good).save(file)
    done = apply_corrections(masks, work, tmp_path / "new")
    assert (done.images, done.read, done.changed) == (6, 2, 2)
    new = load_data(tmp_path / "new")
    assert new.classes == ["ground", "cell"]
    for record in new.index.records:
        np.testing.assert_array_equal(new.mask(record, (30, 40)), good // 200)


def test_T2_labels_a_segmenter_learns_each_fold(tmp_path):
    data = load_data("synthetic:cells?count=8&size=48&task=segment")
    options = {"model.width": 4, "recipe.batch_size": 4}
    found = find_label_errors(data, "unet", folds=2, epochs=1, options=options, out=tmp_path / "out", workers=0, say=quiet)
    assert found.images == 8
    assert all(0 <= q <= 1 for q in found.quality.values())


def test_T2_labels_pixels_are_kept_in_three_bytes():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (4, 5)).transpose(2, 0, 1)
    labels = np.array([[0, 1, 2, -100, 1]] * 4)
    own, predicted, score = workflow.summarise_pixels(labels, probabilities)
    np.testing.assert_array_equal(predicted, probabilities.argmax(0))
    np.testing.assert_allclose(score / 255, probabilities.max(0), atol=0.002)
    np.testing.assert_allclose(own[0, 1] / 255, probabilities[1, 0, 1], atol=0.002)


# ----------------------------------------------------------------------------------------------------------------- verb


def test_T2_labels_verb(signs, tmp_path):
    import typer
    from typer.testing import CliRunner

    from saccade.cli.data_labels import labels

    app = typer.Typer()
    app.command("labels")(labels)

    def call(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    result = call(signs[0], "--model", "hog", "--folds", 3, "--out", tmp_path / "out", "--write", "csv", "--top", 10)
    assert result.exit_code == 0, result.output
    assert "1. " in result.output
    assert "likely errors in" in result.output
    result = call(signs[0], "--apply", tmp_path / "out" / "to_correct", "--out", tmp_path / "new", "--to", "csv")
    assert result.exit_code == 0, result.output
    assert "0 of them changed; 90 images" in result.output
    result = call(signs[0], "--to", "csv")
    assert isinstance(result.exception, UsageError)
