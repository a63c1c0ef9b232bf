"""Products with Newton's system I + A W A*, by kernels where they are cheaper than by the factors.

For features of one output (or outputs that share them) and a layer with p ≤ C·q, A W A* is, but for the Γ term, the
n × n kernel of the features stretched by Z, the same for every output: n²·C operations a product where the factors need
4·n·p·q·C. The Γ term goes through symmetric matrices on the smaller side,

    S = Σ_{i,c} r_ic a_i b_icᵀ,    ((Γ ∘ (S + Sᵀ)) b_ic)ᵀ a_i,        a_i = Uᵀ h_i,   b_ic = Uᵀ G_c δ_i.

Other layers keep to their factors.
"""

from __future__ import annotations

import numpy as np

#: Largest number of samples for which n × n kernels are formed.
_KERNEL_SAMPLES = 12_000
#: A product of an n × n matrix with a few columns waits for memory: an operation takes this many times as long as in a
#: large matrix product, and so few columns cost as much as this many.
_SKINNY = 5
_FEW_COLUMNS = 4


def skinny_cost(n, columns):
    """Cost of an n × n matrix times a few columns, in operations of a large matrix product: memory is what it takes."""
    return _SKINNY * 2 * n**2 * max(columns, _FEW_COLUMNS)


class SystemProducts:
    """Products with I + A W A* at points of one problem.

    Parameters
    ----------
    problem : StructuredRegression
        On reduced factors.
    """

    def __init__(self, problem):
        design = problem.design
        n, C = design.n_samples, design.n_outputs
        by_kernel = [
            layer.n_outputs == 1 and layer.h.shape[1] == 1 and layer.shape[0] <= C * layer.shape[1]
            for layer in design.layers
        ]
        sizes = [p * q for p, q in (layer.shape for layer in design.layers)]
        saved = 4 * n * C * sum(size for size, yes in zip(sizes, by_kernel, strict=True) if yes)
        if n > _KERNEL_SAMPLES or saved <= 2 * n**2 * C:
            by_kernel = [False] * len(sizes)
        self.design = design
        self.by_kernel = [index for index, yes in enumerate(by_kernel) if yes]
        self.by_factors = [index for index, yes in enumerate(by_kernel) if not yes]
        #: Kernels of the back-propagated gradients, which no stretch on the left changes.
        self.gradients = [_gram(design.layers[index].delta[:, 0, 0]) for index in self.by_kernel]
        self.rest = design.with_layers([design.layers[i] for i in self.by_factors], True) if self.by_factors else None
        #: Floating-point operations of one product, in the time of which a large matrix product does as many.
        self.cost = skinny_cost(n, C) if self.by_kernel else 0
        self.cost += 4 * n * C * sum(design.layers[i].h.shape[1] * sizes[i] for i in self.by_factors)

    def at(self, point):
        """The product at a point."""
        return _ProductAt(self, point)


class _ProductAt:
    def __init__(self, products, point):
        self._design, self._rest = products.design, products.rest
        self._alpha = point.problem.alpha
        self._spectra = [point.layers[i] for i in products.by_factors]
        self._kernel, self._pairs = None, []
        C = self._design.n_outputs
        for index, gradients in zip(products.by_kernel, products.gradients, strict=True):
            layer, spectrum = self._design.layers[index], point.layers[index]
            rotated = layer.h[:, 0] @ spectrum.basis
            stretched = _gram(rotated * spectrum.stretch)
            stretched *= gradients
            self._kernel = stretched if self._kernel is None else self._kernel + stretched
            if spectrum.values.any():
                m, q = rotated.shape[1], layer.shape[1]
                weights = spectrum.rotated.reshape(m * C, q)
                pulled = (layer.delta[:, 0, 0] @ weights.T).reshape(-1, m, C)
                self._pairs.append((rotated, pulled, spectrum.differences))

    def __call__(self, dual):
        """(I + A W A*) times an array of shape (n, C)."""
        out = dual.copy()
        if self._rest is not None:
            pull = self._rest.rmatvec(dual)
            out += self._rest.matvec([s.solve_curvature(part) for s, part in zip(self._spectra, pull, strict=True)])
        if self._kernel is not None:
            rows = self._design.from_rows(dual)
            image = self._kernel @ rows
            for rotated, pulled, differences in self._pairs:
                mixed = rotated.T @ np.einsum("nmc,nc->nm", pulled, rows)
                image += np.einsum("nm,nmc->nc", rotated @ (differences * (mixed + mixed.T)), pulled)
            out += self._design.to_rows(image) / self._alpha
        return out


def _gram(rows):
    """Inner products of rows."""
    return rows @ rows.T
