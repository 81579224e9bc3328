"""Denoisers against scikit-image, SciPy and literal loops; and that they do denoise."""

import numpy as np
import pytest
import torch
from scipy import ndimage, signal
from skimage import data, restoration

from saccade import image as ops
from saccade.image import denoise, filters
from saccade.types.errors import UsageError

TOP = {"uint8": 255, "uint16": 65535, "float32": 1, "float64": 1}
every_dtype = pytest.mark.parametrize("dtype", list(TOP))


def picture(dtype="float64", shape=(24, 27), seed=0, sigma=0.06):
    """Pieces with edges and soft ground, noisy."""
    clean = scene(shape)
    values = (clean + np.random.default_rng(seed).normal(0, sigma, shape)).clip(0, 1)
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * TOP[dtype]).astype(dtype)


def scene(shape):
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    values = 0.25 + 0.3 * x + 0.25 * (np.hypot(x - 0.5, y - 0.4) < 0.25)
    return values if len(shape) == 2 else np.stack([values, values * 0.8, 1 - values], axis=-1)[..., : shape[2]]


def close(result, expected, dtype, atol=1e-5, levels=1.0):
    assert result.dtype == dtype
    top = TOP[dtype]
    np.testing.assert_allclose(result / top, np.clip(expected, 0, 1), atol=atol if top != 255 else (levels + 1e-3) / 255)


# ----------------------------------------------------------------------------------------------------------------- Wiener


@every_dtype
@pytest.mark.parametrize("shape", [(24, 27), (24, 26, 3)])
def test_I11_wiener_with_a_given_blur_is_scikit_images(dtype, shape):
    image, weights = picture(dtype, shape), filters.kernel("motion:5:20")
    delta = np.zeros((24, shape[1]))
    delta[0, 0] = 1
    expected = np.stack(
        [
            restoration.wiener(c, np.ascontiguousarray(weights[::-1, ::-1]), 0.02, reg=np.fft.rfft2(delta), is_real=True, clip=False)
            for c in np.moveaxis(np.atleast_3d(image / TOP[dtype]), -1, 0)
        ],
        axis=-1,
    ).reshape(shape)
    close(ops.wiener(image, "motion:5:20", noise_to_signal=0.02, border="wrap"), expected, dtype, levels=0.5)


def test_I11_wiener_is_the_formula_for_any_transfer_function_and_powers():
    image, rng = picture(), np.random.default_rng(1)
    fy, fx = np.fft.fftfreq(24)[:, None], np.fft.fftfreq(27)
    transfer = np.exp(-5 * (fy**2 + fx**2) - 2j * np.pi * (2 * fx + fy))
    power = rng.random((24, 27))
    power = (power + np.roll(power[::-1, ::-1], (1, 1), (0, 1))) / 2  # the same at f and -f
    expected = np.fft.ifft2(np.conj(transfer) / (np.abs(transfer) ** 2 + power) * np.fft.fft2(image)).real
    half = slice(None, 27 // 2 + 1)
    np.testing.assert_allclose(denoise.wiener_filter(image, transfer[:, half], power[:, half]), expected, atol=1e-9)


def test_I11_wiener_without_a_word_estimates_the_noise():
    clean = data.camera()[100:228, 100:228] / 255
    noisy = (clean + np.random.default_rng(0).normal(0, 0.08, clean.shape)).clip(0, 1)
    assert ops.psnr(ops.wiener(noisy), clean) > ops.psnr(noisy, clean) + 2
    flat = np.full((40, 50, 3), 200, np.uint8)
    assert np.array_equal(ops.wiener(flat), flat)


def test_I11_wiener_without_noise_undoes_the_blur():
    clean = scene((32, 33))
    for name in ("gaussian:0.7:5", "motion:4:0"):
        weights = filters.kernel(name)
        blurred = ndimage.correlate(clean, weights, mode="wrap")
        restored = ops.wiener(blurred, name, noise_to_signal=1e-9, border="wrap")
        assert np.abs(restored - clean).max() < 1e-3 < np.abs(blurred - clean).max()
    asymmetric = [[0.0, 0, 0], [0, 0.6, 0.4], [0, 0, 0]]
    blurred = ndimage.correlate(clean, np.array(asymmetric), mode="wrap")
    np.testing.assert_allclose(ops.wiener(blurred, asymmetric, noise_to_signal=0.0, border="wrap"), clean, atol=1e-9)


@pytest.mark.parametrize("blur", ["motion:9:30", "gaussian:1.5"])
def test_I11_wiener_restores_a_blurred_and_noisy_picture_with_other_surroundings(blur):
    """What lies outside is not periodic and unknown: frames that are blurred towards their ends keep the seam from ringing."""
    y, x = np.mgrid[:110, :120]
    clean = 0.6 * scene((110, 120)) + 0.3 * ((y // 7 + x // 9) % 2)
    inside = (slice(15, -15),) * 2
    blurred = ndimage.correlate(clean, filters.kernel(blur), mode="mirror")[inside]
    noisy = (blurred + np.random.default_rng(0).normal(0, 0.003, blurred.shape)).clip(0, 1)
    before, periodic = (ops.psnr(x, clean[inside]) for x in (noisy, ops.wiener(noisy, blur, sigma=0.003, border="wrap")))
    after = ops.psnr(ops.wiener(noisy, blur, sigma=0.003), clean[inside])
    assert after > before + 1
    assert after > periodic + 2


def test_I11_natural_noise_to_signal_falls_as_its_model():
    image = picture(shape=(24, 26), sigma=0.0)
    power = denoise.natural_noise_to_signal(image, 0.1)
    assert power[0, 0] == 0
    assert power[0, 4] / power[0, 2] == pytest.approx(4)
    fy, fx = np.fft.fftfreq(24)[:, None], np.fft.fftfreq(26)
    squared = fy**2 + fx**2
    squared[0, 0] = np.inf
    variance = image.var() - 0.01
    # the model's powers, summed over the whole spectrum, give the variance
    signal_power = 0.01 / power[0, 2] * (squared[0, 2] / squared)
    assert signal_power.mean() == pytest.approx(max(variance, 1e-8))


@every_dtype
@pytest.mark.parametrize("shape", [(24, 27), (24, 27, 3)])
def test_I11_adaptive_wiener_is_scipys(dtype, shape):
    image = picture(dtype, shape)
    for noise in (None, 0.05):
        expected = np.stack(
            [signal.wiener(c, 5, None if noise is None else noise**2) for c in np.moveaxis(np.atleast_3d(image / TOP[dtype]), -1, 0)], -1
        ).reshape(shape)
        close(ops.adaptive_wiener(image, size=5, sigma=noise, border="constant"), expected, dtype, levels=0.5)
    assert ops.adaptive_wiener(np.full((4, 4), TOP[dtype], dtype), size=9).min() >= TOP[dtype] * (1 - 1e-6)


# ------------------------------------------------------------------------------------------------- edge-keeping means


@every_dtype
@pytest.mark.parametrize("shape", [(12, 13), (12, 13, 3)])
def test_I11_bilateral_is_the_literal_mean(dtype, shape):
    image = picture(dtype, shape)
    values = np.atleast_3d(image / TOP[dtype])
    wide = np.pad(values, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    total, weight = np.zeros_like(values), np.zeros(shape[:2])
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            if dy * dy + dx * dx <= 9:
                other = wide[3 + dy : 3 + dy + shape[0], 3 + dx : 3 + dx + shape[1]]
                difference = np.abs(other - values).sum(-1)
                w = np.exp(-(dy * dy + dx * dx) / (2 * 2**2) - difference**2 / (2 * 0.1**2))
                weight += w
                total += w[..., None] * other
    expected = (total / weight[..., None]).reshape(shape)
    close(ops.bilateral(image, sigma_color=0.1, sigma_space=2.0, size=7), expected, dtype, atol=2e-4, levels=0.6)


@every_dtype
@pytest.mark.parametrize("shape", [(11, 12), (11, 12, 3)])
def test_I11_non_local_means_is_the_literal_mean(dtype, shape):
    image = picture(dtype, shape)
    values = np.atleast_3d(image / TOP[dtype])
    h, patch, search = 0.08, 3, 7
    reach = patch // 2 + search // 2
    wide = np.pad(values, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")

    def around(y, x):
        return wide[y + reach - 1 : y + reach + 2, x + reach - 1 : x + reach + 2]

    expected = np.zeros_like(values)
    for y, x in np.ndindex(*shape[:2]):
        weights = np.zeros((search, search))
        for dy, dx in np.ndindex(search, search):
            weights[dy, dx] = np.exp(-np.mean((around(y, x) - around(y + dy - 3, x + dx - 3)) ** 2) / h**2)
        window = wide[y + reach - 3 : y + reach + 4, x + reach - 3 : x + reach + 4]
        expected[y, x] = np.tensordot(weights, window, axes=([0, 1], [0, 1])) / weights.sum()
    # OpenCV leaves out weights below 0.001
    close(ops.non_local_means(image, h=h, patch=patch, search=search), expected.reshape(shape), dtype, levels=1.5)


# ---------------------------------------------------------------------------------------------------------------- wavelet


def analysed(values, low, step):
    """Periodic: as many coefficients as values."""
    reach = (len(low) - 1) * step
    return denoise._analysed(np.pad(values, (0, reach), "wrap"), low, step)


def synthesised(bands, low, step):
    reach = (len(low) - 1) * step
    return denoise._synthesised([np.pad(b, (reach, 0), "wrap") for b in bands], low, step)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
@pytest.mark.parametrize("shape", [(16, 16), (9, 13), (1, 1), (2, 5)])
def test_I11_the_wavelet_transform_is_inverted_exactly(wavelet, shape):
    values, low = np.random.default_rng(0).random(shape), denoise._WAVELETS[wavelet]
    for step in (1, 2, 4):
        np.testing.assert_allclose(synthesised(analysed(values, low, step), low, step), values, atol=1e-12)
    high = denoise._high(low)
    assert low @ low == pytest.approx(1)
    assert high @ high == pytest.approx(1)
    assert low @ high == pytest.approx(0, abs=1e-12)
    assert high.sum() == pytest.approx(0, abs=1e-12)
    assert low.sum() == pytest.approx(2**0.5)
    if wavelet == "db2":
        assert high @ np.arange(4) == pytest.approx(0, abs=1e-12)  # the second vanishing moment


def haar_matrix(size):
    """The orthonormal transform of one level: averages, then differences."""
    out = np.zeros((size, size))
    for k in range(size // 2):
        out[k, 2 * k : 2 * k + 2] = 0.5**0.5
        out[size // 2 + k, 2 * k : 2 * k + 2] = 0.5**0.5, -(0.5**0.5)
    return out


def test_I11_undecimated_shrinkage_is_the_mean_over_all_shifts():
    """Cycle spinning (Coifman, Donoho 1995) with the decimated Haar transform, one level and one threshold."""
    values, threshold, size = np.random.default_rng(0).random((8, 8)), 0.12, 8
    matrix, total = haar_matrix(size), np.zeros((8, 8))
    for dy, dx in np.ndindex(2, 2):
        coefficients = matrix @ np.roll(values, (-dy, -dx), (0, 1)) @ matrix.T
        details = np.ones((8, 8), bool)
        details[:4, :4] = False
        shrunk = np.where(details, np.sign(coefficients) * np.maximum(np.abs(coefficients) - threshold, 0), coefficients)
        total += np.roll(matrix.T @ shrunk @ matrix, (dy, dx), (0, 1))
    low = denoise._WAVELETS["haar"]
    smooth, *details = analysed(values, low, 1)
    details = [np.sign(d) * np.maximum(np.abs(d) - threshold / 2, 0) for d in details]  # half the orthonormal coefficient
    np.testing.assert_allclose(synthesised([smooth, *details], low, 1), total / 4, atol=1e-12)


def test_I11_bayes_shrink_threshold_by_its_formula():
    band = np.random.default_rng(0).normal(0, 0.5, 4000)
    threshold = 0.3**2 / np.sqrt(np.mean(band**2) - 0.3**2)
    expected = np.sign(band) * np.maximum(np.abs(band) - threshold, 0)
    np.testing.assert_allclose(denoise._shrunk(band, 0.3, np.mean(band**2)), expected, atol=1e-12)
    assert not denoise._shrunk(band, 0.6, np.mean(band**2)).any()  # no more than noise


@pytest.mark.parametrize(
    ("wavelet", "levels", "shape"), [("haar", 4, (900, 301)), ("db2", 3, (1300, 220)), ("haar", 5, (40, 33)), ("haar", 7, (300, 70))]
)
def test_I11_wavelet_shrinkage_in_strips_is_that_of_the_whole_image(wavelet, levels, shape):
    """The transform written with np.roll on the whole image with its mirrored frame."""
    low, sigma = denoise._WAVELETS[wavelet], 0.1
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    image = np.clip(picture("float64", shape, sigma=sigma), 0, 1)
    reach = (len(low) - 1) * 2 ** (levels - 1)

    def taps(x, f, step, axis):
        return sum(t / 2**0.5 * np.roll(x, -k * step, axis) for k, t in enumerate(f))

    def shrunk(band, noise):
        signal = np.sqrt(max(np.mean(band**2) - noise**2, 0))
        return np.sign(band) * np.maximum(np.abs(band) - noise**2 / signal, 0) if signal else 0 * band

    smooth, kept = np.pad(image, reach, "symmetric"), []
    for level in range(levels):
        bands = [taps(taps(smooth, a, 2**level, 0), b, 2**level, 1) for a in (low, high) for b in (low, high)]
        smooth, *details = bands
        kept.append([shrunk(d, sigma / 2 ** (level + 1)) for d in details])
    for level in reversed(range(levels)):
        pairs = zip([smooth, *kept[level]], [(a, b) for a in (low, high) for b in (low, high)], strict=True)
        smooth = sum(taps(taps(band, b, -(2**level), 1), a, -(2**level), 0) for band, (a, b) in pairs)
    expected = smooth[reach : reach + shape[0], reach : reach + shape[1]].clip(0, 1)
    found = ops.wavelet_shrinkage(image, sigma=sigma, levels=levels, wavelet=wavelet)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(found - image).max() > 0.1


@every_dtype
def test_I11_estimate_sigma(dtype):
    for sigma in (0.02, 0.08):
        image = picture(dtype, (90, 95, 3), sigma=sigma)
        assert ops.estimate_sigma(image) == pytest.approx([sigma] * 3, rel=0.1)
        assert ops.estimate_sigma(image[..., 0]) == pytest.approx(sigma, rel=0.1)
    assert ops.estimate_sigma(np.full((1, 1), TOP[dtype], dtype)) < 1e-6


# -------------------------------------------------------------------------------------------------------- total variation


def energy(u, f, weight):
    dy, dx = np.diff(u, axis=0, append=u[-1:]), np.diff(u, axis=1, append=u[:, -1:])
    return np.sqrt(dx**2 + dy**2).sum() + ((u - f) ** 2).sum() / (2 * weight)


def literal_rof(f, weight, steps=2000):
    """Chambolle's fixed point of the dual problem (2004), equation 9."""
    p = np.zeros((2, *f.shape))
    for _ in range(steps):
        div = np.diff(p[0], axis=0, prepend=0) + np.diff(p[1], axis=1, prepend=0)
        g = np.stack([np.diff(div - f / weight, axis=a, append=np.take(div - f / weight, [-1], a)) for a in (0, 1)])
        p = (p + 0.24 * g) / (1 + 0.24 * np.sqrt((g**2).sum(0)))
        p[0, -1], p[1, :, -1] = 0, 0
    div = np.diff(p[0], axis=0, prepend=0) + np.diff(p[1], axis=1, prepend=0)
    return f - weight * div


def test_I11_total_variation_minimises_its_energy():
    image, weight = picture(), 0.1
    best = literal_rof(image, weight)
    ours = ops.total_variation(image, weight=weight, iterations=3000)
    assert energy(ours, image, weight) == pytest.approx(energy(best, image, weight), rel=1e-2)
    assert energy(ours, image, weight) < 0.8 * energy(image, image, weight)
    np.testing.assert_allclose(ours, best, atol=0.02)


@every_dtype
def test_I11_total_variation_of_dtypes(dtype):
    image = picture(dtype, (16, 17, 3))
    expected = restoration.denoise_tv_chambolle(image / TOP[dtype], 0.1, eps=2e-5, max_num_iter=200, channel_axis=-1)
    close(ops.total_variation(image), expected, dtype, atol=2e-3, levels=1)


# ------------------------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize("name", denoise.DENOISERS)
@pytest.mark.parametrize("shape", [(48, 52), (48, 52, 3)])
def test_I11_every_denoiser_denoises(name, shape):
    clean, function = scene(shape), getattr(ops, name)
    options = {"wiener": {"sigma": 0.06}, "non_local_means": {"h": 0.06}, "bilateral": {"sigma_color": 0.2}}.get(name, {})
    for dtype in ("uint8", "float32"):
        noisy = picture(dtype, shape)
        exact = (clean * TOP[dtype]).astype(dtype)
        before, after = ops.psnr(noisy, exact), ops.psnr(function(noisy, **options), exact)
        assert after > before + 3


@pytest.mark.parametrize("name", denoise.DENOISERS)
@every_dtype
def test_I11_even_images_one_pixel_and_tensors(name, dtype):
    function = getattr(ops, name)
    for shape in ((1, 1), (2, 3, 3)):
        image = np.full(shape, round(0.4 * TOP[dtype]) if TOP[dtype] > 1 else 0.4, dtype)
        options = {"noise_to_signal": 0.0} if name == "wiener" else {}  # its K shrinks all frequencies alike
        np.testing.assert_allclose(function(image, **options).astype(float), image.astype(float), atol=1e-5 * TOP[dtype])
    image = picture(dtype, (12, 13, 3))
    result = function(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    assert (result[0].numpy().transpose(1, 2, 0) == function(image)).all()


def test_I11_bad_options_are_told():
    image = picture()
    for call, words in [
        (lambda: ops.wiener(image, [[1, 1]]), "odd"),
        (lambda: ops.wiener(image, "gausian:1"), "did you mean 'gaussian'"),
        (lambda: ops.wiener(image, noise_to_signal=-1.0), "noise_to_signal"),
        (lambda: denoise.wiener_filter(image, np.ones((3, 3)), 0.1), "transfer function of a"),
        (lambda: ops.adaptive_wiener(image, size=4), "odd"),
        (lambda: ops.bilateral(image, sigma_color=0.0), "sigma_color"),
        (lambda: ops.bilateral(image, size=2), "odd"),
        (lambda: ops.non_local_means(image, patch=4), "patch"),
        (lambda: ops.non_local_means(image, h=0.0), "h "),
        (lambda: ops.wavelet_shrinkage(image, wavelet="db3"), "haar|db2"),
        (lambda: ops.wavelet_shrinkage(image, levels=0), "levels"),
        (lambda: ops.total_variation(image, weight=0.0), "weight"),
        (lambda: ops.bilateral(np.full((3, 3), np.nan)), "NaN"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()
