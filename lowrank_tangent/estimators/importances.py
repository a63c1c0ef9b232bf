"""How much a fitted function moves with every feature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._types import Array

#: Samples at which slopes are taken: so many predictions in all, and no fewer samples than that.
_PREDICTIONS = 20_000
_LEAST_SAMPLES = 20


def slope_importances(predict: Callable[[Array], Array], X: Array, sample_weight: Array | None = None) -> Array:
    """Share of every feature in the mean squared slopes of a function, shape (n_features,).

    The slope along a feature is the difference of two predictions, half a standard deviation to either side of a
    sample: it is per standard deviation, and a jump does not make it endless.

    Parameters
    ----------
    predict : callable
        Predictions of shape (n, C) of samples.
    X : ndarray of shape (n, n_features)
    sample_weight : ndarray of shape (n,), optional

    Returns
    -------
    ndarray of shape (n_features,)
        They sum to 1; a function that is constant has 0 for all.
    """
    weights, variances = _weights_and_variances(X, sample_weight)
    counting, steps = np.flatnonzero(weights), 0.5 * np.sqrt(variances)
    n, p = len(counting), X.shape[1]
    if n > max(_LEAST_SAMPLES, _PREDICTIONS // (2 * p)):
        counting = np.random.default_rng(0).permutation(counting)[: max(_LEAST_SAMPLES, _PREDICTIONS // (2 * p))]
    rows, shares = X[counting], weights[counting]
    squares = np.zeros(p)
    for feature in np.flatnonzero(steps):
        above, below = rows.copy(), rows.copy()
        above[:, feature] += steps[feature]
        below[:, feature] -= steps[feature]
        found = predict(np.vstack([above, below]))
        slopes = found[: len(rows)] - found[len(rows) :]
        squares[feature] = np.average(np.sum(slopes**2, axis=1), weights=shares)
    return _shares(squares)


def gradient_importances(gradients: Array, X: Array, sample_weight: Array | None = None) -> Array:
    """The same from gradients of the function at the samples, whatever the number of features.

    Parameters
    ----------
    gradients : ndarray of shape (n, n_features, C)
    X : ndarray of shape (n, n_features)
    sample_weight : ndarray of shape (n,), optional

    Returns
    -------
    ndarray of shape (n_features,)
    """
    weights, variances = _weights_and_variances(X, sample_weight)
    size = np.abs(gradients).max(initial=0.0) or 1.0  # squares of tiny ones would be 0
    squares = np.average(np.sum((gradients / size) ** 2, axis=2), axis=0, weights=weights)
    return _shares(squares * variances)


def _weights_and_variances(X: Array, sample_weight: Array | None) -> tuple[Array, Array]:
    """Weights of the samples, and the variance of every feature."""
    weights = np.ones(len(X)) if sample_weight is None else sample_weight
    mean = np.average(X, axis=0, weights=weights)
    return weights, np.average((X - mean) ** 2, axis=0, weights=weights)


def _shares(squares: Array) -> Array:
    """Squares by their sum; 0 where all are."""
    largest = squares.max(initial=0.0)
    if largest == 0.0:
        return squares
    squares = squares / largest  # the sum of tiny ones would be 0
    return squares / squares.sum()
