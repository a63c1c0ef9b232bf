"""Losses that the library does not have, written as its documentation says, through every solver and certificate."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.losses import Interpolation, Loss, Multinomial, SeparableLoss, Squared, get_loss
from lowrank_tangent.solvers import SOLVERS, solve_path

pytestmark = pytest.mark.filterwarnings("error")
N = 7


class Huber(SeparableLoss):
    """(y − f)²/2 up to a distance δ, and straight beyond."""

    name = "huber"

    def __init__(self, delta=1.0):
        self.delta = delta

    def values(self, y, f):
        near = np.minimum(np.abs(y - f), self.delta)
        return near * (np.abs(y - f) - 0.5 * near)

    def slopes(self, y, f):
        return np.clip(f - y, -self.delta, self.delta)

    def curvatures(self, y, f):
        return 1.0 * (np.abs(y - f) <= self.delta)

    def dual_values(self, y, r):
        return r * y - 0.5 * r**2

    def dual_bounds(self, y):
        return -self.delta, self.delta

    def cvxpy_values(self, y, f):
        import cvxpy as cp

        return 0.5 * cp.huber(y - f, self.delta)


class Slopes(SeparableLoss):
    """The same without its Hessian and its expression: √(1 + (f − y)²) − 1."""

    name = "pseudo-huber"

    def values(self, y, f):
        return np.hypot(1.0, f - y) - 1.0

    def slopes(self, y, f):
        return (f - y) / np.hypot(1.0, f - y)

    def dual_values(self, y, r):
        return r * y - 1.0 + np.sqrt(1.0 - r**2)

    def dual_bounds(self, y):
        return -1.0, 1.0


class Poisson(SeparableLoss):
    """Deviance exp(f) − y f − y + y log y of counts: no bound below, none to its curvature."""

    name = "poisson"

    def values(self, y, f):
        return np.exp(f) - y * f - y + y * np.log(np.maximum(y, 1.0))

    def slopes(self, y, f):
        return np.exp(f) - y

    def curvatures(self, y, f):
        return np.exp(f)

    def dual_values(self, y, r):
        rate = y - r
        log = np.log(np.where(rate > 0.0, rate, 1.0))
        return rate - rate * log - y + y * np.log(np.maximum(y, 1.0))

    def dual_bounds(self, y):
        return -np.inf, y


def counts(rng, shape):
    return rng.poisson(2.0, shape) + 0.0


LOSSES = [(Huber(0.5), None), (Slopes(), None), (Poisson(), counts)]
SETTINGS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.fixture(params=LOSSES, ids=lambda pair: pair[0].name)
def case(request, rng):
    loss, draw = request.param
    return loss, rng.standard_normal((N, 2)) if draw is None else draw(rng, (N, 2))


@pytest.fixture(params=SETTINGS, ids=["plain", "weights", "intercept", "weights and intercept"])
def bound(request, rng, case):
    weighted, intercept = request.param
    weights = rng.uniform(0.2, 2.0, N) if weighted else None
    return case[0].bound(weights, intercept), np.ones(N) if weights is None else weights, case[1]


def written_out(loss, weights, y, f, bias=0.0):
    return np.sum(weights[:, None] * loss.values(y, f + bias))


def test_value_intercept_and_residual(rng, bound):
    loss, weights, y = bound
    f, step = rng.standard_normal(y.shape), 1e-6
    here, expected = loss.at(y, f), 0.0
    for c in range(2 * loss.fit_intercept):
        column = slice(c, c + 1)
        expected += minimize_scalar(lambda b: written_out(loss, weights, y[:, column], f[:, column], b), tol=1e-12).fun  # noqa: B023
    assert here.value == pytest.approx(expected if loss.fit_intercept else written_out(loss, weights, y, f), rel=1e-10)
    assert here.value == pytest.approx(written_out(loss, weights, y, f, loss.intercept(y, f)), rel=1e-12)
    for index in np.ndindex(*y.shape):
        move = np.zeros(y.shape)
        move[index] = step
        numeric = (loss.at(y, f + move).value - loss.at(y, f - move).value) / (2 * step)
        assert here.residual[index] == pytest.approx(-numeric, abs=1e-7)


def test_hessian_factor(rng, bound):
    loss, _, y = bound
    if not loss.has_hessian:
        pytest.skip("no Hessian")
    f, step, size = rng.standard_normal(y.shape), 1e-6, y.size
    here, units = loss.at(y, f), np.eye(size).reshape(size, *y.shape)
    S = np.array([here.multiply(unit).ravel() for unit in units]).T
    np.testing.assert_allclose(np.array([here.adjoint(unit).ravel() for unit in units]), S, atol=1e-13)
    hessian = [(loss.at(y, f - step * u).residual - loss.at(y, f + step * u).residual) / (2 * step) for u in units]
    np.testing.assert_allclose(S @ S.T, np.array(hessian).reshape(size, size), atol=2e-7)
    # What an intercept takes out, of the factor without one.
    plain = np.zeros((size, size))
    for i, block in enumerate(here.blocks):
        plain[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    gone = here.intercept_directions.reshape(-1, size)
    np.testing.assert_allclose(gone @ gone.T, np.eye(len(gone)), atol=1e-12)
    np.testing.assert_allclose(plain @ (np.eye(size) - gone.T @ gone), S, atol=1e-12)
    np.testing.assert_allclose(here.mean_curvature, np.mean(np.diagonal(plain).reshape(y.shape) ** 2, axis=1))


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0])
def test_divergence(rng, bound, size):
    loss, _, y = bound
    f = rng.standard_normal(y.shape)
    change = size * rng.standard_normal(y.shape)
    here, there = loss.at(y, f), loss.at(y, f + change)
    expected = there.value - here.value + np.vdot(here.residual, change)
    if size < 1e-5:  # differences of values are rounding here, those of gradients are not
        expected = 0.5 * np.vdot(here.residual - there.residual, change)
    assert here.divergence(there) == pytest.approx(expected, rel=1e-4, abs=1e-25)


def test_conjugate(rng, bound):
    loss, weights, y = bound
    for _ in range(3):
        f, other = 2 * rng.standard_normal((2, *y.shape))
        here = loss.at(y, f)
        dual = here.residual
        assert here.value == pytest.approx(loss.dual_value(y, dual) - np.vdot(dual, f), rel=1e-10)
        near = loss.nearest_dual(y, rng.standard_normal(y.shape))
        assert loss.largest_factor(y, near) >= 1.0 - 1e-12
        assert here.value >= loss.dual_value(y, near) - np.vdot(near, f) - 1e-12
        np.testing.assert_array_equal(loss.nearest_dual(y, near), near)
        factors = np.array([0.0, 0.4, 1.0])
        expected = [loss.dual_value(y, factor * dual) for factor in factors]
        np.testing.assert_allclose(loss.dual_along(y, dual)(factors), expected, rtol=1e-12)
        assert loss.at(y, other).value >= loss.dual_value(y, dual) - np.vdot(dual, other) - 1e-12

    def lagrangian(flat):
        return written_out(loss, weights, y, flat[:-2].reshape(y.shape), flat[-2:] * loss.fit_intercept) + np.vdot(
            near, flat[:-2].reshape(y.shape)
        )

    near = 0.5 * near
    brute = minimize(lagrangian, np.zeros(y.size + 2), options={"gtol": 1e-8, "maxiter": 10_000})
    assert loss.dual_value(y, near) == pytest.approx(brute.fun, rel=1e-6, abs=1e-8)
    limit = loss.largest_factor(y, near)
    if np.isfinite(limit):
        assert loss.dual_value(y, 1.001 * limit * near) == -np.inf


@pytest.mark.filterwarnings("default")  # cvxpy warns about its own compilation
@pytest.mark.parametrize(
    ("outputs", "C", "penalty"), [("network", 1, "kl"), ("network", 2, "power"), ("shared", 2, "kl")]
)
@pytest.mark.parametrize(("weighted", "intercept"), [SETTINGS[0], SETTINGS[3]])
def test_huber_is_certified_against_the_conic_program(rng, outputs, C, penalty, weighted, intercept):
    operator = random_operator(rng, 24, [(3, 4)], outputs, C)
    y = low_rank_target(rng, operator) + 0.7
    y[::5] += 20.0
    problem = StructuredRegression(
        operator,
        y,
        penalty,
        alpha=0.5,
        adaptivity=5.0,
        loss=Huber(0.3),
        sample_weight=rng.uniform(0.2, 2.0, 24) if weighted else None,
        fit_intercept=intercept,
    )
    reference = solve(problem, "cvxpy", tol=1e-5)
    assert reference.converged
    for method, tol in (("newton", 1e-8), ("proximal", 1e-6), ("bilinear", 1e-5)):
        solution = solve(problem, method, tol=tol)
        assert solution.converged, (method, solution.dual_gap, solution.message)
        assert solution.objective == pytest.approx(reference.objective, rel=2e-5)
    assert solve(problem).method == "newton"


@pytest.mark.parametrize("loss", [pair[0] for pair in LOSSES], ids=lambda loss: loss.name)
@pytest.mark.parametrize("intercept", [False, True])
def test_every_solver_that_can_finds_one_value(rng, loss, intercept):
    operator = random_operator(rng, 40, [(3, 4)], "network", 2)
    y = counts(rng, (40, 2)) if loss.name == "poisson" else low_rank_target(rng, operator) + 3.0
    problem = StructuredRegression(operator, y, "kl", 1.0, 5.0, loss, fit_intercept=intercept)
    first = solve(problem, tol=1e-8)
    assert first.method == ("newton" if loss.has_hessian else "proximal")
    assert first.converged
    for method in ("newton", "proximal", "bilinear"):
        if method == "newton" and not loss.has_hessian:
            continue
        solution = solve(problem, method, tol=1e-6)
        assert solution.converged, (method, solution.dual_gap, solution.message)
        assert solution.objective == pytest.approx(first.objective, rel=2e-6)
    again = solve(problem, tol=1e-6, warm_start=first)
    assert again.converged


def test_paths_of_a_loss_of_ones_own(rng):
    operator = random_operator(rng, 30, [(5, 6)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "kl", loss=Huber(0.2), fit_intercept=True)
    found = []
    solve_path(problem, [1.0, 0.3, 0.1], [0.0, 10.0], 1e-7, lambda problem, solution: found.append((problem, solution)))
    assert len(found) == 6
    for one, solution in found:
        assert solution.converged
        assert solution.objective == pytest.approx(solve(one, "proximal", tol=1e-8).objective, rel=1e-6)


def test_other_penalties_and_losses_get_the_solver_that_can(rng):
    operator = random_operator(rng, 20, [(4, 5)])
    y = low_rank_target(rng, operator)
    assert solve(StructuredRegression(operator, y, "nuclear", 0.1, loss=Huber()), tol=1e-5).method == "proximal"
    problem = StructuredRegression(operator, y, "kl", loss=Slopes())
    for method, message in (
        ("newton", "Without a Hessian of the loss.*cannot solve loss='pseudo-huber'; use"),
        ("cvxpy", "Without an expression .*cannot solve loss='pseudo-huber'; use"),
        ("reweighted", "Beyond least squares, .*cannot solve loss='pseudo-huber'; use"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(problem, method)


def test_a_problem_binds_weights_and_intercept_to_a_copy(rng):
    loss, weights = Huber(0.5), rng.uniform(1.0, 2.0, 10)
    problem = StructuredRegression(
        random_operator(rng, 10, [(2, 3)]), np.ones(10), loss=loss, sample_weight=weights, fit_intercept=True
    )
    assert loss.sample_weight is None
    assert not loss.fit_intercept
    assert problem.loss.fit_intercept
    np.testing.assert_array_equal(problem.loss.sample_weight, weights)
    assert repr(problem.loss) == "Huber(delta=0.5)"


@pytest.mark.parametrize("loss", [Squared(), Interpolation(), Multinomial()], ids=lambda loss: loss.name)
def test_our_own_losses_are_taken_as_instances(rng, loss):
    operator = random_operator(rng, 8, [(4, 5)])
    y = (rng.standard_normal(8) > 0) + 0.0
    solutions = [
        solve(StructuredRegression(operator, y, loss=given, fit_intercept=True), tol=1e-8)
        for given in (loss, loss.name)
    ]
    assert solutions[0].objective == solutions[1].objective
    assert isinstance(loss, Loss)


@pytest.mark.parametrize("loss", [Huber, 3, None])
def test_other_things_are_no_losses(loss):
    with pytest.raises(TypeError, match=r"instance of losses.Loss; got (the class Huber: give Huber\(\)|3|None)"):
        get_loss(loss)


def test_a_loss_without_a_best_intercept_is_refused(rng):
    class Straight(Slopes):
        def slopes(self, y, f):
            return np.where(np.arange(2) == 1, 1.0, super().slopes(y, f))

    operator = random_operator(rng, 10, [(2, 3)], "network", 2)
    problem = StructuredRegression(operator, np.ones((10, 2)), loss=Straight(), fit_intercept=True)
    with pytest.raises(ValueError, match="falls without end along the intercept of output 1"):
        solve(problem)


def test_counts_that_are_all_zero(rng):
    operator = random_operator(rng, 10, [(2, 3)], "network", 2)
    y = counts(rng, (10, 2))
    y[:, 1] = 0.0
    solution = solve(StructuredRegression(operator, y, "kl", loss=Poisson(), fit_intercept=True))
    assert solution.converged
    assert np.exp(solution.intercept[1]) == 0.0


def test_every_solver_says_what_it_needs():
    assert {need for solver in SOLVERS.values() for need in solver.needs} == {
        "fixed",
        "smooth",
        "convex",
        "quadratic",
        "hessian",
        "cvxpy",
    }
