"""Where a path of Newton's method goes on: the best points in the span of its last solutions.

Solutions for neighbouring alphas and adaptivities nearly lie in a space of a few dimensions. In the span of the known
coefficients B_k, and of the known dual points r_k,

    B = Σ β_k B_k minimises the primal, by Newton's method in β,
    r = Σ ρ_k r_k minimises ½ ⟨r − r_B, L*'' (r − r_B)⟩ + ½ ⟨A* r − G, W (A* r − G)⟩,

the second-order approximation of the dual at B: r_B and L*'' are minus the gradient of the loss at A B and the Hessian
of its conjugate, G and W the gradient of the penalty and the inverse of its Hessian. As A B_k and A* r_k are known, no
product with A is needed. Both objectives are off by the square of what the span misses, and the gap often is below the
tolerance before Newton's method has begun. A solution that was found so leaves the span as it is. This is the method
of reduced bases (Quarteroni, Manzoni & Negri 2016, Reduced Basis Methods for Partial Differential Equations), with the
basis chosen on the way.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..._types import Array, Coefs
from ..newton.costs import skinny_cost, stretch_cost
from ..spectral_point import PrimalPoint, inner_product
from .known import combined, combined_layers

#: Most and fewest solutions that span the space, and the cost of one of them in products of the size of B Bᵀ.
_MOST, _FEWEST = 6, 3
_PRODUCTS = 10
#: Cost of a step of Newton's method beside the kernel, in products with the kernel.
_STEP_PRODUCTS = 10
#: Newton's method converges quadratically: the next step gains about the square of the last gain, relative to the
#: objective. It ends where that is below this share of the gap that is asked for.
_MARGIN = 0.1
_MAX_STEPS, _MAX_HALVINGS = 8, 20
#: Directions with less than this share of the curvature of the span are rounding.
_RANK = 1e-13


def span_size(design):
    """How many solutions span the space: as many as cost a step of Newton's method."""
    n, C = design.n_samples, design.n_outputs
    step = stretch_cost(n, sum(min(shape) for shape in design.coef_shapes)) + _STEP_PRODUCTS * skinny_cost(n, C)
    one = _PRODUCTS * sum(2.0 * min(shape) ** 2 * max(shape) for shape in design.coef_shapes)
    return min(max(int(step / one), _FEWEST), _MOST)


class Start(NamedTuple):
    """Where Newton's method begins: a primal point, a dual point r and A* r."""

    point: PrimalPoint
    dual: Array
    correlation: Coefs


class SolutionSpan:
    """The last solutions of a path, and the best that their span has for another alpha or adaptivity.

    Parameters
    ----------
    known : list of KnownSolution
        To begin with, the last one first.
    size : int, default=6
        Number of solutions that span the space.
    """

    def __init__(self, known=(), size=_MOST):
        self._known, self._size = list(known), size
        #: Logarithms of alpha of the last two solutions and their weights β, the last one first.
        self._latest = []
        #: β of what was found last.
        self._weights = None

    def add(self, known):
        """Remember a solution, if it is not one that the span had."""
        if known.is_new or not self._known:
            self._latest = [(log, np.append(0.0, weights)) for log, weights in self._latest]
            if len(self._known) == self._size:
                self._known.pop()
                self._latest.clear()
            self._known.insert(0, known)
            self._weights = np.eye(len(self._known))[0]
        self._latest = [(math.log(known.alpha), self._weights), *self._latest[:1]]

    def at(self, problem, tol):
        """Where to begin; None before the first solution.

        Parameters
        ----------
        problem : StructuredRegression
            With a smooth convex penalty and a loss that has a Hessian.
        tol : float
            Relative gap that is asked for.

        Returns
        -------
        Start or None
        """
        if not self._known:
            return None
        self._weights = self._extrapolated(problem.alpha)
        point = PrimalPoint(
            problem,
            combined_layers(self._weights, [known.coefs for known in self._known]),
            combined(self._weights, [known.prediction for known in self._known]),
        )
        for _ in range(_MAX_STEPS):
            gain, moved = self._moved(point)
            if moved is None:
                break
            point = moved
            if gain**2 <= _MARGIN * tol:
                break
        return self._with_dual(point)

    def _extrapolated(self, alpha):
        """Weights that the last two solutions point to, along a line in log alpha."""
        if not self._latest:
            return np.eye(len(self._known))[0]
        last, weights = self._latest[0]
        before, others = self._latest[-1]
        share = (math.log(alpha) - last) / (last - before) if last != before else 0.0
        return weights + share * (weights - others)

    def _moved(self, point):
        """What Newton's step in β gains, relative to the objective, and where it leads, halved where it is too long."""
        predictions = [known.prediction for known in self._known]
        directions = [known.coefs for known in self._known]
        images = [point.loss.adjoint(prediction).ravel() for prediction in predictions]
        gradient = [layer.gradient for layer in point.layers]
        slopes = np.array([inner_product(direction, gradient) for direction in directions])
        slopes -= [np.vdot(prediction, point.residual) for prediction in predictions]
        weights = -_solve(point.curvature_products(directions) + np.inner(images, images), slopes)
        change, prediction = combined_layers(weights, directions), combined(weights, predictions)
        for length in 0.5 ** np.arange(_MAX_HALVINGS):
            moved = point.moved(length, change, prediction)
            if moved.objective < point.objective:
                self._weights = self._weights + length * weights
                return -(slopes @ weights) / point.objective, moved
        return 0.0, None

    def _with_dual(self, point):
        """The point, and of the known pairs (r, A* r) the combination that is nearest to (r_B, G)."""
        duals = np.array([*(known.dual for known in self._known), point.residual])
        images = point.loss.conjugate_curvature(duals)
        correlations = [known.correlation for known in self._known]
        products = point.inverse_curvature_products([*correlations, [layer.gradient for layer in point.layers]])
        products += np.inner(duals.reshape(len(duals), -1), images.reshape(len(duals), -1))
        weights = _solve(products[:-1, :-1], products[:-1, -1])
        return Start(point, combined(weights, duals[:-1]), combined_layers(weights, correlations))


def _solve(matrix, rhs):
    """Solution for a matrix that is positive definite but for rounding, whatever the sizes of the unknowns."""
    squares = np.diagonal(matrix)
    sizes = np.sqrt(np.where(squares > 0.0, squares, 1.0))
    values, basis = np.linalg.eigh(matrix / np.multiply.outer(sizes, sizes))
    inside = values > _RANK * values[-1]
    basis = basis[:, inside]
    return basis @ (basis.T @ (rhs / sizes) / values[inside]) / sizes
