"""Graph segmentation against a literal transcription of the paper's algorithm and hand-computed cases."""

import numpy as np
import pytest
import torch

from saccade import image as ops
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))


def literal(image, k, min_size=1):
    """Felzenszwalb and Huttenlocher's algorithm 1 on sets of pixels, weights on the scale of 0..255."""
    values = np.atleast_3d(image).astype(float)
    height, width = values.shape[:2]
    edges = []
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1)):
                if v < height and 0 <= u < width:
                    weight = float(np.sqrt(((values[y, x] - values[v, u]) ** 2).sum()))
                    edges.append((weight, y * width + x, v * width + u))
    edges.sort()
    segment = [{p} for p in range(height * width)]  # of each pixel; pixels of a segment share the set
    internal = {id(s): 0.0 for s in segment}
    kept = list(segment)  # so that no id is used twice

    def merge(a, b, weight):
        union = a | b
        kept.append(union)
        internal[id(union)] = weight
        for p in union:
            segment[p] = union

    for weight, p, q in edges:
        a, b = segment[p], segment[q]
        if a is not b and weight <= min(internal[id(a)] + k / len(a), internal[id(b)] + k / len(b)):
            merge(a, b, weight)
    for weight, p, q in edges:
        a, b = segment[p], segment[q]
        if a is not b and min(len(a), len(b)) < min_size:
            merge(a, b, weight)
    return np.array([min(s) for s in segment]).reshape(height, width)


def partition(labels):
    """Each pixel by the first one of its segment."""
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return first[number.reshape(labels.shape)]


def blocks(shape, seed, noise=24):
    """Blocks of grey or colour with noise on them."""
    random = np.random.default_rng(seed)
    large = random.integers(0, 232, (3, 3, *shape[2:])).repeat(-(-shape[0] // 3), 0).repeat(-(-shape[1] // 3), 1)
    return (large[: shape[0], : shape[1]] + random.integers(0, noise, shape)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(9, 8), (8, 9, 3)])
@pytest.mark.parametrize("k", [0.7, 7.3, 60.7, 300.1, 2000.9])  # k / |C| with a fraction: no ties between Dif and MInt
def test_D7_graph_segments_are_the_papers(shape, k):
    for seed in range(4):
        image = blocks(shape, seed) if seed % 2 else np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        assert (partition(ops.graph_segments(image, k=k, sigma=0, min_size=1)) == partition(literal(image, k))).all()


def test_D7_small_segments_join_the_neighbour_at_the_lightest_edge():
    random = np.random.default_rng(5)
    image = random.permutation(200)[:72].reshape(8, 9).astype(np.float64) ** 1.1 / 400  # no two weights alike
    fine = ops.graph_segments(image, k=30, sigma=0, min_size=1)
    coarse = ops.graph_segments(image, k=30, sigma=0, min_size=6)
    assert np.bincount(fine.ravel()).min() < 6 <= np.bincount(coarse.ravel()).min()
    assert (partition(coarse) == partition(literal(image * 255, 30, 6))).all()


def test_D7_two_flat_halves_part_where_their_step_exceeds_tau():
    """Inside Int = 0; at last two halves of 20 pixels each stand face to face: a border where the step is above k / 20."""
    image = np.full((5, 8), 50, np.uint8)
    image[:, 4:] = 70
    two = ops.graph_segments(image, k=20 * 19.9, sigma=0, min_size=1)
    assert two.dtype == np.int64
    assert (two == np.repeat([[0, 1]], 5, 0).repeat(4, 1)).all()
    assert not ops.graph_segments(image, k=20 * 20.1, sigma=0, min_size=1).any()
    assert not ops.graph_segments(image, k=10, sigma=0, min_size=21).any()


def test_D7_a_larger_k_gives_fewer_segments():
    image = blocks((40, 50, 3), 3, noise=60)
    counts = [ops.graph_segments(image, k=k, sigma=0.5, min_size=1).max() + 1 for k in (1, 30, 200, 1000, 5000, 1e6)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 10 * counts[3]
    assert counts[-1] == 1


@every_dtype
def test_D7_every_dtype_gives_the_same_segments(dtype):
    image = blocks((20, 24, 3), 1)
    expected = ops.graph_segments(image)
    other = image.astype(dtype) / 255 if dtype.startswith("float") else image.astype(dtype) * (TOP[dtype] // 255)
    other = other.astype(dtype)
    assert (ops.graph_segments(other) == expected).all()
    assert expected.max() > 2
    clear = np.dstack([other, np.zeros((20, 24), dtype)])
    assert (ops.graph_segments(clear) == expected).all()
    shown = ops.graph_regions(clear)
    assert shown.dtype == dtype
    assert (shown[..., 3] == 0).all()
    assert (shown[..., :3] == ops.graph_regions(other)).all()


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 3)])
def test_D7_regions_have_the_mean_colour(shape):
    image = blocks(shape, 2)
    labels, shown = ops.graph_segments(image, k=100, min_size=5), ops.graph_regions(image, k=100, min_size=5)
    assert shown.shape == image.shape
    assert labels.max() > 2
    for label in range(labels.max() + 1):
        mean = image[labels == label].mean(0)
        assert (np.abs(shown[labels == label] - mean) <= 0.5 + 1e-9).all()


def test_D7_tensors_small_images_and_bad_options():
    image = blocks((12, 10, 3), 4)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    assert (ops.graph_regions(tensor).numpy().transpose(1, 2, 0) == ops.graph_regions(image)).all()
    one, two = ops.graph_segments(torch.stack([tensor, 255 - tensor]))
    assert (one == ops.graph_segments(image)).all()
    assert two.shape == (12, 10)
    for shape in ((1, 1), (1, 7), (7, 1, 3)):
        assert (ops.graph_segments(np.full(shape, 9, np.uint8)) == np.zeros(shape[:2])).all()
        assert (ops.graph_regions(np.full(shape, 9, np.uint8)) == 9).all()
    for options in ({"k": -1.0}, {"sigma": -0.1}, {"min_size": 0}, {"k": "many"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            ops.graph_segments(image, **options)
