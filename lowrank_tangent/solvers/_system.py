"""Newton's equation in the dual unknowns, and its solution by conjugate gradients in mixed precision.

Most products are in single precision: conjugate gradients improve the solution by what they can, the error of the
result is computed in double precision, and so on (iterative refinement). Where that stalls, everything goes on in
double precision.
"""

from __future__ import annotations

import numpy as np

#: Conjugate gradients leave an error of at most this share of Newton's decrement, and less as the method converges.
_LOOSEST_FORCING = 0.1
_MAX_INNER = 500
#: One pass of conjugate gradients reduces the squared residual to this share: single precision has no more to give.
_PASS = 1e-9
#: A pass that leaves more than this share has failed.
_STALLED = 0.25


class NewtonSystem:
    """Newton's equation at a point, and an approximate solution r' with all that follows from it.

    Parameters
    ----------
    point : PrimalPoint
    dual : ndarray of shape (n, C)
        r'.
    pull : list of ndarray
        A* r'.
    design : TangentOperator
        A, in double precision or in single.

    Attributes
    ----------
    mismatch, change : list of ndarray
        A* r' − G, and W times it: dB.
    prediction : ndarray of shape (n, C)
        A dB.
    residual : ndarray of shape (n, C)
        r − r' − A dB, what r' misses of the equation.
    error : float
        Its square, which is that of dB in the energy norm of the primal.
    """

    def __init__(self, point, dual, pull, design):
        self.point, self.dual, self.pull = point, dual, pull
        self.mismatch = [a - layer.gradient for a, layer in zip(pull, point.layers, strict=True)]
        self.change = point.solve_curvature(self.mismatch)
        self.prediction = design.matvec(self.change)
        self.residual = point.residual - dual - self.prediction
        self.error = np.sum(self.residual**2)

    @property
    def decrement(self):
        """Newton's decrement squared, ⟨dB, (W⁻¹ + A*A) dB⟩; without cancellation, as r' and not its change is known."""
        return inner(self.change, self.mismatch) + np.sum((self.point.residual - self.dual) ** 2)

    @property
    def descent(self):
        """Minus the derivative of the objective along dB."""
        return self.decrement - np.vdot(self.point.residual - self.dual, self.residual)


def solve_system(point, dual, pull, preconditioner, gap_target, penalty):
    """Solve Newton's equation at a point approximately.

    The error is brought below twice `gap_target`, or below a small share of the decrement if dB is a descent direction
    by then.

    Parameters
    ----------
    point : PrimalPoint
    dual, pull : ndarray of shape (n, C), list of ndarray
        r' to begin with, and A* r'.
    preconditioner : Preconditioner
    gap_target, penalty : float

    Returns
    -------
    system : NewtonSystem
        With the best r' that was found.
    solved : bool
    """
    design, products, steps = point.problem.design, preconditioner.products, 0
    # Where conjugate gradients start from need not be exact.
    system = NewtonSystem(point, dual, pull, products.design)
    while True:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            change, spent = _conjugate_gradients(system, preconditioner, gap_target, penalty)
            pull = [a + b for a, b in zip(system.pull, design.rmatvec(change), strict=True)]
            candidate = NewtonSystem(point, system.dual + change, pull, design)
        stalled = not candidate.error <= _STALLED * system.error
        # In double precision an error that grows is rounding, in single precision it may be anything.
        if candidate.error <= system.error or not products.is_single:
            system = candidate
        steps += spent
        if _is_solved(system.error, system.decrement, system.descent, gap_target, penalty):
            return system, True
        if stalled and products.design is not design:
            preconditioner.widen(point)
            system = NewtonSystem(point, system.dual, design.rmatvec(system.dual), design)
        elif stalled or steps >= _MAX_INNER:
            return system, False


def _conjugate_gradients(system, preconditioner, gap_target, penalty):
    """The change of r' by one pass of preconditioned conjugate gradients, and the number of its steps.

    Everything happens in the dual unknowns: with d the change and ``Q d = A W A* d``, the decrement is
    ``⟨dB, A* r' − G⟩ + 2⟨d, A dB⟩ + ⟨d, Q d⟩ + ‖r − r' − d‖²``, of the quantities at the start.
    """
    product, dtype = preconditioner.products.at(system.point), preconditioner.products.design.dtype
    ahead = (system.point.residual - system.dual).astype(dtype)
    residual, prediction = system.residual.astype(dtype), system.prediction.astype(dtype)
    change, image = np.zeros_like(residual), np.zeros_like(residual)
    start, direction, previous = inner(system.change, system.mismatch), 0.0, 1.0
    least = _PASS * system.error
    steps = 0
    while steps < _MAX_INNER:
        error = np.vdot(residual, residual)
        left = ahead - change
        decrement = start + 2.0 * np.vdot(change, prediction) + np.vdot(change, image) + np.vdot(left, left)
        descent = decrement - np.vdot(left, residual)
        if not error > least or _is_solved(error, decrement, descent, gap_target, penalty):
            break
        preconditioned = preconditioner.apply(residual)
        energy = np.vdot(residual, preconditioned)
        if not energy > 0.0:  # the preconditioner is not positive definite in this precision
            break
        direction = preconditioned + (energy / previous) * direction
        advance = product(direction)
        length = energy / np.vdot(direction, advance)
        change = change + length * direction
        image = image + length * (advance - direction)
        residual = residual - length * advance
        preconditioner.spend_product()
        previous = energy
        steps += 1
    return change.astype(np.float64), steps


def _is_solved(error, decrement, descent, gap_target, penalty):
    """Whether an error is small against the gap that is asked for or the decrement, and dB is a descent direction."""
    forcing = min(_LOOSEST_FORCING, decrement / penalty) if penalty > 0 else 0.0
    return error <= max(2.0 * gap_target, forcing * decrement) and descent >= 0.5 * decrement


def inner(these, those):
    """Inner product of two lists of matrices."""
    return sum(np.vdot(a, b) for a, b in zip(these, those, strict=True))
