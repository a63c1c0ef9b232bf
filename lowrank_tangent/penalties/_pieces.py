"""Where t u²/4 − g(t) is largest, with g(t) = ω(√t) the price of a squared stretch t = z², for any price.

A maximum inside is where g is convex. The grid of stretches is cut into pieces on which g is convex; on each of them
there is one local maximum, found by the slopes. The largest of all is the global one. A convex price has one piece.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._types import Array
from ._search import increasing_root

#: Stretches at which the shape of a price with formulas is looked at: sixteen a decade of z − 1.
COARSE = 1.0 + np.append(0.0, np.logspace(-6, 12, 18 * 16 + 1))
#: The same for a price that may have any shape: 1024 a decade where prices mostly bend, 256 around.
FINE = 1.0 + np.concatenate(
    [
        [0.0],
        np.logspace(-6, -3, 3 * 16, endpoint=False),
        np.logspace(-3, -2, 256, endpoint=False),
        np.logspace(-2, 2, 4 * 1024, endpoint=False),
        np.logspace(2, 6, 4 * 256, endpoint=False),
        np.logspace(6, 12, 6 * 16 + 1),
    ]
)
#: Where the slope of g changes by more than this share from one interval to the next, the price may bend faster than
#: the grid. Intervals of up to this share of z − 1 are then cut into so many parts, so often, up to so many points.
_ROUGH = 0.1
_NEAR = 0.02
_PARTS = 8
_ROUNDS = 2
_MOST = 50_000
#: The last interval before the end of a price is at least this part of the way there.
_APART = 1.0 - 1e-6
#: Fall of a slope that is taken for rounding: relative, and what an error of so many units in the last place of 1 + ω
#: makes of it.
_SLACK = 1e-7
_UNITS = 8.0 * np.finfo(float).eps
#: Values that differ less than this, relative to their terms, are equal: the root of the slope is then more exact.
_TIE = 2e-15


class ConvexPieces:
    """The pieces on which the price of a squared stretch is convex.

    Parameters
    ----------
    value : callable
        ω(z) for an array of stretches z ≥ 1.
    end : float
        The largest stretch with a finite price, +inf for a price that never ends.
    grid : ndarray of shape (G,)
        Stretches to begin with, from 1 on: `COARSE` or `FINE`.
    """

    def __init__(self, value: Callable[[Array], Array], end: float, grid: Array) -> None:
        self._z, self._price = _refined(value, end, grid)
        square = self._z**2
        secants = np.diff(self._price) / np.diff(square)
        slack = _SLACK * np.abs(secants) + _UNITS * (1.0 + self._price[1:]) / np.diff(square)
        bent = secants[1:] >= secants[:-1] - slack[1:] - slack[:-1]
        # Points of the grid around which g is convex; at both ends there may be a maximum too.
        convex = np.concatenate([[True], bent, [True]])
        starts = np.flatnonzero(convex & ~np.concatenate([[False], convex[:-1]]))
        ends = np.flatnonzero(convex & ~np.concatenate([convex[1:], [False]]))
        self._pieces = [
            (start, np.maximum.accumulate(secants[start:end])) for start, end in zip(starts, ends, strict=True)
        ]
        falls = np.maximum.accumulate(secants - slack)[:-1] > secants[1:] + slack[1:]
        #: Whether g is convex on the whole grid.
        self.is_convex = not bool(falls.any())

    def maximisers(self, u: Array, slope: Callable[[Array], Array], value: Callable[[Array], Array]) -> Array:
        """Stretches z where z² u²/4 − ω(z) is largest, for an array u of shape (k,); `slope` is ω'."""
        best, most = np.ones_like(u), u**2 / 4.0
        for start, secants in self._pieces:
            # Left of the maximum the slope of g is at most u²/4, and right of it at least that.
            point = start + np.searchsorted(secants, u**2 / 4.0)
            low, high = self._z[np.maximum(point - 1, 0)], self._z[np.minimum(point + 1, len(self._z) - 1)]
            root = increasing_root(lambda z: 2.0 * slope(z) - z * u**2, low, high)
            for z, price, tie in ((self._z[point], self._price[point], 0.0), (root, value(root), _TIE)):
                gain, reached = (z * u / 2.0) ** 2, (z * u / 2.0) ** 2 - price
                better = reached > most - tie * (gain + price)
                best, most = np.where(better, z, best), np.where(better, np.maximum(reached, most), most)
        return best


def _refined(value: Callable[[Array], Array], end: float, grid: Array) -> tuple[Array, Array]:
    """Stretches up to the end of a price, more of them where it bends, and their prices."""
    # A secant between points that are next to each other is nothing but rounding.
    z = np.append(grid[grid < 1.0 + _APART * (end - 1.0)], end) if np.isfinite(end) else grid
    price = value(z)
    for _ in range(_ROUNDS):
        secants = np.abs(np.diff(price) / np.diff(z**2))
        fine = np.diff(z) <= _NEAR * (z[1:] - 1.0)
        change = np.abs(np.diff(secants)) > _ROUGH * np.maximum(secants[1:], secants[:-1])
        rough = fine & (np.append(change, False) | np.insert(change, 0, False))
        if not rough.any() or len(z) + (_PARTS - 1) * rough.sum() > _MOST:
            break
        share = np.arange(1, _PARTS) / _PARTS
        new = (z[:-1][rough, None] + np.diff(z)[rough, None] * share).ravel()
        z, price = np.append(z, new), np.append(price, value(new))
        z, first = np.unique(z, return_index=True)
        price = price[first]
    return z, price
