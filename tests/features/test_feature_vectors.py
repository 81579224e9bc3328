"""Features of whole images against scikit-image, OpenCV, scikit-learn and timm."""

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage.feature import local_binary_pattern

from saccade.features.backbone import BackboneFeatures
from saccade.features.base import create_features
from saccade.features.bow import BagOfWords
from saccade.features.color import ColorVector, color_histogram
from saccade.features.hog import hog
from saccade.features.lbp import lbp_histogram, lbp_labels
from saccade.features.multiscale import MultiscaleMaps
from saccade.features.names import VECTORS
from saccade.features.pixels import as_pixels, cells, in_threads, resized
from saccade.features.vectors import HogVector, PixelVector
from saccade.types.errors import UsageError

TINY = "timm/test_resnet.r160_in1k?size=64"
EVERY = ["hog", "sift_bow?words=8", "sift_bow?words=8&dense=true&levels=1", "lbp", "color", "pixels", TINY]


def picture(height=60, width=80, channels=3, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (-(-height // 5), -(-width // 5), channels), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def fitted(text, in_chans=3):
    features = create_features(text, in_chans=in_chans)
    features.fit(lambda: [[picture(channels=in_chans, seed=k) for k in range(4)]], seed=0)
    return features


def turns(bits):
    """How often neighbouring bits of a circle differ."""
    return sum(a != b for a, b in zip(bits, bits[1:] + bits[:1], strict=True))


# -- one interface ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
def test_F9_any_image_gives_a_vector_of_one_length(text):
    for in_chans in (3, 1):
        features = fitted(text, in_chans)
        sizes = [(1, 1), (1, 40), (57, 3), (33, 47), (200, 90)]
        images = [picture(*size, in_chans, seed) for seed, size in enumerate(sizes)]
        out = features(images)
        assert out.dtype == np.float32
        assert out.shape[0] == len(images)
        assert np.isfinite(out).all()
        one = features([images[3]])
        np.testing.assert_allclose(out[3:4], one, atol=1e-5)
        tensor = torch.from_numpy(np.moveaxis(images[3], -1, 0).copy())
        np.testing.assert_allclose(features([tensor]), one, atol=1e-6)


def test_F9_a_description_is_read_and_checked():
    assert create_features("hog?size=32&cell=4&bins=6")([picture()]).shape == (1, 7 * 7 * 4 * 6)
    assert create_features("lbp?rotation_invariant=true&grid=3")([picture()]).shape == (1, 9 * 10)
    for text, said in (
        ("hogg", "did you mean 'hog'"),
        ("", "known: hog, sift_bow"),
        ("timm", "no features"),
        ("hog/resnet18", "no features"),
        ("timm/resnet17", "did you mean"),
        ("timm/hf-hub:a/b", "no model"),
        ("hog?cel=4", "did you mean 'cell'"),
        ("hog?in_chans=1", "no option 'in_chans'"),
        ("timm/resnet18?architecture=a", "no option 'architecture'"),
        ("hog?cell", "a whole number"),
        ("hog?convention=mine", "expected one of"),
        ("hog?size=63", "whole cells"),
        ("hog?size=8", "lies in 16..1024"),
        ("lbp?points=99", "lies in 2..24"),
        ("color?bins=64", "lies in 1..16"),
        ("sift_bow?norm=l3", "expected one of"),
    ):
        with pytest.raises(UsageError, match=said):
            create_features(text)
    with pytest.raises(UsageError, match="no weights are published"):
        create_features("hog", pretrained=True)
    with pytest.raises(UsageError, match="named by a text"):
        create_features(None)
    assert set(VECTORS) == {"hog", "sift_bow", "lbp", "color", "pixels", "timm"}


@pytest.mark.parametrize("text", EVERY)
def test_F9_one_image_is_no_list_and_a_batch_is(text):
    features = fitted(text)
    batch = torch.from_numpy(np.stack([picture(seed=k) for k in range(3)])).permute(0, 3, 1, 2)
    expected = features([picture(seed=k) for k in range(3)])
    np.testing.assert_array_equal(features(batch), expected)
    np.testing.assert_array_equal(features(batch.permute(0, 2, 3, 1).numpy()), expected)
    np.testing.assert_array_equal(features([np.dstack([picture(seed=k) / 255, np.ones((60, 80))]) for k in range(3)]), expected)
    for one in (picture(), picture()[..., 0], batch[0], Image.fromarray(picture()), "a.png", None, iter([picture()])):
        with pytest.raises(UsageError, match="a list of images, not"):
            features(one)
        if "bow" in text:
            with pytest.raises(UsageError, match="a list of images, not"):
                features.fit(lambda one=one: [one])
    for none in ([], batch[:0]):
        with pytest.raises(UsageError, match="at least one image"):
            features(none)


def test_F9_helpers():
    assert in_threads(lambda v: v * v, range(50)) == [v * v for v in range(50)]
    grid = cells((5, 4), 2)
    assert grid.tolist() == [[0, 0, 1, 1]] * 3 + [[2, 2, 3, 3]] * 2
    assert cells((1, 1), 4).tolist() == [[0]]
    image = picture()
    assert resized(image, (60, 80)) is image
    pillow = Image.fromarray(image[..., 0])
    smaller = np.asarray(pillow.resize((20, 15), Image.Resampling.BILINEAR))  # low-passed too
    assert np.abs(resized(image[..., 0], (15, 20)).astype(int) - smaller.astype(int)).max() <= 1
    np.testing.assert_array_equal(as_pixels(pillow), image[..., 0])


def test_F1_the_vector_is_the_descriptor_of_the_square():
    image = picture(64, 64)
    np.testing.assert_array_equal(create_features("hog")([image])[0], hog(image))
    assert hog(image).shape == (7 * 7 * 36,)
    np.testing.assert_array_equal(create_features("pixels?size=64", in_chans=1)([image[..., 0]])[0] * 255, image[..., 0].ravel())


# -- local binary patterns ----------------------------------------------------------------------------


def test_F9_lbp_of_8_points_has_58_uniform_patterns_and_59_labels():
    """Ojala et al. 2002, section 2.4: patterns whose circle of bits changes at most twice."""
    for points in (4, 8, 12):
        uniform = sum(turns([code >> k & 1 for k in range(points)]) <= 2 for code in range(2**points))
        assert uniform == points * (points - 1) + 2
        assert lbp_labels(points) == uniform + 1
        assert lbp_labels(points, rotation_invariant=True) == points + 2
    assert lbp_labels(8) == 59
    assert create_features("lbp?grid=7")([picture()]).shape == (1, 7 * 7 * 59)


def test_F9_lbp_histogram_is_scikit_images_patterns_counted():
    image = picture(30, 43, 1)[..., 0]
    out = lbp_histogram(image, points=8, radius=2, grid=2).reshape(2, 2, 59)
    labels = local_binary_pattern(image, 8, 2, "nri_uniform")
    for row, rows in enumerate((slice(0, 15), slice(15, 30))):
        for column, columns in enumerate((slice(0, 22), slice(22, 43))):
            part = labels[rows, columns]
            expected = np.histogram(part, bins=59, range=(0, 59))[0] / part.size
            np.testing.assert_allclose(out[row, column], expected, atol=1e-7)
    np.testing.assert_allclose(lbp_histogram(image, grid=4).reshape(16, 59).sum(1), 1, rtol=1e-5)


def test_F9_lbp_sees_no_change_of_brightness_and_its_invariant_form_no_quarter_turn():
    image = (picture(40, 40, 1)[..., 0] // 2).astype(np.uint8)
    np.testing.assert_allclose(lbp_histogram(image), lbp_histogram(image + 60), atol=0.01)  # but where samples tie, and at the border
    inner = [lbp_histogram(np.rot90(image, k).copy(), rotation_invariant=True) for k in range(2)]
    np.testing.assert_allclose(inner[0], inner[1], atol=0.01)  # the bilinear samples round differently
    assert np.abs(lbp_histogram(image) - lbp_histogram(np.rot90(image).copy())).max() > 0.01


# -- colour -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["hsv", "rgb"])
def test_F9_color_histogram_is_opencvs(space):
    image = picture(50, 70)
    plane = cv2.cvtColor(image, cv2.COLOR_RGB2HSV) if space == "hsv" else image
    top = 180 if space == "hsv" else 256
    joint = cv2.calcHist([plane], [0, 1, 2], None, [8, 8, 8], [0, top, 0, 256, 0, 256])
    np.testing.assert_allclose(color_histogram(image, space=space), joint.ravel() / joint.sum(), atol=1e-7)
    each = [cv2.calcHist([plane], [c], None, [16], [0, top if c == 0 else 256]).ravel() / (50 * 70) for c in range(3)]
    np.testing.assert_allclose(color_histogram(image, space=space, bins=16, joint=False), np.concatenate(each), atol=1e-7)


def test_F9_color_histogram_of_grey_and_of_cells():
    grey = picture(20, 20, 1)[..., 0]
    expected = cv2.calcHist([grey], [0], None, [8], [0, 256]).ravel() / 400
    np.testing.assert_allclose(color_histogram(grey), expected, atol=1e-7)
    image = np.zeros((10, 10, 3), np.uint8)
    image[:5, :, 0], image[5:, :, 2] = 255, 255  # red above blue
    out = color_histogram(image, space="rgb", bins=2, grid=2).reshape(4, 8)
    np.testing.assert_array_equal(out.argmax(1), [0b100, 0b100, 0b001, 0b001])  # the first channel is the slowest
    np.testing.assert_array_equal(out.max(1), 1)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        *((color_histogram, options) for options in ({"space": "x"}, {"space": None}, {"bins": 0}, {"bins": 17}, {"bins": 2.5})),
        *((color_histogram, options) for options in ({"bins": 257, "joint": False}, {"grid": 0}, {"grid": 100_000})),
        *((lbp_histogram, options) for options in ({"radius": -1}, {"radius": 0}, {"radius": float("nan")}, {"radius": "1"})),
        *((lbp_histogram, options) for options in ({"grid": 0}, {"grid": -1}, {"grid": 100_000}, {"grid": 1.5}, {"points": 0})),
        (ColorVector, {"space": "x"}),
        (HogVector, {"convention": "x"}),
        (BagOfWords, {"norm": "l3"}),
        (PixelVector, {"size": 2.5}),
        (MultiscaleMaps, {"mode": "x", "architecture": "resnet18"}),
        (BackboneFeatures, {"size": 0, "architecture": "resnet18"}),
    ],
)
def test_F9_functions_and_classes_check_their_options(function, options):
    image = () if isinstance(function, type) else (picture(),)
    with pytest.raises(UsageError, match=f"option {next(iter(options))}="):
        function(*image, **options)


# -- bags of words ------------------------------------------------------------------------------------


def bag(words, idf=None, **options):
    out = BagOfWords(words=len(words), **options)
    out.vocabulary = torch.as_tensor(words, dtype=torch.float32)
    out.idf = torch.ones(len(words)) if idf is None else torch.as_tensor(idf, dtype=torch.float32)
    return out


def test_F9_bag_of_words_counts_the_nearest_word_of_every_sift_descriptor():
    image = picture(128, 160, 1)[..., 0]
    values = cv2.SIFT_create().detectAndCompute(image, None)[1]
    assert len(values) > 30
    words = values[::7][:5]
    counts = np.bincount([int(np.argmin([np.linalg.norm(v - w) for w in words])) for v in values], minlength=5)
    np.testing.assert_allclose(bag(words).vector(image), np.sqrt(counts / counts.sum()), atol=1e-6)
    np.testing.assert_allclose(bag(words, norm="l2").vector(image), counts / np.linalg.norm(counts), atol=1e-6)
    idf = np.array([0.5, 1, 2, 0, 3])
    weighed = counts * idf
    np.testing.assert_allclose(bag(words, idf, norm="l2", tfidf=True).vector(image), weighed / np.linalg.norm(weighed), atol=1e-6)


def test_F9_spatial_pyramid_weighs_a_half_a_quarter_and_a_quarter():
    """Lazebnik et al. 2006, equation 3: with L = 2 the levels 0, 1, 2 weigh 1/4, 1/4, 1/2."""
    image = picture(128, 128, 1)[..., 0]
    words = np.random.default_rng(0).integers(0, 100, (3, 128))
    whole = bag(words, levels=2, norm="l2")
    places, values = whole.describe(image)
    word = whole.nearest(values)
    parts = []
    for level, weight in ((0, 1 / 4), (1, 1 / 4), (2, 1 / 2)):
        histogram = np.zeros((2**level, 2**level, 3))
        for (x, y), k in zip(places, word, strict=True):
            histogram[int(y * 2**level), int(x * 2**level), k] += weight
        parts.append(histogram.ravel())
    expected = np.concatenate(parts)
    out = whole.vector(image)
    assert out.shape == (3 * (1 + 4 + 16),)
    np.testing.assert_allclose(out, expected / np.linalg.norm(expected), atol=1e-6)


def test_F9_dense_descriptors_stand_on_a_grid():
    image = picture(64, 96, 1)[..., 0]
    places, values = bag(np.zeros((2, 128)), dense=True, step=16).describe(image)
    assert len(places) == 4 * 6
    np.testing.assert_allclose(places[0] * [96, 64], [7.5, 7.5])
    point = cv2.KeyPoint(7.5, 7.5, 16 / 6)
    np.testing.assert_allclose(values[0], cv2.SIFT_create().compute(image, [point])[1][0], atol=1)


def test_F9_vocabulary_finds_the_clusters_and_idf_is_the_papers():
    pictures = [picture(96, 96, 1, seed) for seed in range(6)] + [np.full((40, 40), 7, np.uint8)]
    features = BagOfWords(words=12, tfidf=True)
    features.fit(lambda: [pictures[:4], pictures[4:]], seed=1)
    assert features.vocabulary.shape == (12, 128)
    held = np.stack([np.isin(np.arange(12), features.nearest(features.describe(p.squeeze())[1])) for p in pictures])
    np.testing.assert_allclose(features.idf, np.log(7 / np.maximum(held.sum(0), 1)), rtol=1e-5)
    again = BagOfWords(words=12, tfidf=True)
    again.fit(lambda: [pictures[:4], pictures[4:]], seed=1)
    assert torch.equal(features.vocabulary, again.vocabulary)
    # each word stands nearer to its descriptors than any random word: less spread than a random vocabulary of the same size
    values = np.concatenate([features.describe(p.squeeze())[1] for p in pictures])
    spread = ((values - features.vocabulary.numpy()[features.nearest(values)]) ** 2).sum()
    chosen = bag(values[np.random.default_rng(0).permutation(len(values))[:12]])
    assert spread < ((values - chosen.vocabulary.numpy()[chosen.nearest(values)]) ** 2).sum()


def test_F9_no_key_point_is_a_zero_histogram_and_none_at_all_an_error():
    flat = np.full((50, 50), 100, np.uint8)
    features = fitted("sift_bow?words=8")
    assert not features([flat, flat]).any()
    assert fitted("sift_bow?words=8&dense=true")([flat]).shape == (1, 8)
    with pytest.raises(UsageError, match="dense=true"):
        BagOfWords().fit(lambda: [[flat]])
    with pytest.raises(UsageError, match="option seed=-1"):
        BagOfWords().fit(lambda: [[flat]], seed=-1)
    with pytest.raises(UsageError, match="fit it"):
        BagOfWords()([flat])
    few = BagOfWords(words=5000)
    few.fit(lambda: [[picture(40, 40)]])
    assert 0 < len(few.vocabulary) < 5000


# -- networks -----------------------------------------------------------------------------------------


def test_F8_pooled_vectors_and_maps_are_timms():
    torch.manual_seed(0)
    features = BackboneFeatures(architecture="resnet18")
    images = [picture(224, 224, seed=k) for k in range(3)]
    oracle = timm.create_model("resnet18", num_classes=7)
    oracle.load_state_dict(features.network.state_dict(), strict=False)
    oracle.eval()
    mean, std = (torch.tensor(oracle.default_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    batch = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        maps = oracle.forward_features(batch)
        pooled = oracle.forward_head(maps, pre_logits=True)
    np.testing.assert_allclose(features.maps(images), maps, atol=1e-4)
    assert features.maps(images).shape == (3, 512, 7, 7)
    np.testing.assert_allclose(features(images), pooled, atol=1e-4)
    np.testing.assert_allclose(features(images), features.maps(images).mean((2, 3)), atol=1e-5)


def test_F8_a_frozen_network_never_changes():
    features = create_features(TINY)
    before = {k: v.clone() for k, v in features.state_dict().items()}
    features.train()
    first = features([picture()])
    assert not any(module.training for module in features.modules())
    assert not any(parameter.requires_grad for parameter in features.parameters())
    np.testing.assert_array_equal(first, features([picture()]))
    assert all(torch.equal(v, before[k]) for k, v in features.state_dict().items())
    with pytest.raises(UsageError, match="3 channels"):
        features([picture(channels=1)])
