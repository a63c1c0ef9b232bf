"""Moments of an activation φ under normal distributions, and what networks of infinite width make of them.

For (u, v) normal with variances a, b and covariance c the moments are E[φ(u) φ(v)] and E[φ'(u) φ'(v)], the second the
derivative of the first by c (Price's theorem). The formulas contain a variance by its root, which is √a for ReLU and
√(1 + 2a) for erf.

A loop takes each pair of samples through all layers, so that no matrix of an inner layer is stored. The costly part is
the angle between two samples. It is computed once a pair; for pairs from one set it serves both orders.

Sources: Cho & Saul, Kernel Methods for Deep Learning (NIPS 2009) for ReLU; Williams, Computing with Infinite Networks
(NIPS 1996) for erf; the recursion over layers is that of Jacot, Gabriel & Hongler (arXiv 1806.07572).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..linalg.jit import compiled

if TYPE_CHECKING:
    from .._types import Array

#: Activations, as the compiled functions know them.
RELU, ERF = 0, 1
#: Two moments of a pair of samples and their derivatives, in the order of `_pair`.
_Pair: TypeAlias = tuple[float, float, float, float, float, float, float]
#: Cosines of equal directions miss 1 by a few roundings, their angle misses 0 by the root: such pairs count as equal.
_PARALLEL = 1.0 - 16.0 * float(np.finfo(float).eps)


@compiled(error_model="numpy")
def _relu(covariance: float, root: float, other: float) -> _Pair:
    """Moments of a pair and their derivatives, as `_pair` has them: arc-cosine kernels of order 1 and 0, halved.

    Where two samples are parallel the second moment has a cusp. The slopes on its two sides cancel, and are taken as 0.
    """
    size = root * other
    cosine = min(max(covariance / size, -1.0), 1.0)
    if cosine > _PARALLEL:
        cosine = 1.0
    remaining = math.pi - math.acos(cosine)
    square = (1.0 - cosine) * (1.0 + cosine)
    sine = math.sqrt(square)
    moment, slope = size * (sine + remaining * cosine) / (2.0 * math.pi), remaining / (2.0 * math.pi)
    change = 0.5 / (math.pi * sine) if square > 2.0 * (1.0 - _PARALLEL) else 0.0
    turn = -0.5 * cosine * change
    by_variance, by_other = sine * (other / root) / (4.0 * math.pi), sine * (root / other) / (4.0 * math.pi)
    return moment, slope, by_variance, by_other, change / size, turn / root / root, turn / other / other


@compiled(error_model="numpy")
def _erf(covariance: float, root: float, other: float) -> _Pair:
    """The same for φ(u) = erf(u)."""
    size = root * other
    sine = min(max(2.0 * covariance / size, -1.0), 1.0)
    square = (1.0 - sine) * (1.0 + sine)
    moment, slope = 2.0 / math.pi * math.asin(sine), 4.0 / math.pi / (size * math.sqrt(square))
    by_variance, by_other = -slope * covariance / root / root, -slope * covariance / other / other
    turn = -slope / square
    return moment, slope, by_variance, by_other, -2.0 * turn * sine / size, turn / root / root, turn / other / other


@compiled(error_model="numpy")
def _pair(activation: int, covariance: float, root: float, other: float) -> _Pair:
    """Moments of a pair of samples, and their derivatives.

    Returns
    -------
    moment, slope : float
        E[φ(u) φ(v)] and E[φ'(u) φ'(v)].
    by_variance, by_other : float
        Derivatives of the first by the variances of u and v.
    slope_by_covariance, slope_by_variance, slope_by_other : float
        Derivatives of the second.
    """
    return _relu(covariance, root, other) if activation == RELU else _erf(covariance, root, other)


@compiled(error_model="numpy")
def _root(activation: int, variance: float) -> float:
    """Root of a variance, as the formulas of an activation contain it."""
    return math.sqrt(variance) if activation == RELU else math.sqrt(1.0 + 2.0 * variance)


@compiled(error_model="numpy")
def samples_by_layer(activation: int, variances: Array, growth: float, depth: int) -> tuple[Array, Array]:
    """What a sample has by itself at the inputs of every hidden layer.

    Parameters
    ----------
    activation : int
    variances : ndarray of shape (n,)
        Of the first layer.
    growth : float
        A sample's variance at the first layer changes by growth · x when it moves.
    depth : int

    Returns
    -------
    roots, growths : ndarray of shape (depth, n)
    """
    roots, growths = np.empty((depth, len(variances))), np.empty((depth, len(variances)))
    for i in range(len(variances)):
        variance, change = variances[i], growth
        for layer in range(depth):
            root = _root(activation, variance)
            roots[layer, i], growths[layer, i] = root, change
            variance, slope, by_variance, by_other, _, _, _ = _pair(activation, variance, root, root)
            change *= slope + by_variance + by_other
    return roots, growths


@compiled(error_model="numpy")
def layer_moments(activation: int, covariances: Array, roots: Array, others: Array) -> tuple[Array, Array]:
    """Both moments of all pairs at one layer: shapes (n, n'), of roots of shapes (n,) and (n',)."""
    moments, slopes = np.empty_like(covariances), np.empty_like(covariances)
    for i in range(len(roots)):
        for j in range(len(others)):
            moments[i, j], slopes[i, j], _, _, _, _, _ = _pair(activation, covariances[i, j], roots[i], others[j])
    return moments, slopes


@compiled(error_model="numpy")
def layer_derivatives(activation: int, covariances: Array, roots: Array) -> tuple[Array, Array, Array]:
    """By variance of the first sample, of both moments, and by covariance, of the second: three arrays (n, n)."""
    n = len(roots)
    by_variance, slope_by_variance, slope_by_covariance = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(n):
            _, _, by_variance[i, j], _, slope_by_covariance[i, j], slope_by_variance[i, j], _ = _pair(
                activation, covariances[i, j], roots[i], roots[j]
            )
    return by_variance, slope_by_variance, slope_by_covariance


@compiled(error_model="numpy")
def tangent_kernel(activation: int, covariances: Array, roots: Array, others: Array, weights: Array) -> Array:
    """Neural tangent kernel of all pairs of two sets of samples.

    Θ_0 = w_0 Σ_0, then Θ_{l+1} = w_{l+1} Σ_{l+1} + D_{l+1} Θ_l with the moments Σ_{l+1}, D_{l+1} of layer l.

    Parameters
    ----------
    activation : int
    covariances : ndarray of shape (n, n')
        Σ_0.
    roots, others : ndarray of shapes (depth, n) and (depth, n')
    weights : ndarray of shape (depth + 1,)
        w, of the layers in the kernel.

    Returns
    -------
    ndarray of shape (n, n')
    """
    kernel = np.empty_like(covariances)
    for i in range(roots.shape[1]):
        for j in range(others.shape[1]):
            covariance = covariances[i, j]
            value = weights[0] * covariance
            for layer in range(len(roots)):
                covariance, slope, _, _, _, _, _ = _pair(activation, covariance, roots[layer, i], others[layer, j])
                value = weights[layer + 1] * covariance + slope * value
            kernel[i, j] = value
    return kernel


@compiled(error_model="numpy")
def tangent_slopes(
    activation: int, covariances: Array, roots: Array, growths: Array, by_covariance: float, weights: Array
) -> tuple[Array, Array, Array, Array]:
    """Tangent kernel of all pairs of a set of samples, and its gradients with respect to the first sample of a pair.

    A gradient is along · x' + radial · x, along and radial by the derivatives of the kernel by covariances and by
    variances of the first layer.

    Parameters
    ----------
    activation : int
    covariances : ndarray of shape (n, n)
        Σ_0, symmetric.
    roots, growths : ndarray of shape (depth, n)
    by_covariance : float
        A covariance of the first layer changes by by_covariance · x' when x moves.
    weights : ndarray of shape (depth + 1,)
        Of the layers in the kernel.

    Returns
    -------
    kernel, gates, along, radial : ndarray of shape (n, n)
        Gates are the products of the gradients at the first layer, D_depth ··· D_1.
    """
    depth, n = roots.shape
    kernel, gates, along, radial = np.empty((n, n)), np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            # Of the covariance and of the kernel so far: the value, its change along the other sample, and its changes
            # along the sample itself, for either of the two.
            c, c_along, c_i, c_j = covariances[i, j], by_covariance, 0.0, 0.0
            k, k_along, k_i, k_j = weights[0] * c, weights[0] * c_along, 0.0, 0.0
            gate = 1.0
            for layer in range(depth):
                moment, d, by_i, by_j, d_by_c, d_by_i, d_by_j = _pair(activation, c, roots[layer, i], roots[layer, j])
                growth_i, growth_j, weight = growths[layer, i], growths[layer, j], weights[layer + 1]
                k_along = d * k_along + d_by_c * c_along * k
                k_i = d * k_i + (d_by_c * c_i + d_by_i * growth_i) * k
                k_j = d * k_j + (d_by_c * c_j + d_by_j * growth_j) * k
                c_along, c_i, c_j = d * c_along, d * c_i + by_i * growth_i, d * c_j + by_j * growth_j
                c, gate = moment, gate * d
                k = d * k + weight * c
                k_along, k_i, k_j = k_along + weight * c_along, k_i + weight * c_i, k_j + weight * c_j
            kernel[i, j] = kernel[j, i] = k
            gates[i, j] = gates[j, i] = gate
            along[i, j] = along[j, i] = k_along
            radial[i, j], radial[j, i] = k_i, k_j
    return kernel, gates, along, radial
