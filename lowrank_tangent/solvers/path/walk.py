"""A grid of problems that differ in alpha and adaptivity, one after the other."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

from ...precision import in_double_precision
from ..newton import continue_path, solve_newton
from ..newton.preconditioner import Preconditioner
from ..registry import capable, choose
from ..ridge import solve_ridge
from ..run import solve_from
from ..solution import Monitor
from .extrapolation import Extrapolation
from .known import KnownSolution
from .span import SolutionSpan, span_size

#: Number of solutions for one adaptivity that the next one begins with.
_PASSED_ON = 3


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
    plain, (problem, scale, dual_scale) = problem, problem.rescaled()
    alphas = [alpha / scale for alpha in alphas]
    reduced, expand, _ = problem.reduced()
    solvers, passed_on = {}, []
    for adaptivity, following in zip(adaptivities, [*adaptivities[1:], None], strict=True):
        row = reduced.with_strength(1.0, adaptivity)
        method = choose(row)
        if method not in solvers:
            run, max_iter = capable(method, row)
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
            with in_double_precision(point):
                solution = solve_from(known.at(point, tol), point, run, max_iter, Monitor(tol, scale=scale))
            latest = KnownSolution(point, solution)
            known.add(latest)
            passed_on = sorted([latest, *passed_on], key=lambda one: abs(_log_ratio(one.alpha, handover)))[:_PASSED_ON]
            visit(
                plain.with_strength(alpha * scale, adaptivity),
                replace(solution.rescaled(scale, dual_scale), coefs=expand(solution.coefs), method=method),
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
