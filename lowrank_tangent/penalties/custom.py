"""A penalty from a user's own price of a stretch."""

from __future__ import annotations

from numbers import Real

import numpy as np

from ._search import difference_quotient
from .spectral import SpectralPenalty, stretches

#: Stretches at which a price is checked, sixteen points a decade: from 0.01, as far as rounding spoils nothing, to 1e6.
_EXCESS = np.logspace(-3, 6, 9 * 16 + 1)
_CHECKED = np.concatenate([1.0 / (1.0 + _EXCESS[_EXCESS <= 100.0][::-1]), [1.0], 1.0 + _EXCESS])
#: An interval is halved this often around its steepest part; a continuous price falls by then, a jump stays.
_HALVINGS = (20, 35)
_JUMP_REMAINS = 0.9
#: The slope at z = 1, from the right, is taken here.
_BESIDE_ONE = 1.0 + 1e-6
#: A given derivative may differ this much from differences of the price, and may do so near kinks, at few points.
_SLOPE_TOL = 1e-3
_KINKS = 8


class CustomPenalty(SpectralPenalty):
    """The penalty of any price ω(z) that theory allows, from a plain Python function.

    Parameters
    ----------
    omega : callable
        Price of a stretch z > 0, vectorised or of one number. Continuous, 0 at z = 1, strictly falling below and
        strictly increasing above (strictly quasi-convex); it may become +inf far out.
    derivative : callable, optional
        Its derivative; without it, differences of fourth order stand in.
    name : str, optional
        Shown in messages; by default that of `omega`.

    Raises
    ------
    TypeError, ValueError
        If `omega` is not such a function; the message says where it fails.

    Notes
    -----
    Minimisers are searched globally, on a grid with 16 points a decade of z − 1 (64 from 0.01 to 1000). Whether the
    effective penalty is convex is decided by secants of ω(√t) on a grid, see `is_convex`.

    Examples
    --------
    >>> from lowrank_tangent.penalties import CustomPenalty
    >>> penalty = CustomPenalty(lambda z: (z - 1) ** 2 + (z - 1) ** 4, name="quartic")
    >>> penalty.is_convex, round(float(penalty.effective(2.0)), 6)
    (True, 2.051483)
    """

    def __init__(self, omega, derivative=None, name=None):
        if not callable(omega):
            raise TypeError(f"omega must be a function of the stretch z; got {omega!r}.")
        if derivative is not None and not callable(derivative):
            raise TypeError(f"derivative must be a function of the stretch z or None; got {derivative!r}.")
        self.omega = omega
        self.derivative_of_omega = derivative
        self.name = name or getattr(omega, "__name__", type(omega).__name__)
        _check_price(self)

    def value(self, z):
        """ω(z); what rounding makes of it near z = 1 must not be negative."""
        return np.maximum(_call(self.omega, stretches(z), "omega"), 0.0)

    def slope(self, z):
        """ω'(z), by differences where no derivative was given."""
        z = stretches(z)
        if self.derivative_of_omega is not None:
            return _call(self.derivative_of_omega, z, "derivative")
        with np.errstate(invalid="ignore", over="ignore"):
            return difference_quotient(self.value, np.where(z == 1.0, _BESIDE_ONE, z), self._end)

    def __repr__(self):
        return f"CustomPenalty({self.name})"


def _call(function, z, name):
    """Values of a user's function of arrays or of numbers, as a float array of the shape of z."""
    with np.errstate(over="ignore"):
        try:
            values = np.asarray(function(z))
            vectorised = values.shape == z.shape
        except (TypeError, ValueError):
            vectorised = False
        if not vectorised:
            values = np.vectorize(_one_number(function), otypes=[object])(z)
    flat = values.ravel()
    if values.dtype.kind not in "fiub" and not all(isinstance(value, Real) for value in flat):
        raise TypeError(f"{name} must return real numbers; got {flat[:3].tolist()}.")
    return values.astype(np.float64)


def _one_number(function):
    def call(z):
        try:
            return function(float(z))
        except OverflowError:
            return np.inf

    return call


def _check_price(penalty):
    values = _call(penalty.omega, _CHECKED, "omega")
    at = f"{penalty!r}: omega(z)"
    if np.isnan(values).any():
        raise ValueError(
            f"{at} is NaN at z = {_CHECKED[np.isnan(values)][0]:.6g}; it must be a number for every z > 0."
        )
    at_one = float(penalty.value(np.ones(1))[0])
    if not abs(at_one) <= 1e-12:
        raise ValueError(f"{at} must be 0 at z = 1, where features stay as they are; got {at_one:.6g}.")
    for side, direction in ((_CHECKED >= 1.0, 1), (_CHECKED <= 1.0, -1)):
        z, price = _CHECKED[side][::direction], values[side][::direction]
        finite = int(np.argmax(~np.isfinite(price))) if not np.isfinite(price).all() else len(price)
        if finite < 2 or not np.all(price[finite:] == np.inf):
            raise ValueError(f"{at} must be finite near z = 1 and not be infinite in between; see z = {z[finite]:.6g}.")
        flat = np.flatnonzero(np.diff(price[:finite]) <= 0.0)
        if len(flat):
            i = flat[0]
            raise ValueError(
                f"{at} must increase strictly away from z = 1 (strictly quasi-convex), but it is {price[i]:.6g} at "
                f"z = {z[i]:.6g} and {price[i + 1]:.6g} at z = {z[i + 1]:.6g}. Write |z - 1| for z - 1 if it is meant."
            )
        _check_continuity(penalty, z[:finite], price[:finite])
    if penalty.derivative_of_omega is not None:
        _check_derivative(penalty)


def _check_continuity(penalty, z, price):
    """Halve every interval around its steepest part: the rise of a continuous function vanishes, a jump remains."""
    low, high, at_low, at_high = z[:-1], z[1:], price[:-1], price[1:]
    rises = {}
    for halving in range(1, _HALVINGS[1] + 1):
        middle = 0.5 * (low + high)
        at_middle = penalty.value(middle)
        left = at_middle - at_low >= at_high - at_middle
        low, high = np.where(left, low, middle), np.where(left, middle, high)
        at_low, at_high = np.where(left, at_low, at_middle), np.where(left, at_middle, at_high)
        rises[halving] = at_high - at_low
    early, late = (rises[halving] for halving in _HALVINGS)
    jumps = (late > _JUMP_REMAINS * early) & (late > 1e-9 * np.abs(at_high))
    if jumps.any():
        i = int(np.argmax(jumps))
        raise ValueError(
            f"{penalty!r}: omega(z) must be continuous, but it jumps from {at_low[i]:.6g} to {at_high[i]:.6g} at "
            f"z = {high[i]:.6g}."
        )


def _check_derivative(penalty):
    z = 1.0 + _EXCESS[_EXCESS < 1e3]
    z = z[np.isfinite(penalty.value(1.01 * z))]
    given = _call(penalty.derivative_of_omega, z, "derivative")
    differences = difference_quotient(penalty.value, z)
    wrong = ~(np.abs(given - differences) <= _SLOPE_TOL * np.abs(differences))
    if wrong.sum() > _KINKS or not np.isfinite(given).all():
        i = int(np.argmax(wrong | ~np.isfinite(given)))
        raise ValueError(
            f"{penalty!r}: derivative(z) is {given[i]:.6g} at z = {z[i]:.6g}, where differences of omega give "
            f"{differences[i]:.6g}."
        )
