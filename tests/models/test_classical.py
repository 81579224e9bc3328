"""The classical classifiers against scikit-learn's own predictions, and through the same calls as the networks."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.class_weight import compute_sample_weight

import saccade
from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.models.classify.classical import a_fifth, fit_scale
from saccade.models.registry import create_model
from saccade.types.errors import DataError, UsageError

NAMES = ["knn", "svm", "random_forest", "boosting"]
SMALL = {"knn": {"k": 3}, "svm": {}, "random_forest": {"trees": 10}, "boosting": {"rounds": 10}}


def vectors(count, classes, dims=6, seed=0):
    """Overlapping clouds: features (N, D) float32 and labels, with whole numbers so that values and distances tie."""
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(classes), rng.integers(0, classes, count - classes)]
    x = rng.normal(0, 1.5, (classes, dims))[y] + rng.normal(0, 1, (count, dims))
    return np.round(2 * x).astype(np.float32), y


def machine(name, x, y, weight=None, classes=None, **options):
    """A model whose machine learned from vectors, past the images."""
    present = np.unique(y)
    model = create_model(name, classes or len(present), features="pixels?size=2", **options)
    model.present = torch.arange(len(present))
    model.learn(x, y, np.ones(len(x)) if weight is None else weight, (x, y), seed=0)
    return model


def probabilities(model, x):
    return model.log_probabilities(torch.from_numpy(x)).exp().numpy()


# -- against scikit-learn -----------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_F9_knn_is_scikit_learns(classes, weights, metric):
    rng = np.random.default_rng(3)
    x, y = vectors(60, classes)
    x = (x + rng.normal(0, 0.1, x.shape)).astype(np.float32)  # scikit-learn leaves open which of equal distances is nearer
    asked = np.concatenate([vectors(40, classes, seed=1)[0] + 0.05, x[:5]]).astype(np.float32)  # the last are copies: distance 0
    ours = probabilities(machine("knn", x, y, k=7, vote=weights, metric=metric), asked)
    oracle = KNeighborsClassifier(7, weights=weights, metric=metric, algorithm="brute").fit(x, y).predict_proba(asked)
    rows = slice(None) if metric != "cosine" or weights == "uniform" else slice(0, 40)  # its distance of a copy is 1e-16, not 0
    np.testing.assert_allclose(ours[rows], oracle[rows], atol=1e-6)
    np.testing.assert_array_equal(ours.argmax(1), oracle.argmax(1))


def test_F9_one_nearest_neighbour_knows_its_training_images_and_the_earlier_wins_a_tie():
    x, y = vectors(50, 4)
    _, first = np.unique(x, axis=0, return_index=True)
    x, y = x[first], y[first]
    np.testing.assert_array_equal(probabilities(machine("knn", x, y, k=1), x), np.eye(4)[y])
    twins = np.array([[1, 0], [-1, 0], [5, 5]], np.float32)
    model = machine("knn", twins, np.array([0, 1, 1]), k=1)
    assert probabilities(model, np.zeros((1, 2), np.float32)).tolist() == [[1, 0]]
    assert probabilities(machine("knn", twins, np.array([1, 0, 0]), k=1), np.zeros((1, 2), np.float32)).tolist() == [[0, 1]]


def test_F9_knn_weighs_votes_by_class():
    x = np.array([[1], [2], [3], [-1]], np.float32)
    y = np.array([0, 0, 0, 1])
    model = machine("knn", x, y, compute_sample_weight("balanced", y), k=4, vote="uniform")
    np.testing.assert_allclose(probabilities(model, np.zeros((1, 1), np.float32)), [[0.5, 0.5]])


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_F9_linear_svm_is_scikit_learns(classes, weighted):
    x, y = vectors(80, classes)
    weight = compute_sample_weight("balanced", y) if weighted else np.ones(len(y))
    asked = torch.from_numpy(vectors(50, classes, seed=1)[0])
    oracle = LinearSVC(C=0.1, random_state=0, max_iter=2000).fit(x, y, weight).decision_function(asked.numpy())
    ours = machine("svm", x, y, weight, kernel="linear", c=0.1).decisions(asked).numpy()
    if classes == 2:
        oracle = np.stack([np.zeros(50), oracle], 1)
    np.testing.assert_allclose(ours, oracle, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("gamma", [None, 0.05])
def test_F9_kernel_svm_is_scikit_learns(classes, gamma):
    x, y = vectors(80, classes)
    weight = compute_sample_weight("balanced", y)
    asked = torch.from_numpy(vectors(50, classes, seed=1)[0])
    oracle = SVC(C=2, gamma=gamma or "scale").fit(x, y, weight)
    model = machine("svm", x, y, weight, c=2, gamma=gamma)
    expected = oracle.decision_function(asked.numpy())
    if classes == 2:
        expected = np.stack([np.zeros(50), expected], 1)
    np.testing.assert_allclose(model.decisions(asked).numpy(), expected, atol=1e-6)
    best = SVC(C=2, gamma=gamma or "scale", break_ties=classes > 2).fit(x, y, weight).predict(asked.numpy())
    np.testing.assert_array_equal(probabilities(model, asked.numpy()).argmax(1), best)
    assert len(model.vectors) == oracle.n_support_.sum()


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("options", [{}, {"depth": 3, "min_leaf": 4, "max_features": "all"}])
def test_F9_random_forest_is_scikit_learns(classes, options):
    x, y = vectors(120, classes)
    weight = compute_sample_weight("balanced", y)
    asked = vectors(300, classes, seed=1)[0]  # whole numbers meet thresholds exactly; more rows than walk at once
    choice = {"max_depth": options.get("depth"), "min_samples_leaf": options.get("min_leaf", 1)}
    oracle = RandomForestClassifier(15, max_features=None if options else "sqrt", random_state=0, **choice).fit(x, y, weight)
    model = machine("random_forest", x, y, weight, trees=15, **options)
    np.testing.assert_allclose(probabilities(model, asked), oracle.predict_proba(asked), atol=1e-6)
    leaves = model.forest.leaves(torch.from_numpy(asked)) - model.forest.roots.long()
    np.testing.assert_array_equal(leaves, oracle.apply(asked))


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("depth", [1, 3])
def test_F9_boosting_is_scikit_learns(classes, depth):
    x, y = vectors(120, classes)
    weight = compute_sample_weight("balanced", y)
    asked = vectors(50, classes, seed=1)[0]
    weak = DecisionTreeClassifier(max_depth=depth, max_features="sqrt")
    oracle = AdaBoostClassifier(weak, n_estimators=25, random_state=0).fit(x, y, sample_weight=weight)
    model = machine("boosting", x, y, weight, rounds=25, depth=depth)
    ours, expected = model.decisions(torch.from_numpy(asked)).numpy(), oracle.decision_function(asked)
    if classes == 2:
        ours = ours[:, 1] - ours[:, 0]
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_array_equal(probabilities(model, asked).argmax(1), oracle.predict(asked))
    model.scale.fill_(1 / (classes - 1))  # scikit-learn's own, fixed choice
    np.testing.assert_allclose(probabilities(model, asked), oracle.predict_proba(asked), atol=1e-6)


def test_F9_adaboost_of_stumps_follows_freund_and_schapires_table():
    """The rounds by hand for two classes: error e, weight log((1 - e) / e), the wrong ones times exp of it."""
    x = np.array([[0], [1], [2], [3], [4], [5]], np.float32)
    y = np.array([0, 0, 1, 0, 1, 1])
    model = machine("boosting", x, y, rounds=2, depth=1, max_features="all")
    weight, alphas, votes = np.full(6, 1 / 6), [], []
    for _ in range(2):
        stumps = [np.where(x[:, 0] > t, s, -s) for t in np.arange(-0.5, 5) for s in (1, -1)]
        errors = [weight[stump != 2 * y - 1].sum() for stump in stumps]
        best = stumps[int(np.argmin(errors))]
        alphas.append(np.log((1 - min(errors)) / min(errors)))
        votes.append(best)
        weight = weight * np.exp(alphas[-1] * (best != 2 * y - 1))
        weight /= weight.sum()
    np.testing.assert_allclose(alphas[0], np.log(5))  # one of six is wrong
    expected = np.tensordot(alphas, votes, 1) / sum(alphas)
    ours = model.decisions(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.abs(ours[:, 1]), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(ours[:, 1], -ours[:, 0], atol=1e-12)


# -- how sure they are --------------------------------------------------------------------------------


def test_F9_scale_is_the_most_likely_one():
    rng = np.random.default_rng(0)
    decisions = rng.normal(0, 1, (4000, 4))
    truth = torch.distributions.Categorical(logits=torch.from_numpy(2.5 * decisions))
    torch.manual_seed(0)
    y = truth.sample().numpy()
    found = fit_scale(decisions, y)
    assert abs(found - 2.5) < 0.15

    def loss(a):
        return torch.nn.functional.cross_entropy(torch.from_numpy(a * decisions), torch.from_numpy(y)).item()

    np.testing.assert_allclose(found, minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x, rtol=1e-2)
    two = np.stack([np.zeros(4000), decisions[:, 0]], 1)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-1.7 * decisions[:, 0]))).astype(int)
    oracle = LogisticRegression(C=1e9, fit_intercept=False).fit(decisions[:, :1], labels).coef_[0, 0]
    np.testing.assert_allclose(fit_scale(two, labels), oracle, rtol=1e-2)  # Platt's sigmoid
    right = np.eye(3)[[0, 1, 2]]
    assert 1 < fit_scale(right, np.array([0, 1, 2])) < 100  # finite though nothing is wrong
    assert fit_scale(np.zeros((5, 3)), np.zeros(5, int)) == 1
    votes = np.stack([np.roll(np.arange(40.0), k) for k in range(60)])  # a machine of 780 pairs: the best leads by one vote only
    scores = torch.from_numpy(votes * fit_scale(votes, votes.argmax(1))).softmax(1)
    assert 0.95 < float(scores.max(1).values.mean()) < 0.999  # 61 / 62 of Platt's


def test_F9_scale_without_validation_comes_from_images_held_out():
    x, y = vectors(300, 3)
    apart = a_fifth(y, 0)
    assert [int(apart[y == k].sum()) for k in range(3)] == [int((y == k).sum()) // 5 for k in range(3)]
    model = create_model("svm", 3, features="pixels?size=2", kernel="linear", c=0.1)
    model.present = torch.arange(3)
    model.learn(x, y, np.ones(len(x)), None, seed=0)
    first = LinearSVC(C=0.1, random_state=0, max_iter=2000).fit(x[~apart], y[~apart])
    np.testing.assert_allclose(float(model.scale), fit_scale(first.decision_function(x[apart]), y[apart]), rtol=1e-6)
    few = create_model("svm", 3, features="pixels?size=2")
    few.present = torch.arange(3)
    few.learn(x[:3], y[:3], np.ones(3), None, seed=0)
    assert float(few.scale) == 1


# -- with images --------------------------------------------------------------------------------------


def folder(root, images, labels, classes):
    """A data set of pictures on disk; None is a file that is no image."""
    records = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        if image is None:
            (Path(root) / f"{i}.png").write_bytes(b"no image")
        else:
            cv2.imwrite(str(Path(root) / f"{i}.png"), image)
        records.append(Record(path=f"{i}.png", image_id=str(i), label=label))
    return Dataset(DataIndex("test", Path(root), classes, PackedRecords(records), tasks=("classify",)))


def stripes(label, seed, size=(48, 40), channels=3):
    """Class 0 has upright stripes, class 1 level ones, class 2 a chessboard; noise, phase and contrast differ."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] + rng.integers(0, 8)
    pattern = [x // 4 % 2, y // 4 % 2, (x // 4 + y // 4) % 2][label]
    image = 60 + rng.integers(60, 120) * pattern[..., None] + rng.normal(0, 8, (*size, channels))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    labels = [k % 3 for k in range(45)]
    sizes = [(48, 40), (40, 64), (57, 57)]
    images = [stripes(label, k, sizes[k % 2], 3 if k % 4 else 1) for k, label in enumerate(labels)]
    return folder(tmp_path_factory.mktemp("stripes"), images, labels, ["up", "level", "chess"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "features",
    ["hog?size=32", "lbp?grid=1", "pixels?size=16", "sift_bow?words=10&dense=true&size=48", "timm/test_resnet.r160_in1k?size=64"],
)
def test_F9_every_machine_learns_from_every_feature(name, features, textures):
    model = create_model(name, 3, features=features, **SMALL[name])
    logged = {}
    model.fit(textures.subset(range(30)), log=lambda step, values: logged.update({step: values}))
    assert logged["features"]["images"] == 30
    assert logged["machine"]["classes"] == 3
    scores = np.stack([p.scores for p in model.predict([textures[i].image for i in range(30, 45)])])
    truth = np.array([k % 3 for k in range(30, 45)])
    assert (scores.argmax(1) == truth).mean() > 0.6  # chance is a third
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


def test_F9_colour_tells_what_grey_cannot(tmp_path):
    rng = np.random.default_rng(0)
    images = []
    for k in range(24):  # red or blue, of one brightness
        image = rng.integers(0, 30, (20, 20, 3))
        image[..., 2 if k % 2 else 0] += 140 if k % 2 else 180
        images.append(image.astype(np.uint8))
    data = folder(tmp_path, images, [k % 2 for k in range(24)], ["blue", "red"])
    model = create_model("random_forest", 2, features="color", trees=10)
    model.fit(data.subset(range(12)))
    assert [p.label for p in model.predict([data[i].image for i in range(12, 24)])] == [k % 2 for k in range(12, 24)]


@pytest.mark.parametrize("name", NAMES)
def test_F9_classes_without_images_one_class_and_broken_files(name, tmp_path):
    images = [stripes(k % 2, k) for k in range(12)] + [None]
    data = folder(tmp_path, images, [2 * (k % 2) for k in range(12)] + [2], ["a", "none", "c"])
    model = create_model(name, 3, features="hog?size=32", **SMALL[name])
    logged = {}
    model.fit(data, log=lambda step, values: logged.update({step: values}))
    assert logged["features"]["skipped"] == 1
    scores = np.stack([p.scores for p in model.predict([stripes(k % 2, 100 + k) for k in range(6)])])
    assert scores.argmax(1).tolist() == [0, 2] * 3
    assert scores[:, 1].max() < 1e-6
    alone = create_model(name, 3, features="hog?size=32", **SMALL[name])
    alone.fit(data.subset(range(0, 12, 2)))
    np.testing.assert_allclose(alone.predict(stripes(1, 5))[0].scores, [1, 0, 0], atol=1e-6)
    with pytest.raises(DataError, match="no image that can be read"):
        create_model(name, 3, **SMALL[name]).fit(data.subset([12]))


@pytest.mark.parametrize("name", NAMES)
def test_F9_images_that_are_all_alike_give_the_shares_of_the_classes(name, tmp_path):
    data = folder(tmp_path, [np.full((9, 9), 50, np.uint8)] * 12, [0, 1, 1] * 4, ["a", "b"])
    model = create_model(name, 2, features="pixels?size=4", **({"k": 12} if name == "knn" else SMALL[name]))
    if name == "boosting":
        data = data.subset([0, 1, 3, 4])  # one half each: no tree is better than chance
        with pytest.raises(UsageError, match="no better than chance"):
            model.fit(data)
        return
    model.fit(data)
    scores = model.predict(np.full((9, 9), 50, np.uint8))[0].scores
    assert scores[1] > scores[0] > 0
    if name == "knn":
        np.testing.assert_allclose(scores, [1 / 3, 2 / 3], atol=1e-5)


def test_F9_small_images_keep_their_size_for_lbp_and_large_ones_shrink():
    preprocess = create_model("svm", 2, features="lbp?size=64").preprocess
    assert preprocess.geometry((30, 50)).resized == (30, 50)
    assert preprocess.geometry((128, 256)).resized == (64, 128)
    assert create_model("svm", 2, features="sift_bow?size=64").preprocess.geometry((32, 48)).resized == (64, 96)


def test_F9_class_weights_are_scikit_learns_balanced(textures):
    from saccade.types.recipe import Recipe

    uneven = textures.subset([*range(0, 30, 3), 1, 4, 2])
    model = create_model("svm", 3, features="pixels?size=8", kernel="linear", standardize=False, c=0.1)
    model.count_classes(uneven)
    model.configure(Recipe(class_weights=True))
    model.fit(uneven)
    x, y = model.extract(uneven)
    oracle = LinearSVC(C=0.1, random_state=0, max_iter=2000).fit(x, y, compute_sample_weight("balanced", y))
    np.testing.assert_allclose(model.coefficients, oracle.coef_, atol=1e-5)
    model.configure(Recipe())
    model.fit(uneven)
    assert np.abs(model.coefficients.numpy() - oracle.coef_).max() > 1e-3
    with pytest.raises(UsageError, match="count_classes"):
        create_model("svm", 3).configure(Recipe(class_weights=True))


def test_F9_features_are_standardised_by_the_training_images(textures):
    data = textures.subset(range(20))
    model = create_model("knn", 3, features="pixels?size=8", k=1)
    model.fit(data)
    assert model.standardize
    assert not create_model("knn", 3, features="color").standardize
    assert create_model("knn", 3, features="color", standardize=True).standardize
    np.testing.assert_allclose(model.memory.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(model.memory.std(0, correction=0), 1, atol=1e-4)
    assert [p.label for p in model.predict([data[i].image for i in range(20)])] == [k % 3 for k in range(20)]


@pytest.mark.parametrize("name", NAMES)
def test_F9_same_seed_same_machine(name, textures):
    data, states = textures.subset(range(15)), []
    for _ in range(2):
        model = create_model(name, 3, features="sift_bow?words=6&size=64", **SMALL[name])
        model.fit(data, seed=4)
        states.append(model.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_F9_bad_input_is_one_clear_line(textures):
    for name, options, said in (
        ("svm", {"features": "hogg"}, "did you mean 'hog'"),
        ("svm", {"features": "timm/resnet17"}, "did you mean"),
        ("svm", {"c": 0}, "model.c is above 0"),
        ("svm", {"gamma": -1}, "model.gamma is above 0"),
        ("svm", {"kernel": "poly"}, "expected one of linear, rbf"),
        ("knn", {"k": 0}, "model.k is at least 1"),
        ("random_forest", {"trees": 0}, "model.trees=0"),
        ("boosting", {"rate": 0}, "model.rate is above 0"),
        ("svm", {"in_chans": 2}, "in_chans"),
    ):
        with pytest.raises(UsageError, match=said):
            create_model(name, 3, **options)
    with pytest.raises(UsageError, match="no weights are published for the features 'hog'"):
        create_model("svm", 3, pretrained=True)
    with pytest.raises(UsageError, match=r"model\.k=11 neighbours are more than the 10 training images"):
        create_model("knn", 3, k=11).fit(textures.subset(range(10)))
    for name in NAMES:
        with pytest.raises(UsageError, match=f"{name} has learned nothing yet"):
            create_model(name, 3).predict(textures[0].image)


@pytest.mark.parametrize("name", NAMES)
def test_F9_through_the_same_commands_as_the_networks(name, tmp_path):
    from typer.testing import CliRunner

    from saccade.cli.main import app

    data = "synthetic:shapes?count=30&size=32&task=classify"
    sets = [f"model.{k}={v}" for k, v in SMALL[name].items()] + ["model.features=hog?size=32", "recipe.class_weights=true"]
    train = ["train", name, data, "--out", str(tmp_path), *(word for item in sets for word in ("--set", item))]
    result = CliRunner().invoke(app, train)
    assert result.exit_code == 0, result.output
    run = tmp_path / f"{name}-001"
    description = json.loads((run / "model" / "model.json").read_text())
    assert description["arguments"]["features"] == "hog?size=32"
    assert {p.suffix for p in (run / "model").iterdir()} == {".json", ".safetensors"}
    result = CliRunner().invoke(app, ["eval", str(run), data, "--split", "test", "--json"])
    assert result.exit_code == 0, result.output
    assert (run / "report.html").stat().st_size > 5000
    model = saccade.load(run)
    image = saccade.load_data(data, "test", task="classify")[0].image
    np.testing.assert_allclose(model.predict(image)[0].scores.sum(), 1, atol=1e-5)
