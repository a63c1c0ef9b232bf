"""Scalar kernels over singular values: the only numba code of the package.

Every equation for the stretch z > 1 is solved in y = ln(z − 1), where its terms are logarithms: nothing
overflows or loses digits from 1e-300 to 1e150, and Newton's method has an increasing function before it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Newton steps in y agree to this before a root is accepted; two units in the last place of 1.
_ROOT_TOL = 4.4e-16
#: Enough for bisection alone to exhaust the bracket, should Newton's method never be accepted.
_MAX_STEPS = 200
#: Below this, w − ln(1 + w) comes from its series; ten terms are exact to rounding there.
_SERIES_BELOW = 0.02
#: Stretches that differ less than this (relatively) take the mean slope as their difference quotient: the
#: quotient would lose more digits to cancellation than the mean slope lacks.
_TIE = 1e-5


@njit(cache=True)
def power_stretch(v, out):
    """Root of z³(z − 1) = v², z ≥ 1."""
    for i in range(v.size):
        if v[i] == 0.0:
            out[i] = 1.0
            continue
        target = 2.0 * math.log(v[i])
        # ln(x) + 3 ln(1 + x) is convex in y = ln(x) and this start lies right of its root, so Newton's
        # method descends to the root without overshooting.
        y = min(target, 0.25 * target)
        for _ in range(_MAX_STEPS):
            x = math.exp(y)
            step = (y + 3.0 * math.log1p(x) - target) / (1.0 + 3.0 * x / (1.0 + x))
            y -= step
            if abs(step) <= _ROOT_TOL * max(1.0, abs(y)):
                break
        out[i] = 1.0 + math.exp(y)


@njit(cache=True)
def kl_stretch(v, out):
    """Root of z⁴ − z² = v², z ≥ 1, in closed form."""
    for i in range(v.size):
        root = math.hypot(1.0, 2.0 * v[i])
        out[i] = math.sqrt(0.5 + 0.5 * root)


@njit(cache=True)
def kl_value(z, out):
    """z² − 1 − 2 ln z without cancellation near z = 1."""
    for i in range(z.size):
        w = (z[i] - 1.0) * (z[i] + 1.0)
        if w < _SERIES_BELOW:
            total = 0.0
            power = w
            for k in range(2, 12):
                power *= -w
                total -= power / k
            out[i] = total
        else:
            out[i] = w - 2.0 * math.log(z[i])


@njit(cache=True)
def shrink(s, tau, squared, out):
    """Proximal map s ↦ s z² / (z² + 2τ), with z the minimiser of ω(z) + s² / (z² + 2τ).

    With x = z − 1 (power penalty, ``squared`` false) or x = z² − 1 (KL, true) the stationarity condition
    is x (z² + c)² = s² (1 + x) with c = 2τ: one increasing function of ln(x).
    """
    for i in range(s.size):
        c = 2.0 * tau[i]
        if s[i] == 0.0:
            out[i] = 0.0
            continue
        target = 2.0 * math.log(s[i])
        low, high = -math.inf, math.inf
        # The root lies left of the one for c = 0, and near the first term when x is small.
        y = min(target - 2.0 * math.log1p(c), (0.5 if squared else 0.25) * target)
        stride = 1.0
        for _ in range(_MAX_STEPS):
            x = math.exp(min(y, 700.0))
            z2 = 1.0 + x if squared else (1.0 + x) * (1.0 + x)
            growth = x if squared else 2.0 * x * (1.0 + x)
            f = y + 2.0 * math.log(z2 + c) - math.log1p(x) - target
            slope = 1.0 + 2.0 * growth / (z2 + c) - x / (1.0 + x)
            if f > 0.0:
                high = y
            else:
                low = y
            step = f / slope
            new = y - step
            if not low <= new <= high:
                # Newton left the bracket: halve it, or widen it where one side is still open.
                if low == -math.inf:
                    new = high - stride
                elif high == math.inf:
                    new = low + stride
                else:
                    new = 0.5 * (low + high)
                stride *= 2.0
            done = abs(new - y) <= _ROOT_TOL * max(1.0, abs(y))
            y = new
            if done:
                break
        x = math.exp(min(y, 700.0))
        z2 = 1.0 + x if squared else (1.0 + x) * (1.0 + x)
        out[i] = s[i] * (z2 / (z2 + c))


@njit(cache=True)
def divided_differences(points, values, slopes):
    """Matrix of (values_i − values_j) / (points_i − points_j), the slope where two points agree.

    The values are to increase with the points.
    """
    n = points.size
    out = np.empty((n, n))
    for i in range(n):
        out[i, i] = slopes[i]
        for j in range(i):
            rise = values[i] - values[j]
            run = points[i] - points[j]
            if abs(rise) > _TIE * max(abs(values[i]), abs(values[j])) and run != 0.0:
                quotient = rise / run
            else:
                quotient = 0.5 * (slopes[i] + slopes[j])
            out[i, j] = quotient
            out[j, i] = quotient
    return out
