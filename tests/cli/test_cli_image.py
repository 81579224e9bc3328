"""saccade image: operations on files and folders."""

import json
import os
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.cli.image import _in_order
from saccade.cli.main import main
from saccade.data.images import read_array, read_image
from saccade.types.errors import DataError, UsageError
from saccade.workflows import image as workflow


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command; gives exit status, lines of stdout, lines of stderr."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["saccade", "image", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return stopped.value.code, out.splitlines(), err.splitlines()

    return call


def pixels(shape=(20, 30, 3), dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for k in range(3):
        Image.fromarray(pixels(seed=k)).save(folder / f"{k}.png")
    Image.fromarray(pixels(seed=3)).save(folder / "deep" / "3.jpg", quality=95)
    return folder


# ---------------------------------------------------------------------------------------------------------- one image


def test_I_one_image_and_a_parameter(run, photos, tmp_path):
    out = tmp_path / "new" / "smooth.png"
    code, lines, errors = run("median", photos / "0.png", out, "--set", "size=5")
    assert (code, lines, errors) == (0, [f"1 image -> {out}"], [])
    assert np.array_equal(read_array(out), saccade.image.median(pixels(), size=5))


def test_I_a_chain_gives_each_operation_its_own_settings(run, photos, tmp_path):
    out = tmp_path / "a.png"
    words = (
        "rotate",
        photos / "0.png",
        out,
        "--set",
        "angle=90",
        "--then",
        "rgb_to_gray",
        "--then=slice_levels",
        "--set=low=0.2",
        "--set",
        "high=0.4",
    )
    assert run(*words)[0] == 0
    i = saccade.image
    assert np.array_equal(read_array(out), i.slice_levels(i.rgb_to_gray(i.rotate(pixels(), 90)), 0.2, 0.4))


def test_I_settings_belong_to_the_operation_before_them():
    words = ["median", "--set", "a=1", "in", "--then", "x", "--set=b=2", "--set", "c=3", "--then=y", "out"]
    assert _in_order(words) == [("", ["a=1"]), ("x", ["b=2", "c=3"]), ("y", [])]


def test_I_several_images_and_answers(run, photos, tmp_path):
    grey = tmp_path / "grey"
    grey.mkdir()
    for k in range(3):
        Image.fromarray(pixels((5, 6), seed=k)).save(grey / f"{k}.png")
    out = tmp_path / "merged.png"
    assert run("merge", *sorted(grey.iterdir()), out)[0] == 0
    assert np.array_equal(read_array(out), np.stack([pixels((5, 6), seed=k) for k in range(3)], -1))
    assert run("split", out, tmp_path / "part.png")[0] == 0
    assert np.array_equal(read_array(tmp_path / "part-2.png"), pixels((5, 6), seed=2))
    code, lines, _ = run("bits_per_pixel", out, grey / "0.png")
    assert code == 0
    assert lines == [f"{out}: 24", f"{grey / '0.png'}: 8"]
    assert json.loads("".join(run("bits_per_pixel", out, "--json")[1])) == [{"image": str(out), "bits_per_pixel": 24}]
    assert run("laplacian_pyramid", out, tmp_path / "band.png")[0] == 0
    assert read_array(tmp_path / "band-0.png").dtype == np.uint8
    assert read_array(tmp_path / "band-2.png").shape == (2, 2, 3)


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("workers", [0, 2])
def test_I_a_folder_keeps_its_shape_whatever_the_number_of_processes(run, photos, tmp_path, workers):
    out = tmp_path / f"out{workers}"
    code, lines, _ = run("invert", photos, out, "--workers", workers)
    assert (code, lines) == (0, [f"4 images -> {out}"])
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == ["0.png", "1.png", "2.png", os.path.join("deep", "3.jpg")]
    for k in range(3):
        assert np.array_equal(read_array(out / f"{k}.png"), 255 - pixels(seed=k))


def test_I_a_broken_file_is_named_and_the_rest_goes_on(run, photos, tmp_path):
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    (photos / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    code, lines, errors = run("invert", photos, out, "--form", "tif")
    assert code == 0
    assert lines == [f"3 images -> {out}, 2 skipped"]
    assert len(errors) == 2
    assert all(e.startswith("saccade: skipped: ") for e in errors)
    assert any("1.png: cannot be decoded" in e for e in errors)
    assert any("bad.png: is no image" in e for e in errors)
    assert np.array_equal(read_array(out / "0.tif"), 255 - pixels())
    found = json.loads("".join(run("invert", photos, tmp_path / "again", "--json")[1]))
    assert len(found["written"]) == 3
    assert len(found["skipped"]) == 2
    assert found["failed"] == []
    code, lines, errors = run("invert", photos, tmp_path / "strict", "--strict")
    assert (code, lines) == (1, [])
    assert "1.png: cannot be decoded" in errors[0]
    code, _, errors = run("invert", photos / "bad.png", tmp_path / "x.png")
    assert code == 1
    assert errors == [f"saccade: error: {photos / 'bad.png'}: is no image of a known format"]
    assert not (tmp_path / "x.png").exists()


def test_I_every_file_of_a_folder_has_noise_of_its_own(run, tmp_path):
    photos, even = tmp_path / "photos", Image.new("L", (40, 40), 128)
    photos.mkdir()
    for k in range(3):
        even.save(photos / f"{k}.png")
    assert run("gaussian_noise", photos, tmp_path / "out", "--workers", 2)[0] == 0
    noise = [read_array(tmp_path / "out" / f"{k}.png").astype(float).ravel() - 128 for k in range(3)]
    for k in range(3):
        assert np.array_equal(noise[k].reshape(40, 40) + 128, saccade.image.gaussian_noise(np.asarray(even), seed=k))
        assert abs(np.corrcoef(noise[k], noise[k - 1])[0, 1]) < 0.1
    assert run("gaussian_noise", photos / "0.png", tmp_path / "o.png", "--then", "gaussian_noise")[0] == 0
    both = read_array(tmp_path / "o.png").astype(float) - 128
    assert both.std() == pytest.approx(noise[0].std() * 2**0.5, rel=0.1)  # of one stream they would add up to twice as much


def test_I_a_result_that_cannot_be_written_is_a_failure(run, photos, tmp_path):
    (tmp_path / "out" / "1.png").mkdir(parents=True)
    code, lines, errors = run("invert", photos, tmp_path / "out")
    assert code == 1
    assert lines == [f"3 images -> {tmp_path / 'out'}, 1 failed"]
    assert errors[0].startswith(f"saccade: failed: {tmp_path / 'out' / '1.png'}")
    (tmp_path / "file").write_text("")
    code, lines, errors = run("invert", photos, tmp_path / "file")
    assert (code, lines) == (2, [])
    assert errors == [f"saccade: error: {tmp_path / 'file'} is a file, not a folder, which the results of several images need"]


def test_I_several_results_of_one_image_are_named(run, photos, tmp_path):
    lines = run("split", photos / "0.png", tmp_path / "s.png")[1]
    assert lines == [f"3 images -> {tmp_path / 's-0.png'} ... s-2.png"]
    assert run("estimate_sigma", photos / "0.png", "--then", "median")[2] == [
        "saccade: error: estimate_sigma gives no image, so nothing can follow it"
    ]


def test_I_answers_go_on_after_a_broken_file(run, photos):
    (photos / "1.png").write_bytes(b"no image")
    code, lines, errors = run("bits_per_pixel", photos)
    assert code == 0
    assert [line.rpartition(" ")[2] for line in lines] == ["24"] * 3
    assert run("bits_per_pixel", photos, "--strict")[0] == 1
    assert errors == [f"saccade: skipped: {photos / '1.png'}: is no image of a known format"]
    assert run("bits_per_pixel", photos / "1.png")[2] == [f"saccade: error: {photos / '1.png'}: is no image of a known format"]


def test_I_answers_go_on_after_an_image_that_does_not_fit(run, photos):
    Image.fromarray(pixels((5, 5, 3))).save(photos / "small.png")
    code, lines, errors = run("n4", photos, "--set", "row=10", "--set", "column=3")
    assert code == 0
    assert len(lines) == 4
    assert errors == [f"saccade: skipped: {photos / 'small.png'}: no pixel 10,3 in an image of 5x5"]
    code, lines, errors = run("n4", photos, "--set", "row=99", "--set", "column=3")  # fits none: the argument is wrong
    assert (code, lines) == (2, [])
    assert errors == [f"saccade: error: {photos / '0.png'}: no pixel 99,3 in an image of 20x30"]
    assert run("n4", photos / "0.png", "--set", "row=99", "--set", "column=3")[2] == errors


def test_I_opencvs_lack_of_memory_is_that_of_one_file(run, photos, tmp_path, monkeypatch):
    def full(*_):
        error = cv2.error("Failed to allocate 25767706624 bytes")
        error.code = -4
        raise error

    monkeypatch.setattr(cv2, "bitwise_not", full)
    with pytest.raises(MemoryError, match="invert needs more memory"):
        saccade.image.invert(np.zeros((2, 2), np.uint8))
    code, _, errors = run("invert", photos / "0.png", photos / "1.png", tmp_path / "out")
    assert code == 1
    assert errors == [f"saccade: skipped: {photos / f'{k}.png'}: needs more memory than there is" for k in (0, 1)]


def test_I_an_image_that_does_not_fit_the_operation_is_named_too(run, photos, tmp_path):
    Image.fromarray(pixels((4, 4))).save(photos / "small.png")
    code, lines, errors = run(
        "crop", photos, tmp_path / "out", *["--set", "top=2", "--set", "left=0", "--set", "height=9", "--set", "width=9"]
    )
    assert code == 0
    assert lines == [f"4 images -> {tmp_path / 'out'}, 1 skipped"]
    assert "small.png: a crop of 9x9" in errors[0]


# --------------------------------------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("orientation", range(1, 9))
def test_I_exif_turns_are_honoured(run, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels((6, 9, 3))).save(path, exif=exif)
    assert run("invert", path, tmp_path / "out.png")[0] == 0
    upright = read_image(path).permute(1, 2, 0).numpy()
    assert np.array_equal(read_array(tmp_path / "out.png"), 255 - upright)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [None, 2, 3, 4])
def test_I_sixteen_bits_and_alpha_are_kept(run, tmp_path, suffix, channels):
    if channels == 2 and suffix == ".tif":
        pytest.skip("OpenCV writes no TIFF of grey and alpha to start from")
    deep = pixels((7, 8) if channels is None else (7, 8, channels), np.uint16)
    path, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    workflow.write_array(path, deep)
    order = {None: ..., 2: (..., [0, 0, 0, 1]), 3: (..., [2, 1, 0]), 4: (..., [2, 1, 0, 3])}[channels]
    theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(theirs, deep[order])
    stored = deep[..., [0, 0, 0, 1]] if channels == 2 else deep
    assert np.array_equal(read_array(path), stored)
    assert run("mirror", path, out)[0] == 0
    assert np.array_equal(read_array(out), stored[:, ::-1])
    assert run("invert", path, out)[0] == 0
    inverted = 65535 - stored
    if channels in (2, 4):
        inverted[..., -1] = stored[..., -1]
    assert np.array_equal(read_array(out), inverted)
    code, _, errors = run("invert", path, tmp_path / "x.jpg", "--no-alpha")
    assert code == 1
    assert "holds 8 bits" in errors[0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_I_every_kind_of_file_is_read_with_what_it_holds(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    source = Image.fromarray(pixels((5, 6), np.uint16)) if mode == "I;16" else Image.fromarray(pixels((5, 6, 3))).convert(mode)
    source.save(path)
    array = read_array(path)
    assert array.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    assert array.shape == (5, 6) + {"1": (), "L": (), "I;16": (), "LA": (2,), "RGBA": (4,)}.get(mode, (3,))
    shown = {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(mode, mode)
    assert np.array_equal(array, np.asarray(source.convert(shown) if shown != "I;16" else source))


def test_I_palettes_with_a_clear_colour_have_alpha(tmp_path):
    source = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    source.putpalette([255, 0, 0, 0, 0, 255])
    source.save(tmp_path / "a.png", transparency=1)
    assert read_array(tmp_path / "a.png")[0].tolist() == [[255, 0, 0, 255], [0, 0, 255, 0]]


def test_I_alpha_and_jpeg(run, tmp_path):
    Image.fromarray(pixels((5, 6, 4))).save(tmp_path / "a.png")
    code, _, errors = run("invert", tmp_path / "a.png", tmp_path / "a.jpg")
    assert code == 1
    assert "holds no alpha channel (write .png or .tif, or give --no-alpha)" in errors[0]
    assert run("invert", tmp_path / "a.png", tmp_path / "a.jpg", "--no-alpha")[0] == 0
    assert read_array(tmp_path / "a.jpg").shape == (5, 6, 3)
    assert run("invert", tmp_path / "a.png", tmp_path / "a.webp")[0] == 0
    assert read_array(tmp_path / "a.webp").shape == (5, 6, 4)


def test_I_a_truncated_sixteen_bit_file_is_an_error(tmp_path):
    workflow.write_array(tmp_path / "a.png", pixels((40, 40, 3), np.uint16))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be decoded"):
        read_array(tmp_path / "a.png")


def test_I_floats_are_written_with_zero_in_the_middle(tmp_path):
    workflow.write_array(tmp_path / "a.png", np.array([[-0.5, 0, 0.25]], np.float32))
    assert read_array(tmp_path / "a.png").tolist() == [[0, 128, 191]]
    workflow.write_array(tmp_path / "a.png", np.array([[0, 0.2, 1]]))
    assert read_array(tmp_path / "a.png").tolist() == [[0, 51, 255]]


# ------------------------------------------------------------------------------------------------- list, sheet, histogram


def test_I_list_shows_every_operation_or_one(run):
    code, lines, _ = run("list")
    assert code == 0
    assert len(lines) == len(saccade.image.operations())
    assert any(line.split()[:2] == ["I13", "rotate"] for line in lines)
    code, lines, _ = run("list", "rotate")
    assert code == 0
    assert "  --set angle: float = 30.0" in lines
    assert "  --set expand: bool = False" in lines
    found = json.loads("\n".join(run("list", "--json")[1]))
    (row,) = (r for r in found if r["name"] == "crop")
    assert row["parameters"][0] == {"name": "top", "type": "int"}
    assert row["alpha"] == "apply"


def test_I_a_sheet_holds_the_input_and_a_labelled_picture_a_value(run, photos, tmp_path):
    out = tmp_path / "sheet.png"
    code, lines, _ = run("sheet", "gaussian", "--over", "sigma=0.5:5:10", photos / "0.png", out)
    assert (code, lines) == (0, [f"10 values of sigma -> {out}"])
    with Image.open(out) as sheet:
        assert sheet.width == 4 * (270 + 6) + 6  # 11 pictures in rows of 4
    found = json.loads("\n".join(run("sheet", "median", "--over", "size=3:9:4", photos / "0.png", out, "--json")[1]))
    assert found["values"] == [3, 5, 7, 9]
    found = json.loads("\n".join(run("sheet", "resize", "--over", "size=9,9;20,30", photos / "0.png", out, "--json")[1]))
    assert found["values"] == [[9, 9], [20, 30]]
    assert run("sheet", "correlate", "--over", "kernel=mean:3;mean:5;sharpen:2", photos / "0.png", out)[0] == 0
    assert run("sheet", "rotate", "--over", "border=wrap,reflect", "--set", "angle=20", photos / "0.png", out)[0] == 0
    assert run("sheet", "slice_levels", "--over", "low=0:0.5:3", "--set", "high=0.5", photos / "0.png", out)[0] == 0


def test_I_the_sheets_pictures_are_the_operations_results():
    image = pixels((60, 60))
    sheet = np.asarray(workflow.contact_sheet(workflow.make_step("invert"), "", [], image, cell=60))
    assert sheet.shape[1] == 60 + 30 + 12
    step = workflow.make_step("gamma")
    sheet = np.asarray(workflow.contact_sheet(step, "gamma", [2.0], image, cell=90, columns=2))
    small = workflow._shown(saccade.image.gamma(image, 2.0), 90)
    assert small.size == (90, 90)
    assert sheet.shape[1] == 2 * (120 + 6) + 6
    assert len(np.unique(sheet)) > 100


def test_I_histograms_are_plotted_and_counted(run, photos, tmp_path):
    for source in (pixels((20, 30, 3)), pixels((20, 30)), pixels((20, 30), np.uint16)):
        path = tmp_path / "in.png"
        workflow.write_array(path, source)
        out = tmp_path / "h.png"
        assert run("histogram", path, out)[0] == 0
        with Image.open(out) as plot:
            assert plot.size == (640, 360)
        counts = json.loads("\n".join(run("histogram", path, "--json", "--set", "bins=16")[1]))["histogram"]
        assert np.array_equal(counts, saccade.image.histogram(source, 16))


def test_I_the_bars_of_a_histogram_are_as_high_as_the_counts():
    image = np.repeat(np.array([[0, 255]], np.uint8), [30, 10], axis=1)  # three quarters black
    plot = np.asarray(workflow.histogram_picture(image, bins=2)).astype(int)
    inside = plot[30:315, 72:618]
    filled = (inside < 250).all(-1).sum(0)
    assert filled[:270].min() == pytest.approx(285, abs=2)
    assert filled[-250:-5].max() == pytest.approx(95, abs=2)


# ------------------------------------------------------------------------------------------------------------ wrong use


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("medain", "IN", "out.png"), "did you mean 'median'"),
        (("median", "IN", "out.png", "--set", "siz=3"), "did you mean 'size'"),
        (("median", "IN", "out.png", "--set", "size=big"), "size is int, not 'big'"),
        (("median", "IN", "out.png", "--set", "size"), "NAME=VALUE"),
        (("median", "IN", "out.png", "--set", "size=4"), "odd"),
        (("crop", "IN", "out.png"), "crop needs --set top=... (int)"),
        (("median", "IN"), "IN... OUT"),
        (("median",), "IN... OUT"),
        (("median", "IN", "out.gif"), "an image is written as .png"),
        (("median", "IN", "DIR", "out.png"), "need a folder"),
        (("median", "IN", "IN"), "never overwritten"),
        (("median", "DIR", "DIR"), "never overwritten"),
        (("median", "IN", "IN", "out"), "would both become"),
        (("median", "DIR", "out", "--form", "gif"), "--form .gif: an image is written as .png"),
        (("invert", "IN", "out.png", "--form", "tif"), "--form .tif is for results in a folder"),
        (("bits_per_pixel", "IN", "out.png"), "bits_per_pixel prints its answer and takes no OUT; there is no image out.png"),
        (("sheet", "gaussian", "--over", "sigma=nan:2:3", "IN", "out.png"), "finite numbers"),
        (("sheet", "gaussian", "--over", "sigma=1:inf:3", "IN", "out.png"), "finite numbers"),
        (("sheet", "gaussian", "--over", "sigma=1:2:3", "IN", "IN"), "never overwritten"),
        (("histogram", "IN", "IN"), "never overwritten"),
        (("gaussian_noise", "IN", "out.png", "--set", "seed=-1"), "seed lies in 0.."),
        (("frame", "IN", "out.png", "--set", "above=1000000000"), "above lies in 0..32766"),
        (("median", "IN", "out.png", "--set", "size=5" + "0" * 400), "size is int"),
        (("frame", "IN", "out.png", "--set", "above=1000000000000"), "above lies in"),
        (("histogram", "IN"), "IN OUT.png"),
        (("histogram", "IN", "out.png", "--then", "invert"), "is no image"),
        (("bits_per_pixel",), "name an image"),
        (("invert", "IN", ""), "a file or folder for the result"),
        (("invert", "IN", "out.png", "--then", "split", "--then", "invert"), "split gives no image"),
        (("invert", "IN", "out.png", "--then", "merge"), "can only come first"),
        (("invert", "IN", "out.png", "--over", "a=1:2:3"), "belongs to saccade image sheet"),
        (("sheet", "gaussian", "IN", "out.png"), "--over"),
        (("sheet", "gaussian", "--over", "sigma", "IN", "out.png"), "--over takes"),
        (("sheet", "gaussian", "--over", "sigma=1:2", "IN", "out.png"), "--over takes"),
        (("sheet", "gaussian", "--over", "sigma=1:2:x", "IN", "out.png"), "--over takes"),
        (("sheet", "histogram", "--over", "bins=1,2", "IN", "out.png"), "which histogram does not"),
        (("list", "mediam"), "did you mean 'median'"),
        (("invert", "IN", "out.png", "--nonsense"), "No such option"),
    ],
)
def test_I_wrong_use_is_one_line_and_exit_2(run, photos, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    named = {"IN": photos / "0.png", "DIR": photos}
    code, _, errors = run(*(named.get(w, w) for w in words))
    assert code == 2, errors
    (line,) = errors
    assert message in line
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("out", ["photo.png", "folder"])
def test_I_several_results_never_overwrite_the_input(run, tmp_path, out):
    """split gives photo-0.png ...; the input has such a name."""
    (tmp_path / "folder").mkdir()
    for source in (tmp_path / "photo-1.png", tmp_path / "folder" / "photo-1.png"):
        Image.fromarray(pixels()).save(source)
    Image.fromarray(pixels(seed=1)).save(tmp_path / "folder" / "photo.jpg")
    inputs = ["photo-1.png"] if out == "photo.png" else ["folder/photo.jpg", "folder/photo-1.png"]
    code, _, errors = run("split", *(tmp_path / i for i in inputs), tmp_path / out, *(["--form", "png"] if out == "folder" else []))
    assert code == 2
    assert "one of the inputs" in errors[0]
    for source in (tmp_path / "photo-1.png", tmp_path / "folder" / "photo-1.png"):
        assert np.array_equal(read_array(source), pixels())


def test_I_a_wrong_argument_is_one_line_though_a_file_is_broken_too(run, photos, tmp_path):
    (photos / "bad.png").write_bytes(b"no image")
    code, _, errors = run("median", photos, tmp_path / "out", "--set", "size=4")
    assert code == 2
    (line,) = errors
    assert "odd" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16_383), (".jpg", 65_500)])
def test_I_sides_that_a_format_does_not_hold_are_told(run, tmp_path, suffix, side):
    Image.fromarray(np.zeros((1, side + 1), np.uint8)).save(tmp_path / "long.png")
    code, _, errors = run("invert", tmp_path / "long.png", tmp_path / f"out{suffix}")
    assert code == 1
    assert f"out{suffix}: {suffix} holds sides up to {side} pixels, the image is {side + 1}x1" in errors[0]
    assert [p.name for p in tmp_path.iterdir()] == ["long.png"]
    workflow.write_array(tmp_path / f"out{suffix}", np.zeros((1, side), np.uint8))
    assert read_array(tmp_path / f"out{suffix}").shape[:2] == (1, side)


def test_I_an_output_that_cannot_be_written_is_named(run, photos, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, _, errors = run("invert", photos / "0.png", tmp_path / "file" / "out.png")
    assert (code, errors) == (1, [f"saccade: error: {tmp_path / 'file'}: is a file, not a folder"])


def test_I_histogram_says_in_json_what_it_wrote(run, photos, tmp_path):
    lines = run("histogram", photos / "0.png", tmp_path / "h.png", "--json")[1]
    assert json.loads("".join(lines)) == {"image": str(photos / "0.png"), "written": [str(tmp_path / "h.png")]}


def test_I_what_is_missing_is_exit_1(run, tmp_path):
    code, _, errors = run("invert", tmp_path / "none.png", tmp_path / "out.png")
    assert code == 1
    assert "none.png: does not exist" in errors[0]
    (tmp_path / "empty").mkdir()
    assert "holds no images" in run("invert", tmp_path / "empty", tmp_path / "out")[2][0]


def test_I_plan_and_steps_in_python(photos, tmp_path):
    with pytest.raises(UsageError, match="needs --set"):
        workflow.make_step("resize")
    steps = [workflow.make_step("resize", ["size=4,5", "method=area"])]
    tasks = workflow.plan(steps, [str(photos)], str(tmp_path / "out"))
    assert [os.path.basename(t.out) for t in tasks] == ["0.png", "1.png", "2.png", "3.jpg"]
    seen = []
    written = workflow.apply(steps, tasks, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [read_array(w).shape for w in written] == [(4, 5, 3)] * 4
