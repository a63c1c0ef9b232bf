"""Solvers: an operator, a penalty and a loss go in, a certified solution comes out."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from .._checks import check_number
from ..linalg.memory import physical_memory
from ..problem import StructuredRegression
from ._extrapolation import Extrapolation
from ._known import KnownSolution
from ._preconditioner import Preconditioner
from ._solution import Iteration, Monitor, Solution
from ._span import SolutionSpan, span_size
from .bilinear import interpolate_bilinear, solve_bilinear
from .interpolation import by_multipliers
from .newton import continue_path, solve_newton
from .proximal import solve_proximal
from .reference import solve_cvxpy
from .reweighted import random_start, solve_reweighted
from .ridge import solve_ridge


@dataclass(frozen=True)
class Solver:
    """A solver and what it can do.

    Attributes
    ----------
    max_iter : int
        Default iteration limit.
    needs : frozenset of {"convex", "smooth", "fixed"}
        What the penalty has to be.
    squared, multinomial, interpolation : callable or None
        What solves the problem with that loss: called with (problem, monitor, max_iter, warm_start), returns
        (coefs, dual, message). None where nothing does.
    """

    max_iter: int
    needs: frozenset = frozenset()
    squared: Callable | None = None
    multinomial: Callable | None = None
    interpolation: Callable | None = None


#: Every solver by name.
SOLVERS = {
    "newton": Solver(
        200,
        frozenset({"convex", "smooth"}),
        squared=solve_newton,
        multinomial=solve_newton,
        interpolation=by_multipliers(solve_newton),
    ),
    "reweighted": Solver(
        500, frozenset({"smooth"}), squared=solve_reweighted, interpolation=by_multipliers(solve_reweighted)
    ),
    "proximal": Solver(20_000, squared=solve_proximal, multinomial=solve_proximal),
    "bilinear": Solver(20_000, squared=solve_bilinear, multinomial=solve_bilinear, interpolation=interpolate_bilinear),
    "cvxpy": Solver(
        200, frozenset({"convex"}), squared=solve_cvxpy, multinomial=solve_cvxpy, interpolation=solve_cvxpy
    ),
    "ridge": Solver(1, frozenset({"fixed"}), squared=solve_ridge, interpolation=solve_ridge),
}

#: Share of the memory that the kernel of the closed form may take before `auto` iterates instead.
_KERNEL_SHARE = 0.1
#: A dual point that rounding keeps out of its domain is taken so many times.
_FAR_INSIDE = 1.0 - 1e-6
#: Number of solutions for one adaptivity that the next one begins with.
_PASSED_ON = 3


def solve(
    problem,
    method="auto",
    tol=1e-6,
    max_iter=None,
    warm_start=None,
    verbose=0,
    callback=None,
    n_init=1,
    random_state=None,
):
    """Solve a structured regression problem.

    minimise  ``½‖y − A B‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))``,  μ = 1/adaptivity

    Parameters
    ----------
    problem : StructuredRegression
    method : {"auto", "newton", "reweighted", "proximal", "cvxpy", "bilinear", "ridge"}, default="auto"
        - "newton": second-order, by systems of the dual's size; for convex penalties.
        - "reweighted": second-order, by reweighted ridge regressions; for every penalty that stretches.
        - "proximal": accelerated proximal gradient; for every penalty.
        - "cvxpy": the semidefinite program, for reference.
        - "bilinear": the joint problem over parameters and transforms by L-BFGS, as a witness.
        - "ridge": closed form for ``adaptivity=0``.
        - "auto": "ridge" where it applies and its kernel is small against the memory, "newton" for convex penalties,
          "reweighted" for others, "proximal" for those that do not stretch (nuclear, Schatten) and for other than
          convex ones with ``loss="multinomial"``, which "reweighted" and "ridge" do not solve; "bilinear" where the
          penalty does not stretch and ``loss="interpolation"``, which "proximal" does not solve.
    tol : float > 0, default=1e-6
        Relative duality gap at which to stop; for a penalty that is not convex, residual of stationarity.
    max_iter : int ≥ 0, optional
        By default 200 for "newton" and "cvxpy", 500 for "reweighted", 20,000 for "proximal" and "bilinear".
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
    random_state : int, RandomState or None, default=None
        Draws the random starting points.

    Returns
    -------
    Solution
        Never assumed converged: ``converged`` says whether the error of the returned point is below `tol`.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, a method that cannot solve this problem, and constraints of
        ``loss="interpolation"`` that depend on each other.
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
    if method == "auto":
        method = _choose(problem)
    run, limit = _capable(method, problem)
    max_iter = limit if max_iter is None else _check_count(max_iter, "max_iter", 0)
    n_init = _check_count(n_init, "n_init", 1)
    reduced, expand, compress = problem.reduced()
    starts = [None if warm_start is None else _starting_point(warm_start, problem, compress)]
    if not problem.spectral.is_convex:
        rng = check_random_state(random_state)
        starts += [(random_start(reduced, rng), None) for _ in range(n_init - 1)]
    solutions = []
    for start in starts:
        monitor = Monitor(tol, verbose, callback)
        with _in_double_precision(reduced):
            solutions.append(_solve_from(start, reduced, run, max_iter, monitor))
        if monitor.is_stopped:
            break
    best = min(solutions, key=lambda solution: (max(solution.constraint_residual, tol), solution.objective))
    return replace(best, coefs=expand(best.coefs), method=method)


def solve_path(problem, alphas, adaptivities, tol, visit):
    """Solve a grid of problems that differ in alpha and adaptivity, each from where the last solutions point.

    Parameters
    ----------
    problem : StructuredRegression
    alphas, adaptivities : sequences of float
        In the order in which they are taken; alpha runs faster.
    tol : float
    visit : callable
        Called with (problem, solution) for each.
    """
    reduced, expand, _ = problem.reduced()
    solvers, passed_on = {}, []
    for adaptivity, following in zip(adaptivities, [*adaptivities[1:], None], strict=True):
        row = reduced.with_strength(1.0, adaptivity)
        method = _choose(row)
        if method not in solvers:
            run, max_iter = _capable(method, row)
            starts = Extrapolation
            if run is solve_newton:
                run = functools.partial(continue_path, preconditioner=Preconditioner(reduced))
                starts = functools.partial(SolutionSpan, size=span_size(reduced.design))
            elif run is solve_ridge and not row.loss.is_constraint:
                reduced = reduced.diagonalised()
            solvers[method] = run, max_iter, starts
        run, max_iter, starts = solvers[method]
        handover = _handover(alphas, adaptivity, following)
        known, passed_on = starts(passed_on), []
        for alpha in alphas:
            point = reduced.with_strength(alpha, adaptivity)
            with _in_double_precision(point):
                solution = _solve_from(known.at(point, tol), point, run, max_iter, Monitor(tol))
            latest = KnownSolution(point, solution)
            known.add(latest)
            passed_on = sorted([latest, *passed_on], key=lambda one: abs(_log_ratio(one.alpha, handover)))[:_PASSED_ON]
            visit(
                problem.with_strength(alpha, adaptivity),
                replace(solution, coefs=expand(solution.coefs), method=method),
            )


def _handover(alphas, adaptivity, following):
    """The alpha whose solution the first alpha of the following adaptivity begins with.

    Where much adapts, the penalty depends on alpha / √adaptivity alone.
    """
    if not adaptivity or not following:
        return alphas[0]
    return min(alphas, key=lambda alpha: abs(_log_ratio(alpha, alphas[0]) - 0.5 * _log_ratio(adaptivity, following)))


def _log_ratio(a, b):
    """log(a / b), even where a / b overflows."""
    return math.log(a) - math.log(b)


@contextlib.contextmanager
def _in_double_precision(problem):
    """An error that says what to do, for numbers that leave double precision."""
    try:
        yield
    except (np.linalg.LinAlgError, FloatingPointError) as error:
        adaptivity = max(layer.adaptivity for layer in problem.spectral)
        raise FloatingPointError(
            f"the numbers of this problem leave double precision ({error}): y reaches {np.abs(problem.y).max():.1e}, "
            f"alpha={problem.alpha:.1e}, adaptivity={adaptivity:.1e}. Divide y by its standard deviation; alpha and "
            "adaptivity then need not be extreme."
        ) from error


def _solve_from(start, problem, run, max_iter, monitor):
    """One run of a solver, certified anew from the definition: the figures are those of the point that it returns."""
    try:
        coefs, dual, message = run(problem, monitor, max_iter, start)
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


def _choose(problem):
    usual, able = _usual(problem), _able(problem)
    return usual if usual in able else able[0]


def _usual(problem):
    if not problem.spectral.is_smooth:
        return "proximal"
    if not problem.spectral.is_convex:
        return "reweighted" if "reweighted" in _able(problem) else "proximal"
    if "ridge" not in _able(problem):
        return "newton"
    design = problem.design
    rows = design.n_samples * (1 if design.outputs == "shared" else design.n_outputs)
    return "ridge" if 8.0 * rows**2 <= _KERNEL_SHARE * physical_memory() else "newton"


def _capable(method, problem):
    """The function of a solver for this problem and its iteration limit, or an error that names what is missing."""
    if method not in SOLVERS:
        raise ValueError(f"method must be 'auto' or one of {sorted(SOLVERS)}; got {method!r}.")
    missing = _missing(method, problem)
    if missing:
        raise ValueError(f"method={method!r} {missing}; use method='auto' or one of {sorted(_able(problem))}.")
    return getattr(SOLVERS[method], problem.loss.name), SOLVERS[method].max_iter


def _able(problem):
    """Names of what solves a problem with this penalty and this loss; "bilinear" always does."""
    return [name for name in SOLVERS if not _missing(name, problem)]


def _missing(method, problem):
    """What a solver lacks for this problem, or an empty string."""
    solver, penalty = SOLVERS[method], problem.spectral
    if "fixed" in solver.needs and not penalty.is_fixed:
        return "is the closed form for adaptivity=0"
    if "smooth" in solver.needs and not penalty.is_smooth:
        return f"needs a penalty that only stretches, not {penalty!r}"
    if "convex" in solver.needs and not penalty.is_convex:
        return f"needs a convex penalty, not {penalty!r}"
    if getattr(solver, problem.loss.name) is None:
        return f"cannot solve loss={problem.loss.name!r}"
    return ""


def _check_count(value, name, least):
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}; got {value!r}.")
    return int(value)


def _starting_point(warm_start, problem, compress):
    """Coefficients and dual point to start from, checked, in the coordinates of the reduced problem."""
    known = isinstance(warm_start, Solution)
    dual = np.asarray(warm_start.dual if known else warm_start, dtype=np.float64)
    if dual.shape != problem.target.shape or not np.isfinite(dual).all():
        raise ValueError(
            f"warm_start must be a Solution or a finite dual point of shape {problem.target.shape}; "
            f"got shape {dual.shape}."
        )
    dual = problem.project(dual)
    if problem.spectral.is_convex:
        dual, _ = problem.best_multiple(dual)
    coefs = warm_start.coefs if known else problem.primal_of(dual)
    if [coef.shape for coef in coefs] != problem.design.coef_shapes:
        raise ValueError("warm_start is a solution for other features: its coefficients differ in shape.")
    return compress(coefs), dual


__all__ = ["SOLVERS", "Iteration", "Solution", "solve", "solve_path"]
