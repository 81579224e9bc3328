"""Perceptual hashes by their definitions, and the search for near ones against all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn
from scipy.spatial.distance import cdist, pdist, squareform

from saccade.features import hashes as h
from saccade.types.errors import UsageError


def pictures(count=40, shape=(45, 61), seed=0):
    """Smooth random pictures."""
    random = np.random.default_rng(seed)
    low = random.integers(0, 256, (count, 6, 7)).astype(np.float64)
    y, x = np.linspace(0, 5, shape[0]), np.linspace(0, 6, shape[1])
    rows = np.stack([[np.interp(y, np.arange(6), p[:, k]) for k in range(7)] for p in low])
    out = np.stack([[np.interp(x, np.arange(7), r) for r in p.T] for p in rows])
    return np.clip(out + random.normal(0, 4, out.shape), 0, 255).astype(np.uint8)


def bits(hash_):
    """(..., 64) 0/1, the first bit first."""
    return (np.asarray(hash_, np.uint64)[..., None] >> np.arange(63, -1, -1, dtype=np.uint64)) & np.uint64(1)


# ------------------------------------------------------------------------------------------------------------- the hashes


def test_E6_shrink_is_the_mean_of_what_a_cell_covers():
    image = np.array([[0, 10, 20], [30, 40, 50]], np.uint8)
    assert h.shrink(image, (1, 1)).tolist() == [[25.0]]
    # cells of one and a half pixels
    assert h.shrink(image, (2, 2)).tolist() == [[10 / 3, 50 / 3], [100 / 3, 140 / 3]]
    big = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    np.testing.assert_allclose(h.shrink(big, (8, 8)), big.reshape(8, 8, 8, 12).mean((1, 3)), rtol=1e-15)
    assert h.shrink(image, (4, 6)).repeat(1).tolist() == image.repeat(2, 0).repeat(2, 1).ravel().tolist()


def test_E6_average_hash_by_hand():
    image = np.zeros((8, 8), np.uint8)
    image[0, 0] = image[7, 7] = 200
    assert int(h.average_hash(image)) == (1 << 63) | 1
    assert int(h.average_hash(np.full((5, 9), 77, np.uint8))) == 0


def test_E6_difference_hash_by_hand():
    rising = np.tile(np.arange(0, 90, 10, dtype=np.uint8), (8, 1))  # 8 x 9
    assert int(h.difference_hash(rising, "rows")) == 2**64 - 1
    assert int(h.difference_hash(rising[:, ::-1], "rows")) == 0
    assert int(h.difference_hash(rising.T, "columns")) == 2**64 - 1
    assert h.difference_hash(np.stack([rising, rising])).shape == (2, 2)
    one = np.zeros((8, 9), np.uint8)
    one[0, 1] = 9
    assert int(h.difference_hash(one, "rows")) == 1 << 63
    with pytest.raises(UsageError):
        h.difference_hash(one, "diagonal")


def test_E6_perceptual_hash_is_scipys_dct_against_the_median():
    images = pictures()
    means = h.shrink(images, (32, 32))
    low = dctn(means, axes=(1, 2))[:, :8, :8].reshape(len(images), 64)
    median = np.median(low[:, 1:], axis=1, keepdims=True)
    expected = low > median
    expected[:, 0] = False
    sure = np.abs(low - median) > 1.0  # of thousands: the rounding of means and cosines cannot reach that
    sure[:, 0] = True
    assert sure.mean() > 0.97
    assert ((bits(h.perceptual_hash(images)) == expected) | ~sure).all()


def test_E6_hashes_do_not_depend_on_the_stack():
    """The same bits one by one, in a stack, from Fortran order: no rounding that depends on how a library adds."""
    images = pictures(17)
    for function in (h.average_hash, h.difference_hash, h.perceptual_hash, lambda x: h.turned_hashes(x).T):
        whole = function(images)
        assert whole.dtype == np.uint64
        assert (whole == np.stack([function(image) for image in images])).all()
        assert (whole == function(np.asfortranarray(images))).all()


def test_E6_the_dct_is_exact():
    """All that is added are whole numbers below 2^53: Python's own integers give the same."""
    image = pictures(1)[0]
    means = np.round(h.shrink(image, (32, 32)) * 16).astype(int).tolist()
    cosines = h._COSINES.astype(int).tolist()
    left = [[sum(c[i] * means[i][j] for i in range(32)) for j in range(32)] for c in cosines]
    exact = [[sum(row[j] * c[j] for j in range(32)) for c in cosines] for row in left]
    assert h._low_frequencies(image).astype(int).tolist() == exact
    white = h._low_frequencies(np.full((4, 4), 255, np.uint8))
    assert white[0, 0] == 255 * 16 * 32 * 32 * 2.0**28 < 2**53
    assert not white.ravel()[1:].any()


def test_E6_brightness_and_contrast_hardly_change_a_hash():
    images = pictures()
    softer = (images * 0.7 + 40).astype(np.uint8)
    for function in (h.average_hash, h.perceptual_hash):
        assert h.hamming(function(images), function(softer)).max() <= 6
    apart = h.hamming(h.perceptual_hash(images)[:, None], h.perceptual_hash(images))[np.triu_indices(40, 1)]
    assert apart.min() > 10
    assert 28 < apart.mean() < 35


@pytest.mark.parametrize("way", range(8))
def test_E6_turned_hashes_are_those_of_the_turned_picture(way):
    images = pictures(25, (48, 48))
    assert (h.turned_hashes(images)[way] == h.perceptual_hash(h.turned(images, way))).all()


def test_E6_the_ways_are_what_they_are_called():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    clockwise = {"90": -1, "180": -2, "270": -3}
    for way, name in enumerate(h.TURNS):
        expected = image
        if "mirrored" in name:
            expected = expected[:, ::-1]
        if "upside" in name:
            expected = expected[::-1]
        for angle, quarter in clockwise.items():
            if f"by {angle}°" in name:
                expected = np.rot90(expected, quarter)
        assert h.turned(image, way).tolist() == expected.tolist(), name
    assert len({h.turned(image, way).tobytes() + bytes(h.turned(image, way).shape) for way in range(8)}) == 8


def test_E6_detail_tells_flat_pictures():
    noise = np.random.default_rng(0).normal(128, 3, (240, 320)).round().astype(np.uint8)
    assert h.detail(np.full((3, 9, 9), 200, np.uint8)).tolist() == [0, 0, 0]
    assert h.detail(noise) < 2 < h.detail(pictures(5)).min()


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 3)), np.zeros(5, np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4), np.int64), None, "x", [[1, 2], [3]]]
)
def test_E6_what_is_no_picture_is_refused(bad):
    with pytest.raises(UsageError):
        h.perceptual_hash(bad)


def test_E6_an_empty_stack_gives_no_hashes():
    empty = np.zeros((0, 5, 5), np.uint8)
    assert h.average_hash(empty).shape == (0,)
    assert h.difference_hash(empty).shape == (0, 2)
    assert h.turned_hashes(empty).shape == (8, 0)
    assert h.detail(empty).shape == (0,)


# ------------------------------------------------------------------------------------------------------------- the search


def crowd(count, words=1, seed=0, centres=0, flips=4):
    """Hashes at random; with centres, each near one of them."""
    random = np.random.default_rng(seed)
    out = random.integers(0, 2**64, (count, words), dtype=np.uint64)
    if centres:
        out = out[random.integers(0, centres, count)]
        for _ in range(flips):
            places = random.integers(0, 64, (count, words)).astype(np.uint64)
            out ^= np.uint64(1) << places
    return out[:, 0] if words == 1 else out


def oracle(hashes, radius, others=None):
    """scipy's Hamming distance between vectors of bits."""
    a = bits(hashes).reshape(len(hashes), -1).astype(np.uint8)
    if others is None:
        near = np.triu(squareform(np.rint(pdist(a, "hamming") * a.shape[1])) <= radius, 1)
    else:
        near = np.rint(cdist(a, bits(others).reshape(len(others), -1).astype(np.uint8), "hamming") * a.shape[1]) <= radius
    return np.argwhere(near).tolist()


def test_E6_hamming():
    a = np.array([0, 1, 2**64 - 1], np.uint64)
    assert h.hamming(a, np.uint64(0)).tolist() == [0, 1, 64]
    assert h.hamming(a[:, None], a).tolist() == [[0, 1, 64], [1, 0, 63], [64, 63, 0]]


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("radius", [0, 1, 3, 4, 7, 8, 11, 16])
def test_E6_near_pairs_are_scipys(radius, words):
    hashes = crowd(300, words, centres=60)
    assert h.near_pairs(hashes, radius).tolist() == oracle(hashes, radius)
    others = crowd(200, words, centres=60)  # the same seed: the same centres
    expected = oracle(hashes, radius, others)
    assert h.near_pairs(hashes, radius, others).tolist() == expected
    assert expected or radius < 8


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("radius", [0, 2, 3, 5, 9, 12])
def test_E6_near_pairs_by_bands_are_those_of_all_pairs(radius, words):
    """Enough hashes that the bands are used; compared with a plain loop over all pairs."""
    hashes = crowd(4000, words, seed=1, centres=700)
    a = hashes.reshape(len(hashes), -1)
    near = np.zeros((len(a), len(a)), dtype=np.uint16)
    for word in range(words):
        near += np.bitwise_count(a[:, None, word] ^ a[None, :, word])
    expected = np.argwhere(np.triu(near <= radius, 1))
    different = np.unique(a, axis=0)
    found = [np.stack(block, 1) for t in [0] for block in h._near_different(different, different, radius, True)]
    assert len(different) ** 2 * words / 2 > 4e6
    assert np.array_equal(h.near_pairs(hashes, radius), expected)
    assert len(np.concatenate(found)) <= len(expected)


def test_E6_bands_and_all_pairs_agree_between_two_sets(monkeypatch):
    a, b = crowd(3000, seed=2, centres=500), crowd(2500, seed=2, centres=500)
    bands = h.near_pairs(a, 6, b)
    used = []
    whole = h._all_pairs
    monkeypatch.setattr(h._Band, "cost", lambda self, limit: float("inf"))
    monkeypatch.setattr(h, "_all_pairs", lambda *x: used.append(1) or whole(*x))
    assert np.array_equal(h.near_pairs(a, 6, b), bands)
    assert used
    assert len(bands) > 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 15), max_size=40), st.integers(0, 64))
def test_E6_near_pairs_of_any_hashes(values, radius):
    hashes = np.array(values, dtype=np.uint64)
    expected = [[i, j] for i in range(len(values)) for j in range(i + 1, len(values)) if (values[i] ^ values[j]).bit_count() <= radius]
    assert h.near_pairs(hashes, radius).tolist() == expected
    both = h.near_pairs(hashes, radius, hashes[::-1])
    assert len(both) == 2 * len(expected) + len(values)


def test_E6_many_equal_hashes_stay_cheap():
    """A thousand of one hash: their pairs come from the group, and none is compared."""
    hashes = np.concatenate([np.full(1000, 7, np.uint64), crowd(3000, seed=3)])
    hashes[2000] = 6
    pairs = h.near_pairs(hashes, 1)
    assert len(pairs) == 1000 * 999 // 2 + 1000
    assert (np.diff(pairs[:, 0] * 4000 + pairs[:, 1]) > 0).all()


def test_E6_too_many_pairs_are_an_error(monkeypatch):
    monkeypatch.setattr(h, "MOST_PAIRS", 1000)
    with pytest.raises(UsageError, match="more than 1000 pairs of hashes lie within 3 bits"):
        h.near_pairs(np.zeros(100, np.uint64), 3)


def test_E6_wrong_hashes():
    assert h.near_pairs(np.zeros(0, np.uint64), 3).shape == (0, 2)
    assert h.near_pairs(np.zeros(4, np.uint64), -1).shape == (0, 2)
    for bad in (np.zeros(3), np.zeros((2, 2, 2), np.uint64), [1, 2]):
        with pytest.raises(UsageError):
            h.near_pairs(bad, 1)
    with pytest.raises(UsageError, match="1 and 2 words"):
        h.near_pairs(np.zeros(3, np.uint64), 1, np.zeros((3, 2), np.uint64))
