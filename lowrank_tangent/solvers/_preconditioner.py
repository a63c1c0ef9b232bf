"""Preconditioner of Newton's system I + A W A*: the ridge kernel of the stretched features.

Without its Γ term, W stretches features: A W A* is the kernel of features stretched by z, and ridge with it is what
iteratively reweighted least squares would solve. Large problems use this kernel, averaged over outputs (exact for
"shared" ones, the limit of wide networks for "network" ones); small problems add the Γ term and have the system itself.
"""

from __future__ import annotations

import numpy as np

from .._cholesky import InverseFactor
from ..operators import LayerFactors
from ..transforms import LowRankTransform
from ._products import SystemProducts, skinny_cost

#: Largest number of dual unknowns, and of operations, for which the system is assembled.
_EXACT_UNKNOWNS = 2000
_EXACT_OPERATIONS = 1e10
#: Largest number of samples whose n × n kernel serves as preconditioner.
_KERNEL_SAMPLES = 12_000
#: What calling a dozen NumPy functions costs, in floating-point operations.
_CALL_OVERHEAD = 5e6
_EPS = np.finfo(float).eps


class Preconditioner:
    """Inverse of the system of some recent point: exact for small problems, without its Γ term and averaged over
    outputs for large ones. It is renewed once conjugate gradients have cost as much as renewing it."""

    def __init__(self, problem):
        design = problem.design
        self.problem = problem
        self.spent = np.inf
        self._factor = None
        n, C = design.n_samples, design.n_outputs
        smaller = [min(shape) for shape in design.coef_shapes]
        pairs = sum(m * (m + 1) // 2 for m in smaller)
        features = sum(p + q for p, q in design.coef_shapes)
        exact_cost = (n * C) ** 2 * (pairs + 2 * features) + (n * C) ** 3
        mean_cost = 2 * n**2 * sum(p + layer.n_outputs * q for layer in design.layers for p, q in [layer.shape]) + n**3
        self.exact = n * C <= _EXACT_UNKNOWNS and exact_cost <= _EXACT_OPERATIONS
        self.renewal_cost = (exact_cost if self.exact else mean_cost) + _CALL_OVERHEAD
        self.products = SystemProducts(problem)
        solves = 2 * (skinny_cost(n * C, 1) if self.exact else skinny_cost(n, C))
        self.product_cost = self.products.cost + solves + _CALL_OVERHEAD
        self.usable = n <= _KERNEL_SAMPLES

    def of(self, problem):
        """The same for another alpha or adaptivity: what is known of the last one serves until it has to be renewed."""
        self.problem = problem
        return self

    def update(self, point):
        """Renew at this point, if the work since the last time has paid for it."""
        if self.spent < self.renewal_cost or not self.usable:
            return
        self.spent = 0.0
        kernel = _system_kernel(point) if self.exact else _stretched_mean_kernel(point)
        diagonal = kernel.diagonal().copy()
        kernel.flat[:: len(kernel) + 1] = diagonal + self.problem.alpha
        try:
            self._factor = InverseFactor(kernel)
        except np.linalg.LinAlgError:
            # alpha is lost in the rounding of the largest eigenvalue; a larger shift is still a preconditioner.
            kernel.flat[:: len(kernel) + 1] = diagonal + self.problem.alpha + _EPS * 10 * len(kernel) * diagonal.sum()
            self._factor = InverseFactor(kernel)

    def spend_product(self):
        """Account for one product with the system."""
        self.spent += self.product_cost

    def apply(self, residual):
        """Approximate inverse of the system times `residual` of shape (n, C)."""
        if self._factor is None:
            return residual
        rhs = residual.reshape(-1) if self.exact else residual
        return self.problem.alpha * self._factor.solve(rhs).reshape(residual.shape)


def _stretched_mean_kernel(point):
    """Mean kernel of the features stretched on the smaller side of each layer, n × n."""
    design = point.problem.design
    layers = []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        if not spectrum.transposed:
            transform = LowRankTransform(spectrum.basis, spectrum.stretch)
            layers.append(LayerFactors(transform.apply(layer.h), layer.delta))
        else:
            transform = _mean_transform(spectrum, layer.shape[1])
            layers.append(LayerFactors(layer.h, transform.apply(layer.delta)))
    return design.with_layers(layers, keep_rows=True).mean_gram()


def _mean_transform(spectrum, q):
    """Right transform of width q: for stacked outputs, root of the mean of the diagonal blocks of its square."""
    blocks = spectrum.basis.reshape(-1, q, spectrum.basis.shape[1])
    halves = np.hstack(list(blocks * np.sqrt(spectrum.stretch**2 - 1.0)))
    square = np.eye(q) + halves @ halves.T / len(blocks)
    values, basis = np.linalg.eigh(square)
    return LowRankTransform(basis, np.sqrt(values))


def _system_kernel(point):
    """α A W A*, n·C × n·C: the kernel of the stretched features plus the Γ term."""
    design = point.problem.design
    left, right = zip(*(spectrum.transforms for spectrum in point.layers), strict=True)
    kernel = design.transformed(left, right).gram()
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        if spectrum.values.any():
            pairs = _pair_features(design, layer, spectrum)
            kernel += pairs @ pairs.T
    return kernel


def _pair_features(design, layer, spectrum):
    """Rows √(2Γ) ∘ sym(Uᵀ Φ Gᵀ U), one a sample and output, upper triangle with off-diagonal entries counted twice."""
    if spectrum.transposed:
        on_h, on_delta = spectrum.rotated.T, spectrum.basis
    else:
        on_h, on_delta = spectrum.basis, spectrum.rotated.T
    q, m = layer.shape[1], on_h.shape[1]
    C = design.n_outputs
    h = np.repeat(layer.h, C, axis=0) @ on_h
    if design.outputs == "shared":
        delta = np.einsum("ntq,cqm->nctm", layer.delta[:, 0], on_delta.reshape(C, q, m), optimize=True)
    else:
        delta = layer.delta @ on_delta
    # Pairs along the first axis, so that every operation below runs over contiguous memory.
    h, delta = (np.ascontiguousarray(np.moveaxis(x.reshape(len(h), -1, m), 0, -1)) for x in (h, delta))
    pairs = np.zeros((m * (m + 1) // 2, h.shape[2]))
    start = 0
    for i in range(m):
        part = pairs[start : start + m - i]
        for h_t, delta_t in zip(h, delta, strict=True):
            part += h_t[i] * delta_t[i:] + h_t[i:] * delta_t[i]
        weight = np.sqrt(spectrum.differences[i, i:])
        weight[0] *= np.sqrt(0.5)
        part *= weight[:, None]
        start += m - i
    rows = pairs.T
    if design.changes_rows:
        rows = design.to_rows(rows.reshape(design.n_samples, -1)).reshape(rows.shape)
    return rows
