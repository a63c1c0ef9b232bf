from types import SimpleNamespace

import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.penalties import NuclearPenalty, PowerPenalty
from lowrank_tangent.solvers.path import walk
from lowrank_tangent.solvers.path.extrapolation import Extrapolation
from lowrank_tangent.solvers.path.span import SolutionSpan

ALPHAS, ADAPTIVITIES = [1e-3, 1.0, 1e-2, 1e-1], [10.0, 0.0, 1000.0]


@pytest.fixture
def problem(rng):
    operator = random_operator(rng, 25, [(4, 6), (30, 2)], "shared", 2)
    weights = rng.uniform(0.5, 2.0, 25)
    y = low_rank_target(rng, operator)
    return StructuredRegression(operator, y, ["power", "kl"], sample_weight=weights, fit_intercept=True)


@pytest.mark.parametrize("penalty", [None, PowerPenalty(3), NuclearPenalty()])
def test_every_point_of_a_path_is_the_solution_from_scratch(problem, penalty):
    if penalty is not None:
        problem = StructuredRegression(problem.operator, problem.y, penalty, fit_intercept=True)
    path = tangent_path(problem, ALPHAS, ADAPTIVITIES, tol=1e-8)
    np.testing.assert_array_equal(path.alphas, [1.0, 0.1, 0.01, 0.001])
    np.testing.assert_array_equal(path.adaptivities, [0.0, 10.0, 1000.0])
    assert path.error.max() <= 1e-8
    for i, adaptivity in enumerate(path.adaptivities):
        for j, alpha in enumerate(path.alphas):
            alone = solve(problem.with_strength(alpha, adaptivity), tol=1e-8)
            found = path.results[i][j]
            assert found.converged
            assert found.objective == pytest.approx(alone.objective, rel=2e-8)
            assert path.objective[i, j] == found.objective
            # Certified for the problem as it was given, in its own coordinates.
            certificate = problem.with_strength(alpha, adaptivity).certificate(found.coefs, found.dual)
            assert certificate.dual_gap <= 2e-8
            np.testing.assert_allclose(found.intercept, alone.intercept, atol=1e-3)


def test_paths_of_penalties_that_are_not_convex(problem):
    problem = StructuredRegression(problem.operator, problem.y, PowerPenalty(1.5))
    path = tangent_path(problem, [1.0, 0.1], [1.0, 10.0], tol=1e-6)
    assert path.error.max() <= 1e-6
    assert np.isnan(path.results[0][0].dual_gap)
    last = problem.with_strength(0.1, 10.0)
    assert last.optimality_residual(path.results[1][1].coefs) <= 1.1e-6


def test_it_is_warm_started(problem):
    alphas = np.logspace(0, -2, 15)
    path = tangent_path(problem, alphas, [100.0])
    cold = [solve(problem.with_strength(alpha, 100.0)).n_iter for alpha in alphas]
    assert path.n_iter.sum() < 0.6 * sum(cold)


def test_the_better_start_saves_iterations(problem):
    grid = np.logspace(0, -2, 15)
    start, one_by_one = None, 0
    for alpha in grid:
        start = solve(problem.with_strength(alpha, 100.0), warm_start=start)
        one_by_one += start.n_iter
    assert tangent_path(problem, grid, [100.0]).n_iter.sum() < one_by_one


def test_an_adaptivity_begins_where_alpha_by_its_root_is_the_same(problem):
    alphas, adaptivities = np.logspace(1, -2, 13), [0.0, 100.0, 1e4]
    path = tangent_path(problem, alphas, adaptivities)
    target = problem.with_strength(alphas[0], adaptivities[2])
    iterations = [solve(target, warm_start=start).n_iter for start in path.results[1]]
    assert iterations[4] == min(iterations) < iterations[0]  # a tenth of the first alpha
    # From this solution and its neighbours no more than from any of them.
    assert path.n_iter[2, 0] <= iterations[4]


def test_the_solutions_nearest_to_that_alpha_are_passed_on(problem, monkeypatch):
    begun = []

    class Recorded(SolutionSpan):
        def __init__(self, known, **settings):
            begun.append([one.alpha for one in known])
            super().__init__(known, **settings)

    monkeypatch.setattr(walk, "SolutionSpan", Recorded)
    tangent_path(problem, np.logspace(1, -2, 13), [1.0, 100.0, 1e4])
    assert begun[0] == []
    for alphas in begun[1:]:
        assert alphas[0] == pytest.approx(1.0)  # a tenth of the first
        np.testing.assert_allclose(sorted(alphas), 10.0 ** np.array([-0.25, 0.0, 0.25]))


def test_an_alpha_twice_is_solved_twice(problem):
    path = tangent_path(problem, [1.0, 0.1, 0.1, 0.1, 0.01], [1.0])
    assert path.error.max() <= 1e-6
    np.testing.assert_allclose(path.objective[0, 1:4], path.objective[0, 1], rtol=1e-6)


@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_ridge_is_solved_in_closed_form(rng, outputs):
    operator = random_operator(rng, 25, [(4, 6), (30, 2)], outputs, 2)
    weights = rng.uniform(0.5, 2.0, 25)
    problem = StructuredRegression(operator, rng.normal(size=(25, 2)), sample_weight=weights, fit_intercept=True)
    # The last alpha is lost in the rounding of the kernel.
    alphas = np.append(np.logspace(2, -6, 9), 1e-18)
    path = tangent_path(problem, alphas, [0.0])
    assert [found.method for found in path.results[0]] == ["ridge"] * 10
    np.testing.assert_array_equal(path.n_iter, 1)
    assert path.error.max() <= 1e-7
    kernel, roots = operator.gram(), np.repeat(np.sqrt(weights), 2)
    for alpha, found in zip(path.alphas[:-1], path.results[0][:-1], strict=True):
        # Ridge with an intercept, from its normal equations: r = √w (y − A B − b), (K + α/w) c = y − b, Σ_i c_i = 0.
        system = np.block(
            [
                [kernel + alpha * np.diag(roots**-2), np.tile(np.eye(2), (25, 1))],
                [np.tile(np.eye(2), 25), np.zeros((2, 2))],
            ]
        )
        expected = np.linalg.solve(system, np.append(problem.y.ravel(), [0.0, 0.0]))
        np.testing.assert_allclose(found.intercept, expected[-2:], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(operator.matvec(found.coefs).ravel(), kernel @ expected[:-2], rtol=1e-6, atol=1e-9)


def test_paths_of_other_losses(rng):
    operator = random_operator(rng, 30, [(4, 6), (8, 3)], "shared", 3)
    labels = np.eye(3)[rng.integers(3, size=30)]
    logistic = StructuredRegression(operator, labels, "power", loss="multinomial", fit_intercept=True)
    path = tangent_path(logistic, [1.0, 0.3, 0.1, 0.03], [0.0, 1.0, 10.0])
    assert path.error.max() <= 1e-6
    for i, adaptivity in enumerate(path.adaptivities):
        alone = solve(logistic.with_strength(0.03, adaptivity), tol=1e-8)
        assert path.objective[i, -1] == pytest.approx(alone.objective, rel=2e-6)
    few = operator.rows(slice(8))
    exact = StructuredRegression(few, rng.normal(size=(8, 3)), "power", loss="interpolation")
    path = tangent_path(exact, [1.0, 0.1], [0.0, 1.0])
    assert path.error.max() <= 1e-6


def known_points(curve, alphas):
    known = Extrapolation()
    for alpha in alphas:
        known.add(SimpleNamespace(alpha=alpha, coefs=[curve(alpha), -curve(alpha)], dual=2.0 * curve(alpha)))
    return known


def start_at(known, alpha, is_convex=True):
    return known.at(SimpleNamespace(alpha=alpha, spectral=SimpleNamespace(is_convex=is_convex)), 1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_polynomials_are_extrapolated_exactly(rng, degree):
    coefficients = rng.normal(size=(degree + 1, 3, 2))

    def curve(alpha):
        return sum(np.log(alpha) ** k * matrix for k, matrix in enumerate(coefficients))

    known = known_points(curve, [3.0, 1.0, 0.5, 0.1, 0.07])
    coefs, dual = start_at(known, 0.02)
    for found, factor in ((coefs[0], 1.0), (coefs[1], -1.0), (dual, 2.0)):
        np.testing.assert_allclose(found, factor * curve(0.02), atol=1e-9)


def test_only_a_degree_that_predicts_is_used():
    known = known_points(lambda alpha: np.array([[np.sin(50.0 * np.log(alpha))]]), np.logspace(0, -3, 12))
    assert np.abs(start_at(known, 1e-4)[1]).max() <= 2.0


def test_without_convexity_the_last_solution_is_the_start():
    known = known_points(lambda alpha: np.array([alpha]), [1.0, 0.5])
    assert start_at(known, 0.1)[1] != 1.0
    assert start_at(known, 0.1, is_convex=False)[1] == 1.0


def test_before_the_first_solution_that_of_another_adaptivity_is_the_start():
    assert start_at(Extrapolation(), 1.0) is None
    others = [SimpleNamespace(alpha=1.0, coefs=[alpha], dual=alpha) for alpha in (3.0, 4.0)]
    assert start_at(Extrapolation(others), 1.0) == ([3.0], 3.0)


def test_keep_decides_what_is_stored(problem):
    path = tangent_path(problem, ALPHAS, ADAPTIVITIES, keep=lambda p, s: (p.alpha, p.spectral[0].adaptivity, s.n_iter))
    expected = [[(a, s) for a in (1.0, 0.1, 0.01, 0.001)] for s in (0.0, 10.0, 1000.0)]
    assert [[kept[:2] for kept in row] for row in path.results] == expected


def test_progress(problem, capsys):
    tangent_path(problem, ALPHAS, [1.0], verbose=1)
    assert "4/4" in capsys.readouterr().err
    tangent_path(problem, ALPHAS, [1.0])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("alphas", "adaptivities", "message"),
    [
        ([], [1.0], "alphas is empty"),
        ([1.0], [], "adaptivities is empty"),
        ([0.0], [1.0], "alphas must be a finite number > 0"),
        ([1.0, np.nan], [1.0], "alphas must be a finite number > 0"),
        ([1.0], [-1.0], "adaptivities must be a finite number >= 0"),
    ],
)
def test_bad_grids(problem, alphas, adaptivities, message):
    with pytest.raises(ValueError, match=message):
        tangent_path(problem, alphas, adaptivities)


def test_bad_types(problem):
    with pytest.raises(TypeError, match="alphas must be a real number > 0; got 'a'"):
        tangent_path(problem, ["a"], [1.0])
    with pytest.raises(TypeError, match="must be a StructuredRegression"):
        tangent_path("problem", [1.0], [1.0])
