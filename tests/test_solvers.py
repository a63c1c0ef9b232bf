import copy
import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.certificate import Certificate
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import PowerPenalty, ScaledPenalty, divided_differences
from lowrank_tangent.solvers import SOLVERS
from lowrank_tangent.solvers import spectral_point as _point
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.solvers.newton import exact as _exact

pytestmark = pytest.mark.filterwarnings("error")
LAYERS = {"one layer": [(4, 6)], "two layers": [(3, 5), (5, 2)]}
OUTPUTS = [("network", 1), ("network", 3), ("shared", 1), ("shared", 3)]


@pytest.mark.filterwarnings("default")  # cvxpy warns about its own compilation
@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(("outputs", "C"), OUTPUTS)
@pytest.mark.parametrize("intercept", [False, True], ids=["plain", "weights and intercept"])
def test_newton_and_proximal_find_the_value_of_the_semidefinite_program(rng, penalty, layers, outputs, C, intercept):
    operator = random_operator(rng, 14, LAYERS[layers], outputs, C)
    weights = rng.uniform(0.2, 2.0, 14) if intercept else None
    problem = StructuredRegression(
        operator,
        low_rank_target(rng, operator),
        penalty,
        alpha=0.02,
        adaptivity=20.0,
        sample_weight=weights,
        fit_intercept=intercept,
    )
    reference = solve(problem, "cvxpy", tol=1e-5)
    assert reference.converged
    for method in ("newton", "proximal"):
        solution = solve(problem, method, tol=1e-8)
        assert solution.converged
        assert solution.objective == pytest.approx(reference.objective, rel=1e-6)


@pytest.mark.filterwarnings("default")
def test_several_positions_against_the_semidefinite_program(rng):
    operator = random_operator(rng, 10, [(4, 3)], "network", 2, positions=3)
    problem = StructuredRegression(operator, rng.standard_normal((10, 2)), "kl", alpha=0.05, adaptivity=10.0)
    assert solve(problem, tol=1e-9).objective == pytest.approx(solve(problem, "cvxpy").objective, rel=1e-6)


def hard_problems():
    """Factors and targets of every awkward kind."""
    rng = np.random.default_rng(3)
    for name, n, shape in (("under", 20, (8, 12)), ("over", 200, (5, 6)), ("wide", 40, (3, 60)), ("tall", 40, (60, 3))):
        operator = random_operator(rng, n, [shape])
        yield name, operator, low_rank_target(rng, operator)
    operator = random_operator(rng, 30, [(6, 8)])
    h, delta = operator.layers[0].h[:, 0], operator.layers[0].delta[:, 0, 0]
    y = low_rank_target(rng, operator)
    twice = TangentOperator([LayerFactors(np.vstack([h, h]), np.vstack([delta, delta]))])
    yield "duplicate rows", twice, np.vstack([y, y + 0.3])
    h, delta = h.copy(), delta.copy()
    h[:, 3:], delta[:, 4:] = h[:, :3], 0.0
    yield "rank-deficient factors", TangentOperator([LayerFactors(h, delta)]), y
    operator = random_operator(rng, 30, [(6, 8)], "shared", 3)
    yield "shared", operator, low_rank_target(rng, operator)


HARD = {name: (operator, y) for name, operator, y in hard_problems()}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("penalty", ["power", "kl"])
def test_newton_certifies_every_convex_problem(name, penalty):
    operator, y = HARD[name]
    for alpha, adaptivity in itertools.product((1e-8, 1e-4, 1e-1, 1e2, 1e4), (1e-4, 1.0, 1e3, 1e6)):
        problem = StructuredRegression(operator, y, penalty, alpha, adaptivity)
        solution = solve(problem, "newton", tol=1e-8)
        assert solution.converged, (alpha, adaptivity, solution.dual_gap, solution.message)
        # Recomputed from the definition, with the dense matrix in place of the operator.
        A, r = dense_matrix(operator), solution.dual.ravel()
        correlations = np.split(A.T @ r, np.cumsum([p * q for p, q in operator.coef_shapes])[:-1])
        spectra = [
            np.linalg.svd(correlation.reshape(shape), compute_uv=False)
            for correlation, shape in zip(correlations, operator.coef_shapes, strict=True)
        ]
        mu = 1.0 / adaptivity
        u = np.concatenate([2 * s / alpha / np.sqrt(mu) for s in spectra])
        conjugate = u**2 / (4 - u**2) if penalty == "power" else -np.log1p(-(u**2) / 4)
        assert np.all(u < 2)
        dual = r @ y.ravel() - 0.5 * r @ r - 0.5 * alpha * mu * conjugate.sum()
        primal = 0.5 * np.sum((y.ravel() - A @ flat(solution.coefs)) ** 2) + problem.penalty_value(solution.coefs)
        assert primal - dual <= 1e-6 * primal


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 12),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    C=st.integers(1, 3),
    positions=st.integers(1, 2),
    outputs=st.sampled_from(["network", "shared"]),
    alpha=st.floats(-4, 2).map(lambda e: 10.0**e),
    adaptivity=st.floats(-3, 4).map(lambda e: 10.0**e),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    intercept=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_newton_at_random(n, shapes, C, positions, outputs, alpha, adaptivity, scale, intercept, seed):
    rng = np.random.default_rng(seed)
    operator = random_operator(rng, n, shapes, outputs, C, positions)
    y = scale * rng.standard_normal((n, C))
    problem = StructuredRegression(operator, y, "kl", alpha, adaptivity / scale**2, fit_intercept=intercept)
    solution = solve(problem, "newton", tol=1e-7)
    assert solution.converged, (solution.dual_gap, solution.message)


def test_equal_singular_values():
    # A = identity and y a multiple of it: all singular values of the solution agree.
    h = np.repeat(np.eye(3), 3, axis=0)
    delta = np.tile(np.eye(3), (3, 1))
    operator = TangentOperator([LayerFactors(h, delta)])
    for penalty in ("power", "kl"):
        problem = StructuredRegression(operator, 5.0 * np.eye(3).ravel(), penalty, alpha=1.0, adaptivity=10.0)
        solution = solve(problem, "newton", tol=1e-13)
        expected = problem.spectral[0].prox(np.array([5.0]), 0.5)[0] * np.eye(3)
        np.testing.assert_allclose(solution.coefs[0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("penalty", ["power", "kl"])
def test_curvature_is_the_derivative_of_the_dual_map(rng, shape, penalty):
    problem = StructuredRegression(random_operator(rng, 3, [shape]), np.ones(3), penalty, 0.1, 50.0)
    layer = _point.LayerSpectrum(0.5 * rng.standard_normal(shape), problem.spectral[0], problem.alpha)
    G, E, step = layer.gradient, rng.standard_normal(shape), 1e-7

    def dual_map(matrix):
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        sqrt_mu = problem.spectral[0].sqrt_mu
        return (u * (sqrt_mu * problem.spectral[0].base.conjugate_derivative(20 * s / sqrt_mu))) @ vt

    numeric = (dual_map(G + step * E) - dual_map(G - step * E)) / (2 * step)
    np.testing.assert_allclose(layer.curvature_solver()(E), numeric, rtol=1e-4, atol=1e-5 * np.abs(numeric).max())


def test_steps_of_drafts_are_in_single_precision(rng):
    shapes = [(3, 40), (40, 2), (4, 4)]
    design = random_operator(rng, 8, shapes)
    problem = StructuredRegression(design, np.ones(8), "power", 0.1, 50.0)
    draft = copy.copy(problem)
    draft.design = problem.design.with_precision(np.float32)
    coefs, correlation = ([0.1 * rng.standard_normal(shape) for shape in shapes] for _ in range(2))
    (change, energy), (rough, rough_energy) = (
        _point.PrimalPoint(one, coefs).newton_change(correlation, one.design.dtype) for one in (problem, draft)
    )
    largest = max(np.abs(matrix).max() for matrix in change)
    errors = [np.abs(a - b).max() / largest for a, b in zip(change, rough, strict=True)]
    assert 1e-12 < max(errors) < 1e-5
    assert rough_energy == pytest.approx(energy, rel=1e-5)
    # What is added up from them is in double precision.
    assert {matrix.dtype for matrix in rough} == {np.dtype(np.float64)}


def test_small_steps_in_single_precision_are_as_exact_as_large_ones(rng):
    # Near the solution A* r and G nearly agree: what single precision takes from either may exceed their difference.
    shapes = [(3, 40), (40, 2)]
    problem = StructuredRegression(random_operator(rng, 8, shapes), np.ones(8), "power", 0.1, 50.0)
    point = _point.PrimalPoint(problem, [0.1 * rng.standard_normal(shape) for shape in shapes])
    directions = [rng.standard_normal(shape) for shape in shapes]
    for size in (1.0, 1e-6):
        correlation = [layer.gradient + size * part for layer, part in zip(point.layers, directions, strict=True)]
        (change, energy), (rough, rough_energy) = (
            point.newton_change(correlation, kind) for kind in (np.float64, np.float32)
        )
        for exact, found in zip(change, rough, strict=True):
            np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())
        assert rough_energy == pytest.approx(energy, rel=1e-5)


def test_penalty_along_a_line(rng):
    # By singular values of the matrices themselves, and their differences; a wide, a tall and a square layer.
    shapes, step = [(3, 5), (5, 2), (4, 4)], 1e-6
    problem = StructuredRegression(random_operator(rng, 3, shapes), np.ones(3), "power", 0.1, [50.0, 3.0, 0.0])
    coefs, change = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))

    def penalty(t):
        spectra = [np.linalg.svd(b + t * e, compute_uv=False) for b, e in zip(coefs, change, strict=True)]
        return 0.5 * problem.alpha * problem.spectral.effective(spectra)

    line = _point.PenaltyLine(_point.PrimalPoint(problem, coefs), change)
    for length in (0.0, 0.3, 1.0):
        value, slope = line.at(length)
        assert value == pytest.approx(penalty(length), rel=1e-12)
        assert slope == pytest.approx((penalty(length + step) - penalty(length - step)) / (2 * step), rel=1e-7)


@pytest.mark.parametrize("matrix", [np.diag([1e200, 1.0]), np.array([[1e200, 1.0], [1e200, -1e200]]), [[np.nan, 1.0]]])
def test_singular_values_that_overflow_are_said_to(matrix):
    # Of a matrix that is not finite LAPACK may make eigenvalues that are.
    with pytest.raises(FloatingPointError, match="squares of coefficients overflow"):
        _point.gram_singular_values(np.asarray(matrix))


@pytest.mark.parametrize("sizes", [(1.0, 1e200), (1e150, -1e200)])
def test_a_line_that_overflows_is_said_to(rng, sizes):
    problem = StructuredRegression(random_operator(rng, 3, [(3, 5)]), np.ones(3))
    coef, change = (size * rng.standard_normal((3, 5)) for size in sizes)
    line = _point.PenaltyLine(_point.PrimalPoint(problem, [coef]), [change])
    with pytest.raises(FloatingPointError, match="squares of coefficients overflow"):
        line.at(0.5)


@pytest.mark.parametrize(("outputs", "C"), OUTPUTS)
@pytest.mark.parametrize("shapes", [[(3, 5)], [(5, 2), (2, 4)]], ids=["wide", "tall and wide"])
def test_assembled_system_is_the_system(rng, outputs, C, shapes):
    operator = random_operator(rng, 6, shapes, outputs, C, positions=2)
    problem = StructuredRegression(operator, np.ones((6, C)), "power", 0.1, 30.0, fit_intercept=True)
    point = _point.PrimalPoint(problem, [rng.standard_normal(s) for s in operator.coef_shapes])
    A = dense_matrix(problem.design)
    columns = np.split(A, np.cumsum([p * q for p, q in operator.coef_shapes])[:-1], axis=1)
    expected = sum(
        part @ np.array([layer.curvature_solver()(row.reshape(layer.shape)).ravel() for row in part]).T
        for part, layer in zip(columns, point.layers, strict=True)
    )
    np.testing.assert_allclose(
        _exact.ExactSystem.of(problem)._curved(point), problem.alpha * expected, rtol=1e-9, atol=1e-9
    )


def test_a_gap_that_rounding_lifts_above_tol_is_not_said_to_be_below(rng, monkeypatch):
    certified = StructuredRegression.certificate

    def rounded(*arguments):
        exact = certified(*arguments)
        return Certificate.of(exact.objective, (1.0 - 1e-6) * exact.dual_objective)

    monkeypatch.setattr(StructuredRegression, "certificate", rounded)
    operator = random_operator(rng, 20, [(4, 5)])
    solution = solve(StructuredRegression(operator, low_rank_target(rng, operator)), "newton", tol=1e-7)
    assert not solution.converged
    assert solution.dual_gap > 1e-7 >= solution.history[-1].dual_gap
    assert solution.message == "the solver's running gap is below tol"


def test_solution_and_history_are_consistent(rng):
    operator = random_operator(rng, 40, [(6, 9)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "kl", 1e-2, 100.0)
    for method in ("newton", "proximal"):
        solution = solve(problem, method, tol=1e-7)
        assert solution.converged
        assert solution.method == method
        assert solution.message == "the solver's running gap is below tol"
        assert solution.dual_gap <= 1e-7
        assert solution.objective == pytest.approx(problem.objective(solution.coefs), rel=1e-14)
        assert solution.dual_objective == pytest.approx(problem.dual_objective(solution.dual), rel=1e-12)
        last = solution.history[-1]
        assert last.iteration == solution.n_iter
        assert last.dual_gap == pytest.approx(solution.dual_gap, abs=1e-9)
        times, gaps = [row.time for row in solution.history], [row.dual_gap for row in solution.history]
        assert times == sorted(times)
        assert gaps[-1] == min(gaps)


def test_a_solver_that_is_stopped_early_says_so(rng):
    operator = random_operator(rng, 40, [(6, 9)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "kl", 1e-3, 1e3)
    for method, limit in (("newton", 2), ("proximal", 10)):
        solution = solve(problem, method, tol=1e-10, max_iter=limit)
        assert not solution.converged
        assert solution.n_iter == limit
        assert f"max_iter={limit} reached" in solution.message
        assert solution.dual_gap > 1e-10
        assert solution.dual_gap == pytest.approx(problem.certificate(solution.coefs, solution.dual).dual_gap, rel=1e-9)
    rows = []
    stopped = solve(problem, "newton", callback=lambda row: rows.append(row) or len(rows) == 3)
    assert stopped.message == "stopped by callback"
    assert [row.iteration for row in rows] == [0, 1, 2]


def test_no_solution_is_certified_beyond_what_the_point_is_worth(rng):
    operator = random_operator(rng, 30, [(5, 7)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "power", 1e-2, 50.0)
    best = solve(problem, tol=1e-13).objective
    for limit in range(6):
        solution = solve(problem, "newton", tol=1e-13, max_iter=limit)
        assert solution.dual_objective <= best * (1 + 1e-12)
        assert solution.dual_gap * solution.objective >= (solution.objective - best) * (1 - 1e-6) - 1e-13


@pytest.mark.parametrize("method", ["newton", "proximal"])
def test_warm_start_from_the_solution_is_immediate(rng, method):
    operator = random_operator(rng, 5, [(20, 9), (3, 4)], "shared", 2)  # reduced: n < p
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "power", 1e-2, 50.0)
    first = solve(problem, method, tol=1e-6)
    assert solve(problem, method, tol=1e-6, warm_start=first).n_iter == 0
    assert solve(problem, "newton", tol=1e-6, warm_start=first.dual).n_iter <= 2
    near = StructuredRegression(operator, problem.y, "power", 1.1e-2, 50.0)
    again = solve(near, method, tol=1e-6, warm_start=first)
    assert again.converged
    assert again.n_iter < first.n_iter


def test_constant_and_zero_targets(rng):
    operator = random_operator(rng, 10, [(3, 4)])
    for y, intercept in ((np.zeros(10), False), (np.full(10, 3.0), True)):
        for method in ("newton", "proximal"):
            solution = solve(StructuredRegression(operator, y, fit_intercept=intercept), method)
            assert solution.converged
            assert solution.dual_gap == 0.0
            np.testing.assert_allclose(solution.coefs[0], 0.0, atol=1e-15)
            np.testing.assert_allclose(solution.intercept, y[:1])


def test_closed_form_without_adaptivity(rng):
    for outputs, C in OUTPUTS:
        operator = random_operator(rng, 12, [(3, 4), (4, 2)], outputs, C)
        problem = StructuredRegression(operator, rng.standard_normal((12, C)), alpha=0.3, adaptivity=0.0)
        direct, iterated = solve(problem), solve(problem, "newton", tol=1e-10)
        assert (direct.method, iterated.method) == ("ridge", "newton")
        assert direct.dual_gap < 1e-13
        assert iterated.n_iter == 0
        A = dense_matrix(operator)
        expected = np.linalg.solve(A.T @ A + 0.3 * np.eye(A.shape[1]), A.T @ problem.y.ravel())
        np.testing.assert_allclose(flat(direct.coefs), expected, atol=1e-12)
        np.testing.assert_allclose(flat(iterated.coefs), expected, atol=1e-9)


@pytest.mark.parametrize("alpha", [1e-20, 1e-12])
def test_ridge_where_alpha_drowns_in_rounding(rng, alpha):
    layer = LayerFactors(100 * rng.standard_normal((30, 2)), 100 * rng.standard_normal((30, 2)))
    problem = StructuredRegression(TangentOperator([layer]), rng.standard_normal(30), alpha=alpha, adaptivity=0.0)
    A = dense_matrix(problem.operator)
    least_squares = np.linalg.lstsq(A, problem.y.ravel(), rcond=None)[0]
    np.testing.assert_allclose(flat(solve(problem).coefs), least_squares, rtol=1e-4)


def test_large_problems_use_the_mean_kernel_and_find_the_same(rng, monkeypatch):
    operator = random_operator(rng, 60, [(5, 8), (9, 3)], "network", 3)
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "kl", 1e-2, 100.0)
    exact = solve(problem, "newton", tol=1e-9)
    monkeypatch.setattr(_costs, "EXACT_UNKNOWNS", 0)
    approximate = solve(problem, "newton", tol=1e-9)
    monkeypatch.setattr(_costs, "KERNEL_SAMPLES", 0)
    none = solve(problem, "newton", tol=1e-9)
    for solution in (approximate, none):
        assert solution.converged
        assert solution.objective == pytest.approx(exact.objective, rel=1e-8)


def test_divided_differences_never_turn_negative(rng):
    values = np.sort(np.concatenate([1 + 1e-12 * rng.random(20), 1 + rng.random(20)]))
    assert divided_differences(values, values**2, 2 * values).min() > 0
    # At the end of a domain points agree to rounding where their values are decades apart.
    points = 7.0 + np.array([0.0, 1e-15, -1e-15])
    quotients = divided_differences(points, np.array([1.0, 1e8, 1e16]), np.array([1.0, 1e20, 1e40]))
    np.testing.assert_allclose(quotients, np.array([[1.0, 1e10, 1e20], [1e10, 1e20, 1e30], [1e20, 1e30, 1e40]]))
    np.testing.assert_array_equal(divided_differences(points, -points * 1e30, -np.ones(3)), -1.0)
    # Rounding beyond that, as of points that are quotients of huge numbers, may even reverse their order.
    reversed_points = np.array([1.0, 1.0 - 1e-12])
    for sign in (1.0, -1.0):
        quotients = divided_differences(reversed_points, sign * np.array([1.0, 4.0]), sign * np.array([4.0, 9.0]))
        np.testing.assert_allclose(quotients, sign * np.array([[4.0, 6.0], [6.0, 9.0]]))


@pytest.mark.parametrize(
    ("penalty", "loss", "adaptivity"), [("power", "interpolation", 1e300), ("kl", "squared", 1e300)]
)
def test_numbers_that_leave_double_precision_are_said_to(rng, penalty, loss, adaptivity):
    operator = random_operator(rng, 8, [(3, 4), (5, 1)])
    problem = StructuredRegression(operator, rng.standard_normal(8), penalty, 1.0, adaptivity, loss)
    with pytest.raises(FloatingPointError, match=r"y reaches .*alpha=1.0e\+00, adaptivity=1.0e\+300. Divide y by"):
        solve(problem)


@pytest.mark.parametrize(
    ("penalty", "loss", "alpha"),
    [("power", "multinomial", 1e-100), ("kl", "multinomial", 1e-100), (PowerPenalty(1), "interpolation", 1e200)],
)
def test_an_alpha_that_leaves_double_precision_is_said_to(rng, penalty, loss, alpha):
    operator = random_operator(rng, 15, [(4, 6)])
    problem = StructuredRegression(operator, (rng.standard_normal(15) > 0) * 1.0, penalty, alpha, loss=loss)
    expected = rf"y reaches 1.0e\+00, alpha={alpha:.1e}".replace("e+2", r"e\+2")
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(FloatingPointError, match=expected):
        solve(problem)


def test_little_that_was_found_is_not_lost(rng):
    """Rounding hides every step with this alpha, but not the coefficients from which Newton's method begins."""
    operator = random_operator(rng, 30, [(5, 8)], "network", 2)
    y = operator.matvec([rng.standard_normal((5, 8))])
    solution = solve(StructuredRegression(operator, y, "power", 1e-40))
    assert not solution.converged
    assert solution.objective <= 1e-15 * np.sum(y**2)


def test_curvatures_that_overflow_are_an_error():
    layer = _point.LayerSpectrum(np.eye(3), ScaledPenalty(PowerPenalty(2), 1e300), 1.0)
    with pytest.raises(FloatingPointError, match="inverse curvatures of the penalty overflow"):
        _ = layer.differences


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "adam"}, ValueError, "'auto' or one of"),
        ({"method": "ridge"}, ValueError, "closed form for adaptivity=0"),
        ({"tol": 0.0}, ValueError, "tol must be a finite number > 0"),
        ({"tol": -1e-3}, ValueError, "tol must be a finite number > 0"),
        ({"tol": "tight"}, TypeError, "tol must be a real number"),
        ({"max_iter": -1}, ValueError, "max_iter must be an integer >= 0"),
        ({"max_iter": 2.5}, ValueError, "max_iter must be an integer >= 0"),
        ({"warm_start": np.zeros((3, 1))}, ValueError, r"shape \(6, 1\); got shape \(3, 1\)"),
        ({"warm_start": np.full((6, 1), np.nan)}, ValueError, "finite dual point"),
    ],
)
def test_bad_arguments_are_refused(rng, arguments, error, message):
    problem = StructuredRegression(random_operator(rng, 6, [(3, 4)]), np.ones(6))
    with pytest.raises(error, match=message):
        solve(problem, **arguments)
    with pytest.raises(TypeError, match="must be a StructuredRegression"):
        solve(np.ones(3))


def test_warm_start_of_other_features_is_refused(rng):
    y = np.ones(6)
    other = solve(StructuredRegression(random_operator(rng, 6, [(2, 4)]), y))
    with pytest.raises(ValueError, match="other features"):
        solve(StructuredRegression(random_operator(rng, 6, [(3, 4)]), y), warm_start=other)


class _FakeProgram:
    status = "infeasible"

    def __init__(self, *arguments):
        pass

    def solve(self, **options):
        pass


def test_failures_of_cvxpy_are_errors_that_say_what_to_do(rng, monkeypatch):
    import cvxpy as cp

    problem = StructuredRegression(random_operator(rng, 6, [(2, 3)]), np.arange(6.0))

    def fail(self, **options):
        raise cp.error.SolverError("no progress")

    with monkeypatch.context() as patch:
        patch.setattr(cp.Problem, "solve", fail)
        with pytest.raises(RuntimeError, match=r"no progress.*method='newton'"):
            solve(problem, "cvxpy")
    with monkeypatch.context() as patch:
        patch.setattr(cp, "Problem", _FakeProgram)
        with pytest.raises(RuntimeError, match=r"status 'infeasible'.*method='newton'"):
            solve(problem, "cvxpy")


def test_an_inaccurate_answer_of_cvxpy_is_not_called_converged(rng):
    operator = random_operator(rng, 10, [(3, 4)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), alpha=1e-3, adaptivity=100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = solve(problem, "cvxpy", tol=1e-13)
    assert not solution.converged
    assert solution.dual_gap > 1e-13
    assert "cvxpy status optimal" in solution.message


def test_progress_bar_shows_the_gap(rng, capsys):
    problem = StructuredRegression(random_operator(rng, 10, [(3, 4)]), rng.standard_normal(10))
    solve(problem, "newton", verbose=1)
    printed = capsys.readouterr()
    assert "gap" in printed.err
    assert "objective" in printed.err
    assert printed.out == ""


def test_a_dual_point_that_rounding_keeps_outside_is_taken_inside(rng, monkeypatch):
    """Where A* r is mostly rounding, its singular values are not known to the digits that the boundary asks for."""
    operator = random_operator(rng, 30, [(5, 9)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator, 0.1), "kl", alpha=1.0, adaptivity=1e8)
    usual = solve(problem, "newton", 1e-6)
    largest = 2.0 / problem.alpha * np.linalg.norm(problem.design.rmatvec(usual.dual)[0], 2)
    outside = (1.0 + 1e-9) * problem.spectral[0].conjugate_domain / largest * usual.dual
    assert problem.certificate(usual.coefs, outside).dual_objective == -np.inf

    def rounded(problem, monitor, *_):
        monitor.record(0, Certificate.of(usual.objective, usual.dual_objective))
        return usual.coefs, outside, ""

    monkeypatch.setitem(SOLVERS, "newton", replace(SOLVERS["newton"], solve=rounded))
    monkeypatch.setattr(StructuredRegression, "best_multiple", lambda *_: (outside, usual.dual_objective))
    solution = solve(problem, "newton", 1e-4)
    assert solution.converged
    assert solution.dual_objective == problem.certificate(solution.coefs, solution.dual).dual_objective


SOLVED_BY = {
    "ridge": lambda problem: solve(problem, "ridge"),
    "every alpha": lambda problem: problem.diagonalised(),
    "newton": lambda problem: solve(problem, "newton"),
    "proximal": lambda problem: solve(problem, "proximal"),
    "reweighted": lambda problem: solve(problem, "reweighted"),
}


@pytest.mark.parametrize("method", SOLVED_BY)
@pytest.mark.parametrize("loss", ["squared", "interpolation"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("factor", [1e80, 1e100, 1e140])
def test_features_that_leave_double_precision_are_said_to(rng, method, loss, fit_intercept, factor):
    if (method, loss) == ("proximal", "interpolation"):
        pytest.skip("does not solve it at any scale")
    (layer,) = random_operator(rng, 20, [(4, 5)]).layers
    operator = TangentOperator([LayerFactors(factor * layer.h, factor * layer.delta)])
    problem = StructuredRegression(operator, np.arange(20.0), adaptivity=0.0, loss=loss, fit_intercept=fit_intercept)
    expected = r"this problem leave double precision .*: y reaches 1.9e\+01.*Norms of features .*: scale them"
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(FloatingPointError, match=expected):
        SOLVED_BY[method](problem)
