"""A low-rank kernel plus a diagonal, for samples too many for the whole kernel.

With m of the samples as landmarks, ``K ≈ F Fᵀ + diag(K − F Fᵀ)``, where ``F = K_nm K_mm^{-1/2}``. Of the kernels of
high-dimensional data the landmarks carry the large eigenvalues, and what they miss is nearly diagonal.

Source: Snelson & Ghahramani, Sparse Gaussian processes using pseudo-inputs (2006).
"""

from __future__ import annotations

import math

import numpy as np
from sklearn.utils import gen_batches

from ...linalg.cholesky import CholeskyFactor
from . import costs
from .kernels import stretched
from .kind import Kind, curvature_roots

#: Landmarks whose kernel has a smaller pivot than this share of its mean diagonal are as good as others.
_JITTER = 1e-7


class NystromFactor:
    """Solves (K + αI) x = b approximately. Costs 3 n·m² operations once and 4 n·m a solve.

    Parameters
    ----------
    columns : ndarray of shape (n, m)
        Kernel of all samples with the landmarks, K_nm; it is overwritten.
    block : ndarray of shape (m, m)
        Kernel of the landmarks, K_mm.
    diagonal : ndarray of shape (n,)
        Diagonal of K.
    alpha : float
    """

    def __init__(self, columns, block, diagonal, alpha):
        block = block.astype(np.float64)
        block.flat[:: len(block) + 1] += _JITTER * np.trace(block) / len(block)
        # (L⁻¹ K_mn)ᵀ, by products of the precision of the columns, and in their place.
        root = np.linalg.cholesky(CholeskyFactor(block).inverse()).astype(columns.dtype)
        for rows in gen_batches(len(columns), len(block)):
            columns[rows] = columns[rows] @ root
        self._features = columns
        missed = diagonal - np.einsum("nm,nm->n", self._features, self._features)
        self._weights = (1.0 / (alpha + np.maximum(missed, 0.0))).astype(columns.dtype)
        inner = sum(
            (self._features[rows].T * self._weights[rows]) @ self._features[rows]
            for rows in gen_batches(len(columns), len(block))
        )
        inner.flat[:: len(inner) + 1] += 1.0
        self._inner = CholeskyFactor(inner)

    def solve(self, rhs):
        """x for one or several right-hand sides, shape (n, k)."""
        scaled = rhs * self._weights[:, None]
        return scaled - self._weights[:, None] * (self._features @ self._inner.solve(self._features.T @ scaled))


class Landmarks(Kind):
    """The mean kernel of the stretched features by landmarks, for large problems and streams.

    Parameters
    ----------
    problem : StructuredRegression
    products : SystemProducts
    """

    def __init__(self, problem, products):
        design, n = problem.design, problem.design.n_samples
        width = sum(p + layer.n_outputs * q for layer in design.layers for p, q in [layer.shape])
        m = affordable_landmarks(n, width, products.cost)
        self._landmarks = np.sort(np.random.default_rng(0).choice(n, m, replace=False))
        self.renewal_cost, self.solve_cost = n * m * (2 * width + 3 * m), 4 * n * m * design.n_outputs

    def factor(self, point, products, pairs=True):
        """Factor of the mean kernel with the curvature of the loss."""
        design = products.design
        features = stretched(design, point)
        landmarks = features.rows(self._landmarks)
        diagonal = features.diagonal().mean(axis=1)
        if design.row_scale is not None:
            diagonal = diagonal * design.row_scale**2
        roots = curvature_roots(point, design.dtype)
        columns = features.mean_gram(landmarks) * roots[:, None]
        return NystromFactor(columns, landmarks.mean_gram(), diagonal * roots**2, point.problem.alpha)


def affordable_landmarks(n, width, product_cost):
    """How many of n samples are landmarks, where kernels cost 2·width an entry and n·m² are factorised three times."""
    allowance = costs.LANDMARK_PRODUCTS * product_cost / (3.0 * n)
    m = int(math.sqrt(allowance + (width / 3.0) ** 2) - width / 3.0)
    return min(max(m, costs.LEAST_LANDMARKS), max(costs.LANDMARK_ENTRIES // n, 1), n)
