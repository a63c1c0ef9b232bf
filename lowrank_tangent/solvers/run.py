"""From a problem to a certified solution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np

from .._checks import check_number, draw_seed, generator
from .._types import Array, ArrayLike, Coefs, RandomState
from ..precision import in_double_precision
from ..problem import StructuredRegression
from .registry import Solver, capable, choose, name_of
from .reweighted import random_start
from .solution import Iteration, Monitor, Solution, SolverFunction, WarmStart

#: A dual point that rounding keeps out of its domain is taken so many times.
_FAR_INSIDE = 1.0 - 1e-6


def solve(
    problem: StructuredRegression,
    method: str | Solver | SolverFunction = "auto",
    tol: float = 1e-6,
    max_iter: int | None = None,
    warm_start: Solution | ArrayLike | None = None,
    verbose: int = 0,
    callback: Callable[[Iteration], Any] | None = None,
    n_init: int = 1,
    random_state: RandomState = None,
) -> Solution:
    """Solve a structured regression problem.

    minimise  ``½‖y − A B‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))``,  μ = 1/adaptivity

    Parameters
    ----------
    problem : StructuredRegression
    method : str, Solver or callable, default="auto"
        - "newton": second-order, by systems of the dual's size; for convex penalties.
        - "reweighted": second-order, by reweighted ridge regressions; for every penalty that stretches.
        - "proximal": accelerated proximal gradient; for every penalty.
        - "cvxpy": the semidefinite program, for reference.
        - "bilinear": the joint problem over parameters and transforms by L-BFGS, as a witness.
        - "ridge": closed form for ``adaptivity=0``.
        - "auto": "ridge" where it applies and its kernel is small against the memory (never of a stream, of which a
          kernel is formed on demand only), "newton" for convex penalties,
          "reweighted" for others, "proximal" for those that do not stretch (nuclear, Schatten) and for other than
          convex ones with ``loss="multinomial"``, which "reweighted" and "ridge" do not solve; "bilinear" where the
          penalty does not stretch and ``loss="interpolation"``, which "proximal" does not solve.
        - a callable, or a `Solver` that says what it needs: called with (problem, monitor, max_iter, warm_start),
          returns (coefs, dual, message); see `Solver`.
    tol : float > 0, default=1e-6
        Relative duality gap at which to stop; for a penalty that is not convex, residual of stationarity.
    max_iter : int ≥ 0, optional
        By default 200 for "newton" and "cvxpy", 500 for "reweighted", 20,000 for "proximal" and "bilinear", 1,000 for
        a callable.
    warm_start : Solution or ndarray of shape (n, C), optional
        Solution of a problem with the same features (other y, alpha or adaptivity), or a dual point, to start from.
    verbose : int, default=0
        1 shows a progress bar with the gap.
    callback : callable, optional
        Called with every `Iteration`; a true return value stops the solver, and all further starts, at the best point
        so far.
    n_init : int ≥ 1, default=1
        Starting points that are tried for a penalty that is not convex: `warm_start` or ridge regression, then random
        ones. The solution with the lowest objective is kept, of those that meet the constraint of
        ``loss="interpolation"`` to `tol` or else are nearest to it.
    random_state : int, RandomState, Generator or None, default=None
        Draws the random starting points.

    Returns
    -------
    Solution
        Never assumed converged: ``converged`` says whether the error of the returned point is below `tol`.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, a method that cannot solve this problem or returns something else than a solution,
        and constraints of ``loss="interpolation"`` that depend on each other.
    RuntimeError
        If "cvxpy" ends without a solution.
    FloatingPointError
        If numbers overflow, as with an adaptivity of 1e300.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import StructuredRegression, solve
    >>> from lowrank_tangent.operators import LayerFactors, TangentOperator
    >>> rng = np.random.default_rng(0)
    >>> operator = TangentOperator([LayerFactors(rng.normal(size=(40, 5)), rng.normal(size=(40, 8)))])
    >>> problem = StructuredRegression(operator, rng.normal(size=40), penalty="kl", alpha=0.1)
    >>> solution = solve(problem, tol=1e-9)
    >>> bool(solution.dual_gap <= 1e-9)
    True
    """
    if not isinstance(problem, StructuredRegression):
        raise TypeError(f"problem must be a StructuredRegression; got {type(problem).__name__}.")
    tol = check_number(tol, "tol", positive=True)
    if isinstance(method, str) and method == "auto":
        method = choose(problem)
    run, limit = capable(method, problem)
    problem, scale, dual_scale = problem.rescaled()
    max_iter = limit if max_iter is None else _check_count(max_iter, "max_iter", 0)
    n_init = _check_count(n_init, "n_init", 1)
    reduced, expand, compress = problem.reduced()
    starts: list[WarmStart] = [
        None if warm_start is None else _starting_point(warm_start, problem, dual_scale, compress)
    ]
    if not problem.spectral.is_convex:
        # Not the numbers that the same seed gave to the weights of a network.
        rng = generator(draw_seed(generator(random_state)))
        starts += [(random_start(reduced, rng), None) for _ in range(n_init - 1)]
    solutions = []
    for start in starts:
        monitor = Monitor(tol, verbose, callback, scale)
        with in_double_precision(reduced):
            solutions.append(solve_from(start, reduced, run, max_iter, monitor))
        if monitor.is_stopped:
            break
    best = min(solutions, key=lambda solution: (max(solution.constraint_residual, tol), solution.objective))
    return replace(best.rescaled(scale, dual_scale), coefs=expand(best.coefs), method=name_of(method))


def solve_from(
    start: WarmStart, problem: StructuredRegression, run: SolverFunction, max_iter: int, monitor: Monitor
) -> Solution:
    """One run of a solver, certified anew from the definition: the figures are those of the point that it returns."""
    try:
        coefs, dual, message = _checked(run(problem, monitor, max_iter, start), problem)
        prediction = problem.operator.matvec(coefs)
        certificate = problem.certificate(coefs, dual, prediction)
        if math.isinf(certificate.dual_gap):  # rounding has moved the dual point out of its domain
            dual, _ = problem.best_multiple(dual)
            certificate = problem.certificate(coefs, dual, prediction)
        if math.isinf(certificate.dual_objective):  # even the best multiple, where A* r itself is mostly rounding
            dual = _FAR_INSIDE * dual
            certificate = problem.certificate(coefs, dual, prediction)
        if math.isnan(certificate.error):
            raise FloatingPointError("their certificate is not a number")
        if not monitor.history:
            monitor.record(0, certificate)
    finally:
        monitor.close()
    return Solution(
        coefs=coefs,
        dual=dual,
        prediction=prediction,
        intercept=problem.intercept(prediction),
        objective=certificate.objective,
        dual_objective=certificate.dual_objective,
        dual_gap=certificate.dual_gap,
        stationarity=certificate.stationarity,
        constraint_residual=certificate.constraint_residual,
        n_iter=monitor.history[-1].iteration,
        converged=certificate.error <= monitor.tol,
        message=message,
        method="",
        history=monitor.history,
    )


def _checked(result: Any, problem: StructuredRegression) -> tuple[Coefs, Array, str]:
    """What a solver has returned, if it is what a solver has to return."""
    form = "a solver returns (coefs, dual, message): one matrix a layer, an array of shape (n, C) and a text"
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        given = f"{len(result)} values" if isinstance(result, (tuple, list)) else type(result).__name__
        raise TypeError(f"{form}; got {given}.")
    coefs, dual, message = result
    if not isinstance(message, str):
        raise TypeError(f"{form}; the message is {message!r}.")
    if not isinstance(coefs, (tuple, list)):
        raise TypeError(f"{form}; the coefficients are of type {type(coefs).__name__}.")
    coefs, dual = [np.asarray(coef) for coef in coefs], np.asarray(dual)
    shapes, expected = [coef.shape for coef in coefs], problem.design.coef_shapes
    if shapes != expected or dual.shape != problem.target.shape:
        raise ValueError(
            f"{form}, here of shapes {expected} and {problem.target.shape}; got {shapes} and {dual.shape}. The problem "
            "that a solver is given has other coordinates than yours: take shapes from `problem.design`."
        )
    return coefs, dual, message


def _check_count(value: Any, name: str, least: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}; got {value!r}.")
    return int(value)


def _starting_point(
    warm_start: Any, problem: StructuredRegression, dual_scale: float, compress: Callable[[Coefs], Coefs]
) -> tuple[Coefs, Array]:
    """Coefficients and dual point to start from, checked, in the coordinates of the reduced problem."""
    known = isinstance(warm_start, Solution)
    dual = np.asarray(warm_start.dual if known else warm_start, dtype=np.float64)
    if dual.shape != problem.target.shape or not np.isfinite(dual).all():
        raise ValueError(
            f"warm_start must be a Solution or a finite dual point of shape {problem.target.shape}; "
            f"got shape {dual.shape}."
        )
    dual = problem.project(dual / dual_scale)
    if problem.spectral.is_convex:
        dual, _ = problem.best_multiple(dual)
    coefs = warm_start.coefs if known else problem.primal_of(dual)
    if [coef.shape for coef in coefs] != problem.design.coef_shapes:
        raise ValueError("warm_start is a solution for other features: its coefficients differ in shape.")
    return compress(coefs), dual
