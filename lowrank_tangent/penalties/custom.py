"""A penalty from a user's own price of a stretch."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from .._types import Array, ArrayLike
from ._search import difference_quotient
from .spectral import SpectralPenalty, stretches

#: Distances z − 1 at which a price is checked, sixteen points a decade, as far as rounding spoils nothing.
_EXCESS = np.logspace(-3, 6, 9 * 16 + 1)
_CHECKED = np.append(1.0, 1.0 + _EXCESS)
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
        Price of a stretch z ≥ 1, vectorised or of one number. Continuous, 0 at z = 1 and strictly increasing; it may
        become +inf far out. It is never called with z < 1: there its mirror image ω(2 − z) stands in, which no
        optimal transform uses.
    derivative : callable, optional
        Its derivative, for z ≥ 1; without it, differences of fourth order stand in.
    name : str, optional
        Shown in messages; by default that of `omega`.
    convex : bool, optional
        Whether the effective penalty is convex, where it is known; by default it is found out, see `is_convex`. A
        wrong True makes no wrong bound: the duality gap stays open.

    Raises
    ------
    TypeError, ValueError
        If `omega` is not such a function; the message says where it fails.

    Notes
    -----
    Minimisers are searched globally, on a grid with 16 points a decade of z − 1 (64 from 0.01 to 1000); maxima, for
    the conjugate, on one with up to 1024, and more where the price bends faster.

    Examples
    --------
    >>> from lowrank_tangent.penalties import CustomPenalty
    >>> penalty = CustomPenalty(lambda z: (z - 1) ** 2 + (z - 1) ** 4, name="quartic")
    >>> penalty.is_convex, round(float(penalty.effective(2.0)), 6)
    (True, 2.051483)
    """

    def __init__(
        self,
        omega: Callable[[Any], Any],
        derivative: Callable[[Any], Any] | None = None,
        name: str | None = None,
        convex: bool | None = None,
    ) -> None:
        if not callable(omega):
            raise TypeError(f"omega must be a function of the stretch z; got {omega!r}.")
        if derivative is not None and not callable(derivative):
            raise TypeError(f"derivative must be a function of the stretch z or None; got {derivative!r}.")
        if convex is not None and not isinstance(convex, (bool, np.bool_)):
            raise TypeError(f"convex must be True, False or None; got {convex!r}.")
        self.omega = omega
        self.derivative_of_omega = derivative
        self.name = name or getattr(omega, "__name__", type(omega).__name__)
        self.convex = convex
        _check_price(self)

    @property
    def is_convex(self) -> bool:
        """Whether the effective penalty is convex: as given, or by the secants of ω(√t) on a fine grid."""
        return super().is_convex if self.convex is None else bool(self.convex)

    def value(self, z: ArrayLike) -> Array:
        """ω(z), mirrored at z = 1; what rounding makes of it near z = 1 must not be negative."""
        return np.maximum(_call(self.omega, _mirrored(stretches(z)), "omega"), 0.0)

    def slope(self, z: ArrayLike) -> Array:
        """ω'(z), by differences where no derivative was given."""
        z = stretches(z)
        mirrored = _mirrored(z)
        if self.derivative_of_omega is not None:
            slope = _call(self.derivative_of_omega, mirrored, "derivative")
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                slope = difference_quotient(self.value, np.where(z == 1.0, _BESIDE_ONE, mirrored), self._end)
        return np.where(z < 1.0, -slope, slope)

    def __repr__(self) -> str:
        return f"CustomPenalty({self.name})"

    def _parameters(self) -> dict[str, Any]:
        # The name `derivative` belongs to the derivative of the effective penalty.
        return {
            "omega": self.omega,
            "derivative": self.derivative_of_omega,
            "name": self.name,
            "convex": self.convex,
        }


def _mirrored(z: Array) -> Array:
    return np.where(z < 1.0, 2.0 - z, z)


def _call(function: Callable[[Any], Any], z: Array, name: str) -> Array:
    """Values of a user's function of arrays or of numbers, as a float array of the shape of z."""
    with np.errstate(over="ignore", divide="ignore"):
        try:
            values = np.asarray(function(z))
            vectorised = values.shape == z.shape
        except (TypeError, ValueError, OverflowError):  # of a function of numbers; of one entry in old NumPy
            vectorised = False
        if not vectorised:
            values = np.vectorize(_one_number(function), otypes=[object])(z)
    flat = values.ravel()
    if values.dtype.kind not in "fiub" and not all(isinstance(value, Real) for value in flat):
        raise TypeError(f"{name} must return real numbers; got {flat[:3].tolist()}.")
    return values.astype(np.float64)


def _one_number(function: Callable[[float], Any]) -> Callable[[float], Any]:
    def call(z: float) -> Any:
        try:
            return function(float(z))
        except OverflowError:
            return np.inf

    return call


def _check_price(penalty: CustomPenalty) -> None:
    z, price = _CHECKED, _call(penalty.omega, _CHECKED, "omega")
    at = f"{penalty!r}: omega(z)"
    if np.isnan(price).any():
        raise ValueError(f"{at} is NaN at z = {z[np.isnan(price)][0]:.6g}; it must be a number for every z >= 1.")
    if not abs(price[0]) <= 1e-12:
        raise ValueError(f"{at} must be 0 at z = 1, where features stay as they are; got {price[0]:.6g}.")
    finite = int(np.argmax(~np.isfinite(price))) if not np.isfinite(price).all() else len(price)
    if finite < 2 or not np.all(price[finite:] == np.inf):
        raise ValueError(f"{at} must be finite near z = 1 and not be infinite in between; see z = {z[finite]:.6g}.")
    flat = np.flatnonzero(np.diff(price[:finite]) <= 0.0)
    if len(flat):
        i = flat[0]
        raise ValueError(
            f"{at} must increase strictly away from z = 1 (z >= 1), but it is {price[i]:.6g} at z = {z[i]:.6g} "
            f"and {price[i + 1]:.6g} at z = {z[i + 1]:.6g}."
        )
    _check_continuity(penalty, z[:finite], price[:finite])
    if penalty.derivative_of_omega is not None:
        _check_derivative(penalty, penalty.derivative_of_omega)


def _check_continuity(penalty: CustomPenalty, z: Array, price: Array) -> None:
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


def _check_derivative(penalty: CustomPenalty, derivative: Callable[[Any], Any]) -> None:
    z = 1.0 + _EXCESS[_EXCESS < 1e3]
    z = z[np.isfinite(penalty.value(1.01 * z))]
    given = _call(derivative, z, "derivative")
    differences = difference_quotient(penalty.value, z)
    wrong = ~(np.abs(given - differences) <= _SLOPE_TOL * np.abs(differences))
    if wrong.sum() > _KINKS or not np.isfinite(given).all():
        i = int(np.argmax(wrong | ~np.isfinite(given)))
        raise ValueError(
            f"{penalty!r}: derivative(z) is {given[i]:.6g} at z = {z[i]:.6g}, where differences of omega give "
            f"{differences[i]:.6g}."
        )
