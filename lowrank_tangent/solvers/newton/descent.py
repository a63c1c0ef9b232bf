"""Conjugate gradients on the objective itself, from B = 0 to where Newton's method takes over.

Newton's method starts conjugate gradients anew at every point. Far from the minimum it is cheaper to move with every
step that they make, and to keep their direction. They are preconditioned with the Hessian of a quadratic that touched
the objective from above at a recent point, D + A*A with ``D = α Z⁻¹`` (`spectral_point.py`). With the gradient
g = G − A* r,

    z = (D + A*A)⁻¹ g = D⁻¹ (g − A* u),      u = (I + A D⁻¹ A*)⁻¹ A D⁻¹ g = A z,

and u takes the factor of the ridge kernel of the stretched features (`preconditioner.py`). A z and A*A z come for
free, so a step takes one product with A and one with A*. The first one, from B = 0 with nothing stretched, leads to the
ridge solution. The dual point that belongs to B − z is r + u.

Where outputs that share a kernel are stretched on the side that holds a block of columns for each, Z is the mean of its
diagonal blocks, as in that kernel: the preconditioner has to be the inverse of one matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..._types import Array, Coefs
from ...operators.layers import rotate
from ..spectral_point import PrimalPoint, inner_product
from .kernels import stretch_root
from .line_search import step_length

#: Newton's method takes over where the decrement is below this share of the objective, or below the second number times
#: the gap that is asked for.
_NEAR = 1e-4
_NEAR_GAP = 0.1
#: A descent that has not come near after so many steps has failed.
_MOST_STEPS = 50
#: Products that are updated from step to step add up rounding. An objective that they show too low by more than this
#: share ends the descent.
_DRIFT = 0.1
#: The first metric serves one step. Each later one serves so many steps more than the one before: this number, or as
#: many as cost half of a metric.
_LEAST_SERVICE = 4
#: Below this share of the objective of B = 0, single precision has little to say about the rest.
_LEAST_OBJECTIVE = 1e-4


def descend(zero, correlation, preconditioner, tol):
    """Descend from B = 0 to near the minimum.

    Parameters
    ----------
    zero : PrimalPoint
        B = 0 of a problem with a convex penalty and the squared loss, in any precision.
    correlation : list of ndarray
        A* r there.
    preconditioner : Preconditioner
        One that serves as a metric. It is renewed on the way.
    tol : float
        Relative gap that is asked for.

    Returns
    -------
    (point, dual) : (PrimalPoint, ndarray of shape (n, C)) or None
        With the dual point that belongs to the primal one. None if that was not found.
    """
    problem, point = zero.problem, zero
    least = _LEAST_OBJECTIVE * point.objective
    near = max(_NEAR, _NEAR_GAP * tol)
    service = max(_LEAST_SERVICE, int(0.5 * preconditioner.metric_cost / preconditioner.descent_cost))
    lifetime, left = 1 - service, 0
    for _ in range(_MOST_STEPS):
        if point.objective <= least:
            break
        if left == 0:
            if point is not zero:
                # Products that came for free add up errors; here they are made anew.
                seen, point = point, PrimalPoint(problem, point.coefs)
                if _has_drifted(seen, point):
                    break
                correlation = problem.design.rmatvec(point.residual)
            last, metric = None, _Metric(point, preconditioner)
            lifetime += service
            left = lifetime
        gradient = [
            (layer.gradient - matrix).astype(problem.design.dtype, copy=False)
            for layer, matrix in zip(point.layers, correlation, strict=True)
        ]
        newest = metric.downhill(gradient)
        decrement = -inner_product(gradient, newest.change)
        if not 0.0 < decrement < np.inf:
            break
        if decrement <= near * point.objective:
            fresh = PrimalPoint(problem, point.coefs)
            if _has_drifted(point, fresh):
                break
            # The residual that the descent has seen: its A* r is near G.
            return fresh, point.residual - newest.prediction
        direction = newest if last is None else _conjugate(newest, gradient, *last)
        descent = -inner_product(gradient, direction.change)
        curvature = point.curvature_products([direction.change])[0, 0] + np.sum(direction.prediction**2)
        step = direction.times(descent / curvature)
        length = step_length(point, step.change, step.prediction, descent * (descent / curvature))
        if length is None:
            break
        point = point.moved(length, step.change, step.prediction)
        correlation = [matrix - length * change for matrix, change in zip(correlation, step.correlation, strict=True)]
        last = step, gradient
        left -= 1
    if lifetime > 1:
        preconditioner.expire()  # of no use at B = 0, where the other start begins
    return None


def _has_drifted(seen, fresh):
    """Whether rounding has hidden too much of the objective from the descent."""
    return fresh.objective > (1.0 + _DRIFT) * seen.objective


def _conjugate(newest, gradient, last, last_gradient):
    """The next direction by Hestenes and Stiefel's formula, for which the length of the last one does not matter."""
    bend = [new - old for new, old in zip(gradient, last_gradient, strict=True)]
    share, turn = -inner_product(bend, newest.change), inner_product(bend, last.change)
    if share <= 0.0 or turn <= 0.0:
        return newest
    direction = newest.plus(share / turn, last)
    return direction if inner_product(gradient, direction.change) < 0.0 else newest


class _Direction(NamedTuple):
    """A change dB of the coefficients, with A dB and A*A dB."""

    change: Coefs
    prediction: Array
    correlation: Coefs

    def times(self, length):
        """That multiple."""
        return _Direction(
            [length * matrix for matrix in self.change],
            length * self.prediction,
            [length * matrix for matrix in self.correlation],
        )

    def plus(self, share, other):
        """The sum with a multiple of another one."""
        return _Direction(
            [one + share * two for one, two in zip(self.change, other.change, strict=True)],
            self.prediction + share * other.prediction,
            [one + share * two for one, two in zip(self.correlation, other.correlation, strict=True)],
        )


class _Metric:
    """D + A*A of a point."""

    def __init__(self, point, preconditioner):
        preconditioner.renew(point, pairs=False)
        self._preconditioner, self._design = preconditioner, point.problem.design
        self._inverses = []
        for layer, spectrum in zip(self._design.layers, point.layers, strict=True):
            root = stretch_root(layer.shape[spectrum.transposed], spectrum)
            inverse = (root @ root.T / point.problem.alpha).astype(self._design.dtype)
            self._inverses.append((None, inverse) if spectrum.transposed else (inverse, None))

    def downhill(self, gradient):
        """Minus its inverse times the gradient."""
        prediction = -self._preconditioner.apply(self._design.matvec(self._inverse(gradient)))
        correlation = self._design.rmatvec(prediction)
        change = self._inverse([-g - a for g, a in zip(gradient, correlation, strict=True)])
        return _Direction(change, prediction, correlation)

    def _inverse(self, matrices):
        """D⁻¹ times one matrix a layer."""
        return [rotate(matrix, *pair, matrix.shape) for matrix, pair in zip(matrices, self._inverses, strict=True)]
