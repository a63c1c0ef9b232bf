"""Scalar kernels for joint prices of two different named prices, in one unknown: what an e-fold of stretch costs.

The named prices are convex functions of l = ln z. Sharing a stretch between two sides costs least where both have the
same marginal price λ = z ω'(z), and both shares increase with λ. Everything is found by bisection in ln λ.
"""

from __future__ import annotations

import math

import numpy as np

from ..linalg.jit import compiled
from ._scalar import _log_sum, _root

#: Halvings that exhaust a bracket in ln λ.
_HALVINGS = 100
#: Points in ln λ between which minima of the proximal problem are told apart, and steps that refine one of them.
_SAMPLES = 64
_GOLDEN_STEPS = 40
_GOLDEN = 0.6180339887498949


@compiled()
def _log_stretch(log_lam, power):
    """l = ln z with z ω'(z) = λ, for the price (z − 1)^p, or KL for power = 0."""
    if power == 0.0:
        return 0.5 * math.log1p(0.5 * math.exp(log_lam))
    if power == 1.0:
        return max(log_lam, 0.0)
    # p x^(p−1) (1 + x) = λ
    target = log_lam - math.log(power)
    start = min(target / (power - 1.0), target / power)
    return math.log1p(_root(target, power - 1.0, 0.0, -1.0, -math.inf, -math.inf, math.inf, start))


@compiled()
def _price(log_z, power):
    """Price of a stretch."""
    if power == 0.0:
        return math.expm1(2.0 * log_z) - 2.0 * log_z
    return math.expm1(log_z) ** power


@compiled()
def _excess(log_lam, weight, target, first, second):
    """weight · ln λ + l1 + l2 − target, which increases in λ."""
    return weight * log_lam + _log_stretch(log_lam, first) + _log_stretch(log_lam, second) - target


@compiled()
def _balance(weight, target, first, second, high):
    """ln λ with weight · ln λ + l1 + l2 = target, from an upper bound."""
    stride = 1.0
    low = high - stride
    while _excess(low, weight, target, first, second) > 0.0:
        stride *= 2.0
        low = high - stride
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if _excess(middle, weight, target, first, second) > 0.0:
            high = middle
        else:
            low = middle
    return high


@compiled()
def split(z, first, second, out):
    """Rows ln z1, ln z2, price and marginal price λ of stretches z."""
    for i in range(z.size):
        target = math.log(z[i])
        if target <= 0.0:
            out[:, i] = 0.0
            if first == 1.0 and second == 1.0:
                out[3, i] = 1.0
            continue
        # Neither side stretches further than alone; l alone costs at most this much a fold.
        high = 1.0
        while _excess(high, 0.0, target, first, second) < 0.0:
            high *= 2.0
        log_lam = _balance(0.0, target, first, second, high)
        one = min(_log_stretch(log_lam, first), target)
        # A side with a constant marginal price takes what the other leaves.
        if first == 1.0:
            one = target - min(_log_stretch(log_lam, second), target)
        two = target - one
        out[0, i], out[1, i] = one, two
        out[2, i] = _price(one, first) + _price(two, second)
        out[3, i] = math.exp(log_lam)


@compiled()
def stretch(v, first, second, out):
    """Rows ln z1 and ln z2 of the stretch of singular values v: λ z² = 2v²."""
    for i in range(v.size):
        out[:, i] = 0.0
        if v[i] > 0.0:
            target = 0.5 * math.log(2.0) + math.log(v[i])
            log_lam = _balance(0.5, target, first, second, 2.0 * target)
            out[0, i], out[1, i] = _log_stretch(log_lam, first), _log_stretch(log_lam, second)


@compiled()
def _imbalance(log_lam, target, log_c, first, second):
    """ln λ − ln(2 s² z² / (z² + c)²): the sign of the slope of the proximal problem along λ."""
    log_z = _log_stretch(log_lam, first) + _log_stretch(log_lam, second)
    return log_lam - target - 2.0 * log_z + 2.0 * _log_sum(2.0 * log_z, log_c)


@compiled()
def _extreme(low, high, sign, target, log_c, first, second):
    """Where sign · imbalance is largest between two points."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left = sign * _imbalance(left, target, log_c, first, second)
    at_right = sign * _imbalance(right, target, log_c, first, second)
    for _ in range(_GOLDEN_STEPS):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = sign * _imbalance(left, target, log_c, first, second)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = sign * _imbalance(right, target, log_c, first, second)
    return 0.5 * (low + high)


@compiled()
def _minimum(low, high, target, log_c, first, second):
    """Where the imbalance turns from negative to positive."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if _imbalance(middle, target, log_c, first, second) > 0.0:
            high = middle
        else:
            low = middle
    return high


@compiled()
def shrink(s, tau, first, second, out):
    """Proximal map s ↦ s z² / (z² + 2τ), with z the global minimiser of ω(z) + s² / (z² + 2τ)."""
    points, values = np.empty(_SAMPLES + 1), np.empty(_SAMPLES + 1)
    for i in range(s.size):
        out[i] = 0.0
        if s[i] == 0.0:
            continue
        c = 2.0 * tau[i]
        log_c = math.log(c)
        target = math.log(2.0) + 2.0 * math.log(s[i])
        # Every stationary λ is 2 s² z² / (z² + c)² for a z between 1 and that of the largest of these values.
        at_one = target - 2.0 * math.log1p(c)
        high = target - math.log(4.0 * c) if c > 1.0 else at_one
        log_z = _log_stretch(high, first) + _log_stretch(high, second)
        low = min(at_one, target + 2.0 * log_z - 2.0 * _log_sum(2.0 * log_z, log_c))
        # A little beyond, so that rounding hides no change of sign at the ends.
        low, high = low - 1e-6, high + 1e-6
        for j in range(_SAMPLES + 1):
            points[j] = low + (high - low) * j / _SAMPLES
            values[j] = _imbalance(points[j], target, log_c, first, second)
        least = math.inf
        for j in range(_SAMPLES):
            start, end = points[j], points[j + 1]
            if values[j] > 0.0 or values[j + 1] <= 0.0:
                # No change of sign here, unless the imbalance turns twice between two points.
                if j > 0 and values[j] > 0.0 and values[j] <= values[j - 1] and values[j] <= values[j + 1]:
                    start = _extreme(points[j - 1], points[j + 1], -1.0, target, log_c, first, second)
                elif j > 0 and values[j] <= 0.0 and values[j] >= values[j - 1] and values[j] >= values[j + 1]:
                    start, end = (
                        points[j - 1],
                        _extreme(points[j - 1], points[j + 1], 1.0, target, log_c, first, second),
                    )
                else:
                    continue
                if _imbalance(start, target, log_c, first, second) > 0.0:
                    continue
                if _imbalance(end, target, log_c, first, second) <= 0.0:
                    continue
            log_lam = _minimum(start, end, target, log_c, first, second)
            one, two = _log_stretch(log_lam, first), _log_stretch(log_lam, second)
            square = math.exp(2.0 * (one + two))
            total = _price(one, first) + _price(two, second) + s[i] * (s[i] / (square + c))
            if total < least:
                least = total
                out[i] = s[i] * (square / (square + c))
