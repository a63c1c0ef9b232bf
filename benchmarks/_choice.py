"""How benchmarks choose alpha and adaptivity: by cross-validation on the training part alone."""

from __future__ import annotations

import numpy as np

from lowrank_tangent import StructuredRegression
from lowrank_tangent.model_selection import tangent_path


def choose_strength(features, X, targets, splits, alphas, adaptivities, tol):
    """Alpha and adaptivity of the least squared error of the scores on held-out folds.

    Parameters
    ----------
    features : TangentFeatures
        Fitted anew to every fold.
    X : ndarray of shape (n, n_features)
    targets : ndarray of shape (n, C)
    splits : iterable of pairs of index arrays
    alphas, adaptivities : sequences of float
    tol : float
        Relative duality gap of the fits.
    """
    errors = 0.0
    for kept, held_out in splits:
        features.fit(X[kept], targets.shape[1])
        problem = StructuredRegression(features.operator(X[kept]), targets[kept], "power", fit_intercept=True)

        def squared_error(problem, solution, held_out=held_out):
            scores = features.predict(X[held_out], solution.coefs) + solution.intercept
            return np.sum((scores - targets[held_out]) ** 2)

        path = tangent_path(problem, alphas, adaptivities, tol, keep=squared_error)
        errors = errors + np.array(path.results)
    i, j = np.unravel_index(np.argmin(errors), errors.shape)
    return float(path.alphas[j]), float(path.adaptivities[i])
