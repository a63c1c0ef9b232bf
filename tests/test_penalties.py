import copy
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lowrank_tangent.penalties import (
    CustomPenalty,
    JointPenalty,
    KLPenalty,
    NuclearPenalty,
    PowerPenalty,
    RidgePenalty,
    ScaledPenalty,
    SchattenPenalty,
    divided_differences,
    get_penalty,
)

POWERS = (1, 1.2, 1.5, 2, 3, 4.5)


def power_price(p):
    """|z − 1|^p, written again for the tests."""
    return lambda z: np.abs(np.asarray(z) - 1.0) ** p


def kl_price(z):
    """z² − 1 − 2 ln z."""
    return np.asarray(z) ** 2 - 1.0 - 2.0 * np.log(z)


def entropy_price(z):
    """A price of no named family, convex in t = z²: z² ln z² − z² + 1."""
    return z**2 * np.log(z**2) - z**2 + 1.0


def wavy_price(z):
    """Strictly increasing from 1, but with nearly flat parts: its scalar problems have several minima."""
    x = np.abs(np.asarray(z) - 1.0)
    return x**1.5 * (1.0 + 0.25 * np.sin(4.0 * np.log1p(x)))


# Every penalty with its price, written out independently of the package; joint ones with those of both sides.
ONE_SIDED = [(PowerPenalty(p), power_price(p)) for p in POWERS] + [(KLPenalty(), kl_price)]
CUSTOM = [
    (CustomPenalty(entropy_price, name="entropy"), entropy_price),
    (CustomPenalty(wavy_price, name="wavy"), wavy_price),
    (CustomPenalty(power_price(1.5), lambda z: 1.5 * np.sign(z - 1) * np.sqrt(abs(z - 1)), "1.5"), power_price(1.5)),
]
TWO_SIDED = [
    (JointPenalty(penalty, penalty), (price, price))
    for penalty, price in [(PowerPenalty(p), power_price(p)) for p in (1, 1.5, 2, 5)] + [(KLPenalty(), kl_price)]
] + [
    (JointPenalty(PowerPenalty(1), PowerPenalty(2)), (power_price(1), power_price(2))),
    (JointPenalty(KLPenalty(), PowerPenalty(1.5)), (kl_price, power_price(1.5))),
    (JointPenalty(PowerPenalty(3), PowerPenalty(1.2)), (power_price(3), power_price(1.2))),
    (JointPenalty(PowerPenalty(6), PowerPenalty(5)), (power_price(6), power_price(5))),
    (JointPenalty(CustomPenalty(entropy_price), KLPenalty()), (entropy_price, kl_price)),
]
STRETCHING = ONE_SIDED + TWO_SIDED + CUSTOM
CONVEX = [pair for pair in STRETCHING if pair[0].is_convex]
VALUES = np.concatenate([[0.0, 0.0, 1e-300, 1e-160, 1e-12], np.logspace(-6, 8, 57), [1e77, 1e149, 1e150, 1e150]])
pytestmark = pytest.mark.filterwarnings("error")


def named(pairs):
    return pytest.mark.parametrize(("penalty", "price"), pairs, ids=[repr(pair[0]) for pair in pairs])


def joint_price(price, z):
    """ω from its definition: of one side, or the cheapest split of z over a fine grid of shares."""
    if callable(price):
        return price(z)
    first, second = price
    z = np.asarray(z, dtype=float)[..., None]
    low, high = np.zeros_like(z), np.ones_like(z)
    for _ in range(4):
        share = low + (high - low) * np.linspace(0.0, 1.0, 61)
        paid = first(z**share) + second(z ** (1.0 - share))
        best = np.argmin(paid, axis=-1, keepdims=True)
        low = np.take_along_axis(share, np.maximum(best - 1, 0), axis=-1)
        high = np.take_along_axis(share, np.minimum(best + 1, 60), axis=-1)
    return paid.min(axis=-1)


def refined_minimum(function, low, high, rounds=12, points=2001):
    """Minimum of a function of one variable on a grid that is refined around its smallest value."""
    for _ in range(rounds):
        grid = np.linspace(low, high, points)
        values = function(grid)
        best = int(np.argmin(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    return grid[best], values[best]


def brute_minimum(price, s, c):
    """Smallest ω(z) + s² / (z² + c) over a logarithmic grid of stretches, refined around its ten best points."""
    if callable(price):
        z = 1.0 + np.concatenate([[0.0], np.logspace(-14, 10, 40_001)])
        totals = price(z) + s**2 / (z**2 + c)
        best, candidates = np.inf, np.argsort(totals)[:10]
        for i in candidates:
            low, high = z[max(i - 1, 0)], z[min(i + 1, len(z) - 1)]
            best = min(best, refined_minimum(lambda z: price(z) + s**2 / (z**2 + c), low, high, rounds=6)[1])
        return best
    first, second = price
    log_z, share = np.linspace(0.0, 16.0, 601), np.linspace(0.0, 1.0, 301)
    low, high, low_share, high_share = 0.0, 16.0, 0.0, 1.0
    for _ in range(9):
        log_z, share = np.linspace(low, high, 401), np.linspace(low_share, high_share, 201)
        z1, z2 = np.exp(np.outer(log_z, share)), np.exp(np.outer(log_z, 1.0 - share))
        totals = first(z1) + second(z2) + s**2 / ((z1 * z2) ** 2 + c)
        i, j = np.unravel_index(np.argmin(totals), totals.shape)
        low, high = log_z[max(i - 2, 0)], log_z[min(i + 2, 400)]
        if i > 0:  # at z = 1 every share is as good
            low_share, high_share = share[max(j - 10, 0)], share[min(j + 10, 200)]
    return totals.min()


@named(STRETCHING)
@pytest.mark.parametrize("v", [0.0, 1e-3, 0.1, 0.7, 1.0, 3.0, 40.0, 1e4])
def test_effective_penalty_is_the_minimum_over_stretches(penalty, price, v):
    assert penalty.effective(v) == pytest.approx(brute_minimum(price, v, 0.0), rel=1e-9, abs=1e-15)


@named(STRETCHING)
@pytest.mark.parametrize("tau", [1e-8, 1e-2, 0.5, 3.0, 1e2, 1e8])
def test_prox_is_the_global_minimiser_of_its_definition(penalty, price, tau):
    # Minimising ½(v − s)² + τ(ω(z) + v²/z²) over v first leaves τ times ω(z) + s²/(z² + 2τ).
    s = np.array([1e-6, 1e-2, 0.5, 0.9, 1.7, 4.0, 30.0, 1e3, 1e8])
    v = penalty.prox(s, tau)
    assert np.all((v >= 0.0) & (v <= s))
    reached = 0.5 * (v - s) ** 2 + tau * penalty.effective(v)
    for value, target in zip(reached, s, strict=True):
        # At a minimum equal objectives say more than equal arguments, which are not unique where two minima tie.
        assert value <= tau * brute_minimum(price, target, 2.0 * tau) * (1 + 1e-9)


@named([pair for pair in STRETCHING if pair[0].is_convex])
def test_prox_of_a_convex_penalty_is_found_by_brute_force(penalty, price):
    for s, tau in [(0.5, 0.1), (3.0, 1.0), (50.0, 4.0)]:
        v, _ = refined_minimum(lambda v, s=s, tau=tau: 0.5 * (v - s) ** 2 + tau * penalty.effective(v), 0.0, s, 5)
        assert penalty.prox(s, tau) == pytest.approx(v, abs=1e-6 * s)


def test_the_search_for_global_minima_is_not_idle():
    # Somewhere between these values the smaller and the larger root change places: the map jumps, as it has to.
    for penalty in (PowerPenalty(1), PowerPenalty(1.2), JointPenalty(), CustomPenalty(wavy_price)):
        jumps = np.diff(penalty.prox(np.linspace(0.0, 2000.0, 20_001), 100.0))
        assert jumps.min() >= 0.0
        assert jumps.max() > 10.0


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [PowerPenalty(1), PowerPenalty(1.1), PowerPenalty(1.6), JointPenalty(), JointPenalty(KLPenalty(), KLPenalty())]
    ),
    st.floats(-6, 6),
    st.floats(-6, 6),
)
def test_no_stretch_is_cheaper_than_that_of_the_prox(penalty, log_s, log_tau):
    s, tau = 10.0**log_s, 10.0**log_tau
    v = float(penalty.prox(s, tau))
    reached = 0.5 * (v - s) ** 2 + tau * float(penalty.effective(v))
    z = 1.0 + np.concatenate([[0.0], np.logspace(-10, 8, 4001)])
    assert reached <= tau * np.min(penalty.value(z) + s**2 / (z**2 + 2 * tau)) * (1 + 1e-12)


@named([*ONE_SIDED, *TWO_SIDED[:5]])
@pytest.mark.parametrize("tau", [1e-8, 1.0, 1e8])
def test_prox_satisfies_its_optimality_condition_at_any_scale(penalty, price, tau):
    v = penalty.prox(VALUES, tau)
    residual = v + tau * penalty.derivative(v) - VALUES
    # The terms have to cancel to rounding relative to the largest of them.
    assert np.all(np.abs(residual) <= 1e-11 * VALUES)
    assert np.all(v[:2] == 0.0)


@named(STRETCHING)
def test_prox_takes_one_tau_per_value(penalty, price):
    s, tau = np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([0.1, 10.0])
    together = penalty.prox(s, tau)
    one_by_one = [[float(penalty.prox(value, t)) for value, t in zip(row, tau, strict=True)] for row in s]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)


@named(CONVEX)
@pytest.mark.parametrize("u", [0.0, 1e-4, 0.3, 1.0, 1.7, 1.99])
def test_conjugate_is_the_maximum_over_stretches(penalty, price, u):
    z = 1.0 + np.concatenate([[0.0], np.logspace(-12, 4, 200_001)])
    i = int(np.argmin(joint_price(price, z[::200]) - z[::200] ** 2 * u**2 / 4)) * 200
    low, high = z[max(i - 200, 0)], z[min(i + 200, len(z) - 1)]
    _, brute = refined_minimum(lambda z: joint_price(price, z) - z**2 * u**2 / 4, low, high, 6)
    assert penalty.conjugate(u) == pytest.approx(-brute, rel=1e-8, abs=1e-12)


@named([(RidgePenalty(), None), (SchattenPenalty(1.5), None), *CONVEX])
def test_fenchel_young(penalty, price):
    v, u = np.logspace(-4, 3, 40)[:, None], np.linspace(0.0, 1.999, 50)
    slack = penalty.effective(v) + penalty.conjugate(u) - u * v
    assert slack.min() >= -1e-10
    v = v[:, 0]
    u = penalty.derivative(v)
    # With equality where u is the derivative at v.
    np.testing.assert_allclose(penalty.effective(v) + penalty.conjugate(u), u * v, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("penalty", [PowerPenalty(2), KLPenalty(), JointPenalty(PowerPenalty(4), PowerPenalty(4))])
def test_conjugate_is_infinite_outside_its_domain(penalty):
    end = 2.0 if penalty.value(2.0) > 0.5 else np.sqrt(8.0)
    assert penalty.conjugate_domain == pytest.approx(end, rel=1e-14)
    assert np.isfinite(penalty.conjugate(end * np.array([0.999999, 1.0, 1.2]))).tolist() == [True, False, False]


@named([(RidgePenalty(), None), *CONVEX])
def test_derivatives_agree_with_differences(penalty, price):
    v = np.logspace(-2, 3, 30)
    step = 1e-5 * v
    slope = (penalty.effective(v + step) - penalty.effective(v - step)) / (2 * step)
    np.testing.assert_allclose(penalty.derivative(v), slope, rtol=1e-7)
    u, step = np.linspace(0.1, 1.9, 30), 1e-5
    slope = (penalty.conjugate(u + step) - penalty.conjugate(u - step)) / (2 * step)
    np.testing.assert_allclose(penalty.conjugate_derivative(u), slope, rtol=1e-7)
    second = (penalty.conjugate_derivative(u + step) - penalty.conjugate_derivative(u - step)) / (2 * step)
    np.testing.assert_allclose(penalty.conjugate_second_derivative(u), second, rtol=1e-4)


@named(STRETCHING)
def test_growth_of_the_stretch_agrees_with_differences(penalty, price):
    v = np.array([0.05, 0.3, 0.9, 2.0, 7.0, 90.0])
    z = penalty.stretch(v)
    step = 1e-4 * v
    growth = (penalty.stretch(v + step) ** 2 - penalty.stretch(v - step) ** 2) / ((v + step) ** 2 - (v - step) ** 2)
    # Where no formula is known, second differences of the price close to z = 1 are not to be had.
    atol = 0.02 if "custom" in repr(penalty).lower() else 1e-4
    np.testing.assert_allclose(penalty.stretch_growth(z), growth, rtol=1e-3, atol=atol)


@named([*ONE_SIDED, *TWO_SIDED[:5]])
def test_derivatives_of_the_stretch_at_one_are_those_from_the_right(penalty, price):
    # By the quotient over a step, which vanishes or has a limit, or else grows without bound as the step shrinks.
    def from_the_right(stretch):
        quotients = [(float(stretch(v)) ** 2 - 1.0) / v**2 for v in (1e-3, 1e-4, 1e-5)]
        return 0.0 if quotients[2] > 2.0 * quotients[1] else quotients[2]

    assert penalty.stretch_growth(1.0) == pytest.approx(from_the_right(penalty.stretch), abs=0.02, rel=1e-3)
    if penalty.is_convex:
        assert penalty.stretch_slope(1.0) == pytest.approx(from_the_right(penalty.dual_stretch), rel=1e-3)


@named([*ONE_SIDED, *CUSTOM])
def test_slope_of_the_price_agrees_with_differences_on_both_sides_of_one(penalty, price):
    z = np.array([0.2, 0.7, 0.95, 1.05, 1.6, 4.0, 30.0])
    step = 1e-6 * z

    def extended(z):
        # Prices of a user's own are mirrored at 1, and never asked below.
        return price(np.where(z < 1.0, 2.0 - z, z)) if isinstance(penalty, CustomPenalty) else price(z)

    np.testing.assert_allclose(penalty.value(z), extended(z), rtol=1e-12)
    np.testing.assert_allclose(penalty.slope(z), (extended(z + step) - extended(z - step)) / (2 * step), rtol=1e-5)


@named([*TWO_SIDED, (JointPenalty(RidgePenalty(), CustomPenalty(entropy_price)), None)])
def test_slope_of_a_joint_price_agrees_with_differences(penalty, price):
    z = np.array([1.003, 1.02, 1.3, 2.0, 7.0])
    step = 1e-4 * (z - 1.0)
    slope = (penalty.value(z + step) - penalty.value(z - step)) / (2 * step)
    np.testing.assert_allclose(penalty.slope(z), slope, rtol=1e-5)


@named(CONVEX)
def test_derivatives_of_penalty_and_conjugate_are_inverse(penalty, price):
    v = np.logspace(-3, 2, 50)
    tol = 1e-9 if not isinstance(penalty, CustomPenalty) else 1e-6
    np.testing.assert_allclose(penalty.conjugate_derivative(penalty.derivative(v)), v, rtol=tol)
    np.testing.assert_allclose(penalty.dual_stretch(penalty.derivative(v)), penalty.stretch(v), rtol=tol)


def test_stretch_satisfies_the_equations_of_the_theory():
    v = VALUES[(VALUES <= 1e70) & (VALUES >= 1e-6)]
    for p in (1.5, 2, 3):
        z = PowerPenalty(p).stretch(v)
        moved = z - 1 > 1e-5
        np.testing.assert_allclose(p * ((z - 1) ** (p - 1) * z**3)[moved], 2 * v[moved] ** 2, rtol=1e-7)
    np.testing.assert_allclose(PowerPenalty(1).stretch(v), np.maximum(1.0, (2 * v**2) ** (1 / 3)), rtol=1e-12)
    z = KLPenalty().stretch(v)
    np.testing.assert_allclose(z**4 - z**2, v**2, rtol=1e-7, atol=1e-14)
    z = JointPenalty(PowerPenalty(2), PowerPenalty(2)).stretch(v)
    np.testing.assert_allclose(z**3 * (1 - 1 / np.sqrt(z)), v**2, rtol=1e-7, atol=1e-14)


# The table of tails in the theory: exponent and constant of ω̃(v) for large v.
TAILS = [
    (PowerPenalty(1), 2 / 3, 3 / 2 ** (2 / 3)),
    (PowerPenalty(1.5), 6 / 7, (2 / 1.5) ** (1.5 / 3.5) + (1.5 / 2) ** (2 / 3.5)),
    (PowerPenalty(2), 1.0, 2.0),
    (PowerPenalty(3), 6 / 5, (2 / 3) ** (3 / 5) + (3 / 2) ** (2 / 5)),
    (KLPenalty(), 1.0, 2.0),
    (JointPenalty(PowerPenalty(2), PowerPenalty(2)), 2 / 3, 3.0),
    (JointPenalty(KLPenalty(), KLPenalty()), 2 / 3, 3.0),
    (JointPenalty(PowerPenalty(1), PowerPenalty(1)), 2 / 5, 2 * 2 ** (1 / 5) + 2 ** (-4 / 5)),
    (CustomPenalty(power_price(2)), 1.0, 2.0),
]


@pytest.mark.parametrize(("penalty", "exponent", "constant"), TAILS, ids=[repr(tail[0]) for tail in TAILS])
def test_tails_are_those_of_the_table(penalty, exponent, constant):
    # v is large where the stretch is; for the custom price the grid of stretches ends earlier.
    v = 1e40 if not isinstance(penalty, CustomPenalty) else 1e18
    assert penalty.effective(v) == pytest.approx(constant * v**exponent, rel=1e-6)
    ratio = penalty.effective(np.array([1e12, 1e14]))
    assert np.log10(ratio[1] / ratio[0]) / 2 == pytest.approx(exponent, abs=1e-3)


@named([*STRETCHING, (SchattenPenalty(0.5), None), (NuclearPenalty(), None)])
def test_proposition_three(penalty, price):
    # v² ↦ ω̃(v) is increasing and concave...
    squares = np.linspace(0.0, 50.0, 400)
    effective = penalty.effective(np.sqrt(squares))
    assert np.all(np.diff(effective) > 0)
    assert np.all(np.diff(effective, 2) < 1e-9)
    # ...and, where staying at the identity is free, v² + o(v²).
    if price is not None:
        v = np.array([1e-2, 1e-3, 1e-4])
        lost = 1.0 - penalty.effective(v) / v**2
        assert np.all(lost >= -1e-9)
        assert lost[2] < 0.05
        assert np.all(np.diff(lost) <= 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.05, 3.0), st.floats(1.0, 4.0)), min_size=1, max_size=4), st.floats(0.0, 0.99))
@example([(0.125, 1.0)], 0.5)  # local minima at z = 7 and 8.6
def test_proposition_three_for_random_quasi_convex_prices(terms, wave):
    def omega(z):
        x = np.abs(z - 1.0)
        # Increasing in x for every wave < 1, convex only by chance.
        bent = x + wave * np.sin(3.0 * x) / 3.0
        return sum(weight * bent**power for weight, power in terms)

    penalty = CustomPenalty(omega)
    squares = np.linspace(0.0, 30.0, 200)
    effective = penalty.effective(np.sqrt(squares))
    assert np.all(np.diff(effective) > 0)
    assert np.all(np.diff(effective, 2) < 1e-8)
    assert np.all(effective <= squares * (1 + 1e-12))
    v = np.array([0.0, 1e-4])
    np.testing.assert_allclose(penalty.effective(v), v**2, rtol=0.2)


@named(STRETCHING)
def test_values_at_the_ends_of_the_range(penalty, price):
    # A search for stretches ends at 1e12; formulas go on.
    searched = isinstance(penalty, CustomPenalty) or penalty is TWO_SIDED[-1][0]
    values = VALUES[:-4] if searched else VALUES
    z = penalty.stretch(values)
    assert np.all(z[:2] == 1.0)
    assert np.all(np.diff(z) >= -1e-9 * z[:-1])
    assert np.all(np.isfinite(penalty.effective(values)))


@named(STRETCHING)
def test_split_is_the_cheapest_way_to_make_the_stretch(penalty, price):
    v = np.logspace(-3, 3, 20)
    z, (left, right) = penalty.stretch(v), penalty.split(v)
    np.testing.assert_allclose(left * right, z, rtol=1e-9)
    if callable(price):
        assert np.all(right == 1.0)
    else:
        assert np.all((left >= 1.0) & (right >= 1.0 - 1e-12))
        paid = price[0](left) + price[1](np.maximum(right, 1.0))
        np.testing.assert_allclose(paid, penalty.value(z), rtol=1e-8, atol=1e-14)
        assert np.all(paid <= joint_price(price, z) * (1 + 1e-9) + 1e-14)


def test_which_penalties_are_convex():
    assert [penalty.is_convex for penalty, _ in ONE_SIDED] == [False, False, False, True, True, True, True]
    assert [penalty.is_convex for penalty, _ in TWO_SIDED] == [False, False, False, True, *4 * [False], True, False]
    assert [penalty.is_convex for penalty, _ in CUSTOM] == [True, False, False]
    # The criterion on the grid agrees with what is known.
    for p in (1, 1.5, 1.9, 2, 2.5, 3):
        assert CustomPenalty(power_price(p)).is_convex == (p >= 2)
    assert CustomPenalty(kl_price).is_convex
    # Where the criterion holds, the effective penalty is convex: checked by its definition.
    for penalty, _ in CONVEX:
        v = np.linspace(0.0, 20.0, 801)
        assert np.diff(penalty.effective(v), 2).min() > -1e-9


def test_one_free_side_is_the_one_sided_penalty():
    v = np.logspace(-2, 2, 9)
    left, right = JointPenalty(PowerPenalty(2), RidgePenalty()), JointPenalty(RidgePenalty(), KLPenalty())
    np.testing.assert_array_equal(left.effective(v), PowerPenalty(2).effective(v))
    np.testing.assert_array_equal(right.split(v)[1], KLPenalty().stretch(v))
    np.testing.assert_array_equal(right.split(v)[0], np.ones(9))
    free = JointPenalty(RidgePenalty(), CustomPenalty(entropy_price))
    np.testing.assert_allclose(free.effective(v), CustomPenalty(entropy_price).effective(v), rtol=1e-9)
    np.testing.assert_allclose(free.split(v)[0], 1.0)


@pytest.mark.parametrize("q", [0.3, 0.5, 2 / 3, 1.0, 1.3, 1.9])
@pytest.mark.parametrize("tau", [1e-3, 0.4, 20.0])
def test_schatten_prox_by_brute_force(q, tau):
    penalty = NuclearPenalty() if q == 1.0 else SchattenPenalty(q)
    # Closely spaced, to meet the values for which a positive minimum exists but 0 is better.
    for s in np.append(0.0, np.logspace(-3, 3, 150)):
        _, brute = refined_minimum(lambda v, s=s: 0.5 * (v - s) ** 2 + tau * 2 / q * v**q, 0.0, max(s, 1e-9), 8)
        v = float(penalty.prox(s, tau))
        assert 0.5 * (v - s) ** 2 + tau * float(penalty.effective(v)) <= min(brute, 0.5 * s**2) * (1 + 1e-12)


def test_schatten_is_the_minimum_over_all_stretches():
    z = np.logspace(-8, 8, 400_001)
    for q in (0.5, 1.0, 1.5):
        penalty = SchattenPenalty(q)
        for v in (0.01, 1.0, 30.0):
            assert np.min(penalty.value(z) + v**2 / z**2) == pytest.approx(float(penalty.effective(v)), rel=1e-8)
            assert z[np.argmin(penalty.value(z) + v**2 / z**2)] == pytest.approx(float(penalty.stretch(v)), rel=1e-3)
        slope = (penalty.value(2.001) - penalty.value(1.999)) / 0.002
        assert penalty.slope(2.0) == pytest.approx(slope, rel=1e-5)


@named([pair for pair in STRETCHING if callable(pair[1])])
@pytest.mark.parametrize("adaptivity", [1e-4, 1.0, 1e6])
def test_price_of_moving_scales_everything(penalty, price, adaptivity):
    scaled, mu = ScaledPenalty(penalty, adaptivity), 1.0 / adaptivity
    v = np.sqrt(mu) * np.array([0.01, 0.5, 3.0])
    for value in v:
        brute = brute_minimum(lambda z: mu * price(z), value, 0.0)
        assert scaled.effective(value) == pytest.approx(brute, rel=1e-9)
    prox = scaled.prox(v, 0.3)
    np.testing.assert_allclose(prox + 0.3 * scaled.derivative(prox), v, rtol=1e-6)
    if penalty.is_convex:
        u = scaled.derivative(v)
        np.testing.assert_allclose(scaled.effective(v) + scaled.conjugate(u), u * v, rtol=1e-8)
        assert scaled.conjugate_domain == pytest.approx(penalty.conjugate_domain * np.sqrt(mu))


def test_no_adaptivity_is_ridge():
    scaled = ScaledPenalty(PowerPenalty(2), 0.0)
    assert scaled.is_fixed
    np.testing.assert_array_equal(scaled.effective(np.array([0.0, 2.0])), [0.0, 4.0])


def test_divided_differences_with_ties_and_near_ties():
    points = np.array([0.0, 1.0, 1.0, 1.0 + 1e-9, 2.0])
    exact = points[:, None] ** 2 + points[:, None] * points + points**2
    np.testing.assert_allclose(divided_differences(points, points**3, 3 * points**2), exact, rtol=1e-6)


def test_names_and_instances():
    assert isinstance(get_penalty("kl"), KLPenalty)
    assert repr(get_penalty("joint")) == "JointPenalty(PowerPenalty(p=2), PowerPenalty(p=2))"
    instance = PowerPenalty()
    assert get_penalty(instance) is instance
    with pytest.raises(ValueError, match=r"\['joint', 'kl', 'nuclear', 'power', 'ridge', 'schatten'\].*'lasso'"):
        get_penalty("lasso")
    with pytest.raises(TypeError, match="SpectralPenalty instance"):
        get_penalty(KLPenalty)


@named([pair for pair in STRETCHING if "custom" not in repr(pair[0]).lower()])
def test_penalties_survive_copies(penalty, price):
    for other in (copy.deepcopy(penalty), pickle.loads(pickle.dumps(penalty))):
        assert repr(other) == repr(penalty)
        np.testing.assert_array_equal(other.effective([0.3, 4.0]), penalty.effective([0.3, 4.0]))


def test_impossible_penalties_are_refused():
    for bad in (0.5, np.inf, np.nan):
        with pytest.raises(ValueError, match="finite number >= 1"):
            PowerPenalty(bad)
    with pytest.raises(TypeError, match="real number >= 1; got 'two'"):
        PowerPenalty("two")
    for bad in (0.0, 2.0, -1.0):
        with pytest.raises(ValueError, match="0 < q < 2"):
            SchattenPenalty(bad)
    with pytest.raises(TypeError, match="0 < q < 2; got None"):
        SchattenPenalty(None)
    with pytest.raises(TypeError, match="such as PowerPenalty"):
        JointPenalty("power", KLPenalty())
    with pytest.raises(ValueError, match="one transform"):
        JointPenalty(JointPenalty(), KLPenalty())
    with pytest.raises(ValueError, match="one transform"):
        JointPenalty(NuclearPenalty(), KLPenalty())
    with pytest.raises(ValueError, match="free to adapt"):
        JointPenalty(RidgePenalty(), RidgePenalty())


IMPOSSIBLE = [
    (lambda z: 1 - z, ValueError, "strictly away from z = 1"),
    (lambda z: (z - 1) ** 2 + 0.1, ValueError, "must be 0 at z = 1.*got 0.1"),
    (lambda z: np.abs(z - 1) + (z > 3), ValueError, "continuous, but it jumps from 2 to 3 at z = 3"),
    (lambda z: np.abs(z - 1) + 1e-3 * (z > 1.5), ValueError, "continuous, but it jumps from 0.5 to 0.501 at z = 1.5"),
    (lambda z: np.minimum(np.abs(z - 1), 5.0), ValueError, "strictly.*it is 5 at z = .* and 5 at z"),
    (lambda z: np.abs(z - 1) * (10 - z), ValueError, "strictly away from z = 1"),
    (lambda z: np.abs(z - 1) ** 0.5 if z < 9 else float("nan"), ValueError, "is NaN at z = "),
    (lambda z: np.abs(z - 1) + 1j, TypeError, "must return real numbers"),
    (lambda z: None, TypeError, "must return real numbers"),
    ("(z-1)**2", TypeError, "must be a function"),
]


@pytest.mark.parametrize(("omega", "error", "message"), IMPOSSIBLE)
def test_impossible_prices_are_refused_and_the_message_says_where(omega, error, message):
    with pytest.raises(error, match=message):
        CustomPenalty(omega)


def test_a_wrong_derivative_is_refused():
    with pytest.raises(ValueError, match=r"derivative\(z\) is .* differences of omega give"):
        CustomPenalty(power_price(2), lambda z: z - 1.0)
    with pytest.raises(TypeError, match="derivative must be a function"):
        CustomPenalty(power_price(2), derivative=3)


def test_custom_prices_may_be_scalar_and_may_end():
    import math

    def scalar(z):
        if z > 50.0:
            return math.inf
        return z * z - 1 - 2 * math.log(z)

    penalty = CustomPenalty(scalar)
    np.testing.assert_allclose(penalty.effective([0.0, 0.5, 7.0]), KLPenalty().effective([0.0, 0.5, 7.0]), rtol=1e-10)
    assert penalty.stretch(1e6) == pytest.approx(50.0, rel=0.16)
    steep = CustomPenalty(lambda z: math.expm1(abs(z - 1)))
    assert steep.stretch(1e8) == pytest.approx(1.0 + refined_steep_root(1e8), rel=1e-9)


def refined_steep_root(v):
    """Root x of eˣ (1 + x)³ = 2v²."""
    low, high = 0.0, 100.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.exp(middle) * (1 + middle) ** 3 < 2 * v**2 else (low, middle)
    return low


def test_a_price_that_hardly_grows_is_refused_where_it_has_no_minimum():
    penalty = CustomPenalty(lambda z: 1.0 - np.exp(-(np.abs(z - 1) ** 0.05)))
    with pytest.raises(ValueError, match="grows too slowly"):
        penalty.stretch(1e30)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
@named([(RidgePenalty(), None), (SchattenPenalty(), None), *STRETCHING])
def test_bad_arguments_are_refused(penalty, price, bad):
    for method in (penalty.stretch, penalty.effective, penalty.derivative, penalty.conjugate, penalty.split):
        if method is penalty.conjugate and not penalty.is_convex and penalty.is_smooth:
            continue
        with pytest.raises(ValueError, match="numbers >= 0"):
            method(bad)
    with pytest.raises(ValueError, match="numbers >"):
        penalty.value(bad)
    with pytest.raises(ValueError, match="tau must be > 0"):
        penalty.prox(1.0, bad)
