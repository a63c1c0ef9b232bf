"""Linear transforms of features that are never stored as dense matrices: of a few directions, and products of such."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .._types import Array
from .memory import check_fits_in_memory


@dataclass(frozen=True, eq=False)
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

    basis: Array
    stretch: Array
    elsewhere: float = 1.0

    @classmethod
    def identity(cls, size: int) -> LowRankTransform:
        """The transform that changes nothing."""
        return cls(np.zeros((size, 0)), np.ones(0))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (size, size) of the dense matrix."""
        return (len(self.basis), len(self.basis))

    @property
    def is_identity(self) -> bool:
        """Whether no direction is stretched."""
        return self.stretch.size == 0 and self.elsewhere == 1.0

    @property
    def spectrum(self) -> Array:
        """All ``size`` singular values of M, largest first."""
        others = np.full(len(self.basis) - len(self.stretch), self.elsewhere)
        return np.sort(np.concatenate([self.stretch, others]))[::-1]

    def apply(self, rows: Array) -> Array:
        """Rows times M: ``rows @ M`` in O(rows · size · k); shape (..., size) in and out."""
        if self.is_identity:
            return rows
        return self.elsewhere * rows + ((rows @ self.basis) * (self.stretch - self.elsewhere)) @ self.basis.T

    def to_dense(self) -> Array:
        """The dense matrix M, shape (size, size); MemoryError if it does not fit."""
        _check_dense(len(self.basis))
        return self.elsewhere * np.eye(len(self.basis)) + (self.basis * (self.stretch - self.elsewhere)) @ self.basis.T


@dataclass(frozen=True, eq=False)
class ProductTransform:
    """Stretches one after the other, M = e (I − Q Qᵀ) + Q C Qᵀ, in the coordinates in which all of them move.

    Parameters
    ----------
    core : ndarray of shape (k, k) or (k,)
        C; its diagonal alone where single features are stretched.
    basis : ndarray of shape (size, k), optional
        Orthonormal columns Q; by default the identity, k = size.
    elsewhere : float, default=1.0
        Factor e of the directions outside of Q.
    """

    core: Array
    basis: Array | None = None
    elsewhere: float = 1.0

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.core if self.basis is None else self.basis)

    @property
    def transposed(self) -> ProductTransform:
        """Mᵀ."""
        return replace(self, core=self.core.T)

    def apply(self, rows: Array) -> Array:
        """Rows times M; shape (..., size) in and out."""
        if self.basis is None:
            return rows * self.core if self.core.ndim == 1 else rows @ self.core
        inside = rows @ self.basis
        return self.elsewhere * rows + (inside @ self.core - self.elsewhere * inside) @ self.basis.T

    def then(self, stretch: LowRankTransform | Array) -> ProductTransform | None:
        """M S with tr(M S Sᵀ Mᵀ) = size; None if it is zero, as where no direction is used.

        Parameters
        ----------
        stretch : LowRankTransform, or ndarray of shape (size,)
            S: of directions in the span of Q, or of single features where there is no Q.
        """
        elsewhere = self.elsewhere
        if isinstance(stretch, np.ndarray):
            core = self.core * stretch
        else:
            elsewhere *= stretch.elsewhere
            if self.basis is not None:
                stretch = replace(stretch, basis=self.basis.T @ stretch.basis)
            core = stretch.apply(self.core)
        outside = self.size - len(core)
        norm = math.hypot(np.linalg.norm(core), math.sqrt(outside) * elsewhere)
        if norm == 0.0:
            return None
        scale = math.sqrt(self.size) / norm
        return replace(self, core=scale * core, elsewhere=scale * elsewhere)

    @property
    def row_squares(self) -> Array:
        """Diagonal of M Mᵀ, shape (size,)."""
        if self.basis is None:
            return self.core**2 if self.core.ndim == 1 else np.sum(self.core**2, axis=1)
        # Rows of Q C, and what is left of the unit vectors outside of Q.
        outside = 1.0 - np.sum(self.basis**2, axis=1)
        return np.sum((self.basis @ self.core) ** 2, axis=1) + self.elsewhere**2 * outside

    def to_dense(self) -> Array:
        """The dense matrix M, shape (size, size); MemoryError if it does not fit."""
        _check_dense(self.size)
        return self.apply(np.eye(self.size))


def _check_dense(size: int) -> None:
    # The identity, what becomes of it, and a product in between.
    check_fits_in_memory(
        (3, size, size),
        "the dense matrix of a transform",
        remedy="Apply the transform to rows, which needs no matrix: apply(rows), or transform(X) of an estimator.",
    )
