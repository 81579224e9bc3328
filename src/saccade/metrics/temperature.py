"""Temperature scaling: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599, section 4.2.

Logits are divided by one number T before the softmax. T > 1 makes a classifier less sure, T < 1 surer; the order of the classes, and so the
accuracy, stays. T minimises the mean negative log likelihood of images that were not trained on, which is convex in 1 / T.
"""

from __future__ import annotations

import numpy as np

LEAST, MOST = 0.05, 20.0
"""Range of T: on images that are all classified right the likelihood grows for ever as T falls."""


def nll(probabilities: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of -log p of the true labels (N,) by probabilities (N, K) at a temperature; NaN for no images.

    >>> round(nll(np.array([[0.8, 0.2]]), np.array([0])), 4)
    0.2231
    """
    logits = _logits(probabilities) / temperature
    if not len(logits):
        return float("nan")
    return float((_logsumexp(logits) - logits[np.arange(len(logits)), labels]).mean())


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The T in 0.05..20 of the least :func:`nll`.

    Args:
        probabilities: (N, K) of images that were not trained on, at T = 1; their logarithms are the logits up to a constant an image.
        labels: (N,) int64, 0..K-1.

    Raises:
        ValueError: no images, or probabilities that are no numbers.

    >>> probabilities = np.array([[0.99, 0.01]] * 3 + [[0.01, 0.99]])  # 99 % sure, right in three of four
    >>> round(fit_temperature(probabilities, np.zeros(4, dtype=int)), 3)  # log(99) / log(3)
    4.183
    """
    logits, labels = _logits(probabilities), np.asarray(labels, dtype=np.int64)
    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError("a temperature needs images, and probabilities that are numbers")
    right = logits[np.arange(len(logits)), labels]

    def slope(beta: float) -> float:
        """Derivative of the nll by 1 / T: the mean logit under the softmax, less that of the truth; rises with beta."""
        scaled = beta * logits
        weights = np.exp(scaled - _logsumexp(scaled)[:, None])
        return float(((weights * logits).sum(1) - right).mean())

    low, high = 1 / MOST, 1 / LEAST
    if slope(high) <= 0:
        return LEAST
    if slope(low) >= 0:
        return MOST
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float((low * high) ** -0.5)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms; what was rounded to 0 in float32 counts as its least number."""
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), np.finfo(np.float32).smallest_subnormal))


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    largest = logits.max(1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(1))
