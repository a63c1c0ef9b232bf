import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.penalties import NuclearPenalty, PowerPenalty

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


def test_keep_decides_what_is_stored(problem):
    path = tangent_path(problem, ALPHAS, ADAPTIVITIES, keep=lambda p, s: (p.alpha, p.spectral[0].adaptivity, s.n_iter))
    expected = [[(a, s) for a in (1.0, 0.1, 0.01, 0.001)] for s in (0.0, 10.0, 1000.0)]
    assert [[kept[:2] for kept in row] for row in path.results] == expected


def test_progress(problem, capsys, caplog):
    tangent_path(problem, ALPHAS, [1.0], verbose=1)
    assert "4/4" in capsys.readouterr().err
    tangent_path(problem, ALPHAS, [1.0])
    assert capsys.readouterr().err == ""


def test_progress_without_tqdm(problem, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with caplog.at_level("INFO", logger="lowrank_tangent"):
        tangent_path(problem, ALPHAS, [1.0], verbose=1)
    assert "path: 4 of 4" in caplog.text


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
