"""Newton's equation in unknowns of the dual's size, and its solution by conjugate gradients in mixed precision.

This is iterative refinement: conjugate gradients in single precision improve the solution as far as they can, then its
error is computed in double precision, and they begin again with that. Where a pass no longer reduces the error,
everything goes on in double precision.
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
    """Newton's equation at a point, and an approximate solution with all that follows from it.

    With the Hessian S Sᵀ of the loss, r' = r − S x and dB = W (A* r' − G), the equation is ``x = Sᵀ A dB``.

    Parameters
    ----------
    point : PrimalPoint
    dual : ndarray of shape (n, C)
        r'.
    unknown : ndarray of shape (n, C)
        x.
    correlation : list of ndarray
        A* r'.
    design : TangentOperator
        A, in double precision or in single.
    precision : dtype
        In which dB is found. The error that single precision makes is part of the residual.

    Attributes
    ----------
    change : list of ndarray
        dB.
    energy : float
        ⟨dB, A* r' − G⟩, its square in the norm of the penalty's Hessian.
    prediction : ndarray of shape (n, C)
        A dB.
    residual : ndarray of shape (n, C)
        x − Sᵀ A dB, what x misses of the equation.
    error : float
        Its square, which is that of dB in the energy norm of the primal.
    """

    def __init__(self, point, dual, unknown, correlation, design, precision):
        self.point, self.dual, self.unknown, self.correlation, self.precision = (
            point,
            dual,
            unknown,
            correlation,
            precision,
        )
        self.change, self.energy = point.newton_change(correlation, precision)
        self.prediction = design.matvec(self.change)
        self.residual = unknown - point.loss.adjoint(self.prediction)
        self.error = np.sum(self.residual**2)

    def moved(self, direction, design):
        """The same with another x, x − direction."""
        step = self.point.loss.multiply(direction)
        # Added up and not computed anew: conjugate gradients correct the system that they have worked with.
        correlation = [a + b for a, b in zip(self.correlation, design.rmatvec(step), strict=True)]
        return NewtonSystem(self.point, self.dual + step, self.unknown - direction, correlation, design, self.precision)

    @property
    def decrement(self):
        """Newton's decrement squared, ⟨dB, (W⁻¹ + A* S Sᵀ A) dB⟩."""
        return self.energy + np.sum(self.unknown**2)

    @property
    def descent(self):
        """Minus the derivative of the objective along dB."""
        return self.decrement - np.vdot(self.unknown, self.residual)


def solve_system(point, dual, correlation, preconditioner, gap_target, penalty):
    """Solve Newton's equation at a point approximately.

    The error is brought below twice `gap_target`, or below a small share of the decrement if dB is a descent direction
    by then.

    Parameters
    ----------
    point : PrimalPoint
    dual : ndarray of shape (n, C)
        r' to begin with.
    correlation : list of ndarray or None
        A* r' if it is known.
    preconditioner : Preconditioner
    gap_target, penalty : float

    Returns
    -------
    system : NewtonSystem
        With the best x that was found.
    solved : bool
    """
    design, products, steps = point.problem.design, preconditioner.products, 0
    start, unknown = point.loss.newton_start(dual)
    if correlation is None or start is not dual:
        correlation = design.rmatvec(start)
    # Where conjugate gradients start from need not be exact.
    system = NewtonSystem(point, start, unknown, correlation, products.in_precision(design), products.design.dtype)
    while True:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            change, spent = _conjugate_gradients(system, preconditioner, gap_target, penalty)
            candidate = system.moved(change, design)
        # The pass has stalled if it leaves too much of the error. An error that is the same before and after it is 0 or
        # infinite, and no pass will change that.
        stalled = not candidate.error <= _STALLED * system.error or candidate.error == system.error
        # An error that grows in double precision is rounding, and the candidate as good. In single it may be no good.
        if candidate.error <= system.error or not products.is_single:
            system = candidate
        steps += spent
        if _is_solved(system.error, system.decrement, system.descent, gap_target, penalty):
            return system, True
        if stalled and products.is_single and design.dtype == np.float64:
            preconditioner.use_double(point)
            correlation = design.rmatvec(system.dual)
            system = NewtonSystem(point, system.dual, system.unknown, correlation, design, design.dtype)
        elif stalled or steps >= _MAX_INNER:
            if preconditioner.is_fresh:
                return system, False
            preconditioner.renew(point)
            steps = 0


def _conjugate_gradients(system, preconditioner, gap_target, penalty):
    """Minus the change of x by one pass of preconditioned conjugate gradients, and the number of its steps.

    Everything happens in the dual unknowns: with d that change and ``Q d = Sᵀ A W A* S d``, the decrement is
    ``⟨dB, A* r' − G⟩ + 2⟨d, Sᵀ A dB⟩ + ⟨d, Q d⟩ + ‖x − d‖²``, of the quantities at the start.
    """
    loss, dtype = system.point.loss, preconditioner.products.design.dtype
    product = preconditioner.products.at(system.point)
    unknown, residual = system.unknown.astype(dtype), system.residual.astype(dtype)
    prediction = unknown - residual
    total, image = np.zeros_like(residual), np.zeros_like(residual)
    direction, previous = 0.0, 1.0
    least = _PASS * system.error
    steps = 0
    while steps < _MAX_INNER:
        error = np.vdot(residual, residual)
        left = unknown - total
        decrement = system.energy + 2.0 * np.vdot(total, prediction) + np.vdot(total, image) + np.vdot(left, left)
        descent = decrement - np.vdot(left, residual)
        if not error > least or _is_solved(error, decrement, descent, gap_target, penalty):
            break
        preconditioned = preconditioner.apply(residual)
        energy = np.vdot(residual, preconditioned)
        if not energy > 0.0:  # the preconditioner is not positive definite in this precision
            break
        direction = preconditioned + (energy / previous) * direction
        curved = loss.adjoint(product(loss.multiply(direction))).astype(dtype, copy=False)
        length = energy / (np.vdot(direction, direction) + np.vdot(direction, curved))
        total = total + length * direction
        image = image + length * curved
        residual = residual - length * (direction + curved)
        preconditioner.spend_product()
        previous = energy
        steps += 1
    return total.astype(np.float64), steps


def _is_solved(error, decrement, descent, gap_target, penalty):
    """Whether an error is small against the gap that is asked for or the decrement, and dB is a descent direction."""
    decrement = max(decrement, 0.0)  # below 0 by rounding alone
    forcing = min(_LOOSEST_FORCING, decrement / penalty) if penalty > 0 else 0.0
    return error <= max(2.0 * gap_target, forcing * decrement) and descent >= 0.5 * decrement
