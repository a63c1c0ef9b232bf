"""Step length along a direction, of everything that lowers the primal objective by line searches."""

from __future__ import annotations

import math

import numpy as np

from ._point import PenaltyLine

#: Armijo's constant: the share of the linear gain that a step has to realise.
_ARMIJO = 1e-4
#: A step length will do where the slope has fallen to this share, or where it is known to this relative accuracy.
_FLAT = 0.1
_SHORTEST_INTERVAL = 1e-3
#: The next trial point is between these shares of the interval: the model errs on the short side.
_SHORTEST, _LONGEST = 0.3, 0.9
_EPS = np.finfo(float).eps


def step_length(point, change, prediction, descent):
    """A length t ≤ 1 near the minimum of the objective at B + t dB; None if rounding hides it.

    Trial points cost the eigenvalues of a matrix on the smaller side but no product with A or B, so a good length is
    cheaper than another direction. Between them the objective is taken for the cubic through the last two, with the
    slope that it begins with. Decreases are summed from differences: where the loss dwarfs the penalty, that of two
    objectives would be rounding.

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
    low, high, length = 0.0, 1.0, 1.0
    best, least, last = None, 0.0, None
    while high - low > _SHORTEST_INTERVAL * high:
        loss = point.problem.loss.at(point.problem.target, point.prediction + length * prediction)
        terms = (-length * linear, point.loss.divergence(loss), line.at(length), -point.penalty)
        gain = float(sum(terms) / descent)
        slope, bottom, last = _model(length, gain, last)
        if gain <= -_ARMIJO * length:
            if gain < least:
                best, least = length, gain
            if abs(slope) <= _FLAT or (length == 1.0 and slope < 0.0):
                break
        elif length * descent <= 8 * _EPS * max(abs(term) for term in terms):
            break
        low, high = (low, length) if slope > 0.0 else (length, high)
        length = min(max(bottom, low + _SHORTEST * (high - low)), low + _LONGEST * (high - low))
    return best


def _model(length, gain, last):
    """Slope at a trial point and place of the minimum, of the cubic through it and the last one; and it for the next.

    In units of the descent the objective is −t + a t² + b t³; a + b t is known at two points, and b = 0 at the first.
    """
    bend = (gain / length + 1.0) / length
    b = 0.0 if last is None else (bend - last[1]) / (length - last[0])
    a = bend - b * length
    slope = (2.0 * a + 3.0 * b * length) * length - 1.0
    inside = a**2 + 3.0 * b
    root = a + math.sqrt(inside) if inside > 0.0 else 0.0
    return slope, (1.0 / root if root > 0.0 else 0.5 * length), (length, bend)
