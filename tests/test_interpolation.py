"""The linearly constrained problem: certificate, limits, and constraints that depend on each other."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, adapt, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import JointPenalty, PowerPenalty
from lowrank_tangent.solvers import run

OUTPUTS = [("network", 1), ("network", 2), ("shared", 3)]


def interpolation(rng, penalty="power", outputs="network", C=1, n=10, **kwargs):
    operator = random_operator(rng, n, [(6, 7), (5, 6)], outputs, C)
    kwargs = {"alpha": 1.0, "adaptivity": 10.0, "loss": "interpolation", **kwargs}
    return StructuredRegression(operator, low_rank_target(rng, operator), penalty, **kwargs)


@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize(("outputs", "C"), OUTPUTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_of_the_equality_constrained_semidefinite_program(rng, penalty, outputs, C, weighted):
    extra = {"sample_weight": np.append(rng.uniform(0.5, 1.0, 9), 0.0), "fit_intercept": True} if weighted else {}
    problem = interpolation(rng, penalty, outputs, C, **extra)
    reference = solve(problem, "cvxpy")
    assert reference.dual_gap <= 1e-5
    solution = solve(problem, tol=1e-8)
    assert solution.method == "newton"
    assert solution.converged
    assert solution.constraint_residual <= 1e-8
    assert solution.objective == pytest.approx(reference.objective, rel=1e-6)
    # Gap and constraint from outside the solver.
    prediction = (dense_matrix(problem.design) @ flat(solution.coefs)).reshape(problem.target.shape)
    np.testing.assert_allclose(prediction, problem.target, atol=1e-7)
    assert reference.objective >= solution.dual_objective * (1 - 1e-7)
    slack = abs(np.vdot(solution.dual, problem.target - prediction))
    gap = max(solution.objective - problem.dual_objective(solution.dual), 0.0) + slack
    assert solution.dual_gap == pytest.approx(gap / solution.objective, abs=1e-12)


def test_a_violated_constraint_costs_its_certificate(rng):
    problem = interpolation(rng)
    solution = solve(problem, tol=1e-9)
    for factor in (1.1, 0.7):
        certificate = problem.certificate([factor * coef for coef in solution.coefs], solution.dual)
        assert certificate.constraint_residual == pytest.approx(abs(factor - 1.0), rel=1e-6)
        assert certificate.error >= abs(factor - 1.0)
        # Below the optimum only because y is not met: the certificate does not call that optimal.
        assert certificate.dual_gap > 0.5 * abs(factor - 1.0)


@pytest.mark.parametrize("penalty", ["kl", PowerPenalty(1.5), JointPenalty()])
def test_it_is_the_limit_of_the_penalised_problem(rng, penalty):
    problem = interpolation(rng, penalty)
    limit = solve(problem, tol=1e-8)
    assert limit.converged
    distances = []
    for alpha in (1e-2, 1e-4, 1e-6):
        penalised = StructuredRegression(problem.operator, problem.y, penalty, alpha, 10.0)
        solution = solve(penalised, tol=1e-12)  # coefficients are known to the root of that
        distances.append(np.linalg.norm(flat(solution.coefs) - flat(limit.coefs)))
    assert distances[0] > 50 * distances[1] > 2000 * distances[2]
    # The loss aside, the penalised objective per alpha tends to that of the constrained problem from below.
    assert solution.objective / 1e-6 == pytest.approx(limit.objective, rel=1e-4)


def test_without_adaptivity_it_is_the_minimum_norm_interpolant(rng):
    problem = interpolation(rng, adaptivity=0.0)
    expected = np.linalg.lstsq(dense_matrix(problem.design), problem.target.reshape(-1), rcond=None)[0]
    solution = solve(problem)
    assert solution.method == "ridge"
    assert solution.converged
    np.testing.assert_allclose(flat(solution.coefs), expected, atol=1e-10)
    assert solution.objective == pytest.approx(0.5 * np.sum(expected**2))
    np.testing.assert_allclose(flat(solve(problem, "newton", tol=1e-10).coefs), expected, atol=1e-8)


def test_adapted_kernel_interpolates(rng):
    problem = interpolation(rng, "kl", "shared", 2)
    solution = solve(problem, tol=1e-9)
    kernel = adapt(problem, solution).kernel(problem.operator)
    np.testing.assert_allclose(kernel @ solution.dual.reshape(-1), problem.y.reshape(-1), atol=1e-6)


def test_alpha_scales_the_objective_alone(rng):
    problem = interpolation(rng, "kl")
    other = StructuredRegression(problem.operator, problem.y, "kl", 0.01, 10.0, "interpolation")
    one, two = solve(problem, tol=1e-9), solve(other, tol=1e-9)
    np.testing.assert_allclose(flat(one.coefs), flat(two.coefs), atol=1e-7)
    assert two.objective == pytest.approx(0.01 * one.objective)


def test_dependent_constraints_are_refused_and_the_rank_is_named(rng):
    operator = random_operator(rng, 10, [(6, 7)])
    h, delta = operator.layers[0].h[:, 0], operator.layers[0].delta[:, 0, 0]
    twice = TangentOperator([LayerFactors(np.vstack([h, h[:2]]), np.vstack([delta, delta[:2]]))])
    y = rng.standard_normal(10)
    for targets in (np.append(y, y[:2]), np.append(y, y[:2] + 1.0)):
        for method in ("newton", "cvxpy", "reweighted", "bilinear"):
            with pytest.raises(ValueError, match="12 are asked for and their rank is 10"):
                solve(StructuredRegression(twice, targets, loss="interpolation"), method)
    few = random_operator(rng, 30, [(3, 4)])
    with pytest.raises(ValueError, match=r"30 are asked for and their rank is 12.*coefficients reach is [3-9].*e-01"):
        solve(StructuredRegression(few, rng.standard_normal(30), adaptivity=0.0, loss="interpolation"))
    with pytest.raises(ValueError, match=r"29 are asked for and their rank is 1\d"):
        solve(StructuredRegression(few, rng.standard_normal(30), loss="interpolation", fit_intercept=True))


@pytest.mark.parametrize("method", ["newton", "cvxpy", "reweighted", "bilinear", "ridge"])
def test_one_counted_sample_is_met_by_the_intercept_alone(rng, method):
    operator, y = random_operator(rng, 5, [(4, 6)]), rng.standard_normal(5)
    for weight in (1.0, 0.3, 7.1):
        problem = StructuredRegression(
            operator,
            y,
            "kl",
            adaptivity=0.0 if method == "ridge" else 1.0,
            loss="interpolation",
            sample_weight=[0.0, weight, 0.0, 0.0, 0.0],
            fit_intercept=True,
        )
        solution = solve(problem, method)
        assert solution.converged
        np.testing.assert_allclose(solution.intercept, y[1])
        np.testing.assert_allclose(solution.coefs[0], 0.0, atol=1e-12)


@pytest.mark.parametrize("penalty", [PowerPenalty(1), JointPenalty()], ids=repr)
@pytest.mark.parametrize("max_iter", [20, None])
def test_of_several_starts_one_that_meets_the_constraint_is_kept(penalty, max_iter):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        operator = random_operator(rng, 20, [(6, 8)])
        y = 10 * rng.standard_normal(20)
        problem = StructuredRegression(operator, y, penalty, 1.0, 10.0, "interpolation")
        one = solve(problem, max_iter=max_iter)
        many = solve(problem, max_iter=max_iter, n_init=6, random_state=0)
        prediction = dense_matrix(operator) @ flat(many.coefs)
        if one.converged:
            np.testing.assert_allclose(prediction, y, atol=1e-6 * np.linalg.norm(y))
            assert many.objective <= one.objective * (1 + 1e-9)
        else:
            assert many.constraint_residual <= max(one.constraint_residual, 1e-6)
    assert max_iter is not None or many.converged


def test_a_start_that_violates_the_constraint_is_no_better_for_its_lower_objective(rng, monkeypatch):
    figures = iter([(1.0, 1e-9), (0.5, 1e-2), (0.9, 1e-8)])
    solve_from = run.solve_from

    def told(*args):
        objective, residual = next(figures)
        return replace(solve_from(*args), objective=objective, constraint_residual=residual)

    monkeypatch.setattr(run, "solve_from", told)
    assert solve(interpolation(rng, JointPenalty()), n_init=3, random_state=0).objective == 0.9


def test_proximal_gradient_cannot_interpolate(rng):
    able = r"\['bilinear', 'cvxpy', 'newton', 'reweighted'\]"
    with pytest.raises(ValueError, match=f"cannot solve loss='interpolation'; use method='auto' or one of {able}"):
        solve(interpolation(rng), "proximal")
    # What does not stretch is left to the joint problem.
    problem = interpolation(rng, "nuclear", n=6)
    solution = solve(problem, max_iter=2000)
    assert solution.method == "bilinear"
    assert solution.objective == pytest.approx(solve(problem, "cvxpy").objective, rel=1e-3)


def test_iteration_limit_and_callback(rng):
    solution = solve(interpolation(rng), max_iter=1, tol=1e-12)
    assert not solution.converged
    assert "max_iter=1" in solution.message
    stopped = solve(interpolation(rng), tol=1e-12, callback=lambda row: True)
    assert stopped.message == "stopped by callback"
    assert len(stopped.history) == 1


def test_warm_start(rng):
    problem = interpolation(rng)
    solution = solve(problem, tol=1e-8)
    again = solve(problem, tol=1e-6, warm_start=solution)
    assert again.converged
    assert again.n_iter < solution.n_iter
