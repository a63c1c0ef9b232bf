"""Coefficients of many outputs, written in the gradients of the samples instead of entry by entry.

With C outputs that share a stretch, a layer's ``B = [B_1 … B_C]`` is p × C·q, and each of the many products that a
Newton step takes with it costs n·p·q·C. But Newton's method from B = 0 stays in the span of the samples,

    B_c = Σ_i d_ic δ_iᵀ,        d of shape (n, C, p),

and all that it asks of B are the responses ``t_ic = B_c δ_i = Σ_j K_ij d_jc``, with K = δ δᵀ, and matrices on the
smaller side,

    (A B)_ic = h_iᵀ t_ic,       B Bᵀ = Σ_ic d_ic t_icᵀ,       B (A* r)ᵀ = Σ_ic r_ic t_ic h_iᵀ,
    (A* r)(A* r)ᵀ = hᵀ (K ∘ r rᵀ) h,       A (M A* r) = (K ∘ h M hᵀ) r.

So a step dB = M A* r + N B, M and N on the smaller side, is found and tried without a matrix of the size of B. Moving
there takes three products of that size, for d, t and B Bᵀ.
"""

from __future__ import annotations

import functools

import numpy as np

from ..spectral_point import Spectrum, entries_of, gram_of, spectrum_of
from . import costs
from .costs import stretch_cost


class SampledDesign:
    """The operator A with some layers' coefficients, and all that is made of them, written in the samples.

    Parameters
    ----------
    design : TangentOperator
        With "shared" outputs.
    indices : list of int
        The layers written in the samples, of one position, with p ≤ C·q.
    """

    def __init__(self, design, indices):
        self._design = design
        self._sampled = {index: SampledLayer(design.layers[index], design.n_outputs) for index in indices}
        self._rest = design.some_layers([index for index in range(len(design.layers)) if index not in self._sampled])
        self.dtype = design.dtype

    @classmethod
    def of(cls, design, products):
        """The operator with those layers in the samples that are cheaper so, None if there is no such layer.

        Parameters
        ----------
        design : TangentOperator
        products : SystemProducts
            Of that operator; what is by factors there stays in entries.
        """
        if design.outputs != "shared" or design.n_outputs == 1:
            return None
        indices = [index for index in products.by_kernel if _is_cheaper(design, design.layers[index].shape)]
        return cls(design, indices) if indices else None

    def zeros(self):
        """B = 0."""
        rest = iter([] if self._rest is None else [np.zeros(shape) for shape in self._rest.coef_shapes])
        return self._merged(rest, {index: layer.zero() for index, layer in self._sampled.items()})

    def matvec(self, parts):
        """A times coefficients, or times a change of them."""
        rows = sum(parts[index].responses_to_inputs() for index in self._sampled)
        rest = [part for index, part in enumerate(parts) if index not in self._sampled]
        out = self._design.to_rows(rows)
        return out + self._rest.matvec(rest) if rest else out

    def rmatvec(self, dual):
        """A* r."""
        rest = iter([] if self._rest is None else self._rest.rmatvec(dual))
        rows = self._design.from_rows(dual)
        return self._merged(rest, {index: SampledCorrelation(layer, rows) for index, layer in self._sampled.items()})

    def _merged(self, rest, sampled):
        return [sampled[index] if index in sampled else next(rest) for index in range(len(self._design.layers))]


def _is_cheaper(design, shape):
    """Whether a layer of a shape (p, q) is cheaper in the samples, by the operations of a step."""
    (p, q), n, C = shape, design.n_samples, design.n_outputs
    entries = costs.STEP_PRODUCTS * 2.0 * n * p * q * C
    samples = 2.0 * n * p * C * (n + 2.5 * p) + costs.STEP_KERNELS * stretch_cost(n, p) + costs.STEP_SMALL * 2.0 * p**3
    return samples < entries


class SampledLayer:
    """What the samples say of one layer: h of shape (n, p), δ of shape (n, q) and K = δ δᵀ."""

    def __init__(self, factors, n_outputs):
        self.h, delta = factors.astype(np.float64).outer
        self.delta = delta[:, 0]
        self.kernel = self.delta @ self.delta.T
        self.shape = self.h.shape[1], n_outputs * self.delta.shape[1]
        self._n_outputs = n_outputs

    def zero(self):
        """B = 0."""
        n, p = self.h.shape
        coef = SampledCoef(self, np.zeros((n, self._n_outputs, p)))
        coef.responses = coef.weights  # K 0, without the product
        return coef


class SampledCoef:
    """Coefficients of one layer by the weights d of the samples, of shape (n, C, p)."""

    def __init__(self, layer, weights):
        self.layer, self.weights = layer, weights

    @functools.cached_property
    def responses(self):
        """t, of the shape of d."""
        n = len(self.weights)
        return (self.layer.kernel @ self.weights.reshape(n, -1)).reshape(self.weights.shape)

    @property
    def gram(self):
        """B Bᵀ."""
        p = self.weights.shape[-1]
        # From step to step it would be cheaper, but errors of far larger coefficients would stay in it.
        gram = self.weights.reshape(-1, p).T @ self.responses.reshape(-1, p)
        return 0.5 * (gram + gram.T)

    def responses_to_inputs(self, inputs=None):
        """``h_iᵀ t_ic``, A B of this layer; of other inputs if they are given. Shape (n, C)."""
        inputs = self.layer.h if inputs is None else inputs
        return (self.responses @ inputs[:, :, None])[..., 0]

    def times_correlation(self, correlation):
        """B (A* r)ᵀ."""
        return (correlation.rows[:, None, :] @ self.responses)[:, 0].T @ self.layer.h

    def by_entries(self):
        """B, p × C·q."""
        blocks = self.weights.transpose(1, 2, 0) @ self.layer.delta
        return blocks.transpose(1, 0, 2).reshape(self.layer.shape)


class SampledCorrelation:
    """A* r of one layer, r of shape (n, C) as the rows without weights and centring see it."""

    def __init__(self, layer, rows):
        self.layer, self.rows = layer, rows

    def __add__(self, other):
        return SampledCorrelation(self.layer, self.rows + other.rows)

    @functools.cached_property
    def gram(self):
        """(A* r)(A* r)ᵀ."""
        weights = self.rows @ self.rows.T
        weights *= self.layer.kernel
        return self.layer.h.T @ (weights @ self.layer.h)


class SampledSpectrum(Spectrum):
    """Spectral calculus of one layer whose coefficients are written in the samples."""

    transposed = False

    def __init__(self, coef, eigen, spectral, alpha):
        super().__init__(eigen, spectral)
        self.alpha = alpha
        self.coef = coef
        self.shape = coef.layer.shape

    @functools.cached_property
    def stretched_kernel(self):
        """K ∘ h Z hᵀ."""
        rows = self.coef.layer.h @ (self.basis * self.stretch)
        kernel = rows @ rows.T
        kernel *= self.coef.layer.kernel
        return kernel

    @functools.cached_property
    def of_correlation(self):
        """M = Z / α."""
        return (self.basis * (self.stretch**2 / self.alpha)) @ self.basis.T

    def newton_change(self, correlation, _):
        """``dB = W (X − G)`` of X = A* r, and ⟨dB, X − G⟩, in double precision."""
        change = SampledChange(self, correlation)
        return change, change.energy

    def pair_factors(self, factors, dtype):
        """a = Uᵀ h of shape (n, p), and b = Uᵀ Θ δ of shape (n, C, p)."""
        basis = self.basis.astype(dtype)
        weights = (self.basis / self.stretch**2).astype(dtype)
        return factors.outer[0].astype(dtype, copy=False) @ basis, _times(self.coef.responses.astype(dtype), weights)

    def along(self, change):
        """B dBᵀ and dB dBᵀ."""
        return change.cross, change.square

    def moved(self, length, change):
        """B + length · dB."""
        layer = self.coef.layer
        weights = _times(self.coef.weights, np.eye(len(self.gram)) + length * change.of_coef.T)
        weights += change.correlation.rows[:, :, None] * (layer.h @ (length * self.of_correlation))[:, None, :]
        return SampledCoef(layer, weights)


class SampledChange:
    """A change ``dB = M A* r + N B`` of one layer, with M = Z / α and N from the formula for W (`spectral_point.py`).

    Attributes
    ----------
    of_coef : ndarray of shape (p, p)
        N.
    energy : float
        ⟨dB, A* r − G⟩.
    """

    def __init__(self, spectrum, correlation):
        self.correlation, self._spectrum = correlation, spectrum
        alpha, basis, z2, v2 = spectrum.alpha, spectrum.basis, spectrum.stretch**2, spectrum.values**2
        self._mixed = spectrum.coef.times_correlation(correlation)
        # In the basis U: B Xᵀ with X = A* r, Θ (X − G)ᵀ, and N.
        mixed = basis.T @ self._mixed @ basis
        turned = (mixed - alpha * np.diag(v2 / z2)) / z2[:, None]
        n = spectrum.differences * (turned + turned.T) / (alpha * z2) - np.eye(len(z2))
        self.of_coef = basis @ n @ basis.T
        # Two parts are those of X, the third is that of G.
        self.energy = np.vdot(spectrum.of_correlation, correlation.gram) + np.vdot(n, mixed.T)
        self.energy -= np.sum(np.diag(mixed) + alpha * v2 * np.diag(n) / z2)

    @functools.cached_property
    def cross(self):
        """B dBᵀ."""
        return self._mixed @ self._spectrum.of_correlation + self._spectrum.gram @ self.of_coef.T

    @functools.cached_property
    def square(self):
        """dB dBᵀ."""
        of_correlation = self._spectrum.of_correlation
        return (
            of_correlation @ (self.correlation.gram @ of_correlation + self._mixed.T @ self.of_coef.T)
            + self.of_coef @ self.cross
        )

    def responses_to_inputs(self):
        """A dB of this layer, of shape (n, C)."""
        spectrum = self._spectrum
        stretched = spectrum.stretched_kernel @ self.correlation.rows / spectrum.alpha
        return stretched + spectrum.coef.responses_to_inputs(spectrum.coef.layer.h @ self.of_coef)


@gram_of.register(SampledCoef)
@gram_of.register(SampledCorrelation)
def _(matrix):
    return matrix.gram


@spectrum_of.register(SampledCoef)
def _(coef, eigen, penalty, alpha, _dtype):
    return SampledSpectrum(coef, eigen, penalty, alpha)


@entries_of.register(SampledCoef)
def _(coef):
    return coef.by_entries()


def _times(array, matrix):
    """Product over the last axis, as one of two matrices."""
    return (array.reshape(-1, array.shape[-1]) @ matrix).reshape(*array.shape[:-1], -1)
