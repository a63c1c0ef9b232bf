"""The maximum of a concave function of one variable, below a limit where it may fall to −inf.

Points are told apart by the logarithm of their distance to the limit, as a barrier there may put the maximum very near.
A parabola guesses where the maximum is, halves of the bracket make up for bad guesses, and concavity says when to stop:
the function lies below its secants where these are extended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .._types import Array

#: Relative distance to the limit of the nearest point, and points from 0 to it that the search begins with, ...
_NEAREST = 1e-12
_GRID = np.linspace(0.0, -math.log(_NEAREST), 13).tolist()
#: ... beside a guess and points at this distance on both sides.
_AROUND = 0.05
#: The search ends when no other point can gain more than this share of the value, or with a bracket of this width.
_GAIN = 1e-14
_WIDTH = 1e-8
#: How far a parabola misses the maximum, as a share of the bracket's squared width.
_MISS = 0.1


class _Node(NamedTuple):
    """A point, minus the logarithm of its relative distance to the limit, and the value there."""

    point: float
    x: float
    value: float


def concave_maximum(function: Callable[[Array], Array], limit: float, guess: float) -> tuple[float, float]:
    """Where on [0, limit) a concave function is largest, and that value.

    Parameters
    ----------
    function : callable
        Values at an array of points; finite at 0, maybe −inf further on.
    limit : float ≥ 0
    guess : float ≥ 0
        A point near the maximum.

    Returns
    -------
    point, value : float
    """
    if limit == 0.0:
        return 0.0, float(function(np.zeros(1))[0])
    candidates: list[float] = list(_GRID)
    nodes: list[_Node] = []
    if guess < limit:
        centre = -math.log1p(-guess / limit)
        candidates += [min(max(centre + shift, 0.0), _GRID[-1]) for shift in (-_AROUND, 0.0, _AROUND)]
    while candidates:
        # Next to the limit, points may be the same although their logarithms differ.
        new = {-limit * math.expm1(-x): x for x in candidates}
        values = function(np.array(list(new))).tolist()
        nodes = sorted(nodes + [_Node(*pair, value) for pair, value in zip(new.items(), values, strict=True)])
        best = max(range(len(nodes)), key=lambda i: nodes[i].value)
        low, high = max(best - 1, 0), min(best + 1, len(nodes) - 1)
        gain = max(_upper_bound(nodes, i) for i in range(low, high)) - nodes[best].value
        if gain <= _GAIN * abs(nodes[best].value) or nodes[high].x - nodes[low].x <= _WIDTH:
            break
        known = {node.point for node in nodes[low : high + 1]}
        candidates = _candidates(nodes[low], nodes[best], nodes[high])
        candidates = [x for x in candidates if -limit * math.expm1(-x) not in known]
    return nodes[best].point, nodes[best].value


def _upper_bound(nodes: list[_Node], i: int) -> float:
    """What no value between two neighbours, i and i + 1, exceeds: the secants on both sides, extended."""
    low, high = nodes[i : i + 2]
    width, bounds = high.point - low.point, [math.inf]
    if i > 0:
        bounds.append(low.value + width * max(_slope(nodes[i - 1], low), 0.0))
    if i + 2 < len(nodes) and high.value > -math.inf:
        bounds.append(high.value - width * min(_slope(high, nodes[i + 2]), 0.0))
    return min(bounds)


def _slope(one: _Node, other: _Node) -> float:
    return (other.value - one.value) / (other.point - one.point)


def _candidates(low: _Node, best: _Node, high: _Node) -> list[float]:
    """Halves of both sides of a bracket, and around the vertex of its parabola; none next to points that it has."""
    left, right = best.x - low.x, high.x - best.x
    found = [best.x - 0.5 * left, best.x + 0.5 * right]
    if left > 0.0 and right > 0.0 and high.value > -math.inf:
        rise, fall = (best.value - low.value) / left, (best.value - high.value) / right
        if rise + fall > 0.0:
            vertex = best.x + 0.5 * (rise * right - fall * left) / (rise + fall)
            miss = max(_MISS * min(left + right, 1.0) * (left + right), 0.5 * _WIDTH)
            found += [vertex - miss, vertex, vertex + miss]
    taken = low.x, best.x, high.x
    return [x for x in found if low.x < x < high.x and min(abs(x - other) for other in taken) > 0.1 * _WIDTH]
