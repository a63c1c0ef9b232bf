"""Scalar kernels over singular values.

The named prices are ω(z) = k·(w − 1)^p and k·(w² − 1 − 2 ln w) for a stretch z = w^k that k = 1 or 2 sides share
equally. In W = w (power) or W = w² (KL), with x = W − 1 and c = 2τ (c = 0 for the stretch itself), all of them have
a stationarity condition of one form,

    a ln x + 2 ln(W^m + c) − e ln W + offset = 2 ln s,            z² = W^m.

It is solved in y = ln x, where its terms are logarithms: nothing overflows or loses digits from 1e-300 to 1e150. The
left side increases in y whenever the effective penalty is convex (a ≥ e), so that there is one root. Otherwise it may
fall in between, on one interval, and the smaller and the larger root compete for the minimum.
"""

from __future__ import annotations

import math

import numpy as np

from ..linalg.jit import compiled

#: A root is accepted when the step in y, or the value relative to the terms that cancel in it, is below this: two
#: units in the last place of 1.
_ROOT_TOL = 4.4e-16
#: Enough for bisection alone to exhaust a bracket, should Newton's method never be accepted.
_MAX_STEPS = 200
#: Below this, w − ln(1 + w) comes from its series; ten terms are exact to rounding there.
_SERIES_BELOW = 0.02
#: exp(y) is finite up to here; no root lies beyond.
_LARGEST_Y = 700.0
#: Stretches that differ less than this (relatively) take the mean slope as their difference quotient: the
#: quotient would lose more digits to cancellation than the mean slope lacks.
_TIE = 1e-5
#: The difference of two points that differ less than this (relatively) is rounding, and their order may be wrong. Near
#: the end of a conjugate's domain, their stretches may differ by a factor all the same. The quotient then lies between
#: two slopes that are far apart; the geometric mean of these slopes has its order of magnitude.
_LOST = 1e-13


@compiled()
def condition(power, sides):
    """(a, m, e, offset) of the price k (w − 1)^p, or of KL for power = 0; k = sides."""
    if power == 0.0:
        return 1.0, float(sides), float(sides), 0.0
    return power - 1.0, 2.0 * sides, 2.0 * sides - 1.0, math.log(0.5 * power)


@compiled()
def _log_sum(a, b):
    """ln(eᵃ + eᵇ)."""
    high = max(a, b)
    return high + math.log1p(math.exp(min(a, b) - high))


@compiled()
def _root(target, a, m, e, log_c, low, high, start):
    """Root x of a ln x + 2 ln(W^m + c) − e ln W = target with low ≤ ln x ≤ high, where the left side increases."""
    y = min(max(start, low), high)
    stride = 1.0
    for _ in range(_MAX_STEPS):
        x = math.exp(min(y, _LARGEST_Y))
        log_w = math.log1p(x)
        total = _log_sum(m * log_w, log_c)
        f = a * y + 2.0 * total - e * log_w - target
        slope = a + x / (1.0 + x) * (2.0 * m * math.exp(m * log_w - total) - e)
        if f > 0.0:
            high = y
        else:
            low = y
        new = y - f / slope if slope > 0.0 else math.nan
        if not low <= new <= high:
            # Newton left the bracket: halve it, or widen it where one side is still open.
            if low == -math.inf:
                new = high - stride
            elif high == math.inf:
                new = low + stride
            else:
                new = 0.5 * (low + high)
            stride *= 2.0
        terms = a * abs(y) + 2.0 * abs(total) + e * log_w + abs(target)
        done = abs(f) <= _ROOT_TOL * terms or abs(new - y) <= _ROOT_TOL * max(1.0, abs(y))
        y = new
        if done:
            break
    return math.exp(min(y, _LARGEST_Y))


@compiled()
def _falling(a, m, e, log_c):
    """Interval of ln W on which the condition's left side falls; empty (0, 0) if it increases throughout.

    It falls where (1 − 1/W)(e − 2m q) > a with q = W^m / (W^m + c): a log-concave function of ln W, hence on one
    interval around its maximum.
    """
    if a >= e or log_c <= math.log(2.0 * m / e - 1.0):
        return 0.0, 0.0
    end = (log_c - math.log(2.0 * m / e - 1.0)) / m
    low, top = 0.0, end
    for _ in range(_MAX_STEPS):
        middle = 0.5 * (low + top)
        if middle in (low, top):
            break
        q = 1.0 / (1.0 + math.exp(log_c - m * middle))
        if 1.0 / math.expm1(middle) > 2.0 * m * m * q * (1.0 - q) / (e - 2.0 * m * q):
            low = middle
        else:
            top = middle
    if _fall(low, a, m, e, log_c) <= 0.0:
        return 0.0, 0.0
    return _crossing(0.0, low, a, m, e, log_c), _crossing(end, low, a, m, e, log_c)


@compiled()
def _fall(log_w, a, m, e, log_c):
    """Minus the derivative of the condition's left side with respect to y."""
    return -math.expm1(-log_w) * (e - 2.0 * m / (1.0 + math.exp(log_c - m * log_w))) - a


@compiled()
def _crossing(outside, inside, a, m, e, log_c):
    """Where the left side turns between a point outside of its falling part and one inside."""
    for _ in range(_MAX_STEPS):
        middle = 0.5 * (outside + inside)
        if middle in (outside, inside):
            break
        if _fall(middle, a, m, e, log_c) > 0.0:
            inside = middle
        else:
            outside = middle
    return outside


@compiled()
def _price(x, power, sides):
    """Price ω at W = 1 + x."""
    if power == 0.0:
        return sides * (x - math.log1p(x))
    return sides * x**power


@compiled()
def stretch(v, power, sides, out):
    """Excess x = W − 1 at which ω(z) + v²/z² is smallest: the condition's root for c = 0, where it increases."""
    a, m, e, offset = condition(power, sides)
    for i in range(v.size):
        if v[i] == 0.0:
            out[i] = 0.0
            continue
        target = 2.0 * math.log(v[i]) - offset
        if a == 0.0:
            out[i] = math.expm1(max(target, 0.0) / (2.0 * m - e))
            continue
        # Of a convex function; from this start, to the right of its root, Newton's method descends to it.
        start = min(target / a, target / (a + 2.0 * m - e))
        out[i] = _root(target, a, m, e, -math.inf, -math.inf, math.inf, start)


@compiled()
def dual_stretch(u, power, sides, out):
    """Excess x = W − 1 at which z²u²/4 − ω(z) is largest, for a > e: the condition without its first logarithm."""
    a, _, e, offset = condition(power, sides)
    for i in range(u.size):
        if u[i] == 0.0:
            out[i] = 0.0
            continue
        target = 2.0 * math.log(0.5 * u[i]) - offset
        start = max(target / a, target / (a - e))
        out[i] = _root(target, a, 0.0, e, -math.inf, -math.inf, math.inf, start)


@compiled()
def shrink(s, tau, power, sides, out):
    """Proximal map s ↦ s z² / (z² + 2τ), with z the global minimiser of ω(z) + s² / (z² + 2τ)."""
    a, m, e, offset = condition(power, sides)
    last_tau, first, second, at_first, at_second, log_c = math.nan, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(s.size):
        if s[i] == 0.0:
            out[i] = 0.0
            continue
        c = 2.0 * tau[i]
        if tau[i] != last_tau:
            last_tau = tau[i]
            log_c = math.log(c)
            first, second = _falling(a, m, e, log_c)
            if second > 0.0:
                at_second = a * _log_expm1(second) + 2.0 * _log_sum(m * second, log_c) - e * second
                at_first = 2.0 * math.log1p(c)
                if first > 0.0:
                    at_first = a * _log_expm1(first) + 2.0 * _log_sum(m * first, log_c) - e * first
        target = 2.0 * math.log(s[i]) - offset
        far = target / (a + 2.0 * m - e)
        x = 0.0
        if second > 0.0 and target >= at_second:
            x = _root(target, a, m, e, log_c, _log_expm1(second), math.inf, far)
        if second == 0.0 or target <= at_first:
            left = 0.0
            if a > 0.0:
                high = _log_expm1(first) if second > 0.0 else math.inf
                left = _root(target, a, m, e, log_c, -math.inf, high, min((target - 2.0 * math.log1p(c)) / a, far))
            elif second == 0.0 and target > 2.0 * math.log1p(c):
                left = _root(target, a, m, e, log_c, -math.inf, math.inf, far)
            if x == 0.0:
                x = left
            else:
                square, square_left = math.exp(m * math.log1p(x)), math.exp(m * math.log1p(left))
                gain = (s[i] / (square_left + c)) * (s[i] / (square + c)) * (square - square_left)
                if gain < _price(x, power, sides) - _price(left, power, sides):
                    x = left
        square = math.exp(m * math.log1p(x))
        out[i] = s[i] * (square / (square + c))


@compiled()
def _log_expm1(t):
    """ln(eᵗ − 1)."""
    return math.log(math.expm1(t)) if t < 1.0 else t + math.log(-math.expm1(-t))


@compiled()
def schatten_shrink(s, tau, q, out):
    """Proximal map of (2/q) v^q for q ≠ 1: the largest root of v + 2τ v^(q−1) = s, or 0 where that is lower."""
    for i in range(s.size):
        out[i] = 0.0
        if s[i] == 0.0:
            continue
        log_weight, target = math.log(2.0 * tau[i]), math.log(s[i])
        if q > 1.0:
            y = min(target, (target - log_weight) / (q - 1.0))
        else:
            y = (log_weight + math.log(1.0 - q)) / (2.0 - q)
            if _log_sum(y, log_weight + (q - 1.0) * y) > target:
                continue
            y = target
        # The logarithm of the left side is convex in ln v and the start lies right of the root.
        for _ in range(_MAX_STEPS):
            total = _log_sum(y, log_weight + (q - 1.0) * y)
            share = math.exp(y - total)
            step = (total - target) / (share + (q - 1.0) * (1.0 - share))
            if not abs(step) > _ROOT_TOL * max(1.0, abs(y)):
                break
            y -= step
        v = math.exp(y)
        # v is a minimum of ½v² − sv + τ(2/q)v^q; with its condition, compared to 0 at v = 0.
        if q > 1.0 or v * (1.0 - 2.0 / q) / 2.0 <= s[i] * (1.0 - 1.0 / q):
            out[i] = v


@compiled()
def kl_value(z, out):
    """z² − 1 − 2 ln z without cancellation near z = 1."""
    for i in range(z.size):
        w = (z[i] - 1.0) * (z[i] + 1.0)
        if abs(w) < _SERIES_BELOW:
            total = 0.0
            power = w
            for k in range(2, 12):
                power *= -w
                total -= power / k
            out[i] = total
        else:
            out[i] = w - 2.0 * math.log(z[i])


@compiled()
def divided_differences(points, values, slopes):
    """Matrix of (values_i − values_j) / (points_i − points_j), the slope where two points agree.

    The values are to be monotone in the points.
    """
    n = points.size
    out = np.empty((n, n))
    for i in range(n):
        out[i, i] = slopes[i]
        for j in range(i):
            rise = values[i] - values[j]
            run = points[i] - points[j]
            falls = (rise < 0.0) != (run < 0.0)
            if abs(rise) <= _TIE * max(abs(values[i]), abs(values[j])):
                quotient = 0.5 * (slopes[i] + slopes[j])
            elif abs(run) <= _LOST * max(abs(points[i]), abs(points[j])) or falls != (slopes[i] < 0.0):
                quotient = math.copysign(math.sqrt(abs(slopes[i])) * math.sqrt(abs(slopes[j])), slopes[i])
            else:
                quotient = rise / run
            out[i, j] = quotient
            out[j, i] = quotient
    return out
