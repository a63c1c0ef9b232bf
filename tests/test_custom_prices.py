"""Prices of a user's own that end, that have a kink at z = 1, and what is certified with them."""

import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import CustomPenalty, JointPenalty, RidgePenalty

pytestmark = pytest.mark.filterwarnings("error")


def capped_square(z):
    """(z − 1)² up to z = 3."""
    return np.where(z > 3.0, np.inf, (z - 1.0) ** 2)


def capped_kl(z):
    """The Kullback–Leibler price up to z = 1.5, between two points of the grid that is searched."""
    return np.where(z > 1.5, np.inf, z**2 - 1.0 - 2.0 * np.log(z))


def barrier(z):
    """(z − 1)² / (3 − z), which becomes infinite gradually."""
    return np.where(z < 3.0, (z - 1.0) ** 2 / np.where(z < 3.0, 3.0 - z, 1.0), np.inf)


def barrier_slope(z):
    """Its derivative, without a word on where it ends."""
    return (z - 1.0) * (5.0 - z) / (3.0 - z) ** 2


# Prices that end, with the end of each.
ENDING = [
    (CustomPenalty(capped_square), capped_square, 3.0),
    (CustomPenalty(capped_square, lambda z: 2.0 * (z - 1.0)), capped_square, 3.0),
    (CustomPenalty(capped_kl), capped_kl, 1.5),
    (CustomPenalty(barrier), barrier, 3.0),
    (CustomPenalty(barrier, barrier_slope), barrier, 3.0),
]
ending = pytest.mark.parametrize(("penalty", "price", "end"), ENDING)


def stretches_up_to(end):
    """Stretches that are dense near 1 and near the end, and include both."""
    share = np.concatenate([[0.0], np.logspace(-12, 0, 200_001)])
    return np.unique(np.concatenate([1.0 + (end - 1.0) * share, end - (end - 1.0) * share[share < 0.5]]))


def kinked_price(z):
    """|z² − 1| / 2, whose conjugate is u²/4 up to u = √2 and infinite beyond; one that differences take for more."""
    return 0.5 * np.abs(z * z - 1.0)


def largest(function, z):
    """Maximum over a grid that is refined around its best point."""
    for _ in range(6):
        values = function(z)
        best = int(np.argmax(values))
        z = np.linspace(z[max(best - 1, 0)], z[min(best + 1, len(z) - 1)], 2001)
    return values.max()


@ending
def test_conjugates_of_prices_that_end_are_maxima_over_the_stretches_that_are_left(penalty, price, end):
    z = stretches_up_to(end)
    for u in (0.0, 0.5, 1.0, 1.3, 1.63, 1.64, 2.0, 10.0, 1e3, 1e6):
        brute = largest(lambda z, u=u: z**2 * u**2 / 4.0 - price(z), z)
        assert penalty.conjugate(u) == pytest.approx(brute, rel=1e-9, abs=1e-14), u
    assert penalty.is_convex


@ending
def test_effective_penalties_of_prices_that_end(penalty, price, end):
    z = stretches_up_to(end)
    for v in (0.1, 1.0, 3.0, 20.0, 1e4):
        brute = -largest(lambda z, v=v: -price(z) - v**2 / z**2, z)
        assert penalty.effective(v) == pytest.approx(brute, rel=1e-7), v
        u = penalty.derivative(v)
        assert penalty.effective(v) + penalty.conjugate(u) == pytest.approx(u * v, rel=1e-6)


def test_joint_prices_may_end():
    penalty, custom = JointPenalty(RidgePenalty(), CustomPenalty(capped_square)), CustomPenalty(capped_square)
    values = np.array([0.0, 0.5, 1.5, 1.99, 30.0])
    np.testing.assert_allclose(penalty.value(values + 1.0), custom.value(values + 1.0))
    np.testing.assert_allclose(penalty.effective(values), custom.effective(values), rtol=1e-7)
    np.testing.assert_allclose(penalty.conjugate(values), custom.conjugate(values), rtol=1e-7)
    # Both sides have an end: the product of the two is that of the joint price.
    both = JointPenalty(custom, custom)
    np.testing.assert_allclose(both.value([4.0, 8.9, 9.1]), [2.0, 2.0 * (np.sqrt(8.9) - 1.0) ** 2, np.inf])


@ending
@pytest.mark.parametrize("method", ["newton", "proximal", "reweighted"])
def test_solutions_with_prices_that_end_are_those_of_brute_force(penalty, price, end, method):
    # One number b: ½(y − b)² + (α/2) ω̃(b), which for a stretch z is smallest at b = y z² / (z² + α).
    operator, alpha = TangentOperator([LayerFactors(np.ones((1, 1)), np.ones((1, 1)))]), 2.0
    for y in (0.5, 5.0, 80.0):
        brute = -largest(lambda z, y=y: -0.5 * alpha * (price(z) + y**2 / (z**2 + alpha)), stretches_up_to(end))
        solution = solve(StructuredRegression(operator, [y], penalty, alpha), method, tol=1e-6)
        assert solution.converged
        assert solution.objective == pytest.approx(brute, rel=1e-6)
        assert solution.dual_objective <= brute * (1 + 1e-9)


def test_the_domain_of_a_conjugate_is_not_wider_for_the_noise_of_differences():
    for penalty, end in (
        (CustomPenalty(kinked_price), np.sqrt(2.0)),
        (CustomPenalty(lambda z: kinked_price(z) + (z - 1.0) ** 2), np.sqrt(6.0)),
        (CustomPenalty(lambda z: z**2 - 1.0 - 2.0 * np.log(z)), 2.0),
    ):
        assert end * (1.0 - 1e-9) <= penalty.conjugate_domain <= end
        assert penalty.conjugate(end * np.array([1.0, 1.0 + 1e-7, 1.1])).tolist() == [np.inf] * 3
        assert np.isfinite(penalty.conjugate(end * (1.0 - 1e-9)))


@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_no_dual_point_is_above_the_optimum_with_a_kink(rng, alpha):
    # Weak duality with a conjugate that is known: no singular value of A* r may exceed α/√2.
    operator = random_operator(rng, 30, [(4, 6)])
    y = 10.0 * low_rank_target(rng, operator)
    problem = StructuredRegression(operator, y, CustomPenalty(kinked_price), alpha)
    solution = solve(problem, "proximal", tol=1e-9, max_iter=1000)
    assert solution.converged
    u = 2.0 / alpha * np.linalg.svd(problem.design.rmatvec(solution.dual)[0], compute_uv=False)
    assert u.max() < np.sqrt(2.0)
    dual = np.sum(solution.dual * y) - 0.5 * np.sum(solution.dual**2) - 0.5 * alpha * np.sum(u**2 / 4.0)
    assert solution.dual_objective == pytest.approx(dual, rel=1e-9)
    assert dual <= solution.objective
