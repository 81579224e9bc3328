"""Bags of visual words: SIFT descriptors are rounded to a learned vocabulary and counted.

Papers: Sivic, Zisserman: Video Google (ICCV 2003): words are the centres of k-means, weighed by tf-idf, log(N / n_i) for a word
that n_i of N images hold. Csurka et al.: Visual Categorization with Bags of Keypoints (ECCV workshop 2004): the histogram is a
feature vector for a classifier. Lazebnik, Schmid, Ponce: Beyond Bags of Features: Spatial Pyramid Matching (CVPR 2006): the
words of each cell of ever finer grids, level l of 0..L weighing 2^(l - L - 1) and level 0 2^-L; a dense grid of descriptors in
place of key points. Hellinger: Arandjelovic, Zisserman: Three things everyone should know (CVPR 2012).

Key points and descriptors are OpenCV's; the vocabulary is scikit-learn's mini-batch k-means.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from saccade.features.base import Batches, FeatureExtractor
from saccade.features.names import check_choice, check_whole
from saccade.features.pixels import as_images, as_pixels, grey, in_threads
from saccade.types.errors import UsageError

SAMPLE = 40_000
"""Descriptors that the vocabulary is learned from, at most."""

Norm = Literal["hellinger", "l2"]


class BagOfWords(FeatureExtractor):
    """Histogram of visual words, of unit length; zero for an image without a descriptor.

    Buffers: ``vocabulary`` (W, 128) the words; ``idf`` (W,) their weights, ones without ``tfidf``.

    Args:
        in_chans: colour is turned to grey.
        words: W, fewer where the training images hold fewer descriptors.
        dense: descriptors on a grid rather than at key points.
        step, patch: of the grid: pixels between descriptors, and the side of the square that one covers (4 x 4 cells).
        levels: L of the spatial pyramid; 0 is the plain bag. D = W (1 + 4 + ... + 4^L).
        norm: "hellinger" divides by the sum and takes the root of each value, "l2" divides by the length.
        tfidf: weigh the words by their inverse document frequency.
        size: the image's short side is resized to it.
    """

    fitted_buffers = ("vocabulary", "idf")

    def __init__(
        self,
        *,
        in_chans: int = 3,
        words: int = 200,
        dense: bool = False,
        step: int = 8,
        patch: int = 16,
        levels: int = 0,
        norm: Norm = "hellinger",
        tfidf: bool = False,
        size: int = 128,
    ) -> None:
        check_whole(2, 100_000, words=words)
        check_whole(2, 256, step=step, patch=patch)
        check_whole(0, 4, levels=levels)
        check_whole(8, 2048, size=size)
        check_choice(Norm, norm=norm)
        super().__init__(mode="shortest", size=(size, 4 * size))
        self.words, self.dense, self.step, self.patch = words, dense, step, patch
        self.levels, self.norm, self.tfidf = levels, norm, tfidf
        self.vocabulary: Tensor
        self.idf: Tensor
        self.register_buffer("vocabulary", torch.zeros(0, 128))
        self.register_buffer("idf", torch.zeros(0))

    def describe(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (n, 2) x and y in 0..1 of the image's sides, and SIFT descriptors (n, 128), both float32."""
        import cv2

        image = grey(pixels)
        height, width = image.shape
        sift = cv2.SIFT.create()  # one a call: it is not for several threads
        if self.dense:
            # The grid stands in the middle of the image. OpenCV's cells are 1.5 key point diameters wide.
            xs, ys = (np.arange(((side - 1) % self.step) / 2, side, self.step) for side in (width, height))
            grid = [cv2.KeyPoint(float(x), float(y), self.patch / 6) for y in ys for x in xs]
            points, values = sift.compute(image, grid)
        else:
            points, values = sift.detectAndCompute(image, None)
        if values is None or not len(points):
            return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        places = np.array([point.pt for point in points], np.float32) / np.array([width, height], np.float32)
        used = values.any(1)  # a flat patch has no direction at all
        return places[used].clip(0, 1), values[used]

    def fit(self, batches: Batches, *, seed: int = 0) -> None:
        """Learn the vocabulary from descriptors of all images (at most :data:`SAMPLE`, at random), and the words' weights."""
        from sklearn.cluster import MiniBatchKMeans

        check_whole(0, None, seed=seed)
        rng = np.random.default_rng(seed)
        pool, rate = np.zeros((0, 128), np.float32), 1.0
        for images in batches():
            found = [values for _, values in in_threads(lambda image: self.describe(as_pixels(image)), as_images(images))]
            new = np.concatenate(found)
            pool = np.concatenate([pool, new[rng.random(len(new)) < rate]])
            while len(pool) > 4 * SAMPLE:  # bounded memory, and every descriptor has the same chance to stay
                pool, rate = pool[rng.random(len(pool)) < 0.5], rate / 2
        if not len(pool):
            raise UsageError("no SIFT key point is in any training image; take them on a grid: features sift_bow?dense=true")
        pool = pool[rng.permutation(len(pool))[:SAMPLE]]
        words = pool
        if len(pool) > self.words:
            means = MiniBatchKMeans(self.words, random_state=seed % 2**32, batch_size=4096, n_init=1, max_iter=10)
            words = means.fit(pool).cluster_centers_
        device = self.vocabulary.device
        self.vocabulary = torch.from_numpy(np.ascontiguousarray(words, dtype=np.float32)).to(device)
        self.idf = torch.ones(len(words), device=device)
        if self.tfidf:
            images_with, count = np.zeros(len(words)), 0
            for images in batches():
                for held in in_threads(lambda image: np.unique(self.nearest(self.describe(as_pixels(image))[1])), as_images(images)):
                    images_with[held] += 1
                    count += 1
            self.idf = torch.from_numpy(np.log(count / np.maximum(images_with, 1))).float().to(device)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """(n,) int64: the word nearest to each descriptor (n, 128)."""
        words = self.vocabulary.cpu().numpy()
        return ((words**2).sum(1) - 2 * (values @ words.T)).argmin(1)

    def vector(self, pixels: np.ndarray) -> np.ndarray:
        """(D,) float32."""
        if not len(self.vocabulary):
            raise UsageError("the bag of words has no vocabulary yet: fit it to data first")
        count = len(self.vocabulary)
        places, values = self.describe(pixels)
        words = self.nearest(values)
        parts = []
        for level in range(self.levels + 1):
            side = 2**level
            column, row = np.minimum((places * side).astype(np.int64), side - 1).T
            weight = 2.0 ** (level - self.levels - 1) if level else 2.0**-self.levels
            parts.append(weight * np.bincount((row * side + column) * count + words, minlength=side**2 * count))
        out = np.concatenate(parts) * np.tile(self.idf.cpu().numpy(), sum(4**level for level in range(self.levels + 1)))
        if self.norm == "hellinger":
            return np.sqrt(out / max(out.sum(), 1e-12)).astype(np.float32)
        return (out / max(float(np.linalg.norm(out)), 1e-12)).astype(np.float32)
