"""Linear transforms of features that differ from the identity in a few directions only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LowRankTransform:
    """Symmetric transform M = I + U diag(z − 1) Uᵀ, never stored as a dense matrix.

    Parameters
    ----------
    basis : ndarray of shape (size, k)
        Orthonormal columns U.
    stretch : ndarray of shape (k,)
        Factors z ≥ 1 along these directions; every other direction is left as it is.
    """

    basis: np.ndarray
    stretch: np.ndarray

    @classmethod
    def identity(cls, size):
        """The transform that changes nothing."""
        return cls(np.zeros((size, 0)), np.ones(0))

    @property
    def shape(self):
        """Shape (size, size) of the dense matrix."""
        return (len(self.basis), len(self.basis))

    @property
    def is_identity(self):
        """Whether no direction is stretched."""
        return self.stretch.size == 0

    @property
    def spectrum(self):
        """All ``size`` singular values of M, largest first."""
        ones = np.ones(len(self.basis) - len(self.stretch))
        return np.sort(np.concatenate([self.stretch, ones]))[::-1]

    def apply(self, rows):
        """Rows times M: ``rows @ M`` in O(rows · size · k); shape (..., size) in and out."""
        if self.is_identity:
            return rows
        return rows + ((rows @ self.basis) * (self.stretch - 1.0)) @ self.basis.T

    def to_dense(self):
        """The dense matrix M, shape (size, size)."""
        return np.eye(len(self.basis)) + (self.basis * (self.stretch - 1.0)) @ self.basis.T
