"""Step length along a direction, of everything that lowers the primal objective by line searches."""

from __future__ import annotations

import numpy as np

from ._point import PenaltyLine

#: Armijo's constant: the share of the linear gain that a step has to realise.
_ARMIJO = 1e-4
#: A step length will do where the slope has fallen to this share, or where it is known to this relative accuracy.
_FLAT = 0.05
_SHORTEST_INTERVAL = 1e-3
_EPS = np.finfo(float).eps


def step_length(point, change, prediction, descent):
    """A length t ≤ 1 near the minimum of the objective at B + t dB; None if rounding hides it.

    Trial points cost an eigenvalue decomposition but no product with A or B, so a good length is cheaper than another
    direction. Decreases are summed from differences: where the loss dwarfs the penalty, that of two objectives would be
    rounding.

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
    line, linear = PenaltyLine(point, change), np.vdot(point.residual, prediction)
    low, high, length = 0.0, 1.0, 1.0
    best = None
    while high - low > _SHORTEST_INTERVAL * high:
        penalty, slope = line.at(length)
        loss = point.problem.loss.at(point.problem.target, point.prediction + length * prediction)
        terms = (-length * linear, point.loss.divergence(loss), penalty, -point.penalty)
        slope -= np.vdot(loss.residual, prediction)
        if sum(terms) <= -_ARMIJO * length * descent:
            best = length
            if abs(slope) <= _FLAT * abs(descent) or (length == 1.0 and slope < 0.0):
                break
        elif length * descent <= 8 * _EPS * max(abs(term) for term in terms):
            break
        low, high = (low, length) if slope > 0.0 else (length, high)
        length = 0.5 * (low + high)
    return best
