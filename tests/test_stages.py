"""The continuation from ridge to the penalty of a problem."""

import numpy as np
import pytest

from conftest import flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.solvers.newton import method as newton
from lowrank_tangent.solvers.newton import stages as _stages
from lowrank_tangent.solvers.spectral_point import PrimalPoint


def make_problem(rng, penalty="power", adaptivity=1e4, loss="squared", n=30):
    operator = random_operator(rng, n, [(5, 9), (8, 3)])
    y = low_rank_target(rng, operator, 0.1)
    y = (y > 0.0).astype(float) if loss == "multinomial" else y
    return StructuredRegression(operator, y, penalty, alpha=0.5, adaptivity=adaptivity, loss=loss)


def ridge_point(rng, problem):
    ridge = problem.with_strength(problem.alpha, 0.0)
    return PrimalPoint(ridge, [rng.standard_normal(shape) for shape in problem.design.coef_shapes])


@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize("adaptivity", [1e4, [1e2, 1e6], [0.0, 1e4]])
def test_largest_singular_values_cost_the_same_in_every_stage(rng, penalty, adaptivity):
    problem = make_problem(rng, penalty, adaptivity)
    point = _stages.first_stage(ridge_point(rng, problem), problem)
    roots = []
    while point.problem is not problem:
        stage = point.problem
        largest = [np.linalg.norm(coef, 2) for coef in point.coefs]
        costs = [
            0.5 * one.alpha * sum(float(p.effective(np.array(v))) for p, v in zip(one.spectral, largest, strict=True))
            for one in (stage, problem)
        ]
        assert costs[0] == pytest.approx(costs[1], rel=1e-12)
        assert stage.alpha < problem.alpha
        assert type(stage.alpha) is float  # a number of NumPy would take single precision to double
        assert stage.design is problem.design
        roots.append(stage.spectral.sqrt_mu)
        point = _stages.next_stage(point, problem)
    assert roots[0] == pytest.approx(max(largest))
    np.testing.assert_allclose(np.divide(roots[1:], roots[:-1]), 0.25)
    assert roots[-1] / 4.0 <= problem.spectral.sqrt_mu < roots[-1]


def test_a_solution_out_of_the_tail_begins_where_it_ends(rng):
    problem = make_problem(rng, adaptivity=1e-4)
    point = ridge_point(rng, problem)
    assert _stages.first_stage(point, problem).problem is problem


def test_a_stage_without_coefficients_is_one(rng):
    problem = make_problem(rng)
    stage = problem.with_strength(problem.alpha, 1.0)
    point = _stages.next_stage(PrimalPoint(stage, problem.design.zeros()), problem)
    assert point.problem.spectral.sqrt_mu == 0.25
    assert 0.0 < point.problem.alpha < problem.alpha


@pytest.mark.parametrize("penalty", ["power", "kl"])
def test_ridge_costs_what_the_penalty_does(rng, penalty):
    """With orthonormal features, of which the solution is known."""
    n, size = 12, 3.0
    basis = np.linalg.qr(rng.standard_normal((20, n)))[0].T
    operator = TangentOperator([LayerFactors(size * basis, np.ones((n, 1)))])
    for adaptivity in (1e-6, 1.0, 1e3, 1e8):
        problem = StructuredRegression(operator, rng.standard_normal(n), penalty, 2.0, adaptivity)
        zero = PrimalPoint(problem, problem.design.zeros())
        alpha = _stages.ridge_alpha(zero, problem.design.rmatvec(zero.residual))
        value = size * np.linalg.norm(zero.residual) / (alpha + size**2)
        cost = problem.alpha * float(problem.spectral[0].effective(np.array(value)))
        assert alpha * value**2 == pytest.approx(cost, rel=0.12)
        assert 0.0 < alpha <= problem.alpha
    assert alpha < 1e-3 * problem.alpha


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [0.0, 1e-300])
def test_gradients_that_say_nothing_leave_alpha_as_it_is(rng, scale):
    problem = make_problem(rng)
    zero = PrimalPoint(problem, problem.design.zeros())
    correlation = [scale * matrix for matrix in problem.design.rmatvec(zero.residual)]
    with np.errstate(over="ignore"):
        assert _stages.ridge_alpha(zero, correlation) == problem.alpha


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize("drafts", [False, True])
def test_nearly_nuclear_problems_take_few_iterations(rng, monkeypatch, penalty, loss, drafts):
    """Each is a nuclear norm to six digits, which takes a hundred iterations with one alpha for all stages."""
    if drafts:
        monkeypatch.setattr(_costs, "EXACT_PRODUCTS", (0, 0, 0))
    problem = make_problem(rng, penalty, 1e12, loss, n=60)
    for weight in (0.01, 0.1):
        largest = max(
            np.linalg.norm(m, 2) for m in problem.design.rmatvec(problem.loss_at(problem.design.zeros()).residual)
        )
        harder = problem.with_strength(weight * largest * 1e6, 1e12)
        solution = solve(harder, "newton", 1e-6)
        assert solution.converged
        assert solution.n_iter <= 20


@pytest.mark.parametrize("penalty", ["power", "kl"])
def test_the_way_makes_no_difference(rng, monkeypatch, penalty):
    problem = make_problem(rng, penalty, 1e3)
    usual = solve(problem, "newton", 1e-12)
    monkeypatch.setattr(newton, "ridge_alpha", lambda zero, _: 0.01 * zero.problem.alpha)
    other = solve(problem, "newton", 1e-12)
    assert not np.array_equal(flat(usual.coefs), flat(other.coefs))
    np.testing.assert_allclose(flat(usual.coefs), flat(other.coefs), atol=1e-5 * np.abs(flat(usual.coefs)).max())


def test_a_stage_that_a_step_does_not_help_is_left(rng, monkeypatch):
    problem = make_problem(rng, adaptivity=1e4)
    whole, stages = newton._move_along, []

    def none_in_stages(step, solved):
        if step.point.problem.spectral.sqrt_mu > problem.spectral.sqrt_mu:
            stages.append(step.point.problem.spectral.sqrt_mu)
            return None
        return whole(step, solved)

    monkeypatch.setattr(newton, "_move_along", none_in_stages)
    assert solve(problem, "newton", 1e-6).converged
    assert len(stages) > 1
