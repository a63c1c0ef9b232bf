"""Softmax probabilities without cancellation, intercepts that balance them, and distributions with given totals.

Arrays have shape (n, K): one row a sample, one column a class, K ≥ 2.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from .._types import Array

#: Newton steps to an intercept, of which a handful is needed unless most probabilities are 0 and 1 to rounding.
_MAX_STEPS = 100
#: Totals balance when they do so to this share of what they are summed from.
_BALANCED = 1e-13
#: Logits of a larger spread are shrunk first, and then doubled and doubled with an intercept that is roughly balanced.
_GENTLE = 8.0
_ROUGHLY = 1e-2
#: Below this, exp(x) − 1 − x is taken from its series.
_SMALL = 1e-3


class Softmax:
    """Probabilities p = softmax(f).

    Attributes
    ----------
    log : ndarray of shape (n, K)
        log p.
    probabilities : ndarray of shape (n, K)
        p.
    winners, shortfall : ndarray of shape (n, K)
        Indicator e of the largest logit, and e − p, which keeps its relative accuracy where p is 1 to rounding.
    """

    def __init__(self, logits: Array) -> None:
        top = np.arange(len(logits)), logits.argmax(axis=1)
        shifted = logits - logits[top][:, None]
        others = np.exp(shifted)
        others[top] = 0.0
        rest = others.sum(axis=1)
        self.log = shifted - np.log1p(rest)[:, None]
        self.winners = np.zeros_like(shifted)
        self.winners[top] = 1.0
        self.probabilities = others / (1.0 + rest)[:, None]
        self.shortfall = -self.probabilities
        self.probabilities[top] = 1.0 / (1.0 + rest)
        self.shortfall[top] = rest / (1.0 + rest)

    def below(self, target: Array) -> Array:
        """y − p, accurate also where both are 0 or 1 to rounding."""
        return (target - self.winners) + self.shortfall

    def divergence(self, change: Array) -> Array:
        """Kullback–Leibler divergence of softmax(f + change) from p, one number a sample; shape (n,).

        That is what the log-sum-exp of f + change exceeds its tangent at f by.
        """
        centred = change - np.sum(self.probabilities * change, axis=1, keepdims=True)
        near = np.log1p(np.sum(self.probabilities * _exponential_excess(np.clip(centred, -1.0, 1.0)), axis=1))
        far = logsumexp(self.log + centred, axis=1)
        return np.where(np.abs(centred).max(axis=1) <= 1.0, near, np.maximum(far, 0.0))


def _exponential_excess(x: Array) -> Array:
    """exp(x) − 1 − x, from its series near 0."""
    series = 0.5 * x**2 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0)))
    return np.where(np.abs(x) < _SMALL, series, np.expm1(x) - x)


def balancing_intercept(logits: Array, target: Array, weights: Array) -> Array:
    """Intercept b with ``Σ_i w_i softmax(f_i + b) = Σ_i w_i y_i``, the minimiser of the weighted cross-entropy.

    Parameters
    ----------
    logits, target : ndarray of shape (n, K)
        f and y, the distributions; every class must have a positive total.
    weights : ndarray of shape (n,)
        w > 0.

    Returns
    -------
    ndarray of shape (K,)
        Determined up to a constant.
    """
    spread = np.ptp(logits, axis=1).max()
    bias = np.zeros(logits.shape[1])
    for doublings in range(math.ceil(math.log2(max(spread / _GENTLE, 1.0))), 0, -1):
        bias = 2.0 * _balance(0.5**doublings * logits, target, weights, bias, _ROUGHLY)
    return _balance(logits, target, weights, bias, _BALANCED)


def _balance(logits: Array, target: Array, weights: Array, bias: Array, tol: float) -> Array:
    """Newton's method with steps that always lower the cross-entropy, and tend to full ones.

    Along a step of spread R its curvature changes by factors of at most exp(R), hence the length log(1 + R) / R: Sun &
    Tran-Dinh, Generalized self-concordant functions: a recipe for Newton-type methods (2019).
    """
    rounding = weights @ rounding_of(target)
    for _ in range(_MAX_STEPS):
        softmax = Softmax(logits + bias)
        missing = weights[:, None] * softmax.below(target)
        excess = missing.sum(axis=0)
        if (np.abs(excess) <= tol * np.abs(missing).sum(axis=0) + rounding).all():
            break
        step = np.linalg.lstsq(intercept_curvature(softmax.probabilities, weights), excess, rcond=None)[0]
        spread = np.ptp(step)
        if not 0.0 < spread < np.inf:
            break
        bias = bias + step * (np.log1p(spread) / spread)
    return bias


def rounding_of(target: Array) -> Array:
    """Rounding that a sum over y − q may show for each y; none for class labels, of which nothing is lost."""
    return np.finfo(float).eps * ((target > 0.0) & (target < 1.0))


def intercept_curvature(probabilities: Array, weights: Array) -> Array:
    """Σ_i w_i (diag(p_i) − p_i p_iᵀ); its diagonal from the other entries, as p (1 − p) would cancel."""
    matrix = -(probabilities.T * weights) @ probabilities
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def with_totals(distributions: Array, weights: Array, totals: Array) -> Array:
    """Distributions near the given ones whose weighted column sums are `totals`.

    Columns with too much are scaled down, and what the rows then miss is dealt out to the columns that miss it.

    Notes
    -----
    Altschuler, Weed & Rigollet, Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration
    (2017), algorithm 2.
    """
    columns = weights @ distributions
    scaled = distributions * np.divide(totals, columns, out=np.ones_like(totals), where=columns > totals)
    rows = np.maximum(1.0 - scaled.sum(axis=1), 0.0)
    lacking = np.maximum(totals - weights @ scaled, 0.0)
    mass = lacking.sum()
    return scaled if mass == 0.0 else scaled + np.multiply.outer(rows, lacking / mass)
