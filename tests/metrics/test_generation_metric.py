"""The sliced Wasserstein distance of patches, against SciPy's distance and distributions of known order."""

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.metrics.generation import GenerationMetric, expand, laplacian_pyramid
from saccade.types.prediction import Generated


def textures(count, seed, *, shape=(3, 32, 32), smooth=1, noise=0.0):
    """Blobs: smoothed noise, stretched to 0..255."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(count, *shape)), (0, 0, smooth, smooth), mode="wrap")
    field = field / field.std((1, 2, 3), keepdims=True) + noise * rng.normal(size=field.shape)
    return np.clip(128 + 40 * field, 0, 255).astype(np.uint8)


def metric_of(made, real, **options):
    metric = GenerationMetric(**options)
    metric.update([Generated(image=torch.from_numpy(m)) for m in made], [{"image": torch.from_numpy(r)} for r in real])
    return metric


def test_the_same_pictures_are_nearest_and_worse_ones_farther():
    real = textures(64, 0)
    same = metric_of(real, real).compute()
    like = metric_of(textures(64, 1), real).compute()
    noisy = metric_of(textures(64, 2, noise=0.5), real).compute()
    wrong = metric_of(textures(64, 3, smooth=3), real).compute()
    assert same["swd"] < like["swd"] < noisy["swd"] < wrong["swd"]
    assert like["neg_swd"] == -like["swd"]
    assert set(like) == {"neg_swd", "swd", "swd/32", "swd/16"}
    assert like["swd"] == pytest.approx((like["swd/32"] + like["swd/16"]) / 2)


def test_fine_noise_shows_at_the_fine_level():
    real = textures(64, 0, smooth=3)
    noisy = metric_of(textures(64, 1, smooth=3, noise=0.3), real).compute()
    like = metric_of(textures(64, 1, smooth=3), real).compute()
    assert noisy["swd/32"] > 2 * like["swd/32"]


def test_distance_of_a_projection_is_scipys():
    from scipy.stats import wasserstein_distance

    metric = GenerationMetric(directions=1)
    made, real = torch.randn(200, 5), torch.randn(200, 5) * 2 + 1
    ours = metric._distance(made, real, torch.Generator().manual_seed(3))
    direction = torch.randn(5, 1, generator=torch.Generator().manual_seed(3))
    direction /= direction.norm()
    expected = wasserstein_distance((made @ direction).flatten().numpy(), (real @ direction).flatten().numpy())
    assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (70, 33)])
def test_pyramid_adds_up_to_the_image(size):
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    levels = laplacian_pyramid(images)
    total = levels[-1]
    for level in reversed(levels[:-1]):
        total = level + expand(total, level.shape[-2:])
    torch.testing.assert_close(total, images)
    assert min(levels[-1].shape[-2:]) >= 16


def test_smooth_pictures_have_empty_bands():
    ramp = torch.linspace(0, 255, 64)[None, None, :, None].expand(1, 1, 64, 64)
    band = laplacian_pyramid(ramp)[0]
    assert band[..., 8:-8, 8:-8].abs().max() < 1e-3


def test_it_is_repeatable_and_merges():
    made, real = textures(20, 0), textures(20, 1)
    whole = metric_of(made, real)
    parts = [pickle.loads(pickle.dumps(metric_of(made[k], real[k]).state())) for k in (slice(10), slice(10, 20))]
    merged = GenerationMetric()
    merged.merge(parts)
    assert merged.compute() == whole.compute() == whole.compute()
    assert merged.tables() == {"pictures": 20}


def test_real_pictures_are_read_and_fitted(tmp_path):
    Image.fromarray(np.moveaxis(textures(1, 0, shape=(3, 64, 48))[0], 0, -1)).save(tmp_path / "a.png")
    metric = GenerationMetric()
    made = textures(2, 1, shape=(1, 32, 32))
    truths = [{"path": str(tmp_path / "a.png")}, {"image": torch.from_numpy(textures(1, 2, shape=(3, 40, 40))[0])}]
    metric.update([Generated(image=torch.from_numpy(m)) for m in made], truths)
    assert [p.shape for p in metric.state()[1]] == [(1, 32, 32)] * 2
    assert math.isfinite(metric.compute()["swd"])


def test_nothing_is_nan_and_odd_sizes_raise():
    assert math.isnan(GenerationMetric().compute()["neg_swd"])
    small = textures(1, 0, shape=(1, 6, 9))
    with pytest.raises(ValueError, match="7 pixels"):
        metric_of(small, small)
    metric = metric_of(textures(1, 0), textures(1, 0))
    with pytest.raises(ValueError, match="the first one"):
        metric.update([Generated(image=torch.zeros(1, 32, 32, dtype=torch.uint8))], [{"image": torch.zeros(1, 32, 32, dtype=torch.uint8)}])
    flat = np.zeros((2, 1, 28, 28), dtype=np.uint8)
    assert metric_of(flat, flat).compute()["swd"] == 0
