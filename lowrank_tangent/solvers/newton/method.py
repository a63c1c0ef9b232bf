"""Newton's method with a duality gap as certificate.

Newton's equation for the primal has as many unknowns as there are coefficients. With r = y − A B, G = Ω'(B) the
gradient of the penalty and W the inverse of its Hessian, both at B, it has n·C when written for the next dual point r':

    (I + A W A*) r' = r + A W G,          dB = W (A* r' − G).

This is the Hessian of the dual, linearised at G and not at ``A* r``. Both agree at the solution, and the gap of r'
vanishes quadratically. But G never leaves the domain of the conjugate, whereas Newton's method on the dual jams at the
boundary of that domain when the penalty is nearly the nuclear norm.

The method moves through these states, from the top left to the bottom right:

    draft, B = 0 ───(1)──▶ descent ──────────────(3)──────────────┐
        │                     │ fails                             ▼
        └───────(2)──▶ ridge ◀┘ ──(4)──▶ stage, √μ ──(5)──▶ the problem itself ──(7)──▶ done
                                           │    ▲                 │
                                           └(5)─┘                 │
    precision:   draft, in the samples or in single ─────(6)──────┴──▶ double, entry by entry

(1) A descent pays: squared loss, samples enough, not much adaptivity, coefficients in entries (`descent.py`).
(2) Otherwise. The first point is a ridge solution with an alpha of its own (`stages.py`). A draft that cannot solve
    ridge gives way to double precision at once.
(3) The descent has come near the solution: Newton's decrement is small against the objective.
(4) The ridge solution becomes a point of the first stage: √μ is its largest singular value, or that of the problem.
(5) A Newton step has gained little of the penalty, or none could be made: √μ falls by a constant factor, to that of the
    problem in the end.
(6) The rounding of a draft would be seen in the gap, or a system could not be solved: drafts are in single precision
    or have coefficients written in the samples (`samples.py`). Stages go on where they were. Products inside of
    conjugate gradients have a precision of their own (`system.py`), which goes to double for good where a pass stalls.
(7) The gap is below tol; max_iter or the callback says so; or a step in double precision that lowers nothing has been
    tried again with double products, then with the system itself, and there is no stage left.

Each step solves the equation by conjugate gradients (`system.py`, for every loss with a Hessian), preconditioned by the
ridge kernel of the stretched features (`preconditioner.py`), and searches along the line (`line_search.py`). The best
primal and the best dual point of all steps are kept, and their gap is the certificate. The spectral calculus of G and W
is in `spectral_point.py`.
"""

from __future__ import annotations

import contextlib
import copy

import numpy as np

from ...certificate import Certificate
from ..spectral_point import PrimalPoint, entries_of, gram_singular_values
from .descent import descend
from .line_search import step_length
from .preconditioner import Preconditioner
from .samples import SampledDesign
from .stages import first_stage, is_stage_done, next_stage, ridge_alpha
from .system import solve_system

#: Newton's equation is solved to this share of the gap that is asked for, or of what the barrier of the dual weighs.
_INNER_MARGIN = 0.2
#: Gap to which the ridge solution is solved, relative to the objective of B = 0: this share of the gap that is asked
#: for, but no less than the second number.
_RIDGE_MARGIN = 0.01
_RIDGE_TOL = 1e-8
#: Single precision serves down to this gap, and to an objective of this share of that of B = 0: its error in A B, of
#: 1e-6 of y, then is an error of the gap of about a tenth.
_DRAFT_GAP = 1e-3
_DRAFT_OBJECTIVE = 1e-3
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
    preconditioner = Preconditioner(problem) if preconditioner is None else preconditioner
    if warm_start is not None:
        coefs, dual = warm_start
        point = PrimalPoint(problem, coefs)
        return _iterate(point, dual, problem.design.rmatvec(dual), problem, monitor, max_iter, preconditioner)
    point, dual = _start(problem, preconditioner, monitor.tol)
    correlation = point.problem.design.rmatvec(dual)
    return _iterate(point, dual, correlation, problem, monitor, max_iter, preconditioner)


def continue_path(problem, monitor, max_iter, start, preconditioner):
    """Newton's method from the `Start` that a path points to; from scratch without one."""
    if start is None:
        return solve_newton(problem, monitor, max_iter, None, preconditioner)
    return _iterate(*start, problem, monitor, max_iter, preconditioner)


def _iterate(point, dual, correlation, problem, monitor, max_iter, preconditioner):
    """Newton's method from a primal point and a dual point, of this problem, or of a draft or an early stage of it."""
    best = _BestPair(_in_terms_of(point.problem.design, problem), point, dual, correlation)
    solved = True
    for iteration in range(max_iter + 1):
        design = point.problem.design
        if design is not problem.design and (not solved or best.is_too_fine(monitor.tol)):
            coefs = [entries_of(coef) for coef in point.coefs]
            point = PrimalPoint(_in_terms_of(problem.design, point.problem), coefs)
            correlation = problem.design.rmatvec(dual)
            best = _BestPair(problem, point, dual, correlation)
        message = monitor.record(iteration, best.certificate)
        if message:
            break
        if iteration == max_iter:
            message = f"max_iter={max_iter} reached"
            break
        step, solved = _newton_step(point, dual, correlation, preconditioner, monitor.tol * best.objective)
        moved = _move_along(step, solved)
        if moved is not None:
            best.offer_primal(moved)
            point = moved
        elif point.problem.design is problem.design and not preconditioner.improve(point):
            if _is_lost(step, solved):
                raise FloatingPointError("rounding errors of Newton's equation dwarf the objective")
            if point.problem.spectral is problem.spectral:
                message = "the objective cannot be improved in floating-point arithmetic"
                best.offer_dual(step.dual, step.correlation)
                monitor.record(iteration + 1, best.certificate)
                break
        dual, correlation = step.dual, step.correlation
        best.offer_dual(dual, correlation)
        if not problem.loss.is_quadratic:
            # r' is a dual point of a quadratic model; that of the loss itself is in the domain of its conjugate.
            dual = point.residual
            correlation = point.problem.design.rmatvec(dual)
            best.offer_dual(dual, correlation)
        if point.problem.spectral is not problem.spectral and (moved is None or is_stage_done(point, step.decrement)):
            point = next_stage(point, best.problem)
        solved = solved and moved is not None
    return [entries_of(coef) for coef in best.coefs], best.dual, message


def _start(problem, preconditioner, tol):
    """Primal and dual point to start from, of the problem or of a draft of it: a descent's, or those of ridge."""
    draft = _draft_of(problem, preconditioner)
    zero, correlation, alpha = _outset(draft)
    if preconditioner.leads_descent(alpha / problem.alpha) and preconditioner.products.has(draft.design):
        # Numbers that leave the precision at hand, too, are a reason to start otherwise.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"), contextlib.suppress(FloatingPointError):
            start = descend(zero, correlation, preconditioner, tol)
            if start is not None:
                return start
    ridge_tol = max(_RIDGE_TOL, _RIDGE_MARGIN * tol)
    ridge, dual, solved = _ridge(zero, alpha, preconditioner, ridge_tol)
    if not solved:
        zero, _, alpha = _outset(problem)
        ridge, dual, _ = _ridge(zero, alpha, preconditioner, ridge_tol)
    return first_stage(ridge, zero.problem), dual


def _outset(problem):
    """The point B = 0, A* r there, and the alpha of the ridge solution to start from."""
    zero = PrimalPoint(problem, problem.design.zeros(), np.zeros_like(problem.target))
    correlation = problem.design.rmatvec(zero.residual)
    return zero, correlation, ridge_alpha(zero, correlation)


def _draft_of(problem, preconditioner):
    """What the method begins with: coefficients written in the samples if that is cheaper, or single precision."""
    products = preconditioner.products
    # The system itself is assembled from entries.
    sampled = None if preconditioner.may_be_exact else SampledDesign.of(problem.design, products)
    if sampled is None and not products.is_single:
        return problem
    return _in_terms_of(products.design if sampled is None else sampled, problem)


def _in_terms_of(design, problem):
    """The problem with its features in another precision, or its coefficients written otherwise."""
    if design is problem.design:
        return problem
    draft = copy.copy(problem)
    draft.design = design
    return draft


def _ridge(zero, alpha, preconditioner, tol):
    """Primal and dual point of ridge, (I + A A*/α) r = y and B = A* r / α, and whether they were found.

    Of another loss, the best point on the way to the minimum of its second-order approximation at 0.
    """
    problem = copy.copy(zero.problem)
    problem.alpha = alpha
    zero = zero.of(problem)
    preconditioner.update(zero)
    nothing = np.zeros_like(problem.target)
    system, solved = solve_system(zero, nothing, None, preconditioner, 0.5 * tol * zero.loss.value, 0.0)
    if problem.loss.is_quadratic:
        return zero.moved(1.0, system.change, system.prediction), system.dual, solved
    moved = _move_along(system, solved) or zero
    return moved, moved.residual, solved


class _BestPair:
    """The best primal and the best dual point so far, for the strength that is asked for."""

    def __init__(self, problem, point, dual, correlation):
        self.problem = problem
        self.objective, self.dual_objective = np.inf, -np.inf
        self.offer_primal(point)
        self.offer_dual(dual, correlation)

    @property
    def certificate(self):
        """What the two points prove about each other."""
        return Certificate.of(self.objective, self.dual_objective)

    def is_too_fine(self, tol):
        """Whether the gap, to be told, needs double precision where this is single."""
        problem = self.problem
        if problem.design.dtype == np.float64:
            return False
        largest = problem.loss.at(problem.target, np.zeros_like(problem.target)).value
        gap = self.objective - self.dual_objective
        return self.objective <= _DRAFT_OBJECTIVE * largest or gap <= max(tol, _DRAFT_GAP) * self.objective

    def offer_primal(self, point):
        """Keep these coefficients if their objective is lower."""
        objective = point.objective_of(self.problem)
        if objective < self.objective:
            self.objective, self.coefs = objective, point.coefs

    def offer_dual(self, dual, correlation):
        """Keep the best multiple of a dual point if its objective is higher."""
        inside = self.problem.loss.nearest_dual(self.problem.target, dual)
        if inside is not dual:
            dual, correlation = inside, self.problem.design.rmatvec(inside)
        spectra = [gram_singular_values(matrix) for matrix in correlation]
        dual, dual_objective = self.problem.best_multiple(dual, spectra)
        if dual_objective > self.dual_objective:
            self.dual, self.dual_objective = dual, dual_objective


def _newton_step(point, dual, correlation, preconditioner, wanted_gap):
    """Inexact Newton step by preconditioned conjugate gradients, from a dual point near the next one."""
    preconditioner.update(point)
    barrier = point.problem.alpha * point.problem.spectral.sqrt_mu**2
    target = _INNER_MARGIN * min(wanted_gap, barrier)
    return solve_system(point, dual, correlation, preconditioner, target, point.penalty)


def _is_lost(step, solved):
    """Whether even at B = 0 Newton's equation is left with an error that dwarfs the objective."""
    if solved or any(layer.values.any() for layer in step.point.layers):
        return False
    return step.error * _EPS > step.point.objective


def _move_along(step, solved):
    """The point that a Newton step leads to, None if there is none."""
    if _is_lost(step, solved):
        return None
    length = step_length(step.point, step.change, step.prediction, step.descent)
    return None if length is None else step.point.moved(length, step.change, step.prediction)
