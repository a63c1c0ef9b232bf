"""Prices of a user's own that end, bend or have a kink at z = 1, and what is certified with them."""

import math

import numpy as np
import pytest

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import CustomPenalty, JointPenalty, KLPenalty, PowerPenalty, RidgePenalty

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


def bumpy(z):
    """A convex price with a bump so narrow that a grid of sixteen points a decade steps over it."""
    return (z - 1.0) ** 2 + 0.018 * np.exp(-(((z - 2.078) / 0.012) ** 2))


def wiggly(seed):
    """A power with up to four bumps and dips, of which none is deep enough to make the price fall."""
    rng = np.random.default_rng(seed)
    power, count = rng.choice([2.0, 2.5, 3.0, 4.0]), int(rng.integers(1, 5))
    centres = 10.0 ** rng.uniform(-0.5, 1.0, count)
    widths = centres * 10.0 ** rng.uniform(-2.0, -0.7, count)
    # The steepest slope of exp(−t²) is 0.858: together they take back at most 95 % of the power's own slope.
    heights = rng.choice([-1.0, 1.0], count) * rng.uniform(0.1, 0.95, count) * widths / (0.858 * count)
    heights = heights * power * (0.7 * centres) ** (power - 1.0)

    def price(z):
        x = np.asarray(z) - 1.0
        waves = np.exp(-(((x[..., None] - centres) / widths) ** 2)) - np.exp(-((centres / widths) ** 2))
        return x**power + waves @ heights

    return price


ALL_STRETCHES = 1.0 + np.concatenate([[0.0], np.logspace(-6, -2, 2001), np.logspace(-2, 2.5, 100_001)])


@pytest.mark.parametrize("price", [bumpy, *(wiggly(seed) for seed in range(6))])
def test_conjugates_of_wiggly_prices_are_global_maxima(price):
    penalty = CustomPenalty(price, convex=True)
    values, squares, u = price(ALL_STRETCHES), ALL_STRETCHES**2, np.linspace(0.0, 1.9, 39)
    brute = np.array([np.max(squares * value**2 / 4.0 - values) for value in u])
    conjugate = penalty.conjugate(u)
    assert np.all(conjugate >= brute * (1.0 - 1e-8))
    np.testing.assert_allclose(conjugate, brute, rtol=1e-5, atol=1e-12)


def test_narrow_bumps_are_not_convex():
    # The slope of ω(√t) falls behind every bump or dip that takes back more than it may.
    assert not CustomPenalty(bumpy).is_convex
    t = np.linspace(1.0, 400.0, 200_001)
    found = set()
    for seed in range(6):
        price = wiggly(seed)
        second = np.diff(price(np.sqrt(t)), 2)
        assert CustomPenalty(price).is_convex == (second.min() > -1e-9)
        found.add(second.min() > -1e-9)
    assert False in found
    for weight in (1e-4, 2e-3):  # gentle enough for the square to stay convex
        gentle = CustomPenalty(lambda z, weight=weight: (z - 1.0) ** 3 + weight * np.sin(z - 1.0) * (z - 1.0) ** 2)
        assert gentle.is_convex


@pytest.mark.parametrize("method", ["newton", "proximal"])
@pytest.mark.parametrize("price", [bumpy, wiggly(0), wiggly(1)])
def test_no_bound_is_above_the_optimum_where_convexity_is_claimed_wrongly(price, method):
    # One number b, as above: the optimum by brute force over a grid that is refined.
    operator, alpha = TangentOperator([LayerFactors(np.ones((1, 1)), np.ones((1, 1)))]), 1.0
    penalty = CustomPenalty(price, convex=True)
    assert penalty.is_convex
    for y in (1.5, 2.9, 4.0):
        brute = -largest(lambda z, y=y: -0.5 * alpha * (price(z) + y**2 / (z**2 + alpha)), ALL_STRETCHES)
        solution = solve(StructuredRegression(operator, [y], penalty, alpha), method, tol=1e-9, max_iter=100)
        assert solution.dual_objective <= brute * (1.0 + 1e-9)
        assert brute <= solution.objective * (1.0 + 1e-9)


def test_convexity_may_be_said():
    price = wiggly(0)
    assert CustomPenalty(price, convex=True).is_convex is True
    assert CustomPenalty(lambda z: (z - 1.0) ** 2, convex=False).is_convex is False
    with pytest.raises(TypeError, match="convex must be True, False or None; got 'yes'"):
        CustomPenalty(price, convex="yes")


@pytest.mark.parametrize(
    "omega",
    [
        lambda z: (z - 1) ** 1.5,
        lambda z: math.sqrt(z - 1) ** 3,
        lambda z: z - 1,
        lambda z: np.log(z) ** 2,
        lambda z: np.arccosh(z),
    ],
)
def test_prices_are_asked_for_stretches_from_one_on_alone(omega):
    asked = []

    def recorded(z):
        asked.append(np.min(z))
        return omega(z)

    penalty = CustomPenalty(recorded)
    z = np.array([0.3, 0.9, 1.0, 1.1, 1.7])
    np.testing.assert_array_equal(penalty.value(z), penalty.value(np.abs(z - 1.0) + 1.0))
    assert np.isfinite(penalty.slope(z)).all()
    operator = random_operator(np.random.default_rng(0), 12, [(2, 3)])
    problem = StructuredRegression(operator, np.arange(12.0), penalty, 0.5)
    for method in ("reweighted", "bilinear"):
        assert np.isfinite(solve(problem, method, max_iter=20).objective)
    assert min(asked) >= 1.0


def test_prices_that_grow_more_slowly_than_squares_bound_nothing():
    # z² u²/4 − ω(z) has no maximum for any u > 0.
    for penalty in (
        PowerPenalty(1.5),
        JointPenalty(),
        JointPenalty(KLPenalty(), PowerPenalty(1.5)),
        CustomPenalty(lambda z: (z - 1.0) ** 1.5, convex=True),
    ):
        assert penalty.conjugate_domain == 0.0
        assert penalty.conjugate([0.0, 1e-6, 1.0]).tolist() == [0.0, np.inf, np.inf]
