"""Newton's method with a duality gap as certificate.

Newton's equation for the primal has as many unknowns as there are coefficients. With r = y − A B, G = Ω'(B) the
gradient of the penalty and W the inverse of its Hessian, both at B, it has n·C when written for the next dual point r':

    (I + A W A*) r' = r + A W G,          dB = W (A* r' − G).

This is the Hessian of the dual, linearised at G and not at ``A* r``. Both agree at the solution, and the gap of r'
vanishes quadratically; but G never leaves the domain of the conjugate, whereas iterates of Newton's method on the dual
jam at its boundary when the penalty is nearly the nuclear norm.

The equation is solved by conjugate gradients, preconditioned by the ridge kernel of the stretched features
(`_preconditioner.py`); the spectral calculus of G and W is in `_point.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..problem import Certificate
from ._point import PrimalPoint, gram_singular_values
from ._preconditioner import Preconditioner

#: Armijo's constant: the share of the linear gain that a step has to realise.
_ARMIJO = 1e-4
#: A step length will do where the slope has fallen to this share, or where it is known to this relative accuracy.
_FLAT = 0.05
_SHORTEST_INTERVAL = 1e-3
#: Continuation in the adaptivity starts where √μ is the largest singular value of the ridge solution, and lets √μ
#: fall by this factor a stage: far into the tail of the penalty its curvature says nothing about the way.
_STAGE_FACTOR = 8.0
#: A stage is done when a Newton step gains less than this share of the penalty.
_STAGE_DECREMENT = 0.1
#: Conjugate gradients leave an error of at most this share of Newton's decrement, and less as the method converges...
_LOOSEST_FORCING = 0.1
#: ...but no less than this share of the gap that is asked for, or of what the barrier of the dual weighs.
_INNER_MARGIN = 0.05
_MAX_INNER = 500
#: Gap to which the ridge solution is solved, relative to the objective of B = 0.
_RIDGE_TOL = 1e-20
_EPS = np.finfo(float).eps


def solve_newton(problem, monitor, max_iter, warm_start, preconditioner=None):
    """Minimise the primal by Newton's method in the dual unknowns; see the module for the formulas.

    Parameters
    ----------
    problem : StructuredRegression
        With a convex penalty.
    monitor : Monitor
    max_iter : int
    warm_start : (coefs, dual) or None
        Point to start from.
    preconditioner : Preconditioner, optional
        Of a problem that differs in alpha and adaptivity alone, to go on with.

    Returns
    -------
    coefs, dual, message
    """
    final = problem.spectral
    preconditioner = Preconditioner(problem) if preconditioner is None else preconditioner.of(problem)
    if warm_start is None:
        dual, coefs = _ridge(problem, preconditioner)
        point = PrimalPoint(problem, final, coefs)
        best = _BestPair(point, dual)
        point = point.with_penalty(final.relaxed(max(layer.values.max() for layer in point.layers)))
    else:
        coefs, dual = warm_start
        point = PrimalPoint(problem, final, coefs)
        best = _BestPair(point, dual)
    for iteration in range(max_iter + 1):
        message = monitor.record(iteration, best.certificate)
        if message:
            break
        if iteration == max_iter:
            message = f"max_iter={max_iter} reached"
            break
        step = _newton_step(point, dual, preconditioner, monitor.tol * best.objective)
        dual = step.dual
        best.offer_dual(dual, step.pull)
        moved = _line_search(point, step)
        if moved is not None:
            best.offer_primal(moved)
            point = moved
        elif point.spectral is final:
            message = "the objective cannot be improved in floating-point arithmetic"
            monitor.record(iteration + 1, best.certificate)
            break
        if point.spectral is not final and (moved is None or step.decrement <= _STAGE_DECREMENT * point.penalty):
            point = point.with_penalty(final.relaxed(point.spectral.root / _STAGE_FACTOR))
    return best.coefs, best.dual, message


def _ridge(problem, preconditioner):
    """Dual point and coefficients of ridge: (I + A A*/α) r = y, B = A* r / α."""
    design, alpha = problem.design, problem.alpha
    zero = PrimalPoint(problem, problem.spectral, [np.zeros(shape) for shape in design.coef_shapes])
    preconditioner.update(zero)
    system = _System(zero, np.zeros_like(problem.target))
    system.solve(preconditioner.products.at(zero), preconditioner, 0.5 * _RIDGE_TOL * np.sum(problem.target**2), 0.0)
    return system.dual, [pull / alpha for pull in design.rmatvec(system.dual)]


class _BestPair:
    """The best primal and the best dual point so far, for the adaptivity that is asked for."""

    def __init__(self, point, dual):
        self.problem = point.problem
        self.objective, self.dual_objective = np.inf, -np.inf
        self.offer_primal(point)
        self.offer_dual(dual, self.problem.design.rmatvec(dual))

    @property
    def certificate(self):
        """What the two points prove about each other."""
        return Certificate.of(self.objective, self.dual_objective)

    def offer_primal(self, point):
        """Keep these coefficients if their objective is lower."""
        objective = point.objective_for(self.problem.spectral)
        if objective < self.objective:
            self.objective, self.coefs = objective, point.coefs

    def offer_dual(self, dual, pull):
        """Keep the best multiple of a dual point if its objective is higher."""
        spectra = [gram_singular_values(matrix) for matrix in pull]
        dual, dual_objective = self.problem.best_multiple(dual, spectra)
        if dual_objective > self.dual_objective:
            self.dual, self.dual_objective = dual, dual_objective


@dataclass(frozen=True)
class _Step:
    """A Newton step.

    Attributes
    ----------
    coefs : list of ndarray
        dB.
    prediction : ndarray of shape (n, C)
        A dB.
    dual : ndarray of shape (n, C)
        The dual point r'.
    pull : list of ndarray
        A* r'.
    decrement : float
        What the quadratic model gains, half of Newton's decrement squared.
    slope : float
        Derivative of the objective along dB; −2 × decrement if the system is solved exactly.
    """

    coefs: list
    prediction: np.ndarray
    dual: np.ndarray
    pull: list
    decrement: float
    slope: float


def _newton_step(point, dual, preconditioner, wanted_gap):
    """Inexact Newton step by preconditioned conjugate gradients, from a dual point near the next one."""
    preconditioner.update(point)
    system = _System(point, dual)
    barrier = point.problem.alpha * point.spectral.root**2
    target = _INNER_MARGIN * min(wanted_gap, barrier)
    system.solve(preconditioner.products.at(point), preconditioner, target, point.penalty)
    pull = [layer.gradient + matrix for layer, matrix in zip(point.layers, system.mismatch, strict=True)]
    return _Step(system.change, system.prediction, system.dual, pull, 0.5 * system.decrement, -system.descent)


class _System:
    """Newton's equation at a point, and an approximate solution r' with all that follows from it.

    Attributes
    ----------
    dual : ndarray of shape (n, C)
        r'.
    mismatch, change : list of ndarray
        A* r' − G, and W times it: dB.
    prediction : ndarray of shape (n, C)
        A dB.
    residual : ndarray of shape (n, C)
        r − r' − A dB, what r' misses of the equation.
    """

    def __init__(self, point, dual):
        self.point = point
        self.design = point.problem.design
        self.dual = dual
        pull = self.design.rmatvec(dual)
        self._follow([a - layer.gradient for a, layer in zip(pull, point.layers, strict=True)])

    def _follow(self, mismatch):
        self.mismatch = mismatch
        self.change = self.point.solve_curvature(mismatch)
        self.prediction = self.design.matvec(self.change)
        self.residual = self.point.residual - self.dual - self.prediction

    @property
    def decrement(self):
        """Newton's decrement squared, ⟨dB, (W⁻¹ + A*A) dB⟩; without cancellation, as r' and not its change is known."""
        return _inner(self.change, self.mismatch) + np.sum((self.point.residual - self.dual) ** 2)

    @property
    def descent(self):
        """Minus the derivative of the objective along dB."""
        return self.decrement - np.vdot(self.point.residual - self.dual, self.residual)

    def solve(self, product, preconditioner, gap_target, penalty):
        """Improve r' by preconditioned conjugate gradients.

        The error of dB in the primal's energy norm is that of the residual in the Euclidean norm. Its square is
        brought below twice `gap_target`, or below a small share of the decrement if dB is a descent direction by then.

        Everything happens in the dual unknowns: with d the change of r' and ``Q d = A W A* d``, the decrement is
        ``⟨dB, A* r' − G⟩ + 2⟨d, A dB⟩ + ⟨d, Q d⟩ + ‖r − r' − d‖²``, of the quantities at the start.
        """
        change, image = np.zeros_like(self.dual), np.zeros_like(self.dual)
        residual, direction, previous = self.residual, 0.0, 1.0
        start = _inner(self.change, self.mismatch)
        for _ in range(_MAX_INNER):
            error = np.sum(residual**2)
            ahead = self.point.residual - self.dual - change
            decrement = start + 2.0 * np.vdot(change, self.prediction) + np.vdot(change, image) + np.sum(ahead**2)
            forcing = min(_LOOSEST_FORCING, decrement / penalty) if penalty > 0 else 0.0
            descent = decrement - np.vdot(ahead, residual)
            if error <= max(2.0 * gap_target, forcing * decrement) and descent >= 0.5 * decrement:
                break
            preconditioned = preconditioner.apply(residual)
            energy = np.vdot(residual, preconditioned)
            direction = preconditioned + (energy / previous) * direction
            advance = product(direction)
            step = energy / np.vdot(direction, advance)
            change = change + step * direction
            image = image + step * (advance - direction)
            residual = residual - step * advance
            preconditioner.spend_product()
            previous = energy
        if change.any():
            self.dual = self.dual + change
            pull = self.design.rmatvec(change)
            self._follow([total + part for total, part in zip(self.mismatch, pull, strict=True)])


def _inner(these, those):
    return sum(np.vdot(a, b) for a, b in zip(these, those, strict=True))


def _line_search(point, step):
    """The point near the minimum of the objective along dB, not beyond the full step; None if rounding hides it.

    Trial points cost an eigenvalue decomposition but no product with A, so a good length is cheaper than another
    Newton step. Decreases are summed from differences: where the loss dwarfs the penalty, that of two objectives
    would be rounding.
    """
    linear = np.vdot(point.residual, step.prediction)
    quadratic = np.sum(step.prediction**2)
    low, high, length = 0.0, 1.0, 1.0
    best = None
    while high - low > _SHORTEST_INTERVAL * high:
        coefs = [coef + length * change for coef, change in zip(point.coefs, step.coefs, strict=True)]
        moved = PrimalPoint(point.problem, point.spectral, coefs)
        terms = (-length * linear, 0.5 * length**2 * quadratic, moved.penalty, -point.penalty)
        slope = -linear + length * quadratic + _inner([layer.gradient for layer in moved.layers], step.coefs)
        if sum(terms) <= _ARMIJO * length * step.slope:
            best = moved
            if abs(slope) <= _FLAT * abs(step.slope) or (length == 1.0 and slope < 0.0):
                break
        elif -length * step.slope <= 8 * _EPS * max(abs(term) for term in terms):
            break
        low, high = (low, length) if slope > 0.0 else (length, high)
        length = 0.5 * (low + high)
    return best
