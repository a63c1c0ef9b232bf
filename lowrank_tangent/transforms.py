"""Linear transforms of features that differ from the identity in a few directions only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LowRankTransform:
    """Symmetric transform M = e I + U diag(z − e) Uᵀ, never stored as a dense matrix; e = 1 unless said otherwise.

    Parameters
    ----------
    basis : ndarray of shape (size, k)
        Orthonormal columns U.
    stretch : ndarray of shape (k,)
        Factors z along these directions.
    elsewhere : float, default=1.0
        Factor e of every other direction: 1 leaves it as it is, 0 gives it up.
    """

    basis: np.ndarray
    stretch: np.ndarray
    elsewhere: float = 1.0

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
        return self.stretch.size == 0 and self.elsewhere == 1.0

    @property
    def spectrum(self):
        """All ``size`` singular values of M, largest first."""
        others = np.full(len(self.basis) - len(self.stretch), self.elsewhere)
        return np.sort(np.concatenate([self.stretch, others]))[::-1]

    def apply(self, rows):
        """Rows times M: ``rows @ M`` in O(rows · size · k); shape (..., size) in and out."""
        if self.is_identity:
            return rows
        return self.elsewhere * rows + ((rows @ self.basis) * (self.stretch - self.elsewhere)) @ self.basis.T

    def to_dense(self):
        """The dense matrix M, shape (size, size)."""
        return self.elsewhere * np.eye(len(self.basis)) + (self.basis * (self.stretch - self.elsewhere)) @ self.basis.T
