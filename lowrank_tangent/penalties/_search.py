"""Global minimisation of functions of one variable, many at a time, where no formula is known.

Each function is known on a grid; every local minimum of the grid is refined, and the lowest of them is the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .._types import Array

#: Stretches z − 1 from rounding to far beyond any use, sixteen points a decade; 64 where prices have their shape, so
#: that local minima 10 % apart are told from each other.
STRETCHES = 1.0 + np.unique(np.concatenate([[0.0], np.logspace(-15, 12, 27 * 16 + 1), np.logspace(-2, 3, 5 * 64 + 1)]))
#: Golden-section steps that narrow a bracket to the square root of rounding. A minimum is that flat, so that values
#: say no more; slopes do, within this distance, and are believed where no value contradicts them beyond rounding.
_GOLDEN_STEPS = 40
_FLAT = 1e-6
_ROUNDING = 2e-15
#: Halvings that exhaust a bracket between neighbours of the grid.
_HALVINGS = 55
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
#: Functions that are searched at once, which bounds the memory of the table of their values.
_CHUNK = 4096
#: Step of the differences that stand in for derivatives, relative to the distance from z = 1 and from the end. They are
#: of fourth order, so that their error and what rounding makes of them are both near 1e-12.
_STEP = 1e-3


def minimise(
    count: int,
    function: Callable[[Array, Array], Array],
    grid: Array,
    table: Callable[[Array], Array],
    slope: Callable[[Array, Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Minimiser and minimum of many functions of one variable.

    Parameters
    ----------
    count : int
        Number of functions.
    function : callable
        ``function(rows, x)``: values of the functions `rows` at `x`, both of shape (j,).
    grid : ndarray of shape (G,)
        Increasing points.
    table : callable
        ``table(rows)``: values of the functions `rows` on the grid, shape (j, G).
    slope : callable, optional
        Derivative, called like `function`; without it minimisers are exact to the square root of rounding only.

    Returns
    -------
    x, value : ndarray of shape (count,)
        x is the end of the grid for a function that still falls there, and its start for one that is infinite.
    """
    x, value = np.full(count, grid[0]), np.full(count, np.inf)
    for start in range(0, count, _CHUNK):
        chunk = np.arange(start, min(start + _CHUNK, count))
        values = table(chunk)
        padded = np.pad(values, ((0, 0), (1, 1)), constant_values=np.inf)
        row, point = np.nonzero((values <= padded[:, :-2]) & (values <= padded[:, 2:]) & np.isfinite(values))
        low, high = grid[np.maximum(point - 1, 0)], grid[np.minimum(point + 1, len(grid) - 1)]
        rows = chunk[row]
        found = golden_section(functools.partial(function, rows), low, high)
        reached = function(rows, found)
        # A kink or an end of the grid may beat the point that was found between its neighbours.
        found, reached = _better(grid[point], values[row, point], found, reached)
        if slope is not None:
            reach = _FLAT * np.abs(found)
            polished = increasing_root(
                functools.partial(slope, rows), np.maximum(found - reach, low), np.minimum(found + reach, high)
            )
            found, reached = _better(polished, function(rows, polished) - _ROUNDING * np.abs(reached), found, reached)
        order = np.lexsort((reached, row))
        known, first = np.unique(rows[order], return_index=True)
        x[known], value[known] = found[order][first], reached[order][first]
    return x, value


def _better(x: Array, value: Array, other: Array, other_value: Array) -> tuple[Array, Array]:
    """The point with the lower value, and that value."""
    keep = value <= other_value
    return np.where(keep, x, other), np.where(keep, value, other_value)


def golden_section(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Minimisers of functions with one minimum between `low` and `high`, arrays of the shape that `function` takes."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_GOLDEN_STEPS):
        keep_left = at_left <= at_right
        low, high = np.where(keep_left, low, left), np.where(keep_left, right, high)
        probe = np.where(keep_left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_probe = function(probe)
        left, right = np.where(keep_left, probe, right), np.where(keep_left, left, probe)
        at_left, at_right = np.where(keep_left, at_probe, at_right), np.where(keep_left, at_left, at_probe)
    return np.where(at_left <= at_right, left, right)


def increasing_root(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where functions turn from negative to positive between `low` and `high`; the nearer end where they do not."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        above = function(middle) > 0.0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high


def difference_quotient(function: Callable[[Array], Array], z: Array, end: float = np.inf) -> Array:
    """Derivative of a function of z ≠ 1 by differences of fourth order that reach neither z = 1 nor its `end`."""
    step = _STEP * np.minimum(np.abs(z - 1.0), end - z)
    # Steps that are exact in floating point: dividing by what was really added.
    step = np.maximum((z + step) - z, np.spacing(z))
    near = (function(z + step) - function(z - step)) / (2.0 * step)
    far = (function(z + 2.0 * step) - function(z - 2.0 * step)) / (4.0 * step)
    return (4.0 * near - far) / 3.0
