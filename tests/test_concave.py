"""The search for the maximum of a concave function against formulas and SciPy."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from lowrank_tangent.linalg.concave import concave_maximum

GUESSES = [1.0, 0.3, 1e-6, 0.0]


def found(function, limit, guess):
    """Point, value, and how often the function was called, always below the limit."""
    calls = []

    def counted(points):
        assert np.all((points >= 0.0) & (points < limit))
        calls.append(points)
        return function(points)

    return *concave_maximum(counted, limit, guess), len(calls)


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("top", [0.02, 0.3, 1.0, 1.0003, 1.9])
def test_parabola(top, guess):
    point, value, calls = found(lambda t: top * t - 0.5 * t**2, 2.0, guess)
    assert point == pytest.approx(top, rel=1e-6)
    assert value == pytest.approx(0.5 * top**2, rel=1e-13)
    assert calls <= 10


@pytest.mark.parametrize("distance", [0.3, 1e-3, 1e-6, 1e-10])
def test_maximum_next_to_a_barrier(distance):
    limit = 0.7
    point, value, calls = found(lambda t: t + distance * np.log(1.0 - t / limit), limit, 1.0)
    assert limit - point == pytest.approx(distance, rel=1e-3)
    assert value == pytest.approx(limit - distance + distance * np.log(distance / limit), rel=1e-13)
    assert calls <= 10


@pytest.mark.parametrize("power", [1.1, 2.0, 7.0])
def test_powers_against_scipy(power):
    def function(t):
        return t - 0.4 * t**power - 0.3 * t**2

    _, value, calls = found(function, 2.0, 1.0)
    reference = minimize_scalar(lambda t: -function(t), bounds=(0.0, 2.0), method="bounded", options={"xatol": 1e-10})
    assert value == pytest.approx(-reference.fun, rel=1e-13)
    assert calls <= 10


def test_a_good_guess_takes_few_calls():
    assert found(lambda t: 1.0003 * t - 0.5 * t**2 - 0.1 * t**4, 2.0, 1.0)[2] <= 6


@pytest.mark.parametrize("guess", GUESSES)
def test_kinks_steps_and_ends(guess):
    point, value, _ = found(lambda t: 1.0 - np.abs(t - 0.3), 2.0, guess)
    assert (point, value) == (pytest.approx(0.3, abs=1e-7), pytest.approx(1.0, abs=1e-7))
    point, value, _ = found(lambda t: np.where(t < 1e-3, t, -np.inf), 2.0, guess)
    assert (point, value) == (pytest.approx(1e-3, rel=1e-4), pytest.approx(1e-3, rel=1e-4))
    assert found(lambda t: 1.0 - t, 2.0, guess)[:2] == (0.0, 1.0)
    point, value, _ = found(lambda t: t, 0.9, guess)
    assert (point, value) == (pytest.approx(0.9, rel=1e-11), pytest.approx(0.9, rel=1e-11))
    assert found(lambda t: np.full_like(t, 5.0), 2.0, guess)[1] == 5.0


def test_no_room_below_the_limit():
    assert concave_maximum(lambda t: 3.0 - t, 0.0, 1.0) == (0.0, 3.0)
