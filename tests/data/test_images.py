"""Pixels from files: against Pillow and OpenCV, every mode, hostile files."""

import contextlib
import io
import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from saccade.data.images import IMAGE_SUFFIXES, MAX_PIXELS, image_size, is_image_name, read_image, read_mask, read_rgb
from saccade.data.polygons import mask_to_polygons, mask_to_rle, polygon_area, rasterize
from saccade.types.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (11, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (11, 7), dtype=np.uint8)


def save(path, array, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def png(*chunks):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def header(width, height, depth=8, colour=2):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_T1_lossless_rgb_is_read_as_it_is(tmp_path, suffix):
    image = read_image(save(tmp_path / f"a.{suffix}", RGB, **({"lossless": True} if suffix == "webp" else {})))
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    np.testing.assert_array_equal(image.permute(1, 2, 0), RGB)


def test_T1_jpeg_equals_opencv_where_both_use_libjpeg(tmp_path):
    smooth = cv2.GaussianBlur(RNG.integers(0, 256, (64, 48, 3), dtype=np.uint8), (9, 9), 3)
    path = save(tmp_path / "a.jpg", smooth, quality=95)
    expected = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert np.abs(read_image(path).permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2


def test_T1_content_decides_not_the_name(tmp_path):
    path = save(tmp_path / "a.jpg", RGB, format="PNG")
    np.testing.assert_array_equal(read_image(path).permute(1, 2, 0), RGB)
    path = save(tmp_path / "notes.txt", RGB, format="BMP")
    assert image_size(path) == (11, 7)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_T1_exif_orientation_as_pillow_turns_it(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(tmp_path / f"a.{suffix}", cv2.resize(RGB, (24, 16)), exif=exif)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(read_image(path).permute(1, 2, 0), expected)
    assert image_size(path) == expected.shape[:2] == ((24, 16) if orientation >= 5 else (16, 24))


def test_T1_broken_exif_is_no_reason_to_refuse(tmp_path):
    path = save(tmp_path / "a.jpg", cv2.resize(RGB, (24, 16)), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    assert read_image(path).shape == (3, 16, 24)
    assert image_size(path) == (16, 24)


def test_T1_grey_modes(tmp_path):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", GREY))[0], GREY)
    assert read_image(tmp_path / "a.png").shape == (1, 11, 7)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=3), np.stack([GREY] * 3))
    bits = GREY > 127
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", bits))[0], bits * 255)
    deep = np.array([[0, 128, 129, 257, 65535, 32768]], dtype=np.uint16)
    for suffix in ("png", "tif", "pgm"):
        path = save(tmp_path / f"c.{suffix}", deep)
        np.testing.assert_array_equal(read_image(path)[0], [[0, 0, 1, 1, 255, 128]])  # round(v / 257)
    alpha = np.dstack([GREY, np.zeros_like(GREY)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "d.png", alpha))[0], GREY)


def test_T1_alpha_is_dropped_as_opencv_does(tmp_path):
    rgba = np.dstack([RGB, RNG.integers(0, 2, GREY.shape, dtype=np.uint8)])
    path = save(tmp_path / "a.png", rgba)
    np.testing.assert_array_equal(read_image(path).permute(1, 2, 0), cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])
    palette = Image.fromarray(RGB).quantize(16)
    path = save(tmp_path / "p.png", palette, transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path).permute(1, 2, 0), np.asarray(palette.convert("RGB")))


def test_T1_palette_cmyk_and_animation(tmp_path):
    cmyk = Image.fromarray(cv2.resize(RGB, (32, 32))).convert("CMYK")
    path = save(tmp_path / "a.jpg", cmyk, quality=100, subsampling=0)
    assert np.abs(read_image(path).permute(1, 2, 0).numpy().astype(int) - np.asarray(cmyk.convert("RGB"))).max() <= 6
    frames = [Image.fromarray(np.full((5, 5, 3), v, np.uint8)) for v in (10, 200)]
    for suffix in ("gif", "tif"):
        path = save(tmp_path / f"b.{suffix}", frames[0], save_all=True, append_images=frames[1:])
        assert read_image(path).unique().tolist() == [10]  # the first


def test_T1_colour_to_grey_is_bt601(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    grey = read_image(path, channels=1)[0].numpy().astype(float)
    assert np.abs(grey - RGB @ [0.299, 0.587, 0.114]).max() <= 0.51
    with pytest.raises(ValueError, match="channels"):
        read_image(path, channels=4)


def test_T1_rgb_arrays_are_the_pixels_that_pillow_decodes(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for mode in ("RGB", "L", "P", "RGBA", "1"):
        image = Image.fromarray(colours).convert(mode)
        image.save(tmp_path / "a.png")
        rgb = read_rgb(tmp_path / "a.png")
        assert rgb.dtype == np.uint8
        assert rgb.flags.carray
        np.testing.assert_array_equal(rgb, np.asarray(image.convert("RGB")), err_msg=mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), np.rot90(colours, -1))


def test_T1_the_tensor_may_be_written_to(tmp_path):
    for array in (GREY, RGB):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns about read-only arrays
            read_image(save(tmp_path / "a.png", array)).add_(1)


# ---------------------------------------------------------------------------------------------------------------- masks


def test_T1_masks_keep_raw_values(tmp_path):
    palette = Image.fromarray(GREY % 5, mode="P")
    palette.putpalette([200, 1, 1, 5, 5, 5, 9, 9, 200, 1, 2, 3, 4, 4, 4])
    np.testing.assert_array_equal(read_mask(save(tmp_path / "p.png", palette)), GREY % 5)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "g.png", GREY)), GREY)
    deep = GREY.astype(np.uint16) * 200
    out = read_mask(save(tmp_path / "d.png", deep))
    np.testing.assert_array_equal(out, deep)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(read_mask(save(tmp_path / "b.png", GREY > 99)), GREY > 99)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "rgb.png", np.dstack([GREY] * 3))), GREY)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "la.png", np.dstack([GREY, GREY]))), GREY)


@pytest.mark.parametrize(("depth", "values"), [(1, [0, 1]), (2, [0, 1, 2, 3]), (4, [0, 5, 10, 15])])
def test_T1_grey_masks_of_few_bits_are_not_spread(tmp_path, depth, values):
    row = 0
    for v in values:
        row = row << depth | v
    bits = depth * len(values)
    data = (row << (-bits % 8)).to_bytes(-(-bits // 8), "big")
    path = tmp_path / "a.png"
    path.write_bytes(png(header(len(values), 1, depth, 0), (b"IDAT", zlib.compress(b"\0" + data)), (b"IEND", b"")))
    assert read_mask(path).tolist() == [values]


def test_T1_coloured_mask_is_refused_with_what_is_accepted(tmp_path):
    with pytest.raises(DataError, match=r"indexed .palette. or grey"):
        read_mask(save(tmp_path / "a.png", RGB))
    with pytest.raises(DataError, match=r"indexed .palette. or grey"):
        read_mask(save(tmp_path / "a.jpg", Image.fromarray(RGB).convert("CMYK")))


# -------------------------------------------------------------------------------------------------------- hostile files

WHOLE = {}
for _name, _options in {"jpeg": {"quality": 90}, "png": {}, "bmp": {}, "gif": {}, "tiff": {}, "webp": {}, "ppm": {}}.items():
    _buffer = io.BytesIO()
    Image.fromarray(cv2.resize(RGB, (64, 64), interpolation=cv2.INTER_NEAREST)).save(_buffer, format=_name, **_options)
    WHOLE[_name] = _buffer.getvalue()


def huge_bmp():
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)


def text_bomb():
    bomb = zlib.compress(b"\0" * 200_000_000, 9)
    return png(header(4, 4), (b"zTXt", b"Comment\0\0" + bomb), (b"IDAT", zlib.compress(b"\0" * 52)), (b"IEND", b""))


MALFORMED = {
    "empty": b"",
    "text": b"this is no image\n" * 100,
    "zeros": bytes(4096),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "eps_is_not_run": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "jpeg_marker_only": b"\xff\xd8\xff",
    "jpeg_half": WHOLE["jpeg"][: len(WHOLE["jpeg"]) // 2],
    "jpeg_no_end": WHOLE["jpeg"][:-40],
    "png_half": WHOLE["png"][: len(WHOLE["png"]) // 2],
    "png_signature": b"\x89PNG\r\n\x1a\n",
    "png_bad_crc": WHOLE["png"][:20] + b"\x07" + WHOLE["png"][21:],
    "png_no_pixels": png(header(4, 4), (b"IEND", b"")),
    "png_zero_size": png(header(0, 4), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")),
    "png_50000": png(header(50_000, 50_000), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")),
    "png_90_megapixels": png(header(10_000, 9_000), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")),
    "png_bad_filter": png(header(4, 4), (b"IDAT", zlib.compress(b"\x09" * 52)), (b"IEND", b"")),
    "png_text_bomb": text_bomb(),
    "bmp_50000": huge_bmp(),
    "bmp_half": WHOLE["bmp"][:2000],
    "gif_header": WHOLE["gif"][:10],
    "tiff_half": WHOLE["tiff"][:4000],
    "tiff_loop": b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),
    "webp_half": WHOLE["webp"][:60],
    "ppm_half": WHOLE["ppm"][:5000],
    "ppm_50000": b"P6 50000 50000 255\n" + bytes(100),
    "ppm_negative": b"P6 -5 5 255\n" + bytes(100),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_T1_malformed_image_is_one_clear_line(tmp_path, name):
    path = tmp_path / f"{name}.png"
    path.write_bytes(MALFORMED[name])
    for read in (read_image, read_mask):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)


def test_T1_header_of_50000_is_refused_before_decoding(tmp_path):
    import tracemalloc

    path = tmp_path / "a.png"
    path.write_bytes(MALFORMED["png_50000"])
    tracemalloc.start()
    for read in (read_image, read_mask, image_size):
        with pytest.raises(DataError, match="million pixels"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert MAX_PIXELS < 50_000 * 50_000


def test_T1_the_limit_holds_even_if_warnings_are_silenced(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(MALFORMED["png_90_megapixels"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="10000x9000"):
            read_image(path)


@pytest.mark.parametrize("kind", ["folder", "missing", "fifo", "socket_name"])
def test_T1_not_a_file(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)  # opening it would hang
    elif kind == "socket_name":
        path = tmp_path / ("x" * 300)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(DataError):
            read(path)


@pytest.mark.parametrize("name", WHOLE)
def test_T1_every_truncation_is_an_error_or_the_whole_picture(tmp_path, name):
    whole = WHOLE[name]
    path = tmp_path / "a"
    path.write_bytes(whole)
    expected = read_image(path)
    for end in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:end])
        try:
            image = read_image(path)
        except DataError:
            continue
        assert torch.equal(image, expected)  # only bytes after the pixels were missing


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 100),
)
def test_T1_fuzzed_bytes_give_an_image_or_a_dataerror(tmp_path, name, changes, cut):
    data = bytearray(WHOLE[name])
    for place, value in changes:
        data[min(place, len(data) - 1)] = value
    path = tmp_path / "fuzz"
    path.write_bytes(bytes(data[: max(len(data) - cut, 0)]))
    for read in (read_image, read_mask, image_size):
        with contextlib.suppress(DataError):
            read(path)


def test_T1_suffixes():
    assert is_image_name("x/A.JPG")
    assert not is_image_name("x.jpg/notes")
    assert not is_image_name(".png")
    assert all(s == s.lower() and s.startswith(".") for s in IMAGE_SUFFIXES)


# ------------------------------------------------------------------------------------------------------------- polygons


def test_T1_polygons_are_drawn_as_pycocotools_draws_them():
    from pycocotools import mask as oracle

    for seed in range(30):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(3, 60, 2).tolist()
        polygons = [rng.uniform(-5, 65, (rng.integers(3, 9), 2)).astype(np.float32) for _ in range(rng.integers(1, 4))]
        codes = oracle.frPyObjects([p.reshape(-1).tolist() for p in polygons], height, width)
        np.testing.assert_array_equal(rasterize(polygons, (height, width)), oracle.decode(oracle.merge(codes)).astype(bool))


def test_T1_run_length_codes_as_pycocotools_reads_them():
    from pycocotools import mask as oracle

    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
        code = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(rasterize(code, mask.shape), mask)
        assert mask_to_rle(mask) == {"size": list(mask.shape), "counts": code["counts"].decode()}
        flat = mask.T.reshape(-1)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
        runs = np.diff(np.concatenate([[0], edges]))
        np.testing.assert_array_equal(rasterize({"size": list(mask.shape), "counts": runs.tolist()}, mask.shape), mask)
    assert not rasterize(None, (3, 4)).any()
    assert rasterize([], (3, 4)).shape == (3, 4)


def test_T1_mask_to_polygons_and_back_gives_the_filled_mask():
    from scipy.ndimage import binary_fill_holes

    for seed in range(60):
        rng = np.random.default_rng(seed)
        mask = rng.random(rng.integers(1, 25, 2)) < rng.random()
        np.testing.assert_array_equal(rasterize(mask_to_polygons(mask), mask.shape), binary_fill_holes(mask))


def test_T1_polygon_area():
    assert polygon_area([[[0, 0], [4, 0], [4, 3], [0, 3]]]) == 12
    assert polygon_area([[0, 0, 4, 0, 0, 3], [[0, 0], [0, 2], [2, 0]]]) == 6 + 2
    assert polygon_area([]) == 0


@pytest.mark.parametrize(
    "segment",
    [
        [[0, 0, 1, 1]],
        [[0, 0, 1, 1, 2]],
        [[0, 0, 1, 1, float("nan"), 2]],
        [[0, 0, 1, 1, float("inf"), 2]],
        [["a", 0, 1, 1, 2, 2]],
        [[0, 0, 1e12, 1, 2, 1e12]],
        [[0, 0, 9e6, 1, 2, 9e6]],
        [[[0, 0], [1]]],
        [3],
        {"size": [4, 4]},
        {"size": [4, 4], "counts": [3, 4]},
        {"size": [4, 4], "counts": [-3, 19]},
        {"size": [4, 4], "counts": [1.5, 14.5]},
        {"size": [4, 5], "counts": [16]},
        {"size": None, "counts": [16]},
        {"size": ["a", 4], "counts": [16]},
        {"size": [4, 4], "counts": "zzzzzzzz"},
        {"size": [4, 4], "counts": "P" * 5000},
        {"size": [4, 4], "counts": b"\x80\xff"},
        {"size": [4, 4], "counts": "\u20ac"},
        {"size": [4, 4], "counts": {"a": 1}},
    ],
    ids=repr,
)
def test_T1_malformed_segment_is_a_value_error(segment):
    with pytest.raises(ValueError, match=r"polygon|run-length|run lengths"):
        rasterize(segment, (4, 4))


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=40), st.binary(max_size=40), st.lists(st.integers(-5, 70), max_size=8)), st.integers(1, 8))
def test_T1_fuzzed_run_length_codes(counts, side):
    with contextlib.suppress(ValueError):
        assert rasterize({"size": [side, side], "counts": counts}, (side, side)).shape == (side, side)


# ------------------------------------------------------------------------------------------------------------ real sets


def test_T1_near_duplicates_format_oddities(real):
    folder = real("near_duplicates")
    good = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "LICENSE"):
        try:
            image = read_image(path)
        except DataError:
            assert path.name == "ukbench09268_corrupt.jpg"
            continue
        good += 1
        assert tuple(image.shape[1:]) == image_size(path)
    assert good == 26  # the set's 25 and the JPEG that is named .svg
    same = [read_image(folder / "formats_images" / f"ukbench09380.{s}") for s in ("png", "bmp", "svg", "jpeg")]
    assert all(torch.equal(same[0], s) for s in same)


def test_T1_opencv_samples_all_read(real):
    from collections import Counter

    modes = Counter()
    for path in sorted(real("opencv_samples").iterdir()):
        if is_image_name(path):
            image = read_image(path)
            assert tuple(image.shape[1:]) == image_size(path)
            with Image.open(path) as opened:
                modes[opened.mode] += 1
                assert image.shape[0] == (1 if opened.mode in ("L", "LA") else 3)
    assert (modes["RGBA"], modes["LA"], modes["P"], modes.total()) == (6, 1, 2, 67)


def test_T1_png_named_jpg(real):
    path = next((real("facial_keypoints")).rglob("*.jpg"))
    assert read_image(path).shape[0] == 3
