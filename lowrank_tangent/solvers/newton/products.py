"""Products with A W A*, the matrix of Newton's system, by the cheaper of two ways; in single precision at first.

By factors: A* , W and A one after the other, 4·n·p·q·C operations a layer. By kernels, for a layer with one position
and one output, or outputs that share it: A W A* is, but for the Γ term, the n × n kernel of the features stretched by
Z, n²·C operations. The Γ term goes through symmetric matrices on the smaller side,

    S = Σ_{i,c} r_ic a_ic b_icᵀ,    b_icᵀ (Γ ∘ (S + Sᵀ)) a_ic,

with a = Uᵀ h and b = Uᵀ Θ δ where h is the smaller factor, and a = Uᵀ δ, b = Uᵀ Θᵀ h where δ is (`spectral_point.py`).
"""

from __future__ import annotations

import math

import numpy as np

from . import costs
from .costs import skinny_cost, stretch_cost
from .kernels import StretchedKernels, is_outer, kernel_fits

#: Coefficients have about the size of targets / features, gradients that of targets · features. Their squares fit
#: single precision if both sizes are at most the first number and at least one over it. Factors with entries larger
#: than the second number, or smaller than one over it, are balanced.
_LARGEST = 1e12
_LARGEST_FACTOR = 1e8


class SystemProducts:
    """Products with A W A* at points of one problem.

    Parameters
    ----------
    problem : StructuredRegression
        On reduced factors.
    single : bool
        Whether to begin in single precision.

    Attributes
    ----------
    design : TangentOperator
        The operator A in the precision at hand.
    kernels : StretchedKernels
        Of that operator.
    cost : float
        Floating-point operations of one product, in the time of which a large matrix product does as many.
    factor_cost : float
        The same if everything went by factors.
    """

    def __init__(self, problem, single):
        self._problem = problem
        design = problem.design
        n, C = design.n_samples, design.n_outputs
        by_factors = _factor_costs(design)
        self.factor_cost = sum(by_factors)
        # By kernel there is still the Γ term, on the smaller side, and the kernel has to pay for itself.
        smaller = [min(shape) for shape in design.coef_shapes]
        pairs = [costs.SMALL * 4 * n * m**2 for m in smaller]
        candidates = [
            index
            for index, layer in enumerate(design.layers)
            if is_outer(layer)
            and (C == 1 or layer.shape[0] <= C * layer.shape[1])
            and by_factors[index] > pairs[index] + 2 * n**2 * smaller[index] / costs.KERNEL_PRODUCTS
        ]
        saved = sum(by_factors[index] - pairs[index] for index in candidates)
        made = stretch_cost(n, sum(smaller[index] for index in candidates)) / costs.KERNEL_PRODUCTS
        pays = kernel_fits(design) and saved > skinny_cost(n, C) + made
        self.by_kernel = candidates if pays else []
        self.by_factors = [index for index in range(len(smaller)) if index not in self.by_kernel]
        self.cost = skinny_cost(n, C) if self.by_kernel else 0
        self.cost += sum(by_factors[index] for index in self.by_factors) + sum(pairs[index] for index in self.by_kernel)
        self._in_entries = []
        self._use(design)
        if single:
            self.use_single()

    def _use(self, design):
        self.design = design
        self._in_entries.append(design)
        self.kernels = StretchedKernels(design)
        self.rest = design.some_layers(self.by_factors) if self.by_kernel else design

    @property
    def is_single(self):
        """Whether products are in single precision."""
        return self.design.dtype == np.float32

    def use_single(self):
        """Go on in single precision, if numbers fit it."""
        narrow = _narrowed(self._problem)
        if narrow is not None:
            self._use(narrow)

    def use_double(self):
        """Go on in double precision."""
        self._use(self._problem.design)

    def has(self, design):
        """Whether this is an operator of the problem, whose coefficients are written in entries."""
        return any(design is one for one in self._in_entries)

    def in_precision(self, design):
        """The operator of the problem in the precision at hand; any other as it is."""
        return self.design if self.has(design) else design

    def at(self, point):
        """The product at a point."""
        return _ProductAt(self, point)


class _ProductAt:
    def __init__(self, products, point):
        self._design, self._rest = products.design, products.rest
        self._alpha = point.problem.alpha
        self._solvers = [point.layers[index].curvature_solver(self._design.dtype) for index in products.by_factors]
        self._kernel = products.kernels.of_layers(products.by_kernel, point) if products.by_kernel else None
        dtype = self._design.dtype
        self._pairs = [
            (*spectrum.pair_factors(self._design.layers[index], dtype), spectrum.differences.astype(dtype))
            for index, spectrum in ((index, point.layers[index]) for index in products.by_kernel)
            if spectrum.values.any()
        ]

    def __call__(self, dual):
        """A W A* times an array of shape (n, C)."""
        dual = dual.astype(self._design.dtype, copy=False)
        out = np.zeros_like(dual)
        if self._rest is not None:
            correlation = self._rest.rmatvec(dual)
            out += self._rest.matvec([w(part) for w, part in zip(self._solvers, correlation, strict=True)])
        if self._kernel is not None:
            rows = self._design.from_rows(dual)
            image = self._kernel @ rows
            for small, wide, differences in self._pairs:
                mixed = small.T @ np.einsum("ncm,nc->nm", wide, rows)
                image += np.einsum("nm,ncm->nc", small @ (differences * (mixed + mixed.T)), wide)
            out += self._design.to_rows(image) / self._alpha
        return out


def _factor_costs(design):
    """Operations of a product with A and one with A*, layer by layer; as of a dense matrix where nothing is known."""
    n, C = design.n_samples, design.n_outputs
    if not design.layers:
        return [4 * n * C * costs.SMALL * math.prod(shape) for shape in design.coef_shapes]
    copies = costs.SMALL * (C if design.outputs == "shared" else 1)
    return [4 * n * copies * layer.n_positions * math.prod(layer.shape) for layer in design.layers]


def _narrowed(problem):
    """The operator in single precision, its factors balanced; None if there is none, or if numbers do not fit it."""
    if not problem.design.layers:
        return None
    largest, target = problem.design.largest(), np.abs(problem.target).max()
    sizes = largest.prod(axis=1)
    gradients = target * sizes
    if not ((target <= _LARGEST * sizes) & (sizes <= _LARGEST * target)).all():
        return None
    if not ((gradients >= 1.0 / _LARGEST) & (gradients <= _LARGEST)).all():
        return None
    fits = (largest >= 1.0 / _LARGEST_FACTOR) & (largest <= _LARGEST_FACTOR)
    balance = [1.0 if both.all() else float(np.sqrt(delta / h)) for (h, delta), both in zip(largest, fits, strict=True)]
    return problem.design.with_precision(np.float32, balance)
