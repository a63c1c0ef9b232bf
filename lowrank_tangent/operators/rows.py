"""What weights of the samples and an intercept make of the rows of an operator.

Minimising ``Σ_i w_i (y_i − (A B)_i − b)²`` over the intercept b leaves ``‖Π S (y − A B)‖²`` with S = diag(√w) and Π the
projection onto the complement of √w: exact weighted centring.
"""

from __future__ import annotations

import numpy as np
from sklearn.utils import gen_batches

#: Rows of a kernel that are centred at a time.
_BLOCK_ROWS = 1024


class WeightedRows:
    """Rows multiplied by S, and projected by Π.

    Attributes
    ----------
    row_scale : ndarray of shape (n,) or None
        Every row is multiplied by this (square roots of sample weights).
    centred : bool
        Whether rows are projected onto the complement of `row_scale`, which is what an unpenalised intercept leaves of
        them.
    """

    row_scale = None
    centred = False

    @property
    def changes_rows(self):
        """Whether weights or centring change anything."""
        return self.centred or self.row_scale is not None

    def to_rows(self, values):
        """Weights and centring applied to `values` of shape (n, ...)."""
        if self.row_scale is not None:
            values = values * self.row_scale.reshape(-1, *[1] * (values.ndim - 1))
        return self.project(values)

    def from_rows(self, values):
        """The adjoint of `to_rows`: what rows without weights or centring see of `values` of shape (n, C)."""
        values = self.project(values)
        return values if self.row_scale is None else values * self.row_scale[:, None]

    def to_rows_and_columns(self, kernel):
        """`to_rows` on both sides of a symmetric kernel of shape (n, n), in its place."""
        if self.row_scale is not None:
            kernel *= self.row_scale[:, None]
            kernel *= self.row_scale
        if self.centred:
            unit = self._unit(len(kernel), kernel.dtype)
            image = kernel @ unit
            image -= 0.5 * (unit @ image) * unit
            # Π K Π = K − u wᵀ − w uᵀ with w = K u − ½ (uᵀ K u) u, a few rows at a time.
            ends, others = np.column_stack([unit, image]), np.vstack([image, unit])
            for rows in gen_batches(len(kernel), _BLOCK_ROWS):
                kernel[rows] -= ends[rows] @ others
        return kernel

    def project(self, values):
        """Projection of `values` of shape (n, ...) onto the complement of the intercept."""
        if not self.centred:
            return values
        if self.row_scale is None:
            return values - values.mean(axis=0)
        unit = self._unit(len(values), self.row_scale.dtype)
        return values - np.multiply.outer(unit, np.tensordot(unit, values, axes=1))

    def _unit(self, n, dtype):
        """The direction that the intercept takes out."""
        scale = np.ones(n, dtype=dtype) if self.row_scale is None else self.row_scale
        return scale / np.linalg.norm(scale)
