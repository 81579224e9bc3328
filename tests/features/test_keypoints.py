"""The one dataclass of key points: kinds, options, odd images, files."""

import builtins
import importlib
import zipfile

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from saccade.features.hog import hog
from saccade.features.keypoints import DESCRIBED, KINDS, Keypoints, detect, no_keypoints, to_opencv
from saccade.features.pixels import as_pixels
from saccade.types.errors import DataError, MissingExtra, UsageError

WIDTHS = {"sift": 128, "surf": 64, "orb": 32, "brief": 32}


def picture(height=120, width=150, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_F3_every_kind_gives_the_same_fields(kind):
    found = detect(picture(), kind)
    count = len(found)
    assert count > 3
    assert found.kind == kind
    assert found.image_size == (120, 150)
    assert found.points.shape == (count, 2)
    assert found.sizes.shape == found.angles.shape == found.responses.shape == (count,)
    assert {a.dtype for a in (found.points, found.sizes, found.angles, found.responses)} == {np.dtype(np.float32)}
    assert found.descriptors.shape == (count, WIDTHS.get(kind, 0))
    assert found.descriptors.dtype == (np.uint8 if kind in ("orb", "brief") else np.float32)
    assert found.binary == (kind in ("orb", "brief"))
    assert (found.points >= 0).all()
    assert (found.points <= [150, 120]).all()
    assert (found.sizes > 0).all()
    assert (np.diff(found.responses) <= 0).all()  # strongest first
    turned = kind in ("sift", "surf", "orb")
    assert np.isfinite(found.angles).all() if turned else np.isnan(found.angles).all()
    assert not turned or ((found.angles >= 0) & (found.angles < 360)).all()
    assert set(DESCRIBED) == set(WIDTHS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [np.zeros((1, 1), np.uint8), np.full((64, 80, 3), 130, np.uint8), np.zeros((3, 200), np.uint8)])
def test_F3_one_pixel_and_flat_images_have_no_points(kind, image):
    found = detect(image, kind)
    assert len(found) == 0
    assert found.points.shape == (0, 2)
    assert found.descriptors.shape == (0, WIDTHS.get(kind, 0))
    assert found.binary == (kind in ("orb", "brief"))
    assert found.image_size == image.shape[:2]
    assert found.draw(image).shape == (*image.shape[:2], 3)


@pytest.mark.parametrize("kind", ["surf", "harris"])
def test_F3_arrays_tensors_and_pillow_images_are_the_same(kind):
    image = picture()
    expected = detect(image, kind)
    for other in (torch.from_numpy(image).permute(2, 0, 1), Image.fromarray(image)):
        np.testing.assert_array_equal(detect(other, kind).points, expected.points)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(detect(torch.from_numpy(grey)[None], kind).points, expected.points)


def test_F3_pillow_images_are_seen_as_they_are_shown():
    """A palette's numbers are no grey levels."""
    shown = Image.fromarray(picture()).quantize(16)
    expected = as_pixels(np.asarray(shown.convert("RGB")))
    for image in (shown, shown.convert("RGBA"), shown.convert("RGB").convert("YCbCr").convert("RGB")):
        assert np.abs(as_pixels(image).astype(int) - expected).max() <= 3
    np.testing.assert_array_equal(hog(shown), hog(expected))
    assert set(np.unique(as_pixels(Image.fromarray(picture()[..., 0] > 99)))) == {0, 255}
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert as_pixels(deep).tolist() == [[0, 1, 255]]


def test_F3_16_bits_and_floats_are_rounded_to_the_nearest_of_8():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = (2 * levels.astype(int) + 257) // 514  # 65535 = 255 * 257
    np.testing.assert_array_equal(as_pixels(levels), expected)
    np.testing.assert_array_equal(as_pixels(levels.astype(">u2")), expected)
    np.testing.assert_array_equal(as_pixels(levels / 65535), expected)
    for dtype in (np.float16, np.float32, np.float64):
        image = np.random.default_rng(0).random((40, 50)).astype(dtype)
        np.testing.assert_array_equal(as_pixels(image), np.rint(image.astype(np.float64) * 255))


FORMS = {
    "uint16": lambda image: image.astype(np.uint16) * 257,
    "float64": lambda image: image / 255,
    "alpha": lambda image: np.dstack([image, np.arange(image[..., 0].size, dtype=np.uint8).reshape(image.shape[:2])]),
    "float alpha": lambda image: np.dstack([image / np.float32(255), np.ones(image.shape[:2], np.float32)]),
    "tensor": lambda image: (torch.from_numpy(image).permute(2, 0, 1) / 255).requires_grad_(),
    "half tensor": lambda image: (torch.from_numpy(image).permute(2, 0, 1).double() / 255).half(),
    "bfloat16 tensor": lambda image: (torch.from_numpy(image).permute(2, 0, 1).double() / 255).bfloat16(),
    "tensor alpha": lambda image: torch.from_numpy(np.dstack([image, image[..., 0]])).permute(2, 0, 1),
    "pillow alpha": lambda image: Image.fromarray(np.dstack([image, image[..., 0]])),
}


@pytest.mark.parametrize("form", FORMS)
def test_F3_other_forms_are_the_8_bit_image(form):
    image = picture() // 32 * 32  # levels that bfloat16 tells apart
    given = FORMS[form](image)
    np.testing.assert_array_equal(as_pixels(given), image)
    np.testing.assert_array_equal(detect(given, "surf").descriptors, detect(image, "surf").descriptors)
    found = detect(image, "fast")
    np.testing.assert_array_equal(found.draw(given), found.draw(image))
    assert (image == picture() // 32 * 32).all()
    if form != "pillow alpha":
        two = given[[0, -1]] if isinstance(given, torch.Tensor) else given[..., [0, -1]]  # grey and alpha
        np.testing.assert_array_equal(as_pixels(two), image[..., 0])


def test_F3_options_come_in_the_text_or_as_keywords():
    text, words = detect(picture(), "surf?upright=true&limit=7"), detect(picture(), "surf", upright=True, limit=7)
    assert len(text) == len(words) == 7
    np.testing.assert_array_equal(text.descriptors, words.descriptors)
    np.testing.assert_array_equal(text.points, detect(picture(), "surf").points[:7])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("surff", {}, "did you mean 'surf'"),
        ("surf", {"octave": 2}, "did you mean 'octaves'"),
        ("surf?treshold=1", {}, "did you mean 'threshold'"),
        ("sift?layers=many", {}, "expected a whole number"),
        ("sift", {"layers": 0}, "lies in 1..16"),
        ("orb", {"rank": "best"}, "harris, fast"),
        ("fast", {"limit": 0}, "at least 1"),
        ("fast", {"threshold": 300}, "0..255"),
        ("harris", {"quality": -1}, "0..1"),
        ("orb?scale=9", {}, "1.01..4"),
        ("log", {"smallest": 5, "largest": 2}, "not below"),
        ("brief", {"detector": "brief"}, "another detector"),
        ("brief", {"detector": "bried"}, "did you mean 'brief'"),
        (None, {}, "named by a text .* not by NoneType"),
        (["sift"], {}, "not by list"),
    ],
)
def test_F3_wrong_use_says_what_is_known(kind, options, message):
    with pytest.raises(UsageError, match=message):
        detect(picture(40, 40), kind, **options)


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("sift", "sift", {"layers": 2.5}),
        ("sift", "sift", {"sigma": "1.6"}),
        ("sift", "sift", {"limit": 2.5}),
        ("surf", "surf", {"octaves": 1.5}),
        ("surf", "surf", {"limit": 0}),
        ("orb", "orb", {"rank": "best"}),
        ("orb", "orb", {"limit": 10**5000}),
        ("fast", "fast", {"circle": "9-16"}),
        ("fast", "fast", {"threshold": None}),
        ("corners", "log", {"polarity": "grey"}),
        ("corners", "harris", {"distance": True}),
        ("brief", "brief", {"detector": None}),
    ],
)
def test_F3_functions_called_directly_check_their_options(module, name, options):
    function = getattr(importlib.import_module(f"saccade.features.{module}"), name)
    with pytest.raises(UsageError, match="named by a text" if name == "brief" else f"option {next(iter(options))}="):
        function(picture(40, 40), **options)


@pytest.mark.parametrize("function", [lambda image: detect(image, "surf"), hog, detect(picture(), "fast").draw])
@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((8, 8), 1.5), r"floats in 1\.5\.\.1\.5"),
        (np.array([[0.5, -0.1]], np.float32), "floats in -0"),
        (np.array([[0.5, np.nan]]), "floats in nan"),
        (torch.tensor([[0.5, np.inf]]), r"\.\.inf"),
        *((np.zeros((8, 8), dtype), f"not {dtype} of shape") for dtype in ("int64", "int8", "bool", "complex64", "object")),
        (torch.zeros(8, 8, dtype=torch.int32), "not int32"),
        (torch.zeros(8, 8).to_sparse(), "not this Tensor"),
        (torch.zeros(8, 8, device="meta"), "not this Tensor"),
        (np.zeros((8, 8, 5), np.uint8), r"not uint8 of shape \(8, 8, 5\)$"),
        (np.zeros((8, 8, 0), np.uint8), "8, 8, 0"),
        (np.zeros((3, 8, 9), np.uint8), r"channels last, image\.transpose\(1, 2, 0\)"),
        (torch.zeros(8, 9, 3), r"channels first, image\.permute\(2, 0, 1\)"),
        (torch.zeros(2, 3, 8, 8), "one by one"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one by one"),
        ([np.zeros((8, 3), np.uint8)] * 8, "not a list: give the images one by one"),
        ([[1, 2], [3]], "not a list"),
        (np.zeros((0, 5), np.uint8), r"\(0, 5\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (None, "not NoneType"),
        ("a.png", "not str"),
    ],
)
def test_F3_what_is_no_image_is_said(function, image, said):
    with pytest.raises(UsageError, match=said) as raised:
        function(image)
    assert "NumPy array HW or HWC, or a tensor HW or CHW, with 1 to 4 channels, of uint8, uint16 or floats in 0..1" in str(raised.value)


@pytest.mark.parametrize("kind", ["sift", "orb", "harris"])
@pytest.mark.parametrize("empty", [False, True])
def test_F3_npz_keeps_everything_and_needs_no_pickle(kind, empty, tmp_path):
    found = detect(np.zeros((30, 40), np.uint8) if empty else picture(), kind)
    found.save(tmp_path / "points.npz")
    with np.load(tmp_path / "points.npz", allow_pickle=False) as file:
        assert set(file) == {"points", "sizes", "angles", "responses", "descriptors", "kind", "image_size"}
    again = Keypoints.load(tmp_path / "points.npz")
    for name in ("points", "sizes", "angles", "responses", "descriptors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype
    assert (again.kind, again.image_size) == (found.kind, found.image_size)


def test_F3_broken_files_are_named(tmp_path):
    good = tmp_path / "good.npz"
    detect(picture(), "orb").save(good)
    cases = {"cut.npz": good.read_bytes()[:300], "text.npz": b"nothing", "empty.npz": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "other.npz", points=np.zeros((3, 2)))
    fields = dict(np.load(good))
    np.savez(tmp_path / "shapes.npz", **(fields | {"points": np.zeros((3, 3))}))
    np.savez(tmp_path / "kinds.npz", **(fields | {"descriptors": fields["descriptors"].astype(np.int64)}))
    np.savez(tmp_path / "pickle.npz", **(fields | {"kind": np.array([{}], dtype=object)}))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "array.npz")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("points.npy", b"")
    for path in sorted(tmp_path.glob("*.npz")):
        if path != good:
            with pytest.raises(DataError, match=path.name):
                Keypoints.load(path)
    with pytest.raises(DataError, match="does not exist"):
        Keypoints.load(tmp_path / "none.npz")
    with pytest.raises(UsageError, match=r"\.npz or \.parquet"):
        detect(picture(), "orb").save(tmp_path / "points.csv")


def test_F3_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def no_arrow(name, *rest, **more):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_arrow)
    with pytest.raises(MissingExtra, match=r"pip install 'saccade\[parquet\]'"):
        detect(picture(), "orb").save(tmp_path / "points.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["surf", "orb", "fast"])
def test_F3_parquet_keeps_everything(kind, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = detect(picture(), kind)
    found.save(tmp_path / "points.parquet")
    again = Keypoints.load(tmp_path / "points.parquet")
    for name in ("points", "sizes", "angles", "responses", "descriptors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert (again.kind, again.image_size) == (found.kind, found.image_size)
    table = parquet.read_table(tmp_path / "points.parquet")
    assert table.column_names[:5] == ["x", "y", "size", "angle", "response"]


def test_F3_shapes_are_checked():
    none = no_keypoints("surf", (5, 5), 64)
    with pytest.raises(UsageError, match=r"\(N, 2\)"):
        Keypoints(np.zeros((2, 3), np.float32), none.sizes, none.angles, none.responses, none.descriptors, "surf", (5, 5))
    with pytest.raises(UsageError, match="0 sizes"):
        Keypoints(none.points, np.zeros(1, np.float32), none.angles, none.responses, none.descriptors, "surf", (5, 5))
    with pytest.raises(UsageError, match="float32 or uint8"):
        Keypoints(none.points, none.sizes, none.angles, none.responses, none.descriptors.astype(float), "surf", (5, 5))


def test_F3_drawn_circles_lie_around_the_points():
    image = np.full((60, 80, 3), 128, np.uint8)
    one = Keypoints(
        np.array([[40.5, 30.5]], np.float32), np.array([20], np.float32), np.array([90], np.float32), np.ones(1, np.float32),
        np.zeros((1, 0), np.float32), "log", (60, 80),
    )  # fmt: skip
    changed = np.argwhere((one.draw(image) != image).any(-1))
    rows, columns = changed.min(0), changed.max(0)
    np.testing.assert_allclose([rows, columns], [[20, 30], [40, 50]], atol=3)  # radius 10 about pixel (30, 40)
    line = (one.draw(image)[32:39, 40] != 128).any(-1)
    assert line.all()  # 90 degrees point down
    assert not (one.draw(image)[25:28, 40] != 128).any()
    assert (image == 128).all()


def test_F3_opencvs_pixel_centres_are_whole_numbers():
    found = detect(picture(), "surf", limit=3)
    there = to_opencv(found)
    np.testing.assert_allclose([p.pt for p in there], found.points - 0.5)
    assert [p.class_id for p in there] == [0, 1, 2]
    assert to_opencv(detect(picture(), "fast", limit=1))[0].angle == -1
