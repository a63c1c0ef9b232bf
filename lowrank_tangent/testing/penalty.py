"""What a penalty promises, against brute force over stretches.

The price ω(z) is taken at its word, and everything else is compared with what follows from it: minima and maxima over
a fine grid of stretches, refined around its best points, differences, and the inequality of Fenchel and Young.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.base import clone

from .._types import Array
from ..penalties import SpectralPenalty
from .findings import Finding, agree_each, expect, pickled, run_checks, skip
from .prices import Prices

#: Minima by brute force are exact to the square of the last grid.
_EXACT = 1e-8
#: Prices near z = 1 may be what is left of numbers of size 1.
_ROUNDING = 1e-14
#: Differences of values known to rounding.
_DIFFERENCES = 1e-4
#: Singular values of a fine grid for the check of convexity.
_DENSE = np.logspace(-2, 3, 6001)
#: A singular value at which the slope of an effective penalty has nearly reached its limit, if it has one.
_STEEP, _NEARLY = 1e9, 0.95
#: Domains that end farther out than this are those of a price that is known so far alone.
_LARGE = 1e3
#: Scales at which nothing may overflow, vanish or fall.
_EXTREMES = np.array([0.0, 1e-300, 1e-150, 1e-100, 1e-8, 1e-3, 1.0, 1e3])
_FAR = np.array([1e8, 1e100, 1e150])


def check_penalty(penalty: SpectralPenalty, *, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check a penalty against brute force.

    Parameters
    ----------
    penalty : SpectralPenalty
        An instance.
    random_state : int, default=0
        Draws the singular values.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that apply, of "price", "slope", "effective", "stretch", "prox", "derivative", "convexity",
        "fenchel-young", "conjugate", "domain", "stretch-slope", "stretch-growth", "split", "extremes", "shapes",
        "immutability", "parameters", "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> from lowrank_tangent.penalties import KLPenalty
    >>> from lowrank_tangent.testing import check_penalty
    >>> check_penalty(KLPenalty())[:3]
    ['price', 'slope', 'effective']
    """
    return run_checks(penalty, Prices(penalty), _CHECKS, random_state, verbose)


def _values(rng: np.random.Generator, low: float = -3.0, high: float = 3.0, count: int = 16) -> Array:
    """Numbers of all sizes."""
    return np.sort(10.0 ** rng.uniform(low, high, count))


def _price(case: Prices, rng: np.random.Generator) -> None:
    prices = case.prices
    expect(not np.isnan(prices).any(), "ω(z) is NaN for some z")
    finite = np.isfinite(prices)
    count = len(prices) if finite.all() else int(np.argmin(finite))
    expect((prices[count:] == np.inf).all(), "ω(z) is infinite, and finite again for larger z")
    steps = np.diff(prices[:count])
    rounding = 1e-12 * np.abs(prices[1:count]) + _ROUNDING
    expect((steps >= -rounding).all(), "ω(z) must not fall for z ≥ 1; it does")
    if case.penalty.is_smooth:
        agree_each("ω(1)", 1.0 + prices[0], 1.0, 1e-12)
        clear = case.grid[:count] >= 1e-3
        expect((np.diff(prices[:count][clear]) > 0.0).all(), "ω(z) must increase strictly for z > 1; it does not")


def _slope(case: Prices, rng: np.random.Generator) -> None:
    x = _values(rng, -1.0, 3.0)
    below, above = case.price(x * (1.0 - 1e-5)), case.price(x * (1.0 + 1e-5))
    x, below, above = (values[np.isfinite(above)] for values in (x, below, above))
    slopes = case.penalty.slope(case.z(x))
    agree_each("ω'(z) against differences", slopes, (above - below) / (2e-5 * x), _DIFFERENCES)


def _effective(case: Prices, rng: np.random.Generator) -> None:
    v = _values(rng)
    agree_each("ω̃(v) against the least cost on a grid", case.penalty.effective(v), case.effective(v), _EXACT)


def _stretch(case: Prices, rng: np.random.Generator) -> None:
    v = _values(rng)
    z = np.asarray(case.penalty.stretch(v))
    if case.penalty.is_smooth:
        expect((z >= 1.0).all(), f"stretches must be at least 1; got {z.min():.6g}")
    reached = case.penalty.value(z) + (v / z) ** 2
    for value, at, total, least in zip(v, z, reached, case.effective(v), strict=True):
        expect(
            total <= (1.0 + _EXACT) * least,
            f"z({value:.6g}) = {at:.6g} costs {total:.10g}, and the least cost is {least:.10g}: no global minimum",
        )


def _prox(case: Prices, rng: np.random.Generator) -> None:
    s, tau = _values(rng), 10.0 ** rng.uniform(-2.0, 2.0, 16)
    v = np.asarray(case.penalty.prox(s, tau))
    expect(((v >= 0.0) & (v <= s)).all(), "prox(s, τ) must lie between 0 and s; it does not")
    # For every stretch the best v is known, and leaves τ (ω(z) + s² / (z² + 2τ)).
    least = tau * case.least(lambda z: (s[:, None] / np.hypot(z, np.sqrt(2.0 * tau)[:, None])) ** 2)
    reached = 0.5 * (v - s) ** 2 + tau * case.effective(v)
    for size, weight, value, total, lowest in zip(s, tau, v, reached, least, strict=True):
        expect(
            total <= (1.0 + 4.0 * _EXACT) * lowest,
            f"prox({size:.6g}, {weight:.6g}) = {value:.10g} costs {total:.10g}, and the least cost is {lowest:.10g}",
        )


def _derivative(case: Prices, rng: np.random.Generator) -> None:
    v = _values(rng)
    low, high = v * (1.0 - 1e-4), v * (1.0 + 1e-4)
    quotient = (case.penalty.effective(high) - case.penalty.effective(low)) / (high - low)
    ends = np.array([case.penalty.derivative(low), case.penalty.derivative(v), case.penalty.derivative(high)])
    # The derivative may jump, but its mean is the quotient.
    between = np.clip(quotient, ends.min(axis=0), ends.max(axis=0))
    agree_each("ω̃'(v) against differences", between, quotient, _DIFFERENCES)


def _convexity(case: Prices, rng: np.random.Generator) -> None:
    case.convex()
    slopes = np.diff(case.penalty.effective(_DENSE)) / np.diff(_DENSE)
    falls = np.diff(slopes) < -1e-7 * slopes[1:]
    if falls.any():
        at = int(np.argmax(falls))
        raise Finding(
            f"is_convex is claimed, but the slope of ω̃ falls from {slopes[at]:.8g} to {slopes[at + 1]:.8g} at "
            f"v = {_DENSE[at + 1]:.6g}"
        )


def _dual_points(case: Prices, rng: np.random.Generator) -> Array:
    """Points inside the domain of the conjugate, not so far that it overflows."""
    domain = float(case.penalty.conjugate_domain)
    return rng.uniform(0.02, 0.98, 16) * min(domain, 8.0)


def _fenchel_young(case: Prices, rng: np.random.Generator) -> None:
    case.convex()
    u, v = _dual_points(case, rng), _values(rng)
    effective = case.effective(v)
    excess = case.penalty.conjugate(u)[:, None] + effective - np.multiply.outer(u, v)
    size = np.multiply.outer(u, v)
    worst = np.unravel_index(np.argmin(excess / size), excess.shape)
    expect(
        excess[worst] >= -_EXACT * size[worst],
        f"ω̃(v) + ω̃*(u) ≥ u v fails for u = {u[worst[0]]:.6g}, v = {v[worst[1]]:.6g}: the left side is smaller by "
        f"{-excess[worst]:.3e}",
    )
    slopes = np.asarray(case.penalty.derivative(v))
    near = (slopes < (1.0 - 1e-6) * case.penalty.conjugate_domain) & (slopes <= 8.0)
    total = case.penalty.conjugate(slopes[near]) + effective[near]
    agree_each("ω̃(v) + ω̃*(u) at u = ω̃'(v) against u v", total, slopes[near] * v[near], 1e-6)


def _conjugate(case: Prices, rng: np.random.Generator) -> None:
    case.convex()
    u = _dual_points(case, rng)
    expected = -case.least(lambda z: -((z * u[:, None] / 2.0) ** 2))
    # Where the stretch is nearly 1, price and gain nearly cancel in the brute force.
    got = np.asarray(case.penalty.conjugate(u))
    agree_each("ω̃*(u) against the largest z²u²/4 − ω(z) on a grid", got + u**2 / 4.0, expected + u**2 / 4.0, _EXACT)
    low, high = u * (1.0 - 1e-5), u * (1.0 + 1e-5)
    quotient = (case.penalty.conjugate(high) - case.penalty.conjugate(low)) / (high - low)
    agree_each(
        "the derivative of ω̃*(u) against differences", 1.0 + case.penalty.conjugate_derivative(u), 1.0 + quotient, 1e-4
    )


def _domain(case: Prices, rng: np.random.Generator) -> None:
    case.convex()
    domain = float(case.penalty.conjugate_domain)
    expect(domain > 0.0, f"the domain of a conjugate contains 0 and more; its end is {domain}")
    slopes = np.asarray(case.penalty.derivative(np.logspace(-3, 6, 200)))
    expect(
        (slopes <= (1.0 + 1e-9) * domain).all(),
        f"ω̃'(v) is in the domain of ω̃*, but reaches {slopes.max():.8g} beyond its end {domain:.8g}",
    )
    expect(np.isfinite(case.penalty.conjugate(_dual_points(case, rng))).all(), "ω̃*(u) is infinite inside its domain")
    if np.isfinite(domain):
        if domain < _LARGE:
            last = float(case.penalty.derivative(_STEEP))
            reached = f"ω̃' reaches {last:.6g} at v = {_STEEP:.0e}, and the domain of ω̃* must end at its limit"
            expect(last >= _NEARLY * domain, f"{reached}; it ends at {domain:.6g}")
        outside = np.asarray(case.penalty.conjugate(domain * np.array([1.0 + 1e-6, 2.0, 1e3])))
        expect((outside == np.inf).all(), f"ω̃*(u) must be +inf beyond its domain {domain:.6g}; got {outside.tolist()}")


def _stretch_slope(case: Prices, rng: np.random.Generator) -> None:
    case.convex()
    if not case.penalty.is_smooth:
        skip("for penalties that stretch")
    u = _dual_points(case, rng)
    z = np.asarray(case.penalty.dual_stretch(u))
    moves = (z > 1.01) & (z < min(1e3, (1.0 - 1e-4) * case.end))
    u, z = u[moves], z[moves]
    low, high = u * (1.0 - 1e-5), u * (1.0 + 1e-5)
    quotient = (case.penalty.dual_stretch(high) ** 2 - case.penalty.dual_stretch(low) ** 2) / (high**2 - low**2)
    agree_each("the derivative of z² by u² against differences", case.penalty.stretch_slope(z), quotient, 1e-2)


def _stretch_growth(case: Prices, rng: np.random.Generator) -> None:
    case.convex()
    if not case.penalty.is_smooth:
        skip("for penalties that stretch")
    v = _values(rng)
    z = np.asarray(case.penalty.stretch(v))
    moves = (z > 1.01) & (z < (1.0 - 1e-4) * case.end)
    v, z = v[moves], z[moves]
    low, high = v * (1.0 - 1e-5), v * (1.0 + 1e-5)
    quotient = (case.penalty.stretch(high) ** 2 - case.penalty.stretch(low) ** 2) / (high**2 - low**2)
    agree_each("the derivative of z² by v² against differences", case.penalty.stretch_growth(z), quotient, 1e-2)


def _split(case: Prices, rng: np.random.Generator) -> None:
    v = _values(rng, -1.0, 3.0)
    z = np.asarray(case.penalty.stretch(v))
    z1, z2 = case.penalty.split(v)
    agree_each("z1 z2 against z", z1 * z2, z, 1e-9)
    left, right = case.penalty.sides
    expected = np.asarray(case.penalty.value(z))
    agree_each("ω1(z1) + ω2(z2) against ω(z)", left.value(z1) + right.value(z2), expected, 1e-7)
    if case.penalty.is_smooth:
        shares = np.linspace(0.0, 1.0, 101)[:, None] * np.log(z)
        with np.errstate(over="ignore"):
            totals = left.value(np.exp(shares)) + right.value(np.exp(np.log(z) - shares))
        cheaper = totals.min(axis=0) < (1.0 - 1e-7) * expected
        expect(not cheaper.any(), f"other shares of z = {z[cheaper][:1]} cost less than z1 and z2 do")


def _extremes(case: Prices, rng: np.random.Generator) -> None:
    penalty = case.penalty
    v = np.concatenate([_EXTREMES, _FAR])
    try:
        penalty.stretch(v[-1:])
    except ValueError:  # a price that is minimised by search may grow too slowly to be known so far out
        v = _EXTREMES
    with np.errstate(under="ignore"):
        found = {"ω̃": penalty.effective(v), "z": penalty.stretch(v), "prox": penalty.prox(v, 1.0)}
    found["ω̃'"] = penalty.derivative(v[1:])
    for name, values in found.items():
        values = np.asarray(values)
        expect(
            not np.isnan(values).any() and (values >= 0.0).all(),
            f"{name} is negative or NaN at extreme singular values: {values.tolist()}",
        )
        expect(np.isfinite(values).all(), f"{name} overflows at extreme singular values: {values.tolist()}")
        if name != "ω̃'":
            expect((np.diff(values) >= -1e-12 * values[1:]).all(), f"{name} falls as singular values grow")
    agree_each("ω̃(0)", 1.0 + np.asarray(found["ω̃"])[0], 1.0, 1e-12)
    agree_each("prox(0, τ)", np.asarray(found["prox"])[0], 0.0, 0.0)


def _shapes(case: Prices, rng: np.random.Generator) -> None:
    for shape in ((), (3,), (2, 3)):
        v = np.abs(rng.standard_normal(shape)) + 0.1
        for name in ("effective", "derivative", "stretch", "conjugate", "dual_stretch"):
            if name in ("conjugate", "dual_stretch") and not case.penalty.is_convex:
                continue
            got = np.shape(getattr(case.penalty, name)(v))
            expect(got == shape, f"{name} of an array of shape {shape} has shape {got}")
        got = np.shape(case.penalty.prox(v, 0.5))
        expect(got == shape, f"prox of an array of shape {shape} has shape {got}")
    got = np.shape(case.penalty.prox(np.ones((2, 1)), np.ones(3)))
    expect(got == (2, 3), f"prox must broadcast s and τ to (2, 3); got {got}")


def _immutability(case: Prices, rng: np.random.Generator) -> None:
    v, tau = _values(rng), np.full(16, 0.5)
    for array in (v, tau):
        array.flags.writeable = False
    case.penalty.effective(v), case.penalty.derivative(v), case.penalty.stretch(v), case.penalty.prox(v, tau)
    if case.penalty.is_convex:
        case.penalty.conjugate(v), case.penalty.dual_stretch(v)


def _parameters(case: Prices, rng: np.random.Generator) -> None:
    penalty = case.penalty
    other = clone(penalty)
    expect(other is not penalty and type(other) is type(penalty), "clone(penalty) is no other object of its class")
    expect(other == penalty and hash(other) == hash(penalty), "a clone must be equal to the original, with its hash")
    params = penalty.get_params(deep=False)
    expect(other.set_params(**params) is other and other == penalty, "set_params(**get_params()) must change nothing")
    expect(penalty != object(), "a penalty is equal to an object that is none")


def _pickling(case: Prices, rng: np.random.Generator) -> None:
    v = _values(rng)
    case.penalty.effective(v)  # what is computed once is there
    loaded = pickled(case.penalty)
    expect(repr(loaded) == repr(case.penalty), f"the loaded penalty is {loaded!r}")
    agree_each("ω̃ of the loaded penalty", loaded.effective(v), case.penalty.effective(v), 0.0)


_CHECKS: dict[str, Callable[[Prices, np.random.Generator], None]] = {
    "price": _price,
    "slope": _slope,
    "effective": _effective,
    "stretch": _stretch,
    "prox": _prox,
    "derivative": _derivative,
    "convexity": _convexity,
    "fenchel-young": _fenchel_young,
    "conjugate": _conjugate,
    "domain": _domain,
    "stretch-slope": _stretch_slope,
    "stretch-growth": _stretch_growth,
    "split": _split,
    "extremes": _extremes,
    "shapes": _shapes,
    "immutability": _immutability,
    "parameters": _parameters,
    "pickling": _pickling,
}
