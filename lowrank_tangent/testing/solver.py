"""What a solver promises: points whose certificate, computed anew from outside, is what they are said to be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..solvers import Iteration, Solution
from .findings import Finding, agree, expect, run_checks
from .operator import dense_of
from .solver_case import Method, SolverCase, reference

#: Objectives that are computed in two ways agree to this.
_EXACT = 1e-9
#: The last error that a solver reports is that of the point it returns, up to this factor and share of `tol`.
_FACTOR = 3.0
#: The reference is known to this share of its objective.
_REFERENCE = 1e-5


def check_solver(method: Method, *, tol: float = 1e-3, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check a solver on small problems of every kind that it says it can solve.

    Parameters
    ----------
    method : str, Solver or callable
        As for `solve`. What a solver needs of penalty and loss is said by ``Solver(function, needs=frozenset(...))``;
        a callable needs nothing, and is tried on all problems.
    tol : float > 0, default=1e-3
        Tolerance that the solver has to reach with its default number of iterations.
    random_state : int, default=0
        Draws the problems.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks: "finite", "certificate", "converged", "history", "optimum", "limits", "never-worse",
        "warm-start", "callback", "repeatable", "immutability".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> from lowrank_tangent.testing import check_solver
    >>> check_solver("ridge")[:3]
    ['finite', 'certificate', 'converged']
    """
    return run_checks(method, SolverCase(method, tol, random_state), _CHECKS, random_state, verbose)


def _finite(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        try:
            solution = case.solution(name)
        except FloatingPointError as error:
            raise Finding(f"{name}: the point that was returned is not finite: {error}") from error
        shapes, expected = [np.shape(coef) for coef in solution.coefs], problem.operator.coef_shapes
        expect(
            shapes == [tuple(shape) for shape in expected], f"{name}: coefs must have shapes {expected}; got {shapes}"
        )
        got = np.shape(solution.dual)
        expect(got == problem.target.shape, f"{name}: dual must have shape {problem.target.shape}; got {got}")
        finite = all(np.isfinite(array).all() for array in (*solution.coefs, solution.dual, solution.prediction))
        expect(finite, f"{name}: the point that was returned is not finite")
        message = solution.message
        expect(isinstance(message, str) and message, f"{name}: say why the solver stopped; got {message!r}")


def _certificate(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        solution, half = case.solution(name), 0.5 * problem.alpha
        matrix = dense_of(problem.operator)
        prediction = (matrix @ np.concatenate([coef.ravel() for coef in solution.coefs])).reshape(problem.y.shape)
        agree(f"{name}: prediction against the dense matrix", solution.prediction, prediction, _EXACT)
        objective = problem.loss.at(problem.target, problem.design.to_rows(prediction)).value
        for coef, price in zip(solution.coefs, problem.spectral, strict=True):
            values = np.linalg.svd(coef, compute_uv=False)
            objective += half * price.effective(values * (values > 1e-12 * values[0])).sum()
        agree(f"{name}: objective against dense matrices", solution.objective, objective, _EXACT)
        if not problem.spectral.is_convex:
            continue
        pull, bound = dense_of(problem.design).T @ solution.dual.ravel(), 0.0
        for (p, q), price in zip(problem.operator.coef_shapes, problem.spectral, strict=True):
            values = np.linalg.svd(pull[: p * q].reshape(p, q), compute_uv=False)
            bound -= half * price.conjugate(values / half * (1.0 - 1e-13)).sum()
            pull = pull[p * q :]
        bound += problem.loss.dual_value(problem.target, solution.dual)
        agree(
            f"{name}: dual objective against dense matrices", solution.dual_objective, bound, 1e-7, solution.objective
        )


def _error(solution: Solution) -> float:
    """What is compared with `tol`."""
    error = solution.stationarity if np.isnan(solution.dual_gap) else solution.dual_gap
    return max(error, solution.constraint_residual)


def _converged(case: SolverCase, rng: np.random.Generator) -> None:
    for name in case.problems:
        solution = case.solution(name)
        expect(
            solution.converged,
            f"{name}: expected an error of at most {case.tol:.0e}, got {_error(solution):.1e} after {solution.n_iter} "
            f"iterations ({solution.message})",
        )


def _history(case: SolverCase, rng: np.random.Generator) -> None:
    for name in case.problems:
        solution = case.solution(name)
        errors = [row.stationarity if np.isnan(row.dual_gap) else row.dual_gap for row in solution.history]
        expect(errors, f"{name}: the solver must report at least one certificate to monitor.record")
        found = _error(solution)
        expect(
            found <= _FACTOR * min(errors) + case.tol,
            f"{name}: the solver reports an error of {min(errors):.1e}, and the point that it returns has {found:.1e}",
        )
        steps = [row.iteration for row in solution.history]
        expect(steps == sorted(steps), f"{name}: iterations are reported as {steps}, which must not fall")


def _optimum(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        if not problem.spectral.is_convex:
            continue
        solution, other = case.solution(name), reference(problem, case.method)
        slack = (case.tol + _REFERENCE) * other.objective
        expect(
            solution.objective <= other.objective + slack,
            f"{name}: the objective is {solution.objective:.8g}, and that of {other.method!r} is {other.objective:.8g}",
        )
        expect(
            solution.dual_objective <= other.objective + _REFERENCE * other.objective,
            f"{name}: the lower bound {solution.dual_objective:.8g} exceeds the objective {other.objective:.8g} of "
            f"{other.method!r}",
        )


def _limits(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        for max_iter in (0, 1):
            solution = case.limited(problem, max_iter)
            if solution is None:
                continue
            error = _error(solution)
            expect(not np.isnan(error), f"{name}: the error after max_iter={max_iter} is not a number")
            expect(
                solution.converged == (error <= case.tol),
                f"{name}: converged is {solution.converged} after max_iter={max_iter} with an error of {error:.1e}",
            )


def _never_worse(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        if problem.loss.is_constraint:
            continue
        start = case.other(name)
        before = problem.objective(start.coefs)
        for max_iter in (0, 1, 3):
            after = case.limited(problem, max_iter, warm_start=start)
            expect(
                after is None or after.objective <= before * (1.0 + case.tol),
                f"{name}: from a start with the objective {before:.8g}, {max_iter} iterations lead to "
                f"{np.nan if after is None else after.objective:.8g}",
            )


def _warm_start(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        solution = case.solution(name)
        for kind, start in (
            ("its own solution", solution),
            ("the dual point of its solution", solution.dual),
            ("the solution for another alpha", case.other(name)),
        ):
            again = case.solve(problem, warm_start=start)
            expect(
                again.converged or not solution.converged,
                f"{name}: started from {kind}, the error is {_error(again):.1e} ({again.message})",
            )
            if problem.spectral.is_convex and not problem.loss.is_constraint:
                agree(f"{name}: objective, started from {kind}", again.objective, solution.objective, 2.0 * case.tol)


def _callback(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        calls: list[Iteration] = []

        def stop(row: Iteration, calls: list[Iteration] = calls) -> bool:
            calls.append(row)
            return True

        solution = case.solve(problem, callback=stop)
        expect(len(calls) == 1, f"{name}: the callback asked to stop, and was called {len(calls)} times")
        expect(not np.isnan(_error(solution)), f"{name}: stopped by the callback, the error is not a number")


def _repeatable(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        for one, two in zip(case.solution(name).coefs, case.solve(problem).coefs, strict=True):
            agree(f"{name}: coefs of a second run with the same random_state", two, one, 0.0)


def _immutability(case: SolverCase, rng: np.random.Generator) -> None:
    for name, problem in case.problems.items():
        kept = [problem.y.copy(), problem.target.copy(), dense_of(problem.operator)]
        start = case.solution(name)
        copies = [array.copy() for array in (*start.coefs, start.dual)]
        case.solve(problem, warm_start=start)
        for array, copy in zip((problem.y, problem.target, dense_of(problem.operator)), kept, strict=True):
            expect(np.array_equal(array, copy), f"{name}: the solver has changed the problem")
        for array, copy in zip((*start.coefs, start.dual), copies, strict=True):
            expect(np.array_equal(array, copy), f"{name}: the solver has changed the solution that it started from")


_CHECKS: dict[str, Callable[[SolverCase, np.random.Generator], None]] = {
    "finite": _finite,
    "certificate": _certificate,
    "converged": _converged,
    "history": _history,
    "optimum": _optimum,
    "limits": _limits,
    "never-worse": _never_worse,
    "warm-start": _warm_start,
    "callback": _callback,
    "repeatable": _repeatable,
    "immutability": _immutability,
}
