"""The line search of Newton's method and of the descent before it: a step length along a direction."""

from __future__ import annotations

import math

import numpy as np

from ..spectral_point import PenaltyLine

#: Armijo's constant: the share of the linear gain that a step has to realise.
_ARMIJO = 1e-4
#: A step length will do where the slope has fallen to this share, or where it is known to this relative accuracy.
_FLAT = 0.1
_SHORTEST_INTERVAL = 1e-3
#: The next trial point is no nearer to an end of the interval than this share of it.
_INSIDE = 0.15
_EPS = np.finfo(float).eps


def step_length(point, change, prediction, descent):
    """A length t ≤ 1 near the minimum of the objective at B + t dB; None if rounding hides it.

    A trial point costs an eigenvalue decomposition but no product with A or B, so a good length is cheaper than another
    direction. The next trial is the minimum of a cubic between the ends of the interval. Decreases are sums of
    differences, of the loss and of the penalty: the difference of two objectives would be rounding where the loss is
    far larger than the penalty.

    Parameters
    ----------
    point : PrimalPoint
    change : list of ndarray
        dB.
    prediction : ndarray of shape (n, C)
        A dB.
    descent : float
        Minus the derivative of the objective along dB.
    """
    if not descent > 0.0:
        return None
    line, linear = PenaltyLine(point, change), np.vdot(point.residual, prediction)
    # The ends of the interval, as triples: the length t, (objective at t − objective at 0) / descent, slope / descent.
    low, high, length = (0.0, 0.0, -1.0), (1.0, np.inf, np.inf), 1.0
    best = None
    while high[0] - low[0] > _SHORTEST_INTERVAL * high[0]:
        penalty, slope = line.at(length)
        loss = point.problem.loss.at(point.problem.target, point.prediction + length * prediction)
        terms = (-length * linear, point.loss.divergence(loss), penalty, -point.penalty)
        trial = length, sum(terms) / descent, (slope - np.vdot(loss.residual, prediction)) / descent
        if trial[1] <= -_ARMIJO * length:
            best = length
            if abs(trial[2]) <= _FLAT:
                break
        elif length * descent <= 8 * _EPS * max(abs(term) for term in terms):
            break
        if length == 1.0 and not trial[2] > 0.0:  # the minimum is not between
            break
        low, high = (low, trial) if trial[2] > 0.0 else (trial, high)
        length = _between(low, high)
    return best


def _between(low, high):
    """Where the cubic with these values and slopes at the ends of an interval is least, not too near to them."""
    (start, value, slope), (end, end_value, end_slope) = low, high
    width = end - start
    bend = slope + end_slope - 3.0 * (end_value - value) / width
    root = math.hypot(bend, math.sqrt(-slope * end_slope))
    share = 1.0 - (end_slope + root - bend) / (end_slope - slope + 2.0 * root)
    return float(start + width * min(max(share, _INSIDE), 1.0 - _INSIDE))
