"""Corners and blobs against scikit-image, SciPy and hand-made pictures."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_laplace
from skimage.feature import blob_log, corner_harris, corner_peaks, corner_shi_tomasi

from saccade.features.corners import corner_response, laplacian, structure_tensor
from saccade.features.keypoints import detect
from saccade.features.peaks import peaks, refine


def texture(height=70, width=90, cell=7, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // cell), -(-width // cell)), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


INNER = (slice(8, -8), slice(8, -8))


@pytest.mark.parametrize(("k", "sigma"), [(0.04, 1.0), (0.06, 1.5)])
def test_F6_harris_response_is_scikit_images(k, sigma):
    image = texture()
    theirs = corner_harris(image / 255, k=k, sigma=sigma)  # Sobel there is not divided by 8
    np.testing.assert_allclose(corner_response(image, k, sigma)[INNER] * 8**4, theirs[INNER], rtol=2e-3, atol=1e-4 * np.abs(theirs).max())


def test_F6_shi_tomasi_response_is_scikit_images():
    image = texture()
    theirs = corner_shi_tomasi(image / 255, sigma=1)
    np.testing.assert_allclose(corner_response(image, None)[INNER] * 8**2, theirs[INNER], rtol=2e-3, atol=1e-4 * theirs.max())


def test_F6_the_structure_tensor_of_a_ramp_is_its_slope():
    image = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (30, 1))  # 4 grey levels a column
    xx, xy, yy = structure_tensor(image)
    np.testing.assert_allclose(xx[8:-8, 8:-8], (4 / 255) ** 2, rtol=1e-4)
    np.testing.assert_allclose(xy[8:-8, 8:-8], 0, atol=1e-9)
    np.testing.assert_allclose(yy[8:-8, 8:-8], 0, atol=1e-9)


def test_F6_harris_points_are_scikit_images_peaks():
    image = texture(90, 110)
    response = corner_response(image, 0.05, 1.0).astype(float)
    theirs = corner_peaks(response, min_distance=3, threshold_rel=0.01, exclude_border=1, p_norm=np.inf)
    ours = detect(image, "harris", k=0.05, distance=3, quality=0.01)
    assert len(ours) == len(theirs) > 20
    distance = np.abs(ours.points[:, None] - (theirs[:, ::-1] + 0.5)).max(-1)
    assert distance.min(1).max() <= 0.5  # within the pixel
    assert len(set(distance.argmin(1))) == len(ours)


@pytest.mark.parametrize("kind", ["harris", "shi_tomasi"])
def test_F6_corners_of_a_chessboard_lie_where_four_fields_meet(kind):
    fields = (np.indices((5, 6)).sum(0) % 2 * 180 + 40).astype(np.uint8)
    image = np.kron(fields, np.ones((16, 16), np.uint8))
    found = detect(image, kind, quality=0.5)
    expected = {(x, y) for x in range(16, 96, 16) for y in range(16, 80, 16)}
    assert {tuple(point) for point in np.rint(found.points).astype(int).tolist()} == expected
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.points, np.rint(found.points), atol=1e-3)


@pytest.mark.parametrize("distance", [1, 4, 9])
def test_F6_corners_keep_their_distance(distance):
    found = detect(texture(), "shi_tomasi", distance=distance)
    pixel = np.floor(found.points + 1e-4)
    apart = np.abs(pixel[:, None] - pixel).max(-1) + 100 * np.eye(len(pixel))
    assert apart.min() > distance - 1
    assert (found.responses >= 0.01 * found.responses[0]).all()


@pytest.mark.parametrize("sigma", [1.5, 3.0, 6.2])
def test_F6_the_laplacian_is_scipys(sigma):
    image = texture().astype(np.float32) / 255
    expected = -(sigma**2) * gaussian_laplace(image.astype(float), sigma)
    np.testing.assert_allclose(laplacian(image, sigma), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["log", "dog"])
@pytest.mark.parametrize("radius", [4, 7, 12])
@pytest.mark.parametrize("bright", [True, False])
def test_F6_a_disc_is_a_blob_of_its_diameter(kind, radius, bright):
    y, x = np.mgrid[:96, :110] + 0.5
    disc = np.hypot(x - 53, y - 47.5) <= radius
    image = np.where(disc, 200, 60) if bright else np.where(disc, 60, 200)
    best = detect(image.astype(np.uint8), kind, limit=1)
    np.testing.assert_allclose(best.points[0], [53, 47.5], atol=0.3)
    assert best.sizes[0] == pytest.approx(2 * radius, rel=0.08)
    other = detect(image.astype(np.uint8), kind, polarity="dark" if bright else "bright")
    assert not (np.linalg.norm(other.points - [53, 47.5], axis=1) < 2).any()


def test_F6_log_blobs_are_scikit_images():
    random = np.random.default_rng(3)
    y, x = np.mgrid[:128, :128]
    image = np.zeros((128, 128))
    for u, v in np.stack(np.meshgrid(np.arange(20, 128, 30), np.arange(20, 128, 30)), -1).reshape(-1, 2) + random.uniform(-3, 3, (16, 2)):
        image += 150 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * random.uniform(2.5, 6) ** 2))
    image = image.clip(0, 255).astype(np.uint8)
    theirs = blob_log(image / 255, min_sigma=2, max_sigma=8, num_sigma=25, threshold=0.15)
    ours = detect(image, "log", smallest=2, largest=8, layers=4, threshold=0.15, polarity="bright")
    assert len(ours) == len(theirs) == 16
    distance = np.linalg.norm(ours.points[:, None] - 0.5 - theirs[:, 1::-1], axis=-1)
    assert distance.min(1).max() < 1
    sigmas = ours.sizes / (2 * np.sqrt(2))
    np.testing.assert_allclose(sigmas, theirs[distance.argmin(1), 2], rtol=0.08)


def test_F6_peaks_are_greatest_of_27_and_a_tie_counts_once():
    stack = np.random.default_rng(0).integers(0, 40, (5, 12, 13)).astype(np.float32)
    expected = []
    for k, i, j in np.ndindex(stack.shape):
        if 0 < k < 4 and 0 < i < 11 and 0 < j < 12 and stack[k, i, j] > 20:
            cube = stack[k - 1 : k + 2, i - 1 : i + 2, j - 1 : j + 2].ravel()
            if cube.argmax() == 13:  # of equal ones the first
                expected.append((k, i, j))
    assert sorted(map(tuple, peaks(stack, 20).tolist())) == expected
    assert len(expected) > 5
    flat = np.zeros((3, 5, 6), np.float32)
    flat[1, 2, 2:4] = 1
    assert peaks(flat, 0.5).tolist() == [[1, 2, 2]]
    flat[1, 2, 4] = np.inf
    flat[1, 2, 3] = 0.9
    assert peaks(flat, 0.5).tolist() == [[1, 2, 2]]
    flat[1, 2, 3] = np.inf
    assert len(peaks(flat, 0.5)) == 0


def test_F6_refine_finds_the_top_of_a_parabola():
    z, y, x = np.mgrid[:3, :5, :6]
    top = np.array([1.2, 2.3, 2.8])
    stack = 5 - ((z - top[0]) ** 2 + 2 * (y - top[1]) ** 2 + 0.7 * (x - top[2]) ** 2 + 0.3 * (x - top[2]) * (y - top[1]))
    offsets, values = refine(stack, np.array([[1, 2, 3]]))
    np.testing.assert_allclose(offsets[0] + [1, 2, 3], top, atol=1e-9)
    assert values[0] == pytest.approx(5)
    offsets, _ = refine(-stack, np.array([[1, 2, 3]]))
    assert np.isinf(offsets).all()
