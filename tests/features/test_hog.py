"""HOG against OpenCV, scikit-image and the course's worked example."""

import cv2
import numpy as np
import pytest
import torch
from skimage.feature import hog as skimage_hog

from saccade.features.hog import gradient, hog, hog_blocks, hog_cells, normalize_blocks
from saccade.types.errors import UsageError


def picture(height=128, width=64, channels=3, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, channels), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


@pytest.mark.parametrize("convention", ["dalal", "opencv", "skimage", "course"])
def test_F1_a_64x128_window_has_3780_values(convention):
    values = hog(picture(), convention=convention)
    assert values.shape == (7 * 15 * 36,) == (3780,)
    assert values.dtype == np.float32
    # L2-Hys: each block has unit length, and no value exceeds 0.2 by more than the second normalisation's stretch
    lengths = np.linalg.norm(hog_blocks(picture(), convention=convention), axis=-1)
    assert lengths.shape == (15, 7)
    np.testing.assert_allclose(lengths, 1, atol=0.06 if convention in ("dalal", "opencv") else 1e-5)  # OpenCV adds 1e-3


def test_F1_course_vote_15_degrees_of_magnitude_8_gives_2_and_6():
    image = np.zeros((8, 8), np.uint8)
    histogram = hog_cells(image)
    assert histogram.shape == (1, 1, 9)
    assert histogram.sum() == 0
    dx, dy = 8 * np.cos(np.radians(15)), 8 * np.sin(np.radians(15))
    # one pixel with that gradient: quantised pixels cannot have it exactly, so the vote is checked on its formula's input
    with pytest.MonkeyPatch.context() as patch:
        magnitude, angle = np.zeros((8, 8)), np.zeros((8, 8))
        magnitude[3, 4], angle[3, 4] = np.hypot(dx, dy), np.degrees(np.arctan2(dy, dx))
        patch.setattr("saccade.features.hog.gradient", lambda _: (magnitude, angle))
        np.testing.assert_allclose(hog_cells(image)[0, 0], [2, 6, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
        magnitude[3, 4], angle[3, 4] = 85, 165  # the course's second case: between 160 and 180 = 0
        np.testing.assert_allclose(hog_cells(image)[0, 0], [21.25, 0, 0, 0, 0, 0, 0, 0, 63.75], atol=1e-5)
        angle[3, 4] = 195  # unsigned: 180 degrees off is the same orientation as 15
        np.testing.assert_allclose(hog_cells(image)[0, 0, :2], [85 / 4, 85 * 3 / 4], atol=1e-5)


def test_F1_course_cells_against_plain_loops():
    image = picture(24, 16)
    expected = np.zeros((3, 2, 9))
    padded = np.pad(image.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    for y in range(24):
        for x in range(16):
            pairs = [
                (int(padded[y + 1, x + 2, c] - padded[y + 1, x, c]), int(padded[y + 2, x + 1, c] - padded[y, x + 1, c])) for c in range(3)
            ]
            dx, dy = max(pairs, key=lambda p: p[0] ** 2 + p[1] ** 2)
            angle = np.degrees(np.arctan2(dy, dx)) % 180
            k, f = int(angle // 20), angle / 20 % 1
            expected[y // 8, x // 8, k % 9] += np.hypot(dx, dy) * (1 - f)
            expected[y // 8, x // 8, (k + 1) % 9] += np.hypot(dx, dy) * f
    np.testing.assert_allclose(hog_cells(image), expected, rtol=1e-5, atol=1e-3)


def test_F1_every_gradient_votes_its_magnitude():
    image = picture(40, 48)
    for bins, signed in ((9, False), (18, True)):
        cells = hog_cells(image, bins=bins, signed=signed)
        total = gradient(image)[0].reshape(5, 8, 6, 8).sum((1, 3))
        np.testing.assert_allclose(cells.sum(-1), total, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_F1_opencv_convention_equals_cv2(channels):
    image = picture(128, 64, channels)
    expected = cv2.HOGDescriptor().compute(np.squeeze(image))
    np.testing.assert_array_equal(hog(image, convention="opencv"), expected)
    assert expected.shape == (3780,)
    wide = np.ascontiguousarray(np.squeeze(image.repeat(2, 1)[:48, :96]))
    other = cv2.HOGDescriptor((96, 48), (24, 24), (8, 8), (8, 8), 6, 1, -1, 0, 0.2, True, 64, True)
    np.testing.assert_array_equal(hog(wide, convention="opencv", block=3, bins=6, signed=True), other.compute(wide))


def test_F1_opencv_grid_is_what_windows_of_a_larger_image_hold():
    image = picture(200, 160)
    windows = cv2.HOGDescriptor().compute(image, winStride=(8, 8)).reshape(10, 13, 3780)
    grid = hog_blocks(image, convention="opencv")
    assert grid.shape == (24, 19, 36)
    np.testing.assert_array_equal(grid[4:19, 5:12].transpose(1, 0, 2).ravel(), windows[4, 5])


@pytest.mark.parametrize("channels", [1, 3])
def test_F1_skimage_convention_equals_skimage(channels):
    image = picture(70, 61, channels)  # not whole cells
    axis = -1 if channels == 3 else None
    pixels = np.squeeze(image)
    expected = skimage_hog(pixels, cells_per_block=(2, 2), pixels_per_cell=(8, 8), orientations=9, block_norm="L2-Hys", channel_axis=axis)
    np.testing.assert_allclose(hog(image, convention="skimage"), expected, atol=1e-6)


def test_F1_dalal_default_is_opencv_without_gamma_and_with_half_block_sigma():
    image = picture()
    oracle = cv2.HOGDescriptor((64, 128), (16, 16), (8, 8), (8, 8), 9, 1, 8.0, 0, 0.2, False, 64, False).compute(image)
    by_column = oracle.reshape(7, 15, 2, 2, 9).transpose(1, 0, 3, 2, 4)
    np.testing.assert_array_equal(hog(image), by_column.ravel())
    assert np.abs(hog(image) - hog(image, convention="opencv")).max() > 0.01


def test_F1_normalize_blocks_equals_skimage_on_its_own_cells():
    cells = np.random.default_rng(0).random((4, 5, 9)).astype(np.float32) * 100
    from skimage.feature._hog import _hog_normalize_block

    blocks = normalize_blocks(cells)
    assert blocks.shape == (3, 4, 36)
    for r in range(3):
        for c in range(4):
            expected = _hog_normalize_block(cells[r : r + 2, c : c + 2].astype(float), "L2-Hys").ravel()
            np.testing.assert_allclose(blocks[r, c], expected, rtol=1e-5)


def test_hog_takes_tensors_and_says_what_it_cannot_take():
    image = picture()
    np.testing.assert_array_equal(hog(torch.from_numpy(image).permute(2, 0, 1)), hog(image))
    np.testing.assert_array_equal(hog(image[..., :1]), hog(image[..., 0]))
    assert np.isfinite(hog(np.zeros((16, 16), np.uint8))).all()
    for option in ("cell", "block", "bins"):
        with pytest.raises(UsageError, match=f"{option}=0"):
            hog(image, **{option: 0})
    with pytest.raises(UsageError, match="16x16"):
        hog(image[:10])
    with pytest.raises(UsageError, match="uint8"):
        hog(image.astype(np.float32))
    np.testing.assert_array_equal(hog(image / 255), hog(image))
    with pytest.raises(UsageError, match="signed"):
        hog(image, convention="skimage", signed=True)


@pytest.mark.parametrize("convention", ["dalal", "opencv", "skimage", "course"])
@pytest.mark.parametrize(
    "options",
    [{"clip": float("nan")}, {"clip": -1}, {"clip": 0}, {"clip": 1.5}, {"clip": "0.2"}, {"cell": 2.5}, {"cell": -8}]
    + [{"block": 10**9}, {"block": None}, {"bins": float("nan")}, {"bins": 10**9}, {"bins": True}],
)
def test_F1_wrong_options_are_said(convention, options):
    name = next(iter(options))
    with pytest.raises(UsageError, match=f"option {name}="):
        hog(picture(), convention=convention, **options)
    if name in ("cell", "bins"):
        with pytest.raises(UsageError, match=f"option {name}="):
            hog_cells(picture(), **options)
    else:
        with pytest.raises(UsageError, match=f"option {name}="):
            normalize_blocks(hog_cells(picture()), **options)


@pytest.mark.parametrize("convention", ["lowe", None, ["dalal"]])
def test_F1_the_conventions_are_named(convention):
    with pytest.raises(UsageError, match="dalal or opencv or skimage or course"):
        hog(picture(), convention=convention)
