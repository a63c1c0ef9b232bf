import numpy as np
import pytest

from lowrank_tangent.penalties import (
    KLPenalty,
    PowerPenalty,
    RidgePenalty,
    ScaledPenalty,
    divided_differences,
    get_penalty,
)

PENALTIES = [RidgePenalty(), PowerPenalty(2), KLPenalty()]
ADAPTIVE = PENALTIES[1:]
VALUES = np.concatenate([[0.0, 0.0, 1e-300, 1e-160, 1e-12], np.logspace(-6, 8, 57), [1e77, 1e149, 1e150, 1e150]])
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=PENALTIES, ids=repr)
def penalty(request):
    return request.param


@pytest.fixture(params=ADAPTIVE, ids=repr)
def adaptive(request):
    return request.param


def price(penalty, z):
    """ω from its definition, for the brute force."""
    if isinstance(penalty, RidgePenalty):
        return np.where(z > 1, np.inf, 0.0)
    return (z - 1) ** 2 if isinstance(penalty, PowerPenalty) else z**2 - 1 - 2 * np.log(z)


def refined_minimum(function, low, high, rounds=12, points=2001):
    """Minimum of a function of one variable on a grid that is refined around its smallest value."""
    for _ in range(rounds):
        grid = np.linspace(low, high, points)
        values = function(grid)
        best = int(np.argmin(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    return grid[best], values[best]


@pytest.mark.parametrize("v", [0.0, 1e-3, 0.1, 0.7, 1.0, 3.0, 40.0, 1e4])
def test_effective_penalty_is_the_minimum_over_stretches(penalty, v):
    _, brute = refined_minimum(lambda z: price(penalty, z) + v**2 / z**2, 1.0, 2.0 + 2.0 * np.sqrt(v))
    assert penalty.effective(v) == pytest.approx(brute, rel=1e-11, abs=1e-15)


@pytest.mark.parametrize("s", [1e-6, 1e-2, 0.5, 1.0, 2.0, 30.0, 1e3])
@pytest.mark.parametrize("tau", [1e-6, 1e-2, 1.0, 1e2, 1e5])
def test_prox_is_the_minimiser_of_its_definition(penalty, s, tau):
    _, brute = refined_minimum(lambda v: 0.5 * (v - s) ** 2 + tau * penalty.effective(v), 0.0, s)
    v = float(penalty.prox(s, tau))
    assert 0.0 <= v <= s
    # At a minimum equal objectives say more than equal arguments: the objective is flat there.
    assert 0.5 * (v - s) ** 2 + tau * float(penalty.effective(v)) <= brute * (1 + 1e-13)


@pytest.mark.parametrize("tau", [1e-8, 1.0, 1e8])
def test_prox_satisfies_its_optimality_condition_at_any_scale(penalty, tau):
    v = penalty.prox(VALUES, tau)
    residual = v + tau * penalty.derivative(v) - VALUES
    # The terms have to cancel to rounding relative to the largest of them.
    assert np.all(np.abs(residual) <= 1e-11 * VALUES)
    assert np.all(v[:2] == 0.0)


def test_prox_takes_one_tau_per_value(adaptive):
    s, tau = np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([0.1, 10.0])
    together = adaptive.prox(s, tau)
    one_by_one = [[float(adaptive.prox(value, t)) for value, t in zip(row, tau, strict=True)] for row in s]
    np.testing.assert_array_equal(together, one_by_one)


@pytest.mark.parametrize("u", [0.0, 1e-4, 0.3, 1.0, 1.7, 1.99])
def test_conjugate_is_the_maximum_over_stretches(penalty, u):
    _, brute = refined_minimum(lambda z: price(penalty, z) - z**2 * u**2 / 4, 1.0, 1e3)
    assert penalty.conjugate(u) == pytest.approx(-brute, rel=1e-9, abs=1e-12)


def test_fenchel_young(penalty):
    v, u = np.logspace(-4, 3, 40)[:, None], np.linspace(0.0, 1.999, 50)
    slack = penalty.effective(v) + penalty.conjugate(u) - u * v
    assert slack.min() >= -1e-12
    v = v[:, 0]
    u = penalty.derivative(v)
    # With equality where u is the derivative at v.
    np.testing.assert_allclose(penalty.effective(v) + penalty.conjugate(u), u * v, rtol=1e-9)


def test_conjugate_is_infinite_outside_its_domain(penalty):
    u = np.array([1.999999, 2.0, 2.5])
    assert np.isfinite(penalty.conjugate(u)).tolist() == [True] + 2 * [bool(penalty.conjugate_domain > 3)]


def test_derivatives_agree_with_differences(penalty):
    v = np.logspace(-2, 3, 30)
    step = 1e-5 * v
    slope = (penalty.effective(v + step) - penalty.effective(v - step)) / (2 * step)
    np.testing.assert_allclose(penalty.derivative(v), slope, rtol=1e-7)
    u, step = np.linspace(0.1, 1.9, 30), 1e-6
    slope = (penalty.conjugate(u + step) - penalty.conjugate(u - step)) / (2 * step)
    np.testing.assert_allclose(penalty.conjugate_derivative(u), slope, rtol=1e-7)
    second = (penalty.conjugate_derivative(u + step) - penalty.conjugate_derivative(u - step)) / (2 * step)
    np.testing.assert_allclose(penalty.conjugate_second_derivative(u), second, rtol=1e-6)


def test_derivatives_of_penalty_and_conjugate_are_inverse(penalty):
    v = np.logspace(-6, 2, 50)
    np.testing.assert_allclose(penalty.conjugate_derivative(penalty.derivative(v)), v, rtol=1e-9)
    np.testing.assert_allclose(penalty.dual_stretch(penalty.derivative(v)), penalty.stretch(v), rtol=1e-9)


def test_stretch_satisfies_the_equation_of_the_theory():
    v = VALUES[VALUES <= 1e70]
    z = PowerPenalty(2).stretch(v)
    np.testing.assert_allclose(z**3 * (z - 1), v**2, rtol=1e-7, atol=1e-14)
    z = KLPenalty().stretch(v)
    np.testing.assert_allclose(z**4 - z**2, v**2, rtol=1e-12, atol=1e-14)


def test_values_at_the_ends_of_the_range(adaptive):
    z = adaptive.stretch(VALUES)
    assert np.all(z[:2] == 1.0)
    assert np.all(np.diff(z) >= 0)
    effective = adaptive.effective(VALUES)
    assert np.all(np.isfinite(effective))
    # Ridge for small values, the nuclear norm for large ones (Proposition 3 and the table of tails).
    small, large = VALUES[4:10], VALUES[-4:]
    np.testing.assert_allclose(effective[4:10], small**2, rtol=1e-8)
    np.testing.assert_allclose(effective[-4:], 2 * large, rtol=1e-7)


def test_effective_penalty_is_increasing_and_concave_in_squares(adaptive):
    squares = np.linspace(0.0, 50.0, 400)
    effective = adaptive.effective(np.sqrt(squares))
    assert np.all(np.diff(effective) > 0)
    assert np.all(np.diff(effective, 2) < 0)


def test_split_multiplies_to_the_stretch(penalty):
    v = np.logspace(-3, 3, 20)
    left, right = penalty.split(v)
    np.testing.assert_allclose(left * right, penalty.stretch(v))


@pytest.mark.parametrize("adaptivity", [1e-4, 1.0, 1e6])
def test_price_of_moving_scales_everything(adaptive, adaptivity):
    scaled, mu = ScaledPenalty(adaptive, adaptivity), 1.0 / adaptivity
    v = np.sqrt(mu) * np.array([0.01, 0.5, 3.0])
    for value in v:
        span = 2.0 + 2.0 * np.sqrt(value / np.sqrt(mu))
        z, brute = refined_minimum(lambda z, value=value: mu * price(adaptive, z) + value**2 / z**2, 1.0, span)
        assert scaled.effective(value) == pytest.approx(brute, rel=1e-11)
        assert scaled.stretch(value) == pytest.approx(z, rel=1e-5)
        assert scaled.dual_stretch(scaled.derivative(value)) == pytest.approx(z, rel=1e-5)
    prox = scaled.prox(v, 0.3)
    np.testing.assert_allclose(prox + 0.3 * scaled.derivative(prox), v, rtol=1e-12)
    u = scaled.derivative(v)
    np.testing.assert_allclose(scaled.effective(v) + scaled.conjugate(u), u * v, rtol=1e-10)
    assert scaled.conjugate_domain == pytest.approx(2 * np.sqrt(mu))


def test_no_adaptivity_is_ridge(adaptive):
    scaled = ScaledPenalty(adaptive, 0.0)
    assert scaled.is_fixed
    np.testing.assert_array_equal(scaled.effective(np.array([0.0, 2.0])), [0.0, 4.0])


def test_divided_differences_with_ties_and_near_ties():
    points = np.array([0.0, 1.0, 1.0, 1.0 + 1e-9, 2.0])
    exact = points[:, None] ** 2 + points[:, None] * points + points**2
    np.testing.assert_allclose(divided_differences(points, points**3, 3 * points**2), exact, rtol=1e-6)


def test_names_and_instances():
    assert isinstance(get_penalty("kl"), KLPenalty)
    instance = PowerPenalty()
    assert get_penalty(instance) is instance
    with pytest.raises(ValueError, match=r"\['kl', 'power', 'ridge'\].*'lasso'"):
        get_penalty("lasso")
    with pytest.raises(TypeError, match="SpectralPenalty instance"):
        get_penalty(KLPenalty)
    with pytest.raises(ValueError, match="supports p=2; got p=3"):
        PowerPenalty(3)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_bad_arguments_are_refused(penalty, bad):
    for method in (penalty.stretch, penalty.effective, penalty.derivative, penalty.conjugate, penalty.split):
        with pytest.raises(ValueError, match="numbers >= 0"):
            method(bad)
    with pytest.raises(ValueError, match="numbers >= 1"):
        penalty.value(bad)
    with pytest.raises(ValueError, match="tau must be > 0"):
        penalty.prox(1.0, bad)
