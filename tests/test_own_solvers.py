"""Solvers that the library does not have, given to `solve` as callables."""

import functools

import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.adaptation import adapt
from lowrank_tangent.solvers import Solver
from lowrank_tangent.solvers.newton import solve_newton
from lowrank_tangent.solvers.solution import Solution

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def problem(rng):
    operator = random_operator(rng, 40, [(4, 5), (3, 4)])
    return StructuredRegression(operator, low_rank_target(rng, operator), "kl", 1.0, 5.0, fit_intercept=True)


def gradient_descent(problem, monitor, max_iter, warm_start):
    """Steps of a fixed length along minus the gradient, A* r − α Θ."""
    coefs = problem.design.zeros() if warm_start is None else warm_start[0]
    length = 1.0 / (np.linalg.eigvalsh(problem.design.gram())[-1] + problem.alpha)
    for iteration in range(max_iter + 1):
        residual = problem.residual(coefs)
        dual, _ = problem.best_multiple(residual)
        message = monitor.record(iteration, problem.certificate(coefs, dual))
        if message:
            return coefs, dual, message
        moved = []
        for coef, pull, penalty in zip(coefs, problem.design.rmatvec(residual), problem.spectral, strict=True):
            u, v, vt = np.linalg.svd(coef, full_matrices=False)
            moved.append(coef + length * (pull - 0.5 * problem.alpha * (u * penalty.derivative(v)) @ vt))
        coefs = moved
    return coefs, dual, f"max_iter={max_iter} reached"


def test_a_callable_is_a_solver_like_any_other(problem):
    rows = []
    solution = solve(problem, gradient_descent, tol=1e-6, callback=rows.append)
    assert isinstance(solution, Solution)
    assert solution.method == "gradient_descent"
    assert solution.converged
    assert solution.objective == pytest.approx(solve(problem, "newton", tol=1e-9).objective, rel=1e-6)
    assert [coef.shape for coef in solution.coefs] == problem.operator.coef_shapes
    assert rows == solution.history
    assert adapt(problem, solution).theta[0].shape == (4, 5)
    # Warm starts, limits and callbacks.
    assert solve(problem, gradient_descent, tol=1e-6, warm_start=solution).n_iter == 0
    short = solve(problem, gradient_descent, max_iter=3)
    assert (short.n_iter, short.converged, short.message) == (3, False, "max_iter=3 reached")
    assert solve(problem, gradient_descent, callback=lambda row: row.iteration == 2).message == "stopped by callback"


def test_starts_that_a_callable_is_given(rng):
    operator = random_operator(rng, 20, [(4, 5)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "joint", 0.1)
    starts = []

    def nothing_to_do(problem, monitor, max_iter, warm_start):
        starts.append(warm_start)
        coefs = problem.design.zeros() if warm_start is None else warm_start[0]
        return coefs, problem.residual(coefs), "done"

    solution = solve(problem, nothing_to_do, n_init=3, random_state=0)
    assert len(starts) == 3
    assert starts[0] is None
    assert solution.n_iter == 0
    assert len(solution.history) == 1  # the certificate of what was returned


def test_names_of_solvers(problem):
    class Mine:
        def __call__(self, *args):
            return solve_newton(*args)

    assert solve(problem, Mine()).method == "Mine"
    assert solve(problem, functools.partial(solve_newton, preconditioner=None)).method == "partial"
    assert solve(problem, Solver(gradient_descent)).method == "gradient_descent"


def test_what_a_solver_needs_is_named(rng, problem):
    mine = Solver(gradient_descent, 50, needs=frozenset({"smooth", "quadratic"}))
    assert not solve(problem, mine, tol=1e-12).converged
    assert solve(problem, mine, tol=1e-12).n_iter == 50
    operator, y = problem.operator, (problem.y > 0) + 0.0
    for penalty, loss, message in (
        ("nuclear", "squared", "method='gradient_descent' needs a penalty that only stretches"),
        ("kl", "multinomial", "Beyond least squares, .*cannot solve loss='multinomial'; use"),
        ("kl", "interpolation", "is a constraint, .*cannot solve loss='interpolation'; use"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(StructuredRegression(operator, y, penalty, loss=loss), mine)
    with pytest.raises(ValueError, match=r"may need .*'convex'.*; got \['concave'\]"):
        Solver(gradient_descent, needs=frozenset({"concave"}))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda problem: None, TypeError, r"returns \(coefs, dual, message\).*got NoneType"),
        (lambda problem: (problem.design.zeros(), problem.target), TypeError, "got 2 values"),
        (lambda problem: (problem.design.zeros(), problem.target, None), TypeError, "the message is None"),
        (lambda problem: (1.0, problem.target, ""), TypeError, "of type float"),
        (lambda problem: (problem.design.zeros()[:1], problem.target, ""), ValueError, "one matrix a layer"),
        (lambda problem: (problem.design.zeros(), np.zeros(3), ""), ValueError, r"shapes .*\(40, 1\); got .*\(3,\)"),
        (
            lambda problem: ([np.full(b.shape, np.nan) for b in problem.design.zeros()], problem.target, ""),
            FloatingPointError,
            "leave double precision",
        ),
    ],
)
def test_what_is_no_solution_is_refused(problem, result, error, message):
    with pytest.raises(error, match=message):
        solve(problem, lambda problem, *_: result(problem))


@pytest.mark.parametrize("method", ["steepest", 3, None])
def test_what_is_no_solver_is_refused(problem, method):
    with pytest.raises(ValueError, match=r"method must be 'auto' or one of .*, a Solver or a callable; got"):
        solve(problem, method)
