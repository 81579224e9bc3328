"""MSE, PSNR and SSIM against scikit-image and by hand."""

import math

import numpy as np
import pytest
import torch
from skimage import metrics

from saccade import image as ops
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))


def pair(dtype="uint8", shape=(30, 35)):
    rng = np.random.default_rng(0)
    a = np.cumsum(rng.normal(0, 0.05, shape), axis=1) % 1
    b = (a + rng.normal(0, 0.05, shape)).clip(0, 1)
    return tuple(x.astype(dtype) if dtype.startswith("float") else np.rint(x * TOP[dtype]).astype(dtype) for x in (a, b))


@every_dtype
@pytest.mark.parametrize("shape", [(30, 35), (30, 35, 3), (11, 11)])
def test_I11_quality_is_scikit_images(dtype, shape):
    a, b = pair(dtype, shape)
    top = TOP[dtype]
    assert ops.mse(a, b) == pytest.approx(metrics.mean_squared_error(a, b) / top**2)
    assert ops.psnr(a, b) == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=top))
    theirs = metrics.structural_similarity(
        a, b, data_range=top, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1 if len(shape) == 3 else None
    )
    assert ops.ssim(a, b) == pytest.approx(theirs, abs=1e-6)
    assert 0.1 < theirs < 0.999


def test_I11_psnr_by_hand():
    a = np.zeros((4, 4), np.uint8)
    assert ops.psnr(a, np.full((4, 4), 25, np.uint8)) == pytest.approx(20 * math.log10(255 / 25))  # sigma 25 is 20.17 dB
    assert ops.psnr(a, a) == math.inf
    assert ops.ssim(*(np.zeros((12, 12), np.uint8),) * 2) == 1
    black, white = np.zeros((12, 12)), np.ones((12, 12))
    assert ops.ssim(black, white) == pytest.approx(1e-4 / (1 + 1e-4))  # only the constants are left


def test_I11_quality_of_tensors_and_batches_and_alpha():
    a, b = pair("uint8", (20, 21, 3))
    ta, tb = (torch.from_numpy(x.transpose(2, 0, 1).copy()) for x in (a, b))
    assert ops.ssim(ta, tb) == ops.ssim(a, b)
    assert ops.psnr(torch.stack([ta, ta]), torch.stack([tb, ta])) == [ops.psnr(a, b), math.inf]
    alpha = np.concatenate([b, a[..., :1]], axis=2)
    assert ops.mse(np.concatenate([a, b[..., :1]], axis=2), alpha) == ops.mse(a, b)


def test_I11_ssim_of_a_large_image_is_that_of_all_its_windows():
    a, b = pair("uint8", (700, 450))
    theirs = metrics.structural_similarity(a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert ops.ssim(a, b) == pytest.approx(theirs, abs=1e-9)


def test_I11_quality_tells_what_is_wrong():
    a, b = pair()
    for call, words in [
        (lambda: ops.ssim(a[:10], b[:10]), "at least 11x11"),
        (lambda: ops.psnr(a, b[:, 1:]), "one size"),
        (lambda: ops.mse(a, b / 255), "one kind and dtype"),
        (lambda: ops.ssim(a / 255, np.where(b > 200, np.nan, b / 255)), "NaN"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()
