"""saccade features: extract, match, panorama, list."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from saccade.cli.features import app, with_sets
from saccade.features.keypoints import Keypoints, detect
from saccade.types.errors import DataError, UsageError

TINY = "test_resnet.r160_in1k?size=64"


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two overlapping views and one that is something else."""
    out = tmp_path_factory.mktemp("views")
    random = np.random.default_rng(0)
    y, x = np.mgrid[:140, :260]
    picture = np.full((140, 260), 110.0)
    for _ in range(250):
        u, v, s = random.uniform(0, 260), random.uniform(0, 140), random.uniform(1.5, 5)
        picture += random.uniform(-80, 80) * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * s**2))
    picture = np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    Image.fromarray(picture[:, :160]).save(out / "a.png")
    Image.fromarray(picture[:, 100:]).save(out / "b.png")
    (out / "deep").mkdir()
    noise = random.integers(0, 256, (30, 30, 3), dtype=np.uint8)
    Image.fromarray(cv2.resize(noise, (120, 90), interpolation=cv2.INTER_CUBIC)).save(out / "deep" / "c.png")
    return out


def test_F3_list_names_all_features_and_options():
    text = run("list").stdout
    assert "  surf           threshold=0.0005 octaves=4" in text
    assert "  timm/NAME" in text
    assert json.loads(run("list", "--json").stdout)["keypoints"][:3] == ["sift", "surf", "orb"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_F3_extract_draws_points(folder, tmp_path, suffix):
    out = run("extract", "surf", folder / "a.png", tmp_path / f"points{suffix}", "--set", "limit=9")
    assert out.exit_code == 0, out.output
    assert out.stdout.startswith("9 points with 64 values each -> ")
    with Image.open(tmp_path / f"points{suffix}") as picture:
        assert picture.size == (160, 140)
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    original = np.asarray(Image.open(folder / "a.png")).astype(int)
    assert (np.abs(drawn - original).max(-1) > 60).sum() > 100


def test_F3_extract_writes_what_detect_finds(folder, tmp_path):
    out = run("extract", "sift", folder / "a.png", tmp_path / "points.npz", "--set", "limit=20", "--set", "root=true", "--json")
    found, expected = Keypoints.load(tmp_path / "points.npz"), detect(Image.open(folder / "a.png"), "sift", limit=20, root=True)
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    facts = json.loads(out.stdout)
    assert (facts["images"], facts["points"], facts["descriptor"]) == (1, 20, 128)


def test_F3_extract_of_a_folder_is_a_folder(folder, tmp_path):
    out = run("extract", "orb", folder, tmp_path / "all")
    assert out.stdout.startswith("3 images: ")
    assert sorted(str(p.relative_to(tmp_path / "all")) for p in (tmp_path / "all").rglob("*.npz")) == [
        "a.png.npz",
        "b.png.npz",
        "deep/c.png.npz",
    ]
    assert len(Keypoints.load(tmp_path / "all" / "b.png.npz")) > 0


def test_F3_extract_of_a_glob_keeps_what_lies_below_its_common_folder(folder, tmp_path):
    for pattern, names in (("*.png", ["a.png.npz", "b.png.npz"]), ("**/*.png", ["a.png.npz", "b.png.npz", "deep/c.png.npz"])):
        target = tmp_path / str(len(names))
        out = run("extract", "orb", folder / pattern, target)
        assert out.exit_code == 0, out.exception
        assert sorted(str(p.relative_to(target)) for p in target.rglob("*.npz")) == names


def test_F7_pictures_wider_than_their_format_are_told(tmp_path):
    Image.fromarray(np.zeros((1, 9000), np.uint8)).save(tmp_path / "wide.png")
    error = run("match", tmp_path / "wide.png", tmp_path / "wide.png", tmp_path / "m.webp").exception
    assert isinstance(error, DataError)
    assert "sides up to 16383 pixels, the image is 18000x1" in str(error)
    assert [p.name for p in tmp_path.iterdir()] == ["wide.png"]


def test_F3_a_table_of_a_folder(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("extract", "orb", folder, tmp_path / "all.parquet").exit_code == 0
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table.column_names == ["image", "x", "y", "size", "angle", "response", "descriptor"]
    assert len(set(table["image"].to_pylist())) == 3


def test_F8_vectors_and_maps_of_a_folder(folder, tmp_path):
    for kind, name, shape in (
        ("pixels?size=4", "features", (3, 16)),
        ("sift_bow?words=5", "features", (3, 5)),
        (f"timm/{TINY}", "features", (3, 96)),
        (f"maps/{TINY}", "maps", (3, 96, 2, 2)),
        (f"pyramid/{TINY}&mode=fpn&channels=8", "stride16", (3, 8, 4, 4)),
    ):
        out = run("extract", kind, folder, tmp_path / "out.npz")
        assert out.exit_code == 0, out.exception
        with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
            assert [str(p).rpartition("/")[2] for p in file["images"]] == ["a.png", "b.png", "c.png"]
            assert file[name].shape == shape
            assert str(file["kind"]) == kind
        assert f"{name} {'x'.join(map(str, shape))}" in out.stdout


def test_F7_match_draws_counts_and_writes(folder, tmp_path):
    out = run("match", folder / "a.png", folder / "b.png", tmp_path / "m.png", "--kind", "surf")
    assert "surf points" in out.stdout
    assert "fit the homography" in out.stdout
    assert Image.open(tmp_path / "m.png").size == (320, 140)
    facts = json.loads(run("match", folder / "a.png", folder / "b.png", tmp_path / "m.npz", "--json").stdout)
    assert facts["verified"]
    matrix = np.array(facts["homography"])
    np.testing.assert_allclose(matrix / matrix[2, 2], [[1, 0, -100], [0, 1, 0], [0, 0, 1]], atol=0.5)
    with np.load(tmp_path / "m.npz") as file:
        assert file["inliers"].sum() == facts["inliers"] > 15


def test_F7_panorama_joins_the_views(folder, tmp_path):
    out = run("panorama", folder / "a.png", folder / "b.png", tmp_path / "wide.png")
    assert out.exit_code == 0, out.exception
    assert "of 2 images (1-2 by" in out.stdout
    width, height = Image.open(tmp_path / "wide.png").size
    assert abs(width - 260) <= 2
    assert abs(height - 140) <= 2
    facts = json.loads(run("panorama", folder / "a.png", folder / "b.png", tmp_path / "w.png", "--reference", 2, "--json").stdout)
    assert facts["reference"] == 2
    np.testing.assert_allclose(np.array(facts["homographies"][1])[:2, :2], np.eye(2))


def test_F7_views_without_a_common_part_say_so(folder, tmp_path):
    error = run("panorama", folder / "a.png", folder / "deep" / "c.png", tmp_path / "wide.png").exception
    assert isinstance(error, DataError)
    assert "c.png" in str(error)
    assert "no part in common" in str(error)
    assert not (tmp_path / "wide.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "surff", "a.png", "o.png"), "did you mean 'surf'"),
        (("extract", "surf", "a.png", "o.csv"), "o.csv"),
        (("extract", "surf", ".", "o.png"), "folder are written as .parquet or into a folder"),
        (("extract", "hog", "a.png", "o.png"), ".npz or .parquet"),
        (("extract", "maps/resnet18", "a.png", "o.parquet"), "written as .npz"),
        (("extract", "maps", "a.png", "o.npz"), "maps/NAME"),
        (("extract", "pyramid/resnet18?mod=fpn", "a.png", "o.npz"), "did you mean 'mode'"),
        (("extract", "surf", "a.png", "a.png"), "one of the images"),
        (("extract", "surf", "a.png", "o.png", "--set", "limit"), "NAME=VALUE"),
        (("extract", "surf", "a.png", "o.png", "--set", "limt=3"), "did you mean 'limit'"),
        (("extract", "surf", "a.png", "o.png", "--pretrained"), "no weights are published"),
        (("match", "a.png", "b.png", "o.txt"), "o.txt"),
        (("match", "a.png", "b.png", "o.png", "--kind", "fast"), "no descriptors"),
        (("match", "a.png", "b.png", "o.png", "--ratio", "0"), "ratio=0"),
        (("panorama", "a.png", "o.png"), "two views or more, not 1"),
        (("panorama", "a.png", "b.png", "o.npz"), "a panorama is written as"),
        (("panorama", "a.png", "b.png", "o.png", "--reference", "3"), "--reference 3: the images are 1 to 2"),
    ],
)
def test_F3_wrong_use_is_one_line(folder, tmp_path, monkeypatch, arguments, message):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    error = run(*arguments).exception
    assert isinstance(error, UsageError), repr(error)
    assert message in str(error)
    assert "\n" not in str(error)
    assert sorted(tmp_path.iterdir()) == before


def test_F3_broken_images_are_skipped_and_named(folder, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    out = run("extract", "pixels", tmp_path / "in", tmp_path / "o.npz")
    assert out.exit_code == 0
    assert "skipped" in out.stderr
    assert "bad.png" in out.stderr
    with np.load(tmp_path / "o.npz") as file:
        assert file["features"].shape == (1, 1024)
    assert isinstance(run("extract", "pixels", tmp_path / "in", tmp_path / "o.npz", "--strict").exception, DataError)
    (tmp_path / "in" / "a.png").unlink()
    for kind, target in (("pixels", "p.npz"), ("sift", "points")):
        assert "read" in str(run("extract", kind, tmp_path / "in", tmp_path / target).exception)
    assert isinstance(run("extract", "sift", tmp_path / "none.png", tmp_path / "o.npz").exception, DataError)


def test_F3_set_adds_options_to_a_kind():
    assert with_sets("surf", ["upright=true", "limit=3"]) == "surf?upright=true&limit=3"
    assert with_sets("surf?limit=3", ["step=2"]) == "surf?limit=3&step=2"
    assert with_sets("surf", None) == "surf"


def test_F3_one_broken_image_is_one_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    found = run("extract", "sift", tmp_path / "a.png", tmp_path / "points.npz")
    assert isinstance(found.exception, DataError)
    assert "skipped" not in found.output
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["sift", "surf", "orb", "fast", "harris", "log"])
@pytest.mark.parametrize("limit", [0, -3])
def test_F3_a_limit_below_one_is_refused(folder, tmp_path, kind, limit):
    found = run("extract", kind, folder / "a.png", tmp_path / "points.npz", "--set", f"limit={limit}")
    assert isinstance(found.exception, UsageError)
    assert f"limit={limit}" in str(found.exception)
