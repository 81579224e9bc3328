"""SURF against a slow transcription of the paper with plain loops, scikit-image's box Hessian, and SIFT on graf."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.feature import hessian_matrix_det

from saccade.features.keypoints import detect
from saccade.features.repeatability import region_repeatability
from saccade.features.surf import box_hessian, describe_surf, filter_sizes, haar, integral, orientations, surf


def texture(height=80, width=96, cell=8, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // cell), -(-width // cell)), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def kernels(size):
    """The paper's figure 2: boxes of 1, -2, 1 for Dyy, and of 1, -1 for Dxy."""
    lobe, gap = size // 3, (size - 2 * (size // 3) + 1) // 2
    dyy = np.zeros((size, size))
    for row in range(size):
        for column in range(gap, size - gap):
            dyy[row, column] = -2 if lobe <= row < 2 * lobe else 1
    dxy = np.zeros((size, size))
    middle = size // 2
    for row in range(lobe):
        for column in range(lobe):
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                y = middle + 1 + row if down else middle - 1 - row
                x = middle + 1 + column if right else middle - 1 - column
                dxy[y, x] = 1 if down != right else -1
    return dyy, dxy


def slow_hessian(pixels, size, step):
    dyy, dxy = kernels(size)
    height, width = pixels.shape
    reach = size // 2
    out = np.full((-(-height // step), -(-width // step)), np.inf)
    for i, y in enumerate(range(0, height, step)):
        for j, x in enumerate(range(0, width, step)):
            if reach <= y < height - reach and reach <= x < width - reach:
                window = pixels[y - reach : y + reach + 1, x - reach : x + reach + 1] / 255
                a, b, c = ((window * k).sum() / size**2 for k in (dyy.T, dyy, dxy))
                out[i, j] = a * b - (0.9 * c) ** 2
    return out


def test_F4_the_first_filter_is_the_papers_9x9():
    dyy, dxy = kernels(9)
    assert np.abs(dyy).sum() == 15 + 30 + 15  # 5 wide, 3 high, 1 -2 1
    assert np.abs(dxy).sum() == 4 * 9
    assert dyy.sum() == dxy.sum() == 0
    assert [filter_sizes(octave) for octave in (1, 2, 3, 4)] == [[9, 15, 21, 27], [15, 27, 39, 51], [27, 51, 75, 99], [51, 99, 147, 195]]


@pytest.mark.parametrize(("size", "step"), [(9, 1), (15, 1), (15, 2), (21, 3), (27, 4)])
def test_F4_hessian_responses_equal_plain_loops(size, step):
    pixels = texture(31, 38, cell=3)
    found = box_hessian(integral(pixels), size, step)
    np.testing.assert_allclose(found, slow_hessian(pixels, size, step), rtol=1e-9, atol=1e-15)
    assert np.isfinite(found).any()


@pytest.mark.parametrize("size", [9, 15, 21])
def test_F4_hessian_responses_equal_scikit_images(size):
    pixels = texture(60, 50, cell=4)
    theirs = hessian_matrix_det(pixels / 255, sigma=size / 3, approximate=True)
    ours, edge = box_hessian(integral(pixels), size), size // 2 + 1  # its boxes lie a pixel further to the right and down
    ours, theirs = ours[edge:-edge, edge:-edge], theirs[edge - 1 : -edge - 1, edge - 1 : -edge - 1]
    assert ours.size > 800
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_F4_a_filter_larger_than_the_image_has_no_response():
    assert np.isinf(box_hessian(integral(texture(20, 20)), 21)).all()
    assert np.isfinite(box_hessian(integral(texture(21, 21)), 21)).sum() == 1


def slow_sum(pixels, x1, y1, x2, y2):
    """Of the pixels of columns x1..x2 - 1 and rows y1..y2 - 1 that exist."""
    return float(
        sum(int(pixels[y, x]) for y in range(max(y1, 0), min(y2, len(pixels))) for x in range(max(x1, 0), min(x2, len(pixels[0]))))
    )


def slow_haar(pixels, x, y, half):
    dx = slow_sum(pixels, x, y - half, x + half, y + half) - slow_sum(pixels, x - half, y - half, x, y + half)
    dy = slow_sum(pixels, x - half, y, x + half, y + half) - slow_sum(pixels, x - half, y - half, x + half, y)
    return dx, dy


def test_F4_haar_responses_are_sums_of_pixels_also_at_the_border():
    pixels = texture(20, 24)
    places = [(0, 0, 3), (12, 10, 4), (24, 20, 5), (-2, 7, 4), (23, 1, 2), (40, 40, 3)]
    dx, dy = haar(integral(pixels), *np.array(places).T)
    np.testing.assert_array_equal(np.stack([dx, dy], 1), [slow_haar(pixels, *place) for place in places])


def slow_orientation(pixels, x, y, s):
    samples = []
    for i in range(-6, 7):
        for j in range(-6, 7):
            if i * i + j * j < 36:
                weight = math.exp(-(i * i + j * j) / (2 * 2.0**2))
                dx, dy = slow_haar(pixels, round(x + s * i), round(y + s * j), max(round(2 * s), 1))
                samples.append((dx * weight, dy * weight))
    assert len(samples) == 109
    best = (-1.0, 0.0)
    for start in range(0, 360, 5):
        sums = [0.0, 0.0]
        for dx, dy in samples:
            if (math.degrees(math.atan2(dy, dx)) - start) % 360 < 60:
                sums[0] += dx
                sums[1] += dy
        length = sums[0] ** 2 + sums[1] ** 2
        if length > best[0] * (1 + 1e-12):
            best = (length, math.degrees(math.atan2(sums[1], sums[0])) % 360)
    return best[1]


def slow_descriptor(pixels, x, y, s, angle):
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    values = []
    for part_v in range(4):
        for part_u in range(4):
            sums = [0.0] * 4
            for sample_v in range(5):
                for sample_u in range(5):
                    u, v = 5 * part_u + sample_u - 9.5, 5 * part_v + sample_v - 9.5
                    weight = math.exp(-(u * u + v * v) / (2 * 3.3**2))
                    dx, dy = slow_haar(pixels, round(x + s * (u * cos - v * sin)), round(y + s * (u * sin + v * cos)), max(round(s), 1))
                    along, across = weight * (cos * dx + sin * dy), weight * (cos * dy - sin * dx)
                    for k, value in enumerate((along, across, abs(along), abs(across))):
                        sums[k] += value
            values += sums
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


PLACES = np.array([[40.3, 37.8, 1.23], [60.12, 20.9, 2.41], [5.4, 70.2, 1.8], [90.7, 41.6, 3.1]])


def test_F4_orientations_and_descriptors_equal_plain_loops():
    pixels = texture(80, 96, cell=6)
    total, points, scales = integral(pixels), PLACES[:, :2], PLACES[:, 2]
    angles = orientations(total, points, scales)
    np.testing.assert_allclose(angles, [slow_orientation(pixels, *place) for place in PLACES.tolist()], atol=1e-6)
    descriptors = describe_surf(total, points, scales, angles)
    expected = [slow_descriptor(pixels, *place, angle) for place, angle in zip(PLACES.tolist(), angles.tolist(), strict=True)]
    assert descriptors.shape == (4, 64)
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(descriptors, expected, atol=1e-6)


def slow_surf(pixels, threshold, octaves):
    """Maxima among 26 neighbours, each moved to the top of its parabola."""
    found = []
    for octave in range(1, octaves + 1):
        step = 2 ** (octave - 1)
        sizes = [3 * (2**octave * i + 1) for i in range(1, 5)]
        d = np.stack([slow_hessian(pixels, size, step) for size in sizes])
        for k, i, j in np.ndindex(d.shape):
            if not (0 < k < 3 and 0 < i < d.shape[1] - 1 and 0 < j < d.shape[2] - 1):
                continue
            cube = d[k - 1 : k + 2, i - 1 : i + 2, j - 1 : j + 2]
            if not np.isfinite(cube).all() or d[k, i, j] <= threshold or (cube >= d[k, i, j]).sum() > 1:
                continue
            g = np.array([cube[2, 1, 1] - cube[0, 1, 1], cube[1, 2, 1] - cube[1, 0, 1], cube[1, 1, 2] - cube[1, 1, 0]]) / 2
            h = np.empty((3, 3))
            for a in range(3):
                for b in range(3):
                    ea, eb = np.eye(3, dtype=int)[a], np.eye(3, dtype=int)[b]
                    one = np.array([1, 1, 1])
                    if a == b:
                        h[a, b] = cube[tuple(one + ea)] - 2 * cube[1, 1, 1] + cube[tuple(one - ea)]
                    else:
                        h[a, b] = (
                            cube[tuple(one + ea + eb)]
                            - cube[tuple(one + ea - eb)]
                            - cube[tuple(one - ea + eb)]
                            + cube[tuple(one - ea - eb)]
                        ) / 4
            if not (np.linalg.eigvalsh(h) < 0).all():
                continue
            ds, dy, dx = np.linalg.solve(h, -g)
            if max(abs(ds), abs(dy), abs(dx)) <= 1:
                value = cube[1, 1, 1] + g @ (ds, dy, dx) / 2
                found.append(((j + dx) * step + 0.5, (i + dy) * step + 0.5, sizes[0] + (sizes[1] - sizes[0]) * (k + ds), value))
    return np.array(sorted(found, key=lambda row: -row[3]))


def test_F4_key_points_equal_plain_loops():
    pixels = texture(74, 82, cell=10)
    found, expected = surf(pixels, threshold=1e-5, octaves=2), slow_surf(pixels, 1e-5, 2)
    assert len(found) == len(expected) > 10
    assert (expected[:, 2] > 21).any()  # of the second octave, too
    np.testing.assert_allclose(np.column_stack([found.points, found.sizes, found.responses]), expected, rtol=1e-5, atol=1e-5)
    scales = expected[:, 2] * 1.2 / 9
    x, y, s, angle = expected[3, 0], expected[3, 1], scales[3], slow_orientation(pixels, *expected[3, :2], scales[3])
    assert found.angles[3] == pytest.approx(angle, abs=1e-4)
    np.testing.assert_allclose(found.descriptors[3], slow_descriptor(pixels, x, y, s, angle), atol=1e-5)


@pytest.mark.parametrize("sigma", [2.5, 4, 6, 8])
def test_F4_a_gaussian_blob_is_found_at_its_centre_and_scale(sigma):
    y, x = np.mgrid[:128, :128] + 0.5
    pixels = (60 + 150 * np.exp(-((x - 62) ** 2 + (y - 66.5) ** 2) / (2 * sigma**2))).round().astype(np.uint8)
    best = surf(pixels, limit=1)
    np.testing.assert_allclose(best.points[0], [62, 66.5], atol=0.1)
    # The determinant answers most when filter and blob have the same sigma. Lobes of width l = L / 3 are second differences of three
    # boxes of l (sigma l / 2) along, and one box of 2 l - 1 (up to 2 l / sqrt 12) across: L is between 6 and 3 sqrt 3 times sigma.
    assert 3 * math.sqrt(3) * 0.99 < best.sizes[0] / sigma < 6


def test_F4_a_quarter_turn_turns_points_and_angles_and_leaves_descriptors():
    pixels = texture(96, 96, cell=6)
    plain, turned = surf(pixels, octaves=1), surf(np.rot90(pixels).copy(), octaves=1)  # counter-clockwise: (x, y) to (y, W - x)
    expected = np.stack([plain.points[:, 1], 96 - plain.points[:, 0]], 1)
    distance = np.linalg.norm(expected[:, None] - turned.points, axis=-1)
    partner = distance.argmin(1)
    assert len(plain) == len(turned) > 30
    assert distance.min(1).max() < 1e-3
    shift = (plain.angles - turned.angles[partner] - 90 + 180) % 360 - 180
    same = np.abs(shift) < 2
    assert same.mean() > 0.9  # rarely two windows are about as long
    np.testing.assert_array_less(np.linalg.norm(plain.descriptors - turned.descriptors[partner], axis=1)[same], 0.2)


def test_F4_upright_has_no_orientation_and_other_brightness_changes_no_descriptor():
    pixels = texture()
    upright = surf(pixels, upright=True)
    assert (upright.angles == 0).all()
    assert len(upright) == len(surf(pixels))
    darker = surf(pixels // 2 + 40, upright=True, threshold=0.0005 / 4)
    order = np.linalg.norm(upright.points[:, None] - darker.points, axis=-1)
    near = order.min(1) < 0.2
    assert near.mean() > 0.9
    close = np.linalg.norm(upright.descriptors - darker.descriptors[order.argmin(1)], axis=1)[near]
    assert np.median(close) < 0.05  # halved values are rounded
    np.testing.assert_allclose(np.linalg.norm(upright.descriptors, axis=1), 1, rtol=1e-5)


def test_F4_repeatability_on_graf_is_at_least_nine_tenths_of_sifts(real):
    folder = real("oxford_graf")
    images = [np.array(Image.open(folder / f"img{k}.png").convert("L")) for k in (1, 2, 3)]
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    shares = {}
    for kind in ("sift", "surf"):
        points = [detect(image, kind, limit=1000) for image in images]
        truths = [shift @ np.loadtxt(folder / f"H1to{k}p") @ np.linalg.inv(shift) for k in (2, 3)]
        shares[kind] = [region_repeatability(points[0], points[k], truths[k - 1]) for k in (1, 2)]
    assert shares["sift"][0] > 0.65  # what is compared with finds most points
    assert np.mean(shares["surf"]) >= 0.9 * np.mean(shares["sift"])
    assert min(np.divide(shares["surf"], shares["sift"])) >= 0.88
