"""Iteratively reweighted least squares, accelerated: for every smooth penalty, convex or not.

The effective penalty is concave in the squared singular values. At any point B it lies below a quadratic with the
Hessian ``D = α Z⁻¹``, Z = U diag(z²) Uᵀ: fixing the transforms leaves ridge regression. Minimising that majoriser over
and over is the classical scheme. It never increases the objective, and it is slow near the end.

Here the majoriser is the preconditioner. Newton's equation ``(H + A*A) dB = A*r − G`` is solved by conjugate gradients
preconditioned with ``D + A*A``, so that

- their first direction is the step of the classical scheme, and every further one lowers the quadratic model;
- the preconditioned system has eigenvalues ≤ 1, as H ≼ D, and only the directions in which the majoriser is far from
  the penalty are left to the iteration. It stops with what it has where one of them has negative curvature.

A step is accepted where the objective falls, and the classical one always makes it fall: the objective is monotone.
Where rounding breaks that, the lowest point that was seen is returned.

Source: the majoriser is Proposition 3 of LeJeune & Alemohammad, arXiv 2308.15478; truncated Newton methods as in
Nocedal & Wright, Numerical Optimization (2006), chapter 7.
"""

from __future__ import annotations

import math

import numpy as np

from .._types import Array, Coefs
from ..certificate import Certificate
from ..linalg.cholesky import CholeskyFactor
from ..problem import StructuredRegression
from .solution import Monitor, WarmStart
from .spectral_point import PrimalPoint, inner_product

#: Armijo's constant.
_ARMIJO = 1e-4
#: Steps that have to be cut below this share are none.
_SHORTEST = 1e-6
#: Where rounding hides whether the objective falls, it must not rise by more than this share either: that of small
#: singular values may be much larger.
_LARGEST_RISE = 1e-13
#: A rise of the objective by more than this share is not the rounding of its value, but that of a direction.
_DRIFT = 1e-6
#: Conjugate gradients reduce the error by this factor, and by more as the method converges.
_LOOSEST_FORCING = 0.1
_MAX_INNER = 200
#: Curvature below this share of the majoriser's counts as negative.
_LEAST_CURVATURE = 1e-8
_NO_PROGRESS = "the objective cannot be improved in floating-point arithmetic"
_EPS = np.finfo(float).eps


def solve_reweighted(
    problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
) -> tuple[Coefs, Array, str]:
    """Find a stationary point by Newton steps that begin as steps of iteratively reweighted least squares.

    One iteration costs the kernel of the stretched features (formed in memory, also of a stream) and its Cholesky
    factorisation, and two products with A or its adjoint for every step of conjugate gradients.

    Returns
    -------
    coefs, dual, message
    """
    point = PrimalPoint(problem, ridge_start(problem) if warm_start is None else warm_start[0])
    last, best, lowest = (
        point,
        math.inf,
        _lower(PrimalPoint(problem, problem.design.zeros(), np.zeros_like(problem.target)), point),
    )
    for iteration in range(max_iter + 1):
        correlation = problem.design.rmatvec(point.residual)
        downhill = [matrix - layer.gradient for layer, matrix in zip(point.layers, correlation, strict=True)]
        stationarity = math.sqrt(inner_product(downhill, downhill) / (inner_product(correlation, correlation) or 1.0))
        if stationarity >= best:
            point, message = last, _NO_PROGRESS
            break
        message = monitor.record(iteration, _certificate(point, stationarity))
        if message:
            break
        if iteration == max_iter:
            message = f"max_iter={max_iter} reached"
            break
        last = point
        try:
            point, falls = _step(last, downhill, min(_LOOSEST_FORCING, stationarity))
        except (FloatingPointError, np.linalg.LinAlgError):
            if iteration == 0:
                raise
            falls = False  # a step that cannot be computed is none
        lowest = _lower(lowest, point)
        # Where rounding hides whether the objective falls, the residual has to.
        best = math.inf if falls else stationarity
    rounding = _DRIFT if stationarity <= monitor.tol else _LARGEST_RISE
    if not point.objective <= (1.0 + rounding) * lowest.objective:
        point, message = lowest, f"{message}; rounding had lifted the objective, and the lowest point is returned"
    dual = problem.best_multiple(point.residual)[0] if problem.spectral.is_convex else point.residual
    return point.coefs, dual, message


def _lower(one: PrimalPoint, other: PrimalPoint) -> PrimalPoint:
    """That of two points with the lower objective; the second one if they are equal."""
    return one if one.objective < other.objective else other


def ridge_start(problem: StructuredRegression) -> Coefs:
    """Coefficients of ridge regression on the features as they are."""
    return Majoriser(PrimalPoint(problem.with_strength(problem.alpha, 0.0), problem.design.zeros())).minimiser()


def random_start(problem: StructuredRegression, rng: np.random.Generator) -> Coefs:
    """Coefficients of ridge regression on features that are stretched along one random direction a layer."""
    scale = max(np.linalg.norm(coef) for coef in ridge_start(problem))
    coefs = []
    for shape in problem.design.coef_shapes:
        direction = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
        coefs.append(scale * direction / np.linalg.norm(direction))
    return Majoriser(PrimalPoint(problem, coefs)).minimiser()


class Majoriser:
    """The quadratic that touches the objective from above at a point: ridge regression on stretched features."""

    def __init__(self, point: PrimalPoint) -> None:
        self._point = point
        self._problem = point.problem
        left, right = zip(*(layer.transforms for layer in point.layers), strict=True)
        features = self._problem.design.transformed(left, right)
        # All outputs have the same kernel as long as they share their transforms.
        self._one_kernel = features.outputs == "shared"
        kernel = features.mean_gram() if self._one_kernel else features.gram()
        # Where alpha is lost in the rounding of the largest eigenvalue, a larger shift does: D grows as the shift does,
        # and the quadratic still lies above the objective.
        self._shift = max(self._problem.alpha, _EPS * 10 * len(kernel) * np.trace(kernel))
        kernel.flat[:: len(kernel) + 1] += self._shift
        self._factor = CholeskyFactor(kernel)

    def solve(self, matrices: Coefs) -> tuple[Coefs, Array, Coefs]:
        """``E = (D + A*A)⁻¹ X`` for one matrix X a layer, with A E and A*A E, which come for free."""
        design = self._problem.design
        prediction = self._dual(design.matvec(self._inverse(matrices)))
        correlation = design.rmatvec(prediction)
        change = self._inverse([x - a for x, a in zip(matrices, correlation, strict=True)])
        return change, prediction, correlation

    def minimiser(self) -> Coefs:
        """The coefficients at its minimum."""
        dual = self._dual(self._problem.target)
        return self._inverse(self._problem.design.rmatvec(dual))

    def _inverse(self, matrices: Coefs) -> Coefs:
        """D⁻¹ times one matrix a layer."""
        share = self._problem.alpha / self._shift
        return [share * matrix for matrix in self._point.solve_majoriser(matrices)]

    def _dual(self, values: Array) -> Array:
        """(I + A D⁻¹ A*)⁻¹ times values of shape (n, C)."""
        flat = values if self._one_kernel else values.reshape(-1)
        return self._shift * self._factor.solve(flat).reshape(values.shape)


def _certificate(point: PrimalPoint, stationarity: float) -> Certificate:
    objective = float(point.objective)
    if not point.problem.spectral.is_convex:
        return Certificate(objective, math.nan, math.nan, stationarity)
    return Certificate.of(objective, point.problem.best_multiple(point.residual)[1])


def _step(point: PrimalPoint, downhill: Coefs, forcing: float) -> tuple[PrimalPoint, bool]:
    """The next point, and whether its objective is lower for certain."""
    first, newton = _directions(point, Majoriser(point), downhill, forcing)
    for change, prediction in (newton, first):
        moved, falls = _line_search(point, (change, prediction), downhill)
        if moved is not None and _has_drifted(point, moved):
            # A dB that came for free was mostly rounding.
            moved, falls = _line_search(point, (change, point.problem.design.matvec(change)), downhill)
        if moved is not None and not _has_drifted(point, moved):
            return moved, falls
    return point, False


def _has_drifted(point: PrimalPoint, moved: PrimalPoint) -> bool:
    """Whether the objective, computed anew, has risen where a line search has seen it fall."""
    return not moved.objective <= (1.0 + _DRIFT) * point.objective


def _directions(
    point: PrimalPoint, majoriser: Majoriser, downhill: Coefs, forcing: float
) -> tuple[tuple[Coefs, Array], tuple[Coefs, Array]]:
    """The step of iteratively reweighted least squares and the truncated Newton step, each with its A dB."""
    residual = downhill
    change, prediction, correlation = majoriser.solve(residual)
    first = change, prediction
    energy = goal = inner_product(residual, change)
    goal *= forcing**2
    total, total_prediction = [np.zeros_like(matrix) for matrix in change], np.zeros_like(prediction)
    for inner in range(_MAX_INNER):
        image = [h + a for h, a in zip(point.apply_curvature(change), correlation, strict=True)]
        curvature = inner_product(change, image)
        if curvature <= _LEAST_CURVATURE * energy:
            return first, (first if inner == 0 else (total, total_prediction))
        length = energy / curvature
        total = [a + length * b for a, b in zip(total, change, strict=True)]
        total_prediction = total_prediction + length * prediction
        residual = [a - length * b for a, b in zip(residual, image, strict=True)]
        fresh, fresh_prediction, fresh_correlation = majoriser.solve(residual)
        previous, energy = energy, inner_product(residual, fresh)
        if not energy > max(goal, 0.0):
            break
        inertia = energy / previous
        change = [a + inertia * b for a, b in zip(fresh, change, strict=True)]
        prediction = fresh_prediction + inertia * prediction
        correlation = [a + inertia * b for a, b in zip(fresh_correlation, correlation, strict=True)]
    return first, (total, total_prediction)


def _line_search(point: PrimalPoint, step: tuple[Coefs, Array], downhill: Coefs) -> tuple[PrimalPoint | None, bool]:
    """The first of the lengths 1, ½, ¼, … at which the objective falls enough, and whether it falls for certain."""
    change, prediction = step
    slope = -inner_product(downhill, change)
    linear, quadratic = np.vdot(point.residual, prediction), np.sum(prediction**2)
    length = 1.0
    while True:
        moved = PrimalPoint(point.problem, [b + length * e for b, e in zip(point.coefs, change, strict=True)])
        # From differences: where the loss dwarfs the penalty, that of two objectives would be rounding.
        terms = (-length * linear, 0.5 * length**2 * quadratic, moved.penalty, -point.penalty)
        rounding = 8 * _EPS * max(abs(term) for term in terms)
        if sum(terms) <= _ARMIJO * length * slope:
            return moved, True
        if -length * slope <= rounding:
            return (moved if sum(terms) <= _LARGEST_RISE * point.objective else None), False
        length *= 0.5
        if length < _SHORTEST:
            return None, False
