"""The price of a penalty on a fine grid of stretches, and minima over it by brute force."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .._types import Array, ArrayLike
from ..penalties import SpectralPenalty
from .findings import skip

#: Stretches of the coarse grid, as z − 1 for penalties that stretch and as z for others; points a decade.
_DECADES = -12, 9
_POINTS = 100
#: The grid is made this much finer around its best points, so often.
_CANDIDATES, _REFINEMENTS, _FINER = 4, 3, 41
#: Halvings that find where a price ends.
_HALVINGS = 60


class Prices:
    """The price of a penalty on a grid, and minima over it."""

    def __init__(self, penalty: SpectralPenalty) -> None:
        self.penalty = penalty

    def convex(self) -> None:
        """Leave out a check that is for convex penalties."""
        if not self.penalty.is_convex:
            skip("for convex penalties")

    @functools.cached_property
    def grid(self) -> Array:
        """Parameters x of stretches: z = 1 + x for penalties that stretch, z = x for others."""
        low, high = _DECADES
        grid = np.logspace(low, high, (high - low) * _POINTS + 1)
        if self.penalty.is_smooth:
            grid = np.concatenate([[0.0], grid])
        infinite = ~np.isfinite(self.price(grid))
        if not infinite.any() or infinite[0]:
            return grid
        inside, outside = grid[np.argmax(infinite) - 1], grid[np.argmax(infinite)]
        for _ in range(_HALVINGS):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if np.isfinite(self.price(middle)) else (inside, middle)
        return np.union1d(grid, [inside])

    def z(self, x: ArrayLike) -> Array:
        """The stretch of a parameter."""
        return np.asarray(x) + (1.0 if self.penalty.is_smooth else 0.0)

    def price(self, x: ArrayLike) -> Array:
        """ω at parameters of any shape."""
        with np.errstate(over="ignore"):
            return np.asarray(self.penalty.value(self.z(x)), dtype=np.float64)

    @functools.cached_property
    def prices(self) -> Array:
        """ω on the grid."""
        return self.price(self.grid)

    @functools.cached_property
    def end(self) -> float:
        """The largest stretch with a finite price."""
        return float(self.z(self.grid[np.isfinite(self.prices)][-1]))

    def least(self, excess: Callable[[Array], Array]) -> Array:
        """Minima of ω(z) + e(z) over all stretches, one for each of k functions e.

        Parameters
        ----------
        excess : callable
            Values of e at stretches of shape (k, 1) or (1, m): an array of shape (k, m).
        """
        with np.errstate(over="ignore"):
            values = self.prices + excess(self.z(self.grid)[None])
            padded = np.pad(values, ((0, 0), (1, 1)), constant_values=np.inf)
            minima = np.where((values <= padded[:, :-2]) & (values <= padded[:, 2:]), values, np.inf)
            points = np.argsort(minima, axis=1)[:, :_CANDIDATES]
            lowest: Array = values.min(axis=1)
            low, high = self.grid[np.maximum(points - 1, 0)], self.grid[np.minimum(points + 1, len(self.grid) - 1)]
            for _ in range(_REFINEMENTS):
                x = np.linspace(low, high, _FINER, axis=-1)
                flat = x.reshape(len(x), -1)
                finer = (self.price(flat) + excess(self.z(flat))).reshape(x.shape)
                lowest = np.minimum(lowest, finer.min(axis=(1, 2)))
                best = np.argmin(finer, axis=2)[..., None]
                low = np.take_along_axis(x, np.maximum(best - 1, 0), axis=2)[..., 0]
                high = np.take_along_axis(x, np.minimum(best + 1, _FINER - 1), axis=2)[..., 0]
        return lowest

    def effective(self, v: Array) -> Array:
        """ω̃(v) by brute force, shape (k,)."""
        return self.least(lambda z: (v[:, None] / z) ** 2)
