"""A low-rank kernel plus a diagonal, for samples too many for the whole kernel.

With m of the samples as landmarks, ``K ≈ F Fᵀ + diag(K − F Fᵀ)``, where ``F = K_nm K_mm^{-1/2}``. Of the kernels of
high-dimensional data the landmarks carry the large eigenvalues, and what they miss is nearly diagonal.

Source: Snelson & Ghahramani, Sparse Gaussian processes using pseudo-inputs (2006).
"""

from __future__ import annotations

import numpy as np
from sklearn.utils import gen_batches

from ...linalg.cholesky import CholeskyFactor

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
