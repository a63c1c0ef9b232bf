"""Sample weights and an intercept as changes of the rows of an operator: A becomes Π S A.

    min_b Σ_i w_i (y_i − (A B)_i − b)² = ‖Π S (y − A B)‖²,        S = diag(√w),    Π = I − u uᵀ,    u = √w / ‖√w‖.

So an unpenalised intercept is exact weighted centring.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.utils import gen_batches

from .._types import Array

#: Rows of a kernel that are centred at a time.
_BLOCK_ROWS = 1024


class WeightedRows:
    """Rows multiplied by S, and projected by Π.

    Attributes
    ----------
    row_scale : ndarray of shape (n,) or None
        Every row is multiplied by this (square roots of sample weights).
    centred : bool
        Whether rows are projected onto the complement of `row_scale`, as an intercept without a penalty does.
    """

    row_scale: Array | None = None
    centred: bool = False

    @property
    def changes_rows(self) -> bool:
        """Whether weights or centring change anything."""
        return self.centred or self.row_scale is not None

    def to_rows(self, values: Array) -> Array:
        """Weights and centring applied to `values` of shape (n, ...)."""
        if self.row_scale is not None:
            values = values * self.row_scale.reshape(-1, *[1] * (values.ndim - 1))
        return self.project(values)

    def from_rows(self, values: Array) -> Array:
        """The adjoint of `to_rows`: what rows without weights or centring see of `values` of shape (n, C)."""
        values = self.project(values)
        return values if self.row_scale is None else values * self.row_scale[:, None]

    def to_rows_and_columns(self, kernel: Array) -> Array:
        """`to_rows` on both sides of a symmetric kernel of shape (n, n), in its place."""
        if self.row_scale is not None:
            kernel *= self.row_scale[:, None]
            kernel *= self.row_scale
        if self.centred:
            direction = self._intercept_direction(len(kernel), kernel.dtype)
            image = kernel @ direction
            image -= 0.5 * (direction @ image) * direction
            # Π K Π = K − u wᵀ − w uᵀ with w = K u − ½ (uᵀ K u) u, a few rows at a time.
            ends, others = np.column_stack([direction, image]), np.vstack([image, direction])
            for rows in gen_batches(len(kernel), _BLOCK_ROWS):
                kernel[rows] -= ends[rows] @ others
        return kernel

    def project(self, values: Array) -> Array:
        """Projection of `values` of shape (n, ...) onto the complement of the intercept."""
        if not self.centred:
            return values
        if self.row_scale is None:
            return values - values.mean(axis=0)
        direction = self._intercept_direction(len(values), self.row_scale.dtype)
        return values - np.multiply.outer(direction, np.tensordot(direction, values, axes=1))

    def _intercept_direction(self, n: int, dtype: npt.DTypeLike) -> Array:
        """u, the direction that the intercept takes out."""
        scale = np.ones(n, dtype=dtype) if self.row_scale is None else self.row_scale
        return scale / np.linalg.norm(scale)
