"""Products with A W A*, which Newton's system consists of, by the cheaper of two ways; in single precision at first.

By factors: A* , W and A one after the other, 4·n·p·q·C operations a layer. By kernels, for a layer with one position
and one output, or outputs that share it: A W A* is, but for the Γ term, the n × n kernel of the features stretched by
Z, n²·C operations. The Γ term goes through symmetric matrices on the smaller side,

    S = Σ_{i,c} r_ic a_ic b_icᵀ,    b_icᵀ (Γ ∘ (S + Sᵀ)) a_ic,

with a = Uᵀ h and b = Uᵀ Θ δ where h is the smaller factor, and a = Uᵀ δ, b = Uᵀ Θᵀ h where δ is (`spectral_point.py`).
"""

from __future__ import annotations

import numpy as np

from ...operators import TangentOperator
from .kernels import StretchedKernels, is_outer, kernel_fits

#: Products that a kernel of stretched features serves, about.
_PRODUCTS = 8
#: Operations of a large matrix product in the time of one of a product with the factors of a layer, or on its smaller
#: side, and in that of an entry of a kernel that is made.
_SMALL = 2
_ENTRY = 250
#: A product of an n × n matrix with a few columns waits for memory: an entry takes the time of this many operations,
#: and of that many more for every column.
_WAIT, _COLUMN = 20, 6
#: Single precision has squares of coefficients and of gradients where targets over features, and targets times
#: features, are at most that, and at least one over it. Factors beyond the second number are balanced.
_LARGEST = 1e12
_LARGEST_FACTOR = 1e8


def skinny_cost(n, columns):
    """Cost of an n × n matrix times a few columns, in operations of a large matrix product."""
    return n**2 * (_WAIT + _COLUMN * columns)


def stretch_cost(n, sides):
    """Cost of the kernel of layers with so many directions on their smaller sides, in the same operations."""
    return n**2 * (2 * sides + _ENTRY)


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
        by_kernel = [is_outer(layer) and (C == 1 or layer.shape[0] <= C * layer.shape[1]) for layer in design.layers]
        sizes = [p * q for p, q in (layer.shape for layer in design.layers)]
        copies = _SMALL * (C if design.outputs == "shared" else 1)
        costs = [4 * n * copies * layer.n_positions * size for layer, size in zip(design.layers, sizes, strict=True)]
        self.factor_cost = sum(costs)
        # By kernel there is still the Γ term, on the smaller side, and the kernel has to pay for itself.
        smaller = [min(shape) for shape in design.coef_shapes]
        pairs = [_SMALL * 4 * n * m**2 for m in smaller]
        by_kernel = [
            yes and cost > pair + 2 * n**2 * m / _PRODUCTS
            for yes, cost, pair, m in zip(by_kernel, costs, pairs, smaller, strict=True)
        ]
        saved = sum(cost - pair for cost, pair, yes in zip(costs, pairs, by_kernel, strict=True) if yes)
        sides = sum(m for m, yes in zip(smaller, by_kernel, strict=True) if yes)
        if not kernel_fits(design) or saved <= skinny_cost(n, C) + stretch_cost(n, sides) / _PRODUCTS:
            by_kernel = [False] * len(sizes)
        self.by_kernel = [index for index, yes in enumerate(by_kernel) if yes]
        self.by_factors = [index for index, yes in enumerate(by_kernel) if not yes]
        self.cost = skinny_cost(n, C) if self.by_kernel else 0
        self.cost += sum(costs[index] for index in self.by_factors) + sum(pairs[index] for index in self.by_kernel)
        narrow = _narrowed(problem) if single else None
        self._use(design if narrow is None else narrow)

    def _use(self, design):
        self.design = design
        self.kernels = StretchedKernels(design)
        self.rest = design
        if self.by_kernel:
            self.rest = design.some_layers(self.by_factors)

    @property
    def is_single(self):
        """Whether products are in single precision."""
        return self.design.dtype == np.float32

    def widen(self):
        """Go on in double precision."""
        self._use(self._problem.design)

    def rough(self, design):
        """An operator in the precision at hand, if it is one in entries."""
        return self.design if isinstance(design, TangentOperator) else design

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
            pull = self._rest.rmatvec(dual)
            out += self._rest.matvec([w(part) for w, part in zip(self._solvers, pull, strict=True)])
        if self._kernel is not None:
            rows = self._design.from_rows(dual)
            image = self._kernel @ rows
            for small, wide, differences in self._pairs:
                mixed = small.T @ np.einsum("ncm,nc->nm", wide, rows)
                image += np.einsum("nm,ncm->nc", small @ (differences * (mixed + mixed.T)), wide)
            out += self._design.to_rows(image) / self._alpha
        return out


def _narrowed(problem):
    """The operator in single precision, its factors balanced; None if numbers are too large or too small for it."""
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
