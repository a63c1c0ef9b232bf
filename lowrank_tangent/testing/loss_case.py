"""A loss with targets, weights and an intercept, as a problem sets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._types import Array
from ..losses import Loss, LossAt
from ..operators import LayerFactors, TangentOperator
from .findings import skip

#: Samples of the targets that are drawn.
_SAMPLES = 8


class LossCase:
    """A loss and the targets that it is checked on.

    Parameters
    ----------
    loss : Loss
    target : ndarray of shape (n, C) or None
    seed : int
    """

    def __init__(self, loss: Loss, target: Array | None, seed: int) -> None:
        self.loss, rng = loss, np.random.default_rng(seed)
        #: Attributes of the loss before any check.
        self.given = dict(vars(loss))
        if target is not None:
            self.targets = [np.asarray(target, dtype=np.float64)]
        elif loss.has_probabilities:
            labels = np.eye(3)[np.arange(_SAMPLES) % 3]
            self.targets = [labels[:, :1], labels, rng.dirichlet(np.ones(3), _SAMPLES)]
        else:
            self.targets = [rng.standard_normal((_SAMPLES, C)) for C in (1, 2)]

    def settings(self) -> Iterator[Setting]:
        """With and without weights, with and without an intercept."""
        for target in self.targets:
            weights = 0.4 + 0.3 * (np.arange(len(target)) % 4)
            weights[0] = 0.0
            for sample_weight in (None, weights):
                for fit_intercept in (False, True):
                    yield Setting(self.loss, target, sample_weight, fit_intercept)

    def unconstrained(self) -> None:
        """Leave out a check that is not for constraints."""
        if self.loss.is_constraint:
            skip("for a loss that is no constraint")

    def hessian(self) -> None:
        """Leave out a check of the Hessian."""
        if not self.loss.has_hessian or self.loss.is_constraint:
            skip("for a loss with a Hessian")


class Setting:
    """A loss with the weights and the intercept of a problem.

    Attributes
    ----------
    loss : Loss
    y, target : ndarray of shape (n, C)
        Plain targets, and those that `at` is given.
    design : Operator
        What makes rows of plain predictions.
    """

    def __init__(self, loss: Loss, target: Array, sample_weight: Array | None, fit_intercept: bool) -> None:
        self.loss = loss.bound(sample_weight, fit_intercept)
        self.y = self.loss.check_target(target)
        n, C = target.shape
        features = LayerFactors(np.eye(n, 1) + 1.0, np.ones((n, 1)))
        self.design: Any = self.loss.design(TangentOperator([features], "shared", C))
        self.target = self.design.to_rows(self.y)

    def draw(self, rng: np.random.Generator) -> Array:
        """Plain predictions."""
        return rng.standard_normal(self.y.shape)

    def rows(self, values: Array) -> Array:
        """Plain predictions as the loss is given them."""
        rows: Array = self.design.to_rows(values)
        return rows

    def rows_again(self, values: Array) -> Array:
        """Rows without what centring takes out of them."""
        rows: Array = self.design.project(values)
        return rows

    def at(self, prediction: Array) -> LossAt:
        """The loss at plain predictions."""
        return self.at_rows(self.rows(prediction))

    def at_rows(self, rows: Array) -> LossAt:
        """The loss at rows."""
        return self.loss.at(self.target, rows)

    def value(self, prediction: Array) -> float:
        """L at plain predictions."""
        return float(self.at(prediction).value)

    def plain_residual(self, prediction: Array) -> Array:
        """Minus the gradient of L with respect to plain predictions."""
        residual: Array = self.design.from_rows(self.at(prediction).residual)
        return residual

    def __str__(self) -> str:
        weights = "no weights" if self.loss.sample_weight is None else "weights"
        return f" ({self.y.shape[1]} outputs, {weights}, {'an' if self.loss.fit_intercept else 'no'} intercept)"
